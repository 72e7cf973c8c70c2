"""What a run leaves in S3: a row for every tag, the run record, the evidence, and a manifest of all of them.

And what it finds there, of what people have put into the same bucket.

Layout (Hive partitions, for Athena): `findings/registry=<name>/dt=<YYYY-MM-DD>/<run_id>-<part>.jsonl.gz`, where a run in batches
has `<run_id>-<batch>-<part>.jsonl.gz`, and `runs/registry=<name>/dt=<YYYY-MM-DD>/<run_id>.json`. Every row has the same lower-case
keys. What people and their tools read lies in `evidence/registry=<name>/<run_id>/`.
"""

import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from json.encoder import encode_basestring_ascii as _quote
from typing import IO, TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from dtr_audit.core.finding import Excepted
from dtr_audit.core.model import RULE_ID, JudgedTag, Repository, iso
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.run_record import Run
from dtr_audit.errors import EvidenceError

if TYPE_CHECKING:
    from zlib import _Compress

    from mypy_boto3_s3 import S3Client

    from dtr_audit.core.manifest import StoredFile
    from dtr_audit.core.signature import Signature

Row = dict[str, Any]  # of a tag, as JSON

PART_ROWS = 50_000
PART_BYTES = 8 * 1024 * 1024  # compressed; a part is closed once it has grown past this
ROWS_TOGETHER = 500  # compressed at once
# Short matches in rows are chance, in digests that have nothing in common: without them level 4 is a sixth faster than gzip's own
# level of 6 with them, and its files are smaller.
GZIP_LEVEL = 4
GZIP_STRATEGY = zlib.Z_FILTERED
_GZIP_BITS = 16 + zlib.MAX_WBITS  # zlib's word for gzip's format
# What S3 answers for a key that is not there; the second, whoever may not list the bucket.
_NOT_THERE = frozenset({"NoSuchKey", "AccessDenied"})


@dataclass(frozen=True, slots=True)
class Found:
    """A file that somebody has put into the bucket."""

    content: bytes
    version_id: str


class Archive:
    """The S3 side of one run; rows are streamed, and what there is of a part waits in a temporary file."""

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        registry: str,
        run_id: str,
        date: str,
        *,
        confirm: Callable[[], None],
        batch: int = 0,
        keeps_parts: bool = False,
        location: str = "",
    ) -> None:
        """Prepare; `date` is the run's partition, YYYY-MM-DD. With a `batch` only its rows are written and removed here.

        `confirm` raises when another attempt at the same run has taken over; it is asked before each write. With `keeps_parts` the
        parts that were uploaded stay in temporary files as well, so that their rows can be amended. `location` is where people find
        the keys; '' for the bucket.
        """
        self._confirm = confirm
        self._client = client
        self._bucket = bucket
        self._location = location or f"s3://{bucket}"
        self._registry = registry
        self._run_id = run_id
        partition = f"registry={registry}/dt={date}"
        self.rows_prefix = f"findings/{partition}/{run_id}-" + (f"{batch:05d}-" if batch else "")
        self._part_digits = 3 if batch else 5
        self.record_key = f"runs/{partition}/{run_id}.json"
        self.evidence_prefix = f"evidence/registry={registry}/{run_id}/"
        self.files: list[StoredFile] = []  # all that this attempt has written, in that order
        self._part = 0
        self._rows = 0
        self._file: IO[bytes] | None = None
        self._zip: _Compress | None = None
        self._keeps_parts = keeps_parts
        self._parts: dict[str, IO[bytes]] = {}  # by key

    @property
    def rows_url(self) -> str:
        """Where the rows lie, as a prefix."""
        return self.url(self.rows_prefix)

    @property
    def record_url(self) -> str:
        """Where the run record lies."""
        return self.url(self.record_key)

    def begin(self) -> None:
        """Remove what an earlier attempt at the same run left, so that no row of it is ever counted beside this one's."""
        self.keep(())

    def keep(self, files: "Iterable[StoredFile]") -> None:
        """Take files of rows that others have written for this run as its own, and remove all other rows of it."""
        self.files += files
        kept = {file.key for file in self.files}
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self.rows_prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                if entry["Key"] not in kept:
                    self._client.delete_object(Bucket=self._bucket, Key=entry["Key"])

    def add(
        self,
        repository: Repository,
        tags: Iterable[JudgedTag],
        excepted: Mapping[str, Excepted],
        *,
        audited_at: datetime,
        author_names: Mapping[str, str] | None = None,
    ) -> None:
        """Write a row for each tag; a full part is uploaded.

        `excepted` are the findings under an exception, by tag; `author_names` the names of accounts, by id.
        """
        rows = write_rows(
            self._registry, self._run_id, repository, tags, excepted, audited_at=audited_at, author_names=author_names
        )
        while handful := tuple(islice(rows, min(ROWS_TOGETHER, PART_ROWS - self._rows))):
            if self._file is None or self._zip is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by discard()
                self._zip = _begin_zip()
            self._file.write(self._zip.compress("".join(handful).encode()))
            self._rows += len(handful)
            if self._rows >= PART_ROWS or self._file.tell() >= PART_BYTES:
                self._upload()

    def close(self) -> None:
        """Upload the last part."""
        self._upload()

    def discard(self) -> None:
        """Let go of rows that have not been uploaded, and of parts that were kept."""
        self._close_part()
        while self._parts:
            self._parts.popitem()[1].close()

    def amend(self, change: Callable[[Row], Row | None]) -> Iterator[Row]:
        """Rewrite parts with changed rows, and yield each changed row; `change` gives None for a row that stays as it is.

        A row is that of the archive, as JSON. Only parts that were kept are looked at.
        """
        self._upload()
        for key, content in self._parts.items():
            with tempfile.TemporaryFile() as amended:
                is_changed = False
                zipped = _begin_zip()
                content.seek(0)
                # Closing the reader leaves the file open.
                with gzip.GzipFile(fileobj=content, mode="rb") as lines:
                    for line in lines:
                        row = change(json.loads(line))
                        is_changed = is_changed or row is not None
                        amended.write(zipped.compress(line if row is None else _write_row(row)))
                        if row is not None:
                            yield row
                amended.write(zipped.flush())
                if is_changed:
                    self._confirm()
                    self._put(key, amended, "application/gzip")

    def _close_part(self) -> None:
        if self._file is not None:
            self._file.close()
        self._zip = self._file = None
        self._rows = 0

    def put_record(self, run: Run) -> None:
        """Write the run record: one JSON object on one line."""
        self._confirm()
        self._put(self.record_key, _write_record(run), "application/json")

    def put_evidence(self, name: str, content: bytes, content_type: str, *, disposition: str = "") -> None:
        """Write one file of the evidence; `disposition` says under which name a browser saves it (Content-Disposition)."""
        self._confirm()
        key = f"{self.evidence_prefix}{name}"
        self._put(key, REDACTOR.redact_file(content, content_type), content_type, disposition=disposition)

    def put_manifest(self, url: str) -> None:
        """Write down what has been written, with the sums; `url` is the registry's address."""
        from dtr_audit.core import manifest  # noqa: PLC0415 - loaded by the first run, not by the start

        document = manifest.write(self._registry, self._run_id, self.files, url=url)
        self.put_evidence(manifest.NAME, document, "application/json")

    def draft_manifest(self, run: Run, url: str) -> bytes:
        """Give the manifest as it will be once this record, the last file before it, is written."""
        from dtr_audit.core import manifest  # noqa: PLC0415 - as above

        record = manifest.describe(self.record_key, _write_record(run))
        return manifest.write(self._registry, self._run_id, [*self.files, record], url=url)

    def put_signature(self, signature: "Signature | None") -> None:
        """Write the manifest's signature; an empty one in place of None, over what an earlier attempt may have left."""
        from dtr_audit.core.signature import ABOUT_NAME, NAME  # noqa: PLC0415 - as above

        if signature is not None:
            self.put_evidence(ABOUT_NAME, signature.describe(), "application/json")
        self.put_evidence(NAME, signature.value if signature else b"", "application/octet-stream")

    def read(self, key: str, *, limit: int) -> Found:
        """Read a file that somebody has put into the bucket: of one with more bytes than `limit`, the first and one more.

        Raises EvidenceError, which names the remedy, if it is not there or cannot be read.
        """
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=key)
            with found["Body"] as body:
                return Found(body.read(limit + 1), found.get("VersionId", ""))
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _NOT_THERE:
                raise EvidenceError(
                    f"it is not there, or may not be read ({code}): put it there, encrypted as the bucket does it by default"
                ) from error
            raise EvidenceError(f"S3 does not give it ({code}): see whether it can be read by hand") from error
        except BotoCoreError as error:
            raise EvidenceError(
                f"S3 does not give it ({type(error).__name__}): see whether it can be read by hand"
            ) from error

    def url(self, key: str) -> str:
        """Say where a file lies."""
        return f"{self._location}/{key}"

    def _put(self, key: str, content: "bytes | IO[bytes]", content_type: str, *, disposition: str = "") -> None:
        from dtr_audit.core import manifest  # noqa: PLC0415

        described = manifest.describe(key, content)
        if disposition:
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=content, ContentType=content_type, ContentDisposition=disposition
            )
        else:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentType=content_type)
        if key in self._parts:
            # An amended part takes the place of the one before.
            self.files[[file.key for file in self.files].index(key)] = described
        else:
            self.files.append(described)

    def _upload(self) -> None:
        if self._zip is None or self._file is None:
            return
        self._confirm()
        self._file.write(self._zip.flush())
        self._part += 1
        key = f"{self.rows_prefix}{self._part:0{self._part_digits}d}.jsonl.gz"
        self._put(
            key,
            self._file,
            "application/gzip",
        )
        if self._keeps_parts:
            self._parts[key] = self._file
            self._file = None
        self._close_part()


def write_rows(
    registry: str,
    run_id: str,
    repository: Repository,
    tags: Iterable[JudgedTag],
    excepted: Mapping[str, Excepted],
    *,
    audited_at: datetime,
    author_names: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yield the row of each tag of a repository, a line of JSON; always the same keys, in the same order.

    Letter for letter what `json.dumps` makes of them, without a dict for each of a million.
    """
    head = (
        f'{{"registry":{_quote(registry)},"namespace":{_quote(repository.namespace)},'
        f'"repository":{_quote(repository.name)},"tag":'
    )
    tail = f',"rule_id":{_quote(RULE_ID)},"run_id":{_quote(run_id)},"audited_at":{_quote(iso(audited_at))}}}\n'
    before: object = None
    middle = ""
    for judged in tags:
        name, digest, author, pushed_at, media_type, cosign_signed, _ = judged.tag
        exception = excepted.get(name) if excepted else None
        # Of one tag and the next it is the same nearly always.
        answer = (judged[1:], cosign_signed, exception)
        if answer != before:
            middle = _write_answer(judged, exception)
            before = answer
        named = author_names.get(author) if author_names else None
        author_name = _quote(named) if named and judged.is_finding else "null"
        yield (
            f'{head}{_quote(name)},"digest":{_quote(digest)}{middle}{_quote(author)},"author_name":{author_name},'
            f'"pushed_at":{_quote(pushed_at)},'
            f'"media_type":{_quote(media_type)}{tail}'
        )


def _write_answer(judged: JudgedTag, exception: Excepted | None) -> str:
    """Write what a row says of the answer, with the name of the key that follows."""
    trust, verdict = judged.trust, judged.verdict
    # What is each tag's own has been searched for secrets where the list was read; here it would cost as much again.
    return (
        f',"verdict":{_quote(verdict) if verdict is not None else "null"},"reason":{_quote(REDACTOR.redact(judged.reason))},'
        f'"in_notary":{_FLAGS[trust.in_notary if trust else None]},'
        f'"hash_mismatch":{_FLAGS[trust.hash_mismatch if trust else None]},'
        f'"signed_domain":{_quote(judged.signed_domain)},"signers":[{",".join(map(_quote, map(REDACTOR.redact, judged.signers)))}],'
        f'"trust_expires":{_quote(judged.trust_expires) if judged.trust_expires else "null"},'
        f'"cosign_signed":{_FLAGS[judged.tag.cosign_signed]},"artifact":{_FLAGS[judged.is_artifact]},'
        f'"exception_id":{_quote(exception.exception_id) if exception else "null"},'
        f'"exception_ends":{_quote(exception.ends) if exception else "null"},"author":'
    )


def _begin_zip() -> "_Compress":
    # There is no name and no time in its header: the same rows give the same bytes.
    return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_BITS, zlib.DEF_MEM_LEVEL, GZIP_STRATEGY)


def _write_row(row: Row) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


_FLAGS = {True: "true", False: "false", None: "null"}


def _write_record(run: Run) -> bytes:
    return REDACTOR.redact_json(json.dumps(run.as_dict(), separators=(",", ":"))).encode() + b"\n"
