"""The registry's repositories, read and judged in parallel: every trouble of one becomes its own problem, never the run's."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from aws_lambda_powertools import Logger

from .dtr import DtrClient
from .errors import AuditError, OutOfTimeError, RepositoryGoneError
from .findings import Moves
from .model import Repository, RepositoryReading, Tag, TrustFlags
from .rule import judge_together
from .text import clean

if TYPE_CHECKING:
    from .trust import TrustVerifier

DRAIN_SECONDS = 20.0  # past the time for reading, to write down what had been read in time
REASON_LENGTH = 400

logger = Logger(service="dtr-signature-audit", child=True)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Examined:
    """One repository, read, and compared with what was known of it."""

    reading: RepositoryReading
    moves: Moves


def examine(
    repositories: Iterator[Repository],
    examine_one: Callable[[Repository], Examined],
    *,
    threads: int,
    stop_at: float,
) -> Iterator[Examined]:
    """Examine repositories in parallel and yield each when it is done, in no order.

    No more than a few results are held. Raises OutOfTimeError once `stop_at` (time.monotonic) has come, after everything
    that was done in time; whatever a thread raises otherwise is raised here. Threads only read: one that is left waiting
    for an answer changes nothing when it comes.
    """
    results: queue.Queue[Examined | BaseException | None] = queue.Queue(maxsize=2 * threads)
    taking = threading.Lock()
    stop = threading.Event()

    def deliver(result: Examined | BaseException | None) -> None:
        while not stop.is_set():
            try:
                results.put(result, timeout=0.5)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            while not stop.is_set():
                with taking:
                    repository = next(repositories, None)
                if repository is None:
                    break
                deliver(examine_one(repository))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, and raised there
            deliver(error)
        deliver(None)

    # Daemons: a thread that waits for a registry which never ends its answer must not keep the process.
    for number in range(threads):
        threading.Thread(target=work, name=f"examine-{number}", daemon=True).start()
    working = threads
    late = False
    try:
        while working:
            if time.monotonic() >= stop_at:
                late = True
                stop.set()
            if time.monotonic() >= stop_at + DRAIN_SECONDS:
                break
            try:
                result = results.get(block=not late, timeout=min(1.0, max(0.05, stop_at - time.monotonic())))
            except queue.Empty:
                if late:
                    break
                continue
            if result is None:
                working -= 1
            elif isinstance(result, OutOfTimeError):
                late = True
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        stop.set()
    if late:
        raise OutOfTimeError("the time for reading the registry is over")


def answer_in_time(ask: Callable[[], _T], *, stop_at: float) -> _T:
    """Call something that may never end in a thread of its own; raises OutOfTimeError at `stop_at` (time.monotonic)."""
    answers: queue.Queue[tuple[_T, None] | tuple[None, BaseException]] = queue.Queue()

    def work() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            answers.put((None, error))

    threading.Thread(target=work, name="answer", daemon=True).start()
    try:
        answer, error = answers.get(timeout=max(0.05, stop_at - time.monotonic()))
    except queue.Empty:
        raise OutOfTimeError("no answer came in time") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value] # None only beside an error


def read_repository(
    registry: DtrClient,
    repository: Repository,
    domains: Sequence[str],
    verifier: "TrustVerifier | None" = None,
    memories: Mapping[str, str] | None = None,
) -> RepositoryReading:
    """Read and judge every tag of a repository; whatever goes wrong becomes its problem, not the run's.

    With a `verifier` the signatures themselves are looked at too; `memories` is what it left of the repository, by domain.
    Raises OutOfTimeError alone.
    """
    try:
        tags, problem = _read_tags(registry, repository, domains, of_each=verifier is not None)
        judged = judge_together(tags, is_complete=not problem)
        reading = RepositoryReading(repository, judged, problem=clean(problem, REASON_LENGTH))
        return verifier.verify(reading, memories or {}) if verifier is not None else reading
    except OutOfTimeError:
        raise
    except RepositoryGoneError as error:
        return RepositoryReading(repository, problem=clean(str(error), REASON_LENGTH), gone=True)
    except AuditError as error:
        return RepositoryReading(repository, problem=clean(str(error), REASON_LENGTH))
    except Exception as error:
        # The one place for it: a fault of ours, met in one repository, must not blind the audit of all others.
        logger.exception("a repository could not be examined", repository=str(repository))
        return RepositoryReading(repository, problem=f"an unforeseen {type(error).__name__}; the log has it in full")


def _read_tags(
    registry: DtrClient, repository: Repository, domains: Sequence[str], *, of_each: bool
) -> tuple[dict[str, Tag], str]:
    """Read the tags under every domain that matters; once more if they changed between one domain and the next."""
    tags, problem, agree = _read_domains(registry, repository, domains, of_each=of_each)
    if not problem and not agree:
        tags, problem, _ = _read_domains(registry, repository, domains, of_each=of_each)
    return tags, problem


def _read_domains(
    registry: DtrClient, repository: Repository, domains: Sequence[str], *, of_each: bool
) -> tuple[dict[str, Tag], str, bool]:
    """Read the tags under each domain in turn, as long as one of them is not signed under those before, or `of_each`.

    Tells also whether all readings showed the same tags with the same digests. What was not seen with its present digest
    under a domain has no flags there: signed or not, nobody knows.
    """
    tags: dict[str, Tag] = {}
    agree = True
    problem = ""
    for number, domain in enumerate(domains):
        if (
            number
            and not of_each
            and all(any(t.in_notary and t.hash_mismatch is False for t in tag.trust) for tag in tags.values())
        ):
            break
        reading = registry.tags(repository, domain)
        problem = problem or reading.problem
        if not number:
            tags.update(reading.tags)
            continue
        unread = TrustFlags(domain, None, None)
        for name, tag in reading.tags.items():
            before = tags.get(name)
            if before is not None and before.digest == tag.digest:
                tags[name] = replace(tag, trust=before.trust + tag.trust)
            else:
                agree = False
                missed = tuple(TrustFlags(one, None, None) for one in domains[:number])
                tags[name] = replace(tag, trust=missed + tag.trust)
        for name in tags.keys() - reading.tags.keys():
            agree = False
            tags[name] = replace(tags[name], trust=(*tags[name].trust, unread))
    return tags, problem, agree
