"""Who may call the simulated registry: accounts, their passwords and access tokens, and the bearer tokens given out."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

EXPIRES_IN = 300  # seconds; what DTR promises for a bearer token
_REMEMBERED_TOKENS = 10_000


def account_id(name: str) -> str:
    """Give the UUID under which DTR shows the account `name` as an author: the same one each time."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"dtr-account:{name}"))


class ManualClock:
    """A clock that a test moves, so that no test sleeps; thread-safe enough for a float."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Give the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the registry.

    Every one of `access_tokens` is accepted in the password's place. `readable` holds the namespaces, and
    single repositories as `namespace/name`, that a caller who is no admin may read besides the public ones
    and his own.
    """

    name: str
    password: str = field(repr=False)
    is_admin: bool = False
    is_active: bool = True
    access_tokens: frozenset[str] = field(default=frozenset(), repr=False)
    readable: frozenset[str] = frozenset()

    def may_read(self, namespace: str, path: str) -> bool:
        """Tell whether the account may read the private repository `path` of `namespace`."""
        return self.is_admin or namespace == self.name or namespace in self.readable or path in self.readable


class Accounts:
    """The accounts, changeable while the registry is being read. Every change raises KeyError for an unknown name."""

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._lock = threading.Lock()
        self._accounts = {account.name: account for account in accounts}

    @property
    def admin(self) -> Account:
        """The first active admin. Raises LookupError if there is none."""
        with self._lock:
            for account in self._accounts.values():
                if account.is_admin and account.is_active:
                    return account
        raise LookupError("the simulated registry has no active admin account")

    def add(self, account: Account) -> Account:
        """Add an account, or replace the one of that name."""
        with self._lock:
            self._accounts[account.name] = account
        return account

    def find(self, name: str) -> Account | None:
        """Find an account by name."""
        with self._lock:
            return self._accounts.get(name)

    def find_by_id(self, uuid_: str) -> Account | None:
        """Find an account by the UUID under which it is shown as an author."""
        with self._lock:
            return next((one for one in self._accounts.values() if account_id(one.name) == uuid_), None)

    def rotate_password(self, name: str, password: str | None = None) -> str:
        """Change the password, to a random one unless given; bearer tokens already given out stay valid."""
        fresh = password or secrets.token_urlsafe(18)
        self._change(name, lambda account: replace(account, password=fresh))
        return fresh

    def set_admin(self, name: str, *, is_admin: bool) -> None:
        """Give or take admin rights; effective at once, also for bearer tokens given out before."""
        self._change(name, lambda account: replace(account, is_admin=is_admin))

    def set_active(self, name: str, *, is_active: bool) -> None:
        """Activate or deactivate an account; effective at once, also for bearer tokens given out before."""
        self._change(name, lambda account: replace(account, is_active=is_active))

    def login(self, name: str, password: str) -> Account | None:
        """Give the account if the password, or an access token in its place, is right and the account is active."""
        account = self.find(name)
        if account is None or not account.is_active:
            return None
        accepted = (account.password, *account.access_tokens)
        given = password.encode()
        if not any(hmac.compare_digest(given, secret.encode()) for secret in accepted):
            return None
        return account

    def _change(self, name: str, change: Callable[[Account], Account]) -> None:
        with self._lock:
            self._accounts[name] = change(self._accounts[name])


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and what the registry remembers of it; `account` is empty for an anonymous one."""

    text: str = field(repr=False)
    account: str
    service: str
    access: tuple[str, ...]
    issued_at: float
    expires_at: float


class Tokens:
    """The bearer tokens given out. They look like JWTs, but only what is remembered here counts."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._presented: dict[str, None] = {}  # the texts of tokens that have come back, in that order

    def issue(self, account: str, *, service: str, access: tuple[str, ...], life: float) -> Token:
        """Give out a token that the registry accepts for `life` seconds."""
        now = self._clock()
        text = self.write(account, service=service, access=access, issued_at=now, expires_at=now + life)
        token = Token(text, account, service, access, issued_at=now, expires_at=now + life)
        with self._lock:
            if len(self._tokens) >= _REMEMBERED_TOKENS:
                self._tokens = {t.text: t for t in self._tokens.values() if t.expires_at > now}
                self._presented = {text: None for text in self._presented if text in self._tokens}
            self._tokens[text] = token
        return token

    def write(self, account: str, *, service: str, access: tuple[str, ...], issued_at: float, expires_at: float) -> str:
        """Write a token that has not been given out before."""
        claims = {"sub": account, "aud": service, "exp": int(expires_at), "access": access}
        return f"{_encoded({'typ': 'JWT', 'alg': 'ES256'})}.{_encoded(claims)}.{secrets.token_urlsafe(32)}"

    def find(self, text: str) -> Token | None:
        """Find a token that is neither expired nor revoked."""
        with self._lock:
            token = self._tokens.get(text)
            if token is not None:
                # The last of them last.
                self._presented.pop(text, None)
                self._presented[text] = None
        return token if token is not None and token.expires_at > self._clock() else None

    @property
    def latest(self) -> tuple[str, ...]:
        """The last two tokens that callers have presented: one that is still on its way is known to the registry alone."""
        with self._lock:
            return tuple(self._presented)[-2:]

    def revoke_all(self) -> None:
        """Forget every token given out so far."""
        with self._lock:
            self._tokens.clear()
            self._presented.clear()


def _encoded(claims: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).rstrip(b"=").decode()
