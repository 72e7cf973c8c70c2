"""The open findings: how many in each namespace, and the table of them that the script filters and sorts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from dtr_audit.core.finding import ChangeKind
from dtr_audit.core.model import iso
from dtr_audit.core.run_record import Run
from dtr_audit.core.text import clean
from dtr_audit.evidence.html.fix import Commands, write_dialog
from dtr_audit.evidence.html.markup import Markup, element, join, void
from dtr_audit.evidence.html.tables import (
    isolate,
    write_heading,
    write_image,
    write_pushed,
    write_section,
    write_small,
    write_table,
    write_verdict,
)
from dtr_audit.evidence.html.words import NOTHING, REASON_LENGTH, VERDICT_WORDS, say_age, say_count, say_day, shorten
from dtr_audit.evidence.report import NamespaceSummary, Report, ReportedFinding

FINDINGS_BYTES = 2_600_000  # of the rows of findings: so much opens at once in a browser, and can be mailed
MANY = 200  # findings, from which on a browser is to lay out only those in sight
NAMESPACES_SHOWN = 1_000
NAMESPACES_AT_ONCE = 20  # the others are folded away


@dataclass(frozen=True, slots=True)
class Listing:
    """The open findings that there is room for."""

    bodies: Sequence[Markup]  # of the table, one a namespace
    anchors: Mapping[str, str]  # of the bodies, by namespace
    shown: int
    commands: Commands


def list_findings(report: Report) -> Listing:
    """Write the rows of the findings, the first by name, until the room is used up."""
    summaries = {one.namespace: one for one in report.namespaces}
    commands = Commands(report.run)
    bodies: list[Markup] = []
    anchors: dict[str, str] = {}
    shown = 0
    room = FINDINGS_BYTES
    for namespace, group in groupby(report.findings, key=lambda reported: reported.finding.repository.namespace):
        rows = []
        for reported in group:
            row = _row(reported, report.run, commands)
            room -= len(row.encode())
            if room < 0:
                break
            rows.append(row)
        if rows:
            anchors[namespace] = f"namespace-{len(bodies) + 1}"
            heading = element(
                "th",
                isolate(namespace),
                element("span", _of_namespace(summaries.get(namespace), len(rows))),
                scope="rowgroup",
                colspan=5,
            )
            body = join([element("tr", heading, class_="group"), *rows], "\n")
            bodies.append(element("tbody", body, id=anchors[namespace]))
            shown += len(rows)
        if room < 0:
            break
    return Listing(bodies, anchors, shown, commands)


def write_namespaces(report: Report, listing: Listing) -> Iterator[Markup]:
    """Write how many findings are open in each namespace."""
    if not report.namespaces:
        return
    by_size = sorted(report.namespaces, key=lambda one: (-one.open, one.namespace))
    most = by_size[0].open

    def row(one: NamespaceSummary) -> Markup:
        anchor = listing.anchors.get(one.namespace)
        name = isolate(one.namespace)
        bar = element("rect", width=max(1, round(100 * one.open / most)), height=8)
        return element(
            "tr",
            element("th", element("a", name, href=f"#{anchor}") if anchor else name, scope="row"),
            element("td", f"{one.open:,}", class_="number"),
            element("td", element("svg", bar, viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true")),
            element("td", f"{one.excepted:,}" if one.excepted else NOTHING, class_="number"),
            element("td", say_day(one.oldest), write_small(say_age(one.oldest, iso(report.run.finished_at)))),
        )

    def table(some: Sequence[NamespaceSummary], caption: str) -> Markup:
        headings = ("Namespace", "#Open", "", "#Excepted", "Oldest since")
        return write_table(headings, (row(one) for one in some), caption=caption, class_="namespaces")

    head, tail = by_size[:NAMESPACES_AT_ONCE], by_size[NAMESPACES_AT_ONCE:NAMESPACES_SHOWN]
    parts = [table(head, "Namespaces with open findings, the most first")]
    if tail:
        summary = element("summary", f"{say_count(len(by_size) - len(head), 'namespace')} more")
        parts.append(element("details", summary, table(tail, "Further namespaces with open findings")))
    if len(by_size) > NAMESPACES_SHOWN:
        left = sum(one.open for one in by_size[NAMESPACES_SHOWN:])
        text = f"{len(by_size) - NAMESPACES_SHOWN:,} more namespaces, with {say_count(left, 'finding')}, are not listed here."
        parts.append(element("p", text, class_="more"))
    yield write_section("namespaces", f"Namespaces with open findings ({len(by_size):,})", *parts)


def write_findings(report: Report, listing: Listing) -> Iterator[Markup]:
    """Write the table of the open findings, and say how many are left out."""
    run = report.run
    yield Markup('<section id="findings" aria-labelledby="findings-heading">')
    yield element("h2", f"Open findings ({run.findings.open:,})", id="findings-heading", tabindex=-1)
    yield _left_out(report, listing.shown)
    if not run.findings.open:
        yield element("p", "No finding is open.")
    if listing.bodies:
        yield _filter(report)
        size = "images many" if listing.shown > MANY else "images"
        yield Markup(f'<table id="findings-table" class="{size}">')
        yield element("caption", "Open findings by namespace", class_="aside")
        yield Markup("<colgroup><col><col><col><col><col></colgroup>")
        yield element(
            "thead",
            element("tr", *(write_heading(text) for text in ("Image", "Verdict", "Pushed, UTC", "Open since", "Fix"))),
        )
        yield from listing.bodies
        yield Markup("</table>")
        yield write_dialog()
    yield Markup("</section>")


def _row(reported: ReportedFinding, run: Run, commands: Commands) -> Markup:
    finding = reported.finding
    marks = []
    if finding.changed_in == run.run_id and finding.transition is not ChangeKind.RESOLVED:
        marks.append(element("i", "new" if finding.transition is ChangeKind.OPENED else "changed"))
    exception = reported.excepted
    if exception:
        reference = f", {exception.reference}" if exception.reference else ""
        listed = clean(f"{exception.owner}{reference}: {exception.reason}", REASON_LENGTH)
        marks.append(element("em", f"excepted until {shorten(exception.ends)}"))
        marks.append(write_small(listed))
    own_commands, fix = commands.write(finding)
    return element(
        "tr",
        element("th", write_image(finding), own_commands, scope="row"),
        element("td", write_verdict(finding), *(join([" ", mark]) for mark in marks), write_small(finding.reason)),
        element("td", *write_pushed(finding)),
        element("td", say_day(finding.first_seen), write_small(say_age(finding.first_seen, iso(run.finished_at)))),
        fix,
    )


def _of_namespace(summary: NamespaceSummary | None, listed: int) -> str:
    if summary is None:
        return say_count(listed, "finding")
    text = f"{summary.open:,} open"
    if summary.excepted:
        text += f", {summary.excepted:,} excepted"
    if summary.open > listed:
        text += f"; {listed:,} of them listed here"
    return text


def _left_out(report: Report, shown: int) -> Markup:
    left = report.run.findings.open - shown
    if left <= 0:
        return Markup("")
    text = f"{shown:,} of {report.run.findings.open:,} open findings are listed, the first by name. {left:,} are not in this file."
    where = " The files named under Data hold a row for every tag that this run read." if report.rows else ""
    return element("p", element("strong", text), where, class_="notice")


def _filter(report: Report) -> Markup:
    verdicts = sorted({reported.finding.verdict for reported in report.findings})
    options = {"": "all", **{VERDICT_WORDS[verdict]: VERDICT_WORDS[verdict] for verdict in verdicts}}
    marks = {"": "all", "new": "new", "excepted": "excepted", "other": "not excepted"}
    return element(
        "div",
        element(
            "label", "Search ", void("input", type="search", id="filter-text", autocomplete="off", spellcheck="false")
        ),
        element("label", "Namespace ", element("select", element("option", "all", value=""), id="filter-namespace")),
        element("label", "Verdict ", _select("filter-verdict", options)),
        element("label", "State ", _select("filter-mark", marks)),
        element("button", "Clear", type="button", id="filter-clear"),
        element("button", "Commands", type="button", id="fix-shown"),
        element("p", "", id="shown", role="status"),
        id="filter",
        role="search",
        aria_label="Findings",
        hidden="",
    )


def _select(name: str, options: dict[str, str]) -> Markup:
    return element("select", *(element("option", words, value=value) for value, words in options.items()), id=name)
