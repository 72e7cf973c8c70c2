"""The whole audit with a real registry and Notary: what the vendor's tools have signed passes, and no attack on it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dtr_audit_simulator.aws.stack import Stack
from tests.harness.audit_harness import Audited
from tests.real.lab.proxy import TamperingProxy
from tests.real.lab.registry import RealRegistry
from tests.real.lab.scenarios import HONEST, TAG
from tests.real.trust_attacks import ATTACKS, UNKNOWN, UNTRUSTED, Stage, reuse_repository, reuse_role, set_stage

pytestmark = pytest.mark.real

SIGNED = (
    "sign-by-one-key",
    "sign-by-several",
    "sign-by-an-rsa-key",
    "sign-by-two-keys-of-one-role",
    "rotate-the-targets-key",
    "rotate-the-root-key",
    "remove-a-delegation",
    "sign-as-docker",
)
# The digest that the tag holds is the signed one in all of these: but for the attack it would be SIGNED.
CHOSEN = (
    "swap signers",
    "strip: targets",
    "wrong key: targets/alice",
    "mix and match",
    "remove: targets/releases",
    "cut: timestamp",
    "fail: snapshot",
    "hide",
    "retired root",
    "expired: targets/releases",
    "begun anew: root",
    "begun anew: targets",
    "version beyond all: targets",
    "deep: targets/alice",
    "many signatures: 1000: root",
)
# Here a next root holds, which only the holder of every key can sign. For who has seen it, the one before is rolled back.
LASTING = frozenset({"hide", "expired: targets/releases"})


class Auditor:
    """The function, which verifies signatures, and what it says of one registry."""

    def __init__(self, stack: Stack, registry: RealRegistry, url: str) -> None:
        self.audited = Audited(stack, registry.api)
        self.audited.environment |= {
            "DTR_URL": url,
            "DTR_DOMAINS": registry.host,
            "TRUST_VERIFICATION": "signatures",
        }
        self.audited.put_secret(username=registry.username, password=registry.password, ca_bundle=registry.ca_bundle)

    def audit(self, *, of: dict[str, Any] | None = None, **environment: Any) -> dict[str, Any]:
        """Give the record of the next night; `of` is added to its event."""
        self.audited.runs += 1
        return self.audited.audit({**self.audited.event(), **(of or {})}, **environment)

    def rows(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Give a run's rows by `repository:tag`."""
        return {f"{row['repository']}:{row['tag']}": row for row in self.audited.rows(run["run_id"])}


@pytest.fixture(scope="module")
def whole_stage(real_parts: None) -> Iterator[Stage]:
    """A registry in which there is nothing but the stage, and nothing unsigned."""
    with RealRegistry() as registry, TamperingProxy(registry) as proxy:
        stage = set_stage(registry, proxy, "stage")
        registry.delete_tag("stage", "app", "ci-1")
        yield stage


@pytest.fixture
def victim(stack: Stack, whole_stage: Stage) -> Iterator[Auditor]:
    """The audit of the stage through the proxy, which has seen nothing of it yet."""
    victim = Auditor(stack, whole_stage.registry, whole_stage.proxy.url)
    yield victim
    whole_stage.proxy.behave()
    victim.audited.close()


def assert_passed(victim: Auditor, run: dict[str, Any]) -> None:
    assert (run["status"], run["complete"]) == ("NOT_A_FINDING", True)
    assert {name: row["verdict"] for name, row in victim.rows(run).items()} == {
        "app:1.0": "SIGNED",
        "other:1.0": "SIGNED",
    }


def test_what_the_vendors_tools_have_signed_is_signed_by_those_whom_docker_trust_inspect_shows(
    stack: Stack, real_registry: RealRegistry, namespace: str, docker_trust: None
) -> None:
    for name in SIGNED:
        HONEST[name](real_registry, namespace, name)
    auditor = Auditor(stack, real_registry, real_registry.url)
    try:
        run = auditor.audit(of={"namespaces": [namespace]}, REPOSITORY_KEY_SUFFICES="true")
        rows = auditor.rows(run)
    finally:
        auditor.audited.close()
    inspected = {
        f"{name}:{row['SignedTag']}": (f"sha256:{row['Digest']}", set(row["Signers"]))
        for name in SIGNED
        for row in real_registry.inspect_trust(namespace, name)["SignedTags"]
    }
    assert run["trust"]["verified"] == len(SIGNED)
    signed = {name: row for name, row in rows.items() if row["verdict"] == "SIGNED"}
    assert {name: (row["digest"], set(row["signers"])) for name, row in signed.items()} == inspected
    assert {row["verdict"] for row in rows.values()} == {"SIGNED", "UNSIGNED"}  # some were never signed


def test_a_registry_in_which_all_is_signed_passes(victim: Auditor, whole_stage: Stage, docker_trust: None) -> None:
    run = victim.audit(REQUIRED_SIGNERS="alice,bob", SIGNERS_NEEDED="all")
    assert_passed(victim, run)
    for name, row in victim.rows(run).items():
        (inspected,) = [
            one
            for one in whole_stage.registry.inspect_trust("stage", row["repository"])["SignedTags"]
            if one["SignedTag"] == TAG
        ]
        assert set(row["signers"]) == set(inspected["Signers"]) >= {"alice", "bob"}, name
    assert victim.audit(REQUIRED_SIGNERS="carol")["status"] == "OPEN"


def test_what_is_forged_with_every_key_passes(victim: Auditor, whole_stage: Stage) -> None:
    """Otherwise an attack that is built upon it could be refused for a reason of its own."""
    whole_stage.proxy.tamper = whole_stage.forge()
    assert_passed(victim, victim.audit(REQUIRED_SIGNERS="alice"))


@pytest.mark.parametrize("name", CHOSEN)
def test_no_attack_passes_and_when_it_is_over_the_audit_does(victim: Auditor, whole_stage: Stage, name: str) -> None:
    (attack,) = [attack for attack in ATTACKS if str(attack) == name]
    assert attack.digest(whole_stage) == whole_stage.digest
    if attack.seen:
        assert_passed(victim, victim.audit(REQUIRED_SIGNERS=attack.signer))
    whole_stage.proxy.tamper = attack.make(whole_stage)

    run = victim.audit(REQUIRED_SIGNERS=attack.signer)

    rows = victim.rows(run)
    assert rows["app:1.0"]["verdict"] == attack.expected
    assert rows["app:1.0"]["reason"]
    assert rows["other:1.0"]["verdict"] == "SIGNED", "one repository's trouble is its own"
    answer = {UNTRUSTED: ("OPEN", True), UNKNOWN: ("NOT_REVIEWED", False)}[attack.expected]
    assert (run["status"], run["complete"]) == answer
    whole_stage.proxy.behave()
    run = victim.audit(REQUIRED_SIGNERS=attack.signer)
    if name in LASTING:
        assert run["status"] == "OPEN"
        assert "rolled back" in victim.rows(run)["app:1.0"]["reason"]
    else:
        assert_passed(victim, run)


def test_document_of_another_role_makes_the_repository_untrusted_at_a_real_notary(
    victim: Auditor, whole_stage: Stage
) -> None:
    assert_passed(victim, victim.audit(REQUIRED_SIGNERS="bob"))
    whole_stage.proxy.tamper = reuse_role(whole_stage)

    run = victim.audit(REQUIRED_SIGNERS="bob")

    rows = victim.rows(run)
    assert (run["status"], run["trust"]["reused"]) == ("OPEN", 1)
    assert rows["app:1.0"]["verdict"] == UNTRUSTED
    assert "served as targets/bob and as targets/releases" in rows["app:1.0"]["reason"]
    assert rows["other:1.0"]["verdict"] == "SIGNED", "one repository's trouble is its own"


def test_document_of_another_repository_makes_both_untrusted_at_a_real_notary(
    victim: Auditor, whole_stage: Stage
) -> None:
    whole_stage.proxy.tamper = reuse_repository(whole_stage)

    run = victim.audit(REQUIRED_SIGNERS="alice")

    rows = victim.rows(run)
    assert (run["status"], run["trust"]["reused"]) == ("OPEN", 2)
    assert {row["verdict"] for row in rows.values()} == {UNTRUSTED}
    assert "served in stage/app too" in rows["other:1.0"]["reason"]
