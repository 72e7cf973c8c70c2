"""V-235846: what is signed, what is a finding, and what nobody knows."""

import re
import shlex

import pytest
from dtr_audit.model import Finding, News, Repository, Scope, State, Status, Tag, TagCounts, TrustFlags, Verdict
from dtr_audit.rule import decide, fix_commands, judge

DIGEST = "sha256:" + "a" * 64


def tag(*flags: tuple[str, bool | None, bool | None], name: str = "1.0") -> Tag:
    return Tag(name, DIGEST, "alice", "2026-11-01T00:00:00Z", "", None, tuple(TrustFlags(*one) for one in flags))


@pytest.mark.parametrize(
    ("in_notary", "hash_mismatch", "verdict"),
    [
        (True, False, Verdict.SIGNED),
        (True, True, Verdict.MISMATCHED),
        (False, False, Verdict.UNSIGNED),
        (False, True, Verdict.UNSIGNED),
        (None, False, Verdict.UNKNOWN),
        (True, None, Verdict.UNKNOWN),
        (False, None, Verdict.UNKNOWN),
        (None, None, Verdict.UNKNOWN),
    ],
)
def test_each_pair_of_flags_has_its_verdict(
    in_notary: bool | None, hash_mismatch: bool | None, verdict: Verdict
) -> None:
    judged = judge(tag(("dtr.example.com", in_notary, hash_mismatch)))
    assert judged.verdict is verdict
    assert bool(judged.reason) is (verdict is not Verdict.SIGNED)


def test_signed_under_any_domain_is_signed_and_says_which() -> None:
    judged = judge(tag(("old.example.com", False, False), ("dtr.example.com", True, False)))
    assert judged.verdict is Verdict.SIGNED
    assert judged.signed_domain == "dtr.example.com"


def test_an_unsigned_tag_names_no_signed_domain() -> None:
    assert judge(tag(("dtr.example.com", True, True))).signed_domain == ""


def test_unread_flags_under_one_domain_make_unsigned_under_another_unknown() -> None:
    judged = judge(tag(("a.example.com", False, False), ("b.example.com", None, None)))
    assert judged.verdict is Verdict.UNKNOWN


def test_overwritten_under_one_domain_is_mismatched_whatever_the_others_say() -> None:
    judged = judge(tag(("a.example.com", False, False), ("b.example.com", True, True)))
    assert judged.verdict is Verdict.MISMATCHED
    assert "b.example.com" in judged.reason


def test_a_contradiction_of_the_registry_is_a_finding_that_says_so() -> None:
    judged = judge(tag(("a.example.com", False, True)))
    assert judged.is_finding
    assert "contradicts itself" in judged.reason


def test_a_tag_asked_about_under_no_domain_is_unknown() -> None:
    assert judge(tag()).verdict is Verdict.UNKNOWN


def test_a_signature_artifact_gets_no_verdict() -> None:
    judged = judge(tag(("dtr.example.com", False, False)), artifact=True)
    assert judged.verdict is None
    assert not judged.is_finding


@pytest.mark.parametrize(
    ("counts", "complete", "scope", "status"),
    [
        (TagCounts(signed=3), True, Scope.FULL, Status.NOT_A_FINDING),
        (TagCounts(), True, Scope.FULL, Status.NOT_A_FINDING),
        (TagCounts(signed=3), False, Scope.FULL, Status.NOT_REVIEWED),
        (TagCounts(signed=3, unknown=1), True, Scope.FULL, Status.NOT_REVIEWED),
        (TagCounts(signed=3), True, Scope.PARTIAL, Status.NOT_REVIEWED),
        (TagCounts(signed=3, unsigned=1), True, Scope.FULL, Status.OPEN),
        (TagCounts(mismatched=1), False, Scope.FULL, Status.OPEN),
        (TagCounts(untrusted=1), False, Scope.PARTIAL, Status.OPEN),
        (TagCounts(), False, Scope.FULL, Status.NOT_REVIEWED),
    ],
)
def test_only_a_complete_full_run_without_any_doubt_passes(
    counts: TagCounts, complete: bool, scope: Scope, status: Status
) -> None:
    assert decide(counts, complete=complete, scope=scope) is status


IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def finding(media_type: str, *, digest: str = DIGEST) -> Finding:
    return Finding(
        registry="prod",
        repository=Repository("platform", "api"),
        tag="1.0",
        state=State.OPEN,
        verdict=Verdict.UNSIGNED,
        reason="",
        digest=digest,
        author="",
        pushed_at="",
        first_seen="",
        last_changed="",
        changed_in="",
        transition=News.OPENED,
        media_type=media_type,
    )


def test_the_fix_signs_the_digest_found_and_quotes_every_outside_text() -> None:
    commands = fix_commands(finding(IMAGE, digest="sha256:$(reboot)"), "dtr.example.com")
    assert commands[0] == "docker login dtr.example.com"
    assert commands[-2:] == ("export DOCKER_CONTENT_TRUST=1", "docker push dtr.example.com/platform/api:1.0")
    source = "dtr.example.com/platform/api@sha256:$(reboot)"
    assert f"docker tag {shlex.quote(source)} dtr.example.com/platform/api:1.0" in commands
    assert all("$(" not in line.replace(shlex.quote(source), "") for line in commands)


@pytest.mark.parametrize("media_type", [LIST, INDEX, "", "application/json"])
def test_the_fix_of_what_may_be_a_list_pushes_nothing_and_signs_the_digest_found(media_type: str) -> None:
    commands = fix_commands(finding(media_type), "dtr.example.com")
    name = "dtr.example.com/platform/api"
    assert commands[1:3] == (
        f'docker trust signer add --key cert.pem "$UCP_USER" {name}',
        "docker trust key load key.pem",
    )
    assert not [line for line in commands if line.startswith(("docker push", "docker pull", "DOCKER_CONTENT_TRUST"))]
    assert commands[-2:] == (
        f"skopeo inspect --raw docker://{name}@{DIGEST} > manifest.json &&",
        "notary -s https://dtr.example.com -d ~/.docker/trust addhash -p "
        '-r targets/releases -r "targets/$UCP_USER" '
        f"--sha256 {'a' * 64} {name} 1.0 $(wc -c < manifest.json)",
    )


def test_the_fix_of_a_list_quotes_every_outside_text() -> None:
    commands = fix_commands(finding(LIST, digest="sha256:$(reboot)"), "dtr.example.com")
    assert "'$(reboot)'" in commands[-1]
    assert "'docker://dtr.example.com/platform/api@sha256:$(reboot)'" in commands[-2]
    assert not [line for line in commands if "$(reboot)" in re.sub("'[^']*'", "", line)]


@pytest.mark.parametrize("digest", ["", "sha512:" + "a" * 128])
def test_the_fix_of_a_list_without_a_sha256_signs_what_the_registry_gives(digest: str) -> None:
    commands = fix_commands(finding(LIST, digest=digest), "dtr.example.com")
    assert commands[-1].endswith(" dtr.example.com/platform/api 1.0 manifest.json")
    assert "--sha256" not in commands[-1]
