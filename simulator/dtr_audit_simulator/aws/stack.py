"""The embedded AWS: template.yaml deployed into moto, in this process, with no account and no network.

    with EmbeddedAws() as aws:
        stack = aws.deploy(Path("template.yaml"), {"DtrUrl": "https://localhost:8443", "RegistryName": "demo"})
        stack.put_secret({"username": "admin", "password": "…"})
        inbox = stack.subscribe_queue()
        os.environ.update(stack.function_environment("AuditFunction"))
        handler(stack.schedule_event("AuditFunction", now), context)
        for message in inbox.messages():
            print(message.subject, message.body)

Inside the `with`, moto answers every boto3 client that this process makes, so that the code under test has no branch for it.
The user's own profile, credentials and AWS settings are hidden until it ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import uuid4

import boto3
from botocore.exceptions import ClientError

from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.aws.environment import give_environment_back, set_level, take_environment, with_partition
from dtr_audit_simulator.aws.state_files import TableFile, encode_binary, read_items, replace_file
from dtr_audit_simulator.aws.subscribers import Mailbox, QueueSubscriber

if TYPE_CHECKING:
    from dtr_audit_simulator.aws.execution import Execution, Step
    from dtr_audit_simulator.aws.in_process import InProcessAws

_SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"  # what EventBridge Scheduler replaces in an Input
_QUIET = {"werkzeug": logging.WARNING, "moto.stepfunctions": logging.CRITICAL}


class DeploymentError(Exception):
    """The template could not be deployed into the embedded AWS."""


class EmbeddedAws:
    """An AWS of this process's own. One at a time: moto's state belongs to the process."""

    _running: ClassVar[bool] = False

    def __init__(self, region: str = "us-east-1") -> None:
        self.region = region
        self._environment: dict[str, str] = {}
        self._moto: InProcessAws | None = None
        self._log_levels: dict[str, int] = {}
        self._stacks: list[Stack] = []

    def __enter__(self) -> Self:
        if EmbeddedAws._running:
            raise RuntimeError("An EmbeddedAws is running in this process already: deploy a second stack into it.")
        EmbeddedAws._running = True
        self._environment = take_environment(self.region)
        # Or else every request is a line on the console, and every error of a step a page of the interpreter's inside.
        self._log_levels = {name: set_level(name, level) for name, level in _QUIET.items()}
        try:
            from dtr_audit_simulator.aws.in_process import InProcessAws  # noqa: PLC0415 (moto reads the AWS profile when imported)

            self._moto = InProcessAws().__enter__()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        """Put everything back as it was."""
        for stack in self._stacks:
            stack.close()
        self._stacks.clear()
        give_environment_back(self._environment)
        if self._moto is not None:
            self._moto.__exit__(None, None, None)
            self._moto = None
        for name, level in self._log_levels.items():
            set_level(name, level)
        EmbeddedAws._running = False

    @property
    def moto(self) -> InProcessAws:
        """What answers. Raises RuntimeError outside the `with`."""
        if self._moto is None:
            raise RuntimeError("An EmbeddedAws answers inside its `with` only.")
        return self._moto

    def deploy(
        self,
        template_path: Path,
        parameters: Mapping[str, str],
        region: str | None = None,
        stack_name: str = "dtr-signature-audit",
    ) -> Stack:
        """Create a stack from a SAM template, as `sam deploy` would; `region` is the embedded AWS's own by default.

        Raises ParameterError for a value the template forbids, DeploymentError for whatever moto cannot do.
        """
        import dtr_audit_simulator.aws.digest_signing  # noqa: PLC0415 (as above; importing it is all it takes)
        import dtr_audit_simulator.aws.state_machine  # noqa: PLC0415 (likewise)
        import dtr_audit_simulator.aws.transactions  # noqa: F401, PLC0415 (likewise)
        from dtr_audit_simulator.aws.resource_types import unsupported_types  # noqa: PLC0415 (as above)

        region = region or self.region
        template = templates.load(template_path)
        values = templates.complete_parameters(template, parameters)
        translated = with_partition(
            templates.translate(templates.with_definitions(template, template_path.parent), region),
            boto3.Session().get_partition_for_region(region),
        )
        unsupported = unsupported_types({resource["Type"] for resource in translated["Resources"].values()})
        if unsupported:
            raise DeploymentError(
                f"moto does not make {', '.join(sorted(unsupported))}: add it to dtr_audit_simulator/aws/resource_types.py."
            )
        stack = Stack(stack_name, region, template_path, template)
        self._stacks.append(stack)
        stack.create(translated, values)
        return stack


class Stack:
    """A deployed template. Made by `EmbeddedAws.deploy`."""

    def __init__(self, name: str, region: str, template_path: Path, template: templates.Template) -> None:
        self.name = name
        self.region = region
        self.outputs: dict[str, str] = {}
        self._template_path = template_path
        self._template = template
        self._physical_ids: dict[str, str] = {}
        self._types: dict[str, str] = {}
        self._mirrored: dict[Path, set[PurePosixPath]] = {}
        session = boto3.Session(region_name=region)
        self.cloudformation = session.client("cloudformation")
        self.dynamodb = session.client("dynamodb")
        self.resource_client = session.resource("dynamodb").meta.client  # the same in Python's own types
        self.functions = session.client("lambda")
        self.s3 = session.client("s3")
        self.scheduler = session.client("scheduler")
        self.secrets = session.client("secretsmanager")
        self.sns = session.client("sns")
        self.sqs = session.client("sqs")
        self.steps = session.client("stepfunctions")

    def create(self, translated: templates.Template, parameters: Mapping[str, str]) -> None:
        """Create the stack's resources from its translated template. Raises DeploymentError."""
        try:
            self.cloudformation.create_stack(
                StackName=self.name,
                TemplateBody=json.dumps(translated),
                Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
                Capabilities=["CAPABILITY_IAM"],
            )
        except ClientError as error:
            raise DeploymentError(f"{self._template_path} does not deploy as {self.name}: {error}") from error
        (described,) = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        resources = self.cloudformation.describe_stack_resources(StackName=self.name)["StackResources"]
        # moto lists a resource whose condition does not hold, without a name.
        named = [resource for resource in resources if "LogicalResourceId" in resource]
        self._physical_ids = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in named}
        self._types = {resource["LogicalResourceId"]: resource["ResourceType"] for resource in named}

    def close(self) -> None:
        """Close the connections of this stack's clients."""
        for client in (
            self.cloudformation,
            self.dynamodb,
            self.resource_client,
            self.functions,
            self.s3,
            self.scheduler,
            self.secrets,
            self.sns,
            self.sqs,
            self.steps,
        ):
            client.close()

    def physical_id(self, logical_id: str) -> str:
        """Give the name or ARN that a resource of the template has in AWS, what `!Ref` gives.

        Raises KeyError for a resource that the template lacks or that its condition left out.
        """
        return self._physical_ids[logical_id]

    # --- The function, as Lambda would run it ---------------------------------------------------------------------

    def function_environment(self, logical_id: str) -> dict[str, str]:
        """Give the function's environment variables as CloudFormation resolved them."""
        variables = self._function(logical_id)["Environment"]["Variables"]
        return {name: str(value) for name, value in variables.items()}  # moto keeps a number a number

    def function_timeout(self, logical_id: str) -> int:
        """Give the function's time limit in seconds."""
        return int(self._function(logical_id)["Timeout"])

    def function_memory(self, logical_id: str) -> int:
        """Give the function's memory in megabytes."""
        return int(self._function(logical_id)["MemorySize"])

    def handler_path(self, logical_id: str) -> tuple[Path, str]:
        """Give the file that holds the function's handler, and the handler's name in it."""
        properties = self._template["Resources"][logical_id]["Properties"]
        module, _, name = properties["Handler"].rpartition(".")
        return self._template_path.parent / properties["CodeUri"] / f"{module}.py", name

    def function_arns(self) -> dict[str, str]:
        """Give the ARN of every function of the stack, by its logical id."""
        return {name: str(self._function(name)["FunctionArn"]) for name in self._logical_ids("AWS::Lambda::Function")}

    def execute(self, logical_id: str, event: dict[str, Any], step: Step) -> Execution:
        """Start an execution of a state machine, and wait for its end; `step` is called for each function that it invokes."""
        from dtr_audit_simulator.aws import state_machine  # noqa: PLC0415 (moto reads the AWS profile when imported)

        return state_machine.execute(self, logical_id, event, step)

    def redrive(self, logical_id: str, execution: Execution, step: Step) -> Execution:
        """Run an execution that did not succeed once more, from the state in which it ended."""
        from dtr_audit_simulator.aws import state_machine  # noqa: PLC0415 (as above)

        return state_machine.redrive(self, logical_id, execution, step)

    def schedule_event(self, logical_id: str, scheduled_time: datetime) -> dict[str, Any]:
        """Give the event that the schedule of a function or machine delivers for `scheduled_time` (which must know its zone)."""
        is_function = self._types[logical_id] == "AWS::Lambda::Function"
        arn = self._function(logical_id)["FunctionArn"] if is_function else self.physical_id(logical_id)
        due = scheduled_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for schedule_id in self._logical_ids("AWS::Scheduler::Schedule"):
            target = self.scheduler.get_schedule(Name=self.physical_id(schedule_id))["Target"]
            if target["Arn"] == arn:
                event: dict[str, Any] = json.loads(target["Input"].replace(_SCHEDULED_TIME, due))
                return event
        raise KeyError(f"{self._template_path} has no schedule for {logical_id}.")

    def _function(self, logical_id: str) -> Any:
        return self.functions.get_function_configuration(FunctionName=self.physical_id(logical_id))

    # --- The parties around it ------------------------------------------------------------------------------------

    def put_secret(self, value: Mapping[str, str]) -> None:
        """Store the registry's credentials where the function looks for them."""
        self.secrets.put_secret_value(
            SecretId=self.outputs["CredentialsSecretArn"], SecretString=json.dumps(dict(value))
        )

    def subscribe_queue(self, filter_policy: Mapping[str, Any] | None = None) -> QueueSubscriber:
        """Subscribe a new queue to the alert topic, if wished only to what an SNS filter policy lets through."""
        queue_url = self.sqs.create_queue(QueueName=f"subscriber-{uuid4()}")["QueueUrl"]
        described = self.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        subscribed = self.sns.subscribe(
            TopicArn=self.outputs["AlertTopicArn"],
            Protocol="sqs",
            Endpoint=described["Attributes"]["QueueArn"],
            Attributes={"FilterPolicy": json.dumps(filter_policy)} if filter_policy else {},
        )
        return QueueSubscriber(
            self.sqs, queue_url, lambda: self.sns.unsubscribe(SubscriptionArn=subscribed["SubscriptionArn"])
        )

    def subscribe_mailbox(self) -> Mailbox:
        """Subscribe a mail address to the alert topic: the messages' text for people."""
        return Mailbox(self.outputs["AlertTopicArn"], self.region)

    # --- What remains, in files -----------------------------------------------------------------------------------

    def dump_tables(self, folder: Path) -> None:
        """Write every table of the stack into `<folder>/<logical id>.jsonl`, an item a line in the order of its keys.

        Each value carries its DynamoDB type. A file is replaced as a whole or not at all.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for logical_id in self._logical_ids("AWS::DynamoDB::Table"):
            table = TableFile(self.dynamodb, self.physical_id(logical_id))
            lines = [json.dumps(item, sort_keys=True, default=encode_binary) for item in table.read()]
            replace_file(folder / f"{logical_id}.jsonl", "".join(f"{line}\n" for line in lines).encode())

    def load_tables(self, folder: Path) -> None:
        """Put what `dump_tables` wrote back into the tables; a table without a file stays as it is.

        Raises StateFileError, before anything is written, naming the file and line that cannot be an item.
        """
        files = {logical_id: folder / f"{logical_id}.jsonl" for logical_id in self._logical_ids("AWS::DynamoDB::Table")}
        contents = []
        for logical_id, file in files.items():
            if file.exists():
                table = TableFile(self.dynamodb, self.physical_id(logical_id))
                contents.append((table, read_items(file, table)))
        for table, items in contents:
            table.write(items)

    def mirror_bucket(self, folder: Path) -> None:
        """Copy every current object of the bucket to `<folder>/<key>`.

        Files are added and replaced. A file is removed only if an earlier call on this stack put it there and its
        object has been deleted since: whatever else lies in `folder` stays.
        """
        bucket = self.outputs["BucketName"]
        present: set[PurePosixPath] = set()
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for listed in page.get("Contents", []):
                key = PurePosixPath(listed["Key"])
                if key.is_absolute() or ".." in key.parts or str(key) != listed["Key"]:
                    raise ValueError(f"The object {listed['Key']!r} of {bucket} cannot be a file below {folder}.")
                body = self.s3.get_object(Bucket=bucket, Key=listed["Key"])["Body"]
                with body:
                    replace_file(folder / key, body.read())
                present.add(key)
        folder = folder.absolute()
        for key in self._mirrored.get(folder, set()) - present:
            (folder / key).unlink(missing_ok=True)
        self._mirrored[folder] = present

    def _logical_ids(self, resource_type: str) -> list[str]:
        return sorted(logical_id for logical_id, kind in self._types.items() if kind == resource_type)
