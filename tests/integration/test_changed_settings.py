"""A run in steps is judged by the settings and the documents of its beginning, or it is not complete."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dtr_audit.aws.runs import RunsTable
from dtr_audit.errors import WorkError
from dtr_audit.pipeline import steps
from dtr_audit.settings import Settings, TrustVerification
from dtr_audit_simulator.dtr.fault_kinds import tags_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import StepFunctionsRun

IMAGES = (("web", "shop"), ("web", "till"), ("ops", "base"))
EVENT = {"scheduled_time": "2026-12-02T03:00:00Z"}
RUN_ID = "20261202T030000Z"
PINS_KEY, EXCEPTIONS_KEY = "policy/trust-pins.json", "policy/exceptions.json"


class Signed:
    """A registry in which every image is signed, and its audit in steps, of two batches."""

    def __init__(self, audited: Audited, registry: InMemoryRegistry, environment: dict[str, str]) -> None:
        for namespace, name in IMAGES:
            registry.push(namespace, name, "1")
            registry.sign(namespace, name, "1")
        self.audited = audited
        self.step_functions_run = StepFunctionsRun(audited, {"EVIDENCE_FORMATS": "", **environment})
        self.step_functions_run.now = datetime(2026, 12, 2, 3, tzinfo=UTC)
        self.settings = self.step_functions_run.settings

    def make(self, step: str, number: int = 0, **more: Any) -> dict[str, Any]:
        batch = {"batch": {"number": number}} if number else {}
        return self.step_functions_run.make(
            getattr(steps, step), {**self.step_functions_run.payload(EVENT, "execution"), **batch, **more}
        )

    def record(self) -> dict[str, Any]:
        return self.step_functions_run.record(RUN_ID)

    def key(self, name: str) -> str:
        return f"work/registry={self.audited.name}/{RUN_ID}/{name}"

    def put(self, name: str, content: bytes | None) -> None:
        s3, bucket = self.step_functions_run.clients.s3, self.settings.bucket
        if content is None:
            s3.delete_object(Bucket=bucket, Key=self.key(name))
        else:
            s3.put_object(Bucket=bucket, Key=self.key(name), Body=content)

    def assert_lease_is_free(self) -> None:
        table = RunsTable(self.step_functions_run.clients.dynamodb, self.settings.runs_table, self.audited.name)
        table.take_lease("another", "another", "another", now=datetime(2026, 12, 2, 4, tzinfo=UTC), seconds=60)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "BATCH_REPOSITORIES", 2)


@pytest.fixture
def signed(audited: Audited, registry: InMemoryRegistry) -> Signed:
    return Signed(audited, registry, {})


STEPS = (("examine", 1), ("examine", 2), ("prove", 0), ("report", 0))


def strict(settings: Settings) -> Settings:
    return replace(settings, trust=TrustVerification.SIGNATURES, required_signers=("ci",))


def test_a_run_whose_settings_stay_the_same_passes(signed: Signed) -> None:
    signed.make("inventory")
    run = [signed.make(step, number) for step, number in STEPS][-1]
    assert (run["status"], run["complete"]) == ("NOT_A_FINDING", True)


@pytest.mark.parametrize("at", STEPS)
def test_a_step_that_finds_stricter_settings_makes_the_run_incomplete(signed: Signed, at: tuple[str, int]) -> None:
    """A lenient scan and a strict report would be a pass that claims the strict settings."""
    signed.make("inventory")
    for step, number in STEPS:
        signed.step_functions_run.settings = strict(signed.settings) if (step, number) == at else signed.settings
        run = signed.make(step, number)
    assert (run["status"], run["complete"]) == ("NOT_REVIEWED", False)
    (reason,) = [one for one in run["incomplete_because"] if "changed while the run was under way" in one]
    assert "under way: REQUIRED_SIGNERS, TRUST_VERIFICATION. What was read" in reason
    assert "ci" not in reason.split(), "names, never values"
    signed.assert_lease_is_free()


def test_a_batch_under_other_settings_is_not_read_and_resolves_nothing(
    signed: Signed, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    registry.push("web", "shop", "2")
    signed.step_functions_run.execute({"scheduled_time": "2026-12-01T03:00:00Z"})
    registry.sign("web", "shop", "2")
    signed.make("inventory")
    asked = len(dtr.requests)
    signed.step_functions_run.settings = replace(signed.settings, x509_strict=not signed.settings.x509_strict)
    for step, number in STEPS[:3]:
        signed.make(step, number)
    assert len(dtr.requests) == asked
    signed.step_functions_run.settings = signed.settings
    run = signed.make("report")
    assert any("X509_STRICT" in reason for reason in run["incomplete_because"])
    assert run["repositories"] == {"listed": 3, "audited": 0, "unreadable": 0, "removed": 0}
    assert (run["findings"]["open"], run["findings"]["resolved"]) == (1, 0)
    assert signed.audited.findings()["web/shop:2"]["state"] == "OPEN"


def test_a_report_of_another_version_of_the_audit_makes_the_run_incomplete(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.make("inventory")
    for step, number in STEPS[:3]:
        signed.make(step, number)
    monkeypatch.setattr("dtr_audit.settings.__version__", "0.0.0")
    run = signed.make("report")
    assert any("under way: version. What was read" in reason for reason in run["incomplete_because"])


def test_repositories_gone_are_not_recorded_under_other_settings(
    signed: Signed, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    signed.make("inventory")
    dtr.faults = replace(dtr.faults, missing_though_listed=tags_of("ops/base", times=1))
    for step, number in STEPS[:2]:
        signed.make(step, number)
    registry.delete_repository("ops", "base")
    signed.step_functions_run.settings = strict(signed.settings)
    signed.make("prove")
    signed.step_functions_run.settings = signed.settings
    run = signed.make("report")
    assert run["repositories"] == {"listed": 3, "audited": 2, "unreadable": 1, "removed": 0}
    assert run["status"] == "NOT_REVIEWED"


# --- The documents that the workers read ----------------------------------------------------------------------------------

DAMAGES: tuple[tuple[str, Callable[[bytes], bytes | None]], ...] = (
    ("missing", lambda _: None),
    ("empty", lambda _: b""),
    ("truncated", lambda content: content[: len(content) // 2]),
    ("garbage", lambda _: b"\x00 no document of ours"),
    ("foreign", lambda content: content.replace(b"web", b"foo").replace(b"true", b"false").replace(b"EX-1", b"EX-2")),
)


@pytest.fixture
def with_policy(audited: Audited, registry: InMemoryRegistry, dtr: DtrServer) -> Iterator[Signed]:
    """The same, with exceptions and pins, by which the workers judge."""
    exception = {
        **{"id": "EX-1", "namespace": "web", "repository": "*", "tag": "*", "owner": "j.doe", "reason": "replaced"},
        "ends": "2027-06-01",
    }
    pin = {"pattern": f"{dtr.host}/web/*", "root_keys": ["0" * 64]}
    policy = {EXCEPTIONS_KEY: {"exceptions": [exception]}, PINS_KEY: {"pins": [pin]}}
    s3, bucket = audited.stack.s3, audited.stack.outputs["BucketName"]
    for key, document in policy.items():
        s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(document).encode())
    yield Signed(
        audited,
        registry,
        {"TRUST_VERIFICATION": "signatures", "PIN_TRUST": "true", "DTR_DOMAINS": dtr.host},
    )
    for key in policy:
        s3.delete_object(Bucket=bucket, Key=key)


@pytest.mark.parametrize("name", ["inventory.json", "batches/00001.json", "exceptions.json", "trust-pins.json"])
def test_a_worker_uses_no_document_that_is_damaged_and_the_run_is_closed(with_policy: Signed, name: str) -> None:
    run = with_policy
    run.make("inventory")
    content = run.audited.read(run.key(name))
    for damage, make in DAMAGES:
        changed = make(content)
        assert changed != content, damage
        run.put(name, changed)
        if name == "trust-pins.json":
            run.make("examine", 1)  # which says of each repository why it was not read
            unread = json.loads(run.audited.read(run.key("results/00001.json")))["unreadable"]
            assert len(unread) == 2, damage
            assert all(name in why for _, why in unread), damage
        else:
            with pytest.raises(WorkError, match=name):
                run.make("examine", 1)
    failure: dict[str, Any] = {}
    try:
        run.make("prove")
    except WorkError:
        failure = {"failure": {"Error": "WorkError"}, "failed_step": "prove"}
    answer = run.make("report", **failure)
    assert (answer["status"], answer["complete"]) == ("NOT_REVIEWED", False)
    run.assert_lease_is_free()
