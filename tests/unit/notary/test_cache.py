"""What is remembered between two runs."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from dtr_audit.errors import TrustDataError
from dtr_audit.trust.notary.cache import (
    DOCUMENTS,
    MARKS,
    MEMORY_BYTES,
    ROOT_BYTES,
    VERSIONS,
    TrustMemory,
    keep_signed,
    mark_reused,
    parse_memory,
)

GUN = "dtr.example.com/payments/api"
HASH, OTHER = "a" * 32, "b" * 32
MEMORY = TrustMemory(
    GUN,
    "2026-11-22T03:00:00.000Z",
    {"root": 1, "timestamp": 9, "snapshot": 2, "targets": 2, "targets/ci": 1},
    {"root": b"root", "snapshot": b"snapshot", "targets": b"targets", "targets/ci": b"ci"},
)


def test_what_is_kept_is_read_back() -> None:
    assert parse_memory(json.loads(json.dumps(MEMORY.as_dict()))) == MEMORY


def test_memory_with_hashes_of_documents_is_read_back() -> None:
    memory = mark_reused(
        replace(MEMORY, signed={"targets": (HASH, OTHER)}), {HASH: "web/shop", "0" * 32: "unknown/one"}
    )
    assert memory.reused == {HASH: "web/shop"}
    assert parse_memory(json.loads(json.dumps(memory.as_dict()))) == memory


def test_memory_of_a_version_without_hashes_is_read() -> None:
    form = MEMORY.as_dict()
    assert form.keys() == {"form", "gun", "since", "versions", "documents"}
    assert (parse_memory(form).signed, parse_memory(form).reused) == ({}, {})


def test_hashes_of_many_documents_are_bounded_and_the_newest_are_kept() -> None:
    earlier = {f"targets/{number}": tuple(f"{number:016x}{age:016x}" for age in range(40)) for number in range(300)}
    now = {f"targets/{number}": f"{number:032x}" for number in range(257)}
    kept = keep_signed(now, earlier)
    assert sum(map(len, kept.values())) <= DOCUMENTS
    assert {role: kept[role][0] for role in now} == now
    assert keep_signed({"targets": HASH}, {"targets": earlier["targets/1"]})["targets"][:2] == (
        HASH,
        earlier["targets/1"][0],
    )
    assert len(keep_signed({"targets": HASH}, {"targets": earlier["targets/1"]})["targets"]) == VERSIONS


def test_memory_with_most_hashes_and_marks_has_room_for_the_root() -> None:
    signed = {f"targets/{number:0246}": (f"{number:032x}", f"{number + 900:032x}") for number in range(256)}
    marks = {digest: "n" * 255 + "/" + "r" * 255 for hashes in signed.values() for digest in hashes}
    memory = mark_reused(
        replace(MEMORY, signed=signed, documents={**MEMORY.documents, "root": os.urandom(ROOT_BYTES)}), marks
    )
    assert len(memory.reused) == MARKS
    kept = json.dumps(memory.as_dict())
    assert len(kept) <= MEMORY_BYTES
    assert parse_memory(json.loads(kept)).signed == signed


def test_what_dynamodb_makes_of_it_is_read_back() -> None:
    kept = json.loads(json.dumps(MEMORY.as_dict()), parse_int=Decimal)
    assert parse_memory(kept) == MEMORY


def test_documents_that_do_not_fit_are_left_out_the_largest_first_and_the_root_last() -> None:
    big = replace(
        MEMORY,
        versions=dict.fromkeys([f"targets/{number:0246}" for number in range(250)], 2**31 - 1) | dict(MEMORY.versions),
        documents={**MEMORY.documents, "root": os.urandom(ROOT_BYTES), "targets": os.urandom(200_000)},
    )
    kept = json.dumps(big.as_dict())
    assert len(kept) <= MEMORY_BYTES
    assert set(parse_memory(json.loads(kept)).documents) == {"root", "snapshot", "targets/ci"}
    assert parse_memory(json.loads(kept)).versions == big.versions


def test_the_memory_shows_no_document_where_it_is_printed() -> None:
    assert "documents" not in repr(MEMORY)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda form: form.update(form=2),
        lambda form: form.pop("gun"),
        lambda form: form.update(gun="x" * 2_000),
        lambda form: form.update(since="yesterday"),
        lambda form: form.update(versions=[]),
        lambda form: form["versions"].update(root=0),
        lambda form: form["versions"].update(root=True),
        lambda form: form["versions"].update(root="1"),
        lambda form: form["versions"].update(root=2**40),
        lambda form: form["versions"].update(root=Decimal("1.5")),
        lambda form: form["versions"].update(root=Decimal("NaN")),
        lambda form: form["versions"].update({"../x": 1}),
        lambda form: form["versions"].update({f"targets/{number}": 1 for number in range(1_000)}),
        lambda form: form.update(signed=[]),
        lambda form: form.update(signed={"targets": HASH}),
        lambda form: form.update(signed={"targets": ["x" * 32]}),
        lambda form: form.update(signed={"../x": [HASH]}),
        lambda form: form.update(signed={"targets": [HASH] * (DOCUMENTS + 1)}),
        lambda form: form.update(reused={HASH: ""}),
        lambda form: form.update(reused={HASH: 1}),
        lambda form: form.update(reused={"x": "web/shop"}),
        lambda form: form["documents"].pop("root"),
        lambda form: form["documents"].update(root="no base64"),
        lambda form: form["documents"].update(root=base64.b64encode(b"not packed").decode()),
        lambda form: form["documents"].update(root=None),
        lambda form: form["documents"].update({"targets/..": form["documents"]["root"]}),
    ],
)
def test_a_memory_that_cannot_be_read_is_an_error_and_not_a_new_beginning(
    spoil: Callable[[dict[str, Any]], Any],
) -> None:
    form = json.loads(json.dumps(MEMORY.as_dict()))
    spoil(form)
    with pytest.raises(TrustDataError, match="remove it"):
        parse_memory(form)


def test_a_document_that_unpacks_without_end_is_not_unpacked() -> None:
    bomb = replace(MEMORY, documents={"root": bytes(50 * 1024 * 1024)}).as_dict()
    assert len(json.dumps(bomb)) < MEMORY_BYTES
    with pytest.raises(TrustDataError):
        parse_memory(bomb)
