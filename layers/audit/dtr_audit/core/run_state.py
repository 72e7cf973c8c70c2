"""What a run has seen so far, in numbers, and in the few words that go with them."""

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from dtr_audit.core.counts import FindingCounts, RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.finding import Excepted, Finding
from dtr_audit.core.model import OTHER_HOSTS_KEPT, Repository
from dtr_audit.core.readings import Listing
from dtr_audit.core.run_record import SupportingFact
from dtr_audit.core.text import clean

if TYPE_CHECKING:
    from dtr_audit.core.readings import RelatedSettings

UNREADABLE_KEPT = 100
REASON_LENGTH = 400


@dataclass(slots=True)
class RunState:
    """What a run has seen so far."""

    listing: Listing = field(default_factory=Listing)
    repositories: RepositoryCounts = field(default_factory=RepositoryCounts)
    tags: TagCounts = field(default_factory=TagCounts)
    findings: FindingCounts = field(default_factory=FindingCounts)
    domains: tuple[str, ...] = ()
    incomplete_because: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # the first of them by name, and why
    is_scanned: dict[Repository, bool] = field(default_factory=dict)  # of every repository listed
    namespaces: set[str] = field(default_factory=set)
    open_by_namespace: Counter[str] = field(default_factory=Counter)
    excepted_by_namespace: Counter[str] = field(default_factory=Counter)
    matched: set[str] = field(default_factory=set)  # ids of the exceptions that cover a finding
    oldest: str = ""
    with_pending_notifications: int = 0
    facts: tuple[SupportingFact, ...] = ()
    registry_version: str = ""
    is_trust_verified: bool = False  # else the registry's word was taken
    trust: TrustCounts = field(default_factory=TrustCounts)
    other_hosts: int = 0  # repositories without a signed tag that have trust data under another host
    first_other_hosts: list[tuple[str, str]] = field(default_factory=list)  # the first by name, and such a host
    first_unknown: tuple[str, str] = ("", "")  # of the tags that could not be judged, by name: which, and why

    @property
    def is_all_unsigned(self) -> bool:
        """Whether there are tags, and not one of them is signed under any domain."""
        return 0 < self.tags.audited == self.tags.unsigned

    def note_unreadable(self, repository: Repository, reason: str) -> None:
        """Count a repository that could not be read to its end."""
        self.repositories.unreadable += 1
        self.keep_unreadable(str(repository), clean(reason, REASON_LENGTH))

    def keep_unreadable(self, repository: str, reason: str) -> None:
        """Keep a repository among those that are named, if it is one of the first: whatever the order they were read in."""
        insort(self.unreadable, (repository, reason))
        del self.unreadable[UNREADABLE_KEPT:]

    def note_other_hosts(self, repository: str, host: str) -> None:
        """Count a repository with trust data under a host that was not asked for, and keep it if it is one of the first."""
        self.other_hosts += 1
        self._keep_other_hosts(repository, host)

    def _keep_other_hosts(self, repository: str, host: str) -> None:
        insort(self.first_other_hosts, (repository, host))
        del self.first_other_hosts[OTHER_HOSTS_KEPT:]

    def note_unknown(self, image: str, reason: str) -> None:
        """Remember the first by name of the tags that could not be judged."""
        self.first_unknown = min(self.first_unknown, (image, reason)) if self.first_unknown[0] else (image, reason)

    def add(self, part: "RunState") -> None:
        """Add what was seen of other repositories."""
        for counts, more in ((self.repositories, part.repositories), (self.tags, part.tags)):
            _add(counts, more)
        _add(self.trust, part.trust)
        self.trust.keep_expiring(part.trust.first_expiring)
        for repository, reason in part.unreadable:
            self.keep_unreadable(repository, reason)
        self.other_hosts += part.other_hosts
        for repository, host in part.first_other_hosts:
            self._keep_other_hosts(repository, host)
        if part.first_unknown[0]:
            self.note_unknown(*part.first_unknown)

    def note_incomplete(self, reason: str) -> None:
        """Take down why there is no answer for all that was asked."""
        self.incomplete_because.append(clean(reason, 8 * REASON_LENGTH))

    def note_related_settings(self, seen: "RelatedSettings") -> None:
        """Take down what stands beside the rule."""
        self.facts = seen.facts
        if seen.warning:
            self.warnings.append(seen.warning)

    def count_open(self, finding: Finding, excepted: Excepted | None, *, in_scope: bool) -> None:
        """Count a finding that is open after the run, with the exception that covers it.

        A finding outside the run's scope counts for its namespace only.
        """
        namespace = finding.repository.namespace
        self.open_by_namespace[namespace] += 1
        if excepted is not None:
            self.excepted_by_namespace[namespace] += 1
            self.matched.add(excepted.exception_id)
        if in_scope:
            self.findings.open += 1
            self.findings.excepted += excepted is not None
            self.oldest = min(self.oldest or finding.first_seen, finding.first_seen)


def _add(counts: RepositoryCounts | TagCounts | TrustCounts, more: RepositoryCounts | TagCounts | TrustCounts) -> None:
    for one in fields(more):
        if one.type is int:
            setattr(counts, one.name, getattr(counts, one.name) + getattr(more, one.name))
