"""What is a signature, an attestation or an SBOM: the layers of its manifest decide, and nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from dtr_audit.core.model import Repository, Tag
from dtr_audit.errors import AuthenticationError, OutOfTimeError, RegistryError
from dtr_audit.http.exchange import Answer
from dtr_audit.registry import artifacts
from dtr_audit.registry.artifacts import (
    DOCKER_MANIFEST,
    LAYERS,
    OCI_INDEX,
    OCI_MANIFEST,
    find_artifacts,
    is_named_like_artifact,
)

REPOSITORY = Repository("web", "shop")
SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"
FILESYSTEM = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
NO_LAYER = "a layer that is no signature"
NO_ARTIFACT = "not that of an artifact"
UNREAD = "could not be read"


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def layer(media_type: Any, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": "sha256:" + "d" * 64, "size": 246, **more}


def manifest(*media_types: Any, **changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layer("application/vnd.oci.image.config.v1+json"),
        "layers": [layer(one) for one in media_types],
    }
    return json.dumps({**document, **changes}).encode()


def index(*bodies: bytes, **changes: Any) -> bytes:
    listed = [{"mediaType": OCI_MANIFEST, "digest": digest_of(body), "size": len(body)} for body in bodies]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed, **changes}).encode()


class Shelf:
    """A registry that gives what lies there by digest, or what it is made to give or raise."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = {digest_of(body): body for body in bodies}
        self.answers: dict[str, Answer | Exception] = {}
        self.asked: list[str] = []
        self.tokens = 0
        self.expired = 0  # how many requests find their token expired

    def check_time(self) -> None:
        pass

    def authorize_pull(self, repository: Repository) -> str:
        assert repository == REPOSITORY
        self.tokens += 1
        return f"Bearer {self.tokens}"

    def ask_manifest(self, repository: Repository, digest: str, authorization: str) -> Answer:
        assert repository == REPOSITORY
        assert authorization == f"Bearer {self.tokens}"
        self.asked.append(digest)
        if self.expired:
            self.expired -= 1
            return Answer(401, {}, b"")
        answer = self.answers.get(digest)
        if isinstance(answer, Exception):
            raise answer
        return answer or Answer(200, {}, self.bodies[digest]) if digest in self.bodies else Answer(404, {}, b"")


def tag(body: bytes, name: str = "1.0.sig", media_type: str = "") -> Tag:
    return Tag(name, digest_of(body), "", "", media_type, None, ())


def why(body: bytes, *others: bytes, media_type: str = "") -> str:
    """Look into a tag; gives why it is judged as an image, '' for an artifact."""
    found = find_artifacts(Shelf(body, *others), REPOSITORY, [tag(body, media_type=media_type)])
    assert found.keys() == {"1.0.sig"}
    return found["1.0.sig"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1.0.sig", True),
        ("1.0.att", True),
        ("1.0.sbom", True),
        ("sha256-" + "0" * 64, True),
        ("sha256-" + "0" * 64 + ".sig", True),
        ("sha256-" + "0" * 64 + ".exe", False),
        ("sha256-" + "0" * 63, False),
        ("sha256-" + "A" * 64, False),
        ("latest", False),
        ("sig", False),
    ],
)
def test_a_tag_is_looked_into_if_its_name_is_one_of_an_artifact(name: str, expected: bool) -> None:
    assert is_named_like_artifact(name) is expected
    shelf = Shelf(body := manifest(SIGNATURE))
    assert find_artifacts(shelf, REPOSITORY, [tag(body, name)]) == ({name: ""} if expected else {})
    assert len(shelf.asked) == shelf.tokens == expected


@pytest.mark.parametrize("media_type", sorted(LAYERS))
def test_a_manifest_whose_every_layer_is_a_signature_or_its_like_is_an_artifact(media_type: str) -> None:
    assert why(manifest(media_type)) == ""
    assert why(manifest(media_type, SIGNATURE)) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"config": layer(DOCKER_CONFIG)},
        {"config": layer("application/vnd.oci.empty.v1+json", data="e30=")},
        {"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json", "subject": layer(OCI_MANIFEST)},
        {"mediaType": DOCKER_MANIFEST},
        {"annotations": {"Layers": "none"}},
    ],
    ids="-".join,
)
def test_what_stands_beside_the_layers_of_an_artifact_decides_nothing(changes: dict[str, Any]) -> None:
    assert why(manifest(SIGNATURE, **changes)) == ""


IMAGES: Mapping[str, tuple[bytes, str]] = {
    "a filesystem": (manifest(FILESYSTEM), NO_LAYER),
    "a filesystem behind a signature": (manifest(SIGNATURE, FILESYSTEM), NO_LAYER),
    "a signature's artifact type": (manifest(FILESYSTEM, artifactType=SIGNATURE, subject=layer(OCI_MANIFEST)), NO_LAYER),
    "a signature's config": (manifest(FILESYSTEM, config=layer("application/vnd.dev.cosign.artifact.sig.v1+json")), NO_LAYER),
    "no layer": (manifest(), NO_ARTIFACT),
    "layers that are null": (manifest(layers=None), NO_ARTIFACT),
    "layers that are an object": (manifest(layers={"mediaType": SIGNATURE}), NO_ARTIFACT),
    "a layer that is a text": (manifest(layers=[SIGNATURE]), NO_LAYER),
    "a layer without a media type": (manifest(layers=[{"digest": "sha256:" + "d" * 64}]), NO_LAYER),
    "a media type that is a list": (manifest([SIGNATURE]), NO_LAYER),
    "a media type in capitals": (manifest(SIGNATURE.upper()), NO_LAYER),
    "layers twice, in another letter case": (manifest(SIGNATURE, Layers=[layer(FILESYSTEM)]), NO_ARTIFACT),
    "layers twice, with a letter that folds to the same": (manifest(SIGNATURE, **{"layer\u017f": []}), NO_ARTIFACT),
    "a media type twice": (manifest(layers=[layer(SIGNATURE, MediaType=FILESYSTEM)]), NO_LAYER),
    "a foreign layer": (manifest(layers=[layer(SIGNATURE, urls=["https://elsewhere.example/"])]), NO_LAYER),
    "an image of schema 1 besides": (manifest(SIGNATURE, fsLayers=[{"blobSum": "sha256:" + "d" * 64}]), NO_ARTIFACT),
    "schema 1": (manifest(SIGNATURE, schemaVersion=1), NO_ARTIFACT),
    "an index's media type": (manifest(SIGNATURE, mediaType=OCI_INDEX), NO_ARTIFACT),
    "a media type of no text": (manifest(SIGNATURE, mediaType=[OCI_MANIFEST]), NO_ARTIFACT),
    "an index besides": (manifest(SIGNATURE, manifests=[]), "an index, and not one of artifacts"),
    "a key twice": (manifest(SIGNATURE)[:-1] + b', "layers": [{"mediaType": "x"}]}', UNREAD),
    "no JSON": (b"<html></html>", UNREAD),
    "a list": (b"[]", UNREAD),
    "UTF-16": (manifest(SIGNATURE).decode().encode("utf-16"), UNREAD),
    "deep JSON": (b"[" * 100_000 + b"]" * 100_000, UNREAD),
}  # fmt: skip


@pytest.mark.parametrize(("body", "because"), IMAGES.values(), ids=IMAGES)
def test_a_manifest_that_is_not_of_artifacts_alone_is_judged_as_an_image(body: bytes, because: str) -> None:
    assert because in why(body)


SIGNED, ATTESTED, IMAGE = manifest(SIGNATURE), manifest("application/vnd.in-toto+json"), manifest(FILESYSTEM)


def test_an_index_of_artifacts_alone_is_one() -> None:
    assert why(index(SIGNED, ATTESTED), SIGNED, ATTESTED) == ""


INDEXES: Mapping[str, tuple[bytes, str]] = {
    "of an image too": (index(SIGNED, IMAGE), NO_LAYER),
    "of nothing": (index(), "not one of artifacts alone"),
    "of what is not there": (index(ATTESTED), "answers 404"),
    "of an index": (index(index(SIGNED)), NO_ARTIFACT),
    "of too many": (index(*[SIGNED] * 33), "not one of artifacts alone"),
    "of layers besides": (index(SIGNED, layers=[layer(FILESYSTEM)]), "not one of artifacts alone"),
    "with manifests twice": (index(SIGNED, Manifests=[]), "not one of artifacts alone"),
    "with a digest twice": (
        index(manifests=[{"digest": digest_of(SIGNED), "Digest": digest_of(IMAGE)}]),
        "not one of artifacts alone",
    ),
    "for platforms": (
        index(SIGNED, mediaType="application/vnd.docker.distribution.manifest.list.v2+json"),
        "not one of artifacts alone",
    ),
}


@pytest.mark.parametrize(("body", "because"), INDEXES.values(), ids=INDEXES)
def test_an_index_that_is_not_of_artifacts_alone_is_judged_as_an_image(body: bytes, because: str) -> None:
    assert because in why(body, SIGNED, IMAGE, index(SIGNED))


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.example+json",
    ],
)
def test_a_tag_that_is_listed_with_another_media_type_is_not_asked_for(media_type: str) -> None:
    shelf = Shelf(SIGNED)
    found = find_artifacts(shelf, REPOSITORY, [tag(SIGNED, media_type=media_type)])
    assert "the media type of an image" in found["1.0.sig"]
    assert shelf.asked == []
    assert shelf.tokens == 0


@pytest.mark.parametrize("digest", ["", "sha512:" + "a" * 128, "sha256:" + "A" * 64, "sha256:../../x"])
def test_a_tag_without_a_digest_that_can_be_verified_is_not_asked_for(digest: str) -> None:
    shelf = Shelf(SIGNED)
    found = find_artifacts(shelf, REPOSITORY, [tag(SIGNED)._replace(digest=digest)])
    assert "no SHA-256 digest" in found["1.0.sig"]
    assert shelf.asked == []


UNUSABLE: Mapping[str, Answer | Exception] = {
    "a failing registry": Answer(500, {}, b""),
    "a tag that is gone": Answer(404, {}, b""),
    "another's manifest": Answer(200, {}, ATTESTED),
    "a page": Answer(200, {}, b"<html></html>"),
    "nothing": Answer(200, {}, b""),
    "a broken connection": RegistryError("secret"),
    "a refusal": AuthenticationError("secret"),
}


@pytest.mark.parametrize("answer", UNUSABLE.values(), ids=UNUSABLE)
def test_a_manifest_that_cannot_be_read_is_judged_as_an_image(answer: Answer | Exception) -> None:
    shelf = Shelf(SIGNED)
    shelf.answers[digest_of(SIGNED)] = answer
    found = find_artifacts(shelf, REPOSITORY, [tag(SIGNED)])
    assert UNREAD in found["1.0.sig"]
    assert "secret" not in found["1.0.sig"]


def test_a_large_manifest_is_judged_as_an_image() -> None:
    assert UNREAD in why(manifest(*[SIGNATURE] * 3_000))


def test_the_end_of_the_time_is_passed_on() -> None:
    shelf = Shelf(SIGNED)
    shelf.answers[digest_of(SIGNED)] = OutOfTimeError("over")
    with pytest.raises(OutOfTimeError):
        find_artifacts(shelf, REPOSITORY, [tag(SIGNED)])


def test_an_expired_token_is_renewed_once_for_a_manifest() -> None:
    shelf = Shelf(SIGNED, ATTESTED)
    shelf.expired = 1
    assert set(find_artifacts(shelf, REPOSITORY, [tag(SIGNED), tag(ATTESTED, "1.0.att")]).values()) == {""}
    assert shelf.tokens == 2
    assert len(shelf.asked) == 3


def test_no_more_manifests_of_a_repository_are_read_than_the_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MANIFESTS_OF_A_REPOSITORY", 4)
    bodies = [manifest(SIGNATURE, annotations={"number": str(number)}) for number in range(4)]
    listing = index(*bodies[1:3])
    shelf = Shelf(*bodies, listing)
    tags = [tag(body, f"{number}.sig") for number, body in enumerate((bodies[0], listing, *bodies[2:]))]
    found = find_artifacts(shelf, REPOSITORY, tags)
    assert [found[one.name] for one in tags] == ["", "", *["of one repository 4 manifests are read at most"] * 2]
    assert len(shelf.asked) == 4


def test_after_three_failures_in_a_row_no_more_is_asked() -> None:
    bodies = [manifest(SIGNATURE, annotations={"number": str(number)}) for number in range(7)]
    shelf = Shelf(*bodies)
    for number in (0, 1, 3, 4, 5):
        shelf.answers[digest_of(bodies[number])] = RegistryError("the connection broke")
    tags = [tag(body, f"{number}.sig") for number, body in enumerate(bodies)]
    found = find_artifacts(shelf, REPOSITORY, tags)
    assert found["2.sig"] == ""
    assert "after 3 others" in found["6.sig"]
    assert len(shelf.asked) == 6
