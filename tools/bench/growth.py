"""Memory and growth: the peak of the process, and what each further tag costs, from a thousand tags to a million.

One series grows by tags, in repositories of 200, all signed; one likewise, a tenth of them unsigned; and one by repositories
of 20 tags. Growth is linear where the last tag costs what the first ones did: so what is compared is the cost of a further
tag, between neighbouring sizes, once the fixed part of an audit is taken off.
"""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

from tools.bench import results
from tools.bench.registry import Shape
from tools.bench.stage import Stage

TITLE = "Memory and growth"
MEMORY_GOAL = 1.2
GROWTH_GOAL = 1.1
SERIES = {
    "tags, all signed": [Shape(tags // 200, 200) for tags in (1_000, 10_000, 100_000, 1_000_000)],
    "tags, 10 % unsigned": [Shape(tags // 200, 200, unsigned_every=10) for tags in (1_000, 10_000, 100_000, 1_000_000)],
    "repositories of 20 tags": [Shape(tags // 20, 20) for tags in (1_000, 10_000, 100_000, 1_000_000)],
}
MEMORY_FROM = 10_000  # tags
REPEATED_BELOW = 50_000  # tags: small audits are measured three times
REPEATED = 3


def measure(repetitions: int) -> dict[str, Any]:
    """Measure every size of every series."""
    del repetitions
    with Stage() as stage:
        series = {name: [_measure(stage, shape) for shape in shapes] for name, shapes in SERIES.items()}
    goals: dict[str, Any] = {}
    for name, sizes in series.items():
        add_growth(sizes)
        peaks = [one["peak_bytes"] for one in sizes if one["all_tags"] >= MEMORY_FROM]
        goals[f"peak memory, most over least: {name}"] = results.goal(max(peaks) / min(peaks), at_most=MEMORY_GOAL)
        for what in ("processor", "wall"):
            grown = [one[f"{what}_growth"] for one in sizes if f"{what}_growth" in one]
            goals[f"a further tag's {what} time, beside an earlier one's: {name}"] = results.goal(
                max(grown), at_most=GROWTH_GOAL
            )
    return {"series": series, "goals": goals}


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the sizes, and the goals."""
    return [
        results.Table.of(
            ("grows by", "tags", "repositories", "findings", "seconds", "processor", "peak", "1 000 more", "growth"),
            [
                (
                    name,
                    f"{one['all_tags']:,}",
                    f"{one['repositories']:,}",
                    f"{one['findings']:,}",
                    f"{one['seconds']:.1f}",
                    f"{one['processor_seconds']:.1f}",
                    f"{one['peak_bytes'] / 1e6:.1f} MB",
                    f"{one['processor_marginal']:.1f} ms" if "processor_marginal" in one else "",
                    f"{one['processor_growth']:.2f}" if "processor_growth" in one else "",
                )
                for name, sizes in numbers["series"].items()
                for one in sizes
            ],
        ),
        results.tabulate_goals(numbers["goals"]),
    ]


def _measure(stage: Stage, shape: Shape) -> dict[str, Any]:
    stage.hold(shape)
    taken = [stage.audit() for _ in range(REPEATED if shape.all_tags < REPEATED_BELOW else 1)]
    return {
        "all_tags": shape.all_tags,
        "repositories": shape.repositories,
        "findings": taken[0].record["findings"]["open"],
        "seconds": statistics.median(one.seconds for one in taken),
        "processor_seconds": statistics.median(one.processor_seconds for one in taken),
        "peak_bytes": max(one.peak_bytes for one in taken),
        "loaded_bytes": taken[0].loaded_bytes,
    }


def add_growth(sizes: list[dict[str, Any]]) -> None:
    """Add to each size what a thousand further tags cost since the one before, and how that compares with its own."""
    for what in ("processor", "wall"):
        key = "processor_seconds" if what == "processor" else "seconds"
        for smaller, larger in pairwise(sizes):
            further = (larger[key] - smaller[key]) / (larger["all_tags"] - smaller["all_tags"])
            larger[f"{what}_marginal"] = 1e6 * further
            # The step from a thousand tags is a few hundredths of a second, too small to be held against.
            if f"{what}_marginal" in smaller and smaller["all_tags"] > MEMORY_FROM:
                larger[f"{what}_growth"] = larger[f"{what}_marginal"] / smaller[f"{what}_marginal"]
