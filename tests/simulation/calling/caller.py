"""A caller: the SDK's own balancer, guards and attempts, and outlier detection, over simulated backends.

Only what lies between them and the network is written anew, as in `trunkline.client._tries` and `_finder`: without tasks
and sockets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from simulation.calling.backends import Backends
from simulation.calling.hosts import changes_ns
from simulation.calling.log import Attempted, Ejected, Kept, Log, Refused, Told
from simulation.calling.plan import PER_TRY_S, Plan, policy_of
from simulation.calling.splits import HEADER, Sides
from simulation.calling.timeline import S, Timeline, Work
from simulation.chance import happens, rng_of

from trunkline.client._attempts import Attempts, Failure, Stop
from trunkline.client._balancer import Balancer, Candidate
from trunkline.client._guards import Guards
from trunkline.client._outliers import Ejections
from trunkline.client._way import NoWay, Route, Way
from trunkline.core.breakers import make_breaker
from trunkline.core.in_flight import Ticket
from trunkline.core.outliers import Ejection
from trunkline.core.policy import Destination, StatusCode

RECONNECT_NS = S
REFUSED_NS = 1_000_000
PER_TRY_NS = int(PER_TRY_S * S)
KEYS = 300


class _Part(NamedTuple):
    """Those that a call may go to."""

    all: Sequence[Candidate]
    reachable: Sequence[Candidate]
    left: Sequence[Candidate]
    """Neither out of reach nor ejected."""


class _Now(NamedTuple):
    """What calls may choose from."""

    sides: Sides
    everybody: _Part
    of: Mapping[int, _Part]
    """By side in use."""

    def part(self, side: int) -> _Part:
        """Those among which a host of this side was chosen."""
        return self.of.get(side, self.everybody)


def _part(candidates: Sequence[Candidate]) -> _Part:
    reachable = [one for one in candidates if not one.out]
    return _Part(candidates, reachable, [one for one in reachable if not one.ejected])


@dataclass(slots=True)
class _Call:
    """What lasts from one attempt to the next."""

    key: str
    deadline_ns: int
    tried: set[Candidate] = field(default_factory=set)
    destination: Destination | None = None
    """Where the split sent it first."""
    side: int | None = None
    """That of the first backend that was chosen in a split."""


class Caller:
    """One process that calls the service."""

    def __init__(self, number: int, plan: Plan, backends: Backends, timeline: Timeline) -> None:
        self.log = Log()
        self._number = number
        self._plan = plan
        self._backends = backends
        self._timeline = timeline
        self._rng = rng_of(plan.seed, f"caller {number}")
        self._policy = plan.policy
        self._rates = plan.rates[number]
        self._sides = {one.number: one.side for one in plan.hosts}
        self._stage = 0
        self._now: _Now | None = None
        self._ejected: dict[Candidate, Ejection | None] = {}
        self._leaving: list[Candidate] = []
        """Gone, and with calls in flight when they went."""
        self._needed = 0
        clock, rng = timeline.clock, self._rng
        self._guards = Guards(plan.policy, service="shop", caller=f"c{number}", now_ns=clock.now_ns())
        self._balancer = Balancer(
            plan.policy, "grpc", rng, clock=clock, make_breaker=lambda one: make_breaker(one, rng, clock.now_ns())
        )
        self._candidates: list[Candidate] = []
        self._ejections = Ejections(rng, clock, self._choose_again)
        self._ejections.adopt(plan.policy.outlier_detection)
        self._take_in(0)
        timeline.spawn(self._look())
        timeline.spawn(self._hear())
        if len(plan.stages) > 1:
            timeline.spawn(self._go_on(), after_ns=plan.next_stage_ns + plan.lags_ns[number])

    # What goes on all the time.

    def calls(self, end_ns: int) -> Work:
        """Make calls, at the rate of the time."""
        while self._timeline.now_ns < end_ns:
            tenth = min(len(self._rates) - 1, self._timeline.now_ns * len(self._rates) // end_ns)
            yield int(-2 * S / self._rates[tenth] * (self._rng.random() - 1))
            self._timeline.spawn(self._call())

    def _look(self) -> Work:
        while True:
            yield max(1, self._ejections.look())

    def _choose_again(self) -> None:
        """As `BalancedChannel` does, and written down."""
        self._now = None
        now_ns, changed = self._timeline.now_ns, []
        for candidate in self._candidates:
            number, hosts = _number(candidate), len(self._candidates)
            was, ejection = self._ejected.get(candidate), self._ejections.ejection(candidate)
            if was is not ejection:
                ends = [(False, was), (True, ejection)]
                changed += [Ejected(now_ns, number, out, hosts) for out, one in ends if one is not None]
            self._ejected[candidate] = ejection
            self._balancer.set_ejected(candidate, self._ejections.why(candidate))
        # At a look, those whose time is over come back before others are ejected.
        self.log.ejected += sorted(changed, key=lambda one: one.out)

    def _reconnect(self, candidate: Candidate) -> Work:
        while self._balancer.holds(candidate):
            if not self._backends.refuses(self._number, _number(candidate), self._timeline.now_ns):
                self._set_out(candidate, "")
                return
            yield RECONNECT_NS

    def _set_out(self, candidate: Candidate, why: str) -> None:
        self._now = None
        self._balancer.set_out(candidate, why)

    def _go_on(self) -> Work:
        """The next split holds."""
        self._stage += 1
        self._now = None
        self._policy = policy_of(self._policy, self._plan.stages, self._stage)
        self._balancer.set_policy(self._policy)
        self._guards.set_policy(self._policy, self._timeline.now_ns)
        self._ejections.adopt(self._policy.outlier_detection)
        yield from ()

    # The registry.

    def _hear(self) -> Work:
        """Be told of each of its changes, some time after it."""
        lag_ns = self._plan.lags_ns[self._number]
        for at_ns in changes_ns(self._plan.hosts):
            yield at_ns + lag_ns - self._timeline.now_ns
            self._take_in(at_ns)

    def _take_in(self, at_ns: int) -> None:
        before = self._candidates
        gone = self._balancer.update(self._backends.instances(at_ns))
        self._candidates, self._now = list(self._balancer.candidates), None
        now_ns, hosts = self._timeline.now_ns, len(self._candidates)
        self._leaving = [one for one in [*self._leaving, *gone] if one.active]
        self._needed = max(self._needed, hosts + len(set(gone) | set(self._leaving)))
        for one in gone:
            if self._ejected.pop(one, None) is not None:
                self.log.ejected.append(Ejected(now_ns, _number(one), False, hosts, gone=True))
        self._ejections.set_hosts(self._candidates)
        new = set(self._candidates) - set(before)
        self.log.told.append(
            Told(
                now_ns,
                frozenset(map(_number, self._candidates)),
                ejected=sum(bool(one.ejected) for one in self._candidates),
                unfresh=sum(bool(one.ejected) or self._may_refuse(one) for one in new),
            )
        )
        self.note_kept()

    def note_kept(self) -> None:
        """Count what there is room for."""
        slots = breakers = 0
        calls = self._balancer._calls
        try:
            while True:
                breakers += calls.endpoint_breaker(slots) is not None
                slots += 1
        except IndexError:
            pass  # these are all
        leaving = sum(bool(one.active) for one in self._leaving)
        self.log.kept.append(
            Kept(
                self._timeline.now_ns,
                slots,
                breakers,
                detected=len(self._ejections),
                backends=len(self._candidates),
                leaving=leaving,
                needed=self._needed,
                in_flight=calls.total,
            )
        )

    # A call.

    def _call(self) -> Work:
        began_ns = self._timeline.now_ns
        self._guards.enter("/shop.Shop/Buy", None, began_ns)
        self.log.calls.append(began_ns)
        attempts = Attempts(self._policy.retry, self._guards.budget, self._rng, suppressed=False)
        key = f"u{self._rng.below(KEYS)}" if self._plan.stages and happens(self._rng, 70) else ""
        call = _Call(key, began_ns + self._policy.timeout_ns)
        code: StatusCode = StatusCode.UNAVAILABLE
        while True:
            failure = yield from self._attempt(call, attempts.failed)
            if failure is None:
                break
            code, left_ns = failure.code, call.deadline_ns - self._timeline.now_ns
            if code is StatusCode.OK or left_ns <= 0:
                break
            wait = attempts.after(failure, self._timeline.now_ns, left_ns=left_ns, committed=False)
            if isinstance(wait, Stop):
                break
            yield wait
            if not attempts.may_retry(self._timeline.now_ns):
                break
        self._guards.leave()
        self.log.ended.append((self._timeline.now_ns, code))

    def _attempt(self, call: _Call, before: int) -> Generator[int, None, Failure | None]:
        """How it ended; None when limits or breakers did not let it through."""
        route = Route(avoid=call.tried, earlier=call.destination, guarded=True)
        way = Way(self._balancer, route, ((HEADER, call.key),) if call.key else None)
        first_side = call.side
        while True:
            found = way.next()
            call.destination = route.earlier
            if isinstance(found, NoWay):
                if found is not NoWay.UNREACHABLE:
                    self._note_refusal()
                return None if found is NoWay.REFUSED else Failure(StatusCode.UNAVAILABLE)
            if not self._backends.refuses(self._number, _number(found), self._timeline.now_ns):
                break
            self._note_side(call, found)
            first_side = call.side
            yield REFUSED_NS
            way.drop(found)
            self._refused(found)
        ticket = route.ticket
        assert ticket is not None
        sent = self._attempted(call, found, before, first_side)
        self._note_side(call, found)
        call.tried.add(found)
        return (yield from self._sent(ticket, found, sent, call.deadline_ns))

    def _sent(
        self, ticket: Ticket, candidate: Candidate, sent: Attempted, deadline_ns: int
    ) -> Generator[int, None, Failure]:
        began_ns = self._timeline.now_ns
        answer = self._backends.ask(self._number, sent.backend, began_ns)
        took_ns = min(answer.after_ns, PER_TRY_NS, deadline_ns - began_ns)
        self.log.attempts.append(sent)
        yield took_ns
        on_time = took_ns == answer.after_ns
        code = answer.code if on_time else StatusCode.DEADLINE_EXCEEDED
        self.log.results.append((sent, self._timeline.now_ns, code))
        ticket.end(*self._guards.outcomes_of(code))
        self._ejections.record(candidate, code, local_origin=False)
        return Failure(code, cut_off=not on_time and took_ns == PER_TRY_NS)

    def _refused(self, candidate: Candidate) -> None:
        """No connection: it is out until there is one."""
        if not candidate.out:
            self._set_out(candidate, "refused")
            self._timeline.spawn(self._reconnect(candidate), after_ns=RECONNECT_NS)
        self._ejections.record(candidate, StatusCode.UNAVAILABLE, local_origin=True)

    # What is written down of it.

    def _note_side(self, call: _Call, candidate: Candidate) -> None:
        side = self._sides[_number(candidate)]
        if call.side is None and side in self._as_now().sides:
            call.side = side

    def _attempted(self, call: _Call, candidate: Candidate, before: int, first_side: int | None) -> Attempted:
        backend, now, tried = _number(candidate), self._as_now(), call.tried
        side = self._sides[backend]
        part = now.part(side)
        elsewhere = None if first_side in (None, side) else now.of.get(first_side)
        return Attempted(
            self._timeline.now_ns,
            backend,
            before,
            again=candidate in tried,
            was_ejected=bool(candidate.ejected),
            was_out=bool(candidate.out),
            part=len(part.all),
            others_left=len(part.left),
            untried=sum(one not in tried for one in part.left) if before else len(part.left),
            willing=self._surely(part.left) if candidate.ejected else 0,
            reachable=len(part.reachable),
            stage=self._stage,
            sides=now.sides,
            key=call.key,
            first_side=first_side,
            left_there=0 if elsewhere is None else self._surely(set(elsewhere.left) - tried),
        )

    def _as_now(self) -> _Now:
        """The sides and who is there; made anew when anything of it has changed."""
        if self._now is None:
            sides: Sides = ()
            by_side: dict[int, list[Candidate]] = defaultdict(list)
            for one in self._candidates:
                by_side[self._sides[_number(one)]].append(one)
            if self._plan.stages:
                reachable = [side for side, part in by_side.items() if any(not one.out for one in part)]
                sides = self._plan.stages[self._stage].in_use(by_side, reachable)
            self._now = _Now(sides, _part(self._candidates), {side: _part(by_side[side]) for side in sides})
        return self._now

    def _note_refusal(self) -> None:
        now = self._as_now()
        willing = min(map(self._willing, now.of.values() or [now.everybody]))
        refused = Refused(self._timeline.now_ns, self._balancer.refusal, len(self._candidates), willing)
        self.log.refused.append(refused)

    def _willing(self, part: _Part) -> int:
        return self._surely(part.reachable or part.all)

    def _surely(self, candidates: Iterable[Candidate]) -> int:
        return sum(not self._may_refuse(one) for one in candidates)

    def _may_refuse(self, candidate: Candidate) -> bool:
        """Whether its breaker may refuse a call now."""
        breaker = self._balancer.endpoint_breaker(candidate)
        if breaker is None:
            return False
        snapshot = breaker.snapshot(self._timeline.now_ns)  # type: ignore[attr-defined]  # both have it
        return bool(snapshot.state.name != "CLOSED" or snapshot.rejection_rate)


def _number(candidate: Candidate) -> int:
    return int(candidate.instance.instance.id)
