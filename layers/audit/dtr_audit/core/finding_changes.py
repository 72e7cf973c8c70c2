"""How a finding moves: opened, changed, resolved, announced. Pure functions; FindingsTable keeps the result."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from dtr_audit.core.exceptions import Exceptions
from dtr_audit.core.finding import ChangeKind, Finding, State, Transition
from dtr_audit.core.model import JudgedTag, Repository, Verdict, iso

SIGNED_SINCE = "signed"
NO_IMAGE = "a signature artifact, not an image"
TAG_REMOVED = "tag removed"
REPOSITORY_REMOVED = "repository removed"


@dataclass(frozen=True, slots=True)
class Moment:
    """When, and in which run, findings move."""

    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier runs have left of a repository: findings by tag, and by domain what is remembered of its trust data."""

    findings: dict[str, Finding]
    trust: dict[str, str]  # JSON


@dataclass(frozen=True, slots=True)
class Moves:
    """What one reading of a repository does to its findings.

    `writes` can be made at once: they open findings, or change open ones. `resolutions` must wait until it is proven that the
    reading saw everything. `standing` are all other findings of the repository, as they are once the writes are made.
    """

    writes: tuple[Finding, ...]
    resolutions: tuple[Finding, ...]
    open_summary: tuple[Finding, ...]


def compare(
    registry: str,
    repository: Repository,
    judged: Iterable[JudgedTag],
    known: Mapping[str, Finding],
    *,
    is_complete: bool,
    moment: Moment,
    exceptions: Exceptions | None = None,
    author_names: Mapping[str, str] | None = None,
) -> Moves:
    """Compare what was read of a repository, each tag once, with what is known of it; `known` is by tag.

    An UNKNOWN tag moves nothing. Tags that are gone resolve their finding only if the repository was read to its end. Without
    `exceptions` nobody knows which there are: none holds, and of none it is known that it has ended.
    """
    writes: list[Finding] = []
    resolutions: list[Finding] = []
    open_summary: list[Finding] = []
    left = dict(known)
    for tag in judged:
        before = left.pop(tag.tag.name, None)
        if tag.is_finding:
            name = author_names.get(tag.tag.author, "") if author_names else ""
            after = _opened(registry, repository, tag, before, moment, author_name=name)
            if exceptions is not None:
                after = _except(after, before, exceptions, moment)
            if after != before:
                writes.append(after)
            open_summary.append(after)
        elif before is not None:
            if before.state is State.OPEN and tag.verdict is not Verdict.UNKNOWN:
                resolutions.append(resolve(before, NO_IMAGE if tag.is_artifact else SIGNED_SINCE, moment))
            else:
                open_summary.append(before)
    for unseen in left.values():
        if unseen.state is State.OPEN and is_complete:
            resolutions.append(resolve(unseen, TAG_REMOVED, moment))
        else:
            open_summary.append(unseen)
    return Moves(tuple(writes), tuple(resolutions), tuple(open_summary))


def _opened(
    registry: str,
    repository: Repository,
    tag: JudgedTag,
    before: Finding | None,
    moment: Moment,
    *,
    author_name: str,
) -> Finding:
    """Give the finding that stands for an unsigned tag; `before` itself where nothing moved."""
    if not author_name and before is not None and before.author == tag.tag.author:
        # Its account was named before, and is not this time.
        author_name = before.author_name
    if tag.verdict is None:
        raise ValueError("a signature artifact is no finding")
    now = iso(moment.at)
    if before is None or before.state is State.RESOLVED:
        return Finding(
            registry=registry,
            repository=repository,
            tag=tag.tag.name,
            state=State.OPEN,
            verdict=tag.verdict,
            reason=tag.reason,
            digest=tag.tag.digest,
            author=tag.tag.author,
            author_name=author_name,
            pushed_at=tag.tag.pushed_at,
            first_seen=now,
            last_changed=now,
            transition=ChangeKind.OPENED,
            changed_in=moment.run_id,
            media_type=tag.tag.media_type,
            pending_notifications=_trim(
                (*_pending_notifications_of(before), Transition(ChangeKind.OPENED, moment.run_id, first_seen=now))
            ),
            is_unheard=True,
        )
    after = replace(
        before,
        verdict=tag.verdict,
        reason=tag.reason,
        digest=tag.tag.digest,
        author=tag.tag.author,
        author_name=author_name,
        pushed_at=tag.tag.pushed_at,
        media_type=tag.tag.media_type,
    )
    if after == before:
        return before
    if after.verdict is before.verdict:
        # Pushed anew and still unsigned: worth keeping, not worth a message a day for a tag like `latest`.
        return replace(after, last_changed=now)
    return replace(
        after,
        last_changed=now,
        transition=ChangeKind.CHANGED,
        changed_in=moment.run_id,
        pending_notifications=_pass(
            before.pending_notifications, Transition(ChangeKind.CHANGED, moment.run_id, before.first_seen)
        ),
    )


def _except(after: Finding, before: Finding | None, exceptions: Exceptions, moment: Moment) -> Finding:
    """Put a finding under the exception that covers it, or take it from under the one that does no more.

    What an exception covers is no news, until a week before its end.
    """
    known = before if before is not None and before.state is State.OPEN else None
    covering = exceptions.of(after.repository, after.tag, after.digest)
    if covering is None:
        if known is None or known.excepted is None:
            return after
        why = exceptions.explain_end(known.excepted)
        move = Transition(ChangeKind.EXPIRED, moment.run_id, after.first_seen, why, excepted=known.excepted)
        after = replace(
            after, excepted=None, notified_expiry="", pending_notifications=_pass(after.pending_notifications, move)
        )
    elif exceptions.ends_soon(covering):
        # What opens now is told as opened.
        if known is not None and known.notified_expiry != covering.ends:
            move = Transition(ChangeKind.EXPIRING, moment.run_id, after.first_seen, excepted=covering)
            after = replace(after, pending_notifications=_pass(after.pending_notifications, move))
        after = replace(after, excepted=covering, notified_expiry=covering.ends)
    else:
        pending_notifications = _pending_notifications_of(before) if known is None else known.pending_notifications
        after = replace(after, excepted=covering, notified_expiry="", pending_notifications=pending_notifications)
    return after if after == known else replace(after, last_changed=iso(moment.at))


def resolve(finding: Finding, resolution: str, moment: Moment) -> Finding:
    """Close an open finding; what nobody has heard of closes without a word."""
    move = Transition(ChangeKind.RESOLVED, moment.run_id, finding.first_seen, resolution)
    pending = finding.pending_notifications
    if not finding.is_unheard:
        # What happened to it meanwhile is of no use once it is closed.
        pending_notifications = _trim((*(one for one in pending if one.change_kind not in _PASSING), move))
    elif pending and pending[-1].change_kind is not ChangeKind.RESOLVED:
        pending_notifications = _trim((*pending, move))
    else:
        pending_notifications = (*pending, replace(move, is_quiet=True))
    return replace(
        finding,
        state=State.RESOLVED,
        resolution=resolution,
        last_changed=iso(moment.at),
        transition=ChangeKind.RESOLVED,
        changed_in=moment.run_id,
        pending_notifications=pending_notifications,
        excepted=None,
        notified_expiry="",
        is_unheard=False,
    )


# What subscribers are told adds up: a finding is first heard of as OPENED, EXPIRING or EXPIRED (or, while the exceptions cannot
# be read, as CHANGED), and after that once as RESOLVED. `is_unheard` tells whether they have heard of it in this life.
_PASSING = frozenset({ChangeKind.CHANGED, ChangeKind.EXPIRING, ChangeKind.EXPIRED})


def _pending_notifications_of(before: Finding | None) -> tuple[Transition, ...]:
    """Give what is still to be told of the finding that was."""
    return tuple(move for move in before.pending_notifications if not move.is_quiet) if before else ()


def _pass(pending: tuple[Transition, ...], move: Transition) -> tuple[Transition, ...]:
    """Add what happened to an open finding: only the last of it is told, and of its exception rather than of its verdict."""
    if not pending or pending[-1].change_kind is ChangeKind.RESOLVED:
        return _trim((*pending, move))
    last = pending[-1].change_kind
    # What is to be told as opened is told as it is now anyway.
    is_reported_so = last is ChangeKind.OPENED or (
        move.change_kind is ChangeKind.CHANGED and last is not ChangeKind.CHANGED
    )
    return pending if is_reported_so else (*pending[:-1], move)


def _trim(moves: tuple[Transition, ...]) -> tuple[Transition, ...]:
    """Shorten there and back again before anyone heard of it: the first move says it all.

    It may have been told already, by a run that died before it could note so, and is told again under its own id.
    """
    return moves if len(moves) < 3 else moves[:1]
