"""The documents between the steps, damaged and forged: the report never crashes, and never passes what did not pass."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import pytest

from dtr_audit.core.run_record import Status
from dtr_audit_simulator.aws.stack import Stack
from tests.fuzz.mutators import mutate_bytes, mutate_each_place, mutate_json
from tests.fuzz.step_documents import (
    PASSES,
    RUN_ID,
    SCENARIOS,
    Left,
    Reported,
    make_runs,
    read_lines,
    with_evidence,
    write_lines,
)

CASES = 40  # mutants at random, for each run
RESEALED = 300  # of the mutants whose sums fit, for each run: there are some thousands
CLOSED = "closed.findings.jsonl.gz"
# What the report reads.
DOCUMENTS = (
    *("inventory.json", "proof.json", "exceptions.json"),
    *("results/00001.json", "results/00001.findings.jsonl.gz", "results/00002.json", "results/00002.findings.jsonl.gz"),
)


@pytest.fixture(scope="module")
def runs(stack: Stack) -> dict[str, Left]:
    return make_runs(stack)


def assert_no_false_pass(reported: Reported, scenario: str, case: object) -> None:
    """Hold a report against the truth, which is what the registry held."""
    run = reported.run
    assert not reported.is_leased, case
    if run.status is Status.NOT_A_FINDING:
        assert scenario in PASSES, case
        assert run.complete, case
        assert run.tags.signed == run.tags.audited, case
        assert run.findings.open == 0, case


def assert_damage_is_said(reported: Reported, name: str) -> None:
    run = reported.run
    assert not run.complete
    assert run.status is not Status.NOT_A_FINDING
    assert any(name in reason and "Start the audit again" in reason for reason in run.incomplete_because), (
        run.incomplete_because
    )
    assert not reported.is_leased


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_unchanged_run_is_reported_as_it_is(runs: dict[str, Left], scenario: str) -> None:
    for is_resealed in (False, True):
        run = runs[scenario].report(is_resealed=is_resealed).run
        assert (run.status is Status.NOT_A_FINDING) is (scenario in PASSES), run
        assert run.complete is (scenario in {*PASSES, "unsigned"}), run.incomplete_because
        assert not [one for one in run.incomplete_because if "internal error" in one]


def foreign(runs: dict[str, Left], name: str) -> bytes:
    """Give a sound document of the same name, of another run."""
    if name == "exceptions.json":
        return b'{"exceptions": []}'  # all runs have read the same
    return runs["unsigned"].documents[name]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "garbage": lambda _: b"\x1f\x8b\x00 no document of ours",
    "another type": lambda _: b"[1]",
}


@pytest.mark.parametrize("damage", [*DAMAGES, "foreign"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_damaged_document_ends_the_run_as_incomplete_and_is_named(
    runs: dict[str, Left], name: str, damage: str
) -> None:
    left = runs["gone"]
    content = foreign(runs, name) if damage == "foreign" else DAMAGES[damage](left.documents[name])
    reported = left.report({name: content})
    assert not reported.run.complete
    assert reported.run.status is (Status.OPEN if reported.run.findings.open else Status.NOT_REVIEWED)
    if damage == "missing" and name.startswith("results/") and name.endswith(".json"):
        # One that is missing is a batch that came to nothing.
        assert "came to no result" in reported.run.incomplete_because[0]
    else:
        assert_damage_is_said(reported, name)
    # What a damaged document tells of is not resolved.
    assert not [one for one in reported.run.incomplete_because if "internal error" in one]


@dataclass(frozen=True, slots=True)
class Attempted:
    """A run whose report was cut off at its very end, once it had closed what was gone."""

    left: Left
    first: Reported
    closed: bytes


@pytest.fixture(scope="module")
def attempted(runs: dict[str, Left]) -> Attempted:
    left = runs["gone"]
    first = left.report()
    content = first.objects[f"{left.prefix}{CLOSED}"]
    assert len(read_lines(content)) == 2, "a finding of the repository that is gone, and the last line"
    return Attempted(replace(left, findings=first.findings), first, content)


def test_what_a_first_attempt_has_closed_is_counted_by_the_second(attempted: Attempted) -> None:
    second = attempted.left.report({CLOSED: attempted.closed})
    assert second.run.findings == attempted.first.run.findings
    assert second.run.status is Status.NOT_A_FINDING


CLOSED_DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    **{name: DAMAGES[name] for name in ("empty", "truncated", "garbage")},
    "garbage in gzip": lambda _: gzip.compress(b"no document of ours\n"),
    "another type": lambda _: gzip.compress(b"[1]\n"),
    "its last line cut off": lambda content: write_lines(read_lines(content)[:-1]),
    "a finding cut out": lambda content: write_lines(read_lines(content)[1:]),
    "without findings": lambda _: gzip.compress(b""),
    "of another execution": lambda content: write_lines(
        [*read_lines(content)[:-1], {"execution": "another", "findings": 1}]
    ),
    "of another run": lambda content: gzip.compress(
        gzip.decompress(content).replace(RUN_ID.encode(), b"20261201T030000Z")
    ),
    "of another registry": lambda content: gzip.compress(
        gzip.decompress(content).replace(b'"registry":"', b'"registry":"other-')
    ),
    "an endless line": lambda content: gzip.compress(b'{"waits": "' + b"x" * 3_000_000 + b'"}\n'),
}


@pytest.mark.parametrize("damage", CLOSED_DAMAGES)
def test_a_damaged_file_of_closed_findings_ends_the_run_as_incomplete_and_is_named(
    attempted: Attempted, damage: str
) -> None:
    reported = attempted.left.report({CLOSED: CLOSED_DAMAGES[damage](attempted.closed)})
    assert_damage_is_said(reported, CLOSED)
    assert reported.run.findings.resolved == attempted.first.run.findings.resolved


@pytest.mark.parametrize("scenario", ["signed", "unproven"])
def test_a_field_changed_in_a_document_makes_the_run_incomplete(runs: dict[str, Left], scenario: str) -> None:
    left = runs[scenario]
    for name in DOCUMENTS:
        for case, content in list_mutants(name, left.documents[name]):
            reported = left.report({name: content})
            assert_no_false_pass(reported, scenario, (name, case))
            assert not reported.run.complete, (name, case)


# Reasons that a step gives in words alone. One that lies about them, and fits all sums, is believed.
WORDS = ("unproven", "incomplete_because", "listing_problem", "counted", "changed")


def list_mutants(name: str, content: bytes) -> list[tuple[str, bytes]]:
    """Give a document with each of its fields changed."""
    if name.endswith(".json"):
        return [(case, json.dumps(mutant).encode()) for case, mutant in mutate_each_place(json.loads(content))]
    changed = mutate_each_place(read_lines(content))
    return [(case, write_lines(mutant if isinstance(mutant, list) else [mutant])) for case, mutant in changed]


def list_resealed_mutants(left: Left, random: Random) -> list[tuple[str, str, bytes]]:
    """Give some of the documents with a field changed, but for the reasons in words."""
    mutants = [
        (name, case, content)
        for name in DOCUMENTS
        for case, content in list_mutants(name, left.documents[name])
        if not case.startswith(WORDS)
    ]
    return random.sample(mutants, min(RESEALED, len(mutants)))


@pytest.mark.parametrize("scenario", ["unsigned", "unknown", "unread"])
def test_no_field_changed_by_a_step_itself_makes_a_false_pass(runs: dict[str, Left], scenario: str) -> None:
    """All sums fit: what sees it is the schema of a document, or the record that contradicts itself."""
    left = runs[scenario]
    for name, case, content in list_resealed_mutants(left, Random(f"resealed {scenario}")):
        assert_no_false_pass(left.report({name: content}, is_resealed=True), scenario, (name, case))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_mutant_of_a_document_crashes_the_report(runs: dict[str, Left], scenario: str) -> None:
    left = runs[scenario]
    random = Random(f"documents of {scenario}")
    for case in range(CASES):
        name = random.choice(DOCUMENTS)
        content = left.documents[name]
        mutant = mutate_json(content, random) if name.endswith(".json") else mutate_bytes(content, random)
        if random.randrange(2):
            mutant = mutate_bytes(content, random)
        assert_no_false_pass(left.report({name: mutant}), scenario, (case, name))
        resealed = left.report({name: mutant}, is_resealed=True)
        assert not resealed.is_leased, (case, name)


def test_a_mutant_that_is_believed_makes_evidence_that_can_be_written(runs: dict[str, Left]) -> None:
    left = with_evidence(runs["unsigned"])
    random = Random("evidence")
    for name, case, content in list_resealed_mutants(left, random)[:CASES]:
        assert_no_false_pass(left.report({name: content}, is_resealed=True), "unsigned", (name, case))
