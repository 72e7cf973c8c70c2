"""What the rule's own check sees: its three curl commands, asked of a simulated registry."""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass
from http.client import HTTPSConnection
from typing import Any

from dtr_audit_simulator.dtr.server import DtrServer


@dataclass(frozen=True, slots=True)
class LoopReading:
    """What the check's own shell loop gets to see: it asks for no page, and so gets the first of each list."""

    repositories: int
    tags: int
    not_true: int  # tags next to which it does not print "true"
    overwritten: int  # those next to which it does, although they were pushed over after they were signed


def read_as_the_rule_does(server: DtrServer) -> LoopReading:
    """Ask what the Check Content's three curl commands ask, in their way (but for `-k`: the certificate is verified)."""
    context = ssl.create_default_context(cadata=server.ca_bundle)
    connection = HTTPSConnection("localhost", server.port, context=context, timeout=30)

    def get(path: str, authorization: str) -> Any:
        connection.request("GET", path, headers={"Authorization": authorization})
        return json.loads(connection.getresponse().read())

    login = base64.b64encode(f"{server.admin.name}:{server.admin.password}".encode()).decode()
    try:
        bearer = f"Bearer {get('/auth/token', f'Basic {login}')['token']}"
        repositories = get("/api/v0/repositories", bearer)["repositories"]
        tags = [
            tag
            for repository in repositories
            for tag in get(
                f"/api/v0/repositories/{repository['namespace']}/{repository['name']}/tags?domain={server.host}", bearer
            )
        ]
    finally:
        connection.close()
    return LoopReading(
        repositories=len(repositories),
        tags=len(tags),
        not_true=sum(tag["inNotary"] is not True for tag in tags),
        overwritten=sum(tag["inNotary"] is True and tag["hashMismatch"] is True for tag in tags),
    )
