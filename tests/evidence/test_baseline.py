"""A customer's checklist comes back with one rule answered, and is theirs in everything else, to the byte."""

import json
import re
import tracemalloc
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtr_audit.core.run_record import Scope, Status, SupportingFact
from dtr_audit.errors import EvidenceError
from dtr_audit.evidence import ckl, cklb
from dtr_audit.evidence.baseline import SIZE_LIMIT, read
from dtr_audit.evidence.checklist import answer_rules
from dtr_audit.evidence.ckl_reader import DEPTH_LIMIT, PART_LIMIT
from dtr_audit.evidence.report import Asset, Report
from tests.evidence.html_report import finding, report

MADE = report([finding(tag="<&>]]>\"'é\N{GRINNING FACE}")], excepted=[0])
(ANSWER,) = answer_rules(MADE)

# As no writer of ours would write it: tabs, comments, CDATA, attributes, prefixes, entities, a stylesheet, other rules.
CKL = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<?xml-stylesheet href="theirs.xsl"?>
<!--DISA STIG Viewer :: 2.17-->
<!--<Evaluate-STIG><version>1.2407</version></Evaluate-STIG>-->
<CHECKLIST xmlns:x="urn:theirs" x:made='by > "hand"'>
\t<ASSET><ROLE>None</ROLE><HOST_NAME>Caf&#233; &amp; Co</HOST_NAME></ASSET>
\t<STIGS><!-- VULN V-235846 -->
\t\t<iSTIG><STIG_INFO/>
\t\t\t<VULN>
\t\t\t\t<STIG_DATA><VULN_ATTRIBUTE>Vuln_Num</VULN_ATTRIBUTE><ATTRIBUTE_DATA>V-235845</ATTRIBUTE_DATA></STIG_DATA>
\t\t\t\t<STIG_DATA><VULN_ATTRIBUTE>Rule_ID</VULN_ATTRIBUTE><ATTRIBUTE_DATA>SV-235845r961677_rule</ATTRIBUTE_DATA></STIG_DATA>
\t\t\t\t<STIG_DATA><VULN_ATTRIBUTE>Rule_Title</VULN_ATTRIBUTE><ATTRIBUTE_DATA>not SV-235846r961740_rule</ATTRIBUTE_DATA></STIG_DATA>
\t\t\t\t<STATUS>Open</STATUS><FINDING_DETAILS><![CDATA[<VULN>]]></FINDING_DETAILS><COMMENTS/>
\t\t\t</VULN>
\t\t\t<VULN x:order="odd"><!--kept-->
\t\t\t\t<STIG_DATA><VULN_ATTRIBUTE>Vuln_Num</VULN_ATTRIBUTE><ATTRIBUTE_DATA>V-235846</ATTRIBUTE_DATA></STIG_DATA>
\t\t\t\t<STIG_DATA><VULN_ATTRIBUTE>Rule_ID</VULN_ATTRIBUTE><ATTRIBUTE_DATA> SV-235846r961740_rule
\t\t\t\t</ATTRIBUTE_DATA></STIG_DATA>
\t\t\t\t<STATUS x:y="a/>b" >Not_Reviewed</STATUS ><x:UNKNOWN>kept</x:UNKNOWN>
\t\t\t\t<FINDING_DETAILS><![CDATA[old ]]]]><![CDATA[> details]]></FINDING_DETAILS>
\t\t\t\t<COMMENTS>{comments}</COMMENTS>
\t\t\t\t<SEVERITY_OVERRIDE>low</SEVERITY_OVERRIDE><SEVERITY_JUSTIFICATION/>
\t\t\t</VULN>
\t\t</iSTIG>
\t</STIGS>
</CHECKLIST>
<!--the end-->
"""
THEIR_CKL = CKL.replace("{comments}", "Theirs: see <![CDATA[POA&M]]> &lt;7&gt;")

THEIR_CKLB = (
    '{ "title" :"Caf\\u00e9 \\ud83d","stigs":[{"rules":[]} ,7,{"stig_name":"rules","rules":[\n'
    '  {"group_id":"V-235845","rule_id_src":"SV-235845r961677_rule","status":"open","comments":"V-235846"},null,\n'
    '  {"group_id":"V-235846","status":"not_reviewed","extra":{"status":"open","n":1.50e+0},\n'
    '   "rule_id_src":"SV-235846r961740_rule","comments": "Theirs \\ud83d.",\n\t"finding_details" :"old","updatedAt":"then"}\n'
    ']}],\n"unknown":[1e400,-0.0,{}] }\r\n'
)


def merge(document: bytes, made: Report, *, neighbours: bool = False) -> bytes:
    return read(document, neighbours=neighbours).merge(made, neighbours=neighbours)


def texts_of(vuln: ET.Element) -> tuple[str | None, ...]:
    return tuple(vuln.findtext(name) for name in ("STATUS", "FINDING_DETAILS", "COMMENTS"))


def without(document: str, pattern: str) -> str:
    return re.sub(pattern, "", document, flags=re.DOTALL)


def test_a_ckl_is_changed_in_three_texts_and_in_no_other_byte() -> None:
    merged = merge(THEIR_CKL.encode(), MADE).decode()

    root = ET.fromstring(merged)  # noqa: S314 - our own text
    _, ours = root.iter("VULN")
    comment = f"Theirs: see POA&M <7>\n\n{ANSWER.comments}"
    assert texts_of(ours) == ("Open", ANSWER.details, comment)
    locations = r'(?<=order="odd">).*?(?=</VULN>)'
    assert without(merged, locations) == without(THEIR_CKL, locations)
    (before,), (after,) = (re.findall(locations, text, re.DOTALL) for text in (THEIR_CKL, merged))
    expected = before.replace(">Not_Reviewed<", ">Open<")
    for name in ("FINDING_DETAILS", "COMMENTS"):
        content = rf"(?<=<{name}>).*?(?=</{name}>)"
        after, expected = without(after, content), without(expected, content)
    assert after == expected


def test_a_cklb_is_changed_in_four_values_and_in_no_other_byte() -> None:
    merged = merge(THEIR_CKLB.encode(), MADE).decode()
    rule = json.loads(merged)["stigs"][2]["rules"][2]

    assert rule["status"] == "open"
    assert rule["finding_details"] == ANSWER.details
    assert rule["comments"] == f"Theirs \ud83d.\n\n{ANSWER.comments}"
    assert rule["updatedAt"] == "2026-11-22T05:04:15.000Z"
    expected = THEIR_CKLB
    for old, value in (
        ('"not_reviewed"', "open"),
        ('"old"', ANSWER.details),
        ('"Theirs \\ud83d."', f"Theirs \ud83d.\n\n{ANSWER.comments}"),
        ('"then"', "2026-11-22T05:04:15.000Z"),
    ):
        expected = expected.replace(old, json.dumps(value))
    assert merged == expected


@pytest.mark.parametrize("status", ["Open", "NotAFinding", "Not_Applicable", "Not_Reviewed"])
def test_what_a_person_has_entered_gives_way_in_status_and_details_and_nowhere_else(status: str) -> None:
    theirs = THEIR_CKL.replace(">Not_Reviewed<", f">{status}<").replace(
        "<SEVERITY_OVERRIDE>low</SEVERITY_OVERRIDE><SEVERITY_JUSTIFICATION/>",
        "<SEVERITY_OVERRIDE>high</SEVERITY_OVERRIDE><SEVERITY_JUSTIFICATION>ours &#38; <![CDATA[<his>]]>"
        "</SEVERITY_JUSTIFICATION>",
    )
    merged = merge(theirs.encode(), MADE).decode()

    assert merged == merge(THEIR_CKL.encode(), MADE).decode().replace(
        THEIR_CKL[THEIR_CKL.index("<SEVERITY_OVERRIDE>") :], theirs[theirs.index("<SEVERITY_OVERRIDE>") :]
    )
    *_, ours = ET.fromstring(merged).iter("VULN")  # noqa: S314 - our own text
    assert texts_of(ours)[0] == "Open"
    assert "old" not in (texts_of(ours)[1] or "")
    assert (ours.findtext("SEVERITY_OVERRIDE"), ours.findtext("SEVERITY_JUSTIFICATION")) == ("high", "ours & <his>")


def test_what_a_person_has_overridden_in_a_cklb_is_kept() -> None:
    overrides = '"overrides":{"severity":{"severity":"high","reason":"ours \\u0026 his"}},"status":"not_applicable"'
    theirs = THEIR_CKLB.replace('"status":"not_reviewed"', overrides)
    merged = merge(theirs.encode(), MADE).decode()

    assert merged == merge(THEIR_CKLB.encode(), MADE).decode().replace(
        '"status":"open","extra"', overrides.replace("not_applicable", "open") + ',"extra"'
    )


def test_a_text_that_a_cklb_has_as_null_is_filled() -> None:
    theirs = THEIR_CKLB.replace('"old"', "null").replace('"Theirs \\ud83d."', "null")
    rule = json.loads(merge(theirs.encode(), MADE))["stigs"][2]["rules"][2]

    assert (rule["finding_details"], rule["comments"]) == (ANSWER.details, ANSWER.comments)


@pytest.mark.parametrize("name", ["STATUS", "FINDING_DETAILS", "COMMENTS"])
def test_a_text_of_a_ckl_that_holds_elements_is_refused(name: str) -> None:
    at = THEIR_CKL.rindex(f"</{name}")
    assert f"does not have {name} exactly once and as a text" in refusal(THEIR_CKL[:at] + "<b>x</b>" + THEIR_CKL[at:])


@pytest.mark.parametrize("document", [THEIR_CKL.encode(), THEIR_CKLB.encode()], ids=["ckl", "cklb"])
def test_merging_twice_is_merging_once(document: bytes) -> None:
    once = merge(document, report())
    assert merge(once, report()) == once
    assert merge(merge(document, MADE), report()) == once


@pytest.mark.parametrize("rule_id", ["SV-235846r961740_rule", "SV-235846r627665_rule"])
@pytest.mark.parametrize("asset_release", ["V2R2", "V2R1"])
def test_the_baseline_s_release_need_not_be_the_asset_s(rule_id: str, asset_release: str) -> None:
    made = replace(MADE, asset=Asset("dtr", release=asset_release))

    for document in (THEIR_CKL, THEIR_CKLB):
        theirs = document.replace("SV-235846r961740_rule", rule_id)
        merged = merge(theirs.encode(), made).decode()
        assert rule_id in merged
        assert merged.count("SV-235846r") == theirs.count("SV-235846r")
        assert "OPEN: 1 of 818 image tags" in merged


@pytest.mark.parametrize("document", [THEIR_CKL, THEIR_CKLB], ids=["ckl", "cklb"])
def test_a_byte_order_mark_and_blank_lines_before_it_are_kept(document: str) -> None:
    mark = b"\xef\xbb\xbf"
    assert merge(mark + document.encode(), MADE) == mark + merge(document.encode(), MADE)
    bare = document.partition("?>\n")[2] if document.startswith("<?") else document
    assert merge(b"\r\n " + bare.encode(), MADE) == b"\r\n " + merge(bare.encode(), MADE)


def test_windows_line_ends_are_kept() -> None:
    merged = merge(THEIR_CKL.replace("\n", "\r\n").encode(), MADE)

    assert merged.startswith(b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n<?xml-stylesheet')
    assert merged.endswith(b"</CHECKLIST>\r\n<!--the end-->\r\n")


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "windows-1252", "US-ASCII"])
def test_a_ckl_in_another_encoding_stays_in_it(encoding: str) -> None:
    theirs = THEIR_CKL.replace("UTF-8", encoding).replace("Theirs", "Theirs &#8364;")
    document = theirs.encode(encoding)
    if encoding != "US-ASCII":
        document = document.replace(b"the end", b"the \xe9nd")
    merged = merge(document, MADE)

    assert merged.endswith(document[-30:])
    *_, ours = ET.fromstring(merged).iter("VULN")  # noqa: S314 - our own text
    assert texts_of(ours)[1] == ANSWER.details
    assert (texts_of(ours)[2] or "").startswith("Theirs \N{EURO SIGN}: see POA&M")


def test_empty_elements_are_opened_for_a_text() -> None:
    theirs = re.sub(r"<(COMMENTS|FINDING_DETAILS)>.*?</\1>", r"<\1 />", THEIR_CKL, flags=re.DOTALL)
    merged = merge(theirs.encode(), MADE)

    *_, ours = ET.fromstring(merged).iter("VULN")  # noqa: S314 - our own text
    assert texts_of(ours) == ("Open", ANSWER.details, ANSWER.comments)
    assert b"<COMMENTS >" in merged
    assert b"<SEVERITY_JUSTIFICATION/>" in merged


def test_every_stig_of_a_checklist_that_has_the_rule_is_answered() -> None:
    one = THEIR_CKL[THEIR_CKL.index("<iSTIG>") : THEIR_CKL.index("</iSTIG>") + 8]
    two = THEIR_CKL.replace(one, one + one.replace("r961740", "r627665"))
    merged = merge(two.encode(), MADE)

    statuses = [texts_of(vuln)[0] for vuln in ET.fromstring(merged).iter("VULN")]  # noqa: S314 - our own text
    assert statuses == ["Open"] * 4
    assert merged.count(b"OPEN: 1 of 818") == 2


@pytest.mark.parametrize("module", [ckl, cklb])
def test_neighbours_are_answered_where_the_baseline_has_them_and_only_when_asked(module: Any) -> None:
    known = report(facts=(SupportingFact("DTR: scanning is on", "yes", "V-235840", Status.NOT_A_FINDING),))
    more = (*known.run.facts, SupportingFact("DTR: repositories are made by a push", "yes", "V-235796", Status.OPEN))
    theirs = module.write(replace(known, asset=Asset("theirs")), neighbours=True)
    made = report([finding()], facts=more)

    kept = b"NOT A FINDING: as the product's own settings say"
    assert kept in merge(theirs.replace(kept, b"theirs"), made, neighbours=True)
    assert kept not in merge(theirs.replace(kept, b"theirs"), made)
    assert b"SV-235796" not in merge(theirs, made, neighbours=True)


@pytest.mark.parametrize("module", [ckl, cklb])
def test_a_neighbour_that_the_run_has_no_answer_to_stays_as_it_is(module: Any) -> None:
    fact = SupportingFact("DTR: scanning is on", "yes", "V-235840", Status.NOT_A_FINDING)
    theirs = module.write(report(facts=(fact,)), neighbours=True)
    assert merge(theirs, report(facts=()), neighbours=True) == merge(theirs, report(facts=()))


def refusal(document: bytes | str, made: Report = MADE) -> str:
    with pytest.raises(EvidenceError) as refused:
        merge(document.encode() if isinstance(document, str) else document, made)
    return str(refused.value)


def test_what_is_no_checklist_is_refused_and_named() -> None:
    assert "neither a .ckl nor a .cklb" in refusal(b"")
    assert "neither a .ckl nor a .cklb" in refusal(b"PK\x03\x04")
    assert "neither a .ckl nor a .cklb" in refusal("[]")
    assert "outermost element is 'Benchmark'" in refusal("<Benchmark/>")
    assert "cannot be read as XML (no element found: line 1" in refusal("<CHECKLIST>")
    assert "has no list 'stigs'" in refusal('{"stigs": {}}')
    assert "cannot be read as JSON in UTF-8 (line 2)" in refusal('{\n"stigs": [}')
    assert "cannot be read as JSON in UTF-8 (UnicodeDecodeError)" in refusal(b'{"stigs": ["\xff"]}')
    assert "'EBCDIC-CP-US': save it as UTF-8" in refusal(THEIR_CKL.replace("UTF-8", "EBCDIC-CP-US"))


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le"])
@pytest.mark.parametrize("document", [THEIR_CKL.partition("?>\n")[2], THEIR_CKLB], ids=["ckl", "cklb"])
def test_a_checklist_in_utf_32_is_refused(document: str, encoding: str) -> None:
    assert "save it as UTF-8" in refusal(document.encode(encoding, "replace"))


def test_a_document_that_only_begins_as_utf_16_is_refused() -> None:
    assert "goes on otherwise: save it as UTF-8" in refusal(b"\xff\xfe" + b"\x00\xd8" * 2)
    assert "or is no text" in refusal(THEIR_CKLB.replace("Theirs", "\0"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-16-be with a mark"])
@pytest.mark.parametrize("document", [THEIR_CKL.replace("UTF-8", "UTF-16"), THEIR_CKLB], ids=["ckl", "cklb"])
def test_a_checklist_in_utf_16_is_merged_and_stays_in_it(document: str, encoding: str) -> None:
    codec, _, marked = encoding.partition(" ")
    theirs = ("\ufeff" * bool(marked) + document).encode(codec)
    merged = merge(theirs, MADE)

    assert merged[:4] == theirs[:4]
    as_utf8 = merge(document.replace("UTF-16", "UTF-8").encode(), MADE).decode()
    assert merged.decode(codec).removeprefix("\ufeff") == as_utf8.replace("UTF-8", "UTF-16")


@pytest.mark.parametrize("document", [THEIR_CKL, THEIR_CKLB], ids=["ckl", "cklb"])
def test_a_checklist_with_ids_in_lower_case_is_merged_and_they_stay_so(document: str) -> None:
    def in_lower_case(text: str) -> str:
        return text.replace("SV-235846r", "sv-235846r").replace("V-235846", "v-235846")

    theirs = in_lower_case(document)
    assert merge(theirs.encode(), MADE).decode() == in_lower_case(merge(document.encode(), MADE).decode())
    assert "has V-235846 as 'sv-235846r999999_rule', which is not known here" in refusal(
        theirs.replace("sv-235846r961740", "sv-235846r999999")
    )


@pytest.mark.parametrize("rule_id", ["SV-235846r961740_rule", "SV-235846r961740"])
def test_a_cklb_without_rule_id_src_is_merged(rule_id: str) -> None:
    theirs = THEIR_CKLB.replace('"rule_id_src":"SV-235846r961740_rule"', f'"rule_id":"{rule_id}"')
    baseline = read(theirs.encode())

    assert baseline.merge(MADE).decode() == merge(THEIR_CKLB.encode(), MADE).decode().replace(
        '"rule_id_src":"SV-235846r961740_rule"', f'"rule_id":"{rule_id}"'
    )
    (warning,) = baseline.warnings
    assert "no rule_id_src, by which STIG Manager knows a rule: it imports no answer" in warning
    assert read(THEIR_CKLB.encode()).warnings == ()


@pytest.mark.parametrize("missing", [('"comments"',), ('"finding_details"',), ('"comments"', '"finding_details"')])
def test_a_cklb_without_a_text_that_would_be_empty_gets_it_and_nothing_else(missing: tuple[str, ...]) -> None:
    ours = THEIR_CKLB.index('{"group_id":"V-235846"')
    head, rule = THEIR_CKLB[:ours], THEIR_CKLB[ours:]
    for key in missing:
        rule = rule.replace(key, '"kept"' if key == '"comments"' else '"kept too"')
    merged = json.loads(merge((head + rule).encode(), MADE))
    place = merged["stigs"][2]["rules"][2]

    added = {key.strip('"'): place.pop(key.strip('"')) for key in missing}
    texts = {"comments": ANSWER.comments, "finding_details": ANSWER.details}
    assert added == {name: texts[name] for name in added}
    before = json.loads(head + rule)
    before["stigs"][2]["rules"][2].update(
        {key: place[key] for key in ("status", "updatedAt", "comments", "finding_details") if key in place}
    )
    assert merged == before


PROVENANCE = "<!--<Evaluate-STIG><time>2026-03-01</time><module><name>Scan</name></module></Evaluate-STIG>-->"


def test_notes_of_evaluate_stig_in_the_answered_rule_of_a_ckl_are_dropped_and_all_others_stay() -> None:
    plain = THEIR_CKL.replace("<!--<Evaluate-STIG><version>1.2407</version></Evaluate-STIG>-->\n", "")
    ours = plain.index("<VULN x:order")
    head, rule = plain[:ours], plain[ours:]
    in_others = head.replace("<VULN>", f"<VULN>{PROVENANCE}")
    noted = (
        rule.replace("<!--kept-->", f"{PROVENANCE}<!--kept-->")
        .replace("<STIG_DATA>", f"<STIG_DATA>{PROVENANCE}", 1)
        .replace("old ", f"]]>{PROVENANCE}<![CDATA[old ")
        .replace("<SEVERITY_OVERRIDE>", f"{PROVENANCE}<SEVERITY_OVERRIDE>")
    )
    assert noted.count(PROVENANCE) == 4

    assert merge((in_others + noted).encode(), MADE) == merge((in_others + rule).encode(), MADE)
    assert PROVENANCE.encode() in merge((in_others + noted).encode(), MADE)
    assert read((in_others + noted).encode()).warnings == ()


def test_notes_of_evaluate_stig_for_the_whole_ckl_or_a_stig_of_it_stay_and_are_warned_of() -> None:
    baseline = read(THEIR_CKL.encode())
    (warning,) = baseline.warnings
    assert warning.startswith("it has a note of Evaluate-STIG outside its rules, kept as it was written.")
    assert b"<Evaluate-STIG><version>1.2407" in baseline.merge(MADE)

    (warning,) = read(THEIR_CKL.replace("<iSTIG>", f"<iSTIG>{PROVENANCE}").encode()).warnings
    assert warning.startswith("it has 2 notes of Evaluate-STIG outside its rules")
    # Another tool's comment is no such note.
    assert read(THEIR_CKL.replace("<Evaluate-STIG", "<Other").encode()).warnings == ()


def test_notes_of_evaluate_stig_in_the_answered_rule_of_a_cklb_are_emptied_and_all_others_stay() -> None:
    note = '"evaluate-stig":{"old_status":"open","module":{"name":"Scan"}},'
    theirs = THEIR_CKLB.replace('"group_id"', f'{note}"group_id"').replace('"title"', f'{note}"title"')
    baseline = read(theirs.encode())
    merged = json.loads(baseline.merge(MADE))

    other, _, ours = merged["stigs"][2]["rules"]
    assert ours["evaluate-stig"] is None
    assert other["evaluate-stig"] == merged["evaluate-stig"] == {"old_status": "open", "module": {"name": "Scan"}}
    (warning,) = baseline.warnings
    assert "a note of Evaluate-STIG outside its rules" in warning


@pytest.mark.parametrize("document", [THEIR_CKL, THEIR_CKLB], ids=["ckl", "cklb"])
def test_a_checklist_without_the_rule_is_refused(document: str) -> None:
    other = document.replace("235846", "235844")

    assert "has no rule V-235846" in refusal(other)
    # Named in a text, it is not there.
    assert "has no rule V-235846" in refusal(other.replace("Theirs", "SV-235846r961740_rule"))


@pytest.mark.parametrize("document", [THEIR_CKL, THEIR_CKLB], ids=["ckl", "cklb"])
def test_a_version_of_the_rule_that_is_not_known_is_refused(document: str) -> None:
    fault = refusal(document.replace("SV-235846r961740", "SV-235846r999999"))

    assert "V-235846 as 'SV-235846r999999_rule', which is not known here" in fault
    assert "SV-235846r627665_rule, SV-235846r961740_rule (V2R2 and V2R1)" in fault


@pytest.mark.parametrize("document", [THEIR_CKL, THEIR_CKLB], ids=["ckl", "cklb"])
@pytest.mark.parametrize("rule_id", ["SV-104865r1_rule", "SV-104865r9_rule"])
def test_the_rule_of_the_stig_s_first_version_is_refused_by_its_old_id(document: str, rule_id: str) -> None:
    old = document.replace("SV-235846r961740_rule", rule_id)

    assert "V-235846 by the id V-95727 of the STIG's first version" in refusal(old.replace("V-235846", "V-95727"))
    assert "V-235846 by the id SV-104865 of the STIG's first version" in refusal(old.replace("V-235846", "V-1"))


def test_the_old_ids_that_a_release_of_today_names_besides_are_no_fault() -> None:
    for module in (ckl, cklb):
        theirs = module.write(report())
        assert b"V-95727" in theirs
        assert b"OPEN: 1 of 818" in merge(theirs, MADE)


@pytest.mark.parametrize("document", [THEIR_CKL, THEIR_CKLB], ids=["ckl", "cklb"])
@pytest.mark.parametrize("other_id", ["SV-235846r961740_rule", "SV-235846r627665_rule"])
def test_the_rule_twice_in_one_stig_is_refused(document: str, other_id: str) -> None:
    twice = document.replace("SV-235845r961677_rule", other_id).replace("V-235845", "V-235846")
    twice = twice.replace('"comments":"V-235846"}', '"comments":"","finding_details":""}')

    assert "has V-235846 twice in one STIG, and importers take either" in refusal(twice)


@pytest.mark.parametrize("name", ["STATUS", "FINDING_DETAILS", "COMMENTS"])
def test_a_ckl_whose_rule_has_a_text_twice_or_not_at_all_is_refused(name: str) -> None:
    ours = THEIR_CKL.index("<VULN x:order")
    head, rule = THEIR_CKL[:ours], THEIR_CKL[ours:]

    for faulty in (
        rule.replace(f"<{name}", "<X").replace(f"</{name}", "</X"),
        rule.replace("<x:UNK", f"<{name}/><x:UNK"),
    ):
        assert f"does not have {name} exactly once and as a text" in refusal(head + faulty)


@pytest.mark.parametrize("key", ["status", "finding_details", "comments"])
def test_a_cklb_whose_rule_has_a_key_twice_or_as_no_text_is_refused(key: str) -> None:
    ours = THEIR_CKLB.index('{"group_id":"V-235846"')
    head, rule = THEIR_CKLB[:ours], THEIR_CKLB[ours:]

    for faulty in (
        rule.replace('"extra"', f'"{key}":"","extra"'),
        rule.replace(f'"{key}"', '"x"').replace('"extra"', f'"{key}":7,"extra"'),
    ):
        assert f"does not have {key} exactly once and as a text" in refusal(head + faulty)


def test_a_cklb_whose_rule_has_no_status_is_refused() -> None:
    assert "does not have status exactly once" in refusal(THEIR_CKLB.replace('"status"', '"x"'))


# The billion laughs: each of nine entities is ten of the one before.
LAUGHS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "doctype",
    [
        f'<!DOCTYPE CHECKLIST [<!ENTITY e0 "ha">{LAUGHS}]>',
        '<!DOCTYPE CHECKLIST [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE CHECKLIST SYSTEM "https://example.com/x.dtd">',
        "<!DOCTYPE CHECKLIST>",
    ],
)
def test_a_document_type_and_with_it_every_entity_is_refused(doctype: str) -> None:
    hostile = THEIR_CKL.replace("<CHECKLIST", doctype + "<CHECKLIST").replace("Theirs", "&e9;")

    # A gigabyte of entities, once resolved, would run into the limit of pytest-timeout.
    assert "document type declaration" in refusal(hostile)


def test_an_entity_that_no_one_declared_is_refused() -> None:
    assert "undefined entity" in refusal(THEIR_CKL.replace("POA", "]]>&poa;<![CDATA["))


def test_nesting_without_end_is_refused() -> None:
    inner = "<a>" * DEPTH_LIMIT + "</a>" * DEPTH_LIMIT
    assert f"more than {DEPTH_LIMIT} elements in one another" in refusal(THEIR_CKL.replace("<STIG_INFO/>", inner))
    assert "RecursionError" in refusal('{"stigs":' + "[" * 200_000 + "]" * 200_000 + "}")


def test_parts_without_end_are_refused_before_anything_is_made_of_them() -> None:
    many = "<VULN/>" * PART_LIMIT
    assert f"more than {PART_LIMIT} parts" in refusal(THEIR_CKL.replace("<STIG_INFO/>", many))
    for part in ("{}", '""', '{"":{"":[]}}'):
        document = '{"stigs":[' + ",".join([part] * PART_LIMIT) + "]}"
        tracemalloc.start()
        try:
            assert f"more than {PART_LIMIT} parts" in refusal(document)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 3 * len(document)


def test_a_text_full_of_escapes_costs_no_more_than_another() -> None:
    theirs = THEIR_CKLB.replace('"title" :"', '"title" :"' + "\\n" * 1_000_000).encode()
    tracemalloc.start()
    try:
        merge(theirs, MADE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(theirs)


@pytest.mark.parametrize("padding", [b"<!--", b"{"])
def test_a_document_over_the_limit_is_not_even_parsed(padding: bytes) -> None:
    assert "larger than 8 MiB" in refusal(padding + b" " * (SIZE_LIMIT + 1 - len(padding)))


def test_a_large_checklist_is_merged() -> None:
    start, end = THEIR_CKL.index("<VULN>"), THEIR_CKL.index("</VULN>") + len("</VULN>")
    other = THEIR_CKL[start:end].replace("not SV", "\N{EURO SIGN} " * 2_500 + "not SV")
    # Parsed in many pieces: the places must still fit.
    large = (THEIR_CKL[:end] + other * 700 + THEIR_CKL[end:]).encode()

    merged = merge(large, MADE)
    assert 6 * 1024 * 1024 < len(large) <= SIZE_LIMIT
    assert len(merged) - len(large) == len(merge(THEIR_CKL.encode(), MADE)) - len(THEIR_CKL.encode())
    assert merged.startswith(large[: end + 6_000_000])


def test_no_fault_repeats_what_the_document_holds() -> None:
    secret = "hunter2hunter2"
    for document in (f'{{"stigs": "{secret}', f"<CHECKLIST>{secret}<", f'{{"stigs": "{secret}"}}'):
        assert secret not in refusal(document)


def test_a_partial_run_is_merged_into_nothing() -> None:
    assert "whole registry" in refusal(THEIR_CKL, report(scope=Scope.PARTIAL))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(
    others=st.dictionaries(st.sampled_from(["stigs_", "rules", "status", "a", 'é\\"']), JSON_VALUES, max_size=4),
    rule=st.dictionaries(st.sampled_from(["rules", "stigs", "x", "uuid", "ccis"]), JSON_VALUES, max_size=4),
    between=st.lists(JSON_VALUES.filter(lambda value: not isinstance(value, dict)), max_size=3),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3, "\t"]),
)
def test_any_else_a_cklb_holds_is_kept(
    others: dict[str, Any], rule: dict[str, Any], between: list[Any], *, ascii_only: bool, indent: int | str | None
) -> None:
    ours = {**rule, "rule_id_src": "SV-235846r961740_rule", "status": "open", "comments": "", "finding_details": ""}
    document = {**others, "stigs": [*between, {**others, "rules": [*between, ours, others]}]}
    written = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    theirs = written.encode("utf-8", "surrogatepass")

    merged = json.loads(merge(theirs, MADE))
    place = merged["stigs"][-1]["rules"][len(between)]
    assert (place["status"], place["finding_details"], place["comments"]) == ("open", ANSWER.details, ANSWER.comments)
    place.update(finding_details="", comments="")
    assert merged == document
