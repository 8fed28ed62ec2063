"""What Prometheus reads of the native transport."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .server import NativeServer


class TransportMetrics(Collector):
    """Reads the server's plain counters when it is scraped. Labels are names of limits, of which there are few."""

    def __init__(self, server: NativeServer) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """All families."""
        server, counts, config = self._server, self._server.counts, self._server.config
        gauges = {
            "connections": ("Open connections.", len(server.connections)),
            "connections_max": ("Connections that may be open.", config.connections_max),
            "streams_per_connection_max": (
                "Calls that one connection may have open.",
                config.streams_per_connection_max,
            ),
            "calls_waiting": ("Calls whose handlers wait for something.", len(server.tasks)),
            "unread_bytes": ("Received and not yet taken by a handler.", server.budget.used_bytes),
            "unread_bytes_max": ("The most of that.", config.unread_bytes_max),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"trunkline_transport_{name}", text, value=float(value))
        totals = {
            "connections_opened": ("Connections ever opened.", counts.connections),
            "connections_refused": ("Connections that did not speak HTTP/2.", counts.refused),
            "connections_silent": ("Connections cut because a ping was not answered.", counts.silent),
            "calls_over_budget": ("Calls ended because too much was unread.", counts.over_budget),
        }
        for name, (text, value) in totals.items():
            yield CounterMetricFamily(f"trunkline_transport_{name}", text, value=float(value))
        cut = CounterMetricFamily("trunkline_transport_connections_cut", "Connections over a limit.", labels=["limit"])
        for limit, count in sorted(counts.cut.items()):
            cut.add_metric([limit], count)
        yield cut

    def describe(self) -> Iterator[Metric]:
        """Nothing that another collector has, too."""
        return iter(())
