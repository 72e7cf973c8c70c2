"""The audit of any DTR from this machine: the very function, with the template's resources in an embedded AWS around it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dtr_audit.core.exceptions import DOCUMENT_BYTES as EXCEPTIONS_BYTES
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.exceptions import parse_exceptions
from dtr_audit.core.request import AuditRequest
from dtr_audit.errors import AuditError, EvidenceError, ExceptionsError, SettingsError
from dtr_audit.evidence.baseline import SIZE_LIMIT
from dtr_audit.evidence.baseline import read as check_baseline
from dtr_audit.http.certificates import read_authorities, write_pem
from dtr_audit.registry.credentials import CA_BUNDLE_LENGTH, parse_secret
from dtr_audit.trust.notary.pins import DOCUMENT_BYTES as PINS_BYTES
from dtr_audit.trust.notary.pins import KEY as PINS_KEY
from dtr_audit.trust.notary.pins import parse_pins
from dtr_audit_cli.console import Display, Overview
from dtr_audit_cli.exit_status import ExitStatus
from dtr_audit_cli.output import Delivered, OutputFolder, Run, Subscribers, put_exceptions
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.function_log import FunctionLog
from dtr_audit_simulator.aws.invocation import invoke
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from dtr_audit_simulator.aws.template import complete_parameters
from dtr_audit_simulator.aws.template import load as load_template

TEMPLATE = PROJECT / "template.yaml"
TIME_LIMIT_SECONDS = (
    12 * 3600.0
)  # of a run, unless --time-limit names another; Lambda's own limit is not this machine's
TIME_LIMIT_LEAST_SECONDS = 60.0
TIME_LIMIT_MOST_SECONDS = 7 * 24 * 3600.0
CLOSING_SECONDS = 120.0  # that a step has in any case, so that a run whose time is over is still reported
REGISTRY_NAME_LENGTH = 63

# The auditor's messages name the deployment's settings; here they are given otherwise.
_OPTIONS = {
    '"ca_bundle"': "--ca-file",
    "X509_STRICT": "--no-x509-strict",
    "DTR_DOMAINS": "--domain",
    "DTR_URL": "--url",
    "Concurrency": "--concurrency",
    EXCEPTIONS_KEY: "--exceptions",
    PINS_KEY: "--trust-pins",
    "into the secret": "--username, and DTR_PASSWORD or the prompt",
}


@dataclass(frozen=True, slots=True)
class BaselineFile:
    """A checklist to answer in, and where it lies in the bucket."""

    key: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Verification:
    """How signatures are verified: whose have to be there, and under which roots."""

    required_signers: tuple[str, ...] = ()  # empty: any
    all_signers: bool = False  # all of them, not any one
    repository_key_suffices: bool = False
    pins: bytes | None = None  # the document; None: the first root that is seen is trusted

    def parameters(self) -> dict[str, str]:
        """Give the template's parameters."""
        return {
            "TrustVerification": "signatures",
            "RequiredSigners": ",".join(self.required_signers),
            "SignersNeeded": "all" if self.all_signers else "any",
            "RepositoryKeySuffices": json.dumps(self.repository_key_suffices),
            "PinTrust": json.dumps(self.pins is not None),
        }


@dataclass(frozen=True, slots=True)
class Assignment:
    """One audit to make: which registry, as whom, how, and where the results go. Nothing secret is in here."""

    url: str  # https://host[:port]
    username: str
    registry_name: str
    output: Path
    ca_bundle: str = ""  # PEM; "": the public authorities
    domains: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    x509_strict: bool = True
    verification: Verification | None = None  # None: the registry's word is taken
    baseline: BaselineFile | None = None
    exceptions: bytes | None = None  # the document; None: what lies in the output folder, if anything does
    limits: Mapping[str, str] = field(default_factory=dict)  # the template's Concurrency and PageSize, where given
    engine: str = "lambda"
    time_limit: float = TIME_LIMIT_SECONDS  # of the whole run

    def parameters(self) -> dict[str, str]:
        """Give the template's parameters."""
        return {
            "DtrUrl": self.url,
            "RegistryName": self.registry_name,
            "DtrDomains": ",".join(self.domains),
            "X509Strict": json.dumps(self.x509_strict),
            "BaselineKey": self.baseline.key if self.baseline else "",
            **(self.verification.parameters() if self.verification else {}),
            "LogLevel": "DEBUG",  # progress is read from it; at no level is a credential logged
            "Engine": self.engine,
            "FanOutWorkers": "1",  # in this process they take turns: one has all of Concurrency
            **self.limits,
        }

    def secret(self, password: str) -> dict[str, str]:
        """Give the secret's value."""
        return {"username": self.username, "password": password, "ca_bundle": self.ca_bundle}

    def event(self) -> dict[str, Any]:
        """Give the function's event."""
        return {"namespaces": list(self.namespaces)} if self.namespaces else {}

    def check(self) -> None:
        """Raise SettingsError or ParameterError for what the function or the template would refuse."""
        parse_secret(json.dumps(self.secret("not asked for yet")))
        complete_parameters(load_template(TEMPLATE), self.parameters())
        AuditRequest.from_event(self.event(), now=datetime.now(UTC))
        if self.baseline and self.namespaces:
            raise SettingsError("--baseline: a checklist speaks for the whole registry, so leave out --namespace")


def audit(assignment: Assignment, password: str, display: Display) -> ExitStatus:
    """Make the audit, keep its results, show them, and give the exit status.

    Raises AuditError, OutputError or StateFileError if it could not even begin.
    """
    folder = OutputFolder(assignment.output)
    display.say(f"Auditing {assignment.url} as {assignment.username}; it is only read from.")
    with folder.reserve(), EmbeddedAws() as aws:
        stack = aws.deploy(TEMPLATE, assignment.parameters())
        folder.load_state(stack)
        if assignment.exceptions is None:
            folder.load_exceptions(stack)
        else:
            put_exceptions(stack, assignment.exceptions)
        stack.put_secret(assignment.secret(password))
        if assignment.verification and assignment.verification.pins is not None:
            pins = assignment.verification.pins
            stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=PINS_KEY, Body=pins)
        if assignment.baseline:
            baseline = assignment.baseline
            stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=baseline.key, Body=baseline.content)
        subscribers = Subscribers(stack)
        with folder.open_log() as file:
            log = FunctionLog(file)
            with display.progress("Reading the registry") as follow, log.capture(follow):
                run = _run(stack, assignment)
        alerts = subscribers.take()
        folder.keep(stack, run, alerts)
    _show(assignment.registry_name, run, Overview.of_rows(folder.rows(run)), alerts, display)
    _explain(run, log, display)
    display.title("Where it lies")
    report, merged = (run["evidence"].get(name) for name in ("report", "merged"))
    display.locations(
        {
            **({f"{folder.path / report}": "the report: open it in a browser; checklists beside it"} if report else {}),
            **({f"{folder.path / merged}": "your checklist, with V-235846 answered"} if merged else {}),
            f"{folder.path / 'run.json'}": "the record of this run",
            f"{folder.path / 'alerts.jsonl'}": f"what subscribers are told of it (messages: {len(alerts)})",
            f"{folder.path / 'findings'}/": "a row for every tag, run by run",
            f"{folder.path / 'state'}/": "what the next run has to know: keep it",
            f"{folder.path / 'audit.log'}": "what the function logged",
        }
    )
    status = ExitStatus.of_run(run)
    display.pause()
    display.say(f"Exit status {status}: {status.formatted()}.")
    return status


def _run(stack: Stack, assignment: Assignment) -> Run:
    """Have the engine make the run; gives its record. Raises AuditError if there is none."""
    # People find what the run leaves in the folder, and never see the embedded bucket.
    environment = {"OUTPUT_LOCATION": str(assignment.output)}
    if assignment.engine == "lambda":
        return invoke(
            stack, "AuditFunction", assignment.event(), seconds=assignment.time_limit, environment=environment
        )
    ends_at = time.monotonic() + assignment.time_limit

    def step(name: str, payload: dict[str, Any]) -> dict[str, Any]:
        left = max(ends_at - time.monotonic(), CLOSING_SECONDS)
        seconds = min(stack.function_timeout(name), left)
        return invoke(stack, name, payload, seconds=seconds, environment=environment)

    execution = stack.execute("AuditStateMachine", assignment.event(), step)
    bucket = stack.outputs["BucketName"]
    # The bucket is as new as the stack: no other run's record is in it.
    records = stack.s3.list_objects_v2(Bucket=bucket, Prefix="runs/").get("Contents", [])
    if not records:
        raise AuditError(f"The audit failed and left no record: {execution.error}. The log of its functions says why.")
    with stack.s3.get_object(Bucket=bucket, Key=records[0]["Key"])["Body"] as body:
        record: dict[str, Any] = json.loads(body.read())
    return record


def parse_time_limit(text: str) -> float:
    """Read a duration such as `90m` or `12h`, and give it in seconds. Raises SettingsError."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", text)
    seconds = int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0
    if not TIME_LIMIT_LEAST_SECONDS <= seconds <= TIME_LIMIT_MOST_SECONDS:
        raise SettingsError(
            f"--time-limit {text}: a whole number with s, m or h is needed, such as 90m or 12h, from 1m to 168h"
        )
    return float(seconds)


def derive_registry_name(url: str) -> str:
    """Make a registry's name of its address: `https://DTR.example.mil:4443` becomes `dtr.example.mil-4443`."""
    parts = urlsplit(url)
    host = re.sub(r"[^a-z0-9.-]", "-", (parts.hostname or "").lower()).lstrip(".-")
    port = f"-{parts.port}" if parts.port not in {None, 443} else ""
    return host[: REGISTRY_NAME_LENGTH - len(port)] + port


def read_baseline(path: Path) -> BaselineFile:
    """Read a checklist to answer in. Raises SettingsError for what the audit could only warn of."""
    if path.suffix not in {".ckl", ".cklb"}:
        raise SettingsError(f"--baseline {path}: a file that ends in .ckl or .cklb is needed")
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
        check_baseline(content)
    except OSError as error:
        raise SettingsError(f"--baseline {path}: {error.strerror}") from None
    except EvidenceError as error:
        raise SettingsError(f"--baseline {path}: {error}") from error
    return BaselineFile(f"baseline/checklist{path.suffix}", content)


def read_ca_file(path: Path) -> str:
    """Read the authorities to trust, as PEM or DER, certificates or PKCS7; gives them as PEM. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            content = file.read(CA_BUNDLE_LENGTH + 1)
    except OSError as error:
        raise SettingsError(f"--ca-file {path}: {error.strerror}") from None
    if len(content) > CA_BUNDLE_LENGTH:
        raise SettingsError(f"--ca-file {path}: it is larger than {CA_BUNDLE_LENGTH} bytes")
    return write_pem(read_authorities(content, f"--ca-file {path}"))


def read_exceptions_file(path: Path) -> bytes:
    """Read a document of exceptions. Raises SettingsError for one that would except nothing."""
    return _read_document(path, "--exceptions", EXCEPTIONS_KEY, EXCEPTIONS_BYTES, parse_exceptions)


def read_pins_file(path: Path) -> bytes:
    """Read a document of pins. Raises SettingsError for one by which no audit would be complete."""
    return _read_document(path, "--trust-pins", PINS_KEY, PINS_BYTES, parse_pins)


def _read_document(path: Path, option: str, key: str, limit: int, parse: Callable[[bytes], object]) -> bytes:
    """Read a document that is put at a key of the bucket, one byte more than `limit` at most. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            document = file.read(limit + 1)
    except OSError as error:
        raise SettingsError(f"{option} {path}: {error.strerror}") from None
    try:
        parse(document)
    except (ExceptionsError, SettingsError) as error:
        raise SettingsError(f"{option} {path}: {str(error).removeprefix(f'{key}: ')}") from None
    return document


def _show(name: str, run: Run, overview: Overview, alerts: Sequence[Delivered], display: Display) -> None:
    display.title(f"{name}: what was found")
    display.answer(run)
    if overview.namespaces:
        display.pause()
        display.namespaces(overview, run)
    if overview.findings:
        display.pause()
        display.findings(overview)
    change_kind = [alert.machine for alert in alerts if alert.machine.body["event"] == "findings_changed"]
    if change_kind and run["findings"]["opened"] < run["findings"]["open"] + run["findings"]["resolved"]:
        display.pause()
        display.say("What changed since the last run:")
        display.changes(change_kind)


def _explain(run: Run, log: FunctionLog, display: Display) -> None:
    """Say what else a reader should know: how to give here what a message asks for, and what the log complains of."""
    reported = "\n".join((*run["incomplete_because"], *run["warnings"]))
    hints = [f"{name}: here by {option}" for name, option in _OPTIONS.items() if name in reported]
    if hints:
        display.say("To do as the messages say:", style="yellow")
        display.items(hints, style="yellow")
    if log.trouble:
        display.say("The function logged trouble:", style="yellow")
        display.items(log.trouble, style="yellow")
