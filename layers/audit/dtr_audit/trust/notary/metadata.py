"""The documents of a Notary, parsed: what they say, not whether it is so.

Source of the forms and of what must be in them: Notary, tuf/data/{types,keys,root,timestamp,snapshot,targets,roles}.go. That
client reads names of keys in any case and lets the last of two win; here both are errors.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dtr_audit.core.text import clean
from dtr_audit.errors import TrustDataError
from dtr_audit.trust.notary import canonical

ROOT = "root"
TIMESTAMP = "timestamp"
SNAPSHOT = "snapshot"
TARGETS = "targets"
RELEASES = "targets/releases"  # what Docker's client writes to, and reads before `targets`
TOP_ROLES = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS)

# Honest documents stay far below all of these.
KEYS = 512  # of one document
KEYS_OF_A_ROLE = 64
SIGNATURES = 128
DELEGATIONS = 256  # of one document
PATHS = 1_024  # of one delegation
PATH_LENGTH = 1_024
ROLE_LENGTH = 255  # Notary's own (roles.go)
KEY_BYTES = 32 * 1024  # a bundle of certificates; one has about 1 KiB
SIGNATURE_BYTES = 2 * 1024
FILES = 4_096  # named in a snapshot
HASHES = 8
VERSION_LIMIT = 2**31 - 1

_HASH_BYTES = {"sha256": 32, "sha512": 64}
_ROLE = re.compile(r"targets(/[-a-z0-9_]+)+")
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key: DER of its SubjectPublicKeyInfo, the 32 bytes of an Ed25519 key, or certificates as PEM (`…-x509`)."""

    kind: str
    public: bytes
    id: str  # recomputed, whatever the document says


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of the canonical form of a document's `signed`."""

    key_id: str
    method: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Role:
    """Whose signatures count for a document, and how many are needed."""

    name: str
    keys: tuple[Key, ...]
    threshold: int
    paths: tuple[str, ...] = ("",)  # prefixes of the names it may sign


@dataclass(frozen=True, slots=True)
class FileHashes:
    """What a document must be; sha256 is always among the hashes."""

    length: int
    sha256: bytes
    sha512: bytes | None

    def matches(self, body: bytes) -> bool:
        """Tell whether this is that document."""
        return (
            len(body) == self.length
            and hashlib.sha256(body).digest() == self.sha256
            and (self.sha512 is None or hashlib.sha512(body).digest() == self.sha512)
        )


@dataclass(frozen=True, slots=True)
class Document:
    """What all documents have in common; nothing in it is verified."""

    role: str
    version: int
    expires: datetime
    signatures: tuple[Signature, ...]
    message: bytes = field(repr=False)  # what is signed
    body: bytes = field(repr=False)  # what was served


@dataclass(frozen=True, slots=True)
class Root(Document):
    """The keys of the four top-level roles."""

    roles: Mapping[str, Role]


@dataclass(frozen=True, slots=True)
class Index(Document):
    """A timestamp, which names the snapshot, or a snapshot, which names all the other documents."""

    files: Mapping[str, FileHashes]


@dataclass(frozen=True, slots=True)
class Targets(Document):
    """What one role signs (name -> digests, `sha256:…` first), and to whom it delegates."""

    targets: Mapping[str, tuple[str, ...]]
    delegations: tuple[Role, ...]


def parse_root(body: bytes) -> Root:
    """Parse a root; raises TrustDataError."""
    common, signed = _parse(body, ROOT)
    keys = _keys(signed["keys"], ROOT)
    roles = _object(signed["roles"], "the roles of the root", TOP_ROLES)
    return Root(*common, roles={name: _role(name, roles[name], keys, ROOT) for name in TOP_ROLES})


def parse_timestamp(body: bytes) -> Index:
    """Parse a timestamp; raises TrustDataError."""
    common, signed = _parse(body, TIMESTAMP)
    return Index(*common, files=_files(signed["meta"], (SNAPSHOT,), TIMESTAMP))


def parse_snapshot(body: bytes) -> Index:
    """Parse a snapshot; raises TrustDataError."""
    common, signed = _parse(body, SNAPSHOT)
    return Index(*common, files=_files(signed["meta"], (ROOT, TARGETS), SNAPSHOT))


def parse_targets(body: bytes, role: str) -> Targets:
    """Parse the targets of a role, the top-level one or a delegation; raises TrustDataError."""
    common, signed = _parse(body, role)
    targets = signed["targets"]
    delegations = signed.get("delegations")
    return Targets(
        *common,
        targets=dict(_targets(targets, role)) if targets is not None else {},
        delegations=tuple(_delegations(delegations, role)) if delegations is not None else (),
    )


def is_delegation(name: str) -> bool:
    """Tell whether a name is that of a delegation, and so safe in a path (roles.go, IsDelegation)."""
    return len(name) <= ROLE_LENGTH and _ROLE.fullmatch(name) is not None


def is_key_id(text: str) -> bool:
    """Tell whether a text has the form of a key id."""
    return _KEY_ID.fullmatch(text) is not None


def key_id(kind: str, public: bytes) -> str:
    """Give a key's id: the sha256 of its canonical form, with a private half of null (keys.go, ID)."""
    form = {"keytype": kind, "keyval": {"private": None, "public": base64.b64encode(public).decode()}}
    return hashlib.sha256(canonical.encode(form)).hexdigest()


_TYPES = {ROOT: "Root", TIMESTAMP: "Timestamp", SNAPSHOT: "Snapshot"}
_KEYS_OF_TYPE = {"Root": ("keys", "roles"), "Timestamp": ("meta",), "Snapshot": ("meta",), "Targets": ("targets",)}

_Common = tuple[str, int, datetime, tuple[Signature, ...], bytes, bytes]


def _parse(body: bytes, role: str) -> tuple[_Common, dict[str, Any]]:
    envelope = _object(canonical.parse(body, role), role, ("signed", "signatures"))
    kind = _TYPES.get(role, "Targets")
    signed = _object(envelope["signed"], role, ("_type", "version", "expires", *_KEYS_OF_TYPE[kind]), ("delegations",))
    if signed["_type"] != kind:
        raise TrustDataError(f"{role}: it says that it is a document of the type '{clean(signed['_type'], 40)}'")
    version = _number(signed["version"], 1, VERSION_LIMIT, f"the version of {role}")
    signatures = tuple(
        _signature(entry, role) for entry in _list(envelope["signatures"], SIGNATURES, f"signatures of {role}")
    )
    message = canonical.encode(signed)
    return (role, version, _time(signed["expires"], role), signatures, message, body), signed


def _signature(entry: Any, role: str) -> Signature:
    fields = _object(entry, f"a signature of {role}", ("keyid", "method", "sig"))
    method = fields["method"]
    if not isinstance(method, str):
        raise TrustDataError(f"{role}: a signature's method is not a text")
    value = _base64(fields["sig"], SIGNATURE_BYTES, f"a signature of {role}")
    # types.go, Signature.UnmarshalJSON: the method in any case.
    return Signature(_id(fields["keyid"], role), method.lower(), value)


def _keys(value: Any, where: str) -> dict[str, Key]:
    table = _object(value, f"the keys in {where}")
    if len(table) > KEYS:
        raise TrustDataError(f"{where}: it has more than {KEYS} keys")
    found = {}
    for stated, entry in table.items():
        fields = _object(entry, f"a key in {where}", ("keytype", "keyval"))
        kind = fields["keytype"]
        halves = _object(fields["keyval"], f"a key in {where}", ("public",), ("private",))
        if not isinstance(kind, str) or halves.get("private") is not None:
            raise TrustDataError(f"{where}: a key is not a public key")
        public = _base64(halves["public"], KEY_BYTES, f"a key in {where}")
        key = Key(kind, public, key_id(kind, public))
        if key.id != stated:
            raise TrustDataError(f"{where}: the key {clean(stated, 64)} is not the one that this id stands for")
        found[stated] = key
    return found


def _role(name: str, value: Any, keys: Mapping[str, Key], where: str, paths: tuple[str, ...] = ("",)) -> Role:
    fields = _object(value, f"the role {name} in {where}", ("keyids", "threshold"), ("name", "paths"))
    ids = [_id(entry, where) for entry in _list(fields["keyids"], KEYS_OF_A_ROLE, f"keys of {name}")]
    if missing := [entry for entry in ids if entry not in keys]:
        raise TrustDataError(f"{where}: the role {name} names the key {missing[0]}, which is not there")
    threshold = _number(fields["threshold"], 1, VERSION_LIMIT, f"the threshold of {name}")
    return Role(name, tuple(keys[entry] for entry in dict.fromkeys(ids)), threshold, paths)


def _delegations(value: Any, parent: str) -> Iterator[Role]:
    fields = _object(value, f"the delegations of {parent}", ("keys", "roles"))
    keys = _keys(fields["keys"], parent) if fields["keys"] is not None else {}
    seen = set()
    for entry in _list(fields["roles"], DELEGATIONS, f"delegations of {parent}"):
        name = _object(entry, f"a delegation of {parent}", ("name",), ("keyids", "threshold", "paths"))["name"]
        # targets.go, isValidTargetsStructure: a delegation is its parent's direct child, so there is no cycle.
        if not isinstance(name, str) or not is_delegation(name) or name.rpartition("/")[0] != parent:
            raise TrustDataError(
                f"{parent}: it delegates to '{clean(name, 60)}', which is no name of a delegation of it"
            )
        if name in seen:
            raise TrustDataError(f"{parent}: it delegates to {name} twice")
        seen.add(name)
        paths = _list(entry.get("paths"), PATHS, f"paths of {name}")
        if not all(isinstance(path, str) and len(path) <= PATH_LENGTH for path in paths):
            raise TrustDataError(f"{parent}: the paths of {name} are not texts of at most {PATH_LENGTH} characters")
        yield _role(name, entry, keys, parent, tuple(paths))


def _targets(value: Any, role: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, entry in _object(value, f"the targets of {role}").items():
        fields = _object(entry, f"a target of {role}", ("hashes", "length"), ("custom",))
        _number(fields["length"], 0, canonical.NUMBER_LIMIT, f"the length of a target of {role}")
        hashes = _hashes(fields["hashes"], f"a target of {role}")
        yield name, tuple(f"{algorithm}:{digest.hex()}" for algorithm, digest in hashes.items())


def _files(value: Any, needed: Collection[str], where: str) -> dict[str, FileHashes]:
    table = _object(value, f"the files in {where}", needed)
    if len(table) > FILES:
        raise TrustDataError(f"{where}: it names more than {FILES} files")
    found = {}
    for name, entry in table.items():
        fields = _object(entry, f"a file in {where}", ("hashes", "length"), ("custom",))
        length = _number(fields["length"], 1, canonical.NUMBER_LIMIT, f"the length of a file in {where}")
        hashes = _hashes(fields["hashes"], f"a file in {where}")
        if "sha256" not in hashes:
            raise TrustDataError(f"{where}: it has no sha256 of {clean(name, 60)}")
        found[name] = FileHashes(length, hashes["sha256"], hashes.get("sha512"))
    return found


def _hashes(value: Any, where: str) -> dict[str, bytes]:
    """Read the hashes that are known, sha256 first; those of other kinds say nothing to anybody (types.go, CheckHashes)."""
    table = _object(value, f"the hashes of {where}")
    if len(table) > HASHES:
        raise TrustDataError(f"{where}: it has more than {HASHES} hashes")
    found = {name: _base64(table[name], length, where) for name, length in _HASH_BYTES.items() if name in table}
    if any(len(digest) != _HASH_BYTES[name] for name, digest in found.items()):
        raise TrustDataError(f"{where}: a hash is not of its kind's length")
    return found


def _object(value: Any, what: str, needed: Collection[str] = (), known: Collection[str] = ()) -> dict[str, Any]:
    """Take an object that has the keys it needs; any others are let be, unless Go would take them for those."""
    if not isinstance(value, dict):
        raise TrustDataError(f"{what}: it is not an object")
    for key in needed:
        if key not in value:
            raise TrustDataError(f"{what}: '{key}' is missing")
    names = {*needed, *known}
    if names and any(key not in names and key.casefold() in names for key in value):
        raise TrustDataError(f"{what}: a key is written in another case, so that two readers could read it differently")
    return value


def _list(value: Any, most: int, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TrustDataError(f"{what}: they are not a list")
    if len(value) > most:
        raise TrustDataError(f"{what}: there are more than {most}")
    return value


def _number(value: Any, least: int, most: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise TrustDataError(f"{what}: it is not a whole number from {least} to {most}")
    return value


def _id(value: Any, where: str) -> str:
    if not isinstance(value, str) or not is_key_id(value):
        raise TrustDataError(f"{where}: the id of a key is not 64 hexadecimal digits")
    return value


def _base64(value: Any, most: int, what: str) -> bytes:
    if not isinstance(value, str) or len(value) > 4 * (most // 3 + 1):
        raise TrustDataError(f"{what}: it is not base64 of at most {most} bytes")
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise TrustDataError(f"{what}: it is not base64") from None
    if base64.b64encode(content).decode() != value:
        raise TrustDataError(f"{what}: it is base64 in a form that two readers could read differently")
    return content


def _time(value: Any, role: str) -> datetime:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise TrustDataError(f"{role}: 'expires' is not a time")
    moment, fraction, zone = match.groups()
    try:
        # Go writes nanoseconds; Python has microseconds, and what is cut off makes it expire earlier.
        parsed = datetime.fromisoformat(moment + (fraction or ".0")[:7] + zone)
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise TrustDataError(f"{role}: 'expires' is not a time") from None
