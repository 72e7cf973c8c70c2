"""The same run in many invocations: inventory() -> examine() of each batch, side by side -> prove() -> report().

A state machine calls them; what they know of each other lies in S3 (`work.py`). Each may be cut off anywhere and made again: it
replaces what its earlier attempt left, and that attempt, should it still be at work, finds its claim gone before its next file.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger

from dtr_audit.aws import metrics
from dtr_audit.aws.exceptions_document import fetch_exceptions
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.exceptions import ExceptionsDocument
from dtr_audit.core.model import PassingFault, Repository, SignedDocuments
from dtr_audit.core.request import BATCHES
from dtr_audit.core.reuse import DocumentLedger, Reused
from dtr_audit.core.run_record import Scope
from dtr_audit.core.run_state import RunState
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, ExceptionsError, OutOfTimeError, SettingsError
from dtr_audit.pipeline.audit import (
    LAST_SECONDS,
    connect,
    explain_listing,
    read_pins,
)
from dtr_audit.pipeline.audit import inventory as list_repositories
from dtr_audit.pipeline.batch_scan import TEXT_LENGTH, finish, note_documents, scan_batch
from dtr_audit.pipeline.connection import explain_access_unverified
from dtr_audit.pipeline.report import Reporter
from dtr_audit.pipeline.report_step import ReportStep, ResolvedFindingsStore
from dtr_audit.pipeline.run_context import EXCEPTIONS, PINS, PINS_KEY, Invocation, RunContext, examination
from dtr_audit.pipeline.second_pass import Unfinished
from dtr_audit.pipeline.store_documents import AccessCheck, BatchResult, Inventory

BATCH_REPOSITORIES = 50  # at least; a registry too large for so many batches has larger ones
SUMMARY = ("run_id", "status", "complete", "evidence")  # and the texts and the counts
TEXTS = 10  # of each kind

logger = Logger(service="dtr-signature-audit", child=True)


def inventory(invocation: Invocation) -> dict[str, Any]:
    """List the repositories in batches, and take the registry's lease; says where the batches lie.

    Raises LeaseHeldError while another run of the registry is under way. A registry that cannot be read is not connected.
    """
    parts = RunContext(invocation, "inventory")
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
    run_state = RunState()
    judged_by = settings.fingerprint()
    if exceptions.warning:
        run_state.warnings.append(exceptions.warning)
    if isinstance(document, ExceptionsDocument) and document.content is not None:
        work.put(EXCEPTIONS, document.content, "application/json")
        judged_by[EXCEPTIONS_KEY] = hashlib.sha256(document.content).hexdigest()

    def keep_pins() -> bytes:
        pins = read_pins(archive)
        work.put(PINS, pins, "application/json")
        judged_by[PINS_KEY] = hashlib.sha256(pins).hexdigest()
        return pins

    with parts.connection(threads=1, read_pins=keep_pins) as connection:
        connected = connect(connection, settings, run_state)
        batches: list[list[Repository]] = []
        access_unverified = ""
        if connected:
            looked = connection.begin_to_look_around() if parts.request.scope is Scope.FULL else None
            version = connection.begin_to_read_version()
            try:
                listing = list_repositories(connection.registry, parts.request, run_state)
                connection.in_time(lambda: deque(listing, maxlen=0))
            except OutOfTimeError:
                run_state.note_incomplete(
                    f"the list of repositories was not at its end when the time of the function was over, after "
                    f"{len(run_state.is_scanned)} of them. Raise the template's parameter TimeoutSeconds"
                )
            batches = split(sorted(run_state.is_scanned.copy()))
            explain_listing(parts.request, run_state)
            access_unverified = connection.verify_admin()
            if looked is not None:
                run_state.note_related_settings(looked())
            run_state.registry_version = version()
    parts.confirm()
    sums = work.put_batches(batches)
    sha256 = work.put_inventory(
        Inventory(
            execution=parts.execution,
            connected=connected,
            domains=run_state.domains,
            is_trust_verified=run_state.is_trust_verified,
            incomplete_because=tuple(run_state.incomplete_because),
            warnings=tuple(run_state.warnings),
            listed=sum(map(len, batches)),
            counted=run_state.repositories.listed if connected else 0,
            unnamed_entries=run_state.listing.unnamed_entries,
            listing_problem=run_state.listing.problem,
            access_unverified=access_unverified,
            batches=len(batches),
            exceptions_found=isinstance(document, ExceptionsDocument) and document.content is not None,
            exceptions_version=document.version_id if isinstance(document, ExceptionsDocument) else "",
            exceptions_problem=str(document) if isinstance(document, ExceptionsError) else "",
            facts=run_state.facts,
            registry_version=run_state.registry_version,
            settings=judged_by,
            batch_sums=sums,
        )
    )
    return {**answer, "connected": connected, "count": len(batches), "sha256": sha256}


def examine(invocation: Invocation) -> dict[str, Any]:
    """Examine the repositories of one batch; what came of it lies in S3 when this ends."""
    parts = RunContext(invocation, examination(invocation.step.batch))
    number = invocation.step.batch
    known = parts.inventory()
    repositories = parts.work.batch(number, known)
    parts.runs.confirm_lease(parts.execution)
    parts.claim()
    scan_batch(parts, known, number, repositories, threads=invocation.settings.worker_threads)
    return {}


def prove(invocation: Invocation) -> dict[str, Any]:
    """Ask what is to be asked once the batches are read: what is gone, and whether the account still is an administrator's.

    Then compare the signed documents of all repositories. Batches with one that is served in two places are examined once more.
    """
    parts = RunContext(invocation, "prove")
    known, work = parts.inventory(), parts.work
    threads = invocation.settings.concurrency
    parts.runs.confirm_lease(parts.execution)
    parts.claim()
    work.delete("proof.json")
    number = known.batches + 1
    work.forget_result(number)
    seen = RunState()
    unfinished = Unfinished()
    counted: dict[int, str] = {}
    with closing(DocumentLedger()) as documents:
        for batch, result in parts.last_results(range(1, number)):
            counted[batch] = result.sha256 if result is not None else ""
            if result is not None:
                seen.add(result.run_state)
                unfinished.gone.update(result.gone)
                unfinished.failed.update((one, PassingFault(reason)) for one, reason in result.failed)
                note_documents(documents, result.documents)
        asked = _ask_at_last(parts, known, unfinished, seen, threads=threads)
        note_documents(documents, asked.documents)
        reused = documents.find_reused()
        problem = documents.problem
    if reused.keys() & asked.run_state.is_scanned.keys():
        # Something of what was read only here is served elsewhere too.
        first_use, compared = asked.run_state.trust.first_use, asked.documents
        asked = _ask_at_last(parts, known, unfinished, seen, threads=threads, reused=reused, first_use=first_use)
        counted[number] = asked.sha256 if _are_among(asked.documents, compared) else ""
    elif unfinished:
        counted[number] = asked.sha256
    _scan_reused(parts, known, reused, counted, threads=threads)
    access_check = AccessCheck(
        # Where not all documents were compared, nothing is resolved: what looks signed since may be signed elsewhere.
        access_unverified=asked.access_unverified or problem,
        finished=bool(unfinished),
        counted=tuple(counted[batch] for batch in sorted(counted)),
        incomplete_because=tuple(asked.run_state.incomplete_because),
        hint=asked.hint,
        changed=asked.changed,
    )
    parts.confirm()
    return {"sha256": work.put_access_check(access_check)}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked after the batches were read."""

    run_state: RunState  # of what the batches could not settle
    documents: list[tuple[Repository, SignedDocuments]]  # and theirs
    access_unverified: str
    hint: str
    changed: tuple[str, ...]
    sha256: str  # of the result of that


def _ask_at_last(
    parts: "RunContext",
    known: Inventory,
    unfinished: Unfinished,
    seen: RunState,
    *,
    threads: int,
    reused: Reused | None = None,
    first_use: int | None = None,
) -> _Asked:
    """Settle what is left, as a batch behind the others, and prove the account; `seen` are the counts of all batches.

    With `reused` that is done once more, where so many roots were new at first.
    """
    with parts.part(known, known.batches + 1, threads=threads, reused=reused) as part:
        run_state, connection = part.run_state, part.connection
        gone, failed = unfinished.gone, unfinished.failed
        run_state.is_scanned.update(dict.fromkeys((*gone, *failed), False))
        changed = parts.changed_settings(known)
        try:
            if changed:
                raise SettingsError("the settings that decide the answer had changed")
            connection.connect()
        except AuditError as error:
            for repository, problem in gone.items():
                run_state.note_unreadable(repository, f"{problem}; whether it still exists could not be seen: {error}")
            part.scanner.give_up(failed)
            access_unverified, hint = explain_access_unverified(error), ""
        else:
            finish(part, unfinished, waits=reused is None)
            access_unverified = connection.verify_admin()
            seen.add(run_state)
            hint = connection.hint_at_domain() if seen.is_all_unsigned else ""
        if first_use is not None:
            run_state.trust.first_use = first_use
        sha256 = ""
        if unfinished:
            removed = tuple(sorted((gone.keys() | failed.keys()) - run_state.is_scanned.keys()))
            left = tuple(one for one, done in run_state.is_scanned.items() if not done)
            sha256 = part.put_result(
                BatchResult(run_state, left=left, removed=removed, access_unverified=access_unverified)
            )
        return _Asked(run_state, part.documents, access_unverified, hint, changed, sha256)


def _scan_reused(
    parts: "RunContext", known: Inventory, reused: Reused, counted: dict[int, str], *, threads: int
) -> None:
    """Examine the batches once more that hold a repository with a document re-used, and note the sums of their results.

    A batch for which there is no time counts as not read. So does one that serves a document only now, when all were compared.
    """
    if not reused:
        return
    for number, result in parts.work.results(range(1, known.batches + 1)):
        is_counted = result is not None and result.sha256 == counted[number]
        if result is None or not is_counted or not reused.keys() & set(result.scanned):
            continue
        counted[number] = ""
        if parts.is_late:
            continue
        parts.take_over(number)
        again = (*result.scanned, *result.left)
        sha256 = scan_batch(parts, known, number, again, threads=threads, reused=reused, earlier=result)
        ((_, after),) = parts.work.results((number,))
        if after is not None and _are_among(after.documents, result.documents):
            counted[number] = sha256


def _are_among(
    served: Iterable[tuple[Repository, SignedDocuments]], compared: Iterable[tuple[Repository, SignedDocuments]]
) -> bool:
    """Tell whether each document that a repository serves is one of those by which it was compared with the others."""
    known = {repository: set(signed.current) for repository, signed in compared}
    return all(known.get(repository, set()).issuperset(signed.current) for repository, signed in served)


def report(invocation: Invocation) -> dict[str, Any]:
    """Close the run with what its steps have left, and give the summary of its record.

    It asks nothing of the registry and knows no credentials. What is missing makes a run that is not complete.
    """
    parts = RunContext(invocation, "report")
    settings, work, runs = invocation.settings, parts.work, parts.runs
    if runs.is_finished(parts.request.run_id):
        runs.release_lease(parts.execution)
        return summarise(runs.recorded(parts.request.run_id))
    run_state = RunState()
    known = parts.inventory_if_usable(run_state)
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
        run_state,
        clients=invocation.clients,
        runs=runs,
        findings=parts.findings,
        archive=archive,
        confirm=parts.confirm,
        is_retry=True,
        started_at=parts.started_at,
        now=invocation.now,
        ends_at=time.monotonic() + invocation.seconds - LAST_SECONDS,
        closings=ResolvedFindingsStore(work, parts.execution),
    )
    try:
        run = ReportStep(parts, reporter, run_state, archive).close(known)
    finally:
        reporter.close()
    metrics.emit(run)
    runs.release_lease(parts.execution)
    return summarise(run.as_dict())


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
