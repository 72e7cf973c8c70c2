"""docs/performance.md says what was measured, in the benchmarks' own tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.bench import page, results
from tools.bench.__main__ import BENCHMARKS
from tools.bench.growth import add_growth
from tools.bench.in_flight import BUSY, GOAL
from tools.bench.page import MEASURED, PAGE, render
from tools.bench.results import Table

NUMBERS = json.loads(MEASURED.read_text(encoding="utf-8"))


def test_the_pages_tables_are_the_generators_own() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert set(NUMBERS) == set(BENCHMARKS)
    assert render(text, BENCHMARKS, NUMBERS) == text
    # And the tables do hang on the numbers.
    other = json.loads(json.dumps(NUMBERS))
    other["in-flight"]["points"][0]["requests_per_second"] += 1_000
    assert render(text, BENCHMARKS, other) != text


def test_every_number_on_the_page_says_when_and_on_what_it_was_measured() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, numbers in NUMBERS.items():
        block = text.split(f"<!-- bench {name} -->")[1].split(f"<!-- end {name} -->")[0]
        assert f"Measured on {numbers['measured_at'][:10]} on {numbers['machine']['cores']} cores" in block
        assert numbers["machine"]["cpu"] in block


def test_a_page_without_a_place_for_a_benchmark_is_an_error() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("<!-- bench cpu -->", "")
    with pytest.raises(ValueError, match="one place for cpu"):
        render(text, BENCHMARKS, NUMBERS)


def test_what_was_not_measured_again_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    (tmp_path / "trust.json").write_text('{"repositories": []}', encoding="utf-8")
    gathered = page.gather(BENCHMARKS)
    assert gathered["trust"] == {"repositories": []}
    assert gathered["cpu"] == NUMBERS["cpu"]


def test_the_goals_of_the_page_are_those_of_the_code() -> None:
    for numbers in NUMBERS.values():
        for held in numbers.get("goals", {}).values():
            reached, limit = held["ratio"], held["goal"]
            assert held["met"] == (reached >= limit - 5e-4 if held["at"] == "least" else reached <= limit + 5e-4)
    for point in NUMBERS["in-flight"]["points"]:
        assert point["goal"]["goal"] == GOAL
        assert point["is_processor_bound"] == (point["processor_share"] >= BUSY)


@pytest.mark.parametrize(
    ("ratio", "limit", "met", "said"),
    [
        (0.95, {"at_least": 0.95}, True, "met"),
        (0.9, {"at_least": 0.95}, False, "missed by 0.05"),
        (2.5, {"at_most": 2.0}, False, "missed by 0.50"),
        (1.0, {"at_most": 1.2}, True, "met"),
    ],
)
def test_a_missed_goal_says_by_how_much(ratio: float, limit: dict[str, float], met: bool, said: str) -> None:
    held = results.goal(ratio, **limit)
    assert (held["met"], results.verdict(held)) == (met, said)


def _size(tags: int, seconds: float) -> dict[str, Any]:
    return {"all_tags": tags, "seconds": seconds, "processor_seconds": seconds}


def test_growth_is_what_a_further_tag_costs_beside_an_earlier_one() -> None:
    linear = [_size(tags, 3 + tags / 10_000) for tags in (1_000, 10_000, 100_000, 1_000_000)]
    add_growth(linear)
    assert linear[-1]["processor_growth"] == pytest.approx(1)
    assert linear[-1]["wall_marginal"] == pytest.approx(100)  # milliseconds for a thousand
    worse = [_size(tags, 3 + tags**1.1 / 10_000) for tags in (1_000, 10_000, 100_000, 1_000_000)]
    add_growth(worse)
    assert worse[-1]["wall_growth"] == pytest.approx(10**0.1, rel=0.01)


def test_a_table_whose_rows_do_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Table.of(("a", "b"), [("1",)])


def test_the_same_table_is_text_and_markdown() -> None:
    table = Table.of(("build", "init"), [("ours", "1 ms"), ("the floor", "10 ms")])
    assert table.as_text().splitlines() == [
        "build       init",
        "---------  -----",
        "ours        1 ms",
        "the floor  10 ms",
    ]
    assert table.as_markdown().splitlines()[2:] == ["| ours | 1 ms |", "| the floor | 10 ms |"]
