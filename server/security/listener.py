"""Which addresses may be listened on, and what must stand before them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from ipaddress import ip_address

from trunkline.core.errors import InvalidArgument

from .config import SecurityConfig, TlsConfig

log = logging.getLogger(__name__)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach `address`: host:port, [IPv6]:port or unix:PATH. Names count as far away."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_listener(address: str, tls: TlsConfig | None, insecure: bool) -> None:
    """InvalidArgument, in one line, when others could reach this address and neither TLS nor `insecure` is given."""
    if address.startswith("unix:"):
        if not address.removeprefix("unix:"):
            raise InvalidArgument.of("listen", "must be HOST:PORT or unix:PATH", address)
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise InvalidArgument.of("listen", "must be HOST:PORT or unix:PATH", address)
    if tls is None and not insecure and not is_loopback(address):
        raise InvalidArgument.of(
            "listen",
            "needs TLS (tls.certificate, tls.key) or --insecure: other machines can reach it",
            address,
        )


def loopback_is_open(config: SecurityConfig, addresses: Iterable[str]) -> bool:
    """Whether calls from this machine need no credentials; says so in the log."""
    choice = config.loopback_without_credentials
    is_open = all(map(is_loopback, addresses)) if choice is None else choice
    if is_open:
        log.warning("calls from this machine need no credentials: this is for development")
    if config.insecure:
        log.warning("insecure: calls from anywhere need no credentials and may not be encrypted")
    return is_open
