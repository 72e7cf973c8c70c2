"""A stand-in for AWS in a process of its own, and the registry of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.bench.stage import Stage


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage
