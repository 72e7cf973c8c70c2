"""Which spellings are one host, and what a registry's own name for itself decides."""

import pytest

from dtr_audit.core.hosts import canonical_gun, canonical_host
from dtr_audit.registry.domains import choose_domains
from dtr_audit.trust.notary.policy import Pin, TrustPolicy


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("DTR.Example.MIL", "dtr.example.mil"),
        ("dtr.example.mil:443", "dtr.example.mil"),
        ("dtr.example.mil:0443", "dtr.example.mil"),
        ("dtr.example.mil.", "dtr.example.mil"),
        ("dtr.example.mil.:443", "dtr.example.mil"),
        ("LocalHost:5000", "localhost:5000"),
        ("localhost:05000", "localhost:5000"),
        ("dtr.example.mil:", "dtr.example.mil"),
        ("[FD00:0:0::1]:443", "[fd00::1]"),
        ("[fd00::1]:8443", "[fd00::1]:8443"),
        ("[fd00::1", "[fd00::1"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example:443", "xn--bcher-kva.example"),
        ("", ""),
        ("*", "*"),
        ("host:" + "9" * 5_000, "host:" + "9" * 5_000),
    ],
)
def test_canonical_host_of_any_spelling_is_one_form(spelling: str, canonical: str) -> None:
    assert canonical_host(spelling) == canonical
    assert canonical_host(canonical) == canonical


def test_canonical_gun_keeps_the_repositorys_own_letters() -> None:
    assert canonical_gun("DTR.example:443/Pay/Api") == "dtr.example/Pay/Api"
    assert canonical_gun("DTR.exam*") == "dtr.exam*"


@pytest.mark.parametrize("pattern", ["LocalHost:443/pay/api", "localhost/pay/*", "LOCALHOST/*", "localhost:443*", "*"])
@pytest.mark.parametrize("gun", ["localhost:443/pay/api", "LOCALHOST:443/pay/api"])
def test_pin_in_another_spelling_of_the_host_covers_the_repository(pattern: str, gun: str) -> None:
    covered = Pin(pattern, frozenset({"0" * 64})).covers(gun)
    assert covered or (pattern, gun) == ("localhost:443*", "LOCALHOST:443/pay/api")


def test_pin_of_another_repository_or_port_does_not_cover() -> None:
    for pattern in ("localhost/pay/API", "localhost:444/pay/api", "localhost/pay/ap", "local.host/*"):
        assert not Pin(pattern).covers("localhost:443/pay/api")


def test_pin_for_a_spelling_takes_the_most_specific_pin() -> None:
    exact, wide, long = Pin("DTR/a/b"), Pin("dtr:443/*"), Pin("dtr/a/b*")
    assert TrustPolicy(pins=(wide, long, exact)).pin_for("dtr:443/a/b") is exact
    assert TrustPolicy(pins=(wide, long)).pin_for("dtr:443/a/b") is long


@pytest.mark.parametrize("dtr_host", ["DTR.example", "dtr.example", "dtr.example:443"])
def test_domains_of_a_registry_that_spells_its_host_otherwise_keep_its_spelling(dtr_host: str) -> None:
    domains, warning = choose_domains((), dtr_host, "https://dtr.example")
    assert dtr_host in domains
    assert not warning


def test_domains_of_a_registry_that_names_a_foreign_host_are_the_settings_own() -> None:
    domains, warning = choose_domains((), "evil.example", "https://dtr.example:8443")
    assert domains == ("dtr.example:8443",)
    assert "evil.example" in warning
    domains, warning = choose_domains(("a.example", "b.example"), "evil.example", "https://dtr.example")
    assert domains == ("a.example", "b.example")
    assert "evil.example" in warning


def test_domains_of_a_registry_that_names_one_of_the_settings_hosts_need_no_warning() -> None:
    assert choose_domains(("a.example",), "A.example:443", "https://10.0.0.1") == (("a.example",), "")
    assert choose_domains(("a.example",), "10.0.0.1", "https://10.0.0.1") == (("a.example",), "")
    assert choose_domains(("a.example",), "", "https://10.0.0.1") == (("a.example",), "")
