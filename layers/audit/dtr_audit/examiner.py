"""One examiner of repositories: reads and judges them, and writes down what was read of each."""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Protocol

from aws_lambda_powertools import Logger

from .archive import Archive
from .batches import FindingBatches
from .connection import Connection
from .dtr import Listing
from .examination import Examined, examine, read_repository
from .exceptions import Exceptions
from .findings import FindingsTable, Known, Moment, Moves, compare
from .model import FINDING_VERDICTS, Excepted, Finding, Repository, RepositoryReading, Verdict
from .tally import Tally

PROGRESS_SECONDS = 10.0

logger = Logger(service="dtr-signature-audit", child=True)


class KnownFindings(Protocol):
    """What earlier runs have left."""

    def known_of(self, repository: Repository) -> Known:
        """Read all that is known of a repository."""
        ...


class Examiner:
    """Reads repositories in parallel, and writes down their findings, their rows and what is remembered of their trust data.

    Findings that stand as they are go to `stand`, those that are resolved once the reading is proven to `wait`.
    """

    def __init__(
        self,
        connection: Connection,
        archive: Archive,
        tally: Tally,
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
    ) -> None:
        self._name = registry
        self._connection = connection
        self._known = known
        self._findings = findings
        self._batches = batches
        self._archive = archive
        self._exceptions = exceptions
        self._moment = moment
        self._tally = tally
        self._threads = threads
        self._stop_at = stop_at
        self._now = now
        self._stand = stand
        self._wait = wait
        self._told_at = time.monotonic()

    def examine(self, repositories: Iterator[Repository]) -> Iterator[Examined]:
        """Examine repositories and yield each, in no order; raises OutOfTimeError after all that was done in time."""

        def examine_one(repository: Repository) -> Examined:
            connection = self._connection
            known = self._known.known_of(repository)
            reading = read_repository(
                connection.registry, repository, connection.domains, connection.verifier, known.trust
            )
            if reading.gone:
                return Examined(reading, Moves((), (), ()))
            moves = compare(
                self._name,
                repository,
                reading.tags,
                known.findings,
                is_complete=reading.is_complete,
                moment=self._moment,
                exceptions=self._exceptions,
            )
            return Examined(reading, moves)

        return examine(repositories, examine_one, concurrency=self._threads, stop_at=self._stop_at)

    def take(self, examined: Examined) -> None:
        """Write down and count one repository."""
        tally, reading, moves = self._tally, examined.reading, examined.moves
        repository = reading.repository
        tally.is_examined[repository] = True
        self._batches.write(moves.writes)
        if moves.writes and any(seen.memory for seen in reading.trust):
            # What is remembered of trust data is never ahead of the findings that came of it.
            self._batches.flush()
        self._archive.add(repository, reading.tags, self._excepted_in(reading), audited_at=self._now())
        tally.tags.count(reading.tags)
        for judged in reading.tags:
            if judged.verdict is Verdict.UNKNOWN:
                tally.note_unknown(f"{repository}:{judged.tag.name}", judged.reason)
        self._take_trust(reading)
        if reading.is_complete:
            tally.repositories.audited += 1
        else:
            tally.note_unreadable(repository, reading.problem)
        for finding in moves.standing:
            self._stand(finding)
        for finding in moves.resolutions:
            self._wait(finding)
        self._tell_progress(repository)

    def settle(self, gone: Mapping[Repository, str]) -> None:
        """Tell repositories that were deleted meanwhile from those that are listed and yet answer 404.

        What was deleted is no longer among the tally's repositories. Raises OutOfTimeError.
        """
        tally = self._tally
        again = Listing()
        registry = self._connection.registry
        still = self._connection.in_time(lambda: {one for one in registry.repositories(again) if one in gone})
        unseen = again.problem or ("repositories without a name are listed, and it may be one" if again.ghosts else "")
        if unseen:
            for repository, problem in gone.items():
                tally.note_unreadable(repository, f"{problem}; whether it still exists could not be seen: {unseen}")
            return
        for repository in gone.keys() - still:
            tally.repositories.removed += 1
            del tally.is_examined[repository]
        for examined in self.examine(iter(sorted(still))):
            if examined.reading.gone:
                repository = examined.reading.repository
                tally.note_unreadable(
                    repository, f"{examined.reading.problem}; yet it is listed, so this account may not read it"
                )
            else:
                self.take(examined)

    def _take_trust(self, reading: RepositoryReading) -> None:
        """Keep what is to be remembered of a repository's trust data, and count what came of it."""
        if not reading.trust:
            return
        memories = {seen.domain: seen.memory for seen in reading.trust if seen.memory}
        self._findings.remember_trust(reading.repository, memories)
        for seen in reading.trust:
            self._tally.trust.count(reading.repository, seen)
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

    def _tell_progress(self, repository: Repository) -> None:
        tally = self._tally
        progress = {
            "listed": tally.repositories.listed,
            "examined": tally.repositories.audited + tally.repositories.unreadable,
            "tags": tally.tags.audited,
        }
        logger.debug("repository examined", extra={"repository": str(repository), **progress})
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            logger.info("progress", extra=progress)
