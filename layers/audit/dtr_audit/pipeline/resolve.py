"""The findings at the end of a run: those that are counted, and those that are resolved."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from dtr_audit.aws.exceptions_document import ExceptionsRead
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.runs import RunsTable
from dtr_audit.core.finding import ChangeKind, Finding, State
from dtr_audit.core.finding_changes import REPOSITORY_REMOVED, SIGNED_SINCE, Moment, resolve
from dtr_audit.core.finding_spool import FindingSpool
from dtr_audit.core.model import Repository
from dtr_audit.core.request import AuditRequest
from dtr_audit.core.run_state import RunState
from dtr_audit.errors import WorkError

logger = Logger(service="dtr-signature-audit", child=True)

CONFIRMED_FINDINGS = 500  # written between two looks whether the run is still this attempt's


class Closings:
    """What earlier attempts at a report have closed beside the findings that waited for it.

    Once that has been announced, it is in no index any more. In one invocation, which reads everything anew, only the table
    remembers it.
    """

    def recall(self) -> Iterable[Finding] | None:
        """Give what was kept; None if no attempt came so far as to have written all that it closed. Raises WorkError."""
        return None

    def keep(self, closed: FindingSpool) -> None:
        """Keep it, now that all is written."""


class FindingResolver:
    """Counts the findings as they are after a run, and resolves those that are proven to be resolved."""

    def __init__(
        self,
        request: AuditRequest,
        run_state: RunState,
        *,
        runs: RunsTable,
        findings: FindingsTable,
        confirm: Callable[[], None],
        is_retry: bool,
        started_at: datetime,
        closings: Closings,
    ) -> None:
        """Prepare; `confirm` raises once another attempt has taken the run over."""
        self.resolutions = FindingSpool()  # of those findings that wait for the proof
        self._confirm = confirm
        self._unconfirmed = 0  # findings written since
        self._is_retry = is_retry
        self._request = request
        self._runs = runs
        self._findings = findings
        self._run_state = run_state
        self._moment = Moment(request.run_id, started_at)
        self._closings = closings
        self._closed = FindingSpool()  # of repositories that are gone
        self._unread_table: Exception | None = None  # why not all findings of the table are known
        self._read = ExceptionsRead()
        # What only a run needs is loaded by the first run, not by the start.
        from dtr_audit.evidence.collector import EvidenceCollector  # noqa: PLC0415

        self._collector = EvidenceCollector(request.run_id)

    def close(self) -> None:
        """Remove what waited."""
        self.resolutions.close()
        self._closed.close()

    def know_exceptions(self, read: ExceptionsRead) -> None:
        """Take what is known of the exceptions; until then none holds."""
        self._read = read

    def stand(self, finding: Finding) -> None:
        """Take a finding of a repository that was examined, as it stands: it waits for nothing."""
        run_state = self._run_state
        run_state.with_pending_notifications += bool(finding.pending_notifications)
        if finding.changed_in == self._moment.run_id:
            # Moved by this run, be it in an earlier attempt.
            run_state.findings.opened += finding.transition is ChangeKind.OPENED
            run_state.findings.resolved += finding.transition is ChangeKind.RESOLVED
        self._count(finding)

    def stay_open(self, finding: Finding) -> None:
        """Take a finding that would be resolved, were it proven that the reading saw everything."""
        self._count(replace(finding, state=State.OPEN))

    def _count(self, finding: Finding) -> None:
        """Count a finding as it stands after the run, and tell it to the evidence.

        Whether it is excepted says the document of this run, though the tag may have been out of sight.
        """
        excepted = None
        if finding.state is State.OPEN:
            if self._read.exceptions is not None:
                excepted = self._read.exceptions.of(finding.repository, finding.tag, finding.digest)
            self._run_state.count_open(finding, excepted, in_scope=self._request.covers(finding.repository))
        self._collector.add(finding, excepted)

    def keep_open(self, repositories: Collection[Repository], *, counted: Collection[Repository]) -> None:
        """Let no finding of some repositories be resolved because its tag is signed: those signatures do not count.

        Findings of the repositories in `counted` were opened, and counted so, already.
        """

        def is_kept(finding: Finding) -> bool:
            if finding.repository not in repositories or finding.resolution != SIGNED_SINCE:
                return False
            if finding.repository not in counted:
                self.stay_open(finding)
            return True

        self.resolutions.drop(is_kept)

    def _resolve(self, *, may_resolve: bool) -> None:
        """Close what is signed or gone, if it is proven that the reading saw everything that there is."""
        run_state = self._run_state
        kept = self._recall_closed()
        earlier = kept if kept is not None else self._closed_before()
        for finding in earlier:
            self._take_closed([finding])
        if not may_resolve:
            for finding in self.resolutions:
                self.stay_open(finding)
        else:
            if kept is None:
                self._write(self.resolutions)
            self._count_closed(self.resolutions)
        self._resolve_removed(may_resolve=may_resolve)
        if kept is None:
            self._closings.keep(self._closed)
        if self._is_retry:
            # What has been announced in the meantime is in no index any more.
            run_state.findings.resolved = max(run_state.findings.resolved, self._runs.resolved_by(self._request.run_id))

    def _recall_closed(self) -> Iterable[Finding] | None:
        """Give what an earlier attempt has closed; what cannot be used is said, and then closed once more."""
        try:
            return self._closings.recall()
        except WorkError as error:
            logger.warning("what an earlier attempt has closed cannot be used", reason=str(error))
            self._run_state.note_incomplete(str(error))
            return None

    def _resolve_removed(self, *, may_resolve: bool) -> None:
        """Close the findings of repositories that are no longer listed, and count those of all others that were not examined."""
        run_state = self._run_state
        # Behind a name that is missing any repository may hide.
        all_listed = may_resolve and not run_state.listing.problem and not run_state.listing.unnamed_entries
        removed: set[Repository] = set()
        hidden: set[Repository] = set()
        for finding in self._read_findings(self._findings.open()):
            repository = finding.repository
            if run_state.is_scanned.get(repository) or repository in removed:
                continue
            if all_listed and repository not in run_state.is_scanned and self._request.covers(repository):
                removed.add(repository)
                # The index may lag behind; the table itself does not.
                known = self._findings.of_repository(repository).values()
                closed = [resolve(one, REPOSITORY_REMOVED, self._moment) for one in known if one.state is State.OPEN]
                self._write(closed)
                self._take_closed(closed)
            else:
                self._count(finding)
                may_hide = run_state.listing.unnamed_entries and repository not in run_state.is_scanned
                if may_hide and self._request.covers(repository):
                    hidden = {min(repository, *hidden)} if hidden else {repository}
        if hidden:
            noun = "repository" if run_state.listing.unnamed_entries == 1 else "repositories"
            run_state.note_incomplete(
                f"the registry lists {run_state.listing.unnamed_entries} {noun} without a name, "
                f"and {min(hidden)}, which has open findings, "
                "not at all: it may be one of them. Look for it in the registry's own console"
            )

    def _read_findings(self, findings: Iterator[Finding]) -> Iterator[Finding]:
        """Yield findings of the table. That it cannot be read is a reason; it is raised once the run is recorded."""
        try:
            yield from findings
        except (BotoCoreError, ClientError) as error:
            if self._unread_table is None:
                self._unread_table = error
                self._run_state.note_incomplete(
                    f"the findings of earlier runs could not be read, so some of them may be open: {error}. See whether the role "
                    "of the audit may query the findings table and its indexes, and use its key"
                )

    def _write(self, findings: Iterable[Finding]) -> None:
        """Write findings that are closed, with a look now and then whether the run is still this attempt's."""
        rest = iter(findings)
        while handful := list(islice(rest, CONFIRMED_FINDINGS)):
            if self._unconfirmed + len(handful) > CONFIRMED_FINDINGS:
                self._confirm()
                self._unconfirmed = 0
            self._findings.write(handful)
            self._unconfirmed += len(handful)

    def _take_closed(self, closed: list[Finding]) -> None:
        """Count findings of repositories that are gone, and remember them for whoever must report this once more."""
        self._count_closed(closed)
        for finding in closed:
            self._closed.add(finding)

    def _count_closed(self, resolved: Collection[Finding] | FindingSpool) -> None:
        """Count findings that were written as resolved."""
        self._run_state.findings.resolved += len(resolved)
        self._run_state.with_pending_notifications += len(resolved)
        for finding in resolved:
            self._count(finding)

    def _closed_before(self) -> Iterator[Finding]:
        """Yield what an earlier attempt at this run closed in repositories that this one did not see."""
        if not self._is_retry:
            return
        for finding in self._read_findings(self._findings.pending_notifications()):
            is_closed = finding.transition is ChangeKind.RESOLVED and finding.changed_in == self._moment.run_id
            if is_closed and not self._run_state.is_scanned.get(finding.repository):
                yield finding
