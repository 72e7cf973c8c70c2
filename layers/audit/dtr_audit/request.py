"""What one invocation asks for: the event, checked and turned into a request."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .errors import SettingsError
from .model import Repository, Scope

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
NAMESPACES = 1_000  # the most that one partial run may name
_KEYS = frozenset({"scheduled_time", "namespaces", "alerts"})


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """One run to make. `run_id` is the same for every retry of the same scheduled time and scope."""

    run_id: str  # begins with YYYYMMDD, UTC
    namespaces: tuple[str, ...]  # empty: the whole registry
    alerts: bool

    @property
    def date(self) -> str:
        """YYYY-MM-DD, UTC: the partition of everything that the run writes."""
        return f"{self.run_id[:4]}-{self.run_id[4:6]}-{self.run_id[6:8]}"

    @property
    def scope(self) -> Scope:
        """Whether the whole registry is asked for."""
        return Scope.PARTIAL if self.namespaces else Scope.FULL

    def covers(self, repository: Repository) -> bool:
        """Tell whether a repository is in scope."""
        return not self.namespaces or repository.namespace in self.namespaces

    @classmethod
    def from_event(cls, event: object, *, now: datetime, earlier: str = "") -> "AuditRequest":
        """Read the event of the Scheduler, or one made by hand, without a scheduled time.

        What was asked for by hand is the run `earlier`, which an attempt at this very event left unfinished, or a new one of `now`.
        Raises SettingsError naming the key that is unknown or malformed.
        """
        if not isinstance(event, Mapping):
            raise SettingsError('event: a JSON object is needed, {} or {"scheduled_time": "…"}')
        unknown = sorted(str(key) for key in event.keys() - _KEYS)
        if unknown:
            raise SettingsError(f"event: unknown key {unknown[0][:80]!r}; known are {', '.join(sorted(_KEYS))}")
        namespaces = _namespaces(event)
        alerts = event.get("alerts", True)
        if not isinstance(alerts, bool):
            raise SettingsError("event: 'alerts' is true or false")
        scheduled = event.get("scheduled_time")
        if scheduled is not None:
            run_id = _run_id(_time(scheduled), "seconds", namespaces)
        else:
            # Milliseconds keep a run by hand apart from a scheduled one of the same second.
            run_id = earlier or _run_id(now, "milliseconds", namespaces)
        return cls(run_id=run_id, namespaces=namespaces, alerts=alerts)


def _namespaces(event: Mapping[str, Any]) -> tuple[str, ...]:
    if "namespaces" not in event:
        return ()
    names = event["namespaces"]
    usable = isinstance(names, list) and 0 < len(names) <= NAMESPACES
    if not usable or not all(isinstance(name, str) and _NAMESPACE.fullmatch(name) for name in names):
        raise SettingsError(
            f"event: 'namespaces' is a list of 1 to {NAMESPACES} namespaces' names; leave it out for the whole registry"
        )
    return tuple(sorted(set(names)))


def _run_id(moment: datetime, precision: str, namespaces: tuple[str, ...]) -> str:
    time = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision)
    run_id = re.sub("[-:]", "", time) + "Z"
    if not namespaces:
        return run_id
    # A partial run never takes the place of the full run of the same time.
    scope = hashlib.sha256("\n".join(namespaces).encode()).hexdigest()[:8]
    return f"{run_id}.{scope}"


def _time(text: object) -> datetime:
    problem = SettingsError("event: 'scheduled_time' is an ISO 8601 time with a zone, such as 2026-11-22T03:00:00Z")
    if not isinstance(text, str):
        raise problem
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise problem from None
    if moment.tzinfo is None:
        raise problem
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise problem from None
