"""What a caller keeps of one service by its policy, besides what picks: rates, the retry budget, and counts. Pure.

Time comes in, so that the simulator runs what the channel runs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from trunkline.core.breaker import Outcome
from trunkline.core.breakers import outcomes_of
from trunkline.core.errors import RateLimited, TrunklineError
from trunkline.core.policy import CircuitBreaker, Limits, Policy, RateLimit, RatePer, StatusCode
from trunkline.core.retry_budget import RetryBudget
from trunkline.core.splits import Metadata, key_of
from trunkline.core.token_bucket import KeyedBuckets, TokenBucket

NO_LIMITS = Limits()


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
        numbers = limit.max_tokens, limit.tokens_per_fill, limit.fill_interval_ns
        self._one = TokenBucket(*numbers, now_ns) if limit.per is RatePer.SERVICE else None
        self._buckets = KeyedBuckets(*numbers)

    def key(self, method: str, metadata: Metadata | None, caller: str) -> bytes:
        """Whose bucket it is; those without a key share one."""
        if self.limit.per is RatePer.METHOD:
            return method.encode()
        return key_of(self.limit.key, metadata, caller.encode()) or b""

    def has_token(self, key: bytes, now_ns: int) -> bool:
        return (self._buckets.next_ns(key, now_ns) if self._one is None else self._one.next_ns(now_ns)) <= now_ns

    def take(self, key: bytes, now_ns: int) -> None:
        taken = self._buckets.take(key, now_ns) if self._one is None else self._one.take(now_ns)
        assert taken, "there was a token"


class Guards:
    """One for each channel. Not to be shared by threads."""

    def __init__(self, policy: Policy, *, service: str, caller: str, now_ns: int) -> None:
        self._service = service
        self._caller = caller
        self.policy = Policy()
        self.counts = CallCounts()
        self.in_flight = 0
        """Calls that were let in and have not ended."""
        self.budget: RetryBudget | None = None
        self._rates: list[_Rate] = []
        self._outcomes = _outcomes(None), _outcomes(None)
        self.set_policy(policy, now_ns)

    def set_policy(self, policy: Policy, now_ns: int) -> None:
        """Take a new policy up. What did not change in it keeps its state: tokens, and the budget."""
        before, self.policy = self.policy, policy
        self._outcomes = _outcomes(policy.circuit_breaker), _outcomes(policy.endpoint_circuit_breaker)
        known = list(self._rates)
        self._rates = [_taken(known, limit) or _Rate(limit, now_ns) for limit in policy.rate_limits]
        old, new = before.retry, policy.retry
        if new is None:
            self.budget = None
        elif self.budget is None or old is None or old.budget != new.budget:
            budget = new.budget
            self.budget = RetryBudget(budget.budget_percent, budget.min_retries_per_second, budget.ttl_ns)

    @property
    def needed(self) -> bool:
        """Whether the policy asks for more than a pick: else a call goes straight."""
        policy = self.policy
        return bool(
            policy.timeout_ns
            or policy.retry
            or policy.limits != NO_LIMITS
            or policy.rate_limits
            or policy.circuit_breaker
            or policy.endpoint_circuit_breaker
            or policy.fallback
        )

    def enter(self, method: str, metadata: Metadata | None, now_ns: int) -> None:
        """Let a call in, which `leave` ends. RateLimited when it is one too many."""
        keys = [rate.key(method, metadata, self._caller) for rate in self._rates]
        # A call that one limit refuses takes no token of the others.
        for rate, key in zip(self._rates, keys, strict=True):
            if not rate.has_token(key, now_ns):
                raise self.refuse(RateLimited(f"too many calls to {self._service}", per=rate.limit.per.name))
        for rate, key in zip(self._rates, keys, strict=True):
            rate.take(key, now_ns)
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

    def outcomes_of(self, code: StatusCode) -> tuple[Outcome, Outcome]:
        """What an attempt that ended with `code` says to the breaker of the service, and to that of its endpoint."""
        service, endpoint = self._outcomes
        return service[code], endpoint[code]


def _outcomes(settings: CircuitBreaker | None) -> tuple[Outcome, ...]:
    return outcomes_of(settings or CircuitBreaker())


def _taken(known: list[_Rate], limit: RateLimit) -> _Rate | None:
    """The one with the same limit, taken out of those that are known."""
    for index, rate in enumerate(known):
        if rate.limit == limit:
            return known.pop(index)
    return None
