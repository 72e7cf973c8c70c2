"""The Notary's part of the HTTP API: `/v2/<gun>/_trust/tuf/<file>.json` and the changefeed."""

from __future__ import annotations

import fnmatch
import json
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass

from dtr_audit_simulator.dtr.fault_kinds import Forged
from dtr_audit_simulator.http.transport import Request, Response
from dtr_audit_simulator.notary.notary import Notary
from dtr_audit_simulator.notary.repository import TrustRepository

CHANGEFEED_PATH = "/v2/_trust/changefeed"
CATALOG_SCOPE = "registry:catalog:*"
REMEMBERED_FORGERIES = 32
NOT_FOUND = "You have requested metadata that does not exist."

_FILE = re.compile(
    r"/v2/(?P<gun>[^*]+)/_trust/tuf/(?:(?P<version>[0-9]+)\.)?"
    r"(?P<role>root|snapshot|timestamp|targets(?:/[^/\s]+?)*)(?:\.(?P<sha256>[0-9a-fA-F]{64}))?\.json"
)
_Forgery = tuple[str, int, tuple[Forged, ...]]


@dataclass(frozen=True, slots=True)
class TrustFile:
    """Which file is asked for."""

    gun: str
    role: str
    version: int | None
    sha256: str

    @classmethod
    def of(cls, path: str) -> TrustFile | None:
        """Read a decoded path; None if it names no file of trust data."""
        found = _FILE.fullmatch(path)
        if found is None:
            return None
        version = found["version"]
        return cls(found["gun"], found["role"], int(version) if version else None, (found["sha256"] or "").lower())

    @property
    def scope(self) -> str:
        """What a token has to be good for."""
        return f"repository:{self.gun}:pull"


class TrustApi:
    """Answer from a `notary`, honestly or as the forgeries in force demand."""

    def __init__(self, notary: Notary) -> None:
        self.notary = notary
        self._lock = threading.Lock()
        self._forgeries: OrderedDict[_Forgery, TrustRepository] = OrderedDict()

    def give_file(self, file: TrustFile, forged: tuple[Forged, ...]) -> Response:
        """Give a file of trust data, or 404."""
        repository = self.notary.find(file.gun)
        meant = tuple(forgery for forgery in forged if fnmatch.fnmatchcase(file.gun, forgery.gun))
        if repository is not None and meant:
            repository = self._forge(repository, meant)
        body = None if repository is None else repository.find(file.role, version=file.version, sha256=file.sha256)
        return not_found() if body is None else Response(200, body)

    def give_changes(self, request: Request) -> Response:
        """Give the changefeed, or 400 for parameters that are no numbers."""
        try:
            records, after = int(request.parameter("records")), int(request.parameter("change_id") or 0)
        except ValueError:
            return _error(400, "INVALID_PARAMETERS", "The parameters provided are not valid.")
        changes = [change.described() for change in self.notary.changes(after, records)]
        return Response(200, json.dumps({"count": len(changes), "records": changes or None}).encode())

    def _forge(self, repository: TrustRepository, forged: tuple[Forged, ...]) -> TrustRepository:
        # Once for all requests, so that the files of a forgery fit each other; others' files may have a part in it.
        with self._lock:
            key = (repository.gun, self.notary.publications, forged)
            forgery = self._forgeries.get(key)
            if forgery is None:
                forgery = repository.fork()
                for each in forged:
                    each.attack.apply(forgery, self.notary.find)
                self._forgeries[key] = forgery
            self._forgeries.move_to_end(key)
            while len(self._forgeries) > REMEMBERED_FORGERIES:
                self._forgeries.popitem(last=False)
            return forgery


def not_found() -> Response:
    """Say, as Notary does, that there is no such file."""
    return _error(404, "METADATA_NOT_FOUND", NOT_FOUND)


def _error(status: int, code: str, message: str) -> Response:
    return Response(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode())
