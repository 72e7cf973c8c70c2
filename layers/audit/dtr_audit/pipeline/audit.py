"""The audit: `inventory()` -> `examine()` -> `report()`, and `audit()` that makes one run of the three in one invocation.

inventory() lists the repositories; an Examiner reads and judges them in parallel, archives every tag and opens findings; a Reporter
resolves what is proven, records and announces. `steps.py` makes the same run of the same parts in many invocations.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from aws_lambda_powertools import Logger

from dtr_audit.aws.archive import Archive
from dtr_audit.aws.clients import AwsClients
from dtr_audit.aws.exceptions_document import ExceptionsRead, fetch_exceptions
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.runs import LEASE_GRACE_SECONDS, RunsTable, fan_out_lease_seconds
from dtr_audit.core.finding_changes import Moment
from dtr_audit.core.model import Repository
from dtr_audit.core.request import AuditRequest
from dtr_audit.core.reuse import DocumentLedger
from dtr_audit.core.run_record import Run, Scope
from dtr_audit.core.run_state import RunState
from dtr_audit.core.scan_order import Mark, ReadingOrder, explain_out_of_time
from dtr_audit.errors import AuditError, EvidenceError, OutOfTimeError, SettingsError
from dtr_audit.pipeline.connection import Connection, count_trust
from dtr_audit.pipeline.finding_batches import WRITERS, FindingBatches
from dtr_audit.pipeline.previous_state import KnownBefore
from dtr_audit.pipeline.report import Reporter
from dtr_audit.pipeline.resolve import Closings
from dtr_audit.pipeline.scan import count_readers
from dtr_audit.pipeline.scanner import RepositoryScanner
from dtr_audit.pipeline.second_pass import Unfinished
from dtr_audit.registry.credentials import SecretsManagerCredentials
from dtr_audit.registry.dtr import DtrClient
from dtr_audit.settings import Settings, TrustVerification

REPORT_SECONDS = 120.0  # kept back at the end, to write down and announce what was found
REPORT_SHARE = 0.25  # of the whole time, at most
LAST_SECONDS = 5.0  # of those, to put down that all is said

logger = Logger(service="dtr-signature-audit", child=True)


def audit(
    settings: Settings,
    request: AuditRequest,
    clients: AwsClients,
    *,
    owner: str,
    seconds: float,
    now: Callable[[], datetime],
) -> Run | None:
    """Make one run and give its record; None if this very run was finished before, by an earlier delivery of its event.

    `owner` is the invocation, the same when it is retried; `seconds` is the time until it is ended from outside. A registry that
    cannot be read makes a run that is not complete, never an exception; AWS failing is one, so that the invocation is retried.
    Raises LeaseHeldError while another run of the registry is under way.
    """
    ends_at = time.monotonic() + seconds
    runs = RunsTable(clients.dynamodb, settings.runs_table, settings.registry)
    if runs.is_finished(request.run_id):
        return None
    attempt = uuid.uuid4().hex
    is_retry = runs.take_lease(
        owner,
        attempt,
        request.run_id,
        now=now(),
        seconds=seconds + LEASE_GRACE_SECONDS,
        # The other engine may have been deployed when the run that holds it began.
        longest=fan_out_lease_seconds(settings),
    )
    one = _OneRun(
        settings,
        request,
        clients,
        runs,
        attempt=attempt,
        is_retry=is_retry,
        now=now,
        stop_at=stop_reading_at(ends_at, seconds),
        ends_at=ends_at - LAST_SECONDS,
    )
    try:
        run = one.make()
    finally:
        one.close()
    # Not after a crash: the lease then keeps others away until whatever is left of this invocation is dead for certain.
    runs.release_lease(attempt)
    return run


def count_connections(concurrency: int) -> int:
    """Give how many calls to AWS may be under way at once: of the readers, of the writers, and of the run itself."""
    return count_readers(concurrency) + WRITERS + 2


def stop_reading_at(ends_at: float, seconds: float) -> float:
    """Give the moment from which on an invocation of so many seconds only writes down what it has read."""
    return ends_at - min(REPORT_SECONDS, seconds * REPORT_SHARE)


def read_pins(archive: Archive) -> bytes:
    """Read the document of pins; raises SettingsError."""
    from dtr_audit.trust.notary import pins  # noqa: PLC0415 - loaded by the first run that verifies, not by the start

    try:
        return archive.read(pins.KEY, limit=pins.DOCUMENT_BYTES).content
    except EvidenceError as error:
        raise SettingsError(f"{pins.KEY}, by which roots are to be pinned: {error}") from error


def inventory(registry: DtrClient, request: AuditRequest, run_state: RunState) -> Iterator[Repository]:
    """List the repositories in scope, as their pages arrive."""
    # One dict of all names for both, where nothing that is listed is left out.
    found = run_state.is_scanned if request.scope is Scope.FULL else None
    for repository in registry.repositories(run_state.listing, found):
        if request.covers(repository):
            run_state.repositories.listed += 1
            run_state.namespaces.add(repository.namespace)
            run_state.is_scanned.setdefault(repository, False)
            yield repository


def explain_listing(request: AuditRequest, run_state: RunState) -> None:
    """Put into words what is wrong with the list of repositories."""
    if run_state.listing.problem:
        run_state.note_incomplete(run_state.listing.problem)
        if request.scope is Scope.FULL:
            # There are as many as the registry says, though fewer were listed.
            there = run_state.listing.count - run_state.listing.unnamed_entries
            run_state.repositories.listed = max(run_state.repositories.listed, there)
    if run_state.listing.unnamed_entries:
        noun = "repository" if run_state.listing.unnamed_entries == 1 else "repositories"
        run_state.warnings.append(
            f"the registry lists {run_state.listing.unnamed_entries} {noun} without a name, "
            "which cannot be asked for and was passed over"
        )
    missing = sorted(set(request.namespaces) - run_state.namespaces)
    if missing and not run_state.listing.problem:
        run_state.note_incomplete(f"no repository is listed in the namespaces asked for: {', '.join(missing[:20])}")


def connect(connection: Connection, settings: Settings, run_state: RunState) -> bool:
    """Log in, and take down what that tells; tells whether the registry can be read."""
    try:
        connection.connect()
    except AuditError as error:
        run_state.note_incomplete(str(error))
    run_state.domains = connection.domains
    if connection.warning:
        run_state.warnings.append(connection.warning)
    run_state.is_trust_verified = connection.verifier is not None
    if run_state.is_trust_verified:
        run_state.trust = count_trust(settings)
    return not run_state.incomplete_because


class _OneRun:
    """The state of one run; all it writes is keyed by the run id, so that a second attempt replaces the first."""

    def __init__(
        self,
        settings: Settings,
        request: AuditRequest,
        clients: AwsClients,
        runs: RunsTable,
        *,
        attempt: str,
        is_retry: bool,
        now: Callable[[], datetime],
        stop_at: float,
        ends_at: float,
    ) -> None:
        self._settings = settings
        self._request = request
        self._clients = clients
        self._runs = runs
        self._attempt = attempt
        self._now = now
        self._stop_at = stop_at
        self._started_at = now()
        self._run_state = RunState()
        self._order = ReadingOrder()
        self._findings = FindingsTable(
            clients.dynamodb, settings.findings_table, settings.registry, resolved_days=settings.days_resolved_are_kept
        )
        self._batches = FindingBatches(self._findings)
        self._known: KnownBefore | None = None  # None: each repository is asked for
        self._archive = archive = Archive(
            clients.s3,
            settings.bucket,
            settings.registry,
            request.run_id,
            request.date,
            confirm=self._confirm_rows,
            keeps_parts=settings.trust is TrustVerification.SIGNATURES,
            location=settings.output_location,
        )
        self._documents = DocumentLedger()
        self._connection = Connection(
            settings,
            SecretsManagerCredentials(settings.secret_arn, clients.secrets),
            threads=settings.concurrency,
            stop_at=stop_at,
            at=self._started_at,
            read_pins=lambda: read_pins(archive),
        )
        self._reporter = Reporter(
            settings,
            request,
            self._run_state,
            clients=clients,
            runs=runs,
            findings=self._findings,
            archive=archive,
            confirm=lambda: runs.confirm_lease(attempt),
            is_retry=is_retry,
            started_at=self._started_at,
            now=now,
            ends_at=ends_at,
            closings=Closings(),
        )

    def close(self) -> None:
        """Let go of connections and files."""
        self._batches.close()
        self._archive.discard()
        self._documents.close()
        if self._known is not None:
            self._known.close()
        self._reporter.close()
        self._connection.close()

    def make(self) -> Run:
        """Make the run."""
        logger.info("audit started", run_id=self._request.run_id, scope=str(self._request.scope))
        # Answers of the registry take longer than all that is to be done meanwhile.
        self._connection.begin()
        self._archive.begin()
        self._reporter.prepare()
        day = self._started_at.astimezone(UTC).date()
        exceptions = ExceptionsRead.of(fetch_exceptions(self._clients.s3, self._settings.bucket), day)
        self._reporter.know_exceptions(exceptions)
        if exceptions.warning:
            self._run_state.warnings.append(exceptions.warning)
        if self._request.scope is Scope.FULL:
            self._order = ReadingOrder(self._runs.mark_of_last(before=self._request.run_id))
        if not connect(self._connection, self._settings, self._run_state):
            return self._reporter.report(access_verified=False, may_resolve=False, hint="", next_at=self._next_at)
        run_state, connection = self._run_state, self._connection
        if self._request.scope is Scope.FULL:
            self._known = KnownBefore(self._findings, with_trust=connection.verifier is not None)
        looked = connection.begin_to_look_around() if self._request.scope is Scope.FULL else None
        version = connection.begin_to_read_version()
        self._scan_all(exceptions)
        self._batches.flush()
        access_unverified = connection.verify_admin()
        if access_unverified:
            run_state.note_incomplete(access_unverified)
        if looked is not None:
            run_state.note_related_settings(looked())
        run_state.registry_version = version()
        hint = connection.hint_at_domain() if run_state.is_all_unsigned else ""
        # Where not all documents were compared, what looks signed since may be signed elsewhere.
        may_resolve = not access_unverified and not self._documents.problem
        return self._reporter.report(
            access_verified=not access_unverified, may_resolve=may_resolve, hint=hint, next_at=self._next_at
        )

    @property
    def _next_at(self) -> Mark | None:
        """Where the next run of the whole registry begins, if this is one and something is missing."""
        return self._order.missed_from if self._request.scope is Scope.FULL else None

    def _confirm_rows(self) -> None:
        """See that findings are in the table before anything that tells of them, and that the lease is still this attempt's."""
        self._batches.flush()
        self._runs.confirm_lease(self._attempt)

    def _scan_all(self, exceptions: ExceptionsRead) -> None:
        run_state = self._run_state
        scanner = RepositoryScanner(
            self._connection,
            self._archive,
            run_state,
            registry=self._settings.registry,
            known=self._known or self._findings,
            findings=self._findings,
            batches=self._batches,
            exceptions=exceptions.exceptions,
            moment=Moment(self._request.run_id, self._started_at),
            threads=self._settings.concurrency,
            stop_at=self._stop_at,
            now=self._now,
            stand=self._reporter.stand,
            wait=self._reporter.resolutions.add,
            note_documents=self._documents.add,
        )
        unfinished = Unfinished()
        try:
            listed = inventory(self._connection.registry, self._request, run_state)
            for scanned in scanner.examine(self._order.arrange(listed)):
                self._order.note_scanned(scanned.reading.repository)
                scanner.record(scanned, unfinished)
        except OutOfTimeError:
            run_state.note_incomplete(explain_out_of_time(run_state.repositories, self._next_at))
            scanner.give_up(unfinished.failed)
        else:
            self._finish(scanner, unfinished)
        if self._documents.problem:
            run_state.note_incomplete(self._documents.problem)
        reused = self._documents.find_reused()
        if reused:
            self._reporter.keep_open(reused.keys(), counted=scanner.distrust(reused))
        explain_listing(self._request, run_state)

    def _finish(self, scanner: RepositoryScanner, unfinished: Unfinished) -> None:
        try:
            scanner.finish(unfinished)
        except OutOfTimeError:
            self._run_state.note_incomplete(explain_out_of_time(self._run_state.repositories, self._next_at))
