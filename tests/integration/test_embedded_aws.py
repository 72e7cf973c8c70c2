"""What the embedded AWS does to the process it runs in, and how it leaves it.

There is one embedded AWS in a process, and these tests' own process has one already: so another process looks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.command import PYTHON_PATH

ROOT = Path(__file__).parents[2]
USERS_OWN = {
    "AWS_PROFILE": "no-such-profile",
    "AWS_DEFAULT_PROFILE": "no-such-profile",
    "AWS_ACCESS_KEY_ID": "users-own",
    "AWS_SECRET_ACCESS_KEY": "users-own",
    "AWS_SESSION_TOKEN": "users-own",
    "AWS_ENDPOINT_URL_S3": "https://s3.example.invalid",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_CA_BUNDLE": "/nowhere.pem",
    "AWS_REGION": "eu-central-1",
    "HTTP_PROXY": "http://proxy.example.invalid:3128",
    "http_proxy": "http://proxy.example.invalid:3128",
    "NO_PROXY": "dtr.example.mil",
    "VALIDATE_LAMBDA_S3": "true",
}
PROBE = """
import json, logging, os, sys
from pathlib import Path
import boto3
from dtr_audit_simulator.aws.stack import EmbeddedAws
from dtr_audit_simulator.aws.template import ParameterError

template = Path("template.yaml")
parameters = {"DtrUrl": "https://dtr.example.mil", "RegistryName": "prod-dtr"}
seen = {"before": dict(os.environ), "buckets": [], "log_level_before": logging.getLogger("werkzeug").level}
for _ in range(2):
    with EmbeddedAws("us-gov-west-1") as aws:
        stack = aws.deploy(template, parameters)
        client = boto3.client("s3")
        seen["endpoint"] = client.meta.endpoint_url
        seen["region"] = [stack.region, client.meta.region_name]
        seen["buckets"].append([bucket["Name"] for bucket in client.list_buckets()["Buckets"]])
        seen["bucket"] = stack.outputs["BucketName"]
        seen["during"] = dict(os.environ)
        client.close()
seen["after"] = dict(os.environ)
try:
    with EmbeddedAws() as aws:
        os.environ["DTR_URL"] = "set meanwhile"
        aws.deploy(template, {})
except ParameterError:
    seen["after_error"] = dict(os.environ)
seen["default_session"] = repr(boto3.DEFAULT_SESSION)
seen["log_level_after"] = logging.getLogger("werkzeug").level
json.dump(seen, sys.stdout)
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a program sees whose user has a profile, FIPS endpoints and a proxy, all of them in the way."""
    config = tmp_path_factory.mktemp("users") / "config"
    config.write_text("[default]\nendpoint_url = https://aws.example.invalid\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    for name in ("NO_PROXY", "no_proxy"):
        environment.pop(name, None)
    finished = subprocess.run(  # noqa: S603 (the program above)
        [sys.executable, "-W", "error", "-c", PROBE],
        cwd=ROOT,
        env={**environment, **USERS_OWN, "PYTHONPATH": PYTHON_PATH, "AWS_CONFIG_FILE": str(config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stderr == ""
    found: dict[str, Any] = json.loads(finished.stdout)  # and nothing else is on the console
    return found


def test_clients_reach_the_embedded_aws_and_its_region(seen: dict[str, Any]) -> None:
    assert seen["endpoint"] == "https://s3.us-gov-west-1.amazonaws.com", "as in AWS, and answered here"
    assert seen["region"] == ["us-gov-west-1", "us-gov-west-1"]


def test_nothing_of_the_users_own_aws_is_in_sight(seen: dict[str, Any]) -> None:
    during = {name: value for name, value in seen["during"].items() if name.startswith("AWS_")}
    assert not {value for name, value in USERS_OWN.items() if name.startswith("AWS_") and value != "true"} & set(
        during.values()
    )
    assert during["AWS_CONFIG_FILE"] == during["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert "AWS_PROFILE" not in during
    assert "AWS_USE_FIPS_ENDPOINT" not in during


def test_the_users_proxy_stays_for_everyone_but_the_embedded_aws(seen: dict[str, Any]) -> None:
    assert seen["during"]["HTTP_PROXY"] == USERS_OWN["HTTP_PROXY"]
    assert seen["during"]["NO_PROXY"] == "dtr.example.mil,127.0.0.1,localhost"
    assert seen["during"]["no_proxy"] == seen["during"]["NO_PROXY"]


def test_the_environment_is_given_back(seen: dict[str, Any]) -> None:
    assert seen["after"] == seen["before"]


def test_the_environment_is_given_back_after_an_error_too_and_what_others_set_meanwhile_stays(
    seen: dict[str, Any],
) -> None:
    assert seen["after_error"] == {**seen["before"], "DTR_URL": "set meanwhile"}
    assert seen["default_session"] == "None"


def test_each_embedded_aws_starts_empty(seen: dict[str, Any]) -> None:
    first, second = seen["buckets"]
    assert len(first) == len(second) == 2  # the audit's, and that of the queries' results
    assert not set(first) & set(second)
    assert seen["bucket"] in second


def test_the_servers_log_is_as_it_was(seen: dict[str, Any]) -> None:
    assert seen["log_level_after"] == seen["log_level_before"]
