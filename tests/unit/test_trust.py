"""What the verification of signatures holds at a time."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from dtr_audit import trust
from dtr_audit.model import JudgedTag, Repository, RepositoryReading, Tag, TrustFlags, Verdict
from dtr_audit.notary.client import NotaryClient
from dtr_audit.notary.policy import TrustPolicy
from dtr_audit.notary.reading import Outcome, TrustReading

DOMAIN = "dtr.example.mil"
THREADS = 4


class Notary:
    def __init__(self, size: int) -> None:
        self.body = bytes(size)

    def fetch(self, gun: str, name: str) -> bytes:
        return self.body


class Parsing:
    """A verification that fetches one document and takes its time, and counts how many do so at once."""

    def __init__(self, *, fails: bool = False) -> None:
        self._lock = threading.Lock()
        self._fails = fails
        self._now = 0
        self.most = 0
        self.calls = 0

    def __call__(self, source: Any, gun: str, *_: object, **__: object) -> TrustReading:
        source.fetch(gun, "targets")
        source.fetch(gun, "targets/releases")
        with self._lock:
            self.calls += 1
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        with self._lock:
            self._now -= 1
        if self._fails:
            raise RuntimeError("a fault of ours")
        return TrustReading(gun, Outcome.NO_TRUST_DATA, "none", None)


def reading(number: int) -> RepositoryReading:
    flags = TrustFlags(DOMAIN, False, False)
    tag = Tag("1.0", "sha256:" + 64 * "0", "", "", "", None, (flags,))
    judged = JudgedTag(tag, Verdict.UNSIGNED, "", flags)
    return RepositoryReading(Repository("pay", f"api-{number}"), (judged,))


def verify_at_once(parsing: Parsing, size: int, monkeypatch: pytest.MonkeyPatch, memories: Mapping[str, str]) -> int:
    monkeypatch.setattr(trust, "verify", parsing)
    monkeypatch.setattr(trust, "parse_memory", lambda _: None)
    verifier = trust.TrustVerifier(cast(NotaryClient, Notary(size)), TrustPolicy(), at=datetime.now(UTC))
    with ThreadPoolExecutor(THREADS) as pool:
        for verified in [pool.submit(verifier.verify, reading(number), memories) for number in range(THREADS)]:
            verified.exception()
    return parsing.most


def test_of_large_documents_one_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify_at_once(Parsing(), trust.LARGE_BYTES + 1, monkeypatch, {}) == 1
    assert verify_at_once(Parsing(), 1, monkeypatch, {DOMAIN: " " * (trust.LARGE_MEMORY + 1)}) == 1


def test_small_documents_do_not_wait_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify_at_once(Parsing(), trust.LARGE_BYTES, monkeypatch, {DOMAIN: " " * trust.LARGE_MEMORY}) > 1


def test_a_fault_with_a_large_document_lets_the_next_one_through(monkeypatch: pytest.MonkeyPatch) -> None:
    parsing = Parsing(fails=True)
    verify_at_once(parsing, trust.LARGE_BYTES + 1, monkeypatch, {})
    assert parsing.calls == THREADS
