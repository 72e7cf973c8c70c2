"""Repositories, their tags, and what the audit reads and decides about them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

RULE_ID = "V-235846"
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


def iso(moment: datetime) -> str:
    """Write a time as ISO 8601 in UTC with milliseconds, e.g. `2026-11-22T03:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
