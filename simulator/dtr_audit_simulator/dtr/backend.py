"""Where the simulated registry's answers come from: memory, or a real registry and its Notary.

`dtr_audit_simulator.dtr.api` asks a `Backend` three questions and nothing else, so the very same HTTP API can stand in front
of `InMemoryRegistry`, of a real docker-registry with a Notary, or of a generator of a million tags.

The two sequences that it gives are only measured (`len`), searched and sliced. A lazy sequence that answers `len()`, `[i]`
and `[i:j]` is therefore enough: a page of a million tags costs a page. A sequence that can also find a name
faster than by looking at each element offers `position(key)`, see `Positioned`. A sequence that has been
handed out must not change any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """One element of `/api/v0/repositories`."""

    namespace: str
    name: str
    namespace_type: str = "organization"
    visibility: str = "private"
    short_description: str = ""
    scan_on_push: bool = False
    immutable_tags: bool = False
    enable_manifest_lists: bool = False
    pulls: int = 0
    pushes: int = 0
    tag_limit: int = 0

    @property
    def path(self) -> str:
        """Give `namespace/name`, the key the list is paged by."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class TagEntry:
    """One element of `/api/v0/repositories/{namespace}/{name}/tags`."""

    name: str
    digest: str
    author: str
    created_at: str
    updated_at: str
    in_notary: bool
    hash_mismatch: bool
    media_type: str = DOCKER_MANIFEST
    size: int = 7_340_032
    cosign_signed: bool = False


class NoSuchRepository(Exception):  # noqa: N818 - named as DTR names it: NO_SUCH_REPOSITORY
    """The registry holds no repository of that name."""

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__(f"there is no repository {namespace}/{name}")
        self.namespace = namespace
        self.name = name


class BackendUnavailable(Exception):  # noqa: N818 - a state of the backend, not of its caller
    """The registry or the Notary behind the API does not answer: the API answers 500 INTERNAL_ERROR, as DTR does."""


class Backend(Protocol):
    """Where the API's answers come from."""

    def repositories(self) -> Sequence[RepositoryEntry]:
        """List every repository, in the order in which the API pages through them."""
        ...

    def tags(self, namespace: str, name: str, domain: str) -> Sequence[TagEntry]:
        """List a repository's tags as seen by Notary under `domain`.

        An empty or foreign `domain` makes every tag look unsigned (`in_notary` and `hash_mismatch` false), as
        DTR does. Raises NoSuchRepository, or BackendUnavailable.
        """
        ...

    def manifest(self, namespace: str, name: str, digest: str) -> tuple[bytes, str] | None:
        """Give a manifest's body and media type; None if there is none. Raises BackendUnavailable."""
        ...


@runtime_checkable
class Positioned(Protocol):
    """A sequence that finds the index of a key (`namespace/name`, or a tag's name) without being searched."""

    def position(self, key: str) -> int:
        """Give the index of `key`, or that of the first element behind it in order; `len(self)` if there is none."""
        ...
