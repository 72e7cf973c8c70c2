"""The Notary of real parts asks for tokens and keeps its keys in its signer; the vendor's own client judges the lab."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
import requests

from dtr_audit_simulator.dtr.accounts import Account
from tests.real.lab.registry import RealRegistry
from tests.real.lab.scenarios import HONEST, TAG
from tests.real.lab.signer_client import Delegation, SignedTarget, SignerClient, ToolFailedError
from tests.real.lab.trust import RELEASES
from tests.real.trust_attacks import ATTACKS, EVIL_DIGEST, Attack, Stage, sign_pair

pytestmark = pytest.mark.real


class Visitor:
    """Asks for trust data as a client does that has no more than an account."""

    def __init__(self, registry: RealRegistry) -> None:
        self._registry = registry
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(registry.ca_file)

    def token(self, *scopes: str, account: tuple[str, str] | None = None) -> str:
        answer = self.session.get(
            f"{self._registry.url}/auth/token",
            params={"service": self._registry.host, "scope": scopes},
            auth=account or (self._registry.username, self._registry.password),
            timeout=None,
        )
        answer.raise_for_status()
        return str(answer.json()["token"])

    def get(self, path: str, token: str = "") -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.session.get(f"{self._registry.url}{path}", headers=headers, timeout=None, allow_redirects=False)


@pytest.fixture
def visitor(real_registry: RealRegistry) -> Iterator[Visitor]:
    visitor = Visitor(real_registry)
    with visitor.session:
        yield visitor


def test_the_notary_asks_for_a_token_of_its_own(real_registry: RealRegistry, visitor: Visitor, namespace: str) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")
    gun = real_registry.gun(namespace, "api")
    scope = f"repository:{gun}:pull"
    root = f"/v2/{gun}/_trust/tuf/root.json"
    realm = f'Bearer realm="{real_registry.url}/auth/token",service="{real_registry.host}",scope="{scope}"'

    challenged = visitor.get(root)
    assert challenged.status_code == HTTPStatus.UNAUTHORIZED
    assert challenged.headers["Www-Authenticate"] == realm
    assert challenged.json()["errors"][0]["code"] == "UNAUTHORIZED"

    answer = visitor.get(root, visitor.token(scope))
    assert answer.status_code == HTTPStatus.OK
    assert answer.json()["signed"]["_type"] == "Root"


def test_a_token_is_good_for_its_own_scope_alone(real_registry: RealRegistry, visitor: Visitor, namespace: str) -> None:
    for name in ("api", "other"):
        real_registry.push_image(namespace, name, "1.0")
        real_registry.sign(namespace, name, "1.0")
    gun, other = real_registry.gun(namespace, "api"), real_registry.gun(namespace, "other")
    root = f"/v2/{gun}/_trust/tuf/root.json"
    real_registry.api.accounts.add(Account("oscar", "oscars-password"))

    right = visitor.token(f"repository:{gun}:pull")
    assert visitor.get(root, right).status_code == HTTPStatus.OK
    header, claims, _ = right.split(".")
    refused = {
        "another repository's": visitor.token(f"repository:{other}:pull"),
        "another host's": visitor.token(f"repository:{namespace}/api:pull"),
        "no scope's": visitor.token(),
        "somebody's who is no admin": visitor.token(f"repository:{gun}:pull", account=("oscar", "oscars-password")),
        "nobody's": f"{header}.{claims}.{'A' * 86}",
    }
    for whose, token in refused.items():
        answer = visitor.get(root, token)
        assert answer.status_code == HTTPStatus.UNAUTHORIZED, whose
        error = "invalid_token" if whose == "nobody's" else "insufficient_scope"
        assert answer.headers["Www-Authenticate"].endswith(f'error="{error}"'), whose

    both = visitor.token(f"repository:{other}:pull", f"repository:{gun}:pull")
    assert visitor.get(root, both).status_code == HTTPStatus.OK


def test_a_wrong_password_gets_no_token(visitor: Visitor) -> None:
    with pytest.raises(requests.HTTPError, match="401"):
        visitor.token(account=("admin", "a-wrong-password"))


def test_there_is_no_trust_data_until_something_is_signed(
    real_registry: RealRegistry, visitor: Visitor, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    gun = real_registry.gun(namespace, "api")

    answer = visitor.get(f"/v2/{gun}/_trust/tuf/root.json", visitor.token(f"repository:{gun}:pull"))

    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.json()["errors"][0]["code"] == "METADATA_NOT_FOUND"


def test_the_changefeed_is_for_one_who_may_list_all(
    real_registry: RealRegistry, visitor: Visitor, namespace: str
) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0", domain="registry.example.com")
    feed = "/v2/_trust/changefeed?records=-1000&change_id=-1"

    challenge = visitor.get(feed).headers["Www-Authenticate"]
    assert challenge.endswith('scope="registry:catalog:*"')
    records = visitor.get(feed, visitor.token("registry:catalog:*")).json()["records"]

    assert f"registry.example.com/{namespace}/api" in {record["GUN"] for record in records}


def test_the_signer_holds_the_keys_of_the_server(real_registry: RealRegistry, namespace: str) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")

    log = (real_registry.ca_file.parent / "notary" / "notary-signer.log").read_text(encoding="utf-8")

    assert "CreateKey: Created KeyID" in log
    assert "Sign: Signed" in log


def test_a_stranger_cannot_list_what_is_signed(real_registry: RealRegistry, namespace: str, tmp_path: Path) -> None:
    real_registry.push_image(namespace, "api", "1.0")
    real_registry.sign(namespace, "api", "1.0")
    stranger = SignerClient(
        tmp_path / "stranger",
        host=real_registry.host,
        ca_bundle=real_registry.ca_bundle,
        username="nobody",
        password="a-password",
    )

    with pytest.raises(ToolFailedError, match=r"401|denied|unauthorized"):
        stranger.list_signed(real_registry.gun(namespace, "api"))


def test_delegations_are_listed_with_their_paths_and_keys(real_registry: RealRegistry, namespace: str) -> None:
    real_registry.push_image(namespace, "api", TAG)
    real_registry.sign(namespace, "api", TAG)
    assert real_registry.list_delegations(namespace, "api") == []

    real_registry.delegate(namespace, "api", "targets/ci", "carol", paths=("ci-", "nightly-"))
    real_registry.delegate(namespace, "api", "targets/ci", "dave", paths=("ci-",))
    real_registry.delegate(namespace, "api", "targets/all", "erin")

    everything, ci = real_registry.list_delegations(namespace, "api")
    assert everything == Delegation("targets/all", ("",), everything.keys, 1)
    assert (ci.role, ci.paths, len(ci.keys), ci.threshold) == ("targets/ci", ("ci-", "nightly-"), 2, 1)


def test_a_root_key_can_be_replaced_and_the_server_keeps_every_version(
    real_registry: RealRegistry, visitor: Visitor, namespace: str
) -> None:
    HONEST["rotate-the-root-key"](real_registry, namespace, "api")
    gun = real_registry.gun(namespace, "api")
    token = visitor.token(f"repository:{gun}:pull")

    def root_keys(file: str) -> set[str]:
        answer = visitor.get(f"/v2/{gun}/_trust/tuf/{file}.json", token)
        return set(answer.json()["signed"]["roles"]["root"]["keyids"])

    newest = visitor.get(f"/v2/{gun}/_trust/tuf/root.json", token).json()["signed"]["version"]
    keys = [root_keys(f"{version}.root") for version in range(1, newest + 1)]
    assert keys[-1] == root_keys("root")
    assert len({key for ids in keys for key in ids}) == 3


def test_what_passes_an_idle_proxy_is_not_changed(stage: Stage, tmp_path: Path) -> None:
    listed = _visit(stage, tmp_path).list_signed(stage.gun)

    assert listed == stage.registry.signer_client.list_signed(stage.gun)
    assert SignedTarget(TAG, stage.digest, RELEASES) in listed
    assert stage.proxy.logins, "nobody has logged in through the proxy"


def test_a_forgery_that_is_not_spoilt_is_taken_for_genuine(stage: Stage, tmp_path: Path) -> None:
    """Otherwise an attack that is built upon it could fail for a reason of its own."""
    fresh, later = _visit(stage, tmp_path / "fresh"), _visit(stage, tmp_path / "later", seen=True)

    stage.proxy.tamper = stage.forge()

    assert fresh.list_signed(stage.gun) == later.list_signed(stage.gun)
    assert fresh.list_signed(stage.gun) == stage.registry.signer_client.list_signed(stage.gun)


def test_another_digest_that_enough_have_signed_is_taken_for_genuine(stage: Stage, tmp_path: Path) -> None:
    stage.proxy.tamper = sign_pair(stage)

    visitor = _visit(stage, tmp_path)

    for role in ("targets/pair", RELEASES):
        assert SignedTarget(TAG, EVIL_DIGEST, role) in visitor.list_signed(stage.gun, role)


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.vendor_refuses is not None], ids=str)
def test_the_vendors_client_judges_an_attack_as_the_list_says(stage: Stage, attack: Attack, tmp_path: Path) -> None:
    visitor = _visit(stage, tmp_path, seen=attack.seen)
    stage.proxy.tamper = attack.make(stage)

    def lists(role: str) -> bool:
        try:
            return SignedTarget(TAG, attack.digest(stage), role) in visitor.list_signed(stage.gun, role)
        except ToolFailedError:
            return False

    assert (lists(f"targets/{attack.signer}") and lists(RELEASES)) is not attack.vendor_refuses


def test_the_list_names_each_attack_once() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def _visit(stage: Stage, directory: Path, *, seen: bool = False) -> SignerClient:
    """Give a client behind the proxy, which has read all that is there before if it has `seen` it."""
    visitor = stage.registry.visit(directory / "visitor", notary=stage.proxy.url)
    if seen:
        visitor.list_signed(stage.gun)
    return visitor
