"""The fold of a watch's events: what a view holds. No I/O, no time."""

from __future__ import annotations

from collections.abc import Iterable

from trunkline.api import convert
from trunkline.api.v1.discovery_pb2 import WatchEvent
from trunkline.core.model import RegisteredInstance

from ._changes import Change, Fresh, Reset, Updated

Key = tuple[str, str]
"""Service and instance id."""


class ViewState:
    """Instances by key, swapped whole at the end of a snapshot, amended by changes."""

    def __init__(self) -> None:
        self._held: dict[Key, RegisteredInstance] = {}
        self._staged: dict[Key, RegisteredInstance] | None = None
        self._snapshot: tuple[RegisteredInstance, ...] | None = None
        self.revision = 0
        """Everything up to it is in `instances`."""
        self.resume_token = b""
        """To resume behind the last event that was applied; empty when there is none."""
        self.whole = False
        """A first snapshot, or a restored one, is there."""

    @property
    def instances(self) -> tuple[RegisteredInstance, ...]:
        """In order of service and id; the same tuple until something changes."""
        if self._snapshot is None:
            self._snapshot = tuple(self._held[key] for key in sorted(self._held))
        return self._snapshot

    def get(self, service: str, instance_id: str) -> RegisteredInstance | None:
        """One instance."""
        return self._held.get((service, instance_id))

    def apply(self, event: WatchEvent) -> Change | None:
        """Take one event in; what is now different, or None while a snapshot is not complete.

        What comes between a snapshot's parts belongs to the snapshot.
        """
        if event.kind == WatchEvent.KIND_SNAPSHOT:
            return self._stage(event)
        if self._staged is not None:
            self._amend(self._staged, event)
            return None
        self._mark(event)
        if event.kind == WatchEvent.KIND_CHANGES:
            return self._amend(self._held, event)
        return Fresh(self.revision)

    def disconnected(self) -> None:
        """The stream is gone: a snapshot that was on its way is incomplete for ever."""
        self._staged = None

    def forget_token(self) -> None:
        """The token is of no use: the next start is a snapshot. What is held stays until then."""
        self.resume_token = b""

    def restore(self, instances: Iterable[RegisteredInstance], revision: int, resume_token: bytes) -> None:
        """Take up what an earlier process last knew."""
        self._held = {_key(instance): instance for instance in instances}
        self._snapshot = None
        self.revision = revision
        self.resume_token = resume_token
        self.whole = True

    def _stage(self, event: WatchEvent) -> Change | None:
        if self._staged is None:
            self._staged = {}
        for message in event.upserted:
            instance = convert.registered_from(message)
            self._staged[_key(instance)] = instance
        if not event.complete:
            return None
        self._held, self._staged = self._staged, None
        self._snapshot = None
        self.whole = True
        self._mark(event)
        return Reset(self.revision, self.instances)

    def _amend(self, instances: dict[Key, RegisteredInstance], event: WatchEvent) -> Updated:
        added, changed, removed = {}, {}, {}
        for message in event.upserted:
            instance = convert.registered_from(message)
            key = _key(instance)
            before = instances.get(key)
            if before is None:
                added[key] = instance
            elif before != instance:
                changed[key] = instance
            instances[key] = instance
        for ref in event.removed:
            key = ref.service, ref.id
            gone = instances.pop(key, None)
            if gone is not None and added.pop(key, None) is None:
                changed.pop(key, None)
                removed[key] = gone
        self._snapshot = None
        return Updated(self.revision, tuple(added.values()), tuple(changed.values()), tuple(removed.values()))

    def _mark(self, event: WatchEvent) -> None:
        self.revision = event.revision
        if event.resume_token:
            self.resume_token = event.resume_token


def _key(registered: RegisteredInstance) -> Key:
    return registered.instance.service, registered.instance.id
