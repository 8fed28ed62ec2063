"""Gives a subscription what failed once more, paced, from its set-aside list or from its dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline.api.v1 import events_pb2
from trunkline.client import Delivery, Fetched, Trunkline
from trunkline.core.fanout import matches

BATCH = 100
LOOK_S = 0.5
"""How long to wait for another dead letter before there is none."""
ACK_DEADLINE_S = 600
"""Those that are not wanted come back for another run so long after one that was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events, and how fast."""

    filters: Sequence[str]
    reason: str
    rate: float | None
    limit: int | None

    def takes(self, topic: str, reason: str) -> bool:
        """Whether an event that failed for a reason is wanted."""
        return self.reason in reason and (not self.filters or any(matches(one, topic) for one in self.filters))

    @property
    def batch(self) -> int:
        """How many to ask for at a time: a second's worth, at most BATCH."""
        return BATCH if self.rate is None else max(1, min(BATCH, int(self.rate)))

    async def pause(self, count: int) -> None:
        """Wait as long as so many take."""
        if self.rate is not None:
            await asyncio.sleep(count / self.rate)


async def redrive_set_aside(
    trunkline: Trunkline, namespace: str, stream: str, name: str, wanted: Wanted
) -> dict[str, int]:
    """Release what is set aside now, lowest offsets first."""
    released, from_offset = 0, 0
    while wanted.limit is None or released < wanted.limit:
        listed = await trunkline.call(
            lambda stubs: stubs.events.ListSetAside,
            events_pb2.ListSetAsideRequest(
                namespace=namespace, stream=stream, subscription=name, max_events=wanted.batch, from_offset=from_offset
            ),
            events_pb2.ListSetAsideResponse,
        )
        if not listed.events:
            break
        from_offset = listed.events[-1].offset + 1
        offsets = [one.offset for one in listed.events if wanted.takes(topic_of(one.event), one.reason)]
        if wanted.limit is not None:
            offsets = offsets[: wanted.limit - released]
        if offsets:
            answer = await trunkline.call(
                lambda stubs: stubs.events.ReleaseSetAside,
                events_pb2.ReleaseSetAsideRequest(
                    namespace=namespace, stream=stream, subscription=name, offsets=offsets
                ),
                events_pb2.ReleaseSetAsideResponse,
            )
            released += answer.released
            await wanted.pause(answer.released)
    return {"redriven": released}


def topic_of(event: events_pb2.CloudEvent) -> str:
    """Its attribute `topic`, else its type."""
    return event.attributes["topic"].ce_string if "topic" in event.attributes else event.type


async def redrive_dead_letters(
    trunkline: Trunkline, namespace: str, stream: str, name: str, dead_letters: str, wanted: Wanted
) -> dict[str, int]:
    """Have the events of dead letters delivered again. What was redriven is remembered by a durable subscription of the
    dead-letter stream; what is not wanted this time stays in it."""
    reader = f"redrive.{stream}.{name}"
    await trunkline.call(
        lambda stubs: stubs.events.CreateSubscription,
        events_pb2.CreateSubscriptionRequest(
            namespace=namespace, stream=dead_letters, name=reader, config=_reading(stream, name)
        ),
        events_pb2.CreateSubscriptionResponse,
    )
    redriven = not_kept = 0
    left: dict[int, Fetched] = {}
    """Kept out of the way until this run is over, by offset."""
    while wanted.limit is None or redriven < wanted.limit:
        room = wanted.batch if wanted.limit is None else min(wanted.batch, wanted.limit - redriven)
        fetched = await trunkline.fetch(reader, stream=dead_letters, max_events=room, wait_s=LOOK_S)
        letters = [letter for letter in fetched if letter.offset not in left]
        if not letters:
            break
        before = redriven
        for letter in letters:
            if not wanted.takes(letter.event.topic or letter.event.type, str(letter.event.attributes["dlreason"])):
                left[letter.offset] = fetched
                continue
            kept = await _redeliver(trunkline, namespace, stream, name, letter)
            redriven, not_kept = redriven + kept, not_kept + (not kept)
            letter.ack()
        await fetched.settle()
        await wanted.pause(redriven - before)
    await _give_back(left)
    return {"redriven": redriven, "not_kept": not_kept, "left": len(left)}


async def _give_back(left: Mapping[int, Fetched]) -> None:
    """Those that were not wanted: for the next run."""
    for fetched in {id(one): one for one in left.values()}.values():
        for letter in fetched:
            if letter.offset in left:
                letter.nack(delay_s=0)
        await fetched.settle()


def _reading(stream: str, name: str) -> events_pb2.SubscriptionConfig:
    texts = events_pb2.AttributeTexts(attributes={"dlstream": stream, "dlsubscription": name})
    config = events_pb2.SubscriptionConfig(
        attribute_filters=[events_pb2.AttributeFilter(exact=texts)],
        start=events_pb2.StartPosition(earliest=True),
        max_deliveries=1_000,
        max_in_flight=10_000,
    )
    config.ack_deadline.FromSeconds(ACK_DEADLINE_S)
    return config


async def _redeliver(trunkline: Trunkline, namespace: str, stream: str, name: str, letter: Delivery) -> bool:
    """Whether the stream still holds the event of a dead letter."""
    said = letter.event.attributes
    answer = await trunkline.call(
        lambda stubs: stubs.events.RedeliverEvents,
        events_pb2.RedeliverEventsRequest(
            namespace=namespace,
            stream=stream,
            subscription=name,
            offsets=[int(str(said["dloffset"]))],
            incarnation=int(str(said["dlincarnation"])),
        ),
        events_pb2.RedeliverEventsResponse,
    )
    return not answer.not_kept
