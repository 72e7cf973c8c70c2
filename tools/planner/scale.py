"""How far each engine carries: a night simulated, what it uses in AWS, and which limit is met first.

Quantities and prices are those of tools/planner/cost.py, the measured times too; a night is simulated by simulation.py. Limits are
reckoned by a closed formula with a margin, so that the size at which each is met can be searched for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from dtr_audit.aws.archive import PART_ROWS
from dtr_audit.aws.findings import SHARDS, TRANSACTIONS
from dtr_audit.aws.notification_text import MESSAGE_ITEMS
from dtr_audit.core.request import BATCHES
from dtr_audit.evidence.collector import FINDINGS_LISTED
from dtr_audit.pipeline.audit import REPORT_SECONDS
from dtr_audit.pipeline.finding_batches import WRITERS
from dtr_audit.pipeline.steps import BATCH_REPOSITORIES
from dtr_audit.registry.dtr import PAGES, REPOSITORIES
from tools.planner.cost import (
    AWS_LATENCY,
    LOGIN_REQUESTS,
    MEGABYTES_OF_A_PROCESSOR,
    PROCESSOR_OF_A_REPOSITORY,
    PROCESSOR_OF_A_RUN,
    PROCESSOR_OF_A_TAG,
    PROCESSOR_OF_A_WRITE,
    ROW_BYTES,
    SECONDS_TO_START,
    TIMEOUT_SECONDS,
    WRITES_OF_A_MOVE,
    WRITES_OF_A_RUN,
    Calls,
    Workload,
    count_calls,
    count_read_units,
    index_pages,
    use_of_month,
)
from tools.planner.simulation import Read, Reading, pages, simulate

# --- Measured, besides the times in cost.py ----------------------------------------------------------------------------
THREADS_SHARE_OF_PROCESSOR = 0.5  # of a repository's: parsing and judging; the rest counts and writes rows
BYTES_OF_A_REPOSITORY = 350  # its name, in the run's numbers and in the list that is being read
SPOOL_BYTES = 750  # of a finding that waits in a temporary file

# --- A margin -------------------------------------------------------------------------------------------------------------------
# How much of what its slowest thing would allow an audit reaches. Measured ones come nearer (docs/performance.md), on a machine
# that had nothing else to do, and simulated ones nearer still.
REACHED_SHARE = 0.9

# --- What the steps of a fan-out call besides: held against real runs by the tests -----------------------------------------------
LOGIN_ROUNDS = 4  # of the questions who we are: what stands beside the rule is asked while repositories are read
LOGIN_REQUESTS_OF_A_STEP = 4  # the challenge, the token, who we are, before and after
OBJECTS_OF_A_BATCH = 4  # what is to be read, who reads it, what came of it, and its findings; its rows besides
OBJECTS_OF_THE_STEPS = 7  # the same of the other steps
READS_OF_A_BATCH = 9  # of objects; whose the step is, again and again, among them
READS_OF_THE_STEPS = 15
LISTS_OF_THE_STEPS = 3  # and one of each batch
SECRET_READS_OF_THE_STEPS = 2  # and one of each batch
RECORD_READS_OF_A_BATCH = 5  # whose the lease is
RECORD_READS_OF_THE_STEPS = 4

# --- Taken to be so: nobody has measured it on AWS ------------------------------------------------------------------------------
SECONDS_BETWEEN_BATCHES = 0.5  # Step Functions begins a child execution and invokes a function that is there
MEGABYTES_OF_A_RUN = 130  # Python, the modules, the clients and what is being read
TRANSITIONS_OF_A_RUN = 8
TRANSITIONS_OF_A_BATCH = 2

# --- The fan-out's own limit ------------------------------------------------------------------------------------------------------
EXECUTION_SECONDS = 43_200

# --- AWS's limits -----------------------------------------------------------------------------------------------------------------
READING_SECONDS = TIMEOUT_SECONDS - REPORT_SECONDS
TEMPORARY_MEGABYTES = 512
NEW_TABLE_WRITES = 4_000  # a second, that a new table on demand takes at once
PARTITION_WRITES = 1_000  # a second, of one partition
QUERY_DAYS = 180  # the longest that a saved query looks back over rows
QUERY_LIMIT_MEGABYTES = 10_000


class Engine(StrEnum):
    """What reads the registry: the template's parameter."""

    LAMBDA = "lambda"
    STEP_FUNCTIONS = "stepfunctions"


@dataclass(frozen=True, slots=True)
class Plan:
    """A registry, and how it is to be audited; the latter as the template's defaults have it."""

    tags: int
    repositories: int
    engine: Engine = Engine.LAMBDA
    latency: float = 0.1  # seconds until the registry answers
    registry_rps: float = 0.0  # requests a second that it answers in all; 0: as many as are asked
    concurrency: int = 16
    page_size: int = 100
    memory: int = 512  # megabytes of each function
    workers: int = 4  # FanOutWorkers
    domains: int = 1  # that signatures are asked for under
    unsigned: float = 0.01  # of the tags
    changed: float = 0.05  # of the findings: those that open or are resolved in a night
    seed: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for a registry that cannot be."""
        if min(self.tags, self.repositories, self.concurrency, self.page_size, self.memory, self.workers) < 1:
            raise ValueError("tags, repositories, concurrency, page size, memory and workers are at least 1")
        if self.domains < 1 or not (self.latency > 0 and self.registry_rps >= 0):
            raise ValueError("latency is more than 0, domains are at least 1, and no rate is negative")
        if not (0 <= self.unsigned <= 1 and 0 <= self.changed <= 1):
            raise ValueError("what is unsigned and what changes are shares, from 0 to 1")
        if self.engine is Engine.STEP_FUNCTIONS and self.workers > self.concurrency:
            raise ValueError(f"of {self.workers} workers each needs a request: concurrency is {self.concurrency}")

    @classmethod
    def of(cls, workload: Workload) -> Plan:
        """Give what one Lambda is billed for."""
        return cls(
            max(1, workload.tags),
            workload.repositories,
            latency=max(0.001, float(workload.latency)),
            concurrency=workload.concurrency,
            page_size=workload.page_size,
            memory=workload.memory,
            unsigned=workload.findings / max(1, workload.tags),
            changed=min(1.0, workload.changes / max(1, workload.findings)),
        )

    @property
    def workload(self) -> Workload:
        """Give it in the words of the bill."""
        findings = math.ceil(self.tags * self.unsigned)
        return Workload(
            self.tags,
            self.repositories,
            findings,
            math.ceil(findings * self.changed),
            latency=Decimal(str(self.latency)),
            concurrency=self.concurrency,
            page_size=self.page_size,
            memory=self.memory,
        )

    @property
    def batches(self) -> int:
        """Give how many batches Step Functions hands out."""
        return math.ceil(self.repositories / self.batch_repositories)

    @property
    def batch_repositories(self) -> int:
        """Give how many repositories a batch has."""
        return max(BATCH_REPOSITORIES, math.ceil(self.repositories / BATCHES))

    @property
    def in_flight(self) -> int:
        """Give how many requests one function has in flight."""
        return self.concurrency if self.engine is Engine.LAMBDA else max(1, self.concurrency // self.workers)

    @property
    def functions(self) -> int:
        """Give how many functions read side by side."""
        return 1 if self.engine is Engine.LAMBDA else min(self.workers, self.batches)

    @property
    def processor_share(self) -> float:
        """Give how much of a processor a function has; one Python process uses no more than a whole one."""
        return min(1.0, self.memory / float(MEGABYTES_OF_A_PROCESSOR))

    @property
    def list_pages(self) -> int:
        """Give in how many requests the list of repositories is read."""
        return pages(self.repositories, self.page_size)

    @property
    def requests_each(self) -> int:
        """Give how many requests a repository takes."""
        return self.domains * pages(math.ceil(self.tags / self.repositories), self.page_size)

    @property
    def requests(self) -> int:
        """Give how many requests the registry gets in a run."""
        # Under Step Functions every function logs in by itself: inventory, each batch, and prove, which sees to the rest.
        steps = 0 if self.engine is Engine.LAMBDA else LOGIN_REQUESTS_OF_A_STEP * (self.batches + 1)
        return LOGIN_REQUESTS + steps + self.list_pages + self.repositories * self.requests_each

    def grown_to(self, tags: int) -> Plan:
        """Give a registry of the same shape with so many tags."""
        return replace(self, tags=tags, repositories=max(1, round(self.repositories * tags / self.tags)))


@dataclass(frozen=True, slots=True)
class Day:
    """One run, in seconds."""

    seconds: float  # from its beginning to its end
    reading: float  # of which the registry is read
    invocations: int
    gb_seconds: float
    bound_by: str


def simulate_day(plan: Plan, moves: int) -> Day:
    """Simulate a run in which so many findings move."""
    read = simulate(reading_of(plan, moves), seed=plan.seed)
    return _day(plan, moves, read)


def estimate_day(plan: Plan, moves: int) -> Day:
    """Reckon the same by the closed formula: what is slowest decides, with a margin."""
    seconds = max(bounds(plan, moves).values()) / REACHED_SHARE
    if plan.engine is Engine.STEP_FUNCTIONS:
        rounds = math.ceil(plan.batches / plan.functions)
        seconds += rounds * _between_batches(plan)
    return _day(plan, moves, Read(seconds, plan.requests, seconds * plan.functions))


def bounds(plan: Plan, moves: int) -> dict[str, float]:
    """Give how long reading takes by each of the things that can be the slowest, if all others were in no time."""
    reading = reading_of(plan, moves)
    requests = plan.repositories * plan.requests_each + (plan.list_pages if reading.page_size else 0)
    in_flight = plan.in_flight * plan.functions
    found = {
        "answers": (plan.latency * requests + reading.known_latency * plan.repositories) / in_flight,
        "processor": plan.repositories
        * (reading.processor_in_thread + reading.processor_of_taking)
        / (plan.processor_share * plan.functions),
        "writes": plan.repositories * (reading.writes_each * reading.write_latency / WRITERS) / plan.functions,
    }
    if plan.registry_rps:
        found["registry's rate"] = requests / plan.registry_rps
    if reading.page_size:
        found["list"] = plan.list_pages * max(plan.latency, 1 / plan.registry_rps if plan.registry_rps else 0.0)
    return found


def reading_of(plan: Plan, moves: int) -> Reading:
    """Give what is read in a run in which so many findings move, as the simulation takes it."""
    tags_each = plan.tags / plan.repositories
    calls = count_calls(plan.workload, moves)
    writes_each = calls.batches / plan.repositories
    processor = float(PROCESSOR_OF_A_REPOSITORY) + float(PROCESSOR_OF_A_TAG) * tags_each * plan.domains
    fans_out = plan.engine is Engine.STEP_FUNCTIONS
    return Reading(
        repositories=plan.repositories,
        requests_each=plan.requests_each,
        latency=plan.latency,
        registry_rps=plan.registry_rps,
        in_flight=plan.in_flight,
        processor_share=plan.processor_share,
        processor_in_thread=processor * THREADS_SHARE_OF_PROCESSOR,
        processor_of_taking=processor * (1 - THREADS_SHARE_OF_PROCESSOR) + float(PROCESSOR_OF_A_WRITE) * writes_each,
        # One Lambda reads all of it at the start; each batch asks for its own repositories one by one.
        known_latency=float(AWS_LATENCY) if fans_out else 0.0,
        write_latency=float(AWS_LATENCY),
        writes_each=writes_each,
        page_size=0 if fans_out else plan.page_size,
        workers=plan.functions,
        batch=plan.batch_repositories if fans_out else 0,
        between_batches=_between_batches(plan) if fans_out else 0.0,
    )


def _between_batches(plan: Plan) -> float:
    secret = 1
    calls = OBJECTS_OF_A_BATCH + READS_OF_A_BATCH + RECORD_READS_OF_A_BATCH + secret
    return SECONDS_BETWEEN_BATCHES + LOGIN_REQUESTS_OF_A_STEP * plan.latency + calls * float(AWS_LATENCY)


def _day(plan: Plan, moves: int, read: Read) -> Day:
    limits = bounds(plan, moves)
    bound_by = max(limits, key=lambda name: limits[name])
    reporting = report_seconds(plan, moves)
    if plan.engine is Engine.LAMBDA:
        seconds = seconds_before_reading(plan, moves) + read.seconds + reporting
        return Day(seconds, read.seconds, 1, seconds * plan.memory / 1024, bound_by)
    start = float(SECONDS_TO_START)
    inventory = inventory_seconds(plan)
    prove = start + LOGIN_ROUNDS * plan.latency
    # Each worker starts cold once.
    reading = start + read.seconds
    functions = inventory + plan.functions * start + read.function_seconds + prove + start + reporting
    return Day(
        inventory + reading + prove + start + reporting,
        reading,
        plan.batches + 3,
        functions * plan.memory / 1024,
        bound_by,
    )


def seconds_before_reading(plan: Plan, moves: int) -> float:
    """Reckon how long one Lambda takes to start, to log in, and to read what earlier nights have left."""
    known = count_calls(plan.workload, moves).table_scans * float(AWS_LATENCY)
    return float(SECONDS_TO_START) + LOGIN_ROUNDS * plan.latency + known


def report_seconds(plan: Plan, moves: int) -> float:
    """Reckon how long a run takes to be closed: to read what is open and untold, and to note which findings have been told."""
    calls = count_planned_calls(plan, moves)
    threads = min(plan.concurrency, TRANSACTIONS)
    marks = calls.marks * max(float(AWS_LATENCY) / threads, float(PROCESSOR_OF_A_WRITE) / plan.processor_share)
    indexes = calls.index_queries * float(AWS_LATENCY)
    merged = 2 * plan.batches * float(AWS_LATENCY) if plan.engine is Engine.STEP_FUNCTIONS else 0.0
    return float(PROCESSOR_OF_A_RUN) / plan.processor_share + indexes + marks + merged


def inventory_seconds(plan: Plan) -> float:
    """Reckon how long the fan-out takes to list the registry, page after page, and to write the batches."""
    page = max(plan.latency, 1 / plan.registry_rps if plan.registry_rps else 0.0)
    return (
        float(SECONDS_TO_START)
        + (LOGIN_REQUESTS_OF_A_STEP + plan.list_pages) * page
        + (plan.batches + OBJECTS_OF_THE_STEPS) * float(AWS_LATENCY)
    )


# --- What a run uses -------------------------------------------------------------------------------------------------------------


def count_writes(moves: int) -> int:
    """Count DynamoDB's write units of a run in which so many findings move."""
    return WRITES_OF_A_RUN + WRITES_OF_A_MOVE * moves


def count_planned_calls(plan: Plan, moves: int) -> Calls:
    """Count the calls of a run in which so many findings move, by the engine of the plan."""
    single = count_calls(plan.workload, moves)
    if plan.engine is Engine.LAMBDA:
        return replace(single, registry_requests=plan.requests)
    batches = plan.batches
    parts = batches * math.ceil(plan.tags / batches / PART_ROWS)
    objects = parts - math.ceil(plan.tags / PART_ROWS) + OBJECTS_OF_A_BATCH * batches + OBJECTS_OF_THE_STEPS
    return replace(
        single,
        registry_requests=plan.requests,
        record_reads=single.record_reads + RECORD_READS_OF_A_BATCH * batches + RECORD_READS_OF_THE_STEPS,
        # A report that may be a second attempt looks first for what the first one has left untold.
        index_queries=single.index_queries + index_pages(moves),
        objects=single.objects + objects,
        lists=single.lists + batches + LISTS_OF_THE_STEPS,
        object_reads=single.object_reads + READS_OF_A_BATCH * batches + READS_OF_THE_STEPS,
        secret_reads=batches + SECRET_READS_OF_THE_STEPS,
        table_scans=0,
        queries=plan.repositories,
    )


def count_objects(plan: Plan) -> int:
    """Count the objects that a run writes to S3, those that go after a week among them."""
    return count_planned_calls(plan, 0).objects


def count_transitions(plan: Plan) -> int:
    """Count the state transitions of a run."""
    return TRANSITIONS_OF_A_RUN + TRANSITIONS_OF_A_BATCH * plan.batches if plan.engine is Engine.STEP_FUNCTIONS else 0


def row_megabytes(plan: Plan, days: int = 1) -> float:
    """Give how much a query reads of the rows of so many days, in millions of bytes."""
    return ROW_BYTES * plan.tags * days / 1e6


def use_of_planned_month(plan: Plan, day: Day) -> dict[str, Decimal]:
    """Give what a month of such nights uses, by the name of its price."""
    workload = plan.workload
    calls = count_planned_calls(plan, workload.changes)
    return {
        **use_of_month(workload),
        "lambda_gb_seconds": Decimal(repr(day.gb_seconds)) * workload.runs,
        "lambda_requests": Decimal(day.invocations * workload.runs),
        "dynamodb_reads": count_read_units(workload, workload.changes, calls) * workload.runs,
        "s3_writes": Decimal((calls.objects + calls.lists) * workload.runs),
        "s3_reads": Decimal(calls.object_reads * workload.runs),
        "secret_reads": Decimal(calls.secret_reads * workload.runs),
        "step_transitions": Decimal(count_transitions(plan) * workload.runs),
    }


# --- Limits ----------------------------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """What happens at a limit."""

    STOPS = "the run is not complete"
    FAILS = "the run is cut off, and made again"
    ENDS = "the run is ended, and no message is sent until it is redriven"
    CANCELS = "the query is cancelled"
    WAITS = "it takes longer"
    SHORTENS = "the first are named, all are counted"


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that a registry can outgrow."""

    name: str
    most: float
    unit: str
    kind: Kind
    used: Callable[[Plan], float]
    engines: tuple[Engine, ...] = tuple(Engine)

    def share(self, plan: Plan) -> float:
        """Give how much of it is used."""
        return self.used(plan) / self.most


def _first_reading(plan: Plan) -> float:
    return estimate_day(plan, plan.workload.findings).reading


def _first_writes(plan: Plan) -> float:
    """Reckon the findings that a first run writes in a second."""
    return plan.workload.findings / _first_reading(plan)


def _batch_seconds(plan: Plan) -> float:
    return float(SECONDS_TO_START) + _first_reading(plan) / math.ceil(plan.batches / plan.functions)


_ONE, _STEPS = (Engine.LAMBDA,), (Engine.STEP_FUNCTIONS,)

LIMITS = (
    Limit(
        "Lambda's time, for reading, in the first run",
        READING_SECONDS,
        "seconds",
        Kind.STOPS,
        lambda plan: seconds_before_reading(plan, plan.workload.findings) + _first_reading(plan),
        _ONE,
    ),
    Limit(
        "Lambda's time, for reading, in a usual run",
        READING_SECONDS,
        "seconds",
        Kind.STOPS,
        lambda plan: (
            seconds_before_reading(plan, plan.workload.changes) + estimate_day(plan, plan.workload.changes).reading
        ),
        _ONE,
    ),
    Limit(
        "Lambda's time, in all, in the first run",
        TIMEOUT_SECONDS,
        "seconds",
        Kind.FAILS,
        lambda plan: estimate_day(plan, plan.workload.findings).seconds,
        _ONE,
    ),
    Limit("Lambda's time, for the list", READING_SECONDS, "seconds", Kind.STOPS, inventory_seconds, _STEPS),
    Limit("Lambda's time, for one batch", READING_SECONDS, "seconds", Kind.STOPS, _batch_seconds, _STEPS),
    Limit(
        "Lambda's time, for the report of the first run",
        TIMEOUT_SECONDS,
        "seconds",
        Kind.FAILS,
        lambda plan: float(SECONDS_TO_START) + report_seconds(plan, plan.workload.findings),
        _STEPS,
    ),
    Limit(
        "the execution's time",
        EXECUTION_SECONDS,
        "seconds",
        Kind.ENDS,
        lambda plan: estimate_day(plan, plan.workload.findings).seconds,
        _STEPS,
    ),
    Limit(
        "memory",
        1.0,
        "of it",
        Kind.FAILS,
        lambda plan: (MEGABYTES_OF_A_RUN + BYTES_OF_A_REPOSITORY * plan.repositories / 2**20) / plan.memory,
    ),
    Limit(
        "the temporary files, for findings that wait",
        TEMPORARY_MEGABYTES,
        "MB",
        Kind.FAILS,
        lambda plan: SPOOL_BYTES * plan.workload.findings / 2**20,
    ),
    Limit("the list that is read", REPOSITORIES, "repositories", Kind.STOPS, lambda plan: plan.repositories),
    Limit("the pages that are read", PAGES, "pages", Kind.STOPS, lambda plan: plan.list_pages),
    Limit("DynamoDB's rate for a new table", NEW_TABLE_WRITES, "writes a second", Kind.WAITS, _first_writes),
    Limit(
        "DynamoDB's rate for an index's shards",
        SHARDS * PARTITION_WRITES,
        "writes a second",
        Kind.WAITS,
        _first_writes,
    ),
    Limit(
        f"Athena's limit, for the rows of {QUERY_DAYS} days",
        QUERY_LIMIT_MEGABYTES,
        "MB",
        Kind.CANCELS,
        lambda plan: row_megabytes(plan, QUERY_DAYS),
    ),
    Limit("findings in the evidence", FINDINGS_LISTED, "findings", Kind.SHORTENS, lambda plan: plan.workload.findings),
    Limit("findings in a message", MESSAGE_ITEMS, "findings", Kind.SHORTENS, lambda plan: plan.workload.changes),
)

# A registry is not looked for beyond this: there is none.
MOST_TAGS = 10**10


def limits_of(engine: Engine) -> list[Limit]:
    """Give the limits of an engine."""
    return [limit for limit in LIMITS if engine in limit.engines]


def reached_at(limit: Limit, plan: Plan) -> int | None:
    """Give how many tags a registry of this shape has when it meets a limit; None if none ever does."""
    low, high = 0, MOST_TAGS
    if limit.share(plan.grown_to(high)) < 1:
        return None
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if limit.share(plan.grown_to(middle)) >= 1 else (middle, high)
    return high


def ending_limits_of(engine: Engine) -> list[Limit]:
    """Give the limits of an engine that cost a run its answer."""
    return [limit for limit in limits_of(engine) if limit.kind in {Kind.STOPS, Kind.FAILS, Kind.ENDS}]


def first_ending_limit(plan: Plan) -> tuple[int, Limit]:
    """Give the first limit that costs a registry of this shape its answer as it grows, and how many tags it has then."""
    met = ((reached_at(limit, plan), limit) for limit in ending_limits_of(plan.engine))
    return min(((at, limit) for at, limit in met if at is not None), key=lambda one: one[0])


def binding(plan: Plan) -> Limit:
    """Give the limit that a registry is nearest to, or furthest beyond, of those that cost it its answer."""
    return max(ending_limits_of(plan.engine), key=lambda limit: limit.share(plan))


def fits(plan: Plan) -> bool:
    """Tell whether every night of a registry, the first one too, comes to its end."""
    return binding(plan).share(plan) <= 1


def explain_misfit(plan: Plan) -> str:
    """Say which limit a registry does not fit into, what happens then, and what would do; empty if it fits."""
    if fits(plan):
        return ""
    limit, finished = binding(plan), finish(plan)
    if finished is None:
        remedy = "None of the usual settings is enough, with `Engine` stepfunctions neither."
    else:
        remedy = f"This would do: {finished.formatted}."
        steps = finish(plan, [setting for setting in SETTINGS if setting.engine is Engine.STEP_FUNCTIONS])
        if finished.engine is Engine.LAMBDA and steps is not None:
            remedy += f" So would {steps.formatted}, with which several functions read side by side."
    return f"One run is not enough, for {limit.name}: then {limit.kind}. {remedy}"


def days_taken(plan: Plan) -> int:
    """Give in how many nights every repository has been read: one Lambda goes on where it was stopped the night before."""
    if plan.engine is Engine.STEP_FUNCTIONS:
        return 1
    return max(1, math.ceil(estimate_day(plan, plan.workload.changes).reading / READING_SECONDS))


def most_repositories(plan: Plan) -> int:
    """Give how many repositories, each with as many tags as these, one run of this plan can audit; in steps of a thousandth."""
    each = plan.tags / plan.repositories
    low, high = 0, REPOSITORIES
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        grown = replace(plan, repositories=middle, tags=math.ceil(each * middle))
        low, high = (middle, high) if fits(grown) else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Setting:
    """The template's parameters that decide how much is audited in one run."""

    memory: int = 512
    concurrency: int = 16
    page_size: int = 100
    engine: Engine = Engine.LAMBDA
    workers: int = 4

    @property
    def formatted(self) -> str:
        """Say what differs from the template's defaults."""
        default = Setting()
        said = [
            f"`{parameter}` {value}"
            for parameter, value, usual in (
                ("Engine", self.engine, default.engine),
                ("MemoryMegabytes", self.memory, default.memory),
                ("Concurrency", self.concurrency, default.concurrency),
                ("FanOutWorkers", self.workers, default.workers),
                ("PageSize", self.page_size, default.page_size),
            )
            if value != usual
        ]
        return ", ".join(said) or "the defaults"

    def applied_to(self, plan: Plan) -> Plan:
        """Give the same registry, audited by these."""
        return replace(
            plan,
            memory=self.memory,
            concurrency=self.concurrency,
            page_size=self.page_size,
            engine=self.engine,
            workers=self.workers,
        )


# From the least to the most that is asked of the registry and of whoever pays.
SETTINGS = (
    Setting(),
    Setting(memory=1_769),
    Setting(memory=1_769, concurrency=32),
    Setting(memory=1_769, concurrency=64),
    Setting(engine=Engine.STEP_FUNCTIONS),
    Setting(engine=Engine.STEP_FUNCTIONS, memory=1_769, concurrency=32),
    Setting(engine=Engine.STEP_FUNCTIONS, memory=1_769, concurrency=64, workers=8),
    Setting(engine=Engine.STEP_FUNCTIONS, memory=1_769, concurrency=64, workers=8, page_size=1_000),
)


def finish(plan: Plan, settings: Sequence[Setting] = SETTINGS) -> Setting | None:
    """Give the first of some settings by which a registry is audited in one run, None if none of them is enough."""
    return next((setting for setting in settings if fits(setting.applied_to(plan))), None)
