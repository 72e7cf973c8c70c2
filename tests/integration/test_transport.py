"""How long is waited, and when a token is renewed: on a clock that the test holds."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from dtr_audit.credentials import Credentials
from dtr_audit.dtr import DtrClient, Listing
from dtr_audit.errors import OutOfTimeError, RegistryError
from dtr_audit.model import Repository
from dtr_audit.transport import ATTEMPTS, BACKOFF_LIMIT_SECONDS, Transport

from local.dtr.faults import API, EVERY_CALL, Faults, Status
from local.dtr.registry import InMemoryRegistry
from local.dtr.server import DtrServer

HEALTH = EVERY_CALL.limited(times=1)


class HeldClock:
    """Time goes on only where somebody waits, or the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Source:
    def __init__(self, dtr: DtrServer) -> None:
        self._dtr = dtr

    def fetch(self, *, fresh: bool = False) -> Credentials:
        del fresh
        return Credentials(self._dtr.admin.name, self._dtr.admin.password, self._dtr.ca_bundle)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def transport(dtr: DtrServer, clock: HeldClock) -> Iterator[Transport]:
    transport = Transport(dtr.url, ca_bundle=dtr.ca_bundle, x509_strict=True, connections=1, stop_at=600.0, clock=clock)
    yield transport
    transport.close()


@pytest.fixture
def client(dtr: DtrServer, registry: InMemoryRegistry, clock: HeldClock) -> Iterator[DtrClient]:
    registry.push("web", "shop", "1")
    client = DtrClient(
        dtr.url, Source(dtr), x509_strict=True, concurrency=1, page_size=100, stop_at=100_000.0, clock=clock
    )
    client.connect()
    yield client
    client.close()


def test_retry_after_is_honoured_in_seconds(dtr: DtrServer, transport: Transport, clock: HeldClock) -> None:
    dtr.faults = Faults(strikes=(Status(429, HEALTH, retry_after="7"),))
    assert transport.get("/health").status == 200
    assert len(clock.waits) == 1
    assert 7.0 <= clock.waits[0] <= 7.5


def test_retry_after_is_honoured_as_a_date(dtr: DtrServer, transport: Transport, clock: HeldClock) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    dtr.faults = Faults(strikes=(Status(503, HEALTH, retry_after=then),))
    assert transport.get("/health").status == 200
    assert 50.0 <= clock.waits[0] <= 60.0


def test_a_fault_that_stays_is_asked_a_bounded_number_of_times(
    dtr: DtrServer, transport: Transport, clock: HeldClock
) -> None:
    dtr.faults = Faults(strikes=(Status(502),))
    assert transport.get("/health").status == 502
    assert len(dtr.requests) == ATTEMPTS
    assert len(clock.waits) == ATTEMPTS - 1
    assert all(0.0 <= wait <= BACKOFF_LIMIT_SECONDS for wait in clock.waits)


def test_nothing_is_asked_once_the_time_is_up(dtr: DtrServer, transport: Transport, clock: HeldClock) -> None:
    clock.now = 600.0
    with pytest.raises(OutOfTimeError):
        transport.get("/health")
    assert dtr.requests == ()


def test_no_wait_outlasts_the_time(dtr: DtrServer, transport: Transport, clock: HeldClock) -> None:
    clock.now = 595.0
    dtr.faults = Faults(strikes=(Status(503, retry_after="10"),))
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
        dtr.url, ca_bundle=dtr.ca_bundle, x509_strict=True, connections=1, stop_at=600.0, clock=HeldClock()
    )
    with pytest.raises(RegistryError, match="HTTPS_PROXY"):
        transport.get("/health")
    transport.close()
    assert dtr.requests == ()


def test_a_token_is_renewed_before_its_life_ends(dtr: DtrServer, client: DtrClient, clock: HeldClock) -> None:
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
    client.prove_admin()
