"""Lists as the API writes them: rows, pages and the cursors between them.

A cursor names the first row of the next page (`namespace/name`, or a tag), so that it stays good while rows
come and go before it. It stands in the header as it is, as UTF-8; names that cannot stand in a header are escaped.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Generic, TypeVar
from urllib.parse import quote, unquote

from dtr_audit_simulator.dtr.backend import Positioned, RepositoryEntry, TagEntry
from dtr_audit_simulator.dtr.faults import HOSTILE_NAMES, Struck

Row = TypeVar("Row", RepositoryEntry, TagEntry)

INDEXED_FROM = 500  # rows from which on a list that is searched for a cursor gets an index
INDEXES = 16
_NO_DIGEST = "sha256:" + "0" * 64
_NO_TIME = "2020-01-01T00:00:00Z"
_STRANGE = " +&=%2F#?"
_ESCAPED = "~"
_ENDLESS = "~endless~"
_POSITION = "row/"


class UnknownCursor(Exception):  # noqa: N818 - an answer of the registry's, not a mistake of ours
    """The cursor is none that the registry has given out."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a list, and the cursor that leads on from there (None: there is no more)."""

    rows: Sequence[Row]
    cursor: str | None


class Pager:
    """Cut pages out of lists, rightly or as the faults in force demand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: OrderedDict[int, tuple[Sequence[object], dict[str, int]]] = OrderedDict()

    def page(
        self, rows: Sequence[Row], invent: Callable[[str], Row], cursor: str, size: int, struck: Struck
    ) -> Page[Row]:
        """Cut the page of `size` rows that begins at `cursor` (empty: the first).

        `invent` makes a row of that name, for lists without end. Raises UnknownCursor.
        """
        names = struck.names
        if "paging_ignored" in names:
            return Page(rows, None)
        if "strange_cursors" in names and cursor:
            if not cursor.endswith(_STRANGE):
                raise UnknownCursor(cursor)
            cursor = cursor.removesuffix(_STRANGE)
        if cursor.startswith(_ENDLESS):
            page = _invented_page(invent, cursor, size, struck)
        else:
            page = self._true_page(rows, cursor, size, struck)
        if page.cursor is not None and "strange_cursors" in names:
            return Page(page.rows, page.cursor + _STRANGE)
        return page

    def position(self, rows: Sequence[Row], key: str) -> int:
        """Find the index of the row `key`, or of the first one behind it."""
        if isinstance(rows, Positioned):
            return rows.position(key)
        if len(rows) >= INDEXED_FROM:
            found = self._index(rows).get(key)
            if found is not None:
                return found
        else:
            for i, row in enumerate(rows):
                if key_of(row) == key:
                    return i
        # It has been deleted meanwhile: go on behind the place where it was.
        return next((i for i, row in enumerate(rows) if key_of(row) > key), len(rows))

    def _true_page(self, rows: Sequence[Row], cursor: str, size: int, struck: Struck) -> Page[Row]:
        names = struck.names
        begin = 0
        if cursor:
            if "rows_shifted" in names and len(rows) > 1:
                shifted = list(rows)
                shifted.insert(0, shifted.pop())
                rows = shifted
            begin = _place(cursor) if cursor.startswith(_POSITION) else self.position(rows, _key_from(cursor))
        end = begin + (max(1, size // 2) if "short_pages" in names else size)
        page = rows[begin:end]
        following = _cursor_for(rows[end]) if end < len(rows) else None
        if begin > 0 and "rows_repeated" in names:
            page = rows[begin - 1 : end]
        if following is not None and "positional_cursors" in names:
            following = f"{_POSITION}{end}"
        if "next_page_stripped" in names:
            following = None
        elif "repeated_cursor" in names and begin < len(rows):
            following = _cursor_for(rows[begin])
        elif "cursor_loop" in names and begin > 0:
            following = _cursor_for(rows[0])
        elif following is None and "endless" in names:
            following = f"{_ENDLESS}1"
        return Page(page, following)

    def _index(self, rows: Sequence[Row]) -> dict[str, int]:
        with self._lock:
            known = self._indexes.get(id(rows))
            # The index holds its rows, so that nothing else can be given their identity meanwhile.
            if known is not None and known[0] is rows:
                self._indexes.move_to_end(id(rows))
                return known[1]
        index = {key_of(row): i for i, row in enumerate(rows)}
        with self._lock:
            self._indexes[id(rows)] = (rows, index)
            while len(self._indexes) > INDEXES:
                self._indexes.popitem(last=False)
        return index


def key_of(row: RepositoryEntry | TagEntry) -> str:
    """Give what a row is called within its list."""
    return row.name if isinstance(row, TagEntry) else row.path


def _cursor_for(row: RepositoryEntry | TagEntry) -> str:
    key = key_of(row)
    if key and key == key.strip() and key.isprintable() and not key.startswith(_ESCAPED):
        return key.encode().decode("latin-1")
    return _ESCAPED + quote(key, safe="", errors="surrogatepass")


def _key_from(cursor: str) -> str:
    if cursor.startswith(_ESCAPED):
        return unquote(cursor.removeprefix(_ESCAPED), errors="surrogatepass")
    return cursor


def _place(cursor: str) -> int:
    number = cursor.removeprefix(_POSITION)
    if not number.isdecimal():
        raise UnknownCursor(cursor)
    return int(number)


def _invented_page(invent: Callable[[str], Row], cursor: str, size: int, struck: Struck) -> Page[Row]:
    number = cursor.removeprefix(_ENDLESS)
    if not number.isdecimal():
        raise UnknownCursor(cursor)
    following = f"{_ENDLESS}{int(number) + 1}"
    endless = struck.faults.endless
    if endless is None or endless.empty:
        return Page((), following)
    return Page([invent(f"endless-{number}-{i}") for i in range(size)], following)


def invented_repository(name: str) -> RepositoryEntry:
    """Make a repository that does not exist."""
    return RepositoryEntry("endless", name)


def invented_tag(name: str) -> TagEntry:
    """Make a tag that does not exist, unsigned."""
    return TagEntry(name, _NO_DIGEST, "", _NO_TIME, _NO_TIME, False, False)


def with_unnamed_entries(rows: Sequence[RepositoryEntry]) -> Sequence[RepositoryEntry]:
    """Add entries without a namespace, a name, or either, behind the first row."""
    unnamed_entries = (RepositoryEntry("", ""), RepositoryEntry("ghost", ""), RepositoryEntry("", "ghost"))
    return (*rows[:1], *unnamed_entries, *rows[1:])


def with_hostile_repositories(rows: Sequence[RepositoryEntry]) -> Sequence[RepositoryEntry]:
    """Add repositories whose namespace, name or description is hostile."""
    hostile = [
        RepositoryEntry(namespace, name, short_description=text)
        for text in HOSTILE_NAMES
        for namespace, name in ((text, "hostile"), ("hostile", text))
    ]
    return (*rows, *hostile)


def with_hostile_tags(rows: Sequence[TagEntry]) -> Sequence[TagEntry]:
    """Add tags whose name and author, or digest and times, are hostile."""
    names = [TagEntry(text, _NO_DIGEST, text, _NO_TIME, _NO_TIME, False, False) for text in HOSTILE_NAMES]
    fields = [TagEntry(f"hostile-{i}", t, t, t, t, False, False, media_type=t) for i, t in enumerate(HOSTILE_NAMES)]
    return (*rows, *names, *fields)


def repository_json(entry: RepositoryEntry) -> str:
    """Write a repository as one element of the list."""
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, repr(entry.path))
    return (
        f'{{"id":"{identifier}","namespace":{quoted(entry.namespace)},"namespaceType":{quoted(entry.namespace_type)},'
        f'"name":{quoted(entry.name)},"shortDescription":{quoted(entry.short_description)},'
        f'"visibility":{quoted(entry.visibility)},"scanOnPush":{_bool(entry.scan_on_push)},'
        f'"immutableTags":{_bool(entry.immutable_tags)},"enableManifestLists":{_bool(entry.enable_manifest_lists)},'
        f'"pulls":{entry.pulls},"pushes":{entry.pushes},"tagLimit":{entry.tag_limit}}}'
    )


def tag_json(entry: TagEntry, *, manifests: bool, cosign: bool) -> str:
    """Write a tag as one element of the list; `manifests` adds what makes a manifest heavy."""
    digest, media_type = quoted(entry.digest), quoted(entry.media_type)
    author, created_at = quoted(entry.author), quoted(entry.created_at)
    heavy = (
        f',"configMediaType":"application/vnd.docker.container.image.v1+json","configDigest":{digest},"os":"linux",'
        f'"architecture":"amd64","author":{author},"createdAt":{created_at},"pushedAt":{quoted(entry.updated_at)},'
        f'"layers":[{{"digest":{digest},"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip",'
        f'"size":{entry.size}}}],"dockerfile":[{{"line":"FROM scratch","isEmpty":false,"layerDigest":{digest}}}]'
        if manifests
        else ""
    )
    signed_by_cosign = f',"cosignSigned":{_bool(entry.cosign_signed)}' if cosign else ""
    return (
        f'{{"name":{quoted(entry.name)},"digest":{digest},"author":{author},"updatedAt":{quoted(entry.updated_at)},'
        f'"createdAt":{created_at},"hashMismatch":{_bool(entry.hash_mismatch)},"inNotary":{_bool(entry.in_notary)},'
        f'"manifest":{{"digest":{digest},"mediaType":{media_type},"size":{entry.size}{heavy}}}{signed_by_cosign}}}'
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"
