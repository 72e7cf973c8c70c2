"""What a run leaves in S3: a row for every tag, the run record, the evidence, and a manifest of all of them.

Layout (Hive partitions, for Athena): `findings/registry=<name>/dt=<YYYY-MM-DD>/<run_id>-<part>.jsonl.gz` and
`runs/registry=<name>/dt=<YYYY-MM-DD>/<run_id>.json`. Every row has the same lower-case keys. What people and their tools read
lies in `evidence/registry=<name>/<run_id>/`.
"""

import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .model import RULE_ID, Excepted, JudgedTag, Repository, Run, iso

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from .evidence.report import StoredFile

PART_ROWS = 50_000
PART_BYTES = 8 * 1024 * 1024  # compressed; a part is closed once it has grown past this
GZIP_LEVEL = 6


class Archive:
    """The S3 side of one run; rows are streamed, and never more than one part is held."""

    def __init__(
        self, client: "S3Client", bucket: str, registry: str, run_id: str, date: str, *, confirm: Callable[[], None]
    ) -> None:
        """Prepare; `date` is the run's partition, YYYY-MM-DD.

        `confirm` raises when another attempt at the same run has taken over; it is asked before each write.
        """
        self._confirm = confirm
        self._client = client
        self._bucket = bucket
        self._registry = registry
        self._run_id = run_id
        partition = f"registry={registry}/dt={date}"
        self.rows_prefix = f"findings/{partition}/{run_id}-"
        self.record_key = f"runs/{partition}/{run_id}.json"
        self.evidence_prefix = f"evidence/registry={registry}/{run_id}/"
        self.files: list[StoredFile] = []  # all that this attempt has written, in that order
        self._part = 0
        self._rows = 0
        self._buffer = io.BytesIO()
        self._zip: gzip.GzipFile | None = None

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
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self.rows_prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                self._client.delete_object(Bucket=self._bucket, Key=entry["Key"])

    def add(
        self,
        repository: Repository,
        tags: Iterable[JudgedTag],
        excepted: Mapping[str, Excepted],
        *,
        audited_at: datetime,
    ) -> None:
        """Write a row for each tag; a full part is uploaded. `excepted` are the findings under an exception, by tag."""
        for judged in tags:
            if self._zip is None:
                self._buffer = io.BytesIO()
                # No time in the header: the same rows give the same bytes.
                self._zip = gzip.GzipFile(fileobj=self._buffer, mode="wb", compresslevel=GZIP_LEVEL, mtime=0)
                self._rows = 0
            row = self._row(repository, judged, excepted.get(judged.tag.name), audited_at)
            line = json.dumps(row, separators=(",", ":"))
            self._zip.write(line.encode() + b"\n")
            self._rows += 1
            if self._rows >= PART_ROWS or self._buffer.tell() >= PART_BYTES:
                self._upload()

    def close(self) -> None:
        """Upload the last part."""
        if self._zip is not None:
            self._upload()

    def put_record(self, run: Run) -> None:
        """Write the run record: one JSON object on one line."""
        self._confirm()
        line = json.dumps(run.as_dict(), separators=(",", ":")) + "\n"
        self._put(self.record_key, line.encode(), "application/json")

    def put_evidence(self, name: str, content: bytes, content_type: str) -> None:
        """Write one file of the evidence."""
        self._confirm()
        self._put(f"{self.evidence_prefix}{name}", content, content_type)

    def put_manifest(self) -> None:
        """Write down what has been written, with the sums."""
        from .evidence import manifest  # noqa: PLC0415 - loaded by the first run, not by the start

        document = manifest.write(self._registry, self._run_id, self.files)
        self.put_evidence(manifest.NAME, document, "application/json")

    def url(self, key: str) -> str:
        """Say where a file lies."""
        return f"s3://{self._bucket}/{key}"

    def _put(self, key: str, content: bytes, content_type: str) -> None:
        from .evidence import manifest  # noqa: PLC0415

        self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentType=content_type)
        self.files.append(manifest.describe(key, content))

    def _upload(self) -> None:
        self._confirm()
        if self._zip is not None:
            self._zip.close()
            self._zip = None
        self._part += 1
        self._put(f"{self.rows_prefix}{self._part:05d}.jsonl.gz", self._buffer.getvalue(), "application/gzip")

    def _row(
        self, repository: Repository, judged: JudgedTag, excepted: Excepted | None, audited_at: datetime
    ) -> dict[str, Any]:
        tag, trust = judged.tag, judged.trust
        return {
            "registry": self._registry,
            "namespace": repository.namespace,
            "repository": repository.name,
            "tag": tag.name,
            "digest": tag.digest,
            "verdict": judged.verdict,
            "reason": judged.reason,
            "in_notary": trust.in_notary if trust else None,
            "hash_mismatch": trust.hash_mismatch if trust else None,
            "signed_domain": judged.signed_domain,
            "signers": [],
            "cosign_signed": tag.cosign_signed,
            "artifact": judged.is_artifact,
            "exception_id": excepted.exception_id if excepted else None,
            "exception_ends": excepted.ends if excepted else None,
            "author": tag.author,
            "pushed_at": tag.pushed_at,
            "media_type": tag.media_type,
            "rule_id": RULE_ID,
            "run_id": self._run_id,
            "audited_at": iso(audited_at),
        }
