"""How far each engine carries, on paper: what tools/planner/scale.py reckons, in tables of Markdown."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from dtr_audit_simulator import PROJECT
from tools.planner.cost import (
    AWS_LATENCY,
    PROCESSOR_OF_A_REPOSITORY,
    PROCESSOR_OF_A_RUN,
    PROCESSOR_OF_A_TAG,
    PROCESSOR_OF_A_WRITE,
    ROW_BYTES,
    SECONDS_TO_START,
    PriceList,
)
from tools.planner.cost_report import LINES, money, number, table
from tools.planner.scale import (
    BYTES_OF_A_REPOSITORY,
    MEGABYTES_OF_A_RUN,
    MOST_TAGS,
    QUERY_DAYS,
    SECONDS_BETWEEN_BATCHES,
    SPOOL_BYTES,
    THREADS_SHARE_OF_PROCESSOR,
    Day,
    Engine,
    Limit,
    Plan,
    binding,
    count_objects,
    count_transitions,
    count_writes,
    days_taken,
    explain_misfit,
    finish,
    first_ending_limit,
    fits,
    limits_of,
    most_repositories,
    reached_at,
    row_megabytes,
    simulate_day,
    use_of_planned_month,
)
from tools.planner.simulation import Reading, simulate

# Where the tables of document() stand, each below a comment with its name.
DOCUMENTS = (PROJECT / "docs" / "scale.md", PROJECT / "docs" / "deploy.md")

MEASURED = PROJECT / "docs" / "performance.json"
LIST_PAGE = 100  # of the audits that were measured

TAGS_EACH = 50  # of a repository, in the worked examples
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
LATENCIES = (0.02, 0.05, 0.1, 0.2, 0.5)
THRESHOLD_SETTINGS = ((512, 16), (1_769, 16), (1_769, 64))  # memory in megabytes, and requests at once
RATES = (20, 50, 100, 200)
SHARES_UNSIGNED = (0.01, 0.1, 1.0)
SHAPE = Plan(SIZES[2], SIZES[2] // TAGS_EACH)
NEW_PRICES = ("step_transitions", "athena_scanned")
_NEVER = "none"
_TABLE = re.compile(r"^<!-- scale: ([\w-]+) -->\n((?:\|.*\n)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Measured:
    """A whole audit that `make bench` measured, of repositories of one request each."""

    latency: float
    concurrency: int
    requests: int  # one for each repository, and one for each page of their list
    seconds: float  # while the registry was read
    processor_share: float  # of the one core that it had

    @property
    def reading(self) -> Reading:
        """Give the same audit to be simulated, with the processor time that it took, from a registry that is always as fast."""
        repositories = round(self.requests * LIST_PAGE / (LIST_PAGE + 1))
        processor = self.processor_share * self.seconds / repositories
        return Reading(
            repositories=repositories,
            requests_each=1,
            latency=self.latency,
            registry_rps=0.0,
            in_flight=self.concurrency,
            processor_share=1.0,
            processor_in_thread=processor * THREADS_SHARE_OF_PROCESSOR,
            processor_of_taking=processor * (1 - THREADS_SHARE_OF_PROCESSOR),
            known_latency=0.0,
            write_latency=0.0,
            writes_each=0.0,
            page_size=LIST_PAGE,
            latency_spread=0.0,
        )


def read_measured(path: Path) -> list[Measured]:
    """Read what was measured of requests in flight."""
    points = json.loads(path.read_text(encoding="utf-8"))["in-flight"]["points"]
    return [
        Measured(
            latency=point["latency"],
            concurrency=point["concurrency"],
            requests=point["requests"],
            seconds=point["reading_seconds"],
            processor_share=point["processor_share"],
        )
        for point in points
    ]


@dataclass(frozen=True, slots=True)
class Outlook:
    """One plan, with its nights simulated once."""

    plan: Plan
    first: Day
    usual: Day
    month: dict[str, Decimal]

    @classmethod
    def of(cls, plan: Plan) -> Outlook:
        """Simulate the nights of a plan."""
        usual = simulate_day(plan, plan.workload.changes)
        return cls(plan, simulate_day(plan, plan.workload.findings), usual, use_of_planned_month(plan, usual))


def _format_nearest(one: Outlook) -> str:
    limit = binding(one.plan)
    return f"{limit.name}: {number(Decimal(repr(100 * limit.share(one.plan))))} %"


_FACTS: tuple[tuple[str, Callable[[Outlook], str]], ...] = (
    ("Repositories", lambda one: number(one.plan.repositories)),
    ("Requests to the registry", lambda one: number(one.plan.requests)),
    ("Duration of a usual run", lambda one: _format_time(one.usual.seconds)),
    ("Duration of the first run", lambda one: _format_time(one.first.seconds)),
    ("Runs until every repository was read", lambda one: number(days_taken(one.plan))),
    ("The slowest of all in a usual run", lambda one: one.usual.bound_by),
    ("Lambda, in GB-seconds", lambda one: number(round(one.usual.gb_seconds))),
    ("Invocations", lambda one: number(one.usual.invocations)),
    ("DynamoDB: writes of the first run", lambda one: number(count_writes(one.plan.workload.findings))),
    ("DynamoDB: writes of a usual run", lambda one: number(count_writes(one.plan.workload.changes))),
    ("DynamoDB: writes of a run without change", lambda one: number(count_writes(0))),
    ("S3: objects written", lambda one: number(count_objects(one.plan))),
    ("S3: rows, in MB", lambda one: _format_megabytes(row_megabytes(one.plan))),
    ("Athena: MB read of one day", lambda one: _format_megabytes(row_megabytes(one.plan))),
    (
        f"Athena: MB read of {QUERY_DAYS} days",
        lambda one: _format_megabytes(row_megabytes(one.plan, QUERY_DAYS)),
    ),
    ("Step Functions: transitions", lambda one: number(count_transitions(one.plan))),
    ("Nearest limit, and how much of it is used", _format_nearest),
    ("One run is enough", lambda one: "yes" if fits(one.plan) else "**no**"),
)


def engine_table(outlooks: Sequence[Outlook]) -> str:
    """Put registries audited by one engine into a table, one a column."""
    head = ["Tags", *(number(one.plan.tags) for one in outlooks)]
    rows = ([text, *(fact(one) for one in outlooks)] for text, fact in _FACTS)
    return table(head, rows, alignment="l" + "r" * len(outlooks))


def month_table(outlooks: Sequence[Outlook], prices: PriceList) -> str:
    """Put what a month costs, by service, into a table, one registry a column."""
    cost_reports = [_by_service(one, prices) for one in outlooks]
    services = sorted(
        {service for cost_report in cost_reports for service in cost_report}, key=lambda name: -cost_reports[-1][name]
    )
    rows = [[name, *(money(cost_report[name]) for cost_report in cost_reports)] for name in services]
    total = [
        "**In all, a month**",
        *(f"**{money(sum(cost_report.values(), Decimal(0)))}**" for cost_report in cost_reports),
    ]
    query = [
        f"One query over {QUERY_DAYS} days",
        *(money(_price(prices, "athena_scanned", row_megabytes(one.plan, QUERY_DAYS))) for one in outlooks),
    ]
    head = [f"{prices.currency} a month", *(f"{one.plan.tags:,} tags" for one in outlooks)]
    return table(head, [*rows, total, query], alignment="l" + "r" * len(outlooks))


def limits_table(plan: Plan) -> str:
    """Put every limit into a table, the first one met first: how much there is, what meets it, and what happens then."""
    both = {engine: replace(plan, engine=engine) for engine in Engine}
    met = {
        limit: {engine: reached_at(limit, both[engine]) for engine in limit.engines}
        for limit in dict.fromkeys((*limits_of(Engine.LAMBDA), *limits_of(Engine.STEP_FUNCTIONS)))
    }
    order = sorted(met, key=lambda limit: min(at or MOST_TAGS for at in met[limit].values()))
    rows = [
        [
            _capital(limit.name),
            _format_most(limit, plan),
            *(_format_tags(met[limit][engine]) if engine in limit.engines else "" for engine in Engine),
            limit.kind,
        ]
        for limit in order
    ]
    head = ["Limit", "How much there is", "Met at so many tags: `lambda`", "`stepfunctions`", "Then"]
    return table(head, rows, alignment="lrrrl")


def unsigned_table() -> str:
    """Put into a table how large a registry may be in its first run, by how much of it is unsigned."""
    rows = []
    for share in SHARES_UNSIGNED:
        row = [f"{100 * share:.0f} %"]
        for engine in Engine:
            at, limit = first_ending_limit(replace(SHAPE, unsigned=share, engine=engine))
            row += [_format_tags(at), limit.name]
        rows.append(row)
    head = ["Unsigned", "`lambda`: tags", "because of", "`stepfunctions`: tags", "because of"]
    return table(head, rows, alignment="rrlrl")


def threshold_table() -> str:
    """Put into a table how many repositories one Lambda audits in one night, by the registry's latency."""
    rows = [
        [
            f"{1000 * latency:.0f} ms",
            *(
                f"{_rounded(most_repositories(replace(SHAPE, latency=latency, memory=memory, concurrency=concurrency))):,}"
                for memory, concurrency in THRESHOLD_SETTINGS
            ),
        ]
        for latency in LATENCIES
    ]
    head = [
        "The registry answers in",
        *(
            f"{memory} MB, {concurrency} at once" + (" (the defaults)" if number == 0 else "")
            for number, (memory, concurrency) in enumerate(THRESHOLD_SETTINGS)
        ),
    ]
    return table(head, rows)


def settings_table() -> str:
    """Put into a table what to set at which size, by the registry's latency."""
    rows = []
    for tags in SIZES:
        plans = [replace(SHAPE, latency=latency).grown_to(tags) for latency in LATENCIES]
        finished = [finish(plan) for plan in plans]
        rows.append(
            [f"{tags:,}", *(one.formatted if one is not None else "none of these is enough" for one in finished)]
        )
    head = ["Tags", *(f"{1000 * latency:.0f} ms" for latency in LATENCIES)]
    return table(head, rows, alignment="l" * len(head))


def rates_table() -> str:
    """Put into a table how long a night is if the registry answers only so many requests a second."""
    rows = [
        [
            f"{tags:,}",
            *(
                _format_time(simulate_day(plan, plan.workload.changes).seconds)
                for rate in RATES
                for plan in (
                    replace(SHAPE, engine=Engine.STEP_FUNCTIONS, concurrency=64, registry_rps=float(rate)).grown_to(
                        tags
                    ),
                )
            ),
        ]
        for tags in SIZES
    ]
    head = ["Tags", *(f"{rate} a second" for rate in RATES)]
    return table(head, rows, alignment="r" * len(head))


def measured_table() -> str:
    """Put what was measured, and what is only taken to be so, into a table."""
    fitted = "measured, and a quarter to a third more"
    rows = [
        ["Processor time of a run", f"{PROCESSOR_OF_A_RUN} s", fitted],
        ["of a repository", f"{1000 * PROCESSOR_OF_A_REPOSITORY:.2f} ms", fitted],
        ["of a tag", f"{1_000_000 * PROCESSOR_OF_A_TAG:.0f} µs", fitted],
        [
            "of a write of findings, and of a mark that one was notified",
            f"{1000 * PROCESSOR_OF_A_WRITE:.1f} ms",
            fitted,
        ],
        ["A row, compressed", f"{ROW_BYTES} bytes", "measured"],
        ["Memory of a run", f"{MEGABYTES_OF_A_RUN} MB", "assumed"],
        ["Memory of a repository that was listed", f"{BYTES_OF_A_REPOSITORY} bytes", "measured"],
        ["A finding that waits in a file", f"{SPOOL_BYTES} bytes", "measured"],
        ["An answer of DynamoDB or S3", f"{1000 * AWS_LATENCY:.0f} ms", "assumed"],
        ["A cold start, until the registry is asked", f"{SECONDS_TO_START} s", "assumed"],
        ["Between two batches of a worker", f"{SECONDS_BETWEEN_BATCHES} s", "assumed"],
    ]
    return table(["What", "How much", "How it is known"], rows, alignment="lrl")


def prices_table(prices: PriceList) -> str:
    """Put the prices that stand in no bill of docs/cost.md into a table."""
    rows = [
        [name, f"{found.price} {found.formatted_unit}", f"<{found.source}>"]
        for name, found in (
            ("Step Functions", prices.prices["step_transitions"]),
            ("Athena", prices.prices["athena_scanned"]),
        )
    ]
    return table(["Service", prices.currency, "Source"], rows, alignment="lll")


def document(prices: PriceList) -> dict[str, str]:
    """Give the tables of docs/scale.md by their names, and that of docs/deploy.md."""
    by_engine = {
        engine: [Outlook.of(replace(SHAPE, engine=engine).grown_to(tags)) for tags in SIZES] for engine in Engine
    }
    return {
        "settings": settings_table(),
        "lambda": engine_table(by_engine[Engine.LAMBDA]),
        "stepfunctions": engine_table(by_engine[Engine.STEP_FUNCTIONS]),
        "rates": rates_table(),
        "limits": limits_table(SHAPE),
        "unsigned": unsigned_table(),
        "month-lambda": month_table(by_engine[Engine.LAMBDA], prices),
        "month-stepfunctions": month_table(by_engine[Engine.STEP_FUNCTIONS], prices),
        "measured": measured_table(),
        "prices": prices_table(prices),
        "threshold": threshold_table(),
        "against": compare_table(read_measured(MEASURED)),
    }


def compare_table(points: Sequence[Measured]) -> str:
    """Put audits that were measured beside what the simulation says of them into a table."""
    rows = [
        [
            f"{1000 * point.latency:.0f} ms",
            str(point.concurrency),
            number(point.requests),
            f"{point.seconds:.1f} s",
            f"{simulated:.1f} s",
            f"{100 * (simulated / point.seconds - 1):+.0f} %",
        ]
        for point in points
        for simulated in (simulate(point.reading).seconds,)
    ]
    head = ["The registry answers in", "Concurrency", "Requests", "Measured", "Simulated", "Difference"]
    return table(head, rows, alignment="r" * len(head))


def tables_in(path: Path) -> dict[str, str]:
    """Give the tables that stand in a document, by their names."""
    return dict(_TABLE.findall(path.read_text(encoding="utf-8")))


def write_into(path: Path, tables: Mapping[str, str]) -> None:
    """Put tables into a document in place of those of the same names."""
    text = path.read_text(encoding="utf-8")
    path.write_text(
        _TABLE.sub(lambda found: f"<!-- scale: {found[1]} -->\n{tables[found[1]]}\n", text), encoding="utf-8"
    )


def describe(plan: Plan, prices: PriceList) -> str:
    """Say how one registry is audited by one engine, as text."""
    outlook = Outlook.of(plan)
    parts = [engine_table([outlook]), month_table([outlook], prices)]
    if misfit := explain_misfit(plan):
        parts.append(misfit)
    return "\n\n".join(parts) + "\n"


def check_prices(prices: PriceList) -> None:
    """Raise ValueError if a price list lacks what is paid for by nothing in docs/cost.md."""
    for name in NEW_PRICES:
        if name not in prices.prices:
            raise ValueError(f"the price of {name} is missing in the price list; tools/planner/prices.json has it")


def _by_service(one: Outlook, prices: PriceList) -> dict[str, Decimal]:
    services = {line.price: line.text.partition(":")[0] for line in LINES} | {"step_transitions": "Step Functions"}
    cost_report: dict[str, Decimal] = defaultdict(Decimal)
    for name, quantity in one.month.items():
        if quantity:
            cost_report[services[name].removesuffix(" Logs")] += prices.prices[name].of(quantity)
    return cost_report


def _price(prices: PriceList, name: str, quantity: float) -> Decimal:
    return prices.prices[name].of(Decimal(repr(quantity)))


def _format_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _format_megabytes(megabytes: float) -> str:
    return number(Decimal(repr(megabytes)))


def _rounded(value: int) -> int:
    """Round down to two digits: more would be a promise."""
    step = int(10 ** max(0, len(str(value)) - 2))
    return value // step * step


def _format_tags(tags: int | None) -> str:
    return _NEVER if tags is None else f"{_rounded(tags):,}"


def _format_most(limit: Limit, plan: Plan) -> str:
    if limit.name == "memory":
        return f"{plan.memory} MB"
    return f"{limit.most:,.0f} {limit.unit}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
