"""Outlier detection from all that was ever recorded: rows and intervals are cut out of each host's history anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from trunkline.core.clock import Rng
from trunkline.core.outliers import Detection, Ejection
from trunkline.core.policy import OutlierDetection, StatusCode

FAILURES = {
    StatusCode.UNKNOWN,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS,
}
GATEWAY = {StatusCode.DEADLINE_EXCEEDED, StatusCode.UNAVAILABLE}


class Call(NamedTuple):
    """How a call ended."""

    code: StatusCode
    local_origin: bool


@dataclass
class Host:
    """A host with all that ever happened to it."""

    key: str
    calls: list[Call] = field(default_factory=list)
    begins: dict[Detection, int] = field(default_factory=dict)
    """From which call on failures in a row count."""
    interval_begins: int = 0
    multiplier: int = 0
    ejection: Ejection | None = None
    returned_ns: int | None = None

    def row(self, detection: Detection, seen: Callable[[Call], bool], bad: Callable[[Call], bool]) -> int:
        """How many failures stand at the end, among the calls that this detection sees at all."""
        length = 0
        for call in reversed([call for call in self.calls[self.begins.get(detection, 0) :] if seen(call)]):
            if not bad(call):
                break
            length += 1
        return length


class OutlierDetector:
    """See trunkline.core.outliers.OutlierDetector."""

    def __init__(self, policy: OutlierDetection, rng: Rng) -> None:
        self.policy = policy
        self.rng = rng
        self.hosts: list[Host] = []
        self.next_ns = 0
        self.newest_ns = 0

    def set_hosts(self, keys: Sequence[str]) -> None:
        """Keep what is known."""
        known = {host.key: host for host in self.hosts}
        self.hosts = [known.get(key) or Host(key) for key in keys]
        if self.hosts and all(host.ejection for host in self.hosts):
            first = min(self.hosts, key=lambda host: host.ejection.until_ns if host.ejection else 0)
            self._give_back(first, self.newest_ns)

    def ejections(self) -> dict[str, Ejection]:
        """Who is out."""
        return {host.key: host.ejection for host in self.hosts if host.ejection}

    def _external(self, call: Call) -> bool:
        return not (self.policy.split_external_local_origin_errors and call.local_origin)

    def record(self, index: int, code: int, local_origin: bool, now_ns: int) -> bool:
        """How a call ended."""
        if code == StatusCode.CANCELLED:
            return False
        host, policy = self.hosts[index], self.policy
        call = Call(StatusCode(code), local_origin)
        host.calls.append(call)
        if self._external(call):
            gateway = (Detection.CONSECUTIVE_GATEWAY_FAILURE, policy.consecutive_gateway_failure, _is_gateway)
            rows = [gateway, (Detection.CONSECUTIVE_5XX, policy.consecutive_5xx, _is_failure)]
            sees = self._external
        else:
            threshold = policy.consecutive_local_origin_failure
            rows = [(Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE, threshold, _is_local)]
            sees = _is_any
        before = host.ejection
        # Both rows are as long as they are before anything is done about either.
        full = [detection for detection, length, bad in rows if length and host.row(detection, sees, bad) == length]
        for detection in full:
            if host.ejection is None and rows[[row[0] for row in rows].index(detection)][2](call):
                self._eject(host, detection, now_ns)
                host.begins[detection] = len(host.calls)
        return host.ejection is not before

    def _eject(self, host: Host, reason: Detection, now_ns: int) -> None:
        policy = self.policy
        after = len(self.ejections()) + 1
        if after == len(self.hosts):
            return
        over = Fraction(100 * after, len(self.hosts)) > policy.max_ejection_percent
        if over and not (policy.always_eject_one_host and after == 1):
            return
        percent = {
            Detection.CONSECUTIVE_5XX: policy.enforcing_consecutive_5xx,
            Detection.CONSECUTIVE_GATEWAY_FAILURE: policy.enforcing_consecutive_gateway_failure,
            Detection.SUCCESS_RATE: policy.enforcing_success_rate,
            Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE: policy.enforcing_consecutive_local_origin_failure,
            Detection.SUCCESS_RATE_LOCAL_ORIGIN: policy.enforcing_local_origin_success_rate,
            Detection.FAILURE_PERCENTAGE: policy.enforcing_failure_percentage,
            Detection.FAILURE_PERCENTAGE_LOCAL_ORIGIN: policy.enforcing_failure_percentage_local_origin,
        }[reason]
        if percent == 0 or (percent < 100 and self.rng.below(100) >= percent):
            return
        base, longest = policy.base_ejection_time_ns, max(policy.max_ejection_time_ns, policy.base_ejection_time_ns)
        jitter = policy.max_ejection_time_jitter_ns
        jitter = self.rng.below(jitter + 1) if jitter else 0
        if host.multiplier * base < longest + base:
            host.multiplier += 1
        until_ns = now_ns + min(host.multiplier * base, longest) + jitter
        host.ejection = Ejection(reason, now_ns, until_ns, host.multiplier)
        self.newest_ns = max(self.newest_ns, now_ns)

    def _give_back(self, host: Host, now_ns: int) -> None:
        host.ejection, host.returned_ns = None, now_ns
        host.begins = dict.fromkeys(Detection, len(host.calls))

    def advance(self, now_ns: int) -> bool:
        """The interval's look."""
        if now_ns < self.next_ns:
            return False
        begins = self.next_ns == 0
        self.next_ns = now_ns + self.policy.interval_ns
        self.newest_ns = max(self.newest_ns, now_ns)
        if begins:
            return False
        before = self.ejections()
        for host in self.hosts:
            if host.ejection and now_ns >= host.ejection.until_ns:
                self._give_back(host, now_ns)
        intervals = [(host, host.calls[host.interval_begins :]) for host in self.hosts]
        for host in self.hosts:
            host.interval_begins = len(host.calls)
        self._compare(
            [(host, [_is_failure(call) for call in calls if self._external(call)]) for host, calls in intervals],
            (Detection.SUCCESS_RATE, Detection.FAILURE_PERCENTAGE),
            now_ns,
        )
        if self.policy.split_external_local_origin_errors:
            self._compare(
                [(host, [call.local_origin for call in calls]) for host, calls in intervals],
                (Detection.SUCCESS_RATE_LOCAL_ORIGIN, Detection.FAILURE_PERCENTAGE_LOCAL_ORIGIN),
                now_ns,
            )
        for host in self.hosts:
            since_ns = now_ns if host.returned_ns is None else host.returned_ns
            if host.multiplier and not host.ejection and now_ns - since_ns >= self.policy.interval_ns:
                host.multiplier -= 1
        return before != self.ejections()

    def _compare(self, seen: list[tuple[Host, list[bool]]], reasons: tuple[Detection, Detection], now_ns: int) -> None:
        policy = self.policy
        seen = [(host, failed) for host, failed in seen if failed and not host.ejection]
        many = [one for one in seen if len(one[1]) >= policy.success_rate_request_volume]
        rates = {host.key: 100 - Fraction(100 * sum(failed), len(failed)) for host, failed in many}
        if rates and len(rates) >= policy.success_rate_minimum_hosts:
            mean = sum(rates.values(), Fraction(0)) / len(rates)
            variance = sum(((rate - mean) ** 2 for rate in rates.values()), Fraction(0)) / len(rates)
            far = Fraction(policy.success_rate_stdev_factor, 1_000) ** 2 * variance
            for host, _ in many:
                if rates[host.key] < mean and (mean - rates[host.key]) ** 2 > far:
                    self._eject(host, reasons[0], now_ns)
        many = [one for one in seen if len(one[1]) >= policy.failure_percentage_request_volume]
        if len(many) >= policy.failure_percentage_minimum_hosts:
            for host, failed in many:
                bad = Fraction(100 * sum(failed), len(failed)) >= policy.failure_percentage_threshold
                if bad and not host.ejection:
                    self._eject(host, reasons[1], now_ns)


def _is_any(call: Call) -> bool:
    return True


def _is_local(call: Call) -> bool:
    return call.local_origin


def _is_failure(call: Call) -> bool:
    return call.local_origin or call.code in FAILURES


def _is_gateway(call: Call) -> bool:
    return call.local_origin or call.code in GATEWAY
