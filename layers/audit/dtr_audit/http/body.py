"""The body of an answer, read in bounded pieces."""

import zlib
from collections.abc import Callable

from dtr_audit.errors import RegistryError
from dtr_audit.http.exchange import Call
from dtr_audit.http.memory_budget import UNCHARGED_BYTES

ERROR_BYTES = 64 * 1024  # of an answer that is none to the question: the rest of it is not read
CHUNK_BYTES = 64 * 1024  # read from the connection, or decompressed, in one step


class Body:
    """The body of an answer as it arrives: charged before it is held, and never larger than its limit."""

    def __init__(self, call: Call, is_wanted: bool, check: Callable[[], object]) -> None:
        self._call = call
        self._is_wanted = is_wanted
        self._limit = call.limit if is_wanted else min(call.limit, ERROR_BYTES)
        self._check = check
        # Small pieces, of which nothing is copied before all are there, and which leave no large holes behind.
        self._pieces: list[bytes] = []
        self._size = 0
        self._room = UNCHARGED_BYTES if call.charge else self._limit
        self._held_before = call.charge.bytes if call.charge else 0
        self.received = 0  # bytes on the wire

    def add(self, chunk: bytes, inflate: "zlib._Decompress | None") -> bool:
        """Take what has arrived; gives False if there is enough of an answer of which only the status matters.

        Raises RegistryError for more than the limit, or than there may be room for.
        """
        self.received += len(chunk)
        while True:
            piece = inflate.decompress(chunk, CHUNK_BYTES) if inflate else chunk
            size = self._size + len(piece)
            # Gzip that becomes nothing has to end as well; no other is larger than its content by so much.
            if size > self._limit or self.received > self._limit + CHUNK_BYTES:
                if not self._is_wanted:
                    return False
                raise RegistryError(f"{self._call}: the answer is larger than {self._limit / 1024**2:.3g} MiB")
            if size > self._room and self._call.charge:
                self._room = min(self._limit, 2 * size)
                # Twice: it is joined once it is whole.
                self._call.charge.grow(
                    self._held_before + 2 * self._room, self._check, waits=self._call.charge.waits_connected
                )
            self._pieces.append(piece)
            self._size = size
            if inflate is None:
                return True
            chunk = inflate.unconsumed_tail
            if not chunk and len(piece) < CHUNK_BYTES:
                return True

    def drop(self) -> None:
        """Let go of it, and give back what was charged for it. A caller that asks again waits first."""
        self._pieces.clear()
        if self._call.charge:
            self._call.charge.shrink(self._held_before)

    def whole(self) -> bytes:
        """Give all of it."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
