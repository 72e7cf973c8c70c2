"""The simulated Notary signs rightly, is served as a DTR serves its Notary, and every attack upon it strikes.

It is spoken to with `requests`, and what it serves is verified by the few lines of `Reader`, which share nothing with it:
hashes, key ids and signatures are computed anew.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from dtr_audit_cli import story, story_trust
from dtr_audit_simulator.dtr.accounts import Account, Accounts
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.fault_kinds import (
    TRUST,
    Body,
    Closed,
    EndlessBody,
    Forged,
    Realm,
    Redirect,
    Rewrite,
    Slow,
    Status,
    trust_file,
)
from dtr_audit_simulator.dtr.faults import CHANGEFEED, LOGIN_PAGE, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.notary import (
    RELEASES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Attack,
    KeyType,
    Notary,
    RootAuthority,
    TrustRepository,
    attacks,
    make_key,
)
from dtr_audit_simulator.notary.attacks import (
    STRANGE_DIGEST,
    Altered,
    Crowded,
    Cyclic,
    Deep,
    Expired,
    KeysRepeated,
    Lengthened,
    Replayed,
    Reused,
    SignedByStranger,
    Stripped,
    Swapped,
    TakenOver,
    Truncated,
    Undersigned,
    Unlisted,
    Withheld,
)
from dtr_audit_simulator.notary.canonical import write_canonical

TIMEOUT = None  # pytest-timeout is the only one
NOW = datetime(2026, 11, 22, 5, tzinfo=UTC)
CHUNK = 65_536
MANY = 100_000


def a_digest(character: str) -> str:
    return f"sha256:{character * 64}"


class DoesNotHold(Exception):  # noqa: N818 - what the trust data does
    """Trust data that does not hold, in a few words."""


def canonical(value: Any) -> bytes:
    """Write canonical JSON, by its definition."""
    match value:
        case dict():
            members = (canonical(name) + b":" + canonical(value[name]) for name in sorted(value))
            return b"{" + b",".join(members) + b"}"
        case list():
            return b"[" + b",".join(canonical(element) for element in value) + b"]"
        case str():
            return b'"' + value.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
        case bool() | None:
            return json.dumps(value).encode()
        case int():
            return str(value).encode()
    raise TypeError(f"{type(value)} has no canonical form")


def verify(key: dict[str, Any], method: str, signature: bytes, message: bytes) -> bool:
    """Tell whether a signature is right, by a key as metadata holds it."""
    material = base64.b64decode(key["keyval"]["public"])
    try:
        if key["keytype"] == "ed25519":
            assert method == "eddsa"
            ed25519.Ed25519PublicKey.from_public_bytes(material).verify(signature, message)
            return True
        if key["keytype"].endswith("-x509"):
            public: Any = x509.load_pem_x509_certificate(material).public_key()
        else:
            public = serialization.load_der_public_key(material)
        if isinstance(public, ec.EllipticCurvePublicKey):
            assert (method, key["keytype"].removesuffix("-x509")) == ("ecdsa", "ecdsa")
            half = (public.key_size + 7) // 8
            assert len(signature) == 2 * half
            pair = (int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
            public.verify(encode_dss_signature(*pair), message, ec.ECDSA(hashes.SHA256()))
            return True
        assert isinstance(public, rsa.RSAPublicKey)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        public.verify(signature, message, {"rsapss": pss, "rsapkcs1v15": padding.PKCS1v15()}[method], hashes.SHA256())
    except InvalidSignature:
        return False
    return True


@dataclass
class Reader:
    """Somebody who reads one GUN's trust data as a client does: the snapshot, and what it lists, by their hashes.

    `known_root` is the last root that was believed, `versions` holds what was seen of each role.
    """

    dtr: DtrServer
    session: requests.Session
    gun: str
    now: datetime = NOW
    known_root: dict[str, Any] | None = None
    versions: dict[str, int] = field(default_factory=dict)
    token: str = ""

    def login(self, scope: str = "", auth: tuple[str, str] | None = None) -> str:
        answer = self.session.get(
            f"{self.dtr.url}/auth/token",
            params={"service": self.dtr.host, "scope": scope or f"repository:{self.gun}:pull"},
            auth=auth or (self.dtr.admin.name, self.dtr.admin.password),
            timeout=TIMEOUT,
        )
        assert answer.status_code == 200
        self.token = answer.json()["token"]
        return self.token

    def get(self, path: str, *, token: str | None = None, **options: Any) -> requests.Response:
        bearer = self.token if token is None else token
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        options.setdefault("allow_redirects", False)
        return self.session.get(self.dtr.url + path, headers=headers, timeout=TIMEOUT, **options)

    def ask(self, file: str, **options: Any) -> requests.Response:
        """Ask for a file of trust data: `root`, `1.root`, `targets.<hash>`."""
        return self.get(f"/v2/{self.gun}/_trust/tuf/{file}.json", **options)

    def fetch(self, file: str) -> bytes:
        answer = self.ask(file)
        if answer.status_code != 200:
            raise DoesNotHold(f"{file.partition('.')[0]} answers {answer.status_code}")
        return answer.content

    def targets(self) -> dict[str, dict[str, str]]:
        """Verify everything, and give the digest that each role signs under each tag. Raises DoesNotHold."""
        root = self._root()
        roles, keys = root["roles"], root["keys"]
        timestamp = self._verified(TIMESTAMP, self.fetch(TIMESTAMP), roles[TIMESTAMP], keys)
        snapshot = self._listed(SNAPSHOT, timestamp, roles[SNAPSHOT], keys)
        self._compare(ROOT, self.fetch(ROOT), snapshot["meta"][ROOT])
        found: dict[str, dict[str, str]] = {}
        left = [(TARGETS, roles[TARGETS], keys, [""])]
        while left:
            role, described, known, paths = left.pop(0)
            try:
                content = self._listed(role, snapshot, described, known)
            except KeyError:
                raise DoesNotHold(f"{role} is not in the snapshot") from None
            found[role] = {
                tag: base64.b64decode(target["hashes"]["sha256"]).hex()
                for tag, target in content["targets"].items()
                if tag.startswith(tuple(paths))
            }
            delegations = content["delegations"]
            for below in delegations["roles"]:
                if below["name"].rpartition("/")[0] != role:
                    raise DoesNotHold(f"{role} delegates to {below['name']}")
                narrowed = [path for path in below["paths"] if path.startswith(tuple(paths))]
                left.append((below["name"], below, delegations["keys"], narrowed))
        return found

    def _root(self) -> dict[str, Any]:
        body = self.fetch(ROOT)
        newest = _parsed(ROOT, body)["signed"]
        chain = [body]
        if self.known_root is not None:
            versions = range(self.known_root["version"] + 1, newest["version"])
            chain = [*(self.fetch(f"{version}.root") for version in versions), body]
        for link in chain:
            content = _parsed(ROOT, link)["signed"]
            for key in (content["keys"][id_] for id_ in content["roles"][ROOT]["keyids"]):
                certificate = x509.load_pem_x509_certificate(base64.b64decode(key["keyval"]["public"]))
                if certificate.subject.rfc4514_string() != f"CN={self.gun}":
                    raise DoesNotHold("root belongs to another GUN")
            if self.known_root is not None and content != self.known_root:
                self._check_signatures("a new root", link, self.known_root["roles"][ROOT], self.known_root["keys"])
            self.known_root = self._verified(ROOT, link, content["roles"][ROOT], content["keys"])
        assert self.known_root is not None
        return self.known_root

    def _listed(self, role: str, above: dict[str, Any], described: dict[str, Any], keys: dict[str, Any]) -> Any:
        meta = above["meta"][role]
        body = self.fetch(f"{role}.{base64.b64decode(meta['hashes']['sha256']).hex()}")
        self._compare(role, body, meta)
        return self._verified(role, body, described, keys)

    def _compare(self, role: str, body: bytes, meta: dict[str, Any]) -> None:
        for name, expected in meta["hashes"].items():
            if hashlib.new(name, body).digest() != base64.b64decode(expected):
                raise DoesNotHold(f"{role} has another hash")
        assert len(body) == meta["length"]

    def _verified(self, role: str, body: bytes, described: dict[str, Any], keys: dict[str, Any]) -> Any:
        self._check_signatures(role, body, described, keys)
        content = _parsed(role, body)["signed"]
        kind = role.partition("/")[0].capitalize()
        if content["_type"] != kind:
            raise DoesNotHold(f"{role} is a {content['_type']}")
        if content["version"] < self.versions.get(role, 0):
            raise DoesNotHold(f"{role} is older than before")
        self.versions[role] = content["version"]
        if datetime.fromisoformat(content["expires"]) <= self.now:
            raise DoesNotHold(f"{role} has expired")
        return content

    def _check_signatures(self, role: str, body: bytes, described: dict[str, Any], keys: dict[str, Any]) -> None:
        file = _parsed(role, body)
        message = canonical(file["signed"])
        for id_ in described["keyids"]:
            assert hashlib.sha256(canonical(keys[id_])).hexdigest() == id_
        signatures = {s["keyid"]: s for s in file["signatures"] if s["keyid"] in described["keyids"]}
        right = [
            id_
            for id_, s in signatures.items()
            if verify(keys[id_], s["method"], base64.b64decode(s["sig"], validate=True), message)
        ]
        if len(right) < described["threshold"]:
            raise DoesNotHold(f"{role} has {len(right)} of {described['threshold']} signatures")


def _parsed(role: str, body: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(body)
    except ValueError:
        raise DoesNotHold(f"{role} is no JSON") from None
    return content


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Bench:
    """A simulated DTR with a Notary, and readers of it."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self.clock = Clock()
        self.notary = Notary(self.clock)

    def serve(self, registry: InMemoryRegistry | None = None, **options: Any) -> DtrServer:
        registry = registry or InMemoryRegistry()
        for name in ("api", "other"):
            registry.create_repository("pay", name)
        self.dtr = self._stack.enter_context(DtrServer(registry, notary=self.notary, **options))
        path = self._directory / "ca.pem"
        path.write_text(self.dtr.ca_bundle)
        self._session = self._stack.enter_context(requests.Session())
        self._session.trust_env = False
        self._session.verify = str(path)
        return self.dtr

    def create(self, name: str = "api", **options: Any) -> TrustRepository:
        return self.notary.create(f"{self.dtr.host}/pay/{name}", **options)

    def reader(self, gun: str = "", *, login: bool = True) -> Reader:
        reader = Reader(self.dtr, self._session, gun or f"{self.dtr.host}/pay/api", now=self.clock.now)
        if login:
            reader.login()
        return reader

    def attack(self, *attacks: Attack) -> None:
        self.dtr.faults = Faults(forged=tuple(Forged(attack) for attack in attacks))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        bench = Bench(stack, tmp_path)
        bench.serve()
        yield bench


def a_repository(bench: Bench) -> TrustRepository:
    """Make trust data of several signers, published in several steps."""
    api = bench.create()
    api.sign("1.0", a_digest("a"))
    api.add_signer("ci")
    api.add_signer("qa")
    api.sign("1.1", a_digest("b"), signer="ci")
    api.add_delegation("targets/pair", make_key(), make_key(KeyType.ED25519), threshold=2)
    api.sign("2.0", a_digest("c"), roles=["targets/pair"])
    return api


HONEST = {
    TARGETS: {"1.0": "a" * 64},
    RELEASES: {"1.1": "b" * 64},
    "targets/ci": {"1.1": "b" * 64},
    "targets/qa": {},
    "targets/pair": {"2.0": "c" * 64},
}


# What is signed


def test_what_is_signed_is_what_a_reader_verifies(bench: Bench) -> None:
    a_repository(bench)
    assert bench.reader().targets() == HONEST


@pytest.mark.parametrize("key_type", KeyType)
def test_every_type_of_key_signs(bench: Bench, key_type: KeyType) -> None:
    root_type = {KeyType.RSA: KeyType.RSA_X509, KeyType.RSA_X509: KeyType.RSA_X509}.get(key_type, KeyType.ECDSA_X509)
    gun = f"{bench.dtr.host}/pay/api"
    keys = {role: [make_key(key_type, name=f"the {role}")] for role in (TARGETS, SNAPSHOT, TIMESTAMP)}
    api = bench.create(keys={ROOT: [make_key(root_type, name=gun)], **keys})
    api.add_signer("ci", make_key(key_type, name="ci"))
    api.sign("1.0", a_digest("a"), signer="ci")
    assert bench.reader().targets()["targets/ci"] == {"1.0": "a" * 64}
    assert [key.type for key in api.keys("targets/ci")] == [key_type]


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_other_curves_sign_with_numbers_of_their_own_length(bench: Bench, curve: ec.EllipticCurve) -> None:
    bench.create(keys={TARGETS: [make_key(curve=curve)]}).sign("1.0", a_digest("a"))
    assert bench.reader().targets()[TARGETS] == {"1.0": "a" * 64}


def test_rsa_signs_with_the_old_padding_too(bench: Bench) -> None:
    bench.create(keys={TARGETS: [make_key(KeyType.RSA, pkcs1v15=True)]}).sign("1.0", a_digest("a"))
    file = json.loads(bench.reader().fetch(TARGETS))
    assert [signature["method"] for signature in file["signatures"]] == ["rsapkcs1v15"]
    assert bench.reader().targets()[TARGETS] == {"1.0": "a" * 64}


def test_rsa_keys_of_another_number_are_others() -> None:
    first, same, other = make_key(KeyType.RSA), make_key(KeyType.RSA), make_key(KeyType.RSA, number=1)
    assert first.id == same.id != other.id


def test_canonical_json_escapes_quotes_and_backslashes_alone() -> None:
    content = {"b": ['"\\', "\n\t\x00\x1f\u2028é<>&"], "a": {"z": None, "é": True, "n": -3}}
    assert write_canonical(content) == canonical(content)
    assert write_canonical({"a": "\n"}) == b'{"a":"\n"}'


def test_strange_tags_are_signed_as_they_are(bench: Bench) -> None:
    tags = ['quoted "tag"', "back\\slash", "line\nbreak", "ü\u2028", "\x00"]
    api = bench.create()
    with api.batch():
        for tag in tags:
            api.sign(tag, a_digest("a"))
    assert sorted(bench.reader().targets()[TARGETS]) == sorted(tags)


def test_a_delegation_may_be_nested_and_confined_to_prefixes(bench: Bench) -> None:
    api = bench.create()
    api.add_delegation("targets/qa", make_key(), paths=["1.", "nightly-"])
    api.add_delegation("targets/qa/nightly", make_key(), paths=["nightly-", "2."])
    for tag in ("1.0", "2.0", "nightly-7"):
        api.sign(tag, a_digest("a"), roles=["targets/qa", "targets/qa/nightly"])
    found = bench.reader().targets()
    assert sorted(found["targets/qa"]) == ["1.0", "nightly-7"]
    assert sorted(found["targets/qa/nightly"]) == ["nightly-7"]


def test_a_signer_signs_alone_and_everybody_together_without_a_signer(bench: Bench) -> None:
    api = bench.create()
    ci, qa = api.add_signer("ci"), api.add_signer("qa")
    api.sign("1.0", a_digest("a"), signer="ci")
    signers = [s["keyid"] for s in json.loads(bench.reader().fetch(RELEASES))["signatures"]]
    assert signers == [ci.id]
    api.sign("1.1", a_digest("a"), roles=[RELEASES])
    assert [s["keyid"] for s in json.loads(bench.reader().fetch(RELEASES))["signatures"]] == [ci.id, qa.id]


def test_one_who_has_no_delegation_cannot_sign(bench: Bench) -> None:
    api = bench.create()
    with pytest.raises(KeyError, match="targets/ci"):
        api.sign("1.0", a_digest("a"), roles=["targets/ci"])
    with pytest.raises(KeyError, match="targets/qa"):
        api.add_delegation("targets/qa/nightly", make_key())
    with pytest.raises(ValueError, match="targets/<name>"):
        api.add_delegation("releases", make_key())
    with pytest.raises(ValueError, match="64 hex digits"):
        api.sign("1.0", "sha256:abc")
    with pytest.raises(ValueError, match="already"):
        bench.create()


def test_a_removed_delegation_is_gone_with_all_below_it(bench: Bench) -> None:
    api = bench.create()
    api.add_signer("ci")
    api.add_delegation("targets/ci/nightly", make_key())
    api.sign("1.0", a_digest("a"), signer="ci")
    api.remove_delegation("targets/ci")
    reader = bench.reader()
    assert reader.targets() == {TARGETS: {}, RELEASES: {"1.0": "a" * 64}}
    assert reader.ask("targets/ci").status_code == reader.ask("targets/ci/nightly").status_code == 404


def test_a_removed_signer_leaves_releases_that_others_sign_or_no_one(bench: Bench) -> None:
    api = bench.create()
    for name in ("ci", "qa"):
        api.add_signer(name)
        api.sign("1.0", a_digest("a"), signer=name)
    api.remove_signer("qa", sign_releases_anew=False)
    with pytest.raises(DoesNotHold, match="targets/releases has 0 of 1 signatures"):
        bench.reader().targets()
    api.sign("1.1", a_digest("b"), signer="ci")
    assert bench.reader().targets()[RELEASES] == {"1.0": "a" * 64, "1.1": "b" * 64}
    api.remove_signer("ci")
    assert bench.reader().targets() == {TARGETS: {}}


def test_a_revoked_tag_is_signed_by_no_one(bench: Bench) -> None:
    api = a_repository(bench)
    api.revoke("1.1")
    assert bench.reader().targets()[RELEASES] == {}
    with pytest.raises(KeyError):
        api.revoke("1.1")


# Keys and time


def test_a_reader_of_any_age_follows_the_rotation_of_roots(bench: Bench) -> None:
    api = bench.create()
    api.sign("1.0", a_digest("a"))
    reader = bench.reader()
    reader.targets()
    for _ in range(3):
        api.rotate(ROOT)
    api.rotate(ROOT, *(make_key(KeyType.ECDSA_X509, name=api.gun) for _ in range(3)), threshold=2)
    assert reader.targets() == bench.reader().targets() == {TARGETS: {"1.0": "a" * 64}}
    assert reader.versions[ROOT] == 5


@pytest.mark.parametrize("role", [TARGETS, SNAPSHOT, TIMESTAMP])
def test_another_role_gets_new_keys_from_the_root(bench: Bench, role: str) -> None:
    api = bench.create()
    api.sign("1.0", a_digest("a"))
    reader, old = bench.reader(), api.keys(role)
    reader.targets()
    api.rotate(role, make_key(), make_key(), threshold=2)
    assert not {key.id for key in old} & {key.id for key in api.keys(role)}
    assert reader.targets() == {TARGETS: {"1.0": "a" * 64}}


def test_a_repository_initialised_again_is_whole_but_no_one_vouches_for_its_root(bench: Bench) -> None:
    api = a_repository(bench)
    reader = bench.reader()
    reader.targets()
    api.reinitialise()
    api.sign("9.0", a_digest("9"))
    assert bench.reader().targets() == {TARGETS: {"9.0": "9" * 64}}
    assert json.loads(reader.fetch(ROOT))["signed"]["version"] == 1
    with pytest.raises(DoesNotHold, match="a new root has 0 of 1 signatures"):
        reader.targets()


def test_root_keys_may_be_certified_by_an_authority(bench: Bench) -> None:
    for name, intermediate in (("api", False), ("other", True)):
        authority = RootAuthority(at=NOW, intermediate=intermediate)
        api = bench.create(name, authority=authority)
        chain = x509.load_pem_x509_certificates(api.keys(ROOT)[0].public)
        chain.append(x509.load_pem_x509_certificate(authority.certificate_pem.encode()))
        assert len(chain) == 2 + intermediate
        for below, above in itertools.pairwise(chain):
            below.verify_directly_issued_by(above)
        assert bench.reader(api.gun).targets() == {TARGETS: {}}


@pytest.mark.parametrize("role", [ROOT, TARGETS, SNAPSHOT, TIMESTAMP, "targets/ci"])
def test_every_role_expires_at_its_time(bench: Bench, role: str) -> None:
    api = a_repository(bench)
    api.set_expiry(role, NOW + timedelta(days=1))
    bench.reader().targets()
    bench.clock.now += timedelta(days=1)
    with pytest.raises(DoesNotHold, match=f"^{role} has expired"):
        bench.reader().targets()
    api.set_expiry(role, None)
    bench.reader().targets()


def test_roles_live_as_long_as_notarys_do(bench: Bench) -> None:
    api = a_repository(bench)
    years = {ROOT: 3650, TARGETS: 1095, SNAPSHOT: 1095, TIMESTAMP: 14, "targets/ci": 1095}
    for role, days in years.items():
        beyond = datetime.fromisoformat(api.signed(role)["expires"]) - NOW - timedelta(days=days)
        assert timedelta(0) < beyond < timedelta(seconds=10)  # no two files expire together


def test_the_timestamp_expires_unless_it_is_renewed(bench: Bench) -> None:
    api = a_repository(bench)
    before = api.revisions[-1]
    bench.clock.now += timedelta(days=15)
    with pytest.raises(DoesNotHold, match="timestamp has expired"):
        bench.reader().targets()
    api.renew_timestamp()
    bench.reader().targets()
    assert {role for role, body in api.revisions[-1].items() if body != before[role]} == {TIMESTAMP}


def test_a_verb_publishes_what_it_changes_and_a_batch_publishes_once(bench: Bench) -> None:
    api = a_repository(bench)
    before, count = api.revisions[-1], len(api.revisions)
    with api.batch():
        for tag in ("3.0", "3.1", "3.2"):
            api.sign(tag, a_digest("d"), signer="ci")
    assert len(api.revisions) == count + 1
    changed = {role for role, body in api.revisions[-1].items() if body != before[role]}
    assert changed == {RELEASES, "targets/ci", SNAPSHOT, TIMESTAMP}


# How it is served


def test_files_are_found_by_name_version_and_hash_however_old(bench: Bench) -> None:
    api = a_repository(bench)
    reader = bench.reader()
    for role in api.roles:
        for revision in api.revisions:
            if role in revision:
                body = revision[role]
                version = json.loads(body)["signed"]["version"]
                assert reader.fetch(f"{version}.{role}") == body
                assert reader.fetch(f"{role}.{hashlib.sha256(body).hexdigest()}") == body
        assert reader.fetch(role) == api.revisions[-1][role]


@pytest.mark.parametrize(
    "file", ["targets/nobody", f"root.{'0' * 64}", "99.root", "0.root", "mirrors", "root.abc", "../root", "targets/"]
)
def test_what_is_not_there_is_404_in_notarys_form(bench: Bench, file: str) -> None:
    a_repository(bench)
    answer = bench.reader().ask(file)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "METADATA_NOT_FOUND")


def test_a_repository_without_trust_data_is_404(bench: Bench) -> None:
    answer = bench.reader().ask(ROOT)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "METADATA_NOT_FOUND")
    bench.create()
    assert bench.reader().ask(ROOT).status_code == 200
    bench.notary.delete(f"{bench.dtr.host}/pay/api")
    assert bench.reader().ask(ROOT).status_code == 404


def test_one_who_asks_is_sent_for_a_token_of_this_very_gun(bench: Bench) -> None:
    a_repository(bench)
    reader = bench.reader(login=False)
    host, gun = bench.dtr.host, reader.gun
    challenged = reader.ask(ROOT)
    expected = f'Bearer realm="https://{host}/auth/token",service="{host}",scope="repository:{gun}:pull"'
    assert (challenged.status_code, challenged.headers["Www-Authenticate"]) == (401, expected)
    assert challenged.json()["errors"][0]["code"] == "UNAUTHORIZED"

    for scope in ("", f"repository:{host}/pay/other:pull", f"repository:{gun}:push", "registry:catalog:*"):
        refused = reader.ask(ROOT, token=reader.login(scope or "registry:catalog:*"))
        assert refused.headers["Www-Authenticate"] == f'{expected},error="insufficient_scope"'
    assert reader.ask(ROOT, token="", auth=(bench.dtr.admin.name, bench.dtr.admin.password)).status_code == 401
    for scope in (f"repository:{gun}:pull", f"repository:{gun}:push,pull"):
        assert reader.ask(ROOT, token=reader.login(scope)).status_code == 200


def test_trust_data_is_for_those_who_may_read_the_repository(tmp_path: Path) -> None:
    accounts = Accounts(
        [
            Account("admin", "right", is_admin=True, access_tokens=frozenset({"an-access-token"})),
            Account("dev", "guess", readable=frozenset({"pay/other"})),
        ]
    )
    with ExitStack() as stack:
        bench = Bench(stack, tmp_path)
        bench.serve(accounts=accounts)
        bench.create("api"), bench.create("other")
        allowed = {
            (name, repository): bench.reader(f"{bench.dtr.host}/pay/{repository}", login=False)
            for name in ("dev", "admin")
            for repository in ("api", "other")
        }
        passwords = {"dev": "guess", "admin": "an-access-token"}
        statuses = {}
        for (name, repository), reader in allowed.items():
            reader.login(auth=(name, passwords[name]))
            statuses[name, repository] = reader.ask(ROOT).status_code
    assert statuses == {
        ("dev", "api"): 401,
        ("dev", "other"): 200,
        ("admin", "api"): 200,
        ("admin", "other"): 200,
    }


def test_one_repository_has_trust_data_under_several_domains(bench: Bench) -> None:
    bench.create().sign("1.0", a_digest("a"))
    bench.notary.create("dtr.example/pay/api").sign("1.0", a_digest("b"))
    assert bench.reader().targets()[TARGETS] == {"1.0": "a" * 64}
    assert bench.reader("dtr.example/pay/api").targets()[TARGETS] == {"1.0": "b" * 64}


def test_the_changefeed_reports_admins_which_guns_carry_trust_data(bench: Bench) -> None:
    reader = bench.reader()
    reader.login("registry:catalog:*")
    feed = "/v2/_trust/changefeed"
    assert reader.get(feed, params={"records": 10}).json() == {"count": 0, "records": None}
    api = bench.create()
    api.sign("1.0", a_digest("a"))
    bench.create("other")
    bench.notary.delete(f"{bench.dtr.host}/pay/other")

    everything = reader.get(feed, params={"records": 0, "change_id": 0}).json()
    assert everything["count"] == 4
    assert [(r["ID"], r["GUN"].split("/")[-1], r["Version"], r["Category"]) for r in everything["records"]] == [
        ("1", "api", 1, "update"),
        ("2", "api", 2, "update"),
        ("3", "other", 1, "update"),
        ("4", "other", 0, "deletion"),
    ]
    assert everything["records"][1]["SHA256"] == hashlib.sha256(api.revisions[-1][TIMESTAMP]).hexdigest()
    assert everything["records"][0]["CreatedAt"] == "2026-11-22T05:00:00Z"

    def ids(**parameters: int) -> list[str]:
        return [record["ID"] for record in reader.get(feed, params=parameters).json()["records"] or []]

    assert ids(records=2, change_id=1) == ["2", "3"]
    assert ids(records=2, change_id=-1) == ["3", "4"]
    assert ids(records=-2, change_id=4) == ["2", "3"]
    assert ids(records=2, change_id=4) == []
    assert reader.get(feed, params={"records": "ten"}).status_code == 400

    reader.login()
    refused = reader.get(feed, params={"records": 10})
    assert (refused.status_code, 'scope="registry:catalog:*"' in refused.headers["Www-Authenticate"]) == (401, True)
    bench.dtr.accounts.add(Account("dev", "guess"))
    reader.login("registry:catalog:*", auth=("dev", "guess"))
    assert reader.get(feed, params={"records": 10}).status_code == 401


# Flags of the registry


def flags(bench: Bench, domain: str = "") -> dict[str, tuple[bool, bool]]:
    reader = bench.reader()
    answer = reader.get(
        "/api/v0/repositories/pay/api/tags", params={"domain": domain or bench.dtr.host, "pageSize": 100}
    )
    return {row["name"]: (row["inNotary"], row["hashMismatch"]) for row in answer.json()}


def test_flags_are_what_the_registry_was_reported_unless_it_has_a_notary(bench: Bench) -> None:
    registry = bench.dtr.backend
    assert isinstance(registry, InMemoryRegistry)
    for tag in ("1.0", "told"):
        registry.push("pay", "api", tag)
    registry.sign("pay", "api", "told")
    bench.create().sign("1.0", registry.tags("pay", "api", "")[0].digest)
    assert flags(bench) == {"1.0": (False, False), "told": (True, False)}


def test_flags_derive_from_trust_data_where_there_is_any(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bench = Bench(stack, tmp_path)
        registry = InMemoryRegistry(notary=bench.notary)
        bench.serve(registry)
        digests = {tag: registry.push("pay", "api", tag).digest for tag in ("1.0", "2.0", "3.0", "told")}
        registry.sign("pay", "api", "told")
        assert flags(bench)["told"] == (True, False)

        api = bench.create()
        assert flags(bench)["told"] == (False, False)
        api.sign("1.0", digests["1.0"])
        api.add_signer("ci")
        api.sign("2.0", digests["2.0"], signer="ci")
        api.sign("3.0", digests["3.0"], roles=["targets/ci"])  # not released
        signed, unsigned, overwritten = (True, False), (False, False), (True, True)
        assert flags(bench) == {"1.0": signed, "2.0": signed, "3.0": unsigned, "told": unsigned}
        assert set(flags(bench, "dtr.example").values()) == {unsigned}
        registry.push("pay", "api", "1.0")
        assert flags(bench)["1.0"] == overwritten
        api.revoke("2.0")
        assert flags(bench)["2.0"] == unsigned

        # And a registry that lies, both ways, about what its Notary holds.
        bench.dtr.faults = Faults(
            rewrites=(
                Rewrite({"inNotary": True, "hashMismatch": False}, tag="2.0", path="pay/api"),
                Rewrite({"inNotary": False, "hashMismatch": False}, tag="1.0", path="pay/api"),
            )
        )
        assert (flags(bench)["2.0"], flags(bench)["1.0"]) == (signed, unsigned)
        assert "2.0" not in bench.reader().targets()[RELEASES]
        assert "1.0" in bench.reader().targets()[TARGETS]


# Attacks


def _evil(content: dict[str, Any]) -> None:
    content["targets"]["1.0"]["hashes"]["sha256"] = base64.b64encode(b"\xee" * 32).decode()


def _as_snapshot(content: dict[str, Any]) -> None:
    content["_type"] = "Snapshot"


ANOTHER_HASH = "has another hash"
ATTACKS: dict[str, tuple[Attack, str]] = {
    "swapped targets": (Swapped("{host}/pay/other", (TARGETS,)), f"targets {ANOTHER_HASH}"),
    "swapped timestamp": (Swapped("{host}/pay/other", (TIMESTAMP,)), "timestamp has 0 of 1"),
    "swapped root": (Swapped("{host}/pay/other", (ROOT,)), "root belongs to another GUN"),
    "swapped everything": (Swapped("{host}/pay/other"), "root belongs to another GUN"),
    "old timestamp": (Replayed(0, (TIMESTAMP,)), "timestamp is older than before"),
    "old snapshot": (Replayed(0, (SNAPSHOT,)), f"snapshot {ANOTHER_HASH}"),
    "old targets": (Replayed(0, (TARGETS,)), f"targets {ANOTHER_HASH}"),
    "old releases": (Replayed(2, (RELEASES,)), f"targets/releases {ANOTHER_HASH}"),
    "withheld root": (Withheld(ROOT), "root answers 404"),
    "withheld targets": (Withheld(TARGETS), "targets answers 404"),
    "truncated root": (Truncated(ROOT), "root is no JSON"),
    "truncated targets": (Truncated(TARGETS, after=100), f"targets {ANOTHER_HASH}"),
    "empty timestamp": (Truncated(TIMESTAMP, after=0), "timestamp is no JSON"),
    "lengthened targets": (Lengthened(TARGETS), f"targets {ANOTHER_HASH}"),
    "lengthened root": (Lengthened(ROOT), f"root {ANOTHER_HASH}"),
    "re-used where its key is not accepted": (Reused(TARGETS, source="targets/ci"), "targets has 0 of 1"),
    "stripped timestamp": (Stripped(TIMESTAMP), "timestamp has 0 of 1"),
    "stripped targets": (Stripped(TARGETS), f"targets {ANOTHER_HASH}"),
    "stripped root by the server": (Stripped(ROOT, consistent=True), "root has 0 of 1"),
    "stripped targets by the server": (Stripped(TARGETS, consistent=True), "targets has 0 of 1"),
    "stripped delegation by the server": (Stripped("targets/ci", consistent=True), "targets/ci has 0 of 1"),
    "undersigned": (Undersigned("targets/pair"), "targets/pair has 1 of 2"),
    "undersigned twice by one": (Undersigned("targets/pair", repeated=True), "targets/pair has 1 of 2"),
    "undersigned on the way": (Undersigned("targets/pair", consistent=False), f"targets/pair {ANOTHER_HASH}"),
    "stranger": (SignedByStranger(TARGETS, consistent=True), "targets has 0 of 1"),
    "stranger's digest": (SignedByStranger("targets/ci", STRANGE_DIGEST, consistent=True), "targets/ci has 0 of 1"),
    "impersonated": (SignedByStranger(TARGETS, impersonating=True, consistent=True), "targets has 0 of 1"),
    "stranger's root": (SignedByStranger(ROOT, consistent=True), "root has 0 of 1"),
    "stranger's timestamp": (SignedByStranger(TIMESTAMP), "timestamp has 0 of 1"),
    "altered on the way": (Altered(TARGETS, _evil), f"targets {ANOTHER_HASH}"),
    "altered by the server": (Altered(TARGETS, _evil, consistent=True), "targets has 0 of 1"),
    "of another type": (Altered(TARGETS, _as_snapshot, signed=True, consistent=True), "targets is a Snapshot"),
    "keys repeated, genuine first": (KeysRepeated(genuine_last=False), "targets has 0 of 1"),
    "keys repeated on the way": (KeysRepeated(consistent=False), f"targets {ANOTHER_HASH}"),
    "not in the snapshot": (Unlisted("targets/ci"), "targets/ci is not in the snapshot"),
    "taken over": (TakenOver(), "a new root has 0 of 1"),
    "expired root": (Expired(ROOT), "root has expired"),
    "expired timestamp": (Expired(TIMESTAMP), "timestamp has expired"),
    "expired delegation": (Expired("targets/ci"), "targets/ci has expired"),
    "cyclic": (Cyclic(), "targets/loop delegates to targets/loop"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_hits_and_leaves_the_repository_honest(bench: Bench, name: str) -> None:
    attack, reason = ATTACKS[name]
    if isinstance(attack, Swapped):
        attack = Swapped(attack.gun.format(host=bench.dtr.host), attack.roles)
    a_repository(bench)
    bench.create("other").sign("1.0", STRANGE_DIGEST)
    reader = bench.reader()
    assert reader.targets() == HONEST
    bench.attack(attack)
    with pytest.raises(DoesNotHold, match=reason):
        reader.targets()
    bench.dtr.faults = Faults()
    assert bench.reader().targets() == HONEST


def test_what_happens_to_a_copy_happens_to_no_one_else(bench: Bench) -> None:
    api = a_repository(bench)
    duplicate, published = api.fork(), bench.notary.publications
    duplicate.sign("1.0", STRANGE_DIGEST)
    duplicate.rotate(ROOT)
    duplicate.add_signer("stranger")
    assert bench.notary.publications == published
    api.sign("9.9", a_digest("9"))
    assert bench.reader().targets() == {**HONEST, TARGETS: {"1.0": "a" * 64, "9.9": "9" * 64}}


def test_every_attack_is_tried() -> None:
    tried = {type(attack) for attack, _ in ATTACKS.values()} | {Crowded, Deep}
    known = {member for _, member in inspect.getmembers(attacks, inspect.isclass) if hasattr(member, "apply")} - {
        attacks.Attack
    }
    assert tried == known


def test_everything_old_looks_whole_to_a_new_reader_and_old_to_one_who_knows_better(bench: Bench) -> None:
    api = a_repository(bench)
    reader = bench.reader()
    reader.targets()
    bench.attack(Replayed(1))
    assert bench.reader().targets() == {TARGETS: {"1.0": "a" * 64}}
    with pytest.raises(DoesNotHold, match="timestamp is older than before"):
        reader.targets()

    # Frozen in time: what was whole then is whole until the timestamp of then expires.
    bench.attack(Replayed(len(api.revisions) - 1))
    api.sign("1.2", a_digest("d"))
    assert "1.2" not in bench.reader().targets()[TARGETS]
    bench.clock.now += timedelta(days=15)
    api.renew_timestamp()
    with pytest.raises(DoesNotHold, match="timestamp has expired"):
        bench.reader().targets()


def test_one_who_is_new_cannot_report_a_repository_that_was_taken_over(bench: Bench) -> None:
    a_repository(bench)
    bench.attack(TakenOver())
    assert set(bench.reader().targets()[RELEASES].values()) == {"e" * 64}


def test_a_repeated_key_hides_the_strangers_content_from_those_who_take_the_last(bench: Bench) -> None:
    a_repository(bench)
    bench.attack(KeysRepeated())
    reader = bench.reader()
    assert reader.targets() == HONEST
    pairs = json.loads(reader.fetch(TARGETS), object_pairs_hook=list)
    assert [name for name, _ in pairs] == ["signed", "signed", "signatures"]
    assert base64.b64encode(b"\xee" * 32) in reader.fetch(TARGETS)


def test_a_file_can_hold_a_hundred_thousand_targets_or_delegations(bench: Bench) -> None:
    a_repository(bench)
    bench.attack(Crowded(targets=MANY))
    assert len(bench.reader().targets()[TARGETS]) == MANY + 1
    bench.attack(Crowded(delegations=MANY))
    assert len(json.loads(bench.reader().fetch(TARGETS))["signed"]["delegations"]["roles"]) == MANY + 4


@pytest.mark.parametrize(("known_key", "attributed"), [(False, 1), (True, MANY + 1)])
def test_a_file_can_hold_a_hundred_thousand_signatures(bench: Bench, known_key: bool, attributed: int) -> None:
    api = a_repository(bench)
    bench.attack(Crowded(signatures=MANY, known_key=known_key))
    reader = bench.reader()
    signatures = json.loads(reader.fetch(TARGETS))["signatures"]
    assert len(signatures) == MANY + 1
    assert sum(signature["keyid"] == api.keys(TARGETS)[0].id for signature in signatures) == attributed
    assert reader.targets() == HONEST


def test_delegations_can_be_very_deep(bench: Bench) -> None:
    a_repository(bench)
    bench.attack(Deep(100))
    found = bench.reader().targets()
    assert len(found) == len(HONEST) + 100
    assert found["targets" + "/d" * 100] == {"deep-99": "e" * 64}


def test_attacks_add_up_and_hit_the_calls_and_guns_they_are_meant_for(bench: Bench) -> None:
    a_repository(bench)
    bench.create("other")
    other = f"{bench.dtr.host}/pay/other"
    bench.dtr.faults = Faults(
        forged=(
            Forged(Expired("targets/ci"), gun="*/pay/api"),
            Forged(Stripped("targets/ci", consistent=True), gun="*/pay/api"),
        )
    )
    with pytest.raises(DoesNotHold, match="targets/ci has 0 of 1"):
        bench.reader().targets()
    assert bench.reader(other).targets() == {TARGETS: {}}

    bench.dtr.faults = Faults(forged=(Forged(Stripped(TIMESTAMP), trust_file(TIMESTAMP, times=1)),))
    reader = bench.reader()
    with pytest.raises(DoesNotHold, match="timestamp"):
        reader.targets()
    assert reader.targets() == HONEST


def test_an_attack_that_lacks_what_it_needs_is_the_tests_mistake(bench: Bench) -> None:
    api = a_repository(bench)
    for attack in (Swapped("dtr.example/no/such"), Truncated("targets/nobody"), Stripped("targets/nobody")):
        with pytest.raises(LookupError):
            attack.apply(api.fork(), bench.notary.find)


@pytest.mark.parametrize("role", [ROOT, TIMESTAMP, TARGETS, RELEASES])
def test_the_calls_for_a_role_are_its_own_alone(bench: Bench, role: str) -> None:
    api = a_repository(bench)
    bench.dtr.faults = Faults(on_calls=(Status(500, trust_file(role, api.gun)),))
    reader = bench.reader()
    for known in api.roles:
        sha256 = hashlib.sha256(api.revisions[-1][known]).hexdigest()
        for file in (known, f"1.{known}", f"{known}.{sha256}"):
            assert reader.ask(file).status_code == (500 if known == role else 200), file


def test_trust_calls_can_go_wrong_in_every_other_way(bench: Bench) -> None:
    a_repository(bench)
    reader = bench.reader()
    bench.dtr.faults = Faults(on_calls=(Status(500, TRUST, shape="html"),))
    assert (reader.ask(ROOT).status_code, reader.ask(ROOT).headers["Content-Type"][:9]) == (500, "text/html")
    assert reader.get("/v2/").status_code == 200
    bench.dtr.faults = Faults(on_calls=(Body(LOGIN_PAGE, TRUST, content_type="text/html"),))
    assert reader.ask(ROOT).content == LOGIN_PAGE
    bench.dtr.faults = Faults(on_calls=(Redirect("https://elsewhere.example/", TRUST),))
    assert reader.ask(ROOT).headers["Location"] == "https://elsewhere.example/"
    bench.dtr.faults = Faults(on_calls=(Closed(TRUST, after_bytes=10),))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        reader.ask(ROOT)
    bench.dtr.faults = Faults(on_calls=(Slow(TRUST, delay=0.2),))
    begin = time.monotonic()
    assert reader.ask(ROOT).status_code == 200
    assert time.monotonic() - begin >= 0.2
    bench.dtr.faults = Faults(on_calls=(EndlessBody(trust_file(TARGETS)),))
    with reader.ask(TARGETS, stream=True) as answer:
        pieces = answer.iter_content(CHUNK)
        assert sum(len(next(pieces)) for _ in range(100)) > 1_000_000
    reader.login("registry:catalog:*")
    bench.dtr.faults = Faults(on_calls=(Status(404, CHANGEFEED, code="METADATA_NOT_FOUND"),))
    assert reader.get("/v2/_trust/changefeed", params={"records": 1}).status_code == 404


@pytest.mark.parametrize(
    "url", ["https://elsewhere.example/auth/token", "http://{host}/auth/token", "https://user@{host}/auth/token"]
)
def test_the_challenge_can_send_for_a_token_to_another_place(bench: Bench, url: str) -> None:
    a_repository(bench)
    reader = bench.reader(login=False)
    bench.dtr.faults = Faults(realm=Realm(url, TRUST))
    realm = url.format(host=bench.dtr.host)
    assert f'realm="{realm}"' in reader.ask(ROOT).headers["Www-Authenticate"]
    assert f'realm="https://{bench.dtr.host}/auth/token"' in reader.get("/v2/").headers["Www-Authenticate"]
    bench.dtr.faults = Faults(realm=Realm(url))
    assert f'realm="{realm}"' in reader.get("/v2/").headers["Www-Authenticate"]


def test_the_service_of_the_profile_is_in_the_challenge(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bench = Bench(stack, tmp_path)
        bench.serve(profile=Profile(service="dtr"))
        assert 'service="dtr"' in bench.reader(login=False).ask(ROOT).headers["Www-Authenticate"]


def test_trust_data_may_change_while_it_is_read(bench: Bench) -> None:
    api = a_repository(bench)
    end = bench.dtr.on_request(lambda _request: api.sign("9.9", a_digest("9")), f"*/_trust/tuf/{SNAPSHOT}.*")
    # The snapshot that the timestamp names is still found by its hash, and all that it lists.
    assert bench.reader().targets() == HONEST
    end()
    assert bench.reader().targets()[TARGETS] == {"1.0": "a" * 64, "9.9": "9" * 64}


# The demonstration's registry


def a_story(bench: Bench) -> InMemoryRegistry:
    registry = InMemoryRegistry(notary=bench.notary)
    story.seed(registry, at=NOW)
    bench.serve(registry)
    story_trust.publish_trust(bench.notary, registry)
    return registry


def signers(found: dict[str, dict[str, str]], tag: str) -> list[str]:
    """Name the roles, other than the releases, that sign a tag with the digest that is released."""
    released = found[RELEASES][tag]
    return [role for role, targets in found.items() if role != RELEASES and targets.get(tag) == released]


def test_every_signed_tag_of_the_story_is_signed_by_those_who_have_to_but_one(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bench = Bench(stack, tmp_path)
        registry = a_story(bench)
        lacking = []
        for repository in registry.repositories():
            signed = registry.signatures(repository.namespace, repository.name)
            if not signed:
                assert bench.notary.find(f"{bench.dtr.host}/{repository.path}") is None
                continue
            found = bench.reader(f"{bench.dtr.host}/{repository.path}").targets()
            assert {tag: f"sha256:{value}" for tag, value in found[RELEASES].items()} == signed
            for tag in signed:
                if f"{TARGETS}/{story_trust.SIGNER}" not in signers(found, tag):
                    lacking.append((repository.namespace, repository.name, tag))
                    assert signers(found, tag) == [f"targets/{story_trust.LONE_SIGNER}"]
            # And the flags are those that the story has without any Notary.
            rows = registry.tags(repository.namespace, repository.name, bench.dtr.host)
            assert {row.name: row.hash_mismatch for row in rows if row.in_notary} == {
                row.name: signed[row.name] != row.digest for row in rows if row.name in signed
            }
        assert lacking == [story_trust.UNTRUSTED]
        assert len(signers(bench.reader(f"{bench.dtr.host}/payments/wallet").targets(), "1.0.0")) == 2


def test_publishing_again_after_changes_publishes_only_what_changed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bench = Bench(stack, tmp_path)
        registry = a_story(bench)
        before = bench.notary.publications
        story_trust.publish_trust(bench.notary, registry)
        assert bench.notary.publications == before
        story.change(registry, after=NOW)
        story_trust.publish_trust(bench.notary, registry)
        changed = [change.gun.partition("/")[2] for change in bench.notary.changes(before)]
        assert sorted(set(changed)) == ["payments/ledger", "platform/toolchain", "web/checkout"]
        found = bench.reader(f"{bench.dtr.host}/payments/ledger").targets()
        assert signers(found, "4.2.1-hotfix") == ["targets/ci", "targets/release-board"]


def test_the_story_has_no_trust_data_before_its_domain_is_known() -> None:
    registry = InMemoryRegistry()
    story.seed(registry, at=NOW)
    with pytest.raises(ValueError, match="start its server first"):
        story_trust.publish_trust(Notary(), registry)
