"""Tags that are named like signatures: judged as images, unless their content shows that they are none."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dtr_audit.registry import session
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.fault_kinds import EVERY_CALL, Body, Calls, Closed, EndlessBody, Redirect, Status, tags_of
from dtr_audit_simulator.dtr.faults import LOGIN_PAGE, MANIFESTS, TOKEN, Faults
from dtr_audit_simulator.dtr.manifests import (
    ATTESTATION,
    BUNDLE,
    COSIGN_SIGNATURE,
    FILESYSTEM,
    Manifest,
    image_of,
    index_of,
    manifest_of,
)
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.notary.notary import Notary
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import StepFunctionsRun

ANSWERS = Path(__file__).with_name("answers")
APP = "team/app"
DIGEST_TAG = "sha256-" + "ab" * 32
NAMES = (
    "1.0.sig",
    "1.0.att",
    "1.0.sbom",
    "other.sig",
    DIGEST_TAG,
    f"{DIGEST_TAG}.sig",
    f"{DIGEST_TAG}.att",
    f"{DIGEST_TAG}.sbom",
)
SIGNATURE = manifest_of("a signature", COSIGN_SIGNATURE)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as often as in production, but not as long."""
    monkeypatch.setattr(session, "ROTATION_SECONDS", 0.01)


@pytest.fixture
def registry() -> InMemoryRegistry:
    registry = InMemoryRegistry()
    registry.push("team", "app", "1.0")
    registry.sign("team", "app", "1.0")
    return registry


def audit(audited: Audited, engine: str) -> dict[str, Any]:
    if engine == "one":
        return audited.audit()
    step_functions_run = StepFunctionsRun(audited)
    return step_functions_run.record(step_functions_run.execute()["run_id"])


def answer(name: str) -> Any:
    return json.loads((ANSWERS / name).read_text(encoding="utf-8"))


def reason(audited: Audited, run: dict[str, Any], tag: str) -> str:
    (found,) = (row["reason"] for row in audited.rows(run["run_id"]) if row["tag"] == tag)
    return str(found)


@pytest.mark.parametrize("engine", ["one", "fanned"])
def test_an_unsigned_image_under_a_name_of_a_signature_is_a_finding(
    audited: Audited, registry: InMemoryRegistry, engine: str
) -> None:
    for name in NAMES:
        registry.push("team", "app", name)
    run = audit(audited, engine)
    assert run["complete"] is True
    assert run["status"] == "OPEN"
    verdicts = audited.verdicts(run["run_id"])
    assert verdicts == {f"{APP}:1.0": "SIGNED"} | {f"{APP}:{name}": "UNSIGNED" for name in NAMES}
    assert audited.findings().keys() == {f"{APP}:{name}" for name in NAMES}
    assert "a layer that is no signature" in reason(audited, run, "1.0.sig")


@pytest.mark.parametrize("engine", ["one", "fanned"])
def test_artifacts_are_set_apart_by_their_layers(audited: Audited, registry: InMemoryRegistry, engine: str) -> None:
    manifests = (SIGNATURE, manifest_of("of two", COSIGN_SIGNATURE, COSIGN_SIGNATURE), manifest_of("att", ATTESTATION))
    for name, manifest in zip(NAMES, (*manifests, manifest_of("b", BUNDLE), *manifests, SIGNATURE), strict=True):
        registry.push("team", "app", name, manifest=manifest)
    run = audit(audited, engine)
    assert run["status"] == "NOT_A_FINDING"
    assert run["tags"]["artifacts"] == len(NAMES)
    assert run["tags"]["signed"] == run["tags"]["audited"] == 1
    assert audited.findings() == {}


def test_an_answer_with_images_named_like_signatures_makes_each_a_finding(audited: Audited, dtr: DtrServer) -> None:
    tags = answer("tags-images-named-like-signatures.json")
    # In the form of DTR 2.1, which needs no headers; of these manifests the registry has none.
    dtr.faults = Faults(on_calls=(Body(json.dumps({"tags": tags}).encode(), tags_of(APP)),))
    run = audited.audit()
    assert run["status"] == "OPEN"
    first, *others = (tag["name"] for tag in tags)
    assert audited.verdicts(run["run_id"]) == {f"{APP}:{first}": "SIGNED"} | {f"{APP}:{o}": "UNSIGNED" for o in others}


def test_an_image_signed_with_cosign_alone_is_a_finding_that_says_so_and_its_signature_is_none(
    audited: Audited, dtr: DtrServer
) -> None:
    image, signature = answer("tags-signed-with-cosign-alone.json")
    manifest = (ANSWERS / "manifest-of-a-cosign-signature.json").read_bytes()
    signature["digest"] = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    listed = json.dumps({"tags": [image, signature]}).encode()
    dtr.faults = Faults(on_calls=(Body(listed, tags_of(APP)), Body(manifest, MANIFESTS)))
    run = audited.audit()
    assert run["status"] == "OPEN"
    assert audited.verdicts(run["run_id"]) == {f"{APP}:1.0": "UNSIGNED", f"{APP}:{signature['name']}": None}
    assert "Cosign" in audited.findings()[f"{APP}:1.0"]["reason"]
    assert [call.path for call in dtr.calls(MANIFESTS.path)] == [f"/v2/{APP}/manifests/{signature['digest']}"]


@pytest.mark.parametrize("engine", ["one", "fanned"])
def test_a_finding_under_a_name_of_a_signature_stays_open_when_its_image_is_pushed(
    audited: Audited, registry: InMemoryRegistry, engine: str
) -> None:
    registry.push("team", "app", "miner.sig")
    assert audit(audited, engine)["findings"]["open"] == 1
    audited.messages()
    registry.push("team", "app", "miner")
    registry.sign("team", "app", "miner")
    run = audit(audited, engine)
    assert run["findings"] == {"open": 1, "opened": 0, "resolved": 0, "excepted": 0}
    assert audited.findings()[f"{APP}:miner.sig"]["state"] == "OPEN"
    assert audited.messages() == []


def test_a_finding_is_resolved_once_its_tag_holds_a_signature(audited: Audited, registry: InMemoryRegistry) -> None:
    registry.push("team", "app", "1.0.sig")
    audited.audit()
    registry.push("team", "app", "1.0.sig", manifest=SIGNATURE)
    run = audited.audit()
    assert run["findings"]["resolved"] == 1
    assert audited.findings()[f"{APP}:1.0.sig"]["resolution"] == "a signature artifact, not an image"


FAULTS = {
    "an error": Faults(on_calls=(Status(500, MANIFESTS),)),
    "unavailable": Faults(on_calls=(Status(503, MANIFESTS),)),
    "not found": Faults(on_calls=(Status(404, MANIFESTS),)),
    "no access": Faults(on_calls=(Status(401, MANIFESTS),)),
    "forbidden": Faults(on_calls=(Status(403, MANIFESTS),)),
    "another's manifest": Faults(on_calls=(Body(manifest_of("another", COSIGN_SIGNATURE).body, MANIFESTS),)),
    "a manifest padded past the limit": Faults(on_calls=(Body(SIGNATURE.body + b" " * 300_000, MANIFESTS),)),
    "a body without end": Faults(on_calls=(EndlessBody(MANIFESTS),)),
    "a login page": Faults(on_calls=(Body(LOGIN_PAGE, MANIFESTS),)),
    "a redirect": Faults(on_calls=(Redirect("https://elsewhere.example/", MANIFESTS),)),
    "a broken connection": Faults(on_calls=(Closed(MANIFESTS),)),
    "an expired licence": Faults(licence_expired=EVERY_CALL),
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_signature_that_cannot_be_read_is_judged_as_an_image(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, faults: Faults
) -> None:
    registry.push("team", "app", "1.0.sig", manifest=SIGNATURE)
    dtr.faults = faults
    run = audited.audit()
    assert run["complete"] is True
    assert run["status"] == "OPEN"
    assert audited.verdicts(run["run_id"])[f"{APP}:1.0.sig"] == "UNSIGNED"
    assert "judged as an image: its manifest could not be read" in reason(audited, run, "1.0.sig")
    assert not [call for call in dtr.requests if call.host != dtr.host]


def test_an_image_is_no_signature_though_the_registry_gives_a_signatures_manifest(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0.sig")
    dtr.faults = Faults(on_calls=(Body(SIGNATURE.body, MANIFESTS),))
    run = audited.audit()
    assert audited.verdicts(run["run_id"])[f"{APP}:1.0.sig"] == "UNSIGNED"
    assert "not what the digest names" in reason(audited, run, "1.0.sig")


@pytest.mark.parametrize(
    ("listed", "verdict"),
    [
        ((manifest_of("a bundle", BUNDLE), manifest_of("another", BUNDLE)), None),
        ((manifest_of("a bundle", BUNDLE), image_of("an image")), "UNSIGNED"),
        ((manifest_of("a bundle", BUNDLE, FILESYSTEM),), "UNSIGNED"),
        ((index_of([manifest_of("a bundle", BUNDLE)]),), "UNSIGNED"),
        ((), "UNSIGNED"),
    ],
    ids=["artifacts alone", "an image too", "a filesystem layer", "an index", "nothing"],
)
def test_an_index_under_a_fallback_tag_is_an_artifact_if_all_that_it_lists_is(
    audited: Audited, registry: InMemoryRegistry, listed: tuple[Manifest, ...], verdict: str | None
) -> None:
    registry.push("team", "app", DIGEST_TAG, manifest=index_of(listed))
    for manifest in (*listed, manifest_of("a bundle", BUNDLE)):
        registry.keep("team", "app", manifest)
    run = audited.audit()
    assert audited.verdicts(run["run_id"])[f"{APP}:{DIGEST_TAG}"] == verdict


def test_only_a_tag_named_like_a_signature_costs_a_request(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    for number in range(5):
        registry.push("team", "app", f"2.{number}")
        registry.push("other", "app", f"2.{number}", manifest=SIGNATURE)
    audited.audit()
    assert dtr.calls(MANIFESTS.path) == ()
    assert len(dtr.calls("/auth/token")) == 2, "of the login, and of the changefeed: no tag is signed"
    dtr.forget_requests()
    registry.push("team", "app", "1.0.sig", manifest=SIGNATURE)
    registry.push("team", "app", "1.1.sig")
    audited.audit()
    assert len(dtr.calls(MANIFESTS.path)) == 2
    # The last one is for the changefeed, since no tag is signed; a reader of the other repository may be the first to need it.
    scopes = [call.query.get("scope", [""])[0] for call in dtr.calls("/auth/token")]
    assert sorted(scopes) == ["", "registry:catalog:*", f"repository:{APP}:pull"]


TOKENS = {
    "tokens forgotten in between": Faults(tokens_revoked=MANIFESTS.limited(after=1, times=1)),
    "only Basic for the API": Faults(basic_only=EVERY_CALL),
    "no token with a service for the API": Faults(tokens_without_service_only=EVERY_CALL),
    "a moment's fault": Faults(on_calls=(Status(503, MANIFESTS.limited(times=3)),)),
    "a moment's fault of the token server": Faults(on_calls=(Status(503, TOKEN.limited(after=1, times=2)),)),
}


@pytest.mark.parametrize("faults", TOKENS.values(), ids=TOKENS)
def test_a_manifest_is_read_in_spite_of_what_can_be_survived(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, faults: Faults
) -> None:
    for number in range(3):
        registry.push("team", "app", f"1.{number}.sig", manifest=manifest_of(str(number), COSIGN_SIGNATURE))
    dtr.faults = faults
    run = audited.audit()
    assert run["incomplete_because"] == []
    assert run["tags"]["artifacts"] == 3
    assert run["status"] == "NOT_A_FINDING"


def test_without_a_token_server_a_manifest_is_asked_for_with_basic(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0.sig", manifest=SIGNATURE)
    dtr.faults = Faults(on_calls=(Status(404, TOKEN, shape="html"), Body(SIGNATURE.body, MANIFESTS)))
    assert audited.audit()["tags"]["artifacts"] == 1
    assert [call.authentication for call in dtr.calls(MANIFESTS.path)] == ["basic"]


def test_a_rotation_before_a_manifest_is_read_is_survived(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("team", "app", "1.0.sig", manifest=SIGNATURE)

    def rotate(_: object) -> None:
        audited.put_secret(username=dtr.admin.name, password="the new one")
        dtr.accounts.rotate_password(dtr.admin.name, "the new one")

    dtr.on_request(rotate, f"/api/v0/repositories/{APP}/tags")
    run = audited.audit()
    assert run["status"] == "NOT_A_FINDING"
    assert run["tags"]["artifacts"] == 1


@pytest.mark.parametrize("fault", [Status(503, MANIFESTS), Closed(MANIFESTS)], ids=["unavailable", "broken"])
def test_an_outage_of_manifests_alone_takes_little_time_of_the_run(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry, fault: Status | Closed
) -> None:
    for number in range(40):
        registry.push("team", f"s{number:02d}", "1.0.sig", manifest=SIGNATURE)
    dtr.faults = Faults(on_calls=(fault,))
    run = audited.audit(CONCURRENCY="1")
    assert run["complete"] is True
    assert run["tags"]["unsigned"] == 40
    # Five attempts for the first ten, and for those that other threads ask for meanwhile.
    # Once for each in each of three passes, and some of the first more often.
    assert len(dtr.calls(MANIFESTS.path)) < 3 * 40 + 4 * 15


def test_credentials_that_are_refused_for_manifests_are_not_tried_for_each_repository(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    for number in range(12):
        registry.push("team", f"s{number:02d}", "1.0.sig", manifest=SIGNATURE)
    dtr.faults = Faults(on_calls=(Status(401, Calls("/auth/token", after=1)),))
    run = audited.audit(CONCURRENCY="1")
    assert run["complete"] is True
    assert run["tags"]["unsigned"] == 12
    assert len(dtr.calls("/auth/token")) <= 4, "an account's lock is a few tries away"


def test_an_unsigned_image_under_a_name_of_a_signature_is_a_finding_where_signatures_are_verified(stack: Stack) -> None:
    notary = Notary()
    registry = InMemoryRegistry(notary=notary)
    with DtrServer(registry) as dtr:
        audited = Audited(stack, dtr)
        audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
        pushed = registry.push("team", "app", "1.0", cosign_signed=True)
        registry.push("team", "app", "1.0.sig")
        registry.push("team", "app", f"{pushed.digest.replace(':', '-')}.sig", manifest=SIGNATURE)
        run = audited.audit(TRUST_VERIFICATION="signatures", DTR_DOMAINS=dtr.host)
        audited.close()
    assert run["status"] == "OPEN"
    assert (run["tags"]["unsigned"], run["tags"]["artifacts"]) == (2, 1)
    assert "a layer that is no signature" in reason(audited, run, "1.0.sig")
    assert "Cosign" in reason(audited, run, "1.0")
