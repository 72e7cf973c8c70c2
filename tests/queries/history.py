"""Seven months of two registries as the function has left them, and beside it what was really in them at each run.

The truth is taken from the simulated registry itself, not from what the function wrote: the answers of the queries are
compared with what plain Python makes of it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dtr_audit.aws.archive import Archive
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.manifests import COSIGN_SIGNATURE, manifest_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited

FAILING = {"UNSIGNED", "MISMATCHED"}
AUTHORS = ("ci-platform", "j.marsh", "m.okafor", "'; DROP TABLE findings; --", 'a,b"c')
TEAMS = ("payments", "platform", "web")
_ARTIFACT = re.compile(r"sha256-[0-9a-f]{64}\.sig")

Name = tuple[str, str, str]  # namespace, repository, tag
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """One tag, as the registry had it when it was audited."""

    verdict: str | None
    digest: str
    author: str
    pushed_at: str
    cosign_signed: bool

    @property
    def failing(self) -> bool:
        return self.verdict in FAILING


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run that came to its end: its record as the function gave it, and what it had before it."""

    record: Mapping[str, Any]
    tags: Mapping[Name, Seen]

    @property
    def registry(self) -> str:
        return str(self.record["registry"])

    @property
    def run_id(self) -> str:
        return str(self.record["run_id"])

    @property
    def day(self) -> str:
        return f"{self.run_id[:4]}-{self.run_id[4:6]}-{self.run_id[6:8]}"

    @property
    def answers(self) -> bool:
        return bool(self.record["complete"] and self.record["scope"] == "full")


class Place:
    """A registry that changes, is audited, and remembers what each audit had before it."""

    def __init__(self, stack: Stack, runs: list[PastRun], *, seed: int) -> None:
        self.registry = InMemoryRegistry()
        self.server = DtrServer(self.registry)
        self.server.start()
        self.audited = Audited(stack, self.server)
        self.name = self.audited.name
        self._runs = runs
        self._random = random.Random(seed)
        self._numbers = 0

    def close(self) -> None:
        self.audited.close()
        self.server.stop()

    def audit(
        self,
        time: str,
        *,
        namespaces: Sequence[str] = (),
        unreadable: str = "",
        recorded: bool = True,
        owner: str = "",
    ) -> None:
        """Make the run that is due at `time`; it fails before its record is written unless that is to be."""
        self.audited.put_secret(username=self.server.admin.name, password=self.server.admin.password)
        event: dict[str, Any] = {"scheduled_time": time, "alerts": False}
        if namespaces:
            event["namespaces"] = list(namespaces)
        self.server.faults = Faults(on_calls=(Status(500, tags_of(unreadable)),)) if unreadable else Faults()
        if not recorded:
            with _records_refused(), pytest.raises(ConnectionError):
                self.audited.audit(event, request_id=owner)
            return
        record = self.audited.audit(event, request_id=owner)
        assert record["complete"] is not bool(unreadable)
        seen = {
            name: tag
            for name, tag in self._present()
            if (not namespaces or name[0] in namespaces) and f"{name[0]}/{name[1]}" != unreadable
        }
        self._runs.append(PastRun(record, seen))

    def _present(self) -> Iterator[tuple[Name, Seen]]:
        for entry in self.registry.repositories():
            for tag in self.registry.tags(entry.namespace, entry.name, self.server.host):
                verdict: str | None = "UNSIGNED"
                if _ARTIFACT.fullmatch(tag.name):
                    verdict = None
                elif tag.in_notary:
                    verdict = "MISMATCHED" if tag.hash_mismatch else "SIGNED"
                yield (
                    (entry.namespace, entry.name, tag.name),
                    Seen(verdict, tag.digest, tag.author, tag.updated_at, tag.cosign_signed),
                )

    def live(self, day: str, changes: int) -> None:
        """Let people push, sign, overwrite and delete."""
        for _ in range(changes):
            self._random.choice((self._push, self._push, self._overwrite, self._sign, self._sign, self._delete))(day)

    def push(self, namespace: str, name: str, tag: str, day: str, author: str = AUTHORS[0]) -> None:
        self._numbers += 1
        at = f"{day}T00:{self._numbers % 60:02d}:00.000Z"
        signature = manifest_of(str(self._numbers), COSIGN_SIGNATURE) if _ARTIFACT.fullmatch(tag) else None
        # Not by the random numbers that decide what people do.
        cosign_signed = self._numbers % 3 == 0
        self.registry.push(namespace, name, tag, author=author, at=at, manifest=signature, cosign_signed=cosign_signed)

    def _names(self) -> list[Name]:
        return [name for name, _ in self._present() if name[0] in TEAMS]

    def _push(self, day: str) -> None:
        self._numbers += 1
        namespace = self._random.choice(TEAMS)
        name = (namespace, self._random.choice(("api", "base")), f"1.{self._numbers}")
        author = self._random.choice(AUTHORS)
        self.push(*name, day, author)
        if self._random.random() < 0.4:
            self.registry.sign(*name)
        if self._random.random() < 0.1:
            self.push(name[0], name[1], f"sha256-{self._numbers:064x}.sig", day, author)

    def _overwrite(self, day: str) -> None:
        self.push(*self._random.choice(self._names()), day, self._random.choice(AUTHORS))

    def _sign(self, _: str) -> None:
        self.registry.sign(*self._random.choice(self._names()))

    def _delete(self, _: str) -> None:
        self.registry.delete_tag(*self._random.choice(self._names()))


@contextmanager
def _records_refused() -> Iterator[None]:
    """Let AWS fail after the rows are written and before the record is."""

    def refuse(*_: object) -> None:
        raise ConnectionError("S3 is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Archive, "put_record", refuse)
        yield


@dataclass(frozen=True, slots=True)
class History:
    """What all runs have left in the bucket, and the truth."""

    folder: Path
    runs: Sequence[PastRun]
    busy: str  # of the two registries, the one in which much happens
    calm: str  # the one that has nothing unsigned in the end

    @property
    def registries(self) -> tuple[str, str]:
        return self.busy, self.calm

    def answering(self, registry: str, *, since: str = "") -> list[PastRun]:
        """Give the complete audits of the whole registry, oldest first."""
        runs = [run for run in self.runs if run.registry == registry and run.answers and run.day >= since]
        return sorted(runs, key=lambda run: run.run_id)


TODAY = date(2026, 11, 20)


def make_history(stack: Stack, folder: Path) -> History:
    """Make it: two registries, missed days, incomplete and partial runs, runs that are retried or given up."""
    runs: list[PastRun] = []
    busy, calm = Place(stack, runs, seed=7), Place(stack, runs, seed=8)
    try:
        _live_through(busy)
        _be_calm(calm)
        for place in (busy, calm):
            for kind in ("findings", "runs"):
                for key in place.audited.keys(kind):
                    file = folder / key
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(place.audited.read(key))
    finally:
        busy.close()
        calm.close()
    return History(folder, runs, busy.name, calm.name)


def _live_through(place: Place) -> None:
    for team in TEAMS:
        place.push(team, "base", "1.0", "2026-05-01")
    place.push("legacy", "crm", "1.0", "2026-05-01", AUTHORS[1])  # nobody ever touches it
    place.push("legacy", "crm", "2.0", "2026-05-01", AUTHORS[1])
    # 181 and 180 days before TODAY, then the days on both sides of 90, 35 and 30.
    for day in ("2026-05-23", "2026-05-24", "2026-08-21", "2026-08-22", "2026-10-15", "2026-10-16"):
        place.live(day, 12)
        place.audit(f"{day}T03:00:00Z")
    place.push("legacy", "crm", "3.0", "2026-10-20", AUTHORS[2])  # seen once
    place.audit("2026-10-21T03:00:00Z")
    place.registry.sign("legacy", "crm", "2.0")
    place.registry.delete_tag("legacy", "crm", "3.0")
    place.live("2026-10-25", 5)
    place.audit("2026-10-25T03:00:00Z", unreadable="web/base")  # the only run of its day
    place.live("2026-10-26", 5)
    place.audit("2026-10-26T03:00:00Z")
    place.audit("2026-10-26T09:00:00Z", unreadable="web/base")
    for day in ("2026-11-01", "2026-11-04", "2026-11-05"):
        place.live(day, 6)
        place.audit(f"{day}T03:00:00Z")
    place.push("legacy", "crm", "3.0", "2026-11-05", AUTHORS[2])  # another one, signed before anybody sees it
    place.registry.sign("legacy", "crm", "3.0")
    # A run that fails after its rows are written and is then retried: what it had seen first is gone.
    place.live("2026-11-06", 6)
    place.audit("2026-11-06T03:00:00Z", recorded=False, owner="retried")
    place.live("2026-11-06", 10)
    place.audit("2026-11-06T03:00:00Z", owner="retried")
    # One that is given up: its rows stay, without a record.
    place.push("web", "base", "given-up", "2026-11-07")
    place.audit("2026-11-07T03:00:00Z", recorded=False, owner="given up")
    place.registry.delete_tag("web", "base", "given-up")
    place.audit("2026-11-07T04:00:00Z", owner="given up")
    # Two complete runs of one day, and a partial one after them.
    place.audit("2026-11-10T03:00:00Z")
    place.live("2026-11-10", 8)
    place.audit("2026-11-10T15:00:00Z")
    place.live("2026-11-10", 8)
    place.audit("2026-11-10T18:00:00Z", namespaces=("web", "payments"))
    place.audit("2026-11-12T03:00:00Z", namespaces=("platform",))  # the only run of its day
    for day in ("2026-11-14", "2026-11-18"):
        place.live(day, 6)
        place.audit(f"{day}T03:00:00Z")
    # The newest complete one, and after it what is newer and answers nothing.
    place.push("web", "base", "0-unsigned", "2026-11-19")
    place.push("web", "base", f"sha256-{1:064x}.sig", "2026-11-19")
    place.audit("2026-11-19T03:00:00Z")
    place.live("2026-11-19", 6)
    place.audit("2026-11-19T08:00:00Z", namespaces=("web",))
    place.live("2026-11-20", 6)
    place.audit("2026-11-20T03:00:00Z", unreadable="payments/base")


def _be_calm(place: Place) -> None:
    place.push("team", "tool", "1", "2026-10-01", AUTHORS[3])
    place.push("team", "tool", "2", "2026-10-01", AUTHORS[3])
    place.registry.sign("team", "tool", "2")
    place.audit("2026-11-01T03:00:00Z")
    place.push("team", "tool", "2", "2026-11-02", AUTHORS[4])  # overwritten
    place.audit("2026-11-05T03:00:00Z")
    place.registry.sign("team", "tool", "2")
    place.registry.delete_repository("team", "tool")
    place.audit("2026-11-10T03:00:00Z")  # nothing is left at all
    place.push("team", "tool", "2", "2026-11-11", AUTHORS[4])
    place.audit("2026-11-11T03:00:00Z")
    place.registry.sign("team", "tool", "2")
    place.audit("2026-11-19T03:00:00Z")
