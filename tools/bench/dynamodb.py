"""DynamoDB as the audit uses it, in memory and fast: items, sparse indexes, pages of a megabyte, conditions.

It keeps every limit of DynamoDB that a caller must mind, and refuses by name what it does not know.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from tools.bench.expressions import Item, Terms, UnknownExpressionError, is_met, update

PAGE_BYTES = 1_048_576
ITEM_BYTES = 400 * 1024
BATCH_WRITES = 25
TRANSACTION_ITEMS = 100
# Of every request, and what is left out of an answer: nothing here hangs on them.
_IGNORED = {"ReturnConsumedCapacity", "ReturnItemCollectionMetrics", "ClientRequestToken"}


class RefusedError(Exception):
    """What DynamoDB answers with status 400."""

    def __init__(self, kind: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


@dataclass(slots=True)
class _Stored:
    item: Item
    text: bytes  # JSON
    size: int


Key = tuple[str, str]


@dataclass(slots=True)
class _Collection:
    """The items of one partition, in the order of a sort key."""

    items: dict[Key, _Stored] = field(default_factory=dict)
    _ordered: list[tuple[str, Key]] | None = None

    def in_order(self, sort: str) -> list[tuple[str, Key]]:
        """Give sort keys with the keys of the items, in order."""
        if self._ordered is None:
            self._ordered = sorted((stored.item[sort]["S"], key) for key, stored in self.items.items())
        return self._ordered

    def put(self, key: Key, stored: _Stored) -> None:
        before = self.items.get(key)
        if before is None or before.item != stored.item:
            self._ordered = None
        self.items[key] = stored

    def remove(self, key: Key) -> None:
        if self.items.pop(key, None) is not None:
            self._ordered = None


@dataclass(frozen=True, slots=True)
class Schema:
    """The keys of a table or an index."""

    hash: str
    range: str

    @classmethod
    def of_template(cls, schema: list[dict[str, str]]) -> Schema:
        """Read a KeySchema; both keys must be there, and texts."""
        by_kind = {key["KeyType"]: key["AttributeName"] for key in schema}
        return cls(by_kind["HASH"], by_kind["RANGE"])


class Table:
    """One table with its indexes, and the counts of what was written where."""

    def __init__(self, schema: Schema, indexes: Mapping[str, Schema]) -> None:
        self.schema = schema
        self.indexes = dict(indexes)
        self.written = 0  # items put, updated or deleted
        self.unprocessed = 0
        self.index_writes: dict[str, Counter[str]] = {name: Counter() for name in indexes}
        self._collections: dict[str, dict[str, _Collection]] = {name: {} for name in ("", *indexes)}
        self._in_order: list[Key] | None = None

    def __len__(self) -> int:
        return sum(len(collection.items) for collection in self._collections[""].values())

    def forget_counts(self) -> None:
        """Begin to count anew."""
        self.written = self.unprocessed = 0
        self.index_writes = {name: Counter() for name in self.indexes}

    def key_of(self, item: Item) -> Key:
        """Give an item's primary key."""
        try:
            key = item[self.schema.hash]["S"], item[self.schema.range]["S"]
        except KeyError:
            raise _invalid("One of the required keys was not given a value") from None
        if not all(key):
            raise _invalid("One or more parameter values are not valid: a key must not be empty")
        return key

    def find(self, key: Key) -> _Stored | None:
        """Give an item, None if it is not there."""
        collection = self._collections[""].get(key[0])
        return collection.items.get(key) if collection else None

    def put(self, item: Item) -> None:
        """Write a whole item."""
        key = self.key_of(item)
        size = _size(item)
        if size > ITEM_BYTES:
            raise _invalid("Item size has exceeded the maximum allowed size")
        before = self.find(key)
        stored = _Stored(item, json.dumps(item, separators=(",", ":")).encode(), size)
        self.written += 1
        if before is None:
            self._in_order = None
        self._collections[""].setdefault(key[0], _Collection()).put(key, stored)
        self._index(key, before, stored)

    def delete(self, key: Key) -> None:
        """Remove an item."""
        before = self.find(key)
        self.written += 1
        if before is not None:
            self._in_order = None
            collection = self._collections[""][key[0]]
            collection.remove(key)
            if not collection.items:
                del self._collections[""][key[0]]
            self._index(key, before, None)

    def _index(self, key: Key, before: _Stored | None, after: _Stored | None) -> None:
        for name, schema in self.indexes.items():
            was = _partition(before, schema)
            now = _partition(after, schema)
            if was and was != now:
                self._collections[name][was].remove(key)
            if now and after is not None:
                self._collections[name].setdefault(now, _Collection()).put(key, after)
            for partition in {was, now} - {""}:
                if before is None or after is None or before.item != after.item:
                    self.index_writes[name][partition] += 1

    def collection(self, index: str, partition: str) -> _Collection:
        """Give one partition of the table ('') or of an index."""
        return self._collections[index].get(partition) or _Collection()

    def everything(self, after: Key | None) -> Iterator[tuple[Key, _Stored]]:
        """Yield all items behind a key, in the order of their keys."""
        if self._in_order is None:
            self._in_order = sorted(key for collection in self._collections[""].values() for key in collection.items)
        for key in self._in_order[bisect_right(self._in_order, after) if after else 0 :]:
            yield key, self._collections[""][key[0]].items[key]


class Tables:
    """The operations, by name: a request's JSON to an answer's, as bytes."""

    def __init__(self, refuse_every: int = 0) -> None:
        self.tables: dict[str, Table] = {}
        self.refuse_every = refuse_every  # every how many-th item of a batch is left unprocessed; 0: none
        self._offered = 0
        self._operations: dict[str, Callable[[dict[str, Any]], bytes]] = {
            "BatchWriteItem": self._batch_write,
            "DeleteItem": self._delete,
            "GetItem": self._get,
            "PutItem": self._put,
            "Query": self._query,
            "Scan": self._scan,
            "TransactWriteItems": self._transact_write,
            "UpdateItem": self._update,
        }

    def call(self, operation: str, asked: dict[str, Any]) -> bytes:
        """Make one call; raises RefusedError."""
        if operation not in self._operations:
            raise RefusedError("UnknownOperationException", f"{operation} is not known here")
        try:
            return self._operations[operation](_Asked(asked))
        except UnknownExpressionError as error:
            raise _invalid(str(error)) from error

    def _table(self, name: str) -> Table:
        if name not in self.tables:
            raise RefusedError("ResourceNotFoundException", f"there is no table {name}")
        return self.tables[name]

    def _get(self, asked: dict[str, Any]) -> bytes:
        table = self._table(asked.pop("TableName"))
        asked.pop("ConsistentRead", None)
        terms, projection = _terms(asked), asked.pop("ProjectionExpression", "")
        stored = table.find(table.key_of(asked.pop("Key")))
        _all_read(asked)
        return b'{"Item":%b}' % _project(stored, projection, terms) if stored else b"{}"

    def _put(self, asked: dict[str, Any]) -> bytes:
        table = self._table(asked.pop("TableName"))
        item: Item = asked.pop("Item")
        before = table.find(table.key_of(item))
        returned = _returned(asked, before, ("NONE", "ALL_OLD"))
        _demand(asked, before)
        _all_read(asked)
        table.put(item)
        return returned

    def _delete(self, asked: dict[str, Any]) -> bytes:
        table = self._table(asked.pop("TableName"))
        key = table.key_of(asked.pop("Key"))
        before = table.find(key)
        returned = _returned(asked, before, ("NONE", "ALL_OLD"))
        _demand(asked, before)
        _all_read(asked)
        table.delete(key)
        return returned

    def _update(self, asked: dict[str, Any]) -> bytes:
        table = self._table(asked.pop("TableName"))
        key_item: Item = asked.pop("Key")
        before = table.find(table.key_of(key_item))
        returned = _returned(asked, before, ("NONE", "ALL_OLD"))
        expression = asked.pop("UpdateExpression")
        terms = _demand(asked, before)
        _all_read(asked)
        table.put(update(expression, terms, before.item if before else key_item))
        return returned

    def _batch_write(self, asked: dict[str, Any]) -> bytes:
        requests: dict[str, list[Any]] = asked.pop("RequestItems")
        _all_read(asked)
        if not 0 < sum(map(len, requests.values())) <= BATCH_WRITES:
            raise _invalid("Too many items requested for the BatchWriteItem call")
        planned: list[tuple[Table, str, Any, Key]] = []
        for name, wanted in requests.items():
            table = self._table(name)
            for request in wanted:
                [(kind, content)] = request.items()
                if kind not in {"PutRequest", "DeleteRequest"}:
                    raise _invalid(f"{kind} is no part of a batch")
                planned.append((table, name, request, table.key_of(content.get("Item") or content["Key"])))
        if len({(name, key) for _, name, _, key in planned}) != len(planned):
            raise _invalid("Provided list of item keys contains duplicates")
        unprocessed: dict[str, list[Any]] = {}
        for table, name, request, key in planned:
            self._offered += 1
            if self.refuse_every and self._offered % self.refuse_every == 0:
                unprocessed.setdefault(name, []).append(request)
                table.unprocessed += 1
            elif "PutRequest" in request:
                table.put(request["PutRequest"]["Item"])
            else:
                table.delete(key)
        return json.dumps({"UnprocessedItems": unprocessed}).encode()

    def _transact_write(self, asked: dict[str, Any]) -> bytes:
        actions: list[dict[str, dict[str, Any]]] = asked.pop("TransactItems")
        _all_read(asked)
        if not 0 < len(actions) <= TRANSACTION_ITEMS:
            raise _invalid("a transaction has 1 to 100 actions")
        plan: list[tuple[Table, Key, Item | None]] = []
        reasons: list[dict[str, str]] = []
        for action in actions:
            [(kind, content)] = action.items()
            content = dict(content)
            table = self._table(content.pop("TableName"))
            target: Item = content.pop("Item" if kind == "Put" else "Key")
            key = table.key_of(target)
            before = table.find(key)
            expression = content.pop("UpdateExpression", "")
            terms = _terms(content)
            condition = content.pop("ConditionExpression", "")
            _all_read(content)
            held = not condition or is_met(condition, terms, before.item if before else {})
            reasons.append({"Code": "None" if held else "ConditionalCheckFailed"})
            if kind == "Update":
                target = update(expression, terms, before.item if before else target)
            if kind != "ConditionCheck":
                plan.append((table, key, None if kind == "Delete" else target))
        if len({(id(table), key) for table, key, _ in plan}) != len(plan):
            raise _invalid("Transaction request cannot include multiple operations on one item")
        if any(reason["Code"] != "None" for reason in reasons):
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            raise RefusedError("TransactionCanceledException", message, CancellationReasons=reasons)
        for table, key, item in plan:
            if item is None:
                table.delete(key)
            else:
                table.put(item)
        return b"{}"

    def _query(self, asked: dict[str, Any]) -> bytes:
        table, index, schema = self._source(asked)
        terms = _terms(asked)
        condition = asked.pop("KeyConditionExpression")
        partition = _hash_value(condition, schema, terms)
        forward = asked.pop("ScanIndexForward", True)
        collection = table.collection(index, partition)
        ordered = collection.in_order(schema.range)
        start = asked.pop("ExclusiveStartKey", None)
        if start is not None:
            place = (start[schema.range]["S"], table.key_of(start))
            at = bisect_right(ordered, place)
            ordered = ordered[at:] if forward else ordered[: at - 1]
        if not forward:
            ordered = ordered[::-1]
        is_plain = "AND" not in condition.upper().split()
        matching = (
            (key, collection.items[key])
            for _, key in ordered
            if is_plain or is_met(condition, terms, collection.items[key].item)
        )
        return _page(asked, matching, table, schema if index else None, terms)

    def _scan(self, asked: dict[str, Any]) -> bytes:
        table, index, _ = self._source(asked)
        if index:
            raise _invalid("scans of an index are not known here")
        terms = _terms(asked)
        segments, segment = asked.pop("TotalSegments", 1), asked.pop("Segment", 0)
        start = asked.pop("ExclusiveStartKey", None)
        found = (
            (key, stored)
            for key, stored in table.everything(table.key_of(start) if start else None)
            if segments == 1 or crc32(key[0].encode()) % segments == segment
        )
        return _page(asked, found, table, None, terms)

    def _source(self, asked: dict[str, Any]) -> tuple[Table, str, Schema]:
        table = self._table(asked.pop("TableName"))
        index = asked.pop("IndexName", "")
        if index and index not in table.indexes:
            raise _invalid(f"The table does not have the specified index: {index}")
        if asked.pop("ConsistentRead", False) and index:
            raise _invalid("Consistent reads are not supported on global secondary indexes")
        return table, index, table.indexes[index] if index else table.schema


class _Asked(dict[str, Any]):
    """The parameters of a call, of which each is taken out when it is read."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__((name, value) for name, value in given.items() if name not in _IGNORED)


def _all_read(asked: dict[str, Any]) -> None:
    """See that no parameter was passed over."""
    if asked:
        raise _invalid(f"not known here: {', '.join(sorted(asked))}")


def _invalid(message: str) -> RefusedError:
    return RefusedError("ValidationException", message)


def _terms(asked: dict[str, Any]) -> Terms:
    return Terms(asked.pop("ExpressionAttributeNames", {}), asked.pop("ExpressionAttributeValues", {}))


def _demand(asked: dict[str, Any], before: _Stored | None) -> Terms:
    """See that the condition of a write holds, if it has one; gives its terms."""
    terms = _terms(asked)
    condition = asked.pop("ConditionExpression", "")
    if condition and not is_met(condition, terms, before.item if before else {}):
        raise RefusedError("ConditionalCheckFailedException", "The conditional request failed")
    return terms


def _returned(asked: dict[str, Any], before: _Stored | None, known: tuple[str, ...]) -> bytes:
    wanted = asked.pop("ReturnValues", "NONE")
    if wanted not in known:
        raise _invalid(f"ReturnValues {wanted} is not known here")
    return b'{"Attributes":%b}' % before.text if before and wanted == "ALL_OLD" else b"{}"


def _hash_value(condition: str, schema: Schema, terms: Terms) -> str:
    for name, value in re.findall(r"(#?\w+)\s*=\s*(:\w+)", condition):
        if terms.names.get(name, name) == schema.hash:
            return str(terms.values[value]["S"])
    raise _invalid("Query condition missed key schema element")


def _page(
    asked: dict[str, Any],
    matching: Iterator[tuple[Key, _Stored]],
    table: Table,
    index: Schema | None,
    terms: Terms,
) -> bytes:
    """Cut one page: at most a megabyte, or Limit items, before the filter."""
    limit = asked.pop("Limit", 0)
    condition, projection = asked.pop("FilterExpression", ""), asked.pop("ProjectionExpression", "")
    select = asked.pop("Select", "ALL_ATTRIBUTES" if not projection else "SPECIFIC_ATTRIBUTES")
    if select not in {"ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT"}:
        raise _invalid(f"Select {select} is not known here")
    _all_read(asked)
    texts: list[bytes] = []
    scanned = count = size = 0
    last: _Stored | None = None
    following = b""
    for _, stored in matching:
        if last is not None and (size >= PAGE_BYTES or (limit and scanned >= limit)):
            names = dict.fromkeys(
                (table.schema.hash, table.schema.range, *((index.hash, index.range) if index else ()))
            )
            key = {name: last.item[name] for name in names}
            following = b',"LastEvaluatedKey":' + json.dumps(key).encode()
            break
        last = stored
        scanned += 1
        size += stored.size
        if not condition or is_met(condition, terms, stored.item):
            count += 1
            if select != "COUNT":
                texts.append(_project(stored, projection, terms))
    items = b"" if select == "COUNT" else b'"Items":[' + b",".join(texts) + b"],"
    return b'{%b"Count":%d,"ScannedCount":%d%b}' % (items, count, scanned, following)


def _project(stored: _Stored, projection: str, terms: Terms) -> bytes:
    if not projection:
        return stored.text
    names = [terms.names.get(name.strip(), name.strip()) for name in projection.split(",")]
    return json.dumps({name: stored.item[name] for name in names if name in stored.item}).encode()


def _partition(stored: _Stored | None, schema: Schema) -> str:
    if stored is None or schema.hash not in stored.item or schema.range not in stored.item:
        return ""
    return str(stored.item[schema.hash]["S"])


def _size(item: Item) -> int:
    """Give an item's size, near enough, as DynamoDB counts it: names and values, without the JSON."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: dict[str, Any]) -> int:
    [(kind, content)] = value.items()
    if kind == "M":
        return 3 + _size(content) + len(content)
    if kind == "L":
        return 3 + sum(1 + _value_size(element) for element in content)
    if kind in {"BOOL", "NULL"}:
        return 1
    return len(content.encode()) if isinstance(content, str) else sum(len(element) for element in content)
