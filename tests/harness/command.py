"""`dtr-audit` in a process of its own, without loading all of it each time.

One process has loaded the command and what it uses, and forks for each call: that is six times cheaper than to start Python.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

from dtr_audit_simulator import PROJECT

PYTHON_PATH = os.pathsep.join(str(PROJECT / folder) for folder in ("", "layers/audit", "cli", "simulator"))
_lock = threading.Lock()

# A child is at the end of main() where `dtr-audit` would be, and ends as that does.
_PRELOADED = """
import importlib, json, os, sys
import dtr_audit_cli.demo, dtr_audit_simulator.aws.in_process, dtr_audit_cli.local_run, dtr_audit_simulator.aws.state_machine
import moto.cloudformation.parsing, moto.dynamodb.responses, moto.s3.responses
from dtr_audit.pipeline import audit, steps
from dtr_audit_cli.__main__ import main
from tests.harness.fake_clock import IMPATIENT
for name, seconds in IMPATIENT.items():
    module, _, constant = name.rpartition(".")
    setattr(importlib.import_module(f"dtr_audit.{module}"), constant, seconds)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(job["environment"])
        for number, path, mode in ((0, os.devnull, "r"), (1, job["stdout"], "w"), (2, job["stderr"], "w")):
            with open(path, mode) as file:
                os.dup2(file.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)
        sys.exit(main(job["arguments"]))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as the make targets do, from the project's folder and without a terminal."""
    with _lock, tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        job = {
            "arguments": arguments,
            "environment": command_environment(**environment),
            "stdout": str(out),
            "stderr": str(err),
        }
        preloaded = _start()
        assert preloaded.stdin is not None
        assert preloaded.stdout is not None
        preloaded.stdin.write(json.dumps(job) + "\n")
        preloaded.stdin.flush()
        status = int(preloaded.stdout.readline())
        return subprocess.CompletedProcess(
            ["dtr-audit", *arguments], status, out.read_text("utf-8"), err.read_text("utf-8")
        )


def command_environment(**environment: str) -> dict[str, str]:
    """Give this process's environment without what is AWS's, for a terminal of 100 columns."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**inherited, "COLUMNS": "100", "PYTHONPATH": PYTHON_PATH, **environment}


@cache
def _start() -> subprocess.Popen[str]:
    process = subprocess.Popen(  # noqa: S603 (this project itself)
        [sys.executable, "-c", _PRELOADED],
        cwd=PROJECT,
        env=command_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    with process:
        pass
