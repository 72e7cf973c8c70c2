"""Findings that wait in a temporary file."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator

from dtr_audit.core.finding import Finding
from dtr_audit.core.finding_codec import parse_finding, write_finding


class FindingSpool:
    """Findings that wait in a temporary file, so that a registry full of them does not fill the memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._length = 0
        self._end = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Finding]:
        self._file.seek(0)
        for line in self._file:
            yield parse_finding(json.loads(line))

    def add(self, finding: Finding) -> int:
        """Take one more, not while iterating; gives the place at which `at()` finds it."""
        place = self._end
        line = json.dumps(write_finding(finding)).encode() + b"\n"
        self._file.write(line)
        self._length += 1
        self._end += len(line)
        return place

    def drop(self, is_dropped: Callable[[Finding], bool]) -> None:
        """Take findings out again; the places of the others change."""
        kept = FindingSpool()
        for finding in self:
            if not is_dropped(finding):
                kept.add(finding)
        self._file.close()
        self._file, self._length, self._end = kept._file, kept._length, kept._end

    def at(self, locations: Iterable[int]) -> Iterator[Finding]:
        """Yield the findings at some places."""
        for place in locations:
            self._file.seek(place)
            yield parse_finding(json.loads(self._file.readline()))

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
