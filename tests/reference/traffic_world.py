"""A whole control plane on the memory engine, in virtual time, for tests of policies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from reference.registry_world import LoopClock
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.clock import Rng
from trunkline.core.model import Endpoint, Instance, Registration, Sync
from trunkline.server.admin.about import About
from trunkline.server.events.streams import Promise
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.journal.memory import MemoryEngine
from trunkline.server.plane import ControlPlane, PlaneConfig

BY = Origin(author="token/ops", reason="a test")


def policy(service: str = "cart", namespace: str = "default", **sections: Any) -> TrafficPolicy:
    """A policy with these sections."""
    return TrafficPolicy(namespace=namespace, service=service, **sections)


class World:
    """Its engine outlives restarts."""

    def __init__(self, config: PlaneConfig | None = None) -> None:
        self.clock = LoopClock()
        self.config = config or PlaneConfig()
        self.rng = Rng(1)
        self.engine = MemoryEngine(self.clock, self.rng, offers=Sync.FSYNCED)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ControlPlane]:
        """From start to stop; may be entered again."""
        plane = ControlPlane(
            self.engine, self.clock, self.rng, entropy=self.rng.bytes, config=self.config,
            about=About(version="0", transport="none", data_folder="", started_ns=0),
            loopback_is_open=True, promise=Promise(),
        )  # fmt: skip
        await plane.open()
        running = asyncio.create_task(plane.run())
        await plane.reached()
        try:
            yield plane
            assert not running.done(), running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def register(plane: ControlPlane, service: str, ids: Sequence[str], *, version: str = "1.0.0") -> None:
    """Instances that live for some minutes."""
    for instance_id in ids:
        number = sum(instance_id.encode()) % 250
        instance = Instance(
            namespace="default", service=service, id=instance_id, version=version,
            endpoints=(Endpoint(f"10.0.{len(instance_id)}.{number}", 8080),),
        )  # fmt: skip
        await plane.registry.register(Registration(instance, instance_id.encode().ljust(16, b"."), 300_000), BY)
