"""AWS KMS signs the manifest of a run, with a key that never leaves it."""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from dtr_audit.core.signature import ALGORITHMS, Signature
from dtr_audit.errors import EvidenceError

_REMEDIES = {
    "AccessDeniedException": "the role AuditRole needs kms:GetPublicKey and kms:Sign, in the policy of the key too",
    "DisabledException": "the key is disabled",
    "KMSInvalidStateException": "the key is disabled, or about to be deleted",
    "NotFoundException": "there is no such key in the region of the audit",
    "UnsupportedOperationException": "a key for SIGN_VERIFY is needed",
}


class SigningClient(Protocol):
    """What is asked of AWS KMS."""

    def get_public_key(self, *, KeyId: str) -> Mapping[str, Any]:  # noqa: N803 - the names are AWS's
        """Give the public key, and what the key is for."""

    def sign(self, *, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str) -> Mapping[str, Any]:  # noqa: N803
        """Sign a digest."""


def sign(document: bytes, client: SigningClient, key: str) -> Signature:
    """Have KMS sign a manifest. Raises EvidenceError that says why it cannot."""
    try:
        seen = client.get_public_key(KeyId=key)
        offered = seen.get("SigningAlgorithms") or ()
        algorithm = next((one for one in ALGORITHMS if one in offered), "")
        if not algorithm:
            raise EvidenceError(
                "the signing key offers no algorithm that is used here: a key for SIGN_VERIFY of the kind ECC_NIST_P256, "
                "ECC_NIST_P384 or RSA is needed"
            )
        digest = hashlib.new(ALGORITHMS[algorithm], document).digest()
        signed = client.sign(KeyId=key, Message=digest, MessageType="DIGEST", SigningAlgorithm=algorithm)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "an error"))
        remedy = f": {_REMEDIES[code]}" if code in _REMEDIES else ""
        raise EvidenceError(f"AWS KMS answered {error.operation_name} with {code}{remedy}") from None
    except BotoCoreError as error:
        raise EvidenceError(f"AWS KMS could not be asked ({type(error).__name__})") from None
    return Signature(key, algorithm, signed["Signature"], seen["PublicKey"])
