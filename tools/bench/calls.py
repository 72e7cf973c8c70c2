"""What an audit asks of DynamoDB and S3: on a first run, an unchanged one, one with 1 % changed, and with nothing signed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tools.bench import results
from tools.bench.registry import Shape
from tools.bench.stage import Stage, Taken

TITLE = "Calls to DynamoDB and S3"
CROWDED = "first run, nothing signed"
SHAPE = Shape(repositories=100, tags=200, unsigned_every=10)
NOTHING_SIGNED = Shape(repositories=500, tags=200, unsigned_every=1)
REFUSE_EVERY = 50  # of the items in batches, then
SHARE_GOAL = 0.2  # of an index's writes, on the fullest of its shards
_FINDINGS = "FindingsTable"
_SERVICES = ("dynamodb", "s3")


def measure(repetitions: int) -> dict[str, Any]:
    """Count the calls of each run."""
    del repetitions
    with Stage() as stage:
        stage.hold(SHAPE)
        runs = {"first run, 10 % unsigned": stage.audit(), "unchanged": stage.audit(forget=False)}
        stage.hold(replace(SHAPE, changed=True))
        runs["1 % changed"] = stage.audit(forget=False)
        stage.report_to_aws(f"refuse?{REFUSE_EVERY}")
        stage.hold(NOTHING_SIGNED)
        runs[CROWDED] = stage.audit()
    described = {name: _describe(taken) for name, taken in runs.items()}
    crowded = described[CROWDED]
    goals = {
        "findings written by an unchanged run": results.goal(described["unchanged"]["findings_written"], at_most=0),
        "findings kept, of those that there are": results.goal(
            crowded["findings_kept"] / NOTHING_SIGNED.all_tags, at_least=1
        ),
        "the fullest shard's share of an index's writes": results.goal(
            max(crowded["fullest_shards"].values()), at_most=SHARE_GOAL
        ),
    }
    return {"runs": described, "goals": goals}


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the calls, and the goals."""
    runs = numbers["runs"]
    operations = sorted({operation for one in runs.values() for operation in one["calls"]})
    return [
        results.Table.of(
            ("calls per 1 000 tags", *runs),
            [
                *(
                    (operation, *(f"{one['calls'].get(operation, 0) / one['thousands']:.2f}" for one in runs.values()))
                    for operation in operations
                ),
                ("tags", *(f"{one['tags']:,}" for one in runs.values())),
                ("findings written", *(f"{one['findings_written']:,}" for one in runs.values())),
                ("turned away, and sent again", *(f"{one['unprocessed']:,}" for one in runs.values())),
                ("seconds", *(f"{one['seconds']:.1f}" for one in runs.values())),
            ],
        ),
        results.tabulate_goals(numbers["goals"]),
    ]


def _describe(taken: Taken) -> dict[str, Any]:
    findings = taken.aws["tables"][_FINDINGS]
    calls = {name: count for name, count in taken.aws["calls"].items() if name.split(":")[0] in _SERVICES}
    return {
        "tags": taken.tags,
        "thousands": taken.tags / 1_000,
        "calls": calls,
        "findings": taken.record["findings"],
        "findings_written": findings["written"],
        "findings_kept": findings["items"],
        "unprocessed": findings["unprocessed"],
        "fullest_shards": {
            index: max(counts.values()) / sum(counts.values())
            for index, counts in findings["index_writes"].items()
            if counts
        },
        "seconds": taken.seconds,
        "processor_seconds": taken.processor_seconds,
    }
