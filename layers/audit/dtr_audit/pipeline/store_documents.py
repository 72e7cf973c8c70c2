"""The documents that the steps of a run leave for each other, and how they are read back."""

import gzip
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dtr_audit.core.counts import EXPIRING_NAMED, RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.finding import Finding
from dtr_audit.core.finding_codec import write_finding
from dtr_audit.core.manifest import StoredFile
from dtr_audit.core.model import OTHER_HOSTS_KEPT, Repository, SignedDocuments, is_name
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.request import BATCHES
from dtr_audit.core.reuse import DOCUMENTS, HASH_BYTES
from dtr_audit.core.run_record import Status, SupportingFact
from dtr_audit.core.run_state import UNREADABLE_KEPT, RunState
from dtr_audit.core.schema import (
    SchemaError,
    take_count,
    take_flag,
    take_list,
    take_name,
    take_object,
    take_sha256,
    take_text,
    take_time,
)
from dtr_audit.pipeline.store_findings import hold, sum_of

FACTS = 32
GZIP_LEVEL = 6

# The keys of the documents where the code has another name.
_KEYS = {"unnamed_entries": "ghosts", "access_unverified": "unproven", "finished": "settled"}


def _keys_of(kind: Any) -> list[str]:
    return [_KEYS.get(one.name, one.name) for one in fields(kind)]


def write_document(document: "Inventory | AccessCheck") -> dict[str, Any]:
    """Give a document as its JSON."""
    return {_KEYS.get(name, name): value for name, value in asdict(document).items()}


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the first step knows of the registry."""

    execution: str  # whose step it was
    connected: bool
    domains: tuple[str, ...]
    is_trust_verified: bool
    incomplete_because: tuple[str, ...]
    warnings: tuple[str, ...]
    listed: int
    counted: int  # as many there are, by the registry's own count where the list was not read to its end
    unnamed_entries: int
    listing_problem: str
    access_unverified: str  # why the list may not be an administrator's; '' if it is
    batches: int
    exceptions_found: bool  # they lie beside
    exceptions_version: str
    exceptions_problem: str  # why they could not be fetched
    facts: tuple[SupportingFact, ...] = ()  # what was seen beside the rule
    registry_version: str = ""

    settings: Mapping[str, str] = field(default_factory=dict)  # the SHA-256 of each that can change a verdict, by name
    batch_sums: tuple[str, ...] = ()  # the SHA-256 of each batch

    @classmethod
    def parse(cls, document: object) -> "Inventory":
        """Read it back; raises SchemaError for what is none."""
        kept = take_object(document, "$", _keys_of(cls))
        settings = kept["settings"]
        if not isinstance(settings, dict):
            raise SchemaError("$.settings: an object is needed")
        known = cls(
            execution=take_name(kept["execution"], "$.execution"),
            connected=take_flag(kept["connected"], "$.connected"),
            domains=_take_texts(kept["domains"], "$.domains"),
            is_trust_verified=take_flag(kept["is_trust_verified"], "$.is_trust_verified"),
            incomplete_because=_take_texts(kept["incomplete_because"], "$.incomplete_because"),
            warnings=_take_texts(kept["warnings"], "$.warnings"),
            listed=take_count(kept["listed"], "$.listed"),
            counted=take_count(kept["counted"], "$.counted"),
            unnamed_entries=take_count(kept["ghosts"], "$.ghosts"),
            listing_problem=take_text(kept["listing_problem"], "$.listing_problem"),
            access_unverified=take_text(kept["unproven"], "$.unproven"),
            batches=take_count(kept["batches"], "$.batches", most=BATCHES),
            exceptions_found=take_flag(kept["exceptions_found"], "$.exceptions_found"),
            exceptions_version=take_text(kept["exceptions_version"], "$.exceptions_version"),
            exceptions_problem=take_text(kept["exceptions_problem"], "$.exceptions_problem"),
            facts=tuple(take_list(kept["facts"], "$.facts", _take_fact, most=FACTS)),
            registry_version=take_text(kept["registry_version"], "$.registry_version"),
            settings={
                take_name(name, "$.settings"): take_sha256(sha256, f"$.settings.{name}")
                for name, sha256 in settings.items()
            },
            batch_sums=tuple(take_list(kept["batch_sums"], "$.batch_sums", take_sha256, most=BATCHES)),
        )
        hold(len(known.batch_sums) == known.batches, "$.batch_sums: there is not one for each batch")
        hold(bool(known.batches) == bool(known.listed), "$.batches: they do not agree with what was listed")
        hold(known.batches <= known.listed, "$.batches: there are more than repositories")
        hold(known.connected or bool(known.incomplete_because), "$.connected: nothing says why it is not")
        hold(known.connected or not known.listed, "$.listed: nothing can be, without a connection")
        hold(not known.connected or bool(known.domains), "$.domains: there is none")
        return known


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one batch. `tally` has the counts, and the names that go with them."""

    run_state: RunState
    scanned: tuple[Repository, ...] = ()
    left: tuple[Repository, ...] = ()  # those that were not examined, and are not gone either
    is_late: bool = False  # they were left for want of time
    gone: tuple[tuple[Repository, str], ...] = ()  # the registry answers 404, and in which words
    failed: tuple[tuple[Repository, str], ...] = ()  # met a fault that may pass, and are to be read once more
    removed: tuple[Repository, ...] = ()  # were gone, and are not listed any more
    access_unverified: str = ""  # why the reading may not be an administrator's; '' if it is
    documents: tuple[tuple[Repository, SignedDocuments], ...] = ()  # that make up the trust data of repositories
    files: tuple[StoredFile, ...] = ()  # of rows
    findings: int = 0
    findings_sha256: str = ""
    changed: tuple[str, ...] = ()  # the settings that were not those of the first step: nothing was examined
    sha256: str = ""  # of this document, where it has been read

    def as_dict(self) -> dict[str, Any]:
        """Give its form as JSON."""
        run_state = self.run_state
        return {
            "repositories": asdict(run_state.repositories),
            "tags": asdict(run_state.tags),
            "trust": asdict(run_state.trust),
            "unreadable": run_state.unreadable,
            "first_unknown": run_state.first_unknown,
            "other_hosts": run_state.other_hosts,
            "first_other_hosts": run_state.first_other_hosts,
            "examined": write_names(self.scanned),
            "left": write_names(self.left),
            "is_late": self.is_late,
            "gone": [[*_write_name(repository), problem] for repository, problem in self.gone],
            "failed": [[*_write_name(repository), reason] for repository, reason in self.failed],
            "removed": write_names(self.removed),
            "unproven": self.access_unverified,
            "documents": [
                {"repository": _write_name(repository), **asdict(signed)} for repository, signed in self.documents
            ],
            "files": [asdict(file) for file in self.files],
            "findings": self.findings,
            "findings_sha256": self.findings_sha256,
            "changed": list(self.changed),
        }

    @classmethod
    def parse(cls, document: object) -> "BatchResult":
        """Read it back; raises SchemaError for what is none, and for counts that contradict each other."""
        kept = take_object(document, "$", _RESULT_KEYS)
        image, why = _take_pair(kept["first_unknown"], "$.first_unknown")
        run_state = RunState(
            repositories=RepositoryCounts(**_take_counts(kept["repositories"], "$.repositories", RepositoryCounts)),
            tags=TagCounts(**_take_counts(kept["tags"], "$.tags", TagCounts)),
            trust=_take_trust(kept["trust"]),
            unreadable=take_list(kept["unreadable"], "$.unreadable", _take_pair, most=UNREADABLE_KEPT),
            first_unknown=(image, why),
            other_hosts=take_count(kept["other_hosts"], "$.other_hosts"),
            first_other_hosts=take_list(
                kept["first_other_hosts"], "$.first_other_hosts", _take_pair, most=OTHER_HOSTS_KEPT
            ),
        )
        result = cls(
            run_state=run_state,
            scanned=take_names(kept["examined"], "$.examined"),
            left=take_names(kept["left"], "$.left"),
            is_late=take_flag(kept["is_late"], "$.is_late"),
            gone=tuple(take_list(kept["gone"], "$.gone", _take_gone)),
            failed=tuple(take_list(kept["failed"], "$.failed", _take_gone)),
            removed=take_names(kept["removed"], "$.removed"),
            access_unverified=take_text(kept["unproven"], "$.unproven"),
            documents=tuple(take_list(kept["documents"], "$.documents", _take_documents)),
            files=tuple(take_list(kept["files"], "$.files", _take_file)),
            findings=take_count(kept["findings"], "$.findings"),
            findings_sha256=take_sha256(kept["findings_sha256"], "$.findings_sha256"),
            changed=_take_texts(kept["changed"], "$.changed"),
        )
        result._hold_together()
        return result

    def _hold_together(self) -> None:
        """Hold the counts against each other, and against the names; raises SchemaError."""
        run_state, repositories = self.run_state, self.run_state.repositories
        scanned = len(self.scanned)
        unfinished = (one for one, _ in (*self.gone, *self.failed))
        names = [*self.scanned, *self.left, *unfinished, *self.removed]
        hold(len(set(names)) == len(names), "$: a repository stands in it twice")
        hold(
            repositories.audited <= scanned <= repositories.audited + repositories.unreadable,
            "$.examined: as many were not counted",
        )
        hold(
            repositories.audited + repositories.unreadable <= scanned + len(self.left),
            "$.repositories: more were counted than are named",
        )
        signed = {repository for repository, _ in self.documents}
        hold(len(signed) == len(self.documents), "$.documents: a repository stands in it twice")
        hold(signed <= set(self.scanned), "$.documents: a repository was not examined")
        hold(repositories.removed == len(self.removed), "$.removed: as many were not counted")
        hold(
            len(run_state.unreadable) == min(repositories.unreadable, UNREADABLE_KEPT),
            "$.unreadable: as many were not counted",
        )
        hold(run_state.other_hosts <= scanned, "$.other_hosts: there are more than were examined")
        hold(
            len(run_state.first_other_hosts) == min(run_state.other_hosts, OTHER_HOSTS_KEPT),
            "$.first_other_hosts: as many were not counted",
        )
        hold(run_state.tags.audited + run_state.tags.artifacts == 0 or scanned > 0, "$.tags: nothing was examined")
        hold(
            bool(run_state.tags.unknown) == bool(run_state.first_unknown[0]),
            "$.first_unknown: it does not agree with $.tags",
        )
        hold(
            run_state.tags.cosign_only <= run_state.tags.failed,
            "$.tags: more findings are signed with Cosign than there are",
        )
        hold(self.findings >= run_state.tags.failed, "$.findings: there are fewer than tags that fail")
        hold(
            len(run_state.trust.first_expiring) == min(run_state.trust.expiring, EXPIRING_NAMED),
            "$.trust.first_expiring: as many were not counted",
        )
        hold(not (self.changed and self.scanned), "$.changed: yet something was examined")


@dataclass(frozen=True, slots=True)
class AccessCheck:
    """What was asked of the registry after the reading."""

    access_unverified: str  # why the account may not have been an administrator's to the end; '' if it was
    finished: bool  # repositories were gone in mid-run: what became of them is one batch more
    counted: tuple[str, ...] = ()  # the sum of each batch's result; '': there was none
    incomplete_because: tuple[str, ...] = ()
    hint: str = ""  # under which domain there is trust data
    changed: tuple[str, ...] = ()  # the settings that were not those of the first step: the registry was not asked

    def counts(self, number: int, result: BatchResult | None) -> bool:
        """Tell whether a result is the one that was seen: what has come since was not looked at by who settled the run."""
        is_seen = result is not None and number <= len(self.counted)
        return is_seen and result is not None and result.sha256 == self.counted[number - 1]

    @classmethod
    def parse(cls, document: object) -> "AccessCheck":
        """Read it back; raises SchemaError for what is none."""
        kept = take_object(document, "$", _keys_of(cls))
        return cls(
            access_unverified=take_text(kept["unproven"], "$.unproven"),
            finished=take_flag(kept["settled"], "$.settled"),
            counted=tuple(take_list(kept["counted"], "$.counted", _take_sum_or_none, most=BATCHES + 1)),
            incomplete_because=_take_texts(kept["incomplete_because"], "$.incomplete_because"),
            hint=take_text(kept["hint"], "$.hint"),
            changed=_take_texts(kept["changed"], "$.changed"),
        )


class FindingsFile:
    """The findings of one batch, written one by one into a temporary file."""

    def __init__(self) -> None:
        self.content = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.length = 0
        # No time in the header: the same findings give the same bytes.
        self._zip = gzip.GzipFile(fileobj=self.content, mode="wb", compresslevel=GZIP_LEVEL, mtime=0)

    def stand(self, finding: Finding) -> None:
        """Take a finding that stands as it is."""
        self._add(finding, is_waiting=False)

    def wait(self, finding: Finding) -> None:
        """Take a finding that is resolved once the reading is proven."""
        self._add(finding, is_waiting=True)

    def _add(self, finding: Finding, *, is_waiting: bool) -> None:
        line = json.dumps({"waits": is_waiting, "finding": write_finding(finding)}, separators=(",", ":"))
        self._zip.write(REDACTOR.redact_json(line).encode() + b"\n")
        self.length += 1

    def finish(self, *, of: str = "") -> str:
        """Take no more; gives the sum of the content, which is then read from its beginning.

        With `of`, an execution, a last line says that the file is its own, and how many findings there are.
        """
        if of:
            self._zip.write(json.dumps({"execution": of, "findings": self.length}).encode() + b"\n")
        self._zip.close()
        return sum_of(self.content)

    def close(self) -> None:
        """Remove the file."""
        self.content.close()


def _write_name(repository: Repository) -> list[str]:
    return [repository.namespace, repository.name]


def write_names(repositories: Iterable[Repository]) -> list[list[str]]:
    """Write repositories as JSON."""
    return [_write_name(repository) for repository in repositories]


_HASH = re.compile(f"[0-9a-f]{{{2 * HASH_BYTES}}}")
_RESULT_KEYS = frozenset(BatchResult(RunState()).as_dict())


def take_names(document: object, where: str) -> tuple[Repository, ...]:
    """Read repositories back; raises SchemaError."""
    return tuple(take_list(document, where, _take_repository))


def _take_repository(document: object, where: str) -> Repository:
    namespace, name = _take_pair(document, where)
    hold(is_name(namespace) and is_name(name), f"{where}: the name of a repository is needed")
    return Repository(namespace, name)


def _take_pair(document: object, where: str) -> tuple[str, str]:
    first, second = _take_row(document, where, 2)
    return first, second


def _take_gone(document: object, where: str) -> tuple[Repository, str]:
    namespace, name, problem = _take_row(document, where, 3)
    return Repository(namespace, name), problem


def _take_documents(document: object, where: str) -> tuple[Repository, SignedDocuments]:
    kept = take_object(document, where, ("repository", "current", "earlier", "reused"))
    current, earlier = (
        tuple(take_list(kept[name], f"{where}.{name}", _take_hash, most=DOCUMENTS)) for name in ("current", "earlier")
    )
    reused = take_text(kept["reused"], f"{where}.reused")
    return _take_repository(kept["repository"], f"{where}.repository"), SignedDocuments(current, earlier, reused)


def _take_hash(document: object, where: str) -> str:
    text = take_text(document, where)
    hold(_HASH.fullmatch(text) is not None, f"{where}: the hash of a document is needed")
    return text


def _take_row(document: object, where: str, width: int) -> list[str]:
    row = take_list(document, where, take_text, most=width)
    hold(len(row) == width, f"{where}: {width} texts are needed")
    return row


def _take_texts(document: object, where: str) -> tuple[str, ...]:
    return tuple(take_list(document, where, take_text))


def _take_sum_or_none(document: object, where: str) -> str:
    return "" if document == "" else take_sha256(document, where)


def _take_counts(document: object, where: str, of: type[RepositoryCounts | TagCounts]) -> dict[str, int]:
    kept = take_object(document, where, _keys_of(of))
    return {name: take_count(value, f"{where}.{name}") for name, value in kept.items()}


def _take_trust(document: object) -> TrustCounts:
    where = "$.trust"
    kept = take_object(document, where, _keys_of(TrustCounts))
    names = {one.name: one.type for one in fields(TrustCounts)}
    flags: dict[str, Any] = {one: take_flag(kept[one], f"{where}.{one}") for one in names if names[one] is bool}
    counts: dict[str, Any] = {one: take_count(kept[one], f"{where}.{one}") for one in names if names[one] is int}
    expiring = take_list(
        kept["first_expiring"], f"{where}.first_expiring", lambda row, at: _take_row(row, at, 3), most=EXPIRING_NAMED
    )
    return TrustCounts(
        required_signers=_take_texts(kept["required_signers"], f"{where}.required_signers"),
        first_expiring=[(name, role, take_time(when, f"{where}.first_expiring")) for name, role, when in expiring],
        **flags,
        **counts,
    )


def _take_file(document: object, where: str) -> StoredFile:
    kept = take_object(document, where, _keys_of(StoredFile))
    return StoredFile(
        key=take_name(kept["key"], f"{where}.key"),
        sha256=take_sha256(kept["sha256"], f"{where}.sha256"),
        size=take_count(kept["size"], f"{where}.size"),
    )


def _take_fact(document: object, where: str) -> SupportingFact:
    kept = take_object(document, where, _keys_of(SupportingFact))
    texts = {name: take_text(value, f"{where}.{name}") for name, value in kept.items()}
    return SupportingFact(texts["subject"], texts["answer"], texts["rule_id"], Status(texts["status"]))
