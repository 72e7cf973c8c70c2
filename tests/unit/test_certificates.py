"""Bundles of authorities: every form in which people are handed them, and that damage is named and nothing is quoted."""

import base64
import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from dtr_audit.errors import SettingsError
from dtr_audit.http.certificates import read_authorities, write_pem
from dtr_audit.registry.credentials import parse_secret
from dtr_audit_cli.local_run import read_ca_file
from dtr_audit_simulator.http.authority import CertificateAuthority

FIRST, SECOND = (CertificateAuthority(f"Example CA {number}").certificate_pem for number in (1, 2))
BOTH = FIRST + SECOND
DER = tuple(ssl.PEM_cert_to_DER_cert(pem) for pem in (FIRST, SECOND))
LOADED = [x509.load_der_x509_certificate(one) for one in DER]
P7B = pkcs7.serialize_certificates(LOADED, Encoding.PEM).decode()
P7B_DER = pkcs7.serialize_certificates(LOADED, Encoding.DER)
ONCE = json.dumps(BOTH)[1:-1]  # a text whose line breaks were escaped once more than JSON does it

FORMS = {
    "PEM": BOTH,
    "PEM with Windows line breaks": BOTH.replace("\n", "\r\n"),
    "PEM with blanks in place of line breaks": BOTH.replace("\n", " "),
    "PEM without any line break": BOTH.replace("\n", ""),
    "PEM without any blank": "".join(BOTH.split()),
    "PEM with tabs": BOTH.replace("\n", "\t"),
    "line breaks escaped twice": ONCE,
    "line breaks escaped three times": json.dumps(ONCE)[1:-1],
    "Windows line breaks escaped twice": ONCE.replace("\\n", "\\r\\n"),
    "slashes escaped": BOTH.replace("/", "\\/"),
    "in quotation marks": f'"{ONCE}"',
    "with comments": f"# Zertifizierungsstelle für DTR\nsubject=/CN=x\n{FIRST}\nzwei:\n{SECOND}",
    "beside a key": f"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{BOTH}",
    "the older label": BOTH.replace("CERTIFICATE", "X509 CERTIFICATE"),
    "PKCS7": P7B,
    "PKCS7 with the label CMS": P7B.replace("PKCS7", "CMS"),
    "PKCS7 with the label of a certificate": P7B.replace("PKCS7", "CERTIFICATE"),
    "PKCS7 with blanks in place of line breaks": P7B.replace("\n", " "),
    "PKCS7 as base64": base64.b64encode(P7B_DER).decode(),
    "PKCS7 as base64 in lines": base64.encodebytes(P7B_DER).decode(),
    "PEM as base64": base64.b64encode(BOTH.encode()).decode(),
}
FILES = {
    "PEM": BOTH.encode(),
    "PEM in UTF-16": BOTH.encode("utf-16"),
    "PEM after a byte order mark": b"\xef\xbb\xbf" + BOTH.encode(),
    "PKCS7": P7B_DER,
    "PKCS7 as PEM": P7B.encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_bundle_in_any_form_gives_the_same_certificates(form: str) -> None:
    # PKCS7 holds a set, and gives it in an order of its own.
    assert sorted(read_authorities(FORMS[form], "bundle")) == sorted(DER)


@pytest.mark.parametrize("form", FILES)
def test_file_in_any_form_gives_the_same_certificates(form: str, tmp_path: Path) -> None:
    file = tmp_path / "ca"
    file.write_bytes(FILES[form])
    assert read_ca_file(file) in {BOTH, SECOND + FIRST}
    file.write_bytes(DER[0])
    assert read_ca_file(file) == FIRST


def test_bundle_is_written_as_it_is_read() -> None:
    assert write_pem(read_authorities(ONCE, "bundle")) == BOTH


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            SECOND[:200] + "####" + SECOND[204:],
            "certificate 2 of 3 is damaged: there are characters in it that are not base64",
        ),
        (SECOND.replace("-----END CERTIFICATE-----", ""), "certificate 2 of 3 is cut off: its END line is missing"),
        (SECOND[:-40] + "-----END CERTIFICATE-----\n", "certificate 2 of 3 is damaged: "),
        (SECOND[:60] + SECOND[190:], "certificate 2 of 3 is damaged: it cannot be read as a certificate (X.509)"),
        (
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            "certificate 2 of 3 is damaged: it cannot be read",
        ),
        (
            SECOND.replace("BEGIN C", "BEGIN TRUSTED C").replace("END C", "END TRUSTED C"),
            "certificate 2 of 3 is in a form of OpenSSL's",
        ),
        (P7B[:300] + P7B[365:], "certificate 2 of 3 is damaged: it is PKCS7, and no certificate can be read from it"),
    ],
)
def test_damaged_certificate_among_good_ones_is_named_and_none_is_used(second: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_authorities(FIRST + second + FIRST, "bundle")
    text = str(refused.value)
    assert text.startswith(f"bundle: {said}")
    assert text.endswith("None of its certificates is used. Copy it again from where it came from")
    assert not any(line in text for line in (FIRST + second).splitlines() if len(line) > 30)


def test_many_damaged_certificates_are_counted_and_the_first_are_named() -> None:
    with pytest.raises(SettingsError, match=r"certificate 1 of 9 .*certificate 3 of 9 .*; and 6 more\."):
        read_authorities(FIRST.replace("M", "#", 1) * 9, "bundle")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "PEM of DTR",
        "x" * 1_000,
        base64.b64encode(b"0" * 50).decode(),
        "-----BEGIN PRIVATE KEY-----",
        "\\n" * 50,
    ],
)
def test_text_without_a_certificate_is_refused(text: str) -> None:
    with pytest.raises(
        SettingsError, match=r"^bundle:? (holds no certificate in PEM form|certificate 1 of 1 )"
    ) as refused:
        read_authorities(text, "bundle")
    assert "xxx" not in str(refused.value)


def test_secret_keeps_what_it_holds_of_a_bundle() -> None:
    secret = {"username": "auditor", "password": "example", "ca_bundle": ONCE}
    assert read_authorities(parse_secret(json.dumps(secret)).ca_bundle, "bundle") == DER
