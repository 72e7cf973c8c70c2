"""The demonstration: the main job, twice, a night apart, against a registry that is seeded with things to find.

Nothing is needed and nothing leaves this machine: registry and UCP are `dtr_audit_simulator`, over TLS under authorities
of their own; AWS is template.yaml's own resources in `dtr_audit_simulator.aws`; the function is the very one that is deployed.
"""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
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
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.function_log import FunctionLog
from dtr_audit_simulator.aws.invocation import invoke
from dtr_audit_simulator.aws.stack import EmbeddedAws, QueueSubscriber, Stack
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.ucp.server import UcpServer

REGISTRY_NAME = "demo"
TEAM = "payments"
TEAM_FILTER = {"namespaces": [TEAM]}
PUBLIC_KEY = "signing-key.pem"
FIRST_MAIL_LINES = 42
_DUE_HOUR = 5  # UTC, as the template's schedule has it


def demonstrate(output: Path, display: Display) -> None:
    """Run the demonstration and leave its results in `output`, which an earlier demonstration may have filled.

    Raises OutputError for a folder with anything else in it.
    """
    began = time.monotonic()
    folder = OutputFolder(output)
    first_due, second_due = _last_two_nights(datetime.now(UTC))
    registry = InMemoryRegistry()
    story.seed(registry, at=first_due)
    with (
        folder.reserve(),
        DtrServer(registry, faults=story.first_faults()) as server,
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
                stack, folder, FunctionLog(file), display, Subscribers(stack), stack.subscribe_queue(TEAM_FILTER)
            )

            display.title(f"The first night: the schedule starts the audit ({_spoken(first_due)})")
            run, alerts = stage.audit(first_due)
            display.answer(run)
            overview = Overview.of_rows(folder.rows(run))
            display.pause()
            display.namespaces(overview, run)
            display.pause()
            display.findings(overview)
            display.pause()
            display.say(
                f"(The author of {story.HOSTILE_PUSH} tries to repaint this terminal; it is shown as the text that it is.)"
            )
            _contrast(read_as_the_rule_does(server), run, display)
            display.title("What the subscribers get")
            for alert in alerts:
                display.mail(alert.mail, lines=FIRST_MAIL_LINES)
            stage.show_queue()

            display.title("In between")
            exceptions = story.exceptions(at=datetime.now(UTC))
            put_exceptions(stack, json.dumps(exceptions, indent=2).encode())
            display.items(story.night(registry, server, after=first_due))
            story_trust.publish_trust(server.notary, registry)
            display.items(
                f"{one['namespace']}/{one['repository']}:{one['tag']} is excepted until {one['ends']}: {EXCEPTIONS_KEY}."
                for one in exceptions["exceptions"]
            )

            display.title(f"The second night ({_spoken(second_due)})")
            run, alerts = stage.audit(second_due)
            display.answer(run)
            display.pause()
            display.say("What changed since the first night:")
            display.changes([alert.machine for alert in alerts])
            _show_what_stands_out(folder, run, server, display)
            display.title("What the subscribers get: the news, once")
            for alert in alerts:
                display.mail(alert.mail)
            stage.show_queue("resolved")
    _show_places(output, run, display)
    _show_next(output, display)
    display.pause()
    display.say(f"That took {time.monotonic() - began:.0f} s. Everything embedded is gone again; the files stay.")


@dataclass(frozen=True, slots=True)
class _Stage:
    """What both nights have in common."""

    stack: Stack
    folder: OutputFolder
    log: FunctionLog
    display: Display
    subscribers: Subscribers
    team: QueueSubscriber

    def audit(self, due: datetime) -> tuple[Run, tuple[Delivered, ...]]:
        """Invoke the function with the event of its schedule, and keep what it leaves."""
        event = self.stack.schedule_event("AuditFunction", due)
        self.display.say(f"invoke AuditFunction with {json.dumps(event)}")
        with self.display.progress("Reading the registry") as follow, self.log.capture(follow):
            environment = {"OUTPUT_LOCATION": str(self.folder.path)}
            run = invoke(self.stack, "AuditFunction", event, environment=environment)
        alerts = self.subscribers.take()
        self.folder.keep(self.stack, run, alerts)
        return run, alerts

    def show_queue(self, news: str = "") -> None:
        """Show what arrived in the team's own queue, and the team's part of the `news` in it."""
        for message in self.team.messages():
            body = {key: message.body[key] for key in ("id", "event", "status", "complete", "counts")}
            if news:
                body[news] = [item for item in message.body[news] if item["repository"].startswith(f"{TEAM}/")]
            self.display.machine(f"Queue of {TEAM}, by its filter policy {json.dumps(TEAM_FILTER)}", message, body=body)


@dataclass(frozen=True, slots=True)
class LoopReading:
    """What the check's own shell loop gets to see: it asks for no page, and so gets the first of each list."""

    repositories: int
    tags: int
    not_true: int  # tags next to which it does not print "true"
    overwritten: int  # those next to which it does, although they were pushed over after they were signed


def read_as_the_rule_does(server: DtrServer) -> LoopReading:
    """Ask what the Check Content's three curl commands ask, in their way (but for `-k`: the certificate is verified)."""
    context = ssl.create_default_context(cadata=server.ca_bundle)
    connection = HTTPSConnection("localhost", server.port, context=context, timeout=30)

    def get(path: str, authorization: str) -> Any:
        connection.request("GET", path, headers={"Authorization": authorization})
        return json.loads(connection.getresponse().read())

    login = base64.b64encode(f"{server.admin.name}:{server.admin.password}".encode()).decode()
    try:
        bearer = f"Bearer {get('/auth/token', f'Basic {login}')['token']}"
        repositories = get("/api/v0/repositories", bearer)["repositories"]
        tags = [
            tag
            for repository in repositories
            for tag in get(
                f"/api/v0/repositories/{repository['namespace']}/{repository['name']}/tags?domain={server.host}", bearer
            )
        ]
    finally:
        connection.close()
    return LoopReading(
        repositories=len(repositories),
        tags=len(tags),
        not_true=sum(tag["inNotary"] is not True for tag in tags),
        overwritten=sum(tag["inNotary"] is True and tag["hashMismatch"] is True for tag in tags),
    )


def _contrast(loop: LoopReading, run: Mapping[str, Any], display: Display) -> None:
    tags = run["tags"]
    seen = "every one" if not loop.not_true else f"all but {loop.not_true}"
    if loop.overwritten:
        seen += f", {loop.overwritten} overwritten after signing among them"
    display.pause()
    display.say(
        f"The rule's own curl loop, asked of this registry just now, sees {loop.repositories} of "
        f"{run['repositories']['listed']} repositories and {loop.tags} of {tags['audited']} tags, and prints "
        f'"true" next to {seen}. The audit found {tags["unsigned"] + tags["mismatched"]} tags that are not signed, and '
        f"{tags['untrusted']} whose signature is not to be trusted.",
        style="bold",
    )


def _show_beside(run: Run, display: Display) -> None:
    wrong = [
        f'"{fact["subject"]}" ({fact["rule_id"]}): {fact["answer"]}'
        for fact in run["facts"]
        if fact["status"] == "OPEN"
    ]
    display.pause()
    display.say(
        f"Beside the rule {len(run['facts'])} settings of DTR and of UCP were looked at, which decide nothing. Not as their own "
        f'rules want it: {"; ".join(wrong)}. The report has all of them under "Supporting facts".'
    )


def _make_key(public: Path) -> str:
    """Make a key that signs, in the embedded KMS, as its owner would, and write its public half down; gives its ARN."""
    kms: Any = boto3.client("kms")
    arn: str = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    key = load_der_public_key(kms.get_public_key(KeyId=arn)["PublicKey"])
    kms.close()
    public.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return arn


def _show_what_stands_out(folder: OutputFolder, run: Run, server: DtrServer, display: Display) -> None:
    _show_untrusted(folder, run, display)
    _show_excepted(folder, run, display)
    _contrast(read_as_the_rule_does(server), run, display)
    _show_beside(run, display)


def _show_untrusted(folder: OutputFolder, run: Run, display: Display) -> None:
    """Show the tag that the registry calls signed, and what its trust data says."""
    namespace, name, tag = story_trust.UNTRUSTED
    (found,) = (
        row for row in folder.rows(run) if (row["namespace"], row["repository"], row["tag"]) == (namespace, name, tag)
    )
    display.pause()
    display.say(
        f"The signatures themselves were verified, from the Notary's metadata of {run['trust']['verified']} repositories. The "
        f"registry calls {namespace}/{name}:{tag} signed; the audit does not:"
    )
    display.items([f"{found['verdict']}: {found['reason']}."])


def _show_excepted(folder: OutputFolder, run: Run, display: Display) -> None:
    """Show the finding that is under an exception, in the checklist's own words."""
    checklist = json.loads((folder.path / run["evidence"]["cklb"]).read_text(encoding="utf-8"))
    comment: str = checklist["stigs"][0]["rules"][0]["comments"]
    display.pause()
    display.say(
        "What is excepted stays a finding, in the report and in the checklist (below), but is told of only when it ends:"
    )
    display.items(line.removeprefix("- ") for line in comment.splitlines() if "  exception " in line)


def _introduce(display: Display) -> None:
    display.title("DTR Signature Audit: a demonstration")
    display.say(
        f'{RULE_ID}: "{TITLE}" Is every image tag signed? The audit asks a registry, every night; here twice, a night apart, '
        "with what happens in between. No account, no Docker, no root: the registry and AWS are parts of this process, the "
        "function and the template are the ones that are deployed."
    )


def _show_parts(registry: InMemoryRegistry, server: DtrServer, stack: Stack, display: Display) -> None:
    repositories = registry.repositories()
    count = sum(len(registry.tags(entry.namespace, entry.name, server.host)) for entry in repositories)
    display.title("What was started")
    display.items(
        (
            f"A registry at {server.url}, TLS under an authority of its own: {len(repositories)} repositories of "
            f"{len(story.TEAMS)} teams, {count} tags. It speaks DTR's API, ten entries a page unless asked for more.",
            f"An AWS: template.yaml as the stack {stack.name}: function, tables, bucket, topic, secret, schedule.",
            "A Universal Control Plane, the registry's neighbour, which the audit asks for two settings.",
            f"Two subscribers of the alerts: a mailbox, and a queue of the team {TEAM}.",
        )
    )


def _show_places(output: Path, run: Run, display: Display) -> None:
    display.title("Where it all lies (the first six as in the bucket)")
    partition = f"registry={run['registry']}"
    evidence = run["evidence"]
    display.places(
        {
            f"{output / evidence['report']}": "the report: open it in a browser",
            f"{output / evidence['ckl']}": "the checklist for STIG Viewer 2 and eMASS; .cklb beside it",
            f"{output / evidence['manifest']}": "the sums of all files of the run; .sig beside it is signed by KMS",
            f"{output / EXCEPTIONS_KEY}": "the exceptions, with their owners and ends",
            f"{output / 'findings' / partition}/": "a row for every tag, run by run",
            f"{output / 'runs' / partition}/": "the record of every run",
            f"{output / 'run.json'}": "the record of the last run",
            f"{output / 'alerts.jsonl'}": "what subscribers got of the last run",
            f"{output / 'state'}/": "the tables: what is open, and since when",
            f"{output / 'audit.log'}": "what the function logged",
            f"{output / PUBLIC_KEY}": "the public key, as its owner hands it to an assessor",
        }
    )
    display.say("Whether the files are what the runs wrote, and signed by the owner of that key:")
    display.commands((f".venv/bin/dtr-audit verify {output} --public-key {output / PUBLIC_KEY}",))


def _show_next(output: Path, display: Display) -> None:
    display.title("What next")
    display.say("Ask both nights what an analyst asks Athena (without Q: what can be asked):")
    display.commands((f"make query Q=coverage QUERY_ARGUMENTS='--output {output}'",))
    display.say("Audit a DTR of yours from this machine. It is only read from, and the password is asked for:")
    display.commands(
        (
            "make audit AUDIT_ARGUMENTS='--url https://dtr.example.mil --username auditor'",
            ".venv/bin/dtr-audit audit --help   # a private authority, more domains, …",
        )
    )
    display.say("Deploy it to AWS (the first command gets the SAM CLI into .sam-venv/, and builds):")
    display.commands(
        (
            "make deploy DEPLOY_ARGUMENTS='--parameter-overrides DtrUrl=https://dtr.example.mil \\",
            "    RegistryName=prod-dtr'",
            "aws secretsmanager put-secret-value --secret-id <the output CredentialsSecretArn> \\",
            '    --secret-string file://credentials.json   # {"username": …, "password": …, "ca_bundle": …}',
        )
    )


def _last_two_nights(now: datetime) -> tuple[datetime, datetime]:
    """Give the last two moments at which the template's schedule was due."""
    today = now.replace(hour=_DUE_HOUR, minute=0, second=0, microsecond=0)
    last = today if today <= now else today - timedelta(days=1)
    return last - timedelta(days=1), last


def _spoken(due: datetime) -> str:
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
