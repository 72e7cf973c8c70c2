"""The simulated DTR keeps to the facts, and misbehaves only when asked to.

It is spoken to with `requests` over TLS under its own CA, never with the auditor's client: the one must not hide the
other's mistakes.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload
from urllib.parse import quote

import pytest
import requests

from dtr_audit_simulator.dtr.accounts import Account, Accounts, ManualClock
from dtr_audit_simulator.dtr.api import DtrApi
from dtr_audit_simulator.dtr.backend import BackendUnavailable, NoSuchRepository, RepositoryEntry, TagEntry
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.fault_kinds import (
    ALL_TAGS,
    EVERY_CALL,
    Body,
    Calls,
    Closed,
    Cookies,
    Endless,
    EndlessBody,
    GzipBomb,
    Gzipped,
    Miscount,
    Redirect,
    Rewrite,
    Slow,
    Status,
    deep_json,
    long_string,
    readings_of,
    tags_of,
)
from dtr_audit_simulator.dtr.faults import (
    API,
    HOSTILE_NAMES,
    INVALID_JSON,
    LOGIN_PAGE,
    LONE_SURROGATES,
    MISSING,
    NOT_A_NUMBER,
    REPOSITORIES,
    SETTINGS,
    TOKEN,
    WRONG_TYPE,
    Faults,
)
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer, HarborServer, Server
from dtr_audit_simulator.http.authority import CertificateAuthority, Defect
from dtr_audit_simulator.http.transport import HttpServer, Request, Response

TIMEOUT = None  # pytest-timeout is the only one
FAR_SECONDS = 600.0  # no test lasts so long


@dataclass(frozen=True)
class Reader:
    """A client as simple as can be: it verifies certificates and follows no redirects, and that is all it knows."""

    server: Server
    session: requests.Session

    def get(self, path: str, *, auth: tuple[str, str] | None = None, token: str = "", **parameters: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.session.get(
            self.server.url + path,
            params=parameters,
            auth=auth,
            headers=headers,
            timeout=TIMEOUT,
            allow_redirects=False,
        )

    def stream(self, path: str, auth: tuple[str, str]) -> requests.Response:
        return self.session.get(self.server.url + path, auth=auth, timeout=TIMEOUT, stream=True)


@dataclass(frozen=True)
class Walk:
    """One reading of a list, from page to page."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    counts: list[str | None] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [f"{row['namespace']}/{row['name']}" if "namespace" in row else row["name"] for row in self.rows]


class Auditor:
    """What the tests do as the admin of a simulated DTR."""

    def __init__(self, dtr: DtrServer, reader: Reader) -> None:
        self.dtr = dtr
        self.reader = reader

    @property
    def basic(self) -> tuple[str, str]:
        return self.dtr.admin.name, self.dtr.admin.password

    def token(self, **parameters: Any) -> str:
        answer = self.reader.get("/auth/token", auth=self.basic, **parameters)
        assert answer.status_code == 200
        token: str = answer.json()["token"]
        return token

    def get(self, path: str, **parameters: Any) -> requests.Response:
        answer: requests.Response = self.reader.get(path, auth=self.basic, **parameters)
        return answer

    def settings(self) -> int:
        return self.get("/api/v0/meta/settings").status_code

    def tags(self, path: str, **parameters: Any) -> Any:
        parameters.setdefault("domain", self.dtr.host)
        answer = self.get(f"/api/v0/repositories/{path}/tags", **parameters)
        assert answer.status_code == 200
        return answer.json()

    def walk(self, path: str = "/api/v0/repositories", *, pages: int = 100, **parameters: Any) -> Walk:
        """Read a list page by page, `pages` at most."""
        walk = Walk()
        start: dict[str, str] = {}
        for _ in range(pages):
            answer = self.get(path, count="true", **parameters, **start)
            assert answer.status_code == 200, answer.text
            body = answer.json()
            rows = body["repositories"] if isinstance(body, dict) else body
            walk.rows.extend(rows)
            walk.sizes.append(len(rows))
            walk.counts.append(answer.headers.get("X-Resource-Count"))
            cursor = answer.headers.get("X-Next-Page-Start")
            if not cursor:
                break
            walk.cursors.append(cursor)
            start = {"pageStart": cursor}
        return walk


class Bench:
    """Start servers, and close everything at the test's end."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self._files = 0

    def read(self, server: Server) -> Reader:
        self._stack.enter_context(server)
        return Reader(server, self.session(server.ca_bundle))

    def session(self, ca_bundle: str) -> requests.Session:
        self._files += 1
        path = self._directory / f"ca-{self._files}.pem"
        path.write_text(ca_bundle)
        session = self._stack.enter_context(requests.Session())
        session.trust_env = False
        session.verify = str(path)
        return session

    def serve(self, backend: Any = None, **options: Any) -> Auditor:
        dtr = DtrServer(backend, **options)
        return Auditor(dtr, self.read(dtr))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, tmp_path)


def a_registry(repositories: int = 1, tags: int = 1, *, visibility: str = "private") -> InMemoryRegistry:
    """Make `team/app-NN` with `tags` signed tags each."""
    registry = InMemoryRegistry()
    for i in range(repositories):
        registry.create_repository("team", f"app-{i:02}", visibility=visibility)
        for j in range(tags):
            registry.push("team", f"app-{i:02}", f"v{j:03}")
            registry.sign("team", f"app-{i:02}", f"v{j:03}")
    return registry


def paths(count: int) -> list[str]:
    return [f"team/app-{i:02}" for i in range(count)]


# Logging in


def test_v2_challenges_with_realm_and_service(bench: Bench) -> None:
    auditor = bench.serve()
    answer = auditor.reader.get("/v2/")
    assert answer.status_code == 401
    host = auditor.dtr.host
    expected = f'Bearer realm="https://{host}/auth/token",service="{host}"'
    assert answer.headers["Www-Authenticate"] == expected
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_v2_names_the_service_of_its_profile_and_opens_for_a_token(bench: Bench) -> None:
    auditor = bench.serve(profile=Profile(service="dtr"))
    assert 'service="dtr"' in auditor.reader.get("/v2/").headers["Www-Authenticate"]
    assert auditor.reader.get("/v2/", token=auditor.token(service="dtr")).status_code == 200
    assert auditor.reader.get("/v2/", auth=auditor.basic).status_code == 401


def test_a_token_opens_the_api_with_or_without_service(bench: Bench) -> None:
    auditor = bench.serve()
    for parameters in ({}, {"service": "dtr"}, {"service": auditor.dtr.host, "scope": "registry:catalog:*"}):
        token = auditor.token(**parameters)
        assert auditor.reader.get("/api/v0/meta/settings", token=token).status_code == 200


def test_the_token_answer_has_both_names_and_its_life(bench: Bench) -> None:
    auditor = bench.serve(profile=Profile(expires_in=120))
    answer = auditor.get("/auth/token").json()
    assert answer["token"] == answer["access_token"]
    assert answer["expires_in"] == 120
    assert answer["issued_at"].endswith("Z")


def test_an_expired_token_is_refused_without_anyone_sleeping(bench: Bench) -> None:
    clock = ManualClock()
    auditor = bench.serve(clock=clock)
    token = auditor.token()
    clock.advance(299)
    assert auditor.reader.get("/api/v0/repositories", token=token).status_code == 200
    clock.advance(1)
    refused = auditor.reader.get("/api/v0/repositories", token=token)
    assert refused.status_code == 401
    assert refused.json()["errors"][0]["code"] == "NOT_AUTHENTICATED"


def claims_of(token: str) -> Any:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_a_token_is_given_even_when_access_is_refused_its_list_is_empty(bench: Bench) -> None:
    accounts = Accounts(
        [Account("admin", "right", is_admin=True), Account("dev", "guess", readable=frozenset({"team"}))]
    )
    registry = a_registry()
    registry.create_repository("secret", "plans")
    auditor = bench.serve(registry, accounts=accounts)
    wanted = ["repository:team/app-00:pull", "repository:secret/plans:pull", "registry:catalog:*"]
    notary = f"repository:{auditor.dtr.host}/team/app-00:pull"

    def access(auth: tuple[str, str] | None) -> list[str]:
        answer = auditor.reader.get("/auth/token", auth=auth, service="dtr", scope=[*wanted, notary])
        granted: list[str] = claims_of(answer.json()["token"])["access"]
        return granted

    assert access(("admin", "right")) == [*wanted, notary]
    assert access(("dev", "guess")) == [wanted[0], notary]
    assert access(None) == []


def test_wrong_credentials_are_refused_in_the_token_servers_own_shape(bench: Bench) -> None:
    auditor = bench.serve()
    answer = auditor.reader.get("/auth/token", auth=("admin", "wrong"))
    assert answer.status_code == 401
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "wrong" in answer.json()["details"]


def test_an_anonymous_token_opens_nothing_by_default(bench: Bench) -> None:
    auditor = bench.serve(a_registry(visibility="public"))
    anonymous = auditor.reader.get("/auth/token").json()["token"]
    assert auditor.reader.get("/api/v0/repositories", token=anonymous).status_code == 401


def test_an_access_token_stands_in_for_the_password(bench: Bench) -> None:
    account = Account("robot", "word", is_admin=True, access_tokens=frozenset({"access-1", "access-2"}))
    auditor = bench.serve(accounts=Accounts([account]))
    for secret, status in (("word", 200), ("access-1", 200), ("access-2", 200), ("access-3", 401)):
        assert auditor.reader.get("/api/v0/meta/settings", auth=("robot", secret)).status_code == status
        assert auditor.reader.get("/auth/token", auth=("robot", secret)).status_code == status


def test_a_rotated_password_replaces_the_old_one_and_tokens_live_on_until_revoked(bench: Bench) -> None:
    auditor = bench.serve()
    old, token = auditor.basic, auditor.token()
    auditor.dtr.accounts.rotate_password("admin", "fresh")
    assert auditor.reader.get("/auth/token", auth=old).status_code == 401
    assert auditor.reader.get("/auth/token", auth=("admin", "fresh")).status_code == 200
    assert auditor.reader.get("/api/v0/repositories", token=token).status_code == 200
    auditor.dtr.revoke_tokens()
    assert auditor.reader.get("/api/v0/repositories", token=token).status_code == 401


def test_an_inactive_account_is_refused_at_once(bench: Bench) -> None:
    auditor = bench.serve()
    basic, token = auditor.basic, auditor.token()
    auditor.dtr.accounts.set_active("admin", is_active=False)
    assert auditor.reader.get("/api/v0/repositories", auth=basic).status_code == 401
    assert auditor.reader.get("/api/v0/repositories", token=token).status_code == 401
    assert auditor.reader.get("/auth/token", auth=basic).status_code == 401


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic bm9jb2xvbg==", "Bearer", "Bearer x", "Digest a=b"])
def test_a_malformed_authorization_is_refused(bench: Bench, header: str) -> None:
    auditor = bench.serve()
    answer = auditor.reader.session.get(
        auditor.dtr.url + "/api/v0/repositories", headers={"Authorization": header}, timeout=TIMEOUT
    )
    assert answer.status_code == 401


# Settings and the smaller endpoints


def test_settings_report_an_admin_the_host_and_things_that_must_never_leak(bench: Bench) -> None:
    auditor = bench.serve()
    settings = auditor.get("/api/v0/meta/settings").json()
    assert settings["dtrHost"] == auditor.dtr.host
    assert settings["createRepositoryOnPush"] is False
    assert settings["reportAnalytics"] is False
    assert "must-never-leak" in settings["ssoKey"]
    assert "must-never-leak@" in settings["httpProxy"]


def test_settings_verify_who_is_admin(bench: Bench) -> None:
    auditor = bench.serve()
    auditor.dtr.accounts.add(Account("dev", "guess"))
    assert auditor.settings() == 200
    refused = auditor.reader.get("/api/v0/meta/settings", auth=("dev", "guess"))
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (403, "NOT_AUTHORIZED")
    unknown = auditor.reader.get("/api/v0/meta/settings")
    assert (unknown.status_code, unknown.json()["errors"][0]["code"]) == (401, "NOT_AUTHENTICATED")


def test_a_registry_may_be_known_under_another_host_than_it_is_reached_at(bench: Bench) -> None:
    registry = InMemoryRegistry(domain="dtr.example")
    registry.push("team", "app", "v1")
    registry.sign("team", "app", "v1")
    auditor = bench.serve(registry, profile=Profile(dtr_host="dtr.example"))
    assert auditor.get("/api/v0/meta/settings").json()["dtrHost"] == "dtr.example"
    assert auditor.tags("team/app", domain="dtr.example")[0]["inNotary"] is True
    assert auditor.tags("team/app", domain=auditor.dtr.host)[0]["inNotary"] is False


def test_endpoints_without_login(bench: Bench) -> None:
    auditor = bench.serve()
    assert auditor.reader.get("/ca").text == auditor.dtr.ca_bundle
    for path in ("/_ping", "/health"):
        assert auditor.reader.get(path).json() == {"Error": "", "Healthy": True}
    auditor.dtr.faults = Faults(unhealthy=EVERY_CALL)
    unhealthy = auditor.reader.get("/health")
    assert (unhealthy.status_code, unhealthy.json()["Healthy"]) == (503, False)


def test_version_and_scan_status_are_for_admins(bench: Bench) -> None:
    auditor = bench.serve(profile=Profile(version="2.9.16", scan_databases_failed=True))
    assert auditor.get("/api/v0/admin/version").json() == {"version": "2.9.16"}
    assert auditor.get("/api/v0/imagescan/status").json()["lastDBUpdateFailed"] is True
    assert auditor.reader.get("/api/v0/admin/version").status_code == 401
    older = bench.serve(profile=Profile(version=""))
    assert older.get("/api/v0/admin/version").status_code == 404


def test_accounts_show_who_is_admin_and_anonymous_callers_the_door(bench: Bench) -> None:
    auditor = bench.serve()
    auditor.dtr.accounts.add(Account("dev", "guess"))
    assert auditor.get("/enzi/v0/accounts/admin").json()["isAdmin"] is True
    own = auditor.reader.get("/enzi/v0/accounts/dev", auth=("dev", "guess")).json()
    assert (own["isAdmin"], own["isActive"]) == (False, True)
    assert auditor.reader.get("/enzi/v0/accounts/admin", auth=("dev", "guess")).status_code == 403
    missing = auditor.get("/enzi/v0/accounts/nobody")
    assert (missing.status_code, missing.json()["errors"][0]["code"]) == (404, "NO_SUCH_ACCOUNT")
    anonymous = auditor.reader.get("/enzi/v0/accounts/admin")
    assert (anonymous.status_code, anonymous.headers["Location"]) == (302, "/login")


def test_the_catalog_of_v2_is_no_substitute(bench: Bench) -> None:
    auditor = bench.serve(a_registry(3))
    token = auditor.token(scope=f"repository:{auditor.dtr.host}/team/app-00:pull")
    assert auditor.reader.get("/v2/_catalog", token=token).json() == {"repositories": []}
    trust = auditor.reader.get(f"/v2/{auditor.dtr.host}/team/app-00/_trust/tuf/root.json", token=token)
    assert (trust.status_code, trust.json()["errors"][0]["code"]) == (404, "METADATA_NOT_FOUND")
    assert auditor.reader.get("/v2/_catalog").status_code == 401


def test_every_answer_names_its_replica(bench: Bench) -> None:
    auditor = bench.serve(profile=Profile(replica_id="0123456789ab"))
    for path in ("/v2/", "/auth/token", "/ca", "/_ping", "/api/v0/repositories", "/api/v0/nothing", "/nothing"):
        assert auditor.reader.get(path).headers["X-Replica-ID"] == "0123456789ab"


def test_only_reading_is_possible(bench: Bench) -> None:
    auditor = bench.serve()
    url = auditor.dtr.url + "/api/v0/repositories"
    answer = auditor.reader.session.post(url, json={"name": "new"}, auth=auditor.basic, timeout=TIMEOUT)
    assert answer.status_code == 405
    head = auditor.reader.session.head(url, auth=auditor.basic, timeout=TIMEOUT)
    assert (head.status_code, head.content) == (200, b"")
    assert auditor.settings() == 200
    assert auditor.dtr.connections == 1


# Lists


@pytest.mark.parametrize("path", ["/api/v0/repositories", "/api/v0/repositories/"])
def test_repositories_are_paged_by_ten_with_cursors_that_hold_slashes(bench: Bench, path: str) -> None:
    walk = bench.serve(a_registry(25)).walk(path)
    assert walk.names == paths(25)
    assert walk.sizes == [10, 10, 5]
    assert walk.cursors == ["team/app-10", "team/app-20"]
    assert walk.counts == ["25", "25", "25"]


def test_the_count_is_given_only_when_asked_for(bench: Bench) -> None:
    auditor = bench.serve(a_registry(2))
    assert "X-Resource-Count" not in auditor.get("/api/v0/repositories").headers
    assert auditor.get("/api/v0/repositories", count="true").headers["X-Resource-Count"] == "2"
    assert "X-Next-Page-Start" not in auditor.get("/api/v0/repositories").headers


def test_a_cursor_must_be_url_encoded_and_is_inclusive(bench: Bench) -> None:
    auditor = bench.serve(a_registry(3))
    url = f"{auditor.dtr.url}/api/v0/repositories?pageStart={quote('team/app-01', safe='')}"
    answer = auditor.reader.session.get(url, auth=auditor.basic, timeout=TIMEOUT)
    assert [row["name"] for row in answer.json()["repositories"]] == ["app-01", "app-02"]


def test_the_page_size_is_obeyed_capped_and_checked(bench: Bench) -> None:
    auditor = bench.serve(a_registry(30), profile=Profile(default_page_size=7, maximum_page_size=12))
    assert auditor.walk().sizes == [7, 7, 7, 7, 2]
    assert auditor.walk(pageSize=11).sizes == [11, 11, 8]
    assert auditor.walk(pageSize=1000).sizes == [12, 12, 6]
    for wrong in ("0", "-1", "ten", "1.5"):
        answer = auditor.get("/api/v0/repositories", pageSize=wrong)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "INVALID_PARAMETERS")


def test_a_cursor_stays_good_when_its_row_has_gone(bench: Bench) -> None:
    registry = a_registry(4)
    auditor = bench.serve(registry)
    first = auditor.get("/api/v0/repositories", pageSize=2)
    registry.delete_repository("team", "app-02")
    second = auditor.get("/api/v0/repositories", pageStart=first.headers["X-Next-Page-Start"])
    assert [row["name"] for row in second.json()["repositories"]] == ["app-03"]


def test_the_elements_of_both_lists_have_the_documented_fields(bench: Bench) -> None:
    auditor = bench.serve(a_registry())
    (repository,) = auditor.walk().rows
    assert set(repository) == {
        "id",
        "namespace",
        "namespaceType",
        "name",
        "shortDescription",
        "visibility",
        "scanOnPush",
        "immutableTags",
        "enableManifestLists",
        "pulls",
        "pushes",
        "tagLimit",
    }
    (tag,) = auditor.tags("team/app-00")
    assert {key: type(value) for key, value in tag.items()} == {
        "name": str,
        "digest": str,
        "author": str,
        "updatedAt": str,
        "createdAt": str,
        "hashMismatch": bool,
        "inNotary": bool,
        "manifest": dict,
        "cosignSigned": bool,
    }
    assert set(tag["manifest"]) == {"digest", "mediaType", "size"}


def test_manifests_are_heavy_only_when_asked_for(bench: Bench) -> None:
    (tag,) = bench.serve(a_registry()).tags("team/app-00", includeManifests="true")
    assert tag["manifest"]["digest"] == tag["digest"]
    assert tag["manifest"]["layers"]


def test_cosign_shows_from_msr_2_10_on(bench: Bench) -> None:
    registry = InMemoryRegistry()
    registry.push("team", "app", "v1", cosign_signed=True)
    assert bench.serve(registry).tags("team/app")[0]["cosignSigned"] is True
    assert "cosignSigned" not in bench.serve(registry, profile=Profile(cosign=False)).tags("team/app")[0]


def test_a_large_registry_is_read_to_the_last_tag(bench: Bench) -> None:
    registry = a_registry(60, 0)
    for i, path in enumerate(paths(60)):
        for j in range(1 + i * 4):
            registry.push("team", path.partition("/")[2], f"v{j}")
    auditor = bench.serve(registry)
    truth = {(e.path, t.name, t.digest) for e in registry.repositories() for t in registry.tags("team", e.name, "")}
    read = {
        (path, tag["name"], tag["digest"])
        for path in auditor.walk().names
        for tag in auditor.walk(f"/api/v0/repositories/{path}/tags", pageSize=50).rows
    }
    assert read == truth


def test_an_unknown_repository_and_a_foreign_path(bench: Bench) -> None:
    auditor = bench.serve()
    missing = auditor.get("/api/v0/repositories/team/none/tags")
    assert (missing.status_code, missing.json()["errors"][0]["code"]) == (404, "NO_SUCH_REPOSITORY")
    assert auditor.get("/api/v0/somewhere").status_code == 404


def test_who_is_no_admin_sees_what_he_may_on_pages_that_are_short(bench: Bench) -> None:
    registry = a_registry(30)
    registry.create_repository("team", "app-25-open", visibility="public")
    registry.create_repository("dev", "own")
    registry.push("team", "app-25-open", "v1")
    auditor = bench.serve(registry)
    auditor.dtr.accounts.add(Account("dev", "guess", readable=frozenset({"team/app-07"})))

    class Developer(Auditor):
        @property
        def basic(self) -> tuple[str, str]:
            return "dev", "guess"

    walk = Developer(auditor.dtr, auditor.reader).walk()
    assert walk.names == ["dev/own", "team/app-07", "team/app-25-open"]
    assert walk.sizes == [2, 0, 1, 0]
    assert set(walk.counts) == {"3"}

    def status(path: str) -> int:
        code: int = auditor.reader.get(f"/api/v0/repositories/{path}/tags", auth=("dev", "guess")).status_code
        return code

    assert [status(path) for path in ("team/app-07", "dev/own", "team/app-25-open")] == [200, 200, 200]
    assert [status(path) for path in ("team/app-08", "team/none")] == [404, 404]


# What the flags mean


def flags(tag: dict[str, Any]) -> tuple[bool, bool]:
    return tag["inNotary"], tag["hashMismatch"]


def test_a_push_over_a_signed_tag_is_a_mismatch_until_it_is_signed_again(bench: Bench) -> None:
    registry = InMemoryRegistry()
    auditor = bench.serve(registry)

    def seen() -> tuple[bool, bool]:
        return flags(auditor.tags("team/app")[0])

    registry.push("team", "app", "v1", digest="sha256:" + "1" * 64)
    assert seen() == (False, False)
    registry.sign("team", "app", "v1")
    assert seen() == (True, False)
    registry.push("team", "app", "v1", digest="sha256:" + "2" * 64)
    assert seen() == (True, True)
    registry.sign("team", "app", "v1")
    assert seen() == (True, False)
    registry.revoke("team", "app", "v1")
    assert seen() == (False, False)


def test_trust_data_outlives_a_deleted_tag(bench: Bench) -> None:
    registry = a_registry()
    registry.delete_tag("team", "app-00", "v000")
    auditor = bench.serve(registry)
    assert auditor.tags("team/app-00") == []
    registry.push("team", "app-00", "v000")
    assert flags(auditor.tags("team/app-00")[0]) == (True, True)


@pytest.mark.parametrize("wrong", ["", "127.0.0.1", "https://{host}", "{host}:443", "elsewhere.example"])
def test_a_missing_or_foreign_domain_makes_everything_look_unsigned(bench: Bench, wrong: str) -> None:
    auditor = bench.serve(a_registry())
    (tag,) = auditor.tags("team/app-00", domain=wrong.format(host=auditor.dtr.host))
    assert flags(tag) == (False, False)
    assert flags(auditor.tags("team/app-00")[0]) == (True, False)


def test_each_domain_has_its_own_signatures(bench: Bench) -> None:
    registry = InMemoryRegistry()
    registry.push("team", "app", "v1")
    registry.push("team", "app", "v2")
    registry.sign("team", "app", "v1", domain="alias.example")
    auditor = bench.serve(registry)
    registry.sign("team", "app", "v2", domain=auditor.dtr.host)
    assert [flags(tag)[0] for tag in auditor.tags("team/app", domain="alias.example")] == [True, False]
    assert [flags(tag)[0] for tag in auditor.tags("team/app")] == [False, True]


def test_signing_or_deleting_what_does_not_exist_is_an_error() -> None:
    registry = a_registry()
    with pytest.raises(KeyError):
        registry.sign("team", "app-00", "none")
    with pytest.raises(NoSuchRepository, match="team/none"):
        registry.sign("team", "none", "v1")
    with pytest.raises(NoSuchRepository):
        registry.delete_repository("team", "none")


# Other backends


class LazyTags(Sequence[TagEntry]):
    """A million tags that are made when they are looked at."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.made = 0

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> TagEntry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TagEntry]: ...
    def __getitem__(self, index: int | slice) -> TagEntry | Sequence[TagEntry]:
        if isinstance(index, slice):
            return [self._tag(i) for i in range(*index.indices(self._count))]
        return self._tag(range(self._count)[index])

    def position(self, key: str) -> int:
        return int(key.removeprefix("v"))

    def _tag(self, i: int) -> TagEntry:
        self.made += 1
        return TagEntry(f"v{i:07}", "sha256:" + f"{i:064x}", "robot", "2024-01-01", "2024-01-01", True, False)


class LazyBackend:
    def __init__(self) -> None:
        self.lazy = LazyTags(1_000_000)

    def repositories(self) -> Sequence[RepositoryEntry]:
        return [RepositoryEntry("team", "huge")]

    def tags(self, namespace: str, name: str, domain: str) -> Sequence[TagEntry]:
        if domain == "down":
            raise BackendUnavailable("notary-server does not answer")
        return self.lazy

    def manifest(self, namespace: str, name: str, digest: str) -> None:
        """Keep none."""


def test_a_million_tags_cost_a_page_at_a_time(bench: Bench) -> None:
    backend = LazyBackend()
    auditor = bench.serve(backend)
    answer = auditor.get("/api/v0/repositories/team/huge/tags", pageSize=100, pageStart="v0999850", count="true")
    assert answer.headers["X-Resource-Count"] == "1000000"
    assert answer.headers["X-Next-Page-Start"] == "v0999950"
    last = auditor.get("/api/v0/repositories/team/huge/tags", pageSize=100, pageStart="v0999950")
    assert [tag["name"] for tag in last.json()][-1] == "v0999999"
    assert backend.lazy.made < 200


def test_a_backend_that_is_down_answers_500(bench: Bench) -> None:
    answer = bench.serve(LazyBackend()).get("/api/v0/repositories/team/huge/tags", domain="down")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (500, "INTERNAL_ERROR")


def test_a_long_list_is_searched_through_an_index_that_follows_changes(bench: Bench) -> None:
    registry = a_registry(1, 1200)
    auditor = bench.serve(registry)
    tags = "/api/v0/repositories/team/app-00/tags"
    assert len(auditor.walk(tags, pageSize=100).rows) == 1200
    registry.push("team", "app-00", "v000-more")
    walk = auditor.walk(tags, pageSize=100)
    assert walk.names == sorted(walk.names)
    assert len(walk.rows) == 1201


# The server itself


def test_connections_are_kept_alive(bench: Bench) -> None:
    auditor = bench.serve(a_registry(30))
    auditor.walk()
    assert auditor.dtr.connections == 1
    assert len(auditor.dtr.requests) == 3


def test_the_log_reports_who_asked_for_what_and_never_with_what_credentials(bench: Bench) -> None:
    auditor = bench.serve()
    token = auditor.token(service="dtr")
    auditor.reader.get("/api/v0/repositories/", token=token, count="true")
    auditor.reader.get("/api/v0/repositories")
    basic, bearer, none = auditor.dtr.requests
    assert (basic.path, basic.authentication, basic.account, basic.status) == ("/auth/token", "basic", "admin", 200)
    assert (bearer.path, bearer.authentication, bearer.account) == ("/api/v0/repositories", "bearer", "admin")
    assert bearer.query == {"count": ["true"]}
    assert (none.authentication, none.account, none.status) == ("none", "", 401)
    assert {record.host for record in auditor.dtr.requests} == {auditor.dtr.host}
    assert basic.at <= bearer.at <= none.at
    assert len(auditor.dtr.calls("/api/v0/*")) == 2
    assert token not in repr(auditor.dtr.requests)
    assert auditor.dtr.admin.password not in repr((auditor.dtr.requests, auditor.dtr.admin))
    auditor.dtr.forget_requests()
    assert auditor.dtr.requests == ()


def test_a_callback_changes_the_registry_before_the_request_is_looked_at(bench: Bench) -> None:
    registry = a_registry(3)
    auditor = bench.serve(registry)
    end = auditor.dtr.on_request(lambda _: registry.delete_repository("team", "app-01"), "*/app-01/tags")
    assert auditor.get("/api/v0/repositories/team/app-01/tags").status_code == 404
    assert auditor.walk().names == ["team/app-00", "team/app-02"]
    end()
    registry.push("team", "app-01", "v1")
    assert auditor.get("/api/v0/repositories/team/app-01/tags").status_code == 200


def test_many_clients_at_once_each_get_their_answers(bench: Bench) -> None:
    auditor = bench.serve(a_registry(8, 30))
    results: dict[str, list[str]] = {}

    def read(path: str, session: requests.Session) -> None:
        own = Auditor(auditor.dtr, Reader(auditor.dtr, session))
        results[path] = own.walk(f"/api/v0/repositories/{path}/tags", pageSize=7).names

    sessions = [bench.session(auditor.dtr.ca_bundle) for _ in range(8)]
    threads = [threading.Thread(target=read, args=pair) for pair in zip(paths(8), sessions, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {path: [f"v{j:03}" for j in range(30)] for path in paths(8)}


def test_stopping_ends_idle_slow_and_endless_connections_at_once(bench: Bench) -> None:
    before = set(threading.enumerate())
    dtr = DtrServer(a_registry())
    with ExitStack() as stack:
        stack.enter_context(dtr)
        auth = (dtr.admin.name, dtr.admin.password)
        sessions = [bench.session(dtr.ca_bundle) for _ in range(3)]
        readers = [Reader(dtr, session) for session in sessions]
        readers[0].get("/_ping")
        dtr.faults = Faults(on_calls=(EndlessBody(SETTINGS),))
        endless = stack.enter_context(readers[1].stream("/api/v0/meta/settings", auth))
        next(endless.iter_content(1000))
        dtr.faults = Faults(on_calls=(Slow(REPOSITORIES, body_pause=FAR_SECONDS),))
        stack.enter_context(readers[2].stream("/api/v0/repositories", auth))
        # Were the pause waited for, this would run into the limit of pytest-timeout.
        dtr.stop()
    begun_here = set(threading.enumerate()) - before
    assert not [thread for thread in begun_here if thread.name.startswith("dtr-")]


def test_a_server_that_is_not_running_says_so() -> None:
    dtr = DtrServer()
    dtr.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = dtr.url
    with dtr, pytest.raises(RuntimeError, match="running already"):
        dtr.start()


def test_behind_a_proxy_it_speaks_plain_http_and_names_the_public_host(bench: Bench) -> None:
    dtr = DtrServer(tls=False, public_host="registry.example")
    bench.read(dtr)
    assert dtr.url == "https://registry.example"
    with socket.create_connection(("127.0.0.1", dtr.port), timeout=TIMEOUT) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.0\r\nHost: registry.example\r\n\r\n")
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b'realm="https://registry.example/auth/token",service="registry.example"' in received
    assert b"Connection: close" in received


def test_requests_may_come_in_pieces_or_several_at_once(bench: Bench) -> None:
    dtr = DtrServer(tls=False)
    bench.read(dtr)
    with socket.create_connection(("127.0.0.1", dtr.port), timeout=TIMEOUT) as connection:
        for piece in (b"GET /_ping HT", b"TP/1.1\r\nHost: x\r", b"\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n"):
            connection.sendall(piece)
            time.sleep(0.01)
        connection.sendall(
            b"POST /_ping HTTP/1.1\r\nContent-Length: 4\r\n\r\n....GET /ca HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    assert [record.status for record in dtr.requests] == [200, 200, 405, 200]
    assert received.count(b"HTTP/1.1 ") == 4


@pytest.mark.parametrize(
    "nonsense", [b"nonsense\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"x" * 1_100_000]
)
def test_nonsense_ends_the_connection_and_nothing_else(bench: Bench, nonsense: bytes) -> None:
    dtr = DtrServer(tls=False)
    bench.read(dtr)
    with socket.create_connection(("127.0.0.1", dtr.port), timeout=TIMEOUT) as connection:
        try:
            connection.sendall(nonsense)
            assert connection.recv(100) == b""
        except ConnectionError:
            pass
    assert dtr.requests == ()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mistake_of_the_simulator_itself_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: reported.append(arguments.exc_value))

    def answer(request: Request) -> Response:
        raise ConnectionError("the simulator's own")

    server = HttpServer(answer)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert connection.recv(100) == b""
    finally:
        server.stop()
    assert [str(error) for error in reported] == ["cannot answer GET /"]


# Certificates


def strict_context(ca_bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca_bundle)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def shake_hands(server: Server, context: ssl.SSLContext, name: str = "localhost") -> None:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as connection,
        context.wrap_socket(connection, server_hostname=name) as secured,
    ):
        secured.sendall(b"GET /_ping HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert secured.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "registry.example"])
def test_the_certificate_passes_strict_verification(bench: Bench, name: str) -> None:
    dtr = DtrServer(hostname="registry.example")
    bench.read(dtr)
    shake_hands(dtr, strict_context(dtr.ca_bundle), name)


@pytest.mark.parametrize(
    ("defect", "complaint"),
    [
        (Defect.NO_AUTHORITY_KEY_IDENTIFIER, "Missing Authority Key Identifier"),
        (Defect.EXPIRED, "certificate has expired"),
        (Defect.NOT_YET_VALID, "certificate is not yet valid"),
        (Defect.WRONG_HOST, "Hostname mismatch"),
        (Defect.OTHER_AUTHORITY, "unable to get local issuer certificate|self-signed|certificate signature failure"),
    ],
)
def test_a_flawed_certificate_is_refused(bench: Bench, defect: Defect, complaint: str) -> None:
    dtr = DtrServer(defect=defect)
    bench.read(dtr)
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        shake_hands(dtr, strict_context(dtr.ca_bundle))
    assert dtr.requests == ()


def test_a_missing_key_identifier_is_noticed_in_strict_mode_only(bench: Bench) -> None:
    dtr = DtrServer(defect=Defect.NO_AUTHORITY_KEY_IDENTIFIER)
    bench.read(dtr)
    context = ssl.create_default_context(cadata=dtr.ca_bundle)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    shake_hands(dtr, context)


def test_a_lax_authority_fails_strict_verification(bench: Bench) -> None:
    dtr = DtrServer(authority=CertificateAuthority(critical_constraints=False))
    bench.read(dtr)
    context = ssl.create_default_context(cadata=dtr.ca_bundle)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with pytest.raises(ssl.SSLCertVerificationError, match="Basic Constraints"):
        shake_hands(dtr, context)


def test_private_keys_are_on_disk_for_a_moment_and_for_the_owner_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[tuple[int, int]] = []

    class Watcher(ssl.SSLContext):
        def load_cert_chain(self, certfile: Any, *arguments: Any, **options: Any) -> None:
            modes = (os.stat(certfile).st_mode, os.stat(Path(certfile).parent).st_mode)  # noqa: PTH116
            seen.append((stat.S_IMODE(modes[0]), stat.S_IMODE(modes[1])))
            super().load_cert_chain(certfile, *arguments, **options)

    certificate = CertificateAuthority().issue("localhost")
    certificate.load_into(Watcher(ssl.PROTOCOL_TLS_SERVER))
    assert seen == [(0o600, 0o700)]
    assert list(tmp_path.iterdir()) == []
    assert "PRIVATE" not in repr(certificate)


# Faults of credentials


def test_a_registry_may_want_tokens_without_a_service(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(tokens_without_service_only=EVERY_CALL))
    with_service, without = auditor.token(service="dtr"), auditor.token()
    assert auditor.reader.get("/api/v0/meta/settings", token=with_service).status_code == 401
    assert auditor.reader.get("/api/v0/meta/settings", token=without).status_code == 200


def test_a_registry_may_accept_basic_alone(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(basic_only=EVERY_CALL))
    assert auditor.reader.get("/api/v0/meta/settings", token=auditor.token()).status_code == 401
    assert auditor.settings() == 200


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_the_token_endpoint_can_fail(bench: Bench, status: int) -> None:
    call_fault = Status(status, TOKEN, shape="details", message="UCP is down")
    auditor = bench.serve(faults=Faults(on_calls=(call_fault,)))
    answer = auditor.get("/auth/token")
    assert (answer.status_code, answer.json()) == (status, {"details": "UCP is down"})
    assert auditor.settings() == 200


def test_bad_credentials_can_look_like_success(bench: Bench) -> None:
    registry = a_registry(3)
    auditor = bench.serve(registry, faults=Faults(anonymous_as_success=EVERY_CALL))
    wrong = ("admin", "wrong")
    token = auditor.reader.get("/auth/token", auth=wrong).json()["token"]
    for identity in ({"auth": wrong}, {"token": token}, {"token": "expired"}, {}):
        assert auditor.reader.get("/api/v0/repositories", **identity).json() == {"repositories": []}
        assert auditor.reader.get("/api/v0/meta/settings", **identity).status_code == 401
    registry.create_repository("team", "open", visibility="public")
    listed = auditor.reader.get("/api/v0/repositories", auth=wrong, count="true")
    assert [row["name"] for row in listed.json()["repositories"]] == ["open"]
    assert listed.headers["X-Resource-Count"] == "1"
    for path in ("team/open", "team/app-00"):
        assert auditor.reader.get(f"/api/v0/repositories/{path}/tags", auth=wrong).status_code == 500
    assert len(auditor.walk().rows) == 4


def test_admin_rights_can_be_lost_on_the_way(bench: Bench) -> None:
    auditor = bench.serve(a_registry(3), faults=Faults(admin_rights_lost=Calls(after=2)))
    assert auditor.settings() == 200
    assert len(auditor.walk().rows) == 3
    assert auditor.walk().rows == []
    assert auditor.settings() == 403


def test_all_tokens_can_be_revoked_at_a_certain_call(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(tokens_revoked=API.limited(after=1, times=1)))
    token = auditor.token()
    statuses = [auditor.reader.get("/api/v0/repositories", token=token).status_code for _ in range(3)]
    assert statuses == [200, 401, 401]
    assert auditor.reader.get("/api/v0/repositories", token=auditor.token()).status_code == 200


def test_tokens_can_die_earlier_than_promised(bench: Bench) -> None:
    clock = ManualClock()
    auditor = bench.serve(clock=clock, faults=Faults(token_life=10, token_without_expiry=EVERY_CALL))
    answer = auditor.get("/auth/token").json()
    assert set(answer) == {"token", "access_token"}
    clock.advance(11)
    assert auditor.reader.get("/api/v0/repositories", token=answer["token"]).status_code == 401


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_the_token_can_come_under_one_name_only(bench: Bench, name: str) -> None:
    auditor = bench.serve(faults=Faults(token_in_one_field=name))
    assert {"token", "access_token"} & set(auditor.get("/auth/token").json()) == {name}


def test_settings_can_be_a_login_page_or_lack_the_host(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(on_calls=(Body(LOGIN_PAGE, SETTINGS, "text/html"),)))
    answer = auditor.get("/api/v0/meta/settings")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html")
    assert b"<form" in answer.content
    auditor.dtr.faults = Faults(settings_without_host=EVERY_CALL)
    assert "dtrHost" not in auditor.get("/api/v0/meta/settings").json()


def test_an_expired_licence_is_404_for_tokens_and_v2_only(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(licence_expired=EVERY_CALL))
    assert [auditor.get(path).status_code for path in ("/auth/token", "/v2/", "/v2/_catalog")] == [404] * 3
    assert auditor.settings() == 200


# Faults of any answer


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("retry_after", [None, "2", "Wed, 21 Oct 2065 07:28:00 GMT", "soon"])
def test_a_number_of_calls_can_fail(bench: Bench, status: int, retry_after: str | None) -> None:
    call_fault = Status(status, tags_of("team/app-00", times=2), retry_after=retry_after)
    auditor = bench.serve(a_registry(2), faults=Faults(on_calls=(call_fault,)))
    answers = [auditor.get("/api/v0/repositories/team/app-00/tags") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert answers[0].headers.get("Retry-After") == retry_after
    assert auditor.get("/api/v0/repositories/team/app-01/tags").status_code == 200


def test_one_repository_can_fail_for_ever(bench: Bench) -> None:
    auditor = bench.serve(a_registry(2), faults=Faults(on_calls=(Status(500, tags_of("team/app-01")),)))
    assert auditor.get("/api/v0/repositories/team/app-00/tags").status_code == 200
    assert [auditor.get("/api/v0/repositories/team/app-01/tags").status_code for _ in range(3)] == [500] * 3


def test_calls_can_be_counted_for_each_path_by_itself(bench: Bench) -> None:
    call_fault = Status(503, Calls("*/tags", times=1, per_path=True))
    auditor = bench.serve(a_registry(2), faults=Faults(on_calls=(call_fault,)))
    statuses = [auditor.get(f"/api/v0/repositories/{path}/tags").status_code for path in paths(2) * 2]
    assert statuses == [503, 503, 200, 200]


def test_a_repositorys_name_is_no_pattern(bench: Bench) -> None:
    registry = a_registry(1)
    registry.push("team", "app-[0-9]*", "v1")
    auditor = bench.serve(registry, faults=Faults(on_calls=(Status(500, tags_of("team/app-[0-9]*")),)))
    assert auditor.get("/api/v0/repositories/team/app-00/tags").status_code == 200
    assert auditor.get(f"/api/v0/repositories/team/{quote('app-[0-9]*', safe='')}/tags").status_code == 500


def test_the_error_has_each_of_the_known_shapes(bench: Bench) -> None:
    auditor = bench.serve()

    def failing(shape: str) -> requests.Response:
        auditor.dtr.faults = Faults(on_calls=(Status(503, API, shape=shape, code="STATUS_CHECK_FAILED", message="no"),))
        return auditor.get("/api/v0/meta/settings")

    (error,) = failing("errors").json()["errors"]
    assert (error["code"], error["message"]) == ("STATUS_CHECK_FAILED", "no")
    assert failing("bare").json() == {"code": "STATUS_CHECK_FAILED", "message": "no"}
    assert failing("details").json() == {"details": "no"}
    assert failing("html").headers["Content-Type"].startswith("text/html")
    assert "X-Replica-ID" not in failing("html").headers
    assert failing("empty").content == b""


def test_an_ordinary_error_can_be_bare(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(bare_errors=API))
    body = auditor.reader.get("/api/v0/repositories").json()
    assert set(body) == {"code", "message"}
    assert body["code"] == "NOT_AUTHENTICATED"


def test_error_messages_can_echo_the_callers_secrets(bench: Bench) -> None:
    on_calls = (Status(500, ALL_TAGS), Status(401, TOKEN, shape="details"))
    auditor = bench.serve(a_registry())
    token = auditor.token()
    auditor.dtr.faults = Faults(on_calls=on_calls, secrets_echoed=EVERY_CALL)
    password = auditor.dtr.admin.password
    by_token = auditor.reader.get("/api/v0/repositories/team/app-00/tags", token=token).text
    assert token in by_token
    assert password in by_token
    assert password in auditor.get("/auth/token").text
    auditor.dtr.faults = Faults(secrets_echoed=EVERY_CALL)
    assert "wrong-password" in auditor.reader.get("/auth/token", auth=("admin2", "wrong-password")).text


@pytest.mark.parametrize("location", ["https://elsewhere.example/steal", "http://localhost/plain", "/login"])
def test_any_path_can_redirect_anywhere(bench: Bench, location: str) -> None:
    auditor = bench.serve(faults=Faults(on_calls=(Redirect(location, API, status=307),)))
    answer = auditor.get("/api/v0/repositories")
    assert (answer.status_code, answer.headers["Location"]) == (307, location)


def test_cookies_are_noise(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(on_calls=(Cookies(),)))
    answer = auditor.get("/api/v0/meta/settings")
    assert answer.status_code == 200
    assert "session=" in answer.headers["Set-Cookie"]


def test_hits_combine_with_each_other_and_counts_start_again_with_new_faults(bench: Bench) -> None:
    on_calls = (Status(503, API, shape="html"), Cookies(API), Gzipped(API))
    auditor = bench.serve(faults=Faults(on_calls=on_calls))
    answer = auditor.get("/api/v0/repositories")
    assert (answer.status_code, answer.headers["Content-Encoding"]) == (503, "gzip")
    assert "<h1>" in answer.text
    assert "Set-Cookie" in answer.headers
    once = Faults(on_calls=(Status(500, Calls(times=1)),))
    for _ in range(2):
        auditor.dtr.faults = once
        assert [auditor.settings() for _ in range(2)] == [500, 200]


# Faults of deliveries and bodies


def test_the_connection_can_be_closed_before_the_answer(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(on_calls=(Closed(Calls(times=2)),)))
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            auditor.settings()
    assert auditor.settings() == 200
    assert [record.status for record in auditor.dtr.requests] == [0, 0, 200]


@pytest.mark.parametrize("after_bytes", [0, 20])
def test_the_connection_can_be_closed_within_the_answer(bench: Bench, after_bytes: int) -> None:
    call_fault = Closed(SETTINGS, after_bytes=after_bytes)
    auditor = bench.serve(faults=Faults(on_calls=(call_fault,)))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        auditor.settings()
    assert auditor.get("/api/v0/repositories").status_code == 200


def test_answers_can_be_slow_at_each_stage(bench: Bench) -> None:
    auditor = bench.serve(profile=Profile(settings={}))

    def duration(call_fault: Slow) -> float:
        auditor.dtr.faults = Faults(on_calls=(call_fault,))
        begun = time.monotonic()
        assert auditor.settings() == 200
        return time.monotonic() - begun

    assert duration(Slow(delay=0.2)) >= 0.2
    assert duration(Slow(head_pause=0.002)) >= 0.2
    assert duration(Slow(body_pause=0.02, body_piece=10)) >= 0.1
    auditor.dtr.faults = Faults()
    assert auditor.settings() == 200


def test_a_body_can_have_no_end(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(on_calls=(EndlessBody(REPOSITORIES),)))
    with auditor.reader.stream("/api/v0/repositories", auditor.basic) as answer:
        received = 0
        for chunk in answer.iter_content(65_536):
            received += len(chunk)
            if received > 3_000_000:
                break
    assert received > 3_000_000
    assert auditor.settings() == 200


@pytest.mark.parametrize("layers", [1, 2])
def test_a_gzip_bomb_is_small_on_the_wire(bench: Bench, layers: int) -> None:
    size = 20_000_000
    auditor = bench.serve(faults=Faults(on_calls=(GzipBomb(size, REPOSITORIES, layers=layers),)))
    with auditor.reader.stream("/api/v0/repositories", auditor.basic) as answer:
        on_the_wire = len(answer.raw.read(decode_content=False))
    assert on_the_wire < size / 500
    answer = auditor.get("/api/v0/repositories")
    assert len(answer.content) == size
    assert answer.json() == []


def test_a_tiny_gzip_bomb_is_just_an_empty_list(bench: Bench) -> None:
    auditor = bench.serve(faults=Faults(on_calls=(GzipBomb(2, REPOSITORIES),)))
    assert auditor.get("/api/v0/repositories").text == "[]"


@pytest.mark.parametrize("body", [INVALID_JSON, deep_json(), b"", b"\xff\xfe"])
def test_a_body_can_be_no_json(bench: Bench, body: bytes) -> None:
    auditor = bench.serve(faults=Faults(on_calls=(Body(body, REPOSITORIES),)))
    answer = auditor.get("/api/v0/repositories")
    assert answer.content == body
    with pytest.raises((ValueError, RecursionError)):
        json.loads(answer.content)


@pytest.mark.parametrize(
    ("body", "reason"),
    [(WRONG_TYPE, "str"), (NOT_A_NUMBER, "nan"), (LONE_SURROGATES, "surrogate"), (long_string(), "x")],
)
def test_a_body_can_be_json_that_harms(bench: Bench, body: bytes, reason: str) -> None:
    auditor = bench.serve(faults=Faults(on_calls=(Body(body, ALL_TAGS),)))
    value = auditor.get("/api/v0/repositories/team/app/tags").json()
    harms: dict[str, Callable[[], bool]] = {
        "str": lambda: isinstance(value, str),
        "nan": lambda: value[0]["digest"] != value[0]["digest"],
        "surrogate": lambda: "\ud800" in value[0]["name"],
        "x": lambda: len(value[0]["name"]) == 10_000_000,
    }
    assert harms[reason]()


# Faults of lists

TAGS = "/api/v0/repositories/team/app-00/tags"


def test_a_list_can_be_null(bench: Bench) -> None:
    auditor = bench.serve(a_registry(), faults=Faults(null_lists=EVERY_CALL))
    assert auditor.get("/api/v0/repositories").json() == {"repositories": None}
    assert auditor.get(TAGS).json() is None


def test_tags_can_come_in_the_old_form_all_at_once(bench: Bench) -> None:
    auditor = bench.serve(a_registry(1, 25), faults=Faults(object_tags=EVERY_CALL))
    answer = auditor.get(TAGS, count="true", pageSize=10)
    assert len(answer.json()["tags"]) == 25
    assert answer.json()["name"] == "team/app-00"
    assert not {"X-Next-Page-Start", "X-Resource-Count"} & set(answer.headers)
    auditor.dtr.faults = Faults(object_tags=EVERY_CALL, null_lists=EVERY_CALL)
    assert auditor.get(TAGS).json()["tags"] is None


def test_the_count_can_be_missing(bench: Bench) -> None:
    assert bench.serve(a_registry(3), faults=Faults(count_missing=EVERY_CALL)).walk().counts == [None]


@pytest.mark.parametrize("by", [+3, -3])
def test_the_count_can_be_wrong_in_the_first_reading_or_always(bench: Bench, by: int) -> None:
    first = Miscount(by, readings_of(REPOSITORIES, times=1))
    auditor = bench.serve(a_registry(25), faults=Faults(miscounts=(first,)))
    assert auditor.walk().counts == [str(25 + by)] * 3
    assert auditor.walk().counts == ["25"] * 3
    auditor.dtr.faults = Faults(miscounts=(Miscount(by),))
    assert auditor.walk(TAGS).counts == [str(1 + by)]
    assert auditor.walk(TAGS).counts == [str(1 + by)]


def test_the_next_page_can_be_stripped(bench: Bench) -> None:
    walk = bench.serve(a_registry(25), faults=Faults(next_page_stripped=REPOSITORIES)).walk()
    assert (walk.sizes, walk.counts) == ([10], ["25"])


def test_the_last_page_can_have_an_empty_cursor(bench: Bench) -> None:
    auditor = bench.serve(a_registry(12), faults=Faults(empty_last_cursor=EVERY_CALL))
    assert auditor.walk().names == paths(12)
    last = auditor.get("/api/v0/repositories", pageStart="team/app-10")
    assert last.headers["X-Next-Page-Start"] == ""


def test_cursors_can_be_strange_and_must_come_back_exactly(bench: Bench) -> None:
    auditor = bench.serve(a_registry(25), faults=Faults(strange_cursors=EVERY_CALL))
    walk = auditor.walk()
    assert walk.names == paths(25)
    assert walk.cursors[0] == "team/app-10 +&=%2F#?"
    assert auditor.get("/api/v0/repositories", pageStart="team/app-10").status_code == 400


def test_a_cursor_can_be_repeated(bench: Bench) -> None:
    walk = bench.serve(a_registry(25), faults=Faults(repeated_cursor=REPOSITORIES)).walk(pages=4)
    assert walk.cursors == ["team/app-00"] * 4
    assert walk.names == paths(10) * 4


def test_cursors_can_go_in_a_loop(bench: Bench) -> None:
    walk = bench.serve(a_registry(25), faults=Faults(cursor_loop=REPOSITORIES)).walk(pages=4)
    assert walk.cursors == ["team/app-10", "team/app-00"] * 2
    assert walk.names == paths(20) * 2


@pytest.mark.parametrize("path", ["/api/v0/repositories", TAGS])
@pytest.mark.parametrize("empty", [True, False])
def test_a_list_can_have_no_end(bench: Bench, path: str, empty: bool) -> None:
    auditor = bench.serve(a_registry(3, 3), faults=Faults(endless=Endless(empty=empty)))
    walk = auditor.walk(path, pages=30)
    assert len(set(walk.cursors)) == 30
    assert walk.sizes == [3, *[0 if empty else 10] * 29]
    assert len(set(walk.names)) == len(walk.rows)


def test_an_unknown_endless_cursor_is_refused(bench: Bench) -> None:
    assert bench.serve().get("/api/v0/repositories", pageStart="~endless~x").status_code == 400


def test_pages_can_be_short_without_losing_a_row(bench: Bench) -> None:
    walk = bench.serve(a_registry(25), faults=Faults(short_pages=EVERY_CALL)).walk()
    assert (walk.names, walk.sizes) == (paths(25), [5] * 5)


def test_the_page_size_or_all_paging_can_be_ignored(bench: Bench) -> None:
    auditor = bench.serve(a_registry(25), faults=Faults(page_size_ignored=EVERY_CALL))
    assert auditor.walk(pageSize=100).sizes == [10, 10, 5]
    auditor.dtr.faults = Faults(paging_ignored=EVERY_CALL)
    assert auditor.walk(pageSize=5).sizes == [25]


def test_a_row_can_slip_away_while_the_list_is_paged_once_or_always(bench: Bench) -> None:
    auditor = bench.serve(a_registry(25), faults=Faults(rows_shifted=readings_of(REPOSITORIES, times=1)))
    first = auditor.walk()
    assert (first.names, first.counts) == (paths(24), ["25"] * 3)
    assert auditor.walk().names == paths(25)
    auditor.dtr.faults = Faults(rows_shifted=REPOSITORIES)
    assert [len(auditor.walk().rows) for _ in range(3)] == [24, 24, 24]


def test_rows_can_be_repeated_across_pages(bench: Bench) -> None:
    walk = bench.serve(a_registry(25), faults=Faults(rows_repeated=REPOSITORIES)).walk()
    assert len(walk.names) == 27
    assert sorted(set(walk.names)) == paths(25)


def test_tags_can_be_ordered_by_update_time(bench: Bench) -> None:
    registry = InMemoryRegistry()
    for tag, at in (("a", "2024-01-01T00:00:00Z"), ("b", "2024-01-03T00:00:00Z"), ("c", "2024-01-02T00:00:00Z")):
        registry.push("team", "app", tag, at=at)
    auditor = bench.serve(registry, faults=Faults(tags_by_update_time=EVERY_CALL))
    assert auditor.walk("/api/v0/repositories/team/app/tags", pageSize=2).names == ["b", "c", "a"]


def test_unnamed_entries_are_listed_and_counted(bench: Bench) -> None:
    walk = bench.serve(a_registry(20), faults=Faults(unnamed_entries=REPOSITORIES)).walk(pageSize=2)
    assert walk.names == ["team/app-00", "/", "ghost/", "/ghost", *paths(20)[1:]]
    assert set(walk.counts) == {"23"}


def test_hostile_names_come_through_whole_on_any_page(bench: Bench) -> None:
    auditor = bench.serve(a_registry(), faults=Faults(hostile_names=EVERY_CALL))
    repositories = auditor.walk(pageSize=1)
    assert {row["name"] for row in repositories.rows} >= set(HOSTILE_NAMES)
    assert {row["namespace"] for row in repositories.rows} >= set(HOSTILE_NAMES)
    tags = auditor.walk(TAGS, pageSize=1)
    assert {row["name"] for row in tags.rows} >= set(HOSTILE_NAMES)
    assert {row["author"] for row in tags.rows} >= set(HOSTILE_NAMES)
    assert {row["digest"] for row in tags.rows} >= set(HOSTILE_NAMES)


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "a/b", "~tag", " ", "..", "a.."])
def test_a_hostile_repository_is_served_if_its_name_is_encoded(bench: Bench, name: str) -> None:
    registry = InMemoryRegistry()
    registry.push(name, name, name)
    registry.sign(name, name, name)
    dtr = DtrServer(registry, tls=False)
    bench.read(dtr)
    # Through a bare connection: `requests` would tidy dots in paths away.
    encoded = quote(name, safe="")
    credentials = base64.b64encode(f"{dtr.admin.name}:{dtr.admin.password}".encode()).decode()
    request = (
        f"GET /api/v0/repositories/{encoded}/{encoded}/tags?domain={dtr.host} HTTP/1.1\r\n"
        f"Authorization: Basic {credentials}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", dtr.port), timeout=TIMEOUT) as connection:
        connection.sendall(request.encode())
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    (tag,) = json.loads(received.partition(b"\r\n\r\n")[2])
    assert (tag["name"], flags(tag)) == (name, (True, False))


@pytest.mark.parametrize("name", ["inNotary", "hashMismatch"])
@pytest.mark.parametrize("value", [None, "true", "false", 0, 1, [], {}, MISSING])
def test_flags_can_be_anything_but_booleans(bench: Bench, name: str, value: Any) -> None:
    rewrite = Rewrite({name: value}, tag="v001", path="team/app-00")
    auditor = bench.serve(a_registry(2, 2), faults=Faults(rewrites=(rewrite,)))
    plain, changed = auditor.tags("team/app-00")
    assert changed.get(name, MISSING) == value
    assert type(changed.get(name, MISSING)) is type(value)
    assert flags(plain) == (True, False)
    assert [flags(tag) for tag in auditor.tags("team/app-01")] == [(True, False)] * 2


def test_any_field_of_any_row_can_be_rewritten(bench: Bench) -> None:
    rewrites = (
        Rewrite({"visibility": None, "pulls": "many"}, tag=None, path="*/app-01"),
        Rewrite({"author": "\ud800", "size": float("inf"), "manifest": MISSING}),
        Rewrite({"inNotary": False, "hashMismatch": True}, tag="v001"),
    )
    auditor = bench.serve(a_registry(2, 2), faults=Faults(rewrites=rewrites))
    plain, changed = auditor.walk().rows
    assert (plain["visibility"], changed["visibility"], changed["pulls"]) == ("private", None, "many")
    first, second = auditor.tags("team/app-00")
    assert (first["author"], first["size"], "manifest" in first) == ("\ud800", float("inf"), False)
    assert flags(first) == (True, False)
    assert flags(second) == (False, True)


def test_a_repository_can_go_away_between_the_list_and_its_tags(bench: Bench) -> None:
    auditor = bench.serve(a_registry(3), faults=Faults(deleted_when_read=tags_of("team/app-01")))
    assert auditor.walk().names == paths(3)
    gone = auditor.get("/api/v0/repositories/team/app-01/tags")
    assert (gone.status_code, gone.json()["errors"][0]["code"]) == (404, "NO_SUCH_REPOSITORY")
    assert auditor.walk().names == ["team/app-00", "team/app-02"]
    auditor.dtr.faults = Faults()
    assert auditor.walk().names == paths(3)


def test_a_repository_can_be_missing_and_yet_stay_listed(bench: Bench) -> None:
    auditor = bench.serve(a_registry(3), faults=Faults(missing_though_listed=tags_of("team/app-01")))
    assert auditor.get("/api/v0/repositories/team/app-01/tags").status_code == 404
    assert auditor.walk().names == paths(3)
    assert auditor.get("/api/v0/repositories/team/app-00/tags").status_code == 200


def test_notary_can_be_down_loudly_or_silently(bench: Bench) -> None:
    auditor = bench.serve(a_registry(1, 2), faults=Faults(notary_down=ALL_TAGS))
    assert auditor.get(TAGS).status_code == 500
    auditor.dtr.faults = Faults(notary_silent=ALL_TAGS)
    assert [flags(tag) for tag in auditor.tags("team/app-00")] == [(False, False)] * 2


def test_faults_can_change_while_requests_are_under_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, changed = threading.Event(), threading.Event()
    registry = a_registry(3)
    entries = registry.repositories()

    def list_late() -> Sequence[RepositoryEntry]:
        asked.set()
        changed.wait()
        return entries

    monkeypatch.setattr(registry, "repositories", list_late)
    auditor = bench.serve(registry)
    sizes: list[int] = []
    thread = threading.Thread(target=lambda: sizes.append(len(auditor.walk().rows)))
    thread.start()
    asked.wait()
    auditor.dtr.faults = Faults(on_calls=(Status(500, API),))
    changed.set()
    thread.join()
    assert sizes == [3]
    assert auditor.settings() == 500


def test_an_unknown_shape_of_errors_is_a_clear_mistake() -> None:
    api = DtrApi(InMemoryRegistry(), Accounts(), faults=Faults(on_calls=(Status(500, shape="xml"),)))
    with pytest.raises(ValueError, match="no shape 'xml'"):
        api.answer(Request("GET", "/", {}))


# What is no DTR


def test_a_harbor_is_no_dtr(bench: Bench) -> None:
    reader = bench.read(HarborServer())
    assert reader.get("/api/v2.0/ping").text == "Pong"
    assert reader.get("/api/v2.0/systeminfo").json()["harbor_version"].startswith("v2.")
    missing = reader.get("/api/v0/repositories")
    assert (missing.status_code, missing.json()["errors"][0]["code"]) == (404, "NOT_FOUND")
    challenge = reader.get("/v2/")
    assert challenge.status_code == 401
    assert challenge.headers["Www-Authenticate"].startswith(f'Bearer realm="{reader.server.url}/service/token"')
    portal = reader.get("/auth/token")
    assert (portal.status_code, "<title>Harbor</title>" in portal.text) == (200, True)
    assert [record.path for record in reader.server.calls("/v2")] == ["/v2"]


def test_a_harbor_may_have_no_portal(bench: Bench) -> None:
    reader = bench.read(HarborServer(portal=False))
    assert reader.get("/auth/token").status_code == 404
