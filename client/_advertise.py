"""Which address an instance tells the world: one that others can reach, or a refusal."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import replace

from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Endpoint

from ._edge import AddressFinder, is_loopback


def endpoints_of(
    endpoints: Sequence[Endpoint | str], *, host: str, port: int | None, protocol: str
) -> tuple[Endpoint, ...]:
    """The endpoints that a caller of `register` means; hosts left empty are still to be found."""
    if (port is None) == (not endpoints):
        raise InvalidArgument.of("endpoints", "give either a port or endpoints", (port, tuple(endpoints)))
    if port is not None:
        return (Endpoint(host, port, protocol),)
    return tuple(_endpoint(item, protocol) for item in endpoints)


def _endpoint(item: Endpoint | str, protocol: str) -> Endpoint:
    if isinstance(item, Endpoint):
        return item
    host, colon, port = item.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument.of("endpoints", "host:port", item)
    return Endpoint(host.strip("[]"), int(port), protocol)


async def advertised(endpoints: Iterable[Endpoint], finder: AddressFinder) -> tuple[Endpoint, ...]:
    """Fill in missing hosts with the address from which the control plane is reached, and check each.

    A wildcard address is nobody's; loopback means another machine to whoever reads it elsewhere, so it is taken only
    when the control plane is on loopback, too.
    """
    checked = []
    for endpoint in endpoints:
        if not endpoint.host:
            checked.append(replace(endpoint, host=await finder.local_address()))
            continue
        if is_wildcard(endpoint.host):
            rule = "an address that others can reach, not the wildcard address that a server listens on"
            raise InvalidArgument.of("endpoints.host", rule, endpoint.host)
        if is_loopback(endpoint.host) and not await finder.control_is_loopback():
            rule = "an address that others can reach; loopback is for a control plane on the same machine"
            raise InvalidArgument.of("endpoints.host", rule, endpoint.host)
        checked.append(endpoint)
    return tuple(checked)


def is_wildcard(host: str) -> bool:
    """0.0.0.0, ::, and other spellings of them."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "*" or (host.isdecimal() and int(host) == 0)
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_unspecified or (mapped is not None and mapped.is_unspecified)
