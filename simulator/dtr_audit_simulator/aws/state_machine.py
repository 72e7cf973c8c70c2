"""Step Functions in this process: a stack's machine in moto's interpreter, its functions in the stack's own handlers.

    execution = stack.execute("AuditStateMachine", {"scheduled_time": "2026-11-22T03:00:00Z"}, invoke_step)
    execution.status, execution.output

Importing this module is all it takes for moto to interpret machines rather than to keep their definitions. What the interpreter
would ask of Lambda is asked of the caller's own function. A Distributed Map really asks for its list in S3 and hands each item
on, as AWS does, but one function runs at a time: they share this process's environment. The waits between two attempts are
left out. moto's map tolerates every failure of an item, and knows nothing of redriving: `redrive` does what AWS would.
"""

from __future__ import annotations

import copy
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from moto.core.config import default_user_config
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.backend.execution import Execution as Interpreted
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from dtr_audit_simulator.aws.execution import Execution, StackOfMachines, Step

_POLL = 0.02  # seconds

_steps: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # by the function's ARN
_permit = threading.Lock()


def execute(stack: StackOfMachines, logical_id: str, event: dict[str, Any], step: Step) -> Execution:
    """Start an execution of a machine, wait for its end, and give that."""
    with _answering(stack, step):
        started = stack.steps.start_execution(
            stateMachineArn=stack.physical_id(logical_id), name=str(uuid4()), input=json.dumps(event)
        )
        return _end(_find(stack, logical_id, started["executionArn"]))


def redrive(stack: StackOfMachines, logical_id: str, execution: Execution, step: Step) -> Execution:
    """Run an execution that did not succeed once more: from the state in which it ended, with that state's input."""
    past = _find(stack, logical_id, execution.arn)
    state, given = execution.entered[-1]
    machine = copy.copy(past.state_machine)
    definition = json.loads(machine.definition)
    definition["States"]["Redriven"] = {"Type": "Pass", "Result": given, "Next": state}
    machine.definition = json.dumps({**definition, "StartAt": "Redriven"})
    again = Interpreted(
        name=past.name,
        sm_type=past.sm_type,
        role_arn=past.role_arn,
        exec_arn=past.exec_arn,
        account_id=past.account_id,
        region_name=past.region_name,
        state_machine=machine,
        start_date=past.start_date,
        cloud_watch_logging_session=None,
        activity_store={},
        input_data=past.execution_input,
    )
    with _answering(stack, step):
        again.start()
        return _end(again)


@contextmanager
def _answering(stack: StackOfMachines, step: Step) -> Iterator[None]:
    """Let the interpreter reach the stack's functions."""
    functions = stack.function_arns()
    _steps.update({arn: partial(step, logical_id) for logical_id, arn in functions.items()})
    try:
        yield
    finally:
        for arn in functions.values():
            del _steps[arn]


def _find(stack: StackOfMachines, logical_id: str, arn: str) -> Any:
    machine = stack.physical_id(logical_id)
    account = machine.split(":")[4]
    backend = stepfunctions_parser_backends[account][stack.region]
    executions: list[Any] = backend.describe_state_machine(machine).executions
    (found,) = [one for one in executions if one.exec_arn == arn]
    return found


def _end(execution: Any) -> Execution:
    """Wait for the end of an execution."""
    while execution.status == "RUNNING":
        time.sleep(_POLL)
    entered = [
        (details["name"], json.loads(details["input"]))
        for event in execution.to_history_output()["events"]
        if (details := event.get("stateEnteredEventDetails"))
    ]
    return Execution(
        execution.exec_arn,
        execution.status,
        execution.output if execution.status == "SUCCEEDED" else None,
        execution.error or "",
        execution.cause or "",
        tuple(entered),
    )


def _invoke(parameters: dict[str, Any], region: str, state_credentials: Any) -> dict[str, Any]:
    """Answer as Lambda does; what the handler raises becomes the error that its runtime reports."""
    del region, state_credentials
    step, event = _steps[parameters["FunctionName"]], json.loads(parameters["Payload"])
    try:
        with _permit:
            result = step(event)
    except Exception as error:  # noqa: BLE001 (whatever it is, Lambda reports it)
        reported = {
            "errorMessage": str(error),
            "errorType": type(error).__name__,
            "stackTrace": traceback.format_tb(error.__traceback__),
        }
        return {"StatusCode": 200, "FunctionError": "Unhandled", "Payload": reported}
    return {"StatusCode": 200, "ExecutedVersion": "$LATEST", "Payload": json.loads(json.dumps(result))}


default_user_config["stepfunctions"]["execute_state_machine"] = True
setattr(lambda_eval_utils, "_invoke_lambda_function", _invoke)  # noqa: B010 - private to moto
setattr(retrier_decl, "time", SimpleNamespace(sleep=lambda seconds: None))  # noqa: B010 - a module's own import
