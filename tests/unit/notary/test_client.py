"""Where the Notary's client sends what: on a server that can ask for anything."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dtr_audit.core.credentials import Credentials
from dtr_audit.errors import AuthenticationError, RegistryError, SettingsError
from dtr_audit.trust.notary.client import TOKENS, NotaryClient
from dtr_audit_simulator.http.authority import CertificateAuthority
from dtr_audit_simulator.http.transport import HttpServer, Request, Response

GUN = "dtr.example.com:4443/payments/api"
SCOPE = f"repository:{GUN}:pull"
ABSENT = json.dumps({"errors": [{"code": "METADATA_NOT_FOUND", "message": "You have requested metadata"}]}).encode()

Answer = Callable[[Request], Response | None]


class Secret:
    """The secret, which may be changed while it is in use."""

    def __init__(self, ca_bundle: str) -> None:
        self.ca_bundle = ca_bundle
        self.password = "hunter2"
        self.readings = 0

    def fetch(self, *, fresh: bool = False) -> Credentials:
        self.readings += 1
        return Credentials("auditor", self.password, self.ca_bundle)


class Server:
    """A Notary and its token server; `answers` come before its own."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.http = HttpServer(self._answer, context=context)
        self.http.start()
        self.url = f"https://localhost:{self.http.port}"
        self.realm = f"{self.url}/auth/token"
        self.password = "hunter2"
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        self.documents: dict[str, bytes] = {f"/v2/{GUN}/_trust/tuf/root.json": b"root"}
        self.valid: set[str] = set()
        self._lock = threading.Lock()

    def asked(self) -> list[str]:
        return [request.path.rpartition("/")[2] for request in self.requests]

    def _answer(self, request: Request) -> Response:
        with self._lock:
            self.requests.append(request)
        for answer in self.answers:
            response = answer(request)
            if response is not None:
                return response
        if request.path == "/auth/token":
            return self._token(request)
        if request.header("authorization") not in self.valid:
            challenge = f'Bearer realm="{self.realm}",service="notary",scope="repository:something-else:*"'
            return Response(401, b"{}", headers=(("WWW-Authenticate", challenge),))
        if request.path in self.documents:
            return Response(200, self.documents[request.path])
        return Response(404, ABSENT)

    def _token(self, request: Request) -> Response:
        expected = "Basic " + base64.b64encode(f"auditor:{self.password}".encode()).decode()
        if request.header("authorization") != expected:
            return Response(401, b'{"details": "hunter2 is wrong"}')
        with self._lock:
            token = f"token-{len(self.valid)}"
            self.valid.add(f"Bearer {token}")
        return Response(200, json.dumps({"token": token, "expires_in": 300}).encode())


@pytest.fixture
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture
def context(authority: CertificateAuthority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue("localhost", "127.0.0.1").load_into(context)
    return context


@pytest.fixture
def server(context: ssl.SSLContext) -> Iterator[Server]:
    server = Server(context)
    yield server
    server.http.stop()


@pytest.fixture
def other(context: ssl.SSLContext) -> Iterator[Server]:
    """Somebody else, with a good certificate."""
    server = Server(context)
    yield server
    server.http.stop()


@pytest.fixture
def secret(authority: CertificateAuthority) -> Secret:
    return Secret(authority.certificate_pem)


def connect(server: Server, secret: Secret, *token_hosts: str) -> NotaryClient:
    return NotaryClient(
        server.url, secret, x509_strict=True, concurrency=8, stop_at=time.monotonic() + 60, token_hosts=token_hosts
    )


@pytest.fixture
def client(server: Server, secret: Secret) -> Iterator[NotaryClient]:
    client = connect(server, secret)
    yield client
    client.close()


def test_a_challenge_is_answered_with_a_token_for_the_gun(server: Server, client: NotaryClient) -> None:
    assert client.fetch(GUN, "root") == b"root"
    first, asking, second = server.requests
    assert first.header("authorization") == ""
    assert asking.query == {"service": ["notary"], "scope": [SCOPE], "account": ["auditor"]}
    assert asking.header("authorization").startswith("Basic ")
    assert second.header("authorization") == "Bearer token-0"


def test_a_token_serves_for_one_gun_and_the_next_one_is_asked_for_at_once(server: Server, client: NotaryClient) -> None:
    client.fetch(GUN, "root")
    client.fetch(GUN, "timestamp")
    client.fetch("dtr.example.com/other/one", "timestamp")
    assert server.asked() == ["root.json", "token", "root.json", "timestamp.json", "token", "timestamp.json"]
    assert server.requests[4].query["scope"] == ["repository:dtr.example.com/other/one:pull"]


def test_a_notary_that_asks_for_nothing_is_reported_nothing(server: Server, client: NotaryClient) -> None:
    server.valid.add("")
    assert client.fetch(GUN, "root") == b"root"
    assert [request.header("authorization") for request in server.requests] == [""]


def test_a_document_is_asked_for_by_its_path(server: Server, client: NotaryClient) -> None:
    server.valid.add("")
    for name in ("targets/ci/nightly." + "0" * 64, "3.root"):
        client.fetch(GUN, name)
    assert [request.target for request in server.requests] == [
        f"/v2/{GUN}/_trust/tuf/targets/ci/nightly.{'0' * 64}.json",
        f"/v2/{GUN}/_trust/tuf/3.root.json",
    ]


def test_a_token_that_has_expired_is_renewed_once(server: Server, client: NotaryClient) -> None:
    client.fetch(GUN, "root")
    server.valid.clear()
    assert client.fetch(GUN, "root") == b"root"
    assert server.asked().count("token") == 2


def test_a_token_that_nothing_comes_of_is_not_asked_for_again_and_again(server: Server, client: NotaryClient) -> None:
    challenge = (("WWW-Authenticate", f'Bearer realm="{server.realm}",service="notary"'),)
    server.answers.append(lambda request: Response(401, b"", headers=challenge) if "/v2/" in request.path else None)
    with pytest.raises(AuthenticationError, match="401, the Notary does not let this account read"):
        client.fetch(GUN, "root")
    assert server.asked() == ["root.json", "token", "root.json"]


@pytest.mark.parametrize(
    "realm",
    [
        "http://localhost:{port}/auth/token",
        "https://localhost:{other}/auth/token",
        "https://127.0.0.1:{port}/auth/token",
        "https://localhost/auth/token",
        "https://localhost:{port}@localhost:{other}/auth/token",
        "https://user:pass@localhost:{port}/auth/token",
        "https://localhost:{port}.evil.example/auth/token",
        "https://localhost:{port}\\@localhost:{other}/auth/token",
        "https://localhost:{port}/auth\r/token",
        "https://[/auth/token",
        "//localhost:{other}/auth/token",
        "/auth/token",
        "localhost",
        "https://localhost:99999/x",
        "https:///auth/token",
    ],
)
def test_credentials_go_to_no_other_host_and_never_without_tls(
    server: Server, other: Server, client: NotaryClient, realm: str
) -> None:
    server.realm = realm.format(port=server.http.port, other=other.http.port)
    with pytest.raises(AuthenticationError) as refused:
        client.fetch(GUN, "root")
    assert other.requests == []
    assert server.asked() == ["root.json"]
    assert "hunter2" not in str(refused.value)


def test_credentials_go_to_a_host_that_the_settings_name(server: Server, other: Server, secret: Secret) -> None:
    server.realm = other.realm
    other.valid = server.valid
    client = connect(server, secret, f"LOCALHOST:{other.http.port}")
    assert client.fetch(GUN, "root") == b"root"
    assert other.asked() == ["token"]
    client.close()


def test_a_redirect_of_the_token_is_not_followed(server: Server, other: Server, client: NotaryClient) -> None:
    there = Response(302, b"", headers=(("Location", other.realm),))
    server.answers.append(lambda request: there if request.path == "/auth/token" else None)
    with pytest.raises(RegistryError, match="redirect"):
        client.fetch(GUN, "root")
    assert other.requests == []


@pytest.mark.parametrize(
    "challenge", ["", 'Basic realm="x"', "Bearer", 'Bearer service="notary"', "Bearer realm=x", "\x01" * 10_000]
)
def test_a_challenge_that_names_no_realm_is_reported(server: Server, client: NotaryClient, challenge: str) -> None:
    server.answers.append(lambda _: Response(401, b"", headers=(("WWW-Authenticate", challenge),)))
    with pytest.raises(RegistryError):
        client.fetch(GUN, "root")
    assert server.asked() == ["root.json"]


def test_wrong_credentials_are_tried_once_for_all_threads(server: Server, client: NotaryClient) -> None:
    server.password = "changed"

    def fetch(number: int) -> str:
        with pytest.raises(AuthenticationError) as refused:
            client.fetch(f"dtr.example.com/a/b{number}", "root")
        return str(refused.value)

    with ThreadPoolExecutor(8) as pool:
        reasons = set(pool.map(fetch, range(32)))
    assert reasons == {"the registry gives no token for the Notary: it does not accept the credentials (401)"}
    assert server.asked().count("token") == 1


def test_a_password_that_was_rotated_is_read_again(server: Server, secret: Secret, client: NotaryClient) -> None:
    client.fetch(GUN, "root")
    server.valid.clear()
    server.password = secret.password = "hunter3"
    assert client.fetch(GUN, "root") == b"root"
    assert secret.readings == 2


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"", "404"),
        (404, b"<html>not found", "a page of HTML"),
        (404, b'{"errors": [{"code": "NAME_UNKNOWN"}]}', "404"),
        (404, b'{"errors": []}', "404"),
        (404, b'{"errors": [{"code": 404}]}', "404"),
        (403, b"", "administrator"),
        (500, b'{"errors": [{"code": "UNKNOWN", "message": "hunter2"}]}', "500"),
        (204, b"", "204"),
    ],
)
def test_only_the_notarys_own_word_is_absence(
    server: Server, client: NotaryClient, status: int, body: bytes, reason: str
) -> None:
    server.answers.append(lambda request: Response(status, body) if "/v2/" in request.path else None)
    with pytest.raises(RegistryError, match=reason) as refused:
        client.fetch(GUN, "root")
    assert "hunter2" not in str(refused.value)


def test_what_the_notary_has_not_is_none(client: NotaryClient) -> None:
    assert client.fetch(GUN, "targets/ci") is None


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token": 5}', b'{"token": ""}', b'{"token": "a b"}', b"<html>"])
def test_a_token_that_is_none_is_reported(server: Server, client: NotaryClient, body: bytes) -> None:
    server.answers.append(lambda request: Response(200, body) if request.path == "/auth/token" else None)
    with pytest.raises(AuthenticationError, match="gives no token for the Notary"):
        client.fetch(GUN, "root")


def test_endless_data_is_cut_off(server: Server, client: NotaryClient) -> None:
    def forever() -> Iterator[bytes]:
        while True:
            yield b" " * 65_536

    server.answers.append(lambda _: Response(200, stream=forever))
    with pytest.raises(RegistryError, match="larger than 4 MiB"):
        client.fetch(GUN, "root")


def test_tokens_are_forgotten_when_there_are_many(server: Server, client: NotaryClient) -> None:
    for number in range(TOKENS + 1):
        client.fetch(f"dtr.example.com/a/b{number}", "root")
    client.fetch("dtr.example.com/a/b1", "root")
    assert server.asked()[-1] == "root.json"
    assert server.asked()[-2] != "token"
    client.fetch("dtr.example.com/a/b0", "root")
    assert server.asked()[-2] == "token"


def test_the_changefeed_is_asked_for_as_an_administrator(server: Server, client: NotaryClient) -> None:
    server.documents["/v2/_trust/changefeed"] = b"{}"
    assert client.fetch_changes(10, "0") == b"{}"
    assert server.requests[1].query["scope"] == ["registry:catalog:*"]
    assert server.requests[2].query == {"records": ["10"], "change_id": ["0"]}
    server.answers.append(lambda request: Response(403) if "/v2/" in request.path else None)
    with pytest.raises(AuthenticationError, match="changefeed: 403"):
        client.fetch_changes(10, "0")


def test_a_bundle_without_certificates_is_reported(server: Server) -> None:
    with pytest.raises(SettingsError, match="ca_bundle"):
        connect(server, Secret("no PEM"))
