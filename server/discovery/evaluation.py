"""A service's policy over its instances as the registry knows them: core's evaluator, made for Pick and `explain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NotRequired, Protocol, TypedDict, Unpack

from trunkline.core.clock import Clock, Rng
from trunkline.core.evaluator import Evaluator
from trunkline.core.in_flight import InFlight
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Endpoint, Locality, RegisteredInstance
from trunkline.core.placement import Candidate
from trunkline.core.policy import PLAIN, Policy
from trunkline.core.selector import Selector
from trunkline.core.work import Work, by_pieces

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


class How(TypedDict):
    """What an evaluator is made with besides policy and instances."""

    selector: Selector
    rng: Rng
    clock: Clock
    where: NotRequired[Locality]
    ejected: NotRequired[Mapping[str, str]]
    """Reasons by id."""
    endpoint_of: NotRequired[Callable[[RegisteredInstance], Endpoint | None]]


def first_endpoint(registered: RegisteredInstance) -> Endpoint | None:
    """Whatever it speaks."""
    endpoints = registered.instance.endpoints
    return endpoints[0] if endpoints else None


def endpoint_that_speaks(protocol: str) -> Callable[[RegisteredInstance], Endpoint | None]:
    """The first of an instance's endpoints that does."""
    return lambda registered: next((one for one in registered.instance.endpoints if one.protocol == protocol), None)


def evaluator_in_slices(
    registry: RegistryView, namespace: str, service: str, policy: Policy, **how: Unpack[How]
) -> Work[Evaluator]:
    """Instances are those that there are when it begins, in the order of their ids, new since they registered.

    The server sees no calls, so none are in flight and no endpoint is full.
    """
    clock, ejected = how["clock"], how.get("ejected", NOBODY)
    endpoint_of = how.get("endpoint_of", first_endpoint)
    calls = InFlight(clock)
    state = registry.service(namespace, service)
    instances = [] if state is None else [state.instances[id_] for id_ in sorted(state.instances)]
    now_ns = clock.time_ns()

    def candidate(registered: RegisteredInstance) -> Candidate:
        return Candidate(
            registered,
            endpoint_of(registered),
            slot=calls.acquire(),
            ejected=ejected.get(registered.instance.id, "") if ejected else "",
            new_since_ns=registered.registered_at_ns,
        )

    candidates = yield from by_pieces(instances, lambda some: map(candidate, some))
    where, selector = how.get("where", NOWHERE), how["selector"]
    made = Evaluator(
        policy, candidates, calls, how["rng"], where=where, now_ns=now_ns, selector=selector, prepared=False
    )
    yield from made.preparing()
    return made
