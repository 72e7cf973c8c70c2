"""A night of reading a registry, simulated by events: readers, a list, a registry with a rate of its own, one core a function.

Small on purpose: it knows repositories, requests and processor time, and nothing of tags, verdicts or AWS's limits. Those are
reckoned in tools/planner/scale.py, whose closed formula the tests hold against what happens here. A function's parts are those of
layers/audit/dtr_audit/pipeline/scan.py and batches.py.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache

from dtr_audit.pipeline.finding_batches import WAITING, WRITERS
from dtr_audit.pipeline.scan import READ_AHEAD

LATENCY_SPREAD = 0.5  # of the logarithm: one answer in twenty takes more than twice as long as the mean


@dataclass(frozen=True, slots=True)
class Reading:
    """What is to be read, and with what; times in seconds, processor times on one whole processor."""

    repositories: int
    requests_each: int  # of one repository: pages, times domains
    latency: float
    registry_rps: float  # requests a second that the registry answers; 0: as many as are asked
    in_flight: int  # requests of one function
    processor_share: float  # that a function has
    processor_in_thread: float  # of a repository: parsing and judging
    processor_of_taking: (
        float  # of a repository: counting it and writing its rows, in the one thread that takes results
    )
    known_latency: float  # until it is known what earlier nights have left of a repository
    write_latency: float  # of a BatchWriteItem
    writes_each: float  # BatchWriteItem, of a repository on average
    page_size: int = 0  # of the list of repositories; 0: the list is there
    workers: int = 1  # functions side by side
    batch: int = 0  # repositories that a function reads in one invocation; 0: all
    between_batches: float = 0.0  # until the next invocation asks its first repository
    latency_spread: float = LATENCY_SPREAD  # 0: every answer takes the same time

    @property
    def readers(self) -> int:
        """Give how many threads of a function read: more than may ask at once, for some are busy with what has come."""
        return self.in_flight + self.in_flight // 2

    @property
    def results_held(self) -> int:
        """Give how many results wait for the thread that takes them, before those who bring more wait too."""
        return max(2, self.in_flight // 4)


@dataclass(frozen=True, slots=True)
class Read:
    """What came of it."""

    seconds: float
    requests: int
    function_seconds: float  # of all functions together


class _Stage(StrEnum):
    TAKE = "take"
    ASK = "ask"
    ANSWERED = "answered"
    LISTED = "listed"
    KNOWN = "known"


class _Registry:
    """Answers as fast as its rate admits, each answer after a time of its own."""

    def __init__(self, rps: float, latency: float, spread: float, seed: int) -> None:
        self._interval = 1.0 / rps if rps else 0.0
        self._mean = latency
        self._spread = spread
        self._random = random.Random(seed)  # noqa: S311 - the same seed has to give the same night
        self._free_at = 0.0
        self.requests = 0

    def answer(self, at: float) -> float:
        """Give when a request made at some moment is answered."""
        admitted = max(at, self._free_at)
        self._free_at = admitted + self._interval
        self.requests += 1
        return admitted + self._mean * self._random.lognormvariate(-(self._spread**2) / 2, self._spread)


@dataclass(slots=True)
class _Function:
    """One function: its turns at the registry, a core that its threads share, and the thread that takes their results."""

    reading: Reading
    left: int = 0  # repositories that no reader has taken yet
    untaken: int = 0  # of its invocation, that are not written down
    began: float = 0.0
    turns: int = 0  # at the registry, that are free
    waiting: deque[tuple[_Stage, int]] = field(default_factory=deque)  # for a turn: what is asked
    unlisted: int = 0  # repositories on pages of the list that nobody has asked for
    arrived: int = 0  # listed, while there was no room ahead
    ahead: int = 0  # listed, and taken by no reader yet
    idle: int = 0  # readers without a repository
    core_free_at: float = 0.0
    taker_free_at: float = 0.0
    owed: float = 0.0  # of a write
    taken: deque[float] = field(default_factory=deque)
    writers: list[float] = field(default_factory=lambda: [0.0] * WRITERS)  # when each is free
    written: deque[float] = field(default_factory=deque)  # when each of the last writes is done

    def compute(self, at: float, seconds: float) -> float:
        """Give when the core is done with something that comes to it at some moment."""
        self.core_free_at = max(at, self.core_free_at) + seconds / self.reading.processor_share
        return self.core_free_at

    def take(self, at: float) -> tuple[float, float]:
        """Take one result: gives when the thread that brings it may go on, and when all is written down so far."""
        reading = self.reading
        room = self.taken.popleft() if len(self.taken) >= reading.results_held else at
        began = max(at, self.taker_free_at)
        done = self.compute(began, reading.processor_of_taking)
        self.owed += reading.writes_each
        while self.owed >= 1:
            done = self._write(done)
            self.owed -= 1
        self.taker_free_at = done
        self.taken.append(began)
        self.untaken -= 1
        return max(at, room), max(done, *self.writers)

    def _write(self, at: float) -> float:
        """Give a batch to a writer; gives when there was room for it."""
        if len(self.written) >= WAITING:
            at = max(at, self.written.popleft())
        end = max(at, self.writers[0]) + self.reading.write_latency
        heapq.heapreplace(self.writers, end)
        self.written.append(end)
        return at


@cache  # many limits and tables ask for the same run, which takes seconds
def simulate(reading: Reading, *, seed: int = 1) -> Read:
    """Read a whole registry. The same seed gives the same run."""
    return _Day(reading, seed).run()


class _Day:
    def __init__(self, reading: Reading, seed: int) -> None:
        self._reading = reading
        self._registry = _Registry(reading.registry_rps, reading.latency, reading.latency_spread, seed)
        self._batches = self._split()
        self._events: list[tuple[float, int, _Stage, _Function, int]] = []
        self._number = 0
        self._function_seconds = 0.0
        self._ended = 0.0

    def _split(self) -> Iterator[int]:
        size = self._reading.batch or max(1, self._reading.repositories)
        left = self._reading.repositories
        while left > 0:
            yield min(size, left)
            left -= size

    def run(self) -> Read:
        for _ in range(self._reading.workers):
            self._invoke(0.0)
        steps: dict[_Stage, Callable[[_Function, float, int], None]] = {
            _Stage.TAKE: self._take,
            _Stage.ASK: self._ask,
            _Stage.ANSWERED: self._answered,
            _Stage.LISTED: self._listed,
            _Stage.KNOWN: self._known,
        }
        while self._events:
            at, _, stage, function, requests_left = heapq.heappop(self._events)
            steps[stage](function, at, requests_left)
        return Read(self._ended, self._registry.requests, self._function_seconds)

    def _push(self, at: float, stage: _Stage, function: _Function, requests_left: int = 0) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, stage, function, requests_left))

    def _invoke(self, at: float) -> None:
        """Begin the next batch, if there is one, in a function of which nothing is left to do."""
        size = next(self._batches, 0)
        if not size:
            return
        reading = self._reading
        function = _Function(reading, left=size, untaken=size, began=at, turns=reading.in_flight)
        at += reading.between_batches
        if reading.page_size:
            function.unlisted = size
            self._request(function, at, _Stage.LISTED, 0)
        else:
            function.ahead = size
        for _ in range(reading.readers):
            self._push(at, _Stage.TAKE, function)

    def _request(self, function: _Function, at: float, then: _Stage, requests_left: int) -> None:
        """Ask the registry something, as soon as there is a turn for it."""
        if function.turns:
            function.turns -= 1
            self._push(self._registry.answer(at), then, function, requests_left)
        else:
            function.waiting.append((then, requests_left))

    def _give_permit_back(self, function: _Function, at: float) -> None:
        function.turns += 1
        if function.waiting:
            self._request(function, at, *function.waiting.popleft())

    def _listed(self, function: _Function, at: float, _: int) -> None:
        """Take a page of the list."""
        self._give_permit_back(function, at)
        function.arrived = min(self._reading.page_size, function.unlisted)
        function.unlisted -= function.arrived
        self._fill(function, at)
        ready = min(function.idle, function.ahead)
        function.idle -= ready
        for _number in range(ready):
            self._push(at, _Stage.TAKE, function)

    def _fill(self, function: _Function, at: float) -> None:
        """Put what has arrived of the list into the room that there is, and ask for the next page once all of it is there."""
        if function.arrived:
            moved = min(function.arrived, READ_AHEAD - function.ahead)
            function.ahead += moved
            function.arrived -= moved
            if not function.arrived and function.unlisted:
                self._request(function, at, _Stage.LISTED, 0)

    def _take(self, function: _Function, at: float, _: int) -> None:
        """Take the next repository, or wait for the list."""
        if not function.left:
            return
        if not function.ahead:
            function.idle += 1
            return
        function.left -= 1
        function.ahead -= 1
        self._fill(function, at)
        self._push(at, _Stage.ASK, function, self._reading.requests_each)

    def _ask(self, function: _Function, at: float, requests_left: int) -> None:
        self._request(function, at, _Stage.ANSWERED, requests_left - 1)

    def _answered(self, function: _Function, at: float, requests_left: int) -> None:
        self._give_permit_back(function, at)
        done = function.compute(at, self._reading.processor_in_thread / self._reading.requests_each)
        if requests_left:
            self._push(done, _Stage.ASK, function, requests_left)
        else:
            self._push(done + self._reading.known_latency, _Stage.KNOWN, function)

    def _known(self, function: _Function, at: float, _: int) -> None:
        free, written = function.take(at)
        self._push(free, _Stage.TAKE, function)
        if not function.untaken:
            self._function_seconds += written - function.began
            self._ended = max(self._ended, written)
            # Its threads find nothing left and end; the next batch brings its own.
            self._invoke(written)


def pages(entries: int, page_size: int) -> int:
    """Give in how many requests a list is read: an empty one takes one too."""
    return max(1, math.ceil(entries / page_size))
