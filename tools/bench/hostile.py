"""Memory under attack: the peak of the process while a registry answers with what takes the most once it is parsed.

Each attack is held against an honest registry of the same size: as many repositories, and as much text in each answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tools.bench import results
from tools.bench.registry import Attack, Shape
from tools.bench.stage import Stage

TITLE = "Memory under attack"
GOAL = 1.3
LAMBDA_BYTES = 512 * 1024 * 1024
REPOSITORIES = 60
REPEATED = 2
# Of each answer: a page of the default size, and a list that comes whole, as from a server that ignores the page size.
PAGE = Shape(REPOSITORIES, 100)
WHOLE_LIST = Shape(REPOSITORIES, 4_500, ignores_page_size=True)
ATTACKS = {
    "31 MiB of lists": (PAGE, Attack("[],", 31 * 1024 * 1024)),
    "31 MiB of objects": (PAGE, Attack('{"":{}},', 31 * 1024 * 1024)),
    "31 MiB of numbers": (PAGE, Attack("999,", 31 * 1024 * 1024)),
    "64 KiB of lists": (PAGE, Attack("[],", 65_000)),
    "64 KiB of lists within lists": (PAGE, Attack("[" * 30 + "]" * 30 + ",", 65_000)),
    "2 MB, as many lists as are let through": (WHOLE_LIST, Attack('[],"123456789012",', 2_000_000)),
    "2 MB of numbers": (WHOLE_LIST, Attack("999,", 2_000_000)),
}


def measure(repetitions: int) -> dict[str, Any]:
    """Measure every attack, and the honest registries beside them."""
    del repetitions
    with Stage() as stage:
        honest = {shape: _peak(stage, shape, REPEATED) for shape in (PAGE, WHOLE_LIST)}
        attacks: list[dict[str, Any]] = [
            {
                "name": name,
                "peak_bytes": _peak(stage, replace(shape, attack=attack), REPEATED),
                "honest_peak_bytes": honest[shape],
            }
            for name, (shape, attack) in ATTACKS.items()
        ]
    goals = {
        f"peak memory, of an honest registry's: {one['name']}": results.goal(
            one["peak_bytes"] / one["honest_peak_bytes"], at_most=GOAL
        )
        for one in attacks
    }
    most = max(one["peak_bytes"] for one in attacks)
    goals["peak memory, of the 512 MB of the function"] = results.goal(most / LAMBDA_BYTES, at_most=1.0)
    return {"repositories": REPOSITORIES, "attacks": attacks, "goals": goals}


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the peaks, and the goals."""
    return [
        results.Table.of(
            ("each repository answers with", "peak", "an honest registry's", "times"),
            [
                (
                    one["name"],
                    f"{one['peak_bytes'] / 1e6:.1f} MB",
                    f"{one['honest_peak_bytes'] / 1e6:.1f} MB",
                    f"{one['peak_bytes'] / one['honest_peak_bytes']:.2f}",
                )
                for one in numbers["attacks"]
            ],
        ),
        results.tabulate_goals(numbers["goals"]),
    ]


def _peak(stage: Stage, shape: Shape, repeated: int) -> int:
    stage.hold(shape)
    return max(stage.audit().peak_bytes for _ in range(repeated))
