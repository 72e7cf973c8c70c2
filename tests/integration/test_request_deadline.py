"""One deadline ends a request, in each part of an answer, even while bytes arrive."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dtr_audit.errors import AuditError, OutOfTimeError, RegistryError
from dtr_audit.http import connection as https_connection
from dtr_audit.http import exchange, transport
from dtr_audit.http.transport import SLOW_ATTEMPTS, Transport
from dtr_audit.http.watchdog import WATCHDOG
from dtr_audit_simulator.dtr.fault_kinds import EVERY_CALL, Part, Slow, Unending
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited

FAR = 600.0  # seconds; no test lasts so long
SOON = 0.5  # seconds; ten times what connecting takes beside two busy loops
DRIP = 0.02  # seconds
IN_THE_HEAD = (Part.STATUS, Part.INTERIM, Part.HEADER, Part.HEADERS)
IN_THE_BODY = (Part.CHUNK_SIZE, Part.BODY, Part.BODY_WITHOUT_LENGTH, Part.TRAILERS)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every request end soon."""
    monkeypatch.setattr(transport, "REQUEST_SECONDS", SOON)


def connect(url: str, ca_bundle: str, *, seconds: float = FAR) -> Transport:
    return Transport(url, ca_bundle=ca_bundle, x509_strict=True, connections=2, stop_at=time.monotonic() + seconds)


@contextlib.contextmanager
def connected(dtr: DtrServer, *, seconds: float = FAR) -> Iterator[Transport]:
    with contextlib.closing(connect(dtr.url, dtr.ca_bundle, seconds=seconds)) as transport:
        yield transport


@pytest.mark.parametrize("part", Part)
@pytest.mark.usefixtures("soon")
def test_request_whose_answer_drips_without_end_ends_at_its_deadline(
    dtr: DtrServer, monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    dtr.faults = Faults(on_calls=(Unending(part, EVERY_CALL.limited(times=1), pause=DRIP),))
    missing = "whole head of an answer" if part in IN_THE_HEAD else "end of the answer"
    with connected(dtr) as client:
        with pytest.raises(RegistryError, match=rf"GET /health: no {missing} came within {SOON} s"):
            client.get("/health", is_optional=True)
        # What still drips there is never taken for the next answer.
        monkeypatch.setattr(transport, "REQUEST_SECONDS", FAR)
        assert client.get("/health").status == 200
    assert dtr.connections == 2
    assert WATCHDOG.count() == 0


@pytest.mark.parametrize("part", Part)
def test_request_whose_answer_floods_without_end_ends_at_its_limit_of_bytes(
    dtr: DtrServer, monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    monkeypatch.setattr(exchange, "BODY_BYTES", 1024 * 1024)
    dtr.faults = Faults(on_calls=(Unending(part, EVERY_CALL.limited(times=1)),))
    with connected(dtr) as connection:
        with pytest.raises(RegistryError) as refused:
            connection.get("/health", is_optional=True)
        assert connection.get("/health").status == 200
    assert ("headers" in str(refused.value)) is (part in IN_THE_HEAD)


@pytest.mark.usefixtures("soon")
def test_request_that_missed_its_deadline_is_tried_again_like_any_broken_one(dtr: DtrServer) -> None:
    call_fault = Unending(Part.HEADER, EVERY_CALL.limited(times=1), pause=DRIP)
    dtr.faults = Faults(on_calls=(call_fault,))
    with connected(dtr) as transport:
        assert transport.get("/health").status == 200
    assert len(dtr.requests) == 2


@pytest.mark.usefixtures("soon")
def test_request_that_always_misses_its_deadline_is_tried_a_bounded_number_of_times(dtr: DtrServer) -> None:
    dtr.faults = Faults(on_calls=(Unending(Part.INTERIM, pause=DRIP),))
    with (
        connected(dtr) as transport,
        pytest.raises(RegistryError, match=rf"within {SOON} s \({SLOW_ATTEMPTS} attempts\)"),
    ):
        transport.get("/health")
    assert len(dtr.requests) == SLOW_ATTEMPTS


@pytest.mark.usefixtures("soon")
def test_post_that_missed_its_deadline_is_never_sent_twice(dtr: DtrServer) -> None:
    dtr.faults = Faults(on_calls=(Unending(Part.HEADERS, pause=DRIP),))
    with connected(dtr) as transport, pytest.raises(RegistryError, match="POST /health: no whole head"):
        transport.post("/health", b"{}")
    assert len(dtr.requests) == 1


@pytest.mark.parametrize("part", Part)
def test_request_under_way_when_the_run_is_over_ends_with_it(dtr: DtrServer, part: Part) -> None:
    dtr.faults = Faults(on_calls=(Unending(part, pause=DRIP),))
    with connected(dtr, seconds=SOON) as transport, pytest.raises(OutOfTimeError):
        transport.get("/health")
    assert len(dtr.requests) == 1


def test_answer_that_is_only_slow_is_read_to_its_end(dtr: DtrServer) -> None:
    dtr.faults = Faults(on_calls=(Slow(head_pause=0.001, body_pause=0.001),))
    with connected(dtr) as transport:
        assert transport.get("/health").status == 200


@dataclass
class Peer:
    """Accepts connections, sends a first piece, and then another one again and again; or says nothing at all."""

    first: bytes = b""
    piece: bytes = b""

    def __enter__(self) -> "Peer":
        self._closing = threading.Event()
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        # A connection of its own wakes it up.
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        for connection in (self._listener, *self._connections):
            connection.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            connection, _ = self._listener.accept()
            self._connections.append(connection)
            with contextlib.suppress(OSError):
                connection.sendall(self.first)
                while self.piece and not self._closing.wait(DRIP):
                    connection.sendall(self.piece)


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(Peer(), id="silent"),
        # The header of a TLS record of a handshake of 16 KiB, of which one byte comes after the other.
        pytest.param(Peer(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"\x03"), id="dripping"),
    ],
)
@pytest.mark.usefixtures("soon")
def test_tls_handshake_that_never_ends_ends_at_the_deadline(dtr: DtrServer, peer: Peer) -> None:
    with (
        peer,
        contextlib.closing(connect(f"https://localhost:{peer.port}", dtr.ca_bundle)) as transport,
        pytest.raises(AuditError, match=rf"no whole head of an answer came within {SOON} s"),
    ):
        transport.get("/health", is_optional=True)
    assert WATCHDOG.count() == 0


@pytest.mark.parametrize(
    ("first", "piece"),
    [(b"HTTP/1.1 20", b"0"), (b"HTTP/1.1 200 OK\r\nX-Filler: ", b"x"), (b"HTTP/1.1 200 OK\r\n", b"X-Filler: x\r\n")],
)
@pytest.mark.usefixtures("soon")
def test_proxy_whose_answer_never_ends_ends_at_the_deadline(
    dtr: DtrServer, monkeypatch: pytest.MonkeyPatch, first: bytes, piece: bytes
) -> None:
    with Peer(first, piece) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        with connected(dtr) as transport, pytest.raises(RegistryError, match="no whole head of an answer came within"):
            transport.get("/health", is_optional=True)
    assert dtr.requests == ()


def test_proxy_whose_answer_is_too_large_is_refused(dtr: DtrServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https_connection, "HEAD_BYTES", 4_096)
    with Peer(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 1_000) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        with connected(dtr) as transport, pytest.raises(RegistryError, match="headers"):
            transport.get("/health", is_optional=True)


@pytest.mark.usefixtures("soon")
def test_repository_whose_headers_drip_is_unread_and_the_run_incomplete(audited: Audited, dtr: DtrServer) -> None:
    dtr.faults = Faults(on_calls=(Unending(Part.HEADER, pause=DRIP),))
    run = audited.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert "no whole head of an answer came within" in run["incomplete_because"][0]
