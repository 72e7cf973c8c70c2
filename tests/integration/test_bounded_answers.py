"""What a registry, its Notary and UCP answer is bounded in bytes, for all of them together."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from dtr_audit.core.credentials import Credentials
from dtr_audit.core.model import Repository
from dtr_audit.errors import OutOfTimeError, RegistryError
from dtr_audit.http import memory_budget, transport
from dtr_audit.http.body import ERROR_BYTES
from dtr_audit.http.memory_budget import SHARED_BYTES, MemoryBudget
from dtr_audit.http.transport import Transport
from dtr_audit.registry import artifacts, dtr, ucp
from dtr_audit.registry.dtr import PAGE_BYTES, WHOLE_LIST_BYTES, DtrClient
from dtr_audit.trust import tags
from dtr_audit.trust.notary import client as notary_client
from dtr_audit_simulator.dtr.fault_kinds import ALL_TAGS, Body, GzipBomb, Gzipped
from dtr_audit_simulator.dtr.faults import SETTINGS, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited

REPOSITORIES = 60
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def budget(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBudget]:
    """A budget of this test's own, which is empty at its end."""
    budget = MemoryBudget()
    for module in (memory_budget, transport, artifacts, dtr, notary_client, tags, ucp):
        monkeypatch.setattr(module, "BUDGET", budget)
    yield budget
    assert budget.charged == 0


class Secret:
    def __init__(self, dtr: DtrServer) -> None:
        self._dtr = dtr

    def fetch(self, *, fresh: bool = False) -> Credentials:
        return Credentials(self._dtr.admin.name, self._dtr.admin.password, self._dtr.ca_bundle)


@contextlib.contextmanager
def connected(server: DtrServer, *, page_size: int = 100, seconds: float = 600.0) -> Iterator[DtrClient]:
    stop_at = time.monotonic() + seconds
    client = DtrClient(
        server.url, Secret(server), x509_strict=True, concurrency=4, page_size=page_size, stop_at=stop_at
    )
    with contextlib.closing(client):
        client.connect()
        yield client


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(GzipBomb(31 * MIB, ALL_TAGS, element=b"[],"), id="31 MiB of lists"),
        pytest.param(GzipBomb(60_000, ALL_TAGS, element=b"[],"), id="60 KB of lists"),
        pytest.param(GzipBomb(2 * MIB, ALL_TAGS, element=b'[],"123456789012",'), id="2 MiB as dense as is let through"),
    ],
)
def test_sixty_repositories_that_answer_with_structure_are_unread_within_the_budget(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, budget: MemoryBudget, bomb: GzipBomb
) -> None:
    for number in range(REPOSITORIES):
        registry.push("team", f"s{number:02d}", "1")
        registry.sign("team", f"s{number:02d}", "1")
    dtr.faults = Faults(on_calls=(bomb,))
    run = audited.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert run["repositories"]["unreadable"] == REPOSITORIES
    assert run["tags"]["audited"] == 0
    assert 0 < budget.peak <= SHARED_BYTES + PAGE_BYTES


def test_list_that_comes_whole_is_read_though_a_page_was_asked_for(
    registry: InMemoryRegistry, dtr: DtrServer, budget: MemoryBudget
) -> None:
    for number in range(3_000):
        registry.push("team", "tool", f"1.{number}")
    dtr.faults = Faults(paging_ignored=ALL_TAGS)
    with connected(dtr, page_size=10) as client:
        reading = client.tags(Repository("team", "tool"), dtr.host)
    assert (reading.problem, len(reading.tags)) == ("", 3_000)
    assert budget.peak > SHARED_BYTES // 4


@pytest.mark.parametrize(("page_size", "is_read"), [(10, False), (1_000, True)])
def test_limit_of_an_answer_follows_from_the_page_size(dtr: DtrServer, page_size: int, is_read: bool) -> None:
    body = b"[" + b" " * (WHOLE_LIST_BYTES + MIB // 2) + b"]"
    dtr.faults = Faults(on_calls=(Body(body, ALL_TAGS), Gzipped(ALL_TAGS)))
    with connected(dtr, page_size=page_size) as client:
        problem = client.tags(Repository("team", "tool"), dtr.host).problem
    assert ("larger than" in problem) is not is_read


@pytest.mark.parametrize("gzipped", [False, True])
def test_body_of_an_error_is_read_no_further_than_its_status_needs(
    dtr: DtrServer, budget: MemoryBudget, gzipped: bool
) -> None:
    large = Body(b'{"errors": "' + b"x" * MIB + b'"}', status=500)
    dtr.faults = Faults(on_calls=(large, Gzipped()) if gzipped else (large,))
    stop_at = time.monotonic() + 600
    asking = Transport(dtr.url, ca_bundle=dtr.ca_bundle, x509_strict=True, connections=1, stop_at=stop_at)
    with contextlib.closing(asking):
        answer = asking.get("/health", limit=8 * MIB)
        assert answer.status == 500
        assert len(answer.body) <= ERROR_BYTES
        dtr.faults = Faults()
        assert asking.get("/health").status == 200
    assert budget.peak == 0


def test_answer_of_another_kind_than_a_list_is_small(dtr: DtrServer) -> None:
    dtr.faults = Faults(on_calls=(Body(b" " * 300_000, SETTINGS),))
    with pytest.raises(RegistryError, match="larger than"), connected(dtr):
        pass


def test_gzip_that_becomes_nothing_ends(dtr: DtrServer) -> None:
    nothing = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\x00\x00\x00\xff\xff" * 100_000
    stop_at = time.monotonic() + 600
    dtr.faults = Faults(on_calls=(Body(nothing, encoding="gzip"),))
    asking = Transport(dtr.url, ca_bundle=dtr.ca_bundle, x509_strict=True, connections=1, stop_at=stop_at)
    with contextlib.closing(asking), pytest.raises(RegistryError, match="larger than"):
        asking.get("/health")


def test_wait_for_room_ends_with_the_run(
    registry: InMemoryRegistry, dtr: DtrServer, budget: MemoryBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "CHECK_SECONDS", 0.01)
    registry.push("team", "tool", "1")
    with (
        budget.charge(SHARED_BYTES) as shared,
        budget.large_charge(PAGE_BYTES, lambda: None),
        connected(dtr, seconds=1.0) as client,
    ):
        shared.grow(SHARED_BYTES, lambda: None)
        waiting: list[BaseException] = []

        def read() -> None:
            try:
                client.tags(Repository("team", "tool"), dtr.host)
            except OutOfTimeError as error:
                waiting.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        reader.join()
    assert [type(error) for error in waiting] == [OutOfTimeError]


def test_text_that_waits_for_room_ends_with_the_request(
    dtr: DtrServer, budget: MemoryBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(transport, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(transport, "ATTEMPTS", 2)
    dtr.faults = Faults(on_calls=(Body(b"[" + b" " * 500_000 + b"]", ALL_TAGS),))
    problems: list[str] = []
    with (
        budget.charge(SHARED_BYTES) as shared,
        budget.large_charge(PAGE_BYTES, lambda: None),
        connected(dtr) as client,
    ):
        shared.grow(SHARED_BYTES, lambda: None)
        reader = threading.Thread(
            target=lambda: problems.append(client.tags(Repository("team", "tool"), dtr.host).problem)
        )
        reader.start()
        reader.join()
    assert len(problems) == 1
    assert "no end of the answer came within 0.2 s (2 attempts)" in problems[0]
