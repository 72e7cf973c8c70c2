"""Which root is trusted: its certificates, the settings' pins, and the way from one root to the next.

Source: Notary, trustpinning/{certs,trustpin}.go. As there, a key counts for a root only as a bundle of certificates (`…-x509`) of
which the first, and no other, is not an authority's; it names the GUN, or the beginning of it with `*` behind, as its common name;
it is valid now, a day of grace before its beginning; it is not signed with SHA-1. A bare key never does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from dtr_audit.errors import SettingsError
from dtr_audit.trust.notary.effort import Effort
from dtr_audit.trust.notary.keys import KEY_ERRORS, certificates, load, public_key_id, verify_document
from dtr_audit.trust.notary.metadata import ROOT, Key, Root
from dtr_audit.trust.notary.policy import Pin
from dtr_audit.trust.notary.reading import Defect, Expiry, TrustDefectError

GRACE = timedelta(days=1)
CHAIN = 5  # certificates between a root's own and the pinned authority
EARLIEST = datetime(1951, 1, 1)  # noqa: DTZ001 - what `cryptography` takes for a moment has no zone and means UTC


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A key that may count for a root."""

    key: Key
    chain: Sequence[x509.Certificate]

    @property
    def begins(self) -> datetime:
        return self.chain[0].not_valid_before_utc

    @property
    def ends(self) -> datetime:
        return self.chain[0].not_valid_after_utc


def verify_root(root: Root, gun: str, pin: Pin | None, now: datetime, effort: Effort) -> Expiry:
    """Verify that a root holds by its own keys, and is pinned if anything is; gives when it ends to. Raises FlawError.

    Its own expiry is not looked at: a root between two others may have expired.
    """
    candidates = [candidate for key in root.roles[ROOT].keys if (candidate := _candidate(key, gun, now)) is not None]
    if not candidates:
        raise TrustDefectError(
            Defect.SIGNATURE,
            ROOT,
            f"signature invalid: root has no key whose certificate is valid today and was issued for {gun}",
        )
    if pin is not None:
        candidates = [candidate for candidate in candidates if _is_pinned(candidate, pin, now)]
        if not candidates:
            shown = ", ".join(sorted(key.id for key in root.roles[ROOT].keys)[:3])
            raise TrustDefectError(
                Defect.NOT_PINNED,
                ROOT,
                f"root not pinned: its keys ({shown}) are not those that the settings pin for {pin.pattern}. If the publisher "
                "confirms the new root key, pin it",
            )
    threshold = root.roles[ROOT].threshold
    signed = verify_document(root, [candidate.key for candidate in candidates], threshold, "its own root keys", effort)
    # With fewer valid certificates than the threshold it holds no more.
    ends = sorted((candidate.ends for candidate in candidates if candidate.key.id in signed), reverse=True)
    return Expiry(ROOT, min(root.expires, ends[threshold - 1]))


def is_pinned(root: Root, gun: str, pin: Pin, now: datetime) -> bool:
    """Tell whether a pin covers a root that was trusted before, though its certificate may have expired since."""
    candidates = (_candidate(key, gun, None) for key in root.roles[ROOT].keys)
    return any(
        candidate is not None and _is_pinned(candidate, pin, min(max(now, candidate.begins), candidate.ends))
        for candidate in candidates
    )


def successor_keys(root: Root, gun: str) -> list[Key]:
    """Give the keys of a trusted root that may sign the next one: also such as have expired since (certs.go)."""
    return [key for key in root.roles[ROOT].keys if _candidate(key, gun, None) is not None]


def check_authorities(pem: str) -> None:
    """Raise SettingsError if a pin's authorities are not certificates."""
    _authorities(pem)


def _candidate(key: Key, gun: str, now: datetime | None) -> _Candidate | None:
    chain = certificates(key)
    if not chain or load(key) is None:
        return None
    try:
        own, *others = chain
        if _is_authority(own) or not all(map(_is_authority, others)) or not _is_for(own, gun):
            return None
        if own.not_valid_before_utc > own.not_valid_after_utc or isinstance(own.signature_hash_algorithm, hashes.SHA1):
            return None
        if now is not None and not own.not_valid_before_utc - GRACE <= now <= own.not_valid_after_utc:
            return None
    except (*KEY_ERRORS, OverflowError):
        return None
    return _Candidate(key, chain)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_for(certificate: x509.Certificate, gun: str) -> bool:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names or not isinstance(names[-1].value, str):
        return False
    name = names[-1].value  # Go keeps the last, should there be several
    return gun.startswith(name.rstrip("*")) if name.endswith("*") else gun == name


def _is_pinned(candidate: _Candidate, pin: Pin, now: datetime) -> bool:
    if {candidate.key.id, public_key_id(candidate.key)} & pin.key_ids:
        return True
    return bool(pin.authorities) and _is_certified(candidate, pin.authorities, now)


def _is_certified(candidate: _Candidate, pem: str, now: datetime) -> bool:
    """Tell whether a chain leads from a root's certificate to a pinned authority.

    What the certificate is for is not looked at: Go's client asks for one of a TLS server here, which Notary's own are not.
    """
    own, *others = candidate.chain
    moment = max(now.replace(tzinfo=None), EARLIEST)
    verifier = (
        PolicyBuilder()
        .store(Store(_authorities(pem)))
        .time(moment)
        .max_chain_depth(CHAIN)
        .extension_policies(ca_policy=_authority_policy(), ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(own, others)
    except (VerificationError, *KEY_ERRORS, x509.UnsupportedGeneralNameType):
        return False
    return True


def _authority_policy() -> ExtensionPolicy:
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _require_authority)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_signing)
    )


def _require_authority(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("not an authority")


def _require_signing(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("not for signing certificates")


def _authorities(pem: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except KEY_ERRORS:
        raise SettingsError(
            "a pinned certificate authority of the Notary's roots is not a certificate in PEM form"
        ) from None
