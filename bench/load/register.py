"""Register of new instances, durable, beside etcd's Put of new keys with values as long as our record."""

from __future__ import annotations

import os
from pathlib import Path

import grpc

from bench.load.batches import NUMBER
from bench.load.client.unary import Calls, call
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import NATIVE, Server, called
from bench.load.world import World, instance, secret
from bench.peers import etcd
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api import convert
from trunkline.api.v1 import admin_pb2, admin_pb2_grpc, registry_pb2

CONNECTIONS, STREAMS = 8, 50
REGISTER = "/trunkline.api.v1.RegistryService/Register"
WORLD = World(services=100, ttl_ms=300_000)


def requests() -> list[bytes]:
    """One for each service. The id of the instance bears NUMBER: no other call registers the same."""
    return [request(number) for number in range(WORLD.services)]


def request(number: int) -> bytes:
    """The registration of an instance."""
    wanted = registry_pb2.RegisterRequest(
        instance=convert.instance_to(instance(WORLD, number)), lease_secret=secret(number)
    )
    wanted.instance.id = f"instance-{NUMBER.decode()}"
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
            f"Register, FSYNCED, {called(NATIVE)}, {CONNECTIONS} x {STREAMS} streams",
            ours,
            "calls/s",
            peer="etcd: Put of as many bytes, GOMAXPROCS=1",
            peer_values=theirs,
            gate="ratio >= 0.5",
            goal="ratio >= 1",
        )
    ]


def our_rates(folder: Path, seconds: float, repetitions: int) -> list[float]:
    """And what was answered is there."""
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready()
        calls = Calls(path=REGISTER, bodies=requests(), connections=CONNECTIONS, streams=STREAMS)
        answers = call(address, calls, seconds=seconds, repetitions=repetitions)
        with grpc.insecure_channel(address) as channel:
            status = admin_pb2_grpc.AdminServiceStub(channel).Status(admin_pb2.StatusRequest(), timeout=30)
        assert status.instances >= answers.answered, "every registration is another instance"
        return answers.rates


def etcd_rates(folder: Path, seconds: float, repetitions: int) -> list[float]:
    """The same of etcd; empty when it is not there."""
    with etcd.etcd(folder, core=SERVER_CORE) as address:
        if address is None:
            return []
        body = etcd.put_request(b"instance-" + NUMBER, bytes(len(request(0))))
        calls = Calls(path=etcd.PUT, bodies=[body], connections=CONNECTIONS, streams=STREAMS)
        return call(address, calls, seconds=seconds, repetitions=repetitions).rates
