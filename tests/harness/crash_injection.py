"""Whatever ends a process between two calls to AWS."""

from typing import Any

import pytest
from botocore.client import BaseClient


class Cut(BaseException):
    """The process ends here: nothing in it may catch this."""


class CrashInjection:
    """Cut after the n-th call to AWS (0 is never), or after the first of one operation ('' is none)."""

    def __init__(self) -> None:
        self.after = 0
        self.operation = ""
        self.calls: list[str] = []

    def count(self, operation: str) -> None:
        self.calls.append(operation)
        if len(self.calls) == self.after or operation == self.operation:
            raise Cut(operation)

    def attach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand behind every call to AWS."""
        call = vars(BaseClient)["_make_api_call"]  # the one place that every call to AWS passes

        def counted(client: Any, operation: str, arguments: Any) -> Any:
            answer = call(client, operation, arguments)
            self.count(operation)
            return answer

        monkeypatch.setattr(BaseClient, "_make_api_call", counted)
