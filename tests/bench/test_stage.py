"""Audits on the benchmarks' stage: they read what the registry's formula says, and everything is counted."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tools.bench.registry import POOL, Shape, every_page, is_signed, repository_path, tag_name
from tools.bench.stage import Stage, Taken


@pytest.fixture(autouse=True)
def _start_anew(stage: Stage) -> None:
    stage.report_to_aws("reset")
    stage.report_to_aws("refuse?0")


def rows(stage: Stage, taken: Taken) -> list[dict[str, Any]]:
    keys = [place.partition("/")[2] for place in taken.aws["objects"]]
    parts = [stage.read_object(key) for key in sorted(keys) if key.startswith("findings/")]
    return [json.loads(line) for part in parts for line in gzip.decompress(part).splitlines()]


@pytest.mark.parametrize("page_size", [10, 100])
def test_every_tag_of_the_formula_is_read_with_its_verdict(stage: Stage, page_size: int) -> None:
    # The last repositories' tags begin near the end of the pool, and go on at its beginning.
    shape = Shape(repositories=111, tags=99, unsigned_every=10)
    assert shape.all_tags > POOL
    stage.hold(shape)
    taken = stage.audit(page_size=page_size)
    expected = {
        f"{repository_path(number)}:{tag_name((number * 99 + tag) % POOL)}": (
            "SIGNED" if is_signed((number * 99 + tag) % POOL, 10, changed=False) else "UNSIGNED"
        )
        for number in range(shape.repositories)
        for tag in range(shape.tags)
    }
    seen = {f"{row['namespace']}/{row['repository']}:{row['tag']}": row["verdict"] for row in rows(stage, taken)}
    assert seen == expected
    assert taken.record["findings"]["open"] == sum(verdict == "UNSIGNED" for verdict in expected.values())
    # The lists of repositories and of tags, each to its end.
    assert taken.registry["lists"] == -(-111 // page_size) + 111 * -(-99 // page_size)


def test_one_percent_of_the_tags_change_sides(stage: Stage) -> None:
    shape = Shape(repositories=10, tags=200, unsigned_every=10)
    stage.hold(shape)
    first = stage.audit()
    stage.hold(Shape(repositories=10, tags=200, unsigned_every=10, changed=True))
    second = stage.audit(forget=False)
    assert first.record["findings"] | {"excepted": 0} == {"open": 200, "opened": 200, "resolved": 0, "excepted": 0}
    assert second.record["findings"] | {"excepted": 0} == {"open": 200, "opened": 10, "resolved": 10, "excepted": 0}


def test_an_unchanged_run_is_counted_apart_from_the_first(stage: Stage) -> None:
    stage.hold(Shape(repositories=5, tags=20, unsigned_every=1))
    first = stage.audit()
    again = stage.audit(forget=False)
    assert first.aws["tables"]["FindingsTable"]["written"] >= 100
    assert again.aws["tables"]["FindingsTable"]["written"] == 0
    assert again.aws["tables"]["FindingsTable"]["items"] == 100
    assert again.aws["calls"]["s3:PutObject"] <= first.aws["calls"]["s3:PutObject"]


def test_what_is_turned_away_is_sent_again(stage: Stage) -> None:
    stage.report_to_aws("refuse?3")
    stage.hold(Shape(repositories=5, tags=20, unsigned_every=1))
    taken = stage.audit()
    assert taken.aws["tables"]["FindingsTable"]["unprocessed"] > 0
    assert taken.aws["tables"]["FindingsTable"]["items"] == 100


def test_the_latency_is_kept_and_requests_are_in_flight_together(stage: Stage) -> None:
    stage.hold(Shape(repositories=40, tags=1, latency=0.1))
    taken = stage.audit(concurrency=8)
    # One page of repositories, and then five rounds of eight.
    assert taken.reading_seconds >= 0.59
    assert 2 <= taken.registry["most_under_way"] <= 8


def test_what_an_audit_took_is_its_own(stage: Stage) -> None:
    stage.hold(Shape(repositories=2, tags=10))
    taken = stage.audit()
    assert 0 < taken.processor_seconds < taken.process_processor_seconds
    assert 0 < taken.seconds < taken.process_seconds
    assert 10e6 < taken.loaded_bytes <= taken.peak_bytes


def test_an_audit_that_did_not_read_everything_is_no_measurement(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.hold(Shape(repositories=2, tags=10))
    monkeypatch.setattr(stage, "hold", lambda shape: None)
    monkeypatch.setattr(stage, "shape", Shape(repositories=2, tags=11))
    with pytest.raises(RuntimeError, match="did not read everything"):
        stage.audit()


def test_the_pages_of_the_floor_are_those_that_the_registry_gives(stage: Stage) -> None:
    shape = Shape(repositories=3, tags=25, unsigned_every=10)
    pages = [json.loads(page) for page in every_page(shape, 10)]
    assert [len(page) for page in pages[1:]] == [10, 10, 5] * 3
    names = [tag["name"] for page in pages[1:] for tag in page]
    stage.hold(shape)
    assert sorted(names) == sorted(row["tag"] for row in rows(stage, stage.audit()))
