"""What is known of a repository's trust data once it has been read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dtr_audit.core.model import PassingFault
from dtr_audit.errors import AuditError
from dtr_audit.trust.notary.cache import TrustMemory
from dtr_audit.trust.notary.metadata import RELEASES, TARGETS

REPOSITORY_ADMIN = (
    "Repo Admin"  # `docker trust inspect`'s word for a tag that no delegation but `targets/releases` lists
)


class Outcome(StrEnum):
    """What came of the reading."""

    VERIFIED = "verified"
    NO_TRUST_DATA = "no trust data"  # the Notary says that it has none: nothing is signed
    DOES_NOT_HOLD = "does not hold"  # there is some, and it is not to be trusted
    UNREADABLE = "could not be read"  # never a pass, and never a finding


class Defect(StrEnum):
    """In which way trust data does not hold."""

    SIGNATURE = "signature invalid"
    THRESHOLD = "too few signatures"
    EXPIRED = "expired"
    ROOT_CHANGED = "root changed"
    NOT_PINNED = "root not pinned"
    ROLLED_BACK = "rolled back"
    MIXED = "mixed"  # a document is not the one that the signed index names
    INCOMPLETE = "incomplete"  # a document that the signed index names is not there


class TrustDefectError(AuditError):
    """A document of the trust data does not hold."""

    def __init__(self, defect: Defect, role: str, reason: str) -> None:
        super().__init__(reason)
        self.defect = defect
        self.role = role


class Anchor(StrEnum):
    """Why the root is trusted."""

    PINNED = "pinned"  # by the settings
    REMEMBERED = "remembered"  # it is the root of an earlier run, or follows from it by signed rotations
    FIRST_USE = "first use"  # nothing is pinned, and it was seen for the first time


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a role's document ends to hold."""

    role: str
    when: datetime


@dataclass(frozen=True, slots=True)
class SkippedDelegation:
    """A delegation that does not hold, and is left out as Notary's client leaves it out."""

    role: str
    defect: Defect
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """One digest that is signed under a tag by `targets` or `targets/releases`, as a row of `docker trust inspect`."""

    digests: tuple[str, ...]  # of the same manifest, `sha256:…` first
    roles: tuple[str, ...]  # all that list the tag with this digest, as they come in the tree
    expires: Expiry  # the first to come, of what the signature hangs on; the timestamp, which the server renews, apart

    @property
    def signers(self) -> tuple[str, ...]:
        """Who signed, in the words of `docker trust inspect`."""
        names = (role.removeprefix(f"{TARGETS}/") for role in self.roles if role not in {TARGETS, RELEASES})
        return tuple(names) or (REPOSITORY_ADMIN,)


@dataclass(frozen=True, slots=True)
class TagTrust:
    """What the trust data says of one tag."""

    releases: tuple[Release, ...]  # that which `docker pull` takes is the first; empty: no released role lists the tag
    roles: tuple[str, ...]  # verified ones that list the tag, with whatever digest
    skipped_delegations: tuple[SkippedDelegation, ...]  # of those that list it and do not hold


@dataclass(frozen=True, slots=True)
class TrustReading:
    """The trust data of one repository under one domain. `reason` is '' when it is verified, else one an owner can act on."""

    gun: str
    outcome: Outcome
    reason: str
    memory: TrustMemory | None  # to be kept for the next reading; None: nothing is to be kept
    defect: Defect | None = None
    signed: Mapping[str, str] = field(default_factory=dict)  # role -> hash of its document, as in a memory
    refused: str = ""  # what was too much work, to be kept for the next reading
    anchor: Anchor | None = None
    root_keys: tuple[str, ...] = ()  # ids, as `docker trust inspect` shows them
    tags: Mapping[str, TagTrust] = field(default_factory=dict)
    expiries: tuple[Expiry, ...] = ()  # of the documents that hold, the first to come first; the timestamp apart
    skipped_delegations: tuple[SkippedDelegation, ...] = ()
    notes: tuple[str, ...] = ()  # what is worth saying though it holds
    fault: PassingFault | None = None  # for which it could not be read
