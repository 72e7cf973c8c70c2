"""Text from outside, made safe to store, log and show: bounded, free of control characters and of secrets."""

import unicodedata

from dtr_audit.core.redaction import PIECE_BYTES, REDACTOR

READ_AHEAD = 16_384  # characters behind those that are kept: where a secret begins that is cut off, its rest is seen

# Whatever moves a cursor, hides or reverses text, or cannot be written as UTF-8 (lone surrogates).
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def is_encodable(text: str) -> bool:
    """Tell whether a text can be written as UTF-8: one read from JSON can hold lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def clean(value: object, length: int) -> str:
    """Give a text of at most `length` characters; anything that is not a text becomes ''.

    Secrets go first: of one that is cut in two, the half that stays would be found no more.
    """
    if not isinstance(value, str):
        return ""
    text = REDACTOR.redact(value[: length + READ_AHEAD])
    is_cut = len(value) > length + READ_AHEAD
    if is_cut:
        text = text[:-PIECE_BYTES]  # which may be where a secret begins
    if len(text) <= length and not is_cut and text.isascii() and text.isprintable():
        return text  # nearly always
    is_cut = is_cut or len(text) > length
    text = "".join(
        c if unicodedata.category(c) not in _HIDDEN_CATEGORIES else "\N{REPLACEMENT CHARACTER}"
        for c in text[: length + 1]
    )
    return text[: max(length - 1, 0)] + "…" if is_cut else text
