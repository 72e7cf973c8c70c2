"""Every query, asked of the very objects that the function wrote, against what plain Python makes of the truth."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from dtr_audit_cli.query import ask
from dtr_audit_cli.query_files import named_queries
from tests.queries.history import AUTHORS, TODAY, History, Name, PastRun, Seen

Row = dict[str, Any]
QUERIES = {query.name: query for query in named_queries()}
# As of these days the windows begin on, before and after days with an audit; in the end nothing is left in any.
DAYS = [
    date(2026, 11, 19),
    TODAY,
    date(2026, 11, 21),
    date(2026, 11, 24),
    date(2026, 12, 24),
    date(2026, 12, 25),
    date(2027, 6, 1),
]


def answer(history: History | Path, name: str, *values: str, today: date = TODAY) -> list[Row]:
    folder = history.folder if isinstance(history, History) else history
    given = ask(QUERIES[name], folder, values, today=today)
    return [dict(zip(given.columns, row, strict=True)) for row in given.rows]


def only(row: Row, *columns: str) -> Row:
    return {column: row[column] for column in columns}


def ago(days: int, today: date) -> str:
    return (today - timedelta(days=days)).isoformat()


def days_between(first: str, last: str) -> int:
    return (date.fromisoformat(last) - date.fromisoformat(first)).days


def newest(history: History, registry: str, *, days: int, today: date) -> PastRun | None:
    return next(reversed(history.answering(registry, since=ago(days, today))), None)


def failing(run: PastRun) -> list[tuple[Name, Seen]]:
    return sorted((name, tag) for name, tag in run.tags.items() if tag.failing)


# --- What is open ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("today", DAYS)
def test_open_findings_are_those_of_the_newest_complete_audit_of_the_whole_registry(
    history: History, today: date
) -> None:
    expected = []
    for registry in history.registries:
        run = newest(history, registry, days=35, today=today)
        if run is not None:
            reported = {"registry": registry, "run_id": run.run_id, "status": run.record["status"]}
            found = [
                {
                    **reported,
                    "namespace": name[0],
                    "repository": name[1],
                    "tag": name[2],
                    **only(vars_of(tag), "verdict", "digest", "author", "pushed_at"),
                }
                for name, tag in failing(run)
            ]
            nothing = dict.fromkeys(("namespace", "repository", "tag", "verdict", "digest", "author", "pushed_at"))
            expected += found or [{**reported, **nothing}]
    given = answer(history, "open-findings", today=today)
    assert [{key: row[key] for key in row if key in KEYS_COMPARED} for row in given] == expected
    for row in given:
        assert bool(row["reason"]) is (row["tag"] is not None)


KEYS_COMPARED = {
    *("registry", "run_id", "status", "namespace", "repository", "tag", "verdict", "digest", "author", "pushed_at"),
}


def vars_of(tag: Seen) -> Row:
    return {name: getattr(tag, name) for name in Seen.__slots__}


@pytest.mark.parametrize("today", DAYS)
def test_the_tags_of_a_namespace_are_signed_with_content_trust_with_cosign_only_or_with_neither(
    history: History, today: date
) -> None:
    expected = []
    for registry in history.registries:
        run = newest(history, registry, days=35, today=today)
        if run is None:
            continue
        images = {name: tag for name, tag in run.tags.items() if tag.verdict is not None}
        counts: list[tuple[str | None, int, int, int, int]] = []
        for namespace in sorted({name[0] for name in images}):
            own = [tag for name, tag in images.items() if name[0] == namespace]
            findings = [tag for tag in own if tag.failing]
            cosign = sum(tag.cosign_signed for tag in findings)
            counts.append((namespace, len(own), len(own) - len(findings), cosign, len(findings) - cosign))
        counts.sort(key=lambda row: (-row[3], -row[4]))
        columns = ("namespace", "tags", "content_trust", "cosign_only", "neither")
        expected += [
            {"registry": registry, "run_id": run.run_id, **dict(zip(columns, row, strict=True))}
            for row in counts or [(None, 0, 0, 0, 0)]
        ]
        tags = run.record["tags"]
        totals = [sum(kinds) for kinds in zip(*(row[2:] for row in counts), strict=True)] or [0, 0, 0]
        assert totals == [tags["signed"], tags["cosign_only"], tags["neither"]]
    assert answer(history, "signed-with", today=today) == expected


def test_the_history_holds_tags_that_are_signed_with_each(history: History) -> None:
    given = answer(history, "signed-with")
    assert all(any(row[kind] for row in given) for kind in ("content_trust", "cosign_only", "neither"))


def test_the_newest_audit_is_neither_partial_nor_incomplete_nor_one_without_a_record(history: History) -> None:
    (run_id,) = {row["run_id"] for row in answer(history, "open-findings") if row["registry"] == history.busy}
    assert run_id == "20261119T030000Z"
    later = [run for run in history.runs if run.registry == history.busy and run.run_id > run_id]
    assert {(run.record["scope"], run.record["complete"]) for run in later} == {("partial", True), ("full", False)}
    rows = {file.name for file in history.folder.glob(f"findings/registry={history.busy}/dt=2026-11-07/*")}
    assert {name[:16] for name in rows} == {"20261107T030000Z", "20261107T040000Z"}
    assert not list(history.folder.glob(f"runs/registry={history.busy}/dt=2026-11-07/20261107T030000Z*"))
    assert "20261107T030000Z" not in str(answer(history, "who-pushes-unsigned", today=date(2026, 11, 8)))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which one tag was not signed, as the complete audits saw it."""

    name: Name
    opened_on: str
    may_be_older: bool
    ended: str  # signed, removed, or '' while it lasts
    ended_on: str = ""


def stretches(audits: Sequence[PastRun], *, first_ever: PastRun) -> Iterator[Stretch]:
    """Follow every tag through the audits, one after the other."""
    began: dict[Name, int] = {}
    for number, run in enumerate(audits):
        for name, at in list(began.items()):
            tag = run.tags.get(name)
            if tag is None or not tag.failing:
                is_signed = tag is not None and tag.verdict == "SIGNED"
                older = at == 0 and audits[0] is not first_ever
                yield Stretch(name, audits[at].day, older, "signed" if is_signed else "removed", run.day)
                del began[name]
        for name, _ in failing(run):
            began.setdefault(name, number)
    for name, at in began.items():
        yield Stretch(name, audits[at].day, at == 0 and audits[0] is not first_ever, "")


@pytest.mark.parametrize("today", DAYS)
def test_a_finding_is_open_since_the_first_audit_that_found_it_without_a_break(history: History, today: date) -> None:
    expected = []
    for registry in history.registries:
        audits = history.answering(registry, since=ago(180, today))
        if not audits:
            continue
        open_now = [one for one in stretches(audits, first_ever=history.answering(registry)[0]) if not one.ended]
        reported = {"registry": registry, "run_id": audits[-1].run_id}
        found = [
            {
                **reported,
                "namespace": one.name[0],
                "repository": one.name[1],
                "tag": one.name[2],
                "open_since": one.opened_on,
                "days": days_between(one.opened_on, today.isoformat()),
                "or_longer": one.may_be_older,
                **only(vars_of(audits[-1].tags[one.name]), "verdict", "author", "pushed_at"),
                "exception_id": None,
            }
            for one in open_now
        ]
        columns = (
            "namespace",
            "repository",
            "tag",
            "open_since",
            "days",
            "or_longer",
            "verdict",
            "author",
            "pushed_at",
        )
        expected += found or [{**reported, **dict.fromkeys((*columns, "exception_id"))}]
    expected.sort(
        key=lambda row: (row["open_since"] or "9", row["registry"], row["namespace"], row["repository"], row["tag"])
    )
    assert answer(history, "oldest-open", today=today) == expected
    assert len(expected) <= 100


# --- What changed ----------------------------------------------------------------------------------------------------


def change(before: Seen | None, after: Seen | None) -> str:
    was, now = (tag is not None and tag.failing for tag in (before, after))
    if was and now:
        return "changed" if before and after and before.verdict != after.verdict else ""
    if now:
        return "opened"
    if not was:
        return ""
    if after is None:
        return "resolved: removed"
    return "resolved: signed" if after.verdict == "SIGNED" else "resolved: a signature artifact, not an image"


@pytest.mark.parametrize(
    "days",
    [
        ("2026-11-18", "2026-11-19"),
        ("2026-11-19", "2026-11-18"),  # in whatever order
        ("2026-10-21", "2026-11-10"),  # of the two runs of that day, the later one
        ("2026-10-26", "2026-11-05"),  # not the incomplete run after it
        ("2026-11-05", "2026-11-06"),  # a run that was retried
        ("2026-11-06", "2026-11-07"),  # nothing changed, and rows without a record
        ("2026-11-05", "2026-11-10"),  # everything was removed
        ("2026-11-10", "2026-11-11"),
        ("2026-05-23", "2026-11-19"),
        ("2026-11-10", "2026-11-12"),  # only a partial run there
        ("2026-11-09", "2026-11-20"),  # nothing at all, and an incomplete run
    ],
)
def test_changes_are_those_between_the_last_complete_audits_of_two_days(
    history: History, days: tuple[str, str]
) -> None:
    expected = []
    for registry in history.registries:
        last = {run.day: run for run in history.answering(registry)}
        chosen = [last[day] for day in sorted(days) if day in last]
        if not chosen:
            continue
        runs = {"registry": registry, "older_run": chosen[0].run_id, "newer_run": None}
        changes = []
        if len(chosen) == 2:
            older, newer = chosen
            runs["newer_run"] = newer.run_id
            for name in sorted(older.tags.keys() | newer.tags.keys()):
                before, after = older.tags.get(name), newer.tags.get(name)
                if moved := change(before, after):
                    changes.append((moved, name, before, after))
        columns = ("namespace", "repository", "tag", "verdict_before", "verdict_after", "digest", "author")
        expected += [
            {
                **runs,
                "change": moved,
                "namespace": name[0],
                "repository": name[1],
                "tag": name[2],
                "verdict_before": before.verdict if before else None,
                "verdict_after": after.verdict if after else None,
                "digest": after.digest if after else None,
                "author": after.author if after else None,
            }
            for moved, name, before, after in sorted(changes, key=lambda one: one[:2])
        ] or [{**runs, "change": None, **dict.fromkeys(columns)}]
    given = answer(history, "changes", *days)
    assert [{key: row[key] for key in row if key != "reason"} for row in given] == expected


def test_the_history_holds_each_kind_of_change(history: History) -> None:
    kinds = {row["change"] for row in answer(history, "changes", "2026-10-21", "2026-11-19")}
    assert kinds >= {"opened", "changed", "resolved: signed", "resolved: removed"}


# --- How it went ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("today", DAYS)
def test_the_trend_has_a_line_for_every_day_and_says_which_were_missed(history: History, today: date) -> None:
    expected = []
    for registry in history.registries:
        runs = defaultdict(list)
        for run in history.runs:
            if run.registry == registry and ago(90, today) <= run.day <= today.isoformat():
                runs[run.day].append(run)
        last = {run.day: run for run in history.answering(registry)}
        for back in range(days_between(min(runs), today.isoformat()) + 1 if runs else 0):
            day = ago(back, today)
            newest_run = last.get(day)
            tags = list(newest_run.tags.values()) if newest_run else []
            expected.append(
                {
                    "registry": registry,
                    "day": day,
                    "status": newest_run.record["status"] if newest_run else "NOT_REVIEWED",
                    "missed": newest_run is None and back > 0,
                    "runs": len(runs[day]),
                    "complete_audits": sum(one.answers for one in runs[day]),
                    "tags": len([tag for tag in tags if tag.verdict]) if newest_run else None,
                    "signed": len([tag for tag in tags if tag.verdict == "SIGNED"]) if newest_run else None,
                    "not_signed": len(failing(newest_run)) if newest_run else None,
                    "open_findings": len(failing(newest_run)) if newest_run else None,
                    "opened": sum(one.record["findings"]["opened"] for one in runs[day]) if runs[day] else None,
                    "resolved": sum(one.record["findings"]["resolved"] for one in runs[day]) if runs[day] else None,
                }
            )
    assert answer(history, "trend", today=today) == expected


def test_today_is_missed_only_when_it_is_over(history: History) -> None:
    def missed(today: date) -> set[str]:
        rows = answer(history, "trend", today=today)
        return {row["day"] for row in rows if row["registry"] == history.busy and row["missed"]}

    assert "2026-11-20" not in missed(TODAY)
    assert "2026-11-20" in missed(TODAY + timedelta(days=1))
    assert {"2026-11-03", "2026-11-12", "2026-10-25"} <= missed(TODAY)  # no run, a partial one, an incomplete one


@pytest.mark.parametrize("today", DAYS)
def test_the_coverage_is_reported_of_every_run(history: History, today: date) -> None:
    runs = [run for run in history.runs if run.day >= ago(90, today)]
    expected = []
    for run in sorted(runs, key=lambda run: run.run_id, reverse=True):
        repositories, tags, previous = (run.record[key] for key in ("repositories", "tags", "previous"))
        listed = repositories["listed"] - repositories["removed"]
        expected.append(
            {
                **only(dict(run.record), "registry", "run_id", "scope", "complete", "status"),
                "coverage_percent": math.floor(1000 * repositories["audited"] / listed + 0.5) / 10 if listed else 100.0,
                "repositories": repositories["listed"],
                "repositories_read": repositories["audited"],
                "unreadable": repositories["unreadable"],
                "removed_meanwhile": 0,
                "tags": len([tag for tag in run.tags.values() if tag.verdict]),
                "tags_unknown": tags["unknown"],
                "tags_before": previous["tags"] if previous else None,
                "only_namespaces": ", ".join(run.record["namespaces"]),
                "incomplete_because": " | ".join(run.record["incomplete_because"]),
            }
        )
    expected.sort(key=lambda row: row["registry"])
    given = answer(history, "coverage", today=today)
    assert [{key: row[key] for key in row if key != "seconds"} for row in given] == expected
    assert all(0 < row["seconds"] < 120 for row in given)
    if today == TODAY:
        assert {True, False} == {row["coverage_percent"] < 100 for row in given}


def times_to_sign(audits: Sequence[PastRun], *, first_ever: PastRun) -> list[Row]:
    teams = defaultdict(list)
    for one in stretches(audits, first_ever=first_ever):
        teams[one.name[0]].append(one)
    expected: list[Row] = []
    for namespace, found in teams.items():
        signed = [one for one in found if one.ended == "signed"]
        days = sorted(days_between(one.opened_on, one.ended_on) for one in signed if not one.may_be_older)
        expected.append(
            {
                "registry": first_ever.registry,
                "namespace": namespace,
                "signed": len(signed),
                "timed": len(days),
                "average_days": math.floor(10 * sum(days) / len(days) + 0.5) / 10 if days else None,
                "median_days": days[math.ceil(len(days) / 2) - 1] if days else None,
                "longest_days": days[-1] if days else None,
                "removed": len([one for one in found if one.ended == "removed"]),
                "still_open": len([one for one in found if not one.ended]),
            }
        )
    average = "average_days"
    return sorted(expected, key=lambda row: (row[average] is None, -(row[average] or 0), row["namespace"]))


@pytest.mark.parametrize("today", DAYS)
def test_the_time_to_sign_runs_from_the_first_audit_that_found_it_to_the_first_that_found_it_signed(
    history: History, today: date
) -> None:
    expected: list[Row] = []
    for registry in history.registries:
        audits = history.answering(registry, since=ago(180, today))
        if audits:
            expected += times_to_sign(audits, first_ever=history.answering(registry)[0])
    assert answer(history, "time-to-sign", today=today) == expected


def test_the_history_holds_findings_that_are_signed_removed_open_and_older_than_what_is_looked_at(
    history: History,
) -> None:
    rows = answer(history, "time-to-sign")
    assert max(row["longest_days"] or 0 for row in rows) > 10
    assert all(sum(row[column] for row in rows) for column in ("signed", "removed", "still_open"))
    assert any(row["timed"] < row["signed"] for row in rows)
    assert any(row["or_longer"] for row in answer(history, "oldest-open", today=date(2027, 2, 15)))


@pytest.mark.parametrize("today", DAYS)
def test_an_author_is_reported_of_images_that_an_audit_of_30_days_found_unsigned(history: History, today: date) -> None:
    expected: list[Row] = []
    for registry in history.registries:
        audits = history.answering(registry, since=ago(30, today))
        images: dict[str, dict[tuple[Name, str], list[tuple[Seen, bool]]]] = defaultdict(lambda: defaultdict(list))
        for run in audits:
            for name, tag in run.tags.items():
                if tag.verdict:
                    images[tag.author][name, tag.digest].append((tag, run is audits[-1]))
        for author, pushed in images.items():
            unsigned = {key: seen for key, seen in pushed.items() if any(tag.failing for tag, _ in seen)}
            if unsigned:
                expected.append(
                    {
                        "registry": registry,
                        "author": author,
                        "author_name": None,  # none of them is an id
                        "not_signed_now": len(
                            [seen for seen in unsigned.values() if any(tag.failing and last for tag, last in seen)]
                        ),
                        "not_signed": len(unsigned),
                        "images": len(pushed),
                        "percent": math.floor(1000 * len(unsigned) / len(pushed) + 0.5) / 10,
                        "last_push": max(tag.pushed_at for seen in unsigned.values() for tag, _ in seen),
                        "namespaces": ", ".join(sorted({name[0] for name, _ in unsigned})),
                    }
                )
    expected.sort(key=lambda row: (-row["not_signed_now"], -row["not_signed"], row["registry"], row["author"]))
    assert answer(history, "who-pushes-unsigned", today=today) == expected


# --- One tag, on one day -----------------------------------------------------------------------------------------------


def test_the_evidence_of_a_tag_is_what_each_run_of_the_day_saw_of_it(history: History) -> None:
    runs = [run for run in history.runs if run.day in {"2026-11-10", "2026-11-12", "2026-11-19", "2026-11-20"}]
    names = sorted({name for run in runs for name in run.tags} | {("nobody", "knows", "it")})
    for day in sorted({run.day for run in runs}):
        for name in random_sample(names):
            given = answer(history, "tag-evidence", *name, day)
            of_day = sorted((run for run in runs if run.day == day), key=lambda run: (run.registry, run.run_id))
            assert [row["answer"] for row in given] == [formatted(run, name) for run in of_day], (name, day)
            for row, run in zip(given, of_day, strict=True):
                tag = run.tags.get(name)
                assert (row["registry"], row["run_id"]) == (run.registry, run.run_id)
                assert (row["scope"], row["complete"]) == (run.record["scope"], run.record["complete"])
                assert (row["digest"], row["author"]) == ((tag.digest, tag.author) if tag else (None, None))
                assert (row["audited_at"] is None) is (tag is None)
                assert (history.folder / row["record_key"]).is_file()
                assert row["manifest_key"] == run.record["evidence"].get("manifest")
                if tag:
                    found = list(history.folder.glob(f"{row['rows_prefix']}*.jsonl.gz"))
                    assert tag.digest in "".join(gzip.decompress(file.read_bytes()).decode() for file in found)


def formatted(run: PastRun, name: Name) -> str:
    tag = run.tags.get(name)
    if tag is not None:
        return tag.verdict or "a signature artifact, not an image"
    return "not in the registry" if run.answers else "not seen: this run did not read the whole registry"


def random_sample(names: Sequence[Name]) -> Sequence[Name]:
    """Give some names of each kind: every thirteenth, the artifacts, and the one that is nowhere."""
    return [
        name for number, name in enumerate(names) if number % 13 == 0 or "sha256-" in name[2] or name[0] == "nobody"
    ]


def test_no_run_on_a_day_is_no_evidence(history: History) -> None:
    assert answer(history, "tag-evidence", "web", "base", "1.0", "2026-11-13") == []


# --- Exceptions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def excepted(history: History, tmp_path: Path) -> tuple[Path, list[tuple[Name, str]]]:
    """A copy in which findings are excepted in turn; gives those of the newest complete audit, and until when."""
    folder = tmp_path / "excepted"
    shutil.copytree(history.folder, folder)
    run = history.answering(history.busy)[-1]
    ends = [ago(back, TODAY) for back in (1, 0, -7, -8, -400)]
    until = {name: ends[number % 5] for number, (name, _) in enumerate(failing(run)) if number % 6}
    for file in folder.glob(f"findings/registry={history.busy}/dt={run.day}/*"):  # of a partial run too
        rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
        for row in rows:
            end = until.get((row["namespace"], row["repository"], row["tag"]))
            row |= {"exception_id": end and f"EX-{end}", "exception_ends": end}
        file.write_bytes(gzip.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode()))
    return folder, sorted(until.items(), key=lambda one: (one[1], one[0]))


@pytest.mark.parametrize("today", DAYS)
def test_excepted_findings_come_with_the_days_that_are_left(
    excepted: tuple[Path, list[tuple[Name, str]]], history: History, today: date
) -> None:
    folder, until = excepted
    expected: list[tuple[object, ...]] = []
    if run := newest(history, history.busy, days=35, today=today):
        for name, end in until:
            left = days_between(today.isoformat(), end)
            state = "ended" if left < 0 else "ends within a week" if left <= 7 else "in force"
            tag = run.tags[name]
            expected.append((history.busy, run.run_id, f"EX-{end}", end, left, state, *name, tag.verdict, tag.digest))
    if run := newest(history, history.calm, days=35, today=today):
        expected.append((history.calm, run.run_id, *[None] * 9))
    of_exception = ("exception_id", "exception_ends", "days_left", "state")
    columns = ("registry", "run_id", *of_exception, "namespace", "repository", "tag", "verdict", "digest")
    given = answer(folder, "exceptions", today=today)
    assert [tuple(only(row, *columns).values()) for row in given] == expected
    if today == TODAY:
        assert {row["days_left"] for row in given} == {-1, 0, 7, 8, 400, None}


def test_an_excepted_finding_is_among_the_open_ones_still(
    excepted: tuple[Path, list[tuple[Name, str]]], history: History
) -> None:
    folder, until = excepted
    rows = [row for row in answer(folder, "open-findings") if row["registry"] == history.busy]
    assert len(rows) == len(failing(history.answering(history.busy)[-1])) > len(until)
    assert sorted(row["exception_ends"] for row in rows if row["exception_id"]) == sorted(end for _, end in until)


def test_where_nothing_is_excepted_a_row_says_of_which_run(history: History) -> None:
    given = answer(history, "exceptions")
    assert [(row["registry"], row["run_id"], row["tag"]) for row in given] == [
        (registry, history.answering(registry)[-1].run_id, None) for registry in history.registries
    ]


# --- What is not kept any more --------------------------------------------------------------------------------------


@pytest.fixture
def thinned(history: History, tmp_path: Path) -> Path:
    """A copy whose rows before November have expired, and those of the newest complete audit too; the records are kept."""
    folder = tmp_path / "thinned"
    shutil.copytree(history.folder, folder)
    for file in folder.glob("findings/*/*/*"):
        if file.parent.name < "dt=2026-11-01" or file.parent.name == "dt=2026-11-19":
            file.unlink()
    return folder


def test_an_audit_whose_rows_are_gone_finds_nothing_rather_than_that_there_is_nothing(
    thinned: Path, history: History
) -> None:
    assert {row["registry"] for row in answer(thinned, "open-findings")} == {history.calm}
    assert {row["registry"] for row in answer(thinned, "oldest-open")} == {history.calm}
    (row,) = (row for row in answer(thinned, "changes", "2026-11-18", "2026-11-19") if row["registry"] == history.busy)
    assert (row["older_run"], row["newer_run"], row["change"]) == ("20261118T030000Z", None, None)
    answers = {row["answer"] for row in answer(thinned, "tag-evidence", "web", "base", "1.0", "2026-11-19")}
    assert answers == {"the rows of this run are no longer kept"}


def test_exceptions_whose_rows_are_gone_are_not_taken_for_none(thinned: Path, history: History) -> None:
    for file in thinned.glob(f"runs/registry={history.busy}/dt=2026-11-19/20261119T030000Z.json"):
        record = json.loads(file.read_bytes())
        record["findings"]["excepted"] = 2
        file.write_text(json.dumps(record), encoding="utf-8")
    assert {row["registry"] for row in answer(thinned, "exceptions")} == {history.calm}


def test_what_was_open_in_the_oldest_rows_may_be_older(thinned: Path, history: History) -> None:
    for file in thinned.glob("runs/*/dt=2026-11-19/*"):
        file.unlink()
    first_ever = history.answering(history.busy)[0]
    audits = [run for run in history.answering(history.busy) if "2026-11-01" <= run.day < "2026-11-19"]
    given = [row for row in answer(thinned, "oldest-open") if row["registry"] == history.busy]
    open_now = {one.name: one for one in stretches(audits, first_ever=first_ever) if not one.ended}
    assert {(row["namespace"], row["repository"], row["tag"]): row["or_longer"] for row in given} == {
        name: one.may_be_older for name, one in open_now.items()
    }
    assert {row["or_longer"] for row in given} == {True, False}
    calm = [run for run in history.answering(history.calm) if run.day < "2026-11-19"]
    expected = times_to_sign(audits, first_ever=first_ever) + times_to_sign(calm, first_ever=calm[0])
    assert answer(thinned, "time-to-sign") == expected


def test_every_registry_has_a_newest_audit_of_its_own(thinned: Path, history: History) -> None:
    for file in thinned.glob("runs/*/dt=2026-11-19/*"):
        file.unlink()
    newest_runs = {row["registry"]: row["run_id"] for row in answer(thinned, "open-findings")}
    assert newest_runs == {history.busy: "20261118T030000Z", history.calm: "20261111T030000Z"}
    pushers = [row for row in answer(thinned, "who-pushes-unsigned") if row["registry"] == history.calm]
    assert {row["author"]: row["not_signed_now"] for row in pushers} == {AUTHORS[4]: 1, AUTHORS[3]: 0}
