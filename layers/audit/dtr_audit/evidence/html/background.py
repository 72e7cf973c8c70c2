"""The rest of the page: the controls that the rule serves, how the answer was reached, supporting facts, where the data lies."""

from collections.abc import Iterator, Sequence

from dtr_audit.core import manifest
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.manifest import StoredFile
from dtr_audit.core.model import RULE_ID
from dtr_audit.core.run_record import Scope, SupportingFact
from dtr_audit.core.stig import Rule
from dtr_audit.core.text import clean
from dtr_audit.core.tool import TOOL
from dtr_audit.evidence.html.markup import Markup, element, join
from dtr_audit.evidence.html.tables import write_section, write_table
from dtr_audit.evidence.html.words import (
    NOTHING,
    REASON_LENGTH,
    STATUS_WORDS,
    say_count,
    say_duration,
    say_moment,
    say_names,
    shorten,
)
from dtr_audit.evidence.report import Report

FILES_SHOWN = 200
TRUST_LENGTH = 2_000


def write_controls(rule: Rule) -> Iterator[Markup]:
    """Write which controls of NIST SP 800-53 the rule serves."""
    rows = (
        element(
            "tr",
            element("th", control.nist, scope="row"),
            element("td", control.cci),
            element("td", control.definition),
        )
        for control in rule.controls
    )
    yield write_section(
        "controls",
        "Controls that the rule serves",
        write_table(
            ("NIST SP 800-53", "CCI", "What it asks"),
            rows,
            caption=f"From {RULE_ID} to NIST SP 800-53",
            class_="controls",
        ),
        element("p", "The mapping is that of DISA's CCI list; revisions 4 and 5 of SP 800-53 agree.", class_="more"),
    )


def write_method(report: Report, rule: Rule) -> Iterator[Markup]:
    """Write how the answer was reached: who asked, with what right, what was read and how it was judged."""
    run, asset, repositories = report.run, report.asset, report.run.repositories
    names = [asset.host_name, *([asset.host_fqdn] if asset.host_fqdn not in ("", asset.host_name) else ())]
    address = f" at {shorten(report.url)}" if report.url else ""
    if run.registry_version:
        address += f", version {shorten(run.registry_version)}"
    if run.complete:
        right = (
            "Proven to be an administrator's before the first list was read, and again after the last. Other accounts do not see "
            "every repository."
        )
        pages = "Every page of every list was read, and the number of entries agrees with the counts that the registry gives."
    else:
        right = "An administrator's is needed, before and after. If that could not be proven, the reasons above say so."
        pages = "Not every list could be read to its end: see the reasons above."
    entries = [
        ("Registry", f"{run.registry}{address}; in the assessor's tools: {', '.join(names)}"),
        ("Asked by", report.auditor),
        ("Program", TOOL),
        ("Account", right),
        (
            "Read",
            f"{say_count(repositories.listed, 'repository', 'repositories')} listed, {repositories.audited:,} read to the end, "
            f"{repositories.unreadable:,} unreadable, {repositories.removed:,} removed meanwhile. {pages}",
        ),
        (
            "Judged",
            "A tag is signed if the registry says of it inNotary: true and hashMismatch: false. With hashMismatch: true it "
            "was signed once and then overwritten: MISMATCHED in the data. If either is missing, the tag is unknown, which is "
            "never a pass.",
        ),
        *(
            [
                ("Verified", clean(run.trust.formatted, TRUST_LENGTH)),
                ("New roots", f"{say_count(run.trust.first_use, 'root')} seen for the first time in this run."),
            ]
            if run.trust
            else []
        ),
        ("Domains", f"Signatures were asked for under {say_names(run.domains, 20)}." if run.domains else "Not known."),
    ]
    if run.tags.artifacts:
        entries.append(
            (
                "Set apart",
                f"{say_count(run.tags.artifacts, 'tag')} whose layers show a signature, an attestation or an SBOM, and no image.",
            )
        )
    if run.exceptions.version_id:
        entries.append(
            (
                "Exceptions",
                f"{say_count(run.exceptions.active, 'exception')} held, by version {shorten(run.exceptions.version_id)} of "
                f"{EXCEPTIONS_KEY} in the bucket. An excepted finding stays a finding.",
            )
        )
    entries += [
        ("Started", f"{say_moment(run.started_at)} UTC"),
        ("Finished", f"{say_moment(run.finished_at)} UTC, after {say_duration(run.finished_at - run.started_at)}"),
        ("Run", f"{run.run_id}, {'of the whole registry' if run.scope is Scope.FULL else 'of a part of the registry'}"),
        ("Rule", f"{rule.rule_id}, {rule.rule_version}, of the Docker Enterprise 2.x Linux/UNIX STIG, {asset.release}"),
    ]
    yield write_section(
        "method",
        "How the answer was reached",
        element("dl", *(join([element("dt", name), element("dd", text)]) for name, text in entries), class_="entries"),
    )


def write_facts(facts: Sequence[SupportingFact]) -> Iterator[Markup]:
    """Write what was seen of neighbouring rules and settings."""
    if not facts:
        return
    rows = (
        element(
            "tr",
            element("th", shorten(fact.subject), scope="row"),
            element("td", clean(fact.answer, REASON_LENGTH)),
            element("td", shorten(fact.rule_id) or NOTHING),
            element("td", STATUS_WORDS[fact.status] if fact.rule_id else NOTHING),
        )
        for fact in facts
    )
    yield write_section(
        "facts",
        "Supporting facts",
        element("p", f"Context for the assessor. None of it is a reason to pass {RULE_ID}."),
        write_table(
            ("What was looked at", "What was seen", "Rule", "Answer to it"),
            rows,
            caption="Neighbouring rules and settings",
            class_="plain facts",
        ),
    )


def write_files(report: Report) -> Iterator[Markup]:
    """Write where the whole of it lies, and its sums."""
    parts = []
    if report.location:
        parts.append(element("p", "Below ", element("code", report.location), ":"))
    rows = [_file_row(file) for file in report.rows[:FILES_SHOWN]]
    if report.record_key:
        key = element("th", element("code", report.record_key), scope="row")
        rows.append(element("tr", key, element("td"), element("td", "the run record")))
    if rows:
        parts.append(
            write_table(("File", "#Bytes", "SHA-256"), rows, caption="Where the whole of it lies", class_="files")
        )
    if len(report.rows) > FILES_SHOWN:
        parts.append(element("p", f"and {len(report.rows) - FILES_SHOWN:,} more files of rows", class_="more"))
    if report.rows:
        text = (
            "The files under findings/ are gzipped JSON Lines: a row for every tag that was read, signed or not, with its verdict, "
            "digest and reason."
        )
        parts.append(element("p", text))
    parts.append(
        element("p", f"The sums of all files of this run, this one included, are in {manifest.NAME} beside it.")
    )
    yield write_section("files", "Data", *parts)


def _file_row(file: StoredFile) -> Markup:
    return element(
        "tr",
        element("th", element("code", file.key), scope="row"),
        element("td", f"{file.size:,}", class_="number"),
        element("td", element("code", file.sha256, class_="digest")),
    )
