"""What `sam build` ships, as far as it can be seen without downloading anything."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.aws.runtime import find_python
from tests.harness.requirement import require

ROOT = Path(__file__).parents[2]
TEMPLATE = templates.load(ROOT / "template.yaml")
RESOURCES = TEMPLATE["Resources"]
RUNTIME = TEMPLATE["Globals"]["Function"]["Runtime"]
FUNCTIONS = [name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Serverless::Function"]

AUDITOR = ROOT / "layers/audit/dtr_audit"
NO_LAMBDA_PYTHON = {"LAMBDA_PYTHON": "/nowhere/python3.13"}

PIP = """#!/bin/sh
# Stands in for a Python with pip: notes how it was called, and installs what a real one would leave behind.
echo "$@" >> "$CALLS"
[ "$3" = install ] || exit 0
mkdir -p "$ARTIFACTS/python/bin" "$ARTIFACTS/python/requests/__pycache__" "$ARTIFACTS/python/requests-2.dist-info/licenses"
cd "$ARTIFACTS/python"
touch bin/normalizer requests/__init__.py requests/__pycache__/__init__.pyc
touch requests-2.dist-info/RECORD requests-2.dist-info/licenses/LICENSE
mkdir -p cffi/__pycache__ cffi-2.dist-info/licenses pycparser pycparser-3.dist-info/licenses
touch _cffi_backend.so cffi/__init__.py pycparser/__init__.py
touch cffi-2.dist-info/licenses/LICENSE pycparser-3.dist-info/licenses/LICENSE
for service in $MODELS; do
  mkdir -p botocore/data/$service/2026 boto3/data/$service
  echo '{}' | gzip > botocore/data/$service/2026/service-2.json.gz
  touch boto3/data/$service/resources.json
done
touch botocore/data/endpoints.json
"""


def make(makefile: Path, target: str, folder: Path, artifacts: Path, **environment: str) -> str:
    """Build as `sam build` does, in a copy of the folder; give what it shows of the output."""
    artifacts.mkdir()
    program = shutil.which("make")
    assert program
    command = [
        program,
        "--silent",
        "--directory",
        str(folder),
        "--makefile",
        str(makefile),
        target,
        f"ARTIFACTS_DIR={artifacts}",
    ]
    built = subprocess.run(  # noqa: S603 (our own Makefiles)
        command, check=True, env={"PATH": os.environ["PATH"], **environment}, stdout=subprocess.PIPE, text=True
    )
    return built.stdout


def shipped(artifacts: Path) -> set[str]:
    return {str(file.relative_to(artifacts)) for file in artifacts.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", [*FUNCTIONS, "AuditLayer"])
def test_what_is_shipped_is_built_by_the_makefile_beside_it(name: str) -> None:
    properties = RESOURCES[name]["Properties"]
    assert RESOURCES[name]["Metadata"]["BuildMethod"] == "makefile"
    folder = ROOT / (properties.get("CodeUri") or properties["ContentUri"])
    assert f"\nbuild-{name}:" in (folder / "Makefile").read_text(encoding="utf-8")


@pytest.fixture
def function(tmp_path: Path) -> Path:
    """A small copy of the function's folder."""
    source = tmp_path / "source"
    (source / "__pycache__").mkdir(parents=True)
    (source / "app.py").write_text("def handler(event, context): ...\n", encoding="utf-8")
    (source / "__pycache__/app.cpython-311.pyc").touch()
    return source


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_ships_its_handler_and_nothing_else(name: str, function: Path, tmp_path: Path) -> None:
    makefile = ROOT / RESOURCES[name]["Properties"]["CodeUri"] / "Makefile"
    make(makefile, f"build-{name}", function, tmp_path / "artifacts", **NO_LAMBDA_PYTHON)
    assert shipped(tmp_path / "artifacts") == {"app.py"}


def test_the_function_is_built_where_the_layers_folder_is_not(function: Path, tmp_path: Path) -> None:
    makefile = Path(shutil.copy(ROOT / "functions/audit/Makefile", tmp_path))  # as in a container of SAM's
    make(makefile, "build-AuditFunction", function, tmp_path / "artifacts")
    assert shipped(tmp_path / "artifacts") == {"app.py"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer built from a small copy."""

    artifacts: Path
    output: str
    calls: list[str]  # of pip


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Layer]:
    source = tmp_path / "source"
    (source / "dtr_audit/__pycache__").mkdir(parents=True)
    (source / "dtr_audit/model.py").write_text("LIMIT = 1\n", encoding="utf-8")
    (source / "dtr_audit/py.typed").touch()
    (source / "dtr_audit/__pycache__/model.cpython-311.pyc").touch()
    python = tmp_path / "python"
    python.write_text(PIP, encoding="utf-8")
    python.chmod(0o755)
    calls = tmp_path / "calls"

    def build(**environment: str) -> Layer:
        artifacts = tmp_path / "artifacts"
        output = make(
            ROOT / "layers/audit/Makefile",
            "build-AuditLayer",
            source,
            artifacts,
            **{"PYTHON": str(python), "CALLS": str(calls), "ARTIFACTS": str(artifacts)},
            **{"MODELS": " ".join(["ec2", *services()]), **NO_LAMBDA_PYTHON, **environment},
        )
        return Layer(artifacts, output, calls.read_text(encoding="utf-8").splitlines())

    return build


def services() -> list[str]:
    """Read the list of the services whose models are shipped, from the one place where it stands."""
    makefile = (ROOT / "layers/audit/Makefile").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^SERVICES := (.*)$", makefile, re.MULTILINE)
    return str(listed).split()


def test_the_layer_ships_packages_licences_and_the_models_it_uses(build: Callable[..., Layer]) -> None:
    files = shipped(build().artifacts)
    assert files == {
        "python/dtr_audit/model.py",
        "python/dtr_audit/py.typed",
        "python/requests/__init__.py",
        "python/requests-2.dist-info/licenses/LICENSE",
        "python/_cffi_backend.so",
        "python/cffi-2.dist-info/licenses/LICENSE",
        "python/pycparser-3.dist-info/licenses/LICENSE",
        "python/botocore/data/endpoints.json",
        *(f"python/botocore/data/{service}/2026/service-2.json" for service in services()),
        *(f"python/boto3/data/{service}/resources.json" for service in services()),
    }


def test_a_service_that_botocore_does_not_know_breaks_the_build(build: Callable[..., Layer]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        build(MODELS=" ".join(services()[1:]))


def clients_of(source: str) -> list[str]:
    """Name the AWS services that a module makes clients of; one that it computes stands as `?`."""
    return [
        str(call.args[0].value) if call.args and isinstance(call.args[0], ast.Constant) else "?"
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in {"client", "resource", "create_client"}
    ]


def test_the_models_shipped_are_those_of_the_clients_that_are_made() -> None:
    made = {service for file in AUDITOR.rglob("*.py") for service in clients_of(file.read_text(encoding="utf-8"))}
    made |= {
        service for file in ROOT.glob("functions/*/*.py") for service in clients_of(file.read_text(encoding="utf-8"))
    }
    assert made == set(services()), "SERVICES in layers/audit/Makefile names the services of dtr_audit's clients"


def test_without_lambdas_python_one_line_says_what_is_lost_and_what_to_do(build: Callable[..., Layer]) -> None:
    (warning,) = build().output.splitlines()
    assert warning.startswith("warning: /opt/python is built without byte code")
    assert "cold start" in warning
    assert "LAMBDA_PYTHON=/nowhere/python3.13 is no CPython 3.13" in warning


def test_with_lambdas_python_every_module_is_compiled_as_it_lies_in_lambda(build: Callable[..., Layer]) -> None:
    python = find_python()
    require([] if python else ["Python 3.13"], "install it, or set LAMBDA_PYTHON")
    layer = build(LAMBDA_PYTHON=str(python))
    assert layer.output == ""
    assert {file for file in shipped(layer.artifacts) if file.endswith(".pyc")} == {
        "python/dtr_audit/__pycache__/model.cpython-313.pyc",
        "python/requests/__pycache__/__init__.cpython-313.pyc",
    }
    compiled = (layer.artifacts / "python/dtr_audit/__pycache__/model.cpython-313.pyc").read_bytes()
    assert int.from_bytes(compiled[4:8], "little") == 0b01, "by the source's hash, and unchecked (PEP 552)"
    assert b"/opt/python/dtr_audit/model.py" in compiled
    assert str(layer.artifacts).encode() not in compiled


def test_the_layer_takes_only_locked_wheels_for_lambdas_python_and_processor(build: Callable[..., Layer]) -> None:
    (install,) = (call.split() for call in build().calls if " install " in call)
    assert "--require-hashes" in install
    assert "--no-deps" in install
    assert "--only-binary=:all:" in install
    version = install[install.index("--python-version") + 1]
    platforms = [install[n + 1] for n, word in enumerate(install) if word == "--platform"]
    assert f"python{version}" == RUNTIME
    assert all(p.endswith(RESOURCES["AuditLayer"]["Metadata"]["BuildArchitecture"]) for p in platforms)
    assert "manylinux2014_x86_64" in platforms


def test_every_package_of_the_layer_is_locked_by_hash() -> None:
    lines = (ROOT / "layers/audit/requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [n for n, line in enumerate(lines) if "==" in line]
    assert pinned
    assert all("--hash=sha256:" in lines[n + 1] for n in pinned)


class Machine:
    """A machine whose only programs are stand-ins for Pythons; each that fits prints its path, as `find-python` asks."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "bin"
        self.path.mkdir(parents=True)

    def install(self, place: str, *, fits: bool = True) -> str:
        python = self.home / place
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f"#!/bin/sh\n{'echo $0' if fits else 'exit 127'}\n", encoding="utf-8")
        python.chmod(0o755)
        return str(python)

    def find(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 (our own script)
            [ROOT / "layers/audit/find-python"],
            env={"PATH": str(self.path), "HOME": str(self.home), **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


def test_a_shim_that_does_not_run_is_passed_over_for_pyenvs_python(machine: Machine) -> None:
    machine.install("bin/python3.13", fits=False)
    python = machine.install(".pyenv/versions/3.13.0/bin/python3.13")
    machine.install(".pyenv/versions/3.12.1/bin/python3.12")
    assert machine.find().stdout.strip() == python


def test_uvs_python_is_found(machine: Machine) -> None:
    python = machine.install(".local/share/uv/python/cpython-3.13.9-linux-x86_64-gnu/bin/python3.13")
    assert machine.find().stdout.strip() == python


def test_the_path_goes_before_version_managers(machine: Machine) -> None:
    machine.install(".pyenv/versions/3.13.0/bin/python3.13")
    python = machine.install("bin/python3.13")
    assert machine.find().stdout.strip() == python


def test_lambda_python_is_the_one_or_there_is_none(machine: Machine) -> None:
    machine.install("bin/python3.13")
    mine = machine.install("mine")
    assert machine.find(LAMBDA_PYTHON=mine).stdout.strip() == mine
    refused = machine.find(LAMBDA_PYTHON=machine.install("old", fits=False))
    assert refused.returncode == 1
    assert "LAMBDA_PYTHON=" in refused.stderr
    assert refused.stdout == ""


def test_a_machine_without_it_is_reported_how_to_get_it(machine: Machine) -> None:
    machine.install("bin/python3", fits=False)
    found = machine.find()
    assert found.returncode == 1
    assert "install one" in found.stderr
    assert found.stdout == ""


def test_another_version_than_the_functions_does_not_fit(machine: Machine) -> None:
    found = machine.find(LAMBDA_PYTHON=sys.executable)
    assert (found.returncode == 0) == (f"python{sys.version_info[0]}.{sys.version_info[1]}" == RUNTIME)
