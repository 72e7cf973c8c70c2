"""Nothing is missing and nothing is spare in what the template grants.

A whole audit, as Lambda makes it, runs under the roles as they are deployed, with nothing but their rights. Then the
roles lose one statement, one action, one resource at a time, and every time the audit must notice.
"""

import copy
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.errors import AuditError
from dtr_audit.evidence import ckl
from dtr_audit.trust.notary.pins import KEY as PINS_KEY
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.aws.invocation import invoke
from dtr_audit_simulator.aws.stack import EmbeddedAws
from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.authority import CertificateAuthority
from tests.evidence.html_report import report
from tests.harness.audit_harness import Audited
from tests.harness.enforcement import (
    Access,
    AccessDeniedError,
    Caller,
    Deployment,
    Gate,
    Role,
    Statement,
    UnknownToTheGateError,
    permits,
)

ACCOUNT = "123456789012"  # the embedded one
LOG_DELIVERY = (
    "CreateLogDelivery",
    "DeleteLogDelivery",
    "DescribeLogGroups",
    "DescribeResourcePolicies",
    "GetLogDelivery",
    "ListLogDeliveries",
    "PutResourcePolicy",
    "UpdateLogDelivery",
)
# What an attempt that was cut off has left in the bucket.
LEFT = ["findings/registry={registry}/dt=2026-11-01/20261101T030000Z-00002.jsonl.gz"]
LEFT_IN_STEPS = ["work/registry={registry}/20261101T030000Z/batches/00009.json"]
COMMERCIAL, GOVCLOUD = "us-east-1", "us-gov-west-1"
AUTHORITY = CertificateAuthority()


ROLES = ("audit", "schedule")
STEPS = ("inventory", "examine", "prove", "report")
ROLES_IN_STEPS = (*STEPS, "machine", "schedule")


class NotCompletedError(Exception):
    """The audit ended and had no answer."""


class OverreachError(Exception):
    """The code in the function may do what only Lambda itself should."""


ENDS = (
    AccessDeniedError,
    AuditError,
    ClientError,
    NotCompletedError,
    OverreachError,
)  # of an audit that has not its rights


# --- Deployments --------------------------------------------------------------------------------------------------


def own_secret(region: str) -> dict[str, str]:
    """A secret that exists already, under a key of its owner."""
    key = new_key(region)
    client = boto3.client("secretsmanager", region_name=region)
    arn = client.create_secret(Name=f"registry-{key[-12:]}", KmsKeyId=key)["ARN"]
    client.close()
    return {"CredentialsSecretArn": arn, "CredentialsSecretKeyArn": key}


def in_vpc(_region: str) -> dict[str, str]:
    return {"VpcSubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1", "VpcSecurityGroupIds": "sg-01234567"}


def new_key(region: str) -> str:
    client = boto3.client("kms", region_name=region)
    arn: str = client.create_key()["KeyMetadata"]["Arn"]
    client.close()
    return arn


def own_topic(region: str) -> dict[str, str]:
    """A topic that exists already, under a key of its owner."""
    key = new_key(region)
    client = boto3.client("sns", region_name=region)
    arn = client.create_topic(Name=f"alerts-{key[-12:]}", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    client.close()
    return {"AlertTopicArn": arn, "AlertTopicKeyArn": key}


def own_baseline(_region: str) -> dict[str, str]:
    """A checklist to answer in; it is put there before the first night."""
    return {"BaselineKey": "baseline/dtr.ckl"}


def own_key(region: str) -> dict[str, str]:
    """A key that exists already, for all that the stack makes."""
    return {"KmsKeyArn": new_key(region)}


def signing_key(region: str) -> dict[str, str]:
    """A key of the customer's that signs manifests."""
    client = boto3.client("kms", region_name=region)
    arn: str = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    client.close()
    return {"ManifestSigningKeyArn": arn}


def security_hub(_region: str) -> dict[str, str]:
    return {"SecurityHub": "true"}


def pinned_trust(_region: str) -> dict[str, str]:
    """Signatures are verified under pinned roots; the pins are put there before the first night."""
    return {"TrustVerification": "signatures", "PinTrust": "true"}


def in_steps(_region: str) -> dict[str, str]:
    return {"Engine": "stepfunctions"}


VARIANTS: dict[str, tuple[str, tuple[Callable[[str], dict[str, str]], ...]]] = {
    "default": (COMMERCIAL, ()),
    "default-in-govcloud": (GOVCLOUD, ()),
    "existing-secret": (COMMERCIAL, (own_secret,)),
    "existing-topic": (GOVCLOUD, (own_topic,)),
    "existing-key": (COMMERCIAL, (own_key,)),
    "existing-baseline": (COMMERCIAL, (own_baseline,)),
    "in-a-vpc": (GOVCLOUD, (in_vpc,)),
    "signing": (COMMERCIAL, (signing_key,)),
    "security-hub": (COMMERCIAL, (security_hub,)),
    "pinned-trust": (COMMERCIAL, (pinned_trust,)),
    "all-options": (
        GOVCLOUD,
        (own_secret, own_topic, own_key, own_baseline, in_vpc, signing_key, security_hub, pinned_trust),
    ),
    "steps": (COMMERCIAL, (in_steps,)),
    "steps-all-options": (
        GOVCLOUD,
        (own_secret, own_topic, own_key, own_baseline, in_vpc, signing_key, security_hub, pinned_trust, in_steps),
    ),
}
# Between them these have every statement.
BOTH_ENDS = ["default", "all-options"]
ALL_ENDS = [*BOTH_ENDS, "steps", "steps-all-options"]


_NUMBERS = itertools.count(1)


class Deployed:
    """The template deployed in one way, with its roles."""

    def __init__(self, aws: EmbeddedAws, gate: Gate, variant: str) -> None:
        self.gate = gate
        self.region, options = VARIANTS[variant]
        chosen = {name: value for option in options for name, value in option(self.region).items()}
        self.stack = aws.deploy(
            PROJECT / "template.yaml",
            {"DtrUrl": "https://dtr.example.com", "RegistryName": "unnamed", **chosen},
            region=self.region,
            # Tests that run side by side may come to a variant, leave it, and come to it again.
            stack_name=f"rights-{next(_NUMBERS)}-{variant}",
        )
        deployment = Deployment(self.stack, ACCOUNT)
        self.in_steps = "Engine" in chosen
        names = (
            {step: f"{step.capitalize()}Function" for step in STEPS} if self.in_steps else {"audit": "AuditFunction"}
        )
        self.functions = {role: deployment.properties_of(name) for role, name in names.items()}
        self.function = next(iter(self.functions.values()))  # for what all have in common
        self.target = deployment.properties("AWS::Scheduler::Schedule")["Target"]
        # Where Lambda keeps an event that nobody waits for.
        self.on_failure = (
            []
            if self.in_steps
            else [
                deployment.properties("AWS::Lambda::EventInvokeConfig")["DestinationConfig"]["OnFailure"]["Destination"]
            ]
        )
        self.signs = bool(self.function["Environment"]["Variables"]["SIGNING_KEY_ARN"])
        self.pins = self.function["Environment"]["Variables"]["PIN_TRUST"] == "true"
        self.keys = deployment.keys() | self._keys_of_others()
        roles = {**{name: each["Role"] for name, each in self.functions.items()}, "schedule": self.target["RoleArn"]}
        if self.in_steps:
            roles["machine"] = deployment.properties_of("AuditStateMachine")["RoleArn"]
        self._role_names = {name: arn.rpartition("/")[2] for name, arn in roles.items()}

    def _keys_of_others(self) -> dict[str, str]:
        """The keys of what the function is told of and the stack has not made."""
        variables = self.function["Environment"]["Variables"]
        secret = self.stack.secrets.describe_secret(SecretId=variables["SECRET_ARN"])
        topic = self.stack.sns.get_topic_attributes(TopicArn=variables["TOPIC_ARN"])["Attributes"]
        keys = {secret["ARN"]: secret.get("KmsKeyId", ""), topic["TopicArn"]: topic.get("KmsMasterKeyId", "")}
        return {arn: key for arn, key in keys.items() if key and not key.startswith("alias/aws/")}

    def arn(self, service: str, resource: str) -> str:
        """Give the ARN of a resource in the region and account of the stack."""
        _, partition, _ = self.function["Role"].split(":", 2)
        return f"arn:{partition}:{service}:{self.region}:{ACCOUNT}:{resource}"

    @property
    def roles(self) -> list[str]:
        """Name the roles."""
        return list(self._role_names)

    def role(self, name: str) -> Role:
        """Read a role as it is at present."""
        return Role.read(self._role_names[name], self.region)

    @contextmanager
    def granting(self, name: str, statements: Collection[Statement]) -> Iterator[None]:
        """Deploy a role with other statements for a while."""
        iam = boto3.client("iam", region_name=self.region)
        role = self._role_names[name]
        (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        before = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        narrowed = {**before, "Statement": list(statements)}
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(narrowed))
        try:
            yield
        finally:
            iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(before))
            iam.close()


@pytest.fixture(scope="module")
def gate(aws: EmbeddedAws) -> Iterator[Gate]:
    with Gate(aws) as gate:
        yield gate


@pytest.fixture(scope="module")
def deploy(aws: EmbeddedAws, gate: Gate) -> Callable[[str], Deployed]:
    """Deploy a variant, once."""
    return cache(lambda variant: Deployed(aws, gate, variant))


@pytest.fixture(scope="module", params=VARIANTS)
def deployed(deploy: Callable[[str], Deployed], request: pytest.FixtureRequest) -> Deployed:
    return deploy(request.param)


# --- A whole audit ------------------------------------------------------------------------------------------------


class Trusted:
    """What is signed in the registry: by its own word, and in trust data under roots that can be pinned."""

    def __init__(self, registry: InMemoryRegistry, server: DtrServer) -> None:
        self._registry = registry
        self._host = server.host
        self._repositories = {name: server.notary.create(f"{server.host}/web/{name}") for name in ("shop", "till")}
        for trust in self._repositories.values():
            trust.add_signer("ci")

    def sign(self, name: str) -> None:
        """Sign what the tag holds now."""
        self._registry.sign("web", name, "1")
        self._repositories[name].sign("1", self._registry.signatures("web", name)["1"], signer="ci")

    def pins(self) -> bytes:
        """Give the document that pins the roots as they are."""
        keys = [key.id for trust in self._repositories.values() for key in trust.keys("root")]
        return json.dumps({"pins": [{"pattern": f"{self._host}/web/*", "root_keys": keys}]}).encode()


class Rehearsal:
    """All that happens under the roles, from the schedule to the second night's alert."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed
        self._baseline: str = deployed.function["Environment"]["Variables"]["BASELINE_KEY"]
        self.roles = {name: deployed.role(name) for name in deployed.roles}
        self.problem: Exception | None = None
        self.assumed: dict[str, set[Access]] = {name: set() for name in self.roles}
        self.needed: dict[str, set[Access]] = {name: set() for name in self.roles}
        self.refused: dict[str, list[Access]] = {name: [] for name in self.roles}
        self.forbidden: set[Access] = set()  # to the audit's code
        self.change_kind: list[set[tuple[str, str]]] = []
        self.parts: list[str] = []  # what lies in findings/ in the end
        try:
            self._make()
        except ENDS as error:
            self.problem = error

    def _make(self) -> None:
        """Do it all, in an order that meets a missing right early."""
        target = self._deployed.target
        with self._caller("schedule", "scheduler.amazonaws.com", {"aws:SourceAccount": ACCOUNT}) as scheduler:
            start = "states:StartExecution" if self._deployed.in_steps else "lambda:InvokeFunction"
            scheduler.demand(start, target["Arn"])
            scheduler.demand("sqs:SendMessage", target["DeadLetterConfig"]["Arn"])
        if self._deployed.in_steps:
            # The machine itself, and the one within it that its batches are executions of.
            for arn in (target["Arn"], f"{target['Arn']}/Batches"):
                source = {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": arn}
                with self._caller("machine", "states.amazonaws.com", source) as machine:
                    self._be_step_functions(machine, target["Arn"])
        with ExitStack() as callers:
            codes: dict[str, Caller] = {}
            for name in self._deployed.functions:
                with self._caller(name, "lambda.amazonaws.com", {}) as aws:
                    for action, resource in self._of_lambda_itself():
                        aws.demand(action, resource)
                function = self._deployed.arn("lambda", f"function:{name}")
                caller = self._caller(name, "lambda.amazonaws.com", {"lambda:SourceFunctionArn": function})
                codes[name] = callers.enter_context(caller)
                for action, resource in self._of_the_network():
                    access = Access(action, resource, codes[name].assumed.context)
                    self.forbidden.add(access)
                    if permits(codes[name].role.statements, access):
                        raise OverreachError(f"the code may {action} on {resource}")
            self._two_days(codes)

    @contextmanager
    def _caller(self, role: str, service: str, context: Mapping[str, str]) -> Iterator[Caller]:
        caller = Caller(self.roles[role], service, self._deployed.keys, context)
        self.assumed[role].add(caller.assumed)
        try:
            yield caller
        finally:
            self.needed[role] |= caller.needed
            self.refused[role] += caller.refused
            assert caller.unknown == []

    def _of_lambda_itself(self) -> Iterator[tuple[str, str]]:
        """What Lambda does around the code with the function's role."""
        group = self._deployed.function["LoggingConfig"]["LogGroup"]
        stream = self._deployed.arn("logs", f"log-group:{group}:log-stream:2026/11/01/[$LATEST]0123456789abcdef")
        yield "logs:CreateLogStream", stream
        yield "logs:PutLogEvents", stream
        yield from (("sqs:SendMessage", queue) for queue in self._deployed.on_failure)
        yield from self._of_the_network()

    def _be_step_functions(self, machine: Caller, arn: str) -> None:
        """Do what Step Functions does with the machine's role, besides reading the list of the batches."""
        for name in self._deployed.stack.function_arns().values():
            machine.demand("lambda:InvokeFunction", name)
        bucket = self._deployed.function["Environment"]["Variables"]["BUCKET"]
        _, partition, _ = arn.split(":", 2)
        batches = "work/registry=prod-dtr/20261101T030000Z/batches.json"
        machine.demand("s3:GetObject", f"arn:{partition}:s3:::{bucket}/{batches}")
        machine.demand("states:StartExecution", arn)
        # By one name in what AWS documents of a fan-out, by the other in what it documents of the ARNs within it.
        execution = arn.replace(":stateMachine:", ":execution:")
        for batch in (f"{execution}:0123", f"{execution}/Batches:0123"):
            for action in ("DescribeExecution", "RedriveExecution", "StopExecution"):
                machine.demand(f"states:{action}", batch)
        key = self._deployed.keys[arn]
        for action in ("kms:Decrypt", "kms:GenerateDataKey"):
            for name in (arn, f"{arn}/Batches"):
                machine.demand(action, key, {"kms:EncryptionContext:aws:states:stateMachineArn": name})
        machine.demand("kms:GenerateDataKey", key, {"kms:EncryptionContext:SourceArn": self._deployed.arn("logs", "*")})
        for action in LOG_DELIVERY:
            machine.demand(f"logs:{action}", "*")

    def _of_the_network(self) -> Iterator[tuple[str, str]]:
        if "VpcConfig" not in self._deployed.function:
            return
        locations = self._deployed.function["VpcConfig"]
        interface = self._deployed.arn("ec2", "network-interface/eni-0123456789abcdef0")
        yield "ec2:DescribeSubnets", "*"
        for subnet in locations["SubnetIds"]:
            yield "ec2:CreateNetworkInterface", self._deployed.arn("ec2", f"subnet/{subnet}")
        for group in locations["SecurityGroupIds"]:
            yield "ec2:CreateNetworkInterface", self._deployed.arn("ec2", f"security-group/{group}")
        yield "ec2:CreateNetworkInterface", self._deployed.arn("ec2", "network-interface/*")
        yield "ec2:DescribeNetworkInterfaces", "*"
        yield "ec2:AssignPrivateIpAddresses", interface
        yield "ec2:UnassignPrivateIpAddresses", interface
        yield "ec2:DeleteNetworkInterface", interface

    def _two_days(self, codes: Mapping[str, Caller]) -> None:
        """Audit a registry, as the retry of an attempt that was cut off; and once more when it has changed."""
        registry = InMemoryRegistry()
        registry.push("web", "shop", "1")
        registry.push("web", "till", "1")
        registry.push("web", "gone", "1")
        stack = self._deployed.stack
        with DtrServer(registry, authority=AUTHORITY) as server:
            trusted = Trusted(registry, server)
            trusted.sign("till")
            audited = Audited(stack, server)
            admitted = {name: self._deployed.gate.admit(code, stack.region) for name, code in codes.items()}
            audited.environment |= {"CONCURRENCY": "1", "FAN_OUT_WORKERS": "1"}
            try:
                audited.put_secret(username=server.admin.name, password=server.admin.password)
                for key in LEFT_IN_STEPS if self._deployed.in_steps else LEFT:
                    stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=key.format(registry=audited.name))
                if self._baseline:
                    stack.s3.put_object(
                        Bucket=stack.outputs["BucketName"], Key=self._baseline, Body=ckl.write(report())
                    )
                stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=EXCEPTIONS_KEY, Body=b'{"exceptions": []}')
                if self._deployed.pins:
                    stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=PINS_KEY, Body=trusted.pins())
                days_taken = DaysTaken(audited, server, admitted)
                self._day(days_taken)
                trusted.sign("shop")
                registry.push("web", "till", "1")
                registry.delete_repository("web", "gone")
                self._day(days_taken)
                self.parts = [key.rpartition("/")[2] for key in audited.keys("findings")]
                if self._deployed.in_steps:
                    days_taken.fail_to_begin()
            finally:
                audited.close()

    def _day(self, days_taken: "DaysTaken") -> None:
        run = days_taken.audit()
        if not run["complete"]:
            raise NotCompletedError(run["incomplete_because"])
        if self._deployed.signs and "signature" not in run["evidence"]:
            raise NotCompletedError(run["warnings"])
        if self._baseline and "merged" not in run["evidence"]:
            raise NotCompletedError(run["warnings"])
        if run["exceptions"]["version_id"] is None:
            raise NotCompletedError(run["exceptions"]["problem"])
        if run["security_hub"] and not run["security_hub"]["up_to_date"]:
            raise NotCompletedError(run["warnings"])
        if self._deployed.pins and (run["trust"]["verified"], run["trust"]["first_use"]) != (2, 0):
            raise NotCompletedError(run["trust"])
        self.change_kind.append(
            {
                (kind, f"{item['repository']}:{item['tag']}")
                for message in days_taken.audited.messages()
                for kind in ("opened", "changed", "resolved")
                for item in message.body[kind]
            }
        )


class DaysTaken:
    """The audits of a registry, by either engine, each function with the credentials of its own role."""

    def __init__(self, audited: Audited, server: DtrServer, admitted: Mapping[str, Mapping[str, str]]) -> None:
        self.audited = audited
        self._server = server
        self._admitted = admitted

    def audit(self) -> dict[str, Any]:
        """Make the audit of the next night; gives the run record."""
        if "audit" in self._admitted:
            self.audited.environment |= self._admitted["audit"]
            return self.audited.audit()
        self.audited.runs += 1
        execution = self.audited.stack.execute("AuditStateMachine", self.audited.event(), self._step)
        if execution.status != "SUCCEEDED":
            raise NotCompletedError(execution.error)
        record: dict[str, Any] = self._record(execution.output["run_id"])
        return record

    def fail_to_begin(self) -> None:
        """Have the first step of another night crash before it has begun: the report closes the run alone."""
        self.audited.runs += 1

        def step(name: str, payload: dict[str, Any]) -> dict[str, Any]:
            if name == "InventoryFunction":
                raise RuntimeError("out of order")
            return self._step(name, payload)

        self.audited.stack.execute("AuditStateMachine", self.audited.event(), step)
        record = self._record(self._run_id())
        if record["exceptions"]["version_id"] is None:
            raise NotCompletedError(record["exceptions"]["problem"])

    def _step(self, name: str, payload: dict[str, Any]) -> dict[str, Any]:
        step = name.removesuffix("Function").lower()
        # One repository is not there while the batches are read, and is when it is looked for.
        missing = (Status(404, tags_of("web/till"), code="NO_SUCH_REPOSITORY"),) if step == "examine" else ()
        self._server.faults = Faults(on_calls=missing)
        # And each step has been cut off once, with some rows of its own written.
        day, batch = f"2026-11-{self.audited.runs:02d}", {"examine": 1, "prove": 2}.get(step, 9)
        rows = f"findings/registry={self.audited.name}/dt={day}/{self._run_id()}-{batch:05d}-009.jsonl.gz"
        stack = self.audited.stack
        stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=rows)
        return invoke(
            self.audited.stack,
            name,
            payload,
            environment={**self.audited.environment, **self._admitted[step]},
        )

    def _run_id(self) -> str:
        return f"202611{self.audited.runs:02d}T030000Z"

    def _record(self, run_id: str) -> dict[str, Any]:
        keys = [key for key in self.audited.keys("runs") if key.endswith(f"/{run_id}.json")]
        if not keys:
            raise NotCompletedError("there is no record")
        record: dict[str, Any] = json.loads(self.audited.read(keys[0]))
        return record


# --- Rights taken away --------------------------------------------------------------------------------------------


def reductions(statements: Sequence[Statement]) -> Iterator[tuple[str, list[Statement]]]:
    """Give, with what was taken away, the statements without one of them, and without one entry of one of its lists."""
    for number, statement in enumerate(statements):
        before, after = list(statements[:number]), list(statements[number + 1 :])
        yield statement["Sid"], before + after
        lists = [statement, *statement.get("Condition", {}).values()]
        for place, of_it in enumerate(lists):
            for name, values in of_it.items():
                if isinstance(values, list) and len(values) > 1:
                    for value in values:
                        shorter = copy.deepcopy(statement)
                        [shorter, *shorter.get("Condition", {}).values()][place][name].remove(value)
                        yield f"{statement['Sid']}: {value}", [*before, shorter, *after]


def spare(statements: Sequence[Statement], needed: set[Access], forbidden: Collection[Access] = ()) -> list[str]:
    """Name what could be taken away, and everything needed would still be permitted, and nothing forbidden."""
    return [
        taken
        for taken, rest in reductions(statements)
        if all(permits(rest, access) for access in needed) and not any(permits(rest, access) for access in forbidden)
    ]


# --- The template's rights ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rehearsal(deployed: Deployed) -> Rehearsal:
    return Rehearsal(deployed)


def test_a_whole_audit_runs_with_the_rights_that_the_template_grants(rehearsal: Rehearsal) -> None:
    assert rehearsal.problem is None
    assert not any(rehearsal.refused.values())
    assert rehearsal.change_kind == [
        {("opened", "web/shop:1"), ("opened", "web/gone:1")},
        {("resolved", "web/shop:1"), ("resolved", "web/gone:1"), ("opened", "web/till:1")},
    ]
    # In steps, one repository was read in the first batch, and one when the missing was looked for.
    parts = ("00001-001", "00002-001") if "machine" in rehearsal.roles else ("00001",)
    days_taken = ("20261101T030000Z", "20261102T030000Z")
    assert rehearsal.parts == [f"{step}-{part}.jsonl.gz" for step in days_taken for part in parts]


def test_no_right_is_spare(rehearsal: Rehearsal) -> None:
    """Each statement, and each action, resource and value of a condition in it, is what some step depends on."""
    assert rehearsal.problem is None
    for name, role in rehearsal.roles.items():
        assert (name, spare(role.statements, rehearsal.needed[name], rehearsal.forbidden)) == (name, [])
        assert (name, spare(role.trust, rehearsal.assumed[name])) == (name, [])


@pytest.mark.parametrize("deployed", BOTH_ENDS, indirect=True)
@pytest.mark.parametrize("name", ROLES)
def test_the_audit_fails_when_any_one_right_is_taken_away(deployed: Deployed, name: str) -> None:
    """What the test above works out from what was asked for, done: each time the whole audit runs, and has to notice."""
    whole = deployed.role(name).statements
    unnoticed = []
    for taken, rest in reductions(whole):
        with deployed.granting(name, rest):
            rehearsal = Rehearsal(deployed)
        refused = rehearsal.refused[name]
        lacking = bool(refused) and all(permits(whole, access) for access in refused)
        if rehearsal.problem is None or not (lacking or isinstance(rehearsal.problem, OverreachError)):
            unnoticed.append((taken, rehearsal.problem))
    assert unnoticed == []


@pytest.mark.parametrize("deployed", ["steps"], indirect=True)
@pytest.mark.parametrize("name", ROLES_IN_STEPS)
def test_an_audit_in_steps_fails_when_any_one_statement_is_taken_away(deployed: Deployed, name: str) -> None:
    whole = deployed.role(name).statements
    unnoticed = []
    for statement in whole:
        with deployed.granting(name, [other for other in whole if other is not statement]):
            rehearsal = Rehearsal(deployed)
        refused = rehearsal.refused[name]
        if rehearsal.problem is None or not refused or not all(permits(whole, access) for access in refused):
            unnoticed.append((statement["Sid"], rehearsal.problem))
    assert unnoticed == []


def test_both_ends_have_every_statement_of_the_template(deploy: Callable[[str], Deployed]) -> None:
    resources = templates.load(PROJECT / "template.yaml")["Resources"].values()
    roles = [resource["Properties"]["Policies"] for resource in resources if resource["Type"] == "AWS::IAM::Role"]
    ends = [deploy(variant) for variant in ALL_ENDS]
    granted = {one["Sid"] for end in ends for name in end.roles for one in end.role(name).statements}
    assert granted == set(re.findall(r'"Sid": "(\w+)"', json.dumps(roles)))


def test_a_condition_holds_for_nothing_but_what_it_names(rehearsal: Rehearsal) -> None:
    for name, statement in ((name, one) for name, role in rehearsal.roles.items() for one in role.statements):
        statements = rehearsal.roles[name].statements
        for key in [key for keys in statement.get("Condition", {}).values() for key in keys]:
            if statement["Effect"] == "Allow":
                used = [access for access in rehearsal.needed[name] if permits([statement], access)]
                assert used
                for access in used:
                    context = {**dict(access.context), key: "another"}
                    assert not permits(statements, replace(access, context=frozenset(context.items())))


# --- That the tests can fail --------------------------------------------------------------------------------------


DEFAULT = pytest.mark.parametrize("deployed", ["default"], indirect=True)


def changed(statements: Sequence[Statement], sid: str, **elements: Any) -> list[Statement]:
    """Give the statements with one of them written in another way."""
    assert sid in {statement["Sid"] for statement in statements}
    return [{**statement, **elements} if statement["Sid"] == sid else statement for statement in statements]


@DEFAULT
def test_a_right_too_many_is_found(rehearsal: Rehearsal) -> None:
    needed, statements = rehearsal.needed["audit"], rehearsal.roles["audit"].statements
    (writing,) = [statement for statement in statements if statement["Sid"] == "WriteArchive"]
    action = changed(statements, "WriteArchive", Action=["s3:PutObject", "s3:GetObject"])
    assert spare(action, needed) == ["WriteArchive: s3:GetObject"]
    elsewhere = writing["Resource"][0].replace("/findings/", "/elsewhere/")
    resource = changed(statements, "WriteArchive", Resource=[*writing["Resource"], elsewhere])
    assert spare(resource, needed) == [f"WriteArchive: {elsewhere}"]
    statement = {"Sid": "ReadBack", "Effect": "Allow", "Action": "s3:GetObjectVersion", "Resource": "*"}
    assert spare([*statements, statement], needed) == ["ReadBack"]
    # What another statement grants as well is spare in both.
    assert spare([*statements, {**writing, "Sid": "Twin"}], needed) == [
        *(
            f"{sid}{entry}"
            for sid in ("WriteArchive", "Twin")
            for entry in ["", *(f": {r}" for r in writing["Resource"])]
        )
    ]


@DEFAULT
def test_a_right_on_the_wrong_resource_is_none(deployed: Deployed) -> None:
    statements = deployed.role("audit").statements
    (runs,) = [statement["Resource"] for statement in statements if statement["Sid"] == "KeepRuns"]
    with deployed.granting("audit", changed(statements, "KeepFindings", Resource=runs)):
        rehearsal = Rehearsal(deployed)
    assert [access.action for access in rehearsal.refused["audit"]] == ["dynamodb:Scan"]
    assert isinstance(rehearsal.problem, ClientError)


@DEFAULT
def test_a_right_that_hangs_on_another_condition_is_none(deployed: Deployed) -> None:
    statements = deployed.role("audit").statements
    with deployed.granting(
        "audit", changed(statements, "FindStaleParts", Condition={"StringLike": {"s3:prefix": "runs/*"}})
    ):
        rehearsal = Rehearsal(deployed)
    assert [access.action for access in rehearsal.refused["audit"]] == ["s3:ListBucket"]
    assert isinstance(rehearsal.problem, ClientError)


@DEFAULT
def test_a_call_that_the_gate_does_not_know_is_refused_by_name(deployed: Deployed, gate: Gate) -> None:
    statement = {"Sid": "Everything", "Effect": "Allow", "Action": "*", "Resource": "*"}
    role = replace(deployed.role("audit"), statements=(statement,))
    caller = Caller(role, "lambda.amazonaws.com", {}, {})
    admitted = gate.admit(caller, deployed.region)
    session = boto3.Session(
        admitted["AWS_ACCESS_KEY_ID"], admitted["AWS_SECRET_ACCESS_KEY"], admitted["AWS_SESSION_TOKEN"]
    )
    bucket, table = deployed.stack.outputs["BucketName"], deployed.stack.outputs["RunsTableName"]
    with (
        closing(session.client("s3")) as s3,
        closing(session.client("dynamodb")) as dynamodb,
        closing(session.client("sns")) as sns,
        closing(session.client("securityhub")) as hub,
    ):
        s3.put_object(Bucket=bucket, Key="runs/known")
        calls: list[Callable[[], object]] = [
            lambda: s3.get_object(Bucket=bucket, Key="runs/known", VersionId="1"),
            lambda: s3.put_object(Bucket=bucket, Key="runs/known", ACL="private"),
            lambda: s3.delete_object(Bucket=bucket, Key="runs/known", VersionId="1"),
            lambda: s3.get_bucket_acl(Bucket=bucket),
            lambda: dynamodb.describe_table(TableName=table),
            lambda: hub.batch_update_findings(FindingIdentifiers=[{"Id": "1", "ProductArn": "x" * 12}]),
            lambda: sns.publish(PhoneNumber="+15550100", Message="one"),
        ]
        for number, call in enumerate(calls, start=1):
            with pytest.raises(ClientError, match=r"AccessDenied.*unknown to the gate"):
                call()
            assert len(caller.unknown) == number
    assert caller.refused == []


@DEFAULT
def test_who_has_not_been_admitted_does_not_pass(deployed: Deployed, gate: Gate) -> None:
    gate.admit(Caller(deployed.role("audit"), "lambda.amazonaws.com", {}, {}), deployed.region)
    with (
        closing(boto3.Session("somebody", "else").client("s3")) as s3,
        pytest.raises(ClientError, match=r"AccessDenied.*has not been admitted"),
    ):
        s3.put_object(Bucket=deployed.stack.outputs["BucketName"], Key="runs/known")


@DEFAULT
def test_no_one_but_the_service_of_this_account_assumes_a_role(deployed: Deployed) -> None:
    for name, service, account in (
        ("audit", "ec2.amazonaws.com", ACCOUNT),
        ("schedule", "lambda.amazonaws.com", ACCOUNT),
        ("schedule", "scheduler.amazonaws.com", "210987654321"),
    ):
        with pytest.raises(AccessDeniedError, match="may not assume"):
            Caller(deployed.role(name), service, {}, {"aws:SourceAccount": account})


READ = Access("s3:GetObject", "arn:aws:s3:::bucket/runs/1", frozenset({("s3:prefix", "runs/")}))


@pytest.mark.parametrize(
    ("statement", "permitted"),
    [
        ({}, True),
        ({"Action": ["s3:PutObject", "S3:GET*"]}, True),
        ({"Action": "s3:Get"}, False),
        ({"Resource": ["arn:aws:s3:::other/*", "arn:aws:s3:::bucket/run?/*"]}, True),
        ({"Resource": "arn:aws:s3:::bucket"}, False),
        ({"Resource": "arn:aws:s3:::BUCKET/*"}, False),
        ({"Effect": "Deny"}, False),
        ({"Condition": {"StringEquals": {"s3:prefix": ["findings/", "runs/"]}}}, True),
        ({"Condition": {"StringEquals": {"s3:prefix": "runs/*"}}}, False),
        ({"Condition": {"StringLike": {"s3:prefix": "runs/*"}}}, True),
        ({"Condition": {"StringLike": {"s3:prefix": "runs/*"}, "Null": {"s3:prefix": "true"}}}, False),
        ({"Condition": {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}}, False),
        ({"Condition": {"Null": {"s3:prefix": "false", "kms:ViaService": "true"}}}, True),
    ],
)
def test_a_statement_says_what_iam_takes_it_for(statement: Statement, permitted: bool) -> None:
    assert (
        permits([{"Sid": "One", "Effect": "Allow", "Action": "s3:*", "Resource": "*", **statement}], READ) is permitted
    )


def test_a_denial_wins_and_what_it_excludes_it_does_not_deny() -> None:
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    assert not permits([allow, {"Effect": "Deny", "Action": "s3:Get*", "Resource": "*"}], READ)
    assert permits([allow, {"Effect": "Deny", "NotAction": "s3:Get*", "Resource": "*"}], READ)
    assert not permits([], READ)


@pytest.mark.parametrize(
    "statement",
    [
        {"NotResource": "*"},
        {"Condition": {"StringNotLike": {"s3:prefix": "runs/*"}}},
        {"Condition": {"StringEquals": {"aws:PrincipalTag/team": "web"}}},
    ],
)
def test_a_word_of_a_policy_that_is_unknown_is_named(statement: Statement) -> None:
    with pytest.raises(UnknownToTheGateError, match=r"NotResource|StringNotLike|PrincipalTag"):
        permits([{"Effect": "Allow", "Action": "*", "Resource": "*", **statement}], READ)
