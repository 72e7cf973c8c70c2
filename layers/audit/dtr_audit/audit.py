"""The audit: `inventory()` -> `examine()` -> `report()`, and `audit()` that makes one run of the three.

inventory() lists the repositories; examine() reads and judges them in parallel, archives every tag and opens findings; report()
proves that the reading saw everything, and only then resolves, records and announces.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from aws_lambda_powertools import Logger

from .alerts import Alerts, Places, Standing
from .archive import Archive
from .batches import FindingBatches
from .clients import AwsClients
from .credentials import SecretsManagerCredentials
from .dtr import DtrClient, Listing, choose_domains
from .errors import AuditError, EvidenceError, ExceptionsError, OutOfTimeError, SettingsError
from .examination import REASON_LENGTH, Examined, answer_in_time, examine, read_repository
from .exceptions import KEY as EXCEPTIONS_KEY
from .exceptions import Exceptions, read_exceptions
from .findings import REPOSITORY_REMOVED, FindingSpool, FindingsTable, Moment, Moves, compare, resolve
from .known import KnownBefore
from .model import (
    BaselineRead,
    Excepted,
    ExceptionsInForce,
    Finding,
    News,
    PreviousRun,
    Repository,
    RepositoryReading,
    Run,
    Scope,
    SecurityHubUpdate,
    State,
    TrustCounts,
    Verdict,
)
from .request import AuditRequest
from .rule import decide
from .runs import RunsTable
from .settings import Settings, TrustVerification
from .tally import Tally
from .text import clean

if TYPE_CHECKING:
    from .evidence.baseline import Baseline
    from .notary.client import NotaryClient
    from .notary.policy import Pin
    from .trust import TrustVerifier

REPORT_SECONDS = 120.0  # kept back at the end, to write down and announce what was found
REPORT_SHARE = 0.25  # of the whole time, at most
LAST_SECONDS = 5.0  # of those, to put down that all is said
SIGNING_SECONDS = 10.0  # of those, or half of what is left of them, to have the manifest signed
LEASE_GRACE_SECONDS = 15.0  # past the moment at which this invocation is ended from outside
PROGRESS_SECONDS = 10.0
SECURITY_HUB_SHARE = 0.5  # of the time that is left when it is told
UNREADABLE_KEPT = 100
UNREADABLE_NAMED = 5
ENDED_NAMED = 10
TREND_RUNS = 60  # of the whole registry, in the evidence
AUDITOR = "DTR Signature Audit, as an administrator of the registry (proven before and after the reading)"
AUDITOR_UNPROVEN = "DTR Signature Audit, with an account that was not proven to be an administrator's"

logger = Logger(service="dtr-signature-audit", child=True)

_T = TypeVar("_T")


def audit(
    settings: Settings,
    request: AuditRequest,
    clients: AwsClients,
    *,
    owner: str,
    seconds: float,
    now: Callable[[], datetime],
) -> Run | None:
    """Make one run and give its record; None if this very run was finished before, by an earlier delivery of its event.

    `owner` is the invocation, the same when it is retried; `seconds` is the time until it is ended from outside. A registry that
    cannot be read makes a run that is not complete, never an exception; AWS failing is one, so that the invocation is retried.
    Raises LeaseHeldError while another run of the registry is under way.
    """
    ends_at = time.monotonic() + seconds
    runs = RunsTable(clients.dynamodb, settings.runs_table, settings.registry)
    if runs.is_finished(request.run_id):
        return None
    attempt = uuid.uuid4().hex
    is_retry = runs.take_lease(owner, attempt, request.run_id, now=now(), seconds=seconds + LEASE_GRACE_SECONDS)
    one = _OneRun(
        settings,
        request,
        clients,
        runs,
        attempt=attempt,
        is_retry=is_retry,
        now=now,
        stop_at=ends_at - min(REPORT_SECONDS, seconds * REPORT_SHARE),
        ends_at=ends_at - LAST_SECONDS,
    )
    try:
        run = one.make()
    finally:
        one.close()
    # Not after a crash: the lease then keeps others away until whatever is left of this invocation is dead for certain.
    runs.release_lease(attempt)
    return run


def inventory(registry: DtrClient, request: AuditRequest, tally: Tally) -> Iterator[Repository]:
    """List the repositories in scope, as their pages arrive."""
    for repository in registry.repositories(tally.listing):
        if request.covers(repository):
            tally.repositories.listed += 1
            tally.namespaces.add(repository.namespace)
            tally.is_examined[repository] = False
            yield repository


class _OneRun:
    """The state of one run; all it writes is keyed by the run id, so that a second attempt replaces the first."""

    def __init__(
        self,
        settings: Settings,
        request: AuditRequest,
        clients: AwsClients,
        runs: RunsTable,
        *,
        attempt: str,
        is_retry: bool,
        now: Callable[[], datetime],
        stop_at: float,
        ends_at: float,
    ) -> None:
        self._attempt = attempt
        self._is_retry = is_retry
        self._ends_at = ends_at
        self._settings = settings
        self._request = request
        self._clients = clients
        self._runs = runs
        self._now = now
        self._stop_at = stop_at
        self._started_at = now()
        self._moment = Moment(request.run_id, self._started_at)
        self._findings = FindingsTable(
            clients.dynamodb, settings.findings_table, settings.registry, resolved_days=settings.days_resolved_are_kept
        )
        self._archive = Archive(
            clients.s3,
            settings.bucket,
            settings.registry,
            request.run_id,
            request.date,
            confirm=self._confirm_rows,
        )
        self._batches = FindingBatches(self._findings)
        self._known: KnownBefore | None = None  # None: each repository is asked for
        self._tally = Tally()
        self._exceptions: Exceptions | None = None  # not known, so none holds
        self._exceptions_problem = ""
        self._resolutions = FindingSpool()
        # What only a run needs is loaded by the first run, not by the start: likewise below.
        from .evidence.gathering import Gathering  # noqa: PLC0415

        self._gathering = Gathering(request.run_id)
        self._credentials = SecretsManagerCredentials(settings.secret_arn, clients.secrets)
        self._registry: DtrClient | None = None
        self._notary: NotaryClient | None = None
        self._verifier: TrustVerifier | None = None  # None: the registry's word is taken
        self._told_at = time.monotonic()

    def close(self) -> None:
        """Let go of connections and files."""
        self._batches.close()
        self._resolutions.close()
        if self._known is not None:
            self._known.close()
        if self._registry is not None:
            self._registry.close()
        if self._notary is not None:
            self._notary.close()

    def make(self) -> Run:
        """Make the run."""
        logger.info("audit started", run_id=self._request.run_id, scope=str(self._request.scope))
        self._archive.begin()
        self._read_exceptions()
        try:
            registry = self._connect()
        except AuditError as error:
            self._incomplete(str(error))
            return self._report(proven=False)
        if self._request.scope is Scope.FULL:
            self._known = KnownBefore(self._findings, with_trust=self._verifier is not None)
        self._examine_all(registry)
        proven = self._prove(registry)
        if self._request.scope is Scope.FULL:
            self._look_around(registry)
        return self._report(proven=proven)

    def _confirm_rows(self) -> None:
        """See that findings are in the table before anything that tells of them, and that the lease is still this attempt's."""
        self._batches.flush()
        self._runs.confirm_lease(self._attempt)

    def _read_exceptions(self) -> None:
        """See what is excepted. Nothing is by a document that cannot be read or is broken; the run goes on."""
        day = self._started_at.astimezone(UTC).date()
        try:
            exceptions = read_exceptions(self._clients.s3, self._settings.bucket, day=day)
        except ExceptionsError as error:
            logger.warning("nothing is excepted", reason=str(error), exc_info=error.__cause__)
            self._exceptions_problem = clean(str(error), 4 * REASON_LENGTH)
            self._tally.warnings.append(
                f"nothing is excepted, since of the exceptions nobody knows: {self._exceptions_problem}"
            )
            return
        self._exceptions = exceptions
        if exceptions.ended:
            named = ", ".join(f"{one.exception_id} ({one.ends})" for one in exceptions.ended[:ENDED_NAMED])
            more = f" and {len(exceptions.ended) - ENDED_NAMED} more" if len(exceptions.ended) > ENDED_NAMED else ""
            have = "exception has" if len(exceptions.ended) == 1 else "exceptions have"
            self._tally.warnings.append(
                f"{len(exceptions.ended)} {have} ended, and cover nothing any more: {named}{more}. Take them out of "
                f"{EXCEPTIONS_KEY}, or have a new end agreed"
            )

    def _connect(self) -> DtrClient:
        settings = self._settings
        registry = DtrClient(
            settings.dtr_url,
            self._credentials,
            x509_strict=settings.x509_strict,
            concurrency=settings.concurrency,
            page_size=settings.page_size,
            stop_at=self._stop_at,
        )
        self._registry = registry
        dtr_host = self._in_time(registry.connect)
        self._tally.domains, warning = choose_domains(settings.domains, dtr_host, settings.dtr_url)
        if warning:
            self._tally.warnings.append(warning)
        if settings.trust is TrustVerification.SIGNATURES:
            self._verifier = self._make_verifier()
        return registry

    def _make_verifier(self) -> "TrustVerifier":
        """Prepare to verify signatures; raises SettingsError for pins that cannot be used, and for domains of unknown origin."""
        from .notary import pins  # noqa: PLC0415
        from .notary.policy import SignersNeeded, TrustPolicy  # noqa: PLC0415
        from .trust import TrustVerifier  # noqa: PLC0415 - and cryptography with it

        settings = self._settings
        own = urlsplit(settings.dtr_url).netloc.lower().removesuffix(":443")
        if not settings.domains and any(one.lower().removesuffix(":443") != own for one in self._tally.domains):
            # What is pinned and remembered hangs on the domain: a registry could choose another one, and begin anew.
            raise SettingsError(
                "DTR_DOMAINS: with TRUST_VERIFICATION signatures, name the domains that images are pushed under. The registry "
                f"calls itself {', '.join(clean(one, 64) for one in self._tally.domains)}, and its word for that is not taken"
            )
        pinned: tuple[Pin, ...] = ()
        if settings.pin_trust:
            try:
                document = self._archive.read(pins.KEY, limit=pins.DOCUMENT_BYTES).content
            except EvidenceError as error:
                raise SettingsError(f"{pins.KEY}, by which roots are to be pinned: {error}") from error
            pinned = pins.parse_pins(document)
        self._tally.trust = TrustCounts(
            settings.required_signers,
            all_signers=settings.all_signers,
            repository_key_suffices=settings.repository_key_suffices,
            pinned=settings.pin_trust,
        )
        policy = TrustPolicy(
            required_signers=settings.required_signers,
            signers_needed=SignersNeeded.ALL if settings.all_signers else SignersNeeded.ANY,
            targets_key_suffices=settings.repository_key_suffices,
            pins=pinned,
            warning_days=settings.trust_warning_days,
        )
        return TrustVerifier(self._ask_notary(), policy, at=self._started_at)

    def _ask_notary(self) -> "NotaryClient":
        """Give the client of the registry's Notary, made when it is first needed; raises SettingsError."""
        from .notary.client import NotaryClient  # noqa: PLC0415

        settings = self._settings
        if self._notary is None:
            self._notary = NotaryClient(
                settings.dtr_url,
                self._credentials,
                x509_strict=settings.x509_strict,
                concurrency=settings.concurrency,
                stop_at=self._stop_at,
                # For a hint alone they are sent to nobody else.
                token_hosts=settings.domains if settings.trust is TrustVerification.SIGNATURES else (),
            )
        return self._notary

    def _examine_all(self, registry: DtrClient) -> None:
        tally = self._tally
        gone: dict[Repository, str] = {}
        try:
            for examined in self._examine(registry, inventory(registry, self._request, tally)):
                if examined.reading.gone:
                    gone[examined.reading.repository] = examined.reading.problem
                else:
                    self._take(examined)
            if gone:
                self._settle_gone(registry, gone)
        except OutOfTimeError:
            read = tally.repositories
            self._incomplete(
                f"it was stopped before the time limit of the function: {read.audited} repositories had been read to their end, of "
                f"{read.listed} listed until then. Raise the time limit of the function, or CONCURRENCY"
            )
        if tally.listing.problem:
            self._incomplete(tally.listing.problem)
        if tally.listing.ghosts:
            noun = "repository" if tally.listing.ghosts == 1 else "repositories"
            tally.warnings.append(
                f"the registry lists {tally.listing.ghosts} {noun} without a name, which cannot be asked for and was passed over"
            )
        missing = sorted(set(self._request.namespaces) - tally.namespaces)
        if missing and not tally.listing.problem:
            self._incomplete(f"no repository is listed in the namespaces asked for: {', '.join(missing[:20])}")

    def _examine(self, registry: DtrClient, repositories: Iterator[Repository]) -> Iterator[Examined]:
        def examine_one(repository: Repository) -> Examined:
            known = (self._known or self._findings).known_of(repository)
            reading = read_repository(registry, repository, self._tally.domains, self._verifier, known.trust)
            if reading.gone:
                return Examined(reading, Moves((), (), ()))
            moves = compare(
                self._settings.registry,
                repository,
                reading.tags,
                known.findings,
                is_complete=reading.is_complete,
                moment=self._moment,
                exceptions=self._exceptions,
            )
            return Examined(reading, moves)

        return examine(repositories, examine_one, concurrency=self._settings.concurrency, stop_at=self._stop_at)

    def _take(self, examined: Examined) -> None:
        """Write down and count one repository."""
        tally, reading, moves = self._tally, examined.reading, examined.moves
        repository = reading.repository
        tally.is_examined[repository] = True
        self._batches.write(moves.writes)
        if moves.writes and any(seen.memory for seen in reading.trust):
            # What is remembered of trust data is never ahead of the findings that came of it.
            self._batches.flush()
        self._archive.add(repository, reading.tags, self._excepted_in(reading), audited_at=self._now())
        for judged in reading.tags:
            tally.tags.count(judged)
            if judged.verdict is Verdict.UNKNOWN and not tally.first_unknown:
                tally.first_unknown = f"{repository}:{judged.tag.name}: {judged.reason}"
        self._take_trust(reading)
        if reading.is_complete:
            tally.repositories.audited += 1
        else:
            self._unreadable(repository, reading.problem)
        for finding in moves.standing:
            tally.holding_news += bool(finding.unannounced)
            if finding.changed_in == self._moment.run_id:
                # Moved by this run, be it in an earlier attempt.
                tally.findings.opened += finding.transition is News.OPENED
                tally.findings.resolved += finding.transition is News.RESOLVED
            self._count(finding)
        for finding in moves.resolutions:
            self._resolutions.add(finding)
        self._tell_progress(repository)

    def _take_trust(self, reading: RepositoryReading) -> None:
        """Keep what is to be remembered of a repository's trust data, and count what came of it."""
        if not reading.trust:
            return
        memories = {seen.domain: seen.memory for seen in reading.trust if seen.memory}
        self._findings.remember_trust(reading.repository, memories)
        for seen in reading.trust:
            self._tally.trust.count(reading.repository, seen)
            if seen.notes:
                logger.info("trust data", repository=str(reading.repository), domain=seen.domain, notes=seen.notes)

    def _excepted_in(self, reading: RepositoryReading) -> dict[str, Excepted]:
        """Give the findings of a repository that are under an exception, by tag."""
        if self._exceptions is None:
            return {}
        found = (
            (judged.tag.name, self._exceptions.of(reading.repository, judged.tag.name, judged.tag.digest))
            for judged in reading.tags
            if judged.is_finding
        )
        return {tag: excepted for tag, excepted in found if excepted is not None}

    def _count(self, finding: Finding) -> None:
        """Count a finding as it stands after the run, and tell it to the evidence.

        Whether it is excepted says the document of this run, though the tag may have been out of sight.
        """
        excepted = None
        if finding.state is State.OPEN:
            if self._exceptions is not None:
                excepted = self._exceptions.of(finding.repository, finding.tag, finding.digest)
            self._tally.count_open(finding, excepted)
        self._gathering.add(finding, excepted)

    def _settle_gone(self, registry: DtrClient, gone: dict[Repository, str]) -> None:
        """Tell repositories that were deleted meanwhile from those that are listed and yet answer 404."""
        again = Listing()
        still = self._in_time(lambda: {one for one in registry.repositories(again) if one in gone})
        unseen = again.problem or ("repositories without a name are listed, and it may be one" if again.ghosts else "")
        if unseen:
            for repository, problem in gone.items():
                self._unreadable(repository, f"{problem}; whether it still exists could not be seen: {unseen}")
            return
        for repository in gone.keys() - still:
            self._tally.repositories.removed += 1
            del self._tally.is_examined[repository]
        for examined in self._examine(registry, iter(sorted(still))):
            if examined.reading.gone:
                repository = examined.reading.repository
                self._unreadable(
                    repository, f"{examined.reading.problem}; yet it is listed, so this account may not read it"
                )
            else:
                self._take(examined)

    def _prove(self, registry: DtrClient) -> bool:
        try:
            self._in_time(registry.prove_admin)
        except AuditError as error:
            self._incomplete(f"that the account is an administrator could not be proven at the end: {error}")
            return False
        return True

    def _look_around(self, registry: DtrClient) -> None:
        """See what stands beside the rule. It decides nothing, takes half a minute at most, and cannot fail."""
        from .surroundings import look_around  # noqa: PLC0415

        settings = self._settings
        seen = look_around(
            registry,
            self._credentials,
            ucp_url=settings.ucp_url,
            x509_strict=settings.x509_strict,
            stop_at=self._stop_at,
        )
        self._tally.facts = seen.facts
        if seen.warning:
            self._tally.warnings.append(seen.warning)

    def _report(self, *, proven: bool) -> Run:
        """Close the run: resolve what is proven, record, announce."""
        tally = self._tally
        # Asked here too: a run without a single row has nothing to close.
        self._confirm_rows()
        self._archive.close()
        self._resolve(proven=proven)
        self._explain()
        complete = not tally.incomplete_because
        is_full = self._request.scope is Scope.FULL
        previous = self._runs.last_complete(before=self._request.run_id) if is_full else None
        if complete and previous is not None:
            self._compare(previous)
        security_hub = self._tell_security_hub()
        # Before the run is closed: what is wrong with it stands in the record and in the evidence.
        baseline_read, baseline = self._read_baseline() if is_full else (None, None)
        run = Run(
            registry=self._settings.registry,
            run_id=self._request.run_id,
            scope=self._request.scope,
            namespaces=self._request.namespaces,
            status=decide(tally.tags, complete=complete, scope=self._request.scope),
            incomplete_because=tuple(tally.incomplete_because),
            warnings=tuple(tally.warnings),
            domains=tally.domains,
            started_at=self._started_at,
            finished_at=self._now(),
            repositories=tally.repositories,
            tags=tally.tags,
            findings=tally.findings,
            unreadable=tuple(tally.unreadable),
            oldest_open=tally.oldest,
            previous=previous,
            facts=tally.facts,
            baseline=baseline_read,
            exceptions=self._exceptions_in_force(is_whole=complete and is_full),
            security_hub=security_hub,
            trust=tally.trust if self._verifier is not None else None,
        )
        if is_full:
            run = self._write_evidence(run, baseline, proven=proven)
        places = Places(
            rows=self._archive.rows_url,
            record=self._archive.record_url,
            report=self._archive.url(run.evidence["report"]) if "report" in run.evidence else "",
        )
        run = self._seal(run)
        self._runs.record(run, rows=places.rows, record=places.record)
        if self._request.alerts:
            self._runs.confirm_lease(self._attempt)
            self._announce(run, places)
        self._runs.confirm_lease(self._attempt)
        self._runs.finish(run.run_id, now=self._now())
        logger.info("audit finished", status=str(run.status), complete=run.complete, tags=run.tags.as_dict())
        return run

    def _exceptions_in_force(self, *, is_whole: bool) -> ExceptionsInForce:
        """Sum up the document; which exceptions cover nothing is known once everything was seen."""
        exceptions = self._exceptions
        if exceptions is None:
            return ExceptionsInForce(problem=self._exceptions_problem)
        unmatched = [one.exception_id for one in exceptions.holding if one.exception_id not in self._tally.matched]
        if unmatched and is_whole:
            # No warning: an image that was signed at last, or is still to come, is nobody's fault.
            logger.info(
                "exceptions that cover no finding", extra={"count": len(unmatched), "first": unmatched[:ENDED_NAMED]}
            )
        return ExceptionsInForce(
            version_id=exceptions.version_id,
            holding=len(exceptions.holding),
            ended=len(exceptions.ended),
            unmatched=len(unmatched) if is_whole else None,
        )

    def _resolve(self, *, proven: bool) -> None:
        """Close what is signed or gone, if it is proven that the reading saw everything that there is."""
        tally = self._tally
        if self._is_retry:
            self._count_closed_before()
        if proven:
            self._close(self._resolutions)
        else:
            for finding in self._resolutions:
                self._count(replace(finding, state=State.OPEN))
        # Behind a name that is missing any repository may hide.
        all_listed = proven and not tally.listing.problem and not tally.listing.ghosts
        removed: set[Repository] = set()
        hidden = ""
        for finding in self._findings.open():
            repository = finding.repository
            if tally.is_examined.get(repository) or repository in removed:
                continue
            if all_listed and repository not in tally.is_examined and self._request.covers(repository):
                removed.add(repository)
                # The index may lag behind; the table itself does not.
                known = self._findings.of_repository(repository).values()
                self._close(
                    [resolve(one, REPOSITORY_REMOVED, self._moment) for one in known if one.state is State.OPEN]
                )
            else:
                self._count(finding)
                may_hide = tally.listing.ghosts and repository not in tally.is_examined
                if may_hide and self._request.covers(repository) and not hidden:
                    hidden = str(repository)
        if self._is_retry:
            # What has been announced in the meantime is in no index any more.
            tally.findings.resolved = max(tally.findings.resolved, self._runs.resolved_by(self._request.run_id))
        if hidden:
            noun = "repository" if tally.listing.ghosts == 1 else "repositories"
            self._incomplete(
                f"the registry lists {tally.listing.ghosts} {noun} without a name, and {hidden}, which has open findings, "
                "not at all: it may be one of them. Look for it in the registry's own console"
            )

    def _close(self, resolved: FindingSpool | list[Finding]) -> None:
        """Write findings as resolved, and count them."""
        self._batches.write(resolved)
        self._batches.flush()
        self._tally.findings.resolved += len(resolved)
        self._tally.holding_news += len(resolved)
        for finding in resolved:
            self._count(finding)

    def _count_closed_before(self) -> None:
        """Count what an earlier attempt at this run closed in repositories that this one did not see."""
        tally = self._tally
        for finding in self._findings.unannounced():
            is_closed = finding.transition is News.RESOLVED and finding.changed_in == self._moment.run_id
            if is_closed and not tally.is_examined.get(finding.repository):
                tally.findings.resolved += 1
                tally.holding_news += 1
                self._count(finding)

    def _explain(self) -> None:
        """Put what stands in the way of an answer into words."""
        tally = self._tally
        unreadable = tally.repositories.unreadable
        if unreadable:
            named = "; ".join(f"{name} ({reason})" for name, reason in tally.unreadable[:UNREADABLE_NAMED])
            noun = "repository" if unreadable == 1 else "repositories"
            first = ", the first of them" if unreadable > UNREADABLE_NAMED else ""
            self._incomplete(f"{unreadable} {noun} could not be read to the end{first}: {named}")
        if tally.tags.unknown:
            noun = "tag" if tally.tags.unknown == 1 else "tags"
            self._incomplete(
                f"of {tally.tags.unknown} {noun} it is not known whether they are signed, the first of them {tally.first_unknown}"
                if self._verifier is not None
                else f"of {tally.tags.unknown} {noun} the registry does not say whether they are signed (inNotary, hashMismatch); "
                "is its version older than the rule's, or does something on the way change its answers?"
            )
        if tally.tags.audited and tally.tags.unsigned == tally.tags.audited:
            tally.warnings.append(
                f"every single tag looks unsigned under {', '.join(tally.domains)}: see first whether that is the very host "
                "that images are pushed to (`docker push <host>/…`), and set DTR_DOMAINS if it is not"
                + self._hint_at_domain()
            )
        if self._settings.pin_trust and tally.trust.first_use:
            tally.warnings.append(
                f"{tally.trust.first_use} roots are covered by no pin and were trusted on first use. See whether the patterns in "
                "policy/trust-pins.json are the names that images are pushed under, to the letter; `*` covers all"
            )
        if tally.trust.expiring:
            tally.warnings.append(tally.trust.spoken_expiring)

    def _hint_at_domain(self) -> str:
        """Say under which host the Notary does have trust data, if it tells."""
        from .notary.changefeed import read_hosts, suggest_domain  # noqa: PLC0415

        try:
            hosts = self._in_time(lambda: read_hosts(self._ask_notary()))
        except AuditError as error:
            logger.info("the changefeed was not read", because=clean(str(error), REASON_LENGTH))
            return ""
        hint = suggest_domain(hosts, self._tally.domains)
        return clean(f". The changefeed says: {hint}", REASON_LENGTH) if hint else ""

    def _compare(self, previous: PreviousRun) -> None:
        """Warn of a registry that has shrunk: then rather the account lost its view than the registry its images."""
        tally = self._tally
        left = previous.percent_left(tally.repositories.audited, tally.tags.audited)
        if left <= 100 - self._settings.shrink_percent:
            tally.warnings.append(
                f"the registry has shrunk: {tally.repositories.audited} repositories with {tally.tags.audited} image tags, against "
                f"{previous.repositories} with {previous.tags} in run {previous.run_id}. If nobody removed that much, see whether "
                "the account still sees everything, and whether DTR_URL still leads to the same registry"
            )

    def _read_baseline(self) -> "tuple[BaselineRead | None, Baseline | None]":
        """Read the customer's own checklist, if the run's answer is to be put into one. One that is broken costs nothing else."""
        key = self._settings.baseline_key
        if not key:
            return None, None
        from .evidence import baseline  # noqa: PLC0415

        was_read = BaselineRead(key)
        try:
            found = self._archive.read(key, limit=baseline.SIZE_LIMIT)
            is_whole = len(found.content) <= baseline.SIZE_LIMIT
            sha256 = hashlib.sha256(found.content).hexdigest() if is_whole else ""
            was_read = replace(was_read, version_id=found.version_id, sha256=sha256)
            return was_read, baseline.read(found.content, neighbours=self._settings.neighbour_rules)
        except EvidenceError as error:
            problem = clean(str(error), REASON_LENGTH)
            logger.warning("the baseline was not answered", key=key, reason=problem)
            self._tally.warnings.append(f"{self._archive.url(key)}, your own checklist, was not answered: {problem}")
            return replace(was_read, problem=problem), None

    def _tell_security_hub(self) -> SecurityHubUpdate | None:
        """Bring Security Hub up to date, if that is asked for. That it refuses is a warning: the next run makes it good.

        It gets half of the time that is left, so that evidence and alerts go out whatever it does.
        """
        settings, tally = self._settings, self._tally
        if not (settings.security_hub_product and self._request.alerts):
            return None
        from .security_hub import AsffWriter, SecurityHub  # noqa: PLC0415 - and with it the largest of the clients

        self._runs.confirm_lease(self._attempt)
        until = time.monotonic() + (self._ends_at - time.monotonic()) * SECURITY_HUB_SHARE
        client = self._clients.security_hub
        hub = SecurityHub(
            lambda findings: answer_in_time(lambda: client.batch_import_findings(Findings=findings), stop_at=until),
            self._findings,
            AsffWriter(
                settings.security_hub_product,
                settings.stig_release,
                domain=tally.domains[0] if tally.domains else settings.dtr_url.removeprefix("https://"),
                run_id=self._request.run_id,
            ),
            threads=settings.concurrency,
        )
        update = hub.update(now=self._now(), until=until)
        if update.warning:
            tally.warnings.append(update.warning)
            logger.warning("Security Hub is not up to date", extra={"why": update.warning})
        logger.info("Security Hub told", **update.as_dict())
        return update

    def _write_evidence(self, run: Run, baseline: "Baseline | None", *, proven: bool) -> Run:
        """Write what people and their tools read; gives the run with the places of it."""
        from .evidence.formats import FORMATS, write_all  # noqa: PLC0415
        from .evidence.manifest import NAME  # noqa: PLC0415
        from .evidence.report import Asset, Report, TrendPoint  # noqa: PLC0415

        settings, archive = self._settings, self._archive
        prefix = archive.evidence_prefix
        places = {name: f"{prefix}{FORMATS[name].file_name}" for name in settings.evidence_formats}
        if baseline is not None:
            places["merged"] = f"{prefix}{baseline.file_name}"
        run = replace(run, evidence={**places, "manifest": f"{prefix}{NAME}"})
        report = Report(
            run=run,
            asset=Asset(
                host_name=settings.asset_name,
                fqdn=settings.asset_fqdn,
                marking=settings.asset_marking,
                release=settings.stig_release,
            ),
            auditor=AUDITOR if proven else AUDITOR_UNPROVEN,
            findings=self._gathering.findings,
            namespaces=self._gathering.namespaces,
            opened=self._gathering.opened,
            resolved=self._gathering.resolved,
            trend=[TrendPoint.of_record(one) for one in self._runs.earlier(before=run.run_id, most=TREND_RUNS)],
            rows=tuple(archive.files),
            bucket=settings.bucket,
            record_key=archive.record_key,
        )
        for name, written, content in write_all(report, settings.evidence_formats, neighbours=settings.neighbour_rules):
            archive.put_evidence(written.file_name, content, written.content_type)
            logger.debug("evidence written", extra={"format": name, "bytes": len(content)})
        if baseline is not None:
            merged = baseline.merge(report, neighbours=settings.neighbour_rules)
            archive.put_evidence(baseline.file_name, merged, baseline.content_type)
            logger.debug("evidence written", extra={"format": "merged", "bytes": len(merged)})
        return run

    def _seal(self, run: Run) -> Run:
        """Write the record and the manifest, signed if there is a key; gives the run as it was recorded.

        What the record says of the signature must be known before it is written: its sum stands in what is signed.
        """
        archive, key = self._archive, self._settings.signing_key
        if not key:
            archive.put_record(run)
            archive.put_manifest()
            return run
        from .evidence.signature import NAME, Signature, sign  # noqa: PLC0415

        place = {"signature": f"{archive.evidence_prefix}{NAME}"} if run.evidence else {}
        signed = replace(run, evidence={**run.evidence, **place})
        document = archive.draft_manifest(signed)
        seconds = min(SIGNING_SECONDS, (self._ends_at - time.monotonic()) / 2)
        signature: Signature | None = None
        try:
            signature = answer_in_time(
                lambda: sign(document, self._clients.kms, key), stop_at=time.monotonic() + seconds
            )
        except OutOfTimeError:
            problem = "AWS KMS did not answer in time. In subnets without a way to it, it needs an endpoint of its own"
        except EvidenceError as error:
            problem = str(error)
        if signature is None:
            # Told, and no more: the evidence is as good as that of an audit without a key.
            logger.warning("the manifest is not signed", because=problem)
            signed = replace(run, warnings=(*run.warnings, f"the manifest of this run is not signed: {problem}"))
        archive.put_record(signed)
        archive.put_manifest()
        archive.put_signature(signature)
        return signed

    def _announce(self, run: Run, places: Places) -> None:
        settings = self._settings
        alerts = Alerts(
            self._clients.sns,
            settings.topic_arn,
            self._findings,
            self._runs,
            grouping=settings.alert_grouping,
            reminder_days=settings.reminder_days,
            threads=settings.concurrency,
        )
        standing = Standing(self._tally.open_by_namespace, self._tally.oldest, self._tally.excepted_by_namespace)
        messages = alerts.announce(
            run, standing, places, expected=self._tally.holding_news, now=self._now(), until=self._ends_at
        )
        logger.info("alerts published", messages=messages)

    def _in_time(self, ask: Callable[[], _T]) -> _T:
        """Ask the registry something in a thread of its own, so that its answer cannot outlast the time."""
        return answer_in_time(ask, stop_at=self._stop_at)

    def _incomplete(self, reason: str) -> None:
        self._tally.incomplete_because.append(clean(reason, 8 * REASON_LENGTH))

    def _unreadable(self, repository: Repository, reason: str) -> None:
        self._tally.repositories.unreadable += 1
        if len(self._tally.unreadable) < UNREADABLE_KEPT:
            self._tally.unreadable.append((str(repository), clean(reason, REASON_LENGTH)))

    def _tell_progress(self, repository: Repository) -> None:
        tally = self._tally
        progress = {
            "listed": tally.repositories.listed,
            "examined": tally.repositories.audited + tally.repositories.unreadable,
            "tags": tally.tags.audited,
        }
        logger.debug("repository examined", extra={"repository": str(repository), **progress})
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            logger.info("progress", extra=progress)
