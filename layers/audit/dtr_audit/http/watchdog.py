"""Ends requests whose time is over, even while the peer sends: one thread for the whole process."""

import contextlib
import socket
import threading
from time import monotonic

IDLE_SECONDS = 60.0  # between two looks at nothing


class Watch:
    """One request under way. `expired` becomes True if its time is over before it ends."""

    __slots__ = ("ends_at", "expired", "wire")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.expired = False
        self.wire: socket.socket | None = None  # a second descriptor of its connection

    def shut(self) -> None:
        """Shut the connection down. A thread that reads from it or writes to it goes on at once."""
        if self.wire is not None:
            with contextlib.suppress(OSError):  # the peer may have closed it already
                self.wire.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """Shuts down the connection of a request whose time is over. Safe to share between threads.

    Time limits of sockets do not do: each byte that arrives begins them again. The watchdog holds a second descriptor of each
    connection, so it does not matter whether TLS, a proxy or the HTTP client holds the first one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: dict[int, Watch] = {}  # by the thread that makes the request
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def begin(self, seconds: float) -> Watch:
        """Watch the request that this thread makes next, for so many seconds."""
        watch = Watch(monotonic() + seconds)
        with self._changed:
            self._watches[threading.get_ident()] = watch
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            elif watch.ends_at < self._wakes_at:
                self._changed.notify()
        return watch

    def attach(self, descriptor: int, *, is_new: bool) -> None:
        """Take note of the connection by which this thread makes its request: a new one, or one that was open already."""
        with self._changed:
            watch = self._watches.get(threading.get_ident())
            if watch is None or (watch.wire is not None and not is_new):
                return
            if watch.wire is not None:
                watch.wire.close()
            # Neither family nor type matters to what is done with it.
            watch.wire = socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)
            if watch.expired:
                watch.shut()

    def end(self, watch: Watch) -> None:
        """Let go of a request that has ended in one way or the other."""
        with self._changed:
            del self._watches[threading.get_ident()]
            if watch.wire is not None:
                watch.wire.close()

    def count(self) -> int:
        """Give how many requests are watched."""
        with self._changed:
            return len(self._watches)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = monotonic()
                self._wakes_at = now + IDLE_SECONDS
                for watch in self._watches.values():
                    if watch.expired:
                        continue
                    if watch.ends_at <= now:
                        watch.expired = True
                        watch.shut()
                    else:
                        self._wakes_at = min(self._wakes_at, watch.ends_at)
                self._changed.wait(self._wakes_at - now)


WATCHDOG = Watchdog()
