"""Certificates of authorities in every form in which people are handed them, and why a server's own certificate is refused.

`cryptography` is loaded only for PKCS7, and to explain a refusal.
"""

import base64
import binascii
import re
import ssl
import warnings
from _ssl import ENCODING_DER
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dtr_audit.core.text import clean
from dtr_audit.errors import SettingsError

if TYPE_CHECKING:
    from cryptography import x509

BUNDLES_REMEMBERED = 4
FAULTS_NAMED = 3
NAMES_SHOWN = 3
NAME_LENGTH = 100  # characters of a name in a message

_BEGIN = re.compile(r"-----\s*BEGIN\s*([A-Z0-9 ]+?)\s*-----")
_LABELS = frozenset({"CERTIFICATE", "X509CERTIFICATE", "TRUSTEDCERTIFICATE", "PKCS7", "CMS"})
_ESCAPED_BREAK = re.compile(r"\\+[nrt]")
_ESCAPED_SLASH = re.compile(r"\\+/")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")
_SEQUENCE = 0x30  # begins every certificate and every PKCS7 in DER form
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")  # 1.2.840.113549.1.7.2: what a .p7b is
_SIGNED_DATA_WITHIN = 32  # bytes of its beginning
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

# OpenSSL's errors of verification (x509_vfy.h).
_SIGNATURE_FAILURE = 7
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_NO_ISSUER = frozenset({2, 19, 20, 21})
_OTHER_HOST = frozenset({62, 64})


@lru_cache(maxsize=BUNDLES_REMEMBERED)
def read_authorities(content: str | bytes, name: str) -> tuple[bytes, ...]:
    """Give the certificates of a bundle as DER; raises SettingsError that begins with `name` and quotes nothing.

    A bundle is PEM, also with blanks in place of its line breaks or with breaks that were escaped twice, or PKCS7 (.p7b), or one
    of the two as DER or as the base64 of that. Comments and keys beside the certificates are passed over. If one certificate is
    damaged, none is taken.
    """
    faults: list[str] = []
    found: list[bytes] = []
    blocks = _blocks(content)
    for number, (der, damage) in enumerate(blocks, start=1):
        certificates, why = ([], damage) if damage else _certificates_in(der)
        found += certificates
        if why:
            faults.append(f"certificate {number} of {len(blocks)} {why}")
    if faults:
        more = f"; and {len(faults) - FAULTS_NAMED} more" if len(faults) > FAULTS_NAMED else ""
        raise SettingsError(
            f"{name}: {'; '.join(faults[:FAULTS_NAMED])}{more}. None of its certificates is used. Copy it again from where it "
            "came from"
        )
    if not found:
        raise SettingsError(
            f"{name} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----), nor as PKCS7 (.p7b), nor the base64 of one in "
            "DER form"
        )
    return tuple(found)


def write_pem(certificates: Sequence[bytes]) -> str:
    """Write certificates as PEM, one after the other."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates))


def _blocks(content: str | bytes) -> list[tuple[bytes, str]]:
    """Give what may be a certificate or a PKCS7, as DER, with what is wrong with it; '' if that is not known yet."""
    if isinstance(content, bytes):
        if content[:1] == bytes([_SEQUENCE]) and b"-----" not in content:
            return [(content, "")]
        # Comments may be in any encoding; PEM itself is ASCII.
        content = content.decode("utf-16", "replace") if content[:2] in _UTF_16 else content.decode("latin-1")
    text = _ESCAPED_SLASH.sub("/", _ESCAPED_BREAK.sub("\n", content))
    if "-----" in text:
        return list(_pem_blocks(text))
    whole = "".join(text.split()).strip('"')
    if not _BASE64.fullmatch(whole):
        return []
    try:
        inner = base64.b64decode(whole, validate=True)
    except binascii.Error:
        return [(b"", "is damaged: its base64 is cut short")]
    if b"-----" in inner:
        return list(_pem_blocks(inner.decode("latin-1")))
    return [(inner, "")] if inner[:1] == bytes([_SEQUENCE]) else []


def _pem_blocks(text: str) -> Iterator[tuple[bytes, str]]:
    for begin in _BEGIN.finditer(text):
        label = "".join(begin[1].split())
        if label not in _LABELS:
            continue
        end = text.find("-----", begin.end())
        is_closed = end >= 0 and re.match(rf"-----\s*END\s*{re.escape(begin[1])}\s*-----", text[end : end + 100])
        body = "".join(text[begin.end() : end if end >= 0 else len(text)].split())
        if not is_closed:
            yield b"", "is cut off: its END line is missing"
        elif label == "TRUSTEDCERTIFICATE":
            yield b"", "is in a form of OpenSSL's own: write it as PEM by `openssl x509 -in FILE`"
        elif not re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", body):
            yield b"", "is damaged: there are characters in it that are not base64"
        else:
            try:
                yield base64.b64decode(body, validate=True), ""
            except binascii.Error:
                yield b"", "is damaged: its base64 is cut short"


def _certificates_in(der: bytes) -> tuple[list[bytes], str]:
    """Give the certificates of a PKCS7, or the one that it is, and what is wrong with it, '' if nothing is."""
    certificates = _open_pkcs7(der) if _SIGNED_DATA in der[:_SIGNED_DATA_WITHIN] else [der]
    if not certificates:
        return [], "is damaged: it is PKCS7, and no certificate can be read from it"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        for one in certificates:
            context.load_verify_locations(cadata=one)
    except (ssl.SSLError, ValueError):
        return [], "is damaged: it cannot be read as a certificate (X.509)"
    return certificates, ""


def _open_pkcs7(der: bytes) -> list[bytes]:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7  # noqa: PLC0415

    try:
        return [one.public_bytes(Encoding.DER) for one in pkcs7.load_der_pkcs7_certificates(der)]
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return []


# -- why a certificate is refused ------------------------------------------------------------------------------------------


class RefusedCertificateError(ssl.SSLCertVerificationError):
    """A server's certificate was refused."""

    sent: tuple[bytes, ...] = ()  # what the server sent, as DER, its own first; () where Python does not tell


class ExplainingSocket(ssl.SSLSocket):
    """A TLS connection that keeps what a server has sent if its certificate is refused."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands; raises RefusedCertificateError."""
        try:
            super().do_handshake(block)
        except ssl.SSLCertVerificationError as error:
            refused = RefusedCertificateError(*error.args)
            refused.verify_code, refused.verify_message = error.verify_code, error.verify_message
            refused.sent = _sent_by(self)
            raise refused from error


def _sent_by(connection: ssl.SSLSocket) -> tuple[bytes, ...]:
    # Python 3.13 has a public name for it, which older ones have not.
    tell: Callable[[], Sequence[Any] | None] | None
    tell = getattr(getattr(connection, "_sslobj", None), "get_unverified_chain", None)
    return tuple(one.public_bytes(ENCODING_DER) for one in tell() or ()) if tell is not None else ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong with a certificate, and what is to be done about it."""

    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A certificate that was refused, and by whom it should have been issued."""

    code: int  # OpenSSL's
    sent: tuple[bytes, ...]
    authorities: tuple[bytes, ...]  # (): the public ones
    host: str
    server: str  # in the words of messages, such as `the registry`
    url_setting: str
    bundle: str
    is_strict: bool  # a Common Name is not read

    def explain(self) -> Refusal | None:
        """Say why in words that name the remedy; None if nothing is known beyond OpenSSL's own words."""
        if not self.sent:
            return None
        from cryptography import x509  # noqa: PLC0415

        try:
            with warnings.catch_warnings(action="ignore"):
                sent, authorities = (
                    [x509.load_der_x509_certificate(one) for one in some] for some in (self.sent, self.authorities)
                )
                return self._explain(sent, authorities)
        except Exception:  # noqa: BLE001 - the certificate is a stranger's, and why it is refused must not hide that it is
            return None

    def _explain(self, sent: "list[x509.Certificate]", authorities: "list[x509.Certificate]") -> Refusal | None:
        if self.code in _OTHER_HOST:
            return self._explain_host(sent[0])
        if self.code == _EXPIRED:
            return self._explain_expiry(sent, authorities)
        if self.code == _NOT_YET_VALID:
            begins = max(one.not_valid_before_utc for one in sent)
            return Refusal(
                f"it is valid only from {_moment(begins)} on",
                f"See whether the clock of {self.server}, or of who issued it, is wrong",
            )
        if self.code == _SELF_SIGNED:
            return Refusal(
                "it is signed by itself, and is none of the authorities",
                f"If it is the very certificate that {self.server} was given, put it into {self.bundle} in the secret",
            )
        if self.code in _NO_ISSUER or self.code == _SIGNATURE_FAILURE:
            return self._explain_issuer(sent, authorities)
        return None

    def _explain_host(self, own: "x509.Certificate") -> Refusal:
        from cryptography import x509  # noqa: PLC0415

        try:
            known = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            common = _common_name(own.subject)
            strictly = "; until then X509_STRICT false takes the Common Name" if self.is_strict else ""
            return Refusal(
                f"it has no subjectAltName, only the Common Name '{common}', which Docker's clients do not take either",
                f"Have it issued again with {self.host} as a subjectAltName"
                + (strictly if common.lower() == self.host.lower() else ""),
            )
        names = [*known.get_values_for_type(x509.DNSName), *map(str, known.get_values_for_type(x509.IPAddress))]
        shown = ", ".join(clean(one, NAME_LENGTH) for one in names[:NAMES_SHOWN]) or "no host at all"
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return Refusal(
            f"it is for {shown}{more}, and not for {self.host}",
            f"Set {self.url_setting} to a name that it is for, or have it issued again for {self.host}",
        )

    def _explain_expiry(self, sent: "list[x509.Certificate]", authorities: "list[x509.Certificate]") -> Refusal | None:
        now = datetime.now(UTC)
        own, *others = sent
        if own.not_valid_after_utc < now:
            return Refusal(
                f"it expired on {_moment(own.not_valid_after_utc)}",
                f"Renew {self.server}'s certificate",
            )
        for one in others:
            if one.not_valid_after_utc < now:
                return Refusal(
                    f"the certificate of '{_name(one.subject)}', which {self.server} sends with its own, expired on "
                    f"{_moment(one.not_valid_after_utc)}",
                    f"Let {self.server} send the renewed one",
                )
        for one in authorities:
            if one.not_valid_after_utc < now:
                return Refusal(
                    f"the authority '{_name(one.subject)}' in {self.bundle} expired on {_moment(one.not_valid_after_utc)}",
                    f"Put the renewed authority into {self.bundle} in the secret",
                )
        return None

    def _explain_issuer(self, sent: "list[x509.Certificate]", authorities: "list[x509.Certificate]") -> Refusal:
        top = _top_of(sent)
        issuer = _name(top.issuer)
        if not authorities:
            return Refusal(
                f"it was issued by '{issuer}', which no public authority is known to vouch for",
                f"If a private authority issued it, put that authority's certificate into {self.bundle} in the secret",
            )
        if any(one.subject == top.issuer for one in authorities):
            return Refusal(
                f"it was issued by an authority with the name of one in {self.bundle}, '{issuer}', and with another key",
                f"Put the authority's present certificate into {self.bundle} in the secret",
            )
        remedy = f"{self.bundle} in the secret holds another authority: put the certificate of '{issuer}' in, if you trust it"
        if top is sent[0] and top.issuer != top.subject and any(map(_may_have_intermediates, authorities)):
            return Refusal(
                f"it was issued by '{issuer}', whose certificate is neither sent with it nor in {self.bundle}",
                f"If '{issuer}' is an intermediate authority, let {self.server} send its certificate along, or put that into "
                f"{self.bundle} in the secret. Otherwise {remedy}",
            )
        return Refusal(f"it was issued by the wrong authority, '{issuer}'", remedy[:1].upper() + remedy[1:])


def _top_of(sent: "list[x509.Certificate]") -> "x509.Certificate":
    """Follow the issuers of a server's own certificate as far as it has sent them."""
    top = sent[0]
    for _ in sent:
        above = next((one for one in sent if one.subject == top.issuer and one.subject != top.subject), None)
        if above is None:
            break
        top = above
    return top


def _may_have_intermediates(authority: "x509.Certificate") -> bool:
    from cryptography import x509  # noqa: PLC0415

    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return True
    return constraints.ca and constraints.path_length != 0


def _name(name: "x509.Name") -> str:
    return clean(name.rfc4514_string(), NAME_LENGTH)


def _common_name(name: "x509.Name") -> str:
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return clean(found[0].value, NAME_LENGTH) if found else ""


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
