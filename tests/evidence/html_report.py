"""Reports for the tests of report.html, of any size and with any names."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dtr_audit.core.counts import FindingCounts, RepositoryCounts, TagCounts
from dtr_audit.core.finding import ChangeKind, Excepted, Finding, State
from dtr_audit.core.manifest import StoredFile
from dtr_audit.core.model import Repository, Verdict, iso
from dtr_audit.core.rule import decide
from dtr_audit.core.run_record import PreviousRun, Run, Scope, Status, SupportingFact
from dtr_audit.evidence.report import Asset, NamespaceSummary, Report, ReportedFinding, TrendPoint

IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
IMAGES = "application/vnd.docker.distribution.manifest.list.v2+json"
DOMAIN = "dtr.example.mil"
URL = "https://dtr.example.mil:4443"
RUN_ID = "20261122T050000Z"
STARTED = datetime(2026, 11, 22, 5, 0, 3, tzinfo=UTC)
FINISHED = STARTED + timedelta(minutes=4, seconds=12)
FACTS = (
    SupportingFact("UCP: users come from LDAP", "yes"),
    SupportingFact("UCP: content trust is enforced", "no: require_content_trust is false"),
    SupportingFact("DTR: image scanning is on", "yes, with an online database", "V-235840", Status.NOT_A_FINDING),
)
_TEAMS = ("payments", "platform", "data", "web", "identity", "legacy", "logistics", "mobile", "reporting", "sandbox")
_IMAGES = ("ledger", "base", "airflow", "shop", "gateway", "fax-gateway", "router", "api", "dashboards", "scratch")


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def finding(
    namespace: str = "payments",
    name: str = "ledger",
    tag: str = "2.3",
    *,
    verdict: Verdict = Verdict.UNSIGNED,
    days: int = 12,
    author: str = "k.lindqvist",
    is_new: bool = False,
    media_type: str = IMAGE,
) -> Finding:
    first_seen = iso(FINISHED) if is_new else iso(FINISHED - timedelta(days=days, minutes=7))
    reason = (
        f"signed under {DOMAIN} once, then overwritten by an unsigned push"
        if verdict is Verdict.MISMATCHED
        else f"not signed under {DOMAIN}"
    )
    return Finding(
        registry="prod-dtr",
        repository=Repository(namespace, name),
        tag=tag,
        state=State.OPEN,
        verdict=verdict,
        reason=reason,
        digest=digest(f"{namespace}/{name}:{tag}"),
        author=author,
        pushed_at=iso(FINISHED - timedelta(days=days + 1, hours=3)),
        first_seen=first_seen,
        last_changed=first_seen,
        transition=ChangeKind.OPENED,
        changed_in=RUN_ID if is_new else "20261110T050000Z",
        media_type=media_type,
    )


def findings(count: int) -> list[Finding]:
    """Give findings of ten teams, by name; every ninth overwritten, every eleventh new,
    every thirteenth a list of images.
    """
    made = [
        finding(
            f"{_TEAMS[n % 10]}{'' if n < 2_000 else f'-{n // 2_000}'}",
            _IMAGES[n // 10 % 10],
            f"{n // 100}.{n % 100}.0",
            verdict=Verdict.MISMATCHED if n % 9 == 0 else Verdict.UNSIGNED,
            days=n * 7 % 300,
            is_new=n % 11 == 3,
            media_type=IMAGES if n % 13 == 5 else IMAGE,
        )
        for n in range(count)
    ]
    return sorted(made, key=lambda one: (one.repository, one.tag))


EXCEPTED = Excepted("EX-7", "R. Okafor", "vendor image, replaced with release 9", "POA&M 2026-118", "2027-01-31")


def report(
    found: Sequence[Finding] = (),
    *,
    excepted: Iterable[int] = (),
    left_out: int = 0,
    signed: int = 817,
    unknown: int = 0,
    artifacts: int = 2,
    incomplete_because: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
    resolved: Sequence[Finding] = (),
    scope: Scope = Scope.FULL,
    is_first: bool = False,
    facts: tuple[SupportingFact, ...] = FACTS,
    **fields: object,
) -> Report:
    """Give the report of a run that found these, and `left_out` more that nobody names."""
    covered = set(excepted)
    verdicts = Counter(one.verdict for one in found)
    tags = TagCounts(
        signed=signed,
        unsigned=verdicts[Verdict.UNSIGNED] + left_out,
        mismatched=verdicts[Verdict.MISMATCHED],
        unknown=unknown,
        artifacts=artifacts,
    )
    unreadable = 1 if incomplete_because else 0
    listed = 126 if tags.audited else 0
    opened = [one for one in found if one.changed_in == RUN_ID]
    run = Run(
        registry="prod-dtr",
        run_id=RUN_ID,
        scope=scope,
        namespaces=("payments",) if scope is Scope.PARTIAL else (),
        status=decide(tags, open_findings=len(found) + left_out, complete=not incomplete_because, scope=scope),
        incomplete_because=incomplete_because,
        warnings=warnings,
        domains=(DOMAIN,),
        started_at=STARTED,
        finished_at=FINISHED,
        repositories=RepositoryCounts(listed=listed, audited=max(listed - unreadable, 0), unreadable=unreadable),
        tags=tags,
        findings=FindingCounts(
            open=len(found) + left_out, opened=len(opened), resolved=len(resolved), excepted=len(covered)
        ),
        unreadable=(("web/shop", "GET /api/v0/repositories/web/shop/tags: 500 on page 1"),) if unreadable else (),
        oldest_open=min((one.first_seen for one in found), default=""),
        previous=None if is_first or scope is Scope.PARTIAL else PreviousRun("20261121T050000Z", 125, 821),
        facts=facts,
    )
    reported = [ReportedFinding(one, EXCEPTED if n in covered else None) for n, one in enumerate(found)]
    made = Report(
        run=run,
        asset=Asset("dtr.example.mil"),
        auditor="dtr-signature-audit 0.1.0, with the account of an administrator",
        findings=reported,
        namespaces=_summaries(reported, left_out),
        opened=opened,
        resolved=resolved,
        trend=() if is_first else trend(),
        rows=tuple(
            StoredFile(
                f"findings/registry=prod-dtr/dt=2026-11-22/{RUN_ID}-{part:05d}.jsonl.gz",
                digest(str(part)).removeprefix("sha256:"),
                1_834_201 + part,
            )
            for part in range(1, 2 + tags.audited // 50_000)
        ),
        location="s3://dtr-audit-evidence",
        url=URL,
        record_key=f"runs/registry=prod-dtr/dt=2026-11-22/{RUN_ID}.json",
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def trend(runs: int = 60) -> tuple[TrendPoint, ...]:
    """Give a run a day up to yesterday, one of them incomplete, with four days on which there was none."""
    points = []
    for ago in range(runs, 0, -1):
        if 20 <= ago < 24:
            continue
        at = FINISHED - timedelta(days=ago)
        is_complete = ago != 9
        is_open = max(0, ago // 3 + (ago * 7 % 5) - 2 + (8 if ago < 30 else 0))
        points.append(
            TrendPoint(
                f"{at:%Y%m%dT050000Z}",
                iso(at),
                Status.OPEN if is_open else Status.NOT_A_FINDING,
                is_complete,
                800 - ago,
                is_open,
                is_open,
                100.0 if is_complete else 93.65,
            )
        )
    return tuple(points)


def _summaries(reported: Sequence[ReportedFinding], left_out: int) -> list[NamespaceSummary]:
    summaries: dict[str, NamespaceSummary] = {}
    for one in reported:
        name, since = one.finding.repository.namespace, one.finding.first_seen
        known = summaries.get(name, NamespaceSummary(name, 0, 0, since))
        summaries[name] = NamespaceSummary(
            name, known.open + 1, known.excepted + (one.excepted is not None), min(known.oldest, since)
        )
    if left_out:
        summaries["zeta"] = NamespaceSummary("zeta", left_out, 0, iso(FINISHED - timedelta(days=30)))
    return [summaries[name] for name in sorted(summaries)]


def resolved(count: int) -> list[Finding]:
    """Give findings that this run closed."""
    return [
        replace(
            finding("legacy", "fax-gateway", f"1.{n:03d}"),
            state=State.RESOLVED,
            transition=ChangeKind.RESOLVED,
            resolution="repository removed" if n % 3 == 1 else "signed",
            changed_in=RUN_ID,
            last_changed=iso(FINISHED),
        )
        for n in range(count)
    ]


HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</style><style>*{display:none}",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "javascript:alert(5)",
    "<!--",
    "]]><![CDATA[",
    "&lt;b&gt;&amp;&#60;",
    "{{7*7}}${7*7}`id`",
    "\u202egpj.exe\u202c\u2066x\u2069\u200b",
    "nul\x00 esc\x1b[2J line\nbreak",
    "\ud800 lone",
    "e" + "\u0301" * 250,
    "x" * 10_000,
)


def hostile_report() -> Report:
    """Give a report in which every text from outside is hostile."""
    texts = HOSTILE_TEXTS
    found = [
        replace(
            finding(text, text, text),
            digest=text if n % 2 else digest(text),
            author=text,
            reason=text,
            pushed_at=text,
            media_type=text,
            changed_in=RUN_ID,
        )
        for n, text in enumerate(sorted(texts))
    ]
    exception = Excepted(texts[3], texts[0], texts[4], texts[5], texts[1])
    made = report(
        found, incomplete_because=texts, warnings=texts, resolved=[replace(one, resolution=one.reason) for one in found]
    )
    run = replace(
        made.run,
        registry=texts[0],
        domains=texts,
        namespaces=texts,
        unreadable=tuple((text, text) for text in texts),
        facts=tuple(SupportingFact(text, text, text) for text in texts),
    )
    return replace(
        made,
        run=run,
        asset=Asset(texts[1], fqdn=texts[3], marking=texts[2]),
        auditor=texts[0],
        findings=[replace(one, excepted=exception) for one in made.findings],
        rows=tuple(StoredFile(text, text, 1) for text in texts),
        location=texts[0],
        url=texts[3],
        changed=found,
        changed_count=len(found),
        record_key=texts[1],
    )
