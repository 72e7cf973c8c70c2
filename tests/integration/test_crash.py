"""A run that is cut off at any point, and made again, loses no news, invents none, and resolves nothing wrongly."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dtr_audit.aws import archive
from dtr_audit.aws.clients import AwsClients
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.request import AuditRequest
from dtr_audit.errors import LeaseHeldError
from dtr_audit.pipeline.audit import audit
from dtr_audit.settings import Settings
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.crash_injection import CrashInjection, Cut
from tests.harness.stack_state import StackState

SLICES = 4  # of the calls of a run, so that they can be gone through side by side


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one part of rows in a small registry."""
    monkeypatch.setattr(archive, "PART_ROWS", 3)


class Story:
    """Two nights of one registry: what the second changes is what must be told, once."""

    def __init__(self, stack: Stack, crash_injection: CrashInjection, clients: AwsClients) -> None:
        self.registry = InMemoryRegistry()
        self.crash_injection = crash_injection
        self.clients = clients
        for image in ("web/shop", "web/till", "team/api", "team/old"):
            for tag in ("1", "2", "3"):
                namespace, name = image.split("/")
                self.registry.push(namespace, name, tag)
        for name in ("soon", "over", "gone", "signed"):
            self.registry.push("quiet", name, "1")
        self.registry.sign("web", "shop", "3")
        self.server = DtrServer(self.registry)
        self.server.start()
        self.audited = Audited(stack, self.server)
        self.audited.put_secret(username=self.server.admin.name, password=self.server.admin.password)
        self.settings = Settings.from_environment(
            {**stack.function_environment("AuditFunction"), **self.audited.environment, "CONCURRENCY": "1"}
        )

        self.put_exceptions(soon=60, over=60, gone=60, signed=60)

    def put_exceptions(self, **days: int) -> None:
        """Except repositories of `quiet`, each for so many days."""
        today = datetime.now(UTC).date()
        entries = [
            {
                "id": name,
                "namespace": "quiet",
                "repository": name,
                "tag": "*",
                "owner": "j.doe",
                "reason": "being replaced",
                "ends": str(today + timedelta(days=left)),
            }
            for name, left in days.items()
        ]
        body = json.dumps({"exceptions": entries}).encode()
        self.clients.s3.put_object(Bucket=self.settings.bucket, Key=EXCEPTIONS_KEY, Body=body)

    def day(self, number: int, *, owner: str, cut_after: int = 0) -> Any:
        request = AuditRequest.from_event({"scheduled_time": f"2026-11-{number:02d}T03:00:00Z"}, now=datetime.now(UTC))
        self.crash_injection.calls.clear()
        self.crash_injection.after = cut_after
        try:
            return audit(self.settings, request, self.clients, owner=owner, seconds=60, now=lambda: datetime.now(UTC))
        finally:
            self.crash_injection.after = 0

    def end(self) -> None:
        """Stop what was started."""
        self.audited.close()
        self.server.stop()

    def change(self) -> None:
        self.registry.sign("web", "shop", "1")  # resolved: signed
        self.registry.delete_tag("web", "shop", "2")  # resolved: tag removed
        self.registry.delete_repository("team", "old")  # resolved: repository removed
        self.registry.push("web", "shop", "3")  # opened: overwritten
        self.registry.push("web", "new", "1")  # opened: unsigned
        self.registry.sign("web", "till", "1")  # changed: signed and overwritten
        self.registry.push("web", "till", "1")
        self.registry.sign("quiet", "signed", "1")  # resolved, and nobody had heard of it
        self.registry.delete_repository("quiet", "gone")  # likewise
        self.put_exceptions(soon=3, gone=60, signed=60)


EXPECTED = {
    ("opened", "web/shop:3"),
    ("opened", "web/new:1"),
    ("changed", "web/till:1"),
    ("resolved", "web/shop:1"),
    ("resolved", "web/shop:2"),
    ("resolved", "team/old:1"),
    ("resolved", "team/old:2"),
    ("resolved", "team/old:3"),
    ("expiring", "quiet/soon:1"),
    ("expired", "quiet/over:1"),
}
OPEN = {"web/shop:3", "web/new:1", "web/till:1", "web/till:2", "web/till:3", "team/api:1", "team/api:2", "team/api:3"}
OPEN |= {"quiet/soon:1", "quiet/over:1"}
RESOLVED_IN_SILENCE = 2
RESOLVED = len([image for change_kind, image in EXPECTED if change_kind == "resolved"]) + RESOLVED_IN_SILENCE
TAGS = 3 + 3 + 3 + 1 - 1 + 3


def change_kind(audited: Audited) -> tuple[set[tuple[str, str]], set[str], int]:
    """What has been told since: as a set, its ids, and how often."""
    reported: set[tuple[str, str]] = set()
    ids: set[str] = set()
    messages = audited.messages()
    for message in messages:
        for kind in ("opened", "expired", "expiring", "changed", "resolved"):
            for item in message.body[kind]:
                reported.add((kind, f"{item['repository']}:{item['tag']}"))
                ids.add(item["id"])
    return reported, ids, len(messages)


def check(story: Story) -> int:
    """See that both nights together told and kept exactly what is true; gives the number of messages."""
    audited = story.audited
    reported, ids, messages = change_kind(audited)
    assert reported == EXPECTED
    assert len(ids) == len(EXPECTED), "the same news has the same id, however often it is told"
    findings = audited.findings()
    assert {image for image, item in findings.items() if item["state"] == "OPEN"} == OPEN
    assert not [image for image, item in findings.items() if "unannounced" in item or "unheard" in item]
    assert not [image for image, item in findings.items() if item["state"] == "RESOLVED" and "expires_at" not in item]
    assert {image for image, item in findings.items() if "excepted" in item} == {"quiet/soon:1"}
    rows = audited.rows("20261102T030000Z")
    assert len(rows) == TAGS
    assert len({(row["repository"], row["tag"]) for row in rows}) == TAGS
    return messages


@pytest.fixture
def clients(stack: Stack) -> Iterator[AwsClients]:
    yield AwsClients(connections=4)


@pytest.mark.parametrize("first", range(1, SLICES + 1))
def test_a_run_cut_off_after_any_call_to_aws_is_made_good_by_its_retry(
    stack: Stack, crash_injection: CrashInjection, clients: AwsClients, first: int
) -> None:
    """All slices together cut after each call; each ends with a run that has no such call any more."""
    story = Story(stack, crash_injection, clients)
    try:
        story.day(1, owner="first")
        change_kind(story.audited)
        story.change()
        changed = StackState.take(stack)
        cut_after = first
        is_cut = True
        while is_cut:
            changed.restore()
            try:
                story.day(2, owner="second", cut_after=cut_after)
            except Cut:
                cut_after += SLICES
            else:
                is_cut = False
                assert cut_after - SLICES <= len(crash_injection.calls) < cut_after
                assert len(crash_injection.calls) > 30
            # Lambda delivers the event once more, with the same request id.
            run = story.day(2, owner="second")
            assert run is None or run.findings.resolved == RESOLVED
            assert check(story) in ({1, 2} if is_cut else {1})
            # In the next run nothing is left to report. The lease that was left behind has expired.
            expire_lease(story)
            run = story.day(3, owner="third")
            assert (run.findings.opened, run.findings.resolved, run.findings.open) == (0, 0, len(OPEN))
            assert story.audited.messages() == []
    finally:
        story.end()


@pytest.mark.parametrize("cut_after", range(8, 40, 8))
def test_a_run_cut_off_and_never_retried_is_made_good_by_the_next(
    stack: Stack, crash_injection: CrashInjection, clients: AwsClients, cut_after: int
) -> None:
    story = Story(stack, crash_injection, clients)
    try:
        story.day(1, owner="first")
        change_kind(story.audited)
        story.change()
        with pytest.raises(Cut):
            story.day(2, owner="second", cut_after=cut_after)
        expire_lease(story)
        story.day(3, owner="third")
        reported, ids, _ = change_kind(story.audited)
        assert reported == EXPECTED
        assert len(ids) == len(EXPECTED)
    finally:
        story.end()


@pytest.fixture
def story(stack: Stack, crash_injection: CrashInjection, clients: AwsClients) -> Iterator[Story]:
    story = Story(stack, crash_injection, clients)
    yield story
    story.end()


@pytest.mark.parametrize("asked", [{}, {"namespaces": ["web"]}])
def test_a_run_by_hand_that_is_cut_off_and_retried_is_the_same_run(story: Story, asked: dict[str, Any]) -> None:
    story.crash_injection.operation = "PutObject"  # the first part of the rows is written
    with pytest.raises(Cut):
        story.audited.audit(asked, request_id="by hand")
    story.crash_injection.operation = ""
    (left,) = story.audited.keys("findings")
    run = story.audited.audit(asked, request_id="by hand")
    keys = story.audited.keys("findings")
    assert left in keys
    assert {key.rsplit("-", 1)[0] for key in keys} == {left.rsplit("-", 1)[0]}
    assert len(story.audited.verdicts(run["run_id"])) == run["tags"]["audited"] > 0
    another = story.audited.audit(asked, request_id="by hand")
    assert another["run_id"] != run["run_id"], "what is asked for once more, after it was done, is another run"


def test_no_row_reports_of_a_finding_that_is_not_yet_in_the_table(story: Story) -> None:
    story.crash_injection.operation = "BatchWriteItem"
    with pytest.raises(Cut):
        story.audited.audit()
    assert story.audited.keys("findings") == []


def test_a_run_by_hand_that_was_done_when_it_was_cut_off_is_not_made_again(story: Story) -> None:
    asked = {"alerts": False}
    story.crash_injection.operation = "UpdateItem"  # it is noted that the run is finished
    with pytest.raises(Cut):
        story.audited.audit(asked, request_id="by hand")
    story.crash_injection.operation = ""
    (record,) = story.audited.keys("runs")
    answer = story.audited.audit(asked, request_id="by hand")
    assert answer == {"run_id": record.split("/")[-1].removesuffix(".json"), "finished_before": True}


def test_a_run_by_hand_of_somebody_else_is_a_run_of_its_own(story: Story) -> None:
    story.crash_injection.operation = "PutObject"
    with pytest.raises(Cut):
        story.audited.audit({}, request_id="by hand")
    story.crash_injection.operation = ""
    with pytest.raises(LeaseHeldError):
        story.audited.audit({}, request_id="somebody else's")
    expire_lease(story)
    run = story.audited.audit({}, request_id="somebody else's")
    assert len({key.rsplit("-", 1)[0] for key in story.audited.keys("findings")}) == 2
    assert len(story.audited.rows(run["run_id"])) == run["tags"]["audited"]


def expire_lease(story: Story) -> None:
    """Let the time pass after which a dead run's lease holds nobody off."""
    table, key = story.settings.runs_table, {"pk": story.audited.name, "sk": "#lease"}
    left = story.clients.dynamodb.get_item(TableName=table, Key=key).get("Item")
    if left:
        story.clients.dynamodb.put_item(TableName=table, Item={**left, "until": "2000-01-01T00:00:00.000Z"})
