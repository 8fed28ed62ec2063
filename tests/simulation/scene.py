"""What a kind of worlds is made of: who lives there, what goes wrong and when, and what is demanded at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trunkline.server.events.bounds import DEFAULT, LookAhead
from trunkline.server.events.webhooks import ClosableSender
from trunkline.server.plane import PlaneConfig

if TYPE_CHECKING:
    from simulation.clients import Part
    from simulation.faults import Cell
    from simulation.truth import Journal
    from simulation.world import World

Check = Callable[["World", "Journal"], Iterable[str]]
"""Says what broke a promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """See the module."""

    people: Callable[[World], Mapping[str, Callable[[], Part]]]
    """By role, how to make the next one who plays it."""
    config: Callable[[int], PlaneConfig]
    """The server's, by seed."""
    planned: Callable[[int], list[Cell]]
    """What a seed is to see."""
    checks: Mapping[str, Check]
    """By promise."""
    look_ahead: Callable[[int], LookAhead] = lambda seed: DEFAULT
    """The subscriptions', by seed."""
    sender: Callable[[World], ClosableSender] | None = None
    """What the server's webhooks send with."""
    observe: Callable[[World], Any] = lambda world: None
    """Called at the beginning; what it gives is the world's `seen`."""
    under_way: Callable[[World], Iterable[str]] = lambda world: ()
    """Asked twice a second while the server serves: operations, beyond those on wire and disk, that faults may strike in."""
    unsettled: Callable[[World], list[str]] = lambda world: []
    """What must become so after the last fault, and is not yet."""
