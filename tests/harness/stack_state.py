"""What a deployed stack holds, taken and put back in moto itself.

Over the API a test would ask for each object and delete each item by its own request, which costs more than the run under test.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, Self

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import FakeKey, s3_backends
from moto.utilities.utils import get_partition

from dtr_audit_simulator.aws.stack import Stack

TABLES = ("FindingsTableName", "RunsTableName")


@dataclass(frozen=True, slots=True)
class StackState:
    """The objects of a stack's bucket, and the items of its tables."""

    stack: Stack
    _versions: dict[str, list[Any]]
    _items: dict[str, bytes]

    @classmethod
    def take(cls, stack: Stack) -> Self:
        """Take down what the stack holds now."""
        versions = {key: list(found) for key, found in dict.items(_bucket(stack).keys)}
        items = {output: pickle.dumps(_table(stack, output).items) for output in TABLES}
        return cls(stack, versions, items)

    def restore(self) -> None:
        """Put it back, and remove what has been added since."""
        keys = _bucket(self.stack).keys
        dict.clear(keys)
        dict.update(keys, {key: list(versions) for key, versions in self._versions.items()})
        for output, items in self._items.items():
            _table(self.stack, output).items = pickle.loads(items)  # noqa: S301 - this process's own

    def objects(self) -> dict[str, bytes]:
        """Give the content of each object by its key."""
        newest = {key: versions[-1] for key, versions in self._versions.items() if versions}
        return {key: bytes(found.value) for key, found in newest.items() if isinstance(found, FakeKey)}

    def items(self, output: str) -> list[dict[str, Any]]:
        """Give the items of a table, each value with its DynamoDB type, in the order of their keys."""
        by_partition = pickle.loads(self._items[output])  # noqa: S301 - this process's own
        found = [item.to_json()["Attributes"] for by_sort in by_partition.values() for item in by_sort.values()]
        return sorted(found, key=lambda item: (str(item["pk"]), str(item["sk"])))


def _bucket(stack: Stack) -> Any:
    name = stack.outputs["BucketName"]
    return s3_backends[DEFAULT_ACCOUNT_ID][get_partition(stack.region)].buckets[name]


def _table(stack: Stack, output: str) -> Any:
    return dynamodb_backends[DEFAULT_ACCOUNT_ID][stack.region].tables[stack.outputs[output]]
