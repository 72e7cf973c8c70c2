"""The tables of a stack as files of JSON lines."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


_BATCH = 25  # items in one BatchWriteItem


class StateFileError(Exception):
    """A file written by `Stack.dump_tables` cannot be loaded again."""


class TableFile:
    """One table, read and written whole."""

    def __init__(self, dynamodb: DynamoDBClient, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name
        description = dynamodb.describe_table(TableName=name)["Table"]
        self.keys = [key["AttributeName"] for key in description["KeySchema"]]
        self.indexed = {
            attribute["AttributeName"]: attribute["AttributeType"] for attribute in description["AttributeDefinitions"]
        }

    def read(self) -> list[dict[str, Any]]:
        """Give every item in the order of its keys."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self._name, ConsistentRead=True)
        items: list[dict[str, Any]] = [dict(item) for page in pages for item in page["Items"]]
        for item in items:
            for value in item.values():
                _sort_sets(value)
        return sorted(items, key=lambda item: [str(item[key]) for key in self.keys])

    def write(self, items: Sequence[dict[str, Any]]) -> None:
        """Put the items, replacing those with the same keys."""
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            self._dynamodb.batch_write_item(
                RequestItems={self._name: [{"PutRequest": {"Item": item}} for item in batch]}
            )


def _sort_sets(value: dict[str, Any]) -> None:
    """Order the elements of sets, which DynamoDB gives in any order."""
    ((kind, content),) = value.items()
    if kind in {"SS", "NS", "BS"}:
        content.sort()
    elif kind == "L":
        for element in content:
            _sort_sets(element)
    elif kind == "M":
        for element in content.values():
            _sort_sets(element)


def encode_binary(value: Any) -> str:
    """Encode a binary value of an item in base64. Raises TypeError for any other value that is not JSON."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"A DynamoDB item cannot hold a {type(value).__name__}.")


def _decode(value: dict[str, Any]) -> dict[str, Any]:
    """Turn a value of a file into one that the client takes: binary ones are base64 there. Raises for a wrong one."""
    ((kind, content),) = value.items()
    if kind == "B":
        return {kind: base64.b64decode(content, validate=True)}
    if kind == "BS":
        return {kind: [base64.b64decode(element, validate=True) for element in content]}
    if kind == "L":
        return {kind: [_decode(element) for element in content]}
    if kind == "M":
        return {kind: {name: _decode(element) for name, element in content.items()}}
    for number in {"N": [content], "NS": content}.get(kind, []):
        if not Decimal(number).is_finite():
            raise ValueError(f"{number} is no number")
    return value


def read_items(file: Path, table: TableFile) -> list[dict[str, Any]]:
    """Parse a file of `Stack.dump_tables`. Raises StateFileError."""
    items: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for number, line in read_lines(file):
        try:
            item = _parse_item(line, table)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise StateFileError(
                f"{file}, line {number}, is no item of this table ({error!r}). Restore the file, or delete it to "
                "start without what earlier runs knew: every finding is then announced as new."
            ) from error
        identity = json.dumps([item[key] for key in table.keys], default=encode_binary)
        if identity in seen:
            raise StateFileError(
                f"{file}, line {number}, has the same key as line {seen[identity]}. Delete the wrong one."
            )
        seen[identity] = number
        items.append(item)
    return items


def _parse_item(line: str, table: TableFile) -> dict[str, Any]:
    item = {name: _decode(value) for name, value in json.loads(line).items()}
    TypeDeserializer().deserialize({"M": item})
    for name, kind in table.indexed.items():
        if (name in item or name in table.keys) and not item[name][kind]:
            raise ValueError(f"{name} is empty")
    return item


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers. Raises StateFileError if it cannot be read."""
    try:
        content = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StateFileError(
            f"{file} is not UTF-8 text ({error}). Restore the file, or delete it to start anew."
        ) from error
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield number, line


def replace_file(file: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    partial.replace(file)
