"""What subscribers hear: always under SNS's limits, never a namespace lost, the same news under the same id."""

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dtr_audit.aws import notification_text
from dtr_audit.aws.notification_text import MESSAGE_BYTES, ArtifactUrls, OpenFindingsSummary
from dtr_audit.aws.notifications import NAMESPACES_OF_A_MESSAGE, Alerts
from dtr_audit.aws.pending_notifications import PendingNotifications
from dtr_audit.core.counts import FindingCounts, RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.finding import ChangeKind, Excepted, Finding, State, Transition
from dtr_audit.core.model import Repository, Verdict
from dtr_audit.core.run_record import BaselineRead, ExceptionsInForce, Run, Scope, SecurityHubUpdate, Status
from dtr_audit.settings import AlertGrouping

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
SNS_LIMIT = 256 * 1024


class Findings:
    """A table whose index shows its findings only after `lag` readings."""

    def __init__(self, findings: Iterable[Finding], *, lag: int = 0) -> None:
        self.pending = list(findings)
        self.lag = lag
        self.marked: list[Finding] = []

    def pending_notifications(self) -> Iterator[Finding]:
        self.lag -= 1
        return iter(self.pending if self.lag < 0 else self.pending[:1])

    def mark_announced(self, findings: Iterable[Finding], *, threads: int) -> None:
        assert threads > 0
        self.marked += findings


class Runs:
    def __init__(self, last: datetime | None = None) -> None:
        self.last = last
        self.problems: dict[str, tuple[str, datetime]] = {}

    def last_digest_at(self) -> datetime | None:
        return self.last

    def note_digest(self, now: datetime) -> None:
        self.last = now

    def reported_problem(self, of: str) -> tuple[str, datetime] | None:
        return self.problems.get(of)

    def note_problem(self, of: str, problem: str, now: datetime) -> None:
        self.problems[of] = (problem, now)
        if not problem:
            del self.problems[of]


class Topic:
    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []
        self.fails = False

    def publish(self, **message: Any) -> None:
        if self.fails:
            raise ConnectionError("SNS is away")
        self.published.append(message)


def finding(namespace: str = "web", name: str = "shop", tag: str = "1", **changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "registry": "prod",
        "repository": Repository(namespace, name),
        "tag": tag,
        "state": State.OPEN,
        "verdict": Verdict.UNSIGNED,
        "reason": "not signed under dtr.example.com",
        "digest": "sha256:" + "a" * 64,
        "author": "alice",
        "pushed_at": "2026-11-01T00:00:00Z",
        "first_seen": "2026-11-22T03:00:00.000Z",
        "last_changed": "2026-11-22T03:00:00.000Z",
        "changed_in": "20261122T030000Z",
        "transition": ChangeKind.OPENED,
        "pending_notifications": (Transition(ChangeKind.OPENED, "20261122T030000Z", "2026-11-22T03:00:00.000Z"),),
    }
    return Finding(**{**fields, **changes})


def run(**changes: Any) -> Run:
    fields: dict[str, Any] = {
        "registry": "prod",
        "run_id": "20261122T030000Z",
        "scope": Scope.FULL,
        "namespaces": (),
        "status": Status.OPEN,
        "incomplete_because": (),
        "warnings": (),
        "domains": ("dtr.example.com",),
        "started_at": NOW,
        "finished_at": NOW + timedelta(minutes=1),
        "repositories": RepositoryCounts(listed=1, audited=1),
        "tags": TagCounts(unsigned=1),
        "findings": FindingCounts(open=1, opened=1),
    }
    return Run(**{**fields, **changes})


def announce(
    findings: Findings,
    one: Run | None = None,
    *,
    topic: Topic | None = None,
    runs: Runs | None = None,
    grouping: AlertGrouping = AlertGrouping.RUN,
    reminder_days: int = 0,
    expected: int | None = None,
    until: float = float("inf"),
    now: datetime = NOW,
    contact: str = "",
) -> list[dict[str, Any]]:
    topic = topic or Topic()
    alerts = Alerts(
        topic,  # type: ignore[arg-type]
        "topic",
        findings,  # type: ignore[arg-type]
        runs or Runs(),  # type: ignore[arg-type]
        grouping=grouping,
        reminder_days=reminder_days,
        threads=4,
        url="https://dtr.example.mil",
        contact=contact,
        sleep=lambda _: None,
    )
    alerts.announce(
        one or run(),
        OpenFindingsSummary({"web": 1}, "2026-11-22T03:00:00.000Z", {"web": 1}),
        ArtifactUrls("s3://bucket/findings/x-", "s3://bucket/runs/x.json", ""),
        expected=len(findings.pending) if expected is None else expected,
        now=now,
        until=until,
    )
    return topic.published


def size(message: dict[str, Any]) -> int:
    attributes = sum(
        len(name.encode()) + len(value["DataType"]) + len(value["StringValue"].encode())
        for name, value in message["MessageAttributes"].items()
    )
    return len(message["Message"].encode()) + attributes + len(message["Subject"])


def worst(number: int, *, namespaces: int, letter: str) -> list[Finding]:
    """Findings whose every text is as long, and as costly to escape, as it can be."""
    length = min(251, 896 // len(letter.encode()))
    return [
        finding(
            f"{index % namespaces:04d}" + letter * length,
            letter * length,
            f"{index:06d}" + "t" * 122,
            reason='"\\' * 2_000,
            author="ü\U0001f600" * 64,
            digest="sha512:" + "f" * 128,
            excepted=Excepted("E" * 64, "ü\U0001f600" * 64, '"\\' * 200, '"\\' * 64, "2026-12-31"),
        )
        for index in range(number)
    ]


@pytest.mark.parametrize("grouping", list(AlertGrouping))
@pytest.mark.parametrize(("namespaces", "letter"), [(1, "n"), (100, "n"), (250, "n"), (100, '"'), (100, "\U0001f600")])
def test_the_worst_changes_stays_under_the_limits_of_sns_and_no_namespace_is_lost(
    namespaces: int, letter: str, grouping: AlertGrouping
) -> None:
    findings = Findings(worst(3_000, namespaces=namespaces, letter=letter))
    reasons = tuple('"\\ü' * 800 for _ in range(50))
    published = announce(findings, run(incomplete_because=reasons, warnings=reasons), grouping=grouping)
    reported: set[str] = set()
    counted = 0
    for message in published:
        assert size(message) <= MESSAGE_BYTES + 100 < SNS_LIMIT
        assert len(message["Subject"]) < 100
        assert message["Subject"].isascii()
        assert message["Subject"].isprintable()
        if "namespaces" in message["MessageAttributes"]:
            names = json.loads(message["MessageAttributes"]["namespaces"]["StringValue"])
            assert 0 < len(names) <= NAMESPACES_OF_A_MESSAGE
            reported.update(names)
        body = json.loads(json.loads(message["Message"])["default"])
        counted += body["counts"]["opened"]
        assert body["counts"]["opened"] == len(body["opened"]) + body["omitted"]["opened"]
    assert reported == {one.repository.namespace for one in findings.pending}
    assert counted == 3_000
    assert len(findings.marked) == 3_000


def test_what_is_reported_is_the_first_by_name_with_all_that_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notification_text, "MESSAGE_ITEMS", 7)
    change_kind = [
        finding(f"team-{n % 3}", f"shop-{n % 5}", str(n % 7), digest=f"sha256:{n:064d}", author=f"author-{n}")
        for n in range(104, -1, -1)
    ]
    (message,) = announce(Findings(change_kind))
    reported = json.loads(json.loads(message["Message"])["default"])["opened"]
    first = sorted(change_kind, key=lambda one: (one.repository, one.tag))[:7]
    assert [(one["repository"], one["tag"], one["digest"], one["author"]) for one in reported] == [
        (str(one.repository), one.tag, one.digest, one.author) for one in first
    ]


def test_of_changes_that_is_held_the_names_alone_are_in_memory() -> None:
    pending = PendingNotifications()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(2_000):
            pending.add(finding(f"team-{n // 100}", "shop", str(n), reason=f"{n} " + "x" * 2_000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pending.close()
    assert (after - before) / 2_000 < 1_000


def test_what_sns_does_not_take_stays_changes() -> None:
    findings, topic = Findings([finding()]), Topic()
    topic.fails = True
    with pytest.raises(ConnectionError):
        announce(findings, topic=topic)
    assert findings.marked == []


def test_an_index_that_lags_behind_is_waited_for() -> None:
    findings = Findings([finding(tag=str(number)) for number in range(5)], lag=3)
    (message,) = announce(findings)
    body = json.loads(json.loads(message["Message"])["default"])
    assert body["counts"]["opened"] == 5
    assert len(findings.marked) == 5


def test_an_index_that_never_catches_up_leaves_the_rest_for_the_next_run() -> None:
    findings = Findings([finding(tag=str(number)) for number in range(5)], lag=1_000)
    announce(findings)
    assert len(findings.marked) == 1


def test_the_same_changes_has_the_same_id_and_other_changes_another() -> None:
    def ids(one: Finding, **changes: Any) -> tuple[str, str]:
        (message,) = announce(Findings([one]), run(**changes))
        body = json.loads(json.loads(message["Message"])["default"])
        return body["id"], body["opened"][0]["id"]

    first = ids(finding())
    assert ids(finding()) == first
    assert ids(finding(), run_id="20261123T030000Z")[1] == first[1]
    assert ids(finding(), run_id="20261123T030000Z")[0] != first[0]
    assert ids(finding(changed_in="20261123T030000Z", last_changed="2026-11-23T03:00:00.000Z")) == first
    later = Transition(ChangeKind.OPENED, "20261123T030000Z", "2026-11-23T03:00:00.000Z")
    assert ids(finding(pending_notifications=(later,)))[1] != first[1]


def test_mail_gets_text_machines_get_json_and_a_phone_gets_a_line() -> None:
    (message,) = announce(Findings([finding()]))
    assert message["MessageStructure"] == "json"
    parts = json.loads(message["Message"])
    assert set(parts) == {"default", "email", "sms"}
    assert json.loads(parts["default"])["opened"][0]["tag"] == "1"
    assert "web/shop:1  UNSIGNED" in parts["email"]
    assert "\n" not in parts["sms"]


def test_the_mail_says_first_that_an_audit_is_no_pass() -> None:
    (message,) = announce(
        Findings([]), run(status=Status.NOT_REVIEWED, incomplete_because=("web/shop could not be read",))
    )
    text = json.loads(message["Message"])["email"]
    assert "NOT_REVIEWED" in text.splitlines()[0]
    assert "web/shop could not be read" in text
    assert message["MessageAttributes"]["event"]["StringValue"] == "audit_incomplete"
    assert "namespaces" not in message["MessageAttributes"]


def test_one_is_written_of_in_the_singular_and_more_in_the_plural() -> None:
    def said(number: int) -> str:
        one = run(
            repositories=RepositoryCounts(listed=number, audited=number),
            tags=TagCounts(unsigned=number, artifacts=number),
            findings=FindingCounts(open=number),
        )
        (message,) = announce(Findings([]), one, runs=Runs(), reminder_days=1)
        return str(json.loads(message["Message"])["email"] + message["Subject"])

    one, two = said(1), said(2)
    for text in (
        "1 of 1 repository read; 1 image tag, 1 of them",
        "1 more tag holds a signature (Cosign), no image, and is not judged.",
        "1 finding is open, ",
    ):
        assert text in one
    for text in (
        "2 of 2 repositories read; 2 image tags, 2 of them",
        "2 more tags hold signatures (Cosign), no images, and are not judged.",
        "2 findings are open, ",
    ):
        assert text in two


def test_a_registry_verified_empty_is_called_so() -> None:
    one = run(status=Status.NOT_A_FINDING, tags=TagCounts(), findings=FindingCounts())
    move = Transition(ChangeKind.RESOLVED, "20261122T030000Z", "2026-11-01T03:00:00.000Z", "repository removed")
    gone = finding(state=State.RESOLVED, resolution="repository removed", pending_notifications=(move,))
    (message,) = announce(Findings([gone]), one)
    assert "empty" in message["Subject"]
    assert "The registry is empty" in json.loads(message["Message"])["email"]


def test_nothing_new_is_silence() -> None:
    assert announce(Findings([]), run(findings=FindingCounts(open=5))) == []


@pytest.mark.parametrize(
    ("last", "days", "is_due"),
    [
        (None, 7, True),
        (NOW - timedelta(days=7), 7, True),
        (NOW - timedelta(days=7) + timedelta(minutes=5), 7, True),
        (NOW - timedelta(days=6), 7, False),
        (NOW - timedelta(days=400), 0, False),
    ],
)
def test_a_reminder_is_due_by_the_day(last: datetime | None, days: int, is_due: bool) -> None:
    published = announce(Findings([]), run(findings=FindingCounts(open=5)), runs=Runs(last), reminder_days=days)
    assert bool(published) is is_due


def test_nothing_open_is_nothing_to_be_reminded_of() -> None:
    one = run(status=Status.NOT_A_FINDING, findings=FindingCounts())
    assert announce(Findings([]), one, reminder_days=1) == []


def test_what_is_excepted_is_nothing_to_be_reminded_of() -> None:
    assert announce(Findings([]), run(findings=FindingCounts(open=5, excepted=5)), reminder_days=1) == []
    (message,) = announce(Findings([]), run(findings=FindingCounts(open=5, excepted=4)), reminder_days=1)
    assert message["Subject"] == "[prod] OPEN: 5 open, 4 excepted, reminder"
    assert "4 of them are under an exception" in json.loads(message["Message"])["email"]


EXCEPTED = Excepted("EX-7", "j.doe", "vendor image", "POA&M 14", "2026-11-25")


def reported(change_kind: ChangeKind, resolution: str = "") -> dict[str, Any]:
    move = Transition(change_kind, "20261122T030000Z", "2026-11-01T03:00:00.000Z", resolution, excepted=EXCEPTED)
    still = EXCEPTED if change_kind is ChangeKind.EXPIRING else None
    (message,) = announce(Findings([finding(pending_notifications=(move,), excepted=still)]))
    return message


def test_the_end_of_an_exception_is_reported_with_who_answers_for_it_and_asks_for_action() -> None:
    message = reported(ChangeKind.EXPIRING)
    parts = json.loads(message["Message"])
    body = json.loads(parts["default"])
    assert (body["counts"]["expiring"], body["counts"]["opened"]) == (1, 0)
    (item,) = body["expiring"]
    assert item["exception"] == {
        "id": "EX-7",
        "owner": "j.doe",
        "reason": "vendor image",
        "reference": "POA&M 14",
        "ends": "2026-11-25",
    }
    assert "EXCEPTION ENDS SOON (1)" in parts["email"]
    assert "excepted to 2026-11-25 by EX-7 of j.doe, POA&M 14: vendor image" in parts["email"]
    assert "1 excepted for days only" in parts["sms"]
    assert message["MessageAttributes"]["severity"]["StringValue"] == "medium"
    assert body["fix"]


def test_what_an_exception_covers_no_more_is_reported_with_the_reason() -> None:
    parts = json.loads(reported(ChangeKind.EXPIRED, "exception withdrawn")["Message"])
    assert "NO LONGER EXCEPTED (1)" in parts["email"]
    assert "exception withdrawn: EX-7 of j.doe, POA&M 14, to 2026-11-25" in parts["email"]
    assert "1 no longer excepted" in parts["sms"]


def test_what_no_one_had_notified_of_closes_without_a_word_and_is_marked_as_done() -> None:
    move = Transition(ChangeKind.RESOLVED, "20261122T030000Z", "2026-11-01T03:00:00.000Z", "signed", is_quiet=True)
    findings = Findings([finding(state=State.RESOLVED, resolution="signed", pending_notifications=(move,))])
    assert announce(findings, run(findings=FindingCounts(resolved=1))) == []
    assert findings.marked == findings.pending


def test_changes_of_an_earlier_life_is_reported_though_the_end_of_the_last_is_not() -> None:
    notified = Transition(ChangeKind.RESOLVED, "20261121T030000Z", "2026-11-01T03:00:00.000Z", "tag removed")
    quiet = Transition(ChangeKind.RESOLVED, "20261122T030000Z", "2026-11-22T03:00:00.000Z", "signed", is_quiet=True)
    findings = Findings([finding(state=State.RESOLVED, resolution="signed", pending_notifications=(notified, quiet))])
    (message,) = announce(findings)
    body = json.loads(json.loads(message["Message"])["default"])
    assert [item["resolution"] for item in body["resolved"]] == ["tag removed"]
    assert body["counts"]["resolved"] == 1
    assert findings.marked == findings.pending


def broken(problem: str) -> Run:
    return run(exceptions=ExceptionsInForce(problem=problem))


def events(messages: list[dict[str, Any]]) -> list[str]:
    return [message["MessageAttributes"]["event"]["StringValue"] for message in messages]


def test_exceptions_that_cannot_be_used_are_reported_once_and_when_the_fault_changes_or_a_reminder_is_due() -> None:
    runs = Runs(NOW)

    def receive(one: Run, days: int) -> list[str]:
        at = NOW + timedelta(days=days)
        return events(announce(Findings([]), one, runs=runs, reminder_days=7, now=at))

    assert receive(broken("not JSON"), 0) == ["exceptions_unusable"]
    assert receive(broken("not JSON"), 1) == []
    assert receive(broken("too large"), 2) == ["exceptions_unusable"]
    assert receive(broken("too large"), 3) == []
    assert receive(broken("too large"), 9) == ["exceptions_unusable"], "that is reminder enough"
    assert receive(broken("too large"), 10) == ["reminder"], "it is put off by a run"
    assert receive(run(), 11) == []
    assert receive(broken("too large"), 12) == ["exceptions_unusable"], "it was mended in between"


def test_exceptions_that_cannot_be_used_are_reported_once_where_no_one_is_reminded() -> None:
    runs = Runs()
    assert events(announce(Findings([]), broken("not JSON"), runs=runs)) == ["exceptions_unusable"]
    assert announce(Findings([]), broken("not JSON"), runs=runs, now=NOW + timedelta(days=400)) == []


def test_exceptions_that_cannot_be_used_are_a_message_of_their_own_for_those_who_see_all() -> None:
    for grouping in AlertGrouping:
        first, second = announce(Findings([finding()]), broken("not JSON"), grouping=grouping)
        assert events([first, second]) == ["exceptions_unusable", "findings_changed"]
        assert "namespaces" not in first["MessageAttributes"]
        assert first["MessageAttributes"]["severity"]["StringValue"] == "medium"
        assert "the exceptions cannot be used" in first["Subject"]
        assert json.loads(json.loads(first["Message"])["default"])["exceptions"]["problem"] == "not JSON"


def test_a_message_that_sns_does_not_take_is_not_noted_as_reported() -> None:
    runs, topic = Runs(), Topic()
    topic.fails = True
    with pytest.raises(ConnectionError):
        announce(Findings([]), broken("not JSON"), runs=runs, topic=topic)
    assert not runs.problems


def test_by_namespace_a_registrys_own_trouble_is_a_message_of_its_own() -> None:
    one = run(incomplete_because=("something",))
    published = announce(Findings([finding()]), one, grouping=AlertGrouping.NAMESPACE)
    events = [message["MessageAttributes"]["event"]["StringValue"] for message in published]
    assert events == ["audit_incomplete", "findings_changed"]


def reported_reasons(message: dict[str, Any]) -> list[str]:
    parts = json.loads(message["Message"])
    reasons: list[str] = json.loads(parts["default"])["incomplete_because"]
    assert "THE AUDIT IS NOT COMPLETE" in parts["email"]
    assert all(reason in parts["email"] for reason in reasons)
    return reasons


def test_by_namespace_a_team_reads_its_own_reasons_and_no_repository_of_another() -> None:
    reasons = ("3 repositories could not be read to the end: web/shop (500); web/till (403); hidden/plan (404)", "time")
    unreadable = (("web/shop", "500"), ("web/till", "403"), ("hidden/plan", "404"))
    one = run(incomplete_because=reasons, unreadable=unreadable, repositories=RepositoryCounts(listed=9, unreadable=3))
    findings = Findings([finding("data"), finding("web")])
    registry, data, web = announce(findings, one, grouping=AlertGrouping.NAMESPACE)
    assert reported_reasons(registry) == list(reasons)
    assert reported_reasons(data) == ["4 reasons elsewhere in the registry, or about all of it: see the run record"]
    assert reported_reasons(web) == [
        "web/shop could not be read to the end: 500",
        "web/till could not be read to the end: 403",
        "and 2 reasons elsewhere in the registry, or about all of it: see the run record",
    ]
    assert "hidden" not in data["Message"] + web["Message"]
    assert "web" not in data["Message"]
    (together,) = announce(findings, one)
    assert reported_reasons(together) == list(reasons)


def test_by_namespace_a_team_reads_no_warning_that_names_anothers_repository() -> None:
    counts = TrustCounts(expiring=1, first_expiring=[("hidden/plan", "targets/ci", "2026-12-01T00:00:00.000Z")])
    hub = SecurityHubUpdate(0, 1, up_to_date=False, warning="it refused 1 finding, the first of them hidden/till:1.0")
    warnings = ("for all", counts.formatted_expiring, hub.warning)
    one = run(warnings=warnings, trust=counts, security_hub=hub)
    expiring, data = announce(Findings([finding("data")]), one, grouping=AlertGrouping.NAMESPACE)
    assert json.loads(json.loads(expiring["Message"])["default"])["warnings"] == list(warnings)
    assert json.loads(json.loads(data["Message"])["default"])["warnings"] == ["for all"]
    assert "hidden" not in data["Message"]


def test_by_namespace_a_reason_that_is_a_teams_own_alone_is_all_it_reads() -> None:
    one = run(
        incomplete_because=("1 repository could not be read to the end: web/shop (500)",),
        unreadable=(("web/shop", "500"),),
        repositories=RepositoryCounts(listed=2, unreadable=1),
    )
    _, web = announce(Findings([finding("web")]), one, grouping=AlertGrouping.NAMESPACE)
    assert reported_reasons(web) == ["web/shop could not be read to the end: 500"]


def test_by_namespace_repositories_that_no_one_names_may_be_anybodys() -> None:
    one = run(
        incomplete_because=("130 repositories could not be read to the end, the first of them: …",),
        unreadable=tuple((f"data/d{number}", "500") for number in range(100)),
        repositories=RepositoryCounts(listed=200, unreadable=130),
    )
    _, web = announce(Findings([finding("web")]), one, grouping=AlertGrouping.NAMESPACE)
    (reason,) = reported_reasons(web)
    assert reason.startswith("130 reasons elsewhere")
    assert "30 of the repositories stand there without their names, and may be yours" in reason


def test_what_was_reported_before_the_time_was_up_is_not_reported_again() -> None:
    findings = Findings([finding(namespace) for namespace in ("api", "data", "web")])
    published = announce(findings, grouping=AlertGrouping.NAMESPACE, until=0.0)
    assert len(published) == 1
    assert [one.repository.namespace for one in findings.marked] == ["api"]


BROKEN = run(
    status=Status.NOT_A_FINDING,
    findings=FindingCounts(),
    baseline=BaselineRead("baseline/dtr.ckl", problem="it is not there"),
    warnings=("s3://bucket/baseline/dtr.ckl, your own checklist, was not answered: it is not there",),
)


def test_a_baseline_that_cannot_be_answered_is_reported_even_if_nothing_else_is() -> None:
    runs = Runs()
    (message,) = announce(Findings([]), BROKEN, runs=runs)
    assert message["MessageAttributes"]["event"]["StringValue"] == "baseline_unusable"
    assert message["MessageAttributes"]["severity"]["StringValue"] == "medium"
    assert message["Subject"] == "[prod] NOT_A_FINDING: own checklist not answered, 0 open"
    body = json.loads(message["Message"])
    assert json.loads(body["default"])["warnings"] == list(BROKEN.warnings)
    assert BROKEN.warnings[0] in body["email"]
    assert runs.last is None  # it puts off no reminder


@pytest.mark.parametrize(
    ("problem", "days_ago", "reminder_days", "is_reported"),
    [
        ("it is not there", 1, 7, False),
        ("it is not there", 7, 7, True),
        ("it is not there", 700, 0, False),
        ("another", 0, 0, True),
    ],
)
def test_the_same_fault_of_a_baseline_is_reported_once_until_a_reminder_is_due(
    problem: str, days_ago: int, reminder_days: int, is_reported: bool
) -> None:
    runs = Runs()
    runs.problems["baseline"] = (problem, NOW - timedelta(days=days_ago))
    assert bool(announce(Findings([]), BROKEN, runs=runs, reminder_days=reminder_days)) is is_reported
    assert runs.problems["baseline"] == ("it is not there", NOW if is_reported else NOW - timedelta(days=days_ago))


def test_a_baseline_that_was_repaired_and_breaks_again_is_reported_again() -> None:
    runs = Runs()
    well = replace(BROKEN, baseline=BaselineRead("baseline/dtr.ckl"), warnings=())
    reported = [len(announce(Findings([]), one, runs=runs)) for one in (BROKEN, BROKEN, well, well, BROKEN)]
    assert reported == [1, 0, 0, 0, 1]


def test_a_fault_that_could_not_be_published_is_reported_by_the_next_run() -> None:
    runs, topic = Runs(), Topic()
    topic.fails = True
    with pytest.raises(ConnectionError):
        announce(Findings([]), BROKEN, runs=runs, topic=topic)
    assert len(announce(Findings([]), BROKEN, runs=runs)) == 1


def test_a_run_without_a_baseline_asks_nothing_and_forgets_nothing() -> None:
    runs = Runs()
    runs.problems["baseline"] = ("it is not there", NOW)
    announce(Findings([]), replace(BROKEN, baseline=None), runs=runs)
    assert runs.problems


def mail(message: dict[str, Any]) -> str:
    text: str = json.loads(message["Message"])["email"]
    return text


def moved(repository: str, change_kind: ChangeKind, count: int) -> list[Finding]:
    """Findings of one kind in a namespace."""
    state = State.RESOLVED if change_kind is ChangeKind.RESOLVED else State.OPEN
    move = Transition(
        change_kind,
        "20261122T030000Z",
        "2026-11-22T03:00:00.000Z",
        "signed" if change_kind is ChangeKind.RESOLVED else "",
    )
    return [finding("web", repository, str(n), state=state, pending_notifications=(move,)) for n in range(count)]


def test_subject_with_changes_counts_what_is_open_and_what_moved() -> None:
    pending = [
        *moved("a", ChangeKind.OPENED, 2),
        *moved("b", ChangeKind.CHANGED, 1),
        *moved("c", ChangeKind.RESOLVED, 5),
    ]
    one = run(registry="prod-dtr", findings=FindingCounts(open=11, opened=2, resolved=5))
    (message,) = announce(Findings(pending), one)
    assert message["Subject"] == "[prod-dtr] OPEN: 11 open, 2 new, 1 changed, 5 resolved"
    text = mail(message)
    for said in ("11 findings are open", "NEW (2)", "CHANGED (1)", "RESOLVED (5)"):
        assert said in text


@pytest.mark.parametrize("registry", ["p" * 63, "dtr-\u00fcber\r\nBcc: x", "p" * 90])
@pytest.mark.parametrize("count", [1, 1_000])
def test_subject_without_room_drops_parts_whole_from_the_end(registry: str, count: int) -> None:
    pending = [one for change_kind in ChangeKind for one in moved(str(change_kind), change_kind, count)]
    one = run(registry=registry, findings=FindingCounts(open=10**9, opened=count), incomplete_because=("a reason",))
    (message,) = announce(Findings(pending), one)
    subject = message["Subject"]
    assert len(subject) < 100
    assert subject.isascii()
    assert subject.isprintable()
    whole = [
        "1000000000 open", "audit not complete", f"{count} new", f"{count} no longer excepted",
        f"{count} excepted for days only", f"{count} changed", f"{count} resolved",
    ]  # fmt: skip
    parts = subject.partition("OPEN: ")[2].split(", ")
    assert parts == whole[: len(parts)]
    assert len(parts) >= 1


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"incomplete_because": ("why",)}, "[prod] OPEN: 1 open, audit not complete"),
        ({"findings": FindingCounts(open=3, excepted=1)}, "[prod] OPEN: 3 open, 1 excepted, reminder"),
        (
            {"exceptions": ExceptionsInForce(problem="broken"), "findings": FindingCounts(open=2)},
            "[prod] OPEN: the exceptions cannot be used, 2 open",
        ),
    ],
)
def test_subject_without_changes_says_what_the_message_is_about(changes: dict[str, Any], subject: str) -> None:
    (message,) = announce(Findings([]), run(**changes), reminder_days=7)
    assert message["Subject"] == subject
    assert json.loads(message["Message"])["sms"] == subject


def test_mail_says_which_registry_when_why_and_whom_to_ask() -> None:
    (message,) = announce(Findings([finding()]), contact="registry-team@example.mil")
    text = mail(message)
    assert "Registry: prod, https://dtr.example.mil\n" in text
    assert "Audited:  2026-11-22T03:00:00.000Z to 2026-11-22T03:01:00.000Z, run 20261122T030000Z\n" in text
    assert "subscribed to the alerts of the audit, and findings were opened, changed or resolved." in text
    assert "Questions: registry-team@example.mil" in text


def test_mail_without_a_contact_names_no_one_to_ask() -> None:
    assert "Questions" not in mail(announce(Findings([finding()]))[0])


def test_mail_has_one_fix_block_for_each_namespace_of_the_message() -> None:
    digest = {"digest": "sha256:" + "0" * 64, "media_type": "application/vnd.docker.distribution.manifest.v2+json"}
    pending = [
        finding(f"ns{number:02d}", "shop", tag, **digest) for number in range(20) for tag in ("1", "2", "3", "4")
    ]
    (message,) = announce(Findings(pending))
    text = mail(message)
    assert text.count("GUN=dtr.example.com/ns") == 2 * 20  # the owner's lines and the signer's
    for number in range(20):
        assert f"\n  ns{number:02d}: ns{number:02d}/shop:1\n" in text
    assert len(json.loads(json.loads(message["Message"])["default"])["fix"]) > 1


def test_mail_with_more_fix_blocks_than_room_counts_the_namespaces_that_are_left_out() -> None:
    digest = {"digest": "sha256:" + "0" * 64, "media_type": "application/vnd.docker.distribution.manifest.v2+json"}
    (message,) = announce(Findings([finding(f"ns{number:02d}", **digest) for number in range(100)]))
    text = mail(message)
    shown = text.count("GUN=dtr.example.com/ns") // 2
    assert 10 < shown < 100
    assert f"and {100 - shown} more namespaces: the report has their lines" in text
    assert size(message) <= SNS_LIMIT


def test_mail_names_unreadable_repositories_that_no_reason_names_and_counts_the_others() -> None:
    unreadable = tuple((f"web/{number:03d}", "500") for number in range(100))
    one = run(
        incomplete_because=("120 repositories could not be read to the end, the first of them: web/000 (500)",),
        repositories=RepositoryCounts(listed=200, audited=80, unreadable=120),
        unreadable=unreadable,
    )
    text = mail(announce(Findings([]), one)[0])
    assert "  - web/001: 500\n" in text
    assert "  - web/000: 500\n" not in text
    assert "  - and 99 more: see the run record" in text
