"""MITRE's Heimdall data format (HDF, exec-json): the hub between the tools of its Security Automation Framework."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dtr_audit import __version__
from dtr_audit.core.model import RULE_ID, iso
from dtr_audit.core.run_record import Status
from dtr_audit.core.stig import Release, load_release
from dtr_audit.core.tool import TOOL_NAME
from dtr_audit.evidence.checklist import Answer, answer_rules, describe_exception, describe_finding, describe_unreadable
from dtr_audit.evidence.report import Report

STATUSES = {Status.NOT_A_FINDING: "passed", Status.OPEN: "failed", Status.NOT_REVIEWED: "skipped"}

_IMPACTS = {"high": 0.7, "medium": 0.5, "low": 0.3}
_FINDINGS_LISTED = 1_000  # as a result each
_EXCEPTIONS_LISTED = 100


def write(report: Report, *, neighbours: bool = False) -> bytes:
    """Write one profile with a control for each rule; its findings are results of the control, the first of them.

    Raises EvidenceError for a partial run, and for an asset that checklists do not know.
    """
    answers = answer_rules(report, neighbours=neighbours)
    release = load_release(report.asset.release)
    profile = {
        "name": release.benchmark_id,
        "version": f"{release.version}.{release.name.rpartition('R')[2]}.0",
        "title": release.title,
        "maintainer": "DISA",
        "summary": release.description,
        "status": "loaded",
        "supports": [],
        "attributes": [],
        "groups": [],
        "controls": [_control(answer, release, report) for answer in answers],
    }
    profile["sha256"] = hashlib.sha256(_dump(profile)).hexdigest()
    totals = {
        status: {"total": sum(STATUSES[answer.status] == status for answer in answers)} for status in STATUSES.values()
    }
    document = {
        "platform": {"name": TOOL_NAME, "release": __version__, "target_id": report.asset.host_name},
        "version": __version__,
        "statistics": {"duration": report.run.duration_seconds, "controls": totals},
        "profiles": [profile],
        "passthrough": {
            "metadata": _metadata(report, release),
            "tool": {"name": TOOL_NAME, "version": __version__},
            "registry": {"name": report.run.registry, "url": report.url},
        },
    }
    return _dump(document)


def _metadata(report: Report, release: Release) -> Mapping[str, Any]:
    """Tell of the asset by the names that MITRE's tools have for it: a checklist that they make of this file carries it.

    A role that is not given is the one they put in themselves: they refuse an empty one.
    """
    asset = report.asset
    _, _, released = release.release_info.partition("Benchmark Date: ")
    return {
        "assettype": "Computing",
        "hostname": asset.host_name,
        "hostfqdn": asset.host_fqdn,
        "hostip": "",
        "hostmac": "",
        "marking": asset.marking,
        "role": asset.role or "None",
        "targetcomment": "",
        "techarea": asset.technology_area,
        "webordatabase": "false",
        "webdbsite": "",
        "webdbinstance": "",
        "profiles": [
            {
                "name": release.benchmark_id,
                "title": release.title,
                "version": int(release.version),
                "releasenumber": int(release.name.rpartition("R")[2]),
                "releasedate": released,
            }
        ],
    }


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode(errors="replace") + b"\n"


def _control(answer: Answer, release: Release, report: Report) -> Mapping[str, Any]:
    rule = answer.rule
    is_ours = rule.group_id == RULE_ID
    control = {
        "id": rule.group_id,
        "title": rule.title,
        "desc": rule.discussion,
        "descriptions": [
            {"label": "check", "data": rule.check},
            {"label": "fix", "data": rule.fix},
            {"label": "comments", "data": answer.comments},
        ],
        "impact": _IMPACTS[rule.severity],
        "refs": [{"ref": release.target}],
        "tags": {
            "severity": rule.severity,
            "gtitle": rule.group_title,
            "gid": rule.group_id,
            "rid": rule.rule_id,
            "stig_id": rule.rule_version,
            "fix_id": rule.fix_id,
            "legacy": list(rule.legacy_ids),
            "cci": [control.cci for control in rule.controls],
            # Two CCIs may belong to one control, which counts once.
            "nist": list(dict.fromkeys(control.nist for control in rule.controls)),
        },
        "code": "",
        "source_location": {},
        "results": [_result(answer, report), *([*_findings(report), *_unread(report)] if is_ours else [])],
    }
    if is_ours and any(one.excepted for one in report.findings):
        control["waiver_data"] = _waiver(report)
    return control


def _result(answer: Answer, report: Report) -> Mapping[str, Any]:
    text = "skip_message" if answer.status is Status.NOT_REVIEWED else "message"
    return {
        "status": STATUSES[answer.status],
        "code_desc": answer.headline,
        text: answer.details,
        "start_time": iso(report.run.started_at),
        "run_time": report.run.duration_seconds,
    }


def _findings(report: Report) -> Sequence[Mapping[str, Any]]:
    # Only a record that contradicts itself has findings without being open, and then it answers nothing.
    if report.run.status is not Status.OPEN:
        return []
    return [
        {
            "status": "failed",
            "code_desc": describe_finding(one),
            "start_time": iso(report.run.started_at),
        }
        for one in report.findings[:_FINDINGS_LISTED]
    ]


def _unread(report: Report) -> Sequence[Mapping[str, Any]]:
    """Give a result for each repository that was not read and is named, and one for the others."""
    run = report.run
    lines = [describe_unreadable(name, reason) for name, reason in run.unreadable]
    if run.unread > len(lines):
        lines.append(f"{run.unread - len(lines)} repositories more, which are not named here")
    return [
        {
            "status": "skipped",
            "code_desc": f"Not read to the end: {one}",
            "skip_message": "Nothing is known of tags that were not read. Their findings of earlier runs stay open.",
            "start_time": iso(run.started_at),
        }
        for one in lines
    ]


def _waiver(report: Report) -> Mapping[str, Any]:
    """Tell of the exceptions, as what they are: the control is run, and fails."""
    excepted = [(one, one.excepted) for one in report.findings if one.excepted]
    lines = [describe_exception(one, by) for one, by in excepted[:_EXCEPTIONS_LISTED]]
    if len(excepted) > len(lines):
        lines.append(f"and {len(excepted) - len(lines)} more")
    return {
        "run": True,
        "skipped_due_to_waiver": False,
        "justification": "\n".join(lines),
        "expiration_date": min(by.ends for _, by in excepted),
        "message": f"{report.run.findings.excepted} of {report.run.findings.open} open findings are under an exception; the "
        "earliest ends at this date",
    }
