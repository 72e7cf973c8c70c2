"""What a function prints while it runs in this process: kept in a file, and read for its progress."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

Record = Mapping[str, Any]
_TROUBLE = frozenset({"WARNING", "ERROR", "CRITICAL"})
TROUBLE_KEPT = 20


class FunctionLog(io.TextIOBase):
    """Standard output for a function, as CloudWatch Logs is in Lambda.

    Powertools' Logger binds the standard output of the moment at which the function is first loaded: a process
    needs one FunctionLog for all its invocations, and captures the first as well as the last with it.
    """

    def __init__(self, file: TextIO) -> None:
        """Prepare to write everything into `file`, which stays the caller's to close."""
        self.trouble: list[str] = []  # messages at WARNING and above, the first of them
        self._file = file
        self._lock = threading.Lock()
        self._begun = ""
        self._follow: Callable[[Record], None] | None = None

    @contextlib.contextmanager
    def capture(self, follow: Callable[[Record], None]) -> Iterator[None]:
        """Take what is printed inside the `with`, and call `follow` with each record of the function's log."""
        self._follow = follow
        try:
            with contextlib.redirect_stdout(self):
                yield
        finally:
            self._follow = None

    def writable(self) -> bool:
        """Say yes: it is an output."""
        return True

    def write(self, text: str) -> int:
        """Write to the file, and read every line that is a record."""
        with self._lock:
            if self._file.closed:  # a thread of a run that was interrupted has outlived it
                return len(text)
            self._file.write(text)
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._read(line)
        return len(text)

    def flush(self) -> None:
        """Write what waits to the file."""
        with self._lock:
            if not self._file.closed:
                self._file.flush()

    def _read(self, line: str) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return  # printed, not logged: it is in the file
        if not isinstance(record, dict):
            return
        if record.get("level") in _TROUBLE and len(self.trouble) < TROUBLE_KEPT:
            self.trouble.append(f"{record['level']}: {record.get('message')}")
        if self._follow is not None:
            self._follow(record)
