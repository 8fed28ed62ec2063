"""Brings the blocks of one stream to those who follow it, each at its own pace.

A follower keeps a position and asks for the block there. Who keeps up finds it in the cache; who is behind has it read
from the log. The writer never waits for a reader.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeVar

from trunkline.core.errors import PositionOutOfRange, StreamClosed, TrunklineError

from .block_cache import CACHE_BYTES_MAX, BlockCache
from .event_block import EventBlock, Events
from .matcher import Matcher
from .tasks import Tasks

READ_BYTES = 1 << 20
"""Read from the log at a time for those who are behind."""
READS_MAX = 4
"""Reads of one stream at a time."""

Block = TypeVar("Block")
BlockRead = TypeVar("BlockRead", covariant=True)


class Readable(Protocol[BlockRead]):
    """The reading half of a log."""

    @property
    def first_offset(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    def on_durable(self, listener: Callable[[BlockRead], None], told: Callable[[], None]) -> object: ...
    async def read(self, offset: int, *, max_bytes: int, index_only: bool = False) -> Sequence[BlockRead]: ...


class Follower(Protocol):
    """A tap or a subscription."""

    def pump(self) -> bool:
        """Send what can be sent. True: there is more, and others may go first."""

    def flush(self) -> None:
        """Everybody has been pumped: let what was sent go out."""

    def missing(self, first_offset: int) -> None:
        """What it asked for was removed by retention."""

    def move(self, incarnation: int, cut: int) -> None:
        """The stream goes on in another incarnation: records below `cut` are the same, those from it on are gone."""

    def fail(self, error: TrunklineError) -> None:
        """The stream cannot be read."""


def history_cut(cut: int) -> StreamClosed:
    """What those are told who were given something that is not there any more: they have to come again."""
    return StreamClosed(f"the stream has another history from offset {cut} on: subscribe again")


class Dispatcher(Generic[Block]):
    """One per stream. `wrap` makes an EventBlock of a log's block that covers from the given offset on."""

    def __init__(
        self,
        log: Readable[Block],
        wrap: Callable[[Block, int], EventBlock],
        tasks: Tasks,
        *,
        cache_bytes: int = CACHE_BYTES_MAX,
    ) -> None:
        self.matcher = Matcher()
        self.cache = BlockCache(cache_bytes)
        self.end = log.next_offset
        """Every event below is durable."""
        self.followers: dict[Follower, None] = {}
        self._log = log
        self._wrap = wrap
        self._tasks = tasks
        self._awake: dict[Follower, None] = {}
        self._scheduled = False
        self._loading: dict[int, dict[Follower, None]] = {}
        self._reads = asyncio.Semaphore(READS_MAX)
        self._closed = False
        self._histories = 0
        """How often the log was recovered: what was read before may be of a history that was cut."""

    @property
    def first_offset(self) -> int:
        """The first offset that is kept."""
        return self._log.first_offset

    def start(self) -> None:
        """Listen to the log."""
        self._log.on_durable(self._on_durable, self._pump)

    def rejoin(self) -> None:
        """The log was recovered; what was told as durable is there, unless its history was cut."""
        self._histories += 1
        self.cache.clear()
        self.end = self._log.next_offset
        self._awake.update(self.followers)
        self._schedule()

    def close(self) -> None:
        """Bring nothing any more."""
        self._closed = True
        self.followers.clear()
        self._awake.clear()

    def attach(self, follower: Follower) -> None:
        """Bring it blocks from now on."""
        self.followers[follower] = None
        self.wake(follower)

    def detach(self, follower: Follower) -> None:
        """No more of that."""
        self.followers.pop(follower, None)
        self._awake.pop(follower, None)

    def wake(self, follower: Follower) -> None:
        """Let it go on in the next turn of the loop."""
        if follower in self.followers:
            self._awake[follower] = None
            self._schedule()

    def block_at(self, offset: int) -> EventBlock | None:
        """The block that covers an offset below `end`, if it is at hand; otherwise `load` it."""
        return self.cache.find(offset)

    def load(self, offset: int, follower: Follower) -> None:
        """Read the block at an offset, then wake the follower (or tell it that it is `missing`, or why it failed)."""
        waiting = self._loading.get(offset)
        if waiting is not None:
            waiting[follower] = None
            return
        self._loading[offset] = {follower: None}
        self._tasks.spawn(self._load(offset), "events: read blocks")

    async def event_at(self, offset: int) -> memoryview | None:
        """The event at an offset, serialized; None if it is not kept any more."""
        block = await self.block_of(offset)
        return None if block is None else block.event_at(offset)

    async def block_of(self, offset: int) -> EventBlock | None:
        """The block that covers an offset, read if it is not at hand; None if it is not kept any more."""
        block = self.cache.find(offset)
        if block is not None or offset >= self.end:
            return block
        try:
            read = await self._log.read(offset, max_bytes=1)
        except PositionOutOfRange:
            return None
        return self._wrap(read[0], offset) if read else None

    async def read(self, offset: int, *, index_only: bool = False) -> list[EventBlock]:
        """Blocks from an offset on, past the cache; those of an index have no events in them. What reading raises."""
        wrapped: list[EventBlock] = []
        async with self._reads:
            read = await self._log.read(offset, max_bytes=READ_BYTES, index_only=index_only)
        for block in read:
            wrapped.append(self._wrap(block, wrapped[-1].end if wrapped else offset))
        return wrapped

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Work for a follower, in the background."""
        self._tasks.spawn(work, name)

    async def _load(self, offset: int) -> None:
        failure: TrunklineError | None = None
        try:
            async with self._reads:
                if self.cache.find(offset) is None:  # else a read that went before has brought it
                    await self._read(offset)
        except TrunklineError as error:
            failure = error
        waiting = self._loading.pop(offset)
        for follower in waiting:
            if follower not in self.followers:
                continue
            if isinstance(failure, PositionOutOfRange):
                follower.missing(self._log.first_offset)
            elif failure is not None:
                follower.fail(failure)
            self.wake(follower)

    async def _read(self, offset: int) -> None:
        end, histories = self.end, self._histories
        blocks = await self._log.read(offset, max_bytes=READ_BYTES)
        if histories == self._histories:
            self._take_in(offset, end, blocks)

    def _take_in(self, offset: int, end: int, blocks: Sequence[Block]) -> None:
        position = offset
        for block in blocks:
            wrapped = self._wrap(block, position)
            self.cache.put(wrapped)
            position = wrapped.end
        if not blocks and offset < end:
            self.cache.put(EventBlock(_Nothing(), (), start=offset, end=end))

    def _on_durable(self, block: Block) -> None:
        if self._closed:
            return
        wrapped = self._wrap(block, self.end)
        self.cache.put(wrapped)
        self.end = wrapped.end
        self._awake.update(self.followers)

    def _schedule(self) -> None:
        if not self._scheduled and self._awake:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._pump_as_scheduled)

    def _pump_as_scheduled(self) -> None:
        self._scheduled = False
        self._pump()

    def _pump(self) -> None:
        """Also in the turn in which events became durable: another one is what those that come alone wait for longest."""
        awake, self._awake = self._awake, {}
        for follower in awake:
            if follower not in self.followers:
                continue
            try:
                if follower.pump():
                    self._awake[follower] = None
            except Exception as error:  # a bug: it is reported, and the others go on
                loop = asyncio.get_running_loop()
                loop.call_exception_handler({"message": "a follower failed", "exception": error})
        for follower in awake:
            follower.flush()
        self._schedule()


class _Nothing:
    """Offsets without events."""

    count = 0
    time_ns = 0
    topics: Sequence[str] = ()
    topic_ids: Sequence[int] = ()
    payload = b""
    ends = array("I")
    key_hashes: Sequence[int] | None = ()


_: type[Events] = _Nothing
