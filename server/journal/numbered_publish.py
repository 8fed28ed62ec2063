"""The way of a request whose events a producer numbered: the numbers say what is a repeat, what is next, what is missing.

As with ids, nothing awaits between looking a request up and queueing its append, what is on its way counts, a repeat of
it is answered when it is durable and fails when it fails, and a refusal that rests on it waits for it. A repeat has to
be one: its ids are compared with those that stand under its numbers. That may take a look at the disk; requests of the
producer that come meanwhile wait for it when they lie behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from trunkline.core.errors import OutOfOrderSequence, PositionMismatch, ProducerFenced, SequenceReused
from trunkline.core.sequences import NumberedRun, Place, Producers

from .batch import Batch, Scan
from .block import Block, Column
from .log import Ids
from .published import PendingAppend, PublishedRange


class Appends(Protocol):
    """A stream's way in, as this needs it."""

    @property
    def producers(self) -> Producers:
        """Those of now: `StreamClosed` while they are being learned anew."""

    def append(self, batch: Batch, expected_offset: int | None) -> PendingAppend:
        """Queue an append, and let `producers` know. PositionMismatch."""

    def pending(self) -> Iterable[PendingAppend]:
        """What is not durable yet, in order."""

    @property
    def durable_end(self) -> int:
        """Behind the last event that is durable."""

    @property
    def undecided(self) -> dict[str, list[asyncio.Future[None]]]:
        """By producer: requests that are looked into and may be queued yet."""

    def mismatch_rests_on(self, expected_offset: int | None) -> Sequence[PendingAppend]:
        """What may fail, so that the offset is given once more."""

    async def block_from(self, offset: int) -> Block | None:
        """The durable block that holds an offset, or the next behind it where retention or compaction has removed that."""


class NumberedPublish:
    """One request."""

    def __init__(self, appends: Appends, scan: Scan, run: NumberedRun, expected_offset: int | None) -> None:
        self._appends = appends
        self._scan = scan
        self._run = run
        self._expected_offset = expected_offset
        self._compared: dict[int, int] = {}
        """By the offset at which a place begins: up to where what is durable of it was compared."""
        self._deciding: asyncio.Future[None] | None = None
        """Those of the producer that came behind this one wait for it."""
        self._waited_for_missing = False

    async def publish(self) -> Sequence[PublishedRange]:
        """Append what is next; return when all of it, repeats included, is durable.

        Raises ProducerFenced, UnknownProducer, OutOfOrderSequence, DuplicateSequence, SequenceReused, LimitExceeded, and
        what appending raises.
        """
        try:
            return await self._publish()
        finally:
            self._decided()

    async def _publish(self) -> Sequence[PublishedRange]:
        while True:
            try:
                repeated = self._appends.producers.repeated(self._run)
                if not repeated:
                    return await self._publish_all()
                if await self._are_repeats(repeated):
                    return await self._publish_rest(repeated)
            except (ProducerFenced, OutOfOrderSequence, PositionMismatch) as refusal:
                self._decided()
                rests_on = self._rests_on(refusal)
                if not rests_on:
                    raise
                await asyncio.wait(rests_on)

    def _rests_on(self, refusal: Exception) -> Sequence[asyncio.Future[Any]]:
        """What has to be known before the refusal holds."""
        if isinstance(refusal, PositionMismatch):
            return [one.future for one in self._appends.mismatch_rests_on(self._expected_offset)]
        undecided: Sequence[asyncio.Future[Any]] = ()
        if isinstance(refusal, OutOfOrderSequence):
            # What becomes of those that are queued changes the number that is told, and of those before them, whether
            # this one is next. Once: others may come for ever.
            if self._waited_for_missing:
                return ()
            self._waited_for_missing = True
            undecided = self._appends.undecided.get(self._run.producer, ())
        elif not self._appends.producers.epoch_is_unsettled(self._run.producer):
            return ()
        queued = [one for one in self._appends.pending() if one.is_of(self._run.producer)]
        return [*undecided, *(one.future for one in queued)]

    def _begin_to_decide(self) -> None:
        if self._deciding is None:
            self._deciding = asyncio.get_running_loop().create_future()
            self._appends.undecided.setdefault(self._run.producer, []).append(self._deciding)

    def _decided(self) -> None:
        """It is queued, or will not be."""
        if self._deciding is not None:
            undecided = self._appends.undecided[self._run.producer]
            undecided.remove(self._deciding)
            if not undecided:
                del self._appends.undecided[self._run.producer]
            self._deciding.set_result(None)
            self._deciding = None

    async def _publish_all(self) -> Sequence[PublishedRange]:
        pending = self._appends.append(Batch.of_scan(self._scan), self._expected_offset)
        await asyncio.shield(pending.future)
        return (PublishedRange(pending.offset, self._run.count, False),)

    async def _publish_rest(self, repeated: Sequence[Place]) -> Sequence[PublishedRange]:
        """Queue what is not repeated at once; then wait."""
        known = sum(place.count for place in repeated)
        ranges = [PublishedRange(place.offset, place.count, True) for place in repeated]
        waited = [
            one.future
            for one in self._appends.pending()
            if any(place.offset < one.end_offset and one.offset < place.end_offset for place in repeated)
        ]
        if known < self._run.count:
            rest = Batch.of_scan(self._scan, range(known, self._run.count))
            pending = self._appends.append(rest, self._expected_offset)
            ranges.append(PublishedRange(pending.offset, self._run.count - known, False))
            waited.append(pending.future)
        self._decided()
        for future in waited:
            await asyncio.shield(future)
        return ranges

    async def _are_repeats(self, repeated: Sequence[Place]) -> bool:
        """Whether the events at these places are those of the request. SequenceReused when they are others.

        False: something was awaited, so that it may be otherwise now.
        """
        nothing_awaited = True
        for place in repeated:
            begin = self._compared.get(place.offset, place.offset)
            end = min(place.end_offset, self._appends.durable_end)
            if begin < end:
                self._begin_to_decide()
                await self._compare_stored(place, begin, end)
                self._compared[place.offset] = end
                nothing_awaited = False
        return nothing_awaited and await self._are_queued(repeated)

    async def _compare_stored(self, place: Place, at: int, end: int) -> None:
        """Compare what is durable and still there of a place. SequenceReused."""
        while at < end and (block := await self._appends.block_from(at)) is not None:
            for known in Ids.of_block(block):
                first = max(at, known.base_offset)
                stop = min(known.base_offset + len(known.id_hashes) // 2, end)
                if first < stop and not self._same_ids(place, first, stop, known.id_hashes, known.base_offset):
                    raise self._reused(place, first)
            at = block.end_offset

    def _reused(self, place: Place, offset: int) -> SequenceReused:
        sequence = place.first_sequence + offset - place.offset
        return SequenceReused(
            f"producer {self._run.producer} has published other events from sequence {sequence} on in epoch {self._run.epoch}",
            sequence=str(sequence),
            offset=str(offset),
        )

    async def _are_queued(self, repeated: Sequence[Place]) -> bool:
        """Compare what is not durable of some places. False when others are there, after they are durable or failed."""
        for one in self._appends.pending():
            for place in repeated:
                first, end = max(place.offset, one.offset), min(place.end_offset, one.end_offset)
                if first < end and not self._same_ids(place, first, end, one.batch.id_hashes, one.offset):
                    self._begin_to_decide()
                    await asyncio.wait([one.future])
                    return False
        return True

    def _same_ids(self, place: Place, first: int, end: int, stored: Column, base_offset: int) -> bool:
        """Whether the events of a place with offsets [first, end) have the ids of those that are stored."""
        asked = place.first_sequence - self._run.first_sequence + first - place.offset
        own = self._scan.id_hashes[2 * asked : 2 * (asked + end - first)]
        theirs = stored[2 * (first - base_offset) : 2 * (end - base_offset)]
        return own.tobytes() == theirs.tobytes()
