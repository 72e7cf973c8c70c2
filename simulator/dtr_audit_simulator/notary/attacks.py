"""Every dishonest thing that can be done to trust data: each is an attack upon a copy of a repository.

    Swapped("dtr.example/web/shop", roles=("targets",))     another repository's file, rightly signed there
    Replayed(revision=0)                                    everything as it was after the first publication (freeze, rollback)
    Replayed(revision=0, roles=("targets",))                one old file among new ones (mix and match)
    SignedByStranger("targets", consistent=True)            the Notary itself is the attacker

Who attacks makes the difference. Somebody on the way can only put files in the place of others: the hash that the
snapshot gives of them does not fit. A `consistent` attacker has the keys of snapshot and timestamp, which the server of
a Notary has, so everything fits but what the repository's owners sign themselves. Nobody has their keys, except in
`Altered(…, signed=True)`, `Expired`, `Crowded`, `Cyclic` and `Deep`, where an owner is careless or malicious himself.

Attacks add up: the next one happens to what the one before has left.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from dtr_audit_simulator.notary.canonical import write_canonical, write_json
from dtr_audit_simulator.notary.files import TARGETS, write_file
from dtr_audit_simulator.notary.keys import Key, make_key
from dtr_audit_simulator.notary.repository import RELEASES, SNAPSHOT, TrustRepository

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
STRANGE_DIGEST = "sha256:" + "e" * 64
"""What the attacker would like to have run."""

Content = dict[str, Any]
Finder = Callable[[str], TrustRepository | None]


class Attack(Protocol):
    """Something that is done to a copy of a repository's trust data; hashable, as it is done once and remembered."""

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Do it to `repository`, which is a copy already; `find` gives other GUNs' trust data."""
        ...


# By somebody who has no key at all


@dataclass(frozen=True, slots=True)
class Swapped:
    """Serve the files of another `gun`, in some roles or in all."""

    gun: str
    roles: tuple[str, ...] = ()

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Impose the other repository's files."""
        other = find(self.gun)
        if other is None:
            raise LookupError(f"no files to swap in: {self.gun} has no trust data")
        _impose_all(repository, other.revisions[-1], self.roles)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Serve old files: all roles', or some roles', as they were after a publication (see `TrustRepository.revisions`)."""

    revision: int
    roles: tuple[str, ...] = ()

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Impose the old files."""
        _impose_all(repository, repository.revisions[self.revision], self.roles)


@dataclass(frozen=True, slots=True)
class Withheld:
    """Answer that there is no file of the role, though the snapshot may list it."""

    role: str

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Hide the file."""
        repository.withhold(self.role)


@dataclass(frozen=True, slots=True)
class Truncated:
    """Break a file off after some bytes, by default in its middle."""

    role: str
    after: int | None = None

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Impose the beginning of the file."""
        body = _body(repository, self.role)
        repository.impose(self.role, body[: len(body) // 2 if self.after is None else self.after])


@dataclass(frozen=True, slots=True)
class Lengthened:
    """Follow a file by bytes that change nothing of its meaning: blanks, beyond the length that the snapshot gives."""

    role: str
    by: int = 1

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Impose the longer file."""
        repository.impose(self.role, _body(repository, self.role) + b" " * self.by)


# By somebody on the way, or by the Notary itself (consistent)


@dataclass(frozen=True, slots=True)
class Reused:
    """Serve, in a role, the file of another role or of the same role of another `gun`: rightly signed, and not for this place.

    It passes where the signer's key is accepted. The attacker has the keys of snapshot and timestamp.
    """

    role: str
    source: str = ""  # a role; empty: the same
    gun: str = ""  # empty: the repository itself
    revision: int = -1

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Plant the other file."""
        other = find(self.gun) if self.gun else repository
        if other is None:
            raise LookupError(f"no file to re-use: {self.gun} has no trust data")
        repository.plant(self.role, other.revisions[self.revision][self.source or self.role], consistent=True)


@dataclass(frozen=True, slots=True)
class Stripped:
    """Take all signatures off a file."""

    role: str
    consistent: bool = False

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Plant the file without its signatures."""
        repository.plant(self.role, write_file(repository.signed(self.role), []), consistent=self.consistent)


@dataclass(frozen=True, slots=True)
class Undersigned:
    """Leave one signature fewer than the role's threshold; `repeated`, one of them stands there as often as is needed."""

    role: str
    repeated: bool = False
    consistent: bool = True

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Plant the file with the signatures that are left."""
        threshold = repository.threshold(self.role)
        signatures = json.loads(_body(repository, self.role))["signatures"]
        left = signatures[: threshold - 1]
        if self.repeated:
            left += signatures[:1] * (threshold - len(left))
        repository.plant(self.role, write_file(repository.signed(self.role), left), consistent=self.consistent)


@dataclass(frozen=True, slots=True)
class SignedByStranger:
    """Sign by a key of nobody's what a file says, or an attacker's `digest` under every tag.

    `impersonating`, the signature gives itself the id of a key that the role does have.
    """

    role: str
    digest: str = ""
    impersonating: bool = False
    consistent: bool = False

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Plant the file with the stranger's signature."""
        content = repository.signed(self.role)
        if self.digest:
            sign_digest(content, self.digest)
        signature = _stranger().signature(write_canonical(content))
        if self.impersonating:
            signature["keyid"] = repository.keys(self.role)[0].id
        repository.plant(self.role, write_file(content, [signature]), consistent=self.consistent)


@dataclass(frozen=True, slots=True)
class Altered:
    """Change anything in what a file says, by a function of the content; the old signatures stay.

    With `signed` the role's own keys sign the change.
    """

    role: str
    change: Callable[[Content], object]
    signed: bool = False
    consistent: bool = False

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Plant the changed file."""
        content = repository.signed(self.role)
        self.change(content)
        if self.signed:
            repository.issue(self.role, content, repository.signing_keys(self.role), consistent=self.consistent)
            return
        signatures = json.loads(_body(repository, self.role))["signatures"]
        repository.plant(self.role, write_file(content, signatures), consistent=self.consistent)


@dataclass(frozen=True, slots=True)
class KeysRepeated:
    """Have `signed` twice in a file: what the attacker wants besides what the owner signs.

    Parsers differ in which of two they take. `genuine_last`: one that takes the last, as most do, verifies what the
    owner signed.
    """

    role: str = TARGETS
    digest: str = STRANGE_DIGEST
    genuine_last: bool = True
    consistent: bool = True

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Plant the file with both."""
        wanted = repository.signed(self.role)
        sign_digest(wanted, self.digest)
        file = json.loads(_body(repository, self.role))
        contents = [write_json(wanted), write_json(file["signed"])]
        first, last = contents if self.genuine_last else reversed(contents)
        text = f'{{"signed":{first},"signed":{last},"signatures":{write_json(file["signatures"])}}}'
        repository.plant(self.role, text.encode(), consistent=self.consistent)


@dataclass(frozen=True, slots=True)
class Unlisted:
    """Have a snapshot, rightly signed, that does not know of a role."""

    role: str

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Issue the snapshot."""
        old = repository.signed(SNAPSHOT)
        content = {**old, **repository.describe_snapshot(without=(self.role,))}
        repository.issue(SNAPSHOT, content, repository.signing_keys(SNAPSHOT), consistent=True)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Replace everything by the attacker's own trust data for the GUN, in which every file is in order.

    Its root comes from nowhere: no earlier root vouches for it. Whoever sees the repository for the first time cannot
    tell. Each tag is signed with the attacker's `digest`, in the roles that signed it. All versions are `ahead` of the
    highest one that is replaced; many roots are missing between if it is far ahead.
    """

    digest: str = STRANGE_DIGEST
    ahead: int = 1

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Impose the attacker's files."""
        _impose_all(repository, self._made(repository))

    def _made(self, repository: TrustRepository) -> Mapping[str, bytes]:
        newest = max(repository.signed(role)["version"] for role in repository.roles)
        own = TrustRepository(repository.gun, repository.clock, first_version=newest + self.ahead)
        with own.batch():
            for role in repository.roles:
                if role.startswith(f"{TARGETS}/"):
                    own.add_delegation(role, _stranger())
                if role == TARGETS or role.startswith(f"{TARGETS}/"):
                    for tag in repository.signed(role)["targets"]:
                        own.sign(tag, self.digest, roles=[role])
        return own.revisions[-1]


# By an owner: all is rightly signed. Where it is published as a change of its own (Expired, Cyclic, Deep), versions go
# up: a reader who remembers them takes the honest files for older ones afterwards.


@dataclass(frozen=True, slots=True)
class Expired:
    """Let a role's file have expired long ago."""

    role: str
    at: datetime = LONG_AGO

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Publish the file with its end in the past."""
        repository.set_expiry(self.role, self.at)


@dataclass(frozen=True, slots=True)
class Crowded:
    """Let a file hold very many targets, delegations or signatures; all but the signatures rightly signed.

    The signatures are invalid. With `known_key` each gives itself the id of a key that the role has, so that whoever
    is careless verifies every single one.
    """

    role: str = TARGETS
    targets: int = 0
    delegations: int = 0
    signatures: int = 0
    known_key: bool = False

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Plant the huge file."""
        content = repository.signed(self.role)
        if self.targets:
            crowd = {"hashes": {"sha256": _digest_in_metadata(STRANGE_DIGEST)}, "length": 1}
            content["targets"].update({f"crowd-{i:06}": crowd for i in range(self.targets)})
        if self.delegations:
            stranger = _stranger()
            content["delegations"]["keys"][stranger.id] = stranger.described()
            content["delegations"]["roles"] += [
                {"name": f"{self.role}/crowd-{i:06}", "keyids": [stranger.id], "threshold": 1, "paths": [""]}
                for i in range(self.delegations)
            ]
        keys = repository.signing_keys(self.role)
        message = write_canonical(content)
        stray = _stranger().signature(b"something else")
        # Behind them come the valid ones: who stops at the first valid one has seen them all.
        signatures = [
            *({**stray, "keyid": keys[0].id if self.known_key else f"{i:064x}"} for i in range(self.signatures)),
            *(key.signature(message) for key in keys),
        ]
        repository.plant(self.role, write_file(content, signatures), consistent=True)


@dataclass(frozen=True, slots=True)
class Cyclic:
    """Let a delegation delegate to itself, to its parent and to the releases."""

    role: str = "targets/loop"

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Publish the delegation, then its file with the cycle in it."""
        key = make_key()
        repository.add_delegation(self.role, key)
        content = repository.signed(self.role)
        content["delegations"]["keys"][key.id] = key.described()
        content["delegations"]["roles"] = [
            {"name": name, "keyids": [key.id], "threshold": 1, "paths": [""]} for name in (self.role, TARGETS, RELEASES)
        ]
        repository.issue(self.role, content, [key], consistent=True)


@dataclass(frozen=True, slots=True)
class Deep:
    """Let delegations go down very deep: targets/d/d/d…, each signing a tag of its own; a name ends at 255 characters."""

    depth: int = 120

    def apply(self, repository: TrustRepository, find: Finder) -> None:
        """Publish all of them at once."""
        key = make_key()
        with repository.batch():
            role = TARGETS
            for level in range(self.depth):
                role = f"{role}/d"
                repository.add_delegation(role, key)
                repository.sign(f"deep-{level}", STRANGE_DIGEST, roles=[role])


def _impose_all(repository: TrustRepository, files: Mapping[str, bytes], roles: Collection[str] = ()) -> None:
    for role in roles or {*files, *repository.roles}:
        if role in files:
            repository.impose(role, files[role])
        else:
            repository.withhold(role)


def sign_digest(content: MutableMapping[str, Any], digest: str) -> None:
    """Put a digest (`sha256:<hex>`) under every tag of what a targets file signs; other files have no tags."""
    for target in content.get("targets", {}).values():
        target["hashes"] = {"sha256": _digest_in_metadata(digest)}


@functools.cache
def _stranger() -> Key:
    return make_key()


def _digest_in_metadata(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode("ascii")


def _body(repository: TrustRepository, role: str) -> bytes:
    body = repository.find(role)
    if body is None:
        raise LookupError(f"{repository.gun} has no file of the role {role} to attack")
    return body
