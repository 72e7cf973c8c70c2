"""Server processes of other vendors: started on loopback, watched while they start, ended in any case."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.real.lab.parts import SETPRIV, executable_path

START_SECONDS = 20.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.01
LOG_TAIL_CHARACTERS = 4_000

# 127.0.0.1 as /proc/net/tcp writes it: in the byte order of the machine.
_LOOPBACK = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"
_LISTENING = "0A"


class ServiceFailedError(Exception):
    """A server did not start, or ended by itself; the message shows its command line and its last words."""


class Service:
    """One server process and its log.

    The kernel kills it when the *thread* that started it ends, so that nothing survives a killed parent: start it
    in a thread that lives as long as the server is needed.
    """

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._command = [executable_path(SETPRIV), "--pdeathsig", "KILL", *command]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=directory,
                # A clean environment: docker-registry and notary-server take settings from variables too.
                env={"PATH": os.defpath, "HOME": str(directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle, in order
            )

    def wait_for_port(self) -> int:
        """Wait until the process listens on 127.0.0.1 and give the port that the kernel chose for it."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            if port := _listening_port(self._process.pid):
                return port
            time.sleep(POLL_SECONDS)
        raise ServiceFailedError(self.describe(f"does not listen after {START_SECONDS:.0f} s"))

    def check(self) -> None:
        """Raise ServiceFailedError if the process has ended."""
        if (status := self._process.poll()) is not None:
            raise ServiceFailedError(self.describe(f"ended with status {status}"))

    def stop(self) -> None:
        """End the process, gently first, and wait for it; nothing happens if it has ended already."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_SECONDS)

    def describe(self, what: str) -> str:
        """Say what is wrong with the server, with its command line and the end of its log."""
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARACTERS:]
        return f"{self.name} {what}: {shlex.join(self._command)}\n--- the end of its log:\n{tail or '(empty)'}"


def _listening_port(pid: int) -> int | None:
    """Find the port of 127.0.0.1 on which a process listens; notary-server itself tells it nowhere."""
    process = Path("/proc") / str(pid)
    try:
        sockets = {str(link.readlink()) for link in (process / "fd").iterdir()}
        lines = (process / "net" / "tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:  # ended, or a descriptor closed while we looked
        return None
    for line in lines:
        _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
        address, _, port = local.partition(":")
        if state == _LISTENING and address == _LOOPBACK and f"socket:[{inode}]" in sockets:
            return int(port, 16)
    return None
