"""The history that the queries are asked about, made once for all their tests."""

import pytest

from local.stack import Stack
from tests.queries.history import History, make_history


@pytest.fixture(scope="session")
def history(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> History:
    return make_history(stack, tmp_path_factory.mktemp("history"))
