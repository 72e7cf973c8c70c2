"""What one invocation asks for: the event, checked and turned into a request."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dtr_audit.core.model import Repository, is_name
from dtr_audit.core.run_record import Scope
from dtr_audit.core.schema import SHA256
from dtr_audit.errors import SettingsError

NAMESPACES = 1_000  # the most that one partial run may name
BATCHES = 5_000  # of one fan-out
EXECUTION_LENGTH = 2_048
_ERROR = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,127}")
_KEYS = frozenset({"scheduled_time", "namespaces", "alerts"})
STEPS = frozenset({"inventory", "examine", "prove"})  # those before the report


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
            run_id = _run_id(_time(scheduled, "event: 'scheduled_time'"), "seconds", namespaces)
        else:
            # Milliseconds keep a run by hand apart from a scheduled one of the same second.
            run_id = earlier or _run_id(now, "milliseconds", namespaces)
        return cls(run_id=run_id, namespaces=namespaces, alerts=alerts)


@dataclass(frozen=True, slots=True)
class StepRequest:
    """What one step of a fan-out is asked for. All steps of one execution, and all their retries, are the same run."""

    audit: AuditRequest
    execution: str  # its id: who holds the registry's lease
    started_at: datetime
    batch: int = 0  # its number, where the step is about one
    failed_step: str = ""  # an earlier one, that failed for good
    failure: str = ""  # the name of the error that ended it
    inventory_sha256: str = ""  # of what the first step left; '' if it did not come to its end
    proof_sha256: str = ""  # of what was proven after the reading; likewise

    @classmethod
    def from_payload(cls, payload: object) -> "StepRequest":
        """Read what the state machine gives to a step; raises SettingsError naming the key that is missing or malformed.

        Of the cause of a failure nothing is taken: it quotes whatever a function has raised.
        """
        if not isinstance(payload, Mapping):
            raise SettingsError("step: a JSON object is needed, as the state machine gives it")
        execution = payload.get("execution")
        if not isinstance(execution, str) or not 0 < len(execution) <= EXECUTION_LENGTH:
            raise SettingsError("step: 'execution' is the id of the execution")
        started_at = _time(payload.get("started_at"), "step: 'started_at'")
        batch = payload.get("batch")
        number = batch.get("number") if isinstance(batch, Mapping) else 0
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= BATCHES:
            raise SettingsError(f"step: 'batch' has a 'number' from 1 to {BATCHES}")
        failure = payload.get("failure")
        error = failure.get("Error") if isinstance(failure, Mapping) else ""
        return cls(
            audit=AuditRequest.from_event(payload.get("event"), now=started_at),
            execution=execution,
            started_at=started_at,
            batch=number,
            failed_step=step if isinstance(step := payload.get("failed_step"), str) and step in STEPS else "",
            failure=(error if isinstance(error, str) and _ERROR.fullmatch(error) else "an error") if failure else "",
            inventory_sha256=_sha256(payload, "inventory"),
            proof_sha256=_sha256(payload, "proof"),
        )


def _sha256(payload: Mapping[str, Any], step: str) -> str:
    """Give the sum of what an earlier step has left, as the state machine carries it; '' if there is none."""
    state = payload.get("state")
    answer = state.get(step) if isinstance(state, Mapping) else None
    sha256 = answer.get("sha256") if isinstance(answer, Mapping) else None
    return sha256 if isinstance(sha256, str) and SHA256.fullmatch(sha256) else ""


def _namespaces(event: Mapping[str, Any]) -> tuple[str, ...]:
    if "namespaces" not in event:
        return ()
    names = event["namespaces"]
    usable = isinstance(names, list) and 0 < len(names) <= NAMESPACES
    if not usable or not all(map(is_name, names)):
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


def _time(text: object, name: str) -> datetime:
    problem = SettingsError(f"{name} is an ISO 8601 time with a zone, such as 2026-11-22T03:00:00Z")
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
