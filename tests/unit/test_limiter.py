"""A host is asked for less while it does badly, and for no more than the setting when it does well."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from dtr_audit.http.limiter import LATENCY_SHARE, ConcurrencyLimiter

MOST = 16


class StoppedClock:
    """Time goes on only where the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Host:
    """Answers as many requests at once as it is asked for, all after the same time or none."""

    def __init__(self, most: int = MOST) -> None:
        self.clock = StoppedClock()
        self.limiter = ConcurrencyLimiter(most, self.clock, "the registry")
        self.asked = 0

    def round(self, waited: float | Callable[[], float] | None, *, refused: bool = False, troubles: int = 0) -> int:
        """Ask for all that may be asked for at once, the first `troubles` of it in vain; gives how much that was."""
        at_once = self.limiter.limit
        turns = [self.limiter.begin(lambda: None) for _ in range(at_once)]
        self.clock.now += 0.2
        for number, permit in enumerate(turns):
            seconds = waited() if callable(waited) else waited
            self.limiter.end(permit, None if number < troubles else seconds, refused=refused)
        self.asked += at_once
        return at_once

    def rounds(self, count: int, waited: float | Callable[[], float] | None, *, troubles: int = 0) -> list[int]:
        return [self.round(waited, troubles=troubles) for _ in range(count)]


@pytest.fixture
def host() -> Host:
    return Host()


def test_all_that_the_setting_allows_is_asked_for_once_the_first_answers_are_in(host: Host) -> None:
    assert host.rounds(4, 0.05) == [MOST // 2, MOST, MOST, MOST]


def test_a_setting_of_one_is_one(host: Host) -> None:
    one = Host(most=1)
    assert set(one.rounds(20, 0.05)) == {1}
    assert set(one.rounds(20, None)) == {1}
    assert set(one.rounds(20, 9.0)) == {1}


@pytest.mark.parametrize("seconds", [0.001, 0.2, 5.0])
def test_a_host_that_is_always_slow_is_no_host_that_slows_down(host: Host, seconds: float) -> None:
    host.round(seconds)
    assert set(host.rounds(100, seconds)) == {MOST}


def test_noise_slows_nothing_down(host: Host) -> None:
    choice = random.Random(7)
    host.round(0.2)
    assert set(host.rounds(500, lambda: choice.lognormvariate(-1.6, 0.6))) == {MOST}


def test_one_answer_in_a_hundred_that_fails_slows_nothing_down(host: Host) -> None:
    host.round(0.05)
    for _ in range(20):
        assert host.round(0.05, troubles=1) == MOST
        assert set(host.rounds(5, 0.05)) == {MOST}


def test_who_fails_is_asked_for_half_and_half_of_that_down_to_one(host: Host) -> None:
    host.round(0.05)
    falling = host.rounds(12, None)
    assert falling[0] == MOST
    assert all(after == max(1, before // 2) for before, after in pairwise(falling))
    assert falling[-1] == 1


def test_what_was_under_way_when_it_slowed_down_slows_it_no_further(host: Host) -> None:
    host.round(0.05)
    turns = [host.limiter.begin(lambda: None) for _ in range(MOST)]
    host.clock.now += 0.2
    for permit in turns:
        host.limiter.end(permit, None)
    assert host.limiter.limit == MOST // 2


def test_who_says_that_it_is_too_much_is_believed_at_once(host: Host) -> None:
    host.round(0.05)
    permit = host.limiter.begin(lambda: None)
    host.clock.now += 0.2
    host.limiter.end(permit, None, refused=True)
    assert host.limiter.limit == MOST // 2


def test_who_slows_down_under_the_load_gets_less_of_it_and_never_less_than_a_quarter(host: Host) -> None:
    host.rounds(5, 0.05)
    slowed = host.rounds(20, 1.0)
    assert slowed == sorted(slowed, reverse=True)
    assert slowed[-1] == MOST * LATENCY_SHARE
    assert min(host.rounds(10, 1.0)) >= MOST * LATENCY_SHARE


@pytest.mark.parametrize("trouble", [None, 2.0], ids=["errors", "latency"])
def test_who_recovers_is_asked_for_all_again_one_by_one(host: Host, trouble: float | None) -> None:
    host.rounds(5, 0.05)
    host.rounds(20, trouble)
    least = host.limiter.limit
    assert least < MOST
    rising: list[int] = []
    host.asked = 0
    while host.limiter.limit < MOST:
        rising.append(host.round(0.05))
    assert {after - before for before, after in pairwise(rising)} <= {0, 1}
    assert 100 < host.asked < 500, "not at once, and not never"
    assert set(host.rounds(50, 0.05)) == {MOST}


def test_who_has_become_slow_for_good_is_asked_for_all_again_in_the_end(host: Host) -> None:
    host.rounds(5, 0.05)
    host.rounds(400, 0.5)
    assert host.limiter.limit == MOST


def test_easy_questions_asked_one_by_one_are_no_measure_of_hard_ones_asked_together(host: Host) -> None:
    for _ in range(50):
        permit = host.limiter.begin(lambda: None)
        host.clock.now += 0.001
        host.limiter.end(permit, 0.001)
    host.round(0.5)
    assert set(host.rounds(50, 0.5)) == {MOST}


def test_no_one_begins_while_the_host_asks_to_wait(host: Host) -> None:
    host.limiter.pause(7.0)
    host.limiter.pause(3.0)
    assert host.limiter.pause_left == 7.0
    host.clock.now += 5.0
    assert host.limiter.pause_left == 2.0
    host.clock.now += 2.0
    assert host.limiter.pause_left <= 0.0


def test_who_waits_for_a_turn_too_long_gives_up(host: Host) -> None:
    def give_up() -> None:
        raise TimeoutError

    for _ in range(host.limiter.limit):
        host.limiter.begin(lambda: None)
    with pytest.raises(TimeoutError):
        host.limiter.begin(give_up)
