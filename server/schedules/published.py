"""What a stream already has of the events that schedules publish: the stream itself is what remembers them.

Looked for are ids in the journal's index, from the time on at which the first can have been published. That is exact
where the stream's window for repeated events is not: it ends after some minutes, or after so many events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from trunkline.core.cloudevent import event_identity
from trunkline.core.hashing import xxh64
from trunkline.server.events.stream import EventStream

IDS_MAX = 10_000_000
"""Looked through at most, the newest: half a second of work, in slices."""
_HIGH_SEED = 0x9E3779B97F4A7C15

Identity = tuple[bytes, bytes]
"""Source and id."""


async def find_published(stream: EventStream, wanted: set[Identity], *, from_ms: int) -> Mapping[Identity, int]:
    """Offsets of those of these events that the stream has, published at a time or later.

    Raises what reading the stream raises.
    """
    by_hash = {_hash_of(identity): identity for identity in wanted}
    lows = {low for low, _ in by_hash}
    candidates: list[int] = []
    columns = stream.event_log.log.ids(from_time_ns=from_ms * 1_000_000, max_ids=IDS_MAX)
    async for column in columns:
        ids = column.id_hashes
        if not lows.isdisjoint(ids[::2]):
            candidates += [
                column.base_offset + index
                for index in range(len(ids) // 2)
                if (ids[2 * index], ids[2 * index + 1]) in by_hash
            ]
        await asyncio.sleep(0)
    found: dict[Identity, int] = {}
    for offset in candidates:
        body = await stream.dispatcher.event_at(offset)
        if body is not None and (identity := event_identity(body)) in wanted:
            found.setdefault(identity, offset)
    return found


def _hash_of(identity: Identity) -> tuple[int, int]:
    """As the journal's index has it; see trunkline.core.wire.Scan.id_hashes."""
    source, event_id = identity
    return xxh64(event_id, xxh64(source, 0)), xxh64(event_id, xxh64(source, _HIGH_SEED))
