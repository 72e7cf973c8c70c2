"""The history that the queries are asked about, made once for all their tests."""

import pytest

from dtr_audit_simulator.aws.stack import Stack
from tests.harness.stack_state import StackState
from tests.queries.history import History, make_history


@pytest.fixture(scope="session")
def history(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> History:
    before = StackState.take(stack)
    history = make_history(stack, tmp_path_factory.mktemp("history"))
    before.restore()  # the queries read the files, and each later test would pay for what is stored
    return history
