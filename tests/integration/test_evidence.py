"""The files of evidence that a run of the whole registry leaves, through the function and the bucket."""

import hashlib
import json
from typing import Any
from xml.etree import ElementTree

import pytest
from dtr_audit.evidence import manifest

from local.dtr.accounts import Account
from local.dtr.faults import Faults, Status, tags_of
from local.dtr.registry import InMemoryRegistry
from local.dtr.server import DtrServer
from tests.audited import Audited

ALL = "report,ckl,cklb,xccdf,hdf"


def evidence(audited: Audited, run: dict[str, Any]) -> dict[str, bytes]:
    """Read the evidence of a run, by file name."""
    prefix = f"evidence/registry={audited.name}/{run['run_id']}/"
    return {key.removeprefix(prefix): audited.read(key) for key in audited.keys("evidence") if key.startswith(prefix)}


def ckl_status(document: bytes) -> str:
    return ElementTree.fromstring(document).findtext(".//VULN/STATUS") or ""  # noqa: S314 (our own)


def test_a_full_run_leaves_every_file_that_is_asked_for(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    run = audited.audit(EVIDENCE_FORMATS=ALL)
    files = evidence(audited, run)
    assert set(files) == {
        "report.html",
        "checklist.ckl",
        "checklist.cklb",
        "results.xccdf.xml",
        "results.hdf.json",
        "manifest.json",
    }
    assert set(run["evidence"]) == {"report", "ckl", "cklb", "xccdf", "hdf", "manifest"}
    assert sorted(run["evidence"].values()) == sorted(audited.keys("evidence"))
    assert ckl_status(files["checklist.ckl"]) == "Open"
    assert b"team/app:1.0" in files["checklist.ckl"]
    assert b"team/app" in files["report.html"]


def test_only_what_is_asked_for_is_written(audited: Audited) -> None:
    assert set(audited.audit(EVIDENCE_FORMATS="cklb")["evidence"]) == {"cklb", "manifest"}
    assert set(audited.audit(EVIDENCE_FORMATS="")["evidence"]) == {"manifest"}


def test_a_partial_run_leaves_no_checklist(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    run = audited.audit(
        {**audited.event(), "scheduled_time": "2026-11-01T03:00:00Z", "namespaces": ["team"]}, EVIDENCE_FORMATS=ALL
    )
    assert run["evidence"] == {}
    assert set(evidence(audited, run)) == {"manifest.json"}


@pytest.mark.parametrize(("status", "expected"), [(0, "NotAFinding"), (500, "Not_Reviewed")])
def test_what_could_not_be_read_is_never_a_pass(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, status: int, expected: str
) -> None:
    registry.push("team", "app", "1.0")
    registry.sign("team", "app", "1.0")
    if status:
        dtr.faults = Faults(strikes=(Status(status, tags_of("team/app")),))
    files = evidence(audited, audited.audit(EVIDENCE_FORMATS=ALL))
    assert ckl_status(files["checklist.ckl"]) == expected
    answer = json.loads(files["checklist.cklb"])["stigs"][0]["rules"][0]["status"]
    assert answer == {"NotAFinding": "not_a_finding", "Not_Reviewed": "not_reviewed"}[expected]


def test_credentials_that_are_no_administrators_are_named_as_such(audited: Audited, dtr: DtrServer) -> None:
    dtr.accounts.add(Account("some-reader", "a password of theirs"))
    audited.put_secret(username="some-reader", password="a password of theirs")
    files = evidence(audited, audited.audit())
    assert ckl_status(files["checklist.ckl"]) == "Not_Reviewed"
    assert b"not proven to be an administrator" in files["checklist.ckl"]
    assert b"some-reader" not in b"".join(files.values())
    assert b"a password of theirs" not in b"".join(files.values())


def test_what_stands_beside_the_rule_is_told_and_a_rule_of_its_own_only_if_asked_for(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0")
    registry.sign("team", "app", "1.0")
    alone = json.loads(evidence(audited, audited.audit())["checklist.cklb"])["stigs"][0]["rules"]
    assert [rule["group_id"] for rule in alone] == ["V-235846"]
    assert "scanning" in alone[0]["comments"]
    run = audited.audit(NEIGHBOUR_RULES="true")
    assert run["status"] == "NOT_A_FINDING"
    rules = json.loads(evidence(audited, run)["checklist.cklb"])["stigs"][0]["rules"]
    assert {rule["group_id"] for rule in rules} == {"V-235846", "V-235796", "V-235798", "V-235840"}


def test_the_manifest_holds_the_sum_of_everything_that_the_run_wrote(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0")
    run = audited.audit(EVIDENCE_FORMATS=ALL)
    listed = manifest.read(evidence(audited, run)["manifest.json"])
    assert (listed.registry, listed.run_id) == (audited.name, run["run_id"])
    written = {*audited.keys("findings"), *audited.keys("runs"), *audited.keys("evidence")}
    assert {file.key for file in listed.files} == written - {run["evidence"]["manifest"]}
    for file in listed.files:
        content = audited.read(file.key)
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_retried_run_writes_its_evidence_anew_and_nothing_twice(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    first = audited.audit(EVIDENCE_FORMATS=ALL)
    names = set(evidence(audited, first))
    audited.stack.resource_client.update_item(
        TableName=audited.stack.outputs["RunsTableName"],
        Key={"pk": audited.name, "sk": first["run_id"]},
        UpdateExpression="REMOVE finished",
    )
    again = audited.audit(audited.event(), EVIDENCE_FORMATS=ALL)
    assert again["run_id"] == first["run_id"]
    files = evidence(audited, again)
    assert set(files) == names
    assert len(manifest.read(files["manifest.json"]).files) == len(names) - 1 + 2  # the rows and the record


def test_the_report_tells_what_changed_and_how_it_was_before(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    registry.push("team", "web", "1.0")
    registry.push("old", "fax", "1.0")
    first = audited.audit()
    registry.sign("team", "app", "1.0")
    registry.delete_repository("old", "fax")
    registry.push("team", "new", "3.0")
    second = audited.audit()
    text = evidence(audited, second)["report.html"].decode()
    changes = text.split('id="changes"')[1].split("</section>")[0]
    for name in ("team/app", "old/fax", "team/new"):
        assert name in changes
    assert "team/web" not in changes
    assert first["finished_at"][:10] in text


def test_the_mail_points_to_the_report(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    run = audited.audit()
    url = f"s3://{audited.stack.outputs['BucketName']}/{run['evidence']['report']}"
    (message,) = audited.messages()
    assert message.body["report"] == url
    assert url in audited.mails()[-1].text


def test_findings_of_repositories_that_could_not_be_read_stay_in_the_evidence(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    registry.push("team", "app", "1.0")
    registry.push("team", "web", "1.0")
    audited.audit()
    dtr.faults = Faults(strikes=(Status(500, tags_of("team/app")),))
    run = audited.audit()
    assert run["findings"]["open"] == 2
    details = evidence(audited, run)["checklist.ckl"]
    assert b"team/app:1.0" in details
    assert b"team/web:1.0" in details
