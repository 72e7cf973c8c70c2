"""Repositories that are listed and answer 404: orphans of deleted accounts, told apart from those that the account may not read."""

from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import MakeRun

ORPHAN = (
    "an orphan: it is still listed, and its account 'gone' does not exist any more. "
    "Recreate the account, or delete the repository"
)


def test_orphans_of_a_deleted_account_are_named_with_the_remedy_apart_from_what_may_not_be_read(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, make_run: MakeRun
) -> None:
    for namespace in ("gone", "hidden", "refused", "team"):
        registry.push(namespace, "app", "1.0")
        registry.sign(namespace, "app", "1.0")
    dtr.faults = Faults(
        on_calls=(Status(403, tags_of("refused/app")),),
        orphaned=tags_of("gone/app"),
        missing_though_listed=tags_of("hidden/app"),
    )
    run = make_run()
    assert (run["complete"], run["status"]) == (False, "NOT_REVIEWED")
    reasons = {entry["repository"]: entry["reason"] for entry in run["unreadable"]}
    assert reasons.keys() == {"gone/app", "hidden/app", "refused/app"}
    assert reasons["gone/app"].startswith(ORPHAN)
    assert "yet it is listed, so this account may not read it" in reasons["hidden/app"]
    assert "The account must be an administrator" in reasons["refused/app"]
    assert [name for name, reason in reasons.items() if "orphan" in reason] == ["gone/app"]
    assert ORPHAN in " ".join(run["incomplete_because"])


def test_findings_of_an_orphan_stay_open(audited: Audited, dtr: DtrServer, registry: InMemoryRegistry) -> None:
    registry.push("gone", "app", "1.0")
    audited.audit()
    dtr.faults = Faults(orphaned=tags_of("gone/app"))
    assert audited.audit()["findings"]["open"] == 1


def test_a_deleted_account_whose_repository_is_not_listed_any_more_is_a_removal(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("gone", "app", "1.0")
    registry.push("team", "app", "1.0")
    registry.sign("team", "app", "1.0")
    once = tags_of("gone/app")
    dtr.faults = Faults(orphaned=once)
    dtr.on_request(lambda _: _delete(registry), once.path)
    run = audited.audit()
    assert (run["complete"], run["repositories"]["removed"]) == (True, 1)


def _delete(registry: InMemoryRegistry) -> None:
    if any(one.namespace == "gone" for one in registry.repositories()):
        registry.delete_repository("gone", "app")
