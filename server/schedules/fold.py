"""Which schedules there are, and how far control remembers that each has come."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from trunkline.api.journal.v1 import control_pb2, schedules_pb2
from trunkline.core.records import Change, Record

from .spec import Spec

SCHEDULE_CREATED = "schedule.created"
SCHEDULE_FIRED = "schedule.fired"
SCHEDULE_DELETED = "schedule.deleted"
FOLD_VERSION = 1
PIECE_SCHEDULES = 50
PIECE_BYTES = 256 << 10
"""Of events; a piece holds one at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """How far a schedule has come."""

    handled_ms: int
    """Times up to this one are done or were passed over."""
    fired_ms: int = 0
    """The time of the last event; what it and `offset` say counts once there was one."""
    offset: int = 0
    count: int = 0
    """Events so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEntity:
    """A schedule that was made."""

    spec: Spec
    created_ms: int
    created_revision: int
    fired: Fired

    @property
    def key(self) -> str:
        """What names it in the control stream."""
        return self.spec.key

    def event_id(self, due_ms: int) -> str:
        """The id of what is published for a time: the same whenever, and however often, that is tried."""
        return f"{self.spec.name}/{self.created_revision}/{due_ms}"


class SchedulesFold:
    """Folds schedule.*. See trunkline.server.journal.control.fold.Fold for the contract."""

    name = "schedules"
    version = FOLD_VERSION
    topics: Sequence[str] = ("schedule",)

    def __init__(self) -> None:
        self._schedules: dict[str, ScheduleEntity] = {}
        self._keys: list[str] = []
        """Sorted."""
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._schedules)

    # Reading.

    def get(self, key: str) -> ScheduleEntity | None:
        """The schedule of a key."""
        return self._schedules.get(key)

    def schedules(self) -> Iterable[ScheduleEntity]:
        """Every schedule."""
        return self._schedules.values()

    def behind(self, key: str, *, prefix: str) -> Iterator[ScheduleEntity]:
        """Those whose keys begin with `prefix` and lie behind `key`, in the order of their keys. Not to be kept while
        anything is folded."""
        first = max(bisect_left(self._keys, prefix), bisect_right(self._keys, key))
        keys = (self._keys[index] for index in range(first, len(self._keys)))
        return (self._schedules[one] for one in takewhile(lambda one: one.startswith(prefix), keys))

    def count(self, namespace: str) -> int:
        """How many a namespace has."""
        return self._counts[namespace]

    def event_bytes(self, namespace: str) -> int:
        """Of all events that a namespace's schedules hold."""
        return self._bytes[namespace]

    # Folding.

    def reduce(
        self, entity: ScheduleEntity | None, change: Change, *, revision: int, time_ns: int
    ) -> ScheduleEntity | None:
        """What a change makes of a schedule."""
        return _reduced(entity, change.topic, change.body, revision)

    def apply(self, record: Record) -> None:
        """Take in a durable record."""
        before = self._schedules.get(record.key)
        self._put(record.key, before, _reduced(before, record.topic, record.body, record.offset))

    def _put(self, key: str, before: ScheduleEntity | None, after: ScheduleEntity | None) -> None:
        if before is not None:
            self._tally(before, -1)
        if after is not None:
            self._schedules[key] = after
            self._tally(after, 1)
            if before is None:
                insort(self._keys, key)
        elif before is not None:
            del self._schedules[key]
            del self._keys[bisect_left(self._keys, key)]

    def _tally(self, entity: ScheduleEntity, by: int) -> None:
        namespace = entity.spec.namespace
        self._counts[namespace] += by
        self._bytes[namespace] += by * len(entity.spec.event)
        if not self._counts[namespace]:
            del self._counts[namespace], self._bytes[namespace]

    # Snapshots.

    def dump(self) -> Iterator[bytes]:
        """Pieces of SchedulesPiece, by key."""
        return _pieces([self._schedules[key] for key in self._keys])

    def load(self, version: int, pieces: Iterable[bytes]) -> None:
        """Become what `dump` encoded. ValueError when the version is not known."""
        if version != FOLD_VERSION:
            raise ValueError(f"the schedules' section has version {version}; this program knows {FOLD_VERSION}")
        for state in (self._schedules, self._keys, self._counts, self._bytes):
            state.clear()
        for data in pieces:
            for kept in schedules_pb2.SchedulesPiece.FromString(data).schedules:
                entity = _created(kept.created, kept.created_revision)
                if kept.HasField("fired"):
                    entity = replace(entity, fired=_fired_from(kept.fired))
                self._put(entity.key, None, entity)


def fired_to(fired: Fired) -> control_pb2.ScheduleFired:
    """The body of a record."""
    return control_pb2.ScheduleFired(
        handled_ms=fired.handled_ms, fired_ms=fired.fired_ms, offset=fired.offset, count=fired.count
    )


def _fired_from(body: control_pb2.ScheduleFired) -> Fired:
    return Fired(handled_ms=body.handled_ms, fired_ms=body.fired_ms, offset=body.offset, count=body.count)


def _created(body: control_pb2.ScheduleCreated, revision: int) -> ScheduleEntity:
    spec = Spec.of(body.schedule)
    fired = Fired(handled_ms=spec.first_behind(body.created_ms))
    return ScheduleEntity(spec=spec, created_ms=body.created_ms, created_revision=revision, fired=fired)


def _reduced(entity: ScheduleEntity | None, topic: str, body: bytes, revision: int) -> ScheduleEntity | None:
    if topic == SCHEDULE_CREATED:
        return _created(control_pb2.ScheduleCreated.FromString(body), revision)
    if topic == SCHEDULE_FIRED and entity is not None:
        return replace(entity, fired=_fired_from(control_pb2.ScheduleFired.FromString(body)))
    return None if topic == SCHEDULE_DELETED else entity


def _pieces(entities: Iterable[ScheduleEntity]) -> Iterator[bytes]:
    piece, size = schedules_pb2.SchedulesPiece(), 0
    for entity in entities:
        if len(piece.schedules) >= PIECE_SCHEDULES or size >= PIECE_BYTES:
            yield piece.SerializeToString(deterministic=True)
            piece, size = schedules_pb2.SchedulesPiece(), 0
        kept = piece.schedules.add(created_revision=entity.created_revision, fired=fired_to(entity.fired))
        kept.created.created_ms = entity.created_ms
        kept.created.schedule.CopyFrom(entity.spec.message())
        size += len(entity.spec.event)
    if piece.schedules:
        yield piece.SerializeToString(deterministic=True)
