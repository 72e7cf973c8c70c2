"""What a month costs: the arithmetic, and the price list that it is reckoned from."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dtr_audit_simulator import PROJECT
from tools.planner import cost, cost_report
from tools.planner.__main__ import main
from tools.planner.cost import (
    PRICES,
    PriceList,
    Workload,
    count_calls,
    estimate_duration,
    estimate_processor,
    price,
    use_of_month,
    use_of_run,
)
from tools.planner.scale import Plan, explain_misfit, fits

# Whole audits that `make bench` measured, in which all findings are new; small ones are over too soon to be held against.
PERFORMANCE = json.loads((PROJECT / "docs" / "performance.json").read_text(encoding="utf-8"))
GROWTH = [
    point for series in PERFORMANCE["growth"]["series"].values() for point in series if point["all_tags"] >= 100_000
]
SMALL = Workload(tags=1_000, repositories=100, findings=10, changes=2)


@pytest.fixture
def prices() -> PriceList:
    return PriceList.read(PRICES)


def written(folder: Path, **changes: Any) -> Path:
    """Write the price list with some of its keys changed."""
    file = folder / "prices.json"
    file.write_text(json.dumps({**json.loads(PRICES.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return file


def changed_price(name: str, **entry: Any) -> dict[str, Any]:
    prices = json.loads(PRICES.read_text(encoding="utf-8"))["prices"]
    return {**prices, name: {**prices[name], **entry}}


def test_a_price_is_per_so_many_units(prices: PriceList) -> None:
    assert price({"s3_writes": Decimal(3_000)}, prices) == Decimal("0.015")
    assert price({"secrets": Decimal(1), "alarms": Decimal(7)}, prices) == Decimal("1.10")


def test_a_bill_follows_its_prices(tmp_path: Path, prices: PriceList) -> None:
    doubled = PriceList.read(written(tmp_path, prices=changed_price("dashboards", price="6.00")))
    month = use_of_month(SMALL)
    assert price(month, doubled) - price(month, prices) == 3


def test_a_price_may_be_a_number_and_stays_exact(tmp_path: Path) -> None:
    read = PriceList.read(written(tmp_path, prices=changed_price("kms_requests", price=0.1)))
    assert read.prices["kms_requests"].price == Decimal("0.1")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"date": "yesterday"}, "is no price list"),
        ({"prices": {}}, "the price of .* is missing"),
        ({"prices": changed_price("alarms", price="free")}, "is no price list"),
        ({"prices": changed_price("alarms", price="-1")}, "the price of alarms is no amount"),
        ({"prices": changed_price("alarms", price="NaN")}, "the price of alarms is no amount"),
        ({"prices": changed_price("alarms", per=0)}, "the price of alarms is no amount"),
        ({"prices": ["0.10"]}, "is no price list"),
    ],
    ids=["no date", "nothing in it", "no number", "negative", "not a number", "for nothing", "another form"],
)
def test_a_price_list_that_says_nothing_usable_is_refused_by_its_name(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    file = written(tmp_path, **changes)
    with pytest.raises(ValueError, match=said) as refused:
        PriceList.read(file)
    assert str(file) in str(refused.value)


def test_a_price_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json: No such file"):
        PriceList.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    "changes", [{"repositories": 0}, {"tags": -1}, {"findings": 1_001}, {"runs": -1}, {"memory": 0}, {"latency": -1}]
)
def test_a_registry_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(SMALL, **changes)


def test_an_interface_endpoint_is_paid_for_in_each_zone_and_each_hour(prices: PriceList) -> None:
    more = price(use_of_month(replace(SMALL, zones=3)), prices) - price(use_of_month(SMALL), prices)
    assert more == 2 * 3 * 730 * prices.prices["endpoint_hours"].price


def test_signing_costs_a_key_its_signatures_and_in_subnets_an_endpoint() -> None:
    plain, signed = use_of_month(SMALL), use_of_month(replace(SMALL, signed=True))
    assert signed["kms_keys"] - plain["kms_keys"] == 1
    assert signed["kms_signatures"] == 2 * SMALL.runs
    assert plain["kms_signatures"] == signed["endpoint_hours"] == 0
    zoned = use_of_month(replace(SMALL, signed=True, zones=2))["endpoint_hours"]
    assert zoned - use_of_month(replace(SMALL, zones=2))["endpoint_hours"] == 2 * 730


def test_security_hub_is_paid_for_what_moves_and_for_what_it_must_not_forget() -> None:
    reported = replace(SMALL, security_hub=True, zones=1)
    month, without = use_of_month(reported), use_of_month(replace(SMALL, zones=1))
    assert month["security_hub_findings"] == 2 * 30 + 10
    assert without["security_hub_findings"] == 0
    assert month["dynamodb_writes"] - without["dynamodb_writes"] == cost.WRITES_OF_A_SENDING * (2 * 30 + 10)
    assert month["endpoint_hours"] - without["endpoint_hours"] == cost.HOURS_OF_A_MONTH


def test_a_key_becomes_dearer_by_its_first_two_rotations_and_no_more() -> None:
    keys = [use_of_month(replace(SMALL, months=months))["kms_keys"] for months in (12, 13, 24, 25, 37)]
    assert keys == [1, 2, 2, 3, 3]


def test_metrics_are_paid_for_in_the_hours_of_the_runs_and_never_more_than_a_month() -> None:
    assert use_of_month(replace(SMALL, runs=73))["metrics"] == cost.METRICS * Decimal("0.1")
    assert use_of_month(replace(SMALL, runs=10_000))["metrics"] == cost.METRICS


def test_rows_gather_in_the_bucket_month_by_month() -> None:
    first, twelfth = (use_of_month(replace(SMALL, months=months))["s3_storage"] for months in (1, 12))
    assert twelfth == 12 * first > 0


def test_a_run_in_which_nothing_moves_sends_and_writes_nothing_about_findings() -> None:
    used = use_of_run(SMALL, 0)
    assert used["sns_publishes"] == used["sns_mails"] == 0
    assert used["dynamodb_writes"] == cost.WRITES_OF_A_RUN
    assert count_calls(SMALL, 0).batches == count_calls(SMALL, 0).marks == 0


def test_more_findings_than_a_batch_takes_are_more_batches_any_the_repositories() -> None:
    for repositories in (1, 100):
        workload = Workload(tags=100, repositories=repositories, findings=100, changes=0)
        assert [count_calls(workload, moves).batches for moves in (1, 25, 26, 100)] == [1, 1, 2, 4]


def test_a_run_lasts_as_long_as_the_longer_of_waiting_and_computing() -> None:
    slow_registry = replace(SMALL, latency=Decimal(10))
    assert estimate_duration(slow_registry, 0) == estimate_duration(replace(slow_registry, memory=10_240), 0)
    assert estimate_duration(slow_registry, 0) > estimate_duration(replace(slow_registry, concurrency=64), 0)
    quick_registry = replace(SMALL, latency=Decimal(0), tags=100_000)
    assert estimate_duration(quick_registry, 0) == estimate_duration(replace(quick_registry, concurrency=64), 0)
    assert estimate_duration(quick_registry, 0) > estimate_duration(replace(quick_registry, memory=1_024), 0)


@pytest.mark.parametrize("point", GROWTH, ids=lambda point: f"{point['all_tags']} tags, {point['findings']} findings")
def test_processor_time_is_estimated_as_it_was_measured_with_something_to_spare(point: dict[str, Any]) -> None:
    audit = Workload(point["all_tags"], point["repositories"], point["findings"], changes=0)
    estimated = float(estimate_processor(audit, point["findings"]))
    assert 1.0 <= estimated / point["processor_seconds"] <= 1.6


def test_memory_beyond_a_whole_processor_makes_nothing_faster() -> None:
    quick_registry = replace(SMALL, latency=Decimal(0), memory=1_769)
    assert estimate_duration(quick_registry, 0) == estimate_duration(replace(quick_registry, memory=10_240), 0)


def test_the_worked_examples_fit_into_one_invocation_from_the_first_run_on() -> None:
    assert [one.tags for one in cost.EXAMPLES] == [100, 10_000, 1_000_000]
    assert all(fits(Plan.of(one)) for one in cost.EXAMPLES)


@pytest.mark.parametrize("tags", [5_000_000, 6_000_000, 7_000_000, 10_000_000, 10**9])
def test_a_registry_that_does_not_fit_is_reported_so_as_by_the_scale_and_what_would_do(
    prices: PriceList, tags: int
) -> None:
    plan = Plan(tags, tags // 50)
    reported = cost_report.describe(Workload.of(plan.tags, plan.repositories), prices)
    assert ("One run is not enough" in reported) is not fits(plan)
    assert explain_misfit(plan) in reported
    assert fits(plan) or "`Engine` stepfunctions" in reported


@pytest.mark.parametrize(
    "changes", [{"tags": 0, "findings": 0}, {"findings": 0}, {"latency": Decimal(0)}, {"changes": 99}]
)
def test_a_verdict_is_had_of_every_registry_that_can_be_billed(changes: dict[str, Any], prices: PriceList) -> None:
    assert "One run is not enough" not in cost_report.describe(replace(SMALL, **changes), prices)


def test_the_sum_on_paper_is_that_of_the_lines(prices: PriceList) -> None:
    month = use_of_month(SMALL)
    assert {line.price for line in cost_report.LINES} == set(month)
    assert f"**{price(month, prices):.2f}**" in cost_report.detail_table(SMALL, prices)


def test_the_command_prints_the_worked_examples_or_one_registrys_bill(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost"]) == 0
    assert "1,000,000 tags" in capsys.readouterr().out
    assert main(["cost", "--tags", "5000", "--repositories", "200", "--zones", "2"]) == 0
    reported = capsys.readouterr().out
    assert "29.20" in reported
    assert "typed in by hand on" in reported


@pytest.mark.parametrize(
    "arguments",
    [["--tags", "5"], ["--tags", "1", "--repositories", "0"], ["--prices", "none.json"]],
    ids=["half of it", "no repository", "no price list"],
)
def test_the_command_refuses_what_it_cannot_estimate(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["cost", *arguments])
    assert ended.value.code == 2
    assert "python -m tools.planner cost: error: " in capsys.readouterr().err
