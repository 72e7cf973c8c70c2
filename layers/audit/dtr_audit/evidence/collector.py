"""What evidence needs to know of a run's findings, taken in while it goes; bounded, whatever the size of the registry."""

from dataclasses import dataclass, field

from dtr_audit.core.finding import ChangeKind, Excepted, Finding, State
from dtr_audit.core.model import Repository
from dtr_audit.evidence.report import NamespaceSummary, ReportedFinding

FINDINGS_LISTED = 5_000  # open findings that evidence names one by one
CHANGES_LISTED = 1_000  # findings opened, and findings resolved, likewise
SLACK = 0.1  # of those, held beyond them before they are cut


@dataclass(slots=True)
class _FirstByName:
    """The first of many findings by repository and tag, without keeping the many."""

    limit: int
    _held: dict[tuple[Repository, str], ReportedFinding] = field(default_factory=dict)
    _last: tuple[Repository, str] | None = None  # of those that were the first when the others were let go

    def add(self, reported: ReportedFinding) -> None:
        """Take one; the same tag once more replaces what was known of it."""
        name = reported.finding.repository, reported.finding.tag
        if self._last is not None and name > self._last:
            return
        self._held[name] = reported
        if len(self._held) > self.limit * (1 + SLACK):
            names = sorted(self._held)[: self.limit]
            self._held = {name: self._held[name] for name in names}
            self._last = names[-1]

    def in_order(self) -> list[ReportedFinding]:
        """Give the first of them, by name."""
        return [self._held[name] for name in sorted(self._held)[: self.limit]]


@dataclass(slots=True)
class _Namespace:
    open: int = 0
    excepted: int = 0
    oldest: str = ""


class EvidenceCollector:
    """The findings of one run, as evidence tells them."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._open = _FirstByName(FINDINGS_LISTED)
        self._opened = _FirstByName(CHANGES_LISTED)
        self._changed = _FirstByName(CHANGES_LISTED)
        self._resolved = _FirstByName(CHANGES_LISTED)
        self.changed_count = 0
        self._namespaces: dict[str, _Namespace] = {}

    def add(self, finding: Finding, excepted: Excepted | None = None) -> None:
        """Take one finding as it stands after the run, each finding once, with the exception that covers it."""
        reported = ReportedFinding(finding, excepted)
        is_new = finding.changed_in == self._run_id
        if finding.state is State.OPEN:
            self._open.add(reported)
            namespace = self._namespaces.setdefault(finding.repository.namespace, _Namespace())
            namespace.open += 1
            namespace.excepted += excepted is not None
            namespace.oldest = min(namespace.oldest or finding.first_seen, finding.first_seen)
            if is_new and finding.transition is ChangeKind.OPENED:
                self._opened.add(reported)
            elif is_new and finding.transition is ChangeKind.CHANGED:
                self._changed.add(reported)
                self.changed_count += 1
        elif is_new:
            self._resolved.add(reported)

    @property
    def findings(self) -> list[ReportedFinding]:
        """Give the open findings, the first of them by name."""
        return self._open.in_order()

    @property
    def opened(self) -> list[Finding]:
        """Give the findings that this run opened, the first of them by name."""
        return [reported.finding for reported in self._opened.in_order()]

    @property
    def changed(self) -> list[Finding]:
        """Give the open findings whose verdict this run changed, the first of them by name."""
        return [reported.finding for reported in self._changed.in_order()]

    @property
    def resolved(self) -> list[Finding]:
        """Give the findings that this run resolved, the first of them by name."""
        return [reported.finding for reported in self._resolved.in_order()]

    @property
    def namespaces(self) -> list[NamespaceSummary]:
        """Give every namespace with open findings, by name."""
        return [
            NamespaceSummary(name, one.open, excepted=one.excepted, oldest=one.oldest)
            for name, one in sorted(self._namespaces.items())
        ]
