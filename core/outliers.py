"""Outlier detection: who answers worse than the others is left out for a while. Envoy's algorithm; no I/O.

https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier and
envoy.config.cluster.v3.OutlierDetection, whose fields are those of `trunkline.core.policy.OutlierDetection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from trunkline.core.clock import Rng
from trunkline.core.outlier_counts import Detection, OutlierCounts, Volume
from trunkline.core.policy import OutlierDetection

__all__ = ["Detection", "Ejection", "OutlierDetector"]

_CONSECUTIVE = (
    Detection.CONSECUTIVE_5XX,
    Detection.CONSECUTIVE_GATEWAY_FAILURE,
    Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
)


class Ejection(NamedTuple):
    """Why and since when a host is left out. It comes back at the first look at `until_ns` or later.

    `times`: the base ejection time counts so many times, which is how often it was ejected of late.
    """

    reason: Detection
    since_ns: int
    until_ns: int
    times: int


@dataclass(slots=True)
class _Host:
    """What is known of a host besides its counts."""

    key: str
    multiplier: int = 0
    ejection: Ejection | None = None
    returned_ns: int | None = None


class OutlierDetector(OutlierCounts):
    """Envoy's detector for the hosts of a service, as seen by one caller. Time is monotonic nanoseconds.

    Failures in a row eject at once, in `record`. At each interval, in `advance`, hosts whose time is over come back;
    then those with enough calls in the interval are compared: success rates under mean - stdev x factor, and failure
    percentages at or over the threshold, are outliers; then the multiplier of those that have been back for an interval
    falls by one.

    Beyond Envoy: the last host that is not ejected never is, so that a single one never is either, and hosts that leave
    do not leave ejected ones alone: the one that was to come back first does. As with Envoy, `max_ejection_percent`
    holds after each ejection, but those who are ejected stay so when others leave. `always_eject_one_host` goes before
    it. A `max_ejection_time` shorter than `base_ejection_time` counts as that.

    Not to be shared by threads.
    """

    def __init__(self, policy: OutlierDetection, rng: Rng) -> None:
        self._policy = policy
        self._rng = rng
        self._hosts: list[_Host] = []
        self._numbers: dict[str, int] = {}
        self._now_ns = 0
        self._enforcing = {
            Detection.CONSECUTIVE_5XX: policy.enforcing_consecutive_5xx,
            Detection.CONSECUTIVE_GATEWAY_FAILURE: policy.enforcing_consecutive_gateway_failure,
            Detection.SUCCESS_RATE: policy.enforcing_success_rate,
            Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE: policy.enforcing_consecutive_local_origin_failure,
            Detection.SUCCESS_RATE_LOCAL_ORIGIN: policy.enforcing_local_origin_success_rate,
            Detection.FAILURE_PERCENTAGE: policy.enforcing_failure_percentage,
            Detection.FAILURE_PERCENTAGE_LOCAL_ORIGIN: policy.enforcing_failure_percentage_local_origin,
        }
        self.next_ns = 0
        """When `advance` is due. The first one begins the first interval."""
        self.ejected_count = 0

    def set_hosts(self, keys: Sequence[str]) -> None:
        """These are the hosts from now on, numbered as they come; what is known of those that stay is kept.

        ValueError: a key twice.
        """
        numbers = {key: at for at, key in enumerate(keys)}
        if len(numbers) != len(keys):
            raise ValueError("a host twice")
        were = [self._numbers.get(key, -1) for key in keys]
        hosts = [_Host(key) if was < 0 else self._hosts[was] for key, was in zip(keys, were, strict=True)]
        self.renumber(were)
        self._numbers, self._hosts = numbers, hosts
        self.ejected_count = sum(host.ejection is not None for host in hosts)
        if hosts and self.ejected_count == len(hosts):
            ends = [host.ejection.until_ns for host in hosts if host.ejection is not None]
            self._return(ends.index(min(ends)), self._now_ns)

    def index_of(self, key: str) -> int | None:
        """The number that a host has now, None when it is none."""
        return self._numbers.get(key)

    def ejected(self, index: int) -> Ejection | None:
        """Whether a host is left out. IndexError: no such host."""
        return self._hosts[index].ejection

    def ejections(self) -> dict[str, Ejection]:
        """Who is left out."""
        return {host.key: host.ejection for host in self._hosts if host.ejection is not None}

    def outlier(self, index: int, detection: int, now_ns: int) -> bool:
        """See OutlierCounts. The failures of one that is out already go on being counted, until it comes back."""
        if self._hosts[index].ejection is not None:
            return False
        ejected = self._eject(index, Detection(detection), now_ns)
        self.forgive(index, detection)
        return ejected

    def _eject(self, index: int, reason: Detection, now_ns: int) -> bool:
        if not self._may_eject() or not self._enforced(self._enforcing[reason]):
            return False
        policy, host = self._policy, self._hosts[index]
        base_ns = policy.base_ejection_time_ns
        max_ns = max(policy.max_ejection_time_ns, base_ns)
        jitter_ns = self._rng.below(policy.max_ejection_time_jitter_ns + 1) if policy.max_ejection_time_jitter_ns else 0
        if host.multiplier * base_ns < max_ns + base_ns:
            host.multiplier += 1
        time_ns = min(host.multiplier * base_ns, max_ns) + jitter_ns
        host.ejection = Ejection(reason, now_ns, now_ns + time_ns, host.multiplier)
        self.ejected_count += 1
        self._now_ns = max(self._now_ns, now_ns)
        return True

    def _may_eject(self) -> bool:
        """Whether one more may be: what would be left decides."""
        count = self.ejected_count + 1
        if count >= len(self._hosts):
            return False
        few = 100 * count <= self._policy.max_ejection_percent * len(self._hosts)
        return few or (self._policy.always_eject_one_host and count == 1)

    def _enforced(self, percent: int) -> bool:
        return percent >= 100 or (percent > 0 and self._rng.below(100) < percent)

    def _return(self, index: int, now_ns: int) -> None:
        """Let a host in again, with no failures in a row: a few new ones do not eject it at once."""
        host = self._hosts[index]
        host.ejection = None
        host.returned_ns = now_ns
        self.ejected_count -= 1
        for detection in _CONSECUTIVE:
            self.forgive(index, detection)

    def advance(self, now_ns: int) -> bool:
        """Have a look at the hosts if it is time, and say whether that has changed who is ejected."""
        if now_ns < self.next_ns:
            return False
        first = self.next_ns == 0
        self.next_ns = now_ns + self._policy.interval_ns
        self._now_ns = max(self._now_ns, now_ns)
        if first:
            return False
        before = [host.ejection for host in self._hosts]
        for index, host in enumerate(self._hosts):
            if host.ejection is not None and host.ejection.until_ns <= now_ns:
                self._return(index, now_ns)
        volumes, local_volumes = self.take_volumes()
        self._compare(volumes, Detection.SUCCESS_RATE, Detection.FAILURE_PERCENTAGE, now_ns)
        self._compare(
            local_volumes, Detection.SUCCESS_RATE_LOCAL_ORIGIN, Detection.FAILURE_PERCENTAGE_LOCAL_ORIGIN, now_ns
        )
        self._lower_multipliers(now_ns)
        return before != [host.ejection for host in self._hosts]

    def _compare(self, volumes: list[Volume], by_rate: Detection, by_percentage: Detection, now_ns: int) -> None:
        """Eject who is under the others' success rate, or over the failure percentage."""
        policy = self._policy
        seen = [
            (index, volume)
            for index, volume in enumerate(volumes)
            if volume.total and self._hosts[index].ejection is None
        ]
        rates = _rates(seen, policy.success_rate_request_volume)
        if rates and len(rates) >= policy.success_rate_minimum_hosts:
            threshold = _threshold(list(rates.values()), policy.success_rate_stdev_factor / 1_000)
            for index, rate in rates.items():
                if rate < threshold:
                    self._eject(index, by_rate, now_ns)
        rates = _rates(seen, policy.failure_percentage_request_volume)
        if len(rates) >= policy.failure_percentage_minimum_hosts:
            for index, rate in rates.items():
                if 100.0 - rate >= policy.failure_percentage_threshold and self._hosts[index].ejection is None:
                    self._eject(index, by_percentage, now_ns)

    def _lower_multipliers(self, now_ns: int) -> None:
        for host in self._hosts:
            since_ns = host.returned_ns
            if host.ejection is None and since_ns is not None and now_ns - since_ns >= self._policy.interval_ns:
                host.multiplier = max(0, host.multiplier - 1)


def _rates(seen: list[tuple[int, Volume]], least: int) -> dict[int, float]:
    """Success rates in percent of those with at least so many calls."""
    return {index: volume.good * 100.0 / volume.total for index, volume in seen if volume.total >= least}


def _threshold(rates: list[float], factor: float) -> float:
    """Under which a success rate is an outlier: so many standard deviations (of the population) under the mean."""
    if min(rates) == max(rates):
        return rates[0]  # where rounding would make the mean another number
    mean = sum(rates) / len(rates)
    variance = sum((rate - mean) * (rate - mean) for rate in rates) / len(rates)
    return mean - factor * sqrt(variance)
