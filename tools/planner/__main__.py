"""The planner: `python -m tools.planner cost` and `scale`."""

from __future__ import annotations

import argparse
import sys
from decimal import Decimal
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run a command; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.planner", description="Plan a deployment: what audits cost, and how far they carry."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="cost | scale")
    for add in (_add_cost, _add_scale):
        add(commands)
    options = parser.parse_args(arguments)
    status: int = options.command(options)
    return status


def _add_cost(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    cost = commands.add_parser(
        "cost",
        help="what a month costs, reckoned from a price list",
        description="Reckon what a month of auditing one registry costs in AWS. Without --tags and --repositories: the three "
        "examples of docs/cost.md.",
        allow_abbrev=False,
    )
    cost.add_argument("--tags", type=int, metavar="N", help="image tags in the registry")
    cost.add_argument("--repositories", type=int, metavar="N", help="repositories in the registry")
    cost.add_argument("--findings", type=int, metavar="N", help="findings open at a time (one tag in a hundred)")
    cost.add_argument("--changes", type=int, metavar="N", help="findings that move in a run (one in twenty)")
    cost.add_argument("--runs-per-month", type=int, default=30, metavar="N", help="(30)")
    cost.add_argument("--months", type=int, default=12, metavar="N", help="months since the deployment (12)")
    cost.add_argument("--mails", type=int, default=3, metavar="N", help="addresses that get each message (3)")
    cost.add_argument("--zones", type=int, default=0, metavar="N", help="zones with interface endpoints (0: none)")
    cost.add_argument("--signed", action="store_true", help="manifests are signed, with a key of yours")
    cost.add_argument("--security-hub", action="store_true", help="findings go to Security Hub as well")
    cost.add_argument("--latency-ms", type=int, default=100, metavar="N", help="time of the registry's answers (100)")
    cost.add_argument("--concurrency", type=int, default=16, metavar="N", help="the template's Concurrency (16)")
    cost.add_argument("--page-size", type=int, default=100, metavar="N", help="the template's PageSize (100)")
    cost.add_argument("--memory", type=int, default=512, metavar="MB", help="the template's MemoryMegabytes (512)")
    cost.add_argument(
        "--baseline", type=int, default=0, metavar="KB", help="size of a checklist of yours to answer in (0)"
    )
    cost.add_argument("--prices", type=Path, metavar="FILE", help="your region's prices (tools/planner/prices.json)")
    cost.set_defaults(command=_cost, parser=cost)


def _add_scale(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    scale = commands.add_parser(
        "scale",
        help="how long a night takes, what it uses, and which limit is met first: simulated",
        description="Simulate audits of one registry, by both engines or by one. Without --tags and --repositories: the tables of "
        "docs/scale.md.",
        allow_abbrev=False,
    )
    scale.add_argument("--tags", type=int, metavar="N", help="image tags in the registry")
    scale.add_argument("--repositories", type=int, metavar="N", help="repositories in the registry")
    scale.add_argument("--engine", choices=("lambda", "stepfunctions"), help="the template's Engine (both)")
    scale.add_argument(
        "--latency-ms", type=float, default=100.0, metavar="N", help="time of the registry's answers (100)"
    )
    scale.add_argument(
        "--registry-rps",
        type=float,
        default=0.0,
        metavar="N",
        help="requests a second that it answers (0: all that are asked)",
    )
    scale.add_argument("--concurrency", type=int, default=16, metavar="N", help="the template's Concurrency (16)")
    scale.add_argument("--workers", type=int, default=4, metavar="N", help="the template's FanOutWorkers (4)")
    scale.add_argument("--page-size", type=int, default=100, metavar="N", help="the template's PageSize (100)")
    scale.add_argument("--memory", type=int, default=512, metavar="MB", help="the template's MemoryMegabytes (512)")
    scale.add_argument("--domains", type=int, default=1, metavar="N", help="domains that images are pushed under (1)")
    scale.add_argument(
        "--unsigned", type=float, default=1.0, metavar="PERCENT", help="of the tags that are findings (1)"
    )
    scale.add_argument(
        "--changed",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="of the findings that open or are resolved in a night (5)",
    )
    scale.add_argument("--seed", type=int, default=1, metavar="N", help="another night of the same kind (1)")
    scale.add_argument("--prices", type=Path, metavar="FILE", help="your region's prices (tools/planner/prices.json)")
    scale.add_argument(
        "--write",
        action="store_true",
        help="write the tables into docs/scale.md and docs/deploy.md; without --tags",
    )
    scale.set_defaults(command=_scale, parser=scale)


def _cost(options: argparse.Namespace) -> int:
    from tools.planner.cost import PRICES, PriceList, Workload  # noqa: PLC0415
    from tools.planner.cost_report import describe, document, explain  # noqa: PLC0415 (see above)

    if (options.tags is None) is not (options.repositories is None):
        options.parser.error("--tags and --repositories belong together")
    try:
        prices = PriceList.read(options.prices or PRICES)
        if options.tags is None:
            print("\n\n".join([*document(prices).values(), explain(prices)]))
            return 0
        workload = Workload.of(
            options.tags,
            options.repositories,
            findings=options.findings,
            changes=options.changes,
            runs=options.runs_per_month,
            months=options.months,
            mails=options.mails,
            zones=options.zones,
            signed=options.signed,
            security_hub=options.security_hub,
            latency=Decimal(options.latency_ms) / 1000,
            concurrency=options.concurrency,
            page_size=options.page_size,
            memory=options.memory,
            baseline=1024 * options.baseline,
        )
    except ValueError as error:
        options.parser.error(str(error))
    print(describe(workload, prices), end="")
    return 0


def _scale(options: argparse.Namespace) -> int:
    from tools.planner.cost import PRICES, PriceList  # noqa: PLC0415 (see above)
    from tools.planner.scale import Engine, Plan  # noqa: PLC0415
    from tools.planner.scale_tables import DOCUMENTS, check_prices, describe, document, write_into  # noqa: PLC0415

    if (options.tags is None) is not (options.repositories is None):
        options.parser.error("--tags and --repositories belong together")
    if options.write and options.tags is not None:
        options.parser.error("--write writes the tables of the documents: leave --tags and --repositories away")
    try:
        prices = PriceList.read(options.prices or PRICES)
        check_prices(prices)
        if options.tags is None:
            tables = document(prices)
            for path in DOCUMENTS if options.write else ():
                write_into(path, tables)
            print("\n\n".join(f"{name}\n\n{table}" for name, table in tables.items()))
            return 0
        for engine in [Engine(options.engine)] if options.engine else list(Engine):
            plan = Plan(
                options.tags,
                options.repositories,
                engine=engine,
                latency=options.latency_ms / 1000,
                registry_rps=options.registry_rps,
                concurrency=options.concurrency,
                page_size=options.page_size,
                memory=options.memory,
                workers=options.workers,
                domains=options.domains,
                unsigned=options.unsigned / 100,
                changed=options.changed / 100,
                seed=options.seed,
            )
            print(f"Engine: {engine}\n\n{describe(plan, prices)}")
    except ValueError as error:
        options.parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
