"""What Security Hub is told of a finding, held against AWS's own limits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtr_audit.aws.security_hub import BATCH_BYTES, AsffWriter
from dtr_audit.core.finding import ChangeKind, Finding, State
from dtr_audit.core.finding_changes import NO_IMAGE, REPOSITORY_REMOVED, SIGNED_SINCE, TAG_REMOVED
from dtr_audit.core.fix import fix_commands
from dtr_audit.core.model import Repository, Verdict
from dtr_audit.core.rule import SEVERITY
from dtr_audit.core.stig import load_release
from tests.harness.security_hub import CALL_BYTES, FINDING_BYTES, complaints

PRODUCT = "arn:aws-us-gov:securityhub:us-gov-west-1:123456789012:product/123456789012/default"
AT = "2026-11-22T03:00:05.000Z"
OPEN = Finding(
    registry="prod-dtr",
    repository=Repository("web", "shop"),
    tag="1.2",
    state=State.OPEN,
    verdict=Verdict.UNSIGNED,
    reason="not signed under dtr.example.mil",
    digest="sha256:" + "a" * 64,
    author="alice",
    pushed_at="2026-11-20T16:40:02.000Z",
    first_seen="2026-11-21T03:00:00.000Z",
    last_changed="2026-11-22T03:00:00.000Z",
    transition=ChangeKind.OPENED,
    changed_in="20261121T030000Z",
    media_type="application/vnd.docker.distribution.manifest.v2+json",
)
WRITER = AsffWriter(PRODUCT, "V2R2", domain="dtr.example.mil", run_id="20261122T030000Z")


def written(finding: Finding = OPEN, writer: AsffWriter = WRITER) -> dict[str, Any]:
    document: dict[str, Any] = dict(writer.write(finding, at=AT))
    assert complaints(document) == []
    return document


def resolved(resolution: str) -> Finding:
    return replace(OPEN, state=State.RESOLVED, transition=ChangeKind.RESOLVED, resolution=resolution)


@pytest.mark.parametrize(
    ("finding", "status", "record", "severity"),
    [
        (OPEN, "FAILED", "ACTIVE", "MEDIUM"),
        (replace(OPEN, verdict=Verdict.MISMATCHED), "FAILED", "ACTIVE", "MEDIUM"),
        (resolved(SIGNED_SINCE), "PASSED", "ACTIVE", "INFORMATIONAL"),
        (resolved(TAG_REMOVED), "NOT_AVAILABLE", "ARCHIVED", "INFORMATIONAL"),
        (resolved(REPOSITORY_REMOVED), "NOT_AVAILABLE", "ARCHIVED", "INFORMATIONAL"),
        (resolved(NO_IMAGE), "NOT_AVAILABLE", "ARCHIVED", "INFORMATIONAL"),
    ],
)
def test_only_what_was_seen_signed_has_passed(finding: Finding, status: str, record: str, severity: str) -> None:
    document = written(finding)
    assert document["Compliance"]["Status"] == status
    assert document["RecordState"] == record
    assert document["FindingProviderFields"]["Severity"] == {"Label": severity, "Original": "CAT II"}


def test_the_severity_is_the_rules_own() -> None:
    assert written()["FindingProviderFields"]["Severity"]["Label"] == SEVERITY.upper()


def test_a_finding_says_when_and_is_updated_whenever_it_is_sent() -> None:
    document = written()
    assert document["CreatedAt"] == document["FirstObservedAt"] == OPEN.first_seen
    assert document["LastObservedAt"] == OPEN.last_changed
    assert document["UpdatedAt"] == AT


@pytest.mark.parametrize("release", ["V2R2", "V2R1"])
def test_a_finding_names_the_rule_of_its_release_its_ccis_and_its_controls(release: str) -> None:
    writer = AsffWriter(PRODUCT, release, domain="dtr.example.mil", run_id="1")
    assert written(writer=writer)["Compliance"]["RelatedRequirements"] == [
        "DISA STIG V-235846",
        f"DISA STIG {load_release(release).rule.rule_id}",
        "CCI-001774",
        "CCI-002710",
        "CCI-002715",
        "CCI-002723",
        "CCI-002724",
        "NIST.800-53.r5 CM-7(5)(b)",
        "NIST.800-53.r5 SI-7(1)",
        "NIST.800-53.r5 SI-7(5)",
        "NIST.800-53.r5 SI-7(8)",
    ]


def test_the_image_is_named_as_it_is_pulled_with_its_digest() -> None:
    (resource,) = written()["Resources"]
    assert resource["Type"] == "Container"
    assert resource["Details"]["Container"] == {"ImageName": "dtr.example.mil/web/shop:1.2", "ImageId": OPEN.digest}
    (resource,) = written(replace(OPEN, digest=""))["Resources"]
    assert "ImageId" not in resource["Details"]["Container"]


def test_the_commands_of_the_fix_are_there_whole_and_in_order_as_long_as_it_is_open() -> None:
    fields = written()["ProductFields"]
    lines = [value for name, value in fields.items() if "/fix/" in name]
    assert tuple(lines) == fix_commands(OPEN, "dtr.example.mil")
    assert [name for name in fields if "/fix/" in name][:2] == [
        "dtr-signature-audit/fix/1",
        "dtr-signature-audit/fix/2",
    ]
    assert not [name for name in written(resolved(SIGNED_SINCE))["ProductFields"] if "/fix/" in name]


def test_a_command_that_has_no_room_is_left_out_and_not_cut() -> None:
    long = replace(OPEN, repository=Repository("n" * 255, "r" * 255), tag="t" * 128)
    writer = AsffWriter(PRODUCT, "V2R2", domain="d" * 1500, run_id="1")
    assert not [name for name in written(long, writer)["ProductFields"] if "/fix/" in name]


def test_people_keep_what_they_noted() -> None:
    assert not {"Note", "Workflow", "Severity", "Types", "UserDefinedFields", "VerificationState"} & written().keys()


def test_the_id_is_of_the_tag_and_of_nothing_that_changes() -> None:
    same = [
        resolved(SIGNED_SINCE),
        replace(OPEN, digest="sha256:b", verdict=Verdict.MISMATCHED, first_seen=AT, last_changed=AT),
    ]
    assert {written(finding)["Id"] for finding in same} == {written()["Id"]}
    other_run = AsffWriter(PRODUCT, "V2R1", domain="other.example.mil", run_id="2")
    assert written(writer=other_run)["Id"] == written()["Id"]


PARTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", fullmatch=True)
TEXT = st.text(max_size=300).filter(lambda text: not any("\ud800" <= one <= "\udfff" for one in text))
NAMES = st.tuples(
    st.from_regex(r"[a-z0-9][a-z0-9.-]{0,62}", fullmatch=True),
    PARTS,
    PARTS,
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True),
)


@given(one=NAMES, other=NAMES)
def test_no_two_tags_share_an_id(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> None:
    def ids(names: tuple[str, str, str, str]) -> tuple[str, str]:
        registry, namespace, repository, tag = names
        document = written(replace(OPEN, registry=registry, repository=Repository(namespace, repository), tag=tag))
        return document["Id"], document["Resources"][0]["Id"]

    assert (ids(one)[0] == ids(other)[0]) == (ids(one)[1] == ids(other)[1]) == (one == other)


@given(
    names=NAMES,
    said=st.fixed_dictionaries(dict.fromkeys(["reason", "author", "pushed_at", "digest", "media_type"], TEXT)),
    state=st.sampled_from([OPEN, resolved(SIGNED_SINCE), resolved(TAG_REMOVED)]),
)
def test_aws_takes_any_a_registry_says(names: tuple[str, str, str, str], said: dict[str, Any], state: Finding) -> None:
    registry, namespace, repository, tag = names
    written(replace(state, registry=registry, repository=Repository(namespace, repository), tag=tag, **said))


def test_the_largest_finding_is_far_below_its_limit_and_never_pushes_a_call_over_its_own() -> None:
    wide = "\N{FIRE}"  # twelve bytes each in JSON
    largest = replace(
        OPEN,
        registry="r" * 63,
        repository=Repository("n" * 255, "r" * 255),
        tag="t" * 128,
        reason=wide * 400,
        author=wide * 128,
        pushed_at="2" * 40,
        digest=f"sha256:{'a' * 153}",
        media_type=wide * 128,
    )
    writer = AsffWriter(PRODUCT, "V2R2", domain="d" * 261, run_id="r" * 30)
    size = len(json.dumps(written(largest, writer)))
    assert 10_000 < size < FINDING_BYTES / 4
    assert BATCH_BYTES + size < CALL_BYTES


@pytest.mark.parametrize(
    "wrong",
    [
        {"Title": ""},
        {"Title": "x" * 257},
        {"Description": "x" * 1025},
        {"Description": "one\ntwo"},
        {"Id": "x" * 513},
        {"UpdatedAt": "yesterday"},
        {"RecordState": "GONE"},
        {"Resources": []},
        {"Workflow": {"Status": "NEW"}},
        {"Severity": {"Label": "HIGH"}},
        {"Colour": "red"},
        {"AwsAccountId": "210987654321"},
        {"ProductFields": {"a": "x" * 2049}},
        {"ProductFields": {str(number): "x" for number in range(51)}},
        {"Remediation": {"Recommendation": {"Text": "x" * 513}}},
        {"Compliance": {"Status": "FAILED", "RelatedRequirements": ["x"] * 33}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_aws_would_not_take_is_noticed(wrong: dict[str, Any]) -> None:
    assert complaints({**written(), **wrong})
