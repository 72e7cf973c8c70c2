"""The last of the three verbs: what was seen becomes resolutions, a record, evidence and messages."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger

from dtr_audit import __version__
from dtr_audit.aws.archive import Archive
from dtr_audit.aws.clients import AwsClients
from dtr_audit.aws.findings import FindingsTable
from dtr_audit.aws.notification_text import ArtifactUrls, OpenFindingsSummary
from dtr_audit.aws.notifications import Alerts
from dtr_audit.aws.runs import RunsTable
from dtr_audit.core.exceptions import ENDED_NAMED
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.request import AuditRequest
from dtr_audit.core.rule import decide
from dtr_audit.core.run_record import (
    BaselineRead,
    ExceptionsInForce,
    Run,
    Scope,
    SecurityHubUpdate,
)
from dtr_audit.core.run_state import RunState
from dtr_audit.core.scan_order import Mark
from dtr_audit.core.text import clean
from dtr_audit.errors import EvidenceError, OutOfTimeError
from dtr_audit.http.deadline import answer_in_time
from dtr_audit.pipeline.reasons import compare_sizes, count_other_hosts, deny_contradictions, explain
from dtr_audit.pipeline.resolve import Closings, FindingResolver
from dtr_audit.pipeline.scan import REASON_LENGTH
from dtr_audit.settings import Settings

if TYPE_CHECKING:
    from dtr_audit.evidence.ckl_reader import Baseline

SIGNING_SECONDS = 10.0  # of those kept back at the end, or half of what is left of them, to have the manifest signed
SECURITY_HUB_SHARE = 0.5  # of the time that is left when it is told
TREND_RUNS = 60  # of the whole registry, in the evidence
AUDITOR = (
    f"DTR Signature Audit {__version__}, as an administrator of the registry (proven before and after the reading)"
)
AUDITOR_UNVERIFIED = f"DTR Signature Audit {__version__}, with an account that was not proven to be an administrator's"

logger = Logger(service="dtr-signature-audit", child=True)


class Reporter(FindingResolver):
    """Closes one run; all it writes is keyed by the run id, so that a second attempt replaces the first.

    It asks nothing of the registry, and knows no credentials.
    """

    def __init__(
        self,
        settings: Settings,
        request: AuditRequest,
        run_state: RunState,
        *,
        clients: AwsClients,
        runs: RunsTable,
        findings: FindingsTable,
        archive: Archive,
        confirm: Callable[[], None],
        is_retry: bool,
        started_at: datetime,
        now: Callable[[], datetime],
        ends_at: float,
        closings: Closings,
    ) -> None:
        """Prepare; `ends_at` (time.monotonic) is when all must be said.

        `confirm` raises once another attempt has taken the run over.
        """
        super().__init__(
            request,
            run_state,
            runs=runs,
            findings=findings,
            confirm=confirm,
            is_retry=is_retry,
            started_at=started_at,
            closings=closings,
        )
        self._settings = settings
        self._clients = clients
        self._archive = archive
        self._started_at = started_at
        self._now = now
        self._ends_at = ends_at

    def prepare(self) -> None:
        """Load what the end of the run needs, while there is time; whoever does not ask for it loads it then."""
        if self._request.scope is Scope.FULL:
            from dtr_audit.core import manifest  # noqa: F401, PLC0415
            from dtr_audit.evidence import formats, report  # noqa: F401, PLC0415

    def report(self, *, access_verified: bool, may_resolve: bool, hint: str, next_at: Mark | None = None) -> Run:
        """Close the run: resolve what is proven, record, announce.

        `proven` is that every reading was an administrator's to its end; with `may_resolve` alone, all whose findings wait was.
        `hint` says under which domain the Notary has trust data, where every tag looks unsigned; `next_at`, where the
        next run begins to read.
        """
        run_state = self._run_state
        # Asked here too: a run without a single row has nothing to close.
        self._confirm()
        self._archive.close()
        self._resolve(may_resolve=may_resolve)
        explain(run_state, self._settings, hint)
        complete = not run_state.incomplete_because
        is_full = self._request.scope is Scope.FULL
        previous = self._runs.last_complete(before=self._request.run_id) if is_full else None
        if complete and previous is not None:
            compare_sizes(run_state, self._settings, previous)
        security_hub = self._report_security_hub()
        # Before the run is closed: what is wrong with it stands in the record and in the evidence.
        baseline_read, baseline = self._read_baseline() if is_full else (None, None)
        run = Run(
            registry=self._settings.registry,
            run_id=self._request.run_id,
            scope=self._request.scope,
            namespaces=self._request.namespaces,
            status=decide(
                run_state.tags, open_findings=run_state.findings.open, complete=complete, scope=self._request.scope
            ),
            incomplete_because=tuple(map(REDACTOR.redact, run_state.incomplete_because)),
            warnings=tuple(map(REDACTOR.redact, run_state.warnings)),
            domains=run_state.domains,
            started_at=self._started_at,
            finished_at=self._now(),
            # A copy: where the time was up, the list may still be read.
            repositories=replace(run_state.repositories),
            tags=run_state.tags,
            findings=run_state.findings,
            unreadable=tuple((name, REDACTOR.redact(reason)) for name, reason in run_state.unreadable),
            oldest_open=run_state.oldest,
            previous=previous,
            facts=tuple(replace(fact, answer=REDACTOR.redact(fact.answer)) for fact in run_state.facts),
            baseline=baseline_read,
            exceptions=self._exceptions_in_force(is_whole=complete and is_full),
            security_hub=security_hub,
            trust=run_state.trust if run_state.is_trust_verified else None,
            other_hosts=count_other_hosts(run_state),
            registry_version=run_state.registry_version,
        )
        run = deny_contradictions(run, access_verified=access_verified)
        if is_full:
            run = self._write_evidence(run, baseline, access_verified=access_verified)
        locations = ArtifactUrls(
            rows=self._archive.rows_url,
            record=self._archive.record_url,
            report=self._archive.url(run.evidence["report"]) if "report" in run.evidence else "",
        )
        run = self._seal(run)
        self._runs.record(run, rows=locations.rows, record=locations.record)
        if self._unread_table is not None:
            # AWS failing is retried from outside. Until that succeeds, the record says what is known.
            raise self._unread_table
        if self._request.alerts:
            self._confirm()
            self._announce(run, locations)
        self._confirm()
        self._runs.finish(run.run_id, now=self._now(), next_at=next_at)
        logger.info("audit finished", status=str(run.status), complete=run.complete, tags=run.tags.as_dict())
        return run

    def _exceptions_in_force(self, *, is_whole: bool) -> ExceptionsInForce:
        """Sum up the document; which exceptions cover nothing is known once everything was seen."""
        exceptions = self._read.exceptions
        if exceptions is None:
            return ExceptionsInForce(problem=self._read.problem)
        unmatched = [one.exception_id for one in exceptions.active if one.exception_id not in self._run_state.matched]
        if unmatched and is_whole:
            # No warning: an image that was signed at last, or is still to come, is nobody's fault.
            logger.info(
                "exceptions that cover no finding", extra={"count": len(unmatched), "first": unmatched[:ENDED_NAMED]}
            )
        return ExceptionsInForce(
            version_id=exceptions.version_id,
            active=len(exceptions.active),
            ended=len(exceptions.ended),
            unmatched=len(unmatched) if is_whole else None,
        )

    def _read_baseline(self) -> "tuple[BaselineRead | None, Baseline | None]":
        """Read the customer's own checklist, if the run's answer is to be put into one. One that is broken costs nothing else."""
        key = self._settings.baseline_key
        if not key:
            return None, None
        from dtr_audit.evidence import baseline  # noqa: PLC0415

        was_read = BaselineRead(key)
        try:
            found = self._archive.read(key, limit=baseline.SIZE_LIMIT)
            is_whole = len(found.content) <= baseline.SIZE_LIMIT
            sha256 = hashlib.sha256(found.content).hexdigest() if is_whole else ""
            was_read = replace(was_read, version_id=found.version_id, sha256=sha256)
            answerable = baseline.read(found.content, neighbours=self._settings.neighbour_rules)
        except EvidenceError as error:
            problem = clean(str(error), REASON_LENGTH)
            logger.warning("the baseline was not answered", key=key, reason=problem)
            self._run_state.warnings.append(
                f"{self._archive.url(key)}, your own checklist, was not answered: {problem}"
            )
            return replace(was_read, problem=problem), None
        for warning in answerable.warnings:
            self._run_state.warnings.append(f"{self._archive.url(key)}, your own checklist: {warning}")
        return was_read, answerable

    def _report_security_hub(self) -> SecurityHubUpdate | None:
        """Bring Security Hub up to date, if that is asked for. That it refuses is a warning: the next run makes it good.

        It gets half of the time that is left, so that evidence and alerts go out whatever it does.
        """
        settings, run_state = self._settings, self._run_state
        if not (settings.security_hub_product and self._request.alerts) or self._unread_table is not None:
            return None
        from dtr_audit.aws.security_hub import AsffWriter, SecurityHub  # noqa: PLC0415 - and with it the largest of the clients

        self._confirm()
        until = time.monotonic() + (self._ends_at - time.monotonic()) * SECURITY_HUB_SHARE
        client = self._clients.security_hub
        hub = SecurityHub(
            lambda findings: answer_in_time(lambda: client.batch_import_findings(Findings=findings), stop_at=until),
            self._findings,
            AsffWriter(
                settings.security_hub_product,
                settings.stig_release,
                domain=run_state.domains[0] if run_state.domains else settings.dtr_url.removeprefix("https://"),
                run_id=self._request.run_id,
                trust=run_state.trust if run_state.is_trust_verified else None,
            ),
            threads=settings.concurrency,
        )
        update = hub.update(now=self._now(), until=until)
        if update.warning:
            run_state.warnings.append(update.warning)
            logger.warning("Security Hub is not up to date", extra={"why": update.warning})
        logger.info("Security Hub told", **update.as_dict())
        return update

    def _write_evidence(self, run: Run, baseline: "Baseline | None", *, access_verified: bool) -> Run:
        """Write what people and their tools read; gives the run with the places of it."""
        from dtr_audit.core.manifest import NAME  # noqa: PLC0415
        from dtr_audit.evidence.formats import FORMATS, name_download, write_all  # noqa: PLC0415
        from dtr_audit.evidence.report import Asset, Report, TrendPoint  # noqa: PLC0415

        settings, archive = self._settings, self._archive
        prefix = archive.evidence_prefix
        locations = {name: f"{prefix}{FORMATS[name].file_name}" for name in settings.evidence_formats}
        if baseline is not None:
            locations["merged"] = f"{prefix}{baseline.file_name}"
        run = replace(run, evidence={**locations, "manifest": f"{prefix}{NAME}"})
        report = Report(
            run=run,
            asset=Asset(
                host_name=settings.asset_name,
                fqdn=settings.asset_fqdn,
                role=settings.asset_role,
                marking=settings.asset_marking,
                release=settings.stig_release,
            ),
            auditor=AUDITOR if access_verified else AUDITOR_UNVERIFIED,
            findings=self._collector.findings,
            namespaces=self._collector.namespaces,
            opened=self._collector.opened,
            resolved=self._collector.resolved,
            trend=[TrendPoint.of_record(one) for one in self._runs.earlier(before=run.run_id, most=TREND_RUNS)],
            rows=tuple(archive.files),
            location=settings.output_location,
            record_key=archive.record_key,
            url=settings.dtr_url,
            changed=self._collector.changed,
            changed_count=self._collector.changed_count,
        )
        for name, written, content in write_all(report, settings.evidence_formats, neighbours=settings.neighbour_rules):
            disposition = name_download(written.file_name, settings.registry, settings.stig_release, run.run_id)
            archive.put_evidence(written.file_name, content, written.content_type, disposition=disposition)
            logger.debug("evidence written", extra={"format": name, "bytes": len(content)})
        if baseline is not None:
            merged = baseline.merge(report, neighbours=settings.neighbour_rules)
            disposition = name_download(baseline.file_name, settings.registry, settings.stig_release, run.run_id)
            archive.put_evidence(baseline.file_name, merged, baseline.content_type, disposition=disposition)
            logger.debug("evidence written", extra={"format": "merged", "bytes": len(merged)})
        return run

    def _seal(self, run: Run) -> Run:
        """Write the record and the manifest, signed if there is a key; gives the run as it was recorded.

        What the record says of the signature must be known before it is written: its sum stands in what is signed.
        """
        archive, key, url = self._archive, self._settings.signing_key, self._settings.dtr_url
        if not key:
            archive.put_record(run)
            archive.put_manifest(url)
            return run
        from dtr_audit.aws.kms import sign  # noqa: PLC0415
        from dtr_audit.core.signature import NAME, Signature  # noqa: PLC0415

        place = {"signature": f"{archive.evidence_prefix}{NAME}"} if run.evidence else {}
        signed = replace(run, evidence={**run.evidence, **place})
        document = archive.draft_manifest(signed, url)
        seconds = min(SIGNING_SECONDS, (self._ends_at - time.monotonic()) / 2)
        signature: Signature | None = None
        try:
            signature = answer_in_time(
                lambda: sign(document, self._clients.kms, key), stop_at=time.monotonic() + seconds
            )
        except OutOfTimeError:
            problem = "AWS KMS did not answer in time. In subnets without a way to it, it needs an endpoint of its own"
        except EvidenceError as error:
            problem = REDACTOR.redact(str(error))
        if signature is None:
            # Told, and no more: the evidence is as good as that of an audit without a key.
            logger.warning("the manifest is not signed", because=problem)
            signed = replace(run, warnings=(*run.warnings, f"the manifest of this run is not signed: {problem}"))
        archive.put_record(signed)
        archive.put_manifest(url)
        archive.put_signature(signature)
        return signed

    def _announce(self, run: Run, locations: ArtifactUrls) -> None:
        settings = self._settings
        alerts = Alerts(
            self._clients.sns,
            settings.topic_arn,
            self._findings,
            self._runs,
            grouping=settings.alert_grouping,
            reminder_days=settings.reminder_days,
            url=settings.dtr_url,
            contact=settings.alert_contact,
            threads=settings.concurrency,
        )
        open_summary = OpenFindingsSummary(
            self._run_state.open_by_namespace, self._run_state.oldest, self._run_state.excepted_by_namespace
        )
        messages = alerts.announce(
            run,
            open_summary,
            locations,
            expected=self._run_state.with_pending_notifications,
            now=self._now(),
            until=self._ends_at,
        )
        logger.info("alerts published", messages=messages)
