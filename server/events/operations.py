"""What an operator does to a subscription: move it, have events delivered again, ask why it delivers nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument

from .checkpoint import Checkpoints
from .dead_letters import DeadLetters
from .dispatcher import Dispatcher
from .feed import Feed
from .stream import EventStream
from .subscriptions import Subscriptions

SHOWN_DEFAULT = 100
"""Set-aside events that are shown to whoever does not say how many."""


class Redelivered(NamedTuple):
    """What became of offsets that were to be delivered again."""

    again: list[int]
    not_kept: list[int]
    not_done: list[int]


def copied(request: events_pb2.CreateSubscriptionRequest, feed: Feed) -> events_pb2.SubscriptionConfig:
    """The configuration that a copy of a subscription gets, without its webhook. InvalidArgument when more is said than where
    it begins."""
    said = events_pb2.SubscriptionConfig()
    said.CopyFrom(request.config)
    said.ClearField("start")
    if said.ByteSize():
        raise InvalidArgument.of("config", "only config.start beside copy_of", "more")
    config = feed.settings.message()
    config.ClearField("webhook")  # a copy is for looking: its events go to whoever opens it
    if request.config.start.WhichOneof("start") is None:
        config.start.offset = feed.state.floor
    else:
        config.start.CopyFrom(request.config.start)
    return config


async def set_aside(
    stream: EventStream, feed: Feed, *, max_events: int, from_offset: int = 0
) -> list[events_pb2.SetAsideEvent]:
    """The set-aside events, lowest offsets first, with their content where it is still kept."""
    shown = []
    offsets = sorted(offset for offset in feed.state.set_aside if offset >= from_offset)
    for offset in offsets[: max_events or SHOWN_DEFAULT]:
        aside = feed.state.set_aside.get(offset)
        if aside is None:
            continue
        event = events_pb2.SetAsideEvent(
            offset=offset,
            attempts=aside.attempts,
            reason=aside.reason,
            time=convert.time_ns_to(aside.time_ns),
        )
        body = await stream.dispatcher.event_at(offset)
        if body is not None:
            event.event.ParseFromString(bytes(body))
        shown.append(event)
    return shown


async def seek(
    stream: EventStream,
    feed: Feed,
    to: events_pb2.StartPosition,
    subscriptions: Subscriptions,
    checkpoints: Checkpoints,
) -> int:
    """Move a subscription; when this returns, that is durable. Gives where it stood. PositionOutOfRange, LimitExceeded."""
    old_floor = feed.seek(*await subscriptions.begin(stream, to, feed.settings))
    await checkpoints.write_now([feed])
    return old_floor


async def redeliver(
    stream: EventStream,
    feed: Feed,
    offsets: Sequence[int],
    checkpoints: Checkpoints,
    dead_letters: DeadLetters,
    *,
    incarnation: int = 0,
) -> Redelivered:
    """Deliver events again whatever became of them; when this returns, that is durable. LimitExceeded.

    Offsets that the stream took in another `incarnation` are other events: not kept. 0 does not ask.
    """
    keys: dict[int, int] = {}
    not_kept = []
    for offset in dict.fromkeys(offsets):
        is_same = incarnation in (0, stream.incarnation_of(offset))
        key = await _key_of(stream.dispatcher, feed, offset) if is_same else None
        if key is None:
            not_kept.append(offset)
        else:
            keys[offset] = key
    not_done = feed.redeliver(keys)
    await checkpoints.write_now([feed])
    dead_letters.looked_after(feed)
    return Redelivered(sorted(keys.keys() - set(not_done)), not_kept, not_done)


async def _key_of(dispatcher: Dispatcher[object], feed: Feed, offset: int) -> int | None:
    """The key hash of an event; None when it is not there, or the subscription does not take it."""
    block = await dispatcher.block_of(offset)
    return None if block is None else feed.key_at(block, offset)
