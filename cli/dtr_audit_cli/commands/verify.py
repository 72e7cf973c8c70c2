"""The command `dtr-audit verify`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dtr_audit_cli.exit_status import ExitStatus


def add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    verify = commands.add_parser(
        "verify",
        help="see whether the files of past runs still are what the runs wrote",
        description="Compare the files of every run with the sums in its manifest. Exit status 0: all as written; 1: something is "
        "missing, changed or added, or not signed by the key given; 2: it could not be read.",
        allow_abbrev=False,
    )
    verify.add_argument(
        "place",
        metavar="FOLDER | s3://BUCKET[/evidence/registry=NAME/RUN/]",
        help="results of audits, or the audit's bucket",
    )
    verify.add_argument(
        "--public-key",
        type=Path,
        metavar="FILE",
        help="the key that must have signed every manifest (PEM or DER), from whoever owns it and not from beside the files",
    )
    verify.set_defaults(command=run_verify)


def run_verify(options: argparse.Namespace) -> int:
    """Run the command; gives the exit status."""
    from dtr_audit.errors import AuditError  # noqa: PLC0415
    from dtr_audit_cli.console import prepare_streams, print_error  # noqa: PLC0415
    from dtr_audit_cli.verification import find_place, read_public_key, verify  # noqa: PLC0415

    prepare_streams()
    status = ExitStatus.NOTHING_FOUND
    try:
        trusted = read_public_key(options.public_key) if options.public_key else None
        for run in verify(*find_place(options.place), trusted):
            answer = f"{len(run.faults)} not as written" if run.faults else "all as written"
            print(f"{run.registry} {run.run_id}: {run.files} files, {answer}; {run.signature}")
            for fault in run.faults:
                print(f"  {fault}")
                status = ExitStatus.FINDINGS_OPEN
    except AuditError as error:
        print_error(str(error))
        return ExitStatus.NOT_COMPLETED
    return status
