"""Rule V-235846, and every decision about a tag or a run: pure functions, no I/O.

Source of the rule: DISA, Docker Enterprise 2.x Linux/UNIX STIG, V2R2 (24 Jul 2024), V-235846 / DKER-EE-004260, CAT II.
"""

import shlex
from collections.abc import Mapping

from .model import Finding, JudgedTag, Scope, Status, Tag, TagCounts, TrustFlags, Verdict

TITLE = "Only trusted, signed images must be stored in Docker Trusted Registry (DTR) in Docker Enterprise."
SEVERITY = "medium"

# What `docker pull` and `docker push` take whole. A list of images, one for each platform, they would make into one of them.
_SINGLE_IMAGES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.oci.image.manifest.v1+json",
    }
)

COSIGN_REMEDY = "Sign it with Content Trust, or record an exception"
COSIGN_NOTE = (
    "The registry reports Cosign signatures and does not verify them. The rule's check asks for Docker Content Trust: sign with "
    "it, or record an exception."
)


def judge(tag: Tag, *, artifact: bool = False) -> JudgedTag:
    """Judge one tag by what the registry says under each domain; signed under any of them is signed."""
    if artifact:
        return JudgedTag(tag, None, "signature artifact, not an image", tag.trust[0] if tag.trust else None)
    for trust in tag.trust:
        if trust.in_notary is True and trust.hash_mismatch is False:
            return JudgedTag(tag, Verdict.SIGNED, "", trust)
    if not tag.trust:
        return JudgedTag(tag, Verdict.UNKNOWN, "the registry was not asked under any domain", None)
    for trust in tag.trust:
        unread = _unread_flags(trust)
        if unread:
            reason = f"the registry does not say whether it is signed ({unread})"
            return JudgedTag(tag, Verdict.UNKNOWN, reason, trust)
    for trust in tag.trust:
        if trust.in_notary:
            reason = f"signed under {trust.domain} once, then overwritten by an unsigned push"
            return JudgedTag(tag, Verdict.MISMATCHED, name_cosign(tag, Verdict.MISMATCHED, reason), trust)
    first = tag.trust[0]
    if first.hash_mismatch:
        reason = f"not signed under {first.domain}; the registry contradicts itself (hashMismatch without inNotary)"
    else:
        reason = "not signed under " + ", ".join(trust.domain for trust in tag.trust)
    return JudgedTag(tag, Verdict.UNSIGNED, name_cosign(tag, Verdict.UNSIGNED, reason), first)


def name_cosign(tag: Tag, verdict: Verdict, reason: str) -> str:
    """Give the reason of a finding, which names Cosign and the remedies where the registry says that Cosign signed the tag.

    The registry reports that a Cosign signature is there. It does not verify it, and the rule's check does not ask for it.
    """
    if not tag.cosign_signed:
        return reason
    if verdict is Verdict.UNSIGNED:
        return f"signed with Cosign only; the rule's check asks for Docker Content Trust ({reason}). {COSIGN_REMEDY}"
    return f"{reason}; signed with Cosign, as the registry says, but the rule's check asks for Docker Content Trust"


def judge_together(tags: Mapping[str, Tag], looked_into: Mapping[str, str]) -> tuple[JudgedTag, ...]:
    """Judge the tags of one repository, by name.

    `looked_into` are those that are named like signatures: with why each is judged as an image, or '' if its content shows that it
    is none.
    """
    if not looked_into:
        return tuple(map(judge, tags.values()))
    return tuple(judge(tag, artifact=looked_into.get(name) == "") for name, tag in tags.items())


def explain_image(judged: JudgedTag, why: str) -> JudgedTag:
    """Add to a verdict why a tag is judged as an image although it is named like a signature; to be done once all is judged."""
    if judged.verdict in {None, Verdict.SIGNED} or not why:
        return judged
    return judged._replace(reason=f"{judged.reason}; named like a signature, and judged as an image: {why}")


def _unread_flags(trust: TrustFlags) -> str:
    missing = []
    if trust.in_notary is None:
        missing.append("inNotary is missing or not a boolean")
    if trust.hash_mismatch is None:
        missing.append("hashMismatch is missing or not a boolean")
    return ", ".join(missing)


def decide(tags: TagCounts, *, complete: bool, scope: Scope) -> Status:
    """Answer the rule for a run.

    A finding is a finding however little was read; a pass needs every tag of the whole registry.
    """
    if tags.failed:
        return Status.OPEN
    if not complete or tags.unknown or scope is not Scope.FULL:
        return Status.NOT_REVIEWED
    return Status.NOT_A_FINDING


def fix_commands(finding: Finding, domain: str) -> tuple[str, ...]:
    """Fill the rule's Fix Text in for one finding: lines for a POSIX shell, every outside text quoted.

    They sign the very digest that the finding names. UCP_USER is the signer's name in UCP; cert.pem and key.pem come with
    the signer's UCP client bundle. What is not known to be a single image is signed where it lies, all platforms of it, by the
    vendor's Notary client in the Fix Text's place.
    """
    name = f"{domain}/{finding.repository}"
    image = shlex.quote(f"{name}:{finding.tag}")
    lines = [
        f"docker login {shlex.quote(domain)}",
        f'docker trust signer add --key cert.pem "$UCP_USER" {shlex.quote(name)}',
        "docker trust key load key.pem",
    ]
    if finding.media_type not in _SINGLE_IMAGES:
        return (*lines, *_sign_in_place(finding, domain, name))
    if finding.digest:
        source = shlex.quote(f"{name}@{finding.digest}")
        lines += [f"DOCKER_CONTENT_TRUST=0 docker pull {source}", f"docker tag {source} {image}"]
    else:
        lines += [f"DOCKER_CONTENT_TRUST=0 docker pull {image}"]
    return (*lines, "export DOCKER_CONTENT_TRUST=1", f"docker push {image}")


def _sign_in_place(finding: Finding, domain: str, name: str) -> tuple[str, ...]:
    source = f"{name}@{finding.digest}" if finding.digest else f"{name}:{finding.tag}"
    image = f"{shlex.quote(name)} {shlex.quote(finding.tag)}"
    roles = '-r targets/releases -r "targets/$UCP_USER"'
    algorithm, _, digest = finding.digest.partition(":")
    # skopeo takes whatever it is sent: where the digest is known it is given, and only the size is measured.
    if algorithm == "sha256":
        sign = f"addhash -p {roles} --sha256 {shlex.quote(digest)} {image} $(wc -c < manifest.json)"
    else:
        sign = f"add -p {roles} {image} manifest.json"
    return (
        "# Of an image for several platforms docker would push only one. So it is signed as it lies there, with",
        "# skopeo and the notary client, which wants --tlscacert ca.pem if the authority is a private one.",
        f"skopeo inspect --raw {shlex.quote(f'docker://{source}')} > manifest.json &&",
        f"notary -s {shlex.quote(f'https://{domain}')} -d ~/.docker/trust {sign}",
    )
