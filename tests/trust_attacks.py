"""The written list of attacks on a repository's trust data, and the repository that suffers them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from local.dtr.transport import Delivery, Response
from local.real.counterfeit import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Counterfeit, Signed, parse, write
from local.real.proxy import Tamper, TamperingProxy, endless
from local.real.registry import RealRegistry
from local.real.scenarios import TAG, raise_threshold
from local.real.trust import RELEASES

ALICE, BOB, CI, PAIR = "targets/alice", "targets/bob", "targets/ci", "targets/pair"
TOP_LEVEL = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS)
EVIL_DIGEST = "sha256:" + "e1" * 32

UNTRUSTED, UNKNOWN, UNSIGNED = "UNTRUSTED", "UNKNOWN", "UNSIGNED"


@dataclass(frozen=True, slots=True)
class Stage:
    """A repository `gun`, as it was and as it is; its neighbour `other`; and the wire to an auditor.

    Alice and Bob have signed `TAG`: in the past, what has `old_digest`, and now, under another root key, what has
    `digest`. Both together have listed it in `targets/pair`, which wants two signatures; nobody in `targets/ci`, whose
    tags begin with `ci-`. Alice has signed the neighbour too.
    """

    registry: RealRegistry
    proxy: TamperingProxy
    gun: str
    other_gun: str
    old: Mapping[str, bytes]
    new: Mapping[str, bytes]
    other: Mapping[str, bytes]
    old_digest: str
    digest: str
    other_digest: str

    def forge(self) -> Counterfeit:
        """Give what somebody serves who holds the keys of everybody, to be spoilt."""
        return Counterfeit(self.gun, self.new, self.registry.workstation.read_keys())


def set_stage(registry: RealRegistry, proxy: TamperingProxy, namespace: str) -> Stage:
    """Make the repositories with the vendor's tools."""
    old_digest = registry.push_image(namespace, "app", TAG)
    other_digest = registry.push_image(namespace, "other", TAG)
    for signer in ("alice", "bob"):
        registry.sign(namespace, "app", TAG, signer=signer)
        registry.sign(namespace, "other", TAG, signer=signer)
    gun, other_gun = registry.gun(namespace, "app"), registry.gun(namespace, "other")
    old = registry.desk.read(gun)
    registry.rotate_key(namespace, "app", ROOT)
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
        old=old,
        new=registry.desk.read(gun),
        other=registry.desk.read(other_gun),
        old_digest=old_digest,
        digest=digest,
        other_digest=other_digest,
    )


@dataclass(frozen=True, slots=True)
class Attack:
    """A line of the list.

    It succeeds if a reader takes it that `TAG` is released as what `digest` gives and that `signer` has signed so.
    `expected` are the verdicts, on that tag and that digest of one who requires that signer, that are not taken in.
    `seen`: the reader has seen the current state before. `days`: he reads so many days later. `vendor_refuses`: what
    Notary's own client does; None where it cannot be asked, whose clock is ours and who may take minutes.
    """

    name: str
    what: str
    make: Callable[[Stage], Tamper]
    expected: frozenset[str] = frozenset({UNTRUSTED})
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
    keys = stage.registry.workstation.read_keys()

    def change(document: dict[str, Any]) -> None:
        [signature] = keys.sign(document["signed"], dict([keys.make()]))
        document["signatures"] = [signature | {"keyid": document["signatures"][0]["keyid"]}]

    return _edit(stage, role, change)


def _set_digest(signed: Signed) -> None:
    hashes = {"sha256": base64.b64encode(bytes.fromhex(EVIL_DIGEST.removeprefix("sha256:"))).decode("ascii")}
    signed["targets"][TAG] = {"hashes": hashes, "length": 500}


def _forge_targets(stage: Stage, sign: Callable[[Counterfeit, str], None]) -> Tamper:
    """Put another digest into every role that lists the tag, and `sign` each in some wrong way."""
    forged = stage.forge()
    for role in (RELEASES, ALICE, BOB, TARGETS):
        _set_digest(forged.documents[role]["signed"])
        sign(forged, role)
    forged.seal()
    return forged


def _keep_signatures(_: Counterfeit, __: str) -> None:
    return


def _add_own_signature(forged: Counterfeit, role: str) -> None:
    document = forged.documents[role]
    document["signatures"] += forged.keys.sign(document["signed"], dict([forged.keys.make()]))


def _sign_as_the_right_key(forged: Counterfeit, role: str) -> None:
    document = forged.documents[role]
    [signature] = forged.keys.sign(document["signed"], dict([forged.keys.make()]))
    document["signatures"] = [signature | {"keyid": known["keyid"]} for known in document["signatures"]]


def _release(forged: Counterfeit) -> Counterfeit:
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
    assert isinstance(forged, Counterfeit)
    root = forged.documents[ROOT]["signed"]
    key_id, described = forged.keys.make(certified_for=stage.other_gun)
    root["keys"][key_id] = described
    root["roles"][ROOT] = {"keyids": [key_id], "threshold": 1}
    forged.sign(ROOT)
    forged.seal()
    return forged


def _seal(forged: Counterfeit, role: str) -> Counterfeit:
    """Let what is above a role vouch for it as it is."""
    if role not in (SNAPSHOT, TIMESTAMP):
        forged.write_snapshot()
    if role != TIMESTAMP:
        forged.write_timestamp()
    return forged


def _expire(stage: Stage, role: str) -> Tamper:
    forged = stage.forge()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    forged.documents[role]["signed"]["expires"] = yesterday.isoformat().replace("+00:00", "Z")
    forged.sign(role)
    return _seal(forged, role)


def _say(stage: Stage, role: str, change: Callable[[Signed], object]) -> Tamper:
    """Let a document, signed by its right keys, say something that it should not."""
    forged = stage.forge()
    change(forged.documents[role]["signed"])
    forged.sign(role)
    return _seal(forged, role)


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


def _repeat_signatures(stage: Stage, role: str) -> Tamper:
    forged = stage.forge()
    forged.documents[role]["signatures"] *= 50_000
    return _seal(forged, role)


def _fill_targets(signed: Signed) -> None:
    [target] = signed["targets"].values()
    signed["targets"] |= {f"{TAG}.{number}": target for number in range(300_000)}


def _fill_delegations(signed: Signed) -> None:
    roles = signed["delegations"]["roles"]
    roles += [roles[0] | {"name": f"targets/{number}"} for number in range(100_000)]


def _fill_snapshot(signed: Signed) -> None:
    meta = signed["meta"]
    meta |= {f"targets/{number}": meta[TARGETS] for number in range(100_000)}


def _nest(stage: Stage, role: str) -> Tamper:
    forged = stage.forge()
    forged.raw[role] = b'{"signed":' + b"[" * 100_000
    return _seal(forged, role)


def _absent(role: str) -> Callable[[Stage], Tamper]:
    body = b'{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist."}]}'
    return lambda stage: _serve(stage, {role: Response(404, body)})


# The list

_EITHER = frozenset({UNTRUSTED, UNKNOWN})
_UNREAD = frozenset({UNKNOWN})
_ROLES = (*TOP_LEVEL, RELEASES, ALICE)


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
    expected: frozenset[str] = _EITHER,
    vendor_refuses: bool | None = True,
) -> list[Attack]:
    return [
        Attack(f"{name} {role}", what, partial(_make, make, role), expected, vendor_refuses=vendor_refuses)
        for role in _ROLES
    ]


def _make(make: Callable[[Stage, str], Tamper], role: str, stage: Stage) -> Tamper:
    return make(stage, role)


ATTACKS = [
    # Without any key, on the wire
    *_per_role("swap", "the neighbour's file of the same role", lambda s, r: _serve(s, {r: s.other[r]})),
    Attack("swap all", "every file of the neighbour's", lambda s: _serve(s, s.other), digest=_others),
    Attack("swap all later", "the same, once seen", lambda s: _serve(s, s.other), digest=_others, seen=True),
    Attack("swap signers", "Bob's file for Alice's", lambda s: _serve(s, {ALICE: s.new[BOB]}), _EITHER),
    *_per_role("strip", "no signatures", lambda s, r: _edit(s, r, _strip)),
    *_per_role("wrong key", "a signature by another key under the right id", _sign_by_another_key),
    Attack(
        "roll back",
        "all files as they were, once newer have been seen",
        lambda s: _serve(s, s.old),
        digest=_old,
        seen=True,
    ),
    *_per_role("replay", "the old file of one role", lambda s, r: _serve(s, {r: s.old[r]})),
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
        "old snapshot and timestamp with current roles",
        lambda s: _serve(s, {SNAPSHOT: s.old[SNAPSHOT], TIMESTAMP: s.old[TIMESTAMP]}),
        _EITHER,
    ),
    Attack(
        "match and mix",
        "old roles with the current snapshot and timestamp",
        lambda s: _serve(s, {role: s.old[role] for role in s.old if role not in (ROOT, SNAPSHOT, TIMESTAMP)}),
        _EITHER,
        digest=_old,
    ),
    *_per_role("endless", "bytes without end", lambda s, r: _serve(s, {r: endless()}), expected=_UNREAD),
    *_per_role("cut", "the first half", lambda s, r: _serve(s, {r: s.new[r][: len(s.new[r]) // 2]})),
    *_per_role(
        "break off", "the connection ends amidst", lambda s, r: _serve(s, {r: _broken(s.new[r])}), expected=_UNREAD
    ),
    *_per_role(
        "fail", "an error of the server", lambda s, r: _serve(s, {r: Response(500, b"<html>")}), expected=_UNREAD
    ),
    *[
        Attack(f"absent {role}", "there is no such file", _absent(role), _EITHER)
        for role in (TIMESTAMP, SNAPSHOT, TARGETS, RELEASES, ALICE)
    ],
    Attack("absent root", "there is no trust data", _absent(ROOT), frozenset({UNSIGNED, *_EITHER})),
    # With the keys of the server, so that every length and hash fits
    Attack(
        "other digest", "another digest, old signatures", lambda s: _forge_targets(s, _keep_signatures), digest=_evil
    ),
    Attack(
        "own signature",
        "the same and one's own signature",
        lambda s: _forge_targets(s, _add_own_signature),
        digest=_evil,
    ),
    Attack(
        "stolen id",
        "the same under the right key's id",
        lambda s: _forge_targets(s, _sign_as_the_right_key),
        digest=_evil,
    ),
    Attack("another signer's key", "Alice's role signed by Bob", _sign_as_bob, digest=_evil),
    Attack("another role's file", "Bob's file as Alice's, who did not sign it", _serve_another_role, digest=_evil),
    Attack(
        "below threshold",
        "one signature of two",
        lambda s: sign_pair(s, lambda both: both[:1]),
        digest=_evil,
        signer="pair",
    ),
    Attack(
        "same signature twice",
        "one signature twice for two",
        lambda s: sign_pair(s, lambda both: both[:1] * 2),
        digest=_evil,
        signer="pair",
    ),
    Attack(
        "one signature under two ids",
        "one key's signature under both ids",
        lambda s: sign_pair(s, lambda both: [both[0], both[0] | {"keyid": both[1]["keyid"]}]),
        digest=_evil,
        signer="pair",
    ),
    Attack("beyond paths", "a tag that the role may not sign", _list_beyond_paths, digest=_evil, signer="ci"),
    Attack("sideways", "one signer delegates another's role", _delegate_sideways, digest=_evil),
    Attack("hide", "a role that the snapshot does not list", _hide_from_snapshot),
    Attack(
        "new root", "a root of one's own, once the right one has been seen", take_over_root, digest=_evil, seen=True
    ),
    Attack(
        "new first root",
        "the same as version 1",
        lambda s: take_over_root(s, version=1),
        digest=_evil,
        seen=True,
    ),
    Attack("root of another", "a root certified for the neighbour", _take_over_root_for_another, digest=_evil),
    *_per_role("expired", "signed well, but yesterday's", _expire, expected=frozenset({UNTRUSTED})),
    Attack("said twice", "two things said, one of them signed", _say_twice, _EITHER, digest=_evil),
    *_per_role(
        "another type",
        "signed well, as another type",
        lambda s, r: _say(s, r, lambda signed: signed.update(_type="Root" if r != ROOT else "Targets")),
    ),
    *_per_role("version below zero", "signed well", lambda s, r: _say(s, r, lambda signed: signed.update(version=-1))),
    *_per_role(
        "version beyond all", "signed well", lambda s, r: _say(s, r, lambda signed: signed.update(version=2**80))
    ),
    *_per_role("version of text", "signed well", lambda s, r: _say(s, r, lambda signed: signed.update(version="9"))),
    *_per_role("no expiry", "signed well", lambda s, r: _say(s, r, lambda signed: signed.pop("expires"))),
    *_per_role("deep", "a hundred thousand levels", _nest),
    *_per_role("many signatures", "fifty thousand times the right one", _repeat_signatures, vendor_refuses=None),
    Attack("many tags", "300,000, signed well", lambda s: _say(s, ALICE, _fill_targets), _EITHER, vendor_refuses=None),
    Attack(
        "many delegations",
        "100,000, signed well",
        lambda s: _say(s, TARGETS, _fill_delegations),
        _EITHER,
        vendor_refuses=None,
    ),
    Attack(
        "many files", "100,000, signed well", lambda s: _say(s, SNAPSHOT, _fill_snapshot), _EITHER, vendor_refuses=None
    ),
]


def _broken(content: bytes) -> Response:
    return Response(200, content, delivery=Delivery(cut_after=len(content) // 2))
