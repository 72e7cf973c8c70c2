"""The tables as their DDL declares them, against the documented contract and against what the function really wrote."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest
import sqlglot
from sqlglot import exp

from dtr_audit_cli.query import PARTITIONS, read_schema
from dtr_audit_cli.query_files import FOLDER
from dtr_audit_simulator import PROJECT
from tests.queries.history import History

SCHEMA = read_schema()
CONTRACTS = (PROJECT / "docs" / "contracts.md").read_text(encoding="utf-8")
# Athena takes none of them as a name without quotes.
RESERVED = {
    *("all", "and", "array", "as", "between", "by", "case", "cast", "create", "cross", "current", "date", "delete"),
    *("describe", "distinct", "drop", "else", "end", "except", "exists", "extract", "false", "for", "from", "full"),
    *("function", "group", "grouping", "having", "if", "in", "insert", "int", "interval", "into", "is", "join", "left"),
    *("like", "local", "map", "natural", "none", "normalize", "not", "null", "of", "on", "or", "order", "out", "outer"),
    *("over", "partition", "percent", "primary", "range", "right", "row", "rows", "select", "set", "start", "table"),
    *("then", "time", "timestamp", "to", "trigger", "true", "union", "unnest", "update", "user", "using", "values"),
    *("when", "where", "window", "with"),
}


def example(name: str) -> dict[str, Any]:
    found = re.search(rf"^<!-- example: {name} -->\n```json\n(.*?)^```$", CONTRACTS, re.MULTILINE | re.DOTALL)
    assert found
    document: dict[str, Any] = json.loads(found[1])
    return document


def declared(table: str) -> dict[str, exp.DataType]:
    return {name: kind for name, kind in SCHEMA[table].items() if name not in PARTITIONS}


def fits(value: object, kind: exp.DataType) -> bool:
    """Tell whether a value of JSON can be read as a type, each key of an object as a field of the struct."""
    if value is None:
        return True
    if kind.is_type(exp.DType.ARRAY):
        return isinstance(value, list) and all(fits(one, kind.expressions[0]) for one in value)
    if kind.is_type(exp.DType.MAP):
        of_values = kind.expressions[1]
        return isinstance(value, dict) and all(fits(one, of_values) for one in value.values())
    if kind.is_type(exp.DType.STRUCT):
        fields = {field.name: field.kind for field in kind.expressions}
        return (
            isinstance(value, dict)
            and value.keys() == fields.keys()
            and all(fits(value[name], field) for name, field in fields.items())
        )
    kinds = {exp.DType.TEXT: str, exp.DType.BIGINT: int, exp.DType.BOOLEAN: bool}
    return type(value) is kinds[kind.this]


def misfits(document: dict[str, Any], table: str) -> set[str]:
    """Name the keys without a column, the columns without a key, and those of another type."""
    columns = declared(table)
    names = document.keys() - {"registry"} ^ columns.keys()
    return names | {name for name in columns.keys() & document.keys() if not fits(document[name], columns[name])}


@pytest.mark.parametrize(("name", "table"), [("row", "findings"), ("run", "runs")])
def test_the_columns_are_the_documented_keys(name: str, table: str) -> None:
    assert misfits(example(name), table) == set()


def test_the_columns_are_the_keys_that_the_function_writes(history: History) -> None:
    wrong = set()
    for file in history.folder.glob("findings/*/*/*.jsonl.gz"):
        for line in gzip.decompress(file.read_bytes()).splitlines():
            wrong |= misfits(json.loads(line), "findings")
    for file in history.folder.glob("runs/*/*/*.json"):
        (line,) = file.read_bytes().splitlines()  # an object a line is all that Athena can read
        wrong |= misfits(json.loads(line), "runs")
    assert wrong == set()


def test_a_value_of_another_type_would_be_found() -> None:
    run = example("run")
    assert misfits({**run, "tags": {**run["tags"], "signed": "6"}}, "runs") == {"tags"}
    assert misfits({**run, "tags": {}}, "runs") == {"tags"}
    assert misfits({**run, "more": 1}, "runs") == {"more"}
    assert misfits({**run, "complete": 1}, "runs") == {"complete"}


def test_a_partition_is_no_column(history: History) -> None:
    for table in SCHEMA:
        names = [column.name for column in tables()[table].this.expressions]
        assert not set(names) & set(PARTITIONS)
        assert list(SCHEMA[table])[-2:] == list(PARTITIONS)  # as their folders lie in each other
        first = next(file for file in history.folder.glob(f"{table}/*/*/*") if file.is_file())
        assert [part.split("=")[0] for part in first.relative_to(history.folder).parts[1:3]] == list(PARTITIONS)


def test_names_are_lower_case_and_not_reserved() -> None:
    for columns in SCHEMA.values():
        assert all(re.fullmatch(r"[a-z_]+", name) for name in columns)
        assert not set(columns) & RESERVED


def tables() -> dict[str, exp.Create]:
    parsed = {
        file.stem: sqlglot.parse_one(file.read_text(encoding="utf-8"), dialect="athena")
        for file in (FOLDER / "tables").glob("*.sql")
    }
    return {name: ddl for name, ddl in parsed.items() if isinstance(ddl, exp.Create)}


def test_each_table_is_named_as_its_file_and_lies_where_the_function_writes() -> None:
    assert set(tables()) == {"findings", "runs"}
    for name, ddl in tables().items():
        assert ddl.this.this.name == name
        location = ddl.find(exp.LocationProperty)
        assert location is not None
        assert location.this.name == f"s3://BUCKET/{name}/"


def test_days_are_projected_as_dates_and_registries_as_an_enumeration() -> None:
    for ddl in tables().values():
        given = {one.this.name: one.args["value"].name for one in ddl.find_all(exp.Property) if "value" in one.args}
        projected = {key.removeprefix("projection."): value for key, value in given.items() if key.startswith("proj")}
        # An injected partition would make every query fail that does not name the registry.
        assert projected == {
            "enabled": "true",
            "registry.type": "enum",
            "registry.values": "REGISTRY",
            "dt.type": "date",
            "dt.format": "yyyy-MM-dd",
            "dt.range": "2026-01-01,NOW",
            "dt.interval": "1",
            "dt.interval.unit": "DAYS",
        }
