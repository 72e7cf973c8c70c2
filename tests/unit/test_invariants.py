"""A record that contradicts itself is named, invariant by invariant; one of a real run never is."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtr_audit.core.counts import FindingCounts, RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.invariants import find_contradictions
from dtr_audit.core.rule import decide
from dtr_audit.core.run_record import ExceptionsInForce, Run, Scope, Status
from dtr_audit.core.run_state import UNREADABLE_KEPT
from dtr_audit.pipeline.reasons import CONTRADICTION, deny_contradictions

NOW = datetime(2026, 12, 1, 5, tzinfo=UTC)
OLDEST = "2026-11-01T05:00:00.000Z"
# A run that passes: nothing in it is zero that need not be.
PASS = Run(
    registry="prod",
    run_id="20261201T050000Z",
    scope=Scope.FULL,
    namespaces=(),
    status=Status.NOT_A_FINDING,
    incomplete_because=(),
    warnings=(),
    domains=("dtr.example.mil",),
    started_at=NOW,
    finished_at=NOW,
    repositories=RepositoryCounts(listed=3, audited=2, removed=1),
    tags=TagCounts(signed=5, artifacts=1),
    findings=FindingCounts(resolved=2),
    exceptions=ExceptionsInForce(active=1),
    trust=TrustCounts(verified=2, expiring=1, first_expiring=[("web/shop", "targets", OLDEST)]),
)
OPEN = replace(
    PASS,
    status=Status.OPEN,
    tags=TagCounts(signed=4, unsigned=1, untrusted=1),
    findings=FindingCounts(open=2, opened=1, excepted=1),
    oldest_open=OLDEST,
)
PARTIAL = replace(PASS, scope=Scope.PARTIAL, namespaces=("web",), status=Status.NOT_REVIEWED)
INCOMPLETE = replace(
    PASS,
    status=Status.NOT_REVIEWED,
    incomplete_because=("1 repository could not be read",),
    repositories=RepositoryCounts(listed=5, audited=2, unreadable=1, removed=1),
    unreadable=(("web/till", "500"),),
    tags=TagCounts(signed=4, unknown=1),
    findings=FindingCounts(),
)
KNOWN = replace(INCOMPLETE, status=Status.OPEN, findings=FindingCounts(open=1), oldest_open=OLDEST)


@pytest.mark.parametrize("run", [PASS, OPEN, PARTIAL, INCOMPLETE, KNOWN])
def test_a_sound_record_is_recorded_as_it_is(run: Run) -> None:
    assert find_contradictions(run, access_verified=True) == ()
    assert deny_contradictions(run, access_verified=True) is run


def test_an_incomplete_record_needs_no_verified_access() -> None:
    assert find_contradictions(INCOMPLETE, access_verified=False) == ()


BROKEN: list[tuple[str, Run, str]] = [
    ("negative", replace(PASS, tags=TagCounts(signed=-1)), "tags.signed is not a whole number from 0"),
    ("no integer", replace(PASS, findings=FindingCounts(resolved=True)), "findings.resolved is not a whole number"),
    ("negative trust", replace(PASS, trust=TrustCounts(verified=-1)), "trust.verified is not a whole number from 0"),
    ("listed", replace(PASS, repositories=RepositoryCounts(listed=2, audited=2, removed=1)), "than were listed"),
    ("no repository", replace(PASS, repositories=RepositoryCounts()), "no repository was read"),
    ("opened", replace(OPEN, findings=FindingCounts(open=2, opened=3)), "more findings were opened"),
    ("excepted", replace(OPEN, findings=FindingCounts(open=2, excepted=3)), "more findings are excepted"),
    ("no exception", replace(OPEN, exceptions=ExceptionsInForce()), "no exception is active"),
    ("failed", replace(OPEN, findings=FindingCounts(open=1)), "more image tags fail than findings are open"),
    ("oldest", replace(OPEN, oldest_open=""), "the oldest open finding"),
    ("oldest of none", replace(PASS, oldest_open=OLDEST), "the oldest open finding"),
    ("unnamed", replace(INCOMPLETE, unreadable=()), "unreadable repositories that are named"),
    ("full with namespaces", replace(PASS, namespaces=("web",)), "the scope and the namespaces"),
    ("partial without", replace(PARTIAL, namespaces=()), "the scope and the namespaces"),
    ("no domain", replace(PASS, domains=()), "under no domain"),
    ("untrusted", replace(OPEN, trust=None), "no signature was verified"),
    ("unverified", replace(PASS, trust=TrustCounts()), "no trust data was verified"),
    ("expiring", replace(PASS, trust=replace(PASS.trust or TrustCounts(), expiring=0)), "named as expiring"),
    ("unreadable", replace(INCOMPLETE, incomplete_because=()), "repositories could not be read"),
    ("unknown", replace(PASS, tags=TagCounts(signed=4, unknown=1)), "the verdict of tags is unknown"),
    ("not audited", replace(PASS, repositories=RepositoryCounts(listed=4, audited=2)), "were not audited"),
    ("open", replace(PASS, findings=FindingCounts(open=1), oldest_open=OLDEST), "findings are open"),
    ("open in part", replace(PARTIAL, findings=FindingCounts(open=1), oldest_open=OLDEST), "findings are open that no"),
    ("known pass", replace(KNOWN, status=Status.NOT_A_FINDING), "is NOT_A_FINDING, and findings are open"),
    ("known unreviewed", replace(KNOWN, status=Status.NOT_REVIEWED), "is NOT_REVIEWED, and findings are open"),
    ("empty open", replace(PASS, status=Status.OPEN), "nothing is open"),
    ("partial pass", replace(PARTIAL, status=Status.NOT_A_FINDING), "in a partial run"),
    ("incomplete pass", replace(INCOMPLETE, status=Status.NOT_A_FINDING), "it is not complete"),
    ("unsigned pass", replace(OPEN, status=Status.NOT_A_FINDING), "an image tag is not SIGNED"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "run", "text"), BROKEN)
def test_a_record_that_contradicts_itself_is_not_reviewed_and_says_why(name: str, run: Run, text: str) -> None:
    del name
    assert any(text in one for one in find_contradictions(run, access_verified=True))
    denied = deny_contradictions(run, access_verified=True)
    assert (denied.status, denied.complete) == (Status.NOT_REVIEWED, False)
    assert denied.incomplete_because[-1].startswith(f"{CONTRADICTION}: ")


def test_a_pass_without_verified_access_is_denied() -> None:
    assert find_contradictions(PASS, access_verified=False) == (
        "it is complete, and admin access was not verified before and after",
    )


counts = st.integers(-2, 3)
COUNTED: dict[str, Callable[..., Any]] = {
    "repositories": RepositoryCounts,
    "tags": TagCounts,
    "findings": FindingCounts,
}


@st.composite
def records(draw: st.DrawFn) -> Run:
    """Any record at all, with the status that the rule gives it."""
    scope = draw(st.sampled_from(Scope))
    reasons = draw(st.sampled_from([(), ("why",)]))
    tags = TagCounts(*(draw(counts) for _ in range(6)))
    findings = FindingCounts(*(draw(counts) for _ in range(4)))
    unreadable = draw(st.integers(0, UNREADABLE_KEPT))
    return replace(
        PASS,
        scope=scope,
        namespaces=() if scope is Scope.FULL else ("web",),
        incomplete_because=reasons,
        repositories=RepositoryCounts(*(draw(counts) for _ in range(4))),
        tags=tags,
        findings=findings,
        oldest_open=draw(st.sampled_from(["", OLDEST])),
        unreadable=(("web/till", "500"),) * unreadable,
        trust=draw(st.sampled_from([None, TrustCounts(verified=1), TrustCounts()])),
        status=decide(tags, open_findings=findings.open, complete=not reasons, scope=scope),
    )


@given(records(), st.booleans())
def test_no_record_any_its_counts_passes_unless_it_is_a_pass(run: Run, access_verified: bool) -> None:
    recorded = deny_contradictions(run, access_verified=access_verified)
    if recorded.status is Status.NOT_A_FINDING:
        assert access_verified
        assert recorded.scope is Scope.FULL
        assert recorded.complete
        assert recorded.tags.signed == recorded.tags.audited >= 0
        assert recorded.findings.open == recorded.findings.excepted == 0
        assert recorded.repositories.audited + recorded.repositories.removed == recorded.repositories.listed
        assert min(recorded.tags.as_dict().values()) >= 0
