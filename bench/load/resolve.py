"""Unary Resolve of a small service: the same servicer behind both transports, and etcd's serializable Range whose answer
is as long."""

from __future__ import annotations

import os
from pathlib import Path

import grpc

from bench.load.client.build import has_tls
from bench.load.client.unary import Calls, call
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import GRPCIO, NATIVE, Server, Tls
from bench.load.world import NAMESPACE, World, instance, secret
from bench.peers import etcd
from bench.row import Row, row
from bench.runner import scratch_folder
from bench.say import say
from trunkline.api import convert
from trunkline.api.v1 import discovery_pb2, discovery_pb2_grpc, registry_pb2, registry_pb2_grpc

INSTANCES = 3
SHAPES = ((1, 50), (8, 50))
"""Connections, streams each."""
RESOLVE = "/trunkline.api.v1.DiscoveryService/Resolve"
REQUEST = discovery_pb2.ResolveRequest(namespace=NAMESPACE, service="service-0000")
WORLD = World(ttl_ms=300_000)
Rates = dict[tuple[int, int], list[float]]
"""Answers a second, by shape."""


def rows(quick: bool) -> list[Row]:
    """Answers a second."""
    seconds, repetitions = (0.5, 3) if quick else (1.5, 5)
    os.sched_setaffinity(0, {LOAD_CORE})
    with scratch_folder() as folder:
        size, native = our_rates(folder / "native", NATIVE, seconds, repetitions)
        _, grpcio = our_rates(folder / "grpcio", GRPCIO, seconds, repetitions)
        theirs = etcd_rates(folder, size, seconds, repetitions)
        native_tls, grpcio_tls = tls_rates(folder, seconds, repetitions)
    compared: list[tuple[str, Rates, str, Rates, str]] = [
        ("native", native, "the same servicer on grpc.aio", grpcio, "ratio >= 15"),
        ("native", native, "etcd: serializable Range of as many bytes, GOMAXPROCS=1", theirs, "ratio >= 4"),
        ("native, TLS", native_tls, "the same servicer on grpc.aio, TLS", grpcio_tls, "ratio >= 8"),
    ]
    return [
        row(
            "resolve",
            f"Resolve of {INSTANCES} instances ({size} B), {what}, {shape[0]} x {shape[1]} streams",
            ours[shape],
            "calls/s",
            peer=peer,
            peer_values=peers.get(shape, ()),
            gate=gate,
        )
        for what, ours, peer, peers, gate in compared
        for shape in SHAPES
        if shape in ours
    ]


def tls_rates(folder: Path, seconds: float, repetitions: int) -> tuple[Rates, Rates]:
    """Of both transports; empty when the load client has no TLS."""
    if not has_tls():
        say("no calls over TLS: skipped")
        return {}, {}
    _, native = our_rates(folder / "native-tls", NATIVE, seconds, repetitions, tls=True)
    _, grpcio = our_rates(folder / "grpcio-tls", GRPCIO, seconds, repetitions, tls=True)
    return native, grpcio


def our_rates(
    folder: Path, transport: str, seconds: float, repetitions: int, *, tls: bool = False
) -> tuple[int, Rates]:
    """How long an answer is, and answers a second."""
    folder.mkdir()
    keys = Tls.make(folder / "keys") if tls else None
    options = () if keys is None else keys.options
    with running(Server(folder, *options, transport=transport, core=SERVER_CORE)) as server:
        address = server.ready()
        with grpc.insecure_channel(address) if keys is None else keys.channel(address) as channel:
            register_all(channel)
            answer = discovery_pb2_grpc.DiscoveryServiceStub(channel).Resolve(REQUEST, timeout=10)
        found = shapes(address, RESOLVE, REQUEST.SerializeToString(), seconds, repetitions, tls=tls)
        return answer.ByteSize(), found


def register_all(channel: grpc.Channel) -> None:
    """The instances that are resolved."""
    register = registry_pb2_grpc.RegistryServiceStub(channel).Register
    for number in range(INSTANCES):
        wanted = registry_pb2.RegisterRequest(
            instance=convert.instance_to(instance(WORLD, number)), lease_secret=secret(number)
        )
        wanted.ttl.FromMilliseconds(WORLD.ttl_ms)
        register(wanted, timeout=10)


def shapes(address: str, path: str, body: bytes, seconds: float, repetitions: int, *, tls: bool = False) -> Rates:
    """The same call in every shape."""
    return {
        (connections, streams): call(
            address,
            Calls(path=path, bodies=[body], connections=connections, streams=streams, tls=tls),
            seconds=seconds,
            repetitions=repetitions,
        ).rates
        for connections, streams in SHAPES
    }


def etcd_rates(folder: Path, size: int, seconds: float, repetitions: int) -> Rates:
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
        return shapes(address, etcd.RANGE, request, seconds, repetitions)
