"""The runs table: one item a run, the lease that keeps two runs of one registry apart, and when it was last spoken of."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from dtr_audit.aws.clients import is_condition_failure
from dtr_audit.core.model import iso
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.run_record import PreviousRun, Run, Scope
from dtr_audit.core.scan_order import Mark
from dtr_audit.errors import LeaseHeldError
from dtr_audit.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# '#' sorts before every run id, so the newest run is still the last item of a registry.
_LEASE = "#lease"
_ALERTS = "#alerts"
_RUNS_PAGE = 10  # mostly the first of them is the one
FUNCTION_SECONDS = 900.0  # the longest that Lambda lets a function go on: an execution that ends cannot end it
LEASE_GRACE_SECONDS = 15.0  # past the moment at which the last function of a run is ended from outside
# By how much two clocks may differ, in seconds: AWS refuses what is signed by a clock that is five minutes off.
CLOCK_SKEW_SECONDS = 600.0

logger = Logger(service="dtr-signature-audit", child=True)


def fan_out_lease_seconds(settings: Settings) -> float:
    """Give how long the lease of a run in steps lasts, in seconds. No lease of a deployed engine lasts longer."""
    return settings.execution_seconds + FUNCTION_SECONDS + LEASE_GRACE_SECONDS


class RunsTable:
    """The runs of one registry."""

    def __init__(self, client: "DynamoDBClient", table: str, registry: str) -> None:
        self._client = client
        self._table = table
        self._registry = registry

    def left_by(self, owner: str) -> str:
        """Give the id of the run that an earlier attempt of this owner left unfinished, '' if there is none."""
        found = self._client.get_item(TableName=self._table, Key=self._key(_LEASE), ConsistentRead=True)
        held: Mapping[str, Any] = found.get("Item", {})
        return str(held["run_id"]) if held.get("owner") == owner else ""

    def take_lease(
        self, owner: str, attempt: str, run_id: str, *, now: datetime, seconds: float, longest: float = 0.0
    ) -> bool:
        """Take the registry for `seconds`; the same owner, retried after a crash, takes it over from its last attempt.

        `longest` is the longest lease that any run of the registry takes, in seconds; without it, that is `seconds`. A lease that
        ends later than that from now, or at no time at all, was taken by a clock that is wrong, or by no audit. It is not valid.
        Tells whether an earlier attempt at this very run has left it. Raises LeaseHeldError while another owner's lease lasts.
        """
        latest = now + timedelta(seconds=max(seconds, longest) + CLOCK_SKEW_SECONDS)
        try:
            replaced = self._client.put_item(
                TableName=self._table,
                Item={
                    **self._key(_LEASE),
                    "owner": owner,
                    "attempt": attempt,
                    "run_id": run_id,
                    "until": iso(now + timedelta(seconds=seconds)),
                },
                ConditionExpression="attribute_not_exists(pk) OR #owner = :owner OR NOT attribute_type(#until, :string)"
                " OR NOT (#until BETWEEN :now AND :latest)",
                ExpressionAttributeNames={"#until": "until", "#owner": "owner"},
                ExpressionAttributeValues={":now": iso(now), ":latest": iso(latest), ":owner": owner, ":string": "S"},
                ReturnValues="ALL_OLD",
            )
        except ClientError as error:
            if not is_condition_failure(error):
                raise
            held = self._client.get_item(TableName=self._table, Key=self._key(_LEASE), ConsistentRead=True)
            holder = held.get("Item", {})
            raise LeaseHeldError(
                f"registry {self._registry}: run {holder.get('run_id', '?')} is under way until {holder.get('until', '?')} at the "
                "latest; this one is to be tried again then"
            ) from None
        before: Mapping[str, Any] = replaced.get("Attributes", {})
        until = before.get("until")
        is_over = isinstance(until, str) and "" < until < iso(now)
        if before and before.get("owner") != owner and not is_over:
            logger.warning(
                "the lease of another run was not valid and was taken over: no run may last until then",
                extra={"of_run": str(before.get("run_id")), "until": str(until), "latest": iso(latest)},
            )
        return bool(before.get("run_id") == run_id)

    def confirm_lease(self, attempt: str) -> None:
        """See that the lease is still this attempt's; raises LeaseHeldError if it is not.

        A queue that delivers an event twice can start the same owner twice.
        """
        found = self._client.get_item(TableName=self._table, Key=self._key(_LEASE), ConsistentRead=True)
        held: Mapping[str, Any] = found.get("Item", {})
        if held.get("attempt") != attempt:
            raise LeaseHeldError(
                f"registry {self._registry}: another attempt has taken this run over, or its time is up; this one ends here"
            )

    def release_lease(self, attempt: str) -> None:
        """Give the registry free, if it is still this attempt's."""
        try:
            self._client.delete_item(
                TableName=self._table,
                Key=self._key(_LEASE),
                ConditionExpression="attempt = :attempt",
                ExpressionAttributeValues={":attempt": attempt},
            )
        except ClientError as error:
            if not is_condition_failure(error):
                raise

    def is_finished(self, run_id: str) -> bool:
        """Tell whether a run has been recorded and its news delivered."""
        return "finished" in self.recorded(run_id)

    def recorded(self, run_id: str) -> Mapping[str, Any]:
        """Give the record of a run, empty if it came to none; its numbers are Decimals."""
        found = self._client.get_item(TableName=self._table, Key=self._key(run_id), ConsistentRead=True)
        return found.get("Item", {})

    def resolved_by(self, run_id: str) -> int:
        """Give how many findings an earlier attempt at a run recorded as resolved, 0 if it came to no record."""
        item = self.recorded(run_id)
        return int(item["findings"]["resolved"]) if item else 0

    def last_complete(self, *, before: str) -> PreviousRun | None:
        """Find the newest complete run of the whole registry that is older than the run id `before`."""
        for found in self._whole_runs(before, page_size=_RUNS_PAGE):
            if found["complete"]:
                return PreviousRun(
                    run_id=found["sk"],
                    repositories=int(found["repositories"]["audited"]),
                    tags=int(found["tags"]["audited"]),
                )
        return None

    def earlier(self, *, before: str, most: int) -> list[Mapping[str, Any]]:
        """Give the records of the runs of the whole registry before the run id `before`, the last `most` of them, oldest first."""
        return list(islice(self._whole_runs(before, page_size=most), most))[::-1]

    def _whole_runs(self, before: str, *, page_size: int) -> Iterator[Mapping[str, Any]]:
        """Yield the records of the runs of the whole registry before a run id, the newest first."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :registry AND sk < :before",
            FilterExpression="#scope = :full",
            ExpressionAttributeNames={"#scope": "scope"},
            ExpressionAttributeValues={":registry": self._registry, ":before": before, ":full": str(Scope.FULL)},
            ScanIndexForward=False,
            PaginationConfig={"PageSize": page_size},
        )
        for page in pages:
            yield from page["Items"]

    def record(self, run: Run, *, rows: str, record: str) -> None:
        """Keep the run record; `rows` and `record` say where in S3 the rest lies."""
        item = {
            **run.as_dict(),
            **self._key(run.run_id),
            "coverage_percent": Decimal(f"{run.coverage_percent:.2f}"),
            "duration_seconds": Decimal(f"{run.duration_seconds:.3f}"),
            "rows": rows,
            "record": record,
        }
        self._client.put_item(TableName=self._table, Item=item)

    def finish(self, run_id: str, *, now: datetime, next_at: Mark | None = None) -> None:
        """Note that nothing is left to do for a run, so that a retry of it does nothing, and where the next one begins.

        Both at once: a retry before this begins where the first attempt did.
        """
        values: dict[str, Any] = {":now": iso(now)}
        expression = "SET finished = :now"
        if next_at is not None:
            values[":next"] = next_at.as_dict()
            expression += ", next_at = :next"
        self._client.update_item(
            TableName=self._table,
            Key=self._key(run_id),
            UpdateExpression=expression,
            ExpressionAttributeValues=values,
        )

    def mark_of_last(self, *, before: str) -> Mark | None:
        """Give where a run of the whole registry begins to read; None if the finished one before it left nothing out."""
        for found in self._whole_runs(before, page_size=_RUNS_PAGE):
            if "finished" in found:
                return Mark.of_dict(found["next_at"]) if "next_at" in found else None
        return None

    def last_digest_at(self) -> datetime | None:
        """Give the time of the last message to subscribers, None before the first."""
        found = self._client.get_item(TableName=self._table, Key=self._key(_ALERTS), ConsistentRead=True)
        item: Mapping[str, Any] = found.get("Item", {})
        return datetime.fromisoformat(item["last_digest_at"]) if "last_digest_at" in item else None

    def note_digest(self, now: datetime) -> None:
        """Remember that subscribers were spoken to."""
        self._client.put_item(TableName=self._table, Item={**self._key(_ALERTS), "last_digest_at": iso(now)})

    def reported_problem(self, of: str) -> tuple[str, datetime] | None:
        """Give what subscribers were told is wrong beside the findings, and when; None if nothing, as far as they know."""
        found = self._client.get_item(TableName=self._table, Key=self._key(f"#{of}"), ConsistentRead=True)
        item: Mapping[str, Any] = found.get("Item", {})
        return (item["problem"], datetime.fromisoformat(item["told_at"])) if item else None

    def note_problem(self, of: str, problem: str, now: datetime) -> None:
        """Remember that subscribers were told what is wrong beside the findings; '' is that nothing is any more."""
        key = self._key(f"#{of}")
        problem = REDACTOR.redact(problem)
        if problem:
            self._client.put_item(TableName=self._table, Item={**key, "problem": problem, "told_at": iso(now)})
        else:
            self._client.delete_item(TableName=self._table, Key=key)

    def _key(self, sort: str) -> dict[str, Any]:
        return {"pk": self._registry, "sk": sort}
