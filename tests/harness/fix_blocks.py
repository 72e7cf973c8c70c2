"""The blocks of a printed fix: what people paste into a shell, one by one."""

import itertools
from collections.abc import Iterable


def blocks(lines: Iterable[str]) -> list[list[str]]:
    """Give the lines between comments."""
    grouped = itertools.groupby(lines, key=lambda line: line.startswith("#"))
    return [list(group) for is_comment, group in grouped if not is_comment]
