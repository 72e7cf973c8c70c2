"""The command `dtr-audit audit`."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dtr_audit_cli.exit_status import ExitStatus

if TYPE_CHECKING:
    from dtr_audit_cli.local_run import Verification

PASSWORD_VARIABLE = "DTR_PASSWORD"  # noqa: S105 (its name, not its value)
_EXIT_STATUSES = f"""\
the password:
  comes from the environment variable {PASSWORD_VARIABLE}, or is asked for. It is never an argument, and is not written
  anywhere. An access token of DTR does in its place. The account must be an administrator's: others do not see
  every repository. Certificates are always verified.

exit status:
  0  complete, and every image tag of the registry is signed (NOT_A_FINDING)
  1  complete, and findings are open (OPEN)
  2  not completed, whether or not findings are open: something could not be read, or it could not even begin
  3  complete for the namespaces that were asked for, and nothing found in them (NOT_REVIEWED)
  130  interrupted; nothing of the run is kept
"""


def add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    audit = commands.add_parser(
        "audit",
        help="audit a registry of yours from this machine; it is only read from",
        description="Audit a registry from this machine with the very function that runs in AWS. It is only read from.",
        epilog=_EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    audit.add_argument("--url", required=True, metavar="https://HOST[:PORT]", help="the registry's address")
    audit.add_argument("--username", required=True, help="an administrator of the registry")
    audit.add_argument("--password", nargs="?", action=_RefusePassword, help=argparse.SUPPRESS)
    audit.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="the registry's private authority, if it has one: PEM or DER, certificates or PKCS7 (.p7b)",
    )
    audit.add_argument(
        "--domain",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="what stands before an image's name in docker push, if the registry has more names than it says itself; "
        "repeatable",
    )
    audit.add_argument(
        "--output",
        type=Path,
        default=Path("out"),
        metavar="FOLDER",
        help="folder for the results, and for the state by which the next run knows what is new (out)",
    )
    audit.add_argument(
        "--exceptions",
        type=Path,
        metavar="FILE",
        help="the findings that are excepted (docs/contracts.md has its form). It is kept as policy/exceptions.json in the folder "
        "for the results, and used by every later audit there, until another is given or that file is removed",
    )
    audit.add_argument(
        "--verify-signatures",
        action="store_true",
        help="verify each signature from the Notary's own metadata besides: what the registry calls signed is a finding unless a "
        "signer's key has signed it",
    )
    audit.add_argument(
        "--required-signer",
        action="append",
        default=[],
        metavar="NAME",
        help="a signer who must have signed, as docker trust inspect names him; of several one suffices; repeatable. This and "
        "the next three need --verify-signatures",
    )
    audit.add_argument("--all-signers", action="store_true", help="every --required-signer must have signed")
    audit.add_argument(
        "--repository-key-suffices",
        action="store_true",
        help="a tag that the repository's own key has signed (Repo Admin) counts too",
    )
    audit.add_argument(
        "--trust-pins",
        type=Path,
        metavar="FILE",
        help="the roots that this audit trusts, and no others, for the repositories that the file names (docs/contracts.md has its "
        "form)",
    )
    audit.add_argument(
        "--engine",
        choices=("lambda", "stepfunctions"),
        default="lambda",
        help="make the audit in one function, or in the steps of the state machine, one after the other; the results are the same "
        "(lambda)",
    )
    audit.add_argument("--registry-name", metavar="NAME", help="what the results call it (made of the address)")
    audit.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="look at this namespace alone: a partial run, which passes nothing; repeatable. A name that begins "
        "with a hyphen is joined to the option by an equals sign",
    )
    audit.add_argument(
        "--baseline",
        type=Path,
        metavar="CKL",
        help="a checklist of yours, .ckl or .cklb: a copy of it is left with V-235846 answered, and all else as it is",
    )
    audit.add_argument("--concurrency", metavar="N", help="requests to the registry at the same time, at most (16)")
    audit.add_argument("--page-size", metavar="N", help="entries asked for in one request (100)")
    audit.add_argument(
        "--time-limit",
        metavar="DURATION",
        default="12h",
        help="how long the run may take, such as 90m or 12h. A run that needs longer stops in time, keeps what it has read and is "
        "not complete (12h)",
    )
    audit.add_argument(
        "--no-x509-strict",
        action="store_true",
        help="certificates stay verified; only Python 3.13's strictness is dropped, by which the certificates of many a "
        "private authority are refused for a missing Authority Key Identifier or subjectAltName",
    )
    audit.set_defaults(command=run_audit, parser=audit)


def run_audit(options: argparse.Namespace) -> int:
    """Run the command; gives the exit status."""
    from dtr_audit.errors import AuditError, SettingsError  # noqa: PLC0415
    from dtr_audit.settings import parse_domains, parse_dtr_url  # noqa: PLC0415
    from dtr_audit_cli.console import Display, prepare_streams, print_error  # noqa: PLC0415
    from dtr_audit_cli.local_run import (  # noqa: PLC0415
        Assignment,
        audit,
        derive_registry_name,
        parse_time_limit,
        read_baseline,
        read_ca_file,
        read_exceptions_file,
    )
    from dtr_audit_cli.output import OutputError  # noqa: PLC0415
    from dtr_audit_simulator.aws.state_files import StateFileError  # noqa: PLC0415
    from dtr_audit_simulator.aws.template import ParameterError  # noqa: PLC0415

    prepare_streams()
    password = os.environ.pop(PASSWORD_VARIABLE, "")  # no child of this process is to inherit it
    limits = {"Concurrency": options.concurrency, "PageSize": options.page_size}
    try:
        url = parse_dtr_url(options.url, "--url")
        assignment = Assignment(
            url=url,
            username=options.username,
            registry_name=options.registry_name or derive_registry_name(url),
            output=options.output,
            ca_bundle=read_ca_file(options.ca_file) if options.ca_file else "",
            domains=parse_domains(",".join(options.domain), "--domain"),
            namespaces=tuple(options.namespace),
            x509_strict=not options.no_x509_strict,
            verification=_verification(options),
            baseline=read_baseline(options.baseline) if options.baseline else None,
            exceptions=read_exceptions_file(options.exceptions) if options.exceptions else None,
            limits={name: value for name, value in limits.items() if value is not None},
            engine=options.engine,
            time_limit=parse_time_limit(options.time_limit),
        )
        assignment.check()
        return audit(assignment, password or _ask_password(options.username, url), Display())
    except (ParameterError, SettingsError) as error:
        options.parser.error(str(error))
    except (AuditError, OutputError, StateFileError) as error:
        print_error(str(error))
    return ExitStatus.NOT_COMPLETED


def _verification(options: argparse.Namespace) -> Verification | None:
    """Give how signatures are verified, if they are. Raises SettingsError."""
    from dtr_audit.errors import SettingsError  # noqa: PLC0415
    from dtr_audit.settings import parse_signers  # noqa: PLC0415
    from dtr_audit_cli.local_run import Verification, read_pins_file  # noqa: PLC0415

    if not options.verify_signatures:
        given = {
            "--required-signer": options.required_signer,
            "--all-signers": options.all_signers,
            "--repository-key-suffices": options.repository_key_suffices,
            "--trust-pins": options.trust_pins,
        }
        if idle := [name for name, value in given.items() if value]:
            raise SettingsError(f"{', '.join(idle)}: without --verify-signatures nothing is verified, so give that too")
        return None
    if options.all_signers and not options.required_signer:
        raise SettingsError("--all-signers: no --required-signer says who they are")
    return Verification(
        required_signers=parse_signers(",".join(options.required_signer), "--required-signer"),
        all_signers=options.all_signers,
        repository_key_suffices=options.repository_key_suffices,
        pins=read_pins_file(options.trust_pins) if options.trust_pins else None,
    )


def _ask_password(username: str, url: str) -> str:
    from dtr_audit.errors import SettingsError  # noqa: PLC0415

    if sys.stdin.isatty():
        password = getpass.getpass(f"Password or access token of {username} at {url}: ")
        if password:
            return password
    raise SettingsError(f"no password: put it into the environment variable {PASSWORD_VARIABLE}, or type it when asked")


class _RefusePassword(argparse.Action):
    """Say where a password belongs, without repeating it as argparse would."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            f"a password is never an argument, since every user of this machine can read those: use {PASSWORD_VARIABLE}, or "
            "type it when asked"
        )
