"""Resource types that moto makes without some of their properties, made as AWS makes them."""

from __future__ import annotations

import json
from typing import Any

from moto.awslambda.models import LayerVersion
from moto.core.common_models import CloudFormationModel
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.iam.models import Role
from moto.s3.models import FakeBucket, s3_backends
from moto.utilities.utils import get_partition

from dtr_audit_simulator.aws.made import Made


class _NotEnforced(Made):
    """A resource policy, accepted and put aside.

    The template's resource policies refuse whatever comes without TLS. The embedded endpoint is plain HTTP on the
    loopback interface, and moto reads a bucket policy without its Condition: enforced here, such a policy would
    refuse every request.
    """

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> _NotEnforced:
        """Accept the policy."""
        return cls(resource_name)


class BucketPolicy(_NotEnforced, CloudFormationModel):
    """The policy of a bucket."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::S3::BucketPolicy"


class QueuePolicy(_NotEnforced, CloudFormationModel):
    """The policy of a queue."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::SQS::QueuePolicy"


class TopicPolicy(_NotEnforced, CloudFormationModel):
    """The policy of a topic."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::SNS::TopicPolicy"


class LastingTable(Table, CloudFormationModel):
    """A table with the time to live, the recovery, the key and the protection against deletion that moto would drop."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Table:
        """Create the table."""
        properties = cloudformation_json["Properties"]
        table = Table.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )
        backend = dynamodb_backends[account_id][region_name]
        if "TimeToLiveSpecification" in properties:
            backend.update_time_to_live(table.name, properties["TimeToLiveSpecification"])
        if "PointInTimeRecoverySpecification" in properties:
            backend.update_continuous_backups(table.name, properties["PointInTimeRecoverySpecification"])
        encryption = properties.get("SSESpecification", {})
        if encryption.get("SSEEnabled"):  # moto looks for the name that the API has for it
            table.sse_specification = {"Enabled": True, "KMSMasterKeyId": encryption["KMSMasterKeyId"]}
        # A parameter is a text, and moto takes "false" for true.
        table.deletion_protection_enabled = str(properties.get("DeletionProtectionEnabled", False)).lower() == "true"
        return table


class VersionedBucket(FakeBucket, CloudFormationModel):
    """A bucket with the versioning and the object lock that moto would drop."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> FakeBucket:
        """Create the bucket."""
        bucket = FakeBucket.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )
        properties = cloudformation_json["Properties"]
        backend = s3_backends[account_id][get_partition(region_name)]
        versioning = properties.get("VersioningConfiguration")
        if versioning:
            backend.put_bucket_versioning(bucket.name, versioning["Status"])
        lock = properties.get("ObjectLockConfiguration")
        if lock:
            retention = lock["Rule"]["DefaultRetention"]
            backend.put_object_lock_configuration(
                bucket.name, lock_enabled=True, mode=retention["Mode"], days=int(retention["Days"]), years=0
            )
        return bucket


class RoleWithoutGaps(Role, CloudFormationModel):
    """A role whose policies IAM can read back.

    What is AWS::NoValue in a list is gone, as in CloudFormation, where moto leaves a null; and a document is JSON,
    where moto leaves the text of a Python dictionary.
    """

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Role:
        """Create the role."""
        for policy in cloudformation_json["Properties"].get("Policies", []):
            policy["PolicyDocument"] = json.dumps(_without_gaps(policy["PolicyDocument"]))
        return Role.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )


def _without_gaps(node: Any) -> Any:
    """Drop what AWS::NoValue has left in lists."""
    if isinstance(node, dict):
        return {key: _without_gaps(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_gaps(value) for value in node if value is not None]
    return node


class PublishedLayer(LayerVersion, CloudFormationModel):
    """A layer with the ARN that moto forgets to make its physical id."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> LayerVersion:
        """Publish the layer."""
        layer = LayerVersion.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )
        layer.physical_resource_id = layer.arn  # type: ignore[attr-defined]
        return layer
