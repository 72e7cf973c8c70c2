"""Which documents are served in two places."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import pytest

from dtr_audit.core import reuse
from dtr_audit.core.model import JudgedTag, Repository, RepositoryReading, SignedDocuments, Tag, TrustFlags, Verdict
from dtr_audit.core.reuse import DocumentLedger
from dtr_audit.trust.notary.client import NotaryClient
from dtr_audit.trust.notary.policy import Pin, TrustPolicy
from dtr_audit.trust.tags import TrustVerifier, mark
from tests.unit.notary.publisher import DIGEST, Notary, Publisher, certified, elliptic

ONE, TWO, THREE = (Repository("a", name) for name in ("one", "two", "three"))
H1, H2, H3 = (digit * 32 for digit in "123")


@pytest.fixture
def ledger() -> Iterator[DocumentLedger]:
    ledger = DocumentLedger()
    yield ledger
    ledger.close()


def test_ledger_of_different_documents_finds_nothing(ledger: DocumentLedger) -> None:
    ledger.add(ONE, SignedDocuments((H1,), (H2,)))
    ledger.add(TWO, SignedDocuments((H3,)))
    assert ledger.find_reused() == {}


def test_ledger_with_a_document_of_two_repositories_finds_both(ledger: DocumentLedger) -> None:
    ledger.add(ONE, SignedDocuments((H1, H2)))
    ledger.add(TWO, SignedDocuments((H3, H2)))
    ledger.add(THREE, SignedDocuments((), (H2,)))
    assert ledger.find_reused() == {ONE: {H2: "a/three"}, TWO: {H2: "a/one"}, THREE: {H2: "a/one"}}


def test_ledger_with_a_document_that_is_served_nowhere_now_finds_nothing(ledger: DocumentLedger) -> None:
    ledger.add(ONE, SignedDocuments((H1,), (H2,)))
    ledger.add(TWO, SignedDocuments((H3,), (H2,)))
    assert ledger.find_reused() == {}


def test_ledger_leaves_out_repositories_that_are_distrusted_already(ledger: DocumentLedger) -> None:
    ledger.add(ONE, SignedDocuments((H1,), reused="known"))
    ledger.add(TWO, SignedDocuments((H1,)))
    assert ledger.find_reused() == {TWO: {H1: "a/one"}}


def test_ledger_of_many_documents_compares_them_in_several_passes(
    ledger: DocumentLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "RECORDS_OF_A_PASS", 100)
    many = [Repository("many", f"{number:04}") for number in range(1_000)]
    for number, repository in enumerate(many):
        ledger.add(repository, SignedDocuments((f"{number % 990:02x}".zfill(4)[-2:] + f"{number % 990:030x}",)))
    found = ledger.find_reused()
    assert set(found) == {*many[:10], *many[990:]}


def test_ledger_of_too_many_documents_has_a_problem(ledger: DocumentLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "RECORDS", 2)
    ledger.add(ONE, SignedDocuments((H1, H2)))
    assert not ledger.problem
    ledger.add(TWO, SignedDocuments((H1,)))
    assert "was not seen" in ledger.problem


class Everywhere:
    """One Notary that serves the same documents under every name."""

    def __init__(self) -> None:
        publisher = Publisher(root_key=certified("*"))
        publisher.delegate("targets/ci", elliptic())
        publisher.sign("targets", "1.0")
        self.root_keys = frozenset({publisher.roles["root"].keys[0].id})
        self._notary = Notary(publisher.publish())

    def fetch(self, gun: str, name: str, charge: object = None) -> bytes | None:
        return self._notary.fetch(self._notary.gun, name)

    def check_time(self) -> None:
        """There is time."""


def verified(
    *domains: str, memories: dict[str, str] | None = None, served: Everywhere | None = None
) -> RepositoryReading:
    notary = served or Everywhere()
    flags = tuple(TrustFlags(domain, True, False) for domain in domains)
    judged = JudgedTag(Tag("1.0", DIGEST, "", "", "", None, flags), Verdict.SIGNED, "", flags[0])
    policy = TrustPolicy(pins=(Pin("*", notary.root_keys),))
    verifier = TrustVerifier(cast(NotaryClient, notary), policy, at=datetime(2026, 11, 22, tzinfo=UTC))
    return verifier.verify(RepositoryReading(ONE, (judged,)), memories or {})


def test_repository_under_two_names_of_the_registry_has_each_document_once(ledger: DocumentLedger) -> None:
    reading = verified("dtr.example", "DTR.example:443", "other.example")
    assert {judged.verdict for judged in reading.tags} == {Verdict.SIGNED}
    assert reading.documents is not None
    assert len(reading.documents.current) == 1  # of targets; ci has signed nothing
    ledger.add(ONE, reading.documents)
    assert ledger.find_reused() == {}


def test_repository_without_image_tags_still_reports_what_is_remembered_of_it() -> None:
    (kept,) = verified("dtr.example").trust
    verifier = TrustVerifier(cast(NotaryClient, None), TrustPolicy(), at=datetime(2026, 11, 22, tzinfo=UTC))
    reading = verifier.verify(RepositoryReading(ONE), {"dtr.example": kept.memory, "broken": "{"})
    assert reading.documents is not None
    assert (len(reading.documents.current), len(reading.documents.earlier)) == (0, 1)


def test_documents_of_a_domain_that_is_not_audited_any_more_are_compared() -> None:
    (kept,) = verified("former.example").trust
    reading = verified("dtr.example", memories={"former.example": kept.memory})
    assert reading.documents is not None
    assert (len(reading.documents.current), len(reading.documents.earlier)) == (1, 1)


def test_document_marked_as_reused_under_a_former_domain_makes_the_repository_untrusted() -> None:
    served = Everywhere()
    first = verified("former.example", served=served)
    assert first.documents is not None
    memory = mark(first.trust[0].memory, {first.documents.current[0]: "dev/debug"})
    reading = verified("dtr.example", memories={"former.example": memory}, served=served)
    assert reading.documents is not None
    assert "dev/debug" in reading.documents.reused
