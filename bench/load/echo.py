"""An instance of the service `echo` in a process of its own: `python -m bench.load.echo ADDRESS ID TTL`.

It registers itself with the SDK, says `serving` and answers until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio

from trunkline.client import connect

SERVICE = "echo"
SAY = "/bench.Echo/Say"


class Echo(grpc.GenericRpcHandler):
    """Answers with what it was asked."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """One method."""
        return grpc.unary_unary_rpc_method_handler(self._say) if details.method == SAY else None

    async def _say(self, request: bytes, context: Any) -> bytes:
        return request


async def main(target: str, name: str, ttl_s: float) -> None:
    """Serve."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connect(target) as trunkline:
        registration = await trunkline.register(SERVICE, id=name, port=port, host="127.0.0.1", ttl_s=ttl_s)
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        await registration.wait_ended()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
