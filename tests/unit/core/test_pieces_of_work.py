"""However many instances there are, what is done between two turns of the loop looks at no more than some thousands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reference.candidates import registered
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.evaluator import Evaluator
from trunkline.core.in_flight import InFlight
from trunkline.core.model import Endpoint, Locality, RegisteredInstance, Status
from trunkline.core.parts import Parts
from trunkline.core.placement import Candidate
from trunkline.core.policy import (
    Algorithm,
    Destination,
    LoadBalancingPolicy,
    LocalityPreference,
    Policy,
    S,
    SlowStart,
    Split,
    Subset,
)
from trunkline.core.selector import Selector
from trunkline.core.work import PIECE, Work, at_once, by_pieces, pieces

COUNT = 5 * PIECE + 7
LOOKS = 4 * PIECE
"""At candidates in one piece. One looks at a candidate up to four times, and a short rest goes with the piece after it."""


class Looks:
    """How often candidates were looked at since the last turn of the loop."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.turns = 0

    def turn(self) -> None:
        self.most = max(self.most, self.now)
        self.turns += 1
        self.now = 0


class Watched(Candidate):
    """A candidate that counts who looks at its instance."""

    __slots__ = ("_instance", "_looks")

    def __init__(self, instance: RegisteredInstance, endpoint: Endpoint, looks: Looks, **fields: Any) -> None:
        self._looks = looks
        super().__init__(instance, endpoint, **fields)

    @property
    def instance(self) -> RegisteredInstance:
        self._looks.now += 1
        return self._instance

    @instance.setter
    def instance(self, instance: RegisteredInstance) -> None:
        self._instance = instance


def watched(calls: InFlight, looks: Looks) -> list[Candidate]:
    """Of three versions, two zones and two statuses; every fifth is new."""
    made: list[Candidate] = []
    for number in range(COUNT):
        one = registered(
            f"i{number}",
            version=f"1.{number % 3}.0",
            zone="ab"[number % 2],
            region="r",
            status=Status.STALE if number % 7 == 0 else Status.SERVING,
            weight=100 + number % 2,
            labels={"track": "canary" if number % 10 == 0 else "stable"},
        )
        since = 0 if number % 5 == 0 else None
        made.append(Watched(one, one.instance.endpoints[0], looks, slot=calls.acquire(), new_since_ns=since))
    return made


def by(algorithm: Algorithm) -> LoadBalancingPolicy:
    return LoadBalancingPolicy(algorithm=algorithm)


SUBSETS = (Subset(name="canary", labels={"track": "canary"}), Subset(name="stable", labels={"track": "stable"}))
SPLIT = Split(destinations=(Destination(subset="canary", weight=0), Destination(subset="stable", weight=90)))
POLICIES = {
    "plain": Policy(),
    "ring": Policy(load_balancing=by(Algorithm.RING_HASH)),
    "table": Policy(load_balancing=by(Algorithm.MAGLEV)),
    "split": Policy(subsets=SUBSETS, split=SPLIT),
    "near": Policy(locality=LocalityPreference()),
    "new": Policy(slow_start=SlowStart(window_ns=100 * S)),
    "all": Policy(subsets=SUBSETS, split=SPLIT, locality=LocalityPreference(), slow_start=SlowStart(window_ns=100 * S)),
}


@contextmanager
def counted(looks: Looks) -> Iterator[None]:
    looks.__init__()  # type: ignore[misc]
    yield
    looks.turn()
    assert 0 < looks.most <= LOOKS
    assert looks.turns > COUNT // PIECE


def walked(work: Work[Any], looks: Looks) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value
        looks.turn()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("selector", [Selector(), Selector(version="^1")], ids=["all", "range"])
def test_thousands_are_placed_and_judged_in_pieces(name: str, selector: Selector) -> None:
    calls, looks = InFlight(ManualClock()), Looks()
    everybody = watched(calls, looks)
    at: Any = {"where": Locality("r", "a"), "now_ns": 50 * S}
    made = Evaluator(POLICIES[name], everybody, calls, Rng(7), selector=selector, prepared=False, **at)
    with counted(looks):
        walked(made.preparing(), looks)
    destination = made.decide(None, b"key").destination
    with counted(looks):
        walked(made.making_chain(destination), looks)
    assert made.has_chain(destination)
    with counted(looks):
        explained = walked(made.explaining(None, b"key"), looks)
    assert len(explained.verdicts) == COUNT
    whole = Evaluator(POLICIES[name], everybody, calls, Rng(7), selector=selector, **at)
    judged = whole.explain(None, b"key")
    assert (judged.verdicts, judged.pool, judged.decision) == (explained.verdicts, explained.pool, explained.decision)


def test_parts_are_found_in_pieces() -> None:
    everybody = [one.instance for one in watched(InFlight(ManualClock()), Looks())]
    assert len(list(Parts(everybody, SUBSETS).grouping())) == COUNT // PIECE


def test_few_are_one_piece() -> None:
    calls, looks = InFlight(ManualClock()), Looks()
    everybody = watched(calls, looks)[: PIECE - 1]
    made = Evaluator(POLICIES["all"], everybody, calls, Rng(7), where=Locality("r", "a"), prepared=False)
    assert list(made.preparing()) == []
    assert list(made.making_chain(made.decide().destination)) == []


def test_pieces_are_all_there_is() -> None:
    for count in (0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE):
        some = list(range(count))
        assert [one for piece in pieces(some) for one in piece] == some
        assert max(map(len, pieces(some))) <= PIECE
        assert at_once(by_pieces(some, lambda piece: [-one for one in piece])) == [-one for one in some]
        assert len(list(by_pieces(some, list))) == count // PIECE
