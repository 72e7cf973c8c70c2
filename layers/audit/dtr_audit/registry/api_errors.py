"""What the registry's errors mean, and what its settings prove."""

import json
from typing import Any

from dtr_audit.core.text import clean
from dtr_audit.errors import (
    AuditError,
    AuthenticationError,
    RegistryError,
    RepositoryGoneError,
    TransientError,
    WrongProductError,
)
from dtr_audit.http.exchange import Answer
from dtr_audit.http.tokens import parse_answer
from dtr_audit.http.transport import RETRIED_STATUSES, Transport

NO_SUCH_ACCOUNT = "NO_SUCH_ACCOUNT"  # the code of a 404 for a repository whose account was deleted
_SETTINGS_KEYS = frozenset({"dtrHost", "createRepositoryOnPush", "reportAnalytics"})


def error_text(answer: Answer) -> str:
    """Read any of the three forms of errors, or name a page of HTML."""
    first = _error_of(answer)
    if not first and b"<html" in answer.body[:2048].lower():
        return "a page of HTML, so probably a proxy or load balancer answers in the registry's place"
    parts = [first.get(key) for key in ("code", "message", "details")]
    text = ": ".join(part for part in parts if isinstance(part, str) and part)
    return clean(text, 200)


def status_error(answer: Answer, path: str, page: int) -> AuditError:
    """Give the error that a page of a list answers with."""
    said = error_text(answer)
    what = f"GET {path}: {answer.status} on page {page}" + (f": {said}" if said else "")
    if answer.status == 404 and page == 1 and path != "/api/v0/repositories":
        return RepositoryGoneError(what, has_no_account=_error_of(answer).get("code") == NO_SUCH_ACCOUNT)
    if answer.status in {401, 403}:
        return AuthenticationError(f"{what}. The account must be an administrator of the registry")
    if answer.status == 500:
        what += ". If many repositories answer so, look at the registry's Notary first"
    return TransientError(what, status=answer.status) if answer.status in RETRIED_STATUSES else RegistryError(what)


def identity_error(answer: Answer) -> RegistryError:
    """Give the error for an account that is not shown to be an administrator's."""
    said = error_text(answer)
    detail = f" (it says: {said})" if said else ""
    if answer.status == 401:
        return AuthenticationError(
            f"the registry does not accept the credentials{detail}. Put the user name and the password, or an access token, "
            "of an administrator into the secret; if they are right, see whether UCP is down"
        )
    if answer.status == 403:
        return AuthenticationError(
            f"the account is not an administrator of the registry{detail}. Others do not see every repository, so only "
            "an administrator's account can answer the rule: put one into the secret"
        )
    if answer.status == 404:
        return WrongProductError(
            f"GET /api/v0/meta/settings: 404{detail}. "
            "Either DTR_URL is not a Docker Trusted Registry, or its licence has expired"
        )
    return RegistryError(
        f"GET /api/v0/meta/settings: {answer.status}{detail}. Whether the account is an administrator is not proven"
    )


def raise_if_transient(answer: Answer, path: str) -> None:
    """Raise TransientError for an answer that says no more than that the server cannot answer at present."""
    if answer.status in RETRIED_STATUSES:
        said = error_text(answer)
        detail = f" (it says: {said})" if said else ""
        raise TransientError(f"GET {path}: {answer.status}{detail}, so nothing is known yet")


def recognise_others(transport: Transport) -> None:
    """Name Harbor (Mirantis Secure Registry 4) where it answers; raises WrongProductError."""
    try:
        answer = transport.get("/api/v2.0/systeminfo")
        ping = transport.get("/api/v2.0/ping")
    except AuditError:
        return
    if b'"harbor_version"' in answer.body or (ping.status == 200 and ping.body.strip().strip(b'"').lower() == b"pong"):
        raise WrongProductError(
            "this is Harbor (Mirantis Secure Registry 4 is one), not a Docker Trusted Registry: it has no Notary, and the rule "
            "V-235846 does not apply to it as written. Nothing was audited"
        )


def prove_settings(answer: Answer, transport: Transport) -> dict[str, Any]:
    """Take the settings as proof of an administrator, if they are settings at all: a login page answers 200 too."""
    settings = read_settings(answer)
    if settings is not None:
        return settings
    recognise_others(transport)
    raise WrongProductError(
        "GET /api/v0/meta/settings: answered 200, but not with a registry's settings. Is a login page or another product "
        "at DTR_URL?"
    )


def _error_of(answer: Answer) -> dict[str, Any]:
    """Give the first error of an answer, in any of the forms that JSON has; empty if there is none."""
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(body, dict):
        return {}
    errors = body.get("errors")
    return errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else body


def read_settings(answer: Answer) -> dict[str, Any] | None:
    """Read a registry's settings; None if the answer is anything else."""
    if answer.status != 200:
        return None
    try:
        body = parse_answer(answer, "/api/v0/meta/settings")
    except RegistryError:
        return None
    return body if isinstance(body, dict) and body.keys() & _SETTINGS_KEYS else None
