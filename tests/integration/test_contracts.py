"""The examples in docs/contracts.md, held against what an audit really leaves."""

import json
import re
from typing import Any

import pytest

from dtr_audit.core import signature
from dtr_audit.core.exceptions import (
    DOCUMENT_BYTES,
    EXCEPTIONS,
    OWNER_LENGTH,
    PATTERN_LENGTH,
    REASON_LENGTH,
    parse_exceptions,
)
from dtr_audit.registry.credentials import parse_secret
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.security_hub import StrictSecurityHub, complaints

TEXT = (PROJECT / "docs" / "contracts.md").read_text(encoding="utf-8")
EXAMPLES: dict[str, Any] = {
    name: json.loads(body)
    for name, body in re.findall(r"^<!-- example: ([a-z]+) -->\n```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
}


def shape(value: Any) -> Any:
    """Give the keys of a document, at every depth."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [shape(value[0])]
    return None


@pytest.fixture
def reported(audited: Audited, registry: InMemoryRegistry, dtr: DtrServer) -> Audited:
    """A registry after the story that the examples tell."""
    registry.push("payments", "ledger", "2.3")
    registry.push("web", "shop", "1.2")
    registry.push("platform", "base", "latest")
    registry.sign("platform", "base", "latest")
    audited.audit()
    registry.sign("payments", "ledger", "2.3")
    registry.push("platform", "base", "latest")
    audited.audit()
    dtr.faults = Faults(on_calls=(Status(500, tags_of("web/shop")),))
    return audited


def test_the_documented_inputs_are_accepted(audited: Audited) -> None:
    assert audited.audit(EXAMPLES["event"])["run_id"].startswith("20261122T050000Z.")
    assert set(EXAMPLES["event"]) == {"scheduled_time", "namespaces", "alerts"}
    secret = parse_secret(json.dumps(EXAMPLES["secret"]))
    assert {"username", "password", "ca_bundle"} == set(EXAMPLES["secret"])
    assert secret.ca_bundle
    (first, second) = parse_exceptions(json.dumps(EXAMPLES["exceptions"]).encode())
    assert (first.excepted.exception_id, first.digest) == ("EX-2026-07", "")
    assert second.digest


def test_the_documented_limits_of_the_exceptions_are_the_real_ones() -> None:
    section = TEXT.split("\n## Exceptions\n")[1].split("\n## ")[0]
    assert f"1 to {PATTERN_LENGTH} characters, all three" in section
    assert f"POA&M item: 1 to {OWNER_LENGTH} characters" in section
    assert f"Why: 1 to {REASON_LENGTH} characters" in section
    assert f"{EXCEPTIONS} exceptions and {DOCUMENT_BYTES:_} bytes".replace("_", " ") in section
    keys = {
        key for cell in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for key in re.findall(r"`([a-z_]+)`", cell)
    }
    assert keys == set(EXAMPLES["exceptions"]["exceptions"][0]) | {"digest"}


def test_the_documented_outputs_have_the_keys_of_the_real_ones(reported: Audited) -> None:
    _, message = reported.messages()
    run = reported.audit()
    assert shape(run) == {**shape(EXAMPLES["run"]), "security_hub": None}
    assert shape(message.body) == shape(EXAMPLES["message"])
    assert set(message.attributes) == set(EXAMPLES["attributes"])
    about = signature.Signature("arn", "ECDSA_SHA_256", b"", b"").describe()
    assert shape(json.loads(about)) == shape(EXAMPLES["signature"])
    assert {frozenset(row) for row in reported.rows(run["run_id"])} == {frozenset(EXAMPLES["row"])}
    assert set(reported.findings()["platform/base:latest"]) == set(EXAMPLES["finding"])


def test_the_documented_finding_of_security_hub_has_the_keys_and_words_of_a_real_one(
    reported: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = EXAMPLES["asff"]
    assert complaints(documented) == []
    with StrictSecurityHub(monkeypatch) as hub:
        hub.switch_on("us-east-1")
        run = reported.audit(SECURITY_HUB_PRODUCT=documented["ProductArn"])
        assert shape(run) == shape(EXAMPLES["run"])
        findings = hub.findings("us-east-1", reported.name)
    real = findings["platform/base:latest"]
    assert shape(real) == shape(documented)
    for same in ("Types", "Severity"):
        assert real["FindingProviderFields"][same] == documented["FindingProviderFields"][same]
    assert real["Compliance"] == documented["Compliance"]
    assert real["Remediation"] == documented["Remediation"]
    for same in ("GeneratorId", "ProductName", "ProductArn", "AwsAccountId", "RecordState", "Title"):
        assert real[same] == documented[same]
    # The registry has a name and a host of its own in the test.
    for name, there in (("Id", documented), ("Id", documented["Resources"][0])):
        here = real if there is documented else real["Resources"][0]
        assert here[name] == there[name].replace("prod-dtr", reported.name)


def test_every_documented_key_of_a_row_a_run_and_a_message_is_a_real_one() -> None:
    for heading, example in (("Rows", "row"), ("Run record", "run"), ("Messages", "message")):
        section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        table = section.split("| Key | Meaning |")[1]
        keys = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
        documented = {key for cell in keys for key in re.findall(r"`([a-z_]+)`", cell)}
        assert documented
        assert documented <= set(EXAMPLES[example])
