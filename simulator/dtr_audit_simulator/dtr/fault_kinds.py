"""The faults of a simulated registry, one class for each kind."""

from __future__ import annotations

import enum
import glob
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dtr_audit_simulator.notary.attacks import Attack


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
ALL_TAGS = Calls("/api/v0/repositories/*/tags")
TRUST = Calls("/v2/*/_trust/tuf/*")


def tags_of(repository: str, *, after: int = 0, times: int | None = None) -> Calls:
    """Select the calls that read the tags of one `namespace/name`."""
    return Calls(f"/api/v0/repositories/{glob.escape(repository)}/tags", after=after, times=times)


def trust_file(role: str, gun: str = "", *, after: int = 0, times: int | None = None) -> Calls:
    """Select the calls that read a role's file, by its name, hash or version: of one GUN, or of all."""
    return Calls(f"/v2/{glob.escape(gun) or '*'}/_trust/tuf/*{glob.escape(role)}.*json", after=after, times=times)


def readings_of(calls: Calls, *, after: int = 0, times: int | None = None) -> Calls:
    """Select whole readings of the lists that `calls` names: all of them, or the first `times` behind `after`."""
    return replace(calls, after=after, times=times, by_reading=True)


class CallFault(Protocol):
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
