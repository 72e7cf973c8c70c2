"""The credentials for the registry and for UCP, and where they come from."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class UcpCredentials:
    """An administrator of UCP, and the authority of its certificate: the registry's, unless it has its own."""

    username: str
    password: str = field(repr=False)
    ca_bundle: str = field(default="", repr=False)  # see `read_authorities`; "": the public authorities


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name with a password or a DTR access token, and the registry's own CA, if it has one.

    UCP decides nothing, so what is wrong with its keys is no error of the secret: `ucp_problem` says it where `ucp` is None.
    """

    username: str
    password: str = field(repr=False)
    ca_bundle: str = field(default="", repr=False)  # see `read_authorities`; "": the public authorities
    ucp: UcpCredentials | None = None
    ucp_problem: str = ""


class CredentialSource(Protocol):
    """Where credentials come from; `fresh` asks past any cache."""

    def fetch(self, *, fresh: bool = False) -> Credentials:
        """Give the credentials; raises SettingsError."""
        ...
