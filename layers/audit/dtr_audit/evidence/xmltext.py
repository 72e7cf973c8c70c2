"""XML that any parser takes, whatever stands in the texts."""

import re
from xml.etree import ElementTree as ET

# All that XML 1.0 lets stand in a document; a character reference is no way around it.
_FORBIDDEN = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def make_legal(text: str) -> str:
    """Replace, visibly, what XML forbids; line ends become those that a parser would make of them."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def escape(text: str) -> str:
    """Write a text as the content of an element."""
    return make_legal(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def add(parent: ET.Element, tag: str, text: str = "", /, **attributes: str) -> ET.Element:
    """Append an element with a text."""
    child = ET.SubElement(parent, tag, {key: make_legal(value) for key, value in attributes.items()})
    child.text = make_legal(text)
    return child


def serialize(root: ET.Element) -> bytes:
    """Write a document: UTF-8, indented, empty elements with both their tags."""
    ET.indent(root, "  ")
    content = ET.tostring(root, encoding="unicode", short_empty_elements=False)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{content}\n'.encode()
