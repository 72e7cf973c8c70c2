"""The steps of a fan-out: each can be made again, cut off, left out or late, and the run stays true."""

import gzip
import itertools
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dtr_audit.aws import archive, notifications
from dtr_audit.aws.clients import AwsClients
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.runs import RunsTable
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.finding import Finding
from dtr_audit.errors import LeaseHeldError, SettingsError, StepTakenOverError, WorkError
from dtr_audit.pipeline import run_context, steps
from dtr_audit_simulator.dtr.fault_kinds import Calls, Status, tags_of
from dtr_audit_simulator.dtr.faults import SETTINGS, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited
from tests.harness.crash_injection import CrashInjection, Cut
from tests.harness.fake_clock import FakeClock
from tests.harness.stack_state import TABLES, StackState
from tests.harness.step_functions_harness import StepFunctionsRun

DAY = datetime(2026, 12, 2, 3, tzinfo=UTC)
EVENT = {"scheduled_time": "2026-12-02T03:00:00Z"}
RUN_ID = "20261202T030000Z"
REPOSITORIES = ("team/api", "team/old", "web/shop", "web/till")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches, and several parts of rows in each, of a small registry; no long waits."""
    monkeypatch.setattr(steps, "BATCH_REPOSITORIES", 2)
    monkeypatch.setattr(archive, "PART_ROWS", 2)
    monkeypatch.setattr(notifications, "INDEX_WAIT_SECONDS", 0.0)


@dataclass
class Scene:
    """One registry and its fan-out, on the second of two nights."""

    registry: InMemoryRegistry
    dtr: DtrServer
    audited: Audited
    step_functions_run: StepFunctionsRun

    def first_day(self) -> None:
        for image in REPOSITORIES:
            for tag in ("1", "2", "3"):
                self.push(f"{image}:{tag}")
        self.sign("web/shop:3")
        self.step_functions_run.now = DAY - timedelta(days=1)
        self.step_functions_run.execute({"scheduled_time": "2026-12-01T03:00:00Z"})
        self.audited.messages()
        self.step_functions_run.now = DAY

    def change(self) -> None:
        self.sign("web/shop:1")  # resolved: signed
        self.registry.delete_tag("web", "shop", "2")  # resolved: tag removed
        self.registry.delete_repository("team", "old")  # resolved: repository removed
        self.push("web/shop:3")  # opened: overwritten
        self.push("web/new:1")  # opened: unsigned
        self.sign("web/till:1")  # changed: signed and overwritten
        self.push("web/till:1")

    def push(self, image: str) -> None:
        path, tag = image.split(":")
        namespace, name = path.split("/")
        self.registry.push(namespace, name, tag, at=DAY - timedelta(days=2))

    def sign(self, image: str) -> None:
        path, tag = image.split(":")
        namespace, name = path.split("/")
        self.registry.sign(namespace, name, tag)

    def payload(self) -> dict[str, Any]:
        return self.step_functions_run.payload(EVENT, "execution")

    def make(self, step: str, number: int = 0, **more: Any) -> dict[str, Any]:
        batch = {"batch": {"number": number, "key": "whatever"}} if number else {}
        return self.step_functions_run.make(getattr(steps, step), {**self.payload(), **batch, **more})

    def record(self) -> dict[str, Any]:
        return self.step_functions_run.record(RUN_ID)

    def work(self, name: str) -> Any:
        return json.loads(self.audited.read(f"work/registry={self.audited.name}/{RUN_ID}/{name}"))

    def states(self) -> dict[str, str]:
        return {image: item["state"] for image, item in self.audited.findings().items()}


@pytest.fixture
def scene(audited: Audited, registry: InMemoryRegistry, dtr: DtrServer) -> Scene:
    scene = Scene(registry, dtr, audited, StepFunctionsRun(audited, {"CONCURRENCY": "1", "FAN_OUT_WORKERS": "1"}))
    scene.first_day()
    return scene


def contents(state: StackState) -> dict[str, Any]:
    """Give what counts of what is stored, readable: not which attempt it was, nor how often it was made."""
    objects = {
        key: gzip.decompress(content) if key.endswith(".gz") else content
        for key, content in state.objects().items()
        if "/claims/" not in key
    }
    return {**objects, **{table: state.items(table) for table in TABLES}}


def stored(scene: Scene) -> dict[str, Any]:
    """Give what counts of what is stored now."""
    return contents(StackState.take(scene.audited.stack))


def cut_everywhere(
    scene: Scene, crash_injection: CrashInjection, step: str, number: int = 0, *, first: int = 1, every: int = 1
) -> int:
    """Cut a step off after its calls to AWS, and make it again: it leaves what it leaves uncut. Gives how many calls it has."""
    before = StackState.take(scene.audited.stack)
    expected = scene.make(step, number)
    whole = stored(scene)
    reported = change_kind(scene)
    cut_after = first - every
    while True:
        cut_after += every
        before.restore()
        crash_injection.calls.clear()
        crash_injection.after = cut_after
        try:
            scene.make(step, number)
        except Cut:
            crash_injection.after = 0
        else:
            crash_injection.after = 0
            break
        assert scene.make(step, number) == expected, (
            f"{step}, cut after call {cut_after}, {crash_injection.calls[cut_after - 1]}"
        )
        again = stored(scene)
        assert again.keys() == whole.keys(), cut_after
        for name, content in whole.items():
            assert again[name] == content, (
                f"{step}, cut after call {cut_after}, {crash_injection.calls[cut_after - 1]}: {name}"
            )
        assert change_kind(scene) == reported
    return len(crash_injection.calls)


def change_kind(scene: Scene) -> set[tuple[str, str, str]]:
    """Take what has been told since, by the ids of the news."""
    return {
        (kind, f"{item['repository']}:{item['tag']}", item["id"])
        for message in scene.audited.messages()
        for kind in message.body["counts"]
        for item in message.body[kind]
    }


@pytest.mark.parametrize(
    ("step", "first", "every"),
    [
        ("inventory", 1, 1),
        ("examine", 1, 1),
        *(("prove", n, 2) for n in (1, 2)),
        *(("report", n, 6) for n in range(1, 7)),
    ],
)
def test_a_step_cut_off_after_any_call_to_aws_and_made_again_leaves_what_it_leaves_uncut(
    scene: Scene, crash_injection: CrashInjection, step: str, first: int, every: int
) -> None:
    """All those of one step together cut it after each call."""
    scene.change()
    if step == "prove":
        scene.dtr.faults = Faults(missing_though_listed=Calls("/api/v0/repositories/*/*i*/tags"))  # team/api, web/till
    before = {"inventory": [], "examine": ["inventory"], "prove": ["inventory", "examine"]}
    for name in before.get(step, ["inventory", "examine", "prove"]):
        for number in (1, 2) if name == "examine" else (0,):
            scene.make(name, number)
    if step == "prove":
        scene.dtr.faults = Faults()
        scene.registry.delete_repository("web", "till")
    least = {"inventory": 13, "examine": 15, "prove": 15, "report": 30}[step]
    assert cut_everywhere(scene, crash_injection, step, int(step == "examine"), first=first, every=every) >= least


def test_every_step_made_twice_makes_the_same_run(scene: Scene) -> None:
    scene.change()
    once = StackState.take(scene.audited.stack)
    scene.step_functions_run.execute(EVENT)
    whole, reported = stored(scene), change_kind(scene)
    once.restore()
    scene.step_functions_run.execute(EVENT, once_more=("inventory", "examine", "prove", "report"))
    assert stored(scene) == whole
    assert change_kind(scene) == reported


def test_the_run_is_reported_as_it_is(scene: Scene) -> None:
    scene.change()
    run = scene.step_functions_run.execute(EVENT)
    assert run["findings"] == {"open": 8, "opened": 2, "resolved": 5, "excepted": 0}
    assert run == {name: scene.record()[name] for name in run}
    (message,) = scene.audited.messages()
    assert message.body["counts"] == {"opened": 2, "changed": 1, "resolved": 5, "expiring": 0, "expired": 0}
    assert len(scene.audited.rows(RUN_ID)) == 9
    assert scene.step_functions_run.execute(EVENT) == {
        "run_id": RUN_ID, "finished_before": True, "connected": False, "count": 0, "sha256": "",
        "batches": {
            "bucket": scene.step_functions_run.settings.bucket,
            "key": f"work/registry={scene.audited.name}/{RUN_ID}/batches.json",
        },
    }  # fmt: skip
    assert scene.audited.messages() == []


# --- Batches that come to nothing -------------------------------------------------------------------------------------


def test_a_batch_without_a_result_makes_the_run_incomplete_and_resolves_nothing_of_it(scene: Scene) -> None:
    scene.change()
    run = scene.step_functions_run.execute(EVENT, without=[1])
    left = [f"{namespace}/{name}" for namespace, name in scene.work("batches/00001.json")]
    assert run["complete"] is False
    (reason,) = run["incomplete_because"]
    assert reason.startswith("batch 1 of 2 came to no result: 2 repositories were not read.")
    assert run["repositories"] == {"listed": 4, "audited": 2, "unreadable": 0, "removed": 0}
    states = scene.states()
    for image, state in states.items():
        if image.split(":")[0] in left:
            assert state == "OPEN", image
    assert run["findings"]["open"] == list(states.values()).count("OPEN")
    assert {state for image, state in states.items() if image.startswith("team/old")} == {"RESOLVED"}, (
        "it is not listed"
    )
    (message,) = scene.audited.messages()
    assert message.attributes["status"] == run["status"]


def test_a_batch_that_is_not_the_one_that_was_laid_out_is_not_read(scene: Scene) -> None:
    """As where two attempts at the list wrote theirs at the same time: what is in neither must be in the answer."""
    scene.make("inventory")
    key = f"work/registry={scene.audited.name}/{RUN_ID}/batches/00001.json"
    lost, *rest = scene.work("batches/00001.json")
    scene.step_functions_run.clients.s3.put_object(
        Bucket=scene.step_functions_run.settings.bucket, Key=key, Body=json.dumps(rest).encode()
    )
    with pytest.raises(WorkError, match=r"batches/00001\.json: it is not what an earlier step"):
        scene.make("examine", 1)
    scene.make("examine", 2)
    scene.make("prove")
    run = scene.make("report")
    assert not run["complete"]
    assert run["incomplete_because"][0].startswith("batch 1 of 2 came to no result: 2 repositories were not read.")
    assert scene.states()["{}/{}:1".format(*lost)] == "OPEN", "it is listed"
    assert run["findings"]["resolved"] == 0


def test_a_batch_that_is_gone_was_not_read_and_the_run_is_closed_all_the_same(scene: Scene) -> None:
    scene.change()
    scene.make("inventory")
    lost = [f"{namespace}/{name}" for namespace, name in scene.work("batches/00001.json")]
    key = f"work/registry={scene.audited.name}/{RUN_ID}/batches/00001.json"
    scene.step_functions_run.clients.s3.delete_object(Bucket=scene.step_functions_run.settings.bucket, Key=key)
    with pytest.raises(WorkError):
        scene.make("examine", 1)
    scene.make("examine", 2)
    scene.make("prove")
    run = scene.make("report")
    assert not run["complete"]
    (reason,) = run["incomplete_because"]
    assert reason.startswith("batch 1 of 2 came to no result: 2 repositories were not read.")
    for image, state in scene.states().items():
        assert state == "OPEN" or image.split(":")[0] not in lost, image


def test_a_run_of_which_no_batch_came_to_a_result_is_no_pass(scene: Scene) -> None:
    run = scene.step_functions_run.execute(EVENT, without=[1, 2])
    assert (run["status"], run["complete"]) == ("OPEN", False)
    assert "batches 1, 2 of 2 came to no result: 4 repositories were not read" in run["incomplete_because"][0]
    assert run["findings"]["open"] == len(scene.states()) == 11


def test_rows_of_a_batch_that_died_before_its_end_are_not_kept_beside_the_others(
    scene: Scene, crash_injection: CrashInjection
) -> None:
    scene.make("inventory")
    scene.make("examine", 1)
    crash_injection.operation = "PutObject"
    crash_injection.calls.clear()
    with pytest.raises(Cut):
        scene.make("examine", 2)  # its claim
    crash_injection.operation = ""
    key = f"findings/registry={scene.audited.name}/dt=2026-12-02/{RUN_ID}-00002-001.jsonl.gz"
    scene.step_functions_run.clients.s3.put_object(
        Bucket=scene.step_functions_run.settings.bucket, Key=key, Body=gzip.compress(b"{}\n")
    )
    scene.make("prove")
    run = scene.make("report")
    assert run["complete"] is False
    assert key not in scene.audited.keys("findings")
    assert len(scene.audited.rows(RUN_ID)) == run["tags"]["audited"] == 6


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"tags": 1}', b"null"])
def test_a_result_that_cannot_be_read_is_none(scene: Scene, content: bytes) -> None:
    scene.make("inventory")
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    prefix = f"work/registry={scene.audited.name}/{RUN_ID}/results"
    scene.step_functions_run.clients.s3.put_object(
        Bucket=scene.step_functions_run.settings.bucket, Key=f"{prefix}/00002.json", Body=content
    )
    assert "batch 2 of 2 came to no result" in scene.make("report")["incomplete_because"][0]


def test_findings_that_are_not_those_of_the_result_are_not_believed(scene: Scene) -> None:
    scene.make("inventory")
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    prefix = f"work/registry={scene.audited.name}/{RUN_ID}/results"
    scene.step_functions_run.clients.s3.put_object(
        Bucket=scene.step_functions_run.settings.bucket,
        Key=f"{prefix}/00001.findings.jsonl.gz",
        Body=gzip.compress(b""),
    )
    run = scene.make("report")
    assert "batch 1 of 2 came to no result" in run["incomplete_because"][0]
    assert run["findings"]["open"] == 11


def run_out_once(scene: Scene, fake_clock: FakeClock, path: str) -> None:
    """Let the time for reading be over once this has been asked for; its answer still counts."""
    asked = itertools.count()

    def run_out(_: object) -> None:
        if not next(asked):
            fake_clock.run_out()

    scene.dtr.on_request(run_out, path)


# --- Time ---------------------------------------------------------------------------------------------------------------


def test_a_worker_that_runs_out_of_time_keeps_what_it_read_and_says_what_is_left(
    scene: Scene, fake_clock: FakeClock
) -> None:
    scene.change()
    scene.make("inventory")
    first, second = ("/".join(name) for name in scene.work("batches/00001.json"))
    run_out_once(scene, fake_clock, tags_of(first).path)
    scene.make("examine", 1)
    scene.make("examine", 2)
    scene.make("prove")
    run = scene.make("report")
    assert run["complete"] is False
    assert run["incomplete_because"][0].startswith(
        f"in 1 of 2 batches the time of the function was over: 1 repository was not read, of 4 listed: {second}. Raise"
    )
    assert {row["repository"] for row in scene.audited.rows(RUN_ID)} >= {first.split("/")[1]}
    assert not [row for row in scene.audited.rows(RUN_ID) if f"{row['namespace']}/{row['repository']}" == second]
    assert {state for image, state in scene.states().items() if image.startswith(f"{second}:")} <= {"OPEN"}


# --- Who is at it -------------------------------------------------------------------------------------------------------


class Hanging:
    """A step in a thread of its own, which hangs until it is let go."""

    def __init__(self, scene: Scene, step: str, number: int = 0) -> None:
        self._hangs, self._may = threading.Event(), threading.Event()
        self._caught: list[BaseException] = []

        def make() -> None:
            try:
                scene.make(step, number)
            except BaseException as error:  # noqa: BLE001 - given to the test
                self._caught.append(error)

        self._thread = threading.Thread(target=make)

    def hold(self, *_: object) -> None:
        """Hang here, once."""
        if not self._hangs.is_set():
            self._hangs.set()
            self._may.wait()

    def start(self) -> None:
        self._thread.start()
        self._hangs.wait()

    def let_go(self) -> type[BaseException] | None:
        """Have it go on to its end; gives what it raised."""
        self._may.set()
        self._thread.join()
        return type(self._caught[0]) if self._caught else None


def hang_on_a_repository(scene: Scene, number: int) -> Hanging:
    """Have an attempt at a batch hang on the second of its repositories."""
    first = Hanging(scene, "examine", number)
    scene.dtr.on_request(first.hold, tags_of("/".join(scene.work(f"batches/0000{number}.json")[1])).path)
    first.start()
    return first


def test_an_attempt_that_was_given_up_writes_no_row_beside_its_successor(scene: Scene) -> None:
    """The first attempt hangs on one repository; the second overtakes it, and finishes."""
    scene.make("inventory")
    first = hang_on_a_repository(scene, 1)
    scene.make("examine", 1)
    after = stored(scene)
    assert first.let_go() is StepTakenOverError
    assert stored(scene) == after


def test_an_attempt_that_was_given_up_writes_no_finding_over_its_successors(scene: Scene) -> None:
    scene.make("inventory")
    first = hang_on_a_repository(scene, 1)
    namespace, name = scene.work("batches/00001.json")[1]
    for tag in "123":  # the first attempt reads them anew, and the second as they were
        scene.push(f"{namespace}/{name}:{tag}")
    scene.make("examine", 1)
    for tag in "123":
        scene.sign(f"{namespace}/{name}:{tag}")
        scene.push(f"{namespace}/{name}:{tag}")
    after = scene.audited.findings()
    assert first.let_go() is StepTakenOverError
    assert scene.audited.findings() == after


def test_an_attempt_that_claims_late_does_not_end_the_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two attempts the one that is listened to is overtaken: the machine tries that again, as it does not for a lost lease."""
    scene.make("inventory")
    confirm = run_context.RunContext.confirm
    begun: list[bool] = []

    def be_overtaken(parts: Any) -> None:
        if not begun:
            begun.append(True)
            scene.make("examine", 1)
        confirm(parts)

    monkeypatch.setattr(run_context.RunContext, "confirm", be_overtaken)
    with pytest.raises(StepTakenOverError):
        scene.make("examine", 1)
    assert not issubclass(StepTakenOverError, LeaseHeldError)


def test_one_who_is_still_at_a_batch_when_the_run_is_verified_is_given_up(scene: Scene) -> None:
    scene.change()
    scene.make("inventory")
    scene.make("examine", 2)
    first = hang_on_a_repository(scene, 1)
    scene.make("prove")
    after = stored(scene)
    assert first.let_go() is StepTakenOverError
    assert stored(scene) == after
    run = scene.make("report")
    assert "batch 1 of 2 came to no result" in run["incomplete_because"][0]


def test_a_result_that_comes_after_the_verification_counts_for_nothing(scene: Scene) -> None:
    """What was gone in it was settled by nobody: the run would pass without having seen it."""
    for image in REPOSITORIES:
        for tag in "123":
            scene.sign(f"{image}:{tag}")
    scene.make("inventory")
    scene.make("examine", 1)
    scene.make("prove")
    name = "/".join(scene.work("batches/00002.json")[0])
    scene.push(f"{name}:4")
    scene.dtr.faults = Faults(missing_though_listed=tags_of(name))
    scene.make("examine", 2)
    run = scene.make("report")
    assert (run["status"], run["complete"]) == ("OPEN", False)
    assert "batch 2 of 2 came to no result" in run["incomplete_because"][0]


def test_a_report_made_again_counts_no_result_that_the_first_did_not_have(
    scene: Scene, crash_injection: CrashInjection
) -> None:
    scene.change()
    scene.make("inventory")
    numbers = {f"{one[0]}/{one[1]}": n for n in (1, 2) for one in scene.work(f"batches/0000{n}.json")}
    late = numbers["web/shop"]
    scene.make("examine", 3 - late)
    scene.make("prove")
    crash_injection.operation = "Publish"
    with pytest.raises(Cut):
        scene.make("report")
    crash_injection.operation = ""
    scene.make("examine", late)
    run = scene.make("report")
    resolved = [image for image, state in scene.states().items() if state == "RESOLVED"]
    assert run["findings"]["resolved"] == len(resolved)
    assert not [image for image in resolved if image.startswith("web/shop:")]
    assert run["complete"] is False


def test_a_report_that_was_given_up_writes_no_more_than_it_is_at(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtr_audit.pipeline.resolve.CONFIRMED_FINDINGS", 1)
    for tag in "123":
        scene.sign(f"web/till:{tag}")
    scene.make("inventory")
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    first = Hanging(scene, "report")
    write = FindingsTable.write

    def hold(table: FindingsTable, findings: Iterable[Finding]) -> None:
        first.hold()
        write(table, findings)

    monkeypatch.setattr(FindingsTable, "write", hold)
    first.start()
    scene.make("report")
    for tag in "123":
        scene.push(f"web/till:{tag}")
    scene.step_functions_run.now = DAY + timedelta(days=1)
    scene.step_functions_run.execute({"scheduled_time": "2026-12-03T03:00:00Z"})
    assert first.let_go() in {StepTakenOverError, LeaseHeldError}
    states = [state for image, state in scene.states().items() if image.startswith("web/till:")]
    # One was on its way already.
    assert sorted(states) == ["OPEN", "OPEN", "RESOLVED"]


def test_the_lease_outlives_the_last_function_of_an_execution_that_timed_out(scene: Scene) -> None:
    scene.make("inventory")
    key = {"pk": scene.audited.name, "sk": "#lease"}
    lease = scene.step_functions_run.clients.dynamodb.get_item(
        TableName=scene.step_functions_run.settings.runs_table, Key=key
    )["Item"]
    ends = DAY + timedelta(seconds=scene.step_functions_run.settings.execution_seconds)
    assert datetime.fromisoformat(str(lease["until"])) > ends + timedelta(minutes=15)  # as long as Lambda lets it live


def test_an_event_that_is_delivered_twice_leaves_a_run_that_is_finished_meanwhile_as_it_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.change()
    take_lease = RunsTable.take_lease
    between: list[dict[str, Any]] = []

    def take_it_late(table: RunsTable, owner: str, *rest: Any, **more: Any) -> bool:
        if owner == "second" and not between:
            scene.step_functions_run.execute(EVENT, execution="execution")
            between.append(stored(scene))
        return take_lease(table, owner, *rest, **more)

    monkeypatch.setattr(RunsTable, "take_lease", take_it_late)
    inventory = scene.step_functions_run.make(steps.inventory, {**scene.payload(), "execution": "second"})
    assert inventory["finished_before"] is True
    assert stored(scene) == between[0]


@pytest.mark.parametrize("name", ["proof.json", "inventory.json", "exceptions.json"])
def test_a_run_whose_documents_cannot_be_used_is_closed_as_not_complete(scene: Scene, name: str) -> None:
    s3, bucket = scene.step_functions_run.clients.s3, scene.step_functions_run.settings.bucket
    s3.put_object(Bucket=bucket, Key=EXCEPTIONS_KEY, Body=b'{"exceptions": []}')
    try:
        scene.change()
        scene.make("inventory")
        for number in (1, 2):
            scene.make("examine", number)
        scene.make("prove")
    finally:
        s3.delete_object(Bucket=bucket, Key=EXCEPTIONS_KEY)
    key = f"work/registry={scene.audited.name}/{RUN_ID}/{name}"
    if name == "exceptions.json":
        s3.delete_object(Bucket=bucket, Key=key)
    else:
        s3.put_object(Bucket=bucket, Key=key, Body=b'{"of": "another version"}')
    run = scene.make("report")
    assert scene.record()["status"] == run["status"] != "NOT_A_FINDING"
    if name == "exceptions.json":
        assert any("exceptions.json is not there" in one for one in run["warnings"])
    else:
        assert run["complete"] is False
        assert "RESOLVED" not in scene.states().values()
    table = RunsTable(
        scene.step_functions_run.clients.dynamodb, scene.step_functions_run.settings.runs_table, scene.audited.name
    )
    table.take_lease("another", "another", "another", now=DAY, seconds=60)  # it is free


def test_two_runs_of_one_registry_never_overlap_and_the_lease_ends_with_the_run(scene: Scene) -> None:
    scene.make("inventory")
    another = {**scene.payload(), "event": {"scheduled_time": "2026-12-03T03:00:00Z"}, "execution": "another"}
    with pytest.raises(LeaseHeldError, match=RUN_ID):
        scene.step_functions_run.make(steps.inventory, another)
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    scene.make("report")
    assert scene.step_functions_run.make(steps.inventory, another)["connected"]


def test_an_execution_that_is_resumed_after_a_later_run_changes_nothing(scene: Scene) -> None:
    """It would resolve by what it saw then."""
    scene.change()
    scene.make("inventory")
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    expire_lease(scene)
    scene.step_functions_run.now = DAY + timedelta(days=1)
    scene.step_functions_run.execute({"scheduled_time": "2026-12-03T03:00:00Z"})
    after = stored(scene)
    for step, number in (("examine", 1), ("prove", 0), ("report", 0)):
        with pytest.raises(LeaseHeldError):
            scene.make(step, number)
    assert stored(scene) == after


def test_another_execution_of_the_same_run_begins_again(scene: Scene) -> None:
    scene.change()
    scene.make("inventory")
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    expire_lease(scene)
    scene.registry.delete_repository("team", "api")
    run = scene.step_functions_run.execute(EVENT, execution="another", without=[1])
    assert "batch 1 of 2" in run["incomplete_because"][0], "what the first execution made of it is not taken"


@pytest.mark.parametrize("operation", ["PutItem", "DeleteObject"])  # of the lease, and of what the other has left
def test_what_another_execution_verified_resolves_nothing_in_this_one(
    scene: Scene, crash_injection: CrashInjection, operation: str
) -> None:
    """Its first step ends, in all attempts, before all of that is removed."""
    scene.registry.delete_repository("team", "old")
    scene.make("inventory")
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    expire_lease(scene)
    for tag in ("1", "2", "3"):
        scene.push(f"team/old:{tag}")  # there again
    payload = {**scene.payload(), "execution": "another"}
    crash_injection.operation = operation
    with pytest.raises(Cut):
        scene.step_functions_run.make(steps.inventory, payload)
    crash_injection.operation = ""
    run = scene.step_functions_run.make(steps.report, {**payload, "failure": {"Error": "Lambda.Unknown"}})
    assert (run["status"], run["complete"], run["findings"]["resolved"]) == ("OPEN", False, 0)
    assert set(scene.states().values()) == {"OPEN"}
    assert scene.audited.rows(RUN_ID) == []


def expire_lease(scene: Scene) -> None:
    table, key = scene.step_functions_run.settings.runs_table, {"pk": scene.audited.name, "sk": "#lease"}
    left = scene.step_functions_run.clients.dynamodb.get_item(TableName=table, Key=key)["Item"]
    scene.step_functions_run.clients.dynamodb.put_item(
        TableName=table, Item={**left, "until": "2000-01-01T00:00:00.000Z"}
    )


# --- What all workers judge by ------------------------------------------------------------------------------------------


def test_all_workers_judge_by_the_exceptions_that_the_first_step_read(scene: Scene) -> None:
    s3, bucket = scene.step_functions_run.clients.s3, scene.step_functions_run.settings.bucket
    document = {
        "exceptions": [
            {
                "id": "EX-1", "namespace": "*", "repository": "*", "tag": "*", "owner": "j.doe", "reason": "being replaced",
                "ends": "2027-06-01",
            }
        ]
    }  # fmt: skip
    s3.put_object(Bucket=bucket, Key=EXCEPTIONS_KEY, Body=json.dumps(document).encode())
    try:
        scene.make("inventory")
        scene.make("examine", 1)
        s3.put_object(Bucket=bucket, Key=EXCEPTIONS_KEY, Body=b"{")
        scene.make("examine", 2)
        scene.make("prove")
        run = scene.make("report")
    finally:
        s3.delete_object(Bucket=bucket, Key=EXCEPTIONS_KEY)
    assert run["findings"]["excepted"] == run["findings"]["open"] == 11
    assert {row["exception_id"] for row in scene.audited.rows(RUN_ID) if row["verdict"] == "UNSIGNED"} == {"EX-1"}
    assert run["warnings"] == []


def test_repositories_that_are_gone_are_recorded_once_all_batches_are_read(scene: Scene) -> None:
    scene.make("inventory")
    scene.dtr.faults = Faults(deleted_when_read=tags_of("web/till"), missing_though_listed=tags_of("team/api", times=1))
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    run = scene.make("report")
    assert run["complete"] is True
    assert run["repositories"] == {"listed": 4, "audited": 3, "unreadable": 0, "removed": 1}
    assert {state for image, state in scene.states().items() if image.startswith("web/till")} == {"RESOLVED"}
    assert {row["repository"] for row in scene.audited.rows(RUN_ID)} == {"api", "old", "shop"}


def test_a_worker_whose_account_was_refused_leaves_its_repositories_unread(scene: Scene) -> None:
    scene.change()
    scene.make("inventory")
    scene.make("examine", 1)
    scene.dtr.accounts.set_admin("admin", is_admin=False)
    scene.make("examine", 2)
    scene.dtr.accounts.set_admin("admin", is_admin=True)
    scene.make("prove")
    run = scene.make("report")
    assert run["repositories"]["unreadable"] == 2
    assert "not an administrator" in run["incomplete_because"][-1]


def test_a_worker_that_is_not_verified_at_its_end_resolves_nothing_of_its_batch(scene: Scene) -> None:
    scene.sign("web/shop:1")
    scene.sign("team/api:1")
    scene.make("inventory")
    numbers = {
        f"{namespace}/{name}": number
        for number in (1, 2)
        for namespace, name in scene.work(f"batches/0000{number}.json")
    }
    assert numbers["web/shop"] == numbers["team/api"], "in one batch"
    doubtful = numbers["web/shop"]
    scene.make("examine", 3 - doubtful)
    scene.dtr.faults = Faults(on_calls=(Status(500, SETTINGS.limited(after=1)),))
    scene.make("examine", doubtful)
    scene.dtr.faults = Faults()
    scene.make("prove")
    run = scene.make("report")
    assert run["complete"] is False
    assert "could not be proven at the end" in run["incomplete_because"][0]
    assert set(scene.states().values()) == {"OPEN"}
    assert run["findings"]["open"] == 11


# --- The report ---------------------------------------------------------------------------------------------------------


def test_the_report_never_asks_for_the_secret_nor_the_registry(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.change()
    scene.make("inventory")
    for number in (1, 2):
        scene.make("examine", number)
    scene.make("prove")
    monkeypatch.setattr(AwsClients, "secrets", property(lambda _: pytest.fail("the secret is asked for")))
    scene.step_functions_run.clients = AwsClients(connections=2)
    asked = len(scene.dtr.requests)
    assert scene.make("report")["complete"] is True
    assert len(scene.dtr.requests) == asked


HOSTILE = {"Error": "Lambda.Unknown", "Cause": '{"errorMessage": "hunter2"}'}


@pytest.mark.parametrize(
    ("until", "step"),
    [
        ("nothing", "inventory"),
        ("inventory", "inventory"),  # at its very end
        ("inventory", "examine"),
        ("examine", "examine"),
        ("examine", "prove"),
        ("prove", "prove"),
    ],
)
def test_a_run_whose_step_failed_is_closed_with_what_is_known(
    scene: Scene, crash_injection: CrashInjection, until: str, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene.change()
    if until != "nothing":
        scene.make("inventory")
    if until in {"examine", "prove"}:
        scene.make("examine", 1)
        scene.make("examine", 2)
    if until == "prove":
        crash_injection.calls.clear()
        crash_injection.operation = "PutObject"  # its claim
        with pytest.raises(Cut):
            scene.make("prove")
        crash_injection.operation = ""
    run = scene.make("report", failure=HOSTILE, failed_step=step)
    assert run["complete"] is False
    assert any(
        f"the step '{step}' of this run failed (Lambda.Unknown)" in reason for reason in run["incomplete_because"]
    )
    assert run["status"] == "OPEN"
    assert "RESOLVED" not in scene.states().values()
    assert run["findings"]["open"] == len(scene.states())
    (message,) = scene.audited.messages()
    texts = json.dumps([run, scene.record(), message.text, message.subject]) + caplog.text
    assert "hunter2" not in texts
    table = RunsTable(
        scene.step_functions_run.clients.dynamodb, scene.step_functions_run.settings.runs_table, scene.audited.name
    )
    table.take_lease("another", "another", "another", now=datetime.now(UTC), seconds=60)  # it is free


def test_an_error_with_a_name_that_is_none_is_not_repeated(scene: Scene) -> None:
    run = scene.make("report", failure={"Error": "<b>hunter2</b>", "Cause": "hunter2"})
    assert "failed (an error)" in run["incomplete_because"][0]


def test_the_report_of_a_run_that_is_under_way_elsewhere_writes_nothing(scene: Scene) -> None:
    another = {**scene.payload(), "execution": "another"}
    scene.step_functions_run.make(steps.inventory, another)
    before = stored(scene)
    with pytest.raises(LeaseHeldError):
        scene.make("report", failure=HOSTILE)
    assert stored(scene) == before


def test_the_summary_fits_any_the_texts(scene: Scene) -> None:
    text = "\N{REPLACEMENT CHARACTER}" * 5_000
    record = {
        **scene.step_functions_run.record("20261201T030000Z"),
        "incomplete_because": [text] * 100,
        "warnings": [text] * 100,
    }
    assert len(json.dumps(steps.summarise(record))) < 256 * 1024


def test_a_registry_that_refuses_the_account_is_not_connected_and_says_why(scene: Scene) -> None:
    scene.audited.put_secret(username="admin", password="wrong")
    run = scene.step_functions_run.execute(EVENT)
    assert (run["status"], run["complete"]) == ("OPEN", False)
    assert "does not accept the credentials" in run["incomplete_because"][0]
    assert len(run["incomplete_because"]) == 1
    assert run["findings"]["open"] == 11


def test_an_empty_registry_is_verified_empty(audited: Audited) -> None:
    run = StepFunctionsRun(audited).execute(EVENT)
    assert (run["status"], run["complete"], run["repositories"]["listed"]) == ("NOT_A_FINDING", True, 0)


# --- What the first step decides ----------------------------------------------------------------------------------------


def test_more_workers_than_requests_are_refused_by_the_variables_name(audited: Audited) -> None:
    with pytest.raises(SettingsError, match=r"^FAN_OUT_WORKERS: "):
        StepFunctionsRun(audited, {"CONCURRENCY": "2", "FAN_OUT_WORKERS": "3"}).execute(EVENT)


def test_a_step_without_its_inventory_says_what_to_do(scene: Scene) -> None:
    for step in ("examine", "prove"):
        with pytest.raises(WorkError, match=r"inventory\.json is not there: start the audit anew"):
            scene.make(step, 1)
    scene.make("inventory")
    with pytest.raises(WorkError, match="this batch is not there"):
        scene.make("examine", 7)


def test_a_list_that_is_not_at_its_end_in_time_is_said(scene: Scene, fake_clock: FakeClock) -> None:
    run_out_once(scene, fake_clock, SETTINGS.path)
    inventory = scene.make("inventory")
    assert inventory["connected"]
    assert inventory["count"] == 0
    scene.make("prove")
    run = scene.make("report")
    assert run["status"] == "OPEN"
    assert (
        "the list of repositories was not at its end when the time of the function was over"
        in run["incomplete_because"][0]
    )
    assert "RESOLVED" not in scene.states().values()
