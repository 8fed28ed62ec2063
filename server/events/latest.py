"""The start `last_per_key`: of what is there, the latest event of each key among those that the filters take, then what is new.

What that is follows from the stream, the filters and the offset below which a subscription began so. Nothing else is kept of
it: after a restart it is found again, and what compaction or retention has removed meanwhile is no more among it.

Keys are told apart by the 64-bit hashes of the journal's index, as in lanes: that any two among a million share one has odds
of 3 in 100 million; the earlier one's event would not be among the first deliveries then. Events without a key are of none.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from heapq import merge
from itertools import islice
from typing import Any

from trunkline.core.errors import LimitExceeded, PositionOutOfRange, TrunklineError

from .delivery import NEVER
from .dispatcher import Dispatcher
from .event_block import EventBlock
from .order import NO_KEY
from .settings import KEY_ATTRIBUTE, SubscriptionSettings
from .subscription import SubscriptionState

SLICE_EVENTS = 4_096
"""Looked at, or put in order, between two looks at the loop: some ms."""
SHARDS = 64
"""A table of a million keys at once would hold the loop while it grows."""


class LatestPerKey:
    """What such a subscription takes below an offset. `offsets` is None until it has been found."""

    __slots__ = ("below", "offsets")

    def __init__(self, below: int, offsets: array[int] | None = None) -> None:
        self.below = below
        self.offsets = offsets
        """'Q', ascending."""

    @staticmethod
    def of(state: SubscriptionState, found: LatestPerKey | None = None) -> LatestPerKey | None:
        """What a subscription still takes of each key alone; None if nothing."""
        if state.latest_from is None:
            return None
        below = state.latest_below
        return found if found is not None and found.below == below else LatestPerKey(below)

    def following(self, position: int) -> int:
        """The first offset at or behind `position` that may be taken."""
        assert self.offsets is not None
        if position >= self.below:
            return position
        place = bisect_left(self.offsets, position)
        return self.offsets[place] if place < len(self.offsets) else self.below

    def taken(self, block: EventBlock, indexes: Sequence[int]) -> Sequence[int]:
        """Those of the indexes of events that the filters take."""
        if block.start >= self.below:
            return indexes
        assert self.offsets is not None
        first, end = bisect_left(self.offsets, block.start), bisect_left(self.offsets, block.end)
        wanted, offsets = set(self.offsets[first:end]), block.offsets
        return [index for index in indexes if offsets[index] in wanted or offsets[index] >= self.below]


class LatestSearch:
    """Finds in the background what a subscription takes of each key: when it is needed, and was not found before."""

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        settings: SubscriptionSettings,
        *,
        on_found: Callable[[], None],
        on_failure: Callable[[TrunklineError], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._settings = settings
        self._on_found = on_found
        self._on_failure = on_failure
        self._looking = False

    def knows(self, latest: LatestPerKey, state: SubscriptionState) -> bool:
        """Whether it has been found; if not, it is being looked for."""
        if latest.offsets is None and not self._looking:
            self._looking = True
            first = latest.below if state.latest_from is None else state.latest_from
            self._dispatcher.spawn(self._find(latest, first), "events: find the latest of each key")
        return latest.offsets is not None

    async def _find(self, latest: LatestPerKey, first: int) -> None:
        try:
            latest.offsets = await find_latest(
                self._dispatcher, self._settings, first, latest.below, keys_max=NEVER
            )  # no more than when the subscription was made
        except TrunklineError as error:
            self._on_failure(error)
        finally:
            self._looking = False
        self._on_found()


async def find_latest(
    dispatcher: Dispatcher[Any], settings: SubscriptionSettings, first: int, below: int, *, keys_max: int
) -> array[int]:
    """The offsets of the latest events of all keys in [first, below), ascending.

    Reads the index alone unless there are filters on attributes. LimitExceeded for more than `keys_max` keys; whatever
    reading raises.
    """
    group = dispatcher.matcher.join(settings.filters, settings.attribute_filters)
    latest: list[dict[int, int]] = [{} for _ in range(SHARDS)]
    position = max(first, dispatcher.first_offset)
    try:
        while position < below:
            try:
                blocks = await dispatcher.read(position, index_only=not settings.attribute_filters)
            except PositionOutOfRange:  # retention was faster
                position = max(position, dispatcher.first_offset)
                continue
            for block in blocks:
                await _note(latest, block, dispatcher.matcher.indexes(block, group), below)
            position = blocks[-1].end if blocks else below
            if sum(map(len, latest)) > keys_max:
                raise LimitExceeded("last_per_key_keys_max", keys_max)
    finally:
        dispatcher.matcher.leave(group)
    return await _in_order(latest)


async def _note(latest: list[dict[int, int]], block: EventBlock, indexes: Sequence[int], below: int) -> None:
    keys, offsets = block.keys(KEY_ATTRIBUTE), block.offsets
    for at in range(0, len(indexes), SLICE_EVENTS):
        for index in indexes[at : at + SLICE_EVENTS]:
            key, offset = keys[index], offsets[index]
            if key != NO_KEY and offset < below:
                latest[key % SHARDS][key] = offset
        await asyncio.sleep(0)


async def _in_order(latest: list[dict[int, int]]) -> array[int]:
    runs = []
    for shard in latest:
        runs.append(array("Q", sorted(shard.values())))
        shard.clear()
        await asyncio.sleep(0)
    merged, found = merge(*runs), array("Q")
    while some := list(islice(merged, SLICE_EVENTS)):
        found.extend(some)
        await asyncio.sleep(0)
    return found
