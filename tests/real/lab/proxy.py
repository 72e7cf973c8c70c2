"""Somebody between an auditor and the registry who can change what passes, under a certificate the auditor trusts.

    with TamperingProxy(registry) as proxy:
        proxy.tamper = lambda file: b"{}" if file.role == "targets" else None
        proxy.url  # what the auditor is given in place of registry.url

Everything else passes unchanged, but for the realm of a challenge, which the proxy puts on its own host.
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

import requests

from dtr_audit_simulator.http.transport import HttpServer, Request, Response

if TYPE_CHECKING:
    from tests.real.lab.registry import RealRegistry

TIMEOUT_SECONDS = 20
PIECE = b" " * 65_536

_FILE = re.compile(r"/v2/(?P<gun>.+)/_trust/tuf/(?:(?P<version>\d+)\.)?(?P<role>[^.]+)(?:\.[0-9a-f]{64,128})?\.json")
# What belongs to one connection, or is said anew by whoever answers.
_HOP_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "content-type", "server"})


@dataclass(frozen=True, slots=True)
class TrustFile:
    """A file of trust data on its way to an auditor, and how it was asked for.

    `version` is empty unless it was asked for by that; `content` is None when there is no such file.
    """

    gun: str
    role: str
    version: str
    content: bytes | None = field(repr=False)


Tamper = Callable[[TrustFile], "bytes | Response | None"]


def _leave(_: TrustFile) -> None:
    return None


class TamperingProxy:
    """An HTTPS server before a `RealRegistry`; `tamper` gives other bytes, a whole other answer, or None to leave it.

    A `realm`, if there is one, takes the place of the one that the registry names.
    """

    def __init__(self, registry: RealRegistry) -> None:
        self.tamper: Tamper = _leave
        self.realm = ""
        self._upstream = registry.url
        self._upstream_host = registry.host
        self._ca_file = str(registry.ca_file)
        self._lock = threading.Lock()
        self._logins: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        registry.authority.issue("localhost", "127.0.0.1").load_into(context)
        self._http = HttpServer(self._answer, context=context)
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def host(self) -> str:
        """The host and port of the proxy."""
        return f"localhost:{self._http.port}"

    @property
    def url(self) -> str:
        """Where the proxy is reached."""
        return f"https://{self.host}"

    @property
    def logins(self) -> list[str]:
        """The paths at which somebody has shown a name and a password."""
        with self._lock:
            return list(self._logins)

    def behave(self) -> None:
        """Pass everything unchanged again."""
        self.tamper = _leave
        self.realm = ""

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.stop()
        self._session.close()

    def _answer(self, request: Request) -> Response:
        if request.header("authorization").lower().startswith("basic "):
            with self._lock:
                self._logins.append(request.path)
        answer = self._forward(request)
        matched = _FILE.fullmatch(request.path)
        if matched is None or answer.status not in (200, 404) or request.method != "GET":
            return answer
        content = answer.body if answer.status == 200 else None
        tampered = self.tamper(TrustFile(matched["gun"], matched["role"], matched["version"] or "", content))
        if isinstance(tampered, Response):
            return tampered
        return answer if tampered is None else Response(200, tampered)

    def _forward(self, request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_HEADERS}
        headers |= {"host": self._upstream_host, "accept-encoding": "identity"}
        if content_type := request.header("content-type"):
            headers["content-type"] = content_type
        answer = self._session.request(
            request.method,
            f"{self._upstream}{request.target}",
            headers=headers,
            data=request.body,
            verify=self._ca_file,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )
        kept = tuple(
            (name, self._mislead(value) if name.lower() == "www-authenticate" else value)
            for name, value in answer.headers.items()
            if name.lower() not in _HOP_HEADERS
        )
        content_type = answer.headers.get("Content-Type", "application/octet-stream")
        return Response(answer.status_code, answer.content, content_type, kept)

    def _mislead(self, challenge: str) -> str:
        realm = self.realm or f"{self.url}/auth/token"
        return re.sub(r'realm="[^"]*"', f'realm="{realm}"', challenge)


def endless() -> Response:
    """Give an answer that never ends, of what JSON allows to stand before a value."""

    def pieces() -> Iterator[bytes]:
        while True:
            yield PIECE

    return Response(200, stream=pieces)
