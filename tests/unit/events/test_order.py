"""In which order a subscription's events go out, told in single stories; tests/property/test_events_subscription.py tells
the rest."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.api.v1 import events_pb2
from trunkline.core.hashing import xxh64
from trunkline.server.events.bounds import LookAhead
from trunkline.server.events.change_events import ChangeBlock, DerivedEvent
from trunkline.server.events.delivery import Limits
from trunkline.server.events.event_block import EventBlock
from trunkline.server.events.order import NO_KEY, Ordering
from trunkline.server.events.progress import Progress, SetAside
from trunkline.server.events.subscription import SubscriptionState

NOW = 5_000_000
EPOCH = 1_700_000_000_000_000_000


def state(ordering: Ordering, keys: Sequence[int], *, max_deliveries: int = 20) -> SubscriptionState:
    """One with these events, a consumer that takes all, and everything counted that may be delivered."""
    made = SubscriptionState(
        Limits(ordering=ordering, max_deliveries=max_deliveries, ack_deadline_ns=1_000), incarnation=1, position=0
    )
    made.offer(range(len(keys)), len(keys), time_ns=EPOCH, keys=keys)
    ready(made)
    return made


def ready(made: SubscriptionState) -> None:
    made.consumers.add(1)
    made.consumers.give(1, 1_000)
    count(made)


def count(made: SubscriptionState) -> None:
    """A checkpoint is durable."""
    made.saved(made.save(NOW, EPOCH))


def delivered(made: SubscriptionState) -> list[int]:
    return [delivery.offset for delivery in made.take(NOW)]


def recovered(made: SubscriptionState, keys: Sequence[int], *, clean: bool) -> SubscriptionState:
    progress = made.save(NOW, EPOCH, final=clean).progress
    again = SubscriptionState.recover(made.limits, progress, end=len(keys), now_ns=NOW, time_ns=EPOCH)
    begin = again.next_offset
    again.offer(range(begin, len(keys)), len(keys), time_ns=EPOCH, keys=keys[begin:])
    ready(again)
    return again


def test_one_of_a_key_at_a_time_and_keys_do_not_wait_for_one_another() -> None:
    made = state(Ordering.KEYED, [1, 1, 2, 1, 2, 0, 0])
    assert delivered(made) == [0, 2, 5, 6]
    assert (made.held, made.floor, delivered(made)) == (3, 0, [])
    made.ack(2, 1)
    assert delivered(made) == [4]
    made.ack(0, 1)
    assert delivered(made) == [1]
    assert made.floor == 1


def test_one_at_a_time() -> None:
    made = state(Ordering.SEQUENTIAL, [1, 2, 3])
    for offset in range(3):
        assert delivered(made) == [offset]
        made.ack(offset, 1)
    assert made.floor == made.next_offset == 3


def test_a_key_waits_for_what_is_put_off_and_goes_on_behind_what_is_set_aside() -> None:
    made = state(Ordering.KEYED, [1, 1, 2], max_deliveries=2)
    assert delivered(made) == [0, 2]
    made.nack(0, 1, delay_ns=100, now_ns=NOW, time_ns=EPOCH)
    assert delivered(made) == []
    assert made.take(NOW + 100) == []
    count(made)
    assert [d.offset for d in made.take(NOW + 100)] == [0]
    made.nack(0, 1, delay_ns=0, now_ns=NOW, time_ns=EPOCH)
    assert list(made.set_aside) == [0]
    assert delivered(made) == [1]


def test_a_released_event_stands_at_the_end_of_its_lane() -> None:
    made = state(Ordering.KEYED, [1, 1, 1])
    assert delivered(made) == [0]
    made.term(0, 1, reason="no", time_ns=EPOCH)
    assert delivered(made) == [1]
    made.release([0], first_offset=0, now_ns=NOW, time_ns=EPOCH)
    count(made)
    order = [1]
    made.ack(1, 1)
    while len(order) < 3:
        for offset in delivered(made):
            order.append(offset)
            made.ack(offset, 1)
        count(made)
    assert order == [1, 2, 0]


def test_after_a_clean_stop_what_was_held_counts_as_never_tried() -> None:
    keys = [1, 1, 2, 2, 0]
    made = state(Ordering.KEYED, keys, max_deliveries=1)
    assert delivered(made) == [0, 2, 4]
    made.ack(0, 1)
    made.ack(2, 1)
    made.ack(4, 1)
    again = recovered(made, keys, clean=True)
    assert (again.ready, again.waiting, list(again.set_aside)) == (2, 0, [])
    assert delivered(again) == [1, 3]


def test_what_counts_as_never_tried_is_not_delivered_before_a_checkpoint_counts_it() -> None:
    keys = [1, 1, 2]
    made = state(Ordering.KEYED, keys)
    assert delivered(made) == [0, 2]
    made.ack(0, 1)
    progress = made.save(NOW, EPOCH, final=True).progress
    assert (progress.delivered_to, progress.first_untried) == (3, 1)
    again = SubscriptionState.recover(made.limits, progress, end=3, now_ns=NOW, time_ns=EPOCH)
    again.offer([1, 2], 3, time_ns=EPOCH, keys=[1, 2])
    again.consumers.add(1)
    again.consumers.give(1, 10)
    assert delivered(again) == []
    assert again.blocked
    count(again)
    assert sorted(delivered(again)) == [1, 2]


def test_what_was_held_stays_untried_when_the_history_behind_it_is_cut() -> None:
    progress = Progress(incarnation=1, floor=8, delivered_to=40, done=b"\x01\x01", untried=b"\x06\x02")
    moved = progress.moved_to(2, 12)
    assert [o for o in range(8, 40) if moved.is_untried(o)] == [9, 10]
    assert (moved.delivered_to, moved.first_untried) == (12, 9)
    assert Progress(incarnation=1, floor=8, delivered_to=40).first_untried == 40


def test_a_clean_stop_before_all_was_looked_at_again_forgets_nothing_that_is_untried() -> None:
    keys = [1, 1, 1, 1, 2]
    made = state(Ordering.KEYED, keys)
    assert delivered(made) == [0, 4]
    first = made.save(NOW, EPOCH, final=True).progress
    again = SubscriptionState.recover(made.limits, first, end=5, now_ns=NOW, time_ns=EPOCH)
    again.offer([0, 1], 2, time_ns=EPOCH, keys=[1, 1])
    second = again.save(NOW, EPOCH, final=True).progress
    assert [o for o in range(5) if second.is_untried(o)] == [1, 2, 3]


def test_a_lane_goes_on_whatever_has_become_of_those_before() -> None:
    made = state(Ordering.KEYED, [1] * 6, max_deliveries=1)
    for offset in range(6):
        assert delivered(made) == [offset]
        if offset % 2:
            made.nack(offset, 1, delay_ns=0, now_ns=NOW, time_ns=EPOCH)
        else:
            made.term(offset, 1, reason="no", time_ns=EPOCH)
    assert len(made.set_aside) == 6
    assert made.floor == 6


def test_after_a_crash_it_goes_on_in_order() -> None:
    keys = [1, 1, 1, 2]
    made = state(Ordering.KEYED, keys)
    assert delivered(made) == [0, 3]
    again = recovered(made, keys, clean=False)
    assert delivered(again) == []
    count(again)
    assert delivered(again) == [0, 3]
    again.ack(0, 1)
    count(again)
    assert delivered(again) in ([], [1])


def test_retention_takes_the_head_of_a_lane_and_the_next_goes_out() -> None:
    made = state(Ordering.KEYED, [1, 1, 1, 1])
    assert made.truncate(2)
    assert delivered(made) == [2]
    assert made.counts.missed == 2


def test_one_that_is_released_before_it_is_looked_at_again_is_not_lost_in_a_crash() -> None:
    for ordering in Ordering:
        progress = Progress(
            incarnation=1, floor=0, done=b"\x10", delivered_to=5, set_aside=(SetAside(4, 1, "no", EPOCH, 1),)
        )
        made = SubscriptionState.recover(Limits(ordering=ordering), progress, end=5, now_ns=NOW, time_ns=EPOCH)
        made.release([4], first_offset=0, now_ns=NOW, time_ns=EPOCH)
        ready(made)
        assert delivered(made) == []
        count(made)
        assert delivered(made) == [4]
        again = recovered(made, [0, 0, 0, 0, 1], clean=False)
        seen = set()
        for _ in range(20):
            for offset in delivered(again):
                seen.add(offset)
                again.ack(offset, 1)
            count(again)
        assert 4 in seen, ordering


def test_one_lane_looks_no_further_ahead_than_it_has_to() -> None:
    for ordering, wants in ((Ordering.SEQUENTIAL, False), (Ordering.KEYED, True)):
        made = SubscriptionState(Limits(ordering=ordering), incarnation=1, position=0)
        many = LookAhead().ready_max
        made.offer(range(many), many, time_ns=EPOCH, keys=[1] * many)
        assert made.wants() is wants


def test_the_key_is_any_attribute_as_it_is_written() -> None:
    event = events_pb2.CloudEvent(id="e1", source="/s", type="order.placed", spec_version="1.0")
    event.attributes["tenant"].ce_string = "acme"
    event.attributes["shard"].ce_integer = 7
    event.attributes["urgent"].ce_boolean = True
    event.attributes["time"].ce_timestamp.FromSeconds(1)
    event.attributes["raw"].ce_bytes = b"\x01"
    event.attributes["empty"].ce_string = ""
    body = event.SerializeToString()
    block = EventBlock(ChangeBlock([DerivedEvent(5, 1, "order.placed", body)], end=6), [5], start=5, end=6)
    for attribute, text in {
        "tenant": "acme", "shard": "7", "urgent": "true", "time": "1970-01-01T00:00:01Z", "raw": "AQ==", "id": "e1",
        "source": "/s", "type": "order.placed",
    }.items():  # fmt: skip
        assert list(block.keys(attribute)) == [xxh64(text.encode())], attribute
    assert list(block.keys("empty")) == list(block.keys("missing")) == [NO_KEY]
    assert list(block.keys("partitionkey")) == [NO_KEY]
