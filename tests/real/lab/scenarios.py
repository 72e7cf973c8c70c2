"""Honest repositories as the vendor's tools leave them, each with something in its trust data that others do not have.

Every function makes one repository, whose name it is given, with at least one tag. `HONEST` names them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tests.real.lab.registry import RealRegistry
from tests.real.lab.tampering import TARGETS, Signed, expire_in
from tests.real.lab.trust import RELEASES

TAG = "1.0"
SOON = 1.5  # seconds that short-lived trust data lives: enough for the Notary to accept it


def sign_by_one_key(registry: RealRegistry, namespace: str, name: str) -> None:
    """Sign two tags by the repository's own key, and a third not at all; then take one signature back."""
    for tag in (TAG, "2.0", "3.0"):
        registry.push_image(namespace, name, tag)
    registry.sign(namespace, name, TAG)
    registry.sign(namespace, name, "2.0")
    registry.revoke(namespace, name, "2.0")


def sign_by_several(registry: RealRegistry, namespace: str, name: str) -> None:
    """Sign one tag by two signers, a second by one of them and a third by the repository's own key."""
    for tag in (TAG, "2.0", "3.0"):
        registry.push_image(namespace, name, tag)
    registry.sign(namespace, name, TAG, signer="alice")
    registry.sign(namespace, name, TAG, signer="bob")
    registry.sign(namespace, name, "2.0", signer="bob")
    registry.sign(namespace, name, "3.0")


def sign_by_signers_who_disagree(registry: RealRegistry, namespace: str, name: str) -> None:
    """Sign a tag by one signer, push over it, and sign what is there now by another."""
    registry.push_image(namespace, name, TAG)
    registry.sign(namespace, name, TAG, signer="alice")
    registry.push_image(namespace, name, TAG)
    registry.sign(namespace, name, TAG, signer="bob")


def sign_by_a_signer_alone(registry: RealRegistry, namespace: str, name: str) -> None:
    """Sign one tag in full, and list a second in a signer's own role only: it is not released."""
    registry.push_image(namespace, name, TAG)
    registry.push_image(namespace, name, "2.0")
    registry.sign(namespace, name, TAG, signer="alice")
    registry.list_in(namespace, name, "2.0", "targets/alice")


def sign_by_nested_delegations(registry: RealRegistry, namespace: str, name: str) -> None:
    """Delegate tags that begin with `ci-` to a role, and of these the nightly ones further down; sign in both."""
    for tag in ("ci-1", "ci-nightly-1", TAG):
        registry.push_image(namespace, name, tag)
    registry.sign(namespace, name, TAG)
    registry.delegate(namespace, name, "targets/ci", "carol", paths=("ci-",))
    registry.delegate(namespace, name, "targets/ci/nightly", "dave", paths=("ci-nightly-",))
    registry.list_in(namespace, name, "ci-1", "targets/ci")
    registry.list_in(namespace, name, "ci-nightly-1", "targets/ci/nightly")


def sign_by_an_rsa_key(registry: RealRegistry, namespace: str, name: str) -> None:
    """Sign a tag by a signer whose certificate holds an RSA key, as client bundles of old did."""
    registry.push_image(namespace, name, TAG)
    registry.sign(namespace, name, TAG, signer="rsa-user")


def sign_by_two_keys_of_one_role(registry: RealRegistry, namespace: str, name: str) -> None:
    """Demand the signatures of two keys in one role, which only trust data written by hand can, and have both."""
    registry.push_image(namespace, name, TAG)
    registry.sign(namespace, name, TAG, signer="alice")
    registry.delegate(namespace, name, RELEASES, "bob")
    raise_threshold(registry, namespace, name, RELEASES, 2)
    keys = registry.signer_client.read_keys()
    registry.desk.republish(registry.gun(namespace, name), RELEASES, keys, lambda _: None)


def miss_a_threshold(registry: RealRegistry, namespace: str, name: str) -> None:
    """Demand the signatures of two keys in one role, which has one: the role counts no more."""
    registry.push_image(namespace, name, TAG)
    registry.push_image(namespace, name, "2.0")
    registry.sign(namespace, name, TAG, signer="alice")
    registry.sign(namespace, name, "2.0")
    registry.delegate(namespace, name, RELEASES, "bob")
    raise_threshold(registry, namespace, name, RELEASES, 2)


def rotate_the_targets_key(registry: RealRegistry, namespace: str, name: str) -> None:
    """Replace the repository's own key, before one of two signatures."""
    sign_by_several(registry, namespace, name)
    registry.rotate_key(namespace, name, TARGETS)
    registry.sign(namespace, name, "2.0")


def rotate_the_servers_keys(registry: RealRegistry, namespace: str, name: str) -> None:
    """Replace the keys of the snapshot and of the timestamp, which the server holds."""
    sign_by_several(registry, namespace, name)
    registry.rotate_key(namespace, name, "snapshot", by_server=True)
    registry.rotate_key(namespace, name, "timestamp", by_server=True)


def rotate_the_root_key(registry: RealRegistry, namespace: str, name: str) -> None:
    """Replace the root key twice, with signatures between."""
    registry.push_image(namespace, name, TAG)
    registry.push_image(namespace, name, "2.0")
    registry.sign(namespace, name, TAG)
    registry.rotate_key(namespace, name, "root")
    registry.sign(namespace, name, "2.0")
    registry.rotate_key(namespace, name, "root")


def remove_a_delegation(registry: RealRegistry, namespace: str, name: str) -> None:
    """Take one of two signers out of the repository."""
    sign_by_several(registry, namespace, name)
    registry.remove_delegation(namespace, name, "targets/bob")


def bring_a_signer_back(registry: RealRegistry, namespace: str, name: str) -> None:
    """Take a signer out and let him in again with the same key: what he signed before counts again."""
    remove_a_delegation(registry, namespace, name)
    registry.delegate(namespace, name, "targets/bob", "bob")


def replace_a_signers_key(registry: RealRegistry, namespace: str, name: str) -> None:
    """Replace the key by which a signer has signed: what he signed counts no more."""
    registry.push_image(namespace, name, TAG)
    registry.push_image(namespace, name, "2.0")
    registry.sign(namespace, name, TAG, signer="alice")
    registry.sign(namespace, name, "2.0")
    for role in (RELEASES, "targets/alice"):
        [old] = [found.keys for found in registry.list_delegations(namespace, name) if found.role == role]
        registry.delegate(namespace, name, role, "alices-new-key")
        registry.remove_delegation(namespace, name, role, *old)


def reinitialise(registry: RealRegistry, namespace: str, name: str) -> None:
    """Delete a repository's trust data, and begin anew under another root."""
    sign_by_several(registry, namespace, name)
    registry.reinitialise(namespace, name)
    registry.sign(namespace, name, "2.0", signer="carol")


def let_a_delegation_expire(registry: RealRegistry, namespace: str, name: str) -> None:
    """Let what one of two signers has signed expire."""
    sign_by_several(registry, namespace, name)
    let_expire(registry, namespace, name, "targets/bob")


def let_the_targets_expire(registry: RealRegistry, namespace: str, name: str) -> None:
    """Let the repository's own role expire."""
    sign_by_one_key(registry, namespace, name)
    let_expire(registry, namespace, name, TARGETS)


def let_the_root_expire(registry: RealRegistry, namespace: str, name: str) -> None:
    """Let the root expire."""
    sign_by_one_key(registry, namespace, name)
    let_expire(registry, namespace, name, "root")


def sign_as_docker(registry: RealRegistry, namespace: str, name: str) -> None:
    """Sign by Docker's client alone, with a key that it has generated."""
    registry.push_image(namespace, name, TAG)
    registry.sign(namespace, name, TAG)
    registry.add_docker_signer(namespace, name, "erin", generated=True)
    registry.docker_sign(namespace, name, TAG)


def sign_nothing(registry: RealRegistry, namespace: str, name: str) -> None:
    """Make trust data in which no tag is signed."""
    registry.push_image(namespace, name, TAG)
    registry.sign(namespace, name, TAG)
    registry.revoke(namespace, name, TAG)


def push_only(registry: RealRegistry, namespace: str, name: str) -> None:
    """Make no trust data at all."""
    registry.push_image(namespace, name, TAG)


Scenario = Callable[[RealRegistry, str, str], None]

HONEST: Mapping[str, Scenario] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        sign_by_one_key,
        sign_by_several,
        sign_by_signers_who_disagree,
        sign_by_a_signer_alone,
        sign_by_nested_delegations,
        sign_by_an_rsa_key,
        sign_by_two_keys_of_one_role,
        miss_a_threshold,
        rotate_the_targets_key,
        rotate_the_servers_keys,
        rotate_the_root_key,
        remove_a_delegation,
        bring_a_signer_back,
        replace_a_signers_key,
        reinitialise,
        let_a_delegation_expire,
        let_the_targets_expire,
        let_the_root_expire,
        sign_as_docker,
        sign_nothing,
        push_only,
    )
}


def raise_threshold(registry: RealRegistry, namespace: str, name: str, role: str, threshold: int) -> None:
    """Demand so many signatures in a delegation."""

    def change(signed: Signed) -> None:
        for entry in signed["delegations"]["roles"]:
            if entry["name"] == role:
                entry["threshold"] = threshold

    parent, _, _ = role.rpartition("/")
    registry.desk.republish(registry.gun(namespace, name), parent, registry.signer_client.read_keys(), change)


def let_expire(registry: RealRegistry, namespace: str, name: str, role: str) -> None:
    """Publish a role again, with a short life, and wait for its end."""
    keys = registry.signer_client.read_keys()
    registry.desk.republish(registry.gun(namespace, name), role, keys, expire_in(SOON))
    time.sleep(SOON)
