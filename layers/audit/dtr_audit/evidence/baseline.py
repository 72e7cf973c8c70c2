"""The customer's own checklist, with our answer put into it and nothing else touched.

Teams that upload a checklist as a whole have no use for a file with one rule. Theirs is not read into objects and written
anew, which would lose comments, order, CDATA and whatever its maker knows and we do not: the places of a few texts are found in
its bytes, and those texts are exchanged.

Whoever may write to the bucket may write anything there. So a document is bounded before it is parsed, and what cannot be
changed with certainty is refused by `read`, before the run is closed; `Baseline.merge` then has nothing left to refuse.
"""

import json
from dataclasses import replace

from dtr_audit.core.model import RULE_ID
from dtr_audit.core.stig import load_release, release_names
from dtr_audit.errors import EvidenceError
from dtr_audit.evidence.ckl_reader import Baseline, Wanted, read_ckl
from dtr_audit.evidence.cklb_reader import UTF8_MARK, read_cklb

SIZE_LIMIT = 8 * 1024 * 1024  # bytes; a rule takes about 10 KiB

_UTF16_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def read(document: bytes, *, neighbours: bool = False) -> Baseline:
    """Read a .ckl or .cklb and find V-235846 in it, with `neighbours` also the other rules that can be answered.

    It may be of any known release, whatever the asset's is. Raises EvidenceError, which names the remedy, for a document that is
    none of both, too large, hostile, without the rule, or with one that cannot be answered without doubt.
    """
    if len(document) > SIZE_LIMIT:
        raise EvidenceError(
            f"it is larger than {SIZE_LIMIT // 2**20} MiB: give the checklist with {RULE_ID} a file of its own"
        )
    utf16 = _detect_utf16(document)
    if utf16:
        try:
            document = document.decode(utf16).encode()
        except UnicodeDecodeError as error:
            raise EvidenceError("it begins as UTF-16 does, and goes on otherwise: save it as UTF-8") from error
    if b"\0" in document:
        raise EvidenceError("it is written in UTF-32, or is no text: save it as UTF-8")
    wanted = Wanted(neighbours=neighbours)
    begin = document.removeprefix(UTF8_MARK).lstrip()[:1]
    if begin == b"<":
        baseline = read_ckl(document, wanted, is_utf16=bool(utf16))
    elif begin == b"{":
        baseline = read_cklb(document, wanted)
    else:
        raise EvidenceError(
            "it is neither a .ckl nor a .cklb, since it begins neither with '<' nor with '{': export the checklist from STIG Viewer"
        )
    if all(rule.group_id != RULE_ID for rule in baseline.rules):
        raise EvidenceError(
            f"it has no rule {RULE_ID}, so there is nothing to answer in it: take the checklist of "
            f"{load_release(release_names()[0]).title}"
        )
    return replace(baseline, _utf16=utf16)


def _detect_utf16(document: bytes) -> str:
    """Give the encoding of a document in UTF-16, with or without a mark at its beginning; '' for any other."""
    detected = _UTF16_MARKS.get(document[:2]) or json.detect_encoding(document)
    return detected if detected in _UTF16_MARKS.values() else ""


# .ckl


# .cklb
