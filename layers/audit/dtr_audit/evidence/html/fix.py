"""The fix: the rule's commands for every finding, without writing them out for every finding.

Findings of a kind need the same commands but for the names in them. So these are written once, with names that stand for a
finding's own, and the script puts those in. Where that would not give the very commands of `dtr_audit.core.fix`, they are
written out in full in the finding's row.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dtr_audit.core.finding import Finding
from dtr_audit.core.fix import HOW_TO_RUN, fix_commands, is_sha256
from dtr_audit.core.model import Repository
from dtr_audit.core.run_record import Run
from dtr_audit.core.text import clean
from dtr_audit.evidence.html.markup import Markup, element
from dtr_audit.evidence.html.tables import isolate, write_section
from dtr_audit.evidence.html.words import NAME_LENGTH, say_count
from dtr_audit.evidence.report import Report

FORMS = 8  # kinds of findings that are told apart

# The script knows these names too.
_REPOSITORY = Repository("YOUR-NAMESPACE", "YOUR-REPOSITORY")
_TAG, _DIGEST = "YOUR-TAG", "YOUR-DIGEST"
_ANY_DIGEST = "0" * 64  # in whose place the name of one stands
_NAMES = re.compile(f"{_REPOSITORY}|{_TAG}|{_DIGEST}")


class Commands:
    """The fix commands of the findings of a run, and the forms that they have so far."""

    def __init__(self, run: Run) -> None:
        self._domain = run.domains[0] if run.domains else ""
        self._trust = run.trust
        self.forms: Counter[tuple[str, ...]] = Counter()  # in the order of their numbers, with the findings of each

    def of(self, finding: Finding) -> tuple[str, ...]:
        """Give the commands for a finding; none where a name is not what it looks like."""
        names = (str(finding.repository), finding.tag, finding.digest, self._domain)
        if not self._domain or any(clean(name, NAME_LENGTH) != name for name in names):
            return ()
        return fix_commands(finding, self._domain, self._trust)

    def write(self, finding: Finding) -> tuple[Markup, Markup]:
        """Write what stands in a finding's row: its own commands, if no form gives them, and the cell with the button."""
        commands = self.of(finding)
        if not commands:
            return Markup(""), element("td", "none")
        button = element("button", "Fix", type="button")
        form = tuple(
            line.replace(_ANY_DIGEST, _DIGEST) for line in fix_commands(_in_general(finding), self._domain, self._trust)
        )
        if _fill(form, finding) == commands and (form in self.forms or len(self.forms) < FORMS):
            self.forms[form] += 1
            return Markup(""), element("td", button, data_form=1 + list(self.forms).index(form))
        return element("details", element("summary", "Its own commands"), write_lines(commands)), element("td", button)


def _in_general(finding: Finding) -> Finding:
    general = replace(finding, repository=_REPOSITORY, tag=_TAG)
    return replace(general, digest=f"sha256:{_ANY_DIGEST}") if is_sha256(finding.digest) else general


def _fill(form: Iterable[str], finding: Finding) -> tuple[str, ...]:
    """Do what the script does."""
    _, _, digest = finding.digest.partition(":")
    names = {str(_REPOSITORY): str(finding.repository), _TAG: finding.tag, _DIGEST: digest}
    return tuple(_NAMES.sub(lambda found: names[found[0]], line) for line in form)


def write_fix(report: Report, commands: Commands) -> Iterator[Markup]:
    """Write how to fix a finding, if one is listed; `commands` are those of the listed ones."""
    if not report.findings:
        return
    parts = [
        element(
            "p",
            "Sign an image that a person has checked, and remove any other. Signing takes a signer's client bundle from UCP, curl, "
            "and the Notary's own client, notary. The lines pull and push nothing, and do not use docker: from Docker CLI 29 on it "
            "pushes without signing. No commands are given for a name that is too long or has hidden characters.",
        ),
        element("p", HOW_TO_RUN),
    ]
    first = next((one.finding for one in report.findings if commands.of(one.finding)), None)
    if first is None:
        parts.append(element("p", "No commands can be given for the findings listed here."))
    else:
        parts.append(element("h3", "The first finding, ", isolate(f"{first.repository}:{first.tag}")))
        parts.append(_copied(write_lines(commands.of(first))))
    for number, (form, count) in enumerate(commands.forms.items(), start=1):
        which = (
            f"Form {number}, for {say_count(count, 'finding')}" if len(commands.forms) > 1 else "Any finding (form 1)"
        )
        parts.append(element("h3", which))
        parts.append(_copied(write_lines(form, class_="form")))
    yield write_section("fix", "How to fix a finding", *parts)


def write_dialog() -> Markup:
    """Write the dialog that the script shows commands in."""
    return element(
        "dialog",
        element("h2", "", id="fix-title", tabindex=-1),
        element("p", HOW_TO_RUN),
        element("pre", "", id="fix-commands", tabindex=0),
        element(
            "p",
            element("button", "Copy", type="button", id="fix-copy"),
            element("button", "Close", type="button", id="fix-close"),
            element("span", "", role="status"),
        ),
        id="fix-dialog",
        aria_labelledby="fix-title",
    )


def _copied(block: Markup) -> Markup:
    button = element("button", "Copy", type="button", class_="copy", hidden="")
    return element("div", block, button, element("span", "", role="status"), class_="copied")


def write_lines(lines: Iterable[str], **attributes: str) -> Markup:
    """Write commands, a line each."""
    return element("pre", *(element("code", line, Markup("\n")) for line in lines), tabindex=0, **attributes)
