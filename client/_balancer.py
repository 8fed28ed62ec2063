"""Which endpoint gets the next call: the best tier that can be reached, and core's pickers over it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol, TypeAlias

from trunkline.core.clock import Rng
from trunkline.core.errors import InvalidArgument
from trunkline.core.hashing import xxh64
from trunkline.core.maglev import Maglev
from trunkline.core.model import Endpoint, RegisteredInstance, Status
from trunkline.core.ring import Ring
from trunkline.core.selection import LeastRequest, Random, RoundRobin, WeightedRandom

LoadBalancing: TypeAlias = Literal["round_robin", "random", "weighted_random", "least_request", "ring_hash", "maglev"]
"""Envoy's names. Round robin is weighted when weights differ."""

TIERS = (Status.SERVING, Status.DEGRADED, Status.STALE)
"""In this order: the next one only when nothing of the one before can be reached."""


class Candidate:
    """One endpoint that may be picked."""

    __slots__ = ("active", "ejected", "endpoint", "index", "instance", "out")

    def __init__(self, instance: RegisteredInstance, endpoint: Endpoint) -> None:
        self.instance = instance
        self.endpoint = endpoint
        self.out = ""
        """Why it is not picked although it is registered; empty when it is."""
        self.ejected = ""
        """Why outlier detection leaves it out; empty when it does not."""
        self.active = 0
        """Calls in flight."""
        self.index = -1
        """In the present picker; -1 when it is not in it."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same candidate after an update: the instance and its address."""
        return self.instance.instance.service, self.instance.instance.id, self.endpoint.address

    def __repr__(self) -> str:
        return f"<Candidate {self.instance.instance.id} at {self.endpoint.address}>"


class Picker(Protocol):
    """An index among those that it was made for."""

    def pick(self) -> int: ...


class Located(Protocol):
    """A picker that goes by a hash."""

    def locate(self, hash: int) -> int: ...


class HashPicker:
    """A ring or a table; a call without a key goes anywhere."""

    def __init__(self, table: Located, rng: Rng) -> None:
        self._table = table
        self._rng = rng

    def pick(self) -> int:
        """By chance."""
        return self._table.locate(self._rng.u64())

    def pick_for(self, key: bytes) -> int:
        """Always the same while the endpoints are the same."""
        return self._table.locate(xxh64(key))


class Balancer:
    """Candidates from a view, grouped in tiers, and the picker over those that are picked now.

    It is rebuilt at the first pick after something changed, so that a burst of changes costs one rebuild.
    """

    def __init__(self, load_balancing: LoadBalancing, protocol: str, rng: Rng) -> None:
        make = MAKERS.get(load_balancing)
        if make is None:
            raise InvalidArgument.of("load_balancing", f"one of {', '.join(MAKERS)}", load_balancing)
        self._make = make
        self._protocol = protocol
        self._rng = rng
        self._candidates: dict[tuple[str, str, str], Candidate] = {}
        self._members: list[Candidate] = []
        self._picker: Picker | None = None
        self._counts: LeastRequest | None = None

    @property
    def candidates(self) -> Sequence[Candidate]:
        """All of them, those that are out included."""
        return list(self._candidates.values())

    def update(self, instances: Iterable[RegisteredInstance]) -> list[Candidate]:
        """Take a new state in; returns the candidates that are gone."""
        before, self._candidates = self._candidates, {}
        for instance in instances:
            endpoint = self._endpoint_of(instance)
            if endpoint is None or instance.status not in TIERS:
                continue
            fresh = Candidate(instance, endpoint)
            known = before.pop(fresh.key, None)
            if known is not None:
                known.instance, known.endpoint = instance, endpoint
            self._candidates[fresh.key] = known or fresh
        self._picker = None
        for gone in before.values():
            gone.index = -1
        return list(before.values())

    def _endpoint_of(self, instance: RegisteredInstance) -> Endpoint | None:
        endpoints = instance.instance.endpoints
        return next((endpoint for endpoint in endpoints if endpoint.protocol == self._protocol), None)

    def holds(self, candidate: Candidate) -> bool:
        """Whether it is still registered."""
        return self._candidates.get(candidate.key) is candidate

    def set_out(self, candidate: Candidate, why: str) -> None:
        """Pick it no more (or, with an empty reason, again)."""
        if candidate.out != why:
            if bool(candidate.out) != bool(why):
                self._picker = None
            candidate.out = why

    def set_ejected(self, candidate: Candidate, why: str) -> None:
        """Pick it only when there is no other one in its tier (or, with an empty reason, again)."""
        if bool(candidate.ejected) != bool(why):
            self._picker = None
        candidate.ejected = why

    def pick(self, key: bytes | None = None) -> Candidate | None:
        """None when there is no candidate at all.

        When every candidate is out, all of the best tier are picked from: trying is better than refusing.
        """
        if self._picker is None:
            self._rebuild()
        picker = self._picker
        if picker is None:
            return None
        if key is not None and isinstance(picker, HashPicker):
            return self._members[picker.pick_for(key)]
        return self._members[picker.pick()]

    def pick_another(self, tried: set[Candidate]) -> Candidate | None:
        """The best candidate that was not tried; None when all were."""
        left = [candidate for candidate in self._candidates.values() if candidate not in tried]
        return min(left, key=lambda candidate: (bool(candidate.out), candidate.instance.status), default=None)

    def begun(self, candidate: Candidate) -> None:
        """A call goes there."""
        candidate.active += 1
        if self._counts is not None and candidate.index >= 0:
            self._counts.started(candidate.index)

    def ended(self, candidate: Candidate) -> None:
        """It is over."""
        candidate.active -= 1
        if self._counts is not None and candidate.index >= 0:
            self._counts.finished(candidate.index)

    def _rebuild(self) -> None:
        for candidate in self._members:
            candidate.index = -1
        self._members = self._best()
        for index, candidate in enumerate(self._members):
            candidate.index = index
        self._picker = self._make(self._members, self._rng) if self._members else None
        self._counts = self._picker if isinstance(self._picker, LeastRequest) else None

    def _best(self) -> list[Candidate]:
        for status in TIERS:
            members = [one for one in self._candidates.values() if one.instance.status is status and not one.out]
            if members:
                return [one for one in members if not one.ejected] or members
        best = min((one.instance.status for one in self._candidates.values()), default=None)
        return [one for one in self._candidates.values() if one.instance.status is best]


def _weights(members: Sequence[Candidate]) -> list[int]:
    return [member.instance.instance.weight for member in members]


def _hosts(members: Sequence[Candidate]) -> list[str]:
    return [member.endpoint.address for member in members]


MAKERS: dict[str, Callable[[Sequence[Candidate], Rng], Picker]] = {
    # A random start: clients that learn of the same state at the same time should not all begin with the same endpoint.
    "round_robin": lambda members, rng: RoundRobin(_weights(members), start=rng.below(len(members))),
    "random": lambda members, rng: Random(len(members), rng),
    "weighted_random": lambda members, rng: WeightedRandom(_weights(members), rng),
    "least_request": lambda members, rng: LeastRequest(
        _weights(members), rng, active=[member.active for member in members]
    ),
    "ring_hash": lambda members, rng: HashPicker(Ring(_hosts(members), _weights(members)), rng),
    "maglev": lambda members, rng: HashPicker(Maglev(_hosts(members), _weights(members)), rng),
}
