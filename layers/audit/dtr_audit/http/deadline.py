"""Calls that may never end, made in a thread of their own and given up at a deadline."""

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dtr_audit.errors import OutOfTimeError

_T = TypeVar("_T")


def ask_aside(ask: Callable[[], _T]) -> Callable[[float], _T]:
    """Begin to call something in a thread of its own; gives what waits for its answer until `stop_at` (time.monotonic).

    That raises what the call has raised, and OutOfTimeError at `stop_at`.
    """
    answers: queue.Queue[tuple[_T, None] | tuple[None, BaseException]] = queue.Queue()

    def work() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of whoever waits
            answers.put((None, error))

    def wait(stop_at: float) -> _T:
        try:
            answer, error = answers.get(timeout=max(0.05, stop_at - time.monotonic()))
        except queue.Empty:
            raise OutOfTimeError("no answer came in time") from None
        if error is not None:
            raise error
        return answer  # type: ignore[return-value] # None only beside an error

    threading.Thread(target=work, name="answer", daemon=True).start()
    return wait


def answer_in_time(ask: Callable[[], _T], *, stop_at: float) -> _T:
    """Call something that may never end; raises OutOfTimeError at `stop_at` (time.monotonic)."""
    return ask_aside(ask)(stop_at)
