"""Many GUNs' trust data, and the feed of their changes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dtr_audit_simulator.notary.files import write_time
from dtr_audit_simulator.notary.keys import Key, RootAuthority
from dtr_audit_simulator.notary.repository import TrustRepository

CHANGES_BY_DEFAULT = 100


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Change:
    """A line of the changefeed: a GUN's new timestamp, or the end of its trust data (`deletion`)."""

    id: int
    created_at: str
    gun: str
    version: int
    sha256: str
    category: str

    def described(self) -> dict[str, object]:
        """Give the change as the feed holds it."""
        return {
            "ID": str(self.id),
            "CreatedAt": self.created_at,
            "GUN": self.gun,
            "Version": self.version,
            "SHA256": self.sha256,
            "Category": self.category,
        }


class Notary:
    """The trust data of many GUNs. May be changed while it is read, from any thread; `clock` gives the time."""

    def __init__(self, clock: Callable[[], datetime] = _now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._repositories: dict[str, TrustRepository] = {}
        self._changes: list[Change] = []

    @property
    def guns(self) -> tuple[str, ...]:
        """The GUNs that have trust data."""
        with self._lock:
            return tuple(self._repositories)

    @property
    def publications(self) -> int:
        """How often anything has been published."""
        with self._lock:
            return len(self._changes)

    def create(
        self, gun: str, *, keys: Mapping[str, Sequence[Key]] | None = None, authority: RootAuthority | None = None
    ) -> TrustRepository:
        """Initialise trust data: new keys for every role that `keys` does not name, a root certified by `authority`.

        Raises ValueError if the GUN has trust data already.
        """
        if self.find(gun) is not None:
            raise ValueError(f"{gun} has trust data already: reinitialise() begins anew")

        def published(category: str, timestamp: bytes) -> None:
            self._note(gun, category, timestamp)

        repository = TrustRepository(gun, self._clock, keys=keys, authority=authority, published=published)
        with self._lock:
            self._repositories[gun] = repository
        return repository

    def find(self, gun: str) -> TrustRepository | None:
        """Find a GUN's trust data."""
        with self._lock:
            return self._repositories.get(gun)

    def delete(self, gun: str) -> None:
        """Delete a GUN's trust data. Raises KeyError if there is none."""
        with self._lock:
            del self._repositories[gun]
        self._note(gun, "deletion", b"")

    def changes(self, after: int = 0, records: int = CHANGES_BY_DEFAULT) -> list[Change]:
        """Give at most `records` changes behind the one of the number `after`, the oldest first.

        As in a real feed, 0 `records` are a hundred; a negative number of them, or a negative `after`, asks for the
        last ones (before `after`).
        """
        with self._lock:
            changes = self._changes
            count = abs(records) or CHANGES_BY_DEFAULT
            if records < 0 or after < 0:
                known = [change for change in changes if after <= 0 or change.id < after]
                return known[-count:]
            return changes[after : after + count]

    def _note(self, gun: str, category: str, timestamp: bytes) -> None:
        version = json.loads(timestamp)["signed"]["version"] if timestamp else 0
        sha256 = hashlib.sha256(timestamp).hexdigest() if timestamp else ""
        with self._lock:
            number = len(self._changes) + 1
            self._changes.append(Change(number, write_time(self._clock()), gun, version, sha256, category))
