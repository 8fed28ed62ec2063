"""A server that stands still for longer than the leases' TTL: it was the one that was away, not they."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from integration.acknowledged import NAMESPACE, Plane, plain
from integration.processes import serving
from integration.waiting import until

from trunkline.api import convert
from trunkline.api.v1 import admin_pb2, common_pb2, registry_pb2
from trunkline.client import connect

TTL_S = 1
STOPPED_S = 3.0 * TTL_S
INSTANCES = 20


async def ended(plane: Plane, since: int) -> dict[str, str]:
    """Instance id to what became of it since a revision, of those that only changed for the worse."""
    request = admin_pb2.HistoryRequest(namespace=NAMESPACE, since_revision=since, max_changes=10_000)
    answer = await plane.admin.History(request, timeout=10)
    return {change.instance.id: change.what for change in answer.changes}


async def register_mute(plane: Plane) -> None:
    """An instance that nobody keeps alive."""
    instance = common_pb2.Instance(
        namespace=NAMESPACE, service="orders", id="mute", endpoints=[common_pb2.Endpoint(host="127.0.0.1", port=1)]
    )
    request = registry_pb2.RegisterRequest(instance=instance, lease_secret=bytes(16), ttl=convert.ms_to(TTL_S * 1_000))
    await plane.registry.Register(request, timeout=10)


async def test_no_live_instance_expires_while_the_server_is_stopped(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with plain(server.address) as plane, connect(server.address) as trunkline:
            for number in range(INSTANCES):
                await trunkline.register("orders", id=f"o-{number}", port=1, ttl_s=TTL_S, drain_limit_s=0)
            view = await trunkline.watch("orders")
            await register_mute(plane)
            registered_at = time.monotonic()
            await until(lambda: len(view.instances) == INSTANCES + 1)
            since = view.revision
            assert server.process is not None
            server.process.send_signal(signal.SIGSTOP)
            lived_s = time.monotonic() - registered_at
            await asyncio.sleep(STOPPED_S)
            server.process.send_signal(signal.SIGCONT)
            went_on_at = time.monotonic()
            assert await ended(plane, since) == {}, "nobody's lease ran out while no keep-alive could be read"
            await until(lambda: len(view.instances) == INSTANCES, within_s=TTL_S + 10)
            lived_s += time.monotonic() - went_on_at
            assert lived_s > TTL_S - 0.05, "the time that the server stood still is nobody's silence"
            assert {one.instance.id for one in view.instances} == {f"o-{n}" for n in range(INSTANCES)}
            assert set(await ended(plane, since)) == {"mute"}, "and who is dead is found out all the same"
