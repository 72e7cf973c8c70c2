"""What is shipped of others: this tree's list of it, the lock file, the bill of materials and the built layer agree."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from dtr_audit import __version__
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.runtime import BUILD
from tests.harness.requirement import require

LAYER = BUILD / "AuditLayer" / "python"
SBOM = PROJECT / "build" / "sbom.cdx.json"

# By what a licence's text is known.
TEXTS = {
    "Apache-2.0": "www.apache.org/licenses/",
    "BSD-3-Clause": "Redistribution and use in source and binary forms",
    "MIT": "The above copyright notice and this permission notice shall be included in all",
    "MIT-0": "MIT No Attribution",
    "MPL-2.0": "Mozilla Public License",
    "PSF-2.0": "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2",
}


def normalise(name: str) -> str:
    """Write a package's name as the index does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    """Read the version of each package that is let into the layer."""
    lines = (PROJECT / "layers/audit/requirements.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; .+)? \\$", lines, re.MULTILINE))


def wanted(path: str = "layers/audit/requirements.in") -> set[str]:
    """Read which packages a list asks for by itself: by default what the auditor does."""
    lines = (PROJECT / path).read_text(encoding="utf-8").splitlines()
    return {line.partition("  #")[0] for line in lines if line and not line.startswith(("#", "-r"))}


def listed() -> dict[str, tuple[str, str]]:
    """Read the version and licence of each package from the page for people."""
    page = (PROJECT / "THIRD_PARTY_LICENSES.md").read_text(encoding="utf-8")
    return {
        name: (version, licence)
        for name, version, licence in re.findall(r"^\| (\S+) \| (\d\S*) \| (.+) \|$", page, re.MULTILINE)
    }


def licence_text(distribution: metadata.Distribution) -> str:
    """Read every licence file of a package, wherever its wheel has put them."""
    names = distribution.metadata.get_all("License-File") or []
    read = (distribution.read_text(f"{folder}{name}") for name in names for folder in ("", "licenses/"))
    return "\n".join(text for text in read if text)


def built() -> Iterator[metadata.Distribution]:
    """Give the packages in the built layer."""
    return iter(metadata.distributions(path=[str(LAYER)]))


@pytest.fixture
def layer() -> None:
    require([] if LAYER.is_dir() else ["a build"], "make build")


def test_every_package_that_is_shipped_is_listed_with_its_version() -> None:
    versions = {name: version for name, (version, _) in listed().items()}
    assert versions == locked(), "THIRD_PARTY_LICENSES.md follows layers/audit/requirements.txt"


@pytest.mark.parametrize("name", sorted(listed()))
def test_a_package_is_under_the_licence_that_it_is_listed_with(name: str) -> None:
    # The tests' environment is locked with the layer's: the same packages, of the same versions.
    distribution = metadata.distribution(name)
    version, licence = listed()[name]
    assert distribution.version == version
    text = licence_text(distribution)
    # Who may choose between two has the texts of both.
    assert all(TEXTS[part] in text for part in re.split(" AND | OR ", licence)), f"{name} is not under {licence}"


@pytest.mark.usefixtures("layer")
def test_the_layer_holds_the_locked_packages_and_their_licences() -> None:
    distributions = list(built())
    assert {normalise(each.name): each.version for each in distributions} == locked(), "`make build` again"
    assert [each.name for each in distributions if not licence_text(each)] == []


def test_package_asks_for_what_the_locked_lists_do() -> None:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    project, builder = pyproject["project"], pyproject["build-system"]["requires"]
    locked_builder = re.search(
        r"^hatchling==\S+", (PROJECT / "requirements/local.txt").read_text("utf-8"), re.MULTILINE
    )
    assert locked_builder
    assert builder == [locked_builder[0]]
    assert set(project["dependencies"]) == wanted() | wanted("requirements/local.in") - {"hatchling"}
    assert set(project["optional-dependencies"]["query"]) == wanted("requirements/query.in")


@pytest.fixture
def sbom() -> dict[str, Any]:
    require([] if SBOM.is_file() else ["build/sbom.cdx.json"], "make sbom")
    return dict(json.loads(SBOM.read_text(encoding="utf-8")))


def test_the_bill_of_materials_lists_exactly_the_locked_packages(sbom: dict[str, Any]) -> None:
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    components = {normalise(component["name"]): component for component in sbom["components"]}
    assert len(components) == len(sbom["components"])
    assert {name: component["version"] for name, component in components.items()} == locked(), "`make build sbom` again"
    for name, component in components.items():
        assert component["purl"] == f"pkg:pypi/{name}@{component['version']}"
        assert component["licenses"], f"{name} has no licence"


def test_the_bill_of_materials_says_what_needs_what(sbom: dict[str, Any]) -> None:
    assert sbom["metadata"]["component"]["name"] == "dtr-signature-audit"
    assert sbom["metadata"]["component"]["version"] == __version__
    needs = {each["ref"]: set(each.get("dependsOn", [])) for each in sbom["dependencies"]}
    root = sbom["metadata"]["component"]["bom-ref"]
    assert {normalise(ref.partition("==")[0]) for ref in needs[root]} == wanted()
    reached: set[str] = set()
    waiting = {root}
    while waiting:
        reached |= waiting
        waiting = {ref for known in waiting for ref in needs[known]} - reached
    assert {component["bom-ref"] for component in sbom["components"]} == reached - {root}


def test_the_bill_of_materials_names_nothing_of_the_machine_that_wrote_it(sbom: dict[str, Any]) -> None:
    assert str(PROJECT) not in json.dumps(sbom)
    assert str(Path.home()) not in json.dumps(sbom)
