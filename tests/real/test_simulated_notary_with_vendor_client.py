"""The vendor's own client reads the simulated Notary, over TLS and with a token, and says what it thinks of each attack.

What it accepts is as telling as what it refuses: those are named in ACCEPTED, with the reason.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dtr_audit_simulator.dtr.fault_kinds import TRUST, Forged, Realm, Status
from dtr_audit_simulator.dtr.faults import CHALLENGE, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.notary import (
    RELEASES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Attack,
    KeyType,
    RootAuthority,
    TrustRepository,
    make_key,
)
from dtr_audit_simulator.notary.attacks import (
    STRANGE_DIGEST,
    Altered,
    Crowded,
    Cyclic,
    Deep,
    Expired,
    KeysRepeated,
    Lengthened,
    Replayed,
    SignedByStranger,
    Stripped,
    Swapped,
    TakenOver,
    Truncated,
    Undersigned,
    Unlisted,
    Withheld,
)
from tests.harness.requirement import require
from tests.real.lab.parts import NOTARY, missing_parts
from tests.real.lab.signer_client import SignerClient, ToolFailedError

pytestmark = pytest.mark.real

Listed = dict[str, tuple[str, str]]  # tag -> digest, role


def a_digest(character: str) -> str:
    return f"sha256:{character * 64}"


@dataclass
class Office:
    """A simulated DTR, the trust data of `pay/api` in it, and desks of people who have never read it before."""

    dtr: DtrServer
    directory: Path
    desks: Iterator[int] = field(default_factory=itertools.count)

    @property
    def gun(self) -> str:
        return f"{self.dtr.host}/pay/api"

    @property
    def other_gun(self) -> str:
        return f"{self.dtr.host}/pay/other"

    def create(self, **options: Any) -> TrustRepository:
        return self.dtr.notary.create(self.gun, **options)

    def desk(self) -> SignerClient:
        directory = self.directory / f"desk-{next(self.desks)}"
        directory.mkdir()
        admin = self.dtr.admin
        return SignerClient(
            directory, host=self.dtr.host, ca_bundle=self.dtr.ca_bundle, username=admin.name, password=admin.password
        )

    def read(self, desk: SignerClient | None = None, *options: str) -> Listed:
        """Give what `notary list` shows. Raises ToolFailedError if the client refuses what it gets."""
        printed = (desk or self.desk()).notary("list", *options, self.gun)
        rows = (line.split() for line in printed.splitlines())
        # A row is: name, digest, size, role; the head and its underline are none.
        return {row[0]: (f"sha256:{row[1]}", row[3]) for row in rows if len(row) == 4 and row[2].isdecimal()}

    def attack(self, attack: Attack) -> None:
        self.dtr.faults = Faults(forged=(Forged(attack, gun=self.gun),))


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    require(missing_parts([NOTARY]), "apt-get install notary")
    registry = InMemoryRegistry()
    registry.create_repository("pay", "api")
    registry.create_repository("pay", "other")
    with DtrServer(registry) as dtr:
        yield Office(dtr, tmp_path)


def a_repository(office: Office) -> TrustRepository:
    """Make trust data of several signers, published in several steps."""
    api = office.create()
    api.sign("1.0", a_digest("a"))
    api.add_signer("ci")
    api.add_signer("qa")
    api.sign("1.1", a_digest("b"), signer="ci")
    api.add_delegation("targets/pair", make_key(), make_key(KeyType.ED25519), threshold=2)
    api.sign("2.0", a_digest("c"), roles=["targets/pair"])
    return api


HONEST: Listed = {
    "1.0": (a_digest("a"), TARGETS),
    "1.1": (a_digest("b"), RELEASES),
    "2.0": (a_digest("c"), "targets/pair"),
}


# Honest trust data


def test_the_client_lists_exactly_what_was_signed(office: Office) -> None:
    a_repository(office)
    assert office.read() == HONEST
    assert office.read(None, "--roles=targets/ci") == {"1.1": (a_digest("b"), "targets/ci")}


def test_the_client_reads_the_delegations_as_they_are(office: Office) -> None:
    api = a_repository(office)
    api.add_delegation("targets/qa/nightly", make_key(), paths=["nightly-"])
    for tag in ("nightly-7", "3.0"):
        api.sign(tag, a_digest("d"), roles=["targets/qa/nightly"])
    printed = office.desk().notary("delegation", "list", office.gun)
    assert [line.split()[0] for line in printed.splitlines() if line.startswith("targets/")] == [
        "targets/ci",
        "targets/pair",
        "targets/qa",
        "targets/qa/nightly",
        RELEASES,
    ]
    for role in ("targets/ci", "targets/pair", "targets/qa/nightly", RELEASES):
        assert all(key.id in printed for key in api.keys(role))
    # A tag that is none of the delegation's is not listed.
    assert office.read() == {**HONEST, "nightly-7": (a_digest("d"), "targets/qa/nightly")}


@pytest.mark.parametrize("key_type", KeyType)
def test_the_client_verifies_every_type_of_key(office: Office, key_type: KeyType) -> None:
    root_type = KeyType.RSA_X509 if key_type in (KeyType.RSA, KeyType.RSA_X509) else KeyType.ECDSA_X509
    keys = {role: [make_key(key_type, name="somebody")] for role in (TARGETS, SNAPSHOT, TIMESTAMP)}
    api = office.create(keys={ROOT: [make_key(root_type, name=office.gun)], **keys})
    api.add_signer("ci", make_key(key_type, name="ci", pkcs1v15=True))
    api.sign("1.0", a_digest("a"))
    api.sign("1.1", a_digest("b"), signer="ci")
    assert office.read() == {"1.0": (a_digest("a"), TARGETS), "1.1": (a_digest("b"), RELEASES)}


def test_the_client_follows_rotated_keys_of_every_role_from_where_it_was(office: Office) -> None:
    api = a_repository(office)
    desk = office.desk()
    assert office.read(desk) == HONEST
    for role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP, ROOT, ROOT):
        api.rotate(role)
    api.rotate(ROOT, *(make_key(KeyType.ECDSA_X509, name=api.gun) for _ in range(3)), threshold=2)
    assert office.read(desk) == office.read() == HONEST
    asked = {record.path.rpartition("/")[2] for record in office.dtr.requests}
    assert {f"{version}.root.json" for version in range(2, 8)} <= asked


def test_the_client_follows_signers_that_come_and_go(office: Office) -> None:
    api = a_repository(office)
    desk = office.desk()
    assert office.read(desk) == HONEST
    api.remove_delegation("targets/pair")
    api.remove_signer("qa")
    api.sign("1.2", a_digest("d"), signer="ci")
    api.revoke("1.0")
    assert office.read(desk) == {"1.1": (a_digest("b"), RELEASES), "1.2": (a_digest("d"), RELEASES)}


@pytest.mark.parametrize("intermediate", [False, True])
def test_the_client_pins_the_authority_of_a_root(office: Office, intermediate: bool) -> None:
    authority = RootAuthority(intermediate=intermediate)
    office.create(authority=authority).sign("1.0", a_digest("a"))
    for pinned, held in ((authority, True), (RootAuthority(), False)):
        desk = office.desk()
        name = f"pinned-{held}"
        certificate = office.directory / f"{name}.pem"
        certificate.write_text(pinned.certificate_pem)
        settings = {"trust_pinning": {"ca": {office.dtr.host: str(certificate)}, "disable_tofu": True}}
        settings_file = office.directory / f"{name}.json"
        settings_file.write_text(json.dumps(settings))
        if held:
            assert office.read(desk, f"--configFile={settings_file}") == {"1.0": (a_digest("a"), TARGETS)}
        else:
            with pytest.raises(ToolFailedError, match="trust_pinning"):
                office.read(desk, f"--configFile={settings_file}")


def test_the_client_says_that_there_is_no_trust_data(office: Office) -> None:
    with pytest.raises(ToolFailedError, match="does not have trust data"):
        office.read()


def test_the_client_refuses_a_root_that_no_old_one_vouches_for(office: Office) -> None:
    api = a_repository(office)
    desk = office.desk()
    office.read(desk)
    api.reinitialise()
    api.sign("9.0", a_digest("9"))
    assert office.read() == {"9.0": (a_digest("9"), TARGETS)}
    with pytest.raises(ToolFailedError, match="could not rotate trust to a new trusted root"):
        office.read(desk)


# Attacks


def _evil(content: dict[str, Any]) -> None:
    content["targets"]["1.0"]["hashes"]["sha256"] = base64.b64encode(b"\xee" * 32).decode()


def _as_snapshot(content: dict[str, Any]) -> None:
    content["_type"] = "Snapshot"


INVALID_ROOT = "could not validate the path to a trusted root"
CHECKSUM = "sha(256|512) checksum for {role} did not match"
NO_SIGNATURES = "tuf: data has no signatures"
THRESHOLD = "valid signatures did not meet threshold"

REFUSED: dict[str, tuple[Attack, str]] = {
    "swapped targets": (Swapped("other", (TARGETS,)), CHECKSUM.format(role=TARGETS)),
    "swapped timestamp": (Swapped("other", (TIMESTAMP,)), THRESHOLD),
    "swapped everything": (Swapped("other"), INVALID_ROOT),
    "old targets": (Replayed(0, (TARGETS,)), CHECKSUM.format(role=TARGETS)),
    "old snapshot": (Replayed(0, (SNAPSHOT,)), CHECKSUM.format(role=SNAPSHOT)),
    "withheld targets": (Withheld(TARGETS), "targets"),
    "truncated root": (Truncated(ROOT), "unexpected end of JSON"),
    "truncated targets": (Truncated(TARGETS), CHECKSUM.format(role=TARGETS)),
    "lengthened targets": (Lengthened(TARGETS), "trust server returned a bad response"),
    "stripped timestamp": (Stripped(TIMESTAMP), NO_SIGNATURES),
    "stripped root": (Stripped(ROOT), INVALID_ROOT),
    "stripped targets by the server": (Stripped(TARGETS, consistent=True), NO_SIGNATURES),
    "stripped delegation by the server": (Stripped("targets/ci", consistent=True), NO_SIGNATURES),
    "stranger": (SignedByStranger(TARGETS, consistent=True), THRESHOLD),
    "impersonated": (SignedByStranger(TARGETS, STRANGE_DIGEST, impersonating=True, consistent=True), THRESHOLD),
    "stranger's timestamp": (SignedByStranger(TIMESTAMP), THRESHOLD),
    "stranger's root": (SignedByStranger(ROOT), INVALID_ROOT),
    "altered on the way": (Altered(TARGETS, _evil), CHECKSUM.format(role=TARGETS)),
    "altered by the server": (Altered(TARGETS, _evil, consistent=True), THRESHOLD),
    "of another type": (Altered(TARGETS, _as_snapshot, signed=True, consistent=True), "expected type Targets"),
    "keys repeated, genuine first": (KeysRepeated(genuine_last=False), THRESHOLD),
    "expired root": (Expired(ROOT), "expired"),
    "expired targets": (Expired(TARGETS), "expired"),
    "expired timestamp": (Expired(TIMESTAMP), "expired"),
    "cyclic": (Cyclic(), "delegation role .* invalid"),
}

without_releases = {**HONEST, "1.1": (a_digest("b"), "targets/ci")}
without_pair = {tag: row for tag, row in HONEST.items() if tag != "2.0"}

ACCEPTED: dict[str, tuple[Attack, Listed]] = {
    # A delegation that does not hold is left out, with a warning: what it alone signs looks unsigned.
    "undersigned delegation": (Undersigned("targets/pair"), without_pair),
    "undersigned twice by one": (Undersigned("targets/pair", repeated=True), without_pair),
    "expired delegation": (Expired("targets/pair"), without_pair),
    "stranger's delegation": (SignedByStranger("targets/pair", STRANGE_DIGEST, consistent=True), without_pair),
    "expired releases": (Expired(RELEASES), without_releases),
    # So is one that the snapshot does not list.
    "not in the snapshot": (Unlisted("targets/pair"), without_pair),
    # Of a repeated key it takes the last.
    "keys repeated": (KeysRepeated(), HONEST),
    # It has no limits of its own: it verifies every one of them.
    "a hundred thousand signatures": (Crowded(signatures=100_000), HONEST),
    "ten thousand signatures of a known key": (Crowded(signatures=10_000, known_key=True), HONEST),
    # Whoever is new cannot know better: trust on first use.
    "everything old": (Replayed(1), {"1.0": (a_digest("a"), TARGETS)}),
    "taken over": (TakenOver(), {tag: (STRANGE_DIGEST, role) for tag, (_, role) in without_releases.items()}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_client_refuses(office: Office, name: str) -> None:
    attack, said = REFUSED[name]
    if isinstance(attack, Swapped):
        attack = Swapped(office.other_gun, attack.roles)
    a_repository(office)
    office.dtr.notary.create(office.other_gun).sign("1.0", STRANGE_DIGEST)
    office.attack(attack)
    with pytest.raises(ToolFailedError, match=said):
        office.read()
    office.dtr.faults = Faults()
    assert office.read() == HONEST


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_client_accepts(office: Office, name: str) -> None:
    attack, listed = ACCEPTED[name]
    a_repository(office)
    office.attack(attack)
    assert office.read() == listed


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (Replayed(1), "version 2 is lower than current version 7"),
        (Replayed(1, (TIMESTAMP,)), "version 2 is lower than current version 7"),
        (TakenOver(), "could not rotate trust to a new trusted root"),
        (TakenOver(ahead=3), "could not rotate trust to a new trusted root"),
    ],
)
def test_the_client_refuses_what_it_knows_better(office: Office, attack: Attack, said: str) -> None:
    a_repository(office)
    desk = office.desk()
    assert office.read(desk) == HONEST
    office.attack(attack)
    with pytest.raises(ToolFailedError, match=said):
        office.read(desk)


def test_the_client_reads_a_hundred_thousand_tags_and_a_hundred_levels(office: Office) -> None:
    a_repository(office)
    office.attack(Crowded(targets=100_000))
    assert len(office.read()) == 100_000 + len(HONEST)
    office.attack(Deep(100))
    assert len(office.read()) == 100 + len(HONEST)


def test_the_client_refuses_what_has_expired_meanwhile(office: Office) -> None:
    api = a_repository(office)
    desk = office.desk()
    assert office.read(desk) == HONEST
    api.set_expiry(TIMESTAMP, datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(ToolFailedError, match="expired"):
        office.read(desk)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(on_calls=(Status(500, TRUST),)),
        Faults(realm=Realm("http://{host}/auth/token", CHALLENGE)),
        Faults(realm=Realm("https://127.0.0.1:1/auth/token", CHALLENGE)),
    ],
)
def test_the_client_fails_without_an_answer_or_a_token(office: Office, faults: Faults) -> None:
    a_repository(office)
    office.dtr.faults = faults
    with pytest.raises(ToolFailedError):
        office.read()
