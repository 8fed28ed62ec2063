"""A live view of a service: what discovery last said, and how old that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from trunkline.api.v1.discovery_pb2 import WatchEvent
from trunkline.api.v1.policy_pb2 import EffectivePolicy
from trunkline.core.clock import Clock
from trunkline.core.errors import TrunklineError
from trunkline.core.model import RegisteredInstance
from trunkline.core.policy import PLAIN, Policy
from trunkline.core.selector import Selector

from ._changes import Change, ChangeQueue, Fresh, Reset, Stale, Updated
from ._view_state import ViewState

Listener = Callable[[Change], None]
"""Called on the event loop after each change; what it does is part of having applied the change."""


class View:
    """The instances of one service (or of a whole namespace) that match a selector, and how they are called.

    It lives on when the control plane is away, with what was last known. A resync is swapped in whole: there is no
    empty moment in between.
    """

    def __init__(
        self, *, namespace: str, service: str, selector: Selector, clock: Clock, changes_max: int,
        close: Callable[[View], None],
    ) -> None:  # fmt: skip
        self.namespace = namespace
        self.service = service
        """Empty when every service of the namespace is watched."""
        self.selector = selector
        self._clock = clock
        self._changes_max = changes_max
        self._close = close
        self._state = ViewState()
        self._heard_ns = clock.now_ns()
        self._stale: Stale | None = None
        self._from_cache = False
        self._listeners: list[Listener] = []
        self._queues: set[ChangeQueue] = set()
        self._settled = asyncio.Event()
        self._error: TrunklineError | None = None
        self._closed = False

    @property
    def instances(self) -> tuple[RegisteredInstance, ...]:
        """In order of service and id. The same tuple until something changes."""
        return self._state.instances

    @property
    def policy(self) -> Policy:
        """How the service is called; in a view of a whole namespace, what holds where nothing else is said."""
        return self.policy_of(self.service)

    def policy_of(self, service: str) -> Policy:
        """How a service of this view is called."""
        policies = self._state.policies
        return policies.get(service) or policies.get("") or PLAIN

    @property
    def policies(self) -> Mapping[str, Policy]:
        """How services are called, as far as anything is said, by service; see `policy_of`."""
        return self._state.policies

    @property
    def revision(self) -> int:
        """Everything up to this revision of the control stream is in `instances`."""
        return self._state.revision

    @property
    def from_cache(self) -> bool:
        """True until the control plane was heard, when this is what an earlier process last knew."""
        return self._from_cache

    @property
    def is_stale(self) -> bool:
        """The control plane has not been heard for longer than `stale_after_s`, or not yet."""
        return self._stale is not None

    @property
    def error(self) -> TrunklineError | None:
        """Why the control plane refuses this watch, or cannot be reached; None while all is well."""
        return self._error

    def staleness(self) -> float:
        """Seconds since the control plane last confirmed this state."""
        return max(0, self._clock.now_ns() - self._heard_ns) / 1e9

    async def changes(self) -> AsyncIterator[Change]:
        """A Reset with the present state, then every change. A reader that is too slow gets another Reset."""
        queue = ChangeQueue(self._changes_max, self._reset)
        queue.offer(self._reset())
        if self._stale is not None:
            queue.offer(self._stale)
        if self._closed:
            queue.end(None)
        self._queues.add(queue)
        try:
            async for change in queue.read():
                yield change
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """Stop watching. What was last known stays readable."""
        if not self._closed:
            self._closed = True
            self._close(self)
            for queue in self._queues:
                queue.end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # What the watch stream does with it.

    @property
    def state(self) -> ViewState:
        """The fold."""
        return self._state

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told of every change, now of the present state; the result ends it."""
        self._listeners.append(listener)
        if self._state.whole:
            listener(self._reset())
        return lambda: self._listeners.remove(listener)

    def apply(self, event: WatchEvent) -> bool:
        """Take one event in and tell everybody; True when what it says is now applied."""
        self._heard_ns = self._clock.now_ns()
        self._error = None
        change = self._state.apply(event)
        if change is None:
            return False
        if not isinstance(change, Fresh) and not _is_empty(change):
            self._tell(change)
        if self._stale is not None or self._from_cache:
            self._stale, self._from_cache = None, False
            self._tell(Fresh(self._state.revision))
        if self._state.whole:
            self._settled.set()
        return True

    def restore(
        self, instances: tuple[RegisteredInstance, ...], revision: int, resume_token: bytes, age_ns: int,
        policies: Iterable[EffectivePolicy] = (),
    ) -> None:  # fmt: skip
        """Take up what an earlier process knew `age_ns` ago."""
        self._state.restore(instances, revision, resume_token, policies)
        self._heard_ns = self._clock.now_ns() - age_ns
        self._from_cache = True
        self._stale = Stale(revision, "from the cache folder")
        self._tell(self._reset())
        self._tell(self._stale)

    def look_at_clock(self, stale_after_ns: int, reason: str) -> None:
        """Say Stale when nothing was heard for so long."""
        if self._stale is None and self._clock.now_ns() - self._heard_ns >= stale_after_ns:
            self._stale = Stale(self._state.revision, reason)
            self._tell(self._stale)

    def refused(self, error: TrunklineError) -> None:
        """The control plane refuses the watch, or cannot be reached."""
        self._error = error
        self._settled.set()

    async def settled(self) -> None:
        """Return when there is a first state, or a reason why not."""
        await self._settled.wait()
        self._settled.clear()

    def _reset(self) -> Reset:
        return Reset(self._state.revision, self._state.instances, self._state.policies)

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)
        for queue in self._queues:
            queue.offer(change)


def _is_empty(change: Change) -> bool:
    return isinstance(change, Updated) and not (change.added or change.changed or change.removed or change.policies)
