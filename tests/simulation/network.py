"""The simulated network: hosts, and connections between them that delay, stall, break and are refused.

A connection is what TCP gives to gRPC: messages in order, until it breaks. A partition stalls it in both directions; a stall
longer than `keepalive_s` breaks it, as gRPC's keepalive would. Everything runs in the loop's (virtual) time, and all
chance comes from one Rng.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trunkline.core.clock import Rng


class Broken(Exception):
    """The connection is gone."""


@dataclass(eq=False)
class Pipe:
    """One direction of one call: messages that arrive in order, each after its delay."""

    network: Network
    link: Link
    arrived: deque[Any] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _clear_at: float = 0.0
    broken: bool = False

    def send(self, message: Any) -> None:
        """Put a message on its way. Order is kept: it never overtakes the one before."""
        if self.broken:
            raise Broken
        loop = asyncio.get_running_loop()
        self._clear_at = max(self._clear_at, loop.time() + self.network.delay_s())
        loop.call_at(self._clear_at, self._arrive, message)

    def _arrive(self, message: Any) -> None:
        if self.broken:
            return
        if self.link.stalled:
            self.link.held.append((self, message))
            return
        self.arrived.append(message)
        self._wake.set()

    def deliver(self, message: Any) -> None:
        """A held message goes on after a partition has healed."""
        if not self.broken:
            self.arrived.append(message)
            self._wake.set()

    def snap(self) -> None:
        """The connection broke: what has arrived can be read, no more comes."""
        self.broken = True
        self._wake.set()

    async def receive(self) -> Any:
        """The next message. Broken when none will come."""
        while not self.arrived:
            if self.broken:
                raise Broken
            self._wake.clear()
            await self._wake.wait()
        return self.arrived.popleft()


@dataclass(eq=False)
class Link:
    """A connection between a client host and a server address: the calls on it live and die with it."""

    network: Network
    client: str
    address: str
    alive: bool = True
    held: deque[tuple[Pipe, Any]] = field(default_factory=deque)
    on_break: list[Callable[[], None]] = field(default_factory=list)
    _stalled_since: float | None = None

    @property
    def stalled(self) -> bool:
        return self._stalled_since is not None

    def stall(self) -> None:
        """A partition begins."""
        if self._stalled_since is None:
            self._stalled_since = asyncio.get_running_loop().time()
            asyncio.get_running_loop().call_later(self.network.keepalive_s, self._keepalive, self._stalled_since)

    def heal(self) -> None:
        """The partition ends: what was held arrives, in order."""
        self._stalled_since = None
        while self.held and self.alive:
            pipe, message = self.held.popleft()
            pipe.deliver(message)

    def _keepalive(self, since: float) -> None:
        if self._stalled_since == since:
            self.break_()

    def break_(self) -> None:
        """The connection is reset: every call on it ends."""
        if not self.alive:
            return
        self.alive = False
        self.held.clear()
        callbacks, self.on_break = self.on_break, []
        for callback in callbacks:
            callback()


class Network:
    """Hosts by name and listeners by address."""

    def __init__(self, rng: Rng, *, delay_ms: tuple[float, float] = (0.1, 5.0), keepalive_s: float = 15.0) -> None:
        self.rng = rng
        self.keepalive_s = keepalive_s
        self._delay_ms = delay_ms
        self._listeners: dict[str, Any] = {}
        self._links: list[Link] = []
        self._partitions: set[tuple[str, str]] = set()
        self.messages = 0

    def delay_s(self) -> float:
        """How long the next message takes."""
        self.messages += 1
        low, high = self._delay_ms
        return (low + (high - low) * self.rng.random()) / 1000

    # Servers.

    def listen(self, address: str, server: Any) -> None:
        """A server takes connections at an address."""
        assert address not in self._listeners, f"{address} is taken"
        self._listeners[address] = server

    def unlisten(self, address: str) -> None:
        """The server is gone: connections to it are reset, new ones refused."""
        self._listeners.pop(address, None)
        for link in [link for link in self._links if link.address == address]:
            self._drop(link)

    # Clients.

    async def connect(self, client: str, address: str) -> tuple[Link, Any]:
        """Open a connection. Broken when nobody listens there, or a partition is in the way for too long."""
        waited = 0.0
        while self.is_partitioned(client, address):
            await asyncio.sleep(0.1)
            waited += 0.1
            if waited >= self.keepalive_s:
                raise Broken
        await asyncio.sleep(self.delay_s())
        server = self._listeners.get(address)
        if server is None:
            raise Broken
        link = Link(self, client, address)
        self._links.append(link)
        return link, server

    def _drop(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)
        link.break_()

    def disconnect(self, link: Link) -> None:
        """One side closed the connection."""
        self._drop(link)

    # Faults.

    def is_partitioned(self, client: str, address: str) -> bool:
        return (client, address) in self._partitions or ("*", address) in self._partitions

    def partition(self, client: str, address: str) -> None:
        """Stall everything between a host ('*' for all) and an address until `heal`."""
        self._partitions.add((client, address))
        for link in self._links:
            if link.address == address and client in ("*", link.client):
                link.stall()

    def heal(self) -> None:
        """End every partition."""
        self._partitions.clear()
        for link in list(self._links):
            link.heal()

    def reset_all(self, client: str) -> None:
        """Reset every connection of a host, as when it restarts or a middlebox forgets."""
        for link in [link for link in self._links if link.client == client]:
            self._drop(link)

    def reset_some(self) -> int:
        """Reset each connection with an even chance; returns how many."""
        chosen = [link for link in list(self._links) if self.rng.below(2)]
        for link in chosen:
            self._drop(link)
        return len(chosen)
