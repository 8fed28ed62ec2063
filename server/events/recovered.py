"""What a checkpoint says of events that have not been looked at again since the start."""

from __future__ import annotations

from .delivery import Entry
from .progress import OpenDelivery, Progress


class Recovered:
    """Asked once for every matching offset from the checkpoint's floor to delivered_to, ascending."""

    __slots__ = ("_new_from", "_now_ns", "_open", "_time_ns", "end", "progress")

    def __init__(self, progress: Progress, *, new_from: int, end: int, now_ns: int, time_ns: int) -> None:
        """Nothing at or above `new_from` was delivered, but for what stands in `open`; the stream ends at `end`."""
        self.progress = progress
        self._new_from = new_from
        self.end = min(progress.end, end)
        """From here on the checkpoint has nothing to say."""
        self._open = {known.offset: known for known in progress.open}
        self._now_ns, self._time_ns = now_ns, time_ns

    @property
    def tried_below(self) -> int:
        """What lies below this may have been delivered once."""
        return min(self._new_from, self.end)

    def take_released(self) -> list[tuple[Entry, int]]:
        """Those below the floor, with their keys: they are not looked at again, and wait for delivery at once."""
        known = sorted(known for known in self._open.values() if known.offset < self.progress.floor)
        for released in known:
            del self._open[released.offset]
        return [(self._entry(released), released.key) for released in known]

    def is_new(self, offset: int) -> bool:
        """Whether it was surely never delivered."""
        return offset not in self._open and (offset >= self._new_from or self.progress.is_untried(offset))

    def take_said(self, offset: int) -> Entry | None:
        """The entry of one of which more is said than that it is not done."""
        known = self._open.pop(offset, None)
        return None if known is None else self._entry(known)

    def take(self, offset: int) -> Entry | None:
        """The entry of an event that is not new, which waits to be delivered again; None if it is done."""
        known = self._open.pop(offset, None)
        if known is not None:
            return self._entry(known)
        return None if self.progress.is_done(offset) else Entry(offset, 1, 1)

    def open_deliveries(self, now_ns: int, time_ns: int) -> list[OpenDelivery]:
        """Those not asked for yet, as they go into the next checkpoint."""
        # The clock since the epoch may have been set meanwhile; a delay is as long as it was.
        put_off_ns = (time_ns - now_ns) - (self._time_ns - self._now_ns)
        return [
            known._replace(not_before_ns=known.not_before_ns + put_off_ns if known.not_before_ns else 0)
            for known in self._open.values()
        ]

    def _entry(self, known: OpenDelivery) -> Entry:
        entry = Entry(known.offset, known.attempts, known.attempts, known.again_ms)
        entry.not_before_ns = self._now_ns + max(0, known.not_before_ns - self._time_ns)
        return entry
