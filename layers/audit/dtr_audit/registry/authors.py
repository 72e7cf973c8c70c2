"""The names of the accounts that have pushed what is a finding: the registry shows them as UUIDs.

Names are for people and decide nothing. They are never required: where the registry names none, the id stands alone.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any
from urllib.parse import quote

from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, OutOfTimeError
from dtr_audit.http.deadline import answer_in_time

ACCOUNTS = "/enzi/v0/accounts/"
LOOKUPS = 200  # accounts that one invocation asks for
FAILURES = 5  # in a row, after which nothing more is asked
LOOKUP_SECONDS = 5.0  # for one name; after one that took longer, nothing more is asked
NAME_LENGTH = 128
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class AuthorNames:
    """The names of accounts, each asked for once. Safe to share between threads."""

    def __init__(self, look_up: Callable[[str], Any], *, stop_at: float) -> None:
        """Prepare; `look_up` reads a JSON document of the registry and raises AuditError. `stop_at` is time.monotonic."""
        self._look_up = look_up
        self._stop_at = stop_at
        self._lock = threading.Lock()
        self._names: dict[str, Future[str]] = {}  # by id
        self._failures = 0  # in a row

    def find(self, authors: Iterable[str]) -> dict[str, str]:
        """Give the names of those authors that are ids of accounts and that the registry names, by id."""
        names = {author: self._name(author) for author in set(authors) if _UUID.fullmatch(author)}
        return {author: name for author, name in names.items() if name}

    def _name(self, author: str) -> str:
        with self._lock:
            known = self._names.get(author)
            if known is None:
                if len(self._names) >= LOOKUPS or self._failures >= FAILURES:
                    return ""
                mine: Future[str] = Future()
                self._names[author] = mine
        if known is not None:
            return known.result()
        name = ""
        try:
            name = self._ask(author)
        finally:
            # Also after an error: another thread may be waiting for it.
            mine.set_result(name)
        return name

    def _ask(self, author: str) -> str:
        path = f"{ACCOUNTS}{quote(author, safe='')}"
        try:
            stop_at = min(self._stop_at, time.monotonic() + LOOKUP_SECONDS)
            name = _read_name(answer_in_time(lambda: self._look_up(path), stop_at=stop_at), author)
        except OutOfTimeError:
            name = ""
            with self._lock:
                self._failures = FAILURES
        except AuditError:
            name = ""
        with self._lock:
            if name and self._failures < FAILURES:
                self._failures = 0
            elif not name:
                self._failures += 1
        return name


def _read_name(document: Any, author: str) -> str:
    """Take the name out of an account; '' where it is none, or another's."""
    if not isinstance(document, dict):
        return ""
    name, account = document.get("name"), document.get("id")
    if not isinstance(name, str) or not isinstance(account, str) or account.lower() != author.lower():
        return ""
    return "" if REDACTOR.holds_secret(name) else clean(name, NAME_LENGTH)
