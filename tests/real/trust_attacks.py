"""The written list of attacks on a repository's trust data, and the repository that suffers them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from dtr_audit_simulator.http.transport import Delivery, Response
from tests.real.lab.proxy import Tamper, TamperingProxy, endless
from tests.real.lab.registry import RealRegistry
from tests.real.lab.scenarios import TAG, raise_threshold
from tests.real.lab.tampering import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    PrivateKeys,
    Signed,
    TamperedRepository,
    keys_of,
    moment,
    parse,
    write,
)
from tests.real.lab.trust import RELEASES

ALICE, BOB, CI, PAIR = "targets/alice", "targets/bob", "targets/ci", "targets/pair"
TOP_LEVEL = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS)
EVIL_DIGEST = "sha256:" + "e1" * 32

UNTRUSTED, UNKNOWN = "UNTRUSTED", "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Stage:
    """A repository `gun`, as it was and as it is; its neighbour `other`; and the wire to an auditor.

    Alice and Bob have signed `TAG`: in the past, what has `old_digest`, and now what has `digest`. At the `first` the
    root had another key. Both together have listed it in `targets/pair`, which wants two signatures; nobody in `targets/ci`, whose
    tags begin with `ci-`. Alice has signed the neighbour too.
    """

    registry: RealRegistry
    proxy: TamperingProxy
    gun: str
    other_gun: str
    first: Mapping[str, bytes]
    old: Mapping[str, bytes]
    new: Mapping[str, bytes]
    other: Mapping[str, bytes]
    old_digest: str
    digest: str
    other_digest: str
    keys: PrivateKeys

    def forge(self) -> TamperedRepository:
        """Give what somebody serves who holds the keys of everybody, to be spoilt."""
        return TamperedRepository(self.gun, self.new, self.keys)


def set_stage(registry: RealRegistry, proxy: TamperingProxy, namespace: str) -> Stage:
    """Make the repositories with the vendor's tools."""
    old_digest = registry.push_image(namespace, "app", TAG)
    other_digest = registry.push_image(namespace, "other", TAG)
    for signer in ("alice", "bob"):
        registry.sign(namespace, "app", TAG, signer=signer)
        registry.sign(namespace, "other", TAG, signer=signer)
    gun, other_gun = registry.gun(namespace, "app"), registry.gun(namespace, "other")
    first = registry.desk.read(gun)
    registry.rotate_key(namespace, "app", ROOT)
    old = registry.desk.read(gun)
    digest = registry.push_image(namespace, "app", TAG)
    registry.push_image(namespace, "app", "ci-1")
    for signer in ("alice", "bob"):
        registry.sign(namespace, "app", TAG, signer=signer)
        registry.delegate(namespace, "app", PAIR, signer)
    raise_threshold(registry, namespace, "app", PAIR, 2)
    registry.list_in(namespace, "app", TAG, PAIR)
    registry.delegate(namespace, "app", CI, "carol", paths=("ci-",))
    registry.list_in(namespace, "app", "ci-1", CI)
    return Stage(
        registry=registry,
        proxy=proxy,
        gun=gun,
        other_gun=other_gun,
        first=first,
        old=old,
        new=registry.desk.read(gun),
        other=registry.desk.read(other_gun),
        old_digest=old_digest,
        digest=digest,
        other_digest=other_digest,
        keys=registry.signer_client.read_keys(),
    )


@dataclass(frozen=True, slots=True)
class Attack:
    """A line of the list.

    It succeeds if a reader takes it that `TAG` is released as what `digest` gives and that `signer` has signed so.
    `expected` is the verdict, on that tag with that digest, of an audit that requires that signer and is not taken in.
    `seen`: the reader has seen the current state before. `days`: he reads so many days later. `vendor_refuses`: what
    Notary's own client does; None where it cannot be asked, whose clock is ours and who may take minutes, or says
    now one thing and now another.
    """

    name: str
    what: str
    make: Callable[[Stage], Tamper]
    expected: str = UNTRUSTED
    digest: Callable[[Stage], str] = lambda stage: stage.digest
    signer: str = "alice"
    seen: bool = False
    days: int = 0
    vendor_refuses: bool | None = True

    def __str__(self) -> str:
        return self.name


# What attackers do


def _serve(stage: Stage, files: Mapping[str, bytes | Response]) -> Tamper:
    """Serve other files of the repository for the current ones, however these are asked for."""
    return lambda file: None if file.gun != stage.gun or file.version else files.get(file.role)


def _edit(stage: Stage, role: str, change: Callable[[dict[str, Any]], None]) -> Tamper:
    """Change a document on its way and leave the others."""
    document = parse(stage.new)[role]
    change(document)
    return _serve(stage, {role: write(document)})


def _strip(document: dict[str, Any]) -> None:
    document["signatures"] = []


def _sign_by_another_key(stage: Stage, role: str) -> Tamper:
    keys = stage.keys

    def change(document: dict[str, Any]) -> None:
        [signature] = keys.sign(document["signed"], dict([keys.make()]))
        document["signatures"] = [signature | {"keyid": document["signatures"][0]["keyid"]}]

    return _edit(stage, role, change)


def _set_digest(signed: Signed) -> None:
    hashes = {"sha256": base64.b64encode(bytes.fromhex(EVIL_DIGEST.removeprefix("sha256:"))).decode("ascii")}
    signed["targets"][TAG] = {"hashes": hashes, "length": 500}


def _forge_targets(stage: Stage, sign: Callable[[TamperedRepository, str], None], *roles: str) -> Tamper:
    """Put another digest into roles, and `sign` each in some wrong way."""
    forged = stage.forge() if RELEASES in roles else _release(stage.forge())
    for role in roles:
        _set_digest(forged.documents[role]["signed"])
        sign(forged, role)
    forged.seal()
    return forged


def _keep_signatures(_: TamperedRepository, __: str) -> None:
    return


def _add_own_signature(forged: TamperedRepository, role: str) -> None:
    document = forged.documents[role]
    document["signatures"] += forged.keys.sign(document["signed"], dict([forged.keys.make()]))


def _sign_as_the_right_key(forged: TamperedRepository, role: str) -> None:
    document = forged.documents[role]
    [signature] = forged.keys.sign(document["signed"], dict([forged.keys.make()]))
    document["signatures"] = [signature | {"keyid": known["keyid"]} for known in document["signatures"]]


def _release(forged: TamperedRepository) -> TamperedRepository:
    """Release another digest as somebody who holds a key of the released role, and no other, can."""
    _set_digest(forged.documents[RELEASES]["signed"])
    forged.sign(RELEASES)
    return forged


def _sign_as_bob(stage: Stage) -> Tamper:
    forged = _release(stage.forge())
    _set_digest(forged.documents[ALICE]["signed"])
    document = forged.documents[ALICE]
    [bobs] = forged.keys_of(BOB).items()
    document["signatures"] = forged.keys.sign(document["signed"], dict([bobs]))
    forged.seal()
    return forged


def _serve_another_role(stage: Stage) -> Tamper:
    """Serve what Bob has signed in his own role as Alice's."""
    forged = _release(stage.forge())
    _set_digest(forged.documents[BOB]["signed"])
    forged.sign(BOB)
    forged.documents[ALICE] = forged.documents[BOB]
    forged.seal()
    return forged


def reuse_role(stage: Stage) -> Tamper:
    """Serve what Bob signed last in the released role as his own role's, rightly signed as it is."""
    forged = stage.forge()
    forged.documents[BOB] = forged.documents[RELEASES]
    forged.seal()
    return forged


def reuse_repository(stage: Stage) -> Tamper:
    """Serve what Alice and Bob signed in the neighbour as theirs in this repository, rightly signed as it is."""
    forged = stage.forge()
    for role in (RELEASES, ALICE, BOB):
        forged.documents[role] = parse(stage.other)[role]
    forged.seal()
    return forged


def sign_pair(
    stage: Stage, spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda both: both
) -> Tamper:
    forged = _release(stage.forge())
    _set_digest(forged.documents[PAIR]["signed"])
    forged.sign(PAIR)
    forged.documents[PAIR]["signatures"] = spoil(forged.documents[PAIR]["signatures"])
    forged.seal()
    return forged


def _list_beyond_paths(stage: Stage) -> Tamper:
    forged = _release(stage.forge())
    _set_digest(forged.documents[CI]["signed"])
    forged.sign(CI)
    forged.seal()
    return forged


def _delegate_sideways(stage: Stage) -> Tamper:
    """As Carol, who holds a role of her own, delegate Alice's to a key of one's own."""
    forged = _release(stage.forge())
    key_id, described = forged.keys.make()
    forged.documents[CI]["signed"]["delegations"] = {
        "keys": {key_id: described},
        "roles": [{"name": ALICE, "keyids": [key_id], "threshold": 1, "paths": [""]}],
    }
    forged.sign(CI)
    alices = forged.documents[ALICE]
    _set_digest(alices["signed"])
    alices["signatures"] = forged.keys.sign(alices["signed"], {key_id: described})
    forged.seal()
    return forged


def _hide_from_snapshot(stage: Stage) -> Tamper:
    return _say(stage, SNAPSHOT, lambda signed: signed["meta"].pop(ALICE))


def take_over_root(stage: Stage, *, version: int | None = None) -> Tamper:
    """Serve all under a root key of one's own, certified for the right repository."""
    forged = stage.forge()
    root = forged.documents[ROOT]["signed"]
    key_id, described = forged.keys.make(certified_for=stage.gun)
    root["keys"][key_id] = described
    root["roles"][ROOT] = {"keyids": [key_id], "threshold": 1}
    if version is not None:
        root["version"] = version
    forged.sign(ROOT)
    for role in (RELEASES, ALICE):
        _set_digest(forged.documents[role]["signed"])
        forged.sign(role)
    forged.seal()
    return forged


def _take_over_root_for_another(stage: Stage) -> Tamper:
    forged = take_over_root(stage)
    assert isinstance(forged, TamperedRepository)
    root = forged.documents[ROOT]["signed"]
    key_id, described = forged.keys.make(certified_for=stage.other_gun)
    root["keys"][key_id] = described
    root["roles"][ROOT] = {"keyids": [key_id], "threshold": 1}
    forged.sign(ROOT)
    forged.seal()
    return forged


def _vouch(forged: TamperedRepository, role: str) -> TamperedRepository:
    """Let what is above a role vouch for it as it is."""
    if role not in (SNAPSHOT, TIMESTAMP):
        forged.write_snapshot()
    if role != TIMESTAMP:
        forged.write_timestamp()
    return forged


def _exchange_server_keys(stage: Stage, role: str) -> Tamper:
    """Sign the timestamp by the snapshot's key, or the other way round."""
    forged = stage.forge()
    other = {SNAPSHOT: TIMESTAMP, TIMESTAMP: SNAPSHOT}[role]
    document = forged.documents[role]
    document["signatures"] = forged.keys.sign(document["signed"], forged.keys_of(other))
    return forged if role == TIMESTAMP else _vouch(forged, role)


def _use_retired_root_key(stage: Stage) -> Tamper:
    """Serve a next root by the key that was the root's before it was replaced."""
    forged = stage.forge()
    root = forged.documents[ROOT]["signed"]
    retired = keys_of(parse(stage.first), ROOT)
    root["keys"] |= retired
    root["roles"][ROOT] = {"keyids": list(retired), "threshold": 1}
    forged.sign(ROOT)
    forged.seal()
    return forged


def _expire(stage: Stage, role: str) -> Tamper:
    forged = stage.forge()
    forged.documents[role]["signed"]["expires"] = moment(datetime.now(UTC) - timedelta(days=1))
    forged.sign(role)
    return _vouch(forged, role)


def _say(stage: Stage, role: str, change: Callable[[Signed], object]) -> Tamper:
    """Let a document, signed by its right keys, say something that it should not."""
    forged = stage.forge()
    change(forged.documents[role]["signed"])
    forged.sign(role)
    return _vouch(forged, role)


def _say_twice(stage: Stage) -> Tamper:
    """Write what is signed twice: what was signed, and what was not."""
    forged = stage.forge()
    for role in (RELEASES, ALICE):
        document = forged.documents[role]
        honest = json.dumps(document["signed"])
        evil = json.loads(honest)
        _set_digest(evil)
        signatures = json.dumps(document["signatures"])
        forged.raw[role] = f'{{"signed":{honest},"signatures":{signatures},"signed":{json.dumps(evil)}}}'.encode()
    forged.seal()
    return forged


def _repeat_signatures(stage: Stage, role: str, *, count: int) -> Tamper:
    forged = stage.forge()
    forged.documents[role]["signatures"] *= count
    return _vouch(forged, role)


def _fill_targets(signed: Signed) -> None:
    [target] = signed["targets"].values()
    signed["targets"] |= {f"{TAG}.{number}": target for number in range(300_000)}


def _fill_delegations(signed: Signed, *, count: int) -> None:
    roles = signed["delegations"]["roles"]
    roles += [roles[0] | {"name": f"targets/{number}"} for number in range(count)]


def _fill_snapshot(signed: Signed, *, count: int) -> None:
    meta = signed["meta"]
    meta |= {f"targets/{number}": meta[TARGETS] for number in range(count)}


def _nest(stage: Stage, role: str) -> Tamper:
    forged = stage.forge()
    forged.raw[role] = b'{"signed":' + b"[" * 100_000
    return _vouch(forged, role)


def _remove(stage: Stage, role: str) -> Tamper:
    body = b'{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist."}]}'
    return _serve(stage, {role: Response(404, body)})


def _break_off(stage: Stage, role: str) -> Tamper:
    content = stage.new[role]
    return _serve(stage, {role: Response(200, content, delivery=Delivery(cut_after=len(content) // 2))})


def _cut(stage: Stage, role: str) -> Tamper:
    return _serve(stage, {role: stage.new[role][: len(stage.new[role]) // 2]})


def _say_version(stage: Stage, role: str, version: object) -> Tamper:
    return _say(stage, role, lambda signed: signed.update(version=version))


def _say_type(stage: Stage, role: str) -> Tamper:
    return _say(stage, role, lambda signed: signed.update(_type="Root" if role != ROOT else "Targets"))


# The list

_ROLES = (*TOP_LEVEL, RELEASES, ALICE)
_INDEXED = (SNAPSHOT, TARGETS, RELEASES, ALICE)  # whose lengths and hashes others name


def _old(stage: Stage) -> str:
    return stage.old_digest


def _others(stage: Stage) -> str:
    return stage.other_digest


def _evil(_: Stage) -> str:
    return EVIL_DIGEST


def _per_role(
    name: str,
    what: str,
    make: Callable[[Stage, str], Tamper],
    *,
    roles: tuple[str, ...] = _ROLES,
    expected: str = UNTRUSTED,
    seen: bool = False,
    vendor_refuses: bool | None = True,
) -> list[Attack]:
    return [
        Attack(f"{name}: {role}", what, partial(_make, make, role), expected, seen=seen, vendor_refuses=vendor_refuses)
        for role in roles
    ]


def _make(make: Callable[[Stage, str], Tamper], role: str, stage: Stage) -> Tamper:
    return make(stage, role)


def _pair(name: str, what: str, spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Attack:
    return Attack(name, what, lambda stage: sign_pair(stage, spoil), digest=_evil, signer="pair")


def _digest(name: str, what: str, sign: Callable[[TamperedRepository, str], None]) -> list[Attack]:
    """Attack the repository's own role, which everything hangs on, and then those below it alone."""
    return [
        Attack(f"{name}: {roles[0]}", what, partial(_forge, sign, roles), digest=_evil)
        for roles in ((TARGETS, RELEASES, ALICE), (RELEASES, ALICE), (ALICE,))
    ]


def _forge(sign: Callable[[TamperedRepository, str], None], roles: tuple[str, ...], stage: Stage) -> Tamper:
    return _forge_targets(stage, sign, *roles)


ATTACKS = [
    # On the wire, without any key
    *_per_role("swap", "the neighbour's file of the same role", lambda s, r: _serve(s, {r: s.other[r]})),
    Attack("swap all", "every file of the neighbour's", lambda s: _serve(s, s.other), digest=_others),
    Attack("swap all, seen", "the same, later", lambda s: _serve(s, s.other), digest=_others, seen=True),
    Attack("swap signers", "Bob's file for Alice's", lambda s: _serve(s, {ALICE: s.new[BOB]})),
    *_per_role("strip", "no signatures", lambda s, r: _edit(s, r, _strip)),
    *_per_role("wrong key", "a signature by another key under the right id", _sign_by_another_key),
    Attack("roll back", "all files as they were", lambda s: _serve(s, s.old), digest=_old, seen=True),
    Attack("roll back all", "and the root, too", lambda s: _serve(s, s.first), digest=_old, seen=True),
    Attack("replay: root", "the first file of the role", lambda s: _serve(s, {ROOT: s.first[ROOT]})),
    *_per_role("replay", "the old file of one role", lambda s, r: _serve(s, {r: s.old[r]}), roles=_ROLES[1:]),
    Attack("freeze", "the current files for 15 days", lambda s: _serve(s, s.new), days=15, vendor_refuses=None),
    Attack(
        "freeze the past",
        "all old files for 15 days",
        lambda s: _serve(s, s.old),
        digest=_old,
        days=15,
        vendor_refuses=None,
    ),
    Attack(
        "mix and match",
        "old snapshot and timestamp, current roles",
        lambda s: _serve(s, {role: s.old[role] for role in (SNAPSHOT, TIMESTAMP)}),
    ),
    Attack(
        "match and mix",
        "old roles, current snapshot and timestamp",
        lambda s: _serve(s, {role: s.old[role] for role in (TARGETS, RELEASES, ALICE, BOB)}),
        digest=_old,
    ),
    *_per_role("remove", "there is no such file", _remove),
    *_per_role("cut", "half a file", _cut, roles=(ROOT, TIMESTAMP), expected=UNKNOWN),
    *_per_role("cut", "half a file", _cut, roles=_INDEXED),
    *_per_role("break off", "the connection ends amidst", _break_off, expected=UNKNOWN),
    *_per_role(
        "fail", "an error of the server", lambda s, r: _serve(s, {r: Response(500, b"<html>")}), expected=UNKNOWN
    ),
    *_per_role("endless", "bytes without end", lambda s, r: _serve(s, {r: endless()}), expected=UNKNOWN),
    # With the server's keys, so that every length and hash fits
    *_digest("old signatures", "another digest, and the signatures as they were", _keep_signatures),
    *_digest("own signature", "another digest, and one's own signature besides", _add_own_signature),
    *_digest("stolen id", "another digest, and one's own signature under the right id", _sign_as_the_right_key),
    Attack("another signer", "Alice's role signed by Bob's key", _sign_as_bob, digest=_evil),
    Attack("another role", "Bob's file as Alice's", _serve_another_role, digest=_evil),
    *_per_role(
        "another server key", "signed by the server's other key", _exchange_server_keys, roles=(TIMESTAMP, SNAPSHOT)
    ),
    _pair("below threshold", "one signature of two", lambda both: both[:1]),
    _pair("counted twice", "one signature, twice", lambda both: both[:1] * 2),
    _pair("two ids", "one key's signature under both ids", lambda both: [both[0], both[1] | {"sig": both[0]["sig"]}]),
    Attack("beyond paths", "a tag that the role may not sign", _list_beyond_paths, digest=_evil, signer="ci"),
    Attack("sideways", "one signer delegates another's role", _delegate_sideways, UNKNOWN, digest=_evil),
    Attack("hide", "a role that the snapshot does not list", _hide_from_snapshot),
    Attack("new root", "a root of one's own as the next", take_over_root, digest=_evil, seen=True),
    Attack("new first root", "a root of one's own", lambda s: take_over_root(s, version=1), digest=_evil, seen=True),
    Attack("another's root", "a root certified for the neighbour", _take_over_root_for_another, digest=_evil),
    Attack("retired root", "a next root by the key before", _use_retired_root_key, seen=True),
    # With every key, but to no good
    *_per_role("expired", "yesterday's", _expire),
    *_per_role("begun anew", "version 1 again", partial(_say_version, version=1), roles=(ROOT, TIMESTAMP), seen=True),
    *_per_role(
        "begun anew",
        "version 1 again, which Notary's own client notices or not, by what it has in its cache",
        partial(_say_version, version=1),
        roles=(SNAPSHOT,),
        seen=True,
        vendor_refuses=None,
    ),
    *_per_role(
        "begun anew",
        "version 1 again, which Notary's own client compares with nothing",
        partial(_say_version, version=1),
        roles=(TARGETS, RELEASES, ALICE),
        seen=True,
        vendor_refuses=False,
    ),
    Attack("said twice", "two things said, one of them signed", _say_twice, UNKNOWN, digest=_evil),
    *_per_role("another type", "a document of another type", _say_type, expected=UNKNOWN),
    *_per_role("version below zero", "-1", partial(_say_version, version=-1), expected=UNKNOWN),
    *_per_role("version beyond all", "2 to the 80th", partial(_say_version, version=2**80), expected=UNKNOWN),
    *_per_role("version of text", "a string", partial(_say_version, version="9"), expected=UNKNOWN),
    *_per_role("no expiry", "none", lambda s, r: _say(s, r, lambda signed: signed.pop("expires")), expected=UNKNOWN),
    *_per_role("deep", "a hundred thousand levels", _nest, expected=UNKNOWN),
    *[
        attack
        for count in (1_000, 50_000)
        for attack in _per_role(
            f"many signatures: {count}",
            "all of them the right one",
            partial(_repeat_signatures, count=count),
            expected=UNKNOWN,
            vendor_refuses=None,
        )
    ],
    Attack("many tags", "300,000", lambda s: _say(s, ALICE, _fill_targets), UNKNOWN, vendor_refuses=None),
    *[
        Attack(
            f"many delegations: {count}",
            "in the repository's own role",
            lambda s, count=count: _say(s, TARGETS, partial(_fill_delegations, count=count)),  # type: ignore[misc]
            UNKNOWN,
            vendor_refuses=None,
        )
        for count in (1_000, 100_000)
    ],
    *[
        Attack(
            f"many files: {count}",
            "in the snapshot",
            lambda s, count=count: _say(s, SNAPSHOT, partial(_fill_snapshot, count=count)),  # type: ignore[misc]
            UNKNOWN,
            vendor_refuses=None,
        )
        for count in (5_000, 100_000)
    ],
]
