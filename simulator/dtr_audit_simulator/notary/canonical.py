"""Canonical JSON as Notary signs it: keys sorted, no blanks, and nothing escaped in a string but `"` and `\\`."""

from __future__ import annotations

import json
import re

_ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|.)")


def write_json(value: object) -> str:
    """Write JSON that anybody can read; it is canonical too unless a string holds a control character."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def write_canonical(value: object) -> bytes:
    """Write canonical JSON, in which a control character stands for itself."""
    return _ESCAPE.sub(_unescaped, write_json(value)).encode()


def _unescaped(escape: re.Match[str]) -> str:
    text = escape.group()
    if text in (r"\"", r"\\"):
        return text
    character: str = json.loads(f'"{text}"')
    return character
