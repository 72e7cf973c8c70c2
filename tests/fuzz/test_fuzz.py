"""A short run of the fuzzers, and proof that they find what they look for. The long run is `make fuzz`."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from dtr_audit.core.model import RepositoryReading, Tag, Verdict
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.pipeline import scan
from dtr_audit.registry import artifacts, dtr, parsing
from dtr_audit.trust.notary import verification
from dtr_audit_simulator.aws.stack import Stack
from tests.fuzz import run, whole
from tests.fuzz.oracle import FindingError
from tests.fuzz.targets import TARGETS, Bench, make_case
from tests.fuzz.world import APP, PASSWORD

CASES = 120  # of each target: some seconds of processor time in all
WHOLE = {"audit": 6, "steps": 12}
TRIED = 1_500  # cases in which a fault that was put in is found


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.fixture(scope="module")
def deployed(stack: Stack) -> whole.Deployed:
    return whole.Deployed(stack)


@pytest.mark.parametrize("target", TARGETS)
def test_no_mutant_of_an_answer_makes_more_signed_or_anything_unforeseen(bench: Bench, target: str) -> None:
    for seed in range(CASES):
        make_case(bench, target, seed)


def test_page_that_is_asked_again_after_a_broken_gzip_is_held_against_its_second_answer(bench: Bench) -> None:
    make_case(bench, "tags", 106_863)


def test_whole_audit_of_a_mutant_leaves_no_secret_to_the_next_case(deployed: whole.Deployed) -> None:
    whole.fuzz_audit(deployed, "audit", 0)
    assert not REDACTOR.holds_secret(PASSWORD)


def test_no_mutant_makes_the_whole_function_say_more_than_the_answers(
    deployed: whole.Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtr_audit.http.transport.RETRY_AFTER_LIMIT_SECONDS", 0.5)
    monkeypatch.setattr("dtr_audit.registry.session.ROTATION_SECONDS", 0.01)
    for seed in range(WHOLE["audit"]):
        whole.fuzz_audit(deployed, "audit", seed)


def test_no_mutant_between_steps_makes_a_report_pass_that_must_not(deployed: whole.Deployed) -> None:
    for seed in range(WHOLE["steps"]):
        whole.fuzz_steps(deployed, "steps", seed)


def test_the_honest_world_is_read_as_it_is(bench: Bench) -> None:
    [reading] = [one for one in bench.honest if one.repository == APP]
    assert [one.tag.name for one in reading.tags if one.verdict is Verdict.SIGNED] == ["1.0", "1.1"]
    assert len(bench.artifacts) == 2
    assert {name for name, _ in bench.signed[0]} == {"1.0", "1.1"}
    assert set(bench.unsigned) == {"2.0", "2.0.sig", "stale"}
    assert {name for name, _ in bench.signed[1]} == {"1.0"}
    assert {name for name, _ in bench.world.listed[APP]} == {"1.0", "1.1", "2.0"}


def _take_first(_: Tag) -> tuple[object, ...]:
    return ()


def _count_nothing(*_: object) -> str:
    return ""


def _accept(_: object, keys: Any, *__: object) -> frozenset[str]:
    return frozenset(key.id for key in keys)


def _believe_names(_: object, __: object, tags: Any) -> dict[str, str]:
    return {tag.name: "" for tag in tags if artifacts.is_named_like_artifact(tag.name)}


def _fail(*_: object) -> RepositoryReading:
    raise KeyError("a fault of ours")


# A fault of the product, where it is put in, and the target that finds it.
FAULTS: dict[str, tuple[object, str, Callable[..., Any], str]] = {
    "two entries, of which the first counts": (parsing, "_holds", _take_first, "tags"),
    "a list that is cut off": (dtr, "explain_count", _count_nothing, "tags"),
    "a list of repositories that is cut off": (dtr, "explain_count", _count_nothing, "repositories"),
    "a name that makes an artifact": (scan, "find_artifacts", _believe_names, "manifests"),
    "an exception of no kind of ours": (scan, "judge_together", _fail, "tags"),
    "a signature that is not verified": (verification, "verify_document", _accept, "trust-server"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_is_put_into_the_product_is_found(fault: str) -> None:
    place, name, wrong, target = FAULTS[fault]
    bench = Bench()
    assert bench.artifacts
    with patch.object(place, name, wrong), pytest.raises((FindingError, KeyError)):
        for seed in range(TRIED):
            make_case(bench, target, seed)


def test_a_finding_begins_with_the_line_that_makes_it_again() -> None:
    run.make_chunk(run.Chunk("tags", 5, 1))
    with patch.object(scan, "judge_together", _fail):
        made = run.make_chunk(run.Chunk("tags", 5, 1))
    [finding] = made.findings
    assert finding.startswith('make fuzz FUZZ_ARGUMENTS="--target tags --seed 5 --cases 1"  # ')


@pytest.mark.parametrize("target", ["tags", "trust-server"])
def test_a_seed_makes_the_same_mutant_in_another_world(bench: Bench, target: str) -> None:
    other = Bench()
    for seed in (3, 4):
        make_case(bench, target, seed)
        make_case(other, target, seed)
        assert [one.answer for one in bench.world.wire.served] == [one.answer for one in other.world.wire.served]


def test_all_cases_are_shared_out() -> None:
    counts = run.share_out(run.CASES, run.TARGETS)
    assert sum(counts.values()) == run.CASES
    assert counts.keys() == set(run.TARGETS)
    assert sum(chunk.cases for chunk in run.cut(counts, 1)) == run.CASES
