"""What can go wrong, each error naming what, where and the remedy."""


class AuditError(Exception):
    """The audit, or one part of it, could not be done."""


class SettingsError(AuditError):
    """A setting, the event or the secret is missing or malformed; named in the message."""


class RegistryError(AuditError):
    """The registry could not be reached, or its answer cannot be used."""


class TransientError(RegistryError):
    """No usable answer came, for a reason that may pass.

    `retry_after` is how long the peer asks to wait, in seconds, and `status` the status of its answer, 0 if there was none.
    """

    def __init__(self, message: str, retry_after: float = 0.0, *, status: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status


class RepositoryGoneError(RegistryError):
    """The registry answers 404 for a repository: deleted meanwhile, or not readable by this account.

    `has_no_account` says that the account whose namespace it is does not exist.
    """

    def __init__(self, message: str, *, has_no_account: bool = False) -> None:
        super().__init__(message)
        self.has_no_account = has_no_account


class ContradictionError(RegistryError):
    """An answer says two different things of one subject."""


class AuthenticationError(RegistryError):
    """The registry refuses the credentials, or they are not an administrator's."""


class WrongProductError(RegistryError):
    """The address answers, but not as a Docker Trusted Registry."""


class TrustDataError(RegistryError):
    """A document of the Notary is not what its format says, or more than is read."""


class UcpError(AuditError):
    """UCP cannot be asked, or its answer cannot be used."""


class OutOfTimeError(AuditError):
    """The time set aside for reading the registry is over."""


class EvidenceError(AuditError):
    """A file of evidence cannot be made of this run, or is not what it should be."""


class ExceptionsError(AuditError):
    """The document of exceptions cannot be read or is broken; nothing is excepted by it."""


class SecurityHubError(AuditError):
    """Security Hub does not take what it is sent."""


class LeaseHeldError(AuditError):
    """Another run of the same registry is under way."""


class StepTakenOverError(AuditError):
    """A later attempt at the same step of a run is under way."""


class WorkError(AuditError):
    """What one step of a run left for the next is not there, or not what was left."""
