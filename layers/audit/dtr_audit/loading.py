"""The loading of modules, which is most of a cold start."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
        if not gc.get_freeze_count():  # once in a process: on a laptop or in a test one loads a function many times
            gc.freeze()
        if collecting:
            gc.enable()
