"""Trust verified, not believed: the tags of a repository judged by the Notary's own metadata, beside the registry's word.

Loaded only where the settings ask for it, and with it `cryptography`.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dtr_audit.core.hosts import canonical_host
from dtr_audit.core.model import (
    FINDING_VERDICTS,
    JudgedTag,
    PassingFault,
    Repository,
    RepositoryReading,
    SignedDocuments,
    TrustSeen,
    Verdict,
    iso,
)
from dtr_audit.core.reuse import Reused, distrust, explain_elsewhere, explain_roles
from dtr_audit.core.rule import name_cosign
from dtr_audit.core.text import clean
from dtr_audit.errors import TrustDataError
from dtr_audit.http.memory_budget import BUDGET, Charge, NoRoomError, estimate_parsed
from dtr_audit.trust.notary.cache import (
    FORM,
    REFUSED,
    TrustMemory,
    mark_reused,
    parse_memory,
    parse_refusal,
    parse_reused,
    parse_signed,
)
from dtr_audit.trust.notary.client import NotaryClient
from dtr_audit.trust.notary.policy import TrustPolicy, compare, expiring
from dtr_audit.trust.notary.reading import Anchor, Defect, Outcome, TrustReading
from dtr_audit.trust.notary.verification import verify

REASON_LENGTH = 400
TRUST_BYTES = 192 * 1024 * 1024  # of memory for the trust data of one repository
VERIFIED_FACTOR = 2  # times what it takes to parse a document: it is also written in its canonical form
KEPT_FACTOR = 6  # times a document's text, of what is kept of it until the repository is judged
MEMORY_FACTOR = 16  # times what is remembered, which is compressed
REFUSAL_TEXT = 256  # characters; a memory with a root is longer
EXPIRIES_LISTED = 5  # of one repository, the first to come

# Signed under one domain is enough; what could not be read comes next, for it may be signed there.
_BEST_FIRST = (Verdict.SIGNED, Verdict.UNKNOWN, Verdict.UNTRUSTED, Verdict.MISMATCHED, Verdict.UNSIGNED)


@dataclass(frozen=True, slots=True)
class _Recalled:
    """What earlier runs have left of one GUN."""

    memory: TrustMemory | None = None
    refused: str = ""  # what was too much work
    problem: str = ""  # why it cannot be read


@dataclass(frozen=True, slots=True)
class _Remembered:
    """The signed documents that earlier runs have seen in a repository under one domain."""

    signed: Mapping[str, tuple[str, ...]]  # role -> hashes
    reused: Mapping[str, str]  # hash -> the other repository that serves this document


class TrustVerifier:
    """Verifies one repository after the other, as of one moment. Safe to share between threads."""

    def __init__(
        self, notary: NotaryClient, policy: TrustPolicy, *, at: datetime, reused: Reused | None = None
    ) -> None:
        """Prepare; `reused` are repositories with a document that this very run has seen in another one too."""
        self._notary = notary
        self._policy = policy
        self._at = at
        self._reused = reused or {}

    def verify(self, reading: RepositoryReading, memories: Mapping[str, str]) -> RepositoryReading:
        """Judge the tags of a repository anew; `memories` is what earlier runs have left, by domain.

        Asks nothing for a repository without image tags. Raises OutOfTimeError; whatever else is wrong with the trust data is a
        verdict.
        """
        domains = dict.fromkeys(
            flags.domain for judged in reading.tags if not judged.is_artifact for flags in judged.tag.trust
        )
        readings = {domain: self._read(reading.repository, domain, _text_of(memories, domain)) for domain in domains}
        if any(text and not _is_refusal(text) for text in memories.values()):
            # Whoever cannot renew the root that is known would otherwise begin anew under another name.
            readings = {domain: _without_first_use(one) for domain, one in readings.items()}
        marks = self._reused.get(reading.repository, {})
        remembered = _find_remembered(readings, memories)
        served = dict.fromkeys(digest for one in readings.values() for digest in one.signed.values())
        reason = _find_reuse(served, remembered, marks)
        tags = tuple(self._judge(judged, readings) for judged in reading.tags)
        return replace(
            reading,
            tags=tuple(distrust(judged, reason) for judged in tags) if reason else tags,
            trust=tuple(self._sum_up(domain, one, memories.get(domain, ""), marks) for domain, one in readings.items()),
            documents=SignedDocuments(tuple(served), _find_earlier(served, remembered), reused=reason),
            fault=reading.fault or _first_fault(readings.values()),
        )

    def _read(self, repository: Repository, domain: str, remembered: str) -> TrustReading:
        gun = f"{domain}/{repository}"
        recalled = _recall(remembered)
        if recalled.problem:
            return TrustReading(gun, Outcome.UNREADABLE, recalled.problem, None)
        try:
            with BUDGET.charge(TRUST_BYTES, waits_connected=False) as charge:
                return self._verify(charge, gun, remembered, recalled)
        except NoRoomError:
            pass
        # Once more from its beginning, in the large place: it was waited for with empty hands.
        with BUDGET.large_charge(TRUST_BYTES, self._notary.check_time) as charge:
            return self._verify(charge, gun, remembered, recalled)

    def _verify(self, charge: Charge, gun: str, remembered: str, recalled: "_Recalled") -> TrustReading:
        source = _ChargedSource(self._notary, charge)
        source.keep(MEMORY_FACTOR * len(remembered))
        return verify(source, gun, recalled.memory, self._policy, self._at, refused=recalled.refused)

    def _judge(self, judged: JudgedTag, readings: Mapping[str, TrustReading]) -> JudgedTag:
        if judged.is_artifact or (judged.verdict is Verdict.UNKNOWN and not _is_expired(judged, readings)):
            return judged
        tag = judged.tag
        judgements = [
            (compare(readings[flags.domain], tag.name, tag.digest, flags, self._policy), flags) for flags in tag.trust
        ]
        best, flags = min(judgements, key=lambda one: _BEST_FIRST.index(one[0].verdict))
        reason = clean(best.reason, REASON_LENGTH)
        if best.verdict in FINDING_VERDICTS:
            reason = name_cosign(tag, best.verdict, reason)
        return judged._replace(
            verdict=best.verdict,
            reason=reason,
            trust=flags,
            signers=tuple(clean(name, REASON_LENGTH) for name in best.signers),
            trust_expires=iso(best.expires.when) if best.expires else "",
        )

    def _sum_up(self, domain: str, reading: TrustReading, remembered: str, marks: Mapping[str, str]) -> TrustSeen:
        memory = _to_json(mark_reused(reading.memory, marks) if reading.memory else None, reading.refused)
        soon = expiring(reading, self._policy, self._at)[:EXPIRIES_LISTED]
        return TrustSeen(
            domain=domain,
            outcome=str(reading.outcome),
            reason=clean(reading.reason, REASON_LENGTH),
            is_first_use=reading.anchor is Anchor.FIRST_USE,
            notes=tuple(clean(note, REASON_LENGTH) for note in reading.notes),
            expiring=tuple((clean(expiry.role, REASON_LENGTH), iso(expiry.when)) for expiry in soon),
            memory="" if memory == remembered else memory,
        )


class _ChargedSource:
    """A Notary whose documents are charged to the memory budget."""

    def __init__(self, notary: NotaryClient, charge: Charge) -> None:
        self._notary = notary
        self._charge = charge
        self._kept = 0  # bytes

    def keep(self, size: int) -> None:
        """Charge so many bytes more until the repository is judged."""
        self._kept += size
        self._charge.grow(self._kept, self._notary.check_time)

    def fetch(self, gun: str, name: str) -> bytes | None:
        # What came before has been parsed.
        self._charge.shrink(self._kept)
        body = self._notary.fetch(gun, name, self._charge)
        if body is not None:
            self._charge.grow(self._kept + VERIFIED_FACTOR * estimate_parsed(body), self._notary.check_time)
            self._kept += KEPT_FACTOR * len(body)
        return body


def mark(remembered: str, reused: Mapping[str, str]) -> str:
    """Add to what is remembered of a GUN which of its documents are served in another repository too."""
    recalled = _recall(remembered)
    if recalled.memory is None:
        return remembered
    return _to_json(mark_reused(recalled.memory, reused), recalled.refused)


def _text_of(memories: Mapping[str, str], domain: str) -> str:
    """Give what is remembered under a domain, else under the first other spelling of it; '' if nothing is."""
    host = canonical_host(domain)
    spellings = (domain, *sorted(one for one in memories if canonical_host(one) == host))
    return next((memories[one] for one in spellings if memories.get(one)), "")


def _recall(remembered: str) -> _Recalled:
    if not remembered:
        return _Recalled()
    value = _from_json(remembered)
    refused, is_all = parse_refusal(value)
    if is_all:
        return _Recalled(refused=refused)
    try:
        return _Recalled(parse_memory(value), refused)
    except TrustDataError as error:
        return _Recalled(problem=str(error))


def _is_refusal(remembered: str) -> bool:
    """Tell whether nothing but a refusal is remembered, so that no root is known."""
    return len(remembered) < REFUSAL_TEXT and _recall(remembered).refused != ""


def _is_expired(judged: JudgedTag, readings: Mapping[str, TrustReading]) -> bool:
    """Tell whether all trust data that could sign a tag has expired.

    Of what the registry does not say, the Notary alone proves nothing else: under expired trust data nothing is signed.
    """
    trust = judged.tag.trust
    return bool(trust) and all(readings[flags.domain].defect is Defect.EXPIRED for flags in trust)


def _first_fault(readings: Iterable[TrustReading]) -> PassingFault | None:
    fault = next((reading.fault for reading in readings if reading.fault is not None), None)
    return replace(fault, reason=clean(fault.reason, REASON_LENGTH)) if fault is not None else None


def _find_remembered(readings: Mapping[str, TrustReading], memories: Mapping[str, str]) -> list[_Remembered]:
    """Give the signed documents of each reading, and of each domain that is remembered and was not read.

    A repository keeps its documents when the domains of the audit change, so they are compared under all of them.
    """
    known = [reading.memory for reading in readings.values() if reading.memory is not None]
    found = [_Remembered(memory.signed, memory.reused) for memory in known]
    for domain, text in memories.items():
        if domain in readings:
            continue
        value = _from_json(text)
        try:
            found.append(_Remembered(parse_signed(value), parse_reused(value)))
        except TrustDataError:
            continue  # the domain's own reading reports it, if there is one
    return found


def _find_reuse(served: Collection[str], remembered: Sequence[_Remembered], marks: Mapping[str, str]) -> str:
    """Say why no signature of a repository counts, if one of its documents is served in another place too; '' if none is."""
    if marks:
        return explain_elsewhere(list(marks.values()))
    elsewhere = [other for one in remembered for digest, other in one.reused.items() if digest in served]
    if elsewhere:
        return explain_elsewhere(elsewhere)
    roles: dict[str, set[str]] = {}
    for one in remembered:
        for role, hashes in one.signed.items():
            for digest in hashes:
                if digest in served:
                    roles.setdefault(digest, set()).add(role)
    return next((explain_roles(sorted(names)) for _, names in sorted(roles.items()) if len(names) > 1), "")


def _find_earlier(served: Collection[str], remembered: Sequence[_Remembered]) -> tuple[str, ...]:
    """Give the hashes of the documents that are remembered and not served now, each once."""
    kept = dict.fromkeys(digest for one in remembered for hashes in one.signed.values() for digest in hashes)
    return tuple(digest for digest in kept if digest not in served)


def _without_first_use(reading: TrustReading) -> TrustReading:
    if reading.anchor is not Anchor.FIRST_USE:
        return reading
    reason = (
        "root not pinned: it is seen here for the first time, and the repository's root is known under another domain. If the "
        "publisher confirms it, pin it"
    )
    return TrustReading(reading.gun, Outcome.DOES_NOT_HOLD, reason, None, Defect.NOT_PINNED)


def _from_json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return None  # which is no memory
    return value


def _to_json(memory: TrustMemory | None, refused: str) -> str:
    if memory is None and not refused:
        return ""
    value = memory.as_dict() if memory is not None else {"form": FORM}
    return json.dumps(value | ({REFUSED: refused} if refused else {}), separators=(",", ":"), sort_keys=True)
