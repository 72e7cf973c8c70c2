"""The document of exceptions in the bucket: fetched, and opened for a run."""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from dtr_audit.core.exceptions import DOCUMENT_BYTES, ENDED_NAMED, KEY, PROBLEM_LENGTH, Exceptions, ExceptionsDocument
from dtr_audit.core.text import clean
from dtr_audit.errors import ExceptionsError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = Logger(service="dtr-signature-audit", child=True)


@dataclass(frozen=True, slots=True)
class ExceptionsRead:
    """What a run knows of the exceptions; None is that nobody knows them, and then none holds: `problem` says why."""

    exceptions: Exceptions | None = None
    problem: str = ""

    @classmethod
    def of(cls, document: ExceptionsDocument | ExceptionsError, day: date) -> "ExceptionsRead":
        """Open a document, or take the error that came in its place."""
        try:
            if isinstance(document, ExceptionsError):
                raise document
            return cls(document.open(day))
        except ExceptionsError as error:
            logger.warning("nothing is excepted", reason=str(error), exc_info=error.__cause__)
            return cls(problem=clean(str(error), PROBLEM_LENGTH))

    @property
    def warning(self) -> str:
        """Say what is to be looked at, '' if nothing."""
        if self.exceptions is None:
            return f"nothing is excepted, since of the exceptions nobody knows: {self.problem}"
        ended = self.exceptions.ended
        if not ended:
            return ""
        named = ", ".join(f"{one.exception_id} ({one.ends})" for one in ended[:ENDED_NAMED])
        more = f" and {len(ended) - ENDED_NAMED} more" if len(ended) > ENDED_NAMED else ""
        have = "exception has" if len(ended) == 1 else "exceptions have"
        return (
            f"{len(ended)} {have} ended, and cover nothing any more: {named}{more}. Take them out of "
            f"{KEY}, or have a new end agreed"
        )


def fetch_exceptions(client: "S3Client", bucket: str) -> ExceptionsDocument | ExceptionsError:
    """Fetch the document from the bucket, or give the error that says why nobody can: a run goes on without it."""
    try:
        # Listed first: a reader of this key alone is answered 403 for a document that is not there.
        listed = client.list_objects_v2(Bucket=bucket, Prefix=KEY, MaxKeys=1).get("Contents", [])
        if not any(entry["Key"] == KEY for entry in listed):
            return ExceptionsDocument()
        answer = client.get_object(Bucket=bucket, Key=KEY)
        with answer["Body"] as body:
            document = body.read(DOCUMENT_BYTES + 1)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "no code")
        if code == "NoSuchKey":  # removed in this very moment
            return ExceptionsDocument()
        return _unread(f"{KEY}: it could not be read ({clean(code, 64)})", error)
    except BotoCoreError as error:
        return _unread(f"{KEY}: it could not be read ({type(error).__name__})", error)
    return ExceptionsDocument(document, answer.get("VersionId", ""))


def _unread(why: str, cause: Exception) -> ExceptionsError:
    error = ExceptionsError(why)
    error.__cause__ = cause
    return error
