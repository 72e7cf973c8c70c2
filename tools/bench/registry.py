"""A registry that is fast enough not to be the limit: `python -m tools.bench.registry`, in a process of its own.

It answers what the audit and its peers ask of a DTR: login, settings, the lists with their pages. No list is held: every
answer is cut out of bytes made once, so that a million tags cost no more than ten thousand. Its shape is set, and its counters
are read, at `/bench/…`; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import resource
import selectors
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from urllib.parse import parse_qs, unquote

from dtr_audit_simulator.dtr.backend import RepositoryEntry, TagEntry
from dtr_audit_simulator.dtr.pages import repository_json, tag_json
from dtr_audit_simulator.http.authority import Certificate
from tools.bench.http_server import Answer, Request, Service, open_port, run_until_input_ends

USER = "auditor"
PASSWORD = "of a bench"  # noqa: S105 - of a server that lives for minutes, on the loopback interface
TOKEN = "token-of-a-bench"  # noqa: S105 - likewise
NAMESPACE_REPOSITORIES = 50
DEFAULT_PAGE = 10
POOL = 10_000  # different tags; a repository's are some of them in a row
_REPOSITORIES = "/api/v0/repositories"
_BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Attack:
    """What every list of tags is answered with: an element again and again, up to so many bytes, compressed on the wire."""

    element: str
    size: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What the registry holds, and how slowly it says so."""

    repositories: int
    tags: int  # of each repository
    unsigned_every: int = 0  # every how many-th tag is not signed; 0: all are signed, 1: none is
    changed: bool = False  # of two hundred tags, two have changed sides
    latency: float = 0.0  # seconds before each answer
    ignores_page_size: bool = False  # of tags: the whole list comes at once
    attack: Attack | None = None

    def __post_init__(self) -> None:
        if self.tags > POOL:
            raise ValueError(f"a repository has {POOL} tags at most")

    @property
    def all_tags(self) -> int:
        """The tags of the whole registry."""
        return self.repositories * self.tags


@dataclass(slots=True)
class Counters:
    """What was asked since the shape was set; times are of the monotonic clock."""

    requests: int = 0
    lists: int = 0  # pages, of either list
    under_way: int = 0
    most_under_way: int = 0
    lists_from: float = 0.0
    lists_until: float = 0.0


def repository_path(number: int) -> str:
    """Give `namespace/name`; the numbers' order is that of the names."""
    return f"team-{number // NAMESPACE_REPOSITORIES:05d}/service-{number:07d}"


def tag_name(place: int) -> str:
    """Name the tag at a place of the pool."""
    return f"1.{place // 100}.{place % 100}"


def is_signed(place: int, unsigned_every: int, *, changed: bool) -> bool:
    """Tell whether the tag at a place of the pool is signed."""
    signed = not (unsigned_every and place % unsigned_every == 0)
    # One of the two is unsigned whenever any are, and one is signed unless none is.
    return signed != (changed and place % 200 in {7, 100})


@lru_cache
def _pool(unsigned_every: int, changed: bool) -> tuple[bytes, list[int]]:
    """Write all tags twice in a row, and say where each begins: so a repository's tags are always one piece of it."""
    elements: list[bytes] = []
    for place in range(POOL):
        digest = hashlib.sha256(str(place).encode()).hexdigest()
        day = f"2026-{1 + place % 10:02d}-{1 + place % 27:02d}T{place % 24:02d}:{place % 60:02d}:{place % 59:02d}.000Z"
        entry = TagEntry(
            name=tag_name(place),
            digest=f"sha256:{digest}",
            author=f"{digest[:8]}-0000-4000-8000-{place % 40:012d}",
            created_at=day,
            updated_at=day,
            in_notary=is_signed(place, unsigned_every, changed=changed),
            hash_mismatch=False,
            size=1_000_000 + place,
        )
        elements.append(tag_json(entry, manifests=False, cosign=False).encode())
    begins = [0]
    for element in elements * 2:
        begins.append(begins[-1] + len(element) + 1)
    return b",".join(elements * 2), begins


def tag_page(shape: Shape, repository: int, offset: int, size: int) -> tuple[bytes, str]:
    """Write a page of a repository's tags, from the `offset`-th on; gives the cursor of the next one too, '' for none."""
    pool, begins = _pool(shape.unsigned_every, shape.changed)
    first = repository * shape.tags % POOL
    end = min(offset + size, shape.tags)
    page = b"[" + pool[begins[first + offset] : begins[first + end] - 1] + b"]"
    return page, tag_name((first + end) % POOL) if end < shape.tags else ""


@lru_cache(maxsize=1024)
def repository_page(repositories: int, offset: int, size: int) -> tuple[bytes, str]:
    """Write a page of the repositories, from the `offset`-th on; gives the cursor of the next one too, '' for none."""
    end = min(offset + size, repositories)
    paths = (repository_path(number).partition("/") for number in range(offset, end))
    entries = (RepositoryEntry(namespace, name) for namespace, _, name in paths)
    page = f'{{"repositories":[{",".join(map(repository_json, entries))}]}}'.encode()
    return page, repository_path(end) if end < repositories else ""


def every_page(shape: Shape, size: int) -> Iterator[bytes]:
    """Give every page that a whole reading takes."""
    for offset in range(0, shape.repositories, size):
        yield repository_page(shape.repositories, offset, size)[0]
    for repository in range(shape.repositories):
        for offset in range(0, shape.tags, size):
            yield tag_page(shape, repository, offset, size)[0]


@lru_cache(maxsize=1)
def attack_page(attack: Attack) -> bytes:
    """Write the answer of an attack, compressed."""
    element = attack.element.encode()
    body = b"[" + element * (attack.size // len(element)) + b"[]]"
    return gzip.compress(body, mtime=0)


class Registry(Service):
    """The API; `host` is what it calls itself."""

    def __init__(self) -> None:
        self.host = ""
        self._shape = Shape(1, 1)
        self._counters = Counters()

    def delay(self, request: Request) -> float:
        """Give the latency."""
        return 0.0 if request.target.startswith("/bench/") else self._shape.latency

    def note_sent(self, request: Request) -> None:
        """Count what is under way no more."""
        if not request.target.startswith("/bench/"):
            self._counters.under_way -= 1
            if request.target.startswith(_REPOSITORIES):
                self._counters.lists_until = time.monotonic()

    def answer(self, request: Request) -> Answer:
        """Answer as a DTR does to an administrator."""
        path, _, query = request.target.partition("?")
        if path.startswith("/bench/"):
            return self._administer(path, query)
        counters = self._counters
        counters.requests += 1
        counters.under_way += 1
        counters.most_under_way = max(counters.most_under_way, counters.under_way)
        if path == "/auth/token":
            return self._give_token(request)
        if request.header("Authorization") != f"Bearer {TOKEN}":
            challenge = f'Www-Authenticate: Bearer realm="https://{self.host}/auth/token",service="dtr"\r\n'
            return _error(401, "NOT_AUTHENTICATED", challenge.encode())
        if path.startswith(_REPOSITORIES):
            counters.lists += 1
            counters.lists_from = counters.lists_from or time.monotonic()
            return self._give_list(path, query)
        known = {
            "/v2/": {},
            "/api/v0/meta/settings": {
                "dtrHost": self.host,
                "createRepositoryOnPush": False,
                "reportAnalytics": False,
            },
            "/api/v0/imagescan/status": {"lastDBUpdateFailed": False, "lastVulnOverridesDBUpdateFailed": False},
        }
        return _json(known[path]) if path in known else _error(404, "NOT_FOUND")

    def _give_token(self, request: Request) -> Answer:
        if request.header("Authorization") != _BASIC:
            return _json({"details": "wrong credentials"}, 401)
        return _json({"token": TOKEN, "access_token": TOKEN, "expires_in": 3600})

    def _give_list(self, path: str, query: str) -> Answer:
        shape = self._shape
        # Read by hand: this is what the server does all day.
        asked = dict(part.partition("=")[::2] for part in query.split("&"))
        size = int(asked.get("pageSize", DEFAULT_PAGE))
        cursor = unquote(asked.get("pageStart", ""))
        if path == _REPOSITORIES:
            page, following = repository_page(shape.repositories, int(cursor[-7:]) if cursor else 0, size)
            return _list(page, following, shape.repositories, asked)
        number = int(path[-len("0000000/tags") : -len("/tags")])
        if number >= shape.repositories or path != f"{_REPOSITORIES}/{repository_path(number)}/tags":
            return _error(404, "NO_SUCH_REPOSITORY")
        if unquote(asked.get("domain", "")) != self.host:
            return _error(400, "INVALID_PARAMETERS")  # a real one says "unsigned"; here it is a mistake of the bench
        if shape.attack:
            return Answer(200, attack_page(shape.attack), headers=b"X-Resource-Count: 1\r\nContent-Encoding: gzip\r\n")
        if shape.ignores_page_size:
            size = shape.tags
        offset = 0
        if cursor:
            _, major, minor = cursor.split(".")
            offset = (int(major) * 100 + int(minor) - number * shape.tags) % POOL
        page, following = tag_page(shape, number, offset, size)
        return _list(page, following, shape.tags, asked)

    def _administer(self, path: str, query: str) -> Answer:
        if path == "/bench/shape":
            given = {name: json.loads(values[0]) for name, values in parse_qs(query).items()}
            if given["attack"]:
                given["attack"] = Attack(**given["attack"])
            self._shape = Shape(**{field.name: given[field.name] for field in fields(Shape)})
            _pool(self._shape.unsigned_every, self._shape.changed)
            self._counters = Counters()
            return _json({})
        if path == "/bench/counters":
            used = resource.getrusage(resource.RUSAGE_SELF)
            return _json({**asdict(self._counters), "processor_seconds": used.ru_utime + used.ru_stime})
        return _error(404, "NOT_FOUND")


def _json(content: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode())


def _error(status: int, code: str, headers: bytes = b"") -> Answer:
    return Answer(status, json.dumps({"errors": [{"code": code, "message": code}]}).encode(), headers=headers)


def _list(page: bytes, following: str, count: int, asked: dict[str, str]) -> Answer:
    headers = f"X-Next-Page-Start: {following}\r\n" if following else ""
    if asked.get("count") == "true":
        headers += f"X-Resource-Count: {count}\r\n"
    return Answer(200, page, headers=headers.encode())


async def _run(certificate: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load_into(context)
    registry = Registry()
    port = await open_port(registry, context=context)
    registry.host = f"localhost:{port}"
    await run_until_input_ends(port)


if __name__ == "__main__":
    # epoll waits for whole milliseconds, and so would every latency be longer than it says.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_run(Certificate(**json.loads(sys.stdin.readline()))))
