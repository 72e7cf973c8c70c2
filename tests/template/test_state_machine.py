"""statemachine/audit.asl.json: its structure. cfn-lint reads it in test_template_lint.py; tests/integration run it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dtr_audit.errors import LeaseHeldError
from dtr_audit_simulator import PROJECT
from tests.harness.resolution import TEMPLATE, resolve

TEXT = (PROJECT / "statemachine" / "audit.asl.json").read_text(encoding="utf-8")
MACHINE: dict[str, Any] = json.loads(TEXT)
STATES: dict[str, dict[str, Any]] = MACHINE["States"]
BATCH: dict[str, Any] = STATES["Examine"]["ItemProcessor"]["States"]["ExamineBatch"]
PROPERTIES = TEMPLATE["Resources"]["AuditStateMachine"]["Properties"]
TASKS = {**{name: state for name, state in STATES.items() if state["Type"] == "Task"}, "ExamineBatch": BATCH}
# Each has an answer or another attempt will have one: AWS's own advice for functions.
PASSING = {
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.TooManyRequestsException",
}


def targets(state: dict[str, Any]) -> Iterator[str]:
    """Give every state that may come next."""
    for way in (state, *state.get("Choices", []), *state.get("Catch", [])):
        yield from (way[key] for key in ("Next", "Default") if key in way)


def test_every_state_can_be_reached_and_every_way_leads_to_an_end() -> None:
    reached = {MACHINE["StartAt"]}
    while new := {target for name in reached for target in targets(STATES[name])} - reached:
        reached |= new
    assert reached == set(STATES)
    ends = {name for name, state in STATES.items() if state.get("End") or state["Type"] in {"Succeed", "Fail"}}
    leading = set(ends)
    while new := {name for name, state in STATES.items() if leading & set(targets(state))} - leading:
        leading |= new
    assert leading == set(STATES)
    assert ends == {"Report", "FinishedBefore", "OtherRunUnderWay", "Failed"}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_waits_out_what_passes_and_tries_anything_else_twice_more(name: str) -> None:
    *_, passing, other = TASKS[name]["Retry"]
    assert set(passing["ErrorEquals"]) == PASSING
    assert passing["BackoffRate"] > 1
    assert passing["JitterStrategy"] == other["JitterStrategy"] == "FULL"
    assert other["ErrorEquals"] == ["States.ALL"]
    assert (
        other["MaxAttempts"]
        == TEMPLATE["Resources"]["AuditFunction"]["Properties"]["EventInvokeConfig"]["MaximumRetryAttempts"]
    )


def test_the_lease_of_another_run_is_waited_for_and_ends_without_a_report() -> None:
    held, *_ = STATES["Inventory"]["Retry"]
    assert held["ErrorEquals"] == [LeaseHeldError.__name__]
    assert held["MaxAttempts"] * held["IntervalSeconds"] == 2 * 3600
    caught, *_ = STATES["Inventory"]["Catch"]
    assert (caught["ErrorEquals"], caught["Next"]) == ([LeaseHeldError.__name__], "OtherRunUnderWay")
    assert list(targets(STATES["OtherRunUnderWay"])) == []


def test_no_batch_waits_for_a_lease_that_is_lost() -> None:
    """There may be thousands, and each would wait for itself."""
    first = BATCH["Retry"][0]
    assert (first["ErrorEquals"], first["MaxAttempts"]) == ([LeaseHeldError.__name__], 0)


@pytest.mark.parametrize("name", ["Inventory", "Examine", "Prove"])
def test_any_fails_before_the_report_is_reported_and_then_an_alarm(name: str) -> None:
    *_, caught = STATES[name]["Catch"]
    assert caught == {"ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": f"{name}Failed"}
    named = {"Type": "Pass", "Result": name.lower(), "ResultPath": "$.failed_step", "Next": "ReportFailure"}
    assert STATES[f"{name}Failed"] == named
    assert STATES["ReportFailure"]["Parameters"]["Payload"]["failure.$"] == "$.failure"
    assert STATES["ReportFailure"]["Parameters"]["FunctionName"] == STATES["Report"]["Parameters"]["FunctionName"]
    assert STATES["ReportFailure"]["Next"] == "Failed"
    assert STATES["Failed"]["Type"] == "Fail"


@pytest.mark.parametrize("name", ["Report", "ReportFailure"])
def test_a_report_that_fails_is_left_for_a_redrive(name: str) -> None:
    """Whoever redrives an execution begins in the state that failed: after a Catch that would be another one."""
    assert "Catch" not in STATES[name]


def test_a_batch_that_fails_never_stops_the_others() -> None:
    assert STATES["Examine"]["ToleratedFailurePercentage"] == 100
    assert "ToleratedFailureCount" not in STATES["Examine"]
    assert "Catch" not in BATCH  # or else Step Functions would count it as a success
    assert STATES["Examine"]["ItemProcessor"]["ProcessorConfig"] == {
        "Mode": "DISTRIBUTED",
        "ExecutionType": "STANDARD",  # an express one is ended after five minutes
    }


def test_every_step_is_reported_of_the_same_run() -> None:
    run = {
        "event.$": "$$.Execution.Input",
        "execution.$": "$$.Execution.Id",
        "started_at.$": "$$.Execution.StartTime",
    }
    assert STATES["Inventory"]["Parameters"]["Payload"] == run
    later = {**run, "state.$": "$"}
    for name in ("Prove", "Report"):
        assert STATES[name]["Parameters"]["Payload"] == later
    reported = {"failure.$": "$.failure", "failed_step.$": "$.failed_step"}
    assert STATES["ReportFailure"]["Parameters"]["Payload"] == {**later, **reported}
    # In a child execution $$ speaks of the child.
    assert STATES["Examine"]["ItemSelector"] == {**later, "batch.$": "$$.Map.Item.Value"}
    assert BATCH["Parameters"]["Payload.$"] == "$"


def test_the_machine_carries_the_sums_of_what_the_steps_leave() -> None:
    """A writer into the bucket alone cannot make one step believe what another step did not say."""
    assert STATES["Inventory"]["ResultSelector"]["inventory.$"] == "$.Payload"
    assert (STATES["Prove"]["ResultSelector"], STATES["Prove"]["ResultPath"]) == (
        {"sha256.$": "$.Payload.sha256"},
        "$.proof",
    )


def test_a_function_that_never_answers_is_not_waited_for_much_longer_than_it_could_run() -> None:
    longest = TEMPLATE["Parameters"]["TimeoutSeconds"]["MaxValue"]
    assert {task["TimeoutSeconds"] for task in TASKS.values()} == {longest + 60}


def test_the_functions_know_the_time_limit_of_the_execution() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["EXECUTION_SECONDS"] == str(MACHINE["TimeoutSeconds"])
    resources = resolve({"Engine": "stepfunctions"})["Resources"]
    share, _ = resources["StepsSlowAlarm"]["Properties"]["Metrics"]
    assert share["Expression"] == f"100 * duration / {MACHINE['TimeoutSeconds']}"


def test_everything_the_definition_leaves_open_is_filled_in_and_nothing_else() -> None:
    assert set(re.findall(r"\$\{(\w+)\}", TEXT)) == set(PROPERTIES["DefinitionSubstitutions"])
    assert "arn:aws" not in TEXT
    assert set(re.findall(r'"(arn:[^"]*)"', TEXT)) == {
        "arn:${Partition}:states:::lambda:invoke",
        "arn:${Partition}:states:::s3:getObject",
    }
    assert PROPERTIES["DefinitionS3Location"] == "statemachine/audit.asl.json"


def test_the_label_of_the_batches_is_the_one_that_the_role_names() -> None:
    label = STATES["Examine"]["Label"]
    role = TEMPLATE["Resources"]["StepsRole"]["Properties"]
    (policy,) = role["Policies"]
    statements = {one["Sid"]: one for one in policy["PolicyDocument"]["Statement"]}
    assert statements["FollowBatches"]["Resource"][1]["Fn::Sub"][0].endswith(f"/{label}:*")
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    context = statements["EncryptHistory"]["Condition"]["StringEquals"]
    for names in (
        trust["Condition"]["ArnLike"]["aws:SourceArn"],
        context["kms:EncryptionContext:aws:states:stateMachineArn"],
    ):
        assert names[1]["Fn::Sub"][0] == names[0]["Fn::Sub"][0] + f"/{label}"
