"""A Universal Control Plane for tests and demonstrations: who may log in, where accounts come from, what may run.

    with UcpServer() as ucp:
        ucp.url, ucp.ca_bundle              # another host than the registry's, with an authority of its own
        ucp.admin.name, ucp.admin.password
        ucp.configuration = Configuration(backend="managed", require_content_trust=False)
        ucp.faults = Faults(strikes=(Status(503, CONFIGURATION),))
        ucp.sessions                        # that nobody has ended yet

Only the strikes of `Faults`, and `secrets_echoed`, mean something here.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus

from dtr_audit_simulator.dtr.accounts import Account, Accounts, Tokens
from dtr_audit_simulator.dtr.fault_kinds import Body, Calls, EndlessBody, GzipBomb, Redirect, Status, Unending
from dtr_audit_simulator.dtr.faults import ActiveFaults, Faults
from dtr_audit_simulator.dtr.server import ADMIN, Server
from dtr_audit_simulator.dtr.spoiled import oversized, replaced, spoiled
from dtr_audit_simulator.http.authority import CertificateAuthority, Defect
from dtr_audit_simulator.http.journal import Journal
from dtr_audit_simulator.http.transport import Request, Response

LOGIN = Calls("/auth/login")
LOGOUT = Calls("/id/logout")
AUTHENTICATION = Calls("/enzi/v0/config/auth")
CONFIGURATION = Calls("/api/ucp/config-toml")

SESSION_SECONDS = 3_600.0
PLAIN_TEXT = "text/plain; charset=utf-8"
TOML = "application/toml"

_SENSITIVE_SECTIONS = """
[audit_log_configuration]
level = "request"

[[registries]]
host_address = "dtr.example.mil"
service_id = "service-id-that-must-never-leak"

[auth.saml]
idpMetadataURL = "https://idp.example/?key=metadata-key-that-must-never-leak"

[log_configuration]
host = "tcp://syslog:syslog-password-that-must-never-leak@logs.example:514"
"""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What its administrator has set; None leaves an entry out. `service_backend` is what eNZi says, if not the same."""

    backend: str | None = "ldap"
    require_content_trust: bool | None = True
    require_signature_from: tuple[str, ...] | None = ()
    allow_repos: tuple[str, ...] | None = ()
    service_backend: str = ""

    def toml(self) -> str:
        """Write it as UCP exports it, among sections that must never leak."""
        entries = {
            "require_content_trust": self.require_content_trust,
            "require_signature_from": self.require_signature_from,
            "allow_repos": self.allow_repos,
        }
        lines = ["[auth]", 'default_new_user_role = "restrictedcontrol"']
        if self.backend is not None:
            lines.append(f"backend = {_value(self.backend)}")
        lines += [_SENSITIVE_SECTIONS, "[trust_configuration]"]
        lines += [f"{name} = {_value(value)}" for name, value in entries.items() if value is not None]
        return "\n".join(lines) + "\n"


class UcpApi:
    """Answer as a UCP."""

    def __init__(self, accounts: Accounts, configuration: Configuration, journal: Journal) -> None:
        self.accounts = accounts
        self.configuration = configuration
        self.journal = journal
        self.sessions: set[str] = set()
        self._tokens = Tokens()
        self._active_faults = ActiveFaults()
        self._routes: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("POST", LOGIN.path): self._log_in,
            ("POST", LOGOUT.path): self._log_out,
            ("GET", AUTHENTICATION.path): self._give_authentication,
            ("GET", CONFIGURATION.path): self._give_configuration,
        }

    @property
    def faults(self) -> Faults:
        """What goes wrong at present; assigning starts every count of calls anew."""
        return self._active_faults.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._active_faults = ActiveFaults(faults)

    def answer(self, request: Request) -> Response:
        """Answer a request. May be called from many threads."""
        self.journal.announce(request)
        struck = self._active_faults.apply(request)
        match replaced(struck):
            case Status() as call_fault:
                response = _error(call_fault.status, call_fault.message or "injected by the simulated UCP")
            case Body() as call_fault:
                response = Response(call_fault.status, call_fault.content, call_fault.content_type)
            case Redirect() as call_fault:
                response = Response(call_fault.status, headers=(("Location", call_fault.location),))
            case EndlessBody() | Unending() | GzipBomb() as call_fault:
                response = oversized(call_fault)
            case None:
                response = self._route(request)
        if "secrets_echoed" in struck.names:
            response = replace(response, body=response.body + self._secrets_of(request))
        response = spoiled(response, struck)
        account = self._caller(request)
        self.journal.enter(request, response, account.name if account else "")
        return response

    def _route(self, request: Request) -> Response:
        if request.path == "/_ping" and request.method == "GET":
            return Response(200, b"OK", PLAIN_TEXT)
        route = self._routes.get((request.method, request.path))
        return route(request) if route else _error(404, "page not found")

    def _log_in(self, request: Request) -> Response:
        try:
            wanted = json.loads(request.body)
            name, password = str(wanted["username"]), str(wanted["password"])
        except (ValueError, KeyError, TypeError):
            return _error(400, "invalid login request")
        account = self.accounts.login(name, password)
        if account is None:
            return _error(401, "invalid username or password")
        token = self._tokens.issue(account.name, service="ucp", access=(), life=SESSION_SECONDS)
        self.sessions.add(token.text)
        return _json({"auth_token": token.text})

    def _log_out(self, request: Request) -> Response:
        if self._caller(request) is None:
            return _error(401, "unauthorized")
        self.sessions.discard(_bearer(request))
        return Response(204)

    def _give_authentication(self, request: Request) -> Response:
        account = self._caller(request)
        if account is None:
            return Response(302, headers=(("Location", "/login"),))
        if not account.is_admin:
            return _error(403, "access denied")
        backend = self.configuration.service_backend or self.configuration.backend or "managed"
        return _json({"backend": backend, "defaultNewUserRole": "restrictedcontrol"})

    def _give_configuration(self, request: Request) -> Response:
        account = self._caller(request)
        if account is None:
            return _error(401, "unauthorized")
        if not account.is_admin:
            return _error(403, "access denied")
        return Response(200, self.configuration.toml().encode(), TOML)

    def _caller(self, request: Request) -> Account | None:
        """Find who calls, by a session that has not been ended."""
        text = _bearer(request)
        token = self._tokens.find(text) if text in self.sessions else None
        account = self.accounts.find(token.account) if token else None
        return account if account and account.is_active else None

    def _secrets_of(self, request: Request) -> bytes:
        account = self._caller(request)
        password = account.password if account else ""
        return b"\n" + request.body + f"\n{request.header('authorization')}\n{password}\n".encode()


class UcpServer(Server):
    """Serve a simulated UCP, by default with one administrator with a random password, and as the rule wants it."""

    def __init__(
        self,
        *,
        accounts: Accounts | None = None,
        configuration: Configuration | None = None,
        hostname: str = "localhost",
        authority: CertificateAuthority | None = None,
        defect: Defect | None = None,
    ) -> None:
        journal = Journal()
        authority = authority or CertificateAuthority("Simulated UCP CA")
        super().__init__(journal, hostname=hostname, authority=authority, defect=defect)
        self.accounts = accounts or Accounts([Account(ADMIN, secrets.token_urlsafe(18), is_admin=True)])
        self._api = UcpApi(self.accounts, configuration or Configuration(), journal)

    @property
    def admin(self) -> Account:
        """The first active admin, with the password as it is at the moment."""
        return self.accounts.admin

    @property
    def configuration(self) -> Configuration:
        """What its administrator has set."""
        return self._api.configuration

    @configuration.setter
    def configuration(self, configuration: Configuration) -> None:
        self._api.configuration = configuration

    @property
    def faults(self) -> Faults:
        """What goes wrong at present; assigning starts every count of calls anew."""
        return self._api.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._api.faults = faults

    @property
    def sessions(self) -> int:
        """How many sessions nobody has ended yet."""
        return len(self._api.sessions)

    def _answer(self, request: Request) -> Response:
        return self._api.answer(request)

    def _begin(self, host: str) -> None:
        """Its API does not need to know."""


def _bearer(request: Request) -> str:
    kind, _, value = request.header("authorization").partition(" ")
    return value.strip() if kind.lower() == "bearer" else ""


def _json(content: object, status: int = 200) -> Response:
    return Response(status, json.dumps(content).encode())


def _error(status: int, message: str) -> Response:
    return _json({"code": HTTPStatus(status).phrase, "message": message}, status)


def _value(value: object) -> str:
    """Write a text, a switch or a list of texts as TOML, which is as JSON writes it, but for what is beyond U+FFFF."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
