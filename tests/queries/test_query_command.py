"""`dtr-audit query`: what a user asks on a laptop, and what is said when that cannot be answered."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dtr_audit_cli.__main__ import main
from dtr_audit_cli.exit_status import ExitStatus
from dtr_audit_cli.query import ROWS_SHOWN, Answer, lay_out, write_csv
from dtr_audit_cli.query_files import named_queries
from dtr_audit_simulator import PROJECT
from tests.harness.command import PYTHON_PATH
from tests.queries.history import History

NAMES = [query.name for query in named_queries()]


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["query", *arguments])
    reported = capsys.readouterr()
    return status, reported.out, reported.err


def test_without_a_name_it_reports_what_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == NAMES
    assert "tag-evidence <namespace> <repository> <tag> <day>" in out


@pytest.mark.parametrize("name", NAMES)
def test_every_query_answers_of_a_folder(name: str, history: History, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"changes": ["2026-11-18", "2026-11-19"], "tag-evidence": ["web", "base", "1.0", "2026-11-19"]}
    status, out, err = asked(capsys, name, *values.get(name, []), "--output", str(history.folder))
    assert (status, err) == (0, "")
    assert out.splitlines()


def test_csv_has_every_row_for_a_program(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys, "who-pushes-unsigned", "--csv", "--output", str(history.folder))
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {"'; DROP TABLE findings; --", 'a,b"c'} <= {row["author"] for row in rows}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_csv_text_that_begins_like_a_formula_is_neutralised(start: str, capsys: pytest.CaptureFixture[str]) -> None:
    formula = f'{start}HYPERLINK("https://elsewhere.example","click")'
    write_csv(Answer(("author", "tags"), [(formula, -1), ("ci-platform", 2.5), (None, True)]))
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))
    assert rows == [["author", "tags"], [f"'{formula}", "-1"], ["ci-platform", "2.5"], ["", "true"]]


def test_a_value_is_a_value_and_never_sql(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    values = ("' OR '1'='1", "base", "1.0", "2026-11-19")
    _, out, _ = asked(capsys, "tag-evidence", *values, "--csv", "--output", str(history.folder))
    assert {row["digest"] for row in csv.DictReader(io.StringIO(out))} == {""}


def test_an_unknown_query_is_refused_with_the_names_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["query", "nothing"])
    assert ended.value.code == 2
    reported = capsys.readouterr().err
    assert all(name in reported for name in NAMES)


@pytest.mark.parametrize("values", [[], ["2026-11-18"], ["a", "b", "c"]])
def test_missing_or_surplus_values_are_reported_by_what_is_needed(
    values: list[str], history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = asked(capsys, "changes", *values, "--output", str(history.folder))
    assert (status, out) == (ExitStatus.NOT_COMPLETED, "")
    assert f"changes: {len(values)} values are given" in err
    assert "1. one day, such as '2026-11-01'; 2. the other day" in err


def test_a_folder_without_results_is_reported_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = asked(capsys, "trend", "--output", str(tmp_path))
    assert status == ExitStatus.NOT_COMPLETED
    assert f"{tmp_path}: no audit has left its results there. Name the folder of one by --output." in err


def test_a_file_that_is_no_record_is_reported_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs" / "registry=a" / "dt=2026-11-01" / "20261101T030000Z.json"
    file.parent.mkdir(parents=True)
    file.write_text("{broken\n", encoding="utf-8")
    status, _, err = asked(capsys, "trend", "--output", str(tmp_path))
    assert status == ExitStatus.NOT_COMPLETED
    assert str(file) in err


def test_a_folder_whose_name_is_a_pattern_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out[1]" / "runs" / "registry=a" / "dt=2026-11-01" / "20261101T030000Z.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}\n", encoding="utf-8")
    status, _, err = asked(capsys, "trend", "--output", str(tmp_path / "out[1]"))
    assert status == ExitStatus.NOT_COMPLETED
    assert "Give it another name" in err


def test_a_registry_without_a_single_row_is_an_answer_too(
    history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = history.folder.glob(f"runs/registry={history.calm}/dt=2026-11-10/*")
    file = tmp_path / record.relative_to(history.folder)
    file.parent.mkdir(parents=True)
    file.write_bytes(record.read_bytes())
    status, out, err = asked(
        capsys, "tag-evidence", "team", "tool", "2", "2026-11-10", "--csv", "--output", str(tmp_path)
    )
    assert (status, err) == (0, "")
    assert [row["answer"] for row in csv.DictReader(io.StringIO(out))] == ["not in the registry"]


def test_a_reader_who_has_seen_enough_ends_it_without_a_word(history: History) -> None:
    with subprocess.Popen(  # noqa: S603 (this project itself)
        [sys.executable, "-m", "dtr_audit_cli", "query", "open-findings", "--csv", "--output", str(history.folder)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": PYTHON_PATH, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.wait() == 0
        assert running.stderr.read() == b""


# --- For people -------------------------------------------------------------------------------------------------------

HOSTILE = "\x1b[2J\x1b[31mred\u202etxt.exe\r\n"


def test_nothing_that_a_registry_names_can_move_the_cursor() -> None:
    for width in (20, 200):
        text = "\n".join(lay_out(Answer(("tag", "days"), [(HOSTILE, 1)]), width))
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\r" not in text


def test_a_table_that_is_too_wide_becomes_a_column_a_line() -> None:
    answer = Answer(("tag", "open_since", "excepted"), [("1.0", None, True), ("1.1", "2026-11-01", False)])
    assert list(lay_out(answer, 80)) == [
        "tag  open_since  excepted",
        "---  ----------  --------",
        "1.0  -           true",
        "1.1  2026-11-01  false",
    ]
    assert list(lay_out(answer, 20)) == [
        "tag         1.0",
        "open_since  -",
        "excepted    true",
        "",
        "tag         1.1",
        "open_since  2026-11-01",
        "excepted    false",
        "",
    ]


def test_no_row_is_said() -> None:
    assert list(lay_out(Answer(("tag",), []), 80))[-1] == "No row."


def test_many_rows_are_cut_and_said_to_be() -> None:
    lines = list(lay_out(Answer(("number",), [(n,) for n in range(ROWS_SHOWN + 7)]), 80))
    assert len(lines) == ROWS_SHOWN + 3
    assert re.match("and 7 rows more: --csv", lines[-1])
