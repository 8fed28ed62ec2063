"""SIGKILL under load, and how long until the next start serves.

The data folder is made by the shipped control plane in one process. Then a server starts on it, 10,000 deliveries are
opened, traffic runs, and it gets SIGKILL. Measured is from the start of the next process (the interpreter included) to
the answers of a Resolve and a Fetch. Then the same beside as many durable subscriptions as a stream may have.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import grpc

from bench.load.batches import TOPICS
from bench.load.process import Process, running
from bench.load.server import Server
from bench.load.world import NAMESPACE, SUBSCRIPTION, World, build
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    discovery_pb2,
    discovery_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
)
from trunkline.server.events.subscriptions import SubscriptionsConfig
from trunkline.server.journal.control.node import ControlConfig

OPEN = 10_000
TRAFFIC_S = 1.5
TTL_MS = 300_000
CHANGED = ControlConfig().snapshot_records - 5_000
"""Records to be replayed. With as many as make a snapshot due, or with what the traffic adds, the server would take one
before it is killed, and nothing would be left."""
FURTHER = SubscriptionsConfig().subscriptions_per_stream_max - 1
"""Durable subscriptions beside that of the World."""
MAKING = 8
"""At a time."""


def world(quick: bool) -> World:
    """What the server had before it was killed; a tenth for a quick look."""
    scale = 10 if quick else 1
    return World(
        instances=100_000 // scale,
        services=1_000 // scale,
        ttl_ms=TTL_MS,
        changed=CHANGED // scale,
        events=10_000_000 // scale,
        subscription=True,
    )


def open_deliveries(address: str, count: int) -> None:
    """Fetch twice as many and acknowledge every other one, so that what is open has gaps."""
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        stub = events_pb2_grpc.EventServiceStub(channel)
        left = 2 * count
        while left:
            request = events_pb2.FetchRequest(
                namespace=NAMESPACE, subscription=SUBSCRIPTION, max_events=min(left, 10_000), max_bytes=16 << 20
            )
            offsets = [delivery.offset for delivery in stub.Fetch(request, timeout=60).deliveries]
            assert offsets, "there are events to fetch"
            done = events_pb2.AcknowledgeRequest(namespace=NAMESPACE, subscription=SUBSCRIPTION)
            done.acknowledgements.add(outcome=events_pb2.Acknowledgement.OUTCOME_ACK, offsets=offsets[::2])
            stub.Acknowledge(done, timeout=60)
            left -= len(offsets)


def make_subscription(stub: events_pb2_grpc.EventServiceStub, number: int) -> None:
    """One with a filter, of which more than that it exists has to be kept: an event is done, and others are open."""
    name = further(number)
    made = events_pb2.CreateSubscriptionRequest(namespace=NAMESPACE, name=name)
    made.config.filters.append(f"orders.created.{number % TOPICS:02}")
    made.config.start.earliest = True
    stub.CreateSubscription(made, timeout=60)
    fetch = events_pb2.FetchRequest(namespace=NAMESPACE, subscription=name, max_events=4)
    offsets = [delivery.offset for delivery in stub.Fetch(fetch, timeout=60).deliveries]
    assert offsets, "there are events to fetch"
    done = events_pb2.AcknowledgeRequest(namespace=NAMESPACE, subscription=name)
    done.acknowledgements.add(outcome=events_pb2.Acknowledgement.OUTCOME_ACK, offsets=offsets[::2])
    stub.Acknowledge(done, timeout=60)


def further(number: int) -> str:
    """The name of one."""
    return f"further-{number:04}"


def make_subscriptions(address: str, count: int) -> None:
    """Those that are there already go on."""
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(MAKING) as threads:
        stub = events_pb2_grpc.EventServiceStub(channel)
        list(threads.map(lambda number: make_subscription(stub, number), range(count)))


def kill_under_load(folder: Path, deliveries: int, subscriptions: int) -> None:
    """Start, open deliveries, run traffic, SIGKILL."""
    server = Server(folder)
    with running(server):
        address = server.ready(within_s=120)
        open_deliveries(address, deliveries)
        make_subscriptions(address, subscriptions)
        traffic = Process([sys.executable, "-m", "bench.load.traffic", address], folder / "traffic.log")
        with running(traffic):
            time.sleep(TRAFFIC_S)
            assert traffic.process.poll() is None, traffic.output.read_text()
            server.kill()


class Restart(NamedTuple):
    """Seconds from the start of the process."""

    ready_s: float
    """Until it says that it is ready ..."""
    cpu_s: float
    """... and the CPU time that took."""
    served_s: float
    """Until a Resolve and a Fetch are answered."""


def restart(folder: Path, made: World, subscriptions: int) -> Restart:
    """Start on what is in the folder, and ask."""
    server = Server(folder)
    with running(server):
        address = server.ready(within_s=120)
        ready_s, cpu_s = time.monotonic() - server.started, server.cpu_s()
        with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
            resolve = discovery_pb2.ResolveRequest(namespace=NAMESPACE, service="service-0001")
            answer = discovery_pb2_grpc.DiscoveryServiceStub(channel).Resolve(resolve, timeout=60)
            fetch = events_pb2.FetchRequest(namespace=NAMESPACE, subscription=SUBSCRIPTION, max_events=100)
            fetched = events_pb2_grpc.EventServiceStub(channel).Fetch(fetch, timeout=60)
            served_s = time.monotonic() - server.started
            assert len(answer.instances) == made.instances // made.services, "a Resolve shows what was registered"
            assert len(fetched.deliveries) == 100, "what was open is delivered again"
            status = admin_pb2_grpc.AdminServiceStub(channel).Status(admin_pb2.StatusRequest(), timeout=60)
            assert status.instances == made.instances, status
            behind = status.header.revision - snapshot_revision(folder)
            assert behind >= made.changed, f"{behind} records were behind the snapshot"
            assert begun_subscriptions(channel) == subscriptions, "each has its filter, and where it was"
    return Restart(ready_s, cpu_s, served_s)


def begun_subscriptions(channel: grpc.Channel) -> int:
    """How many of the further subscriptions have a filter, and have done the first event for it."""
    asked = events_pb2.ListSubscriptionsRequest(namespace=NAMESPACE)
    states = events_pb2_grpc.EventServiceStub(channel).ListSubscriptions(asked, timeout=60).subscriptions
    return sum(state.name != SUBSCRIPTION and len(state.config.filters) == 1 and state.floor > 0 for state in states)


def snapshot_revision(folder: Path) -> int:
    """Of the newest snapshot: its name begins with it."""
    return max(int(path.name.partition("-")[0]) for path in (folder / "data" / "snapshots").glob("*.snapshot"))


def rows(quick: bool) -> list[Row]:
    """The gate, and the part of it that the server sees."""
    made = world(quick)
    open_count, count = (OPEN // 10, FURTHER // 10) if quick else (OPEN, FURTHER)
    restarts, beside = [], []
    with scratch_folder() as folder:
        build(folder / "data", made, timeout_s=400)
        for _ in range(1 if quick else 3):
            kill_under_load(folder, open_count, 0)
            restarts.append(restart(folder, made, 0))
        for _ in range(1 if quick else 2):  # a snapshot may be due by now
            kill_under_load(folder, open_count, count)
            beside.append(restart(folder, replace(made, changed=0), count))
    what = (
        f"after SIGKILL under load: {made.instances:,} instances, {made.events // 1_000_000} M events, "
        f"{min(made.events, 1_000_000):,} ids, {open_count:,} open deliveries, more than {made.changed:,} records replayed"
    )
    served = [one.served_s for one in restarts]
    return [
        row("restart", f"to answers of Resolve and Fetch {what}", served, "s", gate="value <= 5 s", goal="value <= 2 s"),
        row("restart", "to 'is ready' of the same", [one.ready_s for one in restarts], "s"),
        row("restart", "CPU time until then: what it takes on a machine that does nothing else",
            [one.cpu_s for one in restarts], "s"),
        row("restart", f"to answers of Resolve and Fetch beside {count + 1:,} durable subscriptions, each with a checkpoint, "
            f"{count:,} with a filter: {made.instances:,} instances, {made.events // 1_000_000} M events",
            [one.served_s for one in beside], "s", gate="value <= 5 s"),
        row("restart", "CPU time until 'is ready' beside those subscriptions", [one.cpu_s for one in beside], "s"),
    ]  # fmt: skip
