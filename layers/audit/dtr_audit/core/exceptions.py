"""Exceptions to the rule: who answers for which unsigned images, why, and until when.

They stand in one document in the bucket, `policy/exceptions.json`, which people keep and S3 versions:

    {"exceptions": [{"id": "EX-7", "namespace": "legacy", "repository": "*", "tag": "*", "owner": "j.doe@example.mil",
                     "reason": "vendor image, replacement under way", "reference": "POA&M 2026-14", "ends": "2027-03-31"}]}

An excepted finding stays a finding. Whatever is wrong with the document, all of it then excepts nothing.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from dtr_audit.core.documents import read_json
from dtr_audit.core.finding import Excepted
from dtr_audit.core.model import Repository
from dtr_audit.core.text import clean
from dtr_audit.errors import ExceptionsError

KEY = "policy/exceptions.json"
DOCUMENT_BYTES = 1_000_000
EXCEPTIONS = 1_000
PATTERN_LENGTH = 256
OWNER_LENGTH = 128  # of a reference too
REASON_LENGTH = 400
FAULTS_NAMED = 5
PROBLEM_LENGTH = 1_600
ENDED_NAMED = 10
WARNING_DAYS = 7  # before its end an exception is spoken of again

# Why a finding is under an exception no more.
ENDED = "exception ended"
WITHDRAWN = "exception withdrawn"
UNFIT = "exception no longer fits"


_NEEDED = ("id", "namespace", "repository", "tag", "owner", "reason", "ends")
_OPTIONAL = ("digest", "reference")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATTERN = re.compile(
    rf"[^\s/\\\[\]:;|=,+<>'\"]{{1,{PATTERN_LENGTH}}}"  # what LDAP lets an account's name hold, and '*' and '?'
)
_TAG_PATTERN = re.compile(rf"[A-Za-z0-9._*?-]{{1,{PATTERN_LENGTH}}}")
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,128}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_REPOSITORIES_REMEMBERED = 1_024


@dataclass(frozen=True, slots=True)
class PolicyException:
    """One exception: who answers for it, and which tags it means.

    In a pattern `*` stands for any text, the empty one too, and `?` for one character; a pattern fits the whole name.
    """

    excepted: Excepted
    namespace: str
    repository: str
    tag: str
    digest: str = ""  # '': whatever the tag holds

    def holds_on(self, day: date) -> bool:
        """Tell whether the exception holds on a day, in UTC; the last one counts."""
        return day.isoformat() <= self.excepted.ends


@dataclass(frozen=True, slots=True)
class _Matcher:
    exception: PolicyException
    namespace: re.Pattern[str]
    repository: re.Pattern[str]
    tag: re.Pattern[str]


class Exceptions:
    """The exceptions of one document, on the day of a run."""

    def __init__(self, exceptions: Iterable[PolicyException] = (), *, day: date, version_id: str = "") -> None:
        """Prepare; `version_id` is what S3 calls this version of the document."""
        self.version_id = version_id
        self._day = day
        # The one that holds longest speaks for a tag: so they are in that order.
        known = sorted(exceptions, key=lambda one: one.excepted.exception_id)
        known.sort(key=lambda one: one.excepted.ends, reverse=True)
        self.active = tuple(one.excepted for one in known if one.holds_on(day))
        self.ended = tuple(one.excepted for one in reversed(known) if not one.holds_on(day))
        self._matchers = tuple(
            _Matcher(one, _compile(one.namespace), _compile(one.repository), _compile(one.tag))
            for one in known
            if one.holds_on(day)
        )
        self._active_ids = {one.exception_id for one in self.active}
        self._ended_ids = {one.exception_id for one in self.ended}
        self._in_namespace = lru_cache(_REPOSITORIES_REMEMBERED)(self._select_for_namespace)
        self._in_repository = lru_cache(_REPOSITORIES_REMEMBERED)(self._select_for_repository)

    def of(self, repository: Repository, tag: str, digest: str) -> Excepted | None:
        """Find the exception that covers a tag which is a finding."""
        for matcher in self._in_repository(repository):
            if matcher.exception.digest in {"", digest} and matcher.tag.match(tag):
                return matcher.exception.excepted
        return None

    def ends_soon(self, excepted: Excepted) -> bool:
        """Tell whether an exception that holds does so for a week at most."""
        return (date.fromisoformat(excepted.ends) - self._day).days <= WARNING_DAYS

    def explain_end(self, excepted: Excepted) -> str:
        """Say why an exception covers a finding no more."""
        if excepted.ends < self._day.isoformat() or excepted.exception_id in self._ended_ids:
            return ENDED
        return UNFIT if excepted.exception_id in self._active_ids else WITHDRAWN

    def _select_for_namespace(self, namespace: str) -> tuple[_Matcher, ...]:
        return tuple(one for one in self._matchers if one.namespace.match(namespace))

    def _select_for_repository(self, repository: Repository) -> tuple[_Matcher, ...]:
        of_namespace = self._in_namespace(repository.namespace)
        return tuple(one for one in of_namespace if one.repository.match(repository.name))


@dataclass(frozen=True, slots=True)
class ExceptionsDocument:
    """The document as it lies in the bucket; `content` is None where there is none."""

    content: bytes | None = None
    version_id: str = ""  # that S3 gave it

    def open(self, day: date) -> Exceptions:
        """Give its exceptions on a day; raises ExceptionsError saying what is wrong, the same for the same fault."""
        entries = [] if self.content is None else parse_exceptions(self.content)
        return Exceptions(entries, day=day, version_id=self.version_id)


def parse_exceptions(document: bytes) -> list[PolicyException]:
    """Read the document's JSON; raises ExceptionsError that names the first faults, each with its JSON path."""
    content = read_json(document, KEY, limit=DOCUMENT_BYTES, error=ExceptionsError)
    if not isinstance(content, dict) or set(content) != {"exceptions"} or not isinstance(content["exceptions"], list):
        raise ExceptionsError(f'{KEY}: $: {{"exceptions": […]}} is needed, and no other key')
    entries = content["exceptions"]
    if len(entries) > EXCEPTIONS:
        raise ExceptionsError(f"{KEY}: $.exceptions: {len(entries)} entries; {EXCEPTIONS} are the most")
    faults: list[str] = []
    parsed = [_parse(entry, f"$.exceptions[{number}]", faults) for number, entry in enumerate(entries)]
    seen: dict[str, int] = {}
    for number, one in enumerate(parsed):
        if one is not None and seen.setdefault(one.excepted.exception_id, number) != number:
            first = seen[one.excepted.exception_id]
            faults.append(
                f"$.exceptions[{number}].id: {one.excepted.exception_id} is that of $.exceptions[{first}] too"
            )
    if faults:
        more = f"; and {len(faults) - FAULTS_NAMED} more" if len(faults) > FAULTS_NAMED else ""
        raise ExceptionsError(f"{KEY}: {'; '.join(faults[:FAULTS_NAMED])}{more}")
    return [one for one in parsed if one is not None]


def _parse(entry: object, where: str, faults: list[str]) -> PolicyException | None:
    """Read one entry; None where it has faults, which are added to the others."""
    if not isinstance(entry, dict):
        faults.append(f"{where}: an object is needed")
        return None
    before = len(faults)
    faults += [f"{where}.{key}: it is missing" for key in _NEEDED if key not in entry]
    known = (*_NEEDED, *_OPTIONAL)
    faults += [f"{where}: '{clean(key, 64)}' is no key of an exception" for key in entry if key not in known]
    pattern = (
        f"1 to {PATTERN_LENGTH} characters that names hold, with '*' and '?' for what varies, are needed: no blank, and none of "
        "/ \\ [ ] : ; | = , + < > ' \""
    )
    tag = f"1 to {PATTERN_LENGTH} letters, digits, '.', '_', '-', and '*' and '?' for what varies, are needed"
    name = f"a text of 1 to {OWNER_LENGTH} characters is needed"
    wanted = {
        "id": (_is_like(entry, "id", _ID), "1 to 64 letters, digits, '.', '_' and '-' are needed"),
        **{
            key: (_is_like(entry, key, _PATTERN) and entry[key].isprintable(), pattern)
            for key in ("namespace", "repository")
        },
        "tag": (_is_like(entry, "tag", _TAG_PATTERN), tag),
        "owner": (_is_sentence(entry, "owner", OWNER_LENGTH), name),
        "reason": (
            _is_sentence(entry, "reason", REASON_LENGTH),
            f"a text of 1 to {REASON_LENGTH} characters is needed",
        ),
        "ends": (_is_day(entry.get("ends")), "the last day on which it holds is needed, such as 2027-03-31"),
        "digest": (_is_like(entry, "digest", _DIGEST), "a whole digest is needed, such as sha256:… with 64 digits"),
        "reference": (_is_sentence(entry, "reference", OWNER_LENGTH), name),
    }
    faults += [f"{where}.{key}: {text}" for key, (is_right, text) in wanted.items() if key in entry and not is_right]
    if len(faults) > before:
        return None
    return PolicyException(
        excepted=Excepted(
            exception_id=entry["id"],
            owner=clean(entry["owner"].strip(), OWNER_LENGTH),
            reason=clean(entry["reason"].strip(), REASON_LENGTH),
            reference=clean(entry.get("reference", "").strip(), OWNER_LENGTH),
            ends=entry["ends"],
        ),
        namespace=entry["namespace"],
        repository=entry["repository"],
        tag=entry["tag"],
        digest=entry.get("digest", ""),
    )


def _is_like(entry: Mapping[str, Any], key: str, form: re.Pattern[str]) -> bool:
    value = entry.get(key)
    return isinstance(value, str) and form.fullmatch(value) is not None


def _is_sentence(entry: Mapping[str, Any], key: str, length: int) -> bool:
    value = entry.get(key)
    return isinstance(value, str) and bool(value.strip()) and len(value) <= length


def _is_day(value: object) -> bool:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _compile(pattern: str) -> re.Pattern[str]:
    # Its expressions for several '*' do not go back, so a hostile pattern costs no more than another.
    return re.compile(fnmatch.translate(pattern))
