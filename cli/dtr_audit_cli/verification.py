"""Whether the files of a run still are what the run wrote: each one against the run's manifest, and that against its signature."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from dtr_audit.core import manifest, signature
from dtr_audit.errors import AuditError, EvidenceError

MANIFESTS = "evidence/"
FILE_BYTES = 512 * 1024 * 1024
_CURVES = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}


class VerificationError(AuditError):
    """There is nothing to verify, or it cannot be read."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of one run's files; `faults` names each file that is not what was written, and why."""

    registry: str
    run_id: str
    files: int
    faults: tuple[str, ...]
    signature: str  # what is known of it, in words


PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class Place(Protocol):
    """Where the files lie: a folder, or a bucket."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below a prefix, in order."""

    def read(self, key: str) -> bytes | None:
        """Read one file, None if it is not there."""


class Folder:
    """A folder that mirrors the bucket, such as `out/`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below a prefix, in order."""
        for file in sorted((self._path / prefix).rglob("*")):
            if file.is_file():
                yield file.relative_to(self._path).as_posix()

    def read(self, key: str) -> bytes | None:
        """Read one file, None if it is not there. A key that leads out of the folder is none of its files."""
        parts = PurePosixPath(key)
        if parts.is_absolute() or ".." in parts.parts:
            return None
        file = self._path / key
        return file.read_bytes() if file.is_file() else None


class Bucket:
    """A bucket, read with the credentials of whoever asks."""

    def __init__(self, name: str) -> None:
        import boto3  # noqa: PLC0415 (only here is AWS asked)

        self._name = name
        self._client = boto3.client("s3")

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below a prefix, in order."""
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield entry["Key"]
        except (ClientError, BotoCoreError) as error:
            raise VerificationError(f"s3://{self._name}/{prefix}: it cannot be listed ({error})") from error

    def read(self, key: str) -> bytes | None:
        """Read one file, None if it is not there."""
        try:
            with self._client.get_object(Bucket=self._name, Key=key)["Body"] as body:
                return body.read(FILE_BYTES)
        except self._client.exceptions.NoSuchKey:
            return None
        except (ClientError, BotoCoreError) as error:
            raise VerificationError(f"s3://{self._name}/{key}: it cannot be read ({error})") from error


def find_place(text: str) -> tuple[Place, str]:
    """Tell a folder from `s3://bucket/prefix`; gives the place and the prefix below which runs are looked for."""
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if not bucket:
            raise VerificationError(f"{text}: s3://<bucket> or s3://<bucket>/evidence/… is needed")
        return Bucket(bucket), prefix or MANIFESTS
    if not Path(text).is_dir():
        raise VerificationError(
            f"{text}: there is no such folder; give the one that holds findings/, runs/ and evidence/"
        )
    return Folder(Path(text)), MANIFESTS


def read_public_key(path: Path) -> PublicKey:
    """Read the public key that the verifier trusts, in PEM or DER. Raises VerificationError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VerificationError(f"--public-key {path}: {error.strerror}") from None
    key = _load_public_key(content)
    if key is None:
        raise VerificationError(
            f"--public-key {path}: a public key of the kind ECC_NIST_P256, ECC_NIST_P384 or RSA is needed, in PEM or DER, as "
            "`aws kms get-public-key` gives it"
        )
    return key


def verify(place: Place, prefix: str, trusted: PublicKey | None = None) -> Iterator[Verified]:
    """Verify every run that has a manifest below a prefix; raises VerificationError if none has.

    With a `trusted` key, a manifest that it has not signed is a fault. The key that lies beside the files is never trusted.
    """
    found = False
    for key in place.keys(prefix):
        if key.rsplit("/", 1)[-1] == manifest.NAME:
            found = True
            yield _verify_run(place, key, trusted)
    if not found:
        raise VerificationError(f"no {manifest.NAME} lies below {prefix}: no run has left evidence here")


def _verify_run(place: Place, key: str, trusted: PublicKey | None) -> Verified:
    document = place.read(key) or b""
    listed = manifest.read(document)
    faults = [fault for file in listed.files if (fault := _compare(place.read(file.key), file.sha256, file.key))]
    folder = key.removesuffix(manifest.NAME)
    if not folder.endswith(f"/registry={listed.registry}/{listed.run_id}/"):
        faults.append(f"{key}: it is the manifest of another run, {listed.run_id} of {listed.registry}")
    value, about = folder + signature.NAME, folder + signature.ABOUT_NAME
    known = {key, value, about, *(file.key for file in listed.files)}
    faults += [f"{one}: the manifest does not know it" for one in place.keys(folder) if one not in known]
    said, fault = _verify_signature(document, place.read(value) or b"", place.read(about) or b"", trusted)
    if fault:
        faults.append(f"{key}: {fault}")
    return Verified(listed.registry, listed.run_id, len(listed.files), tuple(faults), said)


def _verify_signature(document: bytes, value: bytes, about: bytes, trusted: PublicKey | None) -> tuple[str, str]:
    """Tell what is known of a manifest's signature, and what is wrong with it."""
    if not value:
        return "not signed", "not signed, so the key given says nothing of it" if trusted else ""
    if trusted:
        if is_signed(document, value, trusted):
            return "signed by the key given", ""
        return "NOT signed by the key given", f"{signature.NAME} is not its signature by the key given"
    try:
        beside = _load_public_key(signature.read_public_key(about))
    except EvidenceError:
        beside = None
    if beside is None:
        return "a signature lies beside it, which was not checked: give its --public-key", ""
    if is_signed(document, value, beside):
        return "signed by the key that lies beside it, which proves nothing: give the --public-key that you trust", ""
    return "NOT signed by the key that lies beside it", f"{signature.NAME} is not its signature by the key beside it"


def is_signed(document: bytes, value: bytes, key: PublicKey) -> bool:
    """Tell whether a signature is that of a document by the owner of a public key."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.AUTO)
            key.verify(value, document, pss, hashes.SHA256())
        else:
            key.verify(value, document, ec.ECDSA(_CURVES[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _load_public_key(content: bytes) -> PublicKey | None:
    """Read a public key of a kind that manifests are signed with."""
    try:
        key = load_pem_public_key(content) if b"-----BEGIN" in content else load_der_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key if key.curve.name in _CURVES else None
    return key if isinstance(key, rsa.RSAPublicKey) else None


def _compare(content: bytes | None, sha256: str, key: str) -> str:
    if content is None:
        return f"{key}: missing"
    if hashlib.sha256(content).hexdigest() != sha256:
        return f"{key}: changed since the run wrote it"
    return ""
