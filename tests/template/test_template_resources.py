"""What the template deploys, and what moto would not tell us about it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dtr_audit_cli.query_files import named_queries
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates
from tests.harness.resolution import ACCOUNT, STACK_GUID, TEMPLATE, references, resolve

TEXT = (PROJECT / "template.yaml").read_text(encoding="utf-8")
TRANSLATED = templates.translate(TEMPLATE, "us-gov-west-1")["Resources"]
FUNCTION = TRANSLATED["AuditFunction"]["Properties"]
STEPS = ["InventoryFunction", "ExamineFunction", "ProveFunction", "ReportFunction"]
FUNCTIONS = ["AuditFunction", *STEPS]
IN_STEPS = {"Engine": "stepfunctions"}

ENVIRONMENT = {
    "DTR_URL",
    "DTR_DOMAINS",
    "REGISTRY_NAME",
    "SECRET_ARN",
    "FINDINGS_TABLE",
    "RUNS_TABLE",
    "BUCKET",
    "TOPIC_ARN",
    "SECURITY_HUB_PRODUCT",
    "CONCURRENCY",
    "FAN_OUT_WORKERS",
    "EXECUTION_SECONDS",
    "PAGE_SIZE",
    "ALERT_GROUPING",
    "ALERT_CONTACT",
    "REMINDER_DAYS",
    "RESOLVED_DAYS",
    "SHRINK_PERCENT",
    "EVIDENCE_FORMATS",
    "ASSET_NAME",
    "ASSET_FQDN",
    "ASSET_ROLE",
    "ASSET_MARKING",
    "STIG_RELEASE",
    "SIGNING_KEY_ARN",
    "NEIGHBOUR_RULES",
    "BASELINE_KEY",
    "UCP_URL",
    "TRUST_VERIFICATION",
    "REQUIRED_SIGNERS",
    "SIGNERS_NEEDED",
    "REPOSITORY_KEY_SUFFICES",
    "PIN_TRUST",
    "TRUST_WARNING_DAYS",
    "X509_STRICT",
    "MALLOC_ARENA_MAX",
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_LOG_LEVEL",
}


KEY = f"arn:aws-us-gov:kms:us-gov-west-1:{ACCOUNT}:key/1234"
TOPIC = f"arn:aws-us-gov:sns:us-gov-west-1:{ACCOUNT}:alerts"
SECRET = f"arn:aws-us-gov:secretsmanager:us-gov-west-1:{ACCOUNT}:secret:dtr/audit-AbCd12"
NETWORK = {"VpcSubnetIds": "subnet-0123abcd,subnet-0123abce", "VpcSecurityGroupIds": "sg-0123abcd,sg-0123abce"}
ENDPOINTS = {**NETWORK, "VpcEndpoints": "true", "VpcId": "vpc-0123abcd", "VpcRouteTableIds": "rtb-0123abcd"}
# Each of the template's switches, on.
SWITCHES = [
    {"KmsKeyArn": KEY},
    {"AlertTopicArn": TOPIC},
    {"OperationsTopicArn": TOPIC},
    {"CredentialsSecretArn": SECRET},
    {"AlertEmail": "isso@example.mil"},
    {"AccessLogBucket": "logs"},
    {"BaselineKey": "baseline/dtr.ckl"},
    {"TrustVerification": "signatures", "PinTrust": "true"},
    {"SecurityHub": "true"},
    {"EvidenceLock": "compliance"},
    {"ManifestSigningKeyArn": KEY},
    ENDPOINTS,
    IN_STEPS,
]


def properties(name: str, given: dict[str, str] | None = None) -> dict[str, Any]:
    """Give a resource's properties in a deployment with these parameters."""
    found: dict[str, Any] = resolve(given)["Resources"][name]["Properties"]
    return found


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
    named = re.findall(r"\S*amazonaws\.com", TEXT)
    principals = re.findall(r"Principal: {Service: (?:!Sub )?\"?[\w${}:.]+\.amazonaws\.com\"?}", TEXT)
    assert len(named) == len(principals) >= 5
    # The other way round: the name of an endpoint's service begins with it in both partitions.
    assert len(re.findall(r"com\.amazonaws\.", TEXT)) == len(of_type("AWS::EC2::VPCEndpoint"))


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
        or key in {"LogGroupName", "LayerName", "AlarmName", "AliasName", "GroupName", "DashboardName"}
        or key == "StateMachineName"
    }
    assert named == {
        "AuditFunctionEventInvokeConfig": "FunctionName",
        LAYER: "LayerName",
        "AuditDashboard": "DashboardName",
        "QueryWorkGroup": "Name",
        "AuditStateMachine": "StateMachineName",
        # Within the workgroup; Athena wants no two of them to differ.
        **{query.logical_id: "Name" for query in named_queries()},
    }
    assert TRANSLATED["QueryWorkGroup"]["Properties"]["Name"] == {"Ref": "AWS::StackName"}
    assert properties("AuditStateMachine", IN_STEPS)["StateMachineName"] == f"signature-audit-{STACK_GUID}"
    assert TRANSLATED[LAYER]["Properties"]["LayerName"] == {"Fn::Sub": "${AWS::StackName}-audit"}
    # An account's dashboards share their names over all regions.
    dashboard = TRANSLATED["AuditDashboard"]["Properties"]["DashboardName"]
    assert dashboard == {"Fn::Sub": "${AWS::StackName}-${AWS::Region}"}


# --- Whatever the switches ------------------------------------------------------------------------------------------


PAIRS = list(itertools.combinations_with_replacement(range(len(SWITCHES)), 2))


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_nothing_refers_to_a_resource_that_a_switch_has_left_out(pair: tuple[int, int]) -> None:
    deployed = resolve({**SWITCHES[pair[0]], **SWITCHES[pair[1]]})
    assert set(references(deployed)) <= set(deployed["Resources"])


def test_nothing_refers_to_a_resource_that_all_switches_have_left_out() -> None:
    deployed = resolve({name: value for switch in SWITCHES for name, value in switch.items()})
    assert set(references(deployed)) <= set(deployed["Resources"])
    assert not {"EncryptionKey", "AlertTopic", "CredentialsSecret"} & set(deployed["Resources"])


def test_a_reference_to_what_was_left_out_would_be_found() -> None:
    deployed = resolve({"KmsKeyArn": KEY})
    deployed["Resources"]["AuditLogGroup"]["Properties"]["KmsKeyId"] = {"Fn::GetAtt": ["EncryptionKey", "Arn"]}
    assert set(references(deployed)) - set(deployed["Resources"]) == {"EncryptionKey"}


# --- The function -------------------------------------------------------------------------------------------------

LAYER = next(iter(of_type("AWS::Lambda::LayerVersion")))


def test_the_function_gets_exactly_the_agreed_environment() -> None:
    assert set(FUNCTION["Environment"]["Variables"]) == ENVIRONMENT


def test_these_are_the_functions() -> None:
    assert sorted(of_type("AWS::Lambda::Function")) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_differs_from_the_whole_audit_in_code_role_and_engine_alone(name: str) -> None:
    step, own = TRANSLATED[name], {"Code", "Role", "Description"}
    assert step["Condition"] == "EngineIsStepFunctions"
    assert step["Properties"].keys() == FUNCTION.keys()
    assert {key for key, value in step["Properties"].items() if value != FUNCTION[key]} == own
    verb = name.removesuffix("Function")
    assert step["Properties"]["Role"] == {"Fn::GetAtt": [f"{verb}Role", "Arn"]}
    assert TEMPLATE["Resources"][name]["Properties"]["CodeUri"] == f"functions/{verb.lower()}"


def test_the_environment_holds_no_credential() -> None:
    assert "{{resolve:" not in TEXT
    assert not [name for name, parameter in TEMPLATE["Parameters"].items() if parameter.get("NoEcho")]


def test_the_function_keeps_no_concurrency_for_itself() -> None:
    assert "ReservedConcurrentExecutions" not in FUNCTION


def test_the_function_logs_into_the_group_that_has_a_retention() -> None:
    assert FUNCTION["LoggingConfig"] == {"LogGroup": {"Ref": "AuditLogGroup"}}
    assert properties("AuditLogGroup", {"LogRetentionDays": "30"})["RetentionInDays"] == 30


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

SCHEDULES = {"AuditFunctionSchedule": ["AuditFunction", "Arn"], "StepsSchedule": "AuditStateMachine"}
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def test_there_is_one_schedule_for_either_engine() -> None:
    assert set(of_type("AWS::Scheduler::Schedule")) == set(SCHEDULES)
    for given in ({}, IN_STEPS):
        deployed = resolve(given)["Resources"]
        (name,) = SCHEDULES.keys() & deployed.keys()
        assert SCHEDULES[name] in deployed[name]["Properties"]["Target"]["Arn"].values()


def test_both_schedules_are_the_same_but_for_what_they_start() -> None:
    audit, steps = ({**TRANSLATED[name]["Properties"], "Target": {}} for name in SCHEDULES)
    assert audit == steps
    audit, steps = ({**TRANSLATED[name]["Properties"]["Target"], "Arn": ""} for name in SCHEDULES)
    assert audit == steps


@schedules
def test_two_stacks_do_not_fight_for_the_name_of_a_schedule(schedule: str) -> None:
    assert "Name" not in TRANSLATED[schedule]["Properties"]


@schedules
def test_the_schedule_delivers_the_time_it_was_due(schedule: str) -> None:
    event = json.loads(TRANSLATED[schedule]["Properties"]["Target"]["Input"])
    assert event == {"scheduled_time": "<aws.scheduler.scheduled-time>"}


@schedules
def test_a_missed_schedule_is_tried_a_few_times_for_an_hour_and_then_kept(schedule: str) -> None:
    target = TRANSLATED[schedule]["Properties"]["Target"]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 3600}
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}}
    assert target["RoleArn"] == {"Fn::GetAtt": ["ScheduleRole", "Arn"]}


@schedules
def test_expression_time_zone_and_state_are_the_deployers(schedule: str) -> None:
    properties = TRANSLATED[schedule]["Properties"]
    assert properties["ScheduleExpression"] == {"Ref": "ScheduleExpression"}
    assert properties["ScheduleExpressionTimezone"] == {"Ref": "ScheduleTimeZone"}
    assert properties["State"] == {"Ref": "ScheduleState"}


# --- Data at rest -------------------------------------------------------------------------------------------------

OURS = {"Fn::GetAtt": ["EncryptionKey", "Arn"]}
ENCRYPTED = [
    "AlertTopic",
    "AuditBucket",
    "AuditLogGroup",
    "CredentialsSecret",
    "DeadLetterQueue",
    "FindingsTable",
    "QueryResultsBucket",
    "RunsTable",
]
HOLDING_DATA = {
    "AWS::DynamoDB::Table",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::SecretsManager::Secret",
}


def key_of(name: str, given: dict[str, str] | None = None) -> Any:
    """Give the key that a resource is encrypted with."""
    resource = properties(name, given)
    if name.endswith("Bucket"):
        (rule,) = resource["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
        assert rule["BucketKeyEnabled"] is True
        return rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    if name.endswith("Table"):
        encryption = resource["SSESpecification"]
        assert (encryption["SSEEnabled"], encryption["SSEType"]) == (True, "KMS")
        return encryption["KMSMasterKeyId"]
    return resource["KmsMasterKeyId" if name in {"AlertTopic", "DeadLetterQueue"} else "KmsKeyId"]


def test_everything_that_holds_data_is_listed_here() -> None:
    assert sorted(name for name, resource in TRANSLATED.items() if resource["Type"] in HOLDING_DATA) == ENCRYPTED


@pytest.mark.parametrize("name", ENCRYPTED)
def test_everything_that_holds_data_is_encrypted_with_the_one_key(name: str) -> None:
    assert key_of(name) == OURS
    assert key_of(name, {"KmsKeyArn": KEY}) == KEY


@pytest.mark.parametrize(("given", "key"), [({}, OURS), ({"KmsKeyArn": KEY}, KEY)])
def test_the_history_of_an_execution_is_encrypted_with_it_too_and_logged_without_its_data(
    given: dict[str, str], key: Any
) -> None:
    machine = properties("AuditStateMachine", {**IN_STEPS, **given})
    assert machine["EncryptionConfiguration"]["Type"] == "CUSTOMER_MANAGED_KMS_KEY"
    assert machine["EncryptionConfiguration"]["KmsKeyId"] == key
    logging = machine["LoggingConfiguration"]
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ERROR", False)
    (destination,) = logging["Destinations"]
    assert destination == {"CloudWatchLogsLogGroup": {"LogGroupArn": {"Fn::GetAtt": ["AuditLogGroup", "Arn"]}}}


def test_with_a_key_of_yours_the_stack_makes_none() -> None:
    deployed = resolve({"KmsKeyArn": KEY})
    assert "EncryptionKey" not in deployed["Resources"]
    assert deployed["Outputs"]["EncryptionKeyArn"]["Value"] == KEY
    assert resolve()["Outputs"]["EncryptionKeyArn"]["Value"] == OURS


def test_the_key_is_rotated_and_outlives_what_it_encrypts() -> None:
    key = resolve()["Resources"]["EncryptionKey"]
    assert key["Properties"]["EnableKeyRotation"] is True
    assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Retain"
    assert "PendingWindowInDays" not in key["Properties"]  # 30 days, the longest there is


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1"])
def test_the_key_serves_the_stacks_own_logs_wherever_their_name_begins_with_the_stacks(region: str) -> None:
    deployed = resolve(region=region)["Resources"]
    assert (
        "LogGroupName" not in deployed["AuditLogGroup"]["Properties"]
    )  # CloudFormation: <stack>-AuditLogGroup-<random>
    (logs,) = [
        statement
        for statement in deployed["EncryptionKey"]["Properties"]["KeyPolicy"]["Statement"]
        if statement["Sid"] == "LogsOfThisStack"
    ]
    partition = "aws" if region == "us-east-1" else "aws-us-gov"
    assert logs["Principal"] == {"Service": f"logs.{region}.amazonaws.com"}
    assert logs["Condition"]["ArnLike"] == {
        "kms:EncryptionContext:aws:logs:arn": f"arn:{partition}:logs:{region}:{ACCOUNT}:log-group:audit-*"
    }


# --- What is kept, and how long -----------------------------------------------------------------------------------

KEPT = ["FindingsTable", "RunsTable", "AuditBucket", "AuditBucketPolicy", "AuditLogGroup", "EncryptionKey"]
# A bucket that is not empty could not be deleted, and the stack with it.
KEPT += ["QueryResultsBucket", "QueryResultsBucketPolicy"]


@pytest.mark.parametrize("name", KEPT)
def test_findings_evidence_and_logs_outlive_the_stack(name: str) -> None:
    assert TRANSLATED[name]["DeletionPolicy"] == "Retain"
    assert TRANSLATED[name]["UpdateReplacePolicy"] == "Retain"


def test_every_table_bucket_key_and_log_group_is_among_those_that_outlive_the_stack() -> None:
    lasting = {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::KMS::Key", "AWS::Logs::LogGroup"}
    stateful = {name for name, resource in TRANSLATED.items() if resource["Type"] in lasting}
    assert stateful <= set(KEPT)


@pytest.mark.parametrize("name", ["FindingsTable", "RunsTable"])
def test_a_table_is_recoverable_protected_and_paid_by_use(name: str) -> None:
    table = properties(name)
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["DeletionProtectionEnabled"] == "true"
    assert properties(name, {"DeletionProtection": "false"})["DeletionProtectionEnabled"] == "false"


def test_the_bucket_is_private_and_versioned() -> None:
    bucket = properties("AuditBucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert "AccessControl" not in bucket


# What each part of the bucket is kept: rows of tags, records of runs, evidence.
PREFIXES = ["findings/", "runs/", "evidence/"]


def expiries(given: dict[str, str]) -> dict[str, int]:
    """Give the days after which current objects go, by prefix."""
    return {
        rule["Prefix"]: rule["ExpirationInDays"]
        for rule in properties("AuditBucket", given)["LifecycleConfiguration"]["Rules"]
        if "ExpirationInDays" in rule
    }


@pytest.mark.parametrize(
    ("rows", "evidence", "expected"),
    [
        ("0", "0", {}),
        ("400", "0", {"findings/": 400}),
        ("0", "2557", {"runs/": 2557, "evidence/": 2557}),
        ("1", "36500", {"findings/": 1, "runs/": 36500, "evidence/": 36500}),
    ],
)
def test_rows_and_evidence_are_kept_as_long_as_is_said_and_0_is_for_ever(
    rows: str, evidence: str, expected: dict[str, int]
) -> None:
    assert expiries({"RowsDays": rows, "EvidenceDays": evidence}) == {**expected, "work/": 7}
    assert set(expected) <= set(PREFIXES)


def test_what_steps_hand_on_to_each_other_goes_after_a_week_with_its_older_versions() -> None:
    (rule,) = [rule for rule in properties("AuditBucket")["LifecycleConfiguration"]["Rules"] if rule["Id"] == "Work"]
    assert rule["Prefix"] == "work/"
    assert (rule["ExpirationInDays"], rule["NoncurrentVersionExpiration"]) == (7, {"NoncurrentDays": 1})


@pytest.mark.parametrize("days", ["0", "30"])
def test_what_was_replaced_and_what_was_never_finished_goes_in_any_case(days: str) -> None:
    rules = properties("AuditBucket", {"RowsDays": days, "EvidenceDays": days})["LifecycleConfiguration"]["Rules"]
    always = {rule["Id"]: rule for rule in rules if "ExpirationInDays" not in rule}
    assert always == {
        "ReplacedVersions": {
            "Id": "ReplacedVersions",
            "Status": "Enabled",
            "NoncurrentVersionExpiration": {"NoncurrentDays": 90},
            "ExpiredObjectDeleteMarker": True,
        },
        "UnfinishedUploads": {
            "Id": "UnfinishedUploads",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
    }
    assert {rule["Status"] for rule in rules} == {"Enabled"}
    assert len({rule["Id"] for rule in rules}) == len(rules)
    assert not [rule for rule in rules if "Transitions" in rule or "ExpirationDate" in rule]


def test_the_bucket_is_not_locked_unless_somebody_chooses_so() -> None:
    assert not {"ObjectLockEnabled", "ObjectLockConfiguration"} & set(properties("AuditBucket"))


@pytest.mark.parametrize(("lock", "mode"), [("governance", "GOVERNANCE"), ("compliance", "COMPLIANCE")])
def test_a_lock_holds_everything_in_the_bucket_for_the_days_that_are_said(lock: str, mode: str) -> None:
    bucket = properties("AuditBucket", {"EvidenceLock": lock, "EvidenceLockDays": "1827"})
    assert bucket["ObjectLockEnabled"] is True
    assert bucket["ObjectLockConfiguration"] == {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": mode, "Days": 1827}},
    }


def test_access_is_logged_into_a_bucket_that_is_named_and_nowhere_else() -> None:
    assert "LoggingConfiguration" not in properties("AuditBucket")
    assert properties("AuditBucket", {"AccessLogBucket": "logs-of-mine"})["LoggingConfiguration"] == {
        "DestinationBucketName": "logs-of-mine",
        "LogFilePrefix": "audit-access/",
    }


def test_the_queue_keeps_a_message_as_long_as_a_queue_can() -> None:
    assert properties("DeadLetterQueue")["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_the_secret_is_made_without_a_value() -> None:
    assert set(properties("CredentialsSecret")) == {"Description", "KmsKeyId"}


# --- What is yours already ----------------------------------------------------------------------------------------


def test_an_existing_secret_is_used_and_none_is_made() -> None:
    deployed = resolve({"CredentialsSecretArn": SECRET})
    assert "CredentialsSecret" not in deployed["Resources"]
    assert deployed["Resources"]["AuditFunction"]["Properties"]["Environment"]["Variables"]["SECRET_ARN"] == SECRET
    assert deployed["Outputs"]["CredentialsSecretArn"]["Value"] == SECRET
    assert SECRET in deployed["Outputs"]["StoreCredentialsCommand"]["Value"]


def test_an_existing_topic_is_used_and_neither_it_nor_its_policy_is_made() -> None:
    deployed = resolve({"AlertTopicArn": TOPIC, "AlertEmail": "isso@example.mil"})
    assert not {"AlertTopic", "AlertTopicPolicy"} & set(deployed["Resources"])
    assert deployed["Resources"]["AuditFunction"]["Properties"]["Environment"]["Variables"]["TOPIC_ARN"] == TOPIC
    assert deployed["Resources"]["AlertEmailSubscription"]["Properties"]["TopicArn"] == TOPIC
    assert deployed["Outputs"]["AlertTopicArn"]["Value"] == TOPIC


def test_every_pointer_to_a_topic_or_secret_leads_to_the_given_one() -> None:
    deployed = resolve({"AlertTopicArn": TOPIC, "CredentialsSecretArn": SECRET, "KmsKeyArn": KEY})
    pointed = set(references(deployed))
    assert not {"AlertTopic", "CredentialsSecret", "EncryptionKey"} & pointed


# --- The way to AWS -----------------------------------------------------------------------------------------------


def test_endpoints_are_made_only_if_they_are_asked_for() -> None:
    def made(given: dict[str, str]) -> set[str]:
        return {name for name, each in resolve(given)["Resources"].items() if each["Type"].startswith("AWS::EC2::")}

    assert made(NETWORK) == made({**ENDPOINTS, "VpcEndpoints": "false"}) == set()
    assert made(ENDPOINTS) == {
        "S3Endpoint",
        "DynamoDbEndpoint",
        "SecretsManagerEndpoint",
        "SnsEndpoint",
        "EndpointSecurityGroup",
    }
    # The function itself asks KMS only to sign.
    signing = {"ManifestSigningKeyArn": KEY}
    assert made({**ENDPOINTS, **signing}) - made(ENDPOINTS) == {"KmsEndpoint"}
    assert made({**NETWORK, **signing}) == made(signing) == set()
    reported = {**ENDPOINTS, "SecurityHub": "true"}
    assert made(reported) - made(ENDPOINTS) == {"SecurityHubEndpoint"}
    assert made({**reported, "VpcEndpoints": "false"}) == made({"SecurityHub": "true"}) == set()


def test_the_endpoints_let_in_the_function_and_no_one_else() -> None:
    deployed = resolve({**ENDPOINTS, "ManifestSigningKeyArn": KEY, "SecurityHub": "true"})["Resources"]
    network = deployed["AuditFunction"]["Properties"]["VpcConfig"]
    (door,) = deployed["EndpointSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert door["SourceSecurityGroupId"] in network["SecurityGroupIds"]
    assert (door["IpProtocol"], door["FromPort"], door["ToPort"]) == ("tcp", 443, 443)
    assert "CidrIp" not in door
    (way_out,) = deployed["EndpointSecurityGroup"]["Properties"]["SecurityGroupEgress"]
    assert way_out["CidrIp"] == "127.0.0.1/32"
    for name in ("SecretsManagerEndpoint", "SnsEndpoint", "KmsEndpoint", "SecurityHubEndpoint"):
        assert deployed[name]["Properties"]["SecurityGroupIds"] == [{"Ref": "EndpointSecurityGroup"}]
        assert deployed[name]["Properties"]["SubnetIds"] == network["SubnetIds"]
        assert deployed[name]["Properties"]["PrivateDnsEnabled"] is True


# --- Who is told --------------------------------------------------------------------------------------------------


def test_mail_goes_only_to_a_given_address() -> None:
    (subscription,) = of_type("AWS::SNS::Subscription").values()
    assert subscription["Condition"] == "AlertsGoByEmail"


def test_the_outputs_say_where_everything_is() -> None:
    assert set(TEMPLATE["Outputs"]) == {
        "StoreCredentialsCommand",
        "RunNowCommand",
        "CredentialsSecretArn",
        "FunctionName",
        "StateMachineArn",
        "LogGroupName",
        "BucketName",
        "FindingsTableName",
        "RunsTableName",
        "QueryWorkGroupName",
        "QueryDatabaseName",
        "QueryResultsBucketName",
        "AlertTopicArn",
        "DashboardName",
        "EncryptionKeyArn",
        "DeadLetterQueueUrl",
    }
    assert all(output["Description"].endswith(".") for output in TEMPLATE["Outputs"].values())


# --- One engine or the other ----------------------------------------------------------------------------------------


def test_an_engine_makes_its_own_resources_and_shares_all_others() -> None:
    whole, steps = (set(resolve(given)["Resources"]) for given in ({}, IN_STEPS))
    assert whole - steps == {
        "AuditFunction",
        "AuditFunctionEventInvokeConfig",
        "AuditFunctionSchedule",
        "AuditRole",
        "AuditFailedAlarm",
        "AuditThrottledAlarm",
        "AuditSlowAlarm",
    }
    assert steps - whole == {
        "AuditStateMachine",
        "StepsRole",
        "StepsSchedule",
        *STEPS,
        *(name.replace("Function", "Role") for name in STEPS),
        "StepsFailedAlarm",
        "StepsTimedOutAlarm",
        "StepsThrottledAlarm",
        "StepsSlowAlarm",
    }


def test_the_outputs_name_what_an_engine_has_made() -> None:
    whole, steps = (resolve(given)["Outputs"] for given in ({}, IN_STEPS))
    assert whole.keys() ^ steps.keys() == {"FunctionName", "StateMachineArn"}
    assert "aws lambda invoke " in whole["RunNowCommand"]["Value"]["Fn::Sub"]
    assert "aws stepfunctions start-execution " in steps["RunNowCommand"]["Value"]["Fn::Sub"]
