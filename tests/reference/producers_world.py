"""Producers as a client in any language would be one: they pipeline, lose answers, repeat, count wrong, and are succeeded.

An event's id says who published it under which number, so that what a stream holds can be judged without its index.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trunkline.api.v1 import events_pb2
from trunkline.core.errors import (
    DiskFull,
    DiskReadOnly,
    NotReady,
    OutcomeUnknown,
    OutOfOrderSequence,
    ProducerFenced,
    SequenceReused,
    StreamClosed,
    TrunklineError,
    UnknownProducer,
)

PASSING = (DiskFull, DiskReadOnly, NotReady, OutcomeUnknown, StreamClosed)
"""Said of what may be repeated."""
Publish = Callable[..., Awaitable[events_pb2.PublishResponse]]
"""Takes ids, and fields of a PublishRequest by name."""


@dataclass
class Numbered:
    """What one epoch of a producer has been told."""

    producer: str
    epoch: int
    next: int = 1
    acknowledged: dict[int, int] = field(default_factory=dict)
    """Offset by sequence."""
    unanswered: list[tuple[int, int]] = field(default_factory=list)
    """First sequence and count, in order, without gaps."""
    may_be_fenced: bool = False
    """A newer epoch was tried, and what became of it is not known."""

    def id(self, sequence: int, tail: str = "") -> str:
        return f"{self.producer}|{self.epoch}|{sequence}{tail}"


class Producers:
    """Some producers of one stream. Every method publishes, and checks what it is told."""

    def __init__(self, chance: random.Random, publish: Publish) -> None:
        self.chance = chance
        self.publish = publish
        self.all: list[Numbered] = []
        self.present: dict[str, Numbered] = {}
        self.zombies: list[Numbered] = []
        self.reached: set[str] = set()
        """What happened, for a test to assert that it did."""

    def begin(self, producer: str) -> Numbered:
        """A new epoch of a producer; what was unanswered of the one before is left as it is."""
        before = self.present.get(producer)
        if before is not None:
            self.zombies.append(before)
        last = max((one.epoch for one in self.all if one.producer == producer), default=0)
        self.present[producer] = Numbered(producer, last + self.chance.randint(1, 3))
        self.all.append(self.present[producer])
        return self.present[producer]

    async def go_back(self, producer: str) -> None:
        """The one before goes on when nothing was heard of its successor: it does, unless it was fenced."""
        newer = self.present[producer]
        before = [one for one in self.zombies if one.producer == producer]
        if newer.acknowledged or not before:
            return
        older = before[-1]
        older.may_be_fenced = True
        known = len(older.acknowledged)
        await self.send(older, requests=1, lose=0)
        if len(older.acknowledged) > known:
            self.zombies.remove(older)
            self.present[producer] = older
            self.reached.add("went back")

    def begin_all(self) -> None:
        """All of them begin anew, as they must when they were silent for longer than the stream remembers."""
        for producer in list(self.present):
            self.begin(producer)
        self.zombies.clear()

    async def send(self, one: Numbered, *, requests: int, lose: float) -> None:
        """Pipeline some new requests behind all that is unanswered, and take most of the answers."""
        for _ in range(requests):
            count = self.chance.randint(1, 4)
            one.unanswered.append((one.next, count))
            one.next += count
        await self.repeat(one, lose=lose)

    async def repeat(self, one: Numbered, *, lose: float = 0.0) -> None:
        """Send all that is unanswered, in order, maybe in other pieces, and a bit of what was answered before it."""
        if not one.unanswered:
            return
        first, end = one.unanswered[0][0], one.next
        if self.chance.random() < 0.3:
            first = max(1, first - self.chance.randint(1, 5))
            one.unanswered = self._pieces(first, end)
        asked = [request for request in one.unanswered for _ in range(2 if self.chance.random() < 0.1 else 1)]
        tasks = [asyncio.ensure_future(self._publish(one, *request)) for request in asked]
        first_missing = None
        for request, task in zip(asked, tasks, strict=True):
            if self.chance.random() < lose:
                await asyncio.sleep(self.chance.choice([0, 0.001]))
                task.cancel()
                self.reached.add("lost an answer")
            if not await self._arrived(one, request, task) and first_missing is None:
                first_missing = request
        # What was acknowledged behind it, too: the next repeat begins where the first is missing.
        one.unanswered = [] if first_missing is None else one.unanswered[one.unanswered.index(first_missing) :]

    def _pieces(self, first: int, end: int) -> list[tuple[int, int]]:
        pieces = []
        while first < end:
            count = min(self.chance.randint(1, 6), end - first)
            pieces.append((first, count))
            first += count
        return pieces

    async def _publish(self, one: Numbered, first: int, count: int, tail: str = "") -> events_pb2.PublishResponse:
        ids = [one.id(first + index, tail) for index in range(count)]
        return await self.publish(*ids, producer=one.producer, producer_epoch=one.epoch, first_sequence=first)

    async def _arrived(
        self, one: Numbered, request: tuple[int, int], task: asyncio.Future[events_pb2.PublishResponse]
    ) -> bool:
        try:
            answer = await task
        except asyncio.CancelledError:
            return False
        except PASSING as error:
            self.reached.add(error.code)
            return False
        except ProducerFenced:
            assert one.may_be_fenced
            return False
        except (OutOfOrderSequence, UnknownProducer) as error:
            self._missing(one, request, error)
            return False
        self._acknowledged(one, request, answer)
        return True

    def _missing(self, one: Numbered, request: tuple[int, int], error: TrunklineError) -> None:
        assert isinstance(error, OutOfOrderSequence) or not one.acknowledged, error
        assert int(error.fields["expected"]) < request[0]
        self.reached.add("refused behind a failure")

    def _acknowledged(self, one: Numbered, request: tuple[int, int], answer: events_pb2.PublishResponse) -> None:
        offsets = [run.offset + index for run in answer.published for index in range(run.count)]
        assert len(offsets) == request[1]
        if len({run.duplicate for run in answer.published}) == 2:
            self.reached.add("partly a repeat")
        for sequence, offset in enumerate(offsets, request[0]):
            assert one.acknowledged.setdefault(sequence, offset) == offset, "told another offset the second time"

    async def leave_one_out(self, one: Numbered) -> None:
        """Must be refused; what it holds must never be there."""
        await self._refused(
            one, one.next + self.chance.randint(1, 3), "|behind a gap", OutOfOrderSequence, UnknownProducer
        )

    async def reuse_a_number(self, one: Numbered) -> None:
        """Another event under a number that was acknowledged."""
        if one.acknowledged:
            await self._refused(one, self.chance.choice(list(one.acknowledged)), "|another", SequenceReused)

    async def come_back(self, zombie: Numbered) -> None:
        """One that was succeeded goes on, as if it knew of nothing. It is fenced when its successor has published."""
        if self.present[zombie.producer].acknowledged:
            await self._refused(zombie, zombie.next, "|fenced", ProducerFenced)

    async def _refused(self, one: Numbered, first: int, tail: str, *kinds: type[TrunklineError]) -> None:
        try:
            await self._publish(one, first, 1, tail)
        except PASSING:
            return
        except kinds as error:
            self.reached.add(error.code)
            return
        raise AssertionError(f"{one.id(first, tail)} was taken")

    def broken(self, stored: Mapping[int, str]) -> list[str]:
        """What the stream may not hold, given the ids by offset."""
        found: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        broken: list[str] = []
        for offset, id in sorted(stored.items()):
            producer, epoch, sequence, *tail = id.split("|")
            if tail:
                broken.append(f"{id} was refused and is there")
            else:
                found[producer, int(epoch)].append((offset, int(sequence)))
        for one in self.all:
            there = found.pop((one.producer, one.epoch), [])
            broken += _broken_epoch(one, there)
        broken += [f"nobody published {key}" for key in found]
        return broken + self._broken_fences(stored)

    def _broken_fences(self, stored: Mapping[int, str]) -> list[str]:
        latest: dict[str, int] = {}
        broken = []
        for _, id in sorted(stored.items()):
            producer, epoch = id.split("|")[0], int(id.split("|")[1])
            if epoch < latest.get(producer, 0):
                broken.append(f"{id} stands behind epoch {latest[producer]}")
            latest[producer] = max(epoch, latest.get(producer, 0))
        return broken


def _broken_epoch(one: Numbered, there: Sequence[tuple[int, int]]) -> list[str]:
    sequences = [sequence for _, sequence in there]
    broken = []
    if sequences != list(range(1, len(sequences) + 1)):
        broken.append(f"{one.producer}/{one.epoch}: not 1, 2, 3, ... each once, but {sequences}")
    places = {sequence: offset for offset, sequence in there}
    for sequence, offset in one.acknowledged.items():
        if places.get(sequence) != offset:
            broken.append(f"{one.id(sequence)} was acknowledged at {offset}, and is at {places.get(sequence)}")
    return broken
