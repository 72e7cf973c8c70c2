"""The trend over the last runs, as a drawing that claims no more than the runs have shown.

A line joins two runs only if both were complete and none is missing in between.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

from dtr_audit.evidence.html.markup import Markup, element, join
from dtr_audit.evidence.report import TrendPoint

WIDTH, HEIGHT = 880, 190  # in units of the drawing
LEFT, RIGHT, TOP, BOTTOM = 52, 62, 14, 26  # margins, for the labels
TICKS = 5
# The schedule is not in the records, so it is read off the runs. Two runs by hand on one day do not make it hourly.
USUAL_AT_LEAST = timedelta(days=1)
GAP = 1.5  # times the usual interval: longer, and a run is missing
GAP_LABEL_WIDTH = 46


def draw(points: Sequence[TrendPoint]) -> Markup:
    """Draw the open findings after each run, oldest first; there must be two runs at least."""
    times = [_time(point) for point in points]
    plot = _Plot(times[0], times[-1], _ceiling(max(point.open for point in points)))
    usual = max(median(_seconds(b - a) for a, b in pairwise(times)), _seconds(USUAL_AT_LEAST))
    gaps = [(a, b) for a, b in pairwise(times) if _seconds(b - a) > GAP * usual]
    starts = {start for start, _ in gaps}
    joined = [
        (a, b)
        for (a, since), (b, _) in pairwise(zip(points, times, strict=True))
        if a.complete and b.complete and since not in starts
    ]
    return element(
        "svg",
        element("title", "Open findings after each run", id="trend-title"),
        element("desc", _description(points, len(gaps)), id="trend-description"),
        *(_gap(plot, start, end) for start, end in gaps),
        *_axes(plot),
        *(
            element(
                "line", x1=plot.x(_time(a)), y1=plot.y(a.open), x2=plot.x(_time(b)), y2=plot.y(b.open), class_="curve"
            )
            for a, b in joined
        ),
        *(_dot(plot, point) for point in points),
        element("text", f"{points[-1].open:,}", x=plot.x(times[-1]) + 9, y=plot.y(points[-1].open) + 4, class_="last"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby="trend-title trend-description",
        class_="trend",
    )


class _Plot:
    """Where times and counts lie in the drawing; coordinates are whole numbers."""

    def __init__(self, first: datetime, last: datetime, top: int) -> None:
        self.first = first
        self.span = last - first
        self.top = top

    def x(self, time: datetime) -> int:
        share = (time - self.first) / self.span if self.span else 1.0
        return round(LEFT + share * (WIDTH - LEFT - RIGHT))

    def y(self, count: int) -> int:
        return round(HEIGHT - BOTTOM - count / self.top * (HEIGHT - TOP - BOTTOM))


def _axes(plot: _Plot) -> list[Markup]:
    parts = []
    for count in sorted({0, plot.top // 2, plot.top}):
        y = plot.y(count)
        parts.append(element("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="grid"))
        parts.append(element("text", f"{count:,}", x=LEFT - 8, y=y + 4, class_="count"))
    days = min(TICKS, plot.span.days + 1)
    for tick in range(days):
        time = plot.first + plot.span * (tick / max(days - 1, 1))
        parts.append(element("text", f"{time:%Y-%m-%d}", x=plot.x(time), y=HEIGHT - 7, class_="day"))
    return parts


def _gap(plot: _Plot, start: datetime, end: datetime) -> Markup:
    left, right = plot.x(start) + 6, plot.x(end) - 6
    width = max(right - left, 2)
    label = [element("text", "no run", x=(left + right) // 2, y=TOP + 14, class_="day")]
    return join(
        [
            element("rect", x=left, y=TOP, width=width, height=HEIGHT - TOP - BOTTOM, class_="gap"),
            *(label if width >= GAP_LABEL_WIDTH else ()),
        ]
    )


def _dot(plot: _Plot, point: TrendPoint) -> Markup:
    what = (
        f"{point.open:,} open" if point.complete else f"{point.open:,} open as far as known; the run was not complete"
    )
    return element(
        "circle",
        element("title", f"{_time(point):%Y-%m-%d %H:%M} UTC: {what}"),
        cx=plot.x(_time(point)),
        cy=plot.y(point.open),
        r=3 if point.complete else 4,
        class_="complete" if point.complete else "incomplete",
    )


def _description(points: Sequence[TrendPoint], gaps: int) -> str:
    incomplete = sum(not point.complete for point in points)
    return (
        f"{len(points)} runs from {_time(points[0]):%Y-%m-%d} to {_time(points[-1]):%Y-%m-%d}: {points[0].open:,} open findings "
        f"after the first, {points[-1].open:,} after the last; {incomplete} not complete, {gaps} times no run for longer than "
        "usual. The table below has the numbers."
    )


def _ceiling(count: int) -> int:
    """Give a round, even number that is not below the count."""
    step = int(10 ** math.floor(math.log10(max(count, 1))))
    return max(2, next(factor * step for factor in (1, 2, 3, 4, 6, 8, 10) if factor * step >= count))


def _time(point: TrendPoint) -> datetime:
    return datetime.fromisoformat(point.finished_at).astimezone(UTC)


def _seconds(interval: timedelta) -> float:
    return interval.total_seconds()
