"""Where the answers of a customer's .cklb stand."""

import json
import re
from collections.abc import Iterator

from dtr_audit.errors import EvidenceError
from dtr_audit.evidence import cklb
from dtr_audit.evidence.ckl_reader import ArtifactUrls, Baseline, Rules, Slot, Wanted, count_parts, warn_of_origin

UTF8_MARK = b"\xef\xbb\xbf"
_PROVENANCE_KEY = "evaluate-stig"  # of its objects in a .cklb


def _warn_of_source(without: int) -> tuple[str, ...]:
    """Warn of answered rules that an importer passes over without a word."""
    if not without:
        return ()
    return (
        "its rules have no rule_id_src, by which STIG Manager knows a rule: it imports no answer from such a file. Open and save "
        "it in STIG Viewer, or import the .ckl",
    )


_SPACE = re.compile(rb"[ \t\n\r]*")
# Possessive, or every escape in a text would be remembered for a way back.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKET = re.compile(_STRING.pattern + rb"|[\[\]{}]", re.DOTALL)
_PLAIN = re.compile(rb"[^\s,\]}]+")
_CKLB_TEXTS = {"status": "status", "finding_details": "details", "comments": "comments", "updatedAt": "written"}


def read_cklb(document: bytes, wanted: Wanted) -> Baseline:
    """Find where the answers of a .cklb stand; raises EvidenceError."""
    begin = len(UTF8_MARK) if document.startswith(UTF8_MARK) else 0
    count_parts(document, b"{[,")
    try:
        content = json.loads(document[begin:].decode())
    except (ValueError, RecursionError) as error:
        # The error's own words could hold a piece of the document.
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise EvidenceError(f"it cannot be read as JSON in UTF-8 ({where}): export it from STIG Viewer anew") from error
    stigs = content.get("stigs")
    if not isinstance(stigs, list):
        raise EvidenceError(
            "it is JSON but no .cklb, since it has no list 'stigs': export it from STIG Viewer as a .cklb"
        )
    origins = sum(bool(one.get(_PROVENANCE_KEY)) for one in (content, *stigs) if isinstance(one, dict))
    del content, stigs  # from here on it is known to be JSON, and only its places count
    rules = Rules(wanted)
    for start in _rules_of(document, begin, rules):
        _take_rule(document, start, rules)

    def encode(text: str) -> bytes:
        # ASCII, so that half a character in a comment of theirs, which JSON can hold, stays what it is.
        return json.dumps(text).encode()

    return Baseline(
        "checklist-merged.cklb",
        "application/json",
        tuple(rules.found),
        document,
        cklb.STATUSES,
        encode,
        (*warn_of_origin(origins), *_warn_of_source(rules.without_source)),
    )


def _take_rule(document: bytes, at: int, rules: Rules) -> None:
    ids: dict[str, str] = {}
    locations = ArtifactUrls()
    slots = locations.slots
    seen: set[str] = set()
    for key, start, end in _members(document, at):
        name = _CKLB_TEXTS.get(key)
        is_text = document[start : start + 1] == b'"'
        if is_text and key in {"group_id", "rule_id", "rule_id_src"}:
            ids[key] = _text(document, start, end)
        elif name:
            if name in seen:
                locations.twice.add(name)
            seen.add(name)
            if is_text or document[start:end] == b"null":
                slots[name] = Slot(start, end, _text(document, start, end) if is_text else "")
        elif key == _PROVENANCE_KEY:
            locations.origins.append(Slot(start, end, "", b"null"))
    # Some writers leave out what is empty: it is put behind the status.
    if "status" in slots:
        after = slots["status"].end
        for key in ("finding_details", "comments"):
            if _CKLB_TEXTS[key] not in seen:
                slots[_CKLB_TEXTS[key]] = Slot(after, after, "", f', "{key}": '.encode())
    # As importers do: the longer form goes before the shorter, which may be as long.
    rule_id = ids.get("rule_id_src") or ids.get("rule_id", "")
    if not rule_id.lower().endswith("_rule"):
        rule_id += "_rule"
    needed = {ours: theirs for theirs, ours in _CKLB_TEXTS.items() if ours != "written"}
    rules.take(ids.get("group_id", ""), rule_id, locations, needed, has_source="rule_id_src" in ids)


def _rules_of(document: bytes, begin: int, rules: Rules) -> Iterator[int]:
    """Find where the rules of a .cklb begin."""
    for key, start, _ in _members(document, _skip_space(document, begin)):
        if key == "stigs":
            for stig in _items(document, start):
                rules.begin_stig()
                for part, place, _ in _members(document, stig):
                    if part == "rules":
                        yield from _items(document, place)


def _members(document: bytes, at: int) -> Iterator[tuple[str, int, int]]:
    """Walk over the object that begins at `at`: each key, where its value begins, and where it ends.

    Whatever begins there and is no object has none.
    """
    if document[at : at + 1] != b"{":
        return
    at = _skip_space(document, at + 1)
    while document[at : at + 1] != b"}":
        end = _skip(document, at)
        key = _text(document, at, end)
        start = _skip_space(document, _skip_space(document, end) + 1)
        end = _skip(document, start)
        yield key, start, end
        at = _next(document, end)


def _items(document: bytes, at: int) -> Iterator[int]:
    """Walk over the array that begins at `at`: where its values begin. Whatever is no array has none."""
    if document[at : at + 1] != b"[":
        return
    at = _skip_space(document, at + 1)
    while document[at : at + 1] != b"]":
        yield at
        at = _next(document, _skip(document, at))


def _skip(document: bytes, at: int) -> int:
    """Give where the value that begins at `at` ends, without making anything of it."""
    if document[at : at + 1] not in {b"{", b"["}:
        plain = (_STRING if document[at : at + 1] == b'"' else _PLAIN).match(document, at)
        return plain.end() if plain else at
    depth = 0
    for sign in _BRACKET.finditer(document, at):
        first = document[sign.start()]
        if first != ord('"'):
            depth += 1 if first in b"{[" else -1
            if not depth:
                return sign.end()
    return len(document)


def _text(document: bytes, start: int, end: int) -> str:
    return str(json.loads(document[start:end]))


def _next(document: bytes, at: int) -> int:
    at = _skip_space(document, at)
    return _skip_space(document, at + 1) if document[at : at + 1] == b"," else at


def _skip_space(document: bytes, at: int) -> int:
    found = _SPACE.match(document, at)
    return found.end() if found else at
