"""The secret: what is needed, what is optional, and that nothing of it is ever quoted."""

import json
from typing import Any

import pytest

from dtr_audit.core.credentials import UcpCredentials
from dtr_audit.errors import SettingsError
from dtr_audit.registry.credentials import CA_BUNDLE_LENGTH, parse_secret

REGISTRY = {"username": "auditor", "password": "hunter2", "ca_bundle": "PEM of DTR"}
UCP = {"ucp_username": "reader", "ucp_password": "hunter3"}


def parse(**keys: Any) -> UcpCredentials | None:
    return parse_secret(json.dumps({**REGISTRY, **UCP, **keys})).ucp


def test_keys_for_ucp_are_read_with_the_registrys_authority() -> None:
    assert parse() == UcpCredentials("reader", "hunter3", "PEM of DTR")
    assert parse(ucp_ca_bundle=None) == UcpCredentials("reader", "hunter3", "PEM of DTR")


def test_an_authority_of_ucps_own_takes_the_place_of_the_registrys() -> None:
    assert parse(ucp_ca_bundle="PEM of UCP") == UcpCredentials("reader", "hunter3", "PEM of UCP")
    assert parse(ucp_ca_bundle="") == UcpCredentials("reader", "hunter3", "")


def test_a_colon_in_ucps_user_name_does_no_harm() -> None:
    # It travels in a document, not in HTTP Basic.
    assert parse(ucp_username="a:b") == UcpCredentials("a:b", "hunter3", "PEM of DTR")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"ucp_username": None}, "'ucp_username'"),
        ({"ucp_username": ""}, "'ucp_username'"),
        ({"ucp_password": None}, "'ucp_password'"),
        ({"ucp_password": ["hunter4"]}, "'ucp_password'"),
        ({"ucp_password": "hunter4\ud800"}, "half of a character"),
        ({"ucp_ca_bundle": 5}, "'ucp_ca_bundle'"),
        ({"ucp_ca_bundle": "x" * (CA_BUNDLE_LENGTH + 1)}, "'ucp_ca_bundle'"),
    ],
)
def test_what_is_wrong_with_ucps_keys_is_said_and_leaves_the_registrys_good(keys: dict[str, Any], named: str) -> None:
    credentials = parse_secret(json.dumps({**REGISTRY, **UCP, **keys}))
    assert (credentials.username, credentials.password) == ("auditor", "hunter2")
    assert credentials.ucp is None
    assert credentials.ucp_problem.startswith("secret: ")
    assert named in credentials.ucp_problem
    assert "hunter" not in credentials.ucp_problem


@pytest.mark.parametrize(
    "text",
    [
        '{"username": "auditor", "password": "hunter2", "password": "hunter3"}',
        '{"username": "auditor", "p\\u0061ssword": "hunter2", "password": "hunter3"}',
        '{"username": "auditor", "password": "hunter2", "more": {"hunter4": 1, "hunter4": true}}',
    ],
)
def test_a_secret_with_two_values_for_one_key_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(SettingsError, match="one key stands twice in one object") as refused:
        parse_secret(text)
    assert "hunter" not in str(refused.value)


def test_a_secret_without_ucp_is_as_good_as_ever() -> None:
    credentials = parse_secret(json.dumps(REGISTRY))
    assert credentials.ucp is None
    assert "'ucp_username' is missing" in credentials.ucp_problem


def test_ucps_keys_do_not_make_up_for_the_registrys() -> None:
    with pytest.raises(SettingsError, match="'username'"):
        parse_secret(json.dumps(UCP))


def test_no_representation_shows_a_password_or_a_bundle() -> None:
    credentials = parse_secret(json.dumps({**REGISTRY, **UCP}))
    assert not any(secret in repr(credentials) for secret in ("hunter2", "hunter3", "PEM"))
