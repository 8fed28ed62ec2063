"""A subscription's words and credit, message by message."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.api.v1 import events_pb2
from trunkline.api.v1.events_pb2 import Acknowledgement, SubscriptionConfig, SubscriptionNotice
from trunkline.client._fork import ForkGuard
from trunkline.client._subscription import Subscription, SubscriptionSpec

OPENED = SubscriptionNotice(kind=SubscriptionNotice.KIND_OPENED, incarnation=1)


class Speaker:
    """Counts."""

    def __init__(self) -> None:
        self.woken = 0
        self.closed = 0

    def wake(self) -> None:
        self.woken += 1

    def close_subscription(self, subscription: Subscription) -> None:
        self.closed += 1


def subscription(name: str = "billing", *, acknowledge: bool = True) -> Subscription:
    spec = SubscriptionSpec(
        namespace="n",
        stream="events",
        name=name,
        config=SubscriptionConfig(),
        credit=3,
        acknowledge=acknowledge,
        client="test",
    )
    return Subscription(Speaker(), spec, ForkGuard())


def deliver(to: Subscription, *offsets: int, attempt: int = 1) -> None:
    for offset in offsets:
        event = events_pb2.CloudEvent(id=str(offset), source="s", spec_version="1.0", type="t")
        to.delivered(events_pb2.Delivery(offset=offset, attempt=attempt, event=event))


def said(of: Subscription) -> tuple[dict[str, list[int]], int]:
    """Words by outcome, and the credit given back."""
    acknowledgements, credit = of.outgoing(1)
    words = {Acknowledgement.Outcome.Name(one.outcome)[8:]: list(one.offsets) for one in acknowledgements}
    return words, credit.credit if credit is not None else 0


async def test_credit_comes_back_as_deliveries_are_settled() -> None:
    one = subscription()
    (opened,) = one.opening(1)
    assert opened.open.credit == 3
    one.noticed(OPENED)
    deliver(one, 0, 1, 2)
    first, second, third = [await one.next() for _ in range(3)]
    assert said(one) == ({}, 0)
    assert first is not None
    assert second is not None
    assert third is not None
    first.progress()
    first.ack()
    second.nack(1.5)
    third.term("why")
    first.nack()
    assert said(one) == ({"PROGRESS": [0], "ACK": [0], "NACK": [1], "TERM": [2]}, 3)


async def test_credit_of_a_lost_connection_is_not_given_to_the_next() -> None:
    one = subscription()
    one.opening(1)
    one.noticed(OPENED)
    deliver(one, 0, 1, 2)
    held = [await one.next() for _ in range(3)]
    assert one.opening(2)[0].open.credit == 3
    one.noticed(OPENED)
    deliver(one, 1, attempt=2)
    for delivery in held:
        assert delivery is not None
        delivery.ack()
    assert said(one) == ({"ACK": [0, 1, 2]}, 1), "only offset 1 took credit of this connection"


async def test_a_lost_acknowledgement_is_said_again_and_costs_no_credit() -> None:
    one = subscription()
    one.opening(1)
    one.noticed(OPENED)
    deliver(one, 0)
    delivery = await one.next()
    assert delivery is not None
    delivery.ack()
    assert said(one) == ({"ACK": [0]}, 1)
    one.opening(2)
    one.noticed(OPENED)
    deliver(one, 0, attempt=2)
    assert said(one) == ({"ACK": [0]}, 1)
    assert one.in_hand == 0


async def test_a_lost_termination_is_said_again_as_what_it_was() -> None:
    one = subscription()
    one.opening(1)
    one.noticed(OPENED)
    deliver(one, 0)
    delivery = await one.next()
    assert delivery is not None
    delivery.term("no such address")
    assert said(one) == ({"TERM": [0]}, 1)
    one.opening(2)
    one.noticed(OPENED)
    deliver(one, 0, attempt=2)
    acknowledgements, _ = one.outgoing(1)
    assert [(word.outcome, word.reason) for word in acknowledgements] == [
        (Acknowledgement.OUTCOME_TERM, "no such address")
    ]


async def test_what_is_delivered_anew_on_request_after_a_reconnect_is_handed_on() -> None:
    """A redrive, a release and a seek count attempts anew; a word that was lost is asked for by the next attempt."""
    one = subscription()
    one.opening(1)
    one.noticed(OPENED)
    deliver(one, 0)
    delivery = await one.next()
    assert delivery is not None
    delivery.ack()
    said(one)
    one.opening(2)
    one.noticed(OPENED)
    deliver(one, 0, attempt=1)
    assert said(one) == ({}, 0)
    again = await one.next()
    assert again is not None
    assert (again.offset, again.attempt) == (0, 1)


async def test_words_that_waited_go_first_after_a_reconnect() -> None:
    one = subscription()
    one.opening(1)
    one.noticed(OPENED)
    deliver(one, 0)
    delivery = await one.next()
    assert delivery is not None
    delivery.ack()
    opened, words = one.opening(2)
    assert opened.HasField("open")
    assert list(words.acknowledgements[0].offsets) == [0]


async def test_without_acknowledgements_reading_gives_the_credit_back() -> None:
    one = subscription("", acknowledge=False)
    (opened,) = one.opening(1)
    assert opened.open.no_acknowledgement
    one.noticed(OPENED)
    deliver(one, 5, 6)
    assert said(one) == ({}, 0)
    delivery = await one.next()
    assert delivery is not None
    assert delivery.settled
    assert said(one) == ({}, 1)
    one.opening(2)
    one.noticed(OPENED)
    deliver(one, 5, 6, 7)  # sent again from the last bookmark
    assert said(one) == ({}, 2), "repeats are dropped, and their credit comes back"
    offsets = []
    for _ in range(2):
        delivery = await one.next()
        assert delivery is not None
        offsets.append(delivery.offset)
    assert offsets == [6, 7]


async def test_a_closed_subscription_ends_and_says_so_once() -> None:
    one = subscription()
    one.opening(1)
    deliver(one, 0)
    one.close()
    one.close()
    assert await one.next() is None
    assert isinstance(one._speaker, Speaker)
    assert one._speaker.closed == 1


async def test_a_second_consumer_of_one_object_is_refused() -> None:
    one = subscription()
    one._consumed = asyncio.Event()
    with pytest.raises(RuntimeError, match="being consumed"):
        await one.consume(lambda _: None)  # type: ignore[arg-type,return-value]
