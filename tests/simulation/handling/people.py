"""Who lives in worlds in which the handling of events fails, and what must become of them there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from simulation.clients import Part
from simulation.handling.delivery_log import DeliveryLog
from simulation.handling.endpoint import webhook_owner
from simulation.handling.fates import CHOSEN, CLINIC, LANES, MOVED, Taken
from simulation.handling.handlers import by_fate, by_key, handler, publisher, when_it_likes
from simulation.handling.operators import operator
from simulation.handling.plan import PARKED
from simulation.handling.schedulers import scheduler

if TYPE_CHECKING:
    from simulation.world import World

QUIET_S = 8.0
"""Lanes stay stuck for so long after the last fault: then nothing but they could hold up others."""

GUESTS_STAY_S = (0.5, 4.0)
"""Consumers that come and go."""


def people(world: World) -> dict[str, Callable[[], Part]]:
    """By role, how to make the next one who plays it."""
    roles: dict[str, Callable[[], Part]] = {}
    roles["publish-later"] = lambda: scheduler(world.node.clock.time_ns)
    for number in range(2):
        roles[f"publish-{number}"] = lambda: publisher(every_s=(0.1, 0.8), wall_ns=world.node.clock.time_ns)
        roles[f"clinic-{number}"] = lambda: handler(CLINIC, by_fate(lambda: world.calm))
        roles[f"lane-{number}"] = lambda: handler(LANES, by_key(lambda: _has_been_calm(world)))
    for taken in (CHOSEN, MOVED):
        roles[taken.name] = _handler(world, taken)
    roles["hook"] = webhook_owner
    roles["operator"] = lambda: operator(lambda: world.calm)
    roles["clinic-guest"] = lambda: handler(CLINIC, by_fate(lambda: world.calm), stays_s=GUESTS_STAY_S)
    roles["lane-guest"] = lambda: handler(LANES, by_key(lambda: _has_been_calm(world)), stays_s=GUESTS_STAY_S)
    return roles


def _handler(world: World, taken: Taken) -> Callable[[], Part]:
    return lambda: handler(taken, when_it_likes(taken, lambda: world.calm))


def _has_been_calm(world: World) -> bool:
    since_s = world.calm_since_s
    return since_s is not None and asyncio.get_running_loop().time() >= since_s + QUIET_S


def observe(world: World) -> DeliveryLog:
    """Write down what is delivered."""
    return DeliveryLog(world.network, world.node)


def _feeds(world: World) -> Iterator[tuple[str, Any]]:
    plane = world.node.plane
    if plane is not None:
        for stream in plane.events.streams.opened():
            yield from stream.feeds.items()


def under_way(world: World) -> list[str]:
    """Operations that last: lanes that are parked."""
    log: DeliveryLog = world.seen
    parked = {name: feed.state.parked for name, feed in _feeds(world)}
    for name, count in parked.items():
        log.parked[name] += count > log.parked_last.get(name, 0)
    log.parked_last = parked
    return [PARKED] if any(parked.values()) else []


def unsettled(world: World) -> list[str]:
    """What waits for a handler, or for a dead letter."""
    left = [] if _has_been_calm(world) else ["lanes are stuck still"]
    log: DeliveryLog = world.seen
    if not log.parked[LANES.name]:
        left.append(f"{LANES.name} has had parked lanes: the world is too small to show what becomes of them")
    for name, feed in _feeds(world):
        if feed.state.parked:
            left.append(f"{name} has taken its {feed.state.parked} parked lanes in again")
        if feed.state.set_aside:
            left.append(f"{name} has dead letters of {sorted(feed.state.set_aside)[:5]}")
    return left
