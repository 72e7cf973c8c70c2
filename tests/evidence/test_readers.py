"""The evidence as other people's programs read it: STIG Manager's parsers, MITRE's converters, OpenSCAP.

An importer drops what it does not know without a word. So what counts is not that a file is accepted, but that exactly one
answer comes out of it, for the right rule, with the right result and with all of its text.
"""

import html
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dtr_audit.core.finding import Finding
from dtr_audit.core.model import Repository
from dtr_audit.core.run_record import Status, SupportingFact
from dtr_audit.evidence import baseline, ckl, cklb, hdf, xccdf
from dtr_audit.evidence.checklist import answer_rules
from dtr_audit.evidence.report import Asset, Report
from dtr_audit_simulator import PROJECT
from tests.evidence.html_report import finding, report
from tests.harness.requirement import require

pytestmark = pytest.mark.readers

READERS = PROJECT / "build" / "readers"
NODE = READERS / "bin" / "node"
PACKAGES = READERS / "node_modules"

HOSTILE_NAMES = (
    "]]>",
    "<script>alert(1)</script>",
    "</FINDING_DETAILS></VULN><VULN><STATUS>NotAFinding</STATUS>",
    "-->",
    '"},{"status":"not_a_finding',
    "&lt;&amp;amp;&#60;&nbsp",
    "&entity;",
    "passed :: TEST it :: MESSAGE fine",
    "{{7*7}} ${x} %s $1 $& `id`",
    "__proto__",
    "=1+1",
    "日本\N{GRINNING FACE}",
)
UNREAD = ("1 repository could not be read to the end: web/shop <&>",)
RELEASES = {"V2R2": "SV-235846r961740_rule", "V2R1": "SV-235846r627665_rule"}


def named(name: str) -> Finding:
    return replace(finding(), repository=Repository(name, name), tag=name, reason=f"not signed: {name}")


HOSTILE = [named(name) for name in HOSTILE_NAMES]
RUNS = {
    "open": (report(HOSTILE, excepted=range(len(HOSTILE)), incomplete_because=UNREAD), Status.OPEN),
    "not a finding": (report(warnings=HOSTILE_NAMES), Status.NOT_A_FINDING),
    "not reviewed": (report(incomplete_because=(*UNREAD, *HOSTILE_NAMES)), Status.NOT_REVIEWED),
    "empty": (report(signed=0, artifacts=0), Status.NOT_A_FINDING),
    # As long as texts can be, of characters that take the most room, and which decoders count.
    "long": (report([named("&<>" * 80) for _ in range(400)], left_out=99_600), Status.OPEN),
}
EVERY_RUN = pytest.mark.parametrize(("made", "status"), RUNS.values(), ids=RUNS.keys())
EVERY_RELEASE = pytest.mark.parametrize("release", RELEASES)

Read = Callable[[Sequence[Path]], Any]


def reader(script: str) -> Read:
    def read(files: Sequence[Path]) -> Any:
        done = subprocess.run(  # noqa: S603 - our own script, on files of ours
            [NODE, Path(__file__).with_name(script), *files],
            env={**os.environ, "NODE_PATH": str(PACKAGES)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


@pytest.fixture(scope="session")
def stig_manager() -> Read:
    require([] if (READERS / ".ready").exists() else ["STIG Manager's parsers"], "make readers")
    return reader("stig_manager.cjs")


@pytest.fixture(scope="session")
def mitre() -> Read:
    require([] if (READERS / ".ready").exists() else ["MITRE's converters"], "make readers")
    return reader("mitre.cjs")


@pytest.fixture(scope="session")
def oscap() -> str:
    found = shutil.which("oscap")
    require([] if found else ["oscap"], "apt-get install openscap-scanner")
    assert found
    return found


def write(folder: Path, content: bytes, suffix: str) -> Path:
    file = folder / f"evidence{suffix}"
    file.write_bytes(content)
    return file


@EVERY_RUN
@EVERY_RELEASE
def test_stig_manager_imports_one_review_with_the_right_rule_result_and_all_of_its_text(
    stig_manager: Read, tmp_path: Path, release: str, made: Report, status: Status
) -> None:
    made = replace(made, asset=Asset("Prod DTR", fqdn="dtr.example.mil", release=release))
    (answer,) = answer_rules(made)
    result = {Status.OPEN: "fail", Status.NOT_A_FINDING: "pass", Status.NOT_REVIEWED: "notchecked"}[status]

    read = stig_manager(
        [
            write(tmp_path, ckl.write(made), ".ckl"),
            write(tmp_path, cklb.write(made), ".cklb"),
            write(tmp_path, xccdf.write(made), ".xccdf"),
        ]
    )
    for imported, is_xml in zip(read, (True, False, True), strict=True):
        (checklist,) = imported["checklists"]
        (review,) = checklist["reviews"]
        assert imported["target"]["name"] == "Prod DTR"
        assert checklist["benchmarkId"] == "Docker_Enterprise_2-x_Linux-UNIX_STIG"
        assert checklist["revisionStr"] in (release, None)  # from XCCDF it takes none
        assert (review["ruleId"], review["result"]) == (RELEASES[release], result)
        # From XML it decodes HTML's entities once more than was written. Names in a registry have none; ours do here.
        seen = html.unescape if is_xml else str
        assert review["detail"] == seen(answer.details)
        assert review["comment"] == seen(answer.comments)


@EVERY_RUN
@EVERY_RELEASE
def test_mitre_s_tools_show_one_control_with_the_right_status_and_all_of_its_text(
    mitre: Read, tmp_path: Path, release: str, made: Report, status: Status
) -> None:
    made = replace(made, asset=Asset("Prod DTR", release=release))
    (answer,) = answer_rules(made)
    word = {Status.OPEN: "Failed", Status.NOT_A_FINDING: "Passed", Status.NOT_REVIEWED: "Not Reviewed"}[status]

    from_hdf, from_ckl, from_xccdf = mitre(
        [
            write(tmp_path, hdf.write(made), ".hdf"),
            write(tmp_path, ckl.write(made), ".ckl"),
            write(tmp_path, xccdf.write(made), ".xccdf"),
        ]
    )
    for read in (from_hdf, from_ckl, from_xccdf):
        (control,) = read["controls"]
        assert (control["status"], control["severity"], control["waived"]) == (word, "medium", False)
        assert control["cci"] == [one.cci for one in answer.rule.controls]
        assert control["nist"] == ["CM-7 (5) (b)", "SI-7 (1)", "SI-7 (5)", "SI-7 (8)"]
        assert control["title"] == answer.rule.title
    for read in (from_hdf, from_ckl):
        (control,) = read["controls"]
        assert control["id"] == "V-235846"
        assert control["texts"][0] == answer.details
        assert control["descriptions"]["comments"] == answer.comments
        assert control["descriptions"]["check"] == answer.rule.check
    assert from_hdf["asff"] > 0


@EVERY_RUN
@EVERY_RELEASE
def test_openscap_finds_the_xccdf_valid(oscap: str, tmp_path: Path, release: str, made: Report, status: Status) -> None:
    made = replace(made, asset=Asset("Prod DTR", fqdn="dtr.example.mil", marking="CUI <&>", release=release))
    file = write(tmp_path, xccdf.write(made, neighbours=True), ".xml")
    (result,) = ET.fromstring(file.read_bytes()).findall(".//{*}TestResult")  # noqa: S314 - our own file
    benchmark = result.find("{*}benchmark")
    assert benchmark is not None
    assert benchmark.get("id") == "xccdf_mil.disa.stig_benchmark_Docker_Enterprise_2-x_Linux-UNIX_STIG"
    assert result.findtext("{*}remark") == "Marking: CUI <&>"

    done = subprocess.run([oscap, "xccdf", "validate", file], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, "Error" in done.stderr + done.stdout) == (0, False), done.stderr + done.stdout


def test_neighbours_arrive_as_reviews_of_their_own(stig_manager: Read, mitre: Read, tmp_path: Path) -> None:
    made = report(
        facts=(
            SupportingFact("DTR: repositories are made by a push", "yes", "V-235796", Status.OPEN),
            SupportingFact("DTR: analytics are sent", "not said", "V-235798", Status.NOT_REVIEWED),
            SupportingFact("DTR: scanning is on", "yes", "V-235840", Status.NOT_A_FINDING),
            SupportingFact("UCP: only signed images run", "no", "V-235847", Status.OPEN),
        )
    )
    files = [
        write(tmp_path, ckl.write(made, neighbours=True), ".ckl"),
        write(tmp_path, cklb.write(made, neighbours=True), ".cklb"),
        write(tmp_path, xccdf.write(made, neighbours=True), ".xccdf"),
    ]

    for imported in stig_manager(files):
        assert {review["ruleId"]: review["result"] for review in imported["checklists"][0]["reviews"]} == {
            "SV-235846r961740_rule": "pass",
            "SV-235796r960963_rule": "fail",
            "SV-235798r960963_rule": "notchecked",
            "SV-235840r961563_rule": "pass",
            "SV-235847r961770_rule": "fail",
        }
    (shown,) = mitre([write(tmp_path, hdf.write(made, neighbours=True), ".hdf")])
    assert {control["id"]: control["status"] for control in shown["controls"]} == {
        "V-235846": "Passed",
        "V-235796": "Failed",
        "V-235798": "Not Reviewed",
        "V-235840": "Passed",
        "V-235847": "Failed",
    }


@EVERY_RUN
@EVERY_RELEASE
def test_a_merged_baseline_arrives_as_it_was_but_for_one_review(
    stig_manager: Read, tmp_path: Path, release: str, made: Report, status: Status
) -> None:
    facts = (
        SupportingFact("DTR: repositories are made by a push", "yes", "V-235796", Status.OPEN),
        SupportingFact("DTR: analytics are sent", "not said", "V-235798", Status.NOT_REVIEWED),
        SupportingFact("DTR: scanning is on", "yes", "V-235840", Status.NOT_A_FINDING),
    )
    theirs = report(facts=facts, asset=Asset("Their DTR", fqdn="theirs.example.mil", release=release))
    (answer,) = answer_rules(made)
    for module, suffix, seen in ((ckl, ".ckl", html.unescape), (cklb, ".cklb", str)):
        document = module.write(theirs, neighbours=True).replace(b"[dtr-signature-audit]", b"Entered by a person.")
        merged = baseline.read(document).merge(made)

        (before,) = stig_manager([write(tmp_path, document, suffix)])
        (after,) = stig_manager([write(tmp_path, merged, suffix)])
        ours, *others = after["checklists"][0].pop("reviews")
        was, *unchanged = before["checklists"][0].pop("reviews")
        assert others == unchanged
        for imported in (before, after):
            imported["checklists"][0].pop("stats")  # how many reviews have which result
        assert after == before
        assert after["target"]["name"] == "Their DTR"
        result = {Status.OPEN: "fail", Status.NOT_A_FINDING: "pass", Status.NOT_REVIEWED: "notchecked"}[status]
        assert (ours["ruleId"], ours["result"]) == (RELEASES[release], result)
        assert ours["detail"] == seen(answer.details)
        assert ours["comment"] == f"{was['comment']}\n\n{seen(answer.comments)}"
        assert was["comment"].startswith("Entered by a person.")


def test_mitre_s_tools_read_a_merged_baseline(mitre: Read, tmp_path: Path) -> None:
    made = report(HOSTILE, excepted=range(len(HOSTILE)))
    fact = SupportingFact("DTR: scanning is on", "yes", "V-235840", Status.NOT_A_FINDING)
    theirs = ckl.write(report(facts=(fact,)), neighbours=True)

    (before,) = mitre([write(tmp_path, theirs, ".ckl")])
    (after,) = mitre([write(tmp_path, baseline.read(theirs).merge(made), ".ckl")])
    shown = {control["id"]: control for control in after["controls"]}
    assert shown["V-235846"]["status"] == "Failed"
    assert shown["V-235846"]["texts"][0] == answer_rules(made)[0].details
    assert [shown["V-235840"]] == [one for one in before["controls"] if one["id"] == "V-235840"]


NAMES = (
    "",
    "localhost",
    "dtr",
    "dtr_1.x",
    "dtr.",
    "dtr.example.mil",
    "10.1.2.3",
    "dtr.example.local1",
    "fd00::1",
    "-a.b.mil",
)


@pytest.mark.parametrize("role", ["", "Member Server"])
@pytest.mark.parametrize("name", NAMES)
def test_mitre_s_tools_take_the_checklist_of_an_asset_with_any_domain_name(
    mitre: Read, tmp_path: Path, name: str, role: str
) -> None:
    made = report([finding()], asset=Asset("Prod DTR", fqdn=name, role=role))
    (read,) = mitre([write(tmp_path, ckl.write(made), ".ckl")])
    assert [control["id"] for control in read["controls"]] == ["V-235846"]


def test_stig_manager_gets_no_field_of_an_asset_that_was_not_given(stig_manager: Read, tmp_path: Path) -> None:
    for asset, fqdn, role in (
        (Asset("Prod DTR"), None, ""),
        (Asset("Prod DTR", "dtr.example.mil", role="Member Server"), "dtr.example.mil", "Member Server"),
    ):
        made = report([finding()], asset=asset)
        (from_ckl, from_cklb) = stig_manager(
            [write(tmp_path, ckl.write(made), ".ckl"), write(tmp_path, cklb.write(made), ".cklb")]
        )
        assert from_ckl["target"]["fqdn"] == from_cklb["target"]["fqdn"] == fqdn
        assert from_cklb["target"]["metadata"] == ({"cklRole": role} if role else {})
        (from_xccdf,) = stig_manager([write(tmp_path, xccdf.write(made), ".xccdf")])
        facts = {name.removeprefix("urn:xccdf:fact:") for name in from_xccdf["target"]["metadata"]}
        assert facts - {"scanner:name", "scanner:version", "asset:identifier:host_name"} == (
            {"asset:identifier:fqdn"} if fqdn else set()
        )
        # A .ckl without a role is against its schema.
        assert from_ckl["target"]["metadata"] == {"cklRole": role or "None"}


def test_a_checklist_that_mitre_s_tools_make_of_hdf_has_the_asset(mitre: Read, tmp_path: Path) -> None:
    asset = Asset("Prod DTR", "dtr.example.mil", marking="CUI-7", role="Member Server", technology_area="Web Review")
    for given, expected in (
        (asset, ["Prod DTR", "dtr.example.mil", "CUI-7", "Member Server", "Web Review"]),
        (Asset("dtr"), ["dtr", "", "", "None", ""]),
    ):
        (read,) = mitre([write(tmp_path, hdf.write(report([finding()], asset=given)), ".hdf")])
        made = ET.fromstring(read["checklist"])  # noqa: S314 - made of our own file
        fields = ("HOST_NAME", "HOST_FQDN", "MARKING", "ROLE", "TECH_AREA")
        assert [made.findtext(f"ASSET/{name}") or "" for name in fields] == expected
        assert "Release: 2 Benchmark Date: 24 Jul 2024" in read["checklist"]


def test_an_answer_put_into_a_checklist_of_evaluate_stig_is_not_taken_for_that_tool_s(
    stig_manager: Read, tmp_path: Path
) -> None:
    made = report([finding()])
    note = "<!--<Evaluate-STIG><AFMod>true</AFMod><AnswerFile>site.xml</AnswerFile></Evaluate-STIG>-->"
    root = "<!--<Evaluate-STIG><version>1.2407</version></Evaluate-STIG>-->"
    theirs = (
        ckl.write(report()).decode().replace("<VULN>", f"<VULN>{note}").replace("<CHECKLIST>", f"{root}<CHECKLIST>")
    )

    (before,) = stig_manager([write(tmp_path, theirs.encode(), ".ckl")])
    (after,) = stig_manager([write(tmp_path, baseline.read(theirs.encode()).merge(made), ".ckl")])
    assert "overrides" in before["checklists"][0]["reviews"][0]["resultEngine"]
    assert "overrides" not in after["checklists"][0]["reviews"][0]["resultEngine"]


def test_stig_manager_imports_nothing_from_a_cklb_without_rule_id_src_which_is_warned_of(
    stig_manager: Read, tmp_path: Path
) -> None:
    theirs = cklb.write(report()).replace(b'"rule_id_src"', b'"kept"')
    (imported,) = stig_manager([write(tmp_path, baseline.read(theirs).merge(report([finding()])), ".cklb")])
    assert imported["checklists"][0]["reviews"] == []
    assert "it imports no answer from such a file" in baseline.read(theirs).warnings[0]
