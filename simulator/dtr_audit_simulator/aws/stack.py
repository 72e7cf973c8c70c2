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

import base64
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import uuid4

import boto3
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

from dtr_audit_simulator.aws import template as templates

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_sqs.client import SQSClient

    from dtr_audit_simulator.aws.execution import Execution, Step
    from dtr_audit_simulator.aws.in_process import InProcessAws

_SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"  # what EventBridge Scheduler replaces in an Input
_BATCH = 25  # items in one BatchWriteItem
_RECEIVE = 10  # messages in one ReceiveMessage
ACCESS_KEY = "embedded"
_QUIET = {"werkzeug": logging.WARNING, "moto.stepfunctions": logging.CRITICAL}


class DeploymentError(Exception):
    """The template could not be deployed into the embedded AWS."""


class StateFileError(Exception):
    """A file written by `Stack.dump_tables` cannot be loaded again."""


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
        self._environment = _take_environment(self.region)
        # Or else every request is a line on the console, and every error of a step a page of the interpreter's inside.
        self._log_levels = {name: _set_level(name, level) for name, level in _QUIET.items()}
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
        _give_environment_back(self._environment)
        if self._moto is not None:
            self._moto.__exit__(None, None, None)
            self._moto = None
        for name, level in self._log_levels.items():
            _set_level(name, level)
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
        translated = _with_partition(
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


def _set_level(name: str, level: int) -> int:
    """Set the level of a log; give what it was."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(level)
    return before


def _take_environment(region: str) -> dict[str, str]:
    """Put the user's AWS settings out of sight and dummies in their place; give what was there before."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("AWS_"):  # profiles, credentials, per-service endpoints, FIPS, CA bundles
            del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID=ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY="embedded",  # noqa: S106 (moto wants one, and checks none)
        AWS_REGION=region,
        AWS_DEFAULT_REGION=region,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        VALIDATE_LAMBDA_S3="false",  # moto's: the function's code runs in this process, none is uploaded
    )
    without_proxy = ",".join(filter(None, [before.get("no_proxy") or before.get("NO_PROXY"), "127.0.0.1,localhost"]))
    os.environ.update(no_proxy=without_proxy, NO_PROXY=without_proxy)  # the lower-case one wins where both are read
    boto3.DEFAULT_SESSION = None  # it remembers credentials of the environment it was made in
    return before


def _give_environment_back(before: Mapping[str, str]) -> None:
    ours = {"VALIDATE_LAMBDA_S3", "NO_PROXY", "no_proxy"}
    for name in [name for name in os.environ if name.startswith("AWS_") or name in ours]:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name.startswith("AWS_") or name in ours})
    boto3.DEFAULT_SESSION = None


def _with_partition(node: Any, partition: str) -> Any:
    """Spell out AWS::Partition, which moto's CloudFormation takes for `aws` in every region."""
    if node == {"Ref": "AWS::Partition"}:
        return partition
    if isinstance(node, dict):
        return {key: _with_partition(value, partition) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_partition(value, partition) for value in node]
    if isinstance(node, str):
        return node.replace("${AWS::Partition}", partition)
    return node


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the alert topic as one subscriber got it; `text` is the part meant for its protocol."""

    message_id: str
    subject: str | None
    text: str
    attributes: Mapping[str, Any]

    @property
    def body(self) -> Any:
        """Parse the text, which is JSON for machines. Raises ValueError for a text that is none."""
        return json.loads(self.text)


def _read_attributes(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: json.loads(attribute["Value"]) if attribute["Type"] in {"String.Array", "Number"} else attribute["Value"]
        for name, attribute in attributes.items()
    }


class QueueSubscriber:
    """An SQS queue subscribed to a topic: what a program of another team would read."""

    def __init__(self, sqs: SQSClient, queue_url: str, unsubscribe: Callable[[], object]) -> None:
        self._sqs = sqs
        self._unsubscribe = unsubscribe
        self.queue_url = queue_url

    def close(self) -> None:
        """End the subscription. moto delivers to the first hundred subscribers of a topic only."""
        self._unsubscribe()
        self._sqs.delete_queue(QueueUrl=self.queue_url)

    def messages(self) -> list[Message]:
        """Take the messages that arrived since the last call, oldest first."""
        taken: list[Message] = []
        while True:
            batch = self._sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=_RECEIVE)
            for received in batch.get("Messages", []):
                envelope = json.loads(received["Body"])
                taken.append(
                    Message(
                        message_id=envelope["MessageId"],
                        subject=envelope.get("Subject"),
                        text=envelope["Message"],
                        attributes=_read_attributes(envelope.get("MessageAttributes", {})),
                    )
                )
                self._sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=received["ReceiptHandle"])
            if not batch.get("Messages"):
                return taken


class Mailbox:
    """What arrives at an address subscribed to a topic by mail. moto sends no mail; it remembers what was published."""

    def __init__(self, topic_arn: str, region: str) -> None:
        from moto.sns.models import sns_backends  # noqa: PLC0415 (as above)

        account = topic_arn.split(":")[4]
        self._topic = sns_backends[account][region].topics[topic_arn]
        self._taken = len(self._topic.sent_notifications)

    def messages(self) -> list[Message]:
        """Take the mails that arrived since the last call, oldest first."""
        published = self._topic.sent_notifications[self._taken :]
        self._taken += len(published)
        return [
            Message(
                message_id=message_id,
                subject=subject,
                text=_mail_text(message),
                attributes=_read_attributes(attributes or {}),
            )
            for message_id, message, subject, attributes, _ in published
        ]


def _mail_text(published: str) -> str:
    """Choose what the email protocol gets of a message published with MessageStructure=json."""
    try:
        by_protocol = json.loads(published)
    except ValueError:
        return published
    if not isinstance(by_protocol, dict) or "default" not in by_protocol:
        return published
    return str(by_protocol.get("email", by_protocol["default"]))


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
            table = _Table(self.dynamodb, self.physical_id(logical_id))
            lines = [json.dumps(item, sort_keys=True, default=_encode_binary) for item in table.read()]
            _replace_file(folder / f"{logical_id}.jsonl", "".join(f"{line}\n" for line in lines).encode())

    def load_tables(self, folder: Path) -> None:
        """Put what `dump_tables` wrote back into the tables; a table without a file stays as it is.

        Raises StateFileError, before anything is written, naming the file and line that cannot be an item.
        """
        files = {logical_id: folder / f"{logical_id}.jsonl" for logical_id in self._logical_ids("AWS::DynamoDB::Table")}
        contents = []
        for logical_id, file in files.items():
            if file.exists():
                table = _Table(self.dynamodb, self.physical_id(logical_id))
                contents.append((table, _read_items(file, table)))
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
                    _replace_file(folder / key, body.read())
                present.add(key)
        folder = folder.absolute()
        for key in self._mirrored.get(folder, set()) - present:
            (folder / key).unlink(missing_ok=True)
        self._mirrored[folder] = present

    def _logical_ids(self, resource_type: str) -> list[str]:
        return sorted(logical_id for logical_id, kind in self._types.items() if kind == resource_type)


class _Table:
    """One table, read and written whole."""

    def __init__(self, dynamodb: DynamoDBClient, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name
        description = dynamodb.describe_table(TableName=name)["Table"]
        self.keys = [key["AttributeName"] for key in description["KeySchema"]]
        self.indexed = {
            attribute["AttributeName"]: attribute["AttributeType"] for attribute in description["AttributeDefinitions"]
        }

    def read(self) -> list[dict[str, Any]]:
        """Give every item in the order of its keys."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self._name, ConsistentRead=True)
        items: list[dict[str, Any]] = [dict(item) for page in pages for item in page["Items"]]
        for item in items:
            for value in item.values():
                _sort_sets(value)
        return sorted(items, key=lambda item: [str(item[key]) for key in self.keys])

    def write(self, items: Sequence[dict[str, Any]]) -> None:
        """Put the items, replacing those with the same keys."""
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            self._dynamodb.batch_write_item(
                RequestItems={self._name: [{"PutRequest": {"Item": item}} for item in batch]}
            )


def _sort_sets(value: dict[str, Any]) -> None:
    """Order the elements of sets, which DynamoDB gives in any order."""
    ((kind, content),) = value.items()
    if kind in {"SS", "NS", "BS"}:
        content.sort()
    elif kind == "L":
        for element in content:
            _sort_sets(element)
    elif kind == "M":
        for element in content.values():
            _sort_sets(element)


def _encode_binary(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"A DynamoDB item cannot hold a {type(value).__name__}.")


def _decode(value: dict[str, Any]) -> dict[str, Any]:
    """Turn a value of a file into one that the client takes: binary ones are base64 there. Raises for a wrong one."""
    ((kind, content),) = value.items()
    if kind == "B":
        return {kind: base64.b64decode(content, validate=True)}
    if kind == "BS":
        return {kind: [base64.b64decode(element, validate=True) for element in content]}
    if kind == "L":
        return {kind: [_decode(element) for element in content]}
    if kind == "M":
        return {kind: {name: _decode(element) for name, element in content.items()}}
    for number in {"N": [content], "NS": content}.get(kind, []):
        if not Decimal(number).is_finite():
            raise ValueError(f"{number} is no number")
    return value


def _read_items(file: Path, table: _Table) -> list[dict[str, Any]]:
    """Parse a file of `Stack.dump_tables`. Raises StateFileError."""
    items: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for number, line in _lines(file):
        try:
            item = _parse_item(line, table)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise StateFileError(
                f"{file}, line {number}, is no item of this table ({error!r}). Restore the file, or delete it to "
                "start without what earlier runs knew: every finding is then announced as new."
            ) from error
        identity = json.dumps([item[key] for key in table.keys], default=_encode_binary)
        if identity in seen:
            raise StateFileError(
                f"{file}, line {number}, has the same key as line {seen[identity]}. Delete the wrong one."
            )
        seen[identity] = number
        items.append(item)
    return items


def _parse_item(line: str, table: _Table) -> dict[str, Any]:
    item = {name: _decode(value) for name, value in json.loads(line).items()}
    TypeDeserializer().deserialize({"M": item})
    for name, kind in table.indexed.items():
        if (name in item or name in table.keys) and not item[name][kind]:
            raise ValueError(f"{name} is empty")
    return item


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        content = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StateFileError(
            f"{file} is not UTF-8 text ({error}). Restore the file, or delete it to start anew."
        ) from error
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield number, line


def _replace_file(file: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    partial.replace(file)
