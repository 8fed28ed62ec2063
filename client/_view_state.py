"""The fold of a watch's events: what a view holds. No I/O, no time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from trunkline.api import convert
from trunkline.api.policies import policy_from
from trunkline.api.v1.discovery_pb2 import WatchEvent
from trunkline.api.v1.policy_pb2 import EffectivePolicy
from trunkline.core.model import RegisteredInstance
from trunkline.core.policy import Policy

from ._changes import Change, Fresh, Reset, Updated

log = logging.getLogger("trunkline.client")

Key = tuple[str, str]
"""Service and instance id."""


class ViewState:
    """Instances by key, swapped whole at the end of a snapshot, amended by changes."""

    def __init__(self) -> None:
        self._held: dict[Key, RegisteredInstance] = {}
        self._in_order = True
        """`_held` is in the order of its keys: changes leave them where they are, only what is new has to be put there."""
        self._staged: dict[Key, RegisteredInstance] | None = None
        self._snapshot: tuple[RegisteredInstance, ...] | None = None
        self._policies: dict[str, Policy] = {}
        self._staged_policies: dict[str, Policy] = {}
        self.effective: dict[str, EffectivePolicy] = {}
        """The policies as they came, for the cache."""
        self._staged_effective: dict[str, EffectivePolicy] = {}
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
            if not self._in_order:
                self._held = {key: self._held[key] for key in sorted(self._held)}
                self._in_order = True
            self._snapshot = tuple(self._held.values())
        return self._snapshot

    @property
    def policies(self) -> Mapping[str, Policy]:
        """By service; "" for what holds where nothing else is said, in a view of a whole namespace."""
        return MappingProxyType(self._policies)

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
            _take(event.policies, self._staged_policies, self._staged_effective)
            return None
        self._mark(event)
        if event.kind == WatchEvent.KIND_CHANGES:
            updated = self._amend(self._held, event)
            if not event.policies:
                return updated
            before, self._policies = self._policies, dict(self._policies)
            _take(event.policies, self._policies, self.effective)
            changed = {service: one for service, one in self._policies.items() if before.get(service) != one}
            return replace(updated, policies=changed)
        return Fresh(self.revision)

    def disconnected(self) -> None:
        """The stream is gone: a snapshot that was on its way is incomplete for ever."""
        self._staged = None
        self._staged_policies, self._staged_effective = {}, {}

    def forget_token(self) -> None:
        """The token is of no use: the next start is a snapshot. What is held stays until then."""
        self.resume_token = b""

    def restore(
        self,
        instances: Iterable[RegisteredInstance],
        revision: int,
        resume_token: bytes,
        policies: Iterable[EffectivePolicy] = (),
    ) -> None:
        """Take up what an earlier process last knew."""
        self._policies, self.effective = {}, {}
        _take(policies, self._policies, self.effective)
        self._held = {_key(instance): instance for instance in instances}
        self._snapshot, self._in_order = None, False
        self.revision = revision
        self.resume_token = resume_token
        self.whole = True

    def _stage(self, event: WatchEvent) -> Change | None:
        if self._staged is None:
            self._staged = {}
        for message in event.upserted:
            instance = convert.registered_from(message)
            key = _key(instance)
            known = self._held.get(key)
            # A new state of thousands is mostly the old one: who sees the same object need not look at it.
            self._staged[key] = known if known is not None and known == instance else instance
        _take(event.policies, self._staged_policies, self._staged_effective)
        if not event.complete:
            return None
        self._held, self._staged = self._staged, None
        self._policies, self._staged_policies = self._staged_policies, {}
        self.effective, self._staged_effective = self._staged_effective, {}
        self._snapshot, self._in_order = None, False
        self.whole = True
        self._mark(event)
        return Reset(self.revision, self.instances, self.policies)

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
        if added:
            self._in_order = False
        return Updated(self.revision, tuple(added.values()), tuple(changed.values()), tuple(removed.values()))

    def _mark(self, event: WatchEvent) -> None:
        self.revision = event.revision
        if event.resume_token:
            self.resume_token = event.resume_token


def _take(told: Iterable[EffectivePolicy], policies: dict[str, Policy], effective: dict[str, EffectivePolicy]) -> None:
    """Put policies in place of those that there are. One that a newer control plane knows better than this program is
    passed over: what held before is better than no calls at all."""
    for one in told:
        try:
            policies[one.service] = policy_from(one.policy, one.revision)
        except ValueError as error:
            log.warning("policy passed over", extra={"service": one.service, "error": str(error)})
            continue
        effective[one.service] = EffectivePolicy()
        effective[one.service].CopyFrom(one)  # else the whole event stays in memory


def _key(registered: RegisteredInstance) -> Key:
    return registered.instance.service, registered.instance.id
