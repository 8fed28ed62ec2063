"""The server's configuration in a world: small where small makes rare things frequent."""

from __future__ import annotations

from simulation.chance import choose, rng_of

from trunkline.server.discovery.discovery import DiscoveryConfig
from trunkline.server.discovery.watch_config import WatchConfig
from trunkline.server.events.bus import BusConfig
from trunkline.server.events.streams import StreamsConfig
from trunkline.server.journal.control.node import ControlConfig
from trunkline.server.plane import PlaneConfig
from trunkline.server.registry.config import RegistryConfig
from trunkline.server.registry.fold import TombstoneConfig
from trunkline.server.registry.guard import GuardConfig

STALE_RETENTION_S = 15


def config(seed: int) -> PlaneConfig:
    """Of the world of a seed."""
    rng = rng_of(seed, "config")
    return PlaneConfig(
        control=ControlConfig(snapshot_records=choose(rng, (15, 60, 50_000)), snapshot_interval_s=choose(rng, (4, 20))),
        events=BusConfig(streams=StreamsConfig(trim_interval_s=choose(rng, (1.0, 10.0)))),
        registry=RegistryConfig(
            guard=GuardConfig(stale_retention_ms=STALE_RETENTION_S * 1_000),
            tombstones=TombstoneConfig(per_service_max=choose(rng, (2, 10, 10_000))),
        ),
        discovery=DiscoveryConfig(
            watches=WatchConfig(
                part_instances_max=choose(rng, (2, 256)),
                event_changes_max=choose(rng, (3, 500)),
                slice_watches=choose(rng, (2, 1_000)),
            )
        ),
    )
