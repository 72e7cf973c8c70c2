"""Everything that the formats tell of a run, gathered once; bounded, whatever the size of the registry."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtr_audit.core.finding import Excepted, Finding
from dtr_audit.core.manifest import StoredFile
from dtr_audit.core.run_record import Run, Status

# What importers take for a domain name: two labels or more, the last one of letters or in Punycode.
_FQDN = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+(?:[A-Za-z]{2,63}|[Xx][Nn]--[A-Za-z0-9-]{0,58}[A-Za-z0-9])\Z"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """The registry as the assessor's tools know it; importers match on these names exactly.

    What is empty stays empty in every format: importers put what is there in the place of what their site keeps.
    """

    host_name: str
    fqdn: str = ""
    marking: str = ""  # e.g. CUI; '' for none
    role: str = ""
    technology_area: str = ""
    release: str = "V2R2"  # of the STIG: V2R2 | V2R1

    @property
    def host_fqdn(self) -> str:
        """Give `fqdn` if it is an IP address or a dotted name, '' otherwise: MITRE's tools refuse a whole file for any other."""
        if _FQDN.match(self.fqdn):
            return self.fqdn
        try:
            ipaddress.ip_address(self.fqdn)
        except ValueError:
            return ""
        return self.fqdn


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
    location: str = ""  # where the keys of files are found: s3://<bucket>, or a folder; '' where that is not known
    record_key: str = ""  # of the run record
    url: str = ""  # of the registry
    changed: Sequence[Finding] = ()  # open ones whose verdict this run changed: the first of them
    changed_count: int = 0  # all of them

    def place(self, key: str) -> str:
        """Give where the file with a key is found."""
        return f"{self.location}/{key}" if self.location else key

    @property
    def findings_left_out(self) -> int:
        """How many open findings are not among `findings`."""
        return max(0, self.run.findings.open - len(self.findings))
