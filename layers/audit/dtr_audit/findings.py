"""The findings of a registry, and how they move: opened, changed, resolved, announced.

The moves are pure functions; FindingsTable keeps the result. Runs of one registry are kept apart by its lease, and every write
puts a whole item computed from what was read, so doing it twice changes nothing.
"""

import json
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from .clients import is_cancelled, is_condition_failure
from .errors import AuditError
from .exceptions import Exceptions
from .model import Excepted, Finding, JudgedTag, News, Repository, State, Transition, Verdict, iso
from .redaction import REDACTOR

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

SIGNED_SINCE = "signed"
NO_IMAGE = "a signature artifact, not an image"
TAG_REMOVED = "tag removed"
REPOSITORY_REMOVED = "repository removed"


@dataclass(frozen=True, slots=True)
class Moment:
    """When, and in which run, findings move."""

    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier runs have left of a repository: findings by tag, and by domain what is remembered of its trust data."""

    findings: dict[str, Finding]
    trust: dict[str, str]  # JSON


@dataclass(frozen=True, slots=True)
class Moves:
    """What one reading of a repository does to its findings.

    `writes` can be made at once: they open findings, or change open ones. `resolutions` must wait until it is proven that the
    reading saw everything. `standing` are all other findings of the repository, as they are once the writes are made.
    """

    writes: tuple[Finding, ...]
    resolutions: tuple[Finding, ...]
    standing: tuple[Finding, ...]


def compare(
    registry: str,
    repository: Repository,
    judged: Iterable[JudgedTag],
    known: Mapping[str, Finding],
    *,
    is_complete: bool,
    moment: Moment,
    exceptions: Exceptions | None = None,
    author_names: Mapping[str, str] | None = None,
) -> Moves:
    """Compare what was read of a repository, each tag once, with what is known of it; `known` is by tag.

    An UNKNOWN tag moves nothing. Tags that are gone resolve their finding only if the repository was read to its end. Without
    `exceptions` nobody knows which there are: none holds, and of none it is known that it has ended.
    """
    writes: list[Finding] = []
    resolutions: list[Finding] = []
    standing: list[Finding] = []
    left = dict(known)
    for tag in judged:
        before = left.pop(tag.tag.name, None)
        if tag.is_finding:
            name = author_names.get(tag.tag.author, "") if author_names else ""
            after = _opened(registry, repository, tag, before, moment, author_name=name)
            if exceptions is not None:
                after = _except(after, before, exceptions, moment)
            if after != before:
                writes.append(after)
            standing.append(after)
        elif before is not None:
            if before.state is State.OPEN and tag.verdict is not Verdict.UNKNOWN:
                resolutions.append(resolve(before, NO_IMAGE if tag.is_artifact else SIGNED_SINCE, moment))
            else:
                standing.append(before)
    for unseen in left.values():
        if unseen.state is State.OPEN and is_complete:
            resolutions.append(resolve(unseen, TAG_REMOVED, moment))
        else:
            standing.append(unseen)
    return Moves(tuple(writes), tuple(resolutions), tuple(standing))


def _opened(
    registry: str,
    repository: Repository,
    tag: JudgedTag,
    before: Finding | None,
    moment: Moment,
    *,
    author_name: str,
) -> Finding:
    """Give the finding that stands for an unsigned tag; `before` itself where nothing moved."""
    if not author_name and before is not None and before.author == tag.tag.author:
        # Its account was named before, and is not this time.
        author_name = before.author_name
    if tag.verdict is None:
        raise ValueError("a signature artifact is no finding")
    now = iso(moment.at)
    if before is None or before.state is State.RESOLVED:
        return Finding(
            registry=registry,
            repository=repository,
            tag=tag.tag.name,
            state=State.OPEN,
            verdict=tag.verdict,
            reason=tag.reason,
            digest=tag.tag.digest,
            author=tag.tag.author,
            author_name=author_name,
            pushed_at=tag.tag.pushed_at,
            first_seen=now,
            last_changed=now,
            transition=News.OPENED,
            changed_in=moment.run_id,
            media_type=tag.tag.media_type,
            unannounced=_trim((*_unannounced_of(before), Transition(News.OPENED, moment.run_id, first_seen=now))),
            is_unheard=True,
        )
    after = replace(
        before,
        verdict=tag.verdict,
        reason=tag.reason,
        digest=tag.tag.digest,
        author=tag.tag.author,
        author_name=author_name,
        pushed_at=tag.tag.pushed_at,
        media_type=tag.tag.media_type,
    )
    if after == before:
        return before
    if after.verdict is before.verdict:
        # Pushed anew and still unsigned: worth keeping, not worth a message a day for a tag like `latest`.
        return replace(after, last_changed=now)
    return replace(
        after,
        last_changed=now,
        transition=News.CHANGED,
        changed_in=moment.run_id,
        unannounced=_pass(before.unannounced, Transition(News.CHANGED, moment.run_id, before.first_seen)),
    )


def _except(after: Finding, before: Finding | None, exceptions: Exceptions, moment: Moment) -> Finding:
    """Put a finding under the exception that covers it, or take it from under the one that does no more.

    What an exception covers is no news, until a week before its end.
    """
    known = before if before is not None and before.state is State.OPEN else None
    covering = exceptions.of(after.repository, after.tag, after.digest)
    if covering is None:
        if known is None or known.excepted is None:
            return after
        why = exceptions.explain_end(known.excepted)
        move = Transition(News.EXPIRED, moment.run_id, after.first_seen, why, excepted=known.excepted)
        after = replace(after, excepted=None, told_end="", unannounced=_pass(after.unannounced, move))
    elif exceptions.ends_soon(covering):
        # What opens now is told as opened.
        if known is not None and known.told_end != covering.ends:
            move = Transition(News.EXPIRING, moment.run_id, after.first_seen, excepted=covering)
            after = replace(after, unannounced=_pass(after.unannounced, move))
        after = replace(after, excepted=covering, told_end=covering.ends)
    else:
        unannounced = _unannounced_of(before) if known is None else known.unannounced
        after = replace(after, excepted=covering, told_end="", unannounced=unannounced)
    return after if after == known else replace(after, last_changed=iso(moment.at))


def resolve(finding: Finding, resolution: str, moment: Moment) -> Finding:
    """Close an open finding; what nobody has heard of closes without a word."""
    move = Transition(News.RESOLVED, moment.run_id, finding.first_seen, resolution)
    pending = finding.unannounced
    if not finding.is_unheard:
        # What happened to it meanwhile is of no use once it is closed.
        unannounced = _trim((*(one for one in pending if one.news not in _PASSING), move))
    elif pending and pending[-1].news is not News.RESOLVED:
        unannounced = _trim((*pending, move))
    else:
        unannounced = (*pending, replace(move, is_quiet=True))
    return replace(
        finding,
        state=State.RESOLVED,
        resolution=resolution,
        last_changed=iso(moment.at),
        transition=News.RESOLVED,
        changed_in=moment.run_id,
        unannounced=unannounced,
        excepted=None,
        told_end="",
        is_unheard=False,
    )


# What subscribers are told adds up: a finding is first heard of as OPENED, EXPIRING or EXPIRED (or, while the exceptions cannot
# be read, as CHANGED), and after that once as RESOLVED. `is_unheard` tells whether they have heard of it in this life.
_PASSING = frozenset({News.CHANGED, News.EXPIRING, News.EXPIRED})


def _unannounced_of(before: Finding | None) -> tuple[Transition, ...]:
    """Give what is still to be told of the finding that was."""
    return tuple(move for move in before.unannounced if not move.is_quiet) if before else ()


def _pass(pending: tuple[Transition, ...], move: Transition) -> tuple[Transition, ...]:
    """Add what happened to an open finding: only the last of it is told, and of its exception rather than of its verdict."""
    if not pending or pending[-1].news is News.RESOLVED:
        return _trim((*pending, move))
    last = pending[-1].news
    # What is to be told as opened is told as it is now anyway.
    is_told_so = last is News.OPENED or (move.news is News.CHANGED and last is not News.CHANGED)
    return pending if is_told_so else (*pending[:-1], move)


def _trim(moves: tuple[Transition, ...]) -> tuple[Transition, ...]:
    """Shorten there and back again before anyone heard of it: the first move says it all.

    It may have been told already, by a run that died before it could note so, and is told again under its own id.
    """
    return moves if len(moves) < 3 else moves[:1]


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

    def unannounced(self) -> Iterator[Finding]:
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
        if finding.unannounced[-1].news is not News.RESOLVED:
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
        if finding.unannounced:
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


class FindingSpool:
    """Findings that wait in a temporary file, so that a registry full of them does not fill the memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._length = 0
        self._end = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Finding]:
        self._file.seek(0)
        for line in self._file:
            yield parse_finding(json.loads(line))

    def add(self, finding: Finding) -> int:
        """Take one more, not while iterating; gives the place at which `at()` finds it."""
        place = self._end
        line = json.dumps(write_finding(finding)).encode() + b"\n"
        self._file.write(line)
        self._length += 1
        self._end += len(line)
        return place

    def drop(self, is_dropped: Callable[[Finding], bool]) -> None:
        """Take findings out again; the places of the others change."""
        kept = FindingSpool()
        for finding in self:
            if not is_dropped(finding):
                kept.add(finding)
        self._file.close()
        self._file, self._length, self._end = kept._file, kept._length, kept._end

    def at(self, places: Iterable[int]) -> Iterator[Finding]:
        """Yield the findings at some places."""
        for place in places:
            self._file.seek(place)
            yield parse_finding(json.loads(self._file.readline()))

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def write_finding(finding: Finding) -> dict[str, Any]:
    """Give a finding's form in the table, and as JSON."""
    fields: dict[str, Any] = {
        "registry": finding.registry,
        "namespace": finding.repository.namespace,
        "repository": finding.repository.name,
        "tag": finding.tag,
        "state": str(finding.state),
        "verdict": str(finding.verdict),
        "reason": finding.reason,
        "digest": finding.digest,
        "author": finding.author,
        "pushed_at": finding.pushed_at,
        "first_seen": finding.first_seen,
        "last_changed": finding.last_changed,
        "changed_in": finding.changed_in,
        "transition": str(finding.transition),
        "resolution": finding.resolution,
        "media_type": finding.media_type,
    }
    if finding.author_name:
        fields["author_name"] = finding.author_name
    if finding.excepted is not None:
        fields["excepted"] = asdict(finding.excepted)
    if finding.told_end:
        fields["told_end"] = finding.told_end
    if finding.is_unheard:
        fields["unheard"] = True
    if finding.unannounced:
        fields["unannounced"] = [_to_move(move) for move in finding.unannounced]
    return fields


def _to_move(move: Transition) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "news": str(move.news),
        "run_id": move.run_id,
        "first_seen": move.first_seen,
        "resolution": move.resolution,
    }
    if move.excepted is not None:
        fields["excepted"] = asdict(move.excepted)
    if move.is_quiet:
        fields["quiet"] = True
    return fields


def parse_finding(item: Mapping[str, Any]) -> Finding:
    """Read a finding back; raises KeyError, TypeError or ValueError for anything that `write_finding` does not write."""
    return Finding(
        registry=item["registry"],
        repository=Repository(item["namespace"], item["repository"]),
        tag=item["tag"],
        state=State(item["state"]),
        verdict=Verdict(item["verdict"]),
        reason=item["reason"],
        digest=item["digest"],
        author=item["author"],
        pushed_at=item["pushed_at"],
        first_seen=item["first_seen"],
        last_changed=item["last_changed"],
        changed_in=item["changed_in"],
        transition=News(item["transition"]),
        resolution=item["resolution"],
        media_type=item.get("media_type", ""),
        author_name=item.get("author_name", ""),
        excepted=_from_excepted(item),
        told_end=item.get("told_end", ""),
        is_unheard=item.get("unheard", False),
        unannounced=tuple(
            Transition(
                News(move["news"]),
                move["run_id"],
                move["first_seen"],
                move["resolution"],
                excepted=_from_excepted(move),
                is_quiet=move.get("quiet", False),
            )
            for move in item.get("unannounced", ())
        ),
    )


def _from_excepted(item: Mapping[str, Any]) -> Excepted | None:
    return Excepted(**item["excepted"]) if "excepted" in item else None
