"""The state machine, interpreted, with the functions' own handlers: what becomes of a run when a step fails, and when none does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from dtr_audit.aws.runs import RunsTable
from dtr_audit.errors import LeaseHeldError
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.invocation import invoke
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited

if TYPE_CHECKING:
    from dtr_audit_simulator.aws.execution import Execution

MACHINE = "AuditStateMachine"
REPOSITORIES = 120  # three batches
LONG_STATES = ["Inventory", "WhatIsThere", "Examine", "Prove", "Report"]


class Machine:
    """One registry under audit, in steps; those that are `failing` crash before they begin, or when all is done."""

    def __init__(self, audited: Audited) -> None:
        self.audited = audited
        self.failing: Callable[[str, dict[str, Any]], bool] = lambda name, payload: False
        self.fails_late = False
        self.made: list[str] = []  # the functions that were invoked, in order

    def run(self, event: dict[str, Any] | None = None) -> Execution:
        """Start the machine, by default with the next day's scheduled event, and wait for its end."""
        if event is None:
            self.audited.runs += 1
            event = self.audited.event()
        return self.audited.stack.execute(MACHINE, event, self._step)

    def redrive(self, execution: Execution) -> Execution:
        """Have an execution go on where it failed."""
        return self.audited.stack.redrive(MACHINE, execution, self._step)

    def record(self, run_id: str) -> dict[str, Any]:
        """Read the record of a run."""
        (key,) = [key for key in self.audited.keys("runs") if key.endswith(f"/{run_id}.json")]
        record: dict[str, Any] = json.loads(self.audited.read(key))
        return record

    def lease(self) -> list[dict[str, Any]]:
        """Give the registry's lease, if somebody holds it."""
        items = self.audited.items("RunsTableName")
        return [item for item in items if item["pk"] == self.audited.name and item["sk"] == "#lease"]

    def _step(self, name: str, payload: dict[str, Any]) -> dict[str, Any]:
        self.made.append(name)
        is_failing = self.failing(name, payload)
        if is_failing and not self.fails_late:
            raise RuntimeError("out of order")
        answer = invoke(self.audited.stack, name, payload, environment=self.audited.environment)
        if is_failing:
            raise RuntimeError("out of order")
        return answer


@pytest.fixture(scope="module")
def steps(aws: EmbeddedAws) -> Stack:
    parameters = {"DtrUrl": "https://dtr.example.com", "RegistryName": "unnamed", "Engine": "stepfunctions"}
    return aws.deploy(PROJECT / "template.yaml", parameters, stack_name="steps")


@pytest.fixture
def machine(steps: Stack, dtr: DtrServer) -> Iterator[Machine]:
    """The simulated registry, audited in steps with an administrator's account."""
    audited = Audited(steps, dtr)
    audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
    yield Machine(audited)
    audited.close()


@pytest.fixture
def filled(registry: InMemoryRegistry) -> InMemoryRegistry:
    """A registry of three batches; every third image is signed."""
    for number in range(REPOSITORIES):
        registry.push("web", f"shop-{number:03d}", "1")
        if not number % 3:
            registry.sign("web", f"shop-{number:03d}", "1")
    return registry


def run_id(execution: Execution) -> str:
    return str(execution.output["run_id"])


# --- A run ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("filled")
def test_a_run_in_steps_is_a_whole_run(machine: Machine) -> None:
    execution = machine.run()
    assert (execution.status, [name for name, _ in execution.entered]) == ("SUCCEEDED", LONG_STATES)
    assert machine.made.count("ExamineFunction") == 3
    record = machine.record(run_id(execution))
    assert (record["status"], record["complete"]) == ("OPEN", True)
    assert record["repositories"]["audited"] == REPOSITORIES
    assert len(machine.audited.verdicts(run_id(execution))) == REPOSITORIES
    assert len(machine.audited.findings()) == record["findings"]["opened"] == 80
    assert [message.attributes["event"] for message in machine.audited.messages()] == ["findings_changed"]
    assert machine.lease() == []


@pytest.mark.usefixtures("filled")
def test_both_engines_give_the_same_answer(machine: Machine, stack: Stack, dtr: DtrServer) -> None:
    whole = Audited(stack, dtr)
    whole.put_secret(username=dtr.admin.name, password=dtr.admin.password)
    try:
        in_one = whole.audit()
        in_steps = machine.record(run_id(machine.run()))
        apart = {"registry", "started_at", "finished_at", "oldest_open", "evidence"}
        assert {key: value for key, value in in_steps.items() if key not in apart} == {
            key: value for key, value in in_one.items() if key not in apart
        }
        assert in_steps["evidence"].keys() == in_one["evidence"].keys()
        verdicts = whole.verdicts(in_one["run_id"])
        assert machine.audited.verdicts(in_one["run_id"]) == verdicts
        assert machine.audited.findings().keys() == whole.findings().keys()
    finally:
        whole.close()


def test_an_empty_registry_needs_no_batch(machine: Machine) -> None:
    execution = machine.run()
    assert [name for name, _ in execution.entered] == ["Inventory", "WhatIsThere", "Prove", "Report"]
    record = machine.record(run_id(execution))
    assert (record["status"], record["empty"]) == ("NOT_A_FINDING", True)


@pytest.mark.usefixtures("filled")
def test_an_event_that_was_answered_is_not_answered_again(machine: Machine) -> None:
    first = machine.run()
    record = machine.record(run_id(first))
    machine.audited.messages()
    again = machine.run(machine.audited.event())
    assert (again.status, [name for name, _ in again.entered]) == (
        "SUCCEEDED",
        ["Inventory", "WhatIsThere", "FinishedBefore"],
    )
    assert machine.audited.messages() == []
    assert machine.record(run_id(first)) == record


def test_a_registry_that_is_not_reached_is_reported(machine: Machine) -> None:
    machine.audited.environment["DTR_URL"] = "https://localhost:1"
    execution = machine.run()
    assert (execution.status, [name for name, _ in execution.entered]) == (
        "SUCCEEDED",
        ["Inventory", "WhatIsThere", "Report"],
    )
    record = machine.record(run_id(execution))
    assert (record["status"], record["complete"]) == ("NOT_REVIEWED", False)
    assert record["incomplete_because"]
    assert [message.attributes["event"] for message in machine.audited.messages()] == ["audit_incomplete"]


# --- A step that fails ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("is_late", [False, True])
def test_a_step_that_fails_once_changes_nothing(machine: Machine, is_late: bool) -> None:
    machine.fails_late = is_late
    seen: set[tuple[str, int]] = set()

    def at_first(name: str, payload: dict[str, Any]) -> bool:
        step = (name, payload.get("batch", {}).get("number", 0))
        return step not in seen and not seen.add(step)  # type: ignore[func-returns-value]

    machine.failing = at_first
    execution = machine.run()
    record = machine.record(run_id(execution))
    assert (record["status"], record["complete"], record["tags"]["audited"]) == ("OPEN", True, REPOSITORIES)
    assert len(machine.audited.verdicts(run_id(execution))) == REPOSITORIES
    assert len(machine.made) == 2 * (3 + 3)


@pytest.mark.usefixtures("filled")
def test_a_batch_that_fails_for_good_makes_the_run_incomplete_and_is_reported(machine: Machine) -> None:
    machine.failing = lambda name, payload: payload.get("batch", {}).get("number") == 2
    execution = machine.run()
    assert (execution.status, [name for name, _ in execution.entered]) == ("SUCCEEDED", LONG_STATES)
    assert machine.made.count("ExamineFunction") == 2 + 3  # three attempts at the second
    record = machine.record(run_id(execution))
    assert (record["complete"], record["repositories"]["listed"]) == (False, REPOSITORIES)
    (reason,) = record["incomplete_because"]
    assert "batch 2 of 3" in reason
    assert "40 repositories were not read" in reason
    (message,) = machine.audited.messages()
    assert message.body["complete"] is False


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("step", "is_late"), [("Inventory", False), ("Prove", True)])
def test_a_run_whose_step_fails_for_good_is_closed_as_incomplete_and_reported(
    machine: Machine, step: str, is_late: bool
) -> None:
    machine.failing, machine.fails_late = lambda name, payload: name == f"{step}Function", is_late
    execution = machine.run()
    assert [name for name, _ in execution.entered][-4:] == [step, f"{step}Failed", "ReportFailure", "Failed"]
    assert (execution.status, execution.error) == ("FAILED", "RuntimeError")
    assert machine.made.count(f"{step}Function") == 3
    (key,) = machine.audited.keys("runs")
    record = json.loads(machine.audited.read(key))
    assert record["complete"] is False
    assert any(f"'{step.lower()}'" in reason and "RuntimeError" in reason for reason in record["incomplete_because"])
    assert "out of order" not in json.dumps(record)
    assert record["findings"]["resolved"] == 0
    assert len(machine.audited.messages()) == 1
    assert machine.lease() == []


@pytest.mark.usefixtures("filled")
def test_a_report_that_failed_is_made_by_a_redrive_of_the_execution(machine: Machine) -> None:
    machine.failing = lambda name, payload: name == "ReportFunction"
    failed = machine.run()
    assert (failed.status, failed.entered[-1][0]) == ("FAILED", "Report")
    assert machine.audited.keys("runs") == []
    assert machine.lease() != []
    machine.failing = lambda name, payload: False
    machine.made.clear()
    redriven = machine.redrive(failed)
    assert (redriven.status, redriven.arn, machine.made) == ("SUCCEEDED", failed.arn, ["ReportFunction"])
    record = machine.record(run_id(redriven))
    assert (record["complete"], record["tags"]["audited"]) == (True, REPOSITORIES)
    assert machine.lease() == []


@pytest.mark.usefixtures("filled")
def test_a_redrive_of_the_reading_makes_no_tag_twice(machine: Machine) -> None:
    """AWS redrives batches that did not end; here all of them are, and the outcome must be the same."""
    machine.failing = lambda name, payload: name == "ReportFunction"
    failed = machine.run()
    machine.failing = lambda name, payload: False
    at_examine = replace(failed, entered=failed.entered[:3])
    redriven = machine.redrive(at_examine)
    record = machine.record(run_id(redriven))
    assert (record["complete"], record["tags"]["audited"]) == (True, REPOSITORIES)
    assert len(machine.audited.verdicts(run_id(redriven))) == REPOSITORIES


# --- Another run under way --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("filled")
def test_while_another_run_is_under_way_nothing_is_begun_and_nothing_reported(machine: Machine) -> None:
    stack = machine.audited.stack
    runs = RunsTable(stack.resource_client, stack.outputs["RunsTableName"], machine.audited.name)
    runs.take_lease("another", "another", "20261101T030000Z", now=datetime.now(UTC), seconds=3600)
    execution = machine.run()
    assert [name for name, _ in execution.entered] == ["Inventory", "OtherRunUnderWay"]
    assert (execution.status, execution.error) == ("FAILED", LeaseHeldError.__name__)
    assert machine.made == ["InventoryFunction"] * 25
    assert machine.audited.keys("runs") == []
    assert machine.audited.messages() == []
    assert [item["owner"] for item in machine.lease()] == ["another"]
    runs.release_lease("another")
    assert machine.run(machine.audited.event()).status == "SUCCEEDED"
