"""XCCDF 1.2 results: the benchmark with the rules that were answered, and the answers.

STIG Manager reads the texts of an answer below `check-content`, in a namespace of its own; whoever does not know it finds the
details in the standard's own `message`.
"""

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from dtr_audit import __version__
from dtr_audit.core.model import iso
from dtr_audit.core.run_record import Status
from dtr_audit.core.stig import Release, Rule, load_release
from dtr_audit.core.tool import TOOL_NAME
from dtr_audit.evidence.checklist import Answer, answer_rules
from dtr_audit.evidence.report import Report
from dtr_audit.evidence.xmltext import add, escape, serialize

RESULTS = {Status.NOT_A_FINDING: "pass", Status.OPEN: "fail", Status.NOT_REVIEWED: "notchecked"}

_XCCDF = "http://checklists.nist.gov/xccdf/1.2"
_DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"
_STIG_MANAGER = "http://github.com/nuwcdivnpt/stig-manager"
_CCI = "http://cyber.mil/cci"
_LEGACY = "http://cyber.mil/legacy"


def write(report: Report, *, neighbours: bool = False) -> bytes:
    """Write the results of a run.

    Raises EvidenceError for a partial run, and for an asset that checklists do not know.
    """
    answers = answer_rules(report, neighbours=neighbours)
    release = load_release(report.asset.release)
    root = ET.Element(
        "Benchmark",
        {
            "xmlns": _XCCDF,
            "xmlns:dc": _DUBLIN_CORE,
            "xmlns:sm": _STIG_MANAGER,
            "id": _benchmark_id(release),
            "xml:lang": "en",
        },
    )
    add(root, "status", "accepted", date=release.status_date)
    add(root, "title", release.title)
    add(root, "description", release.description)
    add(root, "plain-text", release.release_info, id="release-info")
    add(root, "version", release.version)
    metadata = ET.SubElement(root, "metadata")
    add(metadata, "dc:creator", "DISA")
    add(metadata, "dc:publisher", TOOL_NAME)
    for answer in answers:
        _add_rule(root, answer.rule, release)
    _add_results(root, report, answers, release)
    return serialize(root)


def _add_rule(root: ET.Element, rule: Rule, release: Release) -> None:
    group = ET.SubElement(root, "Group", {"id": f"xccdf_mil.disa.stig_group_{rule.group_id}"})
    add(group, "title", rule.group_title)
    add(group, "description", "<GroupDescription></GroupDescription>")
    element = ET.SubElement(
        group, "Rule", {"id": _full_id(rule), "weight": release.weight, "severity": rule.severity, "selected": "true"}
    )
    add(element, "version", rule.rule_version)
    add(element, "title", rule.title)
    # Markup within a text, as DISA writes it and its readers expect it.
    add(element, "description", f"<VulnDiscussion>{escape(rule.discussion)}</VulnDiscussion>")
    for control in rule.controls:
        add(element, "ident", control.cci, system=_CCI)
    for legacy_id in rule.legacy_ids:
        add(element, "ident", legacy_id, system=_LEGACY)
    add(element, "fixtext", rule.fix, fixref=rule.fix_id)
    ET.SubElement(element, "fix", {"id": rule.fix_id})
    check = ET.SubElement(element, "check", {"system": rule.check_system})
    add(check, "check-content", rule.check)


def _add_results(root: ET.Element, report: Report, answers: Sequence[Answer], release: Release) -> None:
    run, asset = report.run, report.asset
    results = ET.SubElement(
        root,
        "TestResult",
        {
            "id": f"xccdf_{TOOL_NAME}_testresult_{run.run_id}",
            "start-time": iso(run.started_at),
            "end-time": iso(run.finished_at),
            "test-system": f"cpe:/a:{TOOL_NAME}:{TOOL_NAME}:{__version__}",
            "version": "1.0",
        },
    )
    # Without it, tools that make OSCAL of results do not know what they are results of.
    add(results, "benchmark", href=release.filename, id=_benchmark_id(release))
    add(results, "title", f"{TOOL_NAME}, run {run.run_id}")
    if asset.marking:
        add(results, "remark", f"Marking: {asset.marking}")
    if report.url:
        add(results, "remark", f"Registry: {report.url}")
    add(results, "target", asset.host_name)
    facts = ET.SubElement(results, "target-facts")
    for name, value in _target_facts(report):
        add(facts, "fact", value, name=name, type="string")
    for answer in answers:
        _add_result(results, answer, time=iso(run.finished_at))
    passed = sum(answer.status is Status.NOT_A_FINDING for answer in answers)
    add(results, "score", f"{100 * passed / len(answers):.1f}", system="urn:xccdf:scoring:default", maximum="100")


def _target_facts(report: Report) -> Iterator[tuple[str, str]]:
    """Give what is known of the asset and of the scanner, by the names that OpenSCAP gives them.

    No other facts: STIG Manager keeps each of them with the asset.
    """
    asset = report.asset
    yield "urn:xccdf:fact:scanner:name", TOOL_NAME
    yield "urn:xccdf:fact:scanner:version", __version__
    yield "urn:xccdf:fact:asset:identifier:host_name", asset.host_name
    if asset.host_fqdn:
        yield "urn:xccdf:fact:asset:identifier:fqdn", asset.host_fqdn


def _add_result(results: ET.Element, answer: Answer, *, time: str) -> None:
    rule = answer.rule
    result = ET.SubElement(
        results, "rule-result", {"idref": _full_id(rule), "time": time, "severity": rule.severity, "weight": "10.0"}
    )
    add(result, "result", RESULTS[answer.status])
    for control in rule.controls:
        add(result, "ident", control.cci, system=_CCI)
    add(result, "message", answer.details, severity="info")
    check = ET.SubElement(result, "check", {"system": rule.check_system})
    content = ET.SubElement(check, "check-content")
    add(content, "sm:detail", answer.details)
    add(content, "sm:comment", answer.comments)


def _benchmark_id(release: Release) -> str:
    return f"xccdf_mil.disa.stig_benchmark_{release.benchmark_id}"


def _full_id(rule: Rule) -> str:
    return f"xccdf_mil.disa.stig_rule_{rule.rule_id}"
