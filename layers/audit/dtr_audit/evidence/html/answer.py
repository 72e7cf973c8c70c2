"""The top of the page: the answer, what it means and what it does not, and the figures."""

from collections.abc import Iterator, Sequence

from dtr_audit.core.model import Verdict
from dtr_audit.core.rule import COSIGN_NOTE, TITLE
from dtr_audit.core.run_record import Run, Scope, Status
from dtr_audit.core.text import clean
from dtr_audit.evidence.html.markup import Markup, element
from dtr_audit.evidence.html.tables import isolate, write_table
from dtr_audit.evidence.html.words import (
    NOTHING,
    REASON_LENGTH,
    STATUS_WORDS,
    VERDICT_WORDS,
    say_count,
    say_coverage,
    say_day,
    say_days,
    say_moment,
    say_names,
    say_percent,
)
from dtr_audit.evidence.report import Report

REASONS_SHOWN = 200

_UNREAD = "unread"  # the class of what no verdict is known of
_STATUS_CLASSES = {Status.NOT_A_FINDING: "pass", Status.OPEN: "open", Status.NOT_REVIEWED: "unknown"}


def write_answer(report: Report) -> Iterator[Markup]:
    """Write the answer, and whatever must be known with it."""
    run = report.run
    word = element("span", STATUS_WORDS[run.status], class_="status")
    yield Markup(f'<section id="answer" class="{_STATUS_CLASSES[run.status]}" aria-labelledby="answer-heading">')
    yield element("h1", word, " ", _headline(run), id="answer-heading")
    yield element("p", TITLE, class_="rule")
    yield element(
        "div",
        element("div", element("h2", "What this means"), *(element("p", text) for text in _meaning(run))),
        element("div", element("h2", "What it does not mean"), *(element("p", text) for text in _limits(run))),
        class_="meaning",
    )
    yield _figures(report)
    yield _verdict_bar(run)
    if run.incomplete_because:
        yield element(
            "div",
            element("h2", "Why the audit is not complete"),
            _reasons(run.incomplete_because),
            *_unreadable(run),
            class_="notice unknown",
        )
    if run.warnings:
        yield element("div", element("h2", "To be looked at"), _reasons(run.warnings), class_="notice")
    yield Markup("</section>")


def _headline(run: Run) -> str:
    tags = run.tags
    if run.is_empty:
        return "The registry holds no image."
    if run.status is Status.NOT_A_FINDING:
        return "The one image tag is signed." if tags.audited == 1 else f"All {tags.audited:,} image tags are signed."
    if run.status is Status.OPEN:
        least = "" if run.complete else "At least "
        are = "is" if tags.failed == 1 else "are"
        what = "not signed or not trusted" if tags.untrusted else "not signed"
        failed = f"{least}{tags.failed:,} of {say_count(tags.audited, 'image tag')} {are} {what}"
        known = f"{say_count(run.known_open, 'finding')} of earlier runs {'is' if run.known_open == 1 else 'are'} still open"
        return f"{', and '.join([failed] * bool(tags.failed) + [known] * bool(run.known_open))}."
    if not run.complete:
        return "The audit could not be completed."
    return "Only a part of the registry was audited."


def _meaning(run: Run) -> Iterator[str]:
    tags = run.tags
    under = f"under {say_names(run.domains)}" if run.domains else "under the registry's domain"
    if run.is_empty:
        yield (
            "There is nothing to sign: the registry has no image tag. An administrator's account looked, before and after, and "
            "the registry's own counts are 0."
        )
    elif run.status is Status.NOT_A_FINDING:
        yield (
            f"Every repository that the registry lists was read to its end, and of each image tag in them the registry says that "
            f"it is signed {under} and has not been overwritten since."
            + (" The audit has verified each signature besides." if run.trust else "")
        )
    elif run.status is Status.OPEN:
        how = " as the settings require" if tags.untrusted else ""
        yield f"Each of these tags is a finding until it is signed {under}{how}, or removed."
        if tags.signatures:
            yield f"Of the image tags: {tags.signatures}. {COSIGN_NOTE}"
    elif not run.complete and tags.audited:
        yield (
            f"None of the {say_count(tags.audited - tags.unknown, 'image tag')} that could be judged is unsigned. Of the rest "
            "nothing is known, so this is no pass."
        )
    elif not run.complete:
        yield "No image tag could be judged. Nothing is known, so this is no pass."
    else:
        yield f"Every image tag in the namespaces looked at is signed {under}. The rule asks for the whole registry."
    if run.status is Status.OPEN and run.known_open:
        yield (
            "What earlier runs found stays open until a run proves that it is resolved. This run could not read "
            f"{say_count(run.known_open, 'such tag')}."
        )
    if run.status is Status.OPEN and not run.complete:
        yield "Not everything could be read. There may be more of them where this run could not look."
    if run.scope is Scope.PARTIAL:
        yield f"This run looked at a part of the registry only: {say_names(run.namespaces, 20)}."


def _limits(run: Run) -> Iterator[str]:
    if run.status is Status.OPEN:
        kind = " that is to be trusted" if run.tags.untrusted else ""
        yield f"It does not say that these images are harmful. It says that nobody vouches for them with a signature{kind}."
    elif run.status is Status.NOT_A_FINDING and not run.is_empty:
        yield "A signature says who vouches for an image. It does not say that the image is free of flaws."
    elif run.status is Status.NOT_REVIEWED:
        yield "It is neither a pass nor a finding: the rule has no answer from this run."
    yield (
        f"It holds for the time of the run, {say_moment(run.started_at)} to {say_moment(run.finished_at)} UTC. What was pushed "
        "later was not seen."
    )


def _figures(report: Report) -> Markup:
    run = report.run
    tags, findings, repositories = run.tags, run.findings, run.repositories
    is_moved = findings.opened or findings.resolved or report.changed_count
    figures = [
        (
            "Coverage",
            say_coverage(run.coverage_percent, complete=run.complete),
            f"{repositories.audited:,} of {say_count(repositories.listed, 'repository', 'repositories')} read to the end"
            + (f", {run.unread:,} not" if run.unread else "")
            + (f", {repositories.removed:,} removed meanwhile" if repositories.removed else "")
            + ("" if run.complete or run.unread else ", yet the audit is not complete"),
        ),
        (
            "Image tags",
            f"{tags.audited:,}",
            f"{tags.signed:,} signed" + (f", {tags.unknown:,} unknown" if tags.unknown else ""),
        ),
        ("Not signed or not trusted" if tags.untrusted else "Not signed", f"{tags.failed:,}", _failed(run)),
        (
            "Open findings",
            f"{findings.open:,}",
            _known(run),
        ),
        (
            "Oldest open",
            say_days(run.oldest_open_days) if run.oldest_open else NOTHING,
            f"since {say_day(run.oldest_open)}" if run.oldest_open else "nothing is open",
        ),
        (
            "This run changed",
            f"+{findings.opened:,} \N{MINUS SIGN}{findings.resolved:,}" if is_moved else NOTHING,
            f"{findings.opened:,} opened, {report.changed_count:,} changed, {findings.resolved:,} resolved"
            if is_moved
            else "no finding opened, changed or resolved",
        ),
    ]
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", element("b", value), " ", element("span", detail)))
            for name, value, detail in figures
        ),
        class_="figures",
    )


def _known(run: Run) -> str:
    whole = "in the whole registry" if run.complete and run.scope is Scope.FULL else "as far as known"
    if run.known_open:
        whole += f", {run.known_open:,} of them from earlier runs"
    return f"{whole}, {run.findings.excepted:,} excepted" if run.findings.excepted else whole


def _failed(run: Run) -> str:
    tags = run.tags
    parts = [
        f"{count:,} {word}"
        for count, word in (
            (tags.unsigned, "unsigned"),
            (tags.mismatched, "overwritten after signing"),
            (tags.untrusted, "not trusted"),
        )
        if count
    ]
    return ", ".join(parts) or "of the tags that were read"


def _verdict_bar(run: Run) -> Markup:
    """Draw the verdicts as shares of all image tags; a share that there is can be seen, however small.

    What was not read has a share of its own, so that no incomplete run is drawn as if all of it were signed.
    """
    counts = {
        Verdict.SIGNED: run.tags.signed,
        Verdict.UNSIGNED: run.tags.unsigned,
        Verdict.MISMATCHED: run.tags.mismatched,
        Verdict.UNTRUSTED: run.tags.untrusted,
        Verdict.UNKNOWN: run.tags.unknown,
    }
    total = run.tags.audited
    unread = 0.0 if run.complete else 1 - run.coverage_percent / 100
    of = "" if run.complete else " of those read"
    parts = [
        (
            verdict.lower(),
            (1 - unread) * count / total,
            f"{count:,} {VERDICT_WORDS[verdict]} ({say_percent(100 * count / total)}{of})",
        )
        for verdict, count in counts.items()
        if count
    ]
    if run.unread:
        parts.append((_UNREAD, unread, f"{say_count(run.unread, 'repository', 'repositories')} not read to the end"))
    elif not run.complete:
        parts.append((_UNREAD, unread, "and what the audit could not see"))
    if not parts:
        return Markup("")
    width, least = 1_000, 6
    widths = [max(least, round(width * share)) for _, share, _ in parts]
    widths[widths.index(max(widths))] -= sum(widths) - width
    bars, at = [], 0
    for (kind, _, _), size in zip(parts, widths, strict=True):
        bars.append(element("rect", x=at, y=0, width=size, height=10, class_=f"verdict-{kind}"))
        at += size
    legend = [
        element(
            "li",
            element(
                "svg",
                element("rect", width=10, height=10, class_=f"verdict-{kind}"),
                viewBox="0 0 10 10",
                aria_hidden="true",
            ),
            f" {text}",
        )
        for kind, _, text in parts
    ]
    return element(
        "div",
        element("svg", *bars, viewBox=f"0 0 {width} 10", preserveAspectRatio="none", aria_hidden="true"),
        element("ul", *legend, aria_label="Image tags by verdict"),
        class_="verdicts",
    )


def _reasons(texts: Sequence[str]) -> Markup:
    items = [element("li", text) for text in texts[:REASONS_SHOWN]]
    if len(texts) > REASONS_SHOWN:
        items.append(element("li", f"and {len(texts) - REASONS_SHOWN:,} more: see the run record"))
    return element("ul", *items)


def _unreadable(run: Run) -> Iterator[Markup]:
    if not run.unreadable:
        return
    more = run.unread - len(run.unreadable)
    yield element(
        "details",
        element("summary", f"Repositories that were not read ({run.unread:,})"),
        write_table(
            ("Repository", "Why"),
            (
                element("tr", element("th", isolate(name), scope="row"), element("td", clean(reason, REASON_LENGTH)))
                for name, reason in run.unreadable
            ),
            caption="Repositories that could not be read to the end",
        ),
        *([element("p", f"The first of them; {more:,} more are not named.")] if more > 0 else ()),
    )
