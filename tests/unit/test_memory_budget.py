"""One budget for all that foreign answers take, and an estimate that is never less than they do."""

import threading
import tracemalloc
from collections.abc import Callable

import pytest

from dtr_audit.core.documents import NESTING, parse_json
from dtr_audit.errors import OutOfTimeError, RegistryError
from dtr_audit.http import memory_budget
from dtr_audit.http.memory_budget import UNCHARGED_BYTES, MemoryBudget, NoRoomError, estimate_parsed

ELEMENTS = (
    *(
        "[]",
        "{}",
        "[0]",
        "[[]]",
        '{"":0}',
        '{"":{}}',
        '{"a":[]}',
        "[{}]",
        "999",
        "1.5",
        "1e9",
        '"ab"',
        '""',
        "true",
        "[1,2]",
    ),
    *('{"ab":"cd"}', '{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0}', '"\u00e9"', '"\U0001f600"'),
    *("[" * 30 + "]" * 30, '{"":' * 30 + "0" + "}" * 30),
    '{"name":"1.25","digest":"sha256:0123456789abcdef","author":"b4d0","inNotary":true,"hashMismatch":false,"manifest":{"os":"linux"}}',
)


def never() -> None:
    raise AssertionError("nothing was to be waited for")


def text_of(element: str, size: int) -> bytes:
    count = size // (len(element.encode()) + 1)
    return f"[{','.join([element] * count)}]".encode()


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda element: element[:30])
@pytest.mark.parametrize("size", [UNCHARGED_BYTES, 4 * UNCHARGED_BYTES])
def test_estimate_of_a_text_is_never_less_than_it_takes(element: str, size: int) -> None:
    text = text_of(element, size - 2)
    try:
        estimated = estimate_parsed(text)
    except RegistryError as refused:
        assert len(text) > UNCHARGED_BYTES
        assert "nearly all brackets" in str(refused)
        return
    tracemalloc.start()
    parsed = parse_json(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert parsed
    assert peak + len(text) <= estimated


@pytest.mark.parametrize("entry", ['"1"', '["1"]', '{"name":"1"}'])
def test_estimate_of_an_honest_list_lets_it_through(entry: str) -> None:
    assert estimate_parsed(text_of(ELEMENTS[-1].replace('"1.25"', entry), 1024 * 1024)) < 20 * 1024 * 1024


@pytest.mark.parametrize("before", [b"[", b'[{"name": "with ]]]] in it", "other": ', b'[{"a\\"]": '])
def test_text_that_is_nested_too_deep_is_refused_before_it_is_parsed(
    before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("json.loads", lambda *_, **__: pytest.fail("it was parsed"))
    after = b"}]" if b"{" in before else b"]"
    for opening, closing in ((b"[", b"]"), (b'{"":', b"}")):
        with pytest.raises(ValueError, match=f"more than {NESTING} deep"):
            parse_json(before + opening * 5_000 + b"0" + closing * 5_000 + after)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"":' * 100_000, b"]" * 10, b'["[[[[', b"[" * 100 + b'"' + b"]" * 100]
)
def test_text_whose_brackets_do_not_match_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_text_with_brackets_in_its_strings_is_parsed() -> None:
    text = b'["' + b"[{" * 1_000 + b'", "\\"]]]", "}", ' + b"[" * 60 + b"]" * 60 + b"]"
    assert len(parse_json(text)) == 4


def test_number_of_absurd_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(b"[" + b"9" * 5_000 + b"]")


def test_charge_that_is_larger_than_its_limit_is_refused_at_once() -> None:
    budget = MemoryBudget(100)
    with budget.charge(1_000) as charge, pytest.raises(RegistryError, match="is the limit"):
        charge.grow(1_001, never)
    assert budget.charged == 0


def test_charge_without_room_takes_the_large_place_and_gives_the_rest_back() -> None:
    budget = MemoryBudget(100)
    with budget.charge(1_000) as first, budget.charge(1_000) as second:
        first.grow(60, never)
        second.grow(30, never)
        second.grow(1_000, never)
        assert second.is_large
        assert budget.is_large_here
        first.grow(100, never)  # what the other has given back
        assert budget.charged == 1_100
    assert budget.charged == 0
    assert budget.peak == 1_100
    assert not budget.is_large_here


def test_wait_for_room_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "CHECK_SECONDS", 0.001)
    budget = MemoryBudget(100)

    def late() -> None:
        raise OutOfTimeError("over")

    with budget.charge(1_000) as first, budget.charge(1_000) as second, budget.charge(1_000) as third:
        first.grow(100, never)
        second.grow(500, never)
        with pytest.raises(OutOfTimeError):
            third.grow(1, late)
        with pytest.raises(OutOfTimeError):
            budget.large_charge(1_000, late)
        with pytest.raises(NoRoomError):
            third.grow(1, never, waits=False)
    assert budget.charged == 0


def run(*tasks: Callable[[], None]) -> None:
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_charges_that_all_grow_beyond_what_is_shared_all_come_to_their_end() -> None:
    budget = MemoryBudget(100)
    begun = threading.Barrier(10)
    ended: list[int] = []

    def read() -> None:
        with budget.charge(500) as charge:
            charge.grow(10, never)
            begun.wait()
            for size in (50, 200, 500):
                charge.grow(size, lambda: None)
            ended.append(charge.bytes)

    run(*[read] * 10)
    assert ended == [500] * 10
    assert budget.charged == 0
    assert budget.peak <= 100 + 500


def test_charge_that_does_not_wait_starts_over_in_the_large_place() -> None:
    budget = MemoryBudget(100)
    begun = threading.Barrier(5)
    started_over: list[int] = []

    def read() -> None:
        begun.wait()
        try:
            with budget.charge(500, waits_connected=False) as charge:
                for size in (20, 60):
                    charge.grow(size, never, waits=charge.waits_connected)
        except NoRoomError:
            with budget.large_charge(500, lambda: None) as charge:
                for size in (20, 60, 500):
                    charge.grow(size, never, waits=charge.waits_connected)
                started_over.append(charge.bytes)

    run(*[read] * 5)
    assert set(started_over) <= {500}
    assert budget.charged == 0
