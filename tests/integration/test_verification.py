"""`dtr-audit verify`: the files of past runs, held against their manifests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dtr_audit_cli.__main__ import main
from dtr_audit_cli.verification import VerificationError, Verified, find_place, verify
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from tests.harness.audit_harness import Audited


@pytest.fixture
def results(audited: Audited, registry: InMemoryRegistry, tmp_path: Path) -> Path:
    """What two runs have left, as `out/` holds it."""
    registry.push("team", "app", "1.0")
    audited.audit()
    audited.audit()
    for kind in ("findings", "runs", "evidence"):
        for key in audited.keys(kind):
            file = tmp_path / "out" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(audited.read(key))
    return tmp_path / "out"


def verified(place: Path | str) -> list[Verified]:
    return list(verify(*find_place(str(place))))


def only(folder: Path, pattern: str) -> Path:
    return min(folder.rglob(pattern))


def test_what_the_runs_wrote_is_as_they_wrote_it(results: Path, audited: Audited) -> None:
    assert [(run.registry, run.files, run.faults) for run in verified(results)] == [(audited.name, 5, ())] * 2


def test_a_bucket_is_verified_as_a_folder_is(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    run = audited.audit()
    bucket = audited.stack.outputs["BucketName"]
    place = f"s3://{bucket}/evidence/registry={audited.name}/"
    assert [one.faults for one in verified(place)] == [()]
    audited.stack.s3.put_object(Bucket=bucket, Key=run["evidence"]["ckl"], Body=b"forged")
    assert [one.faults for one in verified(place)] == [(f"{run['evidence']['ckl']}: changed since the run wrote it",)]


FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a row changed": (lambda out: only(out, "*.jsonl.gz").write_bytes(b"\x1f\x8b"), "changed since the run wrote it"),
    "a row file gone": (lambda out: only(out, "*.jsonl.gz").unlink(), "missing"),
    "a checklist changed": (lambda out: only(out, "*.ckl").write_text("NotAFinding"), "changed since"),
    "a file slipped in": (lambda out: (only(out, "*.ckl").parent / "more.ckl").touch(), "does not know it"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_is_not_as_it_was_written_is_named(results: Path, forgery: str) -> None:
    forge, fault = FORGERIES[forgery]
    forge(results)
    first, second = verified(results)
    assert len(first.faults) == 1
    assert fault in first.faults[0]
    assert not second.faults


def test_the_manifest_of_another_run_proves_nothing(results: Path) -> None:
    first, second = sorted(results.rglob("manifest.json"))
    first.write_bytes(second.read_bytes())
    assert any("the manifest of another run" in fault for fault in verified(results)[0].faults)


def test_a_manifest_that_leads_out_of_the_folder_reads_nothing_there(results: Path) -> None:
    (results.parent / "secret").write_text("secret")
    manifest = only(results, "manifest.json")
    document = json.loads(manifest.read_bytes())
    document["files"].append({"key": "../secret", "sha256": "0" * 64, "size": 6})
    manifest.write_text(json.dumps(document))
    assert verified(results)[0].faults == ("../secret: missing",)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', "\0"])
def test_a_manifest_that_is_none_is_an_error_and_not_a_pass(results: Path, content: str) -> None:
    only(results, "manifest.json").write_text(content)
    assert main(["verify", str(results)]) == 2


def test_a_place_without_any_manifest_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"no manifest\.json"):
        verified(tmp_path)
    with pytest.raises(VerificationError, match="no such folder"):
        verified(tmp_path / "nowhere")
    with pytest.raises(VerificationError, match="s3://<bucket>"):
        verified("s3:///evidence/")


def test_the_exit_status_reports_as_written_from_not(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(results)]) == 0
    only(results, "*.cklb").unlink()
    assert main(["verify", str(results)]) == 1
    printed = capsys.readouterr().out
    assert "5 files, all as written; not signed" in printed
    assert "5 files, 1 not as written; not signed\n  evidence/" in printed
