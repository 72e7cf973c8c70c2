"""What it costs to keep secrets out of what leaves the process: processor time by tag and by text, beside the whole audit.

Nothing is found here, as nearly always: what is timed is the search, in this process, on one thread. The audit beside it is the
function's own, of the same number of tags.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import statistics
import tracemalloc
from typing import Any

from dtr_audit.core.model import Tag
from dtr_audit.core.readings import TagReading
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.registry.parsing import remove_secrets
from tools.bench import results
from tools.bench.registry import Shape
from tools.bench.stage import Stage
from tools.bench.trust import processor_seconds

TITLE = "Keeping secrets out, of what holds none"
SHAPE = Shape(300, 200)
TOKENS = (0, 1, 100)  # known beside the password and the pair of HTTP Basic
TOKEN_BYTES = 450  # before they are written as text: 600 characters
TEXT_BYTES = 1_000_000
GOAL = 0.05  # of the audit's processor time


def measure(repetitions: int) -> dict[str, Any]:
    """Measure with several numbers of secrets."""
    audit = _audit_milliseconds()
    try:
        known = [_measure(tokens, repetitions, audit) for tokens in TOKENS]
    finally:
        REDACTOR.forget()
    goals = {f"share of the audit, tokens: {one['tokens']}": one["goal"] for one in known}
    return {"audit_milliseconds": audit, "known": known, "goals": goals}


def tables(numbers: results.Numbers) -> list[results.Table]:
    """Tabulate the numbers of secrets."""
    return [
        results.Table.of(
            ("tokens", "1 000 tags", "of the audit", "a megabyte of text", "memory", f"goal {GOAL}"),
            [
                (
                    f"{one['tokens']}",
                    f"{one['tags_milliseconds']:.2f} ms",
                    f"{100 * one['goal']['ratio']:.1f} %",
                    f"{one['text_milliseconds']:.1f} ms",
                    f"{one['memory_bytes'] / 1e6:.1f} MB",
                    results.verdict(one["goal"]),
                )
                for one in numbers["known"]
            ],
        )
    ]


def _audit_milliseconds() -> float:
    """Give the processor time of an audit, by 1 000 tags, without what it takes of an empty registry."""
    with Stage() as stage:
        stage.hold(Shape(1, 1))
        fixed = stage.audit().processor_seconds
        stage.hold(SHAPE)
        return 1e6 * (stage.audit().processor_seconds - fixed) / SHAPE.all_tags


def _measure(tokens: int, repetitions: int, audit: float) -> dict[str, Any]:
    REDACTOR.forget()
    tracemalloc.start()
    REDACTOR.learn_password("auditor", secrets.token_urlsafe(18))
    for _ in range(tokens):
        REDACTOR.learn_token(secrets.token_urlsafe(TOKEN_BYTES))
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reading = TagReading({tag.name: tag for tag in map(_tag, range(SHAPE.tags))})
    text = base64.b64encode(secrets.token_bytes(TEXT_BYTES)).decode()[:TEXT_BYTES]

    def milliseconds(work: Any) -> float:
        return 1_000 * statistics.median(processor_seconds(work) for _ in range(repetitions))

    tags = milliseconds(lambda: remove_secrets(reading)) * 1_000 / SHAPE.tags
    return {
        "tokens": tokens,
        "tags_milliseconds": tags,
        "text_milliseconds": milliseconds(lambda: REDACTOR.redact(text)),
        "memory_bytes": memory,
        "goal": results.goal(tags / audit, at_most=GOAL),
    }


def _tag(number: int) -> Tag:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Tag(
        f"1.0.{number}",
        f"sha256:{digest}",
        f"00000000-0000-4000-8000-{number % 7:012}",
        f"2026-11-{1 + number % 28:02}T03:00:00.000Z",
        "application/vnd.docker.distribution.manifest.v2+json",
        False,
        (),
    )
