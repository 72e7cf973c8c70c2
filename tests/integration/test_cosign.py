"""Images that are signed with Cosign: what the registry says of them is counted and named, and decides nothing."""

import json
from typing import Any

import pytest

from dtr_audit_simulator.dtr.fault_kinds import Rewrite, Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import MakeRun

REASON = "signed with Cosign only; the rule's check asks for Docker Content Trust"
COUNTS = (
    "1 signed with Docker Content Trust, 2 with Cosign only (as the registry says), 1 with neither. "
    "The registry reports Cosign signatures and does not verify them."
)
HINT = "set DTR_DOMAINS"


def kinds(record: dict[str, Any]) -> tuple[int, int, int]:
    tags = record["tags"]
    return tags["signed"], tags["cosign_only"], tags["neither"]


def push_one_of_each(registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "both", cosign_signed=True)
    registry.sign("team", "app", "both")
    registry.push("team", "app", "cosign", cosign_signed=True)
    registry.push("web", "app", "cosign", cosign_signed=True)
    registry.push("web", "app", "neither")


def test_tags_signed_with_cosign_only_are_findings_that_are_counted_and_named_in_every_place(
    make_run: MakeRun, audited: Audited, registry: InMemoryRegistry
) -> None:
    push_one_of_each(registry)
    record = make_run(EVIDENCE_FORMATS="report,ckl,cklb,xccdf,hdf")
    assert (record["status"], record["tags"]["unsigned"]) == ("OPEN", 3)
    assert kinds(record) == (1, 2, 1)
    reasons = {name: item["reason"] for name, item in audited.findings().items()}
    assert [name for name, reason in reasons.items() if REASON in reason] == ["team/app:cosign", "web/app:cosign"]
    assert "Sign it with Content Trust, or record an exception" in reasons["web/app:cosign"]
    assert "Cosign" not in reasons["web/app:neither"]
    (message,) = audited.messages()
    assert (message.body["tags"]["cosign_only"], message.body["tags"]["neither"]) == (2, 1)
    assert COUNTS in " ".join(mail.text for mail in audited.mails())
    for name in ("report", "ckl", "cklb"):
        assert COUNTS in audited.read(record["evidence"][name]).decode()


def test_the_counts_of_a_registry_that_does_not_know_cosign_are_zero_and_no_text_names_it(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0")
    record = audited.audit(EVIDENCE_FORMATS="report,ckl")
    assert kinds(record) == (0, 0, 1)
    texts = [audited.read(record["evidence"][name]).decode() for name in ("report", "ckl")]
    texts += [mail.text for mail in audited.mails()]
    assert not [text for text in texts if "Cosign only" in text]


def test_a_partial_or_incomplete_run_counts_cosign_in_what_it_has_read(
    make_run: MakeRun, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    push_one_of_each(registry)
    dtr.faults = Faults(on_calls=(Status(403, tags_of("team/app")),))
    assert kinds(make_run({"scheduled_time": "2026-11-01T03:00:00Z"})) == (0, 1, 1)
    dtr.faults = Faults()
    partial = make_run({"scheduled_time": "2026-11-02T03:00:00Z", "namespaces": ["team"]})
    assert (partial["scope"], kinds(partial)) == ("partial", (1, 1, 0))


@pytest.mark.parametrize("said", ["true", 1, [True], {"signed": True}, None], ids=repr)
def test_a_flag_of_cosign_that_is_no_boolean_counts_as_not_said(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, said: object
) -> None:
    registry.push("team", "app", "1.0", cosign_signed=True)
    dtr.faults = Faults(rewrites=(Rewrite({"cosignSigned": said}),))
    record = audited.audit()
    assert (record["complete"], kinds(record)) == (True, (0, 0, 1))
    assert [row["cosign_signed"] for row in audited.rows(record["run_id"])] == [None]
    assert REASON not in audited.findings()["team/app:1.0"]["reason"]


@pytest.mark.parametrize(("cosign", "others", "is_hinted"), [(6, 0, False), (2, 2, False), (1, 2, True), (0, 1, True)])
def test_the_hint_at_the_domain_is_given_unless_cosign_explains_why_all_tags_look_unsigned(
    make_run: MakeRun, registry: InMemoryRegistry, cosign: int, others: int, *, is_hinted: bool
) -> None:
    for number in range(cosign):
        registry.push("team", "app", f"cosign-{number}", cosign_signed=True)
    for number in range(others):
        registry.push("team", "app", f"unsigned-{number}")
    assert (HINT in json.dumps(make_run()["warnings"])) is is_hinted


def test_a_tag_overwritten_after_signing_names_cosign_and_stays_mismatched(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0")
    registry.sign("team", "app", "1.0")
    registry.push("team", "app", "1.0", cosign_signed=True)
    record = audited.audit()
    assert (record["tags"]["mismatched"], kinds(record)) == (1, (0, 1, 0))
    reason = audited.findings()["team/app:1.0"]["reason"]
    assert reason.startswith("signed under ")
    assert "signed with Cosign, as the registry says, but the rule's check asks for Docker Content Trust" in reason
