"""The AWS clients, each made when it is first asked for."""

import json
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import boto3
from boto3.dynamodb.types import DYNAMODB_CONTEXT
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_securityhub import SecurityHubClient
    from mypy_boto3_sns import SNSClient

    from dtr_audit.aws.kms import SigningClient


class AwsClients:
    """Clients of one session; each is safe to share between threads once made."""

    def __init__(self, *, connections: int) -> None:
        """Prepare; `connections` is how many calls may be under way at once."""
        self._session = boto3.session.Session()
        self._config = Config(
            max_pool_connections=connections,
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 6},
        )

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        """A client that takes and gives plain Python values, as a table resource does.

        It does not hold each attribute of each item against the service's model, which costs more than to send it.
        """
        config = self._config.merge(Config(parameter_validation=False))
        client = self._session.resource("dynamodb", config=config).meta.client
        for operation in ("Query", "Scan"):
            client.meta.events.register(f"before-parse.dynamodb.{operation}", _take_items)
        # Behind boto3's own, which hears of every operation too.
        client.meta.events.register_last("after-call.dynamodb", _give_items)
        return client

    @cached_property
    def kms(self) -> "SigningClient":
        """Where the key lies that signs manifests; other keys are used by the services themselves."""
        client: SigningClient = self._session.client("kms", config=self._config)
        return client

    @cached_property
    def s3(self) -> "S3Client":
        """Where the rows and records lie."""
        return self._session.client("s3", config=self._config)

    @cached_property
    def secrets(self) -> "SecretsManagerClient":
        """Where the registry's credentials lie."""
        return self._session.client("secretsmanager", config=self._config)

    @cached_property
    def sns(self) -> "SNSClient":
        """Where alerts go."""
        return self._session.client("sns", config=self._config)

    @cached_property
    def security_hub(self) -> "SecurityHubClient":
        """Where findings go as well, if that is asked for; what it does not take soon, the next run brings."""
        config = self._config.merge(Config(retries={"mode": "standard", "total_max_attempts": 3}))
        return self._session.client("securityhub", config=config)


# botocore looks for each of ten types in each attribute of each item, and boto3 goes through all of it once more: five times what
# it takes to read the JSON. So pages of items are read here, past both of them, unless there is a type that is not known here.
_ITEMS = "PlainItems"


def _take_items(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    if response_dict["status_code"] != HTTPStatus.OK:
        return
    body = json.loads(response_dict["body"])
    try:
        items = [_plain({"M": item}) for item in body.pop("Items", ())]
    except _UnknownTypeError:
        return
    customized_response_dict[_ITEMS] = items
    response_dict["body"] = json.dumps(body).encode()


def _give_items(parsed: dict[str, Any], **_: object) -> None:
    if _ITEMS in parsed:
        parsed["Items"] = parsed.pop(_ITEMS)


class _UnknownTypeError(Exception):
    """A type of DynamoDB that none of our items has."""


def _plain(attribute: dict[str, Any]) -> Any:
    """Give the value of an attribute as boto3 does."""
    ((kind, value),) = attribute.items()
    if kind in {"S", "BOOL"}:
        return value
    if kind == "M":
        return {name: inner["S"] if "S" in inner else _plain(inner) for name, inner in value.items()}
    if kind == "L":
        return [_plain(inner) for inner in value]
    if kind == "N":
        return DYNAMODB_CONTEXT.create_decimal(value)
    if kind == "NULL":
        return None
    raise _UnknownTypeError


def is_cancelled(error: ClientError) -> bool:
    """Tell whether DynamoDB made nothing of a transaction, because of one of its items."""
    return error.response.get("Error", {}).get("Code") == "TransactionCanceledException"


def is_condition_failure(error: ClientError) -> bool:
    """Tell whether DynamoDB left an item alone because its condition did not hold."""
    return error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException"
