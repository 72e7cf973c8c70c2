"""Registries that were renamed, and second names: trust data that lies under a host that was not asked for."""

from typing import Any

import pytest

from dtr_audit.pipeline import connection
from dtr_audit_simulator.dtr.fault_kinds import TRUST, Body, Calls, Slow, Status
from dtr_audit_simulator.dtr.faults import CHANGEFEED, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import MakeRun

OLD = "old.example.mil"


@pytest.fixture
def registry() -> InMemoryRegistry:
    """Four repositories: one signed, one in part, one under the old name alone, and one never."""
    registry = InMemoryRegistry()
    for name in ("signed", "partly", "renamed", "never"):
        for tag in ("1.0", "2.0"):
            registry.push("team", name, tag)
    registry.sign("team", "signed", "1.0")
    registry.sign("team", "signed", "2.0")
    registry.sign("team", "partly", "1.0")
    return registry


def reasons(audited: Audited, run: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in audited.rows(run["run_id"]):
        found.setdefault(row["repository"], set()).add(row["reason"])
    return found


def trust_data(dtr: DtrServer, *guns: str) -> None:
    for gun in guns:
        dtr.notary.create(gun).sign("1.0", "sha256:" + "0" * 64)


def test_repository_with_trust_data_under_another_host_says_so_also_where_others_are_signed(
    audited: Audited, dtr: DtrServer, make_run: MakeRun
) -> None:
    trust_data(dtr, f"{OLD}/team/renamed", f"{OLD}/team/partly", f"{OLD}/team/signed", f"{dtr.host}/team/signed")
    run = make_run()
    assert (run["status"], run["complete"], run["tags"]["signed"]) == ("OPEN", True, 3)
    said = reasons(audited, run)
    unsigned = f"not signed under {dtr.host}"
    assert said["renamed"] == {
        f"{unsigned}; the Notary has trust data for this repository under {OLD}: was the registry renamed, or is that a second "
        "name of it?"
    }
    assert said["never"] == {unsigned}
    assert said["partly"] == {unsigned, ""}
    assert audited.findings()["team/renamed:1.0"]["reason"] in said["renamed"]
    assert run["other_hosts"] == {"repositories": 1, "first": [{"repository": "team/renamed", "host": OLD}]}
    (warning,) = (one for one in run["warnings"] if OLD in one)
    assert warning.startswith(
        "1 repository has no signed tag under the domains asked for, and trust data under another host: "
    )
    assert (
        f"team/renamed under {OLD}. If that is a former or a second name of this registry, add it to DTR_DOMAINS"
        in warning
    )
    (message,) = audited.messages()
    assert warning in message.body["warnings"]


def test_another_spelling_of_the_own_host_is_another_host_and_a_domain_that_was_asked_for_is_none(
    audited: Audited, dtr: DtrServer, make_run: MakeRun
) -> None:
    spelt = dtr.host.upper()
    trust_data(dtr, f"{spelt}/team/renamed", f"{OLD}/team/never")
    run = make_run(DTR_DOMAINS=f"{dtr.host},{OLD}")
    assert run["other_hosts"] == {"repositories": 1, "first": [{"repository": "team/renamed", "host": spelt}]}
    assert reasons(audited, run)["never"] == {f"not signed under {dtr.host}, {OLD}"}


def test_trust_data_that_was_deleted_is_not_named(dtr: DtrServer, make_run: MakeRun) -> None:
    trust_data(dtr, f"{OLD}/team/renamed")
    dtr.notary.delete(f"{OLD}/team/renamed")
    assert make_run()["other_hosts"] == {"repositories": 0, "first": []}


def test_changefeed_is_not_asked_where_every_repository_has_a_signed_tag(
    dtr: DtrServer, registry: InMemoryRegistry, make_run: MakeRun
) -> None:
    registry.delete_repository("team", "never")
    registry.delete_repository("team", "renamed")
    make_run()
    assert dtr.calls("/v2/_trust/changefeed") == ()


def test_changefeed_is_read_once_for_all_repositories(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    for number in range(20):
        registry.push("more", f"r{number:02d}", "1.0")
        trust_data(dtr, f"{OLD}/more/r{number:02d}")
    run = audited.audit()
    assert run["other_hosts"]["repositories"] == 20
    assert "the first of them: more/r00 under" in next(one for one in run["warnings"] if OLD in one)
    assert [record.status for record in dtr.calls("/v2/_trust/changefeed")] == [401, 200]


@pytest.mark.parametrize(
    "call_fault",
    [
        Status(500, CHANGEFEED),
        Status(503, CHANGEFEED, retry_after="120"),
        Status(404, Calls("/v2/_trust/*"), shape="html"),
        Body(b"{}", CHANGEFEED),
        Body(b'{"count": 1, "records": [{"ID": "1", "GUN": "\\ud800/team/renamed"}]}', CHANGEFEED),
        Status(500, TRUST),
        Slow(CHANGEFEED, delay=30.0),
    ],
    ids=["500", "503 with a wait", "404", "no list", "no text", "no trust data", "late"],
)
def test_changefeed_that_cannot_be_read_costs_the_run_nothing(
    audited: Audited, dtr: DtrServer, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, call_fault: Any
) -> None:
    monkeypatch.setattr(connection, "CHANGEFEED_SECONDS", 0.3)
    dtr.faults = Faults(on_calls=(call_fault,))
    run = make_run()
    assert (run["status"], run["complete"], run["other_hosts"]["repositories"]) == ("OPEN", True, 0)
    assert reasons(audited, run)["renamed"] == {f"not signed under {dtr.host}"}
    assert len(dtr.calls("/v2/_trust/changefeed")) <= 2 * 3  # steps


def test_signatures_that_are_verified_are_not_disturbed(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, make_run: MakeRun
) -> None:
    trust_data(dtr, f"{OLD}/team/renamed")
    own = dtr.notary.create(f"{dtr.host}/team/signed")
    own.add_signer("ci")
    for entry in registry.tags("team", "signed", dtr.host):
        own.sign(entry.name, entry.digest, signer="ci")
    run = make_run(TRUST_VERIFICATION="signatures")
    assert (run["complete"], run["tags"]["signed"]) == (True, 2)
    assert {one["repository"]: one["host"] for one in run["other_hosts"]["first"]} == {"team/renamed": OLD}
    assert any(OLD in reason for reason in reasons(audited, run)["renamed"])


def test_team_is_not_reported_of_the_repositories_of_others(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("payments", "api", "1.0")
    trust_data(dtr, f"{OLD}/team/renamed")
    audited.audit(ALERT_GROUPING="namespace")
    messages = {message.body["namespaces"][0]["namespace"]: message for message in audited.messages()}
    assert OLD in str(messages["team"].body["opened"])
    assert OLD not in str(messages["payments"].body)
