"""What is shown on the terminal, or in a file or pipe in its place.

Names, authors, reasons and addresses come from outside. None of them is ever read as markup, and whatever could move a cursor
or turn text around is taken out of them before they are shown.
"""

from __future__ import annotations

import heapq
import json
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dtr_audit.core.model import FINDING_VERDICTS, Verdict
from dtr_audit.core.text import clean
from dtr_audit_cli.progress import DoneColumn, ProgressLines
from dtr_audit_simulator.aws.function_log import Record
from dtr_audit_simulator.aws.subscribers import Message

SHOWN_LENGTH = 4_000  # characters of one paragraph from outside
FINDINGS_SHOWN = 20
CHANGES_SHOWN = 40
NAMESPACES_SHOWN = 20
REASONS_SHOWN = 10
DIGEST_SHOWN = 12  # hexadecimal digits, as `docker images` shows them
_BAR = "│ "
_MAIL_END = 9  # lines at the end of a mail that say where the rest is, and why its reader gets it
_MAIL_DETAIL = " " * 6  # begins a line that belongs to the finding above
_ARTIFACT = "ARTIFACT"

_STYLES = {
    "NOT_A_FINDING": "bold green",
    "OPEN": "bold red",
    "NOT_REVIEWED": "bold yellow",
    Verdict.SIGNED: "green",
    Verdict.UNSIGNED: "red",
    Verdict.MISMATCHED: "magenta",
    Verdict.UNTRUSTED: "red",
    Verdict.UNKNOWN: "yellow",
    "NEW": "red",
    "NOT EXCEPTED": "red",
    "ENDS SOON": "yellow",
    "CHANGED": "magenta",
    "RESOLVED": "green",
}


# The columns of counts, and what each counts; None: all image tags.
_COUNTED = {
    "Tags": None,
    "Signed": Verdict.SIGNED,
    "Unsigned": Verdict.UNSIGNED,
    "Mismatched": Verdict.MISMATCHED,
    "Untrusted": Verdict.UNTRUSTED,
    "Unknown": Verdict.UNKNOWN,
    "Cosign": _ARTIFACT,
}
COUNT_WIDTH = 5  # digits, at the least

_HEADINGS = {
    "opened": "NEW",
    "expired": "NOT EXCEPTED",
    "expiring": "ENDS SOON",
    "changed": "CHANGED",
    "resolved": "RESOLVED",
}


@dataclass(slots=True)
class Overview:
    """What the rows of a run come to: tags by namespace and verdict, and the first findings by name."""

    namespaces: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[Mapping[str, Any]] = field(default_factory=list)
    findings_count: int = 0

    def has(self, kind: str) -> bool:
        """Say whether a tag of any namespace has this verdict."""
        return any(counts[kind] for counts in self.namespaces.values())

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Overview:
        """Read rows of the archive, of any number; few of them are held."""
        overview = cls()

        def findings() -> Iterator[Mapping[str, Any]]:
            for row in rows:
                verdict = row["verdict"] or _ARTIFACT
                overview.namespaces.setdefault(row["namespace"], Counter())[verdict] += 1
                if verdict in FINDING_VERDICTS:
                    overview.findings_count += 1
                    yield row

        overview.findings = heapq.nsmallest(
            FINDINGS_SHOWN, findings(), key=lambda row: (row["namespace"], row["repository"], row["tag"])
        )
        return overview


class Display:
    """Everything that the commands have to say."""

    def __init__(self, *, verbose: bool = True) -> None:
        self.verbose = verbose
        # The real standard output, also while the function's output is captured.
        self._console = _Console(file=sys.stdout, markup=False, emoji=False, highlight=False)

    def title(self, text: str) -> None:
        """Begin a chapter."""
        self._console.print()
        self._console.rule(Text(text, "bold"), align="left", style="dim")

    def say(self, text: str, *, style: str = "") -> None:
        """Print a paragraph."""
        self._console.print(Text("\n".join(self._wrapped(_shown(text), hanging=0)), style))

    def pause(self) -> None:
        """Leave a line empty."""
        self._console.print()

    def items(self, texts: Iterable[str], *, style: str = "") -> None:
        """Print a list, an item a paragraph."""
        for text in texts:
            lines = self._wrapped(f"  - {_shown(text)}", hanging=4)
            self._console.print(Text("\n".join(lines), style))

    def commands(self, lines: Iterable[str]) -> None:
        """Print lines to be copied: never wrapped, since a break would be copied too."""
        for line in lines:
            self._console.print(Text(f"  {line}", "bold"), soft_wrap=True)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[Record], None]]:
        """Show how far a run is; gives what reads the function's log for it."""
        if not self._console.is_terminal:
            yield ProgressLines(self.say, text)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DoneColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, redirect_stdout=False, expand=True) as progress:
            task = progress.add_task(text, total=None, tags=0)

            def follow(record: Record) -> None:
                if "examined" in record:
                    progress.update(task, completed=record["examined"], total=record["listed"], tags=record["tags"])

            yield follow

    def answer(self, run: Mapping[str, Any]) -> None:
        """Show what a run answers, from its record."""
        text = Text(run["status"], _STYLES[run["status"]])
        if not run["complete"]:
            text.append(", and the audit is NOT COMPLETE", "bold yellow")
        elif run["empty"]:
            text.append(": the registry is proven to be empty")
        elif run["namespaces"]:
            text.append(": a partial run answers nothing for the namespaces it left out", "yellow")
        self._console.print(text)
        repositories, tags, findings = run["repositories"], run["tags"], run["findings"]
        not_signed = ", ".join(
            f"{tags[name]} {word}"
            for name, word in (
                ("unsigned", "unsigned"),
                ("mismatched", "mismatched (overwritten after signing)"),
                ("untrusted", "not trusted"),
                ("unknown", "unknown"),
            )
            if tags[name]
        )
        artifacts = f"; {tags['artifacts']} Cosign artifacts apart" if tags["artifacts"] else ""
        removed = f", {repositories['removed']} removed meanwhile" if repositories["removed"] else ""
        if repositories["listed"] or run["complete"]:
            self.say(
                f"{repositories['audited']} of {repositories['listed']} repositories read{removed}. {tags['audited']} image "
                f"tags: {tags['signed']} signed{f', {not_signed}' if not_signed else ''}{artifacts}."
            )
        else:
            self.say("Nothing was read.")
        if tags["cosign_only"]:
            self.say(
                f"Signed with Docker Content Trust: {tags['signed']}; with Cosign only, as the registry says: "
                f"{tags['cosign_only']}; with neither: {tags['neither']}."
            )
        excepted = f", {findings['excepted']} excepted" if findings["excepted"] else ""
        self.say(
            f"Findings: {findings['open']} open, {findings['opened']} new, {findings['resolved']} resolved{excepted}."
        )
        if run["incomplete_because"]:
            self.say("Not complete, because:", style="yellow")
            self.items(run["incomplete_because"], style="yellow")
        named = "\n".join(run["incomplete_because"])
        others = [entry for entry in run["unreadable"] if f"{entry['repository']} (" not in named]
        if others:
            self.say("Not read either:", style="yellow")
            self.items(
                (f"{entry['repository']}: {entry['reason']}" for entry in others[:REASONS_SHOWN]), style="yellow"
            )
            if len(others) > REASONS_SHOWN:
                self.say("  and more, see run.json")
        if run["warnings"]:
            self.say("Mind:", style="yellow")
            self.items(run["warnings"], style="yellow")

    def namespaces(self, overview: Overview, run: Mapping[str, Any]) -> None:
        """Show the tags of a run by namespace and verdict, those with most to do first."""
        unread = Counter(entry["repository"].partition("/")[0] for entry in run["unreadable"])
        table = _table("Namespace")
        width = max(COUNT_WIDTH, *(len(str(counts.total())) for counts in overview.namespaces.values()), 0)
        shown = [heading for heading, kind in _COUNTED.items() if kind is None or overview.has(kind)]
        for heading in [*shown, *(["Unread"] if unread else [])]:
            # A narrow terminal breaks the heading, never a number.
            table.add_column(heading, justify="right", overflow="fold", min_width=width)
        names = overview.namespaces.keys() | unread.keys()
        tags = {name: overview.namespaces.get(name, Counter()) for name in names}
        for name in sorted(names, key=lambda name: (-_failed(tags[name]), -unread[name], name))[:NAMESPACES_SHOWN]:
            counts = tags[name]
            cells = [
                *((counts[kind], _STYLES.get(kind, "")) for kind in (_COUNTED[heading] for heading in shown) if kind),
                *([(unread[name], _STYLES[Verdict.UNKNOWN])] if unread else []),
            ]
            table.add_row(
                Text(_shown(name), overflow="fold"),
                str(counts.total() - counts[_ARTIFACT]),
                *(Text(str(count), style) if count else Text("-", "dim") for count, style in cells),
            )
        self._console.print(table)
        if len(names) > NAMESPACES_SHOWN:
            self.say(f"  and {len(names) - NAMESPACES_SHOWN} more namespaces")

    def findings(self, overview: Overview) -> None:
        """Show the tags of a run that are findings: the first of them."""
        author_length = 14 if self._console.width < 100 else 32
        is_narrow = self._console.width < 72
        table = _table("Image tag", "Verdict", "Digest", *([] if is_narrow else ["Pushed by"]), "Pushed on", gap=0)
        for row in overview.findings:
            author = Text(_shown(row["author_name"] or row["author"], author_length) or "unknown")
            table.add_row(
                Text(_shown(f"{row['namespace']}/{row['repository']}:{row['tag']}"), overflow="fold"),
                Text(row["verdict"], _STYLES.get(row["verdict"], "red")),
                Text(_short(row["digest"])),
                *([] if is_narrow else [author]),
                Text(_shown(row["pushed_at"])[:10] or "unknown"),
            )
        self._console.print(table)
        left = overview.findings_count - len(overview.findings)
        if left:
            self.say(f"  and {left} more")
        excepted = [row for row in overview.findings if row["exception_id"]]
        if excepted:
            self.say("Excepted, and findings all the same:")
            self.items(
                f"{row['namespace']}/{row['repository']}:{row['tag']} by {row['exception_id']}, to {row['exception_ends']}"
                for row in excepted
            )

    def changes(self, messages: Sequence[Message]) -> None:
        """Show what changed, from the messages as machines get them."""
        table = _table("", "Image tag", "Now")
        left = 0
        for message in messages:
            body = message.body
            left += sum(body["counts"].values())
            for change_kind, heading in _HEADINGS.items():
                for item in body[change_kind]:
                    if table.row_count == CHANGES_SHOWN:
                        break
                    why = item["resolution"] or item["verdict"]
                    if self.verbose and not item["resolution"]:
                        why += f": {item['reason']}"
                    if change_kind == "expiring":
                        why = f"excepted to {item['exception']['ends']} only"
                    table.add_row(
                        Text(heading, _STYLES[heading]),
                        Text(_shown(f"{item['repository']}:{item['tag']}"), overflow="fold"),
                        Text(_shown(why), overflow="fold"),
                    )
        self._console.print(table)
        left -= table.row_count
        if left:
            self.say(f"  and {left} more")

    def mail(self, message: Message, *, lines: int | None = None) -> None:
        """Show a mail; of a longer one than `lines` the middle is left out, and said to be."""
        body = message.text.rstrip("\n").split("\n")
        if lines is not None and len(body) > lines:
            cut = lines - _MAIL_END
            while body[cut].startswith(_MAIL_DETAIL):  # not in the middle of a finding
                cut -= 1
            left_out = len(body) - cut - _MAIL_END
            body = [*body[:cut], "", f"[… {left_out} lines of this mail are left out here …]", "", *body[-_MAIL_END:]]
        self._letter("Mail", [f"Subject: {message.subject or ''}", "", *body])

    def machine(self, title: str, message: Message, *, body: Mapping[str, Any]) -> None:
        """Show a message as a queue delivers it: its attributes, and what is given of its body."""
        lines = ["attributes"]
        lines += [f"  {name} = {json.dumps(value)}" for name, value in sorted(message.attributes.items())]
        lines += [f"body ({len(body)} of its {len(message.body)} keys)", *json.dumps(body, indent=2).split("\n")]
        self._letter(title, lines)

    def locations(self, locations: Mapping[str, str]) -> None:
        """Show where files lie."""
        # One below the other: a path is often as long as the line, and must stay whole to be copied.
        for path, text in locations.items():
            self._console.print(Text(f"  {_shown(path)}", "bold"), soft_wrap=True)
            self._console.print(Text(f"      {text}"))

    def _letter(self, title: str, lines: Iterable[str]) -> None:
        """Print what somebody else wrote, with a bar beside it."""
        self._console.print(Text.assemble(("┌ ", "dim"), (title, "bold")))
        for line in lines:
            for part in self._wrapped(_shown(line)):
                self._console.print(Text.assemble((_BAR if part else _BAR.rstrip(), "dim"), part))
        self._console.print(Text("└", "dim"))

    def _wrapped(self, line: str, *, hanging: int | None = None) -> list[str]:
        """Break a line where the terminal ends, its continuation indented below it."""
        indent = len(line) - len(line.lstrip(" ")) + 2 if hanging is None else hanging
        return textwrap.wrap(
            line,
            self._console.width - len(_BAR),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
            replace_whitespace=False,
            drop_whitespace=True,
        ) or [""]


def print_error(text: str) -> None:
    """Print an error to standard error, in one plain paragraph."""
    print(f"error: {_shown(text)}", file=sys.stderr)


def prepare_streams() -> None:
    """Let a character that this terminal cannot encode be shown as its number rather than end the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _Console(Console):
    """A console that lets the audit go on when nobody reads any more (`… | head`)."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.__stdout__.fileno() if sys.__stdout__ else 1)
        os.close(nowhere)


def _shown(text: str, length: int = SHOWN_LENGTH) -> str:
    return clean(text, length)


def _short(digest: str) -> str:
    _, _, value = _shown(digest).partition(":")
    return value[:DIGEST_SHOWN] or "unknown"


def _failed(counts: Counter[str]) -> int:
    return sum(counts[verdict] for verdict in FINDING_VERDICTS)


def _table(*headings: str, gap: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading not in {"Image tag", "Now"})
    return table
