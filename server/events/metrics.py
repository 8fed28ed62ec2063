"""What is counted of streams and subscriptions. Names end in _total where they only grow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .checkpoint import Checkpoints
from .dead_letters import DeadLetters
from .delivery import Counts
from .feed import Feed
from .stream import EventStream


def measured(streams: Iterable[EventStream], checkpoints: Checkpoints, *, sessions: int) -> dict[str, float]:
    """Sums over all streams and durable subscriptions; `lag_positions_max` is that of the one furthest behind."""
    values: dict[str, float] = dict.fromkeys(GAUGES, 0.0)
    values |= {f"{name}_total": 0.0 for name in asdict(Counts())}
    values |= {"compaction_passes_total": 0.0, "compaction_removed_total": 0.0, "compaction_saved_bytes_total": 0.0}
    values |= {"published_total": 0.0, "duplicates_total": 0.0, "hash_collisions_total": 0.0}
    values |= {"producers_fenced_total": 0.0, "sequences_out_of_order_total": 0.0}
    values |= {"checkpoints_total": checkpoints.written, "checkpoint_failures_total": checkpoints.failures}
    values["sessions"] = sessions
    for stream in streams:
        _add_stream(values, stream)
        for feed in stream.feeds.values():
            state = feed.state
            values["subscriptions"] += 1
            values["consumers"] += len(feed.consumers)
            values["in_flight"] += state.in_flight
            values["waiting"] += state.waiting
            values["set_aside"] += len(state.set_aside)
            values["parked_lanes"] += state.parked
            values["lag_positions_max"] = max(values["lag_positions_max"], feed.lag)
            for name, count in asdict(state.counts).items():
                values[f"{name}_total"] += count
    return values


GAUGES = (
    "streams",
    "stream_bytes",
    "streams_failed",
    "cache_bytes",
    "followers",
    "producers",
    "subscriptions",
    "consumers",
    "in_flight",
    "waiting",
    "set_aside",
    "parked_lanes",
    "lag_positions_max",
)


def _add_stream(values: dict[str, float], stream: EventStream) -> None:
    values["streams"] += 1
    values["stream_bytes"] += stream.history.bytes
    values["cache_bytes"] += stream.dispatcher.cache.bytes
    values["followers"] += len(stream.dispatcher.followers)
    if not stream.derived:
        event_log = stream.event_log
        values["streams_failed"] += event_log.failed
        values["published_total"] += event_log.published
        values["duplicates_total"] += event_log.duplicates
        values["hash_collisions_total"] += event_log.collisions
        values["producers"] += event_log.remembered_producers
        values["producers_fenced_total"] += event_log.fenced
        values["sequences_out_of_order_total"] += event_log.out_of_order
        compacted = event_log.log.compacted
        values["compaction_passes_total"] += compacted.runs
        values["compaction_removed_total"] += compacted.removed
        values["compaction_saved_bytes_total"] += max(0, compacted.saved_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsAlarm:
    """Something that an operator should know; it stands until its cause is gone."""

    name: str
    namespace: str
    subject: str
    message: str
    since_ns: int
    """Nanoseconds since the epoch; 0 when that is not known."""


def alarms(streams: Iterable[EventStream], dead_letters: DeadLetters) -> list[EventsAlarm]:
    """EVENTS_SET_ASIDE and EVENTS_DEAD_LETTERED of subscriptions, STREAM_FAILED of streams."""
    found = []
    for stream in streams:
        if not stream.derived and stream.event_log.failed:
            found.append(
                EventsAlarm(
                    name="STREAM_FAILED",
                    namespace=stream.namespace,
                    subject=stream.name,
                    message="its log has failed and is being recovered; it takes no events",
                    since_ns=0,
                )
            )
        for name, feed in sorted(stream.feeds.items()):
            if feed.state.set_aside:
                found.append(_set_aside(stream, name, feed))
            if feed in dead_letters.first_ns:
                found.append(_dead_lettered(stream, name, feed, dead_letters.first_ns[feed]))
    return found


def _set_aside(stream: EventStream, name: str, feed: Feed) -> EventsAlarm:
    aside = feed.state.set_aside
    return EventsAlarm(
        name="EVENTS_SET_ASIDE",
        namespace=stream.namespace,
        subject=f"{stream.name}/{name}",
        message=f"{len(aside)} events are kept out of the way until they are released",
        since_ns=min(one.time_ns for one in aside.values()),
    )


def _dead_lettered(stream: EventStream, name: str, feed: Feed, since_ns: int) -> EventsAlarm:
    return EventsAlarm(
        name="EVENTS_DEAD_LETTERED",
        namespace=stream.namespace,
        subject=f"{stream.name}/{name}",
        message=f"events went to stream {feed.settings.dead_letter_stream}; a redrive ends this alarm",
        since_ns=since_ns,
    )
