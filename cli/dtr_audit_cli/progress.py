"""How far an audit on this machine is: a column of a progress bar, or lines for a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.progress import ProgressColumn, Task
from rich.text import Text

from dtr_audit_simulator.aws.function_log import Record

LINES_ELSEWHERE = 10.0  # seconds between two lines of progress where there is no terminal


class DoneColumn(ProgressColumn):
    """How much has been read, of what is listed so far: the list is read as it is worked off."""

    def render(self, task: Task) -> Text:
        """Show what is done, and what is listed so far."""
        if task.total is None:
            return Text("connecting")
        done = f"{task.completed:.0f} of {task.total:.0f} listed repositories, {task.fields['tags']} tags"
        return Text(done, no_wrap=True)


class ProgressLines:
    """Progress for a file or a pipe: a line now and then."""

    def __init__(self, say: Callable[[str], None], text: str) -> None:
        self._say = say
        self._text = text
        self._reported_at = time.monotonic()
        say(f"{text} …")

    def __call__(self, record: Record) -> None:
        """Say how far the run is, if the last line is old enough."""
        if "examined" in record and time.monotonic() - self._reported_at >= LINES_ELSEWHERE:
            self._reported_at = time.monotonic()
            self._say(
                f"{self._text}: {record['examined']} of {record['listed']} listed repositories, {record['tags']} tags"
            )
