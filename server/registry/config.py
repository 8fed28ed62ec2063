"""How the registry behaves: limits, times and thresholds, each with its unit."""

from __future__ import annotations

from dataclasses import dataclass, field

from trunkline.core.leases import JITTER_MS_MAX

from .fold import TombstoneConfig
from .guard import GuardConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLimits:
    """How much is taken in; more is refused with the limit's name."""

    instances_max: int = 200_000
    """Instances, and so leases, of all namespaces."""
    namespace_instances_max: int = 100_000
    """Instances of one namespace."""
    service_instances_max: int = 10_000
    """Instances of one service."""
    lost_leases_max: int = 100_000
    """Ended leases of which it is remembered why they ended."""
    restores_max: int = 200_000
    """Lapsed leases that were heard of and wait for their record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryConfig:
    """When leases that ran out are looked at. Together with their jitter all of it takes less than a second."""

    jitter_ms_max: int = JITTER_MS_MAX
    """A lease lives its TTL and at most this much longer."""
    tick_ms: int = 100
    """Time between two looks."""
    read_ms: int = 20
    """How long queued keep-alives are read before what they did not renew lapses."""
    stall_tolerance_ms: int = 250
    """A look that comes later than this after its time means that the server stood still."""
    settle_ms: int = 500
    """After a stall nothing lapses for so long: what waited in the network is heard first."""
    review_ms: int = 500
    """Time between two looks at whether a pause has lost its cause: each counts all leases."""
    batch_max: int = 256
    """Records of one write; a mass lapse is written in several."""
    retry_ms: int = 1_000
    """Pause after a write that failed."""

    def __post_init__(self) -> None:
        if self.jitter_ms_max + self.tick_ms + self.read_ms >= 1_000:
            raise ValueError("jitter_ms_max + tick_ms + read_ms must be less than 1,000: the bound that is promised")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """The registry."""

    limits: RegistryLimits = field(default_factory=RegistryLimits)
    expiry: ExpiryConfig = field(default_factory=ExpiryConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    tombstones: TombstoneConfig = field(default_factory=TombstoneConfig)
    keeps_all: bool = True
    """This node is alone on its journal and times every lease, whoever kept it before."""
