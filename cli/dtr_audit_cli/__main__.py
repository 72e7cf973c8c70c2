"""The command line: `dtr-audit demo`, `audit`, `exceptions`, `query` and `verify`."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dtr_audit import __version__
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
    for add in (_add_demo, _add_audit, _add_exceptions, _add_query, _add_verify):
        add(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo", help="three audits of a simulated registry in a simulated AWS: nothing else is needed"
    )
    demo.add_argument("--output", type=Path, default=Path("out/demo"), help="folder for the results (out/demo)")
    demo.add_argument("--verbose", action="store_true", help="also show every finding, the mails and all files")
    demo.set_defaults(command=_demo)


def _add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    audit.set_defaults(command=_audit, parser=audit)


def _add_exceptions(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    exceptions = commands.add_parser(
        "exceptions",
        help="see whether a document of exceptions is right, before it is put into the bucket",
        description="Read a document of exceptions as the audit does. Exit status 0: it is right; 2: it is not, and would except "
        "nothing.",
        allow_abbrev=False,
    )
    exceptions.add_argument("file", type=Path, metavar="FILE")
    exceptions.set_defaults(command=_exceptions, parser=exceptions)


def _add_query(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    query.set_defaults(command=_query, parser=query)


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    verify.set_defaults(command=_verify)


# The commands are imported when they run: the parts they are made of take a second, which a mistyped option need not wait.


def _demo(options: argparse.Namespace) -> int:
    from dtr_audit_cli.console import Display, prepare_streams, tell_error  # noqa: PLC0415 (see above)
    from dtr_audit_cli.demo import demonstrate  # noqa: PLC0415
    from dtr_audit_cli.output import OutputError  # noqa: PLC0415

    prepare_streams()
    try:
        demonstrate(options.output, Display(verbose=options.verbose))
    except OutputError as error:
        tell_error(str(error))
        return ExitStatus.NOT_COMPLETED
    return 0


def _query(options: argparse.Namespace) -> int:
    from dtr_audit_cli.console import prepare_streams, tell_error  # noqa: PLC0415 (see above)
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
        tell_error(str(error))
        return ExitStatus.NOT_COMPLETED
    except BrokenPipeError:  # nobody reads any more: `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _verify(options: argparse.Namespace) -> int:
    from dtr_audit.errors import AuditError  # noqa: PLC0415
    from dtr_audit_cli.console import prepare_streams, tell_error  # noqa: PLC0415
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
        tell_error(str(error))
        return ExitStatus.NOT_COMPLETED
    return status


def _audit(options: argparse.Namespace) -> int:
    from dtr_audit.errors import AuditError, SettingsError  # noqa: PLC0415
    from dtr_audit.settings import parse_domains, parse_dtr_url  # noqa: PLC0415
    from dtr_audit_cli.console import Display, prepare_streams, tell_error  # noqa: PLC0415
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
    from dtr_audit_simulator.aws.stack import StateFileError  # noqa: PLC0415
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
        tell_error(str(error))
    return ExitStatus.NOT_COMPLETED


def _verification(options: argparse.Namespace) -> Verification | None:
    """Give how signatures are verified, if they are. Raises SettingsError."""
    from dtr_audit.errors import SettingsError  # noqa: PLC0415 (see above)
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


def _exceptions(options: argparse.Namespace) -> int:
    from dtr_audit.core.exceptions import KEY, Exceptions, parse_exceptions  # noqa: PLC0415
    from dtr_audit.errors import ExceptionsError  # noqa: PLC0415 (see above)
    from dtr_audit_cli.console import prepare_streams, tell_error  # noqa: PLC0415

    prepare_streams()
    try:
        exceptions = Exceptions(parse_exceptions(options.file.read_bytes()), day=datetime.now(UTC).date())
    except OSError as error:
        tell_error(f"{options.file}: {error.strerror}")
        return ExitStatus.NOT_COMPLETED
    except ExceptionsError as error:
        for fault in str(error).removeprefix(f"{KEY}: ").split("; "):
            tell_error(f"{options.file}: {fault}")
        return ExitStatus.NOT_COMPLETED
    for words, some in (("hold", exceptions.holding), ("have ended", exceptions.ended)):
        print(f"{len(some)} {words}")
        for one in some:
            print(f"  {one.exception_id}, of {one.owner}, to {one.ends}")
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
