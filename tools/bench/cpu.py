"""Processor time per 1 000 tags, beside the least that it can be: parsing the same pages, compressing the same rows.

The floor is `json.loads` of every page that the registry gave and `gzip` of every row that the audit left, at gzip's own level,
and nothing else: no TLS, no request, no judgement. It is measured in this process, on one thread.
"""

from __future__ import annotations

import gzip
import io
import json
import time
from typing import Any

from tools.bench import results
from tools.bench.registry import Shape, every_page
from tools.bench.stage import Stage, Taken

TITLE = "Processor time of the audit, per 1 000 tags"
PAGE_SIZE = 100
LARGE_PAGE_SIZE = 1_000
GZIP_LEVEL = 6  # of the floor: what gzip does unless it is told otherwise
GOAL = 2.0
# Small, middling and large repositories; about a hundred thousand tags, where so few requests allow it.
SHAPES = (Shape(1_500, 20), Shape(300, 200), Shape(30, 2_000))


def measure(repetitions: int) -> dict[str, Any]:
    """Measure each shape."""
    del repetitions
    with Stage() as stage:
        shapes = [_measure(stage, shape, PAGE_SIZE) for shape in SHAPES]
        shapes.append(_measure(stage, SHAPES[-1], LARGE_PAGE_SIZE))
    goals = {f"{one['tags']} tags a repository, pages of {one['page_size']}": one["goal"] for one in shapes}
    return {"shapes": shapes, "goals": goals}


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the shapes."""
    return [
        results.Table.of(
            ("repositories x tags", "page", "audit", "floor", "parsing", "gzip", "fixed", "times the floor", "goal 2"),
            [
                (
                    f"{one['repositories']:,} x {one['tags']:,}",
                    f"{one['page_size']:,}",
                    f"{one['milliseconds']:.1f} ms",
                    f"{one['floor_milliseconds']:.1f} ms",
                    f"{one['parsing_milliseconds']:.1f} ms",
                    f"{one['gzip_milliseconds']:.1f} ms",
                    f"{one['fixed_milliseconds']:.0f} ms",
                    f"{one['goal']['ratio']:.2f}",
                    results.verdict(one["goal"]),
                )
                for one in numbers["shapes"]
            ],
        )
    ]


def _measure(stage: Stage, shape: Shape, page_size: int) -> dict[str, Any]:
    # What an audit takes of a registry with next to nothing in it, once, whatever its size.
    stage.hold(Shape(1, 1))
    fixed = stage.audit(page_size=page_size)
    stage.hold(shape)
    taken = stage.audit(page_size=page_size)
    parsing, compressing = measure_floor(stage, taken, shape, page_size)
    thousands = shape.all_tags / 1_000
    audit = taken.processor_seconds - fixed.processor_seconds
    return {
        "repositories": shape.repositories,
        "tags": shape.tags,
        "page_size": page_size,
        "requests": taken.registry["lists"],
        "milliseconds": 1_000 * audit / thousands,
        "fixed_milliseconds": 1_000 * fixed.processor_seconds,
        "floor_milliseconds": 1_000 * (parsing + compressing) / thousands,
        "parsing_milliseconds": 1_000 * parsing / thousands,
        "gzip_milliseconds": 1_000 * compressing / thousands,
        "seconds": taken.seconds,
        "process_processor_seconds": taken.process_processor_seconds,
        "goal": results.goal(audit / (parsing + compressing), at_most=GOAL),
    }


def measure_floor(stage: Stage, taken: Taken, shape: Shape, page_size: int) -> tuple[float, float]:
    """Parse the pages and compress the rows of one audit; gives the processor seconds of each."""
    pages = list(every_page(shape, page_size))
    began = time.process_time()
    for page in pages:
        json.loads(page)
    parsing = time.process_time() - began
    rows = [
        line
        for key in sorted(place.partition("/")[2] for place in taken.aws["objects"])
        if key.startswith("findings/")
        for line in gzip.decompress(stage.read_object(key)).splitlines(keepends=True)
    ]
    if len(rows) != shape.all_tags:
        raise RuntimeError(f"the audit left {len(rows)} rows, of {shape.all_tags} tags")
    began = time.process_time()
    with gzip.GzipFile(fileobj=io.BytesIO(), mode="wb", compresslevel=GZIP_LEVEL) as packed:
        packed.write(b"".join(rows))
    return parsing, time.process_time() - began
