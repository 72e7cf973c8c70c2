"""What is built is compiled, and is the same whoever builds it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.runtime import Artifact

PRECOMPILE = PROJECT / "layers" / "audit" / "precompile"


def compiled(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.pyc")}


@pytest.fixture(params=["function", "layer"])
def part(request: pytest.FixtureRequest, artifact: Artifact) -> tuple[Path, str]:
    """A folder of the artifact, and where its content lies in Lambda."""
    return {"function": (artifact.function, "/var/task"), "layer": (artifact.packages, "/opt/python")}[request.param]


def test_every_module_has_its_byte_code(part: tuple[Path, str]) -> None:
    folder, _ = part
    modules = {str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.py")}
    assert modules
    assert modules == {name.removesuffix(".cpython-313.pyc").replace("__pycache__/", "") for name in compiled(folder)}


def test_compiling_it_again_elsewhere_gives_the_same_bytes(part: tuple[Path, str], tmp_path: Path) -> None:
    folder, place = part
    again = tmp_path / "again"
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
    subprocess.run([PRECOMPILE, again, place], check=True)  # noqa: S603 (our own script)
    assert compiled(again) == compiled(folder)


def test_nothing_in_it_names_the_machine_that_built_it(part: tuple[Path, str]) -> None:
    folder, _ = part
    here = str(PROJECT).encode()
    assert [file for file in folder.rglob("*") if file.is_file() and here in file.read_bytes()] == []
