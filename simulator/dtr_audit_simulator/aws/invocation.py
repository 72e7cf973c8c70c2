"""Invoke a function of the deployed stack in this process, as Lambda would: its handler, its environment, its time limit."""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dtr_audit_simulator.aws.handler import Clock, Context, load_handler
from dtr_audit_simulator.aws.stack import Stack


def invoke(
    stack: Stack,
    logical_id: str,
    event: dict[str, Any],
    *,
    seconds: float | None = None,
    request_id: str = "",
    environment: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Invoke a function with an event and give its result.

    `seconds` is the function's own timeout if not given; the same `request_id` is what a retry of an event carries;
    `environment` overrides single variables; `clock` replaces the machine's time.
    """
    context = Context(
        logical_id,
        memory=stack.function_memory(logical_id),
        seconds=stack.function_timeout(logical_id) if seconds is None else seconds,
        request_id=request_id or str(uuid.uuid4()),
    )
    region = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), stack.region)
    with _environment({**region, **stack.function_environment(logical_id), **(environment or {})}):
        return load_handler(*stack.handler_path(logical_id), clock)(event, context)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
