"""What is no DTR: Harbor, which is what "MSR 4" is."""

from __future__ import annotations

import json

from dtr_audit_simulator.http.journal import Journal
from dtr_audit_simulator.http.transport import Request, Response

VERSION = "v2.9.4-a1b2c3d4"
_PORTAL = b"<!DOCTYPE html><html><head><title>Harbor</title></head><body><harbor-app></harbor-app></body></html>\n"


class HarborApi:
    """Answer as a Harbor at `host`.

    Its web portal answers whatever nobody else does, so that `/auth/token` is a page with status 200;
    `portal=False` makes that a 404.
    """

    def __init__(self, *, host: str = "", portal: bool = True, journal: Journal | None = None) -> None:
        self.host = host
        self.journal = journal or Journal()
        self._portal = portal

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        self.journal.announce(request)
        response = self._route(request.path)
        self.journal.enter(request, response)
        return response

    def _route(self, path: str) -> Response:
        if path == "/api/v2.0/ping":
            return Response(200, b"Pong", "text/plain; charset=utf-8")
        if path == "/api/v2.0/systeminfo":
            return _json({"auth_mode": "db_auth", "harbor_version": VERSION, "registry_url": self.host})
        if path in ("/v2", "/service/token") or path.startswith("/v2/"):
            challenge = f'Bearer realm="https://{self.host}/service/token",service="harbor-registry"'
            return _errors(401, "UNAUTHORIZED", "unauthorized", (("Www-Authenticate", challenge),))
        if self._portal and not path.startswith("/api/"):
            return Response(200, _PORTAL, "text/html; charset=utf-8")
        return _errors(404, "NOT_FOUND", "The requested resource is not found")


def _json(content: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, json.dumps(content).encode(), headers=headers)


def _errors(status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return _json({"errors": [{"code": code, "message": message}]}, status, headers)
