"""What each run tells CloudWatch: one line, whose names and dimensions the alarms and the dashboard rely on."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dtr_audit.aws import metrics
from dtr_audit.core.counts import FindingCounts, RepositoryCounts, TagCounts
from dtr_audit.core.run_record import PreviousRun, Run, Scope, SecurityHubUpdate, Status
from tools.planner import cost

FINISHED = datetime(2026, 11, 22, 3, 5, tzinfo=UTC)
COMPLETE = Run(
    registry="prod-dtr",
    run_id="20261122T030000Z",
    scope=Scope.FULL,
    namespaces=(),
    status=Status.OPEN,
    incomplete_because=(),
    warnings=(),
    domains=("dtr.example.mil",),
    started_at=FINISHED - timedelta(minutes=5),
    finished_at=FINISHED,
    repositories=RepositoryCounts(listed=10, audited=8, removed=2),
    tags=TagCounts(signed=30, unsigned=4, mismatched=3, untrusted=2, unknown=1, artifacts=50),
    findings=FindingCounts(open=9, opened=2, resolved=1),
    oldest_open="2026-11-10T15:05:00.000Z",
    previous=PreviousRun(run_id="20261121T030000Z", repositories=10, tags=80),
)
INCOMPLETE = replace(COMPLETE, status=Status.NOT_REVIEWED, incomplete_because=("the registry was down",))
Capture = pytest.CaptureFixture[str]


def emitted(run: Run, capsys: Capture) -> dict[str, Any]:
    capsys.readouterr()
    metrics.emit(run)
    (line,) = capsys.readouterr().out.splitlines()
    record: dict[str, Any] = json.loads(line)
    return record


def directive(record: dict[str, Any]) -> dict[str, Any]:
    (only,) = record["_aws"]["CloudWatchMetrics"]
    assert isinstance(only, dict)
    return only


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """Read each metric by its name; fails unless it has one value."""
    found = {}
    for metric in directive(record)["Metrics"]:
        (found[metric["Name"]],) = record[metric["Name"]]
    return found


@pytest.mark.parametrize("up_to_date", [True, False])
def test_a_run_that_reports_security_hub_says_whether_all_of_it_arrived(capsys: Capture, up_to_date: bool) -> None:
    reported = replace(COMPLETE, security_hub=SecurityHubUpdate(accepted=2, refused=0, up_to_date=up_to_date))
    record = emitted(reported, capsys)
    assert numbers(record)["SecurityHubUpToDate"] == up_to_date
    assert len(numbers(record)) == cost.METRICS + 1
    assert "SecurityHubUpToDate" not in numbers(emitted(COMPLETE, capsys))


def test_a_run_is_one_line_with_every_number(capsys: Capture) -> None:
    assert numbers(emitted(COMPLETE, capsys)) == {
        "RepositoriesAudited": 8,
        "TagsAudited": 40,
        "TagsUnsigned": 9,
        "TagsUnknown": 1,
        "FindingsOpen": 9,
        "OldestFindingDays": 11.5,
        "Coverage": 100,
        "Duration": 300,
        "RunCompleted": 1,
        "Passed": 0,
        "SizeAgainstLastRun": 50,  # of the tags; of the repositories it is 80
    }


def test_every_number_has_its_unit(capsys: Capture) -> None:
    units = {metric["Name"]: metric["Unit"] for metric in directive(emitted(COMPLETE, capsys))["Metrics"]}
    assert {name for name, unit in units.items() if unit == "Percent"} == {"Coverage", "SizeAgainstLastRun"}
    assert {name for name, unit in units.items() if unit == "Seconds"} == {"Duration"}
    assert set(units.values()) == {"Count", "Percent", "Seconds"}


@pytest.mark.parametrize("scope", Scope)
def test_a_metric_belongs_to_its_service_registry_and_scope(capsys: Capture, scope: Scope) -> None:
    record = emitted(replace(COMPLETE, scope=scope), capsys)
    assert directive(record)["Namespace"] == "DtrSignatureAudit"
    (dimensions,) = directive(record)["Dimensions"]
    assert {name: record[name] for name in dimensions} == {
        "service": "dtr-signature-audit",
        "registry": "prod-dtr",
        "scope": scope.value,
    }


def test_the_dimensions_of_one_run_do_not_stick_to_the_next(capsys: Capture) -> None:
    emitted(COMPLETE, capsys)
    second = emitted(replace(COMPLETE, registry="other", scope=Scope.PARTIAL), capsys)
    assert (second["registry"], second["scope"]) == ("other", "partial")
    assert numbers(second) == numbers(emitted(COMPLETE, capsys))


def test_an_incomplete_run_says_nothing_of_the_registrys_size(capsys: Capture) -> None:
    complete, incomplete = numbers(emitted(COMPLETE, capsys)), numbers(emitted(INCOMPLETE, capsys))
    assert incomplete["RunCompleted"] == 0
    assert set(complete) - set(incomplete) == {"SizeAgainstLastRun"}


def test_only_a_run_that_found_nothing_has_passed(capsys: Capture) -> None:
    passed = {status: numbers(emitted(replace(COMPLETE, status=status), capsys))["Passed"] for status in Status}
    assert passed == {Status.NOT_A_FINDING: 1, Status.OPEN: 0, Status.NOT_REVIEWED: 0}


def test_the_first_run_and_a_registry_without_findings_have_numbers_too(capsys: Capture) -> None:
    first = numbers(emitted(replace(COMPLETE, previous=None, oldest_open=""), capsys))
    assert first["SizeAgainstLastRun"] == 100
    assert first["OldestFindingDays"] == 0


@pytest.mark.parametrize(
    ("before", "percent"),
    [((8, 40), 100), ((4, 20), 200), ((16, 40), 50), ((8, 0), 100), ((0, 0), 100), ((80, 400), 10)],
)
def test_the_size_is_the_smaller_of_the_two_shares(capsys: Capture, before: tuple[int, int], percent: float) -> None:
    run = replace(COMPLETE, previous=PreviousRun("20261121T030000Z", *before))
    assert numbers(emitted(run, capsys))["SizeAgainstLastRun"] == percent
