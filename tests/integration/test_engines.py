"""The same run through both engines: the same rows, findings, record and messages, night after night."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.request import AuditRequest
from dtr_audit.pipeline import steps
from dtr_audit.pipeline.audit import audit
from dtr_audit.trust.notary.pins import KEY as PINS_KEY
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.fault_kinds import Calls, Forged, Rewrite, Status, tags_of
from dtr_audit_simulator.dtr.faults import NO_FAULTS, Faults
from dtr_audit_simulator.dtr.manifests import COSIGN_SIGNATURE, manifest_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.notary.attacks import Reused
from dtr_audit_simulator.notary.keys import Key, make_key
from dtr_audit_simulator.notary.notary import Notary
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import StepFunctionsRun

FIRST_DAY = datetime(2026, 12, 1, 3, tzinfo=UTC)
DOMAIN = "dtr.example.mil"
NAMESPACES = ("api", "legacy", "ops", "team", "web")


class World:
    """One registry under one engine; what happens to it happens to its twin as well."""

    def __init__(self, stack: Stack, notary: Notary | None, environment: Mapping[str, str], *, by_steps: bool) -> None:
        self.registry = InMemoryRegistry(clock=lambda: FIRST_DAY - timedelta(days=1), notary=notary)
        self.server = DtrServer(self.registry)
        self.server.start()
        self.audited = Audited(stack, self.server)
        self.step_functions_run = StepFunctionsRun(self.audited, environment)
        self._by_steps = by_steps
        self._ends: list[Callable[[], None]] = []
        self.run_ids: list[str] = []

    def on_request(self, happens: Callable[[object], None], path: str) -> None:
        """Let something happen whenever a path is asked for, until the night is over."""
        self._ends.append(self.server.on_request(happens, path))

    def end_day(self) -> None:
        """Let the night be over."""
        while self._ends:
            self._ends.pop()()
        self.server.accounts.set_admin("admin", is_admin=True)
        self.server.faults = NO_FAULTS

    def push(self, *images: str) -> None:
        for image in images:
            path, tag = image.split(":")
            namespace, name = path.split("/")
            self.registry.push(namespace, name, tag)

    def sign(self, *images: str) -> None:
        for image in images:
            path, tag = image.split(":")
            namespace, name = path.split("/")
            self.registry.sign(namespace, name, tag)

    def put_policy(self, key: str, body: bytes) -> None:
        """Put a document into the bucket, which both worlds share: once, so that it has one version."""
        s3, bucket = self.audited.stack.s3, self.audited.stack.outputs["BucketName"]
        found = s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
        if not found or self.audited.read(key) != body:
            s3.put_object(Bucket=bucket, Key=key, Body=body)

    def run(self, day: int, event: Mapping[str, Any], account: tuple[str, str]) -> dict[str, Any]:
        """Audit it; gives the record."""
        name, password = account
        self.audited.put_secret(username=name, password=password or self.server.admin.password)
        now = FIRST_DAY + timedelta(days=day, minutes=5)
        asked = {"scheduled_time": (FIRST_DAY + timedelta(days=day)).isoformat(), **event}
        if self._by_steps:
            self.step_functions_run.now = now
            summary = self.step_functions_run.execute(asked)
            record = self.step_functions_run.record(summary["run_id"])
            assert {name: record[name] for name in summary} == summary
            return record
        request = AuditRequest.from_event(asked, now=now)
        step_functions_run = self.step_functions_run
        run = audit(
            step_functions_run.settings,
            request,
            step_functions_run.clients,
            owner="one",
            seconds=600.0,
            now=lambda: now,
        )
        assert run is not None
        return run.as_dict()

    def reported(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Give all that a run has left, without what is the world's own: its name, its port, and where rows were put."""
        self.run_ids.append(record["run_id"])
        rows = sorted(
            self.audited.rows(record["run_id"]), key=lambda row: (row["namespace"], row["repository"], row["tag"])
        )
        findings = [
            {key: value for key, value in item.items() if not key.endswith("_shard") and key != "trust"}
            | {"shards": sorted(key for key in item if key.endswith("_shard")), "remembers": "trust" in item}
            for item in self.audited.items("FindingsTableName")
            if item["pk"].startswith(f"{self.audited.name}#")
        ]
        messages = [
            {"subject": one.subject, "attributes": dict(one.attributes), "body": _without_ids(one.body)}
            for one in self.audited.messages()
        ]
        return {
            part: json.loads(self._namelessly(content))
            for part, content in {
                "record": record,
                "rows": rows,
                "findings": sorted(findings, key=lambda item: (item["pk"], item["sk"])),
                "messages": messages,
            }.items()
        }

    def _namelessly(self, content: Any) -> str:
        text = json.dumps(content, default=int, sort_keys=True)
        # In a URL's query the host stands percent-encoded.
        for host in (self.server.host, quote(self.server.host)):
            text = text.replace(host, "HOST")
        return text.replace(self.audited.name, "NAME")

    def close(self) -> None:
        self.audited.close()
        self.server.stop()


def _without_ids(body: Any) -> Any:
    """Leave out what is made of the registry's name."""
    if isinstance(body, dict):
        return {key: _without_ids(value) for key, value in body.items() if key != "id"}
    return [_without_ids(one) for one in body] if isinstance(body, list) else body


@dataclass(frozen=True)
class Day:
    """What happens before a run, what the run is asked for, and what goes wrong in it."""

    says: str
    happens: Callable[[World], None] = lambda _: None
    event: dict[str, Any] = field(default_factory=dict)
    faults: Faults = NO_FAULTS
    account: tuple[str, str] = ("admin", "")
    expected: dict[str, Any] = field(default_factory=dict)  # of the record


def first(world: World) -> None:
    for number, namespace in enumerate(NAMESPACES):
        for name in ("app", "base", "cli"):
            world.push(*(f"{namespace}/{name}:{tag}" for tag in range(1, 3 + number)))
            world.sign(f"{namespace}/{name}:1")
    world.registry.push("web", "tool", "1", cosign_signed=True)
    world.sign("web/app:2")
    world.push("web/app:2", "web/app:1.sig")
    world.registry.push("web", "app", f"sha256-{'0' * 64}.sig", manifest=manifest_of("a signature", COSIGN_SIGNATURE))


def change(world: World) -> None:
    world.sign("web/base:2", "api/app:2")
    world.push("api/app:1", "api/new:1")
    world.registry.delete_tag("team", "app", "3")
    world.registry.delete_repository("ops", "cli")


def lose_two(world: World) -> None:
    """Two repositories go away at the moment at which their tags are asked for."""
    for name in ("base", "cli"):
        world.on_request(partial(_delete, world.registry, name), f"/api/v0/repositories/team/{name}/tags")


def _delete(registry: InMemoryRegistry, name: str, _: object) -> None:
    if any((one.namespace, one.name) == ("team", name) for one in registry.repositories()):
        registry.delete_repository("team", name)


def demote_at_the_end(world: World) -> None:
    """The account is no administrator's any more once the last repository has been read."""
    left = len(world.registry.repositories())

    def count(_: object) -> None:
        nonlocal left
        left -= 1

    world.on_request(count, "/api/v0/repositories/*/tags")
    world.on_request(lambda _: world.server.accounts.set_admin("admin", is_admin=left > 0), "/api/v0/meta/settings")
    world.sign("legacy/app:2")


HISTORY = [
    Day("the first of all", first, expected={"complete": True, "status": "OPEN"}),
    Day("unchanged", expected={"complete": True}),
    Day("signed, overwritten, new and gone", change, expected={"complete": True}),
    Day("gone in mid-run", lose_two, expected={"complete": True}),
    Day(
        "some cannot be read",
        lambda world: world.sign("web/cli:2"),
        faults=Faults(
            on_calls=tuple(Status(500, tags_of(name)) for name in ("web/app", "api/cli", "legacy/app", "legacy/base")),
            missing_though_listed=Calls("/api/v0/repositories/ops/*/tags"),
            rewrites=(Rewrite({"inNotary": None}, path="web/base"),),
        ),
        expected={"complete": False},
    ),
    Day(
        "a name is missing in the list",
        lambda world: world.registry.delete_repository("legacy", "cli"),
        faults=Faults(unnamed_entries=Calls("/api/v0/repositories")),
        expected={"complete": False},
    ),
    Day(
        "with exceptions",
        lambda world: except_some(world, legacy=3, web=60, ops=-5),
        expected={"complete": True},
    ),
    Day("a namespace", lambda world: world.sign("web/app:2"), event={"namespaces": ["web", "team"]}),
    Day("a namespace that is not there", event={"namespaces": ["wbe", "zzz", "api"]}, expected={"complete": False}),
    Day("not an administrator", account=("admin", "wrong"), expected={"complete": False, "status": "OPEN"}),
    Day("exceptions that cannot be read", lambda world: put_exceptions(world, b"{"), expected={"complete": True}),
    Day("without a word", lambda world: world.sign("web/app:3"), event={"alerts": False}, expected={"complete": True}),
    Day("no administrator at its end", demote_at_the_end, expected={"complete": False}),
    Day("as it was", expected={"complete": True}),
]


def except_some(world: World, **days: int) -> None:
    entries = [
        {
            "id": f"EX-{namespace}",
            "namespace": namespace,
            "repository": "*",
            "tag": "*",
            "owner": "j.doe",
            "reason": "being replaced",
            "ends": str((FIRST_DAY + timedelta(days=6 + left)).date()),
        }
        for namespace, left in days.items()
    ]
    put_exceptions(world, json.dumps({"exceptions": entries}).encode())


def put_exceptions(world: World, body: bytes) -> None:
    world.put_policy(EXCEPTIONS_KEY, body)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> Iterator[None]:
    monkeypatch.setattr(steps, "BATCH_REPOSITORIES", 4)
    yield
    for key in (EXCEPTIONS_KEY, PINS_KEY):
        stack.s3.delete_object(Bucket=stack.outputs["BucketName"], Key=key)


@pytest.fixture
def worlds(stack: Stack) -> Iterator[tuple[World, World]]:
    one = World(stack, None, {}, by_steps=False)
    many = World(stack, None, {}, by_steps=True)
    yield one, many
    one.close()
    many.close()


def report_the_same(worlds: tuple[World, World], history: Sequence[Day]) -> None:
    for number, day in enumerate(history):
        reported = []
        for world in worlds:
            day.happens(world)
            world.server.faults = day.faults
            record = world.run(number, day.event, day.account)
            assert {name: record[name] for name in day.expected} == day.expected, (day.says, record)
            reported.append(world.reported(record))
            world.end_day()
        one, many = reported
        for part, content in one.items():
            assert many[part] == content, f"{day.says}: {part}"
        assert one["rows"] or not day.expected.get("complete", True), day.says


def test_both_engines_report_the_same_of_every_run(worlds: tuple[World, World]) -> None:
    report_the_same(worlds, HISTORY)


class Publisher:
    """Whoever signs, for both worlds at once: they are served by one Notary, under a domain of its own."""

    def __init__(self) -> None:
        self.notary = Notary()

    def sign(self, world: World, image: str, key: Key | None = None) -> None:
        """Sign what the tag holds in this world, which is the same in both."""
        path, tag = image.split(":")
        namespace, name = path.split("/")
        gun = f"{DOMAIN}/{path}"
        trust = self.notary.find(gun)
        if trust is None:
            trust = self.notary.create(gun)
            trust.add_signer("ci", key)
        (entry,) = (one for one in world.registry.tags(namespace, name, DOMAIN) if one.name == tag)
        if trust.released().get(tag) != entry.digest:
            trust.sign(tag, entry.digest, signer="ci")


TRUST = {
    "TRUST_VERIFICATION": "signatures", "DTR_DOMAINS": DOMAIN, "PIN_TRUST": "true", "TRUST_WARNING_DAYS": "365",
    "REQUIRED_SIGNERS": "ci",
}  # fmt: skip


def trust_history(publisher: Publisher) -> list[Day]:
    """Signatures under verification: pins, known roots, trust data that cannot be read."""

    def begin(world: World) -> None:
        world.push(*(f"{namespace}/{name}:1" for namespace in NAMESPACES for name in ("app", "base")))

    def sign_some(world: World) -> None:
        for namespace in NAMESPACES:
            publisher.sign(world, f"{namespace}/app:1")
        world.put_policy(
            PINS_KEY, json.dumps({"pins": [{"pattern": f"{DOMAIN}/web/*", "root_keys": ["0" * 64]}]}).encode()
        )

    def break_pins(world: World) -> None:
        world.put_policy(PINS_KEY, b'{"pins": 1}')

    return [
        Day("every tag unsigned, and no pins", begin, expected={"complete": False}),
        Day("some signed, one pinned to another root", sign_some, expected={"complete": True}),
        Day("known roots", lambda world: publisher.sign(world, "ops/base:1"), expected={"complete": True}),
        Day(
            "trust data that cannot be read",
            faults=Faults(
                on_calls=tuple(Status(500, Calls(f"/v2/{DOMAIN}/{name}/app/_trust/*")) for name in ("ops", "api"))
            ),
            expected={"complete": False},
        ),
        Day("pins that are broken", break_pins, expected={"complete": False, "status": "OPEN"}),
    ]


def test_both_engines_verify_the_same_signatures(stack: Stack) -> None:
    publisher = Publisher()
    with ExitStack() as closing:
        one = World(stack, publisher.notary, TRUST, by_steps=False)
        closing.callback(one.close)
        many = World(stack, publisher.notary, TRUST, by_steps=True)
        closing.callback(many.close)
        report_the_same((one, many), trust_history(publisher))


@pytest.mark.parametrize("answers_404", [False, True], ids=["read at once", "answers 404 at first"])
def test_engines_that_meet_a_document_of_another_repository_distrust_the_same_tags(
    stack: Stack, answers_404: bool
) -> None:
    publisher = Publisher()
    key = make_key()

    def begin(world: World) -> None:
        world.push(*(f"{namespace}/{name}:1" for namespace in NAMESPACES for name in ("app", "base")))
        for namespace in NAMESPACES:
            publisher.sign(world, f"{namespace}/app:1", key)
        publisher.sign(world, "web/base:1", key)

    def plant(world: World) -> None:
        """Put the image of legacy/app into web/app."""
        (entry,) = (one for one in world.registry.tags("legacy", "app", DOMAIN) if one.name == "1")
        world.registry.push("web", "app", "1", digest=entry.digest)

    def begin_with_it(world: World) -> None:
        begin(world)
        plant(world)

    def publish_new_versions(world: World) -> None:
        # Once for both, past all that was served.
        for path in ("web/app", "legacy/app"):
            trust = publisher.notary.find(f"{DOMAIN}/{path}")
            assert trust is not None
            if "more" not in trust.released():
                for _ in range(5):
                    trust.sign("more", "sha256:" + "3" * 64, signer="ci")
        publisher.sign(world, "web/app:1", key)

    roles = ("targets/releases", "targets/ci")
    stolen = tuple(Forged(Reused(role, gun=f"{DOMAIN}/legacy/app"), gun=f"{DOMAIN}/web/app") for role in roles)
    history = [
        Day("honest", begin, expected={"complete": True}),
        Day("a stolen document", plant, faults=Faults(forged=stolen), expected={"complete": True, "status": "OPEN"}),
        Day("and once more", faults=Faults(forged=stolen), expected={"complete": True, "status": "OPEN"}),
        Day("in one namespace", event={"namespaces": ["web"]}, faults=Faults(forged=stolen)),
        Day("served no more", expected={"complete": True}),
        Day("new versions published", publish_new_versions, expected={"complete": True}),
    ]
    both, web = ["legacy/app", "web/app"], ["web/app"]
    # In the night before the last, the tag holds an image that is not signed there.
    expected = [[], both, both, web, ["legacy/app"], []]
    if answers_404:
        missing = Calls("/api/v0/repositories/legacy/app/tags", times=1)
        begun = Day(
            "a stolen document, at first sight",
            begin_with_it,
            faults=Faults(forged=stolen, missing_though_listed=missing),
            expected={"complete": True, "status": "OPEN"},
        )
        history, expected = [begun, history[4]], [both, ["legacy/app"]]
    environment = {"TRUST_VERIFICATION": "signatures", "DTR_DOMAINS": DOMAIN, "REQUIRED_SIGNERS": "ci"}
    with ExitStack() as closing:
        one = World(stack, publisher.notary, environment, by_steps=False)
        closing.callback(one.close)
        many = World(stack, publisher.notary, environment, by_steps=True)
        closing.callback(many.close)
        report_the_same((one, many), history)
        for world in (one, many):
            rows = [world.audited.rows(run_id) for run_id in world.run_ids]
            untrusted = [
                sorted(f"{row['namespace']}/{row['repository']}" for row in found if row["verdict"] == "UNTRUSTED")
                for found in rows
            ]
            assert untrusted == expected


def test_where_every_tag_looks_unsigned_both_engines_give_the_same_hint(stack: Stack) -> None:
    publisher = Publisher()

    def begin(world: World) -> None:
        world.push("web/app:1", "web/base:1")
        publisher.sign(world, "web/app:1")

    with ExitStack() as closing:
        one = World(stack, publisher.notary, {}, by_steps=False)
        closing.callback(one.close)
        many = World(stack, publisher.notary, {}, by_steps=True)
        closing.callback(many.close)
        report_the_same((one, many), [Day("signed elsewhere", begin, expected={"complete": True})])
        for world in (one, many):
            warning, *_ = world.run(1, {}, ("admin", ""))["warnings"]
            assert DOMAIN in warning
