"""The answers of DTR's API computed from a real docker-registry and a real Notary, as DTR computes them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urljoin

import requests

from dtr_audit_simulator.dtr.backend import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    BackendUnavailable,
    NoSuchRepository,
    RepositoryEntry,
    TagEntry,
)
from dtr_audit_simulator.dtr.manifests import OCI_INDEX, OCI_MANIFEST
from tests.real.lab.trust import TIMEOUT_SECONDS, TrustReader

CATALOG_PAGE_SIZE = 100
MANIFEST_TYPES = (DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_MANIFEST, OCI_INDEX)


@dataclass(frozen=True, slots=True)
class _Image:
    """What a digest stands for. Content-addressed: once read it never changes."""

    media_type: str
    size: int  # bytes of all layers and configurations, over all architectures


class RealBackend:
    """A `dtr_audit_simulator.dtr.backend.Backend` over docker-registry, reached without logging in, and notary-server.

    `authorize` gives the token with which the Notary may be asked for a GUN.
    `storage` is the registry's `rootdirectory`: only its files know when a tag was pushed. Nothing there knows who
    pushed it, so `author` is the id of the one account that can.
    """

    def __init__(
        self, registry_url: str, notary_url: str, *, authorize: Callable[[str], str], storage: Path, author: str
    ) -> None:
        self._registry_url = registry_url
        self._repositories_directory = storage / "docker" / "registry" / "v2" / "repositories"
        self._author = author
        self._session = requests.Session()
        self._session.trust_env = False
        self._trust = TrustReader(notary_url, self._session, authorize)
        self._images: dict[str, _Image] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def repositories(self) -> Sequence[RepositoryEntry]:
        """List the repositories of the form `namespace/name`, ordered by it; also those without any tag."""
        with _translated("the registry"):
            paths = sorted(self._pages(f"/v2/_catalog?n={CATALOG_PAGE_SIZE}", "repositories"))
        names = (path.split("/") for path in paths)
        return tuple(RepositoryEntry(parts[0], parts[1]) for parts in names if len(parts) == 2)

    def tags(self, namespace: str, name: str, domain: str) -> Sequence[TagEntry]:
        """List a repository's tags, ordered by name.

        Signed is what the Notary has under `<domain>/<namespace>/<name>`.
        """
        path = f"{namespace}/{name}"
        with _translated("the registry"):
            try:
                tags = sorted(self._pages(f"/v2/{quote(path)}/tags/list", "tags"))
            except requests.HTTPError as error:
                # 400: a name that no repository can have.
                if error.response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
                    raise NoSuchRepository(namespace, name) from None
                raise
        with _translated("the Notary"):
            signed = self._trust.signed_tags(f"{domain}/{path}") if domain else {}
        with _translated("the registry"):
            entries = (self._read_tag(path, tag, signed.get(tag)) for tag in tags)
            return tuple(entry for entry in entries if entry is not None)

    def manifest(self, namespace: str, name: str, digest: str) -> tuple[bytes, str] | None:
        """Give a manifest's body and media type; None if there is none."""
        with _translated("the registry"):
            answer = self._get(f"{self._registry_url}/v2/{quote(f'{namespace}/{name}')}/manifests/{digest}")
            if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
                return None
            answer.raise_for_status()
            return answer.content, answer.headers["Content-Type"]

    def _pages(self, path: str, key: str) -> Iterator[str]:
        """Give the names in a list of the registry, over all its pages."""
        url = f"{self._registry_url}{path}"
        while url:
            answer = self._get(url)
            answer.raise_for_status()
            yield from answer.json()[key] or []
            following = answer.links.get("next", {}).get("url")
            url = urljoin(url, following) if following else ""

    def _read_tag(self, path: str, tag: str, signed_digest: str | None) -> TagEntry | None:
        """Read one tag; None if it was deleted since it was listed."""
        url = f"{self._registry_url}/v2/{quote(path)}/manifests/{quote(tag)}"
        answer = self._get(url, method="HEAD")
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        answer.raise_for_status()
        digest = answer.headers["Docker-Content-Digest"]
        image = self._read_image(path, digest)
        pushed = self._pushed(path, tag)
        if image is None or pushed is None:
            return None
        return TagEntry(
            name=tag,
            digest=digest,
            author=self._author,
            created_at=_timestamp(min(pushed)),
            updated_at=_timestamp(max(pushed)),
            in_notary=signed_digest is not None,
            hash_mismatch=signed_digest is not None and signed_digest != digest,
            media_type=image.media_type,
            size=image.size,
        )

    def _read_image(self, path: str, digest: str) -> _Image | None:
        """Read what is known of a manifest or a list; None if it has been deleted."""
        with self._lock:
            if known := self._images.get(digest):
                return known
        answer = self._get(f"{self._registry_url}/v2/{quote(path)}/manifests/{digest}")
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        answer.raise_for_status()
        manifest = json.loads(answer.content)
        media_type = answer.headers["Content-Type"]
        if "manifests" in manifest:
            parts = [self._read_image(path, entry["digest"]) for entry in manifest["manifests"]]
            images = [part for part in parts if part is not None]
            size = sum(image.size for image in images)
        else:
            size = sum(blob["size"] for blob in (manifest["config"], *manifest["layers"]))
        image = _Image(media_type, size)
        with self._lock:
            self._images[digest] = image
        return image

    def _pushed(self, path: str, tag: str) -> list[float] | None:
        """Give when the tag was pushed, each time, in seconds since the epoch; None if it has been deleted."""
        directory = self._repositories_directory / path / "_manifests" / "tags" / tag
        links = [directory / "current" / "link", *directory.glob("index/*/*/link")]
        try:
            return [link.stat().st_mtime for link in links]
        except FileNotFoundError:
            return None

    def _get(self, url: str, *, method: str = "GET") -> requests.Response:
        return self._session.request(
            method,
            url,
            headers={"Accept": ", ".join(MANIFEST_TYPES)},
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )


@contextmanager
def _translated(part: str) -> Iterator[None]:
    try:
        yield
    except requests.RequestException as error:
        raise BackendUnavailable(f"unable to reach {part}") from error


def _timestamp(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
