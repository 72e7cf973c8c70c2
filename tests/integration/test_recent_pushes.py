"""A push sends the image first and signs it some seconds later: a scan in between must not open a finding."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from dtr_audit.core.model import JudgedTag, Tag, Verdict
from dtr_audit.http import retry
from dtr_audit.pipeline import recent_pushes
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.transport import Request
from tests.harness.audit_harness import Audited
from tests.harness.fake_clock import FakeClock
from tests.harness.step_functions_harness import MakeRun

SECONDS = 900.0
RECENT_SECONDS = 600.0
IMAGE = "team/api:1.0"
TAGS = "/api/v0/repositories/team/api/tags"


@pytest.fixture
def registry() -> InMemoryRegistry:
    registry = InMemoryRegistry()
    for name in ("base", "web"):
        registry.push("team", name, "1.0")
        registry.sign("team", name, "1.0")
    return registry


def push(registry: InMemoryRegistry, tag: str = "1.0") -> None:
    """Push an image at this moment."""
    registry.push("team", "api", tag, at=datetime.now(UTC))


@pytest.fixture(autouse=True)
def _recent_as_in_production(monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock) -> None:
    assert fake_clock
    monkeypatch.setattr(recent_pushes, "RECENT_SECONDS", RECENT_SECONDS)
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", 600.0)


@pytest.fixture
def run(make_run: MakeRun) -> MakeRun:
    """Make a run that has as much time as in production."""
    return partial(make_run, seconds=SECONDS)


@pytest.fixture
def readings(dtr: DtrServer, fake_clock: FakeClock) -> list[float]:
    """When the tags of the repository were asked for."""
    times: list[float] = []
    dtr.on_request(lambda _: times.append(fake_clock.now), TAGS)
    return times


@pytest.fixture
def signing(registry: InMemoryRegistry, dtr: DtrServer, readings: list[float]) -> None:
    """The tag is signed between the first reading and the second."""

    def sign_at_the_second_reading(_: Request) -> None:
        if len(readings) == 2:
            registry.sign("team", "api", "1.0")

    dtr.on_request(sign_at_the_second_reading, TAGS)


@pytest.mark.usefixtures("signing")
@pytest.mark.parametrize("was_signed", [False, True])
def test_tag_signed_within_a_minute_of_its_push_opens_no_finding(
    audited: Audited, registry: InMemoryRegistry, run: MakeRun, readings: list[float], was_signed: bool
) -> None:
    if was_signed:
        push(registry)
        registry.sign("team", "api", "1.0")
    push(registry)

    record = run()

    assert (record["status"], record["complete"], record["findings"]["opened"]) == ("NOT_A_FINDING", True, 0)
    assert record["tags"]["signed"] == len(audited.verdicts(record["run_id"])) == 3
    assert audited.findings() == {}
    assert audited.messages() == []
    assert len(readings) == 2
    assert readings[1] - readings[0] >= recent_pushes.SIGNING_SECONDS


def test_tag_that_stays_unsigned_after_its_push_is_one_finding(
    audited: Audited, registry: InMemoryRegistry, run: MakeRun
) -> None:
    push(registry)
    record = run()
    assert record["repositories"] == {"listed": 3, "audited": 3, "unreadable": 0, "removed": 0}
    assert record["findings"] == {"open": 1, "opened": 1, "resolved": 0, "excepted": 0}
    assert record["tags"]["audited"] == len(audited.verdicts(record["run_id"])) == 3
    (message,) = audited.messages()
    assert message.body["counts"]["opened"] == 1


def test_tag_that_was_pushed_earlier_is_read_once(
    registry: InMemoryRegistry, run: MakeRun, readings: list[float], fake_clock: FakeClock
) -> None:
    registry.push("team", "api", "1.0", at=datetime.now(UTC) - timedelta(seconds=RECENT_SECONDS + 5))
    began = fake_clock.now
    assert run()["status"] == "OPEN"
    assert (len(readings), fake_clock.now) == (1, began)


def test_second_reading_that_fails_leaves_what_the_first_one_found(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    push(registry)
    dtr.faults = Faults(on_calls=(Status(500, tags_of("team/api").limited(after=1)),))
    record = run()
    assert (record["status"], record["complete"]) == ("OPEN", True)
    assert audited.verdicts(record["run_id"])[IMAGE] == "UNSIGNED"


def test_registry_that_is_down_at_the_second_reading_leaves_what_the_first_one_found(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun, fake_clock: FakeClock
) -> None:
    push(registry)
    began = fake_clock.now

    def go_down(_: Request) -> None:
        if fake_clock.now > began:
            dtr.faults = Faults(on_calls=(Status(503),))

    dtr.on_request(go_down)
    record = run()
    assert (record["status"], record["complete"]) == ("OPEN", False)
    assert audited.verdicts(record["run_id"])[IMAGE] == "UNSIGNED"


def test_repository_deleted_before_the_second_reading_is_removed(
    registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun, readings: list[float]
) -> None:
    push(registry)

    def delete_at_the_second_reading(_: Request) -> None:
        if len(readings) == 2:
            registry.delete_repository("team", "api")

    stop = dtr.on_request(delete_at_the_second_reading, TAGS)
    record = run()
    stop()
    assert record["repositories"] == {"listed": 3, "audited": 2, "unreadable": 0, "removed": 1}
    assert record["findings"]["opened"] == 0


def test_tag_is_read_once_where_there_is_no_time_to_wait(
    audited: Audited, registry: InMemoryRegistry, readings: list[float]
) -> None:
    push(registry)
    assert audited.audit(seconds=80.0)["status"] == "OPEN"
    assert len(readings) == 1


def test_first_readings_that_wait_have_no_more_tags_than_there_is_room_for(
    registry: InMemoryRegistry, run: MakeRun, readings: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_pushes, "WAITING_TAGS", 1)
    push(registry)
    push(registry, "2.0")
    assert run()["tags"]["unsigned"] == 2
    assert len(readings) == 1


@pytest.mark.parametrize(
    ("pushed_at", "is_recent"),
    [
        ("2026-12-01T05:59:00Z", True),
        ("2026-12-01T05:59:00.123456789Z", True),
        ("2026-12-01T07:59:00+02:00", True),
        ("2026-12-01T06:05:00Z", True),  # the registry's clock is ahead
        ("2026-12-01T05:49:00Z", False),
        ("2999-01-01T00:00:00Z", False),
        ("2026-12-01T05:59:00", False),  # of no zone
        ("0001-01-01T00:00:00+23:59", False),
        ("9999-12-31T23:59:59-23:59", False),
        ("2026-13-01T05:59:00Z", False),
        ("yesterday", False),
        ("", False),
    ],
)
def test_time_of_a_push_of_any_form_is_recent_or_not(pushed_at: str, is_recent: bool) -> None:
    now = datetime(2026, 12, 1, 6, tzinfo=UTC)
    tag = Tag("1.0", "sha256:" + "0" * 64, "", pushed_at, "", None, ())
    assert recent_pushes._is_recent(JudgedTag(tag, Verdict.UNSIGNED, "", None), now) is is_recent
    assert not recent_pushes._is_recent(JudgedTag(tag, Verdict.SIGNED, "", None), now)
