"""KMS's signing of a digest, which moto does otherwise than AWS.

Importing this module is all it takes. With `MessageType=DIGEST` moto hashes the digest once more, and salts PSS as long as
there is room. AWS signs the digest that it is given, with a salt of the digest's length: only that is a signature over the
message, as openssl checks it.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.kms.responses import KmsResponse

_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_sign_message = KmsResponse.sign


def _sign(response: KmsResponse) -> str:
    """Answer Sign as moto does, which refuses what AWS refuses; with another signature if the message is a digest."""
    answered = _sign_message(response)
    asked: dict[str, Any] = json.loads(response.body)
    if asked.get("MessageType") != "DIGEST":
        return answered
    held: Any = response.kms_backend.describe_key(asked["KeyId"]).private_key
    key = held.private_key
    algorithm = asked["SigningAlgorithm"]
    digest, hashed = base64.b64decode(asked["Message"]), _HASHES[algorithm[-3:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(digest, ec.ECDSA(Prehashed(hashed)))
    elif isinstance(key, rsa.RSAPrivateKey) and "_PSS_" in algorithm:
        pss = padding.PSS(padding.MGF1(hashed), salt_length=padding.PSS.DIGEST_LENGTH)
        signature = key.sign(digest, pss, Prehashed(hashed))
    else:
        raise NotImplementedError(
            f"a digest signed by {algorithm}: teach it to simulator/dtr_audit_simulator/aws/digest_signing.py"
        )
    return json.dumps({**json.loads(answered), "Signature": base64.b64encode(signature).decode()})


setattr(KmsResponse, "sign", _sign)  # noqa: B010 - the type of a method may not be assigned to
