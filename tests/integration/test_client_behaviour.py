"""What the SDK promises, on both faces, against the control plane that users' tests have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from integration.faces import threaded
from integration.waiting import until

from trunkline.client import BackoffOptions, ClientOptions, Event, Fresh, Reset, Stale, Updated
from trunkline.client._view_cache import FolderStore
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import (
    InstanceAlive,
    InvalidArgument,
    LeaseNotFound,
    NoInstance,
    OutcomeUnknown,
    PermissionDenied,
    StreamNotFound,
    SubscriptionNotFound,
    Unreachable,
)
from trunkline.core.model import Declared, Status
from trunkline.core.selector import Selector

OPTIONS = ClientOptions(
    backoff=BackoffOptions(initial_backoff_s=0.01, max_backoff_s=0.05),
    timeout_s=5,
    stale_after_s=0.2,
    cache_interval_s=0.01,
    drain_limit_s=0.2,
)
TAKEN_OVER = 4
"""LostLease.Reason."""


@pytest.fixture
async def plane() -> FakeControlPlane:
    return FakeControlPlane()


@pytest.fixture(params=["async", "blocking"])
def connect(request: pytest.FixtureRequest, plane: FakeControlPlane) -> Callable[..., Any]:
    def connected(**arguments: Any) -> Any:
        arguments = {"options": OPTIONS, **arguments}
        return plane.connect(**arguments) if request.param == "async" else threaded(plane.connect_sync(**arguments))

    return connected


@pytest.fixture
async def trunkline(connect: Callable[..., Any]) -> AsyncIterator[Any]:
    async with connect() as connected:
        yield connected


def ids(view: Any) -> list[str]:
    return [one.instance.id for one in view.instances]


# Registration.


async def test_an_instance_is_there_while_it_is_registered(plane: FakeControlPlane, trunkline: Any) -> None:
    view = await trunkline.watch("orders")
    assert view.instances == ()
    async with await trunkline.register("orders", id="o-1", port=50051, version="1.2.0", zone="a", labels={"x": "y"}):
        await until(lambda: ids(view) == ["o-1"])
        instance = view.instances[0].instance
        assert (instance.version, instance.locality.zone, dict(instance.labels)) == ("1.2.0", "a", {"x": "y"})
        assert instance.endpoints[0].address == "127.0.0.1:50051"
    assert plane.instance_ids("orders") == []
    await until(lambda: view.instances == ())


async def test_what_an_instance_declares_is_seen(trunkline: Any) -> None:
    view = await trunkline.watch("orders", selector=Selector(statuses=frozenset(Status)))
    registration = await trunkline.register("orders", port=1, declared="starting")
    await until(lambda: [one.status for one in view.instances] == [Status.STARTING])
    await registration.declare(Declared.SERVING)
    await until(lambda: [one.status for one in view.instances] == [Status.SERVING])
    with pytest.raises(InvalidArgument, match="declared"):
        await registration.declare("draining")


async def test_a_lapsed_lease_is_had_again_under_the_same_id(plane: FakeControlPlane, trunkline: Any) -> None:
    registration = await trunkline.register("orders", id="o-1", port=1, ttl_s=1)
    before = registration.lease_id
    plane.end_lease("orders", "o-1")
    assert plane.instance_ids("orders") == []
    await until(lambda: plane.instance_ids("orders") == ["o-1"])
    await until(lambda: registration.lease_id not in (None, before))


async def test_a_registration_that_was_taken_over_says_so(plane: FakeControlPlane, trunkline: Any) -> None:
    registration = await trunkline.register("orders", id="o-1", port=1, ttl_s=1)
    plane.end_lease("orders", "o-1", reason=TAKEN_OVER)
    with pytest.raises(LeaseNotFound, match="TAKEN_OVER"):
        await registration.wait_ended()
    assert plane.instance_ids("orders") == [], "it does not fight whoever took it"
    await registration.close()


async def test_an_id_that_is_alive_is_refused_unless_taken_over(connect: Callable[..., Any], trunkline: Any) -> None:
    await trunkline.register("orders", id="o-1", port=1)
    async with connect() as other:
        with pytest.raises(InstanceAlive):
            await other.register("orders", id="o-1", port=2)
        taken = await other.register("orders", id="o-1", port=2, take_over=True)
        assert (await other.resolve("orders"))[0].instance.endpoints[0].port == 2
        await taken.close()


async def test_leases_stay_alive(plane: FakeControlPlane, trunkline: Any) -> None:
    await trunkline.register("orders", id="o-1", port=1)
    await trunkline.register("orders", id="o-2", port=2)
    await until(lambda: len([n for n in plane._registrations.kept.values() if n]) == 2)
    for _ in range(10):
        plane.advance(9)
    assert plane.instance_ids("orders") == ["o-1", "o-2"]


async def test_a_drain_waits_for_watchers_and_names_the_late(connect: Callable[..., Any], trunkline: Any) -> None:
    registration = await trunkline.register("orders", port=1)
    async with connect(name="caller") as caller:
        view = await caller.watch("orders")
        await until(lambda: len(view.instances) == 1)
        drained = await registration.drain()
        assert drained.complete
        assert drained.late == ()
        assert view.instances == ()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"port": 1, "host": "0.0.0.0"}, "endpoints.host"),
        ({"port": 1, "host": "::"}, "endpoints.host"),
        ({"endpoints": ["[::]:80"]}, "endpoints.host"),
        ({"endpoints": ["nonsense"]}, "endpoints"),
        ({}, "endpoints"),
        ({"port": 1, "endpoints": ["a:1"]}, "endpoints"),
        ({"port": 1, "ttl_s": 0.5}, "ttl_s"),
        ({"port": 1, "declared": "asleep"}, "declared"),
    ],
)
async def test_an_unusable_registration_is_refused(trunkline: Any, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await trunkline.register("orders", **arguments)
    assert caught.value.violations[0].field == field


# Views.


async def test_a_view_outlives_the_control_plane(plane: FakeControlPlane, trunkline: Any) -> None:
    await trunkline.register("orders", id="o-1", port=1, ttl_s=60)
    view = await trunkline.watch("orders")
    plane.go_away()
    plane.advance(20)
    await until(lambda: view.is_stale)
    assert ids(view) == ["o-1"]
    assert view.staleness() >= 20
    plane.come_back()
    await until(lambda: not view.is_stale)
    await trunkline.register("orders", id="o-2", port=2)
    await until(lambda: ids(view) == ["o-1", "o-2"])


async def test_changes_tell_everything_in_order(plane: FakeControlPlane, trunkline: Any) -> None:
    view = await trunkline.watch("orders")
    changes = view.changes().__aiter__()
    assert await anext(changes) == Reset(view.revision, ())
    registration = await trunkline.register("orders", id="o-1", port=1, ttl_s=60)
    added = await anext(changes)
    assert isinstance(added, Updated)
    assert [one.instance.id for one in added.added] == ["o-1"]
    await registration.declare("degraded")
    changed = await anext(changes)
    assert [one.status for one in changed.changed] == [Status.DEGRADED]
    plane.go_away()
    plane.advance(20)
    assert isinstance(await anext(changes), Stale)
    plane.come_back()
    assert isinstance(await anext(changes), Fresh)
    await registration.close()
    removed = await anext(changes)
    assert [one.instance.id for one in removed.removed] == ["o-1"]
    await changes.aclose()


async def test_a_resync_is_never_an_empty_view(plane: FakeControlPlane, trunkline: Any) -> None:
    for index in range(250):  # three parts of a snapshot
        await trunkline.register("orders", id=f"o-{index:03}", port=index + 1, drain_on_exit=False)
    view = await trunkline.watch("orders")
    seen: list[Any] = []
    watching = asyncio.ensure_future(collect(view.changes(), seen))
    await until(lambda: seen)
    plane.go_away()
    plane.end_lease("orders", "o-000")  # seen by nobody: what comes next can not be resumed
    plane.compact_history()
    plane.come_back()
    await until(lambda: sum(isinstance(change, Reset) for change in seen) == 2)
    await until(lambda: ids(view) == plane.instance_ids("orders"))
    assert all(len(change.instances) >= 249 for change in seen if isinstance(change, Reset))
    view.close()
    await watching


async def collect(changes: Any, seen: list[Any]) -> None:
    async for change in changes:
        seen.append(change)


async def test_a_slow_reader_of_changes_gets_one_reset(connect: Callable[..., Any]) -> None:
    async with connect(options=ClientOptions(changes_max=4)) as trunkline:
        view = await trunkline.watch("orders")
        changes = view.changes().__aiter__()
        await anext(changes)
        registrations = [await trunkline.register("orders", id=f"o-{n}", port=n + 1) for n in range(10)]
        await until(lambda: len(view.instances) == 10)
        change = await anext(changes)
        assert isinstance(change, Reset)
        assert len(change.instances) == 10
        await changes.aclose()
        assert len(registrations) == 10


async def test_a_process_that_starts_alone_has_the_last_good_state(
    plane: FakeControlPlane, connect: Callable[..., Any], tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "cache")
    async with connect() as provider:
        await provider.register("orders", id="o-1", port=1)
        async with connect(cache=store) as trunkline:
            await trunkline.watch("orders")
        plane.go_away()
        async with connect(cache=store) as trunkline:
            view = await trunkline.watch("orders")
            assert ids(view) == ["o-1"]
            assert view.from_cache
            assert view.is_stale
            plane.come_back()
            await until(lambda: not view.from_cache)
            assert ids(view) == ["o-1"]


async def test_without_state_and_control_plane_watch_says_so(plane: FakeControlPlane, trunkline: Any) -> None:
    plane.go_away()
    with pytest.raises(Unreachable):
        await trunkline.watch("orders", timeout_s=0.1)


async def test_choose_refuses_when_there_is_nobody(trunkline: Any) -> None:
    async with await trunkline.chooser("web", protocol="http") as chooser:
        with pytest.raises(NoInstance, match="web"):
            chooser.choose()


# Publishing.


async def test_publishing_says_where_events_are_and_which_are_repeats(trunkline: Any) -> None:
    events = [Event(type="order.placed", id=str(n), source="test", data=b"x") for n in range(3)]
    first = await trunkline.publish(events[:2])
    assert first.offsets == (0, 1)
    assert not first.duplicates
    again = await trunkline.publish(events)
    assert again.offsets == (0, 1, 2)
    assert [one.id for one in again.duplicates] == ["0", "1"]


async def test_an_unknown_outcome_is_repeated_with_the_same_ids(plane: FakeControlPlane, trunkline: Any) -> None:
    plane.refuse_next_publish(OutcomeUnknown("the disk was slow"))
    published = await trunkline.publish(Event(type="order.placed"))
    assert published.offsets == (0,)
    assert plane.stream().next_offset == 1


async def test_a_refused_publish_is_not_repeated(plane: FakeControlPlane, trunkline: Any) -> None:
    plane.refuse_next_publish(PermissionDenied("not yours"))
    with pytest.raises(PermissionDenied, match="not yours"):
        await trunkline.publish(Event(type="order.placed"))
    with pytest.raises(StreamNotFound):
        await trunkline.publish(Event(type="order.placed"), stream="nowhere")


async def test_a_publisher_keeps_order_across_a_lost_connection(plane: FakeControlPlane, trunkline: Any) -> None:
    async with trunkline.publisher(in_flight_max=50) as publisher:
        answers = []
        for index in range(200):
            if index in (50, 120):
                plane.go_away()
                plane.come_back()
            answers.append(await publisher.send(Event(type="tick", data=str(index))))
        await publisher.flush()
        offsets = [(await answer).offsets[0] for answer in answers]
    stored = [int(record.event.text_data) for record in plane.stream().records]
    assert stored == list(range(200)), "all there, in order, none twice"
    assert offsets == list(range(200))


async def test_a_publisher_tells_each_sender_its_error(plane: FakeControlPlane, trunkline: Any) -> None:
    async with trunkline.publisher() as publisher:
        plane.refuse_next_publish(PermissionDenied("not yours"))
        with pytest.raises(PermissionDenied):
            await publisher.publish(Event(type="tick"))
        assert (await publisher.publish(Event(type="tick"))).offsets == (0,)


# Subscriptions.


async def published(trunkline: Any, *types: str) -> None:
    await trunkline.publish([Event(type=one, data=one) for one in types])


async def test_filters_choose_and_acks_move_on(plane: FakeControlPlane, trunkline: Any) -> None:
    await published(trunkline, "order.placed", "order.paid", "stock.low", "order.placed")
    async with trunkline.subscribe("billing", filters=["order.*"], start="earliest") as subscription:
        got = []
        async for delivery in subscription:
            got.append((delivery.offset, delivery.event.type, delivery.attempt))
            delivery.ack()
            if len(got) == 3:
                break
        assert got == [(0, "order.placed", 1), (1, "order.paid", 1), (3, "order.placed", 1)]
        durable = plane._events.durable["default", "events", "billing"]
        await until(lambda: not durable.open)


async def test_nack_comes_again_after_its_delay_and_term_never(plane: FakeControlPlane, trunkline: Any) -> None:
    await published(trunkline, "a", "b")
    async with trunkline.subscribe("billing", start="earliest") as subscription:
        first, second = await subscription.next(), await subscription.next()
        first.nack(delay_s=5)
        second.term("poison")
        durable = plane._events.durable["default", "events", "billing"]
        await until(lambda: durable.set_aside == {1: "poison"} and 0 in durable.again)
        plane.advance(6)
        again = await subscription.next()
        assert (again.offset, again.attempt) == (0, 2)
        again.ack()
        again.nack()  # the first word counts
        await until(lambda: not durable.open and not durable.again)


async def test_in_hand_is_not_handed_twice_after_a_reconnect(plane: FakeControlPlane, trunkline: Any) -> None:
    await published(trunkline, "a", "b", "c")
    async with trunkline.subscribe("billing", start="earliest") as subscription:
        held = await subscription.next()
        plane.go_away()
        plane.come_back()
        rest = [await subscription.next(), await subscription.next()]
        assert [one.offset for one in [held, *rest]] == [0, 1, 2]
        durable = plane._events.durable["default", "events", "billing"]
        await until(lambda: len(durable.open) == 3)
        for delivery in (held, *rest):
            delivery.ack()
        await until(lambda: not durable.open and not durable.again)


async def test_an_ephemeral_subscription_resumes_without_loss_or_repeat(
    plane: FakeControlPlane, trunkline: Any
) -> None:
    for acknowledge in (True, False):
        async with trunkline.subscribe(acknowledge=acknowledge, credit=4) as subscription:
            await subscription.opened()
            start = plane.stream().next_offset
            got = []
            for round_ in range(6):
                await published(trunkline, *[f"t{round_}"] * 5)
                for _ in range(5):
                    delivery = await subscription.next()
                    got.append(delivery.offset)
                    delivery.ack()
                if round_ % 2:
                    plane.go_away()
                    plane.come_back()
            assert got == list(range(start, start + 30))


async def test_a_nack_survives_a_reconnect_of_an_ephemeral_subscription(
    plane: FakeControlPlane, trunkline: Any
) -> None:
    async with trunkline.subscribe() as subscription:
        await subscription.opened()
        await published(trunkline, "a", "b", "c")
        first, second, third = [await subscription.next() for _ in range(3)]
        second.ack()
        plane.go_away()
        first.nack()
        plane.come_back()
        again = await subscription.next()
        assert again.offset == first.offset
        third.ack()
        again.ack()
        await published(trunkline, "d")
        assert (await subscription.next()).event.type == "d"


async def test_credit_bounds_what_is_sent(plane: FakeControlPlane, trunkline: Any) -> None:
    await published(trunkline, *["a"] * 10)
    async with trunkline.subscribe("billing", start="earliest", credit=3) as subscription:
        taken = [await subscription.next() for _ in range(3)]
        durable = plane._events.durable["default", "events", "billing"]
        await until(lambda: len(durable.open) == 3)
        taken[0].ack()
        assert (await subscription.next()).offset == 3
        assert len(durable.open) == 3


async def test_credit_neither_leaks_nor_grows_over_reconnects(plane: FakeControlPlane, trunkline: Any) -> None:
    await published(trunkline, *["a"] * 60)
    async with trunkline.subscribe("billing", start="earliest", credit=3) as subscription:
        got = []
        for _ in range(10):
            taken = [await subscription.next() for _ in range(3)]
            assert subscription.in_hand <= 6, "what is in hand, and once more the credit after a reconnect"
            plane.go_away()
            plane.come_back()
            for delivery in taken:
                got.append(delivery.offset)
                delivery.ack()
        for _ in range(30):
            delivery = await subscription.next()
            got.append(delivery.offset)
            delivery.ack()
        assert sorted(got) == list(range(60)), "each once: none repeated, none held back"
        durable = plane._events.durable["default", "events", "billing"]
        await until(lambda: not durable.open and not durable.again)
    async with trunkline.subscribe("slow", start="earliest", credit=3) as subscription:
        for _ in range(3):
            await subscription.next()
        plane.go_away()
        plane.come_back()
        durable = plane._events.durable["default", "events", "slow"]
        await until(lambda: len(durable.open) >= 3)
        assert len(durable.open) <= 6


async def test_a_gap_is_told(plane: FakeControlPlane, trunkline: Any) -> None:
    await published(trunkline, "a", "b")
    async with trunkline.subscribe("billing", start="earliest") as subscription:
        held = await subscription.next()
        plane.go_away()
        plane.stream().begin_anew()
        plane.come_back()
        await published(trunkline, "c")
        async for delivery in subscription:
            if delivery.event.type == "c":
                break
        assert (delivery.incarnation, delivery.offset) == (2, 0)
        assert [(gap.old_incarnation, gap.incarnation, gap.next_offset) for gap in subscription.gaps] == [(1, 2, 0)]
        assert subscription.in_hand == 1
        held.ack()  # of another history: does nothing
        assert subscription.in_hand == 1
        delivery.ack()
        await until(lambda: subscription.in_hand == 0)


async def test_a_refused_subscription_raises(trunkline: Any) -> None:
    with pytest.raises(StreamNotFound):
        await trunkline.subscribe(stream="nowhere").next()


async def test_closing_gives_back_what_is_not_done(plane: FakeControlPlane, connect: Callable[..., Any]) -> None:
    async with connect() as one, connect() as other:
        await published(one, "a", "b")
        async with one.subscribe("billing", start="earliest") as subscription:
            (await subscription.next()).ack()
            await subscription.next()
        async with other.subscribe("billing") as subscription:
            delivery = await subscription.next()
            assert (delivery.offset, delivery.attempt) == (1, 1)
            delivery.ack()


async def test_consume_bounds_concurrency_acks_and_retries(plane: FakeControlPlane, trunkline: Any) -> None:
    await published(trunkline, *[f"t{n}" for n in range(12)])
    subscription = trunkline.subscribe("billing", start="earliest")
    running, most, done, failed = 0, 0, [], set()

    async def handler(delivery: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        if delivery.offset == 5 and delivery.offset not in failed:
            failed.add(5)
            raise ValueError("the first time goes wrong")
        done.append(delivery.offset)
        if len(done) == 12:
            subscription.close()

    consuming = asyncio.ensure_future(subscription.consume(handler, concurrency=3, nack_delay_s=0))
    await asyncio.wait_for(consuming, 20)
    assert sorted(done) == list(range(12))
    assert most == 3
    assert failed == {5}
    durable = plane._events.durable["default", "events", "billing"]
    await until(lambda: not durable.open and not durable.again)


async def test_order_by_key_and_one_at_a_time(plane: FakeControlPlane, trunkline: Any) -> None:
    keys = ["a", "a", "b", "", "a", ""]
    await trunkline.publish([Event(type=f"t{n}", source="/t", key=key) for n, key in enumerate(keys)])
    async with trunkline.subscribe("keyed", start="earliest", ordering="keyed") as subscription:
        got = []
        async for delivery in subscription:
            got.append(delivery.event.type)
            if got == ["t0", "t2", "t3", "t5"]:
                durable = plane._events.durable["default", "events", "keyed"]
                assert durable.held == [1, 4]
                break
            if len(got) > 4:
                break
        assert got == ["t0", "t2", "t3", "t5"]
    async with trunkline.subscribe("one", start="earliest", ordering="sequential") as subscription:
        got = []
        async for delivery in subscription:
            assert len(plane._events.durable["default", "events", "one"].open) == 1
            got.append(delivery.event.type)
            delivery.ack()
            if len(got) == len(keys):
                break
        assert got == [f"t{n}" for n in range(len(keys))]
    with pytest.raises(InvalidArgument):
        trunkline.subscribe("x", ordering="by key")


async def test_fetched_deliveries_are_settled_together(trunkline: Any) -> None:
    with pytest.raises(SubscriptionNotFound):
        await trunkline.fetch("billing")
    async with trunkline.subscribe("billing", start="earliest") as subscription:
        await subscription.opened()
    await published(trunkline, "a", "b", "c")
    async with await trunkline.fetch("billing", max_events=2) as fetched:
        first, second = list_of(fetched)
        first.ack()
        second.nack()
    again = await trunkline.fetch("billing")
    assert [(one.offset, one.attempt) for one in list_of(again)] == [(1, 2), (2, 1)]
    assert await again.settle() == ()


def list_of(fetched: Any) -> list[Any]:
    return [threaded(one) for one in getattr(fetched, "_face", fetched)]


# The connection.


async def test_a_connection_that_is_not_open_refuses(connect: Callable[..., Any]) -> None:
    trunkline = connect()
    with pytest.raises(RuntimeError, match="not open"):
        await trunkline.publish(Event(type="a"))
    async with trunkline:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        await trunkline.publish(Event(type="a"))


async def test_a_call_while_the_control_plane_is_away_waits_for_it(plane: FakeControlPlane, trunkline: Any) -> None:
    plane.go_away()
    waiting = asyncio.ensure_future(trunkline.publish(Event(type="a")))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    plane.come_back()
    assert (await waiting).offsets == (0,)


async def test_a_call_gives_up_at_its_deadline(plane: FakeControlPlane, trunkline: Any) -> None:
    plane.go_away()
    with pytest.raises(Unreachable):
        await trunkline.publish(Event(type="a"), timeout_s=0.1)
