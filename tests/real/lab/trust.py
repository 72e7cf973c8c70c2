"""What a Notary says is signed, read as `docker pull` with content trust reads it.

That is, from the role `targets/releases` first, then from the top-level `targets`. A tag that only a signer's own
role (`targets/<signer>`) lists is not released, so it counts as unsigned. The Notary verified every signature when it
was published; expiry and thresholds are looked at here, because they can change without a new publication.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import requests

TOP_LEVEL = "targets"
RELEASES = "targets/releases"
TIMEOUT_SECONDS = 10


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class TrustReader:
    """Reads the trust data of a notary-server, which accepts the token that `authorize` gives for a GUN."""

    notary_url: str
    session: requests.Session
    authorize: Callable[[str], str]
    clock: Callable[[], datetime] = _now

    def signed_tags(self, gun: str) -> Mapping[str, str]:
        """Give the digest (`sha256:…`) that is signed under each tag; empty without trust data.

        Raises requests.RequestException when the Notary does not answer.
        """
        root = self._fetch(gun, "root")
        top = self._fetch(gun, TOP_LEVEL)
        if root is None or top is None:
            return {}
        if not self._counts(top, root["signed"]["roles"][TOP_LEVEL]):
            return {}
        signed = _digests(top)
        for role in (top["signed"].get("delegations") or {}).get("roles") or []:
            if role["name"] != RELEASES:
                continue
            releases = self._fetch(gun, RELEASES)
            if releases is not None and self._counts(releases, role):
                # Later wins: what is released stands before what the top level says.
                signed |= _digests(releases)
        return signed

    def _fetch(self, gun: str, role: str) -> Any:
        path = quote(f"/v2/{gun}/_trust/tuf/{role}.json")
        answer = self.session.get(
            f"{self.notary_url}{path}",
            headers={"Authorization": f"Bearer {self.authorize(gun)}"},
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        answer.raise_for_status()
        return answer.json()

    def _counts(self, metadata: Any, role: Any) -> bool:
        """Tell whether metadata is in date and carries enough signatures of the keys its role has today."""
        signers = {signature["keyid"] for signature in metadata["signatures"]}
        in_date = datetime.fromisoformat(metadata["signed"]["expires"]) > self.clock()
        return in_date and len(signers & set(role["keyids"])) >= role["threshold"]


def _digests(metadata: Any) -> dict[str, str]:
    targets = metadata["signed"].get("targets") or {}
    return {
        tag: f"sha256:{base64.b64decode(target['hashes']['sha256']).hex()}"
        for tag, target in targets.items()
        if "sha256" in target["hashes"]
    }
