"""The record of a run: what it saw, in numbers, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from dtr_audit.core.counts import FindingCounts, RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.model import RULE_ID, iso

OTHER_HOSTS_NAMED = 5  # repositories with trust data under another host, in a text


class Status(StrEnum):
    """The answer of one run to the rule."""

    NOT_A_FINDING = "NOT_A_FINDING"
    OPEN = "OPEN"
    NOT_REVIEWED = "NOT_REVIEWED"


class Scope(StrEnum):
    """Whether a run looks at the whole registry or at chosen namespaces."""

    FULL = "full"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class ExceptionsInForce:
    """The document of exceptions as one run found it."""

    version_id: str = ""  # that S3 gave the document; '' where there is none
    active: int = 0
    ended: int = 0
    unmatched: int | None = None  # of those that hold: they cover no finding; None where not all findings are known
    problem: str = ""  # why the document excepts nothing

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the run record."""
        return {
            "version_id": self.version_id or None,
            "holding": self.active,
            "ended": self.ended,
            "unmatched": self.unmatched,
            "problem": self.problem or None,
        }


@dataclass(frozen=True, slots=True)
class PreviousRun:
    """The last complete run of the whole registry before this one: how large the registry was then."""

    run_id: str
    repositories: int
    tags: int

    def percent_left(self, repositories: int, tags: int) -> float:
        """Compare sizes: 100 is unchanged, 0 is gone; the smaller of the two shares counts."""
        shares = [
            100.0 * now / before for now, before in ((repositories, self.repositories), (tags, self.tags)) if before
        ]
        return min(shares, default=100.0)

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the run record."""
        return {"run_id": self.run_id, "repositories": self.repositories, "tags": self.tags}


@dataclass(frozen=True, slots=True)
class SupportingFact:
    """What was seen of a neighbouring rule or setting: context for the assessor, never a reason to pass V-235846."""

    subject: str  # e.g. "UCP: content trust is enforced"
    answer: str  # e.g. "no: require_content_trust is false"
    rule_id: str = ""  # of the neighbouring rule that this answers, e.g. V-235796
    status: Status = Status.NOT_REVIEWED  # of that rule

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the run record."""
        return {
            "subject": self.subject,
            "answer": self.answer,
            "rule_id": self.rule_id or None,
            "status": str(self.status) if self.rule_id else None,
        }


@dataclass(frozen=True, slots=True)
class OtherHosts:
    """Repositories without a signed tag for which the Notary has trust data under a host that was not asked for."""

    repositories: int = 0
    first: tuple[tuple[str, str], ...] = ()  # by name: (repository, the first of those hosts)

    @property
    def formatted(self) -> str:
        """Say which they are, and what is to be done; '' if there are none."""
        if not self.repositories:
            return ""
        noun = "repository has" if self.repositories == 1 else "repositories have"
        named = "; ".join(f"{repository} under {host}" for repository, host in self.first[:OTHER_HOSTS_NAMED])
        first = ", the first of them" if self.repositories > len(self.first[:OTHER_HOSTS_NAMED]) else ""
        return (
            f"{self.repositories} {noun} no signed tag under the domains asked for, and trust data under another host{first}: "
            f"{named}. If that is a former or a second name of this registry, add it to DTR_DOMAINS, or sign the images under the "
            "present name"
        )

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the run record."""
        return {
            "repositories": self.repositories,
            "first": [{"repository": repository, "host": host} for repository, host in self.first],
        }


@dataclass(frozen=True, slots=True)
class BaselineRead:
    """The customer's own checklist as one run found it."""

    key: str
    version_id: str = ""  # that S3 gave it; '' where it could not be read
    sha256: str = ""  # likewise
    problem: str = ""  # why the answer was not put into it

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the run record."""
        return {
            "key": self.key,
            "version_id": self.version_id or None,
            "sha256": self.sha256 or None,
            "problem": self.problem or None,
        }


@dataclass(frozen=True, slots=True)
class SecurityHubUpdate:
    """What Security Hub took of what it was sent in a run."""

    accepted: int
    refused: int  # one by one, by their content
    up_to_date: bool  # nothing is owed to it any more
    warning: str = ""  # why not; it may name a finding, and stands among the run's warnings

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the run record."""
        return {"accepted": self.accepted, "refused": self.refused, "up_to_date": self.up_to_date}


@dataclass(frozen=True, slots=True)
class Run:
    """One audit of one registry: the run record."""

    registry: str
    run_id: str
    scope: Scope
    namespaces: tuple[str, ...]
    status: Status
    incomplete_because: tuple[str, ...]
    warnings: tuple[str, ...]
    domains: tuple[str, ...]
    started_at: datetime
    finished_at: datetime
    repositories: RepositoryCounts
    tags: TagCounts
    findings: FindingCounts
    unreadable: tuple[tuple[str, str], ...] = ()  # the first of them: (repository, why)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    oldest_open: str = ""  # ISO 8601: since when the oldest open finding is; '' where none is open
    previous: PreviousRun | None = None
    facts: tuple[SupportingFact, ...] = ()  # beside the rule; they decide nothing
    baseline: BaselineRead | None = None  # None where none is asked for, and in a partial run
    exceptions: ExceptionsInForce = field(default_factory=ExceptionsInForce)
    security_hub: SecurityHubUpdate | None = None  # None: it was not told
    trust: TrustCounts | None = None  # None: the registry's word was taken
    other_hosts: OtherHosts = field(default_factory=OtherHosts)
    registry_version: str = ""  # as the registry says; '' where it does not

    @property
    def complete(self) -> bool:
        """Whether everything in scope was read."""
        return not self.incomplete_because

    @property
    def is_empty(self) -> bool:
        """Whether the registry is proven to hold no image at all."""
        nothing = self.tags.audited == self.tags.artifacts == 0
        return self.scope is Scope.FULL and self.complete and nothing

    @property
    def known_open(self) -> int:
        """Count the open findings of earlier runs whose tags this run could not read."""
        return max(self.findings.open - self.tags.failed, 0)

    @property
    def unread(self) -> int:
        """Count the listed repositories that were not read to the end: unreadable ones, and those there was no time for."""
        left = self.repositories.listed - self.repositories.audited - self.repositories.removed
        return max(left, self.repositories.unreadable)

    @property
    def coverage_percent(self) -> float:
        """Give the share of the listed repositories that were read to the end, 0..100."""
        expected = self.repositories.listed - self.repositories.removed
        if expected <= 0:
            return 100.0 if self.complete else 0.0
        return 100.0 * self.repositories.audited / expected

    @property
    def size_percent(self) -> float:
        """Give the size of what was read against the run before, in percent; 100 where there is none to compare with."""
        if self.previous is None:
            return 100.0
        return self.previous.percent_left(self.repositories.audited, self.tags.audited)

    @property
    def oldest_open_days(self) -> float:
        """Give the age of the oldest open finding at the run's end, in days; 0 where none is open."""
        if not self.oldest_open:
            return 0.0
        return (self.finished_at - datetime.fromisoformat(self.oldest_open)).total_seconds() / 86_400

    @property
    def duration_seconds(self) -> float:
        """Give the time from start to finish, in seconds."""
        return (self.finished_at - self.started_at).total_seconds()

    def as_dict(self) -> dict[str, Any]:
        """Give the run record as it is stored: `runs/…json`, the runs table, `run.json`."""
        return {
            "rule_id": RULE_ID,
            "registry": self.registry,
            "run_id": self.run_id,
            "scope": str(self.scope),
            "namespaces": list(self.namespaces),
            "status": str(self.status),
            "complete": self.complete,
            "empty": self.is_empty,
            "incomplete_because": list(self.incomplete_because),
            "warnings": list(self.warnings),
            "domains": list(self.domains),
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "repositories": self.repositories.as_dict(),
            "tags": self.tags.as_dict(),
            "findings": self.findings.as_dict(),
            "oldest_open": self.oldest_open or None,
            "previous": self.previous.as_dict() if self.previous else None,
            "facts": [fact.as_dict() for fact in self.facts],
            "baseline": self.baseline.as_dict() if self.baseline else None,
            "exceptions": self.exceptions.as_dict(),
            "unreadable": [{"repository": name, "reason": reason} for name, reason in self.unreadable],
            "evidence": dict(self.evidence),
            "security_hub": self.security_hub.as_dict() if self.security_hub else None,
            "trust": self.trust.as_dict() if self.trust else None,
            "other_hosts": self.other_hosts.as_dict(),
            "registry_version": self.registry_version or None,
        }
