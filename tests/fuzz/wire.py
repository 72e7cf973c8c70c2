"""Answers below the socket: the auditor's real clients and transport, over a connection that is a function.

    wire = Wire({"dtr.example": api.answer})
    with wire.connected():
        wire.begin(change)      # what becomes of each answer in this case
        DtrClient("https://dtr.example", …)
        wire.served             # every answer as it was given

There is no TLS, no thread and no waiting: the clock goes on when somebody sleeps.
"""

import io
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from urllib3 import HTTPHeaderDict, HTTPResponse

from dtr_audit.http import tls, transport
from dtr_audit.registry import session
from dtr_audit_simulator.http.transport import Request, Response

REMEMBERED = 4_096  # honest answers
REQUESTS = 400  # of one case; the honest audit makes about twenty
SECONDS = 7_200.0  # of the standing clock, for one case

Answerer = Callable[[Request], Response]


class EndlessError(AssertionError):
    """More requests than any answers are worth."""


class Clock:
    """Time that goes on when somebody sleeps, and not otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Plain:
    """An answer that may be changed; a header with the value '' is not sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """A question, and the answer that was given to it."""

    host: str
    request: Request
    answer: Plain


Change = Callable[[str, Request, Plain], Plain]


def leave(_: str, __: Request, answer: Plain) -> Plain:
    """Change nothing."""
    return answer


class Wire:
    """The hosts that can be reached, and what one case makes of their answers."""

    def __init__(self, hosts: Mapping[str, Answerer]) -> None:
        self._hosts = hosts
        self._honest: dict[tuple[object, ...], Plain] = {}
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.begin(leave)

    def begin(self, change: Change) -> None:
        """Begin a case."""
        self.clock = Clock()
        self.served: list[Served] = []
        self._change = change

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Have every transport that is made meanwhile ask here."""
        with (
            patch.object(transport, "make_tls_context", lambda *_: self._context),
            patch.object(tls.VerifyingAdapter, "connections_to", lambda _, url: _Pool(self, url)),
            patch.object(transport, "SystemClock", lambda: self.clock),
            patch.object(session, "SystemClock", lambda: self.clock),
        ):
            yield

    def ask(self, host: str, request: Request) -> Plain:
        """Answer, changed or not."""
        if len(self.served) >= REQUESTS:
            raise EndlessError(f"more than {REQUESTS} requests")
        answer = self._change(host, request, self._ask_honestly(host, request))
        self.served.append(Served(host, request, answer))
        return answer

    def _ask_honestly(self, host: str, request: Request) -> Plain:
        asked = (host, request.method, request.target, request.body, request.header("authorization"))
        known = self._honest.get(asked)
        if known is None:
            response = self._hosts[host](request)
            headers = {"Content-Type": response.content_type, **dict(response.headers)}
            known = Plain(response.status, response.body, headers)
            # What a session ends is ended for this case alone.
            if len(self._honest) < REMEMBERED and request.method == "GET":
                self._honest[asked] = known
        return known


class _Pool:
    """What the transport takes for its connections."""

    def __init__(self, wire: Wire, url: str) -> None:
        self._wire = wire
        self._host = url.removeprefix("https://")

    def urlopen(
        self, method: str, target: str, *, body: bytes | None, headers: Mapping[str, str], **_: Any
    ) -> HTTPResponse:
        lowered = {name.lower(): value for name, value in headers.items()}
        answer = self._wire.ask(self._host, Request(method, target, lowered, body or b""))
        sent = {name: value for name, value in answer.headers.items() if value}
        return HTTPResponse(
            body=io.BytesIO(answer.body),
            headers=HTTPHeaderDict({"Content-Length": str(len(answer.body)), **sent}),
            status=answer.status,
            preload_content=False,
            decode_content=False,
            request_method=method,
        )
