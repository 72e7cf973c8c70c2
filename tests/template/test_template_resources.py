"""What the template deploys, and what moto would not tell us about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import template as templates

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "template.yaml").read_text(encoding="utf-8")
TEMPLATE = templates.load(ROOT / "template.yaml")
TRANSLATED = templates.translate(TEMPLATE, "us-gov-west-1")["Resources"]
FUNCTION = TRANSLATED["AuditFunction"]["Properties"]

ENVIRONMENT = {
    "DTR_URL",
    "DTR_DOMAINS",
    "REGISTRY_NAME",
    "SECRET_ARN",
    "FINDINGS_TABLE",
    "RUNS_TABLE",
    "BUCKET",
    "TOPIC_ARN",
    "CONCURRENCY",
    "PAGE_SIZE",
    "ALERT_GROUPING",
    "REMINDER_DAYS",
    "RESOLVED_DAYS",
    "X509_STRICT",
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_LOG_LEVEL",
}


def of_type(kind: str) -> dict[str, Any]:
    return {name: resource for name, resource in TRANSLATED.items() if resource["Type"] == kind}


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


# --- Both partitions ----------------------------------------------------------------------------------------------


def test_no_partition_is_written_down() -> None:
    assert "arn:aws:" not in TEXT
    assert "arn:aws-us-gov:" not in TEXT


def test_no_host_of_aws_is_written_down_except_as_a_service_principal() -> None:
    named = re.findall(r"[\w.*-]*amazonaws\.com", TEXT)
    assert set(named) == {"lambda.amazonaws.com", "scheduler.amazonaws.com"}
    assert len(named) == len(re.findall(r"Principal: {Service: [a-z]+\.amazonaws\.com}", TEXT))


def test_nothing_is_deployed_that_govcloud_lacks() -> None:
    assert "AWS::IAM::RolePolicy" not in TEXT


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1", "us-gov-east-1"])
def test_the_translation_names_no_partition_either(region: str) -> None:
    translated = templates.translate(TEMPLATE, region)
    del translated["Parameters"]  # their patterns allow for any partition
    assert not [text for text in strings(translated) if "arn:aws" in text]


def test_nothing_has_a_fixed_name_that_a_second_stack_would_want_too() -> None:
    named = {
        name: key
        for name, resource in TRANSLATED.items()
        for key in resource.get("Properties", {})
        if key in {"Name", "FunctionName", "RoleName", "TableName", "BucketName", "TopicName", "QueueName"}
        or key in {"LogGroupName", "LayerName"}
    }
    assert named == {"AuditFunctionEventInvokeConfig": "FunctionName", LAYER: "LayerName"}
    assert TRANSLATED[LAYER]["Properties"]["LayerName"] == {"Fn::Sub": "${AWS::StackName}-audit"}


# --- The function -------------------------------------------------------------------------------------------------

LAYER = next(iter(of_type("AWS::Lambda::LayerVersion")))


def test_the_function_gets_exactly_the_agreed_environment() -> None:
    assert set(FUNCTION["Environment"]["Variables"]) == ENVIRONMENT


def test_the_environment_holds_no_credential() -> None:
    assert "{{resolve:" not in TEXT
    assert not [name for name, parameter in TEMPLATE["Parameters"].items() if parameter.get("NoEcho")]


def test_the_function_keeps_no_concurrency_for_itself() -> None:
    assert "ReservedConcurrentExecutions" not in FUNCTION


def test_the_function_logs_into_the_group_that_has_a_retention() -> None:
    assert FUNCTION["LoggingConfig"] == {"LogGroup": {"Ref": "AuditLogGroup"}}
    assert TRANSLATED["AuditLogGroup"]["Properties"] == {"RetentionInDays": {"Ref": "LogRetentionDays"}}


def test_function_and_layer_are_built_for_the_same_runtime_and_processor() -> None:
    layer = TRANSLATED[LAYER]["Properties"]
    assert FUNCTION["Layers"] == [{"Ref": LAYER}]
    assert layer["CompatibleRuntimes"] == [FUNCTION["Runtime"]] == ["python3.13"]
    assert layer["CompatibleArchitectures"] == FUNCTION["Architectures"] == ["x86_64"]
    assert TEMPLATE["Resources"]["AuditLayer"]["Metadata"]["BuildArchitecture"] == "x86_64"
    assert TRANSLATED[LAYER]["DeletionPolicy"] == "Delete"


def test_a_failed_audit_is_tried_again_within_the_hour_and_then_kept() -> None:
    (config,) = of_type("AWS::Lambda::EventInvokeConfig").values()
    assert config["Properties"]["MaximumRetryAttempts"] == 2
    assert config["Properties"]["DestinationConfig"] == {
        "OnFailure": {"Destination": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}}
    }
    # Lambda waits one minute and then two before it tries again.
    attempts = 3 * TEMPLATE["Parameters"]["TimeoutSeconds"]["MaxValue"] + 60 + 120
    assert config["Properties"]["MaximumEventAgeInSeconds"] >= attempts


def test_half_a_network_setting_is_refused_rather_than_ignored() -> None:
    text = json.dumps(TEMPLATE["Conditions"]["InVpc"])
    assert '{"Ref": "VpcSubnetIds"}' in text
    assert '{"Ref": "VpcSecurityGroupIds"}' in text
    assert FUNCTION["VpcConfig"]["Fn::If"][0] == "InVpc"


# --- The schedule -------------------------------------------------------------------------------------------------

(SCHEDULE,) = of_type("AWS::Scheduler::Schedule").values()


def test_two_stacks_do_not_fight_for_the_name_of_a_schedule() -> None:
    assert "Name" not in SCHEDULE["Properties"]


def test_the_schedule_delivers_the_time_it_was_due() -> None:
    event = json.loads(SCHEDULE["Properties"]["Target"]["Input"])
    assert event == {"scheduled_time": "<aws.scheduler.scheduled-time>"}


def test_a_missed_schedule_is_tried_a_few_times_for_an_hour_and_then_kept() -> None:
    target = SCHEDULE["Properties"]["Target"]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 3600}
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}}
    assert target["RoleArn"] == {"Fn::GetAtt": ["ScheduleRole", "Arn"]}


def test_expression_time_zone_and_state_are_the_deployers() -> None:
    properties = SCHEDULE["Properties"]
    assert properties["ScheduleExpression"] == {"Ref": "ScheduleExpression"}
    assert properties["ScheduleExpressionTimezone"] == {"Ref": "ScheduleTimeZone"}
    assert properties["State"] == {"Ref": "ScheduleState"}


# --- What is kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FindingsTable", "RunsTable", "AuditBucket", "AuditBucketPolicy", "AuditLogGroup"])
def test_findings_evidence_and_logs_outlive_the_stack(name: str) -> None:
    assert TRANSLATED[name]["DeletionPolicy"] == "Retain"
    assert TRANSLATED[name]["UpdateReplacePolicy"] == "Retain"


def test_every_table_and_bucket_is_among_those_that_outlive_the_stack() -> None:
    stateful = {**of_type("AWS::DynamoDB::Table"), **of_type("AWS::S3::Bucket")}
    assert {resource["DeletionPolicy"] for resource in stateful.values()} == {"Retain"}


@pytest.mark.parametrize("name", ["FindingsTable", "RunsTable"])
def test_a_table_is_encrypted_recoverable_and_paid_by_use(name: str) -> None:
    table = TRANSLATED[name]["Properties"]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}


def test_the_bucket_is_private_versioned_and_encrypted() -> None:
    bucket = TRANSLATED["AuditBucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    (encryption,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}


def test_no_lifecycle_rule_touches_a_current_object() -> None:
    for rule in TRANSLATED["AuditBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]:
        assert not {"ExpirationInDays", "ExpirationDate", "Transitions"} & set(rule)


def test_the_queue_keeps_a_message_as_long_as_a_queue_can() -> None:
    queue = TRANSLATED["DeadLetterQueue"]["Properties"]
    assert queue == {"MessageRetentionPeriod": 14 * 24 * 3600, "SqsManagedSseEnabled": True}


def test_the_secret_is_made_without_a_value() -> None:
    secret = TRANSLATED["CredentialsSecret"]
    assert set(secret["Properties"]) == {"Description"}
    assert secret["Condition"] == "SecretIsOurs"


def test_mail_goes_only_to_a_given_address() -> None:
    (subscription,) = of_type("AWS::SNS::Subscription").values()
    assert subscription["Condition"] == "AlertsGoByEmail"


def test_the_outputs_say_where_everything_is() -> None:
    assert set(TEMPLATE["Outputs"]) == {
        "StoreCredentialsCommand",
        "RunNowCommand",
        "CredentialsSecretArn",
        "FunctionName",
        "LogGroupName",
        "BucketName",
        "FindingsTableName",
        "RunsTableName",
        "AlertTopicArn",
        "DeadLetterQueueUrl",
    }
    assert all(output["Description"].endswith(".") for output in TEMPLATE["Outputs"].values())
