"""A fault of seconds or minutes does not cost the run, whichever request meets it, and a registry that is down is not hammered."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from dtr_audit.core.credentials import Credentials
from dtr_audit.errors import TransientError
from dtr_audit.http import retry, transport
from dtr_audit.pipeline import scanner, steps
from dtr_audit.registry.dtr import DtrClient
from dtr_audit_simulator.dtr.fault_kinds import (
    ALL_TAGS,
    EVERY_CALL,
    TRUST,
    Calls,
    Forged,
    Miscount,
    Slow,
    Status,
    tags_of,
)
from dtr_audit_simulator.dtr.faults import API, MANIFESTS, NO_FAULTS, REPOSITORIES, SETTINGS, TOKEN, Faults
from dtr_audit_simulator.dtr.manifests import COSIGN_SIGNATURE, manifest_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.transport import Request
from dtr_audit_simulator.notary.attacks import Expired
from tests.harness.audit_harness import Audited
from tests.harness.fake_clock import FakeClock
from tests.harness.step_functions_harness import MakeRun, StepFunctionsRun

SECONDS = 900.0  # of a run in one function, and of each step of one in several
OUTAGE_SECONDS = 300.0
COUNT = 12
UNSIGNED = "team/s05:unsigned"


@pytest.fixture
def registry() -> InMemoryRegistry:
    """Every tag is signed but one."""
    registry = InMemoryRegistry()
    for number in range(COUNT):
        registry.push("team", f"s{number:02d}", "1")
        registry.sign("team", f"s{number:02d}", "1")
    registry.push("team", "s05", "unsigned")
    return registry


@pytest.fixture(autouse=True)
def _as_patient_as_in_production(monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock) -> None:
    """Wait as long as in production, on a clock that goes on where somebody waits."""
    assert fake_clock
    monkeypatch.setattr(transport, "BACKOFF_SECONDS", 0.5)
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 5.0)
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", 600.0)
    monkeypatch.setattr(scanner, "SECOND_PASS_SECONDS", 30.0)


@pytest.fixture
def run(make_run: MakeRun) -> MakeRun:
    """Make a run that has as much time as in production."""
    return partial(make_run, seconds=SECONDS, PAGE_SIZE="10", CONCURRENCY="2")


class Outage:
    """The registry answers with an error for a while; it begins at a request of some kind."""

    def __init__(
        self,
        dtr: DtrServer,
        fake_clock: FakeClock,
        path: str,
        *,
        after: int = 0,
        calls: Calls = EVERY_CALL,
        **status: Any,
    ) -> None:
        self._dtr = dtr
        self._time = fake_clock
        self._after = after
        self._faults = Faults(on_calls=(Status(**{"status": 503, "shape": "html", "calls": calls, **status}),))
        self._asked = itertools.count()
        self.seconds = OUTAGE_SECONDS
        self.ends_at: float | None = None
        dtr.on_request(self._begin, path)
        dtr.on_request(self._look)

    def _begin(self, _: Request) -> None:
        if next(self._asked) == self._after:
            self.ends_at = self._time.now + self.seconds

    def _look(self, _: Request) -> None:
        is_down = self.ends_at is not None and self._time.now < self.ends_at
        self._dtr.faults = self._faults if is_down else NO_FAULTS

    @property
    def refused(self) -> int:
        """How many requests it has met."""
        return sum(call.status == 503 for call in self._dtr.requests)


def assert_nothing_is_lost_or_doubled(audited: Audited, record: dict[str, Any]) -> None:
    assert record["incomplete_because"] == []
    assert record["repositories"] == {"listed": COUNT, "audited": COUNT, "unreadable": 0, "removed": 0}
    assert (record["tags"]["signed"], record["tags"]["unsigned"], record["tags"]["unknown"]) == (COUNT, 1, 0)
    assert record["findings"] == {"open": 1, "opened": 1, "resolved": 0, "excepted": 0}
    verdicts = audited.verdicts(record["run_id"])
    assert len(verdicts) == COUNT + 1
    assert verdicts[UNSIGNED] == "UNSIGNED"
    (message,) = (one for one in audited.messages() if one.attributes["event"] == "findings_changed")
    assert message.body["counts"]["opened"] == 1


@pytest.mark.parametrize(
    "begins",
    [
        pytest.param(("/v2", 0), id="at the login's challenge"),
        pytest.param(("/auth/token", 0), id="at the token"),
        pytest.param(("/api/v0/meta/settings", 0), id="at the first access check"),
        pytest.param(("/api/v0/repositories", 0), id="at the first page of the list"),
        pytest.param(("/api/v0/repositories", 1), id="at the second page of the list"),
        pytest.param(("/api/v0/repositories/*/tags", 4), id="while tags are read"),
        pytest.param(("/api/v0/meta/settings", 1), id="at the second access check"),
    ],
)
def test_outage_of_five_minutes_in_a_run_of_fifteen_loses_nothing(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun, begins: tuple[str, int]
) -> None:
    path, after = begins
    outage = Outage(dtr, fake_clock, path, after=after)
    assert_nothing_is_lost_or_doubled(audited, run())
    assert outage.ends_at is not None
    assert fake_clock.now >= outage.ends_at
    # A question at a time, with five attempts each. A login asks four.
    assert outage.refused <= 5 * (COUNT + 18)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(ALL_TAGS, id="tags"),
        pytest.param(Calls("/api/v0/repositories"), id="the list"),
        pytest.param(SETTINGS.limited(after=1), id="the second access check"),
    ],
)
def test_fault_of_one_kind_of_request_for_five_minutes_loses_nothing(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, status: int, calls: Calls
) -> None:
    Outage(dtr, fake_clock, "/api/v0/repositories", calls=calls, status=status)
    assert_nothing_is_lost_or_doubled(audited, audited.audit(seconds=SECONDS, PAGE_SIZE="10", CONCURRENCY="2"))


def test_repository_that_fails_until_a_tenth_of_the_time_is_left_is_read_once(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    outage = Outage(dtr, fake_clock, "/api/v0/repositories/*/tags", calls=tags_of("team/s05"), status=500)
    outage.seconds = 580.0
    assert_nothing_is_lost_or_doubled(audited, run())


def test_repository_that_always_fails_is_unread_once_after_the_last_pass(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    began = fake_clock.now
    dtr.faults = Faults(on_calls=(Status(500, tags_of("team/s05")),))
    record = run()
    assert record["repositories"] == {"listed": COUNT, "audited": COUNT - 1, "unreadable": 1, "removed": 0}
    assert [one["repository"] for one in record["unreadable"]] == ["team/s05"]
    assert record["tags"]["signed"] == len(audited.verdicts(record["run_id"])) == COUNT - 1
    assert fake_clock.now - began >= 600.0
    assert len(dtr.calls("/api/v0/repositories/team/s05/tags")) == 3 * (transport.ATTEMPTS + 1), (
        "in each pass once without a domain"
    )


def test_known_finding_of_a_repository_that_always_fails_stays_open(
    audited: Audited, dtr: DtrServer, run: MakeRun
) -> None:
    run()
    audited.messages()
    dtr.faults = Faults(on_calls=(Status(500, tags_of("team/s05")),))
    record = run()
    assert record["findings"] == {"open": 1, "opened": 0, "resolved": 0, "excepted": 0}
    assert audited.findings()[UNSIGNED]["state"] == "OPEN"


@pytest.mark.parametrize(
    "on_calls",
    [
        pytest.param((Status(403, tags_of("team/s05")),), id="forbidden"),
        pytest.param((Status(404, tags_of("team/s05"), code="NO_SUCH_ACCOUNT"),), id="orphan"),
        pytest.param((Status(400, REPOSITORIES),), id="a bad request"),
        pytest.param((Status(401, TOKEN), Status(401, API)), id="wrong credentials"),
    ],
)
def test_permanent_error_is_not_waited_for(
    dtr: DtrServer, fake_clock: FakeClock, run: MakeRun, on_calls: tuple[Status, ...]
) -> None:
    began = fake_clock.now
    dtr.faults = Faults(on_calls=on_calls)
    assert run()["complete"] is False
    assert fake_clock.now - began < 30.0


def test_certificate_that_is_refused_is_not_waited_for(audited: Audited, dtr: DtrServer, fake_clock: FakeClock) -> None:
    audited.stack.put_secret({"username": dtr.admin.name, "password": dtr.admin.password})
    began = fake_clock.now
    assert "certificate is refused" in audited.audit(seconds=SECONDS)["incomplete_because"][0]
    assert fake_clock.now == began


def test_wrong_password_while_the_registry_fails_is_not_tried_again_and_again(
    audited: Audited, dtr: DtrServer, run: MakeRun
) -> None:
    audited.put_secret(username=dtr.admin.name, password="wrong")
    dtr.faults = Faults(on_calls=(Status(503, SETTINGS),))
    assert run()["complete"] is False
    assert len([call for call in dtr.calls("/auth/token") if call.status == 401]) == 1


def test_token_server_that_is_down_does_not_make_a_login_with_basic_alone_final(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    """A registry that takes tokens alone refuses Basic with 401, which is no word about the password."""
    until = fake_clock.now + OUTAGE_SECONDS

    def fail_for_a_while(_: Request) -> None:
        is_down = fake_clock.now < until
        on_calls = (Status(503, TOKEN), Status(401, API))
        dtr.faults = Faults(on_calls=on_calls) if is_down else NO_FAULTS

    dtr.on_request(fail_for_a_while)
    assert_nothing_is_lost_or_doubled(audited, run())
    refused = [call for call in dtr.requests if call.status == 401 and call.authentication == "basic"]
    assert len(refused) == 1, "each counts against the account's lock"


def test_token_that_expires_in_an_outage_is_renewed_afterwards(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    outage = Outage(dtr, fake_clock, "/api/v0/repositories/*/tags", after=4)

    def revoke(_: Request) -> None:
        if outage.ends_at is not None:
            dtr.revoke_tokens()
            stop()

    stop = dtr.on_request(revoke)
    assert_nothing_is_lost_or_doubled(audited, run())


def test_token_left_to_expire_before_a_pass_is_no_doubt_on_a_server_that_answers_as_to_no_one(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock
) -> None:
    """All was read as an administrator before the wait, and nothing with the dead token after it."""
    began: list[float] = []

    def fail_once(_: Request) -> None:
        began.append(fake_clock.now)
        anonymous = Faults(anonymous_as_success=EVERY_CALL)
        failing = Faults(anonymous_as_success=EVERY_CALL, on_calls=(Status(500, tags_of("team/s05")),))
        dtr.faults = anonymous if fake_clock.now >= began[0] + 25.0 else failing

    def expire(_: Request) -> None:
        if began and fake_clock.now >= began[0] + 25.0:
            dtr.revoke_tokens()
            stop()

    dtr.on_request(fail_once, "/api/v0/repositories/team/s05/tags")
    stop = dtr.on_request(expire, "/api/v0/meta/settings")
    dtr.faults = Faults(anonymous_as_success=EVERY_CALL)
    assert_nothing_is_lost_or_doubled(audited, audited.audit(seconds=SECONDS, PAGE_SIZE="10", CONCURRENCY="2"))


def test_retry_after_of_minutes_is_kept_by_the_next_pass(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock
) -> None:
    asked: list[float] = []
    dtr.on_request(lambda _: asked.append(fake_clock.now), "/api/v0/repositories/team/s05/tags")
    dtr.faults = Faults(on_calls=(Status(503, tags_of("team/s05", times=1), retry_after="400"),))
    assert_nothing_is_lost_or_doubled(audited, audited.audit(seconds=SECONDS, PAGE_SIZE="10", CONCURRENCY="2"))
    assert asked[1] - asked[0] == pytest.approx(400.0)


def test_retry_after_of_a_day_is_not_waited_for(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    began = fake_clock.now
    dtr.faults = Faults(on_calls=(Status(503, tags_of("team/s05"), retry_after="86400"),))
    assert "86400" in " ".join(run()["incomplete_because"])
    assert fake_clock.now - began < 60.0
    assert len(dtr.calls("/api/v0/repositories/team/s05/tags")) == 1


def test_page_that_fails_for_good_leaves_the_registrys_own_count_as_denominator(
    dtr: DtrServer, audited: Audited, run: MakeRun
) -> None:
    failing = Faults(on_calls=(Status(500, REPOSITORIES),))

    def fail_on_the_second_page(request: Request) -> None:
        dtr.faults = failing if request.parameter("pageStart") else NO_FAULTS

    dtr.on_request(fail_on_the_second_page, "/api/v0/repositories")
    record = run()
    assert record["repositories"]["listed"] == COUNT
    assert record["repositories"]["audited"] == 10
    assert "500" in " ".join(record["incomplete_because"])
    assert record["complete"] is False


def test_notary_that_is_down_for_five_minutes_leaves_no_tag_unknown(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    registry.delete_tag("team", "s05", "unsigned")
    for number in range(COUNT):
        trust = dtr.notary.create(f"{dtr.host}/team/s{number:02d}")
        trust.add_signer("ci")
        (entry,) = registry.tags("team", f"s{number:02d}", dtr.host)
        trust.sign("1", entry.digest, signer="ci")
    Outage(dtr, fake_clock, "/v2/*/_trust/tuf/*", calls=TRUST)
    record = run(TRUST_VERIFICATION="signatures")
    assert (record["status"], record["incomplete_because"]) == ("NOT_A_FINDING", [])
    assert record["tags"]["signed"] == record["trust"]["verified"] == COUNT
    assert record["trust"]["unreadable"] == 0
    assert set(audited.verdicts(record["run_id"]).values()) == {"SIGNED"}


def test_manifest_that_cannot_be_read_for_five_minutes_opens_no_finding(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    registry.delete_tag("team", "s05", "unsigned")
    name = f"sha256-{'a' * 64}.sig"
    registry.push("team", "s05", name, manifest=manifest_of(name, COSIGN_SIGNATURE))
    Outage(dtr, fake_clock, "/v2/*/manifests/*", calls=MANIFESTS)
    record = run()
    assert (record["status"], record["tags"]["artifacts"]) == ("NOT_A_FINDING", 1)
    assert audited.findings() == {}


def test_repository_deleted_between_two_passes_is_removed(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    outage = Outage(dtr, fake_clock, "/api/v0/repositories/*/tags", calls=tags_of("team/s06"), status=500)

    def delete(_: Request) -> None:
        if outage.ends_at is not None and fake_clock.now >= outage.ends_at and "s06" in str(registry.repositories()):
            registry.delete_repository("team", "s06")

    dtr.on_request(delete)
    record = run()
    assert record["complete"] is True
    assert record["repositories"] == {"listed": COUNT, "audited": COUNT - 1, "unreadable": 0, "removed": 1}


def test_batches_behind_one_that_waited_in_vain_do_not_wait(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtr_audit.pipeline.steps.BATCH_REPOSITORIES", 3)
    step_functions_run = StepFunctionsRun(audited, {"PAGE_SIZE": "10"})
    step_functions_run.seconds = SECONDS
    audited.runs += 1
    payload = step_functions_run.payload(audited.event())
    step_functions_run.make(steps.inventory, payload)
    dtr.faults = Faults(on_calls=(Status(503),))
    waited = []
    for number in range(1, 5):
        began = fake_clock.now
        step_functions_run.make(steps.examine, {**payload, "batch": {"number": number}})
        waited.append(fake_clock.now - began)
    assert waited[0] >= 600.0
    assert max(waited[1:]) < 60.0
    dtr.faults = NO_FAULTS
    step_functions_run.make(steps.prove, payload)
    assert_nothing_is_lost_or_doubled(
        audited, step_functions_run.record(step_functions_run.make(steps.report, payload)["run_id"])
    )


@pytest.fixture
def client(dtr: DtrServer, fake_clock: FakeClock) -> Iterator[DtrClient]:
    class Source:
        def fetch(self, *, fresh: bool = False) -> Credentials:
            return Credentials(dtr.admin.name, dtr.admin.password, dtr.ca_bundle)

    client = DtrClient(
        dtr.url,
        Source(),
        x509_strict=True,
        concurrency=1,
        page_size=10,
        stop_at=fake_clock.now + 900.0,
        clock=fake_clock,
    )
    yield client
    client.close()


def test_registry_that_is_down_is_asked_one_thing_at_a_time_and_ever_more_rarely(
    dtr: DtrServer, fake_clock: FakeClock, client: DtrClient
) -> None:
    client.connect()
    asked: list[float] = []
    dtr.on_request(lambda _: asked.append(fake_clock.now), "/api/v0/meta/settings")
    dtr.faults = Faults(on_calls=(Status(503),))
    dtr.take_busiest()
    with pytest.raises(TransientError):
        client.patience.ask(client.probe)
    assert dtr.take_busiest() == 1
    assert len(asked) <= 16 * transport.ATTEMPTS
    assert asked[-1] - asked[0] >= 590.0


def test_name_that_does_not_exist_is_not_waited_for(audited: Audited, fake_clock: FakeClock) -> None:
    began = fake_clock.now
    record = audited.audit(seconds=SECONDS, DTR_URL="https://no-such-registry.invalid")
    assert "no answer" in record["incomplete_because"][0]
    assert fake_clock.now - began < 60.0


def push_many(registry: InMemoryRegistry) -> None:
    """Give a repository more tags than fit on a page."""
    for number in range(14):
        registry.push("team", "s05", f"2.{number}")
        registry.sign("team", "s05", f"2.{number}")


def test_expired_trust_data_leaves_tags_unknown_and_says_so(audited: Audited, dtr: DtrServer, run: MakeRun) -> None:
    dtr.faults = Faults(trust_refused=tags_of("team/s05"))
    record = run()
    assert (record["status"], record["complete"]) == ("NOT_REVIEWED", False)
    assert record["repositories"]["unreadable"] == 0
    rows = {row["tag"]: row for row in audited.rows(record["run_id"]) if row["repository"] == "s05"}
    assert {tag: row["verdict"] for tag, row in rows.items()} == {"1": "UNKNOWN", "unsigned": "UNKNOWN"}
    assert all("could not be read, and has perhaps expired" in row["reason"] for row in rows.values())
    assert "has perhaps expired" in " ".join(record["incomplete_because"])


def test_trust_data_that_can_be_read_again_in_the_same_run_is_judged(
    audited: Audited, dtr: DtrServer, fake_clock: FakeClock, run: MakeRun
) -> None:
    ends_at = fake_clock.now + OUTAGE_SECONDS

    def refuse_for_a_while(_: Request) -> None:
        dtr.faults = Faults(trust_refused=ALL_TAGS) if fake_clock.now < ends_at else NO_FAULTS

    dtr.on_request(refuse_for_a_while)
    assert_nothing_is_lost_or_doubled(audited, run())


def test_known_finding_under_expired_trust_data_stays_open(audited: Audited, dtr: DtrServer) -> None:
    audited.audit(seconds=SECONDS)
    dtr.faults = Faults(trust_refused=ALL_TAGS)
    record = audited.audit(seconds=SECONDS)
    assert record["findings"] == {"open": 1, "opened": 0, "resolved": 0, "excepted": 0}
    assert audited.findings()[UNSIGNED]["state"] == "OPEN"


def test_expired_trust_data_is_named_by_the_notary_where_signatures_are_verified(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, run: MakeRun
) -> None:
    trust = dtr.notary.create(f"{dtr.host}/team/s05")
    trust.add_signer("ci")
    for entry in registry.tags("team", "s05", dtr.host):
        trust.sign(entry.name, entry.digest, signer="ci")
    dtr.faults = Faults(
        trust_refused=tags_of("team/s05"), forged=(Forged(Expired("targets"), gun=f"{dtr.host}/team/s05"),)
    )
    record = run(TRUST_VERIFICATION="signatures")
    rows = [row for row in audited.rows(record["run_id"]) if row["repository"] == "s05"]
    assert [row["verdict"] for row in rows] == ["UNTRUSTED", "UNTRUSTED"]
    assert all("expired" in row["reason"] for row in rows)


def test_call_that_is_too_slow_is_tried_twice_and_then_given_longer(
    audited: Audited, dtr: DtrServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(transport, "LONG_SILENCE_SECONDS", 60.0)
    dtr.faults = Faults(on_calls=(Slow(tags_of("team/s05"), delay=0.4),))
    assert_nothing_is_lost_or_doubled(audited, audited.audit(seconds=SECONDS, CONCURRENCY="2"))
    assert len(dtr.calls("/api/v0/repositories/team/s05/tags")) == transport.SLOW_ATTEMPTS + 1


def test_rows_that_move_at_every_reading_are_read_on_one_large_page(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    push_many(registry)
    dtr.faults = Faults(rows_shifted=tags_of("team/s05"))
    record = audited.audit(seconds=SECONDS, PAGE_SIZE="10")
    assert (record["incomplete_because"], record["tags"]["signed"]) == ([], COUNT + 14)
    sizes = [call.query["pageSize"] for call in dtr.calls("/api/v0/repositories/team/s05/tags")]
    assert sizes[-1:] == [["1000"]] or sizes[-1:] == ["1000"]


def test_count_that_stays_wrong_names_the_page_size_and_a_remedy(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, fake_clock: FakeClock
) -> None:
    push_many(registry)
    began = fake_clock.now
    dtr.faults = Faults(miscounts=(Miscount(1, tags_of("team/s05")),))
    for _ in range(2):
        reasons = " ".join(audited.audit(seconds=SECONDS, PAGE_SIZE="10")["incomplete_because"])
        assert "counts 17 tags, and 16 could be read" in reasons
        assert "a page size of 1000" in reasons
        assert "have the index rebuilt" in reasons
    assert fake_clock.now - began < 60.0


def test_number_of_tags_that_changes_on_every_page_size_names_the_size(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    """The server gives small pages, whatever is asked for."""
    push_many(registry)
    numbers = itertools.count()

    def push_one_more(request: Request) -> None:
        if request.parameter("pageStart"):
            registry.push("team", "s05", f"3.{next(numbers)}")

    dtr.faults = Faults(page_size_ignored=ALL_TAGS)
    dtr.on_request(push_one_more, "/api/v0/repositories/team/s05/tags")
    record = audited.audit(seconds=SECONDS, PAGE_SIZE="10")
    assert record["complete"] is False
    assert "page size of 1000" in " ".join(record["incomplete_because"])
