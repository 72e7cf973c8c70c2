"""A complete run is compared with the complete run before it: a registry that has shrunk is told, not believed."""

from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited


def fill(registry: InMemoryRegistry, repositories: int) -> None:
    for number in range(repositories):
        registry.push("team", f"app-{number}", "1.0")
        registry.sign("team", f"app-{number}", "1.0")


def test_the_first_run_has_nothing_to_compare_with(audited: Audited, registry: InMemoryRegistry) -> None:
    fill(registry, 2)
    run = audited.audit()
    assert run["previous"] is None
    assert not run["warnings"]


def test_a_registry_that_has_shrunk_is_reported_with_both_sizes(audited: Audited, registry: InMemoryRegistry) -> None:
    fill(registry, 10)
    before = audited.audit()
    for number in range(2, 10):
        registry.delete_repository("team", f"app-{number}")
    run = audited.audit()
    assert run["previous"] == {"run_id": before["run_id"], "repositories": 10, "tags": 10}
    (warning,) = run["warnings"]
    assert "2 repositories with 2 image tags, against 10 with 10" in warning
    assert audited.audit()["warnings"] == []  # the next one compares with this one


def test_a_registry_may_shrink_by_less_than_the_setting(audited: Audited, registry: InMemoryRegistry) -> None:
    fill(registry, 10)
    audited.audit()
    registry.delete_repository("team", "app-9")
    assert audited.audit(SHRINK_PERCENT="11")["warnings"] == []
    registry.delete_repository("team", "app-8")
    assert len(audited.audit(SHRINK_PERCENT="11")["warnings"]) == 1


def test_a_retried_run_is_not_compared_with_itself(audited: Audited, registry: InMemoryRegistry) -> None:
    fill(registry, 4)
    first = audited.audit()
    second = audited.audit()
    audited.stack.resource_client.update_item(
        TableName=audited.stack.outputs["RunsTableName"],
        Key={"pk": audited.name, "sk": second["run_id"]},
        UpdateExpression="REMOVE finished",
    )
    retried = audited.audit(audited.event())
    assert retried["run_id"] == second["run_id"]
    assert retried["previous"]["run_id"] == first["run_id"]


def test_neither_an_incomplete_nor_a_partial_run_is_a_measure(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    fill(registry, 4)
    complete = audited.audit()
    dtr.faults = Faults(on_calls=(Status(500, tags_of("team/app-0")),))
    incomplete = audited.audit()
    assert not incomplete["complete"]
    dtr.faults = Faults()
    registry.push("other", "app", "1.0")
    partial = audited.audit({**audited.event(), "namespaces": ["other"]})
    assert partial["previous"] is None
    assert audited.audit()["previous"]["run_id"] == complete["run_id"]


def test_the_record_says_since_when_the_oldest_finding_is_open(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0")
    audited.audit()
    since = audited.findings()["team/app:1.0"]["first_seen"]
    registry.push("team", "app", "2.0")
    assert audited.audit()["oldest_open"] == since
    registry.sign("team", "app", "1.0")
    registry.sign("team", "app", "2.0")
    assert audited.audit()["oldest_open"] is None
