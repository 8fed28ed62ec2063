"""Picks for clients without an SDK: for each service, selector and policy one picker until the service changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from trunkline.core.clock import Rng
from trunkline.core.errors import InvalidArgument, NoInstance, NotSupported
from trunkline.core.maglev import Maglev
from trunkline.core.model import RegisteredInstance
from trunkline.core.ring import Ring
from trunkline.core.selection import Random, RoundRobin, WeightedRandom
from trunkline.core.selector import Selector

from ..registry.changes import RegistryChange
from .registry_view import RegistryView
from .resolver import matching


class LoadBalancing(IntEnum):
    """Values are the contract's; UNSPECIFIED is taken as ROUND_ROBIN before."""

    ROUND_ROBIN = 1
    RANDOM = 2
    WEIGHTED_RANDOM = 3
    LEAST_REQUEST = 4
    RING_HASH = 5
    MAGLEV = 6


HASHING = frozenset({LoadBalancing.RING_HASH, LoadBalancing.MAGLEV})


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerConfig:
    """Bounds of the pickers that are kept."""

    entries_max: int = 8_000_000
    """Instances and table entries of all pickers together; the ones made first go first."""
    maximum_ring_size: int = 65_536
    """Smaller than Envoy's default: a ring is built on the loop."""
    maglev_table_size: int = 65_537
    """Envoy's default."""


class Picked(NamedTuple):
    """What was chosen, and out of how many."""

    instance: RegisteredInstance
    candidates: int


class _Picker(NamedTuple):
    instances: Sequence[RegisteredInstance]
    pick: Callable[[bytes], int]
    entries: int


class Pickers:
    """Chooses among the best that there are: SERVING before DEGRADED before STALE."""

    def __init__(self, registry: RegistryView, rng: Rng, config: PickerConfig | None = None) -> None:
        self._registry = registry
        self._rng = rng
        self._config = config or PickerConfig()
        self._kept: dict[tuple[str, str], dict[tuple[str, LoadBalancing], _Picker]] = {}
        self.entries = 0
        """Instances and table entries of all pickers that are kept."""

    def pick(
        self, namespace: str, service: str, selector: Selector, policy: LoadBalancing, hash_key: str = ""
    ) -> Picked:
        """One instance. Raises NoInstance, InvalidArgument (a hash key is missing), NotSupported (LEAST_REQUEST)."""
        if policy is LoadBalancing.LEAST_REQUEST:
            raise NotSupported("LEAST_REQUEST needs to see the calls, which go past the server: pick in the client")
        if policy in HASHING and not hash_key:
            raise InvalidArgument.of("hash_key", f"required with {policy.name}", hash_key)
        picker = self._picker(namespace, service, selector, policy)
        if not picker.instances:
            raise NoInstance(f"no instance of {service!r} in namespace {namespace!r} matches")
        return Picked(picker.instances[picker.pick(hash_key.encode())], len(picker.instances))

    def _picker(self, namespace: str, service: str, selector: Selector, policy: LoadBalancing) -> _Picker:
        key = (selector.canonical(), policy)
        of_service = self._kept.get((namespace, service))
        kept = None if of_service is None else of_service.get(key)
        if kept is None:
            kept = self._make(best_tier(matching(self._registry, namespace, service, selector)), policy)
            if kept.instances:  # that there is none is found out quickly, and any name can be asked for
                self._keep((namespace, service), key, kept)
        return kept

    def _make(self, instances: Sequence[RegisteredInstance], policy: LoadBalancing) -> _Picker:
        if not instances:
            return _Picker((), lambda _: 0, 0)
        weights = [registered.instance.weight for registered in instances]
        if policy in HASHING:
            # Envoy hashes a host by its address; so an instance keeps its place when it registers again.
            hosts = [registered.instance.endpoints[0].address for registered in instances]
            table: Ring | Maglev
            if policy is LoadBalancing.RING_HASH:
                table = Ring(hosts, weights, maximum_ring_size=self._config.maximum_ring_size)
            else:
                table = Maglev(hosts, weights, table_size=self._config.maglev_table_size)
            return _Picker(instances, table.locate_key, len(instances) + table.size)
        choose = self._selection(policy, weights).pick
        return _Picker(instances, lambda _: choose(), len(instances))

    def _selection(self, policy: LoadBalancing, weights: Sequence[int]) -> RoundRobin | Random | WeightedRandom:
        if policy is LoadBalancing.RANDOM:
            return Random(len(weights), self._rng)
        if policy is LoadBalancing.WEIGHTED_RANDOM:
            return WeightedRandom(weights, self._rng)
        # A picker is made anew with every change: if each began at the first, that would get more than its share.
        return RoundRobin(weights, start=self._rng.below(len(weights)))

    def _keep(self, service: tuple[str, str], key: tuple[str, LoadBalancing], picker: _Picker) -> None:
        self._kept.setdefault(service, {})[key] = picker
        self.entries += picker.entries
        while self.entries > self._config.entries_max:
            self._forget(next(iter(self._kept)))

    def _forget(self, service: tuple[str, str]) -> None:
        for picker in self._kept.pop(service, {}).values():
            self.entries -= picker.entries

    def apply(self, changes: Iterable[RegistryChange]) -> None:
        """These instances changed: their services' pickers are made anew when they are next asked for."""
        for change in changes:
            self._forget((change.namespace, change.service))


def best_tier(instances: Sequence[RegisteredInstance]) -> Sequence[RegisteredInstance]:
    """Those of the best status there is."""
    best = min((registered.status for registered in instances), default=None)
    return [registered for registered in instances if registered.status is best]
