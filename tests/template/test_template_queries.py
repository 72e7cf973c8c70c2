"""The template's part in Athena: the files of queries/ as they are deployed, the tables, and the workgroup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import sqlglot
from sqlglot import exp

from dtr_audit_cli.query import PARTITIONS, read_schema
from dtr_audit_cli.query_files import FOLDER, embed, named_queries
from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.stack import EmbeddedAws
from tests.harness.resolution import ACCOUNT, NEEDED, TEMPLATE, resolve

RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
FILES = {file.stem: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.sql")}
TABLES = {"findings": "QueryFindings", "runs": "QueryRuns"}
KEY = f"arn:aws-us-gov:kms:us-gov-west-1:{ACCOUNT}:key/1234"


def properties(name: str, given: dict[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = resolve(given)["Resources"][name]["Properties"]
    return found


# --- The queries ----------------------------------------------------------------------------------------------------


def test_the_template_deploys_the_very_files() -> None:
    saved = [one["Properties"] for one in RESOURCES.values() if one["Type"] == "AWS::Athena::NamedQuery"]
    assert {one["Name"]: one["QueryString"] for one in saved} == FILES
    assert len(saved) == len(FILES)
    text = (PROJECT / "template.yaml").read_text(encoding="utf-8")
    assert embed(text, named_queries()) == text, "run `make queries`"


def test_every_query_is_saved_where_it_can_be_asked() -> None:
    for name, resource in RESOURCES.items():
        if resource["Type"] == "AWS::Athena::NamedQuery":
            assert name.endswith("Query")
            assert resource["Properties"]["WorkGroup"] == {"Ref": "QueryWorkGroup"}
            assert resource["Properties"]["Database"] == {"Ref": "QueryDatabase"}
            assert resource["Properties"]["Description"].endswith("?")


# --- The tables -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> tuple[exp.Create, dict[str, Any]]:
    """A table as its DDL declares it, and as the template makes it."""
    ddl = sqlglot.parse_one((FOLDER / "tables" / f"{request.param}.sql").read_text(encoding="utf-8"), dialect="athena")
    assert isinstance(ddl, exp.Create)
    made = RESOURCES[TABLES[request.param]]["Properties"]
    assert made["DatabaseName"] == {"Ref": "QueryDatabase"}
    assert made["TableInput"]["Name"] == ddl.this.this.name == request.param
    return ddl, made["TableInput"]


def test_a_table_has_the_columns_of_its_ddl(table: tuple[exp.Create, dict[str, Any]]) -> None:
    ddl, made = table
    declared = list(read_schema()[ddl.this.this.name].items())
    columns = [*made["StorageDescriptor"]["Columns"], *made["PartitionKeys"]]
    assert [column["Name"] for column in columns] == [name for name, _ in declared]
    for column, (_, kind) in zip(columns, declared, strict=True):
        assert re.fullmatch(r"[a-z0-9_<>,:]+", column["Type"]), "as Glue writes types: lower case, no spaces"
        assert exp.DataType.build(column["Type"], dialect="hive").sql("hive") == kind.sql("hive")
    assert [column["Name"] for column in made["PartitionKeys"]] == list(PARTITIONS)


def test_a_table_is_read_as_its_ddl_says(table: tuple[exp.Create, dict[str, Any]]) -> None:
    ddl, made = table
    storage = made["StorageDescriptor"]
    text = " ".join(ddl.sql("hive").split())
    assert f"ROW FORMAT SERDE '{storage['SerdeInfo']['SerializationLibrary']}'" in text
    assert f"INPUTFORMAT '{storage['InputFormat']}' OUTPUTFORMAT '{storage['OutputFormat']}'" in text
    assert "Parameters" not in storage["SerdeInfo"]  # none that would skip what it cannot read
    location = ddl.find(exp.LocationProperty)
    assert location is not None
    assert storage["Location"] == {"Fn::Sub": location.this.name.replace("BUCKET", "${AuditBucket}")}
    assert (made["TableType"], made["Parameters"]["EXTERNAL"]) == ("EXTERNAL_TABLE", "TRUE")


def test_a_table_is_projected_as_its_ddl_says(table: tuple[exp.Create, dict[str, Any]]) -> None:
    ddl, made = table
    declared = {one.this.name: one.args["value"].name for one in ddl.find_all(exp.Property) if "value" in one.args}
    projected = {key: value for key, value in made["Parameters"].items() if key.startswith("projection.")}
    assert projected.pop("projection.registry.values") == {"Ref": "RegistryName"}
    assert declared.pop("projection.registry.values") == "REGISTRY"
    assert projected == {key: value for key, value in declared.items() if key.startswith("projection.")}


# --- The workgroup, and where results go ---------------------------------------------------------------------------


def test_what_the_workgroup_sets_holds_any_the_client_asks_for() -> None:
    configuration = properties("QueryWorkGroup")["WorkGroupConfiguration"]
    assert configuration["EnforceWorkGroupConfiguration"] is True
    assert configuration["EngineVersion"] == {"SelectedEngineVersion": "Athena engine version 3"}
    assert configuration["ResultConfiguration"]["ExpectedBucketOwner"] == ACCOUNT


@pytest.mark.parametrize(("megabytes", "cutoff"), [("10", 10_000_000), ("10000", 10_000_000_000)])
def test_a_query_is_cut_off_after_the_megabytes_that_are_said(megabytes: str, cutoff: int) -> None:
    configuration = properties("QueryWorkGroup", {"QueryLimitMegabytes": megabytes})["WorkGroupConfiguration"]
    assert int(configuration["BytesScannedCutoffPerQuery"]) == cutoff
    assert TEMPLATE["Parameters"]["QueryLimitMegabytes"]["MinValue"] == 10  # Athena's least


@pytest.mark.parametrize("given", [{}, {"KmsKeyArn": KEY}, {"EvidenceLock": "compliance"}])
def test_results_are_encrypted_with_the_one_key_and_never_locked(given: dict[str, str]) -> None:
    key = given.get("KmsKeyArn", {"Fn::GetAtt": ["EncryptionKey", "Arn"]})
    result = properties("QueryWorkGroup", given)["WorkGroupConfiguration"]["ResultConfiguration"]
    assert result["EncryptionConfiguration"] == {"EncryptionOption": "SSE_KMS", "KmsKey": key}
    assert result["OutputLocation"] == {"Fn::Sub": "s3://${QueryResultsBucket}/results/"}
    bucket = properties("QueryResultsBucket", given)
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    assert not {"ObjectLockEnabled", "ObjectLockConfiguration", "VersioningConfiguration"} & set(bucket)


def test_results_are_private_and_gone_after_the_days_that_are_said() -> None:
    bucket = properties("QueryResultsBucket", {"QueryResultDays": "3"})
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    expiries = [
        rule["ExpirationInDays"] for rule in bucket["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in rule
    ]
    assert expiries == [3]
    policy = properties("QueryResultsBucketPolicy")["PolicyDocument"]["Statement"]
    assert [one["Condition"] for one in policy] == [
        one["Condition"] for one in properties("AuditBucketPolicy")["PolicyDocument"]["Statement"]
    ]
    assert {one["Effect"] for one in policy} == {"Deny"}


def test_the_audit_itself_has_no_right_to_ask() -> None:
    assert not re.search(r"athena:|glue:|QueryResults", str(RESOURCES["AuditRole"]))


# --- Deployed ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["us-east-1", "us-gov-west-1"])
def region(request: pytest.FixtureRequest, aws: EmbeddedAws) -> Iterator[str]:
    aws.deploy(PROJECT / "template.yaml", NEEDED, region=request.param, stack_name="Two-Words")
    yield request.param


def test_deployed_in_either_partition_everything_is_found_by_its_name(region: str) -> None:
    athena, glue = boto3.client("athena", region_name=region), boto3.client("glue", region_name=region)
    try:
        ids = athena.list_named_queries(WorkGroup="Two-Words")["NamedQueryIds"]
        saved = [athena.get_named_query(NamedQueryId=one)["NamedQuery"] for one in ids]
        assert {one["Name"]: one["QueryString"] for one in saved} == FILES
        (database,) = {one["Database"] for one in saved}
        assert database == "Two_Words"  # SQL takes no hyphen in a name
        tables = {one["Name"]: one for one in glue.get_tables(DatabaseName=database)["TableList"]}
        assert set(tables) == set(TABLES)
        for name, made in tables.items():
            assert made["Parameters"]["projection.registry.values"] == NEEDED["RegistryName"]
            assert re.fullmatch(rf"s3://[a-z0-9.-]+/{name}/", made["StorageDescriptor"]["Location"])
    finally:
        athena.close()
        glue.close()
