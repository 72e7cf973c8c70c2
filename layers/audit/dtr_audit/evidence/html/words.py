"""Numbers, times and names as people read them; times are UTC."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from dtr_audit.core.model import Verdict
from dtr_audit.core.run_record import Status
from dtr_audit.core.text import clean

NAME_LENGTH = 300  # of one name; a longer one is cut, and no command is given for it
REASON_LENGTH = 600
NOTHING = "\N{EN DASH}"

STATUS_WORDS = {
    Status.NOT_A_FINDING: "Not a finding",
    Status.OPEN: "Open",
    Status.NOT_REVIEWED: "Not reviewed",
}
VERDICT_WORDS = {
    Verdict.SIGNED: "signed",
    Verdict.UNSIGNED: "unsigned",
    Verdict.MISMATCHED: "overwritten",
    Verdict.UNTRUSTED: "untrusted",
    Verdict.UNKNOWN: "unknown",
}


def shorten(text: str) -> str:
    """Bound a name."""
    return clean(text, NAME_LENGTH)


def say_names(names: Sequence[str], shown: int = 5) -> str:
    """List names, the first of them."""
    named = [shorten(name) for name in names[:shown]]
    if len(names) > shown:
        named.append(f"{len(names) - shown:,} more")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def say_count(count: int, noun: str, plural: str = "") -> str:
    """Write a number of things."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def say_percent(percent: float) -> str:
    """Write a share; what is not all is never rounded up to 100, and what is not nothing never down to 0."""
    if percent in (0.0, 100.0):
        return f"{percent:.0f}%"
    return f"{min(max(percent, 0.01), 99.99):.{2 if percent > 99 or percent < 1 else 1}f}%"


def say_coverage(percent: float, *, complete: bool) -> str:
    """Write the share of the repositories that were read; all of an incomplete audit is no share."""
    return say_percent(percent) if complete or percent < 100 else NOTHING


def say_moment(time: datetime) -> str:
    """Write a time to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


def say_instant(text: str) -> str:
    """Write a time from a text, to the minute; a text that is no time stays as it is."""
    time = _parsed(text)
    return say_moment(time) if time else shorten(text)


def say_day(text: str) -> str:
    """Write the day of a time from a text; a text that is no time stays as it is."""
    time = _parsed(text)
    return f"{time:%Y-%m-%d}" if time else shorten(text)


def say_age(since: str, until: str) -> str:
    """Write how long something has lasted, both times from texts."""
    start, end = _parsed(since), _parsed(until)
    return say_days((end - start) / timedelta(days=1)) if start and end else ""


def say_days(days: float) -> str:
    """Write a number of days."""
    return "less than a day" if days < 1 else say_count(int(days), "day")


def say_duration(time: timedelta) -> str:
    """Write a short time, to the second."""
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _parsed(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
