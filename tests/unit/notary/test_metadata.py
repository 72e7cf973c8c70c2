"""What a document must be to be the one that was named, and how its parts are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from dtr_audit.errors import TrustDataError
from dtr_audit.trust.notary.metadata import FileHashes, is_delegation, key_id, parse_timestamp
from tests.unit.notary.publisher import Publisher, elliptic

BODY = b"a document"
NAMED = FileHashes(len(BODY), hashlib.sha256(BODY).digest(), hashlib.sha512(BODY).digest())


def test_a_document_is_the_one_that_is_named_by_length_and_by_every_hash() -> None:
    assert NAMED.matches(BODY)
    assert replace(NAMED, sha512=None).matches(BODY)
    assert not replace(NAMED, length=len(BODY) + 1).matches(BODY)
    assert not replace(NAMED, sha256=bytes(32)).matches(BODY)
    assert not replace(NAMED, sha512=bytes(64)).matches(BODY)


@pytest.mark.parametrize(
    "change",
    [lambda v: v[:-3] + "B==", lambda v: v[:4] + "\n" + v[4:], lambda v: v.rstrip("="), lambda v: v[:-1] + "é"],
)
def test_base64_has_one_form(change: Callable[[str], str]) -> None:
    document = json.loads(Publisher().publish()["timestamp"])
    entry = document["signatures"][0]
    assert parse_timestamp(json.dumps(document).encode())
    entry["sig"] = change(entry["sig"])
    with pytest.raises(TrustDataError, match="base64"):
        parse_timestamp(json.dumps(document).encode())


def test_the_id_of_a_key_is_that_of_its_canonical_form() -> None:
    key = elliptic()
    assert key_id(key.kind, key.public) == key.id


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("targets/ci", True),
        ("targets/ci/night-ly_2", True),
        ("targets", False),
        ("targets/", False),
        ("targets//ci", False),
        ("targets/ci/", False),
        ("targets/./ci", False),
        ("targets/ci\n", False),
        ("targets/ci%2f", False),
        ("targets/" + "a" * 247, True),
        ("targets/" + "a" * 248, False),
    ],
)
def test_names_of_delegations(name: str, is_one: bool) -> None:
    assert is_delegation(name) is is_one
