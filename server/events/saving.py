"""What goes into a checkpoint of a subscription, and what is to be remembered of it until it is durable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from .bounds import LookAhead
from .delivery import Entry
from .progress import OpenDelivery, Progress


class Saving(NamedTuple):
    """A checkpoint on its way: give it to `saved` when it is durable."""

    of: object
    """The state that it was made by: another one has taken its place if the subscription moved meanwhile."""
    serial: int
    """Counts the state's checkpoints."""
    progress: Progress
    counted: dict[int, int]
    changes: int
    delivered: int


def reserve(delivered: int, ahead: LookAhead) -> int:
    """How far to count ahead: twice what was delivered since the last checkpoint, so that a fast one is not held up."""
    return max(ahead.reserve_min, min(ahead.reserve_max, 2 * delivered))


def count_ahead(delivered: int, ahead: LookAhead, *, asked: int) -> int:
    """How many redeliveries to count ahead: all that consumers ask for, and twice what was delivered likewise."""
    return max(ahead.count_ahead_min, min(ahead.ready_max, max(2 * delivered, asked)))


def open_deliveries(
    entries: Iterable[Entry],
    looked_at: range,
    counted: Mapping[int, int],
    key_of: Callable[[int], int],
    *,
    delivered_to: int,
    now_ns: int,
    time_ns: int,
    final: bool,
) -> list[OpenDelivery]:
    """Those of which the checkpoint has to say more than that they are open.

    `counted` are attempts that are about to be delivered. Only the `final` checkpoint tells what was, and not what may be.
    """
    found = []
    for entry in entries:
        attempts = entry.attempts if final else counted.get(entry.offset, max(entry.attempts, entry.counted))
        put_off_ns = 0 if entry.in_flight else max(0, entry.not_before_ns - now_ns)
        # Of what lies elsewhere an earlier checkpoint says that it is done: it was set aside, and then released.
        # One of a lane that was parked may have been delivered ahead of what the checkpoint counts.
        is_ahead = entry.offset >= delivered_to
        if attempts != 1 or put_off_ns or entry.again_ms or entry.offset not in looked_at or is_ahead:
            key = key_of(entry.offset) if entry.offset < looked_at.start else 0
            not_before_ns = time_ns + put_off_ns if put_off_ns else 0
            found.append(OpenDelivery(entry.offset, attempts, not_before_ns, key, entry.again_ms))
    return found


def parked_deliveries(entries: Iterable[tuple[Entry, int]], *, now_ns: int, time_ns: int) -> list[OpenDelivery]:
    """What was tried of parked events, each with its key."""
    return [
        OpenDelivery(
            entry.offset,
            entry.attempts,
            time_ns + entry.not_before_ns - now_ns if entry.not_before_ns > now_ns else 0,
            key,
            entry.again_ms,
        )
        for entry, key in entries
    ]
