"""JSON as Notary signs it."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtr_audit.errors import TrustDataError
from dtr_audit.trust.notary.canonical import DEPTH, NUMBER_LIMIT, encode, parse

NUMBERS = st.integers(-NUMBER_LIMIT, NUMBER_LIMIT)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
@settings(deadline=None)
def test_what_is_written_is_read_back_however_it_was_laid_out(value: Any) -> None:
    assert parse(json.dumps(value, indent=2).encode(), "it") == value
    assert parse(json.dumps(value, ensure_ascii=False, sort_keys=True).encode(), "it") == value
    assert encode(parse(json.dumps(value).encode(), "it")) == encode(value)


@given(VALUES)
@settings(deadline=None)
def test_the_canonical_form_is_json_but_for_control_characters_in_texts(value: Any) -> None:
    plain = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    short = {"b": 8, "t": 9, "n": 10, "f": 12, "r": 13}
    pattern = re.compile(r'\\(?:u([0-9a-f]{4})|([btnfr])|(["\\]))')
    raw = pattern.sub(lambda m: chr(int(m[1], 16)) if m[1] else chr(short[m[2]]) if m[2] else m[0], plain)
    assert encode(value).decode() == raw


@given(VALUES, VALUES)
@settings(deadline=None)
def test_two_values_have_one_form_only_if_they_are_equal(one: Any, other: Any) -> None:
    is_same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)  # True is not 1 to JSON
    assert (encode(one) == encode(other)) is is_same


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"b": 1, "a": [True, None, -7]}, b'{"a":[true,null,-7],"b":1}'),
        ('a "quoted" \\ and\na line, \x7f, \u2028, <&>', 'a \\"quoted\\" \\\\ and\na line, \x7f, \u2028, <&>'),
        # In the order of their bytes, which is that of their code points, and not of UTF-16.
        ({"\U00010000": 1, "\uffff": 2, "Z": 3, "a": 4}, '{"Z":3,"a":4,"\uffff":2,"\U00010000":1}'.encode()),
    ],
)
def test_the_form_is_that_of_go(value: Any, form: bytes | str) -> None:
    assert encode(value) == (form if isinstance(form, bytes) else f'"{form}"'.encode())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "twice"),
        (b"[1.0]", "not whole"),
        (b"[1e3]", "not whole"),
        (b"[-0.5]", "not whole"),
        (b"[NaN]", "not whole"),
        (b"[Infinity]", "not whole"),
        (b"[-Infinity]", "not whole"),
        (b"[9007199254740992]", "not exact"),
        (b"[" + b"9" * 5_000 + b"]", "not exact"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "not JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not JSON"),
        (b'["\xff"]', "UTF-8"),
        (b"\xef\xbb\xbf[]", "not JSON"),
        (b"[01]", "not JSON"),
        (b"[1] [2]", "not JSON"),
        (b'["a\nb"]', "not JSON"),
        (b"", "not JSON"),
        (b"<!doctype html><html>", "HTML"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(TrustDataError, match=reason) as refused:
        parse(body, "the thing")
    assert str(refused.value).startswith("the thing: ")
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("value", [1.0, NUMBER_LIMIT + 1, b"bytes", ["\ud800"], {"a": {1, 2}}, float("nan")])
def test_what_json_does_not_hold_is_not_written(value: Any) -> None:
    with pytest.raises(TrustDataError):
        encode(value)


@given(st.binary(max_size=200) | st.text(alphabet='[]{}":,\\u0189dDeE.-+naltrufsNI \n', max_size=200).map(str.encode))
@settings(deadline=None)
def test_no_input_ends_in_anything_but_a_value_or_the_modules_own_error(body: bytes) -> None:
    try:
        value = parse(body, "it")
    except TrustDataError:
        return
    # What was read is what every reader of JSON reads.
    assert json.loads(body) == value
    assert encode(value) == encode(json.loads(body))
