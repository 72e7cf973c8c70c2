"""The scan of one batch of repositories."""

from collections.abc import Iterable, Sequence

from dtr_audit.core.model import PassingFault, Repository, SignedDocuments
from dtr_audit.core.reuse import DocumentLedger, Reused
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, OutOfTimeError, TransientError
from dtr_audit.pipeline.run_context import SILENT, BatchScan, RunContext
from dtr_audit.pipeline.second_pass import Unsettled
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
    part: "BatchScan", unsettled: Unsettled, repositories: Sequence[Repository], error: AuditError
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


def note_documents(ledger: DocumentLedger, documents: Iterable[tuple[Repository, SignedDocuments]]) -> None:
    """Add the documents that were signed for each repository to the ledger."""
    for repository, signed in documents:
        ledger.add(repository, signed)


def settle(part: "BatchScan", unsettled: Unsettled, *, waits: bool) -> None:
    """Read the repositories again that are not settled; says how many are left where the time is over."""
    try:
        part.examiner.settle(unsettled, waits=waits)
    except OutOfTimeError:
        gone = len(unsettled.gone)
        noun = "repository" if gone == 1 else "repositories"
        part.tally.note_incomplete(
            f"the time of the function was over before all was known of {gone} {noun} that had answered 404. Raise the time limit "
            "of the functions"
        )
