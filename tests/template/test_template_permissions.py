"""Who may do what: statement by statement, so that every change of a right is a change of this file.

That each right is needed, and none is missing, is shown by tests/integration/test_least_privilege.py. What no run can
show is kept here: that no resource is wider, and no condition looser, than what somebody has read and agreed to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit_simulator.aws import template as templates

PATH = Path(__file__).parents[2] / "template.yaml"
TEXT = PATH.read_text(encoding="utf-8")
TEMPLATE = templates.load(PATH)
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]

USE_KEY = (
    {"kms:Decrypt", "kms:GenerateDataKey"},
    {'{"Fn::If": ["KeyIsOurs", {"Fn::GetAtt": ["EncryptionKey", "Arn"]}, {"Ref": "KmsKeyArn"}]}'},
)
Right = tuple[set[str], set[str]]  # actions, and resources as JSON
# What the audit is granted in one function, each right on which resource.
ALL_RIGHTS: dict[str, Right] = {
    "ReadCredentials": (
        {"secretsmanager:GetSecretValue"},
        {'{"Fn::If": ["SecretIsOurs", {"Ref": "CredentialsSecret"}, {"Ref": "CredentialsSecretArn"}]}'},
    ),
    "DecryptCredentials": ({"kms:Decrypt"}, {'{"Ref": "CredentialsSecretKeyArn"}'}),
    "KeepFindings": (
        {"dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem", "dynamodb:BatchWriteItem"},
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
        {"dynamodb:Query", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"},
        {'{"Fn::GetAtt": ["RunsTable", "Arn"]}'},
    ),
    "WriteArchive": (
        {"s3:PutObject"},
        {f'{{"Fn::Sub": "${{AuditBucket.Arn}}/{kind}/*"}}' for kind in ("findings", "runs", "evidence")},
    ),
    "ReadBaseline": ({"s3:GetObject"}, {'{"Fn::Sub": "${AuditBucket.Arn}/${BaselineKey}"}'}),
    "ReadTrustPins": ({"s3:GetObject"}, {'{"Fn::Sub": "${AuditBucket.Arn}/policy/trust-pins.json"}'}),
    "FindStaleParts": ({"s3:ListBucket"}, {'{"Fn::GetAtt": ["AuditBucket", "Arn"]}'}),
    "RemoveStaleParts": ({"s3:DeleteObject"}, {'{"Fn::Sub": "${AuditBucket.Arn}/findings/*"}'}),
    "FindExceptions": ({"s3:ListBucket"}, {'{"Fn::GetAtt": ["AuditBucket", "Arn"]}'}),
    "ReadExceptions": ({"s3:GetObject"}, {'{"Fn::Sub": "${AuditBucket.Arn}/policy/exceptions.json"}'}),
    "PublishAlerts": (
        {"sns:Publish"},
        {'{"Fn::If": ["TopicIsOurs", {"Ref": "AlertTopic"}, {"Ref": "AlertTopicArn"}]}'},
    ),
    "UseAlertTopicKey": ({"kms:Decrypt", "kms:GenerateDataKey"}, {'{"Ref": "AlertTopicKeyArn"}'}),
    "TellSecurityHub": (
        {"securityhub:BatchImportFindings"},
        {
            '{"Fn::Sub": "arn:${AWS::Partition}:securityhub:${AWS::Region}:${AWS::AccountId}:'
            'product/${AWS::AccountId}/default"}'
        },
    ),
    "UseKey": USE_KEY,
    "SignManifest": ({"kms:GetPublicKey", "kms:Sign"}, {'{"Ref": "ManifestSigningKeyArn"}'}),
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
}


def some(*names: str, **others: Right) -> dict[str, Right]:
    """Give a step's rights: some that the whole audit has as well, and others."""
    return {**{name: ALL_RIGHTS[name] for name in names}, **others}


def in_bucket(*kinds: str) -> set[str]:
    return {f'{{"Fn::Sub": "${{AuditBucket.Arn}}/{kind}"}}' for kind in kinds}


BUCKET = {'{"Fn::GetAtt": ["AuditBucket", "Arn"]}'}
FINDINGS = {'{"Fn::GetAtt": ["FindingsTable", "Arn"]}'}
RUNS = {'{"Fn::GetAtt": ["RunsTable", "Arn"]}'}
OF_THE_REGISTRY = ("ReadCredentials", "DecryptCredentials")
OF_EVERY_STEP = (
    "FindStaleParts",
    "RemoveStaleParts",
    "UseKey",
    "WriteLogs",
    "ManageNetworkInterfaces",
    "SeeNetworkInterfaces",
)
WORK = in_bucket("work/*")
MACHINE_ID = '{"Id": {"Fn::Select": [2, {"Fn::Split": ["/", {"Ref": "AWS::StackId"}]}]}}'


def of_machine(kind: str, tail: str = "") -> set[str]:
    """Give the machine of the stack itself, or its executions."""
    arn = f"arn:${{AWS::Partition}}:states:${{AWS::Region}}:${{AWS::AccountId}}:{kind}:signature-audit-${{Id}}{tail}"
    return {f'{{"Fn::Sub": ["{arn}", {MACHINE_ID}]}}'}


READING: dict[str, Right] = some(
    *OF_THE_REGISTRY,
    *OF_EVERY_STEP,
    KeepFindings=({"dynamodb:Query", "dynamodb:BatchWriteItem"}, FINDINGS),
    ConfirmLease=({"dynamodb:GetItem"}, RUNS),
    ReadWork=({"s3:GetObject"}, WORK),
    WriteArchive=({"s3:PutObject"}, in_bucket("findings/*", "work/*")),
    RemoveWork=({"s3:DeleteObject"}, WORK),
)
GRANTED: dict[str, dict[str, Right]] = {
    "AuditRole": ALL_RIGHTS,
    "InventoryRole": some(
        *OF_THE_REGISTRY,
        *OF_EVERY_STEP,
        "ReadTrustPins",
        "FindExceptions",
        "ReadExceptions",
        TakeLease=({"dynamodb:GetItem", "dynamodb:PutItem"}, RUNS),
        WriteArchive=({"s3:PutObject"}, WORK),
        ReadWork=({"s3:GetObject"}, WORK),
        FindWork=({"s3:ListBucket"}, BUCKET),
        RemoveWork=({"s3:DeleteObject"}, WORK),
    ),
    "ExamineRole": READING,
    "ProveRole": READING,
    "ReportRole": some(
        *OF_EVERY_STEP,
        "AskFindingsIndexes",
        "KeepRuns",
        "ReadBaseline",
        "FindExceptions",
        "ReadExceptions",
        "PublishAlerts",
        "UseAlertTopicKey",
        "TellSecurityHub",
        "SignManifest",
        KeepFindings=({"dynamodb:Query", "dynamodb:UpdateItem", "dynamodb:BatchWriteItem"}, FINDINGS),
        FindWhatSecurityHubLacks=({"dynamodb:Scan"}, FINDINGS),
        ReadWork=({"s3:GetObject"}, WORK),
        WriteArchive=({"s3:PutObject"}, in_bucket("runs/*", "evidence/*", "work/*")),
    ),
    "StepsRole": {
        "RunSteps": (
            {"lambda:InvokeFunction"},
            {f'{{"Fn::GetAtt": ["{step}Function", "Arn"]}}' for step in ("Inventory", "Examine", "Prove", "Report")},
        ),
        "ReadBatches": ({"s3:GetObject"}, in_bucket("work/*/batches.json")),
        "StartBatches": ({"states:StartExecution"}, of_machine("stateMachine")),
        "FollowBatches": (
            {"states:DescribeExecution", "states:RedriveExecution", "states:StopExecution"},
            of_machine("execution", ":*") | of_machine("execution", "/Batches:*"),
        ),
        "UseKey": ({"kms:Decrypt"}, USE_KEY[1]),
        "EncryptHistory": USE_KEY,
        "EncryptLog": ({"kms:GenerateDataKey"}, USE_KEY[1]),
        "DeliverLog": (
            {
                "logs:CreateLogDelivery",
                "logs:DeleteLogDelivery",
                "logs:DescribeLogGroups",
                "logs:DescribeResourcePolicies",
                "logs:GetLogDelivery",
                "logs:ListLogDeliveries",
                "logs:PutResourcePolicy",
                "logs:UpdateLogDelivery",
            },
            {'"*"'},
        ),
    },
    "ScheduleRole": {
        "StartAudit": ({"lambda:InvokeFunction"}, {'{"Fn::GetAtt": ["AuditFunction", "Arn"]}'}),
        "StartSteps": ({"states:StartExecution"}, {'{"Ref": "AuditStateMachine"}'}),
        "KeepMissedSchedules": ({"sqs:SendMessage"}, {'{"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}'}),
        "UseKey": USE_KEY,
    },
}
FUNCTION_ROLES = ["AuditRole", "InventoryRole", "ExamineRole", "ProveRole", "ReportRole"]
# Rights that an option of the deployment adds.
ONLY_IF = {
    "DecryptCredentials": "SecretHasKey",
    "UseAlertTopicKey": "TopicHasKey",
    "SignManifest": "ManifestIsSigned",
    "ReadBaseline": "BaselineIsGiven",
    "ReadTrustPins": "TrustIsPinned",
    "FindWhatSecurityHubLacks": "SecurityHubIsTold",
    "TellSecurityHub": "SecurityHubIsTold",
    "ManageNetworkInterfaces": "InVpc",
    "SeeNetworkInterfaces": "InVpc",
    "NoNetworkInterfacesForTheCode": "InVpc",
    "StartAudit": "EngineIsLambda",
    "StartSteps": "EngineIsStepFunctions",
}
ACCOUNT_ITSELF = {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}
ALARMS = {"Service": "cloudwatch.amazonaws.com"}
THIS_ACCOUNT_ONLY = {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}
# Whom the resources' own policies let in: who, to do what, and under which condition.
LET_IN: dict[tuple[str, str], tuple[Any, set[str], Any]] = {
    ("EncryptionKey", "AccountDecides"): (ACCOUNT_ITSELF, {"kms:*"}, None),
    ("EncryptionKey", "LogsOfThisStack"): (
        {"Service": {"Fn::Sub": "logs.${AWS::Region}.amazonaws.com"}},
        {"kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"},
        {
            "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": {
                    "Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${AWS::StackName}-*"
                }
            }
        },
    ),
    ("EncryptionKey", "LogsOfTheSteps"): (
        {"Service": "delivery.logs.amazonaws.com"},
        {"kms:Decrypt"},
        {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
            "ArnLike": {"aws:SourceArn": {"Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:*"}},
        },
    ),
    ("EncryptionKey", "AlarmsReachTheTopic"): (ALARMS, {"kms:Decrypt", "kms:GenerateDataKey*"}, None),
    ("AlertTopicPolicy", "AlarmsOfThisAccount"): (
        ALARMS,
        {"sns:Publish"},
        {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
            "ArnLike": {
                "aws:SourceArn": {
                    "Fn::Sub": "arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:*"
                }
            },
        },
    ),
    ("S3Endpoint", "ThisAccountOnly"): ("*", {"s3:*"}, THIS_ACCOUNT_ONLY),
    ("DynamoDbEndpoint", "ThisAccountOnly"): ("*", {"dynamodb:*"}, THIS_ACCOUNT_ONLY),
    ("SecretsManagerEndpoint", "ThisAccountOnly"): ("*", {"secretsmanager:*"}, THIS_ACCOUNT_ONLY),
    ("SnsEndpoint", "ThisAccountOnly"): ("*", {"sns:*"}, THIS_ACCOUNT_ONLY),
    ("KmsEndpoint", "ThisAccountOnly"): ("*", {"kms:*"}, THIS_ACCOUNT_ONLY),
    ("SecurityHubEndpoint", "ThisAccountOnly"): ("*", {"securityhub:*"}, THIS_ACCOUNT_ONLY),
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


def resource_statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give each statement of the resources' own policies with the resource it is part of."""
    for name, resource in RESOURCES.items():
        for policy in ("PolicyDocument", "KeyPolicy"):
            for written in resource.get("Properties", {}).get(policy, {}).get("Statement", []):
                yield name, written["Fn::If"][1] if "Fn::If" in written else written


def all_statements() -> Iterator[dict[str, Any]]:
    for role in GRANTED:
        for statement, _ in statements(role):
            yield statement
        yield from RESOURCES[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    for _, statement in resource_statements():
        yield statement


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


def test_the_resources_let_in_exactly_whom_is_listed_here() -> None:
    let_in = {
        (name, statement["Sid"]): (
            statement["Principal"],
            set(as_list(statement["Action"])),
            statement.get("Condition"),
        )
        for name, statement in resource_statements()
        if statement["Effect"] == "Allow"
    }
    assert let_in == LET_IN


def test_there_is_no_role_besides_those_listed_here() -> None:
    assert {name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::IAM::Role"} == set(GRANTED)
    functions = [resource for resource in RESOURCES.values() if resource["Type"] == "AWS::Serverless::Function"]
    assert [each["Properties"]["Role"] for each in functions] == [
        {"Fn::GetAtt": [role, "Arn"]} for role in FUNCTION_ROLES
    ]
    assert not any("Policies" in each["Properties"] for each in functions)
    assert not any("ManagedPolicyArns" in RESOURCES[role]["Properties"] for role in GRANTED)


@pytest.mark.parametrize("role", GRANTED)
def test_rights_for_an_option_come_only_with_the_option(role: str) -> None:
    for statement, condition in statements(role):
        assert condition == ONLY_IF.get(statement["Sid"])


@pytest.mark.parametrize("role", GRANTED)
def test_no_right_of_a_role_has_a_wildcard_action(role: str) -> None:
    assert not [action for actions, _ in GRANTED[role].values() for action in actions if "*" in action]


def test_every_statement_has_a_name_of_its_own_in_its_policy() -> None:
    for role in GRANTED:
        names = [statement["Sid"] for statement, _ in statements(role)]
        assert len(names) == len(set(names))
    assert all(statement["Sid"] for statement in all_statements())


def test_every_right_says_above_it_what_it_is_for() -> None:
    lines = TEXT.splitlines()
    for role in GRANTED:
        for statement, condition in statements(role):
            numbers = [n for n, line in enumerate(lines) if line.endswith(f"Sid: {statement['Sid']}")]
            assert numbers
            for number in numbers:
                assert lines[number - (3 if condition else 1)].lstrip().startswith("#"), statement["Sid"]


def test_a_resource_of_star_says_beside_it_why() -> None:
    stars = re.findall(r'^ *Resource: "\*"(.*)$', TEXT, re.MULTILINE)
    assert len(stars) == len([statement for statement in all_statements() if statement.get("Resource") == "*"])
    assert all(re.fullmatch(r" +# .{10,}", reason) for reason in stars)


@pytest.mark.parametrize("role", FUNCTION_ROLES)
def test_the_code_cannot_use_the_rights_lambda_needs_for_its_network_interfaces(role: str) -> None:
    (denied,) = [statement for statement, _ in statements(role) if statement["Effect"] == "Deny"]
    assert denied["Action"] == "ec2:*"
    assert denied["Condition"] == {"Null": {"lambda:SourceFunctionArn": "false"}}


def test_the_right_to_list_is_limited_to_the_rows_and_the_exceptions() -> None:
    listing = {s["Sid"]: s["Condition"] for s, _ in statements("AuditRole") if s["Action"] == "s3:ListBucket"}
    assert listing == {
        "FindStaleParts": {"StringLike": {"s3:prefix": "findings/*"}},
        "FindExceptions": {"StringEquals": {"s3:prefix": EXCEPTIONS_KEY}},
    }


@pytest.mark.parametrize(
    ("role", "prefixes"),
    [
        ("InventoryRole", {"findings/*", "work/*", EXCEPTIONS_KEY}),
        ("ExamineRole", {"findings/*"}),
        ("ProveRole", {"findings/*"}),
        ("ReportRole", {"findings/*", EXCEPTIONS_KEY}),
    ],
)
def test_a_step_lists_no_more_than_what_it_clears_away_and_the_exceptions(role: str, prefixes: set[str]) -> None:
    listing = [s["Condition"] for s, _ in statements(role) if s["Action"] == "s3:ListBucket"]
    assert {next(iter(condition.values()))["s3:prefix"] for condition in listing} == prefixes


@pytest.mark.parametrize("role", FUNCTION_ROLES)
def test_what_is_read_in_the_bucket_is_what_no_one_in_the_stack_may_write(role: str) -> None:
    """Whoever has a function's role cannot except anything."""
    written = [
        resource for s, _ in statements(role) if s["Action"] == "s3:PutObject" for resource in as_list(s["Resource"])
    ]
    assert written
    assert not [resource for resource in written if "policy" in json.dumps(resource)]


@pytest.mark.parametrize(
    ("role", "sid", "condition"),
    [
        ("AuditRole", "DecryptCredentials", {"kms:EncryptionContext:SecretARN": {"Ref": "CredentialsSecretArn"}}),
        ("AuditRole", "UseAlertTopicKey", {"kms:ViaService": {"Fn::Sub": "sns.${AWS::Region}.${AWS::URLSuffix}"}}),
        (
            "AuditRole",
            "UseKey",
            {
                "kms:ViaService": [
                    {"Fn::Sub": "dynamodb.${AWS::Region}.${AWS::URLSuffix}"},
                    {"Fn::Sub": "s3.${AWS::Region}.${AWS::URLSuffix}"},
                    {"Fn::Sub": "sqs.${AWS::Region}.${AWS::URLSuffix}"},
                    {
                        "Fn::If": [
                            "SecretIsOurs",
                            {"Fn::Sub": "secretsmanager.${AWS::Region}.${AWS::URLSuffix}"},
                            {"Ref": "AWS::NoValue"},
                        ]
                    },
                    {
                        "Fn::If": [
                            "TopicIsOurs",
                            {"Fn::Sub": "sns.${AWS::Region}.${AWS::URLSuffix}"},
                            {"Ref": "AWS::NoValue"},
                        ]
                    },
                ]
            },
        ),
        ("ScheduleRole", "UseKey", {"kms:ViaService": {"Fn::Sub": "sqs.${AWS::Region}.${AWS::URLSuffix}"}}),
    ],
)
def test_a_key_is_used_only_through_the_services_that_encrypt_with_it(role: str, sid: str, condition: Any) -> None:
    (using,) = [statement for statement, _ in statements(role) if statement["Sid"] == sid]
    assert using["Condition"] == {"StringEquals": condition}


@pytest.mark.parametrize(
    ("role", "services"),
    [
        ("InventoryRole", ["dynamodb", "s3", "secretsmanager"]),
        ("ExamineRole", ["dynamodb", "s3", "secretsmanager"]),
        ("ProveRole", ["dynamodb", "s3", "secretsmanager"]),
        ("ReportRole", ["dynamodb", "s3", "sns"]),
    ],
)
def test_a_step_uses_the_key_only_through_the_services_that_it_needs(role: str, services: list[str]) -> None:
    (using,) = [statement for statement, _ in statements(role) if statement["Sid"] == "UseKey"]
    assert using["Condition"].keys() == {"StringEquals"}
    through = json.dumps(using["Condition"]["StringEquals"]["kms:ViaService"])
    assert re.findall(r'"([a-z0-9]+)\.\$\{AWS::Region\}\.\$\{AWS::URLSuffix\}"', through) == services


def test_the_machine_uses_the_key_for_its_own_history_and_log_and_the_list_of_batches() -> None:
    conditions = {
        s["Sid"]: s["Condition"]["StringEquals"] for s, _ in statements("StepsRole") if "kms:" in str(s["Action"])
    }
    (machine,), (batches,) = of_machine("stateMachine"), of_machine("stateMachine", "/Batches")
    assert conditions == {
        "UseKey": {"kms:ViaService": {"Fn::Sub": "s3.${AWS::Region}.${AWS::URLSuffix}"}},
        "EncryptHistory": {
            "kms:EncryptionContext:aws:states:stateMachineArn": [json.loads(machine), json.loads(batches)]
        },
        "EncryptLog": {
            "kms:EncryptionContext:SourceArn": {
                "Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:*"
            }
        },
    }


def test_no_right_to_a_key_is_without_a_condition_but_that_to_sign() -> None:
    of_keys = [(role, s) for role in GRANTED for s, _ in statements(role) if str(s["Action"]).count("kms:")]
    assert len(of_keys) == 17
    without = [(role, s["Sid"]) for role, s in of_keys if "Condition" not in s]
    assert without == [("AuditRole", "SignManifest"), ("ReportRole", "SignManifest")]


def test_only_the_report_speaks_to_people_and_only_the_other_steps_know_the_credentials() -> None:
    speaking = {"sns:Publish", "securityhub:BatchImportFindings", "kms:Sign"}
    secret = {"secretsmanager:GetSecretValue"}
    for role in FUNCTION_ROLES[1:]:
        actions = {action for granted, _ in GRANTED[role].values() for action in granted}
        is_report = role == "ReportRole"
        assert actions & speaking == (speaking if is_report else set())
        assert actions & secret == (set() if is_report else secret)


def test_only_the_machine_of_the_stack_takes_the_machines_role() -> None:
    (machine,) = RESOURCES["StepsRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    (arn,), (batches,) = of_machine("stateMachine"), of_machine("stateMachine", "/Batches")
    assert machine["Principal"] == {"Service": "states.amazonaws.com"}
    assert machine["Condition"] == {
        "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
        "ArnLike": {"aws:SourceArn": [json.loads(arn), json.loads(batches)]},
    }


def test_only_lambda_takes_a_functions_role_and_only_schedules_of_the_account_the_other() -> None:
    trusted = [RESOURCES[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"] for role in FUNCTION_ROLES]
    (schedule,) = RESOURCES["ScheduleRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert all(one["Principal"] == {"Service": "lambda.amazonaws.com"} for (one,) in trusted)
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
    written = RESOURCES[policy]["Properties"]["PolicyDocument"]["Statement"]
    (denied,) = [statement for statement in written if statement["Sid"] == "NothingWithoutTls"]
    assert denied == {
        "Sid": "NothingWithoutTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": actions,
        "Resource": protected,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def test_nothing_goes_to_the_bucket_with_a_tls_that_is_out_of_date() -> None:
    without_tls, old_tls = RESOURCES["AuditBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert old_tls == {
        **without_tls,
        "Sid": "NothingWithOldTls",
        "Condition": {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
    }


def test_every_bucket_queue_and_topic_has_such_a_policy() -> None:
    locations = {"AWS::S3::Bucket": "Bucket", "AWS::SQS::Queue": "Queues", "AWS::SNS::Topic": "Topics"}
    to_protect = {name for name, resource in RESOURCES.items() if resource["Type"] in locations}
    protected = {
        reference["Ref"]
        for resource in RESOURCES.values()
        if resource["Type"].removesuffix("Policy") in locations and resource["Type"].endswith("Policy")
        for reference in as_list(resource["Properties"][locations[resource["Type"].removesuffix("Policy")]])
    }
    assert to_protect == {"AuditBucket", "QueryResultsBucket", "DeadLetterQueue", "AlertTopic"}
    assert protected == to_protect
