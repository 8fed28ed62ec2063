"""What a change of policy takes away: capacity, and the homes of keys. Pure; work comes in slices.

A change is judged by the instances that there are: whose weight gets calls before and after it, and where a sample of
keys is hashed to before and after it. What every caller decides for itself (locality, ejections, breakers, limits) is not
looked at, but for a breaker that is forced open, which takes everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trunkline.core.errors import BlastRadius
from trunkline.core.maglev import Maglev
from trunkline.core.model import ROUTABLE, RegisteredInstance, Status
from trunkline.core.parts import Parts
from trunkline.core.policy import HASHING as HASHING_ALGORITHMS
from trunkline.core.policy import Algorithm, Forced, LoadBalancingPolicy, Policy
from trunkline.core.ring import Ring
from trunkline.core.work import Work, at_once

KEYS = tuple(f"key-{number}".encode() for number in range(1_000))
"""The sample."""
TABLE_SIZES = (65_537, 65_521)
"""Larger tables take too long to build here. Which size it is makes no difference, whether it is another one does."""
RING_SIZE_MAX = 16_384
"""The same for rings, of which a larger one has nearly the same owners."""

LIMIT_DEFAULT = 50
"""Percent, of both."""


class Limits(NamedTuple):
    """How much may be taken away, in percent."""

    capacity_removed: int = LIMIT_DEFAULT
    keys_moved: int = LIMIT_DEFAULT


class Radius(NamedTuple):
    """What a change takes away from one service."""

    service: str
    capacity_before: int
    """Weight of the instances that get calls."""
    capacity_after: int
    keys_moved: float
    """Percent of the keys; 0 where nothing was hashed before."""

    @property
    def capacity_removed(self) -> float:
        """Percent of what there was."""
        gone = max(0, self.capacity_before - self.capacity_after)
        return 100 * gone / self.capacity_before if gone else 0.0

    @property
    def worst(self) -> float:
        """The larger of the two shares."""
        return max(self.capacity_removed, self.keys_moved)


Pool = tuple[float, Sequence[RegisteredInstance]]
"""The share of calls that goes to one destination, and the instances that are there."""


def refuse_beyond(radii: Iterable[Radius], limits: Limits) -> None:
    """Raise BlastRadius for the first service that loses more than the limits say."""
    for radius in radii:
        for share, limit, what in (
            (radius.capacity_removed, limits.capacity_removed, "of its capacity would get no more calls"),
            (radius.keys_moved, limits.keys_moved, "of its keys would move to other instances"),
        ):
            if share > limit:
                raise BlastRadius(
                    f"{radius.service}: {share:.4g} % {what}, the limit is {limit} %; `force` does it all the same",
                    service=radius.service,
                    share=f"{share:.4g}",
                    limit=str(limit),
                )


def radius_of(service: str, instances: Iterable[RegisteredInstance], before: Policy, after: Policy) -> Work[Radius]:
    """What a change takes away from a service; yields between two pieces of work of some ms."""
    members = [one for one in instances if one.status in ROUTABLE]
    pools = (yield from _pools(before, members)), (yield from _pools(after, members))
    capacity: list[int] = []
    for of in pools:
        weights: dict[str, int] = {}
        for _, pool in of:
            weights.update((one.instance.id, one.instance.weight) for one in pool)
            yield
        capacity.append(sum(weights.values()))
    moved = yield from _moved(pools, before.load_balancing, after.load_balancing)
    return Radius(service, capacity[0], capacity[1], moved)


def pools_of(policy: Policy, members: Sequence[RegisteredInstance]) -> list[Pool]:
    """Where calls go that no match of the split decides. A destination without instances is left out.

    None when no destination has any: callers take all instances then, but nobody wanted to write that.
    """
    return at_once(_pools(policy, members))


def _pools(policy: Policy, members: Sequence[RegisteredInstance]) -> Work[list[Pool]]:
    breakers = (policy.circuit_breaker, policy.endpoint_circuit_breaker)
    if any(breaker is not None and breaker.forced is Forced.OPEN for breaker in breakers):
        return []
    destinations = policy.split.destinations if policy.split is not None else ()
    if not destinations:
        return [(1.0, best_of(members))] if members else []
    parts = Parts(members, policy.subsets)
    found: list[tuple[int, list[RegisteredInstance]]] = []
    for one in destinations:
        yield
        if one.weight:
            found.append((one.weight, best_of([members[place] for place in parts.places_of(one)])))
    # One that has only STALE instances is behind those that have others.
    if any(pool and pool[0].status is not Status.STALE for _, pool in found):
        found = [(weight, pool) for weight, pool in found if pool and pool[0].status is not Status.STALE]
    total = sum(weight for weight, pool in found if pool)
    return [(weight / total, pool) for weight, pool in found if pool]


def best_of(members: Sequence[RegisteredInstance]) -> list[RegisteredInstance]:
    """SERVING before DEGRADED before STALE."""
    best = min((one.status for one in members), default=None)
    return [one for one in members if one.status is best]


def _moved(
    pools: tuple[list[Pool], list[Pool]], before: LoadBalancingPolicy, after: LoadBalancingPolicy
) -> Work[float]:
    """Percent of the sample's calls that go to another instance: of each key, 1 - sum of min(share before, after)."""
    if before.algorithm not in HASHING_ALGORITHMS or not pools[0]:
        return 0.0
    if after.algorithm not in HASHING_ALGORITHMS or not pools[1]:
        return 100.0
    sizes = table_sizes(before.table_size, after.table_size)
    homes: list[list[dict[str, float]]] = []
    for of, balancing, size in zip(pools, (before, after), sizes, strict=True):
        of_keys: list[dict[str, float]] = [{} for _ in KEYS]
        for share, pool in of:
            yield
            table = _table(balancing, pool, size)
            yield
            for key, shares in zip(KEYS, of_keys, strict=True):
                home = pool[table.locate_key(key)].instance.id
                shares[home] = shares.get(home, 0.0) + share
        homes.append(of_keys)
    yield
    stayed: float = sum(
        min(share, now.get(home, 0.0)) for was, now in zip(*homes, strict=True) for home, share in was.items()
    )
    return max(0.0, round(100 * (1 - stayed / len(KEYS)), 9))


def table_sizes(before: int, after: int) -> tuple[int, int]:
    """Sizes of Maglev tables that stand for these: the same when they are, and not too large to build."""
    if max(before, after) <= TABLE_SIZES[0]:
        return before, after
    if before == after:
        return TABLE_SIZES[0], TABLE_SIZES[0]
    small = min(before, after)
    large = TABLE_SIZES[0] if small != TABLE_SIZES[0] else TABLE_SIZES[1]
    small = min(small, TABLE_SIZES[1]) if small > TABLE_SIZES[0] else small
    return (small, large) if before < after else (large, small)


def _table(balancing: LoadBalancingPolicy, pool: Sequence[RegisteredInstance], table_size: int) -> Ring | Maglev:
    """Over addresses, as the SDK and Envoy hash."""
    hosts = [one.instance.endpoints[0].address for one in pool]
    weights = [one.instance.weight for one in pool]
    if balancing.algorithm is Algorithm.MAGLEV:
        return Maglev(hosts, weights, table_size=table_size)
    largest = min(balancing.maximum_ring_size, RING_SIZE_MAX)
    return Ring(hosts, weights, minimum_ring_size=min(balancing.minimum_ring_size, largest), maximum_ring_size=largest)
