"""What the steps leave each other: it comes back as it was left, or not at all."""

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from dtr_audit.core.counts import RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.manifest import StoredFile
from dtr_audit.core.model import Repository, SignedDocuments
from dtr_audit.core.request import BATCHES
from dtr_audit.core.run_record import Status, SupportingFact
from dtr_audit.core.run_state import UNREADABLE_KEPT, RunState
from dtr_audit.core.schema import SchemaError
from dtr_audit.errors import StepTakenOverError, WorkError
from dtr_audit.pipeline import steps
from dtr_audit.pipeline import store as work_documents
from dtr_audit.pipeline.store import DOCUMENT_BYTES, Work
from dtr_audit.pipeline.store_documents import AccessCheck, BatchResult, FindingsFile, Inventory, write_document

SHOP, TILL, GONE = Repository("web", "shop"), Repository("web", "till"), Repository("web", "gone")

SHA256 = "0" * 64
INVENTORY = Inventory(
    execution="one",
    connected=True,
    domains=("dtr.example.mil",),
    is_trust_verified=True,
    incomplete_because=("a", "b"),
    warnings=(),
    listed=7,
    counted=8,
    unnamed_entries=1,
    listing_problem="",
    access_unverified="nobody knows",
    batches=2,
    exceptions_found=True,
    exceptions_version="v1",
    exceptions_problem="",
    facts=(SupportingFact("subject", "answer", "V-1", Status.OPEN),),
    settings={"DTR_URL": "1" * 64},
    batch_sums=(SHA256, SHA256),
)
ACCESS_CHECK = AccessCheck(
    access_unverified="",
    finished=True,
    counted=(SHA256, "", "2" * 64),
    incomplete_because=("late",),
    hint="dtr.example.mil",
)
RESULT = BatchResult(
    RunState(
        repositories=RepositoryCounts(listed=3, audited=1, unreadable=1),
        tags=TagCounts(signed=3, unknown=1),
        trust=TrustCounts(verified=1, expiring=1, first_expiring=[("web/shop", "targets", "2027-01-01T00:00:00.000Z")]),
        unreadable=[("web/till", "500")],
        first_unknown=("web/shop:1", "why"),
    ),
    scanned=(SHOP,),
    left=(TILL,),
    is_late=True,
    gone=((GONE, "404"),),
    access_unverified="nobody knows",
    documents=((SHOP, SignedDocuments(("a" * 32, "b" * 32), ("c" * 32,), "re-used")),),
    files=(StoredFile("findings/registry=prod/dt=2026-12-01/run-00001-001.jsonl.gz", "0" * 64, 12),),
)


class _Body(io.BytesIO):
    """An answer's body that still says, once it is closed, how far it was read."""

    def close(self) -> None:
        """Stay open."""


class Bucket:
    """S3 as one caller sees it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.bodies: list[io.BytesIO] = []  # of what was asked for

    def put_object(self, *, Key: str, Body: Any, **_: Any) -> None:  # noqa: N803 - as boto3 names them
        self.objects[Key] = Body if isinstance(Body, bytes) else Body.read()

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        self.bodies.append(_Body(self.objects[Key]))
        return {"Body": self.bodies[-1]}


def work(bucket: Bucket) -> Work:
    return Work(bucket, "bucket", "prod", "run")  # type: ignore[arg-type]


def test_every_document_comes_back_as_it_was_left() -> None:
    one = work(Bucket())
    assert (one.inventory("one", ""), one.access_check(INVENTORY, ""), next(one.results([1]))) == (
        None,
        None,
        (1, None),
    )
    inventory = one.put_inventory(INVENTORY)
    access_check = one.put_access_check(ACCESS_CHECK)
    findings = FindingsFile()
    whole = replace(RESULT, findings_sha256=findings.finish())
    sha256 = one.put_result(1, whole, findings)
    findings.close()
    assert (one.inventory("one", inventory), one.access_check(INVENTORY, access_check)) == (INVENTORY, ACCESS_CHECK)
    assert one.inventory("another", inventory) is None
    ((_, result),) = one.results([1])
    assert result is not None
    assert result.sha256 == sha256
    assert json.dumps(result.as_dict()) == json.dumps(whole.as_dict())
    assert replace(result.run_state, trust=RESULT.run_state.trust) == RESULT.run_state
    assert (result.scanned, result.left, result.gone) == (RESULT.scanned, RESULT.left, RESULT.gone)
    assert list(one.findings(1, result)) == []
    assert one.damage == []


def test_a_document_with_another_sum_than_the_machine_carries_is_none() -> None:
    one = work(Bucket())
    one.put_inventory(INVENTORY)
    one.put_access_check(ACCESS_CHECK)
    one.put_batches([[SHOP]])
    one.put("exceptions.json", b"{}")
    for read in (
        lambda: one.inventory("one", SHA256),
        lambda: one.access_check(INVENTORY, SHA256),
        lambda: one.batch(1, INVENTORY),
        lambda: one.copy("exceptions.json", SHA256),
    ):
        with pytest.raises(WorkError, match="its SHA-256 is another"):
            read()


def test_a_verification_that_counts_other_batches_is_none() -> None:
    one = work(Bucket())
    sha256 = one.put_access_check(replace(ACCESS_CHECK, counted=ACCESS_CHECK.counted[1:]))
    with pytest.raises(WorkError, match=r"\$\.counted"):
        one.access_check(INVENTORY, sha256)


def read_result(one: Work) -> BatchResult:
    ((_, result),) = one.results([1])
    if result is None:
        raise WorkError("results/00001.json: no result")
    return result


def sum_of(one: Work, name: str) -> str:
    return hashlib.sha256(one.read(name) or b"").hexdigest()


DOCUMENTS: list[tuple[str, dict[str, Any], Callable[[Work], object]]] = [
    (
        "inventory.json",
        write_document(replace(INVENTORY, facts=())),
        lambda one: one.inventory("one", sum_of(one, "inventory.json")),
    ),
    (
        "proof.json",
        write_document(ACCESS_CHECK),
        lambda one: one.access_check(INVENTORY, sum_of(one, "proof.json")),
    ),
    ("results/00001.json", {**RESULT.as_dict(), "findings_sha256": SHA256}, read_result),
]


@pytest.mark.parametrize(("name", "document", "read"), DOCUMENTS)
def test_a_document_that_lacks_anything_is_none(
    name: str, document: dict[str, Any], read: Callable[[Work], object]
) -> None:
    bucket = Bucket()
    bucket.objects[f"work/registry=prod/run/{name}"] = json.dumps(document).encode()
    read(work(bucket))
    for left_out in document:
        less = {key: value for key, value in document.items() if key != left_out}
        bucket.objects[f"work/registry=prod/run/{name}"] = json.dumps(less).encode()
        with pytest.raises(WorkError, match=name):
            read(work(bucket))
    for content in (b"", b"{", b"null", b"[]", b'"x"', b"[" * 100_000):
        bucket.objects[f"work/registry=prod/run/{name}"] = content
        with pytest.raises(WorkError, match=name):
            read(work(bucket))


def test_that_s3_fails_is_no_missing_document() -> None:
    class Failing(Bucket):
        def get_object(self, **_: Any) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": "SlowDown"}}, "GetObject")

    with pytest.raises(ClientError):
        work(Failing()).inventory("one", SHA256)


@given(st.integers(0, 2_000))
def test_batches_hold_every_repository_once_and_are_never_too_many(count: int) -> None:
    repositories = [Repository("web", f"{number:06d}") for number in range(count)]
    batches = steps.split(repositories)
    assert sorted(one for batch in batches for one in batch) == repositories
    assert len(batches) <= BATCHES
    assert not batches or max(map(len, batches)) - min(map(len, batches)) <= 1
    assert max(map(len, batches), default=0) <= steps.BATCH_REPOSITORIES


def test_a_million_repositories_make_no_more_batches_than_may_be() -> None:
    batches = steps.split([Repository("web", "x")] * 1_000_000)
    assert len(batches) == BATCHES
    assert {len(batch) for batch in batches} == {200}


@given(st.permutations(range(12)), st.integers(1, 11))
def test_what_was_seen_in_parts_and_in_any_order_is_what_was_seen_at_once(order: list[int], cut: int) -> None:
    def see(numbers: list[int]) -> RunState:
        run_state = RunState()
        for number in numbers:
            run_state.note_unreadable(Repository("web", f"{number:03d}"), "why")
            run_state.note_unknown(f"web/{number:03d}:1", "why")
            run_state.tags.unknown += 1
            run_state.trust.verified += 1
            run_state.trust.keep_expiring([(f"web/{number:03d}", "targets", f"2027-01-{number + 1:02d}")])
        return run_state

    whole = RunState()
    whole.add(see(order[:cut]))
    whole.add(see(order[cut:]))
    assert whole == see(sorted(order))


def test_those_that_could_not_be_read_are_kept_first_by_name() -> None:
    run_state = RunState()
    for number in reversed(range(3 * UNREADABLE_KEPT)):
        run_state.note_unreadable(Repository("web", f"{number:04d}"), "why")
    assert run_state.repositories.unreadable == 3 * UNREADABLE_KEPT
    assert [name for name, _ in run_state.unreadable] == [f"web/{number:04d}" for number in range(UNREADABLE_KEPT)]


@pytest.mark.parametrize("content", [None, b"", b"\x00", b"another"])
def test_a_claim_that_is_not_this_attempts_ends_it_and_the_next_attempt_claims_again(content: bytes | None) -> None:
    bucket = Bucket()
    one = work(bucket)
    one.claim("report", "first")
    one.confirm("report", "first")
    if content is None:
        del bucket.objects["work/registry=prod/run/claims/report"]
    else:
        bucket.objects["work/registry=prod/run/claims/report"] = content
    with pytest.raises(StepTakenOverError):
        one.confirm("report", "first")
    one.claim("report", "second")
    one.confirm("report", "second")


def test_a_document_that_is_larger_than_any_that_a_step_leaves_is_none() -> None:
    bucket = Bucket()
    bucket.objects["work/registry=prod/run/results/00001.json"] = b" " * (2 * DOCUMENT_BYTES)
    one = work(bucket)
    assert next(one.results([1])) == (1, None)
    assert f"it is larger than {DOCUMENT_BYTES} bytes" in one.damage[0]


@pytest.mark.parametrize("limit", ["FINDINGS_BYTES", "UNPACKED_BYTES"])
def test_file_of_closed_findings_that_is_too_large_is_refused_and_not_copied_to_its_end(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_documents, limit, 1_000)
    bucket = Bucket()
    content = gzip.compress(b"{}" + b" " * 100_000 + b"\n", 0 if limit == "FINDINGS_BYTES" else 9)
    bucket.objects["work/registry=prod/run/closed.findings.jsonl.gz"] = content
    with pytest.raises(WorkError, match="it is larger than 1000 bytes"):
        work(bucket).closed("one")
    read = bucket.bodies[-1].tell()
    assert read == (1_001 if limit == "FINDINGS_BYTES" else len(content))


def test_the_largest_result_of_a_batch_is_read() -> None:
    """Of 200 repositories, each with as many hashes of signed documents as are remembered under two domains."""
    hashes = tuple(f"{number:032x}" for number in range(512))
    names = tuple(Repository("n" * 60, f"{number:03d}" + "r" * 60) for number in range(200))
    documents = tuple((name, SignedDocuments(hashes, hashes, "")) for name in names)
    run_state = RunState(repositories=RepositoryCounts(audited=200))
    whole = BatchResult(run_state, scanned=names, documents=documents, findings_sha256=SHA256)
    one = work(Bucket())
    findings = FindingsFile()
    one.put_result(1, whole, findings)
    findings.close()
    ((_, result),) = one.results([1])
    assert result is not None, one.damage
    assert result.documents == documents


@pytest.mark.parametrize(
    "spoil",
    [
        lambda documents: documents[0].pop("reused"),
        lambda documents: documents[0].update(current="a" * 32),
        lambda documents: documents[0].update(current=["a" * 31]),
        lambda documents: documents[0].update(earlier=["A" * 32]),
        lambda documents: documents[0].update(repository=["web", "till"]),
        lambda documents: documents.append(documents[0]),
    ],
)
def test_result_with_damaged_documents_is_none(spoil: Callable[[list[dict[str, Any]]], Any]) -> None:
    form = json.loads(json.dumps(replace(RESULT, findings_sha256=SHA256).as_dict()))
    assert BatchResult.parse(form).documents == RESULT.documents
    spoil(form["documents"])
    with pytest.raises(SchemaError, match="documents"):
        BatchResult.parse(form)
