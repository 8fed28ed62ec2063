"""Compaction of event streams: what their keys and tombstones are, and when each has its turn."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.attributes import attribute_texts
from trunkline.core.clock import Clock
from trunkline.core.errors import StreamClosed, TrunklineError
from trunkline.server.journal.block import Block
from trunkline.server.journal.event_log import EventLog
from trunkline.server.journal.key_compaction import CompactionRecord, KeyPolicy

from .settings import KEY_ATTRIBUTE, StreamSettings

log = logging.getLogger(__name__)

TOMBSTONE_ATTRIBUTE: Final = "tombstone"
TOMBSTONE_TEXT: Final = "true"
DIGEST_BYTES: Final = 16
BACKOFF_S_MAX: Final = 600.0
"""Between two attempts at a stream that could not be compacted."""
PASSES_MAX: Final = 16
"""Over one stream before others have their turn."""
_MAY_END: Final = re.compile(TOMBSTONE_ATTRIBUTE.encode())
"""Most blocks have no such event, and a search tells at the speed of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionConfig:
    """When streams are compacted that are to be. One has its turn at a time."""

    interval_s: float = 10.0
    """Between two looks at which of them have enough to gain."""
    dirty_bytes_min: int = 1 << 20
    """A pass needs so much that came since the last one, ..."""
    dirty_ratio: float = 0.5
    """... being at least this part of all that it would read, ..."""
    dirty_age_max_s: float = 86_400.0
    """... unless what came has waited for so long."""
    keys_max: int = 200_000
    """Keys that one pass holds in memory, about 250 bytes each, but for those of one segment; others wait for the next."""


class Compacted(Protocol):
    """A stream that is to be compacted."""

    name: str
    settings: StreamSettings
    is_compacting: bool

    @property
    def event_log(self) -> EventLog: ...
    def forget_read(self) -> None:
        """What was read before is not what would be read now."""


class EventKeys:
    """See KeyReader."""

    def digests(self, block: Block, indexes: Sequence[int]) -> list[bytes]:
        texts = attribute_texts(block.payload, block.ends, indexes, (KEY_ATTRIBUTE,))
        return [blake2b((text or "").encode(), digest_size=DIGEST_BYTES).digest() for (text,) in texts]

    def tombstones(self, block: Block) -> Collection[int]:
        if _MAY_END.search(block.payload) is None:
            return ()
        texts = attribute_texts(block.payload, block.ends, range(block.count), (TOMBSTONE_ATTRIBUTE,))
        marked = (index for index, (text,) in enumerate(texts) if text == TOMBSTONE_TEXT)
        return [index for index in marked if block.key_hashes[index] and not _has_data(block.body(index))]


def _has_data(body: memoryview) -> bool:
    event = events_pb2.CloudEvent.FromString(bytes(body))
    return event.HasField("proto_data") or bool(event.text_data or event.binary_data)


class Compactor:
    """Compacts the streams that are to be, one after the other."""

    def __init__(self, streams: Callable[[], Iterable[Compacted]], clock: Clock, config: CompactionConfig) -> None:
        self.failures = 0
        self._streams = streams
        self._clock = clock
        self._config = config
        self._keys = EventKeys()
        self._pauses: dict[Compacted, tuple[float, int]] = {}
        """By stream that failed: the pause, and when it is over."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._config.interval_s)
            due = [stream for stream in self._streams() if stream.settings.compaction is not None]
            self._pauses = {stream: pause for stream, pause in self._pauses.items() if stream in due}
            for stream in due:
                await self.compact(stream)

    async def compact(self, stream: Compacted) -> None:
        """Look whether it has enough to gain, and then compact it. What stands in the way is logged, and tried again later."""
        pause_s, over_ns = self._pauses.get(stream, (self._config.interval_s, 0))
        if stream.event_log.failed or self._clock.now_ns() < over_ns:
            return
        stream.is_compacting = True
        try:
            for _ in range(PASSES_MAX):  # what found no room in memory has the next one
                if not await stream.event_log.log.compact_keys(self.policy(stream), time_ns=self._clock.time_ns):
                    break
                stream.forget_read()
            self._pauses.pop(stream, None)
        except TrunklineError as error:
            if isinstance(error, StreamClosed) and not stream.event_log.failed:
                return  # it was deleted, or the server is about to end
            self.failures += 1
            log.warning(
                "stream not compacted", extra={"stream": stream.name, "reason": error.code, "error": error.message}
            )
            pause_s = min(2 * pause_s, BACKOFF_S_MAX)
            self._pauses[stream] = pause_s, self._clock.now_ns() + int(pause_s * 1e9)
        finally:
            stream.is_compacting = False

    def policy(self, stream: Compacted) -> KeyPolicy:
        """How a stream is compacted that is to be."""
        settings, config = stream.settings, self._config
        assert settings.compaction is not None
        return KeyPolicy(
            reader=self._keys,
            min_lag_ns=settings.min_lag_ns,
            tombstone_retention_ns=settings.compaction.tombstone_retention_ns,
            dirty_bytes_min=config.dirty_bytes_min,
            dirty_ratio=config.dirty_ratio,
            dirty_age_max_ns=int(config.dirty_age_max_s * 1e9),
            keys_max=config.keys_max,
        )


def shown(record: CompactionRecord) -> events_pb2.CompactionState:
    """For ListStreams."""
    state = events_pb2.CompactionState(
        passes=record.runs,
        removed_events=record.removed,
        saved_bytes=max(0, record.saved_bytes),
        end_offset=record.end_offset,
    )
    if record.runs:
        state.last_time.CopyFrom(convert.time_ns_to(record.time_ns))
        state.last_took.CopyFrom(convert.ms_to(record.took_ns // 1_000_000))
    return state
