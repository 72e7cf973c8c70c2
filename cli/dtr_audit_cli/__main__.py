"""The command line: `dtr-audit demo`, `audit`, `exceptions`, `query` and `verify`."""

from __future__ import annotations

import argparse
import sys
import traceback

from dtr_audit import __version__
from dtr_audit_cli.commands.audit import add_audit
from dtr_audit_cli.commands.demo import add_demo
from dtr_audit_cli.commands.exceptions import add_exceptions
from dtr_audit_cli.commands.query import add_query
from dtr_audit_cli.commands.verify import add_verify
from dtr_audit_cli.exit_status import ExitStatus


def main(arguments: list[str] | None = None) -> int:
    """Run a command; gives the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status: int = options.command(options)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. An unfinished run keeps nothing; earlier results are as they were.",
            file=sys.stderr,
        )
        return ExitStatus.INTERRUPTED
    except Exception:  # noqa: BLE001 (Python's own exit status for a crash is 1, which here means findings)
        traceback.print_exc()
        return ExitStatus.NOT_COMPLETED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dtr-audit", description="Audit a Docker Trusted Registry, on this machine.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="demo | audit | exceptions | query | verify"
    )
    for add in (add_demo, add_audit, add_exceptions, add_query, add_verify):
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
