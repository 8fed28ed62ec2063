"""The loop that looks for leases that ran out, and the one that takes back those that were heard of after all.

A look has two steps: what is queued is read first; then what had run out when the look began, and was not renewed by
what was read, is judged and written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from trunkline.core.clock import Clock
from trunkline.core.errors import TrunklineError
from trunkline.server.journal.control.sequencer import Origin, Sequencer

from . import decisions
from .decisions import Decide, Target
from .entity import InstanceKey
from .guard import Lapse
from .lease_keeper import LeaseKeeper

log = logging.getLogger(__name__)

AUTHOR = "trunkline"
"""Author of the records that nobody asked for."""
READ_TURNS = 4
"""Turns of the loop from bytes on a socket to a renewed lease: transport, stream, task, and one to spare."""
SILENT_AGE_PERCENT = 5
"""Who is silent is counted again after this part of the shortest TTL of those that have run out. Who fell silent with
them, a third of a TTL later at most, is past `silent_percent` then."""
JUDGED_MAX = 128
"""Leases that are judged between two looks at the loop."""
RETENTION_OVER = "kept for as long as lapsed instances are"
ANOTHER_SERVES = "another instance of its service serves"
OPERATOR = "an operator ended the pause"

T = TypeVar("T")


class Expiry:
    """Ends leases. `run` owns the loops; nothing happens without it."""

    def __init__(self, keeper: LeaseKeeper, sequencer: Sequencer, clock: Clock, *, node_id: int) -> None:
        self.keeper = keeper
        self.config = keeper.config.expiry
        self.failures = 0
        """Writes that failed; what they were about is tried again."""
        self._sequencer = sequencer
        self._clock = clock
        self._node_id = node_id
        self._served: set[tuple[str, str]] = set()  # services in which an instance began to serve
        self._heard = asyncio.Event()
        self._reviewed_ns = 0
        self._counted: dict[str, int] = {}
        self._counted_ns: int | None = None
        self._held_ns = 0

    async def run(self) -> None:
        """Look for what ran out, and restore what was heard of, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_forever(), name="lease expiry")
            tasks.create_task(self._restore_forever(), name="lease restoring")

    def begin(self) -> None:
        """After a start: what was kept has a TTL to be heard of before it goes because others serve."""
        kept = [self.keeper.fold.of_lease(lease_id) for ids in self.keeper.kept_of.values() for lease_id in ids]
        ttl_ms = max((entry.lease.ttl_ms for entry in kept if entry is not None), default=0)
        self._held_ns = self._clock.now_ns() + ttl_ms * 1_000_000
        self._served.update(self.keeper.kept_of)

    def heard(self) -> None:
        """A lapsed lease was heard of: it stands in the keeper's `restoring`."""
        self._heard.set()

    def serves(self, namespace: str, service: str) -> None:
        """An instance of the service began to serve: those kept for want of it may go."""
        if (namespace, service) in self.keeper.kept_of:
            self._served.add((namespace, service))

    # Looking.

    async def _look_forever(self) -> None:
        self._tick()
        while True:
            await asyncio.sleep(self.config.tick_ms / 1_000)
            try:
                await self.look()
            except TrunklineError as error:
                self.failures += 1
                log.warning("leases not expired", extra={"reason": error.code, "error": error.message})
                await asyncio.sleep(self.config.retry_ms / 1_000)

    async def look(self) -> None:
        """One look."""
        began_ns = self._clock.now_ns()
        self._tick()
        await self._read_queued()
        now_ns = self._clock.now_ns()
        self.keeper.observe(now_ns)
        if self.keeper.settled_ns is not None and now_ns < self.keeper.settled_ns:
            return
        await self._expire(began_ns)
        await self._end_pauses()
        await self._release_served()
        await self._release(self.keeper.over(began_ns), RETENTION_OVER)

    def _tick(self) -> None:
        now_ns = self._clock.now_ns()
        self.keeper.observe(now_ns)
        self.keeper.stalls.ticked(now_ns)

    async def _read_queued(self) -> None:
        """Let the loop take in what has arrived: a busy server must not take its own backlog for silence."""
        await asyncio.sleep(self.config.read_ms / 1_000)
        for _ in range(READ_TURNS):
            await asyncio.sleep(0)

    async def _expire(self, cutoff_ns: int) -> None:
        """A part at a time: those of a mass lapse that are not judged yet count as silent."""
        for _ in range(len(self.keeper.live) // JUDGED_MAX + 1):
            due = self.keeper.due(cutoff_ns, limit=JUDGED_MAX)
            if due:
                await self._judge(due, cutoff_ns)
            if len(due) < JUDGED_MAX:
                return

    async def _judge(self, due: Sequence[Lapse], cutoff_ns: int) -> None:
        keeper = self.keeper
        silent = await self._silent(max_age_ms=min(lapse.ttl_ms for lapse in due) * SILENT_AGE_PERCENT // 100)
        # Counting took its time: what was heard of meanwhile has not lapsed, and must not count with the guard.
        due = [lapse for lapse in due if keeper.is_due(lapse.lease_id, cutoff_ns)]
        now_ns = self._clock.now_ns()
        paused = set(keeper.guard.paused())
        judged = keeper.guard.judge(due, keeper.fold, keeper.served_ns(now_ns), silent=silent)
        for lapse in due:  # the guard counts them from now on
            silent[lapse.instance.namespace] = max(0, silent.get(lapse.instance.namespace, 0) - 1)
        for namespace in keeper.guard.paused():
            if namespace not in paused:
                why = keeper.guard.explain(namespace, keeper.fold)
                log.warning("expiry paused", extra={"namespace": namespace, "why": why})
        by_why: dict[tuple[bool, str], list[Lapse]] = {}
        for judgement in judged:
            by_why.setdefault((judgement.keep, judgement.why), []).append(judgement.lapse)
        for (keep, why), lapses in by_why.items():
            await self._write_lapses(lapses, cutoff_ns, keep=keep, why=why)

    async def _silent(self, *, max_age_ms: int) -> dict[str, int]:
        """How many live leases of each namespace are about to lapse. A copy would lose what `_judge` takes off."""
        now_ns = self._clock.now_ns()
        if self._counted_ns is None or now_ns >= self._counted_ns + max_age_ms * 1_000_000:
            counts: dict[str, int] = {}
            for _ in self.keeper.count_silent(counts, now_ns):
                await asyncio.sleep(0)
            self._counted, self._counted_ns = counts, now_ns
        return self._counted

    async def _write_lapses(self, lapses: Sequence[Lapse], cutoff_ns: int, *, keep: bool, why: str) -> None:
        for batch in _batches(lapses, self.config.batch_max):
            # Earlier batches took their time: some of these may have been renewed.
            still = [Target(x.instance, x.lease_id) for x in batch if self.keeper.is_due(x.lease_id, cutoff_ns)]
            if still:
                await self._write(decisions.lapse(still) if keep else decisions.expire(still, lapsed=False), why)

    async def _write(self, decide: Decide, why: str, author: str = AUTHOR) -> int:
        written = await self._sequencer.write(decide, Origin(author=author, reason=why))
        self._tick()  # if the disk was slow, that was ours and not the holders' doing
        return len(written.records)

    # Letting go of what was kept.

    async def _end_pauses(self) -> None:
        keeper = self.keeper
        now_ns = self._clock.now_ns()
        if now_ns < self._reviewed_ns + self.config.review_ms * 1_000_000:
            return
        self._reviewed_ns = now_ns
        silent = await self._silent(max_age_ms=0) if keeper.guard.paused() else {}
        for ended in keeper.guard.review(keeper.fold, keeper.served_ns(now_ns), silent=silent):
            log.info("expiry goes on", extra={"namespace": ended.namespace, "why": ended.why})
            self._served.update(keeper.kept_in(ended.namespace))

    async def _release_served(self) -> None:
        """Instances that were kept as the last go when another serves, unless expiry is paused."""
        keeper = self.keeper
        if self._clock.now_ns() < self._held_ns:
            return
        paused = set(keeper.guard.paused())
        served = sorted(service for service in self._served if service[0] not in paused)
        for service in served:
            if keeper.fold.serving(*service):
                await self._release(list(keeper.kept_of.get(service, ())), ANOTHER_SERVES)
            self._served.discard(service)

    async def end_pause(self, namespace: str, *, author: str, reason: str) -> int:
        """An operator lets all lapsed instances of a namespace go, the last of a service too. How many went."""
        self.keeper.guard.end(namespace)
        kept = [lease_id for service in self.keeper.kept_in(namespace) for lease_id in self.keeper.kept_of[service]]
        return await self._release(kept, reason or OPERATOR, author)

    async def _release(self, lease_ids: Sequence[int], why: str, author: str = AUTHOR) -> int:
        """Remove instances that were kept, unless they were heard of. How many."""
        removed = 0
        for batch in _batches(lease_ids, self.config.batch_max):
            targets = self._targets(lease_id for lease_id in batch if lease_id not in self.keeper.restoring)
            if targets:
                removed += await self._write(decisions.expire(targets, lapsed=True), why, author)
        return removed

    def _targets(self, lease_ids: Iterable[int]) -> list[Target]:
        entries = ((lease_id, self.keeper.fold.of_lease(lease_id)) for lease_id in lease_ids)
        return [Target(InstanceKey.of(e.registered.instance), lease_id) for lease_id, e in entries if e is not None]

    # Restoring.

    async def _restore_forever(self) -> None:
        while True:
            await self._heard.wait()
            self._heard.clear()
            try:
                await self._restore()
            except TrunklineError as error:
                self.failures += 1
                log.warning("leases not restored", extra={"reason": error.code, "error": error.message})
                await asyncio.sleep(self.config.retry_ms / 1_000)
                self._heard.set()

    async def _restore(self) -> None:
        restoring = self.keeper.restoring
        while restoring:
            batch = list(islice(restoring, self.config.batch_max))
            decide = decisions.restore(self._targets(batch), node_id=self._node_id)
            await self._sequencer.write(decide, Origin(author=AUTHOR, reason="keep-alive"))
            for lease_id in batch:
                restoring.pop(lease_id, None)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]
