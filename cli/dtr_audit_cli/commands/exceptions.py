"""The command `dtr-audit exceptions`."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from dtr_audit_cli.exit_status import ExitStatus


def add_exceptions(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    exceptions = commands.add_parser(
        "exceptions",
        help="see whether a document of exceptions is right, before it is put into the bucket",
        description="Read a document of exceptions as the audit does. Exit status 0: it is right; 2: it is not, and would except "
        "nothing.",
        allow_abbrev=False,
    )
    exceptions.add_argument("file", type=Path, metavar="FILE")
    exceptions.set_defaults(command=run_exceptions, parser=exceptions)


def run_exceptions(options: argparse.Namespace) -> int:
    """Run the command; gives the exit status."""
    from dtr_audit.core.exceptions import KEY, Exceptions, parse_exceptions  # noqa: PLC0415
    from dtr_audit.errors import ExceptionsError  # noqa: PLC0415
    from dtr_audit_cli.console import prepare_streams, print_error  # noqa: PLC0415

    prepare_streams()
    try:
        exceptions = Exceptions(parse_exceptions(options.file.read_bytes()), day=datetime.now(UTC).date())
    except OSError as error:
        print_error(f"{options.file}: {error.strerror}")
        return ExitStatus.NOT_COMPLETED
    except ExceptionsError as error:
        for fault in str(error).removeprefix(f"{KEY}: ").split("; "):
            print_error(f"{options.file}: {fault}")
        return ExitStatus.NOT_COMPLETED
    for words, some in (("hold", exceptions.active), ("have ended", exceptions.ended)):
        print(f"{len(some)} {words}")
        for one in some:
            print(f"  {one.exception_id}, of {one.owner}, to {one.ends}")
    return 0
