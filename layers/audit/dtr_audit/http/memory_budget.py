"""How many bytes of foreign answers the process holds at once: one budget for all readers.

A hostile registry decides how large its answers are, and how many are read at once. So an answer is charged before it is held:
while it arrives with its text, and before it is parsed with what becomes of it.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dtr_audit.errors import RegistryError

SHARED_BYTES = 12 * 1024 * 1024  # of all charges together
CHECK_SECONDS = 0.5  # between two looks at the time while there is no room
UNCHARGED_BYTES = 64 * 1024  # of one answer's text: so much is held without being charged until it is parsed

# What parsed JSON takes, measured on Python 3.11 with the worst texts, each at the most as often as it fits:
PARSED_FACTOR = 48  # times the text, the worst case; lists within lists take 43, and the text is held beside them
TEXT_FACTOR = 14  # times the text, of all that is neither a list nor an object
WIDE_FACTOR = 4  # times the text more, if a single character of it is not ASCII: then each takes up to four bytes
LIST_BYTES = 96  # of each list
OBJECT_BYTES = 208  # of each object
STRUCTURE_FACTOR = 6  # times the text, of all lists and objects; those of a list of tags take one or two

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[{"))


class NoRoomError(Exception):
    """There is no room for an answer that is not to be waited for."""


class Charge:
    """What one answer holds, or a few that belong together. As a context manager it gives everything back at its end."""

    def __init__(self, budget: "MemoryBudget", limit: int, *, waits_connected: bool) -> None:
        self._budget = budget
        self._limit = limit
        self.waits_connected = waits_connected
        self.bytes = 0
        self.is_large = False  # it has the place of the one for which the shared bytes do not do

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def grow(self, size: int, check: Callable[[], object], *, waits: bool = True) -> None:
        """Hold `size` bytes in all, if that is more than before. If there is no room, it waits, or raises NoRoomError.

        `check` is called while it waits, and ends that by raising. Raises RegistryError for more than the limit of one charge.
        """
        if size > self._limit:
            raise RegistryError(
                f"the answer would take {size / 1024**2:.0f} MiB of memory, and {self._limit / 1024**2:.0f} MiB is the limit"
            )
        if size > self.bytes:
            self._budget.change(self, size, check, waits=waits)

    def shrink(self, size: int) -> None:
        """Hold `size` bytes in all, if that is less than before."""
        if size < self.bytes:
            self._budget.change(self, size)

    def release(self) -> None:
        """Give everything back."""
        self.shrink(0)


class MemoryBudget:
    """The budget. Safe to share between threads.

    All charges together hold `SHARED_BYTES` at most. If there is no room for one of them, it may take the place of the large
    charge, of which there is one at a time: it holds as much as its own limit allows, and gives back what it had of the shared
    bytes.

    There is no deadlock, though charges grow while they are held. The large charge never waits for room, nor does its thread wait
    for a turn to ask (`is_large_here`), so it comes to its end, and the next one takes its place. A charge that is held over more
    than one request is made with `waits_connected=False`: it does not wait for room while it has a connection, which the large
    charge may need, and starts over in the large place.
    """

    def __init__(self, shared: int = SHARED_BYTES) -> None:
        self._shared = shared
        self._changed = threading.Condition()
        self._used = 0  # of the shared bytes
        self._large: Charge | None = None
        self._large_thread = 0
        self.peak = 0  # the most that was charged at once

    @property
    def charged(self) -> int:
        """The bytes that are charged at present."""
        with self._changed:
            return self._charged()

    @property
    def is_large_here(self) -> bool:
        """Whether the present thread has the large charge."""
        return self._large_thread == threading.get_ident()

    def charge(self, limit: int, *, waits_connected: bool = True) -> Charge:
        """Open a charge of at most `limit` bytes, which holds nothing yet."""
        return Charge(self, limit, waits_connected=waits_connected)

    def large_charge(self, limit: int, check: Callable[[], object]) -> Charge:
        """Wait for the large place, and open a charge of at most `limit` bytes in it; `check` ends the waiting by raising."""
        charge = Charge(self, limit, waits_connected=True)
        with self._changed:
            while self._large is not None:
                self._changed.wait(CHECK_SECONDS)
                check()
            self._make_large(charge)
            charge.bytes = 1  # so that it has something to give back
        return charge

    def change(
        self, charge: Charge, size: int, check: Callable[[], object] = lambda: None, *, waits: bool = True
    ) -> None:
        """Let a charge hold `size` bytes; if that is more than before, waits for room, or raises NoRoomError."""
        with self._changed:
            while not self._set(charge, size, may_be_large=waits):
                if not waits:
                    raise NoRoomError
                self._changed.wait(CHECK_SECONDS)
                check()
            self.peak = max(self.peak, self._charged())

    def _charged(self) -> int:
        return self._used + (self._large.bytes if self._large else 0)

    def _make_large(self, charge: Charge) -> None:
        charge.is_large = True
        self._large = charge
        self._large_thread = threading.get_ident()

    def _set(self, charge: Charge, size: int, *, may_be_large: bool) -> bool:
        """Change what a charge holds; gives False if there is no room."""
        if charge.is_large:
            charge.bytes = size
            if not size:
                charge.is_large = False
                self._large = None
                self._large_thread = 0
                self._changed.notify_all()
            return True
        more = size - charge.bytes
        if more > 0 and self._used + more > self._shared:
            if self._large is not None or not may_be_large:
                return False
            more = -charge.bytes
            self._make_large(charge)
        self._used += more
        charge.bytes = size
        if more < 0:
            self._changed.notify_all()
        return True


BUDGET = MemoryBudget()


def estimate_parsed(text: bytes) -> int:
    """Estimate what a JSON text takes while it is parsed and afterwards, itself included; never less than it does.

    Raises RegistryError for a large text that is nearly all structure, as no list of a registry is.
    """
    if len(text) <= UNCHARGED_BYTES:
        return PARSED_FACTOR * len(text)
    brackets = text.translate(None, _NOT_BRACKETS)
    objects = brackets.count(b"{")
    structure = OBJECT_BYTES * objects + LIST_BYTES * (len(brackets) - objects)
    size = structure + (TEXT_FACTOR if text.isascii() else TEXT_FACTOR + WIDE_FACTOR) * len(text)
    if structure > STRUCTURE_FACTOR * len(text):
        raise RegistryError(
            f"the answer is nearly all brackets: parsed it would take {size / 1024**2:.0f} MiB, {size // len(text)} times its text"
        )
    return size
