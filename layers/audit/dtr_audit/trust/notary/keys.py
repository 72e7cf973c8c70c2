"""Signatures, verified with `cryptography`.

Source: Notary, tuf/signed/{verify,verifiers}.go. The hash is always SHA-256, also under P-384 and P-521.
"""

import base64
import re
from collections.abc import Iterable
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from dtr_audit.trust.notary.effort import Effort
from dtr_audit.trust.notary.metadata import Document, Key, Signature, key_id
from dtr_audit.trust.notary.reading import Defect, TrustDefectError

RSA_BITS = range(2_048, 8_192 + 1)  # from below Notary's own limit; beyond, one signature costs too much to look at
CERTIFICATES = 8  # of one key
REMEMBERED = 64

ECDSA, ECDSA_X509, RSA, RSA_X509, ED25519 = "ecdsa", "ecdsa-x509", "rsa", "rsa-x509", "ed25519"

# Which keys make which signatures. Notary knows one method more, `pycrypto-pkcs#1 pss`, which it says does not work.
_KINDS = {
    "ecdsa": (ECDSA, ECDSA_X509),
    "rsapss": (RSA, RSA_X509),
    "rsapkcs1v15": (RSA, RSA_X509),
    "eddsa": (ED25519,),
}
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")

# What `cryptography` raises for what is no key or certificate, or one that it does not know.
KEY_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


def verify_document(
    document: Document, keys: Iterable[Key], threshold: int, whose: str, effort: Effort
) -> frozenset[str]:
    """Give the ids of the keys that have signed a document; raises FlawError if they are fewer than the threshold.

    A key counts once, under however many ids and certificates it comes.
    """
    by_id = {key.id: key for key in keys}
    signed: dict[bytes, str] = {}
    for signature in document.signatures:
        key = by_id.get(signature.key_id)
        if key is None or signature.key_id in signed.values():
            continue
        effort.check_signature()
        public = load(key)
        if public is not None and _is_valid(public, key.kind, signature, document.message):
            signed[_identity(public)] = key.id
    if len(signed) >= threshold:
        return frozenset(signed.values())
    if not signed:
        raise TrustDefectError(
            Defect.SIGNATURE, document.role, f"signature invalid: {document.role} is not signed by {whose}"
        )
    raise TrustDefectError(
        Defect.THRESHOLD,
        document.role,
        f"signature invalid: {document.role} has {len(signed)} valid signatures of {whose}, and {threshold} are needed",
    )


def is_signed_by(document: Document, keys: Iterable[Key], threshold: int, effort: Effort) -> bool:
    """Tell whether enough of the keys have signed a document."""
    try:
        verify_document(document, keys, threshold, "", effort)
    except TrustDefectError:
        return False
    return True


@lru_cache(maxsize=REMEMBERED)
def load(key: Key) -> PublicKeyTypes | None:
    """Give the key in a form that verifies; None for one of a kind, curve or size that nothing is verified with."""
    try:
        if key.kind in {ECDSA_X509, RSA_X509}:
            chain = certificates(key)
            public: PublicKeyTypes | None = chain[0].public_key() if chain else None
        elif key.kind == ED25519:
            public = Ed25519PublicKey.from_public_bytes(key.public)
        elif key.kind in {ECDSA, RSA}:
            public = load_der_public_key(key.public)
        else:
            return None
    except KEY_ERRORS:
        return None
    if isinstance(public, ec.EllipticCurvePublicKey) and key.kind in {ECDSA, ECDSA_X509}:
        return public if isinstance(public.curve, _CURVES) else None
    if isinstance(public, rsa.RSAPublicKey) and key.kind in {RSA, RSA_X509}:
        return public if public.key_size in RSA_BITS else None
    return public if isinstance(public, Ed25519PublicKey) and key.kind == ED25519 else None


def certificates(key: Key) -> list[x509.Certificate]:
    """Give the certificates of an x509 key, its own first; empty if they are no bundle of certificates and nothing else.

    Source: tuf/utils/x509.go, LoadCertBundleFromPEM.
    """
    if key.kind not in {ECDSA_X509, RSA_X509} or _CERTIFICATE.sub(b"", key.public).strip():
        return []
    blocks = _CERTIFICATE.findall(key.public)
    if len(blocks) > CERTIFICATES:
        return []
    try:
        return [
            x509.load_der_x509_certificate(base64.b64decode(b"".join(block.split()), validate=True)) for block in blocks
        ]
    except KEY_ERRORS:
        return []


def public_key_id(key: Key) -> str:
    """Give the id of the key itself, as `notary key list` and the files of private keys name it, certificate or not.

    Source: tuf/utils/x509.go, CanonicalKeyID. '' for a key that does not load.
    """
    public = load(key)
    if public is None or key.kind not in {ECDSA_X509, RSA_X509}:
        return key.id if public is not None else ""
    return key_id(key.kind.removesuffix("-x509"), _identity(public))


def _identity(public: PublicKeyTypes) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_valid(public: PublicKeyTypes, kind: str, signature: Signature, message: bytes) -> bool:
    if kind not in _KINDS.get(signature.method, ()):
        return False
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            size = (public.key_size + 7) // 8
            if len(signature.value) != 2 * size:
                return False
            r, s = (int.from_bytes(half, "big") for half in (signature.value[:size], signature.value[size:]))
            public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        elif isinstance(public, rsa.RSAPublicKey):
            scheme = _PSS if signature.method == "rsapss" else padding.PKCS1v15()
            public.verify(signature.value, message, scheme, hashes.SHA256())
        elif isinstance(public, Ed25519PublicKey):
            public.verify(signature.value, message)
        else:
            return False
    except (InvalidSignature, *KEY_ERRORS):
        return False
    return True
