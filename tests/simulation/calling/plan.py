"""What a seed plans: backends, callers with their policy, and which troubles come when. All of it is over at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple

from simulation.calling.hosts import Host, hosts
from simulation.calling.splits import SUBSETS, Shares, stages
from simulation.calling.timeline import S
from simulation.chance import between, choose, happens, rng_of

from trunkline.core.clock import Rng
from trunkline.core.policy import (
    MS,
    Algorithm,
    BreakerMode,
    BreakerWindow,
    CircuitBreaker,
    LoadBalancingPolicy,
    OutlierDetection,
    Policy,
    Retry,
    StatusCode,
)

TROUBLE_S = 90
"""Until then there is trouble."""
CALM_S = 150
"""And then so long none: time for the longest ejection that a plan has, and to see that all is well."""
PER_TRY_S = 0.4


class Kind(StrEnum):
    """What can be wrong with a backend."""

    FAILING = "failing"
    """Answers UNAVAILABLE or INTERNAL, all or many calls."""
    SLOW = "slow"
    """Answers too late for an attempt."""
    FLAPPING = "flapping"
    """Fails and does well by turns."""
    SILENT = "silent"
    """A partition that swallows: nothing comes back."""
    REFUSING = "refusing"
    """A partition that refuses: no connection."""
    OVERLOADED = "overloaded"
    """Does so many a second, and fails the rest."""


class Trouble(NamedTuple):
    """One backend is in trouble for a time, in the eyes of some callers."""

    kind: Kind
    backend: int
    begin_ns: int
    end_ns: int
    callers: frozenset[int]
    percent: int
    """FAILING: so many calls fail. OVERLOADED: so many a second are well."""
    turn_ns: int
    """FLAPPING: between well and not."""

    def on(self, at_ns: int) -> bool:
        """Whether it is there."""
        if not self.begin_ns <= at_ns < self.end_ns:
            return False
        return self.kind is not Kind.FLAPPING or (at_ns - self.begin_ns) // self.turn_ns % 2 == 0


class Plan(NamedTuple):
    """Of a seed."""

    seed: int
    policy: Policy
    """While no split holds, or the first of them."""
    hosts: tuple[Host, ...]
    staying: int
    """So many, the first ones, are there from beginning to end."""
    stages: tuple[Shares, ...]
    """The splits that hold one after the other; none when calls are not split."""
    next_stage_ns: int
    """When the first of them is over."""
    callers: int
    lags_ns: tuple[int, ...]
    """How long it takes until each caller knows what the registry knows."""
    rates: tuple[tuple[int, ...], ...]
    """Calls a second of each caller, in each tenth of the time."""
    troubles: tuple[Trouble, ...]
    total_ns: tuple[int, int] | None
    """When every backend fails, if there is such a time."""


def plan(seed: int) -> Plan:
    """What the seed is to see."""
    rng = rng_of(seed, "plan")
    staying = choose(rng, (1, 2, 3, 4, 6, 10))
    registered = hosts(rng, staying, (TROUBLE_S + CALM_S) * S)
    backends = len(registered)
    callers = choose(rng, (1, 2, 3))
    rates = tuple(tuple(choose(rng, (5, 10, 20, 40)) for _ in range(10)) for _ in range(callers))
    troubles = [_trouble(rng, backends, callers) for _ in range(choose(rng, (1, 2, 3, 5)))]
    troubles += [_death(rng, one, callers) for one in registered if one.until_ns is not None and happens(rng, 40)]
    total = None
    if happens(rng, 60):
        begin_ns = int(between(rng, 5, 60) * S)
        total = begin_ns, begin_ns + int(between(rng, 12, 28) * S)
        kind = choose(rng, (Kind.FAILING, Kind.FAILING, Kind.SILENT, Kind.SLOW))
        everybody = frozenset(range(callers))
        troubles += [Trouble(kind, at, *total, everybody, 100, S) for at in range(backends)]
    policy, splits = _policy(rng), stages(rng)
    return Plan(
        seed, policy_of(policy, splits, 0), registered, staying, splits, int(between(rng, 20, 170) * S), callers,
        tuple(int(between(rng, 0, 1.5) * S) for _ in range(callers)), rates,
        tuple(one for one in troubles if one.begin_ns < one.end_ns), total,
    )  # fmt: skip


def policy_of(policy: Policy, splits: Sequence[Shares], stage: int) -> Policy:
    """The same with the split of a stage."""
    if not splits:
        return policy
    return replace(policy, subsets=SUBSETS, split=splits[stage].split())


def _death(rng: Rng, host: Host, callers: int) -> Trouble:
    """It is registered for a while longer than it lives."""
    assert host.until_ns is not None
    begin_ns = max(host.from_ns, host.until_ns - int(between(rng, 0.5, 5) * S))
    everybody = frozenset(range(callers))
    return Trouble(Kind.REFUSING, host.number, begin_ns, min(TROUBLE_S * S, host.until_ns), everybody, 100, S)


def _trouble(rng: Rng, backends: int, callers: int) -> Trouble:
    begin_ns = int(between(rng, 2, TROUBLE_S - 20) * S)
    end_ns = min(TROUBLE_S * S, begin_ns + int(between(rng, 3, 40) * S))
    kind = choose(rng, tuple(Kind))
    seen = frozenset(at for at in range(callers) if kind is Kind.OVERLOADED or happens(rng, 70))
    return Trouble(kind, rng.below(backends), begin_ns, end_ns, seen, choose(rng, (100, 100, 60, 30)), _turn_ns(rng))


def _turn_ns(rng: Rng) -> int:
    return int(between(rng, 0.5, 6) * S)


def _policy(rng: Rng) -> Policy:
    detection = OutlierDetection(
        consecutive_5xx=choose(rng, (3, 5)),
        interval_ns=choose(rng, (2, 5, 10)) * S,
        base_ejection_time_ns=choose(rng, (5, 10, 30)) * S,
        max_ejection_time_ns=choose(rng, (15, 40, 60)) * S,
        max_ejection_time_jitter_ns=choose(rng, (0, 0, 2)) * S,
        max_ejection_percent=choose(rng, (34, 50, 100, 100)),
        success_rate_request_volume=choose(rng, (10, 50)),
        success_rate_minimum_hosts=3,
        enforcing_failure_percentage=choose(rng, (0, 100)),
        failure_percentage_minimum_hosts=2,
        failure_percentage_request_volume=choose(rng, (10, 50)),
        split_external_local_origin_errors=happens(rng, 30),
        always_eject_one_host=happens(rng, 50),
    )
    algorithm = choose(rng, (Algorithm.ROUND_ROBIN, Algorithm.RANDOM, Algorithm.LEAST_REQUEST))
    return Policy(
        load_balancing=LoadBalancingPolicy(algorithm=algorithm),
        healthy_panic_threshold=choose(rng, (0, 30, 50)),
        outlier_detection=detection,
        circuit_breaker=_breaker(rng) if happens(rng, 50) else None,
        endpoint_circuit_breaker=_breaker(rng) if happens(rng, 30) else None,
        retry=Retry(
            max_attempts=choose(rng, (2, 3, 5)),
            retryable_status_codes=frozenset({StatusCode.UNAVAILABLE, StatusCode.INTERNAL}),
            per_try_timeout_ns=int(PER_TRY_S * S),
        ),
        timeout_ns=2 * S,
    )


def _breaker(rng: Rng) -> CircuitBreaker:
    return CircuitBreaker(
        mode=choose(rng, (BreakerMode.FAST, BreakerMode.GRADUAL)),
        sliding_window_type=BreakerWindow.TIME_BASED,
        sliding_window_size=choose(rng, (3, 5)),
        minimum_number_of_calls=10,
        wait_duration_in_open_state_ns=choose(rng, (1, 5)) * S,
        permitted_number_of_calls_in_half_open_state=choose(rng, (2, 5)),
        max_wait_duration_in_half_open_state_ns=5_000 * MS,
        max_rejection_percent=choose(rng, (80, 95)),
    )
