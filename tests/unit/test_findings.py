"""How findings move: opened, changed, resolved, and what of it is still to be announced."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtr_audit.aws.findings import FindingsTable
from dtr_audit.core.exceptions import ENDED, UNFIT, WITHDRAWN, Exceptions, PolicyException
from dtr_audit.core.finding import ChangeKind, Excepted, Finding, State
from dtr_audit.core.finding_changes import NO_IMAGE, SIGNED_SINCE, TAG_REMOVED, Moment, compare, resolve
from dtr_audit.core.finding_spool import FindingSpool
from dtr_audit.core.model import JudgedTag, Repository, Tag, TrustFlags, Verdict
from dtr_audit.errors import AuditError

REPOSITORY = Repository("platform", "api")
AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
FIRST = Moment("20261122T030000Z", AT)
NEXT = Moment("20261123T030000Z", AT + timedelta(days=1))


def judged(verdict: Verdict | None, *, name: str = "1.0", digest: str = "sha256:a", reason: str = "why") -> JudgedTag:
    flags = TrustFlags("dtr.example.com", verdict is Verdict.SIGNED, False)
    return JudgedTag(Tag(name, digest, "alice", "2026-11-01", "", None, (flags,)), verdict, reason, flags)


def after(
    tags: list[JudgedTag],
    known: dict[str, Finding],
    moment: Moment,
    *,
    is_complete: bool = True,
    exceptions: Exceptions | None = None,
) -> dict[str, Finding]:
    """The findings as they are once everything is written."""
    moves = compare("prod", REPOSITORY, tags, known, is_complete=is_complete, moment=moment, exceptions=exceptions)
    return {finding.tag: finding for finding in (*moves.open_summary, *moves.resolutions)}


def kinds(finding: Finding) -> tuple[ChangeKind, ...]:
    return tuple(move.change_kind for move in finding.pending_notifications)


def opened(verdict: Verdict = Verdict.UNSIGNED) -> dict[str, Finding]:
    return after([judged(verdict)], {}, FIRST)


def announced(findings: dict[str, Finding]) -> dict[str, Finding]:
    """The findings once subscribers have their news: what FindingsTable.mark_announced makes of them."""
    return {
        tag: replace(
            finding,
            pending_notifications=(),
            is_unheard=finding.is_unheard and kinds(finding)[-1:] in {(), (ChangeKind.RESOLVED,)},
        )
        for tag, finding in findings.items()
    }


def test_an_unsigned_tag_opens_a_finding_with_changes() -> None:
    moves = compare("prod", REPOSITORY, [judged(Verdict.UNSIGNED)], {}, is_complete=True, moment=FIRST)
    (finding,) = moves.writes
    assert moves.open_summary == moves.writes
    assert finding.state is State.OPEN
    assert finding.first_seen == "2026-11-22T03:00:00.000Z"
    assert kinds(finding) == (ChangeKind.OPENED,)


@pytest.mark.parametrize("verdict", [Verdict.SIGNED, Verdict.UNKNOWN, None])
def test_what_is_signed_unknown_or_no_image_opens_nothing(verdict: Verdict | None) -> None:
    assert after([judged(verdict)], {}, FIRST) == {}


def test_an_unchanged_finding_writes_nothing() -> None:
    moves = compare("prod", REPOSITORY, [judged(Verdict.UNSIGNED)], opened(), is_complete=True, moment=NEXT)
    assert moves.writes == moves.resolutions == ()


def test_another_verdict_is_changes() -> None:
    known = announced(opened())
    finding = after([judged(Verdict.MISMATCHED)], known, NEXT)["1.0"]
    assert kinds(finding) == (ChangeKind.CHANGED,)
    assert finding.first_seen == known["1.0"].first_seen
    assert finding.changed_in == NEXT.run_id


def test_another_unsigned_push_is_kept_but_is_no_changes() -> None:
    finding = after([judged(Verdict.UNSIGNED, digest="sha256:b")], announced(opened()), NEXT)["1.0"]
    assert finding.digest == "sha256:b"
    assert finding.pending_notifications == ()
    assert finding.changed_in == FIRST.run_id


@pytest.mark.parametrize(("verdict", "resolution"), [(Verdict.SIGNED, SIGNED_SINCE), (None, NO_IMAGE)])
def test_a_signed_tag_resolves_its_finding(verdict: Verdict | None, resolution: str) -> None:
    moves = compare("prod", REPOSITORY, [judged(verdict)], announced(opened()), is_complete=True, moment=NEXT)
    assert moves.writes == ()
    (finding,) = moves.resolutions
    assert (finding.state, finding.resolution, kinds(finding)) == (State.RESOLVED, resolution, (ChangeKind.RESOLVED,))


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
    assert kinds(finding) == (ChangeKind.OPENED,)
    assert finding.resolution == ""


def test_resolved_before_anyone_notified_of_it_reports_both() -> None:
    finding = after([judged(Verdict.SIGNED)], opened(), NEXT)["1.0"]
    assert kinds(finding) == (ChangeKind.OPENED, ChangeKind.RESOLVED)


def test_changes_keeps_the_run_that_made_it_any_happens_later() -> None:
    """It may have been published by a run that died before it could note so: told again, it must be the same news."""
    later = Moment("20261124T030000Z", AT + timedelta(days=2))
    closed = after([judged(Verdict.SIGNED)], opened(), NEXT)
    assert [move.run_id for move in closed["1.0"].pending_notifications] == [FIRST.run_id, NEXT.run_id]
    again = after([judged(Verdict.UNSIGNED)], closed, later)["1.0"]
    assert [(move.change_kind, move.run_id) for move in again.pending_notifications] == [
        (ChangeKind.OPENED, FIRST.run_id)
    ]


def test_a_second_change_is_changes_of_its_own() -> None:
    changed = after([judged(Verdict.MISMATCHED)], announced(opened()), NEXT)
    again = after([judged(Verdict.UNSIGNED)], changed, Moment("20261124T030000Z", AT + timedelta(days=2)))["1.0"]
    assert [(move.change_kind, move.run_id) for move in again.pending_notifications] == [
        (ChangeKind.CHANGED, "20261124T030000Z")
    ]


def test_a_resolution_that_is_reported_late_is_reported_as_it_was() -> None:
    closed = after([], announced(opened()), NEXT)
    again = after([judged(Verdict.UNSIGNED)], closed, Moment("20261124T030000Z", AT + timedelta(days=2)))["1.0"]
    resolved, reopened = again.pending_notifications
    assert (resolved.resolution, resolved.first_seen) == (TAG_REMOVED, "2026-11-22T03:00:00.000Z")
    assert reopened.first_seen == again.first_seen == "2026-11-24T03:00:00.000Z"


def test_comparing_twice_in_one_run_moves_nothing_twice() -> None:
    once = opened()
    assert after([judged(Verdict.UNSIGNED)], once, FIRST) == once
    closed = after([judged(Verdict.SIGNED)], once, NEXT)
    assert after([judged(Verdict.SIGNED)], closed, NEXT) == closed


@given(st.lists(st.tuples(st.sampled_from([*Verdict, None, "gone"]), st.booleans()), max_size=12))
def test_subscribers_always_get_opened_and_resolved_in_turn(history: list[tuple[Verdict | str | None, bool]]) -> None:
    """Whatever happens, and whenever SNS happens to take the news: what was told adds up to what is."""
    known: dict[str, Finding] = {}
    reported: list[ChangeKind] = []
    for number, (what, is_announced) in enumerate(history):
        tags = [] if what == "gone" else [judged(None if what is None else Verdict(what))]
        known = after(tags, known, Moment(f"run-{number}", AT + timedelta(days=number)))
        if is_announced:
            reported += [change_kind for finding in known.values() for change_kind in kinds(finding)]
            known = announced(known)
    reported += [change_kind for finding in known.values() for change_kind in kinds(finding)]
    turns = [change_kind for change_kind in reported if change_kind is not ChangeKind.CHANGED]
    assert turns == [ChangeKind.OPENED, ChangeKind.RESOLVED] * (len(turns) // 2) + [ChangeKind.OPENED] * (
        len(turns) % 2
    )
    is_open = any(finding.state is State.OPEN for finding in known.values())
    assert is_open is (len(turns) % 2 == 1)


# --- Exceptions -------------------------------------------------------------------------------------------------------


def exception(ends: date, *, digest: str = "", exception_id: str = "EX-7") -> PolicyException:
    excepted = Excepted(exception_id, "j.doe", "vendor image", "POA&M 14", ends.isoformat())
    return PolicyException(excepted, "platform", "*", "*", digest)


def on(moment: Moment, *exceptions: PolicyException) -> Exceptions:
    return Exceptions(exceptions, day=moment.at.date())


def day(number: int) -> Moment:
    return Moment(f"run-{number:03d}", AT + timedelta(days=number))


LATER = AT.date() + timedelta(days=60)


def excepted(digest: str = "") -> dict[str, Finding]:
    """A finding that opened under an exception."""
    return after([judged(Verdict.UNSIGNED)], {}, FIRST, exceptions=on(FIRST, exception(LATER, digest=digest)))


def test_what_opens_under_an_exception_is_open_and_no_changes() -> None:
    finding = excepted()["1.0"]
    assert finding.state is State.OPEN
    assert (finding.transition, finding.changed_in) == (ChangeKind.OPENED, FIRST.run_id)
    assert finding.pending_notifications == ()
    assert finding.excepted == exception(LATER).excepted


def test_an_exception_is_reported_of_once_a_week_before_its_end_and_once_at_its_end() -> None:
    known: dict[str, Finding] = {}
    reported: dict[int, tuple[ChangeKind, ...]] = {}
    one = exception(AT.date() + timedelta(days=20))
    for number in range(30):
        known = after([judged(Verdict.UNSIGNED)], known, day(number), exceptions=on(day(number), one))
        if kinds(known["1.0"]):
            reported[number] = kinds(known["1.0"])
        known = announced(known)
    # It holds through day 20.
    assert reported == {13: (ChangeKind.EXPIRING,), 21: (ChangeKind.EXPIRED,)}


def test_what_is_no_longer_excepted_says_why() -> None:
    known = excepted("sha256:a")
    same = exception(LATER, digest="sha256:a")
    late = Moment("late", datetime(LATER.year, LATER.month, LATER.day, tzinfo=UTC) + timedelta(days=1))
    for tags, moment, exceptions, why in (
        ([judged(Verdict.UNSIGNED)], NEXT, on(NEXT), WITHDRAWN),
        (
            [judged(Verdict.UNSIGNED)],
            NEXT,
            on(NEXT, exception(LATER, exception_id="EX-8", digest="sha256:b")),
            WITHDRAWN,
        ),
        ([judged(Verdict.UNSIGNED, digest="sha256:b")], NEXT, on(NEXT, same), UNFIT),
        ([judged(Verdict.UNSIGNED, digest="")], NEXT, on(NEXT, same), UNFIT),
        ([judged(Verdict.UNSIGNED)], late, on(late, same), ENDED),
        ([judged(Verdict.UNSIGNED)], NEXT, on(NEXT, exception(AT.date(), digest="sha256:a")), ENDED),
        ([judged(Verdict.UNSIGNED)], late, on(late), ENDED),
    ):
        finding = after(tags, known, moment, exceptions=exceptions)["1.0"]
        (move,) = finding.pending_notifications
        assert (move.change_kind, move.resolution, move.excepted) == (ChangeKind.EXPIRED, why, same.excepted)
        assert finding.excepted is None


def test_a_finding_that_opens_in_the_last_week_of_an_exception_is_reported_as_opened_and_then_at_the_end() -> None:
    one = exception(AT.date() + timedelta(days=2))
    known = after([judged(Verdict.UNSIGNED)], {}, FIRST, exceptions=on(FIRST, one))
    assert kinds(known["1.0"]) == (ChangeKind.OPENED,)
    known = after([judged(Verdict.UNSIGNED)], announced(known), NEXT, exceptions=on(NEXT, one))
    assert kinds(known["1.0"]) == ()
    known = after([judged(Verdict.UNSIGNED)], known, day(3), exceptions=on(day(3), one))
    assert kinds(known["1.0"]) == (ChangeKind.EXPIRED,)


def test_another_end_is_reported_of_again() -> None:
    soon, later = exception(AT.date() + timedelta(days=3)), exception(AT.date() + timedelta(days=5))
    known = after([judged(Verdict.UNSIGNED)], announced(opened()), FIRST, exceptions=on(FIRST, soon))
    assert kinds(known["1.0"]) == (ChangeKind.EXPIRING,)
    known = after([judged(Verdict.UNSIGNED)], announced(known), NEXT, exceptions=on(NEXT, later))
    assert [move.excepted for move in known["1.0"].pending_notifications] == [later.excepted]


def test_what_no_one_notified_of_is_resolved_without_a_word() -> None:
    finding = after([judged(Verdict.SIGNED)], excepted(), NEXT, exceptions=on(NEXT, exception(LATER)))["1.0"]
    assert finding.state is State.RESOLVED
    assert [(move.change_kind, move.is_quiet) for move in finding.pending_notifications] == [
        (ChangeKind.RESOLVED, True)
    ]
    assert finding.excepted is None


def test_what_was_resolved_without_a_word_and_opens_again_is_reported_as_opened_alone() -> None:
    closed = after([], excepted(), NEXT, exceptions=on(NEXT, exception(LATER)))
    assert kinds(after([judged(Verdict.UNSIGNED)], closed, day(2), exceptions=on(day(2)))["1.0"]) == (
        ChangeKind.OPENED,
    )
    again = after([judged(Verdict.UNSIGNED)], closed, day(2), exceptions=on(day(2), exception(LATER)))
    assert kinds(again["1.0"]) == ()


def test_what_was_announced_before_it_was_excepted_stays_known() -> None:
    known = after([judged(Verdict.UNSIGNED)], announced(opened()), NEXT, exceptions=on(NEXT, exception(LATER)))
    assert kinds(known["1.0"]) == ()
    finding = after([judged(Verdict.SIGNED)], announced(known), day(2), exceptions=on(day(2), exception(LATER)))["1.0"]
    assert [(move.change_kind, move.is_quiet) for move in finding.pending_notifications] == [
        (ChangeKind.RESOLVED, False)
    ]


def test_what_was_still_to_be_reported_when_it_was_excepted_is_reported() -> None:
    """A run that died may have told it already."""
    known = after([judged(Verdict.UNSIGNED)], opened(), NEXT, exceptions=on(NEXT, exception(LATER)))
    assert [move.run_id for move in known["1.0"].pending_notifications] == [FIRST.run_id]


def test_another_verdict_is_no_changes_under_an_exception() -> None:
    finding = after([judged(Verdict.MISMATCHED)], excepted(), NEXT, exceptions=on(NEXT, exception(LATER)))["1.0"]
    assert finding.verdict is Verdict.MISMATCHED
    assert finding.pending_notifications == ()


def test_a_resolution_that_waits_is_reported_though_the_tag_opens_again_under_an_exception() -> None:
    closed = after([], announced(opened()), NEXT)
    again = after([judged(Verdict.UNSIGNED)], closed, day(2), exceptions=on(day(2), exception(LATER)))
    assert kinds(again["1.0"]) == (ChangeKind.RESOLVED,)
    ended = after([judged(Verdict.UNSIGNED)], again, day(3), exceptions=on(day(3)))
    assert kinds(ended["1.0"]) == (ChangeKind.RESOLVED, ChangeKind.EXPIRED)


def test_exceptions_that_no_one_knows_except_nothing_and_end_nothing() -> None:
    known = excepted()
    assert after([judged(Verdict.UNSIGNED)], known, NEXT, exceptions=None) == known
    assert kinds(after([judged(Verdict.UNSIGNED, name="2.0")], {}, NEXT, exceptions=None)["2.0"]) == (
        ChangeKind.OPENED,
    )


def test_an_exception_writes_nothing_as_long_as_nothing_moves() -> None:
    moves = compare(
        "prod",
        REPOSITORY,
        [judged(Verdict.UNSIGNED)],
        excepted(),
        is_complete=True,
        moment=NEXT,
        exceptions=on(NEXT, exception(LATER)),
    )
    assert moves.writes == moves.resolutions == ()


# Of the exceptions in one run: there is none; one for long; one for a few days; nobody knows.
POLICIES = st.sampled_from(["none", "long", "short", "unknown"])


@given(
    st.lists(
        st.tuples(st.sampled_from([*Verdict, None, "gone"]), st.booleans(), POLICIES, st.integers(1, 9)), max_size=12
    )
)
def test_what_subscribers_get_adds_up_to_what_is(history: list[tuple[Verdict | str | None, bool, str, int]]) -> None:
    """Whatever happens, and whenever SNS happens to take the news; and nothing that an exception covers is told as opened."""
    known: dict[str, Finding] = {}
    reported: list[ChangeKind] = []
    number = 0
    for what, is_announced, policy, days in history:
        number += days
        moment = day(number)
        tags = [] if what == "gone" else [judged(None if what is None else Verdict(what))]
        ends = moment.at.date() + timedelta(days={"long": 30, "short": 4}.get(policy, 0))
        one = [exception(ends)] if policy in {"long", "short"} else []
        before = known
        known = after(tags, known, moment, exceptions=None if policy == "unknown" else on(moment, *one))
        assert after(tags, known, moment, exceptions=None if policy == "unknown" else on(moment, *one)) == known
        if policy == "long":
            new = {move for finding in known.values() for move in finding.pending_notifications}
            new -= {move for finding in before.values() for move in finding.pending_notifications}
            assert {move.change_kind for move in new} <= {ChangeKind.RESOLVED}
        if is_announced:
            reported += notified_of(known)
            known = announced(known)
    reported += notified_of(known)
    known = announced(known)
    is_notified = False
    for change_kind in reported:
        assert is_notified or change_kind is not ChangeKind.RESOLVED
        assert not is_notified or change_kind is not ChangeKind.OPENED
        is_notified = change_kind is not ChangeKind.RESOLVED
    (is_open,) = {finding.state is State.OPEN for finding in known.values()} or {False}
    is_excepted = any(finding.excepted for finding in known.values())
    assert is_notified <= is_open
    assert is_open <= (is_notified or is_excepted)
    assert all(finding.is_unheard is (is_open and not is_notified) for finding in known.values())


def notified_of(findings: dict[str, Finding]) -> list[ChangeKind]:
    return [
        move.change_kind for finding in findings.values() for move in finding.pending_notifications if not move.is_quiet
    ]


def test_a_spool_gives_back_what_it_took() -> None:
    findings = [*opened().values(), *after([judged(Verdict.SIGNED, name="ü")], {}, NEXT).values()]
    findings.append(resolve(findings[0], SIGNED_SINCE, NEXT))
    findings += excepted().values()
    findings.append(resolve(findings[-1], SIGNED_SINCE, NEXT))
    findings += after([judged(Verdict.UNSIGNED)], excepted(), NEXT, exceptions=on(NEXT)).values()
    findings += after([judged(Verdict.UNSIGNED)], {}, FIRST, exceptions=on(FIRST, exception(AT.date()))).values()
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
