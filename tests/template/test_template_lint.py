"""cfn-lint, on what we wrote and on what CloudFormation gets to see, for every region we promise; and the gate's other tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from cfnlint.api import lint
from cfnlint.config import ManualArgs

from dtr_audit_simulator.aws import template as templates

ROOT = Path(__file__).parents[2]
MACHINE = ROOT / "statemachine" / "audit.asl.json"
REGIONS = ["us-east-1", "us-gov-west-1", "us-gov-east-1"]


def complaints(text: str, regions: list[str]) -> list[str]:
    found = lint(text, regions=regions, config=ManualArgs(regions=regions, include_checks=["I"]))
    return [f"{match.rule.id} {match.message} {match.path}" for match in found]


def test_the_configuration_of_cfn_lint_names_every_region() -> None:
    config = yaml.safe_load((ROOT / ".cfnlintrc").read_text(encoding="utf-8"))
    assert config["regions"] == REGIONS
    assert "ignore_checks" not in config


def translated(region: str, machine: str) -> str:
    """Give what CloudFormation gets to see, with the state machine's definition in it, which the linter reads too."""
    template = templates.with_definitions(templates.load(ROOT / "template.yaml"), ROOT)
    # The linter knows the ARNs of one partition alone.
    definition = machine.replace("arn:${Partition}:", "arn:aws:")
    template["Resources"]["AuditStateMachine"]["Properties"]["DefinitionString"] = definition
    return json.dumps(templates.translate(template, region))


@pytest.mark.parametrize("region", REGIONS)
def test_translated_template_in_each_region_is_clean(region: str) -> None:
    text = translated(region, MACHINE.read_text(encoding="utf-8"))
    assert not [r for r in json.loads(text)["Resources"].values() if r["Type"].startswith("AWS::Serverless::")]
    assert complaints(text, [region]) == []


def test_linter_reads_properties_and_definitions_and_complains_of_both() -> None:
    machine = json.loads(MACHINE.read_text(encoding="utf-8"))
    template = json.loads(translated("us-gov-west-1", json.dumps({**machine, "StartAt": "Nowhere"})))
    template["Resources"]["RunsTable"]["Properties"]["BillingMode"] = "FREE"
    found = complaints(json.dumps(template), ["us-gov-west-1"])
    assert {complaint.split()[0] for complaint in found} >= {"E3030", "E3601"}


@pytest.mark.parametrize(
    "command",
    [
        r"/cfn-lint$",
        r"/sam build$",
        r"-m tests\.scans\.misconfigurations \S+/checkov$",
        r"-m tests\.scans\.advisories .*layers/audit/requirements\.txt",
        r"-m pytest ",  # and with it, this file
    ],
)
def test_the_gate_runs(command: str) -> None:
    make = shutil.which("make")
    assert make
    environment = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }
    reported = subprocess.run(  # noqa: S603
        [make, "--dry-run", "check"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(command, reported.replace("\\\n", " "), re.MULTILINE)
