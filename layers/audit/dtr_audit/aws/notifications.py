"""What subscribers hear of a run: one digest of what changed, or that the audit could not be completed.

News is taken from the findings table, published, and only then marked as announced. A crash in between publishes it again, with
the same ids; it is never lost.
"""

import hashlib
import json
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, islice
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.runs import RunsTable
from dtr_audit.core.finding_spool import FindingSpool
from dtr_audit.core.fix import HOW_TO_RUN, fix_commands
from dtr_audit.core.model import RULE_ID, Excepted, Finding, News, Run, Scope, State, Status, Transition, iso
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.rule import COSIGN_NOTE, SEVERITY, TITLE
from dtr_audit.core.text import clean
from dtr_audit.settings import AlertGrouping

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sns.type_defs import MessageAttributeValueTypeDef

MESSAGE_BYTES = 240 * 1024  # SNS takes 256 KiB, attributes and all
MESSAGE_ITEMS = 60  # findings told one by one; the others are told in numbers, and lie in S3
NAMESPACES_OF_A_MESSAGE = 100  # a filter policy must see each of them, so more are spread over messages
NAMESPACES_BYTES = 32 * 1024  # and so are those with longer names, as JSON: they stand in a message three times
NAMESPACE_ITEMS = 60  # held for one namespace
HELD_ITEMS = 10_000  # held in all, their names alone: memory does not grow with the news
HELD_ALWAYS = 5  # of each kind in a namespace, so that none is told in numbers alone
SUBJECT_LENGTH = 99  # SNS wants fewer than 100 characters
REGISTRY_LENGTH = 63  # of its name in a subject
LINES_SHOWN = 10  # of reasons and of warnings
UNREAD_SHOWN = 20  # repositories that could not be read, and that no reason names
UNREAD_REASON_LENGTH = 200
LINE_LENGTH = 500
MAIL_WIDTH = 90  # characters of a line of prose in a mail
INDEX_ATTEMPTS = 20
INDEX_WAIT_SECONDS = 0.5

# In the order in which they are told: what needs doing first.
_HEADINGS = {
    News.OPENED: "NEW",
    News.EXPIRED: "NO LONGER EXCEPTED",
    News.EXPIRING: "EXCEPTION ENDS SOON",
    News.CHANGED: "CHANGED",
    News.RESOLVED: "RESOLVED",
}
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
class Told:
    """A finding, and the move of it that is told."""

    finding: Finding
    move: Transition


class Held(NamedTuple):
    """A move that may be told: its finding's name, by which it is sorted, and where all of it lies."""

    repository: str  # its name in its namespace
    tag: str
    place: int  # of the finding in the file
    move: int  # of the finding's news, counted from 0


@dataclass(slots=True)
class NamespaceNews:
    """What is new in one namespace: how much, and the first of it by name."""

    counts: dict[News, int] = field(default_factory=lambda: dict.fromkeys(News, 0))
    first: dict[News, list[Held]] = field(default_factory=lambda: {news: [] for news in News})
    places: "array[int]" = field(default_factory=lambda: array("Q"))  # of its findings in the file


class PendingNews:
    """All that is to be announced, counted by namespace; the findings themselves wait in a file."""

    def __init__(self) -> None:
        self.namespaces: dict[str, NamespaceNews] = {}
        self.findings = FindingSpool()
        self.quiet_places = array("Q")  # of findings of which nobody is to hear
        self._held = 0

    def add(self, finding: Finding) -> None:
        """Take one finding with news."""
        place = self.findings.add(finding)
        moves = [(number, move.news) for number, move in enumerate(finding.unannounced) if not move.is_quiet]
        if not moves:
            self.quiet_places.append(place)
            return
        namespace = self.namespaces.setdefault(finding.repository.namespace, NamespaceNews())
        namespace.places.append(place)
        for number, news in moves:
            namespace.counts[news] += 1
            held = namespace.first[news]
            if self._held < HELD_ITEMS or len(held) < HELD_ALWAYS:
                held.append(Held(finding.repository.name, finding.tag, place, number))
                self._held += 1
            if len(held) > 2 * NAMESPACE_ITEMS:
                held.sort()
                self._held -= len(held) - NAMESPACE_ITEMS
                del held[NAMESPACE_ITEMS:]

    def first(self, names: Iterable[str], limit: int) -> dict[News, list[Told]]:
        """Give at most `limit` moves of some namespaces, what needs doing first."""
        told: dict[News, list[Told]] = {}
        namespaces = sorted(names)
        for news in _HEADINGS:
            held = chain.from_iterable(sorted(self.namespaces[name].first[news]) for name in namespaces)
            first = tuple(islice(held, limit))
            findings = self.findings.at(one.place for one in first)
            told[news] = [
                Told(finding, finding.unannounced[one.move]) for one, finding in zip(first, findings, strict=True)
            ]
            limit -= len(first)
        return told

    def to_fix(self, name: str) -> Iterator[Finding]:
        """Yield the open findings of a namespace that are held, what needs doing first."""
        for news in _HEADINGS:
            if news is not News.RESOLVED:
                for one in sorted(self.namespaces[name].first[news]):
                    (finding,) = self.findings.at((one.place,))
                    if finding.state is State.OPEN:
                        yield finding

    def close(self) -> None:
        """Let go of the file."""
        self.findings.close()


@dataclass(frozen=True, slots=True)
class Standing:
    """How many findings are open in each namespace after the run, how many of them excepted, and since when the oldest is."""

    open_by_namespace: Mapping[str, int]
    oldest: str  # ISO 8601; '' where none is open
    excepted_by_namespace: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the whole of it lies."""

    rows: str
    record: str
    report: str  # '' where none was written


class Alerts:
    """The voice of one run."""

    def __init__(
        self,
        client: "SNSClient",
        topic_arn: str,
        findings: FindingsTable,
        runs: RunsTable,
        *,
        grouping: AlertGrouping,
        reminder_days: int,
        threads: int,
        url: str,
        contact: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; a reminder is due `reminder_days` after the last message (0: never).

        `url` is the registry's address, `contact` whom readers ask ('' if it is not given).
        """
        self._url = url
        self._contact = contact
        self._client = client
        self._topic_arn = topic_arn
        self._findings = findings
        self._runs = runs
        self._grouping = grouping
        self._reminder_days = reminder_days
        self._threads = threads
        self._sleep = sleep

    def announce(
        self, run: Run, standing: Standing, places: Places, *, expected: int, now: datetime, until: float
    ) -> int:
        """Publish what is new, and mark it as announced; gives the number of messages.

        `expected` is how many findings are known to hold news: the index of them may lag a moment behind. What is not
        published by `until` (time.monotonic) stays news for the next run.
        """
        pending = self._collect(expected, until)
        published = 0
        try:
            composer = _Composer(
                run,
                standing,
                places,
                is_by_namespace=self._grouping is AlertGrouping.NAMESPACE,
                url=self._url,
                contact=self._contact,
            )
            warned = self._warn(composer, "baseline", run.baseline.problem, now) if run.baseline else 0
            if run.trust is not None and run.complete and run.scope is Scope.FULL:
                expiring = run.trust.spoken_expiring if run.trust.expiring else ""
                warned += self._warn(composer, "trust", expiring, now, event="trust_expiring")
            unexcepted = self._warn(composer, "exceptions", run.exceptions.problem, now)
            self._findings.mark_announced(pending.findings.at(pending.quiet_places), threads=self._threads)
            for message, namespaces in self._compose(run, composer, pending, now, may_remind=not unexcepted):
                if published and time.monotonic() >= until:
                    break
                self._publish(message)
                published += 1
                if published == 1:
                    # Before anything is marked as told: whoever makes this again after that has nothing to tell.
                    self._runs.note_digest(now)
                # Message by message: whatever ends the run here, what was told before is not told again.
                places_told = chain.from_iterable(pending.namespaces[namespace].places for namespace in namespaces)
                self._findings.mark_announced(pending.findings.at(places_told), threads=self._threads)
        finally:
            pending.close()
        return published + warned + unexcepted

    def _warn(self, composer: "_Composer", of: str, problem: str, now: datetime, *, event: str = "") -> int:
        """Say what is wrong beside the findings, such as that a document of theirs cannot be used: once, and again as a reminder.

        Gives the number of messages. It is apart from the news, and puts off no reminder of the findings.
        """
        told = self._runs.told_problem(of)
        if told is None and not problem:
            return 0
        if problem and told is not None and told[0] == problem and not self._is_due(told[1], now):
            return 0
        if problem:
            self._publish(composer.message(event or f"{of}_unusable"))
        self._runs.note_problem(of, problem, now)
        return int(bool(problem))

    def _publish(self, message: "Message") -> None:
        self._client.publish(
            TopicArn=self._topic_arn,
            Subject=REDACTOR.redact(message.subject),
            Message=REDACTOR.redact_json(message.body),
            MessageStructure="json",
            MessageAttributes=message.attributes,
        )

    def _collect(self, expected: int, until: float) -> PendingNews:
        for attempt in range(INDEX_ATTEMPTS):
            with ExitStack() as closing:
                pending = PendingNews()
                closing.callback(pending.close)
                for finding in self._findings.unannounced():
                    pending.add(finding)
                # What the index does not show in this time is announced by the next run.
                is_last = attempt == INDEX_ATTEMPTS - 1 or time.monotonic() + INDEX_WAIT_SECONDS >= until
                if len(pending.findings) >= expected or is_last:
                    closing.pop_all()
                    return pending
            self._sleep(INDEX_WAIT_SECONDS)
        raise AssertionError("unreachable")  # pragma: no cover

    def _compose(
        self,
        run: Run,
        composer: "_Composer",
        pending: PendingNews,
        now: datetime,
        *,
        may_remind: bool,
    ) -> "Iterator[tuple[Message, Sequence[str]]]":
        """Yield each message with the namespaces whose news it tells."""
        is_by_namespace = self._grouping is AlertGrouping.NAMESPACE
        groups = _group(sorted(pending.namespaces), 1 if is_by_namespace else NAMESPACES_OF_A_MESSAGE)
        # A registry's own trouble is told in full to those who see all of it; with one digest a run it stands in there.
        if not run.complete and not (groups and not is_by_namespace):
            yield composer.message("audit_incomplete"), ()
        for group in groups:
            yield composer.message("findings_changed", pending, group), group
        # Of what is excepted nobody is reminded: the end of the exception is told when it comes.
        is_to_do = may_remind and run.findings.open > run.findings.excepted
        if run.complete and not groups and is_to_do and self._reminder_is_due(now):
            yield composer.message("reminder"), ()

    def _reminder_is_due(self, now: datetime) -> bool:
        return bool(self._reminder_days) and self._is_due(self._runs.last_digest_at(), now)

    def _is_due(self, last: datetime | None, now: datetime) -> bool:
        """Tell whether what was last said at a time is to be said again."""
        if last is None:
            return True
        # An hour's grace: a daily run that starts a little earlier than last time still reminds on the day.
        return bool(self._reminder_days) and now - last >= timedelta(days=self._reminder_days) - timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Message:
    """One message as SNS takes it."""

    subject: str
    body: str
    attributes: "dict[str, MessageAttributeValueTypeDef]"


class _Composer:
    """Writes the messages of one run: text for people, JSON for machines, both under SNS's limit."""

    def __init__(
        self, run: Run, standing: Standing, places: Places, *, is_by_namespace: bool, url: str, contact: str
    ) -> None:
        self._is_by_namespace = is_by_namespace
        self._url = url
        self._contact = contact
        self._run = run
        self._standing = standing
        self._places = places

    def message(self, event: str, pending: PendingNews | None = None, names: Sequence[str] = ()) -> Message:
        """Write one message about some namespaces; without any it is about the registry as a whole."""
        namespaces = {name: pending.namespaces[name] for name in names} if pending is not None else {}
        document = self._document(event, namespaces)
        fixes = self._fixes(pending, names) if pending is not None else []
        subject = self._subject(document)
        limit, blocks = MESSAGE_ITEMS, len(fixes)
        while True:
            told = pending.first(names, limit) if pending is not None else {news: [] for news in _HEADINGS}
            document["omitted"] = {
                str(news): document["counts"][str(news)] - len(items) for news, items in told.items()
            }
            for news, items in told.items():
                document[str(news)] = [self._item(item) for item in items]
            document["fix"] = self._fix(told)
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

    def _document(self, event: str, namespaces: Mapping[str, NamespaceNews]) -> dict[str, Any]:
        run = self._run
        counts = {str(news): sum(one.counts[news] for one in namespaces.values()) for news in News}
        return {
            "id": _id(run.registry, run.run_id, event, *sorted(namespaces)),
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
            "oldest_open": self._standing.oldest,
            "exceptions": run.exceptions.as_dict(),
            "counts": counts,
            "namespaces": [
                {
                    "namespace": name,
                    **{str(news): one.counts[news] for news in News},
                    "open": self._standing.open_by_namespace.get(name, 0),
                    "excepted": self._standing.excepted_by_namespace.get(name, 0),
                }
                for name, one in namespaces.items()
            ],
            "rows": self._places.rows,
            "record": self._places.record,
            "report": self._places.report or None,
        }

    def _reasons(self, namespaces: Collection[str]) -> list[str]:
        """Say why the audit is incomplete: to a namespace's own team only as far as it is known to concern them."""
        run = self._run
        if run.complete or not (self._is_by_namespace and namespaces):
            return _lines(run.incomplete_because)
        own = [
            f"{name} could not be read to the end: {why}" for name, why in run.unreadable if _owner(name) in namespaces
        ]
        unreadable = run.repositories.unreadable
        # All unreadable repositories together are one of the run's reasons; here each is one.
        others = len(run.incomplete_because) - bool(unreadable) + unreadable - len(own)
        lines = _lines(own)
        if others:
            many = _spoken_count(others, "reason", "reasons")
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
                run.trust.spoken_expiring if run.trust else "",
                run.other_hosts.spoken,
                run.security_hub.warning if run.security_hub else "",
            }
        return _lines([warning for warning in run.warnings if warning not in of_others])

    def _severity(self, event: str, counts: Mapping[str, int]) -> str:
        """Give the rule's own severity where somebody has something to do."""
        is_news = any(counts[news] for news in News if news is not News.RESOLVED)
        to_do = event != "findings_changed" or is_news or not self._run.complete
        return SEVERITY if to_do else "informational"

    def _item(self, told: Told) -> dict[str, Any]:
        finding, move = told.finding, told.move
        return {
            "id": _id(finding.registry, str(finding.repository), finding.tag, str(move.news), move.run_id),
            "repository": str(finding.repository),
            "tag": finding.tag,
            "digest": finding.digest,
            "state": str(finding.state),
            "run_id": move.run_id,
            "verdict": str(finding.verdict),
            "reason": clean(finding.reason, LINE_LENGTH),
            "resolution": move.resolution,
            "exception": _exception(move.excepted or finding.excepted),
            "author": finding.author,
            "author_name": finding.author_name or None,
            "pushed_at": finding.pushed_at,
            "first_seen": move.first_seen,
            "last_changed": finding.last_changed,
        }

    def _fix(self, told: Mapping[News, Sequence[Told]]) -> list[str]:
        """Give the lines that fix the first of the findings that can be fixed by signing."""
        items = chain.from_iterable(told[news] for news in _HEADINGS if news is not News.RESOLVED)
        first = next((item.finding for item in items if item.finding.state is State.OPEN), None)
        return list(self._sign(first)) if first is not None else []

    def _fixes(self, pending: PendingNews, names: Sequence[str]) -> list[tuple[Finding, tuple[str, ...]]]:
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
            f"{counts[News.OPENED]} new" if counts[News.OPENED] else "",
            f"{counts[News.EXPIRED]} no longer excepted" if counts[News.EXPIRED] else "",
            f"{counts[News.EXPIRING]} excepted for days only" if counts[News.EXPIRING] else "",
            f"{counts[News.CHANGED]} changed" if counts[News.CHANGED] else "",
            f"{counts[News.RESOLVED]} resolved" if counts[News.RESOLVED] else "",
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
        for news, heading in _HEADINGS.items():
            lines += self._section(document, news, heading)
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
                more = _spoken_count(left, "more namespace", "more namespaces")
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
            f"{run.registry}: {_spoken(run)}",
            "",
            f"Registry: {run.registry}, {self._url}",
            f"Audited:  {iso(run.started_at)} to {iso(run.finished_at)}, run {run.run_id}",
            "",
        ]
        if run.is_empty:
            lines.append(
                "The registry is empty: it holds no image. An administrator's account looked, and the counts are 0."
            )
        listed = _spoken_count(repositories.listed, "repository", "repositories")
        read = f"{repositories.audited} of {listed} read"
        if repositories.removed:
            read += f", {repositories.removed} removed meanwhile"
        images = _spoken_count(tags.audited, "image tag", "image tags")
        lines.append(f"{read}; {images}, {tags.failed} of them not signed or not trusted.")
        if tags.signatures:
            lines.append(f"{tags.signatures}. {COSIGN_NOTE}")
        if tags.artifacts:
            more = _spoken_count(
                tags.artifacts,
                "more tag holds a signature (Cosign), no image, and is",
                "more tags hold signatures (Cosign), no images, and are",
            )
            lines.append(f"{more} not judged.")
        are = _spoken_count(run.findings.open, "finding is", "findings are")
        known = f", {run.known_open} of them from earlier runs and not read again" if run.known_open else ""
        oldest = f", the oldest since {self._standing.oldest}" if run.findings.open else ""
        lines.append(f"{are} open{known}{oldest}.")
        if run.findings.excepted:
            are = _spoken_count(run.findings.excepted, "of them is", "of them are")
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

    def _section(self, document: Mapping[str, Any], news: News, heading: str) -> list[str]:
        count = document["counts"][news]
        if not count:
            return []
        lines = [f"{heading} ({count})"]
        namespace = None
        open_by_namespace = self._standing.open_by_namespace
        for item in document[news]:
            owner = _owner(item["repository"])
            if owner != namespace:
                namespace = owner
                lines.append(f"  {owner}  ({open_by_namespace.get(owner, 0)} open)")
            name = f"    {item['repository']}:{item['tag']}"
            if news is News.RESOLVED:
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
                lines.append(f"      {_spoken_exception(item)}")
        omitted = document["omitted"][news]
        if omitted:
            lines.append(f"  and {omitted} more: see below")
        return [*lines, ""]


def _group(names: Sequence[str], most: int) -> list[list[str]]:
    """Spread namespaces over messages: at most so many in one, and no more than it has room for."""
    groups: list[list[str]] = []
    room = 0
    for name in names:
        size = len(json.dumps(name))
        if not groups or len(groups[-1]) == most or size > room:
            groups.append([])
            room = NAMESPACES_BYTES
        groups[-1].append(name)
        room -= size
    return groups


def _spoken(run: Run) -> str:
    answer = {
        Status.NOT_A_FINDING: "every image tag is signed",
        Status.OPEN: "there are image tags that are not signed" + (" or not trusted" if run.tags.untrusted else "")
        if run.tags.failed
        else "findings of earlier runs are still open",
        Status.NOT_REVIEWED: "the rule could not be answered",
    }[run.status]
    if run.is_empty:
        answer = "the registry is empty"
    elif run.namespaces and run.complete and run.status is Status.NOT_REVIEWED:
        answer = "every image tag in the namespaces looked at is signed"
    return f"{run.status} - {answer}"


def _exception(excepted: Excepted | None) -> dict[str, str] | None:
    if excepted is None:
        return None
    return {
        "id": excepted.exception_id,
        "owner": excepted.owner,
        "reason": excepted.reason,
        "reference": excepted.reference,
        "ends": excepted.ends,
    }


def _spoken_exception(item: Mapping[str, Any]) -> str:
    exception = item["exception"]
    reference = f", {exception['reference']}" if exception["reference"] else ""
    told = f"{exception['id']} of {exception['owner']}{reference}"
    if item["resolution"]:
        return f"{item['resolution']}: {told}, to {exception['ends']}"
    return f"excepted to {exception['ends']} by {told}: {exception['reason']}"


def _spoken_count(number: int, one: str, many: str) -> str:
    """Give a number with what is counted, in the singular or the plural."""
    return f"{number} {one if number == 1 else many}"


def _size(attributes: "Mapping[str, MessageAttributeValueTypeDef]") -> int:
    """Count attributes as SNS does: names, types and values, in bytes."""
    texts = ((name, value["DataType"], value.get("StringValue", "")) for name, value in attributes.items())
    return sum(len(text.encode()) for parts in texts for text in parts)


def _json(document: Mapping[str, Any]) -> str:
    # As UTF-8: an escape within an escape would be seven bytes for one letter.
    return json.dumps(document, ensure_ascii=False)


def _lines(texts: Sequence[str]) -> list[str]:
    lines = [clean(text, LINE_LENGTH) for text in texts[:LINES_SHOWN]]
    return lines if len(texts) <= LINES_SHOWN else [*lines, f"and {len(texts) - LINES_SHOWN} more: see the run record"]


def _owner(repository: str) -> str:
    """Give the namespace of `namespace/name`."""
    return repository.partition("/")[0]


def _id(*parts: str) -> str:
    """Make an id that is the same whenever the same news is told again."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
