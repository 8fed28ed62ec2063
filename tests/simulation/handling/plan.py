"""What goes wrong in worlds in which the handling of events fails, and the server's configuration there."""

from __future__ import annotations

from simulation.chance import choose, rng_of
from simulation.faults import CLIENT_FAULTS, CLOCK_FAULTS, SERVER_FAULTS, Cell, planned

from trunkline.server.events.bounds import LookAhead
from trunkline.server.events.bus import BusConfig
from trunkline.server.events.streams import StreamsConfig
from trunkline.server.journal.control.node import ControlConfig
from trunkline.server.plane import PlaneConfig
from trunkline.server.schedules.config import SchedulesConfig

PARKED = "parked lane"
"""While lanes of a subscription are parked."""
RETRY_S_MAX = 2.0
"""Between two attempts to publish what is due."""
CLIENT_OPERATIONS = ("publish", "subscribe", "ack", "schedule", "seek", "redeliver")
SERVER_OPERATIONS = (
    "event append", "dead letter append", "scheduled append", "control append", "checkpoint", PARKED, "start",
)  # fmt: skip
CELLS: tuple[Cell, ...] = (
    *((fault, operation) for operation in CLIENT_OPERATIONS + SERVER_OPERATIONS for fault in SERVER_FAULTS),
    *((fault, operation) for operation in CLIENT_OPERATIONS for fault in CLIENT_FAULTS),
    *((fault, operation) for operation in (PARKED, "schedule", "scheduled append") for fault in CLOCK_FAULTS),
)


def cells(seed: int) -> list[Cell]:
    """What a seed is to see."""
    return planned(seed, CELLS)


def config(seed: int) -> PlaneConfig:
    """Of the world of a seed."""
    rng = rng_of(seed, "config")
    return PlaneConfig(
        control=ControlConfig(snapshot_records=choose(rng, (15, 50_000)), snapshot_interval_s=choose(rng, (4, 20))),
        schedules=SchedulesConfig(
            interval_s_min=0.1,
            remember_interval_s=choose(rng, (0.5, 3.0, 60.0)),
            retry_s_max=RETRY_S_MAX,
            publish_timeout_s=4.0,
        ),
        events=BusConfig(streams=StreamsConfig(trim_interval_s=choose(rng, (1.0, 10.0)))),
    )


def look_ahead(seed: int) -> LookAhead:
    """So little that lanes are parked, for being stuck and for being in the way, and that attempts are counted ahead of few."""
    rng = rng_of(seed, "look ahead")
    return LookAhead(
        look_ahead_max=choose(rng, (8, 12, 40, 1_000)),
        ready_max=choose(rng, (4, 8)),
        count_ahead_min=choose(rng, (1, 4)),
        stall_ns=50_000_000,
        stuck_ns=choose(rng, (1_500_000_000, 3_000_000_000)),
        stuck_look_ns=300_000_000,
        readmit_max=choose(rng, (2, 4)),
        reserve_min=choose(rng, (2, 16, 1_000)),
        reserve_max=1_000,
    )
