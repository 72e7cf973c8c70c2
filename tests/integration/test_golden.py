"""What a run leaves is frozen: the facts in one set of files, the texts for people in another.

The histories are those of the comparison of the engines. Each night is written as its difference to the night before, so that the
files stay small and a change in them can be read. To write the files again after a change on purpose:

    GOLDEN=rewrite .venv/bin/python -m pytest tests/integration/test_golden.py

`facts-*.txt` hold keys, ids, counts, statuses, verdicts, digests and orders. They change only with a contract. `prose-*.txt` hold
the texts, each once.
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import unified_diff
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from dtr_audit import __version__
from dtr_audit.core.exceptions import KEY as EXCEPTIONS_KEY
from dtr_audit.pipeline import steps
from dtr_audit.trust.notary.pins import KEY as PINS_KEY
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.notary.notary import Notary
from tests.harness import audit_harness
from tests.integration.test_engines import (
    FIRST_DAY,
    HISTORY,
    TRUST,
    Day,
    Publisher,
    World,
    except_some,
    put_exceptions,
    trust_history,
)

pytestmark = pytest.mark.usefixtures("all_shards")

FOLDER = Path(__file__).parent / "golden"
REWRITE = os.environ.get("GOLDEN") == "rewrite"

# Texts for people, by the key or element that holds them. A key that is not listed here is a fact.
PROSE_KEYS = frozenset({
    "subject", "text", "reason", "answer", "fix", "incomplete_because", "warnings", "problem", "reasons",
    "skip_message", "finding_details", "comments", "comment", "message", "code_desc", "desc", "summary", "title", "default",
    "FINDING_DETAILS", "COMMENTS", "check-content", "fixtext", "description", "remark", "fix-text", "data", "label", "detail",
})  # fmt: skip
PROSE = "<prose>"

# What differs from run to run of the tests, or hangs on the wording. Nothing else is left out.
VARYING = (
    (re.compile(rf"\b{re.escape(__version__)}\b"), "RELEASE"),
    (re.compile(r"tests-auditbucket-\w+"), "BUCKET"),
    (re.compile(r"(\b[0-9a-f]{12})[0-9a-f]{52}\b"), r"\1"),  # a digest is known by its beginning
    (re.compile(r"its keys \([0-9a-f, ]+\)"), "its keys (KEYS)"),  # new in each run of the tests
    (re.compile(r"sha256 [0-9a-f]{12} \(\d+ bytes\)"), "sha256 SUM (SIZE bytes)"),  # of files that hold prose
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "VERSION"),  # of S3
)
SUMS = frozenset({"sha256", "size", "bytes"})  # likewise
NUMBER = re.compile(r"[\d,]+|[0-9a-f]{12}")  # in a cell of a page: no prose, and sums and sizes are among them


# Of a table, written once where they are the same in each item.
COMMON = ("audited_at", "author", "pushed_at", "registry", "rule_id", "run_id")


@dataclass
class Golden:
    """What a history has left, night after night: the lines of each part as they were last, and all that was written."""

    facts: list[str] = field(default_factory=list)
    prose: dict[str, None] = field(default_factory=dict)  # in the order of appearance
    _last: dict[str, list[str]] = field(default_factory=dict)

    def add(self, step: str, parts: Mapping[str, list[str]]) -> None:
        """Write a night as its difference to the one before."""
        for part, lines in parts.items():
            changes = list(unified_diff(self._last.get(part, []), lines, lineterm="", n=0))[2:]
            # Which lines are gone is clear from the position: they are not written a second time.
            self.facts += [f"== {step}: {part}", *(line for line in changes if not line.startswith("-"))]
            self._last[part] = lines

    def split(self, value: Any, key: str = "") -> Any:
        """Take the prose out of a JSON value, leaving a mark."""
        if isinstance(value, dict):
            return {name: "<sum>" if name in SUMS else self.split(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [self.split(one, key) for one in value]
        if isinstance(value, str) and key in PROSE_KEYS:
            self.say(value)
            return PROSE if value else ""
        return value

    def say(self, text: str) -> None:
        """Note each line of a text."""
        self.prose.update(dict.fromkeys(line for line in map(str.strip, text.splitlines()) if line))


def _flatten(value: Any, path: str = "") -> Iterator[str]:
    """Give a JSON value as lines: one for each scalar, and one for each flat entry of a list."""
    if isinstance(value, dict):
        for key in value:
            yield from _flatten(value[key], f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        for one in value:
            if isinstance(one, dict) and not any(isinstance(inner, dict | list) for inner in one.values()):
                yield f"{path}[] {json.dumps(one)}"
            else:
                yield from _flatten(one, f"{path}[]")
    else:
        yield f"{path} {json.dumps(value)}"


class _Page(HTMLParser):
    """A page as facts, which are its elements with their attributes, and prose, which is its text."""

    def __init__(self, golden: Golden) -> None:
        super().__init__()
        self._golden = golden
        self._skipped = ""
        self.lines: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._skipped = tag if tag in {"style", "script"} else ""
        kept = [f"{name}={value}" for name, value in attributes if name in {"id", "class", "href", "datetime", "open"}]
        if tag not in {"b", "br", "p", "span", "wbr", "code", "strong", "em"} or kept:
            self.lines.append(" ".join([tag, *kept]))

    def handle_endtag(self, tag: str) -> None:
        self._skipped = ""

    def handle_data(self, data: str) -> None:
        if not self._skipped and not NUMBER.fullmatch(data.strip()):
            self._golden.say(data)


def _page(golden: Golden, content: str) -> list[str]:
    page = _Page(golden)
    page.feed(content)
    return page.lines


def _xml(golden: Golden, content: str) -> list[str]:
    lines = []

    def walk(node: ElementTree.Element, path: str) -> None:
        name = node.tag.rpartition("}")[2]
        attributes = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
        text = (node.text or "").strip()
        if name in PROSE_KEYS and text:
            golden.say(text)
            text = PROSE
        shown = [f"{path}/{name}", json.dumps(attributes) if attributes else "", json.dumps(text) if text else ""]
        lines.append(" ".join(filter(None, shown)))
        for child in node:
            walk(child, f"{path}/{name}")

    walk(ElementTree.fromstring(content), "")  # noqa: S314 - the audit's own
    return lines


def _json(golden: Golden, content: str) -> list[str]:
    return list(_flatten(golden.split(json.loads(content))))


READERS: dict[str, Callable[[Golden, str], list[str]]] = {
    "html": _page, "ckl": _xml, "xml": _xml, "json": _json, "cklb": _json,
}  # fmt: skip


class Recorder:
    """One engine's history, written down."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.golden = Golden()

    def record(self, history: list[Day]) -> Golden:
        for number, step in enumerate(history):
            step.happens(self.world)
            self.world.server.faults = step.faults
            record = self.world.run(number, step.event, step.account)
            self.golden.add(step.says, dict(self._parts(record)))
            self.world.end_day()
        return self.golden

    def _parts(self, record: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
        found, run_id = self.world.audited, record["run_id"]
        keys = [*found.keys("runs"), *found.keys("findings"), *found.keys("evidence")]
        yield "keys", [self._plain(key, run_id) for key in keys if run_id in key]
        yield "record", self._lines(record, run_id)
        # In which order repositories are read is not frozen.
        rows = sorted(found.rows(run_id), key=lambda row: (row["namespace"], row["repository"], row["tag"]))
        yield "rows", self._table(rows, run_id)
        for table, output in {"findings": "FindingsTableName", "runs": "RunsTableName"}.items():
            items = [item for item in found.items(output) if item["pk"].split("#")[0] == found.name]
            ordered = sorted(items, key=lambda item: (item["pk"], item["sk"]))
            yield table, self._table(ordered)
        messages = found.messages()
        yield (
            "messages",
            [
                line
                for one in messages
                for line in self._lines(
                    {"subject": one.subject, "attributes": dict(one.attributes), "body": one.body}, run_id
                )
            ],
        )
        mails = []
        for mail in found.mails():
            self.golden.say(self._plain(mail.text, run_id))
            mails += self._lines({"subject": mail.subject, "attributes": dict(mail.attributes)}, run_id)
        yield "mails", mails
        for key in found.keys("evidence"):
            if f"/{run_id}/" in key:
                name = key.rpartition("/")[2]
                content = self._plain(found.read(key).decode(), run_id)
                yield name, READERS[name.rpartition(".")[2]](self.golden, content)

    def _lines(self, value: Any, run_id: str) -> list[str]:
        return list(_flatten(self._split(value, run_id)))

    def _table(self, items: Iterable[Mapping[str, Any]], run_id: str = "") -> list[str]:
        """Give a line for each item, after a line of what is the same in all of them."""
        found = [self._split(_without_keys(item), run_id) for item in items]
        same = {
            name: found[0][name]
            for name in COMMON
            if len(found) > 1 and all(name in item and item[name] == found[0][name] for item in found)
        }
        lines = [json.dumps({name: item[name] for name in item if name not in same}) for item in found]
        return [f"each {json.dumps(same)}", *lines] if same else lines

    def _split(self, value: Any, run_id: str) -> Any:
        return self.golden.split(json.loads(self._plain(json.dumps(value, default=str, sort_keys=True), run_id)))

    def _plain(self, text: str, run_id: str) -> str:
        """Take out what is the world's own, or the night's own."""
        server = self.world.server
        for host in (quote(server.host), server.host):
            text = text.replace(host, "HOST")
        for pattern, instead in VARYING:
            text = pattern.sub(instead, text)
        if not run_id:
            return text
        text = text.replace(run_id, "RUN")
        day = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
        return text.replace(f"{day}T03:05:00.000Z", "NOW").replace(f"dt={day}", "dt=TODAY")


def _without_keys(item: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the documents of remembered trust data: they are signed with new keys in each run of the tests."""
    if not isinstance(item.get("trust"), str):
        return dict(item)
    remembered = json.loads(item["trust"])
    return {**item, "trust": remembered | {name: sorted(remembered[name]) for name in ("documents", "signed")}}


@pytest.fixture(autouse=True)
def _one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids of findings are made of the registry's name."""
    monkeypatch.setattr(audit_harness, "_NUMBERS", itertools.repeat(7777))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> Iterator[None]:
    monkeypatch.setattr(steps, "BATCH_REPOSITORIES", 4)
    yield
    for key in (EXCEPTIONS_KEY, PINS_KEY):
        stack.s3.delete_object(Bucket=stack.outputs["BucketName"], Key=key)


def end_exceptions(world: World) -> None:
    """Let an exception end, and overwrite what was signed: findings open again, within an exception and without one."""
    except_some(world, legacy=3, web=60)
    world.push("web/app:3", "legacy/app:2")


def withdraw_exceptions(world: World) -> None:
    put_exceptions(world, b'{"exceptions": []}')


MORE = [Day("opened again, and excepted no longer", end_exceptions), Day("exceptions withdrawn", withdraw_exceptions)]
FORMATS = {"EVIDENCE_FORMATS": "report,ckl,cklb,xccdf,hdf"}


@pytest.fixture(params=[False, True], ids=["lambda", "stepfunctions"])
def by_steps(request: pytest.FixtureRequest) -> bool:
    """Which engine makes the runs."""
    return bool(request.param)


def _hold(name: str, golden: Golden, *, by_steps: bool) -> None:
    """Compare with the files, facts first; or write them. What Step Functions leaves is kept as its difference to Lambda."""
    assert not (REWRITE and os.environ.get("CI")), "golden files are rewritten by people, not in CI"
    for kind, lines in {"facts": golden.facts, "prose": list(golden.prose)}.items():
        of_lambda, found = FOLDER / f"{kind}-{name}.txt", lines
        file = of_lambda
        if by_steps:
            file = FOLDER / f"{kind}-{name}-stepfunctions.txt"
            found = list(unified_diff(_read(of_lambda), lines, "lambda", "stepfunctions", lineterm="", n=0))
        if REWRITE:
            file.parent.mkdir(exist_ok=True)
            file.write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
        changed = list(unified_diff(_read(file), found, "as it was", "as it is", lineterm="", n=1))
        assert not changed, f"{file.name}: the {kind} have changed:\n" + "\n".join(changed[:60])


def _read(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1]


def test_findings_over_many_runs_are_what_they_were(stack: Stack, by_steps: bool) -> None:
    world = World(stack, None, FORMATS, by_steps=by_steps)
    try:
        _hold("findings", Recorder(world).record([*HISTORY, *MORE]), by_steps=by_steps)
    finally:
        world.close()


def test_signatures_over_five_runs_are_what_they_were(stack: Stack, by_steps: bool) -> None:
    publisher = Publisher()
    publisher.notary = Notary(clock=lambda: FIRST_DAY)
    world = World(stack, publisher.notary, {**FORMATS, **TRUST}, by_steps=by_steps)
    try:
        _hold("signatures", Recorder(world).record(trust_history(publisher)), by_steps=by_steps)
    finally:
        world.close()
