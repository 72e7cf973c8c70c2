"""The SQL of queries/, as Athena has to understand it: read with its dialect, against the schema of the DDL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from sqlglot import exp

from dtr_audit_cli.query import QueryError, parse, read_schema, translate
from dtr_audit_cli.query_files import NamedQuery, QueryFileError, embed, named_queries
from dtr_audit_simulator import PROJECT

SCHEMA = read_schema()
QUERIES = {query.name: query for query in named_queries()}
TODAY = date(2026, 11, 20)

# What is used of Athena's engine version 3, which is Trino. Each is in Trino's documentation with the meaning that the tests show;
# look there before one is added.
FUNCTIONS = {
    *("array_agg", "avg", "bool_or", "count", "count_if", "max", "min", "sum"),
    *("lead", "row_number"),
    *("array_join", "coalesce", "concat", "element_at", "sequence"),
    *("ceil", "date_diff", "from_iso8601_timestamp", "round"),
}
SYNTAX = {"over", "in", "as", "and", "or", "on", "cast", "try_cast", "unnest", "filter", "c", "where", "from"}
# sqlglot knows no type for the value of a map.
UNTYPED = {("tag-evidence", "manifest_key")}


def code(query: NamedQuery) -> str:
    return re.sub(r"--.*", "", query.sql)


@pytest.fixture(params=QUERIES)
def query(request: pytest.FixtureRequest) -> NamedQuery:
    return QUERIES[request.param]


def test_the_questions_that_people_ask_are_there() -> None:
    assert list(QUERIES) == [
        "changes",
        "coverage",
        "exceptions",
        "oldest-open",
        "open-findings",
        "signed-with",
        "tag-evidence",
        "time-to-sign",
        "trend",
        "who-pushes-unsigned",
    ]


# --- What Athena understands -------------------------------------------------------------------------------------------


def test_every_column_is_one_of_the_tables_and_has_a_type(query: NamedQuery) -> None:
    tree = parse(query, SCHEMA, today=TODAY)
    untyped = {(query.name, one.alias_or_name) for one in tree.selects if one.is_type(exp.DType.UNKNOWN)}
    assert untyped <= UNTYPED


def test_a_query_is_one_select_and_changes_nothing(query: NamedQuery) -> None:
    assert isinstance(parse(query, SCHEMA, today=TODAY), exp.Select)
    assert ";" not in code(query)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nothing FROM runs",
        "SELECT tags.nothing FROM elsewhere",
        "SELECT registry FROM runs; SELECT registry FROM runs",
        "CREATE TABLE copy AS SELECT registry FROM runs",
        "INSERT INTO runs SELECT * FROM runs",
        "SELECT registry FROM",
    ],
)
def test_what_athena_would_refuse_or_write_with_is_refused(sql: str) -> None:
    with pytest.raises(QueryError, match=r"^trend: "):
        parse(replace(QUERIES["trend"], sql=sql), SCHEMA, today=TODAY)


def test_only_functions_of_athenas_engine_are_used(query: NamedQuery) -> None:
    called = {name.lower() for name in re.findall(r"\b(\w+)\s*\(", code(query))}
    tables = {name.lower() for name in re.findall(r"\b(\w+) AS \(", code(query))}
    assert called - tables - SYNTAX <= FUNCTIONS
    assert not list(parse(query, SCHEMA, today=TODAY).find_all(exp.Anonymous))


def test_no_two_whole_numbers_are_divided(query: NamedQuery) -> None:
    # Athena would cut off what is behind the point; and in decimals it would round to the places of the operands.
    for division in parse(query, SCHEMA, today=TODAY).find_all(exp.Div):
        assert exp.DType.DOUBLE in {side.type.this for side in (division.left, division.right) if side.type}


def test_only_dates_are_subtracted_in_days(query: NamedQuery) -> None:
    # Between timestamps Athena counts whole days, and DuckDB midnights.
    for difference in parse(query, SCHEMA, today=TODAY).find_all(exp.DateDiff):
        unit = difference.args["unit"].name.upper()
        if unit == "DAY":
            assert difference.this.is_type(exp.DType.DATE)
            assert difference.expression.is_type(exp.DType.DATE)
        else:
            assert unit == "MILLISECOND"


def test_nothing_belongs_to_one_partition_of_aws(query: NamedQuery) -> None:
    assert not re.search(r"arn:|s3://|amazonaws|gov", query.sql)


# --- Parameters ----------------------------------------------------------------------------------------------------------


def test_every_question_mark_is_explained(query: NamedQuery) -> None:
    tree = parse(query, SCHEMA, today=TODAY)
    assert len(list(tree.find_all(exp.Placeholder))) == len(query.parameters) == code(query).count("?")
    numbers = re.findall(r"^-- Parameter (\d)", query.sql, re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, len(query.parameters) + 1))


def test_parameters_stand_only_where_athena_takes_them(query: NamedQuery) -> None:
    for parameter in parse(query, SCHEMA, today=TODAY).find_all(exp.Placeholder):
        assert parameter.find_ancestor(exp.Where, exp.Join, exp.Select).__class__ is exp.Where


# --- Cost: what is read ------------------------------------------------------------------------------------------------


def scans(tree: exp.Expr, table: str) -> Iterator[tuple[exp.Select, str]]:
    """Give each SELECT that reads a table, with the name it has there."""
    for one in tree.find_all(exp.Table):
        select = one.find_ancestor(exp.Select)
        if one.name == table and select is not None:
            yield select, one.alias_or_name


def conditions(select: exp.Select) -> Iterator[exp.Expr]:
    """Give what is demanded of the rows of a SELECT, in WHERE and ON."""
    found = [part.args.get("on") for part in select.args.get("joins", [])]
    where = select.args.get("where")
    for one in [*found, where.this if where else None]:
        if one is not None:
            yield from (one.flatten() if isinstance(one, exp.And) else [one])


def is_pruned(tree: exp.Expr, select: exp.Select, name: str, column: str = "dt") -> bool:
    """Tell whether a table's days are limited by what is known before it is read.

    By a comparison with something that has no column in it, or by being equal to a column that is so limited: Trino hands such
    limits on. Or whoever reads this SELECT limits it, by a column that it groups by or numbers its rows within.
    """
    for condition in conditions(select):
        sides = list(condition.find_all(exp.Column))
        mine = [side for side in sides if (side.table, side.name) == (name, column)]
        if not mine:
            continue
        others = [side for side in sides if side not in mine]
        if not others and not isinstance(condition, exp.Or):
            return True
        if isinstance(condition, exp.EQ) and any(
            side.table != name and is_limited(conditions(select), side) for side in others
        ):
            return True
    outer = select.find_ancestor(exp.CTE)
    if outer is None or not keeps(select, column):
        return False
    readers = list(scans(tree, outer.alias))
    return bool(readers) and all(is_pruned(tree, reader, as_name) for reader, as_name in readers)


def is_limited(demands: Iterator[exp.Expr], wanted: exp.Column) -> bool:
    return any(
        {(side.table, side.name) for side in demand.find_all(exp.Column)} == {(wanted.table, wanted.name)}
        for demand in demands
        if not isinstance(demand, exp.EQ) or not isinstance(demand.expression, exp.Column)
    )


def keeps(select: exp.Select, column: str) -> bool:
    """Tell whether a limit on a column of the result may be put on what it is made of."""
    group = select.args.get("group")
    if group is not None:
        return column in {one.name for one in group.expressions}
    return all(
        column in {part.name for part in window.args.get("partition_by", [])} for window in select.find_all(exp.Window)
    )


def test_no_query_reads_the_rows_of_all_days(query: NamedQuery) -> None:
    tree = parse(query, SCHEMA, today=TODAY)
    for table in SCHEMA:
        for select, name in scans(tree, table):
            assert is_pruned(tree, select, name), f"{table} as {name}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT f.tag FROM findings AS f",
        "SELECT f.tag FROM findings AS f WHERE f.tag = ?",
        "SELECT f.tag FROM findings AS f WHERE f.dt = f.pushed_at",
        "SELECT f.tag FROM findings AS f WHERE f.dt = ? OR f.tag = ?",
        "SELECT f.tag FROM runs AS r INNER JOIN findings AS f ON f.dt = r.dt",
        "WITH n AS (SELECT dt, row_number() OVER (ORDER BY tag) AS i FROM findings) SELECT i FROM n WHERE n.dt = ?",
    ],
)
def test_a_query_that_reads_all_days_would_be_found(sql: str) -> None:
    tree = parse(replace(QUERIES["trend"], sql=sql), SCHEMA, today=TODAY)
    ((select, name),) = scans(tree, "findings")
    assert not is_pruned(tree, select, name)


# --- DuckDB in Athena's place -----------------------------------------------------------------------------------------


def test_a_date_less_some_days_is_a_date_without_a_time() -> None:
    one_day = replace(QUERIES["trend"], sql="SELECT CAST(current_date - INTERVAL '1' DAY AS varchar) AS day FROM runs")
    assert "AS DATE) - INTERVAL" in translate(parse(one_day, SCHEMA, today=TODAY))
    assert translate(parse(one_day, SCHEMA, today=TODAY)).count("AS DATE)") == 2


# --- The files and the template ---------------------------------------------------------------------------------------


def test_a_query_begins_with_its_question(query: NamedQuery) -> None:
    assert query.question.endswith("?")
    assert len(query.question) <= 1024  # of a description in Athena
    assert query.notes
    assert len(query.sql) <= 262_144


def test_a_file_without_a_question_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.sql"
    file.write_text("SELECT 1\n", encoding="utf-8")
    with pytest.raises(QueryFileError, match="first line"):
        NamedQuery.read(file)


def test_the_documentation_lists_every_query_with_its_question_and_what_it_needs() -> None:
    text = (PROJECT / "docs" / "queries.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.*?) ?\|$", text, re.MULTILINE)
    assert {name: question for name, question, _ in rows} == {name: query.question for name, query in QUERIES.items()}
    for name, _, needs in rows:
        assert bool(needs) is bool(QUERIES[name].parameters)


MARKS = (
    "Resources:\n"
    "  # --- Named queries, written by `make queries` from queries/*.sql: change them there\n"
    "  Former: {}\n"
    "  # --- The end of what `make queries` writes\n"
    "Outputs: {}\n"
)


def test_what_stood_between_the_marks_is_replaced_and_nothing_else() -> None:
    once = embed(MARKS, list(QUERIES.values()))
    assert "Former" not in once
    assert once.startswith(MARKS.partition("  Former")[0])
    assert once.endswith("make queries` writes\nOutputs: {}\n")
    assert embed(once, list(QUERIES.values())) == once


@pytest.mark.parametrize("text", ["Resources:\n", MARKS * 2, MARKS.replace("The end", "End")])
def test_a_template_without_one_place_for_them_is_refused(text: str) -> None:
    with pytest.raises(QueryFileError, match="each once"):
        embed(text, list(QUERIES.values()))
