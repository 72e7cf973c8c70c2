"""Items are read past botocore's parser, and are the same as with it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dtr_audit.aws import findings
from dtr_audit.aws.clients import AwsClients
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.core.finding_changes import Moment, compare
from dtr_audit.core.model import JudgedTag, Repository, Tag, Verdict
from dtr_audit_simulator.aws.stack import Stack

OURS = {
    "text": '\N{SNOWMAN} \\ "',
    "empty": "",
    "whole": Decimal(1_764_000_000),
    "part": Decimal("99.95"),
    "yes": True,
    "no": False,
    "none": None,
    "map": {"a": {"b": ["c", Decimal(1), None, {"S": "s", "N": Decimal(2)}]}},
    "list": [],
}
OTHERS = {"set": {"a", "b"}, "numbers": {Decimal(1), Decimal(2)}, "bytes": b"\x00\xff"}


@pytest.fixture
def table(stack: Stack) -> Iterator[str]:
    name = stack.outputs["FindingsTableName"]
    yield name
    client = boto3.resource("dynamodb").meta.client
    for number in range(5):
        client.delete_item(TableName=name, Key={"pk": "items#web/shop", "sk": f"{number}"})


def pages(client: Any, table: str, operation: str) -> list[dict[str, Any]]:
    asked = {"TableName": table, "PaginationConfig": {"PageSize": 2}}
    condition = {"ExpressionAttributeValues": {":pk": "items#web/shop"}}
    if operation == "query":
        condition["KeyConditionExpression"] = "pk = :pk"  # type: ignore[assignment]
    else:
        condition["FilterExpression"] = "pk = :pk"  # type: ignore[assignment]
    found = list(client.get_paginator(operation).paginate(**asked, **condition))
    return [{name: value for name, value in page.items() if name != "ResponseMetadata"} for page in found]


@pytest.mark.parametrize("operation", ["query", "scan"])
@pytest.mark.parametrize("attributes", [OURS, OTHERS, {**OURS, **OTHERS}], ids=["ours", "others", "both"])
def test_items_are_what_boto3_makes_of_them(table: str, operation: str, attributes: dict[str, Any]) -> None:
    ours, boto = AwsClients(connections=2).dynamodb, boto3.resource("dynamodb").meta.client
    for number in range(5):
        boto.put_item(TableName=table, Item={"pk": "items#web/shop", "sk": str(number), **attributes})
    read = pages(ours, table, operation)
    assert read == pages(boto, table, operation)
    assert len([item for page in read for item in page["Items"]]) == 5
    assert len(read) >= 3
    ours.close()


def test_a_table_without_what_was_asked_for_has_no_items(table: str) -> None:
    client = AwsClients(connections=2).dynamodb
    (page,) = pages(client, table, "query")
    assert page["Items"] == []
    client.close()


def test_an_error_stays_an_error() -> None:
    client = AwsClients(connections=2).dynamodb
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.scan(TableName="no-such-table")
    client.close()


@pytest.mark.parametrize("whole", [findings.PAGE_ITEMS, 2])
def test_every_finding_is_read_however_many_a_page_holds(
    table: str, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    monkeypatch.setattr(findings, "PAGE_ITEMS", whole)
    client = AwsClients(connections=2).dynamodb
    kept = FindingsTable(client, table, "items", resolved_days=30)
    repository = Repository("web", "shop")
    judged = [JudgedTag(Tag(str(n), "", "", "", "", None, ()), Verdict.UNSIGNED, "not signed", None) for n in range(5)]
    moment = Moment("20261122T030000Z", datetime(2026, 11, 22, 3, tzinfo=UTC))
    writes = compare("items", repository, judged, {}, is_complete=True, moment=moment).writes
    kept.write(writes)
    expected = {one.tag: one for one in writes}
    assert len(expected) == 5
    assert kept.of_repository(repository) == expected
    assert {one.tag: one for one in kept.open()} == expected
    assert {one.tag: one for one in kept.pending_notifications()} == expected
    assert sorted(item["sk"] for _, item in kept.everything(with_trust=False)) == sorted(expected)
    client.close()
