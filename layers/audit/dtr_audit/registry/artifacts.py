"""Signatures, attestations and SBOMs that stand as tags beside images: recognised by their content, never by their name.

Sources: Cosign's SIGNATURE_SPEC.md, BUNDLE_SPEC.md and SBOM_SPEC.md; the OCI image and distribution specifications 1.1 (fallback
tags of referrers); Notation's signature specification; MSR 2.10's manual, for the names.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from dtr_audit.core.documents import parse_json
from dtr_audit.core.model import Repository, Tag
from dtr_audit.errors import AuditError, AuthenticationError, OutOfTimeError, RegistryError
from dtr_audit.http.exchange import Answer
from dtr_audit.http.memory_budget import BUDGET, estimate_parsed

MANIFESTS_OF_A_REPOSITORY = 2_000  # read in one run, those that an index lists included
MANIFESTS_OF_AN_INDEX = 32  # the signatures, attestations and SBOMs of one image
MANIFEST_BYTES = 256 * 1024  # a keyless signature with its certificates takes 8 KiB, and one manifest can hold several
MANIFEST_PARSED_BYTES = 16 * 1024 * 1024  # of memory
FAILURES = 3  # reads in a row that failed, after which the repository's other manifests are not asked for

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}"

# What a layer of an artifact may be.
LAYERS = frozenset(
    {
        "application/vnd.dev.cosign.simplesigning.v1+json",
        "application/vnd.dsse.envelope.v1+json",
        "application/vnd.in-toto+json",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
        "application/vnd.dev.sigstore.bundle+json;version=0.3",
        "application/jose+json",  # Notation's
        "application/cose",
        "application/spdx+json",
        "text/spdx",
        "text/spdx+json",
        "text/spdx+xml",
        "application/vnd.cyclonedx",
        "application/vnd.cyclonedx+json",
        "application/vnd.cyclonedx+xml",
        "application/vnd.syft+json",
    }
)

# Docker and the registry read keys in any letter case, and the last one counts. So no key is let through but these.
_T = TypeVar("_T")
_MANIFEST_KEYS = frozenset({"schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations"})
_INDEX_KEYS = frozenset({"schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations"})
_DESCRIPTOR_KEYS = frozenset({"mediaType", "digest", "size", "annotations", "data", "artifactType", "platform"})

_SUFFIXES = (".sig", ".att", ".sbom")
_DIGEST_TAG = re.compile(r"sha256-[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Registry(Protocol):
    """A registry whose manifests can be read."""

    def authorize_pull(self, repository: Repository) -> str:
        """Give the authorization to read a repository; raises AuthenticationError, RegistryError or OutOfTimeError."""
        ...

    def ask_manifest(self, repository: Repository, digest: str, authorization: str) -> Answer:
        """Ask for a manifest; raises RegistryError or OutOfTimeError."""
        ...

    def check_time(self) -> None:
        """Raise OutOfTimeError if the time is up."""
        ...


def is_named_like_artifact(name: str) -> bool:
    """Tell whether a tag has a name under which artifacts are kept: `<any>.sig`, `.att`, `.sbom`, or `sha256-<64 hex digits>`."""
    return name.endswith(_SUFFIXES) or (name.startswith("sha256-") and _DIGEST_TAG.fullmatch(name) is not None)


def find_artifacts(registry: Registry, repository: Repository, tags: Iterable[Tag]) -> Mapping[str, str]:
    """Look into every tag that is named like an artifact; gives by name why it is judged as an image, '' for an artifact.

    The manifest is asked for by the digest that the list of tags gives, so what is read is what the tag holds. A tag with any
    other name is not looked into. Raises OutOfTimeError.
    """
    reader: _ManifestReader | None = None
    found: dict[str, str] = {}
    for tag in tags:
        if is_named_like_artifact(tag.name):
            reader = reader or _ManifestReader(registry, repository)
            try:
                reader.prove(tag)
            except _ImageError as error:
                found[tag.name] = str(error)
            else:
                found[tag.name] = ""
    return found


class _ImageError(Exception):
    """Why a tag is judged as an image: in words of our own alone, since the registry may echo what it was sent."""


class _ManifestReader:
    """Reads manifests of one repository, and no more of them than the limits allow."""

    def __init__(self, registry: Registry, repository: Repository) -> None:
        self._registry = registry
        self._repository = repository
        self._authorization = ""
        self._left = MANIFESTS_OF_A_REPOSITORY
        self._failures = 0

    def prove(self, tag: Tag) -> None:
        """Prove that a tag holds an artifact; raises _ImageError."""
        if tag.media_type not in {DOCKER_MANIFEST, OCI_MANIFEST, OCI_INDEX, ""}:
            raise _ImageError("the registry lists it with the media type of an image")
        # What a registry without the referrers API keeps: an index of the artifacts of one image.
        for digest in self._read(tag.digest, _list_manifests):
            self._read(digest, _check_layers)

    def _read(self, digest: str, look: Callable[[dict[str, Any]], _T]) -> _T:
        """Read a manifest whose content is proven by its digest, and give what `look` finds in it; raises _ImageError."""
        if not _DIGEST.fullmatch(digest):
            raise _ImageError("no SHA-256 digest of its manifest is given")
        if not self._left:
            raise _ImageError(f"of one repository {MANIFESTS_OF_A_REPOSITORY} manifests are read at most")
        if self._failures >= FAILURES:
            raise _ImageError(f"its manifest was not read, after {FAILURES} others that could not be")
        self._left -= 1
        try:
            body = self._fetch(digest)
        except _ImageError:
            self._failures += 1
            raise
        self._failures = 0
        if len(body) > MANIFEST_BYTES or f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            raise _ImageError("its manifest could not be read (what the registry gives is not what the digest names)")
        with BUDGET.charge(MANIFEST_PARSED_BYTES) as charge:
            try:
                charge.grow(estimate_parsed(body), self._registry.check_time)
                document = parse_json(body.decode("utf-8"))
            except OutOfTimeError:
                raise
            except (AuditError, ValueError, RecursionError):
                document = None
            if not isinstance(document, dict):
                raise _ImageError("its manifest could not be read (it is no JSON object, or contradicts itself)")
            return look(document)

    def _fetch(self, digest: str) -> bytes:
        try:
            answer = self._ask(digest)
            if answer.status == 401:
                # A token lives five minutes, and a repository may take longer.
                self._authorization = ""
                answer = self._ask(digest)
        except OutOfTimeError:
            raise
        except AuthenticationError:
            raise _ImageError("its manifest could not be read (the registry gives no access to it)") from None
        except RegistryError:
            raise _ImageError("its manifest could not be read (no usable answer came)") from None
        if answer.status != 200:
            raise _ImageError(f"its manifest could not be read (the registry answers {answer.status})")
        return answer.body

    def _ask(self, digest: str) -> Answer:
        self._authorization = self._authorization or self._registry.authorize_pull(self._repository)
        return self._registry.ask_manifest(self._repository, digest, self._authorization)


def _list_manifests(document: dict[str, Any]) -> list[str]:
    """Give what an index lists; nothing for a manifest of an artifact. Raises _ImageError for anything else."""
    if "manifests" in document:
        return _listed_digests(document)
    _check_layers(document)
    return []


def _check_layers(document: Mapping[str, Any]) -> None:
    """Check that every layer is a signature, an attestation or an SBOM; what the config is decides nothing. Raises _ImageError."""
    layers = document.get("layers")
    is_manifest = (
        document.keys() <= _MANIFEST_KEYS
        and document.get("schemaVersion") == 2
        and _media_type(document, OCI_MANIFEST) in {OCI_MANIFEST, DOCKER_MANIFEST}
    )
    if not is_manifest or not isinstance(layers, list) or not layers:
        raise _ImageError("its manifest is not that of an artifact")
    if not all(_is_descriptor(layer) and _media_type(layer) in LAYERS for layer in layers):
        raise _ImageError("its manifest has a layer that is no signature, attestation or SBOM")


def _listed_digests(index: Mapping[str, Any]) -> list[str]:
    """Give the digests of the manifests that an index lists; raises _ImageError."""
    manifests = index["manifests"]
    is_index = (
        index.keys() <= _INDEX_KEYS
        and index.get("schemaVersion") == 2
        and _media_type(index, OCI_INDEX) == OCI_INDEX
        and isinstance(manifests, list)
        and 0 < len(manifests) <= MANIFESTS_OF_AN_INDEX
        and all(_is_descriptor(one) and isinstance(one.get("digest"), str) for one in manifests)
    )
    if not is_index:
        raise _ImageError("it is an index, and not one of artifacts alone")
    return [one["digest"] for one in manifests]


def _media_type(document: Mapping[str, Any], default: str = "") -> str:
    media_type = document.get("mediaType", default)
    return media_type if isinstance(media_type, str) else ""


def _is_descriptor(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= _DESCRIPTOR_KEYS
