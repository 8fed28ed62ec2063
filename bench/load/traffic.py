"""Traffic until the server is gone: publishes, registrations that change, keep-alives.

`python -m bench.load.traffic ADDRESS`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from threading import Thread

import grpc

from bench.load.batches import Batches
from bench.load.world import NAMESPACE, World, instance, secret
from trunkline.api import convert
from trunkline.api.v1 import registry_pb2, registry_pb2_grpc
from trunkline.server.registry.decisions import lease_id_of

PUBLISH = "/trunkline.api.v1.EventService/Publish"
WORLD = World(services=1_000)


def publishes(channel: grpc.Channel) -> None:
    """100 events at a time."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUBLISH)
    batches = Batches(100, namespace=NAMESPACE, source="/bench/traffic")
    for number in itertools.count():
        call(batches.at(number), timeout=10)


def registrations(channel: grpc.Channel) -> None:
    """Instances change their weight."""
    stub = registry_pb2_grpc.RegistryServiceStub(channel)
    for number in itertools.count():
        changed = instance(WORLD, number % 1_000, weight=1 + number % 9_999)
        request = registry_pb2.RegisterRequest(
            instance=convert.instance_to(changed), lease_secret=secret(number % 1_000)
        )
        request.ttl.FromSeconds(30)
        stub.Register(request, timeout=10)


def keep_alives(channel: grpc.Channel) -> None:
    """A thousand leases at a time."""
    stub = registry_pb2_grpc.RegistryServiceStub(channel)
    ids = [lease_id_of(instance(WORLD, number).key, secret(number)) for number in range(1_000)]
    while True:
        stub.KeepAliveOnce(registry_pb2.KeepAliveOnceRequest(lease_ids=ids), timeout=10)


def until_gone(work: Callable[[grpc.Channel], None], channel: grpc.Channel) -> None:
    """The server's end is what ends this."""
    try:
        work(channel)
    except grpc.RpcError:
        return


def main(address: str) -> None:
    """Run all of it."""
    with grpc.insecure_channel(address) as channel:
        threads = [
            Thread(target=until_gone, args=(work, channel))
            for work in (publishes, publishes, registrations, keep_alives)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
