"""How far each engine carries: the simulation, held against a closed formula, and the limits, against what they are limits of."""

from __future__ import annotations

import json
import math
import re
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dtr_audit.core.finding_changes import Moment, compare
from dtr_audit.core.finding_spool import FindingSpool
from dtr_audit.core.model import JudgedTag, Repository, Tag, TrustFlags, Verdict
from dtr_audit.core.request import BATCHES
from dtr_audit.pipeline.finding_batches import WRITERS
from dtr_audit_cli.query_files import named_queries
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates
from tools import parameters
from tools.planner import scale, scale_tables
from tools.planner.__main__ import main
from tools.planner.cost import PRICES, TIMEOUT_SECONDS, PriceList, count_calls, estimate_duration, price, use_of_month
from tools.planner.scale import (
    LIMITS,
    SETTINGS,
    Engine,
    Plan,
    Setting,
    binding,
    bounds,
    count_objects,
    count_transitions,
    days_taken,
    ending_limits_of,
    estimate_day,
    finish,
    first_ending_limit,
    fits,
    limits_of,
    most_repositories,
    reached_at,
    simulate_day,
)
from tools.planner.scale_tables import (
    DOCUMENTS,
    MEASURED,
    SHAPE,
    TAGS_EACH,
    THRESHOLD_SETTINGS,
    Measured,
    read_measured,
    tables_in,
)
from tools.planner.simulation import Reading, simulate

TEMPLATE: dict[str, Any] = templates.load(PROJECT / "template.yaml")
PLAN = Plan(tags=100_000, repositories=2_000)
STEPS = replace(PLAN, engine=Engine.STEP_FUNCTIONS)
WHOLE = 1_769  # megabytes that give a whole processor

SLOW_ANSWERS = replace(PLAN, latency=1.0, memory=WHOLE)
REGIMES = {
    "answers": SLOW_ANSWERS,
    "processor": replace(PLAN, latency=0.01, concurrency=64),
    "registry's rate": replace(PLAN, registry_rps=20.0),
    # A list of many short pages: nobody can ask for a repository that is not listed yet.
    "list": replace(PLAN, page_size=10, tags=20_000, concurrency=64, latency=0.5, memory=WHOLE),
    "answers of a fan-out": replace(STEPS, latency=1.0),
    "processor of a fan-out": replace(STEPS, latency=0.02, concurrency=64, memory=128, workers=2),
    "registry's rate for a fan-out": replace(STEPS, registry_rps=20.0),
    "two pages and two domains": replace(PLAN, tags=400_000, domains=2),
}


def written(name: str) -> list[list[str]]:
    """Give the rows of a table as it stands in a document."""
    (table,) = (tables[name] for tables in map(tables_in, DOCUMENTS) if name in tables)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


def published() -> list[Plan]:
    """Give every registry of which the documents say that one Lambda is enough for it."""
    by_latency = [
        replace(
            SHAPE,
            latency=int(latency.removesuffix(" ms")) / 1000,
            memory=memory,
            concurrency=concurrency,
        ).grown_to(TAGS_EACH * int(repositories.replace(",", "")))
        for latency, *cells in written("threshold")
        for (memory, concurrency), repositories in zip(THRESHOLD_SETTINGS, cells, strict=True)
    ]
    by_share = [
        replace(SHAPE, unsigned=int(share.removesuffix(" %")) / 100).grown_to(int(tags.replace(",", "")))
        for share, tags, *_ in written("unsigned")
    ]
    return by_latency + by_share


# --- The simulation --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("is_first", [True, False], ids=["first run", "usual run"])
def test_a_simulated_run_lasts_as_long_as_the_closed_formula_says(regime: str, is_first: bool) -> None:
    plan = REGIMES[regime]
    moves = plan.workload.findings if is_first else plan.workload.changes
    simulated, estimated = simulate_day(plan, moves), estimate_day(plan, moves)
    assert simulated.reading == pytest.approx(estimated.reading, rel=0.2)
    assert simulated.seconds == pytest.approx(estimated.seconds, rel=0.2)
    assert simulated.gb_seconds == pytest.approx(estimated.gb_seconds, rel=0.2)


@pytest.mark.parametrize("regime", REGIMES)
def test_no_run_is_faster_than_the_slowest_thing_in_it(regime: str) -> None:
    plan = REGIMES[regime]
    slowest = max(bounds(plan, plan.workload.changes).values())
    # The answers' own spread: their mean over a night is not quite the mean.
    assert simulate_day(plan, plan.workload.changes).reading >= 0.97 * slowest


@pytest.mark.parametrize("regime", ["answers", "processor", "registry's rate", "list"])
def test_what_is_slowest_is_named(regime: str) -> None:
    assert simulate_day(REGIMES[regime], 0).bound_by == regime


def test_every_repository_and_every_page_of_the_list_is_asked_for_once() -> None:
    for plan in (
        *REGIMES.values(),
        replace(PLAN, repositories=1, tags=1),
        replace(PLAN, repositories=101, tags=30_000),
    ):
        read = simulate(scale.reading_of(plan, 0))
        of_list = plan.list_pages if plan.engine is Engine.LAMBDA else 0
        assert read.requests == plan.repositories * plan.requests_each + of_list


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    assert simulate_day(PLAN, 50) == simulate_day(PLAN, 50)
    assert simulate_day(PLAN, 50) != simulate_day(replace(PLAN, seed=2), 50)


def test_one_lambda_agrees_with_the_bill() -> None:
    """The bill's own model has no list, no spread, and no report after the reading."""
    for plan in (PLAN, replace(PLAN, memory=WHOLE), replace(PLAN, latency=0.5), PLAN.grown_to(1_000_000)):
        workload = plan.workload
        billed = float(estimate_duration(workload, workload.changes))
        assert simulate_day(plan, workload.changes).seconds == pytest.approx(billed, rel=0.2)
        assert plan.requests == count_calls(workload, 0).registry_requests


def test_workers_share_the_concurrency_and_the_registrys_rate_and_not_a_processor() -> None:
    slow = replace(STEPS, latency=1.0, memory=WHOLE)
    for workers in (2, 8):
        # 16 requests in flight, whoever makes them.
        assert simulate_day(replace(slow, workers=workers), 0).reading >= 2_000 / 16
    rated = replace(STEPS, registry_rps=20.0, concurrency=64)
    for workers in (1, 16):
        assert simulate_day(replace(rated, workers=workers), 0).reading >= 2_000 / 20
    busy = replace(STEPS, latency=0.01, concurrency=64, memory=128)
    one, four = (simulate_day(replace(busy, workers=workers), 0).reading for workers in (1, 4))
    assert four < one / 2.5


def test_a_reader_waits_where_its_findings_are_not_written() -> None:
    reading = Reading(
        repositories=500,
        requests_each=1,
        latency=0.001,
        registry_rps=0.0,
        in_flight=8,
        processor_share=1.0,
        processor_in_thread=0.0,
        processor_of_taking=0.0,
        known_latency=0.0,
        write_latency=0.05,
        writes_each=1.0,
    )
    assert simulate(reading).seconds == pytest.approx(500 * 0.05 / WRITERS, rel=0.05)


@pytest.mark.parametrize("point", read_measured(MEASURED), ids=lambda point: f"{point.latency} s, {point.concurrency}")
def test_a_simulated_audit_lasts_as_long_as_the_measured_one(point: Measured) -> None:
    assert simulate(point.reading).seconds == pytest.approx(point.seconds, rel=0.15)


def test_the_list_is_read_ahead_by_one_of_the_turns_at_the_registry() -> None:
    """Nobody waits for a page but those who wait for the first one, and a page takes its turn like anything else."""
    reading = replace(scale.reading_of(SLOW_ANSWERS, 0), latency_spread=0.0)
    least = (SLOW_ANSWERS.repositories + SLOW_ANSWERS.list_pages) * reading.latency / reading.in_flight
    assert least <= simulate(reading).seconds <= least + 3 * reading.latency


def test_an_empty_registry_takes_no_time_to_read() -> None:
    reading = scale.reading_of(PLAN, 0)
    assert simulate(replace(reading, repositories=0)).seconds == 0


@pytest.mark.parametrize(
    "changes",
    [{"tags": 0}, {"repositories": 0}, {"latency": 0.0}, {"latency": math.nan}, {"registry_rps": -1.0}, {"domains": 0},
     {"unsigned": 1.1}, {"changed": -0.1}, {"engine": Engine.STEP_FUNCTIONS, "workers": 17}],
    ids=str,
)  # fmt: skip
def test_a_registry_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least|more than|shares|workers"):
        replace(PLAN, **changes)


# --- What is used ----------------------------------------------------------------------------------------------------------------


def test_batches_grow_before_they_become_too_many() -> None:
    assert (replace(STEPS, repositories=1).batches, replace(STEPS, repositories=101).batches) == (1, 3)
    large = STEPS.grown_to(50_000_000)
    assert large.repositories == 1_000_000
    assert large.batches == BATCHES
    assert large.batches * large.batch_repositories >= large.repositories


def test_steps_leave_more_objects_and_only_they_pay_for_transitions() -> None:
    assert count_transitions(PLAN) == 0
    assert count_transitions(STEPS) == scale.TRANSITIONS_OF_A_RUN + scale.TRANSITIONS_OF_A_BATCH * 40
    assert count_objects(PLAN) == count_calls(PLAN.workload, 0).objects
    # A file of rows for each batch in place of two parts.
    more = scale.OBJECTS_OF_A_BATCH * 40 + scale.OBJECTS_OF_THE_STEPS
    assert count_objects(STEPS) == count_objects(PLAN) - 2 + 40 + more


def test_a_month_is_the_bill_of_one_lambda_but_for_time_steps_and_objects() -> None:
    prices = PriceList.read(PRICES)
    month = scale_tables.Outlook.of(PLAN).month
    billed = use_of_month(PLAN.workload)
    assert set(month) - set(billed) == {"step_transitions"}
    assert {name for name, used in billed.items() if month[name] != used} == {"lambda_gb_seconds"}
    assert month["lambda_requests"] == billed["lambda_requests"]
    steps = scale_tables.Outlook.of(STEPS).month
    assert {name for name in month if steps[name] != month[name]} == {
        "dynamodb_reads", "lambda_gb_seconds", "lambda_requests", "s3_writes", "s3_reads", "secret_reads", "step_transitions"
    }  # fmt: skip
    assert price(steps, prices) > price(month, prices)


# --- Limits ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", Engine)
def test_a_limit_is_met_where_it_is_said_to_be_and_not_before(engine: Engine) -> None:
    plan = replace(PLAN, engine=engine)
    met = 0
    for limit in limits_of(engine):
        at = reached_at(limit, plan)
        if at is None:
            continue
        met += 1
        assert limit.share(plan.grown_to(round(1.02 * at))) >= 1 > limit.share(plan.grown_to(round(0.98 * at))), limit
    assert met >= 9


def test_what_one_lambda_cannot_do_steps_can() -> None:
    for latency in (0.02, 0.1, 0.5):
        one, steps = (first_ending_limit(replace(plan, latency=latency))[0] for plan in (PLAN, STEPS))
        assert steps > 2 * one


def test_a_slower_registry_is_met_sooner_by_the_time_limit() -> None:
    fast, slow = (most_repositories(replace(PLAN, latency=latency)) for latency in (0.1, 2.0))
    assert slow < fast
    assert fits(replace(PLAN, repositories=slow, tags=50 * slow, latency=2.0))
    assert not fits(replace(PLAN, repositories=2 * slow, tags=100 * slow, latency=2.0))


def test_the_runs_that_one_lambda_needs_are_those_of_its_reading() -> None:
    assert days_taken(PLAN) == 1
    large = PLAN.grown_to(10_000_000)
    slowest = max(bounds(large, large.workload.changes).values())
    assert days_taken(large) == math.ceil(slowest / scale.REACHED_SHARE / scale.READING_SECONDS) > 1
    assert days_taken(replace(large, engine=Engine.STEP_FUNCTIONS)) == 1


def test_what_to_set_is_the_least_that_is_enough() -> None:
    assert finish(PLAN) == Setting()
    large = PLAN.grown_to(3_000_000)
    finished = finish(large)
    assert finished is not None
    assert fits(finished.applied_to(large))
    assert not any(fits(before.applied_to(large)) for before in SETTINGS[: SETTINGS.index(finished)])
    assert finish(PLAN.grown_to(10**9)) is None


def test_a_setting_says_what_differs_from_the_templates_defaults() -> None:
    assert Setting().formatted == "the defaults"
    assert (
        Setting(engine=Engine.STEP_FUNCTIONS, memory=WHOLE).formatted
        == "`Engine` stepfunctions, `MemoryMegabytes` 1769"
    )
    defaults = {name: parameter.get("Default") for name, parameter in TEMPLATE["Parameters"].items()}
    for one in (Setting(), PLAN):
        assert one.memory == defaults["MemoryMegabytes"]
        assert one.concurrency == defaults["Concurrency"]
        assert one.page_size == defaults["PageSize"]
    for setting in SETTINGS:
        for name, value in (
            ("MemoryMegabytes", setting.memory),
            ("Concurrency", setting.concurrency),
            ("PageSize", setting.page_size),
        ):
            parameter = TEMPLATE["Parameters"][name]
            assert parameter["MinValue"] <= value <= parameter["MaxValue"]


def test_page_of_parameters_says_how_large_a_registry_one_lambda_can_read() -> None:
    said = " ".join(parameters.PAGE.read_text(encoding="utf-8").split())
    rows = (line.strip("| ").split(" | ") for line in scale_tables.threshold_table().splitlines())
    with_the_defaults = {row[0]: row[1] for row in rows}
    for latency in ("100 ms", "500 ms"):
        assert re.search(
            rf"{with_the_defaults[latency]}( repositories)? if (the registry|it) answers in {latency}", said
        )


@pytest.mark.parametrize(
    "largest",
    published(),
    ids=lambda plan: f"{plan.latency} s, {plan.memory} MB, {plan.concurrency} at once, {100 * plan.unsigned:.0f} %",
)
def test_the_first_run_of_a_registry_as_large_as_is_said_fits_into_one_lambda(largest: Plan) -> None:
    moves = largest.workload.findings
    day = simulate_day(largest, moves)
    assert scale.seconds_before_reading(largest, moves) + day.reading <= scale.READING_SECONDS
    assert day.seconds <= TIMEOUT_SECONDS


def test_limits_are_those_of_the_template_and_the_queries() -> None:
    assert TEMPLATE["Parameters"]["QueryLimitMegabytes"]["Default"] == scale.QUERY_LIMIT_MEGABYTES
    assert TEMPLATE["Parameters"]["TimeoutSeconds"]["MaxValue"] == TIMEOUT_SECONDS
    storage = TEMPLATE["Globals"]["Function"]["EphemeralStorage"]["Size"]
    assert storage == scale.TEMPORARY_MEGABYTES
    days = [int(found) for query in named_queries() for found in re.findall(r"INTERVAL '(\d+)' DAY", query.sql)]
    assert max(days) == scale.QUERY_DAYS
    assert {limit.name for limit in LIMITS} == {limit.name for engine in Engine for limit in limits_of(engine)}
    assert all(len({one.name for one in limits_of(engine)}) == len(limits_of(engine)) for engine in Engine)


def test_bytes_of_a_repository_and_of_a_waiting_finding_are_as_estimated() -> None:
    many = 20_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        listed = [Repository(f"team-{number % 100:03d}", f"service-{number:06d}") for number in range(many)]
        held = (dict.fromkeys(listed, False), set(listed))
        del listed
        each = (tracemalloc.get_traced_memory()[0] - before) / many
    finally:
        tracemalloc.stop()
    assert len(held[0]) == many
    assert 0.6 * scale.BYTES_OF_A_REPOSITORY <= each <= scale.BYTES_OF_A_REPOSITORY
    tag = Tag(
        name="1.0.17",
        digest="sha256:" + 64 * "a",
        author=32 * "b",
        pushed_at="2026-11-21T22:18:00.000Z",
        trust=(TrustFlags("dtr.example.mil", False, False),),
        cosign_signed=None,
        media_type="application/vnd.docker.distribution.manifest.v2+json",
    )
    judged = JudgedTag(tag, Verdict.UNSIGNED, "not signed under dtr.example.mil", tag.trust[0])
    moment = Moment("20261121T030000Z", datetime(2026, 11, 21, tzinfo=UTC))
    moves = compare("prod-dtr", Repository("platform", "service-1"), [judged], {}, is_complete=True, moment=moment)
    spool = FindingSpool()
    spool.add(moves.writes[0])
    assert 0.6 * scale.SPOOL_BYTES <= spool.add(moves.writes[0]) <= scale.SPOOL_BYTES
    spool.close()


# --- The command -----------------------------------------------------------------------------------------------------------------


def test_the_command_reports_of_one_registry_by_both_engines_or_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scale", "--tags", "20000", "--repositories", "400"]
    assert main(arguments) == 0
    reported = capsys.readouterr().out
    assert "Engine: lambda" in reported
    assert "Engine: stepfunctions" in reported
    assert "One run is not enough" not in reported
    assert main([*arguments, "--engine", "lambda", "--latency-ms", "60000"]) == 0
    reported = capsys.readouterr().out
    assert "Engine: stepfunctions\n" not in reported
    assert (
        "One run is not enough, for Lambda's time, for reading, in the first run: then the run is not complete"
        in reported
    )


def test_the_simulation_is_what_the_command_reports(capsys: pytest.CaptureFixture[str]) -> None:
    main(["scale", "--tags", "20000", "--repositories", "400", "--engine", "lambda", "--registry-rps", "4"])
    reported = capsys.readouterr().out
    plan = Plan(20_000, 400, registry_rps=4.0)
    assert f"{round(simulate_day(plan, plan.workload.changes).seconds / 60)} min" in reported
    assert "registry's rate" in reported


@pytest.mark.parametrize(
    "arguments",
    [["--tags", "5"], ["--tags", "1", "--repositories", "0"], ["--prices", "none.json"], ["--engine", "inline"],
     ["--tags", "1", "--repositories", "1", "--workers", "20"]],
    ids=["half of it", "no repository", "no price list", "no engine", "more workers than requests"],
)  # fmt: skip
def test_the_command_refuses_what_it_cannot_simulate(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scale", *arguments])
    assert ended.value.code == 2
    assert "python -m tools.planner scale: error: " in capsys.readouterr().err


def test_a_price_list_without_the_prices_of_steps_is_refused_by_the_name_of_what_is_missing(tmp_path: Path) -> None:
    document = json.loads(PRICES.read_text(encoding="utf-8"))
    del document["prices"]["step_transitions"]
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match="step_transitions"):
        scale_tables.check_prices(PriceList.read(file))


def test_what_binds_is_of_those_limits_that_cost_a_run_its_answer() -> None:
    for engine in Engine:
        for tags in (10_000, 10_000_000):
            plan = replace(PLAN, engine=engine).grown_to(tags)
            assert binding(plan) in ending_limits_of(engine)
            assert fits(plan) is all(limit.share(plan) <= 1 for limit in ending_limits_of(engine))


@pytest.mark.parametrize("arguments", [[], ["--engine", "lambda"]], ids=["both engines", "one engine"])
def test_one_registry_is_not_written_into_the_documents(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scale", "--write", "--tags", "20000", "--repositories", "400", *arguments])
    assert ended.value.code == 2
    assert "leave --tags and --repositories away" in capsys.readouterr().err
