"""What of a repository's trust data holds, what does not, and what could not be read: rule by rule, and attack by attack."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dtr_audit.errors import AuthenticationError, OutOfTimeError, RegistryError, SettingsError
from dtr_audit.trust.notary.cache import TrustMemory
from dtr_audit.trust.notary.policy import Pin, TrustPolicy
from dtr_audit.trust.notary.reading import Anchor, Defect, Outcome, TrustReading
from dtr_audit.trust.notary.verification import ROOT_STEPS, TARGETS_BYTES, verify
from tests.unit.notary.publisher import (
    DIGEST,
    GUN,
    NOW,
    OTHER_DIGEST,
    Authority,
    Notary,
    Publisher,
    RoleKeys,
    SigningKey,
    canonical,
    certified,
    edwards,
    elliptic,
    meta,
    rivest,
    rsa_private,
)

ANYTHING = TrustPolicy()


def read(notary: Notary, memory: TrustMemory | None = None, policy: TrustPolicy = ANYTHING) -> TrustReading:
    return verify(notary, GUN, memory, policy, NOW)


@pytest.fixture
def publisher() -> Publisher:
    """`targets` signs 1.0; ci and releases sign 2.0."""
    publisher = Publisher()
    publisher.sign("targets", "1.0")
    ci = elliptic()
    publisher.delegate("targets/releases", ci)
    publisher.delegate("targets/ci", ci)
    publisher.sign("targets/releases", "2.0", OTHER_DIGEST)
    publisher.sign("targets/ci", "2.0", OTHER_DIGEST)
    return publisher


def verified(publisher: Publisher, memory: TrustMemory | None = None) -> TrustReading:
    reading = read(Notary(publisher.publish()), memory)
    assert reading.outcome is Outcome.VERIFIED, reading.reason
    return reading


def memory_of(publisher: Publisher) -> TrustMemory:
    memory = verified(publisher).memory
    assert memory is not None
    return memory


def assert_flawed(reading: TrustReading, defect: Defect, *words: str) -> None:
    assert reading.outcome is Outcome.DOES_NOT_HOLD
    assert reading.defect is defect
    assert not reading.tags
    assert all(word in reading.reason for word in words), reading.reason


# What holds


def test_honest_trust_data_is_verified_and_names_its_signers(publisher: Publisher) -> None:
    reading = verified(publisher)
    assert {
        tag: [(release.digests, release.signers) for release in trust.releases] for tag, trust in reading.tags.items()
    } == {
        "1.0": [((DIGEST,), ("Repo Admin",))],
        "2.0": [((OTHER_DIGEST,), ("ci",))],
    }
    assert reading.reason == ""
    assert reading.anchor is Anchor.FIRST_USE
    assert "trusted on first use" in reading.notes[0]
    assert reading.root_keys == (publisher.roles["root"].keys[0].id,)


def test_each_role_is_fetched_once_and_by_its_hash(publisher: Publisher) -> None:
    notary = Notary(publisher.publish())
    read(notary)
    assert [name.partition(".")[0] for name in notary.asked] == [
        "root",
        "timestamp",
        "snapshot",
        "targets",
        "targets/releases",
        "targets/ci",
    ]


def test_an_unchanged_repository_costs_one_request(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    notary = Notary(publisher._published)
    reading = read(notary, memory)
    assert notary.asked == ["timestamp"]
    assert reading.outcome is Outcome.VERIFIED
    assert set(reading.tags) == {"1.0", "2.0"}
    assert reading.anchor is Anchor.REMEMBERED
    assert reading.memory == memory


def test_of_a_changed_repository_only_what_changed_is_fetched(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    before = dict(publisher._published)
    publisher.sign("targets/ci", "3.0")
    after = publisher.publish()
    # A publisher who leaves alone what has not changed.
    for role in ("root", "targets", "targets/releases"):
        [name] = [name for name in before if name.rpartition(".")[0] == role and not name[0].isdigit()]
        body = before[name]
        after = _resnapshot(publisher, after, {role: body})
    after["root"] = before["root"]
    notary = Notary(after)
    reading = read(notary, memory)
    assert reading.outcome is Outcome.VERIFIED, reading.reason
    assert [name.partition(".")[0] for name in notary.asked] == ["timestamp", "snapshot", "targets/ci"]


def _resnapshot(publisher: Publisher, served: dict[str, bytes], files: dict[str, bytes]) -> dict[str, bytes]:
    """Sign a snapshot, and a timestamp, in which some files are replaced; serve those too."""
    timestamp = json.loads(served["timestamp"])["signed"]
    old = base64.b64decode(timestamp["meta"]["snapshot"]["hashes"]["sha256"]).hex()
    snapshot = json.loads(served[f"snapshot.{old}"])["signed"]
    snapshot["meta"] |= {name: meta(body) for name, body in files.items()}
    body = publisher.envelope("snapshot", snapshot)
    timestamp["meta"]["snapshot"] = meta(body)
    served = dict(served) | {f"snapshot.{hashlib.sha256(body).hexdigest()}": body}
    served |= {f"{name}.{hashlib.sha256(content).hexdigest()}": content for name, content in files.items()}
    return served | {"timestamp": publisher.envelope("timestamp", timestamp)}


KEYS: dict[str, Callable[[], SigningKey]] = {
    "P-256": elliptic,
    "P-384": lambda: elliptic(ec.SECP384R1()),
    "P-521": lambda: elliptic(ec.SECP521R1()),
    "ecdsa-x509": lambda: certified("somebody"),
    "ed25519": edwards,
    "rsa by pss": lambda: rivest("rsapss"),
    "rsa by pkcs1v15": lambda: rivest("rsapkcs1v15"),
    "rsa-x509 by pss": lambda: certified("somebody", private=rsa_private()),
    "rsa-x509 by pkcs1v15": lambda: certified("somebody", private=rsa_private(), method="rsapkcs1v15"),
}


@pytest.mark.parametrize("make", KEYS.values(), ids=KEYS)
def test_every_kind_of_key_signs(publisher: Publisher, make: Callable[[], SigningKey]) -> None:
    for role in ("timestamp", "snapshot", "targets", "targets/ci"):
        publisher.roles[role] = RoleKeys([make()])
    assert verified(publisher).tags["2.0"].releases[0].signers == ("ci",)


def test_a_root_of_an_rsa_certificate_holds() -> None:
    publisher = Publisher(root_key=certified(private=rsa_private()))
    assert verified(publisher).outcome is Outcome.VERIFIED


def test_a_repository_without_trust_data_is_not_signed() -> None:
    reading = read(Notary())
    assert reading.outcome is Outcome.NO_TRUST_DATA
    assert reading.memory is None
    assert "no trust data" in reading.reason


def test_a_signer_who_never_signed_is_no_fault(publisher: Publisher) -> None:
    publisher.delegate("targets/new")
    publisher.unpublished.add("targets/new")
    assert verified(publisher).skipped_delegations == ()


def test_targets_of_none_are_empty(publisher: Publisher) -> None:
    served = publisher.publish()
    signed = json.loads(served[_name(served, "targets")])["signed"] | {"targets": None}
    signed["delegations"] = None
    served = _resnapshot(publisher, served, {"targets": publisher.envelope("targets", signed)})
    reading = read(Notary(served))
    assert reading.outcome is Outcome.VERIFIED
    assert reading.tags == {}


def _name(served: dict[str, bytes], role: str) -> str:
    """Give the newest name by hash of a role's document."""
    return [name for name in served if name.rpartition(".")[0] == role and not name[0].isdigit()][-1]


# Wrong keys, missing and forged signatures


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_a_document_signed_by_a_wrong_key_does_not_hold(publisher: Publisher, role: str) -> None:
    publisher.roles[role].signed_by = [certified() if role == "root" else elliptic()]
    assert_flawed(read(Notary(publisher.publish())), Defect.SIGNATURE, "signature invalid", role)


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_a_document_without_any_signature_does_not_hold(publisher: Publisher, role: str) -> None:
    publisher.roles[role].signed_by = []
    assert_flawed(read(Notary(publisher.publish())), Defect.SIGNATURE, "signature invalid", role)


def test_a_signature_under_the_id_of_another_key_does_not_hold(publisher: Publisher) -> None:
    wrong, right = elliptic(), publisher.roles["timestamp"].keys[0]
    served = publisher.publish()
    document = json.loads(served["timestamp"])
    document["signatures"] = [wrong.sign(canonical(document["signed"])) | {"keyid": right.id}]
    served["timestamp"] = json.dumps(document).encode()
    assert_flawed(read(Notary(served)), Defect.SIGNATURE, "timestamp")


def test_a_key_under_an_id_that_is_not_its_own_is_not_read(publisher: Publisher) -> None:
    served = publisher.publish()
    signed = json.loads(served["root"])["signed"]
    wrong, right = elliptic(), publisher.roles["timestamp"].keys[0]
    signed["keys"][right.id] = wrong.entry
    reading = read(Notary(served | {"root": publisher.envelope("root", signed)}))
    assert reading.outcome is Outcome.UNREADABLE
    assert "not the one that this id stands for" in reading.reason


def test_a_changed_word_breaks_the_signature(publisher: Publisher) -> None:
    served = publisher.publish()
    document = json.loads(served["timestamp"])
    document["signed"]["version"] = 7
    served["timestamp"] = json.dumps(document).encode()
    assert_flawed(read(Notary(served)), Defect.SIGNATURE, "timestamp")


@pytest.mark.parametrize(
    ("key", "method"),
    [
        (elliptic, "eddsa"),
        (elliptic, "rsapss"),
        (edwards, "ecdsa"),
        (rivest, "ecdsa"),
        (rivest, "pycrypto-pkcs#1 pss"),
        (elliptic, "none"),
        (elliptic, ""),
    ],
)
def test_a_method_that_is_not_the_keys_own_does_not_count(
    publisher: Publisher, key: Callable[[], SigningKey], method: str
) -> None:
    made = key()
    publisher.roles["timestamp"] = RoleKeys([made], signed_by=[replace(made, method=method)])
    assert_flawed(read(Notary(publisher.publish())), Defect.SIGNATURE, "timestamp")


def test_a_methods_name_may_come_in_capitals(publisher: Publisher) -> None:
    key = publisher.roles["timestamp"].keys[0]
    publisher.roles["timestamp"].signed_by = [replace(key, method="ECDSA")]
    assert verified(publisher).outcome is Outcome.VERIFIED


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "ecdsa-x509", "dsa", ""])
def test_a_key_of_another_kind_than_it_says_does_not_count(publisher: Publisher, kind: str) -> None:
    publisher.roles["timestamp"].keys = [replace(elliptic(), kind=kind)]
    assert_flawed(read(Notary(publisher.publish())), Defect.SIGNATURE, "timestamp")


@pytest.mark.parametrize(
    "key", [lambda: elliptic(ec.SECP256K1()), lambda: elliptic(ec.SECP224R1()), lambda: rivest(bits=1024)]
)
def test_a_weak_or_unknown_key_does_not_count(publisher: Publisher, key: Callable[[], SigningKey]) -> None:
    publisher.roles["timestamp"].keys = [key()]
    assert_flawed(read(Notary(publisher.publish())), Defect.SIGNATURE, "timestamp")


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[:-1],
        lambda v: v + b"\0",
        lambda v: v[:32] + b"\0" + v[32:],
        lambda v: b"",
        lambda v: bytes(64),
    ],
)
def test_a_signature_of_another_length_or_of_nothing_does_not_count(
    publisher: Publisher, change: Callable[[bytes], bytes]
) -> None:
    served = publisher.publish()
    document = json.loads(served["timestamp"])
    value = base64.b64decode(document["signatures"][0]["sig"])
    document["signatures"][0]["sig"] = base64.b64encode(change(value)).decode()
    served["timestamp"] = json.dumps(document).encode()
    assert_flawed(read(Notary(served)), Defect.SIGNATURE, "timestamp")


# Thresholds


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_fewer_signatures_than_the_threshold_do_not_hold(publisher: Publisher, role: str) -> None:
    make = certified if role == "root" else elliptic
    keys = [make(), make(), make()]
    publisher.roles[role] = RoleKeys(keys, threshold=2, signed_by=keys[:1])
    assert_flawed(read(Notary(publisher.publish())), Defect.THRESHOLD, role, "1 valid", "2 are needed")
    publisher.roles[role].signed_by = keys[1:]
    assert verified(publisher).outcome is Outcome.VERIFIED


def test_a_signature_twice_counts_once(publisher: Publisher) -> None:
    key, other = elliptic(), elliptic()
    publisher.roles["targets"] = RoleKeys([key, other], threshold=2, signed_by=[key, key])
    assert_flawed(read(Notary(publisher.publish())), Defect.THRESHOLD, "targets")


def test_one_key_under_two_certificates_counts_once(publisher: Publisher) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    keys = [certified("one", private=private), certified("two", private=private)]
    assert keys[0].id != keys[1].id
    publisher.roles["targets"] = RoleKeys(keys, threshold=2)
    assert_flawed(read(Notary(publisher.publish())), Defect.THRESHOLD, "targets")


@pytest.mark.parametrize("threshold", [0, -1, True, "1", None, 1.5, 2**40])
def test_a_threshold_that_is_none_is_not_read(publisher: Publisher, threshold: Any) -> None:
    publisher.roles["targets"].threshold = threshold
    assert read(Notary(publisher.publish())).outcome is Outcome.UNREADABLE


def test_a_role_with_keys_that_are_not_there_is_not_read(publisher: Publisher) -> None:
    served = publisher.publish()
    signed = json.loads(served["root"])["signed"]
    signed["roles"]["targets"]["keyids"].append("f" * 64)
    reading = read(Notary(served | {"root": publisher.envelope("root", signed)}))
    assert reading.outcome is Outcome.UNREADABLE
    assert "which is not there" in reading.reason


# Swapped, stripped, mixed, replayed


@pytest.mark.parametrize("role", ["snapshot", "targets", "targets/releases", "targets/ci"])
def test_a_document_swapped_for_another_does_not_hold(publisher: Publisher, role: str) -> None:
    attacker = Publisher()
    attacker.targets, attacker.roles = dict(publisher.targets), dict(publisher.roles)
    attacker.sign("targets", "1.0", OTHER_DIGEST)
    forged = attacker.publish()
    notary = Notary(publisher.publish())
    notary.forge(role, forged[_name(forged, role)] + b" ")
    assert_flawed(read(notary), Defect.MIXED, role, "mixed up")


@pytest.mark.parametrize("role", ["snapshot", "targets", "targets/releases", "targets/ci"])
def test_a_stripped_document_does_not_hold(publisher: Publisher, role: str) -> None:
    notary = Notary(publisher.publish())
    del notary.served[_name(notary.served, role)]
    assert_flawed(read(notary), Defect.INCOMPLETE, role, "missing")


def test_a_stripped_timestamp_does_not_hold(publisher: Publisher) -> None:
    notary = Notary(publisher.publish())
    del notary.served["timestamp"]
    assert_flawed(read(notary), Defect.INCOMPLETE, "timestamp")


def test_trust_data_that_is_stripped_altogether_is_missed(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    reading = read(Notary(), memory)
    assert reading.outcome is Outcome.NO_TRUST_DATA
    assert "any more" in reading.reason
    assert reading.memory is memory


def test_a_delegation_stripped_from_the_snapshot_signs_nothing(publisher: Publisher) -> None:
    publisher.unpublished |= {"targets/releases", "targets/ci"}
    assert set(verified(publisher).tags) == {"1.0"}


@pytest.mark.parametrize("role", ["targets", "targets/ci"])
def test_a_validly_signed_document_of_another_time_does_not_hold(publisher: Publisher, role: str) -> None:
    """Mix and match: every document is genuine, and they do not belong together."""
    old = publisher.publish()
    publisher.sign("targets", "1.0", OTHER_DIGEST)
    publisher.sign("targets/ci", "2.0", DIGEST)
    new = dict(publisher.publish())
    new[_name(new, role)] = old[_name(old, role)]
    assert_flawed(read(Notary(new)), Defect.MIXED, role)


def test_a_root_that_the_snapshot_does_not_name_does_not_hold(publisher: Publisher) -> None:
    old = publisher.publish()
    notary = Notary(publisher.publish() | {"root": old["root"]})
    assert_flawed(read(notary), Defect.MIXED, "root")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "targets/ci"])
def test_an_older_version_than_was_seen_does_not_hold(publisher: Publisher, role: str) -> None:
    for _ in range(3):
        publisher.publish()
    memory = memory_of(publisher)
    publisher.versions[role] = 2
    assert_flawed(
        read(Notary(publisher.publish()), memory), Defect.ROLLED_BACK, role, "version 3", "version 4 was seen"
    )


def test_a_replay_of_everything_does_not_hold(publisher: Publisher) -> None:
    old = publisher.publish()
    memory = memory_of(publisher)
    reading = read(Notary(old), memory)
    assert_flawed(reading, Defect.ROLLED_BACK, "rolled back")
    assert reading.memory is memory


def test_a_replay_of_everything_is_found_though_the_memory_had_room_for_the_root_alone(publisher: Publisher) -> None:
    old = publisher.publish()
    memory = memory_of(publisher)
    small = replace(memory, documents={"root": memory.documents["root"]})
    assert_flawed(read(Notary(old), small), Defect.ROLLED_BACK)


def test_a_delegation_that_lapsed_cannot_come_back_older(publisher: Publisher) -> None:
    for _ in range(3):
        publisher.publish()
    memory = memory_of(publisher)
    publisher.expires["targets/ci"] = NOW - timedelta(days=1)
    lapsed = verified(publisher, memory)
    assert lapsed.skipped_delegations
    assert lapsed.memory is not None
    assert lapsed.memory.versions["targets/ci"] == 4
    del publisher.expires["targets/ci"]
    publisher.versions["targets/ci"] = 2
    assert_flawed(read(Notary(publisher.publish()), lapsed.memory), Defect.ROLLED_BACK, "targets/ci")


def test_a_delegation_that_was_removed_may_begin_again(publisher: Publisher) -> None:
    for _ in range(3):
        publisher.publish()
    memory = memory_of(publisher)
    role, targets = publisher.roles.pop("targets/ci"), publisher.targets.pop("targets/ci")
    memory_without = verified(publisher, memory).memory
    publisher.roles["targets/ci"], publisher.targets["targets/ci"] = role, targets
    publisher.versions["targets/ci"] = 0
    assert set(verified(publisher, memory_without).tags) == {"1.0", "2.0"}


def test_a_document_of_another_role_signed_by_the_same_key_is_not_read(publisher: Publisher) -> None:
    key = elliptic()
    publisher.roles["timestamp"] = publisher.roles["snapshot"] = RoleKeys([key])
    served = publisher.publish()
    reading = read(Notary(served | {"timestamp": served[_name(served, "snapshot")]}))
    assert reading.outcome is Outcome.UNREADABLE
    assert "Snapshot" in reading.reason


# Expiry


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_a_document_that_has_expired_does_not_hold(publisher: Publisher, role: str) -> None:
    publisher.expires[role] = NOW
    assert_flawed(read(Notary(publisher.publish())), Defect.EXPIRED, f"expired: {role}, on 2026-11-22 03:00 UTC")
    publisher.expires[role] = NOW + timedelta(microseconds=1)
    assert verified(publisher).outcome is Outcome.VERIFIED


def test_a_remembered_root_that_expires_does_not_hold(publisher: Publisher) -> None:
    publisher.expires["root"] = NOW + timedelta(days=1)
    memory = memory_of(publisher)
    reading = verify(Notary(publisher._published), GUN, memory, ANYTHING, NOW + timedelta(days=1))
    assert_flawed(reading, Defect.EXPIRED, "root")


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2030-13-01T00:00:00Z", "2030-01-01", "2030-01-01T00:00:00", "9999-12-31T23:59:59-23:59", None, 1],
)
def test_an_expiry_that_is_no_time_is_not_read(publisher: Publisher, text: Any) -> None:
    served = publisher.publish()
    signed = json.loads(served["timestamp"])["signed"] | {"expires": text}
    reading = read(Notary(served | {"timestamp": publisher.envelope("timestamp", signed)}))
    assert reading.outcome is Outcome.UNREADABLE
    assert "expires" in reading.reason


@pytest.mark.parametrize(
    "text", ["2030-01-01T00:00:00.123456789Z", "2030-01-01T02:00:00+02:00", "2030-01-01T00:00:00.1-05:00"]
)
def test_an_expiry_may_have_nanoseconds_and_a_zone(publisher: Publisher, text: str) -> None:
    served = publisher.publish()
    signed = json.loads(served["timestamp"])["signed"] | {"expires": text}
    assert read(Notary(served | {"timestamp": publisher.envelope("timestamp", signed)})).outcome is Outcome.VERIFIED


def test_a_tag_expires_with_the_first_of_what_it_hangs_on(publisher: Publisher) -> None:
    publisher.expires["targets/ci"] = NOW + timedelta(days=5)
    publisher.expires["targets"] = NOW + timedelta(days=9)
    tags = verified(publisher).tags
    assert (tags["2.0"].releases[0].expires.role, tags["2.0"].releases[0].expires.when) == (
        "targets/ci",
        NOW + timedelta(days=5),
    )
    assert tags["1.0"].releases[0].expires.role == "targets"


def test_the_root_ends_with_its_certificates() -> None:
    publisher = Publisher(root_key=certified(ends=NOW + timedelta(days=3)))
    reading = verified(publisher)
    assert reading.expiries[0].role == "root"
    assert reading.expiries[0].when == NOW + timedelta(days=3)
    # The same when it is remembered.
    assert verified(publisher, reading.memory).expiries[0] == reading.expiries[0]


@pytest.mark.parametrize(("threshold", "days"), [(1, 9), (2, 3)])
def test_the_root_ends_when_its_certificates_are_fewer_than_the_threshold(threshold: int, days: int) -> None:
    publisher = Publisher()
    keys = [certified(ends=NOW + timedelta(days=days)) for days in (3, 9)]
    publisher.roles["root"] = RoleKeys(keys, threshold)
    assert verified(publisher).expiries[0].when == NOW + timedelta(days=days)


# Delegations


@pytest.mark.parametrize(
    ("spoil", "defect"),
    [
        (lambda publisher: publisher.expires.update({"targets/ci": NOW}), Defect.EXPIRED),
        (lambda publisher: setattr(publisher.roles["targets/ci"], "signed_by", [elliptic()]), Defect.SIGNATURE),
        (lambda publisher: setattr(publisher.roles["targets/ci"], "threshold", 2), Defect.THRESHOLD),
    ],
    ids=["expired", "wrong key", "threshold"],
)
def test_a_delegation_that_does_not_hold_signs_nothing_and_spoils_nothing(
    publisher: Publisher, spoil: Callable[[Publisher], None], defect: Defect
) -> None:
    publisher.sign("targets/ci", "3.0")
    spoil(publisher)
    reading = verified(publisher)
    assert [(skipped.role, skipped.defect) for skipped in reading.skipped_delegations] == [("targets/ci", defect)]
    assert reading.tags["1.0"].releases
    assert reading.tags["2.0"].releases[0].roles == ("targets/releases",)
    assert reading.tags["3.0"].releases == ()
    assert reading.tags["3.0"].skipped_delegations == reading.skipped_delegations


def test_below_a_delegation_that_does_not_hold_nothing_does(publisher: Publisher) -> None:
    publisher.delegate("targets/ci/nightly")
    publisher.sign("targets/ci/nightly", "2.0", OTHER_DIGEST)
    assert verified(publisher).tags["2.0"].releases[0].signers == ("ci", "ci/nightly")
    publisher.expires["targets/ci"] = NOW
    assert verified(publisher).tags["2.0"].releases[0].signers == ("Repo Admin",)


def test_a_delegation_signs_only_under_its_paths(publisher: Publisher) -> None:
    publisher.delegate("targets/dev", paths=["dev-"])
    publisher.delegate("targets/dev/all", paths=["", "dev-x", "prod-"])
    publisher.delegate("targets/idle", paths=[])
    for role in ("targets/dev", "targets/dev/all", "targets/idle"):
        for tag in ("dev-1", "dev-x1", "prod-1"):
            publisher.sign(role, tag)
    reading = verified(publisher)
    assert {tag: trust.roles for tag, trust in reading.tags.items() if "-" in tag} == {
        "dev-1": ("targets/dev",),
        "dev-x1": ("targets/dev", "targets/dev/all"),
    }


def test_a_tag_that_no_released_role_lists_is_not_released(publisher: Publisher) -> None:
    publisher.sign("targets/ci", "3.0")
    trust = verified(publisher).tags["3.0"]
    assert trust.releases == ()
    assert trust.roles == ("targets/ci",)


def test_what_is_released_stands_before_what_targets_says(publisher: Publisher) -> None:
    publisher.sign("targets", "2.0", DIGEST)
    releases = verified(publisher).tags["2.0"].releases
    assert [(release.digests, release.roles) for release in releases] == [
        ((OTHER_DIGEST,), ("targets/releases", "targets/ci")),
        ((DIGEST,), ("targets",)),
    ]


def test_a_tag_found_below_the_releases_first_is_not_released(publisher: Publisher) -> None:
    publisher.delegate("targets/releases/odd")
    publisher.sign("targets/releases/odd", "1.0", OTHER_DIGEST)
    assert verified(publisher).tags["1.0"].releases == ()


@pytest.mark.parametrize(
    "name",
    [
        "ci",
        "targets",
        "root",
        "targets/ci/deep",
        "targets/../x",
        "targets/CI",
        "targets/a.b",
        "targets//a",
        "targets/" + "a" * 250,
    ],
)
def test_a_delegation_by_a_name_that_is_none_is_not_read(publisher: Publisher, name: str) -> None:
    served = publisher.publish()
    signed = json.loads(served[_name(served, "targets")])["signed"]
    signed["delegations"]["roles"][0]["name"] = name
    served = _resnapshot(publisher, served, {"targets": publisher.envelope("targets", signed)})
    reading = read(Notary(served))
    assert reading.outcome is Outcome.UNREADABLE
    assert "delegat" in reading.reason


def test_a_delegation_named_twice_is_not_read(publisher: Publisher) -> None:
    served = publisher.publish()
    signed = json.loads(served[_name(served, "targets")])["signed"]
    signed["delegations"]["roles"].append(signed["delegations"]["roles"][0])
    served = _resnapshot(publisher, served, {"targets": publisher.envelope("targets", signed)})
    assert "twice" in read(Notary(served)).reason


# The root, and how it may change


def test_a_rotated_root_signed_by_the_old_key_is_followed(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    publisher.rotate_root()
    reading = verified(publisher, memory)
    assert reading.root_keys == (publisher.roles["root"].keys[0].id,)
    assert any("follows from the one that was trusted" in note for note in reading.notes)
    assert reading.memory is not None
    assert reading.memory.since == memory.since
    assert reading.memory.versions["root"] == 2


def test_a_chain_of_rotations_is_followed_step_by_step(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    for _ in range(4):
        publisher.rotate_root()
        served = publisher.publish()
    notary = Notary(served)
    assert read(notary, memory).outcome is Outcome.VERIFIED
    assert [name for name in notary.asked if name.endswith(".root")] == ["2.root", "3.root", "4.root"]


def test_a_chain_with_a_link_missing_or_forged_does_not_hold(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    for _ in range(3):
        publisher.rotate_root()
        served = publisher.publish()
    missing = {name: body for name, body in served.items() if name != "3.root"}
    assert_flawed(read(Notary(missing), memory), Defect.ROOT_CHANGED, "root changed")
    swapped = served | {"2.root": served["3.root"]}
    assert_flawed(read(Notary(swapped), memory), Defect.ROOT_CHANGED)
    attacker = Publisher()
    attacker.versions["root"] = 1
    assert_flawed(read(Notary(served | {"2.root": attacker.publish()["root"]}), memory), Defect.ROOT_CHANGED)


def test_a_chain_without_end_is_not_followed(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    publisher.roles["root"].keys = [certified()]
    publisher.versions["root"] = 10**9
    notary = Notary(publisher.publish())
    assert_flawed(read(notary, memory), Defect.ROOT_CHANGED, "1000000001")
    assert len(notary.asked) < ROOT_STEPS


def test_a_chain_that_is_too_long_is_not_followed_though_every_link_is_genuine(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    for _ in range(ROOT_STEPS + 1):
        publisher.rotate_root()
        served = publisher.publish()
    notary = Notary(served)
    assert_flawed(read(notary, memory), Defect.ROOT_CHANGED)
    assert len(notary.asked) < ROOT_STEPS


def test_a_link_of_another_version_than_its_name_does_not_hold(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    publisher.publish()
    for _ in range(2):
        publisher.rotate_root()
        served = publisher.publish()
    assert read(Notary(served), memory).outcome is Outcome.VERIFIED
    assert_flawed(read(Notary(served | {"2.root": served["3.root"]}), memory), Defect.ROOT_CHANGED)


def test_a_link_that_its_own_keys_have_not_signed_does_not_hold(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    publisher.rotate_root()
    publisher.roles["root"].signed_by = []
    publisher.publish()
    publisher.rotate_root()
    publisher.roles["root"].signed_by = None
    assert_flawed(read(Notary(publisher.publish()), memory), Defect.SIGNATURE, "root")


def test_a_first_root_that_does_not_hold_is_not_built_upon(publisher: Publisher) -> None:
    publisher.roles["root"].signed_by = []
    notary = Notary(publisher.publish())
    assert_flawed(read(notary), Defect.SIGNATURE, "root")
    assert notary.asked == ["root"]


def test_two_roots_of_one_version_do_not_hold_though_one_key_signed_both(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    publisher.versions["root"] = 0
    publisher.roles["timestamp"] = RoleKeys([elliptic()])
    assert_flawed(read(Notary(publisher.publish()), memory), Defect.ROOT_CHANGED)


def test_a_rotation_needs_the_old_roots_threshold(publisher: Publisher) -> None:
    old = [certified(), certified(), certified()]
    publisher.roles["root"] = RoleKeys(old, threshold=2)
    memory = memory_of(publisher)
    publisher.roles["root"] = RoleKeys([certified()])
    publisher.signed_root_by = old[:1]
    assert_flawed(read(Notary(publisher.publish()), memory), Defect.ROOT_CHANGED)
    publisher.versions["root"] = 1
    publisher.signed_root_by = old[1:]
    assert verified(publisher, memory).outcome is Outcome.VERIFIED


def test_a_rotation_signed_by_a_key_without_a_certificate_does_not_count(publisher: Publisher) -> None:
    good, bare = certified(), elliptic()
    publisher.roles["root"] = RoleKeys([good, bare], signed_by=[good])
    memory = memory_of(publisher)
    publisher.roles["root"] = RoleKeys([certified()])
    publisher.signed_root_by = [bare]
    assert_flawed(read(Notary(publisher.publish()), memory), Defect.ROOT_CHANGED)


def test_a_rotation_needs_the_new_roots_threshold(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    new = [certified(), certified()]
    publisher.rotate_root(*new)
    publisher.roles["root"].threshold = 2
    publisher.roles["root"].signed_by = new[:1]
    assert_flawed(read(Notary(publisher.publish()), memory), Defect.THRESHOLD, "root")


def test_a_rotation_is_signed_by_a_certificate_that_has_expired_since(publisher: Publisher) -> None:
    publisher.roles["root"].keys = [certified(ends=NOW + timedelta(days=1))]
    memory = memory_of(publisher)
    publisher.rotate_root()
    publisher.expires["timestamp"] = NOW + timedelta(days=9)
    later = NOW + timedelta(days=2)
    assert verify(Notary(publisher.publish()), GUN, memory, ANYTHING, later).outcome is Outcome.VERIFIED


def test_a_repository_made_again_under_another_root_does_not_hold(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    anew = Publisher()
    anew.sign("targets", "1.0")
    for _ in range(3):
        reading = read(Notary(anew.publish()), memory)
        assert_flawed(reading, Defect.ROOT_CHANGED, "root changed", anew.roles["root"].keys[0].id)
        assert reading.memory is memory
    # Nobody remembers: it is trusted on first use, and says so.
    assert verified(anew).anchor is Anchor.FIRST_USE


def test_a_new_certificate_of_the_old_key_is_another_root(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    private = publisher.roles["root"].keys[0].private
    anew = Publisher(root_key=certified(private=private))
    assert_flawed(read(Notary(anew.publish()), memory), Defect.ROOT_CHANGED)


def test_an_older_root_than_was_seen_does_not_hold(publisher: Publisher) -> None:
    old = publisher.publish()["root"]
    memory = memory_of(publisher)
    notary = Notary({**publisher.publish(), "root": old})
    del notary.served["timestamp"]
    assert_flawed(read(notary, memory), Defect.ROLLED_BACK, "root")


def test_a_rotated_timestamp_key_is_learnt_from_the_new_root(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    publisher.roles["timestamp"] = RoleKeys([elliptic()])
    assert verified(publisher, memory).outcome is Outcome.VERIFIED


@pytest.mark.parametrize(
    "key",
    [
        elliptic,
        lambda: certified("dtr.example.com/payments/other"),
        lambda: certified("dtr.example.com/pay"),
        lambda: certified("dtr.example.com/other/*"),
        lambda: certified(ends=NOW - timedelta(seconds=1)),
        lambda: certified(begins=NOW + timedelta(days=1, seconds=1)),
        lambda: replace(certified(), public=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        lambda: replace(certified(), public=b"no PEM"),
        lambda: replace(
            certified(), public=certified().public + b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"
        ),
        lambda: _doubled(certified()),
        lambda: _signed_with_sha1(certified(private=rsa_private())),
    ],
    ids=[
        "bare",
        "other",
        "prefix",
        "wildcard",
        "expired",
        "not-yet",
        "no-DER",
        "no-PEM",
        "other-PEM",
        "two-leaves",
        "sha1",
    ],
)
def test_a_root_without_a_good_certificate_for_the_gun_does_not_hold(key: Callable[[], SigningKey]) -> None:
    assert_flawed(read(Notary(Publisher(root_key=key()).publish())), Defect.SIGNATURE, "no key whose certificate", GUN)


def _signed_with_sha1(key: SigningKey) -> SigningKey:
    """Say in the certificate that it is: its own signature is nobody's concern."""
    der = ssl.PEM_cert_to_DER_cert(key.public.decode())
    sha256, sha1 = (bytes.fromhex("2a864886f70d0101") + bytes([last]) for last in (11, 5))
    assert der.count(sha256) == 2
    return replace(key, public=ssl.DER_cert_to_PEM_cert(der.replace(sha256, sha1)).encode())


def _doubled(key: SigningKey) -> SigningKey:
    return replace(key, public=key.public + certified().public)


@pytest.mark.parametrize(
    "key",
    [
        lambda: certified("dtr.example.com/payments/*"),
        lambda: certified("*"),
        lambda: certified(begins=NOW + timedelta(hours=23)),
        lambda: certified(authority=Authority()),
    ],
    ids=["wildcard", "any", "a day of grace", "by an authority"],
)
def test_a_root_with_a_good_certificate_holds(key: Callable[[], SigningKey]) -> None:
    assert verified(Publisher(root_key=key())).outcome is Outcome.VERIFIED


# Pins


def pinned(*key_ids: str, pattern: str = GUN, authorities: str = "") -> TrustPolicy:
    return TrustPolicy(pins=(Pin(pattern, frozenset(key_ids), authorities),))


def test_a_root_is_pinned_by_the_id_of_its_certificate_or_of_its_key(publisher: Publisher) -> None:
    notary = Notary(publisher.publish())
    key = publisher.roles["root"].keys[0]
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    bare = SigningKey(key.private, "ecdsa", _public(key.private), "ecdsa")
    for policy in (
        pinned(key.id),
        pinned(bare.id),
        pinned("0" * 64, key.id),
        pinned(key.id, pattern="dtr.example.com/*"),
    ):
        reading = read(notary, policy=policy)
        assert reading.outcome is Outcome.VERIFIED
        assert reading.anchor is Anchor.PINNED
        assert reading.notes == ()


def _public(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_root_that_is_not_the_pinned_one_does_not_hold(publisher: Publisher) -> None:
    notary = Notary(publisher.publish())
    assert_flawed(read(notary, policy=pinned("0" * 64)), Defect.NOT_PINNED, publisher.roles["root"].keys[0].id)
    assert_flawed(read(notary, policy=pinned()), Defect.NOT_PINNED)


def test_only_pinned_keys_count_for_the_threshold(publisher: Publisher) -> None:
    keys = [certified(), certified()]
    publisher.roles["root"] = RoleKeys(keys, threshold=2)
    notary = Notary(publisher.publish())
    assert_flawed(read(notary, policy=pinned(keys[0].id)), Defect.THRESHOLD, "root")
    assert read(notary, policy=pinned(keys[0].id, keys[1].id)).outcome is Outcome.VERIFIED


def test_the_most_specific_pin_counts(publisher: Publisher) -> None:
    right = frozenset({publisher.roles["root"].keys[0].id})
    wrong = frozenset({"0" * 64})
    notary = Notary(publisher.publish())

    def outcome(**pins: frozenset[str]) -> Outcome:
        patterns = {"all": "*", "team": "dtr.example.com/payments/*", "this": GUN, "other": "dtr.example.com/other/*"}
        return read(
            notary, policy=TrustPolicy(pins=tuple(Pin(patterns[name], ids) for name, ids in pins.items()))
        ).outcome

    assert outcome(all=wrong, team=right) is Outcome.VERIFIED
    assert outcome(this=right, team=wrong) is Outcome.VERIFIED
    assert outcome(this=wrong, team=right) is Outcome.DOES_NOT_HOLD
    assert outcome(all=wrong) is Outcome.DOES_NOT_HOLD
    assert outcome(other=wrong) is Outcome.VERIFIED


def test_a_root_certified_by_the_pinned_authority_holds() -> None:
    authority = Authority()
    between = Authority("Between", above=authority)
    for key in (certified(authority=authority), certified(authority=between)):
        publisher = Publisher(root_key=key)
        reading = read(Notary(publisher.publish()), policy=pinned(authorities=authority.pem))
        assert reading.outcome is Outcome.VERIFIED, reading.reason
        assert reading.anchor is Anchor.PINNED


AUTHORITY = Authority()
UNCERTIFIED: dict[str, Callable[[], SigningKey]] = {
    "self-signed": certified,
    "another authority": lambda: certified(authority=Authority("Another")),
    "another authority of the same name": lambda: certified(authority=Authority("Authority")),
    "a link is missing": lambda: certified(authority=Authority("Between", above=AUTHORITY), with_chain=False),
    "a link is no authority": lambda: certified(authority=Authority("Between", above=AUTHORITY, is_authority=False)),
    "a link has expired": lambda: certified(
        authority=Authority("Between", above=AUTHORITY, ends=NOW - timedelta(days=1))
    ),
}


@pytest.mark.parametrize("key", UNCERTIFIED.values(), ids=UNCERTIFIED)
def test_a_root_that_the_pinned_authority_did_not_certify_does_not_hold(key: Callable[[], SigningKey]) -> None:
    reading = read(Notary(Publisher(root_key=key()).publish()), policy=pinned(authorities=AUTHORITY.pem))
    assert reading.outcome is Outcome.DOES_NOT_HOLD
    assert reading.defect in {Defect.NOT_PINNED, Defect.SIGNATURE}


def test_an_authority_that_has_expired_certifies_nothing() -> None:
    expired = Authority(ends=NOW - timedelta(days=1))
    publisher = Publisher(root_key=certified(authority=expired))
    assert_flawed(read(Notary(publisher.publish()), policy=pinned(authorities=expired.pem)), Defect.NOT_PINNED)


def test_an_authority_that_is_none_is_a_mistake_of_the_settings(publisher: Publisher) -> None:
    with pytest.raises(SettingsError, match="not a certificate"):
        read(Notary(publisher.publish()), policy=pinned(authorities="no PEM"))


def test_a_pin_put_on_a_new_root_lets_go_of_the_old_one(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    anew = Publisher()
    notary = Notary(anew.publish())
    assert_flawed(read(notary, memory), Defect.ROOT_CHANGED)
    reading = read(notary, memory, pinned(anew.roles["root"].keys[0].id))
    assert reading.outcome is Outcome.VERIFIED
    assert "not pinned" in reading.notes[0]
    # From now on it is the one that is remembered, with a pin or without.
    assert read(notary, reading.memory).outcome is Outcome.VERIFIED


def test_a_pin_that_covers_both_lets_go_of_nothing() -> None:
    authority = Authority()
    one, other = (Publisher(root_key=certified(authority=authority)) for _ in range(2))
    policy = pinned(authorities=authority.pem)
    memory = read(Notary(one.publish()), policy=policy).memory
    assert_flawed(read(Notary(other.publish()), memory, policy), Defect.ROOT_CHANGED)


def test_a_remembered_root_answers_to_a_pin_that_came_later(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    assert_flawed(read(Notary(publisher._published), memory, pinned("0" * 64)), Defect.NOT_PINNED)


def test_an_expired_certificate_of_the_pinned_authority_is_still_remembered() -> None:
    authority = Authority()
    publisher = Publisher(root_key=certified(authority=authority, ends=NOW + timedelta(days=1)))
    policy = pinned(authorities=authority.pem)
    memory = read(Notary(publisher.publish()), policy=policy).memory
    other = Publisher(root_key=certified(authority=authority))
    reading = verify(Notary(other.publish()), GUN, memory, policy, NOW + timedelta(days=2))
    assert_flawed(reading, Defect.ROOT_CHANGED)


# Too much


def test_endless_data_is_not_read(publisher: Publisher) -> None:
    served = publisher.publish()
    reading = read(Notary(served | {"timestamp": served["timestamp"] + b" " * TARGETS_BYTES}))
    assert reading.outcome is Outcome.UNREADABLE
    assert "larger than" in reading.reason
    reading = read(Notary(served | {"root": served["root"] + b" " * TARGETS_BYTES}))
    assert reading.outcome is Outcome.UNREADABLE


def test_a_length_beyond_what_is_read_is_not_asked_for(publisher: Publisher) -> None:
    served = publisher.publish()
    timestamp = json.loads(served["timestamp"])["signed"]
    timestamp["meta"]["snapshot"]["length"] = 10**15
    notary = Notary(served | {"timestamp": publisher.envelope("timestamp", timestamp)})
    reading = read(notary)
    assert reading.outcome is Outcome.UNREADABLE
    assert "larger than" in reading.reason
    assert notary.asked == ["root", "timestamp"]


def test_data_after_the_end_does_not_hold(publisher: Publisher) -> None:
    notary = Notary(publisher.publish())
    name = _name(notary.served, "targets")
    notary.served[name] += b" " * 1_000
    assert_flawed(read(notary), Defect.MIXED, "targets")


@pytest.mark.parametrize("what", ["signatures", "keys", "delegations", "paths", "files", "keyids", "hashes"])
def test_huge_counts_are_not_read(publisher: Publisher, what: str) -> None:
    served = publisher.publish()
    targets = json.loads(served[_name(served, "targets")])["signed"]
    role = targets["delegations"]["roles"][0]
    if what == "signatures":
        document = json.loads(served["timestamp"])
        document["signatures"] *= 200
        served["timestamp"] = json.dumps(document).encode()
    elif what == "keys":
        targets["delegations"]["keys"] = {f"{number:064x}": elliptic().entry for number in range(600)}
    elif what == "delegations":
        targets["delegations"]["roles"] = [{**role, "name": f"targets/a{number}"} for number in range(1_000)]
    elif what == "paths":
        role["paths"] = ["a"] * 100_000
    elif what == "keyids":
        role["keyids"] *= 10_000
    elif what == "hashes":
        targets["targets"]["1.0"]["hashes"] |= {f"md{number}": "" for number in range(100)}
    body = publisher.envelope("targets", targets)
    if what == "files":
        served = _resnapshot(
            publisher, served, {"targets": body} | {f"targets/a{number}": b"1" for number in range(5_000)}
        )
    elif what != "signatures":
        served = _resnapshot(publisher, served, {"targets": body})
    reading = read(Notary(served))
    assert reading.outcome is Outcome.UNREADABLE
    assert "more than" in reading.reason


def test_a_tree_of_too_many_delegations_is_not_read(publisher: Publisher) -> None:
    key = elliptic()
    for parent in ("targets/a", "targets/b"):
        publisher.delegate(parent, key)
        for number in range(200):
            publisher.roles[f"{parent}/{number}"] = RoleKeys([key])
    reading = read(Notary(publisher.publish()))
    assert reading.outcome is Outcome.UNREADABLE
    assert "more than 256 delegations" in reading.reason


def test_roles_that_are_too_much_together_are_not_read(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtr_audit.trust.notary.verification.REPOSITORY_BYTES", 1_000)
    reading = read(Notary(publisher.publish()))
    assert reading.outcome is Outcome.UNREADABLE
    assert "all that is signed in it" in reading.reason


# What could not be read


@pytest.mark.parametrize("error", [RegistryError("GET …: 500"), AuthenticationError("no token")])
def test_a_notary_that_does_not_answer_proves_nothing(publisher: Publisher, error: Exception) -> None:
    memory = memory_of(publisher)
    notary = Notary()
    notary.error = error
    reading = read(notary, memory)
    assert reading.outcome is Outcome.UNREADABLE
    assert reading.reason == str(error)
    assert reading.memory is memory


def test_out_of_time_ends_the_run() -> None:
    notary = Notary()
    notary.error = OutOfTimeError("over")
    with pytest.raises(OutOfTimeError):
        read(notary)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"<html>log in</html>", b'{"signed": {}, "signatures": []}']
)
@pytest.mark.parametrize("role", ["root", "timestamp"])
def test_what_is_no_trust_data_could_not_be_read(publisher: Publisher, role: str, body: bytes) -> None:
    reading = read(Notary(publisher.publish() | {role: body}))
    assert reading.outcome is Outcome.UNREADABLE
    assert reading.reason.startswith(role)


@pytest.mark.parametrize("key", ["Signed", "SIGNATURES", "\u017figned"])
def test_a_key_in_another_case_is_not_read(publisher: Publisher, key: str) -> None:
    served = publisher.publish()
    document = json.loads(served["timestamp"]) | {key: {}}
    reading = read(Notary(served | {"timestamp": json.dumps(document).encode()}))
    assert reading.outcome is Outcome.UNREADABLE
    assert "another case" in reading.reason


def test_a_memory_of_another_gun_is_a_mistake_of_the_caller(publisher: Publisher) -> None:
    memory = memory_of(publisher)
    with pytest.raises(ValueError, match="was given for"):
        verify(Notary(), "dtr.example.com/other/one", memory, ANYTHING, NOW)


def test_everything_is_tried_again_when_somebody_publishes_in_between(publisher: Publisher) -> None:
    old = publisher.publish()
    new = publisher.publish()

    class Publishing(Notary):
        def fetch(self, gun: str, name: str) -> bytes | None:
            body = super().fetch(gun, name)
            if name == "root":
                self.served = new
            return body

    notary = Publishing(old)
    assert read(notary).outcome is Outcome.VERIFIED
    assert notary.asked.count("root") == 2


def test_trust_data_that_signs_nothing_holds() -> None:
    assert verified(Publisher()).tags == {}


def test_memory_under_another_spelling_of_the_host_is_built_upon_if_the_root_is_for_both() -> None:
    publisher = Publisher(root_key=certified("*"))
    publisher.sign("targets", "1.0")
    old = publisher.publish()
    kept = read(Notary(publisher.publish())).memory
    assert kept is not None
    spelling = GUN.replace("dtr.example.com", "DTR.example.com:443")
    remembered = replace(kept, gun=spelling)

    assert read(Notary(publisher.publish()), remembered).anchor is Anchor.REMEMBERED
    rolled_back = read(Notary(old), remembered)

    assert (rolled_back.outcome, rolled_back.defect) == (Outcome.DOES_NOT_HOLD, Defect.ROLLED_BACK)
    assert rolled_back.memory is None  # it is kept where it is


def test_memory_under_another_spelling_of_the_host_is_not_mistaken_for_this_ones(publisher: Publisher) -> None:
    kept = read(Notary(publisher.publish())).memory
    assert kept is not None
    other = Publisher(GUN.replace("dtr.example.com", "DTR.example.com"))
    reading = verify(Notary(other.publish(), other.gun), other.gun, kept, ANYTHING, NOW)
    assert (reading.outcome, reading.anchor) == (Outcome.VERIFIED, Anchor.FIRST_USE)
