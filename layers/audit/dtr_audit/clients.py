"""The AWS clients, each made when it is first asked for."""

from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_securityhub import SecurityHubClient
    from mypy_boto3_sns import SNSClient

    from .evidence.signature import SigningClient


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
        return self._session.resource("dynamodb", config=config).meta.client

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


def is_cancelled(error: ClientError) -> bool:
    """Tell whether DynamoDB made nothing of a transaction, because of one of its items."""
    return error.response.get("Error", {}).get("Code") == "TransactionCanceledException"


def is_condition_failure(error: ClientError) -> bool:
    """Tell whether DynamoDB left an item alone because its condition did not hold."""
    return error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException"
