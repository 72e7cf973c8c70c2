"""What a test needs of the machine: where it is missing, the test is skipped by name, or fails in CI."""

import os
from collections.abc import Sequence

import pytest


def require(missing: Sequence[str]) -> None:
    """Skip the test if anything is missing; with REQUIRE_REAL=1, which CI sets, fail it: nothing is skipped there unnoticed."""
    if not missing:
        return
    text = f"missing, or not able to do what is needed: {', '.join(missing)}"
    if os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(f"REQUIRE_REAL=1, but {text}", pytrace=False)
    pytest.skip(text)
