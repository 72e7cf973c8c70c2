"""The alarms: each a runbook, each on a metric that somebody emits, each within what CloudWatch takes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dtr_audit.aws import metrics
from dtr_audit.core.counts import FindingCounts, RepositoryCounts, TagCounts
from dtr_audit.core.run_record import Run, Scope, Status
from dtr_audit.pipeline.audit import REPORT_SECONDS, REPORT_SHARE
from tests.harness.cloudwatch import HOUR, MINUTE, Alarm, AlarmState, Metrics, Series
from tests.harness.resolution import ACCOUNT, TEMPLATE, resolve

OWN = "DtrSignatureAudit"
# What AWS documents of its services, as far as it is watched here: namespace, metric, dimension.
DOCUMENTED = {
    ("AWS/Lambda", "Errors", "FunctionName"),
    ("AWS/Lambda", "Throttles", "FunctionName"),
    ("AWS/States", "ExecutionsFailed", "StateMachineArn"),
    ("AWS/States", "ExecutionsTimedOut", "StateMachineArn"),
    ("AWS/States", "ExecutionThrottled", "StateMachineArn"),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName"),
}
WATCHED_BY_AWS = {
    "AuditFailedAlarm": {"Ref": "AuditFunction"},
    "AuditThrottledAlarm": {"Ref": "AuditFunction"},
    "DeadLetterAlarm": {"Fn::GetAtt": ["DeadLetterQueue", "QueueName"]},
    "StepsFailedAlarm": {"Ref": "AuditStateMachine"},
    "StepsTimedOutAlarm": {"Ref": "AuditStateMachine"},
    "StepsThrottledAlarm": {"Ref": "AuditStateMachine"},
}
SHARED = ["AuditIncompleteAlarm", "AuditSilentAlarm", "RegistryShrunkAlarm", "DeadLetterAlarm"]
OF_ENGINE = {
    "lambda": ["AuditFailedAlarm", "AuditThrottledAlarm", "AuditSlowAlarm"],
    "stepfunctions": ["StepsFailedAlarm", "StepsTimedOutAlarm", "StepsThrottledAlarm", "StepsSlowAlarm"],
}
NAMES = [*SHARED, *OF_ENGINE["lambda"], *OF_ENGINE["stepfunctions"]]
engines = pytest.mark.parametrize("engine", OF_ENGINE)
RUN = Run(
    registry="prod-dtr",
    run_id="20261122T030000Z",
    scope=Scope.FULL,
    namespaces=(),
    status=Status.NOT_A_FINDING,
    incomplete_because=(),
    warnings=(),
    domains=("dtr.example.mil",),
    started_at=datetime(2026, 11, 22, 3, 0, tzinfo=UTC),
    finished_at=datetime(2026, 11, 22, 3, 0, tzinfo=UTC),
    repositories=RepositoryCounts(listed=1, audited=1),
    tags=TagCounts(signed=1),
    findings=FindingCounts(),
)
Capture = pytest.CaptureFixture[str]


def alarms(given: Mapping[str, str] | None = None, **options: Any) -> dict[str, dict[str, Any]]:
    """Give the properties of every alarm of one deployment."""
    resources = resolve(given, **options)["Resources"]
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }


def alarm(name: str) -> dict[str, Any]:
    """Give the properties of an alarm of either engine."""
    return {**alarms(), **alarms({"Engine": "stepfunctions"})}[name]


def emitted(run: Run, capsys: Capture) -> Metrics:
    capsys.readouterr()
    metrics.emit(run)
    reported = Metrics()
    reported.read(capsys.readouterr().out, at=HOUR)
    return reported


@engines
def test_these_are_the_alarms(engine: str) -> None:
    given = {"Engine": engine}
    assert set(alarms(given)) == {*SHARED, *OF_ENGINE[engine]}
    # Three that are most easily lost by a condition.
    switched = {"ScheduleState": "DISABLED", "KmsKeyArn": KEY, "AlertTopicArn": TOPIC}
    assert list(alarms({**given, **switched})) == list(alarms(given))


# --- A runbook each -----------------------------------------------------------------------------------------------


def names_used(text: str) -> set[str]:
    """Find what is written as one of the template's own names: capitals inside a word."""
    return {word for word in re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", text) if word != "CloudWatch"}


def of(engine: str, section: str) -> set[str]:
    """Name what a stack with this engine has."""
    return set(resolve({"Engine": engine})[section])


@pytest.mark.parametrize("name", NAMES)
def test_an_alarm_says_what_to_do_within_what_cloudwatch_takes(name: str) -> None:
    description = alarm(name)["AlarmDescription"]
    assert len(description) <= 1024
    assert description.endswith(".")
    assert description.count(". ") + description.count("? ") >= 2  # what happened, what to look at, what to do
    assert "\n" not in description


@pytest.mark.parametrize(
    ("engine", "name"), [(engine, name) for engine in OF_ENGINE for name in (*SHARED, *OF_ENGINE[engine])]
)
def test_a_runbook_names_only_what_its_stack_has(engine: str, name: str) -> None:
    description = alarm(name)["AlarmDescription"]
    used = names_used(description)
    outputs = of(engine, "Outputs")
    assert used <= set(TEMPLATE["Parameters"]) | outputs | {*SHARED, *OF_ENGINE[engine]}
    for output in re.findall(r"\(output (\w+)\)", description):
        assert output in outputs
    for parameter in re.findall(r"parameter (\w+)", description):
        assert parameter in TEMPLATE["Parameters"]
    # Somewhere to go: a name of the template, or the page of the console.
    assert used or "Service Quotas" in description


def test_a_runbook_would_be_caught_naming_what_does_not_exist() -> None:
    assert names_used("Raise TimeoutSeconds, see output RunNowCommands in CloudWatch") == {
        "TimeoutSeconds",
        "RunNowCommands",
    }


# --- Where it goes ------------------------------------------------------------------------------------------------

KEY = f"arn:aws-us-gov:kms:us-gov-west-1:{ACCOUNT}:key/1234"
TOPIC = f"arn:aws-us-gov:sns:us-gov-west-1:{ACCOUNT}:alerts"
OPERATIONS = f"arn:aws-us-gov:sns:us-gov-west-1:{ACCOUNT}:operations"


@pytest.mark.parametrize(
    ("given", "topic"),
    [
        ({}, {"Ref": "AlertTopic"}),
        ({"AlertTopicArn": TOPIC}, TOPIC),
        ({"OperationsTopicArn": OPERATIONS}, OPERATIONS),
        ({"AlertTopicArn": TOPIC, "OperationsTopicArn": OPERATIONS}, OPERATIONS),
    ],
)
def test_an_alarm_goes_to_operations_if_there_is_such_a_topic_else_where_alerts_go(
    given: dict[str, str], topic: Any
) -> None:
    for properties in (*alarms(given).values(), *alarms({**given, "Engine": "stepfunctions"}).values()):
        assert properties["AlarmActions"] == [topic]
        assert "OKActions" not in properties
        assert "InsufficientDataActions" not in properties


@engines
def test_silence_is_no_alarm_while_the_schedule_is_switched_off(engine: str) -> None:
    notified, notified_without_schedule = (
        {name for name, properties in alarms(given).items() if properties.get("ActionsEnabled", True)}
        for given in ({"Engine": engine}, {"Engine": engine, "ScheduleState": "DISABLED"})
    )
    assert notified == {*SHARED, *OF_ENGINE[engine]}
    assert notified - notified_without_schedule == {"AuditSilentAlarm"}


# --- Metrics that somebody emits ----------------------------------------------------------------------------------


def watched() -> Iterator[tuple[str, Series]]:
    for name in NAMES:
        for series in Alarm(alarm(name)).watched:
            yield name, series


def test_every_metric_of_ours_is_one_that_a_complete_audit_emits(capsys: Capture) -> None:
    reported = emitted(RUN, capsys).series
    ours = {series for _, series in watched() if series.namespace == OWN}
    assert {series.name for series in ours} == {"RunCompleted", "SizeAgainstLastRun", "Duration"}
    assert ours <= reported


def test_a_partial_audit_emits_nothing_that_is_watched(capsys: Capture) -> None:
    reported = emitted(replace(RUN, scope=Scope.PARTIAL), capsys).series
    assert reported
    assert not reported & {series for _, series in watched()}


def test_every_metric_of_aws_is_one_that_aws_documents() -> None:
    theirs = {(name, series) for name, series in watched() if series.namespace != OWN}
    assert {name for name, _ in theirs} == set(WATCHED_BY_AWS)
    for name, series in theirs:
        ((dimension, value),) = series.dimensions
        assert (series.namespace, series.name, dimension) in DOCUMENTED
        assert json.loads(value) == WATCHED_BY_AWS[name]


# --- Within what CloudWatch takes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", ["2", "26", "168"])
def test_no_alarm_looks_back_further_than_cloudwatch_does(hours: str) -> None:
    both = ({"SilenceHours": hours}, {"SilenceHours": hours, "Engine": "stepfunctions"})
    for properties in (one for given in both for one in alarms(given).values()):
        period = Alarm(properties).period
        assert period % MINUTE == 0
        longest = 7 * 24 * HOUR if period >= HOUR else 24 * HOUR
        assert period * properties["EvaluationPeriods"] <= longest


def test_exactly_one_query_of_an_alarm_is_compared_with_the_threshold() -> None:
    for properties in map(alarm, NAMES):
        queries = properties.get("Metrics", [{}])
        assert len([query for query in queries if query.get("ReturnData", True)]) == 1
        assert ("MetricName" in properties) != ("Metrics" in properties)
        assert not {"Namespace", "Dimensions", "Period", "Statistic"} & set(
            properties if "Metrics" in properties else ()
        )


# --- What AWS itself counts ---------------------------------------------------------------------------------------


def driven(name: str, points: dict[int, float], *, looks_back: int = 0) -> dict[int, AlarmState]:
    """Drive an alarm with one number at each of these minutes; gives its state after each of 60 minutes."""
    raised = Alarm(alarm(name), looks_back=looks_back)
    (series,) = raised.watched
    reported = Metrics()
    for minute, value in points.items():
        reported.put(series, value, at=minute * MINUTE)
    states = {}
    for minute in range(60):
        raised.evaluate(reported, at=minute * MINUTE)
        states[minute] = raised.state
    return states


@pytest.mark.parametrize("looks_back", [0, 2])
def test_a_crash_is_an_alarm_until_an_attempt_succeeds(looks_back: int) -> None:
    states = driven("AuditFailedAlarm", {10: 1, 40: 0}, looks_back=looks_back)
    assert states[9] == "INSUFFICIENT_DATA"
    assert {states[minute] for minute in range(10, 40)} == {"ALARM"}
    assert states[59] == "OK"


def test_a_crash_that_the_next_attempt_heals_within_minutes_is_reported_all_the_same() -> None:
    states = driven("AuditFailedAlarm", {10: 1, 12: 0})
    assert states[10] == "ALARM"
    assert states[59] == "OK"


@pytest.mark.parametrize(
    "name",
    ["DeadLetterAlarm", "AuditThrottledAlarm", "StepsFailedAlarm", "StepsTimedOutAlarm", "StepsThrottledAlarm"],
)
@pytest.mark.parametrize("looks_back", [0, 2])
def test_a_full_queue_a_throttle_or_a_failed_execution_is_an_alarm_and_ends_with_its_cause(
    name: str, looks_back: int
) -> None:
    states = driven(name, dict.fromkeys(range(10, 30), 1), looks_back=looks_back)
    assert states[9] == "OK"  # a queue that nobody uses, a function that was never throttled
    assert {states[minute] for minute in range(10, 30)} == {"ALARM"}
    assert states[59] == "OK"


# --- Before it is too late ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "state"), [(539.9, "OK"), (540.0, "ALARM"), (779.0, "ALARM")])
def test_an_audit_near_its_time_limit_is_an_alarm(capsys: Capture, seconds: float, state: str) -> None:
    reported = emitted(replace(RUN, finished_at=RUN.started_at + timedelta(seconds=seconds)), capsys)
    slow = Alarm(alarms({"TimeoutSeconds": "900"})["AuditSlowAlarm"])
    slow.evaluate(reported, at=HOUR)
    assert slow.state == state


@pytest.mark.parametrize(("hours", "state"), [(7.1, "OK"), (7.2, "ALARM"), (12.0, "ALARM")])
def test_an_audit_in_steps_near_its_twelve_hours_is_an_alarm(capsys: Capture, hours: float, state: str) -> None:
    reported = emitted(replace(RUN, finished_at=RUN.started_at + timedelta(hours=hours)), capsys)
    slow = Alarm(alarm("StepsSlowAlarm"))
    slow.evaluate(reported, at=HOUR)
    assert slow.state == state


@pytest.mark.parametrize("limit", [60, 120, 300, 480, 600, 900])
def test_the_alarm_about_time_comes_before_the_audit_has_to_stop(capsys: Capture, limit: int) -> None:
    stopped_at = limit - min(REPORT_SECONDS, limit * REPORT_SHARE)
    reported = emitted(replace(RUN, finished_at=RUN.started_at + timedelta(seconds=0.9 * stopped_at)), capsys)
    slow = Alarm(alarms({"TimeoutSeconds": str(limit)})["AuditSlowAlarm"])
    slow.evaluate(reported, at=HOUR)
    assert slow.state == "ALARM"


def test_the_runbook_knows_when_the_audit_has_to_stop() -> None:
    description = alarms()["AuditSlowAlarm"]["AlarmDescription"]
    threshold = alarms()["AuditSlowAlarm"]["Threshold"]
    longest = TEMPLATE["Parameters"]["TimeoutSeconds"]["MaxValue"]
    at_most = 1 - min(REPORT_SECONDS / longest, REPORT_SHARE)
    assert [int(percent) for percent in re.findall(r"(\d+) percent", description)] == [
        threshold,
        round(100 * (1 - REPORT_SHARE)),
        round(100 * at_most),
    ]


# --- The dashboard ------------------------------------------------------------------------------------------------


def dashboard(given: Mapping[str, str] | None = None, **options: Any) -> dict[str, Any]:
    body = resolve(given, **options)["Resources"]["AuditDashboard"]["Properties"]["DashboardBody"]
    parsed: dict[str, Any] = json.loads(body["Fn::Sub"])
    return parsed


def test_no_value_that_a_parameter_accepts_breaks_the_dashboard() -> None:
    strange = {
        "DtrUrl": "https://a-b.c:65535",
        "RegistryName": "0.-",
        "ScheduleExpression": "cron(0/5 5 ? * MON#1,L *)",
        "TimeoutSeconds": "60",
    }
    assert strange["ScheduleExpression"] in dashboard(strange)["widgets"][0]["properties"]["markdown"]


@engines
def test_every_alarm_is_on_the_dashboard(engine: str) -> None:
    (widget,) = [widget for widget in dashboard({"Engine": engine})["widgets"] if widget["type"] == "alarm"]
    names = [*SHARED, *OF_ENGINE[engine]]
    assert sorted(widget["properties"]["alarms"]) == sorted(f"${{{name}.Arn}}" for name in names)


def test_every_metric_of_the_dashboard_is_one_that_a_complete_audit_emits(capsys: Capture) -> None:
    reported = emitted(RUN, capsys).series
    shown = set()
    for widget in dashboard()["widgets"]:
        for metric in widget["properties"].get("metrics", []):
            assert isinstance(metric[-1], dict)
            assert metric[-1]["label"]
            namespace, name, *dimensions = metric[:-1]
            pairs = zip(dimensions[::2], dimensions[1::2], strict=True)
            shown.add(Series(namespace, name, frozenset((key, json.dumps(value)) for key, value in pairs)))
    assert shown <= reported
    # What a manager asks for: status, unsigned, coverage, the oldest finding, duration.
    assert {series.name for series in shown} >= {"Passed", "TagsUnsigned", "Coverage", "OldestFindingDays", "Duration"}


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1", "us-gov-east-1"])
def test_the_dashboard_looks_at_the_region_of_its_stack(region: str) -> None:
    regions = {widget["properties"].get("region") for widget in dashboard(region=region)["widgets"]}
    assert regions == {region, None}  # texts and alarms need none
    name = resolve(region=region)["Resources"]["AuditDashboard"]["Properties"]["DashboardName"]
    assert name == f"audit-{region}"


def test_no_widget_lies_over_another_or_leaves_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for widget in dashboard()["widgets"]:
        cells = set(
            itertools.product(
                range(widget["x"], widget["x"] + widget["width"]), range(widget["y"], widget["y"] + widget["height"])
            )
        )
        assert not cells & taken
        taken |= cells
    assert {x for x, _ in taken} == set(range(24))


@pytest.mark.parametrize(("engine", "limit"), [("lambda", 120), ("stepfunctions", 12 * HOUR)])
def test_the_time_limit_is_drawn_where_it_is(engine: str, limit: int) -> None:
    drawn = [
        line["value"]
        for widget in dashboard({"Engine": engine, "TimeoutSeconds": "120"})["widgets"]
        for line in widget["properties"].get("annotations", {}).get("horizontal", [])
    ]
    assert drawn == [limit]
