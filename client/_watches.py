"""All watches of a connection over one stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from trunkline.api import convert
from trunkline.api.status import failure_from
from trunkline.api.v1.discovery_pb2 import (
    AcknowledgeWatch,
    CancelWatch,
    OpenWatch,
    WatchEvent,
    WatchRequest,
    WatchResponse,
)
from trunkline.core.clock import Clock
from trunkline.core.errors import RevisionCompacted, RevisionInFuture, TokenForeign, TokenMalformed, TrunklineError

from ._backoff import Backoff
from ._duplex import Duplex
from ._link import Link
from ._options import ClientOptions
from ._view import View
from ._view_cache import ViewCache

log = logging.getLogger("trunkline.client")

TOKEN_OF_NO_USE = (RevisionCompacted, RevisionInFuture, TokenForeign, TokenMalformed)
"""Refusals that a start from a snapshot cures."""
STALENESS_LOOKS = 5
"""How often in `stale_after_s` the clock is looked at."""


class Watches:
    """Opens, resumes and acknowledges; views fold what comes."""

    def __init__(
        self,
        link: Link,
        clock: Clock,
        backoff: Backoff,
        options: ClientOptions,
        *,
        client: str,
        cache: ViewCache | None,
    ) -> None:
        self.silent_after_s: float | None = options.silent_after_s
        self._link = link
        self._clock = clock
        self._options = options
        self._client = client
        self._cache = cache
        self._views: dict[int, View] = {}
        self._last_id = 0
        self._said: list[WatchRequest] = []
        self._applied: dict[int, int] = {}
        """Revisions to acknowledge, by watch; the latest of a turn stands for all."""
        self._resting: set[int] = set()
        """Refused watches, until they are asked for again."""
        self._reopen = backoff
        self._stream: Duplex[WatchRequest, WatchResponse] = Duplex(
            link, lambda stubs: stubs.discovery.Watch, self, backoff
        )

    @property
    def views(self) -> Sequence[View]:
        """Those that are open."""
        return list(self._views.values())

    def open(self, view: View) -> None:
        """Begin to watch; the view is told what comes."""
        self._last_id += 1
        self._views[self._last_id] = view
        self._said.append(self._open_request(self._last_id, view))
        self._stream.wake()

    def close(self, view: View) -> None:
        """Watch no more."""
        self._link.guard.check()
        for watch_id, open_view in list(self._views.items()):
            if open_view is view:
                del self._views[watch_id]
                self._applied.pop(watch_id, None)
                self._said.append(WatchRequest(cancel=CancelWatch(watch_id=watch_id)))
        if self._views:
            self._stream.wake()
        else:
            self._stream.rest()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stream.run())
            tasks.create_task(self._look_at_clock())
            if self._cache is not None:
                tasks.create_task(self._cache.run())

    async def _look_at_clock(self) -> None:
        stale_after_ns = int(self._options.stale_after_s * 1e9)
        while True:
            await asyncio.sleep(self._options.stale_after_s / STALENESS_LOOKS)
            error = self._link.last_error
            reason = str(error) if error is not None else "nothing heard of the control plane"
            for view in self._views.values():
                view.look_at_clock(stale_after_ns, reason)

    def opening(self) -> Sequence[WatchRequest]:
        self._said.clear()
        self._applied.clear()
        self._resting.clear()
        return [self._open_request(watch_id, view) for watch_id, view in self._views.items()]

    def outgoing(self) -> Sequence[WatchRequest]:
        said, self._said = self._said, []
        applied, self._applied = self._applied, {}
        said.extend(
            WatchRequest(acknowledge=AcknowledgeWatch(watch_id=watch_id, revision=revision))
            for watch_id, revision in applied.items()
        )
        return said

    def received(self, response: WatchResponse) -> None:
        for event in response.events:
            view = self._views.get(event.watch_id)
            if view is None:
                continue  # cancelled meanwhile
            if event.kind == WatchEvent.KIND_ENDED:
                self._ended(event.watch_id, view, failure_from(event.error))
            elif view.apply(event):
                self._applied[event.watch_id] = event.revision
                if self._cache is not None and event.kind != WatchEvent.KIND_BOOKMARK:
                    self._cache.store(view)
        if self._applied:
            self._stream.wake()

    def lost(self, error: TrunklineError) -> None:
        for view in self._views.values():
            view.state.disconnected()
            view.refused(error)

    def _ended(self, watch_id: int, view: View, error: TrunklineError) -> None:
        del self._views[watch_id]
        self._applied.pop(watch_id, None)
        if isinstance(error, TOKEN_OF_NO_USE) and view.state.resume_token:
            log.info("starting over from a snapshot", extra={"service": view.service, "error": str(error)})
            view.state.forget_token()
            self.open(view)
            return
        view.refused(error)
        log.warning("watch refused", extra={"service": view.service, "error": str(error)})
        self._last_id += 1
        self._views[self._last_id] = view
        self._resting.add(self._last_id)
        wait_s = self._reopen.next_s(limit_s=self._options.silent_after_s)
        asyncio.get_running_loop().call_later(wait_s, self._open_again, self._last_id)

    def _open_again(self, watch_id: int) -> None:
        if watch_id in self._resting and watch_id in self._views:
            self._resting.discard(watch_id)
            self._said.append(self._open_request(watch_id, self._views[watch_id]))
            self._stream.wake()

    def _open_request(self, watch_id: int, view: View) -> WatchRequest:
        return WatchRequest(
            open=OpenWatch(
                watch_id=watch_id,
                namespace=view.namespace,
                service=view.service,
                selector=convert.selector_to(view.selector),
                resume_token=view.state.resume_token,
                credit=self._options.watch_credit,
                client=self._client,
            )
        )
