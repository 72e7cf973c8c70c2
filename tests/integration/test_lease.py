"""The lease of a registry: one run at a time, and no lease that could not be one keeps a registry from being audited."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from dtr_audit.aws import runs
from dtr_audit.aws.runs import CLOCK_SKEW_SECONDS, RunsTable, fan_out_lease_seconds
from dtr_audit.errors import LeaseHeldError
from dtr_audit.pipeline import steps
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import StepFunctionsRun

NOW = datetime(2026, 12, 1, 5, tzinfo=UTC)
YEAR_AHEAD = timedelta(days=400)


@pytest.fixture
def table(audited: Audited) -> RunsTable:
    return RunsTable(boto3.resource("dynamodb").meta.client, audited.stack.outputs["RunsTableName"], audited.name)


@pytest.fixture
def lease(audited: Audited) -> Iterator[dict[str, Any]]:
    """A lease as some run has left it; what a test makes of it is written by `put`."""
    yield {
        "pk": audited.name,
        "sk": "#lease",
        "owner": "another",
        "attempt": "another",
        "run_id": "20261031T030000Z",
    }


def put(audited: Audited, item: dict[str, Any]) -> None:
    audited.stack.resource_client.put_item(TableName=audited.stack.outputs["RunsTableName"], Item=item)


def take(table: RunsTable, *, longest: float = 0.0) -> bool:
    return table.take_lease("mine", "mine", "20261201T050000Z", now=NOW, seconds=900, longest=longest)


def test_a_lease_by_a_clock_that_is_400_days_ahead_does_not_keep_an_audit_away(
    audited: Audited, table: RunsTable
) -> None:
    table.take_lease("ahead", "ahead", "20261031T030000Z", now=datetime.now(UTC) + YEAR_AHEAD, seconds=900)
    assert audited.audit()["complete"] is True
    with pytest.raises(LeaseHeldError, match="another attempt has taken this run over"):
        table.confirm_lease("ahead")


def test_a_lease_by_a_clock_that_is_400_days_ahead_does_not_keep_a_run_in_steps_away(
    audited: Audited, table: RunsTable
) -> None:
    table.take_lease("ahead", "ahead", "20261031T030000Z", now=datetime.now(UTC) + YEAR_AHEAD, seconds=900)
    assert StepFunctionsRun(audited).execute()["complete"] is True


@pytest.mark.parametrize("until", ["9999-12-31T23:59:59.999Z", "", "never", 7, None, {"a": "map"}, True])
def test_a_lease_that_ends_at_no_time_is_taken_over_and_logged(
    audited: Audited, table: RunsTable, lease: dict[str, Any], until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(audited, {**lease, "until": until})
    logged: list[str] = []
    monkeypatch.setattr(runs.logger, "warning", lambda message, **_: logged.append(message))
    assert take(table) is False
    table.confirm_lease("mine")
    assert [one for one in logged if "was not valid" in one]


def test_a_lease_without_an_end_is_taken_over(audited: Audited, table: RunsTable, lease: dict[str, Any]) -> None:
    put(audited, lease)
    assert take(table) is False


def test_a_lease_that_ends_within_the_longest_is_held_and_its_end_is_said(audited: Audited, table: RunsTable) -> None:
    longest = fan_out_lease_seconds(StepFunctionsRun(audited).settings)
    # The holder's clock goes before this one's.
    ahead = NOW + timedelta(seconds=CLOCK_SKEW_SECONDS)
    table.take_lease("another", "another", "20261031T030000Z", now=ahead, seconds=longest)
    with pytest.raises(LeaseHeldError, match="20261031T030000Z is under way until 2026-12-01T17:"):
        take(table, longest=longest)
    later = ahead + timedelta(seconds=1)
    table.take_lease("another", "another", "20261031T030000Z", now=later, seconds=longest)
    assert take(table, longest=longest) is False


def test_one_lambda_respects_the_lease_of_a_run_in_steps(audited: Audited) -> None:
    """The engine may have been changed while that run was under way."""
    step_functions_run = StepFunctionsRun(audited)
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"scheduled_time": "2026-10-31T03:00:00Z"}
    step_functions_run.make(steps.inventory, {"event": event, "execution": "steps", "started_at": started_at})
    with pytest.raises(LeaseHeldError, match="20261031T030000Z"):
        audited.audit()
    assert json.dumps(audited.keys("runs")) == "[]"
