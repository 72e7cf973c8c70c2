"""The order in which a run reads, and where the next one begins: pure, whatever order a registry lists in."""

from collections.abc import Iterable, Iterator

import pytest

from dtr_audit.core.counts import RepositoryCounts
from dtr_audit.core.model import Repository
from dtr_audit.core.scan_order import Mark, ReadingOrder, explain_out_of_time

NAMES = tuple(f"team{number // 3}/s{number}" for number in range(9))
BY_CHANCE = tuple(NAMES[number] for number in (4, 7, 0, 8, 2, 5, 1, 6, 3))


def repository(path: str) -> Repository:
    namespace, name = path.split("/")
    return Repository(namespace, name)


def listed(names: Iterable[str]) -> Iterator[Repository]:
    return map(repository, names)


def read(order: ReadingOrder, names: Iterable[str], many: int | None = None) -> list[str]:
    """Read one after the other, stopping after so many, and give which."""
    seen: list[str] = []
    for one in order.arrange(listed(names)):
        if len(seen) == many:
            break
        order.note_scanned(one)
        seen.append(str(one))
    return seen


def mark(path: str, *, is_sorted: bool = True) -> Mark:
    return Mark(repository(path), is_sorted)


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], BY_CHANCE], ids=["sorted", "backwards", "by chance"])
def test_as_many_runs_as_are_needed_read_everything_any_the_order_of_the_list(names: tuple[str, ...]) -> None:
    at: Mark | None = None
    seen: list[str] = []
    for _ in range(3):
        order = ReadingOrder(at)
        seen += read(order, names, 3)
        at = order.missed_from
    assert seen == list(names)


@pytest.mark.parametrize("names", [NAMES, BY_CHANCE])
def test_a_run_with_time_enough_reads_everything_once_and_leaves_no_mark(names: tuple[str, ...]) -> None:
    for begins_at in (None, mark(NAMES[0]), mark(NAMES[5]), mark("zzz/z"), mark("a/a")):
        order = ReadingOrder(begins_at)
        assert sorted(read(order, names)) == sorted(names)
        assert order.missed_from is None


def test_what_stands_before_the_mark_is_read_after_the_rest() -> None:
    assert read(ReadingOrder(mark(NAMES[6])), NAMES) == [*NAMES[6:], *NAMES[:6]]


def test_a_mark_that_was_removed_gives_way_to_what_follows_it_in_a_sorted_list() -> None:
    left = [name for name in NAMES if name != NAMES[4]]
    assert read(ReadingOrder(mark(NAMES[4])), left) == [*NAMES[5:], *NAMES[:4]]


def test_in_a_list_in_no_order_a_name_behind_the_mark_does_not_stand_for_it() -> None:
    assert read(ReadingOrder(mark("team0/s2", is_sorted=False)), BY_CHANCE)[0] == "team0/s2"
    left = [name for name in BY_CHANCE if name != "team0/s2"]
    assert read(ReadingOrder(mark("team0/s2", is_sorted=False)), left) == left


def test_the_mark_says_whether_the_list_was_sorted() -> None:
    for names, is_sorted in ((NAMES, True), (BY_CHANCE, False)):
        order = ReadingOrder()
        read(order, names, 4)
        assert order.missed_from == Mark(repository(names[4]), is_sorted)


def test_with_several_in_flight_the_first_that_is_not_scanned_is_the_mark() -> None:
    order = ReadingOrder()
    handed = [one for one, _ in zip(order.arrange(listed(NAMES)), range(5), strict=False)]
    for one in (handed[0], handed[2], handed[4]):
        order.note_scanned(one)
    assert order.missed_from == mark(NAMES[1])


def test_a_repository_that_a_whole_run_was_not_enough_for_does_not_keep_the_rest_unread() -> None:
    endless = NAMES[1]
    at: Mark | None = None
    seen: set[str] = set()
    for _ in range(5):
        order = ReadingOrder(at)
        for number, one in enumerate(order.arrange(listed(NAMES))):
            if number == 4:
                break
            if str(one) != endless:
                order.note_scanned(one)
                seen.add(str(one))
        at = order.missed_from
    assert seen == set(NAMES) - {endless}


def test_all_scanned_and_the_list_not_at_its_end_marks_the_last_one() -> None:
    order = ReadingOrder()
    arranged = order.arrange(listed(NAMES))
    for _ in range(4):
        order.note_scanned(next(arranged))
    assert order.missed_from == mark(NAMES[3])


def test_a_run_that_handed_out_nothing_keeps_the_mark_that_it_had() -> None:
    def slow() -> Iterator[Repository]:
        yield from listed(NAMES[:4])
        raise TimeoutError

    order = ReadingOrder(mark(NAMES[6]))
    with pytest.raises(TimeoutError):
        list(order.arrange(slow()))
    assert order.missed_from == mark(NAMES[6])


def test_a_mark_survives_its_table() -> None:
    for one in (mark("a/b"), mark("x/y", is_sorted=False)):
        assert Mark.of_dict(one.as_dict()) == one


def test_the_text_says_how_far_it_came_where_the_next_one_begins_and_what_the_way_is() -> None:
    said = explain_out_of_time(RepositoryCounts(listed=90, audited=7), mark("web/shop"))
    for words in (
        "7 repositories",
        "90 listed",
        "begins at web/shop",
        "time limit",
        "the template's parameter Concurrency",
        "MemoryMegabytes or TimeoutSeconds",
        "Engine to stepfunctions",
    ):
        assert words in said
    assert "begins at" not in explain_out_of_time(RepositoryCounts(), None)
