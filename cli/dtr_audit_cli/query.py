"""The questions of queries/ asked of a folder of results: SQL for Athena, answered on this machine by DuckDB.

The folder holds what the bucket holds, so the tables are the same, and so are the answers. What the two engines understand
differently is put right in the query's syntax tree before DuckDB gets to see it.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify

from dtr_audit.core.text import clean
from dtr_audit_cli.query_files import FOLDER, NamedQuery

DIALECT = "athena"
PARTITIONS = ("registry", "dt")
FILES = {"findings": "findings/registry=*/dt=*/*.jsonl.gz", "runs": "runs/registry=*/dt=*/*.json"}
ROWS_SHOWN = 100
CELL_LENGTH = 300
_NOTHING = "-"
_FORMULA_STARTS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)  # the last four are their full-width forms
_GLOB = frozenset("*?[")

Schema = Mapping[str, Mapping[str, exp.DataType]]  # table -> column -> type, the partitions too


class QueryError(Exception):
    """A question that cannot be answered; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows that a query gives."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


def read_schema(folder: Path = FOLDER) -> Schema:
    """Read the tables from their DDL."""
    return {file.stem: _columns(file) for file in sorted((folder / "tables").glob("*.sql"))}


def _columns(file: Path) -> dict[str, exp.DataType]:
    ddl = sqlglot.parse_one(file.read_text(encoding="utf-8"), dialect=DIALECT)
    partitions = ddl.find(exp.PartitionedByProperty)
    if partitions is None:
        raise QueryError(f"{file}: its table has no partitions.")
    declared = [*ddl.this.expressions, *partitions.this.expressions]
    return {column.name: column.kind for column in declared}


def parse(query: NamedQuery, schema: Schema, *, today: date) -> exp.Query:
    """Parse a query as of `today` (UTC), every column traced to its table, every expression with its type.

    Raises QueryError for what Athena would refuse: wrong syntax, an unknown table or column, anything but one SELECT.
    """
    types: dict[str, object] = {
        table: {name: kind.sql(DIALECT) for name, kind in columns.items()} for table, columns in schema.items()
    }
    try:
        (tree,) = sqlglot.parse(query.sql, dialect=DIALECT)
        if not isinstance(tree, exp.Query):
            raise QueryError(f"{query.name}: it is to be a SELECT, and nothing besides.")
        day = exp.cast(exp.Literal.string(today.isoformat()), "date")
        for now in list(tree.find_all(exp.CurrentDate)):
            now.replace(day.copy())
        qualify(tree, dialect=DIALECT, schema=types)
        annotate_types(tree, schema=types, dialect=DIALECT)
    except (SqlglotError, ValueError) as error:
        raise QueryError(f"{query.name}: {error}") from error
    return tree


def translate(tree: exp.Query) -> str:
    """Write a parsed query for DuckDB."""
    return tree.transform(_keep_dates).sql(dialect="duckdb")


def _keep_dates(node: exp.Expr) -> exp.Expr:
    """Let a date stay one: DuckDB makes a timestamp of a date and an interval, which as text has a time of day."""
    if isinstance(node, exp.Add | exp.Sub) and node.is_type(exp.DType.DATE):
        return exp.cast(node, "date")
    if isinstance(node, exp.GenerateSeries) and node.is_type("array<date>"):
        return exp.cast(node, "array<date>")
    return node


def ask(query: NamedQuery, folder: Path, values: Sequence[str], *, today: date) -> Answer:
    """Ask a query of the results in `folder`, as of `today` (UTC). Raises QueryError."""
    if len(values) != len(query.parameters):
        wanted = "; ".join(f"{number}. {text}" for number, text in enumerate(query.parameters, 1)) or "none"
        raise QueryError(f"{query.name}: {len(values)} values are given. What it needs, in this order: {wanted}.")
    schema = read_schema()
    tree = parse(query, schema, today=today)
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as engine:
        try:
            for table, columns in schema.items():
                engine.execute(_view(table, columns, folder))
            engine.execute(translate(tree), list(values))
            return Answer(tuple(column[0] for column in engine.description or ()), engine.fetchall())
        except duckdb.Error as error:
            raise QueryError(f"{query.name}, of {folder}: {error}") from error


def _view(table: str, columns: Mapping[str, exp.DataType], folder: Path) -> str:
    """Write the statement that makes a table of the files in `folder`; they are read when it is asked."""
    files = sorted(str(file) for file in folder.glob(FILES[table]))
    if not files and table == "runs":
        raise QueryError(f"{folder}: no audit has left its results there. Name the folder of one by --output.")
    if _GLOB & set(str(folder)):
        raise QueryError(f"{folder}: DuckDB takes *, ? and [ in a folder's name for patterns. Give it another name.")
    types = {name: kind.sql("duckdb") for name, kind in columns.items()}
    if not files:  # of a registry without images
        empty = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in types.items())
        return f"CREATE VIEW {table} AS SELECT {empty} WHERE false"
    listed = ", ".join(exp.Literal.string(file).sql("duckdb") for file in files)
    content = ", ".join(f"{name}: '{kind}'" for name, kind in types.items() if name not in PARTITIONS)
    partitions = ", ".join(f"{name}: {types[name]}" for name in PARTITIONS)
    return (
        f"CREATE VIEW {table} AS SELECT * FROM read_json([{listed}], format = 'newline_delimited', "  # noqa: S608 (of the DDL)
        f"columns = {{{content}}}, hive_partitioning = true, hive_types = {{{partitions}}})"
    )


def write_csv(answer: Answer) -> None:
    """Print all rows as CSV, nulls as nothing, as Athena's own results are; a spreadsheet runs none of the texts as a formula."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([_csv_cell(cell) for cell in row] for row in answer.rows)


def _csv_cell(cell: object) -> str:
    """Write one cell; a text that a spreadsheet takes for a formula gets an apostrophe before it.

    Source: OWASP, CSV Injection. A number stays a number, also a negative one.
    """
    if cell is None:
        return ""
    text = _formatted(cell)
    return f"'{text}" if isinstance(cell, str) and text.startswith(_FORMULA_STARTS) else text


def lay_out(answer: Answer, width: int) -> Iterator[str]:
    """Give the first rows as lines for people: a table where that fits into `width`, or else a column a line.

    Names come from outside: whatever could move a cursor is taken out of them.
    """
    shown = [[_cell(cell) for cell in row] for row in answer.rows[:ROWS_SHOWN]]
    widths = [max(map(len, column)) for column in zip(answer.columns, *shown, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        yield _line(answer.columns, widths)
        yield _line(["-" * one for one in widths], widths)
        yield from (_line(row, widths) for row in shown)
    else:
        longest = max(map(len, answer.columns))
        for row in shown:
            yield from (f"{name:<{longest}}  {cell}" for name, cell in zip(answer.columns, row, strict=True))
            yield ""
    count = len(answer.rows)
    if not count:
        yield "No row."
    elif count > ROWS_SHOWN:
        yield f"and {count - ROWS_SHOWN} rows more: --csv gives all of them"


def describe(queries: Iterable[NamedQuery]) -> Iterator[str]:
    """Give lines that say what can be asked."""
    for query in queries:
        yield " ".join([query.name, *(f"<{_shorten(text)}>" for text in query.parameters)])
        yield f"    {query.question}"


def _shorten(parameter: str) -> str:
    return parameter.partition(",")[0].removeprefix("the ")


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    return _NOTHING if value is None else clean(_formatted(value), CELL_LENGTH)


def _formatted(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
