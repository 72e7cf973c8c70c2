"""A small registry whose truth is known, with a Notary and a UCP: the same bytes in every process."""

import base64
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dtr_audit.core.credentials import Credentials, UcpCredentials
from dtr_audit.core.model import Repository
from dtr_audit_simulator.dtr.accounts import Account, Accounts, Tokens
from dtr_audit_simulator.dtr.api import DtrApi
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.manifests import COSIGN_SIGNATURE, FILESYSTEM, index_of, manifest_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.http.journal import Journal
from dtr_audit_simulator.notary import repository as trust_repository
from dtr_audit_simulator.notary.files import TARGETS
from dtr_audit_simulator.notary.keys import Key, KeyType
from dtr_audit_simulator.notary.notary import Notary
from dtr_audit_simulator.notary.repository import RELEASES, ROOT, SNAPSHOT, TIMESTAMP, TrustRepository
from dtr_audit_simulator.ucp.server import Configuration, UcpApi
from tests.fuzz.wire import Wire

HOST = "dtr.example"
UCP_HOST = "ucp.example"
USERNAME = "auditor"
PASSWORD = "Correct7Horse9Battery2Staple"  # of a registry that does not exist
PAGE_SIZE = 3
NOW = datetime(2026, 12, 1, 3, tzinfo=UTC)
BEGUN = NOW - timedelta(days=3)
APP = Repository("pay", "api")
OTHER = Repository("web", "shop")
ALICE, BOB, CI = "targets/alice", "targets/bob", "targets/ci"
ROLES = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP, RELEASES, ALICE, BOB, CI)

Signed = frozenset[tuple[str, str]]  # tags, each with its digest


class FixedTokens(Tokens):
    """Tokens that are the same in every process."""

    def write(self, account: str, *, service: str, access: tuple[str, ...], issued_at: float, expires_at: float) -> str:
        claims = json.dumps([account, service, access, issued_at, expires_at]).encode()
        parts = (b'{"typ":"JWT"}', claims, hashlib.sha512(claims).digest()[:32])
        return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@dataclass
class World:
    """What there is to be audited, and how it is reached."""

    wire: Wire
    notary: Notary
    credentials: Credentials = field(repr=False)
    signed: dict[Repository, Signed]  # by the Notary: with any of their signers' keys, released
    listed: dict[Repository, Signed]  # in any document of the Notary's at all

    def fetch(self, *, fresh: bool = False) -> Credentials:
        """Give the credentials, as the secret does."""
        return self.credentials

    def trust(self, repository: Repository) -> TrustRepository:
        """Give the trust data of a repository."""
        found = self.notary.find(f"{HOST}/{repository}")
        assert found is not None
        return found


def make_world() -> World:
    """Make it. Two of its repositories have trust data, and one is only said to be signed by the registry."""
    notary = Notary(lambda: BEGUN)
    registry = InMemoryRegistry(domain=HOST, clock=lambda: BEGUN, notary=notary)
    for repository in (APP, OTHER):
        for tag in ("1.0", "1.1", "2.0", "stale"):
            registry.push(repository.namespace, repository.name, tag)
    _push_artifacts(registry)
    for tag in ("1", "2"):
        registry.push("old", "base", tag)
    registry.sign("old", "base", "1")
    with patch.object(trust_repository, "_FILES", itertools.count(1)):
        for number, repository in enumerate((APP, OTHER)):
            _sign(registry, notary, repository, partial(make_key, number))
    accounts = Accounts([Account(USERNAME, PASSWORD, is_admin=True)])
    tokens = FixedTokens(lambda: 1_000.0)
    api = DtrApi(
        registry,
        accounts,
        host=HOST,
        ca_pem="",
        profile=Profile(),
        clock=lambda: 1_000.0,
        tokens=tokens,
        journal=Journal(),
        notary=notary,
    )
    ucp = UcpApi(accounts, Configuration(require_signature_from=("security",), allow_repos=("web/*",)), Journal())
    ucp._tokens = FixedTokens(lambda: 1_000.0)
    credentials = Credentials(USERNAME, PASSWORD, "", UcpCredentials(USERNAME, PASSWORD))
    return World(
        Wire({HOST: api.answer, UCP_HOST: ucp.answer}),
        notary,
        credentials,
        {one: _select(registry, one, ("1.0", "1.1")) for one in (APP, OTHER)},
        {one: _select(registry, one, ("1.0", "1.1", "2.0")) for one in (APP, OTHER)},
    )


def _select(registry: InMemoryRegistry, repository: Repository, names: tuple[str, ...]) -> Signed:
    tags = registry.tags(repository.namespace, repository.name, HOST)
    return frozenset((tag.name, tag.digest) for tag in tags if tag.name in names)


def _push_artifacts(registry: InMemoryRegistry) -> None:
    """Push a signature, an index of signatures, and an image that is named like a signature."""
    signature = manifest_of("a signature", COSIGN_SIGNATURE)
    other = manifest_of("another signature", COSIGN_SIGNATURE)
    registry.push("pay", "api", "1.0.sig", manifest=signature)
    registry.push("pay", "api", "sha256-" + "ab" * 32, manifest=index_of([other]))
    registry.keep("pay", "api", other)
    registry.push("pay", "api", "2.0.sig", manifest=manifest_of("an image", FILESYSTEM))


def _sign(registry: InMemoryRegistry, notary: Notary, repository: Repository, make: Callable[..., Key]) -> None:
    """Sign 1.0 by Alice and Bob and 1.1 by Bob; 2.0 in no released role, and `stale` as what it was before."""
    gun = f"{HOST}/{repository}"
    keys = {role: (make(role),) for role in (TARGETS, SNAPSHOT, TIMESTAMP)}
    trust = notary.create(gun, keys={**keys, ROOT: (make_root_key(gun),)})
    digests = {tag.name: tag.digest for tag in registry.tags(repository.namespace, repository.name, HOST)}
    with trust.batch():
        trust.add_signer("alice", make(ALICE))
        trust.add_signer("bob", make(BOB))
        trust.add_delegation(CI, make(CI), paths=("ci-",))
    trust.sign("1.0", digests["1.0"], signer="alice")
    trust.sign("1.0", digests["1.0"], signer="bob")
    trust.sign("1.1", digests["1.1"], signer="bob")
    trust.sign("stale", "sha256:" + "5" * 64, signer="bob")
    trust.sign("2.0", digests["2.0"], roles=(CI,))


def make_key(number: int, role: str) -> Key:
    """Make the key of a role: the same one each time, as are its signatures."""
    private = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{number} {role}".encode()).digest())
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return Key(KeyType.ED25519, "eddsa", public, private.sign)


def make_root_key(gun: str) -> Key:
    """Make a root's key, with its certificate: the same one each time, as are its signatures."""
    private = ec.derive_private_key(int.from_bytes(hashlib.sha256(gun.encode()).digest()) >> 1, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, gun)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(7)
        .not_valid_before(BEGUN - timedelta(days=1))
        .not_valid_after(BEGUN + timedelta(days=3_650))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .sign(private, hashes.SHA256(), ecdsa_deterministic=True)
    )

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return Key(KeyType.ECDSA_X509, "ecdsa", certificate.public_bytes(serialization.Encoding.PEM), sign)
