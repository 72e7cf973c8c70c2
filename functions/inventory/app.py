"""The first step of a fan-out: the repositories of the registry, in batches."""

import os
from typing import Any

from dtr_audit.core.loading import collector_paused

with collector_paused():
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from dtr_audit.aws.logger import make_logger, raise_redacted
    from dtr_audit.pipeline.run_context import Invocation
    from dtr_audit.pipeline.steps import inventory

logger = make_logger()


@raise_redacted
@logger.inject_lambda_context(clear_state=True)
def handler(payload: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """List the repositories in scope in batches; says where they lie."""
    return inventory(Invocation.of(payload, os.environ, seconds=context.get_remaining_time_in_millis() / 1000))
