"""The third step of a fan-out: what the registry is asked once all batches are read."""

import os
from typing import Any

from dtr_audit.core.loading import collector_paused

with collector_paused():
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from dtr_audit.aws.logger import make_logger, raise_redacted
    from dtr_audit.pipeline.run_context import Invocation
    from dtr_audit.pipeline.steps import prove

logger = make_logger()


@raise_redacted
@logger.inject_lambda_context(clear_state=True)
def handler(payload: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Prove that the reading saw everything; what came of it lies in S3."""
    return prove(Invocation.of(payload, os.environ, seconds=context.get_remaining_time_in_millis() / 1000))
