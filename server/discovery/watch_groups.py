"""The groups of equal watches, found by the service that a change touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from . import wire
from .policy_view import EVERY_SERVICE, PolicyView
from .registry_view import RegistryView
from .tokens import TokenMaker
from .watch_config import WatchConfig
from .watch_group import Scope, WatchGroup


class WatchGroups:
    """Groups come with their first watch and go with their last."""

    def __init__(
        self,
        registry: RegistryView,
        policies: PolicyView,
        encoded: wire.EncodedInstances,
        tokens: TokenMaker,
        config: WatchConfig,
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._encoded = encoded
        self._tokens = tokens
        self._config = config
        self._by_service: dict[tuple[str, str], dict[str, WatchGroup]] = {}

    def __iter__(self) -> Iterator[WatchGroup]:
        for of_service in self._by_service.values():
            yield from of_service.values()

    def of(self, scope: Scope) -> WatchGroup:
        """The group of a scope, made if there is none."""
        namespace, service, selector = scope.key
        of_service = self._by_service.setdefault((namespace, service), {})
        group = of_service.get(selector)
        if group is None:
            group = of_service[selector] = WatchGroup(
                scope,
                registry=self._registry,
                policies=self._policies,
                encoded=self._encoded,
                tokens=self._tokens,
                config=self._config,
            )
        return group

    def drop_if_empty(self, group: WatchGroup) -> None:
        """Forget a group that nobody is in."""
        if group.members:
            return
        namespace, service, selector = group.scope.key
        of_service = self._by_service.get((namespace, service), {})
        if of_service.get(selector) is group:
            del of_service[selector]
            if not of_service:
                del self._by_service[namespace, service]

    def concern(self, namespace: str, service: str) -> bool:
        """Whether there is any that a change of this service concerns."""
        return (namespace, service) in self._by_service or (namespace, EVERY_SERVICE) in self._by_service

    def of_service(self, namespace: str, service: str) -> Iterable[WatchGroup]:
        """Those of this service alone. Not to be held across an `of` or `drop_if_empty`."""
        return self._by_service.get((namespace, service), {}).values()

    def of_policy(self, namespace: str, service: str) -> list[WatchGroup]:
        """Those that a change of a service's policy concerns; for EVERY_SERVICE all of the namespace."""
        if service:
            return [*self.of_service(namespace, service), *self.of_every_service(namespace)]
        found = (of_scope.values() for (name, _), of_scope in self._by_service.items() if name == namespace)
        return [group for groups in found for group in groups]

    def of_every_service(self, namespace: str) -> Iterable[WatchGroup]:
        """Those of every service of a namespace."""
        return self.of_service(namespace, EVERY_SERVICE)
