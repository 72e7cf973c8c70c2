"""A second deployment: whatever parameter changes, nothing that holds data is renamed or replaced, and little is removed.

Held against CloudFormation's own resource schemas, which say for each property whether a change of it replaces the resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from tests.harness.resolution import ACCOUNT, NEEDED, TEMPLATE, resolve

REGIONS = ["us-east-1", "us-gov-west-1", "us-gov-east-1"]
# Where data lies. A logical id that changes here is a resource that every deployed stack loses: CloudFormation makes a new
# one, empty, and lets go of the old one. Do not edit this list without a plan for those stacks.
STATEFUL = {
    "AlertTopic": "AWS::SNS::Topic",
    "AuditBucket": "AWS::S3::Bucket",
    "AuditLogGroup": "AWS::Logs::LogGroup",
    "CredentialsSecret": "AWS::SecretsManager::Secret",
    "DeadLetterQueue": "AWS::SQS::Queue",
    "EncryptionKey": "AWS::KMS::Key",
    "FindingsTable": "AWS::DynamoDB::Table",
    "QueryResultsBucket": "AWS::S3::Bucket",
    "RunsTable": "AWS::DynamoDB::Table",
}
# The same for the keys of the tables: a change of them is another table.
KEYS = {
    "FindingsTable": [("pk", "HASH", "S"), ("sk", "RANGE", "S")],
    "RunsTable": [("pk", "HASH", "S"), ("sk", "RANGE", "S")],
}

_KEY = f"arn:aws-us-gov:kms:us-gov-west-1:{ACCOUNT}:key/1234"
_TOPIC = f"arn:aws-us-gov:sns:us-gov-west-1:{ACCOUNT}"
NETWORK = {
    "VpcSubnetIds": "subnet-0123abcd,subnet-0123abce",
    "VpcSecurityGroupIds": "sg-0123abcd",
    "VpcEndpoints": "true",
    "VpcId": "vpc-0123abcd",
    "VpcRouteTableIds": "rtb-0123abcd",
}
# Another value for every parameter than the one it has by default.
CHANGED = {
    **NETWORK,
    "AccessLogBucket": "logs-of-mine",
    "AlertEmail": "isso@example.mil",
    "AlertContact": "registry-team@example.mil",
    "AlertGrouping": "namespace",
    "AlertTopicArn": f"{_TOPIC}:alerts",
    "AlertTopicKeyArn": _KEY,
    "AssetFqdn": "dtr.example.mil",
    "AssetMarking": "CUI",
    "AssetName": "dtr-01",
    "AssetRole": "Member Server",
    "BaselineKey": "baseline/dtr.cklb",
    "Concurrency": "4",
    "CredentialsSecretArn": f"arn:aws-us-gov:secretsmanager:us-gov-west-1:{ACCOUNT}:secret:dtr/audit-AbCd12",
    "CredentialsSecretKeyArn": _KEY,
    "DeletionProtection": "false",
    "DtrDomains": "dtr.example.mil",
    "DtrUrl": "https://dtr.other.example.mil",
    "Engine": "stepfunctions",
    "EvidenceDays": "400",
    "EvidenceFormats": "xccdf",
    "EvidenceLock": "compliance",
    "EvidenceLockDays": "30",
    "FanOutWorkers": "8",
    "KmsKeyArn": _KEY,
    "LogLevel": "DEBUG",
    "LogRetentionDays": "30",
    "ManifestSigningKeyArn": _KEY,
    "MemoryMegabytes": "1024",
    "NeighbourRules": "true",
    "OperationsTopicArn": f"{_TOPIC}:operations",
    "PageSize": "50",
    "PinTrust": "true",
    "QueryLimitMegabytes": "500",
    "QueryResultDays": "1",
    "RegistryName": "other-dtr",
    "ReminderDays": "1",
    "RepositoryKeySuffices": "true",
    "RequiredSigners": "ci",
    "ResolvedDays": "10",
    "RowsDays": "40",
    "ScheduleExpression": "rate(12 hours)",
    "ScheduleState": "DISABLED",
    "ScheduleTimeZone": "America/New_York",
    "SecurityHub": "true",
    "ShrinkPercent": "5",
    "SignersNeeded": "all",
    "SilenceHours": "14",
    "StigRelease": "V2R1",
    "TimeoutSeconds": "300",
    "TrustVerification": "signatures",
    "TrustWarningDays": "10",
    "UcpUrl": "https://ucp.example.mil",
    "X509Strict": "false",
}
# What each switch takes away of the above, and what CloudFormation does with it.
REMOVED = {
    "KmsKeyArn": {"EncryptionKey": "Retain"},  # what it has encrypted stays readable
    "AlertTopicArn": {"AlertTopic": "Delete"},  # with its subscriptions; what was told there stays in table and bucket
    "CredentialsSecretArn": {"CredentialsSecret": "Delete"},  # a credential must not outlive its only user
}
# What is made anew rather than changed, and holds nothing.
REPLACED = {
    "AlertEmail": {"AlertEmailSubscription"},
    "AlertTopicArn": {"AlertEmailSubscription"},
    "VpcId": {
        "S3Endpoint",
        "DynamoDbEndpoint",
        "SecretsManagerEndpoint",
        "SnsEndpoint",
        "KmsEndpoint",
        "SecurityHubEndpoint",
        "EndpointSecurityGroup",
    },
}
OTHER = {"AlertEmail": "soc@example.mil", "AlertTopicArn": f"{_TOPIC}:others", "VpcId": "vpc-0123abce"}
STEPS = [{name: value} for name, value in CHANGED.items()]

Resources = dict[str, dict[str, Any]]


def deployed(given: Mapping[str, str], region: str = "us-gov-west-1") -> Resources:
    resources: Resources = resolve(given, region=region)["Resources"]
    return resources


def fixed_properties(kind: str, region: str = "us-gov-west-1") -> list[str]:
    """Give the properties that a resource of this type keeps for life."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, kind).schema
    paths: list[str] = [*schema.get("createOnlyProperties", []), *schema.get("conditionalCreateOnlyProperties", [])]
    assert all(path.startswith("/properties/") and "*" not in path for path in paths)
    return paths


def value_at(path: str, properties: Mapping[str, Any]) -> Any:
    value: Any = properties
    for name in path.removeprefix("/properties/").split("/"):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def replaced(before: Resources, after: Resources) -> set[str]:
    """Name the resources of both deployments that CloudFormation would make anew."""
    return {
        name
        for name in before.keys() & after.keys()
        if before[name]["Type"] != after[name]["Type"]
        or any(
            value_at(path, before[name].get("Properties", {})) != value_at(path, after[name].get("Properties", {}))
            for path in fixed_properties(before[name]["Type"])
        )
    }


def removed(before: Resources, after: Resources) -> dict[str, str]:
    """Name what is stateful and gone afterwards, with what CloudFormation does to it."""
    gone = (before.keys() - after.keys()) & STATEFUL.keys()
    return {name: before[name].get("DeletionPolicy", "Delete") for name in gone}


# --- Nothing stateful is renamed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("region", REGIONS)
def test_nothing_stateful_is_renamed(region: str) -> None:
    found = {name: each["Type"] for name, each in deployed({}, region).items() if each["Type"] in STATEFUL.values()}
    assert found == STATEFUL


def test_the_tables_keep_their_keys() -> None:
    resources = deployed({})
    for name, keys in KEYS.items():
        properties = resources[name]["Properties"]
        types = {each["AttributeName"]: each["AttributeType"] for each in properties["AttributeDefinitions"]}
        found = [(key["AttributeName"], key["KeyType"], types[key["AttributeName"]]) for key in properties["KeySchema"]]
        assert found == keys


def test_nothing_stateful_has_a_name_that_somebody_could_change() -> None:
    for name, kind in STATEFUL.items():
        names = [path for path in fixed_properties(kind) if path.endswith("Name")]
        assert [path for path in names if value_at(path, deployed({})[name]["Properties"])] == []


# --- Nothing stateful is replaced ---------------------------------------------------------------------------------


def test_every_parameter_is_among_the_changes() -> None:
    assert set(CHANGED) == set(TEMPLATE["Parameters"])
    defaults = {name: str(parameter.get("Default", "")) for name, parameter in TEMPLATE["Parameters"].items()}
    assert not {name for name, value in CHANGED.items() if value == {**defaults, **NEEDED}[name]}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: next(iter(step)))
def test_a_parameter_that_changes_or_is_rolled_back_replaces_nothing_that_holds_data(step: dict[str, str]) -> None:
    (name,) = step
    others = {other: value for other, value in CHANGED.items() if other != name}
    for start in ({}, others):  # alone, and as the last of all
        before, after = deployed(start), deployed({**start, **step})
        assert replaced(before, after) == replaced(after, before) <= REPLACED.get(name, set())
        assert not replaced(before, after) & STATEFUL.keys()


def test_all_parameters_at_once_replace_nothing() -> None:
    assert replaced(deployed({}), deployed(CHANGED)) == set()
    assert replaced(deployed(CHANGED), deployed({})) == set()


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_made_again_holds_nothing(name: str) -> None:
    before, after = deployed(CHANGED), deployed({**CHANGED, name: OTHER[name]})
    assert replaced(before, after) == REPLACED[name]
    assert not REPLACED[name] & STATEFUL.keys()


# --- Little is removed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS, ids=lambda step: next(iter(step)))
def test_a_switch_removes_only_what_is_listed_here(step: dict[str, str]) -> None:
    (name,) = step
    assert removed(deployed({}), deployed(step)) == REMOVED.get(name, {})


def test_what_holds_findings_or_evidence_is_never_removed() -> None:
    everything = removed(deployed({}), deployed(CHANGED))
    assert everything == {name: policy for each in REMOVED.values() for name, policy in each.items()}
    assert set(everything) & {"FindingsTable", "RunsTable", "AuditBucket", "AuditLogGroup", "DeadLetterQueue"} == set()


def test_going_back_removes_nothing() -> None:
    assert removed(deployed(CHANGED), deployed({})) == {}


@pytest.mark.parametrize("start", [{}, {**CHANGED, "Engine": "lambda"}], ids=["defaults", "all options"])
def test_switching_the_engine_keeps_all_that_is_known(start: dict[str, str]) -> None:
    whole, steps = deployed(start), deployed({**start, "Engine": "stepfunctions"})
    assert removed(whole, steps) == removed(steps, whole) == {}
    assert replaced(whole, steps) == set()
    shared = STATEFUL.keys() & whole.keys()
    assert {name: whole[name] for name in shared - {"EncryptionKey"}} == {
        name: steps[name] for name in shared - {"EncryptionKey"}
    }


# --- These tests could fail ---------------------------------------------------------------------------------------


def test_the_schemas_name_what_a_change_replaces() -> None:
    assert "/properties/TableName" in fixed_properties("AWS::DynamoDB::Table")
    assert "/properties/KeySchema" in fixed_properties("AWS::DynamoDB::Table")
    assert "/properties/BucketName" in fixed_properties("AWS::S3::Bucket")
    assert "/properties/LogGroupName" in fixed_properties("AWS::Logs::LogGroup")
    assert "/properties/QueueName" in fixed_properties("AWS::SQS::Queue")
    assert "/properties/TopicName" in fixed_properties("AWS::SNS::Topic")
    assert "/properties/Name" in fixed_properties("AWS::SecretsManager::Secret")


@pytest.mark.parametrize(
    ("name", "property_", "value"),
    [
        ("RunsTable", "TableName", "other-dtr-runs"),
        ("FindingsTable", "KeySchema", [{"AttributeName": "sk", "KeyType": "HASH"}]),
        ("AuditBucket", "BucketName", "other-dtr-audit"),
    ],
)
def test_a_name_or_key_that_follows_a_parameter_would_be_found(name: str, property_: str, value: Any) -> None:
    after = deployed(CHANGED)
    after[name]["Properties"][property_] = value
    assert replaced(deployed({}), after) == {name}
