"""Register of new instances, durable, beside etcd's Put of new keys with values as long as our record."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc

from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import Server
from bench.load.unary import Load, rates
from bench.load.world import World, instance, secret
from bench.peers import etcd
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api import convert
from trunkline.api.v1 import admin_pb2, admin_pb2_grpc, registry_pb2

CONNECTIONS, STREAMS = 8, 50
REGISTER = "/trunkline.api.v1.RegistryService/Register"
WORLD = World(services=100, ttl_ms=300_000)


def request(number: int) -> bytes:
    """The registration of an instance that no other number has."""
    wanted = registry_pb2.RegisterRequest(
        instance=convert.instance_to(instance(WORLD, number)), lease_secret=secret(number)
    )
    wanted.ttl.FromMilliseconds(WORLD.ttl_ms)
    return wanted.SerializeToString()


def rows(quick: bool) -> list[Row]:
    """Answers a second; every one is a record that is synced."""
    seconds, repetitions = (0.5, 3) if quick else (1.5, 5)
    os.sched_setaffinity(0, {LOAD_CORE})
    with scratch_folder() as folder:
        ours = our_rates(folder, seconds, repetitions)
        theirs = etcd_rates(folder, seconds, repetitions)
    return [
        row(
            "register",
            f"Register, FSYNCED, grpc.aio, {CONNECTIONS} x {STREAMS} streams",
            ours,
            "calls/s",
            peer="etcd: Put of as many bytes, GOMAXPROCS=1",
            peer_values=theirs,
            goal="ratio >= 1",
        )
    ]


def our_rates(folder: Path, seconds: float, repetitions: int) -> list[float]:
    """And what was answered is there."""
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready()
        load = Load(REGISTER, request, CONNECTIONS, STREAMS)
        found = asyncio.run(rates(address, load, seconds=seconds, repetitions=repetitions))
        with grpc.insecure_channel(address) as channel:
            status = admin_pb2_grpc.AdminServiceStub(channel).Status(admin_pb2.StatusRequest(), timeout=30)
        assert status.instances >= sum(found) * seconds * 0.9, "every registration is another instance"
        return found


def etcd_rates(folder: Path, seconds: float, repetitions: int) -> list[float]:
    """The same of etcd; empty when it is not there."""
    value = bytes(len(request(0)))
    with etcd.etcd(folder, core=SERVER_CORE) as address:
        if address is None:
            return []
        load = Load(etcd.PUT, lambda number: etcd.put_request(b"instance-%08d" % number, value), CONNECTIONS, STREAMS)
        return asyncio.run(rates(address, load, seconds=seconds, repetitions=repetitions))
