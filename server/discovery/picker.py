"""Picks for clients without an SDK: core's evaluator, kept for each service, selector and place until one changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import InvalidArgument, NoInstance, NotSupported
from trunkline.core.evaluator import Evaluator
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Locality, RegisteredInstance
from trunkline.core.policy import HASHING, Algorithm, Policy
from trunkline.core.selector import Selector
from trunkline.core.work import Work

from ..registry.changes import RegistryChange
from ..shared_work import SharedWork
from .evaluation import NoPolicies, Policies, evaluator_in_slices
from .registry_view import RegistryView

NO_METADATA: Mapping[str, str] = {}

PICKER_ENTRIES = 12
"""What a picker takes besides its instances and tables, as entries: 3 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerConfig:
    """Bounds of the pickers that are kept."""

    entries_max: int = 1_000_000
    """Instances and table entries of all pickers together, each picker counting for 12 more; the ones made first go first.
    An entry is about 250 bytes at worst, so the default is about 256 MiB."""
    maximum_ring_size: int = 65_536
    """Whatever a policy says: a ring is built on the loop."""
    maglev_table_size: int = 65_537
    """Envoy's default; in place of a larger one that a policy says."""


class Picked(NamedTuple):
    """What was chosen, and out of how many."""

    instance: RegisteredInstance
    candidates: int


class _Kept:
    """An evaluator, and what it was made for."""

    __slots__ = ("entries", "evaluator", "outdated", "policy")

    evaluator: Evaluator

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.entries = 0
        """As they were last counted."""
        self.outdated = False
        """Another is made for who asks from now on."""


_Service = tuple[str, str]
_Key = tuple[str, Algorithm | None, Locality]


class Pickers:
    """Chooses as the service's policy says."""

    def __init__(
        self,
        registry: RegistryView,
        rng: Rng,
        config: PickerConfig | None = None,
        *,
        clock: Clock,
        policies: Policies | None = None,
    ) -> None:
        self._registry = registry
        self._rng = rng
        self._config = config or PickerConfig()
        self._clock = clock
        self._policies = policies or NoPolicies()
        self._kept: dict[_Service, dict[_Key, _Kept]] = {}
        self._making: dict[_Service, set[_Kept]] = {}
        """Those whose instances have been looked at, and that are not ready."""
        self.work = SharedWork()
        """What takes more than a piece; its `run` must run."""
        self.entries = 0
        """Instances and table entries of all pickers that are kept."""

    async def pick(
        self,
        namespace: str,
        service: str,
        selector: Selector,
        load_balancing: Algorithm | None = None,
        hash_key: str = "",
        *,
        metadata: Mapping[str, str] = NO_METADATA,
        locality: Locality = NOWHERE,
    ) -> Picked:
        """One instance. `load_balancing` takes the place of the policy's, `hash_key` of what it hashes and sticks to.

        Waits only when there are thousands of instances and nobody has asked since they changed: with all others who do.

        Raises NoInstance, InvalidArgument (a hash key is missing), NotSupported (LEAST_REQUEST was asked for; a policy
        that says it is taken as if no call were in flight).
        """
        if load_balancing is Algorithm.LEAST_REQUEST:
            raise NotSupported("LEAST_REQUEST needs to see the calls, which go past the server: pick in the client")
        name = (namespace, service)
        nears = self._policies.effective(*name).locality is not None
        key = (selector.canonical(), load_balancing, locality if nears else NOWHERE)
        kept = self._usable(name, key)
        if kept is None:
            policy = self._policies.effective(*name)
            kept = await self.work.do(name, (key, id(policy)), lambda: self._make(name, key, selector))
        evaluator = kept.evaluator
        said, stands_for = tuple(metadata.items()), hash_key.encode() or None
        if load_balancing in HASHING and evaluator.hash_of(said, stands_for) is None:
            raise InvalidArgument.of("hash_key", f"required with {load_balancing.name}", hash_key)
        decision = evaluator.decide(said, stands_for)
        to = decision.destination
        if not evaluator.has_chain(to):
            await self.work.do(name, (kept, to), lambda: evaluator.making_chain(to))
            self._count(name, key, kept)
        picked = evaluator.pick_from(decision, said, stands_for)
        if picked is None:
            raise NoInstance(f"no instance of {service!r} in namespace {namespace!r} matches")
        return Picked(picked.candidate.instance, picked.members)

    def _usable(self, name: _Service, key: _Key) -> _Kept | None:
        kept = self._kept.get(name, {}).get(key)
        if kept is None:
            return None
        policy = self._policies.effective(*name)
        due_ns = kept.evaluator.next_ns
        fresh = due_ns is None or self._clock.time_ns() < due_ns
        return kept if fresh and (policy is kept.policy or policy == kept.policy) else None

    def _make(self, name: _Service, key: _Key, selector: Selector) -> Work[_Kept]:
        policy = self._policies.effective(*name)
        made = _Kept(policy)
        making = self._making.setdefault(name, set())
        making.add(made)
        try:
            made.evaluator = yield from evaluator_in_slices(
                self._registry,
                *name,
                self._bounded(policy, key[1]),
                selector=selector,
                rng=self._rng,
                clock=self._clock,
                where=key[2],
            )
        finally:
            making.discard(made)
            if not making and self._making.get(name) is making:
                del self._making[name]
        self._count(name, key, made)
        return made

    def _bounded(self, policy: Policy, override: Algorithm | None) -> Policy:
        said, config = policy.load_balancing, self._config
        largest = min(said.maximum_ring_size, config.maximum_ring_size)
        balancing = replace(
            said,
            algorithm=override or said.algorithm,
            maximum_ring_size=largest,
            minimum_ring_size=min(said.minimum_ring_size, largest),
            table_size=min(said.table_size, config.maglev_table_size),
        )
        return replace(policy, load_balancing=balancing)

    def _count(self, name: _Service, key: _Key, kept: _Kept) -> None:
        """Keep it, with the tables that it has made by now, as far as there is room."""
        entries = kept.evaluator.entries + PICKER_ENTRIES
        if kept.outdated or entries == PICKER_ENTRIES:  # else anybody's guesses at names of services would be kept
            return
        of_service = self._kept.setdefault(name, {})
        before = of_service.get(key)
        if before is not None and before is not kept:
            before.outdated = True
        self.entries += entries - (0 if before is None else before.entries)
        kept.entries = entries
        of_service[key] = kept
        while self.entries > self._config.entries_max:
            self._forget(next(iter(self._kept)))

    def _forget(self, service: _Service) -> None:
        for kept in self._kept.pop(service, {}).values():
            self.entries -= kept.entries
            kept.outdated = True

    def apply(self, changes: Iterable[RegistryChange]) -> None:
        """These instances changed: their services' pickers are made anew when they are next asked for."""
        for change in changes:
            service = (change.namespace, change.service)
            self._forget(service)
            for made in self._making.pop(service, ()):
                made.outdated = True
            self.work.outdate(service)
