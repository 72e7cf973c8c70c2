"""The parts of a notification's text: the status, an exception, a count, a list."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from dtr_audit.core.finding import Excepted
from dtr_audit.core.run_record import Run, Status
from dtr_audit.core.text import clean

LINES_SHOWN = 10  # of reasons and of warnings
LINE_LENGTH = 500


def describe_status(run: Run) -> str:
    """Give a run's status in words."""
    answer = {
        Status.NOT_A_FINDING: "every image tag is signed",
        Status.OPEN: "there are image tags that are not signed" + (" or not trusted" if run.tags.untrusted else "")
        if run.tags.failed
        else "findings of earlier runs are still open",
        Status.NOT_REVIEWED: "the rule could not be answered",
    }[run.status]
    if run.is_empty:
        answer = "the registry is empty"
    elif run.namespaces and run.complete and run.status is Status.NOT_REVIEWED:
        answer = "every image tag in the namespaces looked at is signed"
    return f"{run.status} - {answer}"


def write_exception(excepted: Excepted | None) -> dict[str, str] | None:
    """Give an exception as a message's JSON has it; None where there is none."""
    if excepted is None:
        return None
    return {
        "id": excepted.exception_id,
        "owner": excepted.owner,
        "reason": excepted.reason,
        "reference": excepted.reference,
        "ends": excepted.ends,
    }


def describe_exception(item: Mapping[str, Any]) -> str:
    """Say which exception covers a finding, or covered it."""
    exception = item["exception"]
    reference = f", {exception['reference']}" if exception["reference"] else ""
    reported = f"{exception['id']} of {exception['owner']}{reference}"
    if item["resolution"]:
        return f"{item['resolution']}: {reported}, to {exception['ends']}"
    return f"excepted to {exception['ends']} by {reported}: {exception['reason']}"


def count_words(number: int, one: str, many: str) -> str:
    """Give a number with what is counted, in the singular or the plural."""
    return f"{number} {one if number == 1 else many}"


def shorten_list(texts: Sequence[str]) -> list[str]:
    """Give the first texts of a list, each of them shortened, and how many more there are."""
    lines = [clean(text, LINE_LENGTH) for text in texts[:LINES_SHOWN]]
    return lines if len(texts) <= LINES_SHOWN else [*lines, f"and {len(texts) - LINES_SHOWN} more: see the run record"]


def namespace_of(repository: str) -> str:
    """Give the namespace of `namespace/name`."""
    return repository.partition("/")[0]


def make_id(*parts: str) -> str:
    """Make an id that is the same whenever the same news is told again."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
