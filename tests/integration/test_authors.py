"""Who pushed a finding is named where the registry names the account behind the id; that is never required."""

import pytest

from dtr_audit_simulator.dtr.accounts import Account, account_id
from dtr_audit_simulator.dtr.fault_kinds import Body, CallFault, Calls, Closed, Redirect, Rewrite, Status
from dtr_audit_simulator.dtr.faults import LOGIN_PAGE, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import MakeRun

ACCOUNTS = Calls("/enzi/v0/accounts/*")
JANE = account_id("jane.doe")


def lookups(dtr: DtrServer) -> list[str]:
    return [call.path for call in dtr.requests if call.path.startswith("/enzi/")]


def test_the_account_that_pushed_a_finding_is_named_in_finding_row_mail_and_report(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, make_run: MakeRun
) -> None:
    dtr.accounts.add(Account("jane.doe", "secret"))
    for tag in ("1.0", "2.0"):
        registry.push("team", "app", tag, author=JANE)
    registry.push("team", "app", "signed", author=account_id("another"))
    registry.sign("team", "app", "signed")
    run = make_run()
    finding = audited.findings()["team/app:1.0"]
    assert (finding["author"], finding["author_name"]) == (JANE, "jane.doe")
    rows = {row["tag"]: (row["author"], row["author_name"]) for row in audited.rows(run["run_id"])}
    assert rows == {"1.0": (JANE, "jane.doe"), "2.0": (JANE, "jane.doe"), "signed": (account_id("another"), None)}
    (message,) = audited.messages()
    assert {(item["author"], item["author_name"]) for item in message.body["opened"]} == {(JANE, "jane.doe")}
    assert "by jane.doe" in audited.mails()[0].text
    assert "jane.doe" in audited.read(run["evidence"]["report"]).decode()
    assert lookups(dtr) == [f"/enzi/v0/accounts/{JANE}"], "once, and for findings alone"


@pytest.mark.parametrize(
    "call_fault",
    [
        Status(404, ACCOUNTS),
        Status(500, ACCOUNTS),
        Closed(ACCOUNTS),
        Redirect("/login", ACCOUNTS),
        Body(LOGIN_PAGE, ACCOUNTS),
        Body(b"[]", ACCOUNTS),
        Body(b'{"name": "jane.doe", "id": "another"}', ACCOUNTS),
        Body(f'{{"name": 1, "id": "{JANE}"}}'.encode(), ACCOUNTS),
    ],
    ids=lambda call_fault: type(call_fault).__name__,
)
def test_an_account_that_is_not_named_is_no_fault_and_its_id_stands_alone(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, call_fault: CallFault
) -> None:
    registry.push("team", "app", "1.0", author=JANE)
    dtr.faults = Faults(on_calls=(call_fault,))
    run = audited.audit()
    assert run["complete"] is True
    assert [(row["author"], row["author_name"]) for row in audited.rows(run["run_id"])] == [(JANE, None)]
    assert f"by {JANE}" in audited.mails()[0].text
    assert len(lookups(dtr)) == 1


@pytest.mark.parametrize("author", ["jane.doe", "../../api/v0/meta/settings", f"{JANE}/..", "", JANE + "\n"])
def test_nothing_is_asked_for_an_author_that_is_no_uuid(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, author: str
) -> None:
    registry.push("team", "app", "1.0")
    dtr.faults = Faults(rewrites=(Rewrite({"author": author}),))
    assert audited.audit()["complete"] is True
    assert lookups(dtr) == []


def test_a_name_that_is_not_reported_any_more_stays_and_moves_nothing(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    dtr.accounts.add(Account("jane.doe", "secret"))
    registry.push("team", "app", "1.0", author=JANE)
    audited.audit()
    before = audited.findings()["team/app:1.0"]
    dtr.faults = Faults(on_calls=(Status(404, ACCOUNTS),))
    audited.audit()
    after = audited.findings()["team/app:1.0"]
    assert after["author_name"] == "jane.doe"
    assert after["last_changed"] == before["last_changed"]


def test_lookups_end_after_a_few_failures_in_a_row(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    for number in range(20):
        registry.push("team", f"app-{number}", "1.0", author=account_id(str(number)))
    dtr.faults = Faults(on_calls=(Status(404, ACCOUNTS),))
    assert audited.audit(CONCURRENCY="1")["complete"] is True
    assert 5 <= len(lookups(dtr)) < 10


def test_a_hostile_name_is_cut_and_escaped(audited: Audited, dtr: DtrServer, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0", author=JANE)
    body = f'{{"id": "{JANE}", "name": "<script>\\u001b{"x" * 500}"}}'.encode()
    dtr.faults = Faults(on_calls=(Body(body, ACCOUNTS),))
    run = audited.audit()
    name = audited.findings()["team/app:1.0"]["author_name"]
    assert name.startswith("<script>\ufffdx")
    assert len(name) <= 128
    assert "<script>\ufffd" not in audited.read(run["evidence"]["report"]).decode()
