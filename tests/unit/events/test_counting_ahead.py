"""How many deliveries a checkpoint counts before they are made: enough not to wait often, few enough to be told the truth."""

from __future__ import annotations

from trunkline.server.events.bounds import DEFAULT as AHEAD
from trunkline.server.events.delivery import Delivery, Limits, Settled
from trunkline.server.events.order import Ordering
from trunkline.server.events.progress import Progress
from trunkline.server.events.subscription import SubscriptionState

EVENTS = 900
LIMITS = Limits(max_deliveries=3, max_in_flight=1_000)


def checkpoint(state: SubscriptionState) -> Progress:
    saving = state.save(0, 0)
    state.saved(saving)
    return saving.progress


def fetch(state: SubscriptionState, count: int) -> tuple[list[Delivery], Progress]:
    """What somebody who pulls gets, and the checkpoint that counts it."""
    progress = checkpoint(state)
    state.consumers.add(1)
    state.consumers.give(1, count)
    got: list[Delivery] = []
    while len(got) < count:
        got += state.take(0)
        if state.blocked:
            progress = checkpoint(state)
    return got, progress


def recovered(progress: Progress) -> SubscriptionState:
    """After a crash, with all of the stream looked at."""
    state = SubscriptionState.recover(LIMITS, progress, end=EVENTS, now_ns=0, time_ns=0)
    state.offer(range(state.next_offset, EVENTS), EVENTS, time_ns=0)
    return state


def test_crashes_do_not_use_up_the_deliveries_of_events_that_nobody_saw() -> None:
    state = SubscriptionState(LIMITS, incarnation=1, position=0)
    state.offer(range(EVENTS), EVENTS, time_ns=0)
    for _ in range(8):
        _, progress = fetch(state, 2)
        state = recovered(progress)
    assert len(state.set_aside) < 8 * AHEAD.count_ahead_min
    assert state.waiting == EVENTS - len(state.set_aside)
    _, progress = fetch(state, 2)
    assert len(progress.open) <= 3 * AHEAD.count_ahead_min, "a checkpoint speaks of each event that waits"


def test_redeliveries_wait_for_few_checkpoints_when_many_are_taken() -> None:
    state = SubscriptionState(LIMITS, incarnation=1, position=0)
    state.offer(range(EVENTS), EVENTS, time_ns=0)
    state = recovered(fetch(state, EVENTS)[1])
    state.consumers.add(1)
    got, waits = 0, 0
    while got < EVENTS:
        state.consumers.set_credit(1, 10)
        delivered = state.take(0)
        got += len(delivered)
        if state.blocked:
            waits += 1
            checkpoint(state)
    assert waits <= 12, f"{waits} checkpoints before {EVENTS} events"


def test_what_was_given_back_before_a_clean_stop_comes_before_what_is_new() -> None:
    state = SubscriptionState(LIMITS, incarnation=1, position=0)
    state.offer(range(300), 300, time_ns=0)
    fetch(state, 300)
    state.remove_consumer(1, clean=True, now_ns=0, time_ns=0)
    state = recovered(state.save(0, 0, final=True).progress)
    state.consumers.add(1)
    got: list[Delivery] = []
    while len(got) < EVENTS:
        state.consumers.set_credit(1, 50)
        got += state.take(0)
        if state.blocked:
            checkpoint(state)
    assert [(delivery.offset, delivery.attempt) for delivery in got] == [(offset, 1) for offset in range(EVENTS)]


def test_a_lane_that_was_parked_comes_back_many_events_a_checkpoint() -> None:
    limits = Limits(ordering=Ordering.KEYED, max_in_flight=1_000)
    state = SubscriptionState(limits, incarnation=1, position=0)
    state.consumers.add(1)
    state.consumers.give(1, 2 * EVENTS)
    state.offer(range(EVENTS), EVENTS, time_ns=0, keys=[7] * EVENTS)
    checkpoint(state)
    state.take(0)
    for now_ns in (0, AHEAD.stuck_ns, 2 * AHEAD.stuck_ns):
        state.park_stuck(now_ns)
    assert (state.parked, state.held) == (1, 0)
    checkpoint(state)
    state.ack(0, 1)
    order, waits = [0], 0
    while len(order) < EVENTS:
        for key, position in state.wanted_lanes():
            end = min(position + AHEAD.readmit_max, EVENTS)
            state.readmit(key, range(position, end), end, time_ns=0)
        if state.blocked:
            waits += 1
            checkpoint(state)
        for delivery in state.take(0):
            assert state.ack(delivery.offset, 1) is Settled.DONE
            order.append(delivery.offset)
    assert order == list(range(EVENTS))
    assert waits <= 2 * EVENTS / AHEAD.count_ahead_min, f"{waits} checkpoints before {EVENTS} events"
