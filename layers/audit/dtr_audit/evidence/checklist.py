"""What every checklist says, whatever its format: for each rule the status, the finding details and the comment.

Importers cut texts at 32 767 characters. So the texts are made to fit: how much is told of each finding is bounded, how many
findings are told depends on the room, and where all of them lie always stands at the end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dtr_audit.core.finding import Excepted, Finding
from dtr_audit.core.model import RULE_ID, iso
from dtr_audit.core.rule import COSIGN_NOTE
from dtr_audit.core.run_record import Run, Scope, Status, SupportingFact
from dtr_audit.core.stig import Rule, load_release
from dtr_audit.core.text import clean
from dtr_audit.core.tool import TOOL
from dtr_audit.errors import EvidenceError
from dtr_audit.evidence.report import Asset, Report, ReportedFinding
from dtr_audit.settings import ASSET_ROLES

TEXT_LENGTH = 32_767  # characters as JavaScript and Java count them: UTF-16 code units
DETAILS_LENGTH = 32_000
COMMENTS_LENGTH = 12_000  # the rest of the room is for the comment that a baseline brings along
COMMENT_LEAST = 400  # of ours below such a one; shorter, it would say nothing
HOST_NAME_LENGTH = 255

TECHNOLOGY_AREAS = (
    "",
    "Application Review",
    "Boundary Security",
    "CDS Admin Review",
    "CDS Technical Review",
    "Database Review",
    "Domain Name System (DNS)",
    "Exchange Server",
    "Host Based System Security (HBSS)",
    "Internal Network",
    "Mobility",
    "Releasable Networks (REL)",
    "Traditional Security",
    "UNIX OS",
    "VVOIP Review",
    "Web Review",
    "Windows OS",
    "Other Review",
)

# A comment of ours begins with this line, so that merging twice does not write it twice.
COMMENT_MARK = "[dtr-signature-audit] Written by the audit; every run writes it anew from this line on."

_FINDINGS_NAMED = 200
_EXCEPTIONS_NAMED = 100
_REASONS_NAMED = 10
_DOMAINS_NAMED = 10
_FILES_NAMED = 10
_FACTS_NAMED = 20
_LINE_LENGTH = 400  # of a reason, an answer, and the like
_NAME_LENGTH = 256
_TRUST_LENGTH = 2_000
_UNREAD_LENGTH = 8_000  # of the details, for the repositories that were not read

_WORST_FIRST = (Status.OPEN, Status.NOT_REVIEWED, Status.NOT_A_FINDING)


@dataclass(frozen=True, slots=True)
class Answer:
    """One rule, answered."""

    rule: Rule
    status: Status
    headline: str  # the answer in one line; the details begin with it
    details: str
    comments: str


def answer_rules(report: Report, *, neighbours: bool = False) -> tuple[Answer, ...]:
    """Answer V-235846, and with `neighbours` every other rule that a supporting fact answers.

    Raises EvidenceError for a partial run, and for an asset that checklists do not know.
    """
    run = report.run
    if run.scope is not Scope.FULL:
        raise EvidenceError(
            f"run {run.run_id} looked at {len(run.namespaces)} namespaces only, and a checklist speaks for the whole registry: "
            "make it from a run without namespaces"
        )
    _check_asset(report.asset)
    release = load_release(report.asset.release)
    headline = _headline(run)
    answers = [Answer(release.rule, run.status, headline, _details(report, headline), _comments(report))]
    if neighbours:
        for group_id, rule in release.rules.items():
            facts = [fact for fact in report.run.facts if fact.rule_id == group_id]
            if group_id != RULE_ID and facts:
                answers.append(_answer_neighbour(report, rule, facts))
    return tuple(answers)


def keep_comment(theirs: str, ours: str) -> str:
    """Put our comment below theirs, in place of the one that an earlier run has left there.

    Theirs is never cut. Ours is, to what importers leave room for; where that is next to nothing, it is left out.
    """
    kept = theirs.partition(COMMENT_MARK)[0].rstrip()
    if not kept:
        return ours
    room = TEXT_LENGTH - utf16_length(kept) - 2
    return f"{kept}\n\n{_shorten(ours, room)}" if room >= COMMENT_LEAST else kept


def utf16_length(text: str) -> int:
    """Count characters as importers do: one beyond U+FFFF counts twice."""
    return len(text) + sum(character > "\uffff" for character in text)


def _check_asset(asset: Asset) -> None:
    if not 0 < utf16_length(asset.host_name.strip()) <= HOST_NAME_LENGTH:
        raise EvidenceError(
            f"the asset name must have 1 to {HOST_NAME_LENGTH} characters, others are refused by importers; it has "
            f"{utf16_length(asset.host_name.strip())}"
        )
    if asset.role and asset.role not in ASSET_ROLES:
        raise EvidenceError(
            f"asset role {asset.role!r} is not empty, nor one that checklists know: {', '.join(ASSET_ROLES)}"
        )
    if asset.technology_area not in TECHNOLOGY_AREAS:
        known = ", ".join(TECHNOLOGY_AREAS[1:])
        raise EvidenceError(
            f"technology area {asset.technology_area!r} is not empty, nor one that checklists know: {known}"
        )


def _headline(run: Run) -> str:
    tags = run.tags
    match run.status:
        case Status.OPEN:
            more = "" if run.complete else " Not everything could be read, so there may be more."
            failed = f"{tags.failed} of {tags.audited} image tags are not signed and trusted"
            known = (
                "1 finding of earlier runs is"
                if run.known_open == 1
                else f"{run.known_open} findings of earlier runs are"
            )
            unseen = f"{known} still open, as it could not be read whether they are resolved"
            seen = [failed] * bool(tags.failed) + [unseen] * bool(run.known_open)
            return f"OPEN: {', and '.join(seen)}.{more}"
        case Status.NOT_A_FINDING if run.is_empty:
            return (
                f"NOT A FINDING: the registry is empty. An administrator's account listed all of it, and its "
                f"{run.repositories.listed} repositories hold 0 tags."
            )
        case Status.NOT_A_FINDING:
            return f"NOT A FINDING: all {tags.audited} image tags are signed and trusted."
        case _:
            unknown = f", and {tags.unknown} could not be judged" if tags.unknown else ""
            return (
                f"NOT REVIEWED: the audit is not complete. Of {tags.audited} image tags that were read, none is known to be "
                f"unsigned{unknown}; this is not a pass."
            )


def _details(report: Report, headline: str) -> str:
    run = report.run
    repositories, tags, findings = run.repositories, run.tags, run.findings
    # Rounded down: 99.97 % is not 100 %.
    coverage = f"{math.floor(run.coverage_percent * 10) / 10:.1f} % of the repositories"
    if not run.complete:
        # Of a list that is not known to be whole, all is no share.
        coverage = (
            f"NOT complete, {coverage}" if run.unread else "NOT complete, nothing but the repositories that were listed"
        )
    before = [
        headline,
        "",
        f"Registry: {_name_registry(report)}",
        f"Coverage: {'complete, ' if run.complete else ''}{coverage}; {repositories.listed} listed, {repositories.audited} read to "
        f"the end, {repositories.unreadable} unreadable, {repositories.removed} removed meanwhile",
        f"Image tags: {tags.audited} audited: {tags.signed} signed, {tags.unsigned} unsigned, {tags.mismatched} mismatched, "
        f"{tags.untrusted} untrusted, {tags.unknown} unknown; {tags.artifacts} signature artifacts beside them",
        f"Open findings: {findings.open}, of them {findings.excepted} under an exception",
        f"Auditor: {_outside(report.auditor, _LINE_LENGTH)}",
        "Signatures asked for under: " + (", ".join(_first(run.domains, _DOMAINS_NAMED, _NAME_LENGTH)) or "no domain"),
        "A tag is signed if the registry says so (inNotary and no hashMismatch). "
        + (
            _outside(run.trust.formatted, _TRUST_LENGTH)
            if run.trust
            else "The signatures themselves were not verified."
        ),
    ]
    if run.incomplete_because:
        before += ["", "Not complete because:", *_bullets(run.incomplete_because, _REASONS_NAMED)]
    if run.unread:
        before.append(_unread(run))
    if run.warnings:
        before += ["", "Warnings:", *_bullets(run.warnings, _REASONS_NAMED)]
    items = [f"- {describe_finding(one)}" for one in report.findings[:_FINDINGS_NAMED]]
    if items:
        before += ["", "Open findings, by name:"]
    return _fill(before, items, ["", _report_run(report)], total=findings.open, noun="findings", length=DETAILS_LENGTH)


def _unread(run: Run) -> str:
    """Name the repositories that were not read to the end, as many as there is room for, and count the others."""
    items = [f"- {describe_unreadable(name, reason)}" for name, reason in run.unreadable]
    heading = ["", f"Repositories that were not read to the end ({run.unread}):"]
    return _fill(heading, items, (), total=run.unread, noun="repositories", length=_UNREAD_LENGTH)


def describe_unreadable(repository: str, reason: str) -> str:
    """Tell in one line of a repository that could not be read to the end, and why."""
    return f"{_outside(repository, _NAME_LENGTH)}: {_outside(reason, _LINE_LENGTH)}"


def describe_finding(reported: ReportedFinding) -> str:
    """Tell of an open finding in one line."""
    finding = reported.finding
    digest = _outside(finding.digest, _NAME_LENGTH) or "no digest known"
    excepted = f"; exception {_outside(reported.excepted.exception_id, 64)}" if reported.excepted else ""
    return (
        f"{_image(finding)}  {finding.verdict}  {digest}  since {_outside(finding.first_seen, 32)}{excepted}: "
        f"{_outside(finding.reason, _LINE_LENGTH)}"
    )


def _image(finding: Finding) -> str:
    return f"{_outside(str(finding.repository), _NAME_LENGTH)}:{_outside(finding.tag, _NAME_LENGTH)}"


def _name_registry(report: Report) -> str:
    """Name the registry, with its address, and its version where it says it."""
    version = report.run.registry_version
    parts = [report.run.registry, report.url, f"version {version}" if version else ""]
    return ", ".join(_outside(part, _NAME_LENGTH) for part in parts if part)


def _report_run(report: Report) -> str:
    """Tell in one line all that differs from run to run, so that an unchanged registry changes one line of a review.

    It says where the whole of it lies. Addresses and sums are not cut: cut they would be of no use.
    """
    run, findings = report.run, report.run.findings
    first_use = f"; roots seen for the first time: {run.trust.first_use}" if run.trust else ""
    rows = [f"{report.place(file.key)} sha256 {file.sha256} ({file.size} bytes)" for file in report.rows[:_FILES_NAMED]]
    if len(report.rows) > _FILES_NAMED:
        left = len(report.rows) - _FILES_NAMED
        rows.append(f"and {left} files more, all with their sha256 in manifest.json beside this checklist")
    parts = [
        f"Run {run.run_id}, {iso(run.started_at)} to {iso(run.finished_at)}, {TOOL}: findings opened: "
        f"{findings.opened}, changed: {report.changed_count}, resolved: {findings.resolved}{first_use}",
        f"a row for every tag that was read: {', '.join(rows) or 'there is none, since no tag was read'}",
    ]
    if report.record_key:
        parts.append(f"the run record: {report.place(report.record_key)}")
    return "; ".join(parts)


def _comments(report: Report) -> str:
    run = report.run
    before = [
        COMMENT_MARK,
        f"The status is that of the run in the last line of the finding details, by {_outside(report.auditor, _LINE_LENGTH)}.",
    ]
    if run.tags.signatures:
        before += ["", f"Image tags: {run.tags.signatures}. {COSIGN_NOTE}"]
    after: list[str] = []
    if report.run.facts:
        after += ["", "Seen beside it; none of it is a reason to pass this rule:"]
        after += _bullets([f"{fact.subject}: {fact.answer}" for fact in report.run.facts], _FACTS_NAMED)
    excepted = [(one, one.excepted) for one in report.findings if one.excepted]
    items = [f"- {describe_exception(one, by)}" for one, by in excepted[:_EXCEPTIONS_NAMED]]
    total = max(run.findings.excepted, len(excepted))
    if total:
        before += [
            "",
            f"{total} of {run.findings.open} open findings are under an exception. They stay open until they are signed:",
        ]
    text = _fill(before, items, after, total=total, noun="excepted findings", length=COMMENTS_LENGTH)
    # MITRE's tools split a comment at ' :: ' into sections of their own, and drop what is none.
    return text.replace(" :: ", " : ")


def describe_exception(reported: ReportedFinding, excepted: Excepted) -> str:
    """Tell in one line who answers for an excepted finding, and until when."""
    owner = f"owner {_outside(excepted.owner, 128)}, ends {_outside(excepted.ends, 32)}"
    reference = f", reference {_outside(excepted.reference, 128)}" if excepted.reference else ""
    return (
        f"{_image(reported.finding)}  exception {_outside(excepted.exception_id, 64)}, {owner}{reference}: "
        f"{_outside(excepted.reason, _LINE_LENGTH)}"
    )


def _answer_neighbour(report: Report, rule: Rule, facts: Sequence[SupportingFact]) -> Answer:
    status = next(status for status in _WORST_FIRST if any(fact.status is status for fact in facts))
    headline = f"{status.replace('_', ' ')}: as the product's own settings say."
    seen = [headline, "", *_bullets([f"{fact.subject}: {fact.answer}" for fact in facts], _FACTS_NAMED)]
    seen += ["", f"Registry: {_name_registry(report)}", _report_run(report)]
    comment = f"Seen in the run in the last line of the finding details, by {_outside(report.auditor, _LINE_LENGTH)}."
    comments = f"{COMMENT_MARK}\n{comment}".replace(" :: ", " : ")
    return Answer(rule, status, headline, "\n".join(seen), comments)


def _first(texts: Sequence[str], number: int, length: int) -> list[str]:
    lines = [_outside(text, length) for text in texts[:number]]
    return [*lines, f"and {len(texts) - number} more"] if len(texts) > number else lines


def _bullets(texts: Sequence[str], number: int) -> list[str]:
    return [f"- {line}" for line in _first(texts, number, _LINE_LENGTH)]


def _fill(
    before: Sequence[str], items: Sequence[str], after: Sequence[str], *, total: int, noun: str, length: int
) -> str:
    """Put as many items between what stands before and after them as there is room for, and say how many are left."""
    room = length - utf16_length("\n".join([*before, _left(total, noun), *after]))
    shown: list[str] = []
    for item in items:
        room -= utf16_length(item) + 1
        if room < 0:
            break
        shown.append(item)
    if total > len(shown):
        shown.append(_left(total - len(shown), noun))
    return "\n".join([*before, *shown, *after])


def _left(number: int, noun: str) -> str:
    return f"- and {number} {noun} more, which are not named here"


def _outside(text: str, length: int) -> str:
    """Make a text from outside safe, and no longer than `length` as importers count."""
    return _shorten(clean(text, length), length)


def _shorten(text: str, length: int) -> str:
    if utf16_length(text) <= length:
        return text
    # A character that the cut goes through is left out; so is half a one, which JSON can hold.
    return text.encode("utf-16-le", "surrogatepass")[: 2 * (length - 1)].decode("utf-16-le", "ignore") + "…"
