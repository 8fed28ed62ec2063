"""Gives the hub its turns on the event loop, for work in slices and for bookmarks, and waits on its behalf."""

from __future__ import annotations

import asyncio

from trunkline.core.clock import Clock, Rng

from . import wire
from .applied import AppliedResult
from .policy_view import PolicyView
from .registry_view import RegistryView
from .tokens import TokenMaker
from .watch_config import WatchConfig
from .watch_hub import WatchHub


class WatchLoop:
    """Owns a hub. Nothing happens by itself until `run` is awaited."""

    def __init__(
        self,
        registry: RegistryView,
        tokens: TokenMaker,
        *,
        clock: Clock,
        rng: Rng,
        encoded: wire.EncodedInstances,
        config: WatchConfig | None = None,
        policies: PolicyView | None = None,
    ) -> None:
        self._work = asyncio.Event()
        self.hub = WatchHub(
            registry,
            tokens,
            clock=clock,
            rng=rng,
            on_work=self._work.set,
            encoded=encoded,
            config=config or WatchConfig(),
            policies=policies,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_work(), name="watch work")
            tasks.create_task(self._run_ticks(), name="watch bookmarks")

    async def _run_work(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            self.hub.work()  # sets the event again when there is more
            await asyncio.sleep(0)  # others get the loop between two slices

    async def _run_ticks(self) -> None:
        while True:
            await asyncio.sleep(self.hub.config.tick_ms / 1_000)
            self.hub.tick()

    async def wait_applied(
        self, namespace: str, service: str, instance_id: str | None, revision: int, limit_ns: int
    ) -> AppliedResult:
        """Return when every watcher that matters has acknowledged `revision` or has gone, or after `limit_ns`.

        With an `instance_id` those matter that could route to it before its change at `revision`; without, every watch
        of the service, or of the namespace when `service` is empty. The result names those that are late.

        Raises RevisionInFuture, LimitExceeded (too many wait).
        """
        done = asyncio.Event()
        wait = self.hub.begin_wait(namespace, service, instance_id, revision, done.set)
        try:
            if wait.pending:
                await _until(done, limit_ns)
        finally:
            late = self.hub.end_wait(wait)
        return AppliedResult(late)


async def _until(done: asyncio.Event, limit_ns: int) -> None:
    try:
        async with asyncio.timeout(limit_ns / 1e9):
            await done.wait()
    except TimeoutError:
        return  # the limit is an answer, not a failure
