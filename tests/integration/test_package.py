"""The wheel: what it brings, and the command that it installs, in an empty folder and without the project around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtr_audit import __version__
from dtr_audit_simulator import PROJECT
from tests.harness.requirement import require

PACKAGES = {"dtr_audit", "dtr_audit_cli", "dtr_audit_simulator"}
EXCEPTIONS = {
    "exceptions": [
        {
            "id": "EX-7",
            "namespace": "legacy",
            "repository": "*",
            "tag": "*",
            "owner": "j.doe@example.mil",
            "reason": "vendor image",
            "ends": "2999-03-31",
        }
    ]
}


@dataclass(frozen=True, slots=True)
class Installed:
    """A wheel, unpacked into a folder of its own."""

    wheel: Path
    folder: Path

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command in an empty folder; of the project's own environment only the other packages are in reach."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
        path = os.pathsep.join((str(self.folder), sysconfig.get_path("purelib")))
        return subprocess.run(  # noqa: S603 (this project itself)
            # Without `site`, which would put the clone on the path.
            [sys.executable, "-S", self.folder / "bin" / "dtr-audit", *arguments],
            cwd=folder,
            env={**kept, "PYTHONPATH": path, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    try:
        import hatchling  # type: ignore[import-not-found, unused-ignore]  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        require(["hatchling"], "make .venv/.dev-ready")
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    offline = ("--no-deps", "--no-index")
    subprocess.run(  # noqa: S603 (this project itself)
        [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, PROJECT], check=True
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", folder / "site", wheel], check=True)  # noqa: S603
    return Installed(wheel, folder / "site")


def test_wheel_brings_three_packages_and_no_other_name(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    about = f"dtr_signature_audit-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, about}


def test_wheel_brings_what_is_deployed_and_every_module(installed: Installed) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    deployed = ["template.yaml", "functions", "statemachine", "queries", "events"]
    folders = {"dtr_audit_simulator/project": PROJECT}
    sources = {"dtr_audit": "layers/audit", "dtr_audit_cli": "cli", "dtr_audit_simulator": "simulator"}
    expected = {
        f"{into}/{file.relative_to(root)}"
        for into, root in folders.items()
        for one in deployed
        for file in _files(root / one)
    }
    expected |= {
        f"{file.relative_to(PROJECT / source)}"
        for package, source in sources.items()
        for file in _files(PROJECT / source / package)
    }
    assert {name for name in names if ".dist-info/" not in name} == expected


def _files(path: Path) -> list[Path]:
    found = path.rglob("*") if path.is_dir() else [path]
    return [file for file in found if file.is_file() and "__pycache__" not in file.parts]


def test_command_version_is_that_of_the_package(installed: Installed, tmp_path: Path) -> None:
    done = installed.run(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"dtr-audit {__version__}\n", "")


def test_command_demo_help_needs_no_clone(installed: Installed, tmp_path: Path) -> None:
    done = installed.run(tmp_path, "demo", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: dtr-audit demo")


def test_command_exceptions_reads_a_document(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "exceptions.json").write_text(json.dumps(EXCEPTIONS), encoding="utf-8")
    done = installed.run(tmp_path, "exceptions", "exceptions.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "EX-7, of j.doe@example.mil" in done.stdout


def test_command_demo_in_an_empty_folder_audits_what_the_wheel_brings(installed: Installed, tmp_path: Path) -> None:
    done = installed.run(tmp_path, "demo")
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads((tmp_path / "out/demo/run.json").read_text(encoding="utf-8"))
    assert record["status"] == "OPEN"
    assert [folder.name for folder in tmp_path.iterdir()] == ["out"]
