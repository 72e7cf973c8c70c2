"""A request to the simulated registry, who makes it, and how it can be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dtr_audit_simulator.dtr.accounts import EXPIRES_IN, Account
from dtr_audit_simulator.dtr.backend import RepositoryEntry
from dtr_audit_simulator.dtr.faults import Struck
from dtr_audit_simulator.http.transport import Request

SENSITIVE_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "ssoKey": "sso-key-that-must-never-leak",
        "httpProxy": "http://proxy-user:proxy-password-that-must-never-leak@proxy.example:3128",
        "httpsProxy": "http://proxy-user:proxy-password-that-must-never-leak@proxy.example:3128",
        "webTLSKey": "private-key-that-must-never-leak",
        "storageSecret": "storage-secret-that-must-never-leak",
    }
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of registry it is, where good ones differ.

    An empty `service` is the registry's host, as is an empty `dtr_host`, the name under which images are
    pushed. `maximum_page_size` silently caps `pageSize`. Without a `version` there is no
    `/api/v0/admin/version`. `cosign` adds `cosignSigned` to each tag, as MSR 2.10 does. `settings` are added
    to those of `/api/v0/meta/settings`.
    """

    service: str = ""
    dtr_host: str = ""
    expires_in: int = EXPIRES_IN
    default_page_size: int = 10
    maximum_page_size: int | None = None
    version: str = "2.10.1"
    cosign: bool = True
    create_repository_on_push: bool = False
    report_analytics: bool = False
    scanning_enabled: bool = True
    scan_databases_failed: bool = False
    replica_id: str = "a5f2c0d8e913"
    settings: Mapping[str, Any] = field(default_factory=lambda: SENSITIVE_SETTINGS)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Without an `account` the caller is anonymous, and `refusal` says why."""

    account: Account | None = None
    refusal: str = ""
    is_admin: bool = False

    @property
    def name(self) -> str:
        """Give the account's name; '' for an anonymous caller."""
        return self.account.name if self.account else ""

    def may_read(self, repository: RepositoryEntry) -> bool:
        """Tell whether the caller sees a repository."""
        if self.is_admin or repository.visibility == "public":
            return True
        # An admin who has just lost his rights owns nothing either.
        account = self.account
        return account is not None and not account.is_admin and account.may_read(repository.namespace, repository.path)


class Refusal(Exception):  # noqa: N818 - an answer, not a mistake
    """The request ends in an error answer."""

    def __init__(self, status: int, code: str, message: str, *, shape: str = "errors") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.shape = shape


@dataclass(frozen=True, slots=True)
class Call:
    """A request, what goes wrong with it, and who makes it."""

    request: Request
    struck: Struck
    caller: Caller
