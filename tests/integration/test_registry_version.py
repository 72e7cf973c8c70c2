"""The registry's version is recorded where it is told, and is never required."""

import pytest

from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.fault_kinds import Body, CallFault, Calls, Closed, Redirect, Status
from dtr_audit_simulator.dtr.faults import LOGIN_PAGE, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import MakeRun

VERSION = Calls("/api/v0/admin/version")


def test_the_version_of_the_registry_is_in_record_and_evidence(audited: Audited, make_run: MakeRun) -> None:
    run = make_run(EVIDENCE_FORMATS="report,ckl")
    assert run["registry_version"] == "2.10.1"
    for name in ("report", "ckl"):
        assert ", version 2.10.1" in audited.read(run["evidence"][name]).decode()


def test_the_version_is_in_the_record_of_a_partial_run(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    assert audited.audit({"namespaces": ["team"]})["registry_version"] == "2.10.1"


def test_a_registry_without_a_version_is_audited_as_any_other(stack: Stack) -> None:
    with DtrServer(InMemoryRegistry(), profile=Profile(version="")) as dtr:
        audited = Audited(stack, dtr)
        audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
        run = audited.audit()
        audited.close()
    assert (run["complete"], run["registry_version"], run["warnings"]) == (True, None, [])


@pytest.mark.parametrize(
    "call_fault",
    [
        Status(403, VERSION),
        Status(500, VERSION),
        Closed(VERSION),
        Redirect("/login", VERSION),
        Body(LOGIN_PAGE, VERSION),
        Body(b"[]", VERSION),
        Body(b'{"version": 3}', VERSION),
    ],
    ids=repr,
)
def test_a_version_that_cannot_be_read_is_no_fault(audited: Audited, dtr: DtrServer, call_fault: CallFault) -> None:
    dtr.faults = Faults(on_calls=(call_fault,))
    run = audited.audit()
    assert (run["complete"], run["registry_version"], run["warnings"]) == (True, None, [])
    assert len(dtr.calls(VERSION.path)) == 1


def test_a_hostile_version_is_cut_and_escaped(audited: Audited, dtr: DtrServer) -> None:
    dtr.faults = Faults(on_calls=(Body(b'{"version": "<script>\\u001b' + b"9" * 300 + b'"}', VERSION),))
    run = audited.audit(EVIDENCE_FORMATS="report")
    assert run["registry_version"].startswith("<script>\ufffd9")
    assert len(run["registry_version"]) <= 64
    assert "<script>\ufffd" not in audited.read(run["evidence"]["report"]).decode()
