"""Certificates that vouch for themselves, as the keys of a registry's tokens, a Notary's client and its publishers have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def certify_itself(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    name: str,
    *,
    life: timedelta,
    usage: x509.ObjectIdentifier | None = None,
) -> x509.Certificate:
    """Give the certificate by which a key vouches for itself under a name, for one `usage` alone if it is given."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + life)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(key, hashes.SHA256())
