"""Under which hosts a Notary has trust data at all, read from its changefeed.

Source: Notary, server/handlers/changefeed.go and server/storage (Change): `{"count", "records": [{"ID", "GUN", "Category"}]}`.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import TrustDataError
from ..settings import is_domain
from . import canonical

RECORDS = 1_000  # of one page
PAGES = 20
GUN_LENGTH = 512

# A number where the Notary keeps its data in SQL; DTR's, which keeps it in RethinkDB, makes UUIDs.
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_BEGINNING = "0"


class ChangeSource(Protocol):
    """Where pages of the changefeed come from."""

    def fetch_changes(self, records: int, after: str) -> bytes:
        """Give a page from behind a change; raises RegistryError, OutOfTimeError."""
        ...


@dataclass(frozen=True, slots=True)
class TrustHosts:
    """For how many repositories each host has trust data, the most first; a part, if the feed was longer than is read."""

    repositories: dict[str, int] = field(default_factory=dict)
    is_whole: bool = True


def read_hosts(source: ChangeSource) -> TrustHosts:
    """Read the changefeed from its beginning, PAGES at most; raises RegistryError, OutOfTimeError."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    after = _BEGINNING
    seen = {after}
    for _ in range(PAGES):
        records = _records(source.fetch_changes(RECORDS, after))
        for record in records:
            gun = record["GUN"]
            host = gun.partition("/")[0]
            if not is_domain(host):
                continue
            if record.get("Category") == "deletion":
                found[host].discard(gun)
            else:
                found[host].add(gun)
        if len(records) < RECORDS:
            return _hosts(found, is_whole=True)
        after = records[-1]["ID"]
        if after in seen:
            raise TrustDataError("the changefeed: a page leads back to one that was read already")
        seen.add(after)
    return _hosts(found, is_whole=False)


def suggest_domain(hosts: TrustHosts, asked: tuple[str, ...]) -> str:
    """Say which host to ask under, if trust data lies under others than the audit asked; '' if there is nothing to say."""
    if any(host in hosts.repositories for host in asked):
        return ""
    if not hosts.repositories:
        if not hosts.is_whole:
            return ""
        return "the Notary has no trust data under any host: nothing was ever signed there"
    (best, count), *others = hosts.repositories.items()
    more = f", and under {len(others)} other host{'s' if len(others) > 1 else ''}" if others else ""
    return (
        f"the Notary has trust data under {best} ({count} repositor{'ies' if count > 1 else 'y'}){more}, and none under "
        f"{', '.join(asked)}: set DTR_DOMAINS to {best}"
    )


def _hosts(found: dict[str, set[str]], *, is_whole: bool) -> TrustHosts:
    counts = {host: len(guns) for host, guns in found.items() if guns}
    return TrustHosts(dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))), is_whole)


def _records(body: bytes) -> list[dict[str, Any]]:
    page = canonical.parse(body, "the changefeed")
    records = page.get("records") if isinstance(page, dict) else None
    if records is None and isinstance(page, dict) and page.get("count") == 0:
        return []
    if not isinstance(records, list) or len(records) > RECORDS or not all(map(_is_record, records)):
        raise TrustDataError("the changefeed: the answer is not a list of changes")
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict):
        return False
    number, gun = record.get("ID"), record.get("GUN")
    return (
        isinstance(number, str)
        and _ID.fullmatch(number) is not None
        and isinstance(gun, str)
        and 0 < len(gun) <= GUN_LENGTH
    )
