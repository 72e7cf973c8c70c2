"""Run the benchmarks: `python -m tools.bench [name]… [--repetitions n] [--write-docs]`, all of them by default."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from tools.bench import (
    calls,
    cold_start,
    cpu,
    growth,
    hostile,
    in_flight,
    page,
    peers,
    profile,
    redaction,
    results,
    trust,
)
from tools.bench.page import Benchmark
from tools.bench.prerequisites import MissingTool

# The heavy ones first: whoever watches sees what matters.
BENCHMARKS: dict[str, Benchmark] = {
    "in-flight": in_flight,
    "cpu": cpu,
    "profile": profile,
    "peers": peers,
    "calls": calls,
    "growth": growth,
    "hostile": hostile,
    "trust": trust,
    "redaction": redaction,
    "cold-start": cold_start,
}
# Those that need more of the machine than Python.
MISSING_TOOLS: dict[str, Callable[[], MissingTool]] = {
    "in-flight": in_flight.find_missing_tool,
    "profile": profile.find_missing_tool,
    "peers": peers.find_missing_tool,
    "cold-start": cold_start.find_missing_tool,
}


def main(arguments: Sequence[str]) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--repetitions", type=int, default=5, help="of what takes a moment only: cold-start and trust (default: 5)"
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="measure nothing: put what was measured last into docs/performance.json, and its tables into docs/performance.md",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    chosen = {name: BENCHMARKS[name] for name in options.names or BENCHMARKS}
    if options.write_docs:
        page.write(BENCHMARKS, page.gather(chosen))
        return
    left_out = _report_missing_tools(chosen)
    if named := sorted(left_out & set(options.names)):
        sys.exit(f"cannot be measured here: {', '.join(named)}")
    for name, benchmark in chosen.items():
        if name in left_out:
            continue
        began = time.monotonic()
        numbers = benchmark.measure(options.repetitions)
        took = round(time.monotonic() - began, 1)
        results.publish(name, benchmark.TITLE, {**numbers, "took_seconds": took}, benchmark.tables(numbers))


def _report_missing_tools(names: Iterable[str]) -> set[str]:
    """Say what is missing and what will therefore not be measured; gives the benchmarks that cannot be measured at all."""
    missing_tools = {name: MISSING_TOOLS[name]() for name in names if name in MISSING_TOOLS}
    for name, missing_tool in missing_tools.items():
        if missing_tool.missing:
            results.tell(f"{name} will not measure {missing_tool.unmeasured}: {'; '.join(missing_tool.missing)}")
    return {name for name, missing_tool in missing_tools.items() if missing_tool.missing and missing_tool.is_whole}


if __name__ == "__main__":
    main(sys.argv[1:])
