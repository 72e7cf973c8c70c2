"""What may become of mutated answers: a second, tiny and strict reader of them decides."""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from urllib.parse import unquote

from dtr_audit.core.model import Repository, RepositoryReading, Verdict
from dtr_audit.core.readings import Listing
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.http.memory_budget import BUDGET, SHARED_BYTES
from dtr_audit.trust.tags import TRUST_BYTES
from tests.fuzz.wire import Plain, Served
from tests.fuzz.world import Signed

PEAK_BYTES = SHARED_BYTES + TRUST_BYTES
REPOSITORIES = "/api/v0/repositories"
UNFORESEEN = ("unforeseen", "internal error")

_TAGS = re.compile(r"/api/v0/repositories/([^/]+)/([^/]+)/tags")


class FindingError(AssertionError):
    """Something that no answer may cause."""


def require(holds: object, what: str) -> None:
    """Raise FindingError unless something holds."""
    if not holds:
        raise FindingError(what)


def find_readings(served: Iterable[Served], path: re.Pattern[str] | str) -> dict[tuple[str, str], list[list[Plain]]]:
    """Give the readings of lists, each with its pages, by path and domain."""
    found: dict[tuple[str, str], list[list[Plain]]] = {}
    last_target = ""
    for one in served:
        asked = one.request.target.partition("?")[0]
        if not re.fullmatch(path, asked):
            continue
        readings = found.setdefault((unquote(asked), one.request.parameter("domain").lower()), [])
        if not readings or not one.request.parameter("pageStart"):
            readings.append([])
        # One that is asked again after a fault of the moment takes the earlier one's place. So does one that is asked again because
        # the answer was not the gzip that it said it was: that is a fault of the connection.
        if readings[-1]:
            last = readings[-1][-1]
            if last.status != 200 or (one.request.target == last_target and not _is_unpacked(last)):
                readings[-1].pop()
        readings[-1].append(one.answer)
        last_target = one.request.target
    return found


def parse_strictly(body: bytes) -> Any:
    """Parse JSON in which no object gives one key two values; raises ValueError or RecursionError."""

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found and json.dumps(found[name]) != json.dumps(value):
                raise ValueError("two values")
            found[name] = value
        return found

    return json.loads(body, object_pairs_hook=make)


def read_entries(page: Plain, key: str) -> list[Any] | None:
    """Give the entries of a page; None if it is none."""
    if page.status != 200:
        return None
    try:
        body = parse_strictly(_plain(page))
    except (ValueError, RecursionError):
        return None
    if isinstance(body, dict):
        body = body.get(key, "")
    return [] if body is None else body if isinstance(body, list) else None


def _plain(page: Plain) -> bytes:
    import gzip  # noqa: PLC0415 - seldom
    import zlib  # noqa: PLC0415

    if page.headers.get("Content-Encoding", "").strip().lower() != "gzip":  # in any letter case (RFC 9110, 8.4.1)
        return page.body
    try:
        return gzip.decompress(page.body)
    except (OSError, EOFError, zlib.error):
        raise ValueError("no gzip") from None


def _is_unpacked(page: Plain) -> bool:
    try:
        _plain(page)
    except ValueError:
        return False
    return True


def may_be_signed(readings: Sequence[Sequence[Plain]], name: str) -> bool:
    """Tell whether in one of the readings every entry of a tag says that it is signed."""
    for pages in readings:
        entries = [entry for page in pages for entry in read_entries(page, "tags") or ()]
        flags = [
            (entry.get("inNotary"), entry.get("hashMismatch"))
            for entry in entries
            if isinstance(entry, dict) and entry.get("name") == name
        ]
        if flags and all(in_notary is True and mismatch is False for in_notary, mismatch in flags):
            return True
    return False


def check_registry(served: Sequence[Served], reading: RepositoryReading) -> None:
    """Hold a reading, judged by the registry's word, against the answers."""
    path = f"{REPOSITORIES}/{reading.repository}/tags"
    readings = {asked: pages for asked, pages in find_readings(served, _TAGS).items() if asked[0] == path}
    for judged in reading.tags:
        if judged.verdict is Verdict.SIGNED:
            name = judged.tag.name
            holds = any(may_be_signed(pages, name) for pages in readings.values())
            require(holds, f"{reading.repository}:{name} is SIGNED, and no answer says so throughout")


def check_complete(served: Sequence[Served], reading: RepositoryReading) -> None:
    """Hold a reading that is said to be complete against the answers: every tag that they list, and their own counts."""
    path = f"{REPOSITORIES}/{reading.repository}/tags"
    readings = {asked: pages for asked, pages in find_readings(served, _TAGS).items() if asked[0] == path}
    if reading.gone:
        gone = any(page.status == 404 for all_of in readings.values() for pages in all_of for page in pages)
        require(gone, f"{reading.repository} is gone, and no answer says so")
        return
    if reading.problem:
        return
    require(readings, f"{reading.repository} is complete, and was not asked for")
    judged = {one.tag.name for one in reading.tags}
    for all_of in readings.values():
        _check_whole(all_of[-1], "tags", judged, str(reading.repository))


def check_listing(served: Sequence[Served], listing: Listing, found: Collection[Repository]) -> None:
    """Hold a list of repositories that is said to be complete against the answers."""
    if listing.problem:
        return
    names = {str(repository) for repository in found}
    for all_of in find_readings(served, REPOSITORIES).values():
        # A single row is asked for as a probe of the account.
        _check_whole(all_of[0] if len(all_of) == 1 else all_of[-1], "repositories", names, "the list of repositories")


def _check_whole(pages: Sequence[Plain], key: str, found: Collection[str], what: str) -> None:
    """Require that a whole list is well-formed, that nothing of it is missing, and that its own counts agree."""
    listed: set[str] = set()
    unnamed_entries = 0
    for page in pages:
        entries = read_entries(page, key)
        require(entries is not None, f"{what} is complete, and a page of it cannot be read")
        for entry in entries or ():
            require(isinstance(entry, dict), f"{what} is complete, and an entry is no object")
            name = entry.get("name") if key == "tags" else f"{entry.get('namespace')}/{entry.get('name')}"
            if key != "tags" and {"", None}.intersection(_texts(entry.get("namespace"), entry.get("name"))):
                unnamed_entries += 1
                continue
            require(isinstance(name, str), f"{what} is complete, and an entry has no name")
            listed.add(str(name))
    require(not listed.difference(found), f"{what} is complete without {sorted(listed.difference(found))[:3]}")
    counts = {page.headers.get("X-Resource-Count", "").strip() for page in pages}
    if key == "tags" and counts == {""} and all(_is_old_form(page) for page in pages):
        return
    require(counts == {str(len(listed) + unnamed_entries)}, f"{what} is complete, and its counts are {sorted(counts)}")
    require(not pages[-1].headers.get("X-Next-Page-Start", "").strip(), f"{what} is complete, and goes on")


def _texts(*values: object) -> set[str | None]:
    return {value for value in values if value is None or isinstance(value, str)}


def _is_old_form(page: Plain) -> bool:
    return isinstance(parse_strictly(_plain(page)), dict)


def check_signed(reading: RepositoryReading, signed: Signed) -> None:
    """Require that nothing is SIGNED but what honest signers have signed: the tag, with its very digest."""
    for judged in reading.tags:
        if judged.verdict is Verdict.SIGNED:
            what = (judged.tag.name, judged.tag.digest)
            require(
                what in signed, f"{reading.repository}:{what[0]} is SIGNED as {what[1]}, which no honest signer signed"
            )


def check_artifacts(reading: RepositoryReading, artifacts: Collection[str]) -> None:
    """Require that nothing is left out of the audit but signatures, by their content's digest."""
    for judged in reading.tags:
        if judged.verdict is None:
            require(judged.tag.digest in artifacts, f"{reading.repository}:{judged.tag.name} is no artifact")


def check_texts(texts: Iterable[str], secrets: Iterable[str]) -> None:
    """Require that no unforeseen error is in a text, and no secret once the text has left the process."""
    for text in texts:
        for words in UNFORESEEN:
            require(words not in text, f"an unforeseen error: {text[:600]}")
        left = REDACTOR.redact(text).lower()
        for secret in secrets:
            require(secret.lower() not in left, "a secret is in a text that leaves the process")


def check_bounds() -> None:
    """Require that all memory was given back, and that there was never more of it than there may be."""
    require(not BUDGET.charged, f"{BUDGET.charged} bytes are still charged")
    require(BUDGET.peak <= PEAK_BYTES, f"{BUDGET.peak} bytes were charged at once")
