"""Findings on their way into the table: full batches, of however many repositories, several at once."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from dtr_audit.aws.findings import BATCH_ITEMS, FindingsTable
from dtr_audit.core.finding import Finding

WRITERS = 4  # more of them only wait for each other's processor
WAITING = 2 * WRITERS  # batches; whoever brings more waits until the table has taken some
LINGER_SECONDS = 5.0  # a batch that does not become full is sent after that
CONFIRMED_SECONDS = 5.0  # between two looks whether the batches are still this attempt's to write


class FindingBatches:
    """Writes findings in the background. For one thread; no finding is given twice between two flushes."""

    def __init__(self, table: FindingsTable, confirm: Callable[[], None] | None = None) -> None:
        """Prepare; `confirm` raises once another attempt has taken over what this one writes."""
        self._table = table
        self._confirm = confirm
        self._confirmed_at = time.monotonic()
        self._batch: list[Finding] = []
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._pool = ThreadPoolExecutor(max_workers=WRITERS, thread_name_prefix="write")

    def close(self) -> None:
        """Begin no further write, and wait for those under way; without `flush()`, what has not been written is not."""
        with self._lock:
            self._batch = []
            self._stop_timer()
        # Lambda freezes what is under way, and lets it go on in a later invocation, over what has been written since.
        self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, findings: Iterable[Finding]) -> None:
        """Take findings to be written as they are now; raises whatever has gone wrong with earlier ones."""
        for finding in findings:
            with self._lock:
                self._batch.append(finding)
                if len(self._batch) == 1:
                    # A registry that is slow to answer keeps no finding from the table.
                    self._timer = threading.Timer(LINGER_SECONDS, self._send)
                    self._timer.daemon = True
                    self._timer.start()
                is_full = len(self._batch) == BATCH_ITEMS
            if is_full:
                self._make_room()
                self._send()

    def flush(self) -> None:
        """Wait until all is in the table; raises AuditError when DynamoDB keeps turning some away, or what `confirm` raises."""
        self._send()
        while self._waiting:
            self._waiting.popleft().result()

    def _make_room(self) -> None:
        while len(self._waiting) >= WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def _send(self) -> None:
        with self._lock:
            self._stop_timer()
            if self._batch:
                self._waiting.append(self._pool.submit(self._write, self._batch))
                self._batch = []

    def _write(self, batch: list[Finding]) -> None:
        if self._confirm is not None and time.monotonic() - self._confirmed_at >= CONFIRMED_SECONDS:
            self._confirm()
            self._confirmed_at = time.monotonic()
        self._table.write(batch)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
