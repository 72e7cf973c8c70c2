"""pip-audit over every lock file: does anything in it have a known vulnerability?

pip-audit says "no known vulnerabilities" and exits with 0 also where the service knew none of the packages it was asked
about, as behind a mirror that serves packages only. Here that is no answer, and no answer is never "clean": the service is
first asked about a package that is known to be vulnerable, and a lock file is clean only if it answered for each package.

Run it with the Python of the environment that pip-audit lives in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PIP_AUDIT = (sys.executable, "-m", "pip_audit")
# CVE-2019-11324, among others.
KNOWN_VULNERABLE = "urllib3==1.24.1\n"


@dataclass(frozen=True, slots=True, order=True)
class Advisory:
    """A known vulnerability of a package in a lock file."""

    lock: str
    package: str
    version: str
    ids: tuple[str, ...]  # its own, then the names others have for it
    fixed_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A vulnerability that the project lives with, and why it may."""

    lock: str
    package: str
    id: str
    reason: str


ACCEPTED = (
    Accepted(
        lock="requirements/checkov.txt",
        package="ecdsa",
        id="CVE-2024-23342",
        reason="Signing leaks the key by its timing, and there is no fix. checkov signs nothing here; it needs the package "
        "to verify checks that others wrote, of which this project has none.",
    ),
)


class UnansweredError(Exception):
    """The service did not say whether there are vulnerabilities."""


def ask(lock: Path, name: str, command: Sequence[str] = PIP_AUDIT) -> list[Advisory]:
    """Ask about every package in a lock file that is installed on this platform.

    Raises UnansweredError unless there was an answer for each of them.
    """
    ran = subprocess.run(
        [
            *command,
            "--requirement",
            lock,
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    try:
        dependencies = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        last_line = (ran.stderr.strip().splitlines() or ["no output"])[-1]
        raise UnansweredError(f"{name}: pip-audit failed with exit status {ran.returncode}: {last_line}") from error
    skipped = [dependency["name"] for dependency in dependencies if "skip_reason" in dependency]
    if skipped or not dependencies:
        raise UnansweredError(
            f"{name}: no answer for {len(skipped)} of {len(dependencies)} packages: {', '.join(skipped)}"
        )
    return [
        Advisory(
            lock=name,
            package=dependency["name"],
            version=dependency["version"],
            ids=(vulnerability["id"], *sorted(vulnerability["aliases"])),
            fixed_in=tuple(vulnerability["fix_versions"]),
        )
        for dependency in dependencies
        for vulnerability in dependency["vulns"]
    ]


def probe(asking: Callable[[Path, str], list[Advisory]]) -> None:
    """Raise UnansweredError unless the service knows of a vulnerability where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder, "probe.txt")
        lock.write_text(KNOWN_VULNERABLE, encoding="ascii")
        if not asking(lock, "the probe"):
            raise UnansweredError(f"the probe: nothing is said to be wrong with {KNOWN_VULNERABLE.strip()}")


def judge(advisories: Sequence[Advisory], accepted: Sequence[Accepted]) -> list[str]:
    """List what is to be done: an update for each vulnerability, unless accepted; and accepted ones that are no more."""

    def is_accepted(advisory: Advisory, by: Accepted) -> bool:
        return (advisory.lock, advisory.package) == (by.lock, by.package) and by.id in advisory.ids

    complaints = [
        f"{advisory.lock}: {advisory.package} {advisory.version} has {', '.join(advisory.ids)}. "
        + (f"Update to {' or '.join(advisory.fixed_in)}." if advisory.fixed_in else "There is no fixed version yet.")
        for advisory in sorted(advisories)
        if not any(is_accepted(advisory, by) for by in accepted)
    ]
    complaints += [
        f"{by.lock}: {by.id} of {by.package} is accepted, but it is not in the answer any more. Remove it from ACCEPTED."
        for by in accepted
        if not any(is_accepted(advisory, by) for advisory in advisories)
    ]
    return complaints


def main(arguments: Sequence[str], asking: Callable[[Path, str], list[Advisory]] = ask) -> int:
    """Ask about lock files; the exit status is 0 if all are clean, 1 if one is not, 2 if there was no answer."""
    parser = argparse.ArgumentParser(prog="advisories", description="Known vulnerabilities in lock files.")
    parser.add_argument("locks", nargs="+", metavar="LOCK")
    parser.add_argument(
        "--unanswered",
        choices=["fail", "warn"],
        default="fail",
        help="whether an unreachable service fails the run; never is it taken for a clean answer",
    )
    options = parser.parse_args(arguments)
    try:
        probe(asking)
    except UnansweredError as error:
        print(
            f"NOT CHECKED for known vulnerabilities: {', '.join(options.locks)}.\n"
            f"  The vulnerability service does not answer from here ({error}).\n"
            "  Run `make advisories` where it does.",
            file=sys.stderr,
        )
        return 0 if options.unanswered == "warn" else 2
    try:
        advisories = [advisory for lock in options.locks for advisory in asking(Path(lock), lock)]
    except UnansweredError as error:
        print(f"error: the vulnerability service answers, but not for {error}", file=sys.stderr)
        return 2
    accepted = [accepted for accepted in ACCEPTED if accepted.lock in options.locks]
    complaints = judge(advisories, accepted)
    for complaint in complaints:
        print(f"error: {complaint}", file=sys.stderr)
    print(f"pip-audit: {len(complaints)} complaints about {len(options.locks)} lock files; {len(accepted)} accepted.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
