"""The way of a request whose events a producer numbered: the numbers say what is a repeat, what is next, what is missing.

As with ids, nothing awaits between looking a request up and queueing its append, what is on its way counts, a repeat of
it is answered when it is durable and fails when it fails, and a refusal that rests on it waits for it. A repeat has to
be one: its ids are compared with those that stand under its numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from trunkline.core.errors import OutOfOrderSequence, PositionMismatch, ProducerFenced, SequenceReused
from trunkline.core.sequences import NumberedRun, Place, Producers

from .batch import Batch, Scan
from .block import Block, Column
from .published import PendingAppend, PublishedRange


class Appends(Protocol):
    """A stream's way in, as this needs it."""

    @property
    def producers(self) -> Producers:
        """Those of now: `StreamClosed` while they are being learned anew."""

    @property
    def first_offset(self) -> int:
        """The first that is kept."""

    def append(self, batch: Batch, expected_offset: int | None) -> PendingAppend:
        """Queue an append, and let `producers` know. PositionMismatch."""

    def pending(self) -> Iterable[PendingAppend]:
        """What is not durable yet, in order."""

    def mismatch_rests_on(self, expected_offset: int | None) -> Sequence[PendingAppend]:
        """What may fail, so that the offset is given once more."""

    async def block_at(self, offset: int) -> Block | None:
        """The durable block that holds an offset; None when retention has removed it."""


class NumberedPublish:
    """One request."""

    def __init__(self, appends: Appends, scan: Scan, run: NumberedRun, expected_offset: int | None) -> None:
        self._appends = appends
        self._scan = scan
        self._run = run
        self._expected_offset = expected_offset
        self._compared: list[Place] = []
        """Durable ones whose events are those of the request."""
        self._waited_for_missing = False

    async def publish(self) -> Sequence[PublishedRange]:
        """Append what is next; return when all of it, repeats included, is durable.

        Raises ProducerFenced, UnknownProducer, OutOfOrderSequence, DuplicateSequence, SequenceReused, LimitExceeded, and
        what appending raises.
        """
        while True:
            try:
                repeated = self._appends.producers.repeated(self._run)
                if not repeated:
                    return await self._publish_all()
                if await self._are_repeats(repeated):
                    return await self._publish_rest(repeated)
            except (ProducerFenced, OutOfOrderSequence, PositionMismatch) as refusal:
                rests_on = self._rests_on(refusal)
                if not rests_on:
                    raise
                await asyncio.wait([pending.future for pending in rests_on])

    def _rests_on(self, refusal: Exception) -> Sequence[PendingAppend]:
        """What has to be durable before the refusal holds."""
        if isinstance(refusal, PositionMismatch):
            return self._appends.mismatch_rests_on(self._expected_offset)
        if isinstance(refusal, OutOfOrderSequence):
            # It holds whatever becomes of them; the number that is told does not. Once: others may come for ever.
            if self._waited_for_missing:
                return ()
            self._waited_for_missing = True
        elif not self._appends.producers.epoch_is_unsettled(self._run.producer):
            return ()
        return [
            one
            for one in self._appends.pending()
            if any(run.producer == self._run.producer for run in one.batch.numbered)
        ]

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
        for future in waited:
            await asyncio.shield(future)
        return ranges

    async def _are_repeats(self, repeated: Sequence[Place]) -> bool:
        """Whether the events at these places are those of the request. SequenceReused when they are others.

        False: something was awaited, so that it may be otherwise now.
        """
        went_on = True
        for place in repeated:
            if place not in self._compared and not await self._is_repeat(place):
                went_on = False
        return went_on

    async def _is_repeat(self, place: Place) -> bool:
        """Compare one place, pieces of which may be durable and others not. False as `_are_repeats`."""
        at, all_pending = place.offset, True
        while at < place.end_offset:
            pending = next((one for one in self._appends.pending() if one.holds(at)), None)
            if pending is not None:
                end = min(pending.end_offset, place.end_offset)
                if not self._same_ids(place, at, end, pending.batch.id_hashes, pending.offset):
                    await asyncio.wait([pending.future])
                    return False
            else:
                all_pending = False
                block = await self._appends.block_at(at)
                end = max(at + 1, self._appends.first_offset) if block is None else block.end_offset
                end = min(end, place.end_offset)
                if block is not None and not self._same_ids(place, at, end, block.id_hashes, block.base_offset):
                    sequence = place.first_sequence + at - place.offset
                    raise SequenceReused(
                        f"producer {self._run.producer} has published other events from sequence {sequence} on "
                        f"in epoch {self._run.epoch}",
                        sequence=str(sequence),
                        offset=str(at),
                    )
            at = end
        if not all_pending:
            self._compared.append(place)
        return all_pending

    def _same_ids(self, place: Place, first: int, end: int, stored: Column, base_offset: int) -> bool:
        """Whether the events of a place with offsets [first, end) have the ids of those that are stored."""
        asked = place.first_sequence - self._run.first_sequence + first - place.offset
        own = self._scan.id_hashes[2 * asked : 2 * (asked + end - first)]
        theirs = stored[2 * (first - base_offset) : 2 * (end - base_offset)]
        return own.tobytes() == theirs.tobytes()
