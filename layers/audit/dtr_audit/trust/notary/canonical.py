"""JSON as Notary signs it: read without mercy, written canonically.

The canonical form is OLPC's (http://wiki.laptop.org/go/Canonical_JSON) as github.com/docker/go/canonical/json writes it
(encode.go): UTF-8, keys in the order of their bytes, no spaces, whole numbers alone, and in a text only the quotation mark and the
backslash escaped, so that a line feed stands there as itself.
"""

import json
from collections.abc import Callable
from typing import Any, NoReturn

from dtr_audit.core.text import is_encodable
from dtr_audit.errors import TrustDataError

DEPTH = 24  # of nesting; Notary's own documents need 7, and what applications add in `custom` a few more
DIGITS = 16
NUMBER_LIMIT = 2**53 - 1  # Go verifies by way of a 64 bit float: beyond, what is signed is not what is read


def parse(body: bytes, what: str) -> Any:
    """Read a document; `what` names it in the error.

    Raises TrustDataError for whatever two readers could read differently: a key that stands there twice, a number that is not
    whole or not exact, half of a character, bytes that are not UTF-8.
    """
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
        encode(document)
    except _FormError as error:
        raise TrustDataError(f"{what}: {error}") from None
    except UnicodeDecodeError:
        raise TrustDataError(f"{what}: it is not UTF-8") from None
    except (ValueError, RecursionError):
        kind = "a page of HTML" if b"<html" in body[:2048].lower() else "not JSON"
        raise TrustDataError(f"{what}: the answer is {kind}; does a proxy answer in the Notary's place?") from None
    return document


def encode(value: Any) -> bytes:
    """Write a value of JSON canonically; raises TrustDataError for what `parse` would not have read."""
    pieces: list[str] = []
    _write(value, pieces.append, DEPTH)
    return "".join(pieces).encode("utf-8")


def _write(value: Any, add: Callable[[str], None], depth: int) -> None:
    # bool is an int to Python: its two values come first.
    if value is None or value is True or value is False:
        add({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, str):
        add(_text(value))
    elif isinstance(value, int):
        if abs(value) > NUMBER_LIMIT:
            raise _FormError("it holds a number that is not exact")
        add(str(value))
    elif depth == 0:
        raise _FormError(f"it is nested more than {DEPTH} deep, or holds what JSON does not")
    elif isinstance(value, dict):
        add("{")
        for position, key in enumerate(sorted(value)):
            add(("," if position else "") + _text(key) + ":")
            _write(value[key], add, depth - 1)
        add("}")
    elif isinstance(value, list):
        add("[")
        for position, element in enumerate(value):
            if position:
                add(",")
            _write(element, add, depth - 1)
        add("]")
    else:
        raise _FormError("it holds what JSON does not")


def _text(text: str) -> str:
    if not text.isascii() and not is_encodable(text):
        raise _FormError("it holds half of a character (a lone surrogate)")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _FormError(TrustDataError):
    """A document is JSON, and not such as Notary signs."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _FormError("a key stands there twice, so that two readers could read it differently")
    return found


def _whole_number(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise _FormError("it holds a number that is not exact")
    return int(digits)


def _refuse_number(_: str) -> NoReturn:
    raise _FormError("it holds a number that is not whole")
