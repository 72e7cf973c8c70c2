"""The garbage collector while a function is loaded."""

from __future__ import annotations

import gc
import weakref

import pytest

from dtr_audit.core.loading import OBJECTS_BETWEEN, collector_paused, collector_relaxed


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_nothing_is_collected_while_modules_are_loaded() -> None:
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_collector_comes_back_when_loading_fails() -> None:
    with pytest.raises(ImportError), collector_paused():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_loaded_first_is_left_alone_and_later_garbage_is_found() -> None:
    with collector_paused():
        pass
    frozen = gc.get_freeze_count()
    assert frozen > 0
    ring = Ring()
    gone = weakref.ref(ring)
    with collector_paused():
        pass
    assert gc.get_freeze_count() <= frozen
    del ring
    gc.collect()
    assert gone() is None


def test_the_collector_is_seldom_at_work_while_tags_are_read_and_as_often_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with pytest.raises(RuntimeError), collector_relaxed():
        assert gc.get_threshold()[0] == OBJECTS_BETWEEN > before[0]
        assert gc.isenabled(), "what only it finds is still found"
        raise RuntimeError
    assert gc.get_threshold() == before
