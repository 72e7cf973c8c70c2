"""The rule's own story on a real registry and Notary: unsigned, signed as the Fix Text says, overwritten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.manifests import ATTESTATION, BUNDLE, COSIGN_SIGNATURE, FILESYSTEM
from tests.harness.audit_harness import Audited
from tests.real.lab.registry import RealRegistry

pytestmark = pytest.mark.real


@pytest.fixture
def own_registry(real_parts: None) -> Iterator[RealRegistry]:
    """A registry with nothing in it but the story."""
    with RealRegistry() as registry:
        yield registry


@pytest.fixture
def story(stack: Stack, own_registry: RealRegistry) -> Iterator[Audited]:
    audited = Audited(stack, own_registry.api)
    audited.environment["DTR_URL"] = own_registry.url
    stack.put_secret(
        {
            "username": own_registry.username,
            "password": own_registry.password,
            "ca_bundle": own_registry.ca_bundle,
        }
    )
    yield audited
    audited.close()


def test_signatures_on_a_real_registry_are_reported_from_images_by_their_layers(
    story: Audited, own_registry: RealRegistry
) -> None:
    registry = own_registry
    digest_tag = registry.push_image("payments", "api", "1.0").replace(":", "-")
    registry.sign("payments", "api", "1.0")
    registry.push_image("payments", "api", "1.0.sig")
    registry.push_manifest_list("payments", "api", "1.0.att")
    registry.push_artifact("payments", "api", f"{digest_tag}.sig", (COSIGN_SIGNATURE, b'{"critical": {}}'))
    registry.push_artifact("payments", "api", f"{digest_tag}.att", (ATTESTATION, b"{}"), (FILESYSTEM, b"no filesystem"))
    registry.push_artifact_index("payments", "api", digest_tag, (BUNDLE, b"one"), (BUNDLE, b"two"))
    run = story.audit()
    assert (run["status"], run["complete"]) == ("OPEN", True)
    verdicts = {
        "1.0": "SIGNED",
        "1.0.sig": "UNSIGNED",
        "1.0.att": "UNSIGNED",
        f"{digest_tag}.sig": None,
        f"{digest_tag}.att": "UNSIGNED",
        digest_tag: None,
    }
    assert story.verdicts(run["run_id"]) == {f"payments/api:{tag}": verdict for tag, verdict in verdicts.items()}


def test_unsigned_then_signed_as_the_fix_text_says_then_overwritten(
    story: Audited, own_registry: RealRegistry, docker_trust: None
) -> None:
    registry = own_registry
    unsigned = registry.push_image("payments", "api", "1.0")
    run = story.audit()
    assert (run["status"], run["complete"]) == ("OPEN", True)
    assert story.verdicts(run["run_id"]) == {"payments/api:1.0": "UNSIGNED"}
    (message,) = story.messages()
    (opened,) = message.body["opened"]
    assert (opened["repository"], opened["tag"], opened["digest"]) == ("payments/api", "1.0", unsigned)
    assert opened["pushed_at"]
    assert (
        f"GUN={registry.host}/payments/api TAG=1.0 DIGEST={unsigned.removeprefix('sha256:')} &&" in message.body["fix"]
    )

    # The Fix Text: `docker trust signer add --key`, `docker trust key load`, and the push under content trust.
    registry.add_docker_signer("payments", "api", "alice")
    registry.sign("payments", "api", "1.0", signer="alice")
    run = story.audit()
    assert (run["status"], run["complete"]) == ("NOT_A_FINDING", True)
    (row,) = story.rows(run["run_id"])
    assert (row["digest"], row["signed_domain"]) == (unsigned, registry.host)
    (message,) = story.messages()
    assert [item["resolution"] for item in message.body["resolved"]] == ["signed"]

    overwritten = registry.push_image("payments", "api", "1.0")
    assert overwritten != unsigned
    run = story.audit()
    assert (run["status"], run["complete"]) == ("OPEN", True)
    assert story.verdicts(run["run_id"]) == {"payments/api:1.0": "MISMATCHED"}
    (message,) = story.messages()
    assert [(item["verdict"], item["digest"]) for item in message.body["opened"]] == [("MISMATCHED", overwritten)]


def test_a_real_registry_is_read_over_many_pages_with_many_kinds_of_tags(
    story: Audited, own_registry: RealRegistry
) -> None:
    registry = own_registry
    truth: dict[str, str | None] = {}
    for number in range(12):
        name = f"svc-{number:02d}"
        registry.push_image("web", name, "1")
        truth[f"web/{name}:1"] = "UNSIGNED"
    for tag in range(11):
        registry.push_image("web", "svc-00", f"2.{tag}")
        truth[f"web/svc-00:2.{tag}"] = "UNSIGNED"
    registry.push_manifest_list("web", "multi", "1")
    registry.sign("web", "multi", "1")
    truth["web/multi:1"] = "SIGNED"
    registry.sign("web", "svc-01", "1")
    truth["web/svc-01:1"] = "SIGNED"
    run = story.audit(PAGE_SIZE="10")
    assert run["complete"] is True
    assert story.verdicts(run["run_id"]) == truth


def test_a_real_notary_that_is_down_is_never_clean_and_resolves_nothing(
    story: Audited, own_registry: RealRegistry
) -> None:
    registry = own_registry
    registry.push_image("web", "shop", "1")
    registry.push_image("web", "till", "1")
    registry.sign("web", "till", "1")
    assert story.audit()["findings"]["open"] == 1
    registry.stop_notary()
    run = story.audit()
    assert (run["status"], run["complete"]) == ("OPEN", False)
    assert run["findings"] == {"open": 1, "opened": 0, "resolved": 0, "excepted": 0}
