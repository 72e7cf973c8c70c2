"""The least that any such function loads: the SDK, an HTTP client and Powertools. It does nothing."""

from typing import Any

import boto3
import requests
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.utilities import parameters

LOADED = (boto3, requests, Logger, Metrics, parameters)


def handler(_event: Any, _context: Any) -> None:
    """Answer nothing."""
