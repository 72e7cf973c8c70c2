"""`dtr-audit`: the demonstration, and the audit of any DTR from a laptop, as a user runs them."""

import contextlib
import gzip
import io
import itertools
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from dtr_audit.errors import AuditError
from dtr_audit.evidence import ckl, cklb
from dtr_audit_cli import __main__ as command_line
from dtr_audit_cli import console, progress
from dtr_audit_cli import local_run as laptop_module
from dtr_audit_cli.commands import demo
from dtr_audit_cli.exit_status import ExitStatus
from dtr_audit_cli.local_run import derive_registry_name, read_ca_file
from dtr_audit_cli.output import OutputFolder, Subscribers
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.function_log import FunctionLog
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from dtr_audit_simulator.dtr.fault_kinds import Calls, Echo, Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.authority import Defect
from dtr_audit_simulator.notary import TrustRepository
from tests.evidence.html_report import report
from tests.harness.command import command_environment, run_command

Tree = Mapping[str, bytes]
PUSHED = datetime(2026, 11, 1, tzinfo=UTC)


def tree(folder: Path) -> Tree:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def flat(text: str) -> str:
    """Join what the width of the terminal broke."""
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Laptop:
    """Somebody with an account, an authority's file and an empty folder."""

    dtr: DtrServer
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def arguments(self, *more: str) -> list[str]:
        ca_file = self.folder / "ca.pem"
        ca_file.write_text(self.dtr.ca_bundle)
        fixed = ["--url", self.dtr.url, "--username", self.dtr.admin.name, "--output", str(self.out)]
        return ["audit", *fixed, "--ca-file", str(ca_file), *more]

    def audit(self, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_command(*self.arguments(*more), **{"DTR_PASSWORD": self.dtr.admin.password, **environment})

    def run(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.out / "run.json").read_text())
        return record

    def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "alerts.jsonl").read_text().splitlines()]

    def state(self) -> Tree:
        return tree(self.out / "state")


@pytest.fixture
def registry() -> InMemoryRegistry:
    """Its images were pushed long ago: a command waits a minute for the signature of one that was pushed just now."""
    return InMemoryRegistry(clock=lambda: PUSHED)


@pytest.fixture
def laptop(dtr: DtrServer, tmp_path: Path) -> Laptop:
    return Laptop(dtr, tmp_path)


# --- What it answers --------------------------------------------------------------------------------------------------


def test_nothing_found_exits_with_0_and_leaves_every_file(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    registry.sign("web", "shop", "1")
    done = laptop.audit("--registry-name", "prod")
    assert (done.returncode, done.stderr) == (0, "")
    assert "NOT_A_FINDING" in done.stdout
    run = laptop.run()
    assert (run["registry"], run["status"], run["complete"]) == ("prod", "NOT_A_FINDING", True)
    day = f"registry=prod/dt={run['run_id'][:4]}-{run['run_id'][4:6]}-{run['run_id'][6:8]}"
    assert set(tree(laptop.out)) == {
        "run.json",
        "alerts.jsonl",
        "audit.log",
        "state/FindingsTable.jsonl",
        "state/RunsTable.jsonl",
        f"findings/{day}/{run['run_id']}-00001.jsonl.gz",
        f"runs/{day}/{run['run_id']}.json",
        *(
            f"evidence/registry=prod/{run['run_id']}/{name}"
            for name in ("report.html", "checklist.ckl", "checklist.cklb", "manifest.json")
        ),
    }
    assert json.loads((laptop.out / f"runs/{day}/{run['run_id']}.json").read_text()) == run
    assert laptop.alerts() == []


def test_evidence_and_messages_name_files_of_the_folder_and_no_bucket(
    laptop: Laptop, registry: InMemoryRegistry
) -> None:
    registry.push("web", "shop", "1")
    assert laptop.audit().returncode == 1
    files = [file for file in (laptop.out / "evidence").rglob("*") if file.is_file()]
    for file in [*files, laptop.out / "alerts.jsonl"]:
        assert "s3://" not in file.read_text(), file.name
    details = next(file for file in files if file.name == "checklist.ckl").read_text()
    (rows,) = re.findall(r"a row for every tag that was read: (\S+) sha256", details)
    (record,) = re.findall(r"the run record: (\S+)</FINDING_DETAILS>", details)
    assert Path(rows).is_file()
    assert json.loads(Path(record).read_text()) == laptop.run()
    (alert,) = laptop.alerts()
    assert all(list(Path(alert["body"][name]).parent.glob("*")) for name in ("rows", "record", "report"))


def test_an_audit_in_steps_answers_leaves_and_knows_the_same(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    registry.push("web", "shop", "2")
    done = laptop.audit("--engine", "stepfunctions", "--registry-name", "prod")
    assert (done.returncode, done.stderr) == (1, "")
    run = laptop.run()
    assert (run["status"], run["complete"], run["findings"]["opened"]) == ("OPEN", True, 2)
    assert {name.split("/")[0] for name in tree(laptop.out)} == {
        "run.json",
        "alerts.jsonl",
        "audit.log",
        "state",
        "findings",
        "runs",
        "evidence",
    }
    (alert,) = laptop.alerts()
    assert [item["tag"] for item in alert["body"]["opened"]] == ["1", "2"]
    assert "web/shop" in done.stdout
    (report,) = (laptop.out / "evidence").rglob("report.html")
    assert "s3://" not in report.read_text() + str(alert)

    registry.sign("web", "shop", "1")
    assert laptop.audit("--registry-name", "prod").returncode == 1  # in one function again
    assert laptop.run()["findings"] == {"open": 1, "opened": 0, "resolved": 1, "excepted": 0}

    registry.sign("web", "shop", "2")
    assert laptop.audit("--engine", "stepfunctions", "--registry-name", "prod").returncode == 0
    assert laptop.run()["findings"] == {"open": 0, "opened": 0, "resolved": 1, "excepted": 0}


def test_an_audit_in_steps_that_fails_exits_with_2_and_says_why(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    done = laptop.audit("--engine", "stepfunctions", DTR_PASSWORD="wrong")
    assert done.returncode == 2
    assert "does not accept the credentials" in flat(done.stdout)
    assert laptop.run()["status"] == "NOT_REVIEWED"


def test_findings_exit_with_1_and_each_is_reported_once_when_it_opens_and_once_when_it_is_resolved(
    laptop: Laptop, registry: InMemoryRegistry
) -> None:
    registry.push("web", "shop", "1")
    registry.push("web", "shop", "2")
    assert laptop.audit().returncode == 1
    (alert,) = laptop.alerts()
    assert set(alert) == {"message_id", "subject", "attributes", "body", "mail"}
    assert alert["attributes"]["status"] == "OPEN"
    assert [item["tag"] for item in alert["body"]["opened"]] == ["1", "2"]
    assert "web/shop:1  UNSIGNED" in alert["mail"]
    first_seen = {item["first_seen"] for item in alert["body"]["opened"]}

    again = laptop.audit()
    assert again.returncode == 1
    assert laptop.run()["findings"] == {"open": 2, "opened": 0, "resolved": 0, "excepted": 0}
    assert laptop.alerts() == []

    registry.sign("web", "shop", "1")
    third = laptop.audit()
    assert third.returncode == 1
    assert "RESOLVED web/shop:1" in flat(third.stdout)
    (alert,) = laptop.alerts()
    assert [(item["tag"], item["resolution"]) for item in alert["body"]["resolved"]] == [("1", "signed")]
    assert {item["first_seen"] for item in alert["body"]["resolved"]} == first_seen

    registry.sign("web", "shop", "2")
    assert laptop.audit().returncode == 0
    assert len(list(laptop.out.glob("runs/*/*/*.json"))) == 4
    assert len(list(laptop.out.glob("findings/*/*/*.gz"))) == 4


def exceptions_file(folder: Path, **changes: str) -> Path:
    entry = {
        "id": "EX-7",
        "namespace": "web",
        "repository": "*",
        "tag": "1",
        "owner": "j.doe",
        "reason": "being rebuilt",
        "ends": "9999-12-31",
    }
    file = folder / "exceptions.json"
    file.write_text(json.dumps({"exceptions": [{**entry, **changes}]}))
    return file


def test_exceptions_are_given_once_and_kept_for_the_next_audit(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    done = laptop.audit("--exceptions", str(exceptions_file(laptop.folder)))
    assert done.returncode == 1
    assert laptop.run()["findings"]["excepted"] == 1
    assert "1 excepted" in done.stdout
    assert "web/shop:1 by EX-7, to 9999-12-31" in done.stdout
    assert laptop.alerts() == []
    kept = laptop.out / "policy" / "exceptions.json"
    assert kept.read_bytes() == (laptop.folder / "exceptions.json").read_bytes()
    laptop.audit()
    assert laptop.run()["findings"]["excepted"] == 1
    kept.unlink()
    assert "NOT EXCEPTED web/shop:1" in flat(laptop.audit().stdout)
    (alert,) = laptop.alerts()
    assert [item["resolution"] for item in alert["body"]["expired"]] == ["exception withdrawn"]


def test_exceptions_that_would_except_nothing_are_refused_before_the_registry_is_asked(
    laptop: Laptop, dtr: DtrServer
) -> None:
    done = laptop.audit("--exceptions", str(exceptions_file(laptop.folder, ends="soon")))
    assert done.returncode == 2
    assert "exceptions.json: $.exceptions[0].ends: " in flat(done.stderr)
    assert "no-such.json: No such file" in laptop.audit("--exceptions", "no-such.json").stderr
    assert not dtr.requests
    assert not laptop.out.exists()


def test_kept_exceptions_that_were_broken_since_except_nothing_and_the_audit_says_so(
    laptop: Laptop, registry: InMemoryRegistry
) -> None:
    registry.push("web", "shop", "1")
    laptop.audit("--exceptions", str(exceptions_file(laptop.folder)))
    (laptop.out / "policy" / "exceptions.json").write_text("{")
    done = laptop.audit()
    assert done.returncode == 1
    assert "nothing is excepted" in flat(done.stdout)
    assert "here by --exceptions" in flat(done.stdout)
    assert [alert["attributes"]["event"] for alert in laptop.alerts()] == ["exceptions_unusable"]


def test_a_document_of_exceptions_can_be_looked_at_before_it_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["exceptions", str(exceptions_file(tmp_path))]) == 0
    assert capsys.readouterr().out == "1 hold\n  EX-7, of j.doe, to 9999-12-31\n0 have ended\n"
    assert command_line.main(["exceptions", str(exceptions_file(tmp_path, ends="2020-01-31"))]) == 0
    assert capsys.readouterr().out == "0 hold\n1 have ended\n  EX-7, of j.doe, to 2020-01-31\n"
    assert command_line.main(["exceptions", str(exceptions_file(tmp_path, ends="soon", id=""))]) == 2
    said = capsys.readouterr().err
    assert "$.exceptions[0].ends: " in said
    assert "$.exceptions[0].id: " in said
    assert command_line.main(["exceptions", str(tmp_path / "no-such.json")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_what_could_not_be_read_is_named_and_exits_with_2_even_beside_findings(
    laptop: Laptop, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    registry.push("web", "shop", "1")
    broken = [f"s{number}" for number in range(8)]  # more than the run record's reason names
    for name in broken:
        registry.push("broken", name, "1")
    dtr.faults = Faults(on_calls=(Status(500, Calls("/api/v0/repositories/broken/*/tags")),))
    done = laptop.audit()
    assert done.returncode == 2
    assert (laptop.run()["status"], laptop.run()["complete"]) == ("OPEN", False)
    assert "OPEN, and the audit is NOT COMPLETE" in done.stdout
    for name in broken:
        assert f"broken/{name}" in done.stdout


def test_a_partial_run_passes_nothing(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    registry.push("data", "lake", "1")
    registry.sign("web", "shop", "1")
    done = laptop.audit("--namespace", "web")
    assert done.returncode == 3
    run = laptop.run()
    assert (run["namespaces"], run["complete"], run["status"]) == (["web"], True, "NOT_REVIEWED")
    assert run["repositories"]["listed"] == 1


def test_the_options_reach_the_audit(laptop: Laptop, registry: InMemoryRegistry, dtr: DtrServer) -> None:
    for number in range(11):
        registry.push("web", "shop", str(number))
        registry.sign("web", "shop", str(number), domain="dtr.example.com")
    done = laptop.audit(
        "--domain", "old.example.com", "--domain", "dtr.example.com:443", "--page-size", "10", "--concurrency", "1"
    )
    assert done.returncode == 1
    assert laptop.run()["domains"] == ["old.example.com", "dtr.example.com:443"]
    # Every tag looks unsigned: the warning's remedy is given in the words of this command.
    assert "DTR_DOMAINS: here by --domain" in flat(done.stdout)
    asked = dtr.calls("/api/v0/repositories/web/shop/tags")
    assert len(asked) == 4  # two pages of 10 under each of two domains


@pytest.fixture
def trust(registry: InMemoryRegistry, dtr: DtrServer) -> TrustRepository:
    """The trust data of a tag that the registry calls signed and the signer ci has signed."""
    digest = registry.push("web", "shop", "1").digest
    registry.sign("web", "shop", "1")
    trust = dtr.notary.create(f"{dtr.host}/web/shop")
    for signer in ("ci", "qa"):
        trust.add_signer(signer)
    trust.sign("1", digest, signer="ci")
    return trust


def test_signatures_are_verified_where_that_is_asked_for(laptop: Laptop, trust: TrustRepository) -> None:
    assert laptop.audit().returncode == 0
    assert laptop.run()["trust"] is None
    two = ("--verify-signatures", "--required-signer", "ci", "--required-signer", "qa")
    assert laptop.audit(*two).returncode == 0
    assert laptop.run()["trust"]["verified"] == 1
    done = laptop.audit(*two, "--all-signers")
    assert (done.returncode, laptop.run()["tags"]["untrusted"]) == (1, 1)
    assert "UNTRUSTED" in done.stdout


def test_what_the_repositorys_own_key_has_signed_counts_where_that_is_asked_for(
    laptop: Laptop, registry: InMemoryRegistry, trust: TrustRepository
) -> None:
    trust.revoke("1")
    trust.sign("1", registry.signatures("web", "shop")["1"])
    assert laptop.audit("--verify-signatures").returncode == 1
    assert laptop.audit("--verify-signatures", "--repository-key-suffices").returncode == 0


def test_only_pinned_roots_are_trusted_by_the_audit_that_is_given_them(
    laptop: Laptop, dtr: DtrServer, trust: TrustRepository
) -> None:
    file = laptop.folder / "pins.json"
    (root,) = trust.keys("root")
    for key, status in ((64 * "0", 1), (root.id, 0)):
        file.write_text(json.dumps({"pins": [{"pattern": f"{dtr.host}/*", "root_keys": [key]}]}))
        assert laptop.audit("--verify-signatures", "--trust-pins", str(file)).returncode == status
        assert laptop.run()["trust"]["first_use"] == 0
    assert (laptop.out / "policy" / "trust-pins.json").read_bytes() == file.read_bytes()


def test_a_checklist_of_ones_own_is_answered(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    theirs = laptop.folder / "Their own (2026).ckl"
    theirs.write_bytes(ckl.write(report()).replace(b"<COMMENTS>[dtr-", b"<COMMENTS>Entered by a person. [dtr-"))
    done = laptop.audit("--baseline", str(theirs), "--registry-name", "prod")
    assert (done.returncode, done.stderr) == (1, "")
    merged = laptop.out / laptop.run()["evidence"]["merged"]
    assert merged == laptop.out / "evidence/registry=prod" / laptop.run()["run_id"] / "checklist-merged.ckl"
    assert f"{merged}" in done.stdout.replace("\n", "")
    content = merged.read_bytes()
    assert b"web/shop:1" in content
    assert b"<COMMENTS>Entered by a person.\n\n[dtr-" in content
    assert (laptop.out / "baseline" / "checklist.ckl").read_bytes() == theirs.read_bytes()
    assert run_command("verify", str(laptop.out)).returncode == 0


@pytest.mark.parametrize(
    ("status", "complete", "scope", "expected"),
    [
        ("NOT_A_FINDING", True, "full", 0),
        ("OPEN", True, "full", 1),
        ("OPEN", True, "partial", 1),
        ("OPEN", False, "full", 2),
        ("OPEN", False, "partial", 2),
        ("NOT_REVIEWED", True, "full", 2),
        ("NOT_REVIEWED", False, "full", 2),
        ("NOT_REVIEWED", False, "partial", 2),
        ("NOT_REVIEWED", True, "partial", 3),
    ],
)
def test_exit_status_of_a_run_that_is_not_complete_is_2(status: str, complete: bool, scope: str, expected: int) -> None:
    assert ExitStatus.of_run({"status": status, "complete": complete, "scope": scope}) == expected


def test_a_crash_is_no_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def crash(_: object) -> int:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(demo, "run_demo", crash)
    assert command_line.main(["demo"]) == 2
    assert "RuntimeError: out of luck" in capsys.readouterr().err


class Steps:
    """A state machine whose function times out after 15 minutes, in a stack that has nothing else."""

    def function_timeout(self, logical_id: str) -> int:
        return 900

    def execute(self, logical_id: str, event: dict[str, Any], step: Callable[[str, dict[str, Any]], object]) -> None:
        step("InventoryFunction", event)


@pytest.mark.parametrize(
    ("engine", "given", "most"),
    [
        ("lambda", (), 12 * 3600.0),
        ("lambda", ("--time-limit", "90m"), 5400.0),
        ("stepfunctions", (), 900.0),
        ("stepfunctions", ("--time-limit", "5m"), 300.0),
    ],
)
def test_time_limit_of_a_run_bounds_what_it_invokes(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, engine: str, given: tuple[str, ...], most: float
) -> None:
    invoked: list[float] = []

    def invoke(
        stack: Steps, logical_id: str, event: dict[str, Any], *, seconds: float, environment: dict[str, str]
    ) -> dict[str, Any]:
        invoked.append(seconds)
        raise AuditError("one is enough")

    def run(assignment: laptop_module.Assignment, password: str, display: object) -> ExitStatus:
        laptop_module._run(cast("Stack", Steps()), assignment)
        return ExitStatus.NOTHING_FOUND

    monkeypatch.setattr(laptop_module, "invoke", invoke)
    monkeypatch.setattr(laptop_module, "audit", run)
    monkeypatch.setenv("DTR_PASSWORD", laptop.dtr.admin.password)
    assert command_line.main(laptop.arguments("--engine", engine, *given)) == ExitStatus.NOT_COMPLETED
    assert [most - 60 < seconds <= most for seconds in invoked] == [True]


@pytest.mark.parametrize("wrong", ["12", "0h", "-1h", "1.5h", "10s", "169h", "9999999h", ""])
def test_time_limit_that_is_none_is_refused_with_an_example(
    laptop: Laptop, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    with pytest.raises(SystemExit):
        command_line.main(laptop.arguments(f"--time-limit={wrong}"))
    assert "such as 90m or 12h" in flat(capsys.readouterr().err)
    assert not laptop.dtr.requests


# --- What it refuses --------------------------------------------------------------------------------------------------


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command line that is refused in this process, and give what it says."""
    with pytest.raises(SystemExit) as refused:
        command_line.main(["audit", *arguments])
    assert refused.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_plain_http_is_refused(tmp_path: Path) -> None:
    done = run_command("audit", "--url", "http://dtr.example.com", "--username", "a", "--output", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "--url: an address of the form https://host" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--url", "https://user:pass@dtr.example.com"], "--url"),
        (["--url", "https://dtr.example.com/path"], "--url"),
        (["--concurrency", "0"], "Concurrency"),
        (["--page-size", "ten"], "PageSize"),
        (["--registry-name", "Prod DTR"], "RegistryName"),
        (["--domain", "https://dtr.example.com"], "--domain"),
        (["--namespace", "a/b"], "namespaces"),
        (["--username", "a:b"], "colon"),
        (["--ca-file", "missing.pem"], "--ca-file missing.pem: No such file"),
        (["--ca-file", str(PROJECT / "Makefile")], "holds no certificate in PEM form"),
        (["--baseline", "missing.ckl"], "--baseline missing.ckl: No such file"),
        (["--required-signer", "ci"], "--required-signer: without --verify-signatures nothing is verified"),
        (["--all-signers"], "--all-signers: without --verify-signatures"),
        (["--repository-key-suffices"], "--repository-key-suffices: without --verify-signatures"),
        (["--trust-pins", "pins.json"], "--trust-pins: without --verify-signatures"),
        (["--verify-signatures", "--all-signers"], "no --required-signer says who they are"),
        (["--verify-signatures", "--required-signer", "ci team"], "--required-signer: 'ci team' is not the name"),
        (["--verify-signatures", "--trust-pins", "missing.json"], "--trust-pins missing.json: No such file"),
        (["--verify-signatures", "--trust-pins", str(PROJECT / "Makefile")], "Makefile: it is not JSON"),
        (["--baseline", str(PROJECT / "Makefile")], "a file that ends in .ckl or .cklb is needed"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_asked(
    more: list[str],
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DTR_PASSWORD", "given")
    plain = ["--url", "https://127.0.0.1:1", "--username", "a", "--output", str(tmp_path / "out")]
    assert named in refuse(capsys, *plain, *more)
    assert not (tmp_path / "out").exists()
    assert "DTR_PASSWORD" not in os.environ  # taken, and not left for a child to inherit


def test_a_baseline_that_cannot_be_answered_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["--url", "https://127.0.0.1:1", "--username", "a", "--output", str(tmp_path / "out")]
    file = tmp_path / "theirs.cklb"
    file.write_text("{}")
    assert f"--baseline {file}: it is JSON but no .cklb" in flat(refuse(capsys, *plain, "--baseline", str(file)))
    file.write_bytes(cklb.write(report()))
    said = refuse(capsys, *plain, "--baseline", str(file), "--namespace", "web")
    assert "--baseline: a checklist speaks for the whole registry, so leave out --namespace" in flat(said)
    assert not (tmp_path / "out").exists()


def test_a_password_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["--url", "https://127.0.0.1:1", "--username", "a", "--output", str(tmp_path / "out")]
    assert "DTR_PASSWORD" in refuse(capsys, *plain)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", [["--password", "hunter2-hunter2"], ["--password=hunter2-hunter2"]])
def test_a_password_on_the_command_line_is_refused_and_not_repeated(
    form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refuse(capsys, "--url", "https://127.0.0.1:1", "--username", "a", *form)
    assert "DTR_PASSWORD" in said
    assert "hunter2" not in said


def test_a_ca_file_is_taken_with_its_comments_and_without_its_keys(tmp_path: Path, dtr: DtrServer) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
    file = tmp_path / "ca.pem"
    file.write_text(f"# Zertifizierungsstelle für DTR\n{key}{dtr.ca_bundle}\n", encoding="utf-8")
    assert read_ca_file(file) == dtr.ca_bundle


def test_no_option_switches_the_checking_of_certificates_off(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.main(["audit", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "certificates stay verified" in flat(text)
    options = {word.strip("[],") for word in text.split() if word.strip("[],").startswith("--")}
    assert options == {
        "--baseline", "--ca-file", "--concurrency", "--domain", "--engine", "--exceptions", "--help", "--namespace",
        "--no-x509-strict", "--all-signers", "--output", "--page-size", "--registry-name", "--repository-key-suffices",
        "--required-signer", "--time-limit", "--trust-pins", "--url", "--username", "--verify-signatures",
    }  # fmt: skip


def test_a_wrong_password_exits_with_2_and_reports_the_remedy(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    done = laptop.audit(DTR_PASSWORD="not-the-password-at-all")
    assert done.returncode == 2
    assert "does not accept the credentials" in flat(done.stdout)
    assert "DTR_PASSWORD" in done.stdout
    assert "not-the-password-at-all" not in done.stdout + done.stderr
    assert laptop.run()["status"] == "NOT_REVIEWED"


def test_an_unknown_authority_exits_with_2_and_names_the_option(laptop: Laptop, tmp_path: Path) -> None:
    arguments = laptop.arguments()
    at = arguments.index("--ca-file")
    done = run_command(*arguments[:at], *arguments[at + 2 :], DTR_PASSWORD=laptop.dtr.admin.password)
    assert done.returncode == 2
    assert "its certificate is refused" in flat(done.stdout)
    assert "--ca-file" in done.stdout
    assert laptop.dtr.requests == ()


def test_the_strictness_of_certificates_may_be_dropped_but_not_their_verification(
    registry: InMemoryRegistry, tmp_path: Path
) -> None:
    registry.push("web", "shop", "1")
    registry.sign("web", "shop", "1")
    with DtrServer(registry, defect=Defect.NO_AUTHORITY_KEY_IDENTIFIER) as dtr:
        laptop = Laptop(dtr, tmp_path)
        done = laptop.audit()
        assert done.returncode == 2
        assert "--no-x509-strict" in done.stdout
        assert laptop.audit("--no-x509-strict").returncode == 0
    with DtrServer(registry) as other:
        (tmp_path / "ca.pem").write_text(laptop.dtr.ca_bundle)
        wrong = ["audit", "--url", other.url, "--username", "admin", "--output", str(laptop.out), "--no-x509-strict"]
        done = run_command(*wrong, "--ca-file", str(tmp_path / "ca.pem"), DTR_PASSWORD=other.admin.password)
        assert done.returncode == 2
        assert other.requests == ()


# --- What it keeps ----------------------------------------------------------------------------------------------------


def test_a_damaged_state_is_named_and_nothing_is_changed(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    laptop.audit()
    damaged = laptop.out / "state" / "RunsTable.jsonl"
    damaged.write_text(damaged.read_text() + '{"pk": "somebody else\'s"}\n')
    before = tree(laptop.out)
    asked = len(laptop.dtr.requests)
    done = laptop.audit()
    assert done.returncode == 2
    assert f"{damaged}, line " in done.stderr
    assert "delete it" in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(laptop.out) == before
    assert len(laptop.dtr.requests) == asked


def test_an_interrupted_run_keeps_the_earlier_results(
    laptop: Laptop, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    for number in range(40):
        registry.push("web", f"s{number}", "1")
    assert laptop.audit().returncode == 1
    before = dict(tree(laptop.out))
    for number in range(40):
        registry.sign("web", f"s{number}", "1")
    asked, reading, may_answer = itertools.count(1), threading.Event(), threading.Event()

    def hold_the_fourth(_: object) -> None:
        if next(asked) > 3:
            reading.set()
            may_answer.wait()

    dtr.on_request(hold_the_fourth, "*/tags")
    # Whoever was started in the background ignores it, and so would the process.
    before_that = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(  # noqa: S603 (this project itself)
        [sys.executable, "-m", "dtr_audit_cli", *laptop.arguments("--concurrency", "2")],
        cwd=PROJECT,
        env=command_environment(DTR_PASSWORD=dtr.admin.password),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        signal.signal(signal.SIGINT, before_that)
        reading.wait()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    may_answer.set()
    assert process.returncode == 130
    assert "Interrupted" in said
    assert "Traceback" not in said
    after = dict(tree(laptop.out))
    assert after.pop("audit.log") != before.pop("audit.log")
    assert after == before
    assert laptop.audit().returncode == 0
    (alert,) = laptop.alerts()
    assert alert["body"]["counts"] == {"opened": 0, "changed": 0, "resolved": 40, "expiring": 0, "expired": 0}


def test_a_run_that_is_cut_while_its_results_are_moved_leaves_a_state_of_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws: EmbeddedAws
) -> None:
    parameters = {"DtrUrl": "https://dtr.example.com", "RegistryName": "moved"}
    stack = aws.deploy(PROJECT / "template.yaml", parameters, stack_name="moved")
    table = stack.outputs["FindingsTableName"]
    folder = OutputFolder(tmp_path / "out")
    stack.dynamodb.put_item(TableName=table, Item={"pk": {"S": "moved#web/shop"}, "sk": {"S": "1"}})
    folder.keep(stack, {"run": 1}, Subscribers(stack).take())
    old = tree(folder.path)
    stack.dynamodb.put_item(TableName=table, Item={"pk": {"S": "moved#web/shop"}, "sk": {"S": "2"}})
    folder.keep(stack, {"run": 2}, ())
    new = tree(folder.path)
    assert set(new) == set(old)
    replace = Path.replace
    for cut in range(len(new)):
        for name, content in old.items():
            (folder.path / name).write_bytes(content)
        moved = 0

        def replace_some(self: Path, target: Path, cut: int = cut) -> Path:
            nonlocal moved
            if target.parent in {folder.path, folder.path / "state"}:
                if moved == cut:
                    raise KeyboardInterrupt
                moved += 1
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace_some)
            with pytest.raises(KeyboardInterrupt):
                folder.keep(stack, {"run": 2}, ())
        left = {name: content for name, content in tree(folder.path).items() if not name.startswith(".unfinished")}
        assert [name for name in left if left[name] not in {old[name], new[name]}] == []
        if left["state/FindingsTable.jsonl"] != old["state/FindingsTable.jsonl"]:
            assert left["run.json"] == new["run.json"]
        folder.load_state(stack)
    folder.keep(stack, {"run": 2}, ())
    assert tree(folder.path) == new
    assert not (folder.path / ".unfinished").exists()


def test_two_audits_never_share_a_folder(laptop: Laptop, registry: InMemoryRegistry) -> None:
    with OutputFolder(laptop.out).reserve():
        done = laptop.audit()
    assert done.returncode == 2
    assert "another audit is writing there" in done.stderr
    assert laptop.dtr.requests == ()


def test_two_registries_may_share_a_folder(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    laptop.audit("--registry-name", "one")
    one = (laptop.out / "state" / "FindingsTable.jsonl").read_text()
    laptop.audit("--registry-name", "two")
    assert laptop.run()["findings"] == {"open": 1, "opened": 1, "resolved": 0, "excepted": 0}
    both = (laptop.out / "state" / "FindingsTable.jsonl").read_text()
    assert one in both
    assert len(both.splitlines()) == 2


def test_a_folder_that_cannot_be_written_is_named(laptop: Laptop) -> None:
    laptop.out.write_text("a file")
    done = laptop.audit()
    assert done.returncode == 2
    assert done.stderr == f"error: {laptop.out}: File exists.\n"


# --- What it shows ----------------------------------------------------------------------------------------------------


def test_hostile_names_are_shown_as_harmless_text(laptop: Laptop, registry: InMemoryRegistry, dtr: DtrServer) -> None:
    registry.push("web", "shop", "1", author="[red]x[/red] \x1b[2J\u202e\x07")
    registry.push("web", "mad", "\x1b]0;owned\x07", author="a")
    dtr.faults = Faults(hostile_names=tags_of("web/worse"))
    registry.push("web", "worse", "1")
    done = laptop.audit()
    assert done.returncode == 2
    assert "[red]x[/red]" in done.stdout
    for character in "\x1b\x07\u202e\u2066\r":
        assert character not in done.stdout + done.stderr
    for name in ("run.json", "alerts.jsonl"):
        kept = (laptop.out / name).read_text()
        assert "\\u001b" not in kept
        assert "\\u202e" not in kept


def test_nothing_secret_is_in_any_file_or_on_the_screen(
    laptop: Laptop, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    registry.push("web", "shop", "1")
    registry.push("web", "broken", "1")
    tokens: set[str] = set()
    dtr.on_request(lambda request: tokens.add(request.header("authorization").rpartition(" ")[2]))
    registry.push("web", "encoded", "1")
    dtr.faults = Faults(
        secrets_echoed=Calls(),
        on_calls=(Status(500, tags_of("web/broken")),),
        echoes=(Echo("fields", tags_of("web/shop")), Echo("encoding", tags_of("web/encoded"))),
    )
    done = laptop.audit()
    assert done.returncode == 2
    files = tree(laptop.folder)
    assert len(files) == 12
    secrets = {dtr.admin.password, *tokens} - {""}
    assert len(secrets) >= 3  # the password, Basic's form of it, and a token
    for secret in secrets:
        assert secret.lower() not in (done.stdout + done.stderr).lower()
        for name, content in files.items():
            text = gzip.decompress(content) if name.endswith(".gz") else content
            assert secret.encode().lower() not in text.lower(), name


def test_the_password_is_asked_for_on_a_terminal_and_not_echoed(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    driver = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    with subprocess.Popen(  # noqa: S603 (this project itself)
        [sys.executable, "-c", driver, sys.executable, "-m", "dtr_audit_cli", *laptop.arguments()],
        cwd=PROJECT,
        env=command_environment(TERM="xterm"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        while b"Password or access token of admin" not in shown or not shown.endswith(b": "):
            shown += process.stdout.read(1)
        process.stdin.write(laptop.dtr.admin.password.encode() + b"\n")
        while piece := process.stdout.read(4096):
            shown += piece
        process.wait()
    assert process.returncode == 1
    text = shown.decode()
    assert laptop.dtr.admin.password not in text
    assert "1 of 1 listed repositories, 1 tags" in text
    assert "web/shop:1" in text


def test_a_reader_that_goes_away_does_not_stop_the_audit(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    with subprocess.Popen(  # noqa: S603 (this project itself)
        [sys.executable, "-m", "dtr_audit_cli", *laptop.arguments()],
        cwd=PROJECT,
        env=command_environment(DTR_PASSWORD=laptop.dtr.admin.password),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        process.wait()
    assert (process.returncode, said) == (1, "")
    assert "web/shop" in (laptop.out / "state" / "FindingsTable.jsonl").read_text()


def test_what_the_function_prints_is_kept_and_its_trouble_is_noted() -> None:
    file = io.StringIO()
    log = FunctionLog(file)
    followed: list[Mapping[str, Any]] = []
    with log.capture(followed.append):
        sys.stdout.write("plain\n")
        sys.stdout.write('{"level":"INFO","examined":1}\n{"level":"ERR')
        sys.stdout.write('OR","message":"a repository could not be examined"}\n[1]\n')
    assert file.getvalue().splitlines()[0] == "plain"
    assert len(file.getvalue().splitlines()) == 4
    assert [record["level"] for record in followed] == ["INFO", "ERROR"]
    assert log.trouble == ["ERROR: a repository could not be examined"]
    file.close()
    print("after the end", file=log)  # a late thread's: dropped, no error


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    display = console.Display()
    with display.progress("Reading") as follow:
        follow({"level": "DEBUG", "listed": 300, "examined": 1, "tags": 2})
        monkeypatch.setattr(progress, "LINES_ELSEWHERE", 0.0)
        follow({"level": "INFO", "message": "something else"})
        follow({"level": "DEBUG", "listed": 300, "examined": 200, "tags": 4000})
    assert capsys.readouterr().out == "Reading …\nReading: 200 of 300 listed repositories, 4000 tags\n"


class Proxy(socketserver.ThreadingTCPServer):
    """A CONNECT proxy that leads every name to this machine."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Tunnel(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        line = self.rfile.readline().decode()
        while self.rfile.readline().strip():
            pass
        self.server.asked.append(line.split(" ")[1] if line.startswith("CONNECT ") else line)
        port = int(self.server.asked[-1].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as there:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=relay, args=(there, self.connection))
            back.start()
            relay(self.connection, there)
            back.join()


def relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_registry_is_reached_through_the_proxy_and_the_embedded_aws_is_not(
    registry: InMemoryRegistry, tmp_path: Path, proxy: Proxy
) -> None:
    registry.push("web", "shop", "1")
    registry.sign("web", "shop", "1")
    with DtrServer(registry, hostname="dtr.example.test") as dtr:
        laptop = Laptop(dtr, tmp_path)
        done = laptop.audit(HTTPS_PROXY=proxy.url, HTTP_PROXY=proxy.url, https_proxy=proxy.url, http_proxy=proxy.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(proxy.asked) == {dtr.host}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://DTR.example.mil", "dtr.example.mil"),
        ("https://dtr.example.mil:443", "dtr.example.mil"),
        ("https://dtr.example.mil:4443", "dtr.example.mil-4443"),
        (f"https://{'a' * 80}.example:4443", f"{'a' * 58}-4443"),
    ],
)
def test_a_registry_is_named_after_its_address(url: str, name: str) -> None:
    assert derive_registry_name(url) == name


# --- The demonstration, beside another's results (tests/integration/test_demo.py has the rest) ---------------------------


def test_the_demonstration_empties_no_folder_but_its_own(laptop: Laptop, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1")
    laptop.audit()
    before = tree(laptop.out)
    done = run_command("demo", "--output", str(laptop.out))
    assert done.returncode == 2
    assert "--output" in done.stderr
    assert tree(laptop.out) == before
