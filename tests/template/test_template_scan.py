"""What `make scan` judges by: the stacks it shows to checkov, and the suppressions in the template."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from dtr_audit_simulator.aws import template as templates
from tests.harness.resolution import references, resolve
from tests.scans.misconfigurations import (
    REGION,
    STACKS,
    Place,
    Scan,
    UnreadableError,
    judge,
    scan,
    stacks,
    suppressions,
    unsuppressed,
)

TEMPLATE = templates.load(Path(__file__).parents[2] / "template.yaml")
TOPIC = Place("AlertTopic", "CKV_AWS_26")
QUEUE = Place("DeadLetterQueue", "CKV_AWS_27")


@pytest.mark.parametrize(("place", "reason"), suppressions(TEMPLATE), ids=str)
def test_every_suppression_gives_its_reason_in_a_sentence(place: Place, reason: str) -> None:
    assert re.fullmatch(r"CKV2?_AWS_[0-9]+", place.check)
    assert re.fullmatch(r"[A-Z].{40,}\.", reason), f"{place} is suppressed for {reason!r}: say why it may be."


def test_nothing_is_suppressed_twice() -> None:
    locations = [place for place, _ in suppressions(TEMPLATE)]
    assert len(locations) == len(set(locations)) > 0


def test_suppressions_are_taken_away_and_nothing_else() -> None:
    bare = unsuppressed(TEMPLATE)
    assert suppressions(bare) == []
    assert {name: resource["Properties"] for name, resource in bare["Resources"].items()} == {
        name: resource["Properties"] for name, resource in TEMPLATE["Resources"].items()
    }
    assert bare["Resources"]["AuditFunction"]["Metadata"] == {"BuildMethod": "makefile"}


def test_the_translation_is_the_same_in_every_region() -> None:
    scanned = templates.translate(TEMPLATE, REGION)
    assert templates.translate(TEMPLATE, "us-east-1") == templates.translate(TEMPLATE, "us-gov-east-1") == scanned


@pytest.mark.parametrize("condition", TEMPLATE["Conditions"])
def test_between_the_scanned_stacks_every_condition_goes_both_ways(condition: str) -> None:
    ways = {
        templates.holds(condition, TEMPLATE, templates.complete_parameters(TEMPLATE, given))
        for given in STACKS.values()
    }
    assert ways == {True, False}, (
        f"Give STACKS in tests/scans/misconfigurations.py a value that {condition} depends on."
    )


@pytest.mark.parametrize("name", STACKS)
def test_a_decided_stack_leaves_nothing_open_and_refers_to_nothing_that_it_does_not_make(name: str) -> None:
    stack = stacks(TEMPLATE)[name]
    assert "Fn::If" not in json.dumps(stack)
    assert "AWS::NoValue" not in json.dumps(stack)
    assert set(references(resolve(STACKS[name]))) <= set(stack["Resources"])


def test_the_options_make_and_leave_out_what_they_are_for() -> None:
    defaults, options = (set(stacks(TEMPLATE)[name]["Resources"]) for name in ("defaults", "options"))
    assert {"EncryptionKey", "CredentialsSecret", "AlertTopic"} <= defaults - options
    assert {"SecretsManagerEndpoint", "S3Endpoint"} <= options - defaults


def test_a_finding_that_no_one_suppressed_is_a_complaint() -> None:
    with_topic = Scan({TOPIC: "Ensure the topic is encrypted"}, frozenset())
    [complaint] = judge([], {"template.yaml": with_topic, "defaults.json": with_topic}, [with_topic])
    assert "AlertTopic: CKV_AWS_26 Ensure the topic is encrypted (in template.yaml, defaults.json)" in complaint


def test_a_suppression_that_nothing_needs_any_more_is_a_complaint() -> None:
    bare = [Scan({}, frozenset()), Scan({QUEUE: "Ensure the queue is encrypted"}, frozenset())]
    as_deployed = {"template.yaml": Scan({}, frozenset({TOPIC, QUEUE}))}
    [complaint] = judge([TOPIC, QUEUE], as_deployed, bare)
    assert complaint.startswith("AlertTopic: CKV_AWS_26 is suppressed")


def test_findings_that_are_suppressed_and_needed_are_no_complaint() -> None:
    bare = Scan({QUEUE: "Ensure the queue is encrypted"}, frozenset())
    assert judge([QUEUE], {"template.yaml": Scan({}, frozenset({QUEUE}))}, [bare]) == []


def record(name: str, place: Place) -> dict[str, str]:
    return {
        "file_path": f"/{name}",
        "resource": f"AWS::Some::Type.{place.resource}",
        "check_id": place.check,
        "check_name": "Ensure",
    }


def checkov_that_says(answer: object, folder: Path, *, exit_status: int = 0) -> Path:
    fake = folder / "checkov"
    fake.write_text(f"#!{sys.executable}\nimport sys\nprint({json.dumps(answer)!r})\nsys.exit({exit_status})\n")
    fake.chmod(0o700)
    return fake


def test_findings_and_suppressions_are_reported_apart_by_file(tmp_path: Path) -> None:
    results = {
        "passed_checks": [record("a.json", QUEUE), record("b.json", QUEUE)],
        "failed_checks": [record("a.json", TOPIC)],
        "skipped_checks": [record("b.json", TOPIC)],
        "parsing_errors": [],
    }
    checkov = checkov_that_says({"results": results}, tmp_path, exit_status=1)
    assert scan(checkov, {"a.json": "{}", "b.json": "{}"}) == {
        "a.json": Scan({TOPIC: "Ensure"}, frozenset()),
        "b.json": Scan({}, frozenset({TOPIC})),
    }


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"passed": 0, "failed": 0, "parsing_errors": 0}, id="no file was read"),
        pytest.param(
            {
                "results": {
                    "passed_checks": [record("a.json", QUEUE)],
                    "failed_checks": [],
                    "skipped_checks": [],
                    "parsing_errors": [],
                }
            },
            id="one of two was read",
        ),
        pytest.param(
            {
                "results": {
                    "passed_checks": [record("a.json", QUEUE), record("b.json", QUEUE)],
                    "failed_checks": [],
                    "skipped_checks": [],
                    "parsing_errors": ["b.json"],
                }
            },
            id="one was not understood",
        ),
    ],
)
def test_a_file_that_checkov_did_not_read_is_not_clean(answer: object, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError):
        scan(checkov_that_says(answer, tmp_path), {"a.json": "{}", "b.json": "{}"})
