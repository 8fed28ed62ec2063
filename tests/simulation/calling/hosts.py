"""The hosts of a service, which come and go: each is registered from a time on, some until another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from simulation.calling.timeline import S
from simulation.chance import between, choose, happens

from trunkline.core.clock import Rng
from trunkline.core.model import Endpoint, Instance, RegisteredInstance, Status

VERSIONS = ("1.4.0", "2.0.0", "3.0.0")
TRACKS = ("stable", "canary", "other")
"""What its label says, by version."""
GUESTS_MAX = 12


class Host(NamedTuple):
    """One registration. Who registers again, perhaps at the address of another, is another host."""

    number: int
    port: int
    side: int
    """Which of VERSIONS it runs."""
    from_ns: int
    until_ns: int | None
    """When it is registered no more; None: it stays."""

    def there(self, at_ns: int) -> bool:
        """Whether the registry has it."""
        return self.from_ns <= at_ns and (self.until_ns is None or at_ns < self.until_ns)

    def registered(self) -> RegisteredInstance:
        """As the registry shows it: it knows nothing of what callers meet."""
        instance = Instance(
            namespace="default", service="shop", id=str(self.number), version=VERSIONS[self.side],
            labels={"track": TRACKS[self.side]}, endpoints=(Endpoint("10.0.0.1", self.port),),
        )  # fmt: skip
        return RegisteredInstance(
            instance=instance, status=Status.SERVING, status_reason="", created_revision=1, modified_revision=1,
            registered_at_ns=0,
        )  # fmt: skip


def hosts(rng: Rng, staying: int, end_ns: int) -> tuple[Host, ...]:
    """Some that stay, and in most worlds guests: some are replaced at their address, at once or after a while."""
    sides = choose(rng, ((0, 1, 2), (0, 1), (0, 2), (1, 2)))  # what is left is there with guests alone
    found = [Host(at, 1 + at, choose(rng, sides), 0, None) for at in range(staying)]
    guests = choose(rng, (0, 0, 3, GUESTS_MAX))
    while len(found) < staying + guests:
        found.append(_guest(rng, found, staying, end_ns))
    return tuple(found)


def _guest(rng: Rng, known: Sequence[Host], staying: int, end_ns: int) -> Host:
    number = len(known)
    side = rng.below(len(VERSIONS))
    left = [(one.until_ns, one.port) for one in known[staying:] if one.until_ns is not None]
    taken = {one.port for one in known if one.until_ns is None}
    from_ns, port = int(between(rng, 1, 0.8 * end_ns / S) * S), 1 + number
    if left and happens(rng, 50):
        until_ns, old = left[-1]
        if old not in taken:  # a replacement
            from_ns, port = until_ns + choose(rng, (0, 0, 200_000_000, 3 * S)), old
    until_ns = from_ns + int(between(rng, 1, 40) * S)
    return Host(number, port, side, from_ns, until_ns if until_ns < end_ns else None)


def there(known: Sequence[Host], at_ns: int) -> list[Host]:
    """Those that are registered at a time."""
    return [one for one in known if one.there(at_ns)]


def changes_ns(known: Sequence[Host]) -> list[int]:
    """When hosts come or go."""
    times = {one.from_ns for one in known} | {one.until_ns for one in known if one.until_ns is not None}
    return sorted(times - {0})
