"""What a benchmark leaves behind: a table for people, and a file of the same numbers with the machine they are true for."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local import PROJECT

FOLDER = PROJECT / "build" / "bench"


def median(seconds: Sequence[float]) -> float:
    """Give the median, in milliseconds."""
    return round(statistics.median(seconds) * 1000, 1)


def describe_machine() -> dict[str, Any]:
    """Say what the numbers were measured on."""
    models = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    return {"cpu": models[0] if models else platform.machine(), "cores": os.cpu_count(), "system": platform.platform()}


def write(name: str, numbers: dict[str, Any]) -> Path:
    """Keep a benchmark's numbers; give the file."""
    file = FOLDER / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    stamped = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe_machine(), **numbers}
    file.write_text(json.dumps(stamped, indent=2) + "\n", encoding="utf-8")
    return file


def goal(ratio: float, *, at_least: float | None = None, at_most: float | None = None) -> dict[str, Any]:
    """Hold a ratio against its goal, which has one of the two limits."""
    if at_least is not None:
        return {"ratio": round(ratio, 3), "goal": at_least, "at": "least", "met": ratio >= at_least}
    if at_most is not None:
        return {"ratio": round(ratio, 3), "goal": at_most, "at": "most", "met": ratio <= at_most}
    raise ValueError("a goal needs a limit")


def verdict(held: dict[str, Any]) -> str:
    """Say whether a goal is met, and if not, by how much it is missed."""
    return "met" if held["met"] else f"missed by {abs(held['ratio'] - held['goal']):.2f}"


def print_goals(what: str, goals: Mapping[str, dict[str, Any]]) -> None:
    """Print each ratio beside its goal."""
    for name, held in goals.items():
        print(f"{what}{name}: {held['ratio']:.2f} (goal: at {held['at']} {held['goal']:g}; {verdict(held)})")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows whose first column is text and whose others are numbers."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print(first, *others, sep="  ")


def _read(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
