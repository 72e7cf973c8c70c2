"""What the steps of one run leave each other in S3, below `work/registry=<name>/<run_id>/`.

    exceptions.json, trust-pins.json   the documents that people keep, as the first step read them: all workers judge by the same
    batches.json, batches/<n>.json     the repositories, in ready-made batches
    inventory.json                     what the first step knows of the registry
    results/<n>.json                   what came of a batch: counts, names and files
    results/<n>.findings.jsonl.gz      and the findings of its repositories
    proof.json                         what was asked of the registry after the reading
    closed.findings.jsonl.gz           what the report has resolved beside the findings that waited: all is written
    claims/<step>                      which attempt at a step is the present one

Nothing in here is secret. It is kept for a few days; whatever is missing, or not what was left, makes a run that is not complete.
"""

import gzip
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Any, TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from .errors import StepTakenOverError, WorkError
from .evidence.report import StoredFile
from .findings import parse_finding, write_finding
from .model import Finding, Repository, RepositoryCounts, Status, SupportingFact, TagCounts, TrustCounts
from .tally import Tally

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CLOSED = "closed.findings.jsonl.gz"
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
    ghosts: int
    listing_problem: str
    unproven: str  # why the list may not be an administrator's; '' if it is
    batches: int
    exceptions_found: bool  # they lie beside
    exceptions_version: str
    exceptions_problem: str  # why they could not be fetched
    facts: tuple[SupportingFact, ...] = ()  # what was seen beside the rule

    @classmethod
    def parse(cls, document: Any) -> "Inventory":
        """Read it back; raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            **{
                **{name: document[name] for name in cls.__slots__},
                **{name: _texts(document[name]) for name in ("domains", "incomplete_because", "warnings")},
                **{name: _number(document[name]) for name in ("listed", "ghosts", "batches")},
                "facts": tuple(
                    SupportingFact(**{**fact, "status": Status(fact["status"])}) for fact in document["facts"]
                ),
            }
        )


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one batch. `tally` has the counts, and the names that go with them."""

    tally: Tally
    examined: tuple[Repository, ...] = ()
    left: tuple[Repository, ...] = ()  # those that were not examined, and are not gone either
    is_late: bool = False  # they were left for want of time
    gone: tuple[tuple[Repository, str], ...] = ()  # the registry answers 404, and in which words
    removed: tuple[Repository, ...] = ()  # were gone, and are not listed any more
    unproven: str = ""  # why the reading may not be an administrator's; '' if it is
    files: tuple[StoredFile, ...] = ()  # of rows
    findings: int = 0
    findings_sha256: str = ""
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
            "examined": _write_names(self.examined),
            "left": _write_names(self.left),
            "is_late": self.is_late,
            "gone": [[*_write_name(repository), problem] for repository, problem in self.gone],
            "removed": _write_names(self.removed),
            "unproven": self.unproven,
            "files": [asdict(file) for file in self.files],
            "findings": self.findings,
            "findings_sha256": self.findings_sha256,
        }

    @classmethod
    def parse(cls, document: Any) -> "BatchResult":
        """Read it back; raises KeyError, TypeError or ValueError for what is none."""
        image, why = document["first_unknown"]
        trust = TrustCounts(**document["trust"])
        trust.first_expiring = [(str(name), str(role), str(when)) for name, role, when in trust.first_expiring]
        tally = Tally(
            repositories=RepositoryCounts(**document["repositories"]),
            tags=TagCounts(**document["tags"]),
            trust=trust,
            unreadable=[(str(name), str(reason)) for name, reason in document["unreadable"]],
            first_unknown=(str(image), str(why)),
        )
        return cls(
            tally=tally,
            examined=_read_names(document["examined"]),
            left=_read_names(document["left"]),
            is_late=bool(document["is_late"]),
            gone=tuple((Repository(str(n), str(r)), str(problem)) for n, r, problem in document["gone"]),
            removed=_read_names(document["removed"]),
            unproven=str(document["unproven"]),
            files=tuple(StoredFile(**file) for file in document["files"]),
            findings=_number(document["findings"]),
            findings_sha256=str(document["findings_sha256"]),
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """What was asked of the registry after the reading."""

    unproven: str  # why the account may not have been an administrator's to the end; '' if it was
    settled: bool  # repositories were gone in mid-run: what became of them is one batch more
    counted: tuple[str, ...] = ()  # the sum of each batch's result; '': there was none
    incomplete_because: tuple[str, ...] = ()
    hint: str = ""  # under which domain there is trust data

    def counts(self, number: int, result: BatchResult | None) -> bool:
        """Tell whether a result is the one that was seen: what has come since was not looked at by who settled the run."""
        if number > len(self.counted):
            return True  # of those that were gone: who settled them wrote it
        return result is not None and result.sha256 == self.counted[number - 1]

    @classmethod
    def parse(cls, document: Any) -> "Proof":
        """Read it back; raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            unproven=str(document["unproven"]),
            settled=bool(document["settled"]),
            counted=_texts(document["counted"]),
            incomplete_because=_texts(document["incomplete_because"]),
            hint=str(document["hint"]),
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
        self._zip.write(line.encode() + b"\n")
        self.length += 1

    def finish(self) -> str:
        """Take no more; gives the sum of the content, which is then read from its beginning."""
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
        self.prefix = f"work/registry={registry}/{run_id}/"

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

    def put_batches(self, batches: Sequence[Sequence[Repository]]) -> None:
        """Write the batches, numbered from 1, and the list of them."""
        numbers = range(1, len(batches) + 1)
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            for _ in pool.map(lambda n: self._put_json(_batch(n), _write_names(batches[n - 1])), numbers):
                pass
        self._put_json("batches.json", [{"number": n, "key": f"{self.prefix}{_batch(n)}"} for n in numbers])

    def batch(self, number: int) -> tuple[Repository, ...]:
        """Give the repositories of a batch; raises WorkError."""
        found = self._parse(_batch(number), _read_names)
        if found is None:
            raise WorkError(f"{self.prefix}{_batch(number)}: this batch is not there. Start the audit anew")
        return found

    # -- what came of them -------------------------------------------------------------------------------------------

    def forget_result(self, number: int) -> None:
        """Remove what an earlier attempt made of a batch."""
        self.delete(_result(number))

    def put_result(self, number: int, result: BatchResult, findings: FindingsFile) -> None:
        """Write what came of a batch, its findings first: a result that is there is whole."""
        self._put_findings(_findings(number), findings)
        self._put_json(_result(number), result.as_dict())

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
            return replace(self._parsed(_result(number), content, BatchResult.parse), sha256=sha256)
        except WorkError as error:
            logger.warning("the result of a batch cannot be used", batch=number, reason=str(error))
            return None

    def findings(self, number: int, result: BatchResult) -> Iterator[tuple[bool, Finding]]:
        """Yield the findings of a batch, each with whether it waits for the proof; raises WorkError before the first."""
        key = _findings(number)
        with tempfile.SpooledTemporaryFile(HELD_BYTES) as content:
            if not self._fetch(key, content) or _sum(content) != result.findings_sha256:
                raise self._unusable(key)
            yield from _unpack(content)

    def put_closed(self, findings: FindingsFile) -> None:
        """Keep what the report has closed beside the findings that waited, once all of them are written."""
        self._put_findings(CLOSED, findings)

    def closed(self) -> Iterator[Finding] | None:
        """Give what the report has closed; None if no attempt at it came so far."""
        content = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115 - closed where it has been read
        if self._fetch(CLOSED, content):
            content.seek(0)
            return (finding for _, finding in _unpack(content))
        content.close()
        return None

    # -- what all of it hangs on -------------------------------------------------------------------------------------

    def put_inventory(self, inventory: Inventory) -> None:
        """Write what the first step knows: from here on the run has begun."""
        self._put_json("inventory.json", asdict(inventory))

    def inventory(self, execution: str) -> Inventory | None:
        """Read what the first step of an execution knew; None if it did not come so far. Raises WorkError."""
        known = self._parse("inventory.json", Inventory.parse)
        return known if known is not None and known.execution == execution else None

    def put_proof(self, proof: Proof) -> None:
        """Write what was asked after the reading."""
        self._put_json("proof.json", asdict(proof))

    def proof(self) -> Proof | None:
        """Read what was asked after the reading; None if it was not. Raises WorkError."""
        return self._parse("proof.json", Proof.parse)

    # -- S3 ----------------------------------------------------------------------------------------------------------

    def put(self, name: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        """Write one document."""
        self._client.put_object(Bucket=self._bucket, Key=f"{self.prefix}{name}", Body=content, ContentType=content_type)

    def read(self, name: str) -> bytes | None:
        """Read one document, None if it is not there."""
        content = io.BytesIO()
        return content.getvalue() if self._fetch(name, content) else None

    def _put_findings(self, name: str, findings: FindingsFile) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=f"{self.prefix}{name}",
            Body=findings.content,
            ContentType="application/gzip",
        )

    def _fetch(self, name: str, into: IO[bytes]) -> bool:
        """Copy a document into a file; tells whether it is there."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=f"{self.prefix}{name}")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _NOT_THERE:
                return False
            raise
        with found["Body"] as body:
            shutil.copyfileobj(body, into, CHUNK_BYTES)
        return True

    def delete(self, name: str) -> None:
        """Remove one document."""
        self._client.delete_object(Bucket=self._bucket, Key=f"{self.prefix}{name}")

    def _put_json(self, name: str, document: Any) -> None:
        self.put(name, json.dumps(document, separators=(",", ":")).encode(), "application/json")

    def _parse(self, name: str, parse: Callable[[Any], _T]) -> _T | None:
        content = self.read(name)
        return None if content is None else self._parsed(name, content, parse)

    def _parsed(self, name: str, content: bytes, parse: Callable[[Any], _T]) -> _T:
        try:
            return parse(json.loads(content))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._unusable(name) from error

    def _unusable(self, name: str) -> WorkError:
        return WorkError(
            f"{self.prefix}{name}: it is not what an earlier step of the run left there. Start the audit anew"
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


def _read_names(document: Any) -> tuple[Repository, ...]:
    return tuple(Repository(str(namespace), str(name)) for namespace, name in document)


def _texts(document: Any) -> tuple[str, ...]:
    if not isinstance(document, list):
        raise TypeError("no list")
    return tuple(str(text) for text in document)


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no number")
    return value


def _unpack(content: IO[bytes]) -> Iterator[tuple[bool, Finding]]:
    with content, gzip.GzipFile(fileobj=content, mode="rb") as lines:
        for line in lines:
            entry = json.loads(line)
            yield entry["waits"], parse_finding(entry["finding"])


def _sum(content: IO[bytes]) -> str:
    """Give the SHA-256 of a file, which is then at its beginning."""
    content.seek(0)
    digest = hashlib.sha256()
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
    content.seek(0)
    return digest.hexdigest()
