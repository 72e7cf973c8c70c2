"""Somebody's desk: a login, trust keys and the vendor's own tools, none of which touch this user's own settings."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.real.lab.parts import DOCKER, NOTARY, SKOPEO, Part, executable_path
from tests.real.lab.self_signed import certify_itself
from tests.real.lab.tampering import PrivateKeys

TOOL_SECONDS = 60
RSA_USER = "rsa-"  # how the name of a user begins whose bundle holds an RSA key
BUNDLE_LIFE = timedelta(days=365)  # the notary client warns of certificates that expire within half a year


_PATHS = {'"" <all paths>': ""}

# Both clients answer from their cache, with status 0, when they do not reach the Notary.
_STALE = (b"could not reach", b"using cached timestamp")


class ToolFailedError(Exception):
    """One of the vendor's tools failed; the message shows its command line and output, without any passphrase."""


@dataclass(frozen=True, slots=True)
class SignedTarget:
    """A line of `notary list`."""

    tag: str
    digest: str
    role: str


@dataclass(frozen=True, slots=True)
class Delegation:
    """A role as `notary delegation list` shows it; `paths` are prefixes of tags, the empty one of every tag."""

    role: str
    paths: tuple[str, ...]
    keys: tuple[str, ...]
    threshold: int


class SignerClient:
    """The vendor's tools as one person uses them against one registry.

    `directory` holds everything: Docker's configuration with the login, the keys of the trust, the registry's CA.
    The tools of Docker and Notary share the trust directory, as they do at `~/.docker/trust`. All of them are given
    the CA; that Docker's client trusts any certificate of a registry on loopback is its own doing. Another `notary`
    is asked, for what belongs to `host`, in place of the one there.
    """

    def __init__(
        self, directory: Path, *, host: str, ca_bundle: str, username: str, password: str, notary: str = ""
    ) -> None:
        self.host = host
        self._notary = notary or f"https://{host}"
        self._directory = directory
        self._docker_directory = directory / ".docker"
        self._trust_directory = self._docker_directory / "trust"
        self._skopeo_policy = directory / "policy.json"
        self._ca_directory = self._docker_directory / "tls" / host
        self._ca_directory.mkdir(parents=True)
        (self._ca_directory / "ca.crt").write_text(ca_bundle, encoding="ascii")
        login = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
        configuration = {"auths": {host: {"auth": login}}}
        _write_private(self._docker_directory / "config.json", json.dumps(configuration).encode())
        # Debian's default policy comes with a package that is only recommended.
        policy = {"default": [{"type": "insecureAcceptAnything"}]}
        self._skopeo_policy.write_text(json.dumps(policy), encoding="ascii")
        passphrase = secrets.token_urlsafe(18)
        self._passphrase = passphrase
        self._secrets = (password, login, passphrase)
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            "DOCKER_CONFIG": str(self._docker_directory),
            # No engine, not even one that happens to run on this machine.
            "DOCKER_HOST": f"unix://{directory}/no-engine.sock",
            "DOCKER_CONTENT_TRUST_SERVER": self._notary,
            "DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE": passphrase,
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE": passphrase,
            "NOTARY_AUTH": login,
            "NOTARY_ROOT_PASSPHRASE": passphrase,
            "NOTARY_TARGETS_PASSPHRASE": passphrase,
            "NOTARY_SNAPSHOT_PASSPHRASE": passphrase,
            "NOTARY_DELEGATION_PASSPHRASE": passphrase,
        }

    def skopeo(self, command: str, *arguments: str, certificates: str = "--cert-dir") -> bytes:
        """Run a command of skopeo and give what it printed; `certificates` is the command's option for the CA."""
        return self._run(
            SKOPEO,
            f"--policy={self._skopeo_policy}",
            command,
            f"--authfile={self._docker_directory / 'config.json'}",
            f"{certificates}={self._ca_directory}",
            *arguments,
        )

    def notary(self, *arguments: str, typed: str = "") -> str:
        """Run the notary client and give what it printed; `typed` are the answers to what it asks."""
        return self._run(
            NOTARY,
            f"--server={self._notary}",
            f"--trustDir={self._trust_directory}",
            f"--tlscacert={self._ca_directory / 'ca.crt'}",
            *arguments,
            typed=typed,
        ).decode("utf-8", "replace")

    def list_signed(self, gun: str, *roles: str) -> list[SignedTarget]:
        """Give what `notary list` prints, of all roles or of some; raises ToolFailedError without any trust data."""
        printed = self.notary("list", *(f"--roles={role}" for role in roles), gun)
        rows = (line.split() for line in printed.splitlines())
        # A row is: name, digest, size, role; the head and its underline are none.
        return [
            SignedTarget(row[0], f"sha256:{row[1]}", row[3]) for row in rows if len(row) == 4 and row[2].isdecimal()
        ]

    def list_delegations(self, gun: str) -> list[Delegation]:
        """Give what `notary delegation list` prints."""
        printed = [line for line in self.notary("delegation", "list", gun).splitlines() if line]
        columns = [printed[0].find(title) for title in ("ROLE", "PATHS", "KEY IDS", "THRESHOLD")]
        if -1 in columns:  # a sentence: there are none
            return []
        _, _, *lines = printed
        found: list[list[list[str]]] = []
        for line in lines:
            ends = [*columns[1:], len(line)]
            cells = [line[begin:end].strip() for begin, end in zip(columns, ends, strict=True)]
            # A role takes as many lines as it has paths or keys, and its name stands in the first.
            if cells[0]:
                found.append([[] for _ in cells])
            for column, cell in zip(found[-1], cells, strict=True):
                column.extend([cell] if cell else [])
        return [
            Delegation(role, tuple(_PATHS.get(path, path) for path in paths), tuple(keys), int(threshold))
            for [role], paths, keys, [threshold] in found
        ]

    def docker(self, *arguments: str) -> str:
        """Run Docker's client, without any engine, and give what it printed."""
        return self._run(DOCKER, *arguments).decode("utf-8", "replace")

    def read_keys(self) -> PrivateKeys:
        """Read the trust's private keys, as the tools have made or imported them so far."""
        return PrivateKeys.of_trust_directory(self._trust_directory, self._passphrase)

    def make_bundle(self, user: str) -> tuple[Path, Path]:
        """Give the paths of the user's certificate and private key, as a UCP client bundle holds them."""
        directory = self._directory / "bundles" / user
        certificate, key = directory / "cert.pem", directory / "key.pem"
        if not key.exists():
            directory.mkdir(parents=True)
            _write_bundle(user, certificate, key)
        return certificate, key

    def generate_key(self, user: str) -> Path:
        """Give the path of the user's public key, generated by Docker's client together with the private one."""
        directory = self._directory / "generated"
        public_key = directory / f"{user}.pub"
        if not public_key.exists():
            directory.mkdir(exist_ok=True)
            self.docker("trust", "key", "generate", f"--dir={directory}", user)
        return public_key

    def shell(self, lines: Sequence[str], bundle: Path, signer: str) -> str:
        """Run a shell's lines in the folder of a signer's client bundle, and give what they printed."""
        environment = {"SIGNER": signer, "CA": str(self._ca_directory / "ca.crt")}
        command = ["/bin/sh", "-c", "\n".join(lines)]
        return self._execute(command, bundle, environment).decode("utf-8", "replace")

    def _run(self, part: Part, *arguments: str, typed: str = "") -> bytes:
        return self._execute([executable_path(part), *arguments], self._directory, {}, typed)

    def _execute(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str], typed: str = ""
    ) -> bytes:
        try:
            done = subprocess.run(
                command,
                cwd=directory,
                env={**self._environment, **environment},
                input=typed.encode(),  # whoever asks for more, such as a passphrase, gets none and fails at once
                capture_output=True,
                timeout=TOOL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ToolFailedError(
                self._reported(command, f"took more than {TOOL_SECONDS} s", error.stdout, error.stderr)
            ) from None
        if done.returncode != 0:
            what = f"ended with status {done.returncode}"
            raise ToolFailedError(self._reported(command, what, done.stdout, done.stderr))
        if any(words in done.stderr for words in _STALE):
            raise ToolFailedError(self._reported(command, "did not reach the Notary", done.stdout, done.stderr))
        return done.stdout

    def _reported(self, command: Sequence[str], what: str, *outputs: bytes | None) -> str:
        printed = b"".join(output for output in outputs if output).decode("utf-8", "replace").strip()
        text = f"{shlex.join(command)}\n{what} and printed:\n{printed or '(nothing)'}"
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _write_bundle(user: str, certificate_path: Path, key_path: Path) -> None:
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if user.startswith(RSA_USER):
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    certificate = certify_itself(key, user, life=BUNDLE_LIFE)
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    _write_private(key_path, pem)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
