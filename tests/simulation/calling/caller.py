"""A caller: the SDK's own balancer, guards and attempts, and outlier detection, over simulated backends.

Only what lies between them and the network is written anew, as in `trunkline.client._tries`: without tasks and sockets.
"""

from __future__ import annotations

from collections.abc import Generator

from simulation.calling.backends import Backends
from simulation.calling.log import Attempted, Ejected, Log, Refused
from simulation.calling.plan import PER_TRY_S, Plan
from simulation.calling.timeline import S, Timeline, Work
from simulation.chance import rng_of

from trunkline.client._attempts import Attempts, Failure, Stop
from trunkline.client._balancer import Balancer, Candidate
from trunkline.client._guards import Guards
from trunkline.core.breaker import Outcome
from trunkline.core.breakers import make_breaker
from trunkline.core.in_flight import Ticket
from trunkline.core.outliers import Ejection, OutlierDetector
from trunkline.core.policy import StatusCode

RECONNECT_NS = S
REFUSED_NS = 1_000_000
PER_TRY_NS = int(PER_TRY_S * S)


class Caller:
    """One process that calls the service."""

    def __init__(self, number: int, plan: Plan, backends: Backends, timeline: Timeline) -> None:
        self.log = Log()
        self._number = number
        self._backends = backends
        self._timeline = timeline
        self._rng = rng_of(plan.seed, f"caller {number}")
        self._policy = plan.policy
        self._rates = plan.rates[number]
        clock, rng = timeline.clock, self._rng
        self._guards = Guards(plan.policy, service="shop", caller=f"c{number}", now_ns=clock.now_ns())
        self._balancer = Balancer(
            plan.policy, "grpc", rng, clock=clock, make_breaker=lambda one: make_breaker(one, rng, clock.now_ns())
        )
        self._balancer.update(backends.instances())
        self._candidates = list(self._balancer.candidates)
        assert plan.policy.outlier_detection is not None
        self._detector = OutlierDetector(plan.policy.outlier_detection, rng)
        self._detector.set_hosts([one.instance.instance.id for one in self._candidates])
        self._ejections: list[Ejection | None] = [None] * len(self._candidates)
        timeline.spawn(self._look())

    # What goes on all the time.

    def calls(self, end_ns: int) -> Work:
        """Make calls, at the rate of the time."""
        while self._timeline.now_ns < end_ns:
            tenth = min(len(self._rates) - 1, self._timeline.now_ns * len(self._rates) // end_ns)
            yield int(-2 * S / self._rates[tenth] * (self._rng.random() - 1))
            self._timeline.spawn(self._call())

    def _look(self) -> Work:
        while True:
            if self._detector.advance(self._timeline.now_ns):
                self._choose_again()
            yield max(1, self._detector.next_ns - self._timeline.now_ns)

    def _choose_again(self) -> None:
        now_ns, changed = self._timeline.now_ns, []
        for index, candidate in enumerate(self._candidates):
            was, ejection = self._ejections[index], self._detector.ejected(index)
            if was is not ejection:
                changed += [Ejected(now_ns, index, out) for out, one in ((False, was), (True, ejection)) if one]
            self._ejections[index] = ejection
            self._balancer.set_ejected(candidate, "" if ejection is None else ejection.reason.name)
        # At a look, those whose time is over come back before others are ejected.
        self.log.ejected += sorted(changed, key=lambda one: one.out)

    def _reconnect(self, candidate: Candidate) -> Work:
        while self._backends.refuses(self._number, _number(candidate), self._timeline.now_ns):
            yield RECONNECT_NS
        self._balancer.set_out(candidate, "")

    # A call.

    def _call(self) -> Work:
        began_ns = self._timeline.now_ns
        self._guards.enter("/shop.Shop/Buy", None, began_ns)
        self.log.calls.append(began_ns)
        attempts = Attempts(self._policy.retry, self._guards.budget, self._rng, suppressed=False)
        tried: set[Candidate] = set()
        deadline_ns = began_ns + self._policy.timeout_ns
        code: StatusCode = StatusCode.UNAVAILABLE
        while True:
            failure = yield from self._attempt(attempts.failed, tried, deadline_ns)
            if failure is None:
                break
            code, left_ns = failure.code, deadline_ns - self._timeline.now_ns
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

    def _attempt(self, before: int, tried: set[Candidate], deadline_ns: int) -> Generator[int, None, Failure | None]:
        """How it ended; None when it was not let through."""
        refusing: set[Candidate] = set()
        while True:
            ticket = self._balancer.begin(tried=tried | refusing)
            if ticket is None:
                self._note_refusal()
                return None
            candidate = self._balancer.candidate(ticket)
            if not self._backends.refuses(self._number, _number(candidate), self._timeline.now_ns):
                break
            ticket.end(Outcome.CANCELLED, Outcome.FAILURE)
            yield REFUSED_NS
            self._refused(candidate)
            if candidate in refusing:
                return Failure(StatusCode.UNAVAILABLE)
            refusing.add(candidate)
        again = candidate in tried
        tried.add(candidate)
        return (yield from self._sent(ticket, candidate, before, deadline_ns, again=again))

    def _sent(
        self, ticket: Ticket, candidate: Candidate, before: int, deadline_ns: int, *, again: bool
    ) -> Generator[int, None, Failure]:
        began_ns, number = self._timeline.now_ns, _number(candidate)
        answer = self._backends.ask(self._number, number, began_ns)
        left_ns = deadline_ns - began_ns
        took_ns = min(answer.after_ns, PER_TRY_NS, left_ns)
        sent = self._attempted(candidate, began_ns, number, before, again=again)
        self.log.attempts.append(sent)
        yield took_ns
        on_time = took_ns == answer.after_ns
        code = answer.code if on_time else StatusCode.DEADLINE_EXCEEDED
        self.log.results.append((sent, self._timeline.now_ns, code))
        ticket.end(*self._guards.outcomes_of(code))
        if self._detector.record(number, code, False, self._timeline.now_ns):
            self._choose_again()
        return Failure(code, cut_off=not on_time and took_ns == PER_TRY_NS)

    def _attempted(self, candidate: Candidate, at_ns: int, backend: int, before: int, *, again: bool) -> Attempted:
        others = self._candidates
        left = [one for one in others if not one.ejected and not one.out]
        return Attempted(
            at_ns,
            backend,
            before,
            again=again,
            was_ejected=bool(candidate.ejected),
            ejected=sum(bool(one.ejected) for one in others),
            others_left=len(left),
            out=sum(bool(one.out) for one in others),
            willing=sum(not self._may_refuse(one) for one in left),
        )

    def _refused(self, candidate: Candidate) -> None:
        """No connection: it is out until there is one."""
        if not candidate.out:
            self._balancer.set_out(candidate, "refused")
            self._timeline.spawn(self._reconnect(candidate), after_ns=RECONNECT_NS)
        index = _number(candidate)
        if self._detector.record(index, StatusCode.UNAVAILABLE, True, self._timeline.now_ns):
            self._choose_again()

    def _note_refusal(self) -> None:
        reachable = [one for one in self._candidates if not one.out] or self._candidates
        willing = sum(not self._may_refuse(one) for one in reachable)
        refused = Refused(self._timeline.now_ns, self._balancer.refusal, len(self._candidates), willing)
        self.log.refused.append(refused)

    def _may_refuse(self, candidate: Candidate) -> bool:
        """Whether its breaker may refuse a call now."""
        breaker = self._balancer.endpoint_breaker(candidate)
        if breaker is None:
            return False
        snapshot = breaker.snapshot(self._timeline.now_ns)  # type: ignore[attr-defined]  # both have it
        return bool(snapshot.state.name != "CLOSED" or snapshot.rejection_rate)


def _number(candidate: Candidate) -> int:
    return int(candidate.instance.instance.id)
