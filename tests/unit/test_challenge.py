"""The challenge of the registry's protocol: which host it names as the place for tokens."""

import pytest

from dtr_audit.core.redaction import REDACTOR
from dtr_audit.registry.domains import foreign_host

OWN = "DTR.example.mil"


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        'Bearer realm="https://dtr.example.mil/auth/token",service="dtr"',
        'Bearer realm="https://dtr.EXAMPLE.mil:443/auth/token"',
        'bearer Realm = "https://dtr.example.mil./auth/token"',
        'Bearer realm="http://dtr.example.mil/auth/token"',
        "Bearer realm=https://dtr.example.mil/auth/token",
        'Bearer realm="/auth/token"',
        'Bearer realm="auth/token"',
        'Basic realm="Docker Trusted Registry"',
        'Bearer service="https://elsewhere.example/"',
    ],
)
def test_challenge_with_the_own_host_or_none_names_no_other(challenge: str) -> None:
    assert foreign_host(challenge, OWN) == ""


@pytest.mark.parametrize(
    ("challenge", "host"),
    [
        ('Bearer realm="https://dtr2.example.mil/auth/token",service="dtr"', "dtr2.example.mil"),
        ('Bearer realm="https://dtr.example.mil:4443/auth/token"', "dtr.example.mil:4443"),
        ('Basic realm="cache", Bearer realm="https://main.example.mil/auth/token"', "main.example.mil"),
        ("Bearer realm=https://main.example.mil/auth/token,service=dtr", "main.example.mil"),
        ('Bearer realm="//main.example.mil"', "main.example.mil"),
    ],
)
def test_challenge_with_another_host_names_it(challenge: str, host: str) -> None:
    assert foreign_host(challenge, OWN) == host


def test_challenge_that_repeats_a_password_shows_none_of_it() -> None:
    REDACTOR.learn_password("auditor", 'pass/word"with?marks')
    host = foreign_host('Bearer realm="https://pass/word"with?marks/auth"', OWN)
    assert host
    assert "pass" not in host
