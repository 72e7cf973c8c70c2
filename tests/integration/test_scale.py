"""What tools/planner/scale.py reckons with, counted in real runs of both engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import botocore.client
import pytest

from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited, needed_requests
from tests.harness.step_functions_harness import StepFunctionsRun
from tools.planner.scale import Engine, Plan, count_objects, count_planned_calls

pytestmark = pytest.mark.usefixtures("all_shards")


def fill(registry: InMemoryRegistry, plan: Plan) -> None:
    """Push as many tags to each repository; none is signed, so that every domain is asked."""
    for number in range(plan.repositories):
        for tag in range(plan.tags // plan.repositories):
            registry.push(f"team-{number % 7}", f"service-{number:04d}", f"1.{tag}")


@pytest.fixture
def aws_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each operation is called from now on; of DynamoDB's, those of the runs table and of an index apart."""
    made: Counter[str] = Counter()
    call: Callable[..., Any] = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined] # left out of the stubs

    def note(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        table = " of runs" if "Runs" in parameters.get("TableName", "") else ""
        made[operation + table + (" of an index" if "IndexName" in parameters else "")] += 1
        return call(client, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", note)
    return made


@pytest.mark.parametrize(
    "plan",
    [Plan(21, 7), Plan(450, 3), Plan(110, 110), Plan(36, 12, domains=2), Plan(44, 4, page_size=10, domains=3)],
    ids=["few", "two pages each", "two pages of repositories", "two domains", "pages and domains"],
)
def test_one_lambda_asks_the_registry_as_often_as_is_estimated(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, aws_calls: Counter[str], plan: Plan
) -> None:
    fill(registry, plan)
    domains = ",".join(f"dtr-{number}.example.com" for number in range(plan.domains))
    run = audited.audit(DTR_DOMAINS=domains, PAGE_SIZE=str(plan.page_size))
    assert run["complete"] is True
    assert len(needed_requests(dtr)) <= plan.requests
    assert len([one for one in dtr.requests if one.path.startswith("/api/v0/repositories")]) == (
        plan.list_pages + plan.repositories * plan.requests_each
    )
    assert aws_calls["PutObject"] == count_objects(plan)


@pytest.mark.parametrize(
    "plan",
    [Plan(30, 10, engine=Engine.STEP_FUNCTIONS), Plan(360, 120, engine=Engine.STEP_FUNCTIONS)],
    ids=["one batch", "three batches"],
)
def test_a_fan_out_asks_and_writes_as_often_as_is_estimated(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, aws_calls: Counter[str], plan: Plan
) -> None:
    fill(registry, plan)
    registry.sign("team-0", "service-0000", "1.0")
    run = StepFunctionsRun(audited).execute()
    assert run["complete"] is True
    assert len(needed_requests(dtr)) == plan.requests
    assert aws_calls["PutObject"] == count_objects(plan)
    calls = count_planned_calls(plan, run["findings"]["opened"])
    assert aws_calls["ListObjectsV2"] == calls.lists
    assert aws_calls["GetObject"] <= calls.object_reads <= aws_calls["GetObject"] + 2
    assert aws_calls["GetSecretValue"] == calls.secret_reads == plan.batches + 2
    assert aws_calls["Query"] == calls.queries == plan.repositories
    assert aws_calls["Scan"] == calls.table_scans == 0
    assert aws_calls["Query of an index"] == calls.index_queries
    record_reads = aws_calls["GetItem of runs"] + aws_calls["Query of runs"]
    assert record_reads <= calls.record_reads <= record_reads + 2
