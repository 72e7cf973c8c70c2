"""The demonstration: three audits, a day apart, of a registry that is seeded with things to find.

Nothing else is needed and nothing leaves this machine. Registry and UCP are `dtr_audit_simulator`, over TLS under authorities
of their own. AWS is template.yaml's own resources in `dtr_audit_simulator.aws`. The function is the one that is deployed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.core.model import RULE_ID
from dtr_audit.core.rule import TITLE
from dtr_audit_cli import story, story_trust
from dtr_audit_cli.console import Display, Overview
from dtr_audit_cli.output import CONTENTS, Delivered, OutputError, OutputFolder, Run, Subscribers, put_exceptions
from dtr_audit_cli.rule_loop import LoopReading, read_as_the_rule_does
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.function_log import FunctionLog
from dtr_audit_simulator.aws.invocation import invoke
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from dtr_audit_simulator.aws.subscribers import QueueSubscriber
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.notary.notary import Notary
from dtr_audit_simulator.ucp.server import UcpServer

REGISTRY_NAME = "demo"
TEAM = "payments"
TEAM_FILTER = {"namespaces": [TEAM]}
PUBLIC_KEY = "signing-key.pem"
FIRST_MAIL_LINES = 42
AN_HOUR = timedelta(hours=1)
_DUE_HOUR = 5  # UTC, as the template's schedule has it


def demonstrate(output: Path, display: Display) -> None:
    """Run the demonstration and leave its results in `output`, which an earlier demonstration may have filled.

    Raises OutputError for a folder with anything else in it.
    """
    began = time.monotonic()
    folder = OutputFolder(output)
    due = _last_times(datetime.now(UTC))
    clock = _Clock(due[0] - AN_HOUR)
    registry = InMemoryRegistry(clock=clock, notary=Notary(clock=clock))
    story.seed(registry, at=due[0])
    with (
        folder.reserve(),
        DtrServer(registry) as server,
        UcpServer(configuration=story.UCP) as ucp,
        EmbeddedAws() as aws,
    ):
        _empty(folder)
        story_trust.publish_trust(server.notary, registry)
        _introduce(display)
        stack = aws.deploy(
            PROJECT / "template.yaml",
            {
                "DtrUrl": server.url,
                "RegistryName": REGISTRY_NAME,
                "UcpUrl": ucp.url,
                "TrustVerification": "signatures",
                "RequiredSigners": story_trust.SIGNER,
                "ManifestSigningKeyArn": _make_key(output / PUBLIC_KEY),
                "LogLevel": "DEBUG",
            },
        )
        stack.put_secret(
            {
                "username": server.admin.name,
                "password": server.admin.password,
                "ca_bundle": server.ca_bundle,
                "ucp_username": ucp.admin.name,
                "ucp_password": ucp.admin.password,
                "ucp_ca_bundle": ucp.ca_bundle,
            }
        )
        _show_parts(registry, server, stack, display)
        with folder.open_log() as file:
            stage = _Stage(
                stack, clock, folder, FunctionLog(file), display, Subscribers(stack), stack.subscribe_queue(TEAM_FILTER)
            )

            _show_first(stage, server, due[0])
            display.title("What happens next")
            exceptions = story.exceptions(at=due[1])
            put_exceptions(stack, json.dumps(exceptions, indent=2).encode())
            display.items(story.change(registry, after=due[0]))
            clock.set(due[1] - AN_HOUR)
            story_trust.publish_trust(server.notary, registry)
            display.items(
                f"{one['namespace']}/{one['repository']}:{one['tag']} is under an exception until {one['ends']} ({EXCEPTIONS_KEY})."
                for one in exceptions["exceptions"]
            )
            second = _show_second(stage, server, due[1])
            display.title(f"Third audit: {_say_time(due[2])}")
            display.items(story.fail(server))
            third, alerts = stage.audit(due[2])
            display.answer(third)
            stage.show_alerts(alerts)
    _show_next(output, display)
    _show_files(output, second, third, display)
    display.pause()
    display.say(f"This took {time.monotonic() - began:.0f} s. The simulated registry and AWS are gone, the files stay.")
    display.say("The report of the second audit, to open in a browser:")
    display.commands((f"{output / second['evidence']['report']}",))


class _Clock:
    """The time of the demonstration: it is set for each audit, and goes on from there."""

    def __init__(self, now: datetime) -> None:
        self.set(now)

    def set(self, now: datetime) -> None:
        self._set_to, self._set_at = now, time.monotonic()

    def __call__(self) -> datetime:
        return self._set_to + timedelta(seconds=time.monotonic() - self._set_at)


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the audits have in common."""

    stack: Stack
    clock: _Clock
    folder: OutputFolder
    log: FunctionLog
    display: Display
    subscribers: Subscribers
    team: QueueSubscriber

    def audit(self, due: datetime) -> tuple[Run, tuple[Delivered, ...]]:
        """Invoke the function with the event of its schedule, at that time, and keep what it leaves."""
        event = self.stack.schedule_event("AuditFunction", due)
        self.clock.set(due)
        with self.display.progress("Reading the registry") as follow, self.log.capture(follow):
            run = invoke(
                self.stack,
                "AuditFunction",
                event,
                environment={"OUTPUT_LOCATION": str(self.folder.path)},
                clock=self.clock,
            )
        alerts = self.subscribers.take()
        self.folder.keep(self.stack, run, alerts)
        return run, alerts

    def show_alerts(self, alerts: Sequence[Delivered], *, lines: int | None = None, changes: str = "") -> None:
        """Show the subjects of the mails; if all is shown, the mails and what arrived in the team's own queue too."""
        self.display.pause()
        messages = self.team.messages()
        if not self.display.verbose:
            for alert in alerts:
                self.display.say(f"Mail: {alert.mail.subject}")
            return
        for alert in alerts:
            self.display.mail(alert.mail, lines=lines)
        for message in messages:
            body = {key: message.body[key] for key in ("id", "event", "status", "complete", "counts")}
            if changes:
                body[changes] = [one for one in message.body[changes] if one["repository"].startswith(f"{TEAM}/")]
            self.display.machine(f"Queue of {TEAM}, by its filter policy {json.dumps(TEAM_FILTER)}", message, body=body)


def _show_first(stage: _Stage, server: DtrServer, due: datetime) -> None:
    stage.display.title(f"First audit: {_say_time(due)}")
    first, alerts = stage.audit(due)
    stage.display.answer(first)
    overview = Overview.of_rows(stage.folder.rows(first))
    stage.display.pause()
    stage.display.namespaces(overview, first)
    if stage.display.verbose:
        stage.display.pause()
        stage.display.findings(overview)
        stage.display.pause()
        stage.display.say(
            f"The author of {story.HOSTILE_PUSH} tries to repaint this terminal. The audit shows it as plain text."
        )
    stage.show_alerts(alerts, lines=FIRST_MAIL_LINES)
    _contrast(read_as_the_rule_does(server), first, stage.display)


def _show_second(stage: _Stage, server: DtrServer, due: datetime) -> Run:
    stage.display.title(f"Second audit: {_say_time(due)}")
    second, alerts = stage.audit(due)
    stage.display.answer(second)
    stage.display.pause()
    stage.display.say("What changed:")
    stage.display.changes([alert.machine for alert in alerts])
    _show_untrusted(stage.folder, second, stage.display)
    _contrast(read_as_the_rule_does(server), second, stage.display)
    if stage.display.verbose:
        _show_excepted(stage.folder, second, stage.display)
        _show_related_settings(second, stage.display)
    stage.show_alerts(alerts, changes="resolved")
    return second


def _contrast(loop: LoopReading, run: Mapping[str, Any], display: Display) -> None:
    tags = run["tags"]
    seen = "every one" if not loop.not_true else f"all but {loop.not_true}"
    if loop.overwritten:
        seen += f", {loop.overwritten} overwritten after signing among them"
    display.pause()
    display.say(
        f"The rule's own curl loop, run against this registry now, sees {loop.repositories} of "
        f"{run['repositories']['listed']} repositories and {loop.tags} of {tags['audited']} tags. It prints "
        f'"true" next to {seen}. The audit found {tags["unsigned"] + tags["mismatched"]} tags that are not signed and '
        f"{tags['untrusted']} with a signature that is not trusted.",
        style="bold",
    )


def _show_related_settings(run: Run, display: Display) -> None:
    wrong = [
        f'"{fact["subject"]}" ({fact["rule_id"]}): {fact["answer"]}'
        for fact in run["facts"]
        if fact["status"] == "OPEN"
    ]
    display.pause()
    display.say(
        f"The audit also read {len(run['facts'])} related settings of DTR and UCP, which do not decide the rule. Not as their own "
        f'rules require: {"; ".join(wrong)}. The report lists all of them under "Supporting facts".'
    )


def _make_key(public: Path) -> str:
    """Make a key that signs, in the embedded KMS, as its owner would, and write its public half down; gives its ARN."""
    kms: Any = boto3.client("kms")
    arn: str = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    key = load_der_public_key(kms.get_public_key(KeyId=arn)["PublicKey"])
    kms.close()
    public.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return arn


def _show_untrusted(folder: OutputFolder, run: Run, display: Display) -> None:
    """Show the tag that the registry calls signed, and what its trust data says."""
    namespace, name, tag = story_trust.UNTRUSTED
    (found,) = (
        row for row in folder.rows(run) if (row["namespace"], row["repository"], row["tag"]) == (namespace, name, tag)
    )
    display.pause()
    display.say(
        f"The audit verified the signatures from the Notary's metadata of {run['trust']['verified']} repositories. The registry "
        f"calls {namespace}/{name}:{tag} signed. The audit does not:"
    )
    display.items([f"{found['verdict']}: {found['reason']}."])


def _show_excepted(folder: OutputFolder, run: Run, display: Display) -> None:
    """Show the finding that is under an exception, in the checklist's own words."""
    checklist = json.loads((folder.path / run["evidence"]["cklb"]).read_text(encoding="utf-8"))
    comment: str = checklist["stigs"][0]["rules"][0]["comments"]
    display.pause()
    display.say(
        "A finding under an exception stays a finding in the report and the checklist. It is reported again when that ends:"
    )
    display.items(line.removeprefix("- ") for line in comment.splitlines() if "  exception " in line)


def _introduce(display: Display) -> None:
    display.title("DTR Signature Audit: a demonstration")
    display.say(
        f'{RULE_ID}: "{TITLE}" The audit checks a registry every day. Here it runs three times, a day apart. Registry and AWS are '
        "simulated in this process. Function and template are the ones that are deployed."
    )


def _show_parts(registry: InMemoryRegistry, server: DtrServer, stack: Stack, display: Display) -> None:
    repositories = registry.repositories()
    count = sum(len(registry.tags(entry.namespace, entry.name, server.host)) for entry in repositories)
    display.say(f"Registry: {server.url}, {len(repositories)} repositories of {len(story.TEAMS)} teams, {count} tags.")
    if display.verbose:
        display.items(
            (
                "The registry serves DTR's API over TLS with a CA of its own, ten entries a page unless asked for more.",
                f"AWS is template.yaml as the stack {stack.name}: function, tables, bucket, topic, secret, schedule.",
                "A Universal Control Plane beside it is asked for two settings.",
                f"The alerts have two subscribers: a mailbox, and a queue of the team {TEAM}.",
            )
        )


def _show_files(output: Path, second: Run, third: Run, display: Display) -> None:
    partition = f"registry={second['registry']}"
    evidence = second["evidence"]
    display.title("The files" if display.verbose else f"The files: {output}")
    if display.verbose:
        display.locations(
            {
                f"{output / evidence['ckl']}": "the checklist for STIG Viewer 2 and eMASS, with a .cklb beside it",
                f"{output / evidence['manifest']}": "the checksums of all files of the run, with a signature by KMS beside it",
                f"{output / third['evidence']['report']}": "the report of the third audit, which is not complete",
                f"{output / EXCEPTIONS_KEY}": "the exceptions with their owners and end dates",
                f"{output / 'findings' / partition}/": "a row for every tag of every run",
                f"{output / 'runs' / partition}/": "the record of every run",
                f"{output / 'run.json'}": "the record of the last run",
                f"{output / 'alerts.jsonl'}": "the messages of the last run",
                f"{output / 'state'}/": "the tables: what is open, and since when",
                f"{output / 'audit.log'}": "the log of the function",
                f"{output / PUBLIC_KEY}": "the public key, as its owner gives it to an assessor",
            }
        )
    display.say("To verify that the files are what the runs wrote:")
    display.commands((f".venv/bin/dtr-audit verify {output} --public-key {output / PUBLIC_KEY}",))


def _show_next(output: Path, display: Display) -> None:
    display.title("What to do next")
    display.say("Query the three audits, as in Athena (without Q: the list of queries):")
    display.commands((f"make query Q=time-to-sign QUERY_ARGUMENTS='--output {output}'",))
    display.say("Audit your own DTR from this machine, which only reads it and asks for the password:")
    display.commands(("make audit AUDIT_ARGUMENTS='--url https://dtr.example.mil --username auditor'",))
    display.say("Deploy to AWS:")
    display.commands(
        (
            "make deploy DEPLOY_ARGUMENTS='--parameter-overrides DtrUrl=https://dtr.example.mil \\",
            "    RegistryName=prod-dtr'",
            "aws secretsmanager put-secret-value --secret-id <the output CredentialsSecretArn> \\",
            '    --secret-string file://credentials.json   # {"username": …, "password": …, "ca_bundle": …}',
        )
    )
    if not display.verbose:
        display.say("See every finding, the mails and all files: .venv/bin/dtr-audit demo --verbose")


def _last_times(now: datetime) -> tuple[datetime, datetime, datetime]:
    """Give the last three times at which the template's schedule was due."""
    today = now.replace(hour=_DUE_HOUR, minute=0, second=0, microsecond=0)
    last = today if today <= now else today - timedelta(days=1)
    return last - timedelta(days=2), last - timedelta(days=1), last


def _say_time(due: datetime) -> str:
    return f"{due:%Y-%m-%d %H:%M} UTC"


def _empty(folder: OutputFolder) -> None:
    """Remove what an earlier demonstration left. Raises OutputError for a folder with anything else in it."""
    entries = list(folder.path.iterdir())
    foreign = [entry for entry in entries if entry.name not in CONTENTS | {PUBLIC_KEY}]
    foreign += [entry for entry in (folder.path / "runs").glob("*") if entry.name != f"registry={REGISTRY_NAME}"]
    if foreign:
        raise OutputError(
            f"{foreign[0]} is not the demonstration's own, and its folder is emptied first. Give it another by --output."
        )
    for entry in entries:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
