"""A finding, and what can happen to it."""

from dataclasses import dataclass
from enum import StrEnum

from dtr_audit.core.model import Repository, Verdict


class State(StrEnum):
    """Where a finding stands."""

    OPEN = "OPEN"
    RESOLVED = "RESOLVED"


class ChangeKind(StrEnum):
    """How a finding moves."""

    OPENED = "opened"
    CHANGED = "changed"
    RESOLVED = "resolved"
    EXPIRING = "expiring"  # the exception that covers it ends within a week
    EXPIRED = "expired"  # no exception covers it any more


@dataclass(frozen=True, slots=True)
class Excepted:
    """An exception that covers a finding: who answers for it, and until when. The finding stays one."""

    exception_id: str
    owner: str
    reason: str
    reference: str  # e.g. a POA&M item; '' for none
    ends: str  # YYYY-MM-DD, the last day on which it holds


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of a finding, as it is to be told: what, in which run, and what was true then."""

    change_kind: ChangeKind
    run_id: str
    first_seen: str  # of the finding that moved: a tag can be opened, resolved and opened anew
    resolution: str = ""  # of the finding; of an exception, why it covers no more
    excepted: Excepted | None = None  # the exception that this is about
    is_quiet: bool = False  # nobody is to be told: nobody had heard that the finding was open


@dataclass(frozen=True, slots=True)
class Finding:
    """One tag that is, or was, not signed; the item of the findings table.

    `unannounced` are the moves that no subscriber has heard of yet, oldest first. Times are ISO 8601, UTC. `excepted` is what
    was known when the tag was last read.
    """

    registry: str
    repository: Repository
    tag: str
    state: State
    verdict: Verdict
    reason: str
    digest: str
    author: str
    pushed_at: str
    first_seen: str
    last_changed: str
    transition: ChangeKind  # the last
    changed_in: str  # and the run that made it
    resolution: str = ""
    pending_notifications: tuple[Transition, ...] = ()
    media_type: str = ""  # of what the tag holds; '' where the registry does not say
    excepted: Excepted | None = None
    notified_expiry: str = ""  # the end of its exception that was news, YYYY-MM-DD
    is_unheard: bool = False  # it is open, and no message that says so has been published yet
    author_name: str = ""  # of the account whose id is `author`; '' where the registry does not name it

    @property
    def pushed_by(self) -> str:
        """Give who pushed it, in the form for people: the account's name, else what the registry shows; '' if it shows nothing."""
        return self.author_name or self.author
