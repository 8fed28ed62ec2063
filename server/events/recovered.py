"""What a checkpoint says of events that have not been looked at again since the start."""

from __future__ import annotations

from .delivery import Entry
from .progress import OpenDelivery, Progress


class Recovered:
    """Asked once for every matching offset from the checkpoint's floor to delivered_to, ascending."""

    __slots__ = ("_new_from", "_open", "end", "progress")

    def __init__(self, progress: Progress, *, new_from: int, now_ns: int, time_ns: int) -> None:
        """Nothing at or above `new_from` was ever delivered."""
        self.progress = progress
        self._new_from = new_from
        self.end = progress.end
        """From here on the checkpoint has nothing to say."""
        self._open = {
            entry.offset: entry._replace(not_before_ns=now_ns + max(0, entry.not_before_ns - time_ns))
            for entry in progress.open
        }

    def take_released(self) -> list[tuple[Entry, int]]:
        """Those below the floor, with their keys: they are not looked at again, and wait for delivery at once."""
        known = [known for known in self._open.values() if known.offset < self.progress.floor]
        for released in known:
            del self._open[released.offset]
        return [(_entry(released), released.key) for released in known]

    def is_new(self, offset: int) -> bool:
        """Whether it was surely never delivered."""
        return offset >= self._new_from or self.progress.is_untried(offset)

    def take(self, offset: int) -> Entry | None:
        """The entry of an event that is not new, which waits to be delivered again; None if it is done."""
        known = self._open.pop(offset, None)
        if known is not None:
            return _entry(known)
        return None if self.progress.is_done(offset) else Entry(offset, 1, 1)

    def open_deliveries(self, now_ns: int, time_ns: int) -> list[OpenDelivery]:
        """Those not asked for yet, as they go into the next checkpoint."""
        return [
            e._replace(not_before_ns=time_ns + e.not_before_ns - now_ns if e.not_before_ns > now_ns else 0)
            for e in self._open.values()
        ]


def _entry(known: OpenDelivery) -> Entry:
    entry = Entry(known.offset, known.attempts, known.attempts, known.again_ms)
    entry.not_before_ns = known.not_before_ns
    return entry
