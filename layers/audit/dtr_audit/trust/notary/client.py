"""The Notary's HTTP API, as DTR serves it on its own host.

Sources: Notary, server/server.go (routes) and utils/http.go (scopes); the Docker Registry v2 token specification. Nothing that the
server says in its errors is passed on, since it may echo what it was sent.
"""

import base64
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from dtr_audit.core.credentials import CredentialSource
from dtr_audit.core.hosts import canonical_host
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.text import clean
from dtr_audit.errors import AuthenticationError, RegistryError, SettingsError, TransientError
from dtr_audit.http.exchange import Answer, Clock, Endpoint
from dtr_audit.http.limiter import ConcurrencyLimiter
from dtr_audit.http.memory_budget import BUDGET, Charge, estimate_parsed
from dtr_audit.http.tokens import pull_scope, read_token
from dtr_audit.http.transport import RETRIED_STATUSES, Transport
from dtr_audit.trust.notary import canonical
from dtr_audit.trust.notary.cache import DOCUMENT_BYTES

NOTARY = Endpoint("the Notary", "DTR_URL", '"ca_bundle"')
CHANGES_BYTES = 1024 * 1024  # of a page of the changefeed, which has about 200 for each of its 1000 records
CHANGES_PARSED_BYTES = 24 * 1024 * 1024
TOKENS = 256  # remembered at a time; each is good for one GUN
CHALLENGE_LENGTH = 8_192
REALM_FIELDS = 16
CATALOG = "registry:catalog:*"  # the scope of the changefeed, which an administrator alone is given

_REALM = re.compile(r'realm="([^"]{1,2048})"', re.IGNORECASE)
_SERVICE = re.compile(r'service="([^"]{1,256})"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Realm:
    """Where tokens are given."""

    authority: str
    path: str
    params: tuple[tuple[str, str], ...]


class NotaryClient:
    """One Notary, seen with one account's eyes. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        source: CredentialSource,
        *,
        x509_strict: bool,
        concurrency: int,
        stop_at: float,
        token_hosts: tuple[str, ...] = (),
        clock: Clock | None = None,
        limiter: ConcurrencyLimiter | None = None,
    ) -> None:
        """Fetch the credentials and prepare; raises SettingsError, and asks nothing yet.

        `url` is the registry's, and `pace` that of whoever else asks it. Credentials are sent to its host, and to `token_hosts`
        (host[:port]) if the Notary asks for tokens from there; to no other.
        """
        self._source = source
        self._credentials = source.fetch()
        REDACTOR.learn_password(self._credentials.username, self._credentials.password)
        self._options: dict[str, Any] = {
            "ca_bundle": self._credentials.ca_bundle,
            "x509_strict": x509_strict,
            "connections": concurrency,
            "stop_at": stop_at,
            "clock": clock,
            "endpoint": NOTARY,
        }
        self._host = urlsplit(url).netloc
        self._transport = Transport(url, **self._options, limiter=limiter)
        self._token_hosts = {_authority(host) for host in (self._host, *token_hosts)}
        self._token_transports = {_authority(self._host): self._transport}
        self._lock = threading.RLock()
        self._realm: _Realm | None = None
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._is_accepted = False  # whether a token was given to these credentials
        self._was_refetched = False
        self._refused: AuthenticationError | None = None

    def close(self) -> None:
        """Close every connection."""
        for transport in self._token_transports.values():
            transport.close()

    def allow_slow_answers(self) -> None:
        """Wait longer for each answer from now on."""
        self._transport.allow_slow_answers()

    def check_time(self) -> None:
        """Raise OutOfTimeError if the time is up."""
        self._transport.check_time("/v2/")

    def fetch(self, gun: str, name: str, charge: Charge | None = None) -> bytes | None:
        """Give a document, or None if the Notary says that it has none; raises RegistryError, OutOfTimeError.

        `name` is a role, `<role>.<sha256>` or `<version>.root`; the text of the document is charged to `charge`. Only
        METADATA_NOT_FOUND is taken for absence: a proxy, or a registry whose licence has expired, answers 404 too.
        """
        path = f"/v2/{quote(gun, safe='/:')}/_trust/tuf/{quote(name, safe='/')}.json"
        host, slash, repository = gun.partition("/")
        scope = pull_scope(repository, under=host + slash)
        answer = self._get(path, scope, limit=DOCUMENT_BYTES, charge=charge)
        if answer.status == 200:
            return _without_secret(answer, path)
        if answer.status == 404 and _error_code(answer) == "METADATA_NOT_FOUND":
            return None
        raise _status_error(answer, path)

    def fetch_changes(self, records: int, after: str) -> bytes:
        """Give a page of the changefeed, oldest first, from behind the change `after`; raises RegistryError, OutOfTimeError.

        It is asked once: nothing that is needed waits for it.
        """
        path = "/v2/_trust/changefeed"
        params = {"records": str(records), "change_id": after}
        with BUDGET.charge(CHANGES_PARSED_BYTES) as charge:
            answer = self._get(path, CATALOG, params, limit=CHANGES_BYTES, charge=charge, is_optional=True)
            if answer.status != 200:
                raise _status_error(answer, path)
            # It is parsed by one thread alone, and once a run: what matters is that it is not too large.
            charge.grow(estimate_parsed(answer.body), self.check_time)
            return _without_secret(answer, path)

    def _get(
        self,
        path: str,
        scope: str,
        params: dict[str, str] | None = None,
        *,
        limit: int,
        charge: Charge | None,
        is_optional: bool = False,
    ) -> Answer:
        token = self._token(scope) if self._realm is not None else ""
        asked: dict[str, Any] = {"params": params, "limit": limit, "charge": charge, "is_optional": is_optional}
        answer = self._transport.get(path, authorization=token, **asked)
        if answer.status != 401:
            return answer
        # The first question of all, or a token that has expired.
        self._learn_realm(answer)
        with self._lock:
            if self._tokens.get(scope) == token:
                del self._tokens[scope]
        return self._transport.get(path, authorization=self._token(scope), **asked)

    def _learn_realm(self, answer: Answer) -> None:
        """Take the address for tokens from a challenge, if credentials may be sent there; raises AuthenticationError."""
        challenge = answer.headers.get("Www-Authenticate", "")[:CHALLENGE_LENGTH]
        realm, service = _REALM.search(challenge), _SERVICE.search(challenge)
        if not challenge.strip().lower().startswith("bearer ") or realm is None:
            raise AuthenticationError(
                "the Notary refuses the request (401) and does not say where to get a token for it"
            )
        url = realm.group(1)
        try:
            parts = urlsplit(url)
            authority = _authority(parts.netloc)
            asked = parse_qsl(parts.query, max_num_fields=REALM_FIELDS)
        except ValueError:
            raise AuthenticationError("the Notary names an address for tokens that is none") from None
        if parts.scheme != "https" or authority not in self._token_hosts or not re.fullmatch(r"/[!-~]*", parts.path):
            # Redacted before it is cut at a quotation mark or a question mark: a password may hold both.
            shown = _REALM.search(REDACTOR.redact(challenge))
            place = clean(shown.group(1).split("?")[0], 200) if shown else ""
            raise AuthenticationError(
                f"the Notary asks for the credentials to be sent to '{place}', and they were not: they go by https to "
                f"{self._host}, DTR_URL's host, or to a host that DTR_DOMAINS names"
            )
        params = [*asked, *([("service", service.group(1))] if service else [])]
        with self._lock:
            if authority not in self._token_transports:
                self._token_transports[authority] = Transport(f"https://{authority}", **self._options)
            self._realm = _Realm(authority, parts.path, tuple(params))

    def _token(self, scope: str) -> str:
        """Give the authorization for a scope, which may be one that is in hand."""
        with self._lock:
            if self._refused is not None:
                raise self._refused
            if scope in self._tokens:
                self._tokens.move_to_end(scope)
                return self._tokens[scope]
            if not self._is_accepted:
                # Wrong credentials count against the account's lock: one thread tries them first.
                return self._take_token(scope)
        return self._take_token(scope)

    def _take_token(self, scope: str) -> str:
        used = self._credentials
        answer = self._ask_token(scope)
        if answer.status == 401:
            with self._lock:
                if self._refused is not None:
                    raise self._refused
                # Another thread may have found new ones meanwhile.
                is_new = self._credentials is not used or self._refetch()
                answer = self._ask_token(scope) if is_new else answer
                if answer.status == 401:
                    self._refused = AuthenticationError(
                        "the registry gives no token for the Notary: it does not accept the credentials (401)"
                    )
                    raise self._refused
        given = read_token(answer) if answer.status == 200 else None
        if given is None:
            kind = TransientError if answer.status in RETRIED_STATUSES else AuthenticationError
            raise kind(f"the registry gives no token for the Notary (it answers {answer.status})")
        with self._lock:
            self._is_accepted = True
            self._tokens[scope] = f"Bearer {given[0]}"
            while len(self._tokens) > TOKENS:
                self._tokens.popitem(last=False)
        return f"Bearer {given[0]}"

    def _ask_token(self, scope: str) -> Answer:
        with self._lock:
            credentials, realm = self._credentials, self._realm
            if realm is None:
                raise AssertionError("a token is asked for before anybody said where")  # pragma: no cover
            transport = self._token_transports[realm.authority]
        pair = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
        params = dict(realm.params) | {"scope": scope, "account": credentials.username}
        return transport.get(realm.path, params=params, authorization=f"Basic {pair}")

    def _refetch(self) -> bool:
        """Read the secret anew, once; tells whether it has changed, as after a rotation."""
        if self._was_refetched:
            return False
        self._was_refetched = True
        try:
            fresh = self._source.fetch(fresh=True)
        except SettingsError:
            return False
        old, self._credentials = self._credentials, fresh
        REDACTOR.learn_password(fresh.username, fresh.password)
        return (fresh.username, fresh.password) != (old.username, old.password)


def _authority(host: str) -> str:
    """Give `host[:port]` in one form; raises ValueError for what is none, or has a user before it."""
    parts = urlsplit(f"//{host}")
    if not parts.hostname or "@" in host or parts.port == 0:
        raise ValueError("no host")
    return canonical_host(host)


def _without_secret(answer: Answer, path: str) -> bytes:
    """Give a document; raises RegistryError for one that holds a secret: it is signed as it is, so nothing is taken out of it."""
    if REDACTOR.holds_secret_in_json(answer.body):
        raise RegistryError(f"GET {path}: the answer holds a password or a token of this audit, and is not used")
    return answer.body


def _error_code(answer: Answer) -> str:
    try:
        body = canonical.parse(answer.body, "an error")
        code = body["errors"][0]["code"]
    except (RegistryError, LookupError, TypeError):
        return ""
    return code if isinstance(code, str) else ""


def _status_error(answer: Answer, path: str) -> RegistryError:
    if answer.status in {401, 403}:
        return AuthenticationError(
            f"GET {path}: {answer.status}, the Notary does not let this account read. It must be an administrator's"
        )
    kind = " (a page of HTML: does a proxy answer in its place?)" if b"<html" in answer.body[:2048].lower() else ""
    what = f"GET {path}: {answer.status}{kind}"
    return TransientError(what) if answer.status in RETRIED_STATUSES else RegistryError(what)
