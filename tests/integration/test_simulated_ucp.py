"""The simulated UCP keeps to what is known of UCP's API; it is spoken to with `requests`, never with the auditor's client."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dtr_audit_simulator.dtr.accounts import Account
from dtr_audit_simulator.dtr.fault_kinds import Status
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.ucp.server import CONFIGURATION, LOGIN, Configuration, UcpServer

TIMEOUT = None  # pytest-timeout is the only one


class Administrator:
    def __init__(self, ucp: UcpServer, session: requests.Session) -> None:
        self.ucp = ucp
        self.session = session

    def ask(self, method: str, path: str, *, token: str = "", document: object = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.session.request(
            method, self.ucp.url + path, headers=headers, json=document, timeout=TIMEOUT, allow_redirects=False
        )

    def log_in(self, name: str, password: str) -> Any:
        return self.ask("POST", "/auth/login", document={"username": name, "password": password})

    def token(self) -> str:
        return str(self.log_in(self.ucp.admin.name, self.ucp.admin.password).json()["auth_token"])


@pytest.fixture
def administrator(tmp_path: Path) -> Iterator[Administrator]:
    with UcpServer() as ucp, requests.Session() as session:
        authority = tmp_path / "ca.pem"
        authority.write_text(ucp.ca_bundle)
        session.trust_env = False
        session.verify = str(authority)
        yield Administrator(ucp, session)


def test_a_login_opens_a_session_that_a_logout_ends(administrator: Administrator) -> None:
    token = administrator.token()
    assert administrator.ucp.sessions == 1
    assert administrator.ask("GET", "/enzi/v0/config/auth", token=token).json()["backend"] == "ldap"
    assert administrator.ask("POST", "/id/logout", token=token).status_code == 204
    assert administrator.ucp.sessions == 0
    assert administrator.ask("GET", "/api/ucp/config-toml", token=token).status_code == 401
    assert administrator.ask("POST", "/id/logout", token=token).status_code == 401


def test_a_login_takes_the_right_password_alone(administrator: Administrator) -> None:
    assert administrator.log_in(administrator.ucp.admin.name, "guess").status_code == 401
    assert administrator.log_in("nobody", "guess").status_code == 401
    assert administrator.ask("POST", "/auth/login", document=["admin"]).status_code == 400
    assert administrator.ask("GET", "/auth/login").status_code == 404
    assert administrator.ucp.sessions == 0


def test_settings_are_for_administrators(administrator: Administrator) -> None:
    administrator.ucp.accounts.add(Account("reader", "password-of-reader"))
    token = administrator.log_in("reader", "password-of-reader").json()["auth_token"]
    for path, anonymous in (("/enzi/v0/config/auth", 302), ("/api/ucp/config-toml", 401)):
        assert administrator.ask("GET", path, token=token).status_code == 403
        assert administrator.ask("GET", path).status_code == anonymous
        assert administrator.ask("GET", path, token="made-up").status_code == anonymous


def test_the_configuration_is_toml_among_things_that_must_never_leak(administrator: Administrator) -> None:
    names = ("ops/release", 'quo"ted\n\x7f\U0001f511')
    administrator.ucp.configuration = Configuration(
        backend="managed", require_content_trust=False, require_signature_from=names, allow_repos=None
    )
    answer = administrator.ask("GET", "/api/ucp/config-toml", token=administrator.token())
    assert answer.headers["Content-Type"] == "application/toml"
    assert "must-never-leak" in answer.text
    document = tomllib.loads(answer.content.decode())
    assert document["auth"]["backend"] == "managed"
    assert document["trust_configuration"] == {"require_content_trust": False, "require_signature_from": list(names)}


def test_it_misbehaves_only_when_asked_to(administrator: Administrator) -> None:
    administrator.ucp.faults = Faults(on_calls=(Status(503, CONFIGURATION.limited(times=1)),), secrets_echoed=LOGIN)
    echo = administrator.log_in(administrator.ucp.admin.name, "guess-hunter2").text
    assert "guess-hunter2" in echo
    administrator.ucp.faults = Faults(on_calls=(Status(503, CONFIGURATION.limited(times=1)),))
    token = administrator.token()
    statuses = [administrator.ask("GET", "/api/ucp/config-toml", token=token).status_code for _ in (1, 2)]
    assert statuses == [503, 200]
