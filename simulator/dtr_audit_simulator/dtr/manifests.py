"""What lies behind a digest: manifests of images, of signatures and the like, and indexes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from dtr_audit_simulator.dtr.backend import DOCKER_MANIFEST

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
FILESYSTEM = "application/vnd.docker.image.rootfs.diff.tar.gzip"
COSIGN_SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"
ATTESTATION = "application/vnd.dsse.envelope.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as a registry keeps it; its digest is the hash of its body."""

    body: bytes
    media_type: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha256(self.body))


def sha256(content: bytes) -> str:
    """Give the digest of some content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest_of(content: str, *layers: str, media_type: str = OCI_MANIFEST, config: str = IMAGE_CONFIG) -> Manifest:
    """Make a manifest with a layer of each of these media types; `content` sets it apart from others."""
    parts = [sha256(f"{content}, part {number}".encode("utf-8", "surrogatepass")) for number in range(len(layers) + 1)]
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config, "size": 233, "digest": parts[0]},
        "layers": [
            {"mediaType": layer, "size": 246, "digest": part} for layer, part in zip(layers, parts[1:], strict=True)
        ],
    }
    return Manifest(json.dumps(document).encode(), media_type)


def image_of(content: str) -> Manifest:
    """Make the manifest of an image with one layer, as docker pushes it."""
    return manifest_of(content, FILESYSTEM, media_type=DOCKER_MANIFEST)


def index_of(manifests: Sequence[Manifest]) -> Manifest:
    """Make an index of manifests, as Cosign keeps one where the registry has no referrers API."""
    listed = [{"mediaType": one.media_type, "size": len(one.body), "digest": one.digest} for one in manifests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    return Manifest(json.dumps(document).encode(), OCI_INDEX)
