"""The registry's HTTP API (DTR 2.x, MSR 2.x), read with care.

Sources: the DTR 2.6 API reference, the MSR documentation, and Harbor's replication adapter for DTR. Where versions differ, or
the sources are thin, both answers are survived; whatever cannot be read to its end is said, never guessed.
"""

import base64
import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import quote, urlsplit

from dtr_audit.core.credentials import Credentials, CredentialSource
from dtr_audit.core.hosts import HTTPS_PORT, canonical_host
from dtr_audit.core.model import PassingFault, Repository, Tag, TrustFlags, is_name
from dtr_audit.core.readings import Listing, TagReading
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.text import clean
from dtr_audit.errors import (
    AuditError,
    AuthenticationError,
    ContradictionError,
    OutOfTimeError,
    RegistryError,
    RepositoryGoneError,
    SettingsError,
    TransientError,
    WrongProductError,
)
from dtr_audit.http.exchange import Answer, Clock, SystemClock
from dtr_audit.http.limiter import Pace
from dtr_audit.http.memory_budget import BUDGET, Charge, estimate_parsed
from dtr_audit.http.retry import Patience, Waiting
from dtr_audit.http.tokens import parse_answer, pull_scope, read_token
from dtr_audit.http.transport import RETRIED_STATUSES, Transport
from dtr_audit.registry.artifacts import ACCEPT as MANIFESTS
from dtr_audit.registry.artifacts import MANIFEST_BYTES
from dtr_audit.settings import DOMAIN_LENGTH, is_domain

PAGES = 20_000  # of one list
LARGE_PAGE = 1_000  # entries; the most that the settings allow, for a list that changes while it is read
MISCOUNT_REMEDY = (
    "If the next audit says the same, no push explains it, and the registry's index is wrong. Compare X-Resource-Count of each "
    "replica by hand. Restart or replace the one that differs, or ask the vendor's support to have the index rebuilt"
)
ENTRY_BYTES = (
    4 * 1024
)  # of a page's text, for each entry that was asked for; a tag with its manifest takes about half of it
WHOLE_LIST_BYTES = (
    3 * 1024 * 1024
)  # more of a page's text, for a server that gives the whole list at once: some 7000 tags
PAGE_BYTES = 48 * 1024 * 1024  # of memory for one page, parsed
SETTINGS_BYTES = 256 * 1024  # of text; the registry's settings hold certificates
REPOSITORIES = 1_000_000
TAGS_TOGETHER = 1_000  # searched for secrets at once
TAGS_OF_A_REPOSITORY = 100_000  # about 100 MB while they are compared, if none is signed
MALFORMED_ENTRIES = 1_000  # of a page of tags; with more the rest is not looked at
CURSOR_LENGTH = 4_096
AUTHOR_LENGTH = 128
DIGEST_LENGTH = 160
MEDIA_TYPE_LENGTH = 128
TIME_LENGTH = 40
REASON_LENGTH = 300
MANIFEST_FAILURES = 10
TOKEN_RENEWAL_SHARE = 0.8  # of its life; the rest is for requests under way
NO_SUCH_ACCOUNT = "NO_SUCH_ACCOUNT"  # the code of a 404 for a repository whose account was deleted
VERSION = "/api/v0/admin/version"  # of Mirantis Secure Registry; Docker Trusted Registry has no such document
VERSION_LENGTH = 64
ROTATION_SECONDS = 10.0  # for which a new password may be known to the registry and not yet stand in the secret

# Wider than DTR's own grammar on purpose: whatever is safe in a path is asked for.
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z0-9+._-]+:[A-Za-z0-9=_-]+")
_TIME = re.compile(r"[0-9T:.,+\-Z ]+")
_SERVICE = re.compile(r'service="([^"]{1,256})"')
_REALM = re.compile(r'\brealm\s*=\s*(?:"([^"]*)|([^\s",]+))', re.IGNORECASE)
_ECHO = (
    "holds a password or a token of this audit, so it is neither shown nor used. Either the registry repeats what it is sent, or "
    "the password is a word that names are made of. Give the audit's account another password"
)
_TOKENS_UNANSWERED = (
    "GET /auth/token: the token server does not answer, and without a token the registry refuses the credentials"
)
_SETTINGS_KEYS = frozenset({"dtrHost", "createRepositoryOnPush", "reportAnalytics"})


@dataclass(frozen=True, slots=True)
class _Page:
    entries: list[Any]
    count: int | None  # what the registry says the whole list holds
    is_unpaged: bool  # the form of DTR 2.1 and older: the whole list at once, without a count
    charge: Charge

    def release(self) -> None:
        """Let go of the entries, which must not be held while something else is waited for."""
        self.entries.clear()
        self.charge.release()


class DtrClient:
    """One registry, seen with one account's eyes. Safe to share between threads once `connect()` has returned."""

    def __init__(
        self,
        url: str,
        source: CredentialSource,
        *,
        x509_strict: bool,
        concurrency: int,
        page_size: int,
        stop_at: float,
        clock: Clock | None = None,
    ) -> None:
        """Fetch the credentials and prepare; `stop_at` is on the clock. Raises SettingsError; asks nothing of the registry yet."""
        self._clock = clock or SystemClock()
        self._source = source
        self._page_size = page_size
        self._page_limit = WHOLE_LIST_BYTES + page_size * ENTRY_BYTES
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
        self._without_pull: Credentials | None = None  # those that the registry gives no token to pull with
        self._manifest_failures = 0  # in a row; threads that count at once may lose one
        self._refused: AuthenticationError | None = None
        self._doubt = ""  # why what was read may have been read as nobody

    @property
    def pace(self) -> Pace:
        """The turns at this host, for whoever else asks it."""
        return self._transport.pace

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
            self._raise_if_transient(answer, "/api/v0/meta/settings")
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
            host = self._proven_settings(answer).get("dtrHost")
            if isinstance(host, str) and REDACTOR.holds_secret(host):
                raise RegistryError(f"the registry's name for itself (dtrHost) {_ECHO}")
            return host if isinstance(host, str) else ""
        self._recognise_others()
        raise self._identity_error(answer)

    def prove_admin(self) -> None:
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
                self._raise_if_transient(answer, "/api/v0/meta/settings")
        if answer.status != 200:
            raise self._identity_error(answer)
        self._proven_settings(answer)

    def _check_before_renewal(self) -> Answer:
        """Ask who we are with the authorization in hand, and see that what it read was not read as nobody."""
        answer = self._ask_settings()
        # A fault of the moment says nothing about the account.
        self._raise_if_transient(answer, "/api/v0/meta/settings")
        if _settings(answer) is not None:
            return answer
        if answer.status == 401:
            # A server that refuses a dead token for lists too has answered every list to a live one.
            probe = self._transport.get(
                "/api/v0/repositories", params={"pageSize": "1"}, authorization=self._authorization
            )
            self._raise_if_transient(probe, "/api/v0/repositories")
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
        self._raise_if_transient(self._ask_settings(), "/api/v0/meta/settings")

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
        self._raise_if_transient(answer, "/v2/")
        challenge = answer.headers.get("Www-Authenticate", "")
        own = urlsplit(self._transport.url).netloc
        elsewhere = _foreign_host(challenge, own)
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

    def _get(self, path: str, params: Mapping[str, str | bytes], charge: Charge) -> Answer:
        """Ask with the token in hand, renewing it early, and on a 401 once; then once with the secret read anew."""
        # With Basic there is nothing to renew but the secret, and each refusal counts against the account's lock.
        renewals = (self._renew_token, self._renew_secret) if self._by_token else (self._renew_secret,)
        for renew in (*renewals, None):
            authorization, generation = self._current_authorization()
            answer = self._transport.get(
                path, params=params, authorization=authorization, limit=self._page_limit, charge=charge
            )
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
            self._raise_if_transient(refusal, "/auth/token")
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

    # -- lists -------------------------------------------------------------------------------------------------------

    def repositories(self, listing: Listing, found: dict[Repository, bool] | None = None) -> Iterator[Repository]:
        """Yield every repository once, as its page arrives, and fill `listing`; and `found`, which begins empty, with False.

        Read once more when the count disagrees: a push or a deletion in mid-list moves entries across pages. A list that
        cannot be read is said in `listing.problem`; raises OutOfTimeError alone.
        """
        # Dicts: a set of so many takes twice the room.
        found = {} if found is None else found
        for reading in (1, 2):
            entries = found if reading == 1 else {}
            ghosts = 0
            malformed, faults = "", 0  # what is wrong with the first malformed entry, and how many there are
            counts: set[int | None] = set()
            try:
                path = "/api/v0/repositories"
                for page in self._pages(path, {}, "repositories", page_size=self._page_size, is_patient=True):
                    counts.add(page.count)
                    listing.count = max(listing.count, min(page.count or 0, REPOSITORIES))
                    added: list[Repository] = []
                    for entry in page.entries:
                        try:
                            repository = _repository(entry)
                        except RegistryError as error:
                            faults += 1
                            malformed = malformed or str(error)
                            continue
                        if repository is None:
                            ghosts += 1
                            continue
                        is_new = repository not in found
                        entries.setdefault(repository, False)
                        if is_new:
                            found[repository] = False
                            added.append(repository)
                    page.release()
                    yield from added
                    if len(found) > REPOSITORIES:
                        raise RegistryError(f"it lists more than {REPOSITORIES} repositories")
            except OutOfTimeError:
                raise
            except AuditError as error:
                listing.problem = (
                    f"the list of repositories could not be read to its end: {clean(str(error), REASON_LENGTH)}"
                )
                if isinstance(error, ContradictionError):
                    continue
                return
            listing.ghosts = ghosts
            more = f"; {faults - 1} more entries of the list are malformed" if faults > 1 else ""
            listing.problem = f"{malformed}{more}" or _count_problem(
                "repositories", counts, len(entries) + ghosts, self._page_size
            )
            if ghosts and not entries and not listing.problem:
                listing.problem = f"all {ghosts} repositories that it lists have no name"
            if not listing.problem or malformed or None in counts:
                return

    def tags(self, repository: Repository, domain: str) -> TagReading:
        """Read every tag of a repository, with its signature's flags under `domain`.

        An answer that contradicts itself may come of a push while it was read, so the repository is read once more. What was
        read before a fault is given, with the problem, and without a tag that is listed with different contents. Raises
        RepositoryGoneError on a 404, and OutOfTimeError.
        """
        path = f"/api/v0/repositories/{_segments(repository)}/tags"
        reading, may_change = self._read_tags(path, domain)
        if may_change:
            reading, _ = self._read_tags(path, domain)
        if reading.is_miscounted and len(reading.tags) >= self._page_size < LARGE_PAGE:
            # Under constant pushes rows move from page to page: on a single page none is missed.
            reading, _ = self._read_tags(path, domain, LARGE_PAGE)
        if reading.status == 500:
            reading = self._read_without_trust(path, domain) or reading
        remove_secrets(reading)
        return reading

    def _read_without_trust(self, path: str, domain: str) -> TagReading | None:
        """Read tags whose signatures cannot be read under a domain, as with expired trust data; None if that fails too.

        Whether they are signed is not known: without a domain the registry's flags do not count.
        """
        authorization, _ = self._current_authorization()
        try:
            # Once: in an outage it fails as well, and is asked for no longer.
            probe = self._transport.get(path, params={"pageSize": "1"}, authorization=authorization, is_optional=True)
        except RegistryError:
            return None
        if probe.status != 200:
            return None
        reading, _ = self._read_tags(path, "")
        if reading.problem or not reading.tags:
            return None
        why = (
            f"its trust data under {domain} could not be read, and has perhaps expired: the registry answers 500 with this domain, "
            "and lists the tags without it. Look at the trust data with `notary list`, and have its owner publish it again"
        )
        unread = (TrustFlags(domain, None, None),)
        for name, tag in reading.tags.items():
            reading.tags[name] = tag._replace(trust=unread)
        reading.unread_trust[domain] = why
        reading.fault = PassingFault(why)
        return reading

    def _read_tags(self, path: str, domain: str, page_size: int = 0) -> tuple[TagReading, bool]:
        """Read a list of tags once, by default with the pages of the settings.

        Gives also whether another reading may end its problem.
        """
        page_size = page_size or self._page_size
        reading = TagReading()
        counts: set[int | None] = set()
        unpaged = False
        malformed = ""
        contradicting: set[str] = set()
        try:
            for page in self._pages(path, {"domain": domain} if domain else {}, "tags", page_size=page_size):
                malformed = _add_tags(page.entries, domain, reading.tags, contradicting) or malformed
                page.release()
                counts.add(page.count)
                unpaged = page.is_unpaged
                if len(reading.tags) > TAGS_OF_A_REPOSITORY:
                    raise RegistryError(f"it has more than {TAGS_OF_A_REPOSITORY} tags")
        except (RepositoryGoneError, OutOfTimeError):
            raise
        except AuditError as error:
            reading.problem = clean(str(error), REASON_LENGTH)
            if isinstance(error, TransientError):
                reading.fault = PassingFault(reading.problem, error.retry_after)
                reading.status = error.status
            return reading, isinstance(error, ContradictionError)
        finally:
            for name in contradicting:
                del reading.tags[name]
        if contradicting:
            reading.problem = (
                f"the registry lists the tag '{min(contradicting)}' more than once, with different contents or signatures, in two "
                "readings"
            )
            return reading, True
        reading.problem = malformed
        if not malformed and not (unpaged and counts == {None}):
            reading.problem = _count_problem("tags", counts, len(reading.tags), page_size)
        reading.is_miscounted = bool(reading.problem) and not malformed and None not in counts
        return reading, reading.is_miscounted

    def _pages(
        self, path: str, params: Mapping[str, str], key: str, *, page_size: int, is_patient: bool = False
    ) -> Iterator[_Page]:
        """Follow X-Next-Page-Start to the end of a list; raises RegistryError on a loop, a cap or an unusable answer.

        A page is charged until it is released, or the next one is asked for. With `is_patient` a page that meets a fault that may
        pass is waited for.
        """
        cursor = ""
        seen: set[str] = set()
        for number in range(1, PAGES + 1):
            asked: dict[str, str | bytes] = {**params, "pageSize": str(page_size), "count": "true"}
            if cursor:
                # Byte for byte what the header held: a name in it may be UTF-8, and HTTP's headers are read as Latin-1.
                asked["pageStart"] = cursor.encode("latin-1")
            with BUDGET.charge(PAGE_BYTES) as charge:
                answer = self._get_page(path, asked, charge, number, self.patience.begin() if is_patient else None)
                # Blanks alone: of a name in UTF-8 the last byte may be what Latin-1 takes for a blank.
                cursor = answer.headers.get("X-Next-Page-Start", "").strip(" \t")
                page = self._parse_page(answer, key, path, charge)
                # What is parsed is held in its text's place.
                del answer
                yield page
            if not cursor:
                return
            if cursor in seen or len(cursor) > CURSOR_LENGTH:
                raise RegistryError(
                    f"GET {path}: page {number} leads back to a page already read; the list has no end that can be reached"
                )
            seen.add(cursor)
        raise RegistryError(f"GET {path}: the list has more than {PAGES} pages")

    def _get_page(
        self, path: str, asked: Mapping[str, str | bytes], charge: Charge, number: int, waiting: Waiting | None
    ) -> Answer:
        while True:
            try:
                answer = self._get(path, asked, charge)
                if answer.status == 200:
                    return answer
                raise self._status_error(answer, path, number)
            except TransientError as error:
                if waiting is None:
                    raise
                charge.release()
                waiting.wait(error)

    def _parse_page(self, answer: Answer, key: str, path: str, charge: Charge) -> _Page:
        try:
            charge.grow(estimate_parsed(answer.body), lambda: self._transport.check_time(path))
        except RegistryError as error:
            raise RegistryError(f"GET {path}: {error}") from None
        return _page(parse_answer(answer, path), answer.headers, key, path, charge)

    # -- manifests -----------------------------------------------------------------------------------------------------

    def check_time(self) -> None:
        """Raise OutOfTimeError if the time is up."""
        self._transport.check_time("/v2/")

    def authorize_pull(self, repository: Repository) -> str:
        """Give the authorization to read a repository by the registry's own protocol (/v2/), with the same account.

        It is a token that the registry's token server gives for this repository, or Basic where there is no token server. Nothing
        that the registry says in its errors is passed on. Raises AuthenticationError, RegistryError or OutOfTimeError.
        """
        params = {"scope": pull_scope(str(repository))}
        if self._pull_service:
            params["service"] = self._pull_service
        for _ in (1, 2):
            with self._lock:
                self._raise_if_refused()
                credentials, basic = self._credentials, self._basic()
            if credentials is self._without_pull:
                break
            answer = self._ask_token(params, basic)
            if self._by_token:
                self._raise_if_transient(answer, "/auth/token")
            if answer.status != 401:
                granted = read_token(answer) if answer.status == 200 else None
                return f"Bearer {granted[0]}" if granted else basic
            with self._lock:
                # Every further attempt would count against the account's lock; another thread may have found new credentials.
                if self._credentials is credentials and not self._refetch_in_mid_run("pull"):
                    self._without_pull = credentials
                elif not self._by_token:
                    self._use_basic()
        raise AuthenticationError("the registry gives no token to pull with")

    def ask_manifest(self, repository: Repository, digest: str, authorization: str) -> Answer:
        """Ask for a manifest by its digest; raises RegistryError or OutOfTimeError.

        After MANIFEST_FAILURES in a row, over all repositories, each is asked for once and not again: an outage of /v2/ alone must
        not take the time in which tags are read.
        """
        try:
            answer = self._transport.get(
                f"/v2/{_segments(repository)}/manifests/{digest}",
                authorization=authorization,
                accept=MANIFESTS,
                is_optional=self._manifest_failures >= MANIFEST_FAILURES,
                limit=MANIFEST_BYTES,
            )
        except RegistryError:
            self._manifest_failures += 1
            raise
        self._manifest_failures = self._manifest_failures + 1 if answer.status in RETRIED_STATUSES else 0
        return answer

    # -- what stands beside ------------------------------------------------------------------------------------------

    def look_up(self, path: str) -> Any:
        """Read a JSON document on which nothing hangs, with the authorization in hand: it is neither renewed nor doubted.

        It is asked once, and nobody waits for it who asks for something else.

        Raises RegistryError or OutOfTimeError.
        """
        answer = self._transport.get(path, authorization=self._authorization, is_optional=True)
        if answer.status != 200:
            said = self._error_text(answer)
            raise RegistryError(f"GET {path}: {answer.status}" + (f": {said}" if said else ""))
        return parse_answer(answer, path)

    # -- what the answers mean ---------------------------------------------------------------------------------------

    def _status_error(self, answer: Answer, path: str, page: int) -> AuditError:
        said = self._error_text(answer)
        what = f"GET {path}: {answer.status} on page {page}" + (f": {said}" if said else "")
        if answer.status == 404 and page == 1 and path != "/api/v0/repositories":
            return RepositoryGoneError(what, has_no_account=_error_of(answer).get("code") == NO_SUCH_ACCOUNT)
        if answer.status in {401, 403}:
            return AuthenticationError(f"{what}. The account must be an administrator of the registry")
        if answer.status == 500:
            what += ". If many repositories answer so, look at the registry's Notary first"
        return TransientError(what, status=answer.status) if answer.status in RETRIED_STATUSES else RegistryError(what)

    def _identity_error(self, answer: Answer) -> RegistryError:
        said = self._error_text(answer)
        detail = f" (it says: {said})" if said else ""
        if answer.status == 401:
            return AuthenticationError(
                f"the registry does not accept the credentials{detail}. Put the user name and the password, or an access token, "
                "of an administrator into the secret; if they are right, see whether UCP is down"
            )
        if answer.status == 403:
            return AuthenticationError(
                f"the account is not an administrator of the registry{detail}. Others do not see every repository, so only "
                "an administrator's account can answer the rule: put one into the secret"
            )
        if answer.status == 404:
            return WrongProductError(
                f"GET /api/v0/meta/settings: 404{detail}. "
                "Either DTR_URL is not a Docker Trusted Registry, or its licence has expired"
            )
        return RegistryError(
            f"GET /api/v0/meta/settings: {answer.status}{detail}. Whether the account is an administrator is not proven"
        )

    def _proven_settings(self, answer: Answer) -> dict[str, Any]:
        """Take the settings as proof of an administrator, if they are settings at all: a login page answers 200 too."""
        settings = _settings(answer)
        if settings is not None:
            return settings
        self._recognise_others()
        raise WrongProductError(
            "GET /api/v0/meta/settings: answered 200, but not with a registry's settings. Is a login page or another product "
            "at DTR_URL?"
        )

    def _recognise_others(self) -> None:
        """Name Harbor (Mirantis Secure Registry 4) where it answers; raises WrongProductError."""
        try:
            answer = self._transport.get("/api/v2.0/systeminfo")
            ping = self._transport.get("/api/v2.0/ping")
        except AuditError:
            return
        if b'"harbor_version"' in answer.body or (
            ping.status == 200 and ping.body.strip().strip(b'"').lower() == b"pong"
        ):
            raise WrongProductError(
                "this is Harbor (Mirantis Secure Registry 4 is one), not a Docker Trusted Registry: it has no Notary, and the rule "
                "V-235846 does not apply to it as written. Nothing was audited"
            )

    def _raise_if_transient(self, answer: Answer, path: str) -> None:
        """Raise TransientError for an answer that says no more than that the server cannot answer at present."""
        if answer.status in RETRIED_STATUSES:
            said = self._error_text(answer)
            detail = f" (it says: {said})" if said else ""
            raise TransientError(f"GET {path}: {answer.status}{detail}, so nothing is known yet")

    def _error_text(self, answer: Answer) -> str:
        """Read any of the three forms of errors, or name a page of HTML."""
        first = _error_of(answer)
        if not first and b"<html" in answer.body[:2048].lower():
            return "a page of HTML, so probably a proxy or load balancer answers in the registry's place"
        parts = [first.get(key) for key in ("code", "message", "details")]
        text = ": ".join(part for part in parts if isinstance(part, str) and part)
        return clean(text, 200)


def _error_of(answer: Answer) -> dict[str, Any]:
    """Give the first error of an answer, in any of the forms that JSON has; empty if there is none."""
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(body, dict):
        return {}
    errors = body.get("errors")
    return errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else body


def remove_secrets(reading: TagReading) -> None:
    """Take secrets out of what a registry says of tags; a tag whose name holds one is left out, and is the reading's problem."""
    rest = iter(tuple(reading.tags.values()))
    while tags := tuple(islice(rest, TAGS_TOGETHER)):
        repeated = {tag.author for tag in tags} | {tag.media_type for tag in tags}
        texts = [f"{tag.name}\n{tag.digest}\n{tag.pushed_at}" for tag in tags]
        if not REDACTOR.holds_secret("\n".join((*repeated, *texts))):
            continue  # nearly always
        for tag in tags:
            if REDACTOR.holds_secret(tag.name):
                del reading.tags[tag.name]
                reading.problem = reading.problem or f"the name of a tag {_ECHO}"
            else:
                reading.tags[tag.name] = tag._replace(
                    digest=REDACTOR.redact(tag.digest),
                    author=REDACTOR.redact(tag.author),
                    pushed_at=REDACTOR.redact(tag.pushed_at),
                    media_type=REDACTOR.redact(tag.media_type),
                )


def choose_domains(configured: Collection[str], dtr_host: str, url: str) -> tuple[tuple[str, ...], str]:
    """Choose the domains to ask under, and a warning ('' if none) where the choice is a guess.

    The domain must be the host[:port] used in `docker push`; a wrong one makes every tag look unsigned. The registry's own name
    for itself counts only if it is the host of the settings, in any spelling: domains stand in commands that people copy, and
    what is pinned and remembered depends on them.
    """
    host = urlsplit(url).netloc
    asked = tuple(configured) or (host,)
    if is_domain(dtr_host) and canonical_host(dtr_host) not in map(canonical_host, (host, *configured)):
        return asked, (
            f"the registry calls itself {clean(dtr_host, DOMAIN_LENGTH)} (dtrHost), which is neither the host of DTR_URL nor "
            f"one of DTR_DOMAINS. That name was not used, and {', '.join(asked)} was asked for. If you know the name, and images "
            "are pushed under it, set DTR_DOMAINS"
        )
    if configured:
        return asked, ""
    if is_domain(dtr_host):
        # Clients leave the default port out, some settings name it: signed under either is signed.
        bare = dtr_host.removesuffix(f":{HTTPS_PORT}")
        return ((dtr_host,) if bare == dtr_host else (bare, dtr_host)), ""
    return asked, (
        f"the registry does not name its own domain (dtrHost), so {host} was asked for; "
        "if images are pushed under another name, set DTR_DOMAINS"
    )


def _foreign_host(challenge: str, own: str) -> str:
    """Give the first host that a challenge names as the place for tokens and that is not `own`, in any spelling; '' if none is.

    A realm without a host is a name, or a path on the host that was asked.
    """
    # Redacted before it is cut in pieces: a password may hold what they are cut at.
    for quoted, bare in _REALM.findall(REDACTOR.redact(challenge)):
        realm: str = quoted or bare
        try:
            host = urlsplit(realm).netloc
        except ValueError:
            host = realm
        if host and canonical_host(host) != canonical_host(own):
            return host
    return ""


def read_version(document: Any) -> str:
    """Take the registry's version out of what it answers for VERSION; '' where it does not say it."""
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(version, str) or REDACTOR.holds_secret(version):
        return ""
    return clean(version, VERSION_LENGTH)


def _settings(answer: Answer) -> dict[str, Any] | None:
    """Read a registry's settings; None if the answer is anything else."""
    if answer.status != 200:
        return None
    try:
        body = parse_answer(answer, "/api/v0/meta/settings")
    except RegistryError:
        return None
    return body if isinstance(body, dict) and body.keys() & _SETTINGS_KEYS else None


def _page(body: Any, headers: Mapping[str, str], key: str, path: str, charge: Charge) -> _Page:
    is_unpaged = False
    # Repositories come in an object; tags in a bare array, and up to DTR 2.1 in an object too.
    if isinstance(body, dict) and key in body:
        is_unpaged = key == "tags"
        body = body[key]
    elif key != "tags":
        raise RegistryError(f"GET {path}: the answer has no list of {key}")
    if body is None:
        body = []
    if not isinstance(body, list):
        raise RegistryError(f"GET {path}: the answer is not a list of {key}")
    text = headers.get("X-Resource-Count", "").strip()
    count = int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
    return _Page(body, count, is_unpaged, charge)


def _count_problem(what: str, counts: Collection[int | None], found: int, page_size: int) -> str:
    """Say how the registry's own counts, one a page of so many entries, disagree with what was found; '' if they agree."""
    if None in counts:
        return (
            f"the registry does not say how many {what} there are (X-Resource-Count is missing), so {found} cannot be shown to be "
            "all; does a proxy drop headers?"
        )
    if len(counts) != 1:
        # Something went while something else came: the sum may be right, and one of them still unread.
        return (
            f"the number of {what} changed while they were read, in two readings or more, the last with a page size of "
            f"{page_size}. Run the audit when less is pushed and deleted"
        )
    (count,) = counts
    if count != found:
        return (
            f"the registry counts {count} {what}, and {found} could be read, in two readings or more, the last with a page size of "
            f"{page_size}. {MISCOUNT_REMEDY}"
        )
    return ""


def _segments(repository: Repository) -> str:
    """Write a repository's name as two segments of a request's path."""
    return f"{quote(repository.namespace, safe='')}/{quote(repository.name, safe='')}"


def _repository(entry: Any) -> Repository | None:
    """Read one entry of the list; None for an unnamed one. Raises RegistryError for a name that cannot be asked for."""
    if not isinstance(entry, dict):
        raise RegistryError("an entry of the list of repositories is not an object")
    namespace, name = entry.get("namespace"), entry.get("name")
    if namespace is None or name is None or "" in (namespace, name):
        return None
    for part in (namespace, name):
        if not is_name(part):
            raise RegistryError(f"a repository has the name '{clean(part, 60)}', with which it cannot be asked for")
    if REDACTOR.holds_secret(f"{namespace}/{name}"):
        raise RegistryError(f"the name of a repository {_ECHO}")
    return Repository(_keep_once(str(namespace)), str(name))


def _add_tags(entries: list[Any], domain: str, tags: dict[str, Tag], contradicting: set[str]) -> str:
    """Add the entries of a page to `tags`, and the names of those that contradict an earlier one to `contradicting`.

    Gives what is wrong with one of the entries, '' if nothing is.
    """
    malformed = ""
    faults = 0
    for entry in entries:
        try:
            tag = _tag(entry, domain)
        except RegistryError as error:
            malformed = malformed or str(error)
            faults += 1
            if faults > MALFORMED_ENTRIES:
                raise RegistryError(malformed) from None
            continue
        listed = tags.setdefault(tag.name, tag)
        if listed is not tag and _holds(listed) != _holds(tag):
            contradicting.add(tag.name)
    return malformed


def _tag(entry: Any, domain: str) -> Tag:
    """Read one entry of the list; raises RegistryError for what is no tag."""
    if not isinstance(entry, dict):
        raise RegistryError("an entry of the list of tags is not an object")
    name = entry.get("name")
    if not isinstance(name, str) or not _TAG.fullmatch(name):
        raise RegistryError(f"a tag has the name '{clean(name, 60)}', which no registry allows")
    get = entry.get
    manifest = get("manifest")
    digest, media_type = get("digest"), None
    if isinstance(manifest, dict):
        digest = digest or manifest.get("digest")
        media_type = manifest.get("mediaType")
    pushed_at = get("updatedAt") or get("createdAt")
    author, in_notary, hash_mismatch = get("author"), get("inNotary"), get("hashMismatch")
    # In the order of Tag's fields: by name it costs half as much again, for each of a million.
    return Tag(
        name,
        # What the grammars let through needs no cleaning; what is longer than it may be was never let through.
        digest if isinstance(digest, str) and len(digest) <= DIGEST_LENGTH and _DIGEST.fullmatch(digest) else "",
        _text(author, AUTHOR_LENGTH) if author else "",
        pushed_at
        if isinstance(pushed_at, str) and len(pushed_at) <= TIME_LENGTH and _TIME.fullmatch(pushed_at)
        else "",
        _text(media_type, MEDIA_TYPE_LENGTH) if media_type else "",
        _flag(get("cosignSigned")),
        _flags(
            domain,
            in_notary if in_notary is True or in_notary is False else None,
            hash_mismatch if hash_mismatch is True or hash_mismatch is False else None,
        ),
    )


def _holds(tag: Tag) -> tuple[object, ...]:
    """Give what two entries for one tag must agree in."""
    return tag.digest, tag.media_type, tag.cosign_signed, tag.trust


def _flag(value: object) -> bool | None:
    return value if value is True or value is False else None


@lru_cache(maxsize=256)  # three by three of them under each domain, whatever the number of tags
def _flags(domain: str, in_notary: bool | None, hash_mismatch: bool | None) -> tuple[TrustFlags]:
    return (TrustFlags(domain, in_notary, hash_mismatch),)


def _text(value: object, length: int) -> str:
    """Clean a text that is the same for many tags, and keep it once for all of them."""
    return _clean_once(value, length) if isinstance(value, str) and len(value) <= length else clean(value, length)


_clean_once = lru_cache(maxsize=1024)(clean)
_keep_once = lru_cache(maxsize=1024)(str)  # equal texts become the same one
