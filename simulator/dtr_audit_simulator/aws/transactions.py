"""DynamoDB's transactions of updates, for which moto copies the whole table once for each item.

Importing this module is all it takes. A hundred items of a table with some thousands would take minutes; here only the items
are copied that the transaction is about, and put back if one of them is refused.
"""

from __future__ import annotations

import copy
from typing import Any

from moto.dynamodb.exceptions import ConditionalCheckFailed, TransactionCanceledException
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType

ITEMS = 100  # DynamoDB's limit of one transaction

_of_moto = DynamoDBBackend.transact_write_items


def _transact(backend: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
    """Do what moto does, where each item is updated and no item twice; leave everything else to moto."""
    updates = [one["Update"] for one in transact_items if set(one) == {"Update"}]
    locations = [_place(backend, update) for update in updates]
    if len(updates) != len(transact_items) or len(updates) > ITEMS or len(set(locations)) != len(locations):
        _of_moto(backend, transact_items)
        return
    before = [copy.deepcopy(backend.tables[table].get_item(partition, sort)) for table, partition, sort in locations]
    reasons: list[tuple[str | None, str | None, None]] = []
    for update in updates:
        try:
            backend.update_item(
                update["TableName"],
                update["Key"],
                update_expression=update["UpdateExpression"],
                condition_expression=update.get("ConditionExpression"),
                expression_attribute_names=update.get("ExpressionAttributeNames", {}),
                expression_attribute_values=update.get("ExpressionAttributeValues", {}),
            )
        except ConditionalCheckFailed as error:
            reasons.append(("ConditionalCheckFailed", str(error.message), None))
        else:
            reasons.append((None, None, None))
    if any(code for code, _, _ in reasons):
        for (table, partition, sort), item in zip(locations, before, strict=True):
            items = backend.tables[table].items[partition]
            if item is None:
                items.pop(sort, None)
            else:
                items[sort] = item
        raise TransactionCanceledException(reasons)


def _place(backend: DynamoDBBackend, update: dict[str, Any]) -> tuple[str, DynamoType, DynamoType]:
    table = backend.get_table(update["TableName"])
    return table.name, DynamoType(update["Key"][table.hash_key_attr]), DynamoType(update["Key"][table.range_key_attr])


setattr(DynamoDBBackend, "transact_write_items", _transact)  # noqa: B010 - the type of a method may not be assigned to
