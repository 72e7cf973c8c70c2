"""What has been told is marked a hundred at a time, and never more of it than was told."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dtr_audit.aws.findings import TRANSACTION_ITEMS, FindingsTable
from dtr_audit.core.finding import ChangeKind, Finding, State, Transition
from dtr_audit.core.model import Repository, Verdict
from dtr_audit_simulator.aws.stack import Stack

FIRST, LATER = "2026-11-22T03:00:00.000Z", "2026-11-23T03:00:00.000Z"


class Counted:
    """A client that notes which calls are made."""

    def __init__(self) -> None:
        self._client: Any = boto3.resource("dynamodb").meta.client
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._client, name)


@pytest.fixture
def client() -> Counted:
    return Counted()


@pytest.fixture
def table(stack: Stack, client: Counted) -> Iterator[FindingsTable]:
    name = stack.outputs["FindingsTableName"]
    yield FindingsTable(client, name, "marks", resolved_days=30)  # type: ignore[arg-type]
    for _, item in FindingsTable(client, name, "marks", resolved_days=1).everything(with_trust=True):  # type: ignore[arg-type]
        client.delete_item(TableName=name, Key={"pk": item["pk"], "sk": item["sk"]})


def findings(count: int) -> list[Finding]:
    return [
        Finding(
            registry="marks",
            repository=Repository("web", f"r{number % 7}"),
            tag=f"t{number}",
            state=State.OPEN,
            verdict=Verdict.UNSIGNED,
            reason="why",
            digest="",
            author="",
            pushed_at="",
            first_seen=FIRST,
            last_changed=FIRST,
            transition=ChangeKind.OPENED,
            changed_in="1",
            pending_notifications=(Transition(ChangeKind.OPENED, "1", FIRST),),
            is_unheard=True,
        )
        for number in range(count)
    ]


def with_pending_notifications(table: FindingsTable) -> set[str]:
    return {finding.tag for finding in table.pending_notifications()}


def test_what_was_reported_is_marked_a_hundred_at_a_time(table: FindingsTable, client: Counted) -> None:
    reported = findings(2 * TRANSACTION_ITEMS + 50)
    table.write(reported)
    client.calls.clear()
    table.mark_announced(iter(reported), threads=2)
    assert client.calls == ["transact_write_items"] * 3
    assert with_pending_notifications(table) == set()
    assert not any(one.is_unheard for one in table.of_repository(reported[0].repository).values())


def test_what_has_moved_since_keeps_its_changes_and_loses_no_other(table: FindingsTable) -> None:
    reported = findings(TRANSACTION_ITEMS + 20)
    table.write(reported)
    moved = [
        replace(reported[number], last_changed=LATER, digest="sha256:ab") for number in (3, 50, TRANSACTION_ITEMS + 1)
    ]
    table.write(moved)
    table.mark_announced(reported, threads=2)
    assert with_pending_notifications(table) == {one.tag for one in moved}
    known = {
        tag: one for number in range(7) for tag, one in table.of_repository(Repository("web", f"r{number}")).items()
    }
    assert {tag for tag, one in known.items() if one.is_unheard} == {one.tag for one in moved}


def test_one_alone_needs_no_transaction(table: FindingsTable, client: Counted) -> None:
    reported = findings(1)
    table.write(reported)
    client.calls.clear()
    table.mark_announced(reported, threads=2)
    assert client.calls == ["update_item"]
    assert with_pending_notifications(table) == set()


def test_a_transaction_of_which_one_part_is_refused_changes_nothing(table: FindingsTable, stack: Stack) -> None:
    """The embedded DynamoDB does as AWS does."""
    table.write(findings(2))
    client: Any = boto3.resource("dynamodb").meta.client
    updates = [
        {
            "Update": {
                "TableName": stack.outputs["FindingsTableName"],
                "Key": {"pk": f"marks#web/r{number}", "sk": tag},
                "UpdateExpression": "SET reason = :reason",
                "ConditionExpression": "last_changed = :seen",
                "ExpressionAttributeValues": {":reason": "other", ":seen": FIRST},
            }
        }
        for number, tag in ((0, "t0"), (1, "no such tag"), (1, "t1"))
    ]
    with pytest.raises(ClientError) as refused:
        client.transact_write_items(TransactItems=updates)
    assert refused.value.response["Error"]["Code"] == "TransactionCanceledException"
    reasons = refused.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["None", "ConditionalCheckFailed", "None"]
    assert {
        one.reason for number in range(2) for one in table.of_repository(Repository("web", f"r{number}")).values()
    } == {"why"}
    client.transact_write_items(TransactItems=[updates[0], updates[2]])
    assert {
        one.reason for number in range(2) for one in table.of_repository(Repository("web", f"r{number}")).values()
    } == {"other"}
