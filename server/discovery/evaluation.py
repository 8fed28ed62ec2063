"""A service's policy over its instances as the registry knows them: core's evaluator, made for Pick and `explain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from trunkline.core.clock import Clock, Rng
from trunkline.core.evaluator import Evaluator
from trunkline.core.in_flight import InFlight
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Endpoint, Locality, RegisteredInstance
from trunkline.core.placement import Candidate
from trunkline.core.policy import PLAIN, Policy
from trunkline.core.selector import Selector

from .registry_view import RegistryView


class Policies(Protocol):
    """What holds for each service."""

    def effective(self, namespace: str, service: str) -> Policy:
        """The same value until it changes."""


class NoPolicies:
    """Nobody has said anything."""

    def effective(self, namespace: str, service: str) -> Policy:
        """See Policies."""
        return PLAIN


NOBODY: Mapping[str, str] = {}


def first_endpoint(registered: RegisteredInstance) -> Endpoint | None:
    """Whatever it speaks."""
    return next(iter(registered.instance.endpoints), None)


def endpoint_that_speaks(protocol: str) -> Callable[[RegisteredInstance], Endpoint | None]:
    """The first of an instance's endpoints that does."""
    return lambda registered: next((one for one in registered.instance.endpoints if one.protocol == protocol), None)


def evaluator_of(
    registry: RegistryView,
    namespace: str,
    service: str,
    policy: Policy,
    *,
    selector: Selector,
    rng: Rng,
    clock: Clock,
    where: Locality = NOWHERE,
    ejected: Mapping[str, str] = NOBODY,
    endpoint_of: Callable[[RegisteredInstance], Endpoint | None] = first_endpoint,
) -> Evaluator:
    """Instances are in the order of their ids, new since they registered. `ejected` has reasons by id.

    The server sees no calls, so none are in flight and no endpoint is full.
    """
    calls = InFlight(clock)
    state = registry.service(namespace, service)
    instances = [] if state is None else sorted(state.instances.values(), key=lambda one: one.instance.id)
    candidates = [
        Candidate(
            registered,
            endpoint_of(registered),
            slot=calls.acquire(),
            ejected=ejected.get(registered.instance.id, ""),
            new_since_ns=registered.registered_at_ns,
        )
        for registered in instances
    ]
    return Evaluator(policy, candidates, calls, rng, where=where, now_ns=clock.time_ns(), selector=selector)
