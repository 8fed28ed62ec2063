"""A gRPC server in a process of its own: answers with its name. Prints its port; ends with its standard input."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

SAY = "/test.Echo/Say"
COUNT = "/test.Echo/Count"
JOIN = "/test.Echo/Join"
TALK = "/test.Echo/Talk"


class Echo(grpc.GenericRpcHandler):
    """`Say` answers "<name> <request>"; a request "slow <s>" takes s seconds, "fail" is UNAVAILABLE by its own will."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return {
            SAY: grpc.unary_unary_rpc_method_handler(self._say),
            COUNT: grpc.unary_stream_rpc_method_handler(self._count),
            JOIN: grpc.stream_unary_rpc_method_handler(self._join),
            TALK: grpc.stream_stream_rpc_method_handler(self._talk),
        }.get(details.method)

    async def _say(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        if request.startswith(b"slow "):
            await asyncio.sleep(float(request[5:]))
        if request == b"fail":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not in the mood")
        return self.name.encode() + b" " + request

    async def _count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for index in range(int(request)):
            yield b"%s %d" % (self.name.encode(), index)

    async def _join(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return self.name.encode() + b" " + b"".join([request async for request in requests])

    async def _talk(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield self.name.encode() + b" " + request


async def serve(name: str, port: int = 0) -> tuple[grpc.aio.Server, int, Echo]:
    """A started server on loopback, its port, and what answers."""
    echo = Echo(name)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((echo,))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, bound, echo


async def main() -> None:
    server, port, _ = await serve(sys.argv[1])
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
