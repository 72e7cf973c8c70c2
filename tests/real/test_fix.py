"""The printed fix on a real registry and Notary: the owner and a signer run the very lines, each at a desk of their own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtr_audit_simulator.aws.stack import Stack
from tests.harness.audit_harness import Audited
from tests.harness.fix_blocks import blocks
from tests.real.lab.registry import RealRegistry
from tests.real.lab.signer_client import SignerClient, ToolFailedError

pytestmark = pytest.mark.real


class People:
    """The owner, who holds the repositories' keys, and signers, who hold their own bundle alone."""

    def __init__(self, registry: RealRegistry, directory: Path) -> None:
        self.registry = registry
        self._directory = directory
        self._desks: dict[str, SignerClient] = {}

    def fix(self, lines: list[str], signer: str) -> None:
        """Run the lines as those whom they name, each block twice."""
        owner, signers = blocks(lines)
        desk, bundle = self._desk(signer)
        certificate = self._directory / f"certificate-of-{signer}"
        certificate.mkdir(exist_ok=True)
        shutil.copy(bundle / "cert.pem", certificate)
        for _ in range(2):
            self.registry.signer_client.shell(owner, certificate, signer)
        for _ in range(2):
            desk.shell(signers, bundle, signer)

    def sign(self, lines: list[str], signer: str) -> str:
        """Run a signer's block alone."""
        desk, bundle = self._desk(signer)
        return desk.shell(blocks(lines)[-1], bundle, signer)

    def _desk(self, signer: str) -> tuple[SignerClient, Path]:
        if signer not in self._desks:
            self._desks[signer] = self.registry.visit(self._directory / signer)
        desk = self._desks[signer]
        certificate, _ = desk.make_bundle(signer)
        return desk, certificate.parent


@pytest.fixture(scope="module")
def own_registry(real_parts: None) -> Iterator[RealRegistry]:
    """A registry of these tests, each of which uses a namespace of its own."""
    with RealRegistry() as registry:
        yield registry


@pytest.fixture
def people(own_registry: RealRegistry, tmp_path: Path) -> People:
    return People(own_registry, tmp_path)


@pytest.fixture
def auditor(stack: Stack, own_registry: RealRegistry) -> Iterator[Audited]:
    audited = Audited(stack, own_registry.api)
    audited.environment |= {"DTR_URL": own_registry.url}
    audited.put_secret(username=own_registry.username, password=own_registry.password, ca_bundle=own_registry.ca_bundle)
    yield audited
    audited.close()


def audit(auditor: Audited, namespace: str, **environment: Any) -> tuple[dict[str, str | None], list[list[str]]]:
    """Give the verdicts of a namespace by tag, and the fixes that the messages print."""
    auditor.runs += 1
    event: dict[str, Any] = {**auditor.event(), "namespaces": [namespace]}
    run = auditor.audit(event, **environment)
    assert run["complete"] is True
    verdicts = {name.partition("/")[2]: verdict for name, verdict in auditor.verdicts(run["run_id"]).items()}
    return verdicts, [message.body["fix"] for message in auditor.messages() if message.body["fix"]]


@pytest.mark.parametrize("is_list", [False, True], ids=["image", "list of images"])
def test_the_lines_for_a_new_repository_run_twice_leave_it_signed(
    auditor: Audited, people: People, namespace: str, is_list: bool
) -> None:
    registry = people.registry
    push = registry.push_manifest_list if is_list else registry.push_image
    digest = push(namespace, "api", "1.0")
    verdicts, [lines] = audit(auditor, namespace)
    assert verdicts == {"api:1.0": "UNSIGNED"}
    people.fix(lines, "alice")
    assert audit(auditor, namespace) == ({"api:1.0": "SIGNED"}, [])
    by_signatures, _ = audit(auditor, namespace, TRUST_VERIFICATION="signatures", REQUIRED_SIGNERS="alice")
    assert by_signatures == {"api:1.0": "SIGNED"}
    manifest = registry.signer_client.skopeo("inspect", "--raw", f"docker://{registry.gun(namespace, 'api')}:1.0")
    assert digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    shown = registry.signer_client.notary("list", registry.gun(namespace, "api")).split()
    assert shown[-4:] == ["1.0", digest.removeprefix("sha256:"), str(len(manifest)), "targets/releases"]
    roles = {role.role: len(role.keys) for role in registry.list_delegations(namespace, "api")}
    assert roles == {"targets/releases": 1, "targets/alice": 1}


@pytest.mark.parametrize("before", [None, "carol"], ids=["by the repository's key", "by another signer"])
def test_the_lines_for_a_mismatched_tag_run_twice_leave_it_signed(
    auditor: Audited, people: People, namespace: str, before: str | None
) -> None:
    registry = people.registry
    registry.push_image(namespace, "api", "1.0")
    registry.sign(namespace, "api", "1.0", signer=before)
    registry.push_image(namespace, "api", "1.0")
    verdicts, [lines] = audit(auditor, namespace)
    assert verdicts == {"api:1.0": "MISMATCHED"}
    people.fix(lines, "alice")
    assert audit(auditor, namespace) == ({"api:1.0": "SIGNED"}, [])


def test_the_lines_for_a_tag_without_a_required_signer_run_twice_leave_it_signed(
    auditor: Audited, people: People, namespace: str
) -> None:
    registry = people.registry
    registry.push_image(namespace, "api", "1.0")
    registry.sign(namespace, "api", "1.0", signer="carol")
    required = {"TRUST_VERIFICATION": "signatures", "REQUIRED_SIGNERS": "ci"}
    verdicts, [lines] = audit(auditor, namespace, **required)
    assert verdicts == {"api:1.0": "UNTRUSTED"}
    assert "# Who must sign: ci." in lines
    people.fix(lines, "ci")
    assert audit(auditor, namespace, **required) == ({"api:1.0": "SIGNED"}, [])


def test_a_signer_who_comes_before_the_owner_fails_and_signs_afterwards(
    auditor: Audited, people: People, namespace: str
) -> None:
    people.registry.push_image(namespace, "api", "1.0")
    _, [lines] = audit(auditor, namespace)
    with pytest.raises(ToolFailedError, match="does not have trust data"):
        people.sign(lines, "alice")
    assert audit(auditor, namespace)[0] == {"api:1.0": "UNSIGNED"}
    people.fix(lines, "alice")
    assert audit(auditor, namespace)[0] == {"api:1.0": "SIGNED"}


def test_a_tag_that_was_pushed_over_since_the_audit_is_not_signed(
    auditor: Audited, people: People, namespace: str
) -> None:
    people.registry.push_image(namespace, "api", "1.0")
    _, [lines] = audit(auditor, namespace)
    people.fix(lines, "alice")
    people.registry.push_image(namespace, "api", "1.0")
    with pytest.raises(ToolFailedError, match="did NOT match"):
        people.sign(lines, "alice")
    assert audit(auditor, namespace)[0] == {"api:1.0": "MISMATCHED"}
