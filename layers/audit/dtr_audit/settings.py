"""The function's settings, read from the environment once; each error names its variable."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from dtr_audit import __version__
from dtr_audit.errors import SettingsError

_REGISTRY_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_HOST = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])"
)
_DOMAIN = re.compile(rf"{_HOST}(?::[0-9]{{1,5}})?")
_PRODUCT = re.compile(r"arn:aws[a-z-]*:securityhub:[a-z0-9-]+:([0-9]{12}):product/\1/default")
_SIGNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,4}")
DOMAIN_LENGTH = 261  # a DNS name of 253 characters, a colon, and five digits, with room for brackets


EVIDENCE_FORMATS = ("report", "ckl", "cklb", "xccdf", "hdf")
STIG_RELEASES = ("V2R2", "V2R1")
ASSET_ROLES = ("None", "Workstation", "Member Server", "Domain Controller")
_BASELINE_KEY = re.compile(r"baseline/[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.cklb?")  # nothing that IAM takes for a pattern
TRUST_WARNING_DAYS = 30  # the template's default
SECURITY_HUB_DAYS = 90  # after which Security Hub deletes a finding that nobody has updated


class TrustVerification(StrEnum):
    """Whether the registry's word is taken for a signature, or the signature itself is verified besides."""

    REGISTRY = "registry"
    SIGNATURES = "signatures"


class AlertGrouping(StrEnum):
    """Whether a run's news goes out as one message, or one for each namespace."""

    RUN = "run"
    NAMESPACE = "namespace"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the deployment decides; nothing secret is in here."""

    dtr_url: str  # https://host[:port], no path
    domains: tuple[str, ...]  # empty: the registry's own dtrHost
    trust: TrustVerification
    required_signers: tuple[str, ...]  # delegations, with or without `targets/`; empty: any
    all_signers: bool  # all of them must have signed, not any one
    repository_key_suffices: bool  # a tag signed by the repository's own key, and by no delegation, counts
    pin_trust: bool  # roots are held against policy/trust-pins.json
    trust_warning_days: int  # before trust data expires
    ucp_url: str  # of the same form; '': UCP is not asked
    registry: str
    secret_arn: str
    findings_table: str
    runs_table: str
    bucket: str
    topic_arn: str
    security_hub_product: str  # ARN of the product that findings are imported under; '': Security Hub is not told
    concurrency: int  # requests to the registry in flight, of all workers together
    fan_out_workers: int  # that examine at once, where there are any
    execution_seconds: int  # after which a whole fan-out is ended from outside
    page_size: int
    alert_grouping: AlertGrouping
    alert_contact: str  # whom readers of a message ask; '' for nobody
    reminder_days: int  # 0: never
    resolved_days: int  # a resolved finding is kept that long
    shrink_percent: int  # a complete run that is smaller by this much carries a warning
    x509_strict: bool
    evidence_formats: tuple[str, ...]
    neighbour_rules: bool  # as rules of their own in the checklists
    baseline_key: str  # of the customer's own checklist in the bucket; '' for none
    asset_name: str  # the registry as the assessor's tools know it
    asset_fqdn: str  # '' if it is not given
    asset_role: str  # likewise
    asset_marking: str  # '' for none
    stig_release: str
    signing_key: str  # ARN of the KMS key that signs manifests; '': they are not signed
    output_location: str  # where people find the bucket's keys: s3://<bucket>, or a folder that mirrors it

    def fingerprint(self) -> dict[str, str]:
        """Give the SHA-256 of each setting that can change a verdict or a status, by its variable's name.

        All steps of a run must have the same. The version of the audit is one of them: it judges.
        """
        judging = {
            "DTR_URL": self.dtr_url,
            "DTR_DOMAINS": self.domains,
            "TRUST_VERIFICATION": self.trust,
            "REQUIRED_SIGNERS": self.required_signers,
            "SIGNERS_NEEDED": self.all_signers,
            "REPOSITORY_KEY_SUFFICES": self.repository_key_suffices,
            "PIN_TRUST": self.pin_trust,
            "X509_STRICT": self.x509_strict,
            "REGISTRY_NAME": self.registry,
            "SECRET_ARN": self.secret_arn,
            "FINDINGS_TABLE": self.findings_table,
            "version": __version__,
        }
        return {name: hashlib.sha256(json.dumps(value).encode()).hexdigest() for name, value in judging.items()}

    @property
    def days_resolved_are_kept(self) -> int:
        """Keep what is resolved at least as long as Security Hub keeps what it last heard of it: nothing is lost on the way."""
        return max(self.resolved_days, SECURITY_HUB_DAYS) if self.security_hub_product else self.resolved_days

    @property
    def worker_threads(self) -> int:
        """Give how many requests one worker of a fan-out may have in flight; raises SettingsError if there is not one for each."""
        if self.fan_out_workers > self.concurrency:
            raise SettingsError(
                f"FAN_OUT_WORKERS: {self.fan_out_workers} workers at once are more than the {self.concurrency} requests at once "
                "that CONCURRENCY allows to all of them together"
            )
        return self.concurrency // self.fan_out_workers

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings; raises SettingsError naming the variable."""
        registry = _text(environment, "REGISTRY_NAME")
        if not _REGISTRY_NAME.fullmatch(registry):
            raise SettingsError(
                "REGISTRY_NAME: 1 to 63 of a-z, 0-9, '.' and '-', beginning with a letter or digit, are needed"
            )
        grouping = _choice(environment, "ALERT_GROUPING", tuple(AlertGrouping))
        trust = _choice(environment, "TRUST_VERIFICATION", tuple(TrustVerification))
        formats = _list(environment, "EVIDENCE_FORMATS", EVIDENCE_FORMATS)
        release = _choice(environment, "STIG_RELEASE", STIG_RELEASES)
        baseline_key = _text(environment, "BASELINE_KEY", may_be_empty=True)
        if baseline_key and not _BASELINE_KEY.fullmatch(baseline_key):
            raise SettingsError(
                "BASELINE_KEY: the key of a checklist in the bucket is needed, baseline/<name>.ckl or baseline/<name>.cklb"
            )
        asset_role = _text(environment, "ASSET_ROLE", may_be_empty=True)
        if asset_role and asset_role not in ASSET_ROLES:
            raise SettingsError(f"ASSET_ROLE: nothing, or one of {', '.join(ASSET_ROLES)} is needed")
        dtr_url = parse_dtr_url(_text(environment, "DTR_URL"), "DTR_URL")
        ucp_url = _text(environment, "UCP_URL", may_be_empty=True)
        product = _text(environment, "SECURITY_HUB_PRODUCT", may_be_empty=True)
        if product and not _PRODUCT.fullmatch(product):
            raise SettingsError("SECURITY_HUB_PRODUCT: the ARN of the account's own default product is needed")
        host = urlsplit(dtr_url).hostname or ""
        bucket = _text(environment, "BUCKET")
        settings = cls(
            dtr_url=dtr_url,
            domains=parse_domains(_text(environment, "DTR_DOMAINS", may_be_empty=True), "DTR_DOMAINS"),
            trust=TrustVerification(trust),
            required_signers=parse_signers(
                _text(environment, "REQUIRED_SIGNERS", may_be_empty=True), "REQUIRED_SIGNERS"
            ),
            all_signers=_choice(environment, "SIGNERS_NEEDED", ("any", "all")) == "all",
            repository_key_suffices=_switch(environment, "REPOSITORY_KEY_SUFFICES"),
            pin_trust=_switch(environment, "PIN_TRUST"),
            trust_warning_days=_number(environment, "TRUST_WARNING_DAYS", 0, 365),
            ucp_url=parse_dtr_url(ucp_url, "UCP_URL") if ucp_url else "",
            registry=registry,
            secret_arn=_text(environment, "SECRET_ARN"),
            findings_table=_text(environment, "FINDINGS_TABLE"),
            runs_table=_text(environment, "RUNS_TABLE"),
            bucket=bucket,
            topic_arn=_text(environment, "TOPIC_ARN"),
            security_hub_product=product,
            concurrency=_number(environment, "CONCURRENCY", 1, 64),
            fan_out_workers=_number(environment, "FAN_OUT_WORKERS", 1, 40),
            execution_seconds=_number(environment, "EXECUTION_SECONDS", 900, 31_536_000),
            page_size=_number(environment, "PAGE_SIZE", 10, 1000),
            alert_grouping=AlertGrouping(grouping),
            alert_contact=_text(environment, "ALERT_CONTACT", may_be_empty=True),
            reminder_days=_number(environment, "REMINDER_DAYS", 0, 365),
            resolved_days=_number(environment, "RESOLVED_DAYS", 1, 3650),
            shrink_percent=_number(environment, "SHRINK_PERCENT", 1, 99),
            x509_strict=_switch(environment, "X509_STRICT"),
            evidence_formats=formats,
            neighbour_rules=_switch(environment, "NEIGHBOUR_RULES"),
            baseline_key=baseline_key,
            asset_name=_text(environment, "ASSET_NAME", may_be_empty=True) or host,
            asset_fqdn=_text(environment, "ASSET_FQDN", may_be_empty=True),
            asset_role=asset_role,
            asset_marking=_text(environment, "ASSET_MARKING", may_be_empty=True),
            stig_release=release,
            signing_key=_text(environment, "SIGNING_KEY_ARN", may_be_empty=True),
            # No parameter of the template: only an audit on a laptop keeps its files elsewhere.
            output_location=environment.get("OUTPUT_LOCATION", "") or f"s3://{bucket}",
        )
        settings._refuse_idle_trust_settings()
        return settings

    def _refuse_idle_trust_settings(self) -> None:
        """Refuse settings that ask something of signatures which this deployment does not verify; raises SettingsError."""
        asked = {
            "REQUIRED_SIGNERS": bool(self.required_signers),
            "SIGNERS_NEEDED": self.all_signers,
            "REPOSITORY_KEY_SUFFICES": self.repository_key_suffices,
            "PIN_TRUST": self.pin_trust,
            "TRUST_WARNING_DAYS": self.trust_warning_days != TRUST_WARNING_DAYS,
        }
        idle = [name for name, is_asked in asked.items() if is_asked]
        if idle and self.trust is not TrustVerification.SIGNATURES:
            raise SettingsError(
                f"{', '.join(idle)}: without TRUST_VERIFICATION signatures no signature is verified, and they have no effect. "
                "Set TRUST_VERIFICATION to signatures, or give them their defaults again"
            )
        if self.all_signers and not self.required_signers:
            raise SettingsError(
                "SIGNERS_NEEDED: 'all' has no effect while REQUIRED_SIGNERS names no signer. Name them, or set it to 'any'"
            )


def parse_dtr_url(url: str, name: str) -> str:
    """Check the registry's address and drop a trailing slash; `name` is what the error calls it."""
    problem = SettingsError(
        f"{name}: an address of the form https://host or https://host:port is needed, "
        "without a path, a user name or a password"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise problem from None
    authority = parts.netloc
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in authority)
    if parts.scheme != "https" or not plain or port == 0 or not is_domain(authority):
        raise problem
    return f"https://{authority}"


def parse_domains(text: str, name: str) -> tuple[str, ...]:
    """Split a comma separated list of `host[:port]`; duplicates are dropped, the order is kept."""
    domains = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for domain in domains:
        if not is_domain(domain):
            raise SettingsError(
                f"{name}: '{domain}' is not of the form host or host:port, as used in `docker push` (no scheme, no path)"
            )
    return domains


def parse_signers(text: str, name: str) -> tuple[str, ...]:
    """Split a comma separated list of signers; duplicates are dropped, the order is kept."""
    signers = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for signer in signers:
        # The repository's own key and the released role are nobody's in particular.
        if not _SIGNER.fullmatch(signer) or signer.removeprefix("targets/") in {"targets", "releases"}:
            raise SettingsError(
                f"{name}: '{signer[:64]}' is not the name of a signer, such as ci or targets/ci, as `docker trust inspect` shows it"
            )
    return signers


def is_domain(text: str) -> bool:
    """Tell whether a text is `host` or `host:port`, as it stands in an image's name."""
    return len(text) <= DOMAIN_LENGTH and _DOMAIN.fullmatch(text) is not None


def _text(environment: Mapping[str, str], name: str, *, may_be_empty: bool = False) -> str:
    value = environment.get(name)
    if value is None or (not value.strip() and not may_be_empty):
        raise SettingsError(f"{name}: this environment variable is not set")
    return value.strip()


def _list(environment: Mapping[str, str], name: str, known: Sequence[str]) -> tuple[str, ...]:
    text = _text(environment, name, may_be_empty=True)
    given = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not set(given) <= set(known):
        raise SettingsError(f"{name}: a list of {', '.join(known)}, separated by commas, is needed")
    return given


def _number(environment: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = _text(environment, name)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise SettingsError(f"{name}: a whole number from {least} to {most} is needed")
    return int(text)


def _choice(environment: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    text = _text(environment, name)
    if text not in known:
        raise SettingsError(f"{name}: one of {', '.join(known)} is needed")
    return text


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = _text(environment, name)
    if text not in {"true", "false"}:
        raise SettingsError(f"{name}: 'true' or 'false' is needed")
    return text == "true"
