"""A policy at work: where a call goes, who may get it, and who does. What the SDK, Pick and `explain` share."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

from trunkline.core.breaker import Breaker, Outcome, State
from trunkline.core.call_chain import CallChain
from trunkline.core.clock import Rng
from trunkline.core.hashing import xxh64
from trunkline.core.in_flight import InFlight, Ticket
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Locality
from trunkline.core.placement import ANY, Candidate, Exclusion, Level, Placement, Pool, Verdict
from trunkline.core.policy import HASHING, Destination, Policy
from trunkline.core.selector import Selector
from trunkline.core.splits import Decision, Metadata, Splitter, key_of

NO_INSTANCE = "no_instance"
"""A refusal besides those of trunkline.core.call_chain: nobody is there."""

ANYWHERE = Decision(None, "")
_OF_POOLS = frozenset({"tier", "ejected"})
_BREAKER_OPEN = Exclusion("endpoint_circuit_breaker", "open")


class AnyBreaker(Protocol):
    """What guards calls: trunkline.core.breaker's, or another that is asked and told the same."""

    def admit(self, now_ns: int, /) -> int:
        """A permit, or -1."""

    def record(self, permit: int, outcome: Outcome, duration_ns: int, now_ns: int, /) -> None:
        """How the call of a permit ended."""


class Picked(NamedTuple):
    """Who gets a call, and out of how many."""

    candidate: Candidate
    members: int


class Explanation(NamedTuple):
    """A pick, and what became of everybody else."""

    decision: Decision
    pool: Pool | None
    verdicts: list[Verdict]
    winner: Candidate | None


class Evaluator:
    """One policy over one set of candidates, until either changes or `next_ns` has come.

    Each candidate's slot is one of `in_flight`'s. Pools and tables are made when the first call needs them.
    """

    def __init__(
        self,
        policy: Policy,
        candidates: Iterable[Candidate],
        in_flight: InFlight,
        rng: Rng,
        *,
        where: Locality = NOWHERE,
        now_ns: int = 0,
        selector: Selector = ANY,
        caller: bytes = b"",
    ) -> None:
        """`where` and `caller` are the caller's place and name; `selector` narrows what is called."""
        self.placement = Placement(policy, candidates, where=where, now_ns=now_ns, selector=selector)
        self.next_ns = self.placement.next_ns
        """When it is to be made anew because instances are less new; None when it is not."""
        self.refusal = ""
        """Why `begin` last refused a call."""
        self.destination: Destination | None = None
        """Where the split last sent a call in `begin`; None: to any instance."""
        self._policy = policy
        self._in_flight = in_flight
        self._rng = rng
        self._caller = caller
        self._splitter = None if policy.split is None else Splitter(policy.split, self.placement.liveness)
        self._hashes = policy.load_balancing.algorithm in HASHING
        self._chains: dict[Destination | None, CallChain | None] = {}
        self._by_slot = {one.slot: one for one in self.placement.candidates}
        in_flight.forget_chains()

    @property
    def entries(self) -> int:
        """Candidates and table entries that are kept."""
        return len(self._by_slot) + sum(chain.entries for chain in self._chains.values() if chain is not None)

    def decide(self, metadata: Metadata | None = None, key: bytes | None = None) -> Decision:
        """The destination of a call. `key` stands in for what the policy would take from the metadata."""
        if self._splitter is None:
            return ANYWHERE
        return self._splitter.choose(metadata, key, self._caller, self._rng)

    def hash_of(self, metadata: Metadata | None, key: bytes | None) -> int | None:
        """What a call is hashed by; None when it goes anywhere."""
        if not self._hashes:
            return None
        if key is None:
            key = key_of(self._policy.load_balancing.hash_on, metadata, self._caller)
        return None if key is None else xxh64(key)

    def pick(
        self, metadata: Metadata | None = None, key: bytes | None = None, *, avoid: Container[int] | None = None
    ) -> Candidate | None:
        """Who would get a call if no limit and no breaker were in its way; None when nobody is there.

        `avoid` are slots that are taken only when there is no other.
        """
        metadata = None if metadata is None else tuple(metadata)
        return self._pick(self.decide(metadata, key), metadata, key, avoid)

    def _pick(
        self, decision: Decision, metadata: Metadata | None, key: bytes | None, avoid: Container[int] | None
    ) -> Candidate | None:
        chain = self.chain(decision.destination)
        return None if chain is None else self._by_slot[chain.pick(self.hash_of(metadata, key), avoid)]

    def pick_from(self, metadata: Metadata | None = None, key: bytes | None = None) -> Picked | None:
        """As `pick`, with the number of those that it could have been."""
        metadata = None if metadata is None else tuple(metadata)
        decision = self.decide(metadata, key)
        picked = self._pick(decision, metadata, key, None)
        pool = self.placement.pool(decision.destination)
        if picked is None or pool is None:
            return None
        return Picked(picked, sum(len(level.members) for level in pool.levels))

    def begin(
        self,
        metadata: Metadata | None = None,
        key: bytes | None = None,
        *,
        avoid: Container[int] | None = None,
        destination: Destination | None = None,
        earlier: Destination | None = None,
    ) -> Ticket | None:
        """Let a call through; None when it is refused, and `refusal` says why.

        `destination` takes the place of the split's. `earlier` is the one that an earlier attempt of this call went to:
        it is kept as long as it has somebody who is not to be avoided and takes the call.
        """
        metadata = None if metadata is None else tuple(metadata)
        other = None
        if destination is None:
            if earlier is not None and (destination := self._still(earlier)) is not None:
                other = partial(self._anew, metadata, key)
            else:
                destination = self.decide(metadata, key).destination
            self.destination = destination
        chain = self.chain(destination)
        if chain is None:
            self.refusal = NO_INSTANCE
            return None
        ticket = chain.begin(self.hash_of(metadata, key), avoid, other)
        if ticket is None:
            self.refusal = chain.refusal
        return ticket

    def _still(self, earlier: Destination) -> Destination | None:
        """The same part of the service with the share that it has now; None when calls do not go there any more."""
        part = earlier.subset, earlier.version
        known = () if self._splitter is None else self._splitter.destinations
        return next((one for one in known if one is not None and (one.subset, one.version) == part), None)

    def _anew(self, metadata: Metadata | None, key: bytes | None) -> CallChain | None:
        self.destination = self.decide(metadata, key).destination
        return self.chain(self.destination)

    def candidate(self, slot: int) -> Candidate:
        """Whose slot it is."""
        return self._by_slot[slot]

    def chain(self, destination: Destination | None = None) -> CallChain | None:
        """What is done for calls to a destination; None when nobody is there."""
        if destination not in self._chains:
            # The reserve is made without the evaluator: with it, chains would be freed by the garbage collector only.
            reserve = partial(_reserve_of, self.placement, destination, self._in_flight, self._rng)
            pool = self.placement.pool(destination)
            self._chains[destination] = _chain_of(pool, self._policy, self._in_flight, self._rng, reserve)
        return self._chains[destination]

    def members(self) -> set[Candidate]:
        """Everybody whom some call could go to."""
        destinations: Iterable[Destination | None] = [None] if self._splitter is None else self._splitter.destinations
        return set(_members(self.placement.pool(destination) for destination in destinations))

    def explain(self, metadata: Metadata | None = None, key: bytes | None = None, *, now_ns: int = 0) -> Explanation:
        """Pick, and say what became of everybody else, what limits and breakers say (at `now_ns`) included."""
        metadata = None if metadata is None else tuple(metadata)
        decision = self.decide(metadata, key)
        winner = self._pick(decision, metadata, key, None)
        verdicts = [self._guarded(verdict, now_ns) for verdict in self.placement.verdicts(decision.destination)]
        if all(one.exclusions for one in verdicts) and any(_BREAKER_OPEN in one.exclusions for one in verdicts):
            held = set(_members([self.placement.reserve(decision.destination)]))
            verdicts = [_in_reserve(one) if one.candidate in held else one for one in verdicts]
        return Explanation(decision, self.placement.pool(decision.destination), verdicts, winner)

    def _guarded(self, verdict: Verdict, now_ns: int) -> Verdict:
        slot = verdict.candidate.slot
        found = list(verdict.exclusions)
        if _stands_open(self._in_flight.endpoint_breaker(slot), now_ns):
            found.append(_BREAKER_OPEN)
        if self._in_flight.full(slot):
            found.append(Exclusion("limit", f"{self._in_flight.active(slot)} calls in flight"))
        return verdict._replace(exclusions=tuple(found))


def _chain_of(
    pool: Pool | None,
    policy: Policy,
    in_flight: InFlight,
    rng: Rng,
    spare: Callable[[], CallChain | None] | None = None,
) -> CallChain | None:
    levels = [] if pool is None else [_level_of(level) for level in pool.levels]
    return CallChain(in_flight, rng, policy.load_balancing, levels, spare) if levels else None


def _reserve_of(
    placement: Placement, destination: Destination | None, in_flight: InFlight, rng: Rng
) -> CallChain | None:
    return _chain_of(placement.reserve(destination), placement.policy, in_flight, rng)


def _in_reserve(verdict: Verdict) -> Verdict:
    """Of one that is called now that nobody of the pool can be."""
    return verdict._replace(exclusions=tuple(one for one in verdict.exclusions if one.rule not in _OF_POOLS))


def _level_of(level: Level) -> tuple[int, list[int], list[int], list[str]]:
    slots = [member.candidate.slot for member in level.members]
    # Envoy hashes a host by its address; so an instance keeps its place when it registers again.
    hosts = [member.candidate.endpoint.address if member.candidate.endpoint else "" for member in level.members]
    return level.load_percent, slots, [member.weight for member in level.members], hosts


def _members(pools: Iterable[Pool | None]) -> Iterator[Candidate]:
    for pool in pools:
        for level in pool.levels if pool is not None else ():
            yield from (member.candidate for member in level.members)


def _stands_open(breaker: object, now_ns: int) -> bool:
    if not isinstance(breaker, Breaker):
        return False
    snapshot = breaker.snapshot(now_ns)
    if snapshot.state is State.OPEN:
        return snapshot.retry_at_ns is None or now_ns < snapshot.retry_at_ns
    return snapshot.state is State.FORCED_OPEN
