"""A few stable numbers of each run, for alarms and dashboards (CloudWatch embedded metric format)."""

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit

from .model import Run

NAMESPACE = "DtrSignatureAudit"


def emit(run: Run) -> None:
    """Write the run's numbers to the log, under the dimension `registry`."""
    metrics = Metrics(namespace=NAMESPACE, service="dtr-signature-audit")
    metrics.add_dimension(name="registry", value=run.registry)
    for name, unit, value in (
        ("RepositoriesAudited", MetricUnit.Count, run.repositories.audited),
        ("TagsAudited", MetricUnit.Count, run.tags.audited),
        ("TagsUnsigned", MetricUnit.Count, run.tags.failed),
        ("TagsUnknown", MetricUnit.Count, run.tags.unknown),
        ("FindingsOpen", MetricUnit.Count, run.findings.open),
        ("Coverage", MetricUnit.Percent, run.coverage_percent),
        ("Duration", MetricUnit.Seconds, run.duration_seconds),
        ("RunCompleted", MetricUnit.Count, int(run.complete)),
    ):
        metrics.add_metric(name=name, unit=unit, value=value)
    metrics.flush_metrics()
