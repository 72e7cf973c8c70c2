"""The first run of this version on tables and bucket as version 0.1.0 left them.

The data is kept in golden/version-0.1.0.json and is not made again: it stands for what deployments hold. It was made by
`GOLDEN=make-0.1.0 pytest tests/integration/test_upgrade.py` with the code of that version.
"""

import base64
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from tests.harness import audit_harness
from tests.harness.stack_state import TABLES, StackState
from tests.integration.test_engines import DOMAIN, FIRST_DAY, Publisher, World

DATA = Path(__file__).parent / "golden" / "version-0.1.0.json"
SETTINGS = {"TRUST_VERIFICATION": "signatures", "DTR_DOMAINS": DOMAIN}
ADMIN = ("admin", "")
NEXT = 3  # the number of the first run of this version

pytestmark = pytest.mark.usefixtures("all_shards")


@pytest.fixture(autouse=True)
def _one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry has the name that it had under the earlier version."""
    monkeypatch.setattr(audit_harness, "_NUMBERS", itertools.repeat(7001))


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture(params=[False, True], ids=["lambda", "stepfunctions"])
def world(stack: Stack, publisher: Publisher, request: pytest.FixtureRequest) -> Iterator[World]:
    """The registry as it is after the last run of the earlier version."""
    made = World(stack, publisher.notary, SETTINGS, by_steps=request.param)
    fill(made, publisher)
    change(made)
    yield made
    made.close()
    stack.s3.delete_object(Bucket=stack.outputs["BucketName"], Key=EXCEPTIONS_KEY)


def fill(world: World, publisher: Publisher) -> None:
    world.push("web/app:1", "web/app:2", "web/base:1", "legacy/crm:1", "ops/tool:1", "ops/signed:1")
    publisher.sign(world, "ops/signed:1")


def change(world: World) -> None:
    world.registry.delete_tag("web", "app", "2")
    world.push("web/new:1")


def load(stack: Stack) -> None:
    """Put the kept data into the stack's tables and bucket."""
    kept = json.loads(DATA.read_text(encoding="utf-8"))
    for output in TABLES:
        for item in kept["items"][output]:
            stack.dynamodb.put_item(TableName=stack.outputs[output], Item=item)
    for key, content in kept["objects"].items():
        stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=key, Body=base64.b64decode(content))


def changes(world: World) -> list[tuple[str, str]]:
    """Give what the messages say of findings: what happened, and to which image."""
    return sorted(
        (change, f"{item['repository']}:{item['tag']}")
        for message in world.audited.messages()
        for change in ("opened", "changed", "resolved", "expired", "expiring")
        for item in message.body[change]
    )


if os.environ.get("GOLDEN") == "make-0.1.0":

    def test_data_of_the_earlier_version_is_made(stack: Stack, publisher: Publisher) -> None:
        world = World(stack, publisher.notary, SETTINGS, by_steps=False)
        fill(world, publisher)
        entry = {"namespace": "legacy", "repository": "*", "tag": "*", "owner": "j.doe", "reason": "being replaced"}
        document = {"exceptions": [{"id": "EX-1", "ends": "2027-03-01", **entry}]}
        world.put_policy(EXCEPTIONS_KEY, json.dumps(document).encode())
        assert world.run(0, {}, ADMIN)["complete"]
        assert len(changes(world)) == 4
        change(world)
        assert world.run(1, {"alerts": False}, ADMIN)["complete"]
        world.server.faults = Faults(on_calls=(Status(500, tags_of("ops/tool")),))
        assert not world.run(2, {"alerts": False}, ADMIN)["complete"]
        assert changes(world) == []
        state = StackState.take(stack)
        name = world.audited.name
        items = {output: [item for item in state.items(output) if name in item["pk"]["S"]] for output in TABLES}
        objects = {
            key: base64.b64encode(content).decode()
            for key, content in state.objects().items()
            if (name in key and not key.startswith("evidence/")) or key.startswith("policy/")  # no run reads evidence
        }
        DATA.write_text(
            json.dumps({"items": items, "objects": objects}, indent=1, default=str) + "\n", encoding="utf-8"
        )
        world.close()


def test_first_run_after_an_upgrade_announces_what_was_pending_and_nothing_twice(world: World, stack: Stack) -> None:
    load(stack)
    record = world.run(NEXT, {}, ADMIN)
    assert record["complete"]
    # ops/signed has other keys than those that the earlier version remembered.
    assert changes(world) == [("opened", "ops/signed:1"), ("opened", "web/new:1"), ("resolved", "web/app:2")]
    world.run(NEXT + 1, {}, ADMIN)
    assert changes(world) == []


def test_first_run_after_an_upgrade_keeps_findings_and_exceptions(world: World, stack: Stack) -> None:
    load(stack)
    before = world.audited.findings()
    record = world.run(NEXT, {}, ADMIN)
    after = world.audited.findings()
    for image in ("web/app:1", "web/base:1", "legacy/crm:1", "ops/tool:1"):
        kept = ("state", "verdict", "first_seen", "digest")
        assert {name: after[image][name] for name in kept} == {name: before[image][name] for name in kept}
        assert after[image]["state"] == "OPEN"
    assert record["findings"] == {"open": 6, "opened": 1, "resolved": 0, "excepted": 1}
    assert record["exceptions"]["holding"] == 1
    assert record["oldest_open"].startswith(f"{FIRST_DAY:%Y-%m-%d}")


def test_first_run_after_an_upgrade_remembers_trust_data(world: World, stack: Stack) -> None:
    load(stack)
    record = world.run(NEXT, {}, ADMIN)
    (row,) = (row for row in world.audited.rows(record["run_id"]) if row["repository"] == "signed")
    assert row["verdict"] == "UNTRUSTED", "another root than the one that was seen first"


def test_first_run_without_earlier_data_trusts_the_root_that_it_sees(world: World) -> None:
    record = world.run(NEXT, {}, ADMIN)
    (row,) = (row for row in world.audited.rows(record["run_id"]) if row["repository"] == "signed")
    assert row["verdict"] == "SIGNED"


def test_first_run_after_an_upgrade_that_cannot_read_a_repository_resolves_nothing_of_it(
    world: World, stack: Stack
) -> None:
    load(stack)
    world.server.faults = Faults(on_calls=(Status(500, tags_of("web/base")),))
    record: dict[str, Any] = world.run(NEXT, {}, ADMIN)
    assert not record["complete"]
    assert world.audited.findings()["web/base:1"]["state"] == "OPEN"
    assert ("resolved", "web/base:1") not in changes(world)
