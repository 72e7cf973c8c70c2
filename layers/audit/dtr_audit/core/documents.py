"""JSON that others write, parsed so that no two readers can take it differently."""

import json
import re
from typing import Any

from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, ContradictionError

NESTING = 64  # lists and objects within one another; an answer of the registry has four

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


def parse_json(text: str | bytes) -> Any:
    """Parse the JSON of an answer or of the secret.

    Of two keys of one name, one reader of JSON takes the first and another the last. Two that agree are harmless.

    Raises ContradictionError for an object that gives one key two values, and ValueError or RecursionError for what is not JSON,
    or is nested more than `NESTING` deep.
    """
    _check_nesting(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return json.loads(text, object_pairs_hook=_make_object)


def read_json(document: bytes, key: str, *, limit: int, error: type[AuditError]) -> Any:
    """Parse a document that people keep in the bucket; no object in it may have one key twice, even with equal values.

    `key` names the document in messages, and `limit` is in bytes. Raises `error`.
    """

    def refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            names = [name for name, _ in pairs]
            duplicate = next(name for name in names if names.count(name) > 1)
            raise error(f"{key}: the key '{clean(duplicate, 64)}' stands twice in one object")
        return content

    if len(document) > limit:
        raise error(f"{key}: it is larger than {limit} bytes")
    try:
        return json.loads(document, object_pairs_hook=refuse_duplicate_keys)
    except (ValueError, RecursionError) as fault:
        raise error(f"{key}: it is not JSON ({clean(str(fault), 120)})") from None


def _check_nesting(text: bytes) -> None:
    """Raise ValueError for lists and objects too deep within one another, before the parser meets them.

    A text that hides its depth behind brackets in its strings meets Python's own limit in the parser, which is RecursionError.
    """
    brackets = text.translate(None, _NOT_BRACKETS)
    if _is_flat(brackets):
        return
    # Brackets that stand in strings mean nothing.
    if not _is_flat(_STRING.sub(b"", text).translate(None, _NOT_BRACKETS)):
        raise ValueError(f"it is nested more than {NESTING} deep, or its brackets do not match")


def _is_flat(brackets: bytes) -> bool:
    """Tell whether brackets match, and no more than NESTING of them lie within one another."""
    for _ in range(NESTING):
        if not brackets:
            return True
        within = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(within) == len(brackets):
            return False
        brackets = within
    return not brackets


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for name, value in pairs:
            # As text: to Python, 1 and true are equal.
            if value is not found[name] and _write(value) != _write(found[name]):
                # Without its name, which may echo a secret.
                raise ContradictionError("an object gives one key two different values")
    return found


def _write(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
