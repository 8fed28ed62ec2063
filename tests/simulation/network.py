"""The simulated network: hosts, and connections between them that delay, stall, break and are refused.

A connection is what TCP gives to gRPC: messages in order, until it breaks. A partition stalls it in both directions; a
stall longer than `keepalive_s` breaks it, as gRPC's keepalive would. What comes to a host that stands still waits in its
kernel. All chance comes from one Rng.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from simulation.virtual import NOBODY, Host

from trunkline.core.clock import Rng

UNREAD_MAX = 64
"""Messages of one direction of one call that may be on their way or unread: HTTP/2's window, counted in messages."""


class Broken(Exception):
    """The connection is gone."""


class Cancelled:
    """What a client sends that no longer wants an answer."""


@dataclass(eq=False)
class Pipe:
    """One direction of one call: messages that arrive in order, each after its delay."""

    network: Network
    link: Link
    receiver: Host
    call: Any = None
    on_cancel: Callable[[], None] | None = None
    arrived: deque[tuple[Any, float]] = field(default_factory=deque)
    kernel: deque[tuple[Any, float]] = field(default_factory=deque)
    """Arrived at a host that stood still."""
    unread: int = 0
    broken: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _clear_at: float = 0.0

    def send(self, message: Any) -> None:
        """Put a message on its way. Order is kept: it never overtakes the one before."""
        if self.broken:
            raise Broken
        for listener in self.network.on_sent:
            listener(self, message)
        loop = asyncio.get_running_loop()
        self.unread += 1
        # Timers of the same time fire in any order.
        self._clear_at = max(self._clear_at + 1e-6, loop.time() + self.network.delay_s())
        loop.call_at(self._clear_at, self.arrive, message, context=NOBODY)

    async def room(self) -> None:
        """Return when the window lets another message go, or never will again."""
        while self.unread >= UNREAD_MAX and not self.broken:
            self._room.clear()
            await self._room.wait()

    def arrive(self, message: Any) -> None:
        """A message has come to the end of the wire, or to a place where it is held up."""
        if self.broken:
            return
        if self.link.stalled or self.link.held:
            self.link.held.append((self, message))
            return
        self.network.tell_arrived(self, message)
        self.take_in(message)

    def take_in(self, message: Any) -> None:
        """A message has come to the host's kernel."""
        if self.broken:
            return
        if self.receiver.stalled or self.kernel:
            self.kernel.append((message, asyncio.get_running_loop().time()))
            self.network.unread_pipes_of(self.receiver)[self] = None
            return
        self.hand_over(message, asyncio.get_running_loop().time())

    def flush(self) -> None:
        """The host goes on: it reads what waited in its kernel."""
        while self.kernel and not self.receiver.stalled:
            self.hand_over(*self.kernel.popleft())

    def hand_over(self, message: Any, at_s: float) -> None:
        """The transport of the process reads a message that came at `at_s`."""
        if self.broken:
            return
        if message is Cancelled:
            if self.on_cancel is not None:
                self.on_cancel()
            return
        self.arrived.append((message, at_s))
        self._wake.set()

    def snap(self) -> None:
        """The connection broke: what has arrived can be read, no more comes."""
        self.broken = True
        self._wake.set()
        self._room.set()

    async def receive(self) -> Any:
        """The next message. Broken when none will come."""
        while not self.arrived:
            if self.broken:
                raise Broken
            self._wake.clear()
            await self._wake.wait()
        self.unread -= 1
        self._room.set()
        message, at_s = self.arrived.popleft()
        for listener in self.network.on_taken:
            listener(self, message, at_s)
        return message


@dataclass(eq=False)
class Link:
    """A connection between a client host and a server address: the calls on it live and die with it."""

    network: Network
    client: Host
    address: str
    alive: bool = True
    held: deque[tuple[Pipe, Any]] = field(default_factory=deque)
    on_break: dict[Callable[[], None], None] = field(default_factory=dict)
    _stalled_since: float | None = None

    @property
    def stalled(self) -> bool:
        return self._stalled_since is not None

    def stall(self) -> None:
        """A partition begins."""
        if self._stalled_since is None:
            loop = asyncio.get_running_loop()
            self._stalled_since = loop.time()
            loop.call_later(self.network.keepalive_s, self._keepalive, self._stalled_since, context=NOBODY)

    def heal(self) -> None:
        """The partition ends: what was held arrives, in order."""
        self._stalled_since = None
        held, self.held = self.held, deque()
        for pipe, message in held:
            pipe.arrive(message)

    def _keepalive(self, since: float) -> None:
        if self._stalled_since == since:
            self.network.disconnect(self)

    def break_(self) -> None:
        """The connection is reset: every call on it ends."""
        if not self.alive:
            return
        self.alive = False
        self.held.clear()
        callbacks, self.on_break = self.on_break, {}
        for callback in callbacks:
            callback()


class Listener(Protocol):
    """A server at an address."""

    host: Host


class Network:
    """Hosts by name and listeners by address."""

    def __init__(self, rng: Rng, *, delay_ms: tuple[float, float] = (0.1, 5.0), keepalive_s: float = 15.0) -> None:
        self.rng = rng
        self.keepalive_s = keepalive_s
        self.messages = 0
        self.on_sent: list[Callable[[Pipe, Any], None]] = []
        """Told of every message that is put on its way."""
        self.on_arrived: list[Callable[[Pipe, Any], None]] = []
        """Told of every message that comes to a host."""
        self.on_taken: list[Callable[[Pipe, Any, float], None]] = []
        """Told of every message that the application takes, and when it came to the host."""
        self._delay_ms = delay_ms
        self._listeners: dict[str, Listener] = {}
        self._links: dict[Link, None] = {}
        self._partitions: set[tuple[str, str]] = set()
        self._unread: dict[Host, dict[Pipe, None]] = {}

    def delay_s(self) -> float:
        """How long the next message takes."""
        self.messages += 1
        low, high = self._delay_ms
        return (low + (high - low) * self.rng.random()) / 1000

    def tell_arrived(self, pipe: Pipe, message: Any) -> None:
        """See on_arrived."""
        for listener in self.on_arrived:
            listener(pipe, message)

    # Hosts.

    def host(self, name: str) -> Host:
        """A new process with a network connection."""
        host = Host(name)
        self._unread[host] = {}
        host.on_resume.append(lambda: self._flush_kernel(host))
        host.on_kill.append(lambda: self._forget(host))
        return host

    def unread_pipes_of(self, host: Host) -> dict[Pipe, None]:
        """On which something waits for a stalled host."""
        return self._unread[host]

    def _flush_kernel(self, host: Host) -> None:
        """A host goes on after a stall: it is told that there is something to read, and reads, in the order it came."""
        loop, waiting = asyncio.get_running_loop(), self._unread[host]
        when = loop.time()
        for pipe in waiting:
            when += 1e-6 + 0.001 * self.rng.random()
            loop.call_at(when, pipe.flush, context=NOBODY)
        waiting.clear()

    def _forget(self, host: Host) -> None:
        self._unread[host].clear()
        for link in [link for link in self._links if link.client is host]:
            self.disconnect(link)

    # Servers.

    def listen(self, address: str, server: Listener) -> None:
        """A server takes connections at an address."""
        assert address not in self._listeners, f"{address} is taken"
        self._listeners[address] = server

    def unlisten(self, address: str) -> None:
        """The server is gone: connections to it are reset, new ones refused."""
        self._listeners.pop(address, None)
        for link in [link for link in self._links if link.address == address]:
            self.disconnect(link)

    # Clients.

    async def connect(self, client: Host, address: str) -> tuple[Link, Any]:
        """Open a connection. Broken when nobody listens there, or a partition is in the way for too long."""
        waited = 0.0
        while self.is_partitioned(client.name, address):
            await asyncio.sleep(0.1)
            waited += 0.1
            if waited >= self.keepalive_s:
                raise Broken
        await asyncio.sleep(self.delay_s())
        server = self._listeners.get(address)
        if server is None or not client.alive:
            raise Broken
        link = Link(self, client, address)
        self._links[link] = None
        return link, server

    def disconnect(self, link: Link) -> None:
        """One side closed the connection."""
        self._links.pop(link, None)
        link.break_()

    # Faults.

    def is_partitioned(self, client: str, address: str) -> bool:
        return (client, address) in self._partitions or ("*", address) in self._partitions

    def partition(self, client: str, address: str) -> None:
        """Stall everything between a host ('*' for all) and an address until `heal`."""
        self._partitions.add((client, address))
        for link in self._links:
            if link.address == address and client in ("*", link.client.name):
                link.stall()

    def heal(self) -> None:
        """End every partition."""
        self._partitions.clear()
        for link in list(self._links):
            if link.stalled:
                link.heal()

    def reset(self, client: Host) -> None:
        """Reset every connection of a host, as when a middlebox forgets."""
        for link in [link for link in self._links if link.client is client]:
            self.disconnect(link)
