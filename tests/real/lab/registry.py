"""A DTR of real parts: docker-registry, the Notary and nginx, with DTR's API in front, and verbs to use it.

    with RealRegistry() as registry:
        registry.push_image("payments", "api", "1.0")  # by skopeo; inNotary false
        registry.sign("payments", "api", "1.0")        # by notary; inNotary true, hashMismatch false
        registry.push_image("payments", "api", "1.0")  # another image; inNotary true, hashMismatch true

        registry.url, registry.ca_bundle, registry.username, registry.password  # what an auditor needs

Every part listens on 127.0.0.1 at a port that the kernel chose, keeps its files in one temporary directory and is gone
after the `with` block. `tests.real.lab.parts` names what has to be installed. The verbs use the vendor's own tools, and
raise ToolFailedError when one of them fails, with its command line and output.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from dtr_audit_simulator.dtr.accounts import EXPIRES_IN, Account, Accounts, account_id
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.authority import CertificateAuthority
from tests.real.lab.backend import RealBackend
from tests.real.lab.front import reserve_port, start_front
from tests.real.lab.images import write_artifact, write_artifact_index, write_image, write_manifest_list
from tests.real.lab.notary import start_server, start_signer
from tests.real.lab.parts import DOCKER_REGISTRY, executable_path
from tests.real.lab.services import POLL_SECONDS, START_SECONDS, Service, ServiceFailedError
from tests.real.lab.signer_client import Delegation, SignedTarget, SignerClient
from tests.real.lab.tampering import TrustDesk
from tests.real.lab.tokens import REALM_PATH, SignedTokens, TokenServer
from tests.real.lab.trust import RELEASES, TOP_LEVEL

ADMIN = "admin"


class RealRegistry:
    """A running registry, its one account, an admin, and the workstation at which that admin works.

    Start it in a thread that lives as long as the registry is needed (see `tests.real.lab.services.Service`).
    `ca_file` holds `ca_bundle`. `api` is the API's own server, for its log of requests and its faults.
    """

    api: DtrServer
    authority: CertificateAuthority
    host: str
    ca_bundle: str
    ca_file: Path
    signer_client: SignerClient
    desk: TrustDesk

    def __init__(self) -> None:
        self.username = ADMIN
        self.password = secrets.token_urlsafe(18)
        self._resources = ExitStack()
        self._pushes = 0
        self._signed_guns: set[str] = set()
        self._signers: set[tuple[str, str]] = set()

    @property
    def url(self) -> str:
        """Where the registry, its Notary and its API are reached."""
        return f"https://{self.host}"

    def __enter__(self) -> Self:
        with ExitStack() as started:
            self._start(started)
            self._resources = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    # Images

    def push_image(self, namespace: str, name: str, tag: str, *, content: str | None = None) -> str:
        """Push an image, unsigned, over whatever the tag held, and give its digest.

        Equal `content` makes the same image; without it each push is a new one.
        """
        image = self._next_image()
        write_image(image, content if content is not None else image.name)
        return self._push(image, namespace, name, tag)

    def push_manifest_list(
        self, namespace: str, name: str, tag: str, *, architectures: Sequence[str] = ("amd64", "arm64")
    ) -> str:
        """Push a new image for several architectures, unsigned, and give the digest of its manifest list."""
        image = self._next_image()
        write_manifest_list(image, image.name, architectures)
        return self._push(image, namespace, name, tag)

    def push_artifact(self, namespace: str, name: str, tag: str, *payloads: tuple[str, bytes]) -> str:
        """Push what Cosign keeps as a tag, with a layer of each media type and content, and give its digest."""
        artifact = self._next_image()
        write_artifact(artifact, *payloads)
        return self._push(artifact, namespace, name, tag)

    def push_artifact_index(self, namespace: str, name: str, tag: str, *payloads: tuple[str, bytes]) -> str:
        """Push an index of artifacts, one for each media type and content, and give its digest."""
        index = self._next_image()
        write_artifact_index(index, *payloads)
        return self._push(index, namespace, name, tag)

    def delete_tag(self, namespace: str, name: str, tag: str) -> None:
        """Delete a tag, and with it every tag of the repository that holds the same image; trust data stays."""
        self.signer_client.skopeo("delete", f"docker://{self.gun(namespace, name)}:{tag}")

    # Signatures, by Notary's own client

    def sign(
        self, namespace: str, name: str, tag: str, *, signer: str | None = None, domain: str | None = None
    ) -> None:
        """Sign what the tag holds now, in the top-level role or else as a `signer`.

        A signer gets keys and a delegation when first named, and signs in `targets/releases` and `targets/<signer>`:
        what `docker push` does with content trust. What a signer has released stands before the top-level role, so
        such a tag must be signed by a signer again after an overwrite. Under another `domain` than the registry's
        host the signature lies in the same Notary, but belongs to another name.
        """
        gun = self.gun(namespace, name, domain)
        self._prepare(gun)
        roles = [TOP_LEVEL]
        if signer is not None:
            self._delegate(gun, signer)
            roles = [RELEASES, f"{TOP_LEVEL}/{signer}"]
        self._list(gun, roles, tag, self._read_manifest(namespace, name, tag))

    def revoke(self, namespace: str, name: str, tag: str) -> None:
        """Take the tag's signature out of the top-level role."""
        self.signer_client.notary("remove", "--publish", self.gun(namespace, name), tag)

    def list_signed(self, namespace: str, name: str) -> list[SignedTarget]:
        """Give what `notary list` prints; raises ToolFailedError without any trust data."""
        return self.signer_client.list_signed(self.gun(namespace, name))

    def list_in(self, namespace: str, name: str, tag: str, *roles: str) -> None:
        """List what the tag holds now in just these roles, by the keys of theirs that are here."""
        self._list(self.gun(namespace, name), roles, tag, self._read_manifest(namespace, name, tag))

    def delegate(self, namespace: str, name: str, role: str, user: str, *, paths: Sequence[str] = ()) -> None:
        """Let a user's key sign in a role, for the tags that begin with one of `paths`, or all."""
        self._add_key(self.gun(namespace, name), role, user, paths)

    def list_delegations(self, namespace: str, name: str) -> list[Delegation]:
        """Give what `notary delegation list` prints."""
        return self.signer_client.list_delegations(self.gun(namespace, name))

    def remove_delegation(self, namespace: str, name: str, role: str, *keys: str) -> None:
        """Take keys out of a delegation, or the whole delegation away."""
        gun = self.gun(namespace, name)
        self.signer_client.notary("delegation", "remove", "--publish", "--yes", gun, role, *keys)
        if not keys:
            self._signers.discard((gun, role.removeprefix(f"{TOP_LEVEL}/")))

    def rotate_key(self, namespace: str, name: str, role: str, *, by_server: bool = False) -> None:
        """Replace the key of a top-level role by a new one, which the server makes and holds, or the workstation."""
        managed = ["--server-managed"] if by_server else []
        gun = self.gun(namespace, name)
        self.signer_client.notary("key", "rotate", *managed, gun, role, typed="yes\n")

    def reinitialise(self, namespace: str, name: str) -> None:
        """Delete a repository's trust data; what is signed in it next is signed under another root."""
        gun = self.gun(namespace, name)
        self.signer_client.notary("delete", "--remote", gun)
        self._signed_guns.discard(gun)
        self._signers = {(signed, signer) for signed, signer in self._signers if signed != gun}

    # Signatures, by Docker's client

    def add_docker_signer(self, namespace: str, name: str, signer: str, *, generated: bool = False) -> None:
        """Add a signer to the repository, with the keys of his client bundle as the rule's Fix Text says.

        A `generated` key is made by `docker trust key generate` instead. Signing is another matter, see `sign`.
        """
        gun = self.gun(namespace, name)
        if generated:
            public_key = self.signer_client.generate_key(signer)
            self.signer_client.docker("trust", "signer", "add", f"--key={public_key}", signer, gun)
        else:
            certificate, key = self.signer_client.make_bundle(signer)
            self.signer_client.docker("trust", "signer", "add", f"--key={certificate}", signer, gun)
            self.signer_client.docker("trust", "key", "load", f"--name={signer}", str(key))
        # Docker's client has made the repository's trust data if there was none.
        self._signed_guns.add(gun)
        self._signers.add((gun, signer))

    def docker_sign(self, namespace: str, name: str, tag: str) -> None:
        """Sign, as every signer whose key is here, what is signed under the tag already.

        Docker's client asks an engine for an image that nobody has signed yet: there is none, so `sign` comes first.
        """
        self.signer_client.docker("trust", "sign", f"{self.gun(namespace, name)}:{tag}")

    def inspect_trust(self, namespace: str, name: str) -> dict[str, Any]:
        """Give what `docker trust inspect` prints; raises ToolFailedError without any trust data."""
        printed = self.signer_client.docker("trust", "inspect", self.gun(namespace, name))
        [repository] = json.loads(printed)
        return dict(repository)

    # Trust data, past the vendor's tools

    def authorize(self, gun: str, actions: str = "pull") -> str:
        """Give a token with which a GUN's trust data may be read, or with other `actions` written."""
        scope = f"repository:{gun}:{actions}"
        return self._tokens.issue(self.username, service=self.host, access=(scope,), life=EXPIRES_IN).text

    def visit(self, directory: Path, *, notary: str = "") -> SignerClient:
        """Give another workstation with the same login, which knows no key and has seen nothing yet."""
        return SignerClient(
            directory,
            host=self.host,
            ca_bundle=self.ca_bundle,
            username=self.username,
            password=self.password,
            notary=notary,
        )

    # Misfortunes

    def stop_notary(self) -> None:
        """End the Notary for good: what it knew is lost."""
        self._notary.stop()

    def gun(self, namespace: str, name: str, domain: str | None = None) -> str:
        """Give the name under which a repository's trust data lies."""
        return f"{domain or self.host}/{namespace}/{name}"

    def _next_image(self) -> Path:
        self._pushes += 1
        return self._directory / "images" / f"push-{self._pushes}"

    def _push(self, image: Path, namespace: str, name: str, tag: str) -> str:
        digest_file = image.with_suffix(".digest")
        self.signer_client.skopeo(
            "copy",
            "--all",
            "--preserve-digests",
            f"--digestfile={digest_file}",
            f"dir:{image}",
            f"docker://{self.gun(namespace, name)}:{tag}",
            certificates="--dest-cert-dir",
        )
        return digest_file.read_text(encoding="ascii")

    def _read_manifest(self, namespace: str, name: str, tag: str) -> bytes:
        return self.signer_client.skopeo("inspect", "--raw", f"docker://{self.gun(namespace, name)}:{tag}")

    def _prepare(self, gun: str) -> None:
        """Make the repository's trust data if there is none."""
        if gun not in self._signed_guns:
            self.signer_client.notary("init", "--publish", gun)
            # As Docker's client does: so that whoever holds a signer's key alone can publish.
            self.signer_client.notary("key", "rotate", gun, "snapshot", "--server-managed")
            self._signed_guns.add(gun)

    def _list(self, gun: str, roles: Sequence[str], tag: str, manifest: bytes) -> None:
        self.signer_client.notary(
            "addhash",
            "--publish",
            *(f"--roles={role}" for role in roles),
            f"--sha256={hashlib.sha256(manifest).hexdigest()}",
            gun,
            tag,
            str(len(manifest)),
        )

    def _add_key(self, gun: str, role: str, user: str, paths: Sequence[str] = ()) -> None:
        certificate, key = self.signer_client.make_bundle(user)
        self.signer_client.notary("key", "import", f"--role={user}", str(key))
        reach = [f"--paths={path}" for path in paths] or ["--all-paths"]
        self.signer_client.notary("delegation", "add", "--publish", *reach, gun, role, str(certificate))

    def _delegate(self, gun: str, signer: str) -> None:
        """Make the signer's delegations if there are none."""
        if (gun, signer) not in self._signers:
            for role in (RELEASES, f"{TOP_LEVEL}/{signer}"):
                self._add_key(gun, role, signer)
            self._signers.add((gun, signer))

    def _start(self, started: ExitStack) -> None:
        self._directory = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="real-dtr-")))
        self.authority = CertificateAuthority()
        self.ca_bundle = self.authority.certificate_pem
        self.ca_file = self._directory / "ca.pem"
        self.ca_file.write_text(self.ca_bundle, encoding="ascii")
        port = started.enter_context(reserve_port())
        self.host = f"localhost:{port}"

        accounts = Accounts([Account(self.username, self.password, is_admin=True)])
        self._tokens = SignedTokens(self.host)
        token_server = TokenServer(accounts, self._tokens)
        started.callback(token_server.stop)
        token_server.start()

        storage = self._directory / "storage"
        registry = _start_docker_registry(self._directory, storage)
        started.callback(registry.stop)
        notary_directory = self._directory / "notary"
        signer = start_signer(notary_directory, self.authority)
        started.callback(signer.stop)
        self._notary = start_server(
            notary_directory,
            signer=signer.wait_for_port(),
            realm=f"{self.url}{REALM_PATH}",
            service=self.host,
            tokens_certificate=self._tokens.certificate_pem,
        )
        started.callback(self._notary.stop)
        registry_port, notary_port = registry.wait_for_port(), self._notary.wait_for_port()

        backend = RealBackend(
            f"http://127.0.0.1:{registry_port}",
            f"http://127.0.0.1:{notary_port}",
            authorize=self.authorize,
            storage=storage,
            author=account_id(ADMIN),
        )
        started.callback(backend.close)
        self.api = started.enter_context(
            DtrServer(
                backend,
                accounts=accounts,
                tokens=self._tokens,
                profile=Profile(create_repository_on_push=True),
                tls=False,
                public_host=self.host,
                authority=self.authority,
            )
        )
        front = start_front(
            self._directory / "nginx",
            port,
            self.authority.issue("localhost", "127.0.0.1"),
            api=self.api.port,
            registry=registry_port,
            notary=notary_port,
            tokens=token_server.port,
        )
        started.callback(front.stop)
        self._wait_until_answering(front)
        self.signer_client = self.visit(self._directory / "workstation")
        self.desk = TrustDesk(self.url, self.ca_file, self.authorize)

    def _wait_until_answering(self, front: Service) -> None:
        deadline = time.monotonic() + START_SECONDS
        with requests.Session() as session:
            session.trust_env = False
            while time.monotonic() < deadline:
                front.check()
                try:
                    answer = session.get(f"{self.url}/_ping", verify=str(self.ca_file), timeout=START_SECONDS)
                except requests.ConnectionError:  # not listening yet
                    time.sleep(POLL_SECONDS)
                    continue
                if answer.status_code == HTTPStatus.OK:
                    return
                raise ServiceFailedError(front.describe(f"answers {self.url}/_ping with {answer.status_code}"))
        raise ServiceFailedError(front.describe(f"does not answer at {self.url} after {START_SECONDS:.0f} s"))


def _start_docker_registry(directory: Path, storage: Path) -> Service:
    configuration = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "text"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": secrets.token_hex(16)},
    }
    # Its configuration is YAML, of which JSON is a part.
    path = directory / "docker-registry.yml"
    path.write_text(json.dumps(configuration, indent=2), encoding="ascii")
    return Service("docker-registry", [executable_path(DOCKER_REGISTRY), "serve", str(path)], directory)
