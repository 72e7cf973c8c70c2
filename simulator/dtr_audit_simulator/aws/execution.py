"""How an execution of a state machine has ended, and what makes its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Step = Callable[[str, dict[str, Any]], dict[str, Any]]  # of the function's logical id and its event


class StackOfMachines(Protocol):
    """What an execution needs of the stack that its machine belongs to."""

    region: str
    steps: Any  # a client of Step Functions

    def physical_id(self, logical_id: str) -> str:
        """Give the ARN of a machine."""
        ...

    def function_arns(self) -> dict[str, str]:
        """Give the ARN of every function, by its logical id."""
        ...


@dataclass(frozen=True, slots=True)
class Execution:
    """How an execution of a machine has ended."""

    arn: str
    status: str  # SUCCEEDED, FAILED, TIMED_OUT or ABORTED
    output: Any  # None unless it succeeded
    error: str
    cause: str
    entered: tuple[tuple[str, Any], ...]  # the states of the machine itself, with their inputs, in order
