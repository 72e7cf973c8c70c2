"""A Notary of the v1 format in memory, that really signs: trust data for tests and demonstrations.

One `Notary` keeps the trust data of many repositories, each under its globally unique name (GUN), which is
`<domain>/<namespace>/<repository>`:

    notary = Notary()                                         # or Notary(clock=…): the time is an argument
    api = notary.create("dtr.example/payments/api")           # root.json, targets.json, snapshot.json, timestamp.json

The repository's own key signs a tag, as `notary addhash` and a first `docker push` with content trust do. Docker calls
that signer "Repo Admin":

    api.sign("1.0", "sha256:…")

Signers have delegations of their own. `docker trust signer add ci` makes `targets/ci` and adds its key to
`targets/releases`; `docker trust sign` lists the tag in both, signed by that signer's key alone:

    api.add_signer("ci")
    api.sign("1.1", "sha256:…", signer="ci")
    api.sign("1.2", "sha256:…", roles=["targets/releases"])   # or in any roles at all

A delegation can be nested, confined to tags of some prefixes, and need several keys:

    api.add_delegation("targets/qa", make_key(), make_key(), threshold=2, paths=["1."])
    api.add_delegation("targets/qa/nightly", make_key(KeyType.ED25519))

Every verb publishes: new versions of the files that it changes, a new snapshot, a new timestamp. Many verbs become
one publication in a batch:

    with api.batch():
        for tag, digest in tags.items():
            api.sign(tag, digest, signer="ci")

What happens to trust data over the years:

    api.rotate("targets")                  # a new key; also "root", whose new version is signed by the old key too
    api.rotate("root", make_key(KeyType.ECDSA_X509, name=api.gun), threshold=1)
    api.remove_signer("ci")
    api.remove_delegation("targets/qa")
    api.set_expiry("targets/ci", yesterday)
    api.renew_timestamp()                  # nobody else does: a real server signs an expired timestamp anew when asked
    api.reinitialise()                     # a new root that no old one vouches for; versions begin at 1 again

What is served is found by role, and by hash or version, also of what was published before:

    api.find("root"), api.find("root", version=1), api.find("targets/ci", sha256="…")

`Notary.changes` is the changefeed. `dtr_audit_simulator.dtr.server` serves all this at the paths of a DTR. Every dishonest thing
that can be done to trust data is an attack in `attacks`, and becomes a fault of the server by `Forged` in
`dtr_audit_simulator.dtr.faults`. Attacks happen to a copy: the repository itself stays honest.
"""

from dtr_audit_simulator.notary.attacks import Attack
from dtr_audit_simulator.notary.files import TARGETS
from dtr_audit_simulator.notary.keys import Key, KeyType, RootAuthority, make_key
from dtr_audit_simulator.notary.notary import Notary
from dtr_audit_simulator.notary.repository import RELEASES, ROOT, SNAPSHOT, TIMESTAMP, TrustRepository

__all__ = [
    "RELEASES",
    "ROOT",
    "SNAPSHOT",
    "TARGETS",
    "TIMESTAMP",
    "Attack",
    "Key",
    "KeyType",
    "Notary",
    "RootAuthority",
    "TrustRepository",
    "make_key",
]
