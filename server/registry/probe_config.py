"""How the server probes, and where it never does."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORBIDDEN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host, by another name
        "169.254.0.0/16",  # link-local: most clouds' metadata, and container credentials
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "100.100.100.200/32",  # metadata, Alibaba Cloud
        "192.0.0.192/32",  # metadata, Oracle Cloud
        "168.63.129.16/32",  # the host's agent, Azure
        "::/128",
        "fe80::/10",  # link-local
        "ff00::/8",  # multicast
        "fd00:ec2::/32",  # metadata and its kin, AWS
        "fd20:ce::254/128",  # metadata, Google Cloud
    )
)
"""Never probed, whatever is configured: what answers there gives credentials away or is nobody's instance."""


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
        for network in self.allowed_networks:
            ipaddress.ip_network(network)  # ValueError names it


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _carried(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does: mapped, 6to4 or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


class AddressRules:
    """Which addresses may be probed."""

    def __init__(self, config: ProberConfig) -> None:
        self._allowed: tuple[Network, ...] = tuple(ipaddress.ip_network(n) for n in config.allowed_networks)

    def why_not(self, text: str) -> str | None:
        """What speaks against an address in text form; None if nothing does."""
        address = _carried(ipaddress.ip_address(text.partition("%")[0]))
        for network in FORBIDDEN:
            if address in network:
                return f"{text} is never probed ({network})"
        if self._allowed and not any(address in network for network in self._allowed):
            return f"{text} is not in allowed_networks"
        return None
