"""The signature over a run's manifest: what AWS KMS makes of exactly the bytes of `manifest.json`, with a key that never leaves it.

`manifest.json.sig` is the signature as KMS gives it and as openssl takes it: DER (ECDSA-Sig-Value, RFC 3279) by a key on an
elliptic curve, plain octets (RSASSA-PSS, RFC 8017) by an RSA key. It is empty where a key was given and the manifest could not
be signed. `manifest.json.sig.json` names the key and the algorithm, and holds the public key. Whoever could forge the files
could replace that one too: a proof needs the public key from elsewhere.
"""

import base64
import json
import textwrap
from dataclasses import dataclass
from typing import Any

from dtr_audit.core import manifest
from dtr_audit.errors import EvidenceError

NAME = f"{manifest.NAME}.sig"
ABOUT_NAME = f"{NAME}.json"
FORMAT = "dtr-signature-audit/signature/1"
ABOUT_BYTES = 16 * 1024
# The algorithms that are used of those a key offers, with the hash of each; the first of them. A key on a curve offers but one.
ALGORITHMS = {"ECDSA_SHA_256": "sha256", "ECDSA_SHA_384": "sha384", "RSASSA_PSS_SHA_256": "sha256"}


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature, and what it was made with."""

    key: str  # ARN
    algorithm: str  # as KMS calls it
    value: bytes
    public_key: bytes  # DER, SubjectPublicKeyInfo

    def describe(self) -> bytes:
        """Write the content of `manifest.json.sig.json`."""
        document = {
            "format": FORMAT,
            "algorithm": self.algorithm,
            "key": self.key,
            "public_key": _as_pem(self.public_key),
        }
        return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def read_public_key(document: bytes) -> bytes:
    """Read the public key (PEM) that a signature's description holds; raises EvidenceError for what is none."""
    problem = EvidenceError(f"{ABOUT_NAME}: this does not describe a signature ({FORMAT})")
    if len(document) > ABOUT_BYTES:
        raise problem
    try:
        content: Any = json.loads(document)
    except (ValueError, RecursionError):
        raise problem from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise problem
    key = content.get("public_key")
    if not isinstance(key, str) or not key.isascii():
        raise problem
    return key.encode()


def _as_pem(key: bytes) -> str:
    lines = "\n".join(textwrap.wrap(base64.b64encode(key).decode(), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n"
