"""A finding as the findings table and JSON documents keep it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dtr_audit.core.finding import ChangeKind, Excepted, Finding, State, Transition
from dtr_audit.core.model import Repository, Verdict


def write_finding(finding: Finding) -> dict[str, Any]:
    """Give a finding's form in the table, and as JSON."""
    fields: dict[str, Any] = {
        "registry": finding.registry,
        "namespace": finding.repository.namespace,
        "repository": finding.repository.name,
        "tag": finding.tag,
        "state": str(finding.state),
        "verdict": str(finding.verdict),
        "reason": finding.reason,
        "digest": finding.digest,
        "author": finding.author,
        "pushed_at": finding.pushed_at,
        "first_seen": finding.first_seen,
        "last_changed": finding.last_changed,
        "changed_in": finding.changed_in,
        "transition": str(finding.transition),
        "resolution": finding.resolution,
        "media_type": finding.media_type,
    }
    if finding.author_name:
        fields["author_name"] = finding.author_name
    if finding.excepted is not None:
        fields["excepted"] = asdict(finding.excepted)
    if finding.notified_expiry:
        fields["told_end"] = finding.notified_expiry
    if finding.is_unheard:
        fields["unheard"] = True
    if finding.pending_notifications:
        fields["unannounced"] = [_to_move(move) for move in finding.pending_notifications]
    return fields


def _to_move(move: Transition) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "news": str(move.change_kind),
        "run_id": move.run_id,
        "first_seen": move.first_seen,
        "resolution": move.resolution,
    }
    if move.excepted is not None:
        fields["excepted"] = asdict(move.excepted)
    if move.is_quiet:
        fields["quiet"] = True
    return fields


def parse_finding(item: Mapping[str, Any]) -> Finding:
    """Read a finding back; raises KeyError, TypeError or ValueError for anything that `write_finding` does not write."""
    return Finding(
        registry=item["registry"],
        repository=Repository(item["namespace"], item["repository"]),
        tag=item["tag"],
        state=State(item["state"]),
        verdict=Verdict(item["verdict"]),
        reason=item["reason"],
        digest=item["digest"],
        author=item["author"],
        pushed_at=item["pushed_at"],
        first_seen=item["first_seen"],
        last_changed=item["last_changed"],
        changed_in=item["changed_in"],
        transition=ChangeKind(item["transition"]),
        resolution=item["resolution"],
        media_type=item.get("media_type", ""),
        author_name=item.get("author_name", ""),
        excepted=_from_excepted(item),
        notified_expiry=item.get("told_end", ""),
        is_unheard=item.get("unheard", False),
        pending_notifications=tuple(
            Transition(
                ChangeKind(move["news"]),
                move["run_id"],
                move["first_seen"],
                move["resolution"],
                excepted=_from_excepted(move),
                is_quiet=move.get("quiet", False),
            )
            for move in item.get("unannounced", ())
        ),
    )


def _from_excepted(item: Mapping[str, Any]) -> Excepted | None:
    return Excepted(**item["excepted"]) if "excepted" in item else None
