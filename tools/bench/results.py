"""What a benchmark leaves behind: tables for people, and a file of the same numbers with the machine they are true for."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dtr_audit_simulator import PROJECT

FOLDER = PROJECT / "build" / "bench"

Numbers = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows whose first column is text and whose others are numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, head: Iterable[str], rows: Iterable[Iterable[str]]) -> "Table":
        """Make a table; raises ValueError for a row that does not fit its head."""
        table = cls(tuple(head), tuple(tuple(row) for row in rows))
        if any(len(row) != len(table.head) for row in table.rows):
            raise ValueError(f"a row does not fit the head {table.head}")
        return table

    def as_text(self) -> str:
        """Write it for a terminal."""
        widths = [max(len(row[column]) for row in (self.head, *self.rows)) for column in range(len(self.head))]
        lines = []
        for row in (self.head, ["-" * width for width in widths], *self.rows):
            first, *others = (
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join((first, *others)).rstrip())
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """Write it for a page."""
        lines = [self.head, tuple("---" for _ in self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def median(seconds: Sequence[float]) -> float:
    """Give the median, in milliseconds."""
    return round(statistics.median(seconds) * 1000, 1)


def goal(ratio: float, *, at_least: float | None = None, at_most: float | None = None) -> dict[str, Any]:
    """Hold a ratio against its goal, which has one of the two limits."""
    if at_least is not None:
        return {"ratio": round(ratio, 3), "goal": at_least, "at": "least", "met": ratio >= at_least}
    if at_most is not None:
        return {"ratio": round(ratio, 3), "goal": at_most, "at": "most", "met": ratio <= at_most}
    raise ValueError("a goal needs a limit")


def verdict(held: Numbers) -> str:
    """Say whether a goal is met, and if not, by how much it is missed."""
    return "met" if held["met"] else f"missed by {abs(held['ratio'] - held['goal']):.2f}"


def tabulate_goals(goals: Mapping[str, Numbers]) -> Table:
    """Set each ratio beside its goal, and say by how much it is missed."""
    return Table.of(
        ("goal", "limit", "reached", ""),
        [
            (
                name,
                f"at {held['at']} {held['goal']:g}",
                f"{held['ratio']:.2f}",
                verdict(held),
            )
            for name, held in goals.items()
        ],
    )


def describe_machine() -> dict[str, Any]:
    """Say what the numbers were measured on."""
    models = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def stamp(numbers: Numbers) -> dict[str, Any]:
    """Add when and on what the numbers were measured."""
    return {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe_machine(), **numbers}


def publish(name: str, title: str, numbers: Numbers, tables: Iterable[Table]) -> None:
    """Print a benchmark's tables, and keep its numbers in build/bench/<name>.json."""
    print(f"\n{title}\n")
    for table in tables:
        print(f"{table.as_text()}\n")
    file = FOLDER / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(stamp(numbers), indent=2) + "\n", encoding="utf-8")
    print(file, flush=True)


def tell(text: str) -> None:
    """Say on the terminal how far a benchmark has come."""
    print(text, file=sys.stderr, flush=True)


def _read(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
