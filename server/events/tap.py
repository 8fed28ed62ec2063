"""An ephemeral subscription without acknowledgements: a position that moves as credit and the peer allow."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from trunkline.api.attribute_filters import NO_ATTRIBUTE_FILTERS, AttributeFilters
from trunkline.core.clock import Clock
from trunkline.core.deliveries import delivery, subscription_prefix
from trunkline.core.errors import TrunklineError

from .delivery import NEVER
from .dispatcher import Dispatcher, history_cut
from .event_block import EventBlock
from .latest import LatestPerKey
from .outlet import Outlet
from .rotation import CREDIT_MAX

PUMP_CHUNKS = 16
"""Sent to one tap before others have their turn."""
UNSHARED_MAX = 64
"""Deliveries in one chunk of a tap's own."""


class Tap:
    """A follower; see Dispatcher."""

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        outlet: Outlet,
        clock: Clock,
        *,
        subscription_id: int,
        filters: tuple[str, ...],
        attribute_filters: AttributeFilters = NO_ATTRIBUTE_FILTERS,
        place: tuple[int, int],
        on_gap: Callable[[tuple[int, int], tuple[int, int]], None],
        on_failure: Callable[[TrunklineError], None],
        latest: LatestPerKey | None = None,
    ) -> None:
        """It begins at `place`, an incarnation and a position in it; `on_gap` is told the old place and the new one."""
        self.incarnation, position = place
        self.position = position
        """Everything below has been sent, if the filters take it."""
        self.credit = 0
        self.sent = 0
        self.latest = latest
        """What is taken of each key until the position is behind it."""
        self._dispatcher = dispatcher
        self._outlet = outlet
        self._clock = clock
        self._prefix = subscription_prefix(subscription_id)
        self._group = dispatcher.matcher.join(filters, attribute_filters)
        self._on_gap = on_gap
        self._on_failure = on_failure

    def open(self) -> None:
        """Begin."""
        self._dispatcher.attach(self)

    def close(self) -> None:
        """Send nothing more."""
        self._dispatcher.detach(self)
        self._dispatcher.matcher.leave(self._group)

    def add_credit(self, credit: int) -> None:
        """Let `credit` more be sent."""
        self.credit = min(self.credit + credit, CREDIT_MAX)
        self._dispatcher.wake(self)

    def pump(self) -> bool:
        dispatcher, outlet = self._dispatcher, self._outlet
        matcher, group = dispatcher.matcher, self._group
        for _ in range(PUMP_CHUNKS):
            if self.latest is not None:
                self._skip(self.latest)
            position = self.position
            if position >= dispatcher.end or not outlet.ready or not self.credit:
                return False
            block = dispatcher.block_at(position)
            if block is None:
                dispatcher.load(position, self)
                return False
            indexes = matcher.indexes(block, group)
            first = 0
            if position > block.start:
                first = bisect_left(indexes, position, key=block.offsets.__getitem__)
            if block.expiries or self.latest is not None:
                self._send_unshared(block, indexes[first:])
                continue
            if first == len(indexes):
                self.position = block.end
                continue
            data, count = block.chunk(group, first, self._prefix, self.credit)
            self.credit -= count
            self.sent += count
            first += count
            self.position = block.end if first == len(indexes) else block.offsets[indexes[first]]
            outlet.offer(data)
        return True

    def flush(self) -> None:
        self._outlet.flush()

    def _skip(self, latest: LatestPerKey) -> None:
        """Pass what is not the latest of its key."""
        self.position = latest.following(self.position)
        if self.position >= latest.below:
            self.latest = None

    def _send_unshared(self, block: EventBlock, indexes: Sequence[int]) -> None:
        """Without what others share: which of a block's events are left depends on the time, or is this one's own."""
        if self.latest is not None:
            indexes = self.latest.taken(block, indexes)
        time_ns = self._clock.time_ns()
        pieces: list[bytes] = []
        for index in indexes:
            offset = block.offsets[index]
            self.position = offset
            if not self.credit or len(pieces) == UNSHARED_MAX:
                break
            if block.expiries.get(offset, NEVER) > time_ns:
                self.credit -= 1
                pieces.append(delivery(self._prefix, self.credit, 1, block.suffix(index)))
        else:
            self.position = block.end
        self.sent += len(pieces)
        if pieces:
            self._outlet.offer(pieces)

    def missing(self, first_offset: int) -> None:
        if self.position < first_offset:
            old, self.position = self.position, first_offset
            self._on_gap((self.incarnation, old), (self.incarnation, first_offset))

    def move(self, incarnation: int, cut: int) -> None:
        if self.position > cut or self.latest is not None:
            # What was sent beyond the cut may lie in one message with what comes now: it has to come again.
            self._on_failure(history_cut(cut))
            return
        old, self.incarnation = self.incarnation, incarnation
        self._on_gap((old, self.position), (incarnation, self.position))

    def fail(self, error: TrunklineError) -> None:
        self._on_failure(error)
