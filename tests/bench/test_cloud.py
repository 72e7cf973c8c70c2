"""The benchmarks' stand-in for AWS, held against moto: what it answers, and what an audit asks of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.client
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tools.bench.cloud import Cloud
from tools.bench.dynamodb import PAGE_BYTES
from tools.bench.http_server import Request
from tools.bench.stage import Server

RESOURCES = templates.load(PROJECT / "template.yaml")["Resources"]
_MOMENT = re.compile(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")
_CHANCE = re.compile(r"\b[0-9a-f]{32}\b")
_SECONDS = re.compile(r"\b1[789]\d{8}\b")

Call = tuple[str, dict[str, Any]]


class DuplicateKey:
    """The stand-in, in the place of moto's tables, bucket, secret and topic."""

    def __init__(self, stack: Stack) -> None:
        described = {stack.physical_id(name): RESOURCES[name]["Properties"] for name in ("FindingsTable", "RunsTable")}
        self.server = Server("tools.bench.cloud", described)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.dynamodb = boto3.resource("dynamodb", endpoint_url=self.url).meta.client

    def tell(self, path: str, body: str = "") -> Any:
        return self.server.tell(path, body)


@pytest.fixture
def duplicate(stack: Stack) -> Iterator[DuplicateKey]:
    duplicate = DuplicateKey(stack)
    yield duplicate
    duplicate.dynamodb.close()
    duplicate.server.stop()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every call of the function's: what is called, and with what, without the moments and what is left to chance."""
    made: list[tuple[str, str]] = []
    call: Callable[..., Any] = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined] # left out of the stubs

    def note(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        if service not in {"lambda", "sqs"}:
            made.append((f"{service}:{operation}", _form_of(operation, parameters)))
        return call(client, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", note)
    return made


def _form_of(operation: str, parameters: dict[str, Any]) -> str:
    if operation == "BatchWriteItem":
        # Which findings meet in a batch hangs on which repository is read first.
        return ",".join(sorted(parameters["RequestItems"]))
    kept = {name: value for name, value in parameters.items() if name not in {"Body", "Message", "Item"}}
    return without_chance(kept)


def without_chance(value: Any) -> str:
    """Write a value down without moments, ids made by chance, and how long something took."""
    text = json.dumps(value, sort_keys=True, default=str)
    text = re.sub(r'"duration_seconds": "?[0-9.]+"?', '"duration_seconds": 0', text)
    return _CHANCE.sub("<id>", _SECONDS.sub("<moment>", _MOMENT.sub("<moment>", text)))


def fill(registry: InMemoryRegistry) -> None:
    for number in range(12):
        for tag in range(30):
            registry.push(f"team-{number % 3}", f"service-{number}", f"1.{tag}")
            if (number + tag) % 5:
                registry.sign(f"team-{number % 3}", f"service-{number}", f"1.{tag}")


def change(registry: InMemoryRegistry) -> None:
    registry.sign("team-0", "service-0", "1.0")
    registry.push("team-0", "service-0", "1.1")  # over a signed one
    registry.push("team-1", "service-1", "9.9")
    registry.delete_repository("team-2", "service-2")


def test_an_audit_finds_asks_and_reports_the_same_of_the_stand_in_as_of_moto(
    *,
    aws: EmbeddedAws,
    registry: InMemoryRegistry,
    dtr: DtrServer,
    audited: Audited,
    duplicate: DuplicateKey,
    calls: list[tuple[str, str]],
) -> None:
    secret = {"username": dtr.admin.name, "password": dtr.admin.password, "ca_bundle": dtr.ca_bundle}
    duplicate.tell("secret", json.dumps(secret))
    fill(registry)
    asked: list[list[tuple[str, str]]] = []
    records: list[list[str]] = []
    for number in range(3):
        if number == 2:
            change(registry)
        of_both = []
        for endpoint in (aws.moto.endpoint, duplicate.url):
            audited.runs = number + 1
            calls.clear()
            run = audited.audit(audited.event(), request_id=f"r-{number}", AWS_ENDPOINT_URL=endpoint)
            of_both.append(without_chance(run))
            asked.append(list(calls))
        records.append(of_both)
    for of_both in records:
        assert of_both[0] == of_both[1]
    for with_moto, with_duplicate_key in zip(asked[::2], asked[1::2], strict=True):
        assert with_moto
        assert Counter(with_duplicate_key) == Counter(with_moto)
    findings = {key: without_chance(item) for key, item in audited.findings().items()}
    table = audited.stack.physical_id("FindingsTable")
    kept = {
        f"{item['namespace']}/{item['repository']}:{item['tag']}": without_chance(item)
        for item in duplicate.dynamodb.scan(TableName=table)["Items"]
    }
    assert len(findings) > 60
    assert kept == findings
    reported = [without_chance(message.body) for message in audited.messages()]
    published = [json.loads(json.loads(form["Message"])["default"]) for form in duplicate.tell("published")]
    assert [without_chance(body) for body in published] == reported


class Pair:
    """The same table in both."""

    def __init__(self, stack: Stack, duplicate: DuplicateKey, registry: str) -> None:
        self.table = stack.physical_id("FindingsTable")
        self.registry = registry
        config = Config(retries={"total_max_attempts": 1, "mode": "standard"})
        self.clients = [
            boto3.resource("dynamodb", config=config).meta.client,
            boto3.resource("dynamodb", endpoint_url=duplicate.url, config=config).meta.client,
        ]

    def ask(self, operation: str, **parameters: Any) -> tuple[Any, Any]:
        """Make a call to both; gives what each says, an error by its code."""
        answers: list[Any] = []
        for client in self.clients:
            try:
                answer = getattr(client, operation)(**parameters)
                for name in ("ResponseMetadata", "ConsumedCapacity"):  # moto tells the second unasked
                    answer.pop(name, None)
                answers.append({name: value for name, value in answer.items() if value or name in {"Items", "Count"}})
            except ClientError as error:
                answers.append(error.response["Error"]["Code"])
        return answers[0], answers[1]

    def agree(self, operation: str, **parameters: Any) -> Any:
        """Make a call to both, which must say the same; gives that."""
        with_moto, with_duplicate_key = self.ask(operation, **parameters)
        assert with_duplicate_key == with_moto
        return with_duplicate_key

    def key(self, number: int) -> dict[str, str]:
        return {"pk": f"{self.registry}#a/b", "sk": f"1.{number:02d}"}

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture
def pair(stack: Stack, duplicate: DuplicateKey, request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(stack, duplicate, request.node.name)
    for number in range(30):
        item = {**pair.key(number), "n": number, "first_seen": f"2026-{number:02d}"}
        if number % 2:
            item["open_shard"] = f"{pair.registry}#{number % 4}"
        pair.agree("put_item", TableName=pair.table, Item=item)
    yield pair
    pair.close()


def _values(pair: Pair, **more: Any) -> dict[str, Any]:
    return {":pk": f"{pair.registry}#a/b", **{f":{name}": value for name, value in more.items()}}


@pytest.mark.parametrize(
    ("condition", "more"),
    [
        ("pk = :pk", {}),
        ("pk = :pk AND sk < :low", {"low": "1.07"}),
        ("pk = :pk AND sk BETWEEN :low AND :high", {"low": "1.07", "high": "1.11"}),
        ("pk = :pk AND begins_with(sk, :low)", {"low": "1.1"}),
        ("pk = :pk AND sk >= :low", {"low": "1.28"}),
    ],
)
@pytest.mark.parametrize("forward", [True, False])
def test_queries_answer_as_moto_does(pair: Pair, condition: str, more: dict[str, Any], forward: bool) -> None:
    found = pair.agree(
        "query",
        TableName=pair.table,
        ConsistentRead=True,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=_values(pair, **more),
        ScanIndexForward=forward,
    )
    assert found["Items"]


@pytest.mark.parametrize("forward", [True, False])
def test_pages_lead_through_an_index_once(pair: Pair, forward: bool) -> None:
    for client in pair.clients:
        pages = client.get_paginator("query").paginate(
            TableName=pair.table,
            IndexName="open",
            KeyConditionExpression="open_shard = :shard",
            ExpressionAttributeValues={":shard": f"{pair.registry}#1"},
            ScanIndexForward=forward,
            PaginationConfig={"PageSize": 3},
        )
        numbers = [int(str(item["n"])) for page in pages for item in page["Items"]]
        assert numbers == sorted(range(1, 30, 4), reverse=not forward)


@pytest.mark.parametrize(
    ("expression", "names", "more"),
    [
        ("attribute_not_exists(open_shard)", {}, {}),
        ("attribute_type(open_shard, :type)", {}, {"type": "S"}),
        ("#n > :low OR (n = :two AND NOT attribute_exists(open_shard))", {"#n": "n"}, {"low": 26, "two": 2}),
        ("n IN (:two, :three) AND first_seen <> :day", {}, {"two": 2, "three": 3, "day": "2026-03"}),
        ("contains(first_seen, :part) AND n >= :low", {}, {"part": "-1", "low": 12}),
    ],
)
def test_filters_answer_as_moto_does(pair: Pair, expression: str, names: dict[str, str], more: dict[str, Any]) -> None:
    parameters: dict[str, Any] = {"ExpressionAttributeNames": names} if names else {}
    found = pair.agree(
        "query",
        TableName=pair.table,
        KeyConditionExpression="pk = :pk",
        FilterExpression=expression,
        ExpressionAttributeValues=_values(pair, **more),
        **parameters,
    )
    assert 0 < found["Count"] < 30


def test_writes_and_their_conditions_answer_as_moto_does(pair: Pair) -> None:
    table, key = pair.table, pair.key(3)
    held = {"ConditionExpression": "n = :n", "ExpressionAttributeValues": {":n": 3}}
    broken = {"ConditionExpression": "n = :n", "ExpressionAttributeValues": {":n": 4}}
    changed = {**key, "n": 3, "first_seen": "2027", "open_shard": f"{pair.registry}#new"}
    assert pair.agree("put_item", TableName=table, Item=changed, **broken) == "ConditionalCheckFailedException"
    before = pair.agree("put_item", TableName=table, Item=changed, ReturnValues="ALL_OLD", **held)
    assert before["Attributes"]["first_seen"] == "2026-03"
    update = "SET told = if_not_exists(told, :one), n = n + :one REMOVE open_shard"
    pair.agree("update_item", TableName=table, Key=key, UpdateExpression=update, ExpressionAttributeValues={":one": 1})
    pair.agree(
        "update_item",
        TableName=table,
        Key=pair.key(77),
        UpdateExpression="SET a = :a ADD n :one",
        ExpressionAttributeValues={":a": ["x", {"y": None}], ":one": 1},
    )
    assert pair.agree("get_item", TableName=table, Key=key, ConsistentRead=True)["Item"]["n"] == 4
    assert pair.agree("get_item", TableName=table, Key=pair.key(77))["Item"]["a"] == ["x", {"y": None}]
    assert pair.agree("get_item", TableName=table, Key=pair.key(99)) == {}
    refused = pair.agree("delete_item", TableName=table, Key=key, **held)
    assert refused == "ConditionalCheckFailedException"
    pair.agree("delete_item", TableName=table, Key=key)
    shard = {"IndexName": "open", "KeyConditionExpression": "open_shard = :shard"}
    values = {":shard": f"{pair.registry}#new"}
    assert pair.agree("query", TableName=table, ExpressionAttributeValues=values, **shard)["Count"] == 0


def test_transactions_are_made_whole_or_not_at_all_as_in_moto(pair: Pair) -> None:
    def put(number: int, condition: str) -> dict[str, Any]:
        item = {**pair.key(number), "n": 100 + number}
        return {"Put": {"TableName": pair.table, "Item": item, "ConditionExpression": condition}}

    free, taken = "attribute_not_exists(pk)", "attribute_exists(pk)"
    assert (
        pair.agree("transact_write_items", TransactItems=[put(50, free), put(5, free)])
        == "TransactionCanceledException"
    )
    assert pair.agree("get_item", TableName=pair.table, Key=pair.key(50)) == {}
    pair.agree("transact_write_items", TransactItems=[put(50, free), put(5, taken)])
    assert pair.agree("get_item", TableName=pair.table, Key=pair.key(5))["Item"]["n"] == 105


def test_batches_answer_as_moto_does(pair: Pair) -> None:
    items = [{"PutRequest": {"Item": {**pair.key(number), "n": number}}} for number in range(40, 64)]
    pair.agree("batch_write_item", RequestItems={pair.table: [*items, {"DeleteRequest": {"Key": pair.key(1)}}]})
    kept = pair.agree(
        "query",
        TableName=pair.table,
        KeyConditionExpression="pk = :pk AND sk < :low",
        ExpressionAttributeValues=_values(pair, low="1.03"),
    )
    assert [item["sk"] for item in kept["Items"]] == ["1.00", "1.02"]
    assert pair.agree("get_item", TableName=pair.table, Key=pair.key(40))["Item"]["n"] == 40


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        (
            "batch_write_item",
            {"RequestItems": {"T": [{"DeleteRequest": {"Key": {"pk": "a", "sk": str(n)}}} for n in range(26)]}},
        ),
        ("batch_write_item", {"RequestItems": {"T": [{"DeleteRequest": {"Key": {"pk": "a", "sk": "b"}}}] * 2}}),
        ("put_item", {"TableName": "T", "Item": {"pk": "a"}}),
        ("put_item", {"TableName": "T", "Item": {"pk": "a", "sk": ""}}),
        ("put_item", {"TableName": "T", "Item": {"pk": "a", "sk": "b", "large": "x" * 400 * 1024}}),
        (
            "query",
            {
                "TableName": "T",
                "IndexName": "open",
                "ConsistentRead": True,
                "KeyConditionExpression": "open_shard = :s",
                "ExpressionAttributeValues": {":s": "a"},
            },
        ),
        ("query", {"TableName": "T", "KeyConditionExpression": "sk = :s", "ExpressionAttributeValues": {":s": "a"}}),
    ],
)
def test_what_dynamodb_refuses_is_refused(pair: Pair, operation: str, parameters: dict[str, Any]) -> None:
    named = json.loads(json.dumps(parameters).replace('"T"', f'"{pair.table}"'))
    _, with_duplicate_key = pair.ask(operation, **named)
    assert with_duplicate_key == "ValidationException"


def _cloud_asked(operation: str, parameters: dict[str, Any]) -> tuple[int, str]:
    cloud = Cloud({"T": RESOURCES["FindingsTable"]["Properties"]})
    head = f"POST / HTTP/1.1\r\nX-Amz-Target: DynamoDB_20120810.{operation}".encode()
    answer = cloud.answer(Request("POST", "/", head, json.dumps(parameters).encode()))
    return answer.status, answer.body.decode()


@pytest.mark.parametrize(
    ("operation", "parameters", "named"),
    [
        ("Query", {"TableName": "T", "KeyConditionExpression": "pk = :p", "QueryFilter": {}}, "QueryFilter"),
        ("ExecuteStatement", {"Statement": "SELECT"}, "ExecuteStatement"),
        ("Scan", {"TableName": "T", "AttributesToGet": ["pk"]}, "AttributesToGet"),
    ],
)
def test_what_is_not_known_is_refused_by_name(operation: str, parameters: dict[str, Any], named: str) -> None:
    parameters = {**parameters, "ExpressionAttributeValues": {":p": {"S": "a"}}} if operation == "Query" else parameters
    status, said = _cloud_asked(operation, parameters)
    assert status == 400
    assert named in said


def test_a_page_of_an_answer_ends_at_a_megabyte(duplicate: DuplicateKey, stack: Stack) -> None:
    table = stack.physical_id("FindingsTable")
    for number in range(40):
        item = {"pk": "a", "sk": f"{number:02d}", "open_shard": "s", "first_seen": "same", "text": "x" * 99_000}
        duplicate.dynamodb.put_item(TableName=table, Item=item)
    of_table: dict[str, Any] = {"KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": "a"}}
    of_index: dict[str, Any] = {
        "KeyConditionExpression": "open_shard = :p",
        "ExpressionAttributeValues": {":p": "s"},
        "IndexName": "open",
    }
    for parameters in (of_table, of_index):
        pages: list[Any] = list(duplicate.dynamodb.get_paginator("query").paginate(TableName=table, **parameters))
        assert [item["sk"] for page in pages for item in page["Items"]] == [f"{number:02d}" for number in range(40)]
        assert [page["Count"] for page in pages] == [11, 11, 11, 7]
        assert 10 * 99_000 < PAGE_BYTES < 11 * 99_000
    assert len(list(duplicate.dynamodb.get_paginator("scan").paginate(TableName=table))) == 4


def test_objects_are_listed_page_by_page(duplicate: DuplicateKey) -> None:
    s3 = boto3.client("s3", endpoint_url=duplicate.url)
    for number in range(5):
        s3.put_object(Bucket="b", Key=f"findings/a & <{number}>", Body=b"x" * number)
    s3.put_object(Bucket="b", Key="runs/1", Body=b"")
    s3.delete_object(Bucket="b", Key="findings/a & <3>")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="b", Prefix="findings/", PaginationConfig={"PageSize": 3}
    )
    listed = {entry["Key"]: entry["Size"] for page in pages for entry in page["Contents"]}
    assert listed == {f"findings/a & <{number}>": number for number in (0, 1, 2, 4)}
    assert s3.get_object(Bucket="b", Key="findings/a & <4>")["Body"].read() == b"xxxx"
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="b", Key="findings/a & <3>")
    s3.close()
