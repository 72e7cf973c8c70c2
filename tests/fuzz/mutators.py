"""Mutants of documents and answers: JSON by its structure, any file by its bytes. Pure: one seed gives the same mutants.

for name, mutant in mutate_each_place(document): ...   # every place, by a fixed list of changes
mutate_json(content, Random(7))                        # one or several changes, at random
mutate_bytes(content, Random(7))
"""

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Path = tuple[str | int, ...]

NESTED = 40  # levels: more than any document has; copies of it are made by recursion
DEEP = 100_000  # levels: more than Python's JSON reader follows
CHANGES = 4  # of one mutant, at most
LENGTH = 64  # bytes that one change of bytes concerns, at most

# What may stand where something else is expected.
STRANGERS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**40, 0.5, -0.0, float("nan"), float("inf")),
    *("", "x", "0", "true", "OPEN", "SIGNED", "\ud800", "\x00\x1b[2J", "\u202e", "../..", "a" * 20_000),
    *([], {}, [[]], {"": ""}, [None], ["a", "b"]),
)
HUGE = (-1, 10**12, 10**13, 2**63, 10**400)


def find_paths(document: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every place in a JSON value, the value itself first."""
    yield path
    if isinstance(document, dict):
        entries: list[tuple[str | int, Any]] = list(document.items())
    elif isinstance(document, list):
        entries = list(enumerate(document))
    else:
        return
    for key, value in entries:
        yield from find_paths(value, (*path, key))


def look_up(document: Any, path: Path) -> Any:
    """Give what stands at a path."""
    for key in path:
        document = document[key]
    return document


def put(document: Any, path: Path, value: Any) -> Any:
    """Give a copy of a document with another value at a path."""
    if not path:
        return value
    mutant = copy.deepcopy(document)
    # A copy of its own: what stands in two places would be changed in both.
    look_up(mutant, path[:-1])[path[-1]] = copy.deepcopy(value)
    return mutant


def delete(document: Any, path: Path) -> Any:
    """Give a copy of a document without what stands at a path."""
    if not path:
        return None
    mutant = copy.deepcopy(document)
    del look_up(mutant, path[:-1])[path[-1]]
    return mutant


def duplicate(document: Any, path: Path) -> Any:
    """Give a copy of a document in which an entry of a list stands twice, or an entry of an object under a second name."""
    if not path:
        return [document, copy.deepcopy(document)]
    mutant = copy.deepcopy(document)
    holder, key = look_up(mutant, path[:-1]), path[-1]
    if isinstance(holder, list):
        holder.insert(int(key), copy.deepcopy(holder[int(key)]))
    else:
        holder[f"{key}2"] = copy.deepcopy(holder[key])
    return mutant


def swap(document: Any, one: Path, other: Path) -> Any:
    """Give a copy of a document in which two places have each other's value; neither may lie within the other."""
    return put(put(document, one, look_up(document, other)), other, look_up(document, one))


def nest(value: Any, levels: int = NESTED) -> Any:
    """Give a value within so many lists."""
    for _ in range(levels):
        value = [value]
    return value


def change_slightly(value: Any) -> Iterator[Any]:
    """Yield values of the same type that differ from a value, and mean something else."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1, -value - 1, 0, value + 10**13)
    elif isinstance(value, str):
        yield from ("", f"{value}x", value[:-1], value.swapcase(), value[::-1])
    elif isinstance(value, list):
        yield from ([], value[:-1], value[1:], value[::-1], [*value, *copy.deepcopy(value)])
    elif isinstance(value, dict):
        yield from ({}, dict(list(value.items())[1:]))
    else:
        yield from (0, "", [])


def mutate_each_place(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield for every place of a JSON value each slight change, another type, and the value without it, with its name."""
    for path in find_paths(document):
        where = "/".join(map(str, path)) or "/"
        value = look_up(document, path)
        for number, changed in enumerate(change_slightly(value)):
            if changed != value or type(changed) is not type(value):
                yield f"{where}: change {number}", put(document, path, changed)
        stranger = {"a": "map"} if not isinstance(value, dict) else "a text"
        yield f"{where}: another type", put(document, path, stranger)
        if path:
            yield f"{where}: deleted", delete(document, path)
            yield f"{where}: duplicated", duplicate(document, path)


def mutate_structure(document: Any, random: Random) -> Any:
    """Give a JSON value with one place changed at random."""
    paths = list(find_paths(document))
    path, other = random.choice(paths), random.choice(paths)
    value = look_up(document, path)
    is_within = path == other[: len(path)] or other == path[: len(other)]
    changes: tuple[Callable[[], Any], ...] = (
        lambda: delete(document, path),
        lambda: duplicate(document, path),
        lambda: document if is_within else swap(document, path, other),
        lambda: put(document, path, random.choice(STRANGERS)),
        lambda: put(document, path, random.choice(HUGE)),
        lambda: put(document, path, nest(value)),
        lambda: put(document, path, random.choice(list(change_slightly(value)))),
    )
    return random.choice(changes)()


def mutate_json(content: bytes, random: Random) -> bytes:
    """Give a JSON document with one or several places changed; sometimes with a key twice, or nested too deep to be read."""
    document = json.loads(content)
    for _ in range(random.randint(1, CHANGES)):
        document = mutate_structure(document, random)
    text = json.dumps(document)
    kind = random.randrange(20)
    if kind == 0 and isinstance(document, dict) and document:
        key = random.choice(list(document))
        duplicate = json.dumps({key: random.choice(STRANGERS)})
        return f"{duplicate[:-1]}, {text[1:]}".encode()
    if kind == 1:
        return b"[" * DEEP + text.encode() + b"]" * DEEP
    return text.encode()


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """Give a file with one or several changes of its bytes: flipped, cut, spliced, duplicated, inserted."""
    for _ in range(random.randint(1, CHANGES)):
        content = _mutate_bytes_once(content, random)
    return content


def _mutate_bytes_once(content: bytes, random: Random) -> bytes:
    if not content:
        return random.randbytes(random.randint(1, LENGTH))
    at, other = random.randrange(len(content)), random.randrange(len(content))
    end = min(len(content), at + random.randint(1, LENGTH))
    flipped = bytes([content[at] ^ (1 << random.randrange(8))])
    changes = (
        content[:at] + flipped + content[at + 1 :],
        content[:at],
        content[:at] + content[end:],  # cut
        content[:end] + content[at:],  # duplicated
        content[:at] + content[other : other + LENGTH] + content[at:],  # spliced
        content[:at] + random.randbytes(end - at) + content[at:],
    )
    return random.choice(changes)
