"""Python's garbage collector: away while modules are loaded, which is most of a cold start, and seldom while tags are read."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

OBJECTS_BETWEEN = 20_000  # made and not yet let go; a page of 1000 tags is about 5000
GENERATIONS_BETWEEN = 20


@contextmanager
def collector_paused() -> Iterator[None]:
    """Load modules without Python's garbage collector, and keep it away from them afterwards.

    Nearly all that is made while modules load stays for good. Looking for garbage in it, again and again as it grows,
    takes a tenth of a cold start.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        _freeze_once()
        if collecting:
            gc.enable()


@cache
def _freeze_once() -> None:
    """Take what is loaded out of the collector's sight. A process that loads a function many times does so once."""
    gc.freeze()


@contextmanager
def collector_relaxed() -> Iterator[None]:
    """Read many tags with the collector looking for garbage seldom.

    A tag is let go without its help. Looking through those that are held, page after page, takes a third of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS_BETWEEN, GENERATIONS_BETWEEN, GENERATIONS_BETWEEN)
    try:
        yield
    finally:
        gc.set_threshold(*before)
