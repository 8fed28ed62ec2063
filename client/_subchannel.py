"""One endpoint's connection: whether it stands, and its end when nothing uses it any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import grpc
import grpc.aio

from ._tasks import Tasks

log = logging.getLogger("trunkline.client")

RECHECK_S = 0.05
"""After a call that failed as a lost connection would make it fail, so long until the connection is taken for sound."""

READY = grpc.ChannelConnectivity.READY
TRANSIENT_FAILURE = grpc.ChannelConnectivity.TRANSIENT_FAILURE


class Subchannel:
    """Dialled at the first use, then kept connected. Tells `changed` why it cannot be used, or "" when it can."""

    def __init__(self, dial: Callable[[], grpc.aio.Channel], tasks: Tasks, changed: Callable[[str], None]) -> None:
        self.ready = False
        """A call can be sent now."""
        self.calls = 0
        """In flight."""
        self._dial = dial
        self._tasks = tasks
        self._changed = changed
        self._channel: grpc.aio.Channel | None = None
        self._methods: WeakKeyDictionary[object, Any] = WeakKeyDictionary()
        self._watching: asyncio.Task[None] | None = None
        self._became_other = asyncio.Event()
        self._failed = False
        self._retired = False

    def method(self, key: object, make: Callable[[grpc.aio.Channel], Any]) -> Any:
        """The multicallable that `make` makes of the channel; made once for each `key`, and kept as long
        as that is."""
        found = self._methods.get(key)
        if found is None:
            found = self._methods[key] = make(self._dialled())
        return found

    def _dialled(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = self._dial()
            self._watching = self._tasks.spawn(self._watch(self._channel), name="connectivity")
        return self._channel

    async def connected(self, *, within_s: float) -> bool:
        """Connect if need be; False when that is refused or takes longer. Nothing was sent then."""
        self._dialled()
        try:
            async with asyncio.timeout(within_s):
                while not self.ready and not self._failed and not self._retired:
                    self._became_other.clear()
                    await self._became_other.wait()
        except TimeoutError:
            self._changed("no connection in time")
        return self.ready

    @property
    def stands(self) -> bool:
        """What gRPC itself says of the connection."""
        return self._channel is not None and self._channel.get_state() is READY

    def suspect(self) -> None:
        """A call failed as if the connection were gone: use it no more until it is known to stand."""
        if self._channel is None or self._retired:
            return
        self._become(ready=False, why="connection lost")
        asyncio.get_running_loop().call_later(RECHECK_S, self._recheck)

    def _recheck(self) -> None:
        if self._channel is not None and not self._retired and self._channel.get_state(try_to_connect=True) is READY:
            self._become(ready=True, why="")

    async def _watch(self, channel: grpc.aio.Channel) -> None:
        state = channel.get_state(try_to_connect=True)
        while True:
            self._failed = state is TRANSIENT_FAILURE
            if state is READY:
                self._become(ready=True, why="")
            elif self._failed:
                self._become(ready=False, why="connection refused")
            elif self.ready:
                self._become(ready=False, why="connection lost")
            self._became_other.set()
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)

    def _become(self, *, ready: bool, why: str) -> None:
        self.ready = ready
        self._changed(why)
        self._became_other.set()

    def begun(self) -> None:
        """A call is in flight."""
        self.calls += 1

    def ended(self) -> None:
        """It is over; the last one of a retired endpoint hangs up."""
        self.calls -= 1
        if self._retired and not self.calls:
            self._hang_up()

    def retire(self) -> None:
        """The endpoint gets no more calls: hang up when those in flight are over."""
        self._retired = True
        self.ready = False
        self._became_other.set()
        if not self.calls:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            self._tasks.spawn(self._close(channel, None), name="hang up")

    async def close(self, grace_s: float | None) -> None:
        """End it, calls in flight after `grace_s` seconds."""
        self._retired = True
        self.ready = False
        channel, self._channel = self._channel, None
        if channel is not None:
            await self._close(channel, grace_s)

    async def _close(self, channel: grpc.aio.Channel, grace_s: float | None) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await channel.close(grace_s)
