"""Tiny but valid images, as skopeo's `dir:` transport reads them: a manifest and its blobs side by side."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from dtr_audit_simulator.dtr.backend import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST
from dtr_audit_simulator.dtr.manifests import IMAGE_CONFIG, OCI_INDEX, OCI_MANIFEST

CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"

CREATED = "2024-01-02T03:04:05Z"


def write_image(directory: Path, content: str, *, architecture: str = "amd64") -> str:
    """Write an image of one file into `directory` and give its digest: equal content makes the same image."""
    _write_version(directory)
    return _write(directory / "manifest.json", _make_image(directory, content, architecture))


def write_manifest_list(directory: Path, content: str, architectures: Sequence[str]) -> str:
    """Write one image per architecture and the manifest list that joins them; gives the list's digest."""
    _write_version(directory)
    entries = []
    for architecture in architectures:
        manifest = _make_image(directory, f"{content} for {architecture}", architecture)
        digest = _digest(manifest)
        _write(directory / f"{digest.removeprefix('sha256:')}.manifest.json", manifest)
        entries.append(
            {
                "mediaType": DOCKER_MANIFEST,
                "size": len(manifest),
                "digest": digest,
                "platform": {"architecture": architecture, "os": "linux"},
            }
        )
    manifest_list = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST_LIST, "manifests": entries}
    return _write(directory / "manifest.json", _encode(manifest_list))


def write_artifact(directory: Path, *payloads: tuple[str, bytes]) -> str:
    """Write what Cosign keeps as a tag, with a layer of each media type and content; gives its digest."""
    _write_version(directory)
    return _write(directory / "manifest.json", _make_artifact(directory, payloads))


def write_artifact_index(directory: Path, *payloads: tuple[str, bytes]) -> str:
    """Write an artifact for each media type and content, and the index that joins them; gives the index's digest."""
    _write_version(directory)
    entries = []
    for payload in payloads:
        manifest = _make_artifact(directory, [payload])
        digest = _write(directory / f"{_digest(manifest).removeprefix('sha256:')}.manifest.json", manifest)
        entries.append({"mediaType": OCI_MANIFEST, "size": len(manifest), "digest": digest})
    return _write(
        directory / "manifest.json", _encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    )


def _make_artifact(directory: Path, payloads: Sequence[tuple[str, bytes]]) -> bytes:
    """Write the blobs of an artifact and give its manifest; its config is an image's, as that of Cosign's signatures is."""
    diff_ids = [_digest(content) for _, content in payloads]
    config = _encode({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    return _encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _write_blob(directory, IMAGE_CONFIG, config),
            "layers": [_write_blob(directory, media_type, content) for media_type, content in payloads],
        }
    )


def _make_image(directory: Path, content: str, architecture: str) -> bytes:
    """Write the blobs of an image and give its manifest."""
    layer = _make_layer(content.encode())
    # mtime=0: equal content must make equal digests.
    compressed = gzip.compress(layer, mtime=0)
    config = _encode(
        {
            "architecture": architecture,
            "os": "linux",
            "created": CREATED,
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created": CREATED, "created_by": "COPY content /"}],
        }
    )
    return _encode(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": _write_blob(directory, CONFIG_TYPE, config),
            "layers": [_write_blob(directory, LAYER_TYPE, compressed)],
        }
    )


def _make_layer(content: bytes) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        member = tarfile.TarInfo("content")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return layer.getvalue()


def _write_blob(directory: Path, media_type: str, content: bytes) -> dict[str, object]:
    digest = _digest(content)
    _write(directory / digest.removeprefix("sha256:"), content)
    return {"mediaType": media_type, "size": len(content), "digest": digest}


def _write_version(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "version", b"Directory Transport Version: 1.1\n")


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return _digest(content)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
