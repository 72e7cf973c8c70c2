"""What `make advisories` takes for an answer, and what it makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.scans.advisories import ACCEPTED, KNOWN_VULNERABLE, Accepted, Advisory, UnansweredError, ask, judge, main

SERVICE = """
import json, pathlib, sys
known = json.loads({known!r})
pins = pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text().split()
dependencies = []
for name, version in (pin.split("==") for pin in pins):
    if name in known:
        vulns = [dict(id=id, aliases=["CVE-" + id], fix_versions=["9.9"]) for id in known[name]]
        dependencies.append(dict(name=name, version=version, vulns=vulns))
    else:
        dependencies.append(dict(name=name, skip_reason="Dependency not found on PyPI"))
print(json.dumps(dict(dependencies=dependencies)))
print("No known vulnerabilities found", file=sys.stderr)
"""


def service(folder: Path, known: dict[str, list[str]]) -> tuple[str, str]:
    """Make a pip-audit whose service knows these packages, and these vulnerabilities of theirs."""
    script = folder / "service.py"
    script.write_text(SERVICE.format(known=json.dumps(known)), encoding="utf-8")
    return sys.executable, str(script)


def lock(folder: Path, *pins: str) -> Path:
    file = folder / "lock.txt"
    file.write_text("\n".join(pins), encoding="utf-8")
    return file


def advisory(name: str = "requests", *, of: str = "a.txt", fixed_in: tuple[str, ...] = ("9.9",)) -> Advisory:
    return Advisory(lock=of, package=name, version="1.0", ids=("PYSEC-1", "CVE-1"), fixed_in=fixed_in)


def test_a_vulnerability_is_read_with_its_other_names_and_its_remedy(tmp_path: Path) -> None:
    known = {"idna": [], "requests": ["PYSEC-1"]}
    found = ask(lock(tmp_path, "idna==3.0", "requests==1.0"), "a.txt", service(tmp_path, known))
    assert found == [Advisory("a.txt", "requests", "1.0", ("PYSEC-1", "CVE-PYSEC-1"), ("9.9",))]


def test_a_service_that_knows_none_of_the_packages_has_not_answered(tmp_path: Path) -> None:
    with pytest.raises(UnansweredError, match=r"a\.txt: no answer for 2 of 2 packages: idna, requests"):
        ask(lock(tmp_path, "idna==3.0", "requests==1.0"), "a.txt", service(tmp_path, {}))


def test_one_package_without_an_answer_leaves_the_lock_unanswered(tmp_path: Path) -> None:
    with pytest.raises(UnansweredError, match="no answer for 1 of 2 packages: requests"):
        ask(lock(tmp_path, "idna==3.0", "requests==1.0"), "a.txt", service(tmp_path, {"idna": []}))


def test_a_lock_in_which_nothing_was_found_to_ask_about_is_not_clean(tmp_path: Path) -> None:
    with pytest.raises(UnansweredError, match="no answer for 0 of 0"):
        ask(lock(tmp_path), "a.txt", service(tmp_path, {}))


def test_a_pip_audit_that_fails_has_not_answered(tmp_path: Path) -> None:
    failing = (sys.executable, "-c", "import sys; sys.exit('Could not connect')")
    with pytest.raises(UnansweredError, match=r"a\.txt: pip-audit failed with exit status 1: Could not connect"):
        ask(lock(tmp_path, "idna==3.0"), "a.txt", failing)


def test_a_vulnerability_is_a_complaint_that_names_the_remedy() -> None:
    assert judge([advisory()], []) == ["a.txt: requests 1.0 has PYSEC-1, CVE-1. Update to 9.9."]
    [complaint] = judge([advisory(fixed_in=())], [])
    assert complaint.endswith("There is no fixed version yet.")


@pytest.mark.parametrize("by", ["PYSEC-1", "CVE-1"])
def test_a_vulnerability_is_accepted_by_any_of_its_names(by: str) -> None:
    assert judge([advisory()], [Accepted("a.txt", "requests", by, "because")]) == []


@pytest.mark.parametrize("other", [advisory("idna"), advisory(of="b.txt")])
def test_what_is_accepted_in_one_place_is_not_accepted_in_another(other: Advisory) -> None:
    assert len(judge([advisory(), other], [Accepted("a.txt", "requests", "CVE-1", "because")])) == 1


def test_an_accepted_vulnerability_that_is_no_more_is_a_complaint() -> None:
    [complaint] = judge([], [Accepted("a.txt", "requests", "CVE-1", "because")])
    assert "CVE-1 of requests is accepted, but it is not in the answer any more" in complaint


def test_nothing_is_accepted_in_what_is_shipped() -> None:
    assert [accepted for accepted in ACCEPTED if not accepted.lock.startswith("requirements/")] == []


class Asked:
    """A service that answers by the name of the lock, and remembers which it was asked about."""

    def __init__(self, **answers: list[Advisory] | None) -> None:
        self.answers = answers
        self.names: list[str] = []

    def __call__(self, lock: Path, name: str) -> list[Advisory]:
        self.names.append(name)
        probing = lock.exists() and lock.read_text(encoding="utf-8") == KNOWN_VULNERABLE
        answer = self.answers["probe" if probing else name]
        if answer is None:
            raise UnansweredError(f"{name}: no answer")
        return answer


def test_clean_locks_of_a_service_that_answers_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a", "b"], Asked(probe=[advisory()], a=[], b=[])) == 0
    assert capsys.readouterr().out == "pip-audit: 0 complaints about 2 lock files; 0 accepted.\n"


def test_one_vulnerable_lock_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a", "b"], Asked(probe=[advisory()], a=[], b=[advisory(of="b")])) == 1
    assert "error: b: requests 1.0 has PYSEC-1" in capsys.readouterr().err


@pytest.mark.parametrize("probe", [None, []], ids=["no answer", "nothing wrong with a vulnerable package"])
def test_a_service_that_does_not_know_the_probe_is_believed_nothing(
    probe: list[Advisory] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(probe=probe, a=[])
    assert main(["a"], asked) == 2
    assert asked.names == ["the probe"]
    printed = capsys.readouterr()
    assert printed.err.startswith("NOT CHECKED for known vulnerabilities: a.")
    assert printed.out == ""


def test_where_the_service_may_be_out_of_reach_it_is_said_that_nothing_was_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--unanswered", "warn", "a"], Asked(probe=None)) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("NOT CHECKED for known vulnerabilities: a.")
    assert printed.out == ""


@pytest.mark.parametrize("unanswered", ["fail", "warn"])
def test_a_service_that_stops_answering_fails_the_run(unanswered: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--unanswered", unanswered, "a"], Asked(probe=[advisory()], a=None)) == 2
    assert "the vulnerability service answers, but not for a: no answer" in capsys.readouterr().err
