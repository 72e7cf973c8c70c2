"""Each format by its own description: names, order, values. Other people's readers have their say in test_readers.py."""

import json
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from dtr_audit.core.model import Repository
from dtr_audit.core.run_record import Scope
from dtr_audit.errors import EvidenceError
from dtr_audit.evidence import ckl, cklb, hdf, xccdf
from dtr_audit.evidence.checklist import answer_rules
from dtr_audit.evidence.formats import name_download
from dtr_audit.evidence.report import Asset, Report
from tests.evidence.html_report import finding, findings, report

ALL = pytest.mark.parametrize("write", [ckl.write, cklb.write, xccdf.write, hdf.write])
Write = Callable[[Report], bytes]

OPEN = report([finding(), finding(tag="2.4")], excepted=[1])
PASSED = report()
STATUSES = ("open", "not a finding", "not reviewed")
UNREVIEWED = report(incomplete_because=("the registry did not answer",))

# Schema 2.5, in its order; '?' may be left out.
ASSET = (
    "ROLE ASSET_TYPE MARKING? HOST_NAME HOST_IP HOST_MAC HOST_GUID? HOST_FQDN TARGET_COMMENT? TECH_AREA TARGET_KEY STIG_GUID? "
    "WEB_OR_DATABASE WEB_DB_SITE WEB_DB_INSTANCE"
)
VULN_AFTER_DATA = ["STATUS", "FINDING_DETAILS", "COMMENTS", "SEVERITY_OVERRIDE", "SEVERITY_JUSTIFICATION"]
SID_NAMES = "version classification customname stigid description filename releaseinfo title uuid notice source"  # all there are
VULN_ATTRIBUTES = (
    "Vuln_Num Severity Group_Title Rule_ID Rule_Ver Rule_Title Vuln_Discuss IA_Controls Check_Content Fix_Text False_Positives "
    "False_Negatives Documentable Mitigations Potential_Impact Third_Party_Tools Mitigation_Control Responsibility "
    "Security_Override_Guidance Check_Content_Ref Weight Class STIGRef TargetKey STIG_UUID LEGACY_ID LEGACY_ID CCI_REF CCI_REF "
    "CCI_REF CCI_REF CCI_REF"
)
CKLB_KEYS = "title id stigs active mode has_path target_data cklb_version"
CKLB_TARGET_KEYS = (
    "target_type host_name ip_address mac_address fqdn comments role is_web_database technology_area web_db_site "
    "web_db_instance classification"
)
CKLB_STIG_KEYS = "stig_name display_name stig_id version release_info uuid reference_identifier size rules"
CKLB_RULE_KEYS = (
    "uuid stig_uuid target_key stig_ref group_id group_id_src rule_id rule_id_src weight classification severity rule_version "
    "group_title rule_title fix_text false_positives false_negatives discussion check_content documentable mitigations "
    "potential_impacts third_party_tools mitigation_control responsibility security_override_guidance ia_controls "
    "check_content_ref legacy_ids ccis group_tree createdAt updatedAt STIGUuid status overrides comments finding_details "
    "reference_identifier"
)


@ALL
def test_the_same_run_gives_the_same_bytes(write: Write) -> None:
    assert write(OPEN) == write(report([finding(), finding(tag="2.4")], excepted=[1]))
    assert write(OPEN) != write(PASSED)


@ALL
def test_a_partial_run_makes_no_file(write: Write) -> None:
    with pytest.raises(EvidenceError):
        write(report(scope=Scope.PARTIAL))


@ALL
def test_any_text_from_outside_gives_a_file_that_can_be_read(write: Write) -> None:
    hostile = "]]><!--&lt;&#0;&\"'<x>{}\\\0\ud800\ufffe\r\n\x85\u2028%s"
    one = replace(finding(), repository=Repository(hostile, hostile), tag=hostile, digest=hostile, reason=hostile)
    asset = Asset(hostile, fqdn=hostile, marking=hostile)
    content = write(
        report(
            [one], excepted=[0], warnings=(hostile,), asset=asset, auditor=hostile, location="b" + hostile, url=hostile
        )
    )

    if content.startswith(b"<"):
        ET.fromstring(content)  # noqa: S314 - our own file
    else:
        json.loads(content)


def parse_ckl(made: Report, *, neighbours: bool = False) -> ET.Element:
    return ET.fromstring(ckl.write(made, neighbours=neighbours))  # noqa: S314 - our own file


def pairs(parent: ET.Element, name: str, data: str) -> list[tuple[str | None, str | None]]:
    return [(pair.findtext(name), pair.findtext(data)) for pair in parent if pair.find(name) is not None]


@pytest.mark.parametrize("marking", ["", "CUI"])
def test_a_ckl_has_the_elements_of_the_schema_in_its_order(marking: str) -> None:
    root = parse_ckl(report([finding()], asset=Asset("dtr", marking=marking)))

    assert root.tag == "CHECKLIST"
    assert [child.tag for child in root] == ["ASSET", "STIGS"]
    asset = [child.tag for child in root[0]]
    allowed = ASSET.replace("?", "").split()
    assert [name for name in allowed if name in asset] == asset
    assert {name for name in ASSET.split() if not name.endswith("?")} <= set(asset)
    assert ("MARKING" in asset) == bool(marking)
    (stig,) = root[1]
    assert [child.tag for child in stig] == ["STIG_INFO", "VULN"]
    for pair in stig[0]:
        assert [child.tag for child in pair] in (["SID_NAME", "SID_DATA"], ["SID_NAME"])
    assert [name for name, _ in pairs(stig[0], "SID_NAME", "SID_DATA")] == SID_NAMES.split()
    vuln = stig[1]
    data = len(vuln) - len(VULN_AFTER_DATA)
    assert [child.tag for child in vuln] == ["STIG_DATA"] * data + VULN_AFTER_DATA
    for pair in vuln[:data]:
        assert [child.tag for child in pair] == ["VULN_ATTRIBUTE", "ATTRIBUTE_DATA"]
    assert [name for name, _ in pairs(vuln, "VULN_ATTRIBUTE", "ATTRIBUTE_DATA")] == VULN_ATTRIBUTES.split()


@pytest.mark.parametrize(
    ("made", "status"),
    [(OPEN, "Open"), (PASSED, "NotAFinding"), (UNREVIEWED, "Not_Reviewed")],
    ids=STATUSES,
)
def test_a_ckl_holds_one_rule_and_its_answer(made: Report, status: str) -> None:
    (vuln,) = parse_ckl(made).iter("VULN")
    (answer,) = answer_rules(made)

    assert vuln.findtext("STATUS") == status
    assert vuln.findtext("FINDING_DETAILS") == answer.details
    assert vuln.findtext("COMMENTS") == answer.comments


@pytest.mark.parametrize(
    ("release", "rule_id", "info"),
    [
        ("V2R2", "SV-235846r961740_rule", "Release: 2 Benchmark Date: 24 Jul 2024"),
        ("V2R1", "SV-235846r627665_rule", "Release: 1 Benchmark Date: 23 Apr 2021"),
    ],
)
def test_the_release_is_the_asset_s(release: str, rule_id: str, info: str) -> None:
    made = replace(OPEN, asset=Asset("dtr", release=release))

    root = parse_ckl(made)
    attributes = dict(pairs(next(root.iter("VULN")), "VULN_ATTRIBUTE", "ATTRIBUTE_DATA"))
    assert attributes["Rule_ID"] == rule_id
    assert dict(pairs(next(root.iter("STIG_INFO")), "SID_NAME", "SID_DATA"))["releaseinfo"] == info
    (stig,) = json.loads(cklb.write(made))["stigs"]
    assert (stig["release_info"], stig["rules"][0]["rule_id_src"]) == (info, rule_id)
    assert stig["rules"][0]["rule_id"] == rule_id.removesuffix("_rule")
    assert f'idref="xccdf_mil.disa.stig_rule_{rule_id}"'.encode() in xccdf.write(made)
    assert json.loads(hdf.write(made))["profiles"][0]["controls"][0]["tags"]["rid"] == rule_id


@pytest.mark.parametrize(
    ("made", "status"),
    [(OPEN, "open"), (PASSED, "not_a_finding"), (UNREVIEWED, "not_reviewed")],
    ids=STATUSES,
)
def test_a_cklb_has_every_key_and_the_answer(made: Report, status: str) -> None:
    document = json.loads(cklb.write(made))
    (stig,) = document["stigs"]
    (rule,) = stig["rules"]
    (answer,) = answer_rules(made)

    assert set(document) == set(CKLB_KEYS.split())
    assert set(document["target_data"]) == set(CKLB_TARGET_KEYS.split())
    assert set(stig) == set(CKLB_STIG_KEYS.split())
    assert set(rule) == set(CKLB_RULE_KEYS.split())
    assert (document["cklb_version"], stig["version"], stig["size"]) == ("1.0", "2", 1)
    assert (rule["status"], rule["finding_details"], rule["comments"]) == (status, answer.details, answer.comments)
    assert rule["stig_uuid"] == stig["uuid"]


def test_neighbours_are_rules_of_their_own_in_every_format() -> None:
    groups = ["V-235846", "V-235840"]

    root = parse_ckl(OPEN, neighbours=True)
    assert [dict(pairs(one, "VULN_ATTRIBUTE", "ATTRIBUTE_DATA"))["Vuln_Num"] for one in root.iter("VULN")] == groups
    (stig,) = json.loads(cklb.write(OPEN, neighbours=True))["stigs"]
    assert [one["group_id"] for one in stig["rules"]] == groups
    assert stig["size"] == 2
    content = xccdf.write(OPEN, neighbours=True)
    assert content.count(b"<rule-result ") == 2
    assert b">50.0</score>" in content
    assert [one["id"] for one in json.loads(hdf.write(OPEN, neighbours=True))["profiles"][0]["controls"]] == groups


@pytest.mark.parametrize(
    ("made", "result", "score"),
    [(OPEN, "fail", "0.0"), (PASSED, "pass", "100.0"), (UNREVIEWED, "notchecked", "0.0")],
    ids=STATUSES,
)
def test_xccdf_results_score_nothing_but_a_pass(made: Report, result: str, score: str) -> None:
    root = ET.fromstring(xccdf.write(made))  # noqa: S314 - our own file
    space = "{http://checklists.nist.gov/xccdf/1.2}"

    assert root.findtext(f".//{space}result") == result
    assert root.findtext(f".//{space}score") == score


def controls(made: Report) -> list[dict[str, object]]:
    (profile,) = json.loads(hdf.write(made))["profiles"]
    found: list[dict[str, object]] = profile["controls"]
    return found


def test_hdf_reports_the_findings_as_results_of_the_one_control() -> None:
    (control,) = controls(OPEN)
    results = control["results"]

    assert isinstance(results, list)
    assert [one["status"] for one in results] == ["failed"] * 3
    assert results[0]["message"] == answer_rules(OPEN)[0].details
    assert results[1]["code_desc"].startswith("payments/ledger:2.3  UNSIGNED  sha256:")
    assert control["impact"] == 0.5


def test_an_exception_is_a_waiver_that_skips_nothing() -> None:
    (control,) = controls(OPEN)
    waiver = control["waiver_data"]

    assert isinstance(waiver, dict)
    assert (waiver["run"], waiver["skipped_due_to_waiver"], waiver["expiration_date"]) == (True, False, "2027-01-31")
    assert "owner R. Okafor" in waiver["justification"]
    assert "waiver_data" not in controls(report([finding()]))[0]


def test_hdf_of_an_incomplete_run_gives_each_unread_repository_a_result_and_counts_the_unnamed() -> None:
    made = report([finding()], incomplete_because=("102 repositories could not be read",))
    repositories = replace(made.run.repositories, listed=202, audited=100, unreadable=102)
    unreadable = tuple((f"web/{number:03d}", "500") for number in range(100))
    made = replace(made, run=replace(made.run, repositories=repositories, unreadable=unreadable))
    (control,) = controls(made)
    results = control["results"]

    assert isinstance(results, list)
    assert [one["status"] for one in results] == ["failed", "failed", *["skipped"] * 101]
    assert results[2]["code_desc"] == "Not read to the end: web/000: 500"
    assert results[-1]["code_desc"] == "Not read to the end: 2 repositories more, which are not named here"


@ALL
def test_a_hundred_thousand_findings_make_a_small_file(write: Write) -> None:
    assert len(write(report(findings(5_000), left_out=95_000))) < 512 * 1024


NAMES = {
    **dict.fromkeys(
        ("", "localhost", "dtr", "dtr_1.x", "dtr.", ".mil", "dtr.1", "-a.mil", "a..mil", f"{'a' * 64}.mil"), False
    ),
    **dict.fromkeys(("dtr.example.mil", "DTR-1.example.XN--P1AI", "10.1.2.3", "fd00::1", f"{'a' * 63}.mil"), True),
}


@pytest.mark.parametrize(("name", "is_one"), NAMES.items())
def test_a_domain_name_that_is_none_is_left_out_of_every_format(name: str, *, is_one: bool) -> None:
    made = report([finding()], asset=Asset("DTR 01", fqdn=name))
    expected = name if is_one else ""
    assert parse_ckl(made).findtext("ASSET/HOST_FQDN") == expected
    assert json.loads(cklb.write(made))["target_data"]["fqdn"] == expected
    assert json.loads(hdf.write(made))["passthrough"]["metadata"]["hostfqdn"] == expected
    assert (b":identifier:fqdn" in xccdf.write(made)) == is_one


def test_the_name_of_a_download_is_sanitised_for_any_name_of_a_registry() -> None:
    reported = name_download("checklist.ckl", '../a"; x=\r\n\N{EURO SIGN}', "V2R2", "20261122T050000Z")
    stig = "Docker_Enterprise_2-x_Linux-UNIX_STIG_V2R2"
    assert reported == f'attachment; filename="..-a-x-_{stig}_20261122T050000Z_checklist.ckl"'
    assert name_download("report.html", "a", "V2R1", "r").startswith("inline; ")
