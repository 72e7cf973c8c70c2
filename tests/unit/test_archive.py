"""The rows that a run leaves, whatever stands in them."""

import gzip
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtr_audit.aws import archive
from dtr_audit.aws.archive import Archive, write_rows
from dtr_audit.core.finding import Excepted
from dtr_audit.core.model import RULE_ID, JudgedTag, Repository, Tag, TrustFlags, Verdict, iso

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
TEXTS = st.text(max_size=20)
FLAGS = st.none() | st.booleans()
TRUST = st.builds(TrustFlags, TEXTS, FLAGS, FLAGS)
TAGS = st.builds(Tag, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, FLAGS, st.just(()))
JUDGED = st.builds(
    JudgedTag,
    TAGS,
    st.none() | st.sampled_from(Verdict),
    TEXTS,
    st.none() | TRUST,
    st.lists(TEXTS, max_size=3).map(tuple),
    TEXTS,
)
EXCEPTED = st.builds(Excepted, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)


def row_of(
    registry: str, run_id: str, repository: Repository, judged: JudgedTag, excepted: Excepted | None
) -> dict[str, Any]:
    """A row as docs/contracts.md describes it."""
    tag, trust = judged.tag, judged.trust
    return {
        "registry": registry,
        "namespace": repository.namespace,
        "repository": repository.name,
        "tag": tag.name,
        "digest": tag.digest,
        "verdict": judged.verdict,
        "reason": judged.reason,
        "in_notary": trust.in_notary if trust else None,
        "hash_mismatch": trust.hash_mismatch if trust else None,
        "signed_domain": trust.domain if trust and judged.verdict == "SIGNED" else "",
        "signers": list(judged.signers),
        "trust_expires": judged.trust_expires or None,
        "cosign_signed": tag.cosign_signed,
        "artifact": judged.verdict is None,
        "exception_id": excepted.exception_id if excepted else None,
        "exception_ends": excepted.ends if excepted else None,
        "author": tag.author,
        "author_name": None,
        "pushed_at": tag.pushed_at,
        "media_type": tag.media_type,
        "rule_id": RULE_ID,
        "run_id": run_id,
        "audited_at": iso(AT),
    }


@given(TEXTS, TEXTS, st.builds(Repository, TEXTS, TEXTS), JUDGED, st.none() | EXCEPTED)
def test_a_row_is_letter_for_letter_what_json_makes_of_it(
    registry: str, run_id: str, repository: Repository, judged: JudgedTag, excepted: Excepted | None
) -> None:
    under = {judged.tag.name: excepted} if excepted else {}
    (line,) = write_rows(registry, run_id, repository, [judged], under, audited_at=AT)
    row = row_of(registry, run_id, repository, judged, excepted)
    assert line == json.dumps(row, separators=(",", ":")) + "\n"


class Bucket:
    """Keeps what is put into it."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}

    def put_object(self, **asked: Any) -> None:
        self.parts[asked["Key"]] = asked["Body"].read()

    def tags(self) -> list[list[str]]:
        return [
            [json.loads(line)["tag"] for line in gzip.decompress(part).splitlines()] for part in self.parts.values()
        ]


def fill(bucket: Bucket, *repositories: range) -> Archive:
    made = Archive(bucket, "bucket", "prod", "20261122T030000Z", "2026-11-22", confirm=lambda: None)  # type: ignore[arg-type]
    for number, names in enumerate(repositories):
        judged = [JudgedTag(Tag(str(name), "", "", "", "", None, ()), Verdict.UNKNOWN, "", None) for name in names]
        made.add(Repository("web", str(number)), judged, {}, audited_at=AT)
    made.close()
    return made


@pytest.mark.parametrize("together", [1, 2, 3, 500])
def test_parts_hold_no_more_rows_than_they_may_and_every_row_once(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(archive, "PART_ROWS", 4)
    monkeypatch.setattr(archive, "ROWS_TOGETHER", together)
    bucket = Bucket()
    fill(bucket, range(3), range(3, 3), range(3, 14), range(14, 16))
    assert [len(part) for part in bucket.tags()] == [4, 4, 4, 4]
    assert [tag for part in bucket.tags() for tag in part] == [str(n) for n in range(16)]


def test_a_part_is_closed_once_it_has_grown_past_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_BYTES", 1)
    monkeypatch.setattr(archive, "ROWS_TOGETHER", 5)
    bucket = Bucket()
    fill(bucket, range(12))
    assert len(bucket.parts) == 3
    assert [tag for part in bucket.tags() for tag in part] == [str(n) for n in range(12)]


def test_a_run_without_a_row_leaves_no_part() -> None:
    bucket = Bucket()
    fill(bucket, range(0))
    assert bucket.parts == {}


def test_the_sum_and_size_of_a_part_are_those_of_what_was_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_ROWS", 4)
    bucket = Bucket()
    made = fill(bucket, range(10))
    assert {file.key: (file.sha256, file.size) for file in made.files} == {
        key: (hashlib.sha256(part).hexdigest(), len(part)) for key, part in bucket.parts.items()
    }


def test_the_same_rows_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_ROWS", 4)
    first, second = Bucket(), Bucket()
    fill(first, range(10))
    fill(second, range(10))
    assert first.parts == second.parts


def test_rows_that_are_let_go_are_not_uploaded() -> None:
    bucket = Bucket()
    made = fill(bucket)
    judged = JudgedTag(Tag("1.0", "", "", "", "", None, ()), Verdict.UNKNOWN, "", None)
    made.add(Repository("web", "shop"), [judged], {}, audited_at=AT)
    made.discard()
    made.close()
    assert bucket.parts == {}
