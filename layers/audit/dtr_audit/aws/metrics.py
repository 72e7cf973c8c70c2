"""A few stable numbers of each run, for alarms and dashboards (CloudWatch embedded metric format)."""

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit

from dtr_audit.core.run_record import Run, Status

NAMESPACE = "DtrSignatureAudit"


def emit(run: Run) -> None:
    """Write the run's numbers to the log, under the dimensions `registry` and `scope` (full | partial)."""
    metrics = Metrics(namespace=NAMESPACE, service="dtr-signature-audit")
    metrics.add_dimension(name="registry", value=run.registry)
    # A partial run, made by hand, must neither silence nor raise the alarms about whole ones.
    metrics.add_dimension(name="scope", value=str(run.scope))
    numbers: list[tuple[str, MetricUnit, float]] = [
        ("RepositoriesAudited", MetricUnit.Count, run.repositories.audited),
        ("TagsAudited", MetricUnit.Count, run.tags.audited),
        ("TagsUnsigned", MetricUnit.Count, run.tags.failed),
        ("TagsUnknown", MetricUnit.Count, run.tags.unknown),
        ("FindingsOpen", MetricUnit.Count, run.findings.open),
        ("OldestFindingDays", MetricUnit.Count, run.oldest_open_days),
        ("Coverage", MetricUnit.Percent, run.coverage_percent),
        ("Duration", MetricUnit.Seconds, run.duration_seconds),
        ("RunCompleted", MetricUnit.Count, int(run.complete)),
        ("Passed", MetricUnit.Count, int(run.status is Status.NOT_A_FINDING)),
    ]
    if run.complete:
        # What was left unread is told by RunCompleted; it says nothing about the registry's size.
        numbers.append(("SizeAgainstLastRun", MetricUnit.Percent, run.size_percent))
    if run.security_hub is not None:
        numbers.append(("SecurityHubUpToDate", MetricUnit.Count, int(run.security_hub.up_to_date)))
    for name, unit, value in numbers:
        metrics.add_metric(name=name, unit=unit, value=value)
    metrics.flush_metrics()
