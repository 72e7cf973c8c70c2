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
import glob
import gzip
import itertools
import json
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from dtr_audit_simulator.http.transport import Delivery, Request, Response
from dtr_audit_simulator.notary.attacks import Attack

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


def deep_json(depth: int = 100_000) -> bytes:
    """Make a JSON document of `depth` nested lists."""
    return b"[" * depth + b"]" * depth


def long_string(characters: int = 10_000_000) -> bytes:
    """Make a JSON document that holds one very long string."""
    return json.dumps([{"name": "x" * characters}]).encode()


@dataclass(frozen=True, slots=True)
class Calls:
    """Some of the calls a client makes.

    `path` is a pattern (`*` also matches slashes) for the decoded path without a trailing slash. Of the calls
    it matches, `after` are spared and then `times` are struck, None meaning all. With `per_path` each path
    counts for itself. With `by_reading` what is counted, per path, are readings of a list: a reading begins
    with a call without `pageStart`, and all its pages share its fate.
    """

    path: str = "*"
    after: int = 0
    times: int | None = None
    per_path: bool = False
    by_reading: bool = False

    def limited(self, *, after: int = 0, times: int | None = None) -> Calls:
        """Select the first `times` of these calls behind `after`."""
        return replace(self, after=after, times=times)


EVERY_CALL = Calls()
TOKEN = Calls("/auth/token")
CHALLENGE = Calls("/v2")
API = Calls("/api/v0/*")
SETTINGS = Calls("/api/v0/meta/settings")
REPOSITORIES = Calls("/api/v0/repositories")
ALL_TAGS = Calls("/api/v0/repositories/*/tags")
TRUST = Calls("/v2/*/_trust/tuf/*")
MANIFESTS = Calls("/v2/*/manifests/*")
CHANGEFEED = Calls("/v2/_trust/changefeed")


def tags_of(repository: str, *, after: int = 0, times: int | None = None) -> Calls:
    """Select the calls that read the tags of one `namespace/name`."""
    return Calls(f"/api/v0/repositories/{glob.escape(repository)}/tags", after=after, times=times)


def trust_file(role: str, gun: str = "", *, after: int = 0, times: int | None = None) -> Calls:
    """Select the calls that read a role's file, by its name, hash or version: of one GUN, or of all."""
    return Calls(f"/v2/{glob.escape(gun) or '*'}/_trust/tuf/*{glob.escape(role)}.*json", after=after, times=times)


def readings_of(calls: Calls, *, after: int = 0, times: int | None = None) -> Calls:
    """Select whole readings of the lists that `calls` names: all of them, or the first `times` behind `after`."""
    return replace(calls, after=after, times=times, by_reading=True)


class Strike(Protocol):
    """Something that goes wrong with any answer."""

    @property
    def calls(self) -> Calls:
        """The calls it strikes."""
        ...


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with an error instead of doing what was asked.

    `shape` is one of the ways in which the registry and what stands before it write errors: "errors"
    (/api/v0), "bare" (one object, no list), "details" (the token server, text/plain), "html" (a proxy),
    "empty". `retry_after` is sent as it is: seconds, an HTTP date, or nonsense.
    """

    status: int
    calls: Calls = EVERY_CALL
    shape: str = "errors"
    code: str = ""
    message: str = ""
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """Answer with this body, by default with status 200; `encoding` is what it says of itself, and nothing is done to the body."""

    content: bytes
    calls: Calls = EVERY_CALL
    content_type: str = "application/json"
    status: int = 200
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Answer with a redirect to `location`, which may be another host, another scheme, or this server."""

    location: str
    calls: Calls = EVERY_CALL
    status: int = 302


@dataclass(frozen=True, slots=True)
class EndlessBody:
    """Answer with a JSON list that never ends, in chunks of `chunk` bytes."""

    calls: Calls = EVERY_CALL
    chunk: int = 65_536


class Part(enum.Enum):
    """A part of an answer that may have no end: what comes before it, and what is then repeated."""

    STATUS = (b"HTTP/1.1 20", b"0")
    INTERIM = (b"", b"HTTP/1.1 100 Continue\r\n\r\n")
    HEADER = (b"HTTP/1.1 200 OK\r\nX-Filler: ", b"x")
    HEADERS = (b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 1_000 + b"\r\n")
    CHUNK_SIZE = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;", b"x")
    BODY = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")
    BODY_WITHOUT_LENGTH = (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]", b" ")
    TRAILERS = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n", b"X-Filler: x\r\n")


@dataclass(frozen=True, slots=True)
class Unending:
    """Answer with a `part` that never ends, in pieces with a `pause` in seconds before each; without one as fast as it is read."""

    part: Part
    calls: Calls = EVERY_CALL
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class GzipBomb:
    """Answer with a JSON list that is `size` bytes long once decompressed, and about a thousandth of that on the wire.

    It holds `element`, with its comma, again and again, or nothing but blanks. With `layers` it is compressed that many times over.
    """

    size: int
    calls: Calls = EVERY_CALL
    layers: int = 1
    element: bytes = b" "


@dataclass(frozen=True, slots=True)
class Closed:
    """Close the connection: before the answer, or within it after `after_bytes` bytes of the body."""

    calls: Calls = EVERY_CALL
    after_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """Deliver slowly: `delay` seconds before the answer, pauses before each byte of the head or piece of the body."""

    calls: Calls = EVERY_CALL
    delay: float = 0.0
    head_pause: float = 0.0
    body_pause: float = 0.0
    body_piece: int = 1


@dataclass(frozen=True, slots=True)
class Overload:
    """Answer as a server does that can do no more than so much at once.

    Each answer takes one of the `workers` for so many `seconds`, and by the share `thrash` longer for each request that is
    under way beyond them; who comes meanwhile waits. With more than `most` under way, a request is refused with 503 at once.
    """

    workers: int
    seconds: float
    calls: Calls = EVERY_CALL
    thrash: float = 0.0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Gzipped:
    """Compress the body whether or not the client accepts it, as a proxy may: no lie, just `Content-Encoding: gzip`.

    The compressed body may be `followed_by` bytes that are no part of it.
    """

    calls: Calls = EVERY_CALL
    followed_by: bytes = b""


@dataclass(frozen=True, slots=True)
class Cookies:
    """Add Set-Cookie noise to the answer."""

    calls: Calls = EVERY_CALL


@dataclass(frozen=True, slots=True)
class Echo:
    """Repeat what the caller sent, and what is known of the caller, in one `place` of the answer: see echoes.py."""

    place: str
    calls: Calls = EVERY_CALL


class _Missing(enum.Enum):
    MISSING = "the field is left out"


MISSING = _Missing.MISSING


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Change fields of the rows of a list: `{"inNotary": "true"}`, `{"hashMismatch": MISSING}`, `{"author": None}`.

    `path` is a pattern for a repository's `namespace/name`, `tag` one for a tag's name; a `tag` of None means
    the row of the repository itself.
    """

    changes: Mapping[str, Any]
    tag: str | None = "*"
    path: str = "*"


@dataclass(frozen=True, slots=True)
class Repeated:
    """List a tag once more, with `changes` to its fields: right behind itself, or at the end of the list's last page.

    With `in_one_object` the fields stand twice in the tag's one entry: first as they are, then as `changes` has them.
    `path` and `tag` are patterns. X-Resource-Count stays what it is.
    """

    changes: Mapping[str, Any]
    tag: str = "*"
    path: str = "*"
    calls: Calls = ALL_TAGS
    at_the_end: bool = False
    in_one_object: bool = False


@dataclass(frozen=True, slots=True)
class Miscount:
    """Be wrong by `by` in X-Resource-Count."""

    by: int
    calls: Calls = EVERY_CALL


@dataclass(frozen=True, slots=True)
class Endless:
    """Follow the last page by ever more pages, each with a new cursor: of invented rows, or `empty`."""

    calls: Calls = EVERY_CALL
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Forged:
    """Serve trust data as an attack leaves it; `gun` is a pattern. The attack happens to a copy, once per publication.

    Of several, each happens to what those before it have left.
    """

    attack: Attack
    calls: Calls = TRUST
    gun: str = "*"


@dataclass(frozen=True, slots=True)
class Realm:
    """Name `url` as the place to get a token from; `{host}` in it is the server's own host[:port]."""

    url: str
    calls: Calls = EVERY_CALL


@dataclass(frozen=True, slots=True)
class Faults:
    """What the simulated registry does wrong."""

    # Any answer
    strikes: tuple[Strike, ...] = ()
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
    ghosts: Calls | None = None
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
    strikes: tuple[Strike, ...] = ()
    miscount: int = 0
    forged: tuple[Forged, ...] = ()
    repeated: tuple[Repeated, ...] = ()
    echoes: tuple[Echo, ...] = ()


UNHARMED = Struck()


class Misfortune:
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

    def strike(self, request: Request) -> Struck:
        """Tell what goes wrong with `request`; to be asked once for each request."""
        if self._harmless:
            return UNHARMED
        faults = self.faults
        with self._lock:
            return Struck(
                faults,
                frozenset(name for name, calls in self._named if self._is_struck(name, calls, request)),
                tuple(
                    self._queue(i, strike) if isinstance(strike, Overload) else strike
                    for i, strike in enumerate(faults.strikes)
                    if self._is_struck(i, strike.calls, request)
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


def replaced(struck: Struck) -> Body | Redirect | Status | EndlessBody | Unending | GzipBomb | None:
    """Give the first strike that replaces the answer."""
    for strike in struck.strikes:
        if isinstance(strike, (Body, Redirect, Status, EndlessBody, Unending, GzipBomb)):
            return strike
    return None


def oversized(strike: EndlessBody | Unending | GzipBomb) -> Response:
    """Make an answer that is larger than any reader wants."""
    match strike:
        case EndlessBody():
            return endless_body(strike)
        case Unending():
            return unending(strike)
        case GzipBomb():
            return gzip_bomb(strike)


def endless_body(strike: EndlessBody) -> Response:
    """Make an answer without end."""
    row = b'{"name":"endless","inNotary":true,"hashMismatch":false},'
    chunk = row * max(1, strike.chunk // len(row))

    def stream() -> Iterator[bytes]:
        yield b"["
        while True:
            yield chunk

    return Response(200, stream=stream)


def unending(strike: Unending) -> Response:
    """Make an answer one part of which has no end."""
    before, piece = strike.part.value
    # Without pauses many pieces go at once: what is to be measured is the reader, not this server.
    repeated = piece if strike.pause else piece * max(1, 65_536 // len(piece))
    pieces = itertools.chain([before], itertools.repeat(repeated))
    return Response(200, wire=lambda: pieces, delivery=Delivery(body_pause=strike.pause))


def gzip_bomb(strike: GzipBomb) -> Response:
    """Make a small answer that is huge once decompressed."""

    def stream() -> Iterable[bytes]:
        chunks: Iterable[bytes] = _filled_list(strike.size, strike.element)
        for _ in range(strike.layers):
            chunks = _compressed(chunks)
        return chunks

    encoding = ", ".join(["gzip"] * strike.layers)
    return Response(200, headers=(("Content-Encoding", encoding),), stream=stream)


def _filled_list(size: int, element: bytes) -> Iterator[bytes]:
    yield b"["
    # After the last comma there is one more element.
    end = b"[]]" if element.endswith(b",") else b"]"
    left = max(0, size - 1 - len(end)) // len(element)
    many = max(1, 1_048_576 // len(element))
    while left > 0:
        yield element * min(left, many)
        left -= many
    yield end


def _compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    for chunk in chunks:
        yield compressor.compress(chunk)
    yield compressor.flush()


def spoiled(response: Response, struck: Struck) -> Response:
    """Apply the strikes that spoil an answer's delivery."""
    for strike in struck.strikes:
        match strike:
            case Closed(after_bytes=None):
                response = _delivered(response, unanswered=True)
            case Closed(after_bytes=int(sent)):
                response = _delivered(response, cut_after=sent)
            case Slow():
                response = _delivered(
                    response,
                    delay=strike.delay,
                    head_pause=strike.head_pause,
                    body_pause=strike.body_pause,
                    body_piece=strike.body_piece,
                )
            case Gzipped():
                headers = (*response.headers, ("Content-Encoding", "gzip"))
                response = replace(response, body=gzip.compress(response.body, 1) + strike.followed_by, headers=headers)
            case Cookies():
                response = replace(response, headers=(*response.headers, *_COOKIES))
            case _:
                pass
    return response


_COOKIES = (
    ("Set-Cookie", "session=s3ss10n-c00kie; Path=/; HttpOnly; Secure"),
    ("Set-Cookie", "AWSALB=sticky; Path=/; Domain=.example; Max-Age=604800"),
    ("Set-Cookie", "malformed; =; ;;"),
)


def _delivered(response: Response, **changes: Any) -> Response:
    return replace(response, delivery=replace(response.delivery, **changes))
