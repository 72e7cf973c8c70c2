"""`dtr-audit demo`, as a new user runs it."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dtr_audit_cli import story
from dtr_audit_cli.output import CONTENTS, OutputFolder
from dtr_audit_cli.query_files import named_queries
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.template import load
from tests.harness.command import run_command

LINES = 130
NARROW = 60


def flat(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Demonstration:
    shown: str
    out: Path

    @property
    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in sorted((self.out / "runs").rglob("*.json"))]


def demonstrate(folder: Path, *options: str, columns: int) -> Demonstration:
    out = folder / "out"
    done = run_command("demo", "--output", str(out), *options, COLUMNS=str(columns))
    assert (done.returncode, done.stderr) == (0, "")
    return Demonstration(done.stdout, out)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Demonstration:
    """What it shows by default, in a narrow terminal."""
    return demonstrate(tmp_path_factory.mktemp("narrow"), columns=NARROW)


@pytest.fixture(scope="module")
def verbose(tmp_path_factory: pytest.TempPathFactory) -> Demonstration:
    """All that it can show."""
    return demonstrate(tmp_path_factory.mktemp("verbose"), "--verbose", columns=100)


def test_demo_without_options_shows_at_most_130_lines_and_the_report_last(narrow: Demonstration) -> None:
    lines = narrow.shown.splitlines()
    assert len(lines) <= LINES
    report = narrow.out / narrow.runs[1]["evidence"]["report"]
    assert lines[-1].strip() == str(report)
    assert report.exists()


def test_demo_in_a_narrow_terminal_cuts_no_number(narrow: Demonstration) -> None:
    assert "…" not in narrow.shown.replace("Reading the registry …", "").partition("What to do next")[0]
    counts = Counter(
        (row["namespace"], row["verdict"]) for row in OutputFolder(narrow.out).rows(narrow.runs[0]) if row["verdict"]
    )
    for namespace in story.TEAMS:
        (line,) = re.findall(rf"^{namespace} +(.*)$", narrow.shown, re.MULTILINE)
        tags = sum(count for (name, _), count in counts.items() if name == namespace)
        verdicts = [counts[namespace, verdict] for verdict in ("SIGNED", "UNSIGNED", "MISMATCHED", "UNTRUSTED")]
        artifacts = 2 if namespace == "web" else 0
        assert line.split() == [str(tags), *(str(count) if count else "-" for count in (*verdicts, artifacts))]


def test_demo_makes_two_complete_audits_before_one_that_is_not(narrow: Demonstration) -> None:
    assert [(run["status"], run["complete"]) for run in narrow.runs] == [
        ("OPEN", True),
        ("OPEN", True),
        ("OPEN", False),
    ]
    assert "/".join(story.UNREADABLE_REPOSITORY) in flat(narrow.shown)
    assert "NOT COMPLETE" in narrow.shown


@pytest.mark.parametrize("query", named_queries(), ids=lambda query: query.name)
def test_demo_leaves_an_answer_to_each_saved_query(verbose: Demonstration, query: Any) -> None:
    first, second, _ = (run["started_at"][:10] for run in verbose.runs)
    values = {"changes": [first, second], "tag-evidence": ["web", "checkout", "5.3.0", second]}
    done = run_command("query", query.name, *values.get(query.name, []), "--output", str(verbose.out))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 1
    assert "nothing" not in done.stdout.lower()


def test_demo_dates_and_ages_follow_one_clock(verbose: Demonstration) -> None:
    for run in verbose.runs:
        due = f"{run['run_id'][:4]}-{run['run_id'][4:6]}-{run['run_id'][6:8]}T05:0"
        assert run["started_at"].startswith(due)
        assert run["finished_at"].startswith(due)
    first, second, third = verbose.runs
    assert first["oldest_open"] == second["oldest_open"] == third["oldest_open"]
    assert first["oldest_open"][:13] == first["started_at"][:13]
    pages = [(verbose.out / run["evidence"]["report"]).read_text() for run in verbose.runs]
    ages = [re.search(r"Oldest open.*?(less than a day|\d+ days?)", page, re.DOTALL) for page in pages]
    assert [age and age[1] for age in ages] == ["less than a day", "1 day", "2 days"]


def test_demo_shows_what_its_runs_recorded(verbose: Demonstration) -> None:
    first, second, third = verbose.runs
    assert json.loads((verbose.out / "run.json").read_text()) == third
    assert first["repositories"]["listed"] > 100
    assert [run["findings"]["excepted"] for run in verbose.runs] == [0, 1, 1]
    assert second["findings"]["opened"] > 0
    assert second["findings"]["resolved"] > 0
    assert third["findings"]["resolved"] == 0
    text = flat(verbose.shown)
    for run in verbose.runs:
        repositories, tags, findings = run["repositories"], run["tags"], run["findings"]
        assert f"{repositories['audited']} of {repositories['listed']} repositories read" in text
        assert (
            f"{tags['audited']} image tags: {tags['signed']} signed, {tags['unsigned']} unsigned, {tags['mismatched']} "
            f"mismatched (overwritten after signing), {tags['untrusted']} not trusted; {tags['artifacts']} Cosign artifacts apart"
            in text
        )
        assert f"{findings['open']} open, {findings['opened']} new, {findings['resolved']} resolved" in text
        assert run["domains"][0] in text


def test_demo_shows_an_exception_and_its_end_in_the_evidence_too(verbose: Demonstration) -> None:
    _, second, _ = verbose.runs
    image = f"{'/'.join(story.EXCEPTED[:2])}:{story.EXCEPTED[2]}"
    (row,) = [row for row in OutputFolder(verbose.out).rows(second) if row["exception_id"]]
    assert f"{row['namespace']}/{row['repository']}:{row['tag']}" == image
    assert row["verdict"] == "UNSIGNED"
    text = flat(verbose.shown)
    assert f"{image} is under an exception until {row['exception_ends']}" in text
    assert f"{image} exception {row['exception_id']}, owner " in text
    assert f"excepted until {row['exception_ends']}" in (verbose.out / second["evidence"]["report"]).read_text()
    assert f"ends {row['exception_ends']}" in (verbose.out / second["evidence"]["ckl"]).read_text()
    assert (verbose.out / "policy" / "exceptions.json").exists()


def test_verbose_demo_shows_every_finding_and_every_change(verbose: Demonstration) -> None:
    folder = OutputFolder(verbose.out)
    first, second, _ = verbose.runs
    for row in folder.rows(first):
        if row["verdict"] not in {"SIGNED", None}:
            image = f"{row['namespace']}/{row['repository']}:{row['tag']}"
            line = next(line for line in verbose.shown.splitlines() if line.startswith(image))
            assert row["verdict"] in line
            assert row["digest"].removeprefix("sha256:")[:12] in line
    was = {(row["namespace"], row["repository"], row["tag"]): row["verdict"] for row in folder.rows(first)}
    for row in folder.rows(second):
        before = was.get((row["namespace"], row["repository"], row["tag"]))
        if row["verdict"] in {"UNSIGNED", "MISMATCHED"} and row["verdict"] != before:
            heading = "NEW" if before in {None, "SIGNED"} else "CHANGED"
            assert f"{heading} {row['namespace']}/{row['repository']}:{row['tag']} " in flat(verbose.shown)
    assert f"RESOLVED {'/'.join(('payments', 'ledger'))}:4.2.1-hotfix signed" in flat(verbose.shown)


def test_demo_contrasts_with_what_the_rules_own_loop_sees(verbose: Demonstration) -> None:
    folder = OutputFolder(verbose.out)
    for run in verbose.runs[:2]:
        tags = Counter((row["namespace"], row["repository"]) for row in folder.rows(run))
        seen = sum(min(count, 10) for _, count in sorted(tags.items())[:10])
        assert (
            f"sees 10 of {run['repositories']['listed']} repositories and {seen} of {run['tags']['audited']} tags"
            in flat(verbose.shown)
        )
        assert f"found {run['tags']['unsigned'] + run['tags']['mismatched']} tags" in flat(verbose.shown)


def test_demo_reads_more_than_one_page_of_repositories_and_of_tags(verbose: Demonstration) -> None:
    rows = list(OutputFolder(verbose.out).rows(verbose.runs[1]))
    assert len({(row["namespace"], row["repository"]) for row in rows}) > 100
    long = [row["tag"] for row in rows if (row["namespace"], row["repository"]) == story.LONG_REPOSITORY]
    assert len(set(long)) == len(long) == story.LONG_REPOSITORY_TAGS > 100


def test_demo_without_a_terminal_shows_hostile_text_as_text(verbose: Demonstration) -> None:
    for character in "\x1b\r\u202e":
        assert character not in verbose.shown
    assert "[bold red]root[/]" in verbose.shown
    # A path stays whole, to be copied, and so does a command.
    lines = [line for line in verbose.shown.splitlines() if "--secret" not in line]
    assert max(len(line.replace(str(verbose.out), "out/demo")) for line in lines) <= 100


def test_what_the_demo_recommends_exists(verbose: Demonstration) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    for target in ("audit", "deploy", "query"):
        assert f"make {target}" in verbose.shown
        assert f"\n{target}:" in makefile
    assert "CredentialsSecretArn" in verbose.shown
    assert "CredentialsSecretArn" in load(PROJECT / "template.yaml")["Outputs"]
    evidence = verbose.runs[1]["evidence"]
    for name in (
        *(evidence[name] for name in ("report", "ckl", "manifest")),
        "policy/exceptions.json",
        "findings/registry=demo",
        "runs/registry=demo",
        "run.json",
        "alerts.jsonl",
        "state",
        "audit.log",
    ):
        assert name in verbose.shown
        assert (verbose.out / name).exists()


def test_verbose_demo_points_to_the_related_settings(verbose: Demonstration) -> None:
    run = verbose.runs[1]
    (wrong,) = [fact for fact in run["facts"] if fact["status"] == "OPEN"]
    assert wrong["rule_id"] == "V-235847"
    assert f'"{wrong["subject"]}" (V-235847): {wrong["answer"]}' in flat(verbose.shown)
    assert f"read {len(run['facts'])} related settings" in flat(verbose.shown)
    report = (verbose.out / run["evidence"]["report"]).read_text()
    assert "Supporting facts" in report
    assert wrong["answer"] in report


def test_files_of_the_demo_are_signed_by_the_key_that_it_names(verbose: Demonstration) -> None:
    key = verbose.out / "signing-key.pem"
    assert f"verify {verbose.out} --public-key {key}" in flat(verbose.shown)
    done = run_command("verify", str(verbose.out), "--public-key", str(key))
    assert (done.returncode, done.stdout.count("signed by the key given")) == (0, 3)


def test_demo_leaves_only_what_the_next_demo_may_remove(verbose: Demonstration) -> None:
    assert {entry.name for entry in verbose.out.iterdir()} <= CONTENTS | {"signing-key.pem"}
