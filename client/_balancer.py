"""Which endpoint gets the next call: core's evaluator over the candidates of a view, kept up to date. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, TypeAlias, get_args

from trunkline.core.breaker import Outcome
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import InvalidArgument
from trunkline.core.evaluator import AnyBreaker, Evaluator
from trunkline.core.in_flight import InFlight, Ticket
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Endpoint, Locality, RegisteredInstance, Status
from trunkline.core.placement import Candidate as Placeable
from trunkline.core.policy import PLAIN, Algorithm, CircuitBreaker, Destination, KeySource, LoadBalancingPolicy, Policy
from trunkline.core.splits import Metadata

LoadBalancing: TypeAlias = Literal["round_robin", "random", "weighted_random", "least_request", "ring_hash", "maglev"]
"""Envoy's names. Round robin is weighted when weights differ."""

TIERS = (Status.SERVING, Status.DEGRADED, Status.STALE)
"""In this order: the next one only when nothing of the one before can be reached."""


def plain_policy(load_balancing: LoadBalancing, hash_header: str = "") -> Policy:
    """What holds when nobody has said more than this; InvalidArgument when that is no algorithm."""
    if load_balancing not in get_args(LoadBalancing):
        raise InvalidArgument.of("load_balancing", f"one of {', '.join(get_args(LoadBalancing))}", load_balancing)
    hash_on = KeySource(header=hash_header) if hash_header else None
    algorithm = Algorithm[load_balancing.upper()]
    return Policy(load_balancing=LoadBalancingPolicy(algorithm=algorithm, hash_on=hash_on))


Key: TypeAlias = tuple[str, str, str]


def key_of(instance: RegisteredInstance, endpoint: Endpoint) -> Key:
    """The instance and its address."""
    return instance.instance.service, instance.instance.id, endpoint.address


class Candidate(Placeable):
    """One endpoint that may be picked."""

    __slots__ = ("_calls", "key")

    endpoint: Endpoint  # those without one are not made

    def __init__(self, instance: RegisteredInstance, endpoint: Endpoint, calls: InFlight) -> None:
        super().__init__(instance, endpoint)
        self._calls = calls
        self.key = key_of(instance, endpoint)
        """What makes it the same candidate after an update: the instance and its address."""

    @property
    def active(self) -> int:
        """Calls in flight."""
        return self._calls.active(self.slot)

    def __repr__(self) -> str:
        return f"<Candidate {self.instance.instance.id} at {self.endpoint.address}>"


class Balancer:
    """Candidates from a view, a policy, and the evaluator over both.

    It is rebuilt at the first pick after something changed, so that a burst of changes costs one rebuild.

    A call is either picked for (`pick`) and then counted (`begun`, `ended`), or let through with limits and breakers
    (`begin`, and the ticket's `end`).
    """

    def __init__(
        self,
        policy: Policy | LoadBalancing,
        protocol: str,
        rng: Rng,
        *,
        clock: Clock | None = None,
        where: Locality = NOWHERE,
        caller: str = "",
        make_breaker: Callable[[CircuitBreaker], AnyBreaker] | None = None,
    ) -> None:
        """`where` and `caller` are this process's place and name.

        Without `make_breaker` there are no breakers, without a clock that goes no slow start.
        """
        self._protocol = protocol
        self._rng = rng
        self._clock = clock or Clock()
        self._where = where
        self._caller = caller.encode()
        self._make_breaker = make_breaker
        self._calls = InFlight(self._clock)
        self._candidates: dict[Key, Candidate] = {}
        self._by_slot: dict[int, Candidate] = {}
        self._updated = False
        self._evaluator: Evaluator | None = None
        self._policy = PLAIN
        self.refusal = ""
        """Why `begin` last refused a call: see trunkline.core.call_chain and trunkline.core.evaluator."""
        self.destination: Destination | None = None
        """Where the split sent the last call that `begin` let through; None: to any instance."""
        self.set_policy(plain_policy(policy) if isinstance(policy, str) else policy)

    @property
    def policy(self) -> Policy:
        """What holds."""
        return self._policy

    def set_policy(self, policy: Policy) -> None:
        """Hold another policy from now on. Breakers whose settings stay the same keep their state."""
        before, self._policy = self._policy, policy
        limits = policy.limits
        self._calls.set_limits(
            max_requests=limits.max_requests, max_requests_per_endpoint=limits.max_requests_per_endpoint
        )
        if policy.circuit_breaker != before.circuit_breaker:
            self._calls.set_breaker(self._new_breaker(policy.circuit_breaker))
        if policy.endpoint_circuit_breaker != before.endpoint_circuit_breaker:
            for candidate in self._candidates.values():
                self._calls.set_endpoint_breaker(candidate.slot, self._new_breaker(policy.endpoint_circuit_breaker))
        self._evaluator = None

    def _new_breaker(self, settings: CircuitBreaker | None) -> AnyBreaker | None:
        return None if settings is None or self._make_breaker is None else self._make_breaker(settings)

    # Candidates.

    @property
    def candidates(self) -> Sequence[Candidate]:
        """All of them, those that are out included."""
        return list(self._candidates.values())

    def update(self, instances: Iterable[RegisteredInstance]) -> list[Candidate]:
        """Take a new state in; returns the candidates that are gone.

        Of thousands few change, and a view gives the same object for one that did not: no more is looked at of those.
        """
        before, self._candidates = self._candidates, {}
        unchanged = {id(one.instance): one for one in before.values()}
        now_ns, time_ns = self._clock.now_ns(), self._clock.time_ns()
        for instance in instances:
            known = unchanged.get(id(instance))
            if known is not None and known.instance is instance:  # an id is anybody's when its object is gone
                before.pop(known.key, None)
                self._candidates[known.key] = known
                continue
            endpoint = self._endpoint_of(instance) if instance.status in TIERS else None
            if endpoint is None:
                continue
            known = before.pop(key_of(instance, endpoint), None)
            if known is None:
                known = self._added(instance, endpoint)
                # Whoever comes later is new when it comes; of those that were there first, their age is what they say.
                age_ns = 0 if self._updated else max(0, time_ns - instance.registered_at_ns)
                known.new_since_ns = now_ns - age_ns
            known.instance, known.endpoint = instance, endpoint
            self._candidates[known.key] = known
        self._updated = True
        self._evaluator = None
        for gone in before.values():
            self._calls.release(gone.slot)
        return list(before.values())

    def _added(self, instance: RegisteredInstance, endpoint: Endpoint) -> Candidate:
        made = Candidate(instance, endpoint, self._calls)
        made.slot = self._calls.acquire()
        self._by_slot[made.slot] = made
        breaker = self._new_breaker(self._policy.endpoint_circuit_breaker)
        if breaker is not None:
            self._calls.set_endpoint_breaker(made.slot, breaker)
        return made

    def _endpoint_of(self, instance: RegisteredInstance) -> Endpoint | None:
        for endpoint in instance.instance.endpoints:
            if endpoint.protocol == self._protocol:
                return endpoint
        return None

    def holds(self, candidate: Candidate) -> bool:
        """Whether it is still registered."""
        return self._candidates.get(candidate.key) is candidate

    def set_out(self, candidate: Candidate, why: str) -> None:
        """It cannot be reached: pick it no more (or, with an empty reason, again)."""
        if bool(candidate.out) != bool(why):
            self._evaluator = None
        candidate.out = why

    def set_ejected(self, candidate: Candidate, why: str) -> None:
        """Outlier detection ejected it (or, with an empty reason, lets it back)."""
        if bool(candidate.ejected) != bool(why):
            self._evaluator = None
        candidate.ejected = why

    def left_out(self) -> dict[Candidate, str]:
        """Those that no call goes to now, and why."""
        members = self._current().members()
        return {
            one: one.out or one.ejected or "behind better ones"
            for one in self._candidates.values()
            if one not in members
        }

    # Picks.

    def pick(
        self, key: bytes | None = None, *, metadata: Metadata | None = None, tried: Collection[Candidate] = ()
    ) -> Candidate | None:
        """None when there is no candidate at all.

        What the policy asks of a call is taken from its metadata; `key` stands in for what would be hashed. Those that
        were tried are taken only when there is no other. When every candidate is out, all of the best tier are picked
        from: trying is better than refusing.
        """
        picked = self._current().pick(metadata, key, avoid=self._slots_of(tried))
        return None if picked is None else self._by_slot[picked.slot]

    def pick_of(
        self, destination: Destination, *, metadata: Metadata | None = None, tried: Collection[Candidate] = ()
    ) -> Candidate | None:
        """As `pick`, of one destination whatever the split says."""
        evaluator = self._current()
        chain = evaluator.chain(destination)
        if chain is None:
            return None
        return self._by_slot[chain.pick(evaluator.hash_of(metadata, None), self._slots_of(tried))]

    def pick_another(self, tried: Collection[Candidate]) -> Candidate | None:
        """The best candidate that was not tried, of the same destination if there is one; None when all were."""
        left = [candidate for candidate in self._candidates.values() if candidate not in tried]
        first = next(iter(tried), None)
        alike = set() if first is None else set(self._current().placement.companions(first))

        def rank(one: Candidate) -> tuple[bool, bool, bool, Status]:
            return one not in alike, bool(one.out), bool(one.ejected), one.instance.status

        return min(left, key=rank, default=None)

    def begin(
        self,
        key: bytes | None = None,
        *,
        metadata: Metadata | None = None,
        tried: Collection[Candidate] = (),
        destination: Destination | None = None,
        earlier: Destination | None = None,
    ) -> Ticket | None:
        """Pick, and let the call through: a ticket, whose `end` is to be called with its Outcome once it has ended.

        None when it is refused, and `refusal` says why. `destination` takes the place of the split's, as a fallback to a
        subset does; `earlier` is where the split sent an earlier attempt of the same call.
        """
        evaluator = self._current()
        ticket = evaluator.begin(metadata, key, avoid=self._slots_of(tried), destination=destination, earlier=earlier)
        if ticket is None:
            self.refusal = evaluator.refusal
        else:
            self.destination = evaluator.destination
        return ticket

    def candidate(self, ticket: Ticket) -> Candidate:
        """Where a call goes that was let through."""
        return self._by_slot[ticket.slot]

    @property
    def breaker(self) -> AnyBreaker | None:
        """The breaker of the service."""
        return self._calls.breaker

    def endpoint_breaker(self, candidate: Candidate) -> AnyBreaker | None:
        """The breaker of an endpoint."""
        return self._calls.endpoint_breaker(candidate.slot)

    def begun(self, candidate: Candidate) -> None:
        """A call goes there."""
        self._calls.started(candidate.slot)

    def ended(self, candidate: Candidate) -> None:
        """It is over."""
        self._calls.finished(candidate.slot)

    def _slots_of(self, tried: Collection[Candidate]) -> frozenset[int] | None:
        """Of those that are gone it is somebody else's by now."""
        return frozenset(one.slot for one in tried if self.holds(one)) if tried else None

    def _current(self) -> Evaluator:
        evaluator = self._evaluator
        if evaluator is not None and (evaluator.next_ns is None or self._clock.now_ns() < evaluator.next_ns):
            return evaluator
        self._evaluator = Evaluator(
            self._policy,
            self._candidates.values(),
            self._calls,
            self._rng,
            where=self._where,
            now_ns=self._clock.now_ns(),
            caller=self._caller,
        )
        return self._evaluator


CANCELLED = Outcome.CANCELLED
"""How a ticket ends whose call was never sent."""
