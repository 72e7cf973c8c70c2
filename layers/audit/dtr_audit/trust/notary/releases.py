"""Which tags verified trust data releases, and who signed them."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from dtr_audit.trust.notary.cache import HASH_LENGTH
from dtr_audit.trust.notary.effort import Effort
from dtr_audit.trust.notary.metadata import (
    RELEASES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    Index,
    Targets,
)
from dtr_audit.trust.notary.reading import (
    Expiry,
    Release,
    SkippedDelegation,
    TagTrust,
)


@dataclass(slots=True)
class Tree:
    """What has been verified, as it grows."""

    root_ends: Expiry
    timestamp: Index
    snapshot: Index
    roles: dict[str, Targets] = field(default_factory=dict)  # in preorder
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lapsed: dict[str, tuple[SkippedDelegation, Targets]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)  # every role that is delegated to, whether it was read or not
    length: int = 0  # of what was read, in bytes


def hash_roles(tree: Tree) -> dict[str, str]:
    """Give the hash of what each role has signed; a document that lists and delegates nothing covers no tag anywhere."""
    return {
        name: hashlib.sha256(targets.message).hexdigest()[:HASH_LENGTH]
        for name, targets in tree.roles.items()
        if targets.targets or targets.delegations
    }


def collect_tags(tree: Tree, expiries: Mapping[str, Expiry], effort: Effort) -> dict[str, TagTrust]:
    """Put together what each role says of each tag."""
    for name, targets in (*tree.roles.items(), *((name, targets) for name, (_, targets) in tree.lapsed.items())):
        # With each path of the role, and then with each role.
        effort.compare_paths(len(targets.targets), len(tree.paths[name]) + len(tree.paths))
    listed = _by_tag(tree.roles.items(), tree.paths)
    lapsed = _by_tag(((name, targets) for name, (_, targets) in tree.lapsed.items()), tree.paths)
    order = _reading_order(tree.roles)
    return {
        tag: TagTrust(
            releases=_releases(listed.get(tag, {}), order, expiries),
            roles=tuple(listed.get(tag, {})),
            skipped_delegations=tuple(tree.lapsed[name][0] for name in lapsed.get(tag, {})),
        )
        for tag in {**listed, **lapsed}
    }


def _by_tag(
    roles: Iterable[tuple[str, Targets]], paths: Mapping[str, tuple[str, ...]]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Turn role -> tag -> digests round; a tag that is not under a role's paths is not its to sign."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, targets in roles:
        for tag, digests in targets.targets.items():
            if tag.startswith(paths[name]):
                found.setdefault(tag, {})[name] = digests
    return found


def _reading_order(roles: Iterable[str]) -> list[str]:
    """Order the roles as Docker's client asks them for a tag: breadth first, those under `targets/releases` before the others.

    Source: docker/cli, trust.go (`GetTargetByName(tag, ReleasesRole, targets)`); Notary, client/reader.go and tuf.go, WalkTargets.
    """
    by_depth: Callable[[str], int] = lambda name: name.count("/")  # noqa: E731
    ordered = sorted(roles, key=by_depth)
    is_first = {name: name == RELEASES or name.startswith(f"{RELEASES}/") for name in ordered}
    return [name for name in ordered if is_first[name]] + [name for name in ordered if not is_first[name]]


def _releases(
    listed: Mapping[str, tuple[str, ...]], order: list[str], expiries: Mapping[str, Expiry]
) -> tuple[Release, ...]:
    """Give the digests that are released under one tag, that which `docker pull` takes first."""
    first = next((name for name in order if name in listed), None)
    if first not in {RELEASES, TARGETS}:
        # docker/cli, trust.go: a tag found in any other role first is "No trust data" to it.
        return ()
    found: dict[tuple[str, ...], Release] = {}
    for name in (first, RELEASES, TARGETS):
        if name not in listed or listed[name][:1] in {digests[:1] for digests in found}:
            continue
        # The same manifest is the same sha256, whatever other hashes stand beside it.
        agreeing = tuple(role for role, digests in listed.items() if digests[:1] == listed[name][:1])
        hanging_on = {ROOT, SNAPSHOT, TARGETS, *agreeing, *(parent for role in agreeing for parent in _parents(role))}
        expires = min((expiries[role] for role in hanging_on), key=lambda expiry: expiry.when)
        found[listed[name]] = Release(listed[name], agreeing, expires)
    return tuple(found.values())


def _parents(role: str) -> Iterable[str]:
    parts = role.split("/")
    return ("/".join(parts[:length]) for length in range(1, len(parts)))
