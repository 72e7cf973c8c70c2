"""The scheduled audit in one invocation: event -> audit() -> run record."""

import os
from datetime import UTC, datetime
from typing import Any

from dtr_audit.core.loading import collector_paused

with collector_paused():
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from dtr_audit.aws import metrics
    from dtr_audit.aws.clients import AwsClients
    from dtr_audit.aws.logger import make_logger, raise_redacted
    from dtr_audit.aws.runs import RunsTable
    from dtr_audit.core.request import AuditRequest
    from dtr_audit.pipeline.audit import audit, count_connections
    from dtr_audit.settings import Settings

logger = make_logger()


@raise_redacted
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Make the run that the event asks for; gives the run record."""
    settings = Settings.from_environment(os.environ)
    clients = AwsClients(connections=count_connections(settings.concurrency))
    runs = RunsTable(clients.dynamodb, settings.runs_table, settings.registry)
    request = AuditRequest.from_event(event, now=datetime.now(UTC), earlier=runs.left_by(context.aws_request_id))
    logger.append_keys(registry=settings.registry, run_id=request.run_id)
    run = audit(
        settings,
        request,
        clients,
        owner=context.aws_request_id,
        seconds=context.get_remaining_time_in_millis() / 1000,
        now=lambda: datetime.now(UTC),
    )
    if run is None:
        logger.info("this run was finished before; nothing is done again")
        return {"run_id": request.run_id, "finished_before": True}
    metrics.emit(run)
    return run.as_dict()
