"""The checklist of STIG Viewer 2 (.ckl, schema 2.5): what eMASS, STIG Manager, OpenRMF and MITRE's tools take.

The order of elements is part of the schema, and an unknown status is dropped by importers without a word.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from dtr_audit.core.run_record import Status
from dtr_audit.core.stig import Release, load_release
from dtr_audit.evidence.checklist import Answer, answer_rules
from dtr_audit.evidence.report import Asset, Report
from dtr_audit.evidence.xmltext import add, serialize

STATUSES = {Status.NOT_A_FINDING: "NotAFinding", Status.OPEN: "Open", Status.NOT_REVIEWED: "Not_Reviewed"}


def write(report: Report, *, neighbours: bool = False) -> bytes:
    """Write the checklist of a run.

    Raises EvidenceError for a partial run, and for an asset that checklists do not know.
    """
    answers = answer_rules(report, neighbours=neighbours)
    release = load_release(report.asset.release)
    root = ET.Element("CHECKLIST")
    _add_asset(root, report.asset, release)
    stig = ET.SubElement(ET.SubElement(root, "STIGS"), "iSTIG")
    _add_stig_info(stig, release)
    for answer in answers:
        _add_rule(stig, answer, release)
    return serialize(root)


def _add_asset(root: ET.Element, asset: Asset, release: Release) -> None:
    element = ET.SubElement(root, "ASSET")
    # The one field that may not be empty: the schema has a word for no role, and MITRE's tools refuse the file without it.
    add(element, "ROLE", asset.role or "None")
    add(element, "ASSET_TYPE", "Computing")
    if asset.marking:
        add(element, "MARKING", asset.marking)
    add(element, "HOST_NAME", asset.host_name)
    add(element, "HOST_IP")
    add(element, "HOST_MAC")
    add(element, "HOST_FQDN", asset.host_fqdn)
    add(element, "TARGET_COMMENT")
    add(element, "TECH_AREA", asset.technology_area)
    add(element, "TARGET_KEY", release.target_key)
    add(element, "WEB_OR_DATABASE", "false")
    add(element, "WEB_DB_SITE")
    add(element, "WEB_DB_INSTANCE")


def _add_stig_info(stig: ET.Element, release: Release) -> None:
    info = ET.SubElement(stig, "STIG_INFO")
    for name, data in (
        ("version", release.version),
        ("classification", "UNCLASSIFIED"),
        ("customname", ""),
        ("stigid", release.benchmark_id),
        ("description", release.description),
        ("filename", release.filename),
        ("releaseinfo", release.release_info),
        ("title", release.title),
        ("uuid", release.uuid),
        ("notice", "terms-of-use"),
        ("source", "STIG.DOD.MIL"),
    ):
        pair = ET.SubElement(info, "SI_DATA")
        add(pair, "SID_NAME", name)
        if data:
            add(pair, "SID_DATA", data)


def _add_rule(stig: ET.Element, answer: Answer, release: Release) -> None:
    element = ET.SubElement(stig, "VULN")
    for name, data in _attributes(answer, release):
        pair = ET.SubElement(element, "STIG_DATA")
        add(pair, "VULN_ATTRIBUTE", name)
        add(pair, "ATTRIBUTE_DATA", data)
    add(element, "STATUS", STATUSES[answer.status])
    add(element, "FINDING_DETAILS", answer.details)
    add(element, "COMMENTS", answer.comments)
    add(element, "SEVERITY_OVERRIDE")
    add(element, "SEVERITY_JUSTIFICATION")


def _attributes(answer: Answer, release: Release) -> Iterator[tuple[str, str]]:
    rule = answer.rule
    yield from (
        ("Vuln_Num", rule.group_id),
        ("Severity", rule.severity),
        ("Group_Title", rule.group_title),
        ("Rule_ID", rule.rule_id),
        ("Rule_Ver", rule.rule_version),
        ("Rule_Title", rule.title),
        ("Vuln_Discuss", rule.discussion),
        ("IA_Controls", ""),
        ("Check_Content", rule.check),
        ("Fix_Text", rule.fix),
        ("False_Positives", ""),
        ("False_Negatives", ""),
        ("Documentable", "false"),
        ("Mitigations", ""),
        ("Potential_Impact", ""),
        ("Third_Party_Tools", ""),
        ("Mitigation_Control", ""),
        ("Responsibility", ""),
        ("Security_Override_Guidance", ""),
        ("Check_Content_Ref", release.check_name),
        ("Weight", release.weight),
        ("Class", "Unclass"),
        ("STIGRef", release.reference),
        ("TargetKey", release.target_key),
        ("STIG_UUID", release.uuid),
    )
    for legacy_id in rule.legacy_ids:
        yield "LEGACY_ID", legacy_id
    for control in rule.controls:
        yield "CCI_REF", control.cci
