"""Findings go into the table by full batches, several at once, and never without end into the memory."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import cast

import pytest

from dtr_audit.aws.findings import BATCH_ITEMS, FindingsTable
from dtr_audit.core.finding import ChangeKind, Finding, State
from dtr_audit.core.model import Repository, Verdict
from dtr_audit.errors import AuditError, StepTakenOverError
from dtr_audit.pipeline.finding_batches import WAITING, WRITERS, FindingBatches


class Table:
    """Takes batches once it may, and notes how many at a time. With `opens_at` it may once so many are under way."""

    def __init__(self) -> None:
        self.batches: list[list[Finding]] = []
        self.may = threading.Event()
        self.may.set()
        self.opens_at = 0
        self.written = threading.Event()
        self.problem: BaseException | None = None
        self.at_once = 0
        self._writing = 0
        self._lock = threading.Lock()

    def write(self, findings: Iterable[Finding]) -> None:
        with self._lock:
            self._writing += 1
            self.at_once = max(self.at_once, self._writing)
            if self._writing == self.opens_at:
                self.may.set()
        self.may.wait()
        with self._lock:
            self._writing -= 1
            if self.problem is not None:
                raise self.problem
            self.batches.append(list(findings))
            self.written.set()


def findings(count: int, *, first: int = 0) -> list[Finding]:
    return [
        Finding(
            registry="prod",
            repository=Repository("web", f"r{number // 3}"),
            tag=str(number),
            state=State.OPEN,
            verdict=Verdict.UNSIGNED,
            reason="why",
            digest="",
            author="",
            pushed_at="",
            first_seen="",
            last_changed="",
            transition=ChangeKind.OPENED,
            changed_in="",
        )
        for number in range(first, first + count)
    ]


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def batches(table: Table) -> Iterator[FindingBatches]:
    batches = FindingBatches(cast("FindingsTable", table))
    yield batches
    table.may.set()
    batches.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as a thread waits for a batch that is not written, or for a thread that writes."""
    waits = threading.Event()
    result, join = Future.result, threading.Thread.join

    def result_of(future: Future[None], timeout: float | None = None) -> None:
        if not future.done():
            waits.set()
        result(future, timeout)

    def join_it(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name.startswith("write"):
            waits.set()
        join(thread, timeout)

    monkeypatch.setattr(Future, "result", result_of)
    monkeypatch.setattr(threading.Thread, "join", join_it)
    return waits


class Aside(threading.Thread):
    """Does something in a thread of its own, until `waits` is set or it has ended; then tells which."""

    def __init__(self, task: Callable[[], object], waits: threading.Event) -> None:
        super().__init__(daemon=True)
        self._task = task
        self._waits = waits
        self.has_ended = False

    def run(self) -> None:
        try:
            self._task()
        finally:
            self.has_ended = True
            self._waits.set()

    def is_waiting(self) -> bool:
        self.start()
        self._waits.wait()
        return not self.has_ended


def test_nothing_more_is_written_once_another_attempt_has_taken_over(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtr_audit.pipeline.finding_batches.CONFIRMED_SECONDS", 0.0)
    taken_over: list[bool] = []

    def confirm() -> None:
        if taken_over:
            raise StepTakenOverError("by another")

    batches = FindingBatches(cast("FindingsTable", table), confirm)
    batches.write(findings(BATCH_ITEMS))
    batches.flush()
    taken_over.append(True)
    with pytest.raises(StepTakenOverError):
        batches.write(findings(3 * BATCH_ITEMS, first=BATCH_ITEMS))
        batches.flush()
    batches.close()
    assert len(table.batches) == 1


def test_batches_are_full_any_the_repositories(table: Table, batches: FindingBatches) -> None:
    everything = findings(2 * BATCH_ITEMS + 7)
    for finding in everything:
        batches.write([finding])
    batches.flush()
    assert sorted(len(batch) for batch in table.batches) == [7, BATCH_ITEMS, BATCH_ITEMS]
    written = {finding.tag for batch in table.batches for finding in batch}
    assert written == {finding.tag for finding in everything}


def test_after_a_flush_everything_is_in_the_table(
    table: Table, batches: FindingBatches, waits: threading.Event
) -> None:
    table.may.clear()
    batches.write(findings(BATCH_ITEMS + 1))
    flushing = Aside(batches.flush, waits)
    assert flushing.is_waiting()
    assert table.batches == []
    table.may.set()
    flushing.join()
    assert sum(map(len, table.batches)) == BATCH_ITEMS + 1
    batches.flush()
    assert sum(map(len, table.batches)) == BATCH_ITEMS + 1


def test_a_batch_that_does_not_become_full_is_sent_all_the_same(
    monkeypatch: pytest.MonkeyPatch, table: Table, batches: FindingBatches
) -> None:
    monkeypatch.setattr("dtr_audit.pipeline.finding_batches.LINGER_SECONDS", 0.05)
    batches.write(findings(3))
    table.written.wait()
    assert [len(batch) for batch in table.batches] == [3]


def test_several_batches_are_under_way_at_once_and_no_more_than_may(table: Table, batches: FindingBatches) -> None:
    table.may.clear()
    table.opens_at = WRITERS
    batches.write(findings(WAITING * BATCH_ITEMS))
    batches.flush()
    assert table.at_once == WRITERS


def test_a_table_that_is_slow_makes_one_who_writes_wait(
    table: Table, batches: FindingBatches, waits: threading.Event
) -> None:
    taken = 0

    def supply() -> Iterator[Finding]:
        nonlocal taken
        for finding in findings((WAITING + 5) * BATCH_ITEMS):
            taken += 1
            yield finding

    table.may.clear()
    writer = Aside(lambda: batches.write(supply()), waits)
    assert writer.is_waiting()
    assert taken == (WAITING + 1) * BATCH_ITEMS
    table.may.set()
    writer.join()
    batches.flush()
    assert sum(map(len, table.batches)) == taken == (WAITING + 5) * BATCH_ITEMS


def test_a_table_that_refuses_is_an_error_before_anything_depends_on_it(table: Table, batches: FindingBatches) -> None:
    table.problem = AuditError("throttled")
    batches.write(findings(3))
    with pytest.raises(AuditError, match="throttled"):
        batches.flush()


def test_a_table_that_refuses_is_an_error_before_all_is_read(table: Table, batches: FindingBatches) -> None:
    table.problem = AuditError("throttled")
    with pytest.raises(AuditError, match="throttled"):
        batches.write(findings((WAITING + 2) * BATCH_ITEMS))


def test_no_write_goes_on_after_the_end(table: Table, batches: FindingBatches, waits: threading.Event) -> None:
    """In Lambda it would be made by a later invocation, of what was true in this one."""
    table.may.clear()
    batches.write(findings((WRITERS + 1) * BATCH_ITEMS))
    closing = Aside(batches.close, waits)
    assert closing.is_waiting(), "for those under way"
    table.may.set()
    closing.join()
    assert len(table.batches) == WRITERS, "and what was not begun is not written"
