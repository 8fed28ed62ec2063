"""Who lives in a world: what each client does, and how many there are of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.chance import choose
from simulation.clients import (
    Heard,
    Part,
    consumer,
    glance,
    hermit,
    impostor,
    listener,
    pipeliner,
    producer,
    provider,
    publisher,
    puller,
    sip,
    twins,
    watcher,
)
from simulation.history import Watched
from simulation.raw import raw_watcher

from trunkline.core.selector import Selector

if TYPE_CHECKING:
    from simulation.world import World

SERVICES = {"cart": 2, "pay": 1}
"""How many instances of each never go."""
COMING_AND_GOING = 3
TTLS_S = (2.0, 3.0, 5.0)
VERSIONS = ("1.2.3", "1.4.0", "2.0.0")
SOME = Selector(version=">=1.0.0 <2.0.0")


def people(world: World) -> dict[str, Callable[[], Part]]:
    """By role, how to make the next one who plays it."""
    roles: dict[str, Callable[[], Part]] = {}
    for service, anchors in SERVICES.items():
        for number in range(anchors):
            roles[f"{service}-anchor{number}"] = _provider(world, service, None)
        for number in range(COMING_AND_GOING):
            roles[f"{service}-{number}"] = _provider(world, service, (1.5, 7.0))
    for name, service, selector in (("all", "", Selector()), ("cart", "cart", Selector()), ("some", "cart", SOME)):
        roles[f"watch-{name}"] = _watcher(world, name, service, selector)
    for service in ("mail", "cart"):  # the only one of its service, and one who is not missed
        roles[f"{service}-anchor9"] = _hermit(world, service)
    roles["watch-nobody"] = _watcher(world, "nobody", "nobody", Selector())
    roles["raw-all"] = lambda: raw_watcher("")
    roles["raw-cart"] = lambda: raw_watcher("cart")
    roles["impostor"] = lambda: impostor(world.guests)
    roles["publish"] = lambda: publisher(every_s=(0.1, 1.0))
    roles["twins"] = lambda: twins(every_s=(0.3, 1.5))
    roles["pipeline"] = lambda: pipeliner(every_s=(0.1, 1.0))
    roles["pipeline-numbered"] = lambda: producer(every_s=(0.1, 1.0))
    for number in range(2):
        roles[f"bill-{number}"] = lambda: consumer("billing", filters=("order.>",), calm=lambda: world.calm)
        roles[f"lane-{number}"] = lambda: consumer("lanes", filters=(), calm=lambda: world.calm, ordering="keyed")
    roles["peek"] = lambda: glance(Watched("peek", "cart", Selector()))
    roles["sip"] = sip
    roles["audit"] = lambda: puller("audit")
    roles["listen-tap"] = _listener(world, "tap", acknowledges=False)
    roles["listen-feed"] = _listener(world, "feed", acknowledges=True)
    return roles


def _provider(world: World, service: str, lifetime_s: tuple[float, float] | None) -> Callable[[], Part]:
    return lambda: provider(
        service, ttl_s=choose(world.rng, TTLS_S), version=choose(world.rng, VERSIONS), lifetime_s=lifetime_s
    )


def _hermit(world: World, service: str) -> Callable[[], Part]:
    return lambda: hermit(service, ttl_s=2.0, calm=lambda: world.calm)


def _watcher(world: World, name: str, service: str, selector: Selector) -> Callable[[], Part]:
    def make() -> Part:
        watched = Watched(name, service, selector)
        world.history.watches.append(watched)
        return watcher(watched)

    return make


def _listener(world: World, name: str, *, acknowledges: bool) -> Callable[[], Part]:
    def make() -> Part:
        heard = Heard(name, [], acknowledges)
        world.heard.append(heard)
        return listener(heard)

    return make
