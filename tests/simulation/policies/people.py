"""Who lives in worlds of policies, and what must become of them there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.chance import choose
from simulation.clients import Client, Part, provider, watcher
from simulation.history import Watched
from simulation.policies.log import Held, Log, Shown, Telling
from simulation.policies.owners import owner
from simulation.raw import raw_watcher

from reference.watch import ModelWatcher
from trunkline.client._view import View
from trunkline.core.selector import Selector

if TYPE_CHECKING:
    from simulation.world import World

ANCHORS = {"cart": ("1.2.3", "2.0.0"), "pay": ("1.4.0",)}
"""Versions of the instances that never go."""
OWNERS = 3
WATCHES = {
    "namespace": ("", Selector()),
    "service": ("cart", Selector()),
    "version": ("cart", Selector(version=">=2.0.0")),
    "unsaid": ("mail", Selector()),
}
QUIET_S = 4.0
"""Policies are changed for so long after the last fault."""


def people(world: World) -> dict[str, Callable[[], Part]]:
    """By role, how to make the next one who plays it."""
    roles: dict[str, Callable[[], Part]] = {}
    for service, versions in ANCHORS.items():
        for number, version in enumerate(versions):
            roles[f"{service}-anchor{number}"] = _provider(world, service, version, None)
    roles["cart-0"] = _provider(world, "cart", "1.4.0", (1.5, 7.0))
    for name, (service, selector) in WATCHES.items():
        roles[f"watch-{name}"] = _watcher(world, name, service, selector)
    for service in ("", "cart", "mail"):
        roles[f"raw-{service or 'all'}"] = _raw(world, service)
    for number in range(OWNERS):
        roles[f"owner-{number}"] = lambda: owner(_log(world), lambda: _is_quiet(world))
    return roles


def _provider(world: World, service: str, version: str, lifetime_s: tuple[float, float] | None) -> Callable[[], Part]:
    return lambda: provider(service, ttl_s=choose(world.rng, (2.0, 5.0)), version=version, lifetime_s=lifetime_s)


def observe(world: World) -> Log:
    """Write down what is asked and told."""
    return Log()


def _log(world: World) -> Log:
    assert isinstance(world.seen, Log)
    return world.seen


def _is_quiet(world: World) -> bool:
    since_s = world.calm_since_s
    return since_s is not None and asyncio.get_running_loop().time() >= since_s + QUIET_S


def unsettled(world: World) -> list[str]:
    """All changes are made, and everybody who has a view knows of the last."""
    log, left = _log(world), [] if _is_quiet(world) else ["policies are still changed"]
    for client in world.clients:
        if client.view is not None and client.view.revision < log.answered_revision:
            left.append(f"G10 {client.name}'s view at {client.view.revision} knows of {log.answered_revision}")
    return left


# Watching.


def _watcher(world: World, name: str, service: str, selector: Selector) -> Callable[[], Part]:
    def make() -> Part:
        watched, telling = Watched(name, service, selector), Telling(name, service)
        world.history.watches.append(watched)
        _log(world).tellings.append(telling)

        def looks(client: Client, view: View) -> None:
            held = {service: Held(policy.revision, policy) for service, policy in view.policies.items()}
            telling.shown.append(Shown(view.revision, held))
            client.history.note("policies", client.name, {name: one.revision for name, one in held.items()})

        return watcher(watched, looks)

    return make


def _raw(world: World, service: str) -> Callable[[], Part]:
    def begins(client: Client, model: ModelWatcher) -> Callable[[], None]:
        telling = Telling("raw", service, _held(model) if model.token else None)
        _log(world).tellings.append(telling)
        known = len(model.tokens)

        def look() -> None:
            nonlocal known
            if len(model.tokens) > known:
                known = len(model.tokens)
                telling.shown.append(Shown(model.revision, _held(model)))

        return look

    return lambda: raw_watcher(service, begins)


def _held(model: ModelWatcher) -> dict[str, Held]:
    return {service: Held(one.revision, one) for service, one in model.policies.items()}
