"""What Prometheus reads of the HTTP listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .config import HttpConfig
from .ingestion import Ingestion


class HttpMetrics(Collector):
    """Reads plain counters when it is scraped. `connections` tells how many there are, `refused` how many were too many."""

    def __init__(
        self, ingestion: Ingestion, config: HttpConfig, *, connections: Callable[[], int], refused: Callable[[], int]
    ) -> None:
        self._ingestion = ingestion
        self._config = config
        self._connections = connections
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        stats = self._ingestion.stats
        handled = CounterMetricFamily(
            "trunkline_http_publishes_total", "Publishes over HTTP, by the answer's status.", labels=["code"]
        )
        for code, count in stats.handled.items():
            handled.add_metric([code], count)
        yield handled
        latency = HistogramMetricFamily(
            "trunkline_http_publish_duration_seconds", "From a publish's head to its answer."
        )
        buckets, total_seconds = stats.latency()
        latency.add_metric([], buckets, total_seconds)
        yield latency
        yield CounterMetricFamily(
            "trunkline_http_connections_refused_total", "Connections beyond the limit.", value=self._refused()
        )
        yield from self._gauges()

    def describe(self) -> Iterator[Metric]:
        """Nothing before the listener is open."""
        return iter(())

    def _gauges(self) -> Iterator[Metric]:
        stats, config = self._ingestion.stats, self._config
        values = {
            "publishes_in_flight": ("Publishes that are open.", stats.in_flight),
            "publishes_in_flight_max": ("Publishes that may be open.", stats.in_flight_max),
            "body_bytes_in_flight": ("Bytes of their bodies.", self._ingestion.bodies.held_bytes),
            "body_bytes_in_flight_max": ("Bytes that there may be.", config.body_bytes_in_flight_max),
            "connections": ("Connections that are open.", self._connections()),
            "connections_max": ("Connections that may be open.", config.connections_max),
        }
        for name, (words, value) in values.items():
            yield GaugeMetricFamily(f"trunkline_http_{name}", words, value=value)
