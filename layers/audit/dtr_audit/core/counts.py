"""What a run counts."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from dtr_audit.core.model import JudgedTag, Repository, TrustSeen

REUSE = (
    "An attacker with the server's keys can re-use a signer's document wherever that key is accepted. Documents that the audits "
    "have seen in two repositories or roles do not count. Against others, use one delegation key per repository, and pin the roots."
)
EXPIRING_NAMED = 5  # repositories whose trust data expires soon


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
    def formatted(self) -> str:
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
    def formatted_expiring(self) -> str:
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
