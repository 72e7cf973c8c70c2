"""Rule V-235846, and every decision about a tag or a run: pure functions, no I/O.

Source of the rule: DISA, Docker Enterprise 2.x Linux/UNIX STIG, V2R2 (24 Jul 2024), V-235846 / DKER-EE-004260, CAT II.
"""

from collections.abc import Mapping

from dtr_audit.core.counts import TagCounts
from dtr_audit.core.model import JudgedTag, Tag, TrustFlags, Verdict
from dtr_audit.core.run_record import Scope, Status

TITLE = "Only trusted, signed images must be stored in Docker Trusted Registry (DTR) in Docker Enterprise."
SEVERITY = "medium"
UNREAD_FLAGS = "the registry does not say whether it is signed"

OVERWRITTEN = "overwritten by an unsigned push; a likely cause is a client that was upgraded to Docker CLI 29, which does not sign"
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
            reason = f"{UNREAD_FLAGS} ({unread})"
            return JudgedTag(tag, Verdict.UNKNOWN, reason, trust)
    for trust in tag.trust:
        if trust.in_notary:
            reason = f"signed under {trust.domain} once, then {OVERWRITTEN}"
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


def decide(tags: TagCounts, *, open_findings: int, complete: bool, scope: Scope) -> Status:
    """Answer the rule for a run.

    `open_findings` counts the findings that are open in the run's scope: those of the tags that it read, and those of earlier runs
    that it could not prove resolved. One of them is enough for OPEN, however little was read. A pass needs every tag of the whole
    registry.
    """
    if open_findings or tags.failed:
        return Status.OPEN
    if not complete or tags.unknown or scope is not Scope.FULL:
        return Status.NOT_REVIEWED
    return Status.NOT_A_FINDING
