"""Which part of the project may import which: the dependency rule of the tree, and no cycles."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each package, with the folder that holds it.
FOLDERS = {
    "dtr_audit": "layers/audit",
    "dtr_audit_cli": "cli",
    "dtr_audit_simulator": "simulator",
    "functions": ".",
    "tools": ".",
}
# What each part may import, apart from itself.
PRODUCT = frozenset({"core", "http", "registry", "trust", "aws", "evidence", "pipeline"})
ALLOWED: Mapping[str, frozenset[str]] = {
    "core": frozenset(),
    "http": frozenset({"core"}),
    "registry": frozenset({"core", "http"}),
    "trust": frozenset({"core", "http"}),
    "aws": frozenset({"core"}),
    "evidence": frozenset({"core"}),
    "pipeline": PRODUCT,
    "dtr_audit_simulator": PRODUCT,
    "dtr_audit_cli": PRODUCT | {"dtr_audit_simulator"},
    "functions": PRODUCT,
    "tools": PRODUCT | {"dtr_audit_cli", "dtr_audit_simulator"},
    # Every part may import these three modules; they import each other only.
    "dtr_audit": frozenset(),
    "errors": frozenset(),
    "settings": frozenset(),
}
EVERYWHERE = frozenset({"dtr_audit", "errors", "settings"})

Imports = dict[str, set[str]]  # by module: every module that it imports


def read_imports(root: Path, folders: Mapping[str, str] = FOLDERS) -> Imports:
    """Read what every module imports, at its top and inside of its functions."""
    files = dict(_list_modules(root, folders))
    return {module: set(_imports_of(module, file, files)) - {module} for module, file in files.items()}


def _list_modules(root: Path, folders: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    for package, folder in folders.items():
        for file in sorted((root / folder / package).rglob("*.py")):
            parts = file.relative_to(root / folder).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def _imports_of(module: str, file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield full if full in modules else source


def part_of(module: str) -> str:
    """Give the part of the project that a module belongs to, or '' for another's."""
    package, _, rest = module.partition(".")
    if package == "dtr_audit":
        return rest.partition(".")[0] or package
    return package if package in FOLDERS else ""


def find_forbidden(imports: Imports) -> list[str]:
    """List the imports that the rule forbids."""
    return sorted(
        f"{module} imports {imported}"
        for module, found in imports.items()
        for imported in found
        if not _is_allowed(part_of(module), imported)
    )


def _is_allowed(part: str, imported: str) -> bool:
    target = part_of(imported)
    if not target:
        return part != "core" or imported.partition(".")[0] in sys.stdlib_module_names
    return target == part or target in EVERYWHERE or target in ALLOWED[part]


def find_cycle(imports: Imports) -> list[str]:
    """Give the modules of one cycle, or nothing."""
    try:
        TopologicalSorter({module: found & imports.keys() for module, found in imports.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_of_the_project_follow_the_dependency_rule() -> None:
    assert find_forbidden(read_imports(ROOT)) == []


def test_imports_of_the_project_have_no_cycle() -> None:
    assert find_cycle(read_imports(ROOT)) == []


def test_parts_of_the_project_are_those_of_the_rule() -> None:
    assert {part_of(module) for module in read_imports(ROOT)} == set(ALLOWED)


# --- The test itself: a violation that is put in is found ---------------------------------------------------------------


def write_modules(root: Path, modules: Mapping[str, str]) -> Path:
    for path, text in modules.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


AUDIT = "layers/audit/dtr_audit"


@pytest.mark.parametrize(
    ("path", "text", "forbidden"),
    [
        (f"{AUDIT}/core/a.py", "import dtr_audit.http.b\n", "dtr_audit.core.a imports dtr_audit.http.b"),
        (f"{AUDIT}/core/a.py", "from ..http import b\n", "dtr_audit.core.a imports dtr_audit.http.b"),
        (f"{AUDIT}/core/a.py", "import boto3\n", "dtr_audit.core.a imports boto3"),
        (
            f"{AUDIT}/aws/a.py",
            "def f():\n    from dtr_audit.http.b import B\n",
            "dtr_audit.aws.a imports dtr_audit.http.b",
        ),
        (
            f"{AUDIT}/evidence/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dtr_audit.registry import c\n",
            "dtr_audit.evidence.a imports dtr_audit.registry.c",
        ),
        (f"{AUDIT}/pipeline/a.py", "import dtr_audit_cli\n", "dtr_audit.pipeline.a imports dtr_audit_cli"),
        (f"{AUDIT}/errors.py", "from dtr_audit.http import b\n", "dtr_audit.errors imports dtr_audit.http.b"),
        (
            "simulator/dtr_audit_simulator/a.py",
            "from dtr_audit_cli.d import D\n",
            "dtr_audit_simulator.a imports dtr_audit_cli.d",
        ),
        ("cli/dtr_audit_cli/a.py", "from tools import e\n", "dtr_audit_cli.a imports tools.e"),
        ("functions/a/app.py", "import dtr_audit_simulator\n", "functions.a.app imports dtr_audit_simulator"),
    ],
)
def test_find_forbidden_with_a_wrong_import_names_it(tmp_path: Path, path: str, text: str, forbidden: str) -> None:
    others = (f"{AUDIT}/http/b.py", f"{AUDIT}/registry/c.py", "cli/dtr_audit_cli/d.py", "tools/e.py")
    modules = write_modules(tmp_path, {**dict.fromkeys(others, ""), path: text})
    assert find_forbidden(read_imports(modules)) == [forbidden]


@pytest.mark.parametrize(
    "texts",
    [
        ("from dtr_audit.core import b\n", "from dtr_audit.core.a import A\n"),
        ("def f():\n    from dtr_audit.core import b\n", "import dtr_audit.core.a\n"),
    ],
    ids=["at the top", "inside of a function"],
)
def test_find_cycle_with_two_modules_that_import_each_other_names_them(tmp_path: Path, texts: Iterable[str]) -> None:
    files = dict(zip((f"{AUDIT}/core/a.py", f"{AUDIT}/core/b.py"), texts, strict=True))
    assert set(find_cycle(read_imports(write_modules(tmp_path, files)))) == {"dtr_audit.core.a", "dtr_audit.core.b"}
