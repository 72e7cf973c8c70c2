"""The parameters, as someone meets them who sees only the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local import template as templates

TEMPLATE = templates.load(Path(__file__).parents[2] / "template.yaml")
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
INTERFACE = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]
NEEDED = {"DtrUrl": "https://dtr.example.mil", "RegistryName": "prod-dtr"}


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


def test_every_parameter_stands_in_one_group_and_has_a_label() -> None:
    grouped = [name for group in INTERFACE["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(PARAMETERS)
    assert set(INTERFACE["ParameterLabels"]) == set(PARAMETERS)


def test_only_the_registry_itself_must_be_given() -> None:
    assert {name for name, parameter in PARAMETERS.items() if "Default" not in parameter} == set(NEEDED)


def test_the_defaults_keep_their_own_constraints() -> None:
    assert complete()["Concurrency"] == "16"


def test_nothing_that_widens_the_attack_surface_is_on_by_default() -> None:
    values = complete()
    assert values["X509Strict"] == "true"
    assert values["CredentialsSecretKeyArn"] == ""
    assert values["LogLevel"] == "INFO"


ACCEPTED = [
    ("DtrUrl", "https://dtr.example.mil:4443"),
    ("DtrUrl", "https://localhost:49152"),
    ("DtrUrl", "https://10.0.0.7"),
    ("RegistryName", "a"),
    ("RegistryName", "0" + "a" * 62),
    ("DtrDomains", "dtr.example.mil"),
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
    ("ReminderDays", "0"),
    ("Concurrency", "64"),
    ("PageSize", "10"),
    ("TimeoutSeconds", "900"),
    ("LogRetentionDays", "3653"),
]


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_a_sound_value_is_accepted(name: str, value: str) -> None:
    assert complete(**{name: value})[name] == value


REFUSED = [
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
    ("ReminderDays", "-1"),
    ("ReminderDays", "1.5"),
    ("ResolvedDays", "0"),
    ("Concurrency", "65"),
    ("Concurrency", "many"),
    ("PageSize", "1001"),
    ("MemoryMegabytes", "128"),
    ("TimeoutSeconds", "901"),
    ("LogRetentionDays", "366"),
    ("LogLevel", "TRACE"),
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


def evaluate(condition: Any, values: dict[str, str]) -> Any:
    """Work out a condition of the Rules section."""
    if not isinstance(condition, dict):
        return condition
    ((function, argument),) = condition.items()
    if function == "Ref":
        return values[argument]
    arguments = [evaluate(element, values) for element in argument]
    if function == "Fn::Not":
        return not arguments[0]
    assert function == "Fn::Equals"
    return arguments[0] == arguments[1]


def refused_by_rules(values: dict[str, str]) -> list[str]:
    return [
        assertion["AssertDescription"]
        for rule in TEMPLATE["Rules"].values()
        if evaluate(rule.get("RuleCondition", True), values)
        for assertion in rule["Assertions"]
        if not evaluate(assertion["Assert"], values)
    ]


def test_a_key_without_an_existing_secret_is_refused() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1234"
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:audit-AbCd12"
    assert refused_by_rules(complete()) == []
    assert refused_by_rules(complete(CredentialsSecretKeyArn=key, CredentialsSecretArn=secret)) == []
    assert len(refused_by_rules(complete(CredentialsSecretKeyArn=key))) == 1
