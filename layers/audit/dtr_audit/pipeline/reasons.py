"""Why a run is not complete, and what a reader of it must look at, in words."""

from dataclasses import replace

from aws_lambda_powertools import Logger

from dtr_audit.core.invariants import find_contradictions
from dtr_audit.core.rule import UNREAD_FLAGS
from dtr_audit.core.run_record import (
    OtherHosts,
    PreviousRun,
    Run,
    Status,
)
from dtr_audit.core.run_state import RunState
from dtr_audit.core.text import clean
from dtr_audit.pipeline.scan import REASON_LENGTH
from dtr_audit.settings import Settings

logger = Logger(service="dtr-signature-audit", child=True)

UNREADABLE_NAMED = 5
CONTRADICTION = "internal error: the record of this run contradicts itself"
CONTRADICTIONS_NAMED = 5


def explain(run_state: RunState, settings: Settings, hint: str) -> None:
    """Put what stands in the way of an answer into words."""
    unreadable = run_state.repositories.unreadable
    if unreadable:
        named = "; ".join(f"{name} ({reason})" for name, reason in run_state.unreadable[:UNREADABLE_NAMED])
        noun = "repository" if unreadable == 1 else "repositories"
        first = ", the first of them" if unreadable > UNREADABLE_NAMED else ""
        run_state.note_incomplete(f"{unreadable} {noun} could not be read to the end{first}: {named}")
    if run_state.tags.unknown:
        noun = "tag" if run_state.tags.unknown == 1 else "tags"
        first = ": ".join(run_state.first_unknown)
        run_state.note_incomplete(
            f"of {run_state.tags.unknown} {noun} it is not known whether they are signed, the first of them {first}"
            if run_state.is_trust_verified or UNREAD_FLAGS not in run_state.first_unknown[1]
            else f"of {run_state.tags.unknown} {noun} the registry does not say whether they are signed (inNotary, hashMismatch); "
            "is its version older than the rule's, or does something on the way change its answers?"
        )
    # Where Cosign signs most of them, the domain is not what is wrong.
    if run_state.is_all_unsigned and not run_state.tags.is_cosign_used:
        run_state.warnings.append(
            f"every single tag looks unsigned under {', '.join(run_state.domains)}: see first whether that is the very host "
            "that images are pushed to (`docker push <host>/…`), and set DTR_DOMAINS if it is not"
            + (clean(f". The changefeed says: {hint}", REASON_LENGTH) if hint else "")
        )
    if run_state.other_hosts:
        run_state.warnings.append(count_other_hosts(run_state).formatted)
    if settings.pin_trust and run_state.trust.first_use:
        run_state.warnings.append(
            f"{run_state.trust.first_use} roots are covered by no pin and were trusted on first use. See whether the patterns in "
            "policy/trust-pins.json name the repositories as images are pushed; `*` covers all"
        )
    if run_state.trust.expiring:
        run_state.warnings.append(run_state.trust.formatted_expiring)


def compare_sizes(run_state: RunState, settings: Settings, previous: PreviousRun) -> None:
    """Warn of a registry that has shrunk: then rather the account lost its view than the registry its images."""
    left = previous.percent_left(run_state.repositories.audited, run_state.tags.audited)
    if left <= 100 - settings.shrink_percent:
        run_state.warnings.append(
            f"the registry has shrunk: {run_state.repositories.audited} repositories with {run_state.tags.audited} "
            "image tags, against "
            f"{previous.repositories} with {previous.tags} in run {previous.run_id}. If nobody removed that much, see whether "
            "the account still sees everything, and whether DTR_URL still leads to the same registry"
        )


def count_other_hosts(run_state: RunState) -> OtherHosts:
    """Give the repositories with trust data under another host, as the record has them."""
    return OtherHosts(run_state.other_hosts, tuple(run_state.first_other_hosts))


def deny_contradictions(run: Run, *, access_verified: bool) -> Run:
    """Give the run as it is recorded: one that contradicts itself is NOT_REVIEWED and says why."""
    contradictions = find_contradictions(run, access_verified=access_verified)
    if not contradictions:
        return run
    logger.error("internal error: the run's record contradicts itself", contradictions=contradictions)
    reason = (
        f"{CONTRADICTION}: {'; '.join(contradictions[:CONTRADICTIONS_NAMED])}. So it answers nothing. Start the audit again; if it "
        "says so again, report it as an error of the audit, with its log"
    )
    return replace(run, status=Status.NOT_REVIEWED, incomplete_because=(*run.incomplete_because, reason))
