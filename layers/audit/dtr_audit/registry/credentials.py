"""The registry's credentials, and those for UCP if it is asked too, from Secrets Manager."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from dtr_audit.core.credentials import Credentials, UcpCredentials
from dtr_audit.core.documents import parse_json
from dtr_audit.core.text import is_encodable
from dtr_audit.errors import ContradictionError, SettingsError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_FORM = (
    'the secret must be a JSON object {"username": "…", "password": "…"}, optionally with "ca_bundle" (PEM or PKCS7)'
)
_UCP_FORM = 'it is asked with "ucp_username" and "ucp_password", optionally with "ucp_ca_bundle" (PEM or PKCS7)'
CA_BUNDLE_LENGTH = 1_000_000


class SecretsManagerCredentials:
    """Read the secret; the only place that sees it."""

    def __init__(self, secret_arn: str, client: "SecretsManagerClient") -> None:
        self._secret_arn = secret_arn
        self._provider = SecretsProvider(boto3_client=client)

    def fetch(self, *, fresh: bool = False) -> Credentials:
        """Give the credentials, `fresh` past any cache after the registry refused the ones in hand.

        Raises SettingsError, which never quotes the secret.
        """
        try:
            text = self._provider.get(self._secret_arn, force_fetch=fresh)
        except GetParameterError as error:
            raise SettingsError(
                f"secret: it cannot be read from Secrets Manager ({_cause(error)}). If it was created by this stack it is "
                "empty until `aws secretsmanager put-secret-value` fills it; if not, the function's role and the secret's "
                "key must allow reading it"
            ) from None
        return parse_secret(text if isinstance(text, str | bytes) else "")


def parse_secret(text: str | bytes) -> Credentials:
    """Read the secret's JSON; raises SettingsError that says what is wrong and quotes nothing."""
    try:
        secret = parse_json(text)
    except ContradictionError:
        raise SettingsError(f"secret: one key stands twice in one object, with different values; {_FORM}") from None
    except (ValueError, RecursionError):
        # Raised from nothing on purpose: a JSONDecodeError carries the whole document.
        raise SettingsError(f"secret: it is not JSON; {_FORM}") from None
    if not isinstance(secret, dict):
        raise SettingsError(f"secret: {_FORM}")
    for key in ("username", "password"):
        if not isinstance(secret.get(key), str) or not secret[key]:
            raise SettingsError(f"secret: '{key}' is missing, empty or not a text; {_FORM}")
        if not is_encodable(secret[key]):
            raise SettingsError(f"secret: '{key}' holds half of a character (a lone surrogate); {_FORM}")
    if ":" in secret["username"]:
        raise SettingsError("secret: 'username' holds a colon, which HTTP Basic authentication cannot carry")
    ca_bundle = secret.get("ca_bundle") or ""
    if not isinstance(ca_bundle, str) or len(ca_bundle) > CA_BUNDLE_LENGTH:
        raise SettingsError(f"secret: 'ca_bundle' is not a PEM text; {_FORM}")
    ucp, problem = _parse_ucp(secret, ca_bundle)
    return Credentials(secret["username"], secret["password"], ca_bundle, ucp, problem)


def _parse_ucp(secret: Mapping[str, Any], ca_bundle: str) -> tuple[UcpCredentials | None, str]:
    """Read the keys for UCP; gives what is wrong with them, and quotes nothing, where they cannot be used."""
    values: list[str] = []
    for key in ("ucp_username", "ucp_password"):
        value = secret.get(key)
        if not isinstance(value, str) or not value:
            return None, f"secret: '{key}' is missing, empty or not a text; {_UCP_FORM}"
        if not is_encodable(value):
            return None, f"secret: '{key}' holds half of a character (a lone surrogate); {_UCP_FORM}"
        values.append(value)
    own = secret.get("ucp_ca_bundle")
    if own is None:
        own = ca_bundle
    if not isinstance(own, str) or len(own) > CA_BUNDLE_LENGTH:
        return None, f"secret: 'ucp_ca_bundle' is not a PEM text; {_UCP_FORM}"
    username, password = values
    return UcpCredentials(username, password, own), ""


def _cause(error: GetParameterError) -> str:
    # Powertools raises without saying from what.
    cause = error.__cause__ or error.__context__ or error
    response = getattr(cause, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(cause).__name__)
