"""What the single benchmarks rest on: peers that see what they should, a floor of the same rows, a profile of every thread."""

from __future__ import annotations

import threading
import time
import zlib
from pathlib import Path

import pytest

from dtr_audit_simulator import PROJECT
from tests.harness.requirement import require
from tools.bench import in_flight, peers, profile
from tools.bench.cpu import measure_floor
from tools.bench.prerequisites import missing_tools
from tools.bench.registry import Shape
from tools.bench.stage import Stage


def test_the_rules_loop_sees_ten_of_ten_and_with_paging_everything(stage: Stage) -> None:
    require(missing_tools(peers.LOOP_TOOLS), "apt-get install curl jq")
    stage.hold(Shape(repositories=12, tags=13))
    unpaged, paged, larger = peers.measure_loops(stage)
    assert (unpaged["tags"], unpaged["requests"]) == (100, 1 + 1 + 10)
    assert (paged["tags"], paged["requests"]) == (156, 1 + 2 + 12 * 2)
    assert (larger["tags"], larger["requests"]) == (156, 1 + 1 + 12)


def test_the_script_sees_everything(stage: Stage) -> None:
    stage.hold(Shape(repositories=3, tags=101))
    seen = peers.measure_script(stage)
    assert (seen["tags"], seen["requests"]) == (303, 1 + 1 + 3 * 2)


def test_a_peer_that_does_not_see_everything_is_no_peer(stage: Stage) -> None:
    stage.hold(Shape(repositories=3, tags=10, unsigned_every=10))
    with pytest.raises(RuntimeError, match="a sequential script saw 30 tags"):
        peers.measure_script(stage)


def test_the_rules_loop_is_the_rules_own_but_for_certificates() -> None:
    written = (PROJECT / "tools" / "bench" / "peer" / "stig.sh").read_text(encoding="utf-8")
    calls = written.count("$(curl ") + written.count("do curl ")
    assert calls == written.count('curl -s --cacert "$CA_FILE" ') == 3
    as_in_the_rule = (
        written.replace('-s --cacert "$CA_FILE"', "-sk")
        .replace('-u "$DTR_USERNAME:$DTR_PASSWORD"', "-u [dtr_username]:[dtr_password]")
        .replace("$DTR_HOST", "[dtr_url]")
    )
    for line in (
        'AUTHTOKEN=$(curl -sk -u [dtr_username]:[dtr_password] -X GET "https://[dtr_url]/auth/token" | jq -r .token)',
        'REPOS=$(curl -sk -H "Authorization: Bearer $AUTHTOKEN" -X GET "https://[dtr_url]/api/v0/repositories" | '
        "jq -r '.repositories[] | \"\\(.namespace)/\\(.name)\"')",
        'for r in $REPOS; do curl -sk -H "Authorization: Bearer $AUTHTOKEN" -X GET '
        '"https://[dtr_url]/api/v0/repositories/$r/tags?domain=[dtr_url]"; done | '
        "jq -r '.[] | [.name, .inNotary] | @csv'",
    ):
        assert line in as_in_the_rule.splitlines()


def test_the_floor_is_of_the_rows_that_the_audit_left(stage: Stage) -> None:
    stage.hold(Shape(repositories=3, tags=50))
    taken = stage.audit()
    parsing, compressing = measure_floor(stage, taken, stage.shape, 100)
    assert 0 < parsing < taken.processor_seconds
    assert 0 < compressing < taken.processor_seconds
    with pytest.raises(RuntimeError, match="left 150 rows, of 153 tags"):
        measure_floor(stage, taken, Shape(repositories=3, tags=51), 100)


@pytest.mark.skipif(not profile.SEES_ALL_THREADS, reason="needs Python 3.11, whose profiler can tell threads apart")
def test_a_profile_sees_every_thread_and_no_waiting() -> None:
    def compress() -> None:
        for _ in range(20):
            zlib.compress(bytes(range(256)) * 4_000)

    def work() -> dict[str, object]:
        thread = threading.Thread(target=compress)
        thread.start()
        time.sleep(0.2)
        thread.join()
        return {"answer": 1}

    answer = profile.profiled(work)
    assert answer["answer"] == 1
    spent = {one["name"]: one["seconds"] for one in answer["profile"]}
    assert spent["<built-in method zlib.compress>"] > 0.02
    assert spent["<built-in method time.sleep>"] < 0.02


def test_without_wrk_it_is_said_that_the_server_was_not_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    server = in_flight.measure_server(stage)
    point = {
        "latency": 0.05,
        "concurrency": 8,
        "requests_per_second": 100.0,
        "ratio": 0.625,
        "whole_ratio": 0.6,
        "processor_share": 0.95,
        "is_processor_bound": True,
        "goal": {"met": False},
    }
    points, said = in_flight.tables({"points": [point], "server": server})
    assert points.rows[0][-1] == "past one core"
    assert said.rows[-1][0] == "not looked at: wrk is not installed (Debian: apt-get install wrk)"
