"""What the verification of signatures holds at a time."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from dtr_audit.core.model import JudgedTag, Repository, RepositoryReading, Tag, TrustFlags, Verdict
from dtr_audit.http import memory_budget
from dtr_audit.trust import tags
from dtr_audit.trust.notary.client import NotaryClient
from dtr_audit.trust.notary.policy import TrustPolicy
from dtr_audit.trust.notary.reading import Outcome, TrustReading

DOMAIN = "dtr.example.mil"
THREADS = 4


class Notary:
    def __init__(self, size: int, parsing: "Parsing") -> None:
        self.body = bytes(size)
        self._parsing = parsing

    def fetch(self, gun: str, name: str, charge: object) -> bytes:
        return self.body

    def check_time(self) -> None:
        self._parsing.note_waiting()


class Parsing:
    """A verification that fetches documents, and counts how many do so at once.

    None ends before each of the other threads parses too, or waits for room.
    """

    def __init__(self, *, fails: bool = False) -> None:
        self._changed = threading.Condition()
        self._fails = fails
        self._now = 0
        self._left = THREADS
        self._waiting: set[int] = set()
        self.most = 0
        self.calls = 0

    def note_waiting(self) -> None:
        with self._changed:
            self._waiting.add(threading.get_ident())
            self._changed.notify_all()

    def __call__(self, source: Any, gun: str, *_: object, **__: object) -> TrustReading:
        source.fetch(gun, "targets")
        source.fetch(gun, "targets/releases")
        with self._changed:
            self._waiting.discard(threading.get_ident())
            self.calls += 1
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._now + len(self._waiting) == self._left)
            self._now -= 1
            self._left -= 1
            self._changed.notify_all()
        if self._fails:
            raise RuntimeError("a fault of ours")
        return TrustReading(gun, Outcome.NO_TRUST_DATA, "none", None)


def reading(number: int) -> RepositoryReading:
    flags = TrustFlags(DOMAIN, False, False)
    tag = Tag("1.0", "sha256:" + 64 * "0", "", "", "", None, (flags,))
    judged = JudgedTag(tag, Verdict.UNSIGNED, "", flags)
    return RepositoryReading(Repository("pay", f"api-{number}"), (judged,))


def verify_at_once(parsing: Parsing, size: int, monkeypatch: pytest.MonkeyPatch, memories: Mapping[str, str]) -> int:
    monkeypatch.setattr(tags, "verify", parsing)
    monkeypatch.setattr(tags, "parse_memory", lambda _: None)
    monkeypatch.setattr(memory_budget, "CHECK_SECONDS", 0.01)
    verifier = tags.TrustVerifier(cast(NotaryClient, Notary(size, parsing)), TrustPolicy(), at=datetime.now(UTC))
    with ThreadPoolExecutor(THREADS) as pool:
        for verified in [pool.submit(verifier.verify, reading(number), memories) for number in range(THREADS)]:
            verified.exception()
    return parsing.most


LARGE = memory_budget.SHARED_BYTES // 20  # bytes of a document: parsed, it takes more than the shared bytes


def test_trust_data_that_is_large_is_held_for_one_repository_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify_at_once(Parsing(), LARGE, monkeypatch, {}) == 1
    assert memory_budget.BUDGET.charged == 0


def test_trust_data_that_is_small_is_held_for_several_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify_at_once(Parsing(), 1_000, monkeypatch, {DOMAIN: " " * 1_000}) == THREADS
    assert memory_budget.BUDGET.charged == 0


def test_trust_data_that_is_large_and_fails_lets_the_next_one_through(monkeypatch: pytest.MonkeyPatch) -> None:
    parsing = Parsing(fails=True)
    verify_at_once(parsing, LARGE, monkeypatch, {})
    assert parsing.calls == THREADS
    assert memory_budget.BUDGET.charged == 0
