"""One examiner of repositories: reads and judges them, and writes down what was read of each."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from itertools import groupby, islice
from typing import Protocol

from aws_lambda_powertools import Logger

from dtr_audit.aws.archive import ROWS_TOGETHER, Archive, Row
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.core.exceptions import Exceptions
from dtr_audit.core.finding import Excepted, Finding
from dtr_audit.core.finding_changes import Known, Moment, Moves, compare
from dtr_audit.core.model import (
    FINDING_VERDICTS,
    JudgedTag,
    PassingFault,
    Repository,
    RepositoryReading,
    SignedDocuments,
    Tag,
    Verdict,
)
from dtr_audit.core.readings import Listing
from dtr_audit.core.reuse import Reused, explain_elsewhere
from dtr_audit.core.run_state import RunState
from dtr_audit.errors import OutOfTimeError
from dtr_audit.pipeline.connection import Connection
from dtr_audit.pipeline.finding_batches import FindingBatches
from dtr_audit.pipeline.recent_pushes import RecentPushes
from dtr_audit.pipeline.scan import Scanned, examine, read_repository
from dtr_audit.pipeline.second_pass import Unfinished, explain_not_found, failed_again
from dtr_audit.registry.authors import AuthorNames

PROGRESS_SECONDS = 10.0
# Between the first pass and the second: a failover or a restart of one replica takes about as long.
SECOND_PASS_SECONDS = 30.0
DISTRUSTED = 1_000  # repositories whose signatures one run takes back after they were read

logger = Logger(service="dtr-signature-audit", child=True)


class KnownFindings(Protocol):
    """What earlier runs have left."""

    def known_of(self, repository: Repository) -> Known:
        """Read all that is known of a repository."""
        ...


class RepositoryScanner:
    """Reads repositories in parallel, and writes down their findings, their rows and what is remembered of their trust data.

    Findings that stand as they are go to `stand`, those that are resolved once the reading is proven to `wait`. Which signed
    documents a repository has goes to `note_documents`.
    """

    def __init__(
        self,
        connection: Connection,
        archive: Archive,
        run_state: RunState,
        *,
        registry: str,
        known: KnownFindings,
        findings: FindingsTable,
        batches: FindingBatches,
        exceptions: Exceptions | None,
        moment: Moment,
        threads: int,
        stop_at: float,
        now: Callable[[], datetime],
        stand: Callable[[Finding], None],
        wait: Callable[[Finding], object],
        note_documents: Callable[[Repository, SignedDocuments], object],
    ) -> None:
        self._name = registry
        self._connection = connection
        self._known = known
        self._findings = findings
        self._batches = batches
        self._archive = archive
        self._exceptions = exceptions
        self._moment = moment
        self._run_state = run_state
        self._threads = threads
        self._stop_at = stop_at
        self._now = now
        self._stand = stand
        self._wait = wait
        self._note_documents = note_documents
        self._reported_at = time.monotonic()
        self._authors = AuthorNames(self._look_up, stop_at=stop_at)

    def _look_up(self, path: str) -> object:
        return self._connection.registry.look_up(path)

    def examine(self, repositories: Iterator[Repository]) -> Iterator[Scanned]:
        """Examine repositories and yield each once, in no order; raises OutOfTimeError after all that was done in time.

        What meets a fault that may pass is read once more when all others have been read. If it meets one again, or there is no
        time for it, what is yielded has a fault. Only names and reasons wait: the tags that were read before a fault do not.
        What may be signed at this very moment is read once more, too. If that fails, its first reading stands.
        """
        failed: dict[Repository, PassingFault] = {}
        unsigned = RecentPushes()
        try:
            for scanned in self._scan_once(repositories):
                reading = scanned.reading
                if reading.fault is not None:
                    failed[reading.repository] = reading.fault
                elif not unsigned.hold(scanned, self._now()):
                    yield scanned
            seconds = SECOND_PASS_SECONDS if failed else 0.0
            for scanned in self._scan_again(failed | unsigned.faults(), seconds, is_last=False):
                repository = scanned.reading.repository
                if first := unsigned.held.pop(repository, None):
                    yield first if scanned.reading.fault else scanned
                else:
                    del failed[repository]
                    yield scanned
        except OutOfTimeError:
            yield from unsigned.held.values()
            yield from failed_again(failed)
            raise
        yield from unsigned.held.values()
        yield from failed_again(failed)

    def _scan_at_last(self, failed: Mapping[Repository, PassingFault], *, waits: bool) -> Iterator[Scanned]:
        """Examine for the last time what has failed twice; what comes of it stands.

        If the registry does not answer then, or not in time, what is left is counted as unreadable.
        """
        left = dict(failed)
        try:
            seconds = self._connection.registry.patience.seconds_until_last if waits else 0.0
            for scanned in self._scan_again(left, seconds, is_last=True):
                del left[scanned.reading.repository]
                yield scanned
        except OutOfTimeError:
            pass
        self.give_up(left)

    def give_up(self, failed: Mapping[Repository, PassingFault]) -> None:
        """Count repositories as unreadable that have failed, and are not read again."""
        for repository, fault in failed.items():
            self._run_state.note_unreadable(repository, fault.reason)

    def _scan_again(
        self, failed: Mapping[Repository, PassingFault], seconds: float, *, is_last: bool
    ) -> Iterator[Scanned]:
        """Wait so many seconds, and as long as the registry asks to wait, and examine what has failed, if it answers by then.

        Raises OutOfTimeError.
        """
        patience = self._connection.registry.patience
        again = sorted(repository for repository, fault in failed.items() if patience.allows(fault.retry_after))
        if not again:
            return
        seconds = max(seconds, *(failed[repository].retry_after for repository in again))
        logger.info(
            "some repositories could not be read, and are read again later",
            extra={
                "count": len(again),
                "first": str(again[0]),
                "because": failed[again[0]].reason,
                "seconds": round(seconds),
            },
        )
        if self._connection.wait_to_read_again(seconds, is_last=is_last):
            yield from self._scan_once(iter(again))

    def _scan_once(self, repositories: Iterator[Repository]) -> Iterator[Scanned]:
        def scan_one(repository: Repository) -> Scanned:
            connection = self._connection
            known = self._known.known_of(repository)
            reading = read_repository(
                connection.registry,
                repository,
                connection.domains,
                connection.verifier,
                known.trust,
                find_other_hosts=connection.find_other_hosts,
            )
            if reading.gone:
                return Scanned(reading, Moves((), (), ()))
            names = self._authors.find(judged.tag.author for judged in reading.tags if judged.is_finding)
            moves = compare(
                self._name,
                repository,
                reading.tags,
                known.findings,
                is_complete=reading.is_complete,
                moment=self._moment,
                exceptions=self._exceptions,
                author_names=names,
            )
            return Scanned(reading, moves, names)

        return examine(repositories, scan_one, concurrency=self._threads, stop_at=self._stop_at)

    def take(self, scanned: Scanned) -> None:
        """Write down and count one repository."""
        run_state, reading, moves = self._run_state, scanned.reading, scanned.moves
        repository = reading.repository
        run_state.is_scanned[repository] = True
        self._batches.write(moves.writes)
        if moves.writes and any(seen.memory for seen in reading.trust):
            # What is remembered of trust data is never ahead of the findings that came of it.
            self._batches.flush()
        self._archive.add(
            repository,
            reading.tags,
            self._excepted_in(reading),
            audited_at=self._now(),
            author_names=scanned.author_names,
        )
        run_state.tags.count(reading.tags)
        for judged in reading.tags:
            if judged.verdict is Verdict.UNKNOWN:
                run_state.note_unknown(f"{repository}:{judged.tag.name}", judged.reason)
        if reading.other_hosts:
            run_state.note_other_hosts(str(repository), reading.other_hosts[0])
        self._take_trust(reading)
        if reading.is_complete:
            run_state.repositories.audited += 1
        else:
            run_state.note_unreadable(repository, reading.problem)
        for finding in moves.open_summary:
            self._stand(finding)
        for finding in moves.resolutions:
            self._wait(finding)
        self._report_progress(repository)

    def record(self, scanned: Scanned, unfinished: Unfinished) -> None:
        """Take what is final, and note the rest among what is unsettled."""
        reading = scanned.reading
        if reading.gone:
            unfinished.gone[reading.repository] = reading.problem
        elif reading.fault is not None:
            unfinished.failed[reading.repository] = reading.fault
        else:
            self.take(scanned)

    def finish(self, unfinished: Unfinished, *, waits: bool = True) -> None:
        """Read for the last time what has failed; then tell what was deleted from what is listed and yet answers 404.

        The last time is when a tenth of the time is left, or now if it does not wait. What was deleted is no longer in the tally.
        Raises OutOfTimeError.
        """
        gone = dict(unfinished.gone)
        for scanned in self._scan_at_last(unfinished.failed, waits=waits):
            if scanned.reading.gone:
                gone[scanned.reading.repository] = scanned.reading.problem
            else:
                self.take(scanned)
        if gone:
            self._finish_not_found(gone)

    def _finish_not_found(self, gone: Mapping[Repository, str]) -> None:
        run_state = self._run_state
        again = Listing()
        registry = self._connection.registry
        still = self._connection.in_time(lambda: {one for one in registry.repositories(again) if one in gone})
        unseen = again.problem or (
            "repositories without a name are listed, and it may be one" if again.unnamed_entries else ""
        )
        if unseen:
            for repository, problem in gone.items():
                run_state.note_unreadable(repository, f"{problem}; whether it still exists could not be seen: {unseen}")
            return
        for repository in gone.keys() - still:
            run_state.repositories.removed += 1
            del run_state.is_scanned[repository]
        for scanned in self._scan_once(iter(sorted(still))):
            if scanned.reading.gone:
                run_state.note_unreadable(scanned.reading.repository, explain_not_found(scanned.reading))
            else:
                self.take(scanned)

    def distrust(self, reused: Reused) -> Collection[Repository]:
        """Take back what the signatures of repositories proved that were taken before one of their documents was seen elsewhere.

        Rows, counts and findings become those of untrusted tags, and the next run knows the documents. With more repositories than
        DISTRUSTED the run is not complete. Gives those whose findings are opened.
        """
        if len(reused) > DISTRUSTED:
            self._run_state.note_incomplete(
                f"{len(reused)} repositories serve a signed document that another one serves too, and in {DISTRUSTED} of them the "
                "signatures were taken back in this run. See who holds the keys of the Notary. The next run takes back more"
            )
            reused = {repository: reused[repository] for repository in sorted(reused)[:DISTRUSTED]}
        from dtr_audit.trust.tags import mark  # noqa: PLC0415 - and cryptography with it, which verified the signatures

        reasons = {repository: explain_elsewhere(list(locations.values())) for repository, locations in reused.items()}
        self._batches.flush()
        changed = self._archive.amend(lambda row: self._distrusted_row(row, reasons))
        for repository, rows in groupby(changed, _repository_of):
            while handful := [_tag_of(row) for row in islice(rows, ROWS_TOGETHER)]:
                self._open_findings(repository, handful)
        # What is remembered of trust data is never ahead of the findings that came of it.
        self._batches.flush()
        for repository, locations in reused.items():
            memories = self._findings.known_of(repository).trust
            self._findings.remember_trust(repository, {one: mark(text, locations) for one, text in memories.items()})
        self._run_state.trust.reused += len(reused)
        return reused.keys()

    def _distrusted_row(self, row: Row, reasons: Mapping[Repository, str]) -> Row | None:
        reason = reasons.get(_repository_of(row)) if row["verdict"] == Verdict.SIGNED else None
        if reason is None:
            return None
        repository = _repository_of(row)
        excepted = self._exceptions.of(repository, row["tag"], row["digest"]) if self._exceptions is not None else None
        self._run_state.tags.signed -= 1
        self._run_state.tags.untrusted += 1
        self._run_state.tags.cosign_only += row["cosign_signed"] is True
        return row | {
            "verdict": str(Verdict.UNTRUSTED),
            "reason": reason,
            "signed_domain": "",
            "author_name": self._authors.find((row["author"],)).get(row["author"]),
            "exception_id": excepted.exception_id if excepted else None,
            "exception_ends": excepted.ends if excepted else None,
        }

    def _open_findings(self, repository: Repository, judged: list[JudgedTag]) -> None:
        names = {one.tag.name for one in judged}
        known = self._findings.known_of(repository).findings
        moves = compare(
            self._name,
            repository,
            judged,
            {tag: finding for tag, finding in known.items() if tag in names},
            is_complete=False,
            moment=self._moment,
            exceptions=self._exceptions,
            author_names=self._authors.find(one.tag.author for one in judged),
        )
        self._batches.write(moves.writes)
        for finding in moves.open_summary:
            self._stand(finding)

    def _take_trust(self, reading: RepositoryReading) -> None:
        """Keep what is to be remembered of a repository's trust data, and count what came of it."""
        if reading.documents is not None:
            self._note_documents(reading.repository, reading.documents)
            self._run_state.trust.reused += bool(reading.documents.reused)
        if not reading.trust:
            return
        memories = {seen.domain: seen.memory for seen in reading.trust if seen.memory}
        self._findings.remember_trust(reading.repository, memories)
        for seen in reading.trust:
            self._run_state.trust.count(reading.repository, seen)
            if seen.notes:
                logger.info("trust data", repository=str(reading.repository), domain=seen.domain, notes=seen.notes)

    def _excepted_in(self, reading: RepositoryReading) -> dict[str, Excepted]:
        """Give the findings of a repository that are under an exception, by tag."""
        if self._exceptions is None:
            return {}
        found = (
            (judged.tag.name, self._exceptions.of(reading.repository, judged.tag.name, judged.tag.digest))
            for judged in reading.tags
            if judged.verdict in FINDING_VERDICTS
        )
        return {tag: excepted for tag, excepted in found if excepted is not None}

    def _report_progress(self, repository: Repository) -> None:
        run_state = self._run_state
        progress = {
            "listed": run_state.repositories.listed,
            "examined": run_state.repositories.audited + run_state.repositories.unreadable,
            "tags": run_state.tags.audited,
        }
        logger.debug("repository examined", extra={"repository": str(repository), **progress})
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = time.monotonic()
            logger.info("progress", extra=progress)


def _repository_of(row: Row) -> Repository:
    return Repository(row["namespace"], row["repository"])


def _tag_of(row: Row) -> JudgedTag:
    """Read back a row of a tag that is a finding, as far as its finding depends on it."""
    tag = Tag(row["tag"], row["digest"], row["author"], row["pushed_at"], row["media_type"], row["cosign_signed"], ())
    return JudgedTag(tag, Verdict(row["verdict"]), row["reason"], None)
