"""What the steps of one run leave each other in S3, below `work/registry=<name>/<run_id>/`.

    exceptions.json, trust-pins.json   the documents that people keep, as the first step read them: all workers judge by the same
    batches.json, batches/<n>.json     the repositories, in ready-made batches
    inventory.json                     what the first step knows of the registry
    results/<n>.json                   what came of a batch: counts, names and files
    results/<n>.findings.jsonl.gz      and the findings of its repositories
    proof.json                         what was asked of the registry after the reading
    closed.findings.jsonl.gz           what the report has resolved beside the findings that waited: all is written
    claims/<step>                      which attempt at a step is the present one

Nothing in here is secret. It is kept for a few days. What is missing, or is not what was left, makes a run that is not complete.

Each document is read against its schema, and by its SHA-256. The state machine carries the sums of `inventory.json` and of
`proof.json` from step to step. The inventory has the sums of the batches and of the documents that people keep, the proof those of
the results, and a result that of its findings. So a document that was changed, or is another run's, is not used.
"""

import gzip
import hashlib
import io
import json
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import IO, TYPE_CHECKING, Any, TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from dtr_audit.core.counts import EXPIRING_NAMED, RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.documents import read_json
from dtr_audit.core.finding import Finding, News, State
from dtr_audit.core.finding_codec import parse_finding, write_finding
from dtr_audit.core.manifest import StoredFile
from dtr_audit.core.model import OTHER_HOSTS_KEPT, Repository, SignedDocuments, is_name
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.request import BATCHES
from dtr_audit.core.reuse import DOCUMENTS, HASH_BYTES
from dtr_audit.core.run_record import Status, SupportingFact
from dtr_audit.core.run_state import UNREADABLE_KEPT, Tally
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
from dtr_audit.core.text import clean
from dtr_audit.errors import StepTakenOverError, WorkError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CLOSED = "closed.findings.jsonl.gz"
# Of JSON: a result of 200 repositories with the hashes of 512 signed documents each, under two domains, has less.
DOCUMENT_BYTES = 8 * 1024 * 1024
LINE_BYTES = 1024 * 1024  # of one finding
FINDINGS_BYTES = 192 * 1024 * 1024  # of a file of findings, compressed: about two million. /tmp has 512 MB
UNPACKED_BYTES = 2 * 1024**3  # of a file of findings
FACTS = 32
WHY_LENGTH = 200  # characters, of what is wrong with a document
READ_AHEAD = 8  # documents, in as many threads
HANDFUL = 64  # documents held at once
CHUNK_BYTES = 1024 * 1024
HELD_BYTES = 4 * 1024 * 1024  # of a file of findings; more of it waits on disk
GZIP_LEVEL = 6
# What S3 answers for a key that is not there; the second, whoever may not list the bucket.
_NOT_THERE = frozenset({"NoSuchKey", "AccessDenied"})

logger = Logger(service="dtr-signature-audit", child=True)

_T = TypeVar("_T")


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
    ghosts: int
    listing_problem: str
    unproven: str  # why the list may not be an administrator's; '' if it is
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
        kept = take_object(document, "$", cls.__slots__)
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
            ghosts=take_count(kept["ghosts"], "$.ghosts"),
            listing_problem=take_text(kept["listing_problem"], "$.listing_problem"),
            unproven=take_text(kept["unproven"], "$.unproven"),
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
        _hold(len(known.batch_sums) == known.batches, "$.batch_sums: there is not one for each batch")
        _hold(bool(known.batches) == bool(known.listed), "$.batches: they do not agree with what was listed")
        _hold(known.batches <= known.listed, "$.batches: there are more than repositories")
        _hold(known.connected or bool(known.incomplete_because), "$.connected: nothing says why it is not")
        _hold(known.connected or not known.listed, "$.listed: nothing can be, without a connection")
        _hold(not known.connected or bool(known.domains), "$.domains: there is none")
        return known


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one batch. `tally` has the counts, and the names that go with them."""

    tally: Tally
    examined: tuple[Repository, ...] = ()
    left: tuple[Repository, ...] = ()  # those that were not examined, and are not gone either
    is_late: bool = False  # they were left for want of time
    gone: tuple[tuple[Repository, str], ...] = ()  # the registry answers 404, and in which words
    failed: tuple[tuple[Repository, str], ...] = ()  # met a fault that may pass, and are to be read once more
    removed: tuple[Repository, ...] = ()  # were gone, and are not listed any more
    unproven: str = ""  # why the reading may not be an administrator's; '' if it is
    documents: tuple[tuple[Repository, SignedDocuments], ...] = ()  # that make up the trust data of repositories
    files: tuple[StoredFile, ...] = ()  # of rows
    findings: int = 0
    findings_sha256: str = ""
    changed: tuple[str, ...] = ()  # the settings that were not those of the first step: nothing was examined
    sha256: str = ""  # of this document, where it has been read

    def as_dict(self) -> dict[str, Any]:
        """Give its form as JSON."""
        tally = self.tally
        return {
            "repositories": asdict(tally.repositories),
            "tags": asdict(tally.tags),
            "trust": asdict(tally.trust),
            "unreadable": tally.unreadable,
            "first_unknown": tally.first_unknown,
            "other_hosts": tally.other_hosts,
            "first_other_hosts": tally.first_other_hosts,
            "examined": _write_names(self.examined),
            "left": _write_names(self.left),
            "is_late": self.is_late,
            "gone": [[*_write_name(repository), problem] for repository, problem in self.gone],
            "failed": [[*_write_name(repository), reason] for repository, reason in self.failed],
            "removed": _write_names(self.removed),
            "unproven": self.unproven,
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
        tally = Tally(
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
            tally=tally,
            examined=_take_names(kept["examined"], "$.examined"),
            left=_take_names(kept["left"], "$.left"),
            is_late=take_flag(kept["is_late"], "$.is_late"),
            gone=tuple(take_list(kept["gone"], "$.gone", _take_gone)),
            failed=tuple(take_list(kept["failed"], "$.failed", _take_gone)),
            removed=_take_names(kept["removed"], "$.removed"),
            unproven=take_text(kept["unproven"], "$.unproven"),
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
        tally, repositories = self.tally, self.tally.repositories
        examined = len(self.examined)
        unsettled = (one for one, _ in (*self.gone, *self.failed))
        names = [*self.examined, *self.left, *unsettled, *self.removed]
        _hold(len(set(names)) == len(names), "$: a repository stands in it twice")
        _hold(
            repositories.audited <= examined <= repositories.audited + repositories.unreadable,
            "$.examined: as many were not counted",
        )
        _hold(
            repositories.audited + repositories.unreadable <= examined + len(self.left),
            "$.repositories: more were counted than are named",
        )
        signed = {repository for repository, _ in self.documents}
        _hold(len(signed) == len(self.documents), "$.documents: a repository stands in it twice")
        _hold(signed <= set(self.examined), "$.documents: a repository was not examined")
        _hold(repositories.removed == len(self.removed), "$.removed: as many were not counted")
        _hold(
            len(tally.unreadable) == min(repositories.unreadable, UNREADABLE_KEPT),
            "$.unreadable: as many were not counted",
        )
        _hold(tally.other_hosts <= examined, "$.other_hosts: there are more than were examined")
        _hold(
            len(tally.first_other_hosts) == min(tally.other_hosts, OTHER_HOSTS_KEPT),
            "$.first_other_hosts: as many were not counted",
        )
        _hold(tally.tags.audited + tally.tags.artifacts == 0 or examined > 0, "$.tags: nothing was examined")
        _hold(
            bool(tally.tags.unknown) == bool(tally.first_unknown[0]), "$.first_unknown: it does not agree with $.tags"
        )
        _hold(
            tally.tags.cosign_only <= tally.tags.failed, "$.tags: more findings are signed with Cosign than there are"
        )
        _hold(self.findings >= tally.tags.failed, "$.findings: there are fewer than tags that fail")
        _hold(
            len(tally.trust.first_expiring) == min(tally.trust.expiring, EXPIRING_NAMED),
            "$.trust.first_expiring: as many were not counted",
        )
        _hold(not (self.changed and self.examined), "$.changed: yet something was examined")


@dataclass(frozen=True, slots=True)
class Proof:
    """What was asked of the registry after the reading."""

    unproven: str  # why the account may not have been an administrator's to the end; '' if it was
    settled: bool  # repositories were gone in mid-run: what became of them is one batch more
    counted: tuple[str, ...] = ()  # the sum of each batch's result; '': there was none
    incomplete_because: tuple[str, ...] = ()
    hint: str = ""  # under which domain there is trust data
    changed: tuple[str, ...] = ()  # the settings that were not those of the first step: the registry was not asked

    def counts(self, number: int, result: BatchResult | None) -> bool:
        """Tell whether a result is the one that was seen: what has come since was not looked at by who settled the run."""
        is_seen = result is not None and number <= len(self.counted)
        return is_seen and result is not None and result.sha256 == self.counted[number - 1]

    @classmethod
    def parse(cls, document: object) -> "Proof":
        """Read it back; raises SchemaError for what is none."""
        kept = take_object(document, "$", cls.__slots__)
        return cls(
            unproven=take_text(kept["unproven"], "$.unproven"),
            settled=take_flag(kept["settled"], "$.settled"),
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
        return _sum(self.content)

    def close(self) -> None:
        """Remove the file."""
        self.content.close()


class Work:
    """The documents of one run."""

    def __init__(self, client: "S3Client", bucket: str, registry: str, run_id: str) -> None:
        self._client = client
        self._bucket = bucket
        self._registry = registry
        self._run_id = run_id
        self.prefix = f"work/registry={registry}/{run_id}/"
        self.damage: list[str] = []  # what was wrong with results, and with their findings, that were there

    # -- who is at it ------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove everything that an earlier execution of the same run left; whoever is still at that finds no claim."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self.prefix)
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            for page in pages:
                names = (entry["Key"].removeprefix(self.prefix) for entry in page.get("Contents", ()))
                for _ in pool.map(self.delete, names):
                    pass

    def claim(self, step: str, attempt: str) -> None:
        """Take over a step from whatever attempt was at it before."""
        self.put(f"claims/{step}", attempt.encode())

    def confirm(self, step: str, attempt: str) -> None:
        """See that no later attempt has taken the step over; raises StepTakenOverError."""
        if self.read(f"claims/{step}") != attempt.encode():
            raise StepTakenOverError(f"step {step}: another attempt has taken it over; this one ends here")

    # -- the batches -------------------------------------------------------------------------------------------------

    @property
    def batches_key(self) -> str:
        """Where the list of batches lies."""
        return f"{self.prefix}batches.json"

    def put_batches(self, batches: Sequence[Sequence[Repository]]) -> tuple[str, ...]:
        """Write the batches, numbered from 1, and the list of them; gives the sum of each."""
        numbers = range(1, len(batches) + 1)
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            sums = tuple(pool.map(lambda n: self._put_json(_batch(n), _write_names(batches[n - 1])), numbers))
        self._put_json("batches.json", [{"number": n, "key": f"{self.prefix}{_batch(n)}"} for n in numbers])
        return sums

    def batch(self, number: int, known: Inventory) -> tuple[Repository, ...]:
        """Give the repositories of a batch; raises WorkError."""
        expected = known.batch_sums[number - 1] if 0 < number <= known.batches else ""
        found = self._parse(_batch(number), lambda document: _take_names(document, "$"), sha256=expected)
        if found is None:
            raise WorkError(f"{self.prefix}{_batch(number)}: this batch is not there. Start the audit again")
        return found

    def copy(self, name: str, sha256: str) -> bytes:
        """Give the copy of a document that people keep, as the first step read it; raises WorkError."""
        content = self.read(name)
        if content is None:
            raise WorkError(f"{self.prefix}{name} is not there. Start the audit again")
        self._check_sum(name, content, sha256)
        return content

    # -- what came of them -------------------------------------------------------------------------------------------

    def forget_result(self, number: int) -> None:
        """Remove what an earlier attempt made of a batch."""
        self.delete(_result(number))

    def put_result(self, number: int, result: BatchResult, findings: FindingsFile) -> str:
        """Write what came of a batch, its findings first: a result that is there is whole. Gives the sum of the result."""
        self._put_findings(_findings(number), findings)
        return self._put_json(_result(number), result.as_dict())

    def results(self, numbers: Iterable[int]) -> Iterator[tuple[int, BatchResult | None]]:
        """Yield what came of each batch, in order; None where there is nothing that can be used."""
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            rest = iter(numbers)
            while handful := tuple(n for _, n in zip(range(HANDFUL), rest, strict=False)):
                yield from zip(handful, pool.map(self._read_result, handful), strict=True)

    def _read_result(self, number: int) -> BatchResult | None:
        try:
            content = self.read(_result(number))
            if content is None:
                return None
            sha256 = hashlib.sha256(content).hexdigest()
            result = replace(self._parsed(_result(number), content, BatchResult.parse), sha256=sha256)
            rows = f"findings/registry={self._registry}/"
            if not all(file.key.startswith(rows) and f"/{self._run_id}-" in file.key for file in result.files):
                raise self._unusable(_result(number), "its files of rows are not those of this run")
        except WorkError as error:
            logger.warning("the result of a batch cannot be used", batch=number, reason=str(error))
            self.damage.append(str(error))
            return None
        return result

    def findings(self, number: int, result: BatchResult) -> Iterator[tuple[bool, Finding]]:
        """Yield the findings of a batch, each with whether it waits for the proof.

        Raises WorkError: before the first, if they are not those of the result.
        """
        key = _findings(number)
        with tempfile.SpooledTemporaryFile(HELD_BYTES) as content:
            if not self._fetch(key, content, limit=FINDINGS_BYTES):
                raise self._unusable(key, "it is not there")
            if _sum(content) != result.findings_sha256:
                raise self._unusable(key, "its SHA-256 is another than the result's")
            count = 0
            for entry in self._lines(key, content):
                yield self._entry(key, entry)
                count += 1
            if count != result.findings:
                raise self._unusable(key, f"it has {count} findings, and the result counts {result.findings}")

    def put_closed(self, findings: FindingsFile) -> None:
        """Keep what the report has closed beside the findings that waited, once all of them are written."""
        self._put_findings(CLOSED, findings)

    def closed(self, execution: str) -> Iterator[Finding] | None:
        """Give what the report of an execution has closed; None if no attempt at it came so far.

        Raises WorkError, before it gives the first.
        """
        content = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115 - closed where it has been read
        try:
            if not self._fetch(CLOSED, content, limit=FINDINGS_BYTES):
                content.close()
                return None
            # To its end at first: half of it would be counted otherwise.
            count = sum(1 for _ in self._closed(execution, content))
        except BaseException:
            content.close()
            raise
        return self._give_closed(execution, content, count)

    def _give_closed(self, execution: str, content: IO[bytes], count: int) -> Iterator[Finding]:
        with content:
            for finding in self._closed(execution, content):
                count -= 1
                yield finding

    def _closed(self, execution: str, content: IO[bytes]) -> Iterator[Finding]:
        count = 0
        is_whole = False
        for entry in self._lines(CLOSED, content):
            if is_whole:
                raise self._unusable(CLOSED, "something follows its last line")
            if "execution" in entry:
                is_whole = entry == {"execution": execution, "findings": count}
                if not is_whole:
                    raise self._unusable(CLOSED, "it is not of this execution, or does not have all findings")
                continue
            _, finding = self._entry(CLOSED, entry)
            if finding.state is not State.RESOLVED or finding.changed_in != self._run_id:
                raise self._unusable(CLOSED, "it has a finding that this run has not resolved")
            count += 1
            yield finding
        if not is_whole:
            raise self._unusable(CLOSED, "it ends before its last line")

    def _lines(self, name: str, content: IO[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of a file of findings, from its beginning; raises WorkError."""
        size = content.seek(0, io.SEEK_END)
        content.seek(0)
        number = 0
        left = UNPACKED_BYTES
        try:
            _hold(size <= FINDINGS_BYTES, f"it is larger than {FINDINGS_BYTES} bytes")
            with gzip.GzipFile(fileobj=content, mode="rb") as lines:
                while line := lines.readline(LINE_BYTES + 1):
                    number += 1
                    left -= len(line)
                    _hold(left >= 0, f"it is larger than {UNPACKED_BYTES} bytes, decompressed")
                    _hold(len(line) <= LINE_BYTES, f"it is longer than {LINE_BYTES} bytes")
                    entry = json.loads(line)
                    _hold(isinstance(entry, dict), "an object is needed")
                    yield entry
        except (EOFError, OSError, zlib.error) as error:
            raise self._unusable(name, f"it is not whole, or no gzip ({type(error).__name__})") from error
        except (ValueError, RecursionError) as error:
            raise self._unusable(name, f"line {number}: {error}") from error

    def _entry(self, name: str, entry: dict[str, Any]) -> tuple[bool, Finding]:
        """Read one line of a file of findings; raises WorkError."""
        try:
            kept = take_object(entry, "$", ("waits", "finding"))
            waits = take_flag(kept["waits"], "$.waits")
            finding = _take_finding(kept["finding"], self._registry)
            _hold(
                not waits or (finding.state is State.RESOLVED and finding.changed_in == self._run_id),
                "$.waits: what waits would be resolved by this run",
            )
        except (ValueError, KeyError) as error:
            raise self._unusable(name, str(error)) from error
        return waits, finding

    # -- what all of it hangs on -------------------------------------------------------------------------------------

    def put_inventory(self, inventory: Inventory) -> str:
        """Write what the first step knows: from here on the run has begun. Gives the sum of it."""
        return self._put_json("inventory.json", asdict(inventory))

    def inventory(self, execution: str, sha256: str) -> Inventory | None:
        """Read what the first step of an execution knew; None if it did not come so far. Raises WorkError.

        `sha256` is the sum that the first step gave; '' if it gave none, since it did not come to its end.
        """
        if not sha256:
            return None
        known = self._parse("inventory.json", Inventory.parse, sha256=sha256)
        if known is None:
            raise self._unusable("inventory.json", "it is not there")
        return known if known.execution == execution else None

    def put_proof(self, proof: Proof) -> str:
        """Write what was asked after the reading; gives the sum of it."""
        return self._put_json("proof.json", asdict(proof))

    def proof(self, known: Inventory, sha256: str) -> Proof | None:
        """Read what was asked after the reading; None if it was not. Raises WorkError. `sha256` is as for the inventory."""
        if not sha256:
            return None
        proof = self._parse("proof.json", Proof.parse, sha256=sha256)
        if proof is None:
            raise self._unusable("proof.json", "it is not there")
        if len(proof.counted) != known.batches + proof.settled:
            raise self._unusable("proof.json", "$.counted: there is not one for each batch")
        return proof

    # -- S3 ----------------------------------------------------------------------------------------------------------

    def put(self, name: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        """Write one document."""
        self._client.put_object(Bucket=self._bucket, Key=f"{self.prefix}{name}", Body=content, ContentType=content_type)

    def read(self, name: str) -> bytes | None:
        """Read one document, None if it is not there: of one that is too large, the first bytes and one more."""
        content = io.BytesIO()
        return content.getvalue() if self._fetch(name, content, limit=DOCUMENT_BYTES) else None

    def _put_findings(self, name: str, findings: FindingsFile) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=f"{self.prefix}{name}",
            Body=findings.content,
            ContentType="application/gzip",
        )

    def _fetch(self, name: str, into: IO[bytes], *, limit: int) -> bool:
        """Copy a document into a file, of one with more bytes than `limit` the first and one more; tells whether it is there."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=f"{self.prefix}{name}")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _NOT_THERE:
                return False
            raise
        left = limit + 1
        with found["Body"] as body:
            while chunk := body.read(min(CHUNK_BYTES, left)):
                into.write(chunk)
                left -= len(chunk)
        return True

    def delete(self, name: str) -> None:
        """Remove one document."""
        self._client.delete_object(Bucket=self._bucket, Key=f"{self.prefix}{name}")

    def _put_json(self, name: str, document: Any) -> str:
        """Write a document; gives its sum."""
        content = REDACTOR.redact_json(json.dumps(document, separators=(",", ":"))).encode()
        self.put(name, content, "application/json")
        return hashlib.sha256(content).hexdigest()

    def _parse(self, name: str, parse: Callable[[object], _T], *, sha256: str) -> _T | None:
        content = self.read(name)
        if content is None:
            return None
        self._check_sum(name, content, sha256)
        return self._parsed(name, content, parse)

    def _check_sum(self, name: str, content: bytes, sha256: str) -> None:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise self._unusable(name, "its SHA-256 is another")

    def _parsed(self, name: str, content: bytes, parse: Callable[[object], _T]) -> _T:
        try:
            return parse(read_json(content, "$", limit=DOCUMENT_BYTES, error=WorkError))
        except (WorkError, ValueError) as error:
            raise self._unusable(name, str(error)) from error

    def _unusable(self, name: str, why: str) -> WorkError:
        return WorkError(
            f"{self.prefix}{name}: it is not what an earlier step of the run left there ({clean(why, WHY_LENGTH)}). "
            "Start the audit again"
        )


def _batch(number: int) -> str:
    return f"batches/{number:05d}.json"


def _result(number: int) -> str:
    return f"results/{number:05d}.json"


def _findings(number: int) -> str:
    return f"results/{number:05d}.findings.jsonl.gz"


def _write_name(repository: Repository) -> list[str]:
    return [repository.namespace, repository.name]


def _write_names(repositories: Iterable[Repository]) -> list[list[str]]:
    return [_write_name(repository) for repository in repositories]


_HASH = re.compile(f"[0-9a-f]{{{2 * HASH_BYTES}}}")
_RESULT_KEYS = frozenset(BatchResult(Tally()).as_dict())
_FINDING_TEXTS = (
    *("registry", "namespace", "repository", "tag", "state", "verdict", "reason", "digest", "author", "pushed_at"),
    *("first_seen", "last_changed", "changed_in", "transition", "resolution", "media_type"),
)
_FINDING_KEYS = frozenset({*_FINDING_TEXTS, "author_name", "excepted", "told_end", "unheard", "unannounced"})
_MOVE_TEXTS = ("news", "run_id", "first_seen", "resolution")
_MOVE_KEYS = frozenset({*_MOVE_TEXTS, "excepted", "quiet"})
_EXCEPTED_KEYS = ("exception_id", "owner", "reason", "reference", "ends")
_MOVES = 8  # of one finding: there are three at most


def _hold(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SchemaError(otherwise)


def _take_names(document: object, where: str) -> tuple[Repository, ...]:
    return tuple(take_list(document, where, _take_repository))


def _take_repository(document: object, where: str) -> Repository:
    namespace, name = _take_pair(document, where)
    _hold(is_name(namespace) and is_name(name), f"{where}: the name of a repository is needed")
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
    _hold(_HASH.fullmatch(text) is not None, f"{where}: the hash of a document is needed")
    return text


def _take_row(document: object, where: str, width: int) -> list[str]:
    row = take_list(document, where, take_text, most=width)
    _hold(len(row) == width, f"{where}: {width} texts are needed")
    return row


def _take_texts(document: object, where: str) -> tuple[str, ...]:
    return tuple(take_list(document, where, take_text))


def _take_sum_or_none(document: object, where: str) -> str:
    return "" if document == "" else take_sha256(document, where)


def _take_counts(document: object, where: str, of: type[RepositoryCounts | TagCounts]) -> dict[str, int]:
    kept = take_object(document, where, [one.name for one in fields(of)])
    return {name: take_count(value, f"{where}.{name}") for name, value in kept.items()}


def _take_trust(document: object) -> TrustCounts:
    where = "$.trust"
    kept = take_object(document, where, [one.name for one in fields(TrustCounts)])
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
    kept = take_object(document, where, [one.name for one in fields(StoredFile)])
    return StoredFile(
        key=take_name(kept["key"], f"{where}.key"),
        sha256=take_sha256(kept["sha256"], f"{where}.sha256"),
        size=take_count(kept["size"], f"{where}.size"),
    )


def _take_fact(document: object, where: str) -> SupportingFact:
    kept = take_object(document, where, [one.name for one in fields(SupportingFact)])
    texts = {name: take_text(value, f"{where}.{name}") for name, value in kept.items()}
    return SupportingFact(texts["subject"], texts["answer"], texts["rule_id"], Status(texts["status"]))


def _take_finding(document: object, registry: str) -> Finding:
    """Read a finding that a step has left; raises ValueError, of which SchemaError is one, or KeyError."""
    if not isinstance(document, dict) or not document.keys() <= _FINDING_KEYS:
        raise SchemaError("$.finding: it is none")
    for name in _FINDING_TEXTS:
        take_text(document[name], f"$.finding.{name}")
    take_time(document["first_seen"], "$.finding.first_seen")
    take_time(document["last_changed"], "$.finding.last_changed")
    take_text(document.get("author_name", ""), "$.finding.author_name")
    take_text(document.get("told_end", ""), "$.finding.told_end")
    take_flag(document.get("unheard", False), "$.finding.unheard")
    _check_excepted(document, "$.finding")
    take_list(document.get("unannounced", []), "$.finding.unannounced", _check_move, most=_MOVES)
    finding = parse_finding(document)
    _hold(finding.registry == registry, "$.finding.registry: it is another")
    is_closed = finding.state is State.RESOLVED
    _hold(is_closed == (finding.transition is News.RESOLVED), "$.finding: state and transition do not agree")
    return finding


def _check_move(document: object, where: str) -> None:
    if not isinstance(document, dict) or not document.keys() <= _MOVE_KEYS:
        raise SchemaError(f"{where}: it is none")
    for name in _MOVE_TEXTS:
        take_text(document[name], f"{where}.{name}")
    take_time(document["first_seen"], f"{where}.first_seen")
    take_flag(document.get("quiet", False), f"{where}.quiet")
    _check_excepted(document, where)


def _check_excepted(document: dict[str, Any], where: str) -> None:
    if "excepted" in document:
        kept = take_object(document["excepted"], f"{where}.excepted", _EXCEPTED_KEYS)
        for name, value in kept.items():
            take_text(value, f"{where}.excepted.{name}")


def _sum(content: IO[bytes]) -> str:
    """Give the SHA-256 of a file, which is then at its beginning."""
    content.seek(0)
    digest = hashlib.sha256()
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
    content.seek(0)
    return digest.hexdigest()
