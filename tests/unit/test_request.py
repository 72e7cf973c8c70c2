"""The event: what is asked for, and under which run id."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from dtr_audit.core.model import Repository
from dtr_audit.core.request import AuditRequest, StepRequest
from dtr_audit.core.run_record import Scope
from dtr_audit.errors import SettingsError

NOW = datetime(2026, 11, 22, 15, 30, 12, 345678, UTC)
EVENTS = Path(__file__).parents[2] / "events"


def test_a_retried_event_is_the_same_run() -> None:
    event = {"scheduled_time": "2026-11-22T03:00:00Z"}
    first = AuditRequest.from_event(event, now=NOW)
    again = AuditRequest.from_event(event, now=NOW + timedelta(hours=1))
    assert first == again
    assert (first.run_id, first.date, first.scope, first.alerts) == ("20261122T030000Z", "2026-11-22", Scope.FULL, True)


@pytest.mark.parametrize("asked", [{}, {"namespaces": ["web"]}])
def test_a_retried_event_by_hand_is_the_run_that_its_first_attempt_left(asked: dict[str, Any]) -> None:
    first = AuditRequest.from_event(asked, now=NOW)
    again = AuditRequest.from_event(asked, now=NOW + timedelta(days=1), earlier=first.run_id)
    assert first == again
    assert again.date == "2026-11-22"
    assert AuditRequest.from_event(asked, now=NOW + timedelta(days=1)) != first


def test_a_scheduled_time_decides_any_an_earlier_attempt_was_called() -> None:
    event = {"scheduled_time": "2026-11-22T03:00:00Z"}
    assert AuditRequest.from_event(event, now=NOW, earlier="20261121T030000Z").run_id == "20261122T030000Z"


def test_run_ids_sort_by_their_time_in_every_year() -> None:
    times = ["0001-01-01T00:00:00Z", "0999-12-31T00:00:00Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
    requests = [AuditRequest.from_event({"scheduled_time": time}, now=NOW) for time in times]
    ids = [request.run_id for request in requests]
    assert ids == sorted(ids)
    assert [request.date for request in requests] == [time[:10] for time in times]


def test_the_scheduled_time_is_read_in_its_own_zone() -> None:
    request = AuditRequest.from_event({"scheduled_time": "2026-11-22T23:30:00-05:00"}, now=NOW)
    assert (request.run_id, request.date) == ("20261123T043000Z", "2026-11-23")


def test_a_run_by_hand_never_shares_its_id_with_a_scheduled_one() -> None:
    by_hand = AuditRequest.from_event({}, now=NOW.astimezone(timezone(timedelta(hours=2))))
    scheduled = AuditRequest.from_event({"scheduled_time": "2026-11-22T15:30:12Z"}, now=NOW)
    assert by_hand.run_id == "20261122T153012.345Z"
    assert by_hand.run_id != scheduled.run_id
    assert not by_hand.run_id.startswith(scheduled.run_id)


def test_a_partial_run_never_takes_the_place_of_the_full_run_of_its_time() -> None:
    event: dict[str, Any] = {"scheduled_time": "2026-11-22T03:00:00Z"}
    full = AuditRequest.from_event(event, now=NOW)
    partial = AuditRequest.from_event({**event, "namespaces": ["web", "platform"]}, now=NOW)
    same = AuditRequest.from_event({**event, "namespaces": ["platform", "web", "web"]}, now=NOW)
    assert partial == same
    assert partial.run_id != full.run_id
    assert partial.scope is Scope.PARTIAL
    assert partial.covers(Repository("web", "shop"))
    assert not partial.covers(Repository("webshop", "shop"))


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ([], "event"),
        (None, "event"),
        ({"namespace": ["web"]}, "'namespace'"),
        ({"scheduled_time": "yesterday"}, "scheduled_time"),
        ({"scheduled_time": "2026-11-22T03:00:00"}, "scheduled_time"),
        ({"scheduled_time": 5}, "scheduled_time"),
        ({"scheduled_time": "0001-01-01T00:00:00+14:00"}, "scheduled_time"),
        ({"scheduled_time": "9999-12-31T23:59:59-14:00"}, "scheduled_time"),
        ({"scheduled_time": "<aws.scheduler.scheduled-time>"}, "scheduled_time"),
        ({"namespaces": []}, "namespaces"),
        ({"namespaces": "web"}, "namespaces"),
        ({"namespaces": ["web/shop"]}, "namespaces"),
        ({"namespaces": [""]}, "namespaces"),
        ({"namespaces": [".."]}, "namespaces"),
        ({"namespaces": ["half\ud800"]}, "namespaces"),
        ({"namespaces": ["line\nbreak"]}, "namespaces"),
        ({"namespaces": [None]}, "namespaces"),
        ({"namespaces": None}, "namespaces"),
        ({"alerts": "false"}, "alerts"),
    ],
)
def test_a_malformed_event_is_refused_by_the_name_of_what_is_wrong(event: object, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        AuditRequest.from_event(event, now=NOW)


@pytest.mark.parametrize("file", sorted(EVENTS.glob("*.json")), ids=lambda file: file.stem)
def test_every_example_event_is_one_that_the_function_takes(file: Path) -> None:
    assert AuditRequest.from_event(json.loads(file.read_text()), now=NOW).run_id


def test_the_example_events_show_every_way_to_ask() -> None:
    assert {file.stem for file in EVENTS.glob("*.json")} == {"scheduled", "by-hand", "one-namespace", "no-alerts"}


# --- One step of a fan-out --------------------------------------------------------------------------------------------

STEP = {"event": {}, "execution": "execution", "started_at": "2026-11-22T03:00:01.234Z"}


def test_every_step_and_every_retry_of_an_execution_is_the_same_run() -> None:
    first = StepRequest.from_payload(STEP)
    assert first.audit.run_id == "20261122T030001.234Z"
    assert (first.execution, first.batch, first.failure) == ("execution", 0, "")
    batch = StepRequest.from_payload({**STEP, "batch": {"number": 17, "key": "work/…/00017.json"}})
    assert batch == replace(first, batch=17)
    scheduled = StepRequest.from_payload({**STEP, "event": {"scheduled_time": "2026-11-22T03:00:00Z", "alerts": False}})
    assert (scheduled.audit.run_id, scheduled.audit.alerts) == ("20261122T030000Z", False)


def test_a_step_that_failed_is_one_of_those_before_the_report() -> None:
    assert StepRequest.from_payload({**STEP, "failed_step": "prove"}).failed_step == "prove"
    for unknown in ("report", "<b>hunter2</b>", 7, None):
        assert StepRequest.from_payload({**STEP, "failed_step": unknown}).failed_step == ""


def test_of_a_failure_its_name_is_taken_and_nothing_else() -> None:
    failed = StepRequest.from_payload({**STEP, "failure": {"Error": "States.Timeout", "Cause": "hunter2"}})
    assert failed.failure == "States.Timeout"
    assert "hunter2" not in repr(failed)
    for error in ("<b>", "a b", "x" * 129, 5, None, ""):
        assert StepRequest.from_payload({**STEP, "failure": {"Error": error, "Cause": "hunter2"}}).failure == "an error"


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"execution": ""}, "execution"),
        ({"execution": 5}, "execution"),
        ({"execution": "x" * 2_049}, "execution"),
        ({"started_at": None}, "started_at"),
        ({"started_at": "yesterday"}, "started_at"),
        ({"started_at": "2026-11-22T03:00:00"}, "started_at"),
        ({"batch": {"number": "17"}}, "batch"),
        ({"batch": {"number": True}}, "batch"),
        ({"batch": {"number": -1}}, "batch"),
        ({"batch": {"number": 5_001}}, "batch"),
        ({"event": {"namespace": "web"}}, "namespace"),
        ({"event": None}, "event"),
    ],
)
def test_a_step_that_is_malformed_is_refused_by_its_key(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(SettingsError, match=key):
        StepRequest.from_payload({**STEP, **changed})


def test_a_step_without_a_payload_is_refused() -> None:
    with pytest.raises(SettingsError, match="state machine"):
        StepRequest.from_payload([])


def test_namespaces_that_ldap_allows_are_asked_for() -> None:
    names = ["-lead", "_svc", "a#b", "doe.jane@agency.mil", "jürgen", "svc$"]
    request = AuditRequest.from_event({"namespaces": names}, now=NOW)
    assert request.namespaces == tuple(names)
    assert request.covers(Repository("jürgen", "tool"))
    assert not request.covers(Repository("jurgen", "tool"))
