"""A registry of real parts for the tests marked `real`.

Where programs are missing such a test is skipped, naming them; with REQUIRE_REAL=1 in the environment, which CI sets,
it fails instead, so that it can never be skipped there unnoticed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator

import pytest

from local.real.parts import DOCKER, REGISTRY_PARTS, Part, missing_parts
from local.real.registry import RealRegistry

_NAMESPACES = itertools.count(1)


def _require(parts: Iterable[Part]) -> None:
    if missing := missing_parts(parts):
        text = f"not installed, or not able to do what is needed: {', '.join(missing)}"
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, but {text}", pytrace=False)
        pytest.skip(text)


@pytest.fixture(scope="session")
def real_parts() -> None:
    """What a `RealRegistry` needs is installed."""
    _require(REGISTRY_PARTS)


@pytest.fixture(scope="session")
def docker_trust() -> None:
    """Docker's client is installed and has `docker trust`."""
    _require([DOCKER])


@pytest.fixture(scope="session")
def real_registry(real_parts: None) -> Iterator[RealRegistry]:
    """One registry for all tests: each uses a namespace of its own."""
    with RealRegistry() as registry:
        yield registry


@pytest.fixture
def namespace() -> str:
    return f"team-{next(_NAMESPACES)}"
