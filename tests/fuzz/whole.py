"""The whole function in the embedded AWS, and the report step from what steps have left, with mutants on their way.

Both need a deployed stack, and so some seconds before the first case.
"""

import gzip
import importlib
import json
from contextlib import closing
from functools import cached_property
from random import Random

from dtr_audit.core.model import Repository
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.http import transport
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.accounts import Account, Accounts
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.transport import Request, Response
from tests.fuzz.mutators import mutate_bytes, mutate_json
from tests.fuzz.oracle import UNFORESEEN, find_readings, may_be_signed, require
from tests.fuzz.step_documents import PASSES, SCENARIOS, Left, make_runs
from tests.fuzz.targets import ANSWERS, SECRETS, make_change
from tests.fuzz.wire import Change, Plain, Served, leave
from tests.fuzz.world import PASSWORD, USERNAME
from tests.harness.audit_harness import Audited
from tests.harness.fake_clock import IMPATIENT
from tests.harness.stack_state import StackState

DOCUMENTS = ("inventory.json", "proof.json", "exceptions.json", "results/00001.json", "results/00001.findings.jsonl.gz")
WITHOUT_BODY = frozenset({204, 304})


class FuzzedServer(DtrServer):
    """A simulated registry whose answers are changed on their way."""

    def __init__(self, registry: InMemoryRegistry) -> None:
        super().__init__(registry, accounts=Accounts([Account(USERNAME, PASSWORD, is_admin=True)]))
        self.change: Change = leave
        self.served: list[Served] = []

    def _answer(self, request: Request) -> Response:
        response = super()._answer(request)
        if response.stream is not None or response.wire is not None:
            return response
        answer = self.change(self.host, request, Plain(response.status, response.body, dict(response.headers)))
        self.served.append(Served(self.host, request, answer))
        # Its own length is said by the server, and a header that cannot be written is not.
        headers = tuple((name, value) for name, value in answer.headers.items() if value and name != "Content-Length")
        body = b"" if answer.status in WITHOUT_BODY else answer.body
        return Response(answer.status, body, response.content_type, headers)


class Deployed:
    """A stack, and what honest runs have left in it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.doing = ""  # what the present case has mutated

    @cached_property
    def runs(self) -> dict[str, Left]:
        """What the steps of each scenario have left."""
        return make_runs(self.stack)


def fuzz_audit(deployed: Deployed, target: str, seed: int) -> None:
    """Audit a registry by the deployed function, through TLS, with one kind of answers mutated."""
    random = Random(f"{target} {seed} run")
    kind = random.choice(list(ANSWERS))
    registry = InMemoryRegistry()
    for number in range(3):
        registry.push("pay", f"api-{number}", "1.0")
        registry.push("pay", f"api-{number}", "1.0.sig")
        registry.sign("pay", f"api-{number}", "1.0")
    before = StackState.take(deployed.stack)
    try:
        with FuzzedServer(registry) as server, closing(Audited(deployed.stack, server)) as audited:
            audited.put_secret(username=USERNAME, password=PASSWORD)
            change, name = make_change(server.host, ANSWERS[kind][1], f"{target} {seed}")
            server.change = change
            deployed.doing = f"{kind}, {name}"
            record = audited.audit(PAGE_SIZE="10")
            check_audit(audited, server, record)
    finally:
        before.restore()
        REDACTOR.forget()  # a mutated token may be a word that the next case's names are made of


def check_audit(audited: Audited, server: FuzzedServer, record: dict[str, object]) -> None:
    """Hold all that an audit has left against the answers."""
    text = json.dumps(record)
    for words in UNFORESEEN:
        require(words not in text, f"an unforeseen error: {text[:800]}")
    objects = [(key, audited.read(key)) for kind in ("findings", "runs", "evidence") for key in audited.keys(kind)]
    texts = [text, *(message.text for message in (*audited.messages(), *audited.mails()))]
    texts += [
        (gzip.decompress(body) if key.endswith(".gz") else body).decode("utf-8", "replace") for key, body in objects
    ]
    texts.append(json.dumps(audited.findings(), default=str))
    for secret in SECRETS:
        require(not any(secret.lower() in one.lower() for one in texts), "a secret has left the process")
    verdicts = audited.verdicts(str(record["run_id"]))
    for image, verdict in verdicts.items():
        repository, _, tag = image.partition(":")
        path = f"/api/v0/repositories/{Repository(*repository.split('/'))}/tags"
        readings = find_readings(server.served, path).values()
        if verdict == "SIGNED":
            require(any(may_be_signed(pages, tag) for pages in readings), f"{image} is SIGNED, and no answer says so")
        require(verdict is not None, f"{image} is no artifact")
    if record["status"] == "NOT_A_FINDING":
        # The images named like signatures are not signed: by an honest answer none passes.
        require(set(verdicts.values()) <= {"SIGNED"}, "a pass with tags that are not signed")


def fuzz_steps(deployed: Deployed, target: str, seed: int) -> None:
    """Make the report of a run from the documents of its steps, one of them mutated."""
    random = Random(f"{target} {seed}")
    scenario = random.choice(list(SCENARIOS))
    left = deployed.runs[scenario]
    name = random.choice([one for one in DOCUMENTS if one in left.documents])
    content = left.documents[name]
    is_structure = name.endswith(".json") and random.randrange(2) == 0
    mutant = mutate_json(content, random) if is_structure else mutate_bytes(content, random)
    deployed.doing = f"{scenario}, {name}, {'structure' if is_structure else 'bytes'}"
    reported = left.report({name: mutant})
    require(not reported.is_leased, "the lease was not released")
    if str(reported.run.status) == "NOT_A_FINDING":
        require(scenario in PASSES, f"a pass of {scenario}")
        require(reported.run.complete and reported.run.findings.open == 0, "a pass that is none")
    resealed = left.report({name: mutant}, is_resealed=True)
    require(not resealed.is_leased, "the lease was not released")


def without_waiting() -> None:
    """Wait as often as in production, but not as long."""
    for name, seconds in IMPATIENT.items():
        module, _, constant = name.rpartition(".")
        setattr(importlib.import_module(f"dtr_audit.{module}"), constant, seconds)
    transport.RETRY_AFTER_LIMIT_SECONDS = 0.5
