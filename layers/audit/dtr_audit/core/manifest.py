"""The manifest of a run: every file that it left in the bucket, with its size and SHA-256.

`manifest.json` is one JSON object with sorted keys and a line feed at its end.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from dtr_audit.core.tool import TOOL
from dtr_audit.errors import EvidenceError

NAME = "manifest.json"
FORMAT = "dtr-signature-audit/manifest/1"
MANIFEST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the run in the bucket."""

    key: str
    sha256: str  # hexadecimal
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says."""

    registry: str
    run_id: str
    files: tuple[StoredFile, ...]


def write(registry: str, run_id: str, files: Iterable[StoredFile], *, url: str = "") -> bytes:
    """Write the manifest of a run's files; the same files give the same bytes. `url` is the registry's address."""
    document = {
        "format": FORMAT,
        "registry": registry,
        "run_id": run_id,
        "tool": TOOL,
        "url": url,
        "files": [
            {"key": file.key, "sha256": file.sha256, "size": file.size}
            for file in sorted(files, key=lambda file: file.key)
        ],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def read(document: bytes) -> Manifest:
    """Read a manifest; raises EvidenceError for anything that `write` does not write."""
    problem = EvidenceError(f"{NAME}: this is no manifest of a run ({FORMAT})")
    if len(document) > MANIFEST_BYTES:
        raise problem
    try:
        content: Any = json.loads(document)
    except (ValueError, RecursionError):
        raise problem from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("files"), list):
        raise problem
    texts = [content.get("registry"), content.get("run_id")]
    files = [_read_file(entry) for entry in content["files"]]
    if not all(isinstance(text, str) for text in texts) or None in files:
        raise problem
    if len({file.key for file in files if file}) != len(files):
        raise EvidenceError(f"{NAME}: a file stands in it twice")
    return Manifest(str(texts[0]), str(texts[1]), tuple(file for file in files if file))


def _read_file(entry: object) -> StoredFile | None:
    if not isinstance(entry, Mapping) or set(entry) != {"key", "sha256", "size"}:
        return None
    key, sha256, size = entry["key"], entry["sha256"], entry["size"]
    if not isinstance(key, str) or not isinstance(sha256, str) or not isinstance(size, int) or isinstance(size, bool):
        return None
    return StoredFile(key, sha256, size)


def describe(key: str, content: bytes | IO[bytes]) -> StoredFile:
    """Name a file with its size and sum; an open one is left at its beginning."""
    if isinstance(content, bytes):
        return StoredFile(key, hashlib.sha256(content).hexdigest(), len(content))
    content.seek(0)
    sha256 = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type] # typeshed wants what only IO[bytes] lacks
    size = content.tell()
    content.seek(0)
    return StoredFile(key, sha256, size)
