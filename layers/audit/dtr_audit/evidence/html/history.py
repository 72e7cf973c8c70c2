"""Which findings this run opened, changed and resolved, and the trend over the last runs."""

from collections.abc import Callable, Iterator, Sequence

from dtr_audit.core.finding import Finding, State
from dtr_audit.core.model import iso
from dtr_audit.core.run_record import Scope
from dtr_audit.core.text import clean
from dtr_audit.evidence.html import trend
from dtr_audit.evidence.html.markup import Markup, element, join
from dtr_audit.evidence.html.tables import (
    write_image,
    write_pushed,
    write_section,
    write_small,
    write_table,
    write_verdict,
)
from dtr_audit.evidence.html.words import (
    NAME_LENGTH,
    STATUS_WORDS,
    say_age,
    say_count,
    say_coverage,
    say_day,
    say_instant,
)
from dtr_audit.evidence.report import Report, TrendPoint

CHANGES_SHOWN = 50  # opened, and resolved, likewise
TREND_SHOWN = 120  # runs


def write_changes(report: Report) -> Iterator[Markup]:
    """Write which findings this run opened, changed and resolved."""
    run = report.run
    counts = run.findings
    if run.previous:
        compared = (
            f"Against what was known before. The last complete run of the whole registry was {run.previous.run_id}, and read "
            f"{say_count(run.previous.repositories, 'repository', 'repositories')} with "
            f"{say_count(run.previous.tags, 'image tag')}."
        )
    elif run.scope is Scope.PARTIAL:
        compared = "Only findings in the namespaces looked at can have moved."
    elif report.trend:
        compared = "Against what was known before. No run before this one was complete."
    else:
        compared = "There is no earlier run to compare with, so whatever is found is new."
    parts = [element("p", compared)]
    if not counts.opened and not counts.resolved and not report.changed_count:
        parts.append(element("p", "No finding was opened, changed or resolved."))
    if counts.opened and counts.opened == counts.open:
        parts.append(element("p", f"All {counts.open:,} open findings are new. They are listed below."))
    elif counts.opened:
        parts.append(
            _moved("Opened", counts.opened, report.opened, ("Image", "What was found", "Pushed, UTC"), _opened_row)
        )
    if report.changed_count:
        headings = ("Image", "What is found now", "Pushed, UTC")
        parts.append(_moved("Changed", report.changed_count, report.changed, headings, _opened_row))
    if counts.resolved:
        headings = ("Image", "How it was resolved", "Was open")
        parts.append(_moved("Resolved", counts.resolved, report.resolved, headings, _resolved_row))
    yield write_section("changes", "What changed", *parts)


def _moved(
    heading: str, count: int, findings: Sequence[Finding], columns: Sequence[str], row: Callable[[Finding], Markup]
) -> Markup:
    shown = findings[:CHANGES_SHOWN]
    more = count - len(shown)
    return join(
        [
            element("h3", f"{heading} ({count:,})"),
            write_table(
                columns,
                (row(finding) for finding in shown),
                caption=f"Findings {heading.lower()} by this run",
                class_=f"images {heading.lower()}",
            ),
            *([element("p", f"and {more:,} more, which are not listed here", class_="more")] if more > 0 else ()),
        ]
    )


def _opened_row(finding: Finding) -> Markup:
    return element(
        "tr",
        element("th", write_image(finding), scope="row"),
        element("td", write_verdict(finding), write_small(finding.reason)),
        element("td", *write_pushed(finding)),
    )


def _resolved_row(finding: Finding) -> Markup:
    again = "; open again" if finding.state is State.OPEN else ""
    return element(
        "tr",
        element("th", write_image(finding), scope="row"),
        element("td", f"{clean(finding.resolution, NAME_LENGTH)}{again}"),
        element("td", f"{say_age(finding.first_seen, finding.last_changed)}, since {say_day(finding.first_seen)}"),
    )


def write_trend(report: Report) -> Iterator[Markup]:
    """Write the trend, as a drawing and in numbers."""
    run = report.run
    points = list(report.trend)
    if run.scope is Scope.FULL:
        points.append(
            TrendPoint(
                run.run_id,
                iso(run.finished_at),
                run.status,
                run.complete,
                run.tags.audited,
                run.tags.failed,
                run.findings.open,
                run.coverage_percent,
            )
        )
    points = points[-TREND_SHOWN:]
    if len(points) < 2:  # a line needs two ends
        text = "This is the only run of the whole registry so far. From the next one on, the trend is drawn here."
        yield write_section("trend", "Trend", element("p", text))
        return
    rows = [
        element(
            "tr",
            element("th", say_instant(point.finished_at), scope="row"),
            element("td", STATUS_WORDS[point.status]),
            element("td", "yes" if point.complete else "no"),
            *(
                element("td", text, class_="number")
                for text in (
                    f"{point.tags:,}",
                    f"{point.failed:,}",
                    f"{point.open:,}",
                    say_coverage(point.coverage_percent, complete=point.complete),
                )
            ),
        )
        for point in reversed(points)
    ]
    legend = (
        "Open findings after each run. A hollow point is a run that was not complete: so many were known. The line is broken "
        "there, and where no run was made for longer than usual."
    )
    yield write_section(
        "trend",
        "Trend",
        element("figure", trend.draw(points), element("figcaption", legend)),
        element(
            "details",
            element("summary", f"The same in numbers ({len(points)} runs)"),
            element(
                "div",
                write_table(
                    (
                        "Finished, UTC",
                        "Answer",
                        "Complete",
                        "#Image tags",
                        "#Not signed",
                        "#Open findings",
                        "#Coverage",
                    ),
                    rows,
                    caption="The last runs of the whole registry, the newest first",
                ),
                class_="scroll",
                role="region",
                aria_label="The last runs in numbers",
                tabindex=0,
            ),
            class_="folded",
        ),
    )
