"""The first run of this version on tables and bucket as version 0.1.0 left them.

The data is kept in golden/version-0.1.0.json and is not made again: it stands for what deployments hold. It was made by
`GOLDEN=make-0.1.0 pytest tests/integration/test_upgrade.py` with the code of that version (its modules had other names). The
documents of the Notary are kept with it, as their keys are gone.
"""

import base64
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.pipeline import steps
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.fault_kinds import Forged, Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.notary.attacks import Attack, Replayed, TakenOver
from dtr_audit_simulator.notary.notary import Notary
from dtr_audit_simulator.notary.repository import RELEASES, TrustRepository
from tests.harness import audit_harness
from tests.harness.stack_state import TABLES, StackState
from tests.integration.test_engines import DOMAIN, FIRST_DAY, Publisher, World

DATA = Path(__file__).parent / "golden" / "version-0.1.0.json"
SETTINGS = {"TRUST_VERIFICATION": "signatures", "DTR_DOMAINS": DOMAIN}
ADMIN = ("admin", "")
NEXT = 4  # the number of the first run of this version
SIGNED = "ops/signed"
REVISIONS = 3  # of its documents, the newest last

pytestmark = pytest.mark.usefixtures("all_shards")


@pytest.fixture(autouse=True)
def _one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry has the name that it had under the earlier version."""
    monkeypatch.setattr(audit_harness, "_NUMBERS", itertools.repeat(7001))


class KeptTrust(TrustRepository):
    """Trust data as it was published under the earlier version: the documents alone, without their keys."""

    def __init__(self, gun: str, revisions: Sequence[Mapping[str, str]]) -> None:
        super().__init__(gun, lambda: FIRST_DAY)
        for kept in (self._current, self._by_version, self._by_hash, self.revisions):
            kept.clear()
        for revision in revisions:
            files = {role: body.encode() for role, body in revision.items()}
            for role, body in files.items():
                self._store(role, json.loads(body)["signed"]["version"], body)
            self.revisions.append(files)

    def released(self) -> dict[str, str]:
        """Give each tag's digest as the kept releases hold it."""
        targets = self.signed(RELEASES)["targets"].items()
        return {tag: f"sha256:{base64.b64decode(target['hashes']['sha256']).hex()}" for tag, target in targets}


class KeptNotary(Notary):
    """A Notary that serves the kept documents."""

    def __init__(self, trust: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
        super().__init__()
        self._repositories.update({gun: KeptTrust(gun, revisions) for gun, revisions in trust.items()})


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What the earlier version has left: items, objects, and the Notary's documents."""
    content: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return content


@pytest.fixture(params=[False, True], ids=["lambda", "stepfunctions"])
def world(stack: Stack, kept: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[World]:
    """The registry as it is after the last run of the earlier version."""
    made = World(stack, KeptNotary(kept["trust"]), SETTINGS, by_steps=request.param)
    fill(made)
    change(made)
    yield made
    made.close()
    stack.s3.delete_object(Bucket=stack.outputs["BucketName"], Key=EXCEPTIONS_KEY)


def fill(world: World) -> None:
    world.push("web/app:1", "web/app:2", "web/base:1", "legacy/crm:1", "ops/tool:1", f"{SIGNED}:1", f"{SIGNED}:2")


def change(world: World) -> None:
    world.registry.delete_tag("web", "app", "2")
    world.push("web/new:1", "web/base:1")


@pytest.fixture
def loaded(world: World, stack: Stack, kept: dict[str, Any]) -> World:
    """The registry, with the kept data in the stack's tables and bucket."""
    for output in TABLES:
        for item in kept["items"][output]:
            stack.dynamodb.put_item(TableName=stack.outputs[output], Item=item)
    for key, content in kept["objects"].items():
        stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=key, Body=base64.b64decode(content))
    return world


def changes(world: World) -> list[tuple[str, str]]:
    """Give what the messages say of findings: what happened, and to which image."""
    return sorted(
        (change, f"{item['repository']}:{item['tag']}")
        for message in world.audited.messages()
        for change in ("opened", "changed", "resolved", "expired", "expiring")
        for item in message.body[change]
    )


def documents_asked_for(world: World) -> set[str]:
    """Note which trust data of the signed repository is asked for from now on."""
    asked: set[str] = set()

    def note(request: Any) -> None:
        asked.add(request.target.rpartition("/")[2])

    world.on_request(note, f"/v2/{DOMAIN}/{SIGNED}/_trust/*")
    return asked


def signed_verdict(world: World, record: Mapping[str, Any]) -> tuple[str, str]:
    """Give verdict and reason of the tag that is signed since the first run."""
    rows = {(row["namespace"], row["repository"], row["tag"]): row for row in world.audited.rows(record["run_id"])}
    found = rows["ops", "signed", "1"]
    return found["verdict"], found["reason"]


if os.environ.get("GOLDEN") == "make-0.1.0":

    def test_data_of_the_earlier_version_is_made(stack: Stack) -> None:
        publisher = Publisher()
        publisher.notary = Notary(clock=lambda: FIRST_DAY)
        world = World(stack, publisher.notary, SETTINGS, by_steps=False)
        fill(world)
        publisher.sign(world, f"{SIGNED}:1")
        publisher.sign(world, f"{SIGNED}:2")
        entry = {"namespace": "legacy", "repository": "*", "tag": "*", "owner": "j.doe", "reason": "being replaced"}
        document = {"exceptions": [{"id": "EX-1", "ends": "2027-03-01", **entry}]}
        world.put_policy(EXCEPTIONS_KEY, json.dumps(document).encode())
        assert world.run(0, {}, ADMIN)["complete"]
        assert len(changes(world)) == 4
        change(world)
        assert world.run(1, {"alerts": False}, ADMIN)["complete"]
        world.server.faults = Faults(on_calls=(Status(500, tags_of("ops/tool")),))
        assert not world.run(2, {"alerts": False}, ADMIN)["complete"]
        world.server.faults = Faults()
        break_off(world, 3)
        assert changes(world) == []
        state = StackState.take(stack)
        name = world.audited.name
        items = {output: [item for item in state.items(output) if name in item["pk"]["S"]] for output in TABLES}
        objects = {
            key: base64.b64encode(content).decode()
            for key, content in state.objects().items()
            if (name in key and not key.startswith("evidence/")) or key.startswith("policy/")  # no run reads evidence
        }
        assert any(key.startswith("work/") for key in objects)
        gun = f"{DOMAIN}/{SIGNED}"
        api = publisher.notary.find(gun)
        assert api is not None
        revisions = [{role: body.decode() for role, body in files.items()} for files in api.revisions[-REVISIONS:]]
        content = {"items": items, "objects": objects, "trust": {gun: revisions}}
        DATA.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
        world.close()

    def break_off(world: World, day: int) -> None:
        """Begin a run by the steps, and end it before its report."""
        run = world.step_functions_run
        run.now = FIRST_DAY + timedelta(days=day, minutes=5)
        payload = run.payload({"scheduled_time": (FIRST_DAY + timedelta(days=day)).isoformat()})
        begun = run.make(steps.inventory, payload)
        for item in json.loads(run.read(begun["batches"]["key"])):
            run.make(steps.examine, {**payload, "batch": item})


def test_first_run_after_an_upgrade_announces_what_was_pending_and_nothing_twice(loaded: World) -> None:
    record = loaded.run(NEXT, {}, ADMIN)
    assert record["complete"]
    assert changes(loaded) == [("opened", "web/new:1"), ("resolved", "web/app:2")]
    loaded.run(NEXT + 1, {}, ADMIN)
    assert changes(loaded) == []


def test_first_run_after_an_upgrade_keeps_findings_and_exceptions(loaded: World) -> None:
    before = loaded.audited.findings()
    record = loaded.run(NEXT, {}, ADMIN)
    after = loaded.audited.findings()
    for image in ("web/app:1", "web/base:1", "legacy/crm:1", "ops/tool:1", "web/new:1"):
        kept = ("state", "verdict", "first_seen", "digest")
        assert {name: after[image][name] for name in kept} == {name: before[image][name] for name in kept}
        assert after[image]["state"] == "OPEN"
    assert record["findings"] == {"open": 5, "opened": 0, "resolved": 0, "excepted": 1}
    assert record["exceptions"]["holding"] == 1
    assert record["oldest_open"].startswith(f"{FIRST_DAY:%Y-%m-%d}")


def test_finding_that_changes_after_an_upgrade_keeps_the_day_of_its_opening(loaded: World) -> None:
    loaded.push("web/base:1")
    loaded.run(NEXT, {}, ADMIN)
    found = loaded.audited.findings()["web/base:1"]
    assert found["first_seen"][:10] == f"{FIRST_DAY:%Y-%m-%d}"
    assert found["last_changed"][:10] == f"{FIRST_DAY + timedelta(days=NEXT):%Y-%m-%d}"


def test_first_run_after_an_upgrade_takes_up_nothing_of_a_run_that_was_broken_off(
    loaded: World, kept: dict[str, Any]
) -> None:
    assert any(key.startswith("work/") for key in kept["objects"])
    record = loaded.run(NEXT, {}, ADMIN)
    assert record["previous"]["run_id"] == "20261202T030000Z", "the last complete one"
    assert len(loaded.audited.verdicts(record["run_id"])) == 7


def test_first_run_after_an_upgrade_asks_the_notary_for_what_may_have_changed_alone(loaded: World) -> None:
    asked = documents_asked_for(loaded)
    record = loaded.run(NEXT, {}, ADMIN)
    assert signed_verdict(loaded, record)[0] == "SIGNED"
    assert record["trust"]["first_use"] == 0
    assert asked == {"timestamp.json"}


def test_first_run_without_earlier_data_asks_the_notary_for_every_document(world: World) -> None:
    asked = documents_asked_for(world)
    record = world.run(NEXT, {}, ADMIN)
    assert signed_verdict(world, record)[0] == "SIGNED"
    assert record["trust"]["first_use"] == 1
    assert len(asked) > 4, asked


def attack(world: World, name: str) -> Attack:
    """Give an attack that no one notices who sees the repository for the first time."""
    (digest,) = (one.digest for one in world.registry.tags("ops", "signed", DOMAIN) if one.name == "1")
    attacks: dict[str, Attack] = {"older documents": Replayed(-2), "another root": TakenOver(digest=digest)}
    return attacks[name]


ATTACKS = ("older documents", "another root")


@pytest.mark.parametrize("name", ATTACKS)
def test_first_run_after_an_upgrade_that_meets_an_attack_notices_it(loaded: World, name: str) -> None:
    loaded.server.faults = Faults(forged=(Forged(attack(loaded, name)),))
    record = loaded.run(NEXT, {}, ADMIN)
    verdict, reason = signed_verdict(loaded, record)
    assert verdict == "UNTRUSTED", reason


@pytest.mark.parametrize("name", ATTACKS)
def test_first_run_without_earlier_data_that_meets_an_attack_trusts_what_it_sees(world: World, name: str) -> None:
    world.server.faults = Faults(forged=(Forged(attack(world, name)),))
    record = world.run(NEXT, {}, ADMIN)
    assert signed_verdict(world, record)[0] == "SIGNED"


def test_first_run_after_an_upgrade_that_cannot_read_a_repository_resolves_nothing_of_it(loaded: World) -> None:
    loaded.server.faults = Faults(on_calls=(Status(500, tags_of("web/base")),))
    record = loaded.run(NEXT, {}, ADMIN)
    assert not record["complete"]
    assert loaded.audited.findings()["web/base:1"]["state"] == "OPEN"
    assert ("resolved", "web/base:1") not in changes(loaded)


def test_first_run_after_an_upgrade_of_one_namespace_resolves_nothing_of_the_others(loaded: World) -> None:
    record = loaded.run(NEXT, {"namespaces": ["ops"]}, ADMIN)
    assert record["complete"]
    found = loaded.audited.findings()
    assert {found[image]["state"] for image in ("web/app:1", "web/base:1", "web/new:1", "legacy/crm:1")} == {"OPEN"}
