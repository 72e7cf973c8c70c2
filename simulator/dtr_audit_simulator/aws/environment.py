"""The environment of this process while AWS is embedded in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import boto3

ACCESS_KEY = "embedded"


def set_level(name: str, level: int) -> int:
    """Set the level of a log; give what it was."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(level)
    return before


def take_environment(region: str) -> dict[str, str]:
    """Put the user's AWS settings out of sight and dummies in their place; give what was there before."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("AWS_"):  # profiles, credentials, per-service endpoints, FIPS, CA bundles
            del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID=ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY="embedded",  # noqa: S106 (moto wants one, and checks none)
        AWS_REGION=region,
        AWS_DEFAULT_REGION=region,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        VALIDATE_LAMBDA_S3="false",  # moto's: the function's code runs in this process, none is uploaded
    )
    without_proxy = ",".join(filter(None, [before.get("no_proxy") or before.get("NO_PROXY"), "127.0.0.1,localhost"]))
    os.environ.update(no_proxy=without_proxy, NO_PROXY=without_proxy)  # the lower-case one wins where both are read
    boto3.DEFAULT_SESSION = None  # it remembers credentials of the environment it was made in
    return before


def give_environment_back(before: Mapping[str, str]) -> None:
    """Put the user's AWS settings back as `take_environment` found them."""
    ours = {"VALIDATE_LAMBDA_S3", "NO_PROXY", "no_proxy"}
    for name in [name for name in os.environ if name.startswith("AWS_") or name in ours]:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name.startswith("AWS_") or name in ours})
    boto3.DEFAULT_SESSION = None


def with_partition(node: Any, partition: str) -> Any:
    """Spell out AWS::Partition, which moto's CloudFormation takes for `aws` in every region."""
    if node == {"Ref": "AWS::Partition"}:
        return partition
    if isinstance(node, dict):
        return {key: with_partition(value, partition) for key, value in node.items()}
    if isinstance(node, list):
        return [with_partition(value, partition) for value in node]
    if isinstance(node, str):
        return node.replace("${AWS::Partition}", partition)
    return node
