"""Everything that the formats tell of a run, gathered once; bounded, whatever the size of the registry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..model import Excepted, Finding, Run, Status


@dataclass(frozen=True, slots=True)
class Asset:
    """The registry as the assessor's tools know it; importers match on these names exactly."""

    host_name: str
    fqdn: str = ""
    marking: str = ""  # e.g. CUI; '' for none
    role: str = "None"
    technology_area: str = ""
    release: str = "V2R2"  # of the STIG: V2R2 | V2R1


@dataclass(frozen=True, slots=True)
class ReportedFinding:
    """An open finding, with the exception that covers it, if one does."""

    finding: Finding
    excepted: Excepted | None = None


@dataclass(frozen=True, slots=True)
class NamespaceSummary:
    """One namespace: how many findings are open there, how many of them excepted, since when the oldest."""

    namespace: str
    open: int
    excepted: int
    oldest: str  # ISO 8601


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """An earlier run of the whole registry, as its record tells it."""

    run_id: str
    finished_at: str  # ISO 8601
    status: Status
    complete: bool
    tags: int  # image tags audited
    failed: int  # of them not signed
    open: int  # findings open after it
    coverage_percent: float

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "TrendPoint":
        """Read a run as the runs table keeps it."""
        tags = record["tags"]
        return cls(
            run_id=record["run_id"],
            finished_at=record["finished_at"],
            status=Status(record["status"]),
            complete=record["complete"],
            tags=int(tags["audited"]),
            failed=int(tags["unsigned"] + tags["mismatched"] + tags["untrusted"]),
            open=int(record["findings"]["open"]),
            coverage_percent=float(record["coverage_percent"]),
        )


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the run in the bucket."""

    key: str
    sha256: str  # hexadecimal
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Report:
    """One run, as evidence tells it."""

    run: Run
    asset: Asset
    auditor: str  # which program, of which version, asked with what right; no name of an account
    findings: Sequence[ReportedFinding]  # open ones, by name: the first of them
    namespaces: Sequence[NamespaceSummary]  # with open findings, all of them
    opened: Sequence[Finding]  # by this run: the first of them
    resolved: Sequence[Finding]  # likewise
    trend: Sequence[TrendPoint] = ()  # earlier runs, oldest first, this one not among them
    rows: Sequence[StoredFile] = ()  # the files with a row for every tag
    bucket: str = ""
    record_key: str = ""  # of the run record in the bucket

    @property
    def findings_left_out(self) -> int:
        """How many open findings are not among `findings`."""
        return max(0, self.run.findings.open - len(self.findings))
