"""What subscribers have not been notified of yet, grouped by namespace."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from dtr_audit.core.finding import ChangeKind, Finding, State, Transition
from dtr_audit.core.finding_spool import FindingSpool

NAMESPACE_ITEMS = 60  # held for one namespace
HELD_ITEMS = 10_000  # held in all, their names alone: memory does not grow with the news
HELD_ALWAYS = 5  # of each kind in a namespace, so that none is told in numbers alone
# In the order in which they are told: what needs doing first.
HEADINGS = {
    ChangeKind.OPENED: "NEW",
    ChangeKind.EXPIRED: "NO LONGER EXCEPTED",
    ChangeKind.EXPIRING: "EXCEPTION ENDS SOON",
    ChangeKind.CHANGED: "CHANGED",
    ChangeKind.RESOLVED: "RESOLVED",
}


@dataclass(frozen=True, slots=True)
class NotificationItem:
    """A finding, and the move of it that is told."""

    finding: Finding
    move: Transition


class ItemRef(NamedTuple):
    """A move that may be told: its finding's name, by which it is sorted, and where all of it lies."""

    repository: str  # its name in its namespace
    tag: str
    place: int  # of the finding in the file
    move: int  # of the finding's news, counted from 0


@dataclass(slots=True)
class NamespaceChanges:
    """What is new in one namespace: how much, and the first of it by name."""

    counts: dict[ChangeKind, int] = field(default_factory=lambda: dict.fromkeys(ChangeKind, 0))
    first: dict[ChangeKind, list[ItemRef]] = field(
        default_factory=lambda: {change_kind: [] for change_kind in ChangeKind}
    )
    locations: "array[int]" = field(default_factory=lambda: array("Q"))  # of its findings in the file


class PendingNotifications:
    """All that is to be announced, counted by namespace; the findings themselves wait in a file."""

    def __init__(self) -> None:
        self.namespaces: dict[str, NamespaceChanges] = {}
        self.findings = FindingSpool()
        self.quiet_locations = array("Q")  # of findings of which nobody is to hear
        self._held = 0

    def add(self, finding: Finding) -> None:
        """Take one finding with news."""
        place = self.findings.add(finding)
        moves = [
            (number, move.change_kind) for number, move in enumerate(finding.pending_notifications) if not move.is_quiet
        ]
        if not moves:
            self.quiet_locations.append(place)
            return
        namespace = self.namespaces.setdefault(finding.repository.namespace, NamespaceChanges())
        namespace.locations.append(place)
        for number, change_kind in moves:
            namespace.counts[change_kind] += 1
            held = namespace.first[change_kind]
            if self._held < HELD_ITEMS or len(held) < HELD_ALWAYS:
                held.append(ItemRef(finding.repository.name, finding.tag, place, number))
                self._held += 1
            if len(held) > 2 * NAMESPACE_ITEMS:
                held.sort()
                self._held -= len(held) - NAMESPACE_ITEMS
                del held[NAMESPACE_ITEMS:]

    def first(self, names: Iterable[str], limit: int) -> dict[ChangeKind, list[NotificationItem]]:
        """Give at most `limit` moves of some namespaces, what needs doing first."""
        reported: dict[ChangeKind, list[NotificationItem]] = {}
        namespaces = sorted(names)
        for change_kind in HEADINGS:
            held = chain.from_iterable(sorted(self.namespaces[name].first[change_kind]) for name in namespaces)
            first = tuple(islice(held, limit))
            findings = self.findings.at(one.place for one in first)
            reported[change_kind] = [
                NotificationItem(finding, finding.pending_notifications[one.move])
                for one, finding in zip(first, findings, strict=True)
            ]
            limit -= len(first)
        return reported

    def to_fix(self, name: str) -> Iterator[Finding]:
        """Yield the open findings of a namespace that are held, what needs doing first."""
        for change_kind in HEADINGS:
            if change_kind is not ChangeKind.RESOLVED:
                for one in sorted(self.namespaces[name].first[change_kind]):
                    (finding,) = self.findings.at((one.place,))
                    if finding.state is State.OPEN:
                        yield finding

    def close(self) -> None:
        """Let go of the file."""
        self.findings.close()
