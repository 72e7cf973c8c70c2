"""The registry's repositories, read and judged in parallel: every trouble of one becomes its own problem, never the run's."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from aws_lambda_powertools import Logger

from dtr_audit.core.finding_changes import Moves
from dtr_audit.core.loading import collector_relaxed
from dtr_audit.core.model import JudgedTag, PassingFault, Repository, RepositoryReading, TrustFlags, Verdict
from dtr_audit.core.readings import TagReading
from dtr_audit.core.rule import explain_image, judge_together
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, OutOfTimeError, RepositoryGoneError, TransientError
from dtr_audit.http.exchange import Answer
from dtr_audit.http.transport import RETRIED_STATUSES
from dtr_audit.registry.artifacts import find_artifacts
from dtr_audit.registry.dtr import DtrClient

if TYPE_CHECKING:
    from dtr_audit.trust.tags import TrustVerifier

DRAIN_SECONDS = 20.0  # past the time for reading, to write down what had been read in time
REASON_LENGTH = 400
HOSTS_NAMED = 2  # of those under which a repository has trust data
READ_AHEAD = 2_000  # repositories, listed and not yet begun; with the largest pages, two of them

logger = Logger(service="dtr-signature-audit", child=True)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Scanned:
    """One repository, read, and compared with what was known of it."""

    reading: RepositoryReading
    moves: Moves
    author_names: Mapping[str, str] = field(default_factory=dict)  # of accounts that have pushed a finding, by id


def examine(
    repositories: Iterator[Repository],
    scan_one: Callable[[Repository], Scanned],
    *,
    concurrency: int,
    stop_at: float,
) -> Iterator[Scanned]:
    """Examine repositories in parallel and yield each when it is done, in no order.

    The list is read ahead while the repositories are. There are more threads than the `concurrency` of requests, which is not
    kept here: while one thread reads what has come, another one's question is under way.

    No more than a few results are held. Raises OutOfTimeError once `stop_at` (time.monotonic) has come, after everything
    that was done in time; whatever a thread raises otherwise is raised here. Threads only read: one that is left waiting
    for an answer changes nothing when it comes.
    """
    readers = _Readers(repositories, scan_one, concurrency)
    with collector_relaxed():
        readers.start()
        yield from _results(readers, stop_at)


def _results(readers: "_Readers", stop_at: float) -> Iterator[Scanned]:
    late = False
    try:
        while True:
            if time.monotonic() >= stop_at:
                late = True
                readers.stop.set()
            if time.monotonic() >= stop_at + DRAIN_SECONDS:
                break
            try:
                result = readers.results.get(block=not late, timeout=min(1.0, max(0.05, stop_at - time.monotonic())))
            except queue.Empty:
                if late:
                    break
                continue
            if result is None:
                break
            if isinstance(result, OutOfTimeError):
                late = True
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        readers.stop.set()
    if late:
        raise OutOfTimeError("the time for reading the registry is over")


def count_readers(concurrency: int) -> int:
    """Give how many threads read where so many requests may be in flight."""
    return concurrency + concurrency // 2


class _Readers:
    """The threads of one examination: one that lists, and as many as there is work for that read."""

    def __init__(
        self, repositories: Iterator[Repository], scan_one: Callable[[Repository], Scanned], concurrency: int
    ) -> None:
        self._repositories = repositories
        self._scan_one = scan_one
        self._most = count_readers(concurrency)
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()  # for one reader more; False: for no more
        # Of each of these None is the last.
        self._ahead: queue.Queue[Repository | None] = queue.Queue(maxsize=READ_AHEAD)
        self.results: queue.Queue[Scanned | BaseException | None] = queue.Queue(maxsize=max(2, concurrency // 4))
        self.stop = threading.Event()
        self._working = 0
        self._counting = threading.Lock()

    def start(self) -> None:
        """Begin to list, and so to read."""
        # In this order: the last thread that ends says so, and the list may be short.
        self._begin("begin", self._begin_readers)
        self._begin("list", self._list)

    def _begin(self, name: str, task: Callable[[], None]) -> None:
        with self._counting:
            self._working += 1
        # Daemons: a thread that waits for a registry which never ends its answer must not keep the process.
        threading.Thread(target=self._run, args=(task,), name=name, daemon=True).start()

    def _run(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, and raised there
            self._hand(error, self.results)
        with self._counting:
            self._working -= 1
            is_last = not self._working
        if is_last:
            self._hand(None, self.results)

    def _list(self) -> None:
        listed = 0
        try:
            for repository in self._repositories:
                self._hand(repository, self._ahead)
                if self.stop.is_set():
                    break
                if listed < self._most:
                    self._calls.put(True)
                    listed += 1
        finally:
            self._calls.put(False)
            self._hand(None, self._ahead)

    def _begin_readers(self) -> None:
        """Begin a reader for each repository, up to the most: not where they are listed, for a new thread goes before its maker."""
        for number in range(self._most):
            if not self._calls.get():
                break
            self._begin(f"examine-{number}", self._read)

    def _read(self) -> None:
        while not self.stop.is_set():
            try:
                repository = self._ahead.get(timeout=0.5)
            except queue.Empty:
                continue
            if repository is None:
                # For the others too.
                self._hand(None, self._ahead)
                break
            self._hand(self._scan_one(repository), self.results)

    def _hand(self, what: _T, to: "queue.Queue[_T]") -> None:
        while not self.stop.is_set():
            try:
                to.put(what, timeout=0.5)
            except queue.Full:
                continue
            break


def read_repository(
    registry: DtrClient,
    repository: Repository,
    domains: Sequence[str],
    verifier: "TrustVerifier | None" = None,
    memories: Mapping[str, str] | None = None,
    *,
    find_other_hosts: Callable[[Repository], Sequence[str]] | None = None,
) -> RepositoryReading:
    """Read and judge every tag of a repository; whatever goes wrong becomes its problem, not the run's.

    With a `verifier` the signatures themselves are looked at too; `memories` is what it left of the repository, by domain. If no
    tag is signed, `find_other_hosts` is asked under which other hosts there is trust data. Raises OutOfTimeError alone.
    """
    try:
        read = _read_tags(registry, repository, domains, of_each=verifier is not None)
        manifests = _Manifests(registry)
        looked_into = find_artifacts(manifests, repository, read.tags.values())
        judged = judge_together(read.tags, looked_into)
        if read.unread_trust:
            judged = tuple(_explain_unread(one, read.unread_trust) for one in judged)
        problem = clean(read.problem, REASON_LENGTH)
        reading = RepositoryReading(repository, judged, problem=problem, fault=read.fault or manifests.fault)
        if verifier is not None:
            reading = verifier.verify(reading, memories or {})
        reading = _explain(reading, looked_into) if looked_into else reading
        return _name_other_hosts(reading, find_other_hosts) if find_other_hosts is not None else reading
    except OutOfTimeError:
        raise
    except RepositoryGoneError as error:
        return RepositoryReading(
            repository, problem=clean(str(error), REASON_LENGTH), gone=True, has_no_account=error.has_no_account
        )
    except AuditError as error:
        problem = clean(str(error), REASON_LENGTH)
        return RepositoryReading(repository, problem=problem, fault=_fault_of(error, problem))
    except Exception as error:
        # The one place for it: a fault of ours, met in one repository, must not blind the audit of all others.
        logger.exception("a repository could not be examined", repository=str(repository))
        return RepositoryReading(repository, problem=f"an unforeseen {type(error).__name__}; the log has it in full")


def _fault_of(error: AuditError, reason: str) -> PassingFault | None:
    return PassingFault(reason, error.retry_after) if isinstance(error, TransientError) else None


class _Manifests:
    """The manifests of a registry; `fault` is why one of them could not be read, where it may be read later."""

    def __init__(self, registry: DtrClient) -> None:
        self._registry = registry
        self.fault: PassingFault | None = None

    def authorize_pull(self, repository: Repository) -> str:
        """Give the authorization to read a repository."""
        try:
            return self._registry.authorize_pull(repository)
        except TransientError as error:
            self.fault = _fault_of(error, clean(str(error), REASON_LENGTH))
            raise

    def ask_manifest(self, repository: Repository, digest: str, authorization: str) -> Answer:
        """Ask for a manifest."""
        try:
            answer = self._registry.ask_manifest(repository, digest, authorization)
        except TransientError as error:
            self.fault = _fault_of(error, clean(str(error), REASON_LENGTH))
            raise
        if answer.status in RETRIED_STATUSES:
            self.fault = PassingFault(f"a manifest could not be read ({answer.status})")
        return answer

    def check_time(self) -> None:
        """Raise OutOfTimeError if the time is up."""
        self._registry.check_time()


def _explain_unread(judged: JudgedTag, reasons: Mapping[str, str]) -> JudgedTag:
    reason = reasons.get(judged.trust.domain) if judged.verdict is Verdict.UNKNOWN and judged.trust else None
    return judged._replace(reason=reason) if reason else judged


def _explain(reading: RepositoryReading, looked_into: Mapping[str, str]) -> RepositoryReading:
    explained = (explain_image(judged, looked_into.get(judged.tag.name, "")) for judged in reading.tags)
    return replace(reading, tags=tuple(explained))


def _name_other_hosts(
    reading: RepositoryReading, find_other_hosts: Callable[[Repository], Sequence[str]]
) -> RepositoryReading:
    """Say of each unsigned tag under which other hosts the Notary has trust data, if no tag of the repository is signed."""
    if any(judged.verdict is Verdict.SIGNED for judged in reading.tags):
        return reading  # nearly always, after the first tag
    if not any(judged.verdict is Verdict.UNSIGNED for judged in reading.tags):
        return reading
    hosts = tuple(find_other_hosts(reading.repository))
    if not hosts:
        return reading
    more = f" and {len(hosts) - HOSTS_NAMED} more hosts" if len(hosts) > HOSTS_NAMED else ""
    known = (
        f"; the Notary has trust data for this repository under {', '.join(hosts[:HOSTS_NAMED])}{more}: was the registry renamed, "
        "or is that a second name of it?"
    )
    tags = (
        judged._replace(reason=judged.reason + known) if judged.verdict is Verdict.UNSIGNED else judged
        for judged in reading.tags
    )
    return replace(reading, tags=tuple(tags), other_hosts=hosts)


def _read_tags(registry: DtrClient, repository: Repository, domains: Sequence[str], *, of_each: bool) -> TagReading:
    """Read the tags under every domain that matters; once more if they changed between one domain and the next."""
    read, agree = _read_domains(registry, repository, domains, of_each=of_each)
    if not read.problem and not agree:
        read, _ = _read_domains(registry, repository, domains, of_each=of_each)
    return read


def _read_domains(
    registry: DtrClient, repository: Repository, domains: Sequence[str], *, of_each: bool
) -> tuple[TagReading, bool]:
    """Read the tags under each domain in turn, as long as one of them is not signed under those before, or `of_each`.

    Tells also whether all readings showed the same tags with the same digests. What was not seen with its present digest
    under a domain has no flags there: signed or not, nobody knows.
    """
    read = TagReading()
    tags = read.tags
    agree = True
    for number, domain in enumerate(domains):
        if (
            number
            and not of_each
            and all(any(t.in_notary and t.hash_mismatch is False for t in tag.trust) for tag in tags.values())
        ):
            break
        reading = registry.tags(repository, domain)
        read.problem = read.problem or reading.problem
        read.fault = read.fault or reading.fault
        read.unread_trust |= reading.unread_trust
        if not number:
            tags.update(reading.tags)
            continue
        unread = TrustFlags(domain, None, None)
        for name, tag in reading.tags.items():
            before = tags.get(name)
            if before is not None and before.digest == tag.digest:
                tags[name] = tag._replace(trust=before.trust + tag.trust)
            else:
                agree = False
                missed = tuple(TrustFlags(one, None, None) for one in domains[:number])
                tags[name] = tag._replace(trust=missed + tag.trust)
        for name in tags.keys() - reading.tags.keys():
            agree = False
            tags[name] = tags[name]._replace(trust=(*tags[name].trust, unread))
    return read, agree
