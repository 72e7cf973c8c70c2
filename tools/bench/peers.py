"""The audit beside what people would run in its place, on the same server: the rule's own loop, and a script.

Whole process against whole process. Every peer must print a line for each tag that it is to see, or it is no peer.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dtr_audit_simulator import PROJECT
from tools.bench import results
from tools.bench.prerequisites import MissingTool, missing_tools
from tools.bench.registry import DEFAULT_PAGE, PASSWORD, USER, Shape
from tools.bench.stage import Stage

TITLE = "Peers: 200 repositories of 20 tags at 50 ms"
SHAPE = Shape(repositories=200, tags=20, latency=0.05)
PROCESS_GOAL = 25.0
HANDLER_GOAL = 40.0
CONCURRENCIES = (16, 64)  # the default, and the most that the setting allows
AUDITS = 3
LOOP_TOOLS = ("bash", "curl", "jq")
PAGED = "the loop with paging"
_FOLDER = PROJECT / "tools" / "bench" / "peer"


def measure(repetitions: int) -> dict[str, Any]:
    """Run every peer once, and the audit a few times."""
    del repetitions
    missing = missing_tools(LOOP_TOOLS)
    with Stage() as stage:
        stage.hold(SHAPE)
        peers = [] if missing else measure_loops(stage)
        peers.append(measure_script(stage))
        audits = [_measure_audit(stage, concurrency) for concurrency in CONCURRENCIES]
    goals: dict[str, Any] = {}
    for paged, audit in itertools.product((peer for peer in peers if peer["name"] == PAGED), audits):
        goals[f"whole processes, {audit['concurrency']} in flight"] = results.goal(
            paged["seconds"] / audit["process_seconds"], at_least=PROCESS_GOAL
        )
        goals[f"the audit without its start, {audit['concurrency']} in flight"] = results.goal(
            paged["seconds"] / audit["seconds"], at_least=HANDLER_GOAL
        )
    return {
        "repositories": SHAPE.repositories,
        "tags": SHAPE.tags,
        "latency": SHAPE.latency,
        "missing": list(missing),
        "peers": peers,
        "audits": audits,
        "goals": goals,
    }


def find_missing_tool() -> MissingTool:
    """Look for what the rule's loop calls."""
    return MissingTool(missing_tools(LOOP_TOOLS), "the rule's own loop, and so how the audit stands beside it")


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the peers with the audit, and the goals."""
    all_tags = f"{numbers['repositories'] * numbers['tags']:,}"
    rows = [
        (one["name"], f"{one['seconds']:.2f}", f"{one['tags']:,}", f"{one['requests']:,}") for one in numbers["peers"]
    ]
    rows += [(f"the rule's loop was not run: {said}", "", "", "") for said in numbers["missing"]]
    for one in numbers["audits"]:
        name, requests = f"the audit, {one['concurrency']} in flight", f"{one['requests']:,}"
        rows.append((name, f"{one['process_seconds']:.2f}", all_tags, requests))
        rows.append((f"{name}, without its start", f"{one['seconds']:.2f}", all_tags, requests))
    return [
        results.Table.of(("whole processes", "seconds", "tags seen", "requests"), rows),
        results.tabulate_goals(numbers["goals"]),
    ]


def measure_loops(stage: Stage) -> list[dict[str, Any]]:
    """Run the rule's loop, and once more with paging, and with larger pages, of what the registry holds."""
    shape = stage.shape
    unpaged = min(DEFAULT_PAGE, shape.repositories) * min(DEFAULT_PAGE, shape.tags)
    return [
        _measure(stage, "the rule's loop", ["bash", str(_FOLDER / "stig.sh")], lines=unpaged),
        _measure(stage, PAGED, ["bash", str(_FOLDER / "stig-paged.sh")], lines=shape.all_tags),
        _measure(
            stage,
            "the loop with pages of 100",
            ["bash", str(_FOLDER / "stig-paged.sh")],
            lines=shape.all_tags,
            PAGE_SIZE="100",
        ),
    ]


def measure_script(stage: Stage) -> dict[str, Any]:
    """Run the script in Python."""
    command = [sys.executable, str(_FOLDER / "sequential.py")]
    return _measure(stage, "a sequential script", command, lines=stage.shape.all_tags)


def _measure(stage: Stage, name: str, command: list[str], *, lines: int, **environment: str) -> dict[str, Any]:
    stage.hold(stage.shape)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ca_file = Path(folder) / "ca.pem"
        ca_file.write_text(stage.ca_bundle, encoding="ascii")
        own = {"DTR_HOST": stage.host, "DTR_USERNAME": USER, "DTR_PASSWORD": PASSWORD, "CA_FILE": str(ca_file)}
        began = time.monotonic()
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "PAGE_SIZE": "", **own, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.monotonic() - began
    printed = done.stdout.splitlines()
    if len(printed) != lines or not all(line.endswith(",true") for line in printed):
        raise RuntimeError(f"{name} saw {len(printed)} tags in place of {lines}: {done.stderr}")
    return {"name": name, "seconds": seconds, "tags": lines, "requests": stage.registry_counters()["requests"]}


def _measure_audit(stage: Stage, concurrency: int) -> dict[str, Any]:
    taken = [stage.audit(concurrency=concurrency) for _ in range(AUDITS)]
    return {
        "concurrency": concurrency,
        "process_seconds": statistics.median(one.process_seconds for one in taken),
        "seconds": statistics.median(one.seconds for one in taken),
        "requests": taken[0].registry["requests"],
    }
