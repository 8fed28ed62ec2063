"""A policy at work: where a call goes, who may get it, and who does. What the SDK, Pick and `explain` share.

What looks at every candidate is trunkline.core.work; whoever has the time has it done at once.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

from trunkline.core.breaker import Breaker, Outcome, State
from trunkline.core.call_chain import CallChain, LevelPicker
from trunkline.core.clock import Rng
from trunkline.core.hashing import xxh64
from trunkline.core.in_flight import InFlight, Ticket
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Locality
from trunkline.core.placement import ANY, Candidate, Placement, Pool
from trunkline.core.policy import HASHING, Destination, LoadBalancingPolicy, Policy
from trunkline.core.selector import Selector
from trunkline.core.splits import Decision, Metadata, Splitter, key_of
from trunkline.core.verdicts import Exclusion, Verdict, judging
from trunkline.core.work import Work, at_once, by_pieces

NO_INSTANCE = "no_instance"
"""A refusal besides those of trunkline.core.call_chain: nobody is there."""

ANYWHERE = Decision(None, "")
_OF_POOLS = frozenset({"tier", "ejected"})
_BREAKER_OPEN = Exclusion("endpoint_circuit_breaker", "open")

TABLE_ALONE = 100
"""From so many endpoints on a ring or a table is a piece of its own: their sizes are bounded, and take some ms."""


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
        prepared: bool = True,
    ) -> None:
        """`where` and `caller` are the caller's place and name; `selector` narrows what is called. When it is not
        `prepared`, `preparing` is to be done before anything is asked.
        """
        self.placement = Placement(policy, candidates, where=where, now_ns=now_ns, selector=selector, prepared=False)
        self.refusal = ""
        """Why `begin` last refused a call."""
        self.destination: Destination | None = None
        """Where the split last sent a call in `begin`; None: to any instance."""
        self._policy = policy
        self._in_flight = in_flight
        self._rng = rng
        self._caller = caller
        self._splitter: Splitter | None = None
        self._hashes = policy.load_balancing.algorithm in HASHING
        self._chains: dict[Destination | None, CallChain | None] = {}
        self._by_slot: dict[int, Candidate] = {}
        in_flight.forget_chains()
        if prepared:
            at_once(self.preparing())

    def preparing(self) -> Work[None]:
        """All but the pools."""
        yield from self.placement.preparing()
        split = self._policy.split
        if split is not None:
            yield from self.placement.grouping()
            self._splitter = Splitter(split, self.placement.liveness)
        candidates = self.placement.candidates
        slots = yield from by_pieces(candidates, lambda some: [one.slot for one in some])
        self._by_slot = dict(zip(slots, candidates, strict=True))

    @property
    def next_ns(self) -> int | None:
        """When it is to be made anew because instances are less new; None when it is not."""
        return self.placement.next_ns

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

    def pick_from(
        self, decision: Decision, metadata: Metadata | None = None, key: bytes | None = None
    ) -> Picked | None:
        """As `pick`, of what was decided, with the number of those that it could have been."""
        picked = self._pick(decision, metadata, key, None)
        pool = self.placement.pool(decision.destination)
        if picked is None or pool is None:
            return None
        return Picked(picked, sum(len(level.candidates) for level in pool.levels))

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
            return at_once(self.making_chain(destination))
        return self._chains[destination]

    def has_chain(self, destination: Destination | None = None) -> bool:
        """Whether nothing is left to be done before calls to a destination are picked for."""
        return destination in self._chains

    def making_chain(self, destination: Destination | None = None) -> Work[CallChain | None]:
        """See `chain`. A table over all instances of a level is one piece."""
        if destination in self._chains:
            return self._chains[destination]
        pool = yield from self.placement.making_pool(destination)
        # The reserve is made without the evaluator: with it, chains would be freed by the garbage collector only.
        reserve = partial(_reserve_of, self.placement, destination, self._in_flight, self._rng)
        made = yield from _making_chain(pool, self._policy.load_balancing, self._in_flight, self._rng, reserve)
        return self._chains.setdefault(destination, made)  # somebody else may not have waited

    def members(self) -> set[Candidate]:
        """Everybody whom some call could go to."""
        destinations: Iterable[Destination | None] = [None] if self._splitter is None else self._splitter.destinations
        return set(_members(self.placement.pool(destination) for destination in destinations))

    def explain(self, metadata: Metadata | None = None, key: bytes | None = None, *, now_ns: int = 0) -> Explanation:
        """Pick, and say what became of everybody else, what limits and breakers say (at `now_ns`) included."""
        return at_once(self.explaining(metadata, key, now_ns=now_ns))

    def explaining(
        self, metadata: Metadata | None = None, key: bytes | None = None, *, now_ns: int = 0
    ) -> Work[Explanation]:
        """See `explain`."""
        metadata = None if metadata is None else tuple(metadata)
        decision = self.decide(metadata, key)
        yield from self.making_chain(decision.destination)
        winner = self._pick(decision, metadata, key, None)
        judged = yield from judging(self.placement, decision.destination)
        verdicts = yield from by_pieces(judged, lambda some: [self._guarded(verdict, now_ns) for verdict in some])
        if all(one.exclusions for one in verdicts) and any(_BREAKER_OPEN in one.exclusions for one in verdicts):
            reserve = yield from self.placement.making_reserve(decision.destination)
            held = set(_members([reserve]))
            verdicts = yield from by_pieces(
                verdicts, lambda some: [_in_reserve(one) if one.candidate in held else one for one in some]
            )
        return Explanation(decision, self.placement.pool(decision.destination), verdicts, winner)

    def _guarded(self, verdict: Verdict, now_ns: int) -> Verdict:
        slot = verdict.candidate.slot
        found: list[Exclusion] = []
        if _stands_open(self._in_flight.endpoint_breaker(slot), now_ns):
            found.append(_BREAKER_OPEN)
        if self._in_flight.full(slot):
            found.append(Exclusion("limit", f"{self._in_flight.active(slot)} calls in flight"))
        return verdict._replace(exclusions=(*verdict.exclusions, *found)) if found else verdict


def _making_chain(
    pool: Pool | None,
    balancing: LoadBalancingPolicy,
    in_flight: InFlight,
    rng: Rng,
    spare: Callable[[], CallChain | None] | None = None,
) -> Work[CallChain | None]:
    pickers: list[LevelPicker] = []
    for level in pool.levels if pool is not None else ():
        slots = yield from by_pieces(level.candidates, lambda some: [one.slot for one in some])
        hosts: list[str] = []
        if balancing.algorithm in HASHING:
            hosts = yield from by_pieces(level.candidates, _hosts_of)
            if len(hosts) >= TABLE_ALONE:
                yield
        pickers.append(LevelPicker(in_flight, rng, balancing, level.load_percent, slots, level.weights, hosts))
    return CallChain(in_flight, rng, pickers, spare) if pickers else None


def _reserve_of(
    placement: Placement, destination: Destination | None, in_flight: InFlight, rng: Rng
) -> CallChain | None:
    pool = placement.reserve(destination)
    return at_once(_making_chain(pool, placement.policy.load_balancing, in_flight, rng))


def _in_reserve(verdict: Verdict) -> Verdict:
    """Of one that is called now that nobody of the pool can be."""
    return verdict._replace(exclusions=tuple(one for one in verdict.exclusions if one.rule not in _OF_POOLS))


def _hosts_of(candidates: Iterable[Candidate]) -> list[str]:
    # Envoy hashes a host by its address; so an instance keeps its place when it registers again.
    return [one.address for one in candidates]


def _members(pools: Iterable[Pool | None]) -> Iterator[Candidate]:
    for pool in pools:
        for level in pool.levels if pool is not None else ():
            yield from level.candidates


def _stands_open(breaker: object, now_ns: int) -> bool:
    if not isinstance(breaker, Breaker):
        return False
    snapshot = breaker.snapshot(now_ns)
    if snapshot.state is State.OPEN:
        return snapshot.retry_at_ns is None or now_ns < snapshot.retry_at_ns
    return snapshot.state is State.FORCED_OPEN
