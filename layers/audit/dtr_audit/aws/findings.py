"""The findings of a registry, and how they move: opened, changed, resolved, announced.

The moves are pure functions; FindingsTable keeps the result. Runs of one registry are kept apart by its lease, and every write
puts a whole item computed from what was read, so doing it twice changes nothing.
"""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dtr_audit.aws.clients import is_cancelled, is_condition_failure
from dtr_audit.core.finding import ChangeKind, Finding, State
from dtr_audit.core.finding_changes import Known
from dtr_audit.core.finding_codec import parse_finding, write_finding
from dtr_audit.core.model import Repository
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.errors import AuditError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SHARDS = 8  # of each index: one registry's findings never share one partition
BATCH_ITEMS = 25  # DynamoDB's limit of one BatchWriteItem
TRANSACTION_ITEMS = 100  # and of one TransactWriteItems
TRANSACTIONS = 4  # at once; more of them only wait for each other's processor
PAGE_ITEMS = 250  # read at once: DynamoDB's own page of a megabyte is twenty while it is parsed
WRITE_ATTEMPTS = 10
WRITE_BACKOFF_SECONDS = 0.05

_FROM_OUTSIDE = ("reason", "digest", "author", "pushed_at", "media_type")
_TRUST = "/trust/"  # begins the sort key of what is remembered of trust data: no tag has a slash


class FindingsTable:
    """The findings table of one registry."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        registry: str,
        *,
        resolved_days: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; an announced, resolved finding is kept `resolved_days` more."""
        self._client = client
        self._table = table
        self._registry = registry
        self._resolved_days = resolved_days
        self._sleep = sleep

    def of_repository(self, repository: Repository) -> dict[str, Finding]:
        """Read all findings of a repository by tag, with a consistent read."""
        return self.known_of(repository).findings

    def known_of(self, repository: Repository) -> "Known":
        """Read all that is known of a repository, with a consistent read."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": self._partition(repository)},
            PaginationConfig={"PageSize": PAGE_ITEMS},
        )
        return from_items(item for page in pages for item in page["Items"])

    def everything(self, *, with_trust: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield every item of the registry with its repository, by a consistent read of the whole table.

        What is remembered of trust data is left out unless it is asked for.
        """
        prefix = self._partition_prefix
        pages: Iterable[Mapping[str, Any]] = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="begins_with(pk, :prefix)" + ("" if with_trust else " AND attribute_not_exists(trust)"),
            ExpressionAttributeValues={":prefix": prefix},
            PaginationConfig={"PageSize": PAGE_ITEMS},
        )
        return ((item["pk"].removeprefix(prefix), item) for page in pages for item in page["Items"])

    def remember_trust(self, repository: Repository, memories: Mapping[str, str]) -> None:
        """Keep what is to be remembered of a repository's trust data, by domain."""
        items = [
            {"pk": self._partition(repository), "sk": f"{_TRUST}{domain}", "trust": memory}
            for domain, memory in memories.items()
        ]
        # Together: a crash between two of them would have the next run meet one domain without what it knew of it.
        for at in range(0, len(items), BATCH_ITEMS):
            self._write_batch([{"PutRequest": {"Item": item}} for item in items[at : at + BATCH_ITEMS]])

    def open(self) -> Iterator[Finding]:
        """Yield the open findings of the registry; the index lags a moment behind."""
        return (parse_finding(item) for item in self._of_index("open", "open_shard"))

    def pending_notifications(self) -> Iterator[Finding]:
        """Yield the findings with news that no subscriber has heard; the index lags a moment behind."""
        return (parse_finding(item) for item in self._of_index("unannounced", "unannounced_shard"))

    def _of_index(self, index: str, attribute: str) -> Iterator[Mapping[str, Any]]:
        for shard in range(SHARDS):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                IndexName=index,
                KeyConditionExpression="#shard = :shard",
                ExpressionAttributeNames={"#shard": attribute},
                ExpressionAttributeValues={":shard": f"{self._registry}#{shard}"},
                PaginationConfig={"PageSize": PAGE_ITEMS},
            )
            for page in pages:
                yield from page["Items"]

    def write(self, findings: Iterable[Finding]) -> None:
        """Put findings as they are now; raises AuditError when DynamoDB keeps turning them away."""
        batch: list[Any] = []
        for finding in findings:
            batch.append({"PutRequest": {"Item": self._to_item(finding)}})
            if len(batch) == BATCH_ITEMS:
                self._write_batch(batch)
                batch = []
        if batch:
            self._write_batch(batch)

    def _write_batch(self, batch: list[Any]) -> None:
        for attempt in range(WRITE_ATTEMPTS):
            unprocessed = self._client.batch_write_item(RequestItems={self._table: batch})["UnprocessedItems"]
            batch = list(unprocessed.get(self._table, []))
            if not batch:
                return
            self._sleep(WRITE_BACKOFF_SECONDS * 2**attempt)
        raise AuditError(
            f"DynamoDB did not take {len(batch)} items in {WRITE_ATTEMPTS} attempts: is {self._table} throttled?"
        )

    def mark_announced(self, findings: Iterable[Finding], *, threads: int) -> None:
        """Drop the news that subscribers now have; a finding that has moved since keeps its newer news."""
        self._update_all(map(self._announced, findings), threads=threads)

    def _announced(self, finding: Finding) -> dict[str, Any]:
        update = "REMOVE unannounced, unannounced_shard"
        if finding.pending_notifications[-1].change_kind is not ChangeKind.RESOLVED:
            update += ", unheard"
        values: dict[str, Any] = {":seen": finding.last_changed, ":news": write_finding(finding)["unannounced"]}
        if finding.state is State.RESOLVED:
            # Only what has been announced may expire: news is never lost to the table's clock.
            expires = datetime.fromisoformat(finding.last_changed) + timedelta(days=self._resolved_days)
            update = f"SET expires_at = :expires {update}"
            values[":expires"] = int(expires.timestamp())
        return self._change(finding, update, condition="last_changed = :seen AND unannounced = :news", values=values)

    def _change(self, finding: Finding, update: str, *, condition: str, values: dict[str, Any]) -> dict[str, Any]:
        """Describe a change of an item, to be made if the condition holds."""
        return {
            "TableName": self._table,
            "Key": {"pk": self._partition(finding.repository), "sk": finding.tag},
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": values,
        }

    def _update_all(self, changes: Iterable[dict[str, Any]], *, threads: int) -> None:
        """Make changes of items, each whose condition holds."""
        rest = iter(changes)
        threads = min(threads, TRANSACTIONS)
        with ThreadPoolExecutor(max_workers=threads) as pool:
            # In handfuls, so that not all of them are held at once.
            while handful := tuple(islice(rest, TRANSACTION_ITEMS * threads)):
                together = (handful[at : at + TRANSACTION_ITEMS] for at in range(0, len(handful), TRANSACTION_ITEMS))
                for _ in pool.map(self._update_together, together):
                    pass

    def _update_together(self, changes: Sequence[dict[str, Any]]) -> None:
        """Make changes of different items in one call; one by one, where the condition of one of them does not hold."""
        if len(changes) > 1:
            try:
                self._client.transact_write_items(TransactItems=[{"Update": change} for change in changes])  # type: ignore[typeddict-item]
            except ClientError as error:
                if not is_cancelled(error):
                    raise
            else:
                return
        for change in changes:
            try:
                self._client.update_item(**change)
            except ClientError as error:
                if not is_condition_failure(error):
                    raise

    def owed_to_security_hub(self, *, sent_before: str) -> Iterator[tuple[Finding, bool]]:
        """Yield the findings that Security Hub does not have as they are, and the open ones sent before a time, with True.

        What moves a finding writes it whole, and so drops the mark that Security Hub has it. Read consistently: no index is.
        """
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="#registry = :registry AND (attribute_not_exists(security_hub_at)"
            " OR (#state = :open AND security_hub_at < :before))",
            ExpressionAttributeNames={"#registry": "registry", "#state": "state"},
            ExpressionAttributeValues={":registry": self._registry, ":open": str(State.OPEN), ":before": sent_before},
            PaginationConfig={"PageSize": PAGE_ITEMS},
        )
        return ((parse_finding(item), "security_hub_at" in item) for page in pages for item in page["Items"])

    def mark_in_security_hub(self, findings: Iterable[Finding], at: str, *, threads: int) -> None:
        """Note that Security Hub has had some findings, as they are, since a time; one that has moved since stays owed to it."""

        changes = (
            self._change(
                finding,
                "SET security_hub_at = :at",
                condition="last_changed = :seen",
                values={":seen": finding.last_changed, ":at": at},
            )
            for finding in findings
        )
        self._update_all(changes, threads=threads)

    @property
    def _partition_prefix(self) -> str:
        return f"{self._registry}#"

    def _partition(self, repository: Repository) -> str:
        return f"{self._partition_prefix}{repository}"

    def _to_item(self, finding: Finding) -> dict[str, Any]:
        partition = self._partition(finding.repository)
        shard = f"{self._registry}#{zlib.crc32(partition.encode()) % SHARDS}"
        item = {"pk": partition, "sk": finding.tag, **write_finding(finding)}
        if REDACTOR.holds_secret("\n".join([item[name] for name in _FROM_OUTSIDE])):
            item |= {name: REDACTOR.redact(item[name]) for name in _FROM_OUTSIDE}
        if finding.state is State.OPEN:
            item["open_shard"] = shard
        if finding.pending_notifications:
            item["unannounced_shard"] = shard
        return item


def from_items(items: Iterable[Mapping[str, Any]]) -> Known:
    """Read what the table holds of one repository."""
    known = Known({}, {})
    for item in items:
        if item["sk"].startswith(_TRUST):
            known.trust[item["sk"].removeprefix(_TRUST)] = item["trust"]
        else:
            finding = parse_finding(item)
            known.findings[finding.tag] = finding
    return known
