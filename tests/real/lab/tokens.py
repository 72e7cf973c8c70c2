"""The token server of the registry and its Notary: who logs in gets a token that notary-server itself verifies.

The protocol is the registry's own. Whoever comes without a token is told a realm, a service and a scope; the realm
gives, for a name and a password, a signed JWT that says what its holder may do under that scope.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from dtr_audit_simulator.dtr.accounts import EXPIRES_IN, Account, Accounts, Tokens
from dtr_audit_simulator.http.transport import HttpServer, Request, Response
from tests.real.lab.self_signed import certify_itself

REALM_PATH = "/auth/token"

_CERTIFICATE_LIFE = timedelta(days=2)
_HALF_SIGNATURE = 32  # bytes


class SignedTokens(Tokens):
    """Tokens that prove themselves: JWTs by a key of their own, which `certificate_pem` lets others verify."""

    def __init__(self, issuer: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._issuer = issuer
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = certify_itself(self._key, issuer, life=_CERTIFICATE_LIFE)
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode("ascii")]
        self._header = {"typ": "JWT", "alg": "ES256", "x5c": chain}

    def write(self, account: str, *, service: str, access: tuple[str, ...], issued_at: float, expires_at: float) -> str:
        """Write and sign a token; `access` is a tuple of scopes."""
        claims = {
            "iss": self._issuer,
            "sub": account,
            "aud": service,
            "iat": int(issued_at),
            "nbf": int(issued_at),
            "exp": int(expires_at),
            "jti": secrets.token_hex(8),
            "access": [_grant(scope) for scope in access],
        }
        text = f"{_encode(json.dumps(self._header).encode())}.{_encode(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self._key.sign(text.encode("ascii"), ec.ECDSA(hashes.SHA256())))
        # JOSE wants the two numbers side by side, not in DER.
        return f"{text}.{_encode(r.to_bytes(_HALF_SIGNATURE, 'big') + s.to_bytes(_HALF_SIGNATURE, 'big'))}"


class TokenServer:
    """The realm, in plain HTTP on a port of 127.0.0.1: a front ends TLS.

    Admins get whatever scope they ask for, and others none: as with the front, only admins use the registry.
    """

    def __init__(self, accounts: Accounts, tokens: SignedTokens) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._http = HttpServer(self._answer)

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return self._http.port

    def start(self) -> None:
        """Begin to serve."""
        self._http.start()

    def stop(self) -> None:
        """Close the port and every connection."""
        self._http.stop()

    def _answer(self, request: Request) -> Response:
        if request.method != "GET" or request.path != REALM_PATH:
            return _refuse(404, "not found")
        authorization = request.header("authorization")
        account = self._login(authorization)
        if account is None and authorization:
            return _refuse(401, "the user name or the password is wrong")
        # One parameter may hold several scopes, and there may be several parameters.
        scopes = tuple(scope for value in request.query.get("scope", ()) for scope in value.split())
        token = self._tokens.issue(
            account.name if account else "",
            service=request.parameter("service"),
            access=scopes if account and account.is_admin else (),
            life=EXPIRES_IN,
        )
        answer = {
            "token": token.text,
            "access_token": token.text,
            "expires_in": EXPIRES_IN,
            "issued_at": datetime.fromtimestamp(token.issued_at, UTC).isoformat().replace("+00:00", "Z"),
        }
        return Response(200, json.dumps(answer).encode("ascii"))

    def _login(self, authorization: str) -> Account | None:
        kind, _, value = authorization.partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return self._accounts.login(name, password)


def _refuse(status: int, details: str) -> Response:
    return Response(status, json.dumps({"details": details}).encode("ascii"))


def _grant(scope: str) -> dict[str, object]:
    kind, _, rest = scope.partition(":")
    # The name may hold a colon too: a Notary's begins with host:port.
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")
