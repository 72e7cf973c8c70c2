"""Certificates that are refused: each fault has its own words and its own remedy, over real TLS."""

import pytest

from dtr_audit.errors import RegistryError
from dtr_audit.http.transport import Transport
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.http.authority import CertificateAuthority, Defect

BUNDLE = '"ca_bundle" in the secret'


def refusal(dtr: DtrServer, ca_bundle: str | None = None, *, strict: bool = True) -> str:
    """Give why the certificate of a registry is refused, that has been asked nothing; '' if it is taken."""
    transport = Transport(
        dtr.url,
        ca_bundle=dtr.ca_bundle if ca_bundle is None else ca_bundle,
        x509_strict=strict,
        connections=1,
        stop_at=float("inf"),
    )
    try:
        transport.get("/v2/")
    except RegistryError as error:
        assert dtr.requests == ()
        said = str(error)
        assert said.startswith(f"{dtr.url}: its certificate is refused: ")
        return said
    finally:
        transport.close()
    return ""


@pytest.mark.parametrize(
    ("defect", "problem", "remedy"),
    [
        (
            Defect.WRONG_HOST,
            "it is for registry.elsewhere.example, and not for localhost",
            "Set DTR_URL to a name that it is for, or have it issued again for localhost",
        ),
        (Defect.EXPIRED, "it expired on 20", "Renew the registry's certificate"),
        (Defect.NOT_YET_VALID, "it is valid only from 20", "See whether the clock of the registry"),
        (
            Defect.COMMON_NAME_ONLY,
            "it has no subjectAltName, only the Common Name 'localhost'",
            "issued again with localhost as a subjectAltName; until then X509_STRICT false takes the Common Name",
        ),
        (
            Defect.MISSING_INTERMEDIATE,
            f"it was issued by 'CN=Simulated Issuing CA', whose certificate is neither sent with it nor in {BUNDLE[:11]}",
            "is an intermediate authority, let the registry send its certificate along",
        ),
        (
            Defect.OTHER_AUTHORITY,
            f"it was issued by an authority with the name of one in {BUNDLE[:11]}, 'CN=Simulated DTR CA', and with another key",
            f"Put the authority's present certificate into {BUNDLE}",
        ),
    ],
    ids=lambda one: one.name if isinstance(one, Defect) else "",
)
def test_certificate_with_a_defect_is_refused_in_words_of_its_own_with_the_remedy(
    defect: Defect, problem: str, remedy: str
) -> None:
    with DtrServer(defect=defect) as dtr:
        said = refusal(dtr)
        assert f"In other words: {problem}" in said
        assert remedy in said
        assert len(said) < 700


def test_certificate_that_names_its_host_in_the_common_name_alone_is_taken_without_strictness() -> None:
    with DtrServer(defect=Defect.COMMON_NAME_ONLY) as dtr:
        assert refusal(dtr, strict=False) == ""


def test_certificate_of_an_intermediate_authority_is_taken_once_that_is_sent_or_in_the_bundle() -> None:
    root = CertificateAuthority("Example Root CA")
    silent = CertificateAuthority("Example Issuing CA", issuer=root, path_length=0)
    sent = CertificateAuthority("Example Issuing CA", issuer=root, path_length=0, sends_itself=True)
    with DtrServer(authority=silent) as dtr:
        assert "'CN=Example Issuing CA', whose certificate is neither sent with it" in refusal(
            dtr, root.certificate_pem
        )
        assert refusal(dtr, root.certificate_pem + silent.certificate_pem) == ""
    with DtrServer(authority=sent) as dtr:
        assert refusal(dtr, root.certificate_pem) == ""


@pytest.mark.parametrize("sends_itself", [False, True])
def test_certificate_of_another_authority_names_that(sends_itself: bool) -> None:
    other = CertificateAuthority("Another CA", sends_itself=sends_itself)
    bundle = CertificateAuthority("Example CA", path_length=0).certificate_pem
    with DtrServer(authority=other) as dtr:
        said = refusal(dtr, bundle)
        assert "it was issued by the wrong authority, 'CN=Another CA'" in said
        assert f"{BUNDLE} holds another authority: put the certificate of 'CN=Another CA' in" in said


def test_certificate_whose_chain_ends_at_another_authority_names_that() -> None:
    other = CertificateAuthority("Another CA")
    issuing = CertificateAuthority("Another Issuing CA", issuer=other, path_length=0, sends_itself=True)
    with DtrServer(authority=issuing) as dtr:
        said = refusal(dtr, CertificateAuthority("Example CA").certificate_pem)
        assert "it was issued by the wrong authority, 'CN=Another CA'" in said


def test_certificate_of_an_authority_that_expired_names_the_authority() -> None:
    authority = CertificateAuthority("Example CA", expired=True)
    with DtrServer(authority=authority) as dtr:
        said = refusal(dtr)
        assert "the authority 'CN=Example CA' in \"ca_bundle\" expired on 20" in said
        assert f"Put the renewed authority into {BUNDLE}" in said


def test_certificate_that_is_sent_with_an_expired_intermediate_names_that() -> None:
    root = CertificateAuthority("Example Root CA")
    issuing = CertificateAuthority("Example Issuing CA", issuer=root, expired=True, sends_itself=True)
    with DtrServer(authority=issuing) as dtr:
        said = refusal(dtr, root.certificate_pem)
        assert (
            "the certificate of 'CN=Example Issuing CA', which the registry sends with its own, expired on 20" in said
        )
        assert "Let the registry send the renewed one" in said


def test_certificate_of_a_private_authority_without_a_bundle_says_where_to_put_it() -> None:
    with DtrServer() as dtr:
        assert "If a private authority issued it, put that authority's certificate into" in refusal(dtr, "")


def test_hostile_names_in_a_certificate_are_shown_short_and_harmless() -> None:
    with DtrServer(authority=CertificateAuthority("\x1b[2J\u202e" + "x" * 50)) as dtr:
        said = refusal(dtr, CertificateAuthority("Example CA").certificate_pem)
        assert said.isprintable()
        assert "xxx" in said
