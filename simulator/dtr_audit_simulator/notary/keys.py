"""Keys as Notary knows them: five types, each with its form of the public key and its way to sign."""

from __future__ import annotations

import base64
import enum
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dtr_audit_simulator.notary.canonical import write_canonical

CERTIFICATE_LIFE = timedelta(days=3653)  # the notary client warns of a certificate that expires within half a year
BACKDATED = timedelta(hours=1)  # so that clocks which disagree a little still agree on "valid"
RSA_BITS = 2048  # the fewest that Notary accepts
RSA_EXPONENT = 65_537
SALT_BYTES = hashlib.sha256().digest_size

_Certifiable = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_Private = _Certifiable | ed25519.Ed25519PrivateKey


class KeyType(enum.StrEnum):
    """How a key is written in the metadata. With x509 it is a certificate (PEM), as every root key has to be."""

    ECDSA = "ecdsa"
    ECDSA_X509 = "ecdsa-x509"
    RSA = "rsa"
    RSA_X509 = "rsa-x509"
    ED25519 = "ed25519"


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair; `method` is what its signatures call themselves."""

    type: KeyType
    method: str
    public: bytes
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", hashlib.sha256(write_canonical(self.described())).hexdigest())

    def described(self) -> dict[str, Any]:
        """Give the public key as metadata holds it."""
        public = base64.b64encode(self.public).decode("ascii")
        return {"keytype": self.type.value, "keyval": {"private": None, "public": public}}

    def signature(self, message: bytes) -> dict[str, str]:
        """Sign, and give the signature as metadata holds it."""
        return {
            "keyid": self.id,
            "method": self.method,
            "sig": base64.b64encode(self.sign(message)).decode("ascii"),
        }


def make_key(
    key_type: KeyType = KeyType.ECDSA,
    *,
    name: str = "",
    authority: RootAuthority | None = None,
    at: datetime | None = None,
    life: timedelta = CERTIFICATE_LIFE,
    curve: ec.EllipticCurve | None = None,
    number: int = 0,
    pkcs1v15: bool = False,
) -> Key:
    """Make a key; an x509 one is certified to `name`, from `at` on, by itself or else by an `authority`.

    A root key's `name` has to be the GUN. An RSA key takes a tenth of a second to make, so those of one `number` share
    the numbers behind them. `pkcs1v15` chooses RSA's old padding.
    """
    private: _Private
    if key_type is KeyType.ED25519:
        private = ed25519.Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    else:
        is_rsa = key_type in (KeyType.RSA, KeyType.RSA_X509)
        private = _rsa_key(number) if is_rsa else ec.generate_private_key(curve or ec.SECP256R1())
        if key_type in (KeyType.ECDSA_X509, KeyType.RSA_X509):
            begin = (at or datetime.now(UTC)) - BACKDATED
            public = _certified(private, name, begin, begin + life, authority)
        else:
            public = private.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
    method, sign = _way_to_sign(private, pkcs1v15=pkcs1v15)
    return Key(key_type, method, public, sign)


class RootAuthority:
    """An authority that certifies root keys, for clients that pin an authority instead of trusting the first root.

    With `intermediate` the certificates come from an authority below it, whose own certificate follows theirs.
    """

    def __init__(
        self, name: str = "Simulated Trust CA", *, at: datetime | None = None, intermediate: bool = False
    ) -> None:
        begin = (at or datetime.now(UTC)) - BACKDATED
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        certificate = _authority_certificate(self._name, self._key, self._name, self._key, begin)
        self.certificate_pem = _pem(certificate).decode("ascii")
        self.chain = b""
        if intermediate:
            upper_name, upper_key = self._name, self._key
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._name = _name(f"{name}, intermediate")
            self.chain = _pem(_authority_certificate(self._name, self._key, upper_name, upper_key, begin))

    def certify(self, builder: x509.CertificateBuilder) -> bytes:
        """Sign a certificate that lacks only its issuer, and give it with its chain (PEM)."""
        return _pem(builder.issuer_name(self._name).sign(self._key, hashes.SHA256())) + self.chain


@functools.cache
def _rsa_key(_number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(RSA_EXPONENT, RSA_BITS)


def _way_to_sign(private: _Private, *, pkcs1v15: bool) -> tuple[str, Callable[[bytes], bytes]]:
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "eddsa", private.sign
    if isinstance(private, rsa.RSAPrivateKey):
        scheme = padding.PKCS1v15() if pkcs1v15 else padding.PSS(padding.MGF1(hashes.SHA256()), SALT_BYTES)
        return "rsapkcs1v15" if pkcs1v15 else "rsapss", lambda message: private.sign(message, scheme, hashes.SHA256())
    octets = (private.curve.key_size + 7) // 8

    def sign(message: bytes) -> bytes:
        # Notary writes the two numbers side by side, not in DER.
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(octets, "big") + s.to_bytes(octets, "big")

    return "ecdsa", sign


def _certified(
    private: _Certifiable, name: str, begin: datetime, end: datetime, authority: RootAuthority | None
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(for_authority=False), critical=True)
    )
    if authority is not None:
        # Without an extended usage: clients that pin an authority let only servers' certificates pass, or any.
        return authority.certify(builder)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return _pem(builder.issuer_name(_name(name)).sign(private, hashes.SHA256()))


def _authority_certificate(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    begin: datetime,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(for_authority=True), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _name(common_name: str) -> x509.Name:
    # A GUN may be longer than the 64 characters of a common name, and Notary does not mind.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name, _validate=False)])


def _key_usage(*, for_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not for_authority,
        key_cert_sign=for_authority,
        crl_sign=for_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
