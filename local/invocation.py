"""Invoke a function of the deployed stack in this process, as Lambda would: its handler, its environment, its time limit."""

import importlib.util
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .stack import Stack

Handler = Callable[[dict[str, Any], "Context"], dict[str, Any]]


class Context:
    """What Lambda tells a handler about its invocation."""

    def __init__(self, name: str, *, memory: int, seconds: float, request_id: str) -> None:
        self.function_name = name
        self.function_version = "$LATEST"
        self.memory_limit_in_mb = memory
        self.invoked_function_arn = f"arn:local:lambda:local:000000000000:function:{name}"
        self.aws_request_id = request_id
        self.log_group_name = f"/aws/lambda/{name}"
        self.log_stream_name = "local"
        self._ends_at = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Give the time until the invocation would be ended."""
        return max(0, int((self._ends_at - time.monotonic()) * 1000))


def invoke(
    stack: Stack,
    logical_id: str,
    event: dict[str, Any],
    *,
    seconds: float | None = None,
    request_id: str = "",
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Invoke a function with an event and give its result.

    `seconds` is the function's own timeout if not given; the same `request_id` is what a retry of an event carries;
    `environment` overrides single variables.
    """
    context = Context(
        logical_id,
        memory=stack.function_memory(logical_id),
        seconds=stack.function_timeout(logical_id) if seconds is None else seconds,
        request_id=request_id or str(uuid.uuid4()),
    )
    region = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), stack.region)
    with _environment({**region, **stack.function_environment(logical_id), **(environment or {})}):
        return load_handler(*stack.handler_path(logical_id))(event, context)


def load_handler(file: Path, name: str) -> Handler:
    """Import a handler's file afresh, as a new execution environment does."""
    module_name = f"functions.{file.parent.name}.{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported as a function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    handler: Handler = getattr(module, name)
    return handler


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
