"""What a golden journal records: one control plane through two starts, with every kind of control record.

Time, chance and disk are virtual, so that the same code writes the same bytes. The second start ends as a killed process
does: without a snapshot, a final checkpoint or a clean mark.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from simulation.sim_disk import SimDisk

from reference.events_world import event, publish_request
from reference.registry_world import LoopClock
from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import admin_pb2, common_pb2, events_pb2, schedules_pb2
from trunkline.api.v1.policy_pb2 import Limits, TrafficPolicy
from trunkline.core.clock import Rng
from trunkline.core.model import Endpoint, GrpcHealthCheck, Instance, Locality, Registration, Status
from trunkline.core.records import Change
from trunkline.core.wire import scan_publish
from trunkline.server.admin.about import About
from trunkline.server.events.compaction import CompactionConfig, Compactor
from trunkline.server.events.feed import Feed
from trunkline.server.events.streams import Promise
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.plane import ControlPlane, PlaneConfig
from trunkline.server.registry.entity import InstanceKey
from trunkline.server.registry.reduce import MOVED
from trunkline.server.registry.registry import Reference, Registered, Registry
from trunkline.server.security.principal import Principal, Role, Via
from trunkline.server.traffic.traffic import Wish

FOLDER = "/journal"
NAMESPACE = "shop"
HOLDER = Origin(author="service:orders", traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
OPERATOR = Origin(author="token:ops", reason="deploy 14", request_id="deploy-14")
OPS = Principal(name="token:ops", role=Role.ADMIN, via=Via.TOKEN)
EARLIEST = events_pb2.StartPosition(earliest=True)
Ack = events_pb2.Acknowledgement


class FlakyProbe:
    """Finds an instance ill for a while."""

    def __init__(self) -> None:
        self.failing = False

    async def check(self, endpoint: Endpoint, service: str, *, timeout_ms: int) -> str | None:
        return "NOT_SERVING" if self.failing else None

    async def close(self) -> None:
        """Nothing is open."""


def instance(service: str, instance_id: str, *, probed: bool = False, version: str = "1.4.0") -> Instance:
    """One with everything that an instance can say."""
    return Instance(
        namespace=NAMESPACE,
        service=service,
        id=instance_id,
        version=version,
        endpoints=(Endpoint("10.0.0.7", 8080), Endpoint("fd00::7", 8443, "http")),
        weight=250,
        locality=Locality("eu", "eu-1", "rack-3"),
        labels={"team": "checkout", "env": "prod"},
        health_check=GrpcHealthCheck(service="shop.Orders", interval_ms=1_000) if probed else None,
    )


@asynccontextmanager
async def started(disk: SimDisk, *, epoch: int, probe: FlakyProbe, crash: bool = False) -> AsyncIterator[ControlPlane]:
    """A control plane from start to stop, or to a sudden end."""
    clock, rng = LoopClock(), Rng(epoch)
    engine = SegmentEngine(FOLDER, disk, clock, rng)
    await engine.open()
    plane = ControlPlane(
        engine, clock, rng, entropy=rng.bytes, config=PlaneConfig(),
        about=About(version="0.1.0", transport="none", data_folder=FOLDER, started_ns=0),
        loopback_is_open=True, promise=Promise(), probe=probe,
    )  # fmt: skip
    await plane.open()
    running = asyncio.create_task(plane.run())
    await plane.reached()
    try:
        yield plane
        assert not running.done(), running
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        if crash:
            disk.kill()
        else:
            await plane.close()


async def register(
    registry: Registry, declared: Instance, *, secret: bytes = b"", take_over: bool = False
) -> Registered:
    """Its TTL is 2 s, so that lapsing takes little time."""
    wanted = Registration(declared, secret or declared.id.encode().ljust(16, b"."), 2_000, take_over)
    return await registry.register(wanted, HOLDER)


async def publish(plane: ControlPlane, *ids: str, stream: str = "", topic: str = "order.placed") -> None:
    """Small events with a key and a topic of their own."""
    scan = scan_publish(publish_request([event(one, topic=topic) for one in ids], stream=stream), stream_request=False)
    found = await plane.events.streams.get(scan.namespace, scan.stream, HOLDER)
    await found.publish(scan, require_sync=0)


async def fetch(plane: ControlPlane, feed: Feed, count: int) -> list[int]:
    """Offsets of the deliveries that a consumer took."""
    pieces = await plane.events.subscriptions.fetch(feed, max_events=count, max_bytes=0, wait_ns=0, client="billing-1")
    return [d.offset for d in events_pb2.FetchResponse.FromString(b"".join(pieces)).deliveries]


async def keep_alive(registry: Registry, leases: Sequence[int], *, for_s: float) -> None:
    """Hold these leases for a while; the others lapse."""
    loop = asyncio.get_running_loop()
    until = loop.time() + for_s
    while loop.time() < until:
        registry.keep_alive(leases)
        await asyncio.sleep(0.5)


async def register_and_operate(plane: ControlPlane) -> list[int]:
    """Registrations, an override set and taken back, a take-over, a drain, a removal. Returns the leases to hold."""
    registry = plane.registry
    one = await register(registry, instance("orders", "orders-1", probed=True))
    await register(registry, instance("orders", "orders-2", version="2.0.0-rc.1"))
    await register(registry, instance("orders", "orders-3"))
    key = InstanceKey(NAMESPACE, "orders", "orders-2")
    await registry.set_override(key, Status.NOT_SERVING, OPERATOR)
    await registry.set_override(key, None, Origin(author="token:ops", reason="deploy 14 is done"))
    await registry.set_override(key, Status.DEGRADED, Origin(author="token:ops", reason="slow disk"))
    two = await register(registry, instance("orders", "orders-2"), secret=b"another holder's", take_over=True)
    reference = Reference(namespace=NAMESPACE, service="orders", instance_id="orders-3")
    await registry.drain(reference, HOLDER, limit_ns=0)
    await registry.deregister(reference, HOLDER)
    return [one.lease_id, two.lease_id]


async def lapse_and_restore(plane: ControlPlane, held: Sequence[int], probe: FlakyProbe) -> None:
    """A probe that fails and passes again; one lease that expires, one that lapses, is heard of, and is moved."""
    registry = plane.registry
    lonely = await register(registry, instance("mailer", "mailer-1"))
    await register(registry, instance("orders", "orders-4"))
    probe.failing = True
    await keep_alive(registry, held, for_s=6)
    probe.failing = False
    await keep_alive(registry, [*held, lonely.lease_id], for_s=4)
    moved = control_pb2.LeaseMoved(lease_id=lonely.lease_id, keeper=plane.engine.node_id)
    change = Change(
        topic=MOVED, key=f"instance/{NAMESPACE}/mailer/mailer-1", body=moved.SerializeToString(), namespace=NAMESPACE
    )
    await plane.control.sequencer.write(lambda _view: [change], HOLDER)


async def make_streams_and_tokens(plane: ControlPlane) -> None:
    """Streams, subscriptions and tokens that stay, and one of each that goes."""
    streams, subscriptions = plane.events.streams, plane.events.subscriptions
    audit = events_pb2.StreamConfig(
        namespace=NAMESPACE, name="audit", sync=common_pb2.SYNC_WRITTEN, max_records=1_000_000, dedupe_ids=100
    )
    audit.max_age.FromSeconds(86_400 * 365 * 90)
    await streams.create(audit, Origin(author="token:ops", request_id="make-audit"))
    await streams.create(events_pb2.StreamConfig(namespace=NAMESPACE, name="scratch"), HOLDER)
    stream = await streams.get(NAMESPACE, "", HOLDER)
    await subscriptions.create(
        stream, "billing", events_pb2.SubscriptionConfig(start=EARLIEST, filters=["order.>"]), HOLDER
    )
    await subscriptions.create(stream, "gone", events_pb2.SubscriptionConfig(), HOLDER)
    await subscriptions.delete(NAMESPACE, "events", "gone", HOLDER)
    await streams.delete(NAMESPACE, "scratch", HOLDER)
    kept = admin_pb2.CreateTokenRequest(
        role=admin_pb2.ROLE_SERVICE, namespaces=[NAMESPACE], topic_filters=["order.>"], description="orders"
    )
    kept.valid_for.FromSeconds(86_400 * 365 * 90)
    await plane.tokens.create(OPS, kept)
    revoked = await plane.tokens.create(OPS, admin_pb2.CreateTokenRequest(role=admin_pb2.ROLE_ADMIN))
    await plane.tokens.revoke(OPS, admin_pb2.RevokeTokenRequest(id=revoked.token.id))


async def make_schedules(plane: ControlPlane) -> None:
    """One of each rule, and one that goes. The one time comes while the story is told, and so does one of the interval."""

    async def make(name: str, **rule: Any) -> None:
        template = event("x", topic=f"due.{name}", key=name, data=b"what is due")
        wanted = schedules_pb2.Schedule(namespace=NAMESPACE, name=name, event=template, **rule)
        await plane.schedules.create(wanted, HOLDER, allow=lambda _spec: None)

    soon = convert.time_ns_to((LoopClock().time_ns() // 1_000_000 + 3_000) * 1_000_000)
    await make("once", at=soon)
    fast = schedules_pb2.Schedule.Interval(interval=convert.ms_to(10_000), start=soon)
    await make("often", every=fast, max_count=1_000, misfire=schedules_pb2.Schedule.MISFIRE_SKIP)
    nightly = schedules_pb2.Schedule.Calendar(expression="30 2 * * 1-5", time_zone="Europe/Berlin")
    await make("nightly", cron=nightly, until=convert.time_ns_to(4_000_000_000_000_000_000))
    await make("gone", cron=nightly)
    await plane.schedules.delete(NAMESPACE, "gone", HOLDER, allow=lambda _spec: None)


async def change_policies(plane: ControlPlane) -> None:
    """A namespace's policy, one of a service that is changed, and one that goes."""
    traffic = plane.traffic

    def policy(service: str, most: int) -> TrafficPolicy:
        return TrafficPolicy(namespace=NAMESPACE, service=service, limits=Limits(max_requests=most))

    await traffic.apply(policy("", 1_000), Wish(), HOLDER)
    await traffic.apply(policy("orders", 10), Wish(), HOLDER)
    retried = policy("orders", 20)
    retried.retry.max_attempts = 3
    await traffic.apply(retried, Wish(force=True), OPERATOR._replace(request_id="policy-14"))
    await traffic.apply(policy("gone", 1), Wish(), HOLDER)
    await traffic.delete(NAMESPACE, "gone", Wish(), HOLDER)


async def pass_events(plane: ControlPlane) -> Feed:
    """Events of two streams; deliveries acknowledged, put off, and set aside."""
    stream = await plane.events.streams.get(NAMESPACE, "", HOLDER)
    feed = stream.feeds["billing"]
    await publish(plane, *(f"order-{n}" for n in range(12)))
    await publish(plane, "order-3", "order-12")
    await publish(plane, "mail-1", topic="mail.sent")
    await publish(plane, *(f"audit-{n}" for n in range(5)), stream="audit", topic="audit.entry")
    taken = await fetch(plane, feed, 6)
    feed.settle(Ack.OUTCOME_ACK, [*taken[:2], taken[3]], None)
    feed.settle(Ack.OUTCOME_NACK, [taken[2]], None, delay_ns=3_600_000_000_000)
    feed.settle(Ack.OUTCOME_TERM, [taken[4]], None, reason="no such customer")
    await asyncio.sleep(1)
    return feed


async def compact_prices(plane: ControlPlane) -> None:
    """A stream that is compacted, a subscription that began with the latest of each key, and what came after."""
    streams = plane.events.streams
    prices = events_pb2.StreamConfig(namespace=NAMESPACE, name="prices")
    prices.dedupe_window.SetInParent()
    prices.compaction.min_lag.SetInParent()
    stream, _ = await streams.create(prices, HOLDER)

    async def publish_prices(*keys: str) -> None:
        first = stream.dispatcher.end
        events = [event(f"price-{first + n}", topic="price.set", key=key, data=b"9") for n, key in enumerate(keys)]
        scan = scan_publish(publish_request(events, stream="prices"), stream_request=False)
        await stream.publish(scan, require_sync=0)

    await publish_prices("pears", "plums", "", "apples", "pears", "plums", "apples")
    await asyncio.sleep(1)
    await publish_prices("plums", "figs", "plums")
    await Compactor(lambda: [stream], LoopClock(), CompactionConfig(dirty_bytes_min=0)).compact(stream)
    start = events_pb2.StartPosition(last_per_key=True)
    await plane.events.subscriptions.create(stream, "follower", events_pb2.SubscriptionConfig(start=start), HOLDER)
    await fetch(plane, stream.feeds["follower"], 1)
    await publish_prices("figs", "figs")


async def change_and_number(plane: ControlPlane) -> None:
    """A stream and a subscription that are changed, and events that a producer numbered."""
    streams, updates = plane.events.streams, plane.events.updates
    numbered = events_pb2.StreamConfig(namespace=NAMESPACE, name="numbered")
    stream, _ = await streams.create(numbered, HOLDER)
    for first in (1, 3):
        events = [event(f"numbered-{first + n}", topic="order.placed") for n in range(2)]
        request = publish_request(
            events, stream="numbered", producer="orders-7", producer_epoch=5, first_sequence=first
        )
        await stream.publish(scan_publish(request, stream_request=False), require_sync=0)
    numbered.max_records = 1_000
    await updates.stream(
        events_pb2.UpdateStreamRequest(stream=numbered, update_mask=FieldMask(paths=["max_records"])), HOLDER
    )
    wanted = events_pb2.SubscriptionConfig(max_deliveries=7)
    await updates.subscription(
        events_pb2.UpdateSubscriptionRequest(
            namespace=NAMESPACE, name="billing", config=wanted, update_mask=FieldMask(paths=["max_deliveries"])
        ),
        HOLDER,
    )


async def tell(disk: SimDisk) -> None:
    """The whole story."""
    probe = FlakyProbe()
    async with started(disk, epoch=1, probe=probe) as plane:
        held = await register_and_operate(plane)
        await make_streams_and_tokens(plane)
        await make_schedules(plane)
        await change_policies(plane)
        await pass_events(plane)
        await compact_prices(plane)
        await change_and_number(plane)
        await plane.control.snapshot()
        await lapse_and_restore(plane, held, probe)
    async with started(disk, epoch=2, probe=probe, crash=True) as plane:
        await register(plane.registry, instance("inventory", "inventory-1"))
        await publish(plane, "order-20", "order-21")
        feed = (await plane.events.streams.get(NAMESPACE, "", HOLDER)).feeds["billing"]
        feed.settle(Ack.OUTCOME_ACK, await fetch(plane, feed, 3), None)
        await asyncio.sleep(2.5)
