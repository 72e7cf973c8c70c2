"""What the verifier says of a real Notary's trust data equals what the vendor's tools say, and no attack is taken in.

The list of attacks is the table `ATTACKS` in tests/real/trust_attacks.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from dtr_audit.core.credentials import Credentials
from dtr_audit.core.model import TrustFlags, Verdict
from dtr_audit.trust.notary.cache import TrustMemory, parse_memory
from dtr_audit.trust.notary.changefeed import read_hosts
from dtr_audit.trust.notary.client import NotaryClient
from dtr_audit.trust.notary.policy import Judgement, Pin, SignersNeeded, TrustPolicy, compare
from dtr_audit.trust.notary.reading import Anchor, Defect, Outcome, TrustReading
from dtr_audit.trust.notary.verification import verify
from tests.real.lab.proxy import TamperingProxy
from tests.real.lab.registry import RealRegistry
from tests.real.lab.scenarios import HONEST, TAG
from tests.real.lab.signer_client import ToolFailedError
from tests.real.lab.tampering import expire_in
from tests.real.lab.trust import RELEASES
from tests.real.trust_attacks import ATTACKS, EVIL_DIGEST, UNKNOWN, UNTRUSTED, Attack, Stage, sign_pair, take_over_root

pytestmark = pytest.mark.real


class Login:
    """The account's name and password, and the CA to trust."""

    def __init__(self, registry: RealRegistry) -> None:
        self._credentials = Credentials(registry.username, registry.password, registry.ca_bundle)

    def fetch(self, *, fresh: bool = False) -> Credentials:
        return self._credentials


class Impatience:
    """A clock by which every wait is over at once."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        return


class Auditor:
    """Reads as the audit does, and remembers what was asked for."""

    def __init__(self, registry: RealRegistry, url: str) -> None:
        self.asked: list[str] = []
        self.client = NotaryClient(
            url,
            Login(registry),
            x509_strict=True,
            concurrency=2,
            stop_at=time.monotonic() + 3600,
            clock=Impatience(),
        )

    def fetch(self, gun: str, name: str) -> bytes | None:
        self.asked.append(name)
        return self.client.fetch(gun, name)

    def read(
        self, gun: str, memory: TrustMemory | None = None, *, policy: TrustPolicy | None = None, days: int = 0
    ) -> TrustReading:
        self.asked.clear()
        return verify(self, gun, memory, policy or TrustPolicy(), datetime.now(UTC) + timedelta(days=days))


@pytest.fixture(scope="module")
def auditor(real_registry: RealRegistry) -> Iterator[Auditor]:
    auditor = Auditor(real_registry, real_registry.url)
    yield auditor
    auditor.client.close()


@pytest.fixture
def victim(stage: Stage) -> Iterator[Auditor]:
    """An auditor behind the proxy."""
    victim = Auditor(stage.registry, stage.proxy.url)
    yield victim
    victim.client.close()


@pytest.fixture(scope="module")
def memory(session_stage: Stage) -> TrustMemory:
    """What an auditor remembers who has seen the stage before."""
    auditor = Auditor(session_stage.registry, session_stage.registry.url)
    reading = auditor.read(session_stage.gun)
    auditor.client.close()
    return _kept(reading)


def _kept(reading: TrustReading) -> TrustMemory:
    """Give what a reading remembers, as it comes back from where it is kept."""
    assert reading.outcome is Outcome.VERIFIED, reading.reason
    assert reading.memory is not None
    return parse_memory(reading.memory.as_dict())


# Honest repositories


@pytest.mark.parametrize("scenario", HONEST)
def test_an_honest_repository_is_read_as_the_vendors_tools_read_it(
    real_registry: RealRegistry, auditor: Auditor, namespace: str, scenario: str, docker_trust: None
) -> None:
    HONEST[scenario](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    reading = auditor.read(gun)

    try:
        listed = real_registry.list_signed(namespace, "api")
    except ToolFailedError as error:
        _assert_refused_alike(real_registry, namespace, reading, str(error))
        return

    assert (reading.outcome, reading.reason) == (Outcome.VERIFIED, "")
    assert reading.anchor is Anchor.FIRST_USE
    _assert_listed_alike(real_registry, reading, {target.tag: target.role for target in listed})
    inspected = real_registry.inspect_trust(namespace, "api")
    assert _rows(reading) == {
        (row["SignedTag"], f"sha256:{row['Digest']}", frozenset(row["Signers"])) for row in inspected["SignedTags"]
    }
    [root] = [keys for keys in inspected["AdministrativeKeys"] if keys["Name"] == "Root"]
    assert len(reading.root_keys) == len(root["Keys"])


def _assert_refused_alike(registry: RealRegistry, namespace: str, reading: TrustReading, reported: str) -> None:
    with pytest.raises(ToolFailedError, match="no signatures or cannot access"):
        registry.inspect_trust(namespace, "api")
    if "does not have trust data" in reported:
        assert reading.outcome is Outcome.NO_TRUST_DATA
    else:
        assert " expired at " in reported
        assert (reading.outcome, reading.defect) == (Outcome.DOES_NOT_HOLD, Defect.EXPIRED)
        [role] = {role for role in ("root", "targets") if f"fatal: {role} expired" in reported}
        assert role in reading.reason


def _assert_listed_alike(registry: RealRegistry, reading: TrustReading, listed: dict[str, str]) -> None:
    """Compare tags, their roles and the roles that hold with `notary list` and `notary delegation list`."""
    signer_client = registry.signer_client
    assert {tag: trust.roles[0] for tag, trust in reading.tags.items() if trust.roles} == listed
    held = {expiry.role for expiry in reading.expiries if expiry.role.startswith("targets/")}
    lapsed = {skipped.role for skipped in reading.skipped_delegations}
    delegations = {delegation.role for delegation in signer_client.list_delegations(reading.gun)}
    assert held | lapsed == delegations
    for role in delegations:
        names = {target.tag for target in signer_client.list_signed(reading.gun, role) if target.role == role}
        assert names == {tag for tag, trust in reading.tags.items() if role in trust.roles}, role
        assert not (role in lapsed and names), role
    for tag, trust in reading.tags.items():
        for release in trust.releases:
            for role in release.roles:
                [target] = [target for target in signer_client.list_signed(reading.gun, role) if target.tag == tag]
                assert target.digest in release.digests


def _rows(reading: TrustReading) -> set[tuple[str, str, frozenset[str]]]:
    """Give what `docker trust inspect` would show."""
    return {
        (tag, release.digests[0], frozenset(release.signers))
        for tag, trust in reading.tags.items()
        for release in trust.releases
    }


@pytest.mark.parametrize("scenario", ["sign-by-several", "sign-by-nested-delegations", "let-a-delegation-expire"])
def test_an_unchanged_repository_costs_one_request_and_reads_the_same(
    real_registry: RealRegistry, auditor: Auditor, namespace: str, scenario: str
) -> None:
    HONEST[scenario](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    first = auditor.read(gun)

    second = auditor.read(gun, _kept(first))

    assert auditor.asked == ["timestamp"]
    assert second.anchor is Anchor.REMEMBERED
    assert (second.tags, second.expiries, second.skipped_delegations) == (
        first.tags,
        first.expiries,
        first.skipped_delegations,
    )


def test_one_new_signature_costs_the_files_that_it_changed(
    real_registry: RealRegistry, auditor: Auditor, namespace: str
) -> None:
    HONEST["sign-by-several"](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    memory = _kept(auditor.read(gun))
    digest = real_registry.push_image(namespace, "api", "4.0")
    real_registry.sign(namespace, "api", "4.0", signer="bob")

    reading = auditor.read(gun, memory)

    assert {name.partition(".")[0] for name in auditor.asked} == {"timestamp", "snapshot", RELEASES, "targets/bob"}
    assert len(auditor.asked) == 4
    assert ("4.0", digest, frozenset({"bob"})) in _rows(reading)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp", "root"])
def test_a_replaced_key_is_followed_by_who_has_seen_the_old_one(
    real_registry: RealRegistry, auditor: Auditor, namespace: str, role: str
) -> None:
    HONEST["sign-by-several"](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    before = auditor.read(gun)
    for _ in range(2):
        real_registry.rotate_key(namespace, "api", role, by_server=role in {"snapshot", "timestamp"})

    after = auditor.read(gun, _kept(before))

    assert (after.outcome, after.anchor, after.reason) == (Outcome.VERIFIED, Anchor.REMEMBERED, "")
    assert _rows(after) == _rows(before)
    assert (after.root_keys != before.root_keys) is (role == "root")


def test_a_repository_under_another_root_does_not_hold_for_who_has_seen_the_first(
    real_registry: RealRegistry, auditor: Auditor, namespace: str
) -> None:
    HONEST["sign-by-several"](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    memory = _kept(auditor.read(gun))
    digest = real_registry.push_image(namespace, "api", "2.0")
    real_registry.reinitialise(namespace, "api")
    real_registry.sign(namespace, "api", "2.0", signer="carol")

    reading = auditor.read(gun, memory)

    assert (reading.outcome, reading.defect) == (Outcome.DOES_NOT_HOLD, Defect.ROOT_CHANGED)
    assert _judge(reading, digest, "carol", tag="2.0").verdict is Verdict.UNTRUSTED
    assert auditor.read(gun).outcome is Outcome.VERIFIED  # by whoever sees it for the first time


def test_trust_data_that_is_deleted_is_no_signature_for_who_has_seen_it(
    real_registry: RealRegistry, auditor: Auditor, namespace: str
) -> None:
    HONEST["sign-by-one-key"](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    [digest] = [row[1] for row in _rows(auditor.read(gun))]
    memory = _kept(auditor.read(gun))
    real_registry.signer_client.notary("delete", "--remote", gun)

    reading = auditor.read(gun, memory)

    assert reading.outcome is not Outcome.VERIFIED
    assert _judge(reading, digest, "alice").verdict is not Verdict.SIGNED


def test_a_removed_signer_counts_no_more_for_who_has_seen_him(
    real_registry: RealRegistry, auditor: Auditor, namespace: str
) -> None:
    HONEST["sign-by-several"](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    before = auditor.read(gun)
    [digest] = [row[1] for row in _rows(before) if row[0] == "2.0"]
    assert _judge(before, digest, "bob", tag="2.0").verdict is Verdict.SIGNED
    real_registry.remove_delegation(namespace, "api", "targets/bob")

    after = auditor.read(gun, _kept(before))

    judged = _judge(after, digest, "bob", tag="2.0")
    assert judged.verdict is Verdict.UNTRUSTED
    assert "no required signer" in judged.reason


def test_a_signer_who_comes_back_is_no_rollback(real_registry: RealRegistry, auditor: Auditor, namespace: str) -> None:
    HONEST["sign-by-several"](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    before = auditor.read(gun)
    real_registry.remove_delegation(namespace, "api", "targets/bob")
    without = auditor.read(gun, _kept(before))
    real_registry.delegate(namespace, "api", "targets/bob", "bob")

    for known in (before, without):
        after = auditor.read(gun, _kept(known))
        assert (after.outcome, after.reason) == (Outcome.VERIFIED, "")
        assert _rows(after) == _rows(before) != _rows(without)


def test_a_signature_that_expires_between_two_runs_counts_no_more(
    real_registry: RealRegistry, auditor: Auditor, namespace: str
) -> None:
    HONEST["sign-by-several"](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    keys = real_registry.signer_client.read_keys()
    real_registry.desk.republish(gun, "targets/bob", keys, expire_in(3600))
    before = auditor.read(gun)
    [digest] = [row[1] for row in _rows(before) if row[0] == "2.0"]
    assert _judge(before, digest, "bob", tag="2.0").verdict is Verdict.SIGNED

    after = auditor.read(gun, _kept(before), days=1)

    assert auditor.asked == ["timestamp"]
    judged = _judge(after, digest, "bob", tag="2.0")
    assert judged.verdict is Verdict.UNTRUSTED
    assert "expired" in judged.reason


def test_a_pinned_root_holds_and_another_does_not(stage: Stage, victim: Auditor) -> None:
    ids = victim.read(stage.gun).root_keys
    policy = TrustPolicy(pins=(Pin(stage.gun, frozenset(ids)),))

    honest = victim.read(stage.gun, policy=policy)
    stage.proxy.tamper = take_over_root(stage)
    forged = victim.read(stage.gun, policy=policy)

    assert (honest.outcome, honest.anchor) == (Outcome.VERIFIED, Anchor.PINNED)
    assert (forged.outcome, forged.defect) == (Outcome.DOES_NOT_HOLD, Defect.NOT_PINNED)


def test_the_changefeed_names_the_hosts_that_have_trust_data(
    real_registry: RealRegistry, auditor: Auditor, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", TAG)
    real_registry.sign(namespace, "api", TAG, domain="registry.example.com")
    real_registry.sign(namespace, "api", TAG)

    hosts = read_hosts(auditor.client)

    assert hosts.is_whole
    assert hosts.repositories["registry.example.com"] >= 1
    assert hosts.repositories[real_registry.host] >= 1


# Attacks


def test_the_honest_stage_is_signed_by_those_whom_the_attacks_impersonate(
    stage: Stage, victim: Auditor, memory: TrustMemory
) -> None:
    """Otherwise every attack would be refused for want of anything to attack."""
    for known in (None, memory):
        reading = victim.read(stage.gun, known)
        for signer in ("alice", "bob", "pair"):
            assert _judge(reading, stage.digest, signer).verdict is Verdict.SIGNED
    assert stage.proxy.logins


def test_what_is_forged_with_every_key_is_signed(stage: Stage, victim: Auditor, memory: TrustMemory) -> None:
    """Otherwise an attack that is built upon it could be refused for a reason of its own."""
    for known in (None, memory):
        stage.proxy.tamper = stage.forge()
        assert _judge(victim.read(stage.gun, known), stage.digest, "alice").verdict is Verdict.SIGNED
        stage.proxy.tamper = sign_pair(stage)
        assert _judge(victim.read(stage.gun, known), EVIL_DIGEST, "pair").verdict is Verdict.SIGNED


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_no_attack_is_taken_in(stage: Stage, victim: Auditor, memory: TrustMemory, attack: Attack) -> None:
    stage.proxy.tamper = attack.make(stage)

    reading = victim.read(stage.gun, memory if attack.seen else None, days=attack.days)

    judged = _judge(reading, attack.digest(stage), attack.signer)
    assert judged.verdict == attack.expected, judged.reason
    assert judged.reason


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if not attack.seen], ids=str)
def test_no_attack_is_taken_in_by_who_has_seen_better(
    stage: Stage, victim: Auditor, memory: TrustMemory, attack: Attack
) -> None:
    stage.proxy.tamper = attack.make(stage)

    reading = victim.read(stage.gun, memory, days=attack.days)

    judged = _judge(reading, attack.digest(stage), attack.signer)
    if judged.verdict is Verdict.SIGNED:
        # Who remembers a file does not ask for it again: nothing that was tampered with was looked at.
        stage.proxy.behave()
        honest = victim.read(stage.gun, memory)
        assert reading.tags == honest.tags
        assert attack.digest(stage) == stage.digest
        assert not attack.days
    else:
        assert judged.verdict in {UNTRUSTED, UNKNOWN}, judged.reason


def test_credentials_go_to_no_other_host(stage: Stage, victim: Auditor) -> None:
    with TamperingProxy(stage.registry) as elsewhere:
        stage.proxy.realm = f"{elsewhere.url}/auth/token"
        reading = victim.read(stage.gun)

        assert reading.outcome is Outcome.UNREADABLE
        assert elsewhere.host in reading.reason
        assert elsewhere.logins == []


def test_credentials_go_nowhere_without_encryption(stage: Stage, victim: Auditor) -> None:
    before = len(stage.proxy.logins)
    stage.proxy.realm = f"http://{stage.proxy.host}/auth/token"

    reading = victim.read(stage.gun)

    assert reading.outcome is Outcome.UNREADABLE
    assert "credentials" in reading.reason
    assert len(stage.proxy.logins) == before


def _judge(reading: TrustReading, digest: str, signer: str, *, tag: str = TAG) -> Judgement:
    """Judge a tag as somebody who requires a signer, of whom the registry's flags say that all is well."""
    policy = TrustPolicy(required_signers=(signer,), signers_needed=SignersNeeded.ALL, targets_key_suffices=False)
    flags = TrustFlags(reading.gun.partition("/")[0], in_notary=True, hash_mismatch=False)
    return compare(reading, tag, digest, flags, policy)
