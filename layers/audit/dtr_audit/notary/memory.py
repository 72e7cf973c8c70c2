"""What is kept of a repository's trust data between two runs.

The documents themselves: each is verified anew by every reading, so the memory can save requests and cannot vouch for anything but
the root that was trusted and the versions that were seen.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ..errors import TrustDataError
from .metadata import DELEGATIONS, ROOT, TOP_ROLES, VERSION_LIMIT, is_delegation

FORM = 1
MEMORY_BYTES = 340_000  # of JSON; an item of DynamoDB holds 400 KB
ROOT_BYTES = 128 * 1024  # the one document that is kept in any case
DOCUMENT_BYTES = 4 * 1024 * 1024
GUN_LENGTH = 1_024
ROLES = DELEGATIONS + len(TOP_ROLES)

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)", re.ASCII)


@dataclass(frozen=True, slots=True)
class TrustMemory:
    """What the last reading that held has seen of one GUN."""

    gun: str
    since: str  # when its root was first trusted: ISO 8601, UTC
    versions: Mapping[str, int]  # role -> the highest that was verified
    documents: Mapping[str, bytes] = field(
        repr=False
    )  # role -> as it was served; the root always, the others while there is room

    def as_dict(self) -> dict[str, Any]:
        """Give a form for JSON of at most MEMORY_BYTES: whatever does not fit is left out, the largest first."""
        packed = {role: _pack(body) for role, body in self.documents.items()}
        form = {"form": FORM, "gun": self.gun, "since": self.since, "versions": dict(self.versions)}
        room = MEMORY_BYTES - 1_024 - len(self.gun) - sum(len(role) + 16 for role in self.versions)
        for role in sorted(packed, key=lambda name: (name != ROOT, len(packed[name]))):
            room -= len(role) + len(packed[role]) + 8
            if room < 0 and role != ROOT:
                del packed[role]
        return {**form, "documents": packed}


def parse_memory(value: Any) -> TrustMemory:
    """Read a memory back; raises TrustDataError, because without it a root that changed would pass for a new one."""
    if not isinstance(value, dict) or value.get("form") != FORM:
        raise _error()
    gun, since, versions, packed = (value.get(key) for key in ("gun", "since", "versions", "documents"))
    if not isinstance(gun, str) or len(gun) > GUN_LENGTH or not isinstance(since, str) or not _MOMENT.fullmatch(since):
        raise _error()
    if not isinstance(versions, dict) or not isinstance(packed, dict) or ROOT not in packed:
        raise _error()
    if max(len(versions), len(packed)) > ROLES or not all(map(_is_role, {*versions, *packed})):
        raise _error()
    return TrustMemory(
        gun,
        since,
        versions={role: _version(value) for role, value in versions.items()},
        documents={role: _unpack(text) for role, text in packed.items()},
    )


def _version(value: Any) -> int:
    # DynamoDB's numbers come back as Decimal.
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= VERSION_LIMIT:
        raise _error()
    return value


def _is_role(name: Any) -> bool:
    return isinstance(name, str) and (name in TOP_ROLES or is_delegation(name))


def _pack(body: bytes) -> str:
    return base64.b64encode(zlib.compress(body, 9)).decode()


def _unpack(text: Any) -> bytes:
    if not isinstance(text, str) or len(text) > MEMORY_BYTES:
        raise _error()
    inflate = zlib.decompressobj()
    try:
        body = inflate.decompress(base64.b64decode(text, validate=True), DOCUMENT_BYTES)
    except (binascii.Error, ValueError, zlib.error):
        raise _error() from None
    if not inflate.eof:
        raise _error()
    return body


def _error() -> TrustDataError:
    return TrustDataError(
        "what earlier runs remember of this repository's trust data cannot be read, so neither a change of its root nor a rollback "
        "would be noticed. If nobody has tampered with it, remove it: the root is then trusted on first use, or as it is pinned"
    )
