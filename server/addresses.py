"""Which addresses the server itself connects to: whatever a client says, some are never reached."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

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
"""Never reached, whatever is configured: what answers there gives credentials away or is nobody's endpoint."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def parsed(text: str) -> Address | None:
    """An address in text form, with or without a zone, as what it stands for; None for what is a name."""
    try:
        return _carried(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def _carried(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does: mapped, 6to4 or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


class AddressRules:
    """Which addresses may be reached. `deed` is what is done there, for people."""

    def __init__(self, allowed_networks: Iterable[str], *, deed: str) -> None:
        """Without a network, every address that is not forbidden. ValueError names what is no network."""
        self._allowed: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in allowed_networks)
        self._deed = deed

    def why_not(self, text: str) -> str | None:
        """What speaks against an address in text form; None if nothing does."""
        address = parsed(text)
        assert address is not None, text
        for network in FORBIDDEN:
            if address in network:
                return f"{text} is never {self._deed} ({network})"
        if self._allowed and not any(address in network for network in self._allowed):
            return f"{text} is not in allowed_networks"
        return None
