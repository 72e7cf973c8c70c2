"""Repositories are read side by side: each once, the list ahead of them, and no more held than may be."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from dtr_audit.errors import OutOfTimeError, RegistryError
from dtr_audit.examination import READ_AHEAD, Examined, examine
from dtr_audit.findings import Moves
from dtr_audit.model import Repository, RepositoryReading

CONCURRENCY = 8
THREADS = 12
SECONDS = 10.0


def repositories(count: int) -> list[Repository]:
    return [Repository("web", f"r{number}") for number in range(count)]


def read(repository: Repository) -> Examined:
    return Examined(RepositoryReading(repository), Moves((), (), ()))


def begin(
    listed: Iterator[Repository], examine_one: Callable[[Repository], Examined] = read, *, seconds: float = SECONDS
) -> Iterator[Examined]:
    return examine(listed, examine_one, concurrency=CONCURRENCY, stop_at=time.monotonic() + seconds)


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + SECONDS
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


class Counter:
    """Reads repositories once it may, and counts."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.begun = 0
        self.threads: set[str] = set()
        self._lock = threading.Lock()

    def read(self, repository: Repository) -> Examined:
        with self._lock:
            self.begun += 1
            self.threads.add(threading.current_thread().name)
        assert self.may.wait(SECONDS)
        return read(repository)


@pytest.mark.parametrize("count", [0, 1, 5, 500, READ_AHEAD + 100])
def test_every_repository_is_examined_once(count: int) -> None:
    expected = repositories(count)
    seen = [examined.reading.repository for examined in begin(iter(expected))]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize(("count", "threads"), [(2, 2), (100, THREADS)])
def test_there_are_half_as_many_threads_again_as_requests_and_none_without_work(count: int, threads: int) -> None:
    counter = Counter()
    results = begin(iter(repositories(count)), counter.read)
    taken: list[Examined] = []
    taker = threading.Thread(target=lambda: taken.extend(results))
    taker.start()
    assert eventually(lambda: counter.begun == threads)
    counter.may.set()
    taker.join(SECONDS)
    assert len(taken) == count
    assert len(counter.threads) == threads


def test_the_list_is_read_ahead_while_repositories_are_read() -> None:
    listed = 0

    def listing() -> Iterator[Repository]:
        nonlocal listed
        for repository in repositories(2 * READ_AHEAD):
            listed += 1
            yield repository

    counter = Counter()
    results = begin(listing(), counter.read)
    taker = threading.Thread(target=lambda: list(results))
    taker.start()
    # What waits, what is being read, and the one that does not fit any more.
    assert eventually(lambda: listed == READ_AHEAD + THREADS + 1)
    time.sleep(0.1)
    assert listed == READ_AHEAD + THREADS + 1
    counter.may.set()
    taker.join(SECONDS)
    assert counter.begun == listed == 2 * READ_AHEAD


def test_no_more_than_a_few_results_are_held_for_who_is_slow_to_take_them() -> None:
    counter = Counter()
    counter.may.set()
    results = begin(iter(repositories(500)), counter.read)
    next(results)
    time.sleep(0.3)
    # One taken, two waiting, and one in the hands of each thread.
    assert counter.begun <= 1 + 2 + THREADS
    assert len(list(results)) == 499


@pytest.mark.parametrize("error", [RegistryError("broken"), KeyboardInterrupt()])
def test_what_goes_wrong_with_the_list_is_raised(error: BaseException) -> None:
    def listing() -> Iterator[Repository]:
        yield from repositories(3)
        raise error

    with pytest.raises(type(error)):
        list(begin(listing()))


def test_what_goes_wrong_in_a_thread_is_raised() -> None:
    def fail(repository: Repository) -> Examined:
        raise RegistryError(str(repository))

    with pytest.raises(RegistryError, match="web/r"):
        list(begin(iter(repositories(3)), fail))


def test_what_was_read_before_the_time_was_up_is_given_first() -> None:
    taken: list[str] = []

    def stop_at_the_fifth(repository: Repository) -> Examined:
        if repository.name == "r4":
            assert eventually(lambda: len(taken) == 4)
            raise OutOfTimeError("the time is up")
        return read(repository)

    with pytest.raises(OutOfTimeError):
        taken.extend(one.reading.repository.name for one in begin(iter(repositories(5)), stop_at_the_fifth))
    assert sorted(taken) == ["r0", "r1", "r2", "r3"]


def test_a_thread_that_never_ends_keeps_nobody_beyond_the_time() -> None:
    counter = Counter()
    began = time.monotonic()
    with pytest.raises(OutOfTimeError):
        list(begin(iter(repositories(3)), counter.read, seconds=0.3))
    assert time.monotonic() - began < SECONDS / 2
    counter.may.set()
