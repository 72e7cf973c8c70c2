"""A run made in steps, as the state machine makes it: in this process, one step after the other."""

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from dtr_audit.aws.clients import AwsClients
from dtr_audit.core.request import StepRequest
from dtr_audit.pipeline import run_context, steps
from dtr_audit.settings import Settings
from tests.harness.audit_harness import Audited

Step = Callable[[run_context.Invocation], dict[str, Any]]
MakeRun = Callable[..., dict[str, Any]]  # of an event, if any, and of settings: makes a run and gives its record


class StepFunctionsRun:
    """One registry, audited by the steps."""

    SECONDS = 600.0

    def __init__(
        self, audited: Audited, environment: Mapping[str, str] | None = None, clients: AwsClients | None = None
    ) -> None:
        self.audited = audited
        self.settings = Settings.from_environment(
            {
                **audited.stack.function_environment("AuditFunction"),
                **audited.environment,
                "CONCURRENCY": "4",
                "FAN_OUT_WORKERS": "2",
                **(environment or {}),
            }
        )
        self.clients = clients or AwsClients(connections=6)
        self.seconds = self.SECONDS
        self.now: datetime | None = None  # None: as it is
        self.left: dict[
            str, dict[str, Any]
        ] = {}  # by execution: the answers that the machine carries from step to step

    def execute(
        self,
        event: dict[str, Any] | None = None,
        *,
        execution: str = "",
        without: Collection[int] = (),
        once_more: Collection[str] = (),
    ) -> dict[str, Any]:
        """Make a run; `without` are batches that come to nothing, `once_more` the steps that are made twice."""
        if event is None:
            self.audited.runs += 1
            event = self.audited.event()
        payload = self.payload(event, execution)

        def make(name: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
            for _ in range(1 + (name in once_more)):
                answer = self.make(getattr(steps, name), {**payload, **(more or {})})
            return answer

        inventory = make("inventory")
        if inventory["finished_before"]:
            return inventory
        if inventory["connected"] and inventory["count"]:
            for item in json.loads(self.read(inventory["batches"]["key"])):
                if item["number"] not in without:
                    assert make("examine", {"batch": item}) == {}
        if inventory["connected"]:
            assert make("prove").keys() == {"sha256"}
        return make("report")

    def payload(self, event: dict[str, Any], execution: str = "") -> dict[str, Any]:
        """Give what the state machine hands to each step."""
        started_at = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"event": event, "execution": execution or f"execution:{json.dumps(event)}", "started_at": started_at}

    def make(self, step: Step, payload: dict[str, Any]) -> dict[str, Any]:
        """Make one step, through JSON as it comes and goes."""
        name, execution = step.__name__, payload["execution"]
        state = {} if name == "inventory" else self.left.get(execution, {})
        if name in {"inventory", "prove"}:
            self.left[execution] = {one: answer for one, answer in state.items() if one != "proof"}
        payload = {"state": state, **payload}
        invocation = run_context.Invocation(
            self.settings,
            StepRequest.from_payload(json.loads(json.dumps(payload))),
            self.clients,
            seconds=self.seconds,
            now=self._now,
        )
        answer: dict[str, Any] = json.loads(json.dumps(step(invocation)))
        if name in {"inventory", "prove"}:
            self.left[execution][name.replace("prove", "proof")] = answer
        return answer

    def _now(self) -> datetime:
        return self.now or datetime.now(UTC)

    def record(self, run_id: str) -> dict[str, Any]:
        """Read the record of a run from the bucket."""
        (key,) = (key for key in self.audited.keys("runs") if key.endswith(f"/{run_id}.json"))
        record: dict[str, Any] = json.loads(self.audited.read(key))
        return record

    def read(self, key: str) -> bytes:
        """Read one object of the bucket."""
        return self.audited.read(key)
