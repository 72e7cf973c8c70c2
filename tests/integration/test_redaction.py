"""A registry, a Notary and a UCP that repeat all that they are sent: no secret leaves the process by any way."""

import base64
import gzip
import io
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from dtr_audit.aws.logger import SERVICE, make_logger
from dtr_audit.trust.notary.cache import parse_memory
from dtr_audit_simulator.aws.invocation import invoke
from dtr_audit_simulator.dtr.fault_kinds import EVERY_CALL, Calls, Echo, Status, tags_of
from dtr_audit_simulator.dtr.faults import CHALLENGE, CHANGEFEED, REPOSITORIES, SETTINGS, TOKEN, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.ucp.server import AUTHENTICATION, CONFIGURATION, LOGIN, Configuration, UcpServer
from tests.harness.audit_harness import Audited
from tests.harness.step_functions_harness import StepFunctionsRun

PIECE = 16  # characters of a secret, and more, are a secret
LATER_SETTINGS = SETTINGS.limited(after=1)

# Each place of an answer to one repository's tags; the others are read beside it.
OF_TAGS = ("names", "fields", "encoding", "errors", "refusals", "redirects", "documents", "count", "broken-header")
EVERYWHERE = (
    Echo("broken-header", EVERY_CALL),
    Echo("names", REPOSITORIES),
    Echo("errors", Calls("/api/v0/imagescan/status")),
    Echo("refusals", LATER_SETTINGS),
    *(Echo(place, tags_of(f"echo/{place}")) for place in OF_TAGS),
)
# Where, and at which stage of a run: each of these costs the run its completeness.
SCENARIOS = {
    "before login": (Echo("encoding", CHALLENGE),),
    "before login, the place for tokens": (Echo("realm", CHALLENGE),),
    "login, encoding": (Echo("encoding", TOKEN), Echo("encoding", SETTINGS)),
    "login, errors": (Echo("redirects", CHALLENGE), Echo("errors", TOKEN), Echo("errors", SETTINGS)),
    "login, refusals": (Echo("refusals", SETTINGS), Echo("documents", TOKEN)),
    "login, the registry's name": (Echo("settings", SETTINGS),),
    "list, encoding": (Echo("encoding", REPOSITORIES),),
    "list, errors": (Echo("errors", REPOSITORIES), Echo("encoding", LATER_SETTINGS)),
    "list, headers": (Echo("count", REPOSITORIES), Echo("cursor", REPOSITORIES)),
    "everywhere": EVERYWHERE,
}
# Each for the trust data of a repository of its own.
OF_NOTARY = ("documents", "errors", "encoding", "realm", "redirects")


class Watched:
    """One audited registry, and everything that leaves the process that audits it."""

    def __init__(self, audited: Audited, log: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
        self.audited = audited
        self.reported: list[str] = []  # what was returned and raised
        self.secrets: set[str] = set()
        self._log = log
        self._capsys = capsys

    def know(self, username: str, password: str) -> None:
        """Take down a password, and the pair that HTTP Basic makes of it."""
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        self.secrets |= {password, pair, pair.replace("+", "-").replace("/", "_").rstrip("=")}

    def note(self, request: Any) -> None:
        """Take down what a request holds that is secret."""
        value = request.header("authorization").partition(" ")[2]
        self.secrets |= {value, value.replace("+", "-").replace("/", "_")} - {""}

    def audit(self, engine: str, **environment: Any) -> dict[str, Any]:
        """Make a run by one of the engines; gives its record, or the summary of it."""
        environment = {"CONCURRENCY": "4", **environment}
        run = (
            self.audited.audit(**environment)
            if engine == "lambda"
            else StepFunctionsRun(self.audited, environment).execute()
        )
        self.reported.append(json.dumps(run))
        return run

    def outputs(self) -> dict[str, str]:
        """Give each output as text."""
        audited, s3 = self.audited, self.audited.stack.s3
        bucket = audited.stack.outputs["BucketName"]
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        printed = self._capsys.readouterr()
        findings = audited.items("FindingsTableName")
        return {
            **{key: key + _text(audited.read(key)) for key in keys if f"registry={audited.name}/" in key},
            "the findings table": json.dumps(findings, default=str, ensure_ascii=False),
            "what is remembered": "".join(_remembered(findings)),
            "the runs table": json.dumps(audited.items("RunsTableName"), default=str, ensure_ascii=False),
            "messages": "\n".join(f"{m.subject}\n{m.text}\n{m.attributes}" for m in audited.messages()),
            "mails": "\n".join(f"{m.subject}\n{m.text}\n{m.attributes}" for m in audited.mails()),
            "the log": self._log.getvalue(),
            "what was printed": printed.out + printed.err,
            "what was returned and raised": "\n".join(self.reported),
        }

    def assert_nothing_left(self) -> None:
        """Search every output for every secret, whole and in pieces, in any letter case."""
        secrets = {secret.lower() for secret in self.secrets}
        whole = {secret for secret in secrets if len(secret) < PIECE}
        pieces = {secret[at : at + PIECE] for secret in secrets for at in range(len(secret) - PIECE + 1)}
        # Each piece holds one of these.
        parts = {secret[at : at + 8] for secret in secrets - whole for at in range(0, len(secret) - 7, 8)}
        for name, output in self.outputs().items():
            text = output.lower()
            found = [secret for secret in whole if secret in text]
            if any(part in text for part in parts):
                found += [piece for piece in pieces if piece in text]
            assert not found, f"{name} holds {found[0]!r}"


def _text(content: bytes) -> str:
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    text = content.decode(errors="replace")
    # Without JSON's escapes, too.
    return text + text.replace('\\"', '"').replace("\\\\", "\\") if "\\" in text else text


def _remembered(items: Iterable[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        if "trust" in item:
            for content in parse_memory(json.loads(item["trust"])).documents.values():
                yield content.decode(errors="replace")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The function's log, of all modules, in full; and what libraries log beside it."""
    logger = make_logger()
    handler = logging.getLogger(SERVICE).handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    before, level = handler.setStream(stream), logging.getLogger(SERVICE).level
    logger.setLevel("DEBUG")
    others = logging.StreamHandler(stream)
    logging.getLogger().addHandler(others)
    yield stream
    logging.getLogger().removeHandler(others)
    logger.setLevel(level)
    handler.setStream(before)


@pytest.fixture
def watched(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> Watched:
    registry.push("web", "shop", "1.0")
    registry.push("web", "shop", "1.1")
    registry.sign("web", "shop", "1.0")
    registry.push("ops", "tools", "2")
    for place in OF_TAGS:
        registry.push("echo", place, "1")
    watched = Watched(audited, log, capsys)
    watched.know(dtr.admin.name, dtr.admin.password)
    dtr.on_request(watched.note)
    return watched


@pytest.mark.parametrize("engine", ["lambda", "steps"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_registry_that_echoes_what_it_was_sent_puts_no_secret_into_any_output(
    watched: Watched, dtr: DtrServer, scenario: str, engine: str
) -> None:
    dtr.faults = Faults(echoes=SCENARIOS[scenario])
    run = watched.audit(engine, EVIDENCE_FORMATS="report,ckl,cklb,xccdf,hdf")
    assert run["status"] != "NOT_A_FINDING"
    watched.assert_nothing_left()


@pytest.mark.parametrize("engine", ["lambda", "steps"])
def test_a_notary_that_echoes_what_it_was_sent_puts_no_secret_into_any_output(
    watched: Watched, registry: InMemoryRegistry, dtr: DtrServer, engine: str
) -> None:
    echoes = [Echo("documents", CHANGEFEED)]
    for place in OF_NOTARY:
        registry.push("trust", place, "1")
        dtr.notary.create(f"{dtr.host}/trust/{place}").add_signer("ci")
        echoes.append(Echo(place, Calls(f"/v2/*/trust/{place}/_trust/tuf/*")))
    dtr.faults = Faults(echoes=tuple(echoes))
    for namespace, tag in (("web", "1.0"), ("web", "1.1")):
        registry.delete_tag(namespace, "shop", tag)
    run = watched.audit(engine, TRUST_VERIFICATION="signatures", DTR_DOMAINS=dtr.host)
    assert run["status"] != "NOT_A_FINDING"
    watched.assert_nothing_left()


@pytest.mark.parametrize("engine", ["lambda", "steps"])
def test_a_ucp_that_echoes_what_it_was_sent_puts_no_secret_into_any_output(
    watched: Watched, dtr: DtrServer, engine: str
) -> None:
    with UcpServer() as ucp:
        watched.audited.put_secret(
            username=dtr.admin.name,
            password=dtr.admin.password,
            ucp_username=ucp.admin.name,
            ucp_password=ucp.admin.password,
            ucp_ca_bundle=ucp.ca_bundle,
        )
        watched.know(ucp.admin.name, ucp.admin.password)
        ucp.on_request(watched.note)

        def echo(request: Any) -> None:
            token = request.header("authorization").removeprefix("Bearer ")
            texts = (token, f"x{ucp.admin.password.upper()}x", "y" * 55 + ucp.admin.password, token[30:60].swapcase())
            ucp.configuration = Configuration(
                backend=ucp.admin.password, require_signature_from=texts, allow_repos=texts
            )

        ucp.on_request(echo, CONFIGURATION.path)
        for calls in (AUTHENTICATION, LOGIN):
            ucp.faults = Faults(secrets_echoed=calls, on_calls=(Status(400, calls),))
            watched.audit(engine, UCP_URL=ucp.url)
        watched.assert_nothing_left()


@pytest.mark.parametrize(
    "password",
    [
        "Summer.2026!",
        'quoted"and\\slashed',
        "with spaces, ünd <mark>&up?",
        "0123456789abcdef0123456789abcdef",
        "MY-DTR-PASSWORD",
    ],
)
def test_a_password_of_any_form_is_found_in_every_output(watched: Watched, dtr: DtrServer, password: str) -> None:
    dtr.accounts.rotate_password(dtr.admin.name, password)
    watched.audited.put_secret(username=dtr.admin.name, password=password)
    watched.secrets.clear()
    watched.know(dtr.admin.name, password)
    for echoes in (EVERYWHERE, (Echo("refusals", SETTINGS),)):
        dtr.faults = Faults(echoes=echoes)
        assert watched.audit("lambda", EVIDENCE_FORMATS="report,ckl,cklb,xccdf,hdf")["complete"] is False
    watched.assert_nothing_left()


def test_a_tag_whose_name_holds_a_secret_makes_its_repository_unread_and_the_others_are_judged(
    watched: Watched, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    registry.push("ops", "tools", f"v{dtr.admin.password.swapcase()}"[:100])
    run = watched.audit("lambda")
    assert run["complete"] is False
    assert [entry["repository"] for entry in run["unreadable"]] == ["ops/tools"]
    assert "the name of a tag holds a password or a token of this audit" in run["unreadable"][0]["reason"]
    verdicts = watched.audited.verdicts(run["run_id"])
    assert (len(verdicts), verdicts["ops/tools:2"], verdicts["web/shop:1.0"]) == (
        3 + len(OF_TAGS),
        "UNSIGNED",
        "SIGNED",
    )
    watched.assert_nothing_left()


def test_a_repository_whose_name_holds_a_secret_makes_the_run_incomplete(
    watched: Watched, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    registry.push("web", f"x{dtr.admin.password.lower()}", "1")
    run = watched.audit("lambda")
    assert run["complete"] is False
    assert "the name of a repository holds a password or a token of this audit" in run["incomplete_because"][0]
    assert len(watched.audited.verdicts(run["run_id"])) == 3 + len(OF_TAGS)
    watched.assert_nothing_left()


def test_a_finding_whose_author_holds_a_secret_changes_no_more_than_any_other_from_run_to_run(
    watched: Watched, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    registry.push("web", "shop", "1.2", author=f"by {dtr.admin.password}")
    watched.audit("lambda")
    first = watched.audited.findings()["web/shop:1.2"]
    assert first["author"] == "by [removed]"
    watched.audit("lambda")
    assert watched.audited.findings()["web/shop:1.2"]["last_changed"] == first["last_changed"]


def test_an_honest_registry_is_read_though_the_password_is_a_part_of_its_names(
    watched: Watched, registry: InMemoryRegistry, dtr: DtrServer
) -> None:
    registry.push("administrators", "admin", "admin")
    registry.push("webs", "tags1", "1.0-tags1x")
    for password in ("admin", "tags"):  # the user's name, and a part of longer words
        dtr.accounts.rotate_password(dtr.admin.name, password)
        watched.audited.put_secret(username=dtr.admin.name, password=password)
        run = watched.audit("lambda")
        assert (run["complete"], run["repositories"]["audited"]) == (True, 4 + len(OF_TAGS))
        assert "[removed]" not in json.dumps(run)


def test_an_error_that_a_function_raises_holds_no_secret_and_keeps_its_name(
    watched: Watched, dtr: DtrServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError(f"no answer for {dtr.admin.password.upper()}") from ValueError(dtr.admin.password)

    monkeypatch.setattr("dtr_audit.pipeline.connection.Connection.verify_admin", fail)
    with pytest.raises(Exception, match="no answer for") as raised:
        invoke(
            watched.audited.stack,
            "AuditFunction",
            {"scheduled_time": "2026-11-01T03:00:00Z"},
            environment=watched.audited.environment,
        )
    assert type(raised.value).__name__ == "LookupError"
    assert raised.value.__cause__ is None
    watched.reported.append(f"{raised.value!r} {raised.getrepr(style='native')}")
    watched.assert_nothing_left()
