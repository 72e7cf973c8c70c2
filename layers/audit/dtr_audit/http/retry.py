"""Faults that pass: what met one is asked again in the same run, one request at a time, while there is time."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from aws_lambda_powertools import Logger

from dtr_audit.errors import TransientError

FIRST_WAIT_SECONDS = 5.0  # before the second question; each further wait is twice as long
LONGEST_WAIT_SECONDS = 60.0
LAST_SHARE = 0.1  # of the time for reading: the last pass begins when so much of it is left
# The longest wait for one thing. The time limit of a run may be hours, and a fault that lasts longer needs a person.
PATIENCE_SECONDS = 600.0

logger = Logger(service="dtr-signature-audit", child=True)

_T = TypeVar("_T")


class Clock(Protocol):
    """Time as an argument, so that tests need not wait."""

    def monotonic(self) -> float:
        """Give seconds since some fixed moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Patience:
    """How long one invocation waits for a registry that does not answer. Safe to share between threads."""

    def __init__(self, stop_at: float, clock: Clock) -> None:
        """Begin now; `stop_at` is the end of the time for reading, on the clock."""
        self._clock = clock
        self._stop_at = stop_at
        began = clock.monotonic()
        self._last_at = began + (1 - LAST_SHARE) * (stop_at - began)

    @property
    def seconds_until_last(self) -> float:
        """How long it is until the last pass begins, PATIENCE_SECONDS at most; 0 if that moment is past."""
        return max(0.0, min(PATIENCE_SECONDS, self._last_at - self._clock.monotonic()))

    def allows(self, seconds: float) -> bool:
        """Tell whether a wait of so many seconds leaves time to ask again."""
        return seconds < min(PATIENCE_SECONDS, self._stop_at - self._clock.monotonic())

    def begin(self, *, to_the_end: bool = False) -> "Waiting":
        """Begin to wait for one answer: until the last pass begins, or, for what comes last, to the end of the time."""
        return Waiting(self._stop_at if to_the_end else self._last_at, self._clock)

    def ask(self, question: Callable[[], _T], *, to_the_end: bool = False) -> _T:
        """Ask, and ask again after each TransientError while there is time; raises the last of them."""
        waiting = self.begin(to_the_end=to_the_end)
        while True:
            try:
                return question()
            except TransientError as error:
                waiting.wait(error)

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the time for reading."""
        self._clock.sleep(max(0.0, min(seconds, self._stop_at - self._clock.monotonic())))


class Waiting:
    """The waits between the questions for one answer. For one thread."""

    def __init__(self, ends_at: float, clock: Clock) -> None:
        self._clock = clock
        self._ends_at = min(ends_at, clock.monotonic() + PATIENCE_SECONDS)
        self._next = FIRST_WAIT_SECONDS

    def wait(self, error: TransientError) -> None:
        """Wait before the question is asked again; raises the error if no time is left, or less than the peer asks to wait."""
        left = self._ends_at - self._clock.monotonic()
        if left <= 0 or error.retry_after > left:
            raise error
        # The last question is asked at the very end.
        seconds = min(max(self._next, error.retry_after), left)
        self._next = min(2 * self._next, LONGEST_WAIT_SECONDS)
        logger.info("no answer, so the same is asked again later", seconds=round(seconds, 1), because=str(error))
        self._clock.sleep(seconds)
