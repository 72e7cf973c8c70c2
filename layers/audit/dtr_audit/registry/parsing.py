"""The lists of the registry's API, parsed entry by entry."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import quote

from dtr_audit.core.model import Repository, Tag, TrustFlags, is_name
from dtr_audit.core.readings import TagReading
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.text import clean
from dtr_audit.errors import (
    RegistryError,
)
from dtr_audit.http.memory_budget import Charge

MISCOUNT_REMEDY = (
    "If the next audit says the same, no push explains it, and the registry's index is wrong. Compare X-Resource-Count of each "
    "replica by hand. Restart or replace the one that differs, or ask the vendor's support to have the index rebuilt"
)
TAGS_TOGETHER = 1_000  # searched for secrets at once
MALFORMED_ENTRIES = 1_000  # of a page of tags; with more the rest is not looked at
AUTHOR_LENGTH = 128
DIGEST_LENGTH = 160
MEDIA_TYPE_LENGTH = 128
TIME_LENGTH = 40
# Wider than DTR's own grammar on purpose: whatever is safe in a path is asked for.
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z0-9+._-]+:[A-Za-z0-9=_-]+")
_TIME = re.compile(r"[0-9T:.,+\-Z ]+")
ECHO = (
    "holds a password or a token of this audit, so it is neither shown nor used. Either the registry repeats what it is sent, or "
    "the password is a word that names are made of. Give the audit's account another password"
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, charged to the memory budget until it is released."""

    entries: list[Any]
    count: int | None  # what the registry says the whole list holds
    is_unpaged: bool  # the form of DTR 2.1 and older: the whole list at once, without a count
    charge: Charge

    def release(self) -> None:
        """Let go of the entries, which must not be held while something else is waited for."""
        self.entries.clear()
        self.charge.release()


def remove_secrets(reading: TagReading) -> None:
    """Take secrets out of what a registry says of tags; a tag whose name holds one is left out, and is the reading's problem."""
    rest = iter(tuple(reading.tags.values()))
    while tags := tuple(islice(rest, TAGS_TOGETHER)):
        repeated = {tag.author for tag in tags} | {tag.media_type for tag in tags}
        texts = [f"{tag.name}\n{tag.digest}\n{tag.pushed_at}" for tag in tags]
        if not REDACTOR.holds_secret("\n".join((*repeated, *texts))):
            continue  # nearly always
        for tag in tags:
            if REDACTOR.holds_secret(tag.name):
                del reading.tags[tag.name]
                reading.problem = reading.problem or f"the name of a tag {ECHO}"
            else:
                reading.tags[tag.name] = tag._replace(
                    digest=REDACTOR.redact(tag.digest),
                    author=REDACTOR.redact(tag.author),
                    pushed_at=REDACTOR.redact(tag.pushed_at),
                    media_type=REDACTOR.redact(tag.media_type),
                )


def parse_page(body: Any, headers: Mapping[str, str], key: str, path: str, charge: Charge) -> Page:
    """Parse one page of a list; raises RegistryError for what is none."""
    is_unpaged = False
    # Repositories come in an object; tags in a bare array, and up to DTR 2.1 in an object too.
    if isinstance(body, dict) and key in body:
        is_unpaged = key == "tags"
        body = body[key]
    elif key != "tags":
        raise RegistryError(f"GET {path}: the answer has no list of {key}")
    if body is None:
        body = []
    if not isinstance(body, list):
        raise RegistryError(f"GET {path}: the answer is not a list of {key}")
    text = headers.get("X-Resource-Count", "").strip()
    count = int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
    return Page(body, count, is_unpaged, charge)


def explain_count(what: str, counts: Collection[int | None], found: int, page_size: int) -> str:
    """Say how the registry's own counts, one a page of so many entries, disagree with what was found; '' if they agree."""
    if None in counts:
        return (
            f"the registry does not say how many {what} there are (X-Resource-Count is missing), so {found} cannot be shown to be "
            "all; does a proxy drop headers?"
        )
    if len(counts) != 1:
        # Something went while something else came: the sum may be right, and one of them still unread.
        return (
            f"the number of {what} changed while they were read, in two readings or more, the last with a page size of "
            f"{page_size}. Run the audit when less is pushed and deleted"
        )
    (count,) = counts
    if count != found:
        return (
            f"the registry counts {count} {what}, and {found} could be read, in two readings or more, the last with a page size of "
            f"{page_size}. {MISCOUNT_REMEDY}"
        )
    return ""


def quote_segments(repository: Repository) -> str:
    """Write a repository's name as two segments of a request's path."""
    return f"{quote(repository.namespace, safe='')}/{quote(repository.name, safe='')}"


def parse_repository(entry: Any) -> Repository | None:
    """Read one entry of the list; None for an unnamed one. Raises RegistryError for a name that cannot be asked for."""
    if not isinstance(entry, dict):
        raise RegistryError("an entry of the list of repositories is not an object")
    namespace, name = entry.get("namespace"), entry.get("name")
    if namespace is None or name is None or "" in (namespace, name):
        return None
    for part in (namespace, name):
        if not is_name(part):
            raise RegistryError(f"a repository has the name '{clean(part, 60)}', with which it cannot be asked for")
    if REDACTOR.holds_secret(f"{namespace}/{name}"):
        raise RegistryError(f"the name of a repository {ECHO}")
    return Repository(_keep_once(str(namespace)), str(name))


def add_tags(entries: list[Any], domain: str, tags: dict[str, Tag], contradicting: set[str]) -> str:
    """Add the entries of a page to `tags`, and the names of those that contradict an earlier one to `contradicting`.

    Gives what is wrong with one of the entries, '' if nothing is.
    """
    malformed = ""
    faults = 0
    for entry in entries:
        try:
            tag = parse_tag(entry, domain)
        except RegistryError as error:
            malformed = malformed or str(error)
            faults += 1
            if faults > MALFORMED_ENTRIES:
                raise RegistryError(malformed) from None
            continue
        listed = tags.setdefault(tag.name, tag)
        if listed is not tag and _holds(listed) != _holds(tag):
            contradicting.add(tag.name)
    return malformed


def parse_tag(entry: Any, domain: str) -> Tag:
    """Read one entry of the list; raises RegistryError for what is no tag."""
    if not isinstance(entry, dict):
        raise RegistryError("an entry of the list of tags is not an object")
    name = entry.get("name")
    if not isinstance(name, str) or not _TAG.fullmatch(name):
        raise RegistryError(f"a tag has the name '{clean(name, 60)}', which no registry allows")
    get = entry.get
    manifest = get("manifest")
    digest, media_type = get("digest"), None
    if isinstance(manifest, dict):
        digest = digest or manifest.get("digest")
        media_type = manifest.get("mediaType")
    pushed_at = get("updatedAt") or get("createdAt")
    author, in_notary, hash_mismatch = get("author"), get("inNotary"), get("hashMismatch")
    # In the order of Tag's fields: by name it costs half as much again, for each of a million.
    return Tag(
        name,
        # What the grammars let through needs no cleaning; what is longer than it may be was never let through.
        digest if isinstance(digest, str) and len(digest) <= DIGEST_LENGTH and _DIGEST.fullmatch(digest) else "",
        _text(author, AUTHOR_LENGTH) if author else "",
        pushed_at
        if isinstance(pushed_at, str) and len(pushed_at) <= TIME_LENGTH and _TIME.fullmatch(pushed_at)
        else "",
        _text(media_type, MEDIA_TYPE_LENGTH) if media_type else "",
        _flag(get("cosignSigned")),
        _flags(
            domain,
            in_notary if in_notary is True or in_notary is False else None,
            hash_mismatch if hash_mismatch is True or hash_mismatch is False else None,
        ),
    )


def _holds(tag: Tag) -> tuple[object, ...]:
    """Give what two entries for one tag must agree in."""
    return tag.digest, tag.media_type, tag.cosign_signed, tag.trust


def _flag(value: object) -> bool | None:
    return value if value is True or value is False else None


@lru_cache(maxsize=256)  # three by three of them under each domain, whatever the number of tags
def _flags(domain: str, in_notary: bool | None, hash_mismatch: bool | None) -> tuple[TrustFlags]:
    return (TrustFlags(domain, in_notary, hash_mismatch),)


def _text(value: object, length: int) -> str:
    """Clean a text that is the same for many tags, and keep it once for all of them."""
    return _clean_once(value, length) if isinstance(value, str) and len(value) <= length else clean(value, length)


_clean_once = lru_cache(maxsize=1024)(clean)
_keep_once = lru_cache(maxsize=1024)(str)  # equal texts become the same one
