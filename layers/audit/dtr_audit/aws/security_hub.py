"""AWS Security Hub: a finding in its own format (ASFF) for every tag that is, or was, a finding here.

What Security Hub has is marked on the item of the findings table, batch by batch, after it was accepted. So whatever ends a run,
be it a crash or Security Hub's own refusal, what is not marked is sent by the next one.

Source of the limits: AWS Security Hub Partner Integration Guide, "Guidelines for using the BatchImportFindings API", and the API
reference of AwsSecurityFinding.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from dtr_audit.aws.findings import FindingsTable
from dtr_audit.core.counts import TrustCounts
from dtr_audit.core.finding import Finding, State
from dtr_audit.core.finding_changes import SIGNED_SINCE
from dtr_audit.core.finding_spool import FindingSpool
from dtr_audit.core.fix import fix_commands
from dtr_audit.core.model import RULE_ID, iso
from dtr_audit.core.run_record import SecurityHubUpdate
from dtr_audit.core.stig import load_release
from dtr_audit.core.text import clean
from dtr_audit.errors import OutOfTimeError, SecurityHubError

if TYPE_CHECKING:
    from mypy_boto3_securityhub.literals import ComplianceStatusType, SeverityLabelType
    from mypy_boto3_securityhub.type_defs import (
        AwsSecurityFindingTypeDef,
        BatchImportFindingsResponseTypeDef,
        ContainerDetailsTypeDef,
        ResourceTypeDef,
    )

BATCH_FINDINGS = 100  # Security Hub's limit
BATCH_BYTES = 5_000_000  # under its 6 MB
REFRESH_DAYS = 30  # an open finding is sent again, long before Security Hub deletes it
REFUSED_MOST = 1_000  # of one run: then it is the format, and not the findings
ID_LENGTH = 512
TITLE_LENGTH = 256
DESCRIPTION_LENGTH = 1024
FIELD_LENGTH = 2048
WARNING_LENGTH = 400

GENERATOR = f"dtr-signature-audit/{RULE_ID}"
PRODUCT_NAME = "DTR Signature Audit"
FINDING_TYPE = "Software and Configuration Checks/Industry and Regulatory Standards/DISA STIG"
CATEGORY = "CAT II"
SIGN_IT = (
    "Check that this digest is the intended image, and sign it; or delete the tag. Do not use docker push, as the rule's Fix "
    "Text says: Docker CLI 29 pushes without signing. The lines for this very image are among the product fields, in the order of "
    "their numbers: dtr-signature-audit/fix/1 and on."
)
NOTHING_TO_DO = "Nothing is left to do."

_INVALID = "InvalidInputException"  # of a whole request, for what may be wrong with one finding in it


class AsffWriter:
    """Writes the findings of one registry in Security Hub's format."""

    def __init__(
        self, product_arn: str, release: str, *, domain: str, run_id: str, trust: TrustCounts | None = None
    ) -> None:
        """Prepare; `domain` stands before the names of images, as in `docker push`. `trust` says who must sign."""
        rule = load_release(release).rule
        self._product_arn = product_arn
        self._account = product_arn.split(":")[4]
        self._domain = domain
        self._trust = trust
        self._run_id = run_id
        self._requirements = [
            f"DISA STIG {RULE_ID}",
            f"DISA STIG {rule.rule_id}",
            *(control.cci for control in rule.controls),
            *dict.fromkeys(f"NIST.800-53.r5 {control.nist.replace(' ', '')}" for control in rule.controls),
        ]

    def write(self, finding: Finding, *, at: str) -> "AwsSecurityFindingTypeDef":
        """Write one finding as it stands; `at` is later than in any writing before.

        Note and Workflow are left to people; Severity and Types are given as a provider's, which people may override.
        """
        is_open = finding.state is State.OPEN
        is_signed = not is_open and finding.resolution == SIGNED_SINCE
        # What is gone was never seen signed: that is no pass.
        status: ComplianceStatusType = "FAILED" if is_open else "PASSED" if is_signed else "NOT_AVAILABLE"
        severity: SeverityLabelType = "MEDIUM" if is_open else "INFORMATIONAL"
        return {
            "SchemaVersion": "2018-10-08",
            "Id": _stable_id(finding),
            "ProductArn": self._product_arn,
            "ProductName": PRODUCT_NAME,
            "GeneratorId": GENERATOR,
            "AwsAccountId": self._account,
            "CreatedAt": finding.first_seen,
            "UpdatedAt": at,
            "FirstObservedAt": finding.first_seen,
            "LastObservedAt": finding.last_changed,
            "Title": clean(f"{RULE_ID}: only signed images: {finding.repository}:{finding.tag}", TITLE_LENGTH),
            "Description": clean(self._describe(finding, is_signed=is_signed), DESCRIPTION_LENGTH),
            "FindingProviderFields": {
                "Severity": {"Label": severity, "Original": CATEGORY},
                "Types": [FINDING_TYPE],
            },
            "Compliance": {"Status": status, "RelatedRequirements": self._requirements},
            "RecordState": "ACTIVE" if is_open or is_signed else "ARCHIVED",
            "Remediation": {"Recommendation": {"Text": SIGN_IT if is_open else NOTHING_TO_DO}},
            "ProductFields": self._fields(finding, is_open=is_open),
            "Resources": [self._resource(finding)],
        }

    def _describe(self, finding: Finding, *, is_signed: bool) -> str:
        image = f"{self._name(finding)} in registry {finding.registry}"
        was = f"{finding.verdict}: {finding.reason}"
        if finding.state is State.OPEN:
            return f"{image} is {was}. A finding since {finding.first_seen}."
        if is_signed:
            return f"{image} is signed, as of {finding.last_changed}. It was {was}."
        return f"{image} is not judged any more, as of {finding.last_changed}: {finding.resolution}. It was {was}."

    def _fields(self, finding: Finding, *, is_open: bool) -> dict[str, str]:
        fields = {
            "registry": finding.registry,
            "namespace": finding.repository.namespace,
            "repository": finding.repository.name,
            "tag": finding.tag,
            "verdict": finding.verdict,
            "reason": finding.reason,
            "resolution": finding.resolution,
            "run_id": self._run_id,
        }
        lines = fix_commands(finding, self._domain, self._trust) if is_open else ()
        # Half of a command is none.
        if all(len(line) <= FIELD_LENGTH for line in lines):
            fields |= {f"fix/{number}": line for number, line in enumerate(lines, start=1)}
        return {f"dtr-signature-audit/{name}": _field(value) for name, value in fields.items()}

    def _resource(self, finding: Finding) -> "ResourceTypeDef":
        container: ContainerDetailsTypeDef = {"ImageName": self._name(finding)}
        digest = clean(finding.digest, FIELD_LENGTH).strip()
        if digest:
            container["ImageId"] = digest
        return {
            "Type": "Container",
            "Id": _stable_name(finding),
            "Details": {
                "Container": container,
                "Other": {
                    "author": _field(finding.author),
                    "pushed_at": _field(finding.pushed_at),
                    "media_type": _field(finding.media_type),
                },
            },
        }

    def _name(self, finding: Finding) -> str:
        return f"{self._domain}/{finding.repository}:{finding.tag}"


def _stable_name(finding: Finding) -> str:
    """Name a tag by registry, repository and tag, the same in every run; no two of them share a name."""
    name = f"{finding.registry}/{finding.repository}:{finding.tag}"
    room = ID_LENGTH - len(GENERATOR) - 1
    if len(name) <= room:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: room - len(digest) - 1]}#{digest}"  # no tag holds a '#'


def _stable_id(finding: Finding) -> str:
    return f"{GENERATOR}/{_stable_name(finding)}"


def _field(value: str) -> str:
    """Give a text as a field takes it: never empty."""
    return clean(value, FIELD_LENGTH).strip() or "-"


@dataclass(frozen=True, slots=True)
class _Letter:
    """A finding, and what is sent of it."""

    finding: Finding
    document: "AwsSecurityFindingTypeDef"


class SecurityHub:
    """Security Hub in one run."""

    def __init__(
        self,
        import_findings: "Callable[[Sequence[AwsSecurityFindingTypeDef]], BatchImportFindingsResponseTypeDef]",
        findings: FindingsTable,
        writer: AsffWriter,
        *,
        threads: int,
    ) -> None:
        """Prepare; `import_findings` is one call, and raises OutOfTimeError where it lasts too long."""
        self._import_findings = import_findings
        self._findings = findings
        self._writer = writer
        self._threads = threads
        self._accepted = 0
        self._refused = 0
        self._first_refusal = ""

    def update(self, *, now: datetime, until: float) -> SecurityHubUpdate:
        """Send what is owed: first all that has moved, then what it has not heard of for long; nothing after `until`."""
        problems = []
        at, sent_before = iso(now), iso(now - timedelta(days=REFRESH_DAYS))
        try:
            for batch in self._batches(self._owed(sent_before), at=at):
                if self._refused >= REFUSED_MOST:
                    break
                self._send(batch, at=at, until=until)
        except OutOfTimeError:
            problems.append("not everything could be sent in time")
        except SecurityHubError as error:
            problems.append(str(error))
        if self._refused:
            noun = "finding" if self._refused == 1 else "findings"
            problems.append(f"it refused {self._refused} {noun}, the first of them {self._first_refusal}")
        why = clean("; ".join(problems), 2 * WARNING_LENGTH)
        return SecurityHubUpdate(
            accepted=self._accepted,
            refused=self._refused,
            up_to_date=not problems,
            warning=f"Security Hub is not up to date, and the next run sends what is missing: {why}"
            if problems
            else "",
        )

    def _owed(self, sent_before: str) -> Iterator[Finding]:
        with closing(FindingSpool()) as old:
            for finding, is_old in self._findings.owed_to_security_hub(sent_before=sent_before):
                if is_old:
                    old.add(finding)
                else:
                    yield finding
            yield from old

    def _batches(self, findings: Iterable[Finding], *, at: str) -> Iterator[list[_Letter]]:
        batch: list[_Letter] = []
        size = 0
        for finding in findings:
            document = self._writer.write(finding, at=at)
            length = len(json.dumps(document)) + 1
            if len(batch) == BATCH_FINDINGS or (batch and size + length > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(_Letter(finding, document))
            size += length
        if batch:
            yield batch

    def _send(self, batch: list[_Letter], *, at: str, until: float) -> None:
        if time.monotonic() >= until:
            raise OutOfTimeError("the time for Security Hub is over")
        try:
            answer = self._import_findings([letter.document for letter in batch])
        except BotoCoreError as error:
            raise SecurityHubError(clean(str(error), WARNING_LENGTH)) from error
        except ClientError as error:
            if _code(error) != _INVALID:
                raise SecurityHubError(_explain(error)) from error
            if len(batch) > 1:
                # One that is malformed must not keep the others out.
                middle = len(batch) // 2
                self._send(batch[:middle], at=at, until=until)
                self._send(batch[middle:], at=at, until=until)
            else:
                self._refuse(batch[0], _explain(error))
            return
        failed = {one["Id"]: one for one in answer["FailedFindings"]}
        all_named = answer["FailedCount"] <= len(failed)
        accepted = []
        for letter in batch:
            failure = failed.get(letter.document["Id"])
            if failure is not None:
                self._refuse(letter, f"{failure['ErrorCode']}: {failure['ErrorMessage']}")
            elif all_named:
                accepted.append(letter.finding)
            else:
                self._refuse(letter, "it did not say which")
        self._findings.mark_in_security_hub(accepted, at, threads=self._threads)
        self._accepted += len(accepted)

    def _refuse(self, letter: _Letter, why: str) -> None:
        self._refused += 1
        if not self._first_refusal:
            image = f"{letter.finding.repository}:{letter.finding.tag}"
            self._first_refusal = clean(f"{image} ({why})", WARNING_LENGTH)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _explain(error: ClientError) -> str:
    if _code(error) == "InvalidAccessException":
        return "it is not switched on in this account and region (InvalidAccessException)"
    return clean(str(error), WARNING_LENGTH)
