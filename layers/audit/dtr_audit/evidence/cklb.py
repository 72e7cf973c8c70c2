"""The checklist of STIG Viewer 3 (.cklb, version 1.0): JSON, for eMASS, STIG Manager and OpenRMF."""

import json
from collections.abc import Mapping
from typing import Any

from dtr_audit.core.model import iso
from dtr_audit.core.run_record import Status
from dtr_audit.core.stig import Release, load_release, stable_id
from dtr_audit.evidence.checklist import Answer, answer_rules
from dtr_audit.evidence.report import Asset, Report

STATUSES = {Status.NOT_A_FINDING: "not_a_finding", Status.OPEN: "open", Status.NOT_REVIEWED: "not_reviewed"}


def write(report: Report, *, neighbours: bool = False) -> bytes:
    """Write the checklist of a run, with every key that the viewer writes.

    Raises EvidenceError for a partial run, and for an asset that checklists do not know.
    """
    answers = answer_rules(report, neighbours=neighbours)
    release = load_release(report.asset.release)
    document = {
        "title": f"{report.asset.host_name} {release.benchmark_id} {release.name}",
        "id": stable_id("cklb", report.run.registry, release.name),
        "stigs": [
            {
                "stig_name": release.title,
                "display_name": release.display_name,
                "stig_id": release.benchmark_id,
                "release_info": release.release_info,
                "version": release.version,
                "uuid": release.uuid,
                "reference_identifier": release.target_key,
                "size": len(answers),
                "rules": [_rule(answer, release, report) for answer in answers],
            }
        ],
        "active": False,
        "mode": 1,
        "has_path": True,
        "target_data": _target_data(report.asset),
        "cklb_version": "1.0",
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode(errors="replace") + b"\n"


def _target_data(asset: Asset) -> Mapping[str, Any]:
    return {
        "target_type": "Computing",
        "host_name": asset.host_name,
        "ip_address": "",
        "mac_address": "",
        "fqdn": asset.host_fqdn,
        "comments": "",
        "role": asset.role,
        "is_web_database": False,
        "technology_area": asset.technology_area,
        "web_db_site": "",
        "web_db_instance": "",
        "classification": asset.marking or None,
    }


def _rule(answer: Answer, release: Release, report: Report) -> Mapping[str, Any]:
    rule = answer.rule
    written = iso(report.run.finished_at)
    return {
        "group_id_src": rule.group_id,
        "group_tree": [
            {"id": rule.group_id, "title": rule.group_title, "description": "<GroupDescription></GroupDescription>"}
        ],
        "group_id": rule.group_id,
        "severity": rule.severity,
        "group_title": rule.group_title,
        "rule_id_src": rule.rule_id,
        "rule_id": rule.rule_id.removesuffix("_rule"),
        "rule_version": rule.rule_version,
        "rule_title": rule.title,
        "fix_text": rule.fix,
        "weight": release.weight,
        "check_content": rule.check,
        "check_content_ref": {"href": release.check_href, "name": release.check_name},
        "classification": "Unclassified",
        "discussion": rule.discussion,
        "false_positives": "",
        "false_negatives": "",
        "documentable": "false",
        "security_override_guidance": "",
        "potential_impacts": "",
        "third_party_tools": "",
        "ia_controls": "",
        "responsibility": "",
        "mitigations": "",
        "mitigation_control": "",
        "legacy_ids": list(rule.legacy_ids),
        "ccis": [control.cci for control in rule.controls],
        "reference_identifier": release.target_key,
        "target_key": release.target_key,
        "stig_ref": release.reference,
        "uuid": stable_id("rule", report.run.registry, release.name, rule.rule_id),
        "stig_uuid": release.uuid,
        "STIGUuid": release.uuid,
        "createdAt": written,
        "updatedAt": written,
        "status": STATUSES[answer.status],
        "overrides": {},
        "comments": answer.comments,
        "finding_details": answer.details,
    }
