"""Both faces of the SDK against a real server in a process of its own, killed and started again among other things."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from integration.echo_server import SAY, serve
from integration.faces import threaded
from integration.processes import Server, serving
from integration.waiting import until

from trunkline.api.v1.discovery_pb2 import CallerState
from trunkline.api.v1.traffic_pb2 import GetCallsRequest, GetCallsResponse
from trunkline.client import BackoffOptions, ClientOptions, Event, Reset, SyncBalancedChannel, connect, connect_sync
from trunkline.core.breaker import State
from trunkline.core.errors import InstanceAlive, InvalidArgument, StreamNotFound
from trunkline.core.model import Status, Sync
from trunkline.core.selector import Selector

OPTIONS = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.1, max_backoff_s=1), drain_limit_s=2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=["async", "blocking"])
def dial(request: pytest.FixtureRequest, server: Server) -> Callable[..., Any]:
    def dialled(**arguments: Any) -> Any:
        arguments = {
            "options": OPTIONS,
            "namespace": request.node.name.split("[")[0].replace("_", "-")[:60],
            **arguments,
        }
        if request.param == "async":
            return connect(server.address, **arguments)
        return threaded(connect_sync(server.address, **arguments))

    return dialled


@pytest.fixture
async def trunkline(dial: Callable[..., Any], request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    namespace = f"t{abs(hash(request.node.name)) % 10**12}"
    async with dial(namespace=namespace) as connected:
        yield connected


def ids(view: Any) -> list[str]:
    return [one.instance.id for one in view.instances]


async def test_an_instance_comes_changes_drains_and_goes(trunkline: Any) -> None:
    view = await trunkline.watch("orders")
    assert view.instances == ()
    async with await trunkline.register("orders", id="o-1", port=50051, version="1.2.0", zone="a") as registration:
        await until(lambda: ids(view) == ["o-1"])
        assert view.instances[0].status is Status.SERVING
        await registration.declare("degraded")
        await until(lambda: view.instances[0].status is Status.DEGRADED)
        await registration.declare("serving")
        assert [one.instance.version for one in await trunkline.resolve("orders")] == ["1.2.0"]
        drained = await registration.drain()
        assert drained.complete, drained.late
        assert view.instances == (), "complete means that this watcher, too, has applied it"
    assert await trunkline.resolve("orders", selector=Selector(statuses=frozenset(Status))) == ()


async def test_what_the_server_refuses_comes_as_its_class(trunkline: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await trunkline.register("Not A Name", port=1)
    assert caught.value.violations[0].field == "instance.service"
    await trunkline.register("orders", id="o-1", port=1)
    with pytest.raises(StreamNotFound):
        await trunkline.publish(Event(type="a"), stream="nowhere")


async def test_an_id_that_is_alive_is_refused(trunkline: Any, dial: Callable[..., Any]) -> None:
    await trunkline.register("orders", id="o-1", port=1)
    async with dial(namespace=trunkline.namespace) as other:
        with pytest.raises(InstanceAlive):
            await other.register("orders", id="o-1", port=2)
        await other.register("orders", id="o-1", port=2, take_over=True)
        assert [one.instance.endpoints[0].port for one in await other.resolve("orders")] == [2]


async def test_events_are_deduplicated_filtered_delivered_and_redelivered(trunkline: Any) -> None:
    events = [Event(type="order.placed", id=str(n), source="test", data=str(n), key="k") for n in range(5)]
    first = await trunkline.publish([*events, Event(type="stock.low")], require=Sync.FSYNCED)
    assert first.durability.sync is Sync.FSYNCED
    again = await trunkline.publish(events[:2])
    assert again.offsets == first.offsets[:2]
    assert len(again.duplicates) == 2
    async with trunkline.subscribe("billing", filters=["order.*"], start="earliest") as subscription:
        got = [await subscription.next() for _ in range(5)]
        assert [one.event.data for one in got] == ["0", "1", "2", "3", "4"]
        assert {one.event.key for one in got} == {"k"}
        got[0].nack()
        for delivery in got[1:]:
            delivery.ack()
        redelivered = await subscription.next()
        assert (redelivered.offset, redelivered.attempt) == (got[0].offset, 2)
        redelivered.ack()


async def test_an_ephemeral_subscription_sees_what_comes_after_it(trunkline: Any) -> None:
    await trunkline.publish(Event(type="before"))
    async with trunkline.subscribe() as subscription, trunkline.publisher() as publisher:
        await subscription.opened()
        answers = [await publisher.send(Event(type="tick", data=str(n))) for n in range(500)]
        got = []
        for _ in range(500):
            delivery = await subscription.next()
            got.append(int(delivery.event.data))
            delivery.ack()
        assert got == list(range(500))
        offsets = [(await answer).offsets[0] for answer in answers]
        assert offsets == sorted(offsets)


async def test_fetching_on_demand(trunkline: Any) -> None:
    async with trunkline.subscribe("billing", start="earliest") as subscription:
        await subscription.opened()
    await trunkline.publish([Event(type="a"), Event(type="b")])
    async with await trunkline.fetch("billing", wait_s=2) as fetched:
        for delivery in getattr(fetched, "_face", fetched):
            delivery.ack()
        assert len(getattr(fetched, "_face", fetched)) == 2
    assert len(getattr(again := await trunkline.fetch("billing"), "_face", again)) == 0


async def test_a_channel_balances_over_registered_instances(trunkline: Any, dial: Callable[..., Any]) -> None:
    servers = [await serve(name) for name in "ab"]
    for (_, port, _), name in zip(servers, "ab", strict=True):
        await trunkline.register("echo", id=name, port=port)
    channel = await trunkline.channel("echo")
    say = channel.unary_unary(SAY)
    said = Counter([bytes(await in_thread(say, b"")).decode().strip() for _ in range(20)])
    assert said == {"a": 10, "b": 10}
    for echo_server, _, _ in servers:
        await echo_server.stop(None)


async def in_thread(method: Any, request: bytes) -> Any:
    """A stub's method of either face."""
    if type(method).__name__ == "SyncMethod":
        return await asyncio.to_thread(method, request, timeout=5)
    return await method(request, timeout=5)


async def test_nothing_acknowledged_is_lost_over_a_sigkill(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with connect(server.address, options=OPTIONS, name="provider") as provider:
            await provider.register("orders", id="o-1", port=1, ttl_s=5)
            async with connect(server.address, options=OPTIONS, name="caller") as caller:
                await killed_in_the_middle(server, provider, caller)


async def killed_in_the_middle(server: Server, provider: Any, caller: Any) -> None:
    view = await caller.watch("orders")
    changes: list[Any] = []
    watching = asyncio.create_task(follow(view, changes))
    subscription = caller.subscribe("billing", start="earliest")
    seen: Counter[str] = Counter()

    async def handler(delivery: Any) -> None:
        seen[delivery.event.id] += 1

    consuming = asyncio.create_task(subscription.consume(handler, concurrency=8))
    acknowledged: list[str] = []
    async with provider.publisher(timeout_s=60) as publisher:
        for number in range(1_000):
            published = await publisher.publish([Event(type="tick", id=f"{number}-{n}") for n in range(3)])
            acknowledged += [one.id for one in published.events]
            if number in (300, 600):
                server.kill()
                await asyncio.to_thread(server.start)
    await until(lambda: len(seen) == len(acknowledged))
    assert set(seen) == set(acknowledged), "everything acknowledged arrives"
    assert len(acknowledged) == 3_000
    assert sum(seen.values()) - len(seen) <= 600, "a kill may repeat what was in flight, not everything"
    assert ids(view) == ["o-1"], "a restart gives each lease a full TTL"
    await provider.register("orders", id="o-2", port=2)
    await until(lambda: ids(view) == ["o-1", "o-2"])
    assert all(change.instances for change in changes if isinstance(change, Reset)), "no empty view in between"
    subscription.close()
    await consuming
    view.close()
    await watching


async def follow(view: Any, changes: list[Any]) -> None:
    async for change in view.changes():
        changes.append(change)


async def test_a_control_plane_with_another_journal_is_started_over_with(tmp_path: Path) -> None:
    """Somebody deleted its data: who lives registers again, views show what is there now, and not what was."""
    with serving(tmp_path) as server:
        async with connect(server.address, options=OPTIONS) as trunkline:
            mine = await trunkline.register("orders", id="mine", port=1)
            impatient = ClientOptions(timeout_s=1)
            async with connect(server.address, options=impatient) as other:
                await other.register("orders", id="other", port=2, drain_on_exit=False)
                view = await trunkline.watch("orders")
                await until(lambda: ids(view) == ["mine", "other"])
                server.kill()
            shutil.rmtree(tmp_path / "data")
            await asyncio.to_thread(server.start)
            await until(lambda: ids(view) == ["mine"])
            added = await trunkline.register("orders", id="new", port=3)
            await until(lambda: ids(view) == ["mine", "new"])
            await added.close()
            await mine.close()


POLICY = """
service: echo
retry: {max_attempts: 2, base_interval: 0.001s}
circuit_breaker: {minimum_number_of_calls: 4, sliding_window_size: 4}
fallback: {answers: {answers: [{method: /test.Echo/Say, response: c29ycnk=}]}}
"""


async def test_a_policy_comes_from_the_server_and_outcomes_go_there(dial: Callable[..., Any]) -> None:
    async with dial(options=replace(OPTIONS, report_interval_s=0.1)) as trunkline:
        channel = await trunkline.channel("echo")
        await trunkline.apply_policy(POLICY, reason="calls")
        await until(lambda: channel.policy_state().policy.retry)
        echo_server, port, _ = await serve("a")
        await trunkline.register("echo", id="e-1", port=port, host="127.0.0.1", version="1.0.0")
        await until(lambda: channel.endpoints())

        async def say(text: bytes) -> bytes:
            method = channel.unary_unary(SAY)
            if isinstance(channel, SyncBalancedChannel):
                return await asyncio.to_thread(lambda: method(text, timeout=10))
            answer: bytes = await method(text, timeout=10)
            return answer

        assert await say(b"hi") == b"a hi"
        assert await say(b"fail") == b"sorry"
        assert channel.policy_state().counts.retries == 1
        await until(lambda: trunkline.outcome_counts == (3, 0))

        async def seen() -> list[tuple[str, str, int]]:
            asked = GetCallsRequest(namespace=trunkline.namespace, service="echo")
            answer = await trunkline.call(lambda stubs: stubs.traffic.GetCalls, asked, GetCallsResponse)
            return [(one.client, one.state.instance_id, one.state.breaker) for one in answer.clients]

        assert await seen() == []
        assert await say(b"fail") == b"sorry"
        assert channel.policy_state().breaker.state is State.OPEN
        for _ in range(200):
            if await seen() == [(trunkline.name, "", CallerState.BREAKER_OPEN)]:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the control plane was not told of the breaker")
        await echo_server.stop(None)
