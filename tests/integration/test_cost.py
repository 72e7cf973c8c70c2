"""The quantities that tools/planner/cost.py reckons with, counted in real runs."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import boto3
import botocore.client
import pytest

from dtr_audit.aws.findings import SHARDS
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.evidence import ckl
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.evidence.html_report import report
from tests.harness.audit_harness import Audited, needed_requests
from tests.harness.security_hub import StrictSecurityHub
from tools.planner import cost
from tools.planner.cost import Calls, Workload, count_calls

pytestmark = pytest.mark.usefixtures("all_shards")

TEMPLATE = templates.load(PROJECT / "template.yaml")
# Some of a run's own calls depend on whether there is a message, or an earlier run.
SPARE_CALLS = 3
RUNS_TABLE_WRITES = ("PutItem", "UpdateItem", "DeleteItem")

AwsCalls = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def _nothing_known(audited: Audited) -> None:
    """A scan reads what other tests have left in the table as well."""
    table = boto3.resource("dynamodb").Table(audited.stack.outputs["FindingsTableName"])
    with table.batch_writer() as batch:
        for page in table.meta.client.get_paginator("scan").paginate(TableName=table.name):
            for item in page["Items"]:
                batch.delete_item({"pk": item["pk"], "sk": item["sk"]})
    table.meta.client.close()


@pytest.fixture
def aws_calls(monkeypatch: pytest.MonkeyPatch) -> AwsCalls:
    """Every call of AWS that is made from now on: service, operation and parameters; not those of whoever invokes."""
    made: AwsCalls = []
    call: Callable[..., Any] = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined] # left out of the stubs

    def note(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        if service != "lambda":
            made.append((service, operation, parameters))
        return call(client, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", note)
    return made


def fill(registry: InMemoryRegistry, repositories: int, tags_each: int, *, findings: int) -> Workload:
    """Push as many tags to each repository, from many accounts and on many days, and sign all but so many of the first."""
    choice = random.Random(7)
    accounts = [str(choice.randbytes(16).hex()) for _ in range(20)]
    for number in range(repositories):
        namespace, name = f"team-{number % 7}", f"service-{number:04d}"
        for tag in range(tags_each):
            registry.push(
                namespace,
                name,
                f"1.{tag // 10}.{tag % 10}",
                author=choice.choice(accounts),
                at=f"2026-{choice.randint(1, 9):02d}-{choice.randint(1, 28):02d}T{choice.randint(0, 23):02d}:"
                f"{choice.randint(0, 59):02d}:{choice.randint(0, 59):02d}.{choice.randint(0, 999):03d}Z",
            )
            if tag or number >= findings:
                registry.sign(namespace, name, f"1.{tag // 10}.{tag % 10}")
    return Workload(repositories * tags_each, repositories, findings, changes=0)


def count(made: AwsCalls, audited: Audited, requests: int) -> Calls:
    """Sum up what a run has called."""
    runs_table = audited.stack.outputs["RunsTableName"]
    counted: Counter[str] = Counter()
    for service, operation, parameters in made:
        of_runs = parameters.get("TableName") == runs_table
        if operation == "GetItem" or (operation == "Query" and of_runs):
            counted["record_reads"] += 1
        elif operation in RUNS_TABLE_WRITES and of_runs:
            counted["record_writes"] += 1
        elif operation == "Query":
            counted["index_queries" if "IndexName" in parameters else "queries of a repository"] += 1
        else:
            counted[f"{service}:{operation}"] += 1
    calls = Calls(
        registry_requests=requests,
        record_reads=counted.pop("record_reads"),
        index_queries=counted.pop("index_queries"),
        batches=counted.pop("dynamodb:BatchWriteItem", 0),
        marks=counted.pop("dynamodb:UpdateItem", 0) + counted.pop("dynamodb:TransactWriteItems", 0),
        record_writes=counted.pop("record_writes"),
        objects=counted.pop("s3:PutObject"),
        lists=counted.pop("s3:ListObjectsV2"),
        object_reads=counted.pop("s3:GetObject"),
        secret_reads=counted.pop("secretsmanager:GetSecretValue"),
        signatures=counted.pop("kms:GetPublicKey", 0) + counted.pop("kms:Sign", 0),
        table_scans=counted.pop("dynamodb:Scan", 0),
        imports=counted.pop("securityhub:BatchImportFindings", 0),
    )
    counted.pop("sns:Publish", 0)
    assert not counted, "a call that tools/planner/cost.py does not know"
    return calls


def assert_modelled(made: Calls, expected: Calls) -> None:
    """Hold what a run has called against the model, which may count a few calls too many."""
    for field in fields(Calls):
        modelled, counted = getattr(expected, field.name), getattr(made, field.name)
        spare = SPARE_CALLS if field.name in {"record_reads", "record_writes"} else 0
        assert counted <= modelled <= counted + spare, field.name


@pytest.fixture
def _exceptions(audited: Audited) -> Iterator[None]:
    """A document that excepts nothing."""
    bucket = audited.stack.outputs["BucketName"]
    audited.stack.s3.put_object(Bucket=bucket, Key=EXCEPTIONS_KEY, Body=b'{"exceptions": []}')
    yield
    audited.stack.s3.delete_object(Bucket=bucket, Key=EXCEPTIONS_KEY)


def bytes_of(value: Any) -> int:
    """Give the size of a value as DynamoDB counts it."""
    if isinstance(value, dict):
        return 3 + sum(1 + len(name.encode()) + bytes_of(one) for name, one in value.items())
    if isinstance(value, list | tuple):
        return 3 + sum(1 + bytes_of(one) for one in value)
    return len(str(value).encode()) if not isinstance(value, bool) and value is not None else 1


def size_of(item: dict[str, Any]) -> int:
    return sum(len(name.encode()) + bytes_of(value) for name, value in item.items())


@pytest.mark.usefixtures("_exceptions")
@pytest.mark.parametrize(
    "shape",  # repositories, tags of each, findings
    [(7, 3, 0), (12, 10, 5), (3, 150, 3), (110, 1, 30)],
    ids=["none open", "a page each", "two pages each", "two pages of repositories"],
)
def test_a_run_calls_what_the_model_counts(
    audited: Audited,
    registry: InMemoryRegistry,
    dtr: DtrServer,
    aws_calls: AwsCalls,
    shape: tuple[int, int, int],
) -> None:
    repositories, tags_each, findings = shape
    workload = fill(registry, repositories, tags_each, findings=findings)
    for moves in (findings, 0):
        dtr.forget_requests()
        aws_calls.clear()
        run = audited.audit()
        made = count(aws_calls, audited, len(needed_requests(dtr)))
        assert run["findings"]["opened"] == moves
        assert run["findings"]["open"] == findings
        assert_modelled(made, count_calls(workload, moves))


@pytest.mark.usefixtures("_exceptions")
def test_a_run_reads_as_many_pages_of_findings_as_the_model_counts(
    audited: Audited, registry: InMemoryRegistry, aws_calls: AwsCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("dtr_audit.aws.findings", "tools.planner.cost"):
        monkeypatch.setattr(f"{module}.PAGE_ITEMS", 5)
    workload = fill(registry, 68, 1, findings=68)
    audited.audit()
    aws_calls.clear()
    audited.audit()
    made, expected = count(aws_calls, audited, 0), count_calls(workload, 0)
    assert made.table_scans == expected.table_scans == 14
    # How they fall to the shards is chance.
    assert SHARDS * 2 < made.index_queries <= 1.5 * expected.index_queries
    assert expected.index_queries <= 1.5 * made.index_queries


@pytest.mark.usefixtures("_exceptions")
def test_a_run_that_answers_a_baseline_calls_what_the_model_counts(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, aws_calls: AwsCalls
) -> None:
    document = ckl.write(report())
    bucket, key = audited.stack.outputs["BucketName"], f"baseline/{audited.name}.ckl"
    audited.stack.s3.put_object(Bucket=bucket, Key=key, Body=document)
    workload = replace(fill(registry, 12, 10, findings=5), baseline=len(document))
    for moves in (5, 0):
        dtr.forget_requests()
        aws_calls.clear()
        run = audited.audit(BASELINE_KEY=key)
        assert_modelled(count(aws_calls, audited, len(needed_requests(dtr))), count_calls(workload, moves))
        merged = len(audited.read(run["evidence"]["merged"]))
        assert len(document) < merged <= len(document) + cost.ANSWER_BYTES


@pytest.mark.usefixtures("_exceptions")
def test_a_signed_run_calls_what_the_model_counts_besides(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, aws_calls: AwsCalls
) -> None:
    workload = replace(fill(registry, 1, 2, findings=1), signed=True)
    kms: Any = boto3.client("kms")
    key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    kms.close()
    dtr.forget_requests()
    aws_calls.clear()
    audited.audit(SIGNING_KEY_ARN=key)
    made, expected = count(aws_calls, audited, len(needed_requests(dtr))), count_calls(workload, 1)
    assert_modelled(made, expected)
    assert expected.of_aws - count_calls(replace(workload, signed=False), 1).of_aws == 6


@pytest.mark.usefixtures("_exceptions")
def test_a_run_that_reports_security_hub_calls_what_the_model_counts(
    audited: Audited,
    registry: InMemoryRegistry,
    dtr: DtrServer,
    aws_calls: AwsCalls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with StrictSecurityHub(monkeypatch) as hub:
        hub.switch_on("us-east-1")
        workload = replace(fill(registry, 130, 1, findings=120), security_hub=True)
        for moves in (120, 0):
            dtr.forget_requests()
            aws_calls.clear()
            run = audited.audit(
                SECURITY_HUB_PRODUCT="arn:aws:securityhub:us-east-1:123456789012:product/123456789012/default"
            )
            made = count(aws_calls, audited, len(needed_requests(dtr)))
            assert run["security_hub"] == {"accepted": moves, "refused": 0, "up_to_date": True}
            assert_modelled(made, count_calls(workload, moves))


def test_a_run_leaves_as_many_bytes_as_the_model_counts(
    audited: Audited,
    registry: InMemoryRegistry,
    aws_calls: AwsCalls,
    capfd: pytest.CaptureFixture[str],
) -> None:
    workload = fill(registry, 60, 30, findings=40)
    capfd.readouterr()
    run = audited.audit()
    logged = capfd.readouterr().out
    parts = [audited.read(key) for key in audited.keys("findings")]
    each = sum(map(len, parts)) / workload.tags
    assert 0.7 * cost.ROW_BYTES <= each <= cost.ROW_BYTES
    assert 500 <= sum(len(gzip.decompress(part)) for part in parts) / workload.tags <= 700
    for key in audited.keys("runs"):
        assert len(audited.read(key)) <= cost.RECORD_BYTES
    reported = sum(len(audited.read(key)) for key in audited.keys("evidence"))
    assert 0.7 * (modelled := cost.EVIDENCE_BYTES + 40 * cost.EVIDENCE_BYTES_OF_A_FINDING) <= reported <= 1.5 * modelled
    (record,) = [
        item for item in audited.items("RunsTableName") if (item["pk"], item["sk"]) == (audited.name, run["run_id"])
    ]
    assert size_of(record) <= cost.RECORD_BYTES
    # A write of a finding counts as one for the table and one for each index only while it is under a kilobyte.
    written = [
        request["PutRequest"]["Item"]
        for _, operation, parameters in aws_calls
        if operation == "BatchWriteItem"
        for request in parameters["RequestItems"][audited.stack.outputs["FindingsTableName"]]
    ]
    assert len(written) == 40
    assert max(map(size_of, written)) <= cost.KB
    finished = max(map(size_of, audited.findings().values()))
    assert 0.7 * cost.ITEM_BYTES <= finished <= cost.ITEM_BYTES
    # What Lambda itself writes of an invocation (INIT_START, START, END, REPORT) is less than 600 bytes.
    assert 0.5 * cost.LOG_BYTES <= len(logged.encode()) + 600 <= cost.LOG_BYTES


def test_the_model_counts_the_metrics_that_a_run_sends(
    audited: Audited, registry: InMemoryRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(registry, 1, 2, findings=1)
    capfd.readouterr()
    audited.audit()
    sent = [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"_aws"' in line]
    metrics = [
        metric["Name"]
        for document in sent
        for directive in document["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]
        for _ in directive["Dimensions"]
    ]
    assert len(metrics) == len(set(metrics)) == cost.METRICS


def test_the_model_counts_the_alarms_and_endpoints_of_the_template() -> None:
    resources: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
    watched = [
        metric
        for resource in resources.values()
        if resource["Type"] == "AWS::CloudWatch::Alarm" and resource.get("Condition") != "EngineIsStepFunctions"
        for metric in resource["Properties"].get("Metrics", [{"MetricStat": {}}])
        if "MetricStat" in metric
    ]
    assert len(watched) == cost.ALARM_METRICS
    types = Counter(resource["Type"] for resource in resources.values())
    assert types["AWS::CloudWatch::Dashboard"] == types["AWS::KMS::Key"] == types["AWS::SecretsManager::Secret"] == 1
    interfaces = Counter(
        resource["Condition"]
        for resource in resources.values()
        if resource["Type"] == "AWS::EC2::VPCEndpoint" and resource["Properties"]["VpcEndpointType"] == "Interface"
    )
    assert interfaces == {
        "EndpointsAreOurs": cost.INTERFACE_ENDPOINTS,
        "SigningNeedsItsEndpoint": cost.SIGNING_ENDPOINTS,
        "SecurityHubEndpointIsOurs": cost.SECURITY_HUB_ENDPOINTS,
    }


def test_the_model_takes_the_templates_defaults() -> None:
    defaults = {name: parameter.get("Default") for name, parameter in TEMPLATE["Parameters"].items()}
    workload = Workload.of(1, 1)
    assert workload.concurrency == defaults["Concurrency"]
    assert workload.page_size == defaults["PageSize"]
    assert workload.memory == defaults["MemoryMegabytes"]
    assert defaults["TimeoutSeconds"] == cost.TIMEOUT_SECONDS
