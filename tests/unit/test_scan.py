"""Repositories are read side by side: each once, the list ahead of them, and no more held than may be."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dtr_audit.core.finding_changes import Moves
from dtr_audit.core.model import Repository, RepositoryReading
from dtr_audit.errors import OutOfTimeError, RegistryError
from dtr_audit.pipeline.scan import READ_AHEAD, Scanned, examine
from tests.harness.fake_clock import FakeClock

CONCURRENCY = 8
THREADS = 12
NEVER = float("inf")


def repositories(count: int) -> list[Repository]:
    return [Repository("web", f"r{number}") for number in range(count)]


def read(repository: Repository) -> Scanned:
    return Scanned(RepositoryReading(repository), Moves((), (), ()))


def begin(
    listed: Iterator[Repository], scan_one: Callable[[Repository], Scanned] = read, *, stop_at: float = NEVER
) -> Iterator[Scanned]:
    return examine(listed, scan_one, concurrency=CONCURRENCY, stop_at=stop_at)


class Counter:
    """Reads repositories once it may, and counts."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.begun = 0
        self.threads: set[str] = set()
        self.changed = threading.Condition()

    def read(self, repository: Repository) -> Scanned:
        with self.changed:
            self.begun += 1
            self.threads.add(threading.current_thread().name)
            self.changed.notify_all()
        self.may.wait()
        return read(repository)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            self.changed.wait_for(holds)


@pytest.fixture
def counter() -> Iterator[Counter]:
    counter = Counter()
    yield counter
    counter.may.set()


@pytest.fixture
def blocked(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Give the names of the threads that have something for a queue that is full."""
    names: set[str] = set()
    put = queue.Queue.put

    def noted(to: "queue.Queue[Any]", *arguments: Any, **options: Any) -> None:
        name = threading.current_thread().name
        if to.full():
            with counter.changed:
                names.add(name)
                counter.changed.notify_all()
        put(to, *arguments, **options)
        names.discard(name)

    monkeypatch.setattr(queue.Queue, "put", noted)
    return names


@pytest.mark.parametrize("count", [0, 1, 5, 500, READ_AHEAD + 100])
def test_every_repository_is_scanned_once(count: int) -> None:
    expected = repositories(count)
    seen = [scanned.reading.repository for scanned in begin(iter(expected))]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize(("count", "threads"), [(2, 2), (100, THREADS)])
def test_there_are_half_as_many_threads_again_as_requests_and_none_without_work(
    counter: Counter, count: int, threads: int
) -> None:
    results = begin(iter(repositories(count)), counter.read)
    taken: list[Scanned] = []
    taker = threading.Thread(target=lambda: taken.extend(results), daemon=True)
    taker.start()
    counter.wait_until(lambda: counter.begun == threads)
    counter.may.set()
    taker.join()
    assert len(taken) == count
    assert len(counter.threads) == threads


def test_the_list_is_read_ahead_while_repositories_are_read(counter: Counter, blocked: set[str]) -> None:
    listed = 0

    def listing() -> Iterator[Repository]:
        nonlocal listed
        for repository in repositories(2 * READ_AHEAD):
            listed += 1
            yield repository

    results = begin(listing(), counter.read)
    taker = threading.Thread(target=lambda: list(results), daemon=True)
    taker.start()
    counter.wait_until(lambda: "list" in blocked and counter.begun == THREADS and listed > READ_AHEAD + THREADS)
    # What waits, what is being read, and the one that does not fit any more.
    assert listed == READ_AHEAD + THREADS + 1
    counter.may.set()
    taker.join()
    assert counter.begun == listed == 2 * READ_AHEAD


def test_no_more_than_a_few_results_are_held_for_who_is_slow_to_take_them(counter: Counter, blocked: set[str]) -> None:
    counter.may.set()
    results = begin(iter(repositories(500)), counter.read)
    next(results)
    counter.wait_until(lambda: len(blocked) == THREADS or counter.begun == 500)
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
    def fail(repository: Repository) -> Scanned:
        raise RegistryError(str(repository))

    with pytest.raises(RegistryError, match="web/r"):
        list(begin(iter(repositories(3)), fail))


def test_what_was_read_before_the_time_was_up_is_given_first() -> None:
    taken: list[str] = []
    changed = threading.Condition()

    def stop_at_the_fifth(repository: Repository) -> Scanned:
        if repository.name == "r4":
            with changed:
                changed.wait_for(lambda: len(taken) == 4)
            raise OutOfTimeError("the time is up")
        return read(repository)

    def take() -> None:
        for one in begin(iter(repositories(5)), stop_at_the_fifth):
            with changed:
                taken.append(one.reading.repository.name)
                changed.notify_all()

    with pytest.raises(OutOfTimeError):
        take()
    assert sorted(taken) == ["r0", "r1", "r2", "r3"]


def test_a_thread_that_never_ends_keeps_no_one_beyond_the_time(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = FakeClock()
    monkeypatch.setattr("dtr_audit.pipeline.scan.time", held)

    def wait_beyond_the_time(repository: Repository) -> Scanned:
        held.sleep(1.0)
        return counter.read(repository)

    with pytest.raises(OutOfTimeError):
        list(begin(iter(repositories(1)), wait_beyond_the_time, stop_at=held.now + 0.05))
    assert counter.begun == 1
    assert not counter.may.is_set()
