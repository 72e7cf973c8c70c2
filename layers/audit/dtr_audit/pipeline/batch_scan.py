"""The scan of one batch of repositories."""

from collections.abc import Iterable, Sequence

from dtr_audit.core.model import PassingFault, Repository, SignedDocuments
from dtr_audit.core.reuse import DocumentLedger, Reused
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, OutOfTimeError, TransientError
from dtr_audit.pipeline.run_context import SILENT, BatchScan, RunContext
from dtr_audit.pipeline.second_pass import Unfinished
from dtr_audit.pipeline.store_documents import BatchResult, Inventory

TEXT_LENGTH = 1_000


def scan_batch(
    parts: "RunContext",
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
        run_state = part.run_state
        run_state.is_scanned.update(dict.fromkeys(repositories, False))
        run_state.repositories.listed = len(repositories)
        unfinished = Unfinished()
        is_late, access_unverified = False, ""
        if changed := parts.changed_settings(known):
            return part.put_result(BatchResult(run_state, left=tuple(repositories), changed=changed))
        try:
            part.connection.connect()
            for scanned in part.scanner.examine(iter(repositories)):
                part.scanner.record(scanned, unfinished)
        except OutOfTimeError:
            is_late = True
        except AuditError as error:
            if part.connection.is_connected:
                raise
            _note_unconnected(part, unfinished, repositories, error)
        if part.connection.is_connected:
            access_unverified = part.connection.verify_admin()
        # The next step does not know how long the registry asks to wait; after that one, nothing is read any more.
        final = {one: fault for one, fault in unfinished.failed.items() if fault.retry_after or reused is not None}
        part.scanner.give_up(final)
        for repository in final:
            del unfinished.failed[repository]
        if earlier is not None:
            for repository, problem in unfinished.gone.items():
                run_state.note_unreadable(repository, problem)
            unfinished.gone = dict(earlier.gone)
            unfinished.failed = {one: PassingFault(reason) for one, reason in earlier.failed}
            # Roots that were new then are remembered by now.
            run_state.trust.first_use = earlier.run_state.trust.first_use
        return part.put_result(
            BatchResult(
                run_state,
                left=tuple(one for one, done in run_state.is_scanned.items() if not done and one not in unfinished),
                is_late=is_late,
                gone=tuple(sorted(unfinished.gone.items())),
                failed=tuple((one, fault.reason) for one, fault in sorted(unfinished.failed.items())),
                access_unverified=access_unverified,
            )
        )


def _note_unconnected(
    part: "BatchScan", unfinished: Unfinished, repositories: Sequence[Repository], error: AuditError
) -> None:
    """Note that nothing of a batch was read, for there was no way to the registry."""
    if isinstance(error, TransientError):
        # For a registry that is down each batch would wait as long, and the execution with them.
        part.work.put(SILENT, b"")
        fault = PassingFault(clean(str(error), TEXT_LENGTH))
        unfinished.failed.update(dict.fromkeys(repositories, fault))
        return
    for repository in repositories:
        part.run_state.note_unreadable(repository, str(error))


def note_documents(ledger: DocumentLedger, documents: Iterable[tuple[Repository, SignedDocuments]]) -> None:
    """Add the documents that were signed for each repository to the ledger."""
    for repository, signed in documents:
        ledger.add(repository, signed)


def finish(part: "BatchScan", unfinished: Unfinished, *, waits: bool) -> None:
    """Read the repositories again that are not settled; says how many are left where the time is over."""
    try:
        part.scanner.finish(unfinished, waits=waits)
    except OutOfTimeError:
        gone = len(unfinished.gone)
        noun = "repository" if gone == 1 else "repositories"
        part.run_state.note_incomplete(
            f"the time of the function was over before all was known of {gone} {noun} that had answered 404. Raise the time limit "
            "of the functions"
        )
