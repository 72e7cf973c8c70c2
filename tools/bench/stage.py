"""What every benchmark of whole audits stands on: a registry and an AWS, each in a process of its own, and audits in others.

with Stage() as stage:
    stage.hold(Shape(repositories=500, tags=20, latency=0.05))
    taken = stage.audit(concurrency=16)
    taken.seconds, taken.processor_seconds, taken.peak_bytes, taken.registry["lists"], taken.aws["calls"]
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import ssl
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.http.authority import CertificateAuthority
from tools.bench.registry import PASSWORD, USER, Shape

REGISTRY_NAME = "bench"
PYTHON_PATH = os.pathsep.join(str(PROJECT / folder) for folder in ("", "layers/audit", "cli", "simulator"))
REGION = "us-east-1"
BUCKET = "bench-bucket"
SECONDS = 3_600.0  # an audit's time; what does not fit into Lambda's is measured all the same
_ADMINISTRATION_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What one audit took. Seconds and bytes; of the process, or without its start where nothing else is said."""

    seconds: float  # the handler alone
    processor_seconds: float  # likewise
    process_seconds: float  # from the start of the process to its end
    process_processor_seconds: float
    peak_bytes: int  # of the process
    loaded_bytes: int  # of the process before the handler was called
    record: dict[str, Any]
    registry: dict[str, Any]  # counters
    aws: dict[str, Any]  # counters
    profile: list[dict[str, Any]]  # where the processor time went, if that was asked for

    @property
    def tags(self) -> int:
        """The tags that it read."""
        return int(self.record["tags"]["audited"])

    @property
    def reading_seconds(self) -> float:
        """From the first page of a list to the last, as the registry saw it."""
        return float(self.registry["lists_until"] - self.registry["lists_from"])


class Server:
    """A module of this package that serves, in a process of its own."""

    def __init__(self, module: str, first_line: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": PYTHON_PATH},
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("a process without pipes")
        self.process.stdin.write(json.dumps(first_line) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} did not start")
        self.port = int(line)

    def stop(self) -> None:
        """End it, by the end of its standard input."""
        self.process.communicate()

    def tell(self, path: str, body: str = "") -> Any:
        """Ask or tell it something under /bench/, over plain HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ADMINISTRATION_SECONDS)
        return _ask(connection, "POST", path, body)


class Stage:
    """The registry, the AWS, and the function's environment between them."""

    def __init__(self) -> None:
        self._authority = CertificateAuthority("Bench CA")
        self._template = templates.translate(templates.load(PROJECT / "template.yaml"), REGION)
        self._servers: list[Server] = []
        self._run = 0
        self.registry_port = self.aws_port = 0
        self.shape = Shape(1, 1)

    def __enter__(self) -> Self:
        try:
            return self._start()
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> Self:
        certificate = self._authority.issue("localhost", "127.0.0.1")
        registry = Server("tools.bench.registry", asdict(certificate))
        self._servers.append(registry)
        resources = self._template["Resources"]
        cloud = Server(
            "tools.bench.cloud", {name: resources[name]["Properties"] for name in ("FindingsTable", "RunsTable")}
        )
        self._servers.append(cloud)
        self.registry_port, self.aws_port = registry.port, cloud.port
        secret = {"username": USER, "password": PASSWORD, "ca_bundle": self.ca_bundle}
        self.report_to_aws("secret", body=json.dumps(secret))
        return self

    def _stop(self) -> None:
        for server in self._servers:
            server.stop()
        self._servers.clear()

    @property
    def host(self) -> str:
        """The registry's host[:port]."""
        return f"localhost:{self.registry_port}"

    @property
    def ca_bundle(self) -> str:
        """The authority of the registry's certificate."""
        return self._authority.certificate_pem

    # -- the registry ------------------------------------------------------------------------------------------------

    def hold(self, shape: Shape) -> None:
        """Have the registry hold this from now on, and count anew."""
        self.shape = shape
        query = urlencode({name: json.dumps(value) for name, value in asdict(shape).items()})
        self._ask_registry(f"shape?{query}")

    def registry_counters(self) -> dict[str, Any]:
        """Say what the registry was asked since then."""
        return self._ask_registry("counters")

    def _ask_registry(self, path: str) -> dict[str, Any]:
        context = ssl.create_default_context(cadata=self.ca_bundle)
        connection = http.client.HTTPSConnection("localhost", self.registry_port, context=context)
        reported: dict[str, Any] = _ask(connection, "GET", path)
        return reported

    # -- AWS ---------------------------------------------------------------------------------------------------------

    def report_to_aws(self, path: str, *, body: str = "") -> dict[str, Any]:
        """Ask or tell the AWS something: `reset`, `refuse?7`, `counters`…"""
        reported: dict[str, Any] = self._servers[1].tell(path, body)
        return reported

    def read_object(self, key: str) -> bytes:
        """Read a file of the bucket."""
        connection = http.client.HTTPConnection("127.0.0.1", self.aws_port, timeout=_ADMINISTRATION_SECONDS)
        connection.request("GET", f"/{BUCKET}/{key}")
        content = connection.getresponse().read()
        connection.close()
        return content

    # -- the audit ---------------------------------------------------------------------------------------------------

    def environment(self, **changed: str) -> dict[str, str]:
        """Give the function's variables as the template's defaults make them."""
        given = {"DtrUrl": f"https://{self.host}", "RegistryName": REGISTRY_NAME}
        values = templates.complete_parameters(self._template, given)
        decided = templates.decide(self._template, values)
        names = {
            **values,
            "AuditBucket": BUCKET,
            "FindingsTable": "FindingsTable",
            "RunsTable": "RunsTable",
            "CredentialsSecret": "bench-secret",
            "AlertTopic": "arn:local:sns:local:000000000000:bench",
        }
        variables = decided["Resources"]["AuditFunction"]["Properties"]["Environment"]["Variables"]
        return {name: _resolve(value, names) for name, value in variables.items()} | changed

    def audit(
        self,
        *,
        concurrency: int | None = None,
        page_size: int | None = None,
        forget: bool = True,
        profile: bool = False,
    ) -> Taken:
        """Make one audit of what the registry holds, the next day's; `forget` empties the AWS first.

        Raises RuntimeError for an audit that was not complete, or read anything but what is there.
        """
        self.report_to_aws("reset" if forget else "count")
        self.hold(self.shape)
        settings: dict[str, str] = {}
        if concurrency is not None:
            settings["CONCURRENCY"] = str(concurrency)
        if page_size is not None:
            settings["PAGE_SIZE"] = str(page_size)
        self._run += 1
        due = datetime(2026, 1, 1, 5, tzinfo=UTC) + timedelta(days=self._run)
        wanted = {
            "event": {"scheduled_time": due.strftime("%Y-%m-%dT%H:%M:%SZ")},
            "request_id": str(uuid.uuid4()),
            "seconds": SECONDS,
            "profile": profile,
        }
        answer, seconds, processor_seconds = self._process(wanted, self.environment(**settings))
        record = answer["record"]
        if self.shape.attack:
            if record["complete"] or record["tags"]["audited"]:
                raise RuntimeError(f"the audit took an attack for an answer: {record['repositories']}")
        elif not record["complete"] or record["tags"]["audited"] != self.shape.all_tags:
            raise RuntimeError(f"the audit did not read everything: {record['tags']}, {record['incomplete_because']}")
        return Taken(
            seconds=answer["seconds"],
            processor_seconds=answer["processor_seconds"],
            process_seconds=seconds,
            process_processor_seconds=processor_seconds,
            peak_bytes=answer["peak_bytes"],
            loaded_bytes=answer["loaded_bytes"],
            record=record,
            registry=self.registry_counters(),
            aws=self.report_to_aws("counters"),
            profile=answer.get("profile", []),
        )

    def _process(self, wanted: dict[str, Any], environment: dict[str, str]) -> tuple[dict[str, Any], float, float]:
        # With byte code kept between one process and the next, as the layer ships it.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AWS_") and name != "PYTHONDONTWRITEBYTECODE"
        }
        aws = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.aws_port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "no_proxy": "127.0.0.1,localhost",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tools.bench.auditor"],
            input=json.dumps(wanted) + "\n",
            capture_output=True,
            text=True,
            cwd=PROJECT,
            env={**kept, **aws, **environment, "PYTHONPATH": PYTHON_PATH},
            check=False,
        )
        seconds = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"the audit failed: {done.stderr}")
        used = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
        return json.loads(done.stdout), seconds, used


def _resolve(value: Any, names: dict[str, str]) -> str:
    """Spell out a value of the template; raises KeyError for a name that is not known."""
    if not isinstance(value, dict):
        return str(value)
    [(function, argument)] = value.items()
    if function == "Ref":
        return names[argument]
    if function == "Fn::Join":
        separator, parts = argument
        if isinstance(parts, dict):  # a list of a parameter's, which is written with commas
            return str(separator).join(part for part in _resolve(parts, names).split(",") if part)
        return str(separator).join(_resolve(part, names) for part in parts)
    raise KeyError(f"{function} is not resolved here")


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: str = "") -> Any:
    connection.request(method, f"/bench/{path}", body.encode() or None)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return content
