"""What is known before a run is the same, read in one go or asked for by repository."""

from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from dtr_audit.aws.findings import FindingsTable
from dtr_audit.core.finding import Finding
from dtr_audit.core.finding_changes import Moment, compare
from dtr_audit.core.model import JudgedTag, Repository, Tag, TrustFlags, Verdict
from dtr_audit.pipeline import previous_state
from dtr_audit.pipeline.previous_state import KnownBefore
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from tests.harness.audit_harness import Audited

SHOP, TILL, NEW = Repository("web", "shop"), Repository("web", "till"), Repository("web", "new")
MOMENT = Moment("20261122T030000Z", datetime(2026, 11, 22, 3, 0, tzinfo=UTC))


class Asked:
    """A client that notes what is asked of it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_paginator(self, operation: str) -> Any:
        self.asked.append(operation)
        return self._client.get_paginator(operation)


@pytest.fixture
def client() -> Asked:
    return Asked(boto3.resource("dynamodb").meta.client)


@pytest.fixture
def table(stack: Stack, client: Asked, request: pytest.FixtureRequest) -> FindingsTable:
    return FindingsTable(
        client,  # type: ignore[arg-type]
        stack.outputs["FindingsTableName"],
        f"known-{request.node.name}"[:60],
        resolved_days=30,
    )


def opened(table: FindingsTable, registry: str, repository: Repository, *names: str) -> dict[str, Finding]:
    flags = TrustFlags("dtr.example", in_notary=False, hash_mismatch=False)
    judged = [
        JudgedTag(
            Tag(name, "sha256:ab", "jdoe \N{SNOWMAN}", "", "", None, (flags,)), Verdict.UNSIGNED, "not signed", flags
        )
        for name in names
    ]
    moves = compare(registry, repository, judged, {}, is_complete=True, moment=MOMENT)
    table.write(moves.writes)
    return {finding.tag: finding for finding in moves.writes}


def fill(table: FindingsTable, stack: Stack) -> dict[Repository, dict[str, Finding]]:
    name = table._registry
    other = FindingsTable(
        table._client,
        stack.outputs["FindingsTableName"],
        f"{name}-other",
        resolved_days=30,
    )
    opened(other, f"{name}-other", SHOP, "not-mine")
    findings = {
        SHOP: opened(table, name, SHOP, *(f"1.{number}" for number in range(7))),
        TILL: opened(table, name, TILL, "1"),
    }
    table.remember_trust(SHOP, {"dtr.example": '{"version":1}'})
    table.remember_trust(NEW, {"dtr.example": '{"version":2}'})
    return findings


@pytest.mark.parametrize("together", [1, 3, 500])
@pytest.mark.parametrize(
    "file_bytes", [0, 2_000, previous_state.FILE_BYTES], ids=["nothing fits", "some fits", "all fits"]
)
def test_what_was_read_ahead_is_what_the_table_holds(
    monkeypatch: pytest.MonkeyPatch, table: FindingsTable, stack: Stack, together: int, file_bytes: int
) -> None:
    monkeypatch.setattr(previous_state, "ITEMS_TOGETHER", together)
    monkeypatch.setattr(previous_state, "FILE_BYTES", file_bytes)
    findings = fill(table, stack)
    before = KnownBefore(table, with_trust=True)
    for repository in (SHOP, TILL, NEW, Repository("no", "body")):
        assert before.known_of(repository) == table.known_of(repository)
        assert before.known_of(repository).findings == findings.get(repository, {})
    assert before.known_of(SHOP).trust == {"dtr.example": '{"version":1}'}
    assert before.known_of(NEW).trust == {"dtr.example": '{"version":2}'}
    before.close()


def test_trust_data_is_left_where_it_is_unless_it_is_asked_for(table: FindingsTable, stack: Stack) -> None:
    findings = fill(table, stack)
    before = KnownBefore(table, with_trust=False)
    assert before.known_of(SHOP).findings == findings[SHOP]
    assert before.known_of(SHOP).trust == before.known_of(NEW).trust == {}
    before.close()


def test_no_repository_is_asked_for_when_all_of_them_were_read(
    table: FindingsTable, stack: Stack, client: Asked
) -> None:
    fill(table, stack)
    before = KnownBefore(table, with_trust=False)
    before.known_of(SHOP)
    before.known_of(Repository("no", "body"))
    before.close()
    assert client.asked == ["scan"]


def test_a_run_asks_the_table_once_and_a_run_of_a_namespace_for_its_repositories(
    audited: Audited, registry: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    known_of, everything = FindingsTable.known_of, FindingsTable.everything

    def note_query(self: FindingsTable, repository: Repository) -> Any:
        asked.append(str(repository))
        return known_of(self, repository)

    def note_scan(self: FindingsTable, *, with_trust: bool) -> Any:
        asked.append("everything")
        return everything(self, with_trust=with_trust)

    monkeypatch.setattr(FindingsTable, "known_of", note_query)
    monkeypatch.setattr(FindingsTable, "everything", note_scan)
    for name in ("shop", "till"):
        registry.push("web", name, "1")
    registry.push("team", "api", "1")
    for opened_now in (3, 0):
        asked.clear()
        assert audited.audit()["findings"]["opened"] == opened_now
        assert asked == ["everything"]
    asked.clear()
    assert audited.audit({"namespaces": ["web"]})["findings"]["open"] == 2
    assert sorted(asked) == ["web/shop", "web/till"]
