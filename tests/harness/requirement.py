"""What a test needs of the machine: where it is missing, the test is skipped by name, or fails in CI."""

import os
from collections.abc import Sequence

import pytest

TO_RUN = "; to run it: "


def require(missing: Sequence[str], command: str) -> None:
    """Skip the test if anything is missing, and name the command that would run it.

    With REQUIRE_REAL=1, which CI sets, the test fails: nothing is skipped there unnoticed.
    """
    if not missing:
        return
    text = f"missing, or not able to do what is needed: {', '.join(missing)}{TO_RUN}{command}"
    if os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(f"REQUIRE_REAL=1, but {text}", pytrace=False)
    pytest.skip(text)
