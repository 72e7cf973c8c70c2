"""The third step of a fan-out: what the registry is asked once all batches are read."""

import os
from datetime import UTC, datetime
from typing import Any

from dtr_audit.loading import collector_paused

with collector_paused():
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from dtr_audit import steps
    from dtr_audit.clients import AwsClients
    from dtr_audit.request import StepRequest
    from dtr_audit.settings import Settings

logger = Logger(service="dtr-signature-audit")


@logger.inject_lambda_context(clear_state=True)
def handler(payload: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Prove that the reading saw everything; what came of it lies in S3."""
    settings = Settings.from_environment(os.environ)
    step = StepRequest.from_payload(payload)
    logger.append_keys(registry=settings.registry, run_id=step.audit.run_id)
    return steps.prove(
        steps.Invocation(
            settings,
            step,
            AwsClients(connections=settings.concurrency + 2),
            seconds=context.get_remaining_time_in_millis() / 1000,
            now=lambda: datetime.now(UTC),
        )
    )
