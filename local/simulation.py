"""A night of reading a registry, simulated by events: threads, pages, a registry with a rate of its own, one core a function.

Small on purpose: it knows repositories, requests and processor time, and nothing of tags, verdicts or AWS's limits. Those are
reckoned in local/scale.py, whose closed formula the tests hold against what happens here.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

LATENCY_SPREAD = 0.5  # of the logarithm: one answer in twenty takes more than twice as long as the mean


@dataclass(frozen=True, slots=True)
class Reading:
    """What is to be read, and with what; times in seconds, processor times on one whole processor."""

    repositories: int
    requests_each: int  # of one repository: pages, times domains
    latency: float
    registry_rps: float  # requests a second that the registry answers; 0: as many as are asked
    threads: int  # of one function
    processor_share: float  # that a function has
    processor_in_thread: float  # of a repository: parsing and judging
    processor_of_taking: (
        float  # of a repository: counting it and writing its rows, in the one thread that takes results
    )
    known_latency: float  # until it is known what earlier nights have left of a repository
    write_latency: float  # of a BatchWriteItem
    writes_each: float  # BatchWriteItem, of a repository on average, made by the thread that takes results
    page_size: int = 0  # of the list of repositories, read by whichever thread needs more; 0: the list is there
    workers: int = 1  # functions side by side
    batch: int = 0  # repositories that a function reads in one invocation; 0: all
    between_batches: float = 0.0  # until the next invocation asks its first repository


@dataclass(frozen=True, slots=True)
class Read:
    """What came of it."""

    seconds: float
    requests: int
    function_seconds: float  # of all functions together
    longest_invocation: float


class _Stage(StrEnum):
    TAKE = "take"
    ASK = "ask"
    ANSWERED = "answered"
    KNOWN = "known"


class _Registry:
    """Answers as fast as its rate admits, each answer after a time of its own."""

    def __init__(self, rps: float, latency: float, seed: int) -> None:
        self._interval = 1.0 / rps if rps else 0.0
        self._mean = latency
        self._random = random.Random(seed)  # noqa: S311 - the same seed has to give the same night
        self._free_at = 0.0
        self.requests = 0

    def answer(self, at: float) -> float:
        """Give when a request made at some moment is answered."""
        admitted = max(at, self._free_at)
        self._free_at = admitted + self._interval
        self.requests += 1
        return admitted + self._mean * self._random.lognormvariate(-(LATENCY_SPREAD**2) / 2, LATENCY_SPREAD)


@dataclass(slots=True)
class _Function:
    """One function: a core that its threads share, and the thread that takes their results one after the other."""

    reading: Reading
    left: int = 0  # repositories that no thread has taken yet
    untaken: int = 0  # of its invocation, that are not written down
    began: float = 0.0
    core_free_at: float = 0.0
    list_free_at: float = 0.0
    taker_free_at: float = 0.0
    listed: int = 0
    owed: float = 0.0  # of a write
    taken: deque[float] = field(default_factory=deque)

    def compute(self, at: float, seconds: float) -> float:
        """Give when the core is done with something that comes to it at some moment."""
        self.core_free_at = max(at, self.core_free_at) + seconds / self.reading.processor_share
        return self.core_free_at

    def take(self, at: float) -> tuple[float, float]:
        """Take one result: gives when the thread that brings it may go on, and when it is written down."""
        reading = self.reading
        room = self.taken.popleft() if len(self.taken) >= 2 * reading.threads else at
        began = max(at, self.taker_free_at)
        done = self.compute(began, reading.processor_of_taking)
        self.owed += reading.writes_each
        while self.owed >= 1:
            done += reading.write_latency
            self.owed -= 1
        self.taker_free_at = done
        self.taken.append(began)
        self.untaken -= 1
        return max(at, room), done


def simulate(reading: Reading, *, seed: int = 1) -> Read:
    """Read a whole registry. The same seed gives the same night."""
    return _Night(reading, seed).run()


class _Night:
    def __init__(self, reading: Reading, seed: int) -> None:
        self._reading = reading
        self._registry = _Registry(reading.registry_rps, reading.latency, seed)
        self._batches = self._split()
        self._events: list[tuple[float, int, _Stage, _Function, int]] = []
        self._number = 0
        self._function_seconds = 0.0
        self._longest = 0.0
        self._ended = 0.0

    def _split(self) -> Iterator[int]:
        size = self._reading.batch or max(1, self._reading.repositories)
        left = self._reading.repositories
        while left > 0:
            yield min(size, left)
            left -= size

    def run(self) -> Read:
        for _ in range(self._reading.workers):
            self._invoke(_Function(self._reading), 0.0)
        steps: dict[_Stage, Callable[[_Function, float, int], None]] = {
            _Stage.TAKE: self._take,
            _Stage.ASK: self._ask,
            _Stage.ANSWERED: self._answered,
            _Stage.KNOWN: self._known,
        }
        while self._events:
            at, _, stage, function, requests_left = heapq.heappop(self._events)
            steps[stage](function, at, requests_left)
        return Read(self._ended, self._registry.requests, self._function_seconds, self._longest)

    def _push(self, at: float, stage: _Stage, function: _Function, requests_left: int = 0) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, stage, function, requests_left))

    def _invoke(self, function: _Function, at: float) -> None:
        """Begin the next batch, if there is one."""
        size = next(self._batches, 0)
        if not size:
            return
        function.left = function.untaken = size
        function.began = at
        function.taken.clear()
        for _ in range(self._reading.threads):
            self._push(at + self._reading.between_batches, _Stage.TAKE, function)

    def _take(self, function: _Function, at: float, _: int) -> None:
        if not function.left:
            return
        if function.list_free_at > at:
            self._push(function.list_free_at, _Stage.TAKE, function)
            return
        function.left -= 1
        ready = at
        if self._reading.page_size:
            if function.listed % self._reading.page_size == 0:
                ready = function.list_free_at = self._registry.answer(at)
            function.listed += 1
        self._push(ready, _Stage.ASK, function, self._reading.requests_each)

    def _ask(self, function: _Function, at: float, requests_left: int) -> None:
        self._push(self._registry.answer(at), _Stage.ANSWERED, function, requests_left - 1)

    def _answered(self, function: _Function, at: float, requests_left: int) -> None:
        done = function.compute(at, self._reading.processor_in_thread / self._reading.requests_each)
        if requests_left:
            self._push(done, _Stage.ASK, function, requests_left)
        else:
            self._push(done + self._reading.known_latency, _Stage.KNOWN, function)

    def _known(self, function: _Function, at: float, _: int) -> None:
        free, written = function.take(at)
        self._push(free, _Stage.TAKE, function)
        if not function.untaken:
            lasted = written - function.began
            self._function_seconds += lasted
            self._longest = max(self._longest, lasted)
            self._ended = max(self._ended, written)
            # Its threads find nothing left and end; the next batch brings its own.
            self._invoke(_next_invocation(function), written)


def _next_invocation(function: _Function) -> _Function:
    """Give the same function, free: what it did is written down, and its old threads hold nothing."""
    return _Function(
        function.reading,
        core_free_at=function.core_free_at,
        taker_free_at=function.taker_free_at,
        listed=function.listed,
    )


def pages(entries: int, page_size: int) -> int:
    """Give in how many requests a list is read: an empty one takes one too."""
    return max(1, math.ceil(entries / page_size))
