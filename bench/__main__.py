"""Run the benchmarks: `python -m bench [name]… [--repetitions n] [--write-docs]`, all of them by default."""

import argparse
import sys
import time
from collections.abc import Sequence

from . import calls, cold_start, cpu, growth, in_flight, page, peers, profile, results, trust
from .page import Benchmark

# The heavy ones first: whoever watches sees what matters.
BENCHMARKS: dict[str, Benchmark] = {
    "in-flight": in_flight,
    "cpu": cpu,
    "profile": profile,
    "peers": peers,
    "calls": calls,
    "growth": growth,
    "trust": trust,
    "cold-start": cold_start,
}


def main(arguments: Sequence[str]) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
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
    for name, benchmark in chosen.items():
        began = time.monotonic()
        numbers = benchmark.measure(options.repetitions)
        took = round(time.monotonic() - began, 1)
        results.publish(name, benchmark.TITLE, {**numbers, "took_seconds": took}, benchmark.tables(numbers))


if __name__ == "__main__":
    main(sys.argv[1:])
