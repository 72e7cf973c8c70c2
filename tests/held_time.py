"""The time that an audit goes by, in the hands of a test."""

import time

from dtr_audit.audit import REPORT_SECONDS


class HeldTime:
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
