"""What a signature must be to count: who must have signed, and which roots are trusted. Pure; no I/O, no cryptography."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dtr_audit.core.hosts import canonical_gun
from dtr_audit.core.model import TrustFlags, Verdict
from dtr_audit.core.rule import OVERWRITTEN
from dtr_audit.trust.notary.metadata import RELEASES, TARGETS
from dtr_audit.trust.notary.reading import Expiry, Outcome, Release, TagTrust, TrustReading

SIGNERS_NAMED = 10  # in a reason


class SignersNeeded(StrEnum):
    """How many of the required signers must have signed."""

    ANY = "any"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Pin:
    """Which root keys are trusted for the GUNs of a pattern: those with these ids, and those certified by these authorities.

    The pattern is a GUN, or the beginning of one with `*` behind it. An id is that of the root's certificate, as `docker trust
    inspect` shows it, or that of the key itself, as `notary key list` does and as it is the same for all of a publisher's GUNs.
    Spellings of one host are one host: a registry that spells its own name differently is under the same pin.
    """

    pattern: str
    key_ids: frozenset[str] = frozenset()
    authorities: str = ""  # certificates, PEM

    def covers(self, gun: str) -> bool:
        """Tell whether the pattern stands for a GUN."""
        spellings = ((self.pattern, gun), (canonical_gun(self.pattern), canonical_gun(gun)))
        if self.pattern.endswith("*"):
            return any(name.startswith(pattern[:-1]) for pattern, name in spellings)
        return any(name == pattern for pattern, name in spellings)


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """The operator's rules. Signers are named as delegations (`targets/ci`) or without `targets/`, as `docker trust` does."""

    required_signers: tuple[str, ...] = ()
    signers_needed: SignersNeeded = SignersNeeded.ANY
    targets_key_suffices: bool = True  # whether the repository's own key may sign in a signer's place
    pins: tuple[Pin, ...] = ()
    warning_days: int = 30

    def pin_for(self, gun: str) -> Pin | None:
        """Give the most specific pin for a GUN, as Notary chooses it (trustpin.go): the GUN itself, else the longest pattern."""
        covering = [pin for pin in self.pins if pin.covers(gun)]
        return max(
            covering, key=lambda pin: (not pin.pattern.endswith("*"), len(canonical_gun(pin.pattern))), default=None
        )

    def unmet(self, release: Release) -> str:
        """Say in which way the signers of a release are not those that are required; '' if they are."""
        if self.targets_key_suffices and TARGETS in release.roles:
            return ""
        signers = {role for role in release.roles if role not in {TARGETS, RELEASES}}
        signed_by = f"signed by {_names(release.signers)}"
        if not self.required_signers:
            if self.targets_key_suffices or signers:
                return ""
            return f"no required signer: {signed_by} alone, and the signature of a delegation is required"
        required = dict.fromkeys(_role(name) for name in self.required_signers)
        missing = [role for role in required if role not in release.roles]
        if not missing or (self.signers_needed is SignersNeeded.ANY and len(missing) < len(required)):
            return ""
        if self.signers_needed is SignersNeeded.ALL and len(required) > 1:
            return f"no required signer: {signed_by}, and {_names(missing)} must have signed as well"
        return f"no required signer: {signed_by}, not by {_names(required, 'or')}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to say of one tag under one domain. Signers are given wherever somebody has signed the tag's very digest."""

    verdict: Verdict
    reason: str
    signers: tuple[str, ...] = ()
    expires: Expiry | None = None


def compare(reading: TrustReading, tag: str, digest: str, flags: TrustFlags, policy: TrustPolicy) -> Judgement:
    """Judge a tag that holds `digest` by its verified trust data and by the registry's flags, which must agree for SIGNED."""
    claimed = _claim(flags)
    if reading.outcome is not Outcome.VERIFIED:
        return _unverified(reading, flags, claimed)
    trust = reading.tags.get(tag)
    if trust is None:
        return _unsigned(f"not signed under {flags.domain}", claimed)
    if not trust.releases:
        return _unreleased(trust, flags.domain, claimed)
    release = trust.releases[0]
    if digest not in release.digests:
        return _other_digest(release, digest, flags)
    unmet = policy.unmet(release)
    if unmet:
        lapsed = "".join(f"; {skipped.reason}" for skipped in trust.skipped_delegations)
        return Judgement(Verdict.UNTRUSTED, unmet + lapsed + claimed.contradicted, release.signers, release.expires)
    return _signed(release, flags.domain, claimed)


def expiring(reading: TrustReading, policy: TrustPolicy, now: datetime) -> tuple[Expiry, ...]:
    """Give what of a verified reading expires within the policy's warning days, the first to come first."""
    if reading.outcome is not Outcome.VERIFIED:
        return ()
    limit = now + timedelta(days=policy.warning_days)
    return tuple(expiry for expiry in reading.expiries if expiry.when <= limit)


@dataclass(frozen=True, slots=True)
class _Claim:
    signed: bool = False
    unread: str = ""  # what the registry does not say
    denied: str = ""  # how it denies that the tag is signed
    contradicted: str = ""  # to be added where the trust data says otherwise


def _claim(flags: TrustFlags) -> _Claim:
    if flags.in_notary is None or flags.hash_mismatch is None:
        name = "inNotary" if flags.in_notary is None else "hashMismatch"
        return _Claim(unread=f"the registry does not say whether it is signed ({name} is missing or not a boolean)")
    if not flags.in_notary:
        return _Claim(denied="it says that the tag is not signed")
    if flags.hash_mismatch:
        return _Claim(
            denied="it says that the tag was overwritten after it had been signed",
            contradicted=". The registry says otherwise: that it was signed",
        )
    return _Claim(signed=True, contradicted=". The registry says otherwise: that it is signed")


def _signed(release: Release, domain: str, claimed: _Claim) -> Judgement:
    if claimed.signed:
        return Judgement(Verdict.SIGNED, "", release.signers, release.expires)
    if claimed.unread:
        return Judgement(Verdict.UNKNOWN, claimed.unread, release.signers, release.expires)
    reason = (
        f"the registry contradicts the trust data: {claimed.denied}, yet {_names(release.signers)} signed this very digest under "
        f"{domain}. See whether the registry reaches its own Notary, and sign it again"
    )
    return Judgement(Verdict.UNTRUSTED, reason, release.signers, release.expires)


def _unverified(reading: TrustReading, flags: TrustFlags, claimed: _Claim) -> Judgement:
    if reading.outcome is Outcome.UNREADABLE and claimed.denied:
        # Whatever it says could not make it signed. Why it was not read is left out: findings must not move with it.
        verdict = Verdict.MISMATCHED if flags.in_notary else Verdict.UNSIGNED
        said = f"signed once, then {OVERWRITTEN}" if flags.in_notary else "not signed"
        return Judgement(
            verdict, f"{said} under {flags.domain}, as the registry says; its trust data could not be read"
        )
    if reading.outcome is Outcome.UNREADABLE:
        return Judgement(Verdict.UNKNOWN, f"its trust data under {flags.domain} could not be read: {reading.reason}")
    if reading.outcome is Outcome.NO_TRUST_DATA:
        return _unsigned(f"not signed under {flags.domain}: {reading.reason}", claimed)
    if flags.in_notary is False:
        reason = (
            f"not signed under {flags.domain}; and the trust data of its repository does not hold: {reading.reason}"
        )
        return Judgement(Verdict.UNSIGNED, reason)
    return Judgement(Verdict.UNTRUSTED, f"its trust data under {flags.domain} does not hold: {reading.reason}")


def _unsigned(reason: str, claimed: _Claim) -> Judgement:
    if claimed.contradicted:
        return Judgement(Verdict.UNTRUSTED, reason + claimed.contradicted)
    return Judgement(Verdict.UNSIGNED, reason)


def _unreleased(trust: TagTrust, domain: str, claimed: _Claim) -> Judgement:
    if trust.skipped_delegations:
        # Somebody did sign it, and that does not count any more.
        return Judgement(
            Verdict.UNTRUSTED, "; ".join(skipped.reason for skipped in trust.skipped_delegations) + claimed.contradicted
        )
    reason = f"not signed under {domain}: {_names(trust.roles)} alone lists it, so it is not released ({RELEASES} or {TARGETS})"
    return _unsigned(reason, claimed)


def _other_digest(release: Release, digest: str, flags: TrustFlags) -> Judgement:
    if not digest:
        return Judgement(Verdict.UNKNOWN, "the registry does not say which digest the tag holds", (), release.expires)
    signed = (
        f"{_names(release.signers)} signed {release.digests[0] if release.digests else 'a digest of no known kind'}"
    )
    if flags.in_notary and flags.hash_mismatch:
        reason = f"signed under {flags.domain} once ({signed}), then {OVERWRITTEN}"
        return Judgement(Verdict.MISMATCHED, reason, (), release.expires)
    reason = f"digest differs: under {flags.domain} {signed}, and the tag holds {digest}"
    if flags.in_notary and flags.hash_mismatch is False:
        reason += ". The registry says otherwise: that this digest is signed"
    elif flags.in_notary is False:
        reason += ". The registry says otherwise: that the tag was never signed"
    return Judgement(Verdict.UNTRUSTED, reason, (), release.expires)


def _role(name: str) -> str:
    return name if name == TARGETS or name.startswith(f"{TARGETS}/") else f"{TARGETS}/{name}"


def _names(names: Iterable[str], conjunction: str = "and") -> str:
    listed = list(names)
    if len(listed) > SIGNERS_NAMED:
        listed = [*listed[:SIGNERS_NAMED], f"{len(listed) - SIGNERS_NAMED} more"]
    if len(listed) < 2:
        return "".join(listed)
    return ", ".join(listed[:-1]) + f" {conjunction} {listed[-1]}"
