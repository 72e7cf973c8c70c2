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
from tests.harness.fake_clock import HeldTime
from tests.harness.security_hub import Document, StrictSecurityHub

COMMERCIAL, GOVCLOUD = "us-east-1", "us-gov-west-1"
ACCOUNT = "123456789012"  # the embedded one
PARTITIONS = {COMMERCIAL: "aws", GOVCLOUD: "aws-us-gov"}


@pytest.fixture(scope="module")
def stacks(aws: EmbeddedAws) -> dict[str, Stack]:
    """The template, deployed to tell Security Hub, in both partitions."""
    parameters = {"DtrUrl": "https://dtr.example.com", "RegistryName": "unnamed", "SecurityHub": "true"}
    return {
        region: aws.deploy(PROJECT / "template.yaml", parameters, region=region, stack_name=f"told-{region}")
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


class Told:
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

    def night(self, event: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        time.sleep(0.002)  # times have milliseconds
        return self.audited.audit(event, **options)

    def findings(self) -> dict[str, Document]:
        return self.hub.findings(self.region, self.audited.name)

    def standing(self) -> dict[str, tuple[str, str]]:
        return {
            image: (document["Compliance"]["Status"], document["RecordState"])
            for image, document in self.findings().items()
        }

    def owed(self) -> set[str]:
        """The findings that are not marked as sent."""
        return {image for image, item in self.audited.findings().items() if "security_hub_at" not in item}


@pytest.fixture
def told(
    stacks: dict[str, Stack],
    dtr: DtrServer,
    registry: InMemoryRegistry,
    hub: StrictSecurityHub,
    region: str,
) -> Iterator[Told]:
    audited = Audited(stacks[region], dtr)
    audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
    yield Told(audited, hub, region, registry)
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


def test_a_finding_lives_in_security_hub_as_it_does_here(told: Told) -> None:
    told.push("web/shop:1", "web/shop:2", "web/till:1", "team/old:1", "web/shop:3")
    told.sign("web/shop:3")
    first = told.night()
    assert told.standing() == dict.fromkeys(["web/shop:1", "web/shop:2", "web/till:1", "team/old:1"], UP_TO_DATE)
    assert first["security_hub"] == {"accepted": 4, "refused": 0, "up_to_date": True}
    ids = {image: document["Id"] for image, document in told.findings().items()}
    told.hub.sent()

    told.sign("web/shop:1")
    told.registry.delete_tag("web", "shop", "2")
    told.registry.delete_repository("team", "old")
    told.push("web/shop:3")
    second = told.night()
    assert told.standing() == {
        "web/shop:1": SIGNED,
        "web/shop:2": GONE,
        "team/old:1": GONE,
        "web/till:1": UP_TO_DATE,
        "web/shop:3": UP_TO_DATE,
    }
    assert told.hub.sent() == [{"web/shop:1", "web/shop:2", "team/old:1", "web/shop:3"}], "only what moved"
    assert second["security_hub"]["accepted"] == 4

    told.push("web/shop:1", "web/shop:2")
    told.night()
    assert told.standing()["web/shop:1"] == told.standing()["web/shop:2"] == UP_TO_DATE
    assert told.hub.sent() == [{"web/shop:1", "web/shop:2"}]
    # Pushed anew, with another digest, and one of them gone and back: the same findings.
    assert {image: document["Id"] for image, document in told.findings().items() if image in ids} == ids

    quiet = told.night()
    assert told.hub.sent() == []
    assert quiet["security_hub"] == {"accepted": 0, "refused": 0, "up_to_date": True}


def test_a_finding_is_imported_as_the_accounts_own_in_its_partition(told: Told) -> None:
    told.push("web/shop:1")
    told.night()
    (finding,) = told.findings().values()
    partition = PARTITIONS[told.region]
    assert finding["ProductArn"] == f"arn:{partition}:securityhub:{told.region}:{ACCOUNT}:product/{ACCOUNT}/default"
    assert finding["AwsAccountId"] == ACCOUNT


@IN_ONE
def test_a_push_that_is_no_news_reaches_security_hub_with_its_digest(told: Told) -> None:
    told.push("web/shop:1")
    told.night()
    told.push("web/shop:1")
    told.audited.messages()
    told.night()
    assert told.audited.messages() == []
    (item,) = told.audited.findings().values()
    (finding,) = told.findings().values()
    assert finding["Resources"][0]["Details"]["Container"]["ImageId"] == item["digest"]


@IN_ONE
def test_what_could_not_be_read_moves_nothing(told: Told, dtr: DtrServer) -> None:
    told.push("web/shop:1", "web/till:1")
    told.night()
    told.hub.sent()
    told.sign("web/shop:1")
    told.sign("web/till:1")
    dtr.faults = Faults(strikes=(Status(500, tags_of("web/shop")),))
    run = told.night()
    assert not run["complete"]
    assert told.standing() == {"web/shop:1": UP_TO_DATE, "web/till:1": SIGNED}


@IN_ONE
def test_nothing_is_sent_unless_it_is_asked_for(told: Told) -> None:
    told.push("web/shop:1")
    run = told.night(SECURITY_HUB_PRODUCT="")
    assert run["security_hub"] is None
    assert told.hub.calls == []
    assert told.night()["security_hub"]["accepted"] == 1, "what is open when it is switched on"


@IN_ONE
def test_a_run_that_tells_nobody_tells_security_hub_neither(told: Told) -> None:
    told.push("web/shop:1")
    run = told.night({"alerts": False})
    assert run["security_hub"] is None
    assert told.hub.calls == []
    told.night()
    assert told.hub.sent() == [{"web/shop:1"}]


@IN_ONE
def test_a_run_of_some_namespaces_tells_what_it_has_moved(told: Told) -> None:
    told.push("web/shop:1", "team/api:1")
    told.night({"namespaces": ["web"]})
    assert told.standing() == {"web/shop:1": UP_TO_DATE}


# --- Limits --------------------------------------------------------------------------------------------------------


@IN_ONE
def test_findings_go_out_in_batches_of_a_hundred(told: Told) -> None:
    told.push(*(f"web/shop:{number}" for number in range(250)))
    told.night()
    assert [len(call) for call in told.hub.sent()] == [100, 100, 50]
    assert len(told.findings()) == 250


@IN_ONE
def test_a_batch_is_kept_under_the_size_of_a_call(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 12_000
    monkeypatch.setattr(security_hub, "BATCH_BYTES", most)
    told.push(*(f"web/shop:{number}" for number in range(20)))
    told.night()
    calls = told.hub.calls
    assert len(calls) > 3
    assert all(len(json.dumps(call)) <= most for call in calls)
    assert len(told.findings()) == 20


@IN_ONE
def test_what_is_open_is_sent_again_long_before_security_hub_deletes_it(told: Told) -> None:
    told.push("web/shop:1", "web/shop:2", "web/shop:3")
    told.night()
    told.sign("web/shop:2")
    told.night()
    told.hub.sent()
    backdate(told, days=security_hub.REFRESH_DAYS + 1)
    told.push("web/shop:4")
    told.night()
    assert told.hub.sent() == [{"web/shop:4", "web/shop:1", "web/shop:3"}]
    updated = {image: document["UpdatedAt"] for image, document in told.findings().items()}
    assert updated["web/shop:1"] == updated["web/shop:4"] > updated["web/shop:2"]
    told.night()
    assert told.hub.sent() == []


@IN_ONE
def test_what_has_moved_goes_before_what_is_merely_old(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.push(*(f"web/shop:{number}" for number in range(6)))
    told.night()
    backdate(told, days=security_hub.REFRESH_DAYS + 1)
    told.push("aaa/first:1", "zzz/last:1")
    monkeypatch.setattr(security_hub, "BATCH_FINDINGS", 2)
    told.hub.sent()
    told.hub.takes_calls = 1
    told.night()
    assert told.hub.sent() == [{"aaa/first:1", "zzz/last:1"}]


def backdate(told: Told, *, days: int) -> None:
    """Let the time pass since the findings were sent, here and there."""
    earlier = iso(datetime.now(UTC) - timedelta(days=days))
    with closing(boto3.resource("dynamodb").meta.client) as client:
        for item in told.audited.findings().values():
            client.update_item(
                TableName=told.audited.stack.outputs["FindingsTableName"],
                Key={"pk": item["pk"], "sk": item["sk"]},
                UpdateExpression="SET security_hub_at = :at",
                ExpressionAttributeValues={":at": earlier},
            )


@IN_ONE
def test_a_resolved_finding_is_kept_as_long_as_security_hub_may_not_have_heard_of_it(told: Told) -> None:
    told.push("web/shop:1")
    told.night()
    told.sign("web/shop:1")
    told.night(RESOLVED_DAYS="1")
    (item,) = told.audited.findings().values()
    kept = datetime.fromtimestamp(int(item["expires_at"]), UTC) - datetime.fromisoformat(item["last_changed"])
    # Security Hub deletes 90 days after the last update that it has had, and that was before.
    assert kept >= timedelta(days=90) - timedelta(seconds=1)


# --- It does not take them -----------------------------------------------------------------------------------------


def only_warning(run: dict[str, Any]) -> str:
    (warning,) = [text for text in run["warnings"] if "Security Hub" in text]
    assert isinstance(warning, str)
    return warning


def evidence_and_alerts_went_out(told: Told, run: dict[str, Any], *opened: str) -> bool:
    (message,) = told.audited.messages()
    record = json.loads(told.audited.read(f"runs/registry={told.audited.name}/dt=2026-11-01/{run['run_id']}.json"))
    return (
        {f"{item['repository']}:{item['tag']}" for item in message.body["opened"]} == set(opened)
        and message.body["warnings"] == run["warnings"]
        and record == run
        and {"report", "ckl", "cklb", "manifest"} <= set(run["evidence"])
        and run["complete"]
        and run["status"] == "OPEN"
    )


@IN_ONE
def test_a_security_hub_that_is_off_is_a_warning_and_the_next_run_sends_everything(told: Told) -> None:
    told.hub.switch_off(told.region)
    told.push("web/shop:1", "web/shop:2")
    run = told.night()
    assert run["security_hub"] == {"accepted": 0, "refused": 0, "up_to_date": False}
    assert "not switched on in this account and region" in only_warning(run)
    assert evidence_and_alerts_went_out(told, run, "web/shop:1", "web/shop:2")
    told.hub.switch_on(told.region)
    told.sign("web/shop:2")
    run = told.night()
    assert told.standing() == {"web/shop:1": UP_TO_DATE, "web/shop:2": SIGNED}
    assert run["security_hub"] == {"accepted": 2, "refused": 0, "up_to_date": True}
    assert run["warnings"] == []


@IN_ONE
def test_a_finding_that_is_refused_is_named_and_sent_again_and_keeps_no_other_out(told: Told) -> None:
    told.push("web/shop:1", "web/shop:2", "web/shop:3")
    told.hub.refused.add("web/shop:2")
    run = told.night()
    assert run["security_hub"] == {"accepted": 2, "refused": 1, "up_to_date": False}
    assert "it refused 1 finding, the first of them web/shop:2 (InvalidInput: refused by the test)" in only_warning(run)
    assert evidence_and_alerts_went_out(told, run, "web/shop:1", "web/shop:2", "web/shop:3")
    assert told.owed() == {"web/shop:2"}
    told.hub.refused.clear()
    told.hub.sent()
    run = told.night()
    assert told.hub.sent() == [{"web/shop:2"}]
    assert run["security_hub"]["up_to_date"]


@IN_ONE
def test_a_finding_that_spoils_a_whole_call_keeps_no_other_out(told: Told) -> None:
    images = [f"web/shop:{number}" for number in range(10)]
    told.push(*images)
    told.hub.poison |= {"web/shop:3", "web/shop:7"}
    run = told.night()
    assert run["security_hub"] == {"accepted": 8, "refused": 2, "up_to_date": False}
    assert told.owed() == {"web/shop:3", "web/shop:7"}
    assert "refused 2 findings" in only_warning(run)
    told.hub.poison.clear()
    assert told.night()["security_hub"]["accepted"] == 2


@IN_ONE
def test_a_failure_that_is_counted_and_not_named_counts_for_the_whole_call(told: Told) -> None:
    told.push("web/shop:1", "web/shop:2")
    told.hub.miscounts = True
    run = told.night()
    assert run["security_hub"] == {"accepted": 0, "refused": 2, "up_to_date": False}
    assert told.owed() == {"web/shop:1", "web/shop:2"}
    told.hub.miscounts = False
    assert told.night()["security_hub"] == {"accepted": 2, "refused": 0, "up_to_date": True}


@IN_ONE
def test_where_everything_is_refused_it_is_not_all_tried(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security_hub, "REFUSED_MOST", 4)
    monkeypatch.setattr(security_hub, "BATCH_FINDINGS", 2)
    images = {f"web/shop:{number}" for number in range(9)}
    told.push(*images)
    told.hub.refused |= images
    run = told.night()
    assert len(told.hub.sent()) == 2
    assert run["security_hub"] == {"accepted": 0, "refused": 4, "up_to_date": False}


@IN_ONE
def test_a_throttled_run_goes_on_with_the_next(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security_hub, "BATCH_FINDINGS", 2)
    images = {f"web/shop:{number}" for number in range(7)}
    told.push(*images)
    told.hub.takes_calls = 2
    run = told.night()
    assert run["security_hub"] == {"accepted": 4, "refused": 0, "up_to_date": False}
    assert "LimitExceededException" in only_warning(run)
    assert evidence_and_alerts_went_out(told, run, *images)
    told.hub.takes_calls = -1
    sent_before = set().union(*told.hub.sent())
    told.night()
    assert set().union(*told.hub.sent()) == images - sent_before


@IN_ONE
def test_a_security_hub_that_never_answers_costs_neither_evidence_nor_alerts(
    told: Told, held_time: HeldTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.push("web/shop:1")
    told.hub.silent.set()
    with monkeypatch.context() as short:
        short.setattr("dtr_audit.pipeline.report.SECURITY_HUB_SHARE", 0.1 / held_time.SECONDS)
        run = told.night(seconds=held_time.SECONDS)
    assert run["security_hub"] == {"accepted": 0, "refused": 0, "up_to_date": False}
    assert "not everything could be sent in time" in only_warning(run)
    assert evidence_and_alerts_went_out(told, run, "web/shop:1")
    told.hub.silent.clear()
    told.hub.released.set()
    for thread in threading.enumerate():
        if thread.name == "answer":
            thread.join()
    assert told.night()["security_hub"]["up_to_date"]


@IN_ONE
def test_no_way_to_security_hub_is_a_warning(told: Told) -> None:
    told.push("web/shop:1")
    run = told.night(AWS_ENDPOINT_URL_SECURITYHUB="http://127.0.0.1:9")
    assert run["security_hub"]["up_to_date"] is False
    assert only_warning(run)
    assert evidence_and_alerts_went_out(told, run, "web/shop:1")


# --- Cut off -------------------------------------------------------------------------------------------------------


class Cut(BaseException):
    """The process ends here: nothing in it may catch this."""


Scissors = Callable[[str, int], None]


@pytest.fixture
def scissors(monkeypatch: pytest.MonkeyPatch) -> Scissors:
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
    told: Told, monkeypatch: pytest.MonkeyPatch, scissors: Scissors, cut: tuple[str, int], is_retried: bool
) -> None:
    monkeypatch.setattr(security_hub, "BATCH_FINDINGS", 2)
    told.push("web/shop:1", "web/shop:2", "web/till:1", "team/old:1")
    told.night()
    told.sign("web/shop:1")
    told.registry.delete_tag("web", "shop", "2")
    told.registry.delete_repository("team", "old")
    told.push("web/new:1", "web/new:2")
    scissors(*cut)
    with pytest.raises(Cut):
        told.night(request_id="same", CONCURRENCY="1")
    if is_retried:
        told.night(told.audited.event(), request_id="same")
    else:
        with closing(boto3.resource("dynamodb").meta.client) as client:
            lease = {"pk": told.audited.name, "sk": "#lease"}
            client.delete_item(TableName=told.audited.stack.outputs["RunsTableName"], Key=lease)
        told.night()
    assert told.standing() == {
        "web/shop:1": SIGNED,
        "web/shop:2": GONE,
        "team/old:1": GONE,
        "web/till:1": UP_TO_DATE,
        "web/new:1": UP_TO_DATE,
        "web/new:2": UP_TO_DATE,
    }
    assert told.owed() == set()
    told.hub.sent()
    told.night()
    assert told.hub.sent() == []


@IN_ONE
def test_a_finding_that_moves_while_it_is_sent_stays_owed(told: Told) -> None:
    def move() -> None:
        with closing(boto3.resource("dynamodb").meta.client) as client:
            (item,) = [one for image, one in told.audited.findings().items() if image == "web/shop:1"]
            item |= {"last_changed": "2027-01-01T00:00:00.000Z", "reason": "moved meanwhile"}
            client.put_item(TableName=told.audited.stack.outputs["FindingsTableName"], Item=item)

    told.push("web/shop:1", "web/shop:2")
    told.hub.meanwhile = move
    told.night()
    assert told.owed() == {"web/shop:1"}
    told.hub.meanwhile = lambda: None
    told.hub.sent()
    told.night()
    assert told.hub.sent() == [{"web/shop:1"}]


@IN_ONE
def test_what_is_owed_is_read_as_it_is_and_not_as_it_was(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded table has no replica that lags behind, so what is asked of AWS is looked at."""
    call = vars(BaseClient)["_make_api_call"]
    asked: list[dict[str, Any]] = []

    def noting(self: Any, operation: str, arguments: Any) -> Any:
        if operation == "Scan":
            asked.append(arguments)
        return call(self, operation, arguments)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", noting)
        told.night()
    (scan,) = (one for one in asked if "security_hub_at" in one["FilterExpression"])
    assert scan["ConsistentRead"] is True
    assert "IndexName" not in scan


@IN_ONE
def test_a_table_that_refuses_the_mark_fails_the_run_as_any_trouble_of_aws_does(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = vars(BaseClient)["_make_api_call"]

    def refusing(self: Any, operation: str, arguments: Any) -> Any:
        if operation == "UpdateItem" and "security_hub_at" in arguments["UpdateExpression"]:
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": "tried"}}, operation)
        return call(self, operation, arguments)

    told.push("web/shop:1")
    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", refusing)
        with pytest.raises(ClientError, match="InternalServerError"):
            told.night(request_id="same")
    run = told.night(told.audited.event(), request_id="same")
    assert run["security_hub"]["up_to_date"]
