"""The time that an audit goes by, in the hands of a test."""

import time

from dtr_audit.pipeline.audit import REPORT_SECONDS

# Waits for a registry that does not answer, in seconds, where no test lasts as long as in production.
IMPATIENT = {
    "http.transport.BACKOFF_SECONDS": 0.001,
    "http.retry.FIRST_WAIT_SECONDS": 0.001,
    "http.retry.PATIENCE_SECONDS": 0.004,
    "pipeline.scanner.SECOND_PASS_SECONDS": 0.0,
    "pipeline.recent_pushes.RECENT_SECONDS": 0.0,
}


class FakeClock:
    """It stands still until the test lets the time for reading be over."""

    SECONDS = 600.0

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run_out(self) -> None:
        self.now += self.SECONDS - REPORT_SECONDS + 1.0
