"""Where the audit's processor time goes, by module: a profile of every thread, on the threads' own clocks.

A profile makes every call dearer, so it overstates what is made of many small functions and understates a loop in C.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tools.bench import results
from tools.bench.prerequisites import MissingTool
from tools.bench.registry import Shape
from tools.bench.stage import Stage

TITLE = "Where the processor time goes (profiled)"
SHAPE = Shape(repositories=300, tags=200)
MODULES_SHOWN = 20
FUNCTIONS_SHOWN = 15
IN_TABLES = (8, 5)  # modules and functions in a table; the numbers keep all of them
SEES_ALL_THREADS = sys.version_info < (3, 12)  # from then on one profile is for all threads, and mixes them up

_BUILT_IN = {"zlib": "gzip", "Compress": "gzip", "_ssl": "ssl", "scan_once": "json", "encode": "json", "_json": "json"}
_PACKAGES = {
    "aws_lambda_powertools": "powertools",
    "boto3": "boto3",
    "botocore": "botocore",
    "certifi": "requests",
    "email": "http.client, email",
    "gzip": "gzip",
    "http": "http.client, email",
    "json": "json",
    "logging": "logging",
    "dataclasses": "dataclasses",
    "queue": "queue, threading",
    "re": "re",
    "requests": "requests",
    "socket": "ssl",
    "ssl": "ssl",
    "threading": "queue, threading",
    "urllib": "urllib",
    "urllib3": "urllib3",
}


def profiled(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do some work under a profile; gives its result with `profile`: functions with their place, calls and seconds."""
    profiles: list[cProfile.Profile] = []

    def begin(*_: object) -> None:
        sys.setprofile(None)
        profile = cProfile.Profile(time.thread_time)
        profiles.append(profile)
        profile.enable()

    threading.setprofile(begin)
    begin()
    try:
        answer = work()
    finally:
        profiles[0].disable()
        threading.setprofile(None)
    stats = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        stats.add(profile)
    functions = [
        {
            "file": file,
            "name": name,
            "calls": calls,
            "seconds": own,
            "callers": [(caller, spent) for (caller, _, _), (_, _, spent, _) in callers.items()],
        }
        for (file, _, name), (_, calls, own, _, callers) in stats.stats.items()  # type: ignore[attr-defined]
    ]
    return {**answer, "profile": functions}


def measure(repetitions: int) -> dict[str, Any]:
    """Profile an audit of middling repositories."""
    del repetitions
    with Stage() as stage:
        stage.hold(SHAPE)
        functions = [one for one in stage.audit(profile=True).profile if "_bootstrap" not in one["file"]]
    by_module: defaultdict[str, float] = defaultdict(float)
    for one in functions:
        for module, seconds in _modules(one):
            by_module[module] += seconds
    whole = sum(by_module.values())
    top = sorted(functions, key=lambda one: float(one["seconds"]), reverse=True)[:FUNCTIONS_SHOWN]
    return {
        "repositories": SHAPE.repositories,
        "tags": SHAPE.tags,
        "modules": [
            {"module": module, "share": seconds / whole}
            for module, seconds in sorted(by_module.items(), key=lambda one: -one[1])[:MODULES_SHOWN]
        ],
        "functions": [
            {"function": f"{_short(one['file'])}:{one['name']}", "calls": one["calls"], "share": one["seconds"] / whole}
            for one in top
        ],
    }


def find_missing_tool() -> MissingTool:
    """Look for a profiler that sees what it should."""
    missing = () if SEES_ALL_THREADS else ("this Python's profiler cannot tell threads apart (3.11's can)",)
    return MissingTool(missing, "where the processor time goes", is_whole=True)


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the modules and the functions that take the most."""
    modules, functions = IN_TABLES
    return [
        results.Table.of(
            ("module", "share"),
            [(one["module"], f"{100 * one['share']:.1f} %") for one in numbers["modules"][:modules]],
        ),
        results.Table.of(
            ("function, without what it calls", "calls", "share"),
            [
                (one["function"], f"{one['calls']:,}", f"{100 * one['share']:.1f} %")
                for one in numbers["functions"][:functions]
            ],
        ),
    ]


def _short(file: str) -> str:
    return file.rpartition("/")[2] if file != "~" else "built in"


def _modules(function: dict[str, Any]) -> list[tuple[str, float]]:
    """Say whose time a function's is; that of a built-in one is its callers', unless it belongs to a module by itself."""
    if function["file"] != "~":
        return [(_module(function["file"]), function["seconds"])]
    for part, module in _BUILT_IN.items():
        if part in function["name"]:
            return [(module, function["seconds"])]
    return [(_module(caller), spent) for caller, spent in function["callers"]]


def _module(file: str) -> str:
    """Name a module of ours, or a package of others."""
    if file == "~":
        return "other modules"
    _, is_ours, ours = file.partition("/dtr_audit/")
    if is_ours:
        return f"dtr_audit: {ours}"
    _, _, path = file.rpartition("/site-packages/" if "/site-packages/" in file else "/python3.")
    parts = path.split("/")
    package = parts[0] if "/site-packages/" in file else parts[min(1, len(parts) - 1)]
    return _PACKAGES.get(package.removesuffix(".py"), "other modules")
