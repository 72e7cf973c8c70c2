"""Under which hosts a Notary has trust data, of which repositories, read from its changefeed.

No name of a repository is kept, and few hosts are: a publisher decides how long the feed is.

Source: Notary, server/handlers/changefeed.go and server/storage (Change): `{"count", "records": [{"ID", "GUN", "Category"}]}`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dtr_audit.errors import TrustDataError
from dtr_audit.settings import is_domain
from dtr_audit.trust.notary import canonical

RECORDS = 1_000  # of one page
PAGES = 20
GUN_LENGTH = 512
HOSTS = 64  # that are kept apart; GUNs under more of them are passed over
KEY_BYTES = 16  # of a repository's name, hashed

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
    hosts: tuple[str, ...] = field(default=(), compare=False, repr=False)  # in the order of their bits
    _bits: Mapping[bytes, int] = field(default_factory=dict, compare=False, repr=False)  # by repository: its hosts

    def find(self, repository: str) -> tuple[str, ...]:
        """Give the hosts under which there is trust data for `namespace/name`, by name."""
        bits = self._bits.get(_key(repository), 0)
        return tuple(sorted(host for number, host in enumerate(self.hosts) if bits >> number & 1))


class _Locations:
    """Which repositories have trust data under which hosts."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # of hosts
        self._bits: dict[bytes, int] = {}
        self._is_whole = True

    def note(self, gun: str, *, is_deleted: bool) -> None:
        """Take down a change of a GUN."""
        host, _, repository = gun.partition("/")
        if not is_domain(host):
            return
        if host not in self._numbers and len(self._numbers) == HOSTS:
            self._is_whole = False
            return
        bit = 1 << self._numbers.setdefault(host, len(self._numbers))
        key = _key(repository)
        bits = self._bits.get(key, 0)
        self._bits[key] = bits & ~bit if is_deleted else bits | bit

    def sum_up(self, *, is_whole: bool) -> TrustHosts:
        """Give what was found."""
        hosts = tuple(self._numbers)
        counts = Counter[str]()
        for bits, many in Counter(self._bits.values()).items():
            counts.update({host: many for number, host in enumerate(hosts) if bits >> number & 1})
        ordered = dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
        return TrustHosts(ordered, is_whole and self._is_whole, hosts, self._bits)


def read_hosts(source: ChangeSource) -> TrustHosts:
    """Read the changefeed from its beginning, PAGES at most; raises RegistryError, OutOfTimeError."""
    locations = _Locations()
    after = _BEGINNING
    seen = {after}
    for _ in range(PAGES):
        records = _records(source.fetch_changes(RECORDS, after))
        for record in records:
            locations.note(record["GUN"], is_deleted=record.get("Category") == "deletion")
        if len(records) < RECORDS:
            return locations.sum_up(is_whole=True)
        after = records[-1]["ID"]
        if after in seen:
            raise TrustDataError("the changefeed: a page leads back to one that was read already")
        seen.add(after)
    return locations.sum_up(is_whole=False)


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


def _key(repository: str) -> bytes:
    return hashlib.blake2b(repository.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


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
