"""Settings fail by the variable's name, and never quote a value."""

from dataclasses import fields, replace

import pytest

from dtr_audit.errors import SettingsError
from dtr_audit.settings import AlertGrouping, Settings

GOOD = {
    "DTR_URL": "https://dtr.example.com/",
    "DTR_DOMAINS": "",
    "REGISTRY_NAME": "prod",
    "SECRET_ARN": "secret",
    "FINDINGS_TABLE": "findings",
    "RUNS_TABLE": "runs",
    "BUCKET": "bucket",
    "TOPIC_ARN": "topic",
    "SECURITY_HUB_PRODUCT": "",
    "CONCURRENCY": "16",
    "FAN_OUT_WORKERS": "4",
    "EXECUTION_SECONDS": "43200",
    "PAGE_SIZE": "100",
    "ALERT_GROUPING": "run",
    "REMINDER_DAYS": "0",
    "ALERT_CONTACT": "",
    "RESOLVED_DAYS": "90",
    "SHRINK_PERCENT": "20",
    "X509_STRICT": "true",
    "EVIDENCE_FORMATS": "report,ckl,cklb",
    "ASSET_NAME": "",
    "ASSET_FQDN": "",
    "ASSET_ROLE": "",
    "ASSET_MARKING": "",
    "STIG_RELEASE": "V2R2",
    "SIGNING_KEY_ARN": "",
    "UCP_URL": "",
    "TRUST_VERIFICATION": "registry",
    "REQUIRED_SIGNERS": "",
    "SIGNERS_NEEDED": "any",
    "REPOSITORY_KEY_SUFFICES": "false",
    "PIN_TRUST": "false",
    "TRUST_WARNING_DAYS": "30",
    "NEIGHBOUR_RULES": "false",
    "BASELINE_KEY": "",
}


def test_good_settings_are_read() -> None:
    settings = Settings.from_environment(
        {**GOOD, "DTR_DOMAINS": "dtr.example.com, old.example.com:5000,dtr.example.com"}
    )
    assert settings.dtr_url == "https://dtr.example.com"
    assert settings.domains == ("dtr.example.com", "old.example.com:5000")
    assert settings.alert_grouping is AlertGrouping.RUN
    assert settings.x509_strict


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        Settings.from_environment({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DTR_URL", "http://dtr.example.com"),
        ("DTR_URL", "dtr.example.com"),
        ("DTR_URL", "https://user:hunter2@dtr.example.com"),
        ("DTR_URL", "https://dtr.example.com/path"),
        ("DTR_URL", "https://dtr.example.com?x=hunter2"),
        ("DTR_URL", "https://dtr.example.com:0"),
        ("DTR_URL", "https://dtr.example.com:99999"),
        ("DTR_URL", "https://[hunter2"),
        ("DTR_URL", "https://"),
        ("DTR_DOMAINS", "https://dtr.example.com"),
        ("DTR_DOMAINS", "dtr.example.com/platform"),
        ("REGISTRY_NAME", "Prod"),
        ("REGISTRY_NAME", "a" * 64),
        ("REGISTRY_NAME", "a#b"),
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "65"),
        ("CONCURRENCY", "many"),
        ("CONCURRENCY", "²"),
        ("FAN_OUT_WORKERS", "0"),
        ("FAN_OUT_WORKERS", "41"),
        ("EXECUTION_SECONDS", "899"),
        ("PAGE_SIZE", "9"),
        ("ALERT_GROUPING", "team"),
        ("REMINDER_DAYS", "-1"),
        ("RESOLVED_DAYS", "0"),
        ("X509_STRICT", "no"),
        ("TRUST_VERIFICATION", "none"),
        ("REQUIRED_SIGNERS", "ci,../targets"),
        ("SIGNERS_NEEDED", "2"),
        ("TRUST_WARNING_DAYS", "-1"),
        ("BASELINE_KEY", "evidence/dtr.ckl"),
        ("BASELINE_KEY", "baseline/*.ckl"),
        ("BASELINE_KEY", "baseline/dtr.xml"),
        ("SECURITY_HUB_PRODUCT", "true"),
        ("SECURITY_HUB_PRODUCT", "arn:aws:securityhub:us-east-1:123456789012:product/210987654321/default"),
        ("SECURITY_HUB_PRODUCT", "arn:aws:securityhub:us-east-1::product/aws/inspector"),
    ],
)
def test_a_malformed_variable_is_named_and_no_password_quoted(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: ") as raised:
        Settings.from_environment({**GOOD, name: value})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("url", ["https://10.0.0.7:8443", "https://[fd00::1]:443", "https://DTR.example.com"])
def test_addresses_of_every_kind_are_taken(url: str) -> None:
    assert Settings.from_environment({**GOOD, "DTR_URL": url}).dtr_url == url


IDLE = {
    "REQUIRED_SIGNERS": "ci",
    "SIGNERS_NEEDED": "all",
    "REPOSITORY_KEY_SUFFICES": "true",
    "PIN_TRUST": "true",
    "TRUST_WARNING_DAYS": "31",
}


@pytest.mark.parametrize("name", IDLE)
def test_a_trust_setting_without_verification_is_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: .*Set TRUST_VERIFICATION to signatures"):
        Settings.from_environment({**GOOD, name: IDLE[name]})


def test_trust_settings_without_verification_are_all_named_at_once() -> None:
    with pytest.raises(SettingsError, match=f"^{', '.join(IDLE)}: "):
        Settings.from_environment({**GOOD, **IDLE})


def test_trust_settings_with_verification_are_read() -> None:
    settings = Settings.from_environment({**GOOD, **IDLE, "TRUST_VERIFICATION": "signatures"})
    assert (settings.required_signers, settings.all_signers, settings.pin_trust) == (("ci",), True, True)


def test_signers_needed_all_without_signers_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^SIGNERS_NEEDED: 'all' .* REQUIRED_SIGNERS"):
        Settings.from_environment({**GOOD, "TRUST_VERIFICATION": "signatures", "SIGNERS_NEEDED": "all"})


# What decides nothing about a verdict or a status: where things go, how fast, and how they are reported.
NOT_JUDGING = {
    *("runs_table", "bucket", "topic_arn", "security_hub_product", "alert_grouping", "reminder_days", "resolved_days"),
    *("concurrency", "fan_out_workers", "execution_seconds", "page_size", "shrink_percent", "trust_warning_days"),
    *("evidence_formats", "neighbour_rules", "baseline_key", "asset_name", "asset_fqdn", "asset_role"),
    *("alert_contact", "asset_marking", "stig_release", "signing_key", "ucp_url", "output_location"),
}


def test_the_fingerprint_changes_with_every_setting_that_judges_and_no_other() -> None:
    settings = Settings.from_environment(GOOD)
    before = settings.fingerprint()
    named: set[str] = set()
    for one in fields(Settings):
        value = getattr(settings, one.name)
        other: object = f"{value}x" if isinstance(value, str) else not value
        if isinstance(value, tuple):
            other = (*value, "x")
        now = replace(settings, **{one.name: other}).fingerprint()  # type: ignore[arg-type]
        changed = {name for name in now if now[name] != before[name]}
        assert len(changed) == (one.name not in NOT_JUDGING), one.name
        named |= changed
    assert named | {"version"} == set(before)
    assert "dtr.example.com" not in str(before)


def test_asset_fields_that_are_not_given_are_empty_but_the_name() -> None:
    settings = Settings.from_environment(GOOD)
    assert (settings.asset_name, settings.asset_fqdn, settings.asset_role) == ("dtr.example.com", "", "")


def test_an_asset_role_that_checklists_do_not_know_is_refused() -> None:
    assert Settings.from_environment({**GOOD, "ASSET_ROLE": "Member Server"}).asset_role == "Member Server"
    with pytest.raises(SettingsError, match=r"^ASSET_ROLE: nothing, or one of None, Workstation, Member Server"):
        Settings.from_environment({**GOOD, "ASSET_ROLE": "Server"})


def test_files_are_found_in_the_bucket_unless_they_are_kept_elsewhere() -> None:
    assert Settings.from_environment(GOOD).output_location == "s3://bucket"
    assert Settings.from_environment({**GOOD, "OUTPUT_LOCATION": "out"}).output_location == "out"
