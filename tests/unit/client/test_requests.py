"""Requests and replies over events, against the fake control plane: who gets which reply, errors, deadlines, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from trunkline.client import ClientOptions, Event, Subscription, Trunkline
from trunkline.client._event import event_from, event_to
from trunkline.client._request_events import (
    EXPIRY,
    OWN,
    REPLY_TOPIC,
    Wish,
    error_of_reply,
    failure_event,
    reply_event,
    request_event,
    wish_of,
)
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import (
    DeadlineExceeded,
    InstanceNotFound,
    InvalidArgument,
    LimitExceeded,
    RequestFailed,
    StreamNotFound,
)

WISH = Wish("c-1", "reply.abc", 1_800_000_000_000_000_000)


async def made(trunkline: Trunkline, name: str) -> None:
    """The subscription is there: requests wait in it for who serves them."""
    async with trunkline.subscribe(name, filters=["price.>"]) as subscription:
        await subscription.opened()


@asynccontextmanager
async def serving(
    trunkline: Trunkline, handler: Callable[[Event], Awaitable[Event]], *, name: str = "prices", **options: Any
) -> AsyncIterator[None]:
    await made(trunkline, name)
    task = asyncio.create_task(trunkline.serve_requests(["price.>"], handler, name=name, **options))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def double(request: Event) -> Event:
    await asyncio.sleep(0.01 / (1 + int(str(request.data))))  # replies come in another order than requests
    return Event(type="price.told", data=str(2 * int(str(request.data))))


def ask(number: int) -> Event:
    return Event(type="price.wanted", data=str(number))


# What stands on the wire.


def heard(event: Event) -> Event:
    """As it comes out at the other end."""
    return event_from(event_to(event))


def test_a_request_says_what_it_wants() -> None:
    asked = request_event(Event(type="price.wanted", attributes={"lang": "de"}), WISH)
    assert wish_of(asked) == WISH
    assert asked.attributes["lang"] == "de"
    assert asked.attributes[EXPIRY] == datetime.fromtimestamp(1_800_000_000, UTC)
    assert wish_of(request_event(Event(type="a"), WISH._replace(expires_ns=None))) == WISH._replace(expires_ns=None)


@pytest.mark.parametrize(
    ("expiry", "expires_ns"),
    [
        ("2027-01-15T08:00:00Z", 1_800_000_000_000_000_000),
        ("2027-01-15T10:00:00+02:00", 1_800_000_000_000_000_000),
        ("2027-01-15T08:00:00", None),
        ("soon", None),
        (7, None),
    ],
)
def test_a_deadline_may_be_text(expiry: str | int, expires_ns: int | None) -> None:
    wish = wish_of(Event(type="a", attributes={"correlationid": "c", REPLY_TOPIC: "reply.a", EXPIRY: expiry}))
    assert wish == Wish("c", "reply.a", expires_ns)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {REPLY_TOPIC: "reply.a"},
        {"correlationid": "", REPLY_TOPIC: "reply.a"},
        {"correlationid": "c", REPLY_TOPIC: 1},
        {"correlationid": "c", REPLY_TOPIC: "order.paid"},
    ],
)
def test_other_events_are_no_requests(attributes: dict[str, Any]) -> None:
    assert wish_of(Event(type="a", attributes=attributes)) is None


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_a_request_says_itself_is_not_said_by_others(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"event\.attributes"):
        request_event(Event(type="a", attributes={name: "x"}), WISH)
    with pytest.raises(InvalidArgument, match=r"reply\.attributes"):
        reply_event(Event(type="a", attributes={name: "x"}), WISH)


def test_an_error_is_the_same_at_the_other_end() -> None:
    error = InvalidArgument.of("order", "a number", "x")
    told = error_of_reply(heard(failure_event(error, WISH)))
    assert isinstance(told, InvalidArgument)
    assert told.violations == error.violations
    told = error_of_reply(heard(failure_event(ZeroDivisionError("by zero"), WISH)))
    assert isinstance(told, RequestFailed)
    assert str(told) == "ZeroDivisionError: by zero"
    bare = Event(type="a", data="text", attributes={"errorcode": "ODD"})
    assert isinstance(error_of_reply(bare), RequestFailed)
    assert error_of_reply(Event(type="a")) is None


# Asking and answering.


async def test_each_request_gets_its_own_reply() -> None:
    plane = FakeControlPlane()
    async with plane.connect(name="asks") as asking, plane.connect(name="serves") as answering:
        async with serving(answering, double):  # ends before the connections do
            replies = await asyncio.gather(*(asking.request(ask(n)) for n in range(50)))
        assert [reply.data for reply in replies] == [str(2 * n) for n in range(50)]
        assert {reply.source for reply in replies} == {"serves"}
        assert (asking.request_counts.sent, asking.request_counts.replied, asking.request_counts.dropped) == (50, 50, 0)


async def test_nothing_is_asked_before_the_reply_would_be_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    confirmed = asyncio.Event()

    async def opened(subscription: Subscription) -> None:
        await confirmed.wait()

    monkeypatch.setattr(Subscription, "opened", opened)
    plane = FakeControlPlane()
    async with plane.connect() as trunkline:
        asking = asyncio.create_task(trunkline.request(ask(0), timeout_s=0.2))
        await asyncio.sleep(0.05)
        assert plane.stream().next_offset == 0
        confirmed.set()
        with pytest.raises(DeadlineExceeded):
            await asking
    assert plane.stream().next_offset == 1


async def test_those_who_serve_by_one_name_share_the_work() -> None:
    plane, handled = FakeControlPlane(), [0, 0]

    def counting(who: int) -> Callable[[Event], Awaitable[Event]]:
        async def handler(request: Event) -> Event:
            handled[who] += 1
            await asyncio.sleep(0.01)
            return await double(request)

        return handler

    async with (
        plane.connect() as one,
        plane.connect() as other,
        serving(one, counting(0), concurrency=1),
        serving(other, counting(1), concurrency=1),
    ):
        await asyncio.gather(*(one.request(ask(n)) for n in range(20)))
    assert sum(handled) == 20
    assert min(handled) >= 5, "a busy one does not hold what an idle one could do"


async def test_what_a_handler_raises_is_raised_where_it_was_asked() -> None:
    async def broken(request: Event) -> Event:
        if request.data == "0":
            raise InstanceNotFound("no such price")
        return Event(type="a", data=str(1 // 0))

    plane = FakeControlPlane()
    async with plane.connect() as trunkline, serving(trunkline, broken):
        with pytest.raises(InstanceNotFound, match="no such price"):
            await trunkline.request(ask(0))
        with pytest.raises(RequestFailed, match="ZeroDivisionError"):
            await trunkline.request(ask(1))


async def test_a_handler_has_to_reply() -> None:
    async def silent(request: Event) -> Event:
        return None  # type: ignore[return-value]

    async with FakeControlPlane().connect() as trunkline, serving(trunkline, silent):
        with pytest.raises(InvalidArgument, match="reply"):
            await trunkline.request(ask(0))


async def test_without_a_reply_in_time() -> None:
    async with FakeControlPlane().connect() as trunkline:
        with pytest.raises(DeadlineExceeded, match="no reply within"):
            await trunkline.request(ask(0), timeout_s=0.05)
        with pytest.raises(InvalidArgument, match="timeout_s"):
            await trunkline.request(ask(0), timeout_s=0)
        with pytest.raises(StreamNotFound):
            await trunkline.request(ask(0), stream="nowhere")
        assert trunkline.request_counts.replied == 0


async def test_a_request_past_its_deadline_is_acknowledged_and_not_handled() -> None:
    plane, handled = FakeControlPlane(), []

    async def note(request: Event) -> Event:
        handled.append(request.data)
        return await double(request)

    async with plane.connect() as trunkline:
        await made(trunkline, "prices")
        with pytest.raises(DeadlineExceeded):
            await trunkline.request(ask(0), timeout_s=0.05)
    plane.advance(1)
    async with plane.connect() as trunkline, serving(trunkline, note):
        await trunkline.request(ask(1))
        assert handled == ["1"]
        assert len(await trunkline.fetch("prices")) == 0, "it does not come again"


async def test_a_handler_that_is_late_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def slow(request: Event) -> Event:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return request

    async with FakeControlPlane().connect() as trunkline, serving(trunkline, slow):
        with pytest.raises(DeadlineExceeded):
            await trunkline.request(ask(0), timeout_s=0.1)
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_late_and_second_replies_are_dropped_and_counted() -> None:
    async with FakeControlPlane().connect() as trunkline, trunkline.subscribe(filters=["price.>"]) as deliveries:
        await deliveries.opened()
        asking = asyncio.create_task(trunkline.request(ask(0)))
        delivery = await deliveries.next()
        assert delivery is not None
        wish = wish_of(delivery.event)
        assert wish is not None
        for number in range(3):
            await trunkline.publish(reply_event(Event(type="a", data=str(number)), wish))
        assert (await asking).data == "0"
        async with asyncio.timeout(5):
            while trunkline.request_counts.dropped < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_events_that_are_no_requests_are_passed_over() -> None:
    async with FakeControlPlane().connect() as trunkline, serving(trunkline, double):
        await trunkline.publish(ask(0))
        assert (await trunkline.request(ask(1))).data == "2"


async def test_requests_that_wait_are_bounded() -> None:
    async with FakeControlPlane().connect(options=ClientOptions(requests_max=2)) as trunkline:
        waiting = [asyncio.create_task(trunkline.request(ask(n), timeout_s=5)) for n in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(LimitExceeded, match=r"requests_max = 2"):
            await trunkline.request(ask(2))
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        with pytest.raises(DeadlineExceeded):
            await trunkline.request(ask(3), timeout_s=0.05)
        waiting[1].cancel()
        await asyncio.gather(waiting[1], return_exceptions=True)


async def test_replies_come_through_a_break_of_the_connection() -> None:
    plane = FakeControlPlane()
    async with plane.connect() as trunkline, plane.connect() as other, serving(other, double):
        await trunkline.request(ask(0))
        plane.go_away()
        plane.come_back()
        assert (await trunkline.request(ask(1))).data == "2"
