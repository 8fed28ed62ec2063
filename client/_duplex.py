"""One long bidirectional stream, opened again whenever it ends; what is said on it is its session's affair."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio

from trunkline.core.errors import TrunklineError, Unreachable

from ._backoff import Backoff
from ._errors import cancelled_by_channel
from ._link import Attempt, Link, Stubs

log = logging.getLogger("trunkline.client")

Request = TypeVar("Request")
Response = TypeVar("Response")
RequestIn = TypeVar("RequestIn", covariant=True)
ResponseOut = TypeVar("ResponseOut", contravariant=True)


class Session(Protocol[RequestIn, ResponseOut]):
    """What is said on the stream. Called on the event loop; none of it waits."""

    silent_after_s: float | None
    """When nothing comes for so long the stream is taken for dead; None waits for ever."""

    def opening(self) -> Sequence[RequestIn]:
        """The stream is open (again): what to say first. It replaces whatever was waiting to be said."""

    def outgoing(self) -> Sequence[RequestIn]:
        """What has gathered since the last call."""

    def received(self, response: ResponseOut) -> None:
        """An answer came."""

    def lost(self, error: TrunklineError) -> None:
        """The stream ended; it will be opened again."""


class Duplex(Generic[Request, Response]):
    """Keeps a session's stream open while it is wanted.

    Everything said within one turn of the loop goes out together.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[[Stubs], Any],
        session: Session[Request, Response],
        backoff: Backoff,
    ) -> None:
        self._link = link
        self._method = method
        self._session = session
        self._backoff = backoff
        self._wanted = asyncio.Event()
        self._pending = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._call: grpc.aio.StreamStreamCall[Request, Response] | None = None

    def wake(self) -> None:
        """There is something to say: open the stream if it is not, and ask the session."""
        self._wanted.set()
        self._pending.set()
        self._idle.clear()

    def rest(self) -> None:
        """Nobody needs the stream now: end it, and open it no more until `wake`."""
        self._wanted.clear()
        if self._call is not None:
            self._call.cancel()

    async def flushed(self, *, within_s: float) -> None:
        """Return when everything said so far was given to the transport, when there is no stream, or after
        `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._call is not None and not self._idle.is_set():
                    await self._idle.wait()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wanted.wait()
            attempt = await self._link.attempt()
            error, answered = await self._converse(attempt)
            if not self._wanted.is_set():
                continue
            self._session.lost(error)
            if answered:
                self._backoff.reset()
            if self._link.is_current(attempt):  # else the link itself waits
                log.info("stream ended", extra={"error": str(error)})
                await asyncio.sleep(self._backoff.next_s(limit_s=self._link.backoff_limit_s))

    async def _converse(self, attempt: Attempt) -> tuple[TrunklineError, bool]:
        """One life of the stream: why it ended, and whether it was ever answered."""
        call = self._method(attempt.stubs)(metadata=self._link.metadata)
        self._call = call
        writer = asyncio.get_running_loop().create_task(self._write(call))
        answered = False
        try:
            while True:
                async with asyncio.timeout(self._session.silent_after_s):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return Unreachable("the control plane ended the stream"), answered
                if not answered:
                    answered = True
                    self._link.reached(attempt)
                self._session.received(response)
        except grpc.RpcError as error:
            return self._link.understood(attempt, error), answered
        except TimeoutError:
            silent = Unreachable(f"nothing was heard for {self._session.silent_after_s:g} s")
            self._link.failed(attempt, silent)
            return silent, answered
        except asyncio.CancelledError:
            if cancelled_by_channel():
                return Unreachable("the stream was closed"), answered
            raise
        finally:
            self._call = None
            self._idle.set()
            call.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, call: grpc.aio.StreamStreamCall[Request, Response]) -> None:
        self._pending.clear()
        batch = self._session.opening()
        while True:
            for request in batch:
                try:
                    await call.write(request)
                except (grpc.RpcError, asyncio.InvalidStateError):
                    return  # the reader learns why, and says so
            if not self._pending.is_set():
                self._idle.set()
            await self._pending.wait()
            await asyncio.sleep(0)  # the rest of this turn's callers join
            self._pending.clear()
            batch = self._session.outgoing()
