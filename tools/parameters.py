"""Write the tables of docs/parameters.md from template.yaml: `python -m tools.parameters`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dtr_audit_simulator.aws import template as templates

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "parameters.md"
BEGIN, END = "<!-- parameters: from template.yaml, by make parameters -->", "<!-- /parameters -->"


def write_tables(template: templates.Template) -> str:
    """Write a table for each group of parameters, in the order of the console."""
    parameters = template["Parameters"]
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    return "\n".join(_table(group["Label"]["default"], group["Parameters"], parameters) for group in groups)


def update(page: str, tables: str) -> str:
    """Replace what stands between the marks. Raises ValueError where a mark is missing."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE} lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def _table(title: str, names: list[str], parameters: dict[str, dict[str, Any]]) -> str:
    rows = [_row(name, parameters[name]) for name in names]
    return "\n".join(
        [f"## {title}", "", "| Parameter | Default | Allowed | Description |", "| --- | --- | --- | --- |", *rows, ""]
    )


def _row(name: str, parameter: dict[str, Any]) -> str:
    default = parameter.get("Default")
    shown = "required" if default is None else f"`{default}`" if str(default) else "empty"
    return f"| `{name}` | {shown} | {_allowed(parameter)} | {parameter['Description']} |"


def _allowed(parameter: dict[str, Any]) -> str:
    if "AllowedValues" in parameter:
        return ", ".join(f"`{value}`" for value in parameter["AllowedValues"])
    if "MinValue" in parameter:
        return f"{parameter['MinValue']} to {parameter['MaxValue']}"
    return "text"


if __name__ == "__main__":
    PAGE.write_text(
        update(PAGE.read_text(encoding="utf-8"), write_tables(templates.load(ROOT / "template.yaml"))), encoding="utf-8"
    )
