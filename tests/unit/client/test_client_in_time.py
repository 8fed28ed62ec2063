"""When the SDK does things, in virtual time: backoff, rhythms, silences, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import async_solipsism
import grpc
import pytest

from trunkline.api.v1 import registry_pb2
from trunkline.client import BackoffOptions, ClientOptions, Event, Stale, Trunkline
from trunkline.client.testing import FakeControlPlane
from trunkline.core.clock import Clock
from trunkline.core.errors import InvalidArgument, NotReady, PermissionDenied, Unreachable


class LoopClock(Clock):
    """The clock of the virtual loop."""

    def now_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)

    def time_ns(self) -> int:
        return self.now_ns()


class Plane(FakeControlPlane):
    """Notes when it is dialled and what is kept alive."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled_s: list[float] = []
        self.beats_s: list[float] = []
        renew = self._registrations._renew

        def noted(lease_ids: Any) -> registry_pb2.KeepAliveResponse:
            self.beats_s.append(now_s())
            return renew(lease_ids)

        self._registrations._renew = noted  # type: ignore[method-assign]

    def _dial(self) -> Any:
        self.dialled_s.append(now_s())
        return super()._dial()

    def break_calls(self, code: grpc.StatusCode, details: str) -> None:
        for channel in list(self._channels):
            for call in list(channel.calls):
                call._context.code, call._context.details = code, details
                call._task.cancel()


def now_s() -> float:
    return asyncio.get_running_loop().time()


def in_virtual_time(test: Callable[[Plane, Trunkline], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        plane = Plane()
        async with plane.connect(options=ClientOptions(**options), clock=LoopClock()) as trunkline:
            await test(plane, trunkline)

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(run())


def test_a_lost_control_plane_is_dialled_by_grpcs_backoff() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        await trunkline.watch("orders")
        plane.go_away()
        plane.dialled_s.clear()
        away_s = now_s()
        await asyncio.sleep(1_000)
        gaps = [later - earlier for earlier, later in pairwise([away_s, *plane.dialled_s])]
        for index, gap in enumerate(gaps):
            expected = min(1.6**index, 120)
            assert 0.79 * expected <= gap <= 1.21 * expected, (index, gap)
        assert 12 < len(gaps) < 30

    in_virtual_time(test)


def test_a_holder_of_leases_never_waits_longer_than_a_third_of_their_ttl() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        await trunkline.register("orders", port=1, ttl_s=9)
        plane.go_away()
        await asyncio.sleep(500)
        plane.dialled_s.clear()
        await asyncio.sleep(100)
        assert all(later - earlier < 3 * 1.21 for earlier, later in pairwise(plane.dialled_s))
        assert len(plane.dialled_s) > 25
        plane.come_back()
        await asyncio.sleep(4)

    in_virtual_time(test)


def test_leases_are_renewed_as_soon_as_the_control_plane_is_back() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        await trunkline.register("orders", port=1, ttl_s=60)
        plane.go_away()
        await asyncio.sleep(30)
        plane.come_back()
        plane.dialled_s.clear()
        plane.beats_s.clear()
        await asyncio.sleep(30)
        assert plane.beats_s[0] - plane.dialled_s[0] < 0.1

    in_virtual_time(test)


def test_all_streams_share_one_backoff() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        await trunkline.watch("orders")
        await trunkline.subscribe().opened()
        await trunkline.register("orders", port=1, ttl_s=300)
        plane.go_away()
        plane.dialled_s.clear()
        await asyncio.sleep(60)
        assert len(plane.dialled_s) < 10, "not once for each stream"
        assert all(later - earlier > 0.7 for earlier, later in pairwise(plane.dialled_s))
        plane.come_back()
        await asyncio.sleep(60)

    in_virtual_time(test)


def test_a_call_that_breaks_inside_the_grpc_library_is_a_lost_connection() -> None:
    """A write that meets a connection which has just been lost makes grpc.aio end the call with INTERNAL."""

    async def test(plane: Plane, trunkline: Trunkline) -> None:
        subscription = trunkline.subscribe("reader", start="earliest")
        await subscription.opened()
        plane.break_calls(grpc.StatusCode.INTERNAL, "Internal error from Core")
        await trunkline.publish(Event(type="a"))
        delivery = await asyncio.wait_for(subscription.next(), 10)
        assert delivery is not None
        plane.break_calls(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")
        await trunkline.publish(Event(type="b"))
        assert await asyncio.wait_for(subscription.next(), 10) is not None

    in_virtual_time(test)


def test_leases_are_renewed_each_third_of_the_shortest_ttl() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        await trunkline.register("orders", port=1, ttl_s=30)
        await trunkline.register("orders", port=2, ttl_s=12)
        await asyncio.sleep(1)
        plane.beats_s.clear()
        await asyncio.sleep(400)
        gaps = [later - earlier for earlier, later in pairwise(plane.beats_s)]
        assert all(4 * 0.9 <= gap <= 4.001 for gap in gaps)
        assert len({round(gap, 3) for gap in gaps}) > 20, "jittered, so that clients drift apart"

    in_virtual_time(test)


def test_a_control_plane_that_falls_silent_is_left_within_two_thirds_of_the_ttl() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        await trunkline.register("orders", port=1, ttl_s=9)
        await asyncio.sleep(10)
        never = asyncio.Event()

        async def silent(requests: Any, context: Any) -> Any:
            await never.wait()
            yield

        handler = plane._handlers["/trunkline.api.v1.RegistryService/KeepAlive"]
        plane._handlers["/trunkline.api.v1.RegistryService/KeepAlive"] = handler._replace(stream_stream=silent)
        plane.go_away()
        plane.come_back()
        await asyncio.sleep(5)
        plane.dialled_s.clear()
        await asyncio.sleep(20)
        assert len(plane.dialled_s) >= 2
        assert plane.dialled_s[0] - 10 < 5 + 9
        plane._handlers["/trunkline.api.v1.RegistryService/KeepAlive"] = handler
        await asyncio.sleep(10)

    in_virtual_time(test)


def test_a_view_says_stale_when_bookmarks_stay_away_and_comes_back() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        view = await trunkline.watch("orders")
        await asyncio.sleep(100)
        assert not view.is_stale
        assert view.staleness() < 6
        plane.go_away()
        changes: Any = view.changes()
        await anext(changes)
        began_s = now_s()
        assert isinstance(await anext(changes), Stale)
        assert 10 < now_s() - began_s < 19
        plane.come_back()
        await asyncio.sleep(130)
        assert not view.is_stale
        await changes.aclose()

    in_virtual_time(test)


def test_a_call_repeats_what_may_pass_until_its_deadline() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        tries = []

        class Refusing:
            def __get__(self, *_: Any) -> NotReady:
                tries.append(now_s())
                return NotReady("catching up")

            def __set__(self, *_: Any) -> None:
                pass

        kind = type("Refused", (type(plane._events),), {"refuse": Refusing()})
        plane._events.__class__ = kind
        began_s = now_s()
        with pytest.raises(NotReady):
            await trunkline.publish(Event(type="a"), timeout_s=20)
        assert now_s() - began_s == pytest.approx(20, abs=0.1)
        assert 4 < len(tries) < 40, "with backoff between"

    in_virtual_time(test)


def test_an_absent_control_plane_does_not_hold_up_the_end() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        registration = await trunkline.register("orders", port=1)
        await trunkline.watch("orders")
        plane.go_away()
        await asyncio.sleep(30)
        began_s = now_s()
        await registration.close()
        assert now_s() - began_s < 3

    in_virtual_time(test)


def test_a_publisher_gives_up_at_its_deadline() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(timeout_s=5) as publisher:
            await publisher.publish(Event(type="a"))
            plane.go_away()
            began_s = now_s()
            with pytest.raises(Unreachable):
                await publisher.publish(Event(type="a"))
            assert now_s() - began_s == pytest.approx(5, abs=0.1)
            assert publisher.in_flight == 0

    in_virtual_time(test)


def test_many_leases_lost_together_are_not_had_again_at_one_moment() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        for index in range(50):
            await trunkline.register("orders", id=f"o-{index}", port=index + 1, drain_on_exit=False)
        came_back_s: list[float] = []
        register = plane._registry.register
        for index in range(50):
            plane.end_lease("orders", f"o-{index}")

        def noted(*args: Any, **kwargs: Any) -> Any:
            came_back_s.append(now_s())
            return register(*args, **kwargs)

        plane._registry.register = noted  # type: ignore[method-assign]
        await asyncio.sleep(10)
        assert len(plane.instance_ids("orders")) == 50
        assert max(came_back_s) - min(came_back_s) > 0.5
        assert len({round(when, 2) for when in came_back_s}) > 25

    in_virtual_time(test, backoff=BackoffOptions())


def calls_of(plane: Plane) -> int:
    return sum(len(channel.calls) for channel in plane._channels)


def test_a_refused_subscription_is_left_at_once() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        began_s = now_s()
        with pytest.raises(InvalidArgument):
            async with trunkline.subscribe(attribute_filters=[{"exact": {"no-name": "/a"}}]) as refused:
                await refused.next()
        assert now_s() == began_s

    in_virtual_time(test)


def test_subscriptions_whose_stream_is_refused_end_and_it_is_not_opened_again() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.subscribe() as subscription:
            await subscription.opened()
            plane.break_calls(grpc.StatusCode.PERMISSION_DENIED, "not you")
            refused_s = now_s()
            with pytest.raises(PermissionDenied, match="not you"):
                await subscription.next()
        assert now_s() == refused_s
        await asyncio.sleep(60)
        assert calls_of(plane) == 0
        async with trunkline.subscribe() as subscription:
            await subscription.opened()

    in_virtual_time(test)
