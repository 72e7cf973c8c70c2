"""In which order a run reads the repositories, and where the next one begins if this one is out of time."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dtr_audit.core.counts import RepositoryCounts
from dtr_audit.core.model import Repository


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a run begins to read: at a repository that the last run of the whole registry did not come to."""

    repository: Repository
    is_sorted: bool  # whether the registry listed by `namespace/name`, as far as was seen

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the runs table."""
        return {
            "namespace": self.repository.namespace,
            "repository": self.repository.name,
            "is_sorted": self.is_sorted,
        }

    @classmethod
    def of_dict(cls, kept: Mapping[str, Any]) -> "Mark":
        """Read the form of the runs table."""
        return cls(Repository(str(kept["namespace"]), str(kept["repository"])), bool(kept["is_sorted"]))


class ReadingOrder:
    """The list from the mark on, then what stands before it; notes what was examined. Safe to share between threads.

    What stands before the mark is held back in memory, names only, until the list is at its end. A repository is looked for by its
    place in the list, which need not be sorted. In one that is, a mark that was removed gives way to whatever follows it; in
    another nobody knows what followed, and the run reads from the beginning.
    """

    def __init__(self, begins_at: Mark | None = None) -> None:
        """Prepare; without a mark the order is the list's own."""
        self._begins_at = begins_at
        self._lock = threading.Lock()
        self._waiting: dict[Repository, None] = {}  # handed out and not yet examined, in that order
        self._last: Repository | None = None  # handed out
        self._is_sorted = True
        self._is_over = False

    def arrange(self, listed: Iterator[Repository]) -> Iterator[Repository]:
        """Give the list in the order of reading."""
        for repository in self._turned(listed):
            with self._lock:
                self._waiting[repository] = None
                self._last = repository
            yield repository
        self._is_over = True

    def note_scanned(self, repository: Repository) -> None:
        """Note that a repository was read, or at least answered."""
        with self._lock:
            self._waiting.pop(repository, None)

    @property
    def missed_from(self) -> Mark | None:
        """Where the next run should begin if this one ends now; None if nothing is missing.

        It is the first repository that was handed out and not examined: several are being read at any time. If it is the very one
        that this run began with, the next one is: what a whole night was not enough for must not keep the rest unread.
        """
        with self._lock:
            began = self._begins_at.repository if self._begins_at is not None else None
            first = next((one for one in self._waiting if one != began), None)
            if first is None and not self._is_over:
                if self._last is None:
                    return self._begins_at
                first = self._last if self._last != began else None
            return None if first is None else Mark(first, self._is_sorted)

    def _turned(self, listed: Iterator[Repository]) -> Iterator[Repository]:
        mark = self._begins_at
        before: Repository | None = None
        held: list[Repository] = []
        is_met = mark is None
        for repository in listed:
            self._is_sorted = self._is_sorted and (before is None or str(before) <= str(repository))
            before = repository
            if mark is not None and not is_met:
                is_behind = str(repository) > str(mark.repository)
                is_met = repository == mark.repository or (mark.is_sorted and is_behind)
            if is_met:
                yield repository
            else:
                held.append(repository)
        yield from held


def explain_out_of_time(read: RepositoryCounts, next_at: Mark | None) -> str:
    """Say how far a run in one function came, and what is to be done about it."""
    text = (
        f"it was stopped before the time limit of the function: {read.audited} repositories had been read to their end, of "
        f"{read.listed} listed until then. "
    )
    if next_at is not None:
        text += f"The next audit of the whole registry begins at {next_at.repository}. "
    return text + (
        "For an answer in one audit raise the template's parameter Concurrency, if the registry bears it, MemoryMegabytes or "
        "TimeoutSeconds; or set Engine to stepfunctions, which shares the reading out among several functions"
    )
