"""The command `dtr-audit demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dtr_audit_cli.exit_status import ExitStatus


def add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    demo = commands.add_parser(
        "demo", help="three audits of a simulated registry in a simulated AWS: nothing else is needed"
    )
    demo.add_argument("--output", type=Path, default=Path("out/demo"), help="folder for the results (out/demo)")
    demo.add_argument("--verbose", action="store_true", help="also show every finding, the mails and all files")
    demo.set_defaults(command=run_demo)


def run_demo(options: argparse.Namespace) -> int:
    """Run the command; gives the exit status."""
    from dtr_audit_cli.console import Display, prepare_streams, print_error  # noqa: PLC0415
    from dtr_audit_cli.demo import demonstrate  # noqa: PLC0415
    from dtr_audit_cli.output import OutputError  # noqa: PLC0415

    prepare_streams()
    try:
        demonstrate(options.output, Display(verbose=options.verbose))
    except OutputError as error:
        print_error(str(error))
        return ExitStatus.NOT_COMPLETED
    return 0
