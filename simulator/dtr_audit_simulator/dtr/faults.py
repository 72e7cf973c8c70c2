"""Every misbehaviour of the simulated registry, all off by default.

`Faults` says what goes wrong; each of its fields says *for which calls* with a `Calls`:

    Faults(repeated_cursor=REPOSITORIES)                        each reading of the list of repositories
    Faults(rows_shifted=readings_of(REPOSITORIES, times=1))     the first reading only
    Faults(admin_rights_lost=Calls(after=20))                   from the 21st call on
    Faults(tokens_revoked=API.limited(after=7, times=1))        just before the eighth call of /api/v0
    Faults(strikes=(Status(503, tags_of("library/nginx", times=2), retry_after="1"),))
    Faults(forged=(Forged(Stripped("targets")),))               trust data, see `dtr_audit_simulator.notary.attacks`

What is wrong with any kind of answer (a status, a delay, a broken body) is a *strike*; strikes combine: the
first that replaces the answer wins, and those that spoil its delivery are applied to whatever the answer is.
What is wrong with DTR's own behaviour (paging, tokens, counts) is a field. A `Faults` is frozen: assign
another one to `server.faults` at any moment, and every count of calls starts anew.
"""

from __future__ import annotations

import enum
import fnmatch
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

from dtr_audit_simulator.dtr.fault_kinds import (
    CallFault,
    Calls,
    Echo,
    Endless,
    Forged,
    Miscount,
    Overload,
    Realm,
    Repeated,
    Rewrite,
    Slow,
    Status,
)
from dtr_audit_simulator.http.transport import Request

LOGIN_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Docker Trusted Registry: log in</title></head>"
    b'<body><form action="/login"><input name="username"><input name="password" type="password"></form></body></html>\n'
)
INVALID_JSON = b'{"repositories": [{"namespace": "library", '
WRONG_TYPE = b'"all is well"'
NOT_A_NUMBER = b'[{"name": "latest", "digest": NaN, "inNotary": Infinity, "hashMismatch": -Infinity}]'
LONE_SURROGATES = b'[{"name": "latest\\ud800", "author": "\\udfff", "inNotary": true, "hashMismatch": false}]'

# Names no registry should hold, each of which would harm somebody careless: a path, a log, a terminal, a web page, a
# shell, a spreadsheet, a key in a database.
HOSTILE_NAMES = (
    "../../../../etc/passwd",
    "..%2f..%2fadmin",
    "name with spaces",
    "line\r\nInjected-Header: yes",
    "\x00\x07\x1b[31mred\x1b[0m",
    "<script>alert('tag')</script>",
    "$(touch /tmp/owned); `id` && 'quoted'",
    '=HYPERLINK("https://elsewhere.example","click")',
    "findings#lease",
    "\u202egnp.exe\u2066\ufeff",
    "?pageSize=1&domain=elsewhere.example#fragment",
    "x" * 5_000,
)


TOKEN = Calls("/auth/token")
CHALLENGE = Calls("/v2")
API = Calls("/api/v0/*")
SETTINGS = Calls("/api/v0/meta/settings")
REPOSITORIES = Calls("/api/v0/repositories")
MANIFESTS = Calls("/v2/*/manifests/*")
CHANGEFEED = Calls("/v2/_trust/changefeed")


class _Missing(enum.Enum):
    MISSING = "the field is left out"


MISSING = _Missing.MISSING


@dataclass(frozen=True, slots=True)
class Faults:
    """What the simulated registry does wrong."""

    # Any answer
    on_calls: tuple[CallFault, ...] = ()
    """Statuses, redirects, broken bodies and deliveries: see the classes above."""
    bare_errors: Calls | None = None
    """Errors of /api/v0 are a bare {"code","message"}, not a list."""
    secrets_echoed: Calls | None = None
    """Error messages repeat the request's Authorization header and the caller's password."""
    echoes: tuple[Echo, ...] = ()
    """Names, fields, headers, settings, challenges, redirects, documents or errors repeat them."""
    unhealthy: Calls | None = None
    """/_ping and /health answer 503 with Healthy false."""
    licence_expired: Calls | None = None
    """Everything below /auth/ and /v2/ answers 404, as a registry does whose licence has run out."""

    # Credentials
    tokens_without_service_only: Calls | None = None
    """/api/v0 refuses a token that was asked for with `service`: it wants its own host for the audience."""
    basic_only: Calls | None = None
    """/api/v0 refuses bearer tokens and accepts Basic alone."""
    anonymous_as_success: Calls | None = None
    """Bad or missing credentials are no error but an anonymous caller: an empty-handed token from /auth/token, the public
    repositories only from /api/v0, and 500 for any repository's tags."""
    admin_rights_lost: Calls | None = None
    """The caller is no admin (any more): 403 for the settings, short lists."""
    tokens_revoked: Calls | None = None
    """Every token given out before the struck call is refused from that call on."""
    token_life: float | None = None
    """Seconds for which tokens are accepted, whatever `expires_in` promises."""
    token_without_expiry: Calls | None = None
    """The token's answer lacks `expires_in` and `issued_at`."""
    token_in_one_field: str = ""
    """The token's answer has only this one of `token` and `access_token`; empty: both."""
    settings_without_host: Calls | None = None
    """/api/v0/meta/settings has no `dtrHost`."""
    realm: Realm | None = None
    """The challenges of /v2/ name another token server: another host, or one that is reached without TLS."""

    # Lists
    count_missing: Calls | None = None
    """X-Resource-Count is not sent though asked for."""
    miscounts: tuple[Miscount, ...] = ()
    """X-Resource-Count is wrong: too large, too small, in the first reading only, always."""
    null_lists: Calls | None = None
    """The list is `null` instead of its rows."""
    object_tags: Calls | None = None
    """Tags come in the form of DTR 2.1: {"name":…, "tags":[…]}, all at once, without paging headers."""
    paging_ignored: Calls | None = None
    """The whole list comes at once."""
    page_size_ignored: Calls | None = None
    """Pages have the default size whatever is asked for."""
    short_pages: Calls | None = None
    """Pages hold half of the rows asked for; no row is lost."""
    next_page_stripped: Calls | None = None
    """X-Next-Page-Start is taken away, as by a proxy: the first page looks like the last."""
    empty_last_cursor: Calls | None = None
    """The last page has an empty X-Next-Page-Start instead of none."""
    strange_cursors: Calls | None = None
    """Cursors hold ` +&=%2F#?`, and are refused unless they come back exactly."""
    positional_cursors: Calls | None = None
    """Cursors count rows instead of naming one: what is deleted before them moves the rest past the reader."""
    repeated_cursor: Calls | None = None
    """A page's cursor leads to that page again."""
    cursor_loop: Calls | None = None
    """The cursor of the second page leads to the first: A, B, A, B… Needs more than one page."""
    endless: Endless | None = None
    """The list has no end."""
    rows_shifted: Calls | None = None
    """While the list is paged, its last row moves to the front, and is in no page read later: one row is lost. Needs more
    than one page."""
    rows_repeated: Calls | None = None
    """Each page but the first begins with the last row of the page before."""
    tags_by_update_time: Calls | None = None
    """Tags are ordered by update time, the newest first, instead of by name."""
    unnamed_entries: Calls | None = None
    """The list of repositories holds, and counts, entries with an empty namespace or name."""
    hostile_names: Calls | None = None
    """Lists hold HOSTILE_NAMES besides: as repositories, as tags, as their authors."""
    rewrites: tuple[Rewrite, ...] = ()
    """Fields of rows are missing, null, of another type, or hostile."""
    repeated: tuple[Repeated, ...] = ()
    """Tags are listed twice, with the same fields or others, or their entries have a key twice."""
    deleted_when_read: Calls | None = None
    """A repository whose tags are asked for has just been deleted: 404, and gone from the list from then on."""
    missing_though_listed: Calls | None = None
    """A repository's tags answer 404 NO_SUCH_REPOSITORY, and yet it stays in the list."""
    orphaned: Calls | None = None
    """A repository's tags answer 404 NO_SUCH_ACCOUNT, as LDAP sync removed its account, and yet it stays in the list."""
    notary_down: Calls | None = None
    """The tags call answers 500: Notary cannot be asked."""
    trust_refused: Calls | None = None
    """The tags call answers 500 with a `domain`, and lists the tags without one: trust data that cannot be used."""
    notary_silent: Calls | None = None
    """Every tag looks unsigned: Notary cannot be asked."""

    # Trust data
    forged: tuple[Forged, ...] = ()
    """Attacks upon trust data: files that are false, old, huge, expired or missing."""


NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True)
class Struck:
    """What goes wrong with one call: names of `Faults`' fields, and those of their parts that have calls of their own."""

    faults: Faults = NO_FAULTS
    names: frozenset[str] = frozenset()
    on_calls: tuple[CallFault, ...] = ()
    miscount: int = 0
    forged: tuple[Forged, ...] = ()
    repeated: tuple[Repeated, ...] = ()
    echoes: tuple[Echo, ...] = ()


UNHARMED = Struck()


class ActiveFaults:
    """Decide, call by call, which of the `Faults` strike, and keep their counts.

    `deleted` holds the repositories (`namespace/name`) that `deleted_when_read` has taken away.
    """

    def __init__(self, faults: Faults = NO_FAULTS) -> None:
        self.faults = faults
        self.deleted: set[str] = set()
        self._named = tuple(_named_calls(faults))
        self._harmless = faults == NO_FAULTS
        self._lock = threading.Lock()
        self._counts: dict[tuple[object, str], int] = {}
        self._ends: dict[int, list[float]] = {}  # of what is under way, by strike

    def apply(self, request: Request) -> Struck:
        """Tell what goes wrong with `request`; to be asked once for each request."""
        if self._harmless:
            return UNHARMED
        faults = self.faults
        with self._lock:
            return Struck(
                faults,
                frozenset(name for name, calls in self._named if self._is_struck(name, calls, request)),
                tuple(
                    self._queue(i, call_fault) if isinstance(call_fault, Overload) else call_fault
                    for i, call_fault in enumerate(faults.on_calls)
                    if self._is_struck(i, call_fault.calls, request)
                ),
                sum(m.by for i, m in enumerate(faults.miscounts) if self._is_struck(("miscount", i), m.calls, request)),
                tuple(f for i, f in enumerate(faults.forged) if self._is_struck(("forged", i), f.calls, request)),
                tuple(r for i, r in enumerate(faults.repeated) if self._is_struck(("repeated", i), r.calls, request)),
                tuple(e for i, e in enumerate(faults.echoes) if self._is_struck(("echo", i), e.calls, request)),
            )

    def _queue(self, key: int, overload: Overload) -> Slow | Status:
        """Give a request its place with the workers: when each of them is free again is all there is to know."""
        now = time.monotonic()
        ends = [end for end in self._ends.get(key, ()) if end > now]
        if overload.most is not None and len(ends) >= overload.most:
            return Status(503)
        seconds = overload.seconds * (1 + overload.thrash * max(0, len(ends) + 1 - overload.workers))
        # Whoever comes now follows the one whose worker is free first.
        free = sorted(ends)[-overload.workers] if len(ends) >= overload.workers else now
        self._ends[key] = [*ends, free + seconds]
        return Slow(delay=free + seconds - now)

    def _is_struck(self, key: object, calls: Calls, request: Request) -> bool:
        path = request.path
        if calls.path != "*" and not fnmatch.fnmatchcase(path, calls.path):
            return False
        if not calls.after and calls.times is None:
            return True
        counter = (key, path if calls.per_path or calls.by_reading else "")
        count = self._counts.get(counter, 0)
        if not calls.by_reading or not request.parameter("pageStart"):
            self._counts[counter] = count = count + 1
        return calls.after < count and (calls.times is None or count <= calls.after + calls.times)


def _named_calls(faults: Faults) -> Iterator[tuple[str, Calls]]:
    for item in fields(faults):
        value = getattr(faults, item.name)
        if isinstance(value, (Endless, Realm)):
            yield item.name, value.calls
        elif isinstance(value, Calls):
            yield item.name, value
