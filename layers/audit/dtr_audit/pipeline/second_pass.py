"""Repositories that are read again at the end of a run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dtr_audit.core.finding_changes import Moves
from dtr_audit.core.model import (
    PassingFault,
    Repository,
    RepositoryReading,
)
from dtr_audit.core.text import clean
from dtr_audit.pipeline.scan import Scanned

NAMESPACE_LENGTH = 100  # characters, of an orphan's


@dataclass(slots=True)
class Unfinished:
    """Repositories of which it is not known yet what becomes of them. Names and reasons alone, however many tags they have."""

    gone: dict[Repository, str] = field(default_factory=dict)  # answered 404, in these words
    failed: dict[Repository, PassingFault] = field(default_factory=dict)  # met a fault that may pass

    def __bool__(self) -> bool:
        return bool(self.gone or self.failed)

    def __contains__(self, repository: Repository) -> bool:
        return repository in self.gone or repository in self.failed


def failed_again(failed: Mapping[Repository, PassingFault]) -> Iterator[Scanned]:
    """Give the reading of each repository that could not be read again."""
    for repository, fault in failed.items():
        yield Scanned(RepositoryReading(repository, problem=fault.reason, fault=fault), Moves((), (), ()))


def explain_not_found(reading: RepositoryReading) -> str:
    """Say why a repository that is listed answers 404: its account was deleted, or this one may not read it."""
    if reading.has_no_account:
        namespace = clean(reading.repository.namespace, NAMESPACE_LENGTH)
        return (
            f"an orphan: it is still listed, and its account '{namespace}' does not exist any more. Recreate the account, or "
            f"delete the repository ({reading.problem})"
        )
    return f"{reading.problem}; yet it is listed, so this account may not read it"
