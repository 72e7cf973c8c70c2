"""The documents, held against the template, against AWS's own interfaces, and against what their tables are reckoned by."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import ssl
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from dtr_audit import __version__
from dtr_audit.http.certificates import read_authorities
from dtr_audit.registry.credentials import parse_secret
from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.http.authority import CertificateAuthority
from tools.planner import cost, cost_report, scale_tables

ROOT = Path(__file__).parents[2]
TEMPLATE = templates.load(ROOT / "template.yaml")
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
# The pages of the deployer, the operator, the owners of namespaces and the security officer, as one text.
OPERATIONS = "\n".join(
    (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in ("operations", "deploy", "owners", "isso")
)
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
COST = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ALARMS = {
    name: resource["Properties"]["AlarmDescription"]
    for name, resource in RESOURCES.items()
    if resource["Type"] == "AWS::CloudWatch::Alarm"
}

# Commands of the AWS CLI that are no operation of an interface, with the options that the documents use.
CUSTOM_COMMANDS = {
    ("s3", "cp"): {"recursive"},
    ("logs", "tail"): {"since", "filter-pattern"},
    ("dynamodb", "wait"): {"table-name"},
}
# Options that the AWS CLI calls otherwise than the interface does.
RENAMED_OPTIONS = {"notification-endpoint"}
OPERATORS = {"StringEquals": "=", "StringLike": "like", "ArnLike": "like", "Null": "is missing:"}
GLOBAL_OPTIONS = {"output", "query", "region", "no-paginate", "cli-binary-format", "max-items"}

# Words in CamelCase that are not the template's: metrics, and AWS's own.
OTHER_NAMES = {
    *("RepositoriesAudited", "TagsAudited", "TagsUnsigned", "TagsUnknown", "FindingsOpen", "OldestFindingDays"),
    *("RunCompleted", "SizeAgainstLastRun", "DtrSignatureAudit"),
    *("SecurityHubUpToDate", "FindingProviderFields", "ProductFields", "RecordState", "RelatedRequirements"),
    *("CreatedAt", "UpdatedAt", "FirstObservedAt", "LastObservedAt"),
    *("BatchWriteItem", "RetriesExhausted", "EventAgeExceeded", "SecureTransport", "MessageStructure"),
    *("AccessDenied", "SlowDown", "GetSecretValue", "UpdateFunctionCode"),
    *("LeaseHeldError", "OtherRunUnderWay", "ReportFailure"),
}


def section(text: str, heading: str) -> str:
    """Give what stands below a heading, up to the next one of its level or above."""
    level = heading.split(" ", 1)[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no {heading}"
    return found[1]


def unwrapped(text: str) -> str:
    return " ".join(text.split())


# --- Operations ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alarm", ALARMS)
def test_section_of_an_alarm_begins_with_its_description_and_says_what_to_do_and_when_it_ends(alarm: str) -> None:
    text = section(OPERATIONS, f"### {alarm}")
    quotation = " ".join(line.removeprefix(">") for line in text.strip().splitlines() if line.startswith(">"))
    assert unwrapped(quotation) == unwrapped(ALARMS[alarm])
    own = unwrapped("\n".join(line for line in text.splitlines() if not line.startswith(">")))
    assert len(own.split()) >= 12, "more than the description: what to look at, or what to do"
    assert re.search(r"\b[Ii]t ends ", own)


def test_there_are_sections_for_no_other_alarms() -> None:
    assert re.findall(r"^### (\w+Alarm)$", OPERATIONS, re.MULTILINE) == list(ALARMS)


def key_policy() -> list[dict[str, Any]]:
    """Give the statements of the key's policy, those for an option included."""
    written = RESOURCES["EncryptionKey"]["Properties"]["KeyPolicy"]["Statement"]
    return [each["Fn::If"][1] if "Fn::If" in each else each for each in written]


def test_the_policy_for_an_existing_key_is_that_of_the_stacks_own() -> None:
    block = re.search(r"^<!-- key policy -->\n```json\n(.*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert block
    own = json.dumps(key_policy())
    own = re.sub(r'\{"Fn::Sub": ("[^"]*")\}', r"\1", own)
    own = own.replace('{"Ref": "AWS::AccountId"}', '"${AWS::AccountId}"')
    for reference, word in (
        ("AWS::Partition", "PARTITION"),
        ("AWS::Region", "REGION"),
        ("AWS::AccountId", "ACCOUNT"),
        ("AWS::StackName", "STACK"),
    ):
        own = own.replace(f"${{{reference}}}", word)
    assert json.loads(block[1]) == json.loads(own)


def test_the_policy_for_a_signing_key_lets_the_role_do_what_the_role_may_and_no_one_else_sign() -> None:
    block = re.search(r"^<!-- signing key policy -->\n```json\n(.*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert block
    owners, audit = json.loads(block[1])["Statement"]
    (granted,) = [
        entry["Fn::If"][1]
        for entry in RESOURCES["AuditRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        if "Fn::If" in entry and entry["Fn::If"][0] == "ManifestIsSigned"
    ]
    assert audit["Action"] == granted["Action"]
    assert "kms:Sign" not in owners["Action"]
    assert not [action for action in owners["Action"] if "*" in action]


def test_what_is_kept_when_the_stack_goes_is_named_for_one_who_tears_it_down() -> None:
    kept = {name for name, resource in RESOURCES.items() if resource.get("DeletionPolicy") == "Retain"}
    assert kept == set(re.findall(r"`(\w+)`", section(OPERATIONS, "## Tear down").split("are kept")[0])) & set(
        RESOURCES
    )


# --- Commands --------------------------------------------------------------------------------------------------------------


def commands(document: Path) -> Iterator[list[str]]:
    """Give each command of the AWS CLI in a document's shell blocks, as words."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        text = re.sub(r"(?:^|\s)# .*$", "", block, flags=re.MULTILINE).replace("\\\n", " ")
        text = re.sub(r"\$\(output \w+\)|<output \w+>", "OUTPUT", text)
        nested = re.findall(r"\$\((aws [^()]*)\)", text)
        text = re.sub(r"\$\([^()]*\)", "NESTED", text)
        for one in (text, *nested):
            words = shlex.shlex(ends_of_lines_marked(one), posix=True, punctuation_chars="(){};|<>&")
            words.whitespace_split = True
            command: list[str] = []
            for word in (*words, ";"):
                if set(word) <= set("(){};|<>&"):
                    if command[:1] == ["aws"]:
                        yield command
                    command = []
                else:
                    command.append(word)


def ends_of_lines_marked(text: str) -> str:
    """Put a semicolon wherever the shell would end a command for the end of a line."""
    quote = ""
    marked = ""
    for character in text:
        if character in {"'", '"'} and quote in {"", character}:
            quote = "" if quote else character
        marked += " ; " if character == "\n" and not quote else character
    return marked


def options_of(service: str, operation: str) -> set[str]:
    """Give the options that the AWS CLI has for an operation. Raises KeyError for what is none."""
    model = botocore.session.get_session().get_service_model("s3" if service == "s3api" else service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    shape = model.operation_model(names[operation]).input_shape
    members = {xform_name(member, "-"): value for member, value in (shape.members if shape else {}).items()}
    switches = {f"no-{name}" for name, value in members.items() if value.type_name == "boolean"}
    return {*members, *switches}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_aws_command_that_is_written_down_exists(document: Path) -> None:
    for words in commands(document):
        _, service, operation, *arguments = words
        options = {word.removeprefix("--") for word in arguments if word.startswith("--")}
        known = CUSTOM_COMMANDS.get((service, operation)) or options_of(service, operation)
        assert options <= known | GLOBAL_OPTIONS | RENAMED_OPTIONS, words


def test_the_commands_for_operators_are_looked_at() -> None:
    assert len(list(commands(ROOT / "docs" / "deploy.md"))) >= 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_name_of_the_template_that_is_written_down_is_in_it(document: Path) -> None:
    sids = re.findall(r"Sid: (\w+)", (ROOT / "template.yaml").read_text(encoding="utf-8"))
    values = {str(value) for one in TEMPLATE["Parameters"].values() for value in one.get("AllowedValues", ())}
    known = {*TEMPLATE["Parameters"], *values, *RESOURCES, *TEMPLATE["Outputs"], *TEMPLATE["Conditions"], *sids}
    text = re.sub(r"^ *```.*?^ *```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    written = {name for code in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"^\w+", code)}
    camels = {name for name in written if re.fullmatch(r"(?:[A-Z][a-z0-9]+){2,}", name)}
    assert camels <= known | OTHER_NAMES


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_output_that_a_command_asks_for_is_one(document: Path) -> None:
    asked = re.findall(r"\$\(output (\w+)\)|<output (\w+)>|[Oo]utput `(\w+)`", document.read_text(encoding="utf-8"))
    assert {name for names in asked for name in names if name} <= set(TEMPLATE["Outputs"])


def test_command_that_builds_the_secret_of_a_ca_file_makes_one_that_is_read(tmp_path: Path) -> None:
    (command,) = re.findall(r"^```sh\n(\(umask 077 .*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)
    pem = CertificateAuthority().certificate_pem
    der = ssl.PEM_cert_to_DER_cert(pem)
    for content in (pem.encode(), der):
        (tmp_path / "ca.pem").write_bytes(content)
        # Without a terminal the password is read from the input.
        subprocess.run(  # noqa: S603 (of the document)
            ["/bin/sh", "-c", command],
            cwd=tmp_path,
            input=b"hunter2\n",
            start_new_session=True,
            check=True,
            capture_output=True,
        )
        file = tmp_path / "credentials.json"
        secret = parse_secret(file.read_text())
        assert (secret.username, secret.password) == ("auditor", "hunter2")
        assert read_authorities(secret.ca_bundle, "ca_bundle") == (der,)
        assert file.stat().st_mode & 0o777 == 0o600


def test_make_deploy_builds_first_and_hands_its_arguments_on() -> None:
    make = shutil.which("make")
    assert make
    arguments = "--parameter-overrides RegistryName=prod-dtr ScheduleExpression='rate(6 days)'"
    reported = subprocess.run(  # noqa: S603 (nothing of it is run)
        [make, "--dry-run", "--no-print-directory", "deploy", f"DEPLOY_ARGUMENTS={arguments}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    build, deploy = reported[-2:]
    assert build.endswith("sam build")
    assert deploy.endswith(f"sam deploy {arguments}")


def test_the_settings_of_sam_name_no_registry() -> None:
    deploy = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))["default"]["deploy"]["parameters"]
    assert "parameter_overrides" not in deploy
    assert deploy["confirm_changeset"] is True


# --- Security ----------------------------------------------------------------------------------------------------------------


def formatted(value: Any) -> str:
    """Say what a resource, or a value of a condition, is."""
    if isinstance(value, list):
        return ", ".join(formatted(one) for one in value)
    if isinstance(value, str):
        return f"`{value}`"
    ((function, argument),) = value.items()
    if function == "Fn::If":
        condition, then, otherwise = argument
        is_optional = otherwise == {"Ref": "AWS::NoValue"}
        return f"{formatted(then)} (if {condition})" if is_optional else f"{formatted(then)} or {formatted(otherwise)}"
    if function == "Fn::GetAtt":
        argument = argument[0]
    if function == "Fn::Sub":
        argument = argument if isinstance(argument, str) else argument[0]
        argument = argument.removesuffix(".${AWS::Region}.${AWS::URLSuffix}").replace(".Arn}", "}")
        argument = re.sub(r"^arn:\$\{AWS::Partition\}:", "", argument)
        argument = re.sub(r"\$\{(?:AWS::)?(\w+)\}", r"\1", argument)
    return f"`{argument}`"


def rights(role: str) -> Iterator[list[str]]:
    """Give the first cells of a role's rows: statement, when, effect and actions, resources, limits."""
    (policy,) = RESOURCES[role]["Properties"]["Policies"]
    for entry in policy["PolicyDocument"]["Statement"]:
        condition, statement = ("", entry) if "Sid" in entry else entry["Fn::If"][:2]
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        limits = [
            f"`{key}` {OPERATORS[operator]} {formatted(value)}"
            for operator, wanted in statement.get("Condition", {}).items()
            for key, value in wanted.items()
        ]
        denied = "not " if statement["Effect"] == "Deny" else ""
        yield [
            f"`{statement['Sid']}`" + (f" (if {condition})" if condition else ""),
            denied + ", ".join(f"`{action}`" for action in actions),
            formatted(statement["Resource"]),
            "; ".join(limits),
        ]


@pytest.mark.parametrize("role", [name for name, each in RESOURCES.items() if each["Type"] == "AWS::IAM::Role"])
def test_the_table_of_rights_is_the_role_statement_by_statement(role: str) -> None:
    rows = [
        line.strip("| ").split(" | ")
        for line in section(SECURITY, f"### {role}").splitlines()
        if line.startswith("| `")
    ]
    assert [[cell.strip() for cell in row[:4]] for row in rows] == list(rights(role))
    assert all(row[4].strip() for row in rows), "each right says why"


def test_every_statement_of_the_keys_policy_is_explained() -> None:
    text = section(SECURITY, "### The key's policy")
    for statement in key_policy():
        assert f"`{statement['Sid']}`" in text


def test_what_every_parameter_widens_is_said() -> None:
    named = set(re.findall(r"`(\w+)", section(SECURITY, "## What each parameter widens")))
    assert set(TEMPLATE["Parameters"]) <= named


def test_every_resource_that_holds_data_is_in_the_table_of_data() -> None:
    text = section(SECURITY, "## Data")
    active = {"Table", "Bucket", "Topic", "Queue", "LogGroup", "Secret", "StateMachine"}
    for name, resource in RESOURCES.items():
        if resource["Type"].rsplit("::", 1)[1] in active:
            assert f"`{name}`" in text, name


# --- Cost ----------------------------------------------------------------------------------------------------------------------


def test_the_tables_of_the_cost_are_estimated_from_the_price_list() -> None:
    written = dict(re.findall(r"^<!-- cost: (\w+) -->\n((?:\|.*\n)+)", COST, re.MULTILINE))
    prices = cost.PriceList.read(cost.PRICES)
    expected = cost_report.document(prices)
    assert set(written) == set(expected)
    for name, table in expected.items():
        assert written[name].strip() == table, "write what `make cost` prints into docs/cost.md"
    assert prices.date in COST
    assert prices.region in COST


# --- Scale ---------------------------------------------------------------------------------------------------------------------


def test_the_tables_of_the_scale_are_what_the_simulation_says() -> None:
    expected = scale_tables.document(cost.PriceList.read(cost.PRICES))
    names: list[str] = []
    for document in scale_tables.DOCUMENTS:
        for name, table in scale_tables.tables_in(document).items():
            assert table.strip() == expected[name], "run `make scale SCALE_ARGUMENTS=--write`"
            names.append(name)
    assert sorted(names) == sorted(expected)


def test_how_much_more_lambda_an_audit_in_steps_takes_is_what_the_tables_say() -> None:
    tables = scale_tables.tables_in(ROOT / "docs" / "scale.md")
    one, steps = (
        [
            float(cell.replace(",", ""))
            for cell in re.findall(r"^\| Lambda, in GB-seconds \| (.*) \|$", table, re.MULTILINE)[0].split(" | ")
        ]
        for table in (tables["lambda"], tables["stepfunctions"])
    )
    assert all(5 <= more / less <= 8 for less, more in zip(one, steps, strict=True))
    for name in ("scale.md", "cost.md"):
        assert "five to eight times" in (ROOT / "docs" / name).read_text(encoding="utf-8")


# --- The Serverless Application Repository ---------------------------------------------------------------------------------


def test_the_repositorys_metadata_agree_with_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = TEMPLATE["Metadata"]["AWS::ServerlessRepo::Application"]
    assert metadata["Name"] == project["name"]
    assert metadata["SemanticVersion"] == __version__
    assert metadata["SpdxLicenseId"] == project["license"]
    for name in ("LicenseUrl", "ReadmeUrl"):
        assert (ROOT / metadata[name]).is_file()
    # What the repository takes.
    assert len(metadata["Description"]) <= 256
    assert re.fullmatch(r"[a-z0-9](?:[a-z0-9]|-(?!-))*[a-z0-9]", metadata["Author"])
    assert len(metadata["Labels"]) <= 10
    assert all(re.fullmatch(r"[a-zA-Z0-9+\-_:/@]{1,127}", label) for label in metadata["Labels"])
