"""The last release of each service, as the control stream's records leave it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from trunkline.api.journal.v1 import control_pb2, releases_pb2
from trunkline.core.records import Change, Record

from .release import ALL, Phase, ReleaseEntity, ReleaseSplit, release_key, split_of
from .release_convert import phase_from, phase_to, sample_from, sample_to, spec_from, spec_to

RELEASE_STARTED = "release.started"
RELEASE_STEPPED = "release.stepped"
RELEASE_PAUSED = "release.paused"
RELEASE_RESUMED = "release.resumed"
RELEASE_COMPLETED = "release.completed"
RELEASE_ROLLED_BACK = "release.rolled_back"
RELEASE_ABORTED = "release.aborted"
FOLD_VERSION = 1
PIECE_RELEASES = 50

_PHASES = {
    RELEASE_STEPPED: Phase.RUNNING,
    RELEASE_PAUSED: Phase.PAUSED,
    RELEASE_RESUMED: Phase.RUNNING,
    RELEASE_COMPLETED: Phase.COMPLETED,
    RELEASE_ROLLED_BACK: Phase.ROLLED_BACK,
    RELEASE_ABORTED: Phase.ABORTED,
}
_BEGINS_A_STEP = frozenset({RELEASE_STEPPED, RELEASE_RESUMED})


class ReleasesFold:
    """Folds release.*. See trunkline.server.journal.control.fold.Fold for the contract."""

    name = "releases"
    version = FOLD_VERSION
    topics: Sequence[str] = ("release",)

    def __init__(self) -> None:
        self._releases: dict[str, ReleaseEntity] = {}
        self._open: dict[str, ReleaseEntity] = {}
        self._keys: list[str] = []
        """Sorted."""
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._releases)

    # Reading.

    def get(self, key: str) -> ReleaseEntity | None:
        """The release of a key."""
        return self._releases.get(key)

    def split_of(self, namespace: str, service: str) -> ReleaseSplit | None:
        """Who gets a service's calls by its last release; None when it never had one."""
        found = self._releases.get(release_key(namespace, service))
        return None if found is None else split_of(found)

    def open_releases(self) -> list[ReleaseEntity]:
        """Those on their way, held or not."""
        return list(self._open.values())

    def releases(self, namespace: str = "") -> Iterator[ReleaseEntity]:
        """Of a namespace, or all, by namespace and service. Not to be kept while anything is folded."""
        prefix = f"release/{namespace}/" if namespace else "release/"
        first = bisect_left(self._keys, prefix)
        keys = (self._keys[index] for index in range(first, len(self._keys)))
        return (self._releases[key] for key in takewhile(lambda key: key.startswith(prefix), keys))

    def services(self, namespace: str) -> list[str]:
        """Those of a namespace of which `split_of` has anything to say, sorted."""
        return [release.spec.service for release in self.releases(namespace)]

    def count(self, namespace: str) -> int:
        """How many services of a namespace have had one."""
        return self._counts[namespace]

    # Folding.

    def reduce(
        self, entity: ReleaseEntity | None, change: Change, *, revision: int, time_ns: int
    ) -> ReleaseEntity | None:
        """What a pending change will make of a release; who asked for it, and why, is not known yet."""
        return _reduced(entity, change.topic, change.body, revision, time_ns)

    def apply(self, record: Record) -> None:
        """Take in a durable record."""
        before = self._releases.get(record.key)
        after = _reduced(before, record.topic, record.body, record.offset, record.time_ns)
        if after is not None and after is not before:
            self._put(replace(after, author=record.author, reason=record.reason))

    def _put(self, entity: ReleaseEntity) -> None:
        key = entity.spec.key
        if key not in self._releases:
            insort(self._keys, key)
            self._counts[entity.spec.namespace] += 1
        self._releases[key] = entity
        if entity.is_open:
            self._open[key] = entity
        else:
            self._open.pop(key, None)

    # Snapshots.

    def dump(self) -> Iterator[bytes]:
        """Pieces of ReleasesPiece, by key."""
        return _pieces([self._releases[key] for key in self._keys])

    def load(self, version: int, pieces: Iterable[bytes]) -> None:
        """Become what `dump` encoded. ValueError when the version is not known."""
        if version != FOLD_VERSION:
            raise ValueError(f"the releases' section has version {version}; this program knows {FOLD_VERSION}")
        for state in (self._releases, self._open, self._keys, self._counts):
            state.clear()
        for data in pieces:
            for kept in releases_pb2.ReleasesPiece.FromString(data).releases:
                self._put(_entity_from(kept))


def _reduced(
    entity: ReleaseEntity | None, topic: str, body: bytes, revision: int, time_ns: int
) -> ReleaseEntity | None:
    if topic == RELEASE_STARTED:
        return _started(entity, control_pb2.ReleaseStarted.FromString(body), revision, time_ns)
    phase = _PHASES.get(topic)
    if entity is None or phase is None:
        return entity
    change = control_pb2.ReleaseChanged.FromString(body)
    began = topic in _BEGINS_A_STEP
    return replace(
        entity,
        phase=phase,
        step=change.step,
        percent=change.percent,
        changed_ns=time_ns,
        revision=revision,
        step_began_ns=time_ns if began else entity.step_began_ns,
        step_revision=revision if began else entity.step_revision,
        split_revision=revision
        if (change.percent, change.target) != (entity.percent, entity.target)
        else entity.split_revision,
        target=change.target,
        gate=change.gate.SerializeToString(deterministic=True) if change.HasField("gate") else b"",
        baseline_calls=sample_from(change.baseline_calls)
        if change.HasField("baseline_calls")
        else entity.baseline_calls,
    )


def _started(
    before: ReleaseEntity | None, body: control_pb2.ReleaseStarted, revision: int, time_ns: int
) -> ReleaseEntity:
    spec = spec_from(body)
    return ReleaseEntity(
        spec=spec,
        percent=spec.steps[0].percent,
        started_ns=time_ns,
        step_began_ns=time_ns,
        changed_ns=time_ns,
        step_revision=revision,
        split_revision=revision,
        revision=revision,
        baseline_calls=sample_from(body.baseline_calls),
        proven="" if before is None else before.proven_now,
    )


def changed(
    entity: ReleaseEntity, *, step: int | None = None, target: str = "", gate: bytes = b"",
    baseline_calls: control_pb2.CallSample | None = None,
) -> control_pb2.ReleaseChanged:  # fmt: skip
    """The body of a record: where the release is then. With a target, who gets all calls by it."""
    at = entity.step if step is None else step
    percent = entity.spec.steps[at].percent
    if target:
        percent = ALL if target == entity.spec.version else 0
    body = control_pb2.ReleaseChanged(
        version=entity.spec.version, step=at, percent=percent, target=target, baseline_calls=baseline_calls
    )
    if gate:
        body.gate.MergeFromString(gate)
    return body


# Snapshots.


def _pieces(entities: Sequence[ReleaseEntity]) -> Iterator[bytes]:
    for first in range(0, len(entities), PIECE_RELEASES):
        kept = map(_entity_to, entities[first : first + PIECE_RELEASES])
        yield releases_pb2.ReleasesPiece(releases=kept).SerializeToString(deterministic=True)


def _entity_to(entity: ReleaseEntity) -> releases_pb2.KeptRelease:
    kept = releases_pb2.KeptRelease(
        started=spec_to(entity.spec),
        phase=phase_to(entity.phase),
        step=entity.step,
        percent=entity.percent,
        started_ns=entity.started_ns,
        step_began_ns=entity.step_began_ns,
        changed_ns=entity.changed_ns,
        step_revision=entity.step_revision,
        split_revision=entity.split_revision,
        revision=entity.revision,
        author=entity.author,
        reason=entity.reason,
        target=entity.target,
        baseline_calls=sample_to(entity.baseline_calls),
        proven=entity.proven,
    )
    if entity.gate:
        kept.gate.MergeFromString(entity.gate)
    return kept


def _entity_from(kept: releases_pb2.KeptRelease) -> ReleaseEntity:
    return ReleaseEntity(
        spec=spec_from(kept.started),
        phase=phase_from(kept.phase),
        step=kept.step,
        percent=kept.percent,
        started_ns=kept.started_ns,
        step_began_ns=kept.step_began_ns,
        changed_ns=kept.changed_ns,
        step_revision=kept.step_revision,
        split_revision=kept.split_revision,
        revision=kept.revision,
        author=kept.author,
        reason=kept.reason,
        target=kept.target,
        gate=kept.gate.SerializeToString(deterministic=True) if kept.HasField("gate") else b"",
        baseline_calls=sample_from(kept.baseline_calls),
        proven=kept.proven,
    )
