"""The Notary as its vendor runs it: notary-server, notary-signer that holds the server's keys, and tokens to log in."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from dtr_audit_simulator.http.authority import Certificate, CertificateAuthority
from tests.real.lab.parts import NOTARY_SERVER, NOTARY_SIGNER, executable_path
from tests.real.lab.self_signed import certify_itself
from tests.real.lab.services import Service

_LIFE = timedelta(days=2)


def start_signer(directory: Path, authority: CertificateAuthority) -> Service:
    """Start notary-signer, which `start_server` will reach over TLS, each side proving itself to the other."""
    directory.mkdir()
    _write(directory / "signer", authority.issue("127.0.0.1"))
    _write(directory / "client", _make_client_certificate())
    (directory / "ca.pem").write_text(authority.certificate_pem, encoding="ascii")
    configuration = {
        "server": {
            "grpc_addr": "127.0.0.1:0",
            "tls_cert_file": "signer.pem",
            "tls_key_file": "signer.key",
            "client_ca_file": "client.pem",
        },
        "storage": {"backend": "memory"},
        "logging": {"level": "info"},
    }
    path = _write_configuration(directory / "signer.json", configuration)
    return Service("notary-signer", [executable_path(NOTARY_SIGNER), "-config", path], directory)


def start_server(directory: Path, *, signer: int, realm: str, service: str, tokens_certificate: str) -> Service:
    """Start notary-server beside its signer, in the same `directory`; it trusts tokens from that certificate's key."""
    (directory / "tokens.pem").write_text(tokens_certificate, encoding="ascii")
    configuration = {
        "server": {"http_addr": "127.0.0.1:0"},
        "trust_service": {
            "type": "remote",
            "hostname": "127.0.0.1",
            "port": str(signer),
            "key_algorithm": "ecdsa",
            "tls_ca_file": "ca.pem",
            "tls_client_cert": "client.pem",
            "tls_client_key": "client.key",
        },
        "storage": {"backend": "memory"},
        "auth": {
            "type": "token",
            "options": {
                "realm": realm,
                "service": service,
                "issuer": service,
                # Unlike the others, not relative to this file.
                "rootcertbundle": str(directory / "tokens.pem"),
            },
        },
        "logging": {"level": "info"},
    }
    path = _write_configuration(directory / "server.json", configuration)
    return Service("notary-server", [executable_path(NOTARY_SERVER), "-config", path], directory)


def _make_client_certificate() -> Certificate:
    """Make what notary-server shows to its signer: a certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certify_itself(key, "notary-server", life=_LIFE, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return Certificate(certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), pem.decode("ascii"))


def _write(path: Path, certificate: Certificate) -> None:
    path.with_suffix(".pem").write_text(certificate.certificate_pem, encoding="ascii")
    descriptor = os.open(path.with_suffix(".key"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(certificate.key_pem)


def _write_configuration(path: Path, configuration: object) -> str:
    path.write_text(json.dumps(configuration, indent=2), encoding="ascii")
    return str(path)
