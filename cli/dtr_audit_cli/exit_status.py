"""What a command's exit status says, to people and to pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitStatus(IntEnum):
    """The statuses; only 0 is a pass of the whole registry."""

    NOTHING_FOUND = 0
    FINDINGS_OPEN = 1
    NOT_COMPLETED = 2
    NOTHING_FOUND_IN_PART = 3
    INTERRUPTED = 130  # 128 and SIGINT, as shells say it

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> ExitStatus:
        """Give the status for a run record.

        A run that is not complete ends in 2 even if findings are open: a pipeline that tolerates findings (1) must still stop
        where something was not read. A partial run that is complete in its scope and found nothing ends in 3, as it answers
        nothing for the rest of the registry.
        """
        if not run["complete"]:
            return cls.NOT_COMPLETED
        if run["status"] == "NOT_REVIEWED":
            return cls.NOTHING_FOUND_IN_PART if run["scope"] == "partial" else cls.NOT_COMPLETED
        return cls.NOTHING_FOUND if run["status"] == "NOT_A_FINDING" else cls.FINDINGS_OPEN

    def formatted(self) -> str:
        """Say it in words."""
        return {
            ExitStatus.NOTHING_FOUND: "complete, and nothing found",
            ExitStatus.FINDINGS_OPEN: "complete, and there are findings",
            ExitStatus.NOT_COMPLETED: "not everything in the registry was read, so nobody can rely on this",
            ExitStatus.NOTHING_FOUND_IN_PART: "complete for the namespaces that were asked for, and nothing found in them",
            ExitStatus.INTERRUPTED: "interrupted",
        }[self]
