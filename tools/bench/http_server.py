"""HTTP/1.1 on one thread, for servers that must not be the limit of what is measured."""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

BACKLOG = 256
_LENGTH = "Content-Length"


@lru_cache
def _form_of(name: str) -> re.Pattern[bytes]:
    return re.compile(rf"\r\n{re.escape(name)}: *([^\r]*)".encode(), re.IGNORECASE)


@lru_cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Request:
    """A request as received."""

    method: str
    target: str  # path and query, still encoded
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """Give a header, or an empty text."""
        found = _form_of(name).search(self.head)
        return found.group(1).decode("latin-1").strip() if found else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `headers` are whole lines, each with its end."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: bytes = b""

    def encode(self) -> bytes:
        """Write it as it travels."""
        return b"%bContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n%b" % (
            _status_line(self.status),
            self.content_type,
            self.headers,
            len(self.body),
            self.body,
        )


class Service(ABC):
    """What answers; one object for all connections."""

    @abstractmethod
    def answer(self, request: Request) -> Answer:
        """Answer a request."""

    def delay(self, request: Request) -> float:
        """Give the seconds before the answer leaves."""
        del request
        return 0.0

    def note_sent(self, request: Request) -> None:
        """Learn that an answer has left."""
        del request


class Connection(asyncio.Protocol):
    """One connection, kept alive; requests are answered one after another."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._waiting = False  # for the end of a delay
        self._asked_to_continue = False
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        if not isinstance(transport, asyncio.WriteTransport):
            raise TypeError("a stream is needed")
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take what has come, and answer what is whole."""
        self._buffer += data
        if not self._waiting:
            self._serve()

    def _serve(self) -> None:
        while (request := self._next()) is not None:
            answer = self._service.answer(request).encode()
            if delay := self._service.delay(request):
                self._waiting = True
                self._loop.call_later(delay, self._send_late, request, answer)
                return
            self._send(request, answer)

    def _send_late(self, request: Request, answer: bytes) -> None:
        self._waiting = False
        self._send(request, answer)
        self._serve()

    def _send(self, request: Request, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)
        self._service.note_sent(request)

    def _next(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._buffer[:end]
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        length = 0
        if method not in {"GET", "HEAD", "DELETE"}:
            request = Request(method, target, head, b"")
            length = int(request.header(_LENGTH) or 0)
            if len(self._buffer) < end + 4 + length:
                # A client that asks first (S3's does) waits a second for this line.
                if self._transport and not self._asked_to_continue and request.header("Expect"):
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    self._asked_to_continue = True
                return None
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer = self._buffer[end + 4 + length :]
        self._asked_to_continue = False
        return Request(method, target, head, body)


async def open_port(service: Service, *, context: ssl.SSLContext | None = None) -> int:
    """Serve on a free port of 127.0.0.1 as long as the loop runs; gives the port."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(service), "127.0.0.1", 0, ssl=context, backlog=BACKLOG
    )
    port: int = server.sockets[0].getsockname()[1]
    return port


async def run_until_input_ends(port: int) -> None:
    """Tell the port on standard output, and go on until whoever started this process closes its standard input, or dies."""
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
