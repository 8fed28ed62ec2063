"""What calls came to, by method.

Plain integers that a collector reads when it is scraped: prometheus-client's own counters take a lock and about a
microsecond each, several times a call. Everything here happens on one event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

LATENCY_BOUNDS_MS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 30_000)
"""Upper bounds of the histogram's buckets."""

_BOUNDS_NS: Final = [int(bound * 1_000_000) for bound in LATENCY_BOUNDS_MS]
_BOUND_LABELS: Final = [f"{bound / 1_000:g}" for bound in LATENCY_BOUNDS_MS]
_LABELS: Final = ["service", "method"]


class MethodStats:
    """Counts of one method."""

    __slots__ = ("_buckets", "_total_ns", "handled", "in_flight", "in_flight_max", "labels", "started")

    def __init__(self, service: str, method: str, in_flight_max: int) -> None:
        self.labels = [service, method]
        self.in_flight_max = in_flight_max
        self.in_flight = 0
        self.started = 0
        self.handled: dict[str, int] = {}
        """By gRPC status name, of which there are 17."""
        self._buckets = [0] * (len(_BOUNDS_NS) + 1)
        self._total_ns = 0

    def finish(self, code: str, elapsed_ns: int) -> None:
        """A call ended with this status."""
        self.in_flight -= 1
        self.handled[code] = self.handled.get(code, 0) + 1
        self._buckets[bisect_left(_BOUNDS_NS, elapsed_ns)] += 1
        self._total_ns += elapsed_ns

    def latency(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets by upper bound in seconds, and the sum of all in seconds."""
        buckets: list[tuple[str, float]] = []
        total = 0
        for label, count in zip([*_BOUND_LABELS, "+Inf"], self._buckets, strict=True):
            total += count
            buckets.append((label, float(total)))
        return buckets, self._total_ns / 1e9


class ChainMetrics(Collector):
    """Every method's counts, for Prometheus. The label set is that of the registered methods and the gRPC codes."""

    def __init__(self) -> None:
        self._methods: list[MethodStats] = []

    def of_method(self, service: str, method: str, in_flight_max: int) -> MethodStats:
        """Begin to count a method."""
        stats = MethodStats(service, method, in_flight_max)
        self._methods.append(stats)
        return stats

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        started = CounterMetricFamily("trunkline_rpc_started_total", "Calls begun.", labels=_LABELS)
        handled = CounterMetricFamily(
            "trunkline_rpc_handled_total", "Calls ended, by gRPC status.", labels=[*_LABELS, "code"]
        )
        open_calls = GaugeMetricFamily("trunkline_rpc_in_flight", "Calls that are open.", labels=_LABELS)
        limits = GaugeMetricFamily("trunkline_rpc_in_flight_max", "Calls that may be open.", labels=_LABELS)
        latency = HistogramMetricFamily(
            "trunkline_rpc_duration_seconds", "From the call's arrival to its end; a stream's life.", labels=_LABELS
        )
        for stats in self._methods:
            started.add_metric(stats.labels, stats.started)
            for code, count in stats.handled.items():
                handled.add_metric([*stats.labels, code], count)
            open_calls.add_metric(stats.labels, stats.in_flight)
            limits.add_metric(stats.labels, stats.in_flight_max)
            buckets, total_seconds = stats.latency()
            latency.add_metric(stats.labels, buckets, total_seconds)
        yield from (started, handled, open_calls, limits, latency)
