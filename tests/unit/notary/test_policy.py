"""What a tag's trust data, the registry's flags and the operator's rules make of it together."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dtr_audit.core.model import TrustFlags, Verdict
from dtr_audit.trust.notary.policy import Judgement, SignersNeeded, TrustPolicy, compare, expiring
from dtr_audit.trust.notary.reading import Defect, Expiry, Outcome, Release, SkippedDelegation, TagTrust, TrustReading

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
DOMAIN = "dtr.example.com"
GUN = f"{DOMAIN}/payments/api"
DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
SOON = Expiry("targets/ci", NOW + timedelta(days=9))
CI = Release((DIGEST, "sha512:" + "3" * 128), ("targets/releases", "targets/ci"), SOON)
ADMIN = Release((DIGEST,), ("targets",), Expiry("targets", NOW + timedelta(days=900)))
RELEASES_ALONE = Release((DIGEST,), ("targets/releases",), SOON)
SKIPPED_DELEGATION = SkippedDelegation("targets/qa", Defect.EXPIRED, "expired: targets/qa, on 2026-11-01 00:00 UTC")

SIGNED = TrustFlags(DOMAIN, True, False)
UNSIGNED = TrustFlags(DOMAIN, False, False)
OVERWRITTEN = TrustFlags(DOMAIN, True, True)
SILENT = TrustFlags(DOMAIN, None, False)


def reading(
    *releases: Release, skipped_delegations: tuple[SkippedDelegation, ...] = (), roles: tuple[str, ...] = ()
) -> TrustReading:
    trust = TagTrust(releases, roles or (releases[0].roles if releases else ()), skipped_delegations)
    return TrustReading(GUN, Outcome.VERIFIED, "", None, tags={"1.0": trust})


def judge(
    read: TrustReading,
    flags: TrustFlags = SIGNED,
    policy: TrustPolicy | None = None,
    digest: str = DIGEST,
    tag: str = "1.0",
) -> Judgement:
    return compare(read, tag, digest, flags, policy or TrustPolicy())


def unverified(outcome: Outcome, reason: str = "why") -> TrustReading:
    return TrustReading(GUN, outcome, reason, None)


def test_signed_needs_the_registrys_word_and_the_verification() -> None:
    assert judge(reading(CI)) == Judgement(Verdict.SIGNED, "", ("ci",), SOON)
    assert judge(reading(ADMIN)).signers == ("Repo Admin",)
    assert judge(reading(CI), digest=CI.digests[1]).verdict is Verdict.SIGNED


@pytest.mark.parametrize("flags", [SIGNED, UNSIGNED, OVERWRITTEN, SILENT, TrustFlags(DOMAIN, True, None)])
@pytest.mark.parametrize(
    "read",
    [
        unverified(Outcome.UNREADABLE),
        unverified(Outcome.DOES_NOT_HOLD),
        unverified(Outcome.NO_TRUST_DATA),
        reading(),
        reading(skipped_delegations=(SKIPPED_DELEGATION,)),
        reading(replace(CI, digests=(OTHER,))),
        reading(replace(CI, digests=())),
    ],
)
def test_without_verification_nothing_is_signed_any_the_registry_says(read: TrustReading, flags: TrustFlags) -> None:
    judged = judge(read, flags)
    assert judged.verdict is not Verdict.SIGNED
    assert judged.reason


@pytest.mark.parametrize(
    "flags", [UNSIGNED, OVERWRITTEN, SILENT, TrustFlags(DOMAIN, True, None), TrustFlags(DOMAIN, False, True)]
)
def test_without_the_registrys_word_nothing_is_signed_any_is_verified(flags: TrustFlags) -> None:
    judged = judge(reading(CI), flags)
    assert judged.verdict is (Verdict.UNKNOWN if None in {flags.in_notary, flags.hash_mismatch} else Verdict.UNTRUSTED)
    assert judged.signers == ("ci",)


def test_trust_data_that_could_not_be_read_is_unknown() -> None:
    for flags in (SIGNED, SILENT):
        judged = judge(unverified(Outcome.UNREADABLE, "GET …: 500"), flags)
        assert (judged.verdict, judged.signers) == (Verdict.UNKNOWN, ())
        assert "could not be read: GET …: 500" in judged.reason


def test_what_the_registry_calls_unsigned_is_a_finding_though_its_trust_data_could_not_be_read() -> None:
    for flags, verdict in ((UNSIGNED, Verdict.UNSIGNED), (OVERWRITTEN, Verdict.MISMATCHED)):
        judged = judge(unverified(Outcome.UNREADABLE, "GET …: 500"), flags)
        assert (judged.verdict, judged.signers) == (verdict, ())
        assert "as the registry says" in judged.reason
        assert "500" not in judged.reason, "a finding must not move with it"


def test_trust_data_that_does_not_hold_is_untrusted_and_says_why() -> None:
    judged = judge(unverified(Outcome.DOES_NOT_HOLD, "expired: targets"))
    assert judged == Judgement(Verdict.UNTRUSTED, f"its trust data under {DOMAIN} does not hold: expired: targets")
    judged = judge(unverified(Outcome.DOES_NOT_HOLD, "expired: targets"), UNSIGNED)
    assert judged.verdict is Verdict.UNSIGNED
    assert judged.reason.endswith("does not hold: expired: targets")


def test_a_tag_that_no_one_lists_is_not_signed() -> None:
    assert judge(reading(CI), UNSIGNED, tag="2.0") == Judgement(Verdict.UNSIGNED, f"not signed under {DOMAIN}")
    assert judge(unverified(Outcome.NO_TRUST_DATA), UNSIGNED).verdict is Verdict.UNSIGNED
    assert judge(reading(CI), SILENT, tag="2.0").verdict is Verdict.UNSIGNED


@pytest.mark.parametrize("flags", [SIGNED, OVERWRITTEN])
def test_the_registry_says_signed_and_the_trust_data_does_not(flags: TrustFlags) -> None:
    for read in (unverified(Outcome.NO_TRUST_DATA), reading()):
        judged = judge(read, flags)
        assert judged.verdict is Verdict.UNTRUSTED
        assert "The registry says otherwise" in judged.reason
    assert "The registry says otherwise" in judge(reading(CI), flags, tag="2.0").reason


def test_the_trust_data_says_signed_and_the_registry_does_not() -> None:
    judged = judge(reading(CI), UNSIGNED)
    assert judged.verdict is Verdict.UNTRUSTED
    assert "contradicts" in judged.reason
    assert "ci signed this very digest" in judged.reason
    assert "overwritten" in judge(reading(CI), OVERWRITTEN).reason


def test_a_digest_that_no_one_signed_is_untrusted() -> None:
    judged = judge(reading(CI), digest=OTHER)
    assert judged.verdict is Verdict.UNTRUSTED
    assert judged.signers == ()
    assert f"ci signed {DIGEST}, and the tag holds {OTHER}" in judged.reason
    assert "The registry says otherwise: that this digest is signed" in judged.reason
    assert "never signed" in judge(reading(CI), UNSIGNED, digest=OTHER).reason


def test_an_overwritten_tag_is_mismatched_if_both_say_so() -> None:
    judged = judge(reading(CI), OVERWRITTEN, digest=OTHER)
    assert judged.verdict is Verdict.MISMATCHED
    assert "overwritten by an unsigned push" in judged.reason


def test_only_what_docker_pulls_first_counts() -> None:
    assert judge(reading(replace(CI, digests=(OTHER,)), ADMIN)).verdict is Verdict.UNTRUSTED
    assert judge(reading(ADMIN, replace(CI, digests=(OTHER,)))).verdict is Verdict.SIGNED


def test_a_tag_without_a_digest_is_unknown() -> None:
    assert judge(reading(CI), digest="").verdict is Verdict.UNKNOWN


def test_a_signature_that_lapsed_is_untrusted_with_its_reason() -> None:
    judged = judge(reading(skipped_delegations=(SKIPPED_DELEGATION,)))
    assert judged.verdict is Verdict.UNTRUSTED
    assert SKIPPED_DELEGATION.reason in judged.reason
    assert judge(reading(skipped_delegations=(SKIPPED_DELEGATION,)), UNSIGNED) == Judgement(
        Verdict.UNTRUSTED, SKIPPED_DELEGATION.reason
    )


def test_a_tag_that_is_not_released_is_not_signed() -> None:
    judged = judge(reading(roles=("targets/ci",)), UNSIGNED)
    assert judged.verdict is Verdict.UNSIGNED
    assert "targets/ci alone lists it" in judged.reason


def signers(*names: str, needed: SignersNeeded = SignersNeeded.ANY, targets: bool = False) -> TrustPolicy:
    return TrustPolicy(required_signers=names, signers_needed=needed, targets_key_suffices=targets)


TWO = Release((DIGEST,), ("targets", "targets/releases", "targets/ci", "targets/qa"), SOON)
ALL = SignersNeeded.ALL


@pytest.mark.parametrize(
    ("policy", "release", "is_met"),
    [
        (TrustPolicy(), RELEASES_ALONE, True),
        (signers(), CI, True),
        (signers(), ADMIN, False),
        (signers(), RELEASES_ALONE, False),
        (signers(targets=True), ADMIN, True),
        (signers("targets/ci"), CI, True),
        (signers("ci"), CI, True),
        (signers("qa"), CI, False),
        (signers("qa", "ci"), CI, True),
        (signers("qa", "ci", needed=ALL), CI, False),
        (signers("qa", "ci", needed=ALL), TWO, True),
        (signers("qa", "ci", "sec", needed=ALL), TWO, False),
        (signers("ci"), ADMIN, False),
        (signers("ci", targets=True), ADMIN, True),
        (signers("ci"), RELEASES_ALONE, False),
        (signers("ci", targets=True), RELEASES_ALONE, False),
        (signers("targets"), ADMIN, True),
        (signers("ci", needed=ALL, targets=True), TWO, True),
    ],
)
def test_required_signers(policy: TrustPolicy, release: Release, is_met: bool) -> None:
    judged = judge(reading(release), policy=policy)
    assert judged.verdict is (Verdict.SIGNED if is_met else Verdict.UNTRUSTED)
    assert judged.signers == release.signers
    if not is_met:
        assert judged.reason.startswith(f"no required signer: signed by {' and '.join(release.signers)}")


def test_a_missing_signer_is_named_with_those_who_did_sign() -> None:
    judged = judge(reading(TWO), policy=signers("sec", "ci", needed=ALL))
    assert "signed by ci and qa, and targets/sec must have signed as well" in judged.reason
    assert "not by targets/sec or targets/ops" in judge(reading(CI), policy=signers("sec", "ops")).reason
    assert "and targets/sec must have" not in judge(reading(CI), policy=signers("sec", needed=ALL)).reason


def test_a_required_signer_whose_data_lapsed_is_reported() -> None:
    assert (
        SKIPPED_DELEGATION.reason
        in judge(reading(CI, skipped_delegations=(SKIPPED_DELEGATION,)), policy=signers("qa")).reason
    )


def test_many_signers_are_reported_in_few_words() -> None:
    many = replace(CI, roles=tuple(f"targets/s{number:03}" for number in range(200)))
    assert len(judge(reading(many), policy=signers("sec")).reason) < 200


def test_what_expires_soon_is_reported_if_it_holds() -> None:
    later = Expiry("root", NOW + timedelta(days=31))
    read = replace(reading(CI), expiries=(SOON, later))
    assert expiring(read, TrustPolicy(warning_days=30), NOW) == (SOON,)
    assert expiring(read, TrustPolicy(warning_days=31), NOW) == (SOON, later)
    assert expiring(read, TrustPolicy(warning_days=0), NOW) == ()
    assert expiring(unverified(Outcome.DOES_NOT_HOLD), TrustPolicy(), NOW) == ()
