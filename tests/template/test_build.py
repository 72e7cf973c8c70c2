"""What `sam build` ships, as far as it can be seen without downloading anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local import template as templates

ROOT = Path(__file__).parents[2]
RESOURCES = templates.load(ROOT / "template.yaml")["Resources"]

PIP = """#!/bin/sh
# Stands in for a Python with pip: notes how it was called, and installs what a real one would leave behind.
echo "$@" >> "$CALLS"
[ "$3" = install ] || exit 0
mkdir -p "$ARTIFACTS/python/bin" "$ARTIFACTS/python/requests/__pycache__" "$ARTIFACTS/python/requests-2.dist-info/licenses"
touch "$ARTIFACTS/python/bin/normalizer" "$ARTIFACTS/python/requests/__init__.py"
touch "$ARTIFACTS/python/requests/__pycache__/__init__.pyc"
touch "$ARTIFACTS/python/requests-2.dist-info/RECORD" "$ARTIFACTS/python/requests-2.dist-info/licenses/LICENSE"
"""


def make(folder: Path, target: str, artifacts: Path, **environment: str) -> None:
    artifacts.mkdir()
    program = shutil.which("make")
    assert program
    subprocess.run(  # noqa: S603 (our own Makefiles)
        [program, "--silent", "--directory", folder, target, f"ARTIFACTS_DIR={artifacts}"],
        check=True,
        env={"PATH": os.environ["PATH"], **environment},
    )


def shipped(artifacts: Path) -> set[str]:
    return {str(file.relative_to(artifacts)) for file in artifacts.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", ["AuditFunction", "AuditLayer"])
def test_what_is_shipped_is_built_by_the_makefile_beside_it(name: str) -> None:
    properties = RESOURCES[name]["Properties"]
    assert RESOURCES[name]["Metadata"]["BuildMethod"] == "makefile"
    folder = ROOT / (properties.get("CodeUri") or properties["ContentUri"])
    assert f"\nbuild-{name}:" in (folder / "Makefile").read_text(encoding="utf-8")


def test_the_function_ships_its_handler_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(ROOT / "functions/audit/Makefile", source)
    (source / "app.py").touch()
    (source / "__pycache__").mkdir()
    (source / "__pycache__/app.cpython-311.pyc").touch()
    make(source, "build-AuditFunction", tmp_path / "artifacts")
    assert shipped(tmp_path / "artifacts") == {"app.py"}


@pytest.fixture
def layer(tmp_path: Path) -> tuple[set[str], list[str]]:
    """Build the layer from a small copy; give the files shipped and the calls of pip."""
    source = tmp_path / "source"
    (source / "dtr_audit/__pycache__").mkdir(parents=True)
    (source / "dtr_audit/model.py").touch()
    (source / "dtr_audit/py.typed").touch()
    (source / "dtr_audit/__pycache__/model.cpython-311.pyc").touch()
    shutil.copy(ROOT / "layers/audit/Makefile", source)
    python = tmp_path / "python"
    python.write_text(PIP, encoding="utf-8")
    python.chmod(0o755)
    calls = tmp_path / "calls"
    artifacts = tmp_path / "artifacts"
    make(source, "build-AuditLayer", artifacts, PYTHON=str(python), CALLS=str(calls), ARTIFACTS=str(artifacts))
    return shipped(artifacts), calls.read_text(encoding="utf-8").splitlines()


def test_the_layer_ships_packages_and_licences_without_leavings_of_the_builder(
    layer: tuple[set[str], list[str]],
) -> None:
    files, _ = layer
    assert files == {
        "python/dtr_audit/model.py",
        "python/dtr_audit/py.typed",
        "python/requests/__init__.py",
        "python/requests-2.dist-info/licenses/LICENSE",
    }


def test_the_layer_takes_only_locked_wheels_for_lambdas_python_and_processor(
    layer: tuple[set[str], list[str]],
) -> None:
    _, calls = layer
    install = calls[-1].split()
    assert "--require-hashes" in install
    assert "--no-deps" in install
    assert "--only-binary=:all:" in install
    version = install[install.index("--python-version") + 1]
    platforms = [install[n + 1] for n, word in enumerate(install) if word == "--platform"]
    assert RESOURCES["AuditFunction"]["Properties"]["Runtime"] == f"python{version}"
    assert all(p.endswith(RESOURCES["AuditLayer"]["Metadata"]["BuildArchitecture"]) for p in platforms)
    assert "manylinux2014_x86_64" in platforms


def test_every_package_of_the_layer_is_locked_by_hash() -> None:
    lines = (ROOT / "layers/audit/requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [n for n, line in enumerate(lines) if "==" in line]
    assert pinned
    assert all("--hash=sha256:" in lines[n + 1] for n in pinned)
