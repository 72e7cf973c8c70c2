"""The parameters, as someone meets them who sees only the console."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dtr_audit.settings import TRUST_WARNING_DAYS
from dtr_audit_simulator.aws import template as templates
from tests.harness.resolution import ACCOUNT, NEEDED, TEMPLATE, resolve

PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
INTERFACE = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]
KEY = f"arn:aws-us-gov:kms:us-gov-west-1:{ACCOUNT}:key/mrk-1234abcd"
TOPIC = f"arn:aws-us-gov:sns:us-gov-west-1:{ACCOUNT}:alerts"
SECRET = f"arn:aws-us-gov:secretsmanager:us-gov-west-1:{ACCOUNT}:secret:dtr/audit-AbCd12"
# What the console shows, in its order.
GROUPS = {
    "The registry to audit": [
        "DtrUrl",
        "RegistryName",
        "DtrDomains",
        "CredentialsSecretArn",
        "CredentialsSecretKeyArn",
        "X509Strict",
        "UcpUrl",
    ],
    "What counts as signed": [
        "TrustVerification",
        "RequiredSigners",
        "SignersNeeded",
        "RepositoryKeySuffices",
        "PinTrust",
        "TrustWarningDays",
    ],
    "Schedule": ["ScheduleExpression", "ScheduleTimeZone", "ScheduleState"],
    "Alerts": [
        "AlertEmail",
        "AlertContact",
        "AlertGrouping",
        "ReminderDays",
        "AlertTopicArn",
        "AlertTopicKeyArn",
        "SecurityHub",
    ],
    "Alarms about the audit": ["OperationsTopicArn", "SilenceHours", "ShrinkPercent"],
    "Evidence": [
        "EvidenceFormats",
        "NeighbourRules",
        "BaselineKey",
        "AssetName",
        "AssetFqdn",
        "AssetRole",
        "AssetMarking",
        "StigRelease",
        "ManifestSigningKeyArn",
    ],
    "Network": [
        "VpcSubnetIds",
        "VpcSecurityGroupIds",
        "VpcEndpoints",
        "VpcId",
        "VpcRouteTableIds",
    ],
    "Encryption": ["KmsKeyArn"],
    "Retention": [
        "EvidenceLock",
        "EvidenceLockDays",
        "EvidenceDays",
        "RowsDays",
        "ResolvedDays",
        "LogRetentionDays",
        "DeletionProtection",
        "AccessLogBucket",
    ],
    "Athena queries": ["QueryLimitMegabytes", "QueryResultDays"],
    "Engine and limits": [
        "Engine",
        "FanOutWorkers",
        "Concurrency",
        "PageSize",
        "MemoryMegabytes",
        "TimeoutSeconds",
        "LogLevel",
    ],
}


def complete(**given: str) -> dict[str, str]:
    return templates.complete_parameters(TEMPLATE, {**NEEDED, **given})


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_explains_itself_and_limits_its_values(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter["Description"].endswith(".")
    assert len(parameter["Description"]) >= 20
    assert parameter["ConstraintDescription"].startswith("must be ") or name == "RegistryName"
    assert {"AllowedPattern", "AllowedValues", "MinValue"} & set(parameter)
    assert ("MinValue" in parameter) == ("MaxValue" in parameter)


@pytest.mark.parametrize("name", PARAMETERS)
def test_no_constraint_is_longer_than_cloudformation_takes(name: str) -> None:
    assert len(PARAMETERS[name]["ConstraintDescription"]) <= 4000


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_description_has_at_most_two_short_sentences(name: str) -> None:
    description = PARAMETERS[name]["Description"]
    assert len(description) <= 240
    assert len(re.findall(r"[.?!:;](?= [A-Z]|$)", description)) <= 2


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_whose_value_means_never_or_for_ever_says_so(name: str) -> None:
    parameter = PARAMETERS[name]
    if parameter.get("MinValue") == 0:
        assert re.search(r"0 means (never|for ever)\.", parameter["Description"])
        assert re.search(r"0 \((never|for ever)\)", parameter["ConstraintDescription"])


@pytest.mark.parametrize("name", [name for name, parameter in PARAMETERS.items() if parameter.get("Default") == ""])
def test_a_parameter_that_may_be_empty_says_what_that_means(name: str) -> None:
    assert re.search(r"Leave empty|Needed (with|for)", PARAMETERS[name]["Description"])


def test_every_pattern_is_held_by_its_ends() -> None:
    for parameter in PARAMETERS.values():
        pattern = parameter.get("AllowedPattern", "^$")
        assert pattern.startswith("^")
        assert pattern.endswith("$")


def test_every_parameter_stands_in_one_group_and_has_a_label() -> None:
    groups = {group["Label"]["default"]: group["Parameters"] for group in INTERFACE["ParameterGroups"]}
    assert groups == GROUPS
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(PARAMETERS)
    labels = {name: label["default"] for name, label in INTERFACE["ParameterLabels"].items()}
    assert set(labels) == set(PARAMETERS)
    assert len(set(labels.values())) == len(labels)


def test_cloudformation_takes_no_more_parameters_than_these() -> None:
    assert len(PARAMETERS) <= 200


def test_only_the_registry_itself_must_be_given() -> None:
    assert {name for name, parameter in PARAMETERS.items() if "Default" not in parameter} == set(NEEDED)


def test_the_defaults_keep_their_own_constraints() -> None:
    assert complete()["Concurrency"] == "16"


# Whatever opens a door, trusts somebody else, or lets something be lost: off, unless a deployer chooses it.
SECURE = {
    "AccessLogBucket": "",
    "AlertEmail": "",
    "AlertTopicArn": "",
    "AlertTopicKeyArn": "",
    "BaselineKey": "",
    "CredentialsSecretArn": "",
    "CredentialsSecretKeyArn": "",
    "DeletionProtection": "true",
    "Engine": "lambda",
    "EvidenceDays": "0",
    "KmsKeyArn": "",
    "LogLevel": "INFO",
    "ManifestSigningKeyArn": "",
    "OperationsTopicArn": "",
    "RepositoryKeySuffices": "false",
    "RowsDays": "0",
    "ScheduleState": "ENABLED",
    "SecurityHub": "false",
    "UcpUrl": "",
    "VpcEndpoints": "false",
    "VpcId": "",
    "VpcRouteTableIds": "",
    "VpcSecurityGroupIds": "",
    "VpcSubnetIds": "",
    "X509Strict": "true",
}
# Numbers and words that open nothing, whatever they are.
HARMLESS = {
    "QueryLimitMegabytes",
    "QueryResultDays",
    "AlertContact",
    "AlertGrouping",
    "AssetFqdn",
    "AssetMarking",
    "AssetName",
    "AssetRole",
    "Concurrency",
    "DtrDomains",
    "EvidenceFormats",
    "EvidenceLock",
    "EvidenceLockDays",
    "FanOutWorkers",
    "LogRetentionDays",
    "MemoryMegabytes",
    "NeighbourRules",
    "PageSize",
    "PinTrust",
    "ReminderDays",
    "RequiredSigners",
    "ResolvedDays",
    "ScheduleExpression",
    "ScheduleTimeZone",
    "ShrinkPercent",
    "SignersNeeded",
    "SilenceHours",
    "StigRelease",
    "TimeoutSeconds",
    "TrustVerification",
    "TrustWarningDays",
}


def test_nothing_that_widens_the_attack_surface_is_on_by_default() -> None:
    values = complete()
    assert {name: values[name] for name in SECURE} == SECURE
    assert set(values) == set(SECURE) | HARMLESS | set(NEEDED)


def test_a_default_deployment_trusts_no_one_else_and_opens_nothing() -> None:
    resources = resolve()["Resources"]
    kinds = {resource["Type"] for resource in resources.values()}
    assert not {kind for kind in kinds if kind.startswith("AWS::EC2::")}
    assert "AWS::SNS::Subscription" not in kinds
    assert not kinds & {"AWS::Lambda::Url", "AWS::Lambda::Permission", "AWS::ApiGateway::RestApi"}
    assert "VpcConfig" not in resources["AuditFunction"]["Properties"]


def test_silence_is_reported_for_the_default_schedule_but_not_while_one_audit_is_merely_late() -> None:
    values = complete()
    assert values["ScheduleExpression"] == "cron(0 5 * * ? *)"  # once a day
    assert 24 + 1 < int(values["SilenceHours"]) <= 24 + 3  # the hour in which a failed audit is tried again


ACCEPTED = [
    ("QueryLimitMegabytes", "10"),
    ("QueryResultDays", "365"),
    ("DtrUrl", "https://dtr.example.mil:4443"),
    ("DtrUrl", "https://localhost:49152"),
    ("DtrUrl", "https://10.0.0.7"),
    ("RegistryName", "a"),
    ("RegistryName", "0" + "a" * 62),
    ("DtrDomains", "dtr.example.mil"),
    ("RequiredSigners", "ci"),
    ("RequiredSigners", "targets/ci,qa/nightly"),
    ("DtrDomains", "dtr.example.mil:4443,registry"),
    ("CredentialsSecretArn", "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:dtr/audit-AbCd12"),
    ("CredentialsSecretArn", "arn:aws:secretsmanager:us-east-1:123456789012:secret:audit-AbCd12"),
    ("CredentialsSecretKeyArn", "arn:aws:kms:us-east-1:123456789012:key/mrk-1234abcd"),
    ("ScheduleExpression", "rate(12 hours)"),
    ("ScheduleExpression", "cron(30 4 ? * MON-FRI *)"),
    ("ScheduleExpression", "cron(0 5 ? * 6#1 *)"),
    ("ScheduleTimeZone", "America/Argentina/Buenos_Aires"),
    ("ScheduleTimeZone", "Etc/GMT+5"),
    ("AlertEmail", "isso+dtr@example.mil"),
    ("VpcSubnetIds", "subnet-0123abcd,subnet-0123456789abcdef0"),
    ("VpcSecurityGroupIds", "sg-0123abcd"),
    ("AlertContact", "Registry team (room 4.12), +1 555 0100, registry-team@example.mil"),
    ("ReminderDays", "0"),
    ("Concurrency", "64"),
    ("Engine", "stepfunctions"),
    ("FanOutWorkers", "1"),
    ("FanOutWorkers", "40"),
    ("PageSize", "10"),
    ("TimeoutSeconds", "900"),
    ("LogRetentionDays", "3653"),
    ("AlertTopicArn", TOPIC),
    ("AlertTopicArn", "arn:aws:sns:us-east-1:123456789012:A_b-9"),
    ("AlertTopicKeyArn", KEY),
    ("OperationsTopicArn", TOPIC),
    ("KmsKeyArn", KEY),
    ("KmsKeyArn", "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
    ("SilenceHours", "2"),
    ("SilenceHours", "168"),
    ("ShrinkPercent", "1"),
    ("ShrinkPercent", "99"),
    ("VpcEndpoints", "true"),
    ("VpcId", "vpc-0123456789abcdef0"),
    ("VpcRouteTableIds", "rtb-0123abcd,rtb-0123456789abcdef0"),
    ("EvidenceLock", "governance"),
    ("EvidenceLock", "compliance"),
    ("EvidenceLockDays", "1"),
    ("EvidenceLockDays", "36500"),
    ("EvidenceDays", "36500"),
    ("RowsDays", "0"),
    ("DeletionProtection", "false"),
    ("AccessLogBucket", "logs.of-mine-1"),
    ("EvidenceFormats", ""),
    ("EvidenceFormats", "hdf"),
    ("EvidenceFormats", "report,ckl,cklb,xccdf,hdf"),
    ("BaselineKey", "baseline/dtr.ckl"),
    ("BaselineKey", "baseline/Prod_DTR-2.V2R2.cklb"),
    ("AssetName", "DTR_01.prod-east"),
    ("AssetFqdn", "dtr.example.mil"),
    ("AssetRole", "Member Server"),
    ("AssetMarking", "CUI//SP-CTI (draft), v1.0"),
    ("StigRelease", "V2R1"),
    ("ManifestSigningKeyArn", KEY),
    ("ManifestSigningKeyArn", "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
]


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_a_sound_value_is_accepted(name: str, value: str) -> None:
    assert complete(**{name: value})[name] == value


REFUSED = [
    ("QueryLimitMegabytes", "9"),  # Athena takes no less than ten million bytes
    ("QueryResultDays", "0"),
    ("DtrUrl", "http://dtr.example.mil"),
    ("DtrUrl", "https://dtr.example.mil/"),
    ("DtrUrl", "https://user:password@dtr.example.mil"),
    ("DtrUrl", "https://dtr.example.mil\nhttps://evil"),
    ("DtrUrl", ""),
    ("RegistryName", "Prod"),
    ("RegistryName", "a" * 64),
    ("RegistryName", "a/b"),
    ("RegistryName", "a#b"),
    ("DtrDomains", "https://dtr.example.mil"),
    ("RequiredSigners", "ci, release"),
    ("RequiredSigners", "../ci"),
    ("TrustWarningDays", "366"),
    ("DtrDomains", "dtr.example.mil, registry"),
    ("DtrDomains", "dtr.example.mil,"),
    ("CredentialsSecretArn", "dtr/audit"),
    ("CredentialsSecretArn", "arn:aws:secretsmanager:us-east-1:123456789012:secret:audit"),
    ("CredentialsSecretArn", "arn:aws:secretsmanager:us-east-1:123456789012:secret:*-AbCd12"),
    ("CredentialsSecretKeyArn", "arn:aws:kms:us-east-1:123456789012:alias/audit"),
    ("CredentialsSecretKeyArn", "arn:aws:kms:us-east-1:123456789012:key/*"),
    ("X509Strict", "no"),
    ("ScheduleExpression", "0 5 * * *"),
    ("ScheduleExpression", "at(2030-01-01T00:00:00)"),
    ("ScheduleTimeZone", "America/New York"),
    ("ScheduleState", "enabled"),
    ("AlertEmail", "isso"),
    ("AlertGrouping", "team"),
    ("VpcSubnetIds", "subnet-0123abcd, subnet-0123abcd"),
    ("VpcSecurityGroupIds", "default"),
    ("AlertContact", "<b>us</b>"),
    ("AlertContact", "x" * 129),
    ("ReminderDays", "-1"),
    ("ReminderDays", "1.5"),
    ("ResolvedDays", "0"),
    ("Concurrency", "65"),
    ("Engine", "Lambda"),
    ("FanOutWorkers", "0"),
    ("FanOutWorkers", "41"),
    ("Concurrency", "many"),
    ("PageSize", "1001"),
    ("MemoryMegabytes", "128"),
    ("TimeoutSeconds", "901"),
    ("LogRetentionDays", "366"),
    ("LogLevel", "TRACE"),
    ("AlertTopicArn", "alerts"),
    ("AlertTopicArn", f"{TOPIC}.fifo"),  # alarms cannot go there
    ("AlertTopicArn", "arn:aws:sqs:us-east-1:123456789012:alerts"),
    ("AlertTopicArn", "arn:aws:sns:us-east-1:123456789012:*"),
    ("AlertTopicArn", f"{TOPIC}:1234abcd-12ab-34cd-56ef-1234567890ab"),  # a subscription
    ("AlertTopicKeyArn", "alias/aws/sns"),
    ("OperationsTopicArn", "arn:aws:sns:us-east-1:123456789012:*"),
    ("KmsKeyArn", "1234abcd-12ab-34cd-56ef-1234567890ab"),
    ("KmsKeyArn", "arn:aws:kms:us-east-1:123456789012:alias/audit"),
    ("KmsKeyArn", "arn:aws:kms:us-east-1:123456789012:key/*"),
    ("KmsKeyArn", f" {KEY}"),
    ("SilenceHours", "1"),
    ("SilenceHours", "169"),
    ("ShrinkPercent", "0"),
    ("ShrinkPercent", "100"),
    ("VpcEndpoints", "yes"),
    ("VpcId", "vpc-*"),
    ("VpcId", "vpc-0123abcd,vpc-0123abcd"),
    ("VpcRouteTableIds", "main"),
    ("EvidenceLock", "on"),
    ("EvidenceLock", "COMPLIANCE"),
    ("EvidenceLockDays", "0"),
    ("EvidenceLockDays", "36501"),
    ("EvidenceDays", "-1"),
    ("RowsDays", "for ever"),
    ("DeletionProtection", "off"),
    ("AccessLogBucket", "Logs"),
    ("AccessLogBucket", "s3://logs"),
    ("AccessLogBucket", "ab"),
    ("EvidenceFormats", "pdf"),
    ("EvidenceFormats", "report, ckl"),
    ("EvidenceFormats", "report,"),
    ("BaselineKey", "dtr.ckl"),
    ("BaselineKey", "evidence/dtr.ckl"),
    ("BaselineKey", "baseline/.ckl"),
    ("BaselineKey", "baseline/../policy/exceptions.ckl"),
    ("BaselineKey", "baseline/*.ckl"),
    ("BaselineKey", "baseline/${aws:username}.ckl"),
    ("BaselineKey", "baseline/dtr.xml"),
    ("AssetName", "prod dtr"),
    ("AssetName", "=cmd"),
    ("AssetFqdn", "https://dtr.example.mil"),
    ("AssetRole", "Server"),
    ("AssetMarking", "<b>CUI</b>"),
    ("AssetMarking", "C" * 65),
    ("StigRelease", "V3R1"),
    ("ManifestSigningKeyArn", "arn:aws:kms:us-east-1:123456789012:alias/audit"),
    ("ManifestSigningKeyArn", "arn:aws:kms:us-east-1:123456789012:key/*"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_an_unsound_value_is_refused_by_name_and_with_the_remedy(name: str, value: str) -> None:
    with pytest.raises(templates.ParameterError) as refusal:
        complete(**{name: value})
    assert name in str(refusal.value)
    assert PARAMETERS[name]["ConstraintDescription"] in str(refusal.value)


def test_a_parameter_that_is_missing_is_named() -> None:
    with pytest.raises(templates.ParameterError, match=r"RegistryName is needed"):
        templates.complete_parameters(TEMPLATE, {"DtrUrl": "https://dtr.example.mil"})


def test_a_parameter_that_does_not_exist_is_named() -> None:
    with pytest.raises(templates.ParameterError, match=r"no parameter DtrURL"):
        complete(DtrURL="https://dtr.example.mil")


# --- Rules: what fits by itself, but not together -----------------------------------------------------------------


def evaluate(condition: Any, values: dict[str, str]) -> Any:
    """Work out a condition of the Rules section, by the functions that CloudFormation has there."""
    if not isinstance(condition, dict):
        return condition
    ((function, argument),) = condition.items()
    if function == "Ref":
        is_list = PARAMETERS[argument]["Type"] == "CommaDelimitedList"
        return values[argument].split(",") if is_list else values[argument]
    arguments = [evaluate(element, values) for element in argument]
    if function == "Fn::Not":
        return not arguments[0]
    if function == "Fn::Contains":
        return arguments[1] in arguments[0]
    if function == "Fn::EachMemberEquals":
        return all(member == arguments[1] for member in arguments[0])
    assert function == "Fn::Equals"
    return arguments[0] == arguments[1]


def refused_by_rules(**given: str) -> list[str]:
    values = complete(**given)
    return [
        assertion["AssertDescription"]
        for rule in TEMPLATE["Rules"].values()
        if evaluate(rule.get("RuleCondition", True), values)
        for assertion in rule["Assertions"]
        if not evaluate(assertion["Assert"], values)
    ]


PLACE = {
    "VpcId": "vpc-0123abcd",
    "VpcRouteTableIds": "rtb-0123abcd",
    "VpcSubnetIds": "subnet-0123abcd,subnet-0123abce",
    "VpcSecurityGroupIds": "sg-0123abcd",
}
TOGETHER = [
    {},
    {"CredentialsSecretArn": SECRET},
    {"CredentialsSecretArn": SECRET, "CredentialsSecretKeyArn": KEY},
    {"AlertTopicArn": TOPIC},
    {"AlertTopicArn": TOPIC, "AlertTopicKeyArn": KEY},
    {"VpcSubnetIds": PLACE["VpcSubnetIds"], "VpcSecurityGroupIds": PLACE["VpcSecurityGroupIds"]},
    PLACE,
    {**PLACE, "VpcEndpoints": "true"},
    {"TrustVerification": "signatures", "RequiredSigners": "ci,release", "SignersNeeded": "all"},
    {
        "TrustVerification": "signatures",
        "RepositoryKeySuffices": "true",
        "PinTrust": "true",
        "TrustWarningDays": "0",
    },
]


@pytest.mark.parametrize("given", TOGETHER)
def test_what_belongs_together_is_accepted(given: dict[str, str]) -> None:
    assert refused_by_rules(**given) == []


def test_a_key_without_its_existing_secret_is_refused() -> None:
    (reason,) = refused_by_rules(CredentialsSecretKeyArn=KEY)
    assert "existing secret" in reason


def test_a_key_without_its_existing_topic_is_refused() -> None:
    (reason,) = refused_by_rules(AlertTopicKeyArn=KEY)
    assert "existing topic" in reason


@pytest.mark.parametrize("missing", PLACE)
def test_endpoints_without_their_place_are_refused_by_the_name_that_is_missing(missing: str) -> None:
    given = {name: value for name, value in PLACE.items() if name != missing}
    assert refused_by_rules(**given, VpcEndpoints="true") == [f"Endpoints need {missing}."]


def test_a_list_with_a_comma_too_many_is_no_place_for_an_endpoint() -> None:
    given = {**PLACE, "VpcRouteTableIds": "rtb-0123abcd,", "VpcEndpoints": "true"}
    assert refused_by_rules(**given) == ["Endpoints need VpcRouteTableIds."]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RequiredSigners", "ci"),
        ("RequiredSigners", "ci,"),
        ("RepositoryKeySuffices", "true"),
        ("PinTrust", "true"),
        ("TrustWarningDays", "60"),
        ("TrustWarningDays", "0"),
    ],
)
def test_a_trust_setting_without_verification_is_refused_by_its_name(name: str, value: str) -> None:
    (reason,) = refused_by_rules(**{name: value})
    assert reason.startswith(f"{name} ")
    assert reason.endswith("needs TrustVerification signatures.")


def test_signers_needed_all_without_verification_and_signers_is_refused_for_both_reasons() -> None:
    assert refused_by_rules(SignersNeeded="all") == [
        "SignersNeeded all needs TrustVerification signatures.",
        "SignersNeeded all needs RequiredSigners.",
    ]


def test_signers_needed_all_without_signers_is_refused() -> None:
    assert refused_by_rules(TrustVerification="signatures", SignersNeeded="all") == [
        "SignersNeeded all needs RequiredSigners."
    ]


def test_the_rules_and_the_function_refuse_the_same_trust_settings() -> None:
    default = PARAMETERS["TrustWarningDays"]["Default"]
    assert default == TRUST_WARNING_DAYS
    assert refused_by_rules(TrustWarningDays=str(default)) == []


def test_every_rule_says_why_it_refuses() -> None:
    for rule in TEMPLATE["Rules"].values():
        assert all(assertion["AssertDescription"].endswith(".") for assertion in rule["Assertions"])
