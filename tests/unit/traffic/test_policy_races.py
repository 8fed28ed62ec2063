"""Changes of policies that are made at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from reference.registry_world import virtual
from reference.traffic_world import BY, World, policy
from trunkline.api.v1 import policy_pb2
from trunkline.server.plane import ControlPlane
from trunkline.server.traffic.traffic import Wish

ANYHOW = Wish()


def test_a_namespaces_policy_must_fit_to_what_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with World().running() as plane:
            await both(plane)

    async def both(plane: ControlPlane) -> None:
        traffic, may_go, append = plane.traffic, asyncio.Event(), plane.control.log.append
        await traffic.apply(policy("", subsets=[policy_pb2.Subset(name="blue")]), ANYHOW, BY)

        async def held_up(*args: Any, **more: Any) -> Any:
            await may_go.wait()
            return await append(*args, **more)

        monkeypatch.setattr(plane.control.log, "append", held_up)
        to_blue = policy("cart", fallback=policy_pb2.Fallback(subset="blue"))
        without = policy("", timeout=Duration(seconds=7))
        asking = [asyncio.create_task(traffic.apply(one, ANYHOW, BY)) for one in (to_blue, without)]
        await asyncio.sleep(1)
        may_go.set()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Changed", "InvalidArgument"]

    virtual(test)
