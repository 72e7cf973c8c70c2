"""What evidence names of the findings: the first of them by name, in whatever order they came, and few more are held."""

import random
from dataclasses import replace

import pytest

from dtr_audit.core.finding import ChangeKind, Finding, State
from dtr_audit.core.model import Repository, Verdict
from dtr_audit.evidence import collector
from dtr_audit.evidence.collector import EvidenceCollector

RUN = "20261122T030000Z"
AT = "2026-11-22T03:00:00.000Z"


def finding(number: int, *, state: State = State.OPEN, reason: str = "") -> Finding:
    return Finding(
        registry="prod",
        repository=Repository(f"team-{number // 10:03d}", "shop"),
        tag=str(number % 10),
        state=state,
        verdict=Verdict.UNSIGNED,
        reason=reason,
        digest="",
        author="",
        pushed_at="",
        first_seen=AT,
        last_changed=AT,
        transition=ChangeKind.OPENED if state is State.OPEN else ChangeKind.RESOLVED,
        changed_in=RUN,
    )


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "FINDINGS_LISTED", 20)
    monkeypatch.setattr(collector, "CHANGES_LISTED", 10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("state", State)
def test_the_first_by_name_are_reported_any_the_order_they_came_in(seed: int, state: State) -> None:
    numbers = list(range(300))
    random.Random(seed).shuffle(numbers)
    gathered = EvidenceCollector(RUN)
    for number in numbers:
        gathered.add(finding(number, state=state))
    expected = [finding(number, state=state) for number in range(300)]
    if state is State.OPEN:
        assert [one.finding for one in gathered.findings] == expected[:20]
        assert gathered.opened == expected[:10]
        assert sum(one.open for one in gathered.namespaces) == 300
    else:
        assert gathered.findings == []
        assert gathered.resolved == expected[:10]


def test_a_tag_that_is_reported_of_again_replaces_what_was_known_of_it() -> None:
    gathered = EvidenceCollector(RUN)
    for number in range(300):
        gathered.add(finding(number))
    gathered.add(finding(3, reason="pushed anew"))
    gathered.add(finding(299, reason="pushed anew"))
    assert [one.finding.reason for one in gathered.findings] == ["", "", "", "pushed anew", *[""] * 16]


@pytest.mark.parametrize("is_backward", [False, True])
def test_of_however_many_findings_a_tenth_more_are_held_than_are_reported(is_backward: bool) -> None:
    gathered = EvidenceCollector(RUN)
    most = 0
    for number in sorted(range(300), reverse=is_backward):
        gathered.add(finding(number))
        most = max(most, len(gathered._open._held))
    assert 20 <= most <= 22


def test_of_changed_findings_all_are_counted_and_the_first_are_reported() -> None:
    gathered = EvidenceCollector(RUN)
    for number in reversed(range(30)):
        moved = replace(
            finding(number), transition=ChangeKind.CHANGED, changed_in=RUN if number % 2 else "an earlier run"
        )
        gathered.add(moved)
    assert gathered.changed_count == 15
    assert [one.tag for one in gathered.changed] == [finding(number).tag for number in range(1, 20, 2)]
    assert gathered.opened == []
