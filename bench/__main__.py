"""Run the benchmarks: `python -m bench [name]… [--repetitions n]`, all of them by default."""

import argparse
import sys
from collections.abc import Callable, Sequence

from . import calls, cold_start, in_flight, peers, processor, scale, shares, trust

BENCHMARKS: dict[str, Callable[[int], None]] = {
    "cold-start": cold_start.run,
    "trust": trust.run,
    "in-flight": in_flight.run,
    "cpu": processor.run,
    "scale": scale.run,
    "calls": calls.run,
    "peers": peers.run,
    "profile": shares.run,
}


def main(arguments: Sequence[str]) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--repetitions", type=int, default=15, help="of everything that is measured (default: 15)")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    for name in options.names or BENCHMARKS:
        BENCHMARKS[name](options.repetitions)


if __name__ == "__main__":
    main(sys.argv[1:])
