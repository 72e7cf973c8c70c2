"""What several sections are made of: headed sections, tables, and the cells that tell of an image."""

from collections.abc import Iterable, Sequence

from dtr_audit.core.finding import Finding
from dtr_audit.core.text import clean
from dtr_audit.evidence.html.markup import Markup, element, join, void
from dtr_audit.evidence.html.words import NAME_LENGTH, REASON_LENGTH, VERDICT_WORDS, say_instant, shorten


def write_section(anchor: str, heading: str, *content: str) -> Markup:
    """Write a section with its heading."""
    return element(
        "section",
        element("h2", heading, id=f"{anchor}-heading"),
        *content,
        id=anchor,
        aria_labelledby=f"{anchor}-heading",
    )


def write_table(headings: Sequence[str], rows: Iterable[Markup], *, caption: str, class_: str = "plain") -> Markup:
    """Write a table; the caption is for those who do not see it."""
    return element(
        "table",
        element("caption", caption, class_="aside"),
        element("thead", element("tr", *(write_heading(text) for text in headings))),
        element("tbody", join(rows, "\n")),
        class_=class_,
    )


def write_heading(text: str) -> Markup:
    """Write the heading of a column; one that begins with # stands above numbers."""
    if not text:
        return element("td")
    if text.startswith("#"):
        return element("th", text[1:], scope="col", class_="number")
    return element("th", text, scope="col")


def write_image(finding: Finding) -> Markup:
    """Write the name of an image, and its digest below."""
    name = [isolate(str(finding.repository)), ":", isolate(finding.tag), void("br")]
    digest = clean(finding.digest, NAME_LENGTH)
    return join([*name, element("small", digest, class_="digest") if digest else write_small("digest unknown")])


def write_verdict(finding: Finding) -> Markup:
    """Write what the rule says of a tag."""
    return element("b", VERDICT_WORDS[finding.verdict])


def write_pushed(finding: Finding) -> tuple[Markup | str, ...]:
    """Write when a tag was pushed, and who did."""
    pushed = say_instant(finding.pushed_at) if finding.pushed_at else "not known"
    return (pushed, write_small(finding.pushed_by)) if finding.pushed_by else (pushed,)


def write_small(text: str) -> Markup:
    """Write a line of its own below what is told."""
    return element("small", clean(text, REASON_LENGTH))


def isolate(text: str) -> Markup:
    """Write a name such that its letters cannot turn those around it."""
    return element("bdi", shorten(text))
