"""The folder in which an audit on this machine leaves its results, and from which the next one knows what is new.

    findings/ runs/   what the bucket holds, run upon run: see the rows with `gunzip -c findings/…/*.jsonl.gz`
    evidence/         likewise: the report, the checklists, the manifest
    baseline/         the checklist that was given to the last run that got one
    policy/           exceptions.json, if there are exceptions: the next run reads it again
                      trust-pins.json, the pins of the last run that was given some: no later run reads them
    run.json          the record of the last run
    alerts.jsonl      the messages of the last run as subscribers got them, one JSON object a line
    audit.log         what the function logged in the last run
    state/            the tables; several registries may share a folder, each item carries its registry's name

A run that is interrupted, at whatever moment, leaves the state as it was or as it shall be. `state/` is moved into place
last, so what was announced in between is announced again by the next run, and nothing is lost.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.aws.subscribers import Message

Run = Mapping[str, Any]  # a run record, see `dtr_audit.core.run_record.Run.as_dict`
CONTENTS = frozenset(
    {"findings", "runs", "evidence", "policy", "run.json", "alerts.jsonl", "audit.log", "state", ".unfinished"}
)
_STATE = "state"
_UNFINISHED = ".unfinished"
_WORK = "work"  # what the steps of a run hand on to each other: of no use once it is made


class OutputError(Exception):
    """The folder cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One alert as its two kinds of subscribers got it."""

    mail: Message
    machine: Message

    def as_dict(self) -> dict[str, Any]:
        """Give its line of alerts.jsonl."""
        return {
            "message_id": self.mail.message_id,
            "subject": self.mail.subject,
            "attributes": dict(self.mail.attributes),
            "body": self.machine.body,
            "mail": self.mail.text,
        }


class Subscribers:
    """A mailbox and a queue, subscribed to everything that the stack's topic tells."""

    def __init__(self, stack: Stack) -> None:
        self._mailbox = stack.subscribe_mailbox()
        self._queue = stack.subscribe_queue()

    def take(self) -> tuple[Delivered, ...]:
        """Take what was delivered since the last call, oldest first."""
        machine = {message.message_id: message for message in self._queue.messages()}
        return tuple(Delivered(mail, machine[mail.message_id]) for mail in self._mailbox.messages())


class OutputFolder:
    """One such folder; it is made if need be."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Keep other audits out of the folder; it is free again when this process ends, however that comes about."""
        with _reported(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(
                    f"{self.path}: another audit is writing there. Wait for its end, or choose another folder."
                ) from None
            yield
        finally:
            os.close(folder)

    def load_state(self, stack: Stack) -> None:
        """Put what earlier runs knew into the stack's tables.

        Raises OutputError, or StateFileError for a file that is damaged; nothing is changed then.
        """
        with _reported(self.path / _STATE):
            stack.load_tables(self.path / _STATE)

    def load_exceptions(self, stack: Stack) -> None:
        """Put the exceptions of the last run, or those written there since, into the stack's bucket."""
        file = self.path / EXCEPTIONS_KEY
        with _reported(file):
            if file.exists():
                put_exceptions(stack, file.read_bytes())

    @contextmanager
    def open_log(self) -> Iterator[TextIO]:
        """Begin audit.log anew."""
        with _reported(self.path / "audit.log"):
            file = (self.path / "audit.log").open("w", encoding="utf-8")
        with file:
            yield file

    def keep(self, stack: Stack, run: Run, alerts: Sequence[Delivered]) -> None:
        """Write a run's results beside the old ones, then move them into place, the state last."""
        unfinished = self.path / _UNFINISHED
        with _reported(self.path):
            if unfinished.exists():
                shutil.rmtree(unfinished)
            stack.mirror_bucket(unfinished)
            if (unfinished / _WORK).exists():
                shutil.rmtree(unfinished / _WORK)
            stack.dump_tables(unfinished / _STATE)
            (unfinished / "run.json").write_text(f"{json.dumps(run, indent=2)}\n", encoding="utf-8")
            lines = [f"{json.dumps(alert.as_dict())}\n" for alert in alerts]
            (unfinished / "alerts.jsonl").write_text("".join(lines), encoding="utf-8")
            files = [file.relative_to(unfinished) for file in unfinished.rglob("*") if file.is_file()]
            with _uninterrupted():
                for file in sorted(files, key=lambda file: (file.parts[0] == _STATE, file)):
                    (self.path / file).parent.mkdir(parents=True, exist_ok=True)
                    (unfinished / file).replace(self.path / file)
            shutil.rmtree(unfinished)

    def rows(self, run: Run) -> Iterator[dict[str, Any]]:
        """Read the rows of a run that was kept here: one a tag, in no order."""
        for part in sorted((self.path / "findings" / f"registry={run['registry']}").glob(f"*/{run['run_id']}-*.gz")):
            with gzip.open(part, "rt", encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)


def put_exceptions(stack: Stack, document: bytes) -> None:
    """Put a document of exceptions where the function looks for it."""
    stack.s3.put_object(Bucket=stack.outputs["BucketName"], Key=EXCEPTIONS_KEY, Body=document)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn the system's refusal into an error that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{error.filename or path}: {error.strerror or error}.") from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait no longer than a few renames take."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
