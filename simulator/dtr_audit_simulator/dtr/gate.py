"""Who calls the simulated registry, and how a call is refused."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dtr_audit_simulator.dtr.accounts import Account, Accounts, Token, Tokens
from dtr_audit_simulator.dtr.backend import Backend
from dtr_audit_simulator.dtr.calls import Call, Caller, Profile, Refusal
from dtr_audit_simulator.dtr.echoes import secrets_of
from dtr_audit_simulator.dtr.fault_kinds import (
    Body,
    EndlessBody,
    GzipBomb,
    Redirect,
    Status,
    Unending,
)
from dtr_audit_simulator.dtr.faults import Struck
from dtr_audit_simulator.dtr.spoiled import oversized, replaced
from dtr_audit_simulator.http.transport import Request, Response

PLAIN_TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"


class Gate:
    """Who calls the registry `host` (host[:port], as its clients write it), and how a call is refused."""

    def __init__(self, backend: Backend, accounts: Accounts, *, host: str, profile: Profile, tokens: Tokens) -> None:
        self.host = host
        self.accounts = accounts
        self.tokens = tokens
        self._backend = backend
        self._profile = profile
        self._replica = (("X-Replica-ID", profile.replica_id),)

    def _identify(self, request: Request, struck: Struck) -> Caller:
        kind, _, value = request.header("authorization").partition(" ")
        match kind.lower():
            case "basic":
                name, password = _basic(value)
                account = self.accounts.login(name, password)
                refusal = "the user name or the password is wrong"
            case "bearer":
                account, refusal = self._bearer(request, struck, value.strip())
            case "":
                account, refusal = None, "no credentials were sent"
            case _:
                account, refusal = None, "this kind of authentication is not known"
        if account is None:
            return Caller(refusal=refusal)
        return Caller(account, is_admin=account.is_admin and "admin_rights_lost" not in struck.names)

    def _bearer(self, request: Request, struck: Struck, text: str) -> tuple[Account | None, str]:
        token = self.tokens.find(text)
        if token is None:
            return None, "the token is unknown or has expired"
        if not request.path.startswith("/v2"):
            if "basic_only" in struck.names:
                return None, "bearer tokens are not accepted here"
            if token.service and "tokens_without_service_only" in struck.names:
                return None, f"the token's audience is {token.service}, not this registry"
        account = self.accounts.find(token.account)
        if account is None or not account.is_active:
            return None, "the token belongs to no active account"
        return account, ""

    def _give_token(self, call: Call) -> Response:
        request, struck, caller = call.request, call.struck, call.caller
        refused = caller.account is None and request.header("authorization")
        if refused and "anonymous_as_success" not in struck.names:
            raise Refusal(401, "", caller.refusal, shape="details")
        expires_in = self._profile.expires_in
        token = self.tokens.issue(
            caller.name,
            service=request.parameter("service"),
            access=tuple(scope for scope in request.query.get("scope", ()) if self._is_granted(call, scope)),
            life=expires_in if struck.faults.token_life is None else struck.faults.token_life,
        )
        answer: dict[str, Any] = {
            "token": token.text,
            "access_token": token.text,
            "expires_in": expires_in,
            "issued_at": datetime.fromtimestamp(token.issued_at, UTC).isoformat().replace("+00:00", "Z"),
        }
        if only := struck.faults.token_in_one_field:
            del answer["access_token" if only == "token" else "token"]
        if "token_without_expiry" in struck.names:
            del answer["expires_in"], answer["issued_at"]
        return self._json(answer)

    def _is_granted(self, call: Call, scope: str) -> bool:
        kind, _, rest = scope.partition(":")
        name, _, _ = rest.rpartition(":")
        if kind == "registry":
            return call.caller.is_admin
        # Trust data lies under <domain>/<namespace>/<name>, and the registry may be known by several domains.
        path = "/".join(name.split("/")[-2:])
        return any(entry.path == path and call.caller.may_read(entry) for entry in self._backend.repositories())

    def _token_of(self, request: Request) -> Token | None:
        kind, _, value = request.header("authorization").partition(" ")
        return self.tokens.find(value.strip()) if kind.lower() == "bearer" else None

    def _challenge(self, call: Call, scope: str = "", *, refused: bool = False) -> Response:
        service = self._profile.service or self.host
        realm = f"https://{self.host}/auth/token"
        if call.struck.faults.realm is not None and "realm" in call.struck.names:
            realm = call.struck.faults.realm.url.replace("{host}", self.host)
        challenge = f'Bearer realm="{realm}",service="{service}"'
        if scope:
            challenge += f',scope="{scope}"'
        if refused:
            challenge += ',error="insufficient_scope"'
        errors = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required", "detail": None}]}
        return self._json(errors, 401, headers=(("Www-Authenticate", challenge), *REGISTRY_HEADERS))

    def _require_admin(self, call: Call) -> None:
        if call.caller.account is None:
            raise Refusal(401, "NOT_AUTHENTICATED", call.caller.refusal)
        if not call.caller.is_admin:
            raise Refusal(403, "NOT_AUTHORIZED", "The account must be an admin.")

    def _replacement(self, call: Call) -> Response | None:
        match replaced(call.struck):
            case Status() as call_fault:
                message = call_fault.message or "injected by the simulated registry"
                refusal = Refusal(
                    call_fault.status, call_fault.code or _code(call_fault.status), message, shape=call_fault.shape
                )
                response = self._failure(call, refusal)
                if call_fault.retry_after is not None:
                    retry_after = ("Retry-After", call_fault.retry_after)
                    response = replace(response, headers=(*response.headers, retry_after))
                return response
            case Body() as call_fault:
                encoding = (("Content-Encoding", call_fault.encoding),) if call_fault.encoding else ()
                return Response(
                    call_fault.status, call_fault.content, call_fault.content_type, (*self._replica, *encoding)
                )
            case Redirect() as call_fault:
                location = ("Location", call_fault.location)
                return Response(call_fault.status, content_type=HTML, headers=(location, *self._replica))
            case EndlessBody() | Unending() | GzipBomb() as call_fault:
                return oversized(call_fault)
        return None

    def _failure(self, call: Call, refusal: Refusal) -> Response:
        message, shape = refusal.message, refusal.shape
        if "secrets_echoed" in call.struck.names:
            message = f"{message} ({self._secrets_of(call.request)})"
        if shape == "errors" and "bare_errors" in call.struck.names:
            shape = "bare"
        match shape:
            case "errors":
                error = {"code": refusal.code, "message": message, "detail": {"path": call.request.path}}
                return self._json({"errors": [error]}, refusal.status)
            case "bare":
                return self._json({"code": refusal.code, "message": message}, refusal.status)
            case "details":
                return Response(refusal.status, json.dumps({"details": message}).encode(), PLAIN_TEXT, self._replica)
            case "html":
                # A proxy's own page: it does not know the replica.
                page = f"<html><head><title>{refusal.status}</title></head><body><h1>{message}</h1></body></html>"
                return Response(refusal.status, page.encode(), HTML)
            case "empty":
                return Response(refusal.status, headers=self._replica)
        raise ValueError(f"there is no shape {shape!r} of errors: use errors, bare, details, html or empty")

    def _secrets_of(self, request: Request) -> str:
        header = request.header("authorization")
        kind, _, value = header.partition(" ")
        token = self.tokens.find(value.strip()) if kind.lower() == "bearer" else None
        account = self.accounts.find(token.account if token else _basic(value)[0])
        password = account.password if account else _basic(value)[1]
        return f"Authorization: {header}; password: {password}"

    def _all_secrets_of(self, request: Request) -> list[str]:
        admin = self.accounts.admin
        return secrets_of(request.header("authorization"), (admin.password, *admin.access_tokens), self.tokens.latest)

    def _not_found(self) -> Response:
        return Response(404, b"404 page not found\n", PLAIN_TEXT, self._replica)

    def _json(self, content: object, status: int = 200, *, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        return Response(status, json.dumps(content).encode(), headers=(*headers, *self._replica))


REGISTRY_HEADERS = (("Docker-Distribution-Api-Version", "registry/2.0"),)
_CODES = {
    400: "INVALID_PARAMETERS",
    401: "NOT_AUTHENTICATED",
    403: "NOT_AUTHORIZED",
    404: "NO_SUCH_REPOSITORY",
    503: "STATUS_CHECK_FAILED",
}


def _code(status: int) -> str:
    return _CODES.get(status, "INTERNAL_ERROR")


def _basic(value: str) -> tuple[str, str]:
    try:
        name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password
