"""How long the built function takes to start, beside a plain build of the same code and beside its packages alone.

Every start is a new process under Lambda's runtime interface (`dtr_audit_simulator.aws.runtime`). `init` is the time from the
start of the process until it asks for its first event: what Lambda calls the init phase. `answer` is the time until it has answered
one event as well, an audit of a small registry: what is put off until then is not saved.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.runtime import (
    INTERFACE,
    Artifact,
    LambdaProcess,
    find_artifact,
    find_python,
    missing_parts,
)
from dtr_audit_simulator.aws.stack import EmbeddedAws
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tools.bench import results
from tools.bench.prerequisites import MissingTool

TITLE = "Cold start"
PLAIN_GOAL = 0.5  # of the init of a plain build
FLOOR_GOAL = 1.15  # times the init of the packages alone
_WORK = results.FOLDER / "cold-start"
_PRECOMPILE = PROJECT / "layers" / "audit" / "precompile"
# The SDK and what it needs: what Lambda's own Python brings too.
_SDK = ("boto3", "botocore", "dateutil", "jmespath", "python_dateutil", "s3transfer", "six", "urllib3")


PUSHED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to build the function."""

    name: str
    description: str
    artifact: Artifact
    interface: Path = INTERFACE
    audits: bool = True  # False: its handler does nothing


@dataclass(frozen=True, slots=True)
class Timings:
    """What was measured of one variant, in seconds."""

    init: list[float] = field(default_factory=list)
    answer: list[float] = field(default_factory=list)


def measure(repetitions: int) -> dict[str, Any]:
    """Start every variant so many times, in turns."""
    ours = find_artifact("AuditFunction", "AuditLayer")
    shutil.rmtree(_WORK, ignore_errors=True)
    variants = list(_build_variants(ours))
    timings = _measure(variants, repetitions)
    sizes = {variant.name: _sizes(variant.artifact.layer) for variant in variants if variant.audits}
    init = {name: results.median(timing.init) for name, timing in timings.items()}
    goals = {
        "init, of a plain build's": results.goal(init["ours"] / init["plain"], at_most=PLAIN_GOAL),
        "init, beside importing the same packages alone": results.goal(
            init["ours"] / init["floor"], at_most=FLOOR_GOAL
        ),
    }
    return {
        "repetitions": repetitions,
        "variants": {variant.name: variant.description for variant in variants},
        "init_ms": init,
        "init_and_answer_ms": {
            variant.name: results.median(timings[variant.name].answer) for variant in variants if variant.audits
        },
        "layer_bytes": sizes,
        "goals": goals,
        "every_init_ms": {name: [round(value * 1000, 1) for value in timing.init] for name, timing in timings.items()},
    }


def find_missing_tool() -> MissingTool:
    """Look for Lambda's Python and its interface, and for a build that was made where they were."""
    missing = missing_parts()
    ours = find_artifact("AuditFunction", "AuditLayer")
    if not ours.packages.is_dir():
        missing.append("a build (run `make build`)")
    elif not (ours.function / "__pycache__").is_dir():
        missing.append("the build's byte code (run `make build` again, once there is a Python 3.13)")
    return MissingTool(tuple(missing), "how long a start takes", is_whole=True)


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the variants, and the goals."""
    init, answers, sizes = numbers["init_ms"], numbers["init_and_answer_ms"], numbers["layer_bytes"]
    return [
        results.Table.of(
            ("build", "init", "beside ours", "init and one audit", "layer, zipped", "layer, unpacked"),
            [
                (
                    f"{name}: {description}",
                    f"{init[name]:.0f} ms",
                    f"{init[name] / init['ours']:.2f}",
                    f"{answers[name]:.0f} ms" if name in answers else "",
                    *(f"{sizes[name][kind] / 1e6:.1f} MB" if name in sizes else "" for kind in ("zipped", "unpacked")),
                )
                for name, description in numbers["variants"].items()
            ],
        ),
        results.tabulate_goals(numbers["goals"]),
    ]


def _build_variants(ours: Artifact) -> Iterator[Variant]:
    yield Variant("ours", "as built", ours)

    plain = Artifact(_WORK / "plain" / "function", _WORK / "plain" / "layer")
    plain.function.mkdir(parents=True)
    shutil.copy(PROJECT / "functions" / "audit" / "app.py", plain.function)
    subprocess.run(
        ["make", "--silent", "--directory", PROJECT / "layers" / "audit", "packages", f"ARTIFACTS_DIR={plain.layer}"],
        env={**os.environ, "PYTHON": sys.executable, "MAKEFLAGS": "", "MAKELEVEL": ""},
        check=True,
    )
    yield Variant("plain", "the same code and wheels, as `sam build` leaves them", plain)

    floor = Artifact(_WORK / "floor" / "function", ours.layer)
    shutil.copytree(PROJECT / "tools" / "bench" / "floor", floor.function, ignore=shutil.ignore_patterns("__pycache__"))
    _precompile(floor.function)
    yield Variant("floor", "imports our boto3, requests and Powertools, nothing else", floor, audits=False)

    lean = Artifact(ours.function, _WORK / "lean" / "layer")
    shutil.copytree(ours.packages, lean.packages)
    for name in _SDK:
        for path in lean.packages.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, compiled in (("lean", True), ("lean-source", False)):
        interface = _WORK / name / "runtime"
        shutil.copytree(INTERFACE, interface)
        for path in (path for part in _SDK for path in plain.packages.glob(f"{part}*")):
            shutil.copytree(path, interface / path.name) if path.is_dir() else shutil.copy(path, interface)
        if compiled:
            _precompile(interface)
        state = "compiled" if compiled else "not compiled"
        yield Variant(name, f"ours without the SDK, beside a whole one in the runtime that is {state}", lean, interface)


def _precompile(folder: Path) -> None:
    subprocess.run([_PRECOMPILE, folder, "/var/task"], check=True)


def _measure(variants: list[Variant], repetitions: int) -> Mapping[str, Timings]:
    timings = {variant.name: Timings() for variant in variants}
    python = find_python()
    with _related_settings() as environment:
        for repetition in range(repetitions + 1):
            shift = repetition % len(variants)  # so that none is always the one after another
            for variant in variants[shift:] + variants[:shift]:
                own = {**environment, "REGISTRY_NAME": f"{variant.name}-{repetition}"}
                with LambdaProcess(
                    variant.artifact, "app.handler", own, python=python, interface=variant.interface
                ) as function:
                    answered = function.invoke({})
                    if variant.audits and not answered["complete"]:
                        sys.exit(f"The audit of {variant.name} was not complete: {answered['incomplete_because']}")
                    if repetition:  # the first fills the file system's cache
                        timings[variant.name].init.append(function.init_seconds)
                        timings[variant.name].answer.append(function.init_seconds + function.busy_seconds)
            print(f"\rcold starts: {repetition} of {repetitions}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return timings


@contextmanager
def _related_settings() -> Iterator[dict[str, str]]:
    """Give the function's environment in an embedded AWS, beside a small registry."""
    registry = InMemoryRegistry()
    for number in range(10):
        # Long ago: what was pushed recently and is not signed is waited for.
        registry.push("platform", f"image-{number}", "1.0", at=PUSHED)
        if number % 2:
            registry.sign("platform", f"image-{number}", "1.0")
    with EmbeddedAws() as aws, DtrServer(registry) as dtr:
        stack = aws.deploy(PROJECT / "template.yaml", {"DtrUrl": dtr.url, "RegistryName": "unnamed"})
        stack.put_secret({"username": dtr.admin.name, "password": dtr.admin.password, "ca_bundle": dtr.ca_bundle})
        sdk = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        sdk["AWS_ENDPOINT_URL"] = aws.moto.endpoint
        yield {**sdk, **stack.function_environment("AuditFunction")}


def _sizes(layer: Path) -> dict[str, int]:
    """Give the layer's bytes, unpacked and as a zip file."""
    files = [file for file in layer.rglob("*") if file.is_file()]
    archive = _WORK / "layer.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            packed.write(file, file.relative_to(layer))
    return {"unpacked": sum(file.stat().st_size for file in files), "zipped": archive.stat().st_size}
