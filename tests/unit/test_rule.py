"""V-235846: what is signed, what is a finding, and what nobody knows."""

import pytest

from dtr_audit.core.counts import TagCounts
from dtr_audit.core.model import Tag, TrustFlags, Verdict
from dtr_audit.core.rule import decide, judge
from dtr_audit.core.run_record import Scope, Status

DIGEST = "sha256:" + "a" * 64


def tag(*flags: tuple[str, bool | None, bool | None], name: str = "1.0") -> Tag:
    return Tag(name, DIGEST, "alice", "2026-11-01T00:00:00Z", "", None, tuple(TrustFlags(*one) for one in flags))


@pytest.mark.parametrize(
    ("in_notary", "hash_mismatch", "verdict"),
    [
        (True, False, Verdict.SIGNED),
        (True, True, Verdict.MISMATCHED),
        (False, False, Verdict.UNSIGNED),
        (False, True, Verdict.UNSIGNED),
        (None, False, Verdict.UNKNOWN),
        (True, None, Verdict.UNKNOWN),
        (False, None, Verdict.UNKNOWN),
        (None, None, Verdict.UNKNOWN),
    ],
)
def test_each_pair_of_flags_has_its_verdict(
    in_notary: bool | None, hash_mismatch: bool | None, verdict: Verdict
) -> None:
    judged = judge(tag(("dtr.example.com", in_notary, hash_mismatch)))
    assert judged.verdict is verdict
    assert bool(judged.reason) is (verdict is not Verdict.SIGNED)


def test_signed_under_any_domain_is_signed_and_says_which() -> None:
    judged = judge(tag(("old.example.com", False, False), ("dtr.example.com", True, False)))
    assert judged.verdict is Verdict.SIGNED
    assert judged.signed_domain == "dtr.example.com"


def test_an_unsigned_tag_names_no_signed_domain() -> None:
    assert judge(tag(("dtr.example.com", True, True))).signed_domain == ""


def test_unread_flags_under_one_domain_make_unsigned_under_another_unknown() -> None:
    judged = judge(tag(("a.example.com", False, False), ("b.example.com", None, None)))
    assert judged.verdict is Verdict.UNKNOWN


def test_overwritten_under_one_domain_is_mismatched_any_the_others_say() -> None:
    judged = judge(tag(("a.example.com", False, False), ("b.example.com", True, True)))
    assert judged.verdict is Verdict.MISMATCHED
    assert "b.example.com" in judged.reason


def test_a_contradiction_of_the_registry_is_a_finding_that_says_so() -> None:
    judged = judge(tag(("a.example.com", False, True)))
    assert judged.is_finding
    assert "contradicts itself" in judged.reason


def test_a_tag_asked_about_under_no_domain_is_unknown() -> None:
    assert judge(tag()).verdict is Verdict.UNKNOWN


def test_a_signature_artifact_gets_no_verdict() -> None:
    judged = judge(tag(("dtr.example.com", False, False)), artifact=True)
    assert judged.verdict is None
    assert not judged.is_finding


@pytest.mark.parametrize(
    ("counts", "complete", "scope", "status"),
    [
        (TagCounts(signed=3), True, Scope.FULL, Status.NOT_A_FINDING),
        (TagCounts(), True, Scope.FULL, Status.NOT_A_FINDING),
        (TagCounts(signed=3), False, Scope.FULL, Status.NOT_REVIEWED),
        (TagCounts(signed=3, unknown=1), True, Scope.FULL, Status.NOT_REVIEWED),
        (TagCounts(signed=3), True, Scope.PARTIAL, Status.NOT_REVIEWED),
        (TagCounts(signed=3, unsigned=1), True, Scope.FULL, Status.OPEN),
        (TagCounts(mismatched=1), False, Scope.FULL, Status.OPEN),
        (TagCounts(untrusted=1), False, Scope.PARTIAL, Status.OPEN),
        (TagCounts(), False, Scope.FULL, Status.NOT_REVIEWED),
    ],
)
def test_only_a_complete_full_run_without_any_doubt_passes(
    counts: TagCounts, complete: bool, scope: Scope, status: Status
) -> None:
    assert decide(counts, open_findings=counts.failed, complete=complete, scope=scope) is status


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("complete", [True, False])
def test_status_with_a_finding_of_an_earlier_run_is_open(scope: Scope, complete: bool) -> None:
    assert decide(TagCounts(signed=3), open_findings=1, complete=complete, scope=scope) is Status.OPEN
