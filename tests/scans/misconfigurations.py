"""checkov over template.yaml as it is written, and over two stacks that it deploys.

CloudFormation deploys what SAM makes of the template, and checkov takes a property for set where an `!If` stands, whichever
way that goes. So besides the template itself three stacks are scanned, translated and with every `!If` decided: one with every
parameter left alone, one with only the engine chosen, one with every option taken. Between them each condition goes both ways.

A finding is mended, or suppressed at its resource with a reason. The stacks are scanned a second time without the
suppressions, so that one which nothing needs any more is found too. checkov itself exits with 0 where it could read
nothing; here that is an error.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dtr_audit_simulator.aws import template as templates
from dtr_audit_simulator.aws.template import Template
from tests.harness.resolution import ACCOUNT, NEEDED

TEMPLATE = Path("template.yaml")
# SAM makes the same of the template in every region of both partitions; a test holds it to that.
REGION = "us-gov-west-1"
STACKS = {
    "defaults": NEEDED,
    "steps": {**NEEDED, "Engine": "stepfunctions"},
    "options": {
        **NEEDED,
        "CredentialsSecretArn": f"arn:aws-us-gov:secretsmanager:{REGION}:{ACCOUNT}:secret:dtr-AbCdEf",
        "CredentialsSecretKeyArn": f"arn:aws-us-gov:kms:{REGION}:{ACCOUNT}:key/secret",
        "ScheduleState": "DISABLED",
        "AlertEmail": "isso@example.mil",
        "AlertTopicArn": f"arn:aws-us-gov:sns:{REGION}:{ACCOUNT}:alerts",
        "AlertTopicKeyArn": f"arn:aws-us-gov:kms:{REGION}:{ACCOUNT}:key/topic",
        "OperationsTopicArn": f"arn:aws-us-gov:sns:{REGION}:{ACCOUNT}:operations",
        "VpcSubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
        "VpcSecurityGroupIds": "sg-0123456789abcdef0",
        "VpcEndpoints": "true",
        "VpcId": "vpc-0123456789abcdef0",
        "VpcRouteTableIds": "rtb-0123456789abcdef0",
        "SecurityHub": "true",
        "KmsKeyArn": f"arn:aws-us-gov:kms:{REGION}:{ACCOUNT}:key/ours",
        "EvidenceLock": "compliance",
        "EvidenceDays": "1096",
        "RowsDays": "400",
        "AccessLogBucket": "access-logs",
        "ManifestSigningKeyArn": f"arn:aws-us-gov:kms:{REGION}:{ACCOUNT}:key/signing",
        "BaselineKey": "baseline/dtr.ckl",
        "TrustVerification": "signatures",
        "PinTrust": "true",
        "Engine": "stepfunctions",
    },
}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A check at a resource: what is found, and what is suppressed."""

    resource: str
    check: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What checkov says of one file."""

    found: dict[Place, str]  # the check in words
    suppressed: frozenset[Place]


class UnreadableError(Exception):
    """checkov did not read all that it was given, so its silence says nothing."""


def suppressions(template: Template) -> list[tuple[Place, str]]:
    """List what the template suppresses, each with its reason."""
    return [
        (Place(logical_id, entry["id"]), entry.get("comment", ""))
        for logical_id, resource in template["Resources"].items()
        for entry in resource.get("Metadata", {}).get("checkov", {}).get("skip", [])
    ]


def unsuppressed(template: Template) -> Template:
    bare = copy.deepcopy(template)
    for resource in bare["Resources"].values():
        resource.get("Metadata", {}).pop("checkov", None)
    return bare


def stacks(template: Template) -> dict[str, Template]:
    translated = templates.translate(template, REGION)
    return {
        name: templates.decide(translated, templates.complete_parameters(template, given))
        for name, given in STACKS.items()
    }


def scan(checkov: Path, files: dict[str, str]) -> dict[str, Scan]:
    """Have checkov read files, given by name and content, with nobody's settings and without a call home.

    Raises UnreadableError if it did not read each of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_text(content, encoding="utf-8")
        options = ["--framework", "cloudformation", "--skip-download", "--compact", "--output", "json"]
        ran = subprocess.run(
            [checkov.absolute(), *options, "--file", *files],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    try:
        results = json.loads(ran.stdout)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"checkov made no report (exit status {ran.returncode}): {ran.stderr[-2000:]}") from error
    kinds = ("passed_checks", "failed_checks", "skipped_checks")
    read = {record["file_path"].lstrip("/") for kind in kinds for record in results[kind]}
    if results["parsing_errors"] or read != set(files):
        raise UnreadableError(f"checkov could not read {', '.join(sorted(set(files) - read))}: {ran.stderr[-2000:]}")

    def locations(kind: str, name: str) -> dict[Place, str]:
        return {
            Place(record["resource"].rpartition(".")[2], record["check_id"]): record["check_name"]
            for record in results[kind]
            if record["file_path"].lstrip("/") == name
        }

    return {
        name: Scan(locations("failed_checks", name), frozenset(locations("skipped_checks", name))) for name in files
    }


def judge(suppressed: Iterable[Place], as_deployed: dict[str, Scan], without_suppressions: Iterable[Scan]) -> list[str]:
    """List what stands against the template: findings that nobody suppressed, suppressions that nothing needs."""
    open_summary: dict[tuple[Place, str], list[str]] = {}
    for name, scanned in as_deployed.items():
        for place, title in scanned.found.items():
            open_summary.setdefault((place, title), []).append(name)
    complaints = [
        f"{place.resource}: {place.check} {title} (in {', '.join(names)}).\n"
        f"  Mend it, or suppress it under the resource's Metadata (checkov: skip: - id: {place.check}) with a reason."
        for (place, title), names in sorted(open_summary.items())
    ]
    needed = {place for scanned in without_suppressions for place in scanned.found}
    complaints += [
        f"{place.resource}: {place.check} is suppressed, and checkov finds nothing there. Remove the suppression."
        for place in sorted(set(suppressed) - needed)
    ]
    return complaints


def main(checkov: Path) -> int:
    """Scan template.yaml; the exit status is 0 if nothing stands against it, else 1."""
    template = templates.load(TEMPLATE)
    suppressed = [place for place, _ in suppressions(template)]
    written = {TEMPLATE.name: TEMPLATE.read_text(encoding="utf-8")}
    deployed = {f"{name}.json": json.dumps(stack) for name, stack in stacks(template).items()}
    bare = {f"{name}-bare.json": json.dumps(stack) for name, stack in stacks(unsuppressed(template)).items()}
    try:
        scans = scan(checkov, written | deployed | bare)
    except UnreadableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    complaints = judge(suppressed, {name: scans[name] for name in written | deployed}, [scans[name] for name in bare])
    for complaint in complaints:
        print(f"error: {complaint}", file=sys.stderr)
    print(f"checkov: {len(complaints)} complaints about {TEMPLATE}; {len(suppressed)} findings are suppressed there.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
