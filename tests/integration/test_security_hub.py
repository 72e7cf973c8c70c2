"""Security Hub: what moved is sent and kept in mind, whatever it refuses and wherever a run is cut off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from dtr_audit.aws import security_hub
from dtr_audit.core.model import iso
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.fake_clock import FakeClock
from tests.harness.security_hub import Document, StrictSecurityHub

COMMERCIAL, GOVCLOUD = "us-east-1", "us-gov-west-1"
ACCOUNT = "123456789012"  # the embedded one
PARTITIONS = {COMMERCIAL: "aws", GOVCLOUD: "aws-us-gov"}


@pytest.fixture(scope="session")
def stacks(aws: EmbeddedAws) -> dict[str, Stack]:
    """The template with Security Hub in both partitions; once, as a worker may come back to this module."""
    parameters = {"DtrUrl": "https://dtr.example.com", "RegistryName": "unnamed", "SecurityHub": "true"}
    return {
        region: aws.deploy(PROJECT / "template.yaml", parameters, region=region, stack_name=f"security-hub-{region}")
        for region in PARTITIONS
    }


@pytest.fixture(params=PARTITIONS)
def region(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


IN_ONE = pytest.mark.parametrize("region", [COMMERCIAL], indirect=True)


@pytest.fixture
def hub(aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, region: str) -> Iterator[StrictSecurityHub]:
    # The tests' own clients ask where the stack is.
    monkeypatch.setenv("AWS_REGION", region)
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    with StrictSecurityHub(monkeypatch) as hub:
        hub.switch_on(region)
        yield hub


def parts(image: str) -> tuple[str, str, str]:
    repository, _, tag = image.partition(":")
    namespace, _, name = repository.partition("/")
    return namespace, name, tag


class NotificationItem:
    """A registry, its audit, and what Security Hub has of it."""

    def __init__(self, audited: Audited, hub: StrictSecurityHub, region: str, registry: InMemoryRegistry) -> None:
        self.audited = audited
        self.hub = hub
        self.region = region
        self.registry = registry

    def push(self, *images: str) -> None:
        for image in images:
            self.registry.push(*parts(image))

    def sign(self, image: str) -> None:
        self.registry.sign(*parts(image))

    def day(self, event: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        time.sleep(0.002)  # times have milliseconds
        return self.audited.audit(event, **options)

    def findings(self) -> dict[str, Document]:
        return self.hub.findings(self.region, self.audited.name)

    def open_summary(self) -> dict[str, tuple[str, str]]:
        return {
            image: (document["Compliance"]["Status"], document["RecordState"])
            for image, document in self.findings().items()
        }

    def owed(self) -> set[str]:
        """The findings that are not marked as sent."""
        return {image for image, item in self.audited.findings().items() if "security_hub_at" not in item}


@pytest.fixture
def reported(
    stacks: dict[str, Stack],
    dtr: DtrServer,
    registry: InMemoryRegistry,
    hub: StrictSecurityHub,
    region: str,
) -> Iterator[NotificationItem]:
    audited = Audited(stacks[region], dtr)
    audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
    yield NotificationItem(audited, hub, region, registry)
    audited.close()
    # The embedded DynamoDB reads a whole table at each query.
    with closing(boto3.resource("dynamodb").meta.client) as client:
        for output in ("FindingsTableName", "RunsTableName"):
            for item in audited.items(output):
                key = {"pk": item["pk"], "sk": item["sk"]}
                client.delete_item(TableName=audited.stack.outputs[output], Key=key)


UP_TO_DATE = ("FAILED", "ACTIVE")
SIGNED = ("PASSED", "ACTIVE")
GONE = ("NOT_AVAILABLE", "ARCHIVED")


# --- The life of a finding -----------------------------------------------------------------------------------------


def test_a_finding_lives_in_security_hub_as_it_does_here(reported: NotificationItem) -> None:
    reported.push("web/shop:1", "web/shop:2", "web/till:1", "team/old:1", "web/shop:3")
    reported.sign("web/shop:3")
    first = reported.day()
    assert reported.open_summary() == dict.fromkeys(
        ["web/shop:1", "web/shop:2", "web/till:1", "team/old:1"], UP_TO_DATE
    )
    assert first["security_hub"] == {"accepted": 4, "refused": 0, "up_to_date": True}
    ids = {image: document["Id"] for image, document in reported.findings().items()}
    reported.hub.sent()

    reported.sign("web/shop:1")
    reported.registry.delete_tag("web", "shop", "2")
    reported.registry.delete_repository("team", "old")
    reported.push("web/shop:3")
    second = reported.day()
    assert reported.open_summary() == {
        "web/shop:1": SIGNED,
        "web/shop:2": GONE,
        "team/old:1": GONE,
        "web/till:1": UP_TO_DATE,
        "web/shop:3": UP_TO_DATE,
    }
    assert reported.hub.sent() == [{"web/shop:1", "web/shop:2", "team/old:1", "web/shop:3"}], "only what moved"
    assert second["security_hub"]["accepted"] == 4

    reported.push("web/shop:1", "web/shop:2")
    reported.day()
    assert reported.open_summary()["web/shop:1"] == reported.open_summary()["web/shop:2"] == UP_TO_DATE
    assert reported.hub.sent() == [{"web/shop:1", "web/shop:2"}]
    # Pushed anew, with another digest, and one of them gone and back: the same findings.
    assert {image: document["Id"] for image, document in reported.findings().items() if image in ids} == ids

    quiet = reported.day()
    assert reported.hub.sent() == []
    assert quiet["security_hub"] == {"accepted": 0, "refused": 0, "up_to_date": True}


def test_a_finding_is_imported_as_the_accounts_own_in_its_partition(reported: NotificationItem) -> None:
    reported.push("web/shop:1")
    reported.day()
    (finding,) = reported.findings().values()
    partition = PARTITIONS[reported.region]
    assert finding["ProductArn"] == f"arn:{partition}:securityhub:{reported.region}:{ACCOUNT}:product/{ACCOUNT}/default"
    assert finding["AwsAccountId"] == ACCOUNT


@IN_ONE
def test_a_push_that_is_no_changes_reaches_security_hub_with_its_digest(reported: NotificationItem) -> None:
    reported.push("web/shop:1")
    reported.day()
    reported.push("web/shop:1")
    reported.audited.messages()
    reported.day()
    assert reported.audited.messages() == []
    (item,) = reported.audited.findings().values()
    (finding,) = reported.findings().values()
    assert finding["Resources"][0]["Details"]["Container"]["ImageId"] == item["digest"]


@IN_ONE
def test_what_could_not_be_read_moves_nothing(reported: NotificationItem, dtr: DtrServer) -> None:
    reported.push("web/shop:1", "web/till:1")
    reported.day()
    reported.hub.sent()
    reported.sign("web/shop:1")
    reported.sign("web/till:1")
    dtr.faults = Faults(on_calls=(Status(500, tags_of("web/shop")),))
    run = reported.day()
    assert not run["complete"]
    assert reported.open_summary() == {"web/shop:1": UP_TO_DATE, "web/till:1": SIGNED}


@IN_ONE
def test_nothing_is_sent_unless_it_is_asked_for(reported: NotificationItem) -> None:
    reported.push("web/shop:1")
    run = reported.day(SECURITY_HUB_PRODUCT="")
    assert run["security_hub"] is None
    assert reported.hub.calls == []
    assert reported.day()["security_hub"]["accepted"] == 1, "what is open when it is switched on"


@IN_ONE
def test_a_run_that_reports_no_one_reports_security_hub_neither(reported: NotificationItem) -> None:
    reported.push("web/shop:1")
    run = reported.day({"alerts": False})
    assert run["security_hub"] is None
    assert reported.hub.calls == []
    reported.day()
    assert reported.hub.sent() == [{"web/shop:1"}]


@IN_ONE
def test_a_run_of_some_namespaces_reports_what_it_has_moved(reported: NotificationItem) -> None:
    reported.push("web/shop:1", "team/api:1")
    reported.day({"namespaces": ["web"]})
    assert reported.open_summary() == {"web/shop:1": UP_TO_DATE}


# --- Limits --------------------------------------------------------------------------------------------------------


@IN_ONE
def test_findings_go_out_in_batches_of_a_hundred(reported: NotificationItem) -> None:
    reported.push(*(f"web/shop:{number}" for number in range(250)))
    reported.day()
    assert [len(call) for call in reported.hub.sent()] == [100, 100, 50]
    assert len(reported.findings()) == 250


@IN_ONE
def test_a_batch_is_kept_under_the_size_of_a_call(reported: NotificationItem, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 12_000
    monkeypatch.setattr(security_hub, "BATCH_BYTES", most)
    reported.push(*(f"web/shop:{number}" for number in range(20)))
    reported.day()
    calls = reported.hub.calls
    assert len(calls) > 3
    assert all(len(json.dumps(call)) <= most for call in calls)
    assert len(reported.findings()) == 20


@IN_ONE
def test_what_is_open_is_sent_again_long_before_security_hub_deletes_it(reported: NotificationItem) -> None:
    reported.push("web/shop:1", "web/shop:2", "web/shop:3")
    reported.day()
    reported.sign("web/shop:2")
    reported.day()
    reported.hub.sent()
    backdate(reported, days=security_hub.REFRESH_DAYS + 1)
    reported.push("web/shop:4")
    reported.day()
    assert reported.hub.sent() == [{"web/shop:4", "web/shop:1", "web/shop:3"}]
    updated = {image: document["UpdatedAt"] for image, document in reported.findings().items()}
    assert updated["web/shop:1"] == updated["web/shop:4"] > updated["web/shop:2"]
    reported.day()
    assert reported.hub.sent() == []


@IN_ONE
def test_what_has_moved_goes_before_what_is_merely_old(
    reported: NotificationItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported.push(*(f"web/shop:{number}" for number in range(6)))
    reported.day()
    backdate(reported, days=security_hub.REFRESH_DAYS + 1)
    reported.push("aaa/first:1", "zzz/last:1")
    monkeypatch.setattr(security_hub, "BATCH_FINDINGS", 2)
    reported.hub.sent()
    reported.hub.takes_calls = 1
    reported.day()
    assert reported.hub.sent() == [{"aaa/first:1", "zzz/last:1"}]


def backdate(reported: NotificationItem, *, days: int) -> None:
    """Let the time pass since the findings were sent, here and there."""
    earlier = iso(datetime.now(UTC) - timedelta(days=days))
    with closing(boto3.resource("dynamodb").meta.client) as client:
        for item in reported.audited.findings().values():
            client.update_item(
                TableName=reported.audited.stack.outputs["FindingsTableName"],
                Key={"pk": item["pk"], "sk": item["sk"]},
                UpdateExpression="SET security_hub_at = :at",
                ExpressionAttributeValues={":at": earlier},
            )


@IN_ONE
def test_a_resolved_finding_is_kept_as_long_as_security_hub_may_not_have_notified_of_it(
    reported: NotificationItem,
) -> None:
    reported.push("web/shop:1")
    reported.day()
    reported.sign("web/shop:1")
    reported.day(RESOLVED_DAYS="1")
    (item,) = reported.audited.findings().values()
    kept = datetime.fromtimestamp(int(item["expires_at"]), UTC) - datetime.fromisoformat(item["last_changed"])
    # Security Hub deletes 90 days after the last update that it has had, and that was before.
    assert kept >= timedelta(days=90) - timedelta(seconds=1)


# --- It does not take them -----------------------------------------------------------------------------------------


def only_warning(run: dict[str, Any]) -> str:
    (warning,) = [text for text in run["warnings"] if "Security Hub" in text]
    assert isinstance(warning, str)
    return warning


def evidence_and_alerts_went_out(reported: NotificationItem, run: dict[str, Any], *opened: str) -> bool:
    (message,) = reported.audited.messages()
    record = json.loads(
        reported.audited.read(f"runs/registry={reported.audited.name}/dt=2026-11-01/{run['run_id']}.json")
    )
    return (
        {f"{item['repository']}:{item['tag']}" for item in message.body["opened"]} == set(opened)
        and message.body["warnings"] == run["warnings"]
        and record == run
        and {"report", "ckl", "cklb", "manifest"} <= set(run["evidence"])
        and run["complete"]
        and run["status"] == "OPEN"
    )


@IN_ONE
def test_a_security_hub_that_is_off_is_a_warning_and_the_next_run_sends_everything(reported: NotificationItem) -> None:
    reported.hub.switch_off(reported.region)
    reported.push("web/shop:1", "web/shop:2")
    run = reported.day()
    assert run["security_hub"] == {"accepted": 0, "refused": 0, "up_to_date": False}
    assert "not switched on in this account and region" in only_warning(run)
    assert evidence_and_alerts_went_out(reported, run, "web/shop:1", "web/shop:2")
    reported.hub.switch_on(reported.region)
    reported.sign("web/shop:2")
    run = reported.day()
    assert reported.open_summary() == {"web/shop:1": UP_TO_DATE, "web/shop:2": SIGNED}
    assert run["security_hub"] == {"accepted": 2, "refused": 0, "up_to_date": True}
    assert run["warnings"] == []


@IN_ONE
def test_a_finding_that_is_refused_is_named_and_sent_again_and_keeps_no_other_out(reported: NotificationItem) -> None:
    reported.push("web/shop:1", "web/shop:2", "web/shop:3")
    reported.hub.refused.add("web/shop:2")
    run = reported.day()
    assert run["security_hub"] == {"accepted": 2, "refused": 1, "up_to_date": False}
    assert "it refused 1 finding, the first of them web/shop:2 (InvalidInput: refused by the test)" in only_warning(run)
    assert evidence_and_alerts_went_out(reported, run, "web/shop:1", "web/shop:2", "web/shop:3")
    assert reported.owed() == {"web/shop:2"}
    reported.hub.refused.clear()
    reported.hub.sent()
    run = reported.day()
    assert reported.hub.sent() == [{"web/shop:2"}]
    assert run["security_hub"]["up_to_date"]


@IN_ONE
def test_a_finding_that_spoils_a_whole_call_keeps_no_other_out(reported: NotificationItem) -> None:
    images = [f"web/shop:{number}" for number in range(10)]
    reported.push(*images)
    reported.hub.poison |= {"web/shop:3", "web/shop:7"}
    run = reported.day()
    assert run["security_hub"] == {"accepted": 8, "refused": 2, "up_to_date": False}
    assert reported.owed() == {"web/shop:3", "web/shop:7"}
    assert "refused 2 findings" in only_warning(run)
    reported.hub.poison.clear()
    assert reported.day()["security_hub"]["accepted"] == 2


@IN_ONE
def test_a_failure_that_is_counted_and_not_named_counts_for_the_whole_call(reported: NotificationItem) -> None:
    reported.push("web/shop:1", "web/shop:2")
    reported.hub.miscounts = True
    run = reported.day()
    assert run["security_hub"] == {"accepted": 0, "refused": 2, "up_to_date": False}
    assert reported.owed() == {"web/shop:1", "web/shop:2"}
    reported.hub.miscounts = False
    assert reported.day()["security_hub"] == {"accepted": 2, "refused": 0, "up_to_date": True}


@IN_ONE
def test_where_everything_is_refused_it_is_not_all_tried(
    reported: NotificationItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security_hub, "REFUSED_MOST", 4)
    monkeypatch.setattr(security_hub, "BATCH_FINDINGS", 2)
    images = {f"web/shop:{number}" for number in range(9)}
    reported.push(*images)
    reported.hub.refused |= images
    run = reported.day()
    assert len(reported.hub.sent()) == 2
    assert run["security_hub"] == {"accepted": 0, "refused": 4, "up_to_date": False}


@IN_ONE
def test_a_throttled_run_goes_on_with_the_next(reported: NotificationItem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security_hub, "BATCH_FINDINGS", 2)
    images = {f"web/shop:{number}" for number in range(7)}
    reported.push(*images)
    reported.hub.takes_calls = 2
    run = reported.day()
    assert run["security_hub"] == {"accepted": 4, "refused": 0, "up_to_date": False}
    assert "LimitExceededException" in only_warning(run)
    assert evidence_and_alerts_went_out(reported, run, *images)
    reported.hub.takes_calls = -1
    sent_before = set().union(*reported.hub.sent())
    reported.day()
    assert set().union(*reported.hub.sent()) == images - sent_before


@IN_ONE
def test_a_security_hub_that_never_answers_costs_neither_evidence_nor_alerts(
    reported: NotificationItem, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported.push("web/shop:1")
    reported.hub.silent.set()
    with monkeypatch.context() as short:
        short.setattr("dtr_audit.pipeline.report.SECURITY_HUB_SHARE", 0.1 / fake_clock.SECONDS)
        run = reported.day(seconds=fake_clock.SECONDS)
    assert run["security_hub"] == {"accepted": 0, "refused": 0, "up_to_date": False}
    assert "not everything could be sent in time" in only_warning(run)
    assert evidence_and_alerts_went_out(reported, run, "web/shop:1")
    reported.hub.silent.clear()
    reported.hub.released.set()
    for thread in threading.enumerate():
        if thread.name == "answer":
            thread.join()
    assert reported.day()["security_hub"]["up_to_date"]


@IN_ONE
def test_no_way_to_security_hub_is_a_warning(reported: NotificationItem) -> None:
    reported.push("web/shop:1")
    run = reported.day(AWS_ENDPOINT_URL_SECURITYHUB="http://127.0.0.1:9")
    assert run["security_hub"]["up_to_date"] is False
    assert only_warning(run)
    assert evidence_and_alerts_went_out(reported, run, "web/shop:1")


# --- Cut off -------------------------------------------------------------------------------------------------------


class Cut(BaseException):
    """The process ends here: nothing in it may catch this."""


CrashInjection = Callable[[str, int], None]


@pytest.fixture
def crash_injection(monkeypatch: pytest.MonkeyPatch) -> CrashInjection:
    """Cut after the n-th call of an operation, once."""
    call = vars(BaseClient)["_make_api_call"]
    left: dict[str, int] = {}

    def counted(self: Any, operation: str, arguments: Any) -> Any:
        answer = call(self, operation, arguments)
        if operation in left:
            left[operation] -= 1
            if not left[operation]:
                left.clear()
                raise Cut(operation)
        return answer

    monkeypatch.setattr(BaseClient, "_make_api_call", counted)
    return left.__setitem__


CUTS = [
    ("BatchWriteItem", 1),
    ("Scan", 1),  # what is known
    ("Scan", 2),  # what Security Hub lacks
    ("BatchImportFindings", 1),
    ("TransactWriteItems", 1),  # that it has them, two by two
    ("BatchImportFindings", 2),
    ("TransactWriteItems", 2),
    ("BatchImportFindings", 3),
    ("UpdateItem", 1),  # the last one by itself
    ("Publish", 1),
    ("TransactWriteItems", 3),  # that all have been told
]


@IN_ONE
@pytest.mark.parametrize("is_retried", [True, False], ids=["retried", "never-retried"])
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut[0]}-{cut[1]}")
def test_a_run_cut_off_anywhere_loses_no_update(
    reported: NotificationItem,
    monkeypatch: pytest.MonkeyPatch,
    crash_injection: CrashInjection,
    cut: tuple[str, int],
    is_retried: bool,
) -> None:
    monkeypatch.setattr(security_hub, "BATCH_FINDINGS", 2)
    reported.push("web/shop:1", "web/shop:2", "web/till:1", "team/old:1")
    reported.day()
    reported.sign("web/shop:1")
    reported.registry.delete_tag("web", "shop", "2")
    reported.registry.delete_repository("team", "old")
    reported.push("web/new:1", "web/new:2")
    crash_injection(*cut)
    with pytest.raises(Cut):
        reported.day(request_id="same", CONCURRENCY="1")
    if is_retried:
        reported.day(reported.audited.event(), request_id="same")
    else:
        with closing(boto3.resource("dynamodb").meta.client) as client:
            lease = {"pk": reported.audited.name, "sk": "#lease"}
            client.delete_item(TableName=reported.audited.stack.outputs["RunsTableName"], Key=lease)
        reported.day()
    assert reported.open_summary() == {
        "web/shop:1": SIGNED,
        "web/shop:2": GONE,
        "team/old:1": GONE,
        "web/till:1": UP_TO_DATE,
        "web/new:1": UP_TO_DATE,
        "web/new:2": UP_TO_DATE,
    }
    assert reported.owed() == set()
    reported.hub.sent()
    reported.day()
    assert reported.hub.sent() == []


@IN_ONE
def test_a_finding_that_moves_while_it_is_sent_stays_owed(reported: NotificationItem) -> None:
    def move() -> None:
        with closing(boto3.resource("dynamodb").meta.client) as client:
            (item,) = [one for image, one in reported.audited.findings().items() if image == "web/shop:1"]
            item |= {"last_changed": "2027-01-01T00:00:00.000Z", "reason": "moved meanwhile"}
            client.put_item(TableName=reported.audited.stack.outputs["FindingsTableName"], Item=item)

    reported.push("web/shop:1", "web/shop:2")
    reported.hub.meanwhile = move
    reported.day()
    assert reported.owed() == {"web/shop:1"}
    reported.hub.meanwhile = lambda: None
    reported.hub.sent()
    reported.day()
    assert reported.hub.sent() == [{"web/shop:1"}]


@IN_ONE
def test_what_is_owed_is_read_as_it_is_and_not_as_it_was(
    reported: NotificationItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded table has no replica that lags behind, so what is asked of AWS is looked at."""
    call = vars(BaseClient)["_make_api_call"]
    asked: list[dict[str, Any]] = []

    def noting(self: Any, operation: str, arguments: Any) -> Any:
        if operation == "Scan":
            asked.append(arguments)
        return call(self, operation, arguments)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", noting)
        reported.day()
    (scan,) = (one for one in asked if "security_hub_at" in one["FilterExpression"])
    assert scan["ConsistentRead"] is True
    assert "IndexName" not in scan


@IN_ONE
def test_a_table_that_refuses_the_mark_fails_the_run_as_any_trouble_of_aws_does(
    reported: NotificationItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = vars(BaseClient)["_make_api_call"]

    def refusing(self: Any, operation: str, arguments: Any) -> Any:
        if operation == "UpdateItem" and "security_hub_at" in arguments["UpdateExpression"]:
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": "tried"}}, operation)
        return call(self, operation, arguments)

    reported.push("web/shop:1")
    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", refusing)
        with pytest.raises(ClientError, match="InternalServerError"):
            reported.day(request_id="same")
    run = reported.day(reported.audited.event(), request_id="same")
    assert run["security_hub"]["up_to_date"]
