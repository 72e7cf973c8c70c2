"""How many requests one host gets at once: as many as the setting allows, and fewer while it does badly.

Additive increase, multiplicative decrease, as TCP keeps its peace with a network: what fails or slows down under the load gets
half or three quarters of it at once, and the rest back one by one. A host begins with half of the setting.
"""

import math
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from aws_lambda_powertools import Logger

START_SHARE = (
    0.5  # of the setting, until the first answers are in: how fast a host is shows before it has all of the load
)
WINDOW_LEAST = 8  # answers after which the pace is thought over; or twice as many as are asked for at once
TROUBLE_LEAST = 2  # answers of a window: one alone is a mishap, of one repository perhaps
TROUBLE_SHARE = 0.1  # of a window
TROUBLE_FACTOR = 0.5
LATENCY_RISE = 2.0  # times the best
LATENCY_SLACK_SECONDS = 0.1  # and as much more: an answer in 60 ms after one in 10 is no sign of anything
LATENCY_FACTOR = 0.75
LATENCY_SHARE = 0.25  # of the setting: an answer that is late is one all the same, and more is not given up for it
BEST_DRIFT = 0.05  # a window: what has become slow for good is the usual in the end

logger = Logger(service="dtr-signature-audit", child=True)


class Ticker(Protocol):
    """What tells the time."""

    def monotonic(self) -> float:
        """Give seconds since some fixed moment."""
        ...


class Permit(NamedTuple):
    """One request, from the moment at which it may be sent."""

    began: float
    is_loaded: bool  # at least half of the turns were taken: alone, a host is as fast as it is asked easy things


class ConcurrencyLimiter:
    """The turns at one host. Safe to share between threads."""

    def __init__(self, most: int, clock: Ticker, host: str) -> None:
        """Allow `most` turns at once, and never more; `host` is what the log calls it."""
        self._most = most
        self._clock = clock
        self._host = host
        self._turns = threading.Condition()
        self._limit = math.ceil(most * START_SHARE)
        self._is_starting = self._limit < most
        self._lowest = most
        self._under_way = 0
        self._resume_at = 0.0
        self._slowed = 0
        self._changed_at = 0.0
        self._best = 0.0  # the least median of a window, in seconds; 0: none yet
        # Of the present window:
        self._answers = 0
        self._troubles = 0
        self._waits: list[float] = []

    @property
    def limit(self) -> int:
        """How many turns there are at present."""
        return self._limit

    def pause(self, seconds: float) -> None:
        """Let nobody begin for a while."""
        with self._turns:
            self._resume_at = max(self._resume_at, self._clock.monotonic() + seconds)

    @property
    def pause_left(self) -> float:
        """How long nobody may begin, in seconds."""
        return self._resume_at - self._clock.monotonic() if self._resume_at else 0.0

    def begin(self, check: Callable[[], object], *, at_once: bool = False) -> Permit:
        """Wait for a turn; `check` is called now and then, and ends the waiting by raising.

        `at_once` takes one without waiting, for a request on which those that have a turn wait.
        """
        with self._turns:
            while self._under_way >= self._limit and not at_once:
                self._turns.wait(0.5)
                check()
            self._under_way += 1
            return Permit(self._clock.monotonic(), 2 * self._under_way >= self._limit)

    def end(self, permit: Permit, waited: float | None, *, refused: bool = False) -> None:
        """Give a turn back: `waited` is how long the answer took to begin, None if none came or one that says to come back later.

        With `refused` the host itself asks for fewer.
        """
        with self._turns:
            self._under_way -= 1
            # What was asked before the last change says nothing about it.
            if permit.began >= self._changed_at:
                self._learn(permit, waited, refused=refused)
            self._turns.notify()

    def give_back(self) -> None:
        """Give a turn back that was not used."""
        with self._turns:
            self._under_way -= 1
            self._turns.notify()

    def tell(self) -> None:
        """Say in the log that the host was spared, if it was."""
        if self._lowest < self._most:
            logger.info(
                f"{self._host} was asked for less at once than the setting allows",
                extra={"at_once": self._most, "least": self._lowest, "last": self._limit, "slowed_down": self._slowed},
            )

    def _learn(self, permit: Permit, waited: float | None, *, refused: bool) -> None:
        self._answers += 1
        window = self._limit if self._is_starting else max(WINDOW_LEAST, 2 * self._limit)
        if waited is None:
            self._troubles += 1
            if refused or self._troubles >= max(TROUBLE_LEAST, TROUBLE_SHARE * window):
                self._slow_down(TROUBLE_FACTOR, least=1)
                return
        elif permit.is_loaded:
            self._waits.append(waited)
        is_telling = 2 * len(self._waits) >= window
        if (not is_telling) if self._is_starting else (self._answers < window):
            return
        if is_telling:
            usual = sorted(self._waits)[len(self._waits) // 2]
            best = self._best or usual
            self._best = min(usual, best * (1 + BEST_DRIFT))
            if usual > LATENCY_RISE * best + LATENCY_SLACK_SECONDS:
                self._slow_down(LATENCY_FACTOR, least=max(1, int(self._most * LATENCY_SHARE)))
                return
        if self._limit < self._most:
            self._limit = self._most if self._is_starting else self._limit + 1
            self._turns.notify_all()
        self._is_starting = False
        self._begin_window()

    def _slow_down(self, factor: float, *, least: int) -> None:
        self._begin_window()
        self._is_starting = False
        self._changed_at = self._clock.monotonic()
        slower = max(least, int(self._limit * factor))
        if slower >= self._limit:
            return
        self._slowed += 1
        if self._lowest > self._most // 2 >= slower:
            logger.info(
                f"{self._host} fails or slows down, and is asked for less at once",
                extra={"at_once": self._most, "now": slower},
            )
        self._limit = slower
        self._lowest = min(self._lowest, slower)

    def _begin_window(self) -> None:
        self._answers = 0
        self._troubles = 0
        self._waits.clear()
