"""The built function, under AWS's own runtime interface client, does what the code in this tree does."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.aws.runtime import (
    BUILD,
    INTERFACE,
    Artifact,
    FunctionError,
    InitError,
    LambdaProcess,
    find_artifact,
)
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.manifests import COSIGN_SIGNATURE, manifest_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.artifact.conftest import FUNCTION, LAYER, STEPS, Start
from tests.harness.audit_harness import Audited

EVENTS = sorted((PROJECT / "events").glob("*.json"))
# What differs between two registries, or two runs of the same event: names, times, and what is derived from them.
_DIFFERENT = {
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00| UTC)?)?": "TIME",
    r"\b\d{8}T\d{6}\.\d{3}Z": "RUN",  # by hand: not given by the event
    r'(?<="expires_at": ")\d+': "TIME",
    r'(?<=_shard": ")REGISTRY#\d+': "SHARD",
    r'(?<="id\\": \\")[0-9a-f]{32}': "ID",
}


@pytest.fixture
def eventful(registry: InMemoryRegistry) -> InMemoryRegistry:
    """A registry with a tag for each verdict, and some signature artifacts."""
    for namespace in ("platform", "web"):
        for tag in ("1.0", "1.1"):
            registry.push(namespace, "base", tag)
            registry.sign(namespace, "base", tag)
        registry.push(namespace, "base", "1.1")  # over a signed tag
        registry.push(namespace, "base", "edge")
        signature = manifest_of(namespace, COSIGN_SIGNATURE)
        registry.push(namespace, "base", "sha256-" + 64 * "a" + ".sig", manifest=signature)
        registry.push(namespace, "gone", "1.0")
    return registry


def left(audited: Audited, run: dict[str, Any]) -> dict[str, Any]:
    """Gather all that a run has left, without its times and without the registry's name."""
    machine = audited.messages()
    everything = {
        "result": run,
        "records": [json.loads(audited.read(key)) for key in audited.keys("runs")],
        "keys": sorted(audited.keys("findings")),
        "rows": sorted(audited.rows(run["run_id"]), key=json.dumps),
        "findings": audited.findings(),
        "messages": [(message.subject, message.text, message.attributes) for message in machine],
        "mails": [(mail.subject, mail.text, mail.attributes) for mail in audited.mails()],
    }
    text = json.dumps(everything, sort_keys=True, default=str)
    text = text.replace(audited.name, "REGISTRY")
    for pattern, name in _DIFFERENT.items():
        text = re.sub(pattern, name, text)
    return dict(json.loads(text))


@pytest.mark.parametrize("event", EVENTS, ids=lambda file: file.stem)
def test_an_event_has_the_result_that_it_has_in_process(
    *, event: Path, start: Start, audited: Audited, deployed: Audited, eventful: InMemoryRegistry, dtr: DtrServer
) -> None:
    given = json.loads(event.read_text(encoding="utf-8"))
    with start(deployed) as function:
        before = {"scheduled_time": "2026-11-20T03:00:00Z"}
        in_process = left(audited, audited.audit(before))
        assert left(deployed, function.invoke(before)) == in_process
        assert in_process["result"]["findings"]["opened"] == 6
        # News of every kind, and a repository that cannot be read.
        eventful.sign("platform", "base", "edge")
        eventful.push("platform", "base", "1.0")
        eventful.delete_repository("platform", "gone")
        dtr.faults = Faults(on_calls=(Status(403, tags_of("web/gone")),))
        in_process = left(audited, audited.audit(given))
        assert left(deployed, function.invoke(given)) == in_process
    assert in_process["rows"]


@pytest.mark.usefixtures("eventful")
def test_a_warm_process_knows_nothing_of_the_event_before(start: Start, deployed: Audited, dtr: DtrServer) -> None:
    with start(deployed) as function:
        first = function.invoke({"scheduled_time": "2026-11-20T03:00:00Z"})
        dtr.accounts.rotate_password(dtr.admin.name)
        deployed.put_secret(username=dtr.admin.name, password=dtr.admin.password)
        second = function.invoke({"scheduled_time": "2026-11-21T03:00:00Z"})
        output = function.output
    assert first["complete"]
    assert second["complete"]
    assert (first["findings"]["opened"], second["findings"]["opened"]) == (6, 0)
    records = list(log_records(output))
    assert {record["cold_start"] for record in records if record["run_id"] == first["run_id"]} == {True}
    assert {record["cold_start"] for record in records if record["run_id"] == second["run_id"]} == {False}


@pytest.mark.usefixtures("eventful")
def test_an_error_is_reported_to_lambda_and_the_next_event_is_answered(start: Start, deployed: Audited) -> None:
    with start(deployed) as function:
        with pytest.raises(FunctionError) as caught:
            function.invoke({"namespace": "platform"})
        assert caught.value.report["errorType"] == "SettingsError"
        assert "event: unknown key 'namespace'" in caught.value.report["errorMessage"]
        assert caught.value.report["stackTrace"]
        assert function.invoke({})["complete"]


@pytest.mark.usefixtures("artifact")
@pytest.mark.parametrize("step", STEPS.values())
def test_each_step_is_loaded_and_refuses_what_no_state_machine_gives_it(
    step: str, handler: str, stack: Stack, audited: Audited
) -> None:
    environment = {**stack.function_environment(FUNCTION), **audited.environment, "AWS_DEFAULT_REGION": "us-east-1"}
    with LambdaProcess(find_artifact(step, LAYER), handler, environment) as function:
        with pytest.raises(FunctionError) as caught:
            function.invoke({"scheduled_time": "2026-11-20T03:00:00Z"})
        assert caught.value.report["errorType"] == "SettingsError"
        assert "step: 'execution'" in caught.value.report["errorMessage"]


@pytest.mark.usefixtures("artifact")
def test_the_built_template_leads_to_the_definition_of_the_state_machine() -> None:
    built = templates.load(BUILD / "template.yaml")["Resources"]["AuditStateMachine"]["Properties"]
    definition = BUILD / built["DefinitionS3Location"]
    assert definition.read_bytes() == (PROJECT / "statemachine" / "audit.asl.json").read_bytes()


@pytest.mark.usefixtures("eventful")
def test_nothing_of_the_secret_is_printed(start: Start, deployed: Audited, dtr: DtrServer) -> None:
    deployed.environment["POWERTOOLS_LOG_LEVEL"] = "DEBUG"
    account = dtr.admin
    with start(deployed) as function:
        assert function.invoke({})["complete"]
        dtr.accounts.rotate_password(account.name)  # while the secret is still the old one
        assert not function.invoke({})["complete"]
        deployed.put_secret(password=account.password)  # without a user name
        run = function.invoke({})
        assert "'username' is missing" in run["incomplete_because"][0]
        output = function.output + json.dumps(run)
    assert '"level":"DEBUG"' in output
    basic = base64.b64encode(f"{account.name}:{account.password}".encode()).decode()
    for secret in (account.password, basic, "BEGIN CERTIFICATE", "Bearer "):
        assert secret not in output


def test_the_function_is_nothing_without_its_layer(artifact: Artifact, handler: str, tmp_path: Path) -> None:
    alone = Artifact(artifact.function, tmp_path)
    with pytest.raises(InitError, match=r"Runtime\.ImportModuleError.*|No module named 'dtr_audit'"):
        LambdaProcess(alone, handler, {}).__enter__()


@pytest.fixture
def probe(artifact: Artifact, tmp_path: Path) -> Iterator[LambdaProcess]:
    """The layer under a handler that tells how it was loaded."""
    (tmp_path / "app.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "audited.py").write_bytes((artifact.function / "app.py").read_bytes())
    environment = {"AWS_DEFAULT_REGION": "us-east-1", "POWERTOOLS_SERVICE_NAME": "probe"}
    with LambdaProcess(Artifact(tmp_path, artifact.layer), "app.handler", environment) as probe:
        yield probe


PROBE = """
import sys
compiled = []
sys.addaudithook(lambda event, of: compiled.append(of[1]) if event == "compile" else None)
import audited, boto3, requests
def handler(event, context):
    from dtr_audit.aws.clients import AwsClients
    clients = AwsClients(connections=1)
    made = [clients.dynamodb, clients.kms, clients.s3, clients.secrets, clients.security_hub, clients.sns]
    return {
        "path": sys.path,
        "compiled": [name for name in compiled if isinstance(name, str)],
        "from": [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())],
        "clients": [client.meta.service_model.service_name for client in made],
    }
"""


def test_only_the_function_the_layer_and_the_interface_are_on_the_path(
    probe: LambdaProcess, artifact: Artifact
) -> None:
    path = probe.invoke({})["path"]
    assert path[1:3] == [str(artifact.packages), str(INTERFACE)]
    assert all(re.search(r"/lib/python3\.?13(\.zip|/lib-dynload)?$", entry) for entry in path[3:])


def test_nothing_of_the_layer_is_compiled_at_a_cold_start(probe: LambdaProcess, artifact: Artifact) -> None:
    reported = probe.invoke({})
    assert [name for name in reported["from"] if name.startswith(f"{artifact.packages}/botocore/")]
    assert [name for name in reported["compiled"] if "audited.py" in name]  # the probe's own copy has no byte code
    assert [name for name in reported["compiled"] if name.startswith(str(artifact.layer))] == []


def test_every_client_can_be_made_with_the_models_that_are_shipped(probe: LambdaProcess) -> None:
    assert probe.invoke({})["clients"] == ["dynamodb", "kms", "s3", "secretsmanager", "securityhub", "sns"]


def log_records(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            if "cold_start" in record:
                yield record
