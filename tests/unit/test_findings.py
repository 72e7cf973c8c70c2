"""How findings move: opened, changed, resolved, and what of it is still to be announced."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from dtr_audit.errors import AuditError
from dtr_audit.findings import (
    NO_IMAGE,
    SIGNED_SINCE,
    TAG_REMOVED,
    FindingSpool,
    FindingsTable,
    Moment,
    compare,
    resolve,
)
from dtr_audit.model import Finding, JudgedTag, News, Repository, State, Tag, TrustFlags, Verdict
from hypothesis import given
from hypothesis import strategies as st

REPOSITORY = Repository("platform", "api")
AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
FIRST = Moment("20261122T030000Z", AT)
NEXT = Moment("20261123T030000Z", AT + timedelta(days=1))


def judged(verdict: Verdict | None, *, name: str = "1.0", digest: str = "sha256:a", reason: str = "why") -> JudgedTag:
    flags = TrustFlags("dtr.example.com", verdict is Verdict.SIGNED, False)
    return JudgedTag(Tag(name, digest, "alice", "2026-11-01", "", None, (flags,)), verdict, reason, flags)


def after(
    tags: list[JudgedTag], known: dict[str, Finding], moment: Moment, *, is_complete: bool = True
) -> dict[str, Finding]:
    """The findings as they are once everything is written."""
    moves = compare("prod", REPOSITORY, tags, known, is_complete=is_complete, moment=moment)
    return {finding.tag: finding for finding in (*moves.standing, *moves.resolutions)}


def kinds(finding: Finding) -> tuple[News, ...]:
    return tuple(move.news for move in finding.unannounced)


def opened(verdict: Verdict = Verdict.UNSIGNED) -> dict[str, Finding]:
    return after([judged(verdict)], {}, FIRST)


def announced(findings: dict[str, Finding]) -> dict[str, Finding]:
    """The findings once subscribers have their news: what FindingsTable.mark_announced makes of them."""
    return {
        tag: replace(
            finding,
            unannounced=(),
            is_unheard=finding.is_unheard and kinds(finding)[-1:] in {(), (News.RESOLVED,)},
        )
        for tag, finding in findings.items()
    }


def test_an_unsigned_tag_opens_a_finding_with_news() -> None:
    moves = compare("prod", REPOSITORY, [judged(Verdict.UNSIGNED)], {}, is_complete=True, moment=FIRST)
    (finding,) = moves.writes
    assert moves.standing == moves.writes
    assert finding.state is State.OPEN
    assert finding.first_seen == "2026-11-22T03:00:00.000Z"
    assert kinds(finding) == (News.OPENED,)


@pytest.mark.parametrize("verdict", [Verdict.SIGNED, Verdict.UNKNOWN, None])
def test_what_is_signed_unknown_or_no_image_opens_nothing(verdict: Verdict | None) -> None:
    assert after([judged(verdict)], {}, FIRST) == {}


def test_an_unchanged_finding_writes_nothing() -> None:
    moves = compare("prod", REPOSITORY, [judged(Verdict.UNSIGNED)], opened(), is_complete=True, moment=NEXT)
    assert moves.writes == moves.resolutions == ()


def test_another_verdict_is_news() -> None:
    known = announced(opened())
    finding = after([judged(Verdict.MISMATCHED)], known, NEXT)["1.0"]
    assert kinds(finding) == (News.CHANGED,)
    assert finding.first_seen == known["1.0"].first_seen
    assert finding.changed_in == NEXT.run_id


def test_another_unsigned_push_is_kept_but_is_no_news() -> None:
    finding = after([judged(Verdict.UNSIGNED, digest="sha256:b")], announced(opened()), NEXT)["1.0"]
    assert finding.digest == "sha256:b"
    assert finding.unannounced == ()
    assert finding.changed_in == FIRST.run_id


@pytest.mark.parametrize(("verdict", "resolution"), [(Verdict.SIGNED, SIGNED_SINCE), (None, NO_IMAGE)])
def test_a_signed_tag_resolves_its_finding(verdict: Verdict | None, resolution: str) -> None:
    moves = compare("prod", REPOSITORY, [judged(verdict)], announced(opened()), is_complete=True, moment=NEXT)
    assert moves.writes == ()
    (finding,) = moves.resolutions
    assert (finding.state, finding.resolution, kinds(finding)) == (State.RESOLVED, resolution, (News.RESOLVED,))


def test_a_tag_that_is_gone_resolves_only_after_a_complete_reading() -> None:
    known = announced(opened())
    assert after([], known, NEXT, is_complete=False) == known
    assert after([], known, NEXT)["1.0"].resolution == TAG_REMOVED


def test_an_unknown_tag_neither_resolves_nor_changes_its_finding() -> None:
    known = announced(opened())
    assert after([judged(Verdict.UNKNOWN)], known, NEXT) == known


def test_a_resolved_finding_is_not_resolved_again() -> None:
    known = after([judged(Verdict.SIGNED)], announced(opened()), NEXT)
    moves = compare("prod", REPOSITORY, [judged(Verdict.SIGNED)], known, is_complete=True, moment=NEXT)
    assert moves.writes == moves.resolutions == ()


def test_a_finding_that_opens_again_is_new() -> None:
    known = announced(after([judged(Verdict.SIGNED)], announced(opened()), FIRST))
    finding = after([judged(Verdict.UNSIGNED)], known, NEXT)["1.0"]
    assert finding.first_seen == "2026-11-23T03:00:00.000Z"
    assert kinds(finding) == (News.OPENED,)
    assert finding.resolution == ""


def test_resolved_before_anyone_heard_of_it_tells_both() -> None:
    finding = after([judged(Verdict.SIGNED)], opened(), NEXT)["1.0"]
    assert kinds(finding) == (News.OPENED, News.RESOLVED)


def test_news_keeps_the_run_that_made_it_whatever_happens_later() -> None:
    """It may have been published by a run that died before it could note so: told again, it must be the same news."""
    later = Moment("20261124T030000Z", AT + timedelta(days=2))
    closed = after([judged(Verdict.SIGNED)], opened(), NEXT)
    assert [move.run_id for move in closed["1.0"].unannounced] == [FIRST.run_id, NEXT.run_id]
    again = after([judged(Verdict.UNSIGNED)], closed, later)["1.0"]
    assert [(move.news, move.run_id) for move in again.unannounced] == [(News.OPENED, FIRST.run_id)]


def test_a_second_change_is_news_of_its_own() -> None:
    changed = after([judged(Verdict.MISMATCHED)], announced(opened()), NEXT)
    again = after([judged(Verdict.UNSIGNED)], changed, Moment("20261124T030000Z", AT + timedelta(days=2)))["1.0"]
    assert [(move.news, move.run_id) for move in again.unannounced] == [(News.CHANGED, "20261124T030000Z")]


def test_a_resolution_that_is_told_late_is_told_as_it_was() -> None:
    closed = after([], announced(opened()), NEXT)
    again = after([judged(Verdict.UNSIGNED)], closed, Moment("20261124T030000Z", AT + timedelta(days=2)))["1.0"]
    resolved, reopened = again.unannounced
    assert (resolved.resolution, resolved.first_seen) == (TAG_REMOVED, "2026-11-22T03:00:00.000Z")
    assert reopened.first_seen == again.first_seen == "2026-11-24T03:00:00.000Z"


def test_comparing_twice_in_one_run_moves_nothing_twice() -> None:
    once = opened()
    assert after([judged(Verdict.UNSIGNED)], once, FIRST) == once
    closed = after([judged(Verdict.SIGNED)], once, NEXT)
    assert after([judged(Verdict.SIGNED)], closed, NEXT) == closed


@given(st.lists(st.tuples(st.sampled_from([*Verdict, None, "gone"]), st.booleans()), max_size=12))
def test_subscribers_always_hear_opened_and_resolved_in_turn(history: list[tuple[Verdict | str | None, bool]]) -> None:
    """Whatever happens, and whenever SNS happens to take the news: what was told adds up to what is."""
    known: dict[str, Finding] = {}
    told: list[News] = []
    for number, (what, is_announced) in enumerate(history):
        tags = [] if what == "gone" else [judged(None if what is None else Verdict(what))]
        known = after(tags, known, Moment(f"run-{number}", AT + timedelta(days=number)))
        if is_announced:
            told += [news for finding in known.values() for news in kinds(finding)]
            known = announced(known)
    told += [news for finding in known.values() for news in kinds(finding)]
    turns = [news for news in told if news is not News.CHANGED]
    assert turns == [News.OPENED, News.RESOLVED] * (len(turns) // 2) + [News.OPENED] * (len(turns) % 2)
    is_open = any(finding.state is State.OPEN for finding in known.values())
    assert is_open is (len(turns) % 2 == 1)


def test_a_spool_gives_back_what_it_took() -> None:
    findings = [*opened().values(), *after([judged(Verdict.SIGNED, name="ü")], {}, NEXT).values()]
    findings.append(resolve(findings[0], SIGNED_SINCE, NEXT))
    spool = FindingSpool()
    try:
        for finding in findings:
            spool.add(finding)
        assert len(spool) == len(findings)
        assert list(spool) == findings
        assert list(spool) == findings
    finally:
        spool.close()


class ThrottledClient:
    """Takes only a part of each batch."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.taken: list[str] = []

    def batch_write_item(self, **request: dict[str, list[dict[str, dict[str, dict[str, str]]]]]) -> dict[str, object]:
        ((table, batch),) = request["RequestItems"].items()
        assert 0 < len(batch) <= 25
        self.taken += [request["PutRequest"]["Item"]["sk"] for request in batch[: self.takes]]
        left = batch[self.takes :]
        return {"UnprocessedItems": {table: left} if left else {}}


def test_items_that_dynamodb_turned_away_are_sent_again() -> None:
    client = ThrottledClient(takes=7)
    waits: list[float] = []
    table = FindingsTable(client, "findings", "prod", resolved_days=1, sleep=waits.append)  # type: ignore[arg-type]
    findings = [replace(opened()["1.0"], tag=f"t{number}") for number in range(60)]
    table.write(findings)
    assert sorted(client.taken) == sorted(finding.tag for finding in findings)
    assert waits


def test_a_table_that_takes_nothing_is_an_error_that_names_it() -> None:
    table = FindingsTable(ThrottledClient(takes=0), "findings", "prod", resolved_days=1, sleep=lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(AuditError, match="findings"):
        table.write(opened().values())
