"""The HTTP client's connections and answers, with limits where it has none: of time by the watchdog, of lines by their bytes."""

import http.client
import io
import socket
from typing import Any

from urllib3.connection import HTTPSConnection

from dtr_audit.http.watchdog import WATCHDOG

HEAD_BYTES = 64 * 1024  # of one answer: status line, headers and interim answers; a registry's have 1 KiB or two
LINE_BYTES = 1024 * 1024  # of one answer after its head: the sizes of chunks, and trailers


class TooManyLinesError(http.client.HTTPException):
    """An answer's head, or what stands beside its body, is larger than is read."""


class _Lines(io.BufferedReader):
    """What comes from the peer; lines have an allowance, and the body's bytes are counted where they are read."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self._allowance = HEAD_BYTES
        self._is_head = True
        self._has_begun = False

    def end_head(self) -> None:
        """Begin with the lines that stand beside the body."""
        self._is_head = False
        self._allowance = LINE_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self._allowance -= len(line)
        if self._allowance < 0:
            raise TooManyLinesError
        if self._is_head:
            if self._has_begun and line[-1:] != b"\n":
                # The HTTP client would take the end of the connection for the end of the head.
                raise http.client.IncompleteRead(line)
            self._has_begun = True
        return line


class BoundedResponse(http.client.HTTPResponse):
    """An answer whose head and trailers end. Also of a proxy, to CONNECT."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        # The buffer is empty yet: nothing was read through it.
        self.fp = self._lines = _Lines(self.fp.detach())

    def begin(self) -> None:
        """Read the head; raises HTTPException."""
        super().begin()
        self._lines.end_head()


class WatchedConnection(HTTPSConnection):
    """A connection that the watchdog can shut down at any moment from its first byte on."""

    response_class = BoundedResponse

    def _new_conn(self) -> socket.socket:
        # Before TLS, and before a proxy is asked for the way: both can be dragged out too.
        connected = super()._new_conn()
        WATCHDOG.attach(connected.fileno(), is_new=True)
        return connected

    def request(self, *arguments: Any, **options: Any) -> None:
        """Send a request."""
        if self.sock is not None:
            WATCHDOG.attach(self.sock.fileno(), is_new=False)
        super().request(*arguments, **options)
