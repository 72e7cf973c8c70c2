"""A registry too large for one Lambda: every night reads a piece of it, and the next begins where coverage was missing."""

import itertools
import json
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from dtr_audit.aws.archive import Archive
from dtr_audit.aws.runs import RunsTable
from dtr_audit.core.run_record import Run
from dtr_audit_simulator.dtr.backend import RepositoryEntry
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.fault_kinds import Calls, Status
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.transport import Request
from tests.harness.audit_harness import Audited
from tests.harness.fake_clock import FakeClock
from tests.harness.step_functions_harness import StepFunctionsRun

REPOSITORIES = 30
TAG_LISTS = "/api/v0/repositories/*/tags"


class Listed(InMemoryRegistry):
    """A registry that lists in an order of its own, the same every night."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self._order = order

    def repositories(self) -> Sequence[RepositoryEntry]:
        entries = list(super().repositories())
        if self._order == "backwards":
            return entries[::-1]
        if self._order == "by chance":
            random.Random(1).shuffle(entries)
        return entries


@pytest.fixture(params=["sorted", "backwards", "by chance"])
def registry(request: pytest.FixtureRequest) -> InMemoryRegistry:
    registry = Listed(request.param)
    for number in range(REPOSITORIES):
        registry.push(f"team-{number // 10}", f"s{number % 10}", "1")
        registry.sign(f"team-{number // 10}", f"s{number % 10}", "1")
    return registry


@pytest.fixture
def dtr(registry: InMemoryRegistry) -> Iterator[DtrServer]:
    with DtrServer(registry, profile=Profile(maximum_page_size=10)) as server:
        yield server


class DaysTaken:
    """Audits, each stopped at its n-th request of some kind."""

    def __init__(self, audited: Audited, dtr: DtrServer, fake_clock: FakeClock) -> None:
        self._audited = audited
        self._time = fake_clock
        self._asked = itertools.count(1)
        self._stop_at = 0
        self.paths: list[str] = []
        dtr.on_request(self._count, TAG_LISTS)

    def _count(self, request: Request) -> None:
        self.paths.append(request.path)
        if next(self._asked) == self._stop_at:
            self._time.run_out()

    def audit(
        self, event: dict[str, Any] | None = None, *, stop_at: int = 0, concurrency: int = 1, request_id: str = ""
    ) -> dict[str, Any]:
        """Audit; 0 is never stopped."""
        self._asked, self._stop_at = itertools.count(1), stop_at
        self.paths.clear()
        return self._audited.audit(
            event, request_id=request_id, seconds=FakeClock.SECONDS, CONCURRENCY=str(concurrency)
        )

    def read(self, run: dict[str, Any]) -> set[str]:
        """Give the repositories that a run has read."""
        return {image.split(":")[0] for image in self._audited.verdicts(run["run_id"])}

    def records(self) -> dict[str, dict[str, Any]]:
        """Give what the table of runs holds, by run id."""
        return {item["sk"]: item for item in self._audited.items("RunsTableName") if item["pk"] == self._audited.name}


@pytest.fixture
def days_taken(audited: Audited, dtr: DtrServer, fake_clock: FakeClock) -> DaysTaken:
    return DaysTaken(audited, dtr, fake_clock)


def test_three_runs_that_are_all_too_short_read_everything(
    audited: Audited, registry: InMemoryRegistry, days_taken: DaysTaken
) -> None:
    assert days_taken.audit()["status"] == "NOT_A_FINDING"
    everything = {entry.path for entry in registry.repositories()}
    for entry in registry.repositories():
        registry.push(entry.namespace, entry.name, "1")  # over what was signed
    seen: set[str] = set()
    for _ in range(3):
        run = days_taken.audit(stop_at=14)
        tonight = days_taken.read(run)
        assert run["complete"] is False
        assert run["status"] == "OPEN"
        assert run["repositories"]["audited"] == len(tonight) < REPOSITORIES
        (reason,) = (one for one in run["incomplete_because"] if "time limit" in one)
        assert "Engine to stepfunctions" in reason
        assert str(days_taken.records()[run["run_id"]]["next_at"]["repository"]) in reason
        seen |= tonight
        # What no night has come to stands as it was: signed, as far as anybody knows.
        assert {image.split(":")[0] for image in audited.findings()} == seen
    assert seen == everything


def test_with_several_requests_in_flight_no_repository_is_left_out_for_ever(
    registry: InMemoryRegistry, days_taken: DaysTaken
) -> None:
    everything = {entry.path for entry in registry.repositories()}
    seen: set[str] = set()
    for _ in range(10):
        seen |= days_taken.read(days_taken.audit(stop_at=14, concurrency=4))
        if seen == everything:
            break
    assert seen == everything


def test_a_run_out_of_time_resolves_nothing_that_it_did_not_look_at(
    audited: Audited, registry: InMemoryRegistry, days_taken: DaysTaken
) -> None:
    for entry in registry.repositories():
        registry.push(entry.namespace, entry.name, "1")
    days_taken.audit()
    for entry in list(registry.repositories())[-3:]:
        registry.delete_repository(entry.namespace, entry.name)
    before = audited.findings()
    run = days_taken.audit(stop_at=12)
    unread = {image: item for image, item in before.items() if image.split(":")[0] not in days_taken.read(run)}
    after = audited.findings()
    assert len(unread) > 3
    assert {image: after[image] for image in unread} == unread
    assert {item["state"] for item in after.values()} == {"OPEN"}
    assert run["findings"] == {"open": REPOSITORIES, "opened": 0, "resolved": 0, "excepted": 0}


def test_a_run_that_comes_to_the_end_takes_the_mark_away(days_taken: DaysTaken) -> None:
    late = days_taken.audit(stop_at=10)
    marked = days_taken.records()[late["run_id"]]["next_at"]
    whole = days_taken.audit()
    assert days_taken.paths[0] == f"/api/v0/repositories/{marked['namespace']}/{marked['repository']}/tags"
    assert (whole["complete"], whole["repositories"]["audited"]) == (True, REPOSITORIES)
    assert "next_at" not in days_taken.records()[whole["run_id"]]
    first = days_taken.paths[0]
    days_taken.audit()
    assert days_taken.paths[0] != first


def test_an_audit_of_some_namespaces_neither_reads_nor_moves_the_mark(days_taken: DaysTaken) -> None:
    late = days_taken.audit(stop_at=10)
    marked = days_taken.records()[late["run_id"]]["next_at"]
    event = {"scheduled_time": "2026-11-01T12:00:00Z", "namespaces": ["team-0", "team-1", "team-2"]}
    partial = days_taken.audit(event, stop_at=4)
    assert any("time limit" in reason for reason in partial["incomplete_because"])
    assert not any("begins at" in reason for reason in partial["incomplete_because"])
    assert "next_at" not in days_taken.records()[partial["run_id"]]
    days_taken.audit()
    assert days_taken.paths[0] == f"/api/v0/repositories/{marked['namespace']}/{marked['repository']}/tags"


def test_a_run_without_the_registry_keeps_the_mark(audited: Audited, dtr: DtrServer, days_taken: DaysTaken) -> None:
    late = days_taken.audit(stop_at=10)
    audited.put_secret(username=dtr.admin.name, password="wrong")
    refused = days_taken.audit()
    assert refused["repositories"]["listed"] == 0
    records = days_taken.records()
    assert records[refused["run_id"]]["next_at"] == records[late["run_id"]]["next_at"]


def test_a_run_that_did_not_finish_neither_moves_nor_loses_the_mark(
    audited: Audited, days_taken: DaysTaken, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = days_taken.audit(stop_at=10)
    marked = days_taken.records()[late["run_id"]]["next_at"]
    first = f"/api/v0/repositories/{marked['namespace']}/{marked['repository']}/tags"

    class Cut(BaseException):
        """The process ends here."""

    def cut(*_: object, **__: object) -> None:
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(RunsTable, "finish", cut)
        with pytest.raises(Cut):
            audited.runs += 1
            days_taken.audit(audited.event(), stop_at=10, request_id="one")
    assert days_taken.paths[0] == first
    again = days_taken.audit(audited.event(), request_id="one")
    assert days_taken.paths[0] == first
    assert again["complete"] is True


@pytest.mark.parametrize("registry", ["sorted"], indirect=True)
def test_the_same_registry_read_in_steps_needs_no_mark_and_leaves_none(audited: Audited, days_taken: DaysTaken) -> None:
    days_taken.audit(stop_at=10)
    run = StepFunctionsRun(audited).execute()
    assert run["complete"] is True
    assert "next_at" not in days_taken.records()[run["run_id"]]


@pytest.mark.parametrize("registry", ["sorted"], indirect=True)
def test_a_mark_that_was_removed_gives_way_to_what_follows_it(
    registry: InMemoryRegistry, days_taken: DaysTaken
) -> None:
    late = days_taken.audit(stop_at=10)
    marked = days_taken.records()[late["run_id"]]["next_at"]
    paths = [entry.path for entry in registry.repositories()]
    behind = paths[paths.index(f"{marked['namespace']}/{marked['repository']}") + 1]
    registry.delete_repository(str(marked["namespace"]), str(marked["repository"]))
    assert days_taken.audit()["complete"] is True
    assert days_taken.paths[0] == f"/api/v0/repositories/{behind}/tags"


@pytest.mark.parametrize("registry", ["sorted"], indirect=True)
def test_a_list_that_is_itself_out_of_time_keeps_what_was_read_and_the_mark(
    dtr: DtrServer, fake_clock: FakeClock, days_taken: DaysTaken
) -> None:
    late = days_taken.audit(stop_at=25)
    marked = days_taken.records()[late["run_id"]]["next_at"]
    pages = itertools.count(1)
    dtr.on_request(lambda _: fake_clock.run_out() if next(pages) == 2 else None, "/api/v0/repositories")
    listing = days_taken.audit()
    # The mark stands on the third page: nothing could be read from it on, and nothing was read before it.
    assert days_taken.paths == []
    # What was not listed counts as well.
    assert (listing["repositories"]["listed"], listing["repositories"]["audited"]) == (REPOSITORIES, 0)
    assert listing["status"] == "NOT_REVIEWED"
    assert any("time limit" in reason for reason in listing["incomplete_because"])
    assert days_taken.records()[listing["run_id"]]["next_at"] == marked
    assert days_taken.audit()["complete"] is True


@pytest.mark.parametrize("registry", ["sorted"], indirect=True)
def test_what_is_listed_once_the_time_is_up_changes_nothing_that_was_written(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Archive.put_record
    second_asked, writing = threading.Event(), threading.Event()
    pages = itertools.count(1)

    def put_it_late(archive: Archive, run: Run) -> None:
        writing.set()
        # The second page of the list comes meanwhile.
        for thread in threading.enumerate():
            if thread.name == "list":
                thread.join()
        put(archive, run)

    def answer_late(_: Request) -> None:
        if next(pages) == 2:
            second_asked.set()
            writing.wait()

    def wait_for_the_second(_: Request) -> None:
        second_asked.wait()

    monkeypatch.setattr(Archive, "put_record", put_it_late)
    dtr.on_request(answer_late, "/api/v0/repositories")
    dtr.on_request(wait_for_the_second, TAG_LISTS)
    dtr.faults = Faults(on_calls=(Status(503, Calls(TAG_LISTS), retry_after="100"),))
    run = audited.audit(seconds=60.0)
    (key,) = audited.keys("runs")
    (item,) = (one for one in audited.items("RunsTableName") if one["pk"] == audited.name and "repositories" in one)
    assert run["repositories"] == json.loads(audited.read(key))["repositories"] == item["repositories"]
    assert run["repositories"]["listed"] == REPOSITORIES
    assert "of 10 listed" in " ".join(run["incomplete_because"])
