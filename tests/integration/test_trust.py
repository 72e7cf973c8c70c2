"""The audit that verifies signatures itself: the function, the tables, the bucket, and a Notary that really signs."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from dtr_audit.trust.notary.pins import KEY as PINS_KEY
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.fault_kinds import TRUST, Forged, Realm, Status, trust_file
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.notary import Notary, RootAuthority, TrustRepository
from dtr_audit_simulator.notary.attacks import (
    Altered,
    Attack,
    Crowded,
    Expired,
    KeysRepeated,
    Lengthened,
    SignedByStranger,
    Stripped,
    TakenOver,
    Truncated,
    Undersigned,
    Unlisted,
    Withheld,
)
from dtr_audit_simulator.notary.keys import make_key
from tests.harness.audit_harness import Audited

IMAGE = "pay/api:1.0"


class Signed:
    """A registry of one repository, with the trust data of its Notary beside it."""

    def __init__(self, registry: InMemoryRegistry, dtr: DtrServer) -> None:
        self.registry = registry
        self.dtr = dtr
        self.api = self.create("pay", "api")

    def create(self, namespace: str, name: str) -> TrustRepository:
        """Make trust data for a repository: a signer ci."""
        trust = self.dtr.notary.create(f"{self.dtr.host}/{namespace}/{name}")
        trust.add_signer("ci")
        return trust

    def sign(self, tag: str = "1.0", *, namespace: str = "pay", name: str = "api", **how: Any) -> str:
        """Push a tag and sign it, in the registry's flags and in the trust data; gives its digest."""
        self.registry.push(namespace, name, tag)
        self.registry.sign(namespace, name, tag)
        digest = self.digest(tag, namespace, name)
        trust = self.dtr.notary.find(f"{self.dtr.host}/{namespace}/{name}")
        assert trust is not None
        trust.sign(tag, digest, **(how or {"signer": "ci"}))
        return digest

    def digest(self, tag: str, namespace: str = "pay", name: str = "api") -> str:
        (entry,) = (one for one in self.registry.tags(namespace, name, self.dtr.host) if one.name == tag)
        return entry.digest


@pytest.fixture
def signed(registry: InMemoryRegistry, dtr: DtrServer) -> Signed:
    return Signed(registry, dtr)


def row(audited: Audited, run: dict[str, Any], tag: str = "1.0") -> dict[str, Any]:
    (found,) = (one for one in audited.rows(run["run_id"]) if one["tag"] == tag)
    return found


def verify(audited: Audited, **environment: Any) -> dict[str, Any]:
    return audited.audit(TRUST_VERIFICATION="signatures", **environment)


def verified(audited: Audited, **environment: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    run = verify(audited, **environment)
    return run, row(audited, run)


def test_a_tag_that_a_signer_has_signed_is_signed_and_its_row_says_by_whom_and_until_when(
    audited: Audited, signed: Signed
) -> None:
    signed.sign()
    run, found = verified(audited)
    assert (run["status"], run["complete"]) == ("NOT_A_FINDING", True)
    assert (found["verdict"], found["signers"], found["signed_domain"]) == ("SIGNED", ["ci"], signed.dtr.host)
    assert datetime.fromisoformat(found["trust_expires"]) > datetime.now(UTC) + timedelta(days=365)
    assert run["trust"] == {
        "required_signers": [], "all_signers": False, "repository_key_suffices": False, "pinned": False,
        "verified": 1, "without": 0, "failing": 0, "unreadable": 0, "first_use": 1, "reused": 0, "expiring": 0,
        "first_expiring": [],
    }  # fmt: skip


def test_without_verification_the_registrys_word_is_taken_and_the_notary_is_not_asked(
    audited: Audited, signed: Signed
) -> None:
    signed.sign()
    signed.dtr.faults = Faults(on_calls=(Status(500, TRUST),))
    run = audited.audit()
    assert (run["status"], run["trust"]) == ("NOT_A_FINDING", None)
    assert row(audited, run)["signers"] == []


def test_an_unchanged_repository_costs_one_request_of_trust_data(audited: Audited, signed: Signed) -> None:
    signed.sign()
    verified(audited)
    signed.dtr.forget_requests()
    run, found = verified(audited)
    assert found["verdict"] == "SIGNED"
    assert run["trust"]["first_use"] == 0
    asked = [one.path for one in signed.dtr.requests if "/_trust/" in one.path and one.status == 200]
    assert [path.rpartition("/")[2] for path in asked] == ["timestamp.json"]


def test_a_tag_signed_by_the_repositorys_own_key_counts_only_where_that_suffices(
    audited: Audited, signed: Signed
) -> None:
    signed.sign(roles=["targets"])
    run, found = verified(audited)
    assert (run["status"], found["verdict"]) == ("OPEN", "UNTRUSTED")
    assert "Repo Admin" in found["reason"]
    assert verified(audited, REPOSITORY_KEY_SUFFICES="true")[1]["verdict"] == "SIGNED"


def test_a_tag_that_no_required_signer_has_signed_is_untrusted_and_says_who_did(
    audited: Audited, signed: Signed
) -> None:
    signed.api.add_signer("release")
    signed.sign()
    run, found = verified(audited, REQUIRED_SIGNERS="release,targets/qa")
    assert run["tags"]["untrusted"] == 1
    assert found["verdict"] == "UNTRUSTED"
    assert "signed by ci" in found["reason"]
    assert "targets/release or targets/qa" in found["reason"]
    assert verified(audited, REQUIRED_SIGNERS="release,ci")[1]["verdict"] == "SIGNED"
    assert verified(audited, REQUIRED_SIGNERS="release,ci", SIGNERS_NEEDED="all")[1]["verdict"] == "UNTRUSTED"
    signed.api.sign("1.0", signed.digest("1.0"), signer="release")
    assert verified(audited, REQUIRED_SIGNERS="release,ci", SIGNERS_NEEDED="all")[1]["verdict"] == "SIGNED"


def test_the_registry_and_the_trust_data_must_agree_both_ways(audited: Audited, signed: Signed) -> None:
    signed.sign()
    signed.registry.push("pay", "api", "claimed")
    signed.registry.sign("pay", "api", "claimed")
    signed.registry.push("pay", "api", "denied")
    signed.api.sign("denied", signed.digest("denied"), signer="ci")
    run, found = verified(audited)
    assert found["verdict"] == "SIGNED"
    claimed, denied = row(audited, run, "claimed"), row(audited, run, "denied")
    assert (claimed["verdict"], denied["verdict"]) == ("UNTRUSTED", "UNTRUSTED")
    assert "The registry says otherwise: that it is signed" in claimed["reason"]
    assert "the registry contradicts the trust data" in denied["reason"]


def test_a_digest_that_differs_from_the_signed_one_is_untrusted(audited: Audited, signed: Signed) -> None:
    signed.sign()
    signed.api.sign("1.0", "sha256:" + 64 * "0", signer="ci")
    _, found = verified(audited)
    assert found["verdict"] == "UNTRUSTED"
    assert found["reason"].startswith("digest differs")


def _forge(content: dict[str, Any]) -> None:
    content["targets"]["1.0"]["hashes"]["sha256"] = base64.b64encode(bytes(32)).decode()


# What somebody on the way, or the registry itself, may do to the trust data; and who would notice it.
ATTACKS: dict[str, Attack] = {
    "withheld": Withheld("snapshot"),
    "truncated": Truncated("targets/releases"),
    "lengthened": Lengthened("snapshot"),
    "stripped": Stripped("root"),
    "undersigned": Undersigned("targets/releases"),
    "by a stranger": SignedByStranger("targets/releases", consistent=True),
    "altered": Altered("targets/releases", _forge, consistent=True),
    "keys repeated": KeysRepeated(),
    "unlisted": Unlisted("targets/releases"),
    "expired": Expired("targets"),
    "crowded": Crowded(targets=100_000),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("known", [False, True], ids=["at first sight", "known"])
def test_no_attack_on_trust_data_ends_in_signed(audited: Audited, signed: Signed, name: str, known: bool) -> None:
    signed.create("web", "shop")
    signed.sign(namespace="web", name="shop")
    signed.sign()
    if known:
        assert {one["verdict"] for one in audited.rows(verify(audited)["run_id"])} == {"SIGNED"}
        # What is remembered need not be read again, so that nobody can tamper with it: everything is published anew.
        signed.api.rotate("root")
        signed.sign()
    signed.dtr.faults = Faults(forged=(Forged(ATTACKS[name], gun=f"{signed.dtr.host}/pay/api"),))
    run = verify(audited)
    (found,) = (one for one in audited.rows(run["run_id"]) if one["namespace"] == "pay")
    assert found["verdict"] in {"UNTRUSTED", "UNKNOWN", "UNSIGNED"}
    assert found["reason"]
    assert run["status"] != "NOT_A_FINDING"
    assert run["complete"] is (found["verdict"] != "UNKNOWN")
    (other,) = (one for one in audited.rows(run["run_id"]) if one["namespace"] == "web")
    assert other["verdict"] == "SIGNED", "one repository's trouble is its own"


@pytest.mark.parametrize(
    "faults",
    [
        Faults(on_calls=(Status(500, TRUST),)),
        Faults(on_calls=(Status(404, trust_file("snapshot")),)),
        Faults(realm=Realm("http://{host}/auth/token", TRUST)),
        Faults(realm=Realm("https://elsewhere.example/auth/token", TRUST)),
    ],
    ids=["500", "404", "realm without TLS", "realm elsewhere"],
)
def test_trust_data_that_could_not_be_read_is_unknown_and_the_run_says_why(
    audited: Audited, signed: Signed, faults: Faults
) -> None:
    signed.sign()
    signed.dtr.faults = faults
    run, found = verified(audited)
    assert (run["status"], run["complete"], found["verdict"]) == ("NOT_REVIEWED", False, "UNKNOWN")
    assert run["trust"]["unreadable"] == 1
    assert f"the first of them {IMAGE}" in run["incomplete_because"][0]
    assert audited.findings() == {}


def test_root_remembered_by_an_earlier_version_is_still_known(audited: Audited, signed: Signed) -> None:
    signed.sign()
    verified(audited)
    table = boto3.resource("dynamodb").Table(audited.stack.outputs["FindingsTableName"])
    (item,) = (one for one in audited.items("FindingsTableName") if one["pk"].startswith(f"{audited.name}#"))
    kept = json.loads(item["trust"])
    assert kept.pop("signed")
    table.put_item(Item={**item, "trust": json.dumps(kept)})
    signed.dtr.forget_requests()

    run, found = verified(audited)

    assert (found["verdict"], run["trust"]["first_use"]) == ("SIGNED", 0)
    assert len([one for one in signed.dtr.requests if "/_trust/" in one.path and one.status == 200]) == 1
    (item,) = (one for one in audited.items("FindingsTableName") if one["pk"].startswith(f"{audited.name}#"))
    assert "signed" in json.loads(item["trust"])


def test_trust_data_that_costs_too_much_is_unknown_and_the_next_run_does_not_verify_it_again(
    audited: Audited, signed: Signed
) -> None:
    signed.sign()
    crowd = [f"targets/crowd-{number}" for number in range(20)]
    with signed.api.batch():
        for role in crowd:
            signed.api.add_delegation(role, make_key())
            signed.api.sign("1.0", signed.digest("1.0"), roles=[role])
    signed.dtr.faults = Faults(forged=tuple(Forged(Crowded(role, signatures=120, known_key=True)) for role in crowd))
    reasons = set()
    for asked in (24, 2):
        signed.dtr.forget_requests()
        run, found = verified(audited)
        reasons.add(found["reason"])
        assert (run["status"], run["complete"], found["verdict"]) == ("NOT_REVIEWED", False, "UNKNOWN")
        files = [one.path for one in signed.dtr.requests if "/_trust/" in one.path and one.status == 200]
        assert len(files) <= asked
    (reason,) = reasons
    assert "costs more than is done for one repository" in reason
    signed.dtr.faults = Faults()
    run, found = verified(audited)
    assert (run["status"], found["verdict"], run["trust"]["first_use"]) == ("NOT_A_FINDING", "SIGNED", 1)


def test_a_root_that_changes_is_a_finding_until_it_is_pinned(audited: Audited, signed: Signed) -> None:
    signed.sign()
    verified(audited)
    signed.api.reinitialise()
    signed.api.add_signer("ci")
    signed.api.sign("1.0", signed.digest("1.0"), signer="ci")
    for _ in range(2):
        run, found = verified(audited)
        assert (run["status"], found["verdict"]) == ("OPEN", "UNTRUSTED")
        assert "root changed" in found["reason"]
    (key,) = (key.id for key in signed.api.keys("root"))
    pin(audited, {"pattern": f"{signed.dtr.host}/pay/*", "root_keys": [key]})
    run, found = verified(audited, PIN_TRUST="true")
    assert (run["status"], found["verdict"]) == ("NOT_A_FINDING", "SIGNED")
    assert run["findings"]["resolved"] == 1


@pytest.fixture(autouse=True)
def _no_pins_left(audited: Audited) -> Iterator[None]:
    yield
    audited.stack.s3.delete_object(Bucket=audited.stack.outputs["BucketName"], Key=PINS_KEY)


def pin(audited: Audited, *pins: dict[str, Any]) -> None:
    bucket = audited.stack.outputs["BucketName"]
    audited.stack.s3.put_object(Bucket=bucket, Key=PINS_KEY, Body=json.dumps({"pins": pins}).encode())


def test_a_root_that_is_not_the_pinned_one_is_untrusted_at_first_sight(audited: Audited, signed: Signed) -> None:
    signed.sign()
    pin(audited, {"pattern": f"{signed.dtr.host}/*", "root_keys": [64 * "0"]})
    _, found = verified(audited, PIN_TRUST="true")
    assert found["verdict"] == "UNTRUSTED"
    assert "root" in found["reason"]


@pytest.mark.parametrize("document", [None, b'{"pins": [{}]}', b"no JSON"], ids=["missing", "broken", "no JSON"])
def test_without_the_pins_that_are_asked_for_nothing_is_read_and_nothing_passes(
    audited: Audited, signed: Signed, document: bytes | None
) -> None:
    signed.sign()
    if document is not None:
        audited.stack.s3.put_object(Bucket=audited.stack.outputs["BucketName"], Key=PINS_KEY, Body=document)
    run = verify(audited, PIN_TRUST="true")
    assert (run["status"], run["complete"]) == ("NOT_REVIEWED", False)
    assert PINS_KEY in run["incomplete_because"][0]
    assert audited.rows(run["run_id"]) == []


def test_trust_data_that_is_about_to_expire_is_warned_of_once(audited: Audited, signed: Signed) -> None:
    signed.sign()
    signed.api.set_expiry("targets/ci", datetime.now(UTC) + timedelta(days=9))
    run, found = verified(audited)
    assert found["verdict"] == "SIGNED"
    assert run["trust"]["expiring"] == 1
    assert run["trust"]["first_expiring"][0]["role"] == "targets/ci"
    assert any("pay/api (targets/ci" in warning for warning in run["warnings"])
    (message,) = audited.messages()
    assert message.attributes["event"] == "trust_expiring"
    assert verified(audited)[0]["trust"]["expiring"] == 1
    assert audited.messages() == []
    assert verified(audited, TRUST_WARNING_DAYS="5")[0]["trust"]["expiring"] == 0


def test_a_teams_message_names_no_repository_of_another_whose_trust_data_expires(
    audited: Audited, signed: Signed
) -> None:
    signed.sign()
    signed.api.set_expiry("targets/ci", datetime.now(UTC) + timedelta(days=9))
    signed.registry.push("web", "shop", "1.0")
    verify(audited, ALERT_GROUPING="namespace")
    reported = {message.attributes["event"]: message.text for message in audited.messages()}
    assert "pay/api" in reported["trust_expiring"]
    assert "pay/api" not in reported["findings_changed"]


def test_signed_under_one_of_several_domains_is_signed(audited: Audited, signed: Signed) -> None:
    signed.sign()
    _, found = verified(audited, DTR_DOMAINS=f"other.example,{signed.dtr.host}")
    assert (found["verdict"], found["signed_domain"]) == ("SIGNED", signed.dtr.host)


def test_where_everything_looks_unsigned_the_changefeed_names_the_host_that_would_do(
    audited: Audited, signed: Signed
) -> None:
    signed.sign()
    for mode in ("signatures", "registry"):
        run = audited.audit(TRUST_VERIFICATION=mode, DTR_DOMAINS="wrong.example")
        assert run["tags"]["unsigned"] == 1
        assert any(f"set DTR_DOMAINS to {signed.dtr.host}" in warning for warning in run["warnings"])


def test_a_takeover_is_seen_by_one_who_has_seen_the_root_before(audited: Audited, signed: Signed) -> None:
    signed.sign()
    verified(audited)
    signed.dtr.faults = Faults(forged=(Forged(TakenOver()),))
    run, found = verified(audited)
    assert found["verdict"] == "UNTRUSTED"
    assert run["status"] == "OPEN"


def test_an_authority_may_be_pinned_in_place_of_keys(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    authority = RootAuthority()
    trust = dtr.notary.create(f"{dtr.host}/pay/api", authority=authority)
    trust.add_signer("ci")
    registry.push("pay", "api", "1.0")
    registry.sign("pay", "api", "1.0")
    (entry,) = registry.tags("pay", "api", dtr.host)
    trust.sign("1.0", entry.digest, signer="ci")
    pin(audited, {"pattern": f"{dtr.host}/*", "authorities": authority.certificate_pem})
    assert verified(audited, PIN_TRUST="true")[1]["verdict"] == "SIGNED"
    pin(audited, {"pattern": f"{dtr.host}/*", "authorities": RootAuthority().certificate_pem})
    assert verified(audited, PIN_TRUST="true")[1]["verdict"] == "UNTRUSTED"


def test_the_evidence_says_whether_the_signatures_were_verified_and_what_was_required(
    audited: Audited, signed: Signed
) -> None:
    signed.sign()
    for run, said in (
        (
            verify(audited, REQUIRED_SIGNERS="ci,release"),
            "Signed by ci or release; roots trusted: those that were seen",
        ),
        (audited.audit(TRUST_VERIFICATION="registry"), "The signatures themselves were not verified."),
    ):
        details = json.loads(audited.read(run["evidence"]["cklb"]))["stigs"][0]["rules"][0]["finding_details"]
        assert said in details
        page = audited.read(run["evidence"]["report"]).decode()
        assert ("Signed by ci or release" in page) is ("verified" in (run["trust"] or {}))


def test_a_root_that_changed_cannot_begin_again_under_another_domain(audited: Audited, signed: Signed) -> None:
    digest = signed.sign()
    domains = f"{signed.dtr.host},second.example"
    verified(audited, DTR_DOMAINS=domains)
    signed.api.reinitialise()
    other = signed.dtr.notary.create("second.example/pay/api")
    other.add_signer("ci")
    other.sign("1.0", digest, signer="ci")
    run, found = verified(audited, DTR_DOMAINS=domains)
    assert (run["status"], found["verdict"]) == ("OPEN", "UNTRUSTED")


@pytest.mark.parametrize("mode", ["registry", "signatures"])
def test_dtr_host_that_the_settings_do_not_name_is_reported_and_not_used(
    audited: Audited, registry: InMemoryRegistry, mode: str
) -> None:
    registry.push("pay", "api", "1.0")
    with DtrServer(registry, profile=Profile(dtr_host="evil.example")) as server:
        audited.put_secret(username=server.admin.name, password=server.admin.password, ca_bundle=server.ca_bundle)
        run = audited.audit(TRUST_VERIFICATION=mode, DTR_URL=server.url)
        host = server.host
        asked = {one.query.get("domain", [""])[0] for one in server.requests if one.path.endswith("/tags")}
    assert (run["status"], run["domains"], asked) == ("OPEN", [host], {host})
    assert any("evil.example (dtrHost), which is neither" in warning for warning in run["warnings"])
    (mail,) = audited.mails()
    commands = [line for line in mail.text.splitlines() if line.startswith("    ")]
    assert any(f"GUN={host}/pay/api" in line for line in commands)
    said = [line for line in mail.text.splitlines() if "evil.example" in line]
    assert said == [line for line in said if "the registry calls itself" in line]
    report = audited.read(run["evidence"]["report"]).decode()
    assert f"GUN={host}/pay/api" in report
    assert "GUN=evil.example" not in report


@pytest.mark.parametrize("is_pinned", [True, False], ids=["pinned", "pinned to another"])
def test_root_under_the_registrys_own_spelling_of_its_host_is_held_against_the_pins(
    audited: Audited, is_pinned: bool
) -> None:
    notary = Notary()
    registry = InMemoryRegistry(notary=notary)
    settings: dict[str, str] = {}
    with DtrServer(registry, profile=Profile(settings=settings)) as server:
        spelling = server.host.replace("localhost", "LocalHost")
        settings["dtrHost"] = spelling
        trust = notary.create(f"{spelling}/pay/api")
        trust.add_signer("ci")
        registry.push("pay", "api", "1.0")
        (entry,) = registry.tags("pay", "api", spelling)
        trust.sign("1.0", entry.digest, signer="ci")
        audited.put_secret(username=server.admin.name, password=server.admin.password, ca_bundle=server.ca_bundle)
        (key,) = (key.id for key in trust.keys("root"))
        pin(audited, {"pattern": f"{server.host}/*", "root_keys": [key if is_pinned else 64 * "0"]})
        run = verify(audited, DTR_URL=server.url, PIN_TRUST="true")
    found = row(audited, run)
    assert run["domains"] == [spelling]
    assert run["trust"]["first_use"] == 0
    assert found["verdict"] == ("SIGNED" if is_pinned else "UNTRUSTED")


def test_an_unsigned_tag_is_a_finding_though_trust_data_could_not_be_read(audited: Audited, signed: Signed) -> None:
    signed.registry.push("pay", "api", "1.0")
    signed.dtr.faults = Faults(on_calls=(Status(500, TRUST),))
    run, found = verified(audited)
    assert (run["status"], found["verdict"]) == ("OPEN", "UNSIGNED")


def test_a_realm_with_too_many_fields_costs_no_run(audited: Audited, signed: Signed) -> None:
    signed.registry.push("pay", "api", "1.0")
    fields = "&".join(f"f{number}=1" for number in range(40))
    signed.dtr.faults = Faults(realm=Realm(f"https://{{host}}/auth/token?{fields}"))
    for mode in ("registry", "signatures"):
        run = audited.audit(TRUST_VERIFICATION=mode)
        assert (run["status"], run["tags"]["unsigned"]) == ("OPEN", 1)


def test_a_partial_run_does_not_have_it_reported_again_that_trust_data_expires(
    audited: Audited, signed: Signed
) -> None:
    signed.sign()
    signed.api.set_expiry("targets/ci", datetime.now(UTC) + timedelta(days=9))
    signed.registry.push("web", "shop", "1.0")
    verify(audited)
    audited.messages()
    audited.audit({"namespaces": ["web"]}, TRUST_VERIFICATION="signatures")
    verify(audited)
    assert audited.messages() == []


def test_a_root_that_no_pin_covers_is_warned_of_where_roots_are_pinned(audited: Audited, signed: Signed) -> None:
    signed.sign()
    pin(audited, {"pattern": f"{signed.dtr.host}/other/*", "root_keys": [64 * "0"]})
    run, found = verified(audited, PIN_TRUST="true")
    assert found["verdict"] == "SIGNED"
    assert any("covered by no pin" in warning for warning in run["warnings"])
