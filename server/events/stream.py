"""One stream at work: its log, the way in, and those who follow it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import NotSupported, PositionOutOfRange, TokenForeign, TrunklineError
from trunkline.core.hashing import xxh64
from trunkline.core.model import Sync
from trunkline.core.token import EventToken
from trunkline.server.journal.batch import Scan
from trunkline.server.journal.block import Block
from trunkline.server.journal.event_log import EventLog, Published
from trunkline.server.journal.log import Incarnation, Log

from .compaction import shown
from .delivery import NEVER
from .dispatcher import Dispatcher
from .event_block import EventBlock
from .feed import Feed
from .fold import StreamEntity
from .settings import StreamSettings
from .tasks import Tasks

log = logging.getLogger(__name__)

RECOVERY_BACKOFF_S_MAX = 30.0


class History(Protocol):
    """The reading half of a log, as a stream needs it; derived streams have only this."""

    @property
    def incarnations(self) -> tuple[Incarnation, ...]: ...
    @property
    def first_offset(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def sync(self) -> Sync: ...
    @property
    def bytes(self) -> int: ...
    @property
    def first_time_ns(self) -> int: ...
    @property
    def last_time_ns(self) -> int: ...
    def on_durable(self, listener: Callable[[Any], None], told: Callable[[], None]) -> object: ...
    async def read(self, offset: int, *, max_bytes: int, index_only: bool = False) -> Sequence[Any]: ...
    async def offset_at(self, time_ns: int) -> int: ...
    def resume_offset(self, incarnation: int, offset: int) -> int | None: ...


class EventStream:
    """A stream of a namespace. `log` is None for a derived one."""

    def __init__(
        self,
        namespace: str,
        name: str,
        settings: StreamSettings,
        history: History,
        dispatcher: Dispatcher[Any],
        *,
        journal_id: str,
        event_log: EventLog | None,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.settings = settings
        self.history = history
        self.dispatcher = dispatcher
        self.incarnation = history.incarnation
        """Of what followers are brought. A log that is being recovered may have its next one already."""
        self.is_compacting = False
        self.feeds: dict[str, Feed] = {}
        """The durable subscriptions, by name."""
        self._journal_id = journal_id
        self._event_log = event_log
        self._token_scope = xxh64(f"{namespace}/{name}".encode())

    @property
    def derived(self) -> bool:
        """Not stored, not to be published to."""
        return self._event_log is None

    @property
    def event_log(self) -> EventLog:
        """The way in; NotSupported for a derived stream."""
        if self._event_log is None:
            raise NotSupported(f"stream {self.name} is derived from control and takes no events")
        return self._event_log

    def configure(self, settings: StreamSettings) -> None:
        """Keep what another configuration says: how long segments are, or how much stays in memory, follows from it."""
        self.settings = settings
        self.event_log.log.config = replace(self.event_log.log.config, retention=settings.retention)

    def publish(self, scan: Scan, *, require_sync: int, expected_offset: int | None = None) -> Awaitable[Published]:
        """See EventLog.publish; NotSupported for a derived stream."""
        return self.event_log.publish(scan, require_sync=require_sync, expected_offset=expected_offset)

    # Positions.

    async def start_offset(self, start: events_pb2.StartPosition) -> int:
        """Where a new subscription begins. PositionOutOfRange for an offset that is not, nor will next be, there."""
        match start.WhichOneof("start"):
            case "earliest" | "last_per_key":
                return self.history.first_offset
            case "offset":
                return self._checked(start.offset)
            case "time":
                return await self.history.offset_at(convert.time_ns_from(start.time))
        return self.dispatcher.end

    def _checked(self, offset: int) -> int:
        first, end = self.history.first_offset, self.dispatcher.end
        if not first <= offset <= end:
            raise PositionOutOfRange(
                f"stream {self.name} holds offsets {first} to {end - 1}, asked for {offset}",
                first=str(first),
                next=str(end),
            )
        return offset

    def token(self, incarnation: int, offset: int) -> bytes:
        """What resumes an ephemeral subscription that stands at `offset` of an incarnation."""
        return EventToken(self._journal_id, self._token_scope, incarnation, offset).encode()

    def resume(self, token: bytes) -> tuple[int, tuple[int, int] | None]:
        """Where a token goes on, and the place it stood for if that is not the same (a gap).

        Raises TokenMalformed, TokenForeign, PositionOutOfRange (from the future).
        """
        held = EventToken.decode(token)
        if held.journal_id != self._journal_id:
            raise TokenForeign("the resume token is of another journal")
        if held.stream != self._token_scope:
            raise TokenForeign("the resume token is of another stream")
        offset = self.moved(held.incarnation, held.offset)
        if offset > self.dispatcher.end:
            raise PositionOutOfRange(f"the resume token is ahead of stream {self.name}", next=str(self.dispatcher.end))
        offset = max(offset, self.history.first_offset)
        if offset == held.offset and held.incarnation == self.incarnation:
            return offset, None
        return offset, (held.incarnation, held.offset)

    def moved(self, incarnation: int, offset: int) -> int:
        """Where one goes on who stood at a place of an earlier incarnation: there, or where the history was cut.

        Of an incarnation that is not known, nothing is known to be the same: the present one's first position.
        """
        found = self.history.resume_offset(incarnation, offset)
        return self.history.incarnations[-1].first_offset if found is None else found

    def incarnation_of(self, offset: int) -> int:
        """The incarnation in which the stream took what stands at an offset."""
        begun = [known.id for known in self.history.incarnations if known.first_offset <= offset]
        return begun[-1] if begun else self.incarnation

    # What is shown.

    def state(self, *, copies: int) -> events_pb2.StreamState:
        """For ListStreams."""
        history = self.history
        state = events_pb2.StreamState(
            config=self.settings.message(self.namespace, self.name),
            durability=convert.durability_to(history.sync, copies),
            incarnation=self.incarnation,
            first_offset=history.first_offset,
            next_offset=self.dispatcher.end,
            bytes=history.bytes,
            derived=self.derived,
        )
        if history.last_time_ns and self.dispatcher.end > history.first_offset:
            state.first_time.CopyFrom(convert.time_ns_to(history.first_time_ns))
            state.last_time.CopyFrom(convert.time_ns_to(history.last_time_ns))
        if self._event_log is not None and self.settings.compaction is not None:
            state.compaction.CopyFrom(shown(self._event_log.log.compacted))
        return state

    def forget_read(self) -> None:
        """It was compacted: whoever reads from now on is brought what is left."""
        self.dispatcher.cache.clear()

    def rejoin(self) -> None:
        """The log was recovered: followers go on, at their place or where the history was cut."""
        self.dispatcher.rejoin()
        old, self.incarnation = self.incarnation, self.history.incarnation
        if old != self.incarnation:
            cut = self.moved(old, NEVER)
            for follower in list(self.dispatcher.followers):
                follower.move(self.incarnation, cut)

    def end(self, error: TrunklineError) -> None:
        """The stream is gone: tell everybody who follows it."""
        for feed in list(self.feeds.values()):
            feed.end(error)
        self.feeds.clear()
        for follower in list(self.dispatcher.followers):
            follower.fail(error)
        self.dispatcher.close()


def wrap_block(block: Block, start: int) -> EventBlock:
    """A journal block for the dispatcher."""
    return EventBlock(block, block.offsets, start=min(start, block.base_offset), end=block.end_offset)


async def open_stored(
    entity: StreamEntity,
    stream_log: Log,
    clock: Clock,
    rng: Rng,
    tasks: Tasks,
    *,
    journal_id: str,
    producers_max: int,
) -> EventStream:
    """A stored stream whose log is open: ids and producers learned, followers served."""
    settings = entity.settings
    event_log = EventLog(
        stream_log,
        clock,
        dedupe_window_ns=settings.dedupe_window_ns,
        dedupe_ids=settings.dedupe_ids,
        producers_max=producers_max,
        seed=rng.u64(),
    )
    await event_log.rebuild()
    dispatcher = Dispatcher(stream_log, wrap_block, tasks)
    dispatcher.start()
    return EventStream(
        entity.namespace,
        entity.name,
        settings,
        stream_log,
        dispatcher,
        journal_id=journal_id,
        event_log=event_log,
    )


async def recover_log(stream: EventStream) -> None:
    """Reopen the log of a stream whose disk failed, as often as it takes."""
    pause_s = 0.1
    while stream.event_log.failed:
        try:
            await stream.event_log.recover()
        except TrunklineError as error:
            log.warning("stream not recovered", extra={"stream": stream.name, "reason": error.code})
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RECOVERY_BACKOFF_S_MAX)
    stream.rejoin()
    log.info("stream recovered", extra={"stream": stream.name, "next_offset": stream.history.next_offset})
