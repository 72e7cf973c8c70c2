"""The files of evidence that a run of the whole registry leaves, through the function and the bucket."""

import hashlib
import json
from typing import Any
from xml.etree import ElementTree

import pytest

from dtr_audit import __version__
from dtr_audit.core import manifest
from dtr_audit_simulator.dtr.accounts import Account
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited

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
        dtr.faults = Faults(on_calls=(Status(status, tags_of("team/app")),))
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


def test_what_stands_beside_the_rule_is_reported_and_a_rule_of_its_own_only_if_asked_for(
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


def test_a_retried_run_writes_its_evidence_again_and_nothing_twice(
    audited: Audited, registry: InMemoryRegistry
) -> None:
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


def test_the_report_reports_what_changed_and_how_it_was_before(audited: Audited, registry: InMemoryRegistry) -> None:
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
    dtr.faults = Faults(on_calls=(Status(500, tags_of("team/app")),))
    run = audited.audit()
    assert run["findings"]["open"] == 2
    details = evidence(audited, run)["checklist.ckl"]
    assert b"team/app:1.0" in details
    assert b"team/web:1.0" in details


# --- the same from run to run ---


def details_and_comments(files: dict[str, bytes]) -> dict[str, list[str]]:
    """Give the lines of every text that an importer keeps, by file and text."""
    vuln = next(ElementTree.fromstring(files["checklist.ckl"]).iter("VULN"))  # noqa: S314 (our own)
    (rule,) = json.loads(files["checklist.cklb"])["stigs"][0]["rules"]
    results = ElementTree.fromstring(files["results.xccdf.xml"])  # noqa: S314 (our own)
    (control,) = json.loads(files["results.hdf.json"])["profiles"][0]["controls"]
    reported = {
        "ckl details": vuln.findtext("FINDING_DETAILS"),
        "ckl comments": vuln.findtext("COMMENTS"),
        "cklb details": rule["finding_details"],
        "cklb comments": rule["comments"],
        "xccdf message": results.findtext(".//{*}rule-result/{*}message"),
        "xccdf details": results.findtext(".//{http://github.com/nuwcdivnpt/stig-manager}detail"),
        "xccdf comments": results.findtext(".//{http://github.com/nuwcdivnpt/stig-manager}comment"),
        "hdf details": control["results"][0]["message"],
        "hdf findings": "\n".join(one["code_desc"] for one in control["results"]),
        "hdf comments": next(one["data"] for one in control["descriptions"] if one["label"] == "comments"),
    }
    return {name: str(text).splitlines() for name, text in reported.items()}


def test_texts_of_an_unchanged_registry_differ_in_one_line_of_the_details_and_nowhere_else(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0")
    registry.push("team", "web", "1.0")
    registry.sign("team", "web", "1.0")
    runs = [audited.audit(EVIDENCE_FORMATS=ALL) for _ in range(2)]
    first, second = (details_and_comments(evidence(audited, run)) for run in runs)

    for name, lines in first.items():
        assert len(lines) == len(second[name]), name
        differing = [(one, other) for one, other in zip(lines, second[name], strict=True) if one != other]
        assert len(differing) == name.endswith(("details", "message")), name
        for (one, other), run_id in ((pair, (runs[0]["run_id"], runs[1]["run_id"])) for pair in differing):
            assert one.startswith(f"Run {run_id[0]}, ")
            assert other.startswith(f"Run {run_id[1]}, ")


def test_sections_of_the_report_that_report_the_state_are_the_same_for_an_unchanged_registry(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0")
    audited.audit()
    pages = [evidence(audited, audited.audit())["report.html"].decode() for _ in range(2)]

    for anchor in ("namespaces", "findings", "fix", "controls", "facts"):
        first, second = (page.split(f'<section id="{anchor}"')[1].split("</section>")[0] for page in pages)
        assert first == second


# --- whose it is, and by whom ---


def test_every_file_names_the_tool_s_version_and_the_registry_s_address(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0")
    key = f"baseline/{audited.name}.cklb"
    first = evidence(audited, audited.audit(EVIDENCE_FORMATS=ALL))
    bucket = audited.stack.outputs["BucketName"]
    audited.stack.s3.put_object(Bucket=bucket, Key=key, Body=first["checklist.cklb"].replace(b"Auditor", b"By"))
    files = evidence(audited, audited.audit(EVIDENCE_FORMATS=ALL, BASELINE_KEY=key))

    assert len(files) == 7
    for name, content in files.items():
        assert f"dtr-signature-audit {__version__}".encode() in content or (
            name.endswith((".hdf.json", ".xccdf.xml")) and __version__.encode() in content
        ), name
        assert audited.server.url.encode() in content, name


def test_the_marking_is_in_every_format(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    for name, content in evidence(audited, audited.audit(EVIDENCE_FORMATS=ALL, ASSET_MARKING="CUI-7")).items():
        assert (b"CUI-7" in content) == (name != "manifest.json"), name


def test_asset_fields_that_are_not_given_stay_empty(audited: Audited) -> None:
    files = evidence(audited, audited.audit(EVIDENCE_FORMATS=ALL))

    asset = ElementTree.fromstring(files["checklist.ckl"]).find("ASSET")  # noqa: S314 (our own)
    assert asset is not None
    assert [asset.findtext(name) for name in ("HOST_FQDN", "HOST_IP", "HOST_MAC", "TECH_AREA")] == [""] * 4
    assert asset.findtext("ROLE") == "None"  # as the schema writes none
    target = json.loads(files["checklist.cklb"])["target_data"]
    assert [target[name] for name in ("fqdn", "ip_address", "mac_address", "technology_area", "role")] == [""] * 5
    assert b"identifier:fqdn" not in files["results.xccdf.xml"]
    assert json.loads(files["results.hdf.json"])["passthrough"]["metadata"]["hostfqdn"] == ""


def test_asset_fields_that_are_given_are_in_every_checklist(audited: Audited) -> None:
    files = evidence(
        audited,
        audited.audit(
            EVIDENCE_FORMATS=ALL, ASSET_NAME="DTR-01", ASSET_FQDN="dtr.example.mil", ASSET_ROLE="Member Server"
        ),
    )

    asset = ElementTree.fromstring(files["checklist.ckl"]).find("ASSET")  # noqa: S314 (our own)
    assert asset is not None
    expected = ["DTR-01", "dtr.example.mil", "Member Server"]
    assert [asset.findtext(name) for name in ("HOST_NAME", "HOST_FQDN", "ROLE")] == expected
    target = json.loads(files["checklist.cklb"])["target_data"]
    assert [target[name] for name in ("host_name", "fqdn", "role")] == expected
    metadata = json.loads(files["results.hdf.json"])["passthrough"]["metadata"]
    assert [metadata[name] for name in ("hostname", "hostfqdn", "role")] == expected
    facts = ElementTree.fromstring(files["results.xccdf.xml"]).findall(".//{*}fact")  # noqa: S314 (our own)
    reported = {fact.get("name", "").removeprefix("urn:xccdf:fact:"): fact.text for fact in facts}
    assert reported["asset:identifier:host_name"] == "DTR-01"
    assert reported["asset:identifier:fqdn"] == "dtr.example.mil"
    assert (reported["scanner:name"], reported["scanner:version"]) == ("dtr-signature-audit", __version__)


def test_a_download_is_named_by_registry_stig_and_run_and_the_key_is_not(audited: Audited) -> None:
    run = audited.audit(EVIDENCE_FORMATS=ALL, STIG_RELEASE="V2R1")
    bucket = audited.stack.outputs["BucketName"]
    stig = "Docker_Enterprise_2-x_Linux-UNIX_STIG_V2R1"
    for name, key in run["evidence"].items():
        file_name = key.rpartition("/")[2]
        reported = audited.stack.s3.head_object(Bucket=bucket, Key=key).get("ContentDisposition")
        how = "inline" if name == "report" else "attachment"
        named = f'{how}; filename="{audited.name}_{stig}_{run["run_id"]}_{file_name}"'
        # The manifest is read beside the files that it names, by its own name.
        assert reported == (None if name == "manifest" else named)


def test_the_report_reports_what_changed_beside_what_was_opened_and_resolved(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0")
    audited.audit()
    registry.sign("team", "app", "1.0")
    registry.push("team", "app", "1.0")
    run = audited.audit()
    changes = evidence(audited, run)["report.html"].decode().split('id="changes"')[1].split("</section>")[0]
    assert "<h3>Changed (1)</h3>" in changes
    assert "team/app" in changes
    assert b"changed: 1, resolved: 0" in evidence(audited, run)["checklist.ckl"]
