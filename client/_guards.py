"""What a caller keeps of one service by its policy: breakers, limits, rates, the retry budget, and counts. Pure.

Time and chance come in, so that the simulator runs what the channel runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from trunkline.core.breaker import Outcome, Snapshot
from trunkline.core.breakers import AnyBreaker, make_breaker, outcomes_of
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import CircuitOpen, LimitExceeded, RateLimited, TrunklineError
from trunkline.core.policy import CircuitBreaker, KeySource, Policy, RateLimit, RatePer
from trunkline.core.retry_budget import RetryBudget
from trunkline.core.token_bucket import KeyedBuckets, TokenBucket

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]] | None
"""Of a call, as grpc.aio takes it."""


class Permit(NamedTuple):
    """A call that a breaker let through. It is told to that breaker, even when another stands in its place meanwhile."""

    breaker: AnyBreaker
    permit: int
    outcomes: tuple[Outcome, ...]

    def end(self, code: int, clock: Clock) -> None:
        """The call ended with a gRPC status code; CANCELLED for one that was cancelled here."""
        self.breaker.end(self.permit, self.outcomes[code], clock)


@dataclass(slots=True)
class CallCounts:
    """Since the channel was made."""

    calls: int = 0
    """That were let in; each is one whatever it took."""
    attempts: int = 0
    """That were begun for them: an endpoint was looked for."""
    retries: int = 0
    """Of the attempts, those after the first."""
    refused: Counter[str] = field(default_factory=Counter)
    """Calls and attempts that were refused here, by reason: LIMIT_EXCEEDED, RATE_LIMITED, CIRCUIT_OPEN."""
    stopped: Counter[str] = field(default_factory=Counter)
    """Calls that failed for good, by why they were not repeated: a Stop's value."""
    fallbacks: Counter[str] = field(default_factory=Counter)
    """Answers that came from elsewhere: "subset", "service", "answer", "function"."""


class _Rate:
    """A rate limit and its buckets."""

    __slots__ = ("_buckets", "_one", "limit")

    def __init__(self, limit: RateLimit, now_ns: int) -> None:
        self.limit = limit
        numbers = (limit.max_tokens, limit.tokens_per_fill, limit.fill_interval_ns, now_ns)
        self._one = TokenBucket(*numbers) if limit.per is RatePer.SERVICE else None
        self._buckets = KeyedBuckets(*numbers) if limit.per is not RatePer.SERVICE else None

    def take(self, method: str, metadata: Metadata, caller: str, now_ns: int) -> bool:
        if self._one is not None:
            return self._one.take(now_ns)
        assert self._buckets is not None
        key = method.encode() if self.limit.per is RatePer.METHOD else key_of(self.limit.key, metadata, caller)
        return self._buckets.take(key or b"", now_ns)


class _Breakers:
    """Breakers of one setting: one each for what they stand before, made when it is first asked."""

    def __init__(self, settings: CircuitBreaker, rng: Rng) -> None:
        self.settings = settings
        self._rng = rng
        self._outcomes = outcomes_of(settings)
        self._made: dict[Hashable, AnyBreaker] = {}

    def begin(self, key: Hashable, clock: Clock) -> Permit | None:
        breaker = self._made.get(key)
        if breaker is None:
            breaker = self._made[key] = make_breaker(self.settings, self._rng, clock.now_ns())
        permit = breaker.begin(clock)
        return None if permit < 0 else Permit(breaker, permit, self._outcomes)

    def forget(self, key: Hashable) -> None:
        self._made.pop(key, None)

    def snapshot(self, key: Hashable, now_ns: int) -> Snapshot | None:
        breaker = self._made.get(key)
        return None if breaker is None else breaker.snapshot(now_ns)


class Guards:
    """One for each channel. Not to be shared by threads."""

    def __init__(self, policy: Policy, rng: Rng, *, service: str, caller: str, now_ns: int) -> None:
        self._rng = rng
        self._service = service
        self._caller = caller
        self.policy = Policy()
        self.counts = CallCounts()
        self.in_flight = 0
        """Calls that were let in and have not ended."""
        self.budget: RetryBudget | None = None
        self._rates: list[_Rate] = []
        self._breaker: _Breakers | None = None
        self._endpoints: _Breakers | None = None
        self.set_policy(policy, now_ns)

    def set_policy(self, policy: Policy, now_ns: int) -> None:
        """Take a new policy up. What did not change in it keeps its state: windows, tokens, budget."""
        before, self.policy = self.policy, policy
        self._breaker = self._again(self._breaker, policy.circuit_breaker)
        self._endpoints = self._again(self._endpoints, policy.endpoint_circuit_breaker)
        known = list(self._rates)
        self._rates = [_taken(known, limit) or _Rate(limit, now_ns) for limit in policy.rate_limits]
        old, new = before.retry, policy.retry
        if new is None:
            self.budget = None
        elif self.budget is None or old is None or old.budget != new.budget:
            budget = new.budget
            self.budget = RetryBudget(budget.budget_percent, budget.min_retries_per_second, budget.ttl_ns)

    def _again(self, before: _Breakers | None, settings: CircuitBreaker | None) -> _Breakers | None:
        if settings is None:
            return None
        return before if before is not None and before.settings == settings else _Breakers(settings, self._rng)

    @property
    def needed(self) -> bool:
        """Whether the policy asks for more than a pick: else a call goes straight."""
        policy = self.policy
        return bool(
            policy.timeout_ns
            or policy.retry
            or policy.limits.max_requests
            or policy.rate_limits
            or policy.circuit_breaker
            or policy.endpoint_circuit_breaker
            or policy.fallback
        )

    # A call.

    def enter(self, method: str, metadata: Metadata, now_ns: int) -> None:
        """Let a call in, which `leave` ends. LimitExceeded or RateLimited when it is one too many."""
        limit = self.policy.limits.max_requests
        if limit and self.in_flight >= limit:
            raise self.refuse(LimitExceeded("max_requests", limit))
        for rate in self._rates:
            if not rate.take(method, metadata, self._caller, now_ns):
                raise self.refuse(RateLimited(f"too many calls to {self._service}", per=rate.limit.per.name))
        self.in_flight += 1
        self.counts.calls += 1
        if self.budget is not None:
            self.budget.called(now_ns)

    def leave(self) -> None:
        """A call that was let in has ended."""
        self.in_flight -= 1

    def refuse(self, error: TrunklineError) -> TrunklineError:
        """Count it."""
        self.counts.refused[error.code] += 1
        return error

    # An attempt.

    def begin(self, clock: Clock) -> Permit | None:
        """Ask the service's breaker, if there is one. CircuitOpen when it lets no call through."""
        if self._breaker is None:
            return None
        permit = self._breaker.begin(self._service, clock)
        if permit is None:
            raise self.refuse(CircuitOpen(f"the circuit breaker of {self._service} is open", breaker="service"))
        return permit

    @property
    def has_endpoint_breakers(self) -> bool:
        """Whether `begin_endpoint` may refuse."""
        return self._endpoints is not None

    def begin_endpoint(self, key: Hashable, clock: Clock) -> Permit | None:
        """Ask an endpoint's breaker; None when it lets no call through. Only with `has_endpoint_breakers`."""
        assert self._endpoints is not None
        return self._endpoints.begin(key, clock)

    def forget_endpoint(self, key: Hashable) -> None:
        """It is gone."""
        if self._endpoints is not None:
            self._endpoints.forget(key)

    # A look inside.

    def breaker(self, now_ns: int) -> Snapshot | None:
        """The service's; None without one, or before the first call."""
        return None if self._breaker is None else self._breaker.snapshot(self._service, now_ns)

    def endpoint_breaker(self, key: Hashable, now_ns: int) -> Snapshot | None:
        """An endpoint's; None without one, or before its first call."""
        return None if self._endpoints is None else self._endpoints.snapshot(key, now_ns)


def _taken(known: list[_Rate], limit: RateLimit) -> _Rate | None:
    """The one with the same limit, taken out of those that are known."""
    for index, rate in enumerate(known):
        if rate.limit == limit:
            return known.pop(index)
    return None


def key_of(source: KeySource | None, metadata: Metadata, caller: str) -> bytes | None:
    """What a source says of a call; None when the call does not have it."""
    if source is None:
        return None
    if source.caller:
        return caller.encode()
    for key, value in metadata or ():
        if key == source.header:
            return value if isinstance(value, bytes) else value.encode()
    return None
