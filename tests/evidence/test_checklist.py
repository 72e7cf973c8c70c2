"""What every checklist says: the status by policy, the texts, and their bounds."""

import re
from dataclasses import replace

import pytest

from dtr_audit import __version__
from dtr_audit.core.counts import RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.manifest import StoredFile
from dtr_audit.core.model import Verdict
from dtr_audit.core.rule import SEVERITY, TITLE
from dtr_audit.core.run_record import Scope, Status, SupportingFact
from dtr_audit.core.stig import load_release
from dtr_audit.errors import EvidenceError
from dtr_audit.evidence.checklist import (
    COMMENT_LEAST,
    COMMENT_MARK,
    COMMENTS_LENGTH,
    DETAILS_LENGTH,
    TEXT_LENGTH,
    Answer,
    answer_rules,
    keep_comment,
    utf16_length,
)
from dtr_audit.evidence.report import Asset, Report, ReportedFinding
from tests.evidence.html_report import EXCEPTED, digest, finding, findings, report

UNREAD = ("1 repository could not be read to the end: web/shop",)


def answer(made: Report) -> Answer:
    (only,) = answer_rules(made)
    return only


def test_a_complete_audit_with_everything_signed_is_not_a_finding() -> None:
    given = answer(report(signed=12))

    assert given.status is Status.NOT_A_FINDING
    assert given.details.startswith("NOT A FINDING: all 12 image tags are signed and trusted.\n")


@pytest.mark.parametrize("verdict", [Verdict.UNSIGNED, Verdict.MISMATCHED])
@pytest.mark.parametrize("because", [(), UNREAD])
def test_one_tag_that_is_not_signed_is_open_whether_all_was_read_or_not(
    verdict: Verdict, because: tuple[str, ...]
) -> None:
    given = answer(report([finding(verdict=verdict)], incomplete_because=because))

    assert given.status is Status.OPEN
    assert given.headline.startswith("OPEN: 1 of 818 image tags")
    assert ("there may be more" in given.headline) == bool(because)


def test_an_incomplete_audit_that_saw_nothing_unsigned_is_not_reviewed_and_says_why() -> None:
    given = answer(report(incomplete_because=UNREAD))

    assert given.status is Status.NOT_REVIEWED
    assert given.headline.startswith("NOT REVIEWED: the audit is not complete.")
    assert "this is not a pass" in given.headline
    assert f"- {UNREAD[0]}" in given.details
    assert "Coverage: NOT complete, 99.2 % of the repositories" in given.details


def test_coverage_is_never_rounded_up_to_all() -> None:
    made = report(incomplete_because=UNREAD)
    repositories = replace(made.run.repositories, listed=100_000, audited=99_999)
    given = answer(replace(made, run=replace(made.run, repositories=repositories)))

    assert "NOT complete, 99.9 % of the repositories" in given.details


def test_details_of_an_incomplete_audit_that_read_all_that_was_listed_name_no_full_share() -> None:
    made = report(incomplete_because=("the list broke off",))
    repositories = RepositoryCounts(listed=126, audited=126)
    given = answer(replace(made, run=replace(made.run, repositories=repositories, unreadable=())))

    assert "100.0 %" not in given.details
    assert (
        "Coverage: NOT complete, nothing but the repositories that were listed; 126 listed, 126 read" in given.details
    )


def test_details_name_unread_repositories_as_far_as_there_is_room_and_count_the_others() -> None:
    made = report(findings(50), incomplete_because=("350 repositories could not be read",))
    unreadable = tuple((f"web/{number:03d}", "GET /tags: 500 " + "x" * 385) for number in range(100))
    repositories = RepositoryCounts(listed=1_000, audited=640, unreadable=350)
    run = replace(made.run, repositories=repositories, unreadable=unreadable)
    details = answer(replace(made, run=run)).details

    named = details.count(": GET /tags: 500")
    assert "Repositories that were not read to the end (360):\n- web/000: GET /tags: 500" in details
    assert 15 < named < 25
    assert f"- and {360 - named} repositories more, which are not named here" in details
    assert details.count("  since ") == 50


def test_headline_with_findings_of_earlier_runs_counts_them_apart_from_the_tags_that_were_read() -> None:
    made = report(findings(5), incomplete_because=UNREAD)
    run = replace(made.run, tags=TagCounts(signed=8, unsigned=2))
    given = answer(replace(made, run=run))

    assert given.status is Status.OPEN
    assert given.headline == (
        "OPEN: 2 of 10 image tags are not signed and trusted, and 3 findings of earlier runs are still open, as it could not be "
        "read whether they are resolved. Not everything could be read, so there may be more."
    )


def test_tags_that_could_not_be_judged_are_no_pass() -> None:
    given = answer(report(unknown=3))

    assert given.status is Status.NOT_REVIEWED
    assert "3 could not be judged" in given.headline


def test_a_registry_verified_empty_is_not_a_finding_and_says_empty() -> None:
    given = answer(report(signed=0, artifacts=0))

    assert given.status is Status.NOT_A_FINDING
    assert "the registry is empty" in given.headline


def test_a_partial_run_makes_no_checklist() -> None:
    with pytest.raises(EvidenceError, match="looked at 1 namespaces only"):
        answer_rules(report(scope=Scope.PARTIAL))


def test_the_details_report_counts_coverage_auditor_domains_tags_and_where_all_of_it_lies() -> None:
    made = report([finding(), finding(tag="2.4")], left_out=7)
    details = answer(made).details

    for reported in (
        "Registry: prod-dtr, https://dtr.example.mil:4443\n",
        f"Run 20261122T050000Z, 2026-11-22T05:00:03.000Z to 2026-11-22T05:04:15.000Z, dtr-signature-audit {__version__}: ",
        "126 listed, 126 read to the end, 0 unreadable, 0 removed meanwhile",
        "Image tags: 826 audited: 817 signed, 9 unsigned, 0 mismatched, 0 untrusted, 0 unknown; 2 signature artifacts",
        f"Auditor: {made.auditor}",
        "Signatures asked for under: dtr.example.mil",
        f"- payments/ledger:2.3  UNSIGNED  {digest('payments/ledger:2.3')}  since {finding().first_seen}: not signed under",
        "- and 7 findings more, which are not named here",
        f"s3://dtr-audit-evidence/{made.rows[0].key} sha256 {made.rows[0].sha256} ({made.rows[0].size} bytes)",
        f"the run record: s3://dtr-audit-evidence/{made.record_key}",
    ):
        assert reported in details


def test_what_the_first_run_alone_sees_stands_in_the_last_line_of_the_details() -> None:
    def reported(*, first_use: int, opened: int, changed: int) -> Answer:
        made = report([finding()], changed_count=changed)
        findings = replace(made.run.findings, opened=opened)
        return answer(
            replace(made, run=replace(made.run, findings=findings, trust=TrustCounts(verified=7, first_use=first_use)))
        )

    first, second = reported(first_use=7, opened=1, changed=2), reported(first_use=0, opened=0, changed=0)
    *same, last = first.details.splitlines()
    assert same == second.details.splitlines()[:-1]
    assert "findings opened: 1, changed: 2, resolved: 0; roots seen for the first time: 7; " in last
    assert first.comments == second.comments


def test_an_excepted_finding_stays_open_and_the_comment_names_its_owner_and_end() -> None:
    given = answer(report([finding(), finding(tag="2.4")], excepted=[1]))

    assert given.status is Status.OPEN
    assert "OPEN: 2 of 819" in given.headline
    assert "Open findings: 2, of them 1 under an exception" in given.details
    assert "1 of 2 open findings are under an exception. They stay open until they are signed:" in given.comments
    assert (
        "- payments/ledger:2.4  exception EX-7, owner R. Okafor, ends 2027-01-31, reference POA&M 2026-118: vendor image, "
        "replaced with release 9"
    ) in given.comments


def test_a_supporting_fact_is_reported_and_passes_nothing() -> None:
    given = answer(report([finding()]))

    assert given.status is Status.OPEN
    assert "none of it is a reason to pass this rule" in given.comments
    assert "- UCP: content trust is enforced: no: require_content_trust is false" in given.comments


def test_texts_stay_below_the_length_at_which_importers_cut_and_still_end_with_the_whereabouts() -> None:
    long = "\N{GRINNING FACE}" * 500  # counts twice
    many = [replace(finding(long, long, f"{n}{long}"), reason=long, digest=long) for n in range(1_000)]
    made = report(
        many,
        excepted=range(1_000),
        incomplete_because=(long,) * 50,
        warnings=(long,) * 50,
        facts=tuple(SupportingFact(long, long) for _ in range(50)),
        rows=tuple(StoredFile(f"findings/{n}/" + "k" * 1000, "ab" * 32, n) for n in range(50)),
    )
    excepted = [replace(one, excepted=replace(EXCEPTED, owner=long, reason=long)) for one in made.findings]
    made = replace(made, run=replace(made.run, domains=(long,) * 50), findings=excepted, auditor=long)
    given = answer(made)

    assert utf16_length(given.details) <= DETAILS_LENGTH < TEXT_LENGTH
    assert utf16_length(given.comments) <= COMMENTS_LENGTH
    assert given.details.endswith(f"; the run record: s3://dtr-audit-evidence/{made.record_key}")
    assert "and 40 files more, all with their sha256 in manifest.json" in given.details
    assert re.search(r"\n- and \d+ findings more", given.details)
    assert re.search(r"\n- and \d+ excepted findings more", given.comments)


def test_findings_named_and_findings_left_add_up() -> None:
    details = answer(report(findings(5_000), left_out=95_000)).details
    left = re.search(r"- and (\d+) findings more", details)

    assert left
    assert details.count("  sha256:") + int(left[1]) == 100_000


@pytest.mark.parametrize("hidden", ["\0", "\x1b", "\r", "\n- forged:1.0", "\ud800", "\ufffe", "\u202e", "\u2028"])
def test_nothing_from_the_registry_can_hide_or_begin_a_line(hidden: str) -> None:
    given = answer(report([replace(finding(), tag=f"a{hidden}b", reason=f"r{hidden}")], excepted=[0]))

    for text in (given.details, given.comments):
        assert hidden not in text
        assert "a\N{REPLACEMENT CHARACTER}" in text


def test_no_comment_has_the_mark_at_which_mitre_splits_comments() -> None:
    made = report([finding()], excepted=[0])
    excepted = replace(EXCEPTED, reason="FIX :: later")
    given = answer(replace(made, findings=[ReportedFinding(finding(), excepted)]))

    assert " :: " not in given.comments
    assert "FIX : later" in given.comments


def test_our_comment_goes_below_theirs_once() -> None:
    ours = f"{COMMENT_MARK}\nnew"

    once = keep_comment("Their own.\n", ours)
    assert once == f"Their own.\n\n{ours}"
    assert keep_comment(once, ours) == once
    assert keep_comment(f"{COMMENT_MARK}\nold", ours) == ours
    assert keep_comment("", ours) == ours


@pytest.mark.parametrize("unit", ["a", "\N{GRINNING FACE}"])
def test_a_comment_of_theirs_is_never_cut_and_ours_to_the_room_that_is_left(unit: str) -> None:
    ours = f"{COMMENT_MARK}\n{'ours ' * 1_000}"
    theirs = unit * (30_000 // utf16_length(unit))

    joined = keep_comment(theirs, ours)
    assert TEXT_LENGTH - 1 <= utf16_length(joined) <= TEXT_LENGTH
    assert joined.startswith(f"{theirs}\n\n{COMMENT_MARK}\nours ours")
    assert joined.endswith("…")


def test_a_comment_of_theirs_that_leaves_no_room_is_left_alone() -> None:
    for length in (TEXT_LENGTH - 2 - COMMENT_LEAST + 1, 40_000):
        assert keep_comment("a" * length, f"{COMMENT_MARK}\nours") == "a" * length
    assert keep_comment("a" * (TEXT_LENGTH - 2 - COMMENT_LEAST), f"{COMMENT_MARK}\nours").endswith("\nours")


@pytest.mark.parametrize(
    ("asset", "fault"),
    [
        (Asset(""), "asset name"),
        (Asset(" "), "asset name"),
        (Asset("a" * 256), "asset name"),
        (Asset("dtr", role="Server"), "asset role 'Server'"),
        (Asset("dtr", technology_area="Registries"), "technology area 'Registries'"),
        (Asset("dtr", release="V1R1"), "STIG release 'V1R1' is not known; it must be one of V2R2, V2R1"),
    ],
)
def test_an_asset_that_importers_would_refuse_is_refused_here(asset: Asset, fault: str) -> None:
    with pytest.raises(EvidenceError, match=fault):
        answer_rules(report(asset=asset))


def test_a_neighbour_is_a_rule_of_its_own_only_when_asked() -> None:
    made = report(
        facts=(
            SupportingFact("DTR: who made repositories", "not said", "V-235796", Status.NOT_REVIEWED),
            SupportingFact("DTR: repositories are made by a push", "yes", "V-235796", Status.OPEN),
            SupportingFact("DTR: scanning is on", "yes", "V-235840", Status.NOT_A_FINDING),
            SupportingFact("DTR: scanner's database", "not said", "V-235840", Status.NOT_REVIEWED),
            SupportingFact("UCP: who must have signed", "anybody"),
            SupportingFact("UCP: content trust", "no", "V-235847", Status.OPEN),
            SupportingFact("a rule that is told of and not answered here", "no", "V-235780", Status.OPEN),
            SupportingFact("never this rule itself", "yes", "V-235846", Status.NOT_A_FINDING),
        ),
        incomplete_because=UNREAD,
    )

    assert [one.rule.group_id for one in answer_rules(made)] == ["V-235846"]
    assert [(one.rule.group_id, one.status) for one in answer_rules(made, neighbours=True)] == [
        ("V-235846", Status.NOT_REVIEWED),
        ("V-235796", Status.OPEN),
        ("V-235840", Status.NOT_REVIEWED),
        ("V-235847", Status.OPEN),
    ]
    assert "- DTR: scanner's database: not said" in answer_rules(made, neighbours=True)[2].details


def test_the_counts_of_untrusted_tags_are_findings_too() -> None:
    made = report()
    run = replace(made.run, tags=TagCounts(signed=1, untrusted=1), status=Status.OPEN)

    assert answer(replace(made, run=run)).headline.startswith("OPEN: 1 of 2")


@pytest.mark.parametrize(("release", "rule_id"), [("V2R2", "SV-235846r961740_rule"), ("V2R1", "SV-235846r627665_rule")])
def test_each_release_has_the_rule_under_its_own_id(release: str, rule_id: str) -> None:
    loaded = load_release(release)

    assert loaded.rule.rule_id == rule_id
    assert (loaded.rule.title, loaded.rule.severity) == (TITLE, SEVERITY)
    assert re.fullmatch(rf"Release: {release[-1]} Benchmark Date: \d\d \w{{3}} 20\d\d", loaded.release_info)
    assert [(control.cci, control.nist) for control in loaded.rule.controls] == [
        ("CCI-001774", "CM-7 (5) (b)"),
        ("CCI-002710", "SI-7 (1)"),
        ("CCI-002715", "SI-7 (5)"),
        ("CCI-002723", "SI-7 (8)"),
        ("CCI-002724", "SI-7 (8)"),
    ]
    assert sorted(loaded.rules) == ["V-235796", "V-235798", "V-235840", "V-235846", "V-235847"]
