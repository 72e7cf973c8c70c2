"""Resource types of template.yaml that moto's CloudFormation lacks, or makes without some of their properties.

Importing this module is all it takes: moto looks through the direct subclasses of its `CloudFormationModel`, and of
two classes for the same type the later one counts. Each class here only translates a template's properties into a
call of moto's own backend, so what it makes is what an AWS client then finds.

What is left out on purpose: moto never expires anything, turns nobody away and writes no access log, so lifecycle
rules, public access and the like would change nothing. The tests assert those on the template itself.
"""

from __future__ import annotations

import json
import re
from typing import Any

import boto3
from moto.athena.models import athena_backends
from moto.awslambda.models import lambda_backends
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.glue.models import glue_backends
from moto.logs.models import logs_backends
from moto.scheduler.models import scheduler_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

import dtr_audit_simulator.aws.corrected_types  # noqa: F401 - importing it is all it takes
from dtr_audit_simulator.aws.made import Made


def unsupported_types(types: set[str]) -> set[str]:
    """Name those resource types that would be skipped, with no more than a warning, if they were deployed."""
    return types - set(parsing.get_model_map())


class Secret(Made, CloudFormationModel):
    """A secret, without a value if the template gives none."""

    attribute_names = ("Id",)

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::SecretsManager::Secret"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> Secret:
        """Create the secret."""
        properties = cloudformation_json["Properties"]
        created = secretsmanager_backends[account_id][region_name].create_secret(
            name=resource_name,
            secret_string=properties.get("SecretString"),
            secret_binary=None,
            description=properties.get("Description"),
            tags=properties.get("Tags"),
            kms_key_id=properties.get("KmsKeyId"),
            client_request_token=None,
            replica_regions=[],
            force_overwrite=False,
        )
        arn = json.loads(created)["ARN"]
        return cls(arn, Id=arn)


class Schedule(Made, CloudFormationModel):
    """A schedule. moto never fires it; `Stack.schedule_event` says what it would deliver."""

    attribute_names = ("Arn",)

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::Scheduler::Schedule"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> Schedule:
        """Create the schedule."""
        properties = cloudformation_json["Properties"]
        schedule = scheduler_backends[account_id][region_name].create_schedule(
            name=resource_name,
            group_name=properties.get("GroupName"),
            description=properties.get("Description"),
            schedule_expression=properties["ScheduleExpression"],
            schedule_expression_timezone=properties.get("ScheduleExpressionTimezone"),
            flexible_time_window=properties["FlexibleTimeWindow"],
            start_date=properties.get("StartDate"),
            end_date=properties.get("EndDate"),
            state=properties.get("State"),
            target=properties["Target"],
            kms_key_arn=properties.get("KmsKeyArn"),
            action_after_completion=None,
        )
        return cls(schedule.name, Arn=schedule.arn)


class Subscription(Made, CloudFormationModel):
    """A subscription to a topic."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::SNS::Subscription"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> Subscription:
        """Create the subscription."""
        properties = cloudformation_json["Properties"]
        backend = sns_backends[account_id][region_name]
        subscription = backend.subscribe(properties["TopicArn"], properties["Endpoint"], properties["Protocol"])
        return cls(subscription.arn)


class DescribedAlarm(Made, CloudFormationModel):
    """An alarm. moto never raises it; `describe_alarms` tells what it would watch."""

    attribute_names = ("Arn",)

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::CloudWatch::Alarm"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> DescribedAlarm:
        """Create the alarm."""
        # By the API, whose parameters are the template's properties.
        client = boto3.client("cloudwatch", region_name=region_name)
        client.put_metric_alarm(AlarmName=resource_name, **cloudformation_json["Properties"])
        (described,) = client.describe_alarms(AlarmNames=[resource_name])["MetricAlarms"]
        client.close()
        return cls(resource_name, Arn=described["AlarmArn"])


class LogGroup(Made, CloudFormationModel):
    """A log group with the ARN that CloudFormation gives: it ends in `:*`, the streams, for which rights are granted."""

    attribute_names = ("Arn",)

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::Logs::LogGroup"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> LogGroup:
        """Create the log group."""
        backend = logs_backends[account_id][region_name]
        properties = cloudformation_json["Properties"]
        key = properties.get("KmsKeyId")  # which moto knows by the API's name alone
        group = backend.create_log_group(resource_name, {}, **properties, kmsKeyId=key)
        return cls(group.name, Arn=f"{group.arn}:*")


class EventInvokeConfig(Made, CloudFormationModel):
    """What Lambda does with an asynchronous invocation that fails."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::Lambda::EventInvokeConfig"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> EventInvokeConfig:
        """Attach the configuration to its function."""
        properties = dict(cloudformation_json["Properties"])
        function = properties.pop("FunctionName")
        properties.pop("Qualifier")
        lambda_backends[account_id][region_name].put_function_event_invoke_config(function, properties)
        return cls(resource_name)


class Database(Made, CloudFormationModel):
    """A database of the Glue catalog."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::Glue::Database"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> Database:
        """Create the database."""
        given = cloudformation_json["Properties"]["DatabaseInput"]
        database = glue_backends[account_id][region_name].create_database(given["Name"], given)
        return cls(database.name)


class CatalogTable(Made, CloudFormationModel):
    """A table of the Glue catalog: where files lie, and how they are read."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::Glue::Table"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> CatalogTable:
        """Create the table."""
        properties = cloudformation_json["Properties"]
        given = properties["TableInput"]
        table = glue_backends[account_id][region_name].create_table(properties["DatabaseName"], given["Name"], given)
        return cls(table.name)


class WorkGroup(Made, CloudFormationModel):
    """A workgroup of Athena. moto runs no query in it; `dtr_audit_cli.query` answers those of queries/."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::Athena::WorkGroup"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> WorkGroup:
        """Create the workgroup."""
        properties = cloudformation_json["Properties"]
        athena_backends[account_id][region_name].create_work_group(
            properties["Name"], properties["WorkGroupConfiguration"], properties["Description"], tags=[]
        )
        return cls(properties["Name"])


class NamedQuery(Made, CloudFormationModel):
    """A query that is saved in a workgroup."""

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::Athena::NamedQuery"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> NamedQuery:
        """Save the query."""
        properties = cloudformation_json["Properties"]
        saved = athena_backends[account_id][region_name].create_named_query(
            name=properties["Name"],
            description=properties["Description"],
            database=properties["Database"],
            query_string=properties["QueryString"],
            workgroup=properties["WorkGroup"],
        )
        return cls(saved)


class Machine(Made, CloudFormationModel):
    """A state machine that moto interprets, with what its definition leaves open filled in."""

    attribute_names = ("Arn", "Name")

    @staticmethod
    def cloudformation_type() -> str:
        """Name the type."""
        return "AWS::StepFunctions::StateMachine"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_kwargs: Any
    ) -> Machine:
        """Create the machine."""
        properties = cloudformation_json["Properties"]
        definition: str = properties["DefinitionString"]
        for name, value in properties.get("DefinitionSubstitutions", {}).items():
            definition = definition.replace(f"${{{name}}}", str(value))
        # moto's grammar takes a percentage only with a decimal point.
        definition = re.sub(r'("ToleratedFailurePercentage": *\d+)(?=[^\d.])', r"\1.0", definition)
        machine = stepfunctions_parser_backends[account_id][region_name].create_state_machine(
            properties.get("StateMachineName", resource_name),
            definition,
            properties["RoleArn"],
            sm_type=properties.get("StateMachineType"),
        )
        return cls(machine.arn, Arn=machine.arn, Name=machine.name)
