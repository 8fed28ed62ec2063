"""What is counted, as Prometheus sees it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from trunkline.server.chain.metrics import LATENCY_BOUNDS_MS, ChainMetrics


def scraped(metrics: ChainMetrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_calls_are_counted_by_method_and_status() -> None:
    metrics = ChainMetrics()
    stats = metrics.of_method("s.Service", "Do", 5)
    for code in ("OK", "OK", "NOT_FOUND"):
        stats.started += 1
        stats.in_flight += 1
        stats.finish(code, 1_000_000)
    stats.started += 1
    stats.in_flight += 1
    seen = scraped(metrics)
    labels = 'method="Do",service="s.Service"'
    assert seen[f"trunkline_rpc_started_total{{{labels}}}"] == 4
    assert seen[f'trunkline_rpc_handled_total{{code="OK",{labels}}}'] == 2
    assert seen[f'trunkline_rpc_handled_total{{code="NOT_FOUND",{labels}}}'] == 1
    assert seen[f"trunkline_rpc_in_flight{{{labels}}}"] == 1
    assert seen[f"trunkline_rpc_in_flight_max{{{labels}}}"] == 5


def test_latencies_fall_into_the_bucket_whose_bound_they_do_not_pass() -> None:
    metrics = ChainMetrics()
    stats = metrics.of_method("s.Service", "Do", 5)
    for elapsed_ns in (0, 100_000, 100_001, 30_000_000_000, 31_000_000_000):
        stats.finish("OK", elapsed_ns)
    seen = scraped(metrics)

    def bucket(bound: str) -> float:
        return seen[f'trunkline_rpc_duration_seconds_bucket{{le="{bound}",method="Do",service="s.Service"}}']

    assert (bucket("0.0001"), bucket("0.00025"), bucket("10"), bucket("30"), bucket("+Inf")) == (2, 3, 3, 4, 5)
    assert seen['trunkline_rpc_duration_seconds_count{method="Do",service="s.Service"}'] == 5
    assert round(seen['trunkline_rpc_duration_seconds_sum{method="Do",service="s.Service"}'], 3) == 61.0
    assert list(LATENCY_BOUNDS_MS) == sorted(LATENCY_BOUNDS_MS)
