"""The HTTP API of a Docker Trusted Registry 2.x over a `Backend`: who calls, and what he is told.

`DtrApi.answer` turns a request into a response and knows nothing of sockets; `dtr_audit_simulator.dtr.server` puts it
behind TLS, or on plain HTTP for a proxy before it. Every answer obeys the `Faults` in force at that moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from dtr_audit_simulator.dtr.accounts import Accounts, Token, Tokens, account_id
from dtr_audit_simulator.dtr.backend import Backend, BackendUnavailable, NoSuchRepository, TagEntry
from dtr_audit_simulator.dtr.calls import Call, Profile, Refusal
from dtr_audit_simulator.dtr.echoes import echoed
from dtr_audit_simulator.dtr.faults import ActiveFaults, Faults
from dtr_audit_simulator.dtr.gate import HTML, PLAIN_TEXT, REGISTRY_HEADERS, Gate
from dtr_audit_simulator.dtr.pages import (
    Page,
    Pager,
    Row,
    UnknownCursor,
    invented_repository,
    invented_tag,
    repository_json,
    tag_json,
    with_hostile_repositories,
    with_hostile_tags,
    with_unnamed_entries,
)
from dtr_audit_simulator.dtr.rewrites import repeated, rewritten
from dtr_audit_simulator.dtr.spoiled import spoiled
from dtr_audit_simulator.dtr.trust import CATALOG_SCOPE, CHANGEFEED_PATH, TrustApi, TrustFile, not_found
from dtr_audit_simulator.http.journal import Journal
from dtr_audit_simulator.http.transport import Request, Response
from dtr_audit_simulator.notary.notary import Notary

"""Settings that a careless client would spill into its logs: all invented, all with `must-never-leak` in them."""


class DtrApi(Gate):
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
        super().__init__(backend, accounts, host=host, profile=profile or Profile(), tokens=tokens or Tokens(clock))
        self.journal = journal or Journal()
        self._ca_pem = ca_pem
        self._active_faults = ActiveFaults(faults or Faults())
        self._pager = Pager()
        self._trust = TrustApi(notary or Notary())
        self._open_routes: dict[str, Callable[[Call], Response]] = {
            "/auth/token": self._give_token,
            "/v2": self._check_version,
            "/ca": self._give_ca,
            "/_ping": self._give_health,
            "/health": self._give_health,
        }
        self._api_routes: dict[str, Callable[[Call], Response]] = {
            "/api/v0/repositories": self._list_repositories,
            "/api/v0/meta/settings": self._give_settings,
            "/api/v0/admin/version": self._give_version,
            "/api/v0/imagescan/status": self._give_scan_status,
        }

    @property
    def faults(self) -> Faults:
        """What goes wrong at present; assigning starts every count of calls anew."""
        return self._active_faults.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._active_faults = ActiveFaults(faults)

    def answer(self, request: Request) -> Response:
        """Answer a request. May be called from many threads."""
        self.journal.announce(request)
        struck = self._active_faults.apply(request)
        if "tokens_revoked" in struck.names:
            self.tokens.revoke_all()
        call = Call(request, struck, self._identify(request, struck))
        response = self._replacement(call)
        if response is None:
            try:
                response = self._route(call)
            except Refusal as refusal:
                response = self._failure(call, refusal)
            except BackendUnavailable as error:
                response = self._failure(call, Refusal(500, "INTERNAL_ERROR", str(error)))
        for echo in struck.echoes:
            response = echoed(response, echo.place, self._all_secrets_of(request))
        if struck.on_calls:
            response = spoiled(response, struck)
        self.journal.enter(request, response, call.caller.name)
        return response

    # Routes

    def _route(self, call: Call) -> Response:
        request, names = call.request, call.struck.names
        path = request.path
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "METHOD_NOT_ALLOWED", f"{request.method} is not allowed here")
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

    def _route_api(self, call: Call) -> Response:
        if call.caller.account is None and "anonymous_as_success" not in call.struck.names:
            raise Refusal(401, "NOT_AUTHENTICATED", call.caller.refusal)
        if route := self._api_routes.get(call.request.path):
            return route(call)
        match call.request.segments:
            case ("api", "v0", "repositories", namespace, name, "tags"):
                return self._list_tags(call, namespace, name)
        return self._not_found()

    def _check_version(self, call: Call) -> Response:
        if self._token_of(call.request):
            return self._json({}, headers=REGISTRY_HEADERS)
        return self._challenge(call)

    def _give_registry(self, call: Call) -> Response:
        # Of the registry's own protocol only manifests are simulated, by digest; _catalog is empty on a real DTR.
        token = self._token_of(call.request)
        if not token:
            return self._challenge(call)
        match call.request.segments:
            case ("v2", "_catalog"):
                return self._json({"repositories": []}, headers=REGISTRY_HEADERS)
            case ("v2", namespace, name, "manifests", digest):
                scope = f"repository:{namespace}/{name}:pull"
                if not _is_good_for(token, scope):
                    return self._challenge(call, scope, refused=True)
                return self._give_manifest(call, namespace, name, digest)
        return self._json({"errors": [{"code": "NAME_UNKNOWN", "message": "not found", "detail": None}]}, 404)

    def _give_manifest(self, call: Call, namespace: str, name: str, digest: str) -> Response:
        found = self._backend.manifest(namespace, name, digest)
        # Docker's registry gives no type that was not asked for.
        if found is None or found[1] not in call.request.header("accept"):
            unknown = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": {"revision": digest}}
            return self._json({"errors": [unknown]}, 404, headers=REGISTRY_HEADERS)
        body, media_type = found
        headers = (("Docker-Content-Digest", digest), *REGISTRY_HEADERS, *self._replica)
        return Response(200, body, media_type, headers)

    def _give_trust(self, call: Call) -> Response:
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

    # What he is told

    def _give_ca(self, _: Call) -> Response:
        return Response(200, self._ca_pem.encode(), PLAIN_TEXT, self._replica)

    def _give_health(self, call: Call) -> Response:
        if "unhealthy" in call.struck.names:
            return self._json({"Error": "the metadata store is unavailable", "Healthy": False}, 503)
        return self._json({"Error": "", "Healthy": True})

    def _give_settings(self, call: Call) -> Response:
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

    def _give_version(self, call: Call) -> Response:
        self._require_admin(call)
        return self._json({"version": self._profile.version}) if self._profile.version else self._not_found()

    def _give_scan_status(self, call: Call) -> Response:
        self._require_admin(call)
        failed = self._profile.scan_databases_failed
        return self._json({"lastDBUpdateFailed": failed, "lastVulnOverridesDBUpdateFailed": failed})

    def _give_account(self, call: Call) -> Response:
        if call.caller.account is None:
            return Response(302, headers=(("Location", "/login"), *self._replica), content_type=HTML)
        name = call.request.segments[3]
        account = self.accounts.find(name) or self.accounts.find_by_id(name)
        if account is None:
            raise Refusal(404, "NO_SUCH_ACCOUNT", f"There is no account {name}.")
        if not call.caller.is_admin and call.caller.name != name:
            raise Refusal(403, "NOT_AUTHORIZED", "Only an admin may look at the accounts of others.")
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

    # Lists

    def _list_repositories(self, call: Call) -> Response:
        rows = self._backend.repositories()
        if deleted := self._active_faults.deleted:
            rows = [row for row in rows if row.path not in deleted]
        if "unnamed_entries" in call.struck.names:
            rows = with_unnamed_entries(rows)
        if "hostile_names" in call.struck.names:
            rows = with_hostile_repositories(rows)
        page = self._page(call, rows, invented_repository)
        count = len(rows)
        if not call.caller.is_admin:
            # Filtered after it was cut: a page can be short, even empty, and yet not be the last.
            page = Page([row for row in page.rows if call.caller.may_read(row)], page.cursor)
            count = sum(call.caller.may_read(row) for row in rows)
        elements = (rewritten(repository_json(row), call.struck, row.path, None) for row in page.rows)
        content = "null" if "null_lists" in call.struck.names else f"[{','.join(elements)}]"
        return self._list_answer(call, f'{{"repositories":{content}}}', page.cursor, count)

    def _list_tags(self, call: Call, namespace: str, name: str) -> Response:
        names, path = call.struck.names, f"{namespace}/{name}"
        if "notary_down" in names:
            raise Refusal(500, "INTERNAL_ERROR", "unable to reach the Notary server")
        is_refused = "trust_refused" in names and call.request.parameter("domain")
        if call.caller.account is None or is_refused:
            raise Refusal(500, "INTERNAL_ERROR", "an internal server error occurred")
        if "deleted_when_read" in names:
            self._active_faults.deleted.add(path)
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
            rewritten(tag_json(row, manifests=manifests, cosign=cosign), call.struck, path, row.name)
            for row in page.rows
        )
        if call.struck.repeated:
            written = zip((row.name for row in page.rows), elements, strict=True)
            behind = [tag_json(row, manifests=manifests, cosign=cosign) for row in rows] if page.cursor is None else []
            last = zip((row.name for row in rows), behind, strict=False)
            elements = repeated(written, last, call.struck, path)
        content = "null" if "null_lists" in names else f"[{','.join(elements)}]"
        if old_form:
            return Response(200, f'{{"name":{json.dumps(path)},"tags":{content}}}'.encode(), headers=self._replica)
        return self._list_answer(call, content, page.cursor, len(rows))

    def _tags(self, call: Call, namespace: str, name: str) -> Sequence[TagEntry]:
        missing = Refusal(404, "NO_SUCH_REPOSITORY", f"A repository {namespace}/{name} does not exist.")
        path = f"{namespace}/{name}"
        if path in self._active_faults.deleted or "missing_though_listed" in call.struck.names:
            raise missing
        if "orphaned" in call.struck.names:
            raise Refusal(404, "NO_SUCH_ACCOUNT", f"There is no account {namespace}.")
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

    def _page(self, call: Call, rows: Sequence[Row], invent: Callable[[str], Row]) -> Page[Row]:
        asked = call.request.parameter("pageSize")
        size = self._profile.default_page_size
        if asked and "page_size_ignored" not in call.struck.names:
            if not asked.isdecimal() or int(asked) < 1:
                raise Refusal(400, "INVALID_PARAMETERS", f"pageSize must be a positive number, not {asked}")
            size = int(asked)
        if self._profile.maximum_page_size is not None:
            size = min(size, self._profile.maximum_page_size)
        try:
            return self._pager.page(rows, invent, call.request.parameter("pageStart"), size, call.struck)
        except UnknownCursor as error:
            raise Refusal(400, "INVALID_PARAMETERS", f"pageStart is not known: {error}") from None

    def _list_answer(self, call: Call, content: str, cursor: str | None, count: int) -> Response:
        headers = [*self._replica]
        if cursor is not None or "empty_last_cursor" in call.struck.names:
            headers.append(("X-Next-Page-Start", cursor or ""))
        if call.request.is_true("count") and "count_missing" not in call.struck.names:
            headers.append(("X-Resource-Count", str(count + call.struck.miscount)))
        return Response(200, content.encode(), headers=tuple(headers))

    @property
    def _dtr_host(self) -> str:
        return self._profile.dtr_host or self.host


def _is_good_for(token: Token, scope: str) -> bool:
    wanted, _, action = scope.rpartition(":")
    for granted in token.access:
        name, _, actions = granted.rpartition(":")
        if name == wanted and action in actions.split(","):
            return True
    return False
