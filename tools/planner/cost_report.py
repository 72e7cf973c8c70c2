"""Bills on paper: what tools/planner/cost.py reckons, in tables of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from tools.planner.cost import (
    ALARM_METRICS,
    EXAMPLES,
    GB,
    HOURS_OF_A_MONTH,
    INTERFACE_ENDPOINTS,
    METRICS,
    ROW_BYTES,
    PriceList,
    Workload,
    count_calls,
    estimate_duration,
    estimate_processor,
    price,
    use_of_month,
    use_of_run,
)
from tools.planner.scale import Plan, explain_misfit


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a bill: which price, and what it is called."""

    price: str
    text: str


LINES = (
    Line("dashboards", "CloudWatch: the dashboard"),
    Line("kms_keys", "KMS: the key"),
    Line("alarms", f"CloudWatch: {ALARM_METRICS} alarms"),
    Line("secrets", "Secrets Manager: the secret"),
    Line("metrics", f"CloudWatch: {METRICS} metrics, in the hours of the runs"),
    Line("s3_storage", "S3: all rows so far"),
    Line("s3_writes", "S3: requests"),
    Line("s3_reads", "S3: requests that read"),
    Line("lambda_gb_seconds", "Lambda: time"),
    Line("lambda_requests", "Lambda: invocations"),
    Line("scheduler_invocations", "EventBridge Scheduler: invocations"),
    Line("dynamodb_reads", "DynamoDB: reads"),
    Line("dynamodb_writes", "DynamoDB: writes"),
    Line("dynamodb_storage", "DynamoDB: storage"),
    Line("dynamodb_recovery", "DynamoDB: point-in-time recovery"),
    Line("sns_publishes", "SNS: messages"),
    Line("sns_mails", "SNS: mails"),
    Line("kms_requests", "KMS: requests"),
    Line("kms_signatures", "KMS: signatures"),
    Line("secret_reads", "Secrets Manager: requests"),
    Line("security_hub_findings", "Security Hub: findings taken in"),
    Line("log_ingestion", "CloudWatch Logs: taken in"),
    Line("log_storage", "CloudWatch Logs: storage"),
    Line("endpoint_hours", "Interface endpoints"),
)

_FACTS: tuple[tuple[str, Callable[[Workload], Decimal | int]], ...] = (
    ("Repositories", lambda one: one.repositories),
    ("Findings that are open", lambda one: one.findings),
    ("Findings that move in a run", lambda one: one.changes),
    ("Requests to the registry in a run", lambda one: count_calls(one, one.changes).registry_requests),
    ("Calls of AWS in a run", lambda one: count_calls(one, one.changes).of_aws),
    ("Processor time of a run, in seconds", lambda one: estimate_processor(one, one.changes)),
    ("Duration of a run, in seconds", lambda one: estimate_duration(one, one.changes)),
    ("Duration of the first run, in seconds", lambda one: estimate_duration(one, one.findings)),
    ("Rows of a run, in MB", lambda one: Decimal(ROW_BYTES * one.tags) / 2**20),
    ("Rows of all runs so far, in GB", lambda one: Decimal(ROW_BYTES * one.tags) * one.runs * one.months / GB),
)


def quantities_table(workloads: Sequence[Workload]) -> str:
    """Put what the model says of registries into a table, one a column."""
    head = ["Tags", *(f"{one.tags:,}" for one in workloads)]
    return table(head, ([text, *(number(fact(one)) for one in workloads)] for text, fact in _FACTS))


def cost_table(workloads: Sequence[Workload], prices: PriceList) -> str:
    """Put the bills of registries into a table, one a column."""
    months = [use_of_month(one) for one in workloads]
    firsts = [price(use_of_run(one, one.findings), prices) for one in workloads]
    rows = [
        [line.text, *(money(prices.prices[line.price].of(month[line.price])) for month in months)]
        for line in LINES
        if any(month[line.price] for month in months)
    ]
    total = ["**In all, a month**", *(f"**{money(price(month, prices))}**" for month in months)]
    first = ["The first run, once", *(money(cost) for cost in firsts)]
    zones = 2
    hours = INTERFACE_ENDPOINTS * zones * HOURS_OF_A_MONTH
    endpoints = [
        f"Interface endpoints in {zones} zones, if wanted",
        *[money(prices.prices["endpoint_hours"].of(hours))] * len(months),
    ]
    reported = [replace(one, security_hub=True) for one in workloads]
    hub = [
        "Security Hub, if wanted",
        *(
            money(price(use_of_month(one), prices) - price(month, prices))
            for one, month in zip(reported, months, strict=True)
        ),
    ]
    head = [f"{prices.currency} a month", *(f"{one.tags:,} tags" for one in workloads)]
    return table(head, [*rows, total, first, endpoints, hub])


def detail_table(workload: Workload, prices: PriceList) -> str:
    """Put one registry's bill into a table that shows how it comes about."""
    month = use_of_month(workload)
    rows = [
        [
            line.text,
            number(month[line.price]),
            f"{prices.prices[line.price].price} {prices.prices[line.price].formatted_unit}",
            money(prices.prices[line.price].of(month[line.price])),
        ]
        for line in LINES
        if month[line.price]
    ]
    total = ["**In all, a month**", "", "", f"**{money(price(month, prices))}**"]
    return table(["What", "Quantity", "Price", prices.currency], [*rows, total], alignment="lrlr")


def prices_table(prices: PriceList) -> str:
    """Put the prices into a table, with where they stand."""
    rows = (
        [line.text.partition(":")[0], f"{found.price} {found.formatted_unit}", f"<{found.source}>"]
        for line in LINES
        for found in (prices.prices[line.price],)
    )
    return table(["Service", prices.currency, "Where it stands"], rows, alignment="lll")


def explain(prices: PriceList) -> str:
    """Say whose prices these are."""
    return (
        f"List prices of {prices.region}, typed in by hand on {prices.date}: check them before you rely on a sum. "
        "No free tier, no discount, no tax; no NAT gateway and no data transfer."
    )


def document(prices: PriceList) -> dict[str, str]:
    """Give the tables of docs/cost.md by their names."""
    return {
        "quantities": quantities_table(EXAMPLES),
        "bill": cost_table(EXAMPLES, prices),
        "prices": prices_table(prices),
    }


def describe(workload: Workload, prices: PriceList) -> str:
    """Say what one registry costs, as text."""
    parts = [quantities_table([workload]), detail_table(workload, prices)]
    parts.append(f"The first run, once: {money(price(use_of_run(workload, workload.findings), prices))}.")
    if misfit := explain_misfit(Plan.of(workload)):
        parts.append(f"{misfit} `make scale` says more.")
    return "\n\n".join([*parts, explain(prices)]) + "\n"


def number(value: Decimal | int) -> str:
    """Write a quantity, with as many digits as it deserves."""
    if isinstance(value, int) or value == value.to_integral_value() or value >= 100:
        return f"{value:,.0f}"
    if value >= 1:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= Decimal("0.005") else "< 0.01"


def money(value: Decimal) -> str:
    """Write an amount of money."""
    return f"{value:,.2f}" if value == 0 or value >= Decimal("0.005") else "< 0.01"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], alignment: str = "lrrr") -> str:
    """Write a table of Markdown; `alignment` is l or r for each column."""
    rule = ["---:" if side == "r" else "---" for side in alignment[: len(head)]]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
