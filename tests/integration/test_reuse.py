"""One signer's document, served in another role or repository by a Notary whose server's keys an attacker holds."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from dtr_audit.core import reuse
from dtr_audit.pipeline import scanner
from dtr_audit_simulator.dtr.fault_kinds import Forged, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.notary import Notary, TrustRepository
from dtr_audit_simulator.notary.attacks import Reused
from dtr_audit_simulator.notary.keys import make_key
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import StepFunctionsRun

ROLES = ("targets/releases", "targets/ci")


class Lab:
    """`dev/debug` and `prod/payments`, whose signer ci has one key for both, as the vendor means it to be used."""

    def __init__(self, audited: Audited, dtr: DtrServer, registry: InMemoryRegistry) -> None:
        self.audited = audited
        self.dtr = dtr
        self.registry = registry
        self._key = make_key()
        self.debug, self.payments = (self.create(name) for name in ("dev/debug", "prod/payments"))
        for _ in range(3):
            self.sign(self.debug, "0.1")
        self.sign(self.debug, "1.0")
        self.sign(self.payments, "0.9")

    def create(self, path: str) -> TrustRepository:
        """Create a repository whose signer ci has the same key as everywhere."""
        trust = self.dtr.notary.create(f"{self.dtr.host}/{path}")
        trust.add_signer("ci", self._key)
        return trust

    @property
    def refunds(self) -> TrustRepository:
        """The repository that `begin_unsigned` creates."""
        found = self.dtr.notary.find(f"{self.dtr.host}/prod/refunds")
        assert found is not None
        return found

    def sign(self, trust: TrustRepository, tag: str, *, digest: str | None = None, signer: str = "ci") -> str:
        """Push an image and sign it; gives its digest."""
        _, namespace, name = trust.gun.split("/")
        pushed = self.registry.push(namespace, name, tag, digest=digest).digest
        self.registry.sign(namespace, name, tag)
        trust.sign(tag, pushed, signer=signer)
        return pushed

    def plant_image(self) -> None:
        """Put the debug image into production, as if it were signed there."""
        (entry,) = (one for one in self.registry.tags("dev", "debug", self.dtr.host) if one.name == "1.0")
        self.registry.push("prod", "payments", "1.0", digest=entry.digest)
        self.registry.sign("prod", "payments", "1.0")

    def attack(self, *attacks: Reused, guns: Sequence[str] = ()) -> None:
        """Serve the documents of dev/debug as those of prod/payments, or do something else."""
        chosen = attacks or tuple(Reused(role, gun=self.debug.gun) for role in ROLES)
        under = guns or [self.payments.gun]
        self.dtr.faults = Faults(forged=tuple(Forged(attack, gun=gun) for attack in chosen for gun in under))

    def audit(self, **environment: Any) -> dict[str, Any]:
        return self.audited.audit(TRUST_VERIFICATION="signatures", REQUIRED_SIGNERS="ci", **environment)

    def verdicts(self, run: dict[str, Any]) -> dict[str, str | None]:
        return self.audited.verdicts(run["run_id"])


@pytest.fixture
def lab(audited: Audited, dtr: DtrServer, registry: InMemoryRegistry) -> Lab:
    return Lab(audited, dtr, registry)


HONEST = {"dev/debug:0.1": "SIGNED", "dev/debug:1.0": "SIGNED", "prod/payments:0.9": "SIGNED"}


@pytest.mark.parametrize("is_known", [False, True], ids=["at first sight", "known"])
@pytest.mark.parametrize("concurrency", ["1", "8"])
def test_document_of_another_repository_makes_both_untrusted(lab: Lab, is_known: bool, concurrency: str) -> None:
    if is_known:
        assert lab.verdicts(lab.audit()) == HONEST
        lab.audited.messages()
    lab.plant_image()
    lab.attack()

    run = lab.audit(CONCURRENCY=concurrency)

    verdicts = lab.verdicts(run)
    assert set(verdicts.values()) <= {"UNTRUSTED", "MISMATCHED", "UNSIGNED"}
    assert verdicts["prod/payments:1.0"] == verdicts["dev/debug:1.0"] == verdicts["dev/debug:0.1"] == "UNTRUSTED"
    assert (run["status"], run["complete"], run["trust"]["reused"]) == ("OPEN", True, 2)
    assert run["tags"]["signed"] == 0
    rows = {f"{row['namespace']}/{row['repository']}:{row['tag']}": row for row in lab.audited.rows(run["run_id"])}
    assert "served in prod/payments too" in rows["dev/debug:1.0"]["reason"]
    assert "served in dev/debug too" in rows["prod/payments:1.0"]["reason"]
    assert {row["signed_domain"] for row in rows.values()} == {""}
    findings = lab.audited.findings()
    assert {name for name, one in findings.items() if one["state"] == "OPEN"} == set(verdicts)
    assert run["findings"]["open"] == len(verdicts)
    assert {name: one["reason"] for name, one in findings.items()} == {
        name: row["reason"] for name, row in rows.items()
    }
    (message,) = lab.audited.messages()
    assert len(message.body["opened"]) == len(verdicts)


def test_document_of_another_repository_is_known_to_the_next_run_and_forgiven_once_new_versions_are_published(
    lab: Lab,
) -> None:
    lab.plant_image()
    lab.attack()
    lab.audit()
    lab.audited.messages()
    before = lab.audited.findings()

    # One of the two alone: what is remembered is enough.
    lab.audited.runs += 1
    partial = lab.audited.audit(
        {**lab.audited.event(), "namespaces": ["prod"]}, TRUST_VERIFICATION="signatures", REQUIRED_SIGNERS="ci"
    )
    assert lab.verdicts(partial)["prod/payments:1.0"] == "UNTRUSTED"
    assert partial["findings"]["resolved"] == 0
    again = lab.audit()
    assert (again["trust"]["reused"], again["findings"]["opened"]) == (2, 0)
    assert lab.audited.findings() == before
    assert lab.audited.messages() == []

    lab.dtr.faults = Faults()
    lab.registry.delete_tag("prod", "payments", "1.0")
    for trust in (lab.debug, lab.payments):
        for _ in range(9):
            trust.sign("more", "sha256:" + "3" * 64, signer="ci")
    assert lab.verdicts(lab.audit()) == HONEST


def test_document_that_another_repository_served_earlier_is_known_by_its_hash(lab: Lab) -> None:
    lab.audit()
    revision = len(lab.debug.revisions) - 1
    lab.sign(lab.debug, "2.0")
    lab.sign(lab.debug, "3.0")
    lab.audit()
    lab.plant_image()
    lab.attack(*(Reused(role, gun=lab.debug.gun, revision=revision) for role in ROLES))

    run = lab.audit()

    assert lab.verdicts(run)["prod/payments:1.0"] == "UNTRUSTED"
    assert run["trust"]["reused"] == 2


def test_document_of_another_repository_keeps_open_findings_open(lab: Lab) -> None:
    lab.registry.push("prod", "payments", "1.0")
    assert lab.audit()["findings"]["open"] == 1
    lab.audited.messages()
    lab.plant_image()
    lab.attack()

    run = lab.audit()

    assert run["findings"]["resolved"] == 0
    assert lab.audited.findings()["prod/payments:1.0"]["state"] == "OPEN"
    (message,) = lab.audited.messages()
    assert message.body["resolved"] == []
    assert [item["tag"] for item in message.body["changed"]] == ["1.0"]


def test_documents_of_more_repositories_than_one_run_corrects_leave_the_run_incomplete(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "DISTRUSTED", 1)
    lab.registry.push("prod", "payments", "1.0")
    lab.audit()
    lab.plant_image()
    lab.attack()
    runs = [lab.audit() for _ in range(2)]
    assert [(run["complete"], run["status"]) for run in runs] == [(False, "OPEN"), (True, "OPEN")]
    assert [run["findings"]["resolved"] for run in runs] == [0, 0]
    assert [run["findings"]["open"] for run in runs] == [4, 4]
    assert "in 1 of them the signatures were taken back" in runs[0]["incomplete_because"][0]


DOOMED = "prod/refunds:1.0"


def begin_unsigned(lab: Lab) -> None:
    """Have a third repository hold the debug image, not signed there, and a run that finds it."""
    lab.create("prod/refunds")
    (entry,) = (one for one in lab.registry.tags("dev", "debug", lab.dtr.host) if one.name == "1.0")
    lab.registry.push("prod", "refunds", "1.0", digest=entry.digest)
    lab.registry.sign("prod", "refunds", "1.0")
    lab.audit()
    assert lab.audited.findings()[DOOMED]["state"] == "OPEN"


def test_document_served_only_when_a_batch_is_scanned_once_more_resolves_nothing(lab: Lab) -> None:
    begin_unsigned(lab)
    lab.plant_image()
    lab.attack()
    steps_made = StepFunctionsRun(lab.audited, {"TRUST_VERIFICATION": "signatures", "REQUIRED_SIGNERS": "ci"})
    reading = itertools.count()

    def serve_it_there_too(_: object) -> None:
        if next(reading) == 1:  # the first reading of its tags was honest
            lab.attack(*(Reused(role, gun=lab.debug.gun) for role in ROLES), guns=[lab.payments.gun, lab.refunds.gun])

    lab.dtr.on_request(serve_it_there_too, tags_of("prod/refunds").path)
    run = steps_made.execute({"scheduled_time": "2026-11-09T05:00:00Z"})

    assert next(reading) >= 2, "it is read once more"
    assert (run["complete"], run["findings"]["resolved"]) == (False, 0)
    assert lab.audited.findings()[DOOMED]["state"] == "OPEN"


def test_documents_that_were_not_all_compared_resolve_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_unsigned(lab)
    monkeypatch.setattr(reuse, "RECORDS", 1)
    lab.sign(lab.refunds, "1.0")
    one = lab.audit()
    many = StepFunctionsRun(lab.audited, {"TRUST_VERIFICATION": "signatures", "REQUIRED_SIGNERS": "ci"}).execute(
        {"scheduled_time": "2026-11-09T05:00:00Z"}
    )
    for run in (one, many):
        assert (run["complete"], run["findings"]["resolved"]) == (False, 0)
        assert len([why for why in run["incomplete_because"] if "was not seen" in why]) == 1
    assert lab.audited.findings()[DOOMED]["state"] == "OPEN"


@pytest.mark.parametrize("is_older", [False, True], ids=["of today", "of the last run"])
def test_document_of_another_role_makes_the_repository_untrusted(lab: Lab, is_older: bool) -> None:
    trust = lab.payments
    trust.add_signer("alice")
    trust.add_signer("bob")
    lab.sign(trust, "2.0", signer="bob")
    lab.sign(trust, "1.5", signer="alice")  # alice is the last to sign the releases, and with them bob's tag
    revision = len(trust.revisions) - 1
    honest = lab.audited.audit(TRUST_VERIFICATION="signatures", REQUIRED_SIGNERS="alice")
    assert lab.verdicts(honest)["prod/payments:2.0"] == "UNTRUSTED"
    if is_older:
        lab.sign(trust, "2.1", signer="bob")
    lab.attack(Reused("targets/alice", source="targets/releases", revision=revision))

    run = lab.audited.audit(TRUST_VERIFICATION="signatures", REQUIRED_SIGNERS="alice")

    rows = {f"{row['namespace']}/{row['repository']}:{row['tag']}": row for row in lab.audited.rows(run["run_id"])}
    assert rows["prod/payments:2.0"]["verdict"] == "UNTRUSTED"
    assert "served as targets/alice and as targets/releases" in rows["prod/payments:1.5"]["reason"]
    assert run["trust"]["reused"] == 1
    assert rows["dev/debug:1.0"]["reason"].startswith("no required signer"), "one repository's trouble is its own"


def test_documents_that_list_nothing_are_no_misuse_though_they_are_equal(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    key = make_key()
    made: list[TrustRepository] = []
    for name in ("one", "two"):
        trust = dtr.notary.create(f"{dtr.host}/web/{name}")
        for signer in ("ci", "qa"):
            trust.add_signer(signer, key)
        registry.push("web", name, "1.0")
        registry.sign("web", name, "1.0")
        (entry,) = registry.tags("web", name, dtr.host)
        trust.sign("1.0", entry.digest, signer="ci")
        made.append(trust)
    for trust in made:
        trust.plant("targets/qa", made[0].revisions[-1]["targets/qa"], consistent=True)
    run = audited.audit(TRUST_VERIFICATION="signatures", REQUIRED_SIGNERS="ci")
    assert (run["status"], run["trust"]["reused"]) == ("NOT_A_FINDING", 0)


def test_reused_document_is_served_by_the_attack_as_by_an_honest_notary() -> None:
    notary = Notary()
    one, two = (notary.create(f"dtr.example/a/{name}") for name in ("one", "two"))
    key = make_key()
    for trust in (one, two):
        trust.add_signer("ci", key)
    one.sign("1.0", "sha256:" + "1" * 64, signer="ci")
    fork = two.fork()
    Reused("targets/ci", gun=one.gun).apply(fork, notary.find)
    assert fork.find("targets/ci") == one.find("targets/ci") != two.find("targets/ci")
    with pytest.raises(LookupError):
        dataclasses.replace(Reused("targets/ci"), gun="none").apply(fork, notary.find)
