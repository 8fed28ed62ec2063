"""Publishes what is set aside to dead-letter streams. The event is done when its dead letter is durable, not before.

Between the two lies a checkpoint that a crash may take away. What may have been published before the start is therefore
looked for in the dead-letter stream by its id hash, wherever it lies: the window in which the stream recognises repeats may
have passed. Within one process that window does, because a publish whose outcome is unknown is repeated soon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from trunkline.core.clock import Clock
from trunkline.core.errors import DeadlineExceeded, TrunklineError
from trunkline.core.wire import Scan
from trunkline.server.journal.control.sequencer import Origin

from .dead_letter import dead_letter, is_fit, scanned
from .feed import Feed
from .progress import SetAside
from .stream import EventStream
from .streams import Streams

log = logging.getLogger(__name__)

BATCH: Final = 100
"""Published at once."""
PUBLISH_WITHIN_S: Final = 60.0
"""A batch, the search for those that are there included: a stream that hangs keeps no other waiting for longer."""
RETRY_S: Final = 1.0
RETRY_S_MAX: Final = 60.0
CLOCK_SLACK_NS: Final = 60_000_000_000
"""A dead letter is no older than its event, but their streams' clocks may differ by a step of the machine's."""
SLICE_IDS: Final = 65_536
ORIGIN: Final = Origin(author="trunkline/dead-letters")


class _Pause(NamedTuple):
    until_ns: int
    pause_s: float


_NO_PAUSE: Final = _Pause(0, RETRY_S / 2)


class DeadLetters:
    """`mark` whoever has set something aside; `run` publishes."""

    def __init__(self, streams: Streams, clock: Clock) -> None:
        self.failures: dict[Feed, TrunklineError] = {}
        """Why the dead letters of these wait."""
        self.first_ns: dict[Feed, int] = {}
        """When each had its first dead letter since the start or the last redrive, in nanoseconds since the epoch."""
        self.unfit: dict[Feed, set[int]] = {}
        """Offsets of events that cannot become dead letters: they stay set aside."""
        self._streams = streams
        self._clock = clock
        self._due: dict[Feed, None] = {}
        self._pauses: dict[Feed, _Pause] = {}
        self._work = asyncio.Event()

    def mark(self, feed: Feed) -> None:
        """It has set something aside."""
        self._due[feed] = None
        self._work.set()

    def forget(self, feed: Feed) -> None:
        """It is gone."""
        self._due.pop(feed, None)
        self._pauses.pop(feed, None)
        for known in (self.failures, self.first_ns, self.unfit):
            known.pop(feed, None)

    def looked_after(self, feed: Feed) -> None:
        """Somebody knows of its dead letters: the next one is the first again."""
        self.first_ns.pop(feed, None)

    async def run(self) -> None:
        """Publish, until cancelled. What fails is tried again, each with a pause that grows."""
        while True:
            self._work.clear()
            now_ns = self._clock.now_ns()
            for feed in [feed for feed in self._due if self._pauses.get(feed, _NO_PAUSE).until_ns <= now_ns]:
                del self._due[feed]
                if await self._publish_of(feed):
                    self._pauses.pop(feed, None)
                elif not feed.is_closed:
                    self._put_off(feed)
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._due else None):
                    await self._work.wait()

    def _put_off(self, feed: Feed) -> None:
        pause_s = min(2 * self._pauses.get(feed, _NO_PAUSE).pause_s, RETRY_S_MAX)
        self._pauses[feed] = _Pause(self._clock.now_ns() + int(pause_s * 1e9), pause_s)
        self._due[feed] = None

    async def _publish_of(self, feed: Feed) -> bool:
        """Publish all that a subscription has set aside; whether that went well."""
        _, namespace, name, _ = feed.key.split("/", 3)
        try:
            stream = self._streams.peek(namespace, name)
            if stream is None:
                return True
            target = await self._streams.get(namespace, feed.settings.dead_letter_stream, ORIGIN, make=False)
            while asides := self._next(feed):
                await _in_time(self._publish(feed, stream, target, asides))
        except TrunklineError as error:
            log.warning("dead letters not published", extra={"subscription": feed.key, "reason": error.code})
            self.failures[feed] = error
            feed.maybe_lettered_below = feed.state.delivered_to  # the outcome of what was tried is not known
            return False
        self.failures.pop(feed, None)
        return True

    def _next(self, feed: Feed) -> list[SetAside]:
        unfit = self.unfit.get(feed, set())
        waiting = (aside for aside in feed.state.set_aside.values() if aside.offset not in unfit)
        return [aside for aside, _ in zip(waiting, range(BATCH), strict=False)]

    async def _publish(self, feed: Feed, stream: EventStream, target: EventStream, asides: list[SetAside]) -> None:
        letters, kept = [], []
        oldest_ns = self._clock.time_ns()
        for aside in asides:
            block = await stream.dispatcher.block_of(aside.offset)
            body = None if block is None else block.event_at(aside.offset)
            if block is None or body is None:
                feed.state.bury(aside)  # retention has removed the event: nothing is left to keep
                continue
            letter = dead_letter(
                bytes(body),
                aside,
                key=feed.key,
                created_revision=feed.created_revision,
                incarnation=stream.incarnation_of(aside.offset),
            )
            if is_fit(letter, namespace=target.namespace, stream=target.name):
                letters.append(letter)
                kept.append(aside)
                oldest_ns = min(oldest_ns, block.time_ns)
            else:
                log.warning("too large for a dead letter", extra={"subscription": feed.key, "offset": aside.offset})
                self.unfit.setdefault(feed, set()).add(aside.offset)
        if not letters:
            feed.wake()
            return
        scan = scanned(letters, namespace=target.namespace, stream=target.name)
        there = await self._there(feed, target, kept, scan, oldest_ns - CLOCK_SLACK_NS)
        wanted = [letter for letter, aside in zip(letters, kept, strict=True) if aside not in there]
        if wanted:
            await target.publish(scanned(wanted, namespace=target.namespace, stream=target.name), require_sync=0)
        self._buried(feed, kept)

    def _buried(self, feed: Feed, asides: Iterable[SetAside]) -> None:
        if feed not in self.first_ns:
            log.error("first dead letter", extra={"subscription": feed.key})
            self.first_ns[feed] = self._clock.time_ns()
        for aside in asides:
            feed.state.bury(aside)
        feed.wake()

    async def _there(
        self, feed: Feed, target: EventStream, asides: list[SetAside], scan: Scan, from_ns: int
    ) -> Collection[SetAside]:
        """Those whose dead letter the stream holds already, of those that may have one."""
        hashes = scan.id_hashes
        wanted = {
            (hashes[2 * i], hashes[2 * i + 1]): aside
            for i, aside in enumerate(asides)
            if aside.offset < feed.maybe_lettered_below
        }
        found: list[SetAside] = []
        if wanted:
            since_pause = 0
            log_ = target.event_log.log
            async for column in log_.ids(from_time_ns=from_ns, max_ids=log_.next_offset):
                ids = column.id_hashes
                pairs = zip(ids[::2], ids[1::2], strict=True)
                found += [wanted[pair] for pair in wanted.keys() & set(pairs)]
                since_pause += len(ids) // 2
                if since_pause >= SLICE_IDS:
                    since_pause = 0
                    await asyncio.sleep(0)
        return found


async def _in_time(publish: Coroutine[Any, Any, None]) -> None:
    """DeadlineExceeded when it takes too long; its outcome is not known then."""
    try:
        async with asyncio.timeout(PUBLISH_WITHIN_S):
            await publish
    except TimeoutError:
        raise DeadlineExceeded(f"not durable within {PUBLISH_WITHIN_S:.0f} s") from None
