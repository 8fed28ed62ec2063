"""All watches of one scope and selector: what is told to them is computed and encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from trunkline.core.model import RegisteredInstance
from trunkline.core.selector import Selector

from ..registry.changes import Transition
from . import wire
from .policy_view import HeldPolicy, PolicyView, policies_of, policies_since, policies_touched
from .registry_view import RegistryView, last_change
from .tokens import TokenMaker
from .watch import Watch
from .watch_config import WatchConfig
from .watch_snapshot import WatchSnapshot

RESYNC = b""
"""Instead of an event: too much for one, or not known any more. A snapshot is what there is to send."""

ORDER_SLACK = 1_000
"""How many services more than twice those that there were are noted before forgotten ones are looked for."""

Changed = Sequence[tuple[str, Mapping[str, Transition]]]
"""What a step did, service by service."""


class Scope:
    """What is watched. An empty service means every service of the namespace."""

    __slots__ = ("key", "namespace", "selector", "service")

    def __init__(self, namespace: str, service: str, selector: Selector) -> None:
        self.namespace = namespace
        self.service = service
        self.selector = selector
        self.key = (namespace, service, selector.canonical())
        """Equal for scopes that mean the same."""

    def holds(self, namespace: str, service: str) -> bool:
        """Whether a service lies in it; an empty `service` stands for any."""
        return self.namespace == namespace and (not self.service or not service or self.service == service)


class WatchGroup:
    """The members of one scope, and the events that they share.

    Events are bodies (see `wire.event_body`): None where nothing concerns the scope, RESYNC where a snapshot is due.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        registry: RegistryView,
        policies: PolicyView,
        encoded: wire.EncodedInstances,
        tokens: TokenMaker,
        config: WatchConfig,
    ) -> None:
        self.scope = scope
        self.members: dict[Watch, None] = {}
        self._registry = registry
        self._policies = policies
        self._encoded = encoded
        self._tokens = tokens
        self._config = config
        self._order = self._service_order()
        self._order_max = 2 * len(self._order) + ORDER_SLACK
        self._snapshot: WatchSnapshot | None = None
        self._since: dict[int, bytes | None] = {}
        self._since_bytes = 0
        self._since_revision = -1
        self._bookmark = b""
        self._bookmark_revision = -1

    def _service_order(self) -> dict[str, int]:
        """The services of the scope with their last changes, oldest first."""
        namespace = self.scope.namespace
        if self.scope.service:
            return {self.scope.service: 0}
        found = []
        for service in self._registry.services(namespace):
            state = self._registry.service(namespace, service)
            if state is not None:
                found.append((last_change(state), service))
        return {service: revision for revision, service in sorted(found)}

    def token(self, revision: int) -> bytes:
        """What resumes a watch of this scope after `revision`."""
        return self._tokens.encode(revision, self.scope.key)

    def note(self, revision: int, services: Iterable[str]) -> None:
        """A step touched these services of the namespace. For groups of every service, in the order of the steps."""
        for service in services:
            self._order.pop(service, None)
            self._order[service] = revision
        if len(self._order) > self._order_max:  # names of services that are forgotten
            self._order = self._service_order()
            self._order_max = 2 * len(self._order) + ORDER_SLACK

    def delta(self, revision: int, changed: Changed, touched: Sequence[str] = ()) -> bytes | None:
        """The event that takes members from the step before to this one; it touched the policies of these services."""
        if self._snapshot is not None and self._snapshot.revision < revision:
            self._drop_snapshot()
        if sum(len(of_service) for _, of_service in changed) > self._config.event_changes_max:
            return RESYNC
        policies = policies_touched(
            self._policies,
            self.scope.namespace,
            self.scope.service,
            touched,
            most=self._config.event_changes_max,
        )
        if policies is None:
            return RESYNC
        matches = self.scope.selector.matches
        upserted: list[RegisteredInstance] = []
        removed: list[tuple[str, str]] = []
        for service, of_service in changed:
            for instance_id, (before, after) in of_service.items():
                if after is not None and matches(after):
                    upserted.append(after)
                elif before is not None and matches(before):
                    removed.append((service, instance_id))
        return self._changes(revision, upserted, removed, policies)

    def since(self, revision: int, current: int) -> bytes | None:
        """The event that takes a watch from `revision` to the `current` state."""
        if self._since_revision != current:
            self._since_revision = current
            self._forget_since()
        if revision in self._since:
            return self._since[revision]
        event = self._changed_since(revision, current)
        if len(self.members) > 1:  # after a restart thousands come back at once
            self._since_bytes += len(event or b"")
            if len(self._since) >= self._config.since_cached_max or self._since_bytes > self._config.since_bytes_max:
                self._forget_since()
            self._since[revision] = event
        return event

    def _forget_since(self) -> None:
        self._since.clear()
        self._since_bytes = 0

    def _changed_since(self, revision: int, current: int) -> bytes | None:
        upserted: list[RegisteredInstance] = []
        removed: list[tuple[str, str]] = []
        if revision < self._registry.floor and (not self.scope.service or self._forgotten(self.scope.service)):
            return RESYNC
        policies = policies_since(
            self._policies,
            self.scope.namespace,
            self.scope.service,
            revision,
            most=self._config.event_changes_max,
        )
        if policies is None:
            return RESYNC
        for service in self._services_after(revision):
            state = self._registry.service(self.scope.namespace, service)
            if state is None:
                continue
            if revision < state.floor:
                return RESYNC
            for registered in reversed(state.instances.values()):
                if registered.modified_revision <= revision:
                    break
                if self.scope.selector.matches(registered):
                    upserted.append(registered)
                else:
                    removed.append((service, registered.instance.id))
                if len(upserted) + len(removed) > self._config.event_changes_max:
                    return RESYNC
            for instance_id, removed_revision in reversed(state.tombstones.items()):
                if removed_revision <= revision:
                    break
                removed.append((service, instance_id))
                if len(upserted) + len(removed) > self._config.event_changes_max:
                    return RESYNC
        return self._changes(current, upserted, removed, policies)

    def _forgotten(self, service: str) -> bool:
        """Whether nothing is known of a service, perhaps not any more."""
        return self._registry.service(self.scope.namespace, service) is None

    def _services_after(self, revision: int) -> Iterator[str]:
        """Services that may have changed after a revision, newest change first."""
        if self.scope.service:
            yield self.scope.service
            return
        for service, changed in reversed(self._order.items()):
            if changed <= revision:
                return
            yield service

    def _changes(
        self,
        revision: int,
        upserted: Sequence[RegisteredInstance],
        removed: Sequence[tuple[str, str]],
        policies: Sequence[HeldPolicy],
    ) -> bytes | None:
        if not upserted and not removed and not policies:
            return None
        if len(policies) > self._config.event_changes_max:
            return RESYNC
        encoded = [self._encoded.get(registered) for registered in upserted]
        refs = [wire.instance_ref(service, instance_id) for service, instance_id in removed]
        held = [policy.encoded for policy in policies]
        if sum(map(len, encoded)) + sum(map(len, refs)) + sum(map(len, held)) > self._config.event_bytes_max:
            return RESYNC
        token = self.token(revision)
        return wire.event_body(wire.CHANGES, revision, token=token, upserted=encoded, removed=refs, policies=held)

    def snapshot(self, current: int, at_least: int) -> WatchSnapshot:
        """The whole state of the scope, as of now: of any revision from `at_least` on at which it was the same."""
        kept = self._snapshot
        if kept is not None and kept.revision < max(at_least, self._last_change()):
            self._drop_snapshot()
        if self._snapshot is None:
            self._snapshot = WatchSnapshot(
                current,
                tuple(self._instances()),
                policies_of(self._policies, self.scope.namespace, self.scope.service),
                selector=self.scope.selector,
                token=self.token(current),
                encode=self._encoded.get,
                config=self._config,
            )
        return self._snapshot

    def _drop_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.release()
            self._snapshot = None

    def _last_change(self) -> int:
        """No change of the scope is later than this."""
        policies = self._policies.last_change(self.scope.namespace, self.scope.service)
        if not self.scope.service:
            return max(policies, next(reversed(self._order.values()), 0))
        state = self._registry.service(self.scope.namespace, self.scope.service)
        return max(policies, self._registry.floor if state is None else last_change(state))

    def _instances(self) -> Iterable[RegisteredInstance]:
        for service in self._order:
            state = self._registry.service(self.scope.namespace, service)
            if state is not None:
                yield from state.instances.values()

    def bookmark(self, revision: int) -> bytes:
        """The event that says: nothing changed up to here."""
        if self._bookmark_revision != revision:
            self._bookmark_revision = revision
            self._bookmark = wire.event_body(wire.BOOKMARK, revision, token=self.token(revision))
        return self._bookmark
