"""What subscribers hear of a run: one digest of what changed, or that the audit could not be completed.

News is taken from the findings table, published, and only then marked as announced. A crash in between publishes it again, with
the same ids; it is never lost.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING

from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.notification_text import ArtifactUrls, Composer, Message, OpenFindingsSummary
from dtr_audit.aws.pending_notifications import PendingNotifications
from dtr_audit.aws.runs import RunsTable
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.run_record import Run, Scope
from dtr_audit.settings import AlertGrouping

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

NAMESPACES_OF_A_MESSAGE = 100  # a filter policy must see each of them, so more are spread over messages
NAMESPACES_BYTES = 32 * 1024  # and so are those with longer names, as JSON: they stand in a message three times
INDEX_ATTEMPTS = 20
INDEX_WAIT_SECONDS = 0.5


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
        self,
        run: Run,
        open_summary: OpenFindingsSummary,
        locations: ArtifactUrls,
        *,
        expected: int,
        now: datetime,
        until: float,
    ) -> int:
        """Publish what is new, and mark it as announced; gives the number of messages.

        `expected` is how many findings are known to hold news: the index of them may lag a moment behind. What is not
        published by `until` (time.monotonic) stays news for the next run.
        """
        pending = self._collect(expected, until)
        published = 0
        try:
            composer = Composer(
                run,
                open_summary,
                locations,
                is_by_namespace=self._grouping is AlertGrouping.NAMESPACE,
                url=self._url,
                contact=self._contact,
            )
            warned = self._warn(composer, "baseline", run.baseline.problem, now) if run.baseline else 0
            if run.trust is not None and run.complete and run.scope is Scope.FULL:
                expiring = run.trust.formatted_expiring if run.trust.expiring else ""
                warned += self._warn(composer, "trust", expiring, now, event="trust_expiring")
            unexcepted = self._warn(composer, "exceptions", run.exceptions.problem, now)
            self._findings.mark_announced(pending.findings.at(pending.quiet_locations), threads=self._threads)
            for message, namespaces in self._compose(run, composer, pending, now, may_remind=not unexcepted):
                if published and time.monotonic() >= until:
                    break
                self._publish(message)
                published += 1
                if published == 1:
                    # Before anything is marked as told: whoever makes this again after that has nothing to tell.
                    self._runs.note_digest(now)
                # Message by message: whatever ends the run here, what was told before is not told again.
                locations_reported = chain.from_iterable(
                    pending.namespaces[namespace].locations for namespace in namespaces
                )
                self._findings.mark_announced(pending.findings.at(locations_reported), threads=self._threads)
        finally:
            pending.close()
        return published + warned + unexcepted

    def _warn(self, composer: "Composer", of: str, problem: str, now: datetime, *, event: str = "") -> int:
        """Say what is wrong beside the findings, such as that a document of theirs cannot be used: once, and again as a reminder.

        Gives the number of messages. It is apart from the news, and puts off no reminder of the findings.
        """
        reported = self._runs.reported_problem(of)
        if reported is None and not problem:
            return 0
        if problem and reported is not None and reported[0] == problem and not self._is_due(reported[1], now):
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

    def _collect(self, expected: int, until: float) -> PendingNotifications:
        for attempt in range(INDEX_ATTEMPTS):
            with ExitStack() as closing:
                pending = PendingNotifications()
                closing.callback(pending.close)
                for finding in self._findings.pending_notifications():
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
        composer: "Composer",
        pending: PendingNotifications,
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
