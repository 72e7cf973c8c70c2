"""The files of queries/: what each asks, and the form in which template.yaml deploys it.

CloudFormation cannot include a file. So the named queries stand in template.yaml a second time, between two marks, and are
written there by `python -m dtr_audit_cli.query_files` (make queries); a test holds them against the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtr_audit_simulator import PROJECT

FOLDER = PROJECT / "queries"
TEMPLATE = PROJECT / "template.yaml"
BEGIN = "  # --- Named queries, written by `make queries` from queries/*.sql: change them there"
END = "  # --- The end of what `make queries` writes"

_PARAMETER = re.compile(r"Parameter [1-9]: (.+)")


class QueryFileError(ValueError):
    """A file of queries/ has no head that says what it asks, or template.yaml no place for it."""


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """One file: SQL for Athena, below a head of comments."""

    name: str
    question: str  # the first line of its head
    notes: str  # what else the head says of the rows
    parameters: tuple[str, ...]  # what stands for each `?`, in their order
    sql: str  # the whole file

    @classmethod
    def read(cls, file: Path) -> NamedQuery:
        """Read a file. Raises QueryFileError if it does not begin with what it asks."""
        sql = file.read_text(encoding="utf-8")
        head: list[str] = []
        for line in sql.splitlines():
            if not line.startswith("-- "):
                break
            head.append(line.removeprefix("-- "))
        if not head or not head[0].endswith("?"):
            raise QueryFileError(f"{file}: its first line is to be a comment that asks what the query answers.")
        parameters = tuple(found[1] for line in head if (found := _PARAMETER.fullmatch(line)))
        notes = " ".join(line for line in head[1:] if not _PARAMETER.fullmatch(line))
        return cls(file.stem, head[0], notes, parameters, sql)

    @property
    def logical_id(self) -> str:
        """Its name in template.yaml: `open-findings` is OpenFindingsQuery."""
        return "".join(word.capitalize() for word in self.name.split("-")) + "Query"

    def resource(self) -> str:
        """Write it as a resource of the template."""
        lines = [
            f"  {self.logical_id}:",
            "    Type: AWS::Athena::NamedQuery",
            "    Properties:",
            f"      Name: {self.name}",
            f"      Description: {json.dumps(self.question)}",
            "      Database: !Ref QueryDatabase",
            "      WorkGroup: !Ref QueryWorkGroup",
            "      QueryString: |",
            *(f"        {line}" if line else "" for line in self.sql.splitlines()),
        ]
        return "\n".join(lines) + "\n"


def named_queries(folder: Path = FOLDER) -> list[NamedQuery]:
    """Read every named query, in the order of their names."""
    return [NamedQuery.read(file) for file in sorted(folder.glob("*.sql"))]


def embed(template: str, queries: Sequence[NamedQuery]) -> str:
    """Put the queries between the marks of a template's text. Raises QueryFileError if it has not one such place."""
    before, begin, rest = template.partition(f"{BEGIN}\n")
    between, end, after = rest.partition(f"{END}\n")
    if not begin or not end or BEGIN in rest or END in after:
        raise QueryFileError(f"The template needs these two lines, each once and in this order: {BEGIN!r}, {END!r}.")
    del between  # what was there before
    return before + begin + "\n".join(query.resource() for query in queries) + "\n" + end + after


def main() -> None:
    """Write the queries into template.yaml."""
    before = TEMPLATE.read_text(encoding="utf-8")
    after = embed(before, named_queries())
    if after != before:
        TEMPLATE.write_text(after, encoding="utf-8")
    print(f"{TEMPLATE.name}: {'written anew' if after != before else 'nothing to change'}")


if __name__ == "__main__":
    main()
