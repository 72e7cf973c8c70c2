"""What `sam build` left in .aws-sam/build, run as Lambda runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.aws.runtime import BUILD, Artifact, LambdaProcess, find_artifact, missing_parts
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from tests.harness.audit_harness import Audited
from tests.harness.requirement import require

FUNCTION = "AuditFunction"
LAYER = "AuditLayer"
STEPS = {f"functions/{verb}": f"{verb.capitalize()}Function" for verb in ("inventory", "examine", "prove", "report")}
_SHIPPED = {"functions/audit": FUNCTION, **STEPS, "layers/audit/dtr_audit": f"{LAYER}/python/dtr_audit"}

Start = Callable[[Audited], LambdaProcess]


@pytest.fixture(scope="session")
def artifact() -> Artifact:
    """What is deployed: it is there, it is of the present source, and this machine can run it."""
    missing = missing_parts()
    if not (BUILD / "template.yaml").is_file():
        missing.append("a build (`make build`)")
    elif changed := _changed_since_the_build():
        missing.append(f"a build of the present source (`make build`); changed since: {', '.join(changed)}")
    require(missing, "make build test, on Linux on x86_64 with Python 3.13")
    return find_artifact(FUNCTION, LAYER)


@pytest.fixture
def handler(artifact: Artifact) -> str:
    """The handler's name, as the built template gives it to Lambda."""
    return str(templates.load(BUILD / "template.yaml")["Resources"][FUNCTION]["Properties"]["Handler"])


@pytest.fixture
def start(artifact: Artifact, handler: str, aws: EmbeddedAws, stack: Stack) -> Start:
    """Start the built function for one registry, with the template's environment."""

    def start(audited: Audited) -> LambdaProcess:
        sdk = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        sdk["AWS_ENDPOINT_URL"] = aws.moto.endpoint
        environment = {**sdk, **stack.function_environment(FUNCTION), **audited.environment}
        return LambdaProcess(artifact, handler, environment, memory=stack.function_memory(FUNCTION))

    return start


@pytest.fixture
def deployed(audited: Audited) -> Iterator[Audited]:
    """The registry of `audited` once more, under another name: for the built function."""
    deployed = Audited(audited.stack, audited.server)
    yield deployed
    deployed.close()


def _changed_since_the_build() -> list[str]:
    """Name the files of ours that differ in the build, or are on one side only."""
    changed: list[str] = []
    for source, built in _SHIPPED.items():
        here, there = _contents(PROJECT / source), _contents(BUILD / built)
        changed += [f"{source}/{name}" for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
    return sorted(changed)


def _contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "Makefile" and file.suffix != ".pyc")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
