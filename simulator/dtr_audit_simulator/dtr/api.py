"""The HTTP API of a Docker Trusted Registry 2.x over a `Backend`: who calls, and what he is told.

`DtrApi.answer` turns a request into a response and knows nothing of sockets; `dtr_audit_simulator.dtr.server` puts it
behind TLS, or on plain HTTP for a proxy before it. Every answer obeys the `Faults` in force at that moment.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from dtr_audit_simulator.dtr.accounts import EXPIRES_IN, Account, Accounts, Token, Tokens, account_id
from dtr_audit_simulator.dtr.backend import Backend, BackendUnavailable, NoSuchRepository, RepositoryEntry, TagEntry
from dtr_audit_simulator.dtr.echoes import echoed, secrets_of
from dtr_audit_simulator.dtr.faults import (
    MISSING,
    Body,
    EndlessBody,
    Faults,
    GzipBomb,
    Misfortune,
    Redirect,
    Repeated,
    Rewrite,
    Status,
    Struck,
    Unending,
    oversized,
    replaced,
    spoiled,
)
from dtr_audit_simulator.dtr.pages import (
    Page,
    Pager,
    Row,
    UnknownCursor,
    invented_repository,
    invented_tag,
    repository_json,
    tag_json,
    with_ghosts,
    with_hostile_repositories,
    with_hostile_tags,
)
from dtr_audit_simulator.dtr.trust import CATALOG_SCOPE, CHANGEFEED_PATH, TrustApi, TrustFile, not_found
from dtr_audit_simulator.http.journal import Journal
from dtr_audit_simulator.http.transport import Request, Response
from dtr_audit_simulator.notary.notary import Notary

PLAIN_TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"

SENSITIVE_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "ssoKey": "sso-key-that-must-never-leak",
        "httpProxy": "http://proxy-user:proxy-password-that-must-never-leak@proxy.example:3128",
        "httpsProxy": "http://proxy-user:proxy-password-that-must-never-leak@proxy.example:3128",
        "webTLSKey": "private-key-that-must-never-leak",
        "storageSecret": "storage-secret-that-must-never-leak",
    }
)
"""Settings that a careless client would spill into its logs: all invented, all with `must-never-leak` in them."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of registry it is, where good ones differ.

    An empty `service` is the registry's host, as is an empty `dtr_host`, the name under which images are
    pushed. `maximum_page_size` silently caps `pageSize`. Without a `version` there is no
    `/api/v0/admin/version`. `cosign` adds `cosignSigned` to each tag, as MSR 2.10 does. `settings` are added
    to those of `/api/v0/meta/settings`.
    """

    service: str = ""
    dtr_host: str = ""
    expires_in: int = EXPIRES_IN
    default_page_size: int = 10
    maximum_page_size: int | None = None
    version: str = "2.10.1"
    cosign: bool = True
    create_repository_on_push: bool = False
    report_analytics: bool = False
    scanning_enabled: bool = True
    scan_databases_failed: bool = False
    replica_id: str = "a5f2c0d8e913"
    settings: Mapping[str, Any] = field(default_factory=lambda: SENSITIVE_SETTINGS)


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls. Without an `account` the caller is anonymous, and `refusal` says why."""

    account: Account | None = None
    refusal: str = ""
    is_admin: bool = False

    @property
    def name(self) -> str:
        return self.account.name if self.account else ""

    def may_read(self, repository: RepositoryEntry) -> bool:
        if self.is_admin or repository.visibility == "public":
            return True
        # An admin who has just lost his rights owns nothing either.
        account = self.account
        return account is not None and not account.is_admin and account.may_read(repository.namespace, repository.path)


class _Refusal(Exception):  # noqa: N818 - an answer, not a mistake
    """The request ends in an error answer."""

    def __init__(self, status: int, code: str, message: str, *, shape: str = "errors") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.shape = shape


@dataclass(frozen=True, slots=True)
class _Call:
    """A request, what goes wrong with it, and who makes it."""

    request: Request
    struck: Struck
    caller: _Caller


class DtrApi:
    """Answer as the registry `host` (host[:port], as its clients write it), which may be set later."""

    def __init__(
        self,
        backend: Backend,
        accounts: Accounts,
        *,
        host: str = "",
        ca_pem: str = "",
        profile: Profile | None = None,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.time,
        tokens: Tokens | None = None,
        journal: Journal | None = None,
        notary: Notary | None = None,
    ) -> None:
        self.host = host
        self.accounts = accounts
        self.tokens = tokens or Tokens(clock)
        self.journal = journal or Journal()
        self._backend = backend
        self._ca_pem = ca_pem
        self._profile = profile or Profile()
        self._misfortune = Misfortune(faults or Faults())
        self._pager = Pager()
        self._trust = TrustApi(notary or Notary())
        self._replica = (("X-Replica-ID", self._profile.replica_id),)
        self._open_routes: dict[str, Callable[[_Call], Response]] = {
            "/auth/token": self._give_token,
            "/v2": self._check_version,
            "/ca": self._give_ca,
            "/_ping": self._give_health,
            "/health": self._give_health,
        }
        self._api_routes: dict[str, Callable[[_Call], Response]] = {
            "/api/v0/repositories": self._list_repositories,
            "/api/v0/meta/settings": self._give_settings,
            "/api/v0/admin/version": self._give_version,
            "/api/v0/imagescan/status": self._give_scan_status,
        }

    @property
    def faults(self) -> Faults:
        """What goes wrong at present; assigning starts every count of calls anew."""
        return self._misfortune.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._misfortune = Misfortune(faults)

    def answer(self, request: Request) -> Response:
        """Answer a request. May be called from many threads."""
        self.journal.announce(request)
        struck = self._misfortune.strike(request)
        if "tokens_revoked" in struck.names:
            self.tokens.revoke_all()
        call = _Call(request, struck, self._identify(request, struck))
        response = self._replacement(call)
        if response is None:
            try:
                response = self._route(call)
            except _Refusal as refusal:
                response = self._failure(call, refusal)
            except BackendUnavailable as error:
                response = self._failure(call, _Refusal(500, "INTERNAL_ERROR", str(error)))
        for echo in struck.echoes:
            response = echoed(response, echo.place, self._all_secrets_of(request))
        if struck.strikes:
            response = spoiled(response, struck)
        self.journal.enter(request, response, call.caller.name)
        return response

    # Routes

    def _route(self, call: _Call) -> Response:
        request, names = call.request, call.struck.names
        path = request.path
        if request.method not in ("GET", "HEAD"):
            raise _Refusal(405, "METHOD_NOT_ALLOWED", f"{request.method} is not allowed here")
        if "licence_expired" in names and path.startswith(("/auth/", "/v2")):
            return self._not_found()
        if route := self._open_routes.get(path):
            return route(call)
        if path.startswith("/v2/"):
            return self._give_trust(call) if "/_trust/" in path else self._give_registry(call)
        if request.segments[:3] == ("enzi", "v0", "accounts") and len(request.segments) == 4:
            return self._give_account(call)
        if path.startswith("/api/v0/"):
            return self._route_api(call)
        return self._not_found()

    def _route_api(self, call: _Call) -> Response:
        if call.caller.account is None and "anonymous_as_success" not in call.struck.names:
            raise _Refusal(401, "NOT_AUTHENTICATED", call.caller.refusal)
        if route := self._api_routes.get(call.request.path):
            return route(call)
        match call.request.segments:
            case ("api", "v0", "repositories", namespace, name, "tags"):
                return self._list_tags(call, namespace, name)
        return self._not_found()

    # Who calls

    def _identify(self, request: Request, struck: Struck) -> _Caller:
        kind, _, value = request.header("authorization").partition(" ")
        match kind.lower():
            case "basic":
                name, password = _basic(value)
                account = self.accounts.login(name, password)
                refusal = "the user name or the password is wrong"
            case "bearer":
                account, refusal = self._bearer(request, struck, value.strip())
            case "":
                account, refusal = None, "no credentials were sent"
            case _:
                account, refusal = None, "this kind of authentication is not known"
        if account is None:
            return _Caller(refusal=refusal)
        return _Caller(account, is_admin=account.is_admin and "admin_rights_lost" not in struck.names)

    def _bearer(self, request: Request, struck: Struck, text: str) -> tuple[Account | None, str]:
        token = self.tokens.find(text)
        if token is None:
            return None, "the token is unknown or has expired"
        if not request.path.startswith("/v2"):
            if "basic_only" in struck.names:
                return None, "bearer tokens are not accepted here"
            if token.service and "tokens_without_service_only" in struck.names:
                return None, f"the token's audience is {token.service}, not this registry"
        account = self.accounts.find(token.account)
        if account is None or not account.is_active:
            return None, "the token belongs to no active account"
        return account, ""

    def _give_token(self, call: _Call) -> Response:
        request, struck, caller = call.request, call.struck, call.caller
        refused = caller.account is None and request.header("authorization")
        if refused and "anonymous_as_success" not in struck.names:
            raise _Refusal(401, "", caller.refusal, shape="details")
        expires_in = self._profile.expires_in
        token = self.tokens.issue(
            caller.name,
            service=request.parameter("service"),
            access=tuple(scope for scope in request.query.get("scope", ()) if self._is_granted(call, scope)),
            life=expires_in if struck.faults.token_life is None else struck.faults.token_life,
        )
        answer: dict[str, Any] = {
            "token": token.text,
            "access_token": token.text,
            "expires_in": expires_in,
            "issued_at": datetime.fromtimestamp(token.issued_at, UTC).isoformat().replace("+00:00", "Z"),
        }
        if only := struck.faults.token_in_one_field:
            del answer["access_token" if only == "token" else "token"]
        if "token_without_expiry" in struck.names:
            del answer["expires_in"], answer["issued_at"]
        return self._json(answer)

    def _is_granted(self, call: _Call, scope: str) -> bool:
        kind, _, rest = scope.partition(":")
        name, _, _ = rest.rpartition(":")
        if kind == "registry":
            return call.caller.is_admin
        # Trust data lies under <domain>/<namespace>/<name>, and the registry may be known by several domains.
        path = "/".join(name.split("/")[-2:])
        return any(entry.path == path and call.caller.may_read(entry) for entry in self._backend.repositories())

    def _check_version(self, call: _Call) -> Response:
        if self._token_of(call.request):
            return self._json({}, headers=_REGISTRY_HEADERS)
        return self._challenge(call)

    def _give_registry(self, call: _Call) -> Response:
        # Of the registry's own protocol only manifests are simulated, by digest; _catalog is empty on a real DTR.
        token = self._token_of(call.request)
        if not token:
            return self._challenge(call)
        match call.request.segments:
            case ("v2", "_catalog"):
                return self._json({"repositories": []}, headers=_REGISTRY_HEADERS)
            case ("v2", namespace, name, "manifests", digest):
                scope = f"repository:{namespace}/{name}:pull"
                if not _is_good_for(token, scope):
                    return self._challenge(call, scope, refused=True)
                return self._give_manifest(call, namespace, name, digest)
        return self._json({"errors": [{"code": "NAME_UNKNOWN", "message": "not found", "detail": None}]}, 404)

    def _give_manifest(self, call: _Call, namespace: str, name: str, digest: str) -> Response:
        found = self._backend.manifest(namespace, name, digest)
        # Docker's registry gives no type that was not asked for.
        if found is None or found[1] not in call.request.header("accept"):
            unknown = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": {"revision": digest}}
            return self._json({"errors": [unknown]}, 404, headers=_REGISTRY_HEADERS)
        body, media_type = found
        headers = (("Docker-Content-Digest", digest), *_REGISTRY_HEADERS, *self._replica)
        return Response(200, body, media_type, headers)

    def _give_trust(self, call: _Call) -> Response:
        path, file = call.request.path, TrustFile.of(call.request.path)
        is_feed = path == CHANGEFEED_PATH
        scope = CATALOG_SCOPE if is_feed else file.scope if file else ""
        token = self._token_of(call.request)
        if token is None or (scope and not _is_good_for(token, scope)):
            return self._challenge(call, scope, refused=token is not None)
        if is_feed:
            response = self._trust.give_changes(call.request)
        else:
            response = self._trust.give_file(file, call.struck.forged) if file else not_found()
        return replace(response, headers=(*response.headers, *self._replica))

    def _token_of(self, request: Request) -> Token | None:
        kind, _, value = request.header("authorization").partition(" ")
        return self.tokens.find(value.strip()) if kind.lower() == "bearer" else None

    def _challenge(self, call: _Call, scope: str = "", *, refused: bool = False) -> Response:
        service = self._profile.service or self.host
        realm = f"https://{self.host}/auth/token"
        if call.struck.faults.realm is not None and "realm" in call.struck.names:
            realm = call.struck.faults.realm.url.replace("{host}", self.host)
        challenge = f'Bearer realm="{realm}",service="{service}"'
        if scope:
            challenge += f',scope="{scope}"'
        if refused:
            challenge += ',error="insufficient_scope"'
        errors = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required", "detail": None}]}
        return self._json(errors, 401, headers=(("Www-Authenticate", challenge), *_REGISTRY_HEADERS))

    # What he is told

    def _give_ca(self, _: _Call) -> Response:
        return Response(200, self._ca_pem.encode(), PLAIN_TEXT, self._replica)

    def _give_health(self, call: _Call) -> Response:
        if "unhealthy" in call.struck.names:
            return self._json({"Error": "the metadata store is unavailable", "Healthy": False}, 503)
        return self._json({"Error": "", "Healthy": True})

    def _give_settings(self, call: _Call) -> Response:
        self._require_admin(call)
        settings = {
            "dtrHost": self._dtr_host,
            "createRepositoryOnPush": self._profile.create_repository_on_push,
            "reportAnalytics": self._profile.report_analytics,
            "scanningEnabled": self._profile.scanning_enabled,
            **self._profile.settings,
        }
        if "settings_without_host" in call.struck.names:
            del settings["dtrHost"]
        return self._json(settings)

    def _give_version(self, call: _Call) -> Response:
        self._require_admin(call)
        return self._json({"version": self._profile.version}) if self._profile.version else self._not_found()

    def _give_scan_status(self, call: _Call) -> Response:
        self._require_admin(call)
        failed = self._profile.scan_databases_failed
        return self._json({"lastDBUpdateFailed": failed, "lastVulnOverridesDBUpdateFailed": failed})

    def _give_account(self, call: _Call) -> Response:
        if call.caller.account is None:
            return Response(302, headers=(("Location", "/login"), *self._replica), content_type=HTML)
        name = call.request.segments[3]
        account = self.accounts.find(name) or self.accounts.find_by_id(name)
        if account is None:
            raise _Refusal(404, "NO_SUCH_ACCOUNT", f"There is no account {name}.")
        if not call.caller.is_admin and call.caller.name != name:
            raise _Refusal(403, "NOT_AUTHORIZED", "Only an admin may look at the accounts of others.")
        is_admin = account.is_admin and "admin_rights_lost" not in call.struck.names
        return self._json(
            {
                "name": account.name,
                "id": account_id(account.name),
                "fullName": "",
                "isOrg": False,
                "isAdmin": is_admin,
                "isActive": account.is_active,
            }
        )

    def _require_admin(self, call: _Call) -> None:
        if call.caller.account is None:
            raise _Refusal(401, "NOT_AUTHENTICATED", call.caller.refusal)
        if not call.caller.is_admin:
            raise _Refusal(403, "NOT_AUTHORIZED", "The account must be an admin.")

    # Lists

    def _list_repositories(self, call: _Call) -> Response:
        rows = self._backend.repositories()
        if deleted := self._misfortune.deleted:
            rows = [row for row in rows if row.path not in deleted]
        if "ghosts" in call.struck.names:
            rows = with_ghosts(rows)
        if "hostile_names" in call.struck.names:
            rows = with_hostile_repositories(rows)
        page = self._page(call, rows, invented_repository)
        count = len(rows)
        if not call.caller.is_admin:
            # Filtered after it was cut: a page can be short, even empty, and yet not be the last.
            page = Page([row for row in page.rows if call.caller.may_read(row)], page.cursor)
            count = sum(call.caller.may_read(row) for row in rows)
        elements = (_rewritten(repository_json(row), call.struck, row.path, None) for row in page.rows)
        content = "null" if "null_lists" in call.struck.names else f"[{','.join(elements)}]"
        return self._list_answer(call, f'{{"repositories":{content}}}', page.cursor, count)

    def _list_tags(self, call: _Call, namespace: str, name: str) -> Response:
        names, path = call.struck.names, f"{namespace}/{name}"
        if "notary_down" in names:
            raise _Refusal(500, "INTERNAL_ERROR", "unable to reach the Notary server")
        is_refused = "trust_refused" in names and call.request.parameter("domain")
        if call.caller.account is None or is_refused:
            raise _Refusal(500, "INTERNAL_ERROR", "an internal server error occurred")
        if "deleted_when_read" in names:
            self._misfortune.deleted.add(path)
        rows = self._tags(call, namespace, name)
        if "tags_by_update_time" in names:
            rows = sorted(rows, key=lambda row: row.updated_at, reverse=True)
        if "notary_silent" in names:
            rows = [replace(row, in_notary=False, hash_mismatch=False) for row in rows]
        if "hostile_names" in names:
            rows = with_hostile_tags(rows)
        old_form = "object_tags" in names
        page = Page(rows, None) if old_form else self._page(call, rows, invented_tag)
        manifests, cosign = call.request.is_true("includeManifests"), self._profile.cosign
        elements: Iterable[str] = (
            _rewritten(tag_json(row, manifests=manifests, cosign=cosign), call.struck, path, row.name)
            for row in page.rows
        )
        if call.struck.repeated:
            written = zip((row.name for row in page.rows), elements, strict=True)
            behind = [tag_json(row, manifests=manifests, cosign=cosign) for row in rows] if page.cursor is None else []
            last = zip((row.name for row in rows), behind, strict=False)
            elements = _repeated(written, last, call.struck, path)
        content = "null" if "null_lists" in names else f"[{','.join(elements)}]"
        if old_form:
            return Response(200, f'{{"name":{json.dumps(path)},"tags":{content}}}'.encode(), headers=self._replica)
        return self._list_answer(call, content, page.cursor, len(rows))

    def _tags(self, call: _Call, namespace: str, name: str) -> Sequence[TagEntry]:
        missing = _Refusal(404, "NO_SUCH_REPOSITORY", f"A repository {namespace}/{name} does not exist.")
        path = f"{namespace}/{name}"
        if path in self._misfortune.deleted or "missing_though_listed" in call.struck.names:
            raise missing
        if "orphaned" in call.struck.names:
            raise _Refusal(404, "NO_SUCH_ACCOUNT", f"There is no account {namespace}.")
        if not call.caller.is_admin:
            repositories = self._backend.repositories()
            position = self._pager.position(repositories, path)
            found = repositories[position : position + 1]
            if not found or found[0].path != path or not call.caller.may_read(found[0]):
                raise missing
        try:
            return self._backend.tags(namespace, name, call.request.parameter("domain"))
        except NoSuchRepository:
            raise missing from None

    def _page(self, call: _Call, rows: Sequence[Row], invent: Callable[[str], Row]) -> Page[Row]:
        asked = call.request.parameter("pageSize")
        size = self._profile.default_page_size
        if asked and "page_size_ignored" not in call.struck.names:
            if not asked.isdecimal() or int(asked) < 1:
                raise _Refusal(400, "INVALID_PARAMETERS", f"pageSize must be a positive number, not {asked}")
            size = int(asked)
        if self._profile.maximum_page_size is not None:
            size = min(size, self._profile.maximum_page_size)
        try:
            return self._pager.page(rows, invent, call.request.parameter("pageStart"), size, call.struck)
        except UnknownCursor as error:
            raise _Refusal(400, "INVALID_PARAMETERS", f"pageStart is not known: {error}") from None

    def _list_answer(self, call: _Call, content: str, cursor: str | None, count: int) -> Response:
        headers = [*self._replica]
        if cursor is not None or "empty_last_cursor" in call.struck.names:
            headers.append(("X-Next-Page-Start", cursor or ""))
        if call.request.is_true("count") and "count_missing" not in call.struck.names:
            headers.append(("X-Resource-Count", str(count + call.struck.miscount)))
        return Response(200, content.encode(), headers=tuple(headers))

    # Errors and faults

    def _replacement(self, call: _Call) -> Response | None:
        match replaced(call.struck):
            case Status() as strike:
                message = strike.message or "injected by the simulated registry"
                refusal = _Refusal(strike.status, strike.code or _code(strike.status), message, shape=strike.shape)
                response = self._failure(call, refusal)
                if strike.retry_after is not None:
                    retry_after = ("Retry-After", strike.retry_after)
                    response = replace(response, headers=(*response.headers, retry_after))
                return response
            case Body() as strike:
                encoding = (("Content-Encoding", strike.encoding),) if strike.encoding else ()
                return Response(strike.status, strike.content, strike.content_type, (*self._replica, *encoding))
            case Redirect() as strike:
                location = ("Location", strike.location)
                return Response(strike.status, content_type=HTML, headers=(location, *self._replica))
            case EndlessBody() | Unending() | GzipBomb() as strike:
                return oversized(strike)
        return None

    def _failure(self, call: _Call, refusal: _Refusal) -> Response:
        message, shape = refusal.message, refusal.shape
        if "secrets_echoed" in call.struck.names:
            message = f"{message} ({self._secrets_of(call.request)})"
        if shape == "errors" and "bare_errors" in call.struck.names:
            shape = "bare"
        match shape:
            case "errors":
                error = {"code": refusal.code, "message": message, "detail": {"path": call.request.path}}
                return self._json({"errors": [error]}, refusal.status)
            case "bare":
                return self._json({"code": refusal.code, "message": message}, refusal.status)
            case "details":
                return Response(refusal.status, json.dumps({"details": message}).encode(), PLAIN_TEXT, self._replica)
            case "html":
                # A proxy's own page: it does not know the replica.
                page = f"<html><head><title>{refusal.status}</title></head><body><h1>{message}</h1></body></html>"
                return Response(refusal.status, page.encode(), HTML)
            case "empty":
                return Response(refusal.status, headers=self._replica)
        raise ValueError(f"there is no shape {shape!r} of errors: use errors, bare, details, html or empty")

    def _secrets_of(self, request: Request) -> str:
        header = request.header("authorization")
        kind, _, value = header.partition(" ")
        token = self.tokens.find(value.strip()) if kind.lower() == "bearer" else None
        account = self.accounts.find(token.account if token else _basic(value)[0])
        password = account.password if account else _basic(value)[1]
        return f"Authorization: {header}; password: {password}"

    def _all_secrets_of(self, request: Request) -> list[str]:
        admin = self.accounts.admin
        return secrets_of(request.header("authorization"), (admin.password, *admin.access_tokens), self.tokens.latest)

    def _not_found(self) -> Response:
        return Response(404, b"404 page not found\n", PLAIN_TEXT, self._replica)

    def _json(self, content: object, status: int = 200, *, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        return Response(status, json.dumps(content).encode(), headers=(*headers, *self._replica))

    @property
    def _dtr_host(self) -> str:
        return self._profile.dtr_host or self.host


_REGISTRY_HEADERS = (("Docker-Distribution-Api-Version", "registry/2.0"),)

_CODES = {
    400: "INVALID_PARAMETERS",
    401: "NOT_AUTHENTICATED",
    403: "NOT_AUTHORIZED",
    404: "NO_SUCH_REPOSITORY",
    503: "STATUS_CHECK_FAILED",
}


def _code(status: int) -> str:
    return _CODES.get(status, "INTERNAL_ERROR")


def _is_good_for(token: Token, scope: str) -> bool:
    wanted, _, action = scope.rpartition(":")
    for granted in token.access:
        name, _, actions = granted.rpartition(":")
        if name == wanted and action in actions.split(","):
            return True
    return False


def _basic(value: str) -> tuple[str, str]:
    try:
        name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def _rewritten(element: str, struck: Struck, path: str, tag: str | None) -> str:
    for rewrite in struck.faults.rewrites:
        if _is_meant(rewrite, path, tag):
            row: dict[str, Any] = json.loads(element)
            row.update(rewrite.changes)
            element = json.dumps({name: value for name, value in row.items() if value is not MISSING})
    return element


def _repeated(
    elements: Iterable[tuple[str, str]], behind: Iterable[tuple[str, str]], struck: Struck, path: str
) -> Iterator[str]:
    """Write a page of tags, each with its name, some of them twice; `behind` are those that the last page may repeat."""
    for name, element in elements:
        yield functools.reduce(
            _doubled, (r for r in struck.repeated if r.in_one_object and _repeats(r, path, name)), element
        )
        for repeated in struck.repeated:
            if not (repeated.in_one_object or repeated.at_the_end) and _repeats(repeated, path, name):
                yield json.dumps({**json.loads(element), **repeated.changes})
    for name, element in behind:
        for repeated in struck.repeated:
            if repeated.at_the_end and _repeats(repeated, path, name):
                yield json.dumps({**json.loads(element), **repeated.changes})


def _repeats(repeated: Repeated, path: str, tag: str) -> bool:
    return fnmatch.fnmatchcase(path, repeated.path) and fnmatch.fnmatchcase(tag, repeated.tag)


def _doubled(element: str, repeated: Repeated) -> str:
    return f"{element[:-1]},{json.dumps(dict(repeated.changes))[1:]}"


def _is_meant(rewrite: Rewrite, path: str, tag: str | None) -> bool:
    if tag is None or rewrite.tag is None:
        return tag is rewrite.tag and fnmatch.fnmatchcase(path, rewrite.path)
    return fnmatch.fnmatchcase(tag, rewrite.tag) and fnmatch.fnmatchcase(path, rewrite.path)
