"""A registry that degrades under load gets less of it, and all of it again when it has recovered."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from dtr_audit.http.transport import ATTEMPTS, Transport
from dtr_audit_simulator.dtr.fault_kinds import ALL_TAGS, EVERY_CALL, Overload, Slow, Status
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.transport import Request
from tests.harness.audit_harness import Audited
from tests.harness.fake_clock import FakeClock

MOST = 16
THREADS = 24


class Reader:
    """Asks with more threads than there are turns, as the audit does."""

    def __init__(self, dtr: DtrServer, clock: FakeClock | None = None) -> None:
        self._dtr = dtr
        self.transport = Transport(
            dtr.url, ca_bundle=dtr.ca_bundle, x509_strict=True, connections=MOST, stop_at=float("inf"), clock=clock
        )
        self.problems: list[Exception] = []

    def read(self, requests: int) -> int:
        """Ask so many times; gives how many of it were under way at once, at the most."""
        left = iter(range(requests))
        taking = threading.Lock()

        def work() -> None:
            while True:
                with taking:
                    if next(left, None) is None:
                        return
                try:
                    self.transport.get("/health")
                except Exception as error:  # noqa: BLE001 - held against what is expected
                    self.problems.append(error)

        self._dtr.take_busiest()
        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._dtr.take_busiest()


class SharedSleep(FakeClock):
    """A minute passes when every thread of a reader waits for it, and not before."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()  # once a thread sleeps
        self._together = threading.Barrier(THREADS, action=self._let_a_minute_pass)

    def _let_a_minute_pass(self) -> None:
        self.now += 61.0

    def sleep(self, seconds: float) -> None:
        self.begun.set()
        self._together.wait()


@pytest.fixture
def reader(dtr: DtrServer) -> Iterator[Reader]:
    reader = Reader(dtr)
    yield reader
    reader.transport.close()


def test_a_registry_that_is_always_slow_gets_all_that_the_setting_allows(dtr: DtrServer) -> None:
    clock = FakeClock()
    reader = Reader(dtr, clock)

    def answer_together(at_once: int) -> Callable[[], None]:
        together = threading.Barrier(at_once, action=lambda: clock.sleep(0.2))

        def wait(_: Request) -> None:
            together.wait()

        return dtr.on_request(wait)

    # Each answer waits until as many more are asked for as may be: fewer would never be answered.
    for at_once, requests in ((MOST // 2, MOST // 2), (MOST, 20 * MOST)):
        end = answer_together(at_once)
        assert reader.read(requests) == at_once
        end()
    reader.transport.close()
    assert reader.problems == []


def test_a_registry_that_slows_down_under_load_gets_less_and_all_again_afterwards(
    dtr: DtrServer, reader: Reader
) -> None:
    dtr.faults = Faults(on_calls=(Slow(delay=0.02),))
    assert reader.read(10 * MOST) == MOST
    dtr.faults = Faults(on_calls=(Overload(workers=2, seconds=0.03, thrash=0.2),))
    reader.read(8 * MOST)
    during = reader.read(4 * MOST)
    assert during <= MOST // 2
    dtr.faults = Faults(on_calls=(Slow(delay=0.02),))
    reader.read(40 * MOST)
    # All of it again, on a machine that does nothing else; on any machine, more than during the overload.
    assert reader.read(2 * MOST) > during
    assert reader.problems == []


def test_a_registry_that_refuses_under_load_answers_in_the_end(dtr: DtrServer, reader: Reader) -> None:
    dtr.faults = Faults(on_calls=(Overload(workers=2, seconds=0.02, most=4),))
    reader.read(4 * MOST)
    dtr.forget_requests()
    busiest = reader.read(4 * MOST)
    assert busiest <= MOST // 2
    refused = [record for record in dtr.requests if record.status == 503]
    assert len(refused) < len(dtr.requests) / 3, "most of what is asked is answered"
    assert reader.problems == []


def test_all_wait_whom_one_was_asked_to_wait(dtr: DtrServer) -> None:
    clock, asked_at = SharedSleep(), list[float]()
    reader = Reader(dtr, clock)
    dtr.faults = Faults(on_calls=(Status(429, EVERY_CALL.limited(times=1), retry_after="60"),))
    reader.transport.post("/health")
    refused_at = clock.now
    dtr.on_request(lambda _: asked_at.append(clock.now))
    reader.read(THREADS)
    assert len(asked_at) == THREADS
    assert min(asked_at) >= refused_at + 60
    reader.transport.close()
    assert reader.problems == []


def test_all_wait_who_were_waiting_for_a_turn_when_one_was_asked_to_wait(dtr: DtrServer) -> None:
    clock, asked_at = SharedSleep(), list[float]()
    reader = Reader(dtr, clock)
    dtr.faults = Faults(on_calls=(Status(429, EVERY_CALL.limited(after=MOST, times=1), retry_after="60"),))
    began = clock.now

    def note(_: Request) -> None:
        asked_at.append(clock.now)
        if len(asked_at) > MOST + 1:
            clock.begun.wait()  # the refusal has been read, however slow its thread is

    dtr.on_request(note)
    reader.read(8 * MOST)
    # Before the refusal there were as many as were spared, and as many more as were under way when it came.
    assert len([at for at in asked_at if at < began + 60]) <= 2 * MOST
    assert len(asked_at) == 8 * MOST + 1
    reader.transport.close()
    assert reader.problems == []


@pytest.mark.parametrize("trust", ["registry", "signatures"])
def test_registry_and_notary_together_get_no_more_at_once_than_the_setting_allows(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, trust: str
) -> None:
    for number in range(40):
        registry.push("web", f"r{number}", "1", at=datetime(2026, 1, 1, tzinfo=UTC).isoformat())
        registry.sign("web", f"r{number}", "1")
    dtr.faults = Faults(on_calls=(Slow(delay=0.05),))
    dtr.take_busiest()
    run = audited.audit(CONCURRENCY="8", TRUST_VERIFICATION=trust, DTR_DOMAINS=dtr.host)
    assert run["tags"]["audited"] == 40
    assert dtr.take_busiest() <= 8


def test_an_audit_of_a_registry_that_refuses_under_load_is_complete(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    for number in range(80):
        registry.push("web", f"r{number}", "1", at=datetime(2026, 1, 1, tzinfo=UTC).isoformat())
        registry.sign("web", f"r{number}", "1")
    dtr.faults = Faults(on_calls=(Overload(workers=2, seconds=0.02, calls=ALL_TAGS, most=5),))
    run = audited.audit(CONCURRENCY=str(MOST))
    assert run["complete"] is True
    assert run["status"] == "NOT_A_FINDING"
    assert run["tags"]["signed"] == 80
    refused = [record for record in dtr.requests if record.status == 503]
    assert 0 < len(refused) < 80 * (ATTEMPTS - 1) / 2
