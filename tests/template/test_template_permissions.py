"""Who may do what: statement by statement, so that every change of a right is a change of this file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import template as templates

PATH = Path(__file__).parents[2] / "template.yaml"
TEXT = PATH.read_text(encoding="utf-8")
TEMPLATE = templates.load(PATH)
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]

# What the audit and its schedule are granted, each right on which resource.
GRANTED = {
    "AuditRole": {
        "ReadCredentials": (
            {"secretsmanager:GetSecretValue"},
            {'{"Fn::If": ["SecretIsOurs", {"Ref": "CredentialsSecret"}, {"Ref": "CredentialsSecretArn"}]}'},
        ),
        "DecryptCredentials": ({"kms:Decrypt"}, {'{"Ref": "CredentialsSecretKeyArn"}'}),
        "KeepFindings": (
            {"dynamodb:Query", "dynamodb:UpdateItem", "dynamodb:BatchWriteItem"},
            {'{"Fn::GetAtt": ["FindingsTable", "Arn"]}'},
        ),
        "AskFindingsIndexes": (
            {"dynamodb:Query"},
            {
                '{"Fn::Sub": "${FindingsTable.Arn}/index/open"}',
                '{"Fn::Sub": "${FindingsTable.Arn}/index/unannounced"}',
            },
        ),
        "KeepRuns": (
            {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"},
            {'{"Fn::GetAtt": ["RunsTable", "Arn"]}'},
        ),
        "WriteArchive": (
            {"s3:PutObject"},
            {'{"Fn::Sub": "${AuditBucket.Arn}/findings/*"}', '{"Fn::Sub": "${AuditBucket.Arn}/runs/*"}'},
        ),
        "FindStaleParts": ({"s3:ListBucket"}, {'{"Fn::GetAtt": ["AuditBucket", "Arn"]}'}),
        "RemoveStaleParts": ({"s3:DeleteObject"}, {'{"Fn::Sub": "${AuditBucket.Arn}/findings/*"}'}),
        "PublishAlerts": ({"sns:Publish"}, {'{"Ref": "AlertTopic"}'}),
        "WriteLogs": (
            {"logs:CreateLogStream", "logs:PutLogEvents"},
            {'{"Fn::GetAtt": ["AuditLogGroup", "Arn"]}'},
        ),
        "KeepFailedRuns": ({"sqs:SendMessage"}, {'{"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}'}),
        "ManageNetworkInterfaces": (
            {
                "ec2:CreateNetworkInterface",
                "ec2:DeleteNetworkInterface",
                "ec2:AssignPrivateIpAddresses",
                "ec2:UnassignPrivateIpAddresses",
            },
            {'{"Fn::Sub": "arn:${AWS::Partition}:ec2:${AWS::Region}:${AWS::AccountId}:*/*"}'},
        ),
        "SeeNetworkInterfaces": ({"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"}, {'"*"'}),
    },
    "ScheduleRole": {
        "StartAudit": ({"lambda:InvokeFunction"}, {'{"Fn::GetAtt": ["AuditFunction", "Arn"]}'}),
        "KeepMissedSchedules": ({"sqs:SendMessage"}, {'{"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}'}),
    },
}
# Which right a method of an AWS client needs, as far as the auditor calls it.
NEEDED = {
    "query": "dynamodb:Query",
    "get_item": "dynamodb:GetItem",
    "put_item": "dynamodb:PutItem",
    "update_item": "dynamodb:UpdateItem",
    "delete_item": "dynamodb:DeleteItem",
    "batch_write_item": "dynamodb:BatchWriteItem",
    "list_objects_v2": "s3:ListBucket",
    "put_object": "s3:PutObject",
    "delete_object": "s3:DeleteObject",
    "publish": "sns:Publish",
}
# What Lambda itself does under the role, and what an option of the deployment adds.
NOT_CALLED = {"logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage", "kms:Decrypt"}
ONLY_IF = {
    "DecryptCredentials": "SecretHasKey",
    "ManageNetworkInterfaces": "InVpc",
    "SeeNetworkInterfaces": "InVpc",
    "NoNetworkInterfacesForTheCode": "InVpc",
}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(role: str) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Give each statement of a role with the condition it depends on."""
    for policy in RESOURCES[role]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            if "Fn::If" in statement:
                condition, granted, otherwise = statement["Fn::If"]
                assert otherwise == {"Ref": "AWS::NoValue"}
                yield granted, condition
            else:
                yield statement, None


def all_statements() -> Iterator[dict[str, Any]]:
    for role in GRANTED:
        for statement, _ in statements(role):
            yield statement
        yield from RESOURCES[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    for resource in RESOURCES.values():
        if resource["Type"].endswith("Policy"):
            yield from resource["Properties"]["PolicyDocument"]["Statement"]


@pytest.mark.parametrize("role", GRANTED)
def test_a_role_grants_exactly_what_is_listed_here(role: str) -> None:
    granted = {
        statement["Sid"]: (
            set(as_list(statement["Action"])),
            {json.dumps(resource) for resource in as_list(statement["Resource"])},
        )
        for statement, _ in statements(role)
        if statement["Effect"] == "Allow"
    }
    assert granted == GRANTED[role]


def test_the_audit_role_grants_what_the_auditor_calls_and_nothing_else() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (PATH.parent / "layers/audit/dtr_audit").rglob("*.py")]
    pattern = re.compile(r'client\.get_paginator\("(?P<listed>\w+)"\)|client\.(?!get_paginator)(?P<called>\w+)\(')
    called = {match["listed"] or match["called"] for source in sources for match in pattern.finditer(source)}
    used = {NEEDED[method] for method in called} | {"secretsmanager:GetSecretValue"}  # the latter by Powertools
    granted = {action for actions, _ in GRANTED["AuditRole"].values() for action in actions}
    assert used == {action for action in granted - NOT_CALLED if not action.startswith("ec2:")}


def test_there_is_no_role_besides_those_listed_here() -> None:
    assert {name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::IAM::Role"} == set(GRANTED)
    assert "Policies" not in RESOURCES["AuditFunction"]["Properties"]
    assert not any("ManagedPolicyArns" in RESOURCES[role]["Properties"] for role in GRANTED)


@pytest.mark.parametrize("role", GRANTED)
def test_rights_for_an_option_come_only_with_the_option(role: str) -> None:
    for statement, condition in statements(role):
        assert condition == ONLY_IF.get(statement["Sid"])


def test_no_grant_has_a_wildcard_action() -> None:
    allowed = [statement for statement in all_statements() if statement["Effect"] == "Allow"]
    assert len(allowed) == sum(map(len, GRANTED.values())) + len(GRANTED)
    assert not [action for statement in allowed for action in as_list(statement["Action"]) if "*" in action]


def test_every_statement_has_a_name_of_its_own_in_its_policy() -> None:
    for role in GRANTED:
        names = [statement["Sid"] for statement, _ in statements(role)]
        assert len(names) == len(set(names))
    assert all(statement["Sid"] for statement in all_statements())


def test_every_right_says_above_it_what_it_is_for() -> None:
    lines = TEXT.splitlines()
    for role in GRANTED:
        for statement, condition in statements(role):
            number = next(n for n, line in enumerate(lines) if line.endswith(f"Sid: {statement['Sid']}"))
            above = lines[number - (3 if condition else 1)]
            assert above.lstrip().startswith("#"), statement["Sid"]


def test_a_resource_of_star_says_beside_it_why() -> None:
    stars = re.findall(r'^ *Resource: "\*"(.*)$', TEXT, re.MULTILINE)
    assert len(stars) == 2
    assert all(re.fullmatch(r" +# .{10,}", reason) for reason in stars)


def test_the_code_cannot_use_the_rights_lambda_needs_for_its_network_interfaces() -> None:
    (denied,) = [statement for statement, _ in statements("AuditRole") if statement["Effect"] == "Deny"]
    assert denied["Action"] == "ec2:*"
    assert denied["Condition"] == {"Null": {"lambda:SourceFunctionArn": "false"}}


def test_the_right_to_list_is_limited_to_the_rows() -> None:
    (listing,) = [s for s, _ in statements("AuditRole") if s["Action"] == "s3:ListBucket"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": "findings/*"}}


def test_a_key_decrypts_only_the_secret_it_was_given_for() -> None:
    (decrypting,) = [s for s, _ in statements("AuditRole") if s["Action"] == "kms:Decrypt"]
    assert decrypting["Condition"] == {
        "StringEquals": {"kms:EncryptionContext:SecretARN": {"Ref": "CredentialsSecretArn"}}
    }


def test_only_lambda_takes_the_audit_role_and_only_schedules_of_the_account_the_other() -> None:
    (audit,) = RESOURCES["AuditRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    (schedule,) = RESOURCES["ScheduleRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert audit["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert schedule["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert schedule["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


@pytest.mark.parametrize(
    ("policy", "protected", "actions"),
    [
        (
            "AuditBucketPolicy",
            [{"Fn::GetAtt": ["AuditBucket", "Arn"]}, {"Fn::Sub": "${AuditBucket.Arn}/*"}],
            "s3:*",
        ),
        ("DeadLetterQueuePolicy", {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}, "sqs:*"),
        ("AlertTopicPolicy", {"Ref": "AlertTopic"}, "sns:Publish"),
    ],
)
def test_nothing_goes_to_bucket_queue_or_topic_without_tls(policy: str, protected: Any, actions: str) -> None:
    (denied,) = RESOURCES[policy]["Properties"]["PolicyDocument"]["Statement"]
    assert denied == {
        "Sid": "NothingWithoutTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": actions,
        "Resource": protected,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def test_every_bucket_queue_and_topic_has_such_a_policy() -> None:
    places = {"AWS::S3::Bucket": "Bucket", "AWS::SQS::Queue": "Queues", "AWS::SNS::Topic": "Topics"}
    to_protect = {name for name, resource in RESOURCES.items() if resource["Type"] in places}
    protected = {
        reference["Ref"]
        for resource in RESOURCES.values()
        if resource["Type"].removesuffix("Policy") in places and resource["Type"].endswith("Policy")
        for reference in as_list(resource["Properties"][places[resource["Type"].removesuffix("Policy")]])
    }
    assert to_protect == {"AuditBucket", "DeadLetterQueue", "AlertTopic"}
    assert protected == to_protect
