"""Findings in the documents of the store, read back and checked."""

import hashlib
from typing import IO, Any

from dtr_audit.core.finding import ChangeKind, Finding, State
from dtr_audit.core.finding_codec import parse_finding
from dtr_audit.core.schema import (
    SchemaError,
    take_flag,
    take_list,
    take_object,
    take_text,
    take_time,
)

CHUNK_BYTES = 1024 * 1024
_FINDING_TEXTS = (
    *("registry", "namespace", "repository", "tag", "state", "verdict", "reason", "digest", "author", "pushed_at"),
    *("first_seen", "last_changed", "changed_in", "transition", "resolution", "media_type"),
)
_FINDING_KEYS = frozenset({*_FINDING_TEXTS, "author_name", "excepted", "told_end", "unheard", "unannounced"})
_MOVE_TEXTS = ("news", "run_id", "first_seen", "resolution")
_MOVE_KEYS = frozenset({*_MOVE_TEXTS, "excepted", "quiet"})
_EXCEPTED_KEYS = ("exception_id", "owner", "reason", "reference", "ends")
_MOVES = 8  # of one finding: there are three at most


def hold(holds: bool, otherwise: str) -> None:
    """Raise SchemaError unless a condition holds."""
    if not holds:
        raise SchemaError(otherwise)


def take_finding(document: object, registry: str) -> Finding:
    """Read a finding that a step has left; raises ValueError, of which SchemaError is one, or KeyError."""
    if not isinstance(document, dict) or not document.keys() <= _FINDING_KEYS:
        raise SchemaError("$.finding: it is none")
    for name in _FINDING_TEXTS:
        take_text(document[name], f"$.finding.{name}")
    take_time(document["first_seen"], "$.finding.first_seen")
    take_time(document["last_changed"], "$.finding.last_changed")
    take_text(document.get("author_name", ""), "$.finding.author_name")
    take_text(document.get("told_end", ""), "$.finding.told_end")
    take_flag(document.get("unheard", False), "$.finding.unheard")
    _check_excepted(document, "$.finding")
    take_list(document.get("unannounced", []), "$.finding.unannounced", _check_move, most=_MOVES)
    finding = parse_finding(document)
    hold(finding.registry == registry, "$.finding.registry: it is another")
    is_closed = finding.state is State.RESOLVED
    hold(is_closed == (finding.transition is ChangeKind.RESOLVED), "$.finding: state and transition do not agree")
    return finding


def _check_move(document: object, where: str) -> None:
    if not isinstance(document, dict) or not document.keys() <= _MOVE_KEYS:
        raise SchemaError(f"{where}: it is none")
    for name in _MOVE_TEXTS:
        take_text(document[name], f"{where}.{name}")
    take_time(document["first_seen"], f"{where}.first_seen")
    take_flag(document.get("quiet", False), f"{where}.quiet")
    _check_excepted(document, where)


def _check_excepted(document: dict[str, Any], where: str) -> None:
    if "excepted" in document:
        kept = take_object(document["excepted"], f"{where}.excepted", _EXCEPTED_KEYS)
        for name, value in kept.items():
            take_text(value, f"{where}.excepted.{name}")


def sum_of(content: IO[bytes]) -> str:
    """Give the SHA-256 of a file, which is then at its beginning."""
    content.seek(0)
    digest = hashlib.sha256()
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
    content.seek(0)
    return digest.hexdigest()
