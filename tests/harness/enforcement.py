"""What IAM would say to every call of an audit, said in front of the embedded AWS.

moto's own enforcement knows no resource but S3's, no value of a condition, and nothing of keys: a right on the wrong table
would pass. The gate stands before moto. It takes requests as they are signed, works out what AWS asks of the caller for each
(the use of the key that encrypts the resource included), and lets it through if the role's policies, as IAM gives them back,
allow all of it. Only requests with the embedded AWS's own credentials, which are those of the tests, pass unasked:

    with Gate(aws) as gate:
        caller = Caller(Role.read("its-name", "us-east-1"), "lambda.amazonaws.com", keys, {})
        os.environ.update(gate.admit(caller, "us-east-1"))  # from here on, clients have that role's credentials
        caller.needed, caller.refused

What the gate does not know, be it a call or a word of a policy, it refuses by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from xml.sax.saxutils import escape

import boto3

from dtr_audit_simulator.aws.environment import ACCESS_KEY
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack

if TYPE_CHECKING:
    from moto.core.request import Request

    from dtr_audit_simulator.aws.in_process import Answer, Respond

Statement = dict[str, Any]

# The keys of conditions that a caller here has, if AWS would give it them: of any other, nothing could be said.
CONTEXT_KEYS = {
    "aws:SourceAccount",
    "aws:SourceArn",
    "kms:EncryptionContext:SourceArn",
    "kms:EncryptionContext:aws:states:stateMachineArn",
    "kms:EncryptionContext:SecretARN",
    "kms:ViaService",
    "lambda:SourceFunctionArn",
    "s3:prefix",
}
# What a service asks of KMS, in the caller's name, for a call on a resource that a customer's key encrypts.
KEY_USES = {
    "dynamodb:BatchWriteItem": ("kms:Decrypt",),
    "dynamodb:DeleteItem": ("kms:Decrypt",),
    "dynamodb:GetItem": ("kms:Decrypt",),
    "dynamodb:PutItem": ("kms:Decrypt",),
    "dynamodb:Query": ("kms:Decrypt",),
    "dynamodb:Scan": ("kms:Decrypt",),
    "dynamodb:UpdateItem": ("kms:Decrypt",),
    "s3:DeleteObject": (),
    "s3:GetObject": ("kms:Decrypt",),
    "s3:ListBucket": (),
    "s3:PutObject": ("kms:GenerateDataKey",),
    "secretsmanager:GetSecretValue": ("kms:Decrypt",),
    "sns:Publish": ("kms:GenerateDataKey", "kms:Decrypt"),
    "sqs:SendMessage": ("kms:GenerateDataKey", "kms:Decrypt"),
    "states:StartExecution": (),  # with the right of the machine's own role
}
# Which parameter of a request names its resource, where that is all there is to it.
NAMED_BY = {
    "kms:GetPublicKey": "KeyId",
    "kms:Sign": "KeyId",
    "secretsmanager:GetSecretValue": "SecretId",
    "sns:Publish": "TopicArn",
}
# Parts of a request to S3 that change nothing about the right it needs.
PLAIN_S3_QUERY = {"list-type", "prefix", "encoding-type", "continuation-token", "max-keys"}
PLAIN_S3_HEADERS = re.compile(
    r"x-amz-(date|security-token|content-sha256|user-agent|sdk-.*|checksum-.*|trailer|decoded-content-length)"
)
# Who passes unasked: the tests themselves, and moto's Step Functions, whose rights the tests ask for in its place.
NOT_ASKED = {ACCESS_KEY, "ak"}
# How the encrypted resources of a stack tell their ARN. CloudWatch Logs uses a key in its own name, by the key's policy.
ARN_OF = {
    "AWS::DynamoDB::Table": "Fn::GetAtt",
    "AWS::S3::Bucket": "Fn::GetAtt",
    "AWS::SecretsManager::Secret": "Ref",
    "AWS::SNS::Topic": "Ref",
    "AWS::SQS::Queue": "Fn::GetAtt",
    "AWS::StepFunctions::StateMachine": "Ref",
}
KEYS_USED_BY_THE_SERVICE_ITSELF = {"AWS::Logs::LogGroup"}


class UnknownToTheGateError(Exception):
    """A call, or a policy, holds something that the gate has not been taught."""


class AccessDeniedError(Exception):
    """IAM does not allow it."""


@dataclass(frozen=True, slots=True)
class Access:
    """One thing that a caller must be allowed."""

    action: str
    resource: str
    context: frozenset[tuple[str, str]] = frozenset()


# --- Policies -----------------------------------------------------------------------------------------------------


def permits(statements: Iterable[Statement], access: Access) -> bool:
    """Decide as IAM does: a Deny that applies wins, and what no Allow applies to is denied."""
    return {statement["Effect"] for statement in statements if _applies(statement, access)} == {"Allow"}


def _applies(statement: Statement, access: Access) -> bool:
    unknown = statement.keys() - {"Sid", "Effect", "Action", "NotAction", "Resource", "Condition"}
    if unknown:
        raise UnknownToTheGateError(f"{', '.join(sorted(unknown))} in the statement {statement.get('Sid')}")
    actions = as_list(statement["Action" if "Action" in statement else "NotAction"])
    listed = any(_is_like(access.action.lower(), pattern.lower()) for pattern in actions)
    return (
        listed == ("Action" in statement)
        and any(_is_like(access.resource, pattern) for pattern in as_list(statement["Resource"]))
        and all(
            _holds(operator, key, as_list(values), dict(access.context))
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, key: str, values: Sequence[str], context: Mapping[str, str]) -> bool:
    if key not in CONTEXT_KEYS:
        raise UnknownToTheGateError(f"the condition key {key}")
    value = context.get(key)
    if operator == "Null":
        return str(value is None).lower() in values
    if operator == "StringEquals":
        return value in values
    if operator in {"ArnLike", "StringLike"}:
        return value is not None and any(_is_like(value, pattern) for pattern in values)
    raise UnknownToTheGateError(f"the condition operator {operator}")


def _is_like(text: str, pattern: str) -> bool:
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL))


def as_list(value: Any) -> list[Any]:
    """Spell out that one thing, in a policy, is a list of one."""
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True, slots=True)
class Role:
    """A role as IAM has it now."""

    name: str
    arn: str
    trust: tuple[Statement, ...]  # the service that may assume it stands in Resource
    statements: tuple[Statement, ...]

    @classmethod
    def read(cls, name: str, region: str) -> Role:
        """Read the role and its policies; `region` tells the partition."""
        iam = boto3.client("iam", region_name=region)
        role = iam.get_role(RoleName=name)["Role"]
        trust = [
            {key: value for key, value in statement.items() if key != "Principal"}
            | {"Resource": statement["Principal"]["Service"]}
            for statement in _statements(role["AssumeRolePolicyDocument"])
        ]
        granted = [
            statement
            for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
            for statement in _statements(iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"])
        ]
        iam.close()
        return cls(name, role["Arn"], tuple(trust), tuple(granted))


def _statements(document: Any) -> list[Statement]:
    parsed = json.loads(document) if isinstance(document, str) else document
    return as_list(parsed["Statement"])


class Caller:
    """Whoever has assumed a role: the code in the function, or a service of AWS on the function's behalf."""

    def __init__(self, role: Role, service: str, keys: Mapping[str, str], context: Mapping[str, str]) -> None:
        """Assume the role; `keys` are the keys of encrypted resources, by ARN. Raises AccessDeniedError."""
        self.role = role
        self.assumed = Access("sts:AssumeRole", service, frozenset(context.items()))
        self.needed: set[Access] = set()
        self.refused: list[Access] = []
        self.unknown: list[str] = []
        self._keys = keys
        if not permits(role.trust, self.assumed):
            self.refused.append(self.assumed)
            raise AccessDeniedError(f"{service} may not assume {role.name}")

    def demand(self, action: str, resource: str, context: Mapping[str, str] | None = None) -> None:
        """Do something with the role's rights. Raises AccessDeniedError."""
        whole = {**dict(self.assumed.context), **(context or {})}
        for access in (Access(action, resource, frozenset(whole.items())), *self._uses_of_key(action, resource)):
            if not permits(self.role.statements, access):
                self.refused.append(access)
                raise AccessDeniedError(f"{self.role.name} may not {access.action} on {access.resource}")
            self.needed.add(access)

    def _uses_of_key(self, action: str, resource: str) -> Iterator[Access]:
        for encrypted, key in self._keys.items():
            if resource == encrypted or resource.startswith(f"{encrypted}/"):
                if action not in KEY_USES:
                    raise UnknownToTheGateError(f"what {action} asks of a key")
                service, region = action.partition(":")[0], key.split(":")[3]
                context = {"kms:ViaService": f"{service}.{region}.amazonaws.com"}  # in both partitions
                if service == "secretsmanager":
                    context["kms:EncryptionContext:SecretARN"] = encrypted
                yield from (Access(use, key, frozenset(context.items())) for use in KEY_USES[action])


# --- The gate -----------------------------------------------------------------------------------------------------


class Gate:
    """A door to the embedded AWS, for those who have been admitted."""

    def __init__(self, aws: EmbeddedAws) -> None:
        self._admitted: dict[str, Caller] = {}
        self._moto = aws.moto
        self._respond: Respond = aws.moto.respond

    def __enter__(self) -> Self:
        self._moto.respond = self._answer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._moto.respond = self._respond

    def admit(self, caller: Caller, region: str) -> dict[str, str]:
        """Give the caller credentials of its role; what is returned makes a client use them."""
        client = boto3.client("sts", region_name=region)
        given = client.assume_role(RoleArn=caller.role.arn, RoleSessionName="audit")["Credentials"]
        client.close()
        self._admitted[given["AccessKeyId"]] = caller
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
        }

    def _answer(self, request: Request) -> Answer:
        """Answer a request: what AWS answers if it is permitted, AccessDenied if not."""
        scope = re.search(r"Credential=([\w-]+)/\d+/([\w-]+)/([\w-]+)/", request.headers.get("Authorization", ""))
        if scope is not None and scope[1] in NOT_ASKED:
            return self._respond(request)
        caller = self._admitted.get(scope[1]) if scope else None
        if scope is None or caller is None:
            return _refusal(request, "who signed it has not been admitted")
        try:
            for action, resource, context in _wanted(request, caller.role.arn, region=scope[2], service=scope[3]):
                caller.demand(action, resource, context)
        except UnknownToTheGateError as error:
            caller.unknown.append(str(error))
            return _refusal(request, f"unknown to the gate: {error}")
        except AccessDeniedError as error:
            return _refusal(request, str(error))
        return self._respond(request)


def _wanted(request: Request, role_arn: str, *, region: str, service: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Tell action, resource and context of everything that a request asks for."""
    _, partition, _, _, account, _ = role_arn.split(":", 5)
    if service == "s3":
        yield _wanted_of_s3(request, partition)
        return
    if service == "securityhub":
        yield from _wanted_of_security_hub(request)
        return
    _, _, operation = request.headers.get("X-Amz-Target", "").rpartition(".")
    asked = json.loads(request.get_data()) if operation else request.form
    action = f"{service}:{operation or asked.get('Action')}"
    if action == "dynamodb:TransactWriteItems":
        # There is no such right: each item's own is asked for.
        parts: list[dict[str, dict[str, str]]] = json.loads(request.get_data())["TransactItems"]
        for kind, table in {(kind, item["TableName"]) for part in parts for kind, item in part.items()}:
            yield f"dynamodb:{kind}Item", f"arn:{partition}:dynamodb:{region}:{account}:table/{table}", {}
    elif service == "dynamodb" and action in KEY_USES:
        index = f"/index/{asked['IndexName']}" if "IndexName" in asked else ""
        for table in asked["RequestItems"] if operation == "BatchWriteItem" else [asked["TableName"]]:
            yield action, f"arn:{partition}:dynamodb:{region}:{account}:table/{table}{index}", {}
    elif NAMED_BY.get(action) in asked:
        yield action, asked[NAMED_BY[action]], {}
    else:
        raise UnknownToTheGateError(action)


def _wanted_of_s3(request: Request, partition: str) -> tuple[str, str, dict[str, str]]:
    bucket, _, rest = request.host.partition(".s3.")
    key = request.path[1:]
    if not rest:
        raise UnknownToTheGateError(f"the address {request.host} of s3")
    headers = {name.lower() for name in dict(request.headers) if name.lower().startswith("x-amz-")}
    special = request.args.keys() - PLAIN_S3_QUERY | {name for name in headers if not PLAIN_S3_HEADERS.fullmatch(name)}
    kind = (request.method, bool(key), "list-type" in request.args)
    actions = {
        ("GET", False, True): "s3:ListBucket",
        ("GET", True, False): "s3:GetObject",
        ("PUT", True, False): "s3:PutObject",
        ("DELETE", True, False): "s3:DeleteObject",
    }
    if kind not in actions or special:
        raise UnknownToTheGateError(f"s3 {request.method} {request.full_path} with {sorted(special)}")
    context = {"s3:prefix": request.args["prefix"]} if "prefix" in request.args else {}
    return actions[kind], f"arn:{partition}:s3:::{bucket}" + (f"/{key}" if key else ""), context


def _wanted_of_security_hub(request: Request) -> Iterator[tuple[str, str, dict[str, str]]]:
    if (request.method, request.path) != ("POST", "/findings/import"):
        raise UnknownToTheGateError(f"securityhub {request.method} {request.path}")
    for product in {finding["ProductArn"] for finding in json.loads(request.get_data())["Findings"]}:
        yield "securityhub:BatchImportFindings", product, {}


def _refusal(request: Request, reason: str) -> Answer:
    """Say AccessDenied in the way that the caller's client understands."""
    if request.path == "/findings/import":
        headers = {"x-amzn-errortype": "AccessDeniedException", "Content-Type": "application/json"}
        return 403, headers, json.dumps({"message": reason})
    if "X-Amz-Target" in request.headers:
        body = json.dumps({"__type": "AccessDeniedException", "message": reason})
        return 400, {"Content-Type": "application/x-amz-json-1.1"}, body
    error = f"<Error><Code>AccessDenied</Code><Message>{escape(reason)}</Message></Error>"
    if "Action" in request.form:
        error = f"<ErrorResponse>{error}</ErrorResponse>"
    return 403, {"Content-Type": "application/xml"}, error


# --- What is deployed ---------------------------------------------------------------------------------------------


class Deployment:
    """The resources of a stack, with their properties as CloudFormation resolved them when it made them."""

    def __init__(self, stack: Stack, account: str) -> None:
        from moto.cloudformation.models import cloudformation_backends  # noqa: PLC0415 (as above)

        made = cloudformation_backends[account][stack.region].get_stack(stack.name)
        self._made = made.resource_map
        self._described: dict[str, Any] = {
            logical_id: resource
            for logical_id, resource in made.template_dict["Resources"].items()
            if self._made[logical_id] is not None  # its condition holds
        }

    def properties(self, resource_type: str) -> Any:
        """Give the properties of the only resource of a type."""
        (found,) = [resource for resource in self._described.values() if resource["Type"] == resource_type]
        return self._resolve(found["Properties"])

    def properties_of(self, logical_id: str) -> Any:
        """Give the properties of one resource."""
        return self._resolve(self._described[logical_id]["Properties"])

    def keys(self) -> dict[str, str]:
        """Give the key of every resource that is encrypted with a customer's key, by the resource's ARN."""
        keys: dict[str, str] = {}
        for logical_id, resource in self._described.items():
            for key in set(_keys_in(self._resolve(resource.get("Properties", {})))):
                if key.startswith("alias/aws/") or resource["Type"] in KEYS_USED_BY_THE_SERVICE_ITSELF:
                    continue
                if resource["Type"] not in ARN_OF:
                    raise UnknownToTheGateError(f"who uses the key of {logical_id}, an {resource['Type']}")
                by = ARN_OF[resource["Type"]]
                keys[self._resolve({by: logical_id if by == "Ref" else [logical_id, "Arn"]})] = key
        return keys

    def _resolve(self, written: Any) -> Any:
        from moto.cloudformation.parsing import clean_json  # noqa: PLC0415 (as above)

        return clean_json(written, self._made)


def _keys_in(properties: Any) -> Iterator[str]:
    if isinstance(properties, dict):
        for name, value in properties.items():
            if re.fullmatch(r"(?i)kms(master)?key(id|arn)", name):
                yield value
            else:
                yield from _keys_in(value)
    elif isinstance(properties, list):
        for value in properties:
            yield from _keys_in(value)
