"""What is kept of a repository's trust data between two runs.

The documents themselves: each is verified anew by every reading, so the memory can save requests and cannot vouch for anything but
the root that was trusted and the versions that were seen.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from dtr_audit.errors import TrustDataError
from dtr_audit.trust.notary.effort import REFUSAL_LENGTH
from dtr_audit.trust.notary.metadata import DELEGATIONS, ROOT, TOP_ROLES, VERSION_LIMIT, is_delegation

FORM = 1
REFUSED = "refused"
MEMORY_BYTES = 340_000  # of JSON; an item of DynamoDB holds 400 KB
ROOT_BYTES = 128 * 1024  # the one document that is kept in any case
DOCUMENT_BYTES = 4 * 1024 * 1024
GUN_LENGTH = 1_024
ROLES = DELEGATIONS + len(TOP_ROLES)
VERSIONS = 32  # of one role's documents, remembered by their hashes
DOCUMENTS = 512  # of all roles together
MARKS = 64  # documents of a repository of which it is remembered that another one serves them too
HASH_LENGTH = 32  # hexadecimal digits, half of a SHA-256

_HASH = re.compile(r"[0-9a-f]{32}")
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
    # role -> hashes of what was signed, of the newest version first; of documents alone that list or delegate something
    signed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reused: Mapping[str, str] = field(default_factory=dict)  # hash -> the other repository that serves this document

    def as_dict(self) -> dict[str, Any]:
        """Give a form for JSON of at most MEMORY_BYTES: whatever does not fit is left out, the largest first."""
        packed = {role: _pack(body) for role, body in self.documents.items()}
        form: dict[str, Any] = {"form": FORM, "gun": self.gun, "since": self.since, "versions": dict(self.versions)}
        if self.signed:
            form["signed"] = {role: list(hashes) for role, hashes in self.signed.items()}
        if self.reused:
            form["reused"] = dict(self.reused)
        room = MEMORY_BYTES - 1_024 - REFUSAL_LENGTH - len(self.gun) - sum(len(role) + 16 for role in self.versions)
        room -= sum(len(role) + 8 + len(hashes) * (HASH_LENGTH + 3) for role, hashes in self.signed.items())
        room -= sum(HASH_LENGTH + 8 + len(other) for other in self.reused.values())
        for role in sorted(packed, key=lambda name: (name != ROOT, len(packed[name]))):
            room -= len(role) + len(packed[role]) + 8
            if room < 0 and role != ROOT:
                del packed[role]
        return {**form, "documents": packed}


def parse_refusal(value: Any) -> tuple[str, bool]:
    """Read what a reading refused as too much work ('': nothing), and whether nothing else is remembered."""
    refused = value.get(REFUSED) if isinstance(value, dict) else None
    if not isinstance(refused, str) or len(refused) > REFUSAL_LENGTH:
        return "", False
    return refused, value.keys() == {"form", REFUSED} and value["form"] == FORM


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
        signed=parse_signed(value),
        reused=parse_reused(value),
    )


def parse_signed(value: Any) -> dict[str, tuple[str, ...]]:
    """Read the hashes of a memory, which may be of a version that had none; raises TrustDataError."""
    kept = value.get("signed", {}) if isinstance(value, dict) else {}
    if not isinstance(kept, dict) or len(kept) > DOCUMENTS or not all(map(_is_role, kept)):
        raise _error()
    if not all(isinstance(hashes, list) and all(map(_is_hash, hashes)) for hashes in kept.values()):
        raise _error()
    if sum(map(len, kept.values())) > DOCUMENTS:
        raise _error()
    return {role: tuple(hashes) for role, hashes in kept.items()}


def parse_reused(value: Any) -> dict[str, str]:
    """Read which documents of a memory another repository serves too; raises TrustDataError."""
    kept = value.get("reused", {}) if isinstance(value, dict) else {}
    if not isinstance(kept, dict) or len(kept) > MARKS or not all(map(_is_hash, kept)):
        raise _error()
    if not all(isinstance(other, str) and 0 < len(other) <= GUN_LENGTH for other in kept.values()):
        raise _error()
    return dict(kept)


def keep_signed(now: Mapping[str, str], earlier: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Put the hashes of today's documents before the earlier ones; beyond DOCUMENTS the oldest of each role go first."""
    known = {role: (digest,) for role, digest in now.items()}
    known |= {
        role: tuple(dict.fromkeys((*known.get(role, ()), *hashes)))[:VERSIONS] for role, hashes in earlier.items()
    }
    most = VERSIONS
    while sum(len(hashes[:most]) for hashes in known.values()) > DOCUMENTS and most > 1:
        most //= 2
    kept = {role: hashes[:most] for role, hashes in known.items()}
    # With one of each, those of roles that are gone are the last.
    return dict(list(kept.items())[:DOCUMENTS])


def mark_reused(memory: TrustMemory, reused: Mapping[str, str]) -> TrustMemory:
    """Note which of the documents are served in another repository too."""
    wanted = {**memory.reused, **reused}
    # Today's documents first: theirs decide.
    known = [hashes[age] for age in range(VERSIONS) for hashes in memory.signed.values() if age < len(hashes)]
    marks = {digest: wanted[digest] for digest in known if digest in wanted} if wanted else {}
    return replace(memory, reused=dict(list(marks.items())[:MARKS]))


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


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
