"""A whole control plane in virtual time, with instances of two versions and callers that report what becomes of calls."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from trunkline.api.v1 import releases_pb2
from trunkline.core.model import Endpoint, Instance, Registration
from trunkline.core.policy import StatusCode
from trunkline.core.records import Record
from trunkline.server.plane import PlaneConfig
from trunkline.server.registry.registry import Reference
from trunkline.server.traffic.outcomes import Reported
from trunkline.server.traffic.release import ALL, Phase
from trunkline.server.traffic.release_config import ReleasesConfig

from . import schedules_world
from .registry_world import BY, virtual

NAMESPACE = "shop"
SERVICE = "orders"
OLD, NEW = "1.4.0", "2.0.0"
TTL_MS = 300_000
Action = releases_pb2.SteerReleaseRequest
FAST, SLOW = 20, 40
"""Buckets of latencies."""


Test = Callable[..., Coroutine[Any, Any, None]]


def in_world(**config: Any) -> Callable[[Test], Callable[..., None]]:
    """Give a test a world that runs, in virtual time, with both versions in it. `config` is that of its releases."""

    def decorate(test: Test) -> Callable[..., None]:
        def run(**arguments: Any) -> None:
            async def main() -> None:
                world = World(**config)
                async with world.running():
                    await world.begin()
                    await test(world, **arguments)

            virtual(main)

        # Pytest asks for what stands in the signature, and the world is no fixture.
        signature = inspect.signature(test)
        run.__name__, run.__doc__ = test.__name__, test.__doc__
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what `signature` looks for first
            parameters=list(signature.parameters.values())[1:]
        )
        return run

    return decorate


class World(schedules_world.World):
    """One control plane after another on the same journal."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = PlaneConfig(releases=ReleasesConfig(**config))
        self.leases: dict[str, int] = {}
        self.failing: dict[str, float] = {}
        """Of each version, the share of its calls that fail; none unless it is told."""
        self.bucket: dict[str, int] = {}
        self.rate = 200
        """Calls a second."""

    async def register(self, version: str, instance_id: str = "") -> None:
        """An instance of a version; a second one of its id takes the first one's place."""
        instance_id = instance_id or f"i-{version}"
        declared = Instance(
            namespace=NAMESPACE,
            service=SERVICE,
            id=instance_id,
            endpoints=(Endpoint("10.0.0.1", 8080),),
            version=version,
        )
        made = await self.plane.registry.register(Registration(declared, instance_id.encode().ljust(16), TTL_MS), BY)
        self.leases[instance_id] = made.lease_id

    async def remove(self, version: str) -> None:
        self.leases.pop(f"i-{version}")
        await self.plane.registry.deregister(
            Reference(namespace=NAMESPACE, service=SERVICE, instance_id=f"i-{version}"), BY
        )

    async def begin(self) -> None:
        """Both versions are there."""
        for version in (OLD, NEW):
            await self.register(version)

    async def start(self, version: str = "^2", *, steps: str = "", **asked: Any) -> releases_pb2.ReleaseState:
        """`steps`: percents, "m" behind those that are manual."""
        wanted = releases_pb2.Release(namespace=NAMESPACE, service=SERVICE, version=version, **asked)
        for step in steps.split(",") if steps else ():
            wanted.steps.add(percent=int(step.rstrip("m")), manual=step.endswith("m"))
        return await self.plane.releases.start(wanted, BY)

    async def steer(self, action: Any) -> releases_pb2.ReleaseState:
        return await self.plane.releases.steer(NAMESPACE, SERVICE, action, BY)

    @property
    def state(self) -> releases_pb2.ReleaseState:
        return self.plane.releases.get(NAMESPACE, SERVICE)

    @property
    def where(self) -> tuple[Phase, int]:
        return Phase(self.state.phase), self.state.percent

    @property
    def shares(self) -> dict[str, int] | None:
        split = self.plane.traffic.policies.shares.split_of(NAMESPACE, SERVICE)
        return None if split is None else {one.version: one.weight for one in split.destinations}

    def call(self, seconds: float = 1) -> None:
        """Calls of so long a time, dealt out as the release says, all of them reported at once."""
        release = self.plane.control.folds.get(f"release/{NAMESPACE}/{SERVICE}")
        percent = release.percent if release is not None else 0
        count = int(self.rate * seconds)
        shares = {NEW: count * percent // ALL, OLD: count - count * percent // ALL}
        reports: list[Reported] = []
        for version, calls in shares.items():
            failed = round(calls * self.failing.get(version, 0))
            bucket = self.bucket.get(version, FAST)
            if calls > failed:
                reports.append(
                    Reported(
                        SERVICE, version, StatusCode.OK, calls - failed, 0, f"i-{version}", {bucket: calls - failed}
                    )
                )
            if failed:
                reports.append(Reported(SERVICE, version, StatusCode.UNAVAILABLE, failed, 0, f"i-{version}"))
        self.plane.discovery.outcomes.report(NAMESPACE, reports, self.clock.now_ns(), caller="cart")

    async def live(self, seconds: float, *, called: bool = True) -> None:
        """Time goes by: instances stay alive, and callers call."""
        for _ in range(round(seconds)):
            if called:
                self.call()
            self.plane.registry.keep_alive(self.leases.values())
            await asyncio.sleep(1)

    async def records(self) -> list[Record]:
        """All of releases."""
        found: list[Record] = []
        log = self.plane.control.log
        offset = log.first_offset
        while blocks := await log.read(offset, max_bytes=1 << 20):
            for block in blocks:
                found += map(block.record, range(block.count))
                offset = block.end_offset
        return [record for record in found if record.topic.startswith("release.")]

    async def topics(self) -> Counter[str]:
        return Counter(record.topic.removeprefix("release.") for record in await self.records())
