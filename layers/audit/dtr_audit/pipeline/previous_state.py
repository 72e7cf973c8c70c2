"""What earlier runs have left of all repositories, read at the start in one go and kept in a temporary file.

A query for each repository costs a millisecond or two of the processor, which is more than its tags do; and the first run of
all would ask for thousands of repositories of which nothing is known.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from dtr_audit.aws.findings import FindingsTable, from_items
from dtr_audit.core.finding_changes import Known
from dtr_audit.core.model import Repository

FILE_BYTES = 192 * 1024 * 1024  # about a quarter of a million findings; Lambda's own limit of /tmp is 512 MB
ITEMS_TOGETHER = 500  # of one repository, held while they are written

# What only the table needs of an item.
_OF_THE_TABLE = frozenset({"pk", "open_shard", "unannounced_shard", "expires_at", "security_hub_at"})

logger = Logger(service="dtr-signature-audit", child=True)


class KnownBefore:
    """What was known of every repository when it was made. Safe to share between threads.

    It holds for repositories that the run has not come to yet, since nobody else writes: the lease sees to that.
    """

    def __init__(self, table: FindingsTable, *, with_trust: bool) -> None:
        """Read the table, trust data only if it is asked for. If that is too much to keep, each repository is asked for anew."""
        self._table = table
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
        self._end = 0
        self._locations: dict[str, list[tuple[int, int]]] | None = {}  # by repository: where, and how many bytes
        try:
            self._read(with_trust=with_trust)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def known_of(self, repository: Repository) -> Known:
        """Give what is known of a repository."""
        if self._locations is None:
            return self._table.known_of(repository)
        locations = self._locations.get(str(repository), ())
        return from_items(
            item for place, length in locations for item in json.loads(os.pread(self._file.fileno(), length, place))
        )

    def _read(self, *, with_trust: bool) -> None:
        group: list[Mapping[str, Any]] = []
        of = ""
        # The table gives items of one repository one after the other, mostly.
        for repository, item in self._table.everything(with_trust=with_trust):
            if repository != of or len(group) >= ITEMS_TOGETHER:
                self._keep(of, group)
                of, group = repository, []
            group.append({name: value for name, value in item.items() if name not in _OF_THE_TABLE})
            if self._end > FILE_BYTES:
                logger.info("more is known than can be read ahead: each repository is asked for")
                self._locations = None
                self._file.truncate(0)
                return
        self._keep(of, group)

    def _keep(self, repository: str, items: list[Mapping[str, Any]]) -> None:
        if items and self._locations is not None:
            text = json.dumps(items).encode()
            self._file.write(text)
            self._locations.setdefault(repository, []).append((self._end, len(text)))
            self._end += len(text)
