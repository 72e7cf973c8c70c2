"""What is written about the project, held against the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtr_audit_simulator.aws import template as templates
from tools import parameters

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CI = ROOT / ".ci" / "run"

_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """Give the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", read(document)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def recipe(target: str) -> list[str]:
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found, f"the Makefile has no recipe for {target}"
    return [line.strip() for line in found[1].splitlines()]


def test_page_of_parameters_lists_each_parameter_of_the_template() -> None:
    page = read(parameters.PAGE)
    tables = parameters.write_tables(templates.load(ROOT / "template.yaml"))
    assert parameters.update(page, tables) == page, "run `make parameters`"
    assert tables.count("\n| `") == len(templates.load(ROOT / "template.yaml")["Parameters"])


def test_readme_is_read_in_a_few_minutes() -> None:
    assert len(read(ROOT / "README.md").splitlines()) < 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_within_the_project_leads_somewhere(document: Path) -> None:
    for link in _LINK.findall(_INLINE.sub("", _BLOCK.sub("", read(document)))):
        if re.match(r"https://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_command_that_is_written_down_exists(document: Path) -> None:
    text = read(document)
    code = "\n".join([*_BLOCK.findall(text), *_INLINE.findall(_BLOCK.sub("", text))])
    for target in re.findall(r"(?:^|`)make ([a-z]+)\b", code, re.MULTILINE):
        assert recipe(target)


def test_the_readme_names_the_two_commands_to_start_with() -> None:
    code = "\n".join(_BLOCK.findall(read(ROOT / "README.md")))
    assert "\nmake demo " in code
    assert "\nmake test " in code


def test_every_target_that_is_declared_has_a_recipe() -> None:
    declared = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert declared
    for target in declared[1].split():
        assert recipe(target)


DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(file.name[:4]) for file in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("file", DECISIONS, ids=lambda file: file.name[:4])
def test_decision_has_status_date_and_reasons_and_is_in_the_index(file: Path) -> None:
    head = re.match(
        r"# (\d+)\. (.+)\n\nStatus: (accepted|superseded by \[(\d+)\]\(\S+\))\. Date: (\d{4}-\d\d-\d\d)\.\n", read(file)
    )
    assert head
    number, title, status, successor, date = head.groups()
    assert int(number) == int(file.name[:4])
    sections = re.findall(r"^## (.+)$", read(file), re.MULTILINE)
    assert [one for one in sections if one in {"What", "Why", "Rejected"}] == ["What", "Why", "Rejected"]
    shown = f"superseded by {successor}" if successor else status
    assert f"| {number} | [{title}]({file.name}) | {shown} | {date} |" in read(file.parent / "README.md").splitlines()


def test_ci_is_a_sound_script_that_anyone_can_run() -> None:
    bash = shutil.which("bash")
    assert bash
    assert os.access(CI, os.X_OK)
    subprocess.run([bash, "-n", CI], check=True)  # noqa: S603 (our own script, only parsed)


def test_ci_runs_the_gate_whose_last_step_is_the_readmes_test_command() -> None:
    script = read(CI)
    assert re.search(r"^make check\b", script.rstrip().splitlines()[-1])
    assert re.search(r"^export .*\bREQUIRE_REAL=1\b", script, re.MULTILINE)
    assert recipe("check")[-1] == "$(MAKE) test"


def test_ci_workflow_runs_that_script_and_may_only_read() -> None:
    workflow = load_workflow("ci")
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert [step["run"] for step in jobs["check"]["steps"] if "run" in step] == ["bash .ci/run"]
    assert not any("permissions" in job for job in jobs.values())


def test_release_workflow_publishes_what_the_gate_has_passed() -> None:
    workflow = load_workflow("release")
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands.index("bash .ci/run") < commands.index("make dist")
    assert recipe("dist")


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflow_uses_actions_by_their_commit(name: str) -> None:
    steps = [step for job in load_workflow(name)["jobs"].values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", one) for one in used)


def load_workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read(ROOT / ".github" / "workflows" / f"{name}.yml"))
    return loaded
