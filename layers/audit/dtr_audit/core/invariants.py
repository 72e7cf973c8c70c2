"""What holds for the record of every run. A record that breaks one of these is no answer to the rule."""

from collections.abc import Iterator
from dataclasses import fields

from dtr_audit.core.counts import FindingCounts, RepositoryCounts, TagCounts, TrustCounts
from dtr_audit.core.run_record import Run, Scope, Status
from dtr_audit.core.run_state import UNREADABLE_KEPT


def find_contradictions(run: Run, *, access_verified: bool) -> tuple[str, ...]:
    """Name what in a record contradicts itself; `proven` is that admin access was verified before and after all reading.

    `tags.audited` and `complete` are computed from what they sum up, so these cannot disagree with it.
    """
    negative = tuple(_find_negative_counts(run))
    # Below a sum of wrong numbers nothing more can be said.
    return negative or tuple(
        text for holds, text in _list_invariants(run, access_verified=access_verified) if not holds
    )


def _find_negative_counts(run: Run) -> Iterator[str]:
    counts: dict[str, RepositoryCounts | TagCounts | FindingCounts | TrustCounts | None] = {
        "repositories": run.repositories,
        "tags": run.tags,
        "findings": run.findings,
        "trust": run.trust,
    }
    for name, counted in counts.items():
        for one in fields(counted) if counted is not None else ():
            value = getattr(counted, one.name)
            if one.type is int and (type(value) is not int or value < 0):
                yield f"{name}.{one.name} is not a whole number from 0"


def _list_invariants(run: Run, *, access_verified: bool) -> Iterator[tuple[bool, str]]:
    """Yield each invariant: whether it holds, and what a record that breaks it says."""
    repositories, tags, findings = run.repositories, run.tags, run.findings
    is_full = run.scope is Scope.FULL
    read = repositories.audited + repositories.unreadable
    # -- counts against counts
    yield read + repositories.removed <= repositories.listed, "more repositories were audited than were listed"
    yield tags.audited + tags.artifacts == 0 or read > 0, "there are tags, and no repository was read"
    yield findings.opened <= findings.open, "more findings were opened than are open"
    yield findings.excepted <= findings.open, "more findings are excepted than are open"
    yield findings.excepted == 0 or run.exceptions.active > 0, "findings are excepted, and no exception is active"
    yield tags.failed <= findings.open, "more image tags fail than findings are open"
    yield bool(run.oldest_open) == bool(findings.open), "the oldest open finding and their number do not agree"
    named = min(repositories.unreadable, UNREADABLE_KEPT)
    yield len(run.unreadable) == named, "the unreadable repositories that are named are not as many as were counted"
    yield bool(run.namespaces) != is_full, "the scope and the namespaces do not agree"
    # -- signatures
    yield tags.signed == 0 or bool(run.domains), "tags are signed, and under no domain"
    if run.trust is None:
        yield tags.untrusted == 0, "tags are untrusted, and no signature was verified"
    else:
        yield tags.signed == 0 or run.trust.verified > 0, "tags are signed, and no trust data was verified"
        yield (
            len(run.trust.first_expiring) <= run.trust.expiring,
            "more trust data is named as expiring than was counted",
        )
    # -- coverage
    if run.complete:
        yield repositories.unreadable == 0, "it is complete, and repositories could not be read"
        yield tags.unknown == 0, "it is complete, and the verdict of tags is unknown"
        yield access_verified, "it is complete, and admin access was not verified before and after"
        all_read = repositories.audited + repositories.removed == repositories.listed
        yield all_read, "it is complete, and listed repositories were not audited"
        yield findings.open == tags.failed, "it is complete, and findings are open that no image tag has"
    # -- the answer
    if run.status is Status.OPEN:
        yield findings.open > 0, "the status is OPEN, and nothing is open"
    if run.status is Status.NOT_REVIEWED:
        yield findings.open == 0, "the status is NOT_REVIEWED, and findings are open"
    if run.status is Status.NOT_A_FINDING:
        yield is_full, "the status is NOT_A_FINDING in a partial run"
        yield run.complete, "the status is NOT_A_FINDING, and it is not complete"
        yield findings.open == 0, "the status is NOT_A_FINDING, and findings are open"
        yield tags.signed == tags.audited, "the status is NOT_A_FINDING, and an image tag is not SIGNED"
