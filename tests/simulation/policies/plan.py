"""What goes wrong in worlds of policies, and the server's configuration there."""

from __future__ import annotations

from simulation import plane_config
from simulation.faults import CLIENT_FAULTS, SERVER_FAULTS, Cell, planned

from trunkline.server.plane import PlaneConfig

CLIENT_OPERATIONS = ("apply policy", "delete policy", "roll back policy", "watch", "watch_ack")
SERVER_OPERATIONS = ("control append", "snapshot", "start")
CELLS: tuple[Cell, ...] = (
    *((fault, operation) for operation in CLIENT_OPERATIONS + SERVER_OPERATIONS for fault in SERVER_FAULTS),
    *((fault, operation) for operation in CLIENT_OPERATIONS for fault in CLIENT_FAULTS),
)


def cells(seed: int) -> list[Cell]:
    """What a seed is to see."""
    return planned(seed, CELLS)


def config(seed: int) -> PlaneConfig:
    """Of the world of a seed: the same choices as where everybody lives."""
    return plane_config.config(seed)
