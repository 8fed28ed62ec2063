"""How the server probes, and where it never does."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.server.addresses import AddressRules


@dataclass(frozen=True, slots=True, kw_only=True)
class ProberConfig:
    """The prober."""

    enabled: bool = True
    """Probe the instances that ask for it; without it verdicts stay as they are."""
    allowed_networks: tuple[str, ...] = ()
    """Networks that may be probed, such as "10.0.0.0/8"; none means every one that is not forbidden."""
    concurrent_max: int = 64
    """Probes at a time."""
    channels_max: int = 1_024
    """Connections that are kept for the next probe."""
    interval_jitter_percent: int = 10
    """Intervals are longer or shorter by up to this part at random."""
    doubt_percent: int = 50
    """When more of all probes fail at once, it is the prober that is doubted: verdicts stand, an alarm is raised."""
    doubt_failures_min: int = 5
    """... but never for fewer failures than this."""
    doubt_window_ms: int = 30_000
    """What began to fail within such a time failed at once."""
    batch_max: int = 256
    """Verdicts of one write."""

    def __post_init__(self) -> None:
        if self.channels_max < self.concurrent_max:
            raise ValueError("channels_max must be at least concurrent_max")
        self.rules()  # ValueError names what is no network

    def rules(self) -> AddressRules:
        """Which addresses may be probed."""
        return AddressRules(self.allowed_networks, deed="probed")
