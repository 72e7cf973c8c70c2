"""The vendor's programs that the real registry is made of, and the Debian package that ships each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

PROBE_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Part:
    """A program, the Debian package it comes from, and what it prints to `probe` if it is good enough."""

    executable: str
    package: str
    probe: tuple[str, ...] = ()
    expected: str = ""

    def path(self) -> str | None:
        """Find the program, or None."""
        # Debian keeps servers in /usr/sbin, which is not on the PATH of an ordinary user.
        locations = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")
        return shutil.which(self.executable, path=os.pathsep.join(locations))

    def works(self) -> bool:
        """Tell whether the program is here and answers its probe as expected."""
        path = self.path()
        if path is None:
            return False
        if not self.probe:
            return True
        try:
            probed = subprocess.run(
                [path, *self.probe],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return probed.returncode == 0 and self.expected in probed.stdout


DOCKER_REGISTRY = Part("docker-registry", "docker-registry")
NOTARY_SERVER = Part("notary-server", "notary")
NOTARY_SIGNER = Part("notary-signer", "notary")
NOTARY = Part("notary", "notary")
SKOPEO = Part("skopeo", "skopeo")
NGINX = Part("nginx", "nginx")
# Kills the servers when the process that started them is killed (util-linux is essential on Debian).
SETPRIV = Part("setpriv", "util-linux", probe=("--pdeathsig", "KILL", "true"))
# Not every `docker` has `trust`: Podman's has not. Without it, `--help` shows the general help and succeeds.
DOCKER = Part(
    "docker",
    "docker.io, or docker-cli since Debian 13",
    probe=("trust", "sign", "--help"),
    expected="docker trust sign",
)

REGISTRY_PARTS = (DOCKER_REGISTRY, NOTARY_SERVER, NOTARY_SIGNER, NOTARY, SKOPEO, NGINX, SETPRIV)
ALL_PARTS = (*REGISTRY_PARTS, DOCKER)


def missing_parts(parts: Iterable[Part] = ALL_PARTS) -> list[str]:
    """Name the programs that are absent or cannot do what is needed, each with its Debian package."""
    return [f"{part.executable} (Debian package {part.package})" for part in parts if not part.works()]


def executable_path(part: Part) -> str:
    """Give the program's path; raises FileNotFoundError naming its Debian package."""
    path = part.path()
    if path is None:
        raise FileNotFoundError(
            f"the program {part.executable} is not installed: install the Debian package {part.package}"
        )
    return path
