"""One signed document served in more than one place: then it cannot be known whose signature it is.

A document of the Notary names neither its role nor its repository. The holder of the server's keys can serve what a signer has
signed in one repository or role in another one, wherever the signer's key is accepted there.
"""

import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from dtr_audit.core.model import JudgedTag, Repository, SignedDocuments, Verdict
from dtr_audit.core.text import clean

RECORDS = 3_000_000  # documents compared in one run, earlier versions included: 60 MB of /tmp
REASON_LENGTH = 400
RECORDS_OF_A_PASS = 100_000  # held in memory at once, some 16 MB

DOCUMENTS = 16_384  # of one repository: domains times what is remembered under each
HASH_BYTES = 16  # the first half of a SHA-256

_RECORD = struct.Struct(f"<{HASH_BYTES}sI?")  # hash, number of the repository, whether the document is served now

# By repository: the hash of each document that is served elsewhere too, and where, as namespace/name.
Reused = Mapping[Repository, Mapping[str, str]]


class DocumentLedger:
    """The documents of one run's repositories, to be compared at its end; they wait in a temporary file."""

    def __init__(self) -> None:
        self.problem = ""  # why not all were compared
        self._repositories: list[Repository] = []
        self._distrusted: set[int] = set()  # repositories whose signatures are not counted already
        self._file = tempfile.SpooledTemporaryFile(max_size=4 * 1024 * 1024)  # noqa: SIM115 - closed by close()
        self._length = 0

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def add(self, repository: Repository, documents: SignedDocuments) -> None:
        """Take the documents of a repository, once for each; beyond RECORDS that is a problem."""
        count = len(documents.current) + len(documents.earlier)
        if self._length + count > RECORDS:
            self.problem = (
                f"the repositories have more than {RECORDS} signed documents, and no more are compared. Whether one is served in "
                "two places was not seen"
            )
        if not count or self.problem:
            return
        self._length += count
        number = len(self._repositories)
        self._repositories.append(repository)
        if documents.reused:
            self._distrusted.add(number)
        for hashes, is_current in ((documents.current, True), (documents.earlier, False)):
            for one in hashes:
                self._file.write(_RECORD.pack(bytes.fromhex(one), number, is_current))

    def find_reused(self) -> dict[Repository, dict[str, str]]:
        """Give the repositories with a document that another one serves or served, if one of the two serves it now.

        Repositories whose signatures are not counted already are left out.
        """
        found: dict[Repository, dict[str, str]] = {}
        passes = self._length // RECORDS_OF_A_PASS + 1
        for one in range(passes):
            for digest, numbers in self._shared(one, passes):
                names = sorted({self._repositories[number] for number in numbers})
                for number in numbers - self._distrusted:
                    repository = self._repositories[number]
                    other = next((name for name in names if name != repository), None)
                    if other is not None:
                        found.setdefault(repository, {})[digest.hex()] = str(other)
        return found

    def _shared(self, one: int, passes: int) -> Iterator[tuple[bytes, set[int]]]:
        """Yield the documents of several repositories among those of one pass."""
        first: dict[bytes, int] = {}
        shared: dict[bytes, set[int]] = {}
        served: set[bytes] = set()
        for digest, number, is_current in self._records():
            if digest[0] % passes != one:
                continue
            if is_current:
                served.add(digest)
            before = first.setdefault(digest, number)
            if before != number:
                shared.setdefault(digest, {before}).add(number)
        return ((digest, numbers) for digest, numbers in shared.items() if digest in served)

    def _records(self) -> Iterator[tuple[bytes, int, bool]]:
        self._file.seek(0)
        while chunk := self._file.read(_RECORD.size * 4_096):
            yield from _RECORD.iter_unpack(chunk)


def explain_elsewhere(locations: Sequence[str]) -> str:
    """Say why the signatures of a repository do not count that shares a document with others."""
    return clean(
        f"trust data re-used: a signed document of this repository is served in {min(locations)} too, so whose signature it is "
        "cannot be known. See who holds the keys of the Notary. Then publish new versions in both, with a delegation key for each",
        REASON_LENGTH,
    )


def explain_roles(roles: Sequence[str]) -> str:
    """Say why the signatures of a repository do not count in which one document stands for two roles."""
    one, other = sorted(roles)[:2]
    return clean(
        f"trust data re-used: one signed document is served as {one} and as {other}, so whose signature it is cannot be known. "
        "See who holds the keys of the Notary. Then let the signers of both roles publish new versions",
        REASON_LENGTH,
    )


def distrust(judged: JudgedTag, reason: str) -> JudgedTag:
    """Take back what a signature proved; a tag that is not SIGNED stays as it is."""
    return judged._replace(verdict=Verdict.UNTRUSTED, reason=reason) if judged.verdict is Verdict.SIGNED else judged
