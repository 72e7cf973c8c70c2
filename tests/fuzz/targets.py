"""What is mutated, and what is then done with it: one function makes one case of a target.

Each case has a seed of its own. The same seed changes the same answer in the same way, in every process.
"""

import base64
import gzip
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from random import Random
from time import monotonic
from unittest.mock import patch

from dtr_audit.core.model import RepositoryReading, TrustFlags, Verdict
from dtr_audit.core.readings import Listing
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.rule import judge
from dtr_audit.errors import AuditError
from dtr_audit.http.memory_budget import BUDGET
from dtr_audit.pipeline.scan import read_repository
from dtr_audit.registry.domains import choose_domains
from dtr_audit.registry.dtr import DtrClient
from dtr_audit.registry.related_settings import _Look
from dtr_audit.trust.notary.changefeed import read_hosts, suggest_domain
from dtr_audit.trust.notary.client import NotaryClient
from dtr_audit.trust.notary.policy import SignersNeeded, TrustPolicy
from dtr_audit.trust.tags import TrustVerifier
from dtr_audit_simulator.http.transport import Request
from dtr_audit_simulator.notary import repository as trust_repository
from dtr_audit_simulator.notary.files import seal, write_file
from dtr_audit_simulator.notary.repository import SNAPSHOT, TIMESTAMP, TrustRepository
from tests.fuzz.mutators import find_paths, mutate_bytes, mutate_json, put
from tests.fuzz.oracle import (
    check_artifacts,
    check_bounds,
    check_complete,
    check_listing,
    check_registry,
    check_signed,
    check_texts,
    require,
)
from tests.fuzz.wire import Change, Plain, leave
from tests.fuzz.world import (
    APP,
    HOST,
    NOW,
    PAGE_SIZE,
    PASSWORD,
    ROLES,
    UCP_HOST,
    USERNAME,
    World,
    make_world,
)

SECONDS = 900.0  # of the standing clock, as long as a Lambda may take
STATUSES = (200, 200, 201, 204, 301, 400, 401, 403, 404, 429, 500, 502, 503)
HEADERS: Mapping[str, tuple[str, ...]] = {
    "X-Resource-Count": ("", "0", "1", "2", "7", "-1", "1e3", "٣", "9" * 30),
    "X-Next-Page-Start": ("", "x", "../..", "a" * 5_000),
    "Www-Authenticate": (
        "",
        "Basic",
        'Bearer realm="https://elsewhere.example/token",service="x"',
        'service="',
        "\xff",
    ),
    "Content-Type": ("", "text/html", "x" * 300),
    "Content-Encoding": ("gzip", "br", "GZIP", "x" * 300),
    "Retry-After": ("1", "-1", "99999999999", "Mon, 01 Jan 0001 00:00:00 GMT", "x"),
    "Content-Length": ("0", "1", "99999999999", "-1", "x"),
}
POLICIES = (
    TrustPolicy(),
    TrustPolicy(required_signers=("alice",), targets_key_suffices=False),
    TrustPolicy(required_signers=("alice", "bob"), signers_needed=SignersNeeded.ALL, targets_key_suffices=False),
)
SECRETS = (PASSWORD, base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode())


@dataclass
class Bench:
    """A world with what its honest audits have left."""

    world: World = field(default_factory=make_world)
    doing: str = ""  # what the present case has mutated

    def __post_init__(self) -> None:
        """Make the honest audits now: within a case they would end what is mutated."""
        assert self.artifacts
        assert self.memories
        assert self.unsigned

    @cached_property
    def artifacts(self) -> frozenset[str]:
        """Digests of what is a signature by its content."""
        tags = [judged for reading in self.honest for judged in reading.tags]
        found = frozenset(judged.tag.digest for judged in tags if judged.verdict is None)
        assert len(found) == 2
        return found

    @cached_property
    def honest(self) -> list[RepositoryReading]:
        """What the registry says, unchanged."""
        with self.world.wire.connected():
            self.world.wire.begin(leave)
            client = self.log_in()
            client.connect()
            found = [read_repository(client, one, (HOST,)) for one in client.repositories(Listing())]
        assert all(reading.is_complete for reading in found)
        return found

    @cached_property
    def memories(self) -> dict[str, str]:
        """What the Notary's honest documents have left."""
        reading = self._verify(TrustPolicy())
        [seen] = reading.trust
        assert seen.memory
        return {HOST: seen.memory}

    @cached_property
    def signed(self) -> list[frozenset[tuple[str, str]]]:
        """What is SIGNED by the Notary's honest documents under each policy."""
        found = []
        for policy in POLICIES:
            tags = self._verify(policy).tags
            found.append(frozenset((one.tag.name, one.tag.digest) for one in tags if one.verdict is Verdict.SIGNED))
        assert found[0] == self.world.signed[APP]
        assert len(found[1]) == 1
        return found

    @cached_property
    def unsigned(self) -> dict[str, str]:
        """Digests of the images that no signer has signed, by tag."""
        signed = {name for name, _ in self.signed[0]}
        tags = [one.tag for one in self.reading().tags if one.verdict is not None]
        return {tag.name: tag.digest for tag in tags if tag.name not in signed}

    def reading(self) -> RepositoryReading:
        """Give the reading of the repository with trust data, in which the registry says of every tag that it is signed."""
        [reading] = [one for one in self.honest if one.repository == APP]
        flags = TrustFlags(HOST, True, False)
        tags = [one.tag._replace(trust=(flags,)) for one in reading.tags]
        judged = zip(tags, reading.tags, strict=True)
        return replace(reading, tags=tuple(judge(tag, artifact=one.verdict is None) for tag, one in judged))

    def _verify(self, policy: TrustPolicy) -> RepositoryReading:
        reading = self.reading()
        with self.world.wire.connected():
            self.world.wire.begin(leave)
            return TrustVerifier(self.ask_notary(), policy, at=NOW).verify(reading, {})

    def log_in(self) -> DtrClient:
        """Give a client of the registry."""
        return DtrClient(
            f"https://{HOST}",
            self.world,
            x509_strict=True,
            concurrency=4,
            page_size=PAGE_SIZE,
            stop_at=self.world.wire.clock.now + SECONDS,
        )

    def ask_notary(self) -> NotaryClient:
        """Give a client of the Notary."""
        stop_at = self.world.wire.clock.now + SECONDS
        return NotaryClient(f"https://{HOST}", self.world, x509_strict=True, concurrency=4, stop_at=stop_at)


# -- what becomes of an answer -----------------------------------------------------------------------------------------


def mutate(content: bytes, random: Random) -> tuple[bytes, str]:
    """Mutate a document by its structure or by its bytes, or echo a secret in it; gives also by which."""
    kind = random.randrange(16)
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if document is None or kind < 6:
        return mutate_bytes(content, random), "bytes"
    if kind == 6:
        path = random.choice(list(find_paths(document)))
        secret = random.choice(SECRETS)
        secret = random.choice((secret, secret.upper(), f"x{secret}y", secret[:18]))
        return json.dumps(put(document, path, secret)).encode(), "echo"
    return mutate_json(content, random), "structure"


def make_change(host: str, pattern: str, seed: str) -> tuple[Change, str]:
    """Make what changes the answers of one kind in one case; gives also its name."""
    random = Random(seed)
    times = random.choice((None, None, None, 1, 2))
    header = random.choice(list(HEADERS)) if random.randrange(6) == 0 else ""
    value = random.choice(HEADERS[header]) if header else ""
    status = random.choice(STATUSES) if random.randrange(12) == 0 else 0
    is_zipped = random.randrange(12) == 0
    keeps_body = bool(header or status) and random.randrange(2) == 0
    struck = 0

    def change(of: str, request: Request, answer: Plain) -> Plain:
        nonlocal struck
        if of != host or not re.fullmatch(pattern, request.path) or (times is not None and struck >= times):
            return answer
        struck += 1
        # The same question gets the same answer.
        own = Random(f"{seed} {request.target}")
        headers = dict(answer.headers)
        body = answer.body if keeps_body else mutate(answer.body, own)[0]
        if is_zipped:
            body = gzip.compress(body, mtime=0)
            body = mutate_bytes(body, own) if own.randrange(3) == 0 else body
            headers["Content-Encoding"] = "gzip"
        if header:
            headers[header] = value
        return Plain(status or answer.status, body, headers)

    parts = [f"{header} {value[:20]!r}"] if header else []
    parts += [f"status {status}"] if status else []
    parts += ["gzip"] if is_zipped else []
    parts += [f"{times} times"] if times else []
    parts += [] if keeps_body else ["body"]
    return change, ", ".join(parts)


# -- the registry ------------------------------------------------------------------------------------------------------

ANSWERS: Mapping[str, tuple[str, str]] = {
    "repositories": (HOST, r"/api/v0/repositories"),
    "tags": (HOST, r"/api/v0/repositories/[^/]+/[^/]+/tags"),
    "settings": (HOST, r"/api/v0/meta/settings"),
    "token": (HOST, r"/auth/token|/v2"),
    "manifests": (HOST, r"/v2/.*/manifests/.*"),
}


def fuzz_registry(bench: Bench, target: str, seed: int) -> None:
    """Read and judge the whole registry, with one kind of answers mutated."""
    wire = bench.world.wire
    change, name = make_change(*ANSWERS[target], f"{target} {seed}")
    random = Random(f"{target} {seed} run")
    is_verified = random.randrange(8) == 0
    bench.doing = f"{name}, signatures" if is_verified else name
    wire.begin(change)
    listing = Listing()
    readings: list[RepositoryReading] = []
    texts: list[str] = []
    client = bench.log_in()
    try:
        host = client.connect()
        domains, warning = choose_domains((), host, f"https://{HOST}")
        texts += [host, warning]
        require(all(domain.lower().removesuffix(":443") == HOST for domain in domains), f"asked under {domains}")
        found = list(client.repositories(listing))
        check_listing(wire.served, listing, found)
        notary = bench.ask_notary() if is_verified else None
        verifier = TrustVerifier(notary, random.choice(POLICIES), at=NOW) if notary else None
        for repository in found:
            reading = read_repository(client, repository, domains, verifier)
            readings.append(reading)
            check_complete(wire.served, reading)
            check_artifacts(reading, bench.artifacts)
            if verifier is None:
                check_registry(wire.served, reading)
            else:
                check_signed(reading, bench.world.signed.get(repository, frozenset()))
        client.verify_admin()
    except AuditError as error:
        texts.append(str(error))
    finally:
        client.close()
    texts += [listing.problem, *_texts_of(readings)]
    check_texts(texts, SECRETS)


def _texts_of(readings: list[RepositoryReading]) -> list[str]:
    texts = []
    for reading in readings:
        texts += [str(reading.repository), reading.problem]
        for judged in reading.tags:
            tag = judged.tag
            texts += [tag.name, tag.digest, tag.author, tag.pushed_at, tag.media_type, judged.reason, *judged.signers]
        for seen in reading.trust:
            texts += [seen.reason, *seen.notes, *(role for role, _ in seen.expiring)]
    return texts


# -- the Notary --------------------------------------------------------------------------------------------------------


def fuzz_trust(bench: Bench, target: str, seed: int) -> None:
    """Verify a repository's signatures, with one of the Notary's documents mutated, by one of three attackers."""
    wire = bench.world.wire
    random = Random(f"{target} {seed}")
    attacker = target.removeprefix("trust-")
    role = random.choice(ROLES)
    number = random.randrange(len(POLICIES))
    trust = bench.world.trust(APP).fork()
    honest = trust.find(role)
    assert honest is not None
    is_remembered = bool(random.randrange(2))
    memories = bench.memories if is_remembered else {}
    signed = bench.signed[number]
    if attacker == "wire":
        mutant, name = mutate(honest, random)
        trust.impose(role, mutant)
    elif attacker == "server":
        # Without a signer's key: only the server's own documents get a new signature.
        name = _plant(trust, role, honest, bench.unsigned, random, is_signed=role in (SNAPSHOT, TIMESTAMP))
    else:
        name = _plant(trust, role, honest, bench.unsigned, random, is_signed=True)
        signed = bench.world.listed[APP]
    bench.doing = f"{role}, {name}, policy {number}{', remembered' if is_remembered else ''}"
    wire.begin(_serve(trust))
    reading = TrustVerifier(bench.ask_notary(), POLICIES[number], at=NOW).verify(bench.reading(), memories)
    check_signed(reading, signed)
    check_artifacts(reading, bench.artifacts)
    require(len(reading.tags) == len(bench.reading().tags), "a tag was lost")
    check_texts(_texts_of([reading]), SECRETS)
    # What is remembered of it can be read again, and does not sign what was not.
    memories = {seen.domain: seen.memory or memories.get(seen.domain, "") for seen in reading.trust}
    again = TrustVerifier(bench.ask_notary(), POLICIES[number], at=NOW).verify(bench.reading(), memories)
    check_signed(again, signed)


def _plant(
    trust: TrustRepository,
    role: str,
    honest: bytes,
    unsigned: Mapping[str, str],
    random: Random,
    *,
    is_signed: bool,
) -> str:
    """Plant a mutant under hashes that fit; its own signature fits too if it `is_signed`."""
    if not is_signed:
        mutant, name = _forge(honest, unsigned, random) if random.randrange(4) == 0 else mutate(honest, random)
        trust.plant(role, mutant, consistent=True)
        return name
    content, name = mutate(json.dumps(json.loads(honest)["signed"]).encode(), random)
    keys = trust.signing_keys(role)
    try:
        document = json.loads(content)
        mutant = seal(document, keys)
    except (ValueError, TypeError, RecursionError, AttributeError, LookupError):
        signatures = [key.signature(content) for key in keys]
        head, _, tail = write_file({}, signatures).partition(b"{}")
        mutant = head + content + tail
    trust.plant(role, mutant, consistent=True)
    return f"{name}, signed"


def _forge(honest: bytes, unsigned: Mapping[str, str], random: Random) -> tuple[bytes, str]:
    """Add unsigned images to a document that lists images, and keep its signatures."""
    document = json.loads(honest)
    if "targets" not in document["signed"]:
        return mutate(honest, random)
    for tag, digest in unsigned.items():
        hashes = {"sha256": base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode()}
        document["signed"]["targets"][tag] = {"hashes": hashes, "length": 528}
    return json.dumps(document).encode(), "forged"


_FILE = re.compile(rf"/v2/{re.escape(f'{HOST}/{APP}')}/_trust/tuf/(?:(\d+)\.)?(.+?)(?:\.([0-9a-f]{{64}}))?\.json")
_MISSING = b'{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist."}]}'


def _serve(trust: TrustRepository) -> Change:
    def change(_: str, request: Request, answer: Plain) -> Plain:
        found = _FILE.fullmatch(request.path)
        if found is None or answer.status == 401:
            return answer
        version, role, sha256 = found.groups()
        body = trust.find(role, version=int(version) if version else None, sha256=sha256 or "")
        return Plain(404, _MISSING) if body is None else Plain(200, body)

    return change


def fuzz_changefeed(bench: Bench, target: str, seed: int) -> None:
    """Look for the hosts that have trust data, with the changefeed mutated."""
    change, name = make_change(HOST, r"/v2/_trust/changefeed", f"{target} {seed}")
    bench.doing = name
    bench.world.wire.begin(change)
    texts = []
    try:
        texts.append(suggest_domain(read_hosts(bench.ask_notary()), ("elsewhere.example",)))
    except AuditError as error:
        texts.append(str(error))
    check_texts(texts, SECRETS)


# -- related settings --------------------------------------------------------------------------------------------------


def fuzz_related_settings(bench: Bench, target: str, seed: int) -> None:
    """Read the related settings, with an answer of UCP or of the registry mutated."""
    locations = (
        (UCP_HOST, r"/api/ucp/config-toml"),
        (UCP_HOST, r"/enzi/v0/config/auth"),
        (UCP_HOST, r"/auth/login"),
        (HOST, r"/api/v0/(meta/settings|imagescan/status)"),
    )
    place = locations[Random(f"{target} {seed} place").randrange(len(locations))]
    change, name = make_change(*place, f"{target} {seed}")
    bench.doing = f"{place[1]}, {name}"
    wire = bench.world.wire
    wire.begin(leave)
    client = bench.log_in()
    client.connect()
    wire.begin(change)
    # The clock stands, and what waits in a thread goes by the machine's.
    wire.clock.now = monotonic()
    look = _Look(client, bench.world, f"https://{UCP_HOST}", x509_strict=True, stop_at=monotonic() + 60.0)
    for ask in look.asks:
        ask()
    seen = look.result()
    client.close()
    check_texts([seen.warning, *(fact.answer for fact in seen.facts)], SECRETS)


Fuzz = Callable[[Bench, str, int], None]

# For each hundred cases in all: how many of each.
TARGETS: Mapping[str, tuple[Fuzz, int]] = {
    "repositories": (fuzz_registry, 14),
    "tags": (fuzz_registry, 24),
    "settings": (fuzz_registry, 6),
    "token": (fuzz_registry, 8),
    "manifests": (fuzz_registry, 8),
    "changefeed": (fuzz_changefeed, 4),
    "related-settings": (fuzz_related_settings, 6),
    "trust-wire": (fuzz_trust, 8),
    "trust-server": (fuzz_trust, 12),
    "trust-owner": (fuzz_trust, 10),
}


def make_case(bench: Bench, target: str, seed: int) -> None:
    """Make one case; raises FindingError, or the error that left the reader."""
    REDACTOR.forget()
    BUDGET.peak = 0
    fuzz, _ = TARGETS[target]
    # Notary's files are numbered by their expiry: from the same number in each case.
    with bench.world.wire.connected(), patch.object(trust_repository, "_FILES", count(10_000)):
        fuzz(bench, target, seed)
    check_bounds()
