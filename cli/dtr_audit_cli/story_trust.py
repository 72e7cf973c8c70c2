"""Trust data for the demonstration's registry: who signs what, and the one tag whose trust data does not do.

`publish_trust` gives every signature of the story (`dtr_audit_cli.story`) its place in a Notary. Each tag is signed by the CI, in
some teams by somebody else besides, and all of it holds. One tag is signed by a single person who may sign, but is none of
those who have to: the registry calls it signed, and so does the check's own loop.
"""

from __future__ import annotations

from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.notary.files import TARGETS
from dtr_audit_simulator.notary.notary import Notary
from dtr_audit_simulator.notary.repository import RELEASES, TrustRepository

SIGNER = "ci"
SECOND_SIGNERS = {"payments": "release-board", "platform": "security"}

# Within what the check's own loop gets to see: it takes this tag for signed.
UNTRUSTED = ("data", "clickstream", "1.6.0")
LONE_SIGNER = "k-lindqvist"


def publish_trust(notary: Notary, registry: InMemoryRegistry) -> None:
    """Sign in the Notary what `registry.sign` has signed, under the registry's own domain.

    To be done again after changes: only what differs is published. Raises ValueError before the registry's server has
    started, as nobody knows the domain until then.
    """
    if not registry.domain:
        raise ValueError("the registry has no domain yet: start its server first")
    for repository in registry.repositories():
        if signatures := registry.signatures(repository.namespace, repository.name):
            gun = f"{registry.domain}/{repository.path}"
            trust = notary.find(gun) or notary.create(gun)
            _sign(trust, repository.namespace, repository.name, signatures)


def _sign(trust: TrustRepository, namespace: str, name: str, signatures: dict[str, str]) -> None:
    known = trust.released()
    second = SECOND_SIGNERS.get(namespace)
    with trust.batch():
        if RELEASES not in trust.roles:
            for signer in filter(None, (SIGNER, second)):
                trust.add_signer(signer)
        for tag, digest in signatures.items():
            if known.get(tag) == digest:
                continue
            if (namespace, name, tag) == UNTRUSTED:
                trust.add_signer(LONE_SIGNER)
                trust.sign(tag, digest, signer=LONE_SIGNER)
                continue
            trust.sign(tag, digest, signer=SIGNER)
            if second:
                trust.sign(tag, digest, roles=[f"{TARGETS}/{second}"])
