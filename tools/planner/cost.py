"""What a month of auditing one registry costs: quantities from a stated model, prices from a file.

A run's calls, bytes and writes are those that tests/integration/test_cost.py counts in real runs. Time is a model of its own:
the longer of waiting (the registry's answers, shared by so many threads) and of processor time, which was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from dtr_audit.aws.archive import PART_ROWS
from dtr_audit.aws.findings import BATCH_ITEMS, PAGE_ITEMS, SHARDS, TRANSACTION_ITEMS, TRANSACTIONS
from dtr_audit.aws.security_hub import BATCH_FINDINGS, REFRESH_DAYS
from dtr_audit.evidence.collector import FINDINGS_LISTED
from dtr_audit.pipeline.finding_batches import WRITERS
from dtr_audit_simulator import PROJECT

PRICES = PROJECT / "tools" / "planner" / "prices.json"

HOURS_OF_A_MONTH = Decimal(730)
DAYS_OF_A_MONTH = Decimal(30)
GB = Decimal(2**30)
KB = 1024

# --- What a run leaves, and what it calls: held against real runs by the tests -------------------------------------------
ROW_BYTES = 65  # of a tag in findings/, compressed; 605 before
RECORD_BYTES = 1_900  # of a run in the runs table, and about the same under runs/
ITEM_BYTES = 600  # of a finding in its table; it stands once more in the index of open ones
ITEM_OVERHEAD_BYTES = 100  # DynamoDB counts so many to each item, for its own index
LOG_BYTES = 2_500  # of a run, Lambda's own lines among them
LOG_BYTES_A_SECOND = 30  # a line of progress every ten seconds
LOGIN_REQUESTS = (
    7  # the challenge, the token, who we are, before and after, the version, and what stands beside the rule
)
# An opened finding: table and two indexes, written, and marked as told, which in a transaction counts twice for the table. A
# resolved one is less.
WRITES_OF_A_MOVE = 7
WRITES_OF_A_RUN = 7  # lease taken and given back, record, its end, and the time of the message
# Was it finished, where it begins, the run before, what was told of the exceptions, and whose the lease is, time and again.
RECORD_READS = 15
METRICS = 11  # and one more if Security Hub is told
ALARM_METRICS = 7
INTERFACE_ENDPOINTS = 2
SIGNING_ENDPOINTS = 1  # besides, where manifests are signed
SIGNATURE_FILES = 2  # likewise: the signature, and what it was made with
SIGNATURE_REQUESTS = 2  # likewise: the public key, and the signature
SECURITY_HUB_ENDPOINTS = 1  # besides, where Security Hub is told
WRITES_OF_A_SENDING = 4  # a finding that it has taken is marked: table, twice, and two indexes
EVIDENCE_FILES = 4  # the report, two checklists, the manifest
EVIDENCE_BYTES = 51_000  # of a run with no finding
EVIDENCE_BYTES_OF_A_FINDING = 500  # of each that is told; the checklists name the first 200 only
ANSWER_BYTES = 32_000  # of the answer in a checklist of yours, as long as importers take it
KMS_REQUESTS = 20  # services keep a data key for minutes; this is generous
PUBLISHES_OF_A_MESSAGE = 4  # SNS counts every 64 KB, and a message may have 240

# --- Time: measured on one core of an x86 server, with Python 3.11 ------------------------------------------------------
SECONDS_TO_START = Decimal(3)
# What fits the growth in docs/performance.json, and a quarter to a third more: a machine has slower days.
PROCESSOR_OF_A_RUN = Decimal("0.23")
PROCESSOR_OF_A_TAG = Decimal("0.000013")
PROCESSOR_OF_A_REPOSITORY = Decimal("0.00053")
PROCESSOR_OF_A_WRITE = Decimal("0.008")  # of 25 findings written, or of 100 marked
AWS_LATENCY = Decimal("0.01")
SECURITY_HUB_LATENCY = Decimal("0.5")  # of a hundred findings: generous
MEGABYTES_OF_A_PROCESSOR = Decimal(1769)  # Lambda gives one whole virtual processor at this memory
TIMEOUT_SECONDS = 900  # the longest that Lambda gives


def _ceil(number: int, by: int) -> int:
    return math.ceil(Decimal(number) / by)


@dataclass(frozen=True, slots=True)
class Workload:
    """A registry, and how it is audited; the latter as the template's defaults have it."""

    tags: int
    repositories: int
    findings: int  # open at a time
    changes: int  # findings that open or are resolved in one run
    runs: int = 30  # a month
    months: int = 12  # since the deployment: what has gathered in the bucket, and how often the key was rotated
    mails: int = 3  # addresses that get each message
    zones: int = 0  # in which interface endpoints stand; 0: none
    signed: bool = False  # whether manifests are, with a key of your own
    latency: Decimal = Decimal("0.1")  # seconds until the registry answers
    concurrency: int = 16
    page_size: int = 100
    memory: int = 512  # megabytes
    baseline: int = 0  # bytes of a checklist of yours that is answered (BaselineKey); 0: none
    security_hub: bool = False  # is told

    def __post_init__(self) -> None:
        """Raise ValueError for a registry that cannot be."""
        positive = {"repositories", "months", "concurrency", "page_size", "memory"}
        for field in fields(self):
            value, least = getattr(self, field.name), int(field.name in positive)
            if not value >= least:
                raise ValueError(f"{field.name} is {value}: at least {least} is needed")
        if self.findings > self.tags:
            raise ValueError(f"of {self.tags} tags no {self.findings} can be findings")

    @classmethod
    def of(cls, tags: int, repositories: int, **others: Any) -> Workload:
        """Give a registry of which one tag in a hundred is a finding, and one finding in twenty moves in a run."""
        findings = others.pop("findings", None)
        findings = _ceil(tags, 100) if findings is None else findings
        changes = others.pop("changes", None)
        changes = _ceil(findings, 20) if changes is None else changes
        return cls(tags, repositories, findings, changes, **others)


# The three that docs/cost.md works out.
EXAMPLES = (
    Workload.of(100, 10),
    Workload.of(10_000, 500),
    Workload.of(1_000_000, 20_000),
)


@dataclass(frozen=True, slots=True)
class Price:
    """What so many units of something cost."""

    price: Decimal
    per: Decimal
    unit: str
    source: str

    def of(self, quantity: Decimal) -> Decimal:
        """Give the cost of a quantity."""
        return quantity * self.price / self.per

    @property
    def formatted_unit(self) -> str:
        """Say what the price is for."""
        return f"per {self.unit}" if self.per == 1 else f"per {self.per:,} {self.unit}"


@dataclass(frozen=True, slots=True)
class PriceList:
    """The prices of one region on one day."""

    region: str
    currency: str
    date: str
    prices: Mapping[str, Price]

    @classmethod
    def read(cls, path: Path) -> PriceList:
        """Read a price list. Raises ValueError that names the file and what is wrong in it."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
            prices = {
                name: Price(Decimal(entry["price"]), Decimal(entry["per"]), entry["unit"], entry["source"])
                for name, entry in document["prices"].items()
            }
            found = cls(
                document["region"], document["currency"], date.fromisoformat(document["date"]).isoformat(), prices
            )
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no price list ({error!r}): copy {PRICES.name} and change its prices") from None
        missing = sorted(use_of_month(EXAMPLES[0]).keys() - prices.keys())
        if missing:
            raise ValueError(f"{path}: the price of {missing[0]} is missing; {PRICES.name} has it")
        wrong = [
            name
            for name, price in prices.items()
            if not (price.price.is_finite() and price.price >= 0 and price.per.is_finite() and price.per > 0)
        ]
        if wrong:
            raise ValueError(f"{path}: the price of {wrong[0]} is no amount of money for a number of units")
        return found


@dataclass(frozen=True, slots=True)
class Calls:
    """What one run asks of the registry and of AWS."""

    registry_requests: int
    record_reads: int  # GetItem, and Query of the runs table
    index_queries: int
    batches: int  # BatchWriteItem
    marks: int  # TransactWriteItems, or UpdateItem for one alone: findings that have been told
    record_writes: int  # PutItem, UpdateItem and DeleteItem of the runs table
    objects: int  # PutObject
    lists: int = 2  # ListObjectsV2: what an earlier attempt has left, and whether there are exceptions
    object_reads: int = 1  # GetObject: the exceptions, and a baseline
    secret_reads: int = 1
    signatures: int = 0  # GetPublicKey and Sign
    table_scans: int = 1  # by the page: what is known before, and once more for Security Hub
    queries: int = 0  # by a run in steps in place of these scans: Query of what is known of one repository
    imports: int = 0  # BatchImportFindings

    @property
    def of_aws(self) -> int:
        """Count the calls of AWS; a message is one more."""
        return (
            self.record_reads
            + self.index_queries
            + self.batches
            + self.marks
            + self.record_writes
            + self.objects
            + self.lists
            + self.object_reads
            + self.secret_reads
            + self.signatures
            + self.table_scans
            + self.queries
            + self.imports
        )


def count_calls(workload: Workload, moves: int) -> Calls:
    """Count the calls of a run in which so many findings move."""
    tags_each = _ceil(workload.tags, workload.repositories)
    reported = workload.security_hub
    return Calls(
        registry_requests=LOGIN_REQUESTS
        + _ceil(workload.repositories, workload.page_size)
        + workload.repositories * max(1, _ceil(tags_each, workload.page_size)),
        # Of a baseline: whether it was told that it is broken, and whose the lease is before its copy is written.
        # Of a signature: whose the lease is, before each of its files.
        record_reads=RECORD_READS
        + _parts(workload)
        + 2 * bool(workload.baseline)
        + SIGNATURE_FILES * workload.signed
        + reported,
        index_queries=index_pages(workload.findings) + index_pages(moves),
        batches=_ceil(moves, BATCH_ITEMS),
        marks=_ceil(moves, TRANSACTION_ITEMS) * (1 + reported),
        record_writes=5,
        objects=_parts(workload) + 1 + EVIDENCE_FILES + bool(workload.baseline) + SIGNATURE_FILES * workload.signed,
        object_reads=1 + bool(workload.baseline),
        signatures=SIGNATURE_REQUESTS * workload.signed,
        table_scans=_item_pages(workload.findings) * (1 + reported),
        imports=_ceil(moves, BATCH_FINDINGS) * reported,
    )


def estimate_processor(workload: Workload, moves: int) -> Decimal:
    """Estimate the processor time of a run in seconds, on one whole processor."""
    calls = count_calls(workload, moves)
    return (
        PROCESSOR_OF_A_RUN
        + PROCESSOR_OF_A_TAG * workload.tags
        + PROCESSOR_OF_A_REPOSITORY * workload.repositories
        + PROCESSOR_OF_A_WRITE * (calls.batches + calls.marks)
    )


def estimate_duration(workload: Workload, moves: int) -> Decimal:
    """Estimate how long a run takes, in seconds."""
    calls = count_calls(workload, moves)
    waiting = (
        workload.latency * calls.registry_requests / workload.concurrency
        + AWS_LATENCY * calls.marks / min(workload.concurrency, TRANSACTIONS)
        + AWS_LATENCY * calls.batches / WRITERS
        + AWS_LATENCY * (calls.table_scans + calls.index_queries)
        + SECURITY_HUB_LATENCY * calls.imports
    )
    # A whole processor is the most that one Python process uses.
    share = min(Decimal(1), workload.memory / MEGABYTES_OF_A_PROCESSOR)
    return SECONDS_TO_START + max(waiting, estimate_processor(workload, moves) / share)


def count_read_units(workload: Workload, moves: int, calls: Calls) -> Decimal:
    """Count DynamoDB's read units of a run: consistent reads of the findings; of the indexes, at half the price."""
    index_blocks = Decimal(ITEM_BYTES * (workload.findings + moves)) / (4 * KB)
    return (
        calls.record_reads
        + Decimal(ITEM_BYTES * workload.findings * (1 + workload.security_hub)) / (4 * KB)
        + (calls.index_queries + index_blocks) / 2
        + calls.table_scans
        + calls.queries
    )


def use_of_run(workload: Workload, moves: int) -> dict[str, Decimal]:
    """Give what one run uses, by the name of its price."""
    calls = count_calls(workload, moves)
    duration = estimate_duration(workload, moves)
    used: dict[str, Decimal | int] = {
        "lambda_gb_seconds": duration * workload.memory / KB,
        "lambda_requests": 1,
        "scheduler_invocations": 1,
        "dynamodb_writes": WRITES_OF_A_RUN + (WRITES_OF_A_MOVE + WRITES_OF_A_SENDING * workload.security_hub) * moves,
        "dynamodb_reads": count_read_units(workload, moves, calls),
        "s3_writes": calls.objects + calls.lists,
        "s3_reads": calls.object_reads,
        "sns_publishes": PUBLISHES_OF_A_MESSAGE if moves else 0,
        "sns_mails": workload.mails if moves else 0,
        "kms_requests": KMS_REQUESTS,
        "kms_signatures": calls.signatures,
        "secret_reads": calls.secret_reads,
        "security_hub_findings": moves * workload.security_hub,
        "log_ingestion": (LOG_BYTES + LOG_BYTES_A_SECOND * duration) / GB,
    }
    return {name: Decimal(quantity) for name, quantity in used.items()}


def use_of_month(workload: Workload) -> dict[str, Decimal]:
    """Give what a month uses, by the name of its price: the last of the workload's months."""
    run = use_of_run(workload, workload.changes)
    used = {name: quantity * workload.runs for name, quantity in run.items()}
    if workload.security_hub and workload.runs:
        # What stands open is sent again, so that Security Hub does not forget it.
        refreshed = workload.findings * DAYS_OF_A_MONTH / REFRESH_DAYS
        used["security_hub_findings"] += refreshed
        used["dynamodb_writes"] += WRITES_OF_A_SENDING * refreshed
    gathered = workload.runs * workload.months
    findings = Decimal((ITEM_BYTES + ITEM_OVERHEAD_BYTES) * workload.findings) / GB
    records = Decimal(RECORD_BYTES * gathered) / GB
    return {
        **used,
        "dynamodb_storage": 2 * findings + records,
        "dynamodb_recovery": findings + records,
        "s3_storage": (Decimal(ROW_BYTES * workload.tags) + RECORD_BYTES + _evidence_bytes(workload)) * gathered / GB,
        "log_storage": run["log_ingestion"] * workload.runs * min(workload.months, 12),
        # A key that signs is never rotated.
        "kms_keys": Decimal(1 + min(2, (workload.months - 1) // 12) + workload.signed),
        "secrets": Decimal(1),
        "metrics": (METRICS + workload.security_hub) * min(Decimal(1), workload.runs / HOURS_OF_A_MONTH),
        "alarms": Decimal(ALARM_METRICS),
        "dashboards": Decimal(1),
        "endpoint_hours": (
            INTERFACE_ENDPOINTS + SIGNING_ENDPOINTS * workload.signed + SECURITY_HUB_ENDPOINTS * workload.security_hub
        )
        * workload.zones
        * HOURS_OF_A_MONTH,
    }


def index_pages(findings: int) -> int:
    """Count in how many requests so many findings are read from an index."""
    return SHARDS * _item_pages(_ceil(findings, SHARDS))


def price(used: Mapping[str, Decimal], prices: PriceList) -> Decimal:
    """Give the cost of all that was used."""
    return sum((prices.prices[name].of(quantity) for name, quantity in used.items()), Decimal(0))


def _evidence_bytes(workload: Workload) -> int:
    merged = workload.baseline + ANSWER_BYTES if workload.baseline else 0
    return EVIDENCE_BYTES + EVIDENCE_BYTES_OF_A_FINDING * min(workload.findings, FINDINGS_LISTED) + merged


def _parts(workload: Workload) -> int:
    return _ceil(workload.tags, PART_ROWS)


def _item_pages(findings: int) -> int:
    # Where the limit of a page falls on the last item, DynamoDB gives one more, which is empty.
    return findings // PAGE_ITEMS + 1
