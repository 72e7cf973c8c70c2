"""What is asked of a server, what it answers, and the clock."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dtr_audit.http.memory_budget import Charge

BODY_BYTES = 64 * 1024  # of an answer, decompressed, unless the caller names another limit


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole and bounded. Header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who is asked, in the words of the messages, and how large its answers may be."""

    name: str
    url_setting: str
    bundle_keys: str  # of the secret


REGISTRY = Endpoint("the registry", "DTR_URL", '"ca_bundle"')


class Clock(Protocol):
    """Time as an argument, so that tests need not wait."""

    def monotonic(self) -> float:
        """Give seconds since some fixed moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        """Give seconds since some fixed moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked; `str()` names it in messages."""

    method: str
    path: str
    accept: str
    authorization: str = field(repr=False)
    is_optional: bool = False
    limit: int = BODY_BYTES
    charge: Charge | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"
