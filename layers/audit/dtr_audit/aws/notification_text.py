"""The text and the JSON of a notification."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from dtr_audit.aws.finding_text import (
    LINE_LENGTH,
    LINES_SHOWN,
    count_words,
    describe_exception,
    describe_status,
    make_id,
    namespace_of,
    shorten_list,
    write_exception,
)
from dtr_audit.aws.pending_notifications import HEADINGS, NamespaceChanges, NotificationItem, PendingNotifications
from dtr_audit.core.finding import ChangeKind, Finding, State
from dtr_audit.core.fix import HOW_TO_RUN, fix_commands
from dtr_audit.core.model import RULE_ID, iso
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.rule import COSIGN_NOTE, SEVERITY, TITLE
from dtr_audit.core.run_record import Run
from dtr_audit.core.text import clean

if TYPE_CHECKING:
    from mypy_boto3_sns.type_defs import MessageAttributeValueTypeDef

MESSAGE_BYTES = 240 * 1024  # SNS takes 256 KiB, attributes and all
MESSAGE_ITEMS = 60  # findings told one by one; the others are told in numbers, and lie in S3
SUBJECT_LENGTH = 99  # SNS wants fewer than 100 characters
REGISTRY_LENGTH = 63  # of its name in a subject
UNREAD_SHOWN = 20  # repositories that could not be read, and that no reason names
UNREAD_REASON_LENGTH = 200
MAIL_WIDTH = 90  # characters of a line of prose in a mail
# What a subject says of a message that is not about findings alone, and why its reader gets it.
_EVENTS = {
    "audit_incomplete": ("audit not complete", "the audit could not be completed"),
    "trust_expiring": ("trust data expires soon", "trust data expires soon"),
    "baseline_unusable": ("own checklist not answered", "your own checklist was not answered"),
    "exceptions_unusable": ("the exceptions cannot be used", "the exceptions cannot be used"),
    "reminder": ("reminder", "findings are still open"),
    "findings_changed": ("", "findings were opened, changed or resolved"),
}


@dataclass(frozen=True, slots=True)
class OpenFindingsSummary:
    """How many findings are open in each namespace after the run, how many of them excepted, and since when the oldest is."""

    open_by_namespace: Mapping[str, int]
    oldest: str  # ISO 8601; '' where none is open
    excepted_by_namespace: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArtifactUrls:
    """Where the whole of it lies."""

    rows: str
    record: str
    report: str  # '' where none was written


@dataclass(frozen=True, slots=True)
class Message:
    """One message as SNS takes it."""

    subject: str
    body: str
    attributes: "dict[str, MessageAttributeValueTypeDef]"


class Composer:
    """Writes the messages of one run: text for people, JSON for machines, both under SNS's limit."""

    def __init__(
        self,
        run: Run,
        open_summary: OpenFindingsSummary,
        locations: ArtifactUrls,
        *,
        is_by_namespace: bool,
        url: str,
        contact: str,
    ) -> None:
        self._is_by_namespace = is_by_namespace
        self._url = url
        self._contact = contact
        self._run = run
        self._open_summary = open_summary
        self._locations = locations

    def message(self, event: str, pending: PendingNotifications | None = None, names: Sequence[str] = ()) -> Message:
        """Write one message about some namespaces; without any it is about the registry as a whole."""
        namespaces = {name: pending.namespaces[name] for name in names} if pending is not None else {}
        document = self._document(event, namespaces)
        fixes = self._fixes(pending, names) if pending is not None else []
        subject = self._subject(document)
        limit, blocks = MESSAGE_ITEMS, len(fixes)
        while True:
            reported = (
                pending.first(names, limit) if pending is not None else {change_kind: [] for change_kind in HEADINGS}
            )
            document["omitted"] = {
                str(change_kind): document["counts"][str(change_kind)] - len(items)
                for change_kind, items in reported.items()
            }
            for change_kind, items in reported.items():
                document[str(change_kind)] = [self._item(item) for item in items]
            document["fix"] = self._fix(reported)
            attributes = self._attributes(document, namespaces)
            mail = self._text(document, fixes[:blocks], left=len(fixes) - blocks)
            body = _json({"default": _json(document), "email": mail, "sms": subject})
            if len(body.encode()) + _size(attributes) <= MESSAGE_BYTES:
                return Message(subject, body, attributes)
            if limit == 0:
                # Only reasons and names are left, and each of them is bounded.
                raise AssertionError("a message without findings is always under the limit")  # pragma: no cover
            if blocks > limit // 2:
                blocks //= 2  # the report has the lines for all
            else:
                limit //= 2

    def _document(self, event: str, namespaces: Mapping[str, NamespaceChanges]) -> dict[str, Any]:
        run = self._run
        counts = {
            str(change_kind): sum(one.counts[change_kind] for one in namespaces.values()) for change_kind in ChangeKind
        }
        return {
            "id": make_id(run.registry, run.run_id, event, *sorted(namespaces)),
            "event": event,
            "registry": run.registry,
            "rule_id": RULE_ID,
            "rule_title": TITLE,
            "run_id": run.run_id,
            "scope": str(run.scope),
            "status": str(run.status),
            "severity": self._severity(event, counts),
            "complete": run.complete,
            "empty": run.is_empty,
            "incomplete_because": self._reasons(namespaces),
            "warnings": self._warnings(namespaces),
            "finished_at": iso(run.finished_at),
            "repositories": run.repositories.as_dict(),
            "tags": run.tags.as_dict(),
            "findings": run.findings.as_dict(),
            "oldest_open": self._open_summary.oldest,
            "exceptions": run.exceptions.as_dict(),
            "counts": counts,
            "namespaces": [
                {
                    "namespace": name,
                    **{str(change_kind): one.counts[change_kind] for change_kind in ChangeKind},
                    "open": self._open_summary.open_by_namespace.get(name, 0),
                    "excepted": self._open_summary.excepted_by_namespace.get(name, 0),
                }
                for name, one in namespaces.items()
            ],
            "rows": self._locations.rows,
            "record": self._locations.record,
            "report": self._locations.report or None,
        }

    def _reasons(self, namespaces: Collection[str]) -> list[str]:
        """Say why the audit is incomplete: to a namespace's own team only as far as it is known to concern them."""
        run = self._run
        if run.complete or not (self._is_by_namespace and namespaces):
            return shorten_list(run.incomplete_because)
        own = [
            f"{name} could not be read to the end: {why}"
            for name, why in run.unreadable
            if namespace_of(name) in namespaces
        ]
        unreadable = run.repositories.unreadable
        # All unreadable repositories together are one of the run's reasons; here each is one.
        others = len(run.incomplete_because) - bool(unreadable) + unreadable - len(own)
        lines = shorten_list(own)
        if others:
            many = count_words(others, "reason", "reasons")
            line = f"{'and ' if own else ''}{many} elsewhere in the registry, or about all of it: see the run record"
            unnamed = unreadable - len(run.unreadable)
            if unnamed:
                line += f"; {unnamed} of the repositories stand there without their names, and may be yours"
            lines.append(line)
        return lines

    def _unread(self, document: Mapping[str, Any]) -> list[str]:
        """Name the unreadable repositories that no reason names: the first of them, to those who see all of the registry."""
        run = self._run
        if self._is_by_namespace and document["namespaces"]:
            return []
        reasons = "\n".join(document["incomplete_because"])
        named = [f"{name} (" in reasons for name, _ in run.unreadable]
        others = [one for one, is_named in zip(run.unreadable, named, strict=True) if not is_named]
        lines = [f"{name}: {clean(why, UNREAD_REASON_LENGTH)}" for name, why in others[:UNREAD_SHOWN]]
        left = run.repositories.unreadable - sum(named) - len(lines)
        if left > 0:
            lines.append(f"and {left} more: see the run record")
        return lines

    def _warnings(self, namespaces: Collection[str]) -> list[str]:
        """Say what should be looked at: to a namespace's own team nothing that names others' repositories."""
        run = self._run
        of_others: set[str] = set()
        if self._is_by_namespace and namespaces:
            of_others = {
                run.trust.formatted_expiring if run.trust else "",
                run.other_hosts.formatted,
                run.security_hub.warning if run.security_hub else "",
            }
        return shorten_list([warning for warning in run.warnings if warning not in of_others])

    def _severity(self, event: str, counts: Mapping[str, int]) -> str:
        """Give the rule's own severity where somebody has something to do."""
        is_change = any(counts[change_kind] for change_kind in ChangeKind if change_kind is not ChangeKind.RESOLVED)
        to_do = event != "findings_changed" or is_change or not self._run.complete
        return SEVERITY if to_do else "informational"

    def _item(self, reported: NotificationItem) -> dict[str, Any]:
        finding, move = reported.finding, reported.move
        return {
            "id": make_id(finding.registry, str(finding.repository), finding.tag, str(move.change_kind), move.run_id),
            "repository": str(finding.repository),
            "tag": finding.tag,
            "digest": finding.digest,
            "state": str(finding.state),
            "run_id": move.run_id,
            "verdict": str(finding.verdict),
            "reason": clean(finding.reason, LINE_LENGTH),
            "resolution": move.resolution,
            "exception": write_exception(move.excepted or finding.excepted),
            "author": finding.author,
            "author_name": finding.author_name or None,
            "pushed_at": finding.pushed_at,
            "first_seen": move.first_seen,
            "last_changed": finding.last_changed,
        }

    def _fix(self, reported: Mapping[ChangeKind, Sequence[NotificationItem]]) -> list[str]:
        """Give the lines that fix the first of the findings that can be fixed by signing."""
        items = chain.from_iterable(
            reported[change_kind] for change_kind in HEADINGS if change_kind is not ChangeKind.RESOLVED
        )
        first = next((item.finding for item in items if item.finding.state is State.OPEN), None)
        return list(self._sign(first)) if first is not None else []

    def _fixes(self, pending: PendingNotifications, names: Sequence[str]) -> list[tuple[Finding, tuple[str, ...]]]:
        """Give for each namespace the first finding that can be fixed by signing, and the lines that do it."""
        fixes = []
        for name in sorted(names):
            first = next(pending.to_fix(name), None)
            if first is not None and (lines := self._sign(first)):
                fixes.append((first, lines))
        return fixes

    def _sign(self, finding: Finding) -> tuple[str, ...]:
        return fix_commands(finding, self._run.domains[0], self._run.trust) if self._run.domains else ()

    def _attributes(
        self, document: Mapping[str, Any], namespaces: Iterable[str]
    ) -> "dict[str, MessageAttributeValueTypeDef]":
        attributes: dict[str, MessageAttributeValueTypeDef] = {
            name: {"DataType": "String", "StringValue": str(document[name])}
            for name in ("event", "registry", "status", "severity", "scope")
        }
        attributes["complete"] = {"DataType": "String", "StringValue": json.dumps(document["complete"])}
        names = sorted(namespaces)
        if names:
            attributes["namespaces"] = {"DataType": "String.Array", "StringValue": json.dumps(names)}
        return attributes

    def _subject(self, document: Mapping[str, Any]) -> str:
        """Say it in one line of plain ASCII, for a subject and a text message; what has no room is left out, from the end."""
        findings, counts, event = document["findings"], document["counts"], document["event"]
        about = _EVENTS[event][0]
        parts = [
            about if event not in {"audit_incomplete", "reminder"} else "",
            "the registry is empty" if self._run.is_empty else "",
            f"{findings['open']} open",
            "" if self._run.complete else "audit not complete",
            f"{findings['excepted']} excepted" if event == "reminder" and findings["excepted"] else "",
            about if event == "reminder" else "",
            f"{counts[ChangeKind.OPENED]} new" if counts[ChangeKind.OPENED] else "",
            f"{counts[ChangeKind.EXPIRED]} no longer excepted" if counts[ChangeKind.EXPIRED] else "",
            f"{counts[ChangeKind.EXPIRING]} excepted for days only" if counts[ChangeKind.EXPIRING] else "",
            f"{counts[ChangeKind.CHANGED]} changed" if counts[ChangeKind.CHANGED] else "",
            f"{counts[ChangeKind.RESOLVED]} resolved" if counts[ChangeKind.RESOLVED] else "",
        ]
        name = REDACTOR.redact(clean(document["registry"], REGISTRY_LENGTH)).encode("ascii", "replace").decode()
        line, sign = f"[{name[:REGISTRY_LENGTH]}] {document['status']}", ": "
        for part in filter(None, parts):
            if len(line) + len(sign) + len(part) > SUBJECT_LENGTH:
                break
            line, sign = f"{line}{sign}{part}", ", "
        return line

    def _text(self, document: Mapping[str, Any], fixes: Sequence[tuple[Finding, tuple[str, ...]]], *, left: int) -> str:
        """Write the mail; `left` counts the namespaces whose lines had no room."""
        lines = [*self._head(document), ""]
        for change_kind, heading in HEADINGS.items():
            lines += self._section(document, change_kind, heading)
        if fixes:
            lines += [
                "HOW TO FIX (the first finding of each namespace; the others likewise)",
                *(f"  {line}" for line in wrap(HOW_TO_RUN, MAIL_WIDTH)),
            ]
            for finding, commands in fixes:
                lines += [
                    "",
                    f"  {finding.repository.namespace}: {finding.repository}:{finding.tag}",
                    *(f"    {line}" for line in commands),
                ]
            if left:
                more = count_words(left, "more namespace", "more namespaces")
                lines += ["", f"  and {more}: the report has their lines"]
            lines.append("")
        lines += [
            "WHERE THE REST IS",
            *([f"  the report:             {document['report']}"] if document["report"] else []),
            f"  every tag of this run:  {document['rows']}*",
            f"  the run record:         {document['record']}",
            "",
            "WHY YOU GET THIS",
            f"  This address is subscribed to the alerts of the audit, and {_EVENTS[document['event']][1]}.",
            *([f"  Questions: {self._contact}"] if self._contact else []),
            "",
            f"{RULE_ID} (CAT II): {TITLE}",
        ]
        return "\n".join(lines) + "\n"

    def _head(self, document: Mapping[str, Any]) -> list[str]:
        run, tags, repositories = self._run, self._run.tags, self._run.repositories
        lines = [
            f"{run.registry}: {describe_status(run)}",
            "",
            f"Registry: {run.registry}, {self._url}",
            f"Audited:  {iso(run.started_at)} to {iso(run.finished_at)}, run {run.run_id}",
            "",
        ]
        if run.is_empty:
            lines.append(
                "The registry is empty: it holds no image. An administrator's account looked, and the counts are 0."
            )
        listed = count_words(repositories.listed, "repository", "repositories")
        read = f"{repositories.audited} of {listed} read"
        if repositories.removed:
            read += f", {repositories.removed} removed meanwhile"
        images = count_words(tags.audited, "image tag", "image tags")
        lines.append(f"{read}; {images}, {tags.failed} of them not signed or not trusted.")
        if tags.signatures:
            lines.append(f"{tags.signatures}. {COSIGN_NOTE}")
        if tags.artifacts:
            more = count_words(
                tags.artifacts,
                "more tag holds a signature (Cosign), no image, and is",
                "more tags hold signatures (Cosign), no images, and are",
            )
            lines.append(f"{more} not judged.")
        are = count_words(run.findings.open, "finding is", "findings are")
        known = f", {run.known_open} of them from earlier runs and not read again" if run.known_open else ""
        oldest = f", the oldest since {self._open_summary.oldest}" if run.findings.open else ""
        lines.append(f"{are} open{known}{oldest}.")
        if run.findings.excepted:
            are = count_words(run.findings.excepted, "of them is", "of them are")
            lines.append(f"{are} under an exception, and told of only when it ends.")
        if run.namespaces:
            lines.append(
                f"A partial run, of: {', '.join(run.namespaces[:LINES_SHOWN])}. It does not answer the rule for the rest."
            )
        for heading, texts in (
            ("THE AUDIT IS NOT COMPLETE, so this is no pass:", document["incomplete_because"]),
            ("Not read either:", self._unread(document)),
            ("Mind:", document["warnings"]),
        ):
            if texts:
                lines += ["", heading, *(f"  - {text}" for text in texts)]
        return lines

    def _section(self, document: Mapping[str, Any], change_kind: ChangeKind, heading: str) -> list[str]:
        count = document["counts"][change_kind]
        if not count:
            return []
        lines = [f"{heading} ({count})"]
        namespace = None
        open_by_namespace = self._open_summary.open_by_namespace
        for item in document[change_kind]:
            owner = namespace_of(item["repository"])
            if owner != namespace:
                namespace = owner
                lines.append(f"  {owner}  ({open_by_namespace.get(owner, 0)} open)")
            name = f"    {item['repository']}:{item['tag']}"
            if change_kind is ChangeKind.RESOLVED:
                since = "; open again" if item["state"] == State.OPEN else ""
                lines.append(f"{name}  ({item['resolution']}{since})")
                continue
            by = item["author_name"] or item["author"] or "an unknown account"
            pushed = f"pushed {item['pushed_at'] or 'at an unknown time'} by {by}"
            lines += [
                f"{name}  {item['verdict']}" + ("" if item["state"] == State.OPEN else "; resolved since"),
                f"      {item['reason']}",
                f"      {item['digest'] or 'digest unknown'}",
                f"      {pushed}",
            ]
            if item["exception"]:
                lines.append(f"      {describe_exception(item)}")
        omitted = document["omitted"][change_kind]
        if omitted:
            lines.append(f"  and {omitted} more: see below")
        return [*lines, ""]


def _size(attributes: "Mapping[str, MessageAttributeValueTypeDef]") -> int:
    """Count attributes as SNS does: names, types and values, in bytes."""
    texts = ((name, value["DataType"], value.get("StringValue", "")) for name, value in attributes.items())
    return sum(len(text.encode()) for parts in texts for text in parts)


def _json(document: Mapping[str, Any]) -> str:
    # As UTF-8: an escape within an escape would be seven bytes for one letter.
    return json.dumps(document, ensure_ascii=False)
