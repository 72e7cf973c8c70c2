"""docs/performance.md: its tables are written from what was measured, between markers, and by nobody's hand.

What was measured stands in docs/performance.json, so that the page can be written again, and checked, without measuring.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from dtr_audit_simulator import PROJECT
from tools.bench.results import FOLDER, Numbers, Table

PAGE = PROJECT / "docs" / "performance.md"
MEASURED = PROJECT / "docs" / "performance.json"


class Benchmark(Protocol):
    """A module that measures something."""

    @property
    def TITLE(self) -> str:  # noqa: N802 - a module's constant
        """What it is called above its tables."""
        ...

    def measure(self, repetitions: int) -> dict[str, Any]:
        """Measure."""
        ...

    def tables(self, numbers: Numbers) -> list[Table]:
        """Tabulate what was measured."""
        ...


def gather(names: Iterable[str]) -> dict[str, Numbers]:
    """Give what was measured of each: in build/bench if it is there, else what the page shows already."""
    known: dict[str, Numbers] = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    for name in names:
        file = FOLDER / f"{name}.json"
        if file.exists():
            known[name] = json.loads(file.read_text(encoding="utf-8"))
    return known


def write(benchmarks: Mapping[str, Benchmark], measured: Mapping[str, Numbers]) -> None:
    """Write the numbers, and the page's tables from them."""
    MEASURED.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), benchmarks, measured), encoding="utf-8")


def render(text: str, benchmarks: Mapping[str, Benchmark], measured: Mapping[str, Numbers]) -> str:
    """Put the tables of each benchmark between its markers; raises ValueError for one that the page has no place for."""
    for name, benchmark in benchmarks.items():
        if name not in measured:
            continue
        markers = re.compile(rf"(<!-- bench {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if len(markers.findall(text)) != 1:
            raise ValueError(
                f"{PAGE}: one place for {name} is needed, between <!-- bench {name} --> and <!-- end {name} -->"
            )
        numbers = measured[name]
        blocks = [*(table.as_markdown() for table in benchmark.tables(numbers)), _name_origin(numbers)]
        content = "".join(f"\n{block}\n" for block in blocks)
        text = markers.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)  # type: ignore[misc]
    return text


def _name_origin(numbers: Numbers) -> str:
    machine = numbers["machine"]
    day = str(numbers["measured_at"])[:10]
    return (
        f"Measured on {day} on {machine['cores']} cores of an {machine['cpu']}, {machine['system']}, Python {machine['python']}, "
        f"in {numbers['took_seconds']:.0f} s; load average at the end: {machine['load'][0]:g}."
    )
