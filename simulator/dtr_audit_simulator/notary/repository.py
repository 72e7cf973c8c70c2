"""The trust data of one GUN: roles, their keys, what each one signs, and every file that was ever published."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self

from dtr_audit_simulator.notary.files import TARGETS, Role, Target, delegating_role, describe_file, seal, write_time
from dtr_audit_simulator.notary.keys import Key, KeyType, RootAuthority, make_key

ROOT = "root"
SNAPSHOT = "snapshot"
TIMESTAMP = "timestamp"
RELEASES = "targets/releases"
BASE_ROLES = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)

YEAR = timedelta(days=365)
LIVES = {ROOT: 10 * YEAR, TARGETS: 3 * YEAR, SNAPSHOT: 3 * YEAR, TIMESTAMP: timedelta(days=14)}  # Notary's own
MANIFEST_BYTES = 528  # what a tag's target says of its size unless told otherwise

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_SERIALS = itertools.count(1)
_FILES = itertools.count(1)


class TrustRepository:
    """The trust data of `gun`, made by `Notary.create`.

    May be changed while it is read, from any thread. `revisions` holds the current files by role as they were after
    each publication, the oldest first, also of before the repository was initialised again; `serial` changes with each
    publication.
    """

    def __init__(
        self,
        gun: str,
        clock: Callable[[], datetime],
        *,
        keys: Mapping[str, Sequence[Key]] | None = None,
        authority: RootAuthority | None = None,
        first_version: int = 1,
        published: Callable[[str, bytes], None] = lambda _category, _timestamp: None,
    ) -> None:
        self.gun = gun
        self.clock = clock
        self.serial = 0
        self.revisions: list[Mapping[str, bytes]] = []
        self._first_version = first_version
        self._published = published
        self._lock = threading.RLock()
        self._batches = 0
        self._changed: set[str] = set()
        self._withheld: set[str] = set()
        self._imposed: dict[str, bytes] = {}
        self._outgoing: tuple[Key, ...] = ()  # root keys that the next root replaces
        self._vouching: tuple[Key, ...] = ()  # those that the current root has replaced: they sign it too
        self._initialise(keys or {}, authority)

    # Signing

    def sign(
        self,
        tag: str,
        digest: str,
        *,
        signer: str = "",
        roles: Collection[str] = (),
        length: int = MANIFEST_BYTES,
    ) -> None:
        """Sign a digest (`sha256:<hex>`) under a tag: by the repository's own key, or as a signer, or in any `roles`.

        A signer's key alone signs the files that list the tag; else all keys of a role do. Raises KeyError for a role
        or a signer that has no delegation, ValueError for another kind of digest.
        """
        value = digest.removeprefix("sha256:")
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"a target needs a digest of the form sha256:<64 hex digits>, not {digest!r}")
        own = f"{TARGETS}/{signer}"
        with self.batch():
            chosen = tuple(roles) or ((RELEASES, own) if signer else (TARGETS,))
            for role in chosen:
                if role not in self._targets:
                    raise KeyError(f"{self.gun} has no role {role}: add it first")
                self._targets[role][tag] = Target(value, length)
                self._signing[role] = self._roles[own].keys if signer else self._roles[role].keys
                self._changed.add(role)

    def revoke(self, tag: str, *, roles: Collection[str] = ()) -> None:
        """Take a tag out of some roles, by default out of all that list it. Raises KeyError if none does."""
        with self.batch():
            chosen = tuple(roles) or tuple(role for role, targets in self._targets.items() if tag in targets)
            if not chosen:
                raise KeyError(f"{self.gun} has no signature of {tag}")
            for role in chosen:
                del self._targets[role][tag]
                self._changed.add(role)

    @contextmanager
    def batch(self) -> Iterator[Self]:
        """Publish what happens within as one publication."""
        with self._lock:
            self._batches += 1
            try:
                yield self
            finally:
                self._batches -= 1
            if not self._batches and self._changed:
                self._publish()

    # Delegations

    def add_signer(self, name: str, key: Key | None = None) -> Key:
        """Make `targets/<name>` and add its key to `targets/releases`, as `docker trust signer add` does."""
        key = key or make_key()
        with self.batch():
            known = self._roles.get(RELEASES)
            self.add_delegation(RELEASES, *(known.keys if known else ()), key)
            self.add_delegation(f"{TARGETS}/{name}", key)
        return key

    def remove_signer(self, name: str, *, sign_releases_anew: bool = True) -> None:
        """Remove `targets/<name>`, and its keys from `targets/releases`.

        Unless the releases are signed anew, by those who are left, they stay as they are: under-signed if the removed
        signer was the last to sign them. Without anybody left they are removed too. Raises KeyError.
        """
        with self.batch():
            gone = self._roles[f"{TARGETS}/{name}"].keys
            self.remove_delegation(f"{TARGETS}/{name}")
            left = tuple(key for key in self._roles[RELEASES].keys if key not in gone)
            if not left:
                self.remove_delegation(RELEASES)
                return
            self._roles[RELEASES] = replace(self._roles[RELEASES], keys=left)
            self._changed.add(TARGETS)
            if sign_releases_anew:
                self._signing[RELEASES] = left
                self._changed.add(RELEASES)

    def add_delegation(self, role: str, *keys: Key, threshold: int = 1, paths: Iterable[str] = ("",)) -> None:
        """Delegate to `targets/<name>` or `targets/<name>/<nested>`, or give a delegation other keys.

        Its file is published with it, though empty. Raises KeyError without the role above it.
        """
        parent = delegating_role(role)
        with self.batch():
            if parent not in self._targets:
                raise KeyError(f"{self.gun} has no role {parent}, which would have to delegate to {role}")
            self._roles[role] = Role(tuple(keys), threshold, tuple(paths))
            self._targets.setdefault(role, {})
            self._signing[role] = tuple(keys)
            self._changed |= {parent, role}

    def remove_delegation(self, role: str) -> None:
        """Remove a delegation and all below it: their files are found by hash and version only. Raises KeyError."""
        with self.batch():
            self._changed.add(delegating_role(role))
            for name in [name for name in self._roles if name == role or name.startswith(f"{role}/")]:
                for known in (self._roles, self._targets, self._signing, self._current):
                    known.pop(name, None)
                self._changed.discard(name)

    # Keys and time

    def keys(self, role: str) -> tuple[Key, ...]:
        """Give the keys of a role."""
        with self._lock:
            return self._roles[role].keys

    def rotate(self, role: str, *keys: Key, threshold: int = 1) -> None:
        """Give root, targets, snapshot or timestamp a new key, or these keys.

        The root has a new version. One with new root keys is signed by those before too, and by no older ones: a client
        follows from version to version.
        """
        with self.batch():
            if role == ROOT:
                self._outgoing = self._outgoing or self._roles[ROOT].keys
                chosen = keys or (self._make_root_key(None),)
            else:
                chosen = keys or (make_key(),)
            self._roles[role] = Role(chosen, threshold)
            self._signing[role] = chosen
            self._changed |= {ROOT, role}

    def reinitialise(
        self, *, keys: Mapping[str, Sequence[Key]] | None = None, authority: RootAuthority | None = None
    ) -> None:
        """Delete everything, and begin anew: a root by new keys that no old one vouches for, version 1, no targets."""
        with self._lock:
            self._published("deletion", b"")
            self._initialise(keys or {}, authority)

    def set_expiry(self, role: str, at: datetime | None) -> None:
        """Sign a role's file anew so that it, and every later version, expires `at`; None: after the usual time."""
        with self.batch():
            if role not in self._roles:
                raise KeyError(f"{self.gun} has no role {role}")
            if at is None:
                self._expiries.pop(role, None)
            else:
                self._expiries[role] = at
            self._changed.add(role)

    def renew_timestamp(self) -> None:
        """Sign the timestamp anew, as the server does when it has expired."""
        with self.batch():
            self._changed.add(TIMESTAMP)

    # Reading

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that have a file now."""
        with self._lock:
            return tuple(self._current)

    def threshold(self, role: str) -> int:
        """Give how many keys have to sign a role's file."""
        with self._lock:
            return self._roles[role].threshold

    def find(self, role: str, *, version: int | None = None, sha256: str = "") -> bytes | None:
        """Find a role's file: the current one, or one by its version or hash (hex), however old."""
        with self._lock:
            if role in self._withheld:
                return None
            if (imposed := self._imposed.get(role)) is not None:
                return imposed
            if sha256:
                return self._by_hash.get((role, sha256))
            if version is not None:
                return self._by_version.get((role, version))
            return self._current.get(role)

    def signed(self, role: str) -> dict[str, Any]:
        """Give what the role's current file signs, decoded. Raises KeyError."""
        body = self.find(role)
        if body is None:
            raise KeyError(f"{self.gun} has no file of the role {role}")
        content: dict[str, Any] = json.loads(body)["signed"]
        return content

    def released(self) -> Mapping[str, str]:
        """Give each tag's digest as a registry that believes its Notary sees it: the releases', else the top level's.

        Whether a signature still holds is not asked.
        """
        with self._lock:
            targets = {**self._targets[TARGETS], **self._targets.get(RELEASES, {})}
            return {tag: f"sha256:{target.sha256}" for tag, target in targets.items()}

    # For attacks, which happen to a copy

    def fork(self) -> TrustRepository:
        """Make a copy that changes for itself: whatever is done to it tells nobody."""
        with self._lock:
            duplicate = copy.copy(self)
            duplicate._lock = threading.RLock()
            duplicate._published = lambda _category, _timestamp: None
            duplicate._targets = {role: dict(targets) for role, targets in self._targets.items()}
            for name in _COPIED:
                setattr(duplicate, name, copy.copy(getattr(self, name)))
        return duplicate

    def impose(self, role: str, body: bytes) -> None:
        """Answer every question for the role's file by `body`, whatever version or hash is asked for."""
        with self._lock:
            self._withheld.discard(role)
            self._imposed[role] = body

    def withhold(self, role: str) -> None:
        """Have no file of the role."""
        with self._lock:
            self._withheld.add(role)

    def plant(self, role: str, body: bytes, *, consistent: bool) -> None:
        """Put `body` in the place of the role's file, under the same version.

        A `consistent` attacker has the keys of snapshot and timestamp, as the server of a Notary has, and signs both
        anew to fit; else the file is imposed on everybody who asks for the role.
        """
        with self._lock:
            if not consistent:
                self.impose(role, body)
                return
            self._store(role, self._versions.get(role, 1), body)
            self._fit(role)

    def issue(self, role: str, content: Mapping[str, Any], keys: Iterable[Key], *, consistent: bool) -> None:
        """Sign any content by any keys, and plant it as the role's file."""
        self.plant(role, seal(content, keys), consistent=consistent)

    def signing_keys(self, role: str) -> tuple[Key, ...]:
        """Give the keys that signed the role's current file."""
        with self._lock:
            return (*self._signing[role], *self._vouching) if role == ROOT else self._signing[role]

    def describe_snapshot(self, *, without: Collection[str] = ()) -> dict[str, Any]:
        """Give the content of a snapshot of the current files, leaving some roles out."""
        with self._lock:
            listed = {role: body for role, body in self._current.items() if role not in (SNAPSHOT, TIMESTAMP, *without)}
            return {"_type": "Snapshot", "meta": {role: describe_file(body) for role, body in listed.items()}}

    # Publishing

    def _initialise(self, keys: Mapping[str, Sequence[Key]], authority: RootAuthority | None) -> None:
        chosen = {role: tuple(keys.get(role, ())) for role in BASE_ROLES}
        chosen[ROOT] = chosen[ROOT] or (self._make_root_key(authority),)
        self._roles = {role: Role(own or (make_key(),)) for role, own in chosen.items()}
        self._signing = {role: known.keys for role, known in self._roles.items()}
        self._outgoing = self._vouching = ()
        self._targets: dict[str, dict[str, Target]] = {TARGETS: {}}
        self._expiries: dict[str, datetime] = {}
        self._versions: dict[str, int] = {}
        self._current: dict[str, bytes] = {}
        self._by_version: dict[tuple[str, int], bytes] = {}
        self._by_hash: dict[tuple[str, str], bytes] = {}
        with self.batch():
            self._changed = set(BASE_ROLES)

    def _make_root_key(self, authority: RootAuthority | None) -> Key:
        return make_key(KeyType.ECDSA_X509, name=self.gun, authority=authority, at=self.clock())

    def _publish(self) -> None:
        changed, self._changed = self._changed, set()
        if ROOT in changed:
            self._vouching, self._outgoing = self._outgoing, ()
        for role in sorted(changed - {SNAPSHOT, TIMESTAMP}):
            self._write(role, self._describe_root() if role == ROOT else self._describe_targets(role))
        if changed - {TIMESTAMP}:
            self._write(SNAPSHOT, self.describe_snapshot())
        self._write(TIMESTAMP, self._describe_timestamp())
        self.serial = next(_SERIALS)
        self.revisions.append(dict(self._current))
        self._published("update", self._current[TIMESTAMP])

    def _write(self, role: str, content: Mapping[str, Any]) -> None:
        version = self._versions.get(role, self._first_version - 1) + 1
        self._store(role, version, seal(self._dated(role, version, content), self.signing_keys(role)))

    def _fit(self, role: str) -> None:
        """Sign snapshot and timestamp anew, under their old versions, so that they fit a file that was planted."""
        if role not in (SNAPSHOT, TIMESTAMP):
            version = self._versions[SNAPSHOT]
            content = self._dated(SNAPSHOT, version, self.describe_snapshot())
            self._store(SNAPSHOT, version, seal(content, self.signing_keys(SNAPSHOT)))
        if role != TIMESTAMP:
            version = self._versions[TIMESTAMP]
            content = self._dated(TIMESTAMP, version, self._describe_timestamp())
            self._store(TIMESTAMP, version, seal(content, self.signing_keys(TIMESTAMP)))

    def _store(self, role: str, version: int, body: bytes) -> None:
        self._versions[role] = version
        self._current[role] = body
        self._by_version[role, version] = body
        self._by_hash[role, hashlib.sha256(body).hexdigest()] = body

    def _dated(self, role: str, version: int, content: Mapping[str, Any]) -> dict[str, Any]:
        life = LIVES.get(role, LIVES[TARGETS])
        # Notary writes nanoseconds: no two files that it makes say the same.
        expires = self._expiries.get(role) or self.clock() + life + timedelta(microseconds=next(_FILES))
        return {**content, "version": version, "expires": write_time(expires)}

    def _describe_root(self) -> dict[str, Any]:
        keys = {key.id: key.described() for role in BASE_ROLES for key in self._roles[role].keys}
        roles = {role: self._roles[role].described() for role in BASE_ROLES}
        return {"_type": "Root", "consistent_snapshot": False, "keys": keys, "roles": roles}

    def _describe_targets(self, role: str) -> dict[str, Any]:
        below = {name: known for name, known in self._roles.items() if "/" in name and delegating_role(name) == role}
        return {
            "_type": "Targets",
            "targets": {tag: target.described() for tag, target in self._targets[role].items()},
            "delegations": {
                "keys": {key.id: key.described() for known in below.values() for key in known.keys},
                "roles": [
                    {**known.described(), "name": name, "paths": list(known.paths)} for name, known in below.items()
                ],
            },
        }

    def _describe_timestamp(self) -> dict[str, Any]:
        return {"_type": "Timestamp", "meta": {SNAPSHOT: describe_file(self._current[SNAPSHOT])}}


# What a fork has to have for itself, besides the targets.
_COPIED = (
    "revisions",
    "_changed",
    "_withheld",
    "_imposed",
    "_roles",
    "_signing",
    "_expiries",
    "_versions",
    "_current",
    "_by_version",
    "_by_hash",
)
