"""Who does not verify does not pay for it."""

import subprocess
import sys
from pathlib import Path

import pytest

import dtr_audit

LAYER = Path(dtr_audit.__path__[0]).parent


def loads_cryptography(module: str) -> bool:
    code = f"import sys, {module}; print('cryptography' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=LAYER, capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    return done.stdout.strip() == "True"


@pytest.mark.parametrize("name", ["", ".policy", ".reading", ".cache", ".client", ".changefeed", ".metadata"])
def test_cryptography_is_not_loaded_by_what_does_not_verify(name: str) -> None:
    assert not loads_cryptography(f"dtr_audit.trust.notary{name}")


def test_cryptography_is_loaded_by_what_does() -> None:
    assert loads_cryptography("dtr_audit.trust.notary.verification")
