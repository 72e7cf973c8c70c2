"""The built layer verifies trust data under Lambda's Python, and a start that does not verify loads nothing for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtr_audit_simulator.aws.runtime import Artifact, LambdaProcess
from dtr_audit_simulator.notary.keys import RootAuthority
from dtr_audit_simulator.notary.notary import Notary
from dtr_audit_simulator.notary.repository import TrustRepository

GUN = "dtr.example.com/platform/base"
DIGEST = "sha256:" + 64 * "1"

# The function's own modules, and behind them the reading of trust data that the event brings along.
PROBE = """
import sys
compiled = []
sys.addaudithook(lambda event, of: compiled.append(str(of[1])) if event == "compile" else None)
import audited
at_start = list(sys.modules)
def handler(event, context):
    if not event:
        return at_start
    from datetime import datetime, timezone
    from dtr_audit.trust.notary.policy import Pin, TrustPolicy
    from dtr_audit.trust.notary.verification import verify
    class Source:
        def fetch(self, gun, name):
            return event["files"][name.partition(".")[0]].encode()
    policy = TrustPolicy(pins=(Pin(event["gun"], authorities=event["authority"]),))
    reading = verify(Source(), event["gun"], None, policy, datetime.now(timezone.utc))
    import cryptography, _cffi_backend
    return {
        "outcome": reading.outcome,
        "reason": reading.reason,
        "tags": sorted(reading.tags),
        "compiled": compiled,
        "from": [cryptography.__file__, _cffi_backend.__file__],
    }
"""


@pytest.fixture
def probe(artifact: Artifact, tmp_path: Path) -> Iterator[LambdaProcess]:
    (tmp_path / "app.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "audited.py").write_bytes((artifact.function / "app.py").read_bytes())
    environment = {"AWS_DEFAULT_REGION": "us-east-1", "POWERTOOLS_SERVICE_NAME": "probe"}
    with LambdaProcess(Artifact(tmp_path, artifact.layer), "app.handler", environment) as probe:
        yield probe


def event(repository: TrustRepository, authority: RootAuthority) -> dict[str, Any]:
    files = {role: body.decode() for role, body in repository.revisions[-1].items()}
    return {"gun": GUN, "authority": authority.certificate_pem, "files": files}


def test_a_start_that_does_not_verify_loads_no_cryptography(probe: LambdaProcess) -> None:
    loaded = {name.partition(".")[0] for name in probe.invoke({})}
    assert {"dtr_audit", "boto3", "requests"} <= loaded
    assert loaded & {"cryptography", "_cffi_backend", "cffi"} == set()


def test_a_root_is_verified_up_to_the_pinned_authority_and_what_it_signs(
    probe: LambdaProcess, artifact: Artifact
) -> None:
    authority = RootAuthority()
    repository = Notary().create(GUN, authority=authority)
    repository.sign("1.0", DIGEST)
    reported = probe.invoke(event(repository, authority))
    assert (reported["outcome"], reported["reason"], reported["tags"]) == ("verified", "", ["1.0"])
    assert all(name.startswith(f"{artifact.packages}/") for name in reported["from"])
    assert [name for name in reported["compiled"] if name.startswith(str(artifact.layer))] == []
    other = probe.invoke(event(repository, RootAuthority()))
    assert other["outcome"] == "does not hold"
    assert "root not pinned" in other["reason"]
