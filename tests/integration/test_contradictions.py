"""Answers that say two things of one tag, or give one key two values: read once more, and never taken by their first half."""

import json
from pathlib import Path
from typing import Any

import pytest

from dtr_audit_simulator.dtr.fault_kinds import Body, Repeated, readings_of, tags_of
from dtr_audit_simulator.dtr.faults import REPOSITORIES, SETTINGS, TOKEN, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import StepFunctionsRun

ANSWERS = Path(__file__).with_name("answers")
APP = "team/app"
UNSIGNED = {"inNotary": False}
OVERWRITTEN = {"digest": "sha256:" + "f" * 64}


@pytest.fixture
def registry() -> InMemoryRegistry:
    """Every tag signed, on three pages of ten."""
    registry = InMemoryRegistry()
    for number in range(25):
        registry.push("team", "app", f"1.{number:02d}")
        registry.sign("team", "app", f"1.{number:02d}")
    return registry


def once_more(changes: dict[str, Any], *, times: int | None = None, **where: bool) -> Faults:
    calls = readings_of(tags_of(APP), times=times)
    return Faults(repeated=(Repeated(changes, "1.03", APP, calls, **where),))


CONTRADICTIONS = {
    "flags on one page": once_more(UNSIGNED),
    "flags across pages": once_more(UNSIGNED, at_the_end=True),
    "a flag that is not read": once_more({"inNotary": None}),
    "digests": once_more(OVERWRITTEN),
    "digests across pages": once_more(OVERWRITTEN, at_the_end=True),
    "Cosign's flag": once_more({"cosignSigned": True}),
    "a key of one entry": once_more(UNSIGNED, in_one_object=True),
    "a key that nothing reads": once_more({"size": 1, "createdAt": ""}, in_one_object=True),
    "a key within a key": once_more({"manifest": {"digest": ""}}, in_one_object=True),
    "true and 1": once_more({"inNotary": 1}, in_one_object=True),
}


@pytest.mark.parametrize("faults", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_tag_listed_with_different_contents_makes_the_repository_unread(
    audited: Audited, dtr: DtrServer, faults: Faults
) -> None:
    dtr.faults = faults
    run = audited.audit(PAGE_SIZE="10")
    assert run["complete"] is False
    assert run["status"] == "NOT_REVIEWED"
    assert run["repositories"]["unreadable"] == 1
    (unreadable,) = run["unreadable"]
    assert unreadable["repository"] == APP
    assert "two readings" in unreadable["reason"] or "two different values" in unreadable["reason"]
    assert len([call for call in dtr.calls(f"*/{APP}/tags") if "pageStart" not in call.query]) == 2
    assert f"{APP}:1.03" not in audited.verdicts(run["run_id"])


def test_a_tag_listed_with_different_contents_makes_the_repository_unread_in_step_functions(
    audited: Audited, dtr: DtrServer
) -> None:
    dtr.faults = CONTRADICTIONS["flags across pages"]
    step_functions_run = StepFunctionsRun(audited, {"PAGE_SIZE": "10"})
    run = step_functions_run.record(step_functions_run.execute()["run_id"])
    assert run["status"] == "NOT_REVIEWED"
    assert [one["repository"] for one in run["unreadable"]] == [APP]


@pytest.mark.parametrize("kind", ["flags across pages", "digests", "a key of one entry"])
def test_a_contradiction_that_a_second_reading_ends_is_survived(audited: Audited, dtr: DtrServer, kind: str) -> None:
    (repeated,) = CONTRADICTIONS[kind].repeated
    where = {"at_the_end": repeated.at_the_end, "in_one_object": repeated.in_one_object}
    dtr.faults = once_more(dict(repeated.changes), times=1, **where)
    run = audited.audit(PAGE_SIZE="10")
    assert run["incomplete_because"] == []
    assert run["status"] == "NOT_A_FINDING"
    assert run["tags"]["signed"] == 25


ALIKE = {
    "on one page": once_more({}),
    "across pages": once_more({}, at_the_end=True),
    "but for the author": once_more({"author": "another"}),
    "a key of one entry": once_more({"inNotary": True}, in_one_object=True),
}


@pytest.mark.parametrize("faults", ALIKE.values(), ids=ALIKE)
def test_a_tag_listed_twice_alike_is_harmless(audited: Audited, dtr: DtrServer, faults: Faults) -> None:
    dtr.faults = faults
    run = audited.audit(PAGE_SIZE="10")
    assert run["incomplete_because"] == []
    assert run["tags"]["signed"] == 25
    assert len(dtr.calls(f"*/{APP}/tags")) == 3


def test_a_finding_whose_tag_is_listed_with_different_flags_stays_open(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.03")
    audited.audit()
    dtr.faults = once_more({"inNotary": True, "hashMismatch": False})
    run = audited.audit()
    assert run["complete"] is False
    assert run["findings"]["resolved"] == 0
    assert audited.findings()[f"{APP}:1.03"]["state"] == "OPEN"


def test_an_answer_with_a_tag_signed_and_unsigned_is_unread(audited: Audited, dtr: DtrServer) -> None:
    tags = json.loads((ANSWERS / "tags-contradicting-duplicates.json").read_text(encoding="utf-8"))
    # In the form of DTR 2.1, which needs no headers.
    dtr.faults = Faults(on_calls=(Body(json.dumps({"tags": tags}).encode(), tags_of(APP)),))
    run = audited.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert "'1.1' more than once" in run["unreadable"][0]["reason"]
    assert audited.verdicts(run["run_id"]) == {f"{APP}:1.0": "SIGNED"}


def test_a_list_of_repositories_with_a_key_twice_is_read_once_more(audited: Audited, dtr: DtrServer) -> None:
    answer = b'{"repositories": [], "repositories": null}'
    dtr.faults = Faults(on_calls=(Body(answer, REPOSITORIES.limited(times=1)),))
    run = audited.audit()
    assert run["incomplete_because"] == []
    assert run["tags"]["signed"] == 25


def test_a_list_of_repositories_with_a_key_twice_at_each_reading_is_unread(audited: Audited, dtr: DtrServer) -> None:
    answer = b'{"repositories": [], "repositories": null}'
    dtr.faults = Faults(on_calls=(Body(answer, REPOSITORIES),))
    run = audited.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert "gives one key two different values" in " ".join(run["incomplete_because"])


def test_settings_with_a_key_twice_verify_no_administrator(audited: Audited, dtr: DtrServer) -> None:
    answer = json.dumps({"dtrHost": dtr.host}).encode()[:-1] + b', "dtrHost": "elsewhere.example"}'
    dtr.faults = Faults(on_calls=(Body(answer, SETTINGS),))
    run = audited.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert dtr.calls("/api/v0/repositories") == ()


def test_a_token_with_a_key_twice_is_not_sent(audited: Audited, dtr: DtrServer) -> None:
    dtr.faults = Faults(on_calls=(Body(b'{"token": "first", "token": "second"}', TOKEN),))
    assert audited.audit()["status"] == "NOT_A_FINDING"
    assert {call.authentication for call in dtr.calls("/api/*")} == {"basic"}
