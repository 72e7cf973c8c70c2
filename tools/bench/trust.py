"""What it costs to verify signatures: requests and processor time of one repository, when it is new and when it is unchanged.

The Notary's documents are those of `dtr_audit_simulator.notary`, signed by a key for each role, and handed over in this process:
what is timed is the verification, and neither network nor server. Beside it: parsing the JSON of the same documents, which is
the least that reading them takes.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dtr_audit.trust.notary.cache import parse_memory
from dtr_audit.trust.notary.policy import TrustPolicy
from dtr_audit.trust.notary.reading import Outcome
from dtr_audit.trust.notary.verification import verify
from dtr_audit_simulator.notary import Notary, TrustRepository
from tools.bench.results import Numbers, Table

TITLE = "Verifying signatures, of one repository (processor time; a token is one request more)"
TAGS = (1, 20, 200, 2_000)
GUN = "dtr.example.mil/payments/ledger"
SECONDS_LEAST = 0.02  # of one measurement, so that the clock can see it


class Source:
    """A Notary in this process, which counts what it is asked."""

    def __init__(self, repository: TrustRepository) -> None:
        self._repository = repository
        self.asked: list[str] = []

    def fetch(self, gun: str, name: str) -> bytes | None:
        """Give a document by its role, or by its role and hash."""
        del gun  # there is but one
        self.asked.append(name)
        role, _, sha256 = name.rpartition(".")
        return self._repository.find(role, sha256=sha256) if role else self._repository.find(name)


def make_repository(tags: int) -> TrustRepository:
    """Make trust data of so many tags, each signed by a signer and released."""
    repository = Notary().create(GUN)
    repository.add_signer("ci")
    with repository.batch():
        for number in range(tags):
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            repository.sign(f"1.0.{number}", f"sha256:{digest}", signer="ci")
    return repository


def processor_seconds(work: Callable[[], object]) -> float:
    """Give the processor time of one call, as the mean of as many as the clock can see."""
    calls, spent = 0, 0.0
    began = time.process_time()
    while spent < SECONDS_LEAST:
        work()
        calls += 1
        spent = time.process_time() - began
    return spent / calls


def measure_repository(tags: int, repetitions: int) -> dict[str, float]:
    """Measure one repository; times are in milliseconds."""
    source, policy, now = Source(make_repository(tags)), TrustPolicy(), datetime.now(UTC)
    new = verify(source, GUN, None, policy, now)
    if new.outcome is not Outcome.VERIFIED or new.memory is None or len(new.tags) != tags:
        raise RuntimeError(f"the trust data of the benchmark does not hold: {new.reason}")
    when_new = list(source.asked)
    documents = [body for name in when_new if (body := Source.fetch(source, GUN, name)) is not None]
    remembered = json.dumps(new.memory.as_dict())
    source.asked.clear()
    verify(source, GUN, parse_memory(json.loads(remembered)), policy, now)
    unchanged = len(source.asked)

    def again() -> object:
        return verify(source, GUN, parse_memory(json.loads(remembered)), policy, now)

    def times(work: Callable[[], object]) -> float:
        return 1000 * statistics.median(processor_seconds(work) for _ in range(repetitions))

    return {
        "tags": tags,
        "requests_new": len(when_new),
        "requests_unchanged": unchanged,
        "milliseconds_new": times(lambda: verify(source, GUN, None, policy, now)),
        "milliseconds_unchanged": times(again),
        "milliseconds_parsing": times(lambda: [json.loads(document) for document in documents]),
        "memory_bytes": len(remembered),
    }


def measure(repetitions: int) -> dict[str, Any]:
    """Measure repositories of several sizes."""
    return {"repositories": [measure_repository(tags, repetitions) for tags in TAGS]}


def tables(numbers: Numbers) -> list[Table]:
    """Tabulate the sizes."""
    return [
        Table.of(
            (
                *("tags", "requests, new", "unchanged", "processor time, new", "unchanged"),
                *("beside parsing the same JSON", "kept in the table"),
            ),
            [
                (
                    f"{one['tags']:,.0f}",
                    f"{one['requests_new']:.0f}",
                    f"{one['requests_unchanged']:.0f}",
                    f"{one['milliseconds_new']:.1f} ms",
                    f"{one['milliseconds_unchanged']:.1f} ms",
                    f"{one['milliseconds_new'] / one['milliseconds_parsing']:.0f}",
                    f"{one['memory_bytes'] / 1000:.1f} KB",
                )
                for one in numbers["repositories"]
            ],
        )
    ]
