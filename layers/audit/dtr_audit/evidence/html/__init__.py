"""report.html: one run in one file, for people; it needs no network, no other file and no script to be read.

The file's content security policy lets in the style sheets and the one script that are written here, by their hashes, and
nothing else.
"""

import hashlib
import io
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

from dtr_audit.core.model import RULE_ID
from dtr_audit.core.stig import Rule, load_release
from dtr_audit.core.text import clean
from dtr_audit.core.tool import TOOL
from dtr_audit.evidence.html.answer import write_answer
from dtr_audit.evidence.html.background import write_controls, write_facts, write_files, write_method
from dtr_audit.evidence.html.findings import list_findings, write_findings, write_namespaces
from dtr_audit.evidence.html.fix import write_fix
from dtr_audit.evidence.html.history import write_changes, write_trend
from dtr_audit.evidence.html.markup import Markup, element, void
from dtr_audit.evidence.html.tables import isolate
from dtr_audit.evidence.html.words import NAME_LENGTH, STATUS_WORDS, say_moment, shorten
from dtr_audit.evidence.report import Report

_CATEGORIES = {"high": "CAT I", "medium": "CAT II", "low": "CAT III"}


def write(report: Report) -> bytes:
    """Write the file; the same report gives the same bytes."""
    file = io.BytesIO()
    for part in _document(report):
        file.write(part.encode())
        file.write(b"\n")
    return file.getvalue()


def _document(report: Report) -> Iterator[Markup]:
    style, script = _shipped("report.css"), _shipped("report.js")
    pages = _page_style(report)
    rule = load_release(report.asset.release).rule
    listing = list_findings(report)
    policy = (
        f"default-src 'none'; style-src {_hash(style)} {_hash(pages)}; script-src {_hash(script)}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    yield Markup('<!DOCTYPE html>\n<html lang="en">\n<head>')
    yield void("meta", charset="utf-8")
    yield void("meta", http_equiv="Content-Security-Policy", content=policy)
    yield void("meta", name="viewport", content="width=device-width, initial-scale=1")
    yield void("meta", name="referrer", content="no-referrer")
    yield void("meta", name="color-scheme", content="light dark")
    yield element("title", f"{STATUS_WORDS[report.run.status]}: {report.run.registry}, {RULE_ID}, {report.run.run_id}")
    yield element("style", style)
    yield element("style", pages)
    yield Markup("</head>\n<body>")
    yield _marking(report)
    yield _head(report, rule)
    yield Markup("<main>")
    yield from write_answer(report)
    yield from write_changes(report)
    yield from write_trend(report)
    yield from write_namespaces(report, listing)
    yield from write_findings(report, listing)
    yield from write_fix(report, listing.commands)
    yield from write_controls(rule)
    yield from write_method(report, rule)
    yield from write_facts(report.run.facts)
    yield from write_files(report)
    yield element("p", "", id="copied", class_="aside", role="status")
    yield Markup("</main>")
    yield _marking(report)
    yield element("script", script)
    yield Markup("</body>\n</html>")


def _shipped(name: str) -> Markup:
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _page_style(report: Report) -> Markup:
    """Write what every printed page bears: the marking above and below, and which run it belongs to."""
    marking, run = _css_string(report.asset.marking), _css_string(f"{report.run.registry} · run {report.run.run_id}")
    return Markup(
        f"@page{{@top-center{{content:{marking}}}@bottom-center{{content:{marking}}}@bottom-left{{content:{run}}}"
        '@bottom-right{content:counter(page) " / " counter(pages)}}'
    )


def _css_string(text: str) -> str:
    """Quote a text for a style sheet: whatever is not a letter or a digit of ASCII is written as its number."""
    bounded = clean(text, NAME_LENGTH)
    return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\{ord(c):06x}" for c in bounded) + '"'


def _marking(report: Report) -> Markup:
    if not report.asset.marking:
        return Markup("")
    return element("p", shorten(report.asset.marking), class_="marking")


def _head(report: Report, rule: Rule) -> Markup:
    sections = [
        ("changes", "Changes"),
        ("trend", "Trend"),
        ("findings", "Findings"),
        *([("fix", "How to fix")] if report.findings else ()),
        ("controls", "Controls"),
        ("method", "Method"),
        *([("facts", "Supporting facts")] if report.run.facts else ()),
        ("files", "Data"),
    ]
    links = [element("a", words, href=f"#{anchor}") for anchor, words in sections]
    return element(
        "header",
        element(
            "p",
            element("span", element("strong", isolate(report.run.registry)), " signature audit"),
            *([element("span", "Registry ", isolate(report.url))] if report.url else ()),
            element("span", "Asset ", isolate(report.asset.host_name)),
            element("span", f"{RULE_ID} · {_CATEGORIES[rule.severity]} · {report.asset.release}"),
            element("span", f"{say_moment(report.run.finished_at)} UTC"),
            element("span", TOOL),
            class_="what",
        ),
        element("nav", *links, aria_label="Sections"),
    )
