"""Make mutants, and hold what the audit makes of them against the truth: `python -m tests.fuzz --help`.

It ends with 1 if anything was found, after the line that makes each finding again.
"""

import argparse
import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.stack import EmbeddedAws
from tests.fuzz import targets, whole

CASES = 200_000  # of all targets together
CHUNK = 200  # cases that a process makes before it tells
WHOLE_CASES = {"steps": 1_000, "audit": 200}  # at most: each takes some hundredths of a second, or tenths
SHOWN = 20  # findings
TARGETS = (*targets.TARGETS, *WHOLE_CASES)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some cases of one target, of seeds that follow one another."""

    target: str
    seed: int
    cases: int


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a chunk."""

    chunk: Chunk
    findings: tuple[str, ...]
    processor_seconds: float


@cache
def _bench() -> targets.Bench:
    return targets.Bench()


@cache
def _deployed() -> whole.Deployed:
    # For as long as the process lives.
    aws = EmbeddedAws().__enter__()
    parameters = {"DtrUrl": "https://dtr.example.com", "RegistryName": "unnamed"}
    return whole.Deployed(aws.deploy(PROJECT / "template.yaml", parameters, stack_name="fuzz"))


def make_chunk(chunk: Chunk) -> Made:
    """Make the cases of a chunk."""
    begun = time.process_time()
    findings = []
    for seed in range(chunk.seed, chunk.seed + chunk.cases):
        try:
            if chunk.target == "steps":
                whole.fuzz_steps(_deployed(), chunk.target, seed)
            elif chunk.target == "audit":
                whole.fuzz_audit(_deployed(), chunk.target, seed)
            else:
                targets.make_case(_bench(), chunk.target, seed)
        except Exception as error:  # noqa: BLE001 - any of them is a finding
            what = f"{type(error).__name__}: {str(error)[:1_000]}"
            where = "".join(traceback.format_tb(error.__traceback__)[-3:])
            again = f'make fuzz FUZZ_ARGUMENTS="--target {chunk.target} --seed {seed} --cases 1"'
            doing = (_deployed() if chunk.target in WHOLE_CASES else _bench()).doing
            findings.append(f"{again}  # {doing}\n  {what}\n{where}")
    return Made(chunk, tuple(findings), time.process_time() - begun)


def share_out(cases: int, chosen: Sequence[str]) -> dict[str, int]:
    """Give how many cases each target gets."""
    counts = {target: min(cases, WHOLE_CASES[target]) for target in chosen if target in WHOLE_CASES}
    if len(chosen) > len(counts):
        # Of a few cases in all, few are whole audits.
        counts = {target: min(count, cases // 100 * 2) for target, count in counts.items()}
    weights = {target: targets.TARGETS[target][1] for target in chosen if target not in counts}
    left = cases - sum(counts.values())
    for target, weight in weights.items():
        counts[target] = left * weight // sum(weights.values())
    if weights:
        counts[next(iter(weights))] += cases - sum(counts.values())
    return {target: count for target, count in counts.items() if count}


def cut(counts: dict[str, int], seed: int) -> Iterator[Chunk]:
    """Cut the cases into chunks; those that take longest come first."""
    for target in sorted(counts, key=lambda one: -TARGETS.index(one)):
        chunk = CHUNK if target in targets.TARGETS else CHUNK // 4
        for begin in range(0, counts[target], chunk):
            yield Chunk(target, seed + begin, min(chunk, counts[target] - begin))


def _begin_process() -> None:
    # What the function logs and measures is not what is looked for.
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    logging.disable(logging.CRITICAL)
    whole.without_waiting()


def main(arguments: Sequence[str]) -> int:
    """Make the cases that the command line names; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES, help=f"of all targets together (default: {CASES})")
    parser.add_argument("--seed", type=int, default=1, help="of each target's first case (default: 1)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="by default all of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    counts = share_out(options.cases, options.target or TARGETS)
    chunks = list(cut(counts, options.seed))
    begun = time.monotonic()
    made: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    findings: list[str] = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(options.processes, len(chunks)), _begin_process) as pool:
        for one in pool.imap_unordered(make_chunk, chunks):
            made[one.chunk.target] += one.chunk.cases
            seconds[one.chunk.target] += one.processor_seconds
            for finding in one.findings[: max(0, SHOWN - len(findings))]:
                sys.stdout.write(f"FINDING: {finding}\n")
            findings += one.findings
    for target, count in sorted(made.items()):
        sys.stdout.write(f"{target:<14} {count:>8} cases  {seconds[target] * 1_000 / count:8.2f} ms each\n")
    took = time.monotonic() - begun
    sys.stdout.write(f"{made.total()} cases from seed {options.seed} in {took:.0f} s: {len(findings)} findings\n")
    return 1 if findings else 0
