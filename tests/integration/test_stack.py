"""template.yaml deployed into the embedded AWS, in both partitions."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dtr_audit_simulator.aws.environment import ACCESS_KEY
from dtr_audit_simulator.aws.invocation import invoke
from dtr_audit_simulator.aws.stack import DeploymentError, EmbeddedAws, Stack
from dtr_audit_simulator.aws.state_files import StateFileError
from dtr_audit_simulator.aws.template import ParameterError
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
PARAMETERS = {"DtrUrl": "https://dtr.example.mil", "RegistryName": "prod-dtr"}
PARTITIONS = {"us-east-1": "aws", "us-gov-west-1": "aws-us-gov"}
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:dtr/audit-AbCd12"
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module", params=PARTITIONS)
def stack(aws: EmbeddedAws, request: pytest.FixtureRequest) -> Stack:
    """A stack in each partition; the tests that share it leave nothing in it."""
    return aws.deploy(TEMPLATE, PARAMETERS, region=request.param)


@pytest.fixture
def own_stack(aws: EmbeddedAws) -> Stack:
    """A stack for one test."""
    return aws.deploy(TEMPLATE, PARAMETERS, stack_name=f"own-{next(_NUMBERS)}")


def statements(stack: Stack, role: str) -> dict[str, Any]:
    iam = boto3.Session(region_name=stack.region).client("iam")
    try:
        name = stack.physical_id(role)
        (policy,) = iam.list_role_policies(RoleName=name)["PolicyNames"]
        document: Any = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    finally:
        iam.close()
    return {statement["Sid"]: statement for statement in document["Statement"]}


# --- What is there ------------------------------------------------------------------------------------------------


def test_every_arn_belongs_to_the_stacks_partition(stack: Stack) -> None:
    seen = json.dumps(
        [
            stack.outputs,
            stack.function_environment("AuditFunction"),
            statements(stack, "AuditRole"),
            statements(stack, "ScheduleRole"),
        ]
    )
    assert seen.count("arn:") >= 12
    assert seen.count("arn:") == seen.count(f"arn:{PARTITIONS[stack.region]}:")


def test_the_environment_is_resolved_to_the_stacks_own_resources(stack: Stack) -> None:
    environment = stack.function_environment("AuditFunction")
    assert environment == {
        "DTR_URL": "https://dtr.example.mil",
        "DTR_DOMAINS": "",
        "REGISTRY_NAME": "prod-dtr",
        "SECRET_ARN": stack.physical_id("CredentialsSecret"),
        "FINDINGS_TABLE": stack.physical_id("FindingsTable"),
        "RUNS_TABLE": stack.physical_id("RunsTable"),
        "BUCKET": stack.physical_id("AuditBucket"),
        "TOPIC_ARN": stack.physical_id("AlertTopic"),
        "SECURITY_HUB_PRODUCT": "",
        "CONCURRENCY": "16",
        "FAN_OUT_WORKERS": "4",
        "EXECUTION_SECONDS": "43200",
        "PAGE_SIZE": "100",
        "ALERT_CONTACT": "",
        "ALERT_GROUPING": "run",
        "REMINDER_DAYS": "7",
        "RESOLVED_DAYS": "90",
        "SHRINK_PERCENT": "20",
        "EVIDENCE_FORMATS": "report,ckl,cklb",
        "ASSET_NAME": "",
        "ASSET_FQDN": "",
        "ASSET_ROLE": "",
        "ASSET_MARKING": "",
        "STIG_RELEASE": "V2R2",
        "SIGNING_KEY_ARN": "",
        "NEIGHBOUR_RULES": "false",
        "BASELINE_KEY": "",
        "UCP_URL": "",
        "TRUST_VERIFICATION": "registry",
        "REQUIRED_SIGNERS": "",
        "SIGNERS_NEEDED": "any",
        "REPOSITORY_KEY_SUFFICES": "false",
        "PIN_TRUST": "false",
        "TRUST_WARNING_DAYS": "30",
        "X509_STRICT": "true",
        "MALLOC_ARENA_MAX": "1",
        "POWERTOOLS_SERVICE_NAME": "dtr-signature-audit",
        "POWERTOOLS_METRICS_NAMESPACE": "DtrSignatureAudit",
        "POWERTOOLS_LOG_LEVEL": "INFO",
    }


def test_parameters_reach_the_function(aws: EmbeddedAws) -> None:
    given = {
        **PARAMETERS,
        "DtrDomains": "a.example:443,b.example",
        "Concurrency": "3",
        "TimeoutSeconds": "120",
        "MemoryMegabytes": "1024",
    }
    stack = aws.deploy(TEMPLATE, given, stack_name="other-limits")
    environment = stack.function_environment("AuditFunction")
    assert environment["DTR_DOMAINS"] == "a.example:443,b.example"
    assert environment["CONCURRENCY"] == "3"
    assert stack.function_timeout("AuditFunction") == 120
    assert stack.function_memory("AuditFunction") == 1024


def test_the_handler_is_the_one_the_template_names(stack: Stack) -> None:
    assert stack.handler_path("AuditFunction") == (TEMPLATE.parent / "functions/audit/app.py", "handler")


def test_the_findings_table_is_as_the_template_describes_it(stack: Stack) -> None:
    name = stack.physical_id("FindingsTable")
    table = stack.dynamodb.describe_table(TableName=name)["Table"]
    keys = [(key["AttributeName"], key["KeyType"]) for key in table["KeySchema"]]
    indexes = {
        index["IndexName"]: [key["AttributeName"] for key in index["KeySchema"]]
        for index in table["GlobalSecondaryIndexes"]
    }
    lifetime = stack.dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    backups = stack.dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert keys == [("pk", "HASH"), ("sk", "RANGE")]
    assert indexes == {"open": ["open_shard", "first_seen"], "unannounced": ["unannounced_shard", "pk"]}
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert lifetime == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_an_index_holds_only_items_that_carry_its_shard(own_stack: Stack) -> None:
    table = own_stack.physical_id("FindingsTable")
    item = {"pk": {"S": "r#a/b"}, "sk": {"S": "1"}, "first_seen": {"S": "2030"}}
    own_stack.dynamodb.put_item(TableName=table, Item=item)
    own_stack.dynamodb.put_item(TableName=table, Item={**item, "sk": {"S": "2"}, "open_shard": {"S": "r#0"}})
    found = own_stack.dynamodb.query(
        TableName=table,
        IndexName="open",
        KeyConditionExpression="open_shard = :shard",
        ExpressionAttributeValues={":shard": {"S": "r#0"}},
    )
    assert [item["sk"] for item in found["Items"]] == [{"S": "2"}]


def test_a_deleted_object_leaves_its_version_behind(own_stack: Stack) -> None:
    bucket = own_stack.physical_id("AuditBucket")
    own_stack.s3.put_object(Bucket=bucket, Key="findings/part", Body=b"row")
    own_stack.s3.delete_object(Bucket=bucket, Key="findings/part")
    versions = own_stack.s3.list_object_versions(Bucket=bucket)
    assert [version["Key"] for version in versions["Versions"]] == ["findings/part"]
    assert len(versions["DeleteMarkers"]) == 1


def test_the_secret_is_empty_until_someone_fills_it(own_stack: Stack) -> None:
    arn = own_stack.outputs["CredentialsSecretArn"]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        own_stack.secrets.get_secret_value(SecretId=arn)
    own_stack.put_secret({"username": "admin", "password": "correct horse"})
    stored = own_stack.secrets.get_secret_value(SecretId=arn)["SecretString"]
    assert json.loads(stored) == {"username": "admin", "password": "correct horse"}
    assert arn in own_stack.outputs["StoreCredentialsCommand"]


def test_an_existing_secret_is_used_and_none_is_made(aws: EmbeddedAws) -> None:
    stack = aws.deploy(TEMPLATE, {**PARAMETERS, "CredentialsSecretArn": SECRET}, stack_name="existing-secret")
    granted = statements(stack, "AuditRole")
    with pytest.raises(KeyError):
        stack.physical_id("CredentialsSecret")
    assert stack.function_environment("AuditFunction")["SECRET_ARN"] == SECRET
    assert stack.outputs["CredentialsSecretArn"] == SECRET
    assert granted["ReadCredentials"]["Resource"] == SECRET
    assert "DecryptCredentials" not in granted


def test_the_key_of_an_existing_secret_may_be_used_for_that_secret(aws: EmbeddedAws) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1234"
    given = {**PARAMETERS, "CredentialsSecretArn": SECRET, "CredentialsSecretKeyArn": key}
    stack = aws.deploy(TEMPLATE, given, stack_name="encrypted-secret")
    granted = statements(stack, "AuditRole")["DecryptCredentials"]
    assert granted["Resource"] == key
    assert granted["Condition"] == {"StringEquals": {"kms:EncryptionContext:SecretARN": SECRET}}


def test_rights_on_network_interfaces_come_only_with_a_network(aws: EmbeddedAws, stack: Stack) -> None:
    given = {**PARAMETERS, "VpcSubnetIds": "subnet-0123abcd", "VpcSecurityGroupIds": "sg-0123abcd"}
    inside = aws.deploy(TEMPLATE, given, region=stack.region, stack_name="in-a-network")
    added = set(statements(inside, "AuditRole")) - set(statements(stack, "AuditRole"))
    assert added == {"ManageNetworkInterfaces", "SeeNetworkInterfaces", "NoNetworkInterfacesForTheCode"}


def test_mail_is_subscribed_only_if_an_address_is_given(aws: EmbeddedAws, stack: Stack) -> None:
    with pytest.raises(KeyError):
        stack.physical_id("AlertEmailSubscription")
    given = {**PARAMETERS, "AlertEmail": "isso@example.mil"}
    reported = aws.deploy(TEMPLATE, given, region=stack.region, stack_name="by-mail")
    (subscription,) = reported.sns.list_subscriptions_by_topic(TopicArn=reported.outputs["AlertTopicArn"])[
        "Subscriptions"
    ]
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "isso@example.mil")


def test_a_failed_audit_goes_to_the_queue(stack: Stack) -> None:
    name = stack.outputs["FunctionName"]
    config = stack.functions.get_function_event_invoke_config(FunctionName=name)
    queue = stack.sqs.get_queue_attributes(QueueUrl=stack.outputs["DeadLetterQueueUrl"], AttributeNames=["QueueArn"])[
        "Attributes"
    ]["QueueArn"]
    assert config["DestinationConfig"]["OnFailure"]["Destination"] == queue
    assert config["MaximumRetryAttempts"] == 2
    assert statements(stack, "AuditRole")["KeepFailedRuns"]["Resource"] == queue
    assert statements(stack, "ScheduleRole")["KeepMissedSchedules"]["Resource"] == queue


def test_the_schedule_delivers_its_due_time_in_utc(stack: Stack) -> None:
    due = datetime(2030, 1, 2, 0, 0, tzinfo=timezone(timedelta(hours=-5)))
    assert stack.schedule_event("AuditFunction", due) == {"scheduled_time": "2030-01-02T05:00:00Z"}


# --- Two of them --------------------------------------------------------------------------------------------------


def physical_ids(stack: Stack) -> set[tuple[str, str]]:
    resources = stack.cloudformation.describe_stack_resources(StackName=stack.name)["StackResources"]
    return {
        (each["ResourceType"], each["PhysicalResourceId"])
        for each in resources
        if "LogicalResourceId" in each and each["ResourceType"] != "AWS::Glue::Table"  # named within its database
    }


def test_two_stacks_share_nothing(aws: EmbeddedAws, stack: Stack) -> None:
    second = aws.deploy(TEMPLATE, PARAMETERS, region=stack.region, stack_name="second")
    assert len(physical_ids(second)) == len(physical_ids(stack)) > 20
    assert not physical_ids(second) & physical_ids(stack)
    assert second.outputs["DashboardName"] != stack.outputs["DashboardName"]


def test_two_stacks_audit_two_registries_side_by_side(aws: EmbeddedAws) -> None:
    registries = {"east": InMemoryRegistry(), "west": InMemoryRegistry()}
    registries["east"].push("web", "shop", "1")
    registries["west"].push("data", "lake", "7")
    registries["west"].push("data", "lake", "8")
    stacks, queues, runs = {}, {}, {}
    with contextlib.ExitStack() as servers:
        for name, registry in registries.items():
            server = servers.enter_context(DtrServer(registry))
            stacks[name] = aws.deploy(
                TEMPLATE, {"DtrUrl": server.url, "RegistryName": name}, stack_name=f"side-by-side-{name}"
            )
            stacks[name].put_secret(
                {"ca_bundle": server.ca_bundle, "username": server.admin.name, "password": server.admin.password}
            )
            queues[name] = stacks[name].subscribe_queue()
        for name, each in stacks.items():  # the very same event for both
            runs[name] = invoke(each, "AuditFunction", {"scheduled_time": "2026-11-22T05:00:00Z"})
    assert {name: run["registry"] for name, run in runs.items()} == {"east": "east", "west": "west"}
    assert len({run["run_id"] for run in runs.values()}) == 1
    tags = {name: [item["sk"]["S"] for item in items_of(each, "FindingsTable")] for name, each in stacks.items()}
    assert tags == {"east": ["1"], "west": ["7", "8"]}
    for name, each in stacks.items():
        (message,) = queues[name].messages()
        assert message.attributes["registry"] == name
        found = each.s3.list_objects_v2(Bucket=each.outputs["BucketName"])["Contents"]
        assert found
        assert all(f"/registry={name}/" in entry["Key"] for entry in found)


# --- A way to AWS out of a network that has none ------------------------------------------------------------------


@pytest.mark.parametrize("region", PARTITIONS)
def test_endpoints_are_made_in_the_network_of_the_function(aws: EmbeddedAws, region: str) -> None:
    ec2 = boto3.client("ec2", region_name=region)
    try:
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"] for number in (0, 1)
        ]
        routes = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        outward = ec2.create_security_group(GroupName="outward", Description="The function's", VpcId=vpc)["GroupId"]
        given = {
            **PARAMETERS,
            "VpcSubnetIds": ",".join(subnets),
            "VpcSecurityGroupIds": outward,
            "VpcEndpoints": "true",
            "VpcId": vpc,
            "VpcRouteTableIds": routes,
        }
        stack = aws.deploy(TEMPLATE, given, region=region, stack_name="with-endpoints")
        endpoints = {
            endpoint["ServiceName"].rpartition(".")[2]: endpoint
            for endpoint in ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["VpcEndpoints"]
        }
        door = stack.physical_id("EndpointSecurityGroup")
        (group,) = ec2.describe_security_groups(GroupIds=[door])["SecurityGroups"]
    finally:
        ec2.close()
    network = stack.functions.get_function_configuration(FunctionName=stack.outputs["FunctionName"])["VpcConfig"]
    assert network["SubnetIds"] == subnets
    assert network["SecurityGroupIds"] == [outward]
    assert {name: each["VpcEndpointType"] for name, each in endpoints.items()} == {
        "s3": "Gateway",
        "dynamodb": "Gateway",
        "secretsmanager": "Interface",
        "sns": "Interface",
    }
    assert {each["ServiceName"].rpartition(".")[0] for each in endpoints.values()} == {f"com.amazonaws.{region}"}
    for each in endpoints.values():
        if each["VpcEndpointType"] == "Gateway":
            assert each["RouteTableIds"] == [routes]
        else:
            assert each["SubnetIds"] == subnets
            assert [entry["GroupId"] for entry in each["Groups"]] == [door]
            assert each["PrivateDnsEnabled"]
    (rule,) = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"], rule["IpRanges"]) == ("tcp", 443, 443, [])
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [outward]


# --- Data at rest -------------------------------------------------------------------------------------------------


def keys_in_use(stack: Stack) -> dict[str, str | None]:
    """Ask each service which key it encrypts the stack's data with."""
    sqs = stack.sqs.get_queue_attributes(QueueUrl=stack.outputs["DeadLetterQueueUrl"], AttributeNames=["All"])
    (bucket,) = stack.s3.get_bucket_encryption(Bucket=stack.outputs["BucketName"])["ServerSideEncryptionConfiguration"][
        "Rules"
    ]
    logs = boto3.client("logs", region_name=stack.region)
    try:
        (group,) = logs.describe_log_groups(logGroupNamePrefix=stack.outputs["LogGroupName"])["logGroups"]
    finally:
        logs.close()
    tables = {
        output: stack.dynamodb.describe_table(TableName=stack.outputs[output])["Table"]["SSEDescription"]
        for output in ("FindingsTableName", "RunsTableName")
    }
    return {
        **{output: description["KMSMasterKeyArn"] for output, description in tables.items()},
        "bucket": bucket["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"],
        "log group": group["kmsKeyId"],
        "queue": sqs["Attributes"]["KmsMasterKeyId"],
        "secret": stack.secrets.describe_secret(SecretId=stack.outputs["CredentialsSecretArn"])["KmsKeyId"],
        "topic": stack.sns.get_topic_attributes(TopicArn=stack.outputs["AlertTopicArn"])["Attributes"][
            "KmsMasterKeyId"
        ],
    }


def test_every_service_encrypts_with_the_stacks_own_key(stack: Stack) -> None:
    kms = boto3.client("kms", region_name=stack.region)
    try:
        rotated = kms.get_key_rotation_status(KeyId=stack.physical_id("EncryptionKey"))["KeyRotationEnabled"]
    finally:
        kms.close()
    assert rotated
    assert stack.outputs["EncryptionKeyArn"].endswith(f":key/{stack.physical_id('EncryptionKey')}")
    assert set(keys_in_use(stack).values()) == {stack.outputs["EncryptionKeyArn"]}


def test_every_service_encrypts_with_a_key_that_is_given_and_none_is_made(aws: EmbeddedAws, stack: Stack) -> None:
    kms = boto3.client("kms", region_name=stack.region)
    try:
        key = kms.create_key(Description="of somebody else")["KeyMetadata"]["Arn"]
        before = len(kms.list_keys(Limit=1000)["Keys"])
        given = aws.deploy(
            TEMPLATE, {**PARAMETERS, "KmsKeyArn": key}, region=stack.region, stack_name="with-a-given-key"
        )
        assert len(kms.list_keys(Limit=1000)["Keys"]) == before
    finally:
        kms.close()
    assert given.outputs["EncryptionKeyArn"] == key
    assert set(keys_in_use(given).values()) == {key}


@pytest.mark.parametrize("protected", ["true", "false"])
def test_the_tables_are_protected_from_deletion_unless_somebody_says_otherwise(
    aws: EmbeddedAws, protected: str
) -> None:
    stack = aws.deploy(
        TEMPLATE, {**PARAMETERS, "DeletionProtection": protected}, stack_name=f"deletion-protection-{protected}"
    )
    table = stack.outputs["RunsTableName"]
    if protected == "true":
        with pytest.raises(ClientError, match="DeletionProtectionEnabled"):
            stack.dynamodb.delete_table(TableName=table)
    else:
        stack.dynamodb.delete_table(TableName=table)


def test_a_bucket_without_a_lock_has_none(stack: Stack) -> None:
    with pytest.raises(ClientError, match="ObjectLockConfigurationNotFoundError"):
        stack.s3.get_object_lock_configuration(Bucket=stack.outputs["BucketName"])


@pytest.mark.parametrize("lock", ["governance", "compliance"])
def test_an_audit_writes_into_a_locked_bucket_and_no_one_removes_what_it_wrote(
    aws: EmbeddedAws, registry: InMemoryRegistry, dtr: DtrServer, lock: str
) -> None:
    registry.push("web", "shop", "1")
    given = {"DtrUrl": dtr.url, "RegistryName": "locked", "EvidenceLock": lock, "EvidenceLockDays": "30"}
    stack = aws.deploy(TEMPLATE, given, stack_name=f"locked-{lock}")
    stack.put_secret({"ca_bundle": dtr.ca_bundle, "username": dtr.admin.name, "password": dtr.admin.password})
    assert invoke(stack, "AuditFunction", {"scheduled_time": "2026-11-22T05:00:00Z"})["complete"]
    bucket = stack.outputs["BucketName"]
    versions = stack.s3.list_object_versions(Bucket=bucket)["Versions"]
    assert {version["Key"].partition("/")[0] for version in versions} >= {"findings", "runs"}
    for version in versions:
        key, number = version["Key"], version["VersionId"]
        described = stack.s3.head_object(Bucket=bucket, Key=key, VersionId=number)
        assert described["ObjectLockMode"] == lock.upper()
        assert timedelta(days=29) < described["ObjectLockRetainUntilDate"] - datetime.now(UTC) <= timedelta(days=30)
        with pytest.raises(ClientError, match="AccessDenied"):
            stack.s3.delete_object(Bucket=bucket, Key=key, VersionId=number)
    # What a retried run does to the parts of its first attempt: a marker over them, and they are still there.
    stack.s3.delete_object(Bucket=bucket, Key=versions[0]["Key"])
    assert len(stack.s3.list_object_versions(Bucket=bucket)["Versions"]) == len(versions)


# --- Alerts -------------------------------------------------------------------------------------------------------


def publish(stack: Stack, text: str, **attributes: str | list[str]) -> None:
    stack.sns.publish(
        TopicArn=stack.outputs["AlertTopicArn"],
        Subject="Two tags are not signed",
        MessageStructure="json",
        Message=json.dumps({"default": text, "sqs": json.dumps({"opened": text})}),
        MessageAttributes={
            name: {"DataType": "String.Array", "StringValue": json.dumps(value)}
            if isinstance(value, list)
            else {"DataType": "String", "StringValue": value}
            for name, value in attributes.items()
        },
    )


def test_a_queue_gets_the_text_for_machines_and_a_mailbox_the_text_for_people(own_stack: Stack) -> None:
    queue, mailbox = own_stack.subscribe_queue(), own_stack.subscribe_mailbox()
    publish(own_stack, "two tags", status="OPEN", namespaces=["team-a", "team-b"])
    (message,), (mail,) = queue.messages(), mailbox.messages()
    assert message.body == {"opened": "two tags"}
    assert mail.text == "two tags"
    assert message.subject == mail.subject == "Two tags are not signed"
    assert message.message_id == mail.message_id
    assert message.attributes == mail.attributes == {"status": "OPEN", "namespaces": ["team-a", "team-b"]}


def test_a_mailbox_prefers_the_text_meant_for_mail(own_stack: Stack) -> None:
    mailbox = own_stack.subscribe_mailbox()
    topic = own_stack.outputs["AlertTopicArn"]
    by_protocol = json.dumps({"default": "for all", "email": "for mail"})
    own_stack.sns.publish(TopicArn=topic, MessageStructure="json", Message=by_protocol)
    own_stack.sns.publish(TopicArn=topic, Message="plain")
    own_stack.sns.publish(TopicArn=topic, Message='{"plain": "JSON"}')
    assert [mail.text for mail in mailbox.messages()] == ["for mail", "plain", '{"plain": "JSON"}']


def test_a_message_is_taken_once(own_stack: Stack) -> None:
    queue, mailbox = own_stack.subscribe_queue(), own_stack.subscribe_mailbox()
    for number in range(25):
        publish(own_stack, str(number))
    assert [message.body["opened"] for message in queue.messages()] == [str(n) for n in range(25)]
    assert [mail.text for mail in mailbox.messages()] == [str(n) for n in range(25)]
    assert queue.messages() == mailbox.messages() == []


def test_a_mailbox_starts_empty(own_stack: Stack) -> None:
    publish(own_stack, "before")
    assert own_stack.subscribe_mailbox().messages() == []


def test_a_filter_policy_lets_a_team_see_its_own_namespaces_only(own_stack: Stack) -> None:
    team_a = own_stack.subscribe_queue({"namespaces": ["team-a"]})
    publish(own_stack, "b", namespaces=["team-b"])
    publish(own_stack, "a and c", namespaces=["team-a", "team-c"])
    assert [message.body["opened"] for message in team_a.messages()] == ["a and c"]


def test_a_message_of_the_largest_size_arrives(own_stack: Stack) -> None:
    queue = own_stack.subscribe_queue()
    own_stack.sns.publish(TopicArn=own_stack.outputs["AlertTopicArn"], Message='"' * 262_144)
    assert len(queue.messages()[0].text) == 262_144


# --- The tables in files ------------------------------------------------------------------------------------------

ITEM: dict[str, Any] = {
    "pk": {"S": "prod-dtr#team/app"},
    "sk": {"S": "1.0\u2028\u202e"},
    "first_seen": {"S": "2030-01-01T00:00:00Z"},
    "count": {"N": "12345678901234567890.5"},
    "none": {"NULL": True},
    "yes": {"BOOL": True},
    "raw": {"B": b"\x00\xff"},
    "names": {"SS": ["a", "b"]},
    "numbers": {"NS": ["1", "2"]},
    "raws": {"BS": [b"a", b"b"]},
    "list": {"L": [{"M": {"raw": {"B": b"\n"}}}, {"S": ""}]},
}


def put(stack: Stack, table: str, *items: dict[str, Any]) -> None:
    for item in items:
        stack.dynamodb.put_item(TableName=stack.physical_id(table), Item=item)


def items_of(stack: Stack, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        dict(item) for item in stack.dynamodb.scan(TableName=stack.physical_id(table))["Items"]
    ]
    return sorted(found, key=lambda item: str(item["sk"]))


def test_tables_survive_in_files_with_exact_types(aws: EmbeddedAws, own_stack: Stack, tmp_path: Path) -> None:
    run = {"pk": {"S": "prod-dtr"}, "sk": {"S": "run-1"}}
    put(own_stack, "FindingsTable", ITEM)
    put(own_stack, "RunsTable", run)
    own_stack.dump_tables(tmp_path / "state")
    later = aws.deploy(TEMPLATE, PARAMETERS, stack_name="later-run")
    later.load_tables(tmp_path / "state")
    (finding,) = items_of(later, "FindingsTable")
    assert {name: value for name, value in finding.items() if "S" not in next(iter(value))} == {
        name: value for name, value in ITEM.items() if "S" not in next(iter(value))
    }
    assert finding["pk"] == ITEM["pk"]
    assert finding["sk"] == ITEM["sk"]
    assert sorted(finding["names"]["SS"]) == ["a", "b"]
    assert sorted(finding["raws"]["BS"]) == [b"a", b"b"]
    assert items_of(later, "RunsTable") == [run]


def test_a_dump_is_in_the_order_of_the_keys_any_came_first(aws: EmbeddedAws, own_stack: Stack, tmp_path: Path) -> None:
    other = aws.deploy(TEMPLATE, PARAMETERS, stack_name="other-order")
    items = [{**ITEM, "sk": {"S": f"{number:02}"}} for number in range(60)]
    put(own_stack, "FindingsTable", *items)
    put(other, "FindingsTable", *reversed(items))
    own_stack.dump_tables(tmp_path / "one")
    other.dump_tables(tmp_path / "two")
    one, two = ((tmp_path / name / "FindingsTable.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    assert [json.loads(line)["sk"]["S"] for line in one.splitlines()] == [f"{n:02}" for n in range(60)]
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"FindingsTable.jsonl", "RunsTable.jsonl"}


def test_more_items_than_fit_one_request_are_loaded(own_stack: Stack, tmp_path: Path) -> None:
    lines = [json.dumps({"pk": {"S": "prod-dtr"}, "sk": {"S": str(number)}}) for number in range(130)]
    (tmp_path / "RunsTable.jsonl").write_text("\n".join(lines), encoding="utf-8")
    own_stack.load_tables(tmp_path)
    assert len(items_of(own_stack, "RunsTable")) == 130


def test_without_files_the_tables_stay_empty(own_stack: Stack, tmp_path: Path) -> None:
    own_stack.load_tables(tmp_path / "never-made")
    assert items_of(own_stack, "FindingsTable") == []


@pytest.mark.parametrize(
    "line",
    [
        '{"pk": {"S": "prod-dtr"}, "sk": {"S": "1"',
        "[]",
        '"text"',
        '{"pk": {"S": "prod-dtr"}}',
        '{"pk": {"S": "prod-dtr"}, "sk": {"N": "1"}}',
        '{"pk": {"S": "prod-dtr"}, "sk": {"S": ""}}',
        '{"pk": {"S": "prod-dtr"}, "sk": "1"}',
        '{"pk": {"S": "prod-dtr"}, "sk": {"S": "1"}, "x": {"Q": "1"}}',
        '{"pk": {"S": "prod-dtr"}, "sk": {"S": "1"}, "x": {"N": "one"}}',
        '{"pk": {"S": "prod-dtr"}, "sk": {"S": "1"}, "x": {"B": "%"}}',
        '{"pk": {"S": "prod-dtr"}, "sk": {"S": "1"}, "x": {"S": "a", "N": "1"}}',
        '{"pk": {"S": "prod-dtr"}, "sk": {"S": "1"}, "first_seen": {"N": "1"}}',
    ],
)
def test_a_line_that_is_no_item_is_named_and_nothing_is_loaded(own_stack: Stack, tmp_path: Path, line: str) -> None:
    good = '{"pk": {"S": "prod-dtr"}, "sk": {"S": "0"}}'
    (tmp_path / "RunsTable.jsonl").write_text(good, encoding="utf-8")
    (tmp_path / "FindingsTable.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(StateFileError, match=r"FindingsTable\.jsonl, line 2, is no item.*delete it"):
        own_stack.load_tables(tmp_path)
    assert items_of(own_stack, "RunsTable") == []


def test_a_key_that_comes_twice_is_named(own_stack: Stack, tmp_path: Path) -> None:
    line = '{"pk": {"S": "prod-dtr"}, "sk": {"S": "0"}}'
    (tmp_path / "RunsTable.jsonl").write_text(f"{line}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(StateFileError, match=r"RunsTable\.jsonl, line 3, has the same key as line 1"):
        own_stack.load_tables(tmp_path)


def test_a_file_that_is_no_text_is_named(own_stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "RunsTable.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(StateFileError, match=r"RunsTable\.jsonl is not UTF-8"):
        own_stack.load_tables(tmp_path)


# --- The bucket in files ------------------------------------------------------------------------------------------


def test_the_mirror_holds_the_buckets_current_objects(own_stack: Stack, tmp_path: Path) -> None:
    bucket = own_stack.outputs["BucketName"]
    for body in (b"first", b"second"):
        own_stack.s3.put_object(Bucket=bucket, Key="runs/registry=prod-dtr/1.json", Body=body)
    own_stack.s3.put_object(Bucket=bucket, Key="findings/1-0.jsonl.gz", Body=b"\x1f\x8b", ContentEncoding="gzip")
    own_stack.mirror_bucket(tmp_path / "out")
    files = {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert files == {"runs/registry=prod-dtr/1.json": b"second", "findings/1-0.jsonl.gz": b"\x1f\x8b"}


def test_the_mirror_removes_only_what_it_put_there_itself(own_stack: Stack, tmp_path: Path) -> None:
    bucket = own_stack.outputs["BucketName"]
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings/yesterday").write_text("kept", encoding="utf-8")
    for key in ("findings/part-0", "findings/part-1"):
        own_stack.s3.put_object(Bucket=bucket, Key=key, Body=b"row")
    own_stack.mirror_bucket(tmp_path)
    own_stack.s3.delete_object(Bucket=bucket, Key="findings/part-1")
    own_stack.mirror_bucket(tmp_path)
    assert {path.name for path in (tmp_path / "findings").iterdir()} == {"yesterday", "part-0"}


@pytest.mark.parametrize("key", ["../escaped", "a/../../escaped", "/escaped", "folder/", "a//b"])
def test_an_object_that_would_leave_the_mirror_is_refused(own_stack: Stack, tmp_path: Path, key: str) -> None:
    own_stack.s3.put_object(Bucket=own_stack.outputs["BucketName"], Key=key, Body=b"")
    with pytest.raises(ValueError, match="cannot be a file below"):
        own_stack.mirror_bucket(tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


# --- Deploying ----------------------------------------------------------------------------------------------------


def test_a_value_the_template_forbids_is_not_deployed(aws: EmbeddedAws) -> None:
    with pytest.raises(ParameterError, match=r"DtrUrl is 'http://dtr\.example\.mil'; it must be https://"):
        aws.deploy(TEMPLATE, {**PARAMETERS, "DtrUrl": "http://dtr.example.mil"})


def test_a_resource_moto_would_skip_is_refused_by_name(aws: EmbeddedAws, tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text("Resources: {Report: {Type: 'AWS::QuickSight::Dashboard'}}", encoding="utf-8")
    with pytest.raises(DeploymentError, match="AWS::QuickSight::Dashboard"):
        aws.deploy(path, {})


def test_a_stack_is_not_deployed_twice(aws: EmbeddedAws) -> None:
    aws.deploy(TEMPLATE, PARAMETERS, stack_name="once")
    with pytest.raises(DeploymentError, match="does not deploy as once"):
        aws.deploy(TEMPLATE, PARAMETERS, stack_name="once")


def test_a_function_is_invoked_in_the_region_of_its_stack(
    aws: EmbeddedAws, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("web", "shop", "1")
    elsewhere = aws.deploy(TEMPLATE, PARAMETERS, region="us-gov-east-1", stack_name="elsewhere")
    assert elsewhere.region != aws.region
    audited = Audited(elsewhere, dtr)
    audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
    run = audited.audit()
    assert (run["status"], run["complete"]) == ("OPEN", True)
    assert len(audited.messages()) == 1
    assert os.environ["AWS_REGION"] == os.environ["AWS_DEFAULT_REGION"] == aws.region
    audited.close()


def test_there_is_one_embedded_aws_at_a_time(aws: EmbeddedAws) -> None:
    with pytest.raises(RuntimeError, match="running in this process already"), EmbeddedAws():
        pass
    assert os.environ["AWS_ACCESS_KEY_ID"] == ACCESS_KEY, "the first one goes on"
    assert aws.moto


def test_embedded_aws_request_without_an_answer_stays_in_the_process(aws: EmbeddedAws) -> None:
    with (
        closing(boto3.client("s3", endpoint_url="https://unheard-of.us-east-1.amazonaws.com")) as client,
        pytest.raises(ClientError, match="404"),
    ):
        client.list_buckets()


def test_embedded_aws_endpoint_answers_on_the_loopback_interface_only(aws: EmbeddedAws, stack: Stack) -> None:
    with closing(boto3.client("s3", region_name=stack.region, endpoint_url=aws.moto.endpoint)) as client:
        assert stack.outputs["BucketName"] in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    assert aws.moto.endpoint.startswith("http://127.0.0.1:")
    port = int(aws.moto.endpoint.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port)):
        pass
