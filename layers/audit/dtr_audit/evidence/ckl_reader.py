"""Where the answers of a customer's .ckl stand."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from dtr_audit.core.model import RULE_ID, iso
from dtr_audit.core.run_record import Status
from dtr_audit.core.stig import load_release, release_names
from dtr_audit.core.text import clean
from dtr_audit.errors import EvidenceError
from dtr_audit.evidence import ckl
from dtr_audit.evidence.checklist import Answer, answer_rules, keep_comment
from dtr_audit.evidence.report import Report
from dtr_audit.evidence.xmltext import escape

PART_LIMIT = 250_000  # tags and attributes, or values of JSON, as the signs before them count; a rule has some 200
DEPTH_LIMIT = 64  # elements in one another; a checklist has 6
_NAME_LENGTH = 64  # of what an error quotes
# Evaluate-STIG notes in a checklist which answers are its own; importers take the note for the origin of the answer beside it.
_PROVENANCE = "<Evaluate-STIG"  # begins its comments in a .ckl


@dataclass(frozen=True, slots=True)
class Slot:
    """A text of a rule: the bytes that hold it, and what must stand around another one in their place."""

    start: int
    end: int
    text: str
    before: bytes = b""
    after: bytes = b""


@dataclass(frozen=True, slots=True)
class AnsweredRule:
    """A rule of the baseline that is answered by the audit, with its texts by the names they have here."""

    group_id: str
    slots: Mapping[str, Slot]  # status, details, comments; written, where it has one
    origins: tuple[Slot, ...] = ()  # what says that another tool gave the answer, with what takes its place


@dataclass(frozen=True, slots=True)
class Baseline:
    """A checklist that can be answered."""

    file_name: str  # of what comes out
    content_type: str
    rules: tuple[AnsweredRule, ...]
    _document: bytes
    _statuses: Mapping[Status, str]
    _encode: Callable[[str], bytes]
    warnings: tuple[str, ...] = ()  # of what is kept, and misleads
    _utf16: str = ""  # the encoding of the file, where it is not that of the document here

    def merge(self, report: Report, *, neighbours: bool = False) -> bytes:
        """Put the run's answers in; a rule that the run has no answer to stays as it is.

        A comment that stands there is kept, and ours put below it. Raises EvidenceError for a partial run, and for an asset that
        checklists do not know.
        """
        answers = {answer.rule.group_id: answer for answer in answer_rules(report, neighbours=neighbours)}
        written = iso(report.run.finished_at)
        changes: list[tuple[Slot, bytes]] = []
        for rule in self.rules:
            if answer := answers.get(rule.group_id):
                texts = self._texts(rule, answer) | {"written": written}
                changes += [(slot, self._encode(texts[name])) for name, slot in rule.slots.items()]
                changes += [(slot, b"") for slot in rule.origins]
        parts: list[bytes] = []
        at = 0
        for slot, content in sorted(changes, key=lambda change: change[0].start):
            parts += [self._document[at : slot.start], slot.before, content, slot.after]
            at = slot.end
        merged = b"".join([*parts, self._document[at:]])
        return merged.decode().encode(self._utf16) if self._utf16 else merged

    def _texts(self, rule: AnsweredRule, answer: Answer) -> dict[str, str]:
        return {
            "status": self._statuses[answer.status],
            "details": answer.details,
            "comments": keep_comment(rule.slots["comments"].text, answer.comments),
        }


def warn_of_origin(count: int) -> tuple[str, ...]:
    """Warn of notes that are kept since they speak for the whole file, or for a whole STIG in it."""
    if not count:
        return ()
    notes = "a note of Evaluate-STIG" if count == 1 else f"{count} notes of Evaluate-STIG"
    return (
        f"it has {notes} outside its rules, kept as it was written. Importers take it for the origin of every answer in the file, "
        f"of {RULE_ID} too: remove it if that is not meant",
    )


def count_parts(document: bytes, signs: bytes) -> None:
    """Refuse what a parser would make too much of; `signs` are those of which one stands before each part."""
    if sum(document.count(sign) for sign in signs) > PART_LIMIT:
        raise EvidenceError(
            f"it has more than {PART_LIMIT} parts, which no checklist has: export it from STIG Viewer anew"
        )


class Wanted:
    """The rules that are answered, by the ids that a baseline may have them under."""

    def __init__(self, *, neighbours: bool) -> None:
        # Some writers have ids in lower case, so they are compared without regard to it.
        self._groups: dict[str, str] = {}  # by rule id
        self._known: dict[str, set[str]] = {}  # the rule ids by group
        self._first: dict[str, str] = {}  # the groups by the ids of the STIG's first version
        for name in release_names():
            for group_id, rule in load_release(name).rules.items():
                if neighbours or group_id == RULE_ID:
                    self._groups[rule.rule_id.upper()] = group_id
                    self._known.setdefault(group_id, set()).add(rule.rule_id)
                    self._first |= dict.fromkeys(rule.legacy_ids, group_id)

    def recognise(self, group_id: str, rule_id: str) -> str:
        """Give the group of a rule that is to be answered, '' for any other.

        Raises EvidenceError for one that asks for something that is not known here.
        """
        group_id, folded = group_id.upper(), rule_id.upper()
        if folded in self._groups:
            return self._groups[folded]
        for old in (group_id, folded.partition("R")[0]):
            if old in self._first:
                raise EvidenceError(
                    f"it has {self._first[old]} by the id {old} of the STIG's first version: make it anew from "
                    f"{' or '.join(release_names())}"
                )
        if group_id in self._known:
            known = ", ".join(sorted(self._known[group_id]))
            raise EvidenceError(
                f"it has {group_id} as {clean(rule_id, _NAME_LENGTH)!r}, which is not known here. What that asks for may have "
                f"changed, so it is not answered; known are {known} ({' and '.join(release_names())})"
            )
        return ""


@dataclass(slots=True)
class ArtifactUrls:
    """What was found in a rule, by our names for its texts."""

    slots: dict[str, Slot] = field(default_factory=dict)
    twice: set[str] = field(default_factory=set)  # of these it is not certain which one counts
    origins: list[Slot] = field(default_factory=list)


class Rules:
    """The rules found so far that are to be answered; refuses what leaves a doubt."""

    def __init__(self, wanted: Wanted) -> None:
        self.found: list[AnsweredRule] = []
        self.without_source = 0  # of them; STIG Manager knows a rule by its `rule_id_src` alone
        self._wanted = wanted
        self._in_stig: set[str] = set()

    def begin_stig(self) -> None:
        """Begin with the next STIG of the checklist."""
        self._in_stig.clear()

    def take(
        self,
        group_id: str,
        rule_id: str,
        locations: ArtifactUrls,
        needed: Mapping[str, str],
        *,
        has_source: bool = True,
    ) -> None:
        """Take a rule with what was found in it; `needed` is what its texts are called there, by our names for them."""
        group = self._wanted.recognise(group_id, rule_id)
        if not group:
            return
        if group in self._in_stig:
            raise EvidenceError(
                f"it has {group} twice in one STIG, and importers take either: remove one of them in STIG Viewer"
            )
        self._in_stig.add(group)
        slots, twice = locations.slots, locations.twice
        faulty = sorted(theirs for ours, theirs in needed.items() if ours not in slots or ours in twice)
        if faulty:
            raise EvidenceError(
                f"its {group} does not have {', '.join(faulty)} exactly once and as a text, as every checklist has: open and "
                "save it in STIG Viewer"
            )
        self.found.append(AnsweredRule(group, slots, tuple(locations.origins)))
        self.without_source += not has_source


# In these a byte that looks like ASCII is ASCII, so that tags can be found in the bytes.
_ENCODINGS = ("utf-8", "us-ascii", "iso-8859-1", "windows-1252")
_START_TAG = re.compile(rb"""<([^\s/>]+)(?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*(/?)>""")
_CKL_TEXTS = {"STATUS": "status", "FINDING_DETAILS": "details", "COMMENTS": "comments"}


@dataclass(slots=True)
class _Vuln(ArtifactUrls):
    """The rule of a .ckl that is being read."""

    attributes: dict[str, str] = field(default_factory=dict)
    start: int = 0  # of the tag of the text that is being read


class _CklReader:
    """Finds the rules of a .ckl and the places of their texts; keeps nothing else."""

    def __init__(self, document: bytes, rules: Rules, *, is_utf16: bool) -> None:
        """Prepare; `is_utf16` says that the document was in UTF-16: what it declares then no longer holds."""
        self.encoding = "utf-8"
        self.origins = 0  # that speak for more than one rule
        self._is_utf16 = is_utf16
        self._document = document
        self._rules = rules
        self._vuln = _Vuln()
        self._path: list[str] = []
        self._text: list[str] = []
        self._attribute = ""
        self._parser = expat.ParserCreate("utf-8" if is_utf16 else None)
        self._parser.buffer_text = True
        self._parser.XmlDeclHandler = self._declare
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append
        self._parser.CommentHandler = self._comment

    def read(self) -> None:
        """Read the whole document; raises EvidenceError if it is no .ckl, or hostile."""
        try:
            self._parser.Parse(self._document, True)
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise EvidenceError(
                f"it cannot be read as XML ({clean(str(error), 120)}): export it from STIG Viewer anew"
            ) from error

    def _declare(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if self._is_utf16:
            return
        self.encoding = (encoding or "utf-8").lower()
        if self.encoding not in _ENCODINGS:
            raise EvidenceError(f"it is written in {clean(encoding, _NAME_LENGTH)!r}: save it as UTF-8")

    def _refuse(self, *_doctype: object) -> None:
        raise EvidenceError(
            "it has a document type declaration, which no .ckl has, and entities are not followed: export it from STIG Viewer anew"
        )

    def _comment(self, text: str) -> None:
        if not text.lstrip().startswith(_PROVENANCE):
            return
        if self._path[1:4] != ["STIGS", "iSTIG", "VULN"]:
            self.origins += 1
        elif len(self._path) < 5 or self._path[4] not in _CKL_TEXTS:  # what stands in those goes with them
            start = self._parser.CurrentByteIndex
            self._vuln.origins.append(Slot(start, self._document.index(b"-->", start) + len(b"-->"), ""))

    def _start(self, name: str, _attributes: object) -> None:
        self._path.append(name.rpartition(":")[2])
        self._text.clear()
        if self._path[0] != "CHECKLIST":
            raise EvidenceError(
                f"it is XML but no .ckl, its outermost element is {clean(name, _NAME_LENGTH)!r} and not 'CHECKLIST': export it "
                "from STIG Viewer as a checklist"
            )
        if len(self._path) > DEPTH_LIMIT:
            raise EvidenceError(
                f"it has more than {DEPTH_LIMIT} elements in one another, which no .ckl has: export it from STIG Viewer anew"
            )
        match self._path[1:]:
            case ["STIGS", "iSTIG"]:
                self._rules.begin_stig()
            case ["STIGS", "iSTIG", "VULN"]:
                self._vuln = _Vuln()
            case ["STIGS", "iSTIG", "VULN", child] if child in _CKL_TEXTS:
                self._vuln.start = self._parser.CurrentByteIndex
            case ["STIGS", "iSTIG", "VULN", child, _] if child in _CKL_TEXTS:
                # What stands there would be lost, so it is no text to put another in the place of.
                self._vuln.twice.add(_CKL_TEXTS[child])

    def _end(self, _name: str) -> None:
        text = "".join(self._text)
        self._text.clear()
        vuln = self._vuln
        match self._path[1:]:
            case ["STIGS", "iSTIG", "VULN"]:
                group_id, rule_id = vuln.attributes.get("Vuln_Num", ""), vuln.attributes.get("Rule_ID", "")
                needed = {ours: theirs for theirs, ours in _CKL_TEXTS.items()}
                self._rules.take(group_id, rule_id, vuln, needed)
            case ["STIGS", "iSTIG", "VULN", "STIG_DATA", "VULN_ATTRIBUTE"]:
                self._attribute = text.strip()
            case ["STIGS", "iSTIG", "VULN", "STIG_DATA", "ATTRIBUTE_DATA"]:
                if self._attribute in {"Vuln_Num", "Rule_ID"}:
                    vuln.attributes.setdefault(self._attribute, text.strip())
            case ["STIGS", "iSTIG", "VULN", child] if child in _CKL_TEXTS:
                name = _CKL_TEXTS[child]
                if name in vuln.slots:
                    vuln.twice.add(name)
                vuln.slots[name] = self._slot(text)
        self._path.pop()

    def _slot(self, text: str) -> Slot:
        """Find the content of the element that ends here; one that is empty gets an end tag with its text."""
        start = self._vuln.start
        tag = _START_TAG.match(self._document, start)
        if tag is None:
            raise EvidenceError(
                "its tags are not where XML has them: save it as UTF-8"
            )  # pragma: no cover - the parser has just read one there
        if tag[2]:
            return Slot(start, tag.end(), text, self._document[start : tag.start(2)] + b">", b"</" + tag[1] + b">")
        return Slot(tag.end(), self._parser.CurrentByteIndex, text)


def read_ckl(document: bytes, wanted: Wanted, *, is_utf16: bool) -> Baseline:
    """Find where the answers of a .ckl stand; raises EvidenceError."""
    count_parts(document, b"<=")
    rules = Rules(wanted)
    reader = _CklReader(document, rules, is_utf16=is_utf16)
    reader.read()

    def encode(text: str) -> bytes:
        return escape(text).encode(reader.encoding, "xmlcharrefreplace")

    return Baseline(
        "checklist-merged.ckl",
        "application/xml",
        tuple(rules.found),
        document,
        ckl.STATUSES,
        encode,
        warn_of_origin(reader.origins),
    )
