"""What stands beside the rule: settings of DTR and UCP that neighbouring rules, and this rule's own Discussion, ask for.

Facts for the assessor. None of them says anything about the signature of an image, so none is a reason to pass V-235846, and
nothing that goes wrong here stands in the way of the audit: a fact then says that, and why, it could not be read.
"""

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aws_lambda_powertools import Logger

from dtr_audit.core.credentials import CredentialSource
from dtr_audit.core.model import RULE_ID
from dtr_audit.core.readings import RelatedSettings
from dtr_audit.core.run_record import Status, SupportingFact
from dtr_audit.core.text import clean
from dtr_audit.errors import AuditError, OutOfTimeError
from dtr_audit.http.deadline import ask_aside
from dtr_audit.registry.ucp import AUTHENTICATION, CONFIGURATION, Configuration, Trust, UcpClient

LOOK_SECONDS = 30.0  # for both parties, which are asked at the same time
ANSWER_LENGTH = 400
REASON_LENGTH = 360
NAMES_LISTED = 5  # of a list, however long
NAME_LENGTH = 60

SETTINGS = "/api/v0/meta/settings"
SCAN_STATUS = "/api/v0/imagescan/status"

logger = Logger(service="dtr-signature-audit", child=True)

_T = TypeVar("_T")


class Registry(Protocol):
    """A registry that is logged in to."""

    def look_up(self, path: str) -> Any:
        """Read a JSON document; raises AuditError."""
        ...


@dataclass(frozen=True, slots=True)
class Unread:
    """What could not be read, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one question, and what it means for the rule that asks it."""

    text: str
    status: Status = Status.NOT_REVIEWED
    is_read: bool = True


@dataclass(frozen=True, slots=True)
class _Question:
    subject: str
    rule_id: str = ""


_ON_PUSH = _Question("DTR: 'Create repository on push' is off", "V-235796")
_ANALYTICS = _Question("DTR: the sending of usage data is off", "V-235798")
_SCANNING = _Question("DTR: vulnerability scanning is on, its databases up to date", "V-235840")
_LDAP = _Question("UCP: accounts come from LDAP", "V-235780")
_TRUST = _Question("UCP: only signed images run (content trust is enforced)", "V-235847")
_SIGNERS = _Question("UCP: who must have signed them")
_EXEMPT = _Question("UCP: repositories whose images run unsigned")

_OF_DTR = (_ON_PUSH, _ANALYTICS, _SCANNING)
_OF_UCP = (_LDAP, _TRUST, _SIGNERS, _EXEMPT)
_LATE = Unread("it was not answered in time")


def begin_to_look(
    registry: Registry,
    source: CredentialSource,
    *,
    ucp_url: str,
    x509_strict: bool,
    stop_at: float,
    seconds: float = LOOK_SECONDS,
) -> Callable[[], RelatedSettings]:
    """Begin to ask DTR, and UCP unless `ucp_url` is empty, for at most `seconds` and not past `stop_at` (time.monotonic).

    Gives what waits for the end of it. Neither raises anything. A thread that still waits for an answer then is left to itself:
    it changes nothing.
    """
    stop_at = min(stop_at, time.monotonic() + seconds)
    look = _Look(registry, source, ucp_url, x509_strict=x509_strict, stop_at=stop_at)
    # Daemons: one that waits for an answer without an end must not keep the process.
    threads = [
        threading.Thread(target=ask, name=f"surroundings-{number}", daemon=True) for number, ask in enumerate(look.asks)
    ]
    for thread in threads:
        thread.start()

    def wait() -> RelatedSettings:
        for thread in threads:
            thread.join(max(0.0, stop_at - time.monotonic()))
        return look.result()

    return wait


class _Look:
    """One look around; what is known already stays, whatever happens to the rest."""

    def __init__(
        self, registry: Registry, source: CredentialSource, ucp_url: str, *, x509_strict: bool, stop_at: float
    ) -> None:
        self._registry = registry
        self._source = source
        self._ucp_url = ucp_url
        self._x509_strict = x509_strict
        self._stop_at = stop_at
        self._questions = _OF_DTR + (_OF_UCP if ucp_url else ())
        self._replies: dict[_Question, Reply] = {}

    @property
    def asks(self) -> list[Callable[[], None]]:
        """What is to be called, each in a thread of its own."""
        asks = [lambda: self._guard(self._ask_registry, _OF_DTR)]
        if self._ucp_url:
            asks.append(lambda: self._guard(self._ask_ucp, _OF_UCP))
        return asks

    def result(self) -> RelatedSettings:
        """Give every fact as far as it is known by now."""
        known = dict(self._replies)
        replies = [(question, known.get(question) or _unread(_LATE)) for question in self._questions]
        facts = tuple(
            SupportingFact(question.subject, clean(reply.text, ANSWER_LENGTH), question.rule_id, reply.status)
            for question, reply in replies
        )
        missed = [reply for question, reply in replies if question in _OF_UCP and not reply.is_read]
        if not missed:
            return RelatedSettings(facts, "")
        warning = (
            f"{len(missed)} of {len(_OF_UCP)} facts about UCP are missing, on which the answer to {RULE_ID} does not hang: "
            f"the first {missed[0].text}"
        )
        return RelatedSettings(facts, clean(warning, ANSWER_LENGTH))

    def _guard(self, ask: Callable[[], None], questions: Sequence[_Question]) -> None:
        """Turn whatever goes wrong into replies to the questions that are still open."""
        try:
            ask()
        except AuditError as error:
            unread = _unread_because(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours, met where nothing is decided, must not cost the audit
            # Not its text, which may quote what was read.
            logger.warning(
                "the surroundings could not be looked at",
                fault=type(error).__name__,
                where="".join(traceback.format_tb(error.__traceback__)),
            )
            unread = Unread(f"of an unforeseen {type(error).__name__}; the log says where")
        else:
            return
        for question in questions:
            self._replies.setdefault(question, _unread(unread))

    # -- DTR ---------------------------------------------------------------------------------------------------------

    def _ask_registry(self) -> None:
        asked = ask_aside(lambda: self._registry.look_up(SCAN_STATUS))
        settings = _attempt(lambda: self._registry.look_up(SETTINGS))
        self._replies[_ON_PUSH] = judge_off(
            "createRepositoryOnPush", read_flag(settings, "createRepositoryOnPush", SETTINGS)
        )
        self._replies[_ANALYTICS] = judge_off("reportAnalytics", read_flag(settings, "reportAnalytics", SETTINGS))
        scan = _attempt(lambda: asked(self._stop_at))
        self._replies[_SCANNING] = judge_scanning(
            enabled=read_flag(settings, "scanningEnabled", SETTINGS),
            failed=read_flag(scan, "lastDBUpdateFailed", SCAN_STATUS),
            overrides_failed=read_flag(scan, "lastVulnOverridesDBUpdateFailed", SCAN_STATUS),
        )

    # -- UCP ---------------------------------------------------------------------------------------------------------

    def _ask_ucp(self) -> None:
        credentials = self._source.fetch()
        if credentials.ucp is None:
            for question in _OF_UCP:
                self._replies[question] = _unread(Unread(credentials.ucp_problem))
            return
        client = UcpClient(self._ucp_url, credentials.ucp, x509_strict=self._x509_strict, stop_at=self._stop_at)
        try:
            client.log_in()
            try:
                self._ask_session(client)
            finally:
                client.log_out()
        finally:
            client.close()

    def _ask_session(self, client: UcpClient) -> None:
        configuration = _attempt(client.read_configuration)
        trust, configured = _trust_of(configuration), _backend_of(configuration)
        is_default = isinstance(configuration, Configuration) and configuration.is_backend_left_out
        self._replies[_TRUST] = judge_trust(trust)
        self._replies[_SIGNERS] = name_signers(trust)
        self._replies[_EXEMPT] = name_exempt(trust)
        # What the configuration says counts until, and unless, the authentication service says otherwise.
        self._replies[_LDAP] = judge_backend(_LATE, configured, is_default=is_default)
        self._replies[_LDAP] = judge_backend(_attempt(client.read_backend), configured, is_default=is_default)


def read_flag(document: object, key: str, where: str) -> bool | Unread:
    """Take one flag out of a document, itself perhaps unread."""
    if isinstance(document, Unread):
        return document
    value = document.get(key) if isinstance(document, dict) else None
    return value if isinstance(value, bool) else Unread(f"{where} does not say {key} as true or false")


def judge_off(key: str, flag: bool | Unread) -> Reply:
    """Answer V-235796 or V-235798: their checks want a setting to be false."""
    if isinstance(flag, Unread):
        return _unread(flag)
    if flag:
        return Reply(f"no: {key} is true ({SETTINGS})", Status.OPEN)
    return Reply(f"yes: {key} is false ({SETTINGS})", Status.NOT_A_FINDING)


def judge_scanning(*, enabled: bool | Unread, failed: bool | Unread, overrides_failed: bool | Unread) -> Reply:
    """Answer V-235840: its check wants scanning enabled, and both of its databases updated without failure.

    Of one failure beside one success its text can be read either way.
    """
    if enabled is False:
        return Reply(f"no: scanningEnabled is false ({SETTINGS})", Status.OPEN)
    for flag in (failed, overrides_failed):
        if isinstance(flag, Unread):
            return _unread(flag)
    states = (
        f"lastDBUpdateFailed is {_spelt(failed)}, lastVulnOverridesDBUpdateFailed is {_spelt(overrides_failed)} "
        f"({SCAN_STATUS})"
    )
    if failed and overrides_failed:
        return Reply(f"no: {states}", Status.OPEN)
    if failed or overrides_failed:
        return Reply(f"in part: {states}; the check wants both to be false")
    if isinstance(enabled, Unread):
        return Reply(f"in part: {states}; whether scanning is on could not be read, because {enabled.reason}")
    return Reply(f"yes: scanningEnabled is true ({SETTINGS}), {states}", Status.NOT_A_FINDING)


def judge_backend(said: str | Unread, configured: str | Unread, *, is_default: bool = False) -> Reply:
    """Answer V-235780 by what the authentication service says and what UCP's configuration says, or leaves to its default.

    Its check goes by the configuration, and also wants the LDAP server set up as another STIG has it: that is never passed here.
    """
    there = f"{CONFIGURATION} (left out there: the vendor's default)" if is_default else CONFIGURATION
    reported = {
        where: backend
        for where, backend in ((AUTHENTICATION, said), (there, configured))
        if not isinstance(backend, Unread)
    }
    if not reported:
        reasons = [backend.reason for backend in (said, configured) if isinstance(backend, Unread)]
        return _unread(Unread("; ".join(dict.fromkeys(reasons))))
    spelt = ", ".join(f"{clean(backend, NAME_LENGTH)} in {where}" for where, backend in reported.items())
    if len(set(reported.values())) > 1:
        return Reply(f"unclear: the backend is {spelt}")
    if "ldap" in reported.values():
        return Reply(f"yes: the backend is {spelt}. Whether the LDAP server is set up as it must be was not looked at")
    return Reply(f"no: the backend is {spelt}", Status.OPEN if there in reported else Status.NOT_REVIEWED)


def judge_trust(trust: Trust | Unread) -> Reply:
    """Answer V-235847: its check wants require_content_trust to be true. Not passed if there are ways around it."""
    if isinstance(trust, Unread):
        return _unread(trust)
    if trust.require_content_trust is None:
        return _unread(Unread(f"{CONFIGURATION} does not say require_content_trust as true or false"))
    if not trust.require_content_trust:
        is_false = "left out, and false is the vendor's default" if trust.is_left_out else "false"
        return Reply(f"no: require_content_trust is {is_false} ({CONFIGURATION})", Status.OPEN)
    yes = f"yes: require_content_trust is true ({CONFIGURATION})"
    if trust.allow_repos is None:
        return Reply(f"{yes}; whether repositories are exempt from it could not be read")
    if trust.allow_repos:
        return Reply(f"{yes}, but repositories are exempt from it (allow_repos: {len(trust.allow_repos)})")
    return Reply(yes, Status.NOT_A_FINDING)


def name_signers(trust: Trust | Unread) -> Reply:
    """Tell whose signature UCP wants: for a person to hold against the organisation's policy."""
    if isinstance(trust, Unread):
        return _unread(trust)
    return _name_some(trust.require_signature_from, "require_signature_from", "any account of UCP")


def name_exempt(trust: Trust | Unread) -> Reply:
    """Tell which repositories pass UCP's check of signatures by."""
    if isinstance(trust, Unread):
        return _unread(trust)
    return _name_some(trust.allow_repos, "allow_repos", "none")


def _name_some(names: Sequence[str] | None, key: str, nobody: str) -> Reply:
    if names is None:
        return _unread(Unread(f"{key} is no list of names ({CONFIGURATION})"))
    if not names:
        return Reply(f"{nobody}: {key} is empty ({CONFIGURATION})")
    reported = ", ".join(clean(name, NAME_LENGTH) for name in names[:NAMES_LISTED])
    more = f" and {len(names) - NAMES_LISTED} more" if len(names) > NAMES_LISTED else ""
    return Reply(f"{reported}{more} ({key})")


def _backend_of(configuration: Configuration | Unread) -> str | Unread:
    if isinstance(configuration, Unread):
        return configuration
    return configuration.backend or Unread(f"{CONFIGURATION} does not name the backend")


def _trust_of(configuration: Configuration | Unread) -> Trust | Unread:
    if isinstance(configuration, Unread):
        return configuration
    return configuration.trust or Unread(f"trust_configuration is no section ({CONFIGURATION})")


def _attempt(read: Callable[[], _T]) -> _T | Unread:
    try:
        return read()
    except AuditError as error:
        return _unread_because(error)


def _unread_because(error: AuditError) -> Unread:
    return _LATE if isinstance(error, OutOfTimeError) else Unread(clean(str(error), REASON_LENGTH))


def _unread(unread: Unread) -> Reply:
    return Reply(f"could not be read, because {unread.reason}", is_read=False)


def _spelt(flag: object) -> str:
    return str(flag).lower()
