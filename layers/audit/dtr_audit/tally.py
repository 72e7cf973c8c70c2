"""What a run has seen so far, in numbers, and in the few words that go with them."""

from collections import Counter
from dataclasses import dataclass, field

from .dtr import Listing
from .model import (
    Excepted,
    Finding,
    FindingCounts,
    Repository,
    RepositoryCounts,
    SupportingFact,
    TagCounts,
    TrustCounts,
)


@dataclass(slots=True)
class Tally:
    """What a run has seen so far."""

    listing: Listing = field(default_factory=Listing)
    repositories: RepositoryCounts = field(default_factory=RepositoryCounts)
    tags: TagCounts = field(default_factory=TagCounts)
    findings: FindingCounts = field(default_factory=FindingCounts)
    domains: tuple[str, ...] = ()
    incomplete_because: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    is_examined: dict[Repository, bool] = field(default_factory=dict)  # of every repository listed
    namespaces: set[str] = field(default_factory=set)
    open_by_namespace: Counter[str] = field(default_factory=Counter)
    excepted_by_namespace: Counter[str] = field(default_factory=Counter)
    matched: set[str] = field(default_factory=set)  # ids of the exceptions that cover a finding
    oldest: str = ""
    holding_news: int = 0
    facts: tuple[SupportingFact, ...] = ()
    trust: TrustCounts = field(default_factory=TrustCounts)
    first_unknown: str = ""  # of the tags that could not be judged: which, and why

    def count_open(self, finding: Finding, excepted: Excepted | None) -> None:
        """Count a finding that is open after the run, with the exception that covers it."""
        self.findings.open += 1
        self.open_by_namespace[finding.repository.namespace] += 1
        self.oldest = min(self.oldest or finding.first_seen, finding.first_seen)
        if excepted is not None:
            self.findings.excepted += 1
            self.excepted_by_namespace[finding.repository.namespace] += 1
            self.matched.add(excepted.exception_id)
