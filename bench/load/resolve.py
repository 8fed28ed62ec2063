"""Unary Resolve of a small service, beside etcd's serializable Range whose answer is as long."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc

from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import Server
from bench.load.unary import Load, rates
from bench.load.world import NAMESPACE, World, instance, secret
from bench.peers import etcd
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api import convert
from trunkline.api.v1 import discovery_pb2, discovery_pb2_grpc, registry_pb2, registry_pb2_grpc

INSTANCES = 3
SHAPES = ((1, 50), (8, 50))
"""Connections, streams each."""
RESOLVE = "/trunkline.api.v1.DiscoveryService/Resolve"
WORLD = World(ttl_ms=300_000)


def rows(quick: bool) -> list[Row]:
    """Answers a second."""
    seconds, repetitions = (0.5, 3) if quick else (1.5, 5)
    os.sched_setaffinity(0, {LOAD_CORE})
    with scratch_folder() as folder:
        size, ours = our_rates(folder, seconds, repetitions)
        theirs = etcd_rates(folder, size, seconds, repetitions)
    return [
        row(
            "resolve",
            f"Resolve of {INSTANCES} instances ({size} B), grpc.aio, {shape[0]} x {shape[1]} streams",
            ours[shape],
            "calls/s",
            peer="etcd: serializable Range of as many bytes, GOMAXPROCS=1",
            peer_values=theirs.get(shape, ()),
            goal="ratio >= 8",
        )
        for shape in SHAPES
    ]


def our_rates(folder: Path, seconds: float, repetitions: int) -> tuple[int, dict[tuple[int, int], list[float]]]:
    """How long an answer is, and answers a second by shape."""
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready()
        request = discovery_pb2.ResolveRequest(namespace=NAMESPACE, service="service-0000")
        with grpc.insecure_channel(address) as channel:
            register = registry_pb2_grpc.RegistryServiceStub(channel).Register
            for number in range(INSTANCES):
                wanted = registry_pb2.RegisterRequest(
                    instance=convert.instance_to(instance(WORLD, number)), lease_secret=secret(number)
                )
                wanted.ttl.FromMilliseconds(WORLD.ttl_ms)
                register(wanted, timeout=10)
            size = discovery_pb2_grpc.DiscoveryServiceStub(channel).Resolve(request, timeout=10).ByteSize()
        body = request.SerializeToString()
        return size, {
            shape: asyncio.run(
                rates(address, Load(RESOLVE, lambda _: body, *shape), seconds=seconds, repetitions=repetitions)
            )
            for shape in SHAPES
        }


def etcd_rates(folder: Path, size: int, seconds: float, repetitions: int) -> dict[tuple[int, int], list[float]]:
    """The same of etcd; empty when it is not there."""
    with etcd.etcd(folder, core=SERVER_CORE) as address:
        if address is None:
            return {}
        key = b"service-0000"
        request = etcd.range_request(key, serializable=True)
        with grpc.insecure_channel(address) as channel:
            put: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.PUT)
            get: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.RANGE)
            put(etcd.put_request(key, b""), timeout=10)
            around = len(get(request, timeout=10))
            put(etcd.put_request(key, bytes(size - around)), timeout=10)
        return {
            shape: asyncio.run(
                rates(address, Load(etcd.RANGE, lambda _: request, *shape), seconds=seconds, repetitions=repetitions)
            )
            for shape in SHAPES
        }
