"""The command `dtr-audit query`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from dtr_audit_cli.exit_status import ExitStatus


def add_query(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    query = commands.add_parser(
        "query",
        help="ask what audits have found: the queries of queries/, of a folder of results",
        description="Answer a query of queries/ on this machine, from a folder that audits have left. Without a name: what can be "
        "asked. docs/queries.md has more.",
        allow_abbrev=False,
    )
    query.add_argument("name", nargs="?", metavar="NAME", help="of the query")
    query.add_argument("values", nargs="*", metavar="VALUE", help="what it asks for, in its order")
    query.add_argument(
        "--output", type=Path, default=Path("out"), metavar="FOLDER", help="folder with the results of audits (out)"
    )
    query.add_argument("--csv", action="store_true", help="all rows as CSV")
    query.set_defaults(command=run_query, parser=query)


def run_query(options: argparse.Namespace) -> int:
    """Run the command; gives the exit status."""
    from dtr_audit_cli.console import prepare_streams, print_error  # noqa: PLC0415
    from dtr_audit_cli.query_files import named_queries  # noqa: PLC0415

    try:
        from dtr_audit_cli.query import QueryError, ask, describe, lay_out, write_csv  # noqa: PLC0415
    except ModuleNotFoundError as error:
        options.parser.error(
            f"{error.name} is not installed: `make query` installs it, or `pip install duckdb sqlglot`"
        )
    prepare_streams()
    queries = {query.name: query for query in named_queries()}
    if options.name is not None and options.name not in queries:
        options.parser.error(f"there is no query {options.name!r}; there are {', '.join(queries)}")
    try:
        if options.name is None:
            print("\n".join(describe(queries.values())))
        else:
            answer = ask(queries[options.name], options.output, options.values, today=datetime.now(UTC).date())
            if options.csv:
                write_csv(answer)
            else:
                print("\n".join(lay_out(answer, shutil.get_terminal_size().columns)))
        sys.stdout.flush()
    except QueryError as error:
        print_error(str(error))
        return ExitStatus.NOT_COMPLETED
    except BrokenPipeError:  # nobody reads any more: `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
