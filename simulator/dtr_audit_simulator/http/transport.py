"""HTTP/1.1 on a thread per connection, in which also the *delivery* of an answer can go wrong.

The standard library's server would do for well-behaved answers; here an answer can come late, in drips, in
part, without end or not at all, connections are kept alive, each answer leaves in one write, and `stop()`
ends everything at once, whatever a connection is waiting for, without leaving a socket open.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

MAXIMUM_HEAD = 1_048_576  # bytes of a request's head
MAXIMUM_REQUEST_BODY = 1_048_576  # bytes
IDLE_SECONDS = 120.0  # a silent connection is closed after that
JOIN_SECONDS = 5.0

_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True)
class Request:
    """A request as received; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The path's percent-decoded segments, so that an encoded slash stays within its segment."""
        return tuple(unquote(segment) for segment in self._raw_path.strip("/").split("/"))

    @cached_property
    def path(self) -> str:
        """The percent-decoded path, without a trailing slash."""
        return "/" + unquote(self._raw_path.strip("/"))

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The decoded query."""
        _, _, query = self.target.partition("?")
        return parse_qs(query, keep_blank_values=True) if query else {}

    @property
    def _raw_path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        """Give a header by its lower-case name, or an empty string."""
        return self.headers.get(name, "")

    def parameter(self, name: str) -> str:
        """Give the first value of a query parameter, or an empty string."""
        return self.query.get(name, [""])[0]

    def is_true(self, name: str) -> bool:
        """Tell whether a query parameter is set to true."""
        return self.parameter(name).lower() in ("true", "1")


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an answer travels; the default is: whole, at once.

    `delay` is in seconds before the first byte. `head_pause` and `body_pause` are seconds before each byte of
    the head and each `body_piece` bytes of the body. `cut_after` closes the connection after that many bytes
    of the body, though Content-Length promised them all; `unanswered` closes it instead of answering.
    """

    delay: float = 0.0
    head_pause: float = 0.0
    body_pause: float = 0.0
    body_piece: int = 1
    cut_after: int | None = None
    unanswered: bool = False


WHOLE = Delivery()


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. If there is a `stream`, that is the body, sent in chunks until it ends or the client goes away.

    If there is a `wire`, its bytes are sent in place of all else, the head included, each piece after the `body_pause`.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delivery: Delivery = WHOLE
    stream: Callable[[], Iterable[bytes]] | None = None
    wire: Callable[[], Iterable[bytes]] | None = None

    def head(self, *, keep_alive: bool) -> bytes:
        """Serialise the status line and the headers."""
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}" if self.stream is None else "Transfer-Encoding: chunked",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        if not keep_alive:
            lines.append("Connection: close")
        lines.append("\r\n")
        return "\r\n".join(lines).encode("latin-1", "replace")


class HttpServer:
    """Serve `answer` on a port of 127.0.0.1, over TLS if there is a `context`.

    An exception out of `answer` ends its connection and is reported by `threading.excepthook`: a simulator's
    own mistakes must be loud.
    """

    def __init__(
        self, answer: Callable[[Request], Response], *, port: int = 0, context: ssl.SSLContext | None = None
    ) -> None:
        self._answer = answer
        self._context = context
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._live: dict[threading.Thread, socket.socket] = {}
        self._accepted = 0
        self._under_way = 0
        self._busiest = 0
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        # A client that is gone between select and accept must not keep the acceptor from stopping.
        self._listener.setblocking(False)
        self._waker, self._wake = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name="dtr-accept", daemon=True)

    @property
    def port(self) -> int:
        """The port, chosen by the kernel if none was asked for."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def accepted(self) -> int:
        """How many connections have been accepted so far."""
        with self._lock:
            return self._accepted

    def take_busiest(self) -> int:
        """Give how many requests waited for their answer to begin at once, at the most, since this was asked last."""
        with self._lock:
            busiest, self._busiest = self._busiest, self._under_way
            return busiest

    def start(self) -> None:
        """Begin to accept connections."""
        self._acceptor.start()

    def stop(self) -> None:
        """Close every connection, whatever it is doing, and the port."""
        self._stopping.set()
        self._wake.send(b"x")
        if self._acceptor.ident is not None:
            self._acceptor.join(JOIN_SECONDS)
        with self._lock:
            live = list(self._live.items())
            for _, connection in live:
                # Not through SSLSocket.shutdown, which takes the TLS state away under its reader's feet.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread, _ in live:
            thread.join(JOIN_SECONDS)
        for endpoint in (self._listener, self._waker, self._wake):
            endpoint.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            while True:
                selector.select()
                if self._stopping.is_set():
                    return
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    continue
                thread = threading.Thread(target=self._serve, args=(connection,), name="dtr-connection", daemon=True)
                with self._lock:
                    self._accepted += 1
                    self._live[thread] = connection
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # a client may go away, or refuse the certificate, at any time
                connection.settimeout(IDLE_SECONDS)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                    self._register(connection)
                    connection.do_handshake()
                if self._converse(connection):
                    _say_goodbye(connection)
        finally:
            with self._lock:
                del self._live[threading.current_thread()]
                connection.close()

    def _register(self, connection: socket.socket) -> None:
        with self._lock:
            self._live[threading.current_thread()] = connection
        if self._stopping.is_set():
            raise ConnectionAbortedError("the server is stopping")

    def _converse(self, connection: socket.socket) -> bool:
        """Answer requests until one side has enough; tell whether the end is an orderly one."""
        reader = _Reader(connection)
        while not self._stopping.is_set():
            received = reader.request()
            if received is None:
                return True
            request, keep_alive = received
            with self._working():
                try:
                    response = self._answer(request)
                except OSError as error:
                    # Not to be taken for a client that has gone away.
                    raise RuntimeError(f"cannot answer {request.method} {request.path}") from error
                if response.delivery.delay and self._stopping.wait(response.delivery.delay):
                    return False
            # From here on its client may ask again: counted any longer, one client would be two requests.
            if response.wire is not None:
                self._send_pieces(connection, response.wire(), response.delivery.body_pause)
                return False
            if not self._deliver(connection, response, keep_alive=keep_alive, bodiless=request.method == "HEAD"):
                return False
            if not keep_alive:
                return True
        return False

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            self._under_way += 1
            self._busiest = max(self._busiest, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def _deliver(self, connection: socket.socket, response: Response, *, keep_alive: bool, bodiless: bool) -> bool:
        """Send an answer; tell whether the connection may go on."""
        delivery = response.delivery
        head = response.head(keep_alive=keep_alive)
        if delivery is WHOLE and response.stream is None:
            connection.sendall(head if bodiless else head + response.body)
            return True
        if delivery.unanswered:
            return False
        self._drip(connection, head, 1, delivery.head_pause)
        if bodiless:
            return True
        if response.stream is not None:
            return self._send_chunks(connection, response.stream())
        body = response.body if delivery.cut_after is None else response.body[: delivery.cut_after]
        self._drip(connection, body, delivery.body_piece, delivery.body_pause)
        return delivery.cut_after is None

    def _drip(self, connection: socket.socket, content: bytes, piece: int, pause: float) -> None:
        if not pause:
            connection.sendall(content)
            return
        for begin in range(0, len(content), piece):
            if self._stopping.wait(pause):
                raise ConnectionAbortedError("the server is stopping")
            connection.sendall(content[begin : begin + piece])

    def _send_pieces(self, connection: socket.socket, pieces: Iterable[bytes], pause: float) -> None:
        for piece in pieces:
            # Without a pause nothing is waited for: wait(0) would let other threads in.
            if self._stopping.is_set() or (pause and self._stopping.wait(pause)):
                break
            connection.sendall(piece)

    def _send_chunks(self, connection: socket.socket, stream: Iterable[bytes]) -> bool:
        for chunk in stream:
            if self._stopping.is_set():
                return False
            if chunk:
                connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        connection.sendall(b"0\r\n\r\n")
        return True


class _Reader:
    """Read requests off a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def request(self) -> tuple[Request, bool] | None:
        """Give the next request and whether the connection is to be kept alive; None at the connection's end."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        try:
            method, target, version = first.split(" ")
        except ValueError:
            raise ConnectionAbortedError(f"not an HTTP request: {first[:80]!r}") from None
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = headers.get("content-length", "0")
        body = self._take(int(length) if length.isdecimal() else 0)
        connection = headers.get("connection", "").lower()
        keep_alive = connection == "keep-alive" if version == "HTTP/1.0" else connection != "close"
        return Request(method, target, headers, body), keep_alive

    def _until(self, end: bytes) -> bytes | None:
        searched = 0
        while (found := self._buffer.find(end, searched)) < 0:
            if len(self._buffer) > MAXIMUM_HEAD:
                raise ConnectionAbortedError("the request's head is too long")
            searched = max(0, len(self._buffer) - len(end) + 1)
            if not self._receive():
                return None
        head = bytes(self._buffer[:found])
        del self._buffer[: found + len(end)]
        return head

    def _take(self, length: int) -> bytes:
        if length > MAXIMUM_REQUEST_BODY:
            raise ConnectionAbortedError("the request's body is too long")
        while len(self._buffer) < length:
            if not self._receive():
                raise ConnectionAbortedError("the request's body ends early")
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _receive(self) -> bool:
        received = self._connection.recv(65_536)
        self._buffer += received
        return bool(received)


def _say_goodbye(connection: socket.socket) -> None:
    if isinstance(connection, ssl.SSLSocket):
        # Send TLS's close_notify, but do not wait for the client's.
        with contextlib.suppress(OSError, ValueError):
            connection.settimeout(0)
            connection.unwrap()
