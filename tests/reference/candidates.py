"""Instances and candidates for tests of policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trunkline.core.clock import Clock, ManualClock, Rng
from trunkline.core.evaluator import Evaluator
from trunkline.core.in_flight import InFlight
from trunkline.core.model import Endpoint, Instance, Locality, RegisteredInstance, Status
from trunkline.core.placement import Candidate, Pool
from trunkline.core.policy import Policy


def registered(
    name: str,
    *,
    version: str = "1.0.0",
    zone: str = "",
    region: str = "",
    sub_zone: str = "",
    status: Status = Status.SERVING,
    weight: int = 100,
    labels: Mapping[str, str] | None = None,
    port: int = 80,
    protocol: str = "grpc",
    registered_at_ns: int = 0,
) -> RegisteredInstance:
    """An instance of the service "s", whose host is its name."""
    return RegisteredInstance(
        instance=Instance(
            namespace="n",
            service="s",
            id=name,
            endpoints=(Endpoint(f"{name}.test", port, protocol),),
            version=version,
            weight=weight,
            locality=Locality(region, zone, sub_zone),
            labels=labels or {},
        ),
        status=status,
        status_reason="",
        created_revision=1,
        modified_revision=1,
        registered_at_ns=registered_at_ns,
    )


def candidate(
    name: str, *, slot: int = -1, out: str = "", ejected: str = "", new_since_ns: int | None = None, **fields: Any
) -> Candidate:
    """A candidate with its only endpoint."""
    instance = registered(name, **fields)
    return Candidate(
        instance, instance.instance.endpoints[0], slot=slot, out=out, ejected=ejected, new_since_ns=new_since_ns
    )


def evaluator(
    policy: Policy, candidates: Iterable[Candidate], seed: int = 1, *, clock: Clock | None = None, **fields: Any
) -> Evaluator:
    """An evaluator with calls of its own."""
    calls = InFlight(clock or ManualClock())
    known = list(candidates)
    for one in known:
        one.slot = calls.acquire()
    return Evaluator(policy, known, calls, Rng(seed), **fields)


def names(pool: Pool | None) -> list[str]:
    """Who is in a pool, sorted."""
    if pool is None:
        return []
    return sorted(one.instance.instance.id for level in pool.levels for one in level.candidates)


def level_loads(pool: Pool | None) -> dict[str, int]:
    """What percent of the calls each level gets."""
    return {} if pool is None else {level.name: level.load_percent for level in pool.levels}
