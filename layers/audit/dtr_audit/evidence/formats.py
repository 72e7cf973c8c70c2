"""The formats in which a run's evidence is written, by the name that the settings know them by."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dtr_audit.core.stig import load_release
from dtr_audit.evidence import ckl, cklb, hdf, html, xccdf
from dtr_audit.evidence.report import Report

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")  # in a file's name


class Writer(Protocol):
    """What makes a file of a report."""

    def __call__(self, report: Report, *, neighbours: bool = False) -> bytes:
        """Write the file; with `neighbours` the neighbouring rules that a fact answers stand in it as rules of their own."""


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of file."""

    file_name: str
    content_type: str
    write: Writer


def _write_page(report: Report, *, neighbours: bool = False) -> bytes:
    # Every fact stands in the page anyway.
    return html.write(report)


FORMATS = {
    "report": Format("report.html", "text/html; charset=utf-8", _write_page),
    "ckl": Format("checklist.ckl", "application/xml", ckl.write),
    "cklb": Format("checklist.cklb", "application/json", cklb.write),
    "xccdf": Format("results.xccdf.xml", "application/xml", xccdf.write),
    "hdf": Format("results.hdf.json", "application/json", hdf.write),
}


def write_all(report: Report, names: Sequence[str], *, neighbours: bool) -> Iterator[tuple[str, Format, bytes]]:
    """Write the files asked for, one after the other: the name of the format, the format, the content."""
    for name in names:
        written = FORMATS[name]
        yield name, written, written.write(report, neighbours=neighbours)


def name_download(file_name: str, registry: str, release: str, run_id: str) -> str:
    """Give the Content-Disposition of a file: saved from the bucket, its name says of which registry, STIG and run it is.

    The report is shown by a browser; all other files are saved.
    """
    parts = (registry, load_release(release).benchmark_id, release, run_id, file_name)
    name = "_".join(_UNSAFE.sub("-", part) for part in parts)
    return f'{"inline" if file_name.endswith(".html") else "attachment"}; filename="{name}"'
