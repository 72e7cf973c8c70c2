"""Lambda's runtime interface, embedded: a built function in a Python process of its own, started as Lambda starts it.

    with LambdaProcess(artifact, "app.handler", environment) as function:
        print(function.init_seconds)
        run = function.invoke({"scheduled_time": "2026-11-22T03:00:00Z"})

The process runs AWS's own client of the interface, awslambdaric, under the Python that the template names. On its path
are the function's folder, the layer and awslambdaric, in Lambda's order, and nothing else but Python itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dtr_audit_simulator import PROJECT

BUILD = PROJECT / ".aws-sam" / "build"
INTERFACE = PROJECT / "build" / "lambda-runtime"  # awslambdaric, as `make test` and `make bench` install it
_FIND_PYTHON = PROJECT / "layers" / "audit" / "find-python"
_API = "/2018-06-01/runtime"
_INIT_LIMIT = 10.0  # seconds; Lambda's own for the init phase
_ENDING = 5.0  # seconds, for a killed process to be gone
_POLL = 0.2  # seconds between two looks at whether the process is still there


class InitError(Exception):
    """The function could not be loaded: what it told the interface, or the end of its output."""


class FunctionError(Exception):
    """The function raised an error, which is the `report` that Lambda's caller gets."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        super().__init__(f"{report.get('errorType')}: {report.get('errorMessage')}")
        self.report = report


class FunctionEndedError(Exception):
    """The function gave no answer: it ran out of time, or its process ended."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is put where: the function's folder into /var/task, the layer's into /opt."""

    function: Path
    layer: Path

    @property
    def packages(self) -> Path:
        """The part of the layer that is on Python's path."""
        return self.layer / "python"


def find_artifact(function: str, layer: str) -> Artifact:
    """Give what `sam build` made of two resources of the template, whether it is there or not."""
    return Artifact(BUILD / function, BUILD / layer)


def find_python() -> Path | None:
    """Give a Python of the version that the function runs under in Lambda, if this machine has one."""
    found = subprocess.run(
        [_FIND_PYTHON], env={"PYTHON": sys.executable, **os.environ}, capture_output=True, text=True, check=False
    )
    return Path(found.stdout.strip()) if found.returncode == 0 else None


def missing_parts() -> list[str]:
    """Name what this machine lacks to run a built function, each with its remedy."""
    missing = []
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        missing.append("Linux on x86_64, for which the layer is built")
    if find_python() is None:
        missing.append("Python 3.13 (install it, or set LAMBDA_PYTHON)")
    if not (INTERFACE / "awslambdaric").is_dir():
        missing.append("awslambdaric (`make test` and `make bench` install it)")
    return missing


class _Kind(Enum):
    READY = "ready"
    INIT_ERROR = "init error"
    RESPONSE = "response"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class _Notified:
    """What the process has told the interface, and when (`time.perf_counter`)."""

    kind: _Kind
    body: bytes
    at: float


@dataclass(frozen=True, slots=True)
class _Invocation:
    request_id: str
    event: bytes
    ends_at: int  # milliseconds since the epoch


class _Interface(ThreadingHTTPServer):
    """The server's side of Lambda's runtime API, for one process."""

    daemon_threads = False  # server_close waits for them, so that no socket is left open

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.next: queue.SimpleQueue[_Invocation | None] = queue.SimpleQueue()  # None: there will be no other
        self.reported: queue.SimpleQueue[_Notified] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="runtime-interface")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it, after the process that spoke to it."""
        self.next.put(None)
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Exchange(BaseHTTPRequestHandler):
    """One connection of awslambdaric."""

    server: _Interface
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or else each answer takes 40 ms

    def handle(self) -> None:
        """Answer until the connection ends, if need be with the process at its other end."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        if self.path != f"{_API}/invocation/next":
            self._answer(404, b"{}")
            return
        self.server.reported.put(_Notified(_Kind.READY, b"", time.perf_counter()))
        invocation = self.server.next.get()
        if invocation is None:
            self.close_connection = True
            return
        self._answer(
            200,
            invocation.event,
            {
                "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                "Lambda-Runtime-Deadline-Ms": str(invocation.ends_at),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:local:lambda:local:000000000000:function:audit",
            },
        )

    def do_POST(self) -> None:
        body = self._read_body()
        kind = _Kind.INIT_ERROR if self.path == f"{_API}/init/error" else _Kind(self.path.rpartition("/")[2])
        self._answer(202, b"{}")
        self.server.reported.put(_Notified(kind, body, time.perf_counter()))

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the standard library's name)
        """Say nothing."""


class LambdaProcess:
    """One execution environment: a process that loads the function once and answers one event after the other.

    `environment` is the function's own, and whatever its AWS SDK needs. What the process prints is in `output`.
    """

    def __init__(
        self,
        artifact: Artifact,
        handler: str,
        environment: Mapping[str, str],
        *,
        python: Path | None = None,
        interface: Path = INTERFACE,
        memory: int = 512,
    ) -> None:
        self.init_seconds = 0.0  # from the start of the process until it asks for its first event
        self.busy_seconds = 0.0  # from the last event until it was answered
        self._artifact = artifact
        self._handler = handler
        self._environment = environment
        self._python = python or find_python()
        self._interface_packages = interface
        self._memory = memory
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            self._output = resources.enter_context(tempfile.TemporaryFile())
            self._interface = _Interface()
            self._interface.start()
            resources.callback(self._interface.stop)
            self._process = self._start()
            resources.callback(_end, self._process)
            self._await_readiness()
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def output(self) -> str:
        """What the process has printed so far, standard output and error together."""
        return os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0).decode()

    def invoke(self, event: Any, *, seconds: float = 60.0, request_id: str = "") -> Any:
        """Send an event and give the result. Raises FunctionError or FunctionEndedError."""
        ends_at = int((time.time() + seconds) * 1000)
        begun = time.perf_counter()
        self._interface.next.put(_Invocation(request_id or str(uuid.uuid4()), json.dumps(event).encode(), ends_at))
        while (reported := self._wait(seconds)).kind is _Kind.READY:  # for this event, after the one before
            pass
        self.busy_seconds = reported.at - begun
        if reported.kind is _Kind.ERROR:
            raise FunctionError(json.loads(reported.body))
        return json.loads(reported.body)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._python is None:
            raise InitError("no Python of the function's version on this machine: set LAMBDA_PYTHON to one")
        self._begun = time.perf_counter()
        return subprocess.Popen(
            # -S: the site-packages of this machine's Python are not Lambda's.
            [self._python, "-S", "-m", "awslambdaric", self._handler],
            cwd=self._artifact.function,  # first on the path
            env={
                **self._environment,
                "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self._memory),
                "AWS_LAMBDA_FUNCTION_NAME": "audit",
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
                "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/audit",
                "AWS_LAMBDA_LOG_STREAM_NAME": "local",
                "AWS_LAMBDA_RUNTIME_API": self._interface.address,
                "LAMBDA_TASK_ROOT": str(self._artifact.function),
                "LANG": "en_US.UTF-8",
                "PATH": os.defpath,
                "PYTHONDONTWRITEBYTECODE": "1",  # /var/task and /opt cannot be written to
                "PYTHONPATH": os.pathsep.join(map(str, (self._artifact.packages, self._interface_packages))),
                "TZ": ":UTC",
                "_HANDLER": self._handler,
            },
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
        )

    def _await_readiness(self) -> None:
        try:
            reported = self._wait(_INIT_LIMIT)
        except FunctionEndedError as error:
            raise InitError(f"{error}\n{self.output[-2000:]}") from None
        if reported.kind is not _Kind.READY:
            raise InitError(reported.body.decode())
        self.init_seconds = reported.at - self._begun

    def _wait(self, seconds: float) -> _Notified:
        """Wait for the next word of the process. Raises FunctionEndedError."""
        patience = time.monotonic() + seconds
        while time.monotonic() < patience:
            status = self._process.poll()
            try:
                return self._interface.reported.get(timeout=_POLL)
            except queue.Empty:
                if status is not None:
                    raise FunctionEndedError(f"the process ended with status {status}") from None
        raise FunctionEndedError(f"no answer within {seconds:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # as Lambda ends an execution environment that has no extensions
    process.wait(_ENDING)
