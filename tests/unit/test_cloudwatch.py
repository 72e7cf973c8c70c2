"""The tests' own reading of CloudWatch, against the examples of its documentation."""

import json

import pytest

from tests.harness.cloudwatch import MINUTE, Alarm, AlarmState, Metrics, Series

SERIES = Series("N", "m", frozenset())
ALARM = {
    "Namespace": "N",
    "MetricName": "m",
    "Dimensions": [],
    "Statistic": "Maximum",
    "Period": MINUTE,
    "EvaluationPeriods": 3,
    "Threshold": 1,
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
}
# The documentation's table for three periods: X breaches, 0 does not, - is missing. It looks at five of them.
DOCUMENTED = [
    ("0-X-X", {"missing": "OK", "ignore": "OK", "breaching": "OK", "notBreaching": "OK"}),
    ("----0", {"missing": "OK", "ignore": "OK", "breaching": "OK", "notBreaching": "OK"}),
    ("-----", {"missing": "INSUFFICIENT_DATA", "ignore": "kept", "breaching": "ALARM", "notBreaching": "OK"}),
    ("0XX-X", {"missing": "ALARM", "ignore": "ALARM", "breaching": "ALARM", "notBreaching": "ALARM"}),
    ("--X--", {"missing": "ALARM", "ignore": "kept", "breaching": "ALARM", "notBreaching": "OK"}),
]


@pytest.mark.parametrize(("points", "expected"), DOCUMENTED)
@pytest.mark.parametrize("before", AlarmState)
def test_missing_data_is_read_as_documented(points: str, expected: dict[str, str], before: AlarmState) -> None:
    metrics = Metrics()
    for number, point in enumerate(points, start=1):
        if point != "-":
            metrics.put(SERIES, float(point == "X"), at=number * MINUTE)
    for treatment, state in expected.items():
        alarm = Alarm({**ALARM, "TreatMissingData": treatment}, looks_back=2)
        alarm.state = before
        alarm.evaluate(metrics, at=len(points) * MINUTE)
        assert alarm.state == (before if state == "kept" else state), treatment


def test_windows_slide_with_the_minutes() -> None:
    metrics = Metrics()
    metrics.put(SERIES, 1.0, at=7 * MINUTE)
    alarm = Alarm({**ALARM, "Period": 5 * MINUTE, "EvaluationPeriods": 1, "TreatMissingData": "notBreaching"})
    states = []
    for minute in range(5, 14):
        alarm.evaluate(metrics, at=minute * MINUTE)
        states.append(alarm.state == "ALARM")
    assert states == [False, False, True, True, True, True, True, False, False]


def test_an_expression_is_missing_where_its_metric_is() -> None:
    statistic = {"Metric": ALARM, "Stat": "Sum", "Period": MINUTE}
    queries = [
        {"Id": "e", "Expression": "100 - 2 * (m1 + 1) / 4"},
        {"Id": "m1", "MetricStat": statistic, "ReturnData": False},
    ]
    metrics = Metrics()
    metrics.put(SERIES, 100.0, at=MINUTE)
    metrics.put(SERIES, 99.0, at=MINUTE)
    properties = {**ALARM, "EvaluationPeriods": 1, "TreatMissingData": "missing", "Metrics": queries}
    at_threshold, above = Alarm({**properties, "Threshold": 0}), Alarm({**properties, "Threshold": 0.5})
    at_threshold.evaluate(metrics, at=MINUTE)
    above.evaluate(metrics, at=MINUTE)
    assert (at_threshold.state, above.state) == ("ALARM", "OK")
    at_threshold.evaluate(metrics, at=3 * MINUTE)
    assert at_threshold.state == "INSUFFICIENT_DATA"


def test_metrics_are_read_from_a_log_and_other_lines_are_not() -> None:
    directive = {"Namespace": "N", "Dimensions": [["a", "b"]], "Metrics": [{"Name": "m", "Unit": "Count"}]}
    line = json.dumps({"_aws": {"CloudWatchMetrics": [directive]}, "a": "1", "b": "2", "m": [5.0]})
    metrics = Metrics()
    assert metrics.read(f'no json\n{{"level": "INFO"}}\n[1]\n{line}\n', at=1) == 1
    series = Series("N", "m", frozenset({("a", '"1"'), ("b", '"2"')}))
    assert metrics.series == {series}
    assert metrics.statistic(series, "Sum", after=0, until=1) == 5.0
    assert metrics.statistic(series, "Sum", after=1, until=2) is None
