"""A gRPC server whose calls go as the test wrote down: one step after the other, then all is well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from integration.echo_server import COUNT, JOIN, SAY, TALK

from trunkline.client import Trunkline


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call."""

    code: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
    """None answers."""
    after_s: float = 0.0
    after_messages: int = 0
    """Of a stream of responses, before it fails."""
    headers: bool = False
    """Initial metadata is sent at once."""
    after_requests: int | None = None
    """Of a stream of requests, so many are read before it fails; None reads all."""
    trailing: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Seen:
    """What came with a call."""

    method: str
    metadata: dict[str, str | bytes]
    remaining_s: float | None
    requests: list[bytes] = field(default_factory=list)
    ended: bool = False
    """It was not cancelled."""


class Scripted(grpc.GenericRpcHandler):
    """The methods of the echo server."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.steps: list[Step] = []
        self.always: Step | None = None
        """When there are no more steps."""
        self.seen: list[Seen] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return {
            SAY: grpc.unary_unary_rpc_method_handler(self._say),
            COUNT: grpc.unary_stream_rpc_method_handler(self._count),
            JOIN: grpc.stream_unary_rpc_method_handler(self._join),
            TALK: grpc.stream_stream_rpc_method_handler(self._talk),
        }.get(details.method)

    @property
    def attempts(self) -> list[int]:
        """What each call said of attempts before it."""
        return [int(one.metadata.get("trunkline-previous-rpc-attempts", 0)) for one in self.seen]

    async def _begin(self, method: str, context: Any) -> tuple[Step, Seen]:
        seen = Seen(method, dict(context.invocation_metadata()), context.time_remaining())
        self.seen.append(seen)
        step = self.steps.pop(0) if self.steps else self.always or Step(code=None)
        if step.headers:
            await context.send_initial_metadata((("x-server", self.name.decode()),))
        return step, seen

    async def _end(self, step: Step, seen: Seen, context: Any) -> None:
        await asyncio.sleep(step.after_s)
        seen.ended = True
        if step.code is not None:
            await context.abort(step.code, "as written", step.trailing)

    async def _say(self, request: bytes, context: Any) -> bytes:
        step, seen = await self._begin(SAY, context)
        seen.requests.append(request)
        await self._end(step, seen, context)
        return self.name + b" " + request

    async def _count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        step, seen = await self._begin(COUNT, context)
        seen.requests.append(request)
        for index in range(int(request) if step.code is None else step.after_messages):
            yield b"%s %d" % (self.name, index)
        await self._end(step, seen, context)

    async def _join(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        step, seen = await self._begin(JOIN, context)
        await self._read(step, seen, requests)
        await self._end(step, seen, context)
        return self.name + b" %d" % sum(map(len, seen.requests))

    async def _talk(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        step, seen = await self._begin(TALK, context)
        if step.code is not None:
            await self._read(step, seen, requests)
            for index in range(step.after_messages):
                yield b"%s %d" % (self.name, index)
        else:
            async for request in requests:
                seen.requests.append(request)
                yield self.name + b" " + request
        await self._end(step, seen, context)

    async def _read(self, step: Step, seen: Seen, requests: AsyncIterator[bytes]) -> None:
        if step.after_requests == 0:
            return
        async for request in requests:
            seen.requests.append(request)
            if len(seen.requests) == step.after_requests:
                return


@asynccontextmanager
async def scripted(trunkline: Trunkline, name: str, *, service: str = "echo", **fields: Any) -> AsyncIterator[Scripted]:
    """Served on loopback, and registered."""
    handler = Scripted(name)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    registration = await trunkline.register(
        service, id=name, port=port, host="127.0.0.1", drain_on_exit=False, **fields
    )
    try:
        yield handler
    finally:
        await registration.close()
        await server.stop(None)
