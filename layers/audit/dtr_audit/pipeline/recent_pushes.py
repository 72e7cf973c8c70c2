"""Tags that were pushed while the registry was read."""

import time
from datetime import datetime

from dtr_audit.core.model import (
    JudgedTag,
    PassingFault,
    Repository,
    Verdict,
)
from dtr_audit.pipeline.scan import Scanned

# A push sends the image first and signs it some seconds later. So what was pushed so recently and is not signed ...
RECENT_SECONDS = 600.0
# ... is read once more, so long after it was read first ...
SIGNING_SECONDS = 60.0
# ... unless the repositories that wait for it have more tags than this: their first readings are kept, about 1 KB for each tag.
WAITING_TAGS = 5_000


class RecentPushes:
    """First readings of repositories with a tag that was pushed recently and is not signed: its signature may be on the way."""

    def __init__(self) -> None:
        self.held: dict[Repository, Scanned] = {}
        self._tags = 0
        self._held_at = 0.0  # the last one, on time.monotonic()

    def hold(self, scanned: Scanned, now: datetime) -> bool:
        """Keep a reading if such a tag is in it and there is room; tells whether it is kept."""
        reading = scanned.reading
        if self._tags + len(reading.tags) > WAITING_TAGS or not any(_is_recent(one, now) for one in reading.tags):
            return False
        self.held[reading.repository] = scanned
        self._tags += len(reading.tags)
        self._held_at = time.monotonic()
        return True

    def faults(self) -> dict[Repository, PassingFault]:
        """Give why each of them is to be read again, and after how many seconds."""
        seconds = max(0.0, self._held_at + SIGNING_SECONDS - time.monotonic())
        fault = PassingFault("a tag was pushed recently and is not signed: its signature may be on the way", seconds)
        return dict.fromkeys(self.held, fault)


def _is_recent(judged: JudgedTag, now: datetime) -> bool:
    """Tell whether a tag was pushed recently and is not signed, by the registry's clock, which may be ahead of this one."""
    if judged.verdict not in {Verdict.UNSIGNED, Verdict.MISMATCHED}:
        return False
    try:
        pushed_at = datetime.fromisoformat(judged.tag.pushed_at)
        return abs((now - pushed_at).total_seconds()) < RECENT_SECONDS
    except (ValueError, TypeError, OverflowError):
        return False  # no time, or one without a zone
