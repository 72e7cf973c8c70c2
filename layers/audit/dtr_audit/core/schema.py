"""Read the values of a JSON document whose form is known; each function raises SchemaError, which says where it is another."""

import re
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, TypeVar

from dtr_audit.core.text import is_encodable

TEXT_LENGTH = 16_384  # characters
LIST_LENGTH = 1_000_000
COUNT_MOST = 10**12  # of anything

SHA256 = re.compile(r"[0-9a-f]{64}")

_T = TypeVar("_T")


class SchemaError(ValueError):
    """A document has another form than its schema says; the message has the JSON path."""


def take_object(value: object, where: str, keys: Collection[str]) -> dict[str, Any]:
    """Take an object that has these keys and no others."""
    if not isinstance(value, dict):
        raise SchemaError(f"{where}: an object is needed")
    missing = sorted(set(keys) - value.keys())
    if missing:
        raise SchemaError(f"{where}.{missing[0]}: it is missing")
    if len(value) > len(keys):
        raise SchemaError(f"{where}: it has a key that is not known")
    return value


def take_list(value: object, where: str, take: Callable[[object, str], _T], *, most: int = LIST_LENGTH) -> list[_T]:
    """Take a list, and each of its entries with `take`."""
    if not isinstance(value, list) or len(value) > most:
        raise SchemaError(f"{where}: a list of at most {most} entries is needed")
    return [take(entry, f"{where}[{number}]") for number, entry in enumerate(value)]


def take_text(value: object, where: str) -> str:
    """Take a text that can be written as UTF-8."""
    if not isinstance(value, str) or len(value) > TEXT_LENGTH or not (value.isascii() or is_encodable(value)):
        raise SchemaError(f"{where}: a text of at most {TEXT_LENGTH} characters is needed")
    return value


def take_name(value: object, where: str) -> str:
    """Take a text that is not empty."""
    name = take_text(value, where)
    if not name:
        raise SchemaError(f"{where}: it is empty")
    return name


def take_flag(value: object, where: str) -> bool:
    """Take true or false."""
    if not isinstance(value, bool):
        raise SchemaError(f"{where}: true or false is needed")
    return value


def take_count(value: object, where: str, *, most: int = COUNT_MOST) -> int:
    """Take a whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise SchemaError(f"{where}: a whole number from 0 to {most} is needed")
    return value


def take_sha256(value: object, where: str) -> str:
    """Take a SHA-256 in lower-case hexadecimal digits."""
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise SchemaError(f"{where}: a SHA-256 is needed")
    return value


def take_time(value: object, where: str) -> str:
    """Take a time with a zone, as ISO 8601 writes it."""
    text = take_text(value, where)
    try:
        has_zone = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        has_zone = False
    if not has_zone:
        raise SchemaError(f"{where}: a time with a zone is needed")
    return text
