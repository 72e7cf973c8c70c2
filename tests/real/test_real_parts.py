"""The registry of real parts answers as a DTR does, and its answers agree with the vendor's own tools."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests

from dtr_audit_simulator.dtr.accounts import Account, account_id
from tests.harness.command import PYTHON_PATH
from tests.real.lab.images import write_image
from tests.real.lab.parts import DOCKER_REGISTRY, Part, executable_path, missing_parts
from tests.real.lab.registry import RealRegistry
from tests.real.lab.services import Service, ServiceFailedError
from tests.real.lab.signer_client import SignedTarget, SignerClient, ToolFailedError
from tests.real.lab.trust import TrustReader

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
UNSIGNED = (False, False)
SIGNED = (True, False)
OVERWRITTEN = (True, True)


class Reader:
    """Reads the API as its users do, page by page; kept apart from the auditor's own client on purpose."""

    def __init__(self, registry: RealRegistry) -> None:
        self._url = registry.url
        self._host = registry.host
        self.pages = 0
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(registry.ca_file)
        self.session.auth = (registry.username, registry.password)

    def get(self, path: str, **parameters: str) -> requests.Response:
        return self.session.get(f"{self._url}{path}", params=parameters, timeout=None, allow_redirects=False)

    def repositories(self, namespace: str, *, page_size: int = 100) -> list[str]:
        rows = self._rows("/api/v0/repositories", "repositories", page_size)
        return [f"{row['namespace']}/{row['name']}" for row in rows if row["namespace"].startswith(namespace)]

    def tags(
        self, namespace: str, name: str, *, domain: str | None = None, page_size: int = 100
    ) -> dict[str, dict[str, Any]]:
        domain = self._host if domain is None else domain
        path = f"/api/v0/repositories/{namespace}/{name}/tags"
        rows = list(self._rows(path, None, page_size, domain=domain))
        tags = {row["name"]: row for row in rows}
        assert len(tags) == len(rows), "a tag is listed twice"
        return tags

    def flags(self, namespace: str, name: str, tag: str, *, domain: str | None = None) -> tuple[bool, bool]:
        row = self.tags(namespace, name, domain=domain)[tag]
        return row["inNotary"], row["hashMismatch"]

    def _rows(self, path: str, key: str | None, page_size: int, **parameters: str) -> Iterator[dict[str, Any]]:
        cursor = ""
        while True:
            paging = {"pageSize": str(page_size)} | ({"pageStart": cursor} if cursor else {})
            answer = self.get(path, **parameters, **paging)
            answer.raise_for_status()
            self.pages += 1
            body = answer.json()
            yield from body[key] if key else body
            cursor = answer.headers.get("X-Next-Page-Start", "")
            if not cursor:
                return


@pytest.fixture
def reader(real_registry: RealRegistry) -> Iterator[Reader]:
    reader = Reader(real_registry)
    with reader.session:
        yield reader


def test_an_unsigned_push_is_not_in_notary(real_registry: RealRegistry, reader: Reader, namespace: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    digest = real_registry.push_image(namespace, "api", "1.0")

    tag = reader.tags(namespace, "api")["1.0"]

    assert (tag["inNotary"], tag["hashMismatch"]) == UNSIGNED
    assert tag["digest"] == digest
    assert tag["author"] == account_id(real_registry.username)
    assert before < datetime.fromisoformat(tag["updatedAt"]) < datetime.now(UTC)


def test_a_tag_signed_by_notary_is_in_notary_without_mismatch(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    digest = real_registry.push_image(namespace, "api", "1.0")
    real_registry.push_image(namespace, "api", "unsigned")

    real_registry.sign(namespace, "api", "1.0")

    assert reader.flags(namespace, "api", "1.0") == SIGNED
    assert reader.flags(namespace, "api", "unsigned") == UNSIGNED
    assert real_registry.list_signed(namespace, "api") == [SignedTarget("1.0", digest, "targets")]


def test_an_unsigned_push_over_a_signed_tag_is_a_mismatch_until_it_is_signed_again(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    signed = real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")
    first = reader.tags(namespace, "api")["1.0"]

    overwritten = real_registry.push_image(namespace, "api", "1.0")
    second = reader.tags(namespace, "api")["1.0"]

    assert overwritten != signed
    assert (second["inNotary"], second["hashMismatch"]) == OVERWRITTEN
    assert second["digest"] == overwritten
    assert second["createdAt"] == first["createdAt"]
    assert second["updatedAt"] > first["updatedAt"]

    real_registry.sign(namespace, "api", "1.0")
    assert reader.flags(namespace, "api", "1.0") == SIGNED


def test_pushing_the_signed_image_again_is_no_mismatch(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", "1.0", content="the release")
    real_registry.sign(namespace, "api", "1.0")

    real_registry.push_image(namespace, "api", "1.0", content="the release")

    assert reader.flags(namespace, "api", "1.0") == SIGNED


def test_a_signature_under_another_domain_counts_under_that_domain_alone(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", "1.0")

    real_registry.sign(namespace, "api", "1.0", domain="registry.example.com")

    assert reader.flags(namespace, "api", "1.0") == UNSIGNED
    assert reader.flags(namespace, "api", "1.0", domain="") == UNSIGNED
    assert reader.flags(namespace, "api", "1.0", domain="registry.example.com:443") == UNSIGNED
    assert reader.flags(namespace, "api", "1.0", domain="registry.example.com") == SIGNED


def test_a_revoked_signature_counts_no_more(real_registry: RealRegistry, reader: Reader, namespace: str) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")
    assert reader.flags(namespace, "api", "1.0") == SIGNED

    real_registry.revoke(namespace, "api", "1.0")

    assert reader.flags(namespace, "api", "1.0") == UNSIGNED


def test_a_manifest_list_is_one_tag_signed_by_the_digest_of_the_list(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    digest = real_registry.push_manifest_list(namespace, "multi", "2.0", architectures=("amd64", "arm64", "s390x"))
    real_registry.sign(namespace, "multi", "2.0")

    tags = reader.tags(namespace, "multi")

    assert list(tags) == ["2.0"]
    assert tags["2.0"]["digest"] == digest
    assert reader.flags(namespace, "multi", "2.0") == SIGNED
    assert real_registry.list_signed(namespace, "multi") == [SignedTarget("2.0", digest, "targets")]


def test_a_tag_signed_by_a_delegated_signer_is_signed(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    digest = real_registry.push_image(namespace, "api", "1.0")

    real_registry.sign(namespace, "api", "1.0", signer="alice")

    assert reader.flags(namespace, "api", "1.0") == SIGNED
    [target] = real_registry.list_signed(namespace, "api")
    assert (target.tag, target.digest) == ("1.0", digest)


def test_a_release_stands_before_the_top_level_role(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0", signer="alice")
    real_registry.push_image(namespace, "api", "1.0")

    real_registry.sign(namespace, "api", "1.0")
    assert reader.flags(namespace, "api", "1.0") == OVERWRITTEN

    real_registry.sign(namespace, "api", "1.0", signer="alice")
    assert reader.flags(namespace, "api", "1.0") == SIGNED


def test_what_a_removed_delegation_signed_counts_no_more(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0", signer="alice")
    gun = f"{real_registry.host}/{namespace}/api"

    real_registry.signer_client.notary("delegation", "remove", "--publish", "--yes", gun, "targets/releases")

    assert reader.flags(namespace, "api", "1.0") == UNSIGNED


def test_what_a_replaced_key_signed_counts_no_more(
    real_registry: RealRegistry, reader: Reader, namespace: str, docker_trust: None
) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0", signer="alice")
    [alice] = real_registry.inspect_trust(namespace, "api")["Signers"]
    [key] = [key["ID"] for key in alice["Keys"]]
    certificate, _ = real_registry.signer_client.make_bundle("frank")
    releases = (f"{real_registry.host}/{namespace}/api", "targets/releases")

    real_registry.signer_client.notary("delegation", "add", "--publish", "--all-paths", *releases, str(certificate))
    assert reader.flags(namespace, "api", "1.0") == SIGNED
    real_registry.signer_client.notary("delegation", "remove", "--publish", "--yes", *releases, key)

    assert reader.flags(namespace, "api", "1.0") == UNSIGNED
    assert real_registry.inspect_trust(namespace, "api")["SignedTags"] == []


def test_what_a_signer_alone_lists_is_not_released(
    real_registry: RealRegistry, reader: Reader, namespace: str, docker_trust: None
) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.push_image(namespace, "api", "2.0", content="not released")
    real_registry.sign(namespace, "api", "1.0", signer="alice")
    digest = real_registry.push_image(namespace, "api", "3.0", content="not released").removeprefix("sha256:")
    gun = f"{real_registry.host}/{namespace}/api"

    real_registry.signer_client.notary(
        "addhash", "--publish", "--roles=targets/alice", f"--sha256={digest}", gun, "2.0", "500"
    )

    assert reader.flags(namespace, "api", "2.0") == UNSIGNED
    inspected = real_registry.inspect_trust(namespace, "api")
    assert [row["SignedTag"] for row in inspected["SignedTags"]] == ["1.0"]


def test_trust_data_past_its_expiry_signs_nothing(real_registry: RealRegistry, reader: Reader, namespace: str) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")
    gun = f"{real_registry.host}/{namespace}/api"

    reader.session.auth = None

    def after(years: int) -> TrustReader:
        return TrustReader(
            real_registry.url,
            reader.session,
            real_registry.authorize,
            lambda: datetime.now(UTC) + timedelta(days=365 * years),
        )

    assert list(after(0).signed_tags(gun)) == ["1.0"]
    assert after(4).signed_tags(gun) == {}


def test_docker_signs_as_the_fix_text_says(
    real_registry: RealRegistry, reader: Reader, namespace: str, docker_trust: None
) -> None:
    digest = real_registry.push_image(namespace, "api", "1.0")
    real_registry.add_docker_signer(namespace, "api", "bob")
    assert reader.flags(namespace, "api", "1.0") == UNSIGNED

    real_registry.sign(namespace, "api", "1.0", signer="bob")

    assert reader.flags(namespace, "api", "1.0") == SIGNED
    inspected = real_registry.inspect_trust(namespace, "api")
    assert inspected["SignedTags"] == [
        {"SignedTag": "1.0", "Digest": digest.removeprefix("sha256:"), "Signers": ["bob"]}
    ]


def test_docker_countersigns_with_a_key_of_its_own(
    real_registry: RealRegistry, reader: Reader, namespace: str, docker_trust: None
) -> None:
    digest = real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")
    real_registry.add_docker_signer(namespace, "api", "carol", generated=True)

    real_registry.docker_sign(namespace, "api", "1.0")

    assert reader.flags(namespace, "api", "1.0") == SIGNED
    inspected = real_registry.inspect_trust(namespace, "api")
    assert inspected["SignedTags"] == [
        {"SignedTag": "1.0", "Digest": digest.removeprefix("sha256:"), "Signers": ["carol"]}
    ]
    # Docker's client wrote delegations: an overwrite that only the top-level role signs is none that is released.
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")
    assert reader.flags(namespace, "api", "1.0") == OVERWRITTEN


def test_a_signer_can_serve_several_repositories(
    real_registry: RealRegistry, reader: Reader, namespace: str, docker_trust: None
) -> None:
    for name in ("first", "second"):
        real_registry.push_image(namespace, name, "1.0")
        real_registry.sign(namespace, name, "1.0", signer="erin")
    for name in ("third", "fourth"):
        real_registry.push_image(namespace, name, "1.0")
        real_registry.add_docker_signer(namespace, name, "erin")
        real_registry.sign(namespace, name, "1.0", signer="erin")

    for name in ("first", "second", "third", "fourth"):
        assert reader.flags(namespace, name, "1.0") == SIGNED


def test_the_api_agrees_with_the_vendors_tools_on_what_is_signed(
    real_registry: RealRegistry, reader: Reader, namespace: str, docker_trust: None
) -> None:
    for tag in ("signed", "signed-by-dave", "overwritten", "unsigned"):
        real_registry.push_image(namespace, "api", tag)
    real_registry.sign(namespace, "api", "signed")
    real_registry.sign(namespace, "api", "signed-by-dave", signer="dave")
    real_registry.sign(namespace, "api", "overwritten")
    real_registry.push_image(namespace, "api", "overwritten")

    tags = reader.tags(namespace, "api")
    listed = {target.tag: target.digest for target in real_registry.list_signed(namespace, "api")}
    inspected = {
        row["SignedTag"]: f"sha256:{row['Digest']}"
        for row in real_registry.inspect_trust(namespace, "api")["SignedTags"]
    }

    assert listed == inspected
    assert {name for name, tag in tags.items() if tag["inNotary"]} == set(listed)
    matching = {name for name, digest in listed.items() if tags[name]["digest"] == digest}
    assert {name for name, tag in tags.items() if tag["inNotary"] and not tag["hashMismatch"]} == matching
    assert matching == {"signed", "signed-by-dave"}


def test_every_page_of_repositories_and_tags_can_be_read(
    real_registry: RealRegistry, reader: Reader, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The registry's own list, behind the API's, has pages too.
    monkeypatch.setattr("tests.real.lab.backend.CATALOG_PAGE_SIZE", 2)
    names = [f"app-{number}" for number in range(5)]
    for name in names:
        real_registry.push_image(namespace, name, "latest")
    tags = [f"v{number}" for number in range(11)]
    for tag in tags:
        real_registry.push_image(namespace, "many", tag)
    real_registry.sign(namespace, "many", "v7")

    listed = reader.repositories(namespace, page_size=3)
    assert listed == [f"{namespace}/{name}" for name in [*names, "many"]]
    assert reader.pages > 1

    reader.pages = 0
    rows = reader.tags(namespace, "many", page_size=4)
    assert sorted(rows) == sorted(tags)
    assert reader.pages == 3
    assert [name for name, row in rows.items() if row["inNotary"]] == ["v7"]


def test_only_names_of_a_namespace_and_a_repository_are_listed(
    real_registry: RealRegistry, reader: Reader, namespace: str, tmp_path: Path
) -> None:
    write_image(tmp_path / "image", "of an odd name")
    for path in (f"{namespace}", f"{namespace}/deep/down", f"{namespace}/api"):
        real_registry.signer_client.skopeo(
            "copy",
            f"dir:{tmp_path / 'image'}",
            f"docker://{real_registry.host}/{path}:latest",
            certificates="--dest-cert-dir",
        )

    assert reader.repositories(namespace) == [f"{namespace}/api"]


def test_a_repository_whose_tags_were_deleted_is_listed_empty(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.push_image(namespace, "api", "2.0")

    real_registry.delete_tag(namespace, "api", "1.0")
    assert list(reader.tags(namespace, "api")) == ["2.0"]

    real_registry.delete_tag(namespace, "api", "2.0")
    assert reader.tags(namespace, "api") == {}
    assert reader.repositories(namespace) == [f"{namespace}/api"]


def test_a_signature_outlives_its_tag(real_registry: RealRegistry, reader: Reader, namespace: str) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")
    real_registry.delete_tag(namespace, "api", "1.0")

    real_registry.push_image(namespace, "api", "1.0")

    assert reader.flags(namespace, "api", "1.0") == OVERWRITTEN


@pytest.mark.parametrize("name", ["missing", "NotAName", "%2e%2e"])
def test_a_repository_that_does_not_exist_is_not_found(
    real_registry: RealRegistry, reader: Reader, namespace: str, name: str
) -> None:
    answer = reader.get(f"/api/v0/repositories/{namespace}/{name}/tags", domain=real_registry.host)

    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.json()["errors"][0]["code"] == "NO_SUCH_REPOSITORY"


def test_the_registry_asks_one_who_is_not_logged_in_for_a_token(
    real_registry: RealRegistry, reader: Reader, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    reader.session.auth = None
    anonymous = reader.get("/auth/token").json()["token"]
    challenge = f'Bearer realm="{real_registry.url}/auth/token",service="{real_registry.host}"'

    for path in ("/v2/", f"/v2/{namespace}/api/tags/list"):
        answer = reader.get(path)
        assert (answer.status_code, answer.headers["Www-Authenticate"]) == (HTTPStatus.UNAUTHORIZED, challenge)

    reader.session.headers["Authorization"] = f"Bearer {anonymous}"
    assert reader.get(f"/v2/{namespace}/api/tags/list").status_code == HTTPStatus.UNAUTHORIZED
    reader.session.headers.clear()
    reader.session.auth = (real_registry.username, real_registry.password)
    token = reader.get("/auth/token").json()["token"]
    reader.session.auth = None
    reader.session.headers["Authorization"] = f"Bearer {token}"
    assert reader.get(f"/v2/{namespace}/api/tags/list").json()["tags"] == ["1.0"]


def test_only_an_admin_pushes(real_registry: RealRegistry, namespace: str, tmp_path: Path) -> None:
    write_image(tmp_path / "image", "of somebody else")
    real_registry.api.accounts.add(Account("mallory", "mallorys-password"))

    for number, password in enumerate(("mallorys-password", "a-wrong-password")):
        signer_client = SignerClient(
            tmp_path / f"workstation-{number}",
            host=real_registry.host,
            ca_bundle=real_registry.ca_bundle,
            username="mallory",
            password=password,
        )
        with pytest.raises(ToolFailedError) as failure:
            signer_client.skopeo(
                "copy",
                f"dir:{tmp_path / 'image'}",
                f"docker://{real_registry.host}/{namespace}/api:1.0",
                certificates="--dest-cert-dir",
            )
        assert "skopeo" in str(failure.value)
        assert "ended with status" in str(failure.value)


def test_a_tool_that_fails_shows_its_command_and_output_but_no_secret(
    real_registry: RealRegistry, namespace: str
) -> None:
    with pytest.raises(ToolFailedError) as failure:
        real_registry.signer_client.notary("list", f"{namespace}/{real_registry.password}")

    message = str(failure.value)
    assert f"list '{namespace}/***'" in message or f"list {namespace}/***" in message
    assert "fatal" in message
    assert real_registry.password not in message


def test_a_notary_that_is_down_is_an_error_and_not_an_unsigned_tag(real_parts: None) -> None:
    with RealRegistry() as registry:
        registry.push_image("team", "api", "1.0")
        registry.sign("team", "api", "1.0")
        reader = Reader(registry)
        with reader.session:
            assert reader.flags("team", "api", "1.0") == SIGNED

            registry.stop_notary()

            answer = reader.get("/api/v0/repositories/team/api/tags", domain=registry.host)
            assert answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
            with pytest.raises(ToolFailedError, match="did not reach the Notary"):
                registry.list_signed("team", "api")


def test_nothing_is_left_after_the_registry_is_closed(real_parts: None) -> None:
    with RealRegistry() as registry:
        directory = registry.ca_file.parent
        assert len(_processes_in(directory)) == 4

    assert _processes_in(directory) == []
    assert not directory.exists()


def test_no_server_outlives_a_killed_parent(real_parts: None) -> None:
    program = (
        "import sys; from tests.real.lab.registry import RealRegistry\n"
        "with RealRegistry() as registry: print(registry.ca_file.parent, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(  # noqa: S603 - a program of this test's own
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PYTHON_PATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        directory = Path(parent.stdout.readline().strip())
        assert len(_processes_in(directory)) == 4
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    try:
        # They are no children of this process: nothing tells of their end.
        while _processes_in(directory):
            time.sleep(0.01)
    finally:
        shutil.rmtree(directory)


def test_a_server_that_does_not_start_shows_its_log(real_parts: None, tmp_path: Path) -> None:
    (tmp_path / "broken.yml").write_text("version: 0.1\nstorage: {nowhere: {}}\n")
    service = Service("docker-registry", [executable_path(DOCKER_REGISTRY), "serve", "broken.yml"], tmp_path)
    try:
        with pytest.raises(ServiceFailedError, match=r"(?s)docker-registry ended with status .*nowhere"):
            service.wait_for_port()
    finally:
        service.stop()


def test_missing_parts_are_named_with_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\necho "docker: $1 is all it can do"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    able = Part("docker", "docker.io", probe=("trust",), expected="docker: trust")
    unable = Part("docker", "podman-docker", probe=("build",), expected="docker: trust")
    absent = Part("no-such-program", "no-such-package")

    assert missing_parts([able, unable, absent]) == [
        "docker (Debian package podman-docker)",
        "no-such-program (Debian package no-such-package)",
    ]


def test_equal_content_makes_equal_images(tmp_path: Path) -> None:
    first, second = write_image(tmp_path / "a", "same"), write_image(tmp_path / "b", "same")

    assert first == second != write_image(tmp_path / "c", "other")
    manifest = (tmp_path / "a" / "manifest.json").read_bytes()
    assert first == f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def _processes_in(directory: Path) -> list[int]:
    """Find the processes that work in a directory or below it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                where = (entry / "cwd").readlink()
            except OSError:
                continue
            if where.is_relative_to(directory):
                found.append(int(entry.name))
    return found
