"""Unary Resolve of a small service: the same servicer behind both transports, and etcd's serializable Range whose answer
is as long."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
RANGE_OF_AS_MANY = "serializable Range of as many bytes, GOMAXPROCS=1"
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
        with ExitStack() as servers:
            native = servers.enter_context(our_side(folder / "native", NATIVE))
            grpcio = servers.enter_context(our_side(folder / "grpcio", GRPCIO))
            sides = {"native": native, "grpcio": grpcio}
            peer = servers.enter_context(etcd_side(folder, native.answer_bytes))
            if peer is not None:
                sides["etcd"] = peer
            plain = in_turn(sides, seconds, repetitions)
        tls = tls_rates(folder, seconds, repetitions)
    compared: list[tuple[str, Rates, str, Rates, str]] = [
        ("native", plain["native"], "the same servicer on grpc.aio", plain["grpcio"], "ratio >= 15"),
        ("native", plain["native"], f"etcd: {RANGE_OF_AS_MANY}", plain.get("etcd", {}), "ratio >= 4"),
        (
            "native, TLS",
            tls.get("native", {}),
            "the same servicer on grpc.aio, TLS",
            tls.get("grpcio", {}),
            "ratio >= 8",
        ),
    ]
    return [
        row(
            "resolve",
            f"Resolve of {INSTANCES} instances ({native.answer_bytes} B), {what}, {shape[0]} x {shape[1]} streams",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A server that runs, and what it is asked."""

    address: str
    path: str
    body: bytes
    answer_bytes: int
    tls: bool = False


def in_turn(sides: Mapping[str, Side], seconds: float, repetitions: int) -> dict[str, Rates]:
    """Each side's rates. They take turns, so that what else the machine does meets all of them."""
    found: dict[str, Rates] = {name: {shape: [] for shape in SHAPES} for name in sides}
    for connections, streams in SHAPES:
        for _ in range(repetitions):
            for name, side in sides.items():
                calls = Calls(
                    path=side.path, bodies=[side.body], connections=connections, streams=streams, tls=side.tls
                )
                found[name][connections, streams] += call(side.address, calls, seconds=seconds, repetitions=1).rates
    return found


def tls_rates(folder: Path, seconds: float, repetitions: int) -> dict[str, Rates]:
    """Of both transports; empty when the load client has no TLS."""
    if not has_tls():
        say("no calls over TLS: skipped")
        return {}
    with (
        our_side(folder / "native-tls", NATIVE, tls=True) as native,
        our_side(folder / "grpcio-tls", GRPCIO, tls=True) as grpcio,
    ):
        return in_turn({"native": native, "grpcio": grpcio}, seconds, repetitions)


@contextmanager
def our_side(folder: Path, transport: str, *, tls: bool = False) -> Iterator[Side]:
    """A server of ours with the instances."""
    folder.mkdir()
    keys = Tls.make(folder / "keys") if tls else None
    options = () if keys is None else keys.options
    with running(Server(folder, *options, transport=transport, core=SERVER_CORE)) as server:
        address = server.ready()
        with grpc.insecure_channel(address) if keys is None else keys.channel(address) as channel:
            register_all(channel)
            answer = discovery_pb2_grpc.DiscoveryServiceStub(channel).Resolve(REQUEST, timeout=10)
        body = REQUEST.SerializeToString()
        yield Side(address=address, path=RESOLVE, body=body, answer_bytes=answer.ByteSize(), tls=tls)


def register_all(channel: grpc.Channel) -> None:
    """The instances that are resolved."""
    register = registry_pb2_grpc.RegistryServiceStub(channel).Register
    for number in range(INSTANCES):
        wanted = registry_pb2.RegisterRequest(
            instance=convert.instance_to(instance(WORLD, number)), lease_secret=secret(number)
        )
        wanted.ttl.FromMilliseconds(WORLD.ttl_ms)
        register(wanted, timeout=10)


@contextmanager
def etcd_side(folder: Path, size: int) -> Iterator[Side | None]:
    """The same of etcd, with an answer as long; None when it is not there."""
    with etcd.etcd(folder, core=SERVER_CORE) as address:
        if address is None:
            yield None
            return
        key = b"service-0000"
        request = etcd.range_request(key, serializable=True)
        with grpc.insecure_channel(address) as channel:
            put: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.PUT)
            get: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.RANGE)
            put(etcd.put_request(key, b""), timeout=10)
            around = len(get(request, timeout=10))
            put(etcd.put_request(key, bytes(size - around)), timeout=10)
        yield Side(address=address, path=etcd.RANGE, body=request, answer_bytes=size)
