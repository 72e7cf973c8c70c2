"""One repository's trust data, read and verified.

The order is that of Notary's client (client/tufclient.go, Update and downloadTargets): timestamp, snapshot, targets, and the
delegations in preorder; each document must be the one that the signed index names, signed by its role's keys, in date, and no
older than what was seen before. Only if something does not hold is the root asked for anew, and everything tried once more.
Of a delegation that has expired or lacks signatures only that delegation is lost, with those below it; anything else that is
wrong with it is wrong with the whole.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeVar

from dtr_audit.core.hosts import canonical_gun
from dtr_audit.core.model import PassingFault, iso
from dtr_audit.errors import AuditError, OutOfTimeError, SettingsError, TransientError, TrustDataError
from dtr_audit.trust.notary.cache import DOCUMENT_BYTES, ROOT_BYTES, TrustMemory, keep_signed, mark_reused
from dtr_audit.trust.notary.effort import Effort, EffortError, refusal_of
from dtr_audit.trust.notary.keys import is_signed_by, verify_document
from dtr_audit.trust.notary.metadata import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Document,
    FileHashes,
    Role,
    Root,
    Targets,
    parse_root,
    parse_snapshot,
    parse_targets,
    parse_timestamp,
)
from dtr_audit.trust.notary.policy import TrustPolicy
from dtr_audit.trust.notary.reading import (
    Anchor,
    Defect,
    Expiry,
    Outcome,
    SkippedDelegation,
    TrustDefectError,
    TrustReading,
)
from dtr_audit.trust.notary.releases import Tree, collect_tags, hash_roles
from dtr_audit.trust.notary.roots import is_pinned, successor_keys, verify_root

TIMESTAMP_BYTES = 64 * 1024
SNAPSHOT_BYTES = 2 * 1024 * 1024
TARGETS_BYTES = DOCUMENT_BYTES  # some 25 000 tags
REPOSITORY_BYTES = 2 * TARGETS_BYTES  # of all roles of one repository
ROOT_STEPS = 64  # rotations between two runs
ROLES = 256  # delegations of one repository, nested ones and all
SKIPPED_NAMED = 5

_SomeDocument = TypeVar("_SomeDocument", bound=Document)


class TrustSource(Protocol):
    """Where documents come from."""

    def fetch(self, gun: str, name: str) -> bytes | None:
        """Give `<name>.json` of a GUN, bounded; None if the Notary says that it has none. Raises RegistryError, OutOfTimeError."""
        ...


def verify(
    source: TrustSource,
    gun: str,
    memory: TrustMemory | None,
    policy: TrustPolicy,
    now: datetime,
    *,
    refused: str = "",
    effort: Effort | None = None,
) -> TrustReading:
    """Read and verify the trust data of one GUN; `memory` is what the last reading of it gave to be kept.

    That reading may have been under another spelling of the host. `refused` is what the last reading refused as too much work: it
    is refused again at once.

    Raises OutOfTimeError, and SettingsError for a pinned authority that is none; everything else becomes the reading's outcome.
    """
    if memory is not None and canonical_gun(memory.gun) != canonical_gun(gun):
        raise ValueError(f"the memory of {memory.gun} was given for {gun}")
    return _Verification(source, gun, memory, policy, now, refused=refused, effort=effort or Effort()).read()


@dataclass(frozen=True, slots=True)
class _TrustedRoot:
    root: Root
    anchor: Anchor


class _Verification:
    def __init__(
        self,
        source: TrustSource,
        gun: str,
        memory: TrustMemory | None,
        policy: TrustPolicy,
        now: datetime,
        *,
        refused: str,
        effort: Effort,
    ) -> None:
        self._source = source
        self._gun = gun
        self._memory = memory
        # What stays remembered if nothing is verified: another spelling's memory is kept where it is.
        self._kept = memory if memory is None or memory.gun == gun else None
        self._pin = policy.pin_for(gun)
        self._now = now
        self._refused = refused
        self._effort = effort
        self._at_work_on = ""  # in the form of a refusal
        self._notes: list[str] = []
        # What may be built upon: the memory, unless the settings have come to pin something else.
        self._built_on: TrustMemory | None = None

    def read(self) -> TrustReading:
        try:
            trusted = self._remembered_root() or self._first_root()
            if trusted is None:
                return self._absent()
            try:
                tree = self._read_tree(trusted)
            except TrustDefectError:
                # It may be the root that is out of date, or somebody published in between.
                renewed = self._renew(trusted)
                if renewed is None:
                    return self._absent()
                trusted = renewed
                tree = self._read_tree(trusted)
            return self._reading(trusted, tree)
        except (OutOfTimeError, SettingsError):
            raise
        except EffortError as error:
            return TrustReading(self._gun, Outcome.UNREADABLE, str(error), self._kept, refused=self._at_work_on)
        except TrustDefectError as error:
            return TrustReading(
                self._gun, Outcome.DOES_NOT_HOLD, str(error), self._kept, error.defect, refused=self._refused
            )
        except AuditError as error:
            fault = PassingFault(str(error), error.retry_after) if isinstance(error, TransientError) else None
            return TrustReading(
                self._gun, Outcome.UNREADABLE, str(error), self._kept, refused=self._refused, fault=fault
            )

    def _take_up(self, sha256: bytes) -> None:
        """Begin with what follows from a document; raises EffortError if that was too much work before."""
        self._at_work_on = refusal_of(sha256)
        if self._at_work_on == self._refused:
            raise EffortError

    # -- the root ----------------------------------------------------------------------------------------------------

    def _remembered_root(self) -> _TrustedRoot | None:
        """Give the root that the memory vouches for."""
        if self._memory is None:
            return None
        root = parse_root(self._memory.documents[ROOT])
        if self._memory.gun != self._gun and not successor_keys(root, self._gun):
            # Its certificates name the other spelling alone: the Notary keeps trust data of its own for this one.
            return None
        if self._pin is not None and not is_pinned(root, self._gun, self._pin, self._now):
            self._notes.append(
                f"the root that was trusted before is not pinned for {self._pin.pattern} any more, so what was remembered with it "
                "is forgotten"
            )
            return None
        self._built_on = self._memory
        return _TrustedRoot(root, Anchor.REMEMBERED if self._pin is None else Anchor.PINNED)

    def _first_root(self) -> _TrustedRoot | None:
        body = self._fetch_root(ROOT)
        if body is None:
            return None
        self._take_up(hashlib.sha256(body).digest())
        root = parse_root(body)
        verify_root(root, self._gun, self._pin, self._now, self._effort)
        return _TrustedRoot(root, Anchor.FIRST_USE if self._pin is None else Anchor.PINNED)

    def _renew(self, trusted: _TrustedRoot) -> _TrustedRoot | None:
        """Follow the root from the one that is trusted to the newest, which is still to be verified by itself.

        None if there is no trust data any more.
        """
        body = self._fetch_root(ROOT)
        if body is None:
            return None
        self._take_up(hashlib.sha256(body).digest())
        newest = trusted.root if body == trusted.root.body else parse_root(body)
        if newest.version < trusted.root.version and self._succeeds(trusted.root, newest):
            raise self._rolled_back(ROOT, newest.version, trusted.root.version)
        if newest is not trusted.root:
            self._follow(trusted.root, newest)
        return replace(trusted, root=newest)

    def _follow(self, trusted: Root, newest: Root) -> None:
        """See that one root follows from another; raises FlawError.

        As with Notary's client (updateRoot), a root that the trusted one's keys have signed themselves needs no others between.
        """
        if newest.version <= trusted.version:
            raise self._root_changed(trusted, newest)
        if not self._succeeds(trusted, newest):
            if newest.version - trusted.version > ROOT_STEPS:
                raise self._root_changed(trusted, newest)
            for version in range(trusted.version + 1, newest.version):
                body = self._fetch_root(f"{version}.{ROOT}")
                step = parse_root(body) if body is not None else None
                if step is None or step.version != version or not self._succeeds(trusted, step):
                    raise self._root_changed(trusted, newest)
                verify_root(step, self._gun, self._pin, self._now, self._effort)
                trusted = step
            if not self._succeeds(trusted, newest):
                raise self._root_changed(trusted, newest)
        self._notes.append(
            f"the root was renewed: it is version {newest.version}, and follows from the one that was trusted"
        )

    def _succeeds(self, old: Root, new: Root) -> bool:
        return is_signed_by(new, successor_keys(old, self._gun), old.roles[ROOT].threshold, self._effort)

    def _fetch_root(self, name: str) -> bytes | None:
        body = self._source.fetch(self._gun, name)
        if body is not None and len(body) > ROOT_BYTES:
            raise _too_large(name, ROOT_BYTES)
        return body

    # -- the tree ----------------------------------------------------------------------------------------------------

    def _read_tree(self, trusted: _TrustedRoot) -> Tree:
        root = trusted.root
        self._take_up(hashlib.sha256(root.body).digest())
        # When it was stored it held. Its certificate may have expired since, or its authority.
        root_ends = verify_root(root, self._gun, self._pin, self._now, self._effort)
        self._check_expiry(root)
        body = self._source.fetch(self._gun, TIMESTAMP)
        if body is None:
            raise TrustDefectError(
                Defect.INCOMPLETE,
                TIMESTAMP,
                "the Notary has a root for it and no timestamp: signed documents are missing",
            )
        if len(body) > TIMESTAMP_BYTES:
            raise _too_large(TIMESTAMP, TIMESTAMP_BYTES)
        timestamp = self._verified(parse_timestamp(body), root.roles[TIMESTAMP])
        # It decides about everything below.
        self._take_up(timestamp.files[SNAPSHOT].sha256)
        body = self._get(SNAPSHOT, timestamp.files[SNAPSHOT], SNAPSHOT_BYTES, TIMESTAMP)
        snapshot = self._verified(parse_snapshot(body), root.roles[SNAPSHOT])
        if not snapshot.files[ROOT].matches(root.body):
            raise TrustDefectError(Defect.MIXED, ROOT, "mixed up: root is not the one that the snapshot names")
        tree = Tree(root_ends, timestamp, snapshot)
        role = root.roles[TARGETS]
        self._add(tree, self._verified(self._targets(tree, role), role), role)
        return tree

    def _add(self, tree: Tree, targets: Targets, role: Role) -> None:
        """Take a verified role into the tree, and whatever it delegates to, depth first."""
        tree.roles[role.name] = targets
        tree.paths[role.name] = role.paths
        for child in targets.delegations:
            tree.known.add(child.name)
            if len(tree.known) > ROLES:
                raise TrustDataError(f"it has more than {ROLES} delegations")
            if child.name not in tree.snapshot.files:
                continue  # a signer who has never signed
            self._effort.compare_paths(len(child.paths), len(role.paths))
            # roles.go, RestrictDelegationPathPrefixes: nobody passes on more than he has.
            paths = tuple(path for path in child.paths if path.startswith(role.paths))
            self._add_delegation(tree, replace(child, paths=paths))

    def _add_delegation(self, tree: Tree, role: Role) -> None:
        found = self._targets(tree, role)
        # An older version than was seen is no lapse; a signature that is missing, or too old, is one.
        self._check_version(found)
        try:
            self._verified(found, role)
        except TrustDefectError as error:
            tree.lapsed[role.name] = SkippedDelegation(role.name, error.defect, str(error)), found
            tree.paths[role.name] = role.paths
            return
        self._add(tree, found, role)

    def _targets(self, tree: Tree, role: Role) -> Targets:
        self._effort.check_time()
        expected = tree.snapshot.files[role.name]
        tree.length += expected.length
        if tree.length > REPOSITORY_BYTES:
            raise _too_large("all that is signed in it", REPOSITORY_BYTES)
        return parse_targets(self._get(role.name, expected, TARGETS_BYTES, SNAPSHOT), role.name)

    def _get(self, name: str, expected: FileHashes, most: int, index: str) -> bytes:
        """Give the document that a verified index names: from the memory if it is that one, else from the Notary."""
        if expected.length > most:
            raise _too_large(name, most)
        remembered = self._built_on.documents.get(name) if self._built_on is not None else None
        if remembered is not None and expected.matches(remembered):
            return remembered
        body = self._source.fetch(self._gun, f"{name}.{expected.sha256.hex()}")
        if body is None:
            raise TrustDefectError(
                Defect.INCOMPLETE, name, f"{name}, which the {index} names, is missing in the Notary"
            )
        if not expected.matches(body):
            raise TrustDefectError(Defect.MIXED, name, f"mixed up: {name} is not the one that the {index} names")
        return body

    def _verified(self, document: _SomeDocument, role: Role) -> _SomeDocument:
        verify_document(document, role.keys, role.threshold, "the keys of that role", self._effort)
        self._check_version(document)
        self._check_expiry(document)
        return document

    def _check_version(self, document: Document) -> None:
        seen = self._built_on.versions.get(document.role, 0) if self._built_on is not None else 0
        if document.version < seen:
            raise self._rolled_back(document.role, document.version, seen)

    def _check_expiry(self, document: Document) -> None:
        if document.expires <= self._now:
            raise TrustDefectError(
                Defect.EXPIRED, document.role, f"expired: {document.role}, on {document.expires:%Y-%m-%d %H:%M} UTC"
            )

    # -- what came of it ---------------------------------------------------------------------------------------------

    def _reading(self, trusted: _TrustedRoot, tree: Tree) -> TrustReading:
        root = trusted.root
        expiries = {ROOT: tree.root_ends, SNAPSHOT: Expiry(SNAPSHOT, tree.snapshot.expires)}
        expiries |= {name: Expiry(name, targets.expires) for name, targets in tree.roles.items()}
        skipped_delegations = tuple(skipped for skipped, _ in tree.lapsed.values())
        if trusted.anchor is Anchor.FIRST_USE:
            self._notes.append(
                "nothing is pinned for it and nothing was remembered, so its root is trusted on first use"
            )
        self._notes += [skipped.reason for skipped in skipped_delegations[:SKIPPED_NAMED]]
        return TrustReading(
            self._gun,
            Outcome.VERIFIED,
            "",
            self._remember(trusted, tree),
            anchor=trusted.anchor,
            signed=hash_roles(tree),
            root_keys=tuple(sorted(key.id for key in root.roles[ROOT].keys)),
            tags=collect_tags(tree, expiries, self._effort),
            expiries=tuple(sorted(expiries.values(), key=lambda expiry: expiry.when)),
            skipped_delegations=skipped_delegations,
            notes=tuple(self._notes),
        )

    def _remember(self, trusted: _TrustedRoot, tree: Tree) -> TrustMemory:
        read: list[Document] = [trusted.root, tree.snapshot, *tree.roles.values()]
        earlier = self._built_on.versions if self._built_on is not None else {}
        # Of a role that does not hold just now, the version that did is remembered; of one that is gone, nothing.
        versions = {name: earlier[name] for name in tree.known if name in earlier}
        versions |= {document.role: document.version for document in (tree.timestamp, *read)}
        documents = {document.role: document.body for document in read}
        documents |= {name: targets.body for name, (_, targets) in tree.lapsed.items()}
        since = self._built_on.since if self._built_on is not None else iso(self._now)
        before = self._memory
        signed = keep_signed(hash_roles(tree), before.signed if before is not None else {})
        memory = TrustMemory(self._gun, since, versions, documents, signed)
        return mark_reused(memory, before.reused if before is not None else {})

    def _absent(self) -> TrustReading:
        reason = "the Notary has no trust data for its repository"
        if self._built_on is not None:
            # The memory is kept: whoever puts other trust data there has to answer to it.
            reason += f" any more; its root was trusted since {self._built_on.since}"
        return TrustReading(self._gun, Outcome.NO_TRUST_DATA, reason, self._kept, notes=tuple(self._notes))

    def _rolled_back(self, role: str, version: int, seen: int) -> TrustDefectError:
        return TrustDefectError(
            Defect.ROLLED_BACK,
            role,
            f"trust data rolled back: {role} is version {version}, and version {seen} was seen before. If the Notary was restored "
            "from a backup, publish anew until its versions are past those",
        )

    def _root_changed(self, trusted: Root, newest: Root) -> TrustDefectError:
        since = f" since {self._built_on.since}" if self._built_on is not None else ""
        shown = ", ".join(sorted(key.id for key in newest.roles[ROOT].keys)[:3])
        return TrustDefectError(
            Defect.ROOT_CHANGED,
            ROOT,
            f"root changed: version {newest.version} (keys {shown}) does not follow by signatures from version {trusted.version}, "
            f"which was trusted{since}. If the publisher confirms the new root key, pin it",
        )


def _too_large(name: str, most: int) -> TrustDataError:
    return TrustDataError(f"{name}: it is larger than {most / 1024**2:g} MiB, and no more is read")
