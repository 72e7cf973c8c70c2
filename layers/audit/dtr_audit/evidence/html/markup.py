"""HTML and SVG written such that no text can become markup.

What is not `Markup` is text: it is bounded, whatever hides or turns it around is replaced visibly, and it is escaped. There is
no way to put a text in without that, other than to call it `Markup` oneself.
"""

from collections.abc import Iterable
from html import escape

from dtr_audit.core.text import clean

TEXT_LENGTH = 4_000  # characters of one text


class Markup(str):
    """Markup, made of constants and of elements; texts in it are escaped already."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: str | int) -> Markup:
    """Write an element with its content.

    `class_` and `aria_label` stand for `class` and `aria-label`; an attribute that is '' is written without a value.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    return Markup(f"<{opening}>{join(content)}</{name}>")


def void(name: str, /, **attributes: str | int) -> Markup:
    """Write an element that has no content and no end tag, as `meta`."""
    return Markup(f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>")


def join(parts: Iterable[str], separator: str = "") -> Markup:
    """Put texts and markup one after the other; the separator is markup."""
    return Markup(separator.join(part if isinstance(part, Markup) else _text(part) for part in parts))


def _attribute(key: str, value: str | int) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value == "" else f' {name}="{_text(str(value))}"'


def _text(value: str) -> str:
    return escape(clean(value, TEXT_LENGTH), quote=True)
