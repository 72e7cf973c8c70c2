"""What a step of a run is made with: settings, clients, the lease, the store and the connection."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aws_lambda_powertools import Logger

from dtr_audit.aws.archive import Archive
from dtr_audit.aws.clients import AwsClients
from dtr_audit.aws.exceptions_document import ExceptionsRead, fetch_exceptions
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.runs import RunsTable, fan_out_lease_seconds
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.exceptions import ExceptionsDocument
from dtr_audit.core.finding_changes import Moment
from dtr_audit.core.model import Repository, SignedDocuments
from dtr_audit.core.request import StepRequest
from dtr_audit.core.reuse import Reused
from dtr_audit.core.run_state import RunState
from dtr_audit.errors import ExceptionsError, SettingsError, WorkError
from dtr_audit.pipeline.audit import (
    count_connections,
    stop_reading_at,
)
from dtr_audit.pipeline.connection import Connection
from dtr_audit.pipeline.finding_batches import FindingBatches
from dtr_audit.pipeline.scanner import RepositoryScanner
from dtr_audit.pipeline.store import Work
from dtr_audit.pipeline.store_documents import BatchResult, FindingsFile, Inventory
from dtr_audit.registry.credentials import SecretsManagerCredentials
from dtr_audit.settings import Settings

logger = Logger(service="dtr-signature-audit", child=True)

EXCEPTIONS = "exceptions.json"
PINS = "trust-pins.json"
PINS_KEY = "policy/trust-pins.json"  # `notary.pins` has it too, which is loaded only where signatures are verified
SILENT = "silent"  # there once a batch has waited for the registry in vain: the others do not, and the next step does


@dataclass(frozen=True, slots=True)
class Invocation:
    """What every step of a run works with."""

    settings: Settings
    step: StepRequest
    clients: AwsClients
    seconds: float  # until it is ended from outside
    now: Callable[[], datetime]

    @classmethod
    def of(cls, payload: object, environment: Mapping[str, str], *, seconds: float) -> "Invocation":
        """Read what a function was called with, and have its log name the run; raises SettingsError."""
        settings = Settings.from_environment(environment)
        step = StepRequest.from_payload(payload)
        logger.append_keys(registry=settings.registry, run_id=step.audit.run_id)
        clients = AwsClients(connections=count_connections(settings.concurrency))
        return cls(settings, step, clients, seconds=seconds, now=lambda: datetime.now(UTC))


@dataclass(slots=True)
class BatchScan:
    """The examination of one batch."""

    number: int
    run_state: RunState
    connection: Connection
    scanner: RepositoryScanner
    archive: Archive
    work: Work
    findings: FindingsFile
    documents: list[tuple[Repository, SignedDocuments]]
    confirm: Callable[[], None]

    def put_result(self, result: BatchResult) -> str:
        """Write down what came of it; gives the sum of that."""
        self.archive.close()
        self.confirm()
        whole = replace(
            result,
            scanned=tuple(one for one, done in self.run_state.is_scanned.items() if done),
            files=tuple(self.archive.files),
            documents=tuple(self.documents),
            findings_sha256=self.findings.finish(),
            findings=self.findings.length,
        )
        return self.work.put_result(self.number, whole, self.findings)


class RunContext:
    """What a step is made of; nothing in it is asked before it is used."""

    def __init__(self, invocation: Invocation, name: str) -> None:
        settings, clients, step = invocation.settings, invocation.clients, invocation.step
        self.settings = settings
        self.request = step.audit
        self.execution = step.execution
        self.started_at = step.started_at
        self.failed_step = step.failed_step
        self.failure = step.failure
        self.proof_sha256 = step.proof_sha256
        self._inventory_sha256 = step.inventory_sha256
        self.runs = RunsTable(clients.dynamodb, settings.runs_table, settings.registry)
        self.work = Work(clients.s3, settings.bucket, settings.registry, step.audit.run_id)
        self.findings = FindingsTable(
            clients.dynamodb, settings.findings_table, settings.registry, resolved_days=settings.days_resolved_are_kept
        )
        self._name = name
        self._attempt = uuid.uuid4().hex
        self._clients = clients
        self._now = invocation.now
        self._stop_at = stop_reading_at(time.monotonic() + invocation.seconds, invocation.seconds)

    def take_lease(self) -> None:
        """Take the registry for the whole execution; raises LeaseHeldError."""
        seconds = fan_out_lease_seconds(self.settings)
        self.runs.take_lease(self.execution, self.execution, self.request.run_id, now=self._now(), seconds=seconds)

    def claim(self) -> None:
        """Take the step over."""
        self.work.claim(self._name, self._attempt)

    def confirm(self) -> None:
        """See that run and step are still this attempt's; raises LeaseHeldError."""
        self.runs.confirm_lease(self.execution)
        self.work.confirm(self._name, self._attempt)

    def archive(self, batch: int = 0, confirm: Callable[[], None] | None = None) -> Archive:
        """Give the archive of the run, or of one batch of it."""
        settings, request = self.settings, self.request
        return Archive(
            self._clients.s3,
            settings.bucket,
            settings.registry,
            request.run_id,
            request.date,
            confirm=confirm or self.confirm,
            batch=batch,
            location=settings.output_location,
        )

    def inventory(self) -> Inventory:
        """Read what the first step knew; raises WorkError."""
        known = self.work.inventory(self.execution, self._inventory_sha256)
        if known is None:
            raise WorkError(f"{self.work.prefix}inventory.json is not there: start the audit anew")
        return known

    def changed_settings(self, known: Inventory) -> tuple[str, ...]:
        """Name the settings that judge and are not those of the first step. Of a document of `policy/` the copy counts."""
        now = self.settings.fingerprint()
        then = {name: sha256 for name, sha256 in known.settings.items() if not name.startswith("policy/")}
        return tuple(sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)))

    def inventory_if_usable(self, run_state: RunState) -> Inventory | None:
        """Read it; None if there is none that can be used, which the tally then says."""
        try:
            return self.work.inventory(self.execution, self._inventory_sha256)
        except WorkError as error:
            run_state.note_incomplete(str(error))
            return None

    def last_results(self, numbers: Iterable[int]) -> Iterator[tuple[int, BatchResult | None]]:
        """Yield what came of each batch, those without a result last: whoever is still at one of them is given up."""
        missing: list[int] = []
        for number, result in self.work.results(numbers):
            if result is None:
                missing.append(number)
            else:
                yield number, result
        for number in missing:
            self.take_over(number)
        yield from self.work.results(missing)

    def take_over(self, number: int) -> None:
        """Give up the attempt that is still at a batch."""
        self.work.claim(examination(number), self._attempt)

    @property
    def is_late(self) -> bool:
        """Whether the time for reading is over."""
        return time.monotonic() >= self._stop_at

    def exceptions(self, document: ExceptionsDocument | ExceptionsError) -> ExceptionsRead:
        """Open the document of exceptions on the day of the run."""
        return ExceptionsRead.of(document, self.started_at.astimezone(UTC).date())

    def live_exceptions(self) -> ExceptionsRead:
        """Read the exceptions as people keep them."""
        return self.exceptions(fetch_exceptions(self._clients.s3, self.settings.bucket))

    def exceptions_of(self, known: Inventory) -> ExceptionsRead:
        """Read the exceptions as the first step found them."""
        if known.exceptions_problem:
            return self.exceptions(ExceptionsError(known.exceptions_problem))
        found = known.exceptions_found
        content = self.work.copy(EXCEPTIONS, known.settings.get(EXCEPTIONS_KEY, "")) if found else None
        return self.exceptions(ExceptionsDocument(content, known.exceptions_version))

    @contextmanager
    def connection(
        self,
        *,
        threads: int,
        read_pins: Callable[[], bytes],
        domains: tuple[str, ...] = (),
        reused: Reused | None = None,
        waits: Callable[[], bool] = lambda: True,
    ) -> Iterator[Connection]:
        """Give a way to the registry, not yet connected."""
        connection = Connection(
            self.settings,
            SecretsManagerCredentials(self.settings.secret_arn, self._clients.secrets),
            threads=threads,
            stop_at=self._stop_at,
            at=self.started_at,
            read_pins=read_pins,
            domains=domains,
            reused=reused,
            waits=waits,
        )
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def part(self, known: Inventory, number: int, *, threads: int, reused: Reused | None = None) -> Iterator[BatchScan]:
        """Prepare to examine one batch; what an earlier attempt left of its rows is removed."""
        batches = FindingBatches(self.findings, confirm=self.confirm)

        def confirm() -> None:
            self.confirm()
            # Findings are in the table before anything that tells of them.
            batches.flush()
            self.confirm()

        archive = self.archive(number, confirm=confirm)
        archive.begin()
        run_state = RunState()
        documents: list[tuple[Repository, SignedDocuments]] = []
        with ExitStack() as closing:
            closing.callback(batches.close)
            closing.callback(archive.discard)
            findings = FindingsFile()
            closing.callback(findings.close)
            connection = closing.enter_context(
                self.connection(
                    threads=threads,
                    read_pins=lambda: self._kept_pins(known),
                    domains=known.domains,
                    reused=reused,
                    waits=lambda: number > known.batches or self.work.read(SILENT) is None,
                )
            )
            scanner = RepositoryScanner(
                connection,
                archive,
                run_state,
                registry=self.settings.registry,
                known=self.findings,
                findings=self.findings,
                batches=batches,
                exceptions=self.exceptions_of(known).exceptions,
                moment=Moment(self.request.run_id, self.started_at),
                threads=threads,
                stop_at=self._stop_at,
                now=self._now,
                stand=findings.stand,
                wait=findings.wait,
                note_documents=lambda repository, signed: documents.append((repository, signed)),
            )
            yield BatchScan(number, run_state, connection, scanner, archive, self.work, findings, documents, confirm)

    def _kept_pins(self, known: Inventory) -> bytes:
        try:
            return self.work.copy(PINS, known.settings.get(PINS_KEY, ""))
        except WorkError as error:
            raise SettingsError(f"the pins of this run: {error}") from error


def examination(batch: int) -> str:
    """Name the step that examines a batch."""
    return f"examine-{batch:05d}"
