"""One registry change told to many watches: from the Register that makes it to the last watch that hears of it."""

from __future__ import annotations

import asyncio
import os
import time

import grpc
import grpc.aio

from bench.load import h2
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import Server
from bench.load.world import NAMESPACE
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api.v1 import common_pb2, discovery_pb2, registry_pb2, registry_pb2_grpc

WATCH = "/trunkline.api.v1.DiscoveryService/Watch"
SERVICE = "storm"
MARK = "change-%06d"
"""Value of a label: seen once in each watch's event."""
PER_CONNECTION = 10


class Arrivals:
    """Counts what is expected."""

    def __init__(self) -> None:
        self.mark = b""
        self.left = 0
        self.done = asyncio.Event()
        self.at = 0.0

    def expect(self, mark: str, count: int) -> None:
        """From now on."""
        self.mark, self.left = mark.encode(), count
        self.done.clear()

    def count(self, payload: memoryview) -> None:
        """Something arrived."""
        found = bytes(payload).count(self.mark)
        if found:
            self.left -= found
            if self.left <= 0:
                self.at = time.perf_counter()
                self.done.set()


class WatchConnection(h2.Connection):
    """Some watches on one stream."""

    def __init__(self, block: bytes, arrivals: Arrivals) -> None:
        super().__init__()
        self._block = block
        self._arrivals = arrivals
        self._stream = 0

    def begin(self) -> None:
        """Open them all."""
        self._stream = self.open(self._block)
        for number in range(1, PER_CONNECTION + 1):
            self._say(
                discovery_pb2.WatchRequest(
                    open=discovery_pb2.OpenWatch(watch_id=number, namespace=NAMESPACE, service=SERVICE)
                )
            )
        self.flush()

    def acknowledge(self, revision: int) -> None:
        """All of them have applied it."""
        for number in range(1, PER_CONNECTION + 1):
            acknowledge = discovery_pb2.AcknowledgeWatch(watch_id=number, revision=revision)
            self._say(discovery_pb2.WatchRequest(acknowledge=acknowledge))
        self.flush()

    def _say(self, request: discovery_pb2.WatchRequest) -> None:
        self.send(self._stream, h2.message(request.SerializeToString()), end=False)

    def data(self, stream: int, payload: memoryview) -> None:
        self._arrivals.count(payload)

    def ended(self, stream: int) -> None:
        self.lost = self.lost or ConnectionError("the stream has ended")


async def change(stub: registry_pb2_grpc.RegistryServiceAsyncStub, mark: str) -> int:
    """Register the one instance with another label; the revision."""
    instance = common_pb2.Instance(
        namespace=NAMESPACE,
        service=SERVICE,
        id="one",
        endpoints=[common_pb2.Endpoint(host="10.0.0.1", port=8080)],
        labels={"mark": mark},
    )
    request = registry_pb2.RegisterRequest(instance=instance, lease_secret=b"secret of a storm")
    request.ttl.FromSeconds(300)
    return (await stub.Register(request, timeout=30)).modified_revision


async def storms(address: str, connections: int, changes: int) -> list[float]:
    """Milliseconds from a change to the last watch that hears of it."""
    host, port = address.rsplit(":", 1)
    block = h2.headers(WATCH, address)
    arrivals = Arrivals()
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(address) as channel:
        stub: registry_pb2_grpc.RegistryServiceAsyncStub = registry_pb2_grpc.RegistryServiceStub(channel)
        revision = await change(stub, MARK % 0)
        arrivals.expect(MARK % 0, connections * PER_CONNECTION)
        made = [
            (await loop.create_connection(lambda: WatchConnection(block, arrivals), host, int(port)))[1]
            for _ in range(connections)
        ]
        for connection in made:
            connection.begin()
        await asyncio.wait_for(arrivals.done.wait(), 90)
        found = []
        for number in range(1, changes + 1):
            for connection in made:
                connection.acknowledge(revision)
            await asyncio.sleep(0.7)  # acknowledgements are read, and the server is quiet
            arrivals.expect(MARK % number, connections * PER_CONNECTION)
            began = time.perf_counter()
            revision = await change(stub, MARK % number)
            await asyncio.wait_for(arrivals.done.wait(), 30)
            found.append(1_000 * (arrivals.at - began))
        lost = [connection.lost for connection in made if connection.lost is not None]
        if lost:
            raise RuntimeError(f"{len(lost)} connections were lost: {lost[0]}")
        for connection in made:
            connection.close()
        return found


def rows(quick: bool) -> list[Row]:
    """The change is durable before it is told."""
    os.sched_setaffinity(0, {LOAD_CORE})
    connections, changes = (200, 5) if quick else (1_000, 11)
    with scratch_folder() as folder, running(Server(folder, core=SERVER_CORE)) as server:
        found = asyncio.run(storms(server.ready(), connections, changes))
    what = f"Register to the last of {connections * PER_CONNECTION:,} watches on {connections:,} connections, grpc.aio"
    return [row("watch-storm", what, found, "ms", goal="value <= 40 ms")]
