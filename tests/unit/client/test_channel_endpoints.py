"""The channel's endpoints, with connections that do as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from trunkline.client import BalancedChannel, Trunkline
from trunkline.client._advertise import advertised
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Endpoint

READY = grpc.ChannelConnectivity.READY
IDLE = grpc.ChannelConnectivity.IDLE
FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE


class Call:
    """A call that ends when told."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[grpc.StatusCode] = asyncio.get_running_loop().create_future()
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    async def code(self) -> grpc.StatusCode:
        return await self._ended if not self._ended.done() else self._ended.result()

    def end(self, code: grpc.StatusCode) -> None:
        self._ended.set_result(code)
        for callback in self._callbacks:
            callback(self)


class Instance:
    """One address: its state is what the test sets; its calls wait."""

    def __init__(self) -> None:
        self.state = IDLE
        self.calls: list[Call] = []
        self.closed = False
        self._changed = asyncio.Event()

    def become(self, state: grpc.ChannelConnectivity) -> None:
        self.state = state
        self._changed.set()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.state

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        while self.state is last:
            self._changed.clear()
            await self._changed.wait()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Call]:
        def call(request: Any, **options: Any) -> Call:
            self.calls.append(Call())
            return self.calls[-1]

        return call

    async def close(self, grace: float | None = None) -> None:
        self.closed = True


class Network:
    """Addresses by port."""

    def __init__(self) -> None:
        self.instances: dict[int, Instance] = {}

    def dial(self, address: str, credentials: Any) -> Any:
        return self.instances.setdefault(int(address.rpartition(":")[2]), Instance())


@pytest.fixture
async def network() -> Network:
    return Network()


@pytest.fixture
async def trunkline(network: Network) -> AsyncIterator[Trunkline]:
    async with FakeControlPlane().connect(dial_instance=network.dial) as connected:
        yield connected


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def two_ready(trunkline: Trunkline, network: Network) -> BalancedChannel:
    for port in (1, 2):
        network.instances[port] = Instance()
        network.instances[port].state = READY
        await trunkline.register("echo", id=f"e-{port}", port=port, drain_on_exit=False)
    channel = await trunkline.channel("echo")
    say = channel.unary_unary("/a/b")
    for _ in range(2):
        say(b"")
        await turns()
    assert [len(network.instances[port].calls) for port in (1, 2)] == [1, 1]
    return channel


def picked(channel: BalancedChannel) -> list[str]:
    return sorted(one.instance_id for one in channel.endpoints() if one.picked)


async def test_a_failed_call_takes_its_endpoint_out_before_grpc_says_so(trunkline: Trunkline, network: Network) -> None:
    channel = await two_ready(trunkline, network)
    network.instances[1].calls[0].end(grpc.StatusCode.UNAVAILABLE)  # gRPC's state still says READY
    assert picked(channel) == ["e-2"]
    assert {one.why for one in channel.endpoints()} == {"", "connection lost"}


async def test_it_is_back_when_the_connection_turns_out_to_stand(trunkline: Trunkline, network: Network) -> None:
    channel = await two_ready(trunkline, network)
    network.instances[1].calls[0].end(grpc.StatusCode.UNAVAILABLE)
    await asyncio.sleep(0.1)
    assert picked(channel) == ["e-1", "e-2"]


async def test_it_stays_out_until_it_is_connected_again(trunkline: Trunkline, network: Network) -> None:
    channel = await two_ready(trunkline, network)
    network.instances[1].become(IDLE)
    network.instances[1].calls[0].end(grpc.StatusCode.UNAVAILABLE)
    await asyncio.sleep(0.1)
    assert picked(channel) == ["e-2"]
    network.instances[1].become(FAILED)
    await turns()
    assert picked(channel) == ["e-2"]
    network.instances[1].become(READY)
    await turns()
    assert picked(channel) == ["e-1", "e-2"]


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_other_outcomes_say_nothing_of_the_connection(
    trunkline: Trunkline, network: Network, code: grpc.StatusCode
) -> None:
    channel = await two_ready(trunkline, network)
    network.instances[1].calls[0].end(code)
    assert picked(channel) == ["e-1", "e-2"]
    assert [one.calls_in_flight for one in channel.endpoints()] == [0, 1]


async def test_a_gone_endpoint_hangs_up_after_its_last_call(trunkline: Trunkline, network: Network) -> None:
    channel = await two_ready(trunkline, network)
    (registration,) = [one for one in trunkline._registrations if one.id == "e-1"]
    await registration.close()
    await turns()
    assert picked(channel) == ["e-2"]
    assert not network.instances[1].closed, "a call is in flight"
    network.instances[1].calls[0].end(grpc.StatusCode.OK)
    await turns()
    assert network.instances[1].closed
    assert not network.instances[2].closed


async def test_when_all_are_out_all_are_tried(trunkline: Trunkline, network: Network) -> None:
    channel = await two_ready(trunkline, network)
    for port in (1, 2):
        network.instances[port].become(FAILED)
    await turns()
    call = channel.unary_unary("/a/b")(b"", timeout=5)
    with pytest.raises(grpc.aio.AioRpcError, match="could be reached"):
        await call
    assert channel.get_state() is FAILED


class Elsewhere:
    """A control plane on another machine."""

    async def local_address(self) -> str:
        return "192.0.2.7"

    async def control_is_loopback(self) -> bool:
        return False


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1", "0.0.0.0", "::", "::ffff:0.0.0.0", "0"])
async def test_addresses_that_nobody_else_can_reach_are_refused(host: str) -> None:
    with pytest.raises(InvalidArgument, match="others can reach"):
        await advertised([Endpoint(host, 1)], Elsewhere())


async def test_a_missing_host_is_where_the_control_plane_is_reached_from() -> None:
    found = await advertised([Endpoint("", 1), Endpoint("orders.example", 2)], Elsewhere())
    assert [one.host for one in found] == ["192.0.2.7", "orders.example"]
