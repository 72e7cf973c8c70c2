"""The words of the audit: repositories, tags, verdicts, findings, the run. No I/O here."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

RULE_ID = "V-235846"
REUSE = (
    "An attacker with the server's keys can re-use a signer's document wherever that key is accepted. Documents that the audits "
    "have seen in two repositories or roles do not count. Against others, use one delegation key per repository, and pin the roots."
)
EXPIRING_NAMED = 5  # repositories whose trust data expires soon
OTHER_HOSTS_NAMED = 5  # repositories with trust data under another host, in a text
OTHER_HOSTS_KEPT = 100  # and in the run record
NAME_LENGTH = 255  # characters of a namespace, or of a repository's own name
NAME_BYTES = 900  # of the same as UTF-8: two of them and the registry's name fit into a key of DynamoDB, which has 2048


class Verdict(StrEnum):
    """What is known of one image tag."""

    SIGNED = "SIGNED"
    UNSIGNED = "UNSIGNED"
    MISMATCHED = "MISMATCHED"  # signed once, then overwritten by an unsigned push
    UNTRUSTED = "UNTRUSTED"  # signed, but the trust data does not hold
    UNKNOWN = "UNKNOWN"  # could not be read: never a pass


FINDING_VERDICTS = frozenset({Verdict.UNSIGNED, Verdict.MISMATCHED, Verdict.UNTRUSTED})


class Status(StrEnum):
    """The answer of one run to the rule."""

    NOT_A_FINDING = "NOT_A_FINDING"
    OPEN = "OPEN"
    NOT_REVIEWED = "NOT_REVIEWED"


class Scope(StrEnum):
    """Whether a run looks at the whole registry or at chosen namespaces."""

    FULL = "full"
    PARTIAL = "partial"


class State(StrEnum):
    """Where a finding stands."""

    OPEN = "OPEN"
    RESOLVED = "RESOLVED"


class News(StrEnum):
    """How a finding moves."""

    OPENED = "opened"
    CHANGED = "changed"
    RESOLVED = "resolved"
    EXPIRING = "expiring"  # the exception that covers it ends within a week
    EXPIRED = "expired"  # no exception covers it any more


def is_name(value: object) -> bool:
    """Tell whether a value can be a namespace or a repository's own name: a text that a request's path can carry as one segment.

    LDAP allows far more than Docker's own grammar, so only what percent-encoding cannot make safe is refused: control characters
    and all others that cannot be printed, lone surrogates among them, a slash, and the two names that stand for another folder.
    """
    return (
        isinstance(value, str)
        and 0 < len(value) <= NAME_LENGTH
        and value.isprintable()
        and "/" not in value
        and value not in {".", ".."}
        and (value.isascii() or len(value.encode()) <= NAME_BYTES)
    )


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository of the registry; `str()` gives `namespace/name`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# What there is one of for each tag is a tuple with names: one is made in a third of the time of a frozen dataclass.


class TrustFlags(NamedTuple):
    """What the registry says of one tag's signature under one domain.

    A flag is None where the registry's answer has it missing or not a boolean.
    """

    domain: str
    in_notary: bool | None
    hash_mismatch: bool | None


class Tag(NamedTuple):
    """A tag as the registry lists it; texts are already bounded and free of control characters."""

    name: str
    digest: str
    author: str
    pushed_at: str
    media_type: str
    cosign_signed: bool | None
    trust: tuple[TrustFlags, ...]


class JudgedTag(NamedTuple):
    """A tag with its verdict; `verdict` is None for a signature artifact, which is no image."""

    tag: Tag
    verdict: Verdict | None
    reason: str
    trust: TrustFlags | None  # the flags that decided
    signers: tuple[str, ...] = ()  # as `docker trust inspect` names them; empty unless trust is verified
    trust_expires: str = ""  # ISO 8601: when the first of what its signature hangs on expires; likewise

    @property
    def is_artifact(self) -> bool:
        """Whether its content shows a signature, an attestation or an SBOM."""
        return self.verdict is None

    @property
    def is_finding(self) -> bool:
        """Whether the rule has something to find here."""
        return self.verdict in FINDING_VERDICTS

    @property
    def signed_domain(self) -> str:
        """The domain under which the tag is signed, or ''."""
        return self.trust.domain if self.trust and self.verdict is Verdict.SIGNED else ""


@dataclass(frozen=True, slots=True)
class TrustSeen:
    """What came of the trust data of one repository under one domain."""

    domain: str
    outcome: str  # a `notary.reading.Outcome`
    reason: str  # why it is not verified
    is_first_use: bool  # its root is trusted because nothing is pinned and none was seen before
    expiring: tuple[tuple[str, str], ...]  # (role, ISO 8601): what expires soon, the first to come first
    memory: str  # to be kept for the next run; '' where that knows it already
    notes: tuple[str, ...] = ()  # what is worth saying though it holds


@dataclass(frozen=True, slots=True)
class SignedDocuments:
    """Which signed documents make up a repository's trust data: hashes of what was signed, under all domains."""

    current: tuple[str, ...]  # of those that are served now
    earlier: tuple[str, ...] = ()  # of those that were served before, as far as they are remembered
    reused: str = ""  # why no signature of the repository counts; '' if they do


@dataclass(frozen=True, slots=True)
class PassingFault:
    """Why something could not be read, where to read it again later may help."""

    reason: str
    retry_after: float = 0.0  # how long the peer asks to wait, in seconds


@dataclass(frozen=True, slots=True)
class RepositoryReading:
    """What was read of one repository; `problem` is '' when it was read to the end."""

    repository: Repository
    tags: tuple[JudgedTag, ...] = ()
    problem: str = ""
    gone: bool = False  # the registry answered 404: deleted meanwhile, or not readable
    has_no_account: bool = False  # and said that the account whose namespace it is does not exist
    trust: tuple[TrustSeen, ...] = ()  # by domain; empty unless trust is verified
    documents: SignedDocuments | None = None  # None unless trust is verified
    fault: PassingFault | None = None  # that spoiled a part of it: the tags, a manifest or the trust data
    other_hosts: tuple[str, ...] = ()  # with trust data, where no tag is signed under a domain that was asked for

    @property
    def is_complete(self) -> bool:
        """Whether every tag was read."""
        return not self.problem and not self.gone


@dataclass(frozen=True, slots=True)
class Excepted:
    """An exception that covers a finding: who answers for it, and until when. The finding stays one."""

    exception_id: str
    owner: str
    reason: str
    reference: str  # e.g. a POA&M item; '' for none
    ends: str  # YYYY-MM-DD, the last day on which it holds


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of a finding, as it is to be told: what, in which run, and what was true then."""

    news: News
    run_id: str
    first_seen: str  # of the finding that moved: a tag can be opened, resolved and opened anew
    resolution: str = ""  # of the finding; of an exception, why it covers no more
    excepted: Excepted | None = None  # the exception that this is about
    is_quiet: bool = False  # nobody is to be told: nobody had heard that the finding was open


@dataclass(frozen=True, slots=True)
class Finding:
    """One tag that is, or was, not signed; the item of the findings table.

    `unannounced` are the moves that no subscriber has heard of yet, oldest first. Times are ISO 8601, UTC. `excepted` is what
    was known when the tag was last read.
    """

    registry: str
    repository: Repository
    tag: str
    state: State
    verdict: Verdict
    reason: str
    digest: str
    author: str
    pushed_at: str
    first_seen: str
    last_changed: str
    transition: News  # the last
    changed_in: str  # and the run that made it
    resolution: str = ""
    unannounced: tuple[Transition, ...] = ()
    media_type: str = ""  # of what the tag holds; '' where the registry does not say
    excepted: Excepted | None = None
    told_end: str = ""  # the end of its exception that was news, YYYY-MM-DD
    is_unheard: bool = False  # it is open, and no message that says so has been published yet
    author_name: str = ""  # of the account whose id is `author`; '' where the registry does not name it

    @property
    def pushed_by(self) -> str:
        """Give who pushed it, in the form for people: the account's name, else what the registry shows; '' if it shows nothing."""
        return self.author_name or self.author


@dataclass(slots=True)
class TagCounts:
    """How many tags got which verdict; `audited` is their sum, artifacts apart."""

    signed: int = 0
    unsigned: int = 0
    mismatched: int = 0
    untrusted: int = 0
    unknown: int = 0
    artifacts: int = 0
    cosign_only: int = 0  # of those that are a finding: the registry says that Cosign signed them

    def count(self, tags: Collection[JudgedTag]) -> None:
        """Add some tags."""
        for verdict, many in Counter([judged.verdict for judged in tags]).items():
            name = "artifacts" if verdict is None else verdict.lower()
            setattr(self, name, getattr(self, name) + many)
        self.cosign_only += sum(1 for judged in tags if judged.tag.cosign_signed and judged.is_finding)

    @property
    def audited(self) -> int:
        """Image tags that were looked at, whatever came out."""
        return self.signed + self.unsigned + self.mismatched + self.untrusted + self.unknown

    @property
    def failed(self) -> int:
        """Image tags that are a finding."""
        return self.unsigned + self.mismatched + self.untrusted

    @property
    def neither(self) -> int:
        """Image tags that are a finding, and that Cosign has not signed either."""
        return self.failed - self.cosign_only

    @property
    def is_cosign_used(self) -> bool:
        """Whether Cosign explains most of what is not signed with Docker Content Trust."""
        return self.cosign_only > 0 and self.cosign_only >= self.neither

    @property
    def signatures(self) -> str:
        """Say with what the image tags are signed; '' where the registry reports Cosign for no finding."""
        if not self.cosign_only:
            return ""
        return (
            f"{self.signed} signed with Docker Content Trust, {self.cosign_only} with Cosign only (as the registry says), "
            f"{self.neither} with neither"
        )

    def as_dict(self) -> dict[str, int]:
        """Give the form of the run record."""
        return {
            "audited": self.audited,
            "signed": self.signed,
            "unsigned": self.unsigned,
            "mismatched": self.mismatched,
            "untrusted": self.untrusted,
            "unknown": self.unknown,
            "artifacts": self.artifacts,
            "cosign_only": self.cosign_only,
            "neither": self.neither,
        }


@dataclass(slots=True)
class RepositoryCounts:
    """How many repositories were listed, and what became of them."""

    listed: int = 0
    audited: int = 0
    unreadable: int = 0
    removed: int = 0

    def as_dict(self) -> dict[str, int]:
        """Give the form of the run record."""
        return {
            "listed": self.listed,
            "audited": self.audited,
            "unreadable": self.unreadable,
            "removed": self.removed,
        }


@dataclass(slots=True)
class FindingCounts:
    """Findings in the run's scope after the run, and what the run changed.

    `open` counts those of the tags that the run read, and those of earlier runs that it could not prove resolved.
    """

    open: int = 0
    opened: int = 0
    resolved: int = 0
    excepted: int = 0

    def as_dict(self) -> dict[str, int]:
        """Give the form of the run record."""
        return {
            "open": self.open,
            "opened": self.opened,
            "resolved": self.resolved,
            "excepted": self.excepted,
        }


@dataclass(frozen=True, slots=True)
class ExceptionsInForce:
    """The document of exceptions as one run found it."""

    version_id: str = ""  # that S3 gave the document; '' where there is none
    holding: int = 0
    ended: int = 0
    unmatched: int | None = None  # of those that hold: they cover no finding; None where not all findings are known
    problem: str = ""  # why the document excepts nothing

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the run record."""
        return {
            "version_id": self.version_id or None,
            "holding": self.holding,
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


@dataclass(slots=True)
class TrustCounts:
    """What was required of signatures, and what came of the trust data of a run's repositories, under each domain."""

    required_signers: tuple[str, ...] = ()  # empty: any
    all_signers: bool = False  # all of them, not any one
    repository_key_suffices: bool = False
    pinned: bool = False
    verified: int = 0
    without: int = 0
    failing: int = 0
    unreadable: int = 0
    first_use: int = 0
    reused: int = 0  # repositories with a document that is served in another place too
    expiring: int = 0
    first_expiring: list[tuple[str, str, str]] = field(default_factory=list)  # (repository, role, ISO 8601)

    def count(self, repository: Repository, seen: TrustSeen) -> None:
        """Add one repository under one domain."""
        counted = {"verified": "verified", "no trust data": "without", "does not hold": "failing"}
        name = counted.get(seen.outcome, "unreadable")
        setattr(self, name, getattr(self, name) + 1)
        self.first_use += seen.is_first_use
        if seen.expiring:
            self.expiring += 1
            role, when = seen.expiring[0]
            self.keep_expiring([(str(repository), role, when)])

    def keep_expiring(self, expiring: Iterable[tuple[str, str, str]]) -> None:
        """Keep what expires first, of however many there are."""
        self.first_expiring = sorted((*self.first_expiring, *expiring), key=lambda one: (one[2], one))[:EXPIRING_NAMED]

    @property
    def spoken(self) -> str:
        """Say in sentences what was required, and what came of it."""
        joint = " and " if self.all_signers else " or "
        signers = joint.join(self.required_signers) if self.required_signers else "any delegation"
        own = ", or the repository's own key" if self.repository_key_suffices else ""
        roots = "the pinned ones, else those that were seen first" if self.pinned else "those that were seen first"
        return (
            "Besides, every signature was verified from the Notary's own metadata: root, thresholds, expiry, versions and digests. "
            f"Signed by {signers}{own}; roots trusted: {roots}. Repositories with image tags, under each domain: "
            f"verified {self.verified}, without trust data {self.without}, not holding {self.failing}, not readable "
            f"{self.unreadable}; with a document that is served in two places: {self.reused}. {REUSE}"
        )

    @property
    def spoken_expiring(self) -> str:
        """Say in a sentence what expires soon."""
        named = ", ".join(f"{repository} ({role}, {when[:10]})" for repository, role, when in self.first_expiring)
        noun = "repository" if self.expiring == 1 else "repositories"
        first = ", the first of them" if self.expiring > len(self.first_expiring) else ""
        return (
            f"the trust data of {self.expiring} {noun} expires soon, and their tags will count as untrusted{first}: {named}. "
            "The holder of the role's key publishes it again: `notary witness -p GUN ROLE`"
        )

    def as_dict(self) -> dict[str, Any]:
        """Give the form of the run record."""
        return {
            "required_signers": list(self.required_signers),
            "all_signers": self.all_signers,
            "repository_key_suffices": self.repository_key_suffices,
            "pinned": self.pinned,
            "verified": self.verified,
            "without": self.without,
            "failing": self.failing,
            "unreadable": self.unreadable,
            "first_use": self.first_use,
            "reused": self.reused,
            "expiring": self.expiring,
            "first_expiring": [
                {"repository": repository, "role": role, "expires": expires}
                for repository, role, expires in self.first_expiring
            ],
        }


@dataclass(frozen=True, slots=True)
class OtherHosts:
    """Repositories without a signed tag for which the Notary has trust data under a host that was not asked for."""

    repositories: int = 0
    first: tuple[tuple[str, str], ...] = ()  # by name: (repository, the first of those hosts)

    @property
    def spoken(self) -> str:
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


def iso(moment: datetime) -> str:
    """Write a time as ISO 8601 in UTC with milliseconds, e.g. `2026-11-22T03:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
