"""The last step: it closes a run with what the other steps have left."""

from collections.abc import Iterable
from contextlib import ExitStack

from aws_lambda_powertools import Logger

from dtr_audit.aws.archive import Archive
from dtr_audit.aws.exceptions_document import ExceptionsRead
from dtr_audit.core.finding import Finding
from dtr_audit.core.finding_spool import FindingSpool
from dtr_audit.core.model import Repository
from dtr_audit.core.run_record import Run
from dtr_audit.core.run_state import RunState
from dtr_audit.errors import ExceptionsError, WorkError
from dtr_audit.pipeline.connection import count_trust
from dtr_audit.pipeline.report import Reporter
from dtr_audit.pipeline.resolve import Closings
from dtr_audit.pipeline.run_context import RunContext
from dtr_audit.pipeline.store import Work
from dtr_audit.pipeline.store_documents import AccessCheck, BatchResult, FindingsFile, Inventory

logger = Logger(service="dtr-signature-audit", child=True)

BATCHES_NAMED = 5
LEFT_NAMED = 3
DAMAGE_NAMED = 3


class ResolvedFindingsStore(Closings):
    """What the report has closed, among the documents of the run: what is written once is not written again, as news."""

    def __init__(self, work: Work, execution: str) -> None:
        self._work = work
        self._execution = execution

    def recall(self) -> Iterable[Finding] | None:
        """Read the findings that an earlier attempt resolved; None where there was none."""
        return self._work.closed(self._execution)

    def keep(self, closed: FindingSpool) -> None:
        """Keep the findings that this attempt resolves."""
        with ExitStack() as closing:
            findings = FindingsFile()
            closing.callback(findings.close)
            for finding in closed:
                findings.stand(finding)
            findings.finish(of=self._execution)
            self._work.put_closed(findings)


class ReportStep:
    """The report step of one run: what the steps have left, put together and closed."""

    def __init__(self, parts: "RunContext", reporter: Reporter, run_state: RunState, archive: Archive) -> None:
        self._parts = parts
        self._work = parts.work
        self._reporter = reporter
        self._run_state = run_state
        self._archive = archive
        self._access_unverified: list[str] = []
        self._changed: set[str] = set()  # settings, since the run began
        self._failed_step = parts.failed_step
        self._failure = parts.failure

    def close(self, known: Inventory | None) -> Run:
        """Close the run and give it; `known` is None where no list of repositories was left."""
        if known is None:
            self._archive.begin()
            exceptions = self._parts.live_exceptions()
            self._reporter.know_exceptions(exceptions)
            if exceptions.warning:
                self._run_state.warnings.append(exceptions.warning)
            self._explain_failure(self._failed_step or "inventory")
            return self._reporter.report(access_verified=False, may_resolve=False, hint="")
        run_state = self._run_state
        self._reporter.know_exceptions(self._exceptions_of(known))
        run_state.domains = known.domains
        run_state.facts = known.facts
        run_state.registry_version = known.registry_version
        run_state.is_trust_verified = known.is_trust_verified
        if known.is_trust_verified:
            run_state.trust = count_trust(self._parts.settings)
        run_state.listing.unnamed_entries = known.unnamed_entries
        run_state.listing.problem = known.listing_problem
        run_state.incomplete_because += known.incomplete_because
        run_state.warnings += known.warnings
        self._changed.update(self._parts.changed_settings(known))
        access_check = self._access_check(known)
        self._note_access_unverified(known.access_unverified)
        self._gather(known, access_check)
        run_state.repositories.listed = max(known.listed, known.counted)
        if access_check is not None:
            self._note_access_unverified(access_check.access_unverified)
            self._changed.update(access_check.changed)
        if self._changed:
            run_state.note_incomplete(_explain_changed(self._changed))
        if self._access_unverified:
            # One reason for all of them: the others say the same.
            run_state.note_incomplete(self._access_unverified[0])
        if access_check is not None:
            run_state.incomplete_because += access_check.incomplete_because
        if known.connected and (access_check is None or self._failure):
            self._explain_failure(self._failed_step or "prove")
        may_resolve = (
            access_check is not None
            and not access_check.access_unverified
            and not known.access_unverified
            and not self._changed
        )
        return self._reporter.report(
            access_verified=may_resolve and not self._access_unverified,
            may_resolve=may_resolve,
            hint=access_check.hint if access_check is not None else "",
        )

    def _exceptions_of(self, known: Inventory) -> ExceptionsRead:
        try:
            return self._parts.exceptions_of(known)
        except WorkError as error:
            lost = self._parts.exceptions(ExceptionsError(str(error)))
            self._run_state.warnings.append(lost.warning)
            self._run_state.note_incomplete(str(error))
            return lost

    def _access_check(self, known: Inventory) -> AccessCheck | None:
        try:
            return self._work.access_check(known, self._parts.proof_sha256)
        except WorkError as error:
            logger.warning("the proof cannot be used", reason=str(error))
            self._work.damage.append(str(error))
            return None

    def _gather(self, known: Inventory, access_check: AccessCheck | None) -> None:
        """Take in what came of the batches, one after the other."""
        run_state = self._run_state
        late: list[Repository] = []
        missing: list[int] = []
        unread = late_batches = removed = 0
        # The repositories that were gone come last: of them more is known then.
        is_finished = access_check is not None and access_check.finished
        for number, result in self._work.results(range(1, known.batches + 1 + is_finished)):
            usable = result if access_check is None or access_check.counts(number, result) else None
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
                run_state.is_scanned.update(dict.fromkeys(names, False))
                unread += len(names)
                continue
            run_state.add(usable.run_state)
            self._note_access_unverified(usable.access_unverified)
            self._changed.update(usable.changed)
            self._archive.files += usable.files
            run_state.is_scanned.update(dict.fromkeys(usable.scanned, True))
            unfinished = (one for one, _ in (*usable.gone, *usable.failed))
            run_state.is_scanned.update(dict.fromkeys((*usable.left, *unfinished), False))
            for repository in usable.removed:
                run_state.is_scanned.pop(repository, None)
            removed += len(usable.removed)
            if usable.is_late:
                late_batches += 1
                late += usable.left
        self._parts.confirm()
        self._archive.keep(())
        if late:
            self._explain_late(late, batches=late_batches, of=known)
        lost = known.listed - len(run_state.is_scanned) - removed
        if lost:
            # Listed, and yet in no batch: whatever is missing now may be one of them, and is not gone.
            run_state.listing.problem = "the batches do not hold what was listed"
        if missing:
            self._explain_missing(missing, unread + lost, of=known)
        elif lost:
            run_state.note_incomplete(
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
            elif result.access_unverified:
                self._reporter.stay_open(finding)
            else:
                self._reporter.resolutions.add(finding)

    def _note_access_unverified(self, reason: str) -> None:
        if reason:
            self._access_unverified.append(reason)

    def _explain_late(self, late: list[Repository], *, batches: int, of: Inventory) -> None:
        named = ", ".join(str(one) for one in sorted(late)[:LEFT_NAMED])
        first = ", the first of them" if len(late) > LEFT_NAMED else ""
        noun = "repository was" if len(late) == 1 else "repositories were"
        self._run_state.note_incomplete(
            f"in {batches} of {of.batches} batches the time of the function was over: {len(late)} {noun} not read, of {of.listed} "
            f"listed{first}: {named}. Raise the template's parameter TimeoutSeconds, "
            "or Concurrency, if the registry bears it"
        )

    def _explain_missing(self, missing: list[int], unread: int, *, of: Inventory) -> None:
        named = ", ".join(str(number) for number in missing[:BATCHES_NAMED])
        more = f" and {len(missing) - BATCHES_NAMED} more" if len(missing) > BATCHES_NAMED else ""
        batches = "batch" if len(missing) == 1 else "batches"
        noun = "repository was" if unread == 1 else "repositories were"
        self._run_state.note_incomplete(
            f"{batches} {named}{more} of {of.batches} came to no result: {unread} {noun} not read. The log of the function that "
            "examines them says why"
        )

    def _explain_damage(self, damage: list[str]) -> None:
        noun = "document" if len(damage) == 1 else "documents"
        first = ", the first of them" if len(damage) > DAMAGE_NAMED else ""
        self._run_state.note_incomplete(
            f"{len(damage)} {noun} between the steps of this run cannot be used{first}: {'; '.join(damage[:DAMAGE_NAMED])}"
        )

    def _explain_failure(self, step: str) -> None:
        failed = f"failed ({self._failure})" if self._failure else "did not come to its end"
        self._run_state.note_incomplete(
            f"the step '{step}' of this run {failed}. The log of its function, and the history of the execution, say why"
        )


def _explain_changed(settings: Iterable[str]) -> str:
    return (
        f"settings that decide the answer changed while the run was under way: {', '.join(sorted(settings))}. What was read under "
        "other settings than those at the beginning does not count. Start the audit again"
    )
