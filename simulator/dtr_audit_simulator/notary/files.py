"""The parts of trust data, and how its files are written."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dtr_audit_simulator.notary.canonical import write_canonical, write_json
from dtr_audit_simulator.notary.keys import Key

TARGETS = "targets"


@dataclass(frozen=True, slots=True)
class Role:
    """Who may sign a file: `threshold` of the keys; for a delegation, tags that begin with one of `paths`."""

    keys: tuple[Key, ...]
    threshold: int = 1
    paths: tuple[str, ...] = ("",)

    def described(self) -> dict[str, Any]:
        """Give the role as metadata holds it."""
        return {"keyids": [key.id for key in self.keys], "threshold": self.threshold}


@dataclass(frozen=True, slots=True)
class Target:
    """What is signed under a tag: the digest (hex) and the size of its manifest."""

    sha256: str
    length: int

    def described(self) -> dict[str, Any]:
        """Give the target as metadata holds it."""
        return {"hashes": {"sha256": _base64(bytes.fromhex(self.sha256))}, "length": self.length}


def seal(content: Mapping[str, Any], keys: Iterable[Key]) -> bytes:
    """Sign content, and give the file."""
    message = write_canonical(content)
    return write_file(content, [key.signature(message) for key in keys])


def write_file(content: Mapping[str, Any], signatures: Sequence[Mapping[str, str]]) -> bytes:
    """Write content and its signatures as a file."""
    return f'{{"signed":{write_json(content)},"signatures":{write_json(signatures)}}}'.encode()


def write_time(at: datetime) -> str:
    """Write a time as Notary does: no zero at the end of a fraction."""
    text = at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return f"{text.rstrip('0').rstrip('.')}Z"


def delegating_role(role: str) -> str:
    """Name the role that delegates to another."""
    parent, _, name = role.rpartition("/")
    if not name or (parent != TARGETS and not parent.startswith(f"{TARGETS}/")):
        raise ValueError(f"a delegation is called targets/<name> or targets/<name>/<nested>, not {role!r}")
    return parent


def describe_file(body: bytes) -> dict[str, Any]:
    """Give what a snapshot or a timestamp says of a file."""
    hashes = {name: _base64(hashlib.new(name, body).digest()) for name in ("sha256", "sha512")}
    return {"hashes": hashes, "length": len(body)}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
