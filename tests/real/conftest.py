"""A registry of real parts for the tests marked `real`.

Where programs are missing such a test is skipped, naming them; with REQUIRE_REAL=1 in the environment, which CI sets,
it fails instead, so that it can never be skipped there unnoticed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.harness.requirement import require
from tests.real.lab.parts import DOCKER, REGISTRY_PARTS, missing_parts
from tests.real.lab.proxy import TamperingProxy
from tests.real.lab.registry import RealRegistry
from tests.real.trust_attacks import Stage, set_stage

INSTALL = "apt-get install docker-registry notary skopeo nginx docker.io"
_NAMESPACES = itertools.count(1)


@pytest.fixture(scope="session")
def real_parts() -> None:
    """What a `RealRegistry` needs is installed."""
    require(missing_parts(REGISTRY_PARTS), INSTALL)


@pytest.fixture(scope="session")
def docker_trust() -> None:
    """Docker's client is installed and has `docker trust`."""
    require(missing_parts([DOCKER]), INSTALL)


@pytest.fixture(scope="session")
def real_registry(real_parts: None) -> Iterator[RealRegistry]:
    """One registry for all tests: each uses a namespace of its own."""
    with RealRegistry() as registry:
        yield registry


@pytest.fixture
def namespace() -> str:
    return f"team-{next(_NAMESPACES)}"


@pytest.fixture(scope="session")
def session_stage(real_registry: RealRegistry) -> Iterator[Stage]:
    """One stage for all attacks, which takes seconds to set."""
    with TamperingProxy(real_registry) as proxy:
        yield set_stage(real_registry, proxy, "stage")


@pytest.fixture
def stage(session_stage: Stage) -> Iterator[Stage]:
    """The stage, with nobody in the way yet and nobody left there."""
    yield session_stage
    session_stage.proxy.behave()
