"""What a command's exit status says, to people and to pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitStatus(IntEnum):
    """The statuses; whatever is not a complete answer is NOT_COMPLETED or INTERRUPTED."""

    NOTHING_FOUND = 0
    FINDINGS_OPEN = 1
    NOT_COMPLETED = 2
    INTERRUPTED = 130  # 128 and SIGINT, as shells say it

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> ExitStatus:
        """Give the status for a run record.

        A run that is not complete ends in 2 even if it found something: a pipeline that tolerates known findings (1)
        must still stop where nobody knows what was not read. A partial run without findings ends in 2 too, as it
        answers nothing for the registry.
        """
        if not run["complete"] or run["status"] == "NOT_REVIEWED":
            return cls.NOT_COMPLETED
        return cls.NOTHING_FOUND if run["status"] == "NOT_A_FINDING" else cls.FINDINGS_OPEN

    def spoken(self) -> str:
        """Say it in words."""
        return {
            ExitStatus.NOTHING_FOUND: "complete, and nothing found",
            ExitStatus.FINDINGS_OPEN: "complete, and there are findings",
            ExitStatus.NOT_COMPLETED: "not everything in the registry was read, so nobody can rely on this",
            ExitStatus.INTERRUPTED: "interrupted",
        }[self]
