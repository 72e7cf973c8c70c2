"""The simulated registry's content, in memory: repositories, tags, and the trust data of its Notary.

Trust data outlives what it speaks of, as in a real Notary: a push over a signed tag, or a tag that is deleted
and pushed again, leaves the old signature in place and so turns into `hash_mismatch`.

Two things can say what is signed: the verb `sign`, which is no more than a flag, and a simulated Notary, whose trust data is
real. They agree only if somebody makes them (see `dtr_audit_cli.story_trust`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from dtr_audit_simulator.dtr.accounts import account_id
from dtr_audit_simulator.dtr.backend import DOCKER_MANIFEST, NoSuchRepository, RepositoryEntry, TagEntry
from dtr_audit_simulator.dtr.manifests import Manifest, image_of
from dtr_audit_simulator.notary.notary import Notary


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class _Repository:
    entry: RepositoryEntry
    tags: dict[str, TagEntry] = field(default_factory=dict)
    manifests: dict[str, Manifest | str] = field(
        default_factory=dict
    )  # by digest; of an image what `image_of` makes it of
    seen_under: dict[str, tuple[int, tuple[TagEntry, ...]]] = field(default_factory=dict)


class InMemoryRegistry:
    """A `Backend` in memory, changed by the verbs a registry's users have.

    It may be changed while it is served, from any thread. Names are not checked: hostile ones are welcome.
    Signatures made without naming a domain count under `domain`, which the server fills in with its own host
    when it starts. Of a repository that has trust data in `notary`, the flags are what that says; of others, and
    without a `notary`, what `sign` said.
    """

    def __init__(self, *, domain: str = "", clock: Callable[[], datetime] = _now, notary: Notary | None = None) -> None:
        self.notary = notary
        self._lock = threading.RLock()
        self._clock = clock
        self._domain = domain
        self._repositories: dict[tuple[str, str], _Repository] = {}
        self._trust: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
        self._listed: tuple[RepositoryEntry, ...] | None = None
        self._pushes = 0

    @property
    def domain(self) -> str:
        """The registry's own host[:port], under which images are pushed and signed."""
        with self._lock:
            return self._domain

    @domain.setter
    def domain(self, domain: str) -> None:
        with self._lock:
            self._domain = domain
            for repository in self._repositories.values():
                repository.seen_under.clear()

    def repositories(self) -> Sequence[RepositoryEntry]:
        """List every repository, ordered by `namespace/name`."""
        with self._lock:
            if self._listed is None:
                entries = (repository.entry for repository in self._repositories.values())
                self._listed = tuple(sorted(entries, key=lambda entry: entry.path))
            return self._listed

    def tags(self, namespace: str, name: str, domain: str) -> Sequence[TagEntry]:
        """List a repository's tags, ordered by name, with the flags that Notary gives under `domain`."""
        with self._lock:
            repository = self._repository(namespace, name)
            trust = self.notary.find(f"{domain}/{namespace}/{name}") if self.notary is not None else None
            serial = trust.serial if trust is not None else 0
            known, seen = repository.seen_under.get(domain, (-1, ()))
            if known != serial:
                signed = self._signed_under(namespace, name, domain) if trust is None else trust.released()
                seen = tuple(_seen(repository.tags[tag], signed.get(tag)) for tag in sorted(repository.tags))
                repository.seen_under[domain] = serial, seen
            return seen

    def manifest(self, namespace: str, name: str, digest: str) -> tuple[bytes, str] | None:
        """Give a manifest's body and media type; None if it was pushed as a digest alone."""
        with self._lock:
            repository = self._repositories.get((namespace, name))
            kept = repository.manifests.get(digest) if repository is not None else None
        if kept is None:
            return None
        manifest = image_of(kept) if isinstance(kept, str) else kept
        return manifest.body, manifest.media_type

    def create_repository(
        self,
        namespace: str,
        name: str,
        *,
        namespace_type: str = "organization",
        visibility: str = "private",
        short_description: str = "",
        scan_on_push: bool = False,
        immutable_tags: bool = False,
    ) -> RepositoryEntry:
        """Create an empty repository; one that exists already is left as it is."""
        with self._lock:
            if known := self._repositories.get((namespace, name)):
                return known.entry
            entry = RepositoryEntry(
                namespace=namespace,
                name=name,
                namespace_type=namespace_type,
                visibility=visibility,
                short_description=short_description,
                scan_on_push=scan_on_push,
                immutable_tags=immutable_tags,
            )
            self._repositories[namespace, name] = _Repository(entry)
            self._listed = None
            return entry

    def push(
        self,
        namespace: str,
        name: str,
        tag: str,
        *,
        author: str = "",
        digest: str | None = None,
        at: datetime | str | None = None,
        media_type: str = DOCKER_MANIFEST,
        size: int = 7_340_032,
        cosign_signed: bool = False,
        manifest: Manifest | None = None,
    ) -> TagEntry:
        """Push an image, or any `manifest`, unsigned, over what the tag held; the repository is created if need be.

        Without a `manifest` or a `digest` each push is a new image, and with a `digest` alone no manifest is kept. `author` is an
        account's name or id, by default the admin's id.
        """
        with self._lock:
            self.create_repository(namespace, name)
            repository = self._repositories[namespace, name]
            self._pushes += 1
            if manifest is not None:
                digest, media_type, size = manifest.digest, manifest.media_type, len(manifest.body)
                repository.manifests[digest] = manifest
            elif digest is None:
                content = f"{namespace}/{name}:{tag} push {self._pushes}"
                digest = image_of(content).digest
                repository.manifests[digest] = content
            pushed_at = _timestamp(at if at is not None else self._clock())
            entry = TagEntry(
                name=tag,
                digest=digest,
                author=author or account_id("admin"),
                created_at=pushed_at,
                updated_at=pushed_at,
                in_notary=False,
                hash_mismatch=False,
                media_type=media_type,
                size=size,
                cosign_signed=cosign_signed,
            )
            repository.tags[tag] = entry
            repository.entry = replace(repository.entry, pushes=repository.entry.pushes + 1)
            repository.seen_under.clear()
            self._listed = None
            return entry

    def keep(self, namespace: str, name: str, manifest: Manifest) -> None:
        """Keep a manifest that no tag holds, as those that an index lists."""
        with self._lock:
            self._repository(namespace, name).manifests[manifest.digest] = manifest

    def sign(self, namespace: str, name: str, tag: str, *, domain: str | None = None) -> None:
        """Sign what the tag holds now, under `domain` or else the registry's own. Raises KeyError without such a tag."""
        with self._lock:
            repository = self._repository(namespace, name)
            trust = self._trust.setdefault((namespace, name), {})
            trust[self._signed_domain(domain), tag] = repository.tags[tag].digest
            repository.seen_under.clear()

    def revoke(self, namespace: str, name: str, tag: str, *, domain: str | None = None) -> None:
        """Take the tag's signature out of the trust data. Raises KeyError if there is none."""
        with self._lock:
            del self._trust[namespace, name][self._signed_domain(domain), tag]
            self._repository(namespace, name).seen_under.clear()

    def delete_tag(self, namespace: str, name: str, tag: str) -> None:
        """Delete a tag; its trust data stays. Raises KeyError without such a tag."""
        with self._lock:
            repository = self._repository(namespace, name)
            del repository.tags[tag]
            repository.seen_under.clear()

    def delete_repository(self, namespace: str, name: str) -> None:
        """Delete a repository with its tags; its trust data stays."""
        with self._lock:
            self._repository(namespace, name)
            del self._repositories[namespace, name]
            self._listed = None

    def _repository(self, namespace: str, name: str) -> _Repository:
        try:
            return self._repositories[namespace, name]
        except KeyError:
            raise NoSuchRepository(namespace, name) from None

    def _signed_domain(self, domain: str | None) -> str:
        # "" stands for the registry's own domain, which may not be known before its server has a port.
        return "" if domain is None or domain == self._domain else domain

    def signatures(self, namespace: str, name: str) -> dict[str, str]:
        """Give the digest that `sign` has signed under each tag, for the registry's own domain."""
        with self._lock:
            trust = self._trust.get((namespace, name), {})
            return {tag: digest for (domain, tag), digest in trust.items() if not domain}

    def _signed_under(self, namespace: str, name: str, domain: str) -> dict[str, str]:
        if not domain:
            return {}
        wanted = self._signed_domain(domain)
        trust = self._trust.get((namespace, name), {})
        return {tag: digest for (signed_domain, tag), digest in trust.items() if signed_domain == wanted}


def _seen(entry: TagEntry, signed_digest: str | None) -> TagEntry:
    if signed_digest is None:
        return entry
    return replace(entry, in_notary=True, hash_mismatch=signed_digest != entry.digest)


def _timestamp(at: datetime | str) -> str:
    if isinstance(at, str):
        return at
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
