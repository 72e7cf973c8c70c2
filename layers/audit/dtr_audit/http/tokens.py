"""Bearer tokens: the scope that is asked for, and what a token server answers."""

import re
from typing import Any

from dtr_audit.core.documents import parse_json
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.text import clean
from dtr_audit.errors import ContradictionError, RegistryError
from dtr_audit.http.exchange import Answer

TOKEN_LENGTH = 16_384
TOKEN_SECONDS = 60.0  # where the server does not say how long (the Docker token specification's default)
TOKEN_SECONDS_LEAST = 10.0
TOKEN_SECONDS_LIMIT = 3_600.0
_OF_SCOPES = re.compile(r"[ :,]")  # what separates the parts of a token's scope, and scopes


def read_token(answer: Answer) -> tuple[str, float] | None:
    """Read a token and its life in seconds; None if the answer holds none that could be sent."""
    try:
        body = parse_answer(answer, "/auth/token")
    except RegistryError:
        return None
    if not isinstance(body, dict):
        return None
    token = body.get("token") or body.get("access_token")
    if not isinstance(token, str) or len(token) > TOKEN_LENGTH or not re.fullmatch(r"[!-~]+", token):
        return None
    life = body.get("expires_in")
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life <= TOKEN_SECONDS_LIMIT:
        life = TOKEN_SECONDS
    REDACTOR.learn_token(token)
    return token, max(float(life), TOKEN_SECONDS_LEAST)


def parse_answer(answer: Answer, path: str) -> Any:
    """Parse the JSON of an answer; raises RegistryError where it is none."""
    try:
        return parse_json(answer.body)
    except ContradictionError as error:
        raise ContradictionError(f"GET {path}: {error}") from None
    except (ValueError, RecursionError):
        kind = "a page of HTML" if b"<html" in answer.body[:2048].lower() else "not JSON"
        raise RegistryError(f"GET {path}: the answer is {kind}; does a proxy answer in the registry's place?") from None


def pull_scope(path: str, *, under: str = "") -> str:
    """Give the scope of a token to pull `namespace/name`, `under` a host with its slash or the registry itself.

    Raises RegistryError for a name that would be read as another scope, or as several.
    """
    if _OF_SCOPES.search(path):
        raise RegistryError(
            f"no token can be asked for to read '{clean(path, 60)}': the scope of one holds no blank, colon or comma in a name"
        )
    return f"repository:{under}{path}:pull"
