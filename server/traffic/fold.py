"""Which policies there are, and at which revisions each was changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trunkline.api.journal.v1 import control_pb2, policies_pb2
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.records import Change, Record

POLICY_APPLIED = "policy.applied"
POLICY_DELETED = "policy.deleted"
FOLD_VERSION = 1
PIECE_POLICIES = 50
PIECE_BYTES = 256 << 10
"""A piece holds one policy at least."""
CHANGES_KEPT = 256
"""Changes of one policy whose revisions are known; what they were is read from control's history."""
GONE_MAX = 10_000
"""Policies that were deleted and of which that is still known, of all namespaces."""

NO_POLICIES: Mapping[str, PolicyEntity] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEntity:
    """What is known of the policy of one service, or of a namespace when `service` is empty."""

    namespace: str
    service: str
    policy: TrafficPolicy | None
    """Not to be changed. None: it was deleted."""
    revisions: tuple[int, ...]
    """Of its last changes, oldest first; the last is that of what holds."""
    truncated: bool = False
    """There were more before them."""
    time_ns: int
    author: str = ""
    reason: str = ""
    destinations_revision: int = 0
    """Of the record that made its split's destinations what they are; 0 when an older program wrote it."""

    @property
    def revision(self) -> int:
        """Of the last change."""
        return self.revisions[-1]


def policy_key(namespace: str, service: str) -> str:
    """What names a policy in the control stream."""
    return f"policy/{namespace}/{service}"


class PoliciesFold:
    """Folds policy.*. See trunkline.server.journal.control.fold.Fold for the contract."""

    name = "policies"
    version = FOLD_VERSION
    topics: Sequence[str] = ("policy",)

    def __init__(self, *, gone_max: int = GONE_MAX) -> None:
        self.floor = 0
        """Deletions at or before this revision may have been forgotten."""
        self._gone_max = gone_max
        self._namespaces: dict[str, dict[str, PolicyEntity]] = {}
        self._gone: dict[str, None] = {}
        """Keys of what was deleted, first deleted first."""
        self._last: dict[str, int] = {}
        """By namespace, the revision of the last change."""

    def __len__(self) -> int:
        return sum(map(len, self._namespaces.values())) - len(self._gone)

    # Reading.

    def get(self, key: str) -> PolicyEntity | None:
        """The policy of a key; None when there is none, or none any more."""
        _, namespace, service = key.split("/", 2)
        found = self.known(namespace, service)
        return None if found is None or found.policy is None else found

    def known(self, namespace: str, service: str) -> PolicyEntity | None:
        """What is known, of one that was deleted as well."""
        return self._namespaces.get(namespace, NO_POLICIES).get(service)

    def of_namespace(self, namespace: str) -> Mapping[str, PolicyEntity]:
        """All that is known, by service; what was deleted among it. Not to be kept while anything is folded."""
        return self._namespaces.get(namespace, NO_POLICIES)

    def namespaces(self) -> list[str]:
        """Of which anything is known, sorted."""
        return sorted(self._namespaces)

    def last_change(self, namespace: str) -> int:
        """No change to any of a namespace's policies is later than this."""
        return max(self.floor, self._last.get(namespace, 0))

    # Folding.

    def reduce(
        self, entity: PolicyEntity | None, change: Change, *, revision: int, time_ns: int
    ) -> PolicyEntity | None:
        """What a change makes of a policy. Its author is not known yet."""
        return _reduced(entity, change.key, change.topic, change.body, revision, time_ns)

    def apply(self, record: Record) -> None:
        """Take in a durable record."""
        _, namespace, service = record.key.split("/", 2)
        before = self.known(namespace, service)
        after = _reduced(
            before, record.key, record.topic, record.body, record.offset, record.time_ns, record.author, record.reason
        )
        if after is None or after is before:
            return
        self._put(after)
        self._forget_old()

    def _put(self, entity: PolicyEntity) -> None:
        namespace = entity.namespace
        self._namespaces.setdefault(namespace, {})[entity.service] = entity
        self._last[namespace] = max(self._last.get(namespace, 0), entity.revision)
        key = policy_key(namespace, entity.service)
        self._gone.pop(key, None)
        if entity.policy is None:
            self._gone[key] = None

    def _forget_old(self) -> None:
        while len(self._gone) > self._gone_max:
            key = next(iter(self._gone))
            del self._gone[key]
            _, namespace, service = key.split("/", 2)
            of_namespace = self._namespaces[namespace]
            self.floor = max(self.floor, of_namespace.pop(service).revision)
            if not of_namespace:
                del self._namespaces[namespace], self._last[namespace]

    # Snapshots.

    def dump(self) -> Iterator[bytes]:
        """Pieces of PoliciesPiece, by namespace and service."""
        kept = [of[service] for _, of in sorted(self._namespaces.items()) for service in sorted(of)]
        return _pieces(self.floor, kept)

    def load(self, version: int, pieces: Iterable[bytes]) -> None:
        """Become what `dump` encoded. ValueError when the version is not known."""
        if version != FOLD_VERSION:
            raise ValueError(f"the policies' section has version {version}; this program knows {FOLD_VERSION}")
        for state in (self._namespaces, self._gone, self._last):
            state.clear()
        self.floor = 0
        found: list[PolicyEntity] = []
        for data in pieces:
            piece = policies_pb2.PoliciesPiece.FromString(data)
            self.floor = max(self.floor, piece.floor)
            found += map(_entity_from, piece.policies)
        for entity in sorted(found, key=lambda one: one.revision):  # so that what went first is forgotten first
            self._put(entity)


def _reduced(
    entity: PolicyEntity | None,
    key: str,
    topic: str,
    body: bytes,
    revision: int,
    time_ns: int,
    author: str = "",
    reason: str = "",
) -> PolicyEntity | None:
    policy: TrafficPolicy | None = None
    destinations_revision = 0
    if topic == POLICY_APPLIED:
        applied = control_pb2.PolicyApplied.FromString(body)
        policy = applied.policy
        before = 0 if entity is None else entity.destinations_revision
        destinations_revision = revision if applied.destinations_changed else before
    elif topic != POLICY_DELETED or entity is None:
        return entity
    _, namespace, service = key.split("/", 2)
    revisions = (*entity.revisions, revision) if entity is not None else (revision,)
    return PolicyEntity(
        namespace=namespace,
        service=service,
        policy=policy,
        revisions=revisions[-CHANGES_KEPT:],
        truncated=len(revisions) > CHANGES_KEPT or (entity is not None and entity.truncated),
        time_ns=time_ns,
        author=author,
        reason=reason,
        destinations_revision=destinations_revision,
    )


def _pieces(floor: int, entities: Iterable[PolicyEntity]) -> Iterator[bytes]:
    piece, size = policies_pb2.PoliciesPiece(floor=floor), 0
    for entity in entities:
        if len(piece.policies) >= PIECE_POLICIES or size >= PIECE_BYTES:
            yield piece.SerializeToString(deterministic=True)
            piece, size = policies_pb2.PoliciesPiece(), 0
        kept = piece.policies.add(
            namespace=entity.namespace,
            service=entity.service,
            policy=entity.policy,
            revisions=entity.revisions,
            truncated=entity.truncated,
            time_ns=entity.time_ns,
            author=entity.author,
            reason=entity.reason,
            destinations_revision=entity.destinations_revision,
        )
        size += kept.ByteSize()
    if piece.policies or floor:
        yield piece.SerializeToString(deterministic=True)


def _entity_from(kept: policies_pb2.KeptPolicyChanges) -> PolicyEntity:
    policy: TrafficPolicy | None = None
    if kept.HasField("policy"):
        policy = TrafficPolicy()
        policy.CopyFrom(kept.policy)  # else the whole piece stays in memory
    return PolicyEntity(
        namespace=kept.namespace,
        service=kept.service,
        policy=policy,
        revisions=tuple(kept.revisions),
        truncated=kept.truncated,
        time_ns=kept.time_ns,
        author=kept.author,
        reason=kept.reason,
        destinations_revision=kept.destinations_revision,
    )
