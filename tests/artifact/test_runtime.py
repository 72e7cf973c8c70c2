"""What the embedded runtime interface says of a function that gives no answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtr_audit_simulator.aws.runtime import Artifact, FunctionEndedError, FunctionError, InitError, LambdaProcess

FUNCTION = """
import os, time
def handler(event, context):
    if event == "exit":
        os._exit(3)
    if event == "sleep":
        time.sleep(60)
    if event == "raise":
        raise ValueError("no")
    return {"left": context.get_remaining_time_in_millis(), "request": context.aws_request_id, "got": event}
"""


@pytest.fixture
def function(artifact: Artifact, tmp_path: Path) -> Artifact:
    (tmp_path / "app.py").write_text(FUNCTION, encoding="utf-8")
    (tmp_path / "broken.py").write_text("raise RuntimeError('broken')\n", encoding="utf-8")
    return Artifact(tmp_path, artifact.layer)


def test_an_event_arrives_with_its_id_and_its_time_limit(function: Artifact) -> None:
    with LambdaProcess(function, "app.handler", {}) as process:
        answer = process.invoke({"text": "ü"}, seconds=700, request_id="mine")
    assert answer["got"] == {"text": "ü"}
    assert answer["request"] == "mine"
    assert 400_000 < answer["left"] <= 700_000


def test_a_function_that_ends_its_process_has_given_no_answer(function: Artifact) -> None:
    with (
        LambdaProcess(function, "app.handler", {}) as process,
        pytest.raises(FunctionEndedError, match="status 3"),
    ):
        process.invoke("exit")


def test_a_function_that_outlives_its_time_limit_is_ended(function: Artifact) -> None:
    with (
        LambdaProcess(function, "app.handler", {}) as process,
        pytest.raises(FunctionEndedError, match=r"no answer within 0\.5 s"),
    ):
        process.invoke("sleep", seconds=0.5)


def test_an_error_of_the_function_is_not_its_end(function: Artifact) -> None:
    with LambdaProcess(function, "app.handler", {}) as process:
        with pytest.raises(FunctionError, match="ValueError: no"):
            process.invoke("raise")
        assert process.invoke("again")["got"] == "again"


@pytest.mark.parametrize(("handler", "says"), [("nowhere.handler", "ImportModuleError"), ("broken.handler", "broken")])
def test_a_function_that_cannot_be_loaded_is_an_error_of_its_init(handler: str, says: str, function: Artifact) -> None:
    with pytest.raises(InitError, match=says), LambdaProcess(function, handler, {}):
        pass
