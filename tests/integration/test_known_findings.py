"""A finding of an earlier run is open until a run proves that it is resolved: in the status, and in all that shows it."""

import json
from functools import partial
from typing import Any
from xml.etree import ElementTree

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from dtr_audit_cli.exit_status import ExitStatus
from dtr_audit_simulator.dtr.accounts import Account
from dtr_audit_simulator.dtr.fault_kinds import Body, Status, tags_of
from dtr_audit_simulator.dtr.faults import REPOSITORIES, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.evidence.html_page import read
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import MakeRun
from tests.integration.test_evidence import ALL, evidence


@pytest.fixture
def run(make_run: MakeRun) -> MakeRun:
    """Make a run that leaves the evidence in every format."""
    return partial(make_run, EVIDENCE_FORMATS=ALL)


def push(registry: InMemoryRegistry, *images: str, signed: bool = False) -> None:
    for image in images:
        path, _, tag = image.partition(":")
        namespace, _, name = path.partition("/")
        registry.push(namespace, name, tag)
        if signed:
            registry.sign(namespace, name, tag)


def unreadable(*repositories: str) -> Faults:
    return Faults(on_calls=tuple(Status(500, tags_of(one), message="the blob store timed out") for one in repositories))


def hdf_results(files: dict[str, bytes]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads(files["results.hdf.json"])["profiles"][0]["controls"][0]["results"]
    return results


def test_status_with_a_known_finding_in_a_repository_that_answers_500_stays_open(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    push(registry, "web/shop:1")
    push(registry, "web/till:1", signed=True)
    assert run()["status"] == "OPEN"
    audited.messages()
    dtr.faults = unreadable("web/shop")
    record = run()
    assert (record["status"], record["complete"]) == ("OPEN", False)
    assert record["findings"] == {"open": 1, "opened": 0, "resolved": 0, "excepted": 0}
    assert (record["tags"]["audited"], record["tags"]["signed"]) == (1, 1)
    assert ExitStatus.of_run(record) == 2

    files = evidence(audited, record)
    checklist = ElementTree.fromstring(files["checklist.ckl"])  # noqa: S314 (our own)
    assert checklist.findtext(".//VULN/STATUS") == "Open"
    details = checklist.findtext(".//VULN/FINDING_DETAILS") or ""
    assert details.startswith("OPEN: 1 finding of earlier runs is still open")
    assert "Repositories that were not read to the end (1):\n- web/shop: " in details
    assert "web/shop:1  UNSIGNED" in details
    (rule,) = json.loads(files["checklist.cklb"])["stigs"][0]["rules"]
    assert (rule["status"], rule["finding_details"]) == ("open", details)
    xccdf = ElementTree.fromstring(files["results.xccdf.xml"])  # noqa: S314 (our own)
    assert [one.text for one in xccdf.iter() if one.tag.endswith("}result")] == ["fail"]
    results = hdf_results(files)
    assert [one["status"] for one in results] == ["failed", "failed", "skipped"]
    assert results[2]["code_desc"].startswith("Not read to the end: web/shop: ")

    page = read(files["report.html"])
    assert "1 finding of earlier runs is still open." in page.one("h1").text
    bar = page.one("ul", aria_label="Image tags by verdict").text
    assert "1 repository not read to the end" in bar
    assert page.one("section", id="answer").all("rect", class_="verdict-unread")

    (message,) = audited.messages()
    assert message.attributes["status"] == message.body["status"] == "OPEN"
    assert message.body["complete"] is False
    assert message.body["findings"]["open"] == 1


def test_status_without_known_findings_and_with_an_unread_repository_is_not_reviewed(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    push(registry, "web/shop:1", "web/till:1", signed=True)
    dtr.faults = unreadable("web/shop")
    record = run()
    assert record["status"] == "NOT_REVIEWED"
    results = hdf_results(evidence(audited, record))
    assert [one["status"] for one in results] == ["skipped", "skipped"]


def test_status_with_a_known_finding_that_is_excepted_stays_open(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    excepted = {
        "id": "EX-1",
        "namespace": "web",
        "repository": "shop",
        "tag": "1",
        "owner": "R. Okafor",
        "reason": "vendor image",
        "ends": "2027-01-31",
    }
    document = {"exceptions": [excepted]}
    audited.stack.s3.put_object(
        Bucket=audited.stack.outputs["BucketName"],
        Key="policy/exceptions.json",
        Body=json.dumps(document).encode(),
    )
    push(registry, "web/shop:1")
    run()
    dtr.faults = unreadable("web/shop")
    record = run()
    assert (record["status"], record["complete"], record["findings"]["excepted"]) == ("OPEN", False, 1)


def test_status_of_a_run_that_is_refused_with_a_known_finding_is_open_and_not_complete(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    push(registry, "web/shop:1")
    run()
    dtr.accounts.add(Account("some-reader", "a password of theirs"))
    audited.put_secret(username="some-reader", password="a password of theirs")
    record = run()
    assert (record["status"], record["complete"]) == ("OPEN", False)
    assert (record["findings"]["open"], record["repositories"]["listed"]) == (1, 0)
    files = evidence(audited, record)
    assert b"<STATUS>Open</STATUS>" in files["checklist.ckl"]
    page = read(files["report.html"])
    assert page.one("section", id="answer").all("rect", class_="verdict-unread")
    assert "100%" not in page.one("section", id="answer").text


def test_status_without_any_list_and_with_a_known_finding_is_open_and_not_complete(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    push(registry, "web/shop:1")
    run()
    dtr.faults = Faults(on_calls=(Body(b"{}", REPOSITORIES),))
    record = run()
    assert (record["status"], record["complete"], record["findings"]["open"]) == ("OPEN", False, 1)
    assert audited.findings()["web/shop:1"]["state"] == "OPEN"


def test_status_once_the_repository_is_read_again_and_signed_is_not_a_finding(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    push(registry, "web/shop:1")
    run()
    dtr.faults = unreadable("web/shop")
    run()
    dtr.faults = Faults()
    registry.sign("web", "shop", "1")
    audited.messages()
    record = run()
    assert (record["status"], record["findings"]["resolved"]) == ("NOT_A_FINDING", 1)
    (message,) = audited.messages()
    assert message.body["counts"]["resolved"] == 1


def test_status_of_a_partial_run_with_known_findings_elsewhere_counts_its_own_namespaces_only(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    push(registry, "web/shop:1", "ops/tool:1", "ops/tool:2")
    push(registry, "data/lake:1", signed=True)
    run()
    record = run({"namespaces": ["data"]})
    assert (record["status"], record["complete"], record["findings"]["open"]) == ("NOT_REVIEWED", True, 0)
    assert record["oldest_open"] is None
    assert ExitStatus.of_run(record) == 3
    dtr.faults = unreadable("web/shop")
    record = run({"namespaces": ["data", "web"]})
    assert (record["status"], record["complete"], record["findings"]["open"]) == ("OPEN", False, 1)
    assert ExitStatus.of_run(record) == 2


def test_status_with_a_findings_table_that_cannot_be_read_is_not_reviewed_and_the_run_is_tried_again(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(registry, "web/shop:1")
    run()
    dtr.accounts.add(Account("some-reader", "a password of theirs"))
    audited.put_secret(username="some-reader", password="a password of theirs")
    call = vars(BaseClient)["_make_api_call"]

    def refusing(self: Any, operation: str, arguments: Any) -> Any:
        if operation in {"Query", "Scan"} and arguments["TableName"] == audited.stack.outputs["FindingsTableName"]:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, operation)
        return call(self, operation, arguments)

    audited.runs += 1
    event = audited.event()
    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", refusing)
        with pytest.raises(ClientError, match="AccessDeniedException"):
            run(event)
    (key,) = (key for key in audited.keys("runs") if "20261102" in key)
    record = json.loads(audited.read(key))
    assert (record["status"], record["complete"], record["findings"]["open"]) == ("NOT_REVIEWED", False, 0)
    assert any("the findings of earlier runs could not be read" in one for one in record["incomplete_because"])
    assert b"Not_Reviewed" in evidence(audited, record)["checklist.ckl"]
