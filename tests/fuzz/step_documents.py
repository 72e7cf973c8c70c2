"""The documents between the steps of real runs, and the report step made of them again and again, in memory.

A run is made once, up to its report, through the simulated registry and the embedded AWS. What its steps have left is then reported
from memory, with or without changes: a report takes some milliseconds so.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from botocore.exceptions import ClientError

from dtr_audit.aws import metrics
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.core.finding import Finding, State
from dtr_audit.core.model import Repository
from dtr_audit.core.request import StepRequest
from dtr_audit.core.run_record import Run
from dtr_audit.pipeline import run_context, steps
from dtr_audit.settings import EVIDENCE_FORMATS, Settings
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.fault_kinds import Rewrite, Status, tags_of
from dtr_audit_simulator.dtr.faults import SETTINGS, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import StepFunctionsRun

FIRST = datetime(2026, 12, 1, 3, tzinfo=UTC)
SECOND = FIRST + timedelta(days=1)
EVENT = {"scheduled_time": "2026-12-02T03:00:00Z", "alerts": False}
RUN_ID = "20261202T030000Z"
IMAGES = ("team/api:1", "team/old:1", "web/shop:1", "web/shop:2", "web/till:1")
POLICY = {
    "exceptions": [
        {"id": "EX-1", "namespace": "team", "repository": "*", "tag": "*", "owner": "j.doe", "reason": "being replaced",
         "ends": "2027-06-01"}
    ]
}  # fmt: skip
EXCEPTIONS_KEY = "policy/exceptions.json"


class MemoryS3:
    """S3 as the report step sees it."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = dict(objects)

    def put_object(self, *, Key: str, Body: Any, **_: Any) -> None:  # noqa: N803 - as boto3 names them
        self.objects[Key] = Body if isinstance(Body, bytes) else Body.read()

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[Key])}

    def delete_object(self, *, Key: str, **_: Any) -> None:  # noqa: N803
        self.objects.pop(Key, None)

    def list_objects_v2(self, *, Prefix: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {"Contents": [{"Key": key} for key in sorted(self.objects) if key.startswith(Prefix)]}

    def get_paginator(self, _: str) -> "MemoryS3":
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        return [self.list_objects_v2(**request)]


class MemoryRuns:
    """The runs table as the report step sees it."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.is_leased = True

    def __call__(self, *_: Any) -> "MemoryRuns":
        return self

    def is_finished(self, _: str) -> bool:
        return False

    def take_lease(self, *_: Any, **__: Any) -> bool:
        return True

    def confirm_lease(self, _: str) -> None:
        pass

    def release_lease(self, _: str) -> None:
        self.is_leased = False

    def last_complete(self, **_: Any) -> None:
        return None

    def resolved_by(self, _: str) -> int:
        return 0

    def earlier(self, **_: Any) -> list[Mapping[str, Any]]:
        return []

    def record(self, run: Run, **_: Any) -> None:
        self.run = run

    def finish(self, *_: Any, **__: Any) -> None:
        pass


class MemoryFindings:
    """The findings table as the report step sees it."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = {(finding.repository, finding.tag): finding for finding in findings}

    def __call__(self, *_: Any, **__: Any) -> "MemoryFindings":
        return self

    def open(self) -> Iterator[Finding]:
        return iter([one for one in self.findings.values() if one.state is State.OPEN])

    def pending_notifications(self) -> Iterator[Finding]:
        return iter([one for one in self.findings.values() if one.pending_notifications])

    def of_repository(self, repository: Repository) -> dict[str, Finding]:
        return {tag: one for (of, tag), one in self.findings.items() if of == repository}

    def write(self, findings: Iterable[Finding]) -> None:
        self.findings.update({(finding.repository, finding.tag): finding for finding in findings})


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of AWS that the report step uses."""

    s3: MemoryS3
    dynamodb: None = None  # the tables are in memory
    sns: None = None  # nothing is announced


@dataclass(frozen=True, slots=True)
class Reported:
    """What a report has left."""

    summary: dict[str, Any]
    run: Run
    objects: Mapping[str, bytes]
    findings: tuple[Finding, ...]
    is_leased: bool


@dataclass(frozen=True, slots=True)
class Left:
    """What the steps of one run have left for its report."""

    settings: Settings
    payload: Mapping[str, Any]
    prefix: str
    documents: Mapping[str, bytes]  # by their names below the prefix
    objects: Mapping[str, bytes]  # all else that is in the bucket
    findings: tuple[Finding, ...]

    def report(self, changes: Mapping[str, bytes | None] | None = None, *, is_resealed: bool = False) -> Reported:
        """Make the report, with some of the documents changed or missing (None).

        `is_resealed`: all SHA-256 sums are made to fit, up to those that the state machine carries. So a step that is wrong itself
        would leave them, or somebody who can do more than write into the bucket.
        """
        documents = {**self.documents, **(changes or {})}
        kept = {name: content for name, content in documents.items() if content is not None}
        payload = dict(self.payload)
        if is_resealed:
            kept, payload["state"] = reseal(kept)
        s3 = MemoryS3({**self.objects, **{f"{self.prefix}{name}": content for name, content in kept.items()}})
        runs, findings = MemoryRuns(), MemoryFindings(self.findings)
        invocation = run_context.Invocation(
            self.settings,
            StepRequest.from_payload(payload),
            Clients(s3),  # type: ignore[arg-type]
            seconds=600.0,
            now=lambda: SECOND,
        )
        with (
            patch.object(run_context, "RunsTable", runs),
            patch.object(run_context, "FindingsTable", findings),
            patch.object(metrics, "emit"),
        ):
            summary = steps.report(invocation)
        assert runs.run is not None
        return Reported(summary, runs.run, s3.objects, tuple(findings.findings.values()), runs.is_leased)


def reseal(documents: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Give documents whose sums fit, where they are JSON objects that have sums; and the machine's state with theirs."""
    kept = dict(documents)
    sums = dict.fromkeys(kept, "")
    for name in sorted(kept):
        if name.startswith("results/") and name.endswith(".json"):
            findings = kept.get(name.replace(".json", ".findings.jsonl.gz"), b"")
            kept[name] = _with(kept[name], findings_sha256=_sum(findings))
            sums[name] = _sum(kept[name])
    counted = [sums[name] for name in sorted(sums) if name.startswith("results/") and name.endswith(".json")]
    batches = [_sum(kept[name]) for name in sorted(kept) if name.startswith("batches/")]
    for name, changes in {"proof.json": {"counted": counted}, "inventory.json": {"batch_sums": batches}}.items():
        if name in kept:
            kept[name] = _with(kept[name], **changes)
    if "exceptions.json" in kept and "inventory.json" in kept:
        settings = _read(kept["inventory.json"], "settings")
        if isinstance(settings, dict):
            changed = {**settings, EXCEPTIONS_KEY: _sum(kept["exceptions.json"])}
            kept["inventory.json"] = _with(kept["inventory.json"], settings=changed)
    state = {step: {"sha256": _sum(kept.get(f"{step}.json", b""))} for step in ("inventory", "proof")}
    return kept, state


def _with(content: bytes, **changes: Any) -> bytes:
    """Change keys of a JSON object that has them; anything else stays as it is."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(document, dict) or not changes.keys() <= document.keys():
        return content
    before = {name: document[name] for name in changes}
    # A list of another length is the very change that is tried.
    same = all(
        not isinstance(value, list) or (isinstance(before[name], list) and len(before[name]) == len(value))
        for name, value in changes.items()
    )
    return json.dumps({**document, **changes}).encode() if same else content


def _read(content: bytes, key: str) -> Any:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document.get(key) if isinstance(document, dict) else None


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


Change = Callable[[InMemoryRegistry, DtrServer], None]


def _leave(_: InMemoryRegistry, __: DtrServer) -> None:
    """Change nothing: every image is signed."""


def _overwrite(registry: InMemoryRegistry, _: DtrServer) -> None:
    registry.push("web", "till", "1", at=FIRST)


def _hide_flags(_: InMemoryRegistry, server: DtrServer) -> None:
    server.faults = Faults(rewrites=(Rewrite({"inNotary": None}, path="web/till"),))


def _fail(_: InMemoryRegistry, server: DtrServer) -> None:
    server.faults = Faults(on_calls=(Status(500, tags_of("web/till")),))


def _refuse_access_check(_: InMemoryRegistry, server: DtrServer) -> None:
    server.faults = Faults(on_calls=(Status(500, SETTINGS.limited(after=1)),))


def _lose(registry: InMemoryRegistry, server: DtrServer) -> None:
    """One repository is removed between the runs, and one in mid-run."""
    registry.delete_repository("team", "old")
    server.faults = Faults(missing_though_listed=tags_of("web/till", times=1))


SCENARIOS: dict[str, Change] = {
    "signed": _leave,
    "gone": _lose,
    "unsigned": _overwrite,
    "unknown": _hide_flags,
    "unread": _fail,
    "unproven": _refuse_access_check,
}
PASSES = frozenset({"signed", "gone"})


def make_runs(stack: Stack) -> dict[str, Left]:
    """Make a run of every scenario, up to its report. In a first run nothing was signed, so there are findings to resolve."""
    return {name: _make_run(stack, change) for name, change in SCENARIOS.items()}


def _make_run(stack: Stack, change: Change) -> Left:
    registry = InMemoryRegistry()
    several_batches = patch.object(steps, "BATCH_REPOSITORIES", 2)
    with several_batches, DtrServer(registry) as server, closing(Audited(stack, server)) as audited:
        audited.put_secret(username=server.admin.name, password=server.admin.password)
        bucket = stack.outputs["BucketName"]
        for image in IMAGES:
            registry.push(*_split(image), at=FIRST - timedelta(days=3))
        step_functions_run = StepFunctionsRun(
            audited, {"EVIDENCE_FORMATS": "", "CONCURRENCY": "1", "FAN_OUT_WORKERS": "1"}
        )
        stack.s3.put_object(Bucket=bucket, Key=EXCEPTIONS_KEY, Body=json.dumps(POLICY).encode())
        try:
            step_functions_run.now = FIRST
            step_functions_run.execute({"scheduled_time": "2026-12-01T03:00:00Z"})
            for image in IMAGES:
                registry.sign(*_split(image))
            change(registry, server)
            step_functions_run.now = SECOND
            payload = step_functions_run.payload(EVENT, "execution")
            prefix = f"work/registry={audited.name}/{RUN_ID}/"
            inventory = step_functions_run.make(steps.inventory, payload)
            for number in range(1, inventory["count"] + 1):
                step_functions_run.make(steps.examine, {**payload, "batch": {"number": number}})
            step_functions_run.make(steps.prove, payload)
        finally:
            stack.s3.delete_object(Bucket=bucket, Key=EXCEPTIONS_KEY)
        objects = {key: audited.read(key) for kind in ("findings", "work") for key in audited.keys(kind)}
        table = FindingsTable(
            step_functions_run.clients.dynamodb,
            step_functions_run.settings.findings_table,
            audited.name,
            resolved_days=90,
        )
        known = tuple(
            finding
            for image in sorted({image.split(":")[0] for image in IMAGES})
            for finding in table.of_repository(Repository(*image.split("/"))).values()
        )
        return Left(
            settings=step_functions_run.settings,
            payload={**payload, "state": step_functions_run.left["execution"]},
            prefix=prefix,
            documents={key.removeprefix(prefix): content for key, content in objects.items() if key.startswith(prefix)},
            objects={key: content for key, content in objects.items() if not key.startswith(prefix)},
            findings=known,
        )


def _split(image: str) -> tuple[str, str, str]:
    path, tag = image.split(":")
    namespace, name = path.split("/")
    return namespace, name, tag


def with_evidence(left: Left) -> Left:
    """Give the same run with all evidence, which takes most of a report's time."""
    return replace(left, settings=replace(left.settings, evidence_formats=EVIDENCE_FORMATS))


def read_lines(content: bytes) -> list[Any]:
    """Read a file of findings."""
    return [json.loads(line) for line in gzip.decompress(content).splitlines()]


def write_lines(lines: Iterable[Any]) -> bytes:
    """Write a file of findings."""
    return gzip.compress("".join(f"{json.dumps(line)}\n" for line in lines).encode(), mtime=0)
