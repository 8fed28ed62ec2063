"""What Prometheus reads of a control plane, beside the chain's own metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .plane import ControlPlane


class PlaneMetrics(Collector):
    """Reads plain counters when it is scraped, so that counting costs an addition."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def collect(self) -> Iterator[Metric]:
        """All families."""
        for part, values in self._parts().items():
            for name, value in values.items():
                yield _family(f"trunkline_{part}_{name}", value)

    def describe(self) -> Iterator[Metric]:
        """Nothing before the plane is open."""
        return iter(())

    def _parts(self) -> Mapping[str, Mapping[str, float]]:
        plane = self._plane
        sequencer = plane.control.sequencer
        return {
            "control": {
                "revision": sequencer.revision,
                "epoch": sequencer.epoch,
                "skipped_records_total": sequencer.skipped,
                "recovering": sequencer.failed.is_set(),
                "request_ids": len(sequencer.requests),
                "log_bytes": plane.control.log.bytes,
            },
            "registry": plane.registry.metrics(),
            "discovery": plane.discovery.metrics(),
            "events": plane.events.metrics(),
            "schedules": plane.schedules.metrics(),
            "traffic": plane.traffic.metrics(),
        }


def _family(name: str, value: float) -> Metric:
    words = name.replace("_", " ")
    if name.endswith("_total"):
        return CounterMetricFamily(name.removesuffix("_total"), words, value=value)
    return GaugeMetricFamily(name, words, value=value)
