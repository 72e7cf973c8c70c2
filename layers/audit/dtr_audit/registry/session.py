"""The account that a registry is read with: it logs in, renews its token, and is proven to be an administrator's."""

import base64
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dtr_audit.core.credentials import CredentialSource
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.text import clean
from dtr_audit.errors import (
    AuthenticationError,
    RegistryError,
    SettingsError,
    TransientError,
    WrongProductError,
)
from dtr_audit.http.exchange import Answer, Clock, SystemClock
from dtr_audit.http.limiter import ConcurrencyLimiter
from dtr_audit.http.memory_budget import Charge
from dtr_audit.http.retry import Patience
from dtr_audit.http.tokens import parse_answer, read_token
from dtr_audit.http.transport import RETRIED_STATUSES, Transport
from dtr_audit.registry.api_errors import (
    error_text,
    identity_error,
    prove_settings,
    raise_if_transient,
    read_settings,
    recognise_others,
)
from dtr_audit.registry.domains import foreign_host
from dtr_audit.registry.parsing import ECHO
from dtr_audit.settings import DOMAIN_LENGTH

SETTINGS_BYTES = 256 * 1024  # of text; the registry's settings hold certificates
TOKEN_RENEWAL_SHARE = 0.8  # of its life; the rest is for requests under way
VERSION = "/api/v0/admin/version"  # of Mirantis Secure Registry; Docker Trusted Registry has no such document
VERSION_LENGTH = 64
ROTATION_SECONDS = 10.0  # for which a new password may be known to the registry and not yet stand in the secret
_SERVICE = re.compile(r'service="([^"]{1,256})"')
_TOKENS_UNANSWERED = (
    "GET /auth/token: the token server does not answer, and without a token the registry refuses the credentials"
)


class Session:
    """A registry that one account is logged in to. Safe to share between threads once `connect()` has returned."""

    def __init__(
        self,
        url: str,
        source: CredentialSource,
        *,
        x509_strict: bool,
        concurrency: int,
        stop_at: float,
        clock: Clock | None = None,
    ) -> None:
        """Fetch the credentials and prepare; `stop_at` is on the clock. Raises SettingsError; asks nothing of the registry yet."""
        self._clock = clock or SystemClock()
        self._source = source
        self._stop_at = stop_at
        self.patience = Patience(stop_at, self._clock)
        self._credentials = source.fetch()
        REDACTOR.learn_password(self._credentials.username, self._credentials.password)
        self._transport = Transport(
            url,
            ca_bundle=self._credentials.ca_bundle,
            x509_strict=x509_strict,
            connections=concurrency,
            stop_at=stop_at,
            clock=self._clock,
        )
        self._lock = threading.Lock()
        self._authorization = ""
        self._generation = 0
        self._renew_at = float("inf")
        self._is_basic_refused = False  # while the token server did not answer
        self._is_checked = False  # all that was read with the present token was read as an administrator
        self._service: str | None = None  # the token's audience; None: tokens are asked for without one
        self._pull_service: str | None = None  # that of tokens for /v2/
        self._by_token = False
        self._refetched: set[str] = set()  # for what the secret was read once more
        self._refused: AuthenticationError | None = None
        self._doubt = ""  # why what was read may have been read as nobody

    @property
    def limiter(self) -> ConcurrencyLimiter:
        """The turns at this host, for whoever else asks it."""
        return self._transport.limiter

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    # -- who am I? ---------------------------------------------------------------------------------------------------

    def connect(self) -> str:
        """Log in, prove that the account is an administrator, and give the registry's own `dtrHost` ('' if it has none).

        Tries, in this order: a token for the service that the registry names, a token without one, and HTTP Basic on every call.
        Raises AuthenticationError, WrongProductError or RegistryError: a TransientError where no credentials were refused.
        """
        refusals: set[int] = set()
        try:
            answer = self._log_in(refusals)
            if answer.status == 401 and self._refetch():
                refusals.clear()
                answer = self._log_in(refusals)
            raise_if_transient(answer, "/api/v0/meta/settings")
        except TransientError as error:
            if 401 in refusals:
                # To try them again and again would lock the account.
                raise RegistryError(str(error)) from None
            raise
        if answer.status == 401 and refusals & RETRIED_STATUSES:
            # This registry may take tokens alone. Basic is not tried again: each refusal counts against the account's lock.
            self._is_basic_refused = True
            raise TransientError(_TOKENS_UNANSWERED)
        if answer.status == 200:
            host = prove_settings(answer, self._transport).get("dtrHost")
            if isinstance(host, str) and REDACTOR.holds_secret(host):
                raise RegistryError(f"the registry's name for itself (dtrHost) {ECHO}")
            return host if isinstance(host, str) else ""
        recognise_others(self._transport)
        raise identity_error(answer)

    def verify_admin(self) -> None:
        """Prove that the account has been an administrator to the end; raises AuthenticationError or RegistryError.

        Some servers answer a token that they no longer take as if nobody had logged in: 200, and an empty list. So the
        proof is asked of the very token that the lists were read with, and it is not renewed first.
        """
        with self._lock:
            self._raise_if_refused()
            if self._is_checked:
                # Nothing was read since, and meanwhile the token may have expired.
                self._renew_locked()
            answer = self._check_before_renewal()
            if self._doubt:
                raise AuthenticationError(self._doubt)
            if answer.status == 401:
                self._renew_locked()
                answer = self._ask_settings()
                raise_if_transient(answer, "/api/v0/meta/settings")
        if answer.status != 200:
            raise identity_error(answer)
        prove_settings(answer, self._transport)

    def _check_before_renewal(self) -> Answer:
        """Ask who we are with the authorization in hand, and see that what it read was not read as nobody."""
        answer = self._ask_settings()
        # A fault of the moment says nothing about the account.
        raise_if_transient(answer, "/api/v0/meta/settings")
        if read_settings(answer) is not None:
            return answer
        if answer.status == 401:
            # A server that refuses a dead token for lists too has answered every list to a live one.
            probe = self._transport.get(
                "/api/v0/repositories", params={"pageSize": "1"}, authorization=self._authorization
            )
            raise_if_transient(probe, "/api/v0/repositories")
            if probe.status == 401:
                return answer
        self._doubt = (
            f"asked again in mid-run, the registry did not confirm that the account is an administrator's ({answer.status}), "
            "and may have answered since as to an anonymous caller, who does not see everything. "
            "Look at the account; the next run reads everything anew"
        )
        return answer

    def allow_slow_answers(self) -> None:
        """Wait longer for each answer from now on."""
        self._transport.allow_slow_answers()

    def probe(self) -> None:
        """Ask something small; raises TransientError while the registry does not answer, RegistryError or OutOfTimeError."""
        raise_if_transient(self._ask_settings(), "/api/v0/meta/settings")

    def prepare_to_wait(self) -> None:
        """See that all was read as an administrator, before the token is left to expire while nothing is asked.

        Raises RegistryError or OutOfTimeError.
        """
        with self._lock:
            if self._by_token:
                self._check_before_renewal()
                self._is_checked = True
                self._renew_at = self._clock.monotonic()

    def _log_in(self, refusals: set[int]) -> Answer:
        """Try each way in, and give the answer to the question who we are, of the first that works or of the last.

        The statuses with which a token was refused are added to `refusals`.
        """
        self._service = self._pull_service = self._challenge()
        for service in dict.fromkeys((self._service, None)):
            self._service = service
            refusal = self._take_token()
            if refusal is not None:
                refusals.add(refusal.status)
                # Wrong credentials count against an account's lock: no second token is asked for with them.
                if refusal.status == 401:
                    break
                continue
            self._by_token = True
            answer = self._ask_settings()
            if answer.status == 200:
                return answer
        if self._is_basic_refused and refusals & RETRIED_STATUSES:
            raise TransientError(_TOKENS_UNANSWERED)
        self._by_token = False
        self._use_basic()
        return self._ask_settings()

    def _ask_settings(self) -> Answer:
        return self._transport.get("/api/v0/meta/settings", authorization=self._authorization, limit=SETTINGS_BYTES)

    def _challenge(self) -> str | None:
        """Ask the registry which service its tokens are for.

        Raises WrongProductError if its tokens come from another host: a content cache has none of its own.
        """
        answer = self._transport.get("/v2/")
        raise_if_transient(answer, "/v2/")
        challenge = answer.headers.get("Www-Authenticate", "")
        own = urlsplit(self._transport.url).netloc
        elsewhere = foreign_host(challenge, own)
        if elsewhere:
            raise WrongProductError(
                f"GET /v2/: the registry's challenge names '{clean(elsewhere, DOMAIN_LENGTH)}' as the host that gives tokens, and "
                f"not {own}, DTR_URL's host. So DTR_URL may be a content cache, or another name of that registry, and the "
                "credentials were not sent. If that host is your registry, set DTR_URL to it"
            )
        match = _SERVICE.search(challenge[:4096])
        return match.group(1) if match else "dtr"

    def _take_token(self) -> Answer | None:
        """Take a new token; gives the answer that refused it, or None when there is one."""
        params = {"service": self._service} if self._service else {}
        answer = self._ask_token(params, self._basic())
        if answer.status != 200:
            return answer
        granted = read_token(answer)
        if granted is None:
            return answer
        token, life = granted
        self._authorization = f"Bearer {token}"
        self._is_checked = False
        self._renew_at = self._clock.monotonic() + life * TOKEN_RENEWAL_SHARE
        self._generation += 1
        return None

    def _ask_token(self, params: Mapping[str, str], basic: str) -> Answer:
        return self._transport.get("/auth/token", params=params or None, authorization=basic)

    def _use_basic(self) -> None:
        self._authorization = self._basic()
        self._renew_at = float("inf")
        self._generation += 1

    def _basic(self) -> str:
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _refetch(self, purpose: str = "") -> bool:
        """Read the secret once more, once a run for each `purpose`; tells whether it has changed, as after a rotation."""
        if purpose in self._refetched:
            return False
        self._refetched.add(purpose)
        try:
            fresh = self._source.fetch(fresh=True)
        except SettingsError:
            return False
        changed = (fresh.username, fresh.password) != (self._credentials.username, self._credentials.password)
        self._credentials = fresh
        REDACTOR.learn_password(fresh.username, fresh.password)
        return changed

    def _refetch_in_mid_run(self, purpose: str = "") -> bool:
        """Read the secret anew once a rotation under way has had time to reach it; nothing is asked meanwhile.

        Who rotates changes the registry first and the secret then, and it is read only once for each `purpose`.
        """
        if purpose not in self._refetched:
            left = self._stop_at - self._clock.monotonic()
            self._clock.sleep(max(0.0, min(ROTATION_SECONDS, left)))
        return self._refetch(purpose)

    # -- one call ----------------------------------------------------------------------------------------------------

    def _get(self, path: str, params: Mapping[str, str | bytes], limit: int, charge: Charge) -> Answer:
        """Ask with the token in hand, renewing it early, and on a 401 once; then once with the secret read anew."""
        # With Basic there is nothing to renew but the secret, and each refusal counts against the account's lock.
        renewals = (self._renew_token, self._renew_secret) if self._by_token else (self._renew_secret,)
        for renew in (*renewals, None):
            authorization, generation = self._current_authorization()
            answer = self._transport.get(path, params=params, authorization=authorization, limit=limit, charge=charge)
            if answer.status != 401 or renew is None:
                return answer
            renew(generation)
        raise AssertionError("unreachable")  # pragma: no cover

    def _current_authorization(self) -> tuple[str, int]:
        with self._lock:
            self._raise_if_refused()
            if self._clock.monotonic() >= self._renew_at:
                if not self._is_checked:
                    self._check_before_renewal()
                self._renew_locked()
            return self._authorization, self._generation

    def _renew_token(self, generation: int) -> None:
        # One thread renews; the others, refused with the same old token, find the new one here.
        with self._lock:
            self._raise_if_refused()
            if generation == self._generation and self._check_before_renewal().status != 200:
                self._renew_locked()

    def _renew_locked(self) -> None:
        if not self._by_token:
            if self._refetch_in_mid_run():
                self._use_basic()
            return
        refusal = self._take_token()
        if refusal is not None and refusal.status != 401:
            # A fault of the moment says nothing about the credentials.
            raise_if_transient(refusal, "/auth/token")
            refusal = self._take_token()
        if refusal is None or (self._refetch_in_mid_run() and self._take_token() is None):
            return
        self._refuse(f"the registry gives no new token any more ({refusal.status})")

    def _renew_secret(self, generation: int) -> None:
        with self._lock:
            self._raise_if_refused()
            if generation != self._generation:
                return
            status = self._check_before_renewal().status
            if status == 200:
                # The account is as good as ever: the 401 is about this one path.
                return
            if self._refetch_in_mid_run():
                if self._by_token:
                    self._renew_locked()
                else:
                    self._use_basic()
            elif status == 401:
                # Every further call would count against the account's lock.
                self._refuse("the registry refuses the credentials that it took before")

    def _raise_if_refused(self) -> None:
        if self._refused is not None:
            raise self._refused

    def _refuse(self, what: str) -> None:
        self._refused = AuthenticationError(
            f"{what}. Was the password or access token changed, or the account deactivated? Put the present one into the secret"
        )
        raise self._refused

    def look_up(self, path: str) -> Any:
        """Read a JSON document on which nothing hangs, with the authorization in hand: it is neither renewed nor doubted.

        It is asked once, and nobody waits for it who asks for something else.

        Raises RegistryError or OutOfTimeError.
        """
        answer = self._transport.get(path, authorization=self._authorization, is_optional=True)
        if answer.status != 200:
            said = error_text(answer)
            raise RegistryError(f"GET {path}: {answer.status}" + (f": {said}" if said else ""))
        return parse_answer(answer, path)

    def check_time(self) -> None:
        """Raise OutOfTimeError if the time is up."""
        self._transport.check_time("/v2/")


def read_version(document: Any) -> str:
    """Take the registry's version out of what it answers for VERSION; '' where it does not say it."""
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(version, str) or REDACTOR.holds_secret(version):
        return ""
    return clean(version, VERSION_LENGTH)
