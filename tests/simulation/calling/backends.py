"""The backends, and the network to them: how a call that is sent ends."""

from __future__ import annotations

from typing import NamedTuple

from simulation.calling.hosts import there
from simulation.calling.plan import Kind, Plan, Trouble
from simulation.calling.timeline import S
from simulation.chance import choose, happens, rng_of

from trunkline.core.model import RegisteredInstance
from trunkline.core.policy import StatusCode

MS = 1_000_000
NEVER_NS = 3_600 * S


class Answer(NamedTuple):
    """What comes back, after how long."""

    after_ns: int
    code: StatusCode


class Backends:
    """All of them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rng = rng_of(plan.seed, "backends")
        self._room: dict[tuple[int, int], int] = {}

    def instances(self, at_ns: int) -> list[RegisteredInstance]:
        """As the registry showed them at a time."""
        return [one.registered() for one in there(self._plan.hosts, at_ns)]

    def troubles(self, caller: int, backend: int, at_ns: int) -> list[Trouble]:
        """What is wrong there, for this caller."""
        return [
            one for one in self._plan.troubles if one.backend == backend and caller in one.callers and one.on(at_ns)
        ]

    def refuses(self, caller: int, backend: int, at_ns: int) -> bool:
        """Whether there is no connection to it."""
        return any(one.kind is Kind.REFUSING for one in self.troubles(caller, backend, at_ns))

    def ask(self, caller: int, backend: int, at_ns: int) -> Answer:
        """Send it a call."""
        well = Answer((1 + self._rng.below(40)) * MS, StatusCode.OK)
        bad = [answer for one in self.troubles(caller, backend, at_ns) if (answer := self._bad(one, at_ns))]
        return max(bad, default=well)

    def _bad(self, trouble: Trouble, at_ns: int) -> Answer | None:
        code = choose(self._rng, (StatusCode.UNAVAILABLE, StatusCode.INTERNAL))
        if trouble.kind is Kind.SILENT:
            return Answer(NEVER_NS, StatusCode.UNAVAILABLE)
        if trouble.kind is Kind.SLOW:
            return Answer(600 * MS + self._rng.below(600 * MS), StatusCode.OK)
        if trouble.kind is Kind.OVERLOADED and self._has_room(trouble, at_ns):
            return None
        if trouble.kind is Kind.FAILING and not happens(self._rng, trouble.percent):
            return None
        return Answer((1 + self._rng.below(20)) * MS, code)

    def _has_room(self, trouble: Trouble, at_ns: int) -> bool:
        second = trouble.backend, at_ns // S
        self._room[second] = self._room.get(second, trouble.percent // 10) - 1
        return self._room[second] >= 0
