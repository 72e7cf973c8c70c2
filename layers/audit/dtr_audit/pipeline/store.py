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
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from dtr_audit.core.documents import read_json
from dtr_audit.core.finding import Finding, State
from dtr_audit.core.model import Repository
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.schema import (
    take_flag,
    take_object,
)
from dtr_audit.core.text import clean
from dtr_audit.errors import StepTakenOverError, WorkError
from dtr_audit.pipeline.store_documents import (
    AccessCheck,
    BatchResult,
    FindingsFile,
    Inventory,
    take_names,
    write_document,
    write_names,
)
from dtr_audit.pipeline.store_findings import CHUNK_BYTES, hold, sum_of, take_finding

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CLOSED = "closed.findings.jsonl.gz"
# Of JSON: a result of 200 repositories with the hashes of 512 signed documents each, under two domains, has less.
DOCUMENT_BYTES = 8 * 1024 * 1024
LINE_BYTES = 1024 * 1024  # of one finding
FINDINGS_BYTES = 192 * 1024 * 1024  # of a file of findings, compressed: about two million. /tmp has 512 MB
UNPACKED_BYTES = 2 * 1024**3  # of a file of findings
WHY_LENGTH = 200  # characters, of what is wrong with a document
READ_AHEAD = 8  # documents, in as many threads
HANDFUL = 64  # documents held at once
HELD_BYTES = 4 * 1024 * 1024  # of a file of findings; more of it waits on disk
# What S3 answers for a key that is not there; the second, whoever may not list the bucket.
_NOT_THERE = frozenset({"NoSuchKey", "AccessDenied"})

logger = Logger(service="dtr-signature-audit", child=True)

_T = TypeVar("_T")


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
            sums = tuple(pool.map(lambda n: self._put_json(_batch(n), write_names(batches[n - 1])), numbers))
        self._put_json("batches.json", [{"number": n, "key": f"{self.prefix}{_batch(n)}"} for n in numbers])
        return sums

    def batch(self, number: int, known: Inventory) -> tuple[Repository, ...]:
        """Give the repositories of a batch; raises WorkError."""
        expected = known.batch_sums[number - 1] if 0 < number <= known.batches else ""
        found = self._parse(_batch(number), lambda document: take_names(document, "$"), sha256=expected)
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
            if sum_of(content) != result.findings_sha256:
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
            hold(size <= FINDINGS_BYTES, f"it is larger than {FINDINGS_BYTES} bytes")
            with gzip.GzipFile(fileobj=content, mode="rb") as lines:
                while line := lines.readline(LINE_BYTES + 1):
                    number += 1
                    left -= len(line)
                    hold(left >= 0, f"it is larger than {UNPACKED_BYTES} bytes, decompressed")
                    hold(len(line) <= LINE_BYTES, f"it is longer than {LINE_BYTES} bytes")
                    entry = json.loads(line)
                    hold(isinstance(entry, dict), "an object is needed")
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
            finding = take_finding(kept["finding"], self._registry)
            hold(
                not waits or (finding.state is State.RESOLVED and finding.changed_in == self._run_id),
                "$.waits: what waits would be resolved by this run",
            )
        except (ValueError, KeyError) as error:
            raise self._unusable(name, str(error)) from error
        return waits, finding

    # -- what all of it hangs on -------------------------------------------------------------------------------------

    def put_inventory(self, inventory: Inventory) -> str:
        """Write what the first step knows: from here on the run has begun. Gives the sum of it."""
        return self._put_json("inventory.json", write_document(inventory))

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

    def put_access_check(self, access_check: AccessCheck) -> str:
        """Write what was asked after the reading; gives the sum of it."""
        return self._put_json("proof.json", write_document(access_check))

    def access_check(self, known: Inventory, sha256: str) -> AccessCheck | None:
        """Read what was asked after the reading; None if it was not. Raises WorkError. `sha256` is as for the inventory."""
        if not sha256:
            return None
        access_check = self._parse("proof.json", AccessCheck.parse, sha256=sha256)
        if access_check is None:
            raise self._unusable("proof.json", "it is not there")
        if len(access_check.counted) != known.batches + access_check.finished:
            raise self._unusable("proof.json", "$.counted: there is not one for each batch")
        return access_check

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
