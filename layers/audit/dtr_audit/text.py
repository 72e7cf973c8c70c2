"""Text from outside, made safe to store, log and show: bounded, and free of control characters."""

import unicodedata
from collections.abc import Iterable

# Whatever moves a cursor, hides or reverses text, or cannot be written as UTF-8 (lone surrogates).
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def is_encodable(text: str) -> bool:
    """Tell whether a text can be written as UTF-8: one read from JSON can hold lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Take secrets out of a text that may echo them. To be done before the text is cut, or half of one stays."""
    for secret in secrets:
        text = text.replace(secret, "[removed]")
    return text


def clean(value: object, length: int) -> str:
    """Give a text of at most `length` characters; anything that is not a text becomes ''."""
    if not isinstance(value, str):
        return ""
    if len(value) <= length and value.isascii() and value.isprintable():
        return value  # nearly always
    text = value[: length + 1]
    text = "".join(
        c if unicodedata.category(c) not in _HIDDEN_CATEGORIES else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"
