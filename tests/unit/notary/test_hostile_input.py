"""Whatever a Notary answers: it is refused in the module's own words, or it is what the publisher signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtr_audit.errors import SettingsError, TrustDataError
from dtr_audit.trust.notary.cache import TrustMemory, parse_memory
from dtr_audit.trust.notary.changefeed import read_hosts
from dtr_audit.trust.notary.keys import certificates, load, public_key_id
from dtr_audit.trust.notary.metadata import Key, key_id, parse_root, parse_snapshot, parse_targets, parse_timestamp
from dtr_audit.trust.notary.policy import TrustPolicy
from dtr_audit.trust.notary.reading import Outcome
from dtr_audit.trust.notary.roots import check_authorities
from dtr_audit.trust.notary.verification import verify
from tests.unit.notary.publisher import GUN, NOW, Authority, Notary, Publisher, certified, edwards, elliptic, rivest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "root": parse_root,
    "timestamp": parse_timestamp,
    "snapshot": parse_snapshot,
    "targets": lambda body: parse_targets(body, "targets"),
    "targets/ci": lambda body: parse_targets(body, "targets/ci"),
}


def make_publisher() -> Publisher:
    publisher = Publisher()
    publisher.delegate("targets/ci")
    publisher.delegate("targets/releases")
    for role in publisher.targets:
        publisher.sign(role, "1.0")
    return publisher


PUBLISHER = make_publisher()
SERVED = PUBLISHER.publish()
HONEST = verify(Notary(dict(SERVED)), GUN, None, TrustPolicy(), NOW)
NAMES = {
    role: next(name for name in SERVED if name.rpartition(".")[0] == role)
    for role in ("snapshot", "targets", "targets/ci")
}
NAMES |= {"root": "root", "timestamp": "timestamp"}


def paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the way to every node of a document."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [before, *(path for key, child in inner for path in paths(child, (*before, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Replace one node of a document."""
    if not path:
        return value
    copy: Any = json.loads(json.dumps(document))
    node = copy
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copy


def assert_refused_or_honest(served: dict[str, bytes]) -> None:
    reading = verify(Notary(served), GUN, None, TrustPolicy(), NOW)
    if reading.outcome is Outcome.VERIFIED:
        assert reading.tags == HONEST.tags
    else:
        assert reading.reason
        assert not reading.tags


@pytest.mark.parametrize("role", PARSERS)
@given(body=st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=50, deadline=None)
def test_no_bytes_crash_a_parser_or_pass_it(role: str, body: bytes) -> None:
    with pytest.raises(TrustDataError):
        PARSERS[role](body)


@pytest.mark.parametrize("role", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_node_replaced_by_anything_is_refused_or_changes_nothing(role: str, data: st.DataObject) -> None:
    document = json.loads(SERVED[NAMES[role]])
    path = data.draw(st.sampled_from(paths(document)))
    forged = json.dumps(put(document, path, data.draw(JSON))).encode()
    assert_refused_or_honest(SERVED | {NAMES[role]: forged})


@pytest.mark.parametrize("role", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_byte_changed_is_refused_or_changes_nothing(role: str, data: st.DataObject) -> None:
    body = bytearray(SERVED[NAMES[role]])
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] ^= data.draw(st.integers(1, 255))
    assert_refused_or_honest(SERVED | {NAMES[role]: bytes(body)})


@pytest.mark.parametrize("role", ["root", "timestamp"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_publisher_who_signs_anything_crashes_nothing(role: str, data: st.DataObject) -> None:
    signed = json.loads(SERVED[role])["signed"]
    path = data.draw(st.sampled_from(paths(signed)[1:]))
    try:
        forged = PUBLISHER.envelope(role, put(signed, path, data.draw(JSON)))
    except UnicodeEncodeError:
        return
    reading = verify(Notary(SERVED | {role: forged}), GUN, None, TrustPolicy(), NOW)
    assert reading.outcome in {Outcome.VERIFIED, Outcome.DOES_NOT_HOLD, Outcome.UNREADABLE}


GOOD_KEYS = [elliptic(), edwards(), rivest(), certified(), certified(authority=Authority("Between", above=Authority()))]


@given(kind=st.sampled_from(["ecdsa", "ecdsa-x509", "rsa", "rsa-x509", "ed25519", "other"]), data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_bytes_crash_the_reading_of_a_key(kind: str, data: st.DataObject) -> None:
    good = bytearray(data.draw(st.sampled_from(GOOD_KEYS)).public)
    for _ in range(data.draw(st.integers(0, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    public = data.draw(st.sampled_from([bytes(good), data.draw(st.binary(max_size=50))]))
    key = Key(kind, public, key_id(kind, public))
    loaded = load(key)
    assert bool(public_key_id(key)) is (loaded is not None)
    certificates(key)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_nothing_but_a_memory_is_taken_for_one(value: Any) -> None:
    with pytest.raises(TrustDataError, match="trusted on first use"):
        parse_memory(value)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_memory_that_was_tampered_with_vouches_for_nothing_false(data: st.DataObject) -> None:
    assert HONEST.memory is not None
    form = HONEST.memory.as_dict()
    changed = put(form, data.draw(st.sampled_from(paths(form)[1:])), data.draw(JSON))
    try:
        memory = parse_memory(changed)
    except TrustDataError:
        return
    assert isinstance(memory, TrustMemory)
    if memory.gun != GUN:
        return
    reading = verify(Notary(dict(SERVED)), GUN, memory, TrustPolicy(), NOW)
    assert reading.tags == (HONEST.tags if reading.outcome is Outcome.VERIFIED else {})


@given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=100, deadline=None)
def test_no_answer_crashes_the_reading_of_the_changefeed(body: bytes) -> None:
    class Feed:
        def fetch_changes(self, records: int, after: str) -> bytes:
            return body

    try:
        hosts = read_hosts(Feed())
    except TrustDataError:
        return
    assert hosts.repositories == {}


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_text_is_taken_for_an_authority(pem: str) -> None:
    with pytest.raises(SettingsError, match="not a certificate"):
        check_authorities(pem)
