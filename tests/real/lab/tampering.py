"""Trust data rewritten by hand: by those who hold a repository's keys, and by those who should not.

The vendor's tools make no file that is about to expire, no threshold above one and nothing that is wrong. Here are the
keys of a workstation, read as its own tools read them, and two uses of them: to `republish` a changed file through the
real Notary, and to serve a whole `Counterfeit`, in which all lengths and hashes fit whatever has been changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.real.lab.proxy import TrustFile
from tests.real.lab.self_signed import certify_itself

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
TIMEOUT_SECONDS = 20

_HALF_SIGNATURE = 32  # bytes
_AES_KEY = 32  # bytes
_CERTIFICATE_LIFE = timedelta(days=3650)

Signed = dict[str, Any]
Document = dict[str, Any]


class PrivateKeys:
    """Private keys, found by the public halves that trust data shows, in certificates or bare."""

    def __init__(self, keys: Iterable[ec.EllipticCurvePrivateKey] = ()) -> None:
        self._keys = {_public_bytes(key.public_key()): key for key in keys}

    @classmethod
    def of_trust_directory(cls, directory: Path, passphrase: str) -> PrivateKeys:
        """Read the elliptic-curve keys that Notary's and Docker's clients keep in a trust directory."""
        keys = (_read_key(path, passphrase) for path in (directory / "private").glob("*.key"))
        return cls(key for key in keys if isinstance(key, ec.EllipticCurvePrivateKey))

    def make(self, certified_for: str = "") -> tuple[str, Document]:
        """Make a key, or a root's certificate with its key; gives its id and how trust data describes it."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = _public_bytes(key.public_key())
        self._keys[public] = key
        certified = certified_for and _describe("ecdsa-x509", _certify(key, certified_for))
        described = certified or _describe("ecdsa", public)
        return hashlib.sha256(canonical(described)).hexdigest(), described

    def sign(self, signed: Signed, keys: dict[str, Document]) -> list[Document]:
        """Sign by every one of `keys`, by id, whose private half is here."""
        message = canonical(signed)
        return [
            {"keyid": key_id, "method": "ecdsa", "sig": _sign(self._keys[public], message)}
            for key_id, described in keys.items()
            if (public := _public_part(described)) in self._keys
        ]


class TamperedRepository:
    """A repository's trust data as somebody serves it who holds every key of the server, and perhaps others.

    It begins honest: the current files of the real Notary under a next root, signed by the root key of `keys`, which
    names other keys for the snapshot and the timestamp. Change a document, `sign` it or not, and `seal`: the snapshot
    and the timestamp then fit it. It is a `tamper` of a `TamperingProxy`, and leaves other repositories alone.
    """

    def __init__(self, gun: str, files: Mapping[str, bytes], keys: PrivateKeys) -> None:
        self.gun = gun
        self.keys = keys
        self.documents = parse(files)
        self.raw: dict[str, bytes] = {}  # what travels in a document's place, and is measured so
        root = self.documents[ROOT]["signed"]
        root["version"] += 1
        for role in (SNAPSHOT, TIMESTAMP):
            key_id, described = keys.make()
            root["keys"][key_id] = described
            root["roles"][role] = {"keyids": [key_id], "threshold": 1}
        self.sign(ROOT)
        self.seal()

    def sign(self, role: str) -> None:
        """Sign a document anew, by all keys of its role that are here."""
        sign(self.documents, role, self.keys)

    def keys_of(self, role: str) -> dict[str, Document]:
        """Give the keys that a role's parent names for it, by id."""
        return keys_of(self.documents, role)

    def seal(self) -> None:
        """Write and sign the next snapshot and timestamp over the documents as they are."""
        self.write_snapshot()
        self.write_timestamp()

    def write_snapshot(self) -> None:
        """Write and sign the next snapshot alone."""
        others = [role for role in self.documents if role not in (SNAPSHOT, TIMESTAMP)]
        signed = self.documents[SNAPSHOT]["signed"]
        signed["version"] += 1
        signed["meta"] = {role: _measure(self.content(role)) for role in others}
        self.sign(SNAPSHOT)

    def write_timestamp(self) -> None:
        """Write and sign the next timestamp alone."""
        signed = self.documents[TIMESTAMP]["signed"]
        signed["version"] += 1
        signed["meta"] = {SNAPSHOT: _measure(self.content(SNAPSHOT))}
        self.sign(TIMESTAMP)

    def content(self, role: str) -> bytes:
        """Give a document as it travels."""
        return self.raw.get(role) or write(self.documents[role])

    def __call__(self, file: TrustFile) -> bytes | None:
        """Answer for the repository's own files, by whatever name they are asked for."""
        if file.gun != self.gun or file.role not in self.documents:
            return None
        if file.version and int(file.version) != self.documents[file.role]["signed"]["version"]:
            return None
        return self.content(file.role)


class TrustDesk:
    """The real Notary as a client of its own reads and writes it, file by file."""

    def __init__(self, url: str, ca_file: Path, authorize: Callable[[str, str], str]) -> None:
        self._url = url
        self._ca_file = str(ca_file)
        self._authorize = authorize

    def read(self, gun: str) -> dict[str, bytes]:
        """Read the current files of a repository, by role, those of delegations among them."""
        files = {role: self._read(gun, role) for role in (ROOT, TIMESTAMP, SNAPSHOT)}
        listed = json.loads(files[SNAPSHOT])["signed"]["meta"]
        return files | {role: self._read(gun, role) for role in listed if role != ROOT}

    def republish(self, gun: str, role: str, keys: PrivateKeys, change: Callable[[Signed], None]) -> None:
        """Change a file, sign it as its role's keys and have the Notary accept it as the next version."""
        documents = parse(self.read(gun))
        signed = documents[role]["signed"]
        change(signed)
        signed["version"] += 1
        sign(documents, role, keys)
        answer = requests.post(
            f"{self._url}/v2/{gun}/_trust/tuf/",
            headers={"Authorization": f"Bearer {self._authorize(gun, 'push,pull')}"},
            files={"files": (role, write(documents[role]))},
            verify=self._ca_file,
            timeout=TIMEOUT_SECONDS,
        )
        if not answer.ok:
            raise RuntimeError(f"the Notary does not accept {role} of {gun}: {answer.status_code} {answer.text}")

    def _read(self, gun: str, role: str) -> bytes:
        answer = requests.get(
            f"{self._url}/v2/{gun}/_trust/tuf/{role}.json",
            headers={"Authorization": f"Bearer {self._authorize(gun, 'pull')}"},
            verify=self._ca_file,
            timeout=TIMEOUT_SECONDS,
        )
        answer.raise_for_status()
        return answer.content


def keys_of(documents: dict[str, Document], role: str) -> dict[str, Document]:
    """Give the keys that a role's parent names for it, by id."""
    parent, _, _ = role.rpartition("/")
    if not parent:
        root = documents[ROOT]["signed"]
        return {key_id: root["keys"][key_id] for key_id in root["roles"][role]["keyids"]}
    delegations = documents[parent]["signed"]["delegations"]
    [entry] = [entry for entry in delegations["roles"] if entry["name"] == role]
    return {key_id: delegations["keys"][key_id] for key_id in entry["keyids"]}


def sign(documents: dict[str, Document], role: str, keys: PrivateKeys) -> None:
    """Sign a document anew, by all keys of its role that are at hand."""
    document = documents[role]
    document["signatures"] = keys.sign(document["signed"], keys_of(documents, role))


def parse(files: Mapping[str, bytes]) -> dict[str, Document]:
    """Read files as documents, by role."""
    return {role: json.loads(content) for role, content in files.items()}


def write(document: Document) -> bytes:
    """Give a document as it travels."""
    return json.dumps(document, separators=(",", ":")).encode("utf-8")


def canonical(value: object) -> bytes:
    """Write JSON as it is signed.

    Nothing that is signed here holds a character that JSON must escape, in which the two differ.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def moment(when: datetime) -> str:
    """Write a moment as Go does, without trailing zeros.

    notary-server keeps what it was sent and lists the hash of what it would have written: it finds no other form again.
    """
    text = when.astimezone(UTC).isoformat().removesuffix("+00:00")
    return (text.rstrip("0") if "." in text else text) + "Z"


def expire_in(seconds: float) -> Callable[[Signed], None]:
    """Give a change that lets a file expire after so many seconds."""

    def change(signed: Signed) -> None:
        signed["expires"] = moment(datetime.now(UTC) + timedelta(seconds=seconds))

    return change


def _describe(kind: str, public: bytes) -> Document:
    return {"keytype": kind, "keyval": {"private": None, "public": base64.b64encode(public).decode("ascii")}}


def _certify(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    certificate = certify_itself(key, name, life=_CERTIFICATE_LIFE, usage=ExtendedKeyUsageOID.CODE_SIGNING)
    return certificate.public_bytes(serialization.Encoding.PEM)


def _measure(content: bytes) -> Document:
    return {
        "length": len(content),
        "hashes": {
            "sha256": base64.b64encode(hashlib.sha256(content).digest()).decode("ascii"),
            "sha512": base64.b64encode(hashlib.sha512(content).digest()).decode("ascii"),
        },
    }


def _sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> str:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return base64.b64encode(r.to_bytes(_HALF_SIGNATURE, "big") + s.to_bytes(_HALF_SIGNATURE, "big")).decode("ascii")


def _public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public_part(described: Document) -> bytes:
    content = base64.b64decode(described["keyval"]["public"])
    if not described["keytype"].endswith("-x509"):
        return content
    key = x509.load_pem_x509_certificate(content).public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read_key(path: Path, passphrase: str) -> object:
    """Read a key as Notary writes it: PKCS#8 of a version that `cryptography` does not take."""
    # Between the first line and the key stand headers: role, gun.
    lines = [line for line in path.read_text(encoding="ascii").splitlines() if line and ":" not in line]
    [encrypted] = _parse_der(base64.b64decode("".join(lines[1:-1])))
    algorithm, ciphertext = _parse_der(encrypted)
    _, parameters = _parse_der(algorithm)
    derivation, cipher = _parse_der(parameters)
    _, salted = _parse_der(derivation)
    salt, iterations = _parse_der(salted)
    _, start = _parse_der(cipher)
    derived = PBKDF2HMAC(hashes.SHA1(), _AES_KEY, salt, int.from_bytes(iterations, "big"))  # noqa: S303 - Notary's choice
    decryptor = Cipher(algorithms.AES(derived.derive(passphrase.encode())), modes.CBC(start)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    [plain] = _parse_der(padded[: _end_of_first(padded)])
    _, _, key = _parse_der(plain)
    return serialization.load_der_private_key(key, password=None)


def _parse_der(content: bytes) -> list[bytes]:
    """Give the contents of the values that stand side by side in DER."""
    values = []
    while content:
        begin, end = _begin_of_first(content), _end_of_first(content)
        values.append(content[begin:end])
        content = content[end:]
    return values


def _begin_of_first(content: bytes) -> int:
    return 2 + (content[1] & 0x7F if content[1] & 0x80 else 0)


def _end_of_first(content: bytes) -> int:
    begin = _begin_of_first(content)
    return begin + (int.from_bytes(content[2:begin], "big") if content[1] & 0x80 else content[1])
