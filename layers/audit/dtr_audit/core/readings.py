"""What is read of a registry before it is judged."""

from dataclasses import dataclass, field

from dtr_audit.core.model import PassingFault, Tag
from dtr_audit.core.run_record import SupportingFact


@dataclass(slots=True)
class Listing:
    """What is known of a list of repositories once it has been read; filled while it is iterated."""

    unnamed_entries: int = 0  # unnamed entries, as old servers list them: namespace or name is missing, null or empty
    count: int = 0  # the largest number of entries that the registry said it has; 0 where it did not say
    # '': read to its end, and the registry's own count agrees
    problem: str = "the list of repositories was not read to its end"


@dataclass(slots=True)
class TagReading:
    """The tags of one repository under one domain; `problem` is '' when all were read."""

    tags: dict[str, Tag] = field(default_factory=dict)
    problem: str = ""
    fault: PassingFault | None = None  # where the problem may be gone later in the same run
    status: int = 0  # of the answer that was the fault
    is_miscounted: bool = False  # the problem is that the registry's own count is another, or changed
    # Why nothing is known of signatures, by domain, where the tags could be read all the same.
    unread_trust: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RelatedSettings:
    """What was seen; `warning` is '' unless UCP is to be asked and something of it could not be read."""

    facts: tuple[SupportingFact, ...]
    warning: str
