"""How long is waited, and when a token is renewed: on a clock that the test holds."""

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dtr_audit.core.credentials import Credentials
from dtr_audit.core.model import Repository
from dtr_audit.core.readings import Listing
from dtr_audit.errors import AuthenticationError, OutOfTimeError, RegistryError, SettingsError
from dtr_audit.http.transport import ATTEMPTS, BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS, Transport
from dtr_audit.registry.dtr import DtrClient
from dtr_audit.registry.session import ROTATION_SECONDS
from dtr_audit_simulator.dtr.fault_kinds import EVERY_CALL, Calls, Closed, Gzipped, Status
from dtr_audit_simulator.dtr.faults import API, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.authority import CertificateAuthority

HEALTH = EVERY_CALL.limited(times=1)
STOP_AT = 100_000.0


class StoppedClock:
    """Time goes on only where somebody waits, or the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Secret:
    """The account's password as it was when the test began, until the present one arrives."""

    def __init__(self, dtr: DtrServer, clock: StoppedClock) -> None:
        self._dtr = dtr
        self._clock = clock
        self.password = dtr.admin.password
        self.arrives_at = float("inf")
        self.readings = 0

    def fetch(self, *, fresh: bool = False) -> Credentials:
        assert fresh is bool(self.readings)
        self.readings += 1
        if self._clock.now >= self.arrives_at:
            self.password = self._dtr.admin.password
        return Credentials(self._dtr.admin.name, self.password, self._dtr.ca_bundle)


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def transport(dtr: DtrServer, clock: StoppedClock) -> Iterator[Transport]:
    transport = Transport(dtr.url, ca_bundle=dtr.ca_bundle, x509_strict=True, connections=1, stop_at=600.0, clock=clock)
    yield transport
    transport.close()


@pytest.fixture
def secret(dtr: DtrServer, clock: StoppedClock) -> Secret:
    return Secret(dtr, clock)


@pytest.fixture
def stranger(dtr: DtrServer, registry: InMemoryRegistry, clock: StoppedClock, secret: Secret) -> Iterator[DtrClient]:
    """A client that has not logged in yet."""
    registry.push("web", "shop", "1")
    client = DtrClient(dtr.url, secret, x509_strict=True, concurrency=1, page_size=100, stop_at=STOP_AT, clock=clock)
    yield client
    client.close()


@pytest.fixture
def client(stranger: DtrClient) -> DtrClient:
    stranger.connect()
    return stranger


def test_retry_after_is_honoured_in_seconds(dtr: DtrServer, transport: Transport, clock: StoppedClock) -> None:
    dtr.faults = Faults(on_calls=(Status(429, HEALTH, retry_after="7"),))
    assert transport.get("/health").status == 200
    assert len(clock.waits) == 1
    assert 7.0 <= clock.waits[0] <= 7.5


def test_retry_after_is_honoured_as_a_date(dtr: DtrServer, transport: Transport, clock: StoppedClock) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=110), usegmt=True)
    dtr.faults = Faults(on_calls=(Status(503, HEALTH, retry_after=then),))
    assert transport.get("/health").status == 200
    assert 60.0 <= clock.waits[0] <= 110.0


@pytest.mark.parametrize(
    "absurd",
    [
        "Wed, 21 Oct 99999999999999999999 07:28:00 GMT",
        "Wed, 21 Oct 2026 99999999999999999999:28:00 GMT",
        "Wed, 21 Oct 2026 07:28:00 +99999999999999",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "-7",
        "7.5",
        "\u00b2",
    ],
)
def test_an_absurd_retry_after_is_as_good_as_none(
    dtr: DtrServer, transport: Transport, clock: StoppedClock, absurd: str
) -> None:
    dtr.faults = Faults(on_calls=(Status(503, HEALTH, retry_after=absurd),))
    assert transport.get("/health").status == 200
    assert len(clock.waits) == 1
    assert clock.waits[0] <= BACKOFF_SECONDS


@pytest.mark.parametrize("absurd", ["9" * 64, "9" * 10_000, "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_retry_after_beyond_all_measure_is_not_waited_for(
    dtr: DtrServer, transport: Transport, clock: StoppedClock, absurd: str
) -> None:
    dtr.faults = Faults(on_calls=(Status(503, HEALTH, retry_after=absurd),))
    with pytest.raises(RegistryError, match="asks to come back"):
        transport.get("/health")
    assert clock.waits == []


@pytest.mark.parametrize(
    "more", [b"\0", b'{"Healthy": true}', gzip.compress(b"more", mtime=0)], ids=["a zero", "plain text", "more gzip"]
)
def test_what_follows_the_end_of_a_gzip_stream_is_refused(
    dtr: DtrServer, transport: Transport, clock: StoppedClock, more: bytes
) -> None:
    dtr.faults = Faults(on_calls=(Gzipped(followed_by=more),))
    with pytest.raises(RegistryError, match="goes on after the end of its gzip stream"):
        transport.get("/health")
    assert len(dtr.requests) == 1
    assert clock.waits == []


class HintingServer:
    """Sends an interim answer before the answer to `/hint`, which waits for `may_follow`; the body of an answer is its path."""

    def __init__(self) -> None:
        self.may_follow = threading.Event()
        self.followed = threading.Event()
        authority = CertificateAuthority("Hints CA")
        self.ca_bundle = authority.certificate_pem
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue("localhost").load_into(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secured:
            while head := secured.recv(65_536):
                path = head.split(b" ")[1]
                if path == b"/hint":
                    secured.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
                    self.may_follow.wait()
                try:
                    secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
                finally:
                    if path == b"/hint":
                        self.followed.set()


def test_an_interim_answer_is_never_taken_for_one_nor_what_follows_it_for_the_next(clock: StoppedClock) -> None:
    with contextlib.closing(HintingServer()) as server:
        transport = Transport(
            server.url, ca_bundle=server.ca_bundle, x509_strict=True, connections=1, stop_at=STOP_AT, clock=clock
        )
        with contextlib.closing(transport):
            assert transport.get("/before").body == b"/before"
            with pytest.raises(RegistryError, match=r"interim answer came in place of one \(103\)"):
                transport.get("/hint")
            server.may_follow.set()
            server.followed.wait()
            assert transport.get("/after").body == b"/after"


def test_a_question_on_which_nothing_hangs_is_asked_once_and_keeps_no_one_waiting(
    dtr: DtrServer, transport: Transport, clock: StoppedClock
) -> None:
    optional = Calls("/api/v0/imagescan/status")
    dtr.faults = Faults(on_calls=(Status(503, optional, retry_after="100"),))
    assert transport.get(optional.path, is_optional=True).status == 503
    assert transport.get("/health").status == 200
    dtr.faults = Faults(on_calls=(Closed(optional),))
    with pytest.raises(RegistryError, match=r"imagescan/status: (no answer|the TLS)[^(]*$"):
        transport.get(optional.path, is_optional=True)
    assert clock.waits == []
    assert len([record for record in dtr.requests if record.path == optional.path]) == 2


def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, clock: StoppedClock
) -> None:
    monkeypatch.setenv("https_proxy", "socks5://someone:must-never-leak@proxy.example:1080")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(SettingsError, match="HTTPS_PROXY") as refused:
        Transport("https://dtr.example", ca_bundle="", x509_strict=True, connections=1, stop_at=STOP_AT, clock=clock)
    assert "must-never-leak" not in str(refused.value)


def test_a_fault_that_stays_is_asked_a_bounded_number_of_times(
    dtr: DtrServer, transport: Transport, clock: StoppedClock
) -> None:
    dtr.faults = Faults(on_calls=(Status(502),))
    assert transport.get("/health").status == 502
    assert len(dtr.requests) == ATTEMPTS
    assert len(clock.waits) == ATTEMPTS - 1
    assert all(0.0 <= wait <= BACKOFF_LIMIT_SECONDS for wait in clock.waits)


def test_nothing_is_asked_once_the_time_is_up(dtr: DtrServer, transport: Transport, clock: StoppedClock) -> None:
    clock.now = 600.0
    with pytest.raises(OutOfTimeError):
        transport.get("/health")
    assert dtr.requests == ()


def test_no_wait_outlasts_the_time(dtr: DtrServer, transport: Transport, clock: StoppedClock) -> None:
    clock.now = 595.0
    dtr.faults = Faults(on_calls=(Status(503, retry_after="10"),))
    with pytest.raises(RegistryError, match="later than the time"):
        transport.get("/health")
    assert clock.waits == []


def test_the_proxy_of_the_environment_is_used_and_named_when_it_fails(
    dtr: DtrServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    transport = Transport(
        dtr.url, ca_bundle=dtr.ca_bundle, x509_strict=True, connections=1, stop_at=600.0, clock=StoppedClock()
    )
    with pytest.raises(RegistryError, match="HTTPS_PROXY"):
        transport.get("/health")
    transport.close()
    assert dtr.requests == ()


def test_a_token_is_renewed_before_its_life_ends(dtr: DtrServer, client: DtrClient, clock: StoppedClock) -> None:
    assert len(dtr.calls("/auth/token")) == 1
    clock.now = 239.0  # of the 300 seconds that the registry gives
    client.tags(Repository("web", "shop"), dtr.host)
    assert len(dtr.calls("/auth/token")) == 1
    clock.now = 241.0
    client.tags(Repository("web", "shop"), dtr.host)
    assert len(dtr.calls("/auth/token")) == 2
    assert not [call for call in dtr.requests if call.status == 401 and call.path != "/v2"]


def test_a_token_that_the_registry_forgot_is_renewed_once(dtr: DtrServer, client: DtrClient) -> None:
    dtr.faults = Faults(tokens_revoked=API.limited(times=1))
    assert [str(one) for one in client.repositories(Listing())] == ["web/shop"]
    assert len(dtr.calls("/auth/token")) == 2
    client.verify_admin()


def rotate(dtr: DtrServer) -> None:
    dtr.accounts.rotate_password(dtr.admin.name)
    dtr.revoke_tokens()


def refusals(dtr: DtrServer) -> int:
    """How often a password was tried that is not right: an account's lock is a few tries away."""
    return len([call for call in dtr.requests if call.status == 401 and call.authentication == "basic"])


@pytest.mark.parametrize("faults", [Faults(), Faults(basic_only=EVERY_CALL)], ids=["by token", "by password"])
def test_a_rotation_that_reaches_the_secret_after_the_registry_is_waited_for_once(
    dtr: DtrServer, stranger: DtrClient, secret: Secret, clock: StoppedClock, faults: Faults
) -> None:
    dtr.faults = faults
    stranger.connect()
    rotate(dtr)
    secret.arrives_at = clock.now + ROTATION_SECONDS
    assert [str(one) for one in stranger.repositories(Listing())] == ["web/shop"]
    stranger.verify_admin()
    assert clock.waits == [ROTATION_SECONDS]
    assert secret.readings == 2
    assert refusals(dtr) <= 3


@pytest.mark.parametrize("faults", [Faults(), Faults(basic_only=EVERY_CALL)], ids=["by token", "by password"])
def test_a_rotation_that_never_reaches_the_secret_ends_the_run_after_one_wait(
    dtr: DtrServer, stranger: DtrClient, secret: Secret, clock: StoppedClock, faults: Faults
) -> None:
    dtr.faults = faults
    stranger.connect()
    rotate(dtr)
    listing = Listing()
    assert list(stranger.repositories(listing)) == []
    assert "Put the present one into the secret" in listing.problem
    with pytest.raises(AuthenticationError):
        stranger.verify_admin()
    assert clock.waits == [ROTATION_SECONDS]
    assert secret.readings == 2
    assert refusals(dtr) <= 3


def test_a_password_that_is_wrong_from_the_start_is_not_waited_for(
    dtr: DtrServer, stranger: DtrClient, secret: Secret, clock: StoppedClock
) -> None:
    rotate(dtr)
    with pytest.raises(AuthenticationError, match="does not accept the credentials"):
        stranger.connect()
    assert clock.waits == []
    assert secret.readings == 2


def test_the_wait_for_a_rotation_never_outlasts_the_time(
    dtr: DtrServer, client: DtrClient, secret: Secret, clock: StoppedClock
) -> None:
    rotate(dtr)
    clock.now = STOP_AT - 2.0
    secret.arrives_at = STOP_AT
    with pytest.raises(OutOfTimeError):
        list(client.repositories(Listing()))
    assert clock.waits == [2.0]


def test_names_are_kept_once_however_many_repositories_a_namespace_has(
    registry: InMemoryRegistry, client: DtrClient
) -> None:
    for name in ("basket", "till"):
        registry.push("web", name, "1.0")
    found: dict[Repository, bool] = {}
    listing = Listing()
    listed = list(client.repositories(listing, found))
    assert listing.problem == ""
    assert sorted(map(str, listed)) == ["web/basket", "web/shop", "web/till"]
    assert found == dict.fromkeys(listed, False)
    assert all(one is other for one, other in zip(found, listed, strict=True))
    assert len({id(one.namespace) for one in listed}) == 1
