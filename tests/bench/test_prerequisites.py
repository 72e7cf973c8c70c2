"""What cannot be measured on a machine is said before anything is measured, and nothing else is given up for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtr_audit_simulator.aws.runtime import Artifact
from tools.bench import cold_start, profile, results
from tools.bench.__main__ import BENCHMARKS, main
from tools.bench.results import Table


class Noted:
    """A benchmark that measures nothing, and says what had been told when its turn came."""

    TITLE = "Nothing"

    def __init__(self, name: str, capsys: pytest.CaptureFixture[str], reported: dict[str, str]) -> None:
        self.name, self.capsys, self.reported = name, capsys, reported

    def measure(self, repetitions: int) -> dict[str, Any]:
        del repetitions
        self.reported[self.name] = self.capsys.readouterr().err
        return {}

    def tables(self, numbers: results.Numbers) -> list[Table]:
        del numbers
        return []


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> dict[str, str]:
    """What each benchmark that was run found told at its beginning, where no program is on the PATH but what is in Python."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "bench")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LAMBDA_PYTHON", str(tmp_path / "python3.13"))
    reported: dict[str, str] = {}
    for name in BENCHMARKS:
        monkeypatch.setitem(BENCHMARKS, name, Noted(name, capsys, reported))
    return reported


def test_what_is_missing_is_said_before_anything_is_measured(
    reported: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "SEES_ALL_THREADS", False)
    main([])
    said = reported[next(iter(BENCHMARKS))].splitlines()
    assert [line.partition(" will not measure ")[0] for line in said] == ["in-flight", "profile", "peers", "cold-start"]
    of_wrk, _, of_loop, of_start = said
    assert of_wrk == (
        "in-flight will not measure how fast the server is without the audit: "
        "wrk is not installed (Debian: apt-get install wrk)"
    )
    for tool in ("curl", "jq"):
        assert f"apt-get install {tool}" in of_loop
    assert "Python 3.13" in of_start
    assert set(reported) == set(BENCHMARKS) - {"profile", "cold-start"}


def test_a_benchmark_that_is_asked_for_and_cannot_be_measured_ends_it_before_any_other_is(
    reported: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="cannot be measured here: cold-start"):
        main(["trust", "cold-start"])
    assert reported == {}
    assert "Python 3.13" in capsys.readouterr().err
    main(["trust", "peers"])
    assert set(reported) == {"trust", "peers"}


def test_a_start_is_measured_of_a_build_with_byte_code_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = Artifact(tmp_path / "function", tmp_path / "layer")
    monkeypatch.setattr(cold_start, "missing_parts", list)
    monkeypatch.setattr(cold_start, "find_artifact", lambda *_: built)
    assert cold_start.find_missing_tool().missing == ("a build (run `make build`)",)
    built.packages.mkdir(parents=True)
    assert "byte code" in cold_start.find_missing_tool().missing[0]
    (built.function / "__pycache__").mkdir(parents=True)
    assert cold_start.find_missing_tool().missing == ()
