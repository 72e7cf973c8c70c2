"""A function's handler, loaded and called as Lambda does; nothing else is loaded with it."""

import importlib.util
import sys
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Self

Handler = Callable[[dict[str, Any], "Context"], dict[str, Any]]
Clock = Callable[[], datetime]


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


def load_handler(file: Path, name: str, clock: Clock | None = None) -> Handler:
    """Import a handler's file again, as a new execution environment does.

    With a `clock`, the handler reads the time from it. Handlers pass the time on, so the whole run follows that clock.
    """
    module_name = f"functions.{file.parent.name}.{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported as a function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    if clock is not None:
        vars(module)["datetime"] = _follow(clock)
    handler: Handler = getattr(module, name)
    return handler


def _follow(clock: Clock) -> type[datetime]:
    class Following(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(clock().timestamp(), tz)

    return Following
