"""A publisher of trust data and the Notary that serves it, small enough to lie in every way.

    publisher = Publisher()
    publisher.sign("targets", "1.0", DIGEST)
    notary = Notary(publisher.publish())      # what `verify` reads from
    notary.served["timestamp"] = b"…"         # and what an attacker makes of it

It shares no code with what it tests: canonical JSON is made by the standard library, which agrees with it for the texts used here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

GUN = "dtr.example.com/payments/api"
NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
DIGEST = "sha256:" + "1" * 64
OTHER_DIGEST = "sha256:" + "2" * 64
YEAR = timedelta(days=365)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | Ed25519PrivateKey


@dataclass(frozen=True)
class SigningKey:
    """A private key with its public half as Notary writes it."""

    private: PrivateKey = field(repr=False)
    kind: str
    public: bytes = field(repr=False)
    method: str

    @property
    def entry(self) -> dict[str, Any]:
        return {"keytype": self.kind, "keyval": {"private": None, "public": base64.b64encode(self.public).decode()}}

    @property
    def id(self) -> str:
        return hashlib.sha256(canonical(self.entry)).hexdigest()

    def sign(self, message: bytes) -> dict[str, str]:
        return {"keyid": self.id, "method": self.method, "sig": base64.b64encode(self._sign(message)).decode()}

    def _sign(self, message: bytes) -> bytes:
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            size = (self.private.key_size + 7) // 8
            r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if isinstance(self.private, rsa.RSAPrivateKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
            return self.private.sign(message, pss if self.method == "rsapss" else padding.PKCS1v15(), hashes.SHA256())
        return self.private.sign(message)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def elliptic(curve: ec.EllipticCurve | None = None) -> SigningKey:
    private = ec.generate_private_key(curve or ec.SECP256R1())
    return SigningKey(private, "ecdsa", _der(private), "ecdsa")


def edwards() -> SigningKey:
    private = Ed25519PrivateKey.generate()
    return SigningKey(private, "ed25519", private.public_key().public_bytes_raw(), "eddsa")


@lru_cache
def rsa_private(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def rivest(method: str = "rsapss", bits: int = 2048) -> SigningKey:
    private = rsa_private(bits)
    return SigningKey(private, "rsa", _der(private), method)


@dataclass
class Authority:
    """A certificate authority, or one below another."""

    name: str = "Authority"
    above: Authority | None = None
    begins: datetime = NOW - YEAR
    ends: datetime = NOW + 20 * YEAR
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    is_authority: bool = True

    def __post_init__(self) -> None:
        issuer = self.above or self
        self.certificate = _certificate(
            self.name,
            self.private,
            issuer=(issuer.name, issuer.private),
            validity=(self.begins, self.ends),
            is_authority=self.is_authority,
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()


def certified(
    common_name: str = GUN,
    *,
    private: PrivateKey | None = None,
    begins: datetime = NOW - YEAR,
    ends: datetime = NOW + 10 * YEAR,
    authority: Authority | None = None,
    with_chain: bool = True,
    method: str = "rsapss",
) -> SigningKey:
    """Make a key in a certificate, signed by itself as Notary does, or by an authority, with those between in the bundle."""
    private = private or ec.generate_private_key(ec.SECP256R1())
    issuer = (authority.name, authority.private) if authority else (common_name, private)
    bundle = [_certificate(common_name, private, issuer=issuer, validity=(begins, ends), is_authority=False)]
    while with_chain and authority is not None and authority.above is not None:
        bundle.append(authority.certificate)
        authority = authority.above
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in bundle)
    if isinstance(private, rsa.RSAPrivateKey):
        return SigningKey(private, "rsa-x509", pem, method)
    return SigningKey(private, "ecdsa-x509", pem, "ecdsa")


def _certificate(
    name: str,
    private: PrivateKey,
    *,
    issuer: tuple[str, PrivateKey],
    validity: tuple[datetime, datetime],
    is_authority: bool,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer[0]))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(issuer[1], hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _der(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class RoleKeys:
    """Who may sign for a role, and who does (`signed_by`: None is the same)."""

    keys: list[SigningKey]
    threshold: int = 1
    paths: list[str] = field(default_factory=lambda: [""])
    signed_by: list[SigningKey] | None = None


class Publisher:
    """One repository's trust data. Each `publish` raises every version by one, unless `versions` is set before."""

    def __init__(self, gun: str = GUN, root_key: SigningKey | None = None) -> None:
        self.gun = gun
        self.roles: dict[str, RoleKeys] = {
            "root": RoleKeys([root_key or certified(gun)]),
            "timestamp": RoleKeys([elliptic()]),
            "snapshot": RoleKeys([elliptic()]),
            "targets": RoleKeys([elliptic()]),
        }
        self.targets: dict[str, dict[str, Any]] = {"targets": {}}
        self.versions: dict[str, int] = {}
        self.expires: dict[str, datetime] = {}
        self.unpublished: set[str] = set()
        self.signed_root_by: list[SigningKey] = []  # besides the role's own keys
        self._published: dict[str, bytes] = {}

    def delegate(self, role: str, *keys: SigningKey, threshold: int = 1, paths: list[str] | None = None) -> RoleKeys:
        self.roles[role] = RoleKeys(list(keys) or [elliptic()], threshold, [""] if paths is None else paths)
        self.targets[role] = {}
        return self.roles[role]

    def sign(self, role: str, tag: str, digest: str = DIGEST) -> None:
        algorithm, _, value = digest.partition(":")
        entry = {"hashes": {algorithm: base64.b64encode(bytes.fromhex(value)).decode()}, "length": 1234}
        self.targets[role][tag] = entry

    def rotate_root(self, *new: SigningKey) -> None:
        self.signed_root_by += self.roles["root"].keys
        self.roles["root"].keys = list(new) or [certified(self.gun)]

    def publish(self) -> dict[str, bytes]:
        """Give everything that a Notary would serve, all that was published before among it."""
        root = self._document("root", self._root())
        self.signed_root_by = []
        files = {"root": root}
        for role in self.targets:
            if role not in self.unpublished:
                files[role] = self._document(role, self._targets(role))
        snapshot = self._document("snapshot", {"_type": "Snapshot", "meta": {n: meta(b) for n, b in files.items()}})
        timestamp = self._document("timestamp", {"_type": "Timestamp", "meta": {"snapshot": meta(snapshot)}})
        self._published |= {"root": root, f"{self.versions['root']}.root": root, "timestamp": timestamp}
        for name, body in (files | {"snapshot": snapshot}).items():
            self._published[f"{name}.{hashlib.sha256(body).hexdigest()}"] = body
        return dict(self._published)

    def envelope(self, role: str, signed: Mapping[str, Any]) -> bytes:
        keys = self.roles[role]
        signers = list(keys.keys if keys.signed_by is None else keys.signed_by)
        if role == "root":
            signers += self.signed_root_by
        return json.dumps({"signed": signed, "signatures": [key.sign(canonical(signed)) for key in signers]}).encode()

    def _document(self, role: str, content: dict[str, Any]) -> bytes:
        self.versions[role] = self.versions.get(role, 0) + 1
        default = NOW + (timedelta(days=14) if role == "timestamp" else 3 * YEAR)
        expires = self.expires.get(role, default).isoformat().replace("+00:00", "Z")
        return self.envelope(role, {**content, "version": self.versions[role], "expires": expires})

    def _root(self) -> dict[str, Any]:
        top = {role: self.roles[role] for role in ("root", "timestamp", "snapshot", "targets")}
        return {
            "_type": "Root",
            "consistent_snapshot": False,
            "keys": {key.id: key.entry for keys in top.values() for key in keys.keys},
            "roles": {
                role: {"keyids": [key.id for key in keys.keys], "threshold": keys.threshold}
                for role, keys in top.items()
            },
        }

    def _targets(self, role: str) -> dict[str, Any]:
        below = {name: keys for name, keys in self.roles.items() if name.rpartition("/")[0] == role}
        return {
            "_type": "Targets",
            "targets": self.targets[role],
            "delegations": {
                "keys": {key.id: key.entry for keys in below.values() for key in keys.keys},
                "roles": [
                    {
                        "name": name,
                        "keyids": [key.id for key in keys.keys],
                        "threshold": keys.threshold,
                        "paths": keys.paths,
                    }
                    for name, keys in below.items()
                ],
            },
        }


def meta(body: bytes) -> dict[str, Any]:
    return {
        "length": len(body),
        "hashes": {
            "sha256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
            "sha512": base64.b64encode(hashlib.sha512(body).digest()).decode(),
        },
    }


class Notary:
    """Serves documents by name, and remembers what was asked for."""

    def __init__(self, served: dict[str, bytes] | None = None, gun: str = GUN) -> None:
        self.gun = gun
        self.served = served or {}
        self.asked: list[str] = []
        self.error: Exception | None = None

    def fetch(self, gun: str, name: str) -> bytes | None:
        assert gun == self.gun
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return self.served.get(name)

    def forge(self, role: str, body: bytes) -> None:
        """Serve other bytes in the place of a document, under every name that it has."""
        for name in self.served:
            if name == role or name.rpartition(".")[0] == role:
                self.served[name] = body
