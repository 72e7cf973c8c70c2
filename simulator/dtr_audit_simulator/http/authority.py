"""A throw-away certificate authority, so that even tests verify certificates.

`CertificateAuthority().issue("localhost", "127.0.0.1")` is good enough for OpenSSL's strict mode (the default
of Python 3.13); a `Flaw` makes a certificate that a client must refuse. Private keys live in memory; the
`ssl` module only reads files, so `Certificate.load_into` writes one of mode 0600 into a directory of its own
and removes it at once.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=2)
BACKDATED = timedelta(hours=1)  # so that clocks which disagree a little still agree on "valid"


class Defect(enum.Enum):
    """What is wrong with a certificate."""

    NO_AUTHORITY_KEY_IDENTIFIER = "refused in strict mode only: the extension is missing"
    EXPIRED = "its time has run out"
    NOT_YET_VALID = "its time has not come"
    WRONG_HOST = "it names another host"
    OTHER_AUTHORITY = "a CA of the same name, but not the one trusted, issued it"
    COMMON_NAME_ONLY = "it names its host in the Common Name alone; refused in strict mode only"
    MISSING_INTERMEDIATE = "an intermediate CA issued it, whose certificate is not sent along"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A leaf certificate with its private key, both PEM."""

    certificate_pem: str
    key_pem: str = field(repr=False)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make `context` present this certificate."""
        # TemporaryDirectory makes a directory of mode 0700.
        with tempfile.TemporaryDirectory(prefix="dtr-") as directory:
            path = Path(directory) / "leaf.pem"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self.key_pem + self.certificate_pem)
            context.load_cert_chain(path)


class CertificateAuthority:
    """A CA of its own key; made in a millisecond, trusted by nobody who is not given `certificate_pem`.

    `critical_constraints=False` leaves its BasicConstraints extension uncritical, as many private CAs did for
    years: OpenSSL's strict mode refuses the whole chain. With an `issuer` it is an intermediate CA below that one, which
    `sends_itself` with the certificates that it issues, or not. Below it there may be `path_length` CAs, one below another.
    An `expired` one has been valid until an hour ago.
    """

    def __init__(
        self,
        name: str = "Simulated DTR CA",
        *,
        critical_constraints: bool = True,
        issuer: CertificateAuthority | None = None,
        sends_itself: bool = False,
        path_length: int = 1,
        expired: bool = False,
    ) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._sends_itself = sends_itself
        above = issuer or self
        now = datetime.now(UTC) - (LIFE if expired else timedelta())
        key_identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._key_identifier = key_identifier
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._subject)
            .issuer_name(above._subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + LIFE - (BACKDATED if expired else timedelta()))
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=critical_constraints)
            .add_extension(_key_usage(for_authority=True), critical=True)
            .add_extension(key_identifier, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above._key_identifier), critical=False
            )
            .sign(above._key, hashes.SHA256())
        )
        self._name = name
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def issue(self, *hosts: str, defect: Defect | None = None) -> Certificate:
        """Issue a server certificate for host names and IP addresses, at will with a `flaw`."""
        if not hosts:
            raise ValueError("a server certificate needs at least one host name or IP address")
        if defect is Defect.OTHER_AUTHORITY:
            return CertificateAuthority(self._name).issue(*hosts)
        if defect is Defect.MISSING_INTERMEDIATE:
            return CertificateAuthority("Simulated Issuing CA", issuer=self, path_length=0).issue(*hosts)
        if defect is Defect.WRONG_HOST:
            hosts = ("registry.elsewhere.example",)
        not_before = datetime.now(UTC) - BACKDATED
        not_after = not_before + LIFE
        if defect is Defect.EXPIRED:
            not_before, not_after = not_before - LIFE, not_before
        elif defect is Defect.NOT_YET_VALID:
            not_before, not_after = not_before + LIFE, not_after + LIFE
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])]))
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(for_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if defect is not Defect.COMMON_NAME_ONLY:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        if defect is not Defect.NO_AUTHORITY_KEY_IDENTIFIER:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._key_identifier),
                critical=False,
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Certificate(
            certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
            + (self.certificate_pem if self._sends_itself else ""),
            key_pem=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode("ascii"),
        )


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


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
