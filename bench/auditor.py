"""One audit, alone in a process: `python -m bench.auditor`, the function's own handler under the function's own environment.

It reads from standard input what to do, and writes to standard output what it took. Nothing but the function is loaded
beside the standard library, so that its memory and its processor time are the audit's.
"""

from __future__ import annotations

import importlib.util
import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
FUNCTION = PROJECT / "functions" / "audit" / "app.py"


class Context:
    """What Lambda tells a handler about its invocation."""

    function_name = "bench"
    function_version = "$LATEST"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:local:lambda:local:000000000000:function:bench"
    log_group_name = "/aws/lambda/bench"
    log_stream_name = "bench"

    def __init__(self, request_id: str, seconds: float) -> None:
        self.aws_request_id = request_id
        self._ends_at = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Give the time until the invocation would be ended."""
        return max(0, int((self._ends_at - time.monotonic()) * 1000))


def peak_bytes() -> int:
    """Give the most memory that this process has held.

    Linux says so of the process itself; `ru_maxrss` would begin with what its parent held when it started it.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found.group(1)) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def audit(wanted: dict[str, Any]) -> dict[str, Any]:
    """Load the handler and call it; gives the record with the times, in seconds, and the memory, in bytes."""
    sys.path.insert(0, str(PROJECT / "layers" / "audit"))
    began = time.monotonic()
    spec = importlib.util.spec_from_file_location("app", FUNCTION)
    if spec is None or spec.loader is None:
        raise ImportError(f"{FUNCTION} cannot be imported as a function")
    module = importlib.util.module_from_spec(spec)
    sys.modules["app"] = module
    spec.loader.exec_module(module)
    loaded_bytes = peak_bytes()
    processor = time.process_time()
    at = time.monotonic()
    record = module.handler(wanted["event"], Context(wanted["request_id"], wanted["seconds"]))
    return {
        "load_seconds": at - began,
        "load_processor_seconds": processor,
        "seconds": time.monotonic() - at,
        "processor_seconds": time.process_time() - processor,
        "loaded_bytes": loaded_bytes,
        "peak_bytes": peak_bytes(),
        "record": record,
    }


def main() -> None:
    """Make the audit that standard input asks for; the function's log goes nowhere."""
    wanted = json.loads(sys.stdin.readline())
    answers = sys.stdout
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        sys.stdout = nowhere
        if wanted.get("profile"):
            from .shares import profiled  # noqa: PLC0415 - only then

            answer = profiled(lambda: audit(wanted))
        else:
            answer = audit(wanted)
        sys.stdout = answers
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
