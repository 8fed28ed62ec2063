"""Picking one of 1,000 endpoints, and making the picker anew when one is added."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import uhashring

from bench.micro.baseline import PEER, empty_method
from bench.micro.timing import FULL, QUICK, Plan, each, each_of, row
from trunkline.core.clock import Rng
from trunkline.core.maglev import Maglev
from trunkline.core.ring import Ring
from trunkline.core.selection import LeastRequest, Random, RoundRobin, WeightedRandom

COUNT = 1_000
SEED = 1

Row = dict[str, Any]


def addresses(count: int) -> list[str]:
    """host:port of so many endpoints."""
    return [f"10.0.{index // 250}.{index % 250}:8080" for index in range(count)]


def uneven(count: int) -> list[int]:
    """Weights in [1, 1,000], always the same."""
    chance = random.Random(SEED)
    return [chance.randrange(1, 1_001) for _ in range(count)]


def makers(count: int) -> dict[str, Callable[[], Any]]:
    """How each picker is made for so many endpoints."""
    hosts, equal, weights, rng = addresses(count), [100] * count, uneven(count), Rng(SEED)
    return {
        "round robin": lambda: RoundRobin(equal),
        "weighted round robin": lambda: RoundRobin(weights),
        "random": lambda: Random(count, rng),
        "weighted random": lambda: WeightedRandom(weights, rng),
        "least request": lambda: LeastRequest(equal, rng),
        "weighted least request": lambda: LeastRequest(weights, rng),
        "ring hash": lambda: Ring(hosts, equal),
        "maglev": lambda: Maglev(hosts, equal),
        "weighted maglev": lambda: Maglev(hosts, weights),
    }


def picks(plan: Plan) -> list[Row]:
    """A pick of each, by an empty call in a loop without arguments."""
    nothing = each(empty_method())
    rng = Rng(SEED)
    hashes = [rng.u64() for _ in range(50_000)]
    found = []
    for name, make in makers(COUNT).items():
        picker = make()
        hashed = isinstance(picker, Ring | Maglev)
        loop = each_of(picker.locate, hashes) if hashed else each(picker.pick)
        ratio_max = 10 if isinstance(picker, Ring) else 5
        metric = f"{name}: pick of {COUNT:,}"
        found.append(row("pick", metric, plan, loop, PEER, nothing, ratio_max=ratio_max, goal_ns=60))
    return found


def peers(plan: Plan) -> list[Row]:
    """The same work in Python packages: a key to its host, and a weighted choice."""
    hosts, weights = addresses(COUNT), uneven(COUNT)
    keys = [f"user-{number}" for number in range(50_000)]
    as_bytes = [key.encode() for key in keys]
    theirs = uhashring.HashRing(nodes=hosts)
    ours = Ring(hosts, [1] * COUNT)
    sums = list(accumulate(weights))
    choices, everyone = random.Random(SEED).choices, range(COUNT)
    return [
        row(
            "pick",
            f"ring hash: key to host of {COUNT:,}",
            plan,
            each_of(ours.locate_key, as_bytes),
            "uhashring get_node",
            each_of(theirs.get_node, keys),
        ),
        row(
            "pick",
            f"weighted random: pick of {COUNT:,}",
            plan,
            each(WeightedRandom(weights, Rng(SEED)).pick),
            "random.choices with cum_weights",
            each(lambda: choices(everyone, cum_weights=sums)),
        ),
    ]


def rebuilds(plan: Plan) -> list[Row]:
    """A new picker after one endpoint was added to 1,000; for the ring, beside adding a node to uhashring's."""
    found = []
    hosts = addresses(COUNT + 1)
    theirs = uhashring.HashRing(nodes=hosts[:-1])

    def add_and_remove() -> None:
        theirs.add_node(hosts[-1])
        theirs.remove_node(hosts[-1])

    def add(n: int) -> int:
        return each(add_and_remove)(n) // 2

    for name, make in makers(COUNT + 1).items():
        metric = f"{name}: new picker of {COUNT + 1:,}"
        if name == "ring hash":
            found.append(row("pick", metric, plan, each(make), "uhashring add_node or remove_node", add))
        else:
            found.append(row("pick", metric, plan, each(make)))
    return found


def rows(quick: bool) -> list[Row]:
    """All results, in CPU nanoseconds a call."""
    plan = QUICK if quick else FULL
    return [*picks(plan), *peers(plan), *rebuilds(plan)]
