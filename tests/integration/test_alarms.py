"""The alarms of the template, fed with what real runs of the function print: when they ring, and when they end.

Every run's numbers are put at an hour of the test's own choosing.
"""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.stack import EmbeddedAws
from dtr_audit_simulator.dtr.fault_kinds import ALL_TAGS, Status, tags_of
from dtr_audit_simulator.dtr.faults import NO_FAULTS, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.cloudwatch import HOUR, MINUTE, Alarm, AlarmState, Metrics
from tests.harness.resolution import NEEDED, resolve

RUNS = ["AuditIncompleteAlarm", "AuditSilentAlarm", "RegistryShrunkAlarm", "AuditSlowAlarm"]
SILENCE = 26  # hours, the parameter's default
# Periods that CloudWatch may look at beyond those it was told to, where data is missing: hours of silence, here.
LOOKS_BACK = (0, 3)
UNREADABLE = Faults(on_calls=(Status(500, tags_of("team/app-0")),))


class Watch:
    """The alarms about one registry's runs, and the clock they are evaluated by.

    Each is evaluated in every way in which CloudWatch may look back: what a test claims must hold in all.
    """

    def __init__(self, audited: Audited, capture: pytest.CaptureFixture[str]) -> None:
        resources = resolve({"RegistryName": audited.name})["Resources"]
        self.alarms = {
            name: [Alarm(resources[name]["Properties"], looks_back=periods) for periods in LOOKS_BACK] for name in RUNS
        }
        self.forget()
        self._audited = audited
        self._capture = capture
        self._metrics = Metrics()
        self._now = 0.0

    def audit(self, event: dict[str, Any] | None = None, *, at: float, **options: Any) -> dict[str, Any]:
        """Let the time pass until `at` hours, then make a run; gives its record."""
        self.wait(until=at)
        self._capture.readouterr()
        try:
            return self._audited.audit(event, **options)
        finally:
            self._metrics.read(self._capture.readouterr().out, at=at * HOUR)

    def wait(self, *, until: float) -> None:
        """Let the time pass until `until` hours, evaluating every alarm every minute."""
        while self._now < until * HOUR:
            self._now = min(self._now + MINUTE, until * HOUR)
            for name, alarms in self.alarms.items():
                for alarm, notified in zip(alarms, self._notified[name], strict=True):
                    alarm.evaluate(self._metrics, at=self._now)
                    notified.add(alarm.state)

    def forget(self) -> None:
        """Remember from now on only what is heard from now on."""
        self._notified: dict[str, list[set[AlarmState]]] = {name: [set() for _ in LOOKS_BACK] for name in RUNS}

    def is_on(self, name: str) -> bool:
        """Tell whether an alarm is on now."""
        (state,) = {alarm.state for alarm in self.alarms[name]}
        return state is AlarmState.ALARM

    def all_on(self) -> set[str]:
        """Name the alarms that are on now."""
        return {name for name in RUNS if self.is_on(name)}

    def has_rung(self, name: str) -> bool:
        """Tell whether an alarm was ever on."""
        (has_rung,) = {AlarmState.ALARM in notified for notified in self._notified[name]}
        return has_rung

    def was_quiet(self) -> bool:
        """Tell whether every alarm was OK all the time."""
        return all(notified == {AlarmState.OK} for each in self._notified.values() for notified in each)


@pytest.fixture
def watch(audited: Audited, registry: InMemoryRegistry, capsys: pytest.CaptureFixture[str]) -> Watch:
    fill(registry, 10)
    return Watch(audited, capsys)


def fill(registry: InMemoryRegistry, repositories: int) -> None:
    for number in range(repositories):
        registry.push("team", f"app-{number}", "1.0")
        registry.sign("team", f"app-{number}", "1.0")


def shrink(registry: InMemoryRegistry, *, to: int) -> None:
    for number in range(to, 10):
        registry.delete_repository("team", f"app-{number}")


# --- Days without and with trouble --------------------------------------------------------------------------------


def test_a_complete_audit_a_day_rings_nothing(watch: Watch) -> None:
    watch.audit(at=1)
    watch.wait(until=1.2)
    watch.forget()  # before the first audit there was silence
    for day in range(1, 4):
        watch.audit(at=1 + 24 * day)
    watch.wait(until=1 + 3 * 24 + SILENCE - 0.1)
    assert watch.was_quiet()


# --- Incomplete ---------------------------------------------------------------------------------------------------


def test_an_incomplete_audit_rings_until_one_is_complete(watch: Watch, dtr: DtrServer) -> None:
    watch.audit(at=1)
    dtr.faults = UNREADABLE
    assert not watch.audit(at=25)["complete"]
    watch.wait(until=26)
    assert watch.is_on("AuditIncompleteAlarm")
    watch.wait(until=48.9)
    assert watch.is_on("AuditIncompleteAlarm")
    dtr.faults = NO_FAULTS
    assert watch.audit(at=49)["complete"]
    watch.wait(until=50)
    assert not watch.is_on("AuditIncompleteAlarm")


def test_a_very_first_audit_that_is_incomplete_rings(watch: Watch, dtr: DtrServer) -> None:
    dtr.faults = UNREADABLE
    watch.audit(at=1)
    watch.wait(until=1.1)
    assert watch.is_on("AuditIncompleteAlarm")


def test_an_incomplete_audit_rings_minutes_after_a_complete_one(watch: Watch, dtr: DtrServer) -> None:
    watch.audit(at=1)
    dtr.faults = UNREADABLE
    watch.audit(at=1 + 3 / 60)
    watch.wait(until=2)
    assert watch.has_rung("AuditIncompleteAlarm")


# --- Silent -------------------------------------------------------------------------------------------------------


def test_silence_rings_and_a_complete_audit_ends_it(watch: Watch) -> None:
    watch.audit(at=1)
    watch.wait(until=1 + SILENCE - 0.1)
    assert not watch.is_on("AuditSilentAlarm")
    watch.wait(until=1 + SILENCE + max(LOOKS_BACK) + 0.1)
    assert watch.is_on("AuditSilentAlarm")
    watch.audit(at=40)
    watch.wait(until=40.1)
    assert not watch.is_on("AuditSilentAlarm")


def test_incomplete_and_partial_audits_do_not_break_the_silence(watch: Watch, dtr: DtrServer, audited: Audited) -> None:
    watch.audit(at=1)
    dtr.faults = UNREADABLE
    for at in (10, 20, 26):
        assert not watch.audit(at=at)["complete"]
    dtr.faults = NO_FAULTS
    assert watch.audit({**audited.event(), "namespaces": ["team"]}, at=27.5)["complete"]
    watch.wait(until=31)
    assert watch.is_on("AuditSilentAlarm")


def test_a_stack_that_never_audited_is_silent(watch: Watch) -> None:
    watch.wait(until=1)
    assert watch.is_on("AuditSilentAlarm")


def test_an_audit_that_crashes_is_not_notified(watch: Watch, audited: Audited) -> None:
    watch.audit(at=1)
    audited.runs += 1
    for at in (20, 20.1):  # Lambda tries the same event again
        with pytest.raises(ClientError, match="NoSuchBucket"):
            watch.audit(audited.event(), at=at, request_id="one", BUCKET="no-such-bucket")
    watch.wait(until=1 + SILENCE + max(LOOKS_BACK) + 0.1)
    assert watch.is_on("AuditSilentAlarm")


def test_a_second_delivery_of_a_finished_audit_says_nothing_again(watch: Watch, audited: Audited) -> None:
    watch.audit(at=1)
    assert watch.audit(audited.event(), at=20)["finished_before"]
    watch.wait(until=1 + SILENCE + max(LOOKS_BACK) + 0.1)
    assert watch.is_on("AuditSilentAlarm")


# --- Shrunk -------------------------------------------------------------------------------------------------------


def test_a_registry_that_has_collapsed_rings_until_the_next_audit(watch: Watch, registry: InMemoryRegistry) -> None:
    watch.audit(at=1)
    shrink(registry, to=2)
    assert watch.audit(at=25)["complete"]
    watch.wait(until=48.9)
    assert watch.is_on("RegistryShrunkAlarm")
    assert not watch.is_on("AuditIncompleteAlarm")
    watch.audit(at=49)
    watch.wait(until=50)
    assert not watch.is_on("RegistryShrunkAlarm")


def test_a_registry_that_lost_its_tags_but_not_its_repositories_rings(watch: Watch, registry: InMemoryRegistry) -> None:
    watch.audit(at=1)
    for number in range(2, 10):
        registry.delete_tag("team", f"app-{number}", "1.0")
    assert watch.audit(at=25)["repositories"]["audited"] == 10
    watch.wait(until=26)
    assert watch.is_on("RegistryShrunkAlarm")


@pytest.mark.parametrize(("left", "rings"), [(9, False), (8, True)])
def test_the_alarm_and_the_records_warning_draw_the_same_line(
    watch: Watch, registry: InMemoryRegistry, left: int, rings: bool
) -> None:
    watch.audit(at=1)
    shrink(registry, to=left)
    record = watch.audit(at=25)
    watch.wait(until=26)
    assert watch.has_rung("RegistryShrunkAlarm") is rings
    assert any("has shrunk" in warning for warning in record["warnings"]) is rings


def test_what_could_not_be_read_is_not_gone(watch: Watch, dtr: DtrServer) -> None:
    watch.audit(at=1)
    dtr.faults = Faults(on_calls=(Status(500, ALL_TAGS),))
    assert watch.audit(at=25)["tags"]["audited"] == 0
    watch.wait(until=26)
    assert not watch.has_rung("RegistryShrunkAlarm")
    assert watch.is_on("AuditIncompleteAlarm")


# --- Partial ------------------------------------------------------------------------------------------------------


def test_a_partial_audit_touches_no_alarm(watch: Watch, audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("other", "app", "1.0")
    watch.audit(at=1)
    watch.wait(until=2)
    assert watch.all_on() == set()
    watch.forget()
    small = watch.audit({**audited.event(), "namespaces": ["other"]}, at=3)
    missing = watch.audit({**audited.event(), "namespaces": ["nobody"]}, at=4)
    assert small["complete"]
    assert not missing["complete"]
    watch.wait(until=5)
    assert watch.was_quiet()


def test_a_partial_audit_ends_no_alarm(
    watch: Watch, audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    watch.audit(at=1)
    shrink(registry, to=2)
    watch.audit(at=25)
    dtr.faults = UNREADABLE
    watch.audit(at=26)
    watch.wait(until=60)
    rung = {"AuditIncompleteAlarm", "RegistryShrunkAlarm", "AuditSilentAlarm"}
    assert watch.all_on() == rung
    dtr.faults = NO_FAULTS
    assert watch.audit({**audited.event(), "namespaces": ["team"]}, at=61)["complete"]
    watch.wait(until=62)
    assert watch.all_on() == rung


# --- As deployed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "engine"), [("us-east-1", "lambda"), ("us-gov-west-1", "lambda"), ("us-gov-west-1", "stepfunctions")]
)
def test_every_alarm_is_deployed_and_on_the_dashboard_of_its_region(aws: EmbeddedAws, region: str, engine: str) -> None:
    stack = aws.deploy(
        PROJECT / "template.yaml",
        {**NEEDED, "SilenceHours": "50", "ShrinkPercent": "35", "Engine": engine},
        region=region,
        stack_name=f"watched-{engine}",
    )
    client = boto3.client("cloudwatch", region_name=region)
    try:
        described = {
            alarm["AlarmName"]: alarm
            for page in client.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"watched-{engine}-")
            for alarm in page["MetricAlarms"]
        }
        body = client.get_dashboard(DashboardName=stack.outputs["DashboardName"])["DashboardBody"]
    finally:
        client.close()
    deployed = resolve({"Engine": engine})["Resources"]
    names = [name for name, resource in deployed.items() if resource["Type"] == "AWS::CloudWatch::Alarm"]
    assert {stack.physical_id(name) for name in names} == set(described)
    assert all(alarm["AlarmActions"] == [stack.outputs["AlertTopicArn"]] for alarm in described.values())
    assert described[stack.physical_id("AuditSilentAlarm")]["EvaluationPeriods"] == 50
    assert described[stack.physical_id("RegistryShrunkAlarm")]["Threshold"] == 35
    queue = described[stack.physical_id("DeadLetterAlarm")]["Dimensions"]
    assert queue == [{"Name": "QueueName", "Value": stack.outputs["DeadLetterQueueUrl"].rpartition("/")[2]}]
    failed, dimension, output = {
        "lambda": ("AuditFailedAlarm", "FunctionName", "FunctionName"),
        "stepfunctions": ("StepsFailedAlarm", "StateMachineArn", "StateMachineArn"),
    }[engine]
    watched = described[stack.physical_id(failed)]["Dimensions"]
    assert watched == [{"Name": dimension, "Value": stack.outputs[output]}]
    widgets = json.loads(body)["widgets"]
    (shown,) = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    assert sorted(shown) == sorted(alarm["AlarmArn"] for alarm in described.values())
    assert {widget["properties"].get("region", region) for widget in widgets} == {region}
    assert "${" not in body
