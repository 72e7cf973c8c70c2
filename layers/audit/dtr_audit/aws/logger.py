"""The log of a function, and its errors, without secrets."""

import logging
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

from dtr_audit.core.redaction import REDACTOR
from dtr_audit.errors import AuditError

SERVICE = "dtr-signature-audit"
_T = TypeVar("_T", bound=Callable[..., Any])


class _Formatter(LambdaPowertoolsFormatter):
    """Writes a line of the log, without secrets."""

    def serialize(self, log: Any) -> str:
        return REDACTOR.redact_json(super().serialize(log))


def make_logger() -> Logger:
    """Give the function's logger; from here on no log of this process holds a secret, whichever library writes it."""
    logging.setLogRecordFactory(_make_record)
    # It quotes headers that it cannot read, and with them a token that is just being given.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return Logger(service=SERVICE, logger_formatter=_Formatter())


def _make_record(*arguments: Any, **more: Any) -> logging.LogRecord:
    """Make a log record whose message holds no secret."""
    record = logging.LogRecord(*arguments, **more)
    if isinstance(record.msg, str):
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            return record  # which the handler complains of
        if REDACTOR.holds_secret(message):
            record.msg, record.args = REDACTOR.redact(message), ()
    if record.exc_info and record.exc_info[1] is not None:
        traceback_text = "".join(traceback.format_exception(record.exc_info[1]))
        if REDACTOR.holds_secret(traceback_text):
            record.exc_text = REDACTOR.redact(traceback_text)
    return record


def raise_redacted(handler: _T) -> _T:
    """Have a function raise no error whose text holds a secret; the error's name stays, by which it is retried."""

    @wraps(handler)
    def call(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except Exception as error:
            if not REDACTOR.holds_secret("".join(traceback.format_exception(error))):
                raise
            kind = type(type(error).__name__, (AuditError,), {"__doc__": "An error without the secret in its text."})
            redacted: Exception = kind(REDACTOR.redact(str(error))).with_traceback(error.__traceback__)
        raise redacted

    return call  # type: ignore[return-value] # the same call
