"""What the STIG says of V-235846 and of its neighbours in this audit, in both releases: DISA's words, from stig.json."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dtr_audit.core.model import RULE_ID
from dtr_audit.errors import EvidenceError

_NAMESPACE = uuid.UUID("5d0f6f0a-7f0e-5c5e-9a44-6c1d7f1b1f4e")


@dataclass(frozen=True, slots=True)
class Control:
    """A CCI, and the control of NIST 800-53 (revisions 4 and 5 alike) that it is part of."""

    cci: str
    nist: str  # as DISA writes it, e.g. SI-7 (1)
    definition: str  # '' where it is not carried


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as one release has it."""

    group_id: str  # e.g. V-235846
    group_title: str
    rule_id: str  # e.g. SV-235846r961740_rule; the one thing that differs from release to release
    rule_version: str
    severity: str
    title: str
    legacy_ids: tuple[str, ...]
    controls: tuple[Control, ...]
    check_system: str
    fix_id: str
    discussion: str
    check: str
    fix: str


@dataclass(frozen=True, slots=True)
class Release:
    """The benchmark in one release, with those of its rules that are answered here."""

    name: str  # e.g. V2R2
    benchmark_id: str
    title: str
    display_name: str
    description: str
    version: str
    release_info: str  # importers read the release's number out of this very sentence
    status_date: str
    filename: str
    target: str
    target_key: str
    weight: str
    check_href: str
    check_name: str
    rules: Mapping[str, Rule]  # by group id

    @property
    def rule(self) -> Rule:
        """Give the rule that this audit is for."""
        return self.rules[RULE_ID]

    @property
    def uuid(self) -> str:
        """Give the id that stands for the release in the checklists made here."""
        return stable_id(self.benchmark_id, self.name)

    @property
    def reference(self) -> str:
        """Give the one line by which a checklist refers to the benchmark."""
        return f"{self.title} :: Version {self.version}, {self.release_info}"


def stable_id(*names: str) -> str:
    """Give the same uuid for the same names, so that a repeated run writes the same files."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join(names)))


def load_release(name: str) -> Release:
    """Load a release by its name; raises EvidenceError for one that is not known."""
    releases = _load()
    if name not in releases:
        raise EvidenceError(f"STIG release {name!r} is not known; it must be one of {', '.join(releases)}")
    return releases[name]


def release_names() -> tuple[str, ...]:
    """List the known releases, the latest first."""
    return tuple(_load())


@cache
def _load() -> Mapping[str, Release]:
    content = json.loads(Path(__file__).with_name("stig.json").read_text(encoding="utf-8"))
    benchmark = content["benchmark"]
    return {
        name: Release(
            name=name,
            benchmark_id=benchmark["id"],
            title=benchmark["title"],
            display_name=benchmark["display_name"],
            description=benchmark["description"],
            version=benchmark["version"],
            release_info=release["release_info"],
            status_date=release["status_date"],
            filename=release["filename"],
            target=benchmark["target"],
            target_key=benchmark["target_key"],
            weight=benchmark["weight"],
            check_href=benchmark["check_content_ref"]["href"],
            check_name=benchmark["check_content_ref"]["name"],
            rules={
                group_id: _read_rule(group_id, rule, name, content["controls"])
                for group_id, rule in content["rules"].items()
            },
        )
        for name, release in benchmark["releases"].items()
    }


def _read_rule(group_id: str, rule: Mapping[str, Any], release: str, controls: Mapping[str, Any]) -> Rule:
    return Rule(
        group_id=group_id,
        group_title=rule["group_title"],
        rule_id=rule["rule_ids"][release],
        rule_version=rule["rule_version"],
        severity=rule["severity"],
        title=rule["title"],
        legacy_ids=tuple(rule["legacy_ids"]),
        controls=tuple(Control(cci, controls[cci]["nist"], controls[cci]["definition"]) for cci in rule["ccis"]),
        check_system=rule["check_system"],
        fix_id=rule["fix_id"],
        discussion="\n".join(rule["discussion"]),
        check="\n".join(rule["check"]),
        fix="\n".join(rule["fix"]),
    )
