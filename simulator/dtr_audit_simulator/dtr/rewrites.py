"""Entries of lists that a fault rewrites or repeats."""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from dtr_audit_simulator.dtr.fault_kinds import (
    Repeated,
    Rewrite,
)
from dtr_audit_simulator.dtr.faults import MISSING, Struck


def rewritten(element: str, struck: Struck, path: str, tag: str | None) -> str:
    """Give an entry of a list with the changes that faults make to it."""
    for rewrite in struck.faults.rewrites:
        if _is_meant(rewrite, path, tag):
            row: dict[str, Any] = json.loads(element)
            row.update(rewrite.changes)
            element = json.dumps({name: value for name, value in row.items() if value is not MISSING})
    return element


def repeated(
    elements: Iterable[tuple[str, str]], behind: Iterable[tuple[str, str]], struck: Struck, path: str
) -> Iterator[str]:
    """Write a page of tags, each with its name, some of them twice; `behind` are those that the last page may repeat."""
    for name, element in elements:
        yield functools.reduce(
            _doubled, (r for r in struck.repeated if r.in_one_object and _repeats(r, path, name)), element
        )
        for repeated in struck.repeated:
            if not (repeated.in_one_object or repeated.at_the_end) and _repeats(repeated, path, name):
                yield json.dumps({**json.loads(element), **repeated.changes})
    for name, element in behind:
        for repeated in struck.repeated:
            if repeated.at_the_end and _repeats(repeated, path, name):
                yield json.dumps({**json.loads(element), **repeated.changes})


def _repeats(repeated: Repeated, path: str, tag: str) -> bool:
    return fnmatch.fnmatchcase(path, repeated.path) and fnmatch.fnmatchcase(tag, repeated.tag)


def _doubled(element: str, repeated: Repeated) -> str:
    return f"{element[:-1]},{json.dumps(dict(repeated.changes))[1:]}"


def _is_meant(rewrite: Rewrite, path: str, tag: str | None) -> bool:
    if tag is None or rewrite.tag is None:
        return tag is rewrite.tag and fnmatch.fnmatchcase(path, rewrite.path)
    return fnmatch.fnmatchcase(tag, rewrite.tag) and fnmatch.fnmatchcase(path, rewrite.path)
