"""A registry that repeats secrets: each of the PLACES of an answer in which what the caller sent can stand."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dtr_audit_simulator.http.transport import Response

Secrets = Sequence[str]


def variants(secrets: Secrets) -> list[str]:
    """Give secrets as they are, in other letter cases, and in pieces of 16 characters and more."""
    found: dict[str, None] = {}
    for secret in secrets:
        pieces = (secret, secret[1:17], secret[-16:], secret[3:23]) if len(secret) > 16 else (secret,)
        for piece in pieces:
            found.update(dict.fromkeys((piece, piece.upper(), piece.lower(), piece.swapcase())))
    return list(found)


def _names(response: Response, secrets: Secrets) -> Response:
    """Add repositories and tags that are named by them."""
    document = json.loads(response.body)
    texts = variants(secrets)
    # As they are, which the grammar of names mostly forbids, and as it allows them.
    names = list(dict.fromkeys((*texts, *(text[:100].strip("-_.=") for text in texts))))
    if isinstance(document, dict):
        rows = document["repositories"]
        document["repositories"] = [
            *rows,
            *({"namespace": name, "name": "echo"} for name in names),
            *({"namespace": "echo", "name": name} for name in names),
        ]
    else:
        document += [{"name": name, "digest": "sha256:0", "inNotary": False, "hashMismatch": False} for name in names]
    return replace(response, body=json.dumps(document).encode())


def _fields(response: Response, secrets: Secrets) -> Response:
    """Put them into every field of a tag but its name, and add tags enough for all of them."""
    rows: list[dict[str, Any]] = json.loads(response.body)
    for number, secret in enumerate(variants(secrets)):
        row = {**rows[0], "name": f"echo-{number}", "author": f"by {secret}", "updatedAt": secret}
        row["digest"] = f"sha256:{secret[:140]}"
        row["manifest"] = {"digest": row["digest"], "mediaType": f"{'m' * (number % 120)}/{secret}"}
        rows.append({**row, "inNotary": secret})
        rows.append({**row, "name": f"unsigned-{number}", "inNotary": False, "hashMismatch": False})
    return replace(response, body=json.dumps(rows).encode())


def _settings(response: Response, secrets: Secrets) -> Response:
    """Call the registry by one of them, of those that a host may be called by."""
    host = next((one for one in variants(secrets) if one.replace("-", "").isalnum() and one[0].isalnum()), secrets[0])
    return replace(response, body=json.dumps({**json.loads(response.body), "dtrHost": host.strip("-")}).encode())


def _header(name: str, make: Callable[[str], str]) -> Callable[[Response, Secrets], Response]:
    def echo(response: Response, secrets: Secrets) -> Response:
        headers = tuple(one for one in response.headers if one[0].lower() != name.lower())
        return replace(response, headers=(*headers, (name, make(" ".join(secrets)))))

    return echo


def _errors(response: Response, secrets: Secrets) -> Response:
    """Tell them in an error of each form."""
    message = " ".join(variants(secrets))
    errors = {"code": secrets[0], "message": f"{'x' * 150} {message}", "details": message}
    return replace(response, status=500, body=json.dumps({"errors": [errors], **errors}).encode())


def _refusals(response: Response, secrets: Secrets) -> Response:
    """Refuse the account with them."""
    return replace(_errors(response, secrets), status=403)


def _documents(response: Response, secrets: Secrets) -> Response:
    """Give another document, made of them."""
    texts = variants(secrets)
    document = {"signed": dict.fromkeys(texts, texts), "signatures": texts, "errors": [{"code": texts[0]}]}
    return replace(response, status=200, body=json.dumps(document).encode())


def _redirects(response: Response, secrets: Secrets) -> Response:
    """Lead to an address that is made of them."""
    return replace(response, status=302, headers=(("Location", f"https://{secrets[0]}/?{'&'.join(secrets)}"),))


LOCATIONS: dict[str, Callable[[Response, Secrets], Response]] = {
    "names": _names,
    "fields": _fields,
    "settings": _settings,
    "errors": _errors,
    "refusals": _refusals,
    "documents": _documents,
    "redirects": _redirects,
    "encoding": _header("Content-Encoding", str),
    "count": _header("X-Resource-Count", str),
    "cursor": _header("X-Next-Page-Start", str),
    "realm": _header("Www-Authenticate", lambda text: f'Bearer realm="https://{text}/auth?{text}",service="{text}"'),
    "broken-header": _header(
        "X-Broken", lambda text: f"a header\r\nand a line without a colon {text.replace(':', '')}"
    ),
}


_OF_A_LIST = frozenset({"names", "fields", "settings"})


def echoed(response: Response, place: str, secrets: Secrets) -> Response:
    """Put secrets into one place of an answer, if it has such a place."""
    if place in _OF_A_LIST and response.status != 200:
        return response
    return LOCATIONS[place](response, secrets)


def secrets_of(authorization: str, passwords: Sequence[str], tokens: Sequence[str]) -> list[str]:
    """List what a request held, and what else is known, without doubles."""
    value = authorization.partition(" ")[2]
    decoded: list[str] = []
    if authorization.lower().startswith("basic "):
        pair = base64.b64decode(value).decode()
        decoded = [pair, base64.urlsafe_b64encode(pair.encode()).decode().rstrip("=")]
    return [secret for secret in dict.fromkeys((*passwords, value, *decoded, *tokens)) if secret]
