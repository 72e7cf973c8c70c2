"""The registry and its Notary, as one invocation sees them: logged in to, proven, and asked in time."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from aws_lambda_powertools import Logger

from dtr_audit.core.counts import TrustCounts
from dtr_audit.core.model import Repository
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, OutOfTimeError, TransientError
from dtr_audit.http.deadline import answer_in_time, ask_aside
from dtr_audit.registry.credentials import SecretsManagerCredentials
from dtr_audit.registry.domains import choose_domains
from dtr_audit.registry.dtr import DtrClient
from dtr_audit.registry.session import VERSION, read_version
from dtr_audit.settings import Settings, TrustVerification

if TYPE_CHECKING:
    from dtr_audit.core.readings import RelatedSettings
    from dtr_audit.core.reuse import Reused
    from dtr_audit.trust.notary.changefeed import TrustHosts
    from dtr_audit.trust.notary.client import NotaryClient
    from dtr_audit.trust.notary.policy import Pin
    from dtr_audit.trust.tags import TrustVerifier

REASON_LENGTH = 400
CHANGEFEED_SECONDS = 30.0  # for all of it, in which repositories without a signed tag wait for it
VERSION_SECONDS = 5.0  # for which a run waits for the registry's version, once all else is read

logger = Logger(service="dtr-signature-audit", child=True)

_T = TypeVar("_T")


class Connection:
    """The registry and its Notary, seen with one account's eyes until `stop_at` (time.monotonic)."""

    def __init__(
        self,
        settings: Settings,
        credentials: SecretsManagerCredentials,
        *,
        threads: int,
        stop_at: float,
        at: datetime,
        read_pins: Callable[[], bytes],
        domains: tuple[str, ...] = (),
        reused: "Reused | None" = None,
        waits: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare; asks nothing yet. `at` is when the run started, by which trust data is judged.

        `domains` are those that another invocation of the same run has chosen; without them they are chosen here. `read_pins`
        gives the document of pins, and raises SettingsError. `reused` are repositories with a document that this run has seen in
        another one too. `waits` is asked whether a registry that does not answer the login is waited for.
        """
        self.domains = domains
        self.warning = ""  # about the domains that were chosen
        self.verifier: TrustVerifier | None = None  # None: the registry's word is taken
        self._settings = settings
        self._credentials = credentials
        self._threads = threads
        self._stop_at = stop_at
        self._at = at
        self._read_pins = read_pins
        self._reused = reused
        self._waits = waits
        self._registry: DtrClient | None = None
        self._login: Callable[[float], str] | None = None  # under way
        self._notary: NotaryClient | None = None
        self._feed: TrustHosts | None = None  # None: it was not read, or could not be
        self._is_feed_read = False
        self._feed_lock = threading.Lock()
        self._is_connected = False

    @property
    def registry(self) -> DtrClient:
        """The registry, once it is connected."""
        if self._registry is None:
            raise AssertionError("the registry is asked before anybody is logged in")  # pragma: no cover
        return self._registry

    @property
    def is_connected(self) -> bool:
        """Whether `connect()` has come to its end."""
        return self._is_connected

    def begin(self) -> None:
        """Begin to log in, while other things are done; whatever goes wrong is raised by `connect()`."""
        self._login = self._begin_to_log_in()

    def connect(self) -> None:
        """Log in, prove that the account is an administrator's, and prepare to judge; raises AuditError."""
        settings = self._settings
        login = self._login or self._begin_to_log_in()
        dtr_host = login(self._stop_at)
        if not self.domains:
            self.domains, self.warning = choose_domains(settings.domains, dtr_host, settings.dtr_url)
        if settings.trust is TrustVerification.SIGNATURES:
            self.verifier = self._make_verifier()
        self._is_connected = True

    def verify_admin(self) -> str:
        """Prove once more that the account is an administrator's; gives why it is not proven, '' if it is."""
        registry = self.registry
        try:
            # Nothing comes after it.
            self.in_time(lambda: registry.patience.ask(registry.verify_admin, to_the_end=True))
        except AuditError as error:
            return explain_access_unverified(error)
        return ""

    def wait_to_read_again(self, seconds: float, *, is_last: bool) -> bool:
        """Wait so many seconds, and then until the registry answers; tells whether it does. Raises OutOfTimeError.

        For the last pass that is until the end of the time, for another one until the last pass begins.
        """
        registry = self.registry
        # What cannot be checked now is checked when the token is renewed.
        with suppress(AuditError):
            self.in_time(registry.prepare_to_wait)
        registry.patience.sleep(seconds)
        try:
            self.in_time(lambda: registry.patience.ask(registry.probe, to_the_end=is_last))
        except OutOfTimeError:
            raise
        except AuditError as error:
            if isinstance(error, TransientError):
                return False
        # What has failed may have been too slow.
        registry.allow_slow_answers()
        if self._notary is not None:
            self._notary.allow_slow_answers()
        return True

    def begin_to_look_around(self) -> "Callable[[], RelatedSettings]":
        """Begin to see what stands beside the rule; gives what waits for the end of it.

        It decides nothing, takes half a minute at most, and cannot fail. Without a way to the registry at all there is nothing to
        see; where it refuses the account, it says so of each fact.
        """
        from dtr_audit.core.readings import RelatedSettings  # noqa: PLC0415 - loaded by the first run, not by the start
        from dtr_audit.registry.related_settings import begin_to_look  # noqa: PLC0415 - loaded by the first run, not by the start

        if self._registry is None:
            return lambda: RelatedSettings((), "")
        return begin_to_look(
            self._registry,
            self._credentials,
            ucp_url=self._settings.ucp_url,
            x509_strict=self._settings.x509_strict,
            stop_at=self._stop_at,
        )

    def begin_to_read_version(self) -> Callable[[], str]:
        """Begin to ask for the registry's version; gives what waits for it.

        That gives '' where the registry does not say it, or not in time. It is never required, and cannot fail.
        """
        registry = self.registry
        asked = ask_aside(lambda: read_version(registry.look_up(VERSION)))

        def wait() -> str:
            try:
                return asked(min(self._stop_at, time.monotonic() + VERSION_SECONDS))
            except AuditError:
                return ""

        return wait

    def hint_at_domain(self) -> str:
        """Say under which host the Notary does have trust data, if it tells; '' if not."""
        from dtr_audit.trust.notary.changefeed import suggest_domain  # noqa: PLC0415 - as above

        feed = self._changefeed()
        return suggest_domain(feed, self.domains) if feed is not None else ""

    def find_other_hosts(self, repository: Repository) -> tuple[str, ...]:
        """Give the hosts, none of which was asked for, under which the Notary has trust data for a repository, if it tells."""
        feed = self._changefeed()
        # As text: the Notary keeps trust data apart under each spelling of a host.
        return (
            tuple(host for host in feed.find(str(repository)) if host not in self.domains) if feed is not None else ()
        )

    def _changefeed(self) -> "TrustHosts | None":
        """Give the changefeed, read when it is first asked for, once and in CHANGEFEED_SECONDS; None if it cannot be read."""
        from dtr_audit.trust.notary.changefeed import read_hosts  # noqa: PLC0415 - as above

        with self._feed_lock:
            if not self._is_feed_read:
                self._is_feed_read = True
                stop_at = min(self._stop_at, time.monotonic() + CHANGEFEED_SECONDS)
                try:
                    notary = self._ask_notary()
                    self._feed = answer_in_time(lambda: read_hosts(notary), stop_at=stop_at)
                except AuditError as error:
                    logger.info("the changefeed was not read", because=clean(str(error), REASON_LENGTH))
            return self._feed

    def in_time(self, ask: Callable[[], _T]) -> _T:
        """Ask something in a thread of its own, so that its answer cannot outlast the time; raises OutOfTimeError."""
        return answer_in_time(ask, stop_at=self._stop_at)

    def close(self) -> None:
        """Let go of all connections."""
        if self._registry is not None:
            self._registry.close()
        if self._notary is not None:
            self._notary.close()

    def _begin_to_log_in(self) -> Callable[[float], str]:
        """Give what waits for the registry's `dtrHost`, or raises what stands in the way."""
        settings = self._settings
        try:
            self._registry = DtrClient(
                settings.dtr_url,
                self._credentials,
                x509_strict=settings.x509_strict,
                concurrency=self._threads,
                page_size=settings.page_size,
                stop_at=self._stop_at,
            )
        except AuditError as error:
            return _failed(error)
        registry = self._registry
        return ask_aside(lambda: self._log_in(registry))

    def _log_in(self, registry: DtrClient) -> str:
        try:
            return registry.connect()
        except TransientError as error:
            if not self._waits():
                raise
            registry.patience.begin().wait(error)
        return registry.patience.ask(registry.connect)

    def _make_verifier(self) -> "TrustVerifier":
        """Prepare to verify signatures; raises SettingsError for pins that cannot be used."""
        from dtr_audit.trust.notary import pins  # noqa: PLC0415
        from dtr_audit.trust.notary.policy import SignersNeeded, TrustPolicy  # noqa: PLC0415
        from dtr_audit.trust.tags import TrustVerifier  # noqa: PLC0415 - and cryptography with it

        settings = self._settings
        pinned: tuple[Pin, ...] = pins.parse_pins(self._read_pins()) if settings.pin_trust else ()
        policy = TrustPolicy(
            required_signers=settings.required_signers,
            signers_needed=SignersNeeded.ALL if settings.all_signers else SignersNeeded.ANY,
            targets_key_suffices=settings.repository_key_suffices,
            pins=pinned,
            warning_days=settings.trust_warning_days,
        )
        return TrustVerifier(self._ask_notary(), policy, at=self._at, reused=self._reused)

    def _ask_notary(self) -> "NotaryClient":
        """Give the client of the registry's Notary, made when it is first needed; raises SettingsError."""
        from dtr_audit.trust.notary.client import NotaryClient  # noqa: PLC0415

        settings = self._settings
        if self._notary is None:
            self._notary = NotaryClient(
                settings.dtr_url,
                self._credentials,
                x509_strict=settings.x509_strict,
                concurrency=self._threads,
                stop_at=self._stop_at,
                # For a hint alone they are sent to nobody else.
                token_hosts=settings.domains if settings.trust is TrustVerification.SIGNATURES else (),
                limiter=self.registry.limiter,
            )
        return self._notary


def _failed(error: AuditError) -> Callable[[float], str]:
    def say(_: float) -> str:
        raise error

    return say


def explain_access_unverified(error: AuditError) -> str:
    """Say that nobody knows whether the registry showed everything to the end."""
    return f"that the account is an administrator could not be proven at the end: {error}"


def count_trust(settings: Settings) -> TrustCounts:
    """Begin to count what comes of trust data, with what is required of it."""
    return TrustCounts(
        settings.required_signers,
        all_signers=settings.all_signers,
        repository_key_suffices=settings.repository_key_suffices,
        pinned=settings.pin_trust,
    )
