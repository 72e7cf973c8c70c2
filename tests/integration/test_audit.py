"""The audit through its real parts: the function, the template's resources, and a registry over TLS."""

import itertools
import json
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient

from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.runs import RunsTable
from dtr_audit.core.finding import Finding
from dtr_audit.errors import LeaseHeldError
from dtr_audit_simulator.dtr.calls import SENSITIVE_SETTINGS
from dtr_audit_simulator.dtr.fault_kinds import ALL_TAGS, Calls, Slow, Status, tags_of
from dtr_audit_simulator.dtr.faults import API, Faults
from dtr_audit_simulator.dtr.manifests import COSIGN_SIGNATURE, manifest_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.transport import Request
from tests.harness.audit_harness import Audited
from tests.harness.fake_clock import FakeClock

ROW_KEYS = {
    "registry", "namespace", "repository", "tag", "digest", "verdict", "reason", "in_notary", "hash_mismatch",
    "signed_domain", "signers", "cosign_signed", "artifact", "exception_id", "exception_ends", "author", "author_name", "pushed_at",
    "media_type", "trust_expires",
    "rule_id", "run_id", "audited_at",
}  # fmt: skip


class WrittenFindings:
    """The findings that are in the table, as they come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self, count: int) -> None:
        with self._changed:
            self._count += count
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count >= count)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> WrittenFindings:
    written = WrittenFindings()
    write = FindingsTable.write

    def counted(table: FindingsTable, findings: Iterable[Finding]) -> None:
        batch = list(findings)
        write(table, batch)
        written.add(len(batch))

    monkeypatch.setattr(FindingsTable, "write", counted)
    return written


def sign(registry: InMemoryRegistry, *images: str) -> None:
    for image in images:
        path, tag = image.split(":")
        namespace, name = path.split("/")
        registry.sign(namespace, name, tag)


def push(registry: InMemoryRegistry, *images: str) -> None:
    for image in images:
        path, tag = image.split(":")
        namespace, name = path.split("/")
        registry.push(namespace, name, tag)


def test_a_registry_with_every_tag_signed_is_not_a_finding(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1", "web/shop:2", "platform/api:1")
    sign(registry, "web/shop:1", "web/shop:2", "platform/api:1")
    run = audited.audit()
    assert run["status"] == "NOT_A_FINDING"
    assert run["complete"] is True
    assert run["empty"] is False
    assert run["tags"] == {
        "audited": 3, "signed": 3, "unsigned": 0, "mismatched": 0, "untrusted": 0, "unknown": 0, "artifacts": 0,
        "cosign_only": 0, "neither": 0,
    }  # fmt: skip
    assert run["repositories"] == {"listed": 2, "audited": 2, "unreadable": 0, "removed": 0}
    assert audited.findings() == {}
    assert audited.messages() == []


def test_every_tag_has_a_row_with_the_same_keys(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1", "web/shop:2", "web/shop:3")
    registry.push("web", "shop", "sha256-" + "0" * 64 + ".sig", manifest=manifest_of("a signature", COSIGN_SIGNATURE))
    sign(registry, "web/shop:1", "web/shop:2")
    push(registry, "web/shop:2")
    run = audited.audit()
    rows = {row["tag"][:6]: row for row in audited.rows(run["run_id"])}
    assert {frozenset(row) for row in rows.values()} == {frozenset(ROW_KEYS)}
    assert {tag: row["verdict"] for tag, row in rows.items()} == {
        "1": "SIGNED", "2": "MISMATCHED", "3": "UNSIGNED", "sha256": None
    }  # fmt: skip
    assert rows["1"]["signed_domain"] == audited.server.host
    assert (rows["2"]["in_notary"], rows["2"]["hash_mismatch"]) == (True, True)
    assert rows["sha256"]["artifact"] is True
    assert rows["1"]["digest"].startswith("sha256:")
    assert rows["1"]["run_id"] == run["run_id"] == "20261101T030000Z"
    assert run["tags"]["audited"] == 3
    assert run["tags"]["artifacts"] == 1


def test_the_record_is_the_same_in_s3_in_the_table_and_in_the_result(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    push(registry, "web/shop:1")
    run = audited.audit()
    (key,) = audited.keys("runs")
    assert key == f"runs/registry={audited.name}/dt=2026-11-01/20261101T030000Z.json"
    body = audited.read(key)
    assert body.count(b"\n") == 1
    assert json.loads(body) == run
    (item,) = (
        one for one in audited.items("RunsTableName") if one["pk"] == audited.name and not one["sk"].startswith("#")
    )
    assert {name: item[name] for name in run} == run
    assert audited.keys("findings") == [
        f"findings/registry={audited.name}/dt=2026-11-01/20261101T030000Z-00001.jsonl.gz"
    ]


def test_the_rules_own_story_is_reported_once_at_each_turn(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1")

    run = audited.audit()
    assert run["status"] == "OPEN"
    assert run["findings"] == {"open": 1, "opened": 1, "resolved": 0, "excepted": 0}
    (message,) = audited.messages()
    assert message.attributes["event"] == "findings_changed"
    assert message.attributes["namespaces"] == ["web"]
    assert [item["tag"] for item in message.body["opened"]] == ["1"]

    run = audited.audit()
    assert run["status"] == "OPEN"
    assert run["findings"] == {"open": 1, "opened": 0, "resolved": 0, "excepted": 0}
    assert audited.messages() == []

    sign(registry, "web/shop:1")
    run = audited.audit()
    assert run["status"] == "NOT_A_FINDING"
    assert run["findings"] == {"open": 0, "opened": 0, "resolved": 1, "excepted": 0}
    (message,) = audited.messages()
    assert [item["tag"] for item in message.body["resolved"]] == ["1"]
    assert message.attributes["severity"] == "informational"
    assert audited.findings()["web/shop:1"]["state"] == "RESOLVED"
    assert audited.findings()["web/shop:1"]["expires_at"] > 0

    push(registry, "web/shop:1")
    run = audited.audit()
    assert run["status"] == "OPEN"
    (message,) = audited.messages()
    assert [(item["tag"], item["verdict"]) for item in message.body["opened"]] == [("1", "MISMATCHED")]
    assert "expires_at" not in audited.findings()["web/shop:1"]


def test_a_tag_that_was_unsigned_and_is_overwritten_after_signing_is_a_change(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    push(registry, "web/shop:1")
    audited.audit()
    audited.messages()
    sign(registry, "web/shop:1")
    push(registry, "web/shop:1")
    audited.audit()
    (message,) = audited.messages()
    assert [item["verdict"] for item in message.body["changed"]] == ["MISMATCHED"]


def test_what_is_gone_is_resolved_and_says_so(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1", "web/shop:2", "web/old:1", "web/old:2")
    audited.audit()
    audited.messages()
    registry.delete_tag("web", "shop", "1")
    registry.delete_repository("web", "old")
    run = audited.audit()
    assert run["findings"]["resolved"] == 3
    assert run["findings"]["open"] == 1
    findings = audited.findings()
    assert findings["web/shop:1"]["resolution"] == "tag removed"
    assert findings["web/old:1"]["resolution"] == findings["web/old:2"]["resolution"] == "repository removed"
    (message,) = audited.messages()
    assert message.body["counts"] == {"opened": 0, "changed": 0, "resolved": 3, "expiring": 0, "expired": 0}


def test_a_partial_run_resolves_nothing_outside_its_scope_and_never_passes(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    push(registry, "web/shop:1", "platform/api:1", "platform/gone:1")
    audited.audit()
    audited.messages()
    sign(registry, "web/shop:1", "platform/api:1")
    registry.delete_repository("platform", "gone")
    run = audited.audit({"namespaces": ["web"]})
    assert (run["scope"], run["complete"], run["status"]) == ("partial", True, "NOT_REVIEWED")
    assert run["repositories"]["listed"] == 1
    states = {image: item["state"] for image, item in audited.findings().items()}
    assert states == {"web/shop:1": "RESOLVED", "platform/api:1": "OPEN", "platform/gone:1": "OPEN"}
    # Those of other namespaces are open, and not what was asked about.
    assert run["findings"] == {"open": 0, "opened": 0, "resolved": 1, "excepted": 0}


def test_a_namespace_that_is_not_there_is_no_pass(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1")
    sign(registry, "web/shop:1")
    run = audited.audit({"namespaces": ["wbe"]})
    assert run["status"] == "NOT_REVIEWED"
    assert "wbe" in run["incomplete_because"][0]


def test_changes_of_a_run_without_alerts_is_kept_for_the_next(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1")
    audited.audit({**audited.event(), "scheduled_time": "2026-10-31T03:00:00Z", "alerts": False})
    assert audited.messages() == []
    assert [move["news"] for move in audited.findings()["web/shop:1"]["unannounced"]] == ["opened"]
    audited.audit()
    (message,) = audited.messages()
    assert message.body["counts"]["opened"] == 1
    assert "unannounced" not in audited.findings()["web/shop:1"]


def test_an_event_delivered_twice_is_one_run(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1")
    run = audited.audit()
    assert len(audited.messages()) == 1
    asked = len(audited.server.requests)
    assert audited.audit(audited.event()) == {"run_id": run["run_id"], "finished_before": True}
    assert len(audited.server.requests) == asked
    assert audited.messages() == []


def test_two_runs_of_one_registry_never_overlap(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1")
    table = audited.stack.outputs["RunsTableName"]
    runs = RunsTable(boto3.resource("dynamodb").meta.client, table, audited.name)
    runs.take_lease("another", "attempt", "20261031T030000Z", now=datetime.now(UTC), seconds=60)
    with pytest.raises(LeaseHeldError, match="20261031T030000Z"):
        audited.audit()
    runs.release_lease("attempt")
    assert audited.audit()["status"] == "OPEN"


def test_a_lease_that_has_run_out_keeps_no_one_away(audited: Audited) -> None:
    runs = RunsTable(boto3.resource("dynamodb").meta.client, audited.stack.outputs["RunsTableName"], audited.name)
    runs.take_lease("dead", "attempt", "20261031T030000Z", now=datetime(2026, 1, 1, tzinfo=UTC), seconds=900)
    assert audited.audit()["complete"] is True


def test_a_registry_verified_empty_says_so(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.create_repository("web", "shop")
    run = audited.audit()
    assert (run["status"], run["empty"], run["complete"]) == ("NOT_A_FINDING", True, True)


def test_signed_under_any_of_several_domains_is_signed(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1", "web/shop:2", "web/shop:3")
    registry.sign("web", "shop", "1", domain="old.example.com")
    registry.sign("web", "shop", "2", domain="dtr.example.com:4443")
    run = audited.audit(DTR_DOMAINS="old.example.com,dtr.example.com:4443")
    rows = {row["tag"]: (row["verdict"], row["signed_domain"]) for row in audited.rows(run["run_id"])}
    assert rows == {
        "1": ("SIGNED", "old.example.com"),
        "2": ("SIGNED", "dtr.example.com:4443"),
        "3": ("UNSIGNED", ""),
    }


def test_a_second_domain_that_cannot_be_read_makes_unsigned_unknown(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push(registry, "web/shop:1", "web/shop:2")
    registry.sign("web", "shop", "1", domain="a.example.com")
    failing = Faults(on_calls=(Status(500, tags_of("web/shop")),))

    def fail_under_the_second(request: Request) -> None:
        dtr.faults = failing if request.parameter("domain") == "b.example.com" else Faults()

    dtr.on_request(fail_under_the_second, "/api/v0/repositories/web/shop/tags")
    run = audited.audit(DTR_DOMAINS="a.example.com,b.example.com")
    assert audited.verdicts(run["run_id"]) == {"web/shop:1": "SIGNED", "web/shop:2": "UNKNOWN"}
    assert run["status"] == "NOT_REVIEWED"
    assert audited.findings() == {}


@pytest.mark.parametrize("is_once", [True, False])
def test_a_push_between_two_domains_is_read_again_and_never_guessed(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, is_once: bool
) -> None:
    push(registry, "web/shop:1", "web/shop:2")
    for tag in ("1", "2"):
        registry.sign("web", "shop", tag, domain="a.example.com" if tag == "1" else "b.example.com")
    pushes = 0

    def push_more(request: Request) -> None:
        nonlocal pushes
        if request.parameter("domain") == "b.example.com" and not (is_once and pushes):
            pushes += 1
            registry.push("web", "shop", f"new-{pushes}")
            registry.sign("web", "shop", f"new-{pushes}", domain="a.example.com")

    dtr.on_request(push_more, "/api/v0/repositories/web/shop/tags")
    run = audited.audit(DTR_DOMAINS="a.example.com,b.example.com")
    verdicts = audited.verdicts(run["run_id"])
    assert (verdicts["web/shop:1"], verdicts["web/shop:2"], verdicts["web/shop:new-1"]) == ("SIGNED",) * 3
    assert audited.findings() == {}
    if is_once:
        assert run["status"] == "NOT_A_FINDING"
    else:
        assert verdicts["web/shop:new-2"] == "UNKNOWN"
        assert run["status"] == "NOT_REVIEWED"


def test_a_second_attempt_that_takes_over_silences_the_first(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    """A queue that delivers an event twice starts the same owner twice."""
    push(registry, "web/shop:1")
    runs = RunsTable(boto3.resource("dynamodb").meta.client, audited.stack.outputs["RunsTableName"], audited.name)

    def take_over(_: Request) -> None:
        runs.take_lease("same", "second", "20261101T030000Z", now=datetime.now(UTC), seconds=60)

    dtr.on_request(take_over, "/api/v0/repositories/web/shop/tags")
    with pytest.raises(LeaseHeldError, match="another attempt"):
        audited.audit(request_id="same")
    assert audited.keys("findings") == audited.keys("runs") == []
    assert audited.messages() == []


def test_an_attempt_that_ends_leaves_its_successor_the_lease(audited: Audited) -> None:
    table = audited.stack.outputs["RunsTableName"]
    runs = RunsTable(boto3.resource("dynamodb").meta.client, table, audited.name)
    for attempt in ("first", "second"):
        runs.take_lease("same", attempt, "20261101T030000Z", now=datetime.now(UTC), seconds=60)
    runs.release_lease("first")
    runs.confirm_lease("second")
    with pytest.raises(LeaseHeldError):
        runs.confirm_lease("first")


def test_what_opens_and_closes_before_it_is_reported_says_how_it_stands(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    push(registry, "web/shop:1")
    audited.audit()
    audited.messages()
    sign(registry, "web/shop:1")
    audited.audit({"scheduled_time": "2026-12-01T03:00:00Z", "alerts": False})
    push(registry, "web/shop:1")
    audited.audit()
    (message,) = audited.messages()
    (opened,), (resolved,) = message.body["opened"], message.body["resolved"]
    assert opened["state"] == resolved["state"] == "OPEN"
    assert (resolved["run_id"], opened["run_id"]) == ("20261201T030000Z", "20261102T030000Z")
    assert "(signed; open again)" in audited.mails()[-1].text


def test_a_thread_left_waiting_changes_nothing_when_its_answer_comes(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, fake_clock: FakeClock, written: WrittenFindings
) -> None:
    push(registry, "web/shop:1", "web/late:1")
    may_answer = threading.Event()

    def answer_late(_: Request) -> None:
        written.wait_for(1)
        fake_clock.run_out()
        may_answer.wait()

    dtr.on_request(answer_late, "/api/v0/repositories/web/late/tags")
    run = audited.audit(seconds=fake_clock.SECONDS)
    assert run["repositories"]["audited"] == 1
    waiting = [thread for thread in threading.enumerate() if thread.name.startswith("examine-")]
    assert waiting
    may_answer.set()
    for thread in waiting:
        thread.join()
    assert set(audited.findings()) == {"web/shop:1"}


def test_a_registry_where_nothing_is_signed_points_to_the_domain(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1", "web/shop:2")
    sign(registry, "web/shop:1", "web/shop:2")
    run = audited.audit(DTR_DOMAINS="alias.example.com")
    assert run["status"] == "OPEN"
    assert any("alias.example.com" in warning and "DTR_DOMAINS" in warning for warning in run["warnings"])


def test_the_domain_defaults_to_what_the_registry_calls_itself(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push(registry, "web/shop:1")
    sign(registry, "web/shop:1")
    run = audited.audit()
    assert run["domains"] == [dtr.host]
    dtr.faults = Faults(settings_without_host=Calls())
    run = audited.audit()
    assert run["domains"] == [dtr.host]
    assert any("dtrHost" in warning for warning in run["warnings"])


def test_an_incomplete_run_resolves_only_what_it_read(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push(registry, "web/shop:1", "web/broken:1")
    audited.audit()
    audited.messages()
    sign(registry, "web/shop:1", "web/broken:1")
    dtr.faults = Faults(on_calls=(Status(500, tags_of("web/broken")),))
    run = audited.audit()
    assert (run["complete"], run["status"]) == (False, "OPEN")
    assert run["repositories"] == {"listed": 2, "audited": 1, "unreadable": 1, "removed": 0}
    assert run["unreadable"][0]["repository"] == "web/broken"
    states = {image: item["state"] for image, item in audited.findings().items()}
    assert states == {"web/shop:1": "RESOLVED", "web/broken:1": "OPEN"}
    assert run["findings"]["open"] == 1
    (message,) = audited.messages()
    assert message.attributes["complete"] == "false"
    assert "web/broken" in message.body["incomplete_because"][0]


def test_an_audit_that_could_not_be_completed_is_an_alert_each_time(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push(registry, "web/shop:1")
    sign(registry, "web/shop:1")
    dtr.faults = Faults(on_calls=(Status(500, ALL_TAGS),))
    for _ in range(2):
        run = audited.audit()
        assert run["status"] == "NOT_REVIEWED"
        (message,) = audited.messages()
        assert message.attributes["event"] == "audit_incomplete"
        assert message.attributes["status"] == "NOT_REVIEWED"


def test_changes_in_an_incomplete_run_is_reported_in_one_message(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push(registry, "web/shop:1", "web/broken:1")
    dtr.faults = Faults(on_calls=(Status(500, tags_of("web/broken")),))
    run = audited.audit()
    assert run["status"] == "OPEN"
    (message,) = audited.messages()
    assert (message.attributes["event"], message.attributes["complete"]) == ("findings_changed", "false")


def test_a_reminder_comes_when_it_is_due_and_not_before(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1")
    audited.audit(REMINDER_DAYS="7")
    assert len(audited.messages()) == 1
    audited.audit(REMINDER_DAYS="7")
    assert audited.messages() == []
    runs = audited.stack.outputs["RunsTableName"]
    table = boto3.resource("dynamodb").Table(runs)
    table.update_item(
        Key={"pk": audited.name, "sk": "#alerts"},
        UpdateExpression="SET last_digest_at = :then",
        ExpressionAttributeValues={":then": "2026-01-01T00:00:00.000Z"},
    )
    audited.audit(REMINDER_DAYS="0")
    assert audited.messages() == []
    audited.audit(REMINDER_DAYS="7")
    (message,) = audited.messages()
    assert message.attributes["event"] == "reminder"
    audited.audit(REMINDER_DAYS="7")
    assert audited.messages() == []


def test_each_namespace_gets_its_own_changes_if_asked_for(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1", "web/shop:2", "platform/api:1")
    team = audited.stack.subscribe_queue({"registry": [audited.name], "namespaces": ["platform"]})
    audited.audit(ALERT_GROUPING="namespace")
    messages = audited.messages()
    assert sorted(message.attributes["namespaces"][0] for message in messages) == ["platform", "web"]
    (own,) = team.messages()
    assert [item["repository"] for item in own.body["opened"]] == ["platform/api"]
    assert len({message.body["id"] for message in messages}) == 2


def test_a_teams_own_message_names_no_repository_of_another(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push(registry, "web/shop:1", "web/broken:1", "hidden/plan:1")
    dtr.faults = Faults(on_calls=(Status(500, tags_of("web/broken")), Status(500, tags_of("hidden/plan"))))
    audited.audit(ALERT_GROUPING="namespace")
    (team,) = (message for message in audited.messages() if message.attributes.get("namespaces") == ["web"])
    assert team.attributes["complete"] == "false"
    own, others = team.body["incomplete_because"]
    assert own.startswith("web/broken could not be read to the end: GET ")
    assert others.startswith("and 1 reason elsewhere in the registry")
    texts = [team.text, *(mail.text for mail in audited.mails() if mail.attributes.get("namespaces") == ["web"])]
    assert len(texts) == 2
    assert all("web/broken" in text and "hidden" not in text for text in texts)


def test_a_team_that_filters_for_its_namespace_gets_the_common_digest(
    audited: Audited, registry: InMemoryRegistry
) -> None:
    push(registry, "web/shop:1", "platform/api:1")
    sign(registry, "platform/api:1")
    web = audited.stack.subscribe_queue({"registry": [audited.name], "namespaces": ["web"]})
    platform = audited.stack.subscribe_queue({"registry": [audited.name], "namespaces": ["platform"]})
    audited.audit()
    assert len(web.messages()) == 1
    assert platform.messages() == []


def test_the_mail_reports_what_whose_when_and_how_to_fix_it(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1", author="mallory", at=datetime(2026, 10, 31, 12, 0, tzinfo=UTC))
    run = audited.audit()
    (mail,) = audited.mails()
    (row,) = audited.rows(run["run_id"])
    assert mail.subject is not None
    assert len(mail.subject) <= 100
    assert audited.name in mail.subject
    for part in ("web/shop:1", "UNSIGNED", row["digest"], "2026-10-31", row["author"]):
        assert part in mail.text
    (message,) = audited.messages()
    lines = message.body["fix"]
    assert "".join(f"    {line}\n" for line in lines) in mail.text
    assert f"GUN={audited.server.host}/web/shop TAG=1 DIGEST={row['digest'].removeprefix('sha256:')} &&" in lines


def test_the_fix_of_a_list_of_images_keeps_all_its_platforms(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("web", "shop", "1", media_type="application/vnd.docker.distribution.manifest.list.v2+json")
    audited.audit()
    (mail,) = audited.mails()
    (row,) = audited.rows("20261101T030000Z")
    assert f"TAG=1 DIGEST={row['digest'].removeprefix('sha256:')} &&" in mail.text
    assert "One signature covers the images for all platforms" in mail.text
    assert audited.findings()["web/shop:1"]["media_type"] == row["media_type"]
    push(registry, "web/shop:1")
    audited.audit()
    assert audited.findings()["web/shop:1"]["media_type"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_a_run_stops_in_time_says_so_and_keeps_what_it_has(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, fake_clock: FakeClock
) -> None:
    for number in range(30):
        push(registry, f"web/s{number}:1")
    audited.audit()
    audited.messages()
    for number in range(30):
        sign(registry, f"web/s{number}:1")
    asked = itertools.count(1)
    dtr.on_request(lambda _: fake_clock.run_out() if next(asked) == 10 else None, "/api/v0/repositories/*/tags")
    run = audited.audit(seconds=fake_clock.SECONDS, CONCURRENCY="2")
    assert run["status"] == "OPEN"
    assert 0 < run["repositories"]["audited"] < 30
    assert run["repositories"]["unreadable"] == 0
    assert any("time limit" in reason for reason in run["incomplete_because"])
    assert len(audited.rows(run["run_id"])) == run["repositories"]["audited"]
    assert run["findings"]["open"] == 30
    (message,) = audited.messages()
    assert message.attributes["event"] == "audit_incomplete"


@pytest.mark.parametrize("slow", [Slow(tags_of("web/s0"), head_pause=1.0), Slow(tags_of("web/s0"), body_pause=1.0)])
def test_one_answer_that_never_ends_does_not_outlast_the_time(
    audited: Audited,
    registry: InMemoryRegistry,
    dtr: DtrServer,
    fake_clock: FakeClock,
    written: WrittenFindings,
    *,
    slow: Slow,
) -> None:
    for number in range(5):
        push(registry, f"web/s{number}:1")
    dtr.faults = Faults(on_calls=(slow,))

    def let_the_others_go_first(_: Request) -> None:
        written.wait_for(4)
        fake_clock.run_out()

    dtr.on_request(let_the_others_go_first, "/api/v0/repositories/web/s0/tags")
    run = audited.audit(seconds=fake_clock.SECONDS)
    assert run["complete"] is False
    assert any("time limit" in reason for reason in run["incomplete_because"])
    assert run["repositories"]["audited"] == 4


def test_nothing_secret_reaches_a_log_a_file_a_table_or_a_message(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, capfd: pytest.CaptureFixture[str]
) -> None:
    push(registry, "web/shop:1", "web/broken:1")
    faults = (
        Faults(secrets_echoed=Calls(), on_calls=(Status(500, tags_of("web/broken")),)),
        Faults(secrets_echoed=Calls(), on_calls=(Status(403, ALL_TAGS),)),
        Faults(secrets_echoed=Calls(), on_calls=(Status(401, ALL_TAGS),)),
        Faults(secrets_echoed=Calls(), admin_rights_lost=Calls()),
        Faults(secrets_echoed=Calls(), on_calls=(Status(401, Calls("/auth/token")), Status(401, Calls("/api/*")))),
    )
    tokens: set[str] = set()

    def note(request: Any) -> None:
        tokens.add(request.header("authorization"))

    dtr.on_request(note)
    for fault in faults:
        dtr.faults = fault
        audited.audit(POWERTOOLS_LOG_LEVEL="DEBUG")
    everything = "\n".join(
        (
            *capfd.readouterr(),
            json.dumps(audited.items("FindingsTableName") + audited.items("RunsTableName"), default=str),
            *(audited.read(key).decode(errors="replace") for key in audited.keys("runs")),
            *(json.dumps(row) for key in audited.keys("findings") for row in audited.rows(key.split("/")[-1][:16])),
            *(message.text for message in audited.messages()),
            *(mail.text for mail in audited.mails()),
        )
    )
    assert "web/broken" in everything
    secrets = {dtr.admin.password, *(token.split(" ")[-1] for token in tokens if token)}
    assert len(secrets) >= 3
    for secret in secrets:
        assert secret not in everything
    assert "must-never-leak" in str(SENSITIVE_SETTINGS)
    assert "must-never-leak" not in everything


def test_the_login_is_under_way_while_aws_is_asked(
    audited: Audited, dtr: DtrServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, call = threading.Event(), vars(BaseClient)["_make_api_call"]
    came_first: list[bool] = []

    def wait_for_the_registry(client: Any, operation: str, arguments: Any) -> Any:
        if operation == "ListObjectsV2" and not came_first:
            came_first.append(called.wait())
        return call(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", wait_for_the_registry)
    dtr.on_request(lambda _: called.set())
    assert audited.audit()["complete"] is True
    assert came_first == [True]


def test_what_stands_beside_the_rule_is_asked_while_repositories_are_read(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push(registry, "web/shop:1")
    asked = threading.Event()
    came_first: list[bool] = []
    dtr.on_request(lambda _: asked.set(), "/api/v0/imagescan/status")
    dtr.on_request(lambda _: came_first.append(asked.wait()), ALL_TAGS.path)
    run = audited.audit()
    assert run["complete"] is True
    assert len(run["facts"]) == 3
    assert came_first == [True]


@pytest.mark.usefixtures("fake_clock")
def test_what_stands_beside_the_rule_never_keeps_the_account_from_being_verified(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push(registry, "web/shop:1")
    sign(registry, "web/shop:1")
    busy = Status(503, Calls("/api/v0/imagescan/status"), retry_after="100")
    dtr.faults = Faults(on_calls=(busy,), tokens_revoked=API.limited(after=3, times=1))
    run = audited.audit(seconds=80.0, CONCURRENCY="1")
    assert (run["complete"], run["status"]) == (True, "NOT_A_FINDING")


def test_a_thread_of_the_audit_never_outlives_it(audited: Audited, registry: InMemoryRegistry) -> None:
    push(registry, "web/shop:1")
    audited.audit()
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith(("examine-", "answer")) for name in names)
