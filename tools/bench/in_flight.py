"""How near the audit comes to what its concurrency allows: requests per second over concurrency / latency.

The whole audit is measured, with DynamoDB, S3, parsing and judging. Its rate is what the registry sees, from the first page of
a list to the last. A point at which the processor is busy nearly all the time is past what one core can do: there the
concurrency is no longer the limit.
"""

from __future__ import annotations

import re
import subprocess
from typing import Any

from tools.bench import results
from tools.bench.prerequisites import MissingTool, missing_tools
from tools.bench.registry import TOKEN, Shape, repository_path
from tools.bench.stage import Stage

TITLE = "Requests in flight: requests per second over concurrency / latency"
LATENCIES = (0.05, 0.2)
CONCURRENCIES = (8, 16, 32, 64)
TAGS = 20
GOAL = 0.95
BUSY = 0.9  # of one core: past it the processor is the limit
LATENCIES_LONG = 80  # a point is measured for so many latencies, so that its first and its last weigh little
SECONDS_LEAST = 10.0
WRK_SECONDS = 4


def measure(repetitions: int) -> dict[str, Any]:
    """Measure every point, and what the server can do without the audit."""
    del repetitions  # a point is many requests already
    with Stage() as stage:
        points = [_measure(stage, latency, concurrency) for latency in LATENCIES for concurrency in CONCURRENCIES]
        server = measure_server(stage)
    return {"tags_of_a_repository": TAGS, "points": points, "server": server, "goals": _goals(points)}


def find_missing_tool() -> MissingTool:
    """Look for wrk."""
    return MissingTool(missing_tools(["wrk"]), "how fast the server is without the audit")


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the points, and the server's own speed."""
    points = numbers["points"]
    most = max(point["requests_per_second"] for point in points)
    server = numbers["server"].get("requests_per_second", {})
    return [
        results.Table.of(
            ("latency", "in flight", "requests/s", "of the bound", "the whole run", "processor", "goal 0.95"),
            [
                (
                    f"{1000 * point['latency']:.0f} ms",
                    f"{point['concurrency']}",
                    f"{point['requests_per_second']:.0f}",
                    f"{point['ratio']:.3f}",
                    f"{point['whole_ratio']:.3f}",
                    f"{point['processor_share']:.2f}",
                    _verdict(point),
                )
                for point in points
            ],
        ),
        results.Table.of(
            ("the server alone, asked by wrk", "requests/s"),
            [
                *((f"at {latency}", f"{rate:.0f}") for latency, rate in server.items()),
                ("the most that the audit asked of it", f"{most:.0f}"),
                *([] if server else [(f"not looked at: {numbers['server']['missing']}", "")]),
            ],
        ),
    ]


def _verdict(point: dict[str, Any]) -> str:
    if point["goal"]["met"]:
        return "met"
    if point["is_processor_bound"]:
        return "past one core"
    return f"missed by {GOAL - point['ratio']:.3f}"


def _measure(stage: Stage, latency: float, concurrency: int) -> dict[str, Any]:
    bound = concurrency / latency
    seconds = max(SECONDS_LEAST, LATENCIES_LONG * latency)
    stage.hold(Shape(repositories=int(bound * seconds), tags=TAGS, latency=latency))
    taken = stage.audit(concurrency=concurrency)
    rate = taken.registry["lists"] / taken.reading_seconds
    share = taken.processor_seconds / taken.seconds
    return {
        "latency": latency,
        "concurrency": concurrency,
        "requests": taken.registry["lists"],
        "requests_per_second": rate,
        "ratio": rate / bound,
        "whole_ratio": taken.registry["lists"] / taken.seconds / bound,
        "most_under_way": taken.registry["most_under_way"],
        "seconds": taken.seconds,
        "reading_seconds": taken.reading_seconds,
        "processor_share": share,
        "is_processor_bound": share >= BUSY,
        "goal": results.goal(rate / bound, at_least=GOAL),
    }


def _goals(points: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        f"{1000 * point['latency']:.0f} ms, {point['concurrency']} in flight": point["goal"]
        for point in points
        if not point["is_processor_bound"]
    }


def measure_server(stage: Stage) -> dict[str, Any]:
    """Have wrk ask the same server for the same pages: without latency, and with the least one.

    wrk verifies no certificate and cannot be told to. What it is given is this server's token, which is no secret.
    """
    if missing := missing_tools(["wrk"]):
        return {"missing": missing[0]}
    asked = {}
    for latency in (0.0, min(LATENCIES)):
        stage.hold(Shape(repositories=100, tags=TAGS, latency=latency))
        connections = max(CONCURRENCIES)
        done = subprocess.run(
            [
                *("wrk", "-t1", f"-c{connections}", f"-d{WRK_SECONDS}s", "-H", f"Authorization: Bearer {TOKEN}"),
                f"https://{stage.host}/api/v0/repositories/{repository_path(7)}/tags"
                f"?domain=localhost%3A{stage.registry_port}&pageSize=100&count=true",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
        if rate is None or "Non-2xx" in done.stdout:
            raise RuntimeError(f"wrk was not answered as the audit was: {done.stdout}")
        asked[f"{1000 * latency:.0f} ms"] = float(rate.group(1))
    return {"requests_per_second": asked, "connections": connections}
