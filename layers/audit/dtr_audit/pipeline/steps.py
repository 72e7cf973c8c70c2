"""The same run in many invocations: inventory() -> examine() of each batch, side by side -> prove() -> report().

A state machine calls them; what they know of each other lies in S3 (`work.py`). Each may be cut off anywhere and made again: it
replaces what its earlier attempt left, and that attempt, should it still be at work, finds its claim gone before its next file.
"""

import hashlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from dtr_audit.aws import metrics
from dtr_audit.aws.archive import Archive
from dtr_audit.aws.clients import AwsClients
from dtr_audit.aws.exceptions_document import ExceptionsRead, fetch_exceptions
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.runs import RunsTable, fan_out_lease_seconds
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.exceptions import ExceptionsDocument
from dtr_audit.core.finding import Finding
from dtr_audit.core.finding_changes import Moment
from dtr_audit.core.finding_spool import FindingSpool
from dtr_audit.core.model import PassingFault, Repository, SignedDocuments
from dtr_audit.core.request import BATCHES, StepRequest
from dtr_audit.core.reuse import DocumentLedger, Reused
from dtr_audit.core.run_record import Run, Scope
from dtr_audit.core.run_state import Tally
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, ExceptionsError, OutOfTimeError, SettingsError, TransientError, WorkError
from dtr_audit.pipeline.audit import (
    LAST_SECONDS,
    connect,
    count_connections,
    explain_listing,
    read_pins,
    stop_reading_at,
)
from dtr_audit.pipeline.audit import inventory as list_repositories
from dtr_audit.pipeline.connection import Connection, count_trust, explain_unproven
from dtr_audit.pipeline.finding_batches import FindingBatches
from dtr_audit.pipeline.report import Closings, Reporter
from dtr_audit.pipeline.scanner import Examiner, Unsettled
from dtr_audit.pipeline.store import BatchResult, FindingsFile, Inventory, Proof, Work
from dtr_audit.registry.credentials import SecretsManagerCredentials
from dtr_audit.settings import Settings

BATCH_REPOSITORIES = 50  # at least; a registry too large for so many batches has larger ones
BATCHES_NAMED = 5
LEFT_NAMED = 3
SUMMARY = ("run_id", "status", "complete", "evidence")  # and the texts and the counts
TEXTS = 10  # of each kind
TEXT_LENGTH = 1_000
EXCEPTIONS = "exceptions.json"
PINS = "trust-pins.json"
PINS_KEY = "policy/trust-pins.json"  # `notary.pins` has it too, which is loaded only where signatures are verified
DAMAGE_NAMED = 3
SILENT = "silent"  # there once a batch has waited for the registry in vain: the others do not, and the next step does

logger = Logger(service="dtr-signature-audit", child=True)


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


def inventory(invocation: Invocation) -> dict[str, Any]:
    """List the repositories in batches, and take the registry's lease; says where the batches lie.

    Raises LeaseHeldError while another run of the registry is under way. A registry that cannot be read is not connected.
    """
    parts = _Parts(invocation, "inventory")
    settings, work = invocation.settings, parts.work
    threads = settings.worker_threads  # asked for here: wrong settings end the run before it begins
    place = {"bucket": settings.bucket, "key": work.batches_key}
    answer = {
        "run_id": parts.request.run_id,
        "finished_before": False,
        "connected": False,
        "batches": place,
        "count": 0,
        "sha256": "",  # of the inventory
    }
    if parts.runs.is_finished(parts.request.run_id):
        return {**answer, "finished_before": True}
    parts.take_lease()
    if parts.runs.is_finished(parts.request.run_id):
        # Meanwhile, by another delivery of the same event.
        parts.runs.release_lease(parts.execution)
        return {**answer, "finished_before": True}
    work.clear()
    parts.claim()
    archive = parts.archive()
    archive.begin()
    logger.info("audit started", run_id=parts.request.run_id, scope=str(parts.request.scope), threads=threads)
    document = fetch_exceptions(invocation.clients.s3, settings.bucket)
    exceptions = parts.exceptions(document)
    tally = Tally()
    judged_by = settings.fingerprint()
    if exceptions.warning:
        tally.warnings.append(exceptions.warning)
    if isinstance(document, ExceptionsDocument) and document.content is not None:
        work.put(EXCEPTIONS, document.content, "application/json")
        judged_by[EXCEPTIONS_KEY] = hashlib.sha256(document.content).hexdigest()

    def keep_pins() -> bytes:
        pins = read_pins(archive)
        work.put(PINS, pins, "application/json")
        judged_by[PINS_KEY] = hashlib.sha256(pins).hexdigest()
        return pins

    with parts.connection(threads=1, read_pins=keep_pins) as connection:
        connected = connect(connection, settings, tally)
        batches: list[list[Repository]] = []
        unproven = ""
        if connected:
            looked = connection.begin_to_look_around() if parts.request.scope is Scope.FULL else None
            version = connection.begin_to_read_version()
            try:
                listing = list_repositories(connection.registry, parts.request, tally)
                connection.in_time(lambda: deque(listing, maxlen=0))
            except OutOfTimeError:
                tally.note_incomplete(
                    f"the list of repositories was not at its end when the time of the function was over, after "
                    f"{len(tally.is_examined)} of them. Raise the template's parameter TimeoutSeconds"
                )
            batches = split(sorted(tally.is_examined.copy()))
            explain_listing(parts.request, tally)
            unproven = connection.prove_admin()
            if looked is not None:
                tally.note_surroundings(looked())
            tally.registry_version = version()
    parts.confirm()
    sums = work.put_batches(batches)
    sha256 = work.put_inventory(
        Inventory(
            execution=parts.execution,
            connected=connected,
            domains=tally.domains,
            is_trust_verified=tally.is_trust_verified,
            incomplete_because=tuple(tally.incomplete_because),
            warnings=tuple(tally.warnings),
            listed=sum(map(len, batches)),
            counted=tally.repositories.listed if connected else 0,
            ghosts=tally.listing.ghosts,
            listing_problem=tally.listing.problem,
            unproven=unproven,
            batches=len(batches),
            exceptions_found=isinstance(document, ExceptionsDocument) and document.content is not None,
            exceptions_version=document.version_id if isinstance(document, ExceptionsDocument) else "",
            exceptions_problem=str(document) if isinstance(document, ExceptionsError) else "",
            facts=tally.facts,
            registry_version=tally.registry_version,
            settings=judged_by,
            batch_sums=sums,
        )
    )
    return {**answer, "connected": connected, "count": len(batches), "sha256": sha256}


def examine(invocation: Invocation) -> dict[str, Any]:
    """Examine the repositories of one batch; what came of it lies in S3 when this ends."""
    parts = _Parts(invocation, _examination(invocation.step.batch))
    number = invocation.step.batch
    known = parts.inventory()
    repositories = parts.work.batch(number, known)
    parts.runs.confirm_lease(parts.execution)
    parts.claim()
    _examine_batch(parts, known, number, repositories, threads=invocation.settings.worker_threads)
    return {}


def _examine_batch(
    parts: "_Parts",
    known: Inventory,
    number: int,
    repositories: Sequence[Repository],
    *,
    threads: int,
    reused: Reused | None = None,
    earlier: BatchResult | None = None,
) -> str:
    """Examine the repositories of a batch; gives the sum of its result.

    With `reused` it is examined once more, and replaces the `earlier` result. What answers 404 only now was not read.
    """
    parts.work.forget_result(number)
    with parts.part(known, number, threads=threads, reused=reused) as part:
        tally = part.tally
        tally.is_examined.update(dict.fromkeys(repositories, False))
        tally.repositories.listed = len(repositories)
        unsettled = Unsettled()
        is_late, unproven = False, ""
        if changed := parts.changed_settings(known):
            return part.put_result(BatchResult(tally, left=tuple(repositories), changed=changed))
        try:
            part.connection.connect()
            for examined in part.examiner.examine(iter(repositories)):
                part.examiner.record(examined, unsettled)
        except OutOfTimeError:
            is_late = True
        except AuditError as error:
            if part.connection.is_connected:
                raise
            _note_unconnected(part, unsettled, repositories, error)
        if part.connection.is_connected:
            unproven = part.connection.prove_admin()
        # The next step does not know how long the registry asks to wait; after that one, nothing is read any more.
        final = {one: fault for one, fault in unsettled.failed.items() if fault.retry_after or reused is not None}
        part.examiner.give_up(final)
        for repository in final:
            del unsettled.failed[repository]
        if earlier is not None:
            for repository, problem in unsettled.gone.items():
                tally.note_unreadable(repository, problem)
            unsettled.gone = dict(earlier.gone)
            unsettled.failed = {one: PassingFault(reason) for one, reason in earlier.failed}
            # Roots that were new then are remembered by now.
            tally.trust.first_use = earlier.tally.trust.first_use
        return part.put_result(
            BatchResult(
                tally,
                left=tuple(one for one, done in tally.is_examined.items() if not done and one not in unsettled),
                is_late=is_late,
                gone=tuple(sorted(unsettled.gone.items())),
                failed=tuple((one, fault.reason) for one, fault in sorted(unsettled.failed.items())),
                unproven=unproven,
            )
        )


def _note_unconnected(
    part: "_Part", unsettled: Unsettled, repositories: Sequence[Repository], error: AuditError
) -> None:
    """Note that nothing of a batch was read, for there was no way to the registry."""
    if isinstance(error, TransientError):
        # For a registry that is down each batch would wait as long, and the execution with them.
        part.work.put(SILENT, b"")
        fault = PassingFault(clean(str(error), TEXT_LENGTH))
        unsettled.failed.update(dict.fromkeys(repositories, fault))
        return
    for repository in repositories:
        part.tally.note_unreadable(repository, str(error))


def prove(invocation: Invocation) -> dict[str, Any]:
    """Ask what is to be asked once the batches are read: what is gone, and whether the account still is an administrator's.

    Then compare the signed documents of all repositories. Batches with one that is served in two places are examined once more.
    """
    parts = _Parts(invocation, "prove")
    known, work = parts.inventory(), parts.work
    threads = invocation.settings.concurrency
    parts.runs.confirm_lease(parts.execution)
    parts.claim()
    work.delete("proof.json")
    number = known.batches + 1
    work.forget_result(number)
    seen = Tally()
    unsettled = Unsettled()
    counted: dict[int, str] = {}
    with closing(DocumentLedger()) as documents:
        for batch, result in parts.last_results(range(1, number)):
            counted[batch] = result.sha256 if result is not None else ""
            if result is not None:
                seen.add(result.tally)
                unsettled.gone.update(result.gone)
                unsettled.failed.update((one, PassingFault(reason)) for one, reason in result.failed)
                _note_documents(documents, result.documents)
        asked = _ask_at_last(parts, known, unsettled, seen, threads=threads)
        _note_documents(documents, asked.documents)
        reused = documents.find_reused()
        problem = documents.problem
    if reused.keys() & asked.tally.is_examined.keys():
        # Something of what was read only here is served elsewhere too.
        first_use, compared = asked.tally.trust.first_use, asked.documents
        asked = _ask_at_last(parts, known, unsettled, seen, threads=threads, reused=reused, first_use=first_use)
        counted[number] = asked.sha256 if _are_among(asked.documents, compared) else ""
    elif unsettled:
        counted[number] = asked.sha256
    _examine_reused(parts, known, reused, counted, threads=threads)
    proof = Proof(
        # Where not all documents were compared, nothing is resolved: what looks signed since may be signed elsewhere.
        unproven=asked.unproven or problem,
        settled=bool(unsettled),
        counted=tuple(counted[batch] for batch in sorted(counted)),
        incomplete_because=tuple(asked.tally.incomplete_because),
        hint=asked.hint,
        changed=asked.changed,
    )
    parts.confirm()
    return {"sha256": work.put_proof(proof)}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked after the batches were read."""

    tally: Tally  # of what the batches could not settle
    documents: list[tuple[Repository, SignedDocuments]]  # and theirs
    unproven: str
    hint: str
    changed: tuple[str, ...]
    sha256: str  # of the result of that


def _ask_at_last(
    parts: "_Parts",
    known: Inventory,
    unsettled: Unsettled,
    seen: Tally,
    *,
    threads: int,
    reused: Reused | None = None,
    first_use: int | None = None,
) -> _Asked:
    """Settle what is left, as a batch behind the others, and prove the account; `seen` are the counts of all batches.

    With `reused` that is done once more, where so many roots were new at first.
    """
    with parts.part(known, known.batches + 1, threads=threads, reused=reused) as part:
        tally, connection = part.tally, part.connection
        gone, failed = unsettled.gone, unsettled.failed
        tally.is_examined.update(dict.fromkeys((*gone, *failed), False))
        changed = parts.changed_settings(known)
        try:
            if changed:
                raise SettingsError("the settings that decide the answer had changed")
            connection.connect()
        except AuditError as error:
            for repository, problem in gone.items():
                tally.note_unreadable(repository, f"{problem}; whether it still exists could not be seen: {error}")
            part.examiner.give_up(failed)
            unproven, hint = explain_unproven(error), ""
        else:
            _settle(part, unsettled, waits=reused is None)
            unproven = connection.prove_admin()
            seen.add(tally)
            hint = connection.hint_at_domain() if seen.is_all_unsigned else ""
        if first_use is not None:
            tally.trust.first_use = first_use
        sha256 = ""
        if unsettled:
            removed = tuple(sorted((gone.keys() | failed.keys()) - tally.is_examined.keys()))
            left = tuple(one for one, done in tally.is_examined.items() if not done)
            sha256 = part.put_result(BatchResult(tally, left=left, removed=removed, unproven=unproven))
        return _Asked(tally, part.documents, unproven, hint, changed, sha256)


def _note_documents(ledger: DocumentLedger, documents: Iterable[tuple[Repository, SignedDocuments]]) -> None:
    for repository, signed in documents:
        ledger.add(repository, signed)


def _examine_reused(
    parts: "_Parts", known: Inventory, reused: Reused, counted: dict[int, str], *, threads: int
) -> None:
    """Examine the batches once more that hold a repository with a document re-used, and note the sums of their results.

    A batch for which there is no time counts as not read. So does one that serves a document only now, when all were compared.
    """
    if not reused:
        return
    for number, result in parts.work.results(range(1, known.batches + 1)):
        is_counted = result is not None and result.sha256 == counted[number]
        if result is None or not is_counted or not reused.keys() & set(result.examined):
            continue
        counted[number] = ""
        if parts.is_late:
            continue
        parts.take_over(number)
        again = (*result.examined, *result.left)
        sha256 = _examine_batch(parts, known, number, again, threads=threads, reused=reused, earlier=result)
        ((_, after),) = parts.work.results((number,))
        if after is not None and _are_among(after.documents, result.documents):
            counted[number] = sha256


def _are_among(
    served: Iterable[tuple[Repository, SignedDocuments]], compared: Iterable[tuple[Repository, SignedDocuments]]
) -> bool:
    """Tell whether each document that a repository serves is one of those by which it was compared with the others."""
    known = {repository: set(signed.current) for repository, signed in compared}
    return all(known.get(repository, set()).issuperset(signed.current) for repository, signed in served)


def _settle(part: "_Part", unsettled: Unsettled, *, waits: bool) -> None:
    try:
        part.examiner.settle(unsettled, waits=waits)
    except OutOfTimeError:
        gone = len(unsettled.gone)
        noun = "repository" if gone == 1 else "repositories"
        part.tally.note_incomplete(
            f"the time of the function was over before all was known of {gone} {noun} that had answered 404. Raise the time limit "
            "of the functions"
        )


def report(invocation: Invocation) -> dict[str, Any]:
    """Close the run with what its steps have left, and give the summary of its record.

    It asks nothing of the registry and knows no credentials. What is missing makes a run that is not complete.
    """
    parts = _Parts(invocation, "report")
    settings, work, runs = invocation.settings, parts.work, parts.runs
    if runs.is_finished(parts.request.run_id):
        runs.release_lease(parts.execution)
        return summarise(runs.recorded(parts.request.run_id))
    tally = Tally()
    known = parts.inventory_if_usable(tally)
    if known is None:
        # Nothing was read, and nothing will be resolved: whoever holds no lease may take it.
        parts.take_lease()
    else:
        runs.confirm_lease(parts.execution)
    parts.claim()
    archive = parts.archive()
    reporter = Reporter(
        settings,
        parts.request,
        tally,
        clients=invocation.clients,
        runs=runs,
        findings=parts.findings,
        archive=archive,
        confirm=parts.confirm,
        is_retry=True,
        started_at=parts.started_at,
        now=invocation.now,
        ends_at=time.monotonic() + invocation.seconds - LAST_SECONDS,
        closings=_KeptClosings(work, parts.execution),
    )
    try:
        run = _Closing(parts, reporter, tally, archive).close(known)
    finally:
        reporter.close()
    metrics.emit(run)
    runs.release_lease(parts.execution)
    return summarise(run.as_dict())


class _KeptClosings(Closings):
    """What the report has closed, among the documents of the run: what is written once is not written again, as news."""

    def __init__(self, work: Work, execution: str) -> None:
        self._work = work
        self._execution = execution

    def recall(self) -> Iterable[Finding] | None:
        return self._work.closed(self._execution)

    def keep(self, closed: FindingSpool) -> None:
        with ExitStack() as closing:
            findings = FindingsFile()
            closing.callback(findings.close)
            for finding in closed:
                findings.stand(finding)
            findings.finish(of=self._execution)
            self._work.put_closed(findings)


class _Closing:
    """The report step of one run: what the steps have left, put together and closed."""

    def __init__(self, parts: "_Parts", reporter: Reporter, tally: Tally, archive: Archive) -> None:
        self._parts = parts
        self._work = parts.work
        self._reporter = reporter
        self._tally = tally
        self._archive = archive
        self._unproven: list[str] = []
        self._changed: set[str] = set()  # settings, since the run began
        self._failed_step = parts.failed_step
        self._failure = parts.failure

    def close(self, known: Inventory | None) -> Run:
        if known is None:
            self._archive.begin()
            exceptions = self._parts.live_exceptions()
            self._reporter.know_exceptions(exceptions)
            if exceptions.warning:
                self._tally.warnings.append(exceptions.warning)
            self._explain_failure(self._failed_step or "inventory")
            return self._reporter.report(proven=False, may_resolve=False, hint="")
        tally = self._tally
        self._reporter.know_exceptions(self._exceptions_of(known))
        tally.domains = known.domains
        tally.facts = known.facts
        tally.registry_version = known.registry_version
        tally.is_trust_verified = known.is_trust_verified
        if known.is_trust_verified:
            tally.trust = count_trust(self._parts.settings)
        tally.listing.ghosts = known.ghosts
        tally.listing.problem = known.listing_problem
        tally.incomplete_because += known.incomplete_because
        tally.warnings += known.warnings
        self._changed.update(self._parts.changed_settings(known))
        proof = self._proof(known)
        self._note_unproven(known.unproven)
        self._gather(known, proof)
        tally.repositories.listed = max(known.listed, known.counted)
        if proof is not None:
            self._note_unproven(proof.unproven)
            self._changed.update(proof.changed)
        if self._changed:
            tally.note_incomplete(_explain_changed(self._changed))
        if self._unproven:
            # One reason for all of them: the others say the same.
            tally.note_incomplete(self._unproven[0])
        if proof is not None:
            tally.incomplete_because += proof.incomplete_because
        if known.connected and (proof is None or self._failure):
            self._explain_failure(self._failed_step or "prove")
        may_resolve = proof is not None and not proof.unproven and not known.unproven and not self._changed
        return self._reporter.report(
            proven=may_resolve and not self._unproven,
            may_resolve=may_resolve,
            hint=proof.hint if proof is not None else "",
        )

    def _exceptions_of(self, known: Inventory) -> ExceptionsRead:
        try:
            return self._parts.exceptions_of(known)
        except WorkError as error:
            lost = self._parts.exceptions(ExceptionsError(str(error)))
            self._tally.warnings.append(lost.warning)
            self._tally.note_incomplete(str(error))
            return lost

    def _proof(self, known: Inventory) -> Proof | None:
        try:
            return self._work.proof(known, self._parts.proof_sha256)
        except WorkError as error:
            logger.warning("the proof cannot be used", reason=str(error))
            self._work.damage.append(str(error))
            return None

    def _gather(self, known: Inventory, proof: Proof | None) -> None:
        """Take in what came of the batches, one after the other."""
        tally = self._tally
        late: list[Repository] = []
        missing: list[int] = []
        unread = late_batches = removed = 0
        # The repositories that were gone come last: of them more is known then.
        is_settled = proof is not None and proof.settled
        for number, result in self._work.results(range(1, known.batches + 1 + is_settled)):
            usable = result if proof is None or proof.counts(number, result) else None
            try:
                if usable is not None:
                    self._take_findings(number, usable)
            except WorkError as error:
                logger.warning("the findings of a batch cannot be used", batch=number, reason=str(error))
                self._work.damage.append(str(error))
                usable = None
            if usable is None:
                missing.append(number)
                names = self._names_of(number, known) if number <= known.batches else ()
                tally.is_examined.update(dict.fromkeys(names, False))
                unread += len(names)
                continue
            tally.add(usable.tally)
            self._note_unproven(usable.unproven)
            self._changed.update(usable.changed)
            self._archive.files += usable.files
            tally.is_examined.update(dict.fromkeys(usable.examined, True))
            unsettled = (one for one, _ in (*usable.gone, *usable.failed))
            tally.is_examined.update(dict.fromkeys((*usable.left, *unsettled), False))
            for repository in usable.removed:
                tally.is_examined.pop(repository, None)
            removed += len(usable.removed)
            if usable.is_late:
                late_batches += 1
                late += usable.left
        self._parts.confirm()
        self._archive.keep(())
        if late:
            self._explain_late(late, batches=late_batches, of=known)
        lost = known.listed - len(tally.is_examined) - removed
        if lost:
            # Listed, and yet in no batch: whatever is missing now may be one of them, and is not gone.
            tally.listing.problem = "the batches do not hold what was listed"
        if missing:
            self._explain_missing(missing, unread + lost, of=known)
        elif lost:
            tally.note_incomplete(
                f"the batches held {known.listed - lost} repositories, and {known.listed} were listed. Start the audit anew"
            )
        if self._work.damage:
            self._explain_damage(sorted(set(self._work.damage)))

    def _names_of(self, number: int, known: Inventory) -> tuple[Repository, ...]:
        try:
            return self._work.batch(number, known)
        except WorkError as error:
            logger.warning("a batch cannot be read", batch=number, reason=str(error))
            return ()

    def _take_findings(self, number: int, result: BatchResult) -> None:
        for waits, finding in self._work.findings(number, result):
            if not waits:
                self._reporter.stand(finding)
            elif result.unproven:
                self._reporter.stay_open(finding)
            else:
                self._reporter.resolutions.add(finding)

    def _note_unproven(self, reason: str) -> None:
        if reason:
            self._unproven.append(reason)

    def _explain_late(self, late: list[Repository], *, batches: int, of: Inventory) -> None:
        named = ", ".join(str(one) for one in sorted(late)[:LEFT_NAMED])
        first = ", the first of them" if len(late) > LEFT_NAMED else ""
        noun = "repository was" if len(late) == 1 else "repositories were"
        self._tally.note_incomplete(
            f"in {batches} of {of.batches} batches the time of the function was over: {len(late)} {noun} not read, of {of.listed} "
            f"listed{first}: {named}. Raise the template's parameter TimeoutSeconds, "
            "or Concurrency, if the registry bears it"
        )

    def _explain_missing(self, missing: list[int], unread: int, *, of: Inventory) -> None:
        named = ", ".join(str(number) for number in missing[:BATCHES_NAMED])
        more = f" and {len(missing) - BATCHES_NAMED} more" if len(missing) > BATCHES_NAMED else ""
        batches = "batch" if len(missing) == 1 else "batches"
        noun = "repository was" if unread == 1 else "repositories were"
        self._tally.note_incomplete(
            f"{batches} {named}{more} of {of.batches} came to no result: {unread} {noun} not read. The log of the function that "
            "examines them says why"
        )

    def _explain_damage(self, damage: list[str]) -> None:
        noun = "document" if len(damage) == 1 else "documents"
        first = ", the first of them" if len(damage) > DAMAGE_NAMED else ""
        self._tally.note_incomplete(
            f"{len(damage)} {noun} between the steps of this run cannot be used{first}: {'; '.join(damage[:DAMAGE_NAMED])}"
        )

    def _explain_failure(self, step: str) -> None:
        failed = f"failed ({self._failure})" if self._failure else "did not come to its end"
        self._tally.note_incomplete(
            f"the step '{step}' of this run {failed}. The log of its function, and the history of the execution, say why"
        )


@dataclass(slots=True)
class _Part:
    """The examination of one batch."""

    number: int
    tally: Tally
    connection: Connection
    examiner: Examiner
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
            examined=tuple(one for one, done in self.tally.is_examined.items() if done),
            files=tuple(self.archive.files),
            documents=tuple(self.documents),
            findings_sha256=self.findings.finish(),
            findings=self.findings.length,
        )
        return self.work.put_result(self.number, whole, self.findings)


class _Parts:
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

    def inventory_if_usable(self, tally: Tally) -> Inventory | None:
        """Read it; None if there is none that can be used, which the tally then says."""
        try:
            return self.work.inventory(self.execution, self._inventory_sha256)
        except WorkError as error:
            tally.note_incomplete(str(error))
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
        self.work.claim(_examination(number), self._attempt)

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
    def part(self, known: Inventory, number: int, *, threads: int, reused: Reused | None = None) -> Iterator[_Part]:
        """Prepare to examine one batch; what an earlier attempt left of its rows is removed."""
        batches = FindingBatches(self.findings, confirm=self.confirm)

        def confirm() -> None:
            self.confirm()
            # Findings are in the table before anything that tells of them.
            batches.flush()
            self.confirm()

        archive = self.archive(number, confirm=confirm)
        archive.begin()
        tally = Tally()
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
            examiner = Examiner(
                connection,
                archive,
                tally,
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
            yield _Part(number, tally, connection, examiner, archive, self.work, findings, documents, confirm)

    def _kept_pins(self, known: Inventory) -> bytes:
        try:
            return self.work.copy(PINS, known.settings.get(PINS_KEY, ""))
        except WorkError as error:
            raise SettingsError(f"the pins of this run: {error}") from error


def _examination(batch: int) -> str:
    """Name the step that examines a batch."""
    return f"examine-{batch:05d}"


def _explain_changed(settings: Iterable[str]) -> str:
    return (
        f"settings that decide the answer changed while the run was under way: {', '.join(sorted(settings))}. What was read under "
        "other settings than those at the beginning does not count. Start the audit again"
    )


def split(repositories: list[Repository]) -> list[list[Repository]]:
    """Make even batches, no more than a fan-out may have; a namespace with large repositories is spread over all of them."""
    size = max(BATCH_REPOSITORIES, -(-len(repositories) // BATCHES))
    count = -(-len(repositories) // size)
    return [repositories[number::count] for number in range(count)]


def summarise(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give what an execution shows of its run; a state machine carries 256 KB at most."""
    texts = {
        name: [clean(text, TEXT_LENGTH) for text in record[name][:TEXTS]] for name in ("incomplete_because", "warnings")
    }
    counts = {
        name: {key: int(value) for key, value in record[name].items()} for name in ("repositories", "tags", "findings")
    }
    return {**{name: record[name] for name in SUMMARY}, **texts, **counts}
