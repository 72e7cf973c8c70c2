"""UCP's HTTP API (MKE's, in later versions), as far as the rule's Discussion goes: LDAP, and the running of signed images alone.

Sources: the STIG's own checks of UCP (V-235780, V-235847) and the vendor's reference of its configuration. An answer of another
form than theirs is no answer: it is said, never guessed. Nothing that UCP says in its errors is passed on.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtr_audit.core.credentials import UcpCredentials
from dtr_audit.core.documents import parse_json
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, ContradictionError, RegistryError, UcpError
from dtr_audit.http.exchange import BODY_BYTES, Answer, Clock, Endpoint
from dtr_audit.http.memory_budget import BUDGET, Charge
from dtr_audit.http.transport import Transport

ANSWER_BYTES = 512 * 1024  # the configuration with a few bundles of authorities in it
PARSED_BYTES = 24 * 1024 * 1024  # of memory for it, parsed
LINE_DOTS = 500  # that reader's time and memory grow with the square of a dotted key's length
TOKEN_LENGTH = 16_384
NAME_LENGTH = 128

# What an entry means that the configuration leaves out, as the vendor's reference of it has it.
DEFAULT_BACKEND = "managed"
DEFAULT_CONTENT_TRUST = False
# Of a configuration at least one of these is written. A document without them is none, and nothing is left out of it.
_SECTIONS = frozenset(
    {
        *(
            "auth",
            "registries",
            "scheduling_configuration",
            "tracking_configuration",
            "trust_configuration",
            "cluster_config",
        ),
        *("log_configuration", "audit_log_configuration", "license_configuration", "hub_configuration"),
    }
)

LOGIN = "/auth/login"
LOGOUT = "/id/logout"
AUTHENTICATION = "/enzi/v0/config/auth"
CONFIGURATION = "/api/ucp/config-toml"

_ENDPOINT = Endpoint("UCP", "UCP_URL", '"ucp_ca_bundle" (without it, "ca_bundle")')


@dataclass(frozen=True, slots=True)
class Trust:
    """The section `trust_configuration`; None is what it does not say in the documented form."""

    require_content_trust: bool | None
    require_signature_from: tuple[str, ...] | None  # empty: any account of UCP
    allow_repos: tuple[str, ...] | None  # repositories whose images run unsigned
    is_left_out: bool = False  # require_content_trust is: it has the vendor's default


@dataclass(frozen=True, slots=True)
class Configuration:
    """What matters of UCP's configuration; the rest of it, which holds secrets, is dropped at once.

    None is what it does not say in the documented form.
    """

    backend: str | None  # of the accounts: managed | ldap
    trust: Trust | None
    is_backend_left_out: bool = False  # it has the vendor's default


class UcpClient:
    """One UCP, seen with one administrator's eyes."""

    def __init__(
        self,
        url: str,
        credentials: UcpCredentials,
        *,
        x509_strict: bool,
        stop_at: float,
        clock: Clock | None = None,
    ) -> None:
        """Prepare; `stop_at` is on the clock. Raises SettingsError for a bundle without certificates; asks nothing yet."""
        self._credentials = credentials
        REDACTOR.learn_password(credentials.username, credentials.password)
        self._authorization = ""
        self._transport = Transport(
            url,
            ca_bundle=credentials.ca_bundle,
            x509_strict=x509_strict,
            connections=1,
            stop_at=stop_at,
            clock=clock,
            endpoint=_ENDPOINT,
        )

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def log_in(self) -> None:
        """Open a session, at one attempt: wrong credentials count against the account's lock. Raises UcpError or its kin."""
        account = {"username": self._credentials.username, "password": self._credentials.password}
        answer = self._transport.post(LOGIN, json.dumps(account).encode())
        if answer.status in {400, 401, 403}:
            raise UcpError(
                f"POST {LOGIN}: {answer.status}, UCP does not accept the credentials. Put those of an administrator of UCP into "
                '"ucp_username" and "ucp_password" in the secret'
            )
        if answer.status != 200:
            remedy = ". Is UCP_URL the address of UCP?" if answer.status == 404 else ""
            raise UcpError(f"POST {LOGIN}: {answer.status}{_hint(answer)}{remedy}")
        token = _token(answer)
        if not token:
            raise UcpError(
                f"POST {LOGIN}: answered 200, but with no token. Is a login page or another product at UCP_URL?"
            )
        REDACTOR.learn_token(token)
        self._authorization = f"Bearer {token}"

    def log_out(self) -> None:
        """End the session, if there is one and UCP lets it: an account may only have so many."""
        if not self._authorization:
            return
        authorization, self._authorization = self._authorization, ""
        try:
            self._transport.post(LOGOUT, authorization=authorization)
        except AuditError:
            # It ends by itself within the hour.
            return

    def read_backend(self) -> str:
        """Give where accounts come from, `managed` or `ldap`, as the authentication service says. Raises UcpError or its kin."""
        answer = self._get(AUTHENTICATION, "application/json")
        document = _json(answer)
        backend = self._text(document.get("backend")) if isinstance(document, dict) else None
        if not backend:
            raise UcpError(f"GET {AUTHENTICATION}: the answer does not name the backend{_hint(answer)}")
        return backend

    def read_configuration(self) -> Configuration:
        """Give what matters of the configuration. Raises UcpError or its kin."""
        with BUDGET.charge(PARSED_BYTES) as charge:
            return self._read_configuration(charge)

    def _read_configuration(self, charge: Charge) -> Configuration:
        answer = self._get(CONFIGURATION, "application/toml", charge)
        try:
            charge.grow(_estimate_toml(answer.body), lambda: self._transport.check_time(CONFIGURATION))
        except RegistryError as error:
            raise UcpError(f"GET {CONFIGURATION}: {error}") from None
        try:
            document = _toml(answer.body)
        except (ValueError, RecursionError):
            # Raised from nothing on purpose: what is read here holds secrets.
            raise UcpError(
                f"GET {CONFIGURATION}: the answer is not the TOML of a configuration{_hint(answer)}"
            ) from None
        if not document.keys() & _SECTIONS:
            raise UcpError(f"GET {CONFIGURATION}: the answer has no section of a configuration")
        # A section that is left out leaves out each of its entries.
        auth, trust = document.get("auth", {}), document.get("trust_configuration", {})
        return Configuration(
            backend=self._text(auth.get("backend", DEFAULT_BACKEND)) if isinstance(auth, dict) else None,
            trust=self._trust(trust) if isinstance(trust, dict) else None,
            is_backend_left_out=isinstance(auth, dict) and "backend" not in auth,
        )

    def _get(self, path: str, accept: str, charge: Charge | None = None) -> Answer:
        limit = ANSWER_BYTES if charge else BODY_BYTES
        answer = self._transport.get(path, authorization=self._authorization, accept=accept, limit=limit, charge=charge)
        if answer.status == 403:
            raise UcpError(f"GET {path}: 403, the account is not an administrator of UCP")
        if answer.status != 200:
            raise UcpError(f"GET {path}: {answer.status}{_hint(answer)}")
        return answer

    def _trust(self, section: Mapping[str, Any]) -> Trust:
        required = section.get("require_content_trust", DEFAULT_CONTENT_TRUST)
        return Trust(
            require_content_trust=required if isinstance(required, bool) else None,
            require_signature_from=self._names(section, "require_signature_from"),
            allow_repos=self._names(section, "allow_repos"),
            is_left_out="require_content_trust" not in section,
        )

    def _names(self, section: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
        """Read a list of names; one that is left out is empty, as UCP's reference says."""
        names = section.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        return tuple(self._text(name) or "" for name in names)

    def _text(self, value: object) -> str | None:
        return clean(value, NAME_LENGTH) if isinstance(value, str) else None


def _token(answer: Answer) -> str:
    document = _json(answer)
    token = document.get("auth_token") if isinstance(document, dict) else None
    usable = isinstance(token, str) and len(token) <= TOKEN_LENGTH and re.fullmatch(r"[!-~]+", token)
    return str(token) if usable else ""


def _json(answer: Answer) -> Any:
    try:
        return parse_json(answer.body)
    except (ContradictionError, ValueError, RecursionError):
        return None


def _toml(body: bytes) -> dict[str, Any]:
    """Read TOML; raises ValueError, or RecursionError."""
    if any(line.count(b".") > LINE_DOTS for line in body.split(b"\n")):
        raise ValueError("a line with more dots than any configuration has")
    return tomllib.loads(body.decode())


def _estimate_toml(body: bytes) -> int:
    """Estimate what a TOML text takes while it is parsed, itself included; never less than it does."""
    return (
        4 * len(body)
        + 2_000 * body.count(b".")  # each table of a dotted key, with what the parser notes of it
        + 900 * body.count(b"[")
        + 200 * body.count(b"=")
        + 80 * body.count(b",")
    )


def _hint(answer: Answer) -> str:
    is_page = b"<html" in answer.body[:2048].lower()
    return " (a page of HTML: does a proxy or a login page answer in UCP's place?)" if is_page else ""
