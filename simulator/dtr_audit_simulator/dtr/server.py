"""A Docker Trusted Registry for tests and demonstrations, on a port of this machine.

Fill a registry, serve it, and read it as an auditor would:

    registry = InMemoryRegistry()
    registry.push("library", "nginx", "1.25")
    registry.sign("library", "nginx", "1.25")

    with DtrServer(registry) as dtr:
        dtr.url                             # https://localhost:41234
        dtr.host                            # localhost:41234, the `domain` under which images are signed
        dtr.ca_bundle                       # PEM of this server's own CA: certificates are always verified
        dtr.admin.name, dtr.admin.password  # a password made for this server

It can be changed while it is read. Something unsigned is pushed over a signed tag; the password is rotated and every
token forgotten; and at the very moment at which its tags are asked for, a repository goes away:

        registry.push("library", "nginx", "1.25")
        dtr.accounts.rotate_password("admin")
        dtr.revoke_tokens()
        dtr.on_request(lambda request: registry.delete_repository("library", "nginx"), "*/library/nginx/tags")

Anything can go wrong with it, see `dtr_audit_simulator.dtr.faults`; assign what shall go wrong, and `Faults()` for nothing:

        dtr.faults = Faults(strikes=(Status(503, TOKEN, shape="details", retry_after="1"),))

Trust data is served as well, from `dtr.notary` (see `dtr_audit_simulator.notary`), once there is any. By itself it changes nothing
of what the API says of tags, which is what `registry.sign` said; a registry that is made with a Notary says what that holds:

    notary = Notary()
    with DtrServer(InMemoryRegistry(notary=notary)) as dtr:
        notary.create(f"{dtr.host}/library/nginx").sign("1.25", "sha256:…")

Afterwards count what was asked of it:

        len(dtr.calls("/auth/token")), dtr.requests[-1].authentication

`DtrServer(registry, tls=False, port=8080, public_host="registry.example")` speaks plain HTTP for a proxy that
ends TLS. `DtrServer(backend)` takes any other `Backend`. `HarborServer()` is no DTR at all.
"""

from __future__ import annotations

import secrets
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Self

from dtr_audit_simulator.dtr.accounts import Account, Accounts, Tokens
from dtr_audit_simulator.dtr.api import DtrApi
from dtr_audit_simulator.dtr.backend import Backend
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.harbor import HarborApi
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.http.authority import CertificateAuthority, Defect
from dtr_audit_simulator.http.journal import Journal, RequestRecord
from dtr_audit_simulator.http.transport import HttpServer, Request, Response
from dtr_audit_simulator.notary.notary import Notary

ADMIN = "admin"


class Server(ABC):
    """Put an API on a port of 127.0.0.1, under a certificate of its own."""

    def __init__(
        self,
        journal: Journal,
        *,
        hostname: str = "localhost",
        port: int = 0,
        tls: bool = True,
        public_host: str = "",
        authority: CertificateAuthority | None = None,
        defect: Defect | None = None,
    ) -> None:
        self._journal = journal
        self._hostname = hostname
        self._wanted_port = port
        self._tls = tls
        self._public_host = public_host
        self._authority = authority or CertificateAuthority()
        self._defect = defect
        self._lock = threading.Lock()
        self._http: HttpServer | None = None

    @abstractmethod
    def _answer(self, request: Request) -> Response: ...

    @abstractmethod
    def _begin(self, host: str) -> None:
        """Learn under which host[:port] the API is reached, before the first request."""

    @property
    def port(self) -> int:
        """The port on 127.0.0.1. Raises RuntimeError unless the server is running."""
        if self._http is None:
            raise RuntimeError("the simulated registry is not running: use it in a with statement, or call start()")
        return self._http.port

    @property
    def host(self) -> str:
        """The host[:port] as clients write it: the domain under which images are pushed and signed."""
        return self._public_host or f"{self._hostname}:{self.port}"

    @property
    def url(self) -> str:
        """Where clients reach the API; `https` also if a proxy is to end TLS before it."""
        return f"https://{self.host}"

    @property
    def ca_bundle(self) -> str:
        """The PEM certificate of the CA to trust."""
        return self._authority.certificate_pem

    @property
    def connections(self) -> int:
        """How many connections have been accepted since the start."""
        return self._http.accepted if self._http is not None else 0

    def take_busiest(self) -> int:
        """Give how many requests were under way at once, at the most, since this was asked last."""
        return self._http.take_busiest() if self._http is not None else 0

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """The latest requests, oldest first."""
        return self._journal.records

    def calls(self, path: str) -> tuple[RequestRecord, ...]:
        """Select the requests whose decoded path matches a pattern."""
        return tuple(record for record in self.requests if fnmatchcase(record.path, path))

    def forget_requests(self) -> None:
        """Empty the log of requests."""
        self._journal.clear()

    def on_request(self, callback: Callable[[Request], None], path: str = "*") -> Callable[[], None]:
        """Call back before each request whose decoded path matches a pattern; returns how to end that."""
        return self._journal.on_request(callback, path)

    def start(self) -> None:
        """Open the port and serve until `stop()`."""
        with self._lock:
            if self._http is not None:
                raise RuntimeError("the simulated registry is running already")
            self._http = HttpServer(self._answer, port=self._wanted_port, context=self._context())
        self._begin(self.host)
        self._http.start()

    def stop(self) -> None:
        """Close the port and every connection; harmless if it is not running."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _context(self) -> ssl.SSLContext | None:
        if not self._tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        hosts = dict.fromkeys((self._hostname, "localhost", "127.0.0.1"))
        self._authority.issue(*hosts, defect=self._defect).load_into(context)
        return context


class DtrServer(Server):
    """Serve a simulated DTR over a `Backend`, by default an empty `InMemoryRegistry`.

    Without `accounts` there is one, an admin with a random password. A `flaw` spoils the server's
    certificate. `clock` gives the seconds by which tokens expire; other `tokens` are accepted in place of its own. Without a
    `notary` it is the registry's own, or an empty one.
    """

    def __init__(
        self,
        backend: Backend | None = None,
        *,
        accounts: Accounts | None = None,
        profile: Profile | None = None,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.time,
        tokens: Tokens | None = None,
        hostname: str = "localhost",
        port: int = 0,
        tls: bool = True,
        public_host: str = "",
        authority: CertificateAuthority | None = None,
        defect: Defect | None = None,
        notary: Notary | None = None,
    ) -> None:
        journal = Journal()
        super().__init__(
            journal,
            hostname=hostname,
            port=port,
            tls=tls,
            public_host=public_host,
            authority=authority,
            defect=defect,
        )
        self.backend = backend if backend is not None else InMemoryRegistry()
        own = self.backend.notary if isinstance(self.backend, InMemoryRegistry) else None
        self.notary = notary or own or Notary()
        self.accounts = accounts or Accounts([Account(ADMIN, secrets.token_urlsafe(18), is_admin=True)])
        self._api = DtrApi(
            self.backend,
            self.accounts,
            ca_pem=self.ca_bundle,
            profile=profile,
            faults=faults,
            clock=clock,
            tokens=tokens,
            journal=journal,
            notary=self.notary,
        )

    @property
    def admin(self) -> Account:
        """The first active admin, with the password as it is at the moment."""
        return self.accounts.admin

    @property
    def faults(self) -> Faults:
        """What goes wrong at present; assigning starts every count of calls anew."""
        return self._api.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._api.faults = faults

    def revoke_tokens(self) -> None:
        """Refuse every bearer token given out so far."""
        self._api.tokens.revoke_all()

    def _answer(self, request: Request) -> Response:
        return self._api.answer(request)

    def _begin(self, host: str) -> None:
        self._api.host = host
        if isinstance(self.backend, InMemoryRegistry) and not self.backend.domain:
            self.backend.domain = host


class HarborServer(Server):
    """Serve what is no DTR: a Harbor, also known as MSR 4."""

    def __init__(self, *, portal: bool = True, hostname: str = "localhost") -> None:
        journal = Journal()
        super().__init__(journal, hostname=hostname)
        self._api = HarborApi(portal=portal, journal=journal)

    def _answer(self, request: Request) -> Response:
        return self._api.answer(request)

    def _begin(self, host: str) -> None:
        self._api.host = host
