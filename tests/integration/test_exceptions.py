"""Exceptions, from the document in the bucket to what the function writes and tells."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from dtr_audit.aws.clients import AwsClients
from dtr_audit.core.exceptions import KEY
from dtr_audit.core.request import AuditRequest
from dtr_audit.pipeline.audit import audit
from dtr_audit.settings import Settings
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited

TODAY = datetime.now(UTC).date()
LONG, SOON, PAST = (str(TODAY + timedelta(days=days)) for days in (90, 3, -3))
KINDS = ("opened", "expired", "expiring", "changed", "resolved")


def exception(**changes: Any) -> dict[str, Any]:
    return {
        "id": "EX-7",
        "namespace": "legacy",
        "repository": "*",
        "tag": "*",
        "owner": "j.doe@example.mil",
        "reason": "vendor image, replacement under way",
        "reference": "POA&M 2026-14",
        "ends": LONG,
        **changes,
    }


class Policy:
    """The document in the bucket."""

    def __init__(self, audited: Audited) -> None:
        self._s3 = audited.stack.s3
        self._bucket = audited.stack.outputs["BucketName"]

    def put(self, *exceptions: dict[str, Any]) -> str:
        """Write it anew; gives its version."""
        return self.put_bytes(json.dumps({"exceptions": exceptions}).encode())

    def put_bytes(self, content: bytes) -> str:
        return self._s3.put_object(Bucket=self._bucket, Key=KEY, Body=content)["VersionId"]

    def remove(self) -> None:
        self._s3.delete_object(Bucket=self._bucket, Key=KEY)


@pytest.fixture
def policy(audited: Audited) -> Iterator[Policy]:
    policy = Policy(audited)
    yield policy
    policy.remove()


def reported(audited: Audited) -> list[tuple[str, str]]:
    """What subscribers have heard since: the event of each message that is about no finding, and the findings' moves."""
    notified: list[tuple[str, str]] = []
    for message in audited.messages():
        if message.body["event"] != "findings_changed":
            notified.append((message.body["event"], ""))
        for kind in KINDS:
            notified += [(kind, f"{item['repository']}:{item['tag']}") for item in message.body[kind]]
    return notified


def exceptions_of(audited: Audited, run: dict[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    return {
        f"{row['namespace']}/{row['repository']}:{row['tag']}": (row["exception_id"], row["exception_ends"])
        for row in audited.rows(run["run_id"])
    }


def evidence(audited: Audited, run: dict[str, Any], kind: str) -> str:
    return audited.read(run["evidence"][kind]).decode()


# --- What it makes of a finding --------------------------------------------------------------------------------------------


def test_an_excepted_finding_stays_open_everywhere_and_is_not_announced(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    registry.push("legacy", "crm", "2.0")
    registry.sign("legacy", "crm", "2.0")
    version = policy.put(exception())
    run = audited.audit(EVIDENCE_FORMATS="report,ckl,cklb,xccdf,hdf")
    assert (run["status"], run["complete"]) == ("OPEN", True)
    assert run["findings"] == {"open": 1, "opened": 1, "resolved": 0, "excepted": 1}
    assert run["exceptions"] == {"version_id": version, "holding": 1, "ended": 0, "unmatched": 0, "problem": None}
    assert exceptions_of(audited, run) == {"legacy/crm:1.0": ("EX-7", LONG), "legacy/crm:2.0": (None, None)}
    assert audited.verdicts(run["run_id"])["legacy/crm:1.0"] == "UNSIGNED"
    assert audited.findings()["legacy/crm:1.0"]["state"] == "OPEN"
    assert reported(audited) == []
    for kind in ("ckl", "cklb", "xccdf", "hdf", "report"):
        content = evidence(audited, run, kind)
        for text in ("EX-7", LONG, "j.doe@example.mil", "vendor image, replacement under way"):
            # The report names no ids.
            assert text in content or (kind, text) == ("report", "EX-7"), (kind, text)
        assert "2026-14" in content
    assert "<STATUS>Open</STATUS>" in evidence(audited, run, "ckl")
    assert version in evidence(audited, run, "report")
    assert "1 open, 1 excepted" in evidence(audited, run, "report"), "of the namespace"


def test_no_document_excludes_nothing_and_is_no_trouble(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("legacy", "crm", "1.0")
    run = audited.audit()
    assert run["exceptions"] == {"version_id": None, "holding": 0, "ended": 0, "unmatched": 0, "problem": None}
    assert exceptions_of(audited, run) == {"legacy/crm:1.0": (None, None)}
    assert run["warnings"] == [text for text in run["warnings"] if "except" not in text]
    assert reported(audited) == [("opened", "legacy/crm:1.0")]


def test_what_the_exception_does_not_mean_is_announced_and_the_message_counts_what_is_excepted(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    registry.push("legacy", "fax", "1.0")
    policy.put(exception(repository="crm"))
    run = audited.audit()
    assert run["findings"] == {"open": 2, "opened": 2, "resolved": 0, "excepted": 1}
    (message,) = audited.messages()
    assert [item["repository"] for item in message.body["opened"]] == ["legacy/fax"]
    assert message.body["counts"]["opened"] == 1
    assert message.body["findings"]["excepted"] == 1
    (namespace,) = message.body["namespaces"]
    assert (namespace["open"], namespace["excepted"]) == (2, 1)
    assert "1 of them is under an exception" in audited.mails()[-1].text


def test_by_namespace_a_team_whose_findings_are_all_excepted_gets_nothing(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    registry.push("web", "shop", "1.0")
    policy.put(exception())
    audited.audit(ALERT_GROUPING="namespace")
    (message,) = audited.messages()
    assert message.attributes["namespaces"] == ["web"]


def test_no_one_is_reminded_of_what_is_excepted(audited: Audited, registry: InMemoryRegistry, policy: Policy) -> None:
    registry.push("legacy", "crm", "1.0")
    policy.put(exception())
    for _ in range(2):
        run = audited.audit(REMINDER_DAYS="1")
        assert run["findings"]["open"] == 1
    assert reported(audited) == []


# --- What becomes of it ----------------------------------------------------------------------------------------------------


class Calendar:
    """The audit, one night after the other; the registry's and AWS's clocks stand still meanwhile."""

    def __init__(self, audited: Audited) -> None:
        self._audited = audited
        self._settings = Settings.from_environment(
            {**audited.stack.function_environment("AuditFunction"), **audited.environment, "REMINDER_DAYS": "1"}
        )
        self._clients = AwsClients(connections=4)

    def day(self, number: int) -> dict[str, Any]:
        at = datetime(2026, 11, 1, 3, tzinfo=UTC) + timedelta(days=number)
        request = AuditRequest.from_event({"scheduled_time": at.isoformat()}, now=at)
        run = audit(self._settings, request, self._clients, owner=f"night {number}", seconds=60, now=lambda: at)
        assert run is not None
        return run.as_dict()


def test_the_end_of_an_exception_is_reported_a_week_before_and_when_it_comes_and_each_once(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    calendar = Calendar(audited)
    policy.put(exception(ends="2026-11-11"))  # the tenth night's day
    notified = {}
    for number in range(13):
        run = calendar.day(number)
        assert run["findings"]["open"] == 1
        assert run["findings"]["excepted"] == (1 if number <= 10 else 0)
        assert exceptions_of(audited, run)["legacy/crm:1.0"][0] == ("EX-7" if number <= 10 else None)
        ended = [text for text in run["warnings"] if "EX-7 (2026-11-11)" in text]
        assert len(ended) == (1 if number > 10 else 0)
        if events := reported(audited):
            notified[number] = events
    assert notified == {
        3: [("expiring", "legacy/crm:1.0")],
        11: [("expired", "legacy/crm:1.0")],
        12: [("reminder", "")],  # from now on it is a finding like any other
    }


def test_a_withdrawn_exception_is_reported_with_who_answered_for_it(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    policy.put(exception())
    audited.audit()
    policy.remove()
    run = audited.audit()
    assert run["findings"]["excepted"] == 0
    (message,) = audited.messages()
    (item,) = message.body["expired"]
    assert (item["tag"], item["resolution"]) == ("1.0", "exception withdrawn")
    assert (item["exception"]["id"], item["exception"]["owner"]) == ("EX-7", "j.doe@example.mil")
    assert message.attributes["severity"] == "medium"
    audited.audit()
    assert reported(audited) == []


def test_an_image_pushed_again_is_not_the_one_that_was_excepted(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    digest = registry.push("legacy", "crm", "1.0").digest
    policy.put(exception(digest=digest))
    assert audited.audit()["findings"]["excepted"] == 1
    registry.push("legacy", "crm", "1.0")
    assert audited.audit()["findings"] == {"open": 1, "opened": 0, "resolved": 0, "excepted": 0}
    (message,) = audited.messages()
    assert [item["resolution"] for item in message.body["expired"]] == ["exception no longer fits"]


def test_what_no_one_notified_of_is_resolved_in_silence_and_leaves_the_table_in_time(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    registry.push("legacy", "fax", "1.0")
    policy.put(exception())
    audited.audit()
    registry.sign("legacy", "crm", "1.0")
    registry.delete_repository("legacy", "fax")
    run = audited.audit()
    assert run["findings"] == {"open": 0, "opened": 0, "resolved": 2, "excepted": 0}
    assert reported(audited) == []
    for item in audited.findings().values():
        assert item["state"] == "RESOLVED"
        assert item["expires_at"]
        assert not {"unannounced", "unannounced_shard", "unheard", "excepted"} & set(item)


def test_what_was_announced_before_it_was_excepted_is_reported_when_it_is_resolved(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    audited.audit()
    assert reported(audited) == [("opened", "legacy/crm:1.0")]
    policy.put(exception())
    assert audited.audit()["findings"]["excepted"] == 1
    assert reported(audited) == []
    registry.sign("legacy", "crm", "1.0")
    audited.audit()
    assert reported(audited) == [("resolved", "legacy/crm:1.0")]


def test_an_exception_that_ended_is_named_and_covers_nothing(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    policy.put(exception(ends=PAST))
    run = audited.audit()
    assert (run["exceptions"]["holding"], run["exceptions"]["ended"]) == (0, 1)
    (warning,) = run["warnings"][:1]
    assert f"EX-7 ({PAST})" in warning
    assert reported(audited) == [("opened", "legacy/crm:1.0")]


def test_exceptions_that_cover_no_finding_are_counted_by_a_whole_run_and_warn_no_one(
    audited: Audited, registry: InMemoryRegistry, policy: Policy, dtr: DtrServer
) -> None:
    registry.push("legacy", "crm", "1.0")
    registry.push("web", "shop", "1.0")
    registry.sign("web", "shop", "1.0")
    policy.put(exception(), exception(id="EX-8", namespace="web"))
    run = audited.audit()
    assert run["exceptions"]["unmatched"] == 1
    assert run["warnings"] == []
    partial = audited.audit({"namespaces": ["web"]})
    assert partial["exceptions"]["unmatched"] is None
    dtr.faults = Faults(on_calls=(Status(500, tags_of("web/shop")),))
    assert audited.audit()["exceptions"]["unmatched"] is None


def test_a_finding_out_of_sight_is_excepted_as_the_document_says_and_moves_when_it_is_seen(
    audited: Audited, registry: InMemoryRegistry, policy: Policy, dtr: DtrServer
) -> None:
    registry.push("legacy", "crm", "1.0")
    policy.put(exception())
    audited.audit()
    dtr.faults = Faults(on_calls=(Status(500, tags_of("legacy/crm")),))
    run = audited.audit()
    assert (run["complete"], run["findings"]["open"], run["findings"]["excepted"]) == (False, 1, 1)
    policy.remove()
    run = audited.audit()
    assert (run["complete"], run["findings"]["open"], run["findings"]["excepted"]) == (False, 1, 0)
    assert reported(audited) == [("audit_incomplete", "")] * 2
    dtr.faults = Faults()
    audited.audit()
    assert reported(audited) == [("expired", "legacy/crm:1.0")]


def test_a_partial_run_excludes_what_it_looks_at(audited: Audited, registry: InMemoryRegistry, policy: Policy) -> None:
    registry.push("legacy", "crm", "1.0")
    registry.push("web", "shop", "1.0")
    policy.put(exception(), exception(id="EX-8", namespace="web"))
    run = audited.audit({"namespaces": ["legacy"]})
    assert run["findings"] == {"open": 1, "opened": 1, "resolved": 0, "excepted": 1}
    assert reported(audited) == []


# --- A document that cannot be used ----------------------------------------------------------------------------------------


def test_a_broken_document_excludes_nothing_moves_no_mark_and_is_reported_once(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    policy.put(exception())
    audited.audit()
    before = audited.findings()["legacy/crm:1.0"]
    assert before["excepted"]["exception_id"] == "EX-7"

    policy.put(exception(ends="some day"))
    registry.push("legacy", "fax", "1.0")
    run = audited.audit()
    assert (run["status"], run["complete"]) == ("OPEN", True)
    assert run["findings"] == {"open": 2, "opened": 1, "resolved": 0, "excepted": 0}
    assert "$.exceptions[0].ends" in run["exceptions"]["problem"]
    warning = run["warnings"][0]
    assert "nothing is excepted" in warning
    assert "$.exceptions[0].ends" in warning
    assert "$.exceptions[0].ends" in evidence(audited, run, "ckl")
    assert set(exceptions_of(audited, run).values()) == {(None, None)}
    assert audited.findings()["legacy/crm:1.0"] == before
    first, second = audited.messages()
    assert first.attributes["event"] == "exceptions_unusable"
    assert first.attributes["severity"] == "medium"
    assert "namespaces" not in first.attributes
    assert "$.exceptions[0].ends" in first.body["exceptions"]["problem"]
    assert [item["repository"] for item in second.body["opened"]] == ["legacy/fax"]

    audited.audit()
    assert reported(audited) == [], "the same fault is told once"
    policy.put_bytes(b"{")
    audited.audit()
    assert reported(audited) == [("exceptions_unusable", "")], "another fault is told"
    policy.put(exception())
    assert audited.audit()["findings"]["excepted"] == 2
    assert reported(audited) == [], "mended: what was quiet has stayed so"
    policy.put_bytes(b"{")
    audited.audit()
    assert reported(audited) == [("exceptions_unusable", "")], "the same fault, come back, is told again"


def test_a_fault_is_reported_in_the_mail_with_its_place(audited: Audited, policy: Policy) -> None:
    policy.put_bytes(b'{"exceptions": [], "exceptions": []}')
    audited.audit()
    mail = audited.mails()[-1]
    assert "the exceptions cannot be used" in str(mail.subject)
    assert "the key 'exceptions' stands twice in one object" in mail.text


def test_a_fault_that_could_not_be_reported_is_reported_by_the_next_run(audited: Audited, policy: Policy) -> None:
    policy.put_bytes(b"{")
    audited.audit({"scheduled_time": "2026-11-01T03:00:00Z", "alerts": False})
    assert reported(audited) == []
    audited.audit({"scheduled_time": "2026-11-02T03:00:00Z"})
    assert reported(audited) == [("exceptions_unusable", "")]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Have S3 refuse one operation on the document from now on."""
    call = vars(BaseClient)["_make_api_call"]

    def refuse(operation: str, code: str) -> None:
        def refused(self: Any, name: str, arguments: Any) -> Any:
            if name == operation and KEY in (arguments.get("Key"), arguments.get("Prefix")):
                raise ClientError({"Error": {"Code": code, "Message": "refused"}}, name)
            return call(self, name, arguments)

        monkeypatch.setattr(BaseClient, "_make_api_call", refused)

    return refuse


@pytest.mark.parametrize(
    "refused", [("ListObjectsV2", "AccessDenied"), ("GetObject", "AccessDenied"), ("GetObject", "SlowDown")]
)
def test_a_document_that_cannot_be_read_is_not_taken_for_none(
    audited: Audited,
    registry: InMemoryRegistry,
    policy: Policy,
    refuse: Callable[[str, str], None],
    refused: tuple[str, str],
) -> None:
    registry.push("legacy", "crm", "1.0")
    policy.put(exception())
    audited.audit()
    operation, code = refused
    refuse(operation, code)
    run = audited.audit()
    assert run["complete"]
    assert run["exceptions"]["problem"] == f"{KEY}: it could not be read ({code})"
    assert reported(audited) == [("exceptions_unusable", "")], "and no exception is taken to have been withdrawn"


def test_what_a_document_says_is_escaped_wherever_it_is_shown(
    audited: Audited, registry: InMemoryRegistry, policy: Policy
) -> None:
    registry.push("legacy", "crm", "1.0")
    hostile = "</td><script>alert(1)</script> ]]> :: \u202e\x1b[2J"
    policy.put(exception(owner=hostile, reason=hostile, reference=hostile, ends=SOON))
    run = audited.audit(EVIDENCE_FORMATS="report,ckl,cklb,xccdf,hdf")
    assert "<script>alert" not in evidence(audited, run, "report")
    assert "&lt;script&gt;alert(1)" in evidence(audited, run, "report")
    assert "<script>alert" not in evidence(audited, run, "ckl")
    for kind in run["evidence"]:
        if kind != "manifest":
            assert "\x1b" not in evidence(audited, run, kind)
            assert "\u202e" not in evidence(audited, run, kind)
    text = audited.mails()[-1].text
    assert "\x1b" not in text
    assert "\u202e" not in text
