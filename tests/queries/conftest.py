"""The history that the queries are asked about, made once for all their tests."""

import pytest

from local.stack import Stack
from tests.queries.history import History, make_history
from tests.stack_state import StackState


@pytest.fixture(scope="session")
def history(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> History:
    before = StackState.take(stack)
    history = make_history(stack, tmp_path_factory.mktemp("history"))
    before.restore()  # the queries read the files, and each later test would pay for what is stored
    return history
