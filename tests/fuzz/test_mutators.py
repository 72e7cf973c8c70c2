"""The mutators: the same seed gives the same mutants, and the original is never touched."""

import copy
import json
from random import Random

from tests.fuzz.mutators import duplicate, find_paths, mutate_bytes, mutate_each_place, mutate_json

DOCUMENT = {"counts": {"a": 1, "b": 0}, "names": [["web", "shop"], ["web", "till"]], "why": "", "flag": True}
CONTENT = json.dumps(DOCUMENT).encode()


def test_mutants_of_one_seed_are_the_same() -> None:
    for mutate in (mutate_json, mutate_bytes):
        once, again = (
            [mutate(CONTENT, random) for random in map(Random, range(300)) for _ in range(2)] for _ in range(2)
        )
        assert once == again
        assert len(set(once)) > 200


def test_every_place_is_changed_and_the_original_is_not() -> None:
    before = copy.deepcopy(DOCUMENT)
    mutants = list(mutate_each_place(DOCUMENT))
    assert before == DOCUMENT
    assert len({name for name, _ in mutants}) == len(mutants)
    for path in find_paths(DOCUMENT):
        assert any(name.startswith("/".join(map(str, path)) or "/") for name, _ in mutants)
    assert not [name for name, mutant in mutants if json.dumps(mutant) == json.dumps(DOCUMENT)]


def test_bytes_of_nothing_become_something() -> None:
    assert mutate_bytes(b"", Random(1))


def test_duplicate_of_a_whole_document_shares_nothing_with_it() -> None:
    one, other = duplicate({"tags": [{"name": "1.0"}]}, ())
    one["tags"].clear()
    assert other == {"tags": [{"name": "1.0"}]}
