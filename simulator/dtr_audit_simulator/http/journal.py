"""What was asked of the simulated registry, and by whom; and who wants to be told as it happens."""

from __future__ import annotations

import fnmatch
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dtr_audit_simulator.http.transport import Request, Response

REMEMBERED_REQUESTS = 200_000


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request as the journal keeps it: never with its credentials.

    `at` is in seconds of `time.monotonic`; `authentication` is "none", "basic", "bearer" or "other";
    `account` is the one as which the caller was recognised, if any; `status` is 0 if the connection was
    closed instead.
    """

    at: float
    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    host: str
    authentication: str
    account: str
    status: int


class Journal:
    """Keep the latest requests, and call back whoever waits for one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestRecord] = deque(maxlen=REMEMBERED_REQUESTS)
        self._callbacks: tuple[tuple[str, Callable[[Request], None]], ...] = ()

    @property
    def records(self) -> tuple[RequestRecord, ...]:
        """The latest requests, oldest first; one is entered before its answer is sent."""
        with self._lock:
            return tuple(self._records)

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._records.clear()

    def on_request(self, callback: Callable[[Request], None], path: str = "*") -> Callable[[], None]:
        """Call `callback` before each request to `path` (a pattern) is looked at; returns how to end that.

        It runs on the connection's thread, which waits for it: what it changes is what the request meets.
        """
        entry = (path, callback)
        with self._lock:
            self._callbacks = (*self._callbacks, entry)

        def end() -> None:
            with self._lock:
                self._callbacks = tuple(kept for kept in self._callbacks if kept is not entry)

        return end

    def announce(self, request: Request) -> None:
        """Call back whoever waits for `request`."""
        for path, callback in self._callbacks:
            if fnmatch.fnmatchcase(request.path, path):
                callback(request)

    def enter(self, request: Request, response: Response, account: str = "") -> None:
        """Note a request and how it ended."""
        kind = request.header("authorization").partition(" ")[0].lower()
        record = RequestRecord(
            at=time.monotonic(),
            method=request.method,
            path=request.path,
            query=request.query,
            host=request.header("host"),
            authentication=kind if kind in ("basic", "bearer") else "other" if kind else "none",
            account=account,
            status=0 if response.delivery.unanswered else response.status,
        )
        with self._lock:
            self._records.append(record)
