"""report.html as a file: what it says, and that nothing from outside can be more than text in it."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
import unicodedata
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dtr_audit import __version__
from dtr_audit.core.counts import RepositoryCounts, TagCounts
from dtr_audit.core.finding import Excepted, State
from dtr_audit.core.fix import fix_commands
from dtr_audit.core.manifest import StoredFile
from dtr_audit.core.model import Repository, Verdict, iso
from dtr_audit.core.run_record import Scope, Status, SupportingFact
from dtr_audit.core.stig import load_release
from dtr_audit.evidence import html
from dtr_audit.evidence.html.findings import FINDINGS_BYTES
from dtr_audit.evidence.html.markup import element
from dtr_audit.evidence.html.words import say_percent
from dtr_audit.evidence.report import Asset, Report
from tests.evidence.html_page import Node, read
from tests.evidence.html_report import (
    DOMAIN,
    FINISHED,
    HOSTILE_TEXTS,
    IMAGES,
    finding,
    findings,
    hostile_report,
    report,
    resolved,
    trend,
)

MEGABYTE = 1_000_000
STYLE_SHEET = (Path(html.__file__).with_name("report.css")).read_text(encoding="utf-8")

REPORTS: dict[str, Callable[[], Report]] = {
    "nothing found": report,
    "ten findings": lambda: report(findings(10), excepted=(1, 4), resolved=resolved(3)),
    "more than are listed": lambda: report(findings(300), left_out=99_700),
    "not complete": lambda: report(findings(3), incomplete_because=("no proof",), warnings=("it has shrunk",)),
    "not reviewed": lambda: report(incomplete_because=("no proof",), unknown=2),
    "empty": lambda: report(signed=0, artifacts=0),
    "the first run": lambda: report(findings(4), is_first=True),
    "a part": lambda: report(scope=Scope.PARTIAL),
    "hostile": hostile_report,
}


@pytest.fixture(params=REPORTS)
def page(request: pytest.FixtureRequest) -> Node:
    return read(html.write(REPORTS[request.param]()))


def listed(made: Report) -> str:
    """The words that a reader sees, spaces evened out."""
    return " ".join(read(html.write(made)).one("body").text.split())


# --- the form of the file ---


def test_the_same_report_gives_the_same_bytes() -> None:
    assert html.write(report(findings(30))) == html.write(report(findings(30)))


def test_the_bytes_do_not_depend_on_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    made = report([replace(finding(), pushed_at="2026-11-01T12:00:00")])
    contents = set()
    for zone in ("UTC", "Asia/Tokyo", "America/Denver"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        contents.add(html.write(made))
    monkeypatch.undo()
    time.tzset()
    assert len(contents) == 1
    assert b"2026-11-01 12:00" in contents.pop()


def test_the_policy_lets_in_the_very_styles_and_script_of_the_file_and_nothing_else(page: Node) -> None:
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    directives = {name: value for name, _, value in (part.strip().partition(" ") for part in policy.split(";"))}

    def hashes(tag: str) -> str:
        sums = (hashlib.sha256(node.text.encode()).digest() for node in page.all(tag))
        return " ".join(f"'sha256-{b64encode(one).decode()}'" for one in sums)

    assert directives == {
        "default-src": "'none'",
        "style-src": hashes("style"),
        "script-src": hashes("script"),
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert (len(page.all("style")), len(page.all("script"))) == (2, 1)


def test_the_policy_stands_before_any_it_has_to_govern(page: Node) -> None:
    tags = [node.tag for node in page.one("head").walk()]
    assert tags[:3] == ["head", "meta", "meta"]


def test_nothing_refers_to_anything_outside_the_file(page: Node) -> None:
    ids = [node.attributes["id"] for node in page.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    for node in page.walk():
        assert not node.attributes.keys() & {"src", "srcset", "style", "action", "formaction", "xlink:href", "data"}
        assert not [name for name in node.attributes if name.startswith("on")]
        if "href" in node.attributes:
            assert node.attributes["href"].startswith("#")
            assert node.attributes["href"][1:] in ids
        for name in ("aria-labelledby",):
            for referred in node.attributes.get(name, "").split():
                assert referred in ids
    for sheet in page.all("style"):
        assert "url(" not in sheet.text
        assert "@import" not in sheet.text


def test_the_page_can_be_walked_by_its_headings_and_tables(page: Node) -> None:
    levels = [int(node.tag[1]) for node in page.walk() if re.fullmatch("h[1-6]", node.tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels[levels.index(1) :], levels[1:], strict=False))
    for table in page.all("table"):
        assert table.one("caption").text
        for heading in table.all("th"):
            assert heading.attributes.get("scope") in {"col", "row", "rowgroup"}
        for body in table.all("tbody"):
            for row in body.all("tr"):
                assert row.all("th", scope="row") or row.all("th", scope="rowgroup")
    for control in (*page.all("input"), *page.all("select")):
        assert [label for label in page.all("label") if control in list(label.walk())]
    assert page.attributes["lang"] == "en"


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("number", [0, 1, 2], ids=["light", "dark", "paper"])
def test_every_colour_of_words_can_be_read_on_its_ground(number: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", STYLE_SHEET, re.DOTALL)
    colours = _colours(blocks[number])
    for ground in ("page", "faint"):
        for words in ("text", "quiet", "link", "open", "pass", "unknown"):
            dark, light = sorted(_luminance(colours[name]) for name in (ground, words))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, words)


# --- what comes from outside ---


def test_no_text_from_outside_becomes_markup() -> None:
    harmless = report(findings(4), excepted=(1,), resolved=resolved(1), incomplete_because=("a",), warnings=("b",))
    plain, hostile = read(html.write(harmless)), read(html.write(hostile_report()))
    known = {(node.tag, name) for node in plain.walk() for name in ("", *node.attributes)}
    # What a finding with commands of its own has besides, and the marking.
    known |= {("p", "class"), ("details", ""), ("summary", ""), ("pre", ""), ("pre", "tabindex"), ("code", "")}
    assert {(node.tag, name) for node in hostile.walk() for name in ("", *node.attributes)} <= known
    for attribute in ("class", "id", "role", "type"):
        values = {node.attributes.get(attribute, "") for node in hostile.walk()}
        assert all(re.fullmatch(r"[a-z0-9 -]*", value) for value in values)


def test_no_text_leaves_the_attribute_that_it_stands_in() -> None:
    written = element("p", "", title="\"'><script>")
    assert read(f"<html>{written}</html>".encode()).one("p").attributes == {"title": "\"'><script>"}


def test_every_text_from_outside_can_be_read_as_it_is() -> None:
    text = read(html.write(hostile_report())).one("body").text
    for name in HOSTILE_TEXTS:
        if all(unicodedata.category(character)[0] != "C" for character in name) and len(name) < 200:
            assert text.count(name) >= 8, name


@pytest.mark.parametrize(
    "character", ["\u202e", "\u2066", "\u200f", "\u200b", "\x00", "\x1b", "\n", "\ud800", "\ufeff"]
)
def test_what_hides_or_turns_text_is_replaced_visibly(character: str) -> None:
    made = report([finding("ns", f"gpj{character}exe", f"t{character}ag")])
    content = html.write(made).decode()
    assert "ns/gpj\N{REPLACEMENT CHARACTER}exe" in content
    assert all(unicodedata.category(one)[0] != "C" or one == "\n" for one in content)


def test_a_name_cannot_turn_the_words_around_it() -> None:
    (row,) = _rows(read(html.write(report([finding("שלום", "עולם", "א")]))))
    assert [name.text for name in row.all("bdi")] == ["שלום/עולם", "א"]


def test_a_name_that_is_cut_or_cleaned_is_given_no_commands() -> None:
    names = ["r" * 10_000, "two\u202ename"]
    page = read(html.write(report([finding("ns", name, "1") for name in names])))
    for row in _rows(page):
        assert not row.all("code")
        assert not row.all("button")
    assert "No commands can be given" in page.one("section", id="fix").text


@pytest.mark.parametrize(
    "marking", ['"}body{display:none}', "</style><script>alert(1)</script>", "CUI//SP-ISVI", "\\", "א\u202e"]
)
def test_a_marking_stands_on_every_printed_page_and_stays_a_text(marking: str) -> None:
    page = read(html.write(report(asset=Asset("dtr.example.mil", marking=marking))))
    seen = marking.replace("\u202e", "\N{REPLACEMENT CHARACTER}")
    assert [node.text for node in page.all("p", class_="marking")] == [seen, seen]
    _, pages = page.all("style")
    quoted = re.findall(r'@(?:top|bottom)-center\{content:"((?:[A-Za-z0-9]|\\[0-9a-f]{6})*)"\}', pages.text)
    read_back = {re.sub(r"\\([0-9a-f]{6})", lambda found: chr(int(found[1], 16)), one) for one in quoted}
    assert (len(quoted), read_back) == (2, {seen})


# --- the answer ---

ANSWERS: dict[str, tuple[Callable[[], Report], str, str]] = {
    "all signed": (report, "Not a finding", "All 817 image tags are signed."),
    "empty": (lambda: report(signed=0, artifacts=0), "Not a finding", "The registry holds no image."),
    "open": (lambda: report(findings(10)), "Open", "10 of 827 image tags are not signed."),
    "open, not complete": (
        lambda: report(findings(1), incomplete_because=("no proof",)),
        "Open",
        "At least 1 of 818 image tags is not signed.",
    ),
    "not complete": (
        lambda: report(incomplete_because=("no proof",)),
        "Not reviewed",
        "The audit could not be completed.",
    ),
    "a part": (lambda: report(scope=Scope.PARTIAL), "Not reviewed", "Only a part of the registry was audited."),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_stands_at_the_top(name: str) -> None:
    make, status, headline = ANSWERS[name]
    page = read(html.write(make()))
    heading = page.one("h1")
    assert heading.one("span", class_="status").text == status
    assert heading.text == f"{status} {headline}"
    assert page.one("head").one("title").text.startswith(f"{status}: prod-dtr, V-235846")
    assert next(node for node in page.one("main").walk() if node.tag == "h1") is heading


def test_an_incomplete_run_says_why_and_never_that_everything_is_signed() -> None:
    text = listed(report(incomplete_because=("web/shop answered 500", "no proof at the end"), unknown=3))
    assert "web/shop answered 500" in text
    assert "no proof at the end" in text
    assert "so this is no pass" in text
    assert "None of the 817 image tags that could be judged is unsigned" in text
    assert "image tags are signed" not in text
    assert "Every page of every list was read" not in text


def test_a_complete_listing_of_an_incomplete_run_is_not_shown_as_all_there_is() -> None:
    made = report(incomplete_because=("no proof at the end",))
    made.run.repositories.audited, made.run.repositories.unreadable = 126, 0
    assert "\N{EN DASH} 126 of 126 repositories read to the end, yet the audit is not complete" in listed(made)


def test_a_partial_run_says_what_it_looked_at_and_draws_no_trend_of_it() -> None:
    page = read(html.write(report(scope=Scope.PARTIAL, trend=trend(5))))
    assert "a part of the registry only: payments." in page.text
    assert len(page.one("svg", class_="trend").all("circle")) == 5


def test_an_exception_is_reported_and_its_finding_stays_open() -> None:
    page = read(html.write(report(findings(3), excepted=(2,))))
    assert page.one("h1").text == "Open 3 of 820 image tags are not signed."
    excepted = [row for row in _rows(page) if row.all("em")]
    assert len(excepted) == 1
    assert excepted[0].one("em").text == "excepted until 2027-01-31"
    assert "R. Okafor, POA&M 2026-118: vendor image, replaced with release 9" in excepted[0].text
    assert "3 in the whole registry, 1 excepted" in listed(report(findings(3), excepted=(2,)))


@pytest.mark.parametrize(
    ("percent", "words"),
    [(100.0, "100%"), (0.0, "0%"), (99.9999, "99.99%"), (0.0001, "0.01%"), (99.21, "99.21%"), (50.04, "50.0%")],
)
def test_a_share_is_never_rounded_to_all_or_to_nothing(percent: float, words: str) -> None:
    assert say_percent(percent) == words


# --- what moved, and the trend ---


def test_what_this_run_changed_is_reported_with_how_much_is_not_listed() -> None:
    gone = resolved(60)
    page = read(html.write(report(findings(12), resolved=gone)))
    changes = page.one("section", id="changes")
    assert [node.text for node in changes.all("h3")] == ["Opened (1)", "Resolved (60)"]
    assert "and 10 more" in changes.text
    assert "repository removed" in changes.all("tr")[-1].text
    assert "12 days, since 2026-11-10" in changes.text


def test_what_changed_is_listed_beside_what_was_opened_and_resolved() -> None:
    moved = [finding(tag=f"3.{number}", verdict=Verdict.MISMATCHED) for number in range(60)]
    made = report([*findings(12), *moved], resolved=resolved(1), changed=moved, changed_count=61)
    page = read(html.write(made))
    changes = page.one("section", id="changes")
    assert [node.text for node in changes.all("h3")] == ["Opened (1)", "Changed (61)", "Resolved (1)"]
    assert "payments/ledger:3.0" in changes.text
    assert "overwritten" in changes.text
    assert "and 11 more" in changes.text
    assert "1 opened, 61 changed, 1 resolved" in page.one("section", id="answer").text


def test_only_a_changed_finding_is_a_change() -> None:
    changes = read(html.write(report([finding()], changed=[finding()], changed_count=1))).one("section", id="changes")
    assert [node.text for node in changes.all("h3")] == ["Changed (1)"]
    assert "No finding was" not in changes.text
    assert "No finding was opened, changed or resolved." in listed(report())


def test_a_first_run_does_not_list_everything_twice() -> None:
    made = report([replace(one, changed_in=report().run.run_id) for one in findings(5)], is_first=True)
    changes = read(html.write(made)).one("section", id="changes")
    assert "All 5 open findings are new" in changes.text
    assert not changes.all("table")


def test_one_run_is_no_trend() -> None:
    section = read(html.write(report(is_first=True))).one("section", id="trend")
    assert not section.all("svg")
    assert "only run" in section.text


def test_the_line_is_broken_where_a_run_is_missing_or_was_not_complete() -> None:
    points = trend(30)  # one incomplete run, and once four days without any
    drawing = read(html.write(report(trend=points))).one("svg", class_="trend")
    runs = len(points) + 1
    assert len(drawing.all("circle", class_="complete")) == runs - 1
    assert len(drawing.all("circle", class_="incomplete")) == 1
    assert len(drawing.all("rect", class_="gap")) == 1
    # Of the steps between runs, one crosses the gap, and two touch the incomplete run.
    assert len(drawing.all("line", class_="curve")) == runs - 1 - 3


def test_runs_by_hand_on_one_day_do_not_make_the_runs_look_missed() -> None:
    (last,) = trend(1)
    points = [replace(last, finished_at=iso(FINISHED - timedelta(minutes=minutes))) for minutes in (50, 40, 30, 20, 10)]
    drawing = read(html.write(report(trend=[*trend(5), *points]))).one("svg", class_="trend")
    assert not drawing.all("rect", class_="gap")


def test_the_trend_can_be_read_in_numbers() -> None:
    section = read(html.write(report(trend=trend(10)))).one("section", id="trend")
    (body,) = section.all("tbody")
    rows = body.all("tr")
    assert len(rows) == 11
    reported_of = {row.one("th").text: [cell.text for cell in row.all("td")] for row in rows}
    assert reported_of["2026-11-13 05:04"] == ["Open", "no", "791", "12", "12", "93.7%"]


# --- the findings ---


def _rows(page: Node) -> list[Node]:
    table = page.one("table", id="findings-table")
    return [row for row in table.all("tr") if row.all("th", scope="row")]


def test_findings_stand_below_their_namespaces() -> None:
    page = read(html.write(report(findings(40), left_out=7)))
    table = page.one("table", id="findings-table")
    names = [body.one("th", scope="rowgroup").one("bdi").text for body in table.all("tbody")]
    assert names == sorted(names)
    assert len(names) == 10
    for body, name in zip(table.all("tbody"), names, strict=True):
        for row in body.all("tr")[1:]:
            assert row.all("bdi")[0].text.startswith(f"{name}/")
    index = page.one("section", id="namespaces")
    assert index.all("tr")[1].text.startswith("zeta7")
    assert {link.attributes["href"] for link in index.all("a")} == {
        f"#{body.attributes['id']}" for body in table.all("tbody")
    }


def test_what_is_left_out_is_counted_and_where_it_lies_is_said() -> None:
    made = report(findings(300), left_out=99_700)
    assert made.findings_left_out == 99_700
    text = listed(made)
    assert "300 of 100,000 open findings are listed, the first by name. 99,700 are not in this file." in text
    for file in made.rows:
        assert file.key in text
        assert file.sha256 in text
    assert made.record_key in text
    assert "are not in this file" not in listed(report(findings(300)))


def test_the_file_is_bounded_any_the_names_are() -> None:
    worst = [
        replace(finding("n" * 290, "&" * 290, f"{number:05d}{'<' * 290}"), reason="'" * 900, author='"' * 900)
        for number in range(5_000)
    ]
    content = html.write(report(worst))
    assert len(content) < 3 * MEGABYTE
    page = read(content)
    listed = len(_rows(page))
    assert 100 < listed < 5_000
    assert f"{listed:,} of 5,000 open findings are listed" in page.text
    assert f"{5_000 - listed:,} are not in this file" in page.text
    assert len(content) > FINDINGS_BYTES * 0.9


def test_five_thousand_findings_are_all_listed_in_less_than_three_megabytes() -> None:
    content = html.write(report(findings(5_000), left_out=95_000, signed=412_000))
    assert len(content) < 2.2 * MEGABYTE
    assert len(_rows(read(content))) == 5_000


def test_ten_thousand_namespaces_do_not_fill_the_page() -> None:
    page = read(html.write(report([finding(f"team-{number:05d}") for number in range(3_000)])))
    index = page.one("section", id="namespaces")
    assert len([row for body in index.all("tbody") for row in body.all("tr")]) == 1_000
    assert "2,000 more namespaces, with 2,000 findings, are not listed here" in index.text


def _commands(page: Node, row: Node) -> list[str]:
    """Do what the script does with a row."""
    own = [line.text.rstrip("\n") for line in row.all("code")]
    number = row.all("td")[-1].attributes.get("data-form")
    if number is None:
        return own
    assert not own
    form = page.all("pre", class_="form")[int(number) - 1]
    repository, tag = (name.text for name in row.all("bdi"))
    names = {
        "YOUR-NAMESPACE/YOUR-REPOSITORY": repository,
        "YOUR-TAG": tag,
        "YOUR-DIGEST": row.one("th").one("small").text.partition(":")[2],
    }
    pattern = re.compile("|".join(names))
    return [pattern.sub(lambda found: names[found[0]], line.text.rstrip("\n")) for line in form.all("code")]


def _many_kinds() -> Iterator[tuple[str, str, str, str]]:
    for media_type in ("", IMAGES, "application/vnd.docker.distribution.manifest.v2+json"):
        for digest in ("", "sha256:" + "a" * 64, "sha512:" + "b" * 128, "blake3:YOUR-TAG", "oddly"):
            for namespace, tag in (("YOUR-NAMESPACE", "YOUR-DIGEST"), ("a b", "$(id)"), ("plain", "1.0")):
                yield namespace, tag, digest, media_type


def test_any_the_finding_the_page_gives_the_very_commands_of_the_rule() -> None:
    found = [
        replace(finding(namespace, "YOUR-REPOSITORY", tag), digest=digest, media_type=media_type)
        for namespace, tag, digest, media_type in _many_kinds()
    ]
    page = read(html.write(report(found)))
    rows = _rows(page)
    assert len(rows) == len(found)
    for row, one in zip(rows, found, strict=True):
        assert _commands(page, row) == list(fix_commands(one, DOMAIN))


def test_findings_of_a_kind_share_one_form_of_their_commands() -> None:
    page = read(html.write(report(findings(200))))
    forms = page.all("pre", class_="form")
    used = Counter(row.all("td")[-1].attributes["data-form"] for row in _rows(page))
    assert len(forms) == len(used) == 4  # two verdicts, and images or lists of them
    headings = " ".join(node.text for node in page.one("section", id="fix").all("h3"))
    for number, count in used.items():
        assert f"Form {number}, for {count} findings" in headings


def test_the_first_finding_has_its_commands_ready() -> None:
    first = findings(10)[0]
    section = read(html.write(report(findings(10)))).one("section", id="fix")
    lines = [line.text.rstrip("\n") for line in section.all("pre")[0].all("code")]
    assert lines == list(fix_commands(first, DOMAIN))
    assert all(shlex.split(line, comments=True) is not None for line in lines)


def test_without_findings_nothing_is_to_be_fixed() -> None:
    page = read(html.write(report()))
    assert not page.all("section", id="fix")
    assert "#fix" not in {link.attributes["href"] for link in page.all("a")}


# --- the rest ---


def test_the_controls_are_those_of_the_rule() -> None:
    rows = read(html.write(report())).one("section", id="controls").one("tbody").all("tr")
    said = [tuple(cell.text for cell in (*row.all("th"), *row.all("td"))) for row in rows]
    assert said == [(one.nist, one.cci, one.definition) for one in load_release("V2R2").rule.controls]
    assert {nist.replace(" ", "") for nist, _, _ in said} == {"CM-7(5)(b)", "SI-7(1)", "SI-7(5)", "SI-7(8)"}


@pytest.mark.parametrize("release", ["V2R1", "V2R2"])
def test_the_rule_is_named_as_the_release_names_it(release: str) -> None:
    text = listed(report(asset=Asset("dtr.example.mil", release=release)))
    assert load_release(release).rule.rule_id in text
    assert f"V-235846 · CAT II · {release}" in text


def test_the_first_screen_names_asset_address_and_version() -> None:
    head = read(html.write(report(asset=Asset("DTR-01")))).one("header").text
    for words in ("prod-dtr", "https://dtr.example.mil:4443", "Asset DTR-01", f"dtr-signature-audit {__version__}"):
        assert words in head


def test_a_name_that_is_no_domain_name_is_not_reported_as_one() -> None:
    assert "in the assessor's tools: DTR-01, dtr.example.mil" in listed(
        report(asset=Asset("DTR-01", "dtr.example.mil"))
    )
    assert "DTR-01, localhost" not in listed(report(asset=Asset("DTR-01", "localhost")))


def test_digests_are_whole_in_the_file_and_marked_to_be_shown_short() -> None:
    made = report(findings(3), resolved=resolved(1))
    page = read(html.write(made))
    marked = [node.text for node in page.walk() if node.attributes.get("class") == "digest"]
    assert {one.digest for one in (*findings(3), *resolved(1))} | {file.sha256 for file in made.rows} == set(marked)


def test_how_the_answer_was_reached_is_reported() -> None:
    made = report(findings(2))
    text = listed(made)
    for words in (made.auditor, "before the first list was read, and again after the last", DOMAIN, "4 min 12 s"):
        assert words in text
    assert "126 repositories listed, 126 read to the end" in text


def test_supporting_facts_are_reported_as_no_reason_to_pass() -> None:
    section = read(html.write(report())).one("section", id="facts")
    assert "None of it is a reason to pass V-235846" in section.text
    assert "UCP: content trust is enforced" in section.text
    assert not read(html.write(report(facts=()))).all("section", id="facts")


def test_a_registry_without_a_known_domain_gives_no_commands() -> None:
    made = report(findings(2))
    page = read(html.write(replace(made, run=replace(made.run, domains=()))))
    assert not page.all("pre", class_="form")
    assert all(not row.all("button") for row in _rows(page))


def test_texts_and_lists_of_a_run_are_bounded() -> None:
    run = report().run
    many = replace(
        run,
        status=Status.NOT_REVIEWED,
        incomplete_because=tuple("r" * 9_000 for _ in range(1_000)),
        warnings=tuple("w" * 9_000 for _ in range(1_000)),
        domains=tuple(f"d{number}.example.mil" for number in range(1_000)),
    )
    rows = tuple(StoredFile(f"k/{number}", "0" * 64, 1) for number in range(10_000))
    assert len(html.write(report(run=many, rows=rows))) < 2 * MEGABYTE


def test_a_verdict_of_every_kind_can_be_reported() -> None:
    found = [
        finding(tag=str(verdict), verdict=verdict)
        for verdict in (Verdict.MISMATCHED, Verdict.UNSIGNED, Verdict.UNTRUSTED)
    ]
    words = [row.one("b").text for row in _rows(read(html.write(report(found))))]
    assert words == ["overwritten", "unsigned", "untrusted"]


def test_a_resolved_finding_that_is_open_again_says_so() -> None:
    (gone,) = resolved(1)
    text = listed(report(resolved=[replace(gone, state=State.OPEN, repository=Repository("a", "b"))]))
    assert "; open again" in text


def test_a_time_that_is_none_stays_a_text() -> None:
    (row,) = _rows(read(html.write(report([replace(finding(), pushed_at="the other day")]))))
    assert row.all("td")[1].text == "the other dayk.lindqvist"


def test_an_exception_without_a_reference_is_reported_without_one() -> None:
    made = report(findings(1), excepted=(0,))
    (reported,) = made.findings
    alone = replace(reported, excepted=Excepted("EX-8", "R. Okafor", "being rebuilt", "", "2027-01-31"))
    assert "R. Okafor: being rebuilt" in listed(replace(made, findings=[alone]))


def test_a_fact_without_a_rule_has_no_answer_to_one() -> None:
    section = read(html.write(report(facts=(SupportingFact("a", "b"),)))).one("section", id="facts")
    assert section.all("tr")[1].text == "ab\N{EN DASH}\N{EN DASH}"


def _incomplete(*, signed: int = 10, unread: int = 0, known: int = 0) -> Report:
    """Give a run that is not complete, with findings of earlier runs that it could not read."""
    made = report(findings(known), incomplete_because=("the list broke off",))
    run = replace(
        made.run,
        status=Status.OPEN if known else Status.NOT_REVIEWED,
        repositories=RepositoryCounts(listed=10 + unread, audited=10, unreadable=unread),
        tags=TagCounts(signed=signed),
        unreadable=tuple((f"web/{number:03d}", "500") for number in range(unread)),
    )
    return replace(made, run=run)


def test_bar_of_an_incomplete_run_that_read_all_that_was_listed_is_no_full_share_of_signed_tags() -> None:
    answer = read(html.write(_incomplete())).one("section", id="answer")
    bar = answer.one("div", class_="verdicts")
    (signed,) = bar.all("rect", class_="verdict-signed", y="0")
    (unread,) = bar.all("rect", class_="verdict-unread", y="0")
    assert int(signed.attributes["width"]) + int(unread.attributes["width"]) == 1_000
    assert "10 signed (100% of those read)" in bar.text
    assert "100%" not in answer.one("dl").text


def test_bar_of_an_incomplete_run_shows_the_unread_repositories_as_a_share() -> None:
    bar = read(html.write(_incomplete(unread=10))).one("div", class_="verdicts")
    (unread,) = bar.all("rect", class_="verdict-unread", y="0")
    assert unread.attributes["width"] == "500"
    assert "10 repositories not read to the end" in bar.text


def test_bar_of_a_run_that_read_nothing_is_all_unread() -> None:
    made = _incomplete(signed=0)
    nothing = replace(made, run=replace(made.run, repositories=RepositoryCounts()))
    (unread,) = read(html.write(nothing)).one("div", class_="verdicts").all("rect", class_="verdict-unread", y="0")
    assert unread.attributes["width"] == "1000"


def test_headline_with_findings_of_earlier_runs_alone_names_them_and_no_tag() -> None:
    page = read(html.write(_incomplete(known=3)))
    assert page.one("h1").text == "Open 3 findings of earlier runs are still open."
    assert "as far as known, 3 of them from earlier runs" in page.text


def test_trend_of_an_incomplete_run_shows_no_coverage_of_100_percent() -> None:
    made = _incomplete()
    cells = [cell.text for cell in read(html.write(made)).one("section", id="trend").all("tr")[1].all("td")]
    assert cells[1] == "no"
    assert cells[-1] == "\N{EN DASH}"
