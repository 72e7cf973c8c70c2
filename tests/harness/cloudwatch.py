"""CloudWatch's rules for metrics and alarms, as far as the template uses them.

Metrics come from the log lines of real runs (embedded metric format). An alarm is evaluated every minute over windows that
end at that minute. Where data is missing, the rules are those of CloudWatch's documentation ("Configuring how CloudWatch
alarms treat missing data"): it looks at some periods more than it was told to, how many more it does not promise. Hence
`looks_back`: what a test claims must hold for 0 and for more.
"""

from __future__ import annotations

import ast
import json
import operator
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MINUTE = 60
HOUR = 60 * MINUTE


class AlarmState(StrEnum):
    """What an alarm shows."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class Series:
    """One metric under one set of dimensions: another set is another metric."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Series:
        """Read what an alarm says of its metric."""
        dimensions = frozenset((each["Name"], json.dumps(each["Value"])) for each in described["Dimensions"])
        return cls(described["Namespace"], described["MetricName"], dimensions)


class Metrics:
    """What CloudWatch has been told; times are seconds from any moment on."""

    def __init__(self) -> None:
        self._points: dict[Series, list[tuple[float, float]]] = defaultdict(list)

    @property
    def series(self) -> set[Series]:
        """Every metric that was ever told."""
        return set(self._points)

    def put(self, series: Series, value: float, *, at: float) -> None:
        """Tell one number."""
        self._points[series].append((at, value))

    def read(self, log: str, *, at: float) -> int:
        """Take the metrics out of a function's log, as if it had been written then; gives the number of lines with metrics."""
        lines = 0
        for line in log.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if not isinstance(record, dict) or "_aws" not in record:
                continue
            lines += 1
            for directive in record["_aws"]["CloudWatchMetrics"]:
                for names in directive["Dimensions"]:
                    dimensions = frozenset((name, json.dumps(record[name])) for name in names)
                    for metric in directive["Metrics"]:
                        series = Series(directive["Namespace"], metric["Name"], dimensions)
                        for value in record[metric["Name"]]:
                            self.put(series, value, at=at)
        return lines

    def statistic(self, series: Series, name: str, *, after: float, until: float) -> float | None:
        """Give a statistic over `after` < time <= `until`; None where nothing was told."""
        values = [value for at, value in self._points.get(series, ()) if after < at <= until]
        return _STATISTICS[name](values) if values else None


class Alarm:
    """An alarm as the template describes it, all conditions resolved."""

    def __init__(self, properties: Mapping[str, Any], *, looks_back: int = 0) -> None:
        assert "DatapointsToAlarm" not in properties, "M out of N is not read here"
        self.state = AlarmState.INSUFFICIENT_DATA
        self._breaches = _COMPARISONS[properties["ComparisonOperator"]]
        self._threshold = float(properties["Threshold"])
        self._periods = int(properties["EvaluationPeriods"])
        self._missing = properties["TreatMissingData"]
        self._looks_back = looks_back
        queries = properties.get("Metrics") or [
            {
                "Id": "watched",
                "MetricStat": {"Metric": properties, "Period": properties["Period"], "Stat": properties["Statistic"]},
            }
        ]
        statistics = {query["Id"]: query["MetricStat"] for query in queries if "MetricStat" in query}
        self._inputs = {name: (Series.of(each["Metric"]), str(each["Stat"])) for name, each in statistics.items()}
        (watched,) = [query for query in queries if query.get("ReturnData", True)]
        self._expression = ast.parse(watched.get("Expression", watched["Id"]), mode="eval").body
        (self.period,) = {int(statistic["Period"]) for statistic in statistics.values()}

    @property
    def watched(self) -> set[Series]:
        """The metrics it is computed from."""
        return {series for series, _ in self._inputs.values()}

    def evaluate(self, metrics: Metrics, *, at: float) -> None:
        """Look at the periods that end now."""
        values = (
            self._value(metrics, until=at - number * self.period) for number in range(self._periods + self._looks_back)
        )
        real = [value for value in values if value is not None][: self._periods]
        within = [value for value in real if not self._breaches(value, self._threshold)]
        if within:
            self.state = AlarmState.OK
        elif len(real) == self._periods or self._missing == "breaching":
            self.state = AlarmState.ALARM
        elif self._missing == "notBreaching":
            self.state = AlarmState.OK
        elif self._missing == "missing":
            self.state = AlarmState.ALARM if real else AlarmState.INSUFFICIENT_DATA
        else:
            assert self._missing == "ignore"

    def _value(self, metrics: Metrics, *, until: float) -> float | None:
        known = {
            name: metrics.statistic(series, statistic, after=until - self.period, until=until)
            for name, (series, statistic) in self._inputs.items()
        }
        if None in known.values():
            return None
        return _compute(self._expression, {name: value for name, value in known.items() if value is not None})


def _compute(node: ast.expr, known: Mapping[str, float]) -> float:
    """Work out what metric math the template uses."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_compute(left, known), _compute(right, known))
        case ast.Name(id=name):
            return known[name]
        case ast.Constant(value=int() | float() as number):
            return float(number)
    raise ValueError(f"Metric math with {ast.dump(node)} is not read here.")


_STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {"Sum": sum, "Minimum": min, "Maximum": max}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanOrEqualToThreshold": operator.le,
    "LessThanThreshold": operator.lt,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
