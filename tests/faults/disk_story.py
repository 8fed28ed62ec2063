"""The same story for every way in which a disk can fail: refuse clearly, go on reading, come back, lose nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from integration.acknowledged import NAMESPACE, Ledger, Plane, audit, insist, plain
from integration.processes import Server

from trunkline.api import convert
from trunkline.api.v1 import admin_pb2, common_pb2, discovery_pb2, events_pb2, registry_pb2
from trunkline.client import Event, connect

RECOVERED_WITHIN_S = 20
FAT = {f"fat-{n}": "x" * 250 for n in range(60)}
"""Labels that do not fit into what is left of a full disk's last page."""


def one_event(id: str, size: int = 20_000) -> events_pb2.PublishRequest:
    event = events_pb2.CloudEvent(
        id=id, source="/faults", spec_version="1.0", type="fault.seen", binary_data=os.urandom(size)
    )
    return events_pb2.PublishRequest(namespace=NAMESPACE, events=[event])


async def refusal(method: Any, request: Any) -> tuple[grpc.StatusCode, str, str] | None:
    """Status, reason and message of a refused call; None when it was answered."""
    try:
        await method(request, timeout=15)
    except grpc.aio.AioRpcError as error:
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        info = error_details_pb2.ErrorInfo()
        for detail in status_pb2.Status.FromString(bytes(details)).details:
            detail.Unpack(info)
        return error.code(), info.reason, error.details() or ""
    return None


def registration(id: str, **labels: str) -> registry_pb2.RegisterRequest:
    return registry_pb2.RegisterRequest(
        instance=common_pb2.Instance(
            namespace=NAMESPACE, service="faults", id=id, version="1.2.3", labels={"born": id, **labels},
            endpoints=[common_pb2.Endpoint(host="127.0.0.1", port=1)],
        ),
        lease_secret=b"0123456789abcdef",
        ttl=convert.ms_to(300_000),
    )  # fmt: skip


async def before(address: str, ledger: Ledger) -> None:
    """Something acknowledged."""
    async with plain(address) as plane, connect(address, name="faults") as trunkline:
        for number in range(20):
            answer = await plane.registry.Register(registration(f"kept-{number}"), timeout=10)
            ledger.instances["faults", f"kept-{number}"] = answer.lease_id
            ledger.meet(answer.header)
        events = [Event(type="kept", id=f"kept-{n}", source="/faults", data=os.urandom(100)) for n in range(200)]
        ledger.sent.update((event.id, event) for event in events)
        ledger.publish(await trunkline.publish(events))


async def during(plane: Plane, ledger: Ledger, *, reasons: set[str]) -> None:
    """Writes are refused with one of these reasons, as UNAVAILABLE; reading and keeping alive go on."""
    for attempt in range(3):
        refused = await refusal(plane.events.Publish, one_event(f"refused-{attempt}"))
        assert refused is not None, "published to a broken disk"
        assert refused[0] is grpc.StatusCode.UNAVAILABLE, refused
        assert refused[1] in reasons, refused
        assert refused[2], "the refusal says nothing"
    refused = await refusal(plane.registry.Register, registration("new", **FAT))
    assert refused is not None, "registered on a broken disk"
    assert refused[0] is grpc.StatusCode.UNAVAILABLE, refused
    assert refused[1] in reasons | {"NOT_READY"}, refused
    resolve = discovery_pb2.ResolveRequest(namespace=NAMESPACE, service="faults")
    resolved = await plane.discovery.Resolve(resolve, timeout=10)
    assert len(resolved.instances) == 20
    leases = registry_pb2.KeepAliveOnceRequest(lease_ids=ledger.instances.values())
    assert (await plane.registry.KeepAliveOnce(leases, timeout=10)).renewed == 20
    assert await read_back(plane) >= 200
    status = await plane.admin.Status(admin_pb2.StatusRequest(), timeout=10)
    assert status.header.revision


async def read_back(plane: Plane) -> int:
    """Events that a new consumer is given."""
    call = plane.events.Subscribe()
    await call.write(events_pb2.SubscribeRequest(open=events_pb2.OpenSubscription(
        subscription_id=1, namespace=NAMESPACE, credit=200, no_acknowledgement=True,
        config=events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True)),
    )))  # fmt: skip
    count = 0
    async with asyncio.timeout(10):
        while count < 200:
            count += len((await call.read()).deliveries)
    call.cancel()
    return count


async def after(address: str, ledger: Ledger) -> float:
    """Writes are taken again; how long that took."""
    begun = time.monotonic()
    async with plain(address) as plane, asyncio.timeout(RECOVERED_WITHIN_S):
        for attempt in range(3):  # repeats of what was refused: kept once, whatever became of them then
            await insist(plane.events.Publish, one_event(f"refused-{attempt}"))
        await insist(plane.registry.Register, registration("new", **FAT))
    return time.monotonic() - begun


async def story(server: Server, *, breaks: Callable[[], None], mend: Callable[[], None], reasons: set[str]) -> float:
    """Break, look, mend, look, SIGKILL, look; how long the recovery took."""
    ledger = Ledger()
    await before(server.address, ledger)
    breaks()
    async with plain(server.address) as plane:
        await during(plane, ledger, reasons=reasons)
    mend()
    took_s = await after(server.address, ledger)
    assert await audit(server.address, ledger) == []
    server.kill()
    await asyncio.to_thread(server.start)
    assert await audit(server.address, ledger) == []
    return took_s
