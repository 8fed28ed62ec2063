"""Why a subscription delivers nothing, or what it is doing: everything that holds now, the most telling first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import TrunklineError

from . import bounds
from .delivery import NEVER, Entry
from .feed import Feed
from .subscription import SubscriptionState

LANES_SHOWN = 5
Response = events_pb2.ExplainSubscriptionResponse
Cause = Response.Cause


class Moment(NamedTuple):
    """What a subscription's state does not know itself."""

    end: int
    """The offset that the stream's next event gets."""
    now_ns: int
    time_ns: int
    dead_letter_failure: TrunklineError | None


def explain(feed: Feed, moment: Moment) -> list[Response.Finding]:
    """At least one finding."""
    state = feed.state
    found = [*_stopped(feed, moment), *_consumers(feed), *_lanes(feed, moment), *_put_off(state, moment)]
    if moment.dead_letter_failure is not None:
        why = moment.dead_letter_failure.message
        text = f"{len(state.set_aside)} events wait for stream {feed.settings.dead_letter_stream}: {why}"
        found.append(_finding(Cause.CAUSE_DEAD_LETTERS_STUCK, text))
    if not found:
        found = list(_going(feed, moment))
    return found


def _finding(
    cause: Cause.ValueType, message: str, *, offset: int | None = None, since_ns: int | None = None
) -> Response.Finding:
    since = None if since_ns is None else convert.time_ns_to(since_ns)
    return Response.Finding(cause=cause, message=message, offset=offset, since=since)


def _stopped(feed: Feed, moment: Moment) -> Iterator[Response.Finding]:
    """Limits of the subscription that hold back everything."""
    state = feed.state
    if len(state.set_aside) >= bounds.SET_ASIDE_MAX:
        text = f"{len(state.set_aside)} events are set aside: redrive some of them"
        yield _finding(Cause.CAUSE_SET_ASIDE_LIMIT, text, offset=min(state.set_aside))
    if state.in_flight >= state.limits.max_in_flight:
        by = ", ".join(f"{count} at {client}" for client, count in sorted(feed.in_flight_by_client().items()))
        text = f"{state.in_flight} deliveries stand open, max_in_flight is {state.limits.max_in_flight}: {by}"
        yield _finding(Cause.CAUSE_IN_FLIGHT_LIMIT, text)
    ahead = state.next_offset - state.floor
    if ahead < state.limits.look_ahead.look_ahead_max or state.ready_now:
        return
    if state.parked >= state.limits.look_ahead.parked_max:
        text = f"{state.parked} keys are stuck, and the events of no further key can be passed over"
        yield _finding(Cause.CAUSE_PARKED_LIMIT, text, offset=state.floor)
    else:
        text = f"the event at the floor is not done, and everything up to {ahead} positions ahead has been looked at"
        yield _finding(Cause.CAUSE_LOOK_AHEAD_LIMIT, text, offset=state.floor)


def _consumers(feed: Feed) -> Iterator[Response.Finding]:
    consumers = feed.state.consumers.all()
    if not consumers:
        yield _finding(Cause.CAUSE_NO_CONSUMERS, "nobody consumes it")
    elif not any(consumer.credit for consumer in consumers):
        holds = ", ".join(f"{count} at {client}" for client, count in sorted(feed.in_flight_by_client().items()))
        text = f"its {len(consumers)} consumers have used up their credit" + (f": in flight {holds}" if holds else "")
        yield _finding(Cause.CAUSE_NO_CREDIT, text)
    elif all(consumer.paused for consumer in consumers if consumer.credit):
        yield _finding(
            Cause.CAUSE_CONSUMERS_FULL, "those of its consumers that have credit take no bytes at the moment"
        )


def _lanes(feed: Feed, moment: Moment) -> Iterator[Response.Finding]:
    """Events that others of their key wait for, those with the longest queue first."""
    for offset, waiting in feed.state.blocking()[:LANES_SHOWN]:
        entry = feed.state.entry_at(offset)
        where = "is about to be delivered" if entry is None else _where(feed, entry, moment)
        since_ns = None
        if entry is not None and entry.in_flight:
            since_ns = moment.time_ns - (moment.now_ns - (entry.deadline_ns - feed.state.limits.ack_deadline_ns))
        text = f"{waiting} events wait for the one at {offset}, which {where}"
        yield _finding(Cause.CAUSE_LANE_BLOCKED, text, offset=offset, since_ns=since_ns)
    for offset, from_offset in feed.state.parked_behind()[:LANES_SHOWN]:
        entry = feed.state.entry_at(offset)
        where = "is about to be delivered" if entry is None else _where(feed, entry, moment)
        text = f"the events of its key from {from_offset} on are passed over until the one at {offset} is done, which {where}"
        yield _finding(Cause.CAUSE_LANE_PARKED, text, offset=offset)


def _where(feed: Feed, entry: Entry, moment: Moment) -> str:
    if entry.in_flight:
        return f"is with {feed.name_of(entry.consumer)}, attempt {entry.attempts}"
    wait_ns = max(0, entry.not_before_ns - moment.now_ns)
    return f"was delivered {entry.attempts} times and waits for {wait_ns / 1e9:.1f} s"


def _put_off(state: SubscriptionState, moment: Moment) -> Iterator[Response.Finding]:
    due_ns = state.next_redelivery_ns()
    if not state.in_flight and not state.ready_now and moment.now_ns < due_ns < NEVER:
        text = (
            f"{state.waiting} events wait to be delivered again, the first for {(due_ns - moment.now_ns) / 1e9:.1f} s"
        )
        yield _finding(Cause.CAUSE_PUT_OFF, text)


def _going(feed: Feed, moment: Moment) -> Iterator[Response.Finding]:
    """Nothing is in its way."""
    state = feed.state
    if feed.looked_at and not feed.matched and feed.settings.narrows:
        text = f"of the {feed.looked_at} events that it looked at since the start its filters took none"
        yield _finding(Cause.CAUSE_FILTER_MATCHES_NOTHING, text)
    if state.floor >= moment.end:
        yield _finding(Cause.CAUSE_CAUGHT_UP, f"everything up to the stream's end at {moment.end} is done")
    elif state.next_offset >= moment.end and not state.ready_now and not state.waiting:
        text = f"everything up to the stream's end at {moment.end} is done or in flight ({state.in_flight})"
        yield _finding(Cause.CAUSE_CAUGHT_UP, text)
    elif feed.has_more and not state.ready_now:
        yield _finding(
            Cause.CAUSE_WAITS_FOR_DISK, "it waits for the journal: a read, or a checkpoint that counts attempts"
        )
    else:
        yield _finding(Cause.CAUSE_DELIVERING, f"it is delivering; {state.in_flight} are in flight")
