"""What people say of services, and, plainly, what of it contradicts itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulation.chance import choose, happens
from simulation.clients import NAMESPACE

from trunkline.api.v1 import policy_pb2
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.clock import Rng

SERVICES = ("cart", "pay", "mail")
"""Of the last nobody ever says anything by its name."""
NAMED = ("", "cart", "pay")
"""Whose policies are changed; the first is the namespace's."""
SUBSETS = {"blue": "<2.0.0", "green": ">=2.0.0"}
SECONDS = (1, 2, 3)
Sections = Mapping[str, Any]
"""Of a policy, by name."""


def sections_of(policy: TrafficPolicy | None) -> Sections:
    """What a policy says, its names aside."""
    said = {} if policy is None else {field.name: value for field, value in policy.ListFields()}
    return {name: value for name, value in said.items() if name not in ("namespace", "service")}


def saying(rng: Rng, service: str) -> TrafficPolicy:
    """A policy of a service, or of the namespace; by itself, and with others', it may be contradictory."""
    policy = TrafficPolicy(namespace=NAMESPACE, service=service)
    policy.limits.max_requests = 1 + rng.below(1_000_000)  # so that hardly two are the same
    for say in (_timeout, _retry, _subsets, _split):
        if happens(rng, 45):
            say(policy, rng)
    if service and happens(rng, 30):
        policy.fallback.service = choose(rng, NAMED[1:])
    return policy


def _timeout(policy: TrafficPolicy, rng: Rng) -> None:
    policy.timeout.seconds = choose(rng, SECONDS)


def _retry(policy: TrafficPolicy, rng: Rng) -> None:
    policy.retry.max_attempts = 2 + rng.below(3)
    policy.retry.per_try_timeout.seconds = choose(rng, SECONDS)


def _subsets(policy: TrafficPolicy, rng: Rng) -> None:
    for name in SUBSETS if happens(rng, 60) else (choose(rng, tuple(SUBSETS)),):
        policy.subsets.add(name=name, version=SUBSETS[name])


def _split(policy: TrafficPolicy, rng: Rng) -> None:
    if happens(rng, 70):
        policy.split.destinations.add(subset=choose(rng, tuple(SUBSETS)), weight=1 + rng.below(9))
    policy.split.destinations.add(version=choose(rng, ("<2.0.0", ">=2.0.0", "*")), weight=1 + rng.below(9))


def contradictions(held: Mapping[str, Sections]) -> list[str]:
    """What cannot be, in what holds for services by name."""
    found = []
    for service, sections in held.items():
        retry, timeout = sections.get("retry"), sections.get("timeout")
        if retry is not None and timeout is not None and retry.per_try_timeout.seconds > timeout.seconds:
            found.append(f"{service}: an attempt may take longer than the call")
        known = {subset.name for subset in sections.get("subsets", ())}
        split = sections.get("split", policy_pb2.Split())
        unknown = {one.subset for one in split.destinations if one.subset} - known
        if unknown:
            found.append(f"{service}: calls go to {sorted(unknown)} of {sorted(known)}")
    found += _cycles({name: sections["fallback"].service for name, sections in held.items() if "fallback" in sections})
    return found


def _cycles(next_of: Mapping[str, str]) -> list[str]:
    for service in next_of:
        path = [service]
        while (after := next_of.get(path[-1])) and after not in path:
            path.append(after)
        if after:
            return [f"{' -> '.join(path)} -> {after} falls back for ever"]
    return []
