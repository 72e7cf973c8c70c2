"""One audit, alone in a process: `python -m tools.bench.auditor`, the function's own handler under the function's own environment.

It reads from standard input what to do, and writes to standard output what it took. Nothing but the function is loaded
beside the standard library, so that its memory and its processor time are the audit's.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.handler import Context, load_handler

FUNCTION = PROJECT / "functions" / "audit" / "app.py"
MEMORY = 512  # megabytes; what the handler is told, and no limit here


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
    handler = load_handler(FUNCTION, "handler")
    loaded_bytes = peak_bytes()
    processor = time.process_time()
    at = time.monotonic()
    context = Context("bench", memory=MEMORY, seconds=wanted["seconds"], request_id=wanted["request_id"])
    record = handler(wanted["event"], context)
    return {
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
            from tools.bench.profile import profiled  # noqa: PLC0415 - only then

            answer = profiled(lambda: audit(wanted))
        else:
            answer = audit(wanted)
        sys.stdout = answers
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
