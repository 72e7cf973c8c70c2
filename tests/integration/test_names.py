"""Names that LDAP allows, from the list of repositories to all that a run leaves; and names that no request can carry."""

import json
from collections.abc import Iterator

import pytest

from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.trust.notary.pins import KEY as PINS_KEY
from dtr_audit_simulator.dtr.fault_kinds import Rewrite
from dtr_audit_simulator.dtr.faults import MISSING, Faults
from dtr_audit_simulator.dtr.manifests import COSIGN_SIGNATURE, manifest_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import MakeRun

# Accounts' names: what UCP takes from LDAP. The last letter of one is a byte that Latin-1 calls a blank.
NAMES = ("doe.jane@agency.mil", "_svc", "svc$", "jürgen", "team~x", "-lead", "a#b", "50%", "%2e%2e", "voilà", "é" * 100)
MALFORMED = (".", "..", "a/b", "line\nbreak", "\x7f", "\x85", "half\ud800", "\u202egnp.exe", "\u2028", "x" * 256)
UNNAMED = (Rewrite({"namespace": None}, None, "old/one"), Rewrite({"namespace": MISSING}, None, "old/two"))


@pytest.fixture
def registry() -> InMemoryRegistry:
    """Two tags in a repository of each account, one of them signed."""
    registry = InMemoryRegistry()
    for name in NAMES:
        for tag in ("1.0", "2.0"):
            registry.push(name, "tool", tag)
        registry.sign(name, "tool", "1.0")
    return registry


def test_names_that_ldap_allows_are_read_and_found_again_by_the_next_run(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, make_run: MakeRun
) -> None:
    run = make_run(PAGE_SIZE="10")
    assert (run["status"], run["complete"], run["unreadable"]) == ("OPEN", True, [])
    assert run["repositories"] == {"listed": len(NAMES), "audited": len(NAMES), "unreadable": 0, "removed": 0}
    expected = {
        f"{name}/tool:{tag}": verdict for name in NAMES for tag, verdict in (("1.0", "SIGNED"), ("2.0", "UNSIGNED"))
    }
    assert audited.verdicts(run["run_id"]) == expected
    asked = {record.path for record in dtr.calls("/api/v0/repositories/*/tags")}
    assert asked == {f"/api/v0/repositories/{name}/tool/tags" for name in NAMES}
    (message,) = audited.messages()
    assert message.attributes["namespaces"] == sorted(NAMES)
    assert {one["repository"] for one in message.body["opened"]} == {f"{name}/tool" for name in NAMES}
    registry.sign("jürgen", "tool", "2.0")
    again = make_run(PAGE_SIZE="10")
    assert (again["findings"]["opened"], again["findings"]["resolved"]) == (0, 1)
    found = audited.findings()
    assert found["jürgen/tool:2.0"]["state"] == "RESOLVED"
    assert found["doe.jane@agency.mil/tool:2.0"]["first_seen"] == run["started_at"]
    (message,) = audited.messages()
    assert message.attributes["namespaces"] == ["jürgen"]


def test_entries_whose_namespace_is_null_or_missing_are_unnamed_and_counted(
    dtr: DtrServer, registry: InMemoryRegistry, make_run: MakeRun
) -> None:
    for name in ("one", "two"):
        registry.create_repository("old", name)
    dtr.faults = Faults(rewrites=UNNAMED)
    run = make_run(PAGE_SIZE="10")
    assert (run["status"], run["complete"], run["repositories"]["listed"]) == ("OPEN", True, len(NAMES))
    assert any("lists 2 repositories without a name" in warning for warning in run["warnings"])


def test_names_that_no_request_can_carry_are_counted_unread_and_no_pass(
    dtr: DtrServer, registry: InMemoryRegistry, make_run: MakeRun
) -> None:
    for name in NAMES:
        registry.sign(name, "tool", "2.0")
    for name in MALFORMED:
        registry.push(name, "tool", "1.0")
        registry.push("team", name, "1.0")
    run = make_run(PAGE_SIZE="10")
    assert (run["status"], run["complete"]) == ("NOT_REVIEWED", False)
    (reason,) = run["incomplete_because"]
    assert "with which it cannot be asked for" in reason
    assert f"; {2 * len(MALFORMED) - 1} more entries of the list are malformed" in reason
    asked = {record.path for record in dtr.calls("/api/v0/repositories/*")}
    assert asked == {f"/api/v0/repositories/{name}/tool/tags" for name in NAMES}


def test_a_partial_run_and_an_exception_take_such_names(audited: Audited, make_run: MakeRun) -> None:
    exceptions = [
        {
            "id": f"EX-{number}",
            "namespace": pattern,
            "repository": "*",
            "tag": "*",
            "owner": "us",
            "reason": "old",
            "ends": "2099-01-01",
        }
        for number, pattern in enumerate(("*@agency.mil", "50%", "jürgen"))
    ]
    document = json.dumps({"exceptions": exceptions}).encode()
    audited.stack.s3.put_object(Bucket=audited.stack.outputs["BucketName"], Key=EXCEPTIONS_KEY, Body=document)
    run = make_run(
        {"namespaces": ["doe.jane@agency.mil", "-lead", "50%"], "scheduled_time": "2026-11-01T03:00:00Z"},
        PAGE_SIZE="10",
    )
    assert (run["scope"], run["complete"], run["repositories"]["audited"]) == ("partial", True, 3)
    excepted = {row["namespace"]: row["exception_id"] for row in audited.rows(run["run_id"]) if row["tag"] == "2.0"}
    assert excepted == {"doe.jane@agency.mil": "EX-0", "-lead": None, "50%": "EX-1"}


def test_trust_data_and_manifests_of_such_names_are_read(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, make_run: MakeRun
) -> None:
    roots = {}
    # A root's certificate bears the whole name, and X.509 has 64 characters for it; longer ones are not made here.
    registry.delete_repository(NAMES[-1], "tool")
    names = NAMES[:-1]
    for name in names:
        trust = dtr.notary.create(f"{dtr.host}/{name}/tool")
        trust.add_signer("ci")
        (entry,) = (one for one in registry.tags(name, "tool", dtr.host) if one.name == "1.0")
        trust.sign("1.0", entry.digest, signer="ci")
        registry.delete_tag(name, "tool", "2.0")
        registry.push(name, "tool", "1.0.sig", manifest=manifest_of(name, COSIGN_SIGNATURE))
        (root,) = trust.keys("root")
        roots[name] = root.id
    pins = [{"pattern": f"{dtr.host}/{name}/tool", "root_keys": [roots[name]]} for name in names]
    document = json.dumps({"pins": pins}).encode()
    audited.stack.s3.put_object(Bucket=audited.stack.outputs["BucketName"], Key=PINS_KEY, Body=document)
    run = make_run(TRUST_VERIFICATION="signatures", PIN_TRUST="true", PAGE_SIZE="10")
    assert (run["status"], run["incomplete_because"]) == ("NOT_A_FINDING", [])
    assert (run["tags"]["signed"], run["tags"]["artifacts"]) == (len(names), len(names))
    assert (run["trust"]["verified"], run["trust"]["first_use"]) == (len(names), 0)


@pytest.fixture(autouse=True)
def _policy(audited: Audited) -> Iterator[None]:
    yield
    for key in (EXCEPTIONS_KEY, PINS_KEY):
        audited.stack.s3.delete_object(Bucket=audited.stack.outputs["BucketName"], Key=key)
