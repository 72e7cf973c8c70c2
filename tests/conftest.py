"""The parts that the tests run through: a simulated DTR, and the template's own resources in an embedded AWS."""

import gc
import importlib
import pkgutil
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import dtr_audit
from dtr_audit.aws import findings
from dtr_audit.core.redaction import REDACTOR
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.crash_injection import CrashInjection
from tests.harness.fake_clock import IMPATIENT, FakeClock
from tests.harness.requirement import TO_RUN
from tests.harness.stack_state import StackState
from tests.harness.step_functions_harness import MakeRun, StepFunctionsRun


def pytest_sessionstart() -> None:
    """Collect garbage less often: what the modules hold stays to the end, and a full collection looks through all of it."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


SHARDS = findings.SHARDS
FEW_SHARDS = 2  # enough for findings of one registry to lie in more than one


@pytest.fixture(autouse=True)
def forget_secrets() -> Iterator[None]:
    """Each test has the secrets of its own registry alone, as a process of its own would."""
    yield
    REDACTOR.forget()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say last what was skipped, and what would run it."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)]
    by_command = Counter(reason.rpartition(TO_RUN)[2] for reason in reasons if TO_RUN in reason)
    for command, number in sorted(by_command.items()):
        terminalreporter.write_line(f"{number} tests were skipped. To run them: {command}", yellow=True)


@pytest.fixture(scope="session", autouse=True)
def impatient() -> Iterator[None]:
    """Wait as often as in production for a registry that does not answer, but not as long; in every fixture, too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in IMPATIENT.items():
            patch.setattr(f"dtr_audit.{name}", seconds)
        patch.setattr(findings, "SHARDS", FEW_SHARDS)
        yield


@pytest.fixture
def all_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as many shards of the indexes as in production, which is a third of the calls of a small run."""
    monkeypatch.setattr(findings, "SHARDS", SHARDS)


@pytest.fixture(scope="session")
def aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws() as aws:
        yield aws


@pytest.fixture(scope="session")
def stack(aws: EmbeddedAws) -> Stack:
    """The deployed template; the parameters a test varies are overridden in the function's environment."""
    parameters = {"DtrUrl": "https://dtr.example.com", "RegistryName": "unnamed"}
    deployed = aws.deploy(PROJECT / "template.yaml", parameters, stack_name="tests")
    _empty.append(StackState.take(deployed))
    return deployed


_empty: list[StackState] = []  # the stack of the session as it was deployed, once it is


def _leave_as_found() -> Iterator[None]:
    """Remove what is stored meanwhile: moto reads a whole table for each query, so what is left slows every later test."""
    before = [StackState.take(empty.stack) for empty in _empty]
    yield
    for state in before or _empty:
        state.restore()


_of_a_module = pytest.fixture(scope="module", autouse=True)(_leave_as_found)
_of_a_test = pytest.fixture(autouse=True)(_leave_as_found)


@pytest.fixture
def registry() -> InMemoryRegistry:
    return InMemoryRegistry()


@pytest.fixture
def dtr(registry: InMemoryRegistry) -> Iterator[DtrServer]:
    with DtrServer(registry) as server:
        yield server


@pytest.fixture
def audited(stack: Stack, dtr: DtrServer) -> Iterator[Audited]:
    """The simulated registry, audited with an administrator's account."""
    audited = Audited(stack, dtr)
    audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
    yield audited
    audited.close()


@pytest.fixture(params=["lambda", "stepfunctions"])
def make_run(request: pytest.FixtureRequest, audited: Audited) -> MakeRun:
    """Make a run by each of the engines in turn."""

    def make(
        event: dict[str, Any] | None = None, *, seconds: float | None = None, **environment: str
    ) -> dict[str, Any]:
        if request.param == "lambda":
            return audited.audit(event, seconds=seconds, **environment)
        step_functions_run = StepFunctionsRun(audited, environment)
        step_functions_run.seconds = seconds or step_functions_run.seconds
        return step_functions_run.record(step_functions_run.execute(event)["run_id"])

    return make


@pytest.fixture
def crash_injection(monkeypatch: pytest.MonkeyPatch, all_shards: None) -> CrashInjection:
    """What cuts a run off after a call to AWS."""
    crash_injection = CrashInjection()
    crash_injection.attach(monkeypatch)
    return crash_injection


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    held = FakeClock()
    # In every module: one that went by the machine's own time would stop the others, or never be stopped by them.
    for found in pkgutil.walk_packages(dtr_audit.__path__, "dtr_audit."):
        module = importlib.import_module(found.name)
        if getattr(module, "time", None) is time:
            monkeypatch.setattr(module, "time", held)
    # Each finding is written as it comes: by the table these tests see how far the audit is.
    monkeypatch.setattr("dtr_audit.pipeline.finding_batches.BATCH_ITEMS", 1)
    return held
